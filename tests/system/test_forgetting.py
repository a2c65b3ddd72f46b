"""`visavis demo --fresh` right after a kill: what dies still writes, and nothing is removed under it."""

import asyncio
import fcntl
from pathlib import Path

import visavis_demo


async def test_a_folder_is_removed_once_nobody_lives_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "postgresql"
    (folder / "data").mkdir(parents=True)
    for name in ("bot", "kept"):
        (tmp_path / name).mkdir()
    with (folder / "alive").open("w") as alive:  # as every child of an earlier start holds it
        fcntl.flock(alive, fcntl.LOCK_EX)
        forgetting = asyncio.create_task(visavis_demo.forget(tmp_path))
        await asyncio.sleep(0.3)
        assert (folder / "data").is_dir()
        assert not forgetting.done()
    await forgetting
    assert {name for name in ("bot", "kept", "postgresql") if (tmp_path / name).is_dir()} == {"kept"}

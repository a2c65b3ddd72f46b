import asyncio

import pytest

from supervision.connections import complete


async def test_complete_ends_what_it_was_given_though_cancelled_and_is_cancelled_behind_it() -> None:
    done: list[str] = []
    begun = asyncio.Event()

    async def act() -> None:
        begun.set()
        await asyncio.sleep(0.02)
        done.append("act")

    task = asyncio.create_task(complete(act()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["act"]


async def test_complete_raises_what_its_act_raises() -> None:
    async def act() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await complete(act())

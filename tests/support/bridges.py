"""`visavis run bridge` (or another part) as a process of its own, to be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from embedded.processes import keep_port
from tests.support.forks import HERE, Fork, Nursery

SENDER = "visavis@clinic.example.org"
SECRET = "x" * 40
METRIC = re.compile(r"^(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


async def write_config(folder: Path, database_url: str, **sections: Mapping[str, Any]) -> Path:
    """A configuration file in this folder, with ports of its own; `sections` are added to the usual values."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a folder of a test
    ports = {name: await keep_port(folder / name, None, "a process of a test") for name in ("port", "metrics_port")}
    values: dict[str, Any] = {
        "secret": SECRET,
        "database": {"url": database_url},
        "matrix": {"homeserver": "http://127.0.0.1:9", "bot": "@visavis:example.org", "as_token": "x" * 40,
                   "store": str(folder / "bot")},
        "mail": {"host": "127.0.0.1", "security": "none", "sender": SENDER},
        "web": {"base_url": "https://visavis.example.org", **ports},
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = values.get(name, {}) | dict(section)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    path.chmod(0o600)
    return path


@dataclass
class Process:
    """One part of Visavis; what it says is appended to `said.txt` beside its configuration.

    With a nursery it is forked there; otherwise it starts from nothing, with `environment` added to ours.
    """

    config: Path
    part: str = "bridge"
    nursery: Nursery | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    running: asyncio.subprocess.Process | Fork | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def run(
        cls, config: Path, part: str = "bridge", *, nursery: Nursery | None = None, **environment: str
    ) -> AsyncIterator[Self]:
        """Start it, and kill it in the end if it runs still."""
        process = cls(config, part, nursery, environment)
        await process.start()
        try:
            yield process
        finally:
            await process.kill()

    @property
    def said(self) -> str:
        return self.config.with_name("said.txt").read_text()

    async def start(self) -> None:
        words, path = ("--config", str(self.config), "run", self.part), self.config.with_name("said.txt")
        if self.nursery is not None:
            self.running = await self.nursery.start(words, said=path, environment=self.environment)
            return
        with path.open("ab") as said:
            self.running = await asyncio.create_subprocess_exec(
                sys.executable, str(HERE / "visavis.py"), *words, cwd=self.config.parent, stdout=said, stderr=said,
                env={**os.environ, **self.environment},
            )  # fmt: skip

    async def kill(self) -> None:
        """`kill -9`."""
        if self.running is not None and self.running.returncode is None:
            self.running.kill()
            await self.running.wait()

    async def stop(self) -> int:
        """End it with SIGTERM and give its exit status."""
        assert self.running is not None
        self.running.terminate()
        return await asyncio.wait_for(self.running.wait(), 90)

    async def metrics(self) -> dict[tuple[str, str], float]:
        """What `/metrics` tells, once it answers: (name, labels as written) -> value."""
        port = yaml.safe_load(self.config.read_text())["web"]["metrics_port"]
        async with aiohttp.ClientSession() as http, asyncio.timeout(90):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectorError):  # it is still starting
                    async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                        text = await answer.text()
                        break
                await asyncio.sleep(0.1)
        return {(name, labels): float(value) for name, labels, value in METRIC.findall(text)}


async def do(nursery: Nursery, config: Path, *words: str) -> str:
    """Run a command of the command line to its end, and give what it prints."""
    said = config.with_name(f"{secrets.token_hex(4)}.txt")
    process = await nursery.start(("--config", str(config), *words), said=said)
    status = await process.wait()
    text = said.read_text()
    assert status == 0, text
    return text

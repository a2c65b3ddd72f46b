"""Drives `driver.mjs`: a person whose client is Element's engine, `matrix-js-sdk` with Rust cryptography.

The engine runs in `OnlySignedDevicesIsolationMode` (MSC4153): it neither gives keys to devices that their
owner has not cross-signed nor shows what such devices say.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.install import INTEROP, node_path

Json = dict[str, Any]


class EngineFailed(Exception):
    """The engine answered a command with an error, or ended; the text is its own."""


@dataclass(frozen=True)
class Event:
    """A timeline event as the engine shows it.

    `failure` is the engine's `DecryptionFailureCode` where it could not or would not show the event
    (`content` is empty then); `shield` is the number of the warning shown beside a readable one
    (`EventShieldReason`), else None.
    """

    event_id: str
    room_id: str
    sender: str
    type: str
    content: Json
    encrypted: bool
    failure: str | None
    shield: int | None

    @property
    def msgtype(self) -> str:
        return str(self.content.get("msgtype", ""))

    @property
    def body(self) -> str:
        return str(self.content.get("body", ""))


class Engine:
    """A logged-in engine. Made by `Engine.log_in`, which also ends it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.user_id = ""
        self.device_id = ""
        self.events: list[Event] = []
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._taken: set[tuple[str, str | None]] = set()
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def log_in(
        cls, homeserver: str, user_id: str, password: str, *, log: Path, signed: bool = True
    ) -> AsyncIterator[Self]:
        """Log in with a fresh device and a fresh identity that signs it; it logs to the file `log`.

        Without `signed` no identity is made, and nobody has signed the device until `cross_sign` or `recover`.
        """
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                node_path(),
                str(INTEROP / "driver.mjs"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                limit=2**22,
            )
        engine = cls(process)
        try:
            account: dict[str, Any] = {"homeserver": homeserver, "user_id": user_id, "password": password}
            made = await engine.command("login", **account, signed=signed)
            engine.user_id, engine.device_id = made["user_id"], made["device_id"]
            yield engine
        finally:
            await engine._end()

    async def cross_sign(self) -> None:
        """Make a fresh identity that signs this device, as a first login does."""
        await self.command("cross_sign")

    async def reset(self) -> None:
        """Give up the identity that there is, and what was kept of it, for a fresh one that signs this device."""
        await self.command("reset")

    async def keep_keys(self) -> str:
        """Put the identity's secrets where another device finds them (Matrix 1.18, "Secrets"); the recovery key."""
        return str((await self.command("keep_keys"))["recovery_key"])

    async def recover(self, recovery_key: str) -> None:
        """Sign this device with the identity whose secrets another one kept."""
        await self.command("recover", recovery_key=recovery_key)

    def failures(self, sender: str) -> set[str]:
        """Why the sender's events could not be shown, those that still cannot."""
        last = {event.event_id: event.failure for event in self.events if event.sender == sender}
        return {failure for failure in last.values() if failure is not None}

    async def join(self, room_id: str, timeout: float = 60) -> None:
        """Wait for the invitation, accept it, and return when the room is known to be encrypted."""
        await self.command("join", room_id=room_id, timeout=timeout)

    async def send_text(self, room_id: str, body: str) -> str:
        """Send an `m.text` and return its event ID."""
        content = {"msgtype": "m.text", "body": body}
        sent = await self.command("send", room_id=room_id, type="m.room.message", content=content)
        return str(sent["event_id"])

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        """Put a reaction under an event and return its own event ID."""
        sent = await self.command("react", room_id=room_id, event_id=event_id, key=key)
        return str(sent["event_id"])

    async def next_event(
        self,
        sender: str,
        satisfying: Callable[[Event], bool] = lambda _: True,
        *,
        room_id: str | None = None,
        timeout: float = 60,
    ) -> Event:
        """The sender's first event that satisfies the predicate and was not returned here before.

        An event that becomes readable later counts anew. Raises TimeoutError with what was told instead.
        """
        try:
            async with asyncio.timeout(timeout):
                while (found := self._find(sender, room_id, satisfying)) is None:
                    if self._reading.done():
                        raise EngineFailed("the engine has ended")
                    await self._news.wait()
        except TimeoutError:
            told = [(event.sender, event.type, event.body[:80], event.failure) for event in self.events[-5:]]
            raise TimeoutError(f"{self.user_id} waited {timeout:g} s; told last {told}") from None
        self._taken.add((found.event_id, found.failure))
        return found

    def _find(self, sender: str, room_id: str | None, satisfying: Callable[[Event], bool]) -> Event | None:
        fresh = (event for event in self.events if (event.event_id, event.failure) not in self._taken)
        here = (event for event in fresh if event.sender == sender and room_id in (None, event.room_id))
        return next((event for event in here if satisfying(event)), None)

    async def command(self, name: str, *, timeout: float = 60, **values: Any) -> Json:
        """Give the engine a command and return its answer; raises EngineFailed or TimeoutError."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        if self._reading.done():
            raise EngineFailed("the engine has ended")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "command": name, **values}).encode() + b"\n")
        await self._process.stdin.drain()
        try:
            return await asyncio.wait_for(answer, timeout)
        finally:
            del self._answers[number]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told: Json = json.loads(line)
            if "event" in told:
                self.events.append(Event(**told["event"]))
                self._wake()
            else:
                self._answer(told)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(EngineFailed("the engine has ended"))
        self._wake()

    def _answer(self, told: Json) -> None:
        waiting = self._answers.get(told["id"])
        if waiting is None or waiting.done():
            return
        if "error" in told:
            waiting.set_exception(EngineFailed(told["error"]))
        else:
            waiting.set_result(told["ok"])

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

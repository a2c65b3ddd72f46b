"""The demo as a process of its own, to be killed and started again, and people who write on meanwhile."""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Self

import aiohttp
import nio

from supervision.config import load
from supervision.db import Database
from tests.support.human import HomeserverRefused, Human

HERE = Path(__file__).resolve().parents[2]

Json = dict[str, Any]


@dataclass
class Demo:
    """`visavis.py demo` on a folder of its own, started last at `started_at`.

    `told` is what the last start that became ready wrote into `demo.json`.
    """

    state: Path
    told: Json = field(default_factory=dict)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _process: asyncio.subprocess.Process | None = None

    @classmethod
    @asynccontextmanager
    async def run(cls, state: Path) -> AsyncIterator[Self]:
        """Start it, wait until it is ready, and leave nothing of it behind."""
        demo = cls(state)
        try:
            await demo.start()
            await demo.wait_until_ready()
            yield demo
        finally:
            await demo.kill()
            await demo.wait_until_gone()

    async def start(self) -> None:
        """Begin a start. What it says goes to `said.txt` beside the state folder."""
        (self.state / "demo.json").unlink(missing_ok=True)
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with self.said.open("ab") as said:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "visavis.py", "demo", "--state", str(self.state), cwd=HERE, stdout=said, stderr=said
            )
        self.started_at = datetime.now(UTC)

    @property
    def said(self) -> Path:
        return self.state.with_name("said.txt")

    async def wait_until_ready(self, timeout: float = 180) -> None:
        """Wait for `demo.json`. Raises RuntimeError with the last words of a start that ended instead."""
        async with asyncio.timeout(timeout):
            while not (self.state / "demo.json").exists():
                if self._process is None or self._process.returncode is not None:
                    raise RuntimeError(f"the demo has ended: {self.said.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
        self.told = json.loads((self.state / "demo.json").read_text())

    async def kill(self) -> None:
        """`kill -9` of the program; what it has started must see to it that it ends, too."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> int:
        """End it with SIGTERM and give its exit status."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.wait_for(self._process.wait(), 90)

    async def wait_until_gone(self, timeout: float = 60) -> None:
        """Wait until no process has a file below the state folder open."""
        async with asyncio.timeout(timeout):
            while living(self.state):  # noqa: ASYNC110 - other processes end
                await asyncio.sleep(0.1)

    def programs(self) -> list[str]:
        """Of the processes alive below the state folder, each one's program, sorted; PostgreSQL's own are left out."""
        names = {"visavis.py": "visavis", "homeserver.py": "synapse", "postgres": "postgres", "initdb": "initdb"}
        found = []
        for line in living(self.state):
            words = [Path(word).name for word in line.split("\0")[:4]]
            known = [names[word] for word in words if word in names]
            if known:
                found.append(known[0])
        return sorted(found)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Its database as the application sees it, while it runs."""
        config = load(self.state / "config.yaml", environment={})
        database = Database(config.database.url.get_secret_value(), pool_size=2)
        try:
            yield database
        finally:
            await database.close()

    def person(self, localpart: str) -> Json:
        """A person of `demo.json`, by the first part of the Matrix ID."""
        found: Json = next(one for one in self.told["people"] if one["matrix_id"].startswith(f"@{localpart}:"))
        return found

    def mails(self) -> list[EmailMessage]:
        """Every mail in the Maildir, oldest first."""
        parser = BytesParser(EmailMessage, policy=policy.default)
        return [parser.parsebytes(path.read_bytes()) for path in sorted((self.state / "mail" / "new").iterdir())]

    @asynccontextmanager
    async def phone(self, localpart: str, store: Path) -> AsyncIterator["Phone"]:
        """This person's client, in all rooms that the person is invited to."""
        person = self.person(localpart)
        folder = store / f"{localpart}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        rooms = [
            pair["room_id"]
            for pair in self.told["pairs"]
            if person["id"] in (pair["supervisor_id"], pair["supervisee_id"])
        ]
        async with Human.log_in(
            self.told["homeserver"], person["matrix_id"], person["password"], store=folder
        ) as human:
            for room_id in rooms:
                await human.join(room_id)
            yield Phone(human, self.told["bot"], person, rooms)


class Phone:
    """A person whose phone keeps what was written until the homeserver has it, once, as Element's does."""

    def __init__(self, human: Human, bot: str, person: Json, rooms: list[str]) -> None:
        self.human = human
        self.bot = bot
        self.person = person
        self.rooms = rooms
        self._speaking = asyncio.Lock()

    async def say(self, room_id: str, body: str, *, thread: str | None = None) -> str:
        """Send a text, however long it takes; return its event ID."""
        content: Json = {"msgtype": "m.text", "body": body, "m.mentions": {}}
        if thread is not None:
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": thread}
        return await self._insist(room_id, "m.room.message", content, encrypted=True)

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        """Put a reaction under an event, however long it takes."""
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self._insist(room_id, "m.reaction", {"m.relates_to": relation}, encrypted=False)

    async def _insist(self, room_id: str, event_type: str, content: Json, *, encrypted: bool) -> str:
        transaction_id = secrets.token_hex(8)
        async with self._speaking:
            while True:
                try:
                    if encrypted:
                        await self._give_key(room_id)
                    return await self.human.send_raw(
                        room_id, event_type, content, encrypted=encrypted, txn_id=transaction_id
                    )
                except HomeserverRefused as refused:
                    if 400 <= refused.status < 500:
                        raise
                except (aiohttp.ClientError, nio.LocalProtocolError, TimeoutError):
                    pass
                await asyncio.sleep(0.3)

    async def _give_key(self, room_id: str) -> None:
        """Have the bot hold the room's key before the message goes: nio takes a failed sharing for done."""
        client: Any = self.human.client
        if not client.olm.should_share_group_session(room_id):
            return
        if client.should_query_keys:
            await client.keys_query()
        shared = await client.share_group_session(room_id, ignore_unverified_devices=True)
        reached = {user for user, _ in getattr(shared, "users_shared_with", ())}
        if self.bot not in reached:
            client.invalidate_outbound_session(room_id)
            raise TimeoutError("the key has not arrived")


def living(state: Path) -> list[str]:
    """The command lines, words separated by NUL, of all processes that have a file below `state` open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if any(file.startswith(f"{state}/") for file in _open_files(folder)):
                found.append((folder / "cmdline").read_text())
    return found


def _open_files(folder: Path) -> Iterator[str]:
    for link in (folder / "fd").iterdir():
        with suppress(OSError):  # closed since it was listed
            yield os.readlink(link)

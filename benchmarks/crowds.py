"""Hundreds of rooms of two people and a bot, in the same shape for Visavis and for a bare nio echo bot.

The rooms are made directly, in the shape that Visavis makes them, so that neither bot has to; each bot then runs
as a process of its own and is started as often as a measurement asks.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import select, update

import migrations
from benchmarks.demo import ROOT, Administration
from benchmarks.echo_bot import login_file
from benchmarks.production import production_python
from bot.requests import Homeserver
from bot.rooms import Plan as RoomPlan
from bot.rooms import initial_state, power_levels
from embedded.postgresql import start_postgresql
from embedded.synapse import Synapse, start_synapse
from supervision.db import Database
from supervision.models import bots, pairs
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.bridges import write_config
from tests.support.human import Human
from tests.support.sample import add_pair, add_person

SUPERVISORS, SUPERVISEES = 12, 25
PASSWORD = "correct horse battery staple"  # noqa: S105  # of accounts that end with the measurement
BOT, ECHO = "visavis-rooms", "echo"
TOKEN = "org.visavis.room"  # noqa: S105  # the key in a room's creation content
SIDE_BY_SIDE = 4  # rooms that are made at once


@dataclass
class Side:
    """A bot as a process: how it is started, its Matrix ID, its rooms in the order of the pairs."""

    name: str
    bot: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    rooms: list[str] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=ROOT, env={**os.environ, **self.environment}, stdout=log, stderr=log
            )

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after ten seconds."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        self.process = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    def memory(self) -> tuple[float, float]:
        """Resident memory now and at its highest, in MB (proc(5), VmRSS and VmHWM)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines())
        return int(found["VmRSS"].split()[0]) / 1024, int(found["VmHWM"].split()[0]) / 1024

    def cpu(self) -> float:
        """Seconds of processor time that it took so far (proc(5), utime and stime)."""
        assert self.process is not None
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Crowd:
    """The people, of whom the supervisees have their phones on, and both bots with equally many rooms."""

    synapse: Synapse
    database: Database
    supervisors: list[Person]
    supervisees: list[Person]
    phones: list[Human]
    tokens: dict[str, str]
    visavis: Side
    bare: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.bare, self.visavis

    def phone(self, place: int) -> Human:
        """The supervisee's of the pair at this place."""
        return self.phones[place % SUPERVISEES]

    async def grow(self, count: int) -> None:
        """Make rooms on both sides until each has so many; both bots must be stopped."""
        places = range(len(self.visavis.rooms), count)
        known = [await self._pair(place) for place in places]
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def make(side: Side, pair: Pair) -> str:
            async with gate:
                return await self._make_room(side, pair)

        for side in self.sides:
            side.rooms += await asyncio.gather(*(make(side, pair) for pair in known))
        now = datetime.now(UTC)
        async with self.database.transaction() as tx:
            for place, pair in zip(places, known, strict=True):
                values = {
                    "room_id": self.visavis.rooms[place],
                    "bot": self.visavis.bot,
                    "supervisor_introduced_at": now,
                    "supervisee_introduced_at": now,
                }
                await tx.execute(update(pairs).where(pairs.c.id == pair.id).values(values))

    async def _pair(self, place: int) -> Pair:
        supervisor = self.supervisors[place // SUPERVISEES]
        supervisee = self.supervisees[place % SUPERVISEES]
        return await add_pair(self.database, now=datetime.now(UTC), supervisor=supervisor, supervisee=supervisee)

    async def _make_room(self, side: Side, pair: Pair) -> str:
        people = [one.matrix_id or "" for one in pair.people]
        plan = RoomPlan(str(pair.room_token), frozenset(people), federate=False)
        state = initial_state(plan, side.bot)
        homeserver = Homeserver(self.synapse.base_url)
        homeserver.token = self.tokens[side.bot]
        homeserver.identity = {"user_id": side.bot}
        wanted = {
            "room_version": "12",
            "preset": "private_chat",
            "is_direct": False,
            "creation_content": {TOKEN: plan.token, "m.federate": False},
            "power_level_content_override": power_levels(),
            "initial_state": [{"type": kind, "state_key": "", "content": state[kind]} for kind in state],
            "invite": people,
        }
        try:
            room_id = str((await homeserver.ask("POST", "/createRoom", wanted))["room_id"])
            for person in people:
                homeserver.token, homeserver.identity = self.tokens[person], {}
                await homeserver.ask("POST", f"/rooms/{room_id}/join", {})
        finally:
            await homeserver.close()
        return room_id


@asynccontextmanager
async def gathered(state: Path) -> AsyncIterator[Crowd]:
    """Servers, people and their devices, and both bots once started; no rooms yet."""
    async with AsyncExitStack() as stack:
        postgresql = await start_postgresql(state / "postgresql")
        stack.push_async_callback(postgresql.stop)
        synapse = await start_synapse(state / "synapse", postgresql=postgresql, hash_rounds=4)
        stack.push_async_callback(synapse.stop)
        await migrations.upgrade(postgresql.dsn("visavis", "visavis_owner"), postgresql.dsn("visavis", "visavis_app"))
        database = Database(postgresql.dsn("visavis", "visavis_app"))
        stack.push_async_callback(database.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        administration = Administration(http, {"homeserver": synapse.base_url}, state)
        people = [
            await seat_person(database, synapse, administration, number) for number in range(SUPERVISORS + SUPERVISEES)
        ]
        tokens, phones = {}, []
        for person in people:
            phone = Human.log_in(synapse.base_url, person.matrix_id or "", PASSWORD, store=state)
            if "supervisor" in person.roles:  # has a device that can read, and that is off
                async with phone as human:
                    tokens[human.user_id] = human.client.access_token
                continue
            phones.append(await stack.enter_async_context(phone))
            tokens[phones[-1].user_id] = phones[-1].client.access_token
        crowd = Crowd(
            synapse,
            database,
            people[:SUPERVISORS],
            people[SUPERVISORS:],
            phones,
            tokens,
            await make_visavis(state, database, synapse, postgresql.dsn("visavis", "visavis_app")),
            await make_bare(state, synapse, administration),
        )
        await log_in_bots(crowd, state)
        yield crowd


async def seat_person(database: Database, synapse: Synapse, administration: Administration, number: int) -> Person:
    role = "supervisor" if number < SUPERVISORS else "supervisee"
    matrix_id = await synapse.register(f"{role}-{number}", PASSWORD, f"{role.title()} {number}")
    await administration.lift_rate_limit(matrix_id)
    return await add_person(
        database, f"{role.title()} {number}", [role], now=datetime.now(UTC), matrix_id=matrix_id, language="en"
    )


async def make_visavis(state: Path, database: Database, synapse: Synapse, url: str) -> Side:
    bot = f"@{BOT}:{synapse.server_name}"
    section: dict[str, Any] = {
        "homeserver": synapse.base_url,
        "bot": bot,
        "as_token": synapse.as_token,
        "store": str(state / "visavis"),
    }
    config = await write_config(state / f"config-{uuid.uuid4().hex}", url, matrix=section)
    python, environment = production_python(state / "packages")
    command = (*python, "visavis.py", "--config", str(config), "run", "bot")
    return Side("Visavis", bot, command, environment, state / "visavis.log")


async def make_bare(state: Path, synapse: Synapse, administration: Administration) -> Side:
    store, bot, password = state / "bare", f"@{ECHO}:{synapse.server_name}", secrets.token_urlsafe()
    store.mkdir(exist_ok=True)
    await administration.make_account(bot, password)
    await administration.lift_rate_limit(bot)
    python, environment = production_python(state / "packages")
    command = (*python, "-m", "benchmarks.echo_bot", synapse.base_url, bot, password, str(store))
    return Side("bare nio", bot, command, environment, state / "bare.log")


async def log_in_bots(crowd: Crowd, state: Path) -> None:
    """Start each once, until it has its device, so that rooms can be made in its name."""
    kept = login_file(state / "bare", crowd.bare.bot)
    async with crowd.bare.running(), asyncio.timeout(60):
        while not kept.exists() or not kept.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)  # it uploads its keys now
    async with crowd.visavis.running(), asyncio.timeout(60):
        query = select(bots.c.sync_token).where(bots.c.matrix_id == crowd.visavis.bot)
        while True:
            async with crowd.database.transaction() as tx:
                if await tx.scalar(query) is not None:
                    break
            await asyncio.sleep(0.1)
    crowd.tokens[crowd.bare.bot] = json.loads(kept.read_text())["access_token"]
    crowd.tokens[crowd.visavis.bot] = crowd.synapse.as_token

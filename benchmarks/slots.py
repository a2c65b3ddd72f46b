"""Free slots of 60 days beside 300 busy times: the function, its statements alone, and the HTTP endpoint."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from aiohttp import web
from sqlalchemy import text

from benchmarks.figures import Act, Block, Taken, compare, table, take_turns
from benchmarks.practices import BUSY, NOW, make_practice, open_database, pairs_of, running_server
from benchmarks.replays import Bare, Recorder
from supervision import availability, sign_ins
from supervision.audit import Actor
from supervision.config import Config
from supervision.db import Database
from supervision.hours import Slot
from supervision.pairs import Pair
from web.app import make_app
from web.serving import Site

APPOINTMENTS = 1000
DAYS = 60
BLOCK = 10
GRIDS = {"hour": 60, "quarter of an hour": 15}


async def ask(database: Database, pair: Pair) -> list[Slot]:
    """The slots of the coming 60 days, in a transaction of its own."""
    async with database.transaction() as tx:
        return await availability.slots(tx, pair, since=NOW, until=NOW + timedelta(days=DAYS), now=NOW)


async def set_grid(database: Database, pair: Pair, minutes: int) -> None:
    """How far apart the supervisor's slots begin."""
    async with database.transaction() as tx:
        statement = text("UPDATE availabilities SET grid_minutes = :minutes WHERE supervisor_id = :supervisor_id")
        await tx.execute(statement, {"minutes": minutes, "supervisor_id": pair.supervisor.id})


async def check(database: Database, pair: Pair) -> None:
    """See that what is measured is what is said."""
    around = {"since": NOW, "until": NOW + timedelta(days=DAYS), "supervisor_id": pair.supervisor.id}
    query = "SELECT count(*) FROM holds WHERE person_id = :supervisor_id AND during && tstzrange(:since, :until)"
    async with database.transaction() as tx:
        assert await tx.scalar(text(query), around) == BUSY


def repeated(*acts: Act) -> Block:
    """A block of one worker that does these in turns."""
    turns = itertools.cycle(acts)

    async def make() -> Sequence[Sequence[Act]]:
        return [list(itertools.islice(turns, BLOCK))]

    return make


@dataclass
class Counted:
    """An act that notes the processor's time of this process, in seconds."""

    act: Act
    seconds: list[float] = field(default_factory=list)

    async def __call__(self) -> None:
        begun = time.process_time()
        await self.act()
        self.seconds.append(time.process_time() - begun)


@dataclass(frozen=True)
class Request:
    """A GET with a session's cookie, on a connection that is kept."""

    path: str
    cookie: str

    async def send(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
        """Return the body of the answer; the client is as thin as can be, so as not to measure itself."""
        reader, writer = connection
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {self.cookie}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        assert head[0] == "http/1.1 200 ok", head[0]
        length = next(int(line.split(":")[1]) for line in head if line.startswith("content-length:"))
        return await reader.readexactly(length)


async def requests(database: Database, pairs: Sequence[Pair]) -> list[Request]:
    """What each supervisee's signed-in browser asks for: many, as each person may ask ten times a second only."""
    found = []
    for pair in pairs:
        person = pair.supervisee.id
        async with database.transaction() as tx:
            token = await sign_ins.open_session(tx, Actor(person, "web"), person, now=NOW)
        until = (NOW + timedelta(days=DAYS)).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"/api/supervisors/{pair.supervisor.id}/slots?pair_id={pair.id}&to={until}"
        found.append(Request(path, f"visavis={token}"))
    return found


def configure() -> Config:
    return Config.model_validate(
        {
            "secret": "a secret of the benchmarks alone",
            "database": {"url": "postgresql://unused"},
            "matrix": {"homeserver": "http://127.0.0.1:8008", "bot": "@visavis:example.org", "as_token": "unused"},
            "mail": {"sender": "visavis@example.org"},
            "web": {"base_url": "http://127.0.0.1:8080"},
        }
    )


def make_bare_app(bodies: dict[str, bytes]) -> web.Application:
    """A bare aiohttp application that answers each pair's request with the same bytes as ours."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bodies[request.query["pair_id"]], content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/api/supervisors/{id}/slots", answer)])
    return app


@asynccontextmanager
async def connected(app: web.Application) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve an application as `visavis run web` does, and connect to it."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await Site(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        yield reader, writer
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()


@asynccontextmanager
async def endpoint(database: Database, pairs: Sequence[Pair]) -> AsyncIterator[list[Callable[[], Awaitable[bytes]]]]:
    """The real application on that database; gives a request of each pair, ready to be sent."""
    async with connected(make_app(database, configure(), clock=lambda: NOW)) as connection:
        yield [partial(request.send, connection) for request in await requests(database, pairs)]


async def measure(state: Path, rounds: int) -> AsyncIterator[str]:
    """Give the tables: the function, then the endpoint."""
    async with running_server(state) as server, AsyncExitStack() as stack:
        database = open_database(server, await make_practice(server, APPOINTMENTS))
        stack.push_async_callback(database.close)
        pairs = await pairs_of(database, 0)
        await check(database, pairs[0])
        for grid, minutes in GRIDS.items():
            await set_grid(database, pairs[0], minutes)
            yield await measure_function(database, pairs, grid, rounds)
            yield await measure_endpoint(database, pairs, grid, rounds)
        await set_grid(database, pairs[0], GRIDS["hour"])


async def measure_function(database: Database, pairs: Sequence[Pair], grid: str, rounds: int) -> str:
    free = len(await ask(database, pairs[0]))
    whole, statements = Taken(), Taken()
    acts = [Counted(partial(ask, database, pair)) for pair in pairs]
    overheard, bare = Database(database.url, pool_size=1), await Bare.connect(database)
    recorder = Recorder(overheard)
    sent = [await recorder.record(partial(ask, overheard, pair)) for pair in pairs]
    await overheard.close()
    replays = [partial(bare.replay, transactions) for transactions in sent]
    await take_turns([(statements, repeated(*replays)), (whole, repeated(*acts))], max(1, rounds // BLOCK))
    await bare.close()
    cpu = statistics.median(seconds for act in acts for seconds in act.seconds)
    rest = whole.spread[1] - statements.spread[1]
    rows = [
        ("`slots`", whole.cells()),
        ("its statements in bare asyncpg", statements.cells()),
        ("bare / Visavis", compare(statements, whole)),
    ]
    note = (
        f"{len(whole.seconds)} of each in turns; {BUSY} busy times, {free} free slots; at the median"
        f" {rest * 1000:.2f} ms are not the statements, and this process computes for {cpu * 1000:.2f} ms"
    )
    return table(f"slots of {DAYS} days, one each {grid}", rows, note)


async def measure_endpoint(database: Database, pairs: Sequence[Pair], grid: str, rounds: int) -> str:
    whole, baseline = Taken(), Taken()
    async with endpoint(database, pairs) as sends:
        bodies = {str(pair.id): await send() for pair, send in zip(pairs, sends, strict=True)}
        asked = await requests(database, pairs)
        async with connected(make_bare_app(bodies)) as connection:
            bare = [partial(request.send, connection) for request in asked]
            assert [await send() for send in bare] == list(bodies.values())
            await take_turns([(baseline, repeated(*bare)), (whole, repeated(*sends))], max(1, rounds // BLOCK))
    size = len(next(iter(bodies.values())))
    rows = [
        ("the endpoint", whole.cells()),
        ("a bare aiohttp handler with the same bytes", baseline.cells()),
        ("bare / Visavis", compare(baseline, whole)),
    ]
    return table(
        f"`GET …/slots` of {DAYS} days, one each {grid}", rows, f"{len(whole.seconds)} of each in turns; {size} bytes"
    )

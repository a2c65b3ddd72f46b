"""Bookings per second, beside the same statements in bare asyncpg.

Both sides book other free times of the same practice. What the bare side sends was sent before by our own code
to a copy of the database, for exactly these times.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from benchmarks.figures import Act, Taken, compare, table, take_turns
from benchmarks.practices import NOW, SUPERVISORS, clone, make_practice, open_database, pairs_of, running_server
from benchmarks.replays import Bare, Recorder
from embedded.postgresql import PostgreSQL
from supervision import appointments, availability
from supervision.audit import Actor
from supervision.db import Database
from supervision.pairs import Pair

APPOINTMENTS = 1000  # in the database before
BLOCK = 10  # bookings of one worker in a row


@dataclass(frozen=True)
class Wish:
    """A free time of a pair."""

    pair: Pair
    starts_at: datetime


Deed = Callable[[Database, Wish], Awaitable[object]]


async def book(database: Database, wish: Wish) -> appointments.Appointment:
    """The supervisee asks for it: one transaction."""
    actor = Actor(wish.pair.supervisee.id, "matrix", device="BENCHMARK")
    async with database.transaction() as tx:
        return await appointments.book(tx, actor, wish.pair, wish.starts_at, now=NOW)


async def book_and_confirm(database: Database, wish: Wish) -> None:
    """The supervisee asks for it, the supervisor agrees: two transactions."""
    appointment = await book(database, wish)
    actor = Actor(wish.pair.supervisor.id, "matrix", device="BENCHMARK")
    async with database.transaction() as tx:
        await appointments.confirm(tx, actor, appointment.id, now=NOW)


DEEDS: dict[str, Deed] = {"`book`": book, "`book` and `confirm`": book_and_confirm}


async def wishes(database: Database, workers: int) -> list[Iterator[Wish]]:
    """Free times for each worker, of supervisors that no other worker has, each in turn for each of her pairs."""
    supervisors = range(1, SUPERVISORS)
    return [await wishes_of(database, supervisors[worker::8][:12]) for worker in range(workers)]


async def wishes_of(database: Database, supervisors: Sequence[int]) -> Iterator[Wish]:
    found = []
    for supervisor in supervisors:
        pairs = await pairs_of(database, supervisor)
        async with database.transaction() as tx:
            free = await availability.slots(tx, pairs[0], since=NOW, until=NOW + timedelta(days=60), now=NOW)
        found.append([Wish(pair, slot.starts_at) for pair, slot in zip(itertools.cycle(pairs), free, strict=False)])
    return itertools.chain.from_iterable(zip(*found, strict=False))


def wished(database: Database, deed: Deed, wanted: Sequence[Iterator[Wish]]) -> list[list[Act]]:
    """The next block of our own side."""
    return [[partial(deed, database, wish) for wish in itertools.islice(one, BLOCK)] for one in wanted]


@dataclass(frozen=True)
class Sides:
    """Our pool, as many bare connections, and the copy on which their statements are recorded."""

    ours: Database
    bare: Sequence[Bare]
    copy: Database
    recorder: Recorder

    @classmethod
    @asynccontextmanager
    async def open(cls, server: PostgreSQL, name: str, workers: int) -> AsyncIterator[Sides]:
        async with AsyncExitStack() as stack:
            ours = open_database(server, name, pool_size=workers)
            stack.push_async_callback(ours.close)
            copy = open_database(server, f"{name}_copy")
            stack.push_async_callback(copy.close)
            bare = []
            for _ in range(workers):
                bare.append(await Bare.connect(ours))
                stack.push_async_callback(bare[-1].close)
            yield cls(ours, bare, copy, Recorder(copy))

    async def measure(self, deed: Deed, wanted: Sequence[Iterator[Wish]], blocks: int) -> tuple[Taken, Taken]:
        """The times of bare asyncpg and of ours."""

        async def ours() -> Sequence[Sequence[Act]]:
            return wished(self.ours, deed, wanted)

        async def replays() -> Sequence[Sequence[Act]]:
            acts = wished(self.copy, deed, wanted)
            return [
                [partial(bare.replay, await self.recorder.record(act)) for act in worker]
                for bare, worker in zip(self.bare, acts, strict=True)
            ]

        taken = Taken(), Taken()
        await take_turns([(taken[0], replays), (taken[1], ours)], blocks)
        return taken


async def measure(state: Path, rounds: int) -> AsyncIterator[str]:
    """Give the tables: with one connection and eight, without and with waiting for the disk."""
    for durable in (False, True):
        async with running_server(state, durable=durable) as server:
            name = await make_practice(server, APPOINTMENTS)
            await clone(server, name, f"{name}_book")
            await clone(server, name, f"{name}_book_copy")
            for workers in (1, 8):
                yield await measure_workers(server, f"{name}_book", workers, rounds, durable=durable)


async def measure_workers(server: PostgreSQL, name: str, workers: int, rounds: int, *, durable: bool) -> str:
    blocks = max(1, 2 * rounds // BLOCK if workers == 1 else rounds // (2 * BLOCK))
    rows: list[tuple[str, Sequence[str]]] = []
    async with Sides.open(server, name, workers) as sides:
        wanted = await wishes(sides.ours, workers)
        for what, deed in DEEDS.items():
            bare, ours = await sides.measure(deed, wanted, blocks)
            rows.append((f"{what}: the statements in bare asyncpg", bare.cells()))
            rows.append((f"{what}: Visavis", ours.cells()))
            rows.append((f"{what}: bare / Visavis", compare(bare, ours)))
    connections = "one connection" if workers == 1 else f"{workers} connections"
    disk = "waiting for the disk" if durable else "fsync off"
    return table(f"bookings, {connections}, {disk}", rows, f"{blocks * BLOCK * workers} of each in turns")

"""Bookings and slots in a database of 1,000 appointments and in one of 1,000,000."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from benchmarks import slots
from benchmarks.bookings import BLOCK, DEEDS, Deed, wished, wishes
from benchmarks.figures import Act, Block, Taken, grown, table, take_turns
from benchmarks.practices import make_practice, open_database, pairs_of, running_server
from supervision.db import Database
from supervision.pairs import Pair

SMALL, LARGE = 1_000, 1_000_000


async def measure(state: Path, rounds: int) -> AsyncIterator[str]:
    """Give the table."""
    rows: list[tuple[str, Sequence[str]]] = []
    async with running_server(state) as server, AsyncExitStack() as stack:
        databases = []
        begun = time.monotonic()
        for appointments in (SMALL, LARGE):
            databases.append(open_database(server, await make_practice(server, appointments)))
            stack.push_async_callback(databases[-1].close)
        filled = time.monotonic() - begun
        for what, deed in DEEDS.items():
            rows += await compare_sizes(what, [await booking(database, deed) for database in databases], rounds)
        sides = [slots.repeated(*[partial(slots.ask, one, pair) for pair in await busy(one)]) for one in databases]
        rows += await compare_sizes("`slots`", sides, rounds)
        sends = [await stack.enter_async_context(slots.endpoint(one, await busy(one))) for one in databases]
        rows += await compare_sizes("`GET …/slots`", [slots.repeated(*one) for one in sends], rounds)
    note = f"{max(1, rounds // BLOCK) * BLOCK} of each in turns; filled in {filled:.0f} s"
    yield table("appointments in the database", rows, note)


async def busy(database: Database) -> Sequence[Pair]:
    """The pairs of the supervisor who is busy."""
    pairs = await pairs_of(database, 0)
    await slots.check(database, pairs[0])
    return pairs


async def booking(database: Database, deed: Deed) -> Block:
    """Blocks of bookings on one connection."""
    wanted = await wishes(database, 1)

    async def make() -> Sequence[Sequence[Act]]:
        return wished(database, deed, wanted)

    return make


async def compare_sizes(what: str, sides: Sequence[Block], rounds: int) -> list[tuple[str, Sequence[str]]]:
    small, large = Taken(), Taken()
    await take_turns([(small, sides[0]), (large, sides[1])], max(1, rounds // BLOCK))
    return [
        (f"{what}: {SMALL:,}", small.cells()),
        (f"{what}: {LARGE:,}", large.cells()),
        (f"{what}: growth", grown(small, large)),
    ]

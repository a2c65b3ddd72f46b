"""What a race's negative control does: the guards taken away, and all made to look before anybody writes."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from embedded.postgresql import PostgreSQL
from supervision.ranges import Busy


async def drop_constraint(postgresql: PostgreSQL, database_name: str) -> None:
    """Let a person's time be held twice in that database."""
    owner = create_async_engine(postgresql.dsn(database_name, "visavis_owner"))
    async with owner.begin() as connection:
        await connection.execute(text("ALTER TABLE holds DROP CONSTRAINT ex_holds_person_id_during"))
    await owner.dispose()


async def nothing(*_: object, **__: object) -> None:
    """In place of a guard."""


async def free(*_: object, **__: object) -> bool:
    """In place of a look, or of an attempt at a lock: yes."""
    return True


def together(parties: int) -> Callable[..., Awaitable[bool]]:
    """In place of a look: finds it free, as all do who look before anybody wrote.

    It widens the window as far as it goes: each waits, 30 s at most, until so many have looked.
    """
    barrier = asyncio.Barrier(parties)

    async def look(*_: object, **__: object) -> bool:
        async with asyncio.timeout(30):
            await barrier.wait()
        return True

    return look


def blind(look: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[Mapping[uuid.UUID, Busy]]]:
    """In place of `holds.look`: nobody's time is taken."""

    async def see(*_: object, **__: object) -> Mapping[uuid.UUID, Busy]:
        await look()
        return defaultdict(Busy)

    return see

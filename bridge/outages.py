"""What the bridge's loops do while the database is away: they wait, and lose nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from supervision.db import DATABASE_AWAY, Database, Transaction

log = structlog.get_logger(__name__)

FIRST, LONGEST = 0.25, 2.0  # seconds from one try to the next

T = TypeVar("T")


async def persist(database: Database, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """Do it in one transaction, again and again while the database is away; it may take for ever."""
    pause = FIRST
    while True:
        try:
            async with database.transaction() as tx:
                return await work(tx)
        except DATABASE_AWAY as error:
            log.warning("bridge.database_away", error=type(error).__name__)
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - it spreads load and guards nothing
        pause = min(LONGEST, pause * 2)

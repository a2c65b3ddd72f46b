"""Presence is kept for as long as it may be shown."""

from datetime import datetime

from sqlalchemy import func, select

from supervision import jobs, presences
from supervision.db import Database
from supervision.models import presences as table
from tests.support.sample import add_person


async def test_what_is_shown_to_nobody_is_forgotten(database: Database, now: datetime) -> None:
    kept = []
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with database.transaction() as tx:
        await presences.note(tx, ana.id, True, now, now=now)
    for later in (presences.ONLINE_FOR, presences.KNOWN_FOR):
        await jobs.run_once(database, "forget_old", now=now + later)
        async with database.transaction() as tx:
            kept.append(await tx.scalar(select(func.count()).select_from(table)))
    assert kept == [1, 0]

"""Presence is kept for as long as it may be shown."""

from datetime import datetime

from sqlalchemy import func, select, update

from supervision import bots, jobs, people, presences
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.models import pairs
from supervision.models import presences as table
from tests.support.sample import add_pair, add_person

BOT = "@visavis:example.org"


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


async def test_nobody_is_asked_after_who_was_disabled(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = pair.people
    async with database.transaction() as tx:
        await bots.register(tx, BOT, "key", now=now)
        await tx.execute(update(pairs).values(bot=BOT))
        await presences.note(tx, bruno.id, True, now, now=now)
        assert set(await presences.known_of_bot(tx, BOT)) == {ana.matrix_id, bruno.matrix_id}
        await people.disable(tx, SYSTEM, bruno.id, now=now)
        assert set(await presences.known_of_bot(tx, BOT)) == {ana.matrix_id}
        assert await presences.of(tx, [bruno.id], now=now) == {}

"""Codes that agree to a room's copy, typed just as the room, or one of the two, goes."""

import asyncio
from datetime import datetime

import pytest
from sqlalchemy import select, text

from bot import taking
from bot.commands import Export
from bot.talks import Talk
from supervision import exports, notifications, pairs, people, questions
from supervision.audit import SYSTEM, Actor
from supervision.db import Database, lock_people
from supervision.errors import NotFound
from supervision.models import Channel, Consent, Question
from supervision.models import people as people_table
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.questions import Asked
from tests.support.sample import acts, add_pair

CODE = "4711"


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    """Ana and Bruno; he asked for a copy, and she wants one herself and has been told the code to type."""
    made = await add_pair(database, now=now)
    said = Notice(made.supervisor.id, Channel.MATRIX, "reply", {}, pair_id=made.id)
    async with database.transaction() as tx:
        await pairs.set_room(tx, made.id, "!room:example.org")
        await exports.ask(tx, acts(made.supervisee), made.id, default=Consent.BOTH, now=now)
        await notifications.enqueue(tx, [said], now=now)
        until = now + exports.ANSWER_TIME
        asked = Asked(said.id, made.id, made.supervisor.id, Question.CONFIRM_EXPORT, until, code=CODE)
        await questions.put(tx, asked, now=now)
        return await pairs.get(tx, made.id)


async def type_code(database: Database, pair: Pair, now: datetime) -> list[str]:
    """Ana types her own; the words of the answer."""
    ana = pair.supervisor
    async with database.transaction() as tx:
        talk = Talk(tx, pair, ana, Actor(ana.id, "matrix"), now, "http://localhost")
        reply = await taking.take(talk, Export(CODE))
    return [line.key for line in reply.lines]


async def until_it_waits(database: Database) -> None:
    """Until the other has come as far as it comes: who asks for the same lock later is behind it."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while True:
            async with database.transaction() as tx:
                if await tx.scalar(text(waiting)):
                    return
            await asyncio.sleep(0.01)


async def test_a_code_that_is_typed_as_the_room_goes(database: Database, pair: Pair, now: datetime) -> None:
    async def forget() -> None:
        async with database.transaction() as tx:
            await exports.forget_room(tx, pair.id, now=now)

    async with database.transaction() as elsewhere:
        await lock_people(elsewhere, [one.id for one in pair.people])
        going = asyncio.create_task(forget())
        await until_it_waits(database)
        typing = asyncio.create_task(type_code(database, pair, now))
        await asyncio.sleep(0.2)
    await going
    assert await typing == ["code.none"]


async def test_a_code_that_is_typed_as_the_other_is_disabled(database: Database, pair: Pair, now: datetime) -> None:
    async def disable() -> None:
        async with database.transaction() as tx:
            await people.disable(tx, SYSTEM, pair.supervisee.id, now=now)

    async with database.transaction() as elsewhere:
        theirs = people_table.c.id == pair.supervisee.id
        await elsewhere.execute(select(people_table.c.id).where(theirs).with_for_update())
        disabling = asyncio.create_task(disable())
        await until_it_waits(database)
        typing = asyncio.create_task(type_code(database, pair, now))
        await asyncio.sleep(0.2)
    await disabling
    with pytest.raises(NotFound, match=r"refused\.export_other_gone"):
        await typing

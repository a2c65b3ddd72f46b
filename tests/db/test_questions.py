"""Questions that the bot put: when they are forgotten."""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import select

from supervision import jobs, notifications, questions
from supervision.db import Database
from supervision.models import Channel, Question
from supervision.models import questions as table
from supervision.notifications import Notice
from supervision.questions import Asked
from tests.support.sample import add_pair


async def test_what_nobody_could_answer_for_long_is_forgotten(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    said = [Notice(pair.supervisor.id, Channel.MATRIX, "reply", {}, pair_id=pair.id) for _ in range(2)]
    async with database.transaction() as tx:
        await notifications.enqueue(tx, said, now=now)
        for one, until in zip(said, (now, now + timedelta(seconds=1)), strict=True):
            asked = Asked(one.id, pair.id, pair.supervisor.id, Question.PICK_SLOT, until, slots=[now])
            await questions.put(tx, asked, now=now)

    async def left(at: datetime) -> list[uuid.UUID]:
        await jobs.run_once(database, "forget_old", now=at)
        async with database.transaction() as tx:
            return list(await tx.scalars(select(table.c.notification_id).order_by(table.c.position)))

    assert await left(now + timedelta(days=90, seconds=-1)) == [one.id for one in said]
    assert await left(now + timedelta(days=90)) == [said[1].id]

"""What wakes the jobs."""

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, insert, select

from supervision import appointments, availability, jobs, waits
from supervision.db import Database
from supervision.models import journal
from tests.support.sample import OPEN_HOURS, acts, add_pair


async def test_a_job_is_done_by_one_process_at_a_time(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("job:offer_freed", 0))))
        assert await jobs.run_once(database, "offer_freed", now=now) is False
    assert await jobs.run_once(database, "offer_freed", now=now) is True


async def test_a_time_given_back_is_offered_at_once(database: Database) -> None:
    """Real clocks: the interval of the job is a minute, and the offer is there in seconds."""
    now = datetime.now(UTC)
    ana = await add_pair(database, now=now, rules=OPEN_HOURS)
    other = await add_pair(database, now=now, supervisor=ana.supervisor, rules=OPEN_HOURS)
    async with database.transaction() as tx:
        until = now + timedelta(days=5)
        day = (await availability.slots(tx, ana, since=now + timedelta(hours=2), until=until, now=now))[0].starts_at
        booked = await appointments.book(tx, acts(other.supervisee), other, day, now=now)
        wait = await waits.join(tx, acts(ana.supervisee), ana, [(day, day + timedelta(minutes=1))], now=now)
    schedule = jobs.schedule(database)
    schedule.start()
    try:
        await asyncio.sleep(1.5)  # the jobs' first run, which finds nothing
        async with database.transaction() as tx:
            await appointments.cancel(tx, acts(other.supervisee), booked.id, now=datetime.now(UTC))
        assert await first_offer(database, wait.id) == day
    finally:
        schedule.shutdown()
    await asyncio.wait(schedule.woken)
    assert [task.cancelled() for task in schedule.woken] == [True, True]


async def test_a_job_is_done_where_its_process_was_busy_when_it_was_due(database: Database) -> None:
    """A start loads modules for seconds: what is done hourly must not wait for an hour because of that."""
    old = {"event_id": "$tap", "room_id": "!room", "outcome": "done", "handled_at": datetime(2026, 1, 1, tzinfo=UTC)}
    async with database.transaction() as tx:
        await tx.execute(insert(journal).values(old))
    schedule = jobs.schedule(database)
    schedule.start()
    try:
        time.sleep(2)  # noqa: ASYNC251  # busy, not waiting
        async with asyncio.timeout(10):
            while True:
                if not await count(database):
                    break
                await asyncio.sleep(0.05)
    finally:
        schedule.shutdown()
    await asyncio.wait(schedule.woken)


async def count(database: Database) -> int | None:
    async with database.transaction() as tx:
        return await tx.scalar(select(func.count()).select_from(journal))


async def first_offer(database: Database, wait_id: uuid.UUID) -> datetime:
    async with asyncio.timeout(30):
        while True:
            async with database.transaction() as tx:
                wait = await waits.find(tx, wait_id)
            if wait is not None and wait.offer is not None:
                return wait.offer.starts_at
            await asyncio.sleep(0.05)

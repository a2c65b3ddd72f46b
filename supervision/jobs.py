"""What has to be done from time to time. APScheduler only wakes these; what is due stands in the tables."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from supervision import (
    addresses,
    appointments,
    exports,
    groups,
    homeserver_tasks,
    mailboxes,
    moves,
    pairs,
    presences,
    questions,
    sign_ins,
    waits,
)
from supervision.db import Database, Transaction, listen
from supervision.models import idempotency_keys, journal

log = structlog.get_logger()

# An event's age is the homeserver's word, so what has a ciphertext stays known for as long as that can be read.
JOURNAL_KEPT = timedelta(days=30)
IDEMPOTENCY_KEPT = timedelta(days=1)

Job = Callable[[Transaction, datetime], Awaitable[object]]


async def close_past(tx: Transaction, now: datetime) -> None:
    await groups.lapse(tx, now=now)  # before the others, which would tell of each by itself
    await moves.lapse(tx, now=now)
    await appointments.close_past(tx, now=now)


async def forget_old(tx: Transaction, now: datetime) -> None:
    await sign_ins.forget_old(tx, now=now)
    await questions.forget_details(tx, now=now)
    await questions.forget_old(tx, now=now)
    await waits.forget_old(tx, now=now)
    await mailboxes.forget_old(tx, now=now)
    await homeserver_tasks.forget_old(tx, now=now)
    await addresses.forget_old(tx, now=now)
    await presences.forget_old(tx, now=now)
    await tx.execute(delete(journal).where(journal.c.session_id.is_(None), journal.c.handled_at < now - JOURNAL_KEPT))
    await tx.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now - IDEMPOTENCY_KEPT))


async def close_exports(tx: Transaction, now: datetime) -> None:
    await exports.lapse(tx, now=now)
    await exports.expire(tx, now=now)


async def offer_freed(tx: Transaction, now: datetime) -> None:
    await waits.offer_freed(tx, now)


async def expire_pairs(tx: Transaction, now: datetime) -> None:
    await pairs.expire(tx, now=now)


JOBS: dict[str, tuple[Job, timedelta]] = {
    "close_past": (close_past, timedelta(minutes=1)),
    "offer_freed": (offer_freed, timedelta(minutes=1)),
    "close_exports": (close_exports, timedelta(minutes=5)),
    "expire_pairs": (expire_pairs, timedelta(minutes=15)),
    "forget_old": (forget_old, timedelta(hours=1)),
}

# What a NOTIFY on these channels asks for is done at once, and not again before the pause is over, in seconds.
WOKEN = {"visavis_waits": "offer_freed"}
PAUSE = 0.5


async def run_once(database: Database, name: str, *, now: datetime) -> bool:
    """Do a job unless another process is at it. Returns whether it was done here."""
    job, _ = JOBS[name]
    async with database.transaction() as tx:
        if not await tx.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(f"job:{name}", 0)))):
            return False
        await job(tx, now)
    return True


class Schedule:
    """Wakes every job in its interval, and those that are asked for when they are, between `start` and `shutdown`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.scheduler = AsyncIOScheduler(timezone=UTC)
        self.woken: list[asyncio.Task[None]] = []
        for name, (_, interval) in JOBS.items():
            self.scheduler.add_job(
                _wake,
                "interval",
                seconds=interval.total_seconds(),
                args=[database, name],
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,  # however late: a process that was busy for a second left it to the next turn
                next_run_time=datetime.now(UTC),
            )

    def start(self) -> None:
        self.scheduler.start()
        for channel, name in WOKEN.items():
            asked = asyncio.Event()
            self.woken.append(asyncio.create_task(listen(self.database, channel, asked)))
            self.woken.append(asyncio.create_task(_answer(self.database, name, asked)))

    def shutdown(self, *, wait: bool = False) -> None:
        """Wake nothing any more; what is being done is not waited for unless asked."""
        for task in self.woken:
            task.cancel()
        self.scheduler.shutdown(wait=wait)


def schedule(database: Database) -> Schedule:
    return Schedule(database)


async def _answer(database: Database, name: str, asked: asyncio.Event) -> None:
    """Do a job whenever it is asked for; while another process is at it, which may have looked too early, wait."""
    while True:
        await asked.wait()
        asked.clear()
        if not await _wake(database, name):
            asked.set()
        await asyncio.sleep(PAUSE)


async def _wake(database: Database, name: str) -> bool:
    """Whether the job was done here, or cannot be done now."""
    try:
        return await run_once(database, name, now=datetime.now(UTC))
    except (SQLAlchemyError, OSError) as error:
        log.warning("job.delayed", job=name, error=type(error).__name__)
        return True
    except Exception as error:  # a bug of ours in one job must not end its being woken
        log.error("job.failed", job=name, error=type(error).__name__)
        return True

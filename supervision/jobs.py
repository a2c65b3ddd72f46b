"""What has to be done from time to time. APScheduler only wakes these; what is due stands in the tables."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from supervision import appointments, moves, sign_ins
from supervision.db import Database, Transaction
from supervision.models import idempotency_keys, journal

log = structlog.get_logger()

# An event's age is the homeserver's word, so what has a ciphertext stays known for as long as that can be read.
JOURNAL_KEPT = timedelta(days=30)
IDEMPOTENCY_KEPT = timedelta(days=1)

Job = Callable[[Transaction, datetime], Awaitable[object]]


async def close_past(tx: Transaction, now: datetime) -> None:
    await moves.lapse(tx, now=now)
    await appointments.close_past(tx, now=now)


async def forget_old(tx: Transaction, now: datetime) -> None:
    await sign_ins.forget_old(tx, now=now)
    await tx.execute(delete(journal).where(journal.c.session_id.is_(None), journal.c.handled_at < now - JOURNAL_KEPT))
    await tx.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now - IDEMPOTENCY_KEPT))


JOBS: dict[str, tuple[Job, timedelta]] = {
    "close_past": (close_past, timedelta(minutes=1)),
    "forget_old": (forget_old, timedelta(hours=1)),
}


async def run_once(database: Database, name: str, *, now: datetime) -> bool:
    """Do a job unless another process is at it. Returns whether it was done here."""
    job, _ = JOBS[name]
    async with database.transaction() as tx:
        if not await tx.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(f"job:{name}", 0)))):
            return False
        await job(tx, now)
    return True


def schedule(database: Database) -> AsyncIOScheduler:
    """A scheduler, to be started and shut down by the caller, that wakes every job in its interval."""
    scheduler = AsyncIOScheduler(timezone=UTC)
    for name, (_, interval) in JOBS.items():
        scheduler.add_job(
            _wake,
            "interval",
            seconds=interval.total_seconds(),
            args=[database, name],
            max_instances=1,
            coalesce=True,
            next_run_time=datetime.now(UTC),
        )
    return scheduler


async def _wake(database: Database, name: str) -> None:
    try:
        await run_once(database, name, now=datetime.now(UTC))
    except (SQLAlchemyError, OSError) as error:
        log.warning("job.delayed", job=name, error=type(error).__name__)

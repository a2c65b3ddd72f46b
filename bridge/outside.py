"""The loop that reads supervisors' outside calendars: claim, fetch, read, settle.

Any number of these may run on one database: the lease of a claimed calendar keeps the others away from it. A
calendar that was just added is read at once.
"""

import asyncio
import contextlib
import hashlib
import random
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import structlog
from aiohttp.abc import AbstractResolver
from prometheus_client import Counter

from bridge import fetches, readings
from bridge.fetches import FetchFailed
from bridge.outages import persist
from bridge.readings import Question, Unreadable
from supervision import calendars, outside, seals
from supervision.config import Config
from supervision.db import Database, listen
from supervision.outside import Due, Reading

log = structlog.get_logger(__name__)

READS = Counter(
    "visavis_calendar_reads_total", "Tries at outside calendars by what came: read, unchanged, failed", ["outcome"]
)

MOST_AT_ONCE = 3
LEASE = timedelta(seconds=fetches.SECONDS + (MOST_AT_ONCE + 1) * readings.SECONDS + 10)
HORIZON = timedelta(days=366)  # the farthest that a supervisor's slots can go
SOONEST = 1.0  # seconds from one look for what is due to the next

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


async def run(
    database: Database,
    config: Config,
    *,
    clock: Clock = utc_now,
    poll: float = 30.0,
    names: AbstractResolver | None = None,
) -> None:
    """Read what is due until cancelled. `poll` is how many seconds it sleeps at most, `names` what resolves names.

    A database that is away is waited for.
    """
    reader = Reader(database, config, clock, names)
    listening = asyncio.create_task(listen(database, "visavis_outside", reader.wake))
    try:
        while True:
            reader.wake.clear()
            await reader.start_due()
            await reader.rest(poll)
    finally:
        listening.cancel()
        await asyncio.gather(listening, reader.stop(), return_exceptions=True)


class Reader:
    """The calendars that one process is reading now."""

    def __init__(self, database: Database, config: Config, clock: Clock, names: AbstractResolver | None) -> None:
        self.database = database
        self.config = config
        self.clock = clock
        self.names = names
        self.wake = asyncio.Event()
        self.reading: set[asyncio.Task[None]] = set()
        self.tls = ssl.create_default_context()
        self.turn = asyncio.Semaphore()  # of reading what was fetched: each costs a core for a moment

    async def start_due(self) -> None:
        free = MOST_AT_ONCE - len(self.reading)
        if free <= 0:
            return
        for due in await persist(
            self.database,
            lambda tx: outside.claim_due(tx, now=self.clock(), most=free, lease=LEASE),
        ):
            task = asyncio.create_task(self._take(due))
            self.reading.add(task)
            task.add_done_callback(self._done)

    async def rest(self, poll: float) -> None:
        """Wait for news, for one to be done, or for the next due time."""
        seconds = poll
        if len(self.reading) < MOST_AT_ONCE:
            due = await persist(self.database, outside.next_due)
            if due is not None:
                seconds = min(poll, max(SOONEST, (due - self.clock()).total_seconds()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()

    async def stop(self) -> None:
        """Break off what is being read; it is read again when its lease is over."""
        while self.reading:
            for task in self.reading:
                task.cancel()
            await asyncio.wait(self.reading, timeout=1.0)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.reading.discard(task)
        self.wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("calendar.reading_broken", error=type(error).__name__)

    async def _take(self, due: Due) -> None:
        """Read a calendar, and settle it."""
        try:
            reading = await self._read(due)
        except FetchFailed as error:
            wait = None if error.wait is None else timedelta(seconds=error.wait)
            return await self._settle_failed(due, error.code, wait)
        except Unreadable as error:
            return await self._settle_failed(due, str(error))
        except Exception as error:  # a bug of ours in this one; the text could quote what stands in the calendar
            log.error("calendar.broken", calendar_id=str(due.id), error=type(error).__name__)
            return await self._settle_failed(due, "broken")
        pause = self._pause()
        await persist(self.database, lambda tx: outside.settle_read(tx, due, reading, now=self.clock(), pause=pause))
        outcome = "unchanged" if reading.busy is None else "read"
        READS.labels(outcome).inc()
        log.info("calendar.read", calendar_id=str(due.id), outcome=outcome)

    async def _read(self, due: Due) -> Reading:
        """Fetch it, and work out its times unless they are known: the day, the zone and the content are the same."""
        address = seals.unlock(self.config.secret.get_secret_value(), due.address)
        if address is None:
            raise FetchFailed("locked")
        zone = ZoneInfo(due.time_zone)
        today = self.clock().astimezone(zone).date()
        read_as = f"{today} {zone.key}"
        known = due.read_as == read_as
        fetched = await fetches.fetch(
            address,
            private=self.config.calendars.private_networks,
            etag=due.etag if known else None,
            last_modified=due.last_modified if known else None,
            tls=self.tls,
            names=self.names,
        )
        if fetched.content is None:
            return Reading(None, due.etag, due.last_modified, due.digest, due.read_as)
        digest = hashlib.sha256(fetched.content).digest()
        if known and digest == due.digest:
            return Reading(None, fetched.etag, fetched.last_modified, digest, read_as)
        midnight = datetime.combine(today, time(), tzinfo=zone)
        question = Question(
            (midnight - timedelta(days=1)).timestamp(),
            (midnight + HORIZON + timedelta(days=1)).timestamp(),
            zone.key,
            calendars.domain_of(self.config.mail.sender),
            due.email,
        )
        async with self.turn:
            busy = await readings.read(fetched.content, question)
        return Reading(busy, fetched.etag, fetched.last_modified, digest, read_as)

    async def _settle_failed(self, due: Due, error: str, wait: timedelta | None = None) -> None:
        pause = self._pause()
        await persist(
            self.database,
            lambda tx: outside.settle_failed(tx, due, error, now=self.clock(), pause=pause, wait=wait),
        )
        READS.labels("failed").inc()
        log.warning("calendar.not_read", calendar_id=str(due.id), code=error, failures=due.failures + 1)

    def _pause(self) -> timedelta:
        """To the next time; not all at the same moment."""
        return timedelta(minutes=self.config.calendars.poll_minutes) * random.uniform(0.95, 1.05)  # noqa: S311 - it spreads load

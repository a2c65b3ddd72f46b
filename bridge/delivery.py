"""The loop that delivers the outbox's mail channel: claim, commit, send, settle.

Any number of these may run on one database: the lease of a claimed row keeps the others away from it, and is renewed
for as long as the mail is being sent; so the rows of a process that was killed are soon taken up again. A mail is sent
at least once; twice only if the process or the database dies between the server's 250 and the settling, and then
with the same Message-ID.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy import update

from bridge import letters, mail
from bridge.letters import HeldBack, Letter, Outdated, Unwanted
from bridge.smtp import STEPS, Connections
from supervision import notifications
from supervision.config import Config, MailConfig
from supervision.db import DATABASE_AWAY, Database, Transaction, listen
from supervision.errors import DeliveryFailed, Permanent, Transient
from supervision.models import Channel, State
from supervision.models import notifications as table
from supervision.notifications import Backoff, Notification

log = structlog.get_logger(__name__)

MAILS = Counter("visavis_mails_total", "Mails by what became of a try: sent, retried, parked", ["kind", "outcome"])

SETTLING = timedelta(seconds=15)  # what the lease leaves after all steps but the server's word on the content
RENEWAL = timedelta(seconds=5)  # from one renewal of a lease to the next
CLAIMING = 2.0  # seconds that a stop waits for a claim that is being committed
SOONEST = 1.0  # seconds; a row that is due may be behind one that another process is sending

T = TypeVar("T")
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


async def run(
    database: Database,
    config: Config,
    *,
    clock: Clock = utc_now,
    backoff: Backoff | None = None,
    poll: float = 30.0,
    grace: float = 10.0,
) -> None:
    """Deliver mail until cancelled; then finish what is being sent, for at most `grace` seconds.

    It wakes at once for what is enqueued, at the time of the next try, and every `poll` seconds in any case. A
    database that is away is waited for.
    """
    delivery = Delivery(database, config, clock, backoff or plan_retries(config.mail))
    listening = asyncio.create_task(listen(database, "visavis_mail", delivery.wake))
    try:
        while True:
            delivery.wake.clear()
            await delivery.start_due()
            await delivery.rest(poll)
    finally:
        listening.cancel()
        await delivery.finish(grace)
        await asyncio.gather(listening, return_exceptions=True)


def plan_retries(config: MailConfig) -> Backoff:
    """A mail server that is away overnight is no reason to give up: the usual ten tries take about a day."""
    first, longest = config.first_retry_seconds, config.longest_retry_seconds
    return Backoff(timedelta(seconds=first), timedelta(seconds=longest), config.tries, factor=3)


class Delivery:
    """The mails of one process that are being sent now, at most as many as there are connections."""

    def __init__(self, database: Database, config: Config, clock: Clock, backoff: Backoff) -> None:
        self.database = database
        self.config = config
        self.clock = clock
        self.backoff = backoff
        self.wake = asyncio.Event()
        self.connections = Connections(config.mail)
        self.sending: set[asyncio.Task[None]] = set()

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=STEPS * self.config.mail.timeout_seconds) + SETTLING

    async def start_due(self) -> None:
        """Claim what is due, the most urgent first, and begin to send it."""
        free = self.config.mail.connections - len(self.sending)
        if free <= 0:
            return
        claiming = asyncio.create_task(self._patiently(lambda tx: self._claim(tx, free)))
        try:
            self._begin(await asyncio.shield(claiming))
        except asyncio.CancelledError:
            # What is claimed at this moment would wait out its lease, so it is sent with the rest of what is.
            await asyncio.wait([claiming], timeout=CLAIMING)
            claiming.cancel()
            if claiming.done() and not claiming.cancelled() and claiming.exception() is None:
                self._begin(claiming.result())
            raise

    def _begin(self, claimed: Sequence[tuple[Notification, Letter | Exception]]) -> None:
        for notification, letter in claimed:
            task = asyncio.create_task(self._deliver(notification, letter))
            self.sending.add(task)
            task.add_done_callback(self._done)

    async def rest(self, poll: float) -> None:
        """Wait for news, a finished mail or the next due time."""
        if not self.sending:
            await self.connections.close_idle()
        seconds = poll
        if len(self.sending) < self.config.mail.connections:
            due = await self._patiently(lambda tx: notifications.next_due(tx, Channel.MAIL, now=self.clock()))
            if due is not None:
                seconds = min(poll, max(SOONEST, (due - self.clock()).total_seconds()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 can swallow a cancellation
                await self.wake.wait()

    async def finish(self, grace: float) -> None:
        """Let what is being sent end, and break off what does not: its lease ends too, and it is sent again."""
        try:
            if self.sending:
                await asyncio.wait(self.sending, timeout=grace)
        finally:
            while self.sending:  # a library may swallow one cancellation
                for task in self.sending:
                    task.cancel()
                await asyncio.wait(self.sending, timeout=1.0)
            await self.connections.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self.sending.discard(task)
        self.wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("notification.delivery_broken", error=type(error).__name__)

    async def _claim(self, tx: Transaction, most: int) -> list[tuple[Notification, Letter | Exception]]:
        """Lease rows and read what their mails need; what cannot be read comes with the reason."""
        claimed = await notifications.claim(tx, Channel.MAIL, now=self.clock(), most=most, lease=self.lease)
        found = []
        for notification, letter in await letters.load_all(tx, claimed, now=self.clock()):
            match letter:
                case Outdated():
                    await notifications.settle_superseded(tx, notification.id, now=self.clock())
                case Unwanted():
                    await notifications.settle_unwanted(tx, notification.id, now=self.clock())
                case HeldBack(until=until):
                    await notifications.postpone(tx, notification, until)
                case _:
                    found.append((notification, letter))
        return found

    async def _deliver(self, notification: Notification, letter: Letter | Exception) -> None:
        try:
            if isinstance(letter, Exception):
                raise letter
            envelope = await asyncio.to_thread(mail.write, letter, self.config, now=self.clock())
        except DeliveryFailed as error:
            return await self._settle_failed(notification, error)
        except Exception as error:  # a bug of ours in this one mail; the text could quote what a person wrote
            return await self._settle_failed(notification, Permanent("unwritable"), type(error).__name__)
        try:
            async with self._renewing(notification):
                await self.connections.send(envelope)
        except DeliveryFailed as error:
            return await self._settle_failed(notification, error)
        except Exception as error:
            return await self._settle_failed(notification, Transient("unexpected"), type(error).__name__)
        await self._settle_sent(notification)

    @contextlib.asynccontextmanager
    async def _renewing(self, notification: Notification) -> AsyncIterator[None]:
        """Keep the row leased to us meanwhile. It is over before the row is settled, or it would undo that."""
        task = asyncio.create_task(self._renew(notification))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("notification.renewal_broken", error=type(error).__name__)

    async def _renew(self, notification: Notification) -> None:
        own = (
            (table.c.id == notification.id)
            & (table.c.state == State.PENDING)
            & (table.c.attempts == notification.attempts)
        )
        while True:
            await asyncio.sleep(RENEWAL.total_seconds())
            await self._patiently(
                lambda tx: tx.execute(update(table).where(own).values(claimed_until=self.clock() + self.lease))
            )

    async def _settle_sent(self, notification: Notification) -> None:
        await self._patiently(lambda tx: notifications.settle_sent(tx, notification.id, now=self.clock()))
        MAILS.labels(notification.kind, "sent").inc()
        log.info("notification.sent", notification_id=str(notification.id), kind=notification.kind)

    async def _settle_failed(self, notification: Notification, failure: DeliveryFailed, error: str = "") -> None:
        """Plan the next try or park it. `error` is an unexpected exception's type, for the log."""
        state = await self._patiently(
            lambda tx: notifications.settle_failed(
                tx,
                notification,
                failure.code,
                now=self.clock(),
                backoff=self.backoff,
                permanent=isinstance(failure, Permanent),
                retry_after=failure.retry_after if isinstance(failure, Transient) else None,
            )
        )
        values = {"notification_id": str(notification.id), "kind": notification.kind, "attempts": notification.attempts}
        values |= {"code": failure.code} | ({"error": error} if error else {})
        if state is State.PARKED:
            MAILS.labels(notification.kind, "parked").inc()
            log.error("notification.parked", **values)
        else:
            MAILS.labels(notification.kind, "retried").inc()
            log.warning("notification.retried", **values)

    async def _patiently(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do it in one transaction, again and again while the database is away; it may take for ever."""
        delay = 0.25
        while True:
            try:
                async with self.database.transaction() as tx:
                    return await work(tx)
            except DATABASE_AWAY as error:
                log.warning("bridge.database_away", error=type(error).__name__)
            await asyncio.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311 - it spreads load and guards nothing
            delay = min(10.0, delay * 2)

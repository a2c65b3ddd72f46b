"""The loop that delivers the outbox's mail channel: claim, commit, send, settle.

Any number of these may run on one database: the lease of a claimed row keeps the others away from it, and is renewed
for as long as the mail is being sent; so the rows of a process that was killed are soon taken up again. A mail is sent
at least once; twice only if the process or the database dies, or freezes for longer than the lease, between the
server's 250 and the settling, and then with the same Message-ID. What was sent is settled together with what else was
meanwhile, in the transaction that claims the next; until then its connection has no other mail, so that never more are
unsettled than there are connections.
"""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from prometheus_client import Counter, Histogram

from bridge import letters, mail
from bridge.letters import Group, HeldBack, Letter, Outdated, Unwanted
from bridge.outages import persist
from bridge.paces import Pace
from bridge.smtp import AddressRefused, Connections, Envelope, Unreachable
from supervision import mailboxes, notifications
from supervision.config import Config, MailConfig
from supervision.db import Database, Transaction, listen
from supervision.errors import DeliveryFailed, Permanent, Transient
from supervision.models import Channel, State
from supervision.notifications import LOW, Backoff, Notification

log = structlog.get_logger(__name__)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
MAILS = Counter("visavis_mails_total", "Mails by what became of a try: sent, retried, parked", ["kind", "outcome"])
FAILURES = Counter("visavis_mail_failures_total", "Tries of mails that failed, by what went wrong", ["reason"])
PROCESSING = Histogram(
    "visavis_mail_processing_seconds", "From the claiming of a mail to the settling of that try", buckets=SECONDS
)
DELAYS = Histogram("visavis_mail_delay_seconds", "From when a mail was to be sent until it was", buckets=SECONDS)

LEASE = timedelta(seconds=30)
RENEWAL = 10.0  # seconds from one renewal of the leases to the next
CLAIMING = 2.0  # seconds that a stop waits for a claim that is being committed
SOONEST = 1.0  # seconds; a row that is due may be behind one that another process is sending
GATHERING = 0.01  # seconds that a finished mail waits for others, to be settled and followed together with them

ANSWERED = re.compile(r"smtp_([245])\d\d")  # the code of what a server said to a mail
BROKEN = ("smtp_timeout", "smtp_connection_lost", "unexpected")

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
    database or a mail server that is away is waited for.
    """
    delivery = Delivery(database, config, clock, backoff or plan_retries(config.mail))
    beside = [
        asyncio.create_task(listen(database, "visavis_mail", delivery.wake)),
        asyncio.create_task(delivery.keep_leases()),
    ]
    try:
        while True:
            delivery.wake.clear()
            await delivery.turn()
            await delivery.rest(poll)
    finally:
        beside[0].cancel()
        await delivery.finish(grace)
        beside[1].cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def plan_retries(config: MailConfig) -> Backoff:
    """A mail server that is away overnight is no reason to give up: the usual ten tries take about a day."""
    first, longest = config.first_retry_seconds, config.longest_retry_seconds
    return Backoff(timedelta(seconds=first), timedelta(seconds=longest), config.tries, factor=3)


@dataclass(eq=False)
class Try:
    """A claimed mail on its way, and what became of it. `error` is an unexpected exception's type, for the log."""

    notification: Notification
    letter: Letter | Exception
    claimed_at: float  # of time.monotonic(), in seconds; so is `leased_at`, of the last renewal
    leased_at: float
    failure: DeliveryFailed | None = None
    error: str = ""
    lost: bool = False  # its lease ended while this process was held up: it may be another's now
    state: State = State.SENT


class Delivery:
    """The mails of one process that are being sent now, at most as many as there are connections."""

    lease = LEASE

    def __init__(self, database: Database, config: Config, clock: Clock, backoff: Backoff) -> None:
        self.database = database
        self.config = config
        self.clock = clock
        self.backoff = backoff
        self.wake = asyncio.Event()
        self.connections = Connections(config.mail)
        self.pace = Pace(
            config.mail.connections,
            first=min(0.5, config.mail.first_retry_seconds),
            longest=min(60.0, config.mail.longest_retry_seconds),
        )
        self.sending: dict[asyncio.Task[None], Try] = {}
        self.ended: list[Try] = []  # and not settled yet
        self.refused: list[tuple[uuid.UUID, str, str]] = []  # mails refused for good, for which address and why
        self._more: bool | None = None  # whether more is due than the last turn could claim; None where it was not to
        self._writing = asyncio.Lock()
        self._gathering: asyncio.TimerHandle | None = None

    @property
    def free(self) -> int:
        """How many mails may be claimed in the transaction that settles what has ended."""
        return 0 if self.pace.pause else max(0, self.pace.width - len(self.sending))

    async def turn(self) -> None:
        """Settle what has ended, claim what is due, the most urgent first, and begin to send it."""
        if not self.ended and not self.free:
            return
        working = asyncio.create_task(self._settle_and_claim())
        try:
            self.begin(await asyncio.shield(working))
        except asyncio.CancelledError:
            # What is claimed at this moment would wait out its lease, so it is sent with the rest of what is.
            await asyncio.wait([working], timeout=CLAIMING)
            working.cancel()
            await asyncio.wait([working], timeout=CLAIMING)  # it leaves what it could not settle to `finish`
            if working.done() and not working.cancelled() and working.exception() is None:
                self.begin(working.result())
            raise
        await self._stop_addresses()

    async def rest(self, poll: float) -> None:
        """Wait for news, a finished mail, the next due time or the end of a pause."""
        if not self.sending:
            await self.connections.close_idle()
        seconds = await self._seconds_to_next(poll)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 can swallow a cancellation
                await self.wake.wait()

    async def keep_leases(self) -> None:
        """Keep what is being sent leased to this process, for ever. Most mails are gone before the first renewal."""
        while True:
            await asyncio.sleep(RENEWAL)
            held, now = list(self.sending.values()), time.monotonic()
            if held:
                renewed = await persist(self.database, partial(self._renew, [one.notification for one in held]))
                for one in held:
                    if one.notification.id in renewed:
                        one.leased_at = now

    async def _renew(self, held: Sequence[Notification], tx: Transaction) -> set[uuid.UUID]:
        return await notifications.renew(tx, held, self.lease, now=self.clock())

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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(grace, 1.0)):
                    await self._settle_rest()
                    await self._stop_addresses()
            await self.connections.close()

    def begin(self, claimed: Sequence[Try]) -> None:
        """Send these, side by side."""
        for one in claimed:
            task = asyncio.create_task(self._send(one))
            self.sending[task] = one
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        one = self.sending.pop(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("notification.delivery_broken", error=type(error).__name__)
            one.failure = Transient("unexpected")
        self.ended.append(one)
        if len(self.sending) <= self.pace.width // 2:
            self.wake.set()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHERING, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self.wake.set()

    async def _seconds_to_next(self, poll: float) -> float:
        if pause := self.pace.pause:
            return min(poll, pause)
        if not self.free or self.ended:
            return poll  # what ends sets `wake`
        if self._more is None:
            return min(poll, SOONEST)
        if self._more:
            return 0
        due = await persist(self.database, lambda tx: notifications.next_due(tx, Channel.MAIL, now=self.clock()))
        return poll if due is None else min(poll, max(SOONEST, (due - self.clock()).total_seconds()))

    async def _settle_and_claim(self) -> list[Try]:
        ended, self.ended = self.ended, []
        free = self.free
        try:
            claimed = await persist(self.database, partial(self._settle_and_claim_in, ended, free))
        except BaseException:
            self.ended = ended + self.ended
            raise
        self._report(ended)
        return claimed

    async def _settle_and_claim_in(self, ended: Sequence[Try], free: int, tx: Transaction) -> list[Try]:
        await self._settle(ended, tx)
        return await self._claim(tx, free) if free else []

    async def _claim(self, tx: Transaction, free: int) -> list[Try]:
        """Lease rows and read what their mails need. One connection of several is left to what is more urgent."""
        claimed_at, now = time.monotonic(), self.clock()
        busy = sum(one.notification.priority == LOW for one in self.sending.values())
        low = max(0, self.pace.width - 1 - busy) if self.pace.width > 1 else free
        claimed = await notifications.claim(tx, Channel.MAIL, now=now, most=free, low=low, lease=self.lease)
        limited = low < free and sum(notification.priority == LOW for notification in claimed) >= low
        self._more = True if len(claimed) == free else None if limited else False
        tries = []
        for notification, letter in await letters.load_all(tx, claimed, now=now) if claimed else ():
            match letter:
                case Outdated():
                    await notifications.settle_superseded(tx, notification.id, now=now)
                case Unwanted():
                    await notifications.settle_unwanted(tx, notification.id, now=now)
                case HeldBack(until=until):
                    await notifications.postpone(tx, notification, until)
                case _:
                    tries.append(Try(notification, letter, claimed_at, claimed_at))
        return tries

    async def _send(self, one: Try) -> None:
        """Send a mail, and note in `one` how that went."""
        try:
            envelope = await self._write(one)
            if time.monotonic() - one.leased_at > self.lease.total_seconds():
                one.lost = True
                return
            await self.connections.send(envelope)
            self.pace.note_reached()
        except Unreachable as failure:
            one.failure = failure
            self.pace.note_unreachable(self.connections.opened)
        except DeliveryFailed as failure:
            one.failure = failure
            if ANSWERED.match(failure.code):
                self.pace.note_reached()
        except Exception as error:
            one.failure, one.error = Transient("unexpected"), type(error).__name__

    async def _write(self, one: Try) -> Envelope:
        """One after the other, so that the loop has its turn between. Raises Permanent."""
        try:
            if isinstance(one.letter, Exception):
                raise one.letter
            async with self._writing:
                if isinstance(one.letter.subject, Group):  # many occurrences take long
                    return await asyncio.to_thread(mail.write, one.letter, self.config, now=self.clock())
                return mail.write(one.letter, self.config, now=self.clock())
        except DeliveryFailed:
            raise
        except Exception as error:  # a bug of ours in this one mail; the text could quote what a person wrote
            one.error = type(error).__name__
            raise Permanent("unwritable") from None

    def _report(self, ended: Sequence[Try]) -> None:
        """What is to be done once these are settled and committed."""
        report(ended, now=self.clock())
        for one in ended:
            if isinstance(one.failure, AddressRefused) and isinstance(one.letter, Letter) and one.state is State.PARKED:
                self.refused.append((one.notification.id, one.letter.recipient.email, one.failure.status))

    async def _stop_addresses(self) -> None:
        """Mail nothing more to addresses that were refused for good, in transactions of their own: each locks a person.

        What a crash forgets here the next mail to that address brings up again.
        """
        while self.refused:
            await persist(self.database, partial(self._stop_address, *self.refused[0]))
            self.refused.pop(0)

    async def _stop_address(self, notification_id: uuid.UUID, address: str, code: str, tx: Transaction) -> None:
        """Unless the person has another address by now."""
        if await mailboxes.addressee(tx, notification_id) == address:
            await mailboxes.stop(tx, notification_id, code, now=self.clock())

    async def _settle_rest(self) -> None:
        ended, self.ended = self.ended, []
        if ended:
            await persist(self.database, partial(self._settle_and_wake, ended))
            self._report(ended)

    async def _settle_and_wake(self, ended: Sequence[Try], tx: Transaction) -> None:
        """What waited behind these is left to the other bridges."""
        await self._settle(ended, tx)
        await notifications.wake(tx, Channel.MAIL)

    async def _settle(self, ended: Sequence[Try], tx: Transaction) -> None:
        """What was sent in one statement; what could not be is planned anew or parked."""
        now = self.clock()
        kept = [one for one in ended if not one.lost]
        if sent := [one.notification.id for one in kept if one.failure is None]:
            await notifications.settle_all_sent(tx, sent, now=now)
        for one in kept:
            match one.failure:
                case None:
                    one.state = State.SENT
                case Unreachable(code=code):
                    one.state = State.PENDING
                    await notifications.give_back(tx, [one.notification], code)
                case failure:
                    one.state = await self._settle_failed(tx, one.notification, failure, now)

    async def _settle_failed(
        self, tx: Transaction, notification: Notification, failure: DeliveryFailed, now: datetime
    ) -> State:
        return await notifications.settle_failed(
            tx,
            notification,
            failure.code,
            now=now,
            backoff=self.backoff,
            permanent=isinstance(failure, Permanent),
            retry_after=failure.retry_after if isinstance(failure, Transient) else None,
        )


def report(settled: Sequence[Try], *, now: datetime) -> None:
    """Count and log what became of these, once that is committed."""
    for one in settled:
        notification, failure = one.notification, one.failure
        values = {"notification_id": str(notification.id), "kind": notification.kind}
        PROCESSING.observe(time.monotonic() - one.claimed_at)
        if one.lost:
            log.warning("notification.lease_lost", **values)
        elif failure is None:
            MAILS.labels(notification.kind, "sent").inc()
            DELAYS.observe(max(0.0, (now - (notification.send_at or now)).total_seconds()))
            log.info("notification.sent", **values)
        else:
            FAILURES.labels(reason(failure)).inc()
            values |= {"code": failure.code} | ({"error": one.error} if one.error else {})
            parked = one.state is State.PARKED
            MAILS.labels(notification.kind, "parked" if parked else "retried").inc()
            tell = log.error if parked else log.warning
            tell(f"notification.{'parked' if parked else 'retried'}", attempts=notification.attempts, **values)


def reason(failure: DeliveryFailed) -> str:
    """The class of a failure, as a label: few values, none of them the other side's choice."""
    if isinstance(failure, Unreachable):
        return "unreachable"
    if answered := ANSWERED.match(failure.code):
        return f"{answered[1]}xx"
    return failure.code if failure.code in BROKEN else "unsendable"

"""The listener that our own mail server hands mail to: calendars' answers, and mails that came back.

LMTP (RFC 2033) or SMTP, for addresses that we made and sealed, and no others. What is taken with 250 has had its
effect, in a transaction that is committed; while that cannot be, the answer is 451 and the server tries again. Mail
that is handed over twice takes effect once. What is refused is never told to its sender, who may be anybody.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import AnyStr

import structlog
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session
from prometheus_client import Counter

from bridge import bounces, parts, proofs, replies
from bridge.bounces import Failure
from bridge.parts import Unreadable
from bridge.proofs import Unproven
from supervision import attendances, audit, mailboxes, people, seals
from supervision.attendances import INEFFECTIVE, Response
from supervision.audit import SYSTEM, Actor
from supervision.config import Config, InboundConfig
from supervision.db import DATABASE_AWAY, Database, Transaction
from supervision.errors import NotFound, NotUnderstood, Refused

log = structlog.get_logger(__name__)

ARRIVALS = Counter("visavis_inbound_mails_total", "Mails taken in by what became of them", ["outcome"])

MOST_CONNECTIONS = 20
MOST_RECIPIENTS = 10
COMMAND_SECONDS = 60.0  # for a command, and for all of a mail
AT_ONCE = 2  # mails that are read side by side: it is the processor's work
LONGEST_LINE = 16_384
TAKEN, LATER = "250 2.0.0 Taken", "451 4.3.0 Try again later"
NOBODY = "550 5.1.1 No such address"
TOO_MANY_RECIPIENTS = "452 4.5.3 Too many recipients"
FULL = b"421 4.3.2 Too many connections\r\n"
OVERSIZED = ("500 Line too long", "552 Error: Too much mail data")

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


async def run(database: Database, config: Config, *, clock: Clock = utc_now) -> None:
    """Take mail in until cancelled. Raises OSError where the port cannot be had."""
    if config.inbound is None:
        return
    listener = Listener(Arrivals(database, config, config.inbound, clock), config.inbound)
    await listener.start()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await listener.stop()


class Listener:
    """The connections of our mail server. It trusts whoever may connect: it belongs on the loopback interface."""

    def __init__(self, arrivals: "Arrivals", config: InboundConfig) -> None:
        self.arrivals = arrivals
        self.config = config
        self.open: set[SMTP] = set()
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self._serve, self.config.listen, self.config.port)

    async def stop(self) -> None:
        """Take no more; a mail under way is cut off, and its sender was not told 250."""
        if self.server is not None:
            self.server.close()
            for connection in list(self.open):
                abort(connection)
            await self.server.wait_closed()

    def _serve(self) -> asyncio.Protocol:
        if len(self.open) >= MOST_CONNECTIONS:
            log.warning("inbound.too_many_connections")
            return Busy()
        kind = _Lmtp if self.config.protocol == "lmtp" else _Smtp
        connection = kind(
            self,
            hostname=self.config.domain,
            ident="Visavis",
            data_size_limit=self.config.largest_bytes,
            enable_SMTPUTF8=True,
            timeout=COMMAND_SECONDS,
            loop=asyncio.get_running_loop(),
        )
        connection.listener = self
        self.open.add(connection)
        return connection

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.arrivals.recipient(address) is None:
            return NOBODY
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return TOO_MANY_RECIPIENTS
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """One result for each recipient over LMTP (RFC 2033, 4.2), and over SMTP one for all."""
        content = envelope.original_content or b""
        results = [await self.arrivals.take(address, content) for address in envelope.rcpt_tos]
        if isinstance(server, LMTP):
            return "\r\n".join(results)
        return next((one for one in results if one != TAKEN), TAKEN)

    async def handle_exception(self, error: Exception) -> str:
        log.error("inbound.connection_broken", error=type(error).__name__)
        return LATER


class _Limited(SMTP):
    """What aiosmtpd does not limit by itself, and its answers where LMTP wants one for each recipient."""

    listener: Listener
    line_length_limit = LONGEST_LINE
    received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.received > 4 * self.listener.config.largest_bytes:  # of one mail: it goes on after it is too large
            abort(self)
            return
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.listener.open.discard(self)
        super().connection_lost(error)

    def _set_post_data_state(self) -> None:
        self.received = 0
        super()._set_post_data_state()  # type: ignore[no-untyped-call]

    async def push(self, status: AnyStr) -> None:
        if isinstance(self, LMTP) and isinstance(status, str) and status.startswith(OVERSIZED):
            recipients = 1 if self.envelope is None else len(self.envelope.rcpt_tos)
            await super().push("\r\n".join([status] * recipients))
        else:
            await super().push(status)


class _Smtp(_Limited):
    pass


class _Lmtp(_Limited, LMTP):
    pass


class Busy(asyncio.Protocol):
    """Says that there are too many connections, and ends this one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(FULL)
        transport.close()


def abort(connection: SMTP) -> None:
    if isinstance(connection.transport, asyncio.WriteTransport):
        connection.transport.abort()


@dataclass(frozen=True)
class Recipient:
    """What an address of ours stands for: a person's answers, or a mail of ours that came back."""

    reply_of: uuid.UUID | None = None
    return_of: uuid.UUID | None = None


@dataclass(frozen=True)
class Answers:
    """What somebody's own calendar answers."""

    author: str
    responses: list[Response]


@dataclass(frozen=True)
class Unanswered:
    """A mail that a person wrote by hand to where calendars answer."""

    author: str


@dataclass(frozen=True)
class Report:
    failures: list[Failure]


@dataclass(frozen=True)
class Nothing:
    """Nothing that has an effect; `reason` is a static word, `suspicious` if it may be somebody's trick."""

    reason: str
    suspicious: bool = False


Read = Answers | Unanswered | Report | Nothing


class Arrivals:
    """What becomes of a mail for an address of ours."""

    def __init__(self, database: Database, config: Config, inbound: InboundConfig, clock: Clock) -> None:
        self.database = database
        self.secret = config.secret.get_secret_value()
        self.inbound = inbound
        self.clock = clock
        self.reading = asyncio.Semaphore(AT_ONCE)

    def recipient(self, address: str) -> Recipient | None:
        domain = self.inbound.domain
        if (person_id := seals.read_reply_address(self.secret, address, domain)) is not None:
            return Recipient(reply_of=person_id)
        if (notification_id := seals.read_return_address(self.secret, address, domain)) is not None:
            return Recipient(return_of=notification_id)
        return None

    async def take(self, address: str, content: bytes) -> str:
        """Give a mail its effect, once. Returns the SMTP reply: 250 after the commit, 451 where there was none."""
        to = self.recipient(address)
        if to is None:
            return NOBODY
        digest = hashlib.sha256(f"{to.reply_of} {to.return_of} ".encode() + content).digest()
        try:
            async with self.reading:
                found = await asyncio.to_thread(read, content, to, self.inbound.authserv_id)
            outcome = await self._settle(to, digest, found)
        except DATABASE_AWAY as error:
            log.warning("inbound.database_away", error=type(error).__name__)
            return LATER
        except Exception as error:  # the server keeps it and tries again, so it is not lost
            log.exception("inbound.failed", error=type(error).__name__)
            return LATER
        ARRIVALS.labels(outcome).inc()
        log.info("inbound.taken", outcome=outcome, person_id=_text(to.reply_of), notification_id=_text(to.return_of))
        return TAKEN

    async def _settle(self, to: Recipient, digest: bytes, found: Read) -> str:
        now = self.clock()
        try:
            async with self.database.transaction() as tx:
                if not await mailboxes.take_in(tx, digest, "taken", now=now):
                    return "repeated"
                outcome = await self._act(tx, to, found, now)
                await mailboxes.rename(tx, digest, outcome)
                return outcome
        except _Told as told:
            async with self.database.transaction() as tx:
                if not await mailboxes.take_in(tx, digest, "refused", now=now):
                    return "repeated"
                await attendances.tell_refused(tx, told.actor, told.response, told.refused, now=now)
                return "refused"

    async def _act(self, tx: Transaction, to: Recipient, found: Read, now: datetime) -> str:
        match found:
            case Report(failures) if to.return_of is not None:
                return await _bounce(tx, to.return_of, failures, now)
            case Answers(author, responses) if to.reply_of is not None:
                return await _respond(tx, to.reply_of, author, responses, now)
            case Unanswered(author) if to.reply_of is not None:
                return await _respond(tx, to.reply_of, author, None, now)
            case Nothing(reason, suspicious):
                if suspicious:
                    await _suspect(tx, to, f"inbound.{reason}", now)
                return reason
        return "ignored"


class _Told(Exception):
    """What was answered is refused, and the person is to hear why; the transaction is undone."""

    def __init__(self, actor: Actor, response: Response | None, refused: Refused) -> None:
        self.actor = actor
        self.response = response
        self.refused = refused
        super().__init__(refused.key)


async def _respond(
    tx: Transaction, person_id: uuid.UUID, author: str, responses: list[Response] | None, now: datetime
) -> str:
    """Do what a person's calendar answers, if it was the person who wrote."""
    to = Recipient(reply_of=person_id)
    try:
        person = await people.get(tx, person_id)
    except NotFound:
        return "unknown"
    if person.disabled_at is not None or not proofs.same_address(person.email, author):
        await _suspect(tx, to, "inbound.other_author", now)
        return "other_author"
    actor = Actor(person.id, "calendar")
    if responses is None:
        raise _Told(actor, None, NotUnderstood("refused.mail_not_read"))
    outcomes = []
    for response in responses:
        try:
            outcomes.append(await attendances.respond(tx, actor, response, now=now))
        except Refused as refused:
            raise _Told(actor, response, refused) from None
    return next((one for one in outcomes if one not in INEFFECTIVE), outcomes[0])


async def _bounce(tx: Transaction, notification_id: uuid.UUID, failures: list[Failure], now: datetime) -> str:
    """Park the mail that came back, and stop its address where that is at fault and still the person's."""
    addressee = await mailboxes.addressee(tx, notification_id)
    if addressee is None:
        return "unknown"
    failure = next((one for one in failures if one.is_about(addressee)), None)
    if failure is None:
        return "not_theirs" if failures else "delayed"
    if not failure.stops:
        await mailboxes.bounce(tx, notification_id, failure.code, now=now)
        return "bounced"
    await mailboxes.stop(tx, notification_id, failure.code, now=now)
    return "stopped"


async def _suspect(tx: Transaction, to: Recipient, reason: str, now: datetime) -> None:
    resource, resource_id = ("person", to.reply_of) if to.reply_of else ("notification", to.return_of)
    await audit.record(tx, SYSTEM, "mail.take_in", resource, resource_id, now=now, success=False, reason=reason)


def read(content: bytes, to: Recipient, authserv_id: str) -> Read:
    """What a mail says; pure, and work for the processor. Never raises for what somebody wrote."""
    try:
        message = parts.open_mail(content)
        if to.return_of is not None:
            return Report(bounces.read(message))
        return _read_reply(message, authserv_id)
    except Unproven as error:
        return Nothing(error.reason, suspicious=True)
    except Unreadable as error:
        return Nothing(error.reason, suspicious=to.reply_of is not None)
    except Exception as error:
        log.exception("inbound.unreadable", error=type(error).__name__)
        return Nothing("unreadable", suspicious=True)


def _read_reply(message: Message, authserv_id: str) -> Read:
    automatic = any("auto-replied" in one.lower() for one in parts.headers(message, "Auto-Submitted"))
    if automatic or message.get_content_type() == "multipart/report":  # RFC 3834; nobody answers those
        return Nothing("automatic")
    author = proofs.proven_author(message, authserv_id)
    if not replies.has_calendar(message):
        return Nothing("automatic") if _is_from_a_program(message) else Unanswered(author)
    return Answers(author, replies.read(message, author))


def _is_from_a_program(message: Message) -> bool:
    """Whether nobody wrote it by hand, as programs say that do not keep to RFC 3834: an absence notice, a list."""
    said = [one.strip().lower() for one in parts.headers(message, "Precedence")]
    named = any(parts.headers(message, name) for name in ("X-Autoreply", "X-Autorespond", "List-Id"))
    return named or any(one in ("auto_reply", "bulk", "junk", "list") for one in said)


def _text(identifier: uuid.UUID | None) -> str | None:
    return None if identifier is None else str(identifier)

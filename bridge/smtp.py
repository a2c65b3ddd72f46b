"""SMTP connections (RFC 5321), and what a server's answer means for a mail: sent, Transient or Permanent."""

import asyncio
import contextlib
import functools
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import aiosmtplib
import structlog

from supervision.config import MailConfig
from supervision.errors import DeliveryFailed, NotUnderstood, Permanent, Transient
from supervision.mailboxes import STOPPING
from supervision.people import check_email

log = structlog.get_logger(__name__)

IDLE_SECONDS = 30.0
QUIT_SECONDS = 2.0
# How often `timeout_seconds` fits into one mail's way, from finding that a kept connection is dead over connecting anew
# to the moment when its content is sent.
STEPS = 4

# The server wants another login or more encryption (RFC 4954, 6; RFC 3207, 4): no fault of the mail.
LOGIN_CODES = (530, 534, 535, 538)
# Greylisting refuses each new pair of sender and recipient until some minutes have passed: five with postgrey and
# rspamd, and some count anew from a try that comes too soon (RFC 6647, 2.2 and 5). These replies to it are common.
GREYLISTING_CODES = (450, 451)
GREYLISTED = re.compile(r"4\.7\.1\b|.*gr[ae]y-?list", re.IGNORECASE | re.DOTALL)
GREYLISTED_SECONDS = 310.0
ENHANCED_CODE = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")  # RFC 3463, 2


@dataclass(frozen=True)
class Envelope:
    """A mail ready to be sent: addresses and headers in ASCII, `content` with CRLF line ends."""

    sender: str
    recipient: str
    content: bytes


@dataclass
class Connection:
    """An open connection; `used` once a mail went over it, so that the server may have closed it meanwhile."""

    client: aiosmtplib.SMTP
    used: bool = False
    rested_at: float = 0.0  # of time.monotonic(), in seconds


class Unreachable(Transient):
    """The server does not take any mail now, or not from us; nothing was said about this one."""


class AddressRefused(Permanent):
    """The server takes nothing for this address, now or later. `status` says why (RFC 3463)."""

    def __init__(self, code: str, status: str) -> None:
        self.status = status
        super().__init__(code)


class Stale(Exception):
    """The server had closed a connection that we kept; the mail was not begun."""


class Connections:
    """Connections to the configured server, kept open between mails.

    Each concurrent `send` has one of its own; the caller limits how many there are. TLS certificates are verified
    against the system's authorities.
    """

    def __init__(self, config: MailConfig) -> None:
        self.config = config
        self._idle: list[Connection] = []
        self._busy = 0
        self._context: ssl.SSLContext | None = None

    @property
    def opened(self) -> int:
        """How many are open."""
        return len(self._idle) + self._busy

    @property
    def longest_send(self) -> float:
        """Seconds after which a `send` has ended, one way or the other."""
        return STEPS * self.config.timeout_seconds + self.config.data_timeout_seconds

    async def send(self, envelope: Envelope) -> None:
        """Hand a mail over. Raises Unreachable, Transient or Permanent; after a cancellation it may be sent or not."""
        require_usable(envelope.recipient)
        try:
            async with asyncio.timeout(self.longest_send):
                while True:
                    connection = await self._take()
                    with contextlib.suppress(Stale):
                        return await self._send_over(connection, envelope)
        except TimeoutError:
            raise Transient("smtp_timeout") from None

    async def close_idle(self) -> None:
        """Say goodbye on connections that have rested for long."""
        rested = time.monotonic() - IDLE_SECONDS
        old = [connection for connection in self._idle if connection.rested_at <= rested]
        self._idle = [connection for connection in self._idle if connection.rested_at > rested]
        await asyncio.gather(*(quit_politely(connection.client) for connection in old))

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(quit_politely(connection.client) for connection in idle))

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.client.is_connected:
                return connection
        return Connection(await self._connect())

    async def _connect(self) -> aiosmtplib.SMTP:
        """A new connection, encrypted and signed in as configured. All that fails here is no fault of a mail."""
        config = self.config
        client = aiosmtplib.SMTP(
            hostname=config.host,
            port=config.port,
            username=config.username,
            password=config.password.get_secret_value() if config.password else None,
            use_tls=config.security == "tls",
            start_tls=config.security == "starttls",
            tls_context=await self._tls_context(),
            timeout=config.timeout_seconds,
            local_hostname=domain(config.sender),
        )
        try:
            with transient_setup():
                await client.connect()
                if client.is_ehlo_or_helo_needed:
                    await client.ehlo()
        except BaseException:
            client.close()
            raise
        return client

    async def _tls_context(self) -> ssl.SSLContext | None:
        if self.config.security == "none":
            return None
        if self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        return self._context

    async def _send_over(self, connection: Connection, envelope: Envelope) -> None:
        """Send on this connection and keep it where it is left in order. Raises Stale before the mail is begun."""
        client = connection.client
        in_order = False
        self._busy += 1
        try:
            await transfer(connection, envelope, data_timeout=self.config.data_timeout_seconds)
            in_order = True
        except aiosmtplib.SMTPResponseException as error:
            in_order = await reset(client)
            raise judge(error) from None
        except aiosmtplib.SMTPTimeoutError:
            raise Transient("smtp_timeout") from None
        except (aiosmtplib.SMTPException, OSError):
            raise Transient("smtp_connection_lost") from None
        finally:
            self._busy -= 1
            if in_order:
                connection.used = True
                connection.rested_at = time.monotonic()
                self._idle.append(connection)
            else:
                client.close()


async def transfer(connection: Connection, envelope: Envelope, *, data_timeout: float) -> None:
    """One mail transaction (RFC 5321, 3.3).

    `data_timeout`, in seconds, is for DATA and the server's word on the content: it may scan the whole mail before it
    answers, and who does not wait for that sends it again and again (RFC 5321, 4.5.3.2.6).
    """
    client = connection.client
    try:
        await client.mail(envelope.sender)
    except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError) as error:
        if connection.used:
            raise Stale from error
        timeout = isinstance(error, aiosmtplib.SMTPTimeoutError)
        raise Unreachable("smtp_timeout" if timeout else "smtp_connection_lost") from None
    except aiosmtplib.SMTPResponseException as error:
        if connection.used and error.code == 421:
            raise Stale from error
        if error.code == 421 or error.code in LOGIN_CODES:
            raise Unreachable(judge(error).code) from None
        raise
    await client.rcpt(envelope.recipient)
    await client.data(envelope.content, timeout=data_timeout)


async def reset(client: aiosmtplib.SMTP) -> bool:
    """Give up the transaction; whether the connection can be used again."""
    try:
        await client.rset()
    except (aiosmtplib.SMTPException, OSError):
        return False
    return client.is_connected


async def quit_politely(client: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=QUIT_SECONDS)
    client.close()


@contextlib.contextmanager
def transient_setup() -> Iterator[None]:
    """Whatever goes wrong before a mail is begun is no fault of the mail's; the operator is told in the log."""
    try:
        yield
    except aiosmtplib.SMTPAuthenticationError as error:
        log.error("smtp.sign_in_refused", code=error.code)
        raise Unreachable(f"smtp_sign_in_{error.code}") from None
    except aiosmtplib.SMTPResponseException as error:
        log.warning("smtp.connection_refused", code=error.code)
        raise Unreachable(f"smtp_refused_{error.code}") from None
    except aiosmtplib.SMTPTimeoutError:
        log.warning("smtp.connection_timeout")
        raise Unreachable("smtp_connect_timeout") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLError):
            log.error("smtp.tls_failed", reason=getattr(cause, "verify_message", None) or cause.reason)
            raise Unreachable("smtp_tls") from None
        if type(cause) is aiosmtplib.SMTPException:
            log.error("smtp.extension_missing")  # STARTTLS, or AUTH of a kind we know
            raise Unreachable("smtp_extension_missing") from None
        log.warning("smtp.connection_failed", error=type(cause).__name__)
        raise Unreachable("smtp_connect") from None


def judge(error: aiosmtplib.SMTPResponseException) -> DeliveryFailed:
    """4yz may be tried again, 5yz may not (RFC 5321, 4.2.1); a reply that makes no sense may."""
    enhanced = ENHANCED_CODE.match(error.message)
    code = f"smtp_{error.code}" + (f"_{enhanced[0]}" if enhanced else "")
    if error.code in LOGIN_CODES:
        log.error("smtp.sign_in_wanted", code=error.code)
        return Transient(code)
    if 500 <= error.code <= 599:
        if isinstance(error, aiosmtplib.SMTPRecipientRefused) and enhanced and enhanced[0] in STOPPING:
            return AddressRefused(code, enhanced[0])
        return Permanent(code)
    greylisted = error.code in GREYLISTING_CODES and GREYLISTED.match(error.message)
    return Transient(code, GREYLISTED_SECONDS if greylisted else None)


@functools.lru_cache(maxsize=4096)
def require_usable(address: str) -> None:
    """Raise Permanent for what is no plain address; aiosmtplib would send to what it can make of it."""
    try:
        check_email(address)
    except NotUnderstood:
        raise Permanent("address_unusable") from None
    if not address.isascii():
        raise Permanent("address_unusable")


def domain(address: str) -> str:
    return to_ascii(address).rpartition("@")[2]


def to_ascii(address: str) -> str:
    """An address whose domain is written as DNS wants it (RFC 3490). Raises Permanent if there is no such domain."""
    name, _, domain = address.rpartition("@")
    try:
        return address if address.isascii() else f"{name}@{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        raise Permanent("address_unusable") from None

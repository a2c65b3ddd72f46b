"""A real SMTP server that answers as a test tells it to."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DROP = "drop"  # instead of a reply: the connection breaks
KEEP_AND_DROP = "keep and drop"  # the mail is kept, and the connection breaks before the client hears of it
STALL = "stall"  # no reply at all


class MoodyServer:
    """It takes mails into `kept`, and uses up `moods[verb]` first: replies, or one of the words above."""

    def __init__(self) -> None:
        self.kept: list[Envelope] = []
        self.moods: defaultdict[str, deque[str]] = defaultdict(deque)
        self.port = 0
        self.hold: asyncio.Event | None = None  # a kept mail is acknowledged once this is set
        self.connections: list[SMTP] = []
        self.most: int | None = None  # connections at a time; who comes beyond is sent away
        self.refused = 0

    def answer(self, verb: str, *replies: str) -> None:
        self.moods[verb].extend(replies)

    def hang_up(self) -> None:
        """Break every connection, as a server does with idle ones."""
        for connection in self.connections:
            break_off(connection)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        open_now = [one for one in self.connections if one.transport and not one.transport.is_closing()]
        if self.most is not None and len(open_now) >= self.most:
            self.refused += 1
            return ["421 4.7.0 too many connections"]
        self.connections.append(server)
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await self.reply("MAIL", server, "250 OK")
        if reply.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return reply

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await self.reply("RCPT", server, "250 OK")
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        reply = await self.reply("DATA", server, "250 OK")
        if reply.startswith("250") or reply == KEEP_AND_DROP:
            self.kept.append(envelope)
            if self.hold is not None:
                await self.hold.wait()
        return reply

    async def reply(self, verb: str, server: SMTP, usual: str) -> str:
        mood = self.moods[verb].popleft() if self.moods[verb] else usual
        if mood in (DROP, KEEP_AND_DROP):
            break_off(server)
        if mood == STALL:
            await asyncio.sleep(60)
        return mood


def break_off(connection: SMTP) -> None:
    if isinstance(connection.transport, asyncio.WriteTransport):
        connection.transport.abort()


@contextlib.asynccontextmanager
async def moody_server(
    *,
    tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    password: str | None = None,
    port: int = 0,
) -> AsyncIterator[MoodyServer]:
    """Run one on 127.0.0.1, encrypted from the start or on request, with a login if a password is given."""
    moody, loop = MoodyServer(), asyncio.get_running_loop()

    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and data.password == (password or "").encode()
        return AuthResult(success=right, handled=False)

    protocols: list[SMTP] = []

    def serve() -> SMTP:
        protocol = SMTP(
            moody,
            hostname="localhost",
            tls_context=starttls,
            require_starttls=starttls is not None,
            authenticator=check if password else None,
            auth_required=password is not None,
            loop=loop,
        )
        protocols.append(protocol)
        return protocol

    server = await loop.create_server(serve, "127.0.0.1", port, family=socket.AF_INET, ssl=tls)
    moody.port = server.sockets[0].getsockname()[1]
    yield moody
    server.close()
    for protocol in protocols:
        break_off(protocol)
    await server.wait_closed()


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that is bound and on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for the host `name` (a DNS name or an address), and the authority to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    authority = folder / "authority.pem"
    authority.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, authority

"""A mail server that takes everything and sends nothing: each mail becomes a file of a Maildir."""

import asyncio
import itertools
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, Envelope, Session

from embedded.processes import EmbeddedFailed, keep_port, told

HOST = "127.0.0.1"
LARGEST_MAIL = 50 * 1024 * 1024  # bytes


class Keeper:
    """What aiosmtpd calls for each mail: it is complete in `new/` before the sender hears 250."""

    def __init__(self, maildir: Path) -> None:
        self.maildir = maildir
        self.numbers = itertools.count()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep a mail as it came, byte for byte, below the envelope's addresses (RFC 5321 4.4, Return-Path)."""
        content = envelope.original_content or b""
        encoding = "utf-8" if envelope.smtp_utf8 else "ascii"
        trace = [f"Return-Path: <{envelope.mail_from or ''}>"]
        trace += [f"Delivered-To: {recipient}" for recipient in envelope.rcpt_tos]
        head = "".join(f"{line}\r\n" for line in trace).encode(encoding, errors="replace")
        try:
            keep(self.maildir, self.name(), head + content)
        except OSError:
            return "452 4.3.1 Requested action not taken: insufficient system storage"
        return "250 2.0.0 Kept"

    def name(self) -> str:
        """A unique name whose order is the order of arrival (maildir(5))."""
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        return f"{seconds}.M{nanoseconds // 1000:06}P{os.getpid()}Q{next(self.numbers):06}.localhost"


def make_maildir(maildir: Path) -> None:
    with told(f"use the folder {maildir}"):
        for name in ("cur", "new", "tmp"):
            (maildir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        maildir.chmod(0o700)


def keep(maildir: Path, name: str, content: bytes) -> None:
    """Write a mail in `tmp/` and rename it to `new/`."""
    aside = maildir / "tmp" / name
    try:
        with open(aside, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
        aside.rename(maildir / "new" / name)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class MailServer:
    """A running SMTP server on 127.0.0.1:`port`, without TLS or login; every mail is a file in `maildir`/new."""

    port: int
    maildir: Path
    server: asyncio.Server
    connections: WeakSet[SMTP]

    async def stop(self) -> None:
        """Take no more mail; what is under way is cut off, and its sender was not told 250."""
        self.server.close()
        for connection in list(self.connections):
            if isinstance(connection.transport, asyncio.WriteTransport):
                connection.transport.abort()
        await self.server.wait_closed()


async def start_mail_server(maildir: Path, *, port: int | None = None) -> MailServer:
    """Take mail in this event loop. The port is the given one, else the one used before, else a new one.

    Raises EmbeddedFailed if the port or the folder cannot be had.
    """
    make_maildir(maildir)
    chosen = await keep_port(maildir / "port", port, "mail")
    keeper, loop = Keeper(maildir), asyncio.get_running_loop()
    connections: WeakSet[SMTP] = WeakSet()

    def serve() -> SMTP:
        connection = SMTP(keeper, data_size_limit=LARGEST_MAIL, enable_SMTPUTF8=True, hostname="localhost",
                          ident="ESMTP", loop=loop)  # fmt: skip
        connections.add(connection)
        return connection

    try:
        server = await loop.create_server(serve, HOST, chosen, family=socket.AF_INET)
    except OSError as error:
        raise EmbeddedFailed(f"The port {chosen} for mail cannot be had: {error.strerror}.") from error
    return MailServer(chosen, maildir, server, connections)

"""Mails on their way from the outbox to people's calendars, without a mail server between them."""

import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from bridge import letters, mail
from bridge.letters import Outdated
from supervision import notifications
from supervision.config import Config
from supervision.db import Database
from supervision.models import Channel
from tests.interop.calendars import Message, Program, SecondReader, Shown, expand, read


def configure(*, answers: bool = True) -> Config:
    return Config.model_validate(
        {
            "secret": "a secret of the tests, and of them alone",
            "database": {"url": "postgresql://unused/unused"},
            "matrix": {"homeserver": "http://127.0.0.1:8008", "bot": "@visavis:example.org", "as_token": "unused"},
            "mail": {"sender": "visavis@clinic.example.org"},
            "web": {"base_url": "https://visavis.example.org"},
        }
        | ({"inbound": {"domain": "mail.example.org", "authserv_id": "example.org"}} if answers else {})
    )


def calendar_of(content: bytes) -> bytes | None:
    """The invitation that a mail brings along; the file beside it has to be the same."""
    message = message_from_bytes(content, EmailMessage, policy=SMTP)
    parts = [part for part in message.walk() if part.get_content_type() in ("text/calendar", "application/ics")]
    if not parts:
        return None
    invitation, attached = [bytes(part.get_payload(decode=True)) for part in parts]
    assert invitation == attached
    assert parts[0]["Content-Type"].params["method"] == read(invitation).method
    return invitation


@dataclass
class Mailbox:
    """One person's mails in the order of their arrival, and the calendar programs that read them."""

    came: list[bytes] = field(default_factory=list)
    programs: tuple[Program, Program] = field(default_factory=lambda: (Program(True), Program(False)))

    def take(self, written: bytes) -> None:
        self.came.append(written)
        for program in self.programs:
            program.take(written)

    def shown(self, reader: SecondReader) -> list[Shown]:
        """What each program shows, as each reader understands it."""
        return [
            show(written)
            for program in self.programs
            for written in [program.written()]
            for show in (expand, reader.expand)
        ]


@dataclass
class Post:
    """Takes what is due out of the outbox, as the bridge does, and files it."""

    database: Database
    config: Config
    mailboxes: dict[uuid.UUID, Mailbox] = field(default_factory=lambda: defaultdict(Mailbox))
    look: Callable[[bytes], Message] = read

    async def deliver(self, now: datetime, *, backwards: bool = False) -> None:
        """`backwards` files all that was due in the reversed order: mails may overtake one another on their way."""
        sent = await self._send(now)
        for person_id, written in reversed(sent) if backwards else sent:
            self.look(written)
            self.mailboxes[person_id].take(written)

    async def _send(self, now: datetime) -> list[tuple[uuid.UUID, bytes]]:
        sent: list[tuple[uuid.UUID, bytes]] = []
        while True:
            async with self.database.transaction() as tx:
                claimed = await notifications.claim(tx, Channel.MAIL, now=now, most=100)
                if not claimed:
                    return sent
                for one in claimed:
                    try:
                        letter = await letters.load(tx, one)
                    except Outdated:
                        await notifications.settle_superseded(tx, one.id, now=now)
                        continue
                    written = calendar_of(mail.write(letter, self.config, now=now).content)
                    if written is not None:
                        sent.append((one.person_id, written))
                    await notifications.settle_sent(tx, one.id, now=now)

"""A notification as a mail: its words and times for one person, its calendar entry, and its headers.

Templates are the folders of `mails/`: `subject.txt`, `body.txt` and `body.html` for each kind, their words in the
catalogue `mail.po`.
"""

import functools
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import css_inline
import jinja2

from bridge.smtp import Envelope, domain, to_ascii
from supervision import appointments, calendars, pairs, people, sign_ins
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.calendars import GONE, Answer, Organizer
from supervision.config import Config
from supervision.db import Transaction
from supervision.errors import Permanent
from supervision.models import Status
from supervision.notifications import Notification
from supervision.people import Person
from supervision.texts import Moment, Reader

MAILS = Path(__file__).with_name("mails")
KINDS = (
    "appointment.requested",
    "appointment.confirmed",
    "appointment.declined",
    "appointment.cancelled",
    "appointment.rescheduled",
    "appointment.reminder",
    "identity.changed",
    "identity.confirmed",
    "room.stranger",
    "sign_in",
)


@dataclass(frozen=True)
class Booking:
    """What a mail tells of: an appointment, and the other of its pair."""

    appointment: Appointment
    other: Person


@dataclass(frozen=True)
class Letter:
    """A notification and all that its mail needs from the database."""

    notification: Notification
    recipient: Person
    booking: Booking | None = None


class Outdated(Exception):
    """The appointment has moved on since the notification was written; a later one tells it."""


async def load(tx: Transaction, notification: Notification) -> Letter:
    """Read what the mail needs. Raises Outdated, NotFound, NotAllowed."""
    if notification.appointment_id is None or notification.pair_id is None:
        return Letter(notification, await people.get(tx, notification.person_id))
    reader = Actor(notification.person_id, "system")
    appointment = await appointments.get(tx, reader, notification.appointment_id)
    if notification.revision is not None and appointment.revision != notification.revision:
        raise Outdated
    pair = await pairs.get(tx, notification.pair_id)
    recipient = pair.member(notification.person_id)
    return Letter(notification, recipient, Booking(appointment, pair.other(recipient.id)))


def compose(letter: Letter, config: Config, *, now: datetime) -> EmailMessage:
    """The mail, complete with its headers; takes some milliseconds of CPU.

    Its Message-ID is the notification's, so that a mail sent twice is known as one. Raises Permanent with the code
    `header_unsafe` where a name or an address could end a header line.
    """
    notification, recipient = letter.notification, letter.recipient
    content = _content(letter, config)
    subject = _render(f"{notification.kind}/subject.txt", content).strip()
    message = EmailMessage(policy=SMTP)
    message["From"] = _mailbox(config.mail.sender_name, config.mail.sender)
    message["To"] = _mailbox(recipient.name, recipient.email)
    message["Subject"] = _safe(subject)
    message["Date"] = now.astimezone(UTC)
    message["Message-ID"] = f"<{notification.id}@{domain(config.mail.sender)}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5
    message.set_content(_render(f"{notification.kind}/body.txt", content), cte="quoted-printable")
    html = _render(f"{notification.kind}/body.html", content)
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    if letter.booking is not None:
        _attach_calendar(message, letter, letter.booking, config)
    return message


def write(letter: Letter, config: Config, *, now: datetime) -> Envelope:
    """`compose`, as the bytes to send. Raises Permanent, too, if its headers do not read back as they were set."""
    message = compose(letter, config, now=now)
    content = message.as_bytes()
    if BytesHeaderParser(policy=SMTP).parsebytes(content).keys() != message.keys():
        raise Permanent("header_unsafe")
    return Envelope(to_ascii(config.mail.sender), to_ascii(letter.recipient.email), content)


def _attach_calendar(message: EmailMessage, letter: Letter, booking: Booking, config: Config) -> None:
    """The entry twice: for programs that read invitations, and as a file for all others (RFC 6047, 2.4)."""
    appointment = booking.appointment
    entry = calendars.write(
        appointment,
        replace(letter.recipient, email=to_ascii(letter.recipient.email)),
        booking.other,
        _organizer(letter, booking, config),
        stamp=letter.notification.created_at,
        answer=_answer(letter, appointment),
    )
    method = calendars.method(appointment).value
    message.add_alternative(
        entry.decode(), subtype="calendar", charset="utf-8", cte="base64", params={"method": method}
    )
    message.add_attachment(entry, maintype="application", subtype="ics", filename="visavis.ics")


def _answer(letter: Letter, appointment: Appointment) -> Answer:
    """Who asked for this time or agreed to it has accepted; whoever it was put to has not answered."""
    if appointment.status is Status.CONFIRMED and letter.notification.kind != "appointment.rescheduled":
        return Answer.ACCEPTED
    return Answer.ACCEPTED if _by(letter) == "you" else Answer.OPEN


def _content(letter: Letter, config: Config) -> dict[str, Any]:
    """What the templates can say."""
    reader = Reader(letter.recipient.language, letter.recipient.time_zone)
    content: dict[str, Any] = {
        "say": reader.say,
        "language": letter.recipient.language,
        "host": urlsplit(config.web.base_url).netloc,
        "by": _by(letter),
    }
    if letter.booking is not None:
        return content | _booking(letter, letter.booking, reader, config)
    if letter.notification.kind == "sign_in":
        return content | _sign_in(letter.notification.details, config)
    return content | {"url": config.web.base_url, "pair": letter.notification.details.get("pair", "")}


def _sign_in(details: dict[str, Any], config: Config) -> dict[str, str]:
    secret, sign_in_id = config.secret.get_secret_value(), uuid.UUID(details["sign_in_id"])
    code = sign_ins.code(secret, sign_in_id)
    half = len(code) // 2
    return {
        "url": f"{config.web.base_url}/sign-in/{sign_ins.link_token(secret, sign_in_id)}",
        "code": f"{code[:half]} {code[half:]}",
    }


def _booking(letter: Letter, booking: Booking, reader: Reader, config: Config) -> dict[str, Any]:
    appointment, other = booking.appointment, booking.other
    details = letter.notification.details
    organizer = _organizer(letter, booking, config)
    clocks = Reader(letter.recipient.language, other.time_zone)
    was = datetime.fromisoformat(details["was"]) if "was" in details else None
    place = "" if appointment.status in GONE else calendars.place(appointment, reader)
    return {
        "other": other.name,
        "role": "supervisor" if letter.recipient.id == appointment.supervisor_id else "supervisee",
        "status": "requested" if appointment.status is Status.REQUESTED else "confirmed",
        "how": _how(letter, appointment),
        "lapsed": bool(details.get("lapsed")),
        "when": f"{reader.day(appointment.starts_at)}, {reader.clock(appointment.starts_at)}",
        "day": reader.long_day(appointment.starts_at),
        "clocks": _clocks(reader, appointment),
        "city": reader.city(),
        "theirs": _theirs(reader, clocks, appointment),
        "was": None if was is None else reader.show(Moment(was)),
        "place": place,
        "place_url": place if place.startswith("https://") and not any(map(str.isspace, place)) else None,
        "url": organizer.url,
        "links": calendars.calendar_links(appointment, letter.recipient, other, organizer),
    }


def _how(letter: Letter, appointment: Appointment) -> str:
    """What a move is: the supervisor's word `confirmed`, hers on an open request `moved`, or `requested` of her."""
    if appointment.status is not Status.REQUESTED:
        return "confirmed"
    return "moved" if letter.notification.details.get("by") == str(appointment.supervisor_id) else "requested"


def _clocks(reader: Reader, appointment: Appointment) -> str:
    return f"{reader.clock(appointment.starts_at)}–{reader.clock(appointment.ends_at)}"


def _theirs(own: Reader, other: Reader, appointment: Appointment) -> str | None:
    """The other's local time where their clock or date differs."""
    starts_at = appointment.starts_at
    same_day = own.day(starts_at) == other.day(starts_at)
    if same_day and own.clock(starts_at) == other.clock(starts_at):
        return None
    clocks = _clocks(other, appointment) if same_day else f"{other.day(starts_at)}, {_clocks(other, appointment)}"
    return f"{clocks} {own.say('time.in_city', city=other.city())}"


def _by(letter: Letter) -> str:
    """Who did it, as the reader sees it: `you`, `other`, or `system` where nobody did."""
    by = letter.notification.details.get("by")
    if by is None:
        return "system"
    return "you" if by == str(letter.recipient.id) else "other"


def _organizer(letter: Letter, booking: Booking, config: Config) -> Organizer:
    supervises = letter.recipient.id == booking.appointment.supervisor_id
    page = "supervisor" if supervises else "appointments"
    return Organizer(config.mail.sender_name, to_ascii(config.mail.sender), f"{config.web.base_url}/{page}")


def _mailbox(name: str, address: str) -> Address:
    try:
        return Address(display_name=_safe(name), addr_spec=to_ascii(_safe(address)))
    except (ValueError, IndexError, MessageError):
        raise Permanent("address_unusable") from None


def _safe(value: str) -> str:
    """A header value that Python cannot be made to write as two lines.

    An encoded word inside a value that needs encoding itself is decoded first, and its newline written as it is.
    """
    unsafe = any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)
    if unsafe or "=?" in value:
        raise Permanent("header_unsafe")
    return value


def _render(name: str, content: dict[str, Any]) -> str:
    return _templates().get_template(name).render(content)


class InlinedLoader(jinja2.FileSystemLoader):
    """Puts the rules of `style.css` into the `style` attributes of HTML templates as they are read.

    Many mail programs drop style sheets. What depends on the screen stays in the layout's own `<style>`.
    """

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, path, is_current = super().get_source(environment, template)
        if template == "layout.html":
            source = _inliner().inline(source)
        elif template.endswith(".html"):
            source = _inliner().inline_fragment(source, (MAILS / "style.css").read_text(encoding="utf-8"))
        return source, path, is_current


def _inliner() -> css_inline.CSSInliner:
    rules = (MAILS / "style.css").read_text(encoding="utf-8")
    return css_inline.CSSInliner(extra_css=rules, keep_style_tags=True, load_remote_stylesheets=False)


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=InlinedLoader(MAILS),
        autoescape=jinja2.select_autoescape(["html"], default=False, default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )

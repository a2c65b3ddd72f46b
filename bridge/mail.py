"""A notification as a mail: its words and times for one person, its calendar entry, and its headers.

Templates are the folders of `mails/`: `subject.txt`, `body.txt` and `body.html` for each kind, their words in the
catalogue `mail.po`.
"""

import functools
import unicodedata
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
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

from bridge.letters import Booking, Group, Letter, Offering, Writing, read_range
from bridge.smtp import Envelope, domain, to_ascii
from supervision import calendars, repetitions, seals, sign_ins
from supervision.appointments import Appointment, Proposal
from supervision.calendars import GONE, Answer, Method, Organizer
from supervision.config import Config
from supervision.errors import Permanent
from supervision.models import Status
from supervision.people import Person
from supervision.series import Series
from supervision.texts import Moment, Moments, Reader, Span
from supervision.waits import Offer

MAILS = Path(__file__).with_name("mails")
ALARMS = (1440, 60, 15)  # minutes before the start: when reminders come
MOST_TIMES = 12  # of a series, told one by one; its calendar entry has them all
MERE_PROPOSALS = ("series.proposed", "series.refused", "series.withdrawn", "series.lapsed")
KINDS = (
    "appointment.requested",
    "appointment.booked",
    "appointment.confirmed",
    "appointment.declined",
    "appointment.cancelled",
    "appointment.rescheduled",
    "appointment.reminder",
    "move.proposed",
    "move.refused",
    "move.withdrawn",
    "move.lapsed",
    "wait.offered",
    "series.requested",
    "series.booked",
    "series.confirmed",
    "series.declined",
    "series.cancelled",
    "series.proposed",
    "series.refused",
    "series.withdrawn",
    "series.lapsed",
    "series.rescheduled",
    "identity.changed",
    "identity.confirmed",
    "room.stranger",
    "room.unread",
    "sign_in",
)


def compose(letter: Letter, config: Config, *, now: datetime) -> EmailMessage:
    """The mail, complete with its headers; takes some milliseconds of CPU.

    Its Message-ID is the notification's, so that a mail sent twice is known as one. Raises Permanent with the code
    `header_unsafe` where a name or an address could end a header line.
    """
    notification, recipient = letter.notification, letter.recipient
    content = _content(letter, config, now)
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
    _attach_calendar(message, letter, config)
    return message


def write(letter: Letter, config: Config, *, now: datetime) -> Envelope:
    """`compose`, as the bytes to send. Raises Permanent, too, if its headers do not read back as they were set."""
    message = compose(letter, config, now=now)
    content = message.as_bytes()
    if BytesHeaderParser(policy=SMTP).parsebytes(content).keys() != message.keys():
        raise Permanent("header_unsafe")
    return Envelope(to_ascii(config.mail.sender), to_ascii(letter.recipient.email), content)


def _attach_calendar(message: EmailMessage, letter: Letter, config: Config) -> None:
    """The entry twice: for programs that read invitations, and as a file for all others (RFC 6047, 2.4).

    A proposal, an offer and what became of them change no calendar.
    """
    if letter.notification.kind.startswith("move.") or letter.notification.kind in MERE_PROPOSALS:
        return
    match letter.subject:
        case Booking():
            method, entry = _entry(letter, letter.subject, config)
        case Group():
            method, entry = _series_entry(letter, letter.subject, config)
        case _:
            return
    message.add_alternative(
        entry.decode(), subtype="calendar", charset="utf-8", cte="base64", params={"method": method.value}
    )
    message.add_attachment(entry, maintype="application", subtype="ics", filename="visavis.ics")


def _entry(letter: Letter, booking: Booking, config: Config) -> tuple[Method, bytes]:
    appointment = booking.appointment
    return calendars.method(appointment), calendars.write(
        appointment,
        replace(letter.recipient, email=to_ascii(letter.recipient.email)),
        booking.other,
        _organizer(letter, config, supervises=_supervises(letter, appointment)),
        stamp=letter.notification.created_at,
        answer=_answer(letter, appointment),
        series=booking.series,
        alarms=ALARMS,
    )


def _series_entry(letter: Letter, group: Group, config: Config) -> tuple[Method, bytes]:
    recipient = replace(letter.recipient, email=to_ascii(letter.recipient.email))
    organizer = _organizer(letter, config, supervises=_supervises(letter, group.told[0]))
    stamp = letter.notification.created_at
    if group.told[0].status in GONE:
        return Method.CANCEL, calendars.write_gone(
            group.series, group.occurrences, group.told, recipient, group.other, organizer, stamp=stamp
        )
    return Method.REQUEST, calendars.write_series(
        group.series,
        group.occurrences,
        recipient,
        group.other,
        organizer,
        stamp=stamp,
        answer=functools.partial(_answer, letter),
        alarms=ALARMS,
    )


def _answer(letter: Letter, appointment: Appointment) -> Answer:
    """Who asked for this time or agreed to it has accepted; whoever it was put to has not answered."""
    if appointment.status is Status.REQUESTED:
        return Answer.OPEN if _supervises(letter, appointment) else Answer.ACCEPTED
    if appointment.status in GONE or letter.notification.kind in ("appointment.booked", "series.booked"):
        return Answer.ACCEPTED if _by(letter) == "you" else Answer.OPEN
    return Answer.ACCEPTED


def _content(letter: Letter, config: Config, now: datetime) -> dict[str, Any]:
    """What the templates can say."""
    reader = Reader(letter.recipient.language, letter.recipient.time_zone).as_of(now)
    content: dict[str, Any] = {
        "say": reader.say,
        "language": letter.recipient.language,
        "host": urlsplit(config.web.base_url).netloc,
        "by": _by(letter),
    }
    match letter.subject:
        case Booking():
            return content | _booking(letter, letter.subject, reader, config)
        case Group():
            return content | _group(letter, letter.subject, reader, config)
        case Offering():
            return content | _offering(letter, letter.subject, reader, config)
        case Writing(other):
            return content | {"url": config.web.base_url, "other": other.name}
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
    appointment, other, kind = booking.appointment, booking.other, letter.notification.kind
    organizer = _organizer(letter, config, supervises=_supervises(letter, appointment))
    proposal = appointment.proposal if kind == "move.proposed" else None
    starts_at, ends_at = _times(proposal or appointment)
    gone = kind.startswith("move.") and kind != "move.proposed"
    named = read_range(letter.notification.details["proposed"])[0] if gone else starts_at
    return {
        **_who(letter, appointment, other),
        **_when(reader, other, starts_at, ends_at),
        "when": f"{reader.day(named)}, {reader.clock(named)}",
        "rows": _rows(letter, appointment, reader),
        **_where(appointment, reader),
        "url": organizer.url,
        "links": ()
        if kind.startswith("move.")
        else calendars.calendar_links(appointment, letter.recipient, other, organizer),
    }


def _offering(letter: Letter, offering: Offering, reader: Reader, config: Config) -> dict[str, Any]:
    starts_at, ends_at = _times(offering.offer)
    return {
        "other": offering.other.name,
        **_when(reader, offering.other, starts_at, ends_at),
        "when": f"{reader.day(starts_at)}, {reader.clock(starts_at)}",
        "rows": [(reader.say("mail.kept_until"), reader.show(Moment(offering.offer.until)))],
        "place": "",
        "url": _organizer(letter, config, supervises=False).url,
        "links": (),
    }


def _group(letter: Letter, group: Group, reader: Reader, config: Config) -> dict[str, Any]:
    one = group.told[0]
    details = letter.notification.details
    starts, lines = _lines(letter, group, reader)
    first = min(starts)
    late = sum(str(told.id) in details.get("late", ()) for told in group.told)
    return {
        **_who(letter, one, group.other),
        **_where(one, reader),
        "when": reader.say_count("mail.series.from", len(starts), when=f"{reader.day(first)}, {reader.clock(first)}"),
        "repeats": _repeats(group.series, reader),
        "lines": lines[:MOST_TIMES],
        "more": reader.say_count("mail.series.more", len(lines) - MOST_TIMES) if len(lines) > MOST_TIMES else None,
        "city": reader.city(),
        "by_when": _by_when(letter, group, reader),
        "late": reader.say_count("mail.series.late", late) if late else None,
        "skipped": _skipped(details.get("skipped", ()), reader),
        "url": _organizer(letter, config, supervises=_supervises(letter, one)).url,
    }


def _lines(letter: Letter, group: Group, reader: Reader) -> tuple[list[datetime], list[tuple[str, str]]]:
    """What the mail is about, in order: each start, and what tells it: its time, and what is to be said beside it."""
    details, kind = letter.notification.details, letter.notification.kind
    before: dict[tuple[datetime, datetime], tuple[datetime, datetime]] = {}
    if "proposed" in details:
        spans = [read_range(one) for one in details["proposed"]]
    elif kind == "series.proposed":
        before = {_times(one.proposal): _times(one) for one in group.told if one.proposal}
        spans = list(before)
    else:
        spans = [_times(one) for one in group.told]
    if kind == "series.rescheduled":
        was = dict(zip(details["appointments"], map(datetime.fromisoformat, details["was"]), strict=True))
        starts = [was[str(one.id)] for one in group.told]
        before = {span: (at, at + (span[1] - span[0])) for span, at in zip(spans, starts, strict=True)}
    lines = [_line(span, before.get(span), reader, group.other) for span in sorted(spans)]
    return [starts_at for starts_at, _ in spans], lines


def _line(
    span: tuple[datetime, datetime], before: tuple[datetime, datetime] | None, reader: Reader, other: Person
) -> tuple[str, str]:
    instead = reader.say("mail.series.instead", was=Span(*before, brief=True)) if before else None
    theirs = _theirs(reader, Reader(reader.language, other.time_zone).as_of(reader.now), *span)
    return reader.show(Span(*span, brief=True)), "; ".join(filter(None, (theirs, instead)))


def _repeats(found: Series, reader: Reader) -> str:
    rule = repetitions.read_rule(found.rule)
    return reader.say_count("mail.series.monthly" if rule.monthly else "mail.series.weekly", rule.interval)


def _by_when(letter: Letter, group: Group, reader: Reader) -> str | None:
    """Until when the first of what is asked can be answered."""
    if letter.notification.kind == "series.proposed":
        ends = [one.proposal.answer_by for one in group.told if one.proposal]
    else:
        ends = [one.answer_by for one in group.told if one.status is Status.REQUESTED and one.answer_by]
    return reader.show(Moment(min(ends))) if ends else None


def _skipped(starts: Sequence[str], reader: Reader) -> str | None:
    if not starts:
        return None
    shown = reader.show(Moments(tuple(map(datetime.fromisoformat, starts[:MOST_TIMES]))))
    more = len(starts) - MOST_TIMES
    return shown if more <= 0 else f"{shown}; {reader.say_count('mail.series.more', more)}"


def _who(letter: Letter, appointment: Appointment, other: Person) -> dict[str, Any]:
    """`role` is the reader's, `actor` the role of whoever did it, or empty."""
    by, details = _by(letter), letter.notification.details
    role, others = ("supervisor", "supervisee") if _supervises(letter, appointment) else ("supervisee", "supervisor")
    return {
        "other": other.name,
        "role": role,
        "actor": {"you": role, "other": others}.get(by, ""),
        "status": "requested" if appointment.status is Status.REQUESTED else "confirmed",
        "lapsed": bool(details.get("lapsed")),
        "late": bool(details.get("late")),
        "automatic": bool(details.get("automatic")),
    }


def _when(reader: Reader, other: Person, starts_at: datetime, ends_at: datetime) -> dict[str, Any]:
    return {
        "day": reader.long_day(starts_at),
        "clocks": _clocks(reader, starts_at, ends_at),
        "city": reader.city(),
        "theirs": _theirs(reader, Reader(reader.language, other.time_zone).as_of(reader.now), starts_at, ends_at),
    }


def _where(appointment: Appointment, reader: Reader) -> dict[str, Any]:
    """A place is told only of what takes place."""
    place = "" if appointment.status in GONE else calendars.place(appointment, reader)
    is_link = place.startswith("https://") and not any(map(str.isspace, place))
    return {"place": place, "place_url": place if is_link else None}


def _rows(letter: Letter, appointment: Appointment, reader: Reader) -> list[tuple[str, str]]:
    """What else the box tells of time: a label and a value each."""
    details, kind = letter.notification.details, letter.notification.kind
    rows: list[tuple[str, str]] = []
    if kind == "appointment.rescheduled":
        rows.append(("mail.was", reader.show(Moment(datetime.fromisoformat(details["was"])))))
    if kind == "move.proposed" and appointment.proposal is not None:
        rows.append(("mail.now", reader.show(Span(appointment.starts_at, appointment.ends_at))))
        rows.append(("mail.by", reader.show(Moment(appointment.proposal.answer_by))))
    elif kind.startswith("move."):
        rows.append(("mail.proposed", reader.show(Span(*read_range(details["proposed"])))))
    elif appointment.status is Status.REQUESTED and appointment.answer_by is not None:
        rows.append(("mail.by", reader.show(Moment(appointment.answer_by))))
    return [(reader.say(key), value) for key, value in rows]


def _times(of: Appointment | Proposal | Offer) -> tuple[datetime, datetime]:
    return of.starts_at, of.ends_at


def _clocks(reader: Reader, starts_at: datetime, ends_at: datetime) -> str:
    return f"{reader.clock(starts_at)}–{reader.clock(ends_at)}"


def _theirs(own: Reader, other: Reader, starts_at: datetime, ends_at: datetime) -> str | None:
    """The other's local time where their clock or date differs."""
    same_day = own.day(starts_at) == other.day(starts_at)
    if same_day and own.clock(starts_at) == other.clock(starts_at):
        return None
    clocks = _clocks(other, starts_at, ends_at)
    told = clocks if same_day else f"{other.day(starts_at)}, {clocks}"
    return f"{told} {own.say('time.in_city', city=other.city())}"


def _supervises(letter: Letter, appointment: Appointment) -> bool:
    return letter.recipient.id == appointment.supervisor_id


def _by(letter: Letter) -> str:
    """Who did it, as the reader sees it: `you`, `other`, or `system` where nobody did."""
    by = letter.notification.details.get("by")
    if by is None:
        return "system"
    return "you" if by == str(letter.recipient.id) else "other"


def _organizer(letter: Letter, config: Config, *, supervises: bool) -> Organizer:
    """Ourselves, at the recipient's own address where answers are read, else at the one that we send from."""
    page, sender = "supervisor" if supervises else "appointments", to_ascii(config.mail.sender)
    email = sender
    if config.inbound is not None:
        email = seals.reply_address(config.secret.get_secret_value(), letter.recipient.id, config.inbound.domain)
    return Organizer(
        config.mail.sender_name,
        email,
        f"{config.web.base_url}/{page}",
        domain(sender),
        answers=config.inbound is not None,
    )


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

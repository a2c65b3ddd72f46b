"""What the templates of mails can say: words and times for one person."""

import uuid
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any
from urllib.parse import urlsplit

from bridge import entries
from bridge.entries import by, supervises
from bridge.letters import Booking, Group, Letter, Mailbox, Offering, Room, Writing, read_range
from supervision import calendars, exports, invitations, preferences, repetitions, seals, sign_ins, texts
from supervision.appointments import Appointment, Proposal
from supervision.calendars import GONE
from supervision.config import Config
from supervision.models import Status, Topic
from supervision.people import Person
from supervision.series import Series
from supervision.texts import Minutes, Moment, Moments, Reader, Span
from supervision.waits import Offer

MOST_TIMES = 12  # of a series, told one by one; its calendar entry has them all
NEAR = 720  # minutes: a reminder not longer before the start than this says how long, any other on which day
ON_TIME = 5  # minutes that a reminder may be late and still be right
ACCOUNT = ("welcome", "address.check", "address.changed", "account.password_changed", "account.signed_out")
EXPORT = ("export.asked", "export.ready", "export.failed")
MUTABLE = (Topic.REMINDERS, Topic.WAITS, Topic.UNREAD)


def content(letter: Letter, config: Config, *, now: datetime) -> dict[str, Any]:
    """All that the templates of the letter's kind use."""
    recipient, kind = letter.recipient, letter.notification.kind
    reader = texts.reader(recipient.language, recipient.time_zone).as_of(now)
    unwanted = unsubscribe_url(letter, config)
    common: dict[str, Any] = {
        "say": reader.say,
        "language": recipient.language,
        "host": urlsplit(config.web.base_url).netloc,
        "by": by(letter),
        "preferences_url": f"{config.web.base_url}/preferences",
        "unsubscribe_url": unwanted,
        "topic": preferences.topic_of(kind) if unwanted else None,
    }
    match letter.subject:
        case Booking():
            return common | _booking(letter, letter.subject, reader, config, now)
        case Group():
            return common | _group(letter, letter.subject, reader, config)
        case Offering():
            return common | _offering(letter, letter.subject, reader, config)
        case Mailbox():
            return common | _mailbox(letter, letter.subject, reader, config)
        case Room(names, left):
            fault = letter.notification.details.get("fault", "")
            return common | {"url": config.web.base_url, "pair": " – ".join(names), "fault": fault, "left": left}
        case Writing(other) if kind in EXPORT:
            return common | _export(letter, reader, config) | {"other": other.name}
        case Writing(other):
            return common | {"url": config.web.base_url, "other": other.name, **_last_day(letter, reader)}
    if kind == "sign_in":
        return common | _sign_in(letter.notification.details, config)
    if kind in ACCOUNT:
        return common | _account(letter, reader, config)
    return common | {"url": config.web.base_url}


def _export(letter: Letter, reader: Reader, config: Config) -> dict[str, Any]:
    """`until` is when the question lapses, or the file goes."""
    row = letter.notification
    until = row.created_at + (exports.ANSWER_TIME if row.kind == "export.asked" else exports.KEPT)
    return {"url": f"{config.web.base_url}/rooms/{row.pair_id}/export", "until": reader.show(Moment(until))}


def unsubscribe_url(letter: Letter, config: Config) -> str | None:
    """The page that ends mails about this topic at once; None for what is told of appointments, and of security."""
    topic = preferences.topic_of(letter.notification.kind)
    if topic not in MUTABLE:
        return None
    token = seals.unsubscribe_token(config.secret.get_secret_value(), letter.recipient.id, topic)
    return f"{config.web.base_url}/unsubscribe/{token}"


def _mailbox(letter: Letter, mailbox: Mailbox, reader: Reader, config: Config) -> dict[str, Any]:
    return {
        "whose": mailbox.whose.name,
        "since": reader.show(Moment(letter.notification.created_at)),
        "code": letter.notification.details["code"],
        "url": f"{config.web.base_url}/admin",
    }


def _last_day(letter: Letter, reader: Reader) -> dict[str, Any]:
    """Of a pair that ends with it, in the supervisor's calendar."""
    last = letter.notification.details.get("last")
    if last is None:
        return {}
    return {"day": reader.day_of_year(datetime.combine(date.fromisoformat(last), time(12), reader.zone))}


def _until(letter: Letter, starts_at: datetime, reader: Reader, now: datetime) -> str:
    """How long it is until then: as planned, if this is sent when it was planned; else which day it is."""
    minutes: int = letter.notification.details.get("minutes", 1440)
    left = (starts_at - now).total_seconds() / 60
    if minutes <= NEAR and minutes - ON_TIME <= left:
        return reader.say("mail.until.in", length=Minutes(minutes))
    days = (starts_at.astimezone(reader.zone).date() - now.astimezone(reader.zone).date()).days
    if days > 1:
        return reader.say("mail.until.in", length=Minutes(days * 1440))
    return reader.say("mail.until.tomorrow" if days == 1 else "mail.until.today")


def _sign_in(details: dict[str, Any], config: Config) -> dict[str, str]:
    secret, sign_in_id = config.secret.get_secret_value(), uuid.UUID(details["sign_in_id"])
    code = sign_ins.code(secret, sign_in_id)
    half = len(code) // 2
    return {
        "url": f"{config.web.base_url}/sign-in/{sign_ins.link_token(secret, sign_in_id)}",
        "code": f"{code[:half]} {code[half:]}",
    }


def _account(letter: Letter, reader: Reader, config: Config) -> dict[str, Any]:
    """What a person is told of how they come in, and of their address and chat account."""
    details, person_id = letter.notification.details, letter.recipient.id
    secret, base = config.secret.get_secret_value(), config.web.base_url
    if letter.notification.kind == invitations.KIND:
        token = seals.welcome_token(secret, person_id, uuid.UUID(details["nonce"]))
        until = letter.notification.created_at + invitations.LIFETIME
        return {"url": f"{base}/welcome/{token}", "until": reader.show(Moment(until))}
    if letter.notification.kind == "address.check":
        code = seals.address_code(secret, person_id, uuid.UUID(details["nonce"]))
        return {"url": f"{base}/account#address", "code": f"{code[:4]} {code[4:]}"}
    return {"url": f"{base}/account", "signed_out": bool(details.get("signed_out"))}


def _booking(letter: Letter, booking: Booking, reader: Reader, config: Config, now: datetime) -> dict[str, Any]:
    appointment, other, kind = booking.appointment, booking.other, letter.notification.kind
    organizer = entries.organizer(letter, config, appointment)
    proposal = appointment.proposal if kind == "move.proposed" else None
    starts_at, ends_at = _times(proposal or appointment)
    gone = kind.startswith("move.") and kind != "move.proposed"
    named = read_range(letter.notification.details["proposed"])[0] if gone else starts_at
    brings = entries.changes_calendar(kind)
    return {
        **_who(letter, appointment, other),
        **_when(reader, other, starts_at, ends_at),
        "when": f"{reader.day(named)}, {reader.clock(named)}",
        "start": reader.clock(starts_at),
        "until": _until(letter, starts_at, reader, now) if kind == "appointment.reminder" else None,
        "rows": _rows(letter, appointment, reader),
        **_where(appointment, reader),
        "url": organizer.url,
        "links": calendars.calendar_links(appointment, letter.recipient, other, organizer) if brings else (),
    }


def _offering(letter: Letter, offering: Offering, reader: Reader, config: Config) -> dict[str, Any]:
    starts_at, ends_at = _times(offering.offer)
    return {
        "other": offering.other.name,
        **_when(reader, offering.other, starts_at, ends_at),
        "when": f"{reader.day(starts_at)}, {reader.clock(starts_at)}",
        "rows": [(reader.say("mail.kept_until"), reader.show(Moment(offering.offer.until)))],
        "place": "",
        "url": entries.page(letter, config, None),
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
        "url": _page_of_group(letter, one, config),
    }


def _page_of_group(letter: Letter, one: Appointment, config: Config) -> str:
    """Where all of them are answered at once, if they are put to the reader; else the list."""
    asked = one.status is Status.REQUESTED and supervises(letter, one)
    if asked or letter.notification.kind == "series.proposed":
        return f"{entries.page(letter, config, one)}?scope=all"
    return entries.page(letter, config, None)


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
    theirs = _theirs(reader, texts.reader(reader.language, other.time_zone).as_of(reader.now), *span)
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
    did, details = by(letter), letter.notification.details
    role, others = ("supervisor", "supervisee") if supervises(letter, appointment) else ("supervisee", "supervisor")
    return {
        "other": other.name,
        "role": role,
        "actor": {"you": role, "other": others}.get(did, ""),
        "status": "requested" if appointment.status is Status.REQUESTED else "confirmed",
        "lapsed": bool(details.get("lapsed")),
        "late": bool(details.get("late")),
        "automatic": bool(details.get("automatic")),
        "archived": bool(details.get("archived")),
    }


def _when(reader: Reader, other: Person, starts_at: datetime, ends_at: datetime) -> dict[str, Any]:
    return {
        "day": reader.long_day(starts_at),
        "clocks": _clocks(reader, starts_at, ends_at),
        "city": reader.city(),
        "theirs": _theirs(reader, texts.reader(reader.language, other.time_zone).as_of(reader.now), starts_at, ends_at),
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

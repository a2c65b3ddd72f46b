"""Appointments as calendar entries: iCalendar (RFC 5545), its scheduling methods (RFC 5546), and links that add one.

Pure: everything is in the arguments. An entry has one UID for life, its SEQUENCE is the appointment's revision, and
it is called off with `METHOD:CANCEL`. Its times are UTC: an appointment is an instant for two people in two zones,
every calendar shows it in its owner's zone, and no copy of a zone's rules can be out of date in a mail.

A series is one entry for all its occurrences, repeated by the clock of the supervisor's zone, which it therefore
brings along. An occurrence alone is told from the others by its RECURRENCE-ID, the start that the series gave it.
"""

import functools
import uuid
import zoneinfo
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from urllib.parse import quote, urlencode

from icalendar import (
    Alarm,
    Calendar,
    Event,
    Timezone,
    TimezoneDaylight,
    TimezoneStandard,
    vCalAddress,
    vDuration,
    vRecur,
)

from supervision.appointments import Appointment
from supervision.models import Mode, Status
from supervision.people import Person
from supervision.repetitions import DAYS, expand, wall_clock
from supervision.series import Series
from supervision.texts import Reader

PRODID = "-//Visavis//Visavis//EN"
GONE = (Status.DECLINED, Status.CANCELLED)
A_DAY = timedelta(days=1)
FOLDED = 75  # octets from which on icalendar folds a line (RFC 5545, 3.1)
REFRESH = timedelta(hours=1)  # how often a feed is worth reading
ANY_YEAR = 2020
YEARS = 8  # of a zone's clock changes that are looked at: a rule that holds so long is written as a rule


class Method(StrEnum):
    """What a calendar is to do with the entry (RFC 5546, 3.2)."""

    REQUEST = "REQUEST"
    CANCEL = "CANCEL"


class Answer(StrEnum):
    """What is known of the recipient's mind: PARTSTAT (RFC 5545, 3.2.12)."""

    OPEN = "NEEDS-ACTION"
    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    TENTATIVE = "TENTATIVE"


@dataclass(frozen=True)
class Organizer:
    """Whom calendars name as ORGANIZER: our own address, so that answers do not go to the other person.

    `email` is where the recipient's calendar answers to, if `answers` says that answers are read. `url` is the page
    that shows the recipient's appointments, `domain` the one of the UIDs: it must stay the same for life.
    """

    name: str
    email: str
    url: str
    domain: str
    answers: bool = False


@dataclass(frozen=True)
class Item:
    """An appointment as a feed shows it. `supervisor` is named to the supervisee; to the supervisor it is None.

    `stamp` is when it was last changed.
    """

    appointment: Appointment
    supervisor: str | None
    stamp: datetime


@dataclass(frozen=True)
class Link:
    """A page that puts an appointment into a calendar on the web."""

    name: str
    url: str


def method(appointment: Appointment) -> Method:
    return Method.CANCEL if appointment.status in GONE else Method.REQUEST


def domain_of(sender: str) -> str:
    """The domain of the UIDs: that of the address we send from, in ASCII."""
    domain = sender.rpartition("@")[2]
    return domain if domain.isascii() else domain.encode("idna").decode("ascii")


def uid(appointment_id: uuid.UUID, domain: str) -> str:
    """The same for life and for everybody (RFC 5545, 3.8.4.7). The occurrences of a series share the series'."""
    return f"{appointment_id}@{domain}"


def write(
    appointment: Appointment,
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    answer: Answer = Answer.OPEN,
    series: Series | None = None,
    alarms: Sequence[int] = (),
) -> bytes:
    """One person's iCalendar object for an appointment, in UTF-8 with CRLF line ends, lines folded at 75 octets.

    `other` is the other of the pair, `series` the one that the appointment belongs to. `stamp` is the DTSTAMP: of two
    objects with the same SEQUENCE the later one counts, so give the moment of the change and not of the writing.
    `alarms` are the minutes before the start at which the calendar is to ring.
    """
    entry = event(appointment, recipient, other, organizer, stamp=stamp, answer=answer, series=series, alarms=alarms)
    return _calendar(method(appointment), series, [entry])


def write_series(
    series: Series,
    occurrences: Sequence[Appointment],
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    told: Sequence[Appointment],
    answer: Callable[[Appointment], Answer],
    alarms: Sequence[int] = (),
) -> bytes:
    """One person's iCalendar object for all of a series as it is now, with `METHOD:REQUEST`.

    Its master repeats by the rule; EXDATE takes out each start that has no standing occurrence, and an entry of its
    own changes each that stands at another time or for another length, is requested while others are confirmed
    (RFC 5545, 3.8.5) or was answered otherwise, or may have had such an entry before: some calendars keep it until
    they hear something newer of just that occurrence. `told` are those that this is the news of; `occurrences` are all
    that there ever were, at least one of them standing.
    """
    standing = [one for one in occurrences if one.status not in GONE]
    pattern = next((one for one in standing if one.status is not Status.REQUESTED), standing[0])
    shown = replace(pattern, status=Status.CONFIRMED if pattern.status is not Status.REQUESTED else pattern.status)
    master = _master(series, shown, recipient, other, organizer, stamp=stamp, answer=answer(shown), alarms=alarms)
    master.add("rrule", _rule(series))
    starts = {wall_clock(one.series_at or one.starts_at, series.zone) for one in standing}
    empty = [clock for clock in expand(series.rule, series.first_local) if clock not in starts]
    if empty:
        master.add("exdate", [clock.replace(tzinfo=series.zone) for clock in empty])
    first = _is_first_change(series, occurrences, standing, told)
    changed = [
        event(one, recipient, other, organizer, stamp=stamp, answer=answer(one), series=series, alarms=alarms)
        for one in standing
        if not _is_as_ruled(series, shown, one) or (one.revision > 0 and not first) or answer(one) is not answer(shown)
    ]
    return _calendar(Method.REQUEST, series, [master, *changed])


def write_gone(
    series: Series,
    occurrences: Sequence[Appointment],
    gone: Sequence[Appointment],
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
) -> bytes:
    """One person's iCalendar object that calls some of a series off (RFC 5546, 3.2.5).

    Each of the `gone` is named, unless none of the `occurrences` stands any more: then the master alone says it all,
    with a SEQUENCE that no occurrence's own entry has exceeded.
    """
    if any(one.status not in GONE for one in occurrences):
        entries = [event(one, recipient, other, organizer, stamp=stamp, series=series) for one in gone]
    else:
        last = replace(series, revision=series.revision + max(one.revision for one in occurrences))
        entries = [_master(last, gone[0], recipient, other, organizer, stamp=stamp, answer=Answer.OPEN, alarms=())]
    return _calendar(Method.CANCEL, series, entries)


def write_feed(items: Sequence[Item], person: Person, base_url: str, domain: str) -> bytes:
    """A person's appointments for calendars that subscribe to an address, with `METHOD:PUBLISH` (RFC 5546, 3.2.1).

    It names no client and no place, as it may be kept by anybody whom the person gives the address: of a supervisor's
    appointments only that they are supervision. Each occurrence of a series is an entry of its own, so what is moved
    or called off is gone with the next reading. Nothing in it depends on when it is read.
    """
    reader = Reader(person.language, person.time_zone)
    name = reader.say("calendar.feed")
    calendar = Calendar()
    calendar.add("prodid", PRODID)
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add("name", name)  # RFC 7986, 5.1; the other two are what calendars knew before
    calendar.add("x-wr-calname", name)
    calendar.add("refresh-interval", vDuration(REFRESH), parameters={"VALUE": "DURATION"})  # RFC 7986, 5.7
    calendar.add("x-published-ttl", vDuration(REFRESH))
    for item in items:
        calendar.add_component(_feed_entry(item, reader, base_url, domain))
    if not items:  # an object has to have one component at least (RFC 5545, 3.6)
        calendar.add_component(_time_zone(person.time_zone, ANY_YEAR))
    return _to_bytes(calendar)


def _feed_entry(item: Item, reader: Reader, base_url: str, domain: str) -> Event:
    one, key = item.appointment, "calendar.feed" if item.supervisor is None else "calendar.summary"
    if one.status is Status.REQUESTED:
        key += "_requested"
    page = f"{base_url}/appointments/{one.id}"
    entry = Event()
    entry.add("uid", uid(one.id, domain))
    entry.add("dtstamp", item.stamp.astimezone(UTC))
    entry.add("sequence", one.revision)
    _put_times(entry, one.starts_at, one.ends_at, None)
    entry.add("summary", reader.say(key, other=item.supervisor or ""))
    entry.add("description", reader.say("calendar.description", url=page))
    entry.add("location", _mode(one, reader))
    entry.add("url", page)
    entry.add("status", _status(one))
    entry.add("class", "PRIVATE")
    entry.add("transp", "OPAQUE")
    return entry


def event(
    appointment: Appointment,
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    answer: Answer = Answer.OPEN,
    series: Series | None = None,
    alarms: Sequence[int] = (),
) -> Event:
    """The VEVENT of `write`. The recipient alone stands in it as ATTENDEE.

    The SEQUENCE of an occurrence counts the changes of its series too: a calendar compares it with the master's, of
    which it was a part until then (RFC 5546, 2.1.5).
    """
    entry = _event(appointment, recipient, other, organizer, stamp=stamp, answer=answer, alarms=alarms)
    if series is None:
        entry.add("uid", uid(appointment.id, organizer.domain))
        entry.add("sequence", appointment.revision)
        _put_times(entry, appointment.starts_at, appointment.ends_at, None)
    else:
        entry.add("uid", uid(series.id, organizer.domain))
        entry.add("sequence", series.revision + appointment.revision)
        entry.add("recurrence-id", (appointment.series_at or appointment.starts_at).astimezone(series.zone))
        _put_times(entry, appointment.starts_at, appointment.ends_at, series.zone)
    return entry


def _master(
    series: Series,
    pattern: Appointment,
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    answer: Answer,
    alarms: Sequence[int],
) -> Event:
    """The VEVENT for all occurrences, without its rule; all else is the pattern's."""
    entry = _event(pattern, recipient, other, organizer, stamp=stamp, answer=answer, alarms=alarms)
    entry.add("uid", uid(series.id, organizer.domain))
    entry.add("sequence", series.revision)
    _put_times(entry, series.starts_at, series.ends_at, series.zone)
    return entry


def _event(
    appointment: Appointment,
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    answer: Answer,
    alarms: Sequence[int],
) -> Event:
    """All that does not depend on which entry it is and when."""
    reader = Reader(recipient.language, recipient.time_zone)
    title = summary(appointment, reader, other)
    entry = Event()
    entry.add("dtstamp", stamp.astimezone(UTC))
    entry.add("summary", title)
    entry.add("description", reader.say("calendar.description", url=organizer.url))
    entry.add("location", place(appointment, reader))
    entry.add("url", organizer.url)
    entry.add("status", _status(appointment))
    entry.add("class", "PRIVATE")
    entry.add("transp", "TRANSPARENT" if appointment.status in GONE else "OPAQUE")
    entry.add("organizer", _address(organizer.name, organizer.email))
    entry.add("attendee", _attendee(recipient, answer, asks=organizer.answers and appointment.status not in GONE))
    if appointment.status is Status.CONFIRMED:
        for minutes in alarms:
            entry.add_component(_alarm(title, minutes))
    return entry


def _calendar(method: Method, series: Series | None, entries: Sequence[Event]) -> bytes:
    calendar = Calendar()
    calendar.add("prodid", PRODID)
    calendar.add("version", "2.0")
    calendar.add("method", method.value)
    if series is not None:
        calendar.add_component(_time_zone(series.time_zone, series.starts_at.year - 1))
    for entry in entries:
        calendar.add_component(entry)
    return _to_bytes(calendar)


def _to_bytes(calendar: Calendar) -> bytes:
    """`calendar.to_ical()` in two thirds of its time: a line that fits is not taken to pieces to be folded."""
    lines = (
        line.encode() if len(line) < FOLDED and line.isascii() else line.to_ical()
        for line in calendar.content_lines()
        if line
    )
    return b"".join(line + b"\r\n" for line in lines)


def _put_times(entry: Event, starts_at: datetime, ends_at: datetime, zone: zoneinfo.ZoneInfo | None) -> None:
    """DTSTART and DTEND: in UTC, or by a zone's clock.

    A clock that was put back shows some times twice, and a calendar reads the first (RFC 5545, 3.3.5): where the
    second is meant, UTC is written; and where only the end is such, DURATION.
    """
    starts, ends = (at.astimezone(UTC if zone is None else zone) for at in (starts_at, ends_at))
    if starts.fold:
        starts, ends = starts.astimezone(UTC), ends.astimezone(UTC)
    entry.add("dtstart", starts)
    if ends.fold:
        entry.add("duration", ends_at - starts_at)
    else:
        entry.add("dtend", ends)


def _is_as_ruled(series: Series, master: Appointment, one: Appointment) -> bool:
    """Whether the master says all of this occurrence."""
    at, length = one.series_at or one.starts_at, series.ends_at - series.starts_at
    asked = (master.status is Status.REQUESTED, one.status is Status.REQUESTED)
    return (one.starts_at, one.ends_at, one.place) == (at, at + length, master.place) and asked[0] is asked[1]


def _is_first_change(
    series: Series, occurrences: Sequence[Appointment], standing: Sequence[Appointment], told: Sequence[Appointment]
) -> bool:
    """Whether all that stands changes for the first time now, and together, as when a request is confirmed.

    Then no occurrence has had an entry of its own that says something else. One can have had it where only some change:
    the mail of the request may have been sent when another was confirmed already, and told them apart.
    """
    unchanged = series.revision <= 1 and all(one.revision <= 1 for one in occurrences)
    return unchanged and {one.id for one in standing} <= {one.id for one in told}


def _rule(series: Series) -> vRecur:
    """The rule with UNTIL in place of COUNT.

    A start that the clock skips is not counted by a calendar (RFC 5545, 3.3.10), but it is by our rule.
    """
    last = expand(series.rule, series.first_local)[-1].replace(tzinfo=series.zone)
    parts = dict(part.split("=") for part in series.rule.split(";") if not part.startswith("COUNT="))
    return vRecur({**parts, "UNTIL": last.astimezone(UTC)})


@dataclass(frozen=True)
class Change:
    """A zone's clock is put to another offset. `clock` is what it shows then by the offset before."""

    clock: datetime
    before: timedelta
    after: timedelta
    name: str
    daylight: bool


@functools.lru_cache(maxsize=64)
def _time_zone(key: str, year: int) -> Timezone:
    """The VTIMEZONE of a zone from the first of January of that year on (RFC 5545, 3.6.5)."""
    zone = zoneinfo.ZoneInfo(key)
    begin = datetime(year, 1, 1, tzinfo=zone)
    offset = begin.utcoffset() or timedelta()
    first = Change(begin.replace(tzinfo=None), offset, offset, begin.tzname() or key, bool(begin.dst()))
    like: dict[tuple[object, ...], list[Change]] = defaultdict(list)
    for change in _changes(zone, year):
        like[(change.before, change.after, change.name, change.daylight)].append(change)
    written = Timezone()
    written.add("tzid", key)
    for changes in ([first], *like.values()):
        written.add_component(_observance(changes))
    return written


def _changes(zone: zoneinfo.ZoneInfo, year: int) -> Iterator[Change]:
    at, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + YEARS, 1, 1, tzinfo=UTC)
    while at < end:
        if _kind(zone, at) != _kind(zone, at + A_DAY):
            since, until = at, at + A_DAY
            while until - since > timedelta(seconds=1):
                middle = since + timedelta(seconds=(until - since) // timedelta(seconds=2))
                since, until = (middle, until) if _kind(zone, middle) == _kind(zone, at) else (since, middle)
            before, _, _ = _kind(zone, since)
            after, name, daylight = _kind(zone, until)
            yield Change((until + before).replace(tzinfo=None), before, after, name, daylight)
        at += A_DAY


def _kind(zone: zoneinfo.ZoneInfo, at: datetime) -> tuple[timedelta, str, bool]:
    local = at.astimezone(zone)
    return local.utcoffset() or timedelta(), local.tzname() or zone.key, bool(local.dst())


def _observance(changes: Sequence[Change]) -> TimezoneDaylight | TimezoneStandard:
    """Changes of one kind: by a rule where there is one, for calendars that understand nothing else, or one by one."""
    first = changes[0]
    observance = TimezoneDaylight() if first.daylight else TimezoneStandard()
    observance.add("dtstart", first.clock)
    observance.add("tzoffsetfrom", first.before)
    observance.add("tzoffsetto", first.after)
    observance.add("tzname", first.name)
    rule = _yearly([change.clock for change in changes])
    if rule is not None:
        observance.add("rrule", rule)
    elif len(changes) > 1:
        observance.add("rdate", [change.clock for change in changes[1:]])
    return observance


def _yearly(clocks: Sequence[datetime]) -> vRecur | None:
    """Such as: every year on the last Sunday of March. None where that is not so in each of the years."""
    if len(clocks) < YEARS or len({(clock.month, clock.weekday(), clock.time()) for clock in clocks}) > 1:
        return None
    first = clocks[0]
    ordinals = {(clock.day - 1) // 7 + 1 for clock in clocks}
    if all((clock + 7 * A_DAY).month != clock.month for clock in clocks):
        ordinals = {-1}
    if len(ordinals) > 1:
        return None
    return vRecur({"FREQ": "YEARLY", "BYMONTH": first.month, "BYDAY": f"{ordinals.pop()}{DAYS[first.weekday()]}"})


def summary(appointment: Appointment, reader: Reader, other: Person) -> str:
    """What the calendar shows of it: the other of the pair, and whether it still has to be confirmed."""
    key = "calendar.summary_requested" if appointment.status is Status.REQUESTED else "calendar.summary"
    return reader.say(key, other=other.name)


def place(appointment: Appointment, reader: Reader) -> str:
    """Where it happens: what the supervisor wrote, else how."""
    if appointment.place:
        return appointment.place
    return _mode(appointment, reader)


def _mode(appointment: Appointment, reader: Reader) -> str:
    return reader.say("calendar.online" if appointment.mode is Mode.ONLINE else "calendar.in_person")


def calendar_links(
    appointment: Appointment, recipient: Person, other: Person, organizer: Organizer
) -> tuple[Link, ...]:
    """Links that add the appointment to Google, Outlook.com, Office 365 and Yahoo.

    They make a copy that no later change reaches: there are none before it is confirmed or after it is called off,
    and none for a series, of whose entry an occurrence is a part.
    """
    if appointment.status is not Status.CONFIRMED or appointment.series_id is not None:
        return ()
    reader = Reader(recipient.language, recipient.time_zone)
    title, where = summary(appointment, reader, other), place(appointment, reader)
    details = reader.say("calendar.description", url=organizer.url)
    starts, ends = _basic(appointment.starts_at), _basic(appointment.ends_at)
    google = {"action": "TEMPLATE", "text": title, "dates": f"{starts}/{ends}", "details": details, "location": where}
    outlook = {
        "path": "/calendar/action/compose",
        "rru": "addevent",
        "subject": title,
        "startdt": _extended(appointment.starts_at),
        "enddt": _extended(appointment.ends_at),
        "body": details,
        "location": where,
    }
    yahoo = {"v": "60", "title": title, "st": starts, "et": ends, "desc": details, "in_loc": where}
    return (
        Link("Google", _link("https://calendar.google.com/calendar/render", google)),
        Link("Outlook.com", _link("https://outlook.live.com/calendar/0/deeplink/compose", outlook)),
        Link("Office 365", _link("https://outlook.office.com/calendar/deeplink/compose", outlook)),
        Link("Yahoo", _link("https://calendar.yahoo.com/", yahoo)),
    )


def _status(appointment: Appointment) -> str:
    if appointment.status in GONE:
        return "CANCELLED"
    return "TENTATIVE" if appointment.status is Status.REQUESTED else "CONFIRMED"


def _address(name: str, email: str) -> vCalAddress:
    address = vCalAddress(f"mailto:{email}")
    address.params["CN"] = name
    return address


def _attendee(recipient: Person, answer: Answer, *, asks: bool) -> vCalAddress:
    attendee = _address(recipient.name, recipient.email)
    attendee.params["CUTYPE"] = "INDIVIDUAL"
    attendee.params["ROLE"] = "REQ-PARTICIPANT"
    attendee.params["PARTSTAT"] = answer.value
    attendee.params["RSVP"] = "TRUE" if asks else "FALSE"
    return attendee


def _alarm(title: str, minutes: int) -> Alarm:
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", title)
    alarm.add("trigger", Before(timedelta(minutes=-minutes)))
    return alarm


class Before(vDuration):
    """A trigger in minutes: a day of RFC 5545 has 23 or 25 hours where a clock is changed (3.3.6), ours has 24."""

    def to_ical(self) -> bytes:
        return b"-PT%dM" % (-self.td // timedelta(minutes=1))


def _basic(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _extended(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _link(page: str, fields: dict[str, str]) -> str:
    """Spaces as %20: Outlook shows a plus sign as it is."""
    return f"{page}?{urlencode(fields, quote_via=quote, safe='')}"

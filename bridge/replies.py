"""A calendar's answer to our invitation, out of the mail that it came in (RFC 5546, 3.2.3 and 3.2.7; RFC 6047).

Read line by line, and only what an answer needs: the time zones that a mail defines are not believed, since the
iCalendar library would keep them for everybody. A zone is known by its name, or by Windows' name for it; a time in
any other is taken as a wall clock's.
"""

import uuid
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.message import Message

from icalendar import vDDDTypes
from icalendar.parser import Contentline, Contentlines
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

from bridge.parts import Unreadable, parameter, text_of, walk
from bridge.proofs import same_address
from supervision import people
from supervision.attendances import Counter, Response
from supervision.models import Attendance

CALENDARS = ("text/calendar", "application/ics", "application/x-ics")
MOST_LINES = 5_000
LONGEST_LINE = 10_000
MOST_ENTRIES = 100
LARGEST_SEQUENCE = 2**31 - 1  # INTEGER (RFC 5545, 3.3.8)
YEARS = range(1990, 2200)
LONGEST = timedelta(days=2)
ANSWERS = {
    "ACCEPTED": Attendance.ACCEPTED,
    "DECLINED": Attendance.DECLINED,
    "TENTATIVE": Attendance.TENTATIVE,
}
READ = frozenset({"UID", "RECURRENCE-ID", "SEQUENCE", "DTSTAMP", "ATTENDEE", "DTSTART", "DTEND", "DURATION"})


@dataclass(frozen=True)
class Property:
    value: str
    params: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """The properties of a VEVENT that an answer needs."""

    properties: dict[str, list[Property]] = field(default_factory=dict)

    def only(self, name: str) -> Property | None:
        """Raises Unreadable where it stands more than once."""
        found = self.properties.get(name, [])
        if len(found) > 1:
            raise Unreadable("ambiguous")
        return found[0] if found else None


def has_calendar(message: Message) -> bool:
    return any(_is_calendar(part) for part in walk(message))


def read(message: Message, author: str) -> list[Response]:
    """What the author's calendar answers, one for each entry; of several parts the first that holds an answer.

    Raises Unreadable: `no_calendar`; `method` for what is neither REPLY nor COUNTER; `attendee` where it answers for
    anybody else; `partstat`, `ambiguous`, `too_long` and others for what makes no sense.
    """
    reason: Unreadable | None = None
    for part in walk(message):
        if _is_calendar(part):
            try:
                return read_calendar(text_of(part), author)
            except Unreadable as error:
                reason = reason or error
    raise reason or Unreadable("no_calendar")


def read_calendar(text: str, author: str) -> list[Response]:
    """The answers in an iCalendar object. Raises Unreadable."""
    try:
        return _read(text, author)
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError, AssertionError) as error:
        raise Unreadable("no_icalendar") from error


def _is_calendar(part: Message) -> bool:
    if part.get_content_type() in CALENDARS:
        return True
    named = part.get_content_type() in ("application/octet-stream", "text/plain")
    return named and parameter(part, "filename").endswith(".ics")


def _read(text: str, author: str) -> list[Response]:
    method, entries = _parse(text)
    if method not in ("REPLY", "COUNTER"):
        raise Unreadable("method")
    if not entries:
        raise Unreadable("no_entry")
    found = [_response(entry, method, author) for entry in entries]
    if len({one.entry_id for one in found}) > 1:  # RFC 5546, 3.2.3: all of one entry
        raise Unreadable("ambiguous")
    return found


def _parse(text: str) -> tuple[str, list[Entry]]:
    """The METHOD, and the VEVENTs without what lies in them."""
    method = ""
    entries: list[Entry] = []
    inside: list[str] = []
    for name, params, value in _lines(text):
        if name == "BEGIN":
            inside.append(value.strip().upper())
            if inside == ["VCALENDAR", "VEVENT"]:
                entries.append(Entry())
                if len(entries) > MOST_ENTRIES:
                    raise Unreadable("too_many_entries")
        elif name == "END":
            if not inside or inside.pop() != value.strip().upper():
                raise Unreadable("no_icalendar")
        elif inside == ["VCALENDAR"] and name == "METHOD":
            if method:
                raise Unreadable("ambiguous")
            method = value.strip().upper()
        elif inside == ["VCALENDAR", "VEVENT"] and name in READ:
            entries[-1].properties.setdefault(name, []).append(Property(value.strip(), params))
    if inside:
        raise Unreadable("no_icalendar")
    return method, entries


def _lines(text: str) -> Iterator[tuple[str, dict[str, str], str]]:
    if text.count("\n") + text.count("\r") > 2 * MOST_LINES:
        raise Unreadable("too_long")
    # Lines folded by hand or by a mail server end as they like.
    lines = Contentlines.from_ical(text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", ""))  # type: ignore[no-untyped-call]
    for line in lines:
        if not line.strip():
            continue
        if len(line) > LONGEST_LINE:
            raise Unreadable("too_long")
        if line[:1].upper() == "X" and line[1:2] in "-_":
            continue
        if _name(line) in READ | {"BEGIN", "END", "METHOD"}:
            name, params, value = line.raw_parts()
            yield name.upper(), {key.upper(): _first(one) for key, one in params.items()}, value


def _name(line: Contentline) -> str:
    """Before the first colon or semicolon. The library takes no line without parameters apart without a colon."""
    return line.replace(":", ";", 1).partition(";")[0].strip().upper()


def _first(value: object) -> str:
    return str(value[0] if isinstance(value, list) and value else value)


def _response(entry: Entry, method: str, author: str) -> Response:
    partstat = _partstat(entry, method, author)
    stamp = entry.only("DTSTAMP")
    if stamp is None:
        raise Unreadable("no_stamp")
    at = _instant(stamp)
    if not isinstance(at, datetime):
        raise Unreadable("no_stamp")
    return Response(
        _uid(entry.only("UID")),
        _sequence(entry.only("SEQUENCE")),
        at if at.tzinfo else at.replace(tzinfo=UTC),
        _counter(entry) if method == "COUNTER" else _answer(partstat),
        _occurrence(entry.only("RECURRENCE-ID")),
    )


def _partstat(entry: Entry, method: str, author: str) -> str:
    """How the author alone answers. A proposal may name the others of the entry too."""
    attendees = entry.properties.get("ATTENDEE", [])
    own = [one for one in attendees if same_address(_mailto(one.value), author)]
    if len(own) != 1 or (method == "REPLY" and len(attendees) != 1):
        raise Unreadable("attendee")
    return own[0].params.get("PARTSTAT", "").upper()


def _answer(partstat: str) -> Attendance:
    if partstat not in ANSWERS:
        raise Unreadable("partstat")
    return ANSWERS[partstat]


def _mailto(value: str) -> str:
    return value[7:] if value[:7].lower() == "mailto:" else value


def _uid(given: Property | None) -> uuid.UUID:
    """Our UIDs begin with the ID of the appointment or series."""
    word = "" if given is None else given.value.partition("@")[0]
    if len(word) != 36:
        raise Unreadable("uid")
    return uuid.UUID(word)


def _sequence(given: Property | None) -> int:
    if given is None:
        return 0
    if not given.value.isascii() or not given.value.isdigit() or len(given.value) > 10:
        raise Unreadable("sequence")
    return min(int(given.value), LARGEST_SEQUENCE)


def _occurrence(given: Property | None) -> datetime | date | None:
    if given is None:
        return None
    if "RANGE" in given.params:  # and all that follow: asked of nobody
        raise Unreadable("range")
    return _instant(given)


def _counter(entry: Entry) -> Counter:
    starts, ends, lasts = entry.only("DTSTART"), entry.only("DTEND"), entry.only("DURATION")
    starts_at = None if starts is None else _instant(starts)
    ends_at = None if ends is None else _instant(ends)
    if not isinstance(starts_at, datetime) or not (ends_at is None or isinstance(ends_at, datetime)):
        raise Unreadable("times")
    if ends_at is None and lasts is not None:
        length = vDDDTypes.from_ical(lasts.value[:30])  # type: ignore[no-untyped-call]
        if not isinstance(length, timedelta) or not timedelta(0) < length < LONGEST:
            raise Unreadable("times")
        ends_at = starts_at + length
    if ends_at is not None and (starts_at.tzinfo is None) != (ends_at.tzinfo is None):
        raise Unreadable("times")
    return Counter(starts_at, ends_at)


def _instant(given: Property) -> datetime | date:
    """An instant in UTC; naive where the zone is not known; or a day."""
    if len(given.value) > 20:
        raise Unreadable("times")
    at = vDDDTypes.from_ical(given.value)  # type: ignore[no-untyped-call]
    if not isinstance(at, date) or at.year not in YEARS:
        raise Unreadable("times")
    if not isinstance(at, datetime):
        return at
    zone = None if at.tzinfo else _zone(given.params.get("TZID", ""))
    at = at.replace(tzinfo=zone) if zone else at
    return at.astimezone(UTC) if at.tzinfo else at


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    """By the name of the tz database, with a prefix or without (RFC 5545, 3.8.3.1), or by Windows'."""
    name = name.strip().strip('"')
    parts = name.strip("/").split("/")
    known = people.known_zones()
    for key in (WINDOWS_TO_OLSON.get(name, ""), name, "/".join(parts[-2:]), "/".join(parts[-3:])):
        if key in known:
            return zoneinfo.ZoneInfo(key)
    return None

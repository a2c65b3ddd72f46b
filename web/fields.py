"""What a form's fields say: read into values, or refused in words."""

import hashlib
import re
import uuid
from collections import defaultdict
from datetime import date, datetime, time

from aiohttp import web
from pydantic import ValidationError

from supervision import hours
from supervision.errors import NotUnderstood
from supervision.hours import WeeklyRange
from supervision.people import Person
from web import repeats, schemas
from web.middleware import FORM
from web.repeats import Repeat
from web.state import person

MINUTES = {"m": 1, "h": 60, "d": 1440}
DURATION = re.compile(r"(\d{1,5})\s*([^\W\d]*)\.?")
CLOCK = r"(\d{1,2})(?:[:h.](\d\d)?)?"
RANGE = re.compile(rf"{CLOCK}\s*(?:-|–|—|a|às|to)\s*{CLOCK}")
ISO_DAY = re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})")
TYPED_DAY = re.compile(r"(?P<day>[0-9]{1,2})[/.](?P<month>[0-9]{1,2})[/.](?P<year>[0-9]{4})")
YEARS = range(2000, 2900)


def typed_of(request: web.Request) -> defaultdict[str, str]:
    """What was typed into the form that this page answers, so that it stands there again; else nothing."""
    return defaultdict(str, request.get(FORM, {}))


def text_of(request: web.Request, name: str) -> str:
    return request[FORM].get(name, "").strip()


def repeat_of(request: web.Request) -> Repeat | None:
    """The same form pressed twice: its hidden value and all else in it make the key."""
    fields = request[FORM]
    if not fields.get("once"):
        return None
    pressed = "\0".join(f"{name}\0{value}" for name, value in sorted(fields.items()))
    key = hashlib.sha256(f"{request.path}\0{pressed}".encode()).hexdigest()
    return repeats.recognise(person(request).id, "form", key, key)


def read_slot(request: web.Request) -> tuple[datetime, datetime]:
    """A pressed slot is `start/end`, an ISO 8601 interval in UTC."""
    try:
        starts_at, ends_at = text_of(request, "slot").split("/")
        return schemas.read_instant(starts_at), schemas.read_instant(ends_at)
    except ValueError as error:
        raise NotUnderstood("web.refused.choose_time") from error


def read_time(request: web.Request, me: Person) -> tuple[datetime, datetime | None]:
    """A pressed or chosen slot, or else what that person typed as day and time, which has no end of its own."""
    typed = text_of(request, "day") or text_of(request, "clock")
    if text_of(request, "slot"):
        if typed:
            raise NotUnderstood("web.refused.two_times")
        return read_slot(request)
    if not typed:
        raise NotUnderstood("web.refused.choose_time")
    return read_typed_time(request, me), None


def read_revision(request: web.Request) -> int | None:
    text = text_of(request, "revision")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def read_proposal(request: web.Request) -> uuid.UUID | None:
    """The proposal that the page showed."""
    try:
        return uuid.UUID(text_of(request, "proposal"))
    except ValueError:
        return None


def read_seen(request: web.Request, name: str) -> dict[uuid.UUID, int] | None:
    """`id:revision` of each appointment that the page showed; None where the form does not say."""
    if name not in request[FORM]:
        return None
    try:
        pieces = [one.split(":") for one in text_of(request, name).split()]
        return {uuid.UUID(identifier): int(revision) for identifier, revision in pieces}
    except ValueError as error:
        raise NotUnderstood from error


def read_proposals(request: web.Request) -> set[uuid.UUID] | None:
    """The proposals of a series that the page showed; None where the form does not say."""
    if "proposals" not in request[FORM]:
        return None
    try:
        return {uuid.UUID(one) for one in text_of(request, "proposals").split()}
    except ValueError as error:
        raise NotUnderstood from error


def read_reason(request: web.Request) -> str | None:
    try:
        return schemas.Reason(reason=text_of(request, "reason")).reason or None
    except ValidationError as error:
        raise NotUnderstood("web.refused.reason", most=schemas.REASON_CHARACTERS) from error


def read_day(request: web.Request, name: str) -> date:
    """A day of a date field, ISO 8601."""
    day = read_optional_day(request, name)
    if day is None:
        raise NotUnderstood("web.refused.day")
    return day


def read_optional_day(request: web.Request, name: str) -> date | None:
    text = text_of(request, name)
    return understand_day(text) if text else None


def understand_day(text: str) -> date:
    """A day as a date field sends it (ISO 8601), or typed as `24/11/2026` where a browser has no such field.

    Raises NotUnderstood, which tells a day that is none from a date that does not exist.
    """
    found = ISO_DAY.fullmatch(text) or TYPED_DAY.fullmatch(text)
    if found is None or int(found["year"]) not in YEARS:
        raise NotUnderstood("web.refused.day")
    year, month, day = (int(found[part]) for part in ("year", "month", "day"))
    try:
        return date(year, month, day)
    except ValueError as error:
        raise NotUnderstood("web.refused.no_such_day", day=f"{day:02}", month=f"{month:02}", year=year) from error


def read_optional_clock(request: web.Request, name: str) -> time | None:
    """A wall-clock time of a time field, in whole minutes."""
    text = text_of(request, name)
    if not text:
        return None
    try:
        clock = time.fromisoformat(text)
    except ValueError as error:
        raise NotUnderstood("web.refused.clock") from error
    if clock.tzinfo is not None or clock.second or clock.microsecond:
        raise NotUnderstood("web.refused.clock")
    return clock


def read_typed_time(request: web.Request, me: Person) -> datetime:
    """A typed day and time on that person's clock; refused where the clock jumps over it."""
    day, clock = read_day(request, "day"), read_optional_clock(request, "clock")
    if clock is None:
        raise NotUnderstood("web.refused.clock")
    instant = hours.to_instant(day, clock, me.zone)
    if instant is None:
        raise NotUnderstood("web.refused.clock_skips")
    return instant


def read_optional_number(request: web.Request, name: str) -> int | None:
    text = text_of(request, name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise NotUnderstood("web.refused.number", text=text[:20])
    return int(text)


def read_length(text: str) -> int | None:
    """Minutes from an address or a hidden field; None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def read_minutes(text: str, unit: str = "m") -> int:
    """A length of time such as `50`, `90 min`, `24 h`, `2 dias`, in minutes; `unit` is meant where it names none."""
    found = DURATION.fullmatch(text.strip().lower())
    size = found and MINUTES.get(found[2][:1] or unit)
    if not found or size is None:
        raise NotUnderstood("web.refused.duration", text=text[:20])
    return int(found[1]) * size


def read_lengths(text: str) -> tuple[int, ...]:
    """Lengths such as `50, 90 min`, in minutes."""
    return tuple(read_minutes(part) for part in re.split(r"[,;]", text) if part.strip())


def read_ranges(text: str, weekday: int) -> list[WeeklyRange]:
    """Ranges such as `9-12, 14:00–18:30` of one weekday; none where nothing is typed."""
    found = []
    for part in re.split(r"[,;]", text):
        if not part.strip():
            continue
        match = RANGE.fullmatch(part.strip().lower())
        try:
            if match is None:
                raise ValueError
            starts, ends = time(int(match[1]), int(match[2] or 0)), time(int(match[3]), int(match[4] or 0))
        except ValueError as error:
            raise NotUnderstood("web.refused.ranges", text=part.strip()[:40]) from error
        found.append(WeeklyRange(weekday, starts, ends))
    return found

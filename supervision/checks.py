"""Checks of what somebody sets as hours, exceptions and rules, and the texts that these are typed as."""

import itertools
import re
import uuid
from collections.abc import Sequence
from datetime import date, time, timedelta

from supervision import public_holidays
from supervision.errors import NotUnderstood
from supervision.hours import Availability, DatedException, WeeklyRange
from supervision.models import Exceptional
from supervision.people import has_controls

YEARS = range(2000, 2900)
MOST_DAYS = 366
MOST_PLACE = 500
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? (\d\d):(\d\d)-(\d\d):(\d\d)")
EXCEPTION = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.\.(\d{4}-\d\d-\d\d))?(?: (\d\d:\d\d)-(\d\d:\d\d))?", re.ASCII)
BOUNDS = (
    ("length", 5, 720),
    ("grid", 5, 1440),
    ("buffer_before", 0, 720),
    ("buffer_after", 0, 720),
    ("notice", 0, 43200),
    ("horizon", 1, 366),
    ("cancel_notice", 0, 43200),
    ("move_notice", 0, 43200),
    ("answer", 5, 43200),
    ("offer", 5, 10080),
    ("day_limit", 1, 100),
    ("week_limit", 1, 500),
)
MAY_BE_NONE = ("day_limit", "week_limit")


def read_hours(ranges: Sequence[str]) -> tuple[WeeklyRange, ...]:
    """Weekly ranges from texts such as `mon 09:00-12:00` and `mon-fri 14:00-18:00`. Refused if one is neither."""
    found: list[WeeklyRange] = []
    for one in ranges:
        match = HOURS.fullmatch(" ".join(one.lower().split()))
        if match is None or not {match[1], match[2] or match[1]} <= set(WEEKDAYS):
            raise NotUnderstood("refused.hours", text=one)
        first, last = WEEKDAYS.index(match[1]), WEEKDAYS.index(match[2] or match[1])
        try:
            starts, ends = time(int(match[3]), int(match[4])), time(int(match[5]), int(match[6]))
        except ValueError as error:
            raise NotUnderstood("refused.hours", text=one) from error
        if first > last:
            raise NotUnderstood("refused.hours", text=one)
        found += [WeeklyRange(weekday, starts, ends) for weekday in range(first, last + 1)]
    return tuple(found)


def read_exception(kind: Exceptional, said: str, *, yearly: bool = False) -> DatedException:
    """An exception from a text such as `2026-12-24..2027-01-06` or `2026-12-05 09:00-12:00`. Refused if it is none."""
    match = EXCEPTION.fullmatch(" ".join(said.split()))
    if match is None:
        raise NotUnderstood("refused.exception", text=said)
    try:
        first_on, last_on = date.fromisoformat(match[1]), date.fromisoformat(match[2] or match[1])
        starts, ends = (time.fromisoformat(clock) if clock else None for clock in (match[3], match[4]))
    except ValueError as error:
        raise NotUnderstood("refused.exception", text=said) from error
    return DatedException(uuid.uuid4(), kind, first_on, last_on, starts, ends, yearly)


def check_rules(rules: Availability) -> None:
    """Refuse what the tables would refuse too, in words; a place that is no line of text; unknown holidays."""
    if has_controls(rules.place):
        raise NotUnderstood("refused.place")
    if len(rules.place) > MOST_PLACE:
        raise NotUnderstood("refused.place_long", most=MOST_PLACE)
    for name, least, most in BOUNDS:
        value = getattr(rules, name)
        if value is None and name in MAY_BE_NONE:
            continue
        if not isinstance(value, int) or not least <= value <= most:
            raise NotUnderstood("refused.out_of_range", name=name, least=least, most=most)
    for day in (rules.valid_from, rules.valid_until):
        if day is not None and day.year not in YEARS:
            raise NotUnderstood("refused.day", first=YEARS[0], last=YEARS[-1])
    if rules.valid_from is not None and rules.valid_until is not None and rules.valid_until < rules.valid_from:
        raise NotUnderstood("refused.days_backwards")
    public_holidays.check_codes(rules.country, rules.subdivision)


def check_hours(hours: Sequence[WeeklyRange]) -> None:
    """Refuse ranges that run backwards, are not of whole minutes, or overlap on a weekday."""
    for hour in hours:
        _check_clocks(hour.starts, hour.ends)
        if not 0 <= hour.weekday <= 6:
            raise NotUnderstood("refused.hours_backwards")
    ordered = sorted(hours)
    for one, two in itertools.pairwise(ordered):
        if one.weekday == two.weekday and two.starts < one.ends:
            raise NotUnderstood("refused.hours_overlap")


def check_exception(exception: DatedException) -> None:
    """Refuse days and times that make no sense, whatever else is known of the supervisor."""
    if not {exception.first_on.year, exception.last_on.year} <= set(YEARS):
        raise NotUnderstood("refused.day", first=YEARS[0], last=YEARS[-1])
    if exception.last_on < exception.first_on:
        raise NotUnderstood("refused.days_backwards")
    if (exception.last_on - exception.first_on).days >= MOST_DAYS:
        raise NotUnderstood("refused.days_too_many", most=MOST_DAYS)
    if exception.starts is not None and exception.ends is not None:
        _check_clocks(exception.starts, exception.ends)
    elif exception.kind is Exceptional.EXTRA_HOURS or exception.starts != exception.ends:
        raise NotUnderstood("refused.extra_without_times")


def _check_clocks(starts: time, ends: time) -> None:
    if any(clock.second or clock.microsecond or clock.tzinfo is not None for clock in (starts, ends)):
        raise NotUnderstood("refused.whole_minutes")
    if starts >= ends:
        raise NotUnderstood("refused.hours_backwards")


def overlap(one: DatedException, other: DatedException) -> bool:
    """Whether two extra hours share a time of a day."""
    if other.kind is not Exceptional.EXTRA_HOURS or not _clocks_overlap(one, other):
        return False
    first, last = max(one.first_on, other.first_on), max(one.last_on, other.last_on)
    if one.yearly and other.yearly:
        last += 9 * timedelta(days=MOST_DAYS)  # in nine years every day comes, a 29 February too
    elif one.yearly != other.yearly:
        first, last = (one.first_on, one.last_on) if other.yearly else (other.first_on, other.last_on)
    spans = list(other.occurrences(first, last))
    return any(since <= end and start <= until for since, until in one.occurrences(first, last) for start, end in spans)


def _clocks_overlap(one: DatedException, other: DatedException) -> bool:
    if one.starts is None or one.ends is None or other.starts is None or other.ends is None:
        return True
    return one.starts < other.ends and other.starts < one.ends

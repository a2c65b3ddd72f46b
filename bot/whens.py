"""What day and time somebody means who said it as people do. Pure: the clock and the zone are given.

`phrases.read` makes a `When` of words, `resolve` makes instants of a `When`. What the words leave open stays open:
"às 3" is 03:00 and 15:00, "next tue" on a Monday two days, "ter" a whole day. Whoever calls `resolve` asks back.
"""

import itertools
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from supervision.errors import NotUnderstood, Refused, TooLate

DAY = 24 * 60  # minutes
A_DAY, A_MINUTE = timedelta(days=1), timedelta(minutes=1)
LONG_PAST = timedelta(days=180)
LONGEST_PERIOD = timedelta(days=120)  # from its first day to a last one whose year was not said


class Which(StrEnum):
    """Which of all the days of one name."""

    any = "any"
    this = "this"
    next = "next"
    of_this_week = "of_this_week"
    of_next_week = "of_next_week"


@dataclass(frozen=True)
class Date:
    """A day of the calendar; without a year the next such day is meant."""

    day: int
    month: int
    year: int | None = None


@dataclass(frozen=True)
class MonthDay:
    """The next such day of a month, or that of the month so many months ahead."""

    day: int
    ahead: int | None = None


@dataclass(frozen=True)
class Weekday:
    """0 is Monday."""

    number: int
    which: Which = Which.any


@dataclass(frozen=True)
class InDays:
    days: int


@dataclass(frozen=True)
class Week:
    """This week (0) or the next (1)."""

    ahead: int


@dataclass(frozen=True)
class Month:
    """1 to 12, the next such month where its year was not said."""

    number: int
    year: int | None = None


@dataclass(frozen=True)
class MonthAhead:
    """This month (0) or the next (1)."""

    ahead: int


Day = Date | MonthDay | Weekday | InDays | Week | Month | MonthAhead


@dataclass(frozen=True)
class Clock:
    """Minutes after midnight, 0 to 1440: one, or each that the words could mean, as written first."""

    minutes: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Starts within `[from, to)`, in minutes after midnight."""

    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class When:
    """What was said. `weekday` was named beside a date and has to be right; `instead` is a second way to read it."""

    day: Day | None = None
    time: Clock | Window | None = None
    weekday: int | None = None
    instead: "When | None" = None


@dataclass(frozen=True)
class Period:
    """Whole days as said, the last one included; a day alone, or a month, has no `last`."""

    first: When
    last: When | None = None


@dataclass(frozen=True)
class Times:
    """The instants that a day and a time can mean, ascending, in UTC; never none.

    `unsure` says that they differ in more than the half of the day: in their day, or because the clock shows that
    time twice. Then the person has to choose.
    """

    at: tuple[datetime, ...]
    unsure: bool = False


@dataclass(frozen=True)
class Ranges:
    """No one time was said: a start in one of these `[since, until)` fits, ascending, in UTC; never none."""

    ranges: tuple[tuple[datetime, datetime], ...]

    def fit(self, at: datetime) -> bool:
        return any(since <= at < until for since, until in self.ranges)


def resolve(when: When, now: datetime, zone: zoneinfo.ZoneInfo, *, ahead: int = 60) -> Times | Ranges:
    """What was said, at `now`, by somebody who lives in `zone`. Where no day was said, the `ahead` days to come.

    Raises NotUnderstood for a day or a time that does not exist, TooLate where all of it has passed.
    """
    found: list[Times | Ranges] = []
    refused: Refused | None = None
    for reading in (when, when.instead):
        if reading is not None:
            try:
                found.append(_resolve(reading, now, zone, ahead))
            except Refused as error:
                refused = refused or error
            except (ValueError, OverflowError):
                refused = refused or NotUnderstood("book.no_such_time")
    if refused is not None and not found:
        raise refused
    return found[0] if len(found) == 1 else _ranges(itertools.chain.from_iterable(_starts(one) for one in found))


def minute(at: datetime) -> tuple[datetime, datetime]:
    """The range in which only this start fits."""
    return at, at + A_MINUTE


def days_of(period: Period, today: date, *, longest: timedelta = LONGEST_PERIOD) -> tuple[date, date]:
    """The first and the last day of a period, as of `today`.

    A last day without a year comes after the first one, if need be in the next year; but where the nearest such day
    lies before the first and the next one more than `longest` behind it, the two were swapped or mistyped.
    Raises NotUnderstood for days that do not exist, run backwards, or can be more than one; TooLate for past ones.
    """
    try:
        first, ends = _one_reading(period.first, today)
        last = ends if period.last is None else _last_day(period.last, first, today, longest)
    except (ValueError, OverflowError) as error:
        raise NotUnderstood("period.no_such_day") from error
    if last < first:
        raise NotUnderstood("period.backwards")
    if last < today:
        raise TooLate("period.past")
    return first, last


def _one_reading(when: When, today: date) -> tuple[date, date]:
    readings = [] if when.day is None or isinstance(when.day, Week) else _days(when.day, today)
    if when.weekday is not None:
        readings = [days for days in readings if days[0].weekday() == when.weekday]
        if not readings:
            raise NotUnderstood("book.weekday_differs")
    if len(readings) != 1:
        raise NotUnderstood("period.unclear")
    return readings[0][0], readings[0][-1]


def _last_day(when: When, first: date, today: date, longest: timedelta) -> date:
    """The last day of a period: where its year, month or week was not said, the first such from its first day on."""
    match when.day:
        case Date(_, month, None) if when.weekday is None and month <= 12:
            return _plausible(_from_day_on(first, when.day), when, first, today, longest)
        case MonthDay(_, None):
            return _one_reading(when, first)[1]
        case Weekday(number, Which.any | Which.this) if when.weekday is None:
            return first + (number - first.weekday()) % 7 * A_DAY
        case Month():
            begins, ends = _one_reading(when, first)
            _plausible(begins, when, first, today, longest)
            return ends
        case _:
            return _one_reading(when, today)[1]


def _from_day_on(first: date, day: Date) -> date:
    """The first such day from another on, at most a year later. Raises ValueError where there is none."""
    existing = [_existing(first.year + ahead, day) for ahead in range(2)]
    if existing == [None, None]:
        raise ValueError(day)
    found = next((one for one in existing if one and one >= first), None)
    if found is None:
        raise NotUnderstood("period.backwards")
    return found


def _plausible(found: date, when: When, first: date, today: date, longest: timedelta) -> date:
    """The same day. Raises NotUnderstood where it is far off only because the nearest such day is before the first."""
    if found - first > longest and _one_reading(when, today)[1] < first:
        raise NotUnderstood("period.backwards")
    return found


def _resolve(when: When, now: datetime, zone: zoneinfo.ZoneInfo, ahead: int) -> Times | Ranges:
    today = now.astimezone(zone).date()
    readings = [_run(today, ahead + 1)] if when.day is None else _days(when.day, today)
    if when.weekday is not None:
        readings = [days for days in readings if days[0].weekday() == when.weekday]
        if not readings:
            raise NotUnderstood("book.weekday_differs")
    if isinstance(when.time, Clock) and all(len(days) == 1 for days in readings):
        return _times([days[0] for days in readings], when.time, now, zone)
    days = sorted({day for reading in readings for day in reading})
    starts = [one for day in days for one in _ranges_of(day, when.time, zone)]
    return _ranges((max(since, now), until) for since, until in starts if now < until)


def _times(days: Sequence[date], clock: Clock, now: datetime, zone: zoneinfo.ZoneInfo) -> Times:
    shown = {local: _instants(local, zone) for local in _locals(days, clock)}
    instants = sorted({instant for several in shown.values() for instant in several})
    if not instants:
        raise NotUnderstood("book.clock_skips")
    coming = [instant for instant in instants if instant > now] or instants
    twice = any(len(several) == 2 and several[0] in coming for several in shown.values())
    return Times(tuple(coming), twice or len({instant.astimezone(zone).date() for instant in coming}) > 1)


def _ranges(found: Iterable[tuple[datetime, datetime]]) -> Ranges:
    ranges = tuple(sorted(set(found)))
    if not ranges:
        raise TooLate("refused.slot_past")
    return Ranges(ranges)


def _starts(meant: Times | Ranges) -> Iterator[tuple[datetime, datetime]]:
    return map(minute, meant.at) if isinstance(meant, Times) else iter(meant.ranges)


def _ranges_of(day: date, time: Clock | Window | None, zone: zoneinfo.ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    if isinstance(time, Clock):
        yield from (minute(instant) for local in _locals([day], time) for instant in _instants(local, zone))
        return
    midnight = _midnight(day)
    for since, until in time.spans if time else ((0, DAY),):
        begins = _edge(midnight + since * A_MINUTE, zone, last=False)
        ends = _edge(midnight + until * A_MINUTE, zone, last=True)
        if begins < ends:
            yield begins, ends


def _days(day: Day, today: date) -> list[tuple[date, ...]]:
    """Each reading of a day, as the days it means; a week or a month means many at once."""
    match day:
        case Date():
            return [(_calendar_day(day, today),)]
        case MonthDay(number, ahead):
            return [(_day_of_month(number, ahead, today),)]
        case Weekday():
            return [(one,) for one in sorted(_weekdays(day, today))]
        case InDays(count):
            return [(today + count * A_DAY,)]
        case Week(ahead):
            begins = {today - today.weekday() * A_DAY, _sunday(today)}
            weeks = (_run(first + 7 * ahead * A_DAY, 7) for first in begins if ahead or first + 6 * A_DAY > today)
            return [tuple(sorted(set(itertools.chain.from_iterable(weeks))))]
        case Month(number, year):
            return [_month(date(year or today.year + (number < today.month), number, 1))]
        case MonthAhead(ahead):
            years, month = divmod(today.month - 1 + ahead, 12)
            return [_month(date(today.year + years, month + 1, 1))]


def _month(first: date) -> tuple[date, ...]:
    return tuple(one for one in _run(first, 31) if one.month == first.month)


def _weekdays(day: Weekday, today: date) -> set[date]:
    """The days that a weekday can mean. Weeks begin on Monday to some and on Sunday to others."""
    first = today + (day.number - today.weekday()) % 7 * A_DAY
    monday, sunday = today - today.weekday() * A_DAY, _sunday(today)
    of_next_week = {monday + (7 + day.number) * A_DAY, sunday + (7 + (day.number + 1) % 7) * A_DAY}
    match day.which:
        case Which.any:
            return {first, first + 7 * A_DAY} if first == today else {first}
        case Which.this:
            return {first}
        case Which.next:
            return {first} | of_next_week
        case Which.of_this_week:
            of_this_week = {one - 7 * A_DAY for one in of_next_week}
            return {one for one in of_this_week if one >= today} or of_this_week
        case Which.of_next_week:
            return of_next_week


def _sunday(today: date) -> date:
    """The Sunday that today's week begins with, to those whose week begins so."""
    return today - (today.weekday() + 1) % 7 * A_DAY


def _calendar_day(day: Date, today: date) -> date:
    """Without a year the nearest to today or to come. Raises ValueError where there is none."""
    if day.year is None and day.day <= 12 < day.month <= 31:
        raise NotUnderstood("book.day_first")
    if day.year is not None:
        return date(day.year, day.month, day.day)
    this_year = _existing(today.year, day)
    if this_year is not None and this_year >= today - LONG_PAST:
        return this_year
    return date(today.year + 1, day.month, day.day)


def _existing(year: int, day: Date) -> date | None:
    try:
        return date(year, day.month, day.day)
    except ValueError:
        return None


def _day_of_month(number: int, ahead: int | None, today: date) -> date:
    """The next such day, or that of a month. Raises ValueError where there is none."""
    for months in (ahead,) if ahead is not None else range(3):
        years, month = divmod(today.month - 1 + months, 12)
        found = _existing(today.year + years, Date(number, month + 1))
        if found is not None and (ahead is not None or found >= today):
            return found
    raise ValueError(number)


def _run(first: date, count: int) -> tuple[date, ...]:
    return tuple(first + number * A_DAY for number in range(count))


def _midnight(day: date) -> datetime:
    """A wall clock, of no zone yet."""
    return datetime.combine(day, time())


def _locals(days: Iterable[date], clock: Clock) -> list[datetime]:
    return [_midnight(day) + minutes * A_MINUTE for day in days for minutes in clock.minutes]


def _instants(local: datetime, zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """When a wall clock shows that: never in the hour it jumps over, twice in the hour it repeats (PEP 495)."""
    both = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(instant for instant in both if instant.astimezone(zone).replace(tzinfo=None) == local)


def _edge(local: datetime, zone: zoneinfo.ZoneInfo, *, last: bool) -> datetime:
    """A wall-clock time as the edge of a range: what is jumped over is left out, what is repeated belongs to it."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return max(first, second) if last else first

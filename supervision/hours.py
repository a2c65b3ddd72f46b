"""Hours: when a supervisor says she can be booked, and the slots that follow from it; pure, no table is looked at."""

import functools
import secrets
import uuid
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from supervision import public_holidays
from supervision.errors import NotFound, NotUnderstood, TooLate, TooSoon
from supervision.models import Approval, Exceptional, Mode
from supervision.pairs import Pair

ROOM = "{room}"  # in a place: each appointment gets a name of its own there
ONE_DAY = timedelta(days=1)
MIDNIGHT = time(0)
ClockRange = tuple[time, time]


@dataclass(frozen=True, order=True)
class WeeklyRange:
    """Wall-clock times in the supervisor's zone; weekday 0 is Monday."""

    weekday: int
    starts: time
    ends: time


@dataclass(frozen=True)
class DatedException:
    """Days, both inclusive, on which the weekly hours do not say it all, in the supervisor's zone.

    Time off without times takes whole days. With times, each of the days has that range. `yearly` repeats the same
    days in every later year; a 29 February is only in the years that have one.
    """

    id: uuid.UUID
    kind: Exceptional
    first_on: date
    last_on: date
    starts: time | None = None
    ends: time | None = None
    yearly: bool = False

    def occurrences(self, first: date, last: date) -> Iterator[tuple[date, date]]:
        """The ranges of days, within `first` to `last`, that it takes; all inclusive."""
        if not self.yearly:
            spans = [(self.first_on, self.last_on)]
        else:
            longer = self.last_on.year - self.first_on.year
            years = range(max(self.first_on.year, first.year - longer), last.year + 1)
            spans = [(_in_year(self.first_on, year, 1), _in_year(self.last_on, year + longer, 0)) for year in years]
        for one, other in spans:
            if max(one, first) <= min(other, last):
                yield max(one, first), min(other, last)


def _in_year(day: date, year: int, after: int) -> date:
    """The same day of another year. Where that has no 29 February: the day before, or `after` 1 the day after it."""
    try:
        return day.replace(year=year)
    except ValueError:
        return date(year, 2, 28) + timedelta(days=after)


@dataclass(frozen=True)
class Availability:
    """Lengths, grid, buffers, notices, `answer` and `offer` in minutes, horizon in days.

    `cancel_notice` is how long before an appointment a supervisee cancels without it being late, `move_notice` how
    long before it they may still ask to move it. `answer` is how long a request or proposal stays open, `offer` an
    offer from the waiting list. `day_limit` and `week_limit` are appointments. The weekly hours hold from `valid_from`
    to `valid_until`, both inclusive, and not on the public holidays of `country` and `subdivision` (ISO 3166, as the
    package `holidays` has them).
    """

    hours: tuple[WeeklyRange, ...]
    length: int = 50
    grid: int = 60
    buffer_before: int = 0
    buffer_after: int = 10
    notice: int = 120
    horizon: int = 60
    mode: Mode = Mode.ONLINE
    place: str = ""
    cancel_notice: int = 1440
    move_notice: int = 120
    day_limit: int | None = None
    week_limit: int | None = None
    approval: Approval = Approval.ASK
    answer: int = 2880
    offer: int = 240
    valid_from: date | None = None
    valid_until: date | None = None
    country: str | None = None
    subdivision: str | None = None
    exceptions: tuple[DatedException, ...] = ()

    def held(self, starts_at: datetime, ends_at: datetime) -> tuple[datetime, datetime]:
        """What an appointment takes of the supervisor's time, buffers included."""
        return (
            starts_at - timedelta(minutes=self.buffer_before),
            ends_at + timedelta(minutes=self.buffer_after),
        )


@dataclass(frozen=True)
class Slot:
    """A bookable range `[starts_at, ends_at)` in UTC."""

    starts_at: datetime
    ends_at: datetime


def to_instant(day: date, clock: time, zone: zoneinfo.ZoneInfo) -> datetime | None:
    """The UTC instant of a wall-clock time: None where the clock jumps over it, the first of two where it repeats."""
    local = datetime.combine(day, clock, tzinfo=zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        return None
    return instant


def offered(
    rules: Availability, zone: zoneinfo.ZoneInfo, since: datetime, until: datetime, length: int | None = None
) -> Iterator[Slot]:
    """Every slot that the hours give with a start in `[since, until)`, busy or not, in ascending order.

    `length` is in minutes; the rules' own where it is None.
    """
    minutes = rules.length if length is None else length
    lasts = timedelta(minutes=minutes)
    for starts_at in offered_starts(rules, zone, since, until, minutes):
        yield Slot(starts_at, starts_at + lasts)


def offered_starts(
    rules: Availability, zone: zoneinfo.ZoneInfo, since: datetime, until: datetime, minutes: int
) -> Iterator[datetime]:
    """The starts alone of what `offered` gives, for slots of so many minutes."""
    day, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    exceptional = _by_day(rules.exceptions, day, last)
    while day <= last:
        ranges, off = _ranges_on(rules, day, exceptional.get(day, ()))
        if ranges:
            if is_steady(day, zone):
                found = _steady_starts(day, ranges, off, zone, rules.grid, minutes)
            else:
                found = careful_starts(day, ranges, off, zone, rules.grid, minutes)
            if found and since <= found[0] and found[-1] < until:
                yield from found
            else:
                yield from (starts_at for starts_at in found if since <= starts_at < until)
        day += ONE_DAY


def _by_day(exceptions: Sequence[DatedException], first: date, last: date) -> Mapping[date, Sequence[DatedException]]:
    """The exceptions of each day from `first` to `last` that has any."""
    found: dict[date, list[DatedException]] = {}
    for exception in exceptions:
        for day, until in exception.occurrences(first, last):
            while day <= until:
                found.setdefault(day, []).append(exception)
                day += ONE_DAY
    return found


def _ranges_on(
    rules: Availability, day: date, exceptions: Sequence[DatedException]
) -> tuple[tuple[ClockRange, ...], tuple[ClockRange, ...]]:
    """The clock ranges in which a day can be booked, and those that are taken out of them."""
    ranges: list[ClockRange] = []
    if _weekly_hours_hold(rules, day):
        weekday = day.weekday()
        ranges = [(hours.starts, hours.ends) for hours in rules.hours if hours.weekday == weekday]
    off: list[ClockRange] = []
    for one in exceptions:
        if one.starts is None or one.ends is None:
            return (), ()
        (off if one.kind is Exceptional.TIME_OFF else ranges).append((one.starts, one.ends))
    return tuple(ranges), tuple(off)


def _weekly_hours_hold(rules: Availability, day: date) -> bool:
    if rules.valid_from is not None and day < rules.valid_from:
        return False
    if rules.valid_until is not None and day > rules.valid_until:
        return False
    return rules.country is None or day not in public_holidays.of_year(rules.country, rules.subdivision, day.year)


def is_steady(day: date, zone: zoneinfo.ZoneInfo) -> bool:
    """Whether the zone's clock runs through a whole day without a change, so that plain arithmetic is right.

    The later reading of the next midnight (PEP 495) tells a change that begins before it, too.
    """
    morning = datetime.combine(day, MIDNIGHT, tzinfo=zone)
    night = datetime.combine(day + ONE_DAY, MIDNIGHT, tzinfo=zone).replace(fold=1)
    return morning.utcoffset() == night.utcoffset()


def _steady_starts(
    day: date,
    ranges: tuple[ClockRange, ...],
    off: tuple[ClockRange, ...],
    zone: zoneinfo.ZoneInfo,
    grid: int,
    minutes: int,
) -> list[datetime]:
    midnight = datetime.combine(day, MIDNIGHT, tzinfo=zone).astimezone(UTC)
    return [midnight + passed for passed in _since_midnight(ranges, off, grid, minutes)]


@functools.lru_cache(maxsize=4096)
def _since_midnight(
    ranges: tuple[ClockRange, ...], off: tuple[ClockRange, ...], grid: int, minutes: int
) -> tuple[timedelta, ...]:
    """The starts of a steady day, ascending."""
    taken = [(_minute(starts), _minute(ends)) for starts, ends in off]
    found = {
        minute
        for starts, ends in ranges
        for minute in range(_minute(starts), _minute(ends) - minutes + 1, grid)
        if not any(since < minute + minutes and minute < until for since, until in taken)
    }
    return tuple(timedelta(minutes=minute) for minute in sorted(found))


def careful_starts(
    day: date,
    ranges: tuple[ClockRange, ...],
    off: tuple[ClockRange, ...],
    zone: zoneinfo.ZoneInfo,
    grid: int,
    minutes: int,
) -> list[datetime]:
    """The starts of any day, ascending, each wall-clock time read for itself."""
    lasts = timedelta(minutes=minutes)
    taken = [(existing(day, starts, zone, fold=0), existing(day, ends, zone, fold=1)) for starts, ends in off]
    found: set[datetime] = set()
    for starts, ends in ranges:
        end = _end_instant(day, ends, zone)
        for minute in range(_minute(starts), _minute(ends), grid):
            starts_at = to_instant(day, time(minute // 60, minute % 60), zone)
            if starts_at is None or starts_at + lasts > end:
                continue
            if not any(since < starts_at + lasts and starts_at < until for since, until in taken):
                found.add(starts_at)
    return sorted(found)


def _minute(clock: time) -> int:
    return clock.hour * 60 + clock.minute


def _end_instant(day: date, clock: time, zone: zoneinfo.ZoneInfo) -> datetime:
    """The end of a range: where the clock jumps over it or repeats it, the later reading, so no slot is cut twice.

    In a gap that is the reading with fold 0, in a repeated hour the one with fold 1 (PEP 495).
    """
    local = datetime.combine(day, clock, tzinfo=zone)
    return max(local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


def existing(day: date, clock: time, zone: zoneinfo.ZoneInfo, *, fold: int) -> datetime:
    """The instant of a wall-clock time, in a gap that of the gap's end; `fold` says which of two where it repeats."""
    local = datetime.combine(day, clock).replace(fold=fold)
    while True:
        instant = local.replace(tzinfo=zone).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == local:
            return instant
        local += timedelta(minutes=1)


def check_bookable(
    rules: Availability,
    zone: zoneinfo.ZoneInfo,
    starts_at: datetime,
    *,
    now: datetime,
    length: int | None = None,
) -> Slot:
    """The slot that starts then, of `length` minutes or the rules' own.

    Refused if it is past, too near, too far, or not within the offered hours.
    """
    if starts_at <= now:
        raise TooLate("refused.slot_past")
    if starts_at < now + timedelta(minutes=rules.notice):
        raise TooSoon("refused.too_soon", minutes=rules.notice)
    if starts_at >= now + timedelta(days=rules.horizon):
        raise NotUnderstood("refused.beyond_horizon", days=rules.horizon)
    for slot in offered(rules, zone, starts_at, starts_at + timedelta(microseconds=1), length):
        return slot
    raise NotFound("refused.slot_not_offered")


def lengths_of(pair: Pair, rules: Availability) -> tuple[int, ...]:
    """The lengths, in minutes, that a pair can book; the first is meant where none is named."""
    return pair.lengths or (rules.length,)


def check_length(pair: Pair, rules: Availability, length: int | None) -> int:
    """The length that is meant, in minutes. Refused if it is not one of the pair's."""
    lengths = lengths_of(pair, rules)
    if length is None:
        return lengths[0]
    if length not in lengths:
        raise NotUnderstood("refused.length", lengths=", ".join(map(str, lengths)))
    return length


def place_for(rules: Availability) -> str:
    """Where an appointment takes place: a `{room}` in the rules' place becomes a name of 128 random bits."""
    return rules.place.replace(ROOM, secrets.token_hex(16)) if ROOM in rules.place else rules.place

"""When a supervisor can be booked: her weekly hours, exceptions and rules, and the slots they give."""

import asyncio
import functools
import itertools
import re
import secrets
import uuid
import warnings
import zoneinfo
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import structlog
from sqlalchemy import JSON, bindparam, delete, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert

from supervision import audit
from supervision.audit import Actor
from supervision.db import Ready, Transaction
from supervision.errors import NotAllowed, NotFound, NotUnderstood, SlotTaken, TooLate, TooSoon
from supervision.models import Approval, Exceptional, Mode, availabilities, dated_exceptions, weekly_hours
from supervision.pairs import Pair
from supervision.people import Person, has_controls

ROOM = "{room}"  # in a place: each appointment gets a name of its own there
YEARS = range(2000, 2900)
MOST_DAYS = 366
MOST_EXCEPTIONS = 500
MOST_PLACE = 500
ONE_DAY = timedelta(days=1)
MIDNIGHT = time(0)

log = structlog.get_logger()

Range = tuple[datetime, datetime]
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


@dataclass(frozen=True)
class Busy:
    """Held ranges of one person, as (start, end) in ascending order; no two of them overlap."""

    ranges: Sequence[Range] = field(default_factory=tuple)

    @functools.cached_property
    def starts(self) -> list[datetime]:
        return [start for start, _ in self.ranges]

    def overlaps(self, starts_at: datetime, ends_at: datetime) -> bool:
        before = bisect_left(self.starts, ends_at)
        return before > 0 and self.ranges[before - 1][1] > starts_at


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
    for starts_at in _starts(rules, zone, since, until, minutes):
        yield Slot(starts_at, starts_at + lasts)


def _starts(
    rules: Availability, zone: zoneinfo.ZoneInfo, since: datetime, until: datetime, minutes: int
) -> Iterator[datetime]:
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
    return rules.country is None or day not in public_holidays(rules.country, rules.subdivision, day.year)


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
    taken = [(_existing(day, starts, zone, fold=0), _existing(day, ends, zone, fold=1)) for starts, ends in off]
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


def _existing(day: date, clock: time, zone: zoneinfo.ZoneInfo, *, fold: int) -> datetime:
    """The instant of a wall-clock time, in a gap that of the gap's end; `fold` says which of two where it repeats."""
    local = datetime.combine(day, clock).replace(fold=fold)
    while True:
        instant = local.replace(tzinfo=zone).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == local:
            return instant
        local += timedelta(minutes=1)


def _in_year(day: date, year: int, after: int) -> date:
    """The same day of another year. Where that has no 29 February: the day before, or `after` 1 the day after it."""
    try:
        return day.replace(year=year)
    except ValueError:
        return date(year, 2, 28) + timedelta(days=after)


@functools.lru_cache(maxsize=2048)
def public_holidays(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    """The public holidays of a year. Codes that the installed package does not know (any more) give none."""
    import holidays  # see open_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some calendars warn that far years are estimates
        try:
            return frozenset(holidays.country_holidays(country, subdiv=subdivision, years=year))
        except NotImplementedError:
            log.warning("availability.holidays_unknown", country=country)
            return frozenset()


async def open_calendars() -> None:
    """Load all calendars, once in a process: it takes about a second, which nobody else should wait for."""
    if public_holidays.cache_info().currsize == 0:
        await asyncio.to_thread(public_holidays, "BR", None, YEARS[0])


@functools.cache
def _subdivisions() -> Mapping[str, Sequence[str]]:
    """The subdivisions of every country whose holidays are known, by its two letters (ISO 3166-1)."""
    import holidays

    known = holidays.list_supported_countries(include_aliases=False)
    return {country: tuple(parts) for country, parts in known.items() if len(country) == 2}


def check_holidays(country: str | None, subdivision: str | None) -> tuple[str | None, str | None]:
    """The codes as the package writes them, whatever their case. Refused, with a few that exist, if it has none."""
    if country is None and subdivision is None:
        return None, None
    countries = {one.casefold(): one for one in _subdivisions()}
    found = countries.get((country or "").casefold())
    if found is None:
        some = [one for one in ("AR", "BR", "DE", "ES", "GB", "PT", "US") if one in _subdivisions()]
        raise NotUnderstood("refused.holidays", given=country or subdivision, known=", ".join(some))
    if subdivision is None:
        return found, None
    parts = {one.casefold(): one for one in _subdivisions()[found]}
    part = parts.get(subdivision.casefold())
    if part is None:
        some = list(_subdivisions()[found][:8]) or [found]
        raise NotUnderstood("refused.holidays", given=f"{found} {subdivision}", known=", ".join(some))
    return found, part


COLUMNS = {
    "length": availabilities.c.length_minutes,
    "grid": availabilities.c.grid_minutes,
    "buffer_before": availabilities.c.buffer_before_minutes,
    "buffer_after": availabilities.c.buffer_after_minutes,
    "notice": availabilities.c.notice_minutes,
    "horizon": availabilities.c.horizon_days,
    "mode": availabilities.c.mode,
    "place": availabilities.c.place,
    "cancel_notice": availabilities.c.cancel_notice_minutes,
    "move_notice": availabilities.c.move_notice_minutes,
    "day_limit": availabilities.c.day_limit,
    "week_limit": availabilities.c.week_limit,
    "approval": availabilities.c.approval,
    "answer": availabilities.c.answer_minutes,
    "offer": availabilities.c.offer_minutes,
    "valid_from": availabilities.c.valid_from,
    "valid_until": availabilities.c.valid_until,
    "country": availabilities.c.country,
    "subdivision": availabilities.c.subdivision,
}
HOURS_AS_JSON = """(
    SELECT json_agg(json_build_array(weekday, starts, ends) ORDER BY weekday, starts)
    FROM weekly_hours WHERE weekly_hours.supervisor_id = availabilities.supervisor_id
)"""
EXCEPTIONS_AS_JSON = """(
    SELECT json_agg(json_build_array(id, kind, first_on, last_on, starts, ends, yearly) ORDER BY first_on, starts, id)
    FROM dated_exceptions WHERE dated_exceptions.supervisor_id = availabilities.supervisor_id
)"""
LOAD = Ready(
    select(*COLUMNS.values(), literal_column(HOURS_AS_JSON, JSON), literal_column(EXCEPTIONS_AS_JSON, JSON)).where(
        availabilities.c.supervisor_id == bindparam("supervisor_id")
    )
)


async def load(tx: Transaction, supervisor_id: uuid.UUID) -> Availability:
    """A supervisor's rules, weekly hours and exceptions. Raises NotFound if she has not set any."""
    rows = await LOAD.fetch(tx, {"supervisor_id": supervisor_id})
    if not rows:
        raise NotFound("refused.no_availability")
    *rules, hours, exceptions = rows[0]
    values = dict(zip(COLUMNS, rules, strict=True))
    values |= {"mode": Mode(values["mode"]), "approval": Approval(values["approval"])}
    if values["country"] is not None:
        await open_calendars()
    return Availability(_hours(hours), exceptions=_exceptions(exceptions), **values)


def _hours(found: Sequence[Sequence[Any]] | None) -> tuple[WeeklyRange, ...]:
    return tuple(
        WeeklyRange(weekday, time.fromisoformat(starts), time.fromisoformat(ends))
        for weekday, starts, ends in found or ()
    )


def _exceptions(found: Sequence[Sequence[Any]] | None) -> tuple[DatedException, ...]:
    return tuple(
        DatedException(
            uuid.UUID(identifier),
            Exceptional(kind),
            date.fromisoformat(first_on),
            date.fromisoformat(last_on),
            None if starts is None else time.fromisoformat(starts),
            None if ends is None else time.fromisoformat(ends),
            yearly,
        )
        for identifier, kind, first_on, last_on, starts, ends, yearly in found or ()
    )


async def save(tx: Transaction, actor: Actor, supervisor_id: uuid.UUID, rules: Availability, *, now: datetime) -> None:
    """Replace a supervisor's rules and weekly hours; her exceptions stay as they are.

    Only she herself may, or the operator. Refused if two ranges of a day overlap or one runs backwards, and for
    whatever else makes no sense.
    """
    require_own(actor, supervisor_id)
    if rules.country is not None:
        await open_calendars()
    check_hours(rules.hours)
    check_rules(rules)
    values = {column.name: getattr(rules, name) for name, column in COLUMNS.items()}
    values["supervisor_id"] = supervisor_id
    await tx.execute(
        insert(availabilities).values(**values).on_conflict_do_update(index_elements=["supervisor_id"], set_=values)
    )
    await tx.execute(delete(weekly_hours).where(weekly_hours.c.supervisor_id == supervisor_id))
    if rules.hours:
        rows = [
            {"supervisor_id": supervisor_id, "weekday": r.weekday, "starts": r.starts, "ends": r.ends}
            for r in rules.hours
        ]
        await tx.execute(insert(weekly_hours), rows)
    await audit.record(tx, actor, "availability.save", "person", supervisor_id, now=now)


async def add_exception(
    tx: Transaction, actor: Actor, supervisor_id: uuid.UUID, exception: DatedException, *, now: datetime
) -> DatedException:
    """Add time off or extra hours, under the ID that the exception brings. What is booked stays as it is.

    Only she herself may, or the operator. Raises NotFound for somebody without rules, NotUnderstood for days or times
    that make no sense, extra hours that overlap others, and the 501st exception.
    """
    require_own(actor, supervisor_id)
    check_exception(exception)
    # one at a time for each supervisor: two that overlap could not see each other
    lock = select(availabilities.c.supervisor_id).where(availabilities.c.supervisor_id == supervisor_id)
    await tx.execute(lock.with_for_update(key_share=True))
    known = (await load(tx, supervisor_id)).exceptions
    if len(known) >= MOST_EXCEPTIONS:
        raise NotUnderstood("refused.exceptions_too_many", most=MOST_EXCEPTIONS)
    if exception.kind is Exceptional.EXTRA_HOURS and any(_overlap(exception, other) for other in known):
        raise NotUnderstood("refused.hours_overlap")
    await tx.execute(
        insert(dated_exceptions).values(
            id=exception.id,
            supervisor_id=supervisor_id,
            kind=exception.kind,
            first_on=exception.first_on,
            last_on=exception.last_on,
            starts=exception.starts,
            ends=exception.ends,
            yearly=exception.yearly,
            created_at=now,
        )
    )
    await audit.record(tx, actor, "availability.add_exception", "person", supervisor_id, now=now)
    return exception


async def remove_exception(
    tx: Transaction, actor: Actor, supervisor_id: uuid.UUID, exception_id: uuid.UUID, *, now: datetime
) -> None:
    """Take an exception back. Raises NotFound for one that is not hers."""
    require_own(actor, supervisor_id)
    removed = await tx.execute(
        delete(dated_exceptions).where(
            dated_exceptions.c.id == exception_id, dated_exceptions.c.supervisor_id == supervisor_id
        )
    )
    if removed.rowcount == 0:
        raise NotFound("refused.exception_not_found")
    await audit.record(tx, actor, "availability.remove_exception", "person", supervisor_id, now=now)


def _overlap(one: DatedException, other: DatedException) -> bool:
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


async def slots(
    tx: Transaction,
    pair: Pair,
    *,
    since: datetime,
    until: datetime,
    now: datetime,
    most: int | None = None,
    moving: uuid.UUID | None = None,
    length: int | None = None,
) -> list[Slot]:
    """What this pair can book with a start in `[since, until)`: within notice, horizon and limits, free for both.

    `moving` is an appointment whose own time counts as free. `length` is one of the pair's, in minutes; without it
    their first is meant. Raises NotUnderstood for another.
    """
    rules = await load(tx, pair.supervisor.id)
    minutes = check_length(pair, rules, length)
    since = max(since, now + timedelta(minutes=rules.notice))
    until = min(until, now + timedelta(days=rules.horizon))
    if since >= until:
        return []
    zone = pair.supervisor.zone
    busy = await busy_times(tx, [p.id for p in pair.people], since, until, moving=moving)
    taken = _taken(rules, busy[pair.supervisor.id], busy[pair.supervisee.id])
    is_full = await _fullness(tx, rules, pair.supervisor, since, until, moving)
    lasts = timedelta(minutes=minutes)
    free: list[Slot] = []
    place, count = 0, len(taken)
    for starts_at in _starts(rules, zone, since, until, minutes):
        ends_at = starts_at + lasts
        while place < count and taken[place][1] <= starts_at:
            place += 1
        if place < count and taken[place][0] < ends_at:
            continue
        if is_full is not None and is_full(starts_at) is not None:
            continue
        free.append(Slot(starts_at, ends_at))
        if len(free) == most:
            break
    return free


def _taken(rules: Availability, supervisor: Busy, supervisee: Busy) -> list[Range]:
    """When no appointment can be: what is held of either, the supervisor's widened by the buffers it would need."""
    before, after = timedelta(minutes=rules.buffer_before), timedelta(minutes=rules.buffer_after)
    return merge([*((start - after, end + before) for start, end in supervisor.ranges), *supervisee.ranges])


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same time as ascending ranges that do not touch."""
    merged: list[Range] = []
    last: datetime | None = None
    for start, end in sorted(ranges):
        if last is None or start > last:
            merged.append((start, end))
            last = end
        elif end > last:
            merged[-1] = merged[-1][0], end
            last = end
    return merged


BUSY = Ready(
    text(
        """
    SELECT person_id, array_agg(lower(during) ORDER BY during), array_agg(upper(during) ORDER BY during) FROM holds
    WHERE person_id = ANY(CAST(:people AS uuid[])) AND during && tstzrange(:since, :until, '[)')
        AND (CAST(:moving AS uuid) IS NULL OR appointment_id IS DISTINCT FROM :moving)
    GROUP BY person_id
    """
    )
)


async def busy_times(
    tx: Transaction,
    person_ids: Sequence[uuid.UUID],
    since: datetime,
    until: datetime,
    *,
    moving: uuid.UUID | None = None,
) -> dict[uuid.UUID, Busy]:
    """What is held of each person's time around `[since, until)`, a day more on either side."""
    around = {"since": since - ONE_DAY, "until": until + ONE_DAY}
    rows = await BUSY.fetch(tx, {"people": list(person_ids), "moving": moving, **around})
    found = {person_id: Busy(tuple(zip(starts, ends, strict=True))) for person_id, starts, ends in rows}
    return {person: found.get(person, Busy()) for person in person_ids}


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


COUNTED = text(
    """
    SELECT id, starts_at FROM appointments
    WHERE supervisor_id = :supervisor_id AND starts_at >= :since AND starts_at < :until
        AND status IN ('requested', 'confirmed', 'completed', 'no_show')
        AND id IS DISTINCT FROM CAST(:moving AS uuid)
    UNION ALL
    SELECT id, proposed_starts_at FROM appointments
    WHERE supervisor_id = :supervisor_id AND proposal_id IS NOT NULL
        AND proposed_starts_at >= :since AND proposed_starts_at < :until
        AND status IN ('requested', 'confirmed')
        AND id IS DISTINCT FROM CAST(:moving AS uuid)
    UNION ALL
    SELECT id, offered_starts_at FROM waits
    WHERE supervisor_id = :supervisor_id AND ended_at IS NULL
        AND offered_starts_at >= :since AND offered_starts_at < :until
    """
)


async def check_limits(
    tx: Transaction,
    rules: Availability,
    supervisor: Person,
    starts_at: datetime,
    *,
    moving: uuid.UUID | None = None,
) -> None:
    """Raise SlotTaken if the supervisor takes no more appointments on that day or in that ISO week of her zone.

    `moving` is an appointment that does not count.
    """
    is_full = await _fullness(tx, rules, supervisor, starts_at, starts_at + timedelta(microseconds=1), moving)
    key = None if is_full is None else is_full(starts_at)
    if key == "refused.day_full":
        raise SlotTaken(key, most=rules.day_limit)
    if key == "refused.week_full":
        raise SlotTaken(key, most=rules.week_limit)


async def _fullness(
    tx: Transaction,
    rules: Availability,
    supervisor: Person,
    since: datetime,
    until: datetime,
    moving: uuid.UUID | None,
) -> Callable[[datetime], str | None] | None:
    """What says why a start in `[since, until)` is on a full day or in a full week; None where there is no limit.

    An appointment with an open proposal counts where it is and where it would be, but once a day and week.
    """
    if rules.day_limit is None and rules.week_limit is None:
        return None
    zone = supervisor.zone
    around = {"since": since - 8 * ONE_DAY, "until": until + 8 * ONE_DAY}  # whole weeks, whatever the zone
    rows = await tx.execute(COUNTED, {"supervisor_id": supervisor.id, "moving": moving, **around})
    found = [(identifier, starts_at.astimezone(zone).date()) for identifier, starts_at in rows]
    days = Counter(day for _, day in set(found))
    weeks = Counter(week for _, week in {(identifier, _week(day)) for identifier, day in found})

    def is_full(starts_at: datetime) -> str | None:
        day = starts_at.astimezone(zone).date()
        if rules.day_limit is not None and days[day] >= rules.day_limit:
            return "refused.day_full"
        if rules.week_limit is not None and weeks[_week(day)] >= rules.week_limit:
            return "refused.week_full"
        return None

    return is_full


def _week(day: date) -> tuple[int, int]:
    """The ISO week (ISO 8601: Monday to Sunday)."""
    year, week, _ = day.isocalendar()
    return year, week


WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? (\d\d):(\d\d)-(\d\d):(\d\d)")
EXCEPTION = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.\.(\d{4}-\d\d-\d\d))?(?: (\d\d:\d\d)-(\d\d:\d\d))?", re.ASCII)


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
    check_holidays(rules.country, rules.subdivision)


def check_hours(hours: Sequence[WeeklyRange]) -> None:
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


def require_own(actor: Actor, supervisor_id: uuid.UUID) -> None:
    """Raise NotAllowed unless it is she herself, the operator or the system who acts."""
    if actor.person_id is not None and actor.person_id != supervisor_id:
        raise NotAllowed("refused.supervisor_settles")

"""When a supervisor can be booked: her weekly hours and rules, and the slots they give."""

import itertools
import re
import uuid
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from supervision import audit
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, TooLate, TooSoon
from supervision.models import Mode, availabilities, weekly_hours
from supervision.pairs import Pair
from supervision.people import has_controls


@dataclass(frozen=True, order=True)
class WeeklyRange:
    """Wall-clock times in the supervisor's zone; weekday 0 is Monday."""

    weekday: int
    starts: time
    ends: time


@dataclass(frozen=True)
class Availability:
    """Lengths, grid, buffers and notice in minutes, horizon in days."""

    hours: tuple[WeeklyRange, ...]
    length: int = 50
    grid: int = 60
    buffer_before: int = 0
    buffer_after: int = 10
    notice: int = 120
    horizon: int = 60
    mode: Mode = Mode.ONLINE
    place: str = ""

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
    """Held ranges of one person, as (start, end) in ascending order."""

    ranges: Sequence[tuple[datetime, datetime]] = field(default_factory=tuple)

    def overlaps(self, starts_at: datetime, ends_at: datetime) -> bool:
        return any(start < ends_at and starts_at < end for start, end in self.ranges)


def to_instant(day: date, clock: time, zone: zoneinfo.ZoneInfo) -> datetime | None:
    """The UTC instant of a wall-clock time: None where the clock jumps over it, the first of two where it repeats."""
    local = datetime.combine(day, clock, tzinfo=zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        return None
    return instant


def offered(rules: Availability, zone: zoneinfo.ZoneInfo, since: datetime, until: datetime) -> Iterator[Slot]:
    """Every slot that the weekly hours give with a start in `[since, until)`, busy or not, in ascending order."""
    length = timedelta(minutes=rules.length)
    day = since.astimezone(zone).date()
    last = until.astimezone(zone).date()
    while day <= last:
        for hours in sorted(rules.hours):
            if hours.weekday != day.weekday():
                continue
            end = _end_instant(day, hours.ends, zone)
            for clock in _grid(hours, rules.grid):
                starts_at = to_instant(day, clock, zone)
                if starts_at is None or starts_at + length > end or not since <= starts_at < until:
                    continue
                yield Slot(starts_at, starts_at + length)
        day += timedelta(days=1)


LOAD = (
    select(availabilities, weekly_hours.c.weekday, weekly_hours.c.starts, weekly_hours.c.ends)
    .outerjoin(weekly_hours, weekly_hours.c.supervisor_id == availabilities.c.supervisor_id)
    .where(availabilities.c.supervisor_id == bindparam("supervisor_id"))
)


async def load(tx: Transaction, supervisor_id: uuid.UUID) -> Availability:
    """A supervisor's rules. Raises NotFound if she has not set any."""
    rows = (await tx.execute(LOAD, {"supervisor_id": supervisor_id})).all()
    if not rows:
        raise NotFound("refused.no_availability")
    rules = rows[0]
    return Availability(
        tuple(WeeklyRange(row.weekday, row.starts, row.ends) for row in rows if row.starts is not None),
        rules.length_minutes,
        rules.grid_minutes,
        rules.buffer_before_minutes,
        rules.buffer_after_minutes,
        rules.notice_minutes,
        rules.horizon_days,
        Mode(rules.mode),
        rules.place,
    )


async def save(tx: Transaction, actor: Actor, supervisor_id: uuid.UUID, rules: Availability, *, now: datetime) -> None:
    """Replace a supervisor's rules. Refused if two ranges of a day overlap or one runs backwards."""
    check_hours(rules.hours)
    check_rules(rules)
    values = {
        "supervisor_id": supervisor_id,
        "length_minutes": rules.length,
        "grid_minutes": rules.grid,
        "buffer_before_minutes": rules.buffer_before,
        "buffer_after_minutes": rules.buffer_after,
        "notice_minutes": rules.notice,
        "horizon_days": rules.horizon,
        "mode": rules.mode,
        "place": rules.place,
    }
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


async def slots(
    tx: Transaction,
    pair: Pair,
    *,
    since: datetime,
    until: datetime,
    now: datetime,
    most: int | None = None,
    moving: uuid.UUID | None = None,
) -> list[Slot]:
    """What this pair can book with a start in `[since, until)`: within notice and horizon, free for both.

    `moving` is an appointment whose own time counts as free.
    """
    rules = await load(tx, pair.supervisor.id)
    since = max(since, now + timedelta(minutes=rules.notice))
    until = min(until, now + timedelta(days=rules.horizon))
    if since >= until:
        return []
    busy = await busy_times(tx, [p.id for p in pair.people], since, until, moving=moving)
    free: list[Slot] = []
    for slot in offered(rules, pair.supervisor.zone, since, until):
        if busy[pair.supervisor.id].overlaps(*rules.held(slot.starts_at, slot.ends_at)):
            continue
        if busy[pair.supervisee.id].overlaps(slot.starts_at, slot.ends_at):
            continue
        free.append(slot)
        if len(free) == most:
            break
    return free


BUSY = text(
    """
    SELECT person_id, lower(during), upper(during) FROM holds
    WHERE person_id = ANY(CAST(:people AS uuid[])) AND during && tstzrange(:since, :until, '[)')
        AND (CAST(:moving AS uuid) IS NULL OR appointment_id <> :moving)
    ORDER BY during
    """
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
    around = {"since": since - timedelta(days=1), "until": until + timedelta(days=1)}
    rows = await tx.execute(BUSY, {"people": list(person_ids), "moving": moving, **around})
    ranges: dict[uuid.UUID, list[tuple[datetime, datetime]]] = {person: [] for person in person_ids}
    for person_id, starts_at, ends_at in rows:
        ranges[person_id].append((starts_at, ends_at))
    return {person: Busy(tuple(found)) for person, found in ranges.items()}


def check_bookable(rules: Availability, zone: zoneinfo.ZoneInfo, starts_at: datetime, *, now: datetime) -> Slot:
    """The slot that starts then. Refused if it is past, too near, too far, or not within the offered hours."""
    if starts_at <= now:
        raise TooLate("refused.slot_past")
    if starts_at < now + timedelta(minutes=rules.notice):
        raise TooSoon("refused.too_soon", minutes=rules.notice)
    if starts_at >= now + timedelta(days=rules.horizon):
        raise NotUnderstood("refused.beyond_horizon", days=rules.horizon)
    for slot in offered(rules, zone, starts_at, starts_at + timedelta(microseconds=1)):
        return slot
    raise NotFound("refused.slot_not_offered")


WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? (\d\d):(\d\d)-(\d\d):(\d\d)")


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


def check_rules(rules: Availability) -> None:
    """Refuse numbers that the tables would refuse too, in words, and a place that is no line of text."""
    if has_controls(rules.place):
        raise NotUnderstood("refused.place")
    limits = (
        ("length", 5, 720),
        ("grid", 5, 1440),
        ("buffer_before", 0, 720),
        ("buffer_after", 0, 720),
        ("notice", 0, 43200),
        ("horizon", 1, 366),
    )
    for name, least, most in limits:
        if not least <= getattr(rules, name) <= most:
            raise NotUnderstood("refused.out_of_range", name=name, least=least, most=most)


def check_hours(hours: Sequence[WeeklyRange]) -> None:
    for hour in hours:
        if not 0 <= hour.weekday <= 6 or hour.starts >= hour.ends:
            raise NotUnderstood("refused.hours_backwards")
    ordered = sorted(hours)
    for one, two in itertools.pairwise(ordered):
        if one.weekday == two.weekday and two.starts < one.ends:
            raise NotUnderstood("refused.hours_overlap")


def _grid(hours: WeeklyRange, step: int) -> Iterator[time]:
    minute = hours.starts.hour * 60 + hours.starts.minute
    while minute < hours.ends.hour * 60 + hours.ends.minute:
        yield time(minute // 60, minute % 60)
        minute += step


def _end_instant(day: date, clock: time, zone: zoneinfo.ZoneInfo) -> datetime:
    """The end of a range: where the clock jumps over it or repeats it, the later reading, so no slot is cut twice.

    In a gap that is the reading with fold 0, in a repeated hour the one with fold 1 (PEP 495).
    """
    local = datetime.combine(day, clock, tzinfo=zone)
    return max(local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))

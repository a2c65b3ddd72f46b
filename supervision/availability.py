"""What the tables say of a supervisor's availability: her rules, hours and exceptions, and what is free."""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import JSON, bindparam, delete, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert

from supervision import audit
from supervision.audit import Actor
from supervision.checks import check_exception, check_hours, check_rules, overlap
from supervision.db import Ready, Transaction
from supervision.errors import NotAllowed, NotFound, NotUnderstood
from supervision.hours import ONE_DAY, Availability, DatedException, Slot, WeeklyRange, check_length, offered_starts
from supervision.models import Approval, Exceptional, Mode, availabilities, dated_exceptions, weekly_hours
from supervision.pairs import Pair
from supervision.people import Person
from supervision.public_holidays import open_calendars
from supervision.ranges import Busy, Range, merge

MOST_EXCEPTIONS = 500
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
    if exception.kind is Exceptional.EXTRA_HOURS and any(overlap(exception, other) for other in known):
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

    Her other calendars take their times out of it.

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
    is_full = await fullness(tx, rules, pair.supervisor, since, until, moving)
    lasts = timedelta(minutes=minutes)
    free: list[Slot] = []
    place, count = 0, len(taken)
    for starts_at in offered_starts(rules, zone, since, until, minutes):
        ends_at = starts_at + lasts
        while place < count and taken[place][1] <= starts_at:
            place += 1
        if place < count and taken[place][0] < ends_at:
            continue
        if is_full(starts_at):
            continue
        free.append(Slot(starts_at, ends_at))
        if len(free) == most:
            break
    return free


def _taken(rules: Availability, supervisor: Busy, supervisee: Busy) -> list[Range]:
    """When no appointment can be: what is held of either, the supervisor's widened by the buffers it would need."""
    before, after = timedelta(minutes=rules.buffer_before), timedelta(minutes=rules.buffer_after)
    held = [(start - after, end + before) for start, end in supervisor.ranges]
    return merge([*held, *supervisor.outside, *supervisee.ranges])


BUSY = Ready(
    text(
        """
    SELECT person_id, false, array_agg(lower(during) ORDER BY during), array_agg(upper(during) ORDER BY during)
    FROM holds
    WHERE person_id = ANY(CAST(:people AS uuid[])) AND during && tstzrange(:since, :until, '[)')
        AND (CAST(:moving AS uuid) IS NULL OR appointment_id IS DISTINCT FROM :moving)
    GROUP BY person_id
    UNION ALL
    SELECT supervisor_id, true, array_agg(lower(during)), array_agg(upper(during))
    FROM busy_times
    WHERE supervisor_id = ANY(CAST(:people AS uuid[])) AND during && tstzrange(:since, :until, '[)')
    GROUP BY supervisor_id
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
    """What is held of each person's time around `[since, until)`, a day more on either side, and what other calendars
    take of it.
    """
    around = {"since": since - ONE_DAY, "until": until + ONE_DAY}
    rows = await BUSY.fetch(tx, {"people": list(person_ids), "moving": moving, **around})
    held: dict[uuid.UUID, Sequence[Range]] = {}
    outside: dict[uuid.UUID, Sequence[Range]] = {}
    for person_id, is_outside, starts, ends in rows:
        ranges = zip(starts, ends, strict=True)
        if is_outside:
            outside[person_id] = merge(ranges)
        else:
            held[person_id] = tuple(ranges)
    return {person: Busy(held.get(person, ()), outside.get(person, ())) for person in person_ids}


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
    """Raise NotFound if the supervisor takes no more appointments on that day or in that ISO week of her zone.

    It says no more than that the time is not offered: who knows the limit would know how many others there are.
    `moving` is an appointment that does not count.
    """
    is_full = await fullness(tx, rules, supervisor, starts_at, starts_at + timedelta(microseconds=1), moving)
    if is_full(starts_at):
        raise NotFound("refused.slot_not_offered")


async def fullness(
    tx: Transaction,
    rules: Availability,
    supervisor: Person,
    since: datetime,
    until: datetime,
    moving: uuid.UUID | None = None,
) -> Callable[[datetime], bool]:
    """What says whether a start in `[since, until)` is on a full day or in a full week.

    An appointment with an open proposal counts where it is and where it would be, but once a day and week.
    """
    if rules.day_limit is None and rules.week_limit is None:
        return lambda _: False
    zone = supervisor.zone
    around = {"since": since - 8 * ONE_DAY, "until": until + 8 * ONE_DAY}  # whole weeks, whatever the zone
    rows = await tx.execute(COUNTED, {"supervisor_id": supervisor.id, "moving": moving, **around})
    found = [(identifier, starts_at.astimezone(zone).date()) for identifier, starts_at in rows]
    days = Counter(day for _, day in set(found))
    weeks = Counter(week for _, week in {(identifier, _week(day)) for identifier, day in found})

    def is_full(starts_at: datetime) -> bool:
        day = starts_at.astimezone(zone).date()
        if rules.day_limit is not None and days[day] >= rules.day_limit:
            return True
        return rules.week_limit is not None and weeks[_week(day)] >= rules.week_limit

    return is_full


def _week(day: date) -> tuple[int, int]:
    """The ISO week (ISO 8601: Monday to Sunday)."""
    year, week, _ = day.isocalendar()
    return year, week


def require_own(actor: Actor, supervisor_id: uuid.UUID) -> None:
    """Raise NotAllowed unless it is she herself, the operator or the system who acts."""
    if not actor.is_operator and actor.person_id != supervisor_id:
        raise NotAllowed("refused.supervisor_settles")

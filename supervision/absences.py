"""Being away: a supervisor's days off, and what becomes of the appointments that fall in them. All or none."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from sqlalchemy import or_, select

from supervision import appointments, availability, hours, moves, pairs, people, waits
from supervision.appointments import COLUMNS, FARTHEST, OPEN, Appointment, Proposal
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotAllowed, NotUnderstood, PairArchived, SlotTaken, Stale, TooLate
from supervision.hours import Availability, DatedException
from supervision.models import Exceptional
from supervision.models import appointments as table
from supervision.pairs import Pair
from supervision.people import Person
from supervision.ranges import Range

Then = Literal["cancel", "propose"]
SEARCHED = timedelta(days=60)  # after the absence, for another time
A_DAY = timedelta(days=1)


def period(zone: ZoneInfo, first_on: date, last_on: date) -> Range:
    """The days, both inclusive, as instants: from the first midnight of one to that after the other.

    Raises NotUnderstood for days that run backwards or are at the end of the calendar.
    """
    if first_on > last_on:
        raise NotUnderstood("refused.days_backwards")
    try:
        since, until = (
            datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC) for day in (first_on, last_on + A_DAY)
        )
    except OverflowError as error:
        raise NotUnderstood from error
    return since, until


async def affected(
    tx: Transaction, supervisor_id: uuid.UUID, first_on: date, last_on: date, now: datetime
) -> list[Appointment]:
    """A supervisor's open appointments that fall in those days of her zone, or would by an open proposal.

    Of all her pairs, the earliest first; what has begun is not among them.
    """
    zone = (await people.get(tx, supervisor_id)).zone
    return await _find(tx, supervisor_id, period(zone, first_on, last_on), now=now)


async def go(
    tx: Transaction,
    actor: Actor,
    supervisor: Person,
    first_on: date,
    last_on: date,
    *,
    then: Then,
    expected: Sequence[tuple[uuid.UUID, int]],
    now: datetime,
) -> list[Appointment]:
    """Take the days off, and cancel every appointment in them or propose another time for each.

    `expected` are the IDs and revisions that `affected` gave: what the supervisor decides about. A proposal to move
    something into those days is dropped, and an offer to somebody who waits is taken back. Another time is the next
    free one after the absence on the same weekday and clock, else the next free at all; what she has proposed to move
    out of those days already is left at that. Returns what was affected, as it is now.

    Raises Stale if anything else is there by now, NotAllowed for anybody but her, TooLate for days that are over,
    NotUnderstood for days that make no sense, SlotTaken with the `clashes` that no free time was found for.
    """
    if actor.person_id != supervisor.id:
        raise NotAllowed
    if then not in ("cancel", "propose"):
        raise NotUnderstood
    away = period(supervisor.zone, first_on, last_on)
    if away[1] <= now:
        raise TooLate("refused.absence_past")
    seen = await _find(tx, supervisor.id, away, now=now)
    await lock_people(tx, {supervisor.id, *(one.supervisee_id for one in seen)})
    found = await _find(tx, supervisor.id, away, now=now)  # between the two looks somebody may have been faster
    if {(one.id, one.revision) for one in found} != {
        (known, revision) for known, revision in expected
    } or not _are_locked(found, seen):
        raise Stale
    exception = DatedException(uuid.uuid4(), Exceptional.TIME_OFF, first_on, last_on)
    await availability.add_exception(tx, actor, supervisor.id, exception, now=now)
    await waits.withdraw(tx, actor, supervisor.id, *away, now=now)
    changed: list[Appointment] = []
    rules = await availability.load(tx, supervisor.id)
    for one in found:
        if one.proposal is not None and not _falls_in(one, away):
            changed.append(await _drop_proposal(tx, actor, one, one.proposal, now=now))
        elif then == "cancel":
            changed.append(await appointments.cancel(tx, actor, one.id, now=now))
        else:
            changed.append(await _propose(tx, actor, one, supervisor, rules, away, now=now))
    return changed


async def _find(tx: Transaction, supervisor_id: uuid.UUID, away: Range, *, now: datetime) -> list[Appointment]:
    since, until = away
    query = (
        select(*COLUMNS)
        .where(
            table.c.supervisor_id == supervisor_id,
            table.c.status.in_(OPEN),
            table.c.starts_at > now,
            or_(
                (table.c.starts_at < until) & (table.c.ends_at > since),
                (table.c.proposed_starts_at < until) & (table.c.proposed_ends_at > since),
            ),
        )
        .order_by(table.c.starts_at, table.c.id)
    )
    return [appointments.from_row(row) for row in await tx.execute(query)]


def _are_locked(found: Sequence[Appointment], seen: Sequence[Appointment]) -> bool:
    return {one.supervisee_id for one in found} <= {one.supervisee_id for one in seen}


def _falls_in(one: Appointment | Proposal, away: Range) -> bool:
    return one.starts_at < away[1] and away[0] < one.ends_at


async def _drop_proposal(
    tx: Transaction, actor: Actor, one: Appointment, proposal: Proposal, *, now: datetime
) -> Appointment:
    """The old time stands, and the other is told."""
    drop = moves.withdraw if proposal.by == actor.person_id else moves.refuse
    return await drop(tx, actor, one.id, now=now, if_proposal=proposal.id)


async def _propose(
    tx: Transaction,
    actor: Actor,
    one: Appointment,
    supervisor: Person,
    rules: Availability,
    away: Range,
    *,
    now: datetime,
) -> Appointment:
    proposal = one.proposal
    if proposal is not None and proposal.by == supervisor.id and not _falls_in(proposal, away):
        return one
    pair = await pairs.get(tx, one.pair_id)
    starts_at = await _next_free(tx, pair, rules, one, away[1], now=now)
    nowhere = SlotTaken("refused.nowhere_to_move", clashes=[one.starts_at])
    if starts_at is None:
        raise nowhere
    try:
        return await moves.reschedule(tx, actor, one.id, starts_at, now=now)
    except PairArchived as error:  # nobody could accept it: that one can only be cancelled
        raise nowhere from error


async def _next_free(
    tx: Transaction, pair: Pair, rules: Availability, one: Appointment, after: datetime, *, now: datetime
) -> datetime | None:
    """The next free start from `after` on: on its weekday and clock in the supervisor's zone, else any of her hours.

    Her notice and horizon bind her supervisees, not herself.
    """
    zone = pair.supervisor.zone
    until = min(after + SEARCHED, now + FARTHEST)
    if until <= after:
        return None
    busy = await availability.busy_times(tx, [person.id for person in pair.people], after, until, moving=one.id)
    free = [
        slot.starts_at
        for slot in hours.offered(rules, zone, after, until, one.length)
        if slot.starts_at > now
        and not busy[pair.supervisor.id].overlaps(*rules.held(slot.starts_at, slot.ends_at))
        and not busy[pair.supervisor.id].is_elsewhere(slot.starts_at, slot.ends_at)
        and not busy[pair.supervisee.id].overlaps(slot.starts_at, slot.ends_at)
    ]
    usual = _on_the_clock(one.starts_at, zone)
    return next((start for start in free if _on_the_clock(start, zone) == usual), next(iter(free), None))


def _on_the_clock(at: datetime, zone: ZoneInfo) -> tuple[int, time]:
    local = at.astimezone(zone)
    return local.weekday(), local.time()

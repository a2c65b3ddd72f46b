"""Holds: the time that appointments, proposals to move them and offers from the waiting list take of people.

The exclusion constraint on the table is the last word: whatever was checked before, a person's ranges never overlap.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import text

from supervision import availability
from supervision.db import Ready, Transaction
from supervision.errors import NotFound, SlotTaken
from supervision.hours import Availability, Slot
from supervision.pairs import Pair
from supervision.ranges import Busy, merge

if TYPE_CHECKING:
    from supervision.appointments import Appointment

# Also the second half of a statement that adds the appointment with it: see appointments.insert.
INSERT = """
    INSERT INTO holds (appointment_id, person_id, during)
    SELECT CAST(:id AS uuid), held.person_id, tstzrange(held.since, held.until, '[)')
    FROM unnest(CAST(:people AS uuid[]), CAST(:held_since AS timestamptz[]), CAST(:held_until AS timestamptz[]))
        AS held (person_id, since, until)
"""
INSERT_ALONE = Ready(text(INSERT))

# Whoever waits for a time of that supervisor's is thought of anew when one is given back.
WAKE = "SELECT pg_notify('visavis_waits', '') WHERE EXISTS"
WAKE += " (SELECT FROM waits WHERE supervisor_id = :supervisor_id AND ended_at IS NULL)"
RELEASE = Ready(text(f"WITH gone AS (DELETE FROM holds WHERE appointment_id = :id) {WAKE}"))  # noqa: S608 - a constant

KEEP_OFFER = Ready(
    text(
        """
    INSERT INTO holds (wait_id, person_id, during)
    VALUES (:wait_id, :supervisor_id, tstzrange(:held_from, :held_until, '[)')),
        (:wait_id, :supervisee_id, tstzrange(:starts_at, :ends_at, '[)'))
    """
    )
)
RELEASE_OFFER = Ready(text(f"WITH gone AS (DELETE FROM holds WHERE wait_id = :wait_id) {WAKE}"))  # noqa: S608 - a constant


TAKE_OFFER = text(
    """
    WITH over AS (
        UPDATE waits SET ended_at = :now, offered_starts_at = NULL, offered_ends_at = NULL, offer_until = NULL
        WHERE pair_id = :pair_id AND ended_at IS NULL
            AND offered_starts_at = :starts_at AND offered_ends_at = :ends_at AND offer_until > :now
        RETURNING id
    ), gone AS (DELETE FROM holds USING over WHERE wait_id = over.id)
    SELECT id FROM over
    """
)


async def take(tx: Transaction, appointment: "Appointment") -> None:
    """Take both people's time for an appointment that holds none yet. Raises SlotTaken."""
    await execute(tx, INSERT_ALONE, parameters(appointment))


async def retake(tx: Transaction, appointment: "Appointment") -> None:
    """Give back what an appointment holds, and take what it needs now. Raises SlotTaken."""
    await release(tx, appointment)
    await take(tx, appointment)


async def release(tx: Transaction, appointment: "Appointment") -> None:
    await RELEASE.fetch(tx, {"id": appointment.id, "supervisor_id": appointment.supervisor_id})


def parameters(appointment: "Appointment") -> dict[str, Any]:
    """The parameters of `INSERT`: the appointment's time and an open proposal's, as few ranges as possible.

    Ranges of one person that touch are one: the constraint does not ask whose they are.
    """
    supervisor = [appointment.held]
    supervisee = [(appointment.starts_at, appointment.ends_at)]
    if appointment.proposal is not None:
        supervisor.append(appointment.proposal.held)
        supervisee.append((appointment.proposal.starts_at, appointment.proposal.ends_at))
    ranges = [(appointment.supervisor_id, one) for one in merge(supervisor)]
    ranges += [(appointment.supervisee_id, one) for one in merge(supervisee)]
    return {
        "id": appointment.id,
        "people": [person for person, _ in ranges],
        "held_since": [since for _, (since, _) in ranges],
        "held_until": [until for _, (_, until) in ranges],
    }


async def keep_offer(
    tx: Transaction, wait_id: uuid.UUID, people: Sequence[uuid.UUID], rules: Availability, slot: Slot
) -> None:
    """Keep a slot for somebody on the waiting list; `people` are the supervisor and the supervisee.

    Raises SlotTaken.
    """
    held_from, held_until = rules.held(slot.starts_at, slot.ends_at)
    values = {"wait_id": wait_id, "supervisor_id": people[0], "supervisee_id": people[1]}
    times = {"held_from": held_from, "held_until": held_until, **vars(slot)}
    await execute(tx, KEEP_OFFER, values | times)


async def release_offer(tx: Transaction, wait_id: uuid.UUID, supervisor_id: uuid.UUID) -> None:
    await RELEASE_OFFER.fetch(tx, {"wait_id": wait_id, "supervisor_id": supervisor_id})


async def take_offer(tx: Transaction, pair_id: uuid.UUID, slot: Slot, *, now: datetime) -> uuid.UUID | None:
    """End the wait for which just this slot is kept, and give it back; None if there is no such wait of the pair."""
    wait_id: uuid.UUID | None = await tx.scalar(TAKE_OFFER, {"pair_id": pair_id, "now": now, **vars(slot)})
    return wait_id


async def execute(tx: Transaction, statement: Ready, values: dict[str, Any]) -> None:
    """Run a statement that takes time. Raises SlotTaken where the exclusion constraint says so."""
    try:
        await statement.fetch(tx, values)
    except asyncpg.ExclusionViolationError as error:
        raise SlotTaken(alternatives=[]) from error


async def require_free(
    tx: Transaction,
    pair: Pair,
    rules: Availability,
    slot: Slot,
    *,
    now: datetime,
    moving: uuid.UUID | None = None,
    length: int | None = None,
    bound: bool = False,
) -> None:
    """Raise SlotTaken, with the day's other slots, if either person's time is held in that range.

    `moving` is an appointment whose own time counts as free, `length` the minutes that other slots should have.
    `bound` says that the supervisor's other calendars count: a time of theirs is as little offered, NotFound, as one
    outside her hours.
    """
    busy = await look(tx, pair, slot, moving)
    if bound and busy[pair.supervisor.id].is_elsewhere(slot.starts_at, slot.ends_at):
        raise NotFound("refused.slot_not_offered")
    if not _is_held(pair, rules, slot, busy):
        return
    zone = pair.supervisor.zone
    midnight = slot.starts_at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    day = await availability.slots(
        tx, pair, since=midnight, until=midnight + timedelta(days=1), now=now, most=4, moving=moving, length=length
    )
    raise SlotTaken(alternatives=[other.starts_at for other in day])


async def is_free(tx: Transaction, pair: Pair, rules: Availability, slot: Slot) -> bool:
    """Whether nothing holds either person's time in that range, the supervisor's with her buffers, and no other
    calendar of hers has something then.
    """
    busy = await look(tx, pair, slot)
    elsewhere = busy[pair.supervisor.id].is_elsewhere(slot.starts_at, slot.ends_at)
    return not elsewhere and not _is_held(pair, rules, slot, busy)


async def look(tx: Transaction, pair: Pair, slot: Slot, moving: uuid.UUID | None = None) -> Mapping[uuid.UUID, Busy]:
    """What is taken of each one's time around a slot, but for the appointment `moving`."""
    people = [person.id for person in pair.people]
    return await availability.busy_times(tx, people, slot.starts_at, slot.ends_at, moving=moving)


def _is_held(pair: Pair, rules: Availability, slot: Slot, busy: Mapping[uuid.UUID, Busy]) -> bool:
    hers, theirs = busy[pair.supervisor.id], busy[pair.supervisee.id]
    return hers.overlaps(*rules.held(slot.starts_at, slot.ends_at)) or theirs.overlaps(slot.starts_at, slot.ends_at)

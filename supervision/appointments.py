"""Appointments: requested, confirmed, declined, cancelled, moved. Each change is one transaction of its caller's."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import TextClause, delete, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from supervision import audit, availability, notifications, pairs, reminders
from supervision.audit import SYSTEM, Actor
from supervision.availability import Availability, Slot
from supervision.db import Transaction, lock_people
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, NotUnderstood, SlotTaken, Stale, TooLate
from supervision.models import Channel, Mode, Status, appointments, holds
from supervision.notifications import HIGH, NORMAL, Notice
from supervision.pairs import Pair

OPEN = (Status.REQUESTED, Status.CONFIRMED)


@dataclass(frozen=True)
class Appointment:
    id: uuid.UUID
    pair_id: uuid.UUID
    supervisor_id: uuid.UUID
    supervisee_id: uuid.UUID
    starts_at: datetime
    ends_at: datetime
    status: Status
    revision: int
    mode: Mode
    place: str

    @property
    def people(self) -> tuple[uuid.UUID, uuid.UUID]:
        return self.supervisor_id, self.supervisee_id


COLUMNS = (
    appointments.c.id,
    appointments.c.pair_id,
    appointments.c.supervisor_id,
    appointments.c.supervisee_id,
    appointments.c.starts_at,
    appointments.c.ends_at,
    appointments.c.status,
    appointments.c.revision,
    appointments.c.mode,
    appointments.c.place,
)


def from_row(row: Iterable[Any]) -> Appointment:
    identifier, pair_id, supervisor_id, supervisee_id, starts_at, ends_at, status, revision, mode, place = row
    return Appointment(
        identifier,
        pair_id,
        supervisor_id,
        supervisee_id,
        starts_at,
        ends_at,
        Status(status),
        revision,
        Mode(mode),
        place,
    )


async def book(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    starts_at: datetime,
    *,
    now: datetime,
    ends_at: datetime | None = None,
) -> Appointment:
    """Request the slot that starts then. The time is held from now on; the supervisor is asked.

    Raises NotAllowed unless the supervisee asks, PairArchived, TooLate, TooSoon, NotFound for a time that is not
    offered, and SlotTaken with the `alternatives` of the same day.
    """
    pair.require_active()
    if actor.person_id != pair.supervisee.id:
        raise NotAllowed("refused.supervisee_books")
    rules = await availability.load(tx, pair.supervisor.id)
    slot = availability.check_bookable(rules, pair.supervisor.zone, starts_at, now=now)
    if ends_at is not None and ends_at != slot.ends_at:
        raise NotFound("refused.slot_not_offered")
    await lock_people(tx, [person.id for person in pair.people])
    await require_free(tx, pair, rules, slot, now=now)
    appointment = Appointment(
        uuid.uuid4(),
        pair.id,
        pair.supervisor.id,
        pair.supervisee.id,
        slot.starts_at,
        slot.ends_at,
        Status.REQUESTED,
        0,
        rules.mode,
        rules.place,
    )
    await insert_held(tx, appointment, rules, now=now)
    await notifications.enqueue(
        tx,
        [
            _notice(appointment, pair.supervisor.id, Channel.MATRIX, "appointment.requested", actor),
            _notice(appointment, pair.supervisor.id, Channel.MAIL, "appointment.requested", actor),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.book", "appointment", appointment.id, now=now),
    )
    return appointment


async def confirm(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    *,
    now: datetime,
    if_revision: int | None = None,
) -> Appointment:
    """The supervisor agrees to a request. Both get the calendar entry and, a day before, a reminder."""
    appointment = await _get_locked(tx, actor, appointment_id, if_revision)
    _require_supervisor(actor, appointment)
    _require_status(appointment, Status.REQUESTED)
    (await pairs.get(tx, appointment.pair_id)).require_active()
    if appointment.starts_at <= now:
        raise TooLate("refused.appointment_past")
    appointment = await _change(tx, appointment, now=now, status=Status.CONFIRMED)
    await notifications.enqueue(
        tx,
        [
            _notice(appointment, appointment.supervisee_id, Channel.MATRIX, "appointment.confirmed", actor),
            *_mails(appointment, "appointment.confirmed", actor),
            *_reminders(appointment, now=now),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.confirm", "appointment", appointment.id, now=now),
    )
    return appointment


async def decline(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    *,
    now: datetime,
    if_revision: int | None = None,
) -> Appointment:
    """The supervisor says no to a request; the time is free again."""
    appointment = await _get_locked(tx, actor, appointment_id, if_revision)
    _require_supervisor(actor, appointment)
    _require_status(appointment, Status.REQUESTED)
    appointment = await _change(tx, appointment, now=now, status=Status.DECLINED)
    await release(tx, appointment.id)
    await notifications.enqueue(
        tx,
        [
            _notice(appointment, appointment.supervisee_id, Channel.MATRIX, "appointment.declined", actor),
            *_mails(appointment, "appointment.declined", actor),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.decline", "appointment", appointment.id, now=now),
    )
    return appointment


async def cancel(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    *,
    now: datetime,
    reason: str | None = None,
    if_revision: int | None = None,
) -> Appointment:
    """Either of the two calls an appointment off before it begins.

    `reason` is told in the encrypted room alone, and is taken out of the outbox once it was told.
    """
    appointment = await _get_locked(tx, actor, appointment_id, if_revision)
    _require_status(appointment, *OPEN)
    if appointment.starts_at <= now:
        raise TooLate("refused.appointment_past")
    appointment = await _change(tx, appointment, now=now, status=Status.CANCELLED)
    await release(tx, appointment.id)
    told = _other(appointment, actor)
    details = {"reason": reason} if reason else {}
    await notifications.enqueue(
        tx,
        [
            _notice(appointment, told, Channel.MATRIX, "appointment.cancelled", actor, HIGH, details),
            *_mails(appointment, "appointment.cancelled", actor, HIGH),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.cancel", "appointment", appointment.id, now=now),
    )
    return appointment


async def reschedule(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    starts_at: datetime,
    *,
    now: datetime,
    ends_at: datetime | None = None,
    if_revision: int | None = None,
) -> Appointment:
    """Move an appointment to another slot.

    Moved by the supervisor it keeps its status; moved by the supervisee it is a request again, which the supervisor
    answers. Raises what `book` raises, and NotUnderstood for a move onto itself.
    """
    appointment = await _get_locked(tx, actor, appointment_id, if_revision)
    _require_status(appointment, *OPEN)
    if appointment.starts_at <= now:
        raise TooLate("refused.appointment_past")
    if appointment.starts_at == starts_at:
        raise NotUnderstood("refused.move_onto_itself")
    pair = await pairs.get(tx, appointment.pair_id)
    pair.require_active()
    rules = await availability.load(tx, appointment.supervisor_id)
    slot = availability.check_bookable(rules, pair.supervisor.zone, starts_at, now=now)
    if ends_at is not None and ends_at != slot.ends_at:
        raise NotFound("refused.slot_not_offered")
    await require_free(tx, pair, rules, slot, now=now, moving=appointment.id)
    was = appointment.starts_at
    status = appointment.status if actor.person_id == appointment.supervisor_id else Status.REQUESTED
    appointment = await _change(tx, appointment, now=now, status=status, starts_at=slot.starts_at, ends_at=slot.ends_at)
    await release(tx, appointment.id)
    await hold(tx, appointment, rules)
    told = _other(appointment, actor)
    kind, details = "appointment.rescheduled", {"was": was.isoformat()}
    await notifications.enqueue(
        tx,
        [
            _notice(appointment, told, Channel.MATRIX, kind, actor, NORMAL, details),
            *_mails(appointment, kind, actor, NORMAL, details),
            *(_reminders(appointment, now=now) if status is Status.CONFIRMED else []),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.reschedule", "appointment", appointment.id, now=now),
    )
    return appointment


async def close_past(tx: Transaction, *, now: datetime) -> int:
    """Complete what is over, and let lapse what nobody answered before it began. Returns how many changed."""
    due = list(
        await tx.execute(
            select(*COLUMNS)
            .where(
                or_(
                    (appointments.c.status == Status.CONFIRMED) & (appointments.c.ends_at <= now),
                    (appointments.c.status == Status.REQUESTED) & (appointments.c.starts_at <= now),
                )
            )
            .order_by(appointments.c.id)
            .limit(500)
            .with_for_update(skip_locked=True)
        )
    )
    for appointment in map(from_row, due):
        if appointment.status is Status.CONFIRMED:
            await tx.execute(
                update(appointments)
                .where(appointments.c.id == appointment.id)
                .values(status=Status.COMPLETED, updated_at=now)
            )
            await audit.record(tx, SYSTEM, "appointment.complete", "appointment", appointment.id, now=now)
            continue
        lapsed = await _change(tx, appointment, now=now, status=Status.DECLINED)
        await release(tx, lapsed.id)
        await audit.record(tx, SYSTEM, "appointment.lapse", "appointment", lapsed.id, now=now)
        kind, details = "appointment.declined", {"lapsed": True}
        await notifications.enqueue(
            tx,
            [
                _notice(lapsed, lapsed.supervisee_id, Channel.MATRIX, kind, SYSTEM, NORMAL, details),
                *_mails(lapsed, kind, SYSTEM, NORMAL, details),
            ],
            now=now,
        )
    return len(due)


async def get(tx: Transaction, actor: Actor, appointment_id: uuid.UUID) -> Appointment:
    """An appointment of the actor's own. Anybody else's is as little found as one that never was."""
    row = (await tx.execute(select(*COLUMNS).where(appointments.c.id == appointment_id))).one_or_none()
    if row is None or actor.person_id not in (row.supervisor_id, row.supervisee_id):
        raise NotFound("refused.appointment_not_found")
    return from_row(row)


async def require_free(
    tx: Transaction,
    pair: Pair,
    rules: Availability,
    slot: Slot,
    *,
    now: datetime,
    moving: uuid.UUID | None = None,
) -> None:
    """Raise SlotTaken, with the day's other slots, if either person's time is held in that range."""
    busy = await availability.busy_times(
        tx, [person.id for person in pair.people], slot.starts_at, slot.ends_at, moving=moving
    )
    taken = busy[pair.supervisor.id].overlaps(*rules.held(slot.starts_at, slot.ends_at)) or busy[
        pair.supervisee.id
    ].overlaps(slot.starts_at, slot.ends_at)
    if not taken:
        return
    zone = pair.supervisor.zone
    midnight = slot.starts_at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    day = await availability.slots(
        tx, pair, since=midnight, until=midnight + timedelta(days=1), now=now, most=4, moving=moving
    )
    raise SlotTaken(alternatives=[other.starts_at for other in day])


# The exclusion constraint on holds is the last word where a check was too early.
HOLD = """
    INSERT INTO holds (appointment_id, person_id, during)
    SELECT CAST(:id AS uuid), held.person_id, tstzrange(held.since, held.until, '[)')
    FROM (VALUES
        (CAST(:supervisor_id AS uuid), CAST(:held_from AS timestamptz), CAST(:held_until AS timestamptz)),
        (CAST(:supervisee_id AS uuid), CAST(:starts_at AS timestamptz), CAST(:ends_at AS timestamptz))
    ) AS held (person_id, since, until)
"""
HOLD_ALONE = text(HOLD)
INSERT_HELD = text(
    f"""
    WITH booked AS (
        INSERT INTO appointments (id, pair_id, supervisor_id, supervisee_id, starts_at, ends_at, status, revision,
            mode, place, created_at, updated_at)
        VALUES (:id, :pair_id, :supervisor_id, :supervisee_id, :starts_at, :ends_at, :status, :revision,
            :mode, :place, :now, :now)
    )
    {HOLD}
    """  # noqa: S608 - both parts are constants
)


async def insert_held(tx: Transaction, appointment: Appointment, rules: Availability, *, now: datetime) -> None:
    """Write a new appointment and take both people's time."""
    await _take(tx, INSERT_HELD, appointment, rules, now=now)


async def hold(tx: Transaction, appointment: Appointment, rules: Availability) -> None:
    """Take both people's time for an appointment that is there."""
    await _take(tx, HOLD_ALONE, appointment, rules)


async def _take(
    tx: Transaction, statement: TextClause, appointment: Appointment, rules: Availability, **more: object
) -> None:
    held_from, held_until = rules.held(appointment.starts_at, appointment.ends_at)
    values = {**vars(appointment), "held_from": held_from, "held_until": held_until, **more}
    try:
        await tx.execute(statement, values)
    except IntegrityError as error:
        raise SlotTaken(alternatives=[]) from error


async def release(tx: Transaction, appointment_id: uuid.UUID) -> None:
    await tx.execute(delete(holds).where(holds.c.appointment_id == appointment_id))


async def _get_locked(tx: Transaction, actor: Actor, appointment_id: uuid.UUID, if_revision: int | None) -> Appointment:
    """An appointment of the actor's own, that nobody else changes until this transaction ends."""
    await lock_people(tx, (await get(tx, actor, appointment_id)).people)
    query = select(*COLUMNS).where(appointments.c.id == appointment_id).with_for_update()
    appointment = from_row((await tx.execute(query)).one())
    if if_revision is not None and if_revision != appointment.revision:
        raise Stale
    return appointment


async def _change(tx: Transaction, appointment: Appointment, *, now: datetime, **values: Any) -> Appointment:
    """Write a new revision, and settle what the outbox still has to say of earlier ones."""
    changed = replace(appointment, revision=appointment.revision + 1, **values)
    await tx.execute(
        update(appointments)
        .where(appointments.c.id == changed.id)
        .values(revision=changed.revision, updated_at=now, **values)
    )
    await notifications.supersede_older(tx, changed.id, changed.revision, now=now)
    return changed


def _require_supervisor(actor: Actor, appointment: Appointment) -> None:
    if actor.person_id != appointment.supervisor_id:
        raise NotAllowed("refused.supervisor_answers")


def _require_status(appointment: Appointment, *allowed: Status) -> None:
    if appointment.status not in allowed:
        raise AlreadyAnswered(status=appointment.status)


def _other(appointment: Appointment, actor: Actor) -> uuid.UUID:
    if actor.person_id == appointment.supervisor_id:
        return appointment.supervisee_id
    return appointment.supervisor_id


def _notice(
    appointment: Appointment,
    person_id: uuid.UUID,
    channel: Channel,
    kind: str,
    actor: Actor,
    priority: int = NORMAL,
    details: dict[str, Any] | None = None,
) -> Notice:
    return Notice(
        person_id,
        channel,
        kind,
        {"by": actor.person_id and str(actor.person_id), **(details or {})},
        pair_id=appointment.pair_id,
        appointment_id=appointment.id,
        revision=appointment.revision,
        priority=priority,
    )


def _mails(
    appointment: Appointment, kind: str, actor: Actor, priority: int = NORMAL, details: dict[str, Any] | None = None
) -> Sequence[Notice]:
    return [_notice(appointment, person, Channel.MAIL, kind, actor, priority, details) for person in appointment.people]


def _reminders(appointment: Appointment, *, now: datetime) -> list[Notice]:
    return reminders.plan(
        appointment.id,
        appointment.revision,
        appointment.pair_id,
        appointment.people,
        appointment.starts_at,
        now=now,
    )

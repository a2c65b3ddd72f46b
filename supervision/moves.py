"""Moving appointments. A move is a proposal: the old time stands, and both are held, until the other accepts."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select

from supervision import appointments, audit, availability, hours, notifications, pairs, policies
from supervision.appointments import OPEN, Appointment, Proposal, notice
from supervision.audit import SYSTEM, Actor
from supervision.db import Transaction, take_each
from supervision.errors import AlreadyAnswered, NotAllowed, NotUnderstood, Stale, TooLate
from supervision.hours import Availability, Slot
from supervision.models import Approval, Channel, Status
from supervision.models import appointments as table
from supervision.notifications import NORMAL, Notice
from supervision.pairs import Pair


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
    """Move an appointment, or ask the other whether it may move. It keeps its length unless an end is given.

    A supervisee's own request moves at once, and so does what they have confirmed where the supervisor approves
    automatically. Anything else is a proposal, which takes the place of one that is open; the very time that the
    other has proposed is accepted. Raises what `appointments.book` raises, NotUnderstood for a move onto itself, and
    TooLate for a supervisee within the supervisor's notice for it.
    """
    appointment = await appointments.get_locked(tx, actor, appointment_id, if_revision)
    pair = await pairs.get(tx, appointment.pair_id)
    open_one = appointment.proposal
    same = ends_at or starts_at + timedelta(minutes=appointment.length)
    if open_one and open_one.by != actor.person_id and (open_one.starts_at, open_one.ends_at) == (starts_at, same):
        return await accept(tx, actor, appointment_id, now=now)
    rules = await availability.load(tx, appointment.supervisor_id)
    moved = await move(tx, actor, appointment, pair, rules, starts_at, now=now, ends_at=ends_at)
    action = "appointment.reschedule" if moved.proposal is None else "appointment.propose"
    await notifications.enqueue(
        tx,
        await news_of_move(tx, appointment, moved, actor, now=now),
        now=now,
        audited=audit.entry(actor, action, "appointment", moved.id, now=now),
    )
    return moved


async def move(
    tx: Transaction,
    actor: Actor,
    appointment: Appointment,
    pair: Pair,
    rules: Availability,
    starts_at: datetime,
    *,
    now: datetime,
    ends_at: datetime | None = None,
) -> Appointment:
    """The step of `reschedule`: check, and move or propose, without its news. The appointment is locked."""
    slot = check_move(actor, appointment, pair, rules, starts_at, now=now, ends_at=ends_at)
    await appointments.check_room(tx, actor, pair, rules, slot, now=now, moving=appointment.id)
    return await put(tx, actor, appointment, pair, rules, slot, now=now)


async def put(
    tx: Transaction,
    actor: Actor,
    appointment: Appointment,
    pair: Pair,
    rules: Availability,
    slot: Slot,
    *,
    now: datetime,
) -> Appointment:
    """The last part of `move`: move to a slot that was checked, or propose it."""
    if not is_at_once(actor, appointment, pair, rules):
        proposal = _proposal(actor, appointment, rules, slot, now)
        if appointment.answer_by is not None:  # a request that she answers so does not lapse before that is answered
            appointment = replace(appointment, answer_by=max(appointment.answer_by, proposal.answer_by))
        return await appointments.set_proposal(tx, appointment, proposal, now=now)
    asked = appointment.status is Status.REQUESTED
    return await appointments.change(
        tx,
        appointment,
        now=now,
        **vars(slot),
        buffer_before=rules.buffer_before,
        buffer_after=rules.buffer_after,
        answer_by=appointments.answer_by(rules, slot.starts_at, now=now) if asked else None,
        booked_by=actor.person_id,
        proposal=None,
    )


def check_move(
    actor: Actor,
    appointment: Appointment,
    pair: Pair,
    rules: Availability,
    starts_at: datetime,
    *,
    now: datetime,
    ends_at: datetime | None = None,
) -> Slot:
    """The slot that this person may move it to, free or not."""
    appointments.require_status(appointment, *OPEN)
    appointments.require_ahead(appointment, now=now)
    pair.require_active()
    own = appointment.proposal if appointment.proposal and appointment.proposal.by == actor.person_id else None
    length = appointments.asked_length(starts_at, ends_at, None) or appointment.length
    slot = Slot(starts_at, starts_at + timedelta(minutes=length))
    if slot in [Slot(one.starts_at, one.ends_at) for one in (appointment, own) if one is not None]:
        raise NotUnderstood("refused.move_onto_itself")
    if actor.person_id == appointment.supervisee_id and appointment.status is Status.CONFIRMED:
        notice_needed = timedelta(minutes=rules.move_notice)
        if appointment.starts_at - now < notice_needed:
            raise TooLate("refused.move_notice", minutes=rules.move_notice)
    kept = replace(pair, lengths=tuple(dict.fromkeys((*hours.lengths_of(pair, rules), appointment.length))))
    return appointments.check_slot(actor, kept, rules, starts_at, length, now=now)


def is_at_once(actor: Actor, appointment: Appointment, pair: Pair, rules: Availability) -> bool:
    """Whether this person's move of it needs nobody's consent."""
    if actor.person_id != appointment.supervisee_id:
        return False
    return appointment.status is Status.REQUESTED or policies.approval_of(pair, rules) is Approval.AUTOMATIC


def _proposal(actor: Actor, appointment: Appointment, rules: Availability, slot: Slot, now: datetime) -> Proposal:
    if actor.person_id is None:
        raise NotAllowed
    return Proposal(
        uuid.uuid4(),
        actor.person_id,
        slot.starts_at,
        slot.ends_at,
        rules.buffer_before,
        rules.buffer_after,
        appointments.answer_by(rules, slot.starts_at, appointment.starts_at, now=now),
    )


async def accept(
    tx: Transaction, actor: Actor, appointment_id: uuid.UUID, *, now: datetime, if_proposal: uuid.UUID | None = None
) -> Appointment:
    """Agree to a proposal of the other's: the appointment is at the new time from now on, and confirmed.

    Raises NotAllowed for the proposer, Stale if it is not that proposal any more, TooLate once it has lapsed.
    """
    appointment = await appointments.get_locked(tx, actor, appointment_id)
    moved = await carry_out(tx, actor, appointment, now=now, if_proposal=if_proposal)
    await notifications.enqueue(
        tx,
        await news_of_move(tx, appointment, moved, actor, now=now, accepted=True),
        now=now,
        audited=audit.entry(actor, "appointment.accept", "appointment", moved.id, now=now),
    )
    return moved


async def carry_out(
    tx: Transaction, actor: Actor, appointment: Appointment, *, now: datetime, if_proposal: uuid.UUID | None = None
) -> Appointment:
    """The step of `accept`: check and change, without its news."""
    proposal = require_proposal(appointment, if_proposal)
    if proposal.by == actor.person_id:
        raise NotAllowed("refused.own_proposal")
    (await pairs.get(tx, appointment.pair_id)).require_active()
    appointments.require_ahead(appointment, now=now)
    if proposal.answer_by <= now:
        raise TooLate("refused.proposal_lapsed")
    return await appointments.change(
        tx,
        appointment,
        now=now,
        starts_at=proposal.starts_at,
        ends_at=proposal.ends_at,
        buffer_before=proposal.buffer_before,
        buffer_after=proposal.buffer_after,
        status=Status.CONFIRMED,
        booked_by=appointment.supervisee_id,  # who agreed to it does not decline it as booked on their behalf
        answer_by=None,
        proposal=None,
    )


async def refuse(
    tx: Transaction, actor: Actor, appointment_id: uuid.UUID, *, now: datetime, if_proposal: uuid.UUID | None = None
) -> Appointment:
    """Say no to a proposal of the other's; the old time stands."""
    appointment = await appointments.get_locked(tx, actor, appointment_id)
    left = await drop(tx, actor, appointment, own=False, now=now, if_proposal=if_proposal)
    if appointment.proposal is not None:
        kind = "move.refused"
        await appointments.tell_dropped(tx, actor, appointment, appointment.proposal, "refuse", kind, now=now)
    return left


async def withdraw(
    tx: Transaction, actor: Actor, appointment_id: uuid.UUID, *, now: datetime, if_proposal: uuid.UUID | None = None
) -> Appointment:
    """Take a proposal of one's own back; the old time stands."""
    appointment = await appointments.get_locked(tx, actor, appointment_id)
    left = await drop(tx, actor, appointment, own=True, now=now, if_proposal=if_proposal)
    if appointment.proposal is not None:
        kind = "move.withdrawn"
        await appointments.tell_dropped(tx, actor, appointment, appointment.proposal, "withdraw", kind, now=now)
    return left


async def drop(
    tx: Transaction,
    actor: Actor,
    appointment: Appointment,
    *,
    own: bool,
    now: datetime,
    if_proposal: uuid.UUID | None = None,
) -> Appointment:
    """The step of `refuse` and, for one's `own` proposal, of `withdraw`: check and change, without its news."""
    proposal = require_proposal(appointment, if_proposal)
    if (proposal.by == actor.person_id) is not own:
        raise NotAllowed("refused.own_proposal" if not own else "refused.others_proposal")
    return await appointments.set_proposal(tx, appointment, None, now=now)


async def lapse(tx: Transaction, *, now: datetime) -> int:
    """Drop the proposals that nobody answered in time, and tell both. Returns how many."""
    due = list(
        await tx.execute(
            select(*appointments.COLUMNS)
            .where(table.c.proposal_id.is_not(None), table.c.proposed_answer_by <= now)
            .order_by(table.c.id)
            .limit(appointments.BATCH)
            .with_for_update(skip_locked=True)
        )
    )
    found = map(appointments.from_row, due)
    return await take_each(tx, found, lambda one: _lapse(tx, one, now=now), "lapse_move")


async def _lapse(tx: Transaction, appointment: Appointment, *, now: datetime) -> None:
    await appointments.set_proposal(tx, appointment, None, now=now)
    if appointment.proposal is not None:
        kind = "move.lapsed"
        await appointments.tell_dropped(tx, SYSTEM, appointment, appointment.proposal, "lapse_move", kind, now=now)


def require_proposal(appointment: Appointment, if_proposal: uuid.UUID | None) -> Proposal:
    """The open proposal. Raises Stale if it is not that one, AlreadyAnswered if there is none."""
    if appointment.proposal is None:
        raise AlreadyAnswered("refused.no_proposal")
    if if_proposal not in (None, appointment.proposal.id):
        raise Stale
    return appointment.proposal


async def news_of_move(
    tx: Transaction,
    before: Appointment,
    after: Appointment,
    actor: Actor,
    *,
    now: datetime,
    accepted: bool = False,
) -> list[Notice]:
    """Of a proposal to whoever is asked; of a change of the time to both, `accepted` if the other had proposed it."""
    if after.proposal is not None:
        asked, proposed = after.other(actor.person_id), {"proposal": str(after.proposal.id)}
        return [
            notice(after, asked, channel, "move.proposed", actor, NORMAL, proposed)
            for channel in (Channel.MATRIX, Channel.MAIL)
        ]
    kind, details = "appointment.rescheduled", {"was": before.starts_at.isoformat(), "accepted": accepted}
    return [
        notice(after, after.other(actor.person_id), Channel.MATRIX, kind, actor, NORMAL, details),
        *appointments.mails(after, kind, actor, NORMAL, details),
        *await appointments.remind(tx, [after], now=now),
    ]

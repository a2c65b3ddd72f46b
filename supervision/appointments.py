"""Appointments: requested, confirmed, declined, cancelled, over. Each change is one transaction of its caller's.

What changes an appointment comes in two layers: the acts that a person asks for, with their audit entry and news,
and below them the steps (`agree`, `turn_down`, `call_off`), which a series takes for many with one piece of news.
Moving one is in moves.py.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, or_, select, text

from supervision import audit, availability, holds, hours, notifications, pairs, policies, preferences, reminders
from supervision.audit import SYSTEM, Actor
from supervision.db import Ready, Transaction, lock_people, take_each
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, NotUnderstood, SlotTaken, Stale, TooLate
from supervision.hours import Availability, Slot
from supervision.models import Approval, Channel, Mode, Status, appointments
from supervision.notifications import HIGH, NORMAL, Notice
from supervision.pairs import Pair

OPEN = (Status.REQUESTED, Status.CONFIRMED)
OVER = (Status.COMPLETED, Status.NO_SHOW)
GONE = (Status.DECLINED, Status.CANCELLED)
FARTHEST = timedelta(days=366)
A_MINUTE = timedelta(minutes=1)
BATCH = 100  # that the clock changes in one transaction; the rest a minute later


@dataclass(frozen=True)
class Proposal:
    """An open proposal to move an appointment. The buffers are minutes of the supervisor's before and after."""

    id: uuid.UUID
    by: uuid.UUID
    starts_at: datetime
    ends_at: datetime
    buffer_before: int
    buffer_after: int
    answer_by: datetime

    @property
    def held(self) -> tuple[datetime, datetime]:
        return self.starts_at - self.buffer_before * A_MINUTE, self.ends_at + self.buffer_after * A_MINUTE


@dataclass(frozen=True)
class Appointment:
    """`answer_by` is when a request lapses, `late` marks a cancellation within the supervisor's notice for it.

    The buffers are minutes of the supervisor's before and after. `series_at` is the start that its series gave it.
    """

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
    buffer_before: int = 0
    buffer_after: int = 0
    booked_by: uuid.UUID | None = None
    answer_by: datetime | None = None
    late: bool = False
    series_id: uuid.UUID | None = None
    series_at: datetime | None = None
    proposal: Proposal | None = None

    @property
    def people(self) -> tuple[uuid.UUID, uuid.UUID]:
        return self.supervisor_id, self.supervisee_id

    @property
    def held(self) -> tuple[datetime, datetime]:
        """What it takes of the supervisor's time."""
        return self.starts_at - self.buffer_before * A_MINUTE, self.ends_at + self.buffer_after * A_MINUTE

    @property
    def length(self) -> int:
        """In minutes."""
        return (self.ends_at - self.starts_at) // A_MINUTE

    @property
    def on_behalf(self) -> bool:
        """Whether the supervisor booked it, so that the supervisee can decline."""
        return self.booked_by == self.supervisor_id

    def other(self, person_id: uuid.UUID | None) -> uuid.UUID:
        return self.supervisee_id if person_id == self.supervisor_id else self.supervisor_id

    def may_answer(self, person_id: uuid.UUID | None) -> bool:
        """Whether an open question waits for this person: a request of the supervisor, a move of whoever was asked."""
        if self.proposal is not None and self.proposal.by != person_id:
            return True
        return self.status is Status.REQUESTED and person_id == self.supervisor_id


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
    appointments.c.buffer_before_minutes,
    appointments.c.buffer_after_minutes,
    appointments.c.booked_by,
    appointments.c.answer_by,
    appointments.c.late,
    appointments.c.series_id,
    appointments.c.series_at,
    appointments.c.proposal_id,
    appointments.c.proposed_by,
    appointments.c.proposed_starts_at,
    appointments.c.proposed_ends_at,
    appointments.c.proposed_before_minutes,
    appointments.c.proposed_after_minutes,
    appointments.c.proposed_answer_by,
)
OWN = 17  # of the columns; the others are the proposal's


def from_row(row: Iterable[Any]) -> Appointment:
    values = tuple(row)
    proposal = Proposal(*values[OWN:]) if values[OWN] is not None else None
    status, mode = Status(values[6]), Mode(values[8])
    return Appointment(*(*values[:6], status, values[7], mode, *values[9:OWN], proposal))


async def book(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    starts_at: datetime,
    *,
    now: datetime,
    ends_at: datetime | None = None,
    length: int | None = None,
) -> Appointment:
    """Book a time for a pair. `length` is in minutes, the pair's first where neither it nor the end is given.

    The supervisee requests a slot: it is held, and the supervisor is asked; where she approves automatically it is
    confirmed at once. The supervisor books on the supervisee's behalf, at any free time to come.

    Raises NotAllowed for anybody else, PairArchived, TooLate, TooSoon, NotFound for a time that is not offered,
    NotUnderstood for a length that is not the pair's, and SlotTaken with the `alternatives` of the same day.
    """
    pair.member(actor.person_id)
    await lock_people(tx, [person.id for person in pair.people])
    # Read after the lock: an archive, a day off or other rules may have come while this waited for it.
    pair = await pairs.get(tx, pair.id)
    pair.require_active()
    rules = await availability.load(tx, pair.supervisor.id)
    slot = check_slot(actor, pair, rules, starts_at, asked_length(starts_at, ends_at, length), now=now)
    try:
        await check_room(tx, actor, pair, rules, slot, now=now)
    except SlotTaken:
        if not await _take_own_offer(tx, actor, pair, slot, now=now):
            raise
        await check_room(tx, actor, pair, rules, slot, now=now)
    appointment = make(actor, pair, rules, slot, now=now)
    news = await news_of_booking(tx, appointment, actor, now=now)
    values = vars(appointment) | holds.parameters(appointment) | notifications.parameters(news, now=now)
    audited = audit.entry(actor, "appointment.book", "appointment", appointment.id, now=now)
    await holds.execute(tx, BOOK, values | audited)
    return appointment


async def _take_own_offer(tx: Transaction, actor: Actor, pair: Pair, slot: Slot, *, now: datetime) -> bool:
    """Whether that very slot is kept for this pair by the waiting list; then the waiting is over."""
    wait_id = await holds.take_offer(tx, pair.id, slot, now=now)
    if wait_id is not None:
        await audit.record(tx, actor, "wait.accept", "wait", wait_id, now=now)
    return wait_id is not None


async def news_of_booking(tx: Transaction, appointment: Appointment, actor: Actor, *, now: datetime) -> list[Notice]:
    if appointment.status is Status.REQUESTED:
        kind, told = "appointment.requested", appointment.supervisor_id
        return [notice(appointment, told, channel, kind, actor) for channel in (Channel.MATRIX, Channel.MAIL)]
    on_behalf = actor.person_id == appointment.supervisor_id
    kind = "appointment.booked" if on_behalf else "appointment.confirmed"
    details = {} if on_behalf else {"automatic": True}
    return [
        notice(appointment, appointment.other(actor.person_id), Channel.MATRIX, kind, actor, NORMAL, details),
        *mails(appointment, kind, actor, NORMAL, details),
        *await remind(tx, [appointment], now=now),
    ]


async def confirm(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    *,
    now: datetime,
    if_revision: int | None = None,
) -> Appointment:
    """The supervisor agrees to a request. Both get the calendar entry, and reminders as they wish."""
    appointment = await get_locked(tx, actor, appointment_id, if_revision)
    appointment = await agree(tx, actor, appointment, now=now)
    kind = "appointment.confirmed"
    await notifications.enqueue(
        tx,
        [
            notice(appointment, appointment.supervisee_id, Channel.MATRIX, kind, actor),
            *mails(appointment, kind, actor),
            *await remind(tx, [appointment], now=now),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.confirm", "appointment", appointment.id, now=now),
    )
    return appointment


async def agree(tx: Transaction, actor: Actor, appointment: Appointment, *, now: datetime) -> Appointment:
    """The step of `confirm`: check and change, without its news."""
    if actor.person_id != appointment.supervisor_id:
        raise NotAllowed("refused.supervisor_answers")
    require_status(appointment, Status.REQUESTED)
    (await pairs.get(tx, appointment.pair_id)).require_active()
    require_ahead(appointment, now=now)
    if appointment.answer_by is not None and appointment.answer_by <= now:
        raise TooLate("refused.request_lapsed")
    return await change(tx, appointment, now=now, status=Status.CONFIRMED, answer_by=None, proposal=None)


async def decline(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    *,
    now: datetime,
    if_revision: int | None = None,
) -> Appointment:
    """The supervisor says no to a request, or the supervisee to what was booked on their behalf; the time is free."""
    appointment = await get_locked(tx, actor, appointment_id, if_revision)
    appointment = await turn_down(tx, actor, appointment, now=now)
    kind = "appointment.declined"
    await notifications.enqueue(
        tx,
        [
            notice(appointment, appointment.other(actor.person_id), Channel.MATRIX, kind, actor),
            *mails(appointment, kind, actor),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.decline", "appointment", appointment.id, now=now),
    )
    return appointment


async def turn_down(tx: Transaction, actor: Actor, appointment: Appointment, *, now: datetime) -> Appointment:
    """The step of `decline`: check and change, without its news."""
    if actor.person_id == appointment.supervisor_id:
        require_status(appointment, Status.REQUESTED)
    elif not appointment.on_behalf:
        raise NotAllowed("refused.supervisor_answers")
    else:
        require_status(appointment, Status.CONFIRMED)
        require_ahead(appointment, now=now)
    return await change(tx, appointment, now=now, status=Status.DECLINED, answer_by=None, proposal=None)


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

    A supervisee who does so within the supervisor's notice for it does so late, and it is marked. `reason` is told
    in the encrypted room alone, and is taken out of the outbox once it was told.
    """
    appointment = await get_locked(tx, actor, appointment_id, if_revision)
    appointment = await call_off(tx, actor, appointment, now=now)
    kind = "appointment.cancelled"
    details = {"late": True} if appointment.late else {}
    spoken = details | ({"reason": reason} if reason else {})
    await notifications.enqueue(
        tx,
        [
            notice(appointment, appointment.other(actor.person_id), Channel.MATRIX, kind, actor, HIGH, spoken),
            *mails(appointment, kind, actor, HIGH, details),
        ],
        now=now,
        audited=audit.entry(actor, "appointment.cancel", "appointment", appointment.id, now=now),
    )
    return appointment


async def call_off(tx: Transaction, actor: Actor, appointment: Appointment, *, now: datetime) -> Appointment:
    """The step of `cancel`: check and change, without its news."""
    require_status(appointment, *OPEN)
    require_ahead(appointment, now=now)
    late = False
    if actor.person_id == appointment.supervisee_id and appointment.status is Status.CONFIRMED:
        rules = await availability.load(tx, appointment.supervisor_id)
        late = appointment.starts_at - now < timedelta(minutes=rules.cancel_notice)
    return await change(tx, appointment, now=now, status=Status.CANCELLED, late=late, answer_by=None, proposal=None)


async def mark(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    status: Status,
    *,
    now: datetime,
    if_revision: int | None = None,
) -> Appointment:
    """The supervisor says how an appointment that has begun went: `completed` or `no_show`; or corrects that."""
    appointment = await get_locked(tx, actor, appointment_id, if_revision)
    if actor.person_id != appointment.supervisor_id:
        raise NotAllowed("refused.supervisor_marks")
    if status not in OVER:
        raise NotUnderstood
    if appointment.status is Status.CONFIRMED and appointment.starts_at > now:
        raise TooLate("refused.not_begun")
    require_status(appointment, *{Status.CONFIRMED, *OVER} - {status})
    appointment = await finish(tx, appointment, status, now=now)
    details = {"status": status}
    await notifications.enqueue(
        tx,
        [notice(appointment, appointment.supervisee_id, Channel.MATRIX, "appointment.marked", actor, NORMAL, details)],
        now=now,
        audited=audit.entry(actor, f"appointment.{status}", "appointment", appointment.id, now=now),
    )
    return appointment


async def finish(tx: Transaction, appointment: Appointment, status: Status, *, now: datetime) -> Appointment:
    """Write how it ended. No calendar shows that, so the revision stays. A proposal nobody answered lapses with it."""
    finished = replace(appointment, status=status, proposal=None)
    await WRITE.fetch(tx, _values(finished, now=now))
    await _rehold(tx, appointment, finished)
    if appointment.proposal is not None:
        await tell_dropped(tx, SYSTEM, appointment, appointment.proposal, "lapse_move", "move.lapsed", now=now)
    return finished


async def tell_dropped(
    tx: Transaction,
    actor: Actor,
    appointment: Appointment,
    proposal: Proposal,
    action: str,
    kind: str,
    *,
    now: datetime,
) -> None:
    """That a proposal came to nothing, to whoever had no hand in it: the other, or both where the clock did it."""
    told = appointment.people if actor.person_id is None else (appointment.other(actor.person_id),)
    details = {"proposed": [proposal.starts_at.isoformat(), proposal.ends_at.isoformat()]}
    await notifications.enqueue(
        tx,
        [
            notice(appointment, one, channel, kind, actor, NORMAL, details)
            for one in told
            for channel in (Channel.MATRIX, Channel.MAIL)
        ],
        now=now,
        audited=audit.entry(actor, f"appointment.{action}", "appointment", appointment.id, now=now),
    )


async def close_past(tx: Transaction, *, now: datetime) -> int:
    """Complete what is over, and let lapse what nobody answered in time. Returns how many changed."""
    due = list(
        await tx.execute(
            select(*COLUMNS)
            .where(
                or_(
                    (appointments.c.status == Status.CONFIRMED) & (appointments.c.ends_at <= now),
                    (appointments.c.status == Status.REQUESTED) & (appointments.c.answer_by <= now),
                )
            )
            .order_by(appointments.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
    )
    return await take_each(tx, map(from_row, due), lambda one: _close(tx, one, now=now), "close_past")


async def _close(tx: Transaction, appointment: Appointment, *, now: datetime) -> None:
    if appointment.status is Status.CONFIRMED:
        await finish(tx, appointment, Status.COMPLETED, now=now)
        await audit.record(tx, SYSTEM, "appointment.complete", "appointment", appointment.id, now=now)
        return
    lapsed = await change(tx, appointment, now=now, status=Status.DECLINED, answer_by=None, proposal=None)
    kind, details = "appointment.declined", {"lapsed": True}
    await notifications.enqueue(
        tx,
        [
            *(notice(lapsed, one, Channel.MATRIX, kind, SYSTEM, NORMAL, details) for one in lapsed.people),
            *mails(lapsed, kind, SYSTEM, NORMAL, details),
        ],
        now=now,
        audited=audit.entry(SYSTEM, "appointment.lapse", "appointment", lapsed.id, now=now),
    )


ONE = select(*COLUMNS).where(appointments.c.id == bindparam("id"))
BY_ID, BY_ID_LOCKED = Ready(ONE), Ready(ONE.with_for_update())


async def get(tx: Transaction, actor: Actor, appointment_id: uuid.UUID) -> Appointment:
    """An appointment of the actor's own. Anybody else's is as little found as one that never was."""
    found = [from_row(row) for row in await BY_ID.fetch(tx, {"id": appointment_id})]
    if not found or actor.person_id not in found[0].people:
        raise NotFound("refused.appointment_not_found")
    return found[0]


async def get_locked(
    tx: Transaction, actor: Actor, appointment_id: uuid.UUID, if_revision: int | None = None
) -> Appointment:
    """An appointment of the actor's own, that nobody else changes until this transaction ends."""
    await lock_people(tx, (await get(tx, actor, appointment_id)).people)
    [row] = await BY_ID_LOCKED.fetch(tx, {"id": appointment_id})
    appointment = from_row(row)
    if if_revision is not None and if_revision != appointment.revision:
        raise Stale
    return appointment


def check_slot(
    actor: Actor, pair: Pair, rules: Availability, starts_at: datetime, length: int | None, *, now: datetime
) -> Slot:
    """The slot that this person can have then by the rules, free or not.

    The supervisor is bound by none but the pair's lengths: the hours are hers.
    """
    minutes = hours.check_length(pair, rules, length)
    if actor.person_id != pair.supervisor.id:
        return hours.check_bookable(rules, pair.supervisor.zone, starts_at, now=now, length=minutes)
    if starts_at <= now:
        raise TooLate("refused.slot_past")
    if starts_at >= now + FARTHEST:
        raise NotUnderstood("refused.beyond_horizon", days=FARTHEST.days)
    if starts_at.second or starts_at.microsecond:
        raise NotUnderstood("refused.whole_minutes")
    return Slot(starts_at, starts_at + timedelta(minutes=minutes))


async def check_room(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    rules: Availability,
    slot: Slot,
    *,
    now: datetime,
    moving: uuid.UUID | None = None,
) -> None:
    """Raise SlotTaken unless both are free then, and the supervisor's limits leave room. Needs the people's locks.

    Her limits and her other calendars, whose times are as little offered (NotFound), do not bind herself.
    """
    length = (slot.ends_at - slot.starts_at) // A_MINUTE
    bound = actor.person_id != pair.supervisor.id
    await holds.require_free(tx, pair, rules, slot, now=now, moving=moving, length=length, bound=bound)
    if bound:
        await availability.check_limits(tx, rules, pair.supervisor, slot.starts_at, moving=moving)


def make(actor: Actor, pair: Pair, rules: Availability, slot: Slot, *, now: datetime) -> Appointment:
    """A new appointment as this person may book it; it is not written yet."""
    on_behalf = actor.person_id == pair.supervisor.id
    asks = not on_behalf and policies.approval_of(pair, rules) is Approval.ASK
    return Appointment(
        uuid.uuid4(),
        pair.id,
        pair.supervisor.id,
        pair.supervisee.id,
        slot.starts_at,
        slot.ends_at,
        Status.REQUESTED if asks else Status.CONFIRMED,
        0,
        rules.mode,
        hours.place_for(rules),
        rules.buffer_before,
        rules.buffer_after,
        actor.person_id,
        answer_by(rules, slot.starts_at, now=now) if asks else None,
    )


def answer_by(rules: Availability, *instants: datetime, now: datetime) -> datetime:
    """Until when something is to be answered: by the supervisor's rules, and before any of these."""
    return min(now + timedelta(minutes=rules.answer), *instants)


INSERT = f"""
    WITH booked AS (
        INSERT INTO appointments (id, pair_id, supervisor_id, supervisee_id, starts_at, ends_at, status, revision,
            mode, place, buffer_before_minutes, buffer_after_minutes, booked_by, answer_by, series_id, series_at,
            created_at, updated_at)
        VALUES (:id, :pair_id, :supervisor_id, :supervisee_id, :starts_at, :ends_at, :status, :revision,
            :mode, :place, :buffer_before, :buffer_after, :booked_by, :answer_by, :series_id, :series_at, :now, :now)
    ), held AS ({holds.INSERT})
"""  # noqa: S608 - both parts are constants
INSERT_ALONE = Ready(text(f"{INSERT} SELECT"))
# Appointment, holds, audit entry and outbox at once: one round trip for all that a booking writes.
BOOK = Ready(text(f"{INSERT}, audited AS ({audit.INSERT}), {notifications.ENQUEUE}"))
WRITE = Ready(
    text(
        """
    UPDATE appointments SET booked_by = :booked_by, starts_at = :starts_at, ends_at = :ends_at, status = :status,
        revision = :revision,
        buffer_before_minutes = :buffer_before, buffer_after_minutes = :buffer_after, answer_by = :answer_by,
        late = :late, proposal_id = :proposal_id, proposed_by = :proposed_by,
        proposed_starts_at = :proposed_starts_at, proposed_ends_at = :proposed_ends_at,
        proposed_before_minutes = :proposed_buffer_before, proposed_after_minutes = :proposed_buffer_after,
        proposed_answer_by = :proposed_answer_by, updated_at = :now
    WHERE id = :id
    """
    )
)
# What calendars answered stays known until it is another time, or until the supervisor agrees otherwise than by hers.
FORGET_ANSWERS = Ready(
    text(
        """
    DELETE FROM attendances
    WHERE appointment_id = :id AND (CAST(:moved AS bool) OR person_id = CAST(:agreed AS uuid))
    """
    )
)
NO_PROPOSAL = dict.fromkeys(
    (
        "proposal_id",
        "proposed_by",
        "proposed_starts_at",
        "proposed_ends_at",
        "proposed_buffer_before",
        "proposed_buffer_after",
        "proposed_answer_by",
    )
)


async def insert(tx: Transaction, appointment: Appointment, *, now: datetime) -> None:
    """Write a new appointment and take both people's time. Raises SlotTaken."""
    await holds.execute(tx, INSERT_ALONE, {**vars(appointment), **holds.parameters(appointment), "now": now})


async def change(tx: Transaction, appointment: Appointment, *, now: datetime, **values: Any) -> Appointment:
    """Write a new revision with these values, take and give back time as it needs, settle what is out of date.

    The outbox's unsent news of earlier revisions is superseded. Raises SlotTaken.
    """
    changed = replace(appointment, revision=appointment.revision + 1, **values)
    await WRITE.fetch(tx, _values(changed, now=now))
    await _rehold(tx, appointment, changed)
    await _forget_answers(tx, appointment, changed)
    await notifications.supersede_older(tx, changed.id, changed.revision, now=now)
    return changed


async def _forget_answers(tx: Transaction, before: Appointment, after: Appointment) -> None:
    moved = (before.starts_at, before.ends_at) != (after.starts_at, after.ends_at)
    agreed = before.status is Status.REQUESTED and after.status is Status.CONFIRMED
    if moved or agreed:
        values = {"id": after.id, "moved": moved, "agreed": after.supervisor_id if agreed else None}
        await FORGET_ANSWERS.fetch(tx, values)


async def set_proposal(
    tx: Transaction, appointment: Appointment, proposal: Proposal | None, *, now: datetime
) -> Appointment:
    """Write what is proposed, and hold its time. The calendar does not show it: the revision stays."""
    changed = replace(appointment, proposal=proposal)
    await WRITE.fetch(tx, _values(changed, now=now))
    await _rehold(tx, appointment, changed)
    return changed


async def _rehold(tx: Transaction, before: Appointment, after: Appointment) -> None:
    if after.status in GONE:
        await holds.release(tx, after)
    elif holds.parameters(before) != holds.parameters(after):
        await holds.retake(tx, after)


def _values(appointment: Appointment, *, now: datetime) -> dict[str, Any]:
    proposed = appointment.proposal
    values: dict[str, Any] = {
        "id": appointment.id,
        "starts_at": appointment.starts_at,
        "ends_at": appointment.ends_at,
        "status": appointment.status,
        "revision": appointment.revision,
        "buffer_before": appointment.buffer_before,
        "buffer_after": appointment.buffer_after,
        "booked_by": appointment.booked_by,
        "answer_by": appointment.answer_by,
        "late": appointment.late,
        "now": now,
    }
    if proposed is None:
        return values | NO_PROPOSAL
    return values | {
        "proposal_id": proposed.id,
        "proposed_by": proposed.by,
        "proposed_starts_at": proposed.starts_at,
        "proposed_ends_at": proposed.ends_at,
        "proposed_buffer_before": proposed.buffer_before,
        "proposed_buffer_after": proposed.buffer_after,
        "proposed_answer_by": proposed.answer_by,
    }


def require_status(appointment: Appointment, *allowed: Status) -> None:
    if appointment.status not in allowed:
        raise AlreadyAnswered(status=appointment.status)


def require_ahead(appointment: Appointment, *, now: datetime) -> None:
    if appointment.starts_at <= now:
        raise TooLate("refused.appointment_past")


def notice(
    appointment: Appointment,
    person_id: uuid.UUID,
    channel: Channel,
    kind: str,
    actor: Actor,
    priority: int = NORMAL,
    details: dict[str, Any] | None = None,
) -> Notice:
    """News of an appointment in its present revision."""
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


def mails(
    appointment: Appointment, kind: str, actor: Actor, priority: int = NORMAL, details: dict[str, Any] | None = None
) -> Sequence[Notice]:
    """News by mail to both: each has a calendar."""
    return [notice(appointment, person, Channel.MAIL, kind, actor, priority, details) for person in appointment.people]


async def remind(tx: Transaction, several: Sequence[Appointment], *, now: datetime) -> list[Notice]:
    """The reminders of those that are confirmed, as each of the two wishes. They are of one pair."""
    confirmed = [one for one in several if one.status is Status.CONFIRMED]
    if not confirmed:
        return []
    wishes = await preferences.of_several(tx, confirmed[0].people)
    wanted = {person: wishes[person].reminders for person in confirmed[0].people}
    return [
        notice
        for one in confirmed
        for notice in reminders.plan(one.id, one.revision, one.pair_id, wanted, one.starts_at, now=now)
    ]


def asked_length(starts_at: datetime, ends_at: datetime | None, length: int | None) -> int | None:
    """The length that was asked for, in minutes. Raises NotFound for an end that is no whole minutes later."""
    if ends_at is None:
        return length
    minutes, rest = divmod(ends_at - starts_at, A_MINUTE)
    if rest or minutes <= 0 or length not in (None, minutes):
        raise NotFound("refused.slot_not_offered")
    return minutes

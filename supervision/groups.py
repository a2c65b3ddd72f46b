"""Groups: several appointments of a series that are answered, cancelled or let lapse at once.

Each has an audit entry of its own, and each person hears of all of them by one piece of news in each channel.
"""

import itertools
import json
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import or_, select, text, update

from supervision import appointments, moves, notifications, series
from supervision.appointments import Appointment
from supervision.audit import SYSTEM, Actor
from supervision.db import Transaction, take_each
from supervision.errors import AlreadyAnswered, NotAllowed, NotUnderstood, Refused, Stale, TooLate
from supervision.models import Status
from supervision.models import appointments as appointments_table
from supervision.models import series as table
from supervision.notifications import HIGH, Notice


class Scope(StrEnum):
    """Which of a series are meant: one alone, it and those after it, or all."""

    ONE = "one"
    FOLLOWING = "following"
    ALL = "all"


# News that nobody has tried to send yet and that speaks of nothing but what is told anew. What a calendar does not
# show, such as a proposal, says nothing of what was confirmed before, so it overtakes its like alone.
OVERTAKE = text(
    """
    UPDATE notifications SET state = 'superseded', settled_at = :now, details = details - ARRAY['lines', 'reason']
    WHERE state = 'pending' AND channel IN ('mail', 'matrix') AND priority IN (1, 2) AND next_try_at <= :now
        AND attempts = 0 AND pair_id = :pair_id AND appointment_id IS NULL
        AND kind LIKE :kind AND details -> 'appointments' <@ CAST(:told AS jsonb)
    """
)


@dataclass(frozen=True)
class Group:
    """The appointments of a scope, and the one that was named."""

    anchor: Appointment
    members: list[Appointment]


@dataclass(frozen=True)
class Done:
    """What was changed, before and after."""

    pairs: list[tuple[Appointment, Appointment]]

    @property
    def after(self) -> list[Appointment]:
        return [after for _, after in self.pairs]

    @property
    def people(self) -> tuple[uuid.UUID, uuid.UUID]:
        return self.pairs[0][0].people

    @property
    def was(self) -> dict[str, Any]:
        return {"was": [before.starts_at.isoformat() for before, _ in self.pairs]}

    def other(self, actor: Actor) -> uuid.UUID:
        return self.pairs[0][0].other(actor.person_id)


async def confirm(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    *,
    now: datetime,
    if_revision: int | None = None,
    seen: Mapping[uuid.UUID, int] | None = None,
) -> list[Appointment]:
    """The supervisor agrees to the requests of a scope. Returns what is confirmed now.

    Here as in all these functions: what the single function would refuse is left out, and if nothing is left the
    refusal of the appointment that was named is raised, AlreadyAnswered for its status. `if_revision` is that
    appointment's. `seen` limits them to those that still have the revision that the person was shown; Stale if none.
    """
    if scope is Scope.ONE:
        return [await appointments.confirm(tx, actor, appointment_id, now=now, if_revision=if_revision)]
    group = await gather(tx, actor, appointment_id, scope, if_revision, seen=seen)
    done = await _each(group, lambda one: appointments.agree(tx, actor, one, now=now))
    news = series.notices("series.confirmed", actor, done.after, [done.other(actor)], done.people)
    news += await appointments.remind(tx, done.after, now=now)
    await settle(tx, actor, "appointment.confirm", done, news, now=now)
    return done.after


async def decline(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    *,
    now: datetime,
    if_revision: int | None = None,
    seen: Mapping[uuid.UUID, int] | None = None,
) -> list[Appointment]:
    """The supervisor says no to requests, or the supervisee to what was booked on their behalf."""
    if scope is Scope.ONE:
        return [await appointments.decline(tx, actor, appointment_id, now=now, if_revision=if_revision)]
    group = await gather(tx, actor, appointment_id, scope, if_revision, seen=seen)
    done = await _each(group, lambda one: appointments.turn_down(tx, actor, one, now=now))
    news = series.notices("series.declined", actor, done.after, [done.other(actor)], done.people)
    await settle(tx, actor, "appointment.decline", done, news, now=now)
    return done.after


async def cancel(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    *,
    now: datetime,
    reason: str | None = None,
    if_revision: int | None = None,
    seen: Mapping[uuid.UUID, int] | None = None,
) -> list[Appointment]:
    """Either of the two calls off what has not begun. `reason` is told in the encrypted room alone."""
    if scope is Scope.ONE:
        return [await appointments.cancel(tx, actor, appointment_id, now=now, reason=reason, if_revision=if_revision)]
    group = await gather(tx, actor, appointment_id, scope, if_revision, seen=seen)
    done = await _each(group, lambda one: appointments.call_off(tx, actor, one, now=now))
    late = [str(one.id) for one in done.after if one.late]
    details: dict[str, Any] = {"late": late} if late else {}
    spoken = details | ({"reason": reason} if reason else {})
    kind = "series.cancelled"
    news = series.notices(kind, actor, done.after, [done.other(actor)], [], spoken, HIGH)
    news += series.notices(kind, actor, done.after, [], done.people, details, HIGH)
    await settle(tx, actor, "appointment.cancel", done, news, now=now)
    return done.after


async def accept(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    *,
    now: datetime,
    if_proposal: uuid.UUID | None = None,
    if_proposals: Collection[uuid.UUID] | None = None,
) -> list[Appointment]:
    """Agree to the other's proposals in a scope: the appointments are at their new times, and confirmed.

    `if_proposal` is the named appointment's; `if_proposals` limits them to those that the person was shown. Here as
    in `refuse` and `withdraw`, Stale if none of them is open any more.
    """
    if scope is Scope.ONE:
        return [await moves.accept(tx, actor, appointment_id, now=now, if_proposal=if_proposal)]
    group = await gather(tx, actor, appointment_id, scope, if_proposal=if_proposal, if_proposals=if_proposals)
    done = await _each(group, lambda one: moves.carry_out(tx, actor, one, now=now))
    details = done.was | {"accepted": True}
    news = series.notices("series.rescheduled", actor, done.after, [done.other(actor)], done.people, details)
    news += await appointments.remind(tx, done.after, now=now)
    await settle(tx, actor, "appointment.accept", done, news, now=now)
    return done.after


async def refuse(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    *,
    now: datetime,
    if_proposal: uuid.UUID | None = None,
    if_proposals: Collection[uuid.UUID] | None = None,
) -> list[Appointment]:
    """Say no to the other's proposals in a scope; the old times stand."""
    if scope is Scope.ONE:
        return [await moves.refuse(tx, actor, appointment_id, now=now, if_proposal=if_proposal)]
    group = await gather(tx, actor, appointment_id, scope, if_proposal=if_proposal, if_proposals=if_proposals)
    return await _drop(tx, actor, group, "refuse", "series.refused", own=False, now=now)


async def withdraw(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    *,
    now: datetime,
    if_proposal: uuid.UUID | None = None,
    if_proposals: Collection[uuid.UUID] | None = None,
) -> list[Appointment]:
    """Take one's own proposals in a scope back; the old times stand."""
    if scope is Scope.ONE:
        return [await moves.withdraw(tx, actor, appointment_id, now=now, if_proposal=if_proposal)]
    group = await gather(tx, actor, appointment_id, scope, if_proposal=if_proposal, if_proposals=if_proposals)
    return await _drop(tx, actor, group, "withdraw", "series.withdrawn", own=True, now=now)


async def lapse(tx: Transaction, *, now: datetime) -> int:
    """Let lapse the requests and proposals of series that nobody answered in time, with one piece of news for all
    of a series that do so together. Returns how many were due.
    """
    due = await tx.execute(
        select(*appointments.COLUMNS)
        .where(
            appointments_table.c.series_id.is_not(None),
            or_(
                (appointments_table.c.status == Status.REQUESTED) & (appointments_table.c.answer_by <= now),
                appointments_table.c.proposal_id.is_not(None) & (appointments_table.c.proposed_answer_by <= now),
            ),
        )
        .order_by(appointments_table.c.series_id, appointments_table.c.series_at)
        .limit(500)
        .with_for_update(skip_locked=True)
    )
    found = [appointments.from_row(row) for row in due]
    together = [list(members) for _, members in itertools.groupby(found, key=lambda one: one.series_id)]
    await take_each(tx, together, lambda members: _lapse_group(tx, members, now=now), "lapse_series")
    return len(found)


async def _lapse_group(tx: Transaction, members: Sequence[Appointment], *, now: datetime) -> None:
    declined: list[tuple[Appointment, Appointment]] = []
    proposed: list[Appointment] = []
    for one in members:
        if one.status is Status.REQUESTED and one.answer_by is not None and one.answer_by <= now:
            values: dict[str, Any] = {"status": Status.DECLINED, "answer_by": None, "proposal": None}
            declined.append((one, await appointments.change(tx, one, now=now, **values)))
        else:
            proposed.append(one)
    if declined:
        done = Done(declined)
        news = series.notices("series.declined", SYSTEM, done.after, done.people, done.people, {"lapsed": True})
        await settle(tx, SYSTEM, "appointment.lapse", done, news, now=now)
    if proposed:
        group = Group(proposed[0], proposed)
        await _drop(tx, SYSTEM, group, "lapse_move", "series.lapsed", own=None, now=now)


async def gather(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    if_revision: int | None = None,
    *,
    seen: Mapping[uuid.UUID, int] | None = None,
    if_proposal: uuid.UUID | None = None,
    if_proposals: Collection[uuid.UUID] | None = None,
) -> Group:
    """A scope of the actor's own, that nobody else changes until this transaction ends.

    Raises NotUnderstood for an appointment of no series, and Stale if none is left of those that the person was shown.
    """
    anchor = await appointments.get_locked(tx, actor, appointment_id, if_revision)
    if anchor.series_id is None:
        raise NotUnderstood("refused.no_series")
    if if_proposal is not None:
        moves.require_proposal(anchor, if_proposal)
    query = select(*appointments.COLUMNS).where(appointments_table.c.series_id == anchor.series_id)
    if scope is Scope.FOLLOWING:
        query = query.where(appointments_table.c.series_at >= anchor.series_at)
    rows = await tx.execute(query.order_by(appointments_table.c.series_at).with_for_update())
    members = [appointments.from_row(row) for row in rows]
    if seen is not None:
        members = [one for one in members if seen.get(one.id) == one.revision]
    if if_proposals is not None:
        members = [one for one in members if one.proposal is not None and one.proposal.id in if_proposals]
    if not members:
        raise Stale
    return Group(anchor, members)


async def _each(group: Group, step: Callable[[Appointment], Awaitable[Appointment]]) -> Done:
    """Take the step with each that allows it. If none does, raise the refusal of the one that was named."""
    done: list[tuple[Appointment, Appointment]] = []
    reason: Refused | None = None
    for one in group.members:
        try:
            done.append((one, await step(one)))
        except (AlreadyAnswered, NotAllowed, TooLate) as refused:
            if reason is None or one.id == group.anchor.id:
                reason = refused
    if not done:
        raise reason or AlreadyAnswered(status=group.anchor.status)
    return Done(done)


async def _drop(
    tx: Transaction,
    actor: Actor,
    group: Group,
    action: str,
    kind: str,
    *,
    own: bool | None,
    now: datetime,
) -> list[Appointment]:
    """Drop proposals, the actor's own or the other's, or any where time did it; tell whoever had no hand in it."""

    async def step(one: Appointment) -> Appointment:
        if own is None:
            return await appointments.set_proposal(tx, one, None, now=now)
        return await moves.drop(tx, actor, one, own=own, now=now)

    done = await _each(group, step)
    told = done.people if own is None else (done.other(actor),)
    gone = [before.proposal for before, _ in done.pairs if before.proposal is not None]
    details = {"proposed": [[one.starts_at.isoformat(), one.ends_at.isoformat()] for one in gone]}
    news = series.notices(kind, actor, done.after, told, told, details)
    await settle(tx, actor, f"appointment.{action}", done, news, now=now, shown=False)
    return done.after


async def settle(
    tx: Transaction,
    actor: Actor,
    action: str,
    done: Done,
    news: Sequence[Notice],
    *,
    now: datetime,
    shown: bool = True,
) -> None:
    """Write what belongs to a change of several: `shown` says that their calendar entry changes with it."""
    one = done.after[0]
    told = json.dumps([str(one.id) for one in done.after])
    kind = "series.%" if shown else "series.proposed"
    await tx.execute(OVERTAKE, {"now": now, "pair_id": one.pair_id, "kind": kind, "told": told})
    if shown:
        await tx.execute(update(table).where(table.c.id == one.series_id).values(revision=table.c.revision + 1))
    await series.record(tx, actor, action, done.after, now=now)
    await notifications.enqueue(tx, news, now=now)

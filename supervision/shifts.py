"""Shifts: several appointments of a series that move at once, each by the same wall-clock time."""

import uuid
import zoneinfo
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from supervision import appointments, availability, groups, hours, ledgers, moves, pairs, series
from supervision.appointments import FARTHEST, OPEN, Appointment
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import AlreadyAnswered, NotFound, Refused, Stale
from supervision.groups import Scope
from supervision.hours import Availability, Slot
from supervision.ledgers import Ledger
from supervision.pairs import Pair
from supervision.repetitions import wall_clock
from supervision.series import Clash


@dataclass(frozen=True)
class Moved:
    """What was moved or, where it has a proposal now, is proposed to move; and what was left where it was."""

    moved: list[Appointment]
    clashes: list[Clash]


async def reschedule(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    starts_at: datetime,
    scope: Scope,
    *,
    skip: bool,
    now: datetime,
    if_revision: int | None = None,
    seen: Mapping[uuid.UUID, int] | None = None,
) -> Moved:
    """Move the appointment that is named to `starts_at`, and the others by as much of wall-clock time.

    For each holds what holds for `moves.reschedule`: it moves at once, or is proposed to move, and keeps its length.
    What cannot be there is left where it is if `skip` says so; otherwise, and if nothing is left, SlotTaken names
    them all as `series.book` does. A refusal of the named one by the rules alone is raised as it is. `seen` is as in
    groups.py; Stale, too, if the named one is not as it was shown, since by how much they move hangs on where it was.
    """
    if scope is Scope.ONE:
        moved = await moves.reschedule(tx, actor, appointment_id, starts_at, now=now, if_revision=if_revision)
        return Moved([moved], [])
    group = await groups.gather(tx, actor, appointment_id, scope, if_revision, seen=seen)
    if group.anchor not in group.members:
        raise Stale
    series.require_near(starts_at, now=now)
    pair = await pairs.get(tx, group.anchor.pair_id)
    pair.require_active()
    rules = await availability.load(tx, pair.supervisor.id)
    zone = (await series.of_appointment(tx, group.anchor)).zone
    shift = wall_clock(starts_at, zone) - wall_clock(group.anchor.starts_at, zone)
    able = [one for one in group.members if one.status in OPEN and one.starts_at > now]
    if not able:
        raise AlreadyAnswered(status=group.anchor.status)
    far = replace(rules, horizon=(2 * FARTHEST).days)  # only the one that is named has to lie within the horizon
    aims = [
        _aim(
            actor,
            one,
            pair,
            rules if one.id == group.anchor.id else far,
            _target(one, group.anchor, starts_at, shift, zone),
            now=now,
        )
        for one in able
    ]
    for aim in aims:
        if aim.refused is not None and aim.before.id == group.anchor.id:
            raise aim.refused
    kept, clashes = await _fit(tx, actor, pair, rules, aims, zone)
    series.refuse_clashes(clashes, skip=skip, left=len(kept))
    return Moved(await _move(tx, actor, pair, rules, kept, clashes, backwards=shift > timedelta(), now=now), clashes)


@dataclass(frozen=True)
class _Aim:
    """Where an appointment is to go. `accepts`: the other has proposed just that. `key` says why it cannot be."""

    before: Appointment
    slot: Slot
    key: str | None = None
    refused: Refused | None = None
    at_once: bool = False
    accepts: bool = False


def _target(
    one: Appointment, anchor: Appointment, starts_at: datetime, shift: timedelta, zone: zoneinfo.ZoneInfo
) -> tuple[datetime, bool]:
    """The instant that it moves to, and whether the clock shows that time at all."""
    if one.id == anchor.id:
        return starts_at, True
    local = wall_clock(one.starts_at, zone) + shift
    instant = hours.to_instant(local.date(), local.time(), zone)
    return (local.replace(tzinfo=zone).astimezone(UTC), False) if instant is None else (instant, True)


def _aim(
    actor: Actor,
    one: Appointment,
    pair: Pair,
    rules: Availability,
    target: tuple[datetime, bool],
    *,
    now: datetime,
) -> _Aim:
    starts_at, exists = target
    slot = Slot(starts_at, starts_at + timedelta(minutes=one.length))
    if not exists:
        return _Aim(one, slot, "refused.clock_skips")
    proposal = one.proposal
    if proposal is not None and proposal.by != actor.person_id and proposal.answer_by > now:
        if (proposal.starts_at, proposal.ends_at) == (slot.starts_at, slot.ends_at):
            return _Aim(one, slot, at_once=True, accepts=True)
    try:
        moves.check_move(actor, one, pair, rules, starts_at, now=now)
    except NotFound as refused:
        return _Aim(one, slot, refused.key)
    except Refused as refused:
        return _Aim(one, slot, refused.key, refused)
    return _Aim(one, slot, at_once=moves.is_at_once(actor, one, pair, rules))


async def _fit(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    rules: Availability,
    aims: Sequence[_Aim],
    zone: zoneinfo.ZoneInfo,
) -> tuple[list[_Aim], list[Clash]]:
    """Those that can all go where they aim, and the others, in their order.

    Whatever stays takes the time where it is, which may be in another's way: so again, until nothing more stays.
    """
    moving = [aim for aim in aims if aim.key is None]
    outside = await ledgers.look(tx, actor, pair, rules, [aim.slot for aim in moving], {aim.before.id for aim in aims})
    keys = {aim.before.id: aim.key for aim in aims if aim.key is not None}
    while True:
        ledger = outside.copy()
        _put_standing(ledger, aims, {aim.before.id for aim in moving})
        refused = dict(_put_moving(ledger, moving))
        if not refused:
            break
        keys |= refused
        moving = [aim for aim in moving if aim.before.id not in refused]
    clashes = [
        Clash(aim.slot.starts_at, keys[aim.before.id], wall_clock(aim.slot.starts_at, zone))
        for aim in aims
        if aim.before.id in keys
    ]
    return moving, clashes


def _put_standing(ledger: Ledger, aims: Iterable[_Aim], moving: Collection[uuid.UUID]) -> None:
    """What the batch takes in any case: the old times, and the proposals that are not replaced."""
    for aim in aims:
        one, goes = aim.before, aim.before.id in moving
        if not (goes and aim.at_once):
            ledger.put(one.id, one.held, one.starts_at, one.ends_at)
        if goes and aim.accepts:
            ledger.put_new(one.id, aim.slot)  # it holds that already
        if one.proposal is not None and not goes:
            ledger.put(one.id, one.proposal.held, one.proposal.starts_at, one.proposal.ends_at)


def _put_moving(ledger: Ledger, moving: Iterable[_Aim]) -> Iterator[tuple[uuid.UUID, str]]:
    """Put each where it goes, if it can; the others with the reason."""
    for aim in moving:
        if aim.accepts:
            continue
        key = ledger.why_not(aim.before.id, aim.slot)
        if key is None:
            ledger.put_new(aim.before.id, aim.slot)
        else:
            yield aim.before.id, key


async def _move(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    rules: Availability,
    kept: Sequence[_Aim],
    clashes: Sequence[Clash],
    *,
    backwards: bool,
    now: datetime,
) -> list[Appointment]:
    """Write them in such an order that none is put where another still is, and tell."""
    after: dict[uuid.UUID, Appointment] = {}
    free = {aim.before.id: await _clear(tx, aim, now=now) for aim in kept}
    ordered = sorted(kept, key=lambda aim: aim.before.starts_at, reverse=backwards)
    for aim in sorted(ordered, key=lambda aim: not aim.at_once):
        one = free[aim.before.id]
        if aim.accepts:
            after[one.id] = await moves.carry_out(tx, actor, one, now=now)
        else:
            after[one.id] = await moves.put(tx, actor, one, pair, rules, aim.slot, now=now)
    skipped: dict[str, Any] = {"skipped": [clash.starts_at.isoformat() for clash in clashes]}
    at_once = groups.Done([(aim.before, after[aim.before.id]) for aim in kept if aim.at_once])
    asked = groups.Done([(aim.before, after[aim.before.id]) for aim in kept if not aim.at_once])
    if at_once.pairs:
        others, details = [at_once.other(actor)], at_once.was | skipped
        news = series.notices("series.rescheduled", actor, at_once.after, others, at_once.people, details)
        news += await appointments.remind(tx, at_once.after, now=now)
        await groups.settle(tx, actor, "appointment.reschedule", at_once, news, now=now)
    if asked.pairs:
        others = [asked.other(actor)]
        details = {"proposals": [str(one.proposal.id) for one in asked.after if one.proposal]} | skipped
        news = series.notices("series.proposed", actor, asked.after, others, others, details)
        await groups.settle(tx, actor, "appointment.propose", asked, news, now=now, shown=False)
    return [after[aim.before.id] for aim in kept]


async def _clear(tx: Transaction, aim: _Aim, *, now: datetime) -> Appointment:
    """Give back what a proposal holds that is replaced: another of the batch may be going there."""
    if aim.before.proposal is None or aim.accepts:
        return aim.before
    return await appointments.set_proposal(tx, aim.before, None, now=now)

"""Series: appointments that were booked together by a rule, and what is done to several of them at once.

A rule is an RRULE (RFC 5545, 3.3.10) counted in the wall-clock time of the supervisor's zone, so that a daylight-saving
change moves the instants and not the clock. Every occurrence is an appointment of its own: what is done to one alone
is the plain function of appointments.py or moves.py. What is done to several has an audit entry for each, and one
piece of news for each person and channel.
"""

import itertools
import json
import uuid
import zoneinfo
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, or_, select, text, update

from supervision import appointments, audit, availability, hours, ledgers, moves, notifications, pairs
from supervision.appointments import FARTHEST, OPEN, Appointment
from supervision.audit import SYSTEM, Actor
from supervision.db import Transaction, lock_people
from supervision.errors import (
    AlreadyAnswered,
    NotAllowed,
    NotFound,
    NotUnderstood,
    Refused,
    SlotTaken,
    Stale,
    TooLate,
)
from supervision.hours import Availability, Slot
from supervision.ledgers import Ledger
from supervision.models import Channel, Status
from supervision.models import appointments as appointments_table
from supervision.models import pairs as pairs_table
from supervision.models import series as table
from supervision.notifications import HIGH, NORMAL, Notice
from supervision.pairs import Pair
from supervision.repetitions import Repetition, Rule, expand, read_rule, rule_of, text_of, wall_clock

__all__ = [
    "Booked",
    "Clash",
    "Moved",
    "Repetition",
    "Rule",
    "Scope",
    "Series",
    "accept",
    "book",
    "cancel",
    "confirm",
    "decline",
    "expand",
    "lapse",
    "occurrences",
    "of",
    "read_rule",
    "refuse",
    "reschedule",
    "rule_of",
    "wall_clock",
    "withdraw",
]


class Scope(StrEnum):
    """Which of a series are meant: one alone, it and those after it, or all."""

    ONE = "one"
    FOLLOWING = "following"
    ALL = "all"


@dataclass(frozen=True)
class Clash:
    """An occurrence that cannot be booked, or moved there, and the key of the sentence that says why.

    `local` is its wall-clock time in the supervisor's zone. Where the clock jumps over that, `key` is
    `refused.clock_skips`, and `starts_at` the instant by the offset before the jump (RFC 5545, 3.3.5).
    """

    starts_at: datetime
    key: str
    local: datetime


@dataclass(frozen=True)
class Booked:
    series_id: uuid.UUID
    booked: list[Appointment]
    clashes: list[Clash]


@dataclass(frozen=True)
class Moved:
    """What was moved or, where it has a proposal now, is proposed to move; and what was left where it was."""

    moved: list[Appointment]
    clashes: list[Clash]


@dataclass(frozen=True)
class Series:
    """`starts_at` and `ends_at` are the rule's first occurrence, which may not have been booked.

    `rule` always ends by COUNT. `revision` counts the changes of several occurrences that a calendar shows: it is the
    SEQUENCE of the entry for the whole series.
    """

    id: uuid.UUID
    pair_id: uuid.UUID
    rule: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str
    revision: int

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.time_zone)

    @property
    def first_local(self) -> datetime:
        """The naive wall-clock time of the first occurrence, as `expand` wants it."""
        return wall_clock(self.starts_at, self.zone)


def _place(local: datetime, zone: zoneinfo.ZoneInfo, rules: Availability, minutes: int, *, bound: bool) -> Slot | Clash:
    """The slot at a wall-clock time: the first where it repeats. `bound` says that the hours have to offer it."""
    instant = hours.to_instant(local.date(), local.time(), zone)
    if instant is None:
        return Clash(local.replace(tzinfo=zone).astimezone(UTC), "refused.clock_skips", local)
    if bound and not any(hours.offered(rules, zone, instant, instant + timedelta(microseconds=1), minutes)):
        return Clash(instant, "refused.slot_not_offered", local)
    return Slot(instant, instant + timedelta(minutes=minutes))


def _require_near(starts_at: datetime, *, now: datetime) -> None:
    """Refuse what is past or so far off that the calendar has no room for a year after it."""
    if starts_at <= now:
        raise TooLate("refused.slot_past")
    if starts_at >= now + FARTHEST:
        raise NotUnderstood("refused.beyond_horizon", days=FARTHEST.days)


def _refuse_clashes(clashes: Sequence[Clash], *, skip: bool, left: int) -> None:
    """Raise SlotTaken with all of them where none may be skipped, or nothing is left."""
    if clashes and not (skip and left):
        raise SlotTaken("refused.series_clashes", clashes=[one.starts_at for one in clashes], found=tuple(clashes))


async def book(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    starts_at: datetime,
    rule: str,
    *,
    skip: bool,
    now: datetime,
    length: int | None = None,
) -> Booked:
    """Book every occurrence of a rule, as `appointments.book` books one; `length` is in minutes.

    Only the first has to lie within the supervisor's notice and horizon. What clashes is left out where `skip` says
    so. Otherwise, and if nothing is left, SlotTaken names them all: `clashes` holds their instants, `found` the
    clashes. Raises what `appointments.book` raises, and NotUnderstood for a rule that is none, or too long.
    """
    pair.require_active()
    pair.member(actor.person_id)
    _require_near(starts_at, now=now)
    zone = pair.supervisor.zone
    first = wall_clock(starts_at, zone)
    read = read_rule(rule, zone)
    clocks = read.starts(first)
    await lock_people(tx, [person.id for person in pair.people])
    rules = await availability.load(tx, pair.supervisor.id)
    minutes = hours.check_length(pair, rules, length)
    if hours.to_instant(first.date(), first.time(), zone) != starts_at:
        raise NotFound("refused.slot_not_offered")  # the second reading of a clock that repeats: no rule can say it
    with suppress(NotFound):  # a first that is not offered is a clash like any other
        appointments.check_slot(actor, pair, rules, starts_at, minutes, now=now)
    bound = actor.person_id != pair.supervisor.id
    placed = [(local, _place(local, zone, rules, minutes, bound=bound)) for local in clocks]
    slots, clashes = await _sift(tx, actor, pair, rules, placed)
    _refuse_clashes(clashes, skip=skip, left=len(slots))
    kept = Series(
        uuid.uuid4(),
        pair.id,
        text_of(read, first, len(clocks)),
        starts_at,
        starts_at + timedelta(minutes=minutes),
        zone.key,
        0,
    )
    booked = await _insert(tx, actor, pair, rules, kept, slots, now=now)
    await _tell_booked(tx, actor, kept.id, booked, clashes, now=now)
    return Booked(kept.id, booked, clashes)


async def _sift(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    rules: Availability,
    placed: Iterable[tuple[datetime, Slot | Clash]],
) -> tuple[list[Slot], list[Clash]]:
    """Those that can be booked together, and those that cannot, in their order."""
    placed = list(placed)
    ledger = await ledgers.look(tx, actor, pair, rules, [slot for _, slot in placed if isinstance(slot, Slot)])
    slots: list[Slot] = []
    clashes: list[Clash] = []
    for local, slot in placed:
        if isinstance(slot, Clash):
            clashes.append(slot)
            continue
        owner = uuid.uuid4()
        key = ledger.why_not(owner, slot)
        if key is not None:
            clashes.append(Clash(slot.starts_at, key, local))
            continue
        ledger.put_new(owner, slot)
        slots.append(slot)
    return slots, clashes


async def _insert(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    rules: Availability,
    kept: Series,
    slots: Iterable[Slot],
    *,
    now: datetime,
) -> list[Appointment]:
    """Write the series and its occurrences, which all have the same place: their calendar entry is one."""
    await tx.execute(insert(table).values(**vars(kept), created_at=now))
    booked: list[Appointment] = []
    for slot in slots:
        made = appointments.make(actor, pair, rules, slot, now=now)
        place = booked[0].place if booked else made.place
        booked.append(replace(made, series_id=kept.id, series_at=slot.starts_at, place=place))
        await appointments.insert(tx, booked[-1], now=now)
    return booked


async def _tell_booked(
    tx: Transaction,
    actor: Actor,
    series_id: uuid.UUID,
    booked: Sequence[Appointment],
    clashes: Sequence[Clash],
    *,
    now: datetime,
) -> None:
    one = booked[0]
    details: dict[str, Any] = {"skipped": [clash.starts_at.isoformat() for clash in clashes]}
    if one.status is Status.REQUESTED:
        news = _news("series.requested", actor, booked, [one.supervisor_id], [one.supervisor_id], details)
    else:
        on_behalf = actor.person_id == one.supervisor_id
        details |= {} if on_behalf else {"automatic": True}
        kind = "series.booked" if on_behalf else "series.confirmed"
        news = _news(kind, actor, booked, [one.other(actor.person_id)], one.people, details)
        news += _reminders(booked, now=now)
    await _record(tx, actor, "appointment.book", booked, now=now)
    await notifications.enqueue(tx, news, now=now)


async def of(tx: Transaction, actor: Actor, series_id: uuid.UUID) -> Series:
    """A series of the actor's own. Anybody else's is as little found as one that never was."""
    query = (
        select(*COLUMNS, pairs_table.c.supervisor_id, pairs_table.c.supervisee_id)
        .join(pairs_table, pairs_table.c.id == table.c.pair_id)
        .where(table.c.id == series_id)
    )
    row = (await tx.execute(query)).one_or_none()
    if row is None or actor.person_id not in row[-2:]:
        raise NotFound("refused.series_not_found")
    return Series(*row[:-2])


COLUMNS = (
    table.c.id,
    table.c.pair_id,
    table.c.rule,
    table.c.starts_at,
    table.c.ends_at,
    table.c.time_zone,
    table.c.revision,
)


async def occurrences(tx: Transaction, series_id: uuid.UUID, *, statuses: Collection[Status] = ()) -> list[Appointment]:
    """The appointments of a series in the order of its rule, of any status or of these.

    Starts of the rule that are no occurrence's `series_at` were never booked.
    """
    query = select(*appointments.COLUMNS).where(appointments_table.c.series_id == series_id)
    if statuses:
        query = query.where(appointments_table.c.status.in_(statuses))
    rows = await tx.execute(query.order_by(appointments_table.c.series_at))
    return [appointments.from_row(row) for row in rows]


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
    group = await _group(tx, actor, appointment_id, scope, if_revision, seen=seen)
    done = await _each(group, lambda one: appointments.agree(tx, actor, one, now=now))
    news = _news("series.confirmed", actor, done.after, [done.other(actor)], done.people)
    await _settle(tx, actor, "appointment.confirm", done, [*news, *_reminders(done.after, now=now)], now=now)
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
    group = await _group(tx, actor, appointment_id, scope, if_revision, seen=seen)
    done = await _each(group, lambda one: appointments.turn_down(tx, actor, one, now=now))
    news = _news("series.declined", actor, done.after, [done.other(actor)], done.people)
    await _settle(tx, actor, "appointment.decline", done, news, now=now)
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
) -> list[Appointment]:
    """Either of the two calls off what has not begun. `reason` is told in the encrypted room alone."""
    if scope is Scope.ONE:
        return [await appointments.cancel(tx, actor, appointment_id, now=now, reason=reason, if_revision=if_revision)]
    group = await _group(tx, actor, appointment_id, scope, if_revision)
    done = await _each(group, lambda one: appointments.call_off(tx, actor, one, now=now))
    late = [str(one.id) for one in done.after if one.late]
    details: dict[str, Any] = {"late": late} if late else {}
    spoken = details | ({"reason": reason} if reason else {})
    kind = "series.cancelled"
    news = _news(kind, actor, done.after, [done.other(actor)], [], spoken, HIGH)
    news += _news(kind, actor, done.after, [], done.people, details, HIGH)
    await _settle(tx, actor, "appointment.cancel", done, news, now=now)
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
    group = await _group(tx, actor, appointment_id, scope, if_proposal=if_proposal, if_proposals=if_proposals)
    done = await _each(group, lambda one: moves.carry_out(tx, actor, one, now=now))
    details = done.was | {"accepted": True}
    news = _news("series.rescheduled", actor, done.after, [done.other(actor)], done.people, details)
    await _settle(tx, actor, "appointment.accept", done, [*news, *_reminders(done.after, now=now)], now=now)
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
    group = await _group(tx, actor, appointment_id, scope, if_proposal=if_proposal, if_proposals=if_proposals)
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
    group = await _group(tx, actor, appointment_id, scope, if_proposal=if_proposal, if_proposals=if_proposals)
    return await _drop(tx, actor, group, "withdraw", "series.withdrawn", own=True, now=now)


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
) -> Moved:
    """Move the appointment that is named to `starts_at`, and the others by as much of wall-clock time.

    For each holds what holds for `moves.reschedule`: it moves at once, or is proposed to move, and keeps its length.
    What cannot be there is left where it is if `skip` says so; otherwise, and if nothing is left, SlotTaken names
    them all as `book` does. A refusal of the named one by the rules alone is raised as it is.
    """
    if scope is Scope.ONE:
        moved = await moves.reschedule(tx, actor, appointment_id, starts_at, now=now, if_revision=if_revision)
        return Moved([moved], [])
    group = await _group(tx, actor, appointment_id, scope, if_revision)
    _require_near(starts_at, now=now)
    pair = await pairs.get(tx, group.anchor.pair_id)
    pair.require_active()
    rules = await availability.load(tx, pair.supervisor.id)
    zone = (await _read(tx, group.anchor)).zone
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
    _refuse_clashes(clashes, skip=skip, left=len(kept))
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
    at_once = _Done([(aim.before, after[aim.before.id]) for aim in kept if aim.at_once])
    asked = _Done([(aim.before, after[aim.before.id]) for aim in kept if not aim.at_once])
    if at_once.pairs:
        others, details = [at_once.other(actor)], at_once.was | skipped
        news = _news("series.rescheduled", actor, at_once.after, others, at_once.people, details)
        reminders = _reminders(at_once.after, now=now)
        await _settle(tx, actor, "appointment.reschedule", at_once, [*news, *reminders], now=now)
    if asked.pairs:
        others = [asked.other(actor)]
        details = {"proposals": [str(one.proposal.id) for one in asked.after if one.proposal]} | skipped
        news = _news("series.proposed", actor, asked.after, others, others, details)
        await _settle(tx, actor, "appointment.propose", asked, news, now=now, shown=False)
    return [after[aim.before.id] for aim in kept]


async def _clear(tx: Transaction, aim: _Aim, *, now: datetime) -> Appointment:
    """Give back what a proposal holds that is replaced: another of the batch may be going there."""
    if aim.before.proposal is None or aim.accepts:
        return aim.before
    return await appointments.set_proposal(tx, aim.before, None, now=now)


async def lapse(tx: Transaction, *, now: datetime) -> int:
    """Let lapse the requests and proposals of series that nobody answered in time, with one piece of news for all
    of a series that do so together. Returns how many lapsed.
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
    for _, members in itertools.groupby(found, key=lambda one: one.series_id):
        await _lapse_group(tx, list(members), now=now)
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
        done = _Done(declined)
        news = _news("series.declined", SYSTEM, done.after, done.people, done.people, {"lapsed": True})
        await _settle(tx, SYSTEM, "appointment.lapse", done, news, now=now)
    if proposed:
        group = _Group(proposed[0], proposed)
        await _drop(tx, SYSTEM, group, "lapse_move", "series.lapsed", own=None, now=now)


@dataclass(frozen=True)
class _Group:
    """The appointments of a scope, and the one that was named."""

    anchor: Appointment
    members: list[Appointment]


async def _group(
    tx: Transaction,
    actor: Actor,
    appointment_id: uuid.UUID,
    scope: Scope,
    if_revision: int | None = None,
    *,
    seen: Mapping[uuid.UUID, int] | None = None,
    if_proposal: uuid.UUID | None = None,
    if_proposals: Collection[uuid.UUID] | None = None,
) -> _Group:
    """A scope of the actor's own, that nobody else changes until this transaction ends."""
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
    return _Group(anchor, members)


@dataclass(frozen=True)
class _Done:
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


async def _each(group: _Group, step: Callable[[Appointment], Awaitable[Appointment]]) -> _Done:
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
    return _Done(done)


async def _drop(
    tx: Transaction,
    actor: Actor,
    group: _Group,
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
    news = _news(kind, actor, done.after, told, told, details)
    await _settle(tx, actor, f"appointment.{action}", done, news, now=now, shown=False)
    return done.after


async def _read(tx: Transaction, one: Appointment) -> Series:
    return Series(*(await tx.execute(select(*COLUMNS).where(table.c.id == one.series_id))).one())


def _news(
    kind: str,
    actor: Actor,
    told: Sequence[Appointment],
    rooms: Iterable[uuid.UUID],
    mails: Iterable[uuid.UUID],
    details: Mapping[str, Any] | None = None,
    priority: int = NORMAL,
) -> list[Notice]:
    """One notice for each person in the room and each by mail. `revisions` go with `appointments`, one by one."""
    common: dict[str, Any] = {
        "series": str(told[0].series_id),
        "appointments": [str(one.id) for one in told],
        "revisions": [one.revision for one in told],
        "by": actor.person_id and str(actor.person_id),
        "skipped": [],
    }
    return [
        Notice(
            person,
            channel,
            kind,
            {**common, **(details or {})},
            pair_id=told[0].pair_id,
            priority=priority,
        )
        for channel, people in ((Channel.MATRIX, rooms), (Channel.MAIL, mails))
        for person in people
    ]


def _reminders(told: Iterable[Appointment], *, now: datetime) -> list[Notice]:
    confirmed = (one for one in told if one.status is Status.CONFIRMED)
    return [notice for one in confirmed for notice in appointments.remind(one, now=now)]


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


async def _settle(
    tx: Transaction,
    actor: Actor,
    action: str,
    done: _Done,
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
    await _record(tx, actor, action, done.after, now=now)
    await notifications.enqueue(tx, news, now=now)


async def _record(tx: Transaction, actor: Actor, action: str, changed: Iterable[Appointment], *, now: datetime) -> None:
    """An audit entry for each."""
    entries = [audit.entry(actor, action, "appointment", one.id, now=now) for one in changed]
    await tx.execute(text(audit.INSERT), entries)

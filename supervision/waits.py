"""The waiting list: a freed time is kept for the first who waits, until a deadline, then for the next.

Nobody learns who else waits, nor how many: news go to the one whose turn it is.
"""

import itertools
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from supervision import appointments, audit, availability, holds, hours, notifications, outside, pairs, people
from supervision.appointments import A_MINUTE, Appointment
from supervision.audit import SYSTEM, Actor
from supervision.db import Transaction, lock_key, lock_people, take_each
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, NotUnderstood, SlotTaken, Stale, TooLate
from supervision.hours import Availability, Slot
from supervision.models import Channel, PairStatus
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.models import waits as table
from supervision.notifications import NORMAL, Notice
from supervision.pairs import Pair
from supervision.people import Person
from supervision.ranges import Busy, Range, merge

MOST_WAITS = 5  # of a pair, open at a time
MOST_RANGES = 20  # of a wait
KEPT = timedelta(days=90)  # after the waiting was over
AT_ONCE = 1000  # removed, each hour
SHORTEST = timedelta(minutes=5)  # what is left of an offer has to be worth the asking


@dataclass(frozen=True)
class Offer:
    """A slot kept for somebody who waits, until `until`."""

    starts_at: datetime
    ends_at: datetime
    until: datetime

    @property
    def slot(self) -> Slot:
        return Slot(self.starts_at, self.ends_at)


@dataclass(frozen=True)
class Wait:
    """A supervisee waits for a start in one of the `ranges`, for `length` minutes.

    `passed` are starts that were offered and let go by. `ended_at` is when the waiting was over.
    """

    id: uuid.UUID
    pair_id: uuid.UUID
    supervisor_id: uuid.UUID
    supervisee_id: uuid.UUID
    ranges: tuple[Range, ...]
    length: int
    passed: tuple[datetime, ...]
    created_at: datetime
    ends_at: datetime
    ended_at: datetime | None = None
    offer: Offer | None = None

    @property
    def people(self) -> tuple[uuid.UUID, uuid.UUID]:
        return self.supervisor_id, self.supervisee_id

    def wants(self, starts_at: datetime) -> bool:
        return starts_at not in self.passed and any(since <= starts_at < until for since, until in self.ranges)


COLUMNS = (
    table.c.id,
    table.c.pair_id,
    table.c.supervisor_id,
    table.c.supervisee_id,
    table.c.since,
    table.c.until,
    table.c.length_minutes,
    table.c.passed,
    table.c.created_at,
    table.c.ends_at,
    table.c.ended_at,
    table.c.offered_starts_at,
    table.c.offered_ends_at,
    table.c.offer_until,
)


def from_row(row: Iterable[Any]) -> Wait:
    identifier, pair_id, supervisor_id, supervisee_id, since, until, length, passed, *times = row
    created_at, ends_at, ended_at, *offered = times
    return Wait(
        identifier,
        pair_id,
        supervisor_id,
        supervisee_id,
        tuple(zip(since, until, strict=True)),
        length,
        tuple(passed),
        created_at,
        ends_at,
        ended_at,
        Offer(*offered) if offered[0] is not None else None,
    )


async def join(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    ranges: Sequence[Range],
    *,
    now: datetime,
    length: int | None = None,
) -> Wait:
    """Wait for a slot of `length` minutes, the pair's first where it is not given, with a start in one of the ranges.

    What is past of them, or beyond the supervisor's horizon, is left out. Raises NotAllowed for anybody but the
    supervisee, PairArchived, NotUnderstood for ranges that make no sense, for more waits than five, and if a slot is
    free then; AlreadyAnswered for what they wait for already.
    """
    if pair.member(actor.person_id).id != pair.supervisee.id:
        raise NotAllowed("refused.supervisee_waits")
    await lock_people(tx, [person.id for person in pair.people])
    pair = await pairs.get(tx, pair.id)
    pair.require_active()
    rules = await availability.load(tx, pair.supervisor.id)
    minutes = hours.check_length(pair, rules, length)
    meant = check_ranges(ranges, rules, now=now)
    _require_new(await list_of(tx, pair.id), meant, minutes)
    for since, until in meant:
        if await availability.slots(tx, pair, since=since, until=until, now=now, most=1, length=minutes):
            raise NotUnderstood("refused.wait_not_needed")
    both = pair.supervisor.id, pair.supervisee.id
    wait = Wait(uuid.uuid4(), pair.id, *both, meant, minutes, (), now, max(until for _, until in meant))
    await tx.execute(
        insert(table).values(
            id=wait.id,
            pair_id=wait.pair_id,
            supervisor_id=wait.supervisor_id,
            supervisee_id=wait.supervisee_id,
            since=[since for since, _ in meant],
            until=[until for _, until in meant],
            length_minutes=minutes,
            passed=[],
            created_at=now,
            ends_at=wait.ends_at,
        )
    )
    await audit.record(tx, actor, "wait.join", "wait", wait.id, now=now)
    await wake(tx, wait.supervisor_id)  # something may have become free that nobody waited for when it did
    return wait


def check_ranges(ranges: Sequence[Range], rules: Availability, *, now: datetime) -> tuple[Range, ...]:
    """The part of the ranges that can be waited for, as few ascending ranges as possible."""
    if len(ranges) > MOST_RANGES or any(since >= until for since, until in ranges):
        raise NotUnderstood("refused.wait_ranges", most=MOST_RANGES)
    horizon = now + timedelta(days=rules.horizon)
    if any(since >= horizon for since, _ in ranges):
        raise NotUnderstood("refused.beyond_horizon", days=rules.horizon)
    ahead = [(max(since, now), min(until, horizon)) for since, until in ranges if until > now]
    if not ahead:
        raise NotUnderstood("refused.wait_ranges", most=MOST_RANGES)
    return tuple(merge(ahead))


def _require_new(known: Sequence[Wait], ranges: Sequence[Range], length: int) -> None:
    same = [one for wait in known if wait.length == length for one in wait.ranges]
    if any(since < end and start < until for since, until in ranges for start, end in same):
        raise AlreadyAnswered("refused.wait_exists")
    if len(known) >= MOST_WAITS:
        raise NotUnderstood("refused.wait_too_many", most=MOST_WAITS)


async def leave(tx: Transaction, actor: Actor, wait_id: uuid.UUID, now: datetime) -> None:
    """Wait no longer; what is on offer is given back."""
    wait = await _get_locked(tx, actor, wait_id)
    await _end(tx, wait, now=now)
    await audit.record(tx, actor, "wait.leave", "wait", wait.id, now=now)


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Remove some of those whose waiting was over 90 days ago."""
    old = select(table.c.id).where(table.c.ended_at <= now - KEPT).limit(AT_ONCE).with_for_update(skip_locked=True)
    await tx.execute(delete(table).where(table.c.id.in_(old)))


async def accept(
    tx: Transaction, actor: Actor, wait_id: uuid.UUID, *, now: datetime, if_starts_at: datetime | None = None
) -> Appointment:
    """Book the slot that is on offer, a request or at once as the pair's approval is; the waiting is over.

    It was within notice and horizon when it was offered, and is not asked for that again. Raises Stale if it is not
    the slot that starts at `if_starts_at`, TooLate once its time has passed, AlreadyAnswered without an offer,
    NotFound if the supervisor has taken the hour away or is elsewhere then, SlotTaken if her day or week is full by
    now, PairArchived.
    """
    wait = await _get_locked(tx, actor, wait_id)
    offer = require_offer(wait, if_starts_at)
    if offer.until <= now:
        raise TooLate("refused.offer_lapsed")
    pair = await pairs.get(tx, wait.pair_id)
    pair.require_active()
    rules = await availability.load(tx, wait.supervisor_id)
    if not is_offered(rules, pair.supervisor.zone, offer.slot):
        raise NotFound("refused.slot_not_offered")
    await _end(tx, wait, now=now)
    await appointments.check_room(tx, actor, pair, rules, offer.slot, now=now)
    appointment = appointments.make(actor, pair, rules, offer.slot, now=now)
    await appointments.insert(tx, appointment, now=now)
    await notifications.enqueue(
        tx,
        await appointments.news_of_booking(tx, appointment, actor, now=now),
        now=now,
        audited=audit.entry(actor, "appointment.book", "appointment", appointment.id, now=now),
    )
    await audit.record(tx, actor, "wait.accept", "wait", wait.id, now=now)
    return appointment


async def pass_by(
    tx: Transaction, actor: Actor, wait_id: uuid.UUID, *, now: datetime, if_starts_at: datetime | None = None
) -> Wait:
    """Let what is on offer go to the next who waits, and go on waiting for another time."""
    wait = await _get_locked(tx, actor, wait_id)
    offer = require_offer(wait, if_starts_at)
    left = await _give_back(tx, wait, passed=(*wait.passed, offer.starts_at))
    await audit.record(tx, actor, "wait.pass", "wait", wait.id, now=now)
    return left


def require_offer(wait: Wait, if_starts_at: datetime | None) -> Offer:
    """What is on offer. Raises AlreadyAnswered if nothing is, Stale if it is not the slot that starts then."""
    if wait.offer is None:
        raise AlreadyAnswered("refused.no_offer")
    if if_starts_at not in (None, wait.offer.starts_at):
        raise Stale
    return wait.offer


async def find(tx: Transaction, wait_id: uuid.UUID) -> Wait | None:
    """A wait, over or not, for whoever writes news of it."""
    row = (await tx.execute(select(*COLUMNS).where(table.c.id == wait_id))).one_or_none()
    return None if row is None else from_row(row)


async def get(tx: Transaction, actor: Actor, wait_id: uuid.UUID) -> Wait:
    """A supervisee's own wait. Anybody else's is as little found as one that never was."""
    wait = await find(tx, wait_id)
    if wait is None or actor.person_id != wait.supervisee_id:
        raise NotFound("refused.wait_not_found")
    return wait


async def list_of(tx: Transaction, pair_id: uuid.UUID) -> list[Wait]:
    """What a pair's supervisee waits for, the oldest first."""
    query = select(*COLUMNS).where(table.c.pair_id == pair_id, table.c.ended_at.is_(None))
    return [from_row(row) for row in await tx.execute(query.order_by(table.c.created_at, table.c.id))]


async def end_of_pair(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """End a pair's waiting; what is on offer is given back. Both people are locked."""
    query = select(*COLUMNS).where(table.c.pair_id == pair_id, table.c.ended_at.is_(None))
    for row in list(await tx.execute(query.order_by(table.c.id).with_for_update())):
        wait = from_row(row)
        await _end(tx, wait, now=now)
        await audit.record(tx, actor, "wait.end", "wait", wait.id, now=now)


async def wake(tx: Transaction, supervisor_id: uuid.UUID) -> None:
    """Have `offer_freed` run when this transaction commits, if anybody waits for a time of this supervisor's."""
    await tx.execute(text(holds.WAKE), {"supervisor_id": supervisor_id})


async def withdraw(
    tx: Transaction, actor: Actor, supervisor_id: uuid.UUID, since: datetime, until: datetime, *, now: datetime
) -> int:
    """Take back what is on offer within `[since, until)`. Needs the supervisor's lock. Returns how many offers."""
    query = select(*COLUMNS).where(
        table.c.supervisor_id == supervisor_id,
        table.c.offered_starts_at < until,
        table.c.offered_ends_at > since,
    )
    found = [from_row(row) for row in await tx.execute(query.order_by(table.c.id).with_for_update())]
    for wait in found:
        await _take_back(tx, actor, wait, now=now)
    return len(found)


async def offer_freed(tx: Transaction, now: datetime, *, most: int = 20) -> int:
    """End what is over, let offers lapse, and offer each free slot that somebody waits for to the first in line.

    It never waits for anybody's lock, so that it can hold many: whoever is busy right now keeps their turn, and the
    next run is asked for, as it is after `most` changes. Returns how many waits changed.
    """
    changed = 0
    unfinished = False

    async def see_to(one: tuple[uuid.UUID, list[tuple[Wait, bool]]]) -> None:
        nonlocal changed, unfinished
        line = _Line(tx, now, most - changed)
        await line.serve(*one)
        changed += line.changed
        unfinished = unfinished or line.unfinished or changed >= most

    groups = itertools.groupby(await _open(tx, now=now), key=lambda one: one[0].supervisor_id)
    lines = ((supervisor_id, list(found)) for supervisor_id, found in groups)
    await take_each(tx, itertools.takewhile(lambda _: changed < most, lines), see_to, "offer_freed")
    if unfinished:
        await tx.execute(select(func.pg_notify("visavis_waits", "")))
    return changed


async def _open(tx: Transaction, *, now: datetime) -> list[tuple[Wait, bool]]:
    """Every open wait and whether it is over, by supervisor, in the order of the line."""
    supervisor, supervisee = people_table.alias(), people_table.alias()
    over = or_(
        table.c.ends_at <= now,
        pairs_table.c.status != PairStatus.ACTIVE,
        supervisor.c.disabled_at.is_not(None),
        supervisee.c.disabled_at.is_not(None),
    )
    query = (
        select(*COLUMNS, over)
        .join(pairs_table, pairs_table.c.id == table.c.pair_id)
        .join(supervisor, supervisor.c.id == table.c.supervisor_id)
        .join(supervisee, supervisee.c.id == table.c.supervisee_id)
        .where(table.c.ended_at.is_(None))
        .order_by(table.c.supervisor_id, table.c.created_at, table.c.id)
    )
    return [(from_row(values), is_over) for *values, is_over in await tx.execute(query)]


class _Line:
    """Those who wait for one supervisor, in one run: at most `most` of them change."""

    def __init__(self, tx: Transaction, now: datetime, most: int) -> None:
        self.tx = tx
        self.now = now
        self.most = most
        self.changed = 0
        self.unfinished = False
        self.taken: list[Range] = []  # of the supervisor's time, in this run
        self.is_full: Callable[[datetime], bool] = lambda _: False

    async def serve(self, supervisor_id: uuid.UUID, found: Sequence[tuple[Wait, bool]]) -> None:
        supervisor = await people.get(self.tx, supervisor_id)
        try:
            rules = await availability.load(self.tx, supervisor_id)
        except NotFound:
            rules = Availability(())
        elsewhere = await self._look_elsewhere(supervisor_id, [wait.offer for wait, _ in found if wait.offer])
        tidied = [await self._tidy(wait, rules, supervisor.zone, elsewhere, over=over) for wait, over in found]
        waiting = [wait for wait in tidied if wait is not None and wait.offer is None]
        since = self.now + timedelta(minutes=rules.notice) + SHORTEST
        until = min(self.now + timedelta(days=rules.horizon), max((one.ends_at for one in waiting), default=since))
        if since >= until:
            return
        self.is_full = await availability.fullness(self.tx, rules, supervisor, since, until)
        busy = await availability.busy_times(
            self.tx, [supervisor_id, *{wait.supervisee_id for wait in waiting}], since, until
        )
        free = {
            length: [
                slot
                for slot in hours.offered(rules, supervisor.zone, since, until, length)
                if not busy[supervisor_id].overlaps(*rules.held(slot.starts_at, slot.ends_at))
                and not busy[supervisor_id].is_elsewhere(slot.starts_at, slot.ends_at)
            ]
            for length in {wait.length for wait in waiting}
        }
        for wait in waiting:
            if self.changed >= self.most:
                return
            theirs = busy[wait.supervisee_id]
            wanted = [
                slot
                for slot in free[wait.length]
                if wait.wants(slot.starts_at) and not theirs.overlaps(slot.starts_at, slot.ends_at)
            ]
            await self._offer_first(wait, supervisor, rules, wanted)

    async def _look_elsewhere(self, supervisor_id: uuid.UUID, offers: Sequence[Offer]) -> Busy:
        """What her other calendars have by now where something is on offer."""
        if not offers:
            return Busy()
        around = min(one.starts_at for one in offers), max(one.ends_at for one in offers)
        return Busy((), await outside.busy(self.tx, supervisor_id, *around))

    async def _tidy(
        self, wait: Wait, rules: Availability, zone: ZoneInfo, elsewhere: Busy, *, over: bool
    ) -> Wait | None:
        """The wait as it is now: ended if it is over, without an offer whose deadline has passed or hour is gone."""
        offer = wait.offer
        lapsed = offer is not None and offer.until <= self.now
        gone = offer is not None and (
            not is_offered(rules, zone, offer.slot) or elsewhere.is_elsewhere(offer.starts_at, offer.ends_at)
        )
        if not (over or lapsed or gone):
            return wait
        if self.changed >= self.most or not await _is_unchanged(self.tx, wait):
            return None
        self.changed += 1
        if over:
            await _end(self.tx, wait, now=self.now)
            await audit.record(self.tx, SYSTEM, "wait.end", "wait", wait.id, now=self.now)
            return None
        if lapsed:
            return await _lapse(self.tx, wait, now=self.now)
        return await _take_back(self.tx, SYSTEM, wait, now=self.now)

    async def _offer_first(self, wait: Wait, supervisor: Person, rules: Availability, wanted: Sequence[Slot]) -> None:
        """Offer the first of these that is still to be had, if there is one."""
        pair: Pair | None = None
        for slot in wanted:
            held = rules.held(slot.starts_at, slot.ends_at)
            if any(since < held[1] and held[0] < until for since, until in self.taken):
                continue
            if self.is_full(slot.starts_at):
                continue
            if pair is None:
                pair = await pairs.get(self.tx, wait.pair_id)
                if wait.length not in hours.lengths_of(pair, rules):
                    return
                if not await self._may_change(wait, rules):
                    self.taken.append(held)  # it stays this one's turn
                    self.unfinished = True
                    return
            if await _offer(self.tx, wait, pair, rules, slot, now=self.now):
                self.changed += 1
                self.taken.append(held)
                return

    async def _may_change(self, wait: Wait, rules: Availability) -> bool:
        """Lock both people, if nobody else is at it and all is as it was read."""
        if not await _try_lock(self.tx, wait.people) or not await _is_unchanged(self.tx, wait):
            return False
        return await availability.load(self.tx, wait.supervisor_id) == rules


async def _offer(tx: Transaction, wait: Wait, pair: Pair, rules: Availability, slot: Slot, *, now: datetime) -> bool:
    """Keep a slot and tell. False if somebody took it a moment ago, or the supervisor's day or week is full."""
    if not await holds.is_free(tx, pair, rules, slot):
        return False
    until = min(now + timedelta(minutes=rules.offer), slot.starts_at - timedelta(minutes=rules.notice))
    try:
        await availability.check_limits(tx, rules, pair.supervisor, slot.starts_at)
        async with tx.begin_nested():
            await holds.keep_offer(tx, wait.id, wait.people, rules, slot)
    except (SlotTaken, NotFound):
        return False
    offered = replace(wait, offer=Offer(slot.starts_at, slot.ends_at, until))
    await _write(tx, offered)
    details = {"until": until.isoformat()}
    await notifications.enqueue(
        tx,
        [_notice(offered, channel, "wait.offered", slot, details, until) for channel in (Channel.MATRIX, Channel.MAIL)],
        now=now,
        audited=audit.entry(SYSTEM, "wait.offer", "wait", wait.id, now=now),
    )
    return True


def is_offered(rules: Availability, zone: ZoneInfo, slot: Slot) -> bool:
    """Whether the supervisor's hours have that slot, be it near or far."""
    length = (slot.ends_at - slot.starts_at) // A_MINUTE
    instant = timedelta(microseconds=1)
    return any(hours.offered(rules, zone, slot.starts_at, slot.starts_at + instant, length))


async def _lapse(tx: Transaction, wait: Wait, *, now: datetime) -> Wait:
    """The offer was not answered in time: on to the next, without this one."""
    offer = require_offer(wait, None)
    left = await _give_back(tx, wait, passed=(*wait.passed, offer.starts_at))
    await notifications.enqueue(
        tx,
        [_notice(wait, Channel.MATRIX, "wait.lapsed", offer.slot)],
        now=now,
        audited=audit.entry(SYSTEM, "wait.lapse", "wait", wait.id, now=now),
    )
    return left


async def _take_back(tx: Transaction, actor: Actor, wait: Wait, *, now: datetime) -> Wait:
    """The supervisor has no such hour any more; it is nobody's turn."""
    offer = require_offer(wait, None)
    left = await _give_back(tx, wait, passed=wait.passed)
    await notifications.enqueue(
        tx,
        [_notice(wait, Channel.MATRIX, "wait.lapsed", offer.slot, {"withdrawn": True})],
        now=now,
        audited=audit.entry(actor, "wait.withdraw", "wait", wait.id, now=now),
    )
    return left


async def _end(tx: Transaction, wait: Wait, *, now: datetime) -> None:
    await _give_back(tx, replace(wait, ended_at=now), passed=wait.passed)


async def _give_back(tx: Transaction, wait: Wait, *, passed: tuple[datetime, ...]) -> Wait:
    """Write the wait without its offer, whose time is free from now on."""
    if wait.offer is not None:
        await holds.release_offer(tx, wait.id, wait.supervisor_id)
    left = replace(wait, offer=None, passed=passed)
    await _write(tx, left)
    return left


async def _write(tx: Transaction, wait: Wait) -> None:
    await tx.execute(
        update(table)
        .where(table.c.id == wait.id)
        .values(
            passed=list(wait.passed),
            offered_starts_at=wait.offer and wait.offer.starts_at,
            offered_ends_at=wait.offer and wait.offer.ends_at,
            offer_until=wait.offer and wait.offer.until,
            ended_at=wait.ended_at,
        )
    )


async def _get_locked(tx: Transaction, actor: Actor, wait_id: uuid.UUID) -> Wait:
    """An open wait of the actor's own, that nobody else changes until this transaction ends."""
    await lock_people(tx, (await get(tx, actor, wait_id)).people)
    query = select(*COLUMNS).where(table.c.id == wait_id).with_for_update()
    wait = from_row((await tx.execute(query)).one())
    if wait.ended_at is not None:
        raise AlreadyAnswered("refused.wait_over")
    return wait


async def _is_unchanged(tx: Transaction, wait: Wait) -> bool:
    """Lock a wait if it is still as it was read and nobody else is at it."""
    query = select(*COLUMNS).where(table.c.id == wait.id).with_for_update(skip_locked=True)
    row = (await tx.execute(query)).one_or_none()
    return row is not None and from_row(row) == wait


TRY_LOCK = text("SELECT bool_and(pg_try_advisory_xact_lock(key)) FROM unnest(CAST(:keys AS bigint[])) AS key")


async def _try_lock(tx: Transaction, person_ids: Iterable[uuid.UUID]) -> bool:
    """`lock_people` without waiting: False if another transaction changes one's time right now."""
    return bool(await tx.scalar(TRY_LOCK, {"keys": [lock_key(one) for one in person_ids]}))


def _notice(
    wait: Wait,
    channel: Channel,
    kind: str,
    slot: Slot,
    details: dict[str, Any] | None = None,
    expires_at: datetime | None = None,
) -> Notice:
    """News for the one who waits, and for nobody else."""
    return Notice(
        wait.supervisee_id,
        channel,
        kind,
        {
            "by": None,
            "wait": str(wait.id),
            "slot": [slot.starts_at.isoformat(), slot.ends_at.isoformat()],
            **(details or {}),
        },
        pair_id=wait.pair_id,
        priority=NORMAL,
        expires_at=expires_at,
    )

"""Series: appointments that were booked together by a rule, and how they are booked, read and told of.

A rule is an RRULE (RFC 5545, 3.3.10) counted in the wall-clock time of the supervisor's zone, so that a daylight-saving
change moves the instants and not the clock. Every occurrence is an appointment of its own. What is done to one alone is
the plain function of appointments.py or moves.py, what is done to several at once stands in groups.py and shifts.py.
"""

import uuid
import zoneinfo
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, text

from supervision import appointments, audit, availability, hours, ledgers, notifications, pairs
from supervision.appointments import FARTHEST, Appointment
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotFound, NotUnderstood, SlotTaken, TooLate
from supervision.hours import Availability, Slot
from supervision.models import Channel, Status
from supervision.models import appointments as appointments_table
from supervision.models import pairs as pairs_table
from supervision.models import series as table
from supervision.notifications import NORMAL, Notice
from supervision.pairs import Pair
from supervision.repetitions import read_rule, text_of, wall_clock


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


COLUMNS = (
    table.c.id,
    table.c.pair_id,
    table.c.rule,
    table.c.starts_at,
    table.c.ends_at,
    table.c.time_zone,
    table.c.revision,
)


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
    pair.member(actor.person_id)
    require_near(starts_at, now=now)
    zone = pair.supervisor.zone
    first = wall_clock(starts_at, zone)
    read = read_rule(rule, zone)
    clocks = read.starts(first)
    await lock_people(tx, [person.id for person in pair.people])
    pair = await pairs.get(tx, pair.id)
    pair.require_active()
    rules = await availability.load(tx, pair.supervisor.id)
    minutes = hours.check_length(pair, rules, length)
    if hours.to_instant(first.date(), first.time(), zone) != starts_at:
        raise NotFound("refused.slot_not_offered")  # the second reading of a clock that repeats: no rule can say it
    with suppress(NotFound):  # a first that is not offered is a clash like any other
        appointments.check_slot(actor, pair, rules, starts_at, minutes, now=now)
    bound = actor.person_id != pair.supervisor.id
    placed = [(local, _place(local, zone, rules, minutes, bound=bound)) for local in clocks]
    slots, clashes = await _sift(tx, actor, pair, rules, placed)
    refuse_clashes(clashes, skip=skip, left=len(slots))
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


def _place(local: datetime, zone: zoneinfo.ZoneInfo, rules: Availability, minutes: int, *, bound: bool) -> Slot | Clash:
    """The slot at a wall-clock time: the first where it repeats. `bound` says that the hours have to offer it."""
    instant = hours.to_instant(local.date(), local.time(), zone)
    if instant is None:
        return Clash(local.replace(tzinfo=zone).astimezone(UTC), "refused.clock_skips", local)
    if bound and not any(hours.offered(rules, zone, instant, instant + timedelta(microseconds=1), minutes)):
        return Clash(instant, "refused.slot_not_offered", local)
    return Slot(instant, instant + timedelta(minutes=minutes))


def require_near(starts_at: datetime, *, now: datetime) -> None:
    """Refuse what is past or so far off that the calendar has no room for a year after it."""
    if starts_at <= now:
        raise TooLate("refused.slot_past")
    if starts_at >= now + FARTHEST:
        raise NotUnderstood("refused.beyond_horizon", days=FARTHEST.days)


def refuse_clashes(clashes: Sequence[Clash], *, skip: bool, left: int) -> None:
    """Raise SlotTaken with all of them where none may be skipped, or nothing is left."""
    if clashes and not (skip and left):
        raise SlotTaken("refused.series_clashes", clashes=[one.starts_at for one in clashes], found=tuple(clashes))


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
        news = notices("series.requested", actor, booked, [one.supervisor_id], [one.supervisor_id], details)
    else:
        on_behalf = actor.person_id == one.supervisor_id
        details |= {} if on_behalf else {"automatic": True}
        kind = "series.booked" if on_behalf else "series.confirmed"
        news = notices(kind, actor, booked, [one.other(actor.person_id)], one.people, details)
        news += await appointments.remind(tx, booked, now=now)
    await record(tx, actor, "appointment.book", booked, now=now)
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


async def of_appointment(tx: Transaction, one: Appointment) -> Series:
    """The series of an appointment that belongs to one."""
    return Series(*(await tx.execute(select(*COLUMNS).where(table.c.id == one.series_id))).one())


async def occurrences(tx: Transaction, series_id: uuid.UUID, *, statuses: Collection[Status] = ()) -> list[Appointment]:
    """The appointments of a series in the order of its rule, of any status or of these.

    Starts of the rule that are no occurrence's `series_at` were never booked.
    """
    query = select(*appointments.COLUMNS).where(appointments_table.c.series_id == series_id)
    if statuses:
        query = query.where(appointments_table.c.status.in_(statuses))
    rows = await tx.execute(query.order_by(appointments_table.c.series_at))
    return [appointments.from_row(row) for row in rows]


def notices(
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


async def record(tx: Transaction, actor: Actor, action: str, changed: Iterable[Appointment], *, now: datetime) -> None:
    """An audit entry for each."""
    entries = [audit.entry(actor, action, "appointment", one.id, now=now) for one in changed]
    await tx.execute(text(audit.INSERT), entries)

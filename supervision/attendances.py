"""What people's calendars answer to our entries: it confirms a request, is shown to both, or proposes another time.

An answer counts if it is to the entry as it stands and newer than the last (RFC 5546, 2.1.5). The SEQUENCE of an
occurrence that stands where its series put it may be the series' own: the calendar knows it as a part of that entry.
Whoever declines is asked in the room what is to be done; an answer never calls anything off by itself.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from supervision import appointments, audit, groups, moves, notifications, pairs, people, series
from supervision.appointments import OPEN, Appointment
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.groups import Scope
from supervision.models import Attendance, Channel, PairStatus, Status
from supervision.models import attendances as table
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.repetitions import wall_clock
from supervision.series import Series
from supervision.texts import refusal_line, to_json


@dataclass(frozen=True)
class Counter:
    """Another time that a calendar proposes (RFC 5546, 3.2.7). Naive times are by the person's clock."""

    starts_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True)
class Response:
    """A calendar's answer to the entry `entry_id`, which is an appointment or a series.

    `occurrence` is the RECURRENCE-ID: an instant, or a time or day by the series' clock. `stamp` is an instant.
    """

    entry_id: uuid.UUID
    sequence: int
    stamp: datetime
    answer: Attendance | Counter
    occurrence: datetime | date | None = None


class Outcome(StrEnum):
    """What became of an answer; the last three changed nothing."""

    CONFIRMED = "confirmed"
    NOTED = "noted"
    REPEATED = "repeated"
    ASKED = "asked"
    MOVED = "moved"
    OUTDATED = "outdated"
    UNKNOWN = "unknown"
    CLOSED = "closed"


# A clock that is further ahead would make every later answer older.
FARTHEST_AHEAD = timedelta(days=1)
INEFFECTIVE = (Outcome.OUTDATED, Outcome.UNKNOWN, Outcome.CLOSED)


@dataclass(frozen=True)
class Entry:
    """What was answered: one appointment, or with `whole` all that can still be answered of a series."""

    pair: Pair
    members: tuple[Appointment, ...]
    series: Series | None = None
    whole: bool = False

    def sequence(self, one: Appointment) -> int:
        return needed_sequence(one, self.series)

    @property
    def anchor(self) -> Appointment:
        return self.members[0]


def needed_sequence(one: Appointment, own: Series | None) -> int:
    """The lowest SEQUENCE of an answer to it as it stands."""
    if own is None:
        return one.revision
    as_ruled = (one.starts_at, one.ends_at - one.starts_at) == (one.series_at, own.ends_at - own.starts_at)
    return own.revision if as_ruled else own.revision + one.revision


async def respond(tx: Transaction, actor: Actor, response: Response, *, now: datetime) -> Outcome:
    """Do what a person's calendar answered; the caller has made sure that it was theirs.

    Raises Refused for what the person is to hear of (`tell_refused`); then nothing may be committed.
    """
    try:
        entry = await _find(tx, actor, response)
    except NotFound:
        return await _leave(tx, actor, response, Outcome.UNKNOWN, now=now)
    if response.stamp > now + FARTHEST_AHEAD:
        return await _leave(tx, actor, response, Outcome.OUTDATED, now=now)
    known = await _of(tx, [one.id for one in entry.members], actor.person_id)
    fresh = [one for one in entry.members if _is_fresh(response, entry, one, known.get(one.id))]
    if not fresh:
        return await _leave(tx, actor, response, Outcome.OUTDATED, now=now)
    entry = Entry(entry.pair, tuple(fresh), entry.series, entry.whole)
    try:
        _require_open(entry, now=now)
    except Refused:
        if response.answer in (Attendance.DECLINED, Attendance.TENTATIVE):  # what a calendar says of what is gone
            return await _leave(tx, actor, response, Outcome.CLOSED, now=now)
        raise
    if isinstance(response.answer, Counter):
        return await _counter(tx, actor, entry, response, response.answer, now=now)
    return await _attend(tx, actor, entry, response, response.answer, known, now=now)


async def tell_refused(
    tx: Transaction, actor: Actor, response: Response | None, refused: Refused, *, now: datetime
) -> None:
    """Tell a person in the room why their calendar's answer changed nothing, and note it.

    Without a response, for a mail that is none, it is said in their first room.
    """
    if actor.person_id is None:
        return
    entry_id = None if response is None else response.entry_id
    await audit.record(tx, actor, "attendance.respond", "entry", entry_id, now=now, success=False, reason=refused.key)
    pair = await _pair_of(tx, actor.person_id, entry_id)
    if pair is None or pair.status is not PairStatus.ACTIVE:
        return
    key, params = refusal_line(refused)
    details = {"by": str(actor.person_id), "lines": [[key, to_json(params)]]}
    await notifications.enqueue(
        tx, [Notice(actor.person_id, Channel.MATRIX, "attendance.refused", details, pair_id=pair.id)], now=now
    )


async def keep(tx: Transaction, actor: Actor, ids: Collection[uuid.UUID]) -> None:
    """What this person declined in their calendar stands for them all the same: nothing says any more that they did."""
    theirs = (table.c.person_id == actor.person_id) & (table.c.answer == Attendance.DECLINED)
    await tx.execute(delete(table).where(table.c.appointment_id.in_(ids), theirs))


async def of(tx: Transaction, one: Appointment) -> dict[uuid.UUID, Attendance]:
    """What the calendars of both answered to an appointment as it stands.

    An answer to an earlier entry of the same time is kept too (appointments.change), for what the next one says of it.
    """
    own = None if one.series_id is None else await series.of_appointment(tx, one)
    query = select(table.c.person_id, table.c.answer).where(
        table.c.appointment_id == one.id, table.c.sequence >= needed_sequence(one, own)
    )
    return {person_id: Attendance(answer) for person_id, answer in await tx.execute(query)}


async def _find(tx: Transaction, actor: Actor, response: Response) -> Entry:
    """The entry of the person's own that was answered; nobody else changes it until this transaction ends."""
    try:
        one = await appointments.get_locked(tx, actor, response.entry_id)
    except NotFound:
        return await _find_in_series(tx, actor, response)
    if one.series_id is not None:  # such has no entry of its own
        raise NotFound("refused.appointment_not_found")
    return Entry(await pairs.get(tx, one.pair_id), (one,))


async def _find_in_series(tx: Transaction, actor: Actor, response: Response) -> Entry:
    own = await series.of(tx, actor, response.entry_id)
    pair = await pairs.get(tx, own.pair_id)
    await lock_people(tx, [person.id for person in pair.people])
    own = await series.of(tx, actor, response.entry_id)
    members = await series.occurrences(tx, own.id)
    if response.occurrence is not None:
        members = [one for one in members if _is_meant(response.occurrence, one, own)]
    else:
        standing = [one for one in members if one.status in OPEN]
        members = standing or members
    if not members:
        raise NotFound("refused.appointment_not_found")
    return Entry(pair, tuple(members), own, whole=response.occurrence is None)


def _is_meant(occurrence: datetime | date, one: Appointment, own: Series) -> bool:
    at = one.series_at or one.starts_at
    clock = wall_clock(at, own.zone)
    if not isinstance(occurrence, datetime):
        return clock.date() == occurrence
    return clock == occurrence if occurrence.tzinfo is None else at == occurrence


@dataclass(frozen=True)
class _Known:
    """What was answered before."""

    answer: Attendance
    sequence: int
    stamp: datetime


async def _of(tx: Transaction, ids: Sequence[uuid.UUID], person_id: uuid.UUID | None) -> dict[uuid.UUID, _Known]:
    query = select(table.c.appointment_id, table.c.answer, table.c.sequence, table.c.stamp).where(
        table.c.appointment_id.in_(ids), table.c.person_id == person_id
    )
    return {one: _Known(Attendance(answer), *rest) for one, answer, *rest in await tx.execute(query)}


def _is_fresh(response: Response, entry: Entry, one: Appointment, known: _Known | None) -> bool:
    """Whether it answers this appointment as it stands, and is newer than what was answered before."""
    needed = entry.series.revision if entry.whole and entry.series is not None else entry.sequence(one)
    if response.sequence < needed:
        return False
    if known is None or response.stamp > known.stamp:
        return True
    return min(response.sequence, entry.sequence(one)) > known.sequence  # one that we never gave counts for none


def _require_open(entry: Entry, *, now: datetime) -> None:
    """Raise what tells why nothing of it can be answered any more."""
    entry.pair.require_active()
    if entry.whole and any(one.status in OPEN and one.starts_at > now for one in entry.members):
        return
    appointments.require_status(entry.anchor, *OPEN)
    appointments.require_ahead(entry.anchor, now=now)


async def _attend(
    tx: Transaction,
    actor: Actor,
    entry: Entry,
    response: Response,
    answer: Attendance,
    known: dict[uuid.UUID, _Known],
    *,
    now: datetime,
) -> Outcome:
    # What was moved out of its series' rule has a SEQUENCE of its own: an answer to the whole need not know of it.
    asked = [
        one
        for one in entry.members
        if one.status is Status.REQUESTED
        and one.supervisor_id == actor.person_id
        and response.sequence >= entry.sequence(one)
    ]
    if answer is Attendance.ACCEPTED and asked:
        after = await _confirm(tx, actor, entry, asked, now=now)
        await _write(tx, actor, after, response, answer, now=now)
        return Outcome.CONFIRMED
    told = [one for one in entry.members if one.status in OPEN and one.starts_at > now]
    again = all(_stands(known.get(one.id), answer, entry.sequence(one)) for one in told)
    await _write(tx, actor, Entry(entry.pair, tuple(told), entry.series, entry.whole), response, answer, now=now)
    await audit.record(tx, actor, f"attendance.{answer}", "entry", response.entry_id, now=now)
    if again:
        return Outcome.REPEATED
    await notifications.enqueue(tx, [_news(actor, entry, told, answer)], now=now)
    return Outcome.ASKED if answer is Attendance.DECLINED else Outcome.NOTED


def _stands(known: _Known | None, answer: Attendance, sequence: int) -> bool:
    """Whether the same was answered to the same."""
    return known is not None and known.answer is answer and known.sequence >= sequence


async def _confirm(
    tx: Transaction, actor: Actor, entry: Entry, asked: Sequence[Appointment], *, now: datetime
) -> Entry:
    """The supervisor agrees to what is requested of the entry."""
    if not entry.whole:
        return Entry(entry.pair, (await appointments.confirm(tx, actor, asked[0].id, now=now),), entry.series)
    seen = {one.id: one.revision for one in asked}
    after = await groups.confirm(tx, actor, asked[0].id, Scope.ALL, now=now, seen=seen)
    own = None if entry.series is None else await series.of(tx, actor, entry.series.id)
    return Entry(entry.pair, tuple(after), own, whole=True)


async def _counter(
    tx: Transaction, actor: Actor, entry: Entry, response: Response, counter: Counter, *, now: datetime
) -> Outcome:
    """Move it, or propose to, by the rules for whoever asks in the room."""
    if entry.whole:
        raise NotUnderstood("refused.counter_series")
    person = await people.get(tx, actor.person_id) if actor.person_id else None
    zone = person.zone if person is not None else UTC
    starts_at, ends_at = (
        None if at is None else (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
        for at in (counter.starts_at, counter.ends_at)
    )
    if starts_at is None:
        raise NotUnderstood
    after = await moves.reschedule(tx, actor, entry.anchor.id, starts_at, now=now, ends_at=ends_at)
    # Noted as undecided where it is only proposed, so that the same mail handed over again by whomever is not newer.
    noted = Attendance.ACCEPTED if after.proposal is None else Attendance.TENTATIVE
    await _write(tx, actor, entry, response, noted, now=now)
    return Outcome.MOVED


async def _write(
    tx: Transaction, actor: Actor, entry: Entry, response: Response, answer: Attendance, *, now: datetime
) -> None:
    """Keep the answer with the entry as it stands now."""
    rows = [
        {
            "appointment_id": one.id,
            "person_id": actor.person_id,
            "answer": answer,
            "sequence": entry.sequence(one),
            "stamp": response.stamp,
            "answered_at": now,
        }
        for one in entry.members
    ]
    statement = insert(table).values(rows)
    changed = {name: statement.excluded[name] for name in ("answer", "sequence", "stamp", "answered_at")}
    await tx.execute(
        statement.on_conflict_do_update(index_elements=[table.c.appointment_id, table.c.person_id], set_=changed)
    )


def _news(actor: Actor, entry: Entry, told: Sequence[Appointment], answer: Attendance) -> Notice:
    """To the other; what was declined is asked of whoever declined it."""
    one = told[0]
    asker = actor.person_id if answer is Attendance.DECLINED and actor.person_id else one.other(actor.person_id)
    details: dict[str, Any] = {"by": str(actor.person_id)}
    kind = f"attendance.{answer}"
    if not entry.whole or entry.series is None:
        return Notice(asker, Channel.MATRIX, kind, details, one.pair_id, one.id, one.revision)
    details |= {
        "series": str(entry.series.id),
        "appointments": [str(each.id) for each in told],
        "revisions": [each.revision for each in told],
    }
    return Notice(asker, Channel.MATRIX, kind, details, one.pair_id)


async def _leave(tx: Transaction, actor: Actor, response: Response, outcome: Outcome, *, now: datetime) -> Outcome:
    """Note an answer that changes nothing and that nobody has to hear of."""
    await audit.record(
        tx,
        actor,
        "attendance.respond",
        "entry",
        response.entry_id,
        now=now,
        success=False,
        reason=f"attendance.{outcome}",
    )
    return outcome


async def _pair_of(tx: Transaction, person_id: uuid.UUID, entry_id: uuid.UUID | None) -> Pair | None:
    """In whose room a person is told of an entry of theirs."""
    if entry_id is None:
        return next(iter(await pairs.list_of(tx, person_id)), None)
    reads = Actor(person_id, "system")
    try:
        return await pairs.get(tx, (await appointments.get(tx, reads, entry_id)).pair_id)
    except NotFound:
        pass
    try:
        return await pairs.get(tx, (await series.of(tx, reads, entry_id)).pair_id)
    except NotFound:
        return None

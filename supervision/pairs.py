"""Pairs: one supervisor, one supervisee, one room. How they begin, end, begin anew, and are removed."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Text, bindparam, cast, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from supervision import audit, bots, homeserver_tasks, notifications, people
from supervision.audit import SYSTEM, Actor
from supervision.db import Ready, Transaction, lock_people, take_each
from supervision.errors import NotAllowed, NotFound, NotUnderstood, PairArchived
from supervision.models import (
    Approval,
    Channel,
    Fault,
    PairStatus,
    Role,
    Task,
    attachments,
    audit_entries,
    journal,
    memberships,
    pairs,
    questions,
    sessions,
    unreads,
)
from supervision.models import homeserver_tasks as tasks_table
from supervision.models import notifications as outbox
from supervision.models import people as people_table
from supervision.notifications import HIGH, NORMAL, Notice
from supervision.people import Person

ROOMS = "visavis_pairs"  # the channel on which the bots hear that a pair is to be looked at
WARNED = timedelta(days=7)  # how long before a pair's last day both are told of it
FARTHEST_EAST = timedelta(hours=14)  # of any zone


@dataclass(frozen=True)
class Pair:
    id: uuid.UUID
    supervisor: Person
    supervisee: Person
    status: PairStatus
    bot: str | None
    room_id: str | None
    room_token: uuid.UUID
    supervisor_introduced_at: datetime | None
    supervisee_introduced_at: datetime | None
    lengths: tuple[int, ...] | None = None  # minutes; where the supervisor settled none for this pair, hers hold
    approval: Approval | None = None
    archived_at: datetime | None = None
    expires_on: date | None = None  # the last day, in the supervisor's zone
    held_at: datetime | None = None  # since when a legal hold keeps everything
    fault: Fault | None = None  # why nothing is said in the room
    fault_at: datetime | None = None
    removed_at: datetime | None = None  # when the room was removed with everything

    @property
    def people(self) -> tuple[Person, Person]:
        return self.supervisor, self.supervisee

    def member(self, person_id: uuid.UUID | None) -> Person:
        """The one of the two with this ID. Raises NotAllowed for anybody else."""
        for person in self.people:
            if person.id == person_id:
                return person
        raise NotAllowed

    def is_member(self, person_id: uuid.UUID | None) -> bool:
        return person_id is not None and person_id in (self.supervisor.id, self.supervisee.id)

    def other(self, person_id: uuid.UUID) -> Person:
        return self.supervisee if person_id == self.supervisor.id else self.supervisor

    def introduced_at(self, person: Person) -> datetime | None:
        if person.id == self.supervisor.id:
            return self.supervisor_introduced_at
        return self.supervisee_introduced_at

    def require_active(self) -> None:
        """Raise PairArchived if the pair is closed, or one of the two is disabled."""
        if self.status is not PairStatus.ACTIVE or any(person.disabled_at for person in self.people):
            raise PairArchived


SUPERVISOR = people_table.alias("supervisor")
SUPERVISEE = people_table.alias("supervisee")
PAIR_COLUMNS = (
    pairs.c.id,
    pairs.c.status,
    pairs.c.bot,
    pairs.c.room_id,
    pairs.c.room_token,
    pairs.c.supervisor_introduced_at,
    pairs.c.supervisee_introduced_at,
    pairs.c.lengths,
    pairs.c.approval,
    pairs.c.archived_at,
    pairs.c.expires_on,
    pairs.c.held_at,
    pairs.c.fault,
    pairs.c.fault_at,
    pairs.c.removed_at,
)
SELECT = (
    select(
        *PAIR_COLUMNS,
        *(SUPERVISOR.c[column.name] for column in people.COLUMNS),
        *(SUPERVISEE.c[column.name] for column in people.COLUMNS),
    )
    .join(SUPERVISOR, SUPERVISOR.c.id == pairs.c.supervisor_id)
    .join(SUPERVISEE, SUPERVISEE.c.id == pairs.c.supervisee_id)
)

BY_ID = Ready(SELECT.where(pairs.c.id == bindparam("id")))
IN_ROOM = SELECT.where(pairs.c.room_id == bindparam("room_id"))
BY_ROOM = Ready(IN_ROOM)
OPEN_REMOVALS = (
    select(tasks_table.c.id, tasks_table.c.pair_id)
    .where(tasks_table.c.kind == Task.REMOVE_ROOM, tasks_table.c.done_at.is_(None), tasks_table.c.pair_id.is_not(None))
    .subquery("removals")
)


def from_row(row: Iterable[Any]) -> Pair:
    values = tuple(row)
    own, width = len(PAIR_COLUMNS), len(people.COLUMNS)
    identifier, status, bot, room_id, room_token, *introduced, lengths, approval = values[:9]
    supervisor_introduced, supervisee_introduced = introduced
    archived_at, expires_on, held_at, fault, fault_at, removed_at = values[9:own]
    return Pair(
        identifier,
        people.from_row(values[own : own + width]),
        people.from_row(values[own + width : own + 2 * width]),
        PairStatus(status),
        bot,
        room_id,
        room_token,
        supervisor_introduced,
        supervisee_introduced,
        None if lengths is None else tuple(lengths),
        None if approval is None else Approval(approval),
        archived_at,
        expires_on,
        held_at,
        None if fault is None else Fault(fault),
        fault_at,
        removed_at,
    )


async def add(tx: Transaction, actor: Actor, supervisor: Person, supervisee: Person, *, now: datetime) -> Pair:
    """Pair two people up. Their bot makes the room, once both have a Matrix ID.

    Refused without the roles, or if they are a pair already. Raises NotAllowed for anybody but an admin and the
    operator.
    """
    await people.require_admin(tx, actor)
    if supervisor.id == supervisee.id:
        raise NotUnderstood("refused.pair_needs_two")
    if Role.SUPERVISOR not in supervisor.roles or Role.SUPERVISEE not in supervisee.roles:
        raise NotUnderstood("refused.pair_roles")
    if supervisor.disabled_at or supervisee.disabled_at:
        raise NotFound("refused.person_not_found")
    identifier = uuid.uuid4()
    try:
        await tx.execute(
            insert(pairs).values(
                id=identifier,
                supervisor_id=supervisor.id,
                supervisee_id=supervisee.id,
                status=PairStatus.ACTIVE,
                bot=await bots.least_busy(tx, now=now),
                room_token=uuid.uuid4(),
                created_at=now,
            )
        )
    except IntegrityError as error:
        raise NotUnderstood("refused.pair_exists") from error
    await audit.record(tx, actor, "pair.add", "pair", identifier, now=now)
    await wake_keepers(tx)
    return await get(tx, identifier)


async def archive(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """Close a pair: what is to come is cancelled, nobody waits any more, and nobody writes in the room.

    Both are told. Raises NotAllowed for anybody but the pair's supervisor, an admin, the operator and the clock, and
    NotFound for a pair that is not active.
    """
    from supervision import closings  # it builds on appointments, which build on this module

    pair = await get_locked(tx, pair_id)
    await require_supervisor(tx, actor, pair)
    changed = await tx.execute(
        update(pairs)
        .where(pairs.c.id == pair_id, pairs.c.status == PairStatus.ACTIVE)
        .values(status=PairStatus.ARCHIVED, archived_at=now)
    )
    if changed.rowcount == 0:
        raise NotFound("refused.pair_not_found")
    called_off = await closings.call_off(tx, actor, pair, now=now)
    await audit.record(tx, actor, "pair.archive", "pair", pair_id, now=now)
    await _tell_both(tx, actor, pair, "pair.archived", {"called_off": called_off}, now=now)
    await wake_keepers(tx)


async def reopen(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """Let an archived pair go on in its room. What was cancelled stays so; a last day that is over holds no more.

    Raises NotUnderstood where the room is gone or being removed, where the two are a pair again already, or one of
    them is disabled; NotAllowed as `archive`, and to the supervisor of a pair that was handed over; NotFound for a pair
    that is not archived.
    """
    pair = await get_locked(tx, pair_id)
    await require_supervisor(tx, actor, pair)
    if await is_handed_over(tx, pair):
        await _require_admin_after_hand_over(tx, actor)
    if pair.status is not PairStatus.ARCHIVED:
        raise NotFound("refused.pair_not_archived")
    if pair.removed_at is not None or await is_being_removed(tx, pair_id):
        raise NotUnderstood("refused.pair_removed")
    if any(person.disabled_at for person in pair.people):
        raise NotUnderstood("refused.pair_disabled")
    values: dict[str, Any] = {"status": PairStatus.ACTIVE, "archived_at": None}
    if is_over(pair, now=now):
        values["expires_on"] = None
    try:
        await tx.execute(update(pairs).where(pairs.c.id == pair_id).values(**values))
    except IntegrityError as error:
        raise NotUnderstood("refused.pair_exists") from error
    await audit.record(tx, actor, "pair.reopen", "pair", pair_id, now=now)
    await _tell_both(tx, actor, pair, "pair.reopened", {}, now=now)
    await wake_keepers(tx)


async def is_handed_over(tx: Transaction, pair: Pair) -> bool:
    """Whether another supervisor took over from this one, and nobody has brought the two together again since.

    What is kept of an earlier room of the two (see renewals.py) is a pair of its own, and shares that.
    """
    theirs = (pairs.c.supervisor_id == pair.supervisor.id) & (pairs.c.supervisee_id == pair.supervisee.id)
    query = (
        select(audit_entries.c.action)
        .where(
            audit_entries.c.resource_id.in_(select(cast(pairs.c.id, Text)).where(theirs)),
            audit_entries.c.action.in_(("pair.add", "pair.hand_over", "pair.reopen")),
            audit_entries.c.success,
        )
        .order_by(audit_entries.c.id.desc())
        .limit(1)
    )
    return await tx.scalar(query) == "pair.hand_over"


async def _require_admin_after_hand_over(tx: Transaction, actor: Actor) -> None:
    try:
        await people.require_admin(tx, actor)
    except NotAllowed as error:
        raise NotAllowed("refused.pair_handed_over") from error


async def hold(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """Keep everything of a pair's room, whatever its days are: a legal hold, by an admin or the operator.

    A removal of the room that the homeserver has not begun is withdrawn.
    """
    await _set_hold(tx, actor, pair_id, now, "pair.hold", now=now)
    open_ones = select(OPEN_REMOVALS.c.id).where(OPEN_REMOVALS.c.pair_id == pair_id)
    for task_id in list(await tx.scalars(open_ones)):
        await homeserver_tasks.withdraw(tx, task_id, now=now)


async def release(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """End a legal hold."""
    await _set_hold(tx, actor, pair_id, None, "pair.release", now=now)


async def _set_hold(
    tx: Transaction, actor: Actor, pair_id: uuid.UUID, held_at: datetime | None, action: str, *, now: datetime
) -> None:
    await people.require_admin(tx, actor)
    pair = await get_locked(tx, pair_id)
    if (pair.held_at is None) == (held_at is None):
        return
    await tx.execute(update(pairs).where(pairs.c.id == pair_id).values(held_at=held_at))
    await void_announcements(tx, pair_id)
    await audit.record(tx, actor, action, "pair", pair_id, now=now)
    await wake_keepers(tx)


async def void_announcements(tx: Transaction, pair_id: uuid.UUID) -> None:
    """What was announced to be removed is not: once it is to be, it has to be announced anew (see retention.py)."""
    await tx.execute(
        update(outbox)
        .where(outbox.c.pair_id == pair_id, outbox.c.kind == "retention.announced", outbox.c.details.has_key("until"))
        .values(details=outbox.c.details.op("-")("until"))
    )


async def remove_room(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> uuid.UUID | None:
    """Have an archived pair's room removed from the homeserver with everything in it, for good.

    Returns the homeserver's task, after which `forget_room` is due; None where there was no room. Its appointments
    stay as records. Raises NotAllowed for anybody but an admin and the operator, NotUnderstood for a pair that is
    active, held, or without a room.
    """
    await people.require_admin(tx, actor)
    pair = await get_locked(tx, pair_id)
    if pair.status is not PairStatus.ARCHIVED:
        raise NotUnderstood("refused.pair_active")
    if pair.held_at is not None:
        raise NotUnderstood("refused.pair_held")
    if pair.removed_at is not None or await is_being_removed(tx, pair_id):
        raise NotUnderstood("refused.pair_removed")
    await audit.record(tx, actor, "pair.remove_room", "pair", pair_id, now=now)
    if pair.room_id is None:
        await forget_room(tx, pair_id, now=now)
        return None
    details = {"room": pair.room_id}
    return await homeserver_tasks.put(tx, Task.REMOVE_ROOM, pair_id=pair_id, details=details, now=now)


async def is_being_removed(tx: Transaction, pair_id: uuid.UUID) -> bool:
    """Whether the homeserver's administrator still has to remove the pair's room."""
    return await tx.scalar(select(OPEN_REMOVALS.c.id).where(OPEN_REMOVALS.c.pair_id == pair_id).limit(1)) is not None


async def forget_room(tx: Transaction, pair_id: uuid.UUID, *, now: datetime) -> None:
    """The homeserver has removed the room: what was kept of it goes too. May be called again.

    Who sent a file that another room still shows is remembered (attachments.py).
    """
    await tx.execute(delete(attachments).where(attachments.c.pair_id == pair_id, attachments.c.removed_at.is_(None)))
    for table in (memberships, unreads, questions):
        await tx.execute(delete(table).where(table.c.pair_id == pair_id))
    room_id = select(pairs.c.room_id).where(pairs.c.id == pair_id).scalar_subquery()
    await tx.execute(delete(journal).where(journal.c.room_id == room_id))
    await tx.execute(
        update(pairs)
        .where(pairs.c.id == pair_id, pairs.c.removed_at.is_(None))
        .values(room_id=None, removed_at=now, fault=None, fault_at=None)
    )
    await audit.record(tx, SYSTEM, "room.remove", "pair", pair_id, now=now)
    await wake_keepers(tx)


async def hand_over(
    tx: Transaction, actor: Actor, pair_id: uuid.UUID, new_supervisor: Person, *, now: datetime
) -> Pair:
    """Let another supervisor take over: this pair is archived, and a new one begins with a new, empty room.

    Nothing of the old room is shown to her. Raises NotAllowed for anybody but an admin and the operator, NotUnderstood
    where it is the same supervisor, and what `add` raises.
    """
    await people.require_admin(tx, actor)
    pair = await get(tx, pair_id)
    if new_supervisor.id == pair.supervisor.id:
        raise NotUnderstood("refused.pair_exists")
    await lock_people(tx, [pair.supervisor.id, pair.supervisee.id, new_supervisor.id])
    pair, new_supervisor = await get(tx, pair_id), await people.get(tx, new_supervisor.id)
    if pair.status is PairStatus.ACTIVE:
        await archive(tx, actor, pair_id, now=now)
    made = await add(tx, actor, new_supervisor, pair.supervisee, now=now)
    await audit.record(tx, actor, "pair.hand_over", "pair", pair_id, now=now)
    return made


async def invite_again(
    tx: Transaction, actor: Actor, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime
) -> None:
    """Have somebody invited who left the room, or was put out of it. NotAllowed as `archive`."""
    pair = await get_locked(tx, pair_id)
    await require_supervisor(tx, actor, pair)
    person = pair.member(person_id)
    if pair.room_id is None:
        raise NotUnderstood("refused.pair_without_room")
    if person.disabled_at is not None or person.matrix_id is None:
        raise NotFound("refused.person_not_found")
    # A member of whom nothing is known is one to be invited: see memberships.note.
    await tx.execute(
        delete(memberships).where(
            memberships.c.pair_id == pair_id,
            memberships.c.person_id == person_id,
            memberships.c.membership.not_in(("join", "invite")),
        )
    )
    await audit.record(tx, actor, "pair.invite_again", "pair", pair_id, now=now)
    await wake_keepers(tx)


async def put_out(tx: Transaction, person_id: uuid.UUID) -> None:
    """A person is disabled: their browsers are signed out, the bots put them out of their rooms and give no keys."""
    await tx.execute(delete(sessions).where(sessions.c.person_id == person_id))
    matrix_id = await tx.scalar(select(people_table.c.matrix_id).where(people_table.c.id == person_id))
    if matrix_id is not None:
        await tx.execute(select(func.pg_notify("visavis_identities", matrix_id)))
    await wake_keepers(tx)


async def expire(tx: Transaction, *, now: datetime) -> int:
    """Archive the pairs whose last day is over, and tell those whose last day comes within a week. Returns how many."""
    soon = (now + FARTHEST_EAST + WARNED).date()
    query = SELECT.where(pairs.c.status == PairStatus.ACTIVE, pairs.c.expires_on <= soon).order_by(pairs.c.id)
    found = [from_row(row) for row in await tx.execute(query)]
    await lock_people(tx, [person.id for pair in found for person in pair.people])  # of all at once, so ascending
    changed = 0

    async def see_to(pair: Pair) -> None:
        nonlocal changed
        if is_over(pair, now=now):
            await archive(tx, SYSTEM, pair.id, now=now)
            changed += 1
        elif pair.expires_on and _local_day(pair, now) + WARNED >= pair.expires_on:
            changed += await _warn(tx, pair, pair.expires_on, now=now)

    still = list(await tx.execute(query.where(pairs.c.id.in_([one.id for one in found]))))
    await take_each(tx, map(from_row, still), see_to, "expire_pairs")
    return changed


async def _warn(tx: Transaction, pair: Pair, last: date, *, now: datetime) -> bool:
    """Once for each last day, or one near it."""
    since = datetime(last.year, last.month, last.day, tzinfo=UTC) - WARNED - timedelta(days=2)
    if await audit.is_recorded(tx, "pair.expiring", pair.id, since=since):
        return False
    await audit.record(tx, SYSTEM, "pair.expiring", "pair", pair.id, now=now)
    await _tell_both(tx, SYSTEM, pair, "pair.expiring", {"last": last.isoformat()}, now=now)
    return True


def is_over(pair: Pair, *, now: datetime) -> bool:
    """Whether the pair's last day has passed in the supervisor's zone."""
    return pair.expires_on is not None and _local_day(pair, now) > pair.expires_on


def _local_day(pair: Pair, now: datetime) -> date:
    return now.astimezone(pair.supervisor.zone).date()


async def require_supervisor(tx: Transaction, actor: Actor, pair: Pair) -> None:
    """Raise NotAllowed for anybody but the pair's supervisor and those whom `people.require_admin` lets."""
    if actor.person_id != pair.supervisor.id or pair.supervisor.disabled_at is not None:
        await people.require_admin(tx, actor)


async def get_locked(tx: Transaction, pair_id: uuid.UUID) -> Pair:
    """The pair, that nobody else changes until this transaction ends."""
    await lock_people(tx, [person.id for person in (await get(tx, pair_id)).people])
    return await get(tx, pair_id)


async def _tell_both(
    tx: Transaction, actor: Actor, pair: Pair, kind: str, details: dict[str, Any], *, now: datetime
) -> None:
    """By mail and in the room, but for whoever asked for it there: they are answered."""
    by = {"by": str(actor.person_id) if pair.is_member(actor.person_id) else None}
    notices = [
        Notice(person.id, channel, kind, by | details, pair_id=pair.id, priority=NORMAL)
        for person in pair.people
        if person.disabled_at is None
        for channel in (Channel.MATRIX, Channel.MAIL)
        if (channel, actor.via, actor.person_id) != (Channel.MATRIX, "matrix", person.id)
    ]
    await notifications.enqueue(tx, notices, now=now)


async def wake_keepers(tx: Transaction) -> None:
    """Have the bots compare their pairs' rooms with what they are to be, when this transaction commits."""
    await tx.execute(select(func.pg_notify(ROOMS, "")))


async def get(tx: Transaction, pair_id: uuid.UUID) -> Pair:
    return _only(await BY_ID.fetch(tx, {"id": pair_id}))


async def by_room(tx: Transaction, room_id: str) -> Pair:
    return _only(await BY_ROOM.fetch(tx, {"room_id": room_id}))


async def list_of(tx: Transaction, person_id: uuid.UUID, *, archived: bool = False) -> list[Pair]:
    """The pairs in which this person stands, in either role."""
    query = SELECT.where(or_(pairs.c.supervisor_id == person_id, pairs.c.supervisee_id == person_id))
    if not archived:
        query = query.where(pairs.c.status == PairStatus.ACTIVE)
    return [from_row(row) for row in await tx.execute(query.order_by(pairs.c.created_at, pairs.c.id))]


async def list_all(tx: Transaction) -> list[Pair]:
    return [from_row(row) for row in await tx.execute(SELECT.order_by(pairs.c.created_at, pairs.c.id))]


async def list_for_bot(tx: Transaction, bot: str) -> list[Pair]:
    """The pairs that this bot account keeps: the active ones, and those whose room is there to be read."""
    query = SELECT.where(
        pairs.c.bot == bot,
        or_(pairs.c.status == PairStatus.ACTIVE, pairs.c.room_id.is_not(None)),
        pairs.c.id.not_in(select(OPEN_REMOVALS.c.pair_id)),
    )
    return [from_row(row) for row in await tx.execute(query.order_by(pairs.c.created_at, pairs.c.id))]


async def adopt(tx: Transaction, bot: str) -> None:
    """Give a bot account the active pairs that were made before there was any."""
    await tx.execute(update(pairs).where(pairs.c.bot.is_(None), pairs.c.status == PairStatus.ACTIVE).values(bot=bot))


async def set_room(tx: Transaction, pair_id: uuid.UUID, room_id: str) -> None:
    """Its bot has made the pair's room; of a pair that was removed meanwhile, it is there to be removed again."""
    await tx.execute(update(pairs).where(pairs.c.id == pair_id).values(room_id=room_id, removed_at=None))


async def set_introduced(tx: Transaction, pair: Pair, person: Person, *, now: datetime) -> bool:
    """Note that the bot introduces itself to this person now. False if it did before."""
    column = pairs.c.supervisor_introduced_at if person.id == pair.supervisor.id else pairs.c.supervisee_introduced_at
    changed = await tx.execute(update(pairs).where(pairs.c.id == pair.id, column.is_(None)).values({column: now}))
    return changed.rowcount == 1


async def unset_introduced(tx: Transaction, pair: Pair, person_ids: Collection[uuid.UUID]) -> None:
    """The bot's introduction did not reach these: it is to be made again when they can read it."""
    values: dict[str, None] = {}
    if pair.supervisor.id in person_ids:
        values["supervisor_introduced_at"] = None
    if pair.supervisee.id in person_ids:
        values["supervisee_introduced_at"] = None
    await tx.execute(update(pairs).where(pairs.c.id == pair.id).values(**values))


async def alarm_stranger(tx: Transaction, pair: Pair, *, now: datetime) -> bool:
    """Somebody besides the two is in a pair's room: tell both and every admin by mail, once a day at most.

    Returns whether it was told now.
    """
    if await audit.is_recorded(tx, "room.stranger", pair.id, since=now - timedelta(days=1)):
        return False
    await audit.record(tx, audit.SYSTEM, "room.stranger", "pair", pair.id, now=now, success=False)
    details = {"pair": str(pair.id)}
    mails = [Notice(one, Channel.MAIL, "room.stranger", details, priority=HIGH) for one in await _watchers(tx, pair)]
    await notifications.enqueue(tx, mails, now=now)
    return True


async def set_fault(tx: Transaction, pair: Pair, fault: Fault, *, now: datetime) -> bool:
    """Nothing is said in the pair's room from now on, for that reason, and no command of it takes effect.

    Both and every admin are told by mail, once a day at most; of an archived pair's room, where nothing is said anyway,
    only when it is found. Returns whether they were told now. May be called again for as long as it lasts. Nothing is
    noted where the pair has another room by now.
    """
    stands = (pairs.c.id == pair.id) & pairs.c.room_id.is_not_distinct_from(pair.room_id)
    status = await tx.scalar(select(pairs.c.status).where(stands).with_for_update(key_share=True))
    another = pairs.c.fault.is_distinct_from(fault)
    changed = await tx.execute(update(pairs).where(stands, another).values(fault=fault, fault_at=now))
    if status != PairStatus.ACTIVE and not changed.rowcount:
        return False
    if await audit.is_recorded(tx, "room.fault", pair.id, since=now - timedelta(days=1)):
        return False
    await audit.record(tx, SYSTEM, "room.fault", "pair", pair.id, now=now, success=False, reason=fault)
    details = {"pair": str(pair.id), "fault": fault}
    mails = [Notice(one, Channel.MAIL, "room.fault", details, priority=HIGH) for one in await _watchers(tx, pair)]
    await notifications.enqueue(tx, mails, now=now)
    return True


async def note_not_made(tx: Transaction, pair: Pair, *, now: datetime) -> None:
    """The homeserver refuses to make the pair's room: shown to admins until a room that was made is found well."""
    another = pairs.c.fault.is_distinct_from(Fault.REFUSED)
    values = {"fault": Fault.REFUSED, "fault_at": now}
    changed = await tx.execute(update(pairs).where(pairs.c.id == pair.id, another).values(**values))
    if changed.rowcount:
        await audit.record(tx, SYSTEM, "room.make", "pair", pair.id, now=now, success=False, reason=Fault.REFUSED)


async def _watchers(tx: Transaction, pair: Pair) -> list[uuid.UUID]:
    """Whom a room's safety concerns: its two, and every admin."""
    return list(dict.fromkeys([*(one.id for one in pair.people if one.disabled_at is None), *await admins(tx)]))


async def clear_fault(tx: Transaction, pair_id: uuid.UUID, *, now: datetime) -> bool:
    """The room is well again; returns whether it was not."""
    well = update(pairs).where(pairs.c.id == pair_id, pairs.c.fault.is_not(None)).values(fault=None, fault_at=None)
    changed = await tx.execute(well)
    if changed.rowcount:
        await audit.record(tx, SYSTEM, "room.recover", "pair", pair_id, now=now)
    return bool(changed.rowcount)


async def admins(tx: Transaction) -> list[uuid.UUID]:
    """Everybody who administers Visavis."""
    return [one.id for one in await people.list_all(tx) if Role.ADMIN in one.roles and one.disabled_at is None]


def _only(rows: Sequence[Iterable[Any]]) -> Pair:
    for row in rows:
        return from_row(row)
    raise NotFound("refused.pair_not_found")

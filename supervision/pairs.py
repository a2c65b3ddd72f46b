"""Pairs: one supervisor, one supervisee, one room."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from supervision import audit, notifications, people
from supervision.audit import Actor
from supervision.db import Ready, Transaction, lock_people
from supervision.errors import NotAllowed, NotFound, NotUnderstood, PairArchived
from supervision.models import Approval, Channel, PairStatus, Role, audit_entries, bots, pairs
from supervision.models import people as people_table
from supervision.notifications import HIGH, Notice
from supervision.people import Person


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

    @property
    def people(self) -> tuple[Person, Person]:
        return self.supervisor, self.supervisee

    def member(self, person_id: uuid.UUID | None) -> Person:
        """The one of the two with this ID. Raises NotAllowed for anybody else."""
        for person in self.people:
            if person.id == person_id:
                return person
        raise NotAllowed

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


def from_row(row: Iterable[Any]) -> Pair:
    values = tuple(row)
    own, width = len(PAIR_COLUMNS), len(people.COLUMNS)
    identifier, status, bot, room_id, room_token, *introduced, lengths, approval = values[:own]
    supervisor_introduced, supervisee_introduced = introduced
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
    )


async def add(tx: Transaction, actor: Actor, supervisor: Person, supervisee: Person, *, now: datetime) -> Pair:
    """Pair two people up. Their bot makes the room. Refused without the roles, or if they are a pair already."""
    if supervisor.id == supervisee.id:
        raise NotUnderstood("refused.pair_needs_two")
    if Role.SUPERVISOR not in supervisor.roles or Role.SUPERVISEE not in supervisee.roles:
        raise NotUnderstood("refused.pair_roles")
    if supervisor.disabled_at or supervisee.disabled_at:
        raise NotFound("refused.person_not_found")
    if supervisor.matrix_id is None or supervisee.matrix_id is None:
        raise NotUnderstood("refused.pair_matrix")
    identifier = uuid.uuid4()
    try:
        await tx.execute(
            insert(pairs).values(
                id=identifier,
                supervisor_id=supervisor.id,
                supervisee_id=supervisee.id,
                status=PairStatus.ACTIVE,
                bot=await _least_busy_bot(tx),
                room_token=uuid.uuid4(),
                created_at=now,
            )
        )
    except IntegrityError as error:
        raise NotUnderstood("refused.pair_exists") from error
    await audit.record(tx, actor, "pair.add", "pair", identifier, now=now)
    await tx.execute(select(func.pg_notify("visavis_pairs", "")))
    return await get(tx, identifier)


async def archive(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    await lock_people(tx, [person.id for person in (await get(tx, pair_id)).people])
    changed = await tx.execute(
        update(pairs)
        .where(pairs.c.id == pair_id, pairs.c.status == PairStatus.ACTIVE)
        .values(status=PairStatus.ARCHIVED, archived_at=now)
    )
    if changed.rowcount == 0:
        raise NotFound("refused.pair_not_found")
    await audit.record(tx, actor, "pair.archive", "pair", pair_id, now=now)


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
    """The active pairs that this bot account keeps."""
    query = SELECT.where(pairs.c.bot == bot, pairs.c.status == PairStatus.ACTIVE)
    return [from_row(row) for row in await tx.execute(query.order_by(pairs.c.created_at, pairs.c.id))]


async def register_bot(tx: Transaction, bot: str, *, now: datetime) -> None:
    """Make a bot account known, so that new pairs are given to it."""
    await tx.execute(insert(bots).values(matrix_id=bot).on_conflict_do_nothing())
    await tx.execute(update(bots).where(bots.c.matrix_id == bot).values(started_at=now))


async def adopt(tx: Transaction, bot: str) -> None:
    """Give a bot account the active pairs that were made before there was any."""
    await tx.execute(update(pairs).where(pairs.c.bot.is_(None), pairs.c.status == PairStatus.ACTIVE).values(bot=bot))


async def set_room(tx: Transaction, pair_id: uuid.UUID, room_id: str) -> None:
    await tx.execute(update(pairs).where(pairs.c.id == pair_id).values(room_id=room_id))


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
    told = select(audit_entries.c.id).where(
        audit_entries.c.resource_id == str(pair.id),
        audit_entries.c.action == "room.stranger",
        audit_entries.c.at > now - timedelta(days=1),
    )
    if await tx.scalar(told.limit(1)) is not None:
        return False
    await audit.record(tx, audit.SYSTEM, "room.stranger", "pair", pair.id, now=now, success=False)
    admins = [one.id for one in await people.list_all(tx) if Role.ADMIN in one.roles and one.disabled_at is None]
    readers = dict.fromkeys([*(person.id for person in pair.people), *admins])
    mails = [Notice(one, Channel.MAIL, "room.stranger", {"pair": str(pair.id)}, priority=HIGH) for one in readers]
    await notifications.enqueue(tx, mails, now=now)
    return True


def _only(rows: Sequence[Iterable[Any]]) -> Pair:
    for row in rows:
        return from_row(row)
    raise NotFound("refused.pair_not_found")


async def _least_busy_bot(tx: Transaction) -> str | None:
    query = (
        select(bots.c.matrix_id)
        .outerjoin(pairs, (pairs.c.bot == bots.c.matrix_id) & (pairs.c.status == PairStatus.ACTIVE))
        .group_by(bots.c.matrix_id)
        .order_by(func.count(pairs.c.id), bots.c.matrix_id)
        .limit(1)
    )
    return await tx.scalar(query)

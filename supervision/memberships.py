"""Who is in a pair's room, as the bot that keeps it last saw it."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from supervision import audit, notifications, pairs
from supervision.audit import SYSTEM
from supervision.db import Transaction
from supervision.models import Channel, PairStatus
from supervision.models import memberships as table
from supervision.models import pairs as pairs_table
from supervision.notifications import NORMAL, Notice
from supervision.pairs import Pair
from supervision.people import Person

PRESENT = frozenset({"join", "invite", "knock"})


@dataclass(frozen=True)
class Membership:
    """`membership` is Matrix's word: invite, join, leave, ban, knock.

    `readable` says whether they have a device there that the bot may write to.
    """

    membership: str
    readable: bool
    changed_at: datetime


async def of(tx: Transaction, pair_ids: Collection[uuid.UUID]) -> dict[tuple[uuid.UUID, uuid.UUID], Membership]:
    """What is known of these pairs, by pair and person. Who is not in it was never in the room, or is to be invited."""
    query = select(table.c.pair_id, table.c.person_id, table.c.membership, table.c.readable, table.c.changed_at)
    rows = await tx.execute(query.where(table.c.pair_id.in_(pair_ids)))
    return {(pair_id, person_id): Membership(*rest) for pair_id, person_id, *rest in rows}


async def note(
    tx: Transaction, pair: Pair, members: Mapping[str, str], readable: Collection[str], *, now: datetime
) -> None:
    """Write down who of the two is in the room now, and tell of whoever has left since the last time.

    `members` are MXID -> membership, `readable` the MXIDs of those whom the bot can write to. Of somebody who is to be
    invited there is no row, so only a known member can be seen to leave: who left wanted to, and is not invited again
    but by pairs.invite_again, which takes the row away.
    """
    known = await of(tx, [pair.id])
    for person in pair.people:
        before = known.get((pair.id, person.id))
        membership = members.get(person.matrix_id or "")
        if membership is None:
            if before is not None:
                await tx.execute(delete(table).where(table.c.pair_id == pair.id, table.c.person_id == person.id))
            continue
        can_read = person.matrix_id in readable
        if before is None and membership not in PRESENT:
            continue
        if before is None or (before.membership, before.readable) != (membership, can_read):
            await _write(tx, pair, person, membership, can_read, now=now)
        if before is not None and before.membership in PRESENT and membership not in PRESENT:
            await _tell_left(tx, pair, person, now=now)


async def _write(
    tx: Transaction, pair: Pair, person: Person, membership: str, readable: bool, *, now: datetime
) -> None:
    values = {"membership": membership, "readable": readable, "changed_at": now}
    row = insert(table).values(pair_id=pair.id, person_id=person.id, **values)
    await tx.execute(row.on_conflict_do_update(index_elements=[table.c.pair_id, table.c.person_id], set_=values))


async def _tell_left(tx: Transaction, pair: Pair, person: Person, *, now: datetime) -> None:
    """The other in the room, and the admins by mail; of whoever is put out or whose pair is closed there is no need."""
    await audit.record(tx, SYSTEM, "room.leave", "pair", pair.id, now=now)
    if pair.status is not PairStatus.ACTIVE or person.disabled_at is not None:
        return
    other, who = pair.other(person.id), {"who": str(person.id)}
    room = Notice(other.id, Channel.MATRIX, "room.left", who, pair_id=pair.id, priority=NORMAL)
    details = {"pair": str(pair.id)} | who
    mails = [Notice(one, Channel.MAIL, "room.left", details) for one in await pairs.admins(tx)]
    await notifications.enqueue(tx, mails if other.disabled_at else [room, *mails], now=now)


async def unknown(tx: Transaction, bot: str) -> dict[uuid.UUID, frozenset[uuid.UUID]]:
    """Those of a bot's pairs of whom nothing is known in their room, by pair: who is to be invited there."""
    found: dict[uuid.UUID, frozenset[uuid.UUID]] = {}
    for side in (pairs_table.c.supervisor_id, pairs_table.c.supervisee_id):
        known = select(table.c.pair_id).where(table.c.pair_id == pairs_table.c.id, table.c.person_id == side).exists()
        query = select(pairs_table.c.id, side).where(pairs_table.c.bot == bot, pairs_table.c.room_id.is_not(None))
        for pair_id, person_id in await tx.execute(query.where(~known)):
            found[pair_id] = found.get(pair_id, frozenset()) | {person_id}
    return found

"""Which Matrix events were acted on, so that a command takes effect once, whatever is redelivered."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from supervision import pairs
from supervision.db import Transaction
from supervision.models import journal
from supervision.pairs import Pair

# Two questions that every message in a room asks, in one statement: whose room is it, and was this here before?
NOTED = (
    insert(journal)
    .values(
        event_id=bindparam("event_id"),
        room_id=bindparam("room"),
        session_id=bindparam("session_id"),
        message_index=bindparam("message_index"),
        outcome=bindparam("outcome"),
        handled_at=bindparam("now"),
    )
    .on_conflict_do_nothing()
    .returning(journal.c.event_id)
    .cte("noted")
)
HEAR = pairs.IN_ROOM.add_columns(select(func.count()).select_from(NOTED).scalar_subquery())

UNREADABLE = text(
    """
    DELETE FROM journal AS known
    WHERE known.room_id = :room_id AND known.session_id IS NOT NULL AND known.handled_at < :before
        AND NOT EXISTS (
            SELECT FROM jsonb_to_recordset(CAST(:readable AS jsonb)) AS still(session_id text, first bigint)
            WHERE still.session_id = known.session_id AND still.first <= known.message_index)
    """
)


async def hear(
    tx: Transaction,
    event_id: str,
    room_id: str,
    *,
    session_id: str | None,
    message_index: int | None,
    outcome: str,
    now: datetime,
) -> tuple[Pair, bool] | None:
    """Note an event in the transaction of its effect: the pair whose room it is, and whether it is new.

    It is not where it, or its ciphertext, stood here already: `session_id` and `message_index` name one Megolm
    ciphertext (Matrix client-server API, m.megolm.v1.aes-sha2), so that the same one posted again as another event is
    seen. `outcome` is a static word. None for a room of no pair.
    """
    noted = {"event_id": event_id, "room": room_id, "session_id": session_id, "message_index": message_index}
    row = (await tx.execute(HEAR, {**noted, "room_id": room_id, "outcome": outcome, "now": now})).one_or_none()
    if row is None:
        return None
    *pair, fresh = row
    return pairs.from_row(pair), bool(fresh)


async def rename(tx: Transaction, event_id: str, outcome: str) -> None:
    """Another outcome for an event that this transaction has recorded."""
    await tx.execute(update(journal).where(journal.c.event_id == event_id).values(outcome=outcome))


async def handled(tx: Transaction, event_ids: Sequence[str]) -> set[str]:
    """Which of these events stand in the journal."""
    rows = await tx.execute(select(journal.c.event_id).where(journal.c.event_id.in_(event_ids)))
    return {row.event_id for row in rows}


async def forget_rooms(tx: Transaction, rooms: Collection[str]) -> None:
    """Forget all that was acted on in rooms that are no more."""
    await tx.execute(delete(journal).where(journal.c.room_id.in_(rooms)))


async def forget(tx: Transaction, room_id: str, readable: Mapping[str, int], *, before: datetime) -> None:
    """Forget what was acted on in a room before that time and could not be read again if it were posted again.

    `readable` is which Megolm sessions can still be opened, and from which message index on.
    """
    still = [{"session_id": session_id, "first": first} for session_id, first in readable.items()]
    await tx.execute(UNREADABLE, {"room_id": room_id, "before": before, "readable": json.dumps(still)})

"""Which Matrix events were acted on, so that a command takes effect once, whatever is redelivered."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, text

from supervision.db import Transaction
from supervision.models import journal

RECORD = text(
    """
    INSERT INTO journal (event_id, room_id, session_id, message_index, outcome, handled_at)
    VALUES (:event_id, :room_id, :session_id, :message_index, :outcome, :now)
    ON CONFLICT DO NOTHING
    """
)


async def record(
    tx: Transaction,
    event_id: str,
    room_id: str,
    *,
    session_id: str | None,
    message_index: int | None,
    outcome: str,
    now: datetime,
) -> bool:
    """Note an event in the transaction of its effect. False: it, or its ciphertext, was here already.

    `session_id` and `message_index` name one Megolm ciphertext (Matrix client-server API, m.megolm.v1.aes-sha2), so
    that the same one posted again as another event is seen. `outcome` is a static word.
    """
    added = await tx.execute(
        RECORD,
        {
            "event_id": event_id,
            "room_id": room_id,
            "session_id": session_id,
            "message_index": message_index,
            "outcome": outcome,
            "now": now,
        },
    )
    return added.rowcount == 1


async def handled(tx: Transaction, event_ids: Sequence[str]) -> set[str]:
    """Which of these events stand in the journal."""
    rows = await tx.execute(select(journal.c.event_id).where(journal.c.event_id.in_(event_ids)))
    return {row.event_id for row in rows}

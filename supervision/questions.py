"""What the bot asked whom in a room: only an open question of one's own can be answered, and only once."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from supervision.db import Transaction
from supervision.models import Question, notifications, questions


@dataclass(frozen=True)
class Asked:
    """A question as it was put. `slots` and `choices` are what its numbers stand for, from 1 on."""

    notification_id: uuid.UUID
    pair_id: uuid.UUID
    person_id: uuid.UUID
    kind: Question
    expires_at: datetime
    appointment_id: uuid.UUID | None = None
    revision: int | None = None
    slots: Sequence[datetime] = ()
    choices: Sequence[uuid.UUID] = ()


COLUMNS = (
    questions.c.notification_id,
    questions.c.pair_id,
    questions.c.person_id,
    questions.c.kind,
    questions.c.expires_at,
    questions.c.appointment_id,
    questions.c.revision,
    questions.c.slots,
    questions.c.choices,
)


async def put(tx: Transaction, asked: Asked, *, now: datetime) -> None:
    """Note a question, once, however often its notification is tried."""
    await tx.execute(
        insert(questions)
        .values(
            notification_id=asked.notification_id,
            pair_id=asked.pair_id,
            person_id=asked.person_id,
            kind=asked.kind,
            appointment_id=asked.appointment_id,
            revision=asked.revision,
            slots=list(asked.slots),
            choices=list(asked.choices),
            asked_at=now,
            expires_at=asked.expires_at,
        )
        .on_conflict_do_nothing()
    )


async def find(
    tx: Transaction, matrix_event_id: str, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime
) -> Asked | None:
    """The open question that this event put to this person, locked until the transaction ends."""
    row = (
        await tx.execute(
            select(*COLUMNS)
            .join(notifications, notifications.c.id == questions.c.notification_id)
            .where(
                notifications.c.matrix_event_id == matrix_event_id,
                questions.c.pair_id == pair_id,
                questions.c.person_id == person_id,
                questions.c.answered_at.is_(None),
                questions.c.expires_at > now,
            )
            .with_for_update(of=questions)
        )
    ).one_or_none()
    return None if row is None else _asked(row)


async def is_known(tx: Transaction, matrix_event_id: str) -> bool:
    """Whether an event is one of our own that is settled in the outbox."""
    query = select(notifications.c.id).where(notifications.c.matrix_event_id == matrix_event_id)
    return await tx.scalar(query) is not None


async def answer(tx: Transaction, asked: Asked, *, now: datetime) -> None:
    """Close a question found by `find`."""
    await tx.execute(
        update(questions).where(questions.c.notification_id == asked.notification_id).values(answered_at=now)
    )


async def last(
    tx: Transaction, person_id: uuid.UUID, pair_id: uuid.UUID, kind: Question, *, now: datetime
) -> Asked | None:
    """The list that this person was shown last in this pair's room, while it is not too old."""
    row = (
        await tx.execute(
            select(*COLUMNS)
            .where(
                questions.c.person_id == person_id,
                questions.c.pair_id == pair_id,
                questions.c.kind == kind,
                questions.c.expires_at > now,
            )
            .order_by(questions.c.asked_at.desc())
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else _asked(row)


def _asked(values: Iterable[Any]) -> Asked:
    notification_id, pair_id, person_id, kind, expires_at, appointment_id, revision, slots, choices = values
    return Asked(
        notification_id,
        pair_id,
        person_id,
        Question(kind),
        expires_at,
        appointment_id,
        revision,
        slots,
        choices,
    )

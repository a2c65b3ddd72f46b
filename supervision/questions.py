"""What the bot asked whom in a room: only an open question of one's own can be answered, and only once."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from supervision.db import Transaction
from supervision.models import Question, notifications, questions

KEPT = timedelta(days=90)  # after it could be answered
AT_ONCE = 1000  # removed, each hour


@dataclass(frozen=True)
class Asked:
    """A question as it was put. `slots` and `choices` are what its numbers stand for, from 1 on.

    `code` is what has to be typed to agree; `details` belong to the question and are IDs, times, numbers and static
    words.
    """

    notification_id: uuid.UUID
    pair_id: uuid.UUID
    person_id: uuid.UUID
    kind: Question
    expires_at: datetime
    appointment_id: uuid.UUID | None = None
    revision: int | None = None
    slots: Sequence[datetime] = ()
    choices: Sequence[uuid.UUID] = ()
    code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


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
    questions.c.code,
    questions.c.details,
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
            code=asked.code,
            details=dict(asked.details),
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
    """Close a question found by `find` or `last`. What a code agrees to is not kept: a place could be in it."""
    values: dict[str, Any] = {"answered_at": now}
    if asked.code is not None:
        values["details"] = {}
    await tx.execute(update(questions).where(questions.c.notification_id == asked.notification_id).values(**values))


async def forget_details(tx: Transaction, *, now: datetime) -> None:
    """Blank what belonged to questions that can be answered no more."""
    await tx.execute(
        update(questions).where(questions.c.expires_at <= now, questions.c.details != {}).values(details={})
    )


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Remove some of those that nobody could answer for 90 days: by then no number means a place in a list."""
    old = select(questions.c.notification_id).where(questions.c.expires_at <= now - KEPT)
    some = old.limit(AT_ONCE).with_for_update(skip_locked=True)
    await tx.execute(delete(questions).where(questions.c.notification_id.in_(some)))


async def note(tx: Transaction, asked: Asked, details: Mapping[str, Any]) -> None:
    """Write other details to a question, such as how many wrong codes were typed."""
    await tx.execute(
        update(questions).where(questions.c.notification_id == asked.notification_id).values(details=dict(details))
    )


async def last(
    tx: Transaction,
    person_id: uuid.UUID,
    pair_id: uuid.UUID,
    *kinds: Question,
    now: datetime,
    expired: bool = False,
    unanswered: bool = False,
    locked: bool = True,
) -> Asked | None:
    """What this person was asked last in this pair's room of these kinds, while it is not too old.

    Last is what was put last: two can be of one instant, or the later of an earlier one, where a clock is set back.
    With `expired` even what is too old, with `unanswered` only what is still open. Unless that is not wanted, it is
    `locked` until the transaction ends.
    """
    query = (
        select(*COLUMNS)
        .where(
            questions.c.person_id == person_id,
            questions.c.pair_id == pair_id,
            questions.c.kind.in_(kinds),
        )
        .order_by(questions.c.position.desc())
        .limit(1)
    )
    if locked:
        query = query.with_for_update()
    if not expired:
        query = query.where(questions.c.expires_at > now)
    if unanswered:
        query = query.where(questions.c.answered_at.is_(None))
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _asked(row)


def _asked(values: Iterable[Any]) -> Asked:
    identifier, pair_id, person_id, kind, *rest = values
    return Asked(identifier, pair_id, person_id, Question(kind), *rest)

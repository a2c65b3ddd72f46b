"""What only the homeserver's administrator can do, written down for the bot's process that has the token.

A task is claimed with a lease, done at the homeserver, and settled: at least once, and each kind bears being done
again, but for what a page waits for: done once more, it would take away what the person has set up since. Where nobody
has the token, a task is settled at once with the error `no_admin_token`; one whose token the homeserver does not take
stays open with `admin_token_refused`, and one for which no admin API is to be found with `no_admin_api`.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, insert, or_, select, update

from supervision.db import Transaction
from supervision.errors import NotFound
from supervision.models import Task, homeserver_tasks

CHANNEL = "visavis_tasks"
NO_ADMIN_TOKEN = "no_admin_token"  # noqa: S105  # the word for its lack
ADMIN_TOKEN_REFUSED = "admin_token_refused"  # noqa: S105  # it is done once the operator has put the token right
NO_ADMIN_API = "no_admin_api"  # likewise, once Synapse itself answers
OPERATORS = frozenset({ADMIN_TOKEN_REFUSED, NO_ADMIN_API})
WITHDRAWN = "withdrawn"
AWAITED = frozenset({Task.RESET_PASSWORD, Task.SIGN_OUT})
SLOW = frozenset({Task.REMOVE_ROOM, Task.REMOVE_MEDIA})
PATIENCE = timedelta(minutes=5)  # longer than any page waits, however far two clocks are apart
LEASE = timedelta(minutes=15)  # a large room takes minutes to remove; and what is awaited is not to be done again
SHORT_LEASE = timedelta(minutes=3)  # of all else, which is a request or two of a minute at the most
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=2), timedelta(hours=1)
ANSWERS_KEPT = timedelta(hours=1)
TASKS_KEPT = timedelta(days=30)


@dataclass(frozen=True)
class HomeserverTask:
    """One task. Done without an error it has succeeded; an error of an open one is that of its last try.

    `answer` is locked (seals.py) and gone an hour after the task was done.
    """

    id: uuid.UUID
    kind: Task
    person_id: uuid.UUID | None
    pair_id: uuid.UUID | None
    details: Mapping[str, Any]
    answer: bytes | None
    attempts: int
    error: str | None
    created_at: datetime
    done_at: datetime | None

    @property
    def succeeded(self) -> bool:
        return self.done_at is not None and self.error is None

    @property
    def failed(self) -> bool:
        return self.done_at is not None and self.error is not None


COLUMNS = (
    homeserver_tasks.c.id,
    homeserver_tasks.c.kind,
    homeserver_tasks.c.person_id,
    homeserver_tasks.c.pair_id,
    homeserver_tasks.c.details,
    homeserver_tasks.c.answer,
    homeserver_tasks.c.attempts,
    homeserver_tasks.c.error,
    homeserver_tasks.c.created_at,
    homeserver_tasks.c.done_at,
)


async def put(
    tx: Transaction,
    kind: Task,
    *,
    person_id: uuid.UUID | None = None,
    pair_id: uuid.UUID | None = None,
    details: Mapping[str, Any] | None = None,
    after: timedelta = timedelta(),
    now: datetime,
) -> uuid.UUID:
    """Write a task down, to be done `after` so long, and wake the bot when this transaction commits; gives its ID."""
    identifier = uuid.uuid4()
    await tx.execute(
        insert(homeserver_tasks).values(
            id=identifier,
            kind=kind,
            person_id=person_id,
            pair_id=pair_id,
            details=dict(details or {}),
            attempts=0,
            created_at=now,
            next_try_at=now + after,
        )
    )
    await tx.execute(select(func.pg_notify(CHANNEL, "")))
    return identifier


async def get(tx: Transaction, task_id: uuid.UUID) -> HomeserverTask:
    """Raises NotFound."""
    row = (await tx.execute(select(*COLUMNS).where(homeserver_tasks.c.id == task_id))).one_or_none()
    if row is None:
        raise NotFound
    return _from_row(row)


async def latest(tx: Transaction, kind: Task, person_id: uuid.UUID) -> HomeserverTask | None:
    """The newest task of that kind about a person."""
    query = (
        select(*COLUMNS)
        .where(homeserver_tasks.c.person_id == person_id, homeserver_tasks.c.kind == kind)
        .order_by(homeserver_tasks.c.created_at.desc(), homeserver_tasks.c.id)
        .limit(1)
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def list_failed(tx: Transaction, most: int = 50) -> list[HomeserverTask]:
    """Those that were given up, or wait for the operator, newest first, for the admin's page."""
    error = homeserver_tasks.c.error
    query = (
        select(*COLUMNS)
        .where(error.is_not(None), or_(homeserver_tasks.c.done_at.is_not(None), error.in_(OPERATORS)))
        .order_by(homeserver_tasks.c.created_at.desc())
        .limit(most)
    )
    return [_from_row(row) for row in await tx.execute(query)]


async def claim(tx: Transaction, *, quick: bool = False, now: datetime) -> HomeserverTask | None:
    """The task that is due for longest, leased to the caller; None if there is none.

    With `quick` none that may take minutes, whatever else is due. What a page waited for that cannot wait any more, as
    everything was killed, is withdrawn on the way.
    """
    await tx.execute(
        update(homeserver_tasks)
        .where(
            homeserver_tasks.c.done_at.is_(None),
            homeserver_tasks.c.next_try_at <= now,
            homeserver_tasks.c.kind.in_(AWAITED),
            homeserver_tasks.c.created_at <= now - PATIENCE,
        )
        .values(done_at=now, error=WITHDRAWN)
    )
    due = (
        select(homeserver_tasks.c.id)
        .where(*_open(quick), homeserver_tasks.c.next_try_at <= now)
        .order_by(homeserver_tasks.c.next_try_at, homeserver_tasks.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    lease = case((homeserver_tasks.c.kind.in_(SLOW | AWAITED), now + LEASE), else_=now + SHORT_LEASE)
    claimed = await tx.execute(
        update(homeserver_tasks)
        .where(homeserver_tasks.c.id == due.scalar_subquery())
        .values(attempts=homeserver_tasks.c.attempts + 1, next_try_at=lease)
        .returning(*COLUMNS)
    )
    row = claimed.one_or_none()
    return None if row is None else _from_row(row)


async def next_due_at(tx: Transaction, *, quick: bool = False) -> datetime | None:
    """When the next open task, of those that `claim` may give, wants to be looked at."""
    due: datetime | None = await tx.scalar(select(func.min(homeserver_tasks.c.next_try_at)).where(*_open(quick)))
    return due


def _open(quick: bool) -> tuple[ColumnElement[bool], ...]:
    open_one: ColumnElement[bool] = homeserver_tasks.c.done_at.is_(None)
    return (open_one, homeserver_tasks.c.kind.not_in(SLOW)) if quick else (open_one,)


async def settle(tx: Transaction, task_id: uuid.UUID, *, answer: bytes | None = None, now: datetime) -> None:
    """It is done. `answer` is locked already. Whose files were removed is not kept."""
    await _settle(tx, task_id, done_at=now, error=None, answer=answer)
    of_files = homeserver_tasks.c.id == task_id, homeserver_tasks.c.kind == Task.REMOVE_MEDIA
    await tx.execute(update(homeserver_tasks).where(*of_files).values(details={}))


async def give_up(tx: Transaction, task_id: uuid.UUID, error: str, *, now: datetime) -> None:
    """Trying again would not help. `error` is a static word."""
    await _settle(tx, task_id, done_at=now, error=error)


async def put_off(
    tx: Transaction, task: HomeserverTask, error: str, *, retry_after: float | None = None, now: datetime
) -> None:
    """Try again later: after twice as long each time, or when the homeserver said (`retry_after`, seconds).

    Nothing for one that was withdrawn meanwhile.
    """
    pause = min(FIRST_PAUSE * 2 ** min(task.attempts - 1, 20), LONGEST_PAUSE)
    if retry_after is not None:
        pause = max(pause, timedelta(seconds=min(retry_after, LONGEST_PAUSE.total_seconds())))
    await tx.execute(
        update(homeserver_tasks)
        .where(homeserver_tasks.c.id == task.id, homeserver_tasks.c.done_at.is_(None))
        .values(next_try_at=now + pause, error=error)
    )


async def narrow(tx: Transaction, task_id: uuid.UUID, details: Mapping[str, Any]) -> None:
    """Part of an open task is done: what is left of it stands in `details`."""
    await tx.execute(
        update(homeserver_tasks)
        .where(homeserver_tasks.c.id == task_id, homeserver_tasks.c.done_at.is_(None))
        .values(details=dict(details))
    )


async def withdraw(tx: Transaction, task_id: uuid.UUID, *, now: datetime) -> HomeserverTask:
    """Whoever put it waits no longer: it is not begun any more. Gives how it stands.

    One that is being done at this moment may still take effect; it has an attempt.
    """
    await tx.execute(
        update(homeserver_tasks)
        .where(homeserver_tasks.c.id == task_id, homeserver_tasks.c.done_at.is_(None))
        .values(done_at=now, error=WITHDRAWN)
    )
    return await get(tx, task_id)


async def take_answer(tx: Transaction, task_id: uuid.UUID) -> bytes | None:
    """The locked answer, for the one who asked; it is forgotten here as soon as this transaction commits."""
    row = (
        await tx.execute(
            select(homeserver_tasks.c.answer).where(homeserver_tasks.c.id == task_id).with_for_update(skip_locked=True)
        )
    ).one_or_none()
    if row is None or row.answer is None:
        return None
    await _settle(tx, task_id, answer=None)
    return bytes(row.answer)


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Answers go after an hour, tasks after a month."""
    done = homeserver_tasks.c.done_at
    await tx.execute(
        update(homeserver_tasks)
        .where(done <= now - ANSWERS_KEPT, homeserver_tasks.c.answer.is_not(None))
        .values(answer=None)
    )
    await tx.execute(delete(homeserver_tasks).where(done <= now - TASKS_KEPT))


async def _settle(tx: Transaction, task_id: uuid.UUID, **values: object) -> None:
    await tx.execute(update(homeserver_tasks).where(homeserver_tasks.c.id == task_id).values(**values))


def _from_row(row: Any) -> HomeserverTask:
    identifier, kind, *rest = row
    return HomeserverTask(identifier, Task(kind), *rest)

"""What dashboards, commands and metrics read. Nothing here writes."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, text, tuple_

from supervision import appointments
from supervision.appointments import OPEN, OVER, Appointment
from supervision.db import Ready, Transaction
from supervision.models import Channel, Role, Status, audit_entries, bots, identities, series
from supervision.models import appointments as table
from supervision.notifications import PRIORITIES


@dataclass(frozen=True)
class Page:
    """Some appointments in ascending order of (start, ID), and whether more follow."""

    items: list[Appointment]
    more: bool


async def coming(
    tx: Transaction,
    person_id: uuid.UUID,
    *,
    now: datetime,
    role: Role | None = None,
    pair_id: uuid.UUID | None = None,
    most: int = 100,
) -> list[Appointment]:
    """A person's open appointments that have not ended, in one role or any, the next one first."""
    query = (
        select(*appointments.COLUMNS)
        .where(_of(person_id, role), table.c.ends_at > now, table.c.status.in_(OPEN))
        .order_by(table.c.starts_at, table.c.id)
        .limit(most)
    )
    if pair_id is not None:
        query = query.where(table.c.pair_id == pair_id)
    return [appointments.from_row(row) for row in await tx.execute(query)]


async def history(
    tx: Transaction, person_id: uuid.UUID, role: Role, *, now: datetime, most: int = 50
) -> list[Appointment]:
    """What is over, declined or cancelled for a person in that role, the latest first."""
    query = (
        select(*appointments.COLUMNS)
        .where(_of(person_id, role), or_(table.c.ends_at <= now, table.c.status.not_in(OPEN)))
        .order_by(table.c.starts_at.desc(), table.c.id)
        .limit(most)
    )
    return [appointments.from_row(row) for row in await tx.execute(query)]


async def requests(
    tx: Transaction, supervisor_id: uuid.UUID, *, now: datetime, pair_id: uuid.UUID | None = None
) -> list[Appointment]:
    """What a supervisor has to answer, the next one first."""
    query = (
        select(*appointments.COLUMNS)
        .where(
            table.c.supervisor_id == supervisor_id,
            table.c.status == Status.REQUESTED,
            table.c.starts_at > now,
        )
        .order_by(table.c.starts_at, table.c.id)
    )
    if pair_id is not None:
        query = query.where(table.c.pair_id == pair_id)
    return [appointments.from_row(row) for row in await tx.execute(query)]


async def begun(tx: Transaction, pair_id: uuid.UUID, *, since: datetime, now: datetime, most: int) -> list[Appointment]:
    """A pair's appointments that took place or should have, begun in `[since, now]`, the latest first."""
    query = (
        select(*appointments.COLUMNS)
        .where(
            table.c.pair_id == pair_id,
            table.c.starts_at >= since,
            table.c.starts_at <= now,
            table.c.status.in_((Status.CONFIRMED, *OVER)),
        )
        .order_by(table.c.starts_at.desc())
        .limit(most)
    )
    return [appointments.from_row(row) for row in await tx.execute(query)]


async def group(tx: Transaction, pair_id: uuid.UUID, ids: Collection[uuid.UUID]) -> list[Appointment]:
    """Those of a pair's appointments, the next one first."""
    query = (
        select(*appointments.COLUMNS)
        .where(table.c.pair_id == pair_id, table.c.id.in_(ids))
        .order_by(table.c.starts_at, table.c.id)
    )
    return [appointments.from_row(row) for row in await tx.execute(query)]


async def rules_of_series(tx: Transaction, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Each series' RRULE (RFC 5545, 3.3.10)."""
    if not ids:
        return {}
    rows = await tx.execute(select(series.c.id, series.c.rule).where(series.c.id.in_(ids)))
    return {row.id: row.rule for row in rows}


async def page(
    tx: Transaction,
    *,
    since: datetime,
    until: datetime | None,
    statuses: Sequence[Status],
    supervisor_id: uuid.UUID | None = None,
    supervisee_id: uuid.UUID | None = None,
    after: tuple[datetime, uuid.UUID] | None = None,
    most: int = 100,
) -> Page:
    """One person's appointments in one role that start in `[since, until)`, for the API's lists."""
    query = (
        select(*appointments.COLUMNS)
        .where(table.c.starts_at >= since)
        .order_by(table.c.starts_at, table.c.id)
        .limit(most + 1)
    )
    if supervisor_id is not None:
        query = query.where(table.c.supervisor_id == supervisor_id)
    if supervisee_id is not None:
        query = query.where(table.c.supervisee_id == supervisee_id)
    if until is not None:
        query = query.where(table.c.starts_at < until)
    if statuses:
        query = query.where(table.c.status.in_(statuses))
    if after is not None:
        query = query.where(tuple_(table.c.starts_at, table.c.id) > after)
    found = [appointments.from_row(row) for row in await tx.execute(query)]
    return Page(found[:most], len(found) > most)


async def bot_master_keys(tx: Transaction) -> dict[str, str]:
    """Each bot account's public master key, for the dashboard's fingerprint."""
    rows = await tx.execute(select(bots.c.matrix_id, bots.c.master_key).where(bots.c.master_key.is_not(None)))
    return {row.matrix_id: row.master_key for row in rows}


async def offered_identity(tx: Transaction, matrix_id: str) -> str | None:
    """The changed master key of an account that its owner has not confirmed yet."""
    query = select(identities.c.offered_key).where(identities.c.matrix_id == matrix_id)
    offered: str | None = await tx.scalar(query)
    return offered


@dataclass(frozen=True)
class RefusedCommand:
    """A message in a person's name that the bot did not believe. `reason` begins with `doubt.`."""

    at: datetime
    reason: str
    device: str | None


async def refused_commands(tx: Transaction, person_id: uuid.UUID, since: datetime, most: int) -> list[RefusedCommand]:
    """What came in that person's name from `since` on and was doubted, the latest first.

    A command that was believed and refused for another reason (a time taken, an edit) is none of these.
    """
    entry = audit_entries.c
    query = (
        select(entry.at, entry.reason, entry.device)
        .where(
            entry.actor_id == person_id,
            entry.at >= since,
            entry.action == "command",
            entry.success.is_(False),
            entry.reason.startswith("doubt."),
        )
        .order_by(entry.at.desc(), entry.id.desc())
        .limit(most)
    )
    return [RefusedCommand(row.at, row.reason, row.device) for row in await tx.execute(query)]


@dataclass(frozen=True)
class Due:
    """What of a channel and priority wants to be sent now, and for how many seconds the oldest of it has."""

    count: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True)
class Queue:
    """One channel's outbox: unsettled and parked rows by state, and what is due by priority."""

    channel: str
    states: dict[str, int]
    due: dict[int, Due]


# Each part has a partial index of its own, which a parameter instead of the state could not be known to fit.
QUEUES = Ready(
    text(
        """
        SELECT channel, state, priority, count(*), count(*) FILTER (WHERE send_at <= :now),
            min(send_at) FILTER (WHERE send_at <= :now)
        FROM notifications WHERE state = 'pending' GROUP BY channel, state, priority
        UNION ALL
        SELECT channel, state, NULL, count(*), 0, NULL
        FROM notifications WHERE state = 'waiting' GROUP BY channel, state
        UNION ALL
        SELECT channel, state, NULL, count(*), 0, NULL
        FROM notifications WHERE state = 'parked' GROUP BY channel, state
        """
    )
)


async def queues(tx: Transaction, *, now: datetime) -> list[Queue]:
    """Each channel's outbox as it is now."""
    found = {channel: Queue(channel, {}, dict.fromkeys(PRIORITIES, Due())) for channel in Channel}
    for channel, state, priority, count, due, oldest in await QUEUES.fetch(tx, {"now": now}):
        queue = found[Channel(channel)]
        queue.states[state] = queue.states.get(state, 0) + count
        if due:
            queue.due[priority] = Due(due, (now - oldest).total_seconds())
    return list(found.values())


def _of(person_id: uuid.UUID, role: Role | None) -> ColumnElement[bool]:
    match role:
        case Role.SUPERVISOR:
            return table.c.supervisor_id == person_id
        case Role.SUPERVISEE:
            return table.c.supervisee_id == person_id
        case _:
            return or_(table.c.supervisor_id == person_id, table.c.supervisee_id == person_id)

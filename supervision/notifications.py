"""The outbox: what is to be told to whom, by which channel, when; and what became of it.

A row is `pending` until it is settled as `sent`, `superseded` (the revision it speaks of is gone), `expired` (its
time has passed), `unwanted` (its person has turned its topic off) or `parked` (given up, can be retried by hand). A
Matrix row whose person has no device that the bot may write to is `waiting`, until one appears and a summary replaces
what waited.

Whoever claims a row has it until its lease ends. A process that slept through that finds, by the number of the try,
that the row is another's now: it may say that it sent it, which is so, and nothing else.
"""

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Text,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from supervision import audit
from supervision.db import Ready, Transaction
from supervision.errors import NotFound
from supervision.models import Channel, State, notifications

PRIORITIES = HIGH, NORMAL, LOW = 1, 2, 3
LEASE = timedelta(seconds=60)
UNREAD_LIFETIME = timedelta(days=2)  # after which a mail of what is unread is not worth it any more
ROUNDS = 10  # that a claim takes to find what is not out of date; the rest is left to the next

# What people typed or are called leaves the outbox with the settling of its notification.
SCRUBBED = notifications.c.details.op("-", return_type=JSONB)(literal(["lines", "reason", "address"], ARRAY(Text)))


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th failed try: `first * factor^(n-1)` up to `longest`, and when to give up."""

    first: timedelta
    longest: timedelta
    tries: int
    factor: int = 2

    def delay(self, attempts: int) -> timedelta:
        """With jitter of a quarter up or down, so that what failed together does not come back together."""
        plain = min(self.longest, self.first * float(self.factor ** min(attempts - 1, 20)))
        jitter: float = random.uniform(0.75, 1.25)  # noqa: S311 - it spreads load and guards no secret
        return plain * jitter


# A homeserver that was away is tried soon after it is back; ten minutes of it are no reason to give up.
MATRIX_BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=15), tries=2000)


@dataclass(frozen=True)
class Notice:
    """A notification to be enqueued. `details` holds IDs, times and static words as JSON, no text of people."""

    person_id: uuid.UUID
    channel: Channel
    kind: str
    details: dict[str, Any] = field(default_factory=dict)
    pair_id: uuid.UUID | None = None
    appointment_id: uuid.UUID | None = None
    revision: int | None = None
    priority: int = NORMAL
    send_at: datetime | None = None
    expires_at: datetime | None = None
    claimed: bool = False  # already leased to the caller, who sends it right after the commit
    id: uuid.UUID = field(default_factory=uuid.uuid4)

    def as_claimed(self, *, now: datetime) -> "Notification":
        """What `claim` would have returned for a notice that was enqueued with its lease."""
        return Notification(
            self.id,
            self.person_id,
            self.pair_id,
            self.appointment_id,
            self.revision,
            self.channel,
            self.kind,
            self.details,
            self.priority,
            now,
            1,
            None,
        )


@dataclass(frozen=True)
class Notification:
    """A claimed row. Its ID is the Matrix transaction ID and makes the Message-ID."""

    id: uuid.UUID
    person_id: uuid.UUID
    pair_id: uuid.UUID | None
    appointment_id: uuid.UUID | None
    revision: int | None
    channel: Channel
    kind: str
    details: dict[str, Any]
    priority: int
    created_at: datetime
    attempts: int
    matrix_event_id: str | None
    send_at: datetime | None = None  # when it was first to be sent


# One statement for any number of rows; NOTIFY reaches listeners at the commit. Also the last part of the one that
# books: see appointments.BOOK.
ENQUEUE = """
    added AS (
        INSERT INTO notifications (id, person_id, pair_id, appointment_id, revision, channel, kind, details,
            priority, state, created_at, send_at, expires_at, next_try_at, claimed_until, attempts)
        SELECT id, person_id, pair_id, appointment_id, revision, channel, kind, details, priority, 'pending',
            created_at, send_at, expires_at, send_at, claimed_until, attempts
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id uuid, person_id uuid, pair_id uuid,
            appointment_id uuid, revision int, channel text, kind text, details jsonb, priority smallint,
            created_at timestamptz, send_at timestamptz, expires_at timestamptz, claimed_until timestamptz,
            attempts int)
        RETURNING channel, claimed_until, send_at
    )
    SELECT pg_notify('visavis_' || channel, '')
    FROM (SELECT DISTINCT channel FROM added WHERE claimed_until IS NULL AND send_at <= :now) AS woken
"""
ENQUEUE_ALONE = Ready(text(f"WITH {ENQUEUE}"))
ENQUEUE_AUDITED = Ready(text(f"WITH audited AS ({audit.INSERT}), {ENQUEUE}"))


async def enqueue(
    tx: Transaction, notices: Sequence[Notice], *, now: datetime, audited: dict[str, object] | None = None
) -> None:
    """Add notifications to the outbox, and wake their channels' loops when this transaction commits.

    `audited` is an audit.entry of the change they tell, added by the same statement.
    """
    if not notices and audited is None:
        return
    statement = ENQUEUE_ALONE if audited is None else ENQUEUE_AUDITED
    await statement.fetch(tx, parameters(notices, now=now) | (audited or {}))


def parameters(notices: Sequence[Notice], *, now: datetime) -> dict[str, object]:
    """The parameters of `ENQUEUE`."""
    rows = [
        {
            "id": str(notice.id),
            "person_id": str(notice.person_id),
            "pair_id": notice.pair_id and str(notice.pair_id),
            "appointment_id": notice.appointment_id and str(notice.appointment_id),
            "revision": notice.revision,
            "channel": notice.channel,
            "kind": notice.kind,
            "details": notice.details,
            "priority": notice.priority,
            "created_at": now.isoformat(),
            "send_at": (notice.send_at or now).isoformat(),
            "expires_at": notice.expires_at and notice.expires_at.isoformat(),
            "claimed_until": (now + LEASE).isoformat() if notice.claimed else None,
            "attempts": int(notice.claimed),
        }
        for notice in notices
    ]
    return {"rows": json.dumps(rows), "now": now}


SUPERSEDE_OLDER = Ready(
    update(notifications)
    .where(
        notifications.c.appointment_id == bindparam("appointment"),
        notifications.c.revision < bindparam("before"),
        notifications.c.state == literal_column("'pending'"),
        notifications.c.attempts == literal_column("0"),
    )
    .values(
        state=literal_column("'superseded'"),
        settled_at=bindparam("now"),
        details=literal_column("details - ARRAY['lines', 'reason', 'address']"),
    )
)


async def supersede_older(tx: Transaction, appointment_id: uuid.UUID, revision: int, *, now: datetime) -> None:
    """Settle what nobody has tried to send yet of an appointment's earlier revisions, reminders among it."""
    await SUPERSEDE_OLDER.fetch(tx, {"appointment": appointment_id, "before": revision, "now": now})


# Whatever is older and due for the same person, channel and appointment goes first. `send_at <= now`: a reminder of
# next week does not hold up today's news, a mail that is to be tried again does; unless it speaks of a revision that
# is gone, so that it will not be sent again, or is being sent just now.
FREE = """
    n.channel = :channel AND n.state = 'pending'
    AND (CAST(:bot AS text) IS NULL OR EXISTS (SELECT FROM pairs WHERE pairs.id = n.pair_id AND pairs.bot = :bot))
    AND NOT EXISTS (
        SELECT FROM notifications AS older
        WHERE older.appointment_id = n.appointment_id AND older.person_id = n.person_id
            AND older.channel = n.channel AND older.position < n.position
            AND older.state = 'pending' AND older.send_at <= :now
            AND (older.revision IS NULL OR older.revision >= coalesce(n.revision, 0) OR older.claimed_until > :now))
"""

# Each priority has an ordered piece of the index of its own, so what is planned for later is not even looked at.
CLAIM = Ready(
    text(
        f"""
        WITH due AS (
            SELECT found.id FROM unnest(ARRAY[1, 2, 3]) AS p(priority)
            CROSS JOIN LATERAL (
                SELECT n.id FROM notifications AS n
                WHERE {FREE} AND n.priority = p.priority AND n.next_try_at <= :now
                    AND (n.claimed_until IS NULL OR n.claimed_until <= :now)
                ORDER BY n.next_try_at, n.position
                LIMIT CASE WHEN p.priority = {LOW} THEN CAST(:low AS bigint) ELSE CAST(:most AS bigint) END
                FOR UPDATE OF n SKIP LOCKED
            ) AS found
            LIMIT CAST(:most AS bigint)
        ), judged AS (
            SELECT n.id, CASE
                WHEN n.expires_at <= :now THEN 'expired'
                WHEN n.revision < a.revision THEN 'superseded'
                ELSE 'pending' END AS state
            FROM due JOIN notifications AS n ON n.id = due.id LEFT JOIN appointments AS a ON a.id = n.appointment_id
        )
        UPDATE notifications AS n
        SET attempts = n.attempts + 1,
            state = judged.state,
            claimed_until = CASE WHEN judged.state = 'pending' THEN CAST(:until AS timestamptz) END,
            details = CASE WHEN judged.state = 'pending' THEN n.details
                ELSE n.details - ARRAY['lines', 'reason', 'address'] END,
            settled_at = CASE WHEN judged.state <> 'pending' THEN CAST(:now AS timestamptz) END
        FROM judged WHERE n.id = judged.id
        RETURNING n.id, n.person_id, n.pair_id, n.appointment_id, n.revision, n.channel, n.kind, n.details,
            n.priority, n.created_at, n.attempts, n.matrix_event_id, n.send_at, n.state, n.position
        """  # noqa: S608 - of constants of ours alone
    )
)


async def claim(
    tx: Transaction,
    channel: Channel,
    *,
    now: datetime,
    most: int = 10,
    low: int | None = None,
    bot: str | None = None,
    lease: timedelta = LEASE,
) -> list[Notification]:
    """Lease what is due, the most urgent first. What is out of date is settled on the way and not returned.

    At most `low` of the lowest priority; `bot` limits it to the rooms of one bot account. Commit before sending: the
    lease keeps others away.
    """
    values = {"channel": channel, "now": now, "until": now + lease, "bot": bot}
    low = most if low is None else low
    found: list[Any] = []
    for _ in range(ROUNDS):
        rows = await CLAIM.fetch(tx, values | {"most": most - len(found), "low": min(low, most - len(found))})
        claimed = [row for row in rows if row["state"] == State.PENDING]
        found += claimed
        low -= sum(row["priority"] == LOW for row in claimed)
        if len(claimed) == len(rows) or len(found) == most:
            break
    found.sort(key=lambda row: (row["priority"], row["position"]))
    return [_from_row(row) for row in found]


# The tries that are the caller's own: nobody has claimed these rows since.
OWN = """
    FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) AS own(id, attempts)
    WHERE n.id = own.id AND n.attempts = own.attempts AND n.state = 'pending'
"""
RENEW = Ready(text(f"UPDATE notifications AS n SET claimed_until = :until {OWN} RETURNING n.id"))  # noqa: S608
GIVE_BACK = Ready(
    text(
        "UPDATE notifications AS n SET claimed_until = NULL, attempts = n.attempts - 1,"  # noqa: S608
        f" error = coalesce(CAST(:error AS text), n.error) {OWN}"
    )
)


async def renew(tx: Transaction, claimed: Sequence[Notification], lease: timedelta, *, now: datetime) -> set[uuid.UUID]:
    """Keep these rows leased for that much longer, where they are still the caller's. Returns the IDs of those."""
    return {row["id"] for row in await RENEW.fetch(tx, _tries(claimed) | {"until": now + lease})}


async def give_back(tx: Transaction, claimed: Sequence[Notification], error: str | None = None) -> None:
    """Leave these to whoever claims next, as if they had not been claimed; `error` says what kept them from being sent.

    For what is no answer to them: a server that cannot be reached, a stop.
    """
    await GIVE_BACK.fetch(tx, _tries(claimed) | {"error": error})


def _tries(claimed: Sequence[Notification]) -> dict[str, object]:
    return {"ids": [one.id for one in claimed], "attempts": [one.attempts for one in claimed]}


async def postpone(tx: Transaction, notification: Notification, until: datetime) -> None:
    """It is not to be told before `until`, and holds up nothing before. The try is not counted."""
    await tx.execute(
        update(notifications)
        .where(*_own(notification))
        .values(
            send_at=until,
            next_try_at=until,
            claimed_until=None,
            attempts=notifications.c.attempts - 1,
        )
    )


# When a row was first to be told: a reminder's moment hangs on its appointment's start, the mail of what is unread
# waits for it to be read, and all else is told at once. What `postpone` put off is told later than that.
RELEASE = Ready(
    text(
        """
        UPDATE notifications SET send_at = :now, next_try_at = :now
        WHERE person_id = :person AND state = 'pending' AND send_at > :now AND :now >= CASE kind
            WHEN 'appointment.reminder'
                THEN expires_at - make_interval(mins => coalesce(CAST(details ->> 'minutes' AS int), 1440))
            WHEN 'room.unread' THEN expires_at - CAST(:unread AS interval)
            ELSE created_at END
        RETURNING pg_notify('visavis_' || channel, '')
        """
    )
)


async def release(tx: Transaction, person_id: uuid.UUID, *, now: datetime) -> None:
    """A person's quiet hours are others now: what the old ones put off is judged anew, at once."""
    await RELEASE.fetch(tx, {"person": person_id, "now": now, "unread": UNREAD_LIFETIME})


def _own(notification: Notification) -> tuple[ColumnElement[bool], ...]:
    return (
        notifications.c.id == notification.id,
        notifications.c.attempts == notification.attempts,
        notifications.c.state == State.PENDING,
    )


SETTLE_SENT = Ready(
    text(
        "UPDATE notifications SET state = 'sent', settled_at = :now, claimed_until = NULL, error = NULL,"
        " details = details - ARRAY['lines', 'reason', 'address']"
        " WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'pending'"
    )
)


async def settle_all_sent(tx: Transaction, ids: Sequence[uuid.UUID], *, now: datetime) -> None:
    """They were handed over, which is so whoever has claimed them since; what was settled otherwise stays so."""
    await SETTLE_SENT.fetch(tx, {"ids": list(ids), "now": now})


async def settle_sent(
    tx: Transaction, notification_id: uuid.UUID, *, now: datetime, matrix_event_id: str | None = None
) -> None:
    """It was told, in a room as this event; what people typed leaves the row with it."""
    values: dict[str, Any] = {
        "state": State.SENT,
        "settled_at": now,
        "claimed_until": None,
        "error": None,
        "details": SCRUBBED,
    }
    if matrix_event_id is not None:
        values["matrix_event_id"] = matrix_event_id
    await tx.execute(update(notifications).where(notifications.c.id == notification_id).values(**values))


async def note_event(tx: Transaction, notification_id: uuid.UUID, matrix_event_id: str) -> None:
    """Remember which event a notification became, before its reactions are added and it is settled."""
    await tx.execute(
        update(notifications).where(notifications.c.id == notification_id).values(matrix_event_id=matrix_event_id)
    )


async def is_unsure(tx: Transaction, pair_id: uuid.UUID) -> bool:
    """Whether a pair's room may hold a message of ours that is not noted: it was tried, and is to be tried again."""
    query = select(notifications.c.id).where(
        notifications.c.pair_id == pair_id,
        notifications.c.channel == Channel.MATRIX,
        notifications.c.state == State.PENDING,
        notifications.c.attempts > 0,
        notifications.c.matrix_event_id.is_(None),
    )
    return await tx.scalar(query.limit(1)) is not None


async def settle_failed(
    tx: Transaction,
    notification: Notification,
    code: str,
    *,
    now: datetime,
    backoff: Backoff,
    permanent: bool = False,
    retry_after: float | None = None,
) -> State:
    """Plan the next try, or park it after the last one. Returns the state that follows.

    `retry_after`, in seconds, is what the other side asks for. A row that is not the caller's any more is left alone.
    """
    given_up = permanent or notification.attempts >= backoff.tries
    state = State.PARKED if given_up else State.PENDING
    delay = backoff.delay(notification.attempts)
    if retry_after is not None:
        delay = max(delay, timedelta(seconds=min(retry_after, 86400)))
    await tx.execute(
        update(notifications)
        .where(*_own(notification))
        .values(
            state=state,
            error=code[:200],
            claimed_until=None,
            next_try_at=now + delay,
            settled_at=now if given_up else None,
        )
    )
    return state


async def settle_superseded(tx: Transaction, notification_id: uuid.UUID, *, now: datetime) -> None:
    """What it speaks of is gone or has moved on."""
    await _settle(tx, notification_id, State.SUPERSEDED, now=now)


async def settle_unwanted(tx: Transaction, notification_id: uuid.UUID, *, now: datetime) -> None:
    """Its person has turned its topic off."""
    await _settle(tx, notification_id, State.UNWANTED, now=now)


async def _settle(tx: Transaction, notification_id: uuid.UUID, state: State, *, now: datetime) -> None:
    await tx.execute(
        update(notifications)
        .where(notifications.c.id == notification_id, notifications.c.state == State.PENDING)
        .values(state=state, settled_at=now, claimed_until=None, details=SCRUBBED)
    )


async def let_wait(tx: Transaction, notification_id: uuid.UUID, *, now: datetime) -> None:
    """Keep a Matrix row until its person has a device that the bot may write to, unless it is settled by now.

    `next_try_at` is from then on when that was found out.
    """
    await tx.execute(
        update(notifications)
        .where(notifications.c.id == notification_id, notifications.c.state == State.PENDING)
        .values(state=State.WAITING, claimed_until=None, next_try_at=now)
    )


async def hurry(tx: Transaction, pair_id: uuid.UUID, error: str, *, now: datetime) -> None:
    """What failed for that reason is to be tried again at once: the reason is gone."""
    changed = await tx.execute(
        update(notifications)
        .where(
            notifications.c.pair_id == pair_id,
            notifications.c.channel == Channel.MATRIX,
            notifications.c.state == State.PENDING,
            notifications.c.error == error,
        )
        .values(next_try_at=now)
    )
    if changed.rowcount:
        await wake(tx, Channel.MATRIX)


async def release_bot(tx: Transaction, bot: str) -> None:
    """End the leases that a bot account's last process left behind; its lock says that there is no other."""
    await tx.execute(
        text(
            "UPDATE notifications SET claimed_until = NULL FROM pairs WHERE pairs.id = notifications.pair_id"
            " AND pairs.bot = :bot AND channel = 'matrix' AND state = 'pending' AND claimed_until IS NOT NULL"
        ),
        {"bot": bot},
    )


async def take_waiting(tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime) -> int:
    """Settle all that waited for a person in a pair's room, for a summary to replace it. Returns how many."""
    changed = await tx.execute(
        update(notifications)
        .where(
            notifications.c.pair_id == pair_id,
            notifications.c.person_id == person_id,
            notifications.c.state == State.WAITING,
        )
        .values(state=State.SUPERSEDED, settled_at=now, details=SCRUBBED)
    )
    return changed.rowcount


async def list_by_state(
    tx: Transaction, state: State, *, channel: Channel | None = None, kind: str | None = None, most: int = 200
) -> list[Row[Any]]:
    """For the operator: the newest first, without their details."""
    query = select(
        notifications.c.id,
        notifications.c.channel,
        notifications.c.kind,
        notifications.c.attempts,
        notifications.c.error,
        notifications.c.created_at,
        notifications.c.next_try_at,
        notifications.c.settled_at,
    ).where(notifications.c.state == state, *_chosen(channel, kind))
    return list(await tx.execute(query.order_by(notifications.c.position.desc()).limit(most)))


def _chosen(channel: Channel | None, kind: str | None) -> list[ColumnElement[bool]]:
    asked = ((notifications.c.channel, channel), (notifications.c.kind, kind))
    return [column == value for column, value in asked if value is not None]


async def wake(tx: Transaction, channel: Channel) -> None:
    """Have the channel's loops look for what is due once this is committed."""
    await tx.execute(select(func.pg_notify(f"visavis_{channel}", "")))


async def retry(
    tx: Transaction,
    notification_id: uuid.UUID | None,
    *,
    now: datetime,
    channel: Channel | None = None,
    kind: str | None = None,
) -> int:
    """Try a parked notification again, or all of that channel and kind. Returns how many.

    Raises NotFound for an ID that is not parked.
    """
    chosen = [notifications.c.id == notification_id] if notification_id is not None else _chosen(channel, kind)
    changed = await tx.execute(
        update(notifications)
        .where(notifications.c.state == State.PARKED, *chosen)
        .values(
            state=State.PENDING,
            attempts=0,
            next_try_at=now,
            claimed_until=None,
            error=None,
            settled_at=None,
        )
    )
    if changed.rowcount == 0 and notification_id is not None:
        raise NotFound("refused.notification_not_parked")
    for one in Channel:
        await wake(tx, one)
    return changed.rowcount


# What is due already is leased, or there is not much of it: whoever asks has just claimed what was free.
NEXT_DUE = Ready(
    text(
        f"""
        SELECT min(found.at) FROM unnest(ARRAY[1, 2, 3]) AS p(priority)
        CROSS JOIN LATERAL (
            SELECT min(greatest(n.next_try_at, n.claimed_until)) AS at FROM notifications AS n
            WHERE {FREE} AND n.priority = p.priority AND n.next_try_at <= :now
            UNION ALL
            (SELECT n.next_try_at FROM notifications AS n
            WHERE {FREE} AND n.priority = p.priority AND n.next_try_at > :now
            ORDER BY n.next_try_at, n.position LIMIT 1)
        ) AS found
        """  # noqa: S608
    )
)


async def next_due(tx: Transaction, channel: Channel, *, now: datetime, bot: str | None = None) -> datetime | None:
    """When the earliest row that `claim` could take wants to be tried, or is given back by its lease."""
    [row] = await NEXT_DUE.fetch(tx, {"channel": channel, "now": now, "bot": bot})
    due: datetime | None = row[0]
    return due


def _from_row(row: Any) -> Notification:
    return Notification(
        row["id"],
        row["person_id"],
        row["pair_id"],
        row["appointment_id"],
        row["revision"],
        Channel(row["channel"]),
        row["kind"],
        row["details"],
        row["priority"],
        row["created_at"],
        row["attempts"],
        row["matrix_event_id"],
        row["send_at"],
    )

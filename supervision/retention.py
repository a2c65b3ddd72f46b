"""How long what was written in a room stays: what may go when, what has to be announced first, what stops it.

Nothing goes that was not announced in the room at least three days before. One announcement covers a week of days, so
that a room in use hears of it once a week; a room with nothing old hears nothing. What may go is cut at the midnights
of the supervisor's zone, and at full hours (UTC), which is as finely as the bot's keys can be forgotten. A legal hold
stops all of it, and what was announced before it has to be announced anew after it.
"""

import math
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import text, update

from supervision import audit, journal, notifications, pairs, rooms
from supervision.audit import SYSTEM
from supervision.config import RoomsConfig
from supervision.db import Transaction
from supervision.models import Channel
from supervision.models import pairs as table
from supervision.notifications import Notice
from supervision.pairs import Pair

ANNOUNCED, DONE = "retention.announced", "retention.done"
AHEAD = rooms.NOTICE  # an announcement is at least so much older than the first removal that it speaks of
COVERED = timedelta(days=7)
EARLY = timedelta(days=1)  # by which it comes sooner than it has to
ANEW = timedelta(days=1)  # after which an announcement that was given up is made anew
UNHEARD = timedelta(days=10)  # an announcement that nobody could be told in this time: nobody is there to hear it
BEGINNING = datetime(2010, 1, 1, tzinfo=UTC)  # before anything


@dataclass(frozen=True)
class Standing:
    """How things stand with one room at one time.

    `days` 0 is for ever. What was written before `retained_since` is gone; what was written before `announced` was
    announced, said or not; what was written before `allowed` was said long enough ago.
    """

    days: int
    held: bool
    zone: ZoneInfo
    retained_since: datetime | None = None
    announced: datetime | None = None
    allowed: datetime | None = None

    @property
    def stopped(self) -> bool:
        return self.held or self.days == rooms.FOREVER

    @property
    def unannounced_since(self) -> datetime:
        """What was written before is gone, or announced to go."""
        return max(self.retained_since or BEGINNING, self.announced or BEGINNING)


@dataclass(frozen=True)
class Announcement:
    """From `since` on, what was written before `until` goes when it is so many days old."""

    since: datetime
    until: datetime
    days: int


def due(standing: Standing, now: datetime) -> datetime | None:
    """What was written before this instant is to be removed now; None where nothing new is."""
    if standing.stopped or standing.allowed is None:
        return None
    before = min(_cut(now - timedelta(days=standing.days), standing.zone), standing.allowed)
    return before if standing.retained_since is None or before > standing.retained_since else None


def wanting(standing: Standing, oldest: datetime | None, now: datetime) -> Announcement | None:
    """The announcement that has to be made now, if one has.

    `oldest` is when the first message that was not announced yet was written, the room's first one since
    `Standing.unannounced_since`; None where there is none.
    """
    days = timedelta(days=standing.days)
    if standing.stopped or oldest is None or oldest + days > now + AHEAD + EARLY:
        return None
    since = midnight(now + AHEAD + timedelta(days=1), standing.zone)
    return Announcement(since, _cut(since + COVERED - days, standing.zone), standing.days)


def look_again(standing: Standing, oldest: datetime | None, now: datetime) -> datetime:
    """When something may want announcing, where nothing did now; see `wanting`."""
    first = now if oldest is None else oldest
    return first + timedelta(days=standing.days) - AHEAD - EARLY


def lifetime(standing: Standing, now: datetime) -> timedelta | None:
    """What the room's `m.room.retention` may say, so that the homeserver by itself removes nothing unannounced.

    The room's days, or some weeks more where not all of those was announced yet; None where it is to remove nothing.
    """
    gone = max(filter(None, (standing.allowed, standing.retained_since)), default=None)
    if standing.stopped or gone is None:
        return None
    days = timedelta(days=standing.days)
    late = (now + EARLY - gone - days) / COVERED
    return None if late > 4 else days + COVERED * max(0, math.ceil(late))


def midnight(at: datetime, zone: ZoneInfo) -> datetime:
    """When the day began in which the instant is; where no such midnight was, the first instant of that day."""
    return datetime.combine(at.astimezone(zone).date(), time(), zone).astimezone(UTC)


def _cut(at: datetime, zone: ZoneInfo) -> datetime:
    """When that day began, or up to an hour before where its midnight is no full hour of UTC.

    What is announced and what is removed is cut alike, or what was written between the two would be neither.
    """
    return midnight(at, zone).replace(minute=0, second=0, microsecond=0)


# An announcement is a row for each of the two, or one for both. `until` is missing in one that a hold made void. One
# that has waited for its reader for `unheard` counts; one that is pending or parked does not: nobody could hear it. One
# that has been parked for so long is to be made anew.
_STANDING = text(
    """
    SELECT p.id, coalesce(p.retention_days, CAST(:days AS integer)) AS days, p.held_at IS NOT NULL AS held,
        s.time_zone, p.retained_since, told.announced, told.allowed
    FROM pairs AS p JOIN people AS s ON s.id = p.supervisor_id
    CROSS JOIN LATERAL (
        SELECT max(until) AS announced, max(until) FILTER (WHERE said AND since <= CAST(:now AS timestamptz)) AS allowed
        FROM (
            SELECT CAST(details ->> 'until' AS timestamptz) AS until,
                max(CAST(details ->> 'since' AS timestamptz)) AS since,
                bool_and(CASE state
                    WHEN 'sent' THEN settled_at <= CAST(:now AS timestamptz) - CAST(:ahead AS interval)
                    WHEN 'pending' THEN false
                    WHEN 'parked' THEN false
                    ELSE greatest(created_at, next_try_at)
                        <= CAST(:now AS timestamptz) - CAST(:unheard AS interval) END) AS said
            FROM notifications
            WHERE pair_id = p.id AND kind = 'retention.announced' AND details ->> 'until' IS NOT NULL
            GROUP BY 1
            HAVING NOT bool_or(state = 'parked' AND settled_at <= CAST(:now AS timestamptz) - CAST(:anew AS interval))
        ) AS announcements
    ) AS told
    WHERE p.id = CAST(:pair AS uuid) OR p.bot = CAST(:bot AS text)
    """
)
_REMOVED = text(
    """
    SELECT room FROM unnest(CAST(:rooms AS text[])) AS asked(room)
    WHERE NOT EXISTS (SELECT FROM pairs WHERE room_id = room)
        AND (room <> ALL (CAST(:joined AS text[])) OR EXISTS (
            SELECT FROM homeserver_tasks
            WHERE kind = 'remove_room' AND done_at IS NOT NULL AND error IS NULL AND details ->> 'room' = room))
    """
)
_VOID_UNSAID = text(
    """
    UPDATE notifications SET details = details - 'until'
    WHERE pair_id = :pair AND kind = 'retention.announced' AND details ->> 'until' IN (
        SELECT details ->> 'until' FROM notifications
        WHERE pair_id = :pair AND person_id = :person AND kind = 'retention.announced'
            AND state IN ('waiting', 'superseded'))
    """
)
_VOID_PARKED = text(
    """
    UPDATE notifications SET details = details - 'until'
    WHERE pair_id = :pair AND kind = 'retention.announced' AND details ->> 'until' IN (
        SELECT details ->> 'until' FROM notifications
        WHERE pair_id = :pair AND kind = 'retention.announced' AND state = 'parked')
    """
)
_VOID_OUTDATED = text(
    """
    UPDATE notifications SET details = details - 'until'
    FROM pairs AS p
    WHERE p.id = pair_id AND p.bot = :bot AND kind = 'retention.announced' AND details ->> 'until' IS NOT NULL
        AND (coalesce(p.retention_days, CAST(:days AS integer)) = 0
            OR CAST(details ->> 'days' AS integer) < coalesce(p.retention_days, CAST(:days AS integer)))
    """
)
_OWN_WORDS = text(
    """
    SELECT matrix_event_id FROM notifications
    WHERE pair_id = :pair AND kind IN ('retention.announced', 'retention.done') AND matrix_event_id IS NOT NULL
    """
)


async def standing_of(tx: Transaction, pair: Pair, defaults: RoomsConfig, *, now: datetime) -> Standing:
    """How things stand with a pair's room."""
    return (await _standings(tx, defaults, pair=pair.id, now=now))[pair.id]


async def lifetimes(
    tx: Transaction, bot: str, defaults: RoomsConfig, *, now: datetime
) -> dict[uuid.UUID, timedelta | None]:
    """By pair of one bot account, what its room's `m.room.retention` may say; see `lifetime`."""
    standings = await _standings(tx, defaults, bot=bot, now=now)
    return {pair_id: lifetime(standing, now) for pair_id, standing in standings.items()}


async def _standings(
    tx: Transaction, defaults: RoomsConfig, *, pair: uuid.UUID | None = None, bot: str | None = None, now: datetime
) -> dict[uuid.UUID, Standing]:
    waits = {"ahead": AHEAD, "unheard": UNHEARD, "anew": ANEW}
    rows = await tx.execute(_STANDING, {"days": defaults.retention_days, "now": now, "pair": pair, "bot": bot, **waits})
    return {
        row.id: Standing(row.days, row.held, _zone(row.time_zone), row.retained_since, row.announced, row.allowed)
        for row in rows
    }


def _zone(name: str) -> ZoneInfo:
    """A zone that this machine does not know (any more) is counted as UTC: days are cut in it, and nothing else."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, as "America" is
        return ZoneInfo("UTC")


async def kept_by(tx: Transaction, bot: str) -> list[Pair]:
    """The pairs whose rooms one bot account has to look after, the archived ones too."""
    query = pairs.SELECT.where(table.c.bot == bot, table.c.room_id.is_not(None), table.c.removed_at.is_(None))
    return [pairs.from_row(row) for row in await tx.execute(query.order_by(table.c.created_at, table.c.id))]


async def removed_of(tx: Transaction, rooms: Collection[str], *, joined: Collection[str]) -> set[str]:
    """Which of these rooms are no pair's any more: the homeserver removed them, or the bot is not in them either.

    A room that is just being made is no pair's yet, but the bot is in it (`joined`).
    """
    rows = await tx.execute(_REMOVED, {"rooms": list(rooms), "joined": list(joined)})
    return {row.room for row in rows}


async def own_words(tx: Transaction, pair: Pair) -> set[str]:
    """The events in which the bot spoke of retention itself: they alone give no cause to announce anything."""
    rows = await tx.execute(_OWN_WORDS, {"pair": pair.id})
    return {row.matrix_event_id for row in rows}


async def announce(
    tx: Transaction, pair: Pair, announcement: Announcement, *, together: bool = False, now: datetime
) -> None:
    """Have it said to both in the room, each in their language; in one message where they may be told `together`.

    It stands for those that were given up, too.
    """
    await tx.execute(_VOID_PARKED, {"pair": pair.id})
    since, until = announcement.since, announcement.until
    details = {"since": since.isoformat(), "until": until.isoformat(), "days": announcement.days}
    await notifications.enqueue(tx, _notices(pair, ANNOUNCED, details, together), now=now)
    await audit.record(tx, SYSTEM, "retention.announce", "pair", pair.id, now=now)


async def void_unsaid(tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID) -> None:
    """What waited to be announced to this person is not to be removed for it: it has to be announced anew, to both.

    For whoever can read now, and is told a summary that does not speak of it in place of what waited.
    """
    await tx.execute(_VOID_UNSAID, {"pair": pair_id, "person": person_id})


async def void_outdated(tx: Transaction, bot: str, defaults: RoomsConfig) -> None:
    """Void what was announced in a bot's rooms by fewer days than they have now, as `rooms.settle` does for one room.

    The configuration's days may be others at each start.
    """
    await tx.execute(_VOID_OUTDATED, {"bot": bot, "days": defaults.retention_days})


async def finish(
    tx: Transaction, pair: Pair, before: datetime, readable: Mapping[str, int], *, silent: bool, now: datetime
) -> None:
    """Note that all that was written in the room before that instant is gone.

    `readable` is which Megolm sessions the bot can still open, and from which message index on: what the journal kept
    lest a ciphertext be posted again goes. In a `silent` room, which has nothing younger, it is said that it is done.
    """
    await journal.forget(tx, pair.room_id or "", readable, before=before)
    await tx.execute(update(table).where(table.c.id == pair.id).values(retained_since=before))
    await audit.record(tx, SYSTEM, "retention.remove", "pair", pair.id, now=now)
    if silent:
        notices = _notices(pair, DONE, {"until": before.isoformat()}, together=True)
        await notifications.enqueue(tx, notices, now=now)


def _notices(pair: Pair, kind: str, details: Mapping[str, Any], together: bool) -> list[Notice]:
    """One for each, or one for both where it would read the same to both. Who is disabled cannot be told."""
    readers = tuple(one for one in pair.people if one.disabled_at is None) or pair.people
    alike = len({(one.language, one.time_zone) for one in readers}) == 1
    groups = [readers] if together and alike else [(one,) for one in readers]
    return [
        Notice(
            group[0].id,
            Channel.MATRIX,
            kind,
            {**details, "people": [str(one.id) for one in group]},
            pair_id=pair.id,
            id=uuid.uuid4(),
        )
        for group in groups
    ]

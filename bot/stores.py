"""What the crypto store knows of when messages were sent, so that it can forget the keys of old ones.

A Megolm session carries no dates: it opens every message from its first known index on, for ever. Beside the
sessions, in the same file, stands per session and hour the smallest message index that was sent in that hour. From
that follows up to which index a session may be ratcheted. Ordinary talk writes here once an hour and session.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from peewee import PeeweeException  # type: ignore[import-untyped]  # it brings no types

from supervision.errors import Transient

HOUR = 3600
SILENCE = timedelta(days=30)  # after which a session whose messages are all gone is not expected to go on
UNUSED = timedelta(days=2)  # nor one to begin of which nothing was read: rooms have them replaced after a day
_AHEAD = 128  # indexes that are written as seen before they are, so that not every message writes
_REMEMBERED = 4096

# `since`: from then on (Unix time) all messages of the session are noted; of what came before nothing is known, as the
# store is older than these tables. 0 where that is all of them. `following`: no index from there on was seen. NULL if
# none was, 0 if none was since it came, which was at `since`. `forgotten`: earlier keys of it are not to be taken in
# again.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS visavis_sessions (
        session_id TEXT PRIMARY KEY REFERENCES megolminboundsessions (session_id) ON DELETE CASCADE,
        since INTEGER NOT NULL,
        following INTEGER,
        forgotten INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS visavis_hours (
        session_id TEXT NOT NULL REFERENCES megolminboundsessions (session_id) ON DELETE CASCADE,
        hour INTEGER NOT NULL,
        smallest INTEGER NOT NULL,
        PRIMARY KEY (session_id, hour)
    ) WITHOUT ROWID""",
)
_ADOPT = """INSERT INTO visavis_sessions (session_id, since)
    SELECT session_id, ? FROM megolminboundsessions AS known
    WHERE NOT EXISTS (SELECT 1 FROM visavis_sessions WHERE session_id = known.session_id)"""
_KEEP_SESSION = """INSERT INTO visavis_sessions (session_id, since, following, forgotten) VALUES (?, ?, ?, ?)
    ON CONFLICT (session_id) DO UPDATE
    SET since = excluded.since, following = excluded.following, forgotten = excluded.forgotten"""
_KEEP_HOUR = """INSERT INTO visavis_hours (session_id, hour, smallest) VALUES (?, ?, ?)
    ON CONFLICT (session_id, hour) DO UPDATE SET smallest = excluded.smallest"""


@contextmanager
def patient() -> Iterator[None]:
    """A disk that is full, or takes nothing for whatever reason, is waited for as all else is. Raises Transient."""
    try:
        yield
    except PeeweeException as error:
        raise Transient("crypto_store") from error


@dataclass
class Noted:
    """What is noted of one session: `hours` are Unix hours -> smallest index, `kept` what stands in `following`."""

    since: int = 0
    following: int | None = None
    kept: int | None = None
    forgotten: bool = False
    hours: dict[int, int] = field(default_factory=dict)

    def first_since(self, before: datetime) -> int | None:
        """The smallest index sent in the hour of `before` or later, if any was."""
        return min((index for hour, index in self.hours.items() if hour >= _hour(before)), default=None)

    def last_at(self) -> datetime:
        """When it spoke last, at the latest; 1970 where nothing is known of it."""
        last = max((hour + 1 for hour in self.hours), default=0) * HOUR
        return datetime.fromtimestamp(max(last, self.since), UTC)


class Marks:
    """The notes on the sessions of one crypto store; `database` is the store's (peewee's SqliteDatabase)."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._noted: OrderedDict[str, Noted] = OrderedDict()
        for table in _TABLES:
            database.execute_sql(table)
        database.execute_sql(_ADOPT, (int(time.time()),))

    def of(self, session_id: str) -> Noted:
        """What is noted of a session; empty where it has not spoken yet."""
        return self._remember(session_id, self._noted.get(session_id) or self._load(session_id))

    def _remember(self, session_id: str, noted: Noted) -> Noted:
        self._noted[session_id] = noted
        self._noted.move_to_end(session_id)
        if len(self._noted) > _REMEMBERED:
            self._settle(*self._noted.popitem(last=False))
        return noted

    def _load(self, session_id: str) -> Noted:
        query = "SELECT since, following, forgotten FROM visavis_sessions WHERE session_id = ?"
        row = self._database.execute_sql(query, (session_id,)).fetchone()
        if row is None:
            return Noted()
        hours = "SELECT hour, smallest FROM visavis_hours WHERE session_id = ?"
        return Noted(row[0], row[1], row[1], bool(row[2]), dict(self._database.execute_sql(hours, (session_id,))))

    def came(self, session_id: str) -> None:
        """A session is new. If nothing of it is ever read, its key goes when all that it may open is old."""
        noted = self._remember(session_id, Noted(since=int(time.time()), following=0, kept=0))
        self._keep(session_id, noted)

    def note(self, session_id: str, index: int, sent_at: datetime) -> None:
        """A message of a known session was read or written. A time that is yet to come is taken for now."""
        noted, hour = self.of(session_id), min(_hour(sent_at), int(time.time()) // HOUR)
        following = max(noted.following or 0, index + 1)
        later = replace(noted, following=following, since=0 if noted.following == 0 else noted.since)
        if following > (noted.kept or 0):
            later.kept = (index // _AHEAD + 1) * _AHEAD
        is_first = index < noted.hours.get(hour, index + 1)
        if is_first or later.kept != noted.kept:
            with self._database.atomic():
                self._keep(session_id, later)
                if is_first:
                    self._database.execute_sql(_KEEP_HOUR, (session_id, hour, index))
        if is_first:
            later.hours[hour] = index
        self._noted[session_id] = later  # only now: what could not be written is written with the next message

    def forget(self, session_id: str, before: datetime) -> None:
        """Nothing that was sent before the hour of `before` can be opened any more."""
        noted = self.of(session_id)
        noted.since = int(min(noted.last_at(), before).timestamp())
        noted.forgotten = True
        noted.hours = {hour: index for hour, index in noted.hours.items() if hour >= _hour(before)}
        noted.kept = noted.following
        self._keep(session_id, noted)
        query = "DELETE FROM visavis_hours WHERE session_id = ? AND hour < ?"
        self._database.execute_sql(query, (session_id, _hour(before)))

    def restore(self, session_id: str, noted: Noted) -> None:
        """What was noted of a session before a change that the disk refused."""
        self._remember(session_id, noted)

    def _keep(self, session_id: str, noted: Noted) -> None:
        values = (session_id, noted.since, noted.kept, int(noted.forgotten))
        self._database.execute_sql(_KEEP_SESSION, values)

    def unused(self) -> list[str]:
        """The sessions of which nothing was read since they came, the oldest first."""
        query = "SELECT session_id FROM visavis_sessions WHERE following = 0 ORDER BY since"
        return [session_id for (session_id,) in self._database.execute_sql(query)]

    def drop(self, session_id: str) -> None:
        """The session is no more: it is deleted here with all that is noted of it."""
        self._noted.pop(session_id, None)
        self._database.execute_sql("DELETE FROM megolminboundsessions WHERE session_id = ?", (session_id,))

    def settle(self) -> None:
        """Before the store is closed: how far each session was seen, as it is and not ahead."""
        with self._database.atomic():
            for session_id, noted in self._noted.items():
                self._settle(session_id, noted)

    def _settle(self, session_id: str, noted: Noted) -> None:
        if noted.kept != noted.following:
            noted.kept = noted.following
            self._keep(session_id, noted)

    def is_forgotten(self, session_id: str) -> bool:
        """Whether earlier keys of this session were forgotten on purpose."""
        return self.of(session_id).forgotten

    def leave_no_trace(self) -> None:
        """Have what was overwritten out of a write-ahead log, too; the file itself keeps nothing (`secure_delete`)."""
        self._database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _hour(at: datetime) -> int:
    return int(at.timestamp()) // HOUR

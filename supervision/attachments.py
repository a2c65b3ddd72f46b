"""Files in rooms: which there are, by name, type, size, time and sender alone; and what has to leave the homeserver.

What is in a file is never kept here. Its name is locked with the configured secret (seals.py). Media that something
else in a room still shows is not given away for removal, and what is given away goes with who showed it, as only they
may have uploaded it: whoever knows somebody's file or portrait could otherwise have it deleted by showing it, too.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert

from supervision import homeserver_tasks, seals
from supervision.db import Transaction
from supervision.models import Task, people
from supervision.models import attachments as table

SHOWN = 200  # files of a room on its page
Showers = dict[str, list[str]]  # an mxc:// address -> the Matrix IDs of those who showed it

# What was remembered of rooms that are no more, for as long as another room showed it.
_FORGET_OF_REMOVED_ROOMS = text(
    """
    DELETE FROM attachments AS gone USING pairs
    WHERE pairs.id = gone.pair_id AND pairs.removed_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM attachments AS shown
        WHERE shown.media && gone.media AND shown.refused IS NULL AND shown.removed_at IS NULL)
    """
)


@dataclass(frozen=True)
class Attachment:
    """A file as it is listed: `type` is the MIME type by content, `bytes` its size; the name is still locked."""

    event_id: str
    person_id: uuid.UUID
    locked_name: bytes | None
    type: str | None
    bytes: int | None
    sent_at: datetime

    def name(self, secret: str) -> str | None:
        """The file's name; None where it has none, or was locked with another secret."""
        return None if self.locked_name is None else seals.unlock(secret, self.locked_name)


async def note(
    tx: Transaction,
    event_id: str,
    pair_id: uuid.UUID,
    person_id: uuid.UUID,
    *,
    media: Sequence[str],
    locked_name: bytes | None,
    type: str | None,
    size: int | None,
    sent_at: datetime,
    refused: str | None = None,
) -> bool:
    """Note a file once, and say whether it was new.

    `media` are the mxc:// addresses of it and its thumbnail, `refused` why it is taken down. What is refused is open
    until `note_removed`: its event has yet to be redacted.
    """
    values = {
        "event_id": event_id,
        "pair_id": pair_id,
        "person_id": person_id,
        "media": list(dict.fromkeys(media)),
        "name": locked_name,
        "type": type,
        "bytes": size,
        "refused": refused,
        "sent_at": sent_at,
    }
    return (await tx.execute(insert(table).values(**values).on_conflict_do_nothing())).rowcount == 1


async def is_noted(tx: Transaction, event_id: str) -> bool:
    """Whether an event's files were judged before."""
    return await tx.scalar(select(table.c.event_id).where(table.c.event_id == event_id)) is not None


async def shows(tx: Transaction, event_id: str, person_id: uuid.UUID, media: Sequence[str]) -> bool:
    """Whether an event of that person's shows all of these files, and is still in its room."""
    query = select(table.c.event_id).where(
        table.c.event_id == event_id,
        table.c.person_id == person_id,
        table.c.media.op("@>")(list(media)),
        table.c.refused.is_(None),
        table.c.removed_at.is_(None),
    )
    return await tx.scalar(query) is not None


async def list_of(tx: Transaction, pair_id: uuid.UUID, *, most: int = SHOWN) -> list[Attachment]:
    """The files that are in a pair's room, the newest first."""
    columns = (table.c.event_id, table.c.person_id, table.c.name, table.c.type, table.c.bytes, table.c.sent_at)
    query = (
        select(*columns)
        .where(table.c.pair_id == pair_id, table.c.refused.is_(None), table.c.removed_at.is_(None))
        .order_by(table.c.sent_at.desc(), table.c.event_id)
        .limit(most)
    )
    return [Attachment(*row) for row in await tx.execute(query)]


async def is_open_breach(tx: Transaction, event_id: str) -> bool:
    """Whether an event is that of a refused file and has yet to be redacted."""
    query = select(table.c.event_id).where(
        table.c.event_id == event_id, table.c.refused.is_not(None), table.c.removed_at.is_(None)
    )
    return await tx.scalar(query) is not None


async def note_removed(tx: Transaction, event_id: str, *, now: datetime) -> None:
    """The event of a file is redacted."""
    await tx.execute(
        update(table).where(table.c.event_id == event_id, table.c.removed_at.is_(None)).values(removed_at=now)
    )


async def take_back(tx: Transaction, event_id: str, person_id: uuid.UUID, *, now: datetime) -> Showers | None:
    """Somebody took their own file back: it is listed no more. Returns as `unused`.

    None for an event that is no file of theirs, and for one that is gone already.
    """
    theirs = update(table).where(
        table.c.event_id == event_id,
        table.c.person_id == person_id,
        table.c.refused.is_(None),
        table.c.removed_at.is_(None),
    )
    media = await tx.scalar(theirs.values(removed_at=now, name=None).returning(table.c.media))
    return None if media is None else await unused(tx, media)


async def remove_before(tx: Transaction, pair_id: uuid.UUID, before: datetime, *, now: datetime) -> Showers:
    """Forget the files that were sent to a pair's room before that time. Returns as `unused`.

    Of a file that another message still shows its sender alone is remembered, until that one goes, too.
    """
    return await _remove(tx, table.c.pair_id == pair_id, table.c.sent_at < before, now=now)


async def remove_all(tx: Transaction, pair_id: uuid.UUID, *, now: datetime) -> Showers:
    """Forget all files of a pair's room, those that are not listed any more too. As `remove_before`."""
    return await _remove(tx, table.c.pair_id == pair_id, now=now)


async def _remove(tx: Transaction, *which: ColumnElement[bool], now: datetime) -> Showers:
    await tx.execute(update(table).where(*which, table.c.removed_at.is_(None)).values(removed_at=now, name=None))
    free = await unused(tx, await _media(tx, *which))
    await tx.execute(delete(table).where(*which, table.c.media.op("<@")(list(free))))
    await tx.execute(_FORGET_OF_REMOVED_ROOMS)
    return free


async def _media(tx: Transaction, *which: ColumnElement[bool]) -> list[str]:
    rows = await tx.scalars(select(table.c.media).where(*which))
    return list(dict.fromkeys(one for media in rows for one in media))


async def unused(tx: Transaction, media: Sequence[str]) -> Showers:
    """Those of these mxc:// addresses that no file shows which is still in a room: each with who showed it there."""
    if not media:
        return {}
    rows = await tx.execute(
        select(
            table.c.media,
            people.c.matrix_id,
            (table.c.refused.is_(None) & table.c.removed_at.is_(None)).label("is_shown"),
        )
        .join(people, people.c.id == table.c.person_id)
        .where(table.c.media.op("&&")(list(media)), people.c.matrix_id.is_not(None))
        .order_by(table.c.sent_at, table.c.event_id)
    )
    by_media: dict[str, list[str]] = {one: [] for one in media}
    for row in rows:
        for one in by_media.keys() & set(row.media):
            if row.is_shown:
                del by_media[one]
            elif row.matrix_id not in by_media[one]:
                by_media[one].append(row.matrix_id)
    return by_media


async def give_away(
    tx: Transaction,
    pair_id: uuid.UUID,
    media: Showers,
    server_name: str,
    *,
    after: timedelta = timedelta(),
    now: datetime,
) -> None:
    """Have the homeserver's administrator delete what lies on ours; other homeservers' is theirs to delete.

    What is shown again by the time that it is to be deleted stays.
    """
    ours = {one: who for one, who in media.items() if one.startswith(f"mxc://{server_name}/")}
    if ours:
        await homeserver_tasks.put(
            tx, Task.REMOVE_MEDIA, pair_id=pair_id, details={"media": ours}, after=after, now=now
        )

"""Who has not read what the other of the pair wrote: from messages and receipts to the rows that a mail waits for.

What is open is known in memory, as this process alone keeps its rooms' rows: ordinary talk costs the database nothing
while the first unread message is noted already, but for their number, which is written down every half minute. After a
restart that number may be a little off, until they are read. All that happens to a room comes in its lane, one thing
at a time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bot import commands
from bot.client import Client
from bot.events import Envelope, Incoming
from bot.handlers import DISK_FULL, is_outage
from bot.receipts import Receipt, Surroundings
from supervision import journal, pairs, rooms, unreads
from supervision.db import Database, Transaction
from supervision.errors import NotFound, Transient
from supervision.unreads import Unread

log = structlog.get_logger()

SHOWN = frozenset({"m.sticker", "m.poll.start", "org.matrix.msc3381.poll.start"})  # besides m.room.message
REMEMBERED = 8  # of the events that somebody has read last
COUNTED = 200  # of the newest unread messages, by which a part of them that was read is known
COUNTS_EVERY = timedelta(seconds=30)
A_LOOK = 5.0  # seconds between looks for numbers to write down


@dataclass(frozen=True)
class Written:
    """A message: its event and the homeserver's time of it."""

    event_id: str
    sent_at: datetime


@dataclass
class _Open:
    """What a reader has not read: the row, whose writing it is, the newest message of it and how many there are.

    `heard` are those that this process heard, as they came; `noted` is their number in the row, and since when.
    """

    unread: Unread
    writer: str
    newest: Written
    heard: deque[Written]
    messages: int
    noted: int
    noted_at: datetime

    def add(self, message: Written) -> bool:
        """Count one more message, unless it was given before."""
        if message.event_id == self.unread.event_id or message in self.heard:
            return False
        self.heard.append(message)
        self.messages += 1
        return True

    def drop(self, gone: Collection[Written]) -> None:
        """These need no reading any more; the row's own still does."""
        for one in gone:
            self.heard.remove(one)
        self.messages = max(1, self.messages - len(gone))


def is_message(event: Incoming) -> bool:
    """Whether the other of the pair should read it. What cannot be decrypted may be meant for them.

    Commands are meant for the bot: what they do is told to the other by itself.
    """
    if event.is_edit:
        return False
    match event.kind:
        case "undecryptable" | "attachment":
            return True
        case "text":
            return event.msgtype != "m.notice" and (event.msgtype != "m.text" or commands.parse(event.body) is None)
    return event.event_type in SHOWN


class Reads:
    """For one bot account.

    `wait` is how long a message may stay unread before a mail is due, where nothing else was settled for the room;
    without one none is.
    """

    def __init__(self, database: Database, client: Client, clock: Callable[[], datetime], wait: timedelta) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.wait = wait
        self._open: dict[tuple[str, str], _Open] = {}  # by room and reader
        self._readers: dict[tuple[str, str], str] = {}  # by room and writer
        self._read: defaultdict[tuple[str, str], deque[str]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    async def load(self) -> None:
        """Know what is open, before the first event. Without a wait no mail will say so any more."""
        async with self.database.transaction() as tx:
            own = await rooms.unread_waits(tx, self.client.user_id)
            for kept in await unreads.list_for_bot(tx, self.client.user_id):
                unread = kept.unread
                if not own.get(kept.room_id, self.wait):
                    await unreads.send_no_mail(tx, unread.pair_id, unread.person_id, now=self.clock())
                self._readers[kept.room_id, kept.writer] = kept.reader
                self._open[kept.room_id, kept.reader] = self._opened(unread, kept.writer, [])

    def forget(self, room_id: str) -> None:
        """The room is archived, and its rows are gone: when it is opened again, what is written is noted anew."""
        for known in (self._open, self._readers, self._read):
            for key in [key for key in known if key[0] == room_id]:
                del known[key]

    def _opened(self, unread: Unread, writer: str, heard: Sequence[Written]) -> _Open:
        newest = heard[-1] if heard else Written(unread.event_id, unread.since_at)
        return _Open(
            unread, writer, newest, deque(heard, COUNTED), unread.messages, unread.messages, noted_at=self.clock()
        )

    async def run(self) -> None:
        """Write down how many messages are unread, for ever: of each room at most every half minute."""
        while True:
            await asyncio.sleep(A_LOOK)
            try:
                async with _outages():
                    await self.write_counts()
            except Transient:
                log.warning("unread.database_away")

    async def write_counts(self) -> None:
        now = self.clock()
        due = [one for one in self._open.values() if one.messages != one.noted and now - one.noted_at >= COUNTS_EVERY]
        if not due:
            return
        counted = [(one, one.messages) for one in due]
        async with self.database.transaction() as tx:
            await unreads.note_counts(tx, [replace(one.unread, messages=messages) for one, messages in counted])
        for one, messages in counted:
            one.noted, one.noted_at = messages, now

    async def hear(self, event: Incoming) -> None:
        """Somebody did something in a room: they have read it so far, and a message is unread for the other.

        Raises Transient where the database is away: the event has to come again.
        """
        async with _outages():
            await self._reach(event.room_id, event.sender, event.event_id)
            if is_message(event):
                await self._write(event.room_id, event.sender, Written(event.event_id, event.sent_at))
            elif event.kind == "redaction":
                await self._take_back(event)

    async def see(self, room_id: str, receipts: Sequence[Receipt]) -> None:
        """These have read so far. Raises Transient where the database or the homeserver is away."""
        async with _outages():
            for receipt in receipts:
                await self._reach(room_id, receipt.user_id, receipt.event_id)

    async def _write(self, room_id: str, writer: str, message: Written) -> None:
        reader = self._readers.get((room_id, writer))
        known = None if reader is None else self._open.get((room_id, reader))
        if known is None:
            async with self.database.transaction() as tx:
                opened = await self._note(tx, room_id, writer, [message])
            if opened is not None:
                reader, known = opened
                self._readers[room_id, writer] = reader
                self._open[room_id, reader] = known
        elif reader is not None and not self._has_read(room_id, reader, message.event_id) and known.add(message):
            if self.client.order.reaches(message.event_id, known.newest.event_id):
                known.newest = message

    async def _note(
        self, tx: Transaction, room_id: str, writer: str, written: Sequence[Written]
    ) -> tuple[str, _Open] | None:
        """Note messages that may be unread, the newest last, and whose reader that is."""
        message = written[-1]
        try:
            pair = await pairs.by_room(tx, room_id)
        except NotFound:
            return None
        sender = next((one for one in pair.people if one.matrix_id == writer), None)
        reader = None if sender is None else pair.other(sender.id).matrix_id
        if sender is None or reader is None or self._has_read(room_id, reader, message.event_id):
            return None
        unread = await unreads.note_message(
            tx,
            pair,
            sender.id,
            message.event_id,
            sent_at=message.sent_at,
            wait=await rooms.unread_wait(tx, pair.id, self.wait),
            now=self.clock(),
            messages=len(written),
        )
        return None if unread is None else (reader, self._opened(unread, writer, written))

    def _has_read(self, room_id: str, reader: str, event_id: str) -> bool:
        """A message whose key came late may have been read before it was handed over."""
        return any(self.client.order.reaches(one, event_id) for one in self._read.get((room_id, reader), ()))

    async def _reach(self, room_id: str, reader: str, event_id: str) -> None:
        """Somebody has read an event; where that ends what was unread, something newer may still be."""
        if reader not in self.client.members(room_id):
            return
        read = self._read[room_id, reader]
        if event_id not in read:
            read.append(event_id)
        known = self._open.get((room_id, reader))
        if known is None:
            return
        covered, newer = await self._compare(room_id, event_id, known)
        if covered:
            await self._close(room_id, reader, known, newer)
        elif newer:
            known.drop([one for one in known.heard if one not in newer])

    async def _close(self, room_id: str, reader: str, known: _Open, newer: Sequence[Written]) -> None:
        unread, opened = known.unread, None
        async with self.database.transaction() as tx:
            await unreads.note_read(tx, unread.pair_id, unread.person_id, now=self.clock())
            if newer:
                opened = await self._note(tx, room_id, known.writer, newer)
        del self._open[room_id, reader]
        if opened is not None:
            self._open[room_id, reader] = opened[1]

    async def _compare(self, room_id: str, event_id: str, known: _Open) -> tuple[bool, list[Written]]:
        """Whether who has read this event has read the unread one too, and what is newer and unread, the newest last.

        The latter is known where the order of both is, or where the unread one was read.
        """
        order = self.client.order
        reached = order.reaches(event_id, known.unread.event_id)
        if reached is None:
            around = await self.client.look_around(room_id, event_id)
            if around is None:
                return False, []
            async with self.database.transaction() as tx:
                commanded = await journal.handled(tx, [one.event_id for one in around.after])
            return _compare_times(around, event_id, known, commanded)
        newer = [one for one in known.heard if not order.reaches(event_id, one.event_id)]
        return reached, sorted(newer, key=lambda one: one == known.newest)

    async def _take_back(self, event: Incoming) -> None:
        """A message that its writer removed needs no reading; where more was written since, that still does."""
        reader = self._readers.get((event.room_id, event.sender))
        known = None if reader is None else self._open.get((event.room_id, reader))
        if reader is None or known is None:
            return
        others = [one for one in known.heard if one.event_id != event.relates_to]
        gone = [one for one in known.heard if one.event_id == event.relates_to]
        if event.relates_to == known.unread.event_id:
            if others or known.messages == 1:
                await self._close(event.room_id, reader, known, sorted(others, key=lambda one: one == known.newest))
            else:  # from before this process listened: which they are is not known, but that there are more
                known.messages -= 1
        elif gone:
            known.drop(gone)
            if known.newest in gone:
                known.newest = others[-1] if others else Written(known.unread.event_id, known.unread.since_at)


def _compare_times(
    around: Surroundings, event_id: str, known: _Open, commanded: Collection[str]
) -> tuple[bool, list[Written]]:
    """The same for an event from before this process listened: by what follows it, and the homeserver's times.

    What follows is taken for a message without being decrypted again, unless it is known to have been a command.
    """
    if around.sent_at < known.unread.since_at or known.unread.event_id in [one.event_id for one in around.after]:
        return False, []
    after = [one for one in around.after if one.event_id not in commanded]
    newer = [Written(one.event_id, one.sent_at) for one in after if _may_be_message(one, known.writer)]
    named = {event_id, *(one.event_id for one in newer)}
    heard = {known.newest.event_id: known.newest, **{one.event_id: one for one in known.heard}}
    newer += [one for one in heard.values() if one.sent_at > around.sent_at and one.event_id not in named]
    return True, sorted(newer, key=lambda one: one.sent_at)


def _may_be_message(envelope: Envelope, writer: str) -> bool:
    relation = envelope.content.get("m.relates_to")
    edits = isinstance(relation, dict) and relation.get("rel_type") == "m.replace"
    return envelope.sender == writer and envelope.event_type in ("m.room.encrypted", "m.room.message") and not edits


@asynccontextmanager
async def _outages() -> AsyncIterator[None]:
    """What a database that is away raises, as Transient. A full disk holds up no room for this: it is let pass."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == DISK_FULL:
            log.warning("unread.disk_full")
        elif is_outage(error):
            raise Transient("database") from error
        else:
            raise
    except (OSError, PoolTimeout) as error:
        raise Transient("database") from error

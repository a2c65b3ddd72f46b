"""What retention leaves of old messages: at the homeserver, in its database's files, and in the bot's keys.

What was written is dated back in the homeserver's tables and in the bot's notes, as nothing here can wait for days;
everything else is as it is: real phones, Synapse, PostgreSQL's files, the bot's store.
"""

from __future__ import annotations

import asyncio
import io
import json
import mmap
import secrets
import shutil
import struct
import zlib
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import select, update

from bot.logins import Folder
from bot.retention import Retention
from bot.trust import Machine, open_machine
from supervision import pairs
from supervision.audit import SYSTEM
from supervision.models import attachments, audit_entries, homeserver_tasks, notifications
from supervision.models import pairs as pairs_table
from supervision.people import Person
from supervision.retention import BEGINNING
from supervision.texts import Minutes, Moments, reader
from tests.support.human import Human, Message
from tests.support.practice import Practice, Room

Json = dict[str, Any]
AGE = timedelta(days=40)


class KeptRoom(Room):
    """A room whose past is removed."""

    async def read_by_bot(self) -> None:
        """Wait until the bot has read everything: it answers a command after all that was said before."""
        mark = self.ana.mark()
        await self.ana.send_text(self.id, "!ajuda")
        await self.ana.next_message(self.practice.bot, since=mark)

    async def tasks_done(self) -> None:
        """Wait until the homeserver's administrator has done what it was given."""
        still = select(homeserver_tasks.c.id).where(homeserver_tasks.c.done_at.is_(None))
        async with asyncio.timeout(60):
            for _ in range(1000):
                if not await self.rows(still):
                    return
                await asyncio.sleep(0.05)

    async def rows(self, query: Any) -> list[Any]:
        async with self.practice.database.transaction() as tx:
            return list(await tx.execute(query))


@dataclass
class Synapse:
    """The homeserver's database and files, as whoever has them sees them."""

    practice: Practice
    connection: asyncpg.Connection

    @classmethod
    @asynccontextmanager
    async def open(cls, practice: Practice) -> AsyncIterator[Synapse]:
        connection = await asyncpg.connect(practice.servers.postgresql.url("synapse", "postgres"))
        try:
            # Long events would stand there compressed, where no search finds them.
            await connection.execute("ALTER TABLE event_json ALTER json SET STORAGE EXTERNAL")
            yield cls(practice, connection)
            await connection.execute("ALTER TABLE event_json ALTER json SET STORAGE EXTENDED")
        finally:
            await connection.close()

    async def events(self, room_id: str) -> dict[str, Json]:
        rows = await self.connection.fetch("SELECT event_id, json FROM event_json WHERE room_id = $1", room_id)
        return {row["event_id"]: json.loads(row["json"]) for row in rows}

    async def inbox(self, user_id: str) -> list[Json]:
        query = "SELECT message_json FROM device_inbox WHERE user_id = $1 ORDER BY stream_id"
        return [json.loads(row["message_json"]) for row in await self.connection.fetch(query, user_id)]

    async def rows_with(self, needles: Collection[str]) -> dict[str, set[str]]:
        """Which of these strings stand in which tables, looking at every row of every table."""
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        found: dict[str, set[str]] = {}
        for row in await self.connection.fetch(query):
            dump = io.BytesIO()
            await self.connection.copy_from_table(row["tablename"], output=dump)
            text = dump.getvalue()
            inside = {needle for needle in needles if needle.encode() in text}
            if inside:
                found[row["tablename"]] = inside
        assert await self.connection.fetchval("SELECT count(*) FROM pg_largeobject") == 0
        return found

    def media(self) -> set[str]:
        """The IDs of the files in the media store."""
        folder = self.practice.servers.synapse.folder.path / "media" / "local_content"
        return {"".join(file.relative_to(folder).parts) for file in folder.rglob("*") if file.is_file()}

    async def date_back(self, room_id: str) -> None:
        """Everything that is in the room now was written 40 days earlier."""
        age = int(AGE.total_seconds() * 1000)
        await self.connection.execute(
            "UPDATE events SET origin_server_ts = origin_server_ts - $1, received_ts = received_ts - $1"
            " WHERE room_id = $2",
            age,
            room_id,
        )

    async def files_with(self, needles: Collection[str]) -> set[str]:
        """Which of these strings stand anywhere in the bytes of the database's files, the write-ahead log included."""
        await self.connection.execute("CHECKPOINT")  # what is in memory alone is in no file yet
        folder = self.practice.servers.postgresql.folder.path / "data"
        return await asyncio.to_thread(raw_search, folder, needles)

    async def tidy_up(self) -> None:
        """Write the tables anew, and leave no log from before the last checkpoint."""
        await self.connection.execute("ALTER SYSTEM SET wal_recycle = off")
        await self.connection.execute("SELECT pg_reload_conf()")
        await self.connection.execute("VACUUM FULL")
        for _ in range(2):
            await self.connection.execute("SELECT pg_switch_wal()")
            await self.connection.execute("CHECKPOINT")
        await self.connection.execute("ALTER SYSTEM RESET wal_recycle")
        await self.connection.execute("SELECT pg_reload_conf()")


def raw_search(folder: Path, needles: Collection[str]) -> set[str]:
    found: set[str] = set()
    for file in folder.rglob("*"):
        if not file.is_file() or file.stat().st_size == 0:
            continue
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            found |= {needle for needle in needles if raw.find(needle.encode()) >= 0}
    return found


def picture() -> bytes:
    """A small PNG like no other."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    pixels = b"".join(b"\0" + secrets.token_bytes(48) for _ in range(16))
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


async def upload(who: Human, data: bytes) -> Json:
    """Encrypt and upload; the `file` of the event that shows it."""
    client: Any = who.client
    done, keys = await client.upload(lambda *_: io.BytesIO(data), encrypt=True, filesize=len(data))
    return {**keys, "url": done.content_uri}


async def send_picture(room: KeptRoom, who: Human) -> tuple[str, list[str]]:
    """An image with a thumbnail: its event, and both media IDs."""
    whole, small = picture(), picture()
    files = [await upload(who, whole), await upload(who, small)]
    content = {
        "msgtype": "m.image",
        "body": "plan.png",
        "filename": "plan.png",
        "info": {"mimetype": "image/png", "size": len(whole), "thumbnail_file": files[1]},
        "file": files[0],
    }
    sent = await who.send_raw(room.id, "m.room.message", content)
    return sent, [one["url"].rpartition("/")[2] for one in files]


@dataclass
class Talk:
    """What two people wrote; `events` in order, `media` the IDs of what they showed."""

    events: list[str] = field(default_factory=list)
    media: list[str] = field(default_factory=list)


async def talk(room: KeptRoom) -> Talk:
    """Texts of both, an image, a reaction, an edit, and one that is taken back."""
    said = Talk()
    for who in (room.ana, room.bruno):
        said.events.append(await who.send_text(room.id, f"a sentence of {who.user_id}"))
    said.events.append(await room.ana.edit(room.id, said.events[0], "a better sentence"))
    shown, said.media = await send_picture(room, room.bruno)
    said.events.append(shown)
    said.events.append(await room.bruno.send_text(room.id, "never mind"))
    await room.read_by_bot()
    await room.ana.react(room.id, said.events[1], "👍")
    await room.bruno.redact(room.id, said.events[-1])
    return said


def machine_on(folder: Path, client: Any) -> Machine:
    kept = Folder(folder)
    return open_machine(kept, client.user_id, client.device_id)


def opened(machine: Machine, room_id: str, events: Iterable[Json]) -> list[bool]:
    """Which of these events the machine can read."""
    found = []
    for event in events:
        session = machine.session(room_id, event["content"]["session_id"])
        found.append(session is not None and machine.read(session, event["content"]["ciphertext"]) is not None)
    return found


def body(letter: Json) -> str:
    """What only its reader can open of a to-device message."""
    [sealed] = letter["content"]["ciphertext"].values()
    return str(sealed["body"])


async def test_what_was_removed_is_nowhere_and_what_is_younger_stays(practice: Practice, tmp_path: Path) -> None:
    async with KeptRoom.open(practice) as room, Synapse.open(practice) as synapse:
        bot = practice.machine
        assert bot is not None
        # Both begin new sessions while the bot is away, so that its keys wait for it at the homeserver.
        await practice.stop_bot()
        for who in (room.ana, room.bruno):
            client: Any = who.client
            client.invalidate_outbound_session(room.id)
            await who.send_text(room.id, "good morning")
        letters = await synapse.inbox(practice.bot)
        assert len(letters) == 2
        shutil.copytree(practice.config.matrix.store, tmp_path / "before")
        await practice.start_bot()
        bot = practice.machine
        assert bot is not None
        await bot.client.wait_until_synced()
        said = await talk(room)
        earlier = {
            event_id: event
            for event_id, event in (await synapse.events(room.id)).items()
            if event["type"] == "m.room.encrypted"
        }
        assert {*said.events} <= earlier.keys()
        shutil.copytree(practice.config.matrix.store, tmp_path / "then")
        old = machine_on(tmp_path / "then", bot.client)
        readable = opened(old, room.id, earlier.values())
        assert all(readable)
        old.close()

        await synapse.date_back(room.id)
        machine = bot.client._machine  # noqa: SLF001  # to date its notes back
        assert machine is not None
        machine.marks._noted.clear()  # noqa: SLF001
        shift = int(AGE.total_seconds() // 3600)
        machine.store.database.execute_sql("UPDATE visavis_hours SET hour = hour - ?", (shift,))
        young = [await who.send_text(room.id, "still here") for who in (room.ana, room.bruno)]
        await room.read_by_bot()

        needles = [event["content"]["ciphertext"][:100] for event in earlier.values()]
        assert (await synapse.rows_with(needles))["event_json"] == {*needles}
        assert await synapse.files_with(needles) == {*needles}
        assert {*said.media} <= synapse.media()
        before = (datetime.now(UTC) - timedelta(days=10)).replace(minute=0, second=0, microsecond=0)
        async with practice.database.transaction() as tx:
            await tx.execute(update(attachments).values(sent_at=attachments.c.sent_at - AGE))
        for _ in range(2):  # what a crash cut short is done again
            await bot.retention.remove(room.pair, before)

        await room.tasks_done()
        assert not synapse.media() & {*said.media}
        found = await synapse.rows_with([*needles, *said.media, *(body(one) for one in letters)])
        assert found == {}
        sealed = [body(letter)[-80:] for letter in letters]
        # A plain VACUUM leaves some of it: it closes the gaps in a page, and overwrites nothing.
        await synapse.tidy_up()
        assert await synapse.files_with([*needles, *sealed]) == set()

        # With what the bot knows now the earlier copy is closed, events and letters.
        shutil.copytree(practice.config.matrix.store, tmp_path / "now")
        now = machine_on(tmp_path / "now", bot.client)
        assert not any(opened(now, room.id, earlier.values()))
        assert [now.take(letter) for letter in letters] == [None, None]
        assert not any(opened(now, room.id, earlier.values()))
        kept = await synapse.events(room.id)
        first = datetime.fromtimestamp(kept[young[0]]["origin_server_ts"] / 1000, UTC)
        assert [await bot.retention.oldest(room.pair, since) for since in (BEGINNING, before)] == [first, first]
        assert opened(now, room.id, [kept[one] for one in young]) == [True, True]
        now.close()
        once = machine_on(tmp_path / "before", bot.client)
        assert [once.take(letter) is not None for letter in letters] == [True, True]
        once.close()

        # The room goes on.
        for who, other in ((room.ana, room.bruno), (room.bruno, room.ana)):
            sent = await who.send_text(room.id, "and on")
            await other.wait_for(partial(find, other, sent), "the other's words")
            assert find(other, young[0] if who is room.ana else young[1]) == "still here"
        await room.read_by_bot()
        row = await room.rows(select(pairs_table.c.retained_since).where(pairs_table.c.id == room.pair.id))
        assert row == [(before,)]


def find(who: Human, event_id: str) -> str | None:
    return next((message.body for message in who.messages if message.event_id == event_id), None)


async def test_what_will_go_is_announced_to_both_and_a_hold_stops_it(practice: Practice) -> None:
    async with KeptRoom.open(practice) as room, Synapse.open(practice) as synapse:
        bot, now = practice.machine, datetime.now(UTC)
        assert bot is not None
        clock = [now]
        retention = Retention(practice.database, bot.client, bot.administrator, practice.config.rooms, lambda: clock[0])
        async with practice.database.transaction() as tx:
            await tx.execute(update(pairs_table).where(pairs_table.c.id == room.pair.id).values(retention_days=30))
        written = await room.ana.send_text(room.id, "something old")
        await room.read_by_bot()

        async def announced_at(at: datetime) -> list[tuple[datetime, datetime]]:
            clock[0] = at
            await retention.look_after_all()
            async with practice.database.transaction() as tx:  # the outbox has another clock
                sent_now = {"send_at": now, "next_try_at": now}
                ours = notifications.c.kind.startswith("retention."), notifications.c.state == "pending"
                await tx.execute(update(notifications).where(*ours).values(**sent_now))
            bot.notices.wake.set()
            query = select(notifications.c.details).where(notifications.c.kind == "retention.announced")
            found = [row.details for row in await room.rows(query.order_by(notifications.c.position))]
            return [(moment(one, "since"), moment(one, "until")) for one in found]

        assert await announced_at(now + timedelta(days=25)) == []
        first = await announced_at(now + timedelta(days=27))
        since, until = first[0]
        assert first == [(since, until)] * 2
        assert now + timedelta(days=30) <= since <= now + timedelta(days=31)
        for who, person in ((room.ana, room.pair.supervisor), (room.bruno, room.pair.supervisee)):
            told = await who.next_message(practice.bot, partial(calls, who.user_id))
            assert (told.msgtype, told.body) == ("m.text", announcement(person, since, until))
        assert await announced_at(now + timedelta(days=28)) == first

        # A hold stops it, and what was announced before it is void.
        async with practice.database.transaction() as tx:
            await pairs.hold(tx, SYSTEM, room.pair.id, now=now)
        assert len(await announced_at(since + timedelta(hours=1))) == 2
        async with practice.database.transaction() as tx:
            await pairs.release(tx, SYSTEM, room.pair.id, now=now)
        again = await announced_at(since + timedelta(hours=1))
        assert len(again) == 4
        since, until = again[-1]
        await announced_at(since - timedelta(minutes=1))
        assert written in await synapse.events(room.id)

        # An archived room is emptied all the same.
        for who in (room.ana, room.bruno):
            await who.next_message(practice.bot, partial(calls, who.user_id))
        async with practice.database.transaction() as tx:
            await pairs.archive(tx, SYSTEM, room.pair.id, now=now)
        await announced_at(since + timedelta(minutes=1))
        assert written not in await synapse.events(room.id)
        [(before,)] = await room.rows(select(pairs_table.c.retained_since).where(pairs_table.c.id == room.pair.id))
        words = [said(person, "news.retention_done", until=Moments((before,))) for person in room.pair.people]
        for expected in words:
            done = await room.bruno.next_message(practice.bot, partial(says, expected))
            assert (done.msgtype, done.mentions) == ("m.notice", ())
        acted = select(audit_entries.c.action).where(audit_entries.c.action.startswith("retention."))
        assert [row.action for row in await room.rows(acted.order_by(audit_entries.c.id))] == [
            "retention.announce",
            "retention.announce",
            "retention.remove",
        ]


def moment(details: Json, name: str) -> datetime:
    return datetime.fromisoformat(details.get(name, "9999-12-31"))


def calls(user_id: str, message: Message) -> bool:
    return message.mentions == (user_id,)


def says(body: str, message: Message) -> bool:
    return message.body == body


def said(person: Person, key: str, **values: object) -> str:
    speech = reader(person.language, person.time_zone).as_of(datetime.now(UTC))
    return speech.say(key, city=speech.city(), **values)


def announcement(person: Person, since: datetime, until: datetime) -> str:
    values = {"since": Moments((since,)), "until": Moments((until,)), "age": Minutes(30 * 24 * 60)}
    return said(person, "news.retention_announced", **values)

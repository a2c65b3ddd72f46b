"""Files in a room: what the rules refuse is gone from the room and from the homeserver, and its sender knows why."""

import asyncio
import io
import secrets
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import nio
from sqlalchemy import select

from supervision import attachments, rooms
from supervision.audit import Actor
from supervision.models import attachments as table
from supervision.models import audit_entries, journal
from supervision.pairs import Pair
from tests.support.human import Human
from tests.support.practice import Practice

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + b"\x00" * 64
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"\x00" * 64
PROGRAM = b"MZ\x90\x00" + b"\x00" * 64
OPERATOR = Actor(None, "cli")
MEGABYTE = 1024 * 1024
SECONDS = 60.0


@dataclass
class Room:
    """Ana's and Bruno's room; Bruno's phone, which reads English."""

    practice: Practice
    pair: Pair
    bruno: Human

    @property
    def id(self) -> str:
        return self.pair.room_id or ""

    async def settle(self, **changes: Any) -> None:
        async with self.practice.database.transaction() as tx:
            defaults = self.practice.config.rooms
            await rooms.settle(tx, OPERATOR, self.pair.id, changes, defaults, now=datetime.now(UTC))

    async def upload(self, content: bytes) -> dict[str, Any]:
        """Encrypt and upload; what an event says of it."""
        uploaded, keys = await self.bruno.client.upload(
            lambda *_: io.BytesIO(content), content_type="application/octet-stream", encrypt=True, filesize=len(content)
        )
        assert isinstance(uploaded, nio.UploadResponse), uploaded
        assert keys is not None
        return {**keys, "url": uploaded.content_uri}

    async def show(self, file: dict[str, Any], name: str, *, encrypted: bool = True, **more: Any) -> str:
        content = {"msgtype": "m.file", "body": name, "filename": name, "file": file, "info": {}, **more}
        return await self.bruno.send_raw(self.id, "m.room.message", content, encrypted=encrypted)

    async def told(self, since: int) -> str:
        """What the bot says about a file."""
        found = await self.bruno.next_message(
            self.practice.bot, lambda message: message.body.startswith(("I removed", "The file")), since=since
        )
        return found.body

    async def is_redacted(self, event_id: str) -> bool:
        event = await self.bruno.request("GET", f"/rooms/{quote(self.id)}/event/{quote(event_id)}")
        return "redacted_because" in event.get("unsigned", {})

    async def wait_until_gone(self, mxc: str) -> None:
        """Until the homeserver has the file no more."""
        async with asyncio.timeout(SECONDS):
            while True:
                if not await self.has(mxc):
                    return
                await asyncio.sleep(0.1)

    async def has(self, mxc: str) -> bool:
        url = f"{self.practice.homeserver}/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
        headers = {"Authorization": f"Bearer {self.bruno.client.access_token}"}
        async with self.practice.servers.synapse.http.get(url, headers=headers) as answer:
            assert answer.status in (200, 404)
            return answer.status == 200

    async def wait_for_files(self, count: int) -> list[tuple[str | None, str | None, int | None]]:
        """Name, type and size of the listed files, once there are so many."""
        secret = self.practice.config.secret.get_secret_value()
        async with asyncio.timeout(SECONDS):
            while True:
                async with self.practice.database.transaction() as tx:
                    found = await attachments.list_of(tx, self.pair.id)
                if len(found) == count:
                    return [(one.name(secret), one.type, one.bytes) for one in found]
                await asyncio.sleep(0.05)

    async def reasons(self) -> list[str]:
        """Why files were taken down, in order."""
        async with self.practice.database.transaction() as tx:
            query = select(table.c.refused).where(table.c.refused.is_not(None)).order_by(table.c.sent_at)
            return [row.refused for row in await tx.execute(query)]


@asynccontextmanager
async def open_room(practice: Practice) -> AsyncIterator[Room]:
    pair = await practice.add_pair()
    async with practice.phones(pair) as (_, bruno):
        yield Room(practice, pair, bruno)


def zipped(name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, "x")
    return made.getvalue()


async def test_what_breaks_the_rules_is_taken_down(practice: Practice) -> None:
    async with open_room(practice) as room:
        await room.settle(megabytes=1)
        contents = (PROGRAM, b"x" * (MEGABYTE + 1), zipped("notes.txt"), PNG, PNG, PDF, PNG)
        files = await asyncio.gather(*map(room.upload, contents))
        program, large, archive, photo, fine, preview, clear = files
        mark = room.bruno.mark()
        shown = [
            await room.show(program, "report.pdf"),
            await room.show(large, "notes.txt"),
            await room.show(archive, "notes.zip"),
            await room.show(photo, "report.pdf"),
            await room.show(fine, "photo.png", info={"thumbnail_file": preview}),
            await room.show(clear, "photo.png", encrypted=False),
        ]
        for said in (
            "programs, scripts, HTML pages, SVG and documents with macros are not accepted.",
            "in this room each file can have up to 1 MB.",
            "this room accepts images, audio, PDF, documents, and text.",
            "by its name it is of one type, by its content of another.",
            "the thumbnail that came with it is not an image.",
            "it came without encryption. Send it again with an app that encrypts, such as Element.",
        ):
            assert await room.told(mark) == f"I removed the file: {said}"
        assert [await room.is_redacted(one) for one in shown] == [True] * len(shown)
        await room.settle(attachments=False)
        edit = await room.upload(PNG)
        new = {"msgtype": "m.file", "body": "photo.png", "file": edit}
        relation = {"rel_type": "m.replace", "event_id": await room.bruno.send_text(room.id, "hello")}
        mark = room.bruno.mark()
        await room.bruno.send_raw(
            room.id,
            "m.room.message",
            {"msgtype": "m.text", "body": "* photo", "m.new_content": new, "m.relates_to": relation},
        )
        assert await room.told(mark) == "I removed the file: files are not shared in this room."
        assert await room.reasons() == ["program", "too_large", "kind", "contradicts", "preview", "clear", "off"]
        for file in (*files, edit):
            await room.wait_until_gone(file["url"])
        assert await room.wait_for_files(0) == []
        async with practice.database.transaction() as tx:
            query = select(audit_entries.c.reason, audit_entries.c.actor_id).where(
                audit_entries.c.action == "file.share", audit_entries.c.success.is_(False)
            )
            assert {(row.reason, row.actor_id) for row in await tx.execute(query)} == {
                (f"file.{reason}", room.pair.supervisee.id) for reason in await room.reasons()
            }


async def test_what_is_allowed_is_listed_and_what_nobody_can_open_is_told(
    practice: Practice,
) -> None:
    async with open_room(practice) as room:
        preview = await room.upload(PNG)
        photo = await room.upload(PNG + b"more")
        event_id = await room.show(photo, "férias.png", info={"mimetype": "text/plain", "thumbnail_file": preview})
        assert await room.wait_for_files(1) == [("férias.png", "image/png", len(PNG) + 4)]
        assert await room.has(photo["url"])
        place = f"/rooms/{quote(room.id)}/redact/{quote(event_id)}/{secrets.token_hex(4)}"
        await room.bruno.request("PUT", place, {})
        assert await room.wait_for_files(0) == []
        await room.wait_until_gone(photo["url"])
        await room.wait_until_gone(preview["url"])

        # What nobody can open stays, and its sender is told.
        file = await room.upload(PDF)
        mark = room.bruno.mark()
        event_id = await room.show({**file, "hashes": {"sha256": "A" * 43}}, "report.pdf")
        assert await room.told(mark) == "The file cannot be decrypted, and nobody can open it. Send it again."
        mark = room.bruno.mark()
        server = practice.bot.partition(":")[2]
        missing = await room.show({**file, "url": f"mxc://{server}/nothing"}, "report.pdf")
        assert await room.told(mark) == "The file is not on the server, and nobody can open it. Send it again."
        assert [await room.is_redacted(one) for one in (event_id, missing)] == [False, False]
        assert await room.wait_for_files(2) == [("report.pdf", None, None)] * 2


async def test_files_are_judged_once_though_the_bot_was_away_and_whoever_s_device_it_was(practice: Practice) -> None:
    async with open_room(practice) as room:
        await practice.stop_bot()
        await room.show(await room.upload(PNG), "photo.png")
        bad = await room.show(await room.upload(PROGRAM), "photo.png")
        mark = room.bruno.mark()
        await practice.start_bot()
        assert (await room.told(mark)).startswith("I removed the file: programs")
        assert await room.wait_for_files(1) == [("photo.png", "image/png", len(PNG))]
        assert await room.is_redacted(bad)
        async with practice.phone(room.pair.supervisee, cross_signed=False) as unsigned:
            await unsigned.join(room.id)
            other = Room(practice, room.pair, unsigned)
            mark = room.bruno.mark()
            worse = await other.show(await other.upload(zipped("x.exe")), "x.zip")
            assert (await room.told(mark)).startswith("I removed the file: programs")
        assert await room.is_redacted(worse)
        await practice.stop_bot()
        await practice.start_bot()
        await room.bruno.ask(room.id, "!help", practice.bot)
        said = [one.body for one in room.bruno.heard(practice.bot) if one.body.startswith("I removed")]
        assert len(said) == 2
        async with practice.database.transaction() as tx:
            outcomes = await tx.scalars(select(journal.c.outcome).where(journal.c.outcome.startswith("file.")))
            assert sorted(outcomes) == ["file.kept", "file.program", "file.program"]

"""A room taken home: agreed on in it, made by the bot, fetched on the page, and compared with what was sent."""

import asyncio
import io
import json
import re
import struct
import wave
import zipfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import nio
import pytest
from sqlalchemy import func, select, update

from supervision import exports, sign_ins
from supervision.exports import Export
from supervision.models import Consent, ExportState, audit_entries, export_chunks, sessions
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.human import Human
from tests.support.practice import Practice
from tests.support.sample import acts

Json = dict[str, Any]
CODE = re.compile(r"!(?:exportar|export) (\d{4})")
HOSTILE = (
    '<mx-reply>quoted</mx-reply><b onclick="steal()">bold</b><script>steal()</script>'
    '<img src="https://tracker.example/x.png"><a href="javascript:steal()">bad</a>'
    '<a href="https://example.org/">good</a><iframe src="https://tracker.example/"></iframe>'
)


def picture(width: int, height: int) -> bytes:
    """A PNG in one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x0b\x64\x64" * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sound(milliseconds: int) -> bytes:
    """A silent WAV."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * (8 * milliseconds))
    return target.getvalue()


async def upload(person: Human, data: bytes) -> Json:
    """Encrypt and upload; the `EncryptedFile` for an event."""
    uploaded, keys = await person.client.upload(
        lambda *_: io.BytesIO(data), content_type="application/octet-stream", encrypt=True, filesize=len(data)
    )
    assert isinstance(uploaded, nio.UploadResponse)
    assert keys is not None
    return dict(keys | {"url": uploaded.content_uri})


async def send_file(person: Human, room: str, msgtype: str, name: str, data: bytes, **info: Any) -> str:
    content = {
        "msgtype": msgtype,
        "body": name,
        "filename": name,
        "info": {"size": len(data)} | info,
        "file": await upload(person, data),
    }
    return await person.send_raw(room, "m.room.message", content)


@asynccontextmanager
async def browser(practice: Practice, person: Person) -> AsyncIterator[aiohttp.ClientSession]:
    """This person's, just signed in."""
    async with practice.database.transaction() as tx:
        token = await sign_ins.open_session(tx, acts(person), person.id, now=datetime.now(UTC))
    jar = aiohttp.CookieJar(unsafe=True)
    base = practice.config.web.base_url
    async with aiohttp.ClientSession(base, cookie_jar=jar, cookies={"visavis": token}) as session:
        yield session


async def taken_home(practice: Practice, person: Person, pair: Pair) -> bytes:
    """The file, by the link on the page."""
    async with browser(practice, person) as session:
        async with session.get(f"/rooms/{pair.id}/export") as page:
            links = re.findall(r'href="(/rooms/[^"]+/file)"', await page.text())
        assert len(links) == 1
        async with session.get(links[0], allow_redirects=False) as answer:
            content = await answer.read()
            assert answer.status == 200
            assert answer.headers["Content-Disposition"].startswith('attachment; filename="visavis-')
            assert answer.headers["Cache-Control"] == "no-store"
        return content


async def test_what_is_taken_home_is_what_was_sent(practice: Practice) -> None:
    pair = await practice.add_pair()
    room, bot = pair.room_id or "", practice.bot
    image, thumbnail, voice, document = picture(80, 40), picture(8, 4), sound(1500), b"notes\n" * 300
    async with practice.phones(pair) as (ana, bruno):
        sent = {
            "text": await ana.send_text(room, "Bom dia, Bruno – tudo certo?"),
            "wrong": await bruno.send_text(room, "Frist draft"),
        }
        edit = await bruno.edit(room, sent["wrong"], "First draft")
        forged = await ana.edit(room, sent["wrong"], "not his")
        sent["reply"] = await bruno.send_raw(
            room,
            "m.room.message",
            {
                "msgtype": "m.text",
                "body": f"> <{ana.user_id}> Bom dia\n\nGood morning",
                "m.relates_to": {"m.in_reply_to": {"event_id": sent["text"]}},
            },
        )
        await ana.react(room, sent["reply"], "👍")
        sent["thread"] = await ana.send_text(room, "inside", thread=sent["text"])
        sent["hostile"] = await bruno.send_raw(
            room,
            "m.room.message",
            {
                "msgtype": "m.text",
                "body": "bold bad good </script>",
                "format": "org.matrix.custom.html",
                "formatted_body": HOSTILE,
            },
        )
        small = {"thumbnail_file": await upload(bruno, thumbnail), "thumbnail_info": {"mimetype": "image/png"}}
        sent["image"] = await send_file(
            bruno, room, "m.image", "paisagem.png", image, mimetype="image/png", w=80, h=40, **small
        )
        sent["audio"] = await send_file(ana, room, "m.audio", "voz.wav", voice, mimetype="audio/wav", duration=1500)
        sent["file"] = await send_file(ana, room, "m.file", "notas & más.txt", document, mimetype="text/plain")
        sent["gone"] = await ana.send_text(room, "said too much")
        await ana.redact(room, sent["gone"])
        megolm = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA", "session_id": "x" * 43}
        sent["unreadable"] = await bruno.send_raw(room, "m.room.encrypted", megolm, encrypted=False)
        sent["plain"] = await bruno.send_raw(
            room, "m.room.message", {"msgtype": "m.text", "body": "in clear"}, encrypted=False
        )
        answer = await bruno.ask(room, "!dashboard", bot, lambda message: "http" in message.body)

        asked = await bruno.ask(room, "!export", bot, lambda message: bool(CODE.search(message.body)))
        await bruno.send_text(room, f"!export {CODE.findall(asked.body)[0]}")
        question = await ana.next_message(bot, lambda message: "gostaria de levar uma cópia" in message.body)
        assert (question.msgtype, question.mentions) == ("m.text", (ana.user_id,))
        await ana.react(room, question.event_id, "✅")
        code = CODE.findall(question.body)[0]
        await ana.ask(room, f"!exportar {(int(code) + 1) % 10_000:04}", bot, lambda m: "código" in m.body)
        await ana.send_text(room, f"!exportar {code}")
        ready = await bruno.next_message(bot, lambda message: "copy of this room is ready" in message.body)
        assert (ready.msgtype, ready.mentions) == ("m.text", (bruno.user_id,))
        told = await ana.next_message(bot, lambda message: "Bruno tem agora uma cópia" in message.body)
        assert told.mentions == (ana.user_id,)

    packed = zipfile.ZipFile(io.BytesIO(await taken_home(practice, pair.supervisee, pair)))
    assert packed.testzip() is None
    names = packed.namelist()
    assert names == [
        "README.txt",
        "files/0001-paisagem.png",
        "files/0001-preview.png",
        "files/0002-voz.wav",
        "files/0003-notas & más.txt",
        "room.json",
        "room.html",
    ]
    contents = [packed.read(name) for name in names[1:5]]
    assert contents == [image, thumbnail, voice, document]
    room_json = json.loads(packed.read("room.json"))
    assert (room_json["format"], room_json["version"]) == ("visavis-room", 1)
    assert (room_json["made_for"], room_json["bot"]) == (bruno.user_id, bot)
    events: dict[str, Json] = {event["id"]: event for event in room_json["events"]}
    named = {name: events[event_id] for name, event_id in sent.items()}
    assert {edit, forged} & events.keys() == set()
    order = [name for name, event_id in sent.items() if event_id in events]
    assert [event["id"] for event in room_json["events"] if event["id"] in sent.values()] == [sent[o] for o in order]

    assert named["text"] == {
        "id": sent["text"],
        "sender": ana.user_id,
        "time": named["text"]["time"],
        "type": "m.room.message",
        "kind": "m.text",
        "text": "Bom dia, Bruno – tudo certo?",
        "formatted": None,
        "file": None,
        "reply_to": None,
        "thread": None,
        "device": ana.device_id,
        "doubt": None,
        "undecryptable": None,
        "removed": None,
        "state": None,
        "reactions": [],
        "edits": [],
    }
    sent_at = next(m.sent_at_ms for m in ana.heard(ana.user_id) if m.event_id == sent["text"])
    assert datetime.fromisoformat(named["text"]["time"]) == datetime.fromtimestamp(sent_at / 1000, UTC)
    assert (named["wrong"]["text"], [one["text"] for one in named["wrong"]["edits"]]) == (
        "First draft",
        ["Frist draft", "First draft"],
    )
    assert (named["reply"]["text"], named["reply"]["reply_to"]) == ("Good morning", sent["text"])
    assert [(one["key"], one["sender"]) for one in named["reply"]["reactions"]] == [("👍", ana.user_id)]
    assert (named["thread"]["thread"], named["thread"]["reply_to"]) == (sent["text"], None)
    assert named["hostile"]["formatted"] == HOSTILE.removeprefix("<mx-reply>quoted</mx-reply>")
    assert named["image"]["file"] == {
        "name": "paisagem.png",
        "declared_type": "image/png",
        "duration_ms": None,
        "width": 80,
        "height": 40,
        "type": "image/png",
        "size": len(image),
        "path": "files/0001-paisagem.png",
        "preview": "files/0001-preview.png",
        "missing": None,
    }
    voiced = named["audio"]["file"]
    assert (voiced["duration_ms"], voiced["type"], voiced["size"]) == (1500, "audio/wav", len(voice))
    assert (named["file"]["file"]["type"], named["file"]["text"]) == ("text/plain", None)
    assert (named["gone"]["text"], named["gone"]["removed"]["by"]) == (None, ana.user_id)
    assert (named["unreadable"]["text"], named["unreadable"]["undecryptable"]) == (None, "no_key")
    assert (named["plain"]["text"], named["plain"]["doubt"]) == ("in clear", "not_encrypted")
    assert (events[answer.event_id]["text"], events[answer.event_id]["sender"]) == (answer.body, bot)
    assert (events[answer.event_id]["doubt"], events[question.event_id]["text"]) == (None, question.body)
    assert sum(event["text"] == f"!exportar {code}" for event in room_json["events"]) == 1
    comings = [event for event in room_json["events"] if event["state"] and event["state"]["membership"] == "join"]
    assert {event["state"]["key"] for event in comings} == {ana.user_id, bruno.user_id, bot}

    page = packed.read("room.html").decode()
    for active in ("<script", "onclick", "javascript:", "<iframe", "tracker.example", 'http-equiv="refresh'):
        assert active not in page
    assert "<b>bold</b>" in page
    assert 'src="files/0001-preview.png"' in page
    assert 'href="files/0003-notas%20%26%20m%C3%A1s.txt"' in page
    assert set(re.findall(r'(?:src|href)="(?!files/|#)([^"]*)"', page)) <= {"https://example.org/"}
    await keeps_nothing_readable(practice, pair)


async def fetched(practice: Practice, pair: Pair) -> Export:
    """The export, once it is noted that it went out: a moment after its last byte."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    async with asyncio.timeout(60):
        while True:
            async with practice.database.transaction() as tx:
                [export] = await exports.list_of(tx, pair.id, pair.supervisee.id, since=since)
            if export.fetched_at is not None:
                return export
            await asyncio.sleep(0.05)


async def keeps_nothing_readable(practice: Practice, pair: Pair) -> None:
    """The pieces are sealed; each step is audited; after a day nothing is left, and an old session gets nothing."""
    export = await fetched(practice, pair)
    async with practice.database.transaction() as tx:
        pieces = list(await tx.scalars(select(export_chunks.c.content)))
        query = select(audit_entries.c.action, audit_entries.c.actor_id, audit_entries.c.ip)
        rows = await tx.execute(query.where(audit_entries.c.action.like("export.%")).order_by(audit_entries.c.id))
        entries = [tuple(row) for row in rows]
    assert (export.state, export.agreed_by) == (ExportState.READY, pair.supervisor.id)
    assert all(b"Bom dia" not in piece and b"PK" not in piece[:4] for piece in pieces)
    assert entries == [
        ("export.ask", pair.supervisee.id, None),
        ("export.agree", pair.supervisor.id, None),
        ("export.make", None, None),
        ("export.fetch", pair.supervisee.id, "127.0.0.1"),
    ]
    path = f"/rooms/{pair.id}/export/{export.id}/file"
    async with browser(practice, pair.supervisor) as other, other.get(path) as answer:
        assert answer.status == 404
    async with browser(practice, pair.supervisee) as own:
        async with practice.database.transaction() as tx:
            await tx.execute(update(sessions).values(created_at=datetime.now(UTC) - timedelta(minutes=11)))
        async with own.get(path, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/sign-in/anew")
    async with practice.database.transaction() as tx:
        await exports.expire(tx, now=datetime.now(UTC) + timedelta(days=1))
        gone = await exports.get(tx, export.id)
        assert (gone.state, gone.salt) == (ExportState.EXPIRED, None)
        assert await tx.scalar(select(func.count()).select_from(export_chunks)) == 0
    async with browser(practice, pair.supervisee) as own, own.get(path) as answer:
        assert answer.status == 404


async def test_a_bot_that_is_stopped_in_the_middle_begins_anew(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.makings.LONG_EVENTS", 1)  # any room is a long one
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (ana, _):
        await ana.send_text(room, "one")
        await practice.stop_bot()
        async with practice.database.transaction() as tx:
            export = await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.ONE, now=datetime.now(UTC))
            assert export is not None
            begun = await exports.begin(
                tx, export, now=datetime.now(UTC)
            )  # as a process would have that died with one piece written
            await exports.put(tx, export.id, 0, b"half", size=4)
        await practice.start_bot()
        await ana.next_message(practice.bot, lambda message: "demora um pouco" in message.body)
        await ana.next_message(practice.bot, lambda message: "cópia desta sala está pronta" in message.body)
    async with practice.database.transaction() as tx:
        made = await exports.get(tx, export.id)
    assert (made.state, made.attempts) == (ExportState.READY, begun.attempts + 1)
    packed = zipfile.ZipFile(io.BytesIO(await taken_home(practice, pair.supervisor, pair)))
    texts = [event["text"] for event in json.loads(packed.read("room.json"))["events"]]
    assert texts.count("one") == 1

"""Files that are meant to get around the rules, or that the homeserver fails to give."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import select, update

from bot.client import Account, Client
from bot.events import Envelope, Incoming, Origin, read_content
from bot.files import MOST_TRIES, PATIENCE, Files
from supervision import attachments
from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import Transient
from supervision.models import attachments as table
from supervision.models import homeserver_tasks
from supervision.models import pairs as pairs_table
from supervision.pairs import Pair
from tests.support.sample import add_pair

ROOM = "!room:example.org"
MXC = "mxc://example.org/"


async def give(request: web.Request) -> web.Response:
    if request.match_info["id"] == "late":
        return web.json_response({"errcode": "M_NOT_YET_UPLOADED"}, status=504)
    if request.match_info["id"] == "broken":
        return web.json_response({"errcode": "M_UNKNOWN"}, status=500)
    return web.Response(body=b"notes")


@pytest.fixture
async def files(database: Database, now: datetime, tmp_path: Path) -> AsyncIterator[Files]:
    app = web.Application()
    app.router.add_get("/_matrix/client/v1/media/download/{server}/{id}", give)
    async with TestServer(app) as server:
        account = Account(str(server.make_url("/")), "@visavis:example.org", tmp_path, "Visavis")
        yield Files(database, Client(account, pin=pin), lambda: now, RoomsConfig(), "a secret of the tests")


async def pin(user_id: str, master_key: str) -> str | None:
    return None


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id=ROOM))
    return pair


def sent(pair: Pair, now: datetime, content: dict[str, Any]) -> Incoming:
    sender = pair.supervisee.matrix_id or ""
    return Incoming(ROOM, "$file", sender, now, "attachment", "m.room.message", content=content)


@pytest.mark.parametrize("odd", [f"{MXC}a\x00", f"{MXC}half \ud83d", f"{MXC}../x", "mxc://", "mxc:///x"])
async def test_an_address_that_is_none_hides_no_breach(
    database: Database, files: Files, pair: Pair, now: datetime, odd: str
) -> None:
    content = {"body": "setup.exe", "url": f"{MXC}program", "info": {"thumbnail_url": odd}}
    event = sent(pair, now, content)
    judged = await files.judge(event)
    assert judged is not None
    assert (judged.refused, judged.media) == ("program", (f"{MXC}program",))
    async with database.transaction() as tx:
        await files.note(tx, event, pair, Actor(pair.supervisee.id, "matrix"), judged)
        assert await attachments.is_open_breach(tx, "$file")


async def test_an_address_that_is_none_keeps_no_other_from_being_deleted(
    database: Database, files: Files, pair: Pair, now: datetime
) -> None:
    content = {"body": "notes.txt", "url": f"{MXC}notes", "m.new_content": {"body": "x", "url": f"{MXC}../x"}}
    event = sent(pair, now, content)
    judged = await files.judge(event)
    assert judged is not None
    async with database.transaction() as tx:
        await files.note(tx, event, pair, Actor(pair.supervisee.id, "matrix"), judged)
        assert list(await tx.scalars(select(table.c.media))) == [[f"{MXC}notes"]]


async def test_a_file_whose_caption_was_edited_is_one_and_goes_when_it_is_taken_back(
    database: Database, files: Files, pair: Pair, now: datetime
) -> None:
    """The edit shows the file, too, and nobody sees the edit any more without what it edits."""
    whose, actor = pair.supervisee.matrix_id or "", Actor(pair.supervisee.id, "matrix")
    file = {"msgtype": "m.file", "body": "notes.txt", "url": f"{MXC}notes"}
    edited = {**file, "m.new_content": {**file, "filename": "notes.txt", "body": "what I meant"}}
    relation = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$file"}}
    outside = Envelope(ROOM, "$edit", whose, now, "m.room.encrypted", relation)
    first, edit = sent(pair, now, file), read_content(outside, "m.room.message", edited, Origin(None))
    other = replace(edit, event_id="$other", content={**file, "url": f"{MXC}other"})
    for event in (first, edit, other):
        judged = await files.judge(event)
        assert judged is not None
        async with database.transaction() as tx:
            await files.note(tx, event, pair, actor, judged)
    async with database.transaction() as tx:
        assert {one.event_id for one in await attachments.list_of(tx, pair.id)} == {"$file", "$other"}
    taken_back = Incoming(ROOM, "$gone", whose, now, "redaction", "m.room.redaction", relates_to="$file")
    assert await files.take_back(taken_back)
    async with database.transaction() as tx:
        [details] = await tx.scalars(select(homeserver_tasks.c.details))
        assert details == {"media": {f"{MXC}notes": [whose]}}


async def test_a_file_that_the_homeserver_fails_to_give_is_not_waited_for_for_ever(
    files: Files, pair: Pair, now: datetime
) -> None:
    event = sent(pair, now, {"body": "notes.txt", "url": f"{MXC}broken"})
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(Transient, match="media_failed"):
            await files.judge(event)
    judged = await files.judge(event)
    assert judged is not None
    assert judged.refused == "late"


async def test_a_file_that_never_comes_is_waited_for_for_a_moment_though_the_clock_is_set_back(
    files: Files, pair: Pair, now: datetime
) -> None:
    event, passed = sent(pair, now, {"body": "notes.txt", "url": f"{MXC}late"}), timedelta()
    files.clock = lambda: now + passed
    for change in (timedelta(), -timedelta(hours=1)):
        passed += change
        with pytest.raises(Transient, match="file_not_there_yet"):
            await files.judge(event)
    passed += PATIENCE
    judged = await files.judge(event)
    assert judged is not None
    assert judged.refused == "late"

"""Files that cannot be had do not keep the rest of a room from being taken home."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import insert, select, update

from bot.client import Account, Client
from bot.exports import Exports
from bot.makings import LATE_IN_TURN, TRIES_OF_A_FILE, Making
from bot.media import Source
from supervision import exports, pairs
from supervision.db import Database
from supervision.errors import Transient
from supervision.exports import Export
from supervision.models import Consent, ExportState, bots
from supervision.models import exports as exports_table
from supervision.models import pairs as pairs_table
from tests.support.sample import acts, add_pair

BOT = "@visavis:example.org"


async def pin(user_id: str, master_key: str) -> str | None:
    return None


@asynccontextmanager
async def export_of(
    database: Database, now: datetime, place: Path, answer: Callable[[web.Request], Awaitable[web.Response]]
) -> AsyncIterator[Callable[[int], Making]]:
    """One try of a given number at an export, by a homeserver that answers so to whoever wants a file."""
    pair = await add_pair(database, now=now)
    app = web.Application()
    app.router.add_get("/_matrix/client/v1/media/download/{server}/{id}", answer)
    async with TestServer(app) as server:
        client = Client(Account(str(server.make_url("/")), "@visavis:example.org", place, "Visavis"), pin=pin)
        maker = Exports(database, client, lambda: now, "a secret of the tests")

        def begin(attempts: int) -> Making:
            export = Export(
                uuid.uuid4(), pair.id, pair.supervisee.id, None, ExportState.AGREED, b"salt", 0, 0, attempts, None,
                now, None, None, None,
            )  # fmt: skip
            return Making(maker, export, pair)

        yield begin


@pytest.mark.parametrize(
    ("status", "said", "state", "error"),
    [
        (400, {}, ExportState.AGREED, "http_400"),
        (404, {}, ExportState.AGREED, "http_404"),
        (403, {"errcode": "M_FORBIDDEN"}, ExportState.FAILED, "M_FORBIDDEN"),
    ],
)
async def test_a_room_that_a_proxy_refuses_is_taken_home_later(
    database: Database, now: datetime, tmp_path: Path, status: int, said: dict[str, str], state: str, error: str
) -> None:
    """It was told as failed at once, though the homeserver had not been asked."""
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.set_room(tx, pair.id, "!room:example.org")
        await tx.execute(insert(bots).values(matrix_id=BOT))
        await tx.execute(update(pairs_table).values(bot=BOT))
        await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now)

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response(said, status=status)

    app = web.Application()
    app.router.add_get("/_matrix/client/v3/rooms/{room}/messages", refuse)
    async with TestServer(app) as server:
        client = Client(Account(str(server.make_url("/")), BOT, tmp_path, "Visavis"), pin=pin)
        client._synced.set()  # noqa: SLF001  # as it stands after the first sync
        assert await Exports(database, client, lambda: now, "a secret of the tests").make_next()
        await client.homeserver.close()
    async with database.transaction() as tx:
        [made] = await tx.execute(select(exports_table.c.state, exports_table.c.error))
    assert tuple(made) == (state, error)


async def put(making: Making, mxc: str, now: datetime) -> object:
    return await making._put("files/0001-notes.txt", Source(mxc), now)  # noqa: SLF001


async def test_a_file_that_the_homeserver_fails_to_give_is_left_out_in_the_end(
    database: Database, now: datetime, tmp_path: Path
) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_UNKNOWN"}, status=500)

    async with export_of(database, now, tmp_path, fail) as begin:
        for attempts in range(1, TRIES_OF_A_FILE):
            with pytest.raises(Transient, match="media_failed"):
                await put(begin(attempts), "mxc://example.org/broken", now)
        assert await put(begin(TRIES_OF_A_FILE), "mxc://example.org/broken", now) == "late"


async def test_a_homeserver_that_never_gives_its_files_keeps_nobody_waiting(
    database: Database, now: datetime, tmp_path: Path
) -> None:
    """Each may take a minute, a room may have thousands, and one export is made after the other."""
    asked: list[str] = []

    async def wait(request: web.Request) -> web.Response:
        asked.append(request.match_info["server"])
        return web.json_response({"errcode": "M_NOT_YET_UPLOADED"}, status=504)

    async with export_of(database, now, tmp_path, wait) as begin:
        making = begin(1)
        for server in ("far.example", "example.org"):
            for number in range(LATE_IN_TURN + 3):
                assert await put(making, f"mxc://{server}/{number}", now) == "late"
        assert [asked.count(server) for server in ("far.example", "example.org")] == [LATE_IN_TURN, LATE_IN_TURN + 3]

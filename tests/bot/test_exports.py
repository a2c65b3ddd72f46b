"""One file that cannot be had does not keep the rest of a room from being taken home."""

import uuid
from datetime import datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.client import Account, Client
from bot.exports import TRIES_OF_A_FILE, Exports, _Making
from bot.media import Source
from supervision.db import Database
from supervision.errors import Transient
from supervision.exports import Export
from supervision.models import ExportState
from tests.support.sample import add_pair


async def pin(user_id: str, master_key: str) -> str | None:
    return None


async def fail(_: web.Request) -> web.Response:
    return web.json_response({"errcode": "M_UNKNOWN"}, status=500)


async def test_a_file_that_the_homeserver_fails_to_give_is_left_out_in_the_end(
    database: Database, now: datetime, tmp_path: Path
) -> None:
    pair = await add_pair(database, now=now)
    app = web.Application()
    app.router.add_get("/_matrix/client/v1/media/download/{server}/{id}", fail)
    async with TestServer(app) as server:
        client = Client(Account(str(server.make_url("/")), "@visavis:example.org", tmp_path, "Visavis"), pin=pin)
        maker = Exports(database, client, lambda: now, "a secret of the tests")

        async def put(attempts: int) -> object:
            export = Export(
                uuid.uuid4(), pair.id, pair.supervisee.id, None, ExportState.AGREED, b"salt", 0, 0, attempts, None,
                now, None, None, None,
            )  # fmt: skip
            making = _Making(maker, export, pair)
            return await making._put("files/0001-notes.txt", Source("mxc://example.org/broken"), now)  # noqa: SLF001

        for attempts in range(1, TRIES_OF_A_FILE):
            with pytest.raises(Transient, match="media_failed"):
                await put(attempts)
        assert await put(TRIES_OF_A_FILE) == "late"

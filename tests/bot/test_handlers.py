"""Events that wait for something which may never come: their room is not to wait with them for ever."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import select, update

from bot.client import Account, Client, _Room
from bot.events import Incoming
from bot.files import Files
from bot.handlers import PATIENCE, Handlers
from bot.notices import Notices
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import Transient
from supervision.models import audit_entries
from supervision.models import pairs as pairs_table
from tests.support.sample import add_pair

ROOM = "!room:example.org"


async def pin(user_id: str, master_key: str) -> str | None:
    return None


@asynccontextmanager
async def homeserver(away: list[bool]) -> AsyncIterator[str]:
    """One to which somebody's own does not answer; while `away` holds something, it is away itself."""

    async def tell(_: web.Request) -> web.Response:
        if away:
            return web.json_response({}, status=502)
        return web.json_response({"device_keys": {}, "failures": {"example.org": {"status": 503}}})

    app = web.Application()
    app.router.add_post("/_matrix/client/v3/keys/query", tell)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def test_a_tap_waits_for_its_sender_s_devices_for_a_while_only(
    database: Database, now: datetime, tmp_path: Path
) -> None:
    """A homeserver of somebody's own can withhold them, and date what it sends in a year from now.

    Ours may be away for longer, which says nothing of them.
    """
    pair, passed, away = await add_pair(database, now=now), timedelta(), [True]
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id=ROOM))
    bruno = pair.supervisee.matrix_id or ""
    tap = Incoming(
        ROOM, "$tap", bruno, now + timedelta(days=365), "reaction", "m.reaction", relates_to="$asked", key="✅"
    )

    def clock() -> datetime:
        return now + passed

    async with homeserver(away) as url:
        client = Client(Account(url, "@visavis:example.org", tmp_path, "Visavis"), pin=pin)
        client._rooms[ROOM] = room = _Room()  # noqa: SLF001  # as it stands after the first sync
        room.read({"type": "m.room.member", "state_key": bruno, "content": {"membership": "join"}})
        client.directory.follow([bruno])
        files = Files(database, client, clock, RoomsConfig(), "a secret of the tests")
        handlers = Handlers(database, Notices(database, client, clock), clock, "http://localhost", files=files)
        for _ in range(10):  # minutes
            with pytest.raises(Transient, match="http_502"):
                await handlers.handle(tap)
            passed += timedelta(minutes=1)
        away.clear()
        with pytest.raises(Transient, match="devices_unknown"):
            await handlers.handle(tap)
        passed -= timedelta(hours=1)  # the clock is put right
        for _ in range(PATIENCE // timedelta(minutes=1)):
            with pytest.raises(Transient, match="devices_unknown"):
                await handlers.handle(tap)
            passed += timedelta(minutes=1)
        await handlers.handle(tap)
        await client.homeserver.close()
    async with database.transaction() as tx:
        reasons = list(await tx.scalars(select(audit_entries.c.reason).where(audit_entries.c.action == "command")))
    assert reasons == ["reaction.devices_unknown"]

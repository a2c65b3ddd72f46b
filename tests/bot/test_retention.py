"""Looking after many rooms: what goes wrong in one holds up no other, and a hold stops what is under way."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from nio.crypto.sessions import OutboundGroupSession
from sqlalchemy import update
from structlog.testing import capture_logs

from bot.client import Account, Client
from bot.logins import Folder
from bot.retention import Retention
from bot.trust import open_machine
from supervision import attachments, bots, notifications, pairs, retention
from supervision.audit import SYSTEM
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import Transient
from supervision.models import Channel
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.pairs import Pair
from supervision.retention import BEGINNING, Announcement
from tests.support.sample import add_pair

BOT = "@visavis:example.org"
DAY = timedelta(days=1)


async def pin(user_id: str, master_key: str) -> str | None:
    return None


@pytest.fixture
def looking(database: Database, now: datetime, tmp_path: Path) -> Retention:
    """A bot that is not connected: whatever it wants of its keys is away."""
    account = Account("http://127.0.0.1:9", BOT, tmp_path, "Visavis")
    return Retention(database, Client(account, pin=pin), None, RoomsConfig(retention_days=30), lambda: now)


async def add_due_pair(database: Database, now: datetime) -> Pair:
    """A pair in whose room something old was announced to go a week ago."""
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await bots.register(tx, BOT, "master", now=now)
        change = update(pairs_table).where(pairs_table.c.id == pair.id)
        await tx.execute(change.values(bot=BOT, room_id=f"!{pair.id}:example.org"))
        goes = Announcement(now - 4 * DAY, now - 31 * DAY, 30)
        await retention.announce(tx, pair, goes, now=now - 7 * DAY)
        for row in await notifications.claim(tx, Channel.MATRIX, now=now - 7 * DAY):
            await notifications.settle_sent(tx, row.id, now=now - 7 * DAY, matrix_event_id=f"${row.id}")
    return replace(pair, room_id=f"!{pair.id}:example.org")


async def test_a_room_that_fails_oddly_holds_up_no_other(database: Database, now: datetime, looking: Retention) -> None:
    pairs_of_one_age = [await add_due_pair(database, now) for _ in range(2)]
    first, second = sorted(pairs_of_one_age, key=lambda one: one.id)
    async with database.transaction() as tx:
        odd = update(people_table).where(people_table.c.id == first.supervisor.id)
        await tx.execute(odd.values(time_zone="Nowhere/Gone"))
    with capture_logs() as logs:
        await looking.look_after_all()
    assert [(one["event"], one.get("pair"), one.get("code") or one.get("error")) for one in logs] == [
        ("retention.failed", str(first.id), "ZoneInfoNotFoundError"),
        ("retention.delayed", str(second.id), "not_connected"),
        ("retention.keys_delayed", None, "not_connected"),
    ]


async def test_a_hold_that_comes_in_the_middle_stops_the_rest(
    database: Database, now: datetime, looking: Retention
) -> None:
    pair = await add_due_pair(database, now)
    file = "mxc://example.org/file"
    async with database.transaction() as tx:
        await attachments.note(
            tx, "$file", pair.id, pair.supervisee.id,
            media=[file], locked_name=None, type=None, size=None, sent_at=now - 90 * DAY,
        )  # fmt: skip
        await pairs.hold(tx, SYSTEM, pair.id, now=now)
    with pytest.raises(Transient, match="pair_held"):
        await looking.remove(pair, now - 31 * DAY)
    async with database.transaction() as tx:
        assert await attachments.is_noted(tx, "$file")


async def test_the_keys_of_a_removed_room_go_whoever_removed_it(
    database: Database, now: datetime, looking: Retention, tmp_path: Path
) -> None:
    kept, removed = [await add_due_pair(database, now) for _ in range(2)]
    folder = Folder(tmp_path / "store")
    folder.open()
    machine = open_machine(folder, BOT, "DEVICE")
    looking.client._machine = machine  # noqa: SLF001  # as it stands once it is connected
    for pair in (kept, removed):
        session = OutboundGroupSession()
        machine.create_group_session("sender", "signing", str(pair.room_id), session.id, session.session_key)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, removed.id, now=now)
    await looking.look_after_all()
    assert machine.rooms() == {kept.room_id, removed.room_id}
    async with database.transaction() as tx:
        await pairs.forget_room(tx, removed.id, now=now)  # as another bot's process did
    await looking.look_after_all()
    assert machine.rooms() == {kept.room_id}
    await looking.client.homeserver.close()
    machine.close()
    folder.close()


async def test_an_event_with_an_odd_time_keeps_no_other_from_being_announced(
    database: Database, now: datetime, tmp_path: Path
) -> None:
    """A member's own homeserver dates what it sends as it likes."""
    pair = await add_due_pair(database, now)
    written = now - 20 * DAY
    times = [2**53, -(2**53), 2**46, 1.5, None, True, (now + 400 * DAY).timestamp() * 1000, written.timestamp() * 1000]
    events = [
        {
            "event_id": f"${number}",
            "sender": "@bruno:far.example.org",
            "type": "m.room.encrypted",
            "content": {"ciphertext": "x"},
            "origin_server_ts": int(at) if isinstance(at, float) and at > 2 else at,
        }
        for number, at in enumerate(times)
    ]

    async def give(_: web.Request) -> web.Response:
        return web.json_response({"chunk": events})

    app = web.Application()
    app.router.add_get("/_matrix/client/v3/rooms/{room}/messages", give)
    async with TestServer(app) as server:
        client = Client(Account(str(server.make_url("")), BOT, tmp_path, "Visavis"), pin=pin)
        looking = Retention(database, client, None, RoomsConfig(retention_days=30), lambda: now)
        assert await looking.oldest(pair, BEGINNING) == written
        await client.homeserver.close()

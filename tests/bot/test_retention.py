"""Looking after many rooms: what goes wrong in one holds up no other, and a hold stops what is under way."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from nio.crypto.sessions import OutboundGroupSession
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from bot.administration import Administrator
from bot.client import Account, Client
from bot.logins import Folder
from bot.retention import Retention
from bot.trust import open_machine
from embedded.postgresql import PostgreSQL
from embedded.synapse import Synapse
from supervision import attachments, bots, notifications, pairs, retention, rooms
from supervision.audit import SYSTEM
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import Transient
from supervision.models import Channel, Fault
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.pairs import Pair
from supervision.retention import BEGINNING, Announcement
from tests.bot.test_administration import leave_end
from tests.support.homeserver import Seat
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
    odd = [OverflowError()]

    def tell_time() -> datetime:
        if odd:
            raise odd.pop()
        return now

    looking.clock = tell_time
    with capture_logs() as logs:
        await looking.look_after_all()
    assert [(one["event"], one.get("pair"), one.get("code") or one.get("error")) for one in logs] == [
        ("retention.failed", str(first.id), "OverflowError"),
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


async def test_a_hold_that_comes_just_now_is_waited_for(database: Database, now: datetime, looking: Retention) -> None:
    pair = await add_due_pair(database, now)
    async with database.transaction() as tx:
        await pairs.hold(tx, SYSTEM, pair.id, now=now)
        removing = asyncio.create_task(looking.remove(pair, now - 31 * DAY))
        await asyncio.wait([removing], timeout=0.2)
    with pytest.raises(Transient, match="pair_held"):
        await removing


async def test_a_room_that_was_given_up_meanwhile_is_not_taken_for_the_new_one(
    database: Database, now: datetime, looking: Retention
) -> None:
    """Purging takes minutes, in which an admin can have the pair get another room."""
    pair = await add_due_pair(database, now)
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id="!new:example.org"))
    with pytest.raises(Transient, match="another_room"):
        await looking.remove(pair, now - 31 * DAY)


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


# On a real homeserver


@dataclass
class Place:
    """A room of the bot's on a real homeserver; `events` are those written there by `say`, the oldest first."""

    seat: Seat
    retention: Retention
    synapse: asyncpg.Connection
    pair: Pair
    events: list[str] = field(default_factory=list)

    @property
    def room_id(self) -> str:
        return self.pair.room_id or ""

    async def say(self, at: datetime | None = None) -> str:
        """Dated `at` as an application service may (Matrix 1.18, "Timestamp massaging")."""
        target = f"/rooms/{self.room_id}/send/m.room.message/{uuid.uuid4()}"
        content = {"msgtype": "m.notice", "body": "a sentence"}
        params = {"ts": str(int(at.timestamp() * 1000))} if at else {}
        answer = await self.seat.client.homeserver.ask("PUT", target, content, params=params)
        self.events.append(str(answer["event_id"]))
        return self.events[-1]

    async def state(self) -> str:
        target = f"/rooms/{self.room_id}/state/org.visavis.test/"
        return str((await self.seat.client.homeserver.ask("PUT", target, {"value": "x"}))["event_id"])

    async def left(self) -> list[str]:
        """Those of `events` that the homeserver still has."""
        rows = await self.synapse.fetch("SELECT event_id FROM event_json WHERE room_id = $1", self.room_id)
        kept = {row["event_id"] for row in rows}
        return [one for one in self.events if one in kept]

    async def retained_since(self, database: Database) -> datetime | None:
        async with database.transaction() as tx:
            query = select(pairs_table.c.retained_since).where(pairs_table.c.id == self.pair.id)
            found: datetime | None = await tx.scalar(query)
        return found


@pytest.fixture
async def place(database: Database, postgresql: PostgreSQL, synapse: Synapse, seat: Seat) -> AsyncIterator[Place]:
    now = datetime.now(UTC)
    pair = await add_pair(database, now=now)
    room_id = str((await seat.client.homeserver.ask("POST", "/createRoom", {"preset": "private_chat"}))["room_id"])
    await seat.wait_for(lambda: room_id in seat.client.rooms())
    async with database.transaction() as tx:
        await bots.register(tx, seat.client.user_id, "master", now=now)
        change = update(pairs_table).where(pairs_table.c.id == pair.id)
        await tx.execute(change.values(bot=seat.client.user_id, room_id=room_id))
    administrator = Administrator(synapse.base_url, synapse.admin_token)
    connection = await asyncpg.connect(postgresql.url("synapse", "postgres"))
    clock = lambda: datetime.now(UTC)  # noqa: E731
    looking = Retention(database, seat.client, administrator, RoomsConfig(retention_days=30), clock)
    yield Place(seat, looking, connection, replace(pair, room_id=room_id))
    await connection.close()
    await administrator.close()


async def cut() -> datetime:
    """An instant that nothing was written at."""
    await asyncio.sleep(0.01)
    at = datetime.now(UTC)
    await asyncio.sleep(0.01)
    return at


async def test_what_lies_behind_an_end_that_stays_goes_with_the_rest(
    database: Database, postgresql: PostgreSQL, place: Place
) -> None:
    end = await place.state()
    for _ in range(3):
        await place.say()
    before = await cut()
    young = await place.say()
    await leave_end(postgresql, place.room_id, end)
    await place.retention.remove(place.pair, before)
    assert await place.left() == [young]
    assert await place.retained_since(database) == before
    later = await place.say()
    assert await place.left() == [young, later]


async def test_what_cannot_be_removed_is_not_noted_as_removed(
    database: Database, postgresql: PostgreSQL, place: Place
) -> None:
    """The bot is not in the room, so that it cannot join its ends."""
    end = await place.state()
    await place.say()
    before = await cut()
    await place.seat.client.homeserver.ask("POST", f"/rooms/{place.room_id}/leave", {})
    await place.seat.wait_for(lambda: place.room_id not in place.seat.client.rooms())
    await leave_end(postgresql, place.room_id, end)
    with pytest.raises(Transient, match="room_split"):
        await place.retention.remove(place.pair, before)
    assert await place.left() == place.events
    assert await place.retained_since(database) is None


async def test_a_message_that_is_dated_ahead_keeps_none_that_follow_it(place: Place) -> None:
    await place.say(datetime.now(UTC) + 400 * DAY)
    for _ in range(2):
        await place.say()
    await place.retention.remove(place.pair, await cut())
    assert await place.left() == []


async def test_what_is_settled_while_the_bot_looks_is_not_announced_as_it_was(database: Database, place: Place) -> None:
    place.retention.defaults = RoomsConfig(retention_days=3)
    await place.say()
    async with database.transaction() as tx:
        longer = {"retention_days": 365}
        await rooms.settle(tx, SYSTEM, place.pair.id, longer, place.retention.defaults, now=datetime.now(UTC))
        looking = asyncio.create_task(place.retention.look_after(place.pair))
        await asyncio.wait([looking], timeout=0.5)
    await looking
    async with database.transaction() as tx:
        told = select(func.count()).select_from(outbox).where(outbox.c.kind == retention.ANNOUNCED)
        assert await tx.scalar(told) == 0


async def test_what_is_in_a_room_that_was_given_up_is_not_announced_in_the_new_one(
    database: Database, place: Place
) -> None:
    place.retention.defaults = RoomsConfig(retention_days=3)
    await place.say()
    async with database.transaction() as tx:
        renewed = update(pairs_table).where(pairs_table.c.id == place.pair.id).values(room_id="!new:example.org")
        await tx.execute(renewed)
    await place.retention.look_after(place.pair)
    async with database.transaction() as tx:
        told = select(func.count()).select_from(outbox).where(outbox.c.kind == retention.ANNOUNCED)
        assert await tx.scalar(told) == 0


async def test_nothing_is_announced_where_the_bot_must_not_speak_until_it_may(database: Database, place: Place) -> None:
    """It would wait for weeks and then be given up, again and again, where the room is one kept apart for good."""
    place.retention.defaults = RoomsConfig(retention_days=3)
    await place.say()

    async def announced() -> bool:
        async with database.transaction() as tx:
            pair = await pairs.get(tx, place.pair.id)
        await place.retention.look_after(pair)
        async with database.transaction() as tx:
            return await tx.scalar(select(outbox.c.id).where(outbox.c.kind == retention.ANNOUNCED).limit(1)) is not None

    async with database.transaction() as tx:
        await pairs.set_fault(tx, place.pair, Fault.NOT_ENCRYPTED, now=datetime.now(UTC))
    assert not await announced()
    async with database.transaction() as tx:
        await pairs.clear_fault(tx, place.pair.id, now=datetime.now(UTC))
    assert await announced()

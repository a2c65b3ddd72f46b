"""Rooms on a real homeserver that drift from what they are to be: each is mended, or the bot speaks there no more."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update

from bot.greetings import greet
from bot.keeping import A_FEW, Keeping
from bot.notices import Notices
from bot.requests import path
from bot.rooms import Plan, create_room
from bot.signatures import Seeds, read_keys
from embedded.synapse import Synapse
from supervision import bots, memberships, notifications, pairs, people, renewals, retention
from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import Transient
from supervision.models import Channel, Fault, PairStatus, audit_entries
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.retention import Announcement
from tests.support.homeserver import Seat, make_account, phone
from tests.support.human import HomeserverRefused as RefusedPerson
from tests.support.proxy import Proxy
from tests.support.sample import add_pair, add_person

Json = dict[str, Any]
OPERATOR = Actor(None, "cli")


@dataclass
class Kept:
    """A bot account that keeps one pair's room; `hours` puts its clock forward."""

    database: Database
    synapse: Synapse
    seat: Seat
    pair: Pair
    hours: float = 0
    spoken: list[None] = field(default_factory=list)
    keeping: Keeping = field(init=False)

    def __post_init__(self) -> None:
        self.keeping = Keeping(
            self.database, self.seat.client, self.clock, defaults=RoomsConfig(), spoken=lambda: self.spoken.append(None)
        )

    def clock(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=self.hours)

    @property
    def room_id(self) -> str:
        return self.pair.room_id or ""

    @property
    def ana(self) -> str:
        return self.pair.supervisor.matrix_id or ""

    @property
    def bruno(self) -> str:
        return self.pair.supervisee.matrix_id or ""

    async def look(self) -> Pair:
        """The pair after a look at what has changed, and at its room whatever has."""
        self.keeping.ask(self.pair.id)
        await self.keeping.look()
        async with self.database.transaction() as tx:
            self.pair = await pairs.get(tx, self.pair.id)
        return self.pair

    async def state(self) -> dict[str, Json]:
        events = await self.seat.client.homeserver.ask_list("GET", path("/rooms/{room}/state", room=self.room_id))
        return {event["type"]: event["content"] for event in events if event["type"] != "m.room.member"}

    async def members(self) -> Mapping[str, str]:
        events = await self.seat.client.homeserver.ask_list("GET", path("/rooms/{room}/state", room=self.room_id))
        return {
            event["state_key"]: event["content"]["membership"] for event in events if event["type"] == "m.room.member"
        }

    async def put(self, event_type: str, content: Json) -> None:
        """Change the room's state as the bot itself, as whoever has its token could."""
        place = path("/rooms/{room}/state/{type}/", room=self.room_id, type=event_type)
        await self.seat.client.homeserver.ask("PUT", place, content)

    async def say_news(self) -> Notices:
        """Have something to be told to Ana in the room, and try to."""
        notices = Notices(self.database, self.seat.client, self.clock)
        told = Notice(self.pair.supervisor.id, Channel.MATRIX, "pair.reopened", {"by": None}, pair_id=self.pair.id)
        async with self.database.transaction() as tx:
            await notifications.enqueue(tx, [told], now=self.clock())
        await notices.deliver_due()
        return notices

    async def rows(self, kind: str) -> list[tuple[str, str]]:
        query = select(outbox.c.channel, outbox.c.state).where(outbox.c.kind == kind).order_by(outbox.c.position)
        async with self.database.transaction() as tx:
            return [tuple(row) for row in await tx.execute(query)]

    async def audited(self) -> list[str]:
        query = select(audit_entries.c.action).where(audit_entries.c.action.like("room.%")).order_by(audit_entries.c.id)
        async with self.database.transaction() as tx:
            return list(await tx.scalars(query))


async def keep(database: Database, synapse: Synapse, seat: Seat) -> Kept:
    """Ana and Bruno, a room for them that is as it is to be, and an admin."""
    now = datetime.now(UTC)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, matrix_id=await make_account(synapse))
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, matrix_id=await make_account(synapse))
    await add_person(database, "Eva", ["admin"], now=now)
    async with database.transaction() as tx:
        await bots.register(tx, seat.client.user_id, seat.client.master_key, now=now)
    kept = Kept(database, synapse, seat, await add_pair(database, now=now, supervisor=ana, supervisee=bruno))
    await kept.keeping.look()
    await kept.look()
    await kept.keeping.see_members(kept.room_id, seat.client.members(kept.room_id))
    return kept


@pytest.fixture
async def kept(database: Database, synapse: Synapse, seat: Seat) -> Kept:
    return await keep(database, synapse, seat)


@pytest.fixture
async def far(database: Database, synapse: Synapse, far_seat: Seat) -> Kept:
    """The same behind a proxy."""
    return await keep(database, synapse, far_seat)


async def test_a_room_that_is_as_it_is_to_be_is_left_alone(kept: Kept) -> None:
    before = await kept.state()
    await kept.look()
    assert await kept.state() == before
    assert await kept.audited() == ["room.make"]
    async with kept.database.transaction() as tx:
        [account] = await bots.list_all(tx)
        known = await memberships.of(tx, [kept.pair.id])
    assert (account.pairs, account.faults, account.master_key) == (1, 0, kept.seat.client.master_key)
    assert account.checked_at is not None
    assert [one.membership for one in known.values()] == ["invite", "invite"]


async def test_every_drift_is_mended(kept: Kept) -> None:
    before = await kept.state()
    stranger = await make_account(kept.synapse)
    drifts: dict[str, Json] = {
        "m.room.power_levels": before["m.room.power_levels"] | {"users": {kept.ana: 100}},
        "m.room.encryption": {},
        "m.room.history_visibility": {"history_visibility": "world_readable"},
        "m.room.join_rules": {"join_rule": "public"},
        "m.room.guest_access": {"guest_access": "can_join"},
        "io.element.functional_members": {"service_members": [kept.ana]},
        "m.room.name": {"name": "Supervisão de Bruno"},
        "m.room.topic": {"topic": "x"},
        "m.room.retention": {"max_lifetime": 86_400_000},
    }
    for kind, content in drifts.items():
        await kept.put(kind, content)
    await kept.seat.client.homeserver.ask(
        "POST", path("/rooms/{room}/invite", room=kept.room_id), {"user_id": stranger}
    )
    pair = await kept.look()
    empty: dict[str, Json] = {"m.room.name": {"name": ""}, "m.room.topic": {"topic": ""}, "m.room.retention": {}}
    assert await kept.state() == before | empty
    assert await kept.members() == {
        kept.seat.client.user_id: "join",
        kept.ana: "invite",
        kept.bruno: "invite",
        stranger: "leave",
    }
    assert pair.fault is None
    await kept.look()
    assert await kept.audited() == ["room.make", "room.mend", "room.stranger"]


async def test_what_is_settled_of_a_pair_reaches_its_room(kept: Kept) -> None:
    async def settle(**values: Any) -> dict[str, Json]:
        async with kept.database.transaction() as tx:
            await tx.execute(update(pairs_table).values(**values))
        await kept.keeping.look()
        return await kept.state()

    now = kept.clock()
    days = 86_400_000
    assert (await settle(retention_days=30, retained_since=now))["m.room.retention"] == {"max_lifetime": 30 * days}
    assert (await settle(held_at=now))["m.room.retention"] == {"max_lifetime": 36_500 * days}
    assert (await settle(held_at=None, retention_days=0))["m.room.retention"] == {}
    closed = await settle(status="archived", archived_at=now)
    assert (closed["m.room.power_levels"]["events_default"], closed["m.room.power_levels"]["events"]) == (
        100,
        dict.fromkeys(closed["m.room.power_levels"]["events"], 100) | {"m.room.tombstone": 150},
    )
    assert (await settle(status="active", archived_at=None))["m.room.power_levels"]["events_default"] == 0


async def test_a_room_is_looked_at_once_an_hour_and_when_something_changed(far: Kept, proxy: Proxy) -> None:
    await far.keeping.look()  # who is invited is known by now

    async def looked() -> int:
        before = proxy.count(f"/rooms/{far.room_id}/state")
        await far.keeping.look()
        return proxy.count(f"/rooms/{far.room_id}/state") - before

    assert await looked() == 0
    far.hours = 0.9
    assert await looked() == 0
    far.hours = 1.1
    assert await looked() == 1
    assert await looked() == 0
    place = f"/directory/list/room/{far.room_id}"
    proxy.forge = lambda asked, answer: {"visibility": "public"} if asked == place else answer
    await far.look()  # it was put into the public directory
    assert [method for method, asked in proxy.asked if asked == place][-2:] == ["GET", "PUT"]


async def test_who_is_disabled_is_put_out(kept: Kept, tmp_path: Path) -> None:
    async with phone(kept.synapse, tmp_path, kept.bruno) as bruno:
        await bruno.join(kept.room_id)
        async with kept.database.transaction() as tx:
            await people.disable(tx, OPERATOR, kept.pair.supervisee.id, now=kept.clock())
        await kept.keeping.look()
        with pytest.raises(RefusedPerson):
            await bruno.send_raw(kept.room_id, "m.room.message", {"msgtype": "m.text", "body": "x"}, encrypted=False)
    assert (await kept.members())[kept.bruno] == "leave"
    assert await kept.rows("room.left") == await kept.rows("room.stranger") == []


async def test_who_left_is_told_of_and_invited_again_when_that_is_wanted(kept: Kept, tmp_path: Path) -> None:
    async with phone(kept.synapse, tmp_path, kept.bruno) as bruno:
        await bruno.join(kept.room_id)
        await bruno.request("POST", f"/rooms/{kept.room_id}/leave", {})
        await kept.seat.wait_for(lambda: kept.seat.client.members(kept.room_id).get(kept.bruno) == "leave")
        await kept.keeping.see_members(kept.room_id, kept.seat.client.members(kept.room_id))
        await kept.look()
        assert (await kept.members())[kept.bruno] == "leave"
        assert await kept.rows("room.left") == [("matrix", "pending"), ("mail", "pending")]
        async with kept.database.transaction() as tx:
            await pairs.invite_again(tx, OPERATOR, kept.pair.id, kept.pair.supervisee.id, now=kept.clock())
        await kept.keeping.look()
        assert (await kept.members())[kept.bruno] == "invite"


async def test_a_room_that_the_bot_is_not_in_any_more_is_gone(kept: Kept) -> None:
    await kept.seat.client.leave(kept.room_id)
    for _ in range(2):
        assert (await kept.look()).fault is Fault.GONE
    await kept.say_news()
    assert await kept.rows("pair.reopened") == [("matrix", "waiting")]
    assert await kept.rows("room.fault") == [("mail", "pending")] * 3
    kept.hours = 25
    await kept.keeping.look()
    assert await kept.rows("room.fault") == [("mail", "pending")] * 6


async def test_a_new_room_in_place_of_one_that_is_gone(kept: Kept, tmp_path: Path) -> None:
    async with phone(kept.synapse, tmp_path, kept.ana) as ana:
        await ana.join(kept.room_id)
        gone = kept.room_id
        await kept.seat.client.leave(gone)
        assert (await kept.look()).fault is Fault.GONE
        notices = await kept.say_news()
        async with kept.database.transaction() as tx:
            apart = await renewals.renew_room(tx, OPERATOR, kept.pair.id, now=kept.clock())
            token = (await pairs.get(tx, kept.pair.id)).room_token
        stopped = stops()
        plan = Plan(str(token), frozenset({kept.ana, kept.bruno}), federate=False)
        made = await create_room(kept.seat.client, plan)  # and before that was noted the process died
        assert (await kept.look()).room_id == made != gone
        assert kept.pair.fault is None
        assert (await kept.members())[kept.ana] == (await kept.members())[kept.bruno] == "invite"
        mark = ana.mark()
        await ana.join(made)
        await kept.seat.wait_for(lambda: kept.seat.client.can_read(made, kept.ana))
        await greet(kept.database, kept.seat.client, made, kept.clock)
        await notices.deliver_due()
        bot = kept.seat.client.user_id
        said = await ana.next_message(bot, lambda one: "não podia lhe escrever" in one.body, since=mark)
        assert (said.room_id, said.encrypted) == (made, True)
    kept.hours = 25
    await kept.keeping.look()
    async with kept.database.transaction() as tx:
        old = await pairs.get(tx, apart)
        assert (old.room_id, old.status, old.fault) == (gone, PairStatus.ARCHIVED, Fault.GONE)
        assert (await pairs.get(tx, kept.pair.id)).fault is None
    assert await kept.rows("room.fault") == [("mail", "pending")] * 3
    assert stops() == stopped  # or each hour would look like another room's end


def stops() -> float | None:
    return REGISTRY.get_sample_value("visavis_rooms_checked_total", {"outcome": "stopped"})


@pytest.mark.parametrize(
    ("drift", "refused", "fault"),
    [
        ("encryption", "/state/m.room.encryption/", Fault.NOT_ENCRYPTED),
        ("stranger", "/kick", Fault.STRANGER),
        ("name", "/state/m.room.name/", Fault.REFUSED),
    ],
)
async def test_what_cannot_be_mended_silences_the_room_until_it_is(
    far: Kept, proxy: Proxy, tmp_path: Path, drift: str, refused: str, fault: Fault
) -> None:
    async with phone(far.synapse, tmp_path, far.ana) as ana:
        await ana.join(far.room_id)
        client = far.seat.client
        await far.seat.wait_for(lambda: client.can_read(far.room_id, far.ana))
        if drift == "stranger":
            stranger = {"user_id": await make_account(far.synapse)}
            await client.homeserver.ask("POST", path("/rooms/{room}/invite", room=far.room_id), stranger)
        else:
            await far.put(f"m.room.{drift}", {"name": "x"} if drift == "name" else {})
        proxy.refuse = lambda _, place: (403, {"errcode": "M_FORBIDDEN"}) if place.endswith(refused) else None
        assert (await far.look()).fault is fault
        spoken, mark = len(far.spoken), ana.mark()
        notices = await far.say_news()
        assert await far.rows("pair.reopened") == [("matrix", "waiting")]
        proxy.refuse = lambda *_: None
        assert (await far.look()).fault is None
        assert len(far.spoken) == spoken + 1
        await notices.deliver_due()
        said = await ana.next_message(client.user_id, lambda one: "não podia lhe escrever" in one.body, since=mark)
        assert said.encrypted


async def test_what_waited_to_be_announced_is_announced_anew(kept: Kept, tmp_path: Path) -> None:
    """The summary that replaces what waited says how the bookings stand, and nothing of what is to be removed."""
    now, days = kept.clock(), RoomsConfig(retention_days=30)
    announced = Announcement(now + timedelta(days=3), now - timedelta(days=27), 30)
    async with kept.database.transaction() as tx:
        await retention.announce(tx, kept.pair, announced, now=now)
    await Notices(kept.database, kept.seat.client, kept.clock).deliver_due()
    assert await kept.rows("retention.announced") == [("matrix", "waiting")] * 2
    async with phone(kept.synapse, tmp_path, kept.ana) as ana:
        await ana.join(kept.room_id)
        await kept.seat.wait_for(lambda: kept.seat.client.can_read(kept.room_id, kept.ana))
        await greet(kept.database, kept.seat.client, kept.room_id, kept.clock)
    assert sorted(await kept.rows("retention.announced")) == [("matrix", "superseded"), ("matrix", "waiting")]
    async with kept.database.transaction() as tx:
        standing = await retention.standing_of(tx, kept.pair, days, now=now + timedelta(days=20))
    assert (standing.announced, standing.allowed) == (None, None)


async def test_a_room_that_fails_keeps_the_others_waiting_for_a_moment_only(far: Kept, proxy: Proxy) -> None:
    """A homeserver that is away is no fault of a room."""
    account = await make_account(far.synapse)
    bruna = await add_person(far.database, "Bruna", ["supervisee"], now=far.clock(), matrix_id=account)
    other = await add_pair(far.database, now=far.clock(), supervisor=far.pair.supervisor, supervisee=bruna)
    proxy.refuse = lambda _, place: (502, {}) if far.room_id in place else None
    far.keeping.ask(far.pair.id)
    with pytest.raises(Transient, match="http_502"):
        await far.keeping.look()
    await far.keeping.look()
    async with far.database.transaction() as tx:
        other = await pairs.get(tx, other.id)
    assert proxy.count(f"/rooms/{other.room_id}/state") == 1
    proxy.refuse = lambda *_: None
    assert (await far.look()).fault is None
    nonsense: Json = []  # type: ignore[assignment]  # a room without a single event of state
    proxy.refuse = lambda _, place: (200, nonsense) if far.room_id in place else None
    assert (await far.look()).fault is None  # and nothing is raised
    proxy.refuse = lambda *_: None


@dataclass
class Three:
    """Two rooms besides the one that is kept anyway; the proxy fails over those in `broken`."""

    rooms: list[str]
    pairs: list[Pair]
    broken: set[str] = field(default_factory=set)


@pytest.fixture
async def three(far: Kept, proxy: Proxy) -> Three:
    everybody = [far.pair]
    for name in ("Bruna", "Caio"):
        account = await make_account(far.synapse)
        supervisee = await add_person(far.database, name, ["supervisee"], now=far.clock(), matrix_id=account)
        pair = await add_pair(far.database, now=far.clock(), supervisor=far.pair.supervisor, supervisee=supervisee)
        everybody.append(pair)
    await far.keeping.look()
    await far.keeping.look()
    async with far.database.transaction() as tx:
        everybody = [await pairs.get(tx, one.id) for one in everybody]
    found = Three([one.room_id or "" for one in everybody], everybody)
    proxy.refuse = lambda _, place: (500, {}) if any(room in place for room in found.broken) else None
    return found


async def test_rooms_that_fail_for_ever_hold_up_no_other(far: Kept, three: Three, proxy: Proxy) -> None:
    """As many of them as are looked at side by side; nothing else was done while those were tried again and again."""
    three.broken = set(three.rooms[:2])
    for one in three.pairs:
        far.keeping.ask(one.id)
    before = len(proxy.asked)
    with pytest.raises(Transient, match="http_500"):
        await far.keeping.look()
    looked = [place for _, place in proxy.asked[before:] if place.endswith("/state")]
    assert sorted(looked) == sorted(f"/rooms/{room}/state" for room in three.rooms)
    await far.keeping.look()  # they are left alone for a moment
    assert [place for _, place in proxy.asked[before:] if place.endswith("/state")] == looked


async def tried(kept: Kept, hours: list[float]) -> list[Fault | None]:
    """Have its room looked at at these times; what the fault was after each."""
    faults = []
    for kept.hours in hours:
        kept.keeping.ask(kept.pair.id)
        with pytest.raises(Transient, match="http_500"):
            await kept.keeping.look()
        async with kept.database.transaction() as tx:
            faults.append((await pairs.get(tx, kept.pair.id)).fault)
    return faults


async def test_a_room_that_fails_for_an_hour_is_told_of_and_can_be_replaced(far: Kept, three: Three) -> None:
    """Synapse answers 500 for ever where what it keeps of a room is broken."""
    three.broken = {far.room_id}
    assert await tried(far, [0, 0.1, 0.2, 0.4, 0.7, 0.9]) == [None] * 6
    assert (await tried(far, [1.1, 1.2]))[-1] is Fault.REFUSED  # the others were looked at, too, and are well
    assert await far.rows("room.fault") == [("mail", "pending")] * 3
    assert await tried(far, [25.5]) == [Fault.REFUSED]
    assert await far.rows("room.fault") == [("mail", "pending")] * 6
    three.broken = set()
    assert (await far.look()).fault is None
    three.broken = {far.room_id}
    assert await tried(far, [25.6]) == [None]
    assert await tried(far, [27, 27.1]) == [None] * 2  # it is not asked often enough to say so


async def test_a_new_room_in_place_of_one_that_fails(far: Kept, three: Three) -> None:
    """The old one goes on failing, and holds up nothing; the new one is not put off as it was."""
    three.broken = {far.room_id}
    await tried(far, [0, 0.1, 0.2, 0.4, 0.7, 0.9, 1.1, 1.2])
    async with far.database.transaction() as tx:
        apart = await renewals.renew_room(tx, OPERATOR, far.pair.id, now=far.clock())
    with pytest.raises(Transient, match="http_500"):  # of the pair that keeps the old room
        await far.keeping.look()
    async with far.database.transaction() as tx:
        pair, old = await pairs.get(tx, far.pair.id), await pairs.get(tx, apart)
    assert (pair.room_id not in (None, three.rooms[0]), pair.fault) == (True, None)
    assert (old.room_id, old.status, old.fault) == (three.rooms[0], PairStatus.ARCHIVED, Fault.REFUSED)


async def test_a_homeserver_that_fails_everywhere_is_no_fault_of_a_room(far: Kept, three: Three, proxy: Proxy) -> None:
    three.broken = set(three.rooms)
    for hours in range(8):
        far.hours = hours * 0.3
        for one in three.pairs:
            far.keeping.ask(one.id)
        with pytest.raises(Transient, match="http_500"):
            await far.keeping.look()
    proxy.refuse = lambda _, place: (500, {}) if far.room_id in place or place == "/account/whoami" else None
    assert await tried(far, [4, 4.2, 4.4, 4.6, 4.8, 5, 5.2, 5.4]) == [None] * 8
    async with far.database.transaction() as tx:
        assert [(await pairs.get(tx, one.id)).fault for one in three.pairs] == [None] * 3


async def test_a_clock_that_is_set_back_puts_nothing_off(far: Kept, proxy: Proxy) -> None:
    """By an hour: what was to wait for seconds waited for that hour, and each room's look for two."""
    place = f"/rooms/{far.room_id}/state"
    await far.keeping.look()
    proxy.refuse = lambda _, asked: (502, {}) if asked == place else None
    far.keeping.ask(far.pair.id)
    with pytest.raises(Transient, match="http_502"):
        await far.keeping.look()
    proxy.refuse = lambda *_: None
    looked = proxy.count(place)
    far.hours = -1
    await far.keeping.look()
    assert proxy.count(place) == looked + 1
    await far.keeping.look()
    far.hours = 0.05
    await far.keeping.look()
    assert proxy.count(place) == looked + 2


async def test_somebody_s_homeserver_that_is_away_is_no_fault_of_a_room(far: Kept, three: Three, proxy: Proxy) -> None:
    """Ours fails over an invitation then."""
    await far.seat.client.homeserver.ask("POST", path("/rooms/{room}/kick", room=far.room_id), {"user_id": far.bruno})
    await far.seat.wait_for(lambda: far.seat.client.members(far.room_id).get(far.bruno) == "leave")
    await far.keeping.see_members(far.room_id, far.seat.client.members(far.room_id))
    async with far.database.transaction() as tx:
        await pairs.invite_again(tx, OPERATOR, far.pair.id, far.pair.supervisee.id, now=far.clock())
    proxy.refuse = lambda _, place: (500, {}) if place == f"/rooms/{far.room_id}/invite" else None
    assert await tried(far, [0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.1, 1.2, 1.4]) == [None] * 9


async def test_a_proxy_that_refuses_a_new_room_is_no_fault(far: Kept, proxy: Proxy) -> None:
    """Admins were shown that the homeserver refuses to make it."""
    account = await make_account(far.synapse)
    bruna = await add_person(far.database, "Bruna", ["supervisee"], now=far.clock(), matrix_id=account)
    other = await add_pair(far.database, now=far.clock(), supervisor=far.pair.supervisor, supervisee=bruna)
    proxy.refuse = lambda _, place: (400, {}) if place == "/createRoom" else None
    with pytest.raises(Transient, match="http_400"):
        await far.keeping.look()
    async with far.database.transaction() as tx:
        assert (await pairs.get(tx, other.id)).fault is None


async def test_a_room_that_cannot_be_made_for_an_hour_is_shown_too(far: Kept, proxy: Proxy) -> None:
    account = await make_account(far.synapse)
    bruna = await add_person(far.database, "Bruna", ["supervisee"], now=far.clock(), matrix_id=account)
    other = await add_pair(far.database, now=far.clock(), supervisor=far.pair.supervisor, supervisee=bruna)
    proxy.refuse = lambda _, place: (500, {}) if place == "/createRoom" else None
    faults = []
    for far.hours in (0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.1):
        with pytest.raises(Transient, match="http_500"):
            await far.keeping.look()
        await far.keeping.look()  # nobody waits for it
        async with far.database.transaction() as tx:
            faults.append((await pairs.get(tx, other.id)).fault)
    assert faults == [*[None] * 6, Fault.REFUSED]
    proxy.refuse = lambda *_: None
    far.hours = 2.2
    await far.keeping.look()
    await far.keeping.look()
    async with far.database.transaction() as tx:
        other = await pairs.get(tx, other.id)
    assert (other.fault, other.room_id is not None) == (None, True)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_a_proxy_says_is_no_fault_of_a_room(far: Kept, proxy: Proxy, status: int) -> None:
    """Or all rooms would be gone, and everybody be mailed so, while something else answers for the homeserver."""
    proxy.refuse = lambda _, place: (status, {}) if far.room_id in place else None
    far.keeping.ask(far.pair.id)
    with pytest.raises(Transient, match=f"http_{status}"):
        await far.keeping.look()
    proxy.refuse = lambda *_: None
    async with far.database.transaction() as tx:
        assert (await pairs.get(tx, far.pair.id)).fault is None


async def test_what_was_asked_for_waits_for_no_hourly_round(far: Kept, proxy: Proxy) -> None:
    """The pair here was added first, and the others' hour has come, too."""
    account = await make_account(far.synapse)
    everybody = [far.pair]
    for name in ["Bruna", "Caio", "Davi", "Elis", "Fábio"]:
        supervisee = await add_person(far.database, name, ["supervisee"], now=far.clock(), matrix_id=account)
        account = await make_account(far.synapse)
        everybody.append(
            await add_pair(far.database, now=far.clock(), supervisor=far.pair.supervisor, supervisee=supervisee)
        )
    await far.keeping.look()
    while far.keeping.is_behind:
        await far.keeping.look()
    far.hours, before = 1.1, len(proxy.asked)
    far.keeping.ask(everybody[-1].id)
    await far.keeping.look()
    looked = {place.split("/")[2] for _, place in proxy.asked[before:] if place.endswith("/state")}
    async with far.database.transaction() as tx:
        rooms = [(await pairs.get(tx, pair.id)).room_id for pair in everybody]
    assert looked == {*rooms[:A_FEW], rooms[-1]}
    await far.keeping.look()
    assert not far.keeping.is_behind


async def test_another_identity_of_the_bot_s_is_replaced(kept: Kept) -> None:
    """Whoever has the bot's token can publish one; people's clients would believe this device no more."""
    client = kept.seat.client
    theirs = Seeds.generate()
    await client.homeserver.ask("POST", "/keys/device_signing/upload", theirs.upload(client.user_id))
    kept.hours = 1.1
    await kept.keeping.look()
    answer = await client.homeserver.ask("POST", "/keys/query", {"device_keys": {client.user_id: []}})
    shown = read_keys(answer, client.user_id)
    async with kept.database.transaction() as tx:
        [account] = await bots.list_all(tx)
    assert shown.master_key == client.master_key == account.master_key != theirs.public_key("master")
    assert [device.signed for device in shown.devices] == [True]


async def test_a_pair_s_room_waits_until_both_have_an_account(kept: Kept) -> None:
    now = kept.clock()
    async with kept.database.transaction() as tx:
        clara = await people.add(
            tx,
            OPERATOR,
            name="Clara",
            email=f"{secrets.token_hex(4)}@example.org",
            matrix_id=None,
            language="en",
            time_zone="UTC",
            roles=["supervisee"],
            now=now,
        )
        waiting = await pairs.add(tx, OPERATOR, kept.pair.supervisor, clara, now=now)
    await kept.keeping.look()
    account = await make_account(kept.synapse)
    async with kept.database.transaction() as tx:
        assert (await pairs.get(tx, waiting.id)).room_id is None
        await tx.execute(people_table.update().where(people_table.c.id == clara.id).values(matrix_id=account))
    await kept.keeping.look()
    async with kept.database.transaction() as tx:
        assert (await pairs.get(tx, waiting.id)).room_id is not None


async def test_a_room_that_cannot_be_made_is_shown_until_it_is(
    database: Database, synapse: Synapse, seat: Seat
) -> None:
    now = datetime.now(UTC)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, matrix_id=await make_account(synapse))
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, matrix_id="@nobody:elsewhere.example")
    async with database.transaction() as tx:
        await bots.register(tx, seat.client.user_id, seat.client.master_key, now=now)
    kept = Kept(database, synapse, seat, await add_pair(database, now=now, supervisor=ana, supervisee=bruno))
    for _ in range(2):
        assert (await kept.look()).fault is Fault.REFUSED
        assert kept.pair.room_id is None
    assert await kept.audited() == ["room.make"]
    assert await kept.rows("room.fault") == []
    await kept.say_news()
    assert await kept.rows("pair.reopened") == [("matrix", "waiting")]
    async with database.transaction() as tx:
        change = update(people_table).where(people_table.c.id == bruno.id)
        await tx.execute(change.values(matrix_id=await make_account(synapse)))
    for _ in range(2):
        await kept.keeping.look()
    assert (await kept.look()).fault is None
    assert kept.pair.room_id is not None
    assert await kept.audited() == ["room.make", "room.make", "room.recover"]

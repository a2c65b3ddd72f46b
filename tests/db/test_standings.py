"""Which rooms stand as they were left: exactly those in which nothing is to be noted and nothing to be said."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from supervision import memberships, notifications, pairs, standings
from supervision.db import Database, Transaction
from supervision.models import Channel, Fault, State
from supervision.models import notifications as outbox
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.standings import Sighting
from tests.support.sample import add_pair

BOT, ROOM = "@visavis:example.org", "!room:example.org"
Change = Callable[[Transaction, Pair, datetime], Awaitable[object]]


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    """Both have joined, can read, and were introduced to."""
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.set_room(tx, pair.id, ROOM)
        pair = await pairs.get(tx, pair.id)
        await memberships.note(tx, pair, members_of(pair), readers_of(pair), now=now)
        for person in pair.people:
            await pairs.set_introduced(tx, pair, person, now=now)
        return await pairs.get(tx, pair.id)


def readers_of(pair: Pair) -> list[str]:
    return [person.matrix_id or "" for person in pair.people]


def members_of(pair: Pair) -> dict[str, str]:
    return dict.fromkeys([BOT, *readers_of(pair)], "join")


def seen_in(pair: Pair) -> Sighting:
    return Sighting(members_of(pair), readers_of(pair), ())


async def settled(database: Database, sighting: Sighting) -> bool:
    async with database.transaction() as tx:
        return await standings.settled(tx, BOT, {ROOM: sighting, "!other:example.org": sighting}) == {ROOM}


async def test_a_room_that_stands_as_it_was_left(database: Database, pair: Pair) -> None:
    assert await settled(database, seen_in(pair))


async def test_devices_that_are_not_known_yet_change_nothing(database: Database, pair: Pair) -> None:
    ana, bruno = readers_of(pair)
    assert await settled(database, replace(seen_in(pair), readers=[ana], unsure=[bruno]))
    assert not await settled(database, replace(seen_in(pair), readers=[ana]))


@pytest.mark.parametrize(
    "others",
    [{"@stranger:example.org": "join"}, {"@stranger:example.org": "invite"}, {BOT: "leave"}],
    ids=["stranger", "invited stranger", "bot gone"],
)
async def test_other_members(database: Database, pair: Pair, others: dict[str, str]) -> None:
    assert not await settled(database, replace(seen_in(pair), members=members_of(pair) | others))


async def test_a_stranger_who_has_gone_is_none(database: Database, pair: Pair) -> None:
    members = members_of(pair) | {"@stranger:example.org": "leave"}
    assert await settled(database, replace(seen_in(pair), members=members))


async def test_somebody_who_has_left_or_is_missing(database: Database, pair: Pair) -> None:
    ana, bruno = readers_of(pair)
    members = members_of(pair) | {bruno: "leave"}
    assert not await settled(database, Sighting(members, [ana], ()))
    del members[bruno]
    assert not await settled(database, Sighting(members, [ana], ()))


async def wait_for_device(tx: Transaction, pair: Pair, now: datetime) -> None:
    await put_notice(tx, pair, now, state=State.WAITING)


async def wait_for_stranger(tx: Transaction, pair: Pair, now: datetime) -> None:
    await put_notice(tx, pair, now, error="stranger_in_room")


async def put_notice(tx: Transaction, pair: Pair, now: datetime, **values: str) -> None:
    notice = Notice(pair.supervisee.id, Channel.MATRIX, "room.summary", pair_id=pair.id)
    await notifications.enqueue(tx, [notice], now=now)
    await tx.execute(update(outbox).where(outbox.c.pair_id == pair.id).values(**values))


async def forget_introduction(tx: Transaction, pair: Pair, now: datetime) -> None:
    await pairs.unset_introduced(tx, pair, [pair.supervisee.id])


async def forget_membership(tx: Transaction, pair: Pair, now: datetime) -> None:
    members = {BOT: "join", (pair.supervisor.matrix_id or ""): "join"}
    await memberships.note(tx, pair, members, list(members), now=now + timedelta(hours=1))


@pytest.mark.parametrize("change", [wait_for_device, wait_for_stranger, forget_introduction, forget_membership])
async def test_something_is_to_be_noted_or_said(database: Database, now: datetime, pair: Pair, change: Change) -> None:
    async with database.transaction() as tx:
        await change(tx, pair, now)
    assert not await settled(database, seen_in(pair))


async def test_nothing_is_said_in_a_room_with_a_fault(database: Database, now: datetime, pair: Pair) -> None:
    async with database.transaction() as tx:
        await forget_introduction(tx, pair, now)
        await pairs.set_fault(tx, pair, next(iter(Fault)), now=now)
    assert await settled(database, seen_in(pair))

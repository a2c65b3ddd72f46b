"""Calendar addresses: given, renewed and taken away; and what stands in them."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update

from supervision import appointments, feeds, people, seals
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.calendars import Item
from supervision.db import Database
from supervision.models import Status, audit_entries
from supervision.models import appointments as table
from supervision.models import feeds as feeds_table
from supervision.people import Person
from tests.support.sample import acts, add_pair, add_person

SECRET = "a secret of the tests, and of them alone"
Step = Callable[..., Awaitable[None]]


async def take(database: Database, step: Step, person: Person, now: datetime) -> str | None:
    async with database.transaction() as tx:
        await step(tx, acts(person), person.id, now=now)
        return await feeds.token(tx, SECRET, person.id)


async def owner(database: Database, token: str, secret: str = SECRET) -> Person | None:
    async with database.transaction() as tx:
        return await feeds.find(tx, secret, token)


async def audited(database: Database) -> list[tuple[str, str | None, uuid.UUID | None]]:
    async with database.transaction() as tx:
        entries = audit_entries.c
        rows = await tx.execute(
            select(entries.action, entries.resource_id, entries.actor_id)
            .where(entries.action.like("feed.%"))
            .order_by(entries.id)
        )
        return [(row.action, row.resource_id, row.actor_id) for row in rows]


async def test_an_address_is_given_renewed_and_taken_away(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with database.transaction() as tx:
        assert await feeds.token(tx, SECRET, ana.id) is None
    first = await take(database, feeds.open, ana, now)
    assert first is not None
    assert await owner(database, first) == ana
    assert await take(database, feeds.open, ana, now) == first
    second = await take(database, feeds.renew, ana, now)
    assert second is not None
    assert (second != first, await owner(database, first), await owner(database, second)) == (True, None, ana)
    assert await take(database, feeds.close, ana, now) is None
    assert await owner(database, second) is None
    assert await take(database, feeds.close, ana, now) is None
    third = await take(database, feeds.renew, ana, now)
    assert third not in (None, first, second)
    assert await audited(database) == [
        (f"feed.{action}", str(ana.id), ana.id) for action in ("open", "renew", "close", "renew")
    ]


async def test_nothing_else_opens_a_feed(database: Database, now: datetime) -> None:
    ana, bruno = [await add_person(database, name, ["supervisor"], now=now) for name in ("Ana", "Bruno")]
    token = await take(database, feeds.open, ana, now)
    other = await take(database, feeds.open, bruno, now)
    assert token is not None
    assert other is not None
    async with database.transaction() as tx:
        nonce = await tx.scalar(select(feeds_table.c.nonce).where(feeds_table.c.person_id == ana.id))
    assert nonce is not None
    for guess in (
        "",
        ana.id.hex,
        token[:-1],
        token + "0",
        token.upper(),
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        bruno.id.hex + token[32:],
        ana.id.hex + nonce.hex + "0" * 8,
        seals.feed_token(SECRET, uuid.uuid4(), nonce),
        seals.feed_token(SECRET, ana.id, uuid.UUID(int=0)),
        seals.feed_token("another secret that nobody configured", ana.id, nonce),
        "é" * 72,
    ):
        assert await owner(database, guess) is None, guess
    assert await owner(database, token, "another secret that nobody configured") is None
    assert await owner(database, seals.feed_token(SECRET, feeds.NOBODY, feeds.NOBODY)) is None


async def test_who_is_disabled_has_no_feed(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    token = await take(database, feeds.open, ana, now)
    assert token is not None
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, ana.id, now=now)
    assert await owner(database, token) is None


async def items(database: Database, person: Person, now: datetime) -> list[Item]:
    async with database.transaction() as tx:
        return await feeds.items(tx, person.id, now=now)


async def test_all_that_stands_is_shown_to_both(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    elsewhere = await add_pair(database, now=now)
    ana, bruno = acts(pair.supervisor), acts(pair.supervisee)
    ten = datetime.fromisoformat("2026-11-24T13:00:00Z")
    booked: list[Appointment] = []
    async with database.transaction() as tx:
        for day in range(4):
            booked.append(await appointments.book(tx, bruno, pair, ten + timedelta(days=day), now=now))
        confirmed = await appointments.confirm(tx, ana, booked[1].id, now=now)
        await appointments.decline(tx, ana, booked[2].id, now=now)
        await appointments.cancel(tx, bruno, booked[3].id, now=now)
        await appointments.book(tx, acts(elsewhere.supervisee), elsewhere, ten, now=now)
    for person, name in ((pair.supervisor, None), (pair.supervisee, "Ana")):
        assert await items(database, person, now) == [Item(booked[0], name, now), Item(confirmed, name, now)]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.NO_SHOW, Status.CONFIRMED])
async def test_the_past_is_shown_for_90_days(database: Database, now: datetime, status: Status) -> None:
    pair = await add_pair(database, now=now)
    ten = datetime.fromisoformat("2026-11-24T13:00:00Z")
    async with database.transaction() as tx:
        one = await appointments.book(tx, acts(pair.supervisor), pair, ten, now=now)
        await tx.execute(update(table).values(status=status))
    last = one.ends_at + timedelta(days=90)
    shown = [
        [item.appointment.id for item in await items(database, pair.supervisor, at)]
        for at in (now, last - timedelta(seconds=1), last)
    ]
    assert shown == [[one.id], [one.id], []]

"""Another address of a person's own: a typed code, and the old address told."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from supervision import addresses, people, seals, sign_ins
from supervision.audit import SYSTEM
from supervision.db import Database, Transaction
from supervision.errors import NotUnderstood, TooMany
from supervision.models import audit_entries, notifications
from supervision.models import sign_ins as sign_ins_table
from supervision.people import Person
from tests.support.sample import acts, add_person

SECRET = "a secret of the tests, and of them alone"
NEW = "bruno@elsewhere.example"


async def code(tx: Transaction, person: Person, now: datetime) -> str:
    waiting = await addresses.of(tx, person.id, now=now)
    assert waiting is not None
    return seals.address_code(SECRET, person.id, waiting.nonce)


async def told(tx: Transaction) -> list[tuple[str, str]]:
    """Kind and address of each mail."""
    rows = await tx.execute(select(notifications.c.kind, notifications.c.details).order_by(notifications.c.kind))
    return [(kind, details["address"]) for kind, details in rows if kind.startswith("address.")]


async def test_the_code_takes_the_new_address_over(database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await sign_ins.ask(tx, acts(bruno), bruno.email, "a browser", now=now)
        await addresses.ask(tx, acts(bruno), bruno, f" {NEW} ", now=now)
        right = await code(tx, bruno, now)
        assert await addresses.confirm(tx, SECRET, acts(bruno), bruno, f"{right[:4]} {right[4:]}", now=now)
        assert (await people.get(tx, bruno.id)).email == NEW
        assert await told(tx) == [("address.changed", bruno.email), ("address.check", NEW)]
        assert await addresses.of(tx, bruno.id, now=now) is None
        assert list(await tx.scalars(select(sign_ins_table.c.expires_at))) == [now]  # a link in the old mailbox
        actions = await tx.scalars(
            select(audit_entries.c.action).where(audit_entries.c.actor_id == bruno.id).order_by(audit_entries.c.id)
        )
        assert list(actions) == ["sign_in.ask", "address.ask", "person.set_email"]


async def test_five_wrong_codes_end_it(database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await addresses.ask(tx, acts(bruno), bruno, NEW, now=now)
        right = await code(tx, bruno, now)
        wrong = "00000000" if right != "00000000" else "00000001"
        for typed in (wrong, "", "x", wrong, wrong):
            assert not await addresses.confirm(tx, SECRET, acts(bruno), bruno, typed, now=now)
        with pytest.raises(NotUnderstood) as refused:
            await addresses.confirm(tx, SECRET, acts(bruno), bruno, right, now=now)
        assert refused.value.key == "refused.no_address_change"
        assert (await people.get(tx, bruno.id)).email == bruno.email


async def test_a_code_counts_for_half_an_hour(database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await addresses.ask(tx, acts(bruno), bruno, NEW, now=now)
        right, late = await code(tx, bruno, now), now + timedelta(minutes=30)
        with pytest.raises(NotUnderstood):
            await addresses.confirm(tx, SECRET, acts(bruno), bruno, right, now=late)
        await addresses.forget_old(tx, now=late)
        with pytest.raises(NotUnderstood):
            await addresses.confirm(tx, SECRET, acts(bruno), bruno, right, now=now)


async def test_nobody_learns_whose_an_address_is_without_reading_its_mail(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await addresses.ask(tx, acts(bruno), bruno, ana.email, now=now)
        right = await code(tx, bruno, now)
    with pytest.raises(NotUnderstood) as refused:
        async with database.transaction() as tx:
            await addresses.confirm(tx, SECRET, acts(bruno), bruno, right, now=now)
    assert refused.value.key == "refused.person_exists"


async def test_what_is_no_new_address_is_refused_and_six_in_an_hour_too(database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        for email, key in (("no address", "refused.email"), (bruno.email, "refused.same_address")):
            with pytest.raises(NotUnderstood) as refused:
                await addresses.ask(tx, acts(bruno), bruno, email, now=now)
            assert refused.value.key == key
        for number in range(5):
            await addresses.ask(tx, acts(bruno), bruno, f"{number}@example.org", now=now)
        with pytest.raises(TooMany):
            await addresses.ask(tx, acts(bruno), bruno, NEW, now=now + timedelta(minutes=59))
        await addresses.ask(tx, acts(bruno), bruno, NEW, now=now + timedelta(minutes=61))


async def test_it_can_be_left_as_it_is(database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await addresses.ask(tx, acts(bruno), bruno, NEW, now=now)
        await addresses.forget(tx, acts(bruno), bruno.id, now=now)
        assert await addresses.of(tx, bruno.id, now=now) is None


async def test_an_address_corrected_for_somebody_ends_what_the_old_mailbox_opens(
    database: Database, now: datetime
) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await sign_ins.ask(tx, acts(bruno), bruno.email, "a browser", now=now)
        await addresses.ask(tx, acts(bruno), bruno, "stranger@elsewhere.example", now=now)
        await people.set_email(tx, SYSTEM, bruno.id, NEW, now=now)
        assert list(await tx.scalars(select(sign_ins_table.c.expires_at))) == [now]
        assert await addresses.of(tx, bruno.id, now=now) is None

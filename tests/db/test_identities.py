"""Which identity of an account is believed, and who hears when it changes."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from supervision import identities, queries
from supervision.db import Database
from supervision.errors import NotFound, Stale
from supervision.models import Channel, notifications
from supervision.models import identities as table
from supervision.people import Person
from tests.support.sample import acts, add_person


async def pin(database: Database, person: Person, key: str, now: datetime) -> str | None:
    async with database.transaction() as tx:
        return await identities.pin(tx, person.matrix_id or "", key, now=now)


async def confirm(database: Database, person: Person, key: str, now: datetime) -> None:
    async with database.transaction() as tx:
        await identities.confirm(tx, acts(person), person.matrix_id or "", master_key=key, now=now)


async def kept(database: Database, person: Person) -> tuple[str, str | None]:
    """The pinned key and the offered one."""
    async with database.transaction() as tx:
        row = (await tx.execute(select(table).where(table.c.matrix_id == person.matrix_id))).one()
        assert await queries.offered_identity(tx, person.matrix_id or "") == row.offered_key
        return row.master_key, row.offered_key


async def mails(database: Database, person: Person) -> int:
    query = select(func.count()).where(
        notifications.c.person_id == person.id,
        notifications.c.channel == Channel.MAIL,
        notifications.c.kind == "identity.changed",
    )
    async with database.transaction() as tx:
        return int(await tx.scalar(query) or 0)


async def test_only_the_key_that_was_shown_is_believed(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    for key in ("K1", "K2", "K3"):
        await pin(database, ana, key, now)
    with pytest.raises(Stale):
        await confirm(database, ana, "K2", now)
    assert await kept(database, ana) == ("K1", "K3")
    await confirm(database, ana, "K3", now)
    assert await kept(database, ana) == ("K3", None)
    with pytest.raises(NotFound):
        await confirm(database, ana, "K3", now)


async def test_an_offer_ends_when_the_pinned_key_is_back(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    for key, offered in (("K1", None), ("K2", "K2"), ("K1", None)):
        assert await pin(database, ana, key, now) == "K1"
        assert await kept(database, ana) == ("K1", offered)
    with pytest.raises(NotFound):
        await confirm(database, ana, "K2", now)


async def test_keys_that_alternate_are_told_once_a_day(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    for _ in range(6):
        for key in ("K1", "K2", "K3"):
            await pin(database, ana, key, now)
    assert await mails(database, ana) == 1
    await pin(database, ana, "K2", now + timedelta(hours=23))
    assert await mails(database, ana) == 1
    await pin(database, ana, "K3", now + timedelta(days=1))
    assert await mails(database, ana) == 2


async def test_a_change_after_a_confirmation_is_told_at_once(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await pin(database, ana, "K1", now)
    await pin(database, ana, "K2", now)
    await confirm(database, ana, "K2", now + timedelta(minutes=1))
    await pin(database, ana, "K1", now + timedelta(minutes=2))
    assert await mails(database, ana) == 2

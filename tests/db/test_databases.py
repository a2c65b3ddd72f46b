"""What one test leaves behind no other finds: the databases that the tests are given are as new."""

from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import pytest
from sqlalchemy import select

from embedded.postgresql import PostgreSQL
from supervision.db import Database
from supervision.models import audit_entries, metadata, people
from tests.support.databases import Databases
from tests.support.sample import add_pair


@pytest.fixture
async def own(postgresql: PostgreSQL, template: str) -> AsyncIterator[Databases]:
    """Copies that no other test uses."""
    async with Databases.open(postgresql, template) as databases:
        yield databases


async def test_rows_connections_and_counters_are_gone(own: Databases, postgresql: PostgreSQL, now: datetime) -> None:
    first_entries = []
    for turn in range(3):
        async with own.lend() as name:
            database = Database(postgresql.dsn(name, "visavis_app"))
            async with database.transaction() as tx:
                counts = [len((await tx.execute(select(table))).all()) for table in metadata.tables.values()]
            assert counts == [0] * len(counts)
            await add_pair(database, now=now)
            async with database.transaction() as tx:
                first_entries.append(await tx.scalar(select(audit_entries.c.id).order_by(audit_entries.c.id).limit(1)))
                assert await tx.scalar(select(people.c.name).where(people.c.name == "Ana")) == "Ana"
            straggler = await asyncpg.connect(postgresql.url(name, "visavis_app"))
            await database.close()
        assert [(turns, made.tables) for _, made, turns in own.free] == [(turn + 1, ("alembic_version",))]
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
            await straggler.fetchval("SELECT count(*) FROM people")
    assert first_entries == [1, 1, 1]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE holds DROP CONSTRAINT ex_holds_person_id_during",
        "ALTER TABLE holds DISABLE TRIGGER USER; ALTER TABLE pairs RENAME TO gone",
        "ALTER TABLE journal SET (autovacuum_enabled = false)",
        "CREATE TABLE more ()",
        "DROP TABLE holds",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "REVOKE INSERT ON people FROM visavis_app",
        "UPDATE alembic_version SET version_num = 'another'",
        "DELETE FROM alembic_version",
        "ANALYZE alembic_version",
    ],
)
async def test_a_database_that_was_changed_is_given_no_more(
    own: Databases, postgresql: PostgreSQL, change: str
) -> None:
    async with own.lend() as name:
        owner = await asyncpg.connect(postgresql.url(name, "visavis_owner"))
        await owner.execute(change)
        await owner.close()
    assert own.free == []
    there = "SELECT count(*) FROM pg_database WHERE datname = $1"
    assert await own.superuser.fetchval(there, name) == 0

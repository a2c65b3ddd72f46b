"""The migrations give exactly the declared tables, and the application's role may do no more than it should."""

from datetime import datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

import migrations
from embedded.postgresql import PostgreSQL
from supervision.db import Database
from supervision.errors import DatabaseTooNew, DatabaseTooOld
from supervision.models import metadata
from tests.support.sample import add_pair, add_person
from tests.support.talking import Room


async def test_the_migrations_give_exactly_the_declared_schema(database: Database) -> None:
    def difference(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(difference) == []


async def test_constraints_are_the_declared_ones(postgresql: PostgreSQL, database: Database) -> None:
    """Alembic compares no check and no exclusion constraint, so their names are compared here."""
    async with database.transaction() as tx:
        found = await tx.execute(
            text(
                "SELECT conname FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace"
                " WHERE contype IN ('c', 'x') AND n.nspname = 'public'"
            )
        )
        names = {row.conname for row in found}
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if type(constraint).__name__ in ("CheckConstraint", "ExcludeConstraint")
    }
    assert names == declared


@pytest.mark.parametrize("statement", ["UPDATE audit_entries SET success = true", "DELETE FROM audit_entries"])
async def test_an_audit_entry_cannot_be_changed_by_the_application(database: Database, statement: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied for table audit_entries"):
        async with database.transaction() as tx:
            await tx.execute(text(statement))


async def test_a_newer_database_is_refused_and_left_alone(postgresql: PostgreSQL, database_name: str) -> None:
    owner_url = postgresql.dsn(database_name, "visavis_owner")
    engine = create_async_engine(owner_url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="9999"):
        await migrations.upgrade(owner_url, postgresql.dsn(database_name, "visavis_app"))
    with pytest.raises(DatabaseTooNew, match="9999"):
        await migrations.check(postgresql.dsn(database_name, "visavis_app"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    await engine.dispose()


async def test_an_older_database_is_told_to_migrate(postgresql: PostgreSQL, database_name: str) -> None:
    engine = create_async_engine(postgresql.dsn(database_name, "visavis_owner"))
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM alembic_version"))
    await engine.dispose()
    with pytest.raises(DatabaseTooOld, match="visavis migrate"):
        await migrations.check(postgresql.dsn(database_name, "visavis_app"))


async def test_questions_that_were_put_before_they_had_a_number_keep_their_order(
    postgresql: PostgreSQL, database_name: str, database: Database, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now, language="en")
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    room = Room(database, await add_pair(database, now=now, supervisor=ana, supervisee=bruno), now)
    for day in ("24/11", "25/11", "2/12"):
        await room.hear(f"!book {day} 10:00")
    await room.hear("!appointments november")
    room.now -= timedelta(minutes=1)
    await room.hear("!appointments december")  # asked before the other, as far as the clock is believed
    owner = postgresql.dsn(database_name, "visavis_owner")
    engine = create_async_engine(owner)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE questions DROP COLUMN position"))
        await connection.execute(
            text("CREATE INDEX ix_questions_person_id_pair_id ON questions (person_id, pair_id, kind, asked_at)")
        )
        await connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))
    await engine.dispose()
    await migrations.upgrade(owner, postgresql.dsn(database_name, "visavis_app"))
    assert (await room.hear("!cancel 2"))[0].startswith("Cancelled: Wed 25 Nov")
    await room.hear("!appointments december")
    assert (await room.hear("!cancel 1"))[0].startswith("Cancelled: Wed 2 Dec")

"""Bringing the database to the shape that supervision/models.py declares, by Alembic."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from migrations.revisions import head, known
from supervision.errors import DatabaseTooNew, DatabaseTooOld

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["check", "configuration", "grant", "head", "upgrade"]

LOCK = 7_310_553_211  # one migration at a time, whoever starts it


def configuration(connection: Connection | None = None, app_role: str | None = None) -> "Config":
    """What Alembic is told. It is loaded here: every command starts by `check`, and only `migrate` needs it."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["app_role"] = app_role
    return config


async def upgrade(owner_url: str, app_url: str) -> None:
    """Migrate to the newest revision as the owner, and grant the application's role what it may do.

    Raises DatabaseTooNew, and changes nothing, where a newer Visavis was here before.
    """
    from alembic import command

    app_role = make_url(app_url).username
    engine = create_async_engine(owner_url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            _refuse_newer(await _current(connection))
            await connection.run_sync(lambda sync: command.upgrade(configuration(sync, app_role), "head"))
            if app_role is not None and app_role != make_url(owner_url).username:
                await grant(connection, app_role)
    finally:
        await engine.dispose()


async def grant(connection: AsyncConnection, app_role: str) -> None:
    """The application reads and writes every table, but an audit entry, once written, is beyond it."""
    role = '"' + app_role.replace('"', '""') + '"'
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        f"REVOKE UPDATE, DELETE, TRUNCATE ON audit_entries FROM {role}",
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON alembic_version FROM {role}",
    ):
        await connection.execute(text(statement))


async def check(url: str) -> None:
    """Raise DatabaseTooOld or DatabaseTooNew unless the database is at our newest revision."""
    engine = create_async_engine(url, connect_args={"timeout": 10})
    try:
        async with engine.connect() as connection:
            current = await _current(connection)
    finally:
        await engine.dispose()
    _refuse_newer(current)
    if current != head():
        raise DatabaseTooOld("The database needs migrating first: run visavis migrate.")


async def _current(connection: AsyncConnection) -> str | None:
    """The revision that Alembic noted in the database, if it was there."""
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _refuse_newer(current: str | None) -> None:
    if current is not None and current not in known():
        raise DatabaseTooNew(
            f"The database is at revision {current}, which this version of Visavis does not know."
            " Nothing was changed; start the newer version."
        )

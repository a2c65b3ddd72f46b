"""Databases of our schema, one for each test, at a tenth of what a copy of the template costs.

A copy writes 10 MB. So a database that a test has left is emptied and given to the next under another name. Where a
test changed more than rows, or a row of what the migrations wrote, the database is dropped instead.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from embedded.postgresql import PostgreSQL

TURNS = 40  # how often one is given before it is dropped, since emptying leaves dead rows and their index entries

# PostgreSQL's own tables that say how a database is made.
CATALOGUES = (
    "pg_attrdef", "pg_attribute", "pg_cast", "pg_class", "pg_collation", "pg_constraint", "pg_db_role_setting",
    "pg_default_acl", "pg_enum", "pg_event_trigger", "pg_extension", "pg_index", "pg_inherits", "pg_namespace",
    "pg_policy", "pg_proc", "pg_publication", "pg_rewrite", "pg_sequence", "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
STATISTICS = "pg_statistic WHERE starelid >= 16384"  # of our tables: plans follow them

WRITTEN = """
SELECT relname FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0 ORDER BY relname
"""
RESTART = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence"
END_OTHERS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"


@dataclass(frozen=True)
class Made:
    """How a database was when it was new."""

    tables: tuple[str, ...]  # those with rows of the migrations
    fingerprint: str


@dataclass
class Databases:
    """Gives a database, and takes it back."""

    postgresql: PostgreSQL
    template: str
    superuser: asyncpg.Connection[asyncpg.Record]
    free: list[tuple[str, Made, int]] = field(default_factory=list)  # with how often each has been given

    @classmethod
    @asynccontextmanager
    async def open(cls, postgresql: PostgreSQL, template: str) -> AsyncIterator[Self]:
        superuser = await asyncpg.connect(postgresql.url("postgres", "postgres"))
        try:
            yield cls(postgresql, template, superuser)
        finally:
            await superuser.close()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[str]:
        """The name of a database that has our schema and nothing in it, until the end of the block."""
        name = f"test_{secrets.token_hex(6)}"
        if self.free:
            used, made, turns = self.free.pop()
            await self.superuser.execute(f"ALTER DATABASE {used} RENAME TO {name}")  # the last test's stragglers fail
        else:
            await self.superuser.execute(f"CREATE DATABASE {name} TEMPLATE {self.template} OWNER visavis_owner")
            made, turns = await self._look(name), 0
        try:
            yield name
        finally:
            if turns < TURNS and await self._empty(name, made):
                self.free.append((name, made, turns + 1))
            else:
                await self.superuser.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _look(self, name: str) -> Made:
        async with self._connect(name) as connection:
            tables = tuple(row[0] for row in await connection.fetch(WRITTEN))
            return Made(tables, await fingerprint(connection, tables))

    async def _empty(self, name: str, made: Made) -> bool:
        """Whether it could be made as it was."""
        async with asyncio.timeout(60):
            while await self.superuser.fetchval(END_OTHERS, name):  # noqa: ASYNC110 - PostgreSQL tells nobody
                await asyncio.sleep(0.005)
        async with self._connect(name) as connection:
            if await fingerprint(connection, made.tables) != made.fingerprint:
                return False
            written = [row[0] for row in await connection.fetch(WRITTEN) if row[0] not in made.tables]
            delete = "".join(f"DELETE FROM {table};" for table in written)  # noqa: S608
            # As a replica it asks neither triggers nor foreign keys.
            await connection.execute(f"SET session_replication_role = replica; {delete} {RESTART}")
        return True

    @asynccontextmanager
    async def _connect(self, name: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = await asyncpg.connect(self.postgresql.url(name, "postgres"))
        try:
            yield connection
        finally:
            await connection.close()


async def fingerprint(connection: asyncpg.Connection[asyncpg.Record], tables: tuple[str, ...]) -> str:
    """Changes with whatever is written in the catalogues and in these tables.

    A row that was written since has a later transaction's number (PostgreSQL 18, 5.6, `xmin`), and one that is gone is
    missing from the count. What is updated in place, as the number of a table's pages is, does not show.
    """
    each = " UNION ALL ".join(
        f"SELECT '{table}' AS name, count(*) AS rows, max(xmin::text::bigint) AS latest FROM {table}"  # noqa: S608
        for table in (*CATALOGUES, STATISTICS, *tables)
    )
    query = f"SELECT string_agg(format('%s %s %s', name, rows, latest), ', ' ORDER BY name) FROM ({each})"  # noqa: S608
    return str(await connection.fetchval(query))

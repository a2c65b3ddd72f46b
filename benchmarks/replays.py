"""What Visavis sends to PostgreSQL, noted down and sent again by bare asyncpg.

The bare side gets the very statements, parameters and transactions that our code makes, with nothing to decide:
what our code takes longer is its own work and SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import event, text

from supervision.db import Database


@dataclass(frozen=True)
class Statement:
    """As the driver got it: SQL with `$1`, and its parameters; with `many`, a list of such parameters."""

    sql: str
    parameters: Any
    many: bool


Transaction = list[Statement]


class Recorder:
    """Notes what a database is sent, a list for each transaction."""

    def __init__(self, database: Database) -> None:
        self._transactions: list[Transaction] = []
        engine = database.engine.sync_engine
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "before_cursor_execute", self._note)

    async def record(self, act: Callable[[], Awaitable[object]]) -> list[Transaction]:
        """Carry it out, with nothing beside it, and return what it sent."""
        self._transactions = []
        await act()
        recorded, self._transactions = self._transactions, []
        return recorded

    def _begin(self, _connection: object) -> None:
        self._transactions.append([])

    def _note(self, _connection: object, _cursor: object, sql: str, values: Any, _context: object, many: bool) -> None:
        self._transactions[-1].append(Statement(sql, values, many))


class Bare:
    """One asyncpg connection with the settings of ours, that prepares each statement once."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._prepared: dict[str, Any] = {}

    @classmethod
    async def connect(cls, database: Database) -> Bare:
        async with database.transaction() as tx:
            found = await tx.execute(text("SELECT name, reset_val FROM pg_settings WHERE source = 'client'"))
            settings = {name: value for name, value in found if name != "application_name"}
        return cls(await asyncpg.connect(database.plain_url(), server_settings=settings))

    async def replay(self, transactions: Iterable[Transaction]) -> None:
        """Send the statements again, each transaction within one of ours."""
        for statements in transactions:
            async with self._connection.transaction():
                for statement in statements:
                    prepared = self._prepared.get(statement.sql)
                    if prepared is None:
                        prepared = self._prepared[statement.sql] = await self._connection.prepare(statement.sql)
                    if statement.many:
                        await prepared.executemany(statement.parameters)
                    else:
                        await prepared.fetch(*statement.parameters)

    async def close(self) -> None:
        await self._connection.close()

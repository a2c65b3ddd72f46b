"""What Visavis sends to PostgreSQL, noted down and sent again by bare asyncpg.

The bare side gets the very statements, parameters and transactions that our code makes, with nothing to decide:
what our code takes longer is its own work and SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

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
    """Notes what a database is sent by those of its connections that are made from now on."""

    def __init__(self, database: Database) -> None:
        self._open: Transaction | None = None
        self._committed: list[Transaction] = []
        event.listen(database.engine.sync_engine, "do_connect", self._overhear)

    async def record(self, act: Callable[[], Awaitable[object]]) -> list[Transaction]:
        """Carry it out, with nothing beside it, and return what it sent and committed."""
        self._committed = []
        await act()
        assert self._committed, "nothing was sent by a connection made after this recorder"
        return self._committed

    def note(self, sql: str, parameters: Any, *, many: bool = False) -> None:
        """Take down one statement. What stands in no transaction, or is rolled back, is a new connection's set-up."""
        command = sql.rstrip(";")
        if command == "BEGIN":
            self._open = []
        elif command == "COMMIT":
            self._committed.append(self._open or [])
            self._open = None
        elif command == "ROLLBACK":
            self._open = None
        elif self._open is not None:
            self._open.append(Statement(sql, parameters, many))

    def _overhear(self, _dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        class Overheard(OverheardConnection):
            recorder = self

        options["connection_class"] = Overheard


class OverheardConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Tells a recorder what it is asked for."""

    __slots__ = ()
    recorder: ClassVar[Recorder]

    async def execute(self, query: str, *parameters: Any, **options: Any) -> Any:
        self.recorder.note(query, parameters)
        return await super().execute(query, *parameters, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> Any:
        self.recorder.note(command, list(args), many=True)
        return await super().executemany(command, args, **options)

    async def fetch(self, query: str, *parameters: Any, **options: Any) -> Any:
        self.recorder.note(query, parameters)
        return await super().fetch(query, *parameters, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        return OverheardStatement(await super().prepare(query, **options), query, self.recorder)


class OverheardStatement:
    """A prepared statement that tells it as well."""

    def __init__(self, prepared: Any, sql: str, recorder: Recorder) -> None:
        self._prepared = prepared
        self._sql = sql
        self._recorder = recorder

    async def fetch(self, *parameters: Any, **options: Any) -> Any:
        self._recorder.note(self._sql, parameters)
        return await self._prepared.fetch(*parameters, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prepared, name)


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

"""The connection to PostgreSQL. `Database.transaction()` is the only place that commits."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import asyncpg
import structlog
from sqlalchemy import Dialect, Executable, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from supervision.logs import traces

log = structlog.get_logger()

Transaction = AsyncConnection
Taken = TypeVar("Taken")


# What is raised while PostgreSQL is away or goes away: by raw connections, and by SQLAlchemy's.
DATABASE_AWAY = (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)

# An internal error of the client's is what a connection shows that ended while nobody looked.
FROM_ASYNCPG = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

DIALECT: Dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


class Ready:
    """A statement that is compiled once and sent by asyncpg itself, within the transaction of everything else.

    For what every booking asks: SQLAlchemy's own way costs more than PostgreSQL's answer (docs/performance.md).
    Rows are asyncpg's records, by place or by name; JSON comes decoded.
    """

    def __init__(self, statement: Executable) -> None:
        compiled = statement.compile(dialect=DIALECT)  # type: ignore[attr-defined]  # every executable of ours has it
        self.sql: str = compiled.string
        self.names: tuple[str, ...] = tuple(compiled.positiontup or ())

    async def fetch(self, tx: Transaction, values: Mapping[str, Any]) -> list[Any]:
        """The rows, for the parameters by name; what it has none for is left out. Raises asyncpg's errors."""
        rows: list[Any] = await _driver(tx).fetch(self.sql, *[values[name] for name in self.names])
        return rows


def _driver(connection: AsyncConnection) -> Any:
    """asyncpg's connection below SQLAlchemy's."""
    sync = connection.sync_connection
    return None if sync is None else sync.connection.driver_connection


async def _undo(connection: AsyncConnection, begun: Any) -> None:
    """Roll back, without hiding what went wrong before: a cancellation, for example, stays one.

    A connection on which that fails, or where the cancellation met BEGIN or COMMIT itself, is thrown away, and
    PostgreSQL undoes what was begun on it.
    """
    if connection.invalidated:
        return
    try:
        await begun.rollback()
    except (OSError, *FROM_ASYNCPG):
        await connection.invalidate()


LOCK_PEOPLE = Ready(
    text(
        "SELECT pg_advisory_xact_lock(key) FROM (SELECT unnest(CAST(:keys AS bigint[])) AS key ORDER BY 1) AS ascending"
    )
)


class Database:
    """A pool of connections to one database.

    `url` is a SQLAlchemy URL with the `postgresql+asyncpg` driver. Statements end after 30 s and waits for a
    lock after 5 s, so that nothing hangs unseen.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = url
        self.engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            isolation_level="AUTOCOMMIT",  # `transaction` begins and commits
            hide_parameters=True,  # an error's text may reach a log, and the parameters are people's data
            connect_args={
                "timeout": 10,
                "server_settings": {
                    "application_name": "visavis",
                    "timezone": "UTC",
                    "statement_timeout": "30000",
                    "lock_timeout": "5000",
                    "idle_in_transaction_session_timeout": "60000",
                    "jit": "off",
                },
            },
        )

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Everything done with the yielded connection is committed together, or nothing of it if this raises."""
        async with self._connect() as connection:
            raw = _driver(connection)
            try:
                begun = raw.transaction()
                try:
                    await begun.start()
                    yield connection
                    await begun.commit()
                except BaseException:
                    await _undo(connection, begun)
                    raise
            except FROM_ASYNCPG as error:
                lost = raw.is_closed() or isinstance(error, asyncpg.InternalClientError)
                if lost and not connection.invalidated:
                    await connection.invalidate()
                raise DBAPIError(None, None, error, connection_invalidated=lost) from error

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection that is open as far as we know: after a restart of PostgreSQL those in the pool are not."""
        while True:
            async with self.engine.connect() as connection:
                if not _driver(connection).is_closed():
                    yield connection
                    return
                await connection.invalidate()

    async def close(self) -> None:
        await self.engine.dispose()

    def plain_url(self) -> str:
        """The URL as asyncpg itself and libpq read it."""
        return make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)


def lock_key(person_id: uuid.UUID) -> int:
    """The advisory-lock key of a person: the first eight bytes of the ID as a signed integer."""
    return int.from_bytes(person_id.bytes[:8], "big", signed=True)


async def lock_people(tx: Transaction, people: Iterable[uuid.UUID]) -> None:
    """Wait until no other transaction changes these people's time. Ascending order keeps it free of deadlocks."""
    await LOCK_PEOPLE.fetch(tx, {"keys": sorted({lock_key(person) for person in people})})


async def take_each(
    tx: Transaction, several: Iterable[Taken], act: Callable[[Taken], Awaitable[object]], name: str
) -> int:
    """Act on each in a savepoint of its own: what fails is undone and logged under that name, and holds up no other.

    Returns with how many it went well. Raises where the connection is lost.
    """
    done = 0
    for one in several:
        savepoint = await tx.begin_nested()
        try:
            await act(one)
        except Exception as error:
            await savepoint.rollback()
            log.error("row.failed", of=name, **traces(error))
            continue
        await savepoint.commit()
        done += 1
    return done


async def listen(
    database: Database, channel: str, wake: asyncio.Event, hear: Callable[[str], None] = lambda _: None
) -> None:
    """Set `wake` at each `NOTIFY channel`, for ever; a lost connection is made anew, and then `wake` is set too.

    `hear` is given each notification's payload before `wake` is set, and an empty one after each new connection,
    since something may have been said meanwhile.
    """

    def take(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        hear(payload)
        wake.set()

    while True:
        lost = asyncio.Event()
        try:
            connection = await asyncpg.connect(database.plain_url(), timeout=10)
        except DATABASE_AWAY:
            await asyncio.sleep(2)
            continue
        try:
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.add_listener(channel, take)
            hear("")
            wake.set()
            await lost.wait()
            log.warning("database.listener_lost", channel=channel)
        except DATABASE_AWAY:
            await asyncio.sleep(2)
        finally:
            with contextlib.suppress(*DATABASE_AWAY):
                await connection.close(timeout=2)


class AccountLock:
    """An advisory lock held for as long as its own connection lives: one process at a time runs a bot account."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.name = name
        self.lost = asyncio.Event()
        self._connection: asyncpg.Connection | None = None

    async def acquire(self, *, poll: float = 2.0) -> None:
        """Wait until nobody else holds it. `lost` is set when the connection that holds it ends."""
        self._connection = await asyncpg.connect(self.database.plain_url(), timeout=10)
        self._connection.add_termination_listener(lambda _: self.lost.set())
        query = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
        while not await self._connection.fetchval(query, self.name):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(poll)

    async def release(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*DATABASE_AWAY):
                await self._connection.close(timeout=2)

"""SQLAlchemy's core over asyncpg: what of sqlalchemy.ext.asyncio we use, without the ORM that it brings.

The ORM, which nothing of ours uses, would cost each process and each command 0.08 s and 7 MB. As there, SQLAlchemy's
own synchronous connection does everything, in a greenlet that awaits asyncpg (SQLAlchemy 2.1,
`sqlalchemy.util.greenlet_spawn`); this is no more than that call around each of its acts.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Never, Self, TypeVar, TypeVarTuple, overload

from sqlalchemy import Connection as Synchronous
from sqlalchemy import CursorResult, Executable, NestedTransaction, PoolProxiedConnection, ScalarResult, create_engine
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util import greenlet_spawn

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Values = Mapping[str, Any]
Parameters = Values | Sequence[Values]


async def complete(act: Coroutine[Any, Any, None]) -> None:
    """Let it come to its end even if we are cancelled meanwhile; the cancellation is raised behind it."""
    task = asyncio.create_task(act)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.done():
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled


class Savepoint:
    """`async with` releases it, or rolls back to it if that raises; awaited, it is the caller's to roll back."""

    def __init__(self, connection: Synchronous) -> None:
        self._connection = connection
        self._begun: NestedTransaction | None = None

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._begin().__await__()

    async def __aenter__(self) -> Self:
        return await self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await greenlet_spawn(self._now().__exit__, kind, error, traceback)

    async def _begin(self) -> Self:
        self._begun = await greenlet_spawn(self._connection.begin_nested)
        return self

    async def rollback(self) -> None:
        await greenlet_spawn(self._now().rollback)

    def _now(self) -> NestedTransaction:
        if self._begun is None:
            raise RuntimeError("the savepoint was not begun")
        return self._begun


class Connection:
    """One connection of the pool; results are read to their end when a statement returns.

    Statements, parameters, results and errors are SQLAlchemy's, as its documentation has them.
    """

    def __init__(self, connect: Callable[[], Synchronous]) -> None:
        self._connect = connect
        self.sync_connection: Synchronous | None = None

    async def __aenter__(self) -> Self:
        self.sync_connection = await greenlet_spawn(self._connect)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await complete(greenlet_spawn(self._now().close))

    def _now(self) -> Synchronous:
        if self.sync_connection is None:
            raise RuntimeError("not connected")
        return self.sync_connection

    @overload
    async def execute(
        self, statement: TypedReturnsRows[*Ts], parameters: Parameters | None = None
    ) -> CursorResult[*Ts]: ...

    @overload
    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[*tuple[Any, ...]]: ...

    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """The rows of one statement, which is carried out once for each of several parameters."""
        return await greenlet_spawn(self._now().execute, statement, parameters)

    @overload
    async def scalar(self, statement: TypedReturnsRows[Never], parameters: Values | None = None) -> Any | None: ...

    @overload
    async def scalar(self, statement: TypedReturnsRows[T], parameters: Values | None = None) -> T | None: ...

    @overload
    async def scalar(self, statement: Executable, parameters: Values | None = None) -> Any: ...

    async def scalar(self, statement: Executable, parameters: Values | None = None) -> Any:
        """The first column of the first row; None where there is no row."""
        return (await self.execute(statement, parameters)).scalar()

    @overload
    async def scalars(
        self, statement: TypedReturnsRows[T], parameters: Parameters | None = None
    ) -> ScalarResult[T]: ...

    @overload
    async def scalars(self, statement: Executable, parameters: Parameters | None = None) -> ScalarResult[Any]: ...

    async def scalars(self, statement: Executable, parameters: Parameters | None = None) -> ScalarResult[Any]:
        """The first column of each row."""
        return (await self.execute(statement, parameters)).scalars()

    def begin_nested(self) -> Savepoint:
        return Savepoint(self._now())

    async def run_sync(self, act: Callable[[Synchronous], T]) -> T:
        """What `act` returns, for which the connection is an ordinary synchronous one."""
        return await greenlet_spawn(act, self._now())

    async def get_raw_connection(self) -> PoolProxiedConnection:
        return await greenlet_spawn(lambda: self._now().connection)

    @property
    def invalidated(self) -> bool:
        return self._now().invalidated

    async def invalidate(self) -> None:
        """Have the pool forget it: it is not open any more, or nobody knows what was begun on it."""
        await greenlet_spawn(self._now().invalidate)


class Engine:
    """A pool of connections; the options are those of `sqlalchemy.create_engine`, the driver must be asyncpg."""

    def __init__(self, url: str, **options: Any) -> None:
        self.sync_engine = create_engine(url, **options)

    def connect(self) -> Connection:
        """A connection, to be entered."""
        return Connection(self.sync_engine.connect)

    async def dispose(self) -> None:
        """Close the connections that nobody uses at the moment; the others are closed when they come back."""
        await greenlet_spawn(self.sync_engine.dispose)

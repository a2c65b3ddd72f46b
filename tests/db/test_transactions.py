"""Transactions: all or nothing, whatever ends them, and no broken connection left in the pool."""

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from supervision.db import Database, Ready

ADD = Ready(text("INSERT INTO bots (matrix_id) VALUES (:name)"))
SLEEP = Ready(text("SELECT pg_sleep(:seconds)"))
END = "SELECT pg_terminate_backend(:pid)"


async def names(database: Database) -> list[str]:
    async with database.transaction() as tx:
        return list(await tx.scalars(text("SELECT matrix_id FROM bots ORDER BY 1")))


@pytest.fixture
async def single(database: Database) -> Database:
    """With one connection, so that what comes after meets the same."""
    await database.close()
    return Database(database.url, pool_size=1)


async def test_both_ways_of_sending_are_in_one_transaction(single: Database) -> None:
    async with single.transaction() as tx:
        await ADD.fetch(tx, {"name": "one"})
        await tx.execute(text("INSERT INTO bots (matrix_id) VALUES ('two')"))
    assert await names(single) == ["one", "two"]
    with contextlib.suppress(ZeroDivisionError):
        async with single.transaction() as tx:
            await tx.execute(text("INSERT INTO bots (matrix_id) VALUES ('three')"))
            await ADD.fetch(tx, {"name": "four"})
            raise ZeroDivisionError
    assert await names(single) == ["one", "two"]
    await single.close()


async def test_what_asyncpg_refuses_is_told_as_sqlalchemy_tells_it(single: Database) -> None:
    with pytest.raises(DBAPIError) as told:
        async with single.transaction() as tx:
            await ADD.fetch(tx, {"name": None})
    assert isinstance(told.value.orig, asyncpg.NotNullViolationError)
    assert not told.value.connection_invalidated
    assert await names(single) == []
    await single.close()


@pytest.mark.parametrize("way", ["asyncpg", "sqlalchemy", "between"])
async def test_a_cancelled_task_stays_cancelled(single: Database, way: str) -> None:
    """And its transaction is undone, with the connection or without it."""
    begun = asyncio.Event()

    async def work() -> None:
        async with single.transaction() as tx:
            await ADD.fetch(tx, {"name": "one"})
            begun.set()
            if way == "asyncpg":
                await SLEEP.fetch(tx, {"seconds": 30})
            elif way == "sqlalchemy":
                await tx.execute(text("SELECT pg_sleep(30)"))
            else:
                await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await begun.wait()
    await asyncio.sleep(0.1)
    task.cancel()
    async with asyncio.timeout(20):  # less than it would have taken
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await names(single) == []
    await single.close()


@pytest.mark.parametrize("way", ["asyncpg", "sqlalchemy", "commit"])
async def test_a_lost_connection_is_told_and_replaced(single: Database, way: str) -> None:
    other = Database(single.url, pool_size=1)

    async def work() -> None:
        async with single.transaction() as tx:
            pid = await tx.scalar(text("SELECT pg_backend_pid()"))
            await ADD.fetch(tx, {"name": "one"})
            async with other.transaction() as ending:
                await ending.execute(text(END), {"pid": pid})
            if way == "asyncpg":
                await ADD.fetch(tx, {"name": "two"})
            elif way == "sqlalchemy":
                await tx.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as told:
        await work()
    assert told.value.connection_invalidated
    assert await names(single) == []
    await single.close()
    await other.close()


async def test_a_restart_of_postgresql_costs_nobody_a_second_try(database: Database) -> None:
    """What is in the pool is not open any more; nobody who asks for a connection gets it."""

    async def look() -> object:
        async with database.transaction() as tx:
            return await tx.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.05)"))

    pids = await asyncio.gather(*(look() for _ in range(5)))
    other = Database(database.url, pool_size=1)
    async with other.transaction() as ending:
        for pid in pids:
            await ending.execute(text(END), {"pid": pid})
    async with asyncio.timeout(30):
        while await left(other, pids):  # noqa: ASYNC110 - they end some time after they were told to
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # what they said last is read
    assert not set(await asyncio.gather(*(look() for _ in range(5)))) & set(pids)
    await other.close()


async def left(database: Database, pids: list[object]) -> int:
    """How many of these sessions have not ended."""
    async with database.transaction() as tx:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:pids)")
        return int(await tx.scalar(query, {"pids": pids}))


@pytest.mark.parametrize("moment", ["BEGIN", "COMMIT"])
async def test_a_cancellation_that_meets_the_beginning_or_the_end_leaves_no_open_transaction(
    single: Database, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Or what is written after it on the same connection would never be committed."""
    plain = asyncpg.Connection.execute

    async def slow(self: asyncpg.Connection, query: str, *args: object, **options: object) -> object:
        done = await plain(self, query, *args, **options)
        if query.rstrip(";") == moment:
            await asyncio.sleep(30)
        return done

    monkeypatch.setattr(asyncpg.Connection, "execute", slow)
    task = asyncio.create_task(add(single, "one"))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await add(single, "two")
    assert (await names(single))[-1] == "two"
    await single.close()


async def add(database: Database, name: str) -> None:
    async with database.transaction() as tx:
        await ADD.fetch(tx, {"name": name})

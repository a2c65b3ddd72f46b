"""The loop that does the homeserver's tasks, on a real Synapse: what goes with a room, and what cannot be done."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, update

from bot.administration import Administrator
from bot.requests import Homeserver
from bot.tasks import Tasks
from embedded.synapse import Synapse
from supervision import attachments, homeserver_tasks, pairs
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.homeserver_tasks import HomeserverTask
from supervision.models import Task
from supervision.models import homeserver_tasks as tasks_table
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.pairs import Pair
from tests.bot.test_administration import log_in
from tests.support.homeserver import make_account
from tests.support.proxy import Proxy
from tests.support.sample import add_pair

SECRET = "a secret of the tests that is long enough"


def utc_now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def owner(synapse: Synapse) -> AsyncIterator[Homeserver]:
    """Somebody on the homeserver who has made a room."""
    homeserver = Homeserver(synapse.base_url)
    homeserver.token = await log_in(homeserver, await make_account(synapse))
    yield homeserver
    await homeserver.close()


@asynccontextmanager
async def doing(database: Database, synapse: Synapse, token: str | None = None) -> AsyncIterator[None]:
    administrator = Administrator(synapse.base_url, token or synapse.admin_token)
    tasks = Tasks(database, administrator, server_name=synapse.server_name, secret=SECRET, clock=utc_now)
    running = asyncio.create_task(tasks.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await administrator.close()


async def all_done(database: Database) -> list[tuple[str, str | None]]:
    """Kind and error of every task, the oldest first, when none is open any more."""
    async with asyncio.timeout(20):
        while True:
            async with database.transaction() as tx:
                rows = list(await tx.execute(tasks_table.select().order_by(tasks_table.c.created_at)))
            if all(row.done_at for row in rows):
                return [(row.kind, row.error) for row in rows]
            await asyncio.sleep(0.05)


async def upload(synapse: Synapse, owner: Homeserver) -> str:
    headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": "application/octet-stream"}
    url = f"{synapse.base_url}/_matrix/media/v3/upload"
    async with synapse.http.post(url, data=b"ciphertext", headers=headers) as answer:
        return str((await answer.json())["content_uri"])


async def is_stored(synapse: Synapse, owner: Homeserver, mxc: str) -> bool:
    url = f"{synapse.base_url}/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
    async with synapse.http.get(url, headers={"Authorization": f"Bearer {owner.token}"}) as answer:
        return answer.status == 200


async def archived_pair(database: Database, owner: Homeserver) -> Pair:
    """A pair in a room of the owner's, archived."""
    pair = await add_pair(database, now=utc_now())
    answer: dict[str, Any] = await owner.ask("POST", "/createRoom", {"preset": "private_chat"})
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id=answer["room_id"]))
        await pairs.archive(tx, SYSTEM, pair.id, now=utc_now())
        return await pairs.get(tx, pair.id)


async def be(database: Database, owner: Homeserver, pair: Pair) -> str:
    """Let the owner of the room be the pair's supervisor."""
    user_id = str((await owner.ask("GET", "/account/whoami"))["user_id"])
    async with database.transaction() as tx:
        change = update(people_table).where(people_table.c.id == pair.supervisor.id)
        await tx.execute(change.values(matrix_id=user_id))
    return user_id


async def test_a_room_goes_with_its_files(database: Database, synapse: Synapse, owner: Homeserver) -> None:
    pair = await archived_pair(database, owner)
    await be(database, owner, pair)
    mxc, foreign = await upload(synapse, owner), "mxc://elsewhere.example/file"
    assert await is_stored(synapse, owner, mxc)
    about = {"locked_name": None, "type": None, "size": None, "sent_at": utc_now()}
    async with database.transaction() as tx:
        await attachments.note(tx, "$file", pair.id, pair.supervisor.id, media=[mxc, foreign], **about)  # type: ignore[arg-type]
        await pairs.remove_room(tx, SYSTEM, pair.id, now=utc_now())
    async with doing(database, synapse):
        assert await all_done(database) == [("remove_room", None), ("remove_media", None)]
    assert not await is_stored(synapse, owner, mxc)
    assert await owner.ask("GET", "/joined_rooms") == {"joined_rooms": []}
    async with database.transaction() as tx:
        assert (await pairs.get(tx, pair.id)).room_id is None


async def test_a_hold_that_came_before_the_removal_keeps_the_room(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair = await archived_pair(database, owner)
    async with database.transaction() as tx:
        await pairs.remove_room(tx, SYSTEM, pair.id, now=utc_now())
        # As where the task was claimed already when the hold withdrew what is not begun.
        await tx.execute(update(pairs_table).values(held_at=utc_now()))
    async with doing(database, synapse):
        assert await all_done(database) == [("remove_room", "pair_held")]
    assert await owner.ask("GET", "/joined_rooms") == {"joined_rooms": [pair.room_id]}


async def test_a_task_that_nobody_can_do_holds_up_no_other(database: Database, synapse: Synapse) -> None:
    pair = await add_pair(database, now=utc_now())
    async with database.transaction() as tx:
        await homeserver_tasks.put(tx, Task.REMOVE_ROOM, pair_id=pair.id, now=utc_now())  # which room is not said
    async with doing(database, synapse):
        assert await all_done(database) == [("remove_room", "failed")]
        async with database.transaction() as tx:
            await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, details={"media": {}}, now=utc_now())
        assert await all_done(database) == [("remove_room", "failed"), ("remove_media", None)]


async def test_who_waits_before_a_page_waits_for_no_large_room(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair, person = await archived_pair(database, owner), await make_account(synapse)
    asked, released = asyncio.Semaphore(0), asyncio.Event()

    async def hold(path: str, _: bytes) -> None:
        if "/rooms/" in path:
            asked.release()
            await released.wait()

    async with Proxy.before(synapse.base_url) as proxy:
        proxy.hold = hold
        async with database.transaction() as tx:
            for _ in range(5):
                await homeserver_tasks.put(
                    tx, Task.REMOVE_ROOM, pair_id=pair.id, details={"room": pair.room_id}, now=utc_now()
                )
        async with doing(database, replace(synapse, base_url=proxy.url)):
            async with asyncio.timeout(20):
                for _ in range(3):
                    await asked.acquire()
            async with database.transaction() as tx:
                await tx.execute(
                    update(people_table).where(people_table.c.id == pair.supervisor.id).values(matrix_id=person)
                )
                task_id = await homeserver_tasks.put(tx, Task.SIGN_OUT, person_id=pair.supervisor.id, now=utc_now())
            async with asyncio.timeout(20):
                while not (await one(database, task_id)).succeeded:  # noqa: ASYNC110 - the bot writes it
                    await asyncio.sleep(0.05)
            released.set()
            assert [error for _, error in await all_done(database)] == [None] * 6


async def one(database: Database, task_id: uuid.UUID) -> HomeserverTask:
    async with database.transaction() as tx:
        return await homeserver_tasks.get(tx, task_id)


async def test_nobody_has_another_s_file_deleted(database: Database, synapse: Synapse, owner: Homeserver) -> None:
    """Bruno shows Ana's portrait, which lies on the homeserver for all to see, in a way that breaks the rules."""
    pair = await add_pair(database, now=utc_now())
    ana = await be(database, owner, pair)
    portrait, file = [await upload(synapse, owner) for _ in range(2)]
    gone = f"mxc://{synapse.server_name}/nothinghere"
    async with database.transaction() as tx:
        for media in ({portrait: [pair.supervisee.matrix_id]}, {gone: [ana], file: [pair.supervisee.matrix_id, ana]}):
            await attachments.give_away(tx, pair.id, media, synapse.server_name, now=utc_now())  # type: ignore[arg-type]
    async with doing(database, synapse):
        assert await all_done(database) == [("remove_media", None)] * 2
    assert [await is_stored(synapse, owner, mxc) for mxc in (portrait, file)] == [True, False]


async def test_a_file_that_another_room_took_meanwhile_stays(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    first = await add_pair(database, now=utc_now())
    second = await add_pair(database, supervisor=first.supervisor, now=utc_now())
    ana, file = await be(database, owner, first), await upload(synapse, owner)
    about = {"locked_name": None, "type": None, "size": None, "sent_at": utc_now(), "media": [file]}
    async with database.transaction() as tx:
        await attachments.note(tx, "$1", first.id, first.supervisor.id, refused="kind", **about)  # type: ignore[arg-type]
        await attachments.give_away(tx, first.id, {file: [ana]}, synapse.server_name, now=utc_now())
        await attachments.note(tx, "$2", second.id, first.supervisor.id, **about)  # type: ignore[arg-type]
    async with doing(database, synapse):
        await until_put_off(database, "media_shown")
        assert await is_stored(synapse, owner, file)
        async with database.transaction() as tx:
            gone = await attachments.take_back(tx, "$2", first.supervisor.id, now=utc_now())
            assert gone == {file: [ana]}
            await tx.execute(update(tasks_table).values(next_try_at=utc_now()))
            await attachments.give_away(tx, second.id, gone, synapse.server_name, now=utc_now())
        assert await all_done(database) == [("remove_media", None)] * 2
    assert not await is_stored(synapse, owner, file)


async def test_a_hold_keeps_files_that_wait_to_be_deleted(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair = await add_pair(database, now=utc_now())
    ana = await be(database, owner, pair)
    file = await upload(synapse, owner)
    async with database.transaction() as tx:
        await attachments.give_away(tx, pair.id, {file: [ana]}, synapse.server_name, now=utc_now())
        await pairs.hold(tx, SYSTEM, pair.id, now=utc_now())
    async with doing(database, synapse):
        await until_put_off(database, "pair_held")
        assert await is_stored(synapse, owner, file)
        async with database.transaction() as tx:
            await pairs.release(tx, SYSTEM, pair.id, now=utc_now())
            await tx.execute(update(tasks_table).values(next_try_at=utc_now()))
            await tx.execute(select(func.pg_notify(homeserver_tasks.CHANNEL, "")))
        assert await all_done(database) == [("remove_media", None)]
    assert not await is_stored(synapse, owner, file)


async def test_a_hold_that_comes_between_two_files_keeps_the_second(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair = await add_pair(database, now=utc_now())
    ana = await be(database, owner, pair)
    files = [await upload(synapse, owner) for _ in range(2)]

    async def hold(path: str, _: bytes) -> None:
        async with database.transaction() as tx:
            await pairs.hold(tx, SYSTEM, pair.id, now=utc_now())

    async with Proxy.before(synapse.base_url) as proxy:
        proxy.hold = hold
        async with database.transaction() as tx:
            media = {file: [ana] for file in files}
            await attachments.give_away(tx, pair.id, media, synapse.server_name, now=utc_now())
        async with doing(database, replace(synapse, base_url=proxy.url)):
            await until_put_off(database, "pair_held")
    assert sorted([await is_stored(synapse, owner, file) for file in files]) == [False, True]


async def test_a_file_that_synapse_fails_with_holds_up_no_other(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair = await add_pair(database, now=utc_now())
    ana = await be(database, owner, pair)
    first, *others = sorted([await upload(synapse, owner) for _ in range(3)])
    async with Proxy.before(synapse.base_url) as proxy:
        fails = first.rpartition("/")[2]
        answer: dict[str, tuple[int, dict[str, Any]]] = {fails: (500, {"errcode": "M_UNKNOWN"})}
        proxy.refuse = lambda _, path: answer.get(path.rpartition("/")[2])
        async with database.transaction() as tx:
            media = {file: [ana] for file in (first, *others)}
            await attachments.give_away(tx, pair.id, media, synapse.server_name, now=utc_now())
        async with doing(database, replace(synapse, base_url=proxy.url)):
            await until_put_off(database, "http_500")
            assert [await is_stored(synapse, owner, file) for file in (first, *others)] == [True, False, False]
            async with database.transaction() as tx:  # of the others nothing is kept
                assert await tx.scalar(select(tasks_table.c.details)) == {"media": {first: [ana]}}
            answer[fails] = (400, {"errcode": "M_INVALID_PARAM"})
            await look_again(database)
            assert await all_done(database) == [("remove_media", "M_INVALID_PARAM")]


async def test_a_file_that_synapse_refuses_lets_none_be_forgotten_that_is_still_shown(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair = await add_pair(database, now=utc_now())
    ana = await be(database, owner, pair)
    refused, shown = [await upload(synapse, owner) for _ in range(2)]
    about = {"locked_name": None, "type": None, "size": None, "sent_at": utc_now(), "media": [shown]}
    async with Proxy.before(synapse.base_url) as proxy:
        name = refused.rpartition("/")[2]
        proxy.refuse = lambda _, path: (400, {"errcode": "M_INVALID_PARAM"}) if path.endswith(name) else None
        async with database.transaction() as tx:
            await attachments.note(tx, "$shown", pair.id, pair.supervisee.id, **about)  # type: ignore[arg-type]
            media = {refused: [ana], shown: [ana]}
            await attachments.give_away(tx, pair.id, media, synapse.server_name, now=utc_now())
        async with doing(database, replace(synapse, base_url=proxy.url)):
            await until_put_off(database, "media_shown")
            async with database.transaction() as tx:
                await attachments.take_back(tx, "$shown", pair.supervisee.id, now=utc_now())
            await look_again(database)
            assert await all_done(database) == [("remove_media", "M_INVALID_PARAM")]
    assert [await is_stored(synapse, owner, file) for file in (refused, shown)] == [True, False]


async def look_again(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(tasks_table).values(next_try_at=utc_now()))
        await tx.execute(select(func.pg_notify(homeserver_tasks.CHANNEL, "")))


async def test_what_the_token_did_not_allow_is_done_once_it_is_put_right(
    database: Database, synapse: Synapse, owner: Homeserver
) -> None:
    pair = await archived_pair(database, owner)
    async with database.transaction() as tx:
        await pairs.remove_room(tx, SYSTEM, pair.id, now=utc_now())
    for token in ("nobody's", str(owner.token)):
        async with doing(database, synapse, token):
            await until_put_off(database, "admin_token_refused")
        async with database.transaction() as tx:
            [shown] = await homeserver_tasks.list_failed(tx)
            assert (shown.kind, shown.done_at) == (Task.REMOVE_ROOM, None)
            due = await homeserver_tasks.next_due_at(tx)
            assert due is not None
            assert 200 < (due - utc_now()).total_seconds() <= 300
            await tx.execute(update(tasks_table).values(next_try_at=utc_now(), error=None))
    async with doing(database, synapse):
        assert await all_done(database) == [("remove_room", None)]
    assert await owner.ask("GET", "/joined_rooms") == {"joined_rooms": []}


async def until_put_off(database: Database, reason: str) -> None:
    async with asyncio.timeout(20):
        while True:
            async with database.transaction() as tx:
                if list(await tx.scalars(select(tasks_table.c.error))) == [reason]:
                    return
            await asyncio.sleep(0.05)

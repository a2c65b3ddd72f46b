"""Tasks for the homeserver's administrator: claimed by one, put off, settled, and forgotten."""

import asyncio
from datetime import datetime, timedelta

import pytest

from supervision import homeserver_tasks
from supervision.db import Database, listen
from supervision.errors import NotFound
from supervision.models import Task
from tests.support.sample import add_person


async def test_a_task_is_claimed_by_one_process_until_its_lease_ends(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        task_id = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, details={"media": []}, now=now)
    async with database.transaction() as one, database.transaction() as other:
        claimed = await homeserver_tasks.claim(one, now=now)
        assert claimed is not None
        assert (claimed.id, claimed.kind, claimed.attempts) == (task_id, Task.REMOVE_MEDIA, 1)
        assert await homeserver_tasks.claim(other, now=now) is None
    async with database.transaction() as tx:
        assert await homeserver_tasks.claim(tx, now=now + homeserver_tasks.LEASE - timedelta(seconds=1)) is None
        assert await homeserver_tasks.next_due_at(tx) == now + homeserver_tasks.LEASE
        again = await homeserver_tasks.claim(tx, now=now + homeserver_tasks.LEASE)
        assert again is not None
        assert again.attempts == 2


@pytest.mark.parametrize(
    ("kind", "minutes"),
    [(Task.OPEN_REGISTRATION, 3), (Task.DEACTIVATE, 3), (Task.REMOVE_ROOM, 15), (Task.RESET_PASSWORD, 15)],
)
async def test_what_is_quick_and_bears_being_done_again_is_soon_done_again(
    database: Database, now: datetime, kind: Task, minutes: int
) -> None:
    """Somebody waits for the account of an invitation whose bot was killed; who waits for a password asks anew."""
    async with database.transaction() as tx:
        await homeserver_tasks.put(tx, kind, now=now)
        await homeserver_tasks.claim(tx, now=now)
        assert await homeserver_tasks.next_due_at(tx) == now + timedelta(minutes=minutes)


async def test_what_is_to_wait_is_claimed_when_its_time_has_come(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, after=timedelta(seconds=10), now=now)
        assert await homeserver_tasks.claim(tx, now=now + timedelta(seconds=9)) is None
        assert await homeserver_tasks.next_due_at(tx) == now + timedelta(seconds=10)
        assert await homeserver_tasks.next_due_at(tx, quick=True) is None
        assert await homeserver_tasks.claim(tx, quick=True, now=now + timedelta(seconds=10)) is None
        assert await homeserver_tasks.claim(tx, now=now + timedelta(seconds=10)) is not None


async def test_a_task_wakes_its_loop_at_the_commit(database: Database, now: datetime) -> None:
    wake = asyncio.Event()
    listening = asyncio.create_task(listen(database, homeserver_tasks.CHANNEL, wake))
    await asyncio.wait_for(wake.wait(), 10)
    wake.clear()
    async with database.transaction() as tx:
        await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, now=now)
        assert not wake.is_set()
    await asyncio.wait_for(wake.wait(), 10)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_what_fails_is_put_off_twice_as_long_each_time_or_as_asked(database: Database, now: datetime) -> None:
    pauses = []
    async with database.transaction() as tx:
        task_id = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, now=now)
        at = now
        for retry_after in (None, None, None, 600.0, 10**6):
            task = await homeserver_tasks.claim(tx, now=at)
            assert task is not None
            await homeserver_tasks.put_off(tx, task, "homeserver_unreachable", retry_after=retry_after, now=at)
            due = await homeserver_tasks.next_due_at(tx)
            assert due is not None
            pauses.append((due - at).total_seconds())
            at = due
        stands = await homeserver_tasks.get(tx, task_id)
    assert pauses == [2, 4, 8, 600, 3600]
    assert (stands.error, stands.succeeded, stands.failed) == ("homeserver_unreachable", False, False)


async def test_an_answer_is_taken_once(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with database.transaction() as tx:
        task_id = await homeserver_tasks.put(tx, Task.RESET_PASSWORD, person_id=ana.id, now=now)
        assert await homeserver_tasks.take_answer(tx, task_id) is None
        await homeserver_tasks.settle(tx, task_id, answer=b"locked", now=now)
        done = await homeserver_tasks.latest(tx, Task.RESET_PASSWORD, ana.id)
        assert done is not None
        assert (done.id, done.succeeded, done.answer) == (task_id, True, b"locked")
        assert await homeserver_tasks.take_answer(tx, task_id) == b"locked"
        assert await homeserver_tasks.take_answer(tx, task_id) is None


async def test_what_nobody_waits_for_is_not_begun(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        task_id = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, now=now)
        withdrawn = await homeserver_tasks.withdraw(tx, task_id, now=now)
        assert (withdrawn.failed, withdrawn.error, withdrawn.attempts) == (True, "withdrawn", 0)
        assert await homeserver_tasks.claim(tx, now=now) is None
        begun = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, now=now)
        task = await homeserver_tasks.claim(tx, now=now)
        assert task is not None
        await homeserver_tasks.withdraw(tx, begun, now=now)
        await homeserver_tasks.put_off(tx, task, "http_500", now=now)
        assert (await homeserver_tasks.get(tx, begun)).error == "withdrawn"


@pytest.mark.parametrize("kind", [Task.RESET_PASSWORD, Task.SIGN_OUT])
async def test_what_a_page_waited_for_is_not_done_again_once_everything_was_killed(
    database: Database, now: datetime, kind: Task
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with database.transaction() as tx:
        cut_short = await homeserver_tasks.put(tx, kind, person_id=ana.id, now=now)
        assert await homeserver_tasks.claim(tx, now=now) is not None  # and then bot and web died
        later = now + homeserver_tasks.LEASE  # by when she has done it once more
        fresh = await homeserver_tasks.put(tx, kind, person_id=ana.id, now=later)
        claimed = await homeserver_tasks.claim(tx, now=later)
        assert claimed is not None
        assert claimed.id == fresh
        assert await homeserver_tasks.claim(tx, now=later) is None
        given_up = await homeserver_tasks.get(tx, cut_short)
        assert (given_up.done_at, given_up.error) == (later, "withdrawn")


async def test_whose_files_were_removed_is_not_kept(database: Database, now: datetime) -> None:
    shown = {"media": {"mxc://example.org/file": ["@ana:example.org"]}}
    async with database.transaction() as tx:
        removed = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, details=shown, now=now)
        failed = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, details=shown, now=now)
        room = await homeserver_tasks.put(tx, Task.REMOVE_ROOM, details={"room": "!room"}, now=now)
        for one in (removed, room):
            await homeserver_tasks.settle(tx, one, now=now)
        await homeserver_tasks.give_up(tx, failed, "http_403", now=now)
        kept = [(await homeserver_tasks.get(tx, one)).details for one in (removed, failed, room)]
    assert kept == [{}, shown, {"room": "!room"}]


async def test_answers_go_after_an_hour_and_tasks_after_a_month(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        done = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, now=now)
        await homeserver_tasks.settle(tx, done, answer=b"locked", now=now)
        still_open = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, now=now)
        await homeserver_tasks.forget_old(tx, now=now + timedelta(minutes=59))
        assert (await homeserver_tasks.get(tx, done)).answer == b"locked"
        await homeserver_tasks.forget_old(tx, now=now + timedelta(hours=1))
        assert (await homeserver_tasks.get(tx, done)).answer is None
        await homeserver_tasks.forget_old(tx, now=now + timedelta(days=31))
        assert (await homeserver_tasks.get(tx, still_open)).done_at is None
        with pytest.raises(NotFound):
            await homeserver_tasks.get(tx, done)

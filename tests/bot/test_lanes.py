"""The order of work and of tokens, without a homeserver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice

from prometheus_client import REGISTRY

from bot.lanes import Lanes, Progress, pauses
from bot.requests import HomeserverRefused
from supervision.errors import Transient


def test_ten_failures_are_spread_over_minutes() -> None:
    waited = list(islice(pauses(), 10))
    whole = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert [pause / 2 <= actual <= pause for actual, pause in zip(waited, whole, strict=True)] == [True] * 10


async def test_token_waits_for_all_before_it() -> None:
    saved: list[str] = []

    async def save(token: str) -> None:
        saved.append(token)

    progress = Progress(save)
    first, second, third = (progress.begin(token) for token in "abc")
    third.leave()
    second.leave()
    saving = asyncio.create_task(progress.keep_saving())
    await asyncio.sleep(0.05)
    assert saved == []
    first.leave()
    await asyncio.sleep(0.05)
    assert saved == ["c"]
    saving.cancel()


async def test_failed_saving_is_tried_again() -> None:
    failures: list[Exception] = [ConnectionError()]
    saved: asyncio.Queue[str] = asyncio.Queue()

    async def save(token: str) -> None:
        if failures:
            raise failures.pop()
        saved.put_nowait(token)

    progress = Progress(save)
    progress.begin("a").leave()
    saving = asyncio.create_task(progress.keep_saving())
    assert await asyncio.wait_for(saved.get(), 5) == "a"
    saving.cancel()


async def test_too_many_open_batches_hold_up_the_next() -> None:
    async def save(_: str) -> None:
        return None

    progress = Progress(save, most_open=1)
    batches = [progress.begin(token) for token in "ab"]
    saving = asyncio.create_task(progress.keep_saving())
    waiting = asyncio.create_task(progress.wait_for_room())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    batches[0].leave()
    await asyncio.wait_for(waiting, 5)
    saving.cancel()


async def test_news_is_taken_in_again_though_a_batch_is_open() -> None:
    progress = Progress(lambda _: asyncio.sleep(0), most_open=2)
    batch = progress.begin("a")
    batch.enter()
    batch.enter()
    waiting = asyncio.create_task(progress.wait_for_room())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    batch.leave()
    await asyncio.wait_for(waiting, 5)


async def test_a_room_that_waits_holds_up_no_other_s_news() -> None:
    saved: list[str] = []

    async def save(token: str) -> None:
        saved.append(token)

    progress = Progress(save)
    stuck = progress.begin("0")
    saving = asyncio.create_task(progress.keep_saving())
    for number in range(1, 1_000):
        await asyncio.wait_for(progress.wait_for_room(), 1)
        progress.begin(str(number)).leave()
        await asyncio.sleep(0)
    assert saved == []
    stuck.leave()
    await asyncio.sleep(0.05)
    assert saved == ["999"]
    saving.cancel()


async def test_what_waits_for_something_out_of_reach_is_counted() -> None:
    counted: list[float | None] = []

    async def act() -> None:
        counted.append(REGISTRY.get_sample_value("visavis_work_delayed"))
        if len(counted) < 3:
            raise failures[len(counted) - 1]

    failures = [Transient("out_of_reach"), HomeserverRefused(400, {})]
    async with asyncio.TaskGroup() as group:
        Lanes(group).put("room", "test", act)
    assert counted == [0, 1, 1]
    assert REGISTRY.get_sample_value("visavis_work_delayed") == 0


async def test_lanes_keep_order_and_do_not_wait_for_one_another() -> None:
    done: list[str] = []
    gate = asyncio.Event()

    def work(name: str, wait: bool = False) -> Callable[[], Coroutine[None, None, None]]:
        async def act() -> None:
            if wait:
                await gate.wait()
            done.append(name)

        return act

    async with asyncio.TaskGroup() as group:
        lanes = Lanes(group)
        batch = Progress(lambda _: asyncio.sleep(0)).begin("a")
        lanes.put("slow", "test", work("slow 1", wait=True), batch)
        lanes.put("slow", "test", work("slow 3"), batch)
        lanes.put("quick", "test", work("quick"), batch)
        await asyncio.sleep(0.01)
        lanes.put_first("slow", "test", [work("slow 2a"), work("slow 2b")], batch)
        gate.set()
    batch.leave()
    assert done == ["quick", "slow 1", "slow 2a", "slow 2b", "slow 3"]
    assert batch.done

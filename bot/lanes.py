"""Handling the events of many rooms side by side, each room's in order, and knowing how far all are handled."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import zip_longest

import structlog
from prometheus_client import Gauge

from bot.requests import HomeserverRefused
from supervision.errors import Transient

log = structlog.get_logger(__name__)
DELAYED = Gauge("visavis_work_delayed", "Rooms and chores that wait for something out of reach")

Work = Callable[[], Awaitable[None]]
_TRIES = 3
_LONGEST_PAUSE = 60.0
_MOST_OPEN = 5_000  # events and the like, of all rooms; more than one room's members come by soon


def pauses(longest: float = _LONGEST_PAUSE) -> Iterator[float]:
    """Ever longer waiting times in seconds: 1, 2, 4 … `longest`, each shortened by up to half at random."""
    pause = 1.0
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, keeps no secret
        pause = min(2 * pause, longest)


class Batch:
    """One answer of `/sync`: its token may be kept when nothing of it is open any more."""

    def __init__(self, token: str, left: Callable[[], None], closed: Callable[[], None]) -> None:
        self.token = token
        self.open = 1  # things to be done, of which the dispatching itself is one
        self._left = left
        self._closed = closed
        self._quiet: asyncio.Event | None = None

    def enter(self) -> None:
        """One more thing of this batch is to be done."""
        self.open += 1

    def leave(self) -> None:
        """One thing is done."""
        self.open -= 1
        self._left()
        if not self.open:
            self._closed()
            if self._quiet is not None:
                self._quiet.set()

    async def wait_briefly(self, seconds: float) -> None:
        """Wait until nothing is open, but no longer than this."""
        if not self.done:
            self._quiet = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._quiet.wait()

    @property
    def done(self) -> bool:
        """Whether nothing is open."""
        return not self.open


class Progress:
    """The batches in their order; `save` gets a token only when its batch and all before it are done.

    `most_open` is how many things may wait to be done before no more are taken in. Batches are not what is counted: one
    room that waits for something would hold up all others as soon as so many answers came after it.
    """

    def __init__(self, save: Callable[[str], Awaitable[None]], most_open: int = _MOST_OPEN) -> None:
        self._save = save
        self._most_open = most_open
        self._batches: deque[Batch] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def begin(self, token: str) -> Batch:
        """A new batch, open until its `leave` is called once more than `enter`."""
        batch = Batch(token, self._room.set, self._news.set)
        self._batches.append(batch)
        return batch

    async def wait_for_room(self) -> None:
        """Wait while too many things are open."""
        while sum(batch.open for batch in self._batches) > self._most_open:
            self._room.clear()
            await self._room.wait()

    async def keep_saving(self) -> None:
        """Save tokens as batches get done, for ever. A failed saving is tried again, with a later token."""
        token: str | None = None
        waiting = pauses()
        while True:
            if token is None:
                await self._news.wait()
            self._news.clear()
            while self._batches and self._batches[0].done:
                token = self._batches.popleft().token
            self._forget_passed()
            if token is not None:
                try:
                    await self._save(token)
                except Exception as error:
                    log.warning("sync.token_not_saved", error=type(error).__name__)
                    await asyncio.sleep(next(waiting))
                else:
                    token, waiting = None, pauses()

    def _forget_passed(self) -> None:
        """Of batches that are done one after the other behind an open one the last token alone will be wanted."""
        in_turn = zip_longest(self._batches, list(self._batches)[1:])
        self._batches = deque(batch for batch, later in in_turn if not batch.done or later is None or not later.done)


class Lanes:
    """A queue of work for each key (a room); queues run side by side, each in order, as tasks of `group`."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._queues: dict[str, deque[tuple[str, Work, Batch | None]]] = {}

    def put(self, key: str, name: str, work: Work, batch: Batch | None = None) -> None:
        """Queue work under a static event name for the log; the batch stays open until it is done."""
        if batch is not None:
            batch.enter()
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._group.create_task(self._drain(key, queue))
        queue.append((name, work, batch))

    def put_first(self, key: str, name: str, works: Sequence[Work], batch: Batch) -> None:
        """From within this key's work: queue more, in their order, before whatever else waits."""
        for work in reversed(works):
            batch.enter()
            self._queues[key].appendleft((name, work, batch))

    async def _drain(self, key: str, queue: deque[tuple[str, Work, Batch | None]]) -> None:
        while queue:
            name, work, batch = queue.popleft()
            await _insist(key, name, work)
            if batch is not None:
                batch.leave()
        del self._queues[key]


async def _insist(key: str, name: str, work: Work) -> None:
    """Do the work; again, after a pause, where it fails.

    What is out of reach (see `_will_pass`) is waited for without end, and the lane with it: an event must not be
    lost to ten minutes without database. Any other error is a bug, and a bug's event must not hold up its room for
    ever: it is dropped after the third time.
    """
    waiting, tries, delayed = pauses(), _TRIES, False
    with ExitStack() as stack:
        while True:
            try:
                await work()
                return
            except Exception as error:
                about = {"work": name, "lane": key, "error": type(error).__name__}
                if _will_pass(error):
                    log.warning("work.delayed", **about)
                    if not delayed:
                        delayed = True
                        stack.enter_context(DELAYED.track_inprogress())
                else:
                    tries -= 1
                    if not tries:
                        log.error("work.dropped", **about)
                        return
                    log.warning("work.failed", **about)
            await asyncio.sleep(next(waiting))


def _will_pass(error: Exception) -> bool:
    """Whether it says that something is out of reach, a homeserver behind a proxy that refuses for it included."""
    if isinstance(error, HomeserverRefused):
        return error.passing is not None
    return isinstance(error, Transient | OSError)

"""Times of things that take turns, and the tables that are made of them."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.round_trip import spread

Act = Callable[[], Awaitable[object]]
Block = Callable[[], Awaitable[Sequence[Sequence[Act]]]]


@dataclass
class Taken:
    """Seconds of each act, and seconds on the clock of all blocks together."""

    seconds: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.elapsed

    @property
    def spread(self) -> tuple[float, float, float]:
        """Minimum, median and 99th percentile, in seconds."""
        return spread(self.seconds)

    def cells(self) -> list[str]:
        return [*(f"{seconds * 1000:.2f} ms" for seconds in self.spread), f"{self.per_second:.0f}"]


async def take_turns(sides: Sequence[tuple[Taken, Block]], blocks: int) -> None:
    """Time blocks of each side in turns, each side going first as often as the others.

    A block is made untimed when its turn comes: lists of acts, one list a worker, the workers side by side.
    """
    order = list(sides)
    for _, make in order:
        await run(await make())  # the first block of each warms up
    for _ in range(blocks):
        order.append(order.pop(0))
        for taken, make in order:
            workers = await make()
            begun = time.perf_counter()
            taken.seconds += await run(workers)
            taken.elapsed += time.perf_counter() - begun


async def run(workers: Sequence[Sequence[Act]]) -> list[float]:
    """The seconds of each act."""
    return [seconds for found in await asyncio.gather(*map(one_after_another, workers)) for seconds in found]


async def one_after_another(acts: Iterable[Act]) -> list[float]:
    found = []
    for act in acts:
        begun = time.perf_counter()
        await act()
        found.append(time.perf_counter() - begun)
    return found


def compare(bare: Taken, ours: Taken) -> list[str]:
    """How fast ours is beside bare, 1 being as fast: for minimum, median, 99th percentile, and per second."""
    ratios = [one / other for one, other in zip(bare.spread, ours.spread, strict=True)]
    return [f"{ratio:.2f}" for ratio in [*ratios, ours.per_second / bare.per_second]]


def grown(small: Taken, large: Taken) -> list[str]:
    """How much longer it takes in the large database: minimum, median, 99th percentile, and of each second."""
    ratios = [other / one for one, other in zip(small.spread, large.spread, strict=True)]
    return [f"{ratio:.2f}" for ratio in [*ratios, small.per_second / large.per_second]]


def table(title: str, rows: Iterable[tuple[str, Sequence[str]]], note: str) -> str:
    """Markdown with the columns of `Taken.cells`, and a line on how it was measured."""
    lines = [f"| {title} | minimum | median | 99th percentile | per second |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([*lines, "", f"{note}; {os.cpu_count()} cores, Python {platform.python_version()}."])

"""Many rooms on one bot, beside a bare nio echo bot with equally many: its start, its memory, and all speaking at once.

The start is timed from the process's beginning until somebody has the answer to what was said while the bot was
away: everything loaded, logged in, every room known, the question read, the room's key handed out, the answer sent.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.crowds import SUPERVISEES, Crowd, Side, gathered
from tests.support.human import Human

COUNTS = (50, 100, 200, 300)
STARTS = 3  # of each side at each count
SETTLE_SECONDS = 5.0  # from the first answer until memory is read
SPEAKING = 50
WAVES = 3  # of each command
COMMANDS = ("!help", "!appointments", "!language en")  # the first two only read; all are journaled and committed
SECONDS_A_COMMAND = 3.05  # a person has 20 commands a minute


@dataclass
class Started:
    """Seconds until the first answer and of processor time for it, MB of memory settled and at its highest."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    highest: list[float] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float, float, float]:
        taken = (self.seconds, self.cpu, self.settled, self.highest)
        return tuple(map(statistics.median, taken))  # type: ignore[return-value]


async def measure(state: Path, rounds: int) -> AsyncIterator[str]:
    """The curve of start and memory, then the storm."""
    async with gathered(state) as crowd:
        curve: list[tuple[int, Started, Started]] = []
        for count in COUNTS:
            await crowd.grow(count)
            for side in crowd.sides:
                await start_once(crowd, side)  # the first start after new rooms makes keys that later ones have
            bare, ours = Started(), Started()
            sides = [(crowd.bare, bare), (crowd.visavis, ours)]
            for _ in range(STARTS):
                sides.reverse()
                for side, taken in sides:
                    await start_once(crowd, side, taken)
            curve.append((count, bare, ours))
            yield start_table(curve[-1:])
        yield start_table(curve)
        yield await storm(crowd)


async def start_once(crowd: Crowd, side: Side, taken: Started | None = None) -> None:
    """Say something in the last room, start the bot, wait for its answer."""
    room_id = side.rooms[-1]
    phone = crowd.phone(len(side.rooms) - 1)
    await know(phone, room_id)
    mark = phone.mark()
    await phone.send_text(room_id, "!help")
    begun = time.perf_counter()
    async with side.running():
        await phone.next_message(side.bot, room_id=room_id, since=mark, timeout=180)
        seconds, cpu = time.perf_counter() - begun, side.cpu()
        await asyncio.sleep(SETTLE_SECONDS)
        settled, highest = side.memory()
    if taken is not None:
        for values, value in zip(
            (taken.seconds, taken.cpu, taken.settled, taken.highest), (seconds, cpu, settled, highest), strict=True
        ):
            values.append(value)


async def know(phone: Human, room_id: str) -> None:
    """Wait until the phone's client knows the room and that it is encrypted."""
    await phone.join(room_id, timeout=60)


def start_table(curve: Iterable[tuple[int, Started, Started]]) -> str:
    lines = [
        "| rooms | bot | first answer | processor time | memory | at its highest |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for count, bare, ours in curve:
        for name, (seconds, cpu, settled, highest) in (("bare nio", bare.medians), ("Visavis", ours.medians)):
            lines.append(f"| {count} | {name} | {seconds:.2f} s | {cpu:.2f} s | {settled:.0f} MB | {highest:.0f} MB |")
        ratios = [other / one for one, other in zip(bare.medians, ours.medians, strict=True)]
        lines.append(f"| {count} | ratio | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join([*lines, "", f"Medians of {STARTS} starts; {machine()}."])


async def storm(crowd: Crowd) -> str:
    """Both bots running, the same phones speak in so many rooms at once of one, then of the other."""
    speaking = min(SPEAKING, len(crowd.visavis.rooms))
    pause = SECONDS_A_COMMAND * -(-speaking // SUPERVISEES)
    rates: dict[str, tuple[list[float], list[float]]] = {command: ([], []) for command in COMMANDS}
    async with crowd.bare.running(), crowd.visavis.running():
        for side in crowd.sides:
            for place in range(speaking):  # hands out the rooms' keys; nio loses some where it does many at once
                await know(crowd.phone(place), side.rooms[place])
                await ask(crowd.phone(place), side, side.rooms[place], "!help")
        allowed_at = time.monotonic() + pause
        turn = list(crowd.sides)
        for _ in range(WAVES):
            for command, (bare, ours) in rates.items():
                turn.reverse()
                for side in turn:
                    if side is crowd.visavis:
                        await asyncio.sleep(allowed_at - time.monotonic())
                        allowed_at = time.monotonic() + pause
                    found = ours if side is crowd.visavis else bare
                    found.append(speaking / await wave(crowd, side, command, speaking))
    return storm_table(speaking, rates)


async def wave(crowd: Crowd, side: Side, command: str, speaking: int) -> float:
    """Seconds from the first word until the last answer."""
    begun = time.perf_counter()
    body = f"{command} {secrets.token_hex(4)}" if side is crowd.bare else command
    await asyncio.gather(*(ask(crowd.phone(place), side, side.rooms[place], body) for place in range(speaking)))
    return time.perf_counter() - begun


async def ask(phone: Human, side: Side, room_id: str, body: str) -> None:
    mark = phone.mark()
    await phone.send_text(room_id, body)
    await phone.next_message(side.bot, lambda m: m.msgtype == "m.notice", room_id=room_id, since=mark, timeout=120)


def storm_table(speaking: int, rates: dict[str, tuple[list[float], list[float]]]) -> str:
    lines = [f"| {speaking} rooms at once, replies a second | bare nio | Visavis | ratio |", "|---|---:|---:|---:|"]
    for command, (bare, ours) in rates.items():
        lines.append(row(f"`{command}`", bare, ours))
    lines.append(row("all", [r for bare, _ in rates.values() for r in bare], [r for _, o in rates.values() for r in o]))
    return "\n".join([*lines, "", f"Medians of {WAVES} waves of each; {machine()}."])


def row(name: str, bare: Sequence[float], ours: Sequence[float]) -> str:
    one, other = statistics.median(bare), statistics.median(ours)
    return f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |"


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"

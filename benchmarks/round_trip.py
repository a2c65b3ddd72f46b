"""The encrypted round trip of `!book`, divided by that of a bare nio echo bot on the same Synapse.

Both sides are timed by the same people with the same clients, in rooms of three: from before the message is
encrypted until its answer has been decrypted. Visavis has committed the booking by then. The two take turns
in small blocks, each side going first every other time, so that whatever else the machine does hits both
alike.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp

from benchmarks.demo import ROOT, Administration, Booker
from tests.support.human import Human, Message

WARM_UP_ROUNDS = 3
SECONDS_A_COMMAND = 3.05  # a person has 20 commands a minute
Json = dict[str, Any]


@dataclass
class Seats:
    """A pair's two people, the bot in their room, and the room they share with the echo bot."""

    supervisee: Human
    supervisor: Human
    booker: Booker
    zone: ZoneInfo
    bot: str
    room_id: str
    echo: str
    echo_room_id: str
    next_command_at: float = field(default=0.0)


@dataclass(frozen=True)
class Times:
    """Round trips in seconds, of both sides of one run."""

    echo: list[float]
    book: list[float]

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """The table: a name, then minimum, median and 99th percentile."""
        echo, book = spread(self.echo), spread(self.book)
        yield "bare nio echo bot", [f"{seconds * 1000:.1f} ms" for seconds in echo]
        yield "`!book`, committed", [f"{seconds * 1000:.1f} ms" for seconds in book]
        yield "ratio", [f"{ours / bare:.2f}" for ours, bare in zip(book, echo, strict=True)]

    def table(self) -> str:
        """The table in Markdown, with a line on the rounds and the machine."""
        lines = ["| encrypted round trip | minimum | median | 99th percentile |", "|---|---:|---:|---:|"]
        lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in self.rows()]
        where = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        return "\n".join([*lines, "", f"{len(self.echo)} and {len(self.book)} rounds in turns; {where}."])


def spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median, and 99th percentile by nearest rank."""
    ordered = sorted(seconds)
    return ordered[0], statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1]


async def measure(demo: Json, state: Path, rounds: int) -> Times:
    """Time at least so many rounds of each side against a running demo."""
    times = Times([], [])
    async with AsyncExitStack() as stack:
        seats = [seat async for seat in take_seats(stack, demo, state)]
        for seat in seats:
            for _ in range(WARM_UP_ROUNDS):
                await echo_once(seat)
            await book_once(seat)
        sides: list[tuple[list[float], Callable[[Seats], Awaitable[float]]]] = [
            (times.echo, echo_once),
            (times.book, book_once),
        ]
        while len(times.book) < rounds:
            sides.reverse()
            for taken, once in sides:
                for seat in seats:
                    taken.append(await once(seat))
    return times


async def echo_once(seat: Seats) -> float:
    """Send a text to the echo bot and return the seconds until it is back."""
    text = f"!book {secrets.token_hex(8)}"
    mark, begun = seat.supervisee.mark(), time.perf_counter()
    await seat.supervisee.send_text(seat.echo_room_id, text)
    await seat.supervisee.next_message(seat.echo, lambda m: m.body == text, room_id=seat.echo_room_id, since=mark)
    return time.perf_counter() - begun


async def book_once(seat: Seats) -> float:
    """Book a free slot and return the seconds until the answer; untimed, see that it is booked and cancel it."""
    starts_at = (await seat.booker.free_slots())[-1]
    await asyncio.sleep(seat.next_command_at - time.monotonic())
    seat.next_command_at = time.monotonic() + SECONDS_A_COMMAND
    command = f"!book {starts_at.astimezone(seat.zone):%Y-%m-%d %H:%M}"
    told = seat.supervisor.mark()
    mark, begun = seat.supervisee.mark(), time.perf_counter()
    await seat.supervisee.send_text(seat.room_id, command)
    await seat.supervisee.next_message(seat.bot, lambda m: m.msgtype == "m.notice", room_id=seat.room_id, since=mark)
    taken = time.perf_counter() - begun
    await settle(seat, starts_at, told)
    return taken


async def settle(seat: Seats, starts_at: datetime, told: int) -> None:
    """See that the slot is booked and free it again, and that the room has heard all of it.

    Nothing of one round may fall into the next one's time.
    """
    appointment_id = await seat.booker.appointment_at(starts_at)
    asked = await news(seat, told)
    await seat.supervisor.reactions_to(asked.event_id, seat.bot, at_least=2)
    told = seat.supervisor.mark()
    await seat.booker.cancel(appointment_id)
    await news(seat, told)


async def news(seat: Seats, mark: int) -> Message:
    """What the bot tells the supervisor next."""
    to_supervisor = seat.supervisor.user_id
    return await seat.supervisor.next_message(
        seat.bot, lambda m: to_supervisor in m.mentions, room_id=seat.room_id, since=mark
    )


async def take_seats(stack: AsyncExitStack, demo: Json, state: Path) -> AsyncIterator[Seats]:
    """Log everybody in, seat each supervisee's first pair, and give it a room with the echo bot."""
    http = await stack.enter_async_context(aiohttp.ClientSession())
    administration = Administration(http, demo, state)
    echo = await stack.enter_async_context(running_echo_bot(administration, demo, state))
    people = {person["matrix_id"]: person for person in demo["people"]}
    humans: dict[str, Human] = {}
    for pair in {pair["supervisee"]: pair for pair in reversed(demo["pairs"])}.values():
        for user_id in {pair["supervisor"], pair["supervisee"]} - humans.keys():
            await administration.lift_rate_limit(user_id)
            phone = Human.log_in(demo["homeserver"], user_id, people[user_id]["password"], store=state)
            humans[user_id] = await stack.enter_async_context(phone)
        both = supervisor, supervisee = humans[pair["supervisor"]], humans[pair["supervisee"]]
        echo_room_id = await supervisor.create_room(supervisee.user_id, echo)
        for human in both:
            await human.join(pair["room_id"])
            await human.join(echo_room_id)
            await human.wait_joined(echo_room_id, echo)
        yield Seats(
            supervisee=supervisee,
            supervisor=supervisor,
            booker=await stack.enter_async_context(Booker.sign_in(demo, pair)),
            zone=ZoneInfo(people[supervisee.user_id]["time_zone"]),
            bot=demo["bot"],
            room_id=pair["room_id"],
            echo=echo,
            echo_room_id=echo_room_id,
        )


@asynccontextmanager
async def running_echo_bot(administration: Administration, demo: Json, state: Path) -> AsyncIterator[str]:
    """Run the echo bot in a process of its own, as Visavis runs in one; gives its Matrix ID."""
    user_id, password = f"@echo:{demo['server_name']}", secrets.token_urlsafe()
    await administration.make_account(user_id, password)
    await administration.lift_rate_limit(user_id)
    command = (sys.executable, "-m", "benchmarks.echo_bot", demo["homeserver"], user_id, password, str(state))
    with (state / "echo.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=log)
    try:
        yield user_id
    finally:
        process.terminate()
        await process.wait()

"""Two bridges on one outbox, killed with `kill -9` and their database stopped hard: nothing lost, little twice.

A mail may come twice where a bridge dies between the server's 250 and its own settling, with the same Message-ID.
`make test` runs a short form; `make faults` the two hundred kills within ten thousand mails, and twenty stops of the
database, that the promise names. `VISAVIS_SEED` repeats a run's dice.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from supervision.db import Database
from supervision.models import State
from tests.bridge.servers import free_port
from tests.support.bridges import Process, write_config
from tests.support.crashes import OwnServer, own_server
from tests.support.forks import Nursery
from tests.support.outboxes import book, enqueue, owed, reminders, wait_until_settled
from tests.support.sinks import Sink, own_sink, smtp_sink
from tests.support.smtp_wires import SmtpWire

LONG = os.environ.get("VISAVIS_LONG") == "1"
SEED = int(os.environ.get("VISAVIS_SEED", secrets.randbelow(1_000_000)))
KILLS, STOPS, MAILS, BOOKED = (200, 20, 10_000, 250) if LONG else (4, 1, 150, 50)
CONNECTIONS = 4
LEASE = 60.0  # seconds, at most, until what a killed bridge was sending is taken up again
MAIL = {
    "connections": CONNECTIONS,
    "timeout_seconds": 15 if LONG else 5,
    "tries": 100,
    "first_retry_seconds": 0.5,
    "longest_retry_seconds": 2.0,
}

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500 if LONG else 300)]


@dataclass
class Run:
    """Two bridges, each with a wire of its own to the one server, and the one database."""

    dice: random.Random
    own: OwnServer
    database: Database
    sink: Sink
    wires: tuple[SmtpWire, ...]
    bridges: tuple[Process, ...]
    kills: int = 0
    stops: int = 0

    @property
    def accepted(self) -> int:
        """How many mails have arrived, those twice that came twice."""
        return sum(len(times) for wire in self.wires for times in wire.accepted.values())

    async def wait_for(self, mails: int) -> None:
        while self.accepted < mails:  # noqa: ASYNC110 - other processes send them
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill one of the bridges and start it again."""
        bridge = self.dice.choice(self.bridges)
        await bridge.kill()
        self.kills += 1
        await bridge.start()

    async def stop_database(self) -> None:
        await self.own.crash(self.dice.choice((signal.SIGQUIT, signal.SIGKILL)))
        self.stops += 1
        await asyncio.sleep(self.dice.uniform(0, 2))
        await self.own.start()

    async def strike(self, kills: int, stops: int) -> None:
        """So often of each, at random moments of the first nine tenths of the mails."""
        moments = [(moment, self.kill) for moment in self.dice.sample(range(MAILS * 9 // 10), kills)]
        moments += [(moment, self.stop_database) for moment in self.dice.sample(range(MAILS * 9 // 10), stops)]
        for moment, strike in sorted(moments, key=lambda one: one[0]):
            await self.wait_for(moment)
            await asyncio.sleep(self.dice.uniform(0, 0.3))
            await strike()


@asynccontextmanager
async def open_run(nursery: Nursery, state: Path) -> AsyncIterator[Run]:
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(own_server())
        database = Database(own.url, pool_size=5)
        stack.push_async_callback(database.close)
        if LONG:
            with free_port() as port:
                pass
            sink = await stack.enter_async_context(smtp_sink(port))
        else:
            sink = await stack.enter_async_context(own_sink())
        wires = tuple([await stack.enter_async_context(SmtpWire(sink.address).listening()) for _ in range(2)])
        booked = await book(database, BOOKED)
        await enqueue(database, reminders(booked, MAILS - 2 * BOOKED))
        bridges = []
        for number, wire in enumerate(wires):
            config = await write_config(state / str(number), own.url, mail=MAIL | {"port": wire.port})
            bridges.append(await stack.enter_async_context(Process.run(config, nursery=nursery)))
        yield Run(random.Random(SEED), own, database, sink, wires, tuple(bridges))


async def end_leases(run: Run) -> None:
    """Let the time pass at once after which what a killed bridge was sending is taken up again."""
    for bridge in run.bridges:
        assert await bridge.stop() in (0, -signal.SIGTERM)  # that is one which has just been started
    async with run.database.transaction() as tx:
        await tx.execute(text("UPDATE notifications SET claimed_until = now() WHERE state = 'pending'"))
    for bridge in run.bridges:
        await bridge.start()


async def judge(run: Run, kills: int) -> None:
    """All were sent and have arrived; twice at most what was being sent at a kill, with the same Message-ID."""
    rows = await owed(run.database)
    arrived = run.sink.message_ids()
    assert Counter(row.state for row in rows.values()) == {State.SENT: MAILS}
    assert arrived.keys() == rows.keys()
    assert arrived.total() == run.accepted
    assert arrived.total() - MAILS <= CONNECTIONS * kills


@pytest.mark.parametrize(("kills", "stops"), [(KILLS, 0), (0, STOPS), (KILLS, STOPS)] if LONG else [(KILLS, STOPS)])
async def test_crashes_lose_no_mail(nursery: Nursery, tmp_path: Path, kills: int, stops: int) -> None:
    try:
        async with open_run(nursery, tmp_path) as run:
            await run.strike(kills, stops)
            assert (run.kills, run.stops) == (kills, stops)
            if not LONG:
                await end_leases(run)
            await wait_until_settled(run.database, LEASE + 60)
            await judge(run, kills)
            for bridge in run.bridges:
                assert await bridge.stop() == 0
    except BaseException as error:
        error.add_note(f"VISAVIS_SEED={SEED}")
        raise

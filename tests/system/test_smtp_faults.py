"""A mail server and a network that fail at every step: what may be tried again arrives, once, and the rest is told.

The faults are made by a wire between the bridge, a process of its own, and a mail server. `make test` runs a short
form with the tests' own server; `make faults` the hundred mails, the minute of silence and Debian's `smtp-sink` that
the promise names.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import delete

from embedded.postgresql import PostgreSQL
from supervision import appointments
from supervision.audit import Actor
from supervision.db import Database
from supervision.models import State
from supervision.models import notifications as table
from supervision.notifications import HIGH, LOW
from tests.bridge.conftest import until
from tests.bridge.servers import certificate, free_port
from tests.support.bridges import Process, do, write_config
from tests.support.forks import Nursery
from tests.support.outboxes import book, count_states, enqueue, owed, reminders, wait_until_settled
from tests.support.sinks import Sink, own_sink, smtp_sink
from tests.support.smtp_wires import (
    CONNECT,
    DATA,
    DOT,
    DROP,
    EHLO,
    LOSE,
    MAIL,
    RCPT,
    RESET,
    SLOW,
    STALL,
    STEPS,
    TRICKLE,
    Fault,
    SmtpWire,
)

LONG = os.environ.get("VISAVIS_LONG") == "1"
MAILS = 100 if LONG else 6
QUEUE, CANCELLED = (10_000, 100) if LONG else (1_000, 8)
CONNECTIONS = 10
STALLED = 60.0 if LONG else 2.5  # seconds
# The long form has the configuration's own timeouts.
TIMEOUT, DATA_TIMEOUT = (15.0, 120.0) if LONG else (1.0, 1.5)
LINGER = 15.0 if LONG else 0.0  # seconds that a fault lasts after its every step was met
SLOWNESS = 0.4  # seconds that a reply takes
SLACK = 3.0  # seconds by which a busy machine may be late
RETRIES = {"tries": 100, "first_retry_seconds": 0.2, "longest_retry_seconds": 1.0}
TIMEOUTS = {"timeout_seconds": TIMEOUT, "data_timeout_seconds": DATA_TIMEOUT}
P95 = 5.0  # seconds

OF_A_MAIL = (MAIL, RCPT, DATA, DOT)
TO_THE_BRIDGE = (CONNECT, EHLO)


def each(steps: Sequence[str]) -> list[Sequence[str]]:
    """Each step by itself; in the short form all in turn, so that each mail meets another first."""
    return [[step] for step in steps] if LONG else [steps]


pytestmark = [pytest.mark.faults, pytest.mark.timeout(900 if LONG else 300)]


@dataclass
class Post:
    """A bridge with its database, the wire, and the server behind it."""

    database: Database
    config: Path
    nursery: Nursery
    bridge: Process
    wire: SmtpWire
    sink: Sink

    async def book(self) -> None:
        """Owe MAILS mails, nothing else being owed."""
        async with self.database.transaction() as tx:
            await tx.execute(delete(table))
        await book(self.database, MAILS // 2)

    async def judge(self, most: int) -> None:
        """Each mail owed was sent and has arrived, `most` times at most, and nothing else."""
        rows = await owed(self.database)
        assert Counter(row.state for row in rows.values()) == {State.SENT: MAILS}
        assert {message_id: 1 <= count <= most for message_id, count in self.arrived(rows).items()} == dict.fromkeys(
            rows, True
        )

    def arrived(self, rows: Sequence[str] | dict[str, Any]) -> dict[str, int]:
        """How often each of these has arrived."""
        found = self.sink.message_ids()
        return {message_id: found[message_id] for message_id in rows}


@asynccontextmanager
async def open_post(
    postgresql: PostgreSQL, template: str, nursery: Nursery, state: Path, **mail: Any
) -> AsyncIterator[Post]:
    """Start all that belongs to a post, on a database of its own."""
    name = f"post_{secrets.token_hex(6)}"
    superuser = await asyncpg.connect(postgresql.url("postgres", "postgres"))
    await superuser.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER visavis_owner")
    url = postgresql.dsn(name, "visavis_app")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(superuser.close)
        stack.push_async_callback(superuser.execute, f"DROP DATABASE {name} WITH (FORCE)")
        database = Database(url)
        stack.push_async_callback(database.close)
        if LONG:
            with free_port() as port:
                pass
            sink = await stack.enter_async_context(smtp_sink(port))
        else:
            sink = await stack.enter_async_context(own_sink())
        wire = await stack.enter_async_context(SmtpWire(sink.address).listening())
        environment = mail.pop("environment", {})
        values = {"port": wire.port, "connections": CONNECTIONS, **RETRIES, **TIMEOUTS, **mail}
        config = await write_config(state, url, mail=values)
        bridge = await stack.enter_async_context(Process.run(config, nursery=nursery, **environment))
        yield Post(database, config, nursery, bridge, wire, sink)


@pytest.fixture(scope="module")
async def post(
    postgresql: PostgreSQL, template: str, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Post]:
    """One bridge lives through all the faults."""
    async with open_post(postgresql, template, nursery, tmp_path_factory.mktemp("post")) as post:
        yield post


async def suffer(post: Post, fault: Fault, seconds: float, *, stall: float = STALLED) -> list[tuple[str, float]]:
    """Book while this goes wrong, until all steps were met, and for so many seconds more if a mail is still untried.

    Gives the steps and seconds after which the bridge hung up where it was kept waiting; it may do so after this.
    """
    post.wire.break_with(fault, stall=stall)
    await post.wire.cut()  # a connection that was kept open would not meet with what happens at its beginning
    await post.book()
    try:
        await until(lambda: post.wire.met.keys() == set(fault.steps), 60)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            rows = await owed(post.database)
            if all(row.error or row.state != State.PENDING for row in rows.values()):
                break
            await asyncio.sleep(0.1)
    finally:
        held = post.wire.held
        post.wire.break_with(None)
    return held


def expect_hung_up(held: Sequence[tuple[str, float]], steps: Sequence[str]) -> None:
    """Whoever was kept waiting at each of these steps had enough after its timeout, and not much later."""
    assert {step for step, _ in held} == set(steps)
    longest = {step: grant(step) + SLACK for step in steps}
    assert [(step, waited) for step, waited in held if not grant(step) - 0.1 <= waited <= longest[step]] == []


def grant(step: str) -> float:
    """For how many seconds the bridge waits for the reply at this step."""
    return DATA_TIMEOUT if step in (DATA, DOT) else TIMEOUT


@pytest.mark.parametrize("steps", each(STEPS))
async def test_a_no_for_now_is_tried_again(post: Post, steps: Sequence[str]) -> None:
    await suffer(post, Fault(steps, "451 4.3.0 Not now"), LINGER)
    await wait_until_settled(post.database, 60)
    await post.judge(1)


@pytest.mark.parametrize("steps", each(STEPS))
async def test_a_server_that_closes_is_tried_again(post: Post, steps: Sequence[str]) -> None:
    await suffer(post, Fault(steps, "421 4.3.2 Closing"), LINGER)
    await wait_until_settled(post.database, 60)
    await post.judge(1)


@pytest.mark.parametrize("steps", each(TO_THE_BRIDGE))
async def test_a_server_that_refuses_the_bridge_is_tried_again(post: Post, steps: Sequence[str]) -> None:
    """It says no to us and not to a mail, and the operator can mend that."""
    await suffer(post, Fault(steps, "554 5.7.1 Go away"), LINGER)
    await wait_until_settled(post.database, 60)
    await post.judge(1)


@pytest.mark.parametrize("steps", each(OF_A_MAIL))
async def test_a_no_for_good_is_parked_and_told(post: Post, steps: Sequence[str]) -> None:
    before = parked(await post.bridge.metrics())
    await suffer(post, Fault(steps, "550 5.7.1 Not from you"), 30)
    states = await wait_until_settled(post.database, 60)
    rows = await owed(post.database)
    assert states == {State.PARKED: MAILS}
    assert post.arrived(rows) == dict.fromkeys(rows, 0)
    metrics = await post.bridge.metrics()
    assert parked(metrics) - before == MAILS
    assert metrics["visavis_notifications", 'channel="mail",state="parked"'] == MAILS
    listed = [line.split("\t") for line in (await do(post.nursery, post.config, "notifications", "list")).splitlines()]
    assert {(line[0], line[4]) for line in listed} == {(str(row.id), "smtp_550_5.7.1") for row in rows.values()}
    await do(post.nursery, post.config, "notifications", "retry")
    await wait_until_settled(post.database, 60)
    await post.judge(1)


def parked(metrics: dict[tuple[str, str], float]) -> float:
    """How many mails this bridge has given up."""
    return sum(
        value
        for (name, labels), value in metrics.items()
        if name == "visavis_mails_total" and 'outcome="parked"' in labels
    )


@pytest.mark.parametrize("what", [DROP, RESET])
@pytest.mark.parametrize("steps", each(STEPS))
async def test_a_connection_that_breaks_is_tried_again(post: Post, steps: Sequence[str], what: str) -> None:
    await suffer(post, Fault(steps, what), LINGER)
    await wait_until_settled(post.database, 60)
    await post.judge(1)


async def test_a_mail_whose_last_reply_is_lost_comes_twice_at_most(post: Post) -> None:
    await suffer(post, Fault([DOT], LOSE), 30)
    await wait_until_settled(post.database, 60)
    await post.judge(2)
    rows = await owed(post.database)
    assert {row.id: post.wire.lost[message_id] for message_id, row in rows.items()} == {
        row.id: 1 for row in rows.values()
    }


@pytest.mark.parametrize("steps", each(STEPS))
async def test_a_silent_server_keeps_nobody_beyond_the_timeout(post: Post, steps: Sequence[str]) -> None:
    """The server may take its time for the content; a minute of it is within what the bridge grants by default."""
    held = await suffer(post, Fault(steps, STALL), STALLED if LONG else 0)
    await wait_until_settled(post.database, 3 * STALLED + 60)
    await post.judge(1)
    expect_hung_up(held, [step for step in steps if grant(step) < STALLED])


@pytest.mark.parametrize("steps", each(STEPS))
async def test_a_reply_without_end_keeps_nobody_beyond_the_timeout(post: Post, steps: Sequence[str]) -> None:
    held = await suffer(post, Fault(steps, TRICKLE), LINGER)
    await wait_until_settled(post.database, DATA_TIMEOUT + 60)
    await post.judge(1)
    expect_hung_up(held, steps)


async def test_a_slow_server_is_waited_for(post: Post) -> None:
    """Every reply comes byte by byte, none of them later than the timeout."""
    await suffer(post, Fault(STEPS, SLOW), 180, stall=SLOWNESS)
    assert Counter(row.attempts for row in (await owed(post.database)).values()) == {1: MAILS}
    await wait_until_settled(post.database, 60)
    await post.judge(1)


async def test_a_wrong_certificate_gets_no_mail(
    postgresql: PostgreSQL, template: str, nursery: Nursery, tmp_path: Path
) -> None:
    right, authority = certificate(tmp_path, "127.0.0.1")
    (tmp_path / "stranger").mkdir()
    wrong, _ = certificate(tmp_path / "stranger", "127.0.0.1")
    environment = {"SSL_CERT_FILE": str(authority)}
    async with open_post(postgresql, template, nursery, tmp_path, security="tls", environment=environment) as post:
        post.wire.tls = wrong
        await post.book()
        try:
            rows = await owed(post.database)
            async with asyncio.timeout(60):
                while "smtp_tls" not in {row.error for row in rows.values()}:
                    await asyncio.sleep(0.1)
                    rows = await owed(post.database)
            assert Counter(row.state for row in rows.values()) == {State.PENDING: MAILS}
            assert {row.error for row in rows.values()} <= {"smtp_tls", None}
            assert post.sink.message_ids() == {}
        finally:
            post.wire.tls = right
        await wait_until_settled(post.database, 60)
        await post.judge(1)


async def test_what_is_urgent_overtakes_a_long_queue(
    postgresql: PostgreSQL, template: str, nursery: Nursery, tmp_path: Path
) -> None:
    async with open_post(postgresql, template, nursery, tmp_path) as post:
        booked = await book(post.database, CANCELLED + (400 if LONG else 20))
        await wait_until_settled(post.database, 60)
        cancelled, queued = booked[:CANCELLED], booked[CANCELLED:]
        await enqueue(post.database, reminders(queued, QUEUE, priority=LOW))
        committed: dict[uuid.UUID, float] = {}
        for one in cancelled:
            await asyncio.sleep(0.1)
            async with post.database.transaction() as tx:
                await appointments.cancel(tx, Actor(one.supervisor_id, "web"), one.id, now=datetime.now(UTC))
            committed[one.id] = time.monotonic()
        urgent = {
            message_id: committed[row.appointment_id]
            for message_id, row in (await owed(post.database)).items()
            if row.priority == HIGH
        }
        assert len(urgent) == 2 * CANCELLED
        await until(lambda: urgent.keys() <= post.wire.accepted.keys(), 60)
        waited = sorted(post.wire.accepted[message_id][0] - at for message_id, at in urgent.items())
        left = (await count_states(post.database))[State.PENDING]
        assert left > 0  # there was a queue all the time
        assert waited[len(waited) * 95 // 100 - 1] < P95
        if LONG:
            await wait_until_settled(post.database, 600)

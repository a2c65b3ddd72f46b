"""A process killed just before, within and just after each step that its promises hang on, found from outside.

Wires between it and PostgreSQL, the mail server and the homeserver stop the one request at that moment; then comes
`kill -9`. `make test` does each once, `make faults` each twenty times, as the promise names.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from embedded.postgresql import PORT, PostgreSQL
from supervision import availability
from supervision.appointments import Appointment
from supervision.db import Database
from supervision.models import Channel, State, appointments, audit_entries, holds, journal, notifications, pairs
from supervision.pairs import Pair
from supervision.texts import Span, reader
from tests.support.bridges import Process, write_config
from tests.support.forks import HERE, Nursery
from tests.support.gates import Gates, SendGate
from tests.support.human import Human
from tests.support.outboxes import book, enqueue, owed, reminders, wait_until_settled
from tests.support.postgres_wires import CommitGate, PostgresWire
from tests.support.practice import Practice
from tests.support.sample import add_pair
from tests.support.sinks import own_sink
from tests.support.smtp_wires import Gate, SmtpWire
from tests.support.wires import Moment

LONG = os.environ.get("VISAVIS_LONG") == "1"
ROUNDS = 20 if LONG else 1
SOON = 120.0  # seconds within which a step is reached, or all is settled

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200 if LONG else 300)]

BOOKS = """
import asyncio, sys, uuid
from datetime import UTC, datetime
from supervision import appointments, journal
from supervision.audit import Actor
from supervision.db import Database

async def main(url, event_id, room_id, person_id, starts_at):
    database, now = Database(url, pool_size=2), datetime.now(UTC)
    async with database.transaction() as tx:
        pair, fresh = await journal.hear(
            tx, event_id, room_id, session_id=None, message_index=None, outcome="done", now=now)
        if fresh:
            actor = Actor(uuid.UUID(person_id), "matrix")
            await appointments.book(tx, actor, pair, datetime.fromisoformat(starts_at), now=now)
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""

AnyGate = Gate | CommitGate | SendGate
Closing = Callable[[Moment], AnyGate]


def writes(words: str) -> Callable[[Sequence[str]], bool]:
    """Whether a transaction has a statement with these words."""
    return lambda statements: any(words in statement for statement in statements)


def through(wire: PostgresWire, postgresql: PostgreSQL, database_name: str) -> str:
    """The application's address of that database by way of the wire."""
    return (
        f"postgresql+asyncpg://visavis_app:{postgresql.passwords['visavis_app']}@127.0.0.1:{wire.port}/{database_name}"
    )


@pytest.fixture
async def database_wire(postgresql: PostgreSQL) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(str(postgresql.socket_folder / f".s.PGSQL.{PORT}")).listening() as wire:
        yield wire


@dataclass(frozen=True)
class Traces:
    """What all bookings so far have left."""

    events: int
    booked: int
    held: int
    audited: int
    mails: int
    messages: int

    @classmethod
    def of(cls, bookings: int) -> Traces:
        """A booking's: an event, an appointment, two people's time, an entry, and the request to the supervisor."""
        return cls(bookings, bookings, 2 * bookings, bookings, bookings, bookings)


async def find_traces(database: Database) -> Traces:
    told = select(func.count()).select_from(notifications)
    counts = (
        select(func.count()).select_from(journal),
        select(func.count()).select_from(appointments),
        select(func.count()).select_from(holds),
        select(func.count()).where(audit_entries.c.action == "appointment.book", audit_entries.c.success),
        told.where(notifications.c.channel == Channel.MAIL),
        told.where(notifications.c.channel == Channel.MATRIX),
    )
    async with database.transaction() as tx:
        return Traces(*[(await tx.scalar(one)) or 0 for one in counts])


async def free_times(database: Database, pair: Pair) -> list[datetime]:
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        since, until = now + timedelta(days=2), now + timedelta(days=60)
        return [slot.starts_at for slot in await availability.slots(tx, pair, since=since, until=until, now=now)]


async def start_booking(url: str, event_id: str, pair: Pair, starts_at: datetime) -> asyncio.subprocess.Process:
    words = (url, event_id, "!room:example.org", str(pair.supervisee.id), starts_at.isoformat())
    return await asyncio.create_subprocess_exec(sys.executable, "-c", BOOKS, *words, cwd=HERE)


async def test_a_booking_is_there_with_all_its_news_or_not_at_all(
    postgresql: PostgreSQL,
    database_name: str,
    database: Database,
    database_wire: PostgresWire,
    nursery: Nursery,
    tmp_path: Path,
) -> None:
    """Killed around its COMMIT, and done again as a command is that the homeserver gives once more."""
    pair = await add_pair(database, now=datetime.now(UTC))
    async with database.transaction() as tx:
        await tx.execute(update(pairs).values(room_id="!room:example.org"))
    times, done = iter(await free_times(database, pair)), 0
    for _, moment in itertools.product(range(ROUNDS), Moment):
        event_id, starts_at = f"${secrets.token_hex(8)}", next(times)
        gate = database_wire.close_gate(writes("INSERT INTO appointments"), moment)
        child = await start_booking(through(database_wire, postgresql, database_name), event_id, pair, starts_at)
        await reach(gate)
        child.kill()
        await child.wait()
        await database_wire.cut()
        assert await find_traces(database) == Traces.of(done + (moment is not Moment.BEFORE))
        again = await start_booking(postgresql.dsn(database_name, "visavis_app"), event_id, pair, starts_at)
        assert await again.wait() == 0
        done += 1
        assert await find_traces(database) == Traces.of(done)
    async with own_sink() as sink:
        config = await write_config(
            tmp_path, postgresql.dsn(database_name, "visavis_app"), mail={"port": sink.address[1]}
        )
        async with Process.run(config, nursery=nursery):
            assert await wait_until_settled(database, SOON) == {State.SENT: done}
        assert sink.message_ids() == dict.fromkeys(await owed(database), 1)


async def reach(gate: AnyGate) -> None:
    await asyncio.wait_for(gate.reached.wait(), SOON)


async def test_a_mail_is_sent_at_least_once_and_known_when_sent_twice(
    postgresql: PostgreSQL,
    database_name: str,
    database: Database,
    database_wire: PostgresWire,
    nursery: Nursery,
    tmp_path: Path,
) -> None:
    """The bridge killed around the server's 250 and around the COMMIT of the settling."""
    async with (
        own_sink() as sink,
        SmtpWire(sink.address).listening() as mail_wire,
    ):
        mail = {"port": mail_wire.port, "connections": 2}
        config = await write_config(tmp_path, through(database_wire, postgresql, database_name), mail=mail)
        async with Process.run(config, nursery=nursery) as bridge:
            [booked] = await book(database, 1)
            await wait_until_settled(database, SOON)

            def settling(moment: Moment) -> CommitGate:
                return database_wire.close_gate(writes("state = 'sent'"), moment)

            # Once where the server has not got it, or it was settled; twice where only the server knows of it. Just
            # after the 250 it may be either.
            steps: list[tuple[Closing, Moment, int, int]] = [
                (mail_wire.close_gate, Moment.BEFORE, 1, 1),
                (mail_wire.close_gate, Moment.UNANSWERED, 2, 2),
                (mail_wire.close_gate, Moment.AFTER, 1, 2),
                (settling, Moment.BEFORE, 2, 2),
                (settling, Moment.UNANSWERED, 1, 1),
                (settling, Moment.AFTER, 1, 1),
            ]
            for _, (close, moment, least, most) in itertools.product(range(ROUNDS), steps):
                gate = close(moment)
                message_id = await owe_a_reminder(database, booked)
                await reach(gate)
                await bridge.kill()
                await mail_wire.cut()
                await database_wire.cut()
                await end_leases(database)
                await bridge.start()
                states = await wait_until_settled(database, SOON)
                assert states.keys() == {State.SENT}
                assert least <= sink.message_ids()[message_id] <= most
            assert sink.message_ids().keys() == (await owed(database)).keys()


async def owe_a_reminder(database: Database, booked: Appointment) -> str:
    """One mail; gives its Message-ID."""
    before = set(await owed(database))
    await enqueue(database, reminders([booked], 1))
    [message_id] = set(await owed(database)) - before
    return message_id


async def end_leases(database: Database) -> None:
    """Let the time pass at once after which what a killed bridge was sending is taken up again."""
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE notifications SET claimed_until = now() WHERE state = 'pending'"))


@asynccontextmanager
async def bot_behind(
    practice: Practice, nursery: Nursery, gates: Gates, wire: PostgresWire, name: str
) -> AsyncIterator[Process]:
    """The practice's bot as a process of its own, its homeserver and its database behind gates."""
    await practice.stop_bot()
    config = await write_config(
        practice.state / "process",
        through(wire, practice.servers.postgresql, name),
        matrix={
            "homeserver": gates.url,
            "bot": practice.bot,
            "as_token": practice.servers.synapse.as_token,
            "store": str(practice.config.matrix.store),
        },
    )
    async with Process.run(config, "bot", nursery=nursery) as bot:
        yield bot


async def test_a_command_takes_effect_once_and_its_news_shows_once(
    practice: Practice, database_name: str, database_wire: PostgresWire, nursery: Nursery
) -> None:
    """The bot killed around the COMMIT of a command and around the sending of what it says to it."""
    pair = await practice.add_pair()
    times = (await free_times(practice.database, pair))[: 6 * ROUNDS]
    async with (
        Gates.before(practice.homeserver) as gates,
        practice.phones(pair) as (ana, bruno),
    ):
        assert isinstance(gates, Gates)
        async with bot_behind(practice, nursery, gates, database_wire, database_name) as bot:

            def command(moment: Moment) -> CommitGate:
                return database_wire.close_gate(writes("INSERT INTO journal"), moment)

            closing: list[Closing] = [command, gates.close_gate]
            points = itertools.product(range(ROUNDS), closing, Moment)
            for starts_at, (_, close, moment) in zip(times, points, strict=True):
                gate = close(moment)
                local = starts_at.astimezone(pair.supervisee.zone)
                await bruno.send_text(pair.room_id or "", f"!book {local:%d/%m/%Y %H:%M}")
                await reach(gate)
                await bot.kill()
                await database_wire.cut()
                await bot.start()
                await expect_told(practice, pair, ana, bruno, times[: times.index(starts_at) + 1])


async def expect_told(practice: Practice, pair: Pair, ana: Human, bruno: Human, times: Sequence[datetime]) -> None:
    """Soon each of these is booked once, Bruno has been answered once for each, and Ana asked once."""
    answered = [told(pair, pair.supervisee.id, at) for at in times]
    asked = [told(pair, pair.supervisor.id, at) for at in times]
    bot = practice.bot
    await bruno.wait_for(lambda: len(answers(bruno, bot)) >= len(times) or None, "an answer", SOON)
    await ana.wait_for(lambda: len(questions(ana, bot)) >= len(times) or None, "a question", SOON)
    await wait_until_told(practice.database)
    assert Counter(which(answered, body) for body in answers(bruno, bot)) == Counter(answered)
    assert Counter(which(asked, body) for body in questions(ana, bot)) == Counter(asked)
    async with practice.database.transaction() as tx:
        booked = list(await tx.scalars(select(appointments.c.starts_at).order_by(appointments.c.starts_at)))
    assert booked == list(times)


def answers(human: Human, bot: str) -> list[str]:
    """What the bot has said to whoever asked for a time."""
    return [message.body for message in human.heard(bot) if message.body.startswith("Request sent")]


def questions(human: Human, bot: str) -> list[str]:
    """What it has said to this person by name, less its introduction."""
    mentioned = [message.body for message in human.heard(bot) if human.user_id in message.mentions]
    return [body for body in mentioned if "!ajuda" not in body]


def told(pair: Pair, person_id: object, starts_at: datetime) -> str:
    """A time as that person reads it."""
    person = next(one for one in pair.people if one.id == person_id)
    span = Span(starts_at, starts_at + timedelta(minutes=50), pair.other(person.id).time_zone)
    return reader(person.language, person.time_zone).span(span)


def which(spans: Sequence[str], body: str) -> str:
    """The one time of these that a message speaks of."""
    [span] = [span for span in spans if span in body]
    return span


async def wait_until_told(database: Database) -> None:
    """Wait until nothing that is due in the room is open."""
    query = select(func.count()).where(
        notifications.c.channel == Channel.MATRIX,
        notifications.c.state.in_((State.PENDING, State.WAITING, State.PARKED)),
        notifications.c.send_at <= func.now(),
    )
    async with asyncio.timeout(SOON):
        while True:
            async with database.transaction() as tx:
                if not await tx.scalar(query):
                    return
            await asyncio.sleep(0.1)

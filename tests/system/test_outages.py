"""What the people in a room notice when the homeserver, the database or the disk fails: an answer that comes later.

`make test` runs a short form; `make faults` the ten minutes without homeserver that the promise names.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from sqlalchemy import select, text
from structlog.testing import capture_logs

import migrations
import visavis
from bot.app import Bot
from embedded.postgresql import PostgreSQL, start_postgresql
from embedded.servers import Servers
from embedded.synapse import Synapse, start_synapse
from supervision import appointments, availability
from supervision.audit import Actor
from supervision.db import Database, lock_people
from supervision.models import Channel, State, Status, journal, notifications
from supervision.models import appointments as appointments_table
from supervision.pairs import Pair
from supervision.people import Person
from supervision.texts import Span, reader
from tests.support.demo import HERE, Phone
from tests.support.human import Human
from tests.support.practice import Practice, open_practice
from tests.support.proxy import Proxy

LONG = os.environ.get("VISAVIS_LONG") == "1"
AWAY = 600.0 if LONG else 2.5  # seconds without homeserver
STOPS = (signal.SIGINT, signal.SIGQUIT) if LONG else (signal.SIGQUIT,)  # restarted, and crashed
SOON = 120.0  # seconds after which everything is delivered again

pytestmark = pytest.mark.faults

Place = Callable[[str, str], bool]


class Gate(Proxy):
    """Holds up one request for ever: before the homeserver hears it, or before its answer comes back."""

    def __init__(self, target: str, http: aiohttp.ClientSession) -> None:
        super().__init__(target, http)
        self.reached = asyncio.Event()
        self._place: Place | None = None
        self._answered = False

    def close(self, place: Place, *, answered: bool) -> None:
        """Hold up the next request at this (method, path); `answered`: the homeserver has done it by then."""
        self._place, self._answered = place, answered
        self.reached.clear()

    async def pass_on(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/_matrix/client/v3")
        if self._place is None or not self._place(request.method, path):
            return await super().pass_on(request)
        self._place = None
        if self._answered:
            await super().pass_on(request)
        self.reached.set()
        await asyncio.Event().wait()
        raise web.HTTPServiceUnavailable


def a_message(method: str, path: str) -> bool:
    return method == "PUT" and "/send/m.room.encrypted/" in path


def a_reaction(method: str, path: str) -> bool:
    return method == "PUT" and "/send/m.reaction/" in path


@asynccontextmanager
async def at_the_gate(practice: Practice) -> AsyncIterator[Gate]:
    """The practice's bot moved behind a gate."""
    async with Gate.before(practice.homeserver) as gate:
        assert isinstance(gate, Gate)
        await practice.stop_bot()
        matrix = practice.config.matrix.model_copy(update={"homeserver": gate.url})
        practice.config = practice.config.model_copy(update={"matrix": matrix})
        await practice.start_bot()
        yield gate
        await practice.stop_bot()


def answers(human: Human, bot: str, since: int = 0) -> list[str]:
    return [message.body for message in human.heard(bot, since=since) if message.msgtype == "m.notice"]


def news(human: Human, bot: str, since: int = 0) -> list[str]:
    """What was told to this person by name, less the introduction."""
    mentioned = [message for message in human.heard(bot, since=since) if human.user_id in message.mentions]
    return [message.body for message in mentioned if "!help" not in message.body and "!ajuda" not in message.body]


async def wait_for_all(human: Human, find: Callable[[], list[str]], count: int) -> list[str]:
    """So many of these, soon."""
    return await human.wait_for(lambda: found if len(found := find()) >= count else None, f"{count} messages", SOON)


def told(person: Person, pair: Pair, starts_at: datetime) -> str:
    """A time of the practice's 50 minutes as this person reads it."""
    span = Span(starts_at, starts_at + timedelta(minutes=50), pair.other(person.id).time_zone)
    return reader(person.language, person.time_zone).span(span)


async def free_times(practice: Practice, pair: Pair) -> list[datetime]:
    now = datetime.now(UTC)
    async with practice.database.transaction() as tx:
        free = await availability.slots(tx, pair, since=now, until=now + timedelta(days=30), now=now)
    return [slot.starts_at for slot in free]


def booking(pair: Pair, starts_at: datetime) -> str:
    """The command by which the supervisee books that time."""
    zone = reader(pair.supervisee.language, pair.supervisee.time_zone).zone
    return starts_at.astimezone(zone).strftime("!book %d/%m/%Y %H:%M")


async def book_on_the_web(practice: Practice, pair: Pair, starts_at: datetime) -> None:
    async with practice.database.transaction() as tx:
        await appointments.book(tx, Actor(pair.supervisee.id, "web"), pair, starts_at, now=datetime.now(UTC))


async def booked(database: Database) -> list[datetime]:
    async with database.transaction() as tx:
        rows = await tx.scalars(
            select(appointments_table.c.starts_at)
            .where(appointments_table.c.status.in_((Status.REQUESTED, Status.CONFIRMED)))
            .order_by(appointments_table.c.starts_at)
        )
        return list(rows)


async def wait_until_settled(database: Database, timeout: float = SOON) -> None:
    """Wait until nothing that is due on Matrix is open in the outbox."""
    query = select(notifications.c.kind, notifications.c.state, notifications.c.attempts, notifications.c.error).where(
        notifications.c.channel == Channel.MATRIX,
        notifications.c.state.in_((State.PENDING, State.WAITING, State.PARKED)),
        notifications.c.send_at <= datetime.now(UTC),
    )
    rows: list[Any] = []
    try:
        async with asyncio.timeout(timeout):
            while True:
                async with database.transaction() as tx:
                    rows = list(await tx.execute(query))
                if not rows:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TimeoutError(f"still open: {rows}") from None


async def journaled(database: Database) -> dict[str, str]:
    async with database.transaction() as tx:
        return {row.event_id: row.outcome for row in await tx.execute(select(journal.c.event_id, journal.c.outcome))}


# A crash in the middle of a handler


async def test_a_crash_in_the_middle_of_an_answer(practice: Practice) -> None:
    """Before the commit, between commit and send, between send and settle: answered once."""
    pair = await practice.add_pair()
    room, bot, commands = pair.room_id or "", practice.bot, []
    first, second = (await free_times(practice, pair))[:2]
    async with at_the_gate(practice) as gate, practice.phones(pair) as (ana, bruno):
        async with practice.database.transaction() as tx:
            await lock_people(tx, [pair.supervisee.id])
            commands.append(await bruno.send_text(room, booking(pair, first)))
            await wait_until_somebody_waits_for_a_lock(practice.database)
            await practice.stop_bot()
        assert await journaled(practice.database) == {}
        await practice.start_bot()
        await bruno.next_message(bot, lambda message: message.body.startswith("Request sent"))

        for answered in (False, True):
            await wait_until_settled(practice.database)
            gate.close(a_message, answered=answered)
            commands.append(await bruno.send_text(room, "!language"))
            await asyncio.wait_for(gate.reached.wait(), 60)
            assert await journaled(practice.database) == dict.fromkeys(commands, "done")
            await practice.stop_bot()
            await practice.start_bot()
            await bruno.next_message(bot, lambda message: message.body.startswith("Which"))

        commands.append(await bruno.send_text(room, booking(pair, second)))
        await bruno.next_message(bot, lambda message: message.body.startswith("Request sent"))
        await ana.next_message(bot, lambda message: told(pair.supervisor, pair, second) in message.body)
        await wait_until_settled(practice.database)
        assert [body.split()[0] for body in answers(bruno, bot)] == ["Request", "Which", "Which", "Request"]
        assert [told(pair.supervisor, pair, first) in body for body in news(ana, bot)] == [True, False]
        assert await journaled(practice.database) == dict.fromkeys(commands, "done")
        assert await booked(practice.database) == [first, second]


async def test_a_crash_in_the_middle_of_a_question(practice: Practice) -> None:
    """Between a question and its reactions, and between two of them: asked once, and answered by one tap."""
    pair = await practice.add_pair()
    bot, times = practice.bot, await free_times(practice, pair)
    async with at_the_gate(practice) as gate, practice.phones(pair) as (ana, bruno):
        for starts_at, place, answered in zip(
            times, (a_message, a_reaction, a_reaction), (True, False, True), strict=False
        ):
            gate.close(place, answered=answered)
            await book_on_the_web(practice, pair, starts_at)
            await asyncio.wait_for(gate.reached.wait(), 60)
            await practice.stop_bot()
            request = await ana.next_message(bot, lambda message: "Bruno pede" in message.body)
            tap = await ana.react(request.room_id, request.event_id, "✅")
            await practice.start_bot()
            await bruno.next_message(bot, lambda message: "Confirmed by Ana" in message.body)
            assert (await journaled(practice.database))[tap] == "done"
            await wait_until_settled(practice.database)
            assert len(await ana.reactions_to(request.event_id, bot)) in (0, 1, 2)
        assert len(news(ana, bot)) == 3
        assert len(news(bruno, bot)) == 3


async def wait_until_somebody_waits_for_a_lock(database: Database) -> None:
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with asyncio.timeout(60):
        while True:
            async with database.transaction() as tx:
                if await tx.scalar(query):
                    return
            await asyncio.sleep(0.05)


# The homeserver away


class Frozen:
    """A homeserver that takes requests and does not answer them."""

    def __init__(self, synapse: Synapse) -> None:
        self.synapse = synapse

    async def leave(self) -> None:
        os.kill(self.synapse.child.pid, signal.SIGSTOP)

    async def come_back(self, _: PostgreSQL) -> Synapse:
        os.kill(self.synapse.child.pid, signal.SIGCONT)
        return self.synapse


class Killed:
    """A homeserver that nobody can connect to."""

    def __init__(self, synapse: Synapse) -> None:
        self.synapse = synapse

    async def leave(self) -> None:
        os.kill(self.synapse.child.pid, signal.SIGKILL)
        await self.synapse.stop()

    async def come_back(self, postgresql: PostgreSQL) -> Synapse:
        return await start_synapse(self.synapse.folder.path, postgresql=postgresql, hash_rounds=4)


@pytest.mark.timeout(2 * AWAY + 400)
async def test_homeserver_away(servers: Servers, database_name: str, tmp_path: Path) -> None:
    """No command is lost and none repeated, what waited is told soon after, and waiting costs next to nothing."""
    async with AsyncExitStack() as stack:
        home = servers
        if LONG:  # one that is killed cannot be the session's; the storm's short form kills its own
            postgresql = await start_postgresql(tmp_path / "p", durable=False)
            stack.push_async_callback(postgresql.stop)
            synapse = await start_synapse(tmp_path / "s", postgresql=postgresql, hash_rounds=4)
            stack.push_async_callback(lambda: synapse.stop())
            home = replace(servers, synapse=synapse)
        practice = await stack.enter_async_context(open_practice(home, database_name, tmp_path))
        pair = await practice.add_pair()
        times = await free_times(practice, pair)
        ana, bruno = await stack.enter_async_context(practice.phones(pair))
        await live_through(practice, pair, ana, bruno, times[:3], Frozen(home.synapse), servers.postgresql)
        if LONG:
            synapse = await live_through(practice, pair, ana, bruno, times[3:6], Killed(synapse), postgresql)


async def live_through(
    practice: Practice,
    pair: Pair,
    ana: Human,
    bruno: Human,
    times: list[datetime],
    home: Frozen | Killed,
    database_server: PostgreSQL,
) -> Synapse:
    room, marks = pair.room_id or "", (ana.mark(), bruno.mark())
    before, mails = await journaled(practice.database), len(await practice.mails(pair.supervisor.email, at_least=0))
    phone = Phone(bruno, practice.bot, {}, [room])
    said = [await phone.say(room, body) for body in (booking(pair, times[0]), "!language", "!dashboard")]
    with capture_logs() as logs:
        await home.leave()
        # What is done on the web meanwhile is told by mail at once, and in the room when it can be.
        await book_on_the_web(practice, pair, times[1])
        late = asyncio.create_task(phone.say(room, booking(pair, times[2])))
        begun = time.process_time()
        await practice.mails(pair.supervisor.email, at_least=mails + 1)
        await asyncio.sleep(AWAY)
        busy = time.process_time() - begun
        synapse = await home.come_back(database_server)
    assert busy < 0.2 * AWAY + 1  # all of it: the practice, two phones, and this test
    assert sum(entry["event"] in ("sync.failed", "notice.not_sent") for entry in logs) <= 25 + AWAY / 2
    said.append(await asyncio.wait_for(late, SOON))
    replies = await wait_for_all(bruno, lambda: answers(bruno, practice.bot, marks[1]), 4)
    # Answers that had to wait for the homeserver may come in another order.
    assert sorted(body.split()[0] for body in replies) == ["Request", "Request", "Which", "Your"]
    requests = await wait_for_all(ana, lambda: news(ana, practice.bot, marks[0]), 3)
    for starts_at in times:
        assert [told(pair.supervisor, pair, starts_at) in body for body in requests].count(True) == 1
    await wait_until_settled(practice.database)
    await practice.mails(pair.supervisor.email, at_least=mails + 3)
    after = await journaled(practice.database)
    assert {event_id: after[event_id] for event_id in set(after) - set(before)} == dict.fromkeys(said, "done")
    # Nothing comes a second time.
    assert (answers(bruno, practice.bot, marks[1]), news(ana, practice.bot, marks[0])) == (replies, requests)
    return synapse


async def test_a_homeserver_that_answers_with_errors_is_asked_ever_less(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with at_the_gate(practice) as gate, practice.phones(pair) as (ana, bruno):
        gate.refuse = lambda *_: (502, {})
        asked, first, second = len(gate.asked), *(await free_times(practice, pair))[:2]
        said = [await bruno.send_text(room, booking(pair, first))]
        await book_on_the_web(practice, pair, second)
        await asyncio.sleep(AWAY / (20 if LONG else 1))
        assert len(gate.asked) - asked <= 15 + AWAY / 2
        gate.refuse = lambda *_: None
        requests = await wait_for_all(ana, lambda: news(ana, practice.bot), 2)
        assert {told(pair.supervisor, pair, at) in body for at in (first, second) for body in requests} == {True, False}
        await wait_for_all(bruno, lambda: answers(bruno, practice.bot), 1)
        assert await journaled(practice.database) == dict.fromkeys(said, "done")
        await wait_until_settled(practice.database)


async def test_news_of_another_bot_account_wake_nobody(practice: Practice) -> None:
    """Else the others ask the database without a pause for as long as one account is away."""
    pair = await practice.add_pair()
    [starts_at, *_] = await free_times(practice, pair)
    await wait_until_settled(practice.database)
    async with practice.database.transaction() as tx:
        await tx.execute(text("INSERT INTO bots (matrix_id) VALUES ('@visavis-away:localhost')"))
        await tx.execute(text("UPDATE pairs SET bot = '@visavis-away:localhost'"))
    await book_on_the_web(practice, pair, starts_at)
    await practice.mails(pair.supervisor.email, at_least=1)
    count = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    async with practice.database.transaction() as tx:
        before = await tx.scalar(count)
    await asyncio.sleep(4)
    async with practice.database.transaction() as tx:
        assert await tx.scalar(count) - before < 30


# The database away


@dataclass
class OwnDatabase:
    """A database server that can be stopped and started again; the homeserver has another."""

    server: PostgreSQL

    async def end(self, how: signal.Signals) -> None:
        self.server.child.process.send_signal(how)
        await self.server.child.wait()
        await self.server.stop()

    async def start(self) -> None:
        self.server = await start_postgresql(self.server.folder.path, durable=False)

    async def refuse(self, refused: bool) -> None:
        """Let the application's pool have no connections, and end those that it has; or take it back."""
        superuser = await asyncpg.connect(self.server.url("visavis", "postgres"))
        await superuser.execute(f"ALTER ROLE visavis_app CONNECTION LIMIT {0 if refused else -1}")
        if refused:
            await superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'visavis'"
            )
        await superuser.close()


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[OwnDatabase]:
    own = OwnDatabase(await start_postgresql(tmp_path / "p", durable=False))
    server = own.server
    await migrations.upgrade(server.dsn("visavis", "visavis_owner"), server.dsn("visavis", "visavis_app"))
    yield own
    if own.server.child.running:
        await own.server.stop()


@asynccontextmanager
async def kept_alive(servers: Servers, postgresql: PostgreSQL, state: Path) -> AsyncIterator[Practice]:
    """A practice on this database server, its bot run as `visavis run` does."""
    async with open_practice(replace(servers, postgresql=postgresql), "visavis", state) as practice:
        await practice.stop_bot()
        practice.running = asyncio.create_task(
            visavis.keep_alive("bot", lambda: Bot(practice.database, practice.config).run())
        )
        yield practice


@pytest.mark.parametrize("how", STOPS, ids=lambda how: how.name)
async def test_database_away(servers: Servers, own: OwnDatabase, tmp_path: Path, how: signal.Signals) -> None:
    """Gone and come back; then there, and letting nobody in, as with too many connections or while it recovers."""
    async with kept_alive(servers, own.server, tmp_path) as practice:
        pair = await practice.add_pair()
        room, times = pair.room_id or "", (await free_times(practice, pair))[:4]
        async with practice.phones(pair) as (ana, bruno):
            said = [await bruno.send_text(room, booking(pair, times[0]))]
            await own.end(how)
            said.append(await bruno.send_text(room, booking(pair, times[1])))
            assert await ready(practice) == 503
            begun = time.process_time()
            await asyncio.sleep(AWAY / (20 if LONG else 1))
            assert time.process_time() - begun < 0.1 * AWAY + 1
            await own.start()
            said.append(await bruno.send_text(room, booking(pair, times[2])))
            await wait_for_all(bruno, lambda: answers(bruno, practice.bot), 3)
            assert await ready(practice) == 200

            await own.refuse(True)
            said.append(await bruno.send_text(room, booking(pair, times[3])))
            await asyncio.sleep(4)  # a bug's event would be dropped within three
            await own.refuse(False)
            replies = await wait_for_all(bruno, lambda: answers(bruno, practice.bot), 4)
            for starts_at, body in zip(times, replies, strict=True):
                assert told(pair.supervisee, pair, starts_at) in body
            requests = await wait_for_all(ana, lambda: news(ana, practice.bot), 4)
            await practice.mails(pair.supervisor.email, at_least=4, timeout=SOON)
            await wait_until_settled(practice.database)
            assert (answers(bruno, practice.bot), news(ana, practice.bot)) == (replies, requests)
            assert await journaled(practice.database) == dict.fromkeys(said, "done")
            assert await booked(practice.database) == times


async def ready(practice: Practice) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{practice.config.web.base_url}/health/ready") as answer:
        return answer.status


# The disk full


# PostgreSQL on a disk of its own, which goes with the program: as root, or else by a user namespace.
ON_A_SMALL_DISK = """
import asyncio, json, sys
from pathlib import Path
import migrations
from embedded.postgresql import start_postgresql

async def main():
    server = await start_postgresql(Path(sys.argv[1]), durable=False)
    await migrations.upgrade(server.dsn("visavis", "visavis_owner"), server.dsn("visavis", "visavis_app"))
    print(json.dumps([str(server.socket_folder), dict(server.passwords)]), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
MOUNT = 'mount -t tmpfs -o size=200m,mode=755 none "$1"; shift; exec '
USED_UP = """
INSERT INTO journal (event_id, room_id, outcome, handled_at)
SELECT gen_random_uuid(), repeat('x', 200), 'used', now() FROM generate_series(1, $1::int)
"""


@dataclass(frozen=True)
class SmallDisk:
    """A database server, and the folder of its disk as it is seen from outside."""

    server: PostgreSQL
    folder: Path

    async def fill(self) -> None:
        """Leave no byte, nor any room in the pages that the journal has already."""
        self._use_up()
        connection = await asyncpg.connect(self.server.url("visavis", "postgres"))
        await connection.execute("ALTER TABLE journal SET (autovacuum_enabled = false)")
        for rows in (1000, 10, 1):
            with suppress(asyncpg.DiskFullError):
                while True:
                    await connection.execute(USED_UP, rows)
        await connection.close()

    def _use_up(self) -> None:
        with (self.folder / "filling").open("wb", buffering=0) as filling, suppress(OSError):
            while True:
                filling.write(bytes(4096))

    async def clear(self) -> None:
        (self.folder / "filling").unlink()
        connection = await asyncpg.connect(self.server.url("visavis", "postgres"))
        await connection.execute("DELETE FROM journal WHERE outcome = 'used'")
        await connection.close()


@asynccontextmanager
async def small_disk(postgresql: PostgreSQL, folder: Path) -> AsyncIterator[SmallDisk]:
    """Mounted on a folder, for the server and for `/proc` alone."""
    uid = os.geteuid()
    before = ["unshare", "--mount"] if uid == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = MOUNT + ("" if uid == 0 else f"unshare --user --map-user={uid} ") + '"$@"'
    process = await asyncio.create_subprocess_exec(
        *before, "sh", "-ec", mount, "sh", str(folder), sys.executable, "-c", ON_A_SMALL_DISK, str(folder),
        cwd=HERE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    try:
        sockets, passwords = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        root = f"/proc/{process.pid}/root"
        server = replace(postgresql, socket_folder=Path(f"{root}{sockets}"), passwords=passwords)
        yield SmallDisk(server, Path(f"{root}{folder}"))
    finally:
        process.kill()
        await process.communicate()


async def test_a_full_disk_is_told_and_the_command_kept(
    servers: Servers, postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    async with (
        small_disk(postgresql, tmp_path_factory.mktemp("d")) as disk,
        kept_alive(servers, disk.server, tmp_path) as practice,
    ):
        pair = await practice.add_pair()
        room, times = pair.room_id or "", (await free_times(practice, pair))[:3]
        async with practice.phones(pair) as (ana, bruno):
            await wait_until_settled(practice.database)
            await disk.fill()
            said = [await bruno.send_text(room, booking(pair, starts_at)) for starts_at in times]
            [sentence] = await wait_for_all(bruno, lambda: answers(bruno, practice.bot), 1)
            assert sentence == reader("en", "Europe/Lisbon").say("disk_full")
            await asyncio.sleep(2)  # it is tried again, and said no second time
            assert answers(bruno, practice.bot) == [sentence]
            assert await booked(practice.database) == []
            await disk.clear()
            replies = await wait_for_all(bruno, lambda: answers(bruno, practice.bot)[1:], 3)
            assert [told(pair.supervisee, pair, times[at]) in replies[at] for at in range(3)] == [True, True, True]
            await wait_for_all(ana, lambda: news(ana, practice.bot), 3)
            await wait_until_settled(practice.database)
            assert answers(bruno, practice.bot) == [sentence, *replies]
            assert await journaled(practice.database) == dict.fromkeys(said, "done")
            assert await booked(practice.database) == times


# What PostgreSQL says where a table cannot grow.
FULL = """
CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER disk_full BEFORE UPDATE ON notifications FOR EACH ROW EXECUTE FUNCTION disk_full();
"""


async def test_a_disk_that_fills_up_after_the_commit_denies_nothing(
    practice: Practice, postgresql: PostgreSQL, database_name: str
) -> None:
    """Between a command and the noting of its answer; no disk can be filled at that moment, so a trigger says it."""
    pair = await practice.add_pair()
    room, bot = pair.room_id or "", practice.bot
    owner = await asyncpg.connect(postgresql.url(database_name, "visavis_owner"))
    async with practice.phones(pair) as (_, bruno):
        await wait_until_settled(practice.database)
        await owner.execute(FULL)
        said = await bruno.send_text(room, "!language")
        [reply] = await wait_for_all(bruno, lambda: answers(bruno, bot), 1)
        assert reply.startswith("Which")
        await asyncio.sleep(2)
        await owner.execute("DROP FUNCTION disk_full CASCADE")
        await practice.stop_bot()
        await practice.start_bot()
        await wait_until_settled(practice.database)
        assert answers(bruno, bot) == [reply]
        assert await journaled(practice.database) == {said: "done"}
    await owner.close()

"""Mails a second, the way from a commit to the SMTP server, and what a bridge costs that has nothing to do.

Every side sends confirmations and reminders of the same appointments to the same `smtp-sink` over ten connections, in a
process of its own. The first side has them written beforehand and does nothing but send, the second writes them, too;
all others read them from the database, write them, send them and note that. The time runs from the commit that
enqueues a block until the last of it is settled.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import platform
import signal
import socket
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from benchmarks.practices import clone, make_practice, running_server
from benchmarks.round_trip import spread
from bridge import letters, mail
from embedded.postgresql import PostgreSQL
from supervision import notifications
from supervision.config import Config, load
from supervision.db import Database
from supervision.models import Channel
from supervision.notifications import Notice
from tests.install import install_smtp_sink, smtp_sink_path

ROOT = Path(__file__).resolve().parents[1]
APPOINTMENTS = 10_000
CONNECTIONS = 10
WARM_UP = 100
BLOCKS = 3
IDLE_SECONDS = 30.0
KINDS = ("appointment.confirmed", "appointment.reminder")
POLL = 0.02

COMING = """
    SELECT id, pair_id, supervisor_id, supervisee_id FROM appointments
    WHERE status = 'confirmed' AND starts_at > now() + interval '1 day' ORDER BY id
"""
# What the practice itself still has to send would be sent by our side alone.
SETTLE = "UPDATE notifications SET state = 'expired', settled_at = now() WHERE state = 'pending'"


@dataclass(frozen=True)
class Told:
    """What one mail tells whom."""

    kind: str
    person_id: uuid.UUID
    pair_id: uuid.UUID
    appointment_id: uuid.UUID

    def notice(self) -> Notice:
        return Notice(
            self.person_id, Channel.MAIL, self.kind, {"minutes": 1440}, self.pair_id, self.appointment_id, revision=1
        )


@dataclass
class Bench:
    """Everything the sides share."""

    server: PostgreSQL
    name: str
    config: Config
    path: Path
    told: Sequence[Told]
    database: Database
    owner: Any

    def block(self, size: int) -> list[Told]:
        return list(itertools.islice(itertools.cycle(self.told), size))


Drain = Callable[[Sequence[Told]], Awaitable[float]]


async def measure(state: Path, rounds: int) -> AsyncIterator[str]:
    """Give the tables; a block has ten times as many mails as `rounds`."""
    install_smtp_sink()
    async with open_bench(state) as bench:
        yield await measure_rates(bench, state, 10 * rounds)
        yield await measure_latency(bench, state, rounds)


@asynccontextmanager
async def open_bench(state: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(state, durable=True))
        name = await clone(server, await make_practice(server, APPOINTMENTS), "mails")
        owner = await asyncpg.connect(server.url(name, "visavis_owner"))
        stack.push_async_callback(owner.close)
        await owner.execute(SETTLE)
        await owner.execute("VACUUM ANALYZE notifications")
        port = await stack.enter_async_context(running_sink())
        path = state / "mails.yaml"
        path.write_text(yaml.safe_dump(configuration(server, name, port)))
        config = load(path, environment={})
        database = Database(config.database.url.get_secret_value(), pool_size=2)
        stack.push_async_callback(database.close)
        told = [
            Told(kind, person, row["pair_id"], row["id"])
            for row in await owner.fetch(COMING)
            for person in (row["supervisor_id"], row["supervisee_id"])
            for kind in KINDS
        ]
        yield Bench(server, name, config, path, told, database, owner)


def configuration(server: PostgreSQL, name: str, port: int) -> dict[str, Any]:
    return {
        "secret": "s" * 40,
        "database": {"url": server.dsn(name, "visavis_app")},
        "matrix": {"homeserver": "http://127.0.0.1:1", "bot": "@visavis:example.org", "as_token": "unused"},
        "mail": {
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "sender": "visavis@example.org",
            "connections": CONNECTIONS,
        },
        "inbound": {"domain": "mail.example.org", "authserv_id": "mx.example.org", "port": free_port()},
        "web": {"base_url": "https://visavis.example.org", "metrics_port": free_port()},
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@asynccontextmanager
async def running_sink() -> AsyncIterator[int]:
    """Debian's `smtp-sink`, which takes every mail and keeps none."""
    port = free_port()
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    async with running(smtp_sink_path(), *user, f"127.0.0.1:{port}", "1000"):
        await asyncio.sleep(0.5)
        yield port


@asynccontextmanager
async def running(
    *command: str, environment: dict[str, str] | None = None, pipes: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=os.environ | (environment or {}), stdin=pipe, stdout=pipe, stderr=sys.stderr
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def running_bridges(bench: Bench, number: int, path: Path | None = None) -> AsyncIterator[list[int]]:
    """So many of our bridges; gives their process IDs once each has sent something."""
    async with AsyncExitStack() as stack:
        found = []
        for place in range(number):
            environment = {"VISAVIS_WEB__METRICS_PORT": str(free_port()), "VISAVIS_INBOUND__PORT": str(free_port())}
            command = (sys.executable, "visavis.py", "--config", str(path or bench.path), "run", "bridge")
            log = open(bench.path.with_name(f"bridge-{place}.log"), "ab")  # noqa: ASYNC230
            stack.callback(log.close)
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log
            )
            stack.push_async_callback(end, process)
            found.append(process.pid)
        await asyncio.sleep(3)
        yield found


async def end(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGTERM)
    await process.wait()


async def measure_rates(bench: Bench, state: Path, size: int) -> str:
    """Each side in turns; a side's processes live only while it has its turn, so that none disturbs another."""
    sides = {
        "raw aiosmtplib, mails written before": raw(bench, state, "raw"),
        "raw aiosmtplib, mails read before and written meanwhile": raw(bench, state, "writing"),
        "Visavis, one process": ours(bench, 1),
        "Visavis, two processes": ours(bench, 2),
        "Procrastinate, one process": procrastinate(bench),
        "pgqueuer, one process": pgqueuer(bench),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(BLOCKS):
        order.append(order.pop(0))
        for name in order:
            async with sides[name]() as drain:
                await drain(bench.block(WARM_UP))
                rates[name].append(size / await drain(bench.block(size)))
    return rate_table(rates, size)


Opened = Callable[[], Any]  # an async context manager that gives a Drain


def raw(bench: Bench, state: Path, side: str) -> Opened:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Drain]:
        command = (sys.executable, "-m", "benchmarks.mail_workers", side, str(bench.path))
        async with running(*command, pipes=True) as process:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("no pipes")
            stdin, stdout = process.stdin, process.stdout

            async def drain(block: Sequence[Told]) -> float:
                path = state / "envelopes"
                path.write_bytes(pickle.dumps(await prepare(bench, block, written=side == "raw")))
                begun = time.perf_counter()
                stdin.write(f"{path}\n".encode())
                await stdout.readline()
                return time.perf_counter() - begun

            yield drain
            stdin.close()

    return opened


async def prepare(bench: Bench, block: Sequence[Told], *, written: bool) -> list[Any]:
    now, found = datetime.now(UTC), []
    async with bench.database.transaction() as tx:
        for told in block:
            notice = told.notice()
            letter = await letters.load(tx, notice.as_claimed(now=now))
            found.append(mail.write(letter, bench.config, now=now) if written else letter)
    return found


def ours(bench: Bench, processes: int) -> Opened:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Drain]:
        async def drain(block: Sequence[Told]) -> float:
            notices = [told.notice() for told in block]
            async with bench.database.transaction() as tx:
                await notifications.enqueue(tx, notices, now=datetime.now(UTC))
            return await until_none(bench, "SELECT EXISTS (SELECT FROM notifications WHERE state = 'pending')")

        async with running_bridges(bench, processes):
            yield drain

    return opened


def procrastinate(bench: Bench) -> Opened:
    import procrastinate as library

    @asynccontextmanager
    async def opened() -> AsyncIterator[Drain]:
        url = bench.server.url(bench.name, "visavis_owner")
        app = library.App(connector=library.PsycopgConnector(conninfo=url, min_size=1, max_size=2))
        async with app.open_async():
            if not await bench.owner.fetchval("SELECT to_regclass('procrastinate_jobs')"):
                await app.schema_manager.apply_schema_async()
                await grant(bench)
            task = app.configure_task("send")

            async def drain(block: Sequence[Told]) -> float:
                await task.batch_defer_async(*map(arguments, block))
                return await until_none(
                    bench, "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
                )

            async with running_worker(bench, "procrastinate"):
                yield drain

    return opened


def pgqueuer(bench: Bench) -> Opened:
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    @asynccontextmanager
    async def opened() -> AsyncIterator[Drain]:
        connection = await asyncpg.connect(bench.server.url(bench.name, "visavis_owner"))
        try:
            queries = Queries(AsyncpgDriver(connection))
            if not await bench.owner.fetchval("SELECT to_regclass('pgqueuer')"):
                await queries.install()
                await grant(bench)

            async def drain(block: Sequence[Told]) -> float:
                payloads = [" ".join(arguments(told).values()).encode() for told in block]
                await queries.enqueue(["send"] * len(block), list(payloads), [0] * len(block))
                return await until_none(bench, "SELECT EXISTS (SELECT FROM pgqueuer)")

            async with running_worker(bench, "pgqueuer"):
                yield drain
        finally:
            await connection.close()

    return opened


@asynccontextmanager
async def running_worker(bench: Bench, side: str) -> AsyncIterator[None]:
    command = (sys.executable, "-m", "benchmarks.mail_workers", side, str(bench.path))
    async with running(*command, pipes=True) as process:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        await process.stdout.readline()
        yield


async def grant(bench: Bench) -> None:
    """What a library made as the owner is the application's to use."""
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        await bench.owner.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO visavis_app")


def arguments(told: Told) -> dict[str, str]:
    ids = {"person_id": told.person_id, "pair_id": told.pair_id, "appointment_id": told.appointment_id}
    return {"kind": told.kind, **{name: str(value) for name, value in ids.items()}}


async def until_none(bench: Bench, query: str) -> float:
    """Seconds until the query finds nothing any more."""
    begun = time.perf_counter()
    while await bench.owner.fetchval(query):  # noqa: ASYNC110 - other processes settle it
        await asyncio.sleep(POLL)
    return time.perf_counter() - begun


def rate_table(rates: dict[str, list[float]], size: int) -> str:
    bare = statistics.median(next(iter(rates.values())))
    lines = ["| mails a second | minimum | median | maximum | of raw |", "|---|---:|---:|---:|---:|"]
    for name, found in rates.items():
        middle = statistics.median(found)
        lines.append(f"| {name} | {min(found):.0f} | {middle:.0f} | {max(found):.0f} | {middle / bare:.2f} |")
    note = f"{BLOCKS} blocks of {size} of each in turns; {CONNECTIONS} connections, waiting for the disk"
    return "\n".join([*lines, "", f"{note}; {os.cpu_count()} cores, Python {platform.python_version()}."])


class Doorstep(asyncio.Protocol):
    """An SMTP server (RFC 5321) that takes everything and notes when a mail begins."""

    def __init__(self, begun: asyncio.Queue[float]) -> None:
        self.begun = begun
        self.held = b""
        self.in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._say("220 ready")

    def data_received(self, data: bytes) -> None:
        if not self.in_data and data[:5].upper() == b"MAIL ":
            self.begun.put_nowait(time.perf_counter())
        self.held += data
        while b"\r\n" in self.held:
            if self.in_data:
                if b"\r\n.\r\n" not in self.held:
                    return
                _, _, self.held = self.held.partition(b"\r\n.\r\n")
                self.in_data = False
                self._say("250 taken")
                continue
            line, _, self.held = self.held.partition(b"\r\n")
            self.in_data = line[:4].upper() == b"DATA"
            self._say("354 go on" if self.in_data else "221 bye" if line[:4].upper() == b"QUIT" else "250 yes")

    def _say(self, line: str) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.write(f"{line}\r\n".encode())


async def measure_latency(bench: Bench, state: Path, rounds: int) -> str:
    """From the end of a commit to the first byte of the mail, on a bridge with nothing else to do; then its cost."""
    begun: asyncio.Queue[float] = asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(lambda: Doorstep(begun), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = state / "doorstep.yaml"
    path.write_text(yaml.safe_dump(configuration(bench.server, bench.name, port)))
    found = []
    async with running_bridges(bench, 1, path) as (pid,):
        for told in bench.block(rounds + 10):
            async with bench.database.transaction() as tx:
                await notifications.enqueue(tx, [told.notice()], now=datetime.now(UTC))
            committed = time.perf_counter()
            found.append(await begun.get() - committed)
            await asyncio.sleep(0.05)
        share = await cost(pid)
    server.close()
    shortest, middle, longest = (f"{seconds * 1000:.1f} ms" for seconds in spread(found[10:]))
    return "\n".join(
        [
            "| from the commit to the SMTP server | minimum | median | 99th percentile |",
            "|---|---:|---:|---:|",
            f"| first byte of the mail | {shortest} | {middle} | {longest} |",
            "",
            f"{rounds} mails, one at a time. Idle for {IDLE_SECONDS:.0f} s the process took {share:.2%} of a core.",
        ]
    )


async def cost(pid: int) -> float:
    """The share of a core that a process takes while nothing happens."""
    await asyncio.sleep(5)
    before = cpu_seconds(pid)
    await asyncio.sleep(IDLE_SECONDS)
    return (cpu_seconds(pid) - before) / IDLE_SECONDS


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, from proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""One side of the mail benchmark as a process of its own: `python -m benchmarks.mail_workers SIDE CONFIG`.

`raw` sends envelopes that were written before, over ten aiosmtplib connections, and `writing` letters that were read
before, each written when its turn comes; a line on standard input names a file of them, a line on standard output says
that they are sent. `procrastinate` and `pgqueuer` do the same jobs
as our bridge for each notification that is deferred to them, ten at once: read it, write it, send it.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosmtplib
import asyncpg

from bridge import letters, mail
from bridge.letters import Letter
from bridge.smtp import Connections, Envelope
from supervision.config import Config, load
from supervision.db import Database
from supervision.models import Channel
from supervision.notifications import Notification

AT_ONCE = 10


async def send_raw(config: Config) -> None:
    clients = [
        aiosmtplib.SMTP(hostname=config.mail.host, port=config.mail.port, use_tls=False, start_tls=False)
        for _ in range(AT_ONCE)
    ]
    for client in clients:
        await client.connect()
    while path := (await asyncio.to_thread(sys.stdin.readline)).strip():
        waiting = read_back(Path(path))

        async def work(client: aiosmtplib.SMTP, waiting: list[Envelope | Letter] = waiting) -> None:
            while waiting:
                one = waiting.pop()
                if isinstance(one, Letter):
                    one = mail.write(one, config, now=datetime.now(UTC))
                await client.sendmail(one.sender, [one.recipient], one.content)

        await asyncio.gather(*map(work, clients))
        print("sent", flush=True)


def read_back(path: Path) -> list[Envelope | Letter]:
    found: list[Envelope | Letter] = pickle.loads(path.read_bytes())  # noqa: S301 - written by the benchmark itself
    return found


class Job:
    """What the bridge does for one notification, as the body of another queue's job."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.database = Database(config.database.url.get_secret_value(), pool_size=AT_ONCE)
        self.connections = Connections(config.mail)

    async def send(self, kind: str, person_id: str, pair_id: str, appointment_id: str) -> None:
        now = datetime.now(UTC)
        ids = (uuid.UUID(person_id), uuid.UUID(pair_id), uuid.UUID(appointment_id))
        details = {"minutes": 1440}
        one = Notification(uuid.uuid4(), *ids, 1, Channel.MAIL, kind, details, 2, now, 1, None)
        async with self.database.transaction() as tx:
            letter = await letters.load(tx, one)
        await self.connections.send(mail.write(letter, self.config, now=now))


async def run_procrastinate(config: Config) -> None:
    import procrastinate

    url = config.database.url.get_secret_value().replace("+asyncpg", "")
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=AT_ONCE, max_size=AT_ONCE))
    app.task(name="send")(Job(config).send)
    async with app.open_async():
        print("ready", flush=True)
        await app.run_worker_async(concurrency=AT_ONCE, delete_jobs="successful", install_signal_handlers=False)


async def run_pgqueuer(config: Config) -> None:
    from pgqueuer import PgQueuer
    from pgqueuer.models import Job as Deferred

    job = Job(config)
    url = config.database.url.get_secret_value().replace("+asyncpg", "")
    async with asyncpg.create_pool(url, min_size=AT_ONCE, max_size=AT_ONCE) as pool:
        queue = PgQueuer.from_asyncpg_pool(pool)

        async def send(deferred: Deferred) -> None:
            await job.send(*(deferred.payload or b"").decode().split())

        queue.entrypoint("send")(send)
        print("ready", flush=True)
        # It asks for twice the batch as the least number of jobs at once.
        await queue.run(batch_size=AT_ONCE // 2, max_concurrent_tasks=AT_ONCE, dequeue_timeout=timedelta(seconds=5))


SIDES: dict[str, Callable[[Config], Awaitable[None]]] = {
    "raw": send_raw,
    "writing": send_raw,
    "procrastinate": run_procrastinate,
    "pgqueuer": run_pgqueuer,
}


def main() -> None:
    side, path = sys.argv[1:]
    asyncio.run(SIDES[side](load(Path(path))))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

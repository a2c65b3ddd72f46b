"""The bridge on real parts: its loop, a mail server that keeps what it gets, and a clock that can be set."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest

from bridge import delivery
from embedded.mailserver import MailServer, start_mail_server
from supervision.config import Config
from supervision.db import Database
from supervision.notifications import Backoff

QUICK = Backoff(timedelta(milliseconds=50), timedelta(milliseconds=200), tries=4)
BASE_URL = "https://visavis.example.org"
SECRET = "x" * 32


def make_config(port: int, **mail: Any) -> Config:
    return Config.model_validate(
        {
            "secret": SECRET,
            "database": {"url": "postgresql://localhost/visavis"},
            "matrix": {"homeserver": "http://localhost:8008", "bot": "@visavis:localhost", "password": "x"},
            "mail": {"port": port, "security": "none", "sender": "visavis@clinic.example.org", "timeout_seconds": 5}
            | mail,
            "web": {"base_url": BASE_URL},
        }
    )


@dataclass
class Clock:
    """Runs from the test's now on."""

    began_at: datetime
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.began_at + (datetime.now(UTC) - self.started_at)

    def forward(self, by: timedelta) -> None:
        self.began_at += by


@dataclass(frozen=True)
class Inbox:
    """What has arrived, in the order of arrival."""

    maildir: Path

    def files(self) -> list[Path]:
        return sorted((self.maildir / "new").iterdir())

    async def take(self, count: int) -> list[EmailMessage]:
        """Wait for that many and not one more, and empty the box."""
        await until(lambda: len(self.files()) >= count)
        await asyncio.sleep(0.1)
        files = self.files()
        assert len(files) == count
        mails = [message_from_bytes(path.read_bytes(), policy=SMTP) for path in files]
        for path in files:
            path.unlink()
        return [mail for mail in mails if isinstance(mail, EmailMessage)]


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - it looks at files and at what others do
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    database: Database, config: Config, clock: Clock, *, backoff: Backoff = QUICK, **more: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """The bridge's loop, stopped as a process is."""
    task = asyncio.create_task(delivery.run(database, config, clock=clock, backoff=backoff, **({"poll": 0.1} | more)))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def clock(now: datetime) -> Clock:
    return Clock(now)


@pytest.fixture
async def mail_server(tmp_path: Path) -> AsyncIterator[MailServer]:
    server = await start_mail_server(tmp_path / "mail")
    yield server
    await server.stop()


@pytest.fixture
def inbox(mail_server: MailServer) -> Inbox:
    return Inbox(mail_server.maildir)


@pytest.fixture
def config(mail_server: MailServer) -> Config:
    return make_config(mail_server.port)

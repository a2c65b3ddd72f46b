"""A bot's process: what it does without its lock."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.app import Bot
from supervision.config import Config
from supervision.db import Database
from supervision.errors import Transient

HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def test_who_waits_for_the_homeserver_without_the_lock_waits_no_longer(
    database: Database, tmp_path: Path
) -> None:
    """Another process may be the account by the time that the homeserver is back, and they share the crypto store."""
    config = Config.model_validate(
        {
            "database": {"url": database.plain_url()},
            "secret": "a secret of the tests that is long enough",
            "matrix": {
                "homeserver": "http://127.0.0.1:9",
                "bot": "@visavis:example.org",
                "as_token": "token",
                "store": str(tmp_path),
            },
            "mail": {"sender": "visavis@example.org", "security": "none"},
            "web": {"base_url": "http://localhost"},
        }
    )
    running = asyncio.create_task(Bot(database, config).run())
    async with asyncio.timeout(60):
        while True:
            async with database.transaction() as tx:
                holder = await tx.scalar(HOLDER)
                if holder is not None:
                    break
            await asyncio.sleep(0.05)
        async with database.transaction() as tx:
            await tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": holder})
        with pytest.raises(ExceptionGroup) as stopped:
            await running
    assert [str(error) for error in stopped.value.exceptions] == [str(Transient("account_lock_lost"))]

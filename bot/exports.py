"""Has the files made of rooms that are taken home: one after the other, and anew where that failed for now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from bot.client import Client
from bot.media import Media
from bot.requests import HomeserverRefused
from supervision import exports, pairs
from supervision.db import DATABASE_AWAY, Database, listen
from supervision.errors import DeliveryFailed, Permanent
from supervision.exports import Export
from supervision.pairs import Pair

if TYPE_CHECKING:
    from bot.makings import Making

log = structlog.get_logger(__name__)

POLL = 60.0  # seconds between looks when nothing wakes the loop


class Exports:
    """Makes what is agreed on in the rooms of one bot account, one after the other. `secret` is the configured one."""

    def __init__(self, database: Database, client: Client, clock: Callable[[], datetime], secret: str) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.secret = secret
        self.media = Media(client.account.homeserver, client.homeserver, client.user_id.partition(":")[2])

    async def run(self) -> None:
        """Make what is due, for ever. A database that is away is waited for."""
        wake = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(self.database, exports.CHANNEL, wake))
            while True:
                wake.clear()
                try:
                    wait = 0.0 if await self.make_next() else await self._seconds_to_next()
                except DATABASE_AWAY as error:
                    log.warning("exports.database_away", error=type(error).__name__)
                    wait = 2.0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await wake.wait()

    async def _seconds_to_next(self) -> float:
        async with self.database.transaction() as tx:
            at = await exports.next_try_at(tx, self.client.user_id)
        return POLL if at is None else min(POLL, max(0.5, (at - self.clock()).total_seconds()))

    async def make_next(self) -> bool:
        """Make the next one that is due; whether there was any. What fails is planned anew."""
        async with self.database.transaction() as tx:
            due = await exports.next_due(tx, self.client.user_id, now=self.clock())
            if due is None:
                return False
            pair = await pairs.get(tx, due.pair_id)
            if due.attempts and self.clock() - due.created_at >= exports.PATIENCE:
                await exports.fail(tx, due, pair, due.error or "interrupted", permanent=True, now=self.clock())
                return True
            export = await exports.begin(tx, due, now=self.clock())
        try:
            await self._make(export, pair)
        except HomeserverRefused as refused:
            await self._fail(export, pair, refused.code, permanent=refused.passing is None)
        except DeliveryFailed as failure:
            await self._fail(export, pair, failure.code, permanent=isinstance(failure, Permanent))
        except DATABASE_AWAY:
            raise
        except Exception as error:
            log.error("export.bug", id=str(export.id), error=type(error).__name__, exc_info=error)
            await self._fail(export, pair, "failed", permanent=export.attempts >= 3)
        return True

    async def _fail(self, export: Export, pair: Pair, code: str, *, permanent: bool) -> None:
        log.warning("export.failed", id=str(export.id), code=code)
        async with self.database.transaction() as tx:
            await exports.fail(tx, export, pair, code, permanent=permanent, now=self.clock())

    async def _make(self, export: Export, pair: Pair) -> None:
        await self.client.wait_until_synced()
        making = (await asyncio.to_thread(_load))(self, export, pair)
        await making.run()
        async with self.database.transaction() as tx:
            await exports.finish(tx, export, pair, events=making.records.count, now=self.clock())
        log.info("export.made", id=str(export.id), events=making.records.count)


def _load() -> type[Making]:
    """Loaded when it is wanted, which is rarely: it takes a while, and some megabytes."""
    from bot.makings import Making

    return Making

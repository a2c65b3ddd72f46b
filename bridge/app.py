"""The bridge: what carries mail and calendars, side by side."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from bridge import delivery, inbound, outside
from supervision.config import Config
from supervision.db import Database

log = structlog.get_logger(__name__)

RESTART_SECONDS = 15.0
COLLECTORS = (
    delivery.MAILS,
    delivery.FAILURES,
    delivery.PROCESSING,
    delivery.DELAYS,
    inbound.ARRIVALS,
    outside.READS,
)


async def run(database: Database, config: Config) -> None:
    """Deliver mail, and take it in where that is configured, until cancelled.

    What fails is begun again after a pause while the rest goes on: another bridge on this machine may have the port
    of the listener.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(keep("delivery", lambda: delivery.run(database, config)))
        group.create_task(keep("outside", lambda: outside.run(database, config)))
        if config.inbound is not None:
            group.create_task(keep("inbound", lambda: inbound.run(database, config)))


async def keep(part: str, start: Callable[[], Awaitable[None]]) -> None:
    """Run something again and again, after a pause each time."""
    while True:
        try:
            await start()
        except Exception as error:
            log.exception("bridge.part_ended", part=part, error=type(error).__name__)
        await asyncio.sleep(RESTART_SECONDS)

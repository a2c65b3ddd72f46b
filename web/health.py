"""Whether this process lives, and whether it can do its work."""

import asyncio

import structlog
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import migrations
from web.state import database

log = structlog.get_logger()

DATABASE_SECONDS = 5.0


async def live(request: web.Request) -> web.Response:
    """200 as long as this process answers at all."""
    return web.json_response({"status": "live"})


async def ready(request: web.Request) -> web.Response:
    """200 if the database answers and has exactly our migrations, else 503 with what is missing."""
    lacking = await _lacking(request)
    if lacking:
        log.warning("health.not_ready", lacking=lacking)
        return web.json_response({"status": "not ready", "lacking": lacking}, status=503)
    return web.json_response({"status": "ready"})


async def _lacking(request: web.Request) -> str | None:
    try:
        async with asyncio.timeout(DATABASE_SECONDS), database(request).transaction() as tx:
            revision = await tx.scalar(text("SELECT version_num FROM alembic_version"))
    except (OSError, SQLAlchemyError, TimeoutError):
        return "database"
    return None if revision == HEAD else "migrations"


HEAD = migrations.head()
ROUTES = [web.get("/health/live", live), web.get("/health/ready", ready)]

"""Processes of ours killed at random moments, and a database server that is stopped hard meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import migrations
from embedded.postgresql import PORT, PostgreSQL, start_postgresql


@dataclass
class OwnServer:
    """A database server of a test's own, durable as in use, whose folder's path is short enough for its socket."""

    server: PostgreSQL

    @property
    def url(self) -> str:
        return self.server.dsn("visavis", "visavis_app")

    @property
    def socket_path(self) -> str:
        return str(self.server.socket_folder / f".s.PGSQL.{PORT}")

    async def crash(self, how: signal.Signals) -> None:
        """End it without goodbye: SIGQUIT is `pg_ctl stop -m immediate`, SIGKILL takes all its children too."""
        child = self.server.child
        if how is signal.SIGKILL:
            os.killpg(child.pid, how)
        else:
            child.process.send_signal(how)
        await child.wait()
        await self.server.stop()

    async def start(self) -> None:
        """Start it on what it left; returns when it has recovered."""
        self.server = await start_postgresql(self.server.folder.path, durable=True)


@asynccontextmanager
async def own_server() -> AsyncIterator[OwnServer]:
    """One with our schema."""
    folder = Path(tempfile.mkdtemp(prefix="visavis-pg-"))
    try:
        own = OwnServer(await start_postgresql(folder / "p", durable=True))
        try:
            server = own.server
            await migrations.upgrade(server.dsn("visavis", "visavis_owner"), server.dsn("visavis", "visavis_app"))
            yield own
        finally:
            if own.server.child.running:
                await own.server.stop()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)

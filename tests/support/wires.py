"""TCP connections with a listener of the tests' in the middle, who can cut, hold or change what passes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Self


class Moment(StrEnum):
    """Where a request is stopped for ever."""

    BEFORE = "before it is forwarded"
    UNANSWERED = "after it has taken effect, before the answer comes back"
    AFTER = "after the answer"


class Wire(ABC):
    """Listens on 127.0.0.1 and carries each connection as a subclass says; ends them all with the context."""

    def __init__(self) -> None:
        self.port = 0
        self._carried: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.sleep(0.01)  # who has connected at this moment is carried, and cut with the others
            await self.cut()

    async def cut(self) -> None:
        """End all connections that are open now, on both sides."""
        carried = list(self._carried)
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carried.add(task)
        try:
            await self.carry(reader, writer)
        except (OSError, EOFError, ssl.SSLError):  # either side has gone, as it may
            pass
        except asyncio.CancelledError:
            if task.uncancel() > 0:
                raise
        finally:
            hang_up(writer)
            self._carried.discard(task)

    @abstractmethod
    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side has gone."""


@contextlib.asynccontextmanager
async def connected(
    target: tuple[str, int] | str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to (host, port) or to the socket of that path."""
    if isinstance(target, str):
        reader, writer = await asyncio.open_unix_connection(target)
    else:
        reader, writer = await asyncio.open_connection(*target)
    try:
        yield reader, writer
    finally:
        hang_up(writer)


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST instead of FIN (socket(7), SO_LINGER)."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Client:
    """Who has connected: what it writes, read ahead, and whether it has hung up."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.inbox = asyncio.StreamReader(limit=2**24)
        self.gone = asyncio.Event()

    @contextlib.asynccontextmanager
    async def heard(self) -> AsyncIterator[Self]:
        task = asyncio.create_task(self._hear())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _hear(self) -> None:
        try:
            while chunk := await self._reader.read(65536):
                self.inbox.feed_data(chunk)
        except OSError:
            pass
        finally:
            self.inbox.feed_eof()
            self.gone.set()

"""Servers of calendars on this machine, and what answers for the names of others."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

LOOPBACK = (ip_network("127.0.0.1/32"),)
Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Names(AbstractResolver):
    """Answers for every name, one list of addresses at a time; the last holds for ever. `asked` are the names."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in answer
        ]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class CalendarServer:
    """`handle` answers every request; `seen` are those that came."""

    handle: Handle
    base: str = ""
    seen: list[web.BaseRequest] = field(default_factory=list)

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request)
        return await self.handle(request)


@contextlib.asynccontextmanager
async def serving(
    handle: Handle, *, tls: ssl.SSLContext | None = None, name: str = "127.0.0.1"
) -> AsyncIterator[CalendarServer]:
    """Serve on a port of this machine, called `name` in `base`."""
    server = CalendarServer(handle)
    runner = web.ServerRunner(web.Server(server.take), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    server.base = f"{'https' if tls else 'http'}://{name}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def calendar(*events: str) -> bytes:
    """A calendar of these events, each given as its lines with `|` between them."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Example//EN"]
    for number, event in enumerate(events):
        own = [] if "UID:" in event else [f"UID:{number}@example.org"]
        lines += ["BEGIN:VEVENT", *own, "DTSTAMP:20261101T000000Z", *event.split("|"), "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""]).encode()

"""Listening on a port, with nothing of aiohttp's own words in what strangers and logs get to read."""

import asyncio
import errno
import functools

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_protocol import RequestHandler

from supervision.errors import SupervisionError
from supervision.logs import traces
from web.headers import HEADERS

log = structlog.get_logger()

STOP_SECONDS = 10.0
REASONS = {
    errno.EADDRINUSE: "the address is in use already",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "ports below 1024 need permission",
}


class PortUnavailable(SupervisionError):
    """A port that the web application was told to use cannot be had; the text is one sentence."""


class NoLog(AbstractAccessLogger):
    """Requests are counted by `web.metrics`; a log of them would hold sign-in links."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Never called, as it is not enabled."""


class Protocol(RequestHandler):
    """One connection. What is no HTTP gets a constant answer; aiohttp's would quote it, and log it."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        log.warning("web.not_http", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        response = web.Response(status=status, text="This request cannot be answered.\n", headers=HEADERS)
        response.force_close()
        return response

    def log_exception(self, *args: object, **values: object) -> None:
        error = values.get("exc_info")
        log.error("web.connection_failed", **(traces(error) if isinstance(error, BaseException) else {}))


class Site(web.TCPSite):
    """A TCP port whose connections are of our protocol."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner, host, port)
        self.place = (host, port)

    async def start(self) -> None:
        """Raises PortUnavailable."""
        await super(web.TCPSite, self).start()
        loop = asyncio.get_running_loop()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was not set up")
        protocol = functools.partial(Protocol, server, loop=loop, access_log_class=NoLog)
        host, port = self.place
        try:
            self._server = await loop.create_server(protocol, host, port, backlog=128)
        except OSError as error:
            why = REASONS.get(error.errno or 0, "the system refuses it")
            raise PortUnavailable(f"The web application cannot listen on {host}, port {port}: {why}.") from error


async def serve(sites: list[tuple[web.Application, str, int]], started: asyncio.Event | None = None) -> None:
    """Serve each application on its address until cancelled; what is under way then may end."""
    runners = []
    try:
        for app, host, port in sites:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
            runners.append(runner)
            await runner.setup()
            await Site(runner, host, port).start()
        log.info("web.started", ports=[port for _, _, port in sites])
        if started is not None:
            started.set()
        await asyncio.Event().wait()
    finally:
        for runner in runners:
            await runner.cleanup()
        log.info("web.stopped")

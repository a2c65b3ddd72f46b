"""What a homeserver, or whatever stands before it, may answer: judged as it comes from a real HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.requests import Homeserver, HomeserverRefused, NotAHomeserver
from supervision.errors import Transient

HOUR = 3600.0


@asynccontextmanager
async def answering(status: int, body: str, hint: str | None = None) -> AsyncIterator[Homeserver]:
    """A homeserver that answers everything so; `hint` is its `Retry-After`."""

    async def answer(_: web.Request) -> web.Response:
        headers = {} if hint is None else {"Retry-After": hint}
        return web.Response(status=status, text=body, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        homeserver = Homeserver(str(server.make_url("/")))
        try:
            yield homeserver
        finally:
            await homeserver.close()


@pytest.mark.parametrize(
    ("body", "hint", "seconds"),
    [
        ('{"retry_after_ms": 1500}', None, 1.5),
        ('{"retry_after_ms": 1500}', "7", 7.0),
        ('{"retry_after_ms": 1%s}' % ("0" * 400), None, HOUR),
        ('{"retry_after_ms": Infinity}', None, HOUR),
        ("{}", "9" * 400, HOUR),
        ('{"retry_after_ms": NaN}', None, None),
        ('{"retry_after_ms": -1}', "tomorrow", None),
        ("not JSON", None, None),
    ],
)
async def test_nobody_has_us_wait_for_ever(body: str, hint: str | None, seconds: float | None) -> None:
    """One such answer, and the bot never asked again; or it ended with an error of arithmetic."""
    async with answering(429, body, hint) as homeserver:
        with pytest.raises(Transient) as raised:
            await homeserver.ask("GET", "/sync")
    assert (raised.value.code, raised.value.retry_after) == ("rate_limited", seconds)


@pytest.mark.parametrize(
    ("status", "body", "counts_as"),
    [
        (400, "{}", "http_400"),
        (413, "<html>too large</html>", "http_413"),
        (400, '{"errcode": "M_UNKNOWN"}', None),
        (403, '{"errcode": "M_FORBIDDEN"}', None),
        (401, '{"flows": [], "session": "x"}', None),
        (401, '{"errcode": "M_UNKNOWN_TOKEN"}', "logged_out"),
        (400, '{"errcode": "M_UNKNOWN_DEVICE"}', "logged_out"),
        (401, '{"errcode": "M_UNAUTHORIZED"}', "logged_out"),
    ],
)
async def test_a_refusal_counts_where_the_homeserver_refused_what_was_asked_for(
    status: int, body: str, counts_as: str | None
) -> None:
    async with answering(status, body) as homeserver:
        with pytest.raises(HomeserverRefused) as raised:
            await homeserver.ask("GET", "/sync")
    passing = raised.value.passing
    assert (passing.code if passing is not None else None) == counts_as


async def test_what_is_no_homeserver_refuses_nothing() -> None:
    async with answering(404, "<html>nothing here</html>") as homeserver:
        with pytest.raises(NotAHomeserver):
            await homeserver.ask("GET", "/sync")

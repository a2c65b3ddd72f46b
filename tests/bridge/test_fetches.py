"""Getting calendars from strangers: where no connection goes, what is not swallowed, what is asked again."""

import asyncio
import gzip
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bridge import fetches
from bridge.fetches import FetchFailed, Limits
from tests.bridge.calendar_servers import LOOPBACK, Names, calendar, serving
from tests.bridge.servers import certificate

CALENDAR = calendar("DTSTART:20261124T130000Z|DTEND:20261124T140000Z|SUMMARY:Dentist")
SMALL = Limits(most_bytes=100_000)
QUICK = Limits(seconds=1.5, connect_seconds=0.7, silent_seconds=0.7, most_bytes=100_000)  # for what is slow on purpose
PUBLIC = "8.8.8.8"


async def give(_: web.BaseRequest) -> web.Response:
    return web.Response(body=CALENDAR, content_type="text/calendar", headers={"ETag": '"one"'})


async def failure(address: str, **options: Any) -> str:
    with pytest.raises(FetchFailed) as failed:
        await fetches.fetch(address, **{"limits": SMALL} | options)
    return failed.value.code


async def test_a_calendar_within_a_network_that_is_named() -> None:
    async with serving(give) as server:
        fetched = await fetches.fetch(f"{server.base}/private-x/basic.ics", private=LOOPBACK)
    assert fetched == fetches.Fetched(CALENDAR, '"one"', None)
    [request] = server.seen
    assert request.path_qs == "/private-x/basic.ics"
    assert request.headers["User-Agent"] == fetches.USER_AGENT
    assert set(request.headers) == {"Host", "Connection", "Accept", "Accept-Encoding", "User-Agent"}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0", "2130706433", "0x7f.1", "127.1", "[::]"],
)
async def test_nothing_on_this_machine_is_asked(scheme: str, host: str) -> None:
    async with serving(give) as server:
        port = server.base.rpartition(":")[2]
        assert await failure(f"{scheme}://{host}:{port}/") in ("inside", "unreachable")
        assert server.seen == []


async def test_a_name_that_leads_inside_is_not_followed() -> None:
    async with serving(give) as server:
        port = server.base.rpartition(":")[2]
        for inside in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"):
            names = Names([inside])
            assert await failure(f"https://calendar.example.org:{port}/", names=names) == "inside"
            assert names.asked == ["calendar.example.org"]
        both = Names([PUBLIC, "127.0.0.1"])  # one bad address spoils the others
        assert await failure(f"https://calendar.example.org:{port}/", names=both) == "inside"
        assert server.seen == []


async def test_a_name_is_asked_for_once_and_what_it_says_later_is_not_connected_to() -> None:
    """DNS rebinding: the answer that was judged is the one that is used."""
    async with serving(give) as server:
        rebinding = Names(["127.0.0.1"], ["127.0.0.2"])
        url = server.base.replace("127.0.0.1", "calendar.example.org")
        await fetches.fetch(url, private=LOOPBACK, names=rebinding)
        assert rebinding.asked == ["calendar.example.org"]
        assert await failure(url, private=LOOPBACK, names=rebinding) == "inside"  # the second answer


async def test_a_name_that_changes_between_two_steps_is_refused() -> None:
    async def lead_on(request: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": str(request.path) + "x"})

    async with serving(lead_on) as server:
        url = server.base.replace("127.0.0.1", "calendar.example.org")
        rebinding = Names(["127.0.0.1"], ["127.0.0.1"], ["10.0.0.7"])
        assert await failure(url, private=LOOPBACK, names=rebinding) == "inside"
        assert len(server.seen) == 2


async def test_the_socket_is_the_last_to_judge() -> None:
    judge = fetches.Judge(LOOPBACK, encrypted=True, names=Names([PUBLIC]))
    stream = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
    judge.open_socket((*stream, ("127.0.0.1", 443))).close()
    judge.open_socket((*stream, (PUBLIC, 443))).close()
    for inside in ("127.0.0.2", "10.0.0.1"):
        with pytest.raises(OSError, match="inside"):
            judge.open_socket((*stream, (inside, 443)))


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.2/c.ics", "inside"),
        ("https://127.0.0.2/c.ics", "inside"),
        ("http://[::1]/c.ics", "inside"),
        ("http://169.254.169.254/latest", "inside"),
        ("//10.0.0.1/c.ics", "inside"),
        (f"http://{PUBLIC}/c.ics", "insecure"),
        ("file:///etc/passwd", "insecure"),
        ("ftp://example.org/", "insecure"),
        ("https://", "unreachable"),
        ("http://[bad/", "unreachable"),
        ("/again", "redirects"),
    ],
)
async def test_where_a_redirect_may_not_lead(location: str, code: str) -> None:
    async def lead_on(_: web.BaseRequest) -> web.Response:
        return web.Response(status=301, headers={"Location": location})

    async with serving(lead_on) as server:
        assert await failure(server.base, private=LOOPBACK) == code
        assert len(server.seen) == (6 if code == "redirects" else 1)


async def test_five_redirects_are_followed_and_only_the_own_host_is_told_the_password() -> None:
    async def arrive(request: web.BaseRequest) -> web.Response:
        return await give(request)

    async with serving(arrive) as last:

        async def lead_on(request: web.BaseRequest) -> web.Response:
            step = int(request.path.strip("/") or 0) + 1
            where = f"/{step}" if step < 5 else f"{last.base}/end.ics"
            return web.Response(status=307, headers={"Location": where, "Set-Cookie": "a=b"})

        async with serving(lead_on) as first:
            url = first.base.replace("//", "//ana:word@")
            assert (await fetches.fetch(url, private=LOOPBACK)).content == CALENDAR
    assert ["Authorization" in one.headers for one in first.seen] == [True] * 5
    assert ["Authorization" in one.headers for one in last.seen] == [False]
    assert ["Cookie" in one.headers for one in (*first.seen, *last.seen)] == [False] * 6


async def test_what_is_as_it_was_is_not_sent_again() -> None:
    async def compare(request: web.BaseRequest) -> web.Response:
        if request.headers.get("If-None-Match") == '"one"':
            return web.Response(status=304)
        return await give(request)

    async with serving(compare) as server:
        first = await fetches.fetch(server.base, private=LOOPBACK, etag='"old"', last_modified="yesterday")
        again = await fetches.fetch(server.base, private=LOOPBACK, etag=first.etag)
    assert first.content == CALENDAR
    assert again == fetches.Fetched(None, '"one"', None)
    assert server.seen[0].headers["If-Modified-Since"] == "yesterday"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (304, "failed"),  # nobody asked for that
        (204, "failed"),
        (401, "forbidden"),
        (403, "forbidden"),
        (404, "gone"),
        (410, "gone"),
        (418, "failed"),
        (429, "failed"),
        (500, "failed"),
        (503, "failed"),
    ],
)
async def test_what_a_server_refuses(status: int, code: str) -> None:
    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "120"})

    async with serving(refuse) as server:
        with pytest.raises(FetchFailed) as failed:
            await fetches.fetch(server.base, private=LOOPBACK)
    assert (failed.value.code, failed.value.wait) == (code, 120.0)


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"<!doctype html><title>Sign in</title>", {}, "no_calendar"),
        (b"", {}, "no_calendar"),
        (b"BEGIN:VCAL", {}, "no_calendar"),
        (CALENDAR + b" " * 100_000, {}, "large"),
        (gzip.compress(CALENDAR + b" " * 10_000_000), {"Content-Encoding": "gzip"}, "large"),
        (b"BEGIN:VCALENDAR", {"Content-Encoding": "gzip"}, "no_calendar"),
        (CALENDAR, {"Content-Encoding": "br"}, "no_calendar"),
    ],
    ids=["page", "nothing", "cut", "large", "bomb", "unpacked", "unknown"],
)
async def test_what_is_no_calendar_or_too_large(body: bytes, headers: dict[str, str], code: str) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body, headers=headers)

    async with serving(answer) as server:
        assert await failure(server.base, private=LOOPBACK) == code


async def test_a_bomb_is_not_unpacked_whole() -> None:
    """50 MB in 50 kB: it is left as soon as it is too large."""
    bomb = gzip.compress(CALENDAR + b" " * 50_000_000)

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(answer) as server:
        started = time.process_time()
        assert await failure(server.base, private=LOOPBACK, limits=Limits()) == "large"
        assert time.process_time() - started < 0.5


async def test_a_packed_calendar_with_a_mark_before_it() -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=gzip.compress(b"\xef\xbb\xbf\r\n" + CALENDAR), headers={"Content-Encoding": "gzip"})

    async with serving(answer) as server:
        fetched = await fetches.fetch(server.base, private=LOOPBACK)
    assert fetched.content == b"\xef\xbb\xbf\r\n" + CALENDAR


@pytest.mark.parametrize("pause", [0.05, 60])
async def test_slow_bytes_end(pause: float) -> None:
    """Whether it falls silent or goes on for ever, a byte at a time."""

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"BEGIN:VCALENDAR\r\n")
        while True:
            await asyncio.sleep(pause)
            await response.write(b"X")

    async with serving(drip) as server:
        started = time.monotonic()
        assert await failure(server.base, private=LOOPBACK, limits=QUICK) == "slow"
        assert time.monotonic() - started < 30


async def test_no_end_of_bytes_is_waited_for() -> None:
    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"BEGIN:VCALENDAR\r\n")
        while True:
            await response.write(b"X" * 10_000)

    async with serving(flood) as server:
        assert await failure(server.base, private=LOOPBACK) == "large"


async def test_a_server_that_says_nothing_or_is_not_there() -> None:

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    assert await failure(f"http://127.0.0.1:{port}/", private=LOOPBACK, limits=QUICK) == "slow"
    await asyncio.sleep(1.5)
    silent.close()
    await silent.wait_closed()
    assert await failure(f"http://127.0.0.1:{port}/", private=LOOPBACK) == "unreachable"
    assert await failure("https://no-such-host.invalid/", limits=QUICK) in ("unreachable", "slow")


async def test_encryption_is_checked(tmp_path: Path) -> None:
    tls, authority = certificate(tmp_path, "calendar.example.org")
    names = Names(["127.0.0.1"])
    async with serving(give, tls=tls, name="calendar.example.org") as server:
        trusting = ssl.create_default_context(cafile=str(authority))
        fetched = await fetches.fetch(server.base, private=LOOPBACK, names=names, tls=trusting)
        assert fetched.content == CALENDAR
        assert await failure(server.base, private=LOOPBACK, names=names) == "tls"
        other = server.base.replace("calendar.", "another.")
        assert await failure(other, private=LOOPBACK, names=names, tls=trusting) == "tls"
        plain = server.base.replace("https:", "http:")
        assert await failure(plain, private=LOOPBACK, names=names) in ("unreachable", "failed")


async def test_a_public_name_is_never_asked_without_encryption() -> None:
    assert await failure("http://calendar.example.org/", private=LOOPBACK, names=Names([PUBLIC])) == "insecure"

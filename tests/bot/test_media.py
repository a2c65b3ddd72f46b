"""Fetching files from a homeserver that has them, has them not, or fails: over real HTTP."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bot.media import Media, Source, Unreadable, read_source
from bot.requests import Homeserver
from supervision.errors import Transient

OURS, THEIRS = "mxc://ours.example/", "mxc://theirs.example/"
KEY, COUNTER = b"k" * 32, b"\x01" * 8 + b"\x00" * 8
CONTENT = bytes(range(256)) * 1000
CIPHERTEXT = Cipher(algorithms.AES256(KEY), modes.CTR(COUNTER)).encryptor().update(CONTENT)
REFUSALS: dict[str, tuple[int, dict[str, object]]] = {
    "gone": (404, {"errcode": "M_NOT_FOUND"}),
    "forbidden": (403, {"errcode": "M_FORBIDDEN"}),
    "coming": (504, {"errcode": "M_NOT_YET_UPLOADED"}),
    "huge": (502, {"errcode": "M_TOO_LARGE"}),
    "broken": (502, {"errcode": "M_UNKNOWN"}),
    "often": (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2500}),
    "hardly-ever": (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 10**400}),
    "proxy": (502, {}),
    "hidden": (404, {}),
    "unknown-token": (401, {"errcode": "M_UNKNOWN_TOKEN"}),
}


async def answer(request: web.Request) -> web.StreamResponse:
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.query["user_id"] == "@visavis:ours.example"
    name = request.match_info["id"]
    if name == "silent":
        await asyncio.sleep(2)
    if name in REFUSALS:
        status, said = REFUSALS[name]
        return web.json_response(said, status=status)
    response = web.StreamResponse()
    if name == "cut":
        response.content_length = len(CIPHERTEXT)
    await response.prepare(request)
    await response.write(CIPHERTEXT[: 1000 if name == "cut" else None])
    if name == "cut" and request.transport is not None:
        request.transport.close()
    return response


async def say_who(_: web.Request) -> web.Response:
    return web.json_response({"user_id": "@visavis:ours.example"})


@pytest.fixture
async def alive() -> AsyncIterator[Media]:
    """A homeserver that answers everything else."""
    app = web.Application()
    app.router.add_get("/_matrix/client/v1/media/download/{server}/{id}", answer)
    app.router.add_get("/_matrix/client/v3/account/whoami", say_who)
    async with TestServer(app) as server:
        url = str(server.make_url("/")).rstrip("/")
        homeserver = Homeserver(url)
        homeserver.token, homeserver.identity = "secret", {"user_id": "@visavis:ours.example"}
        yield Media(url, homeserver, "ours.example")
        await homeserver.close()


@pytest.fixture
async def media() -> AsyncIterator[Media]:
    app = web.Application()
    app.router.add_get("/_matrix/client/v1/media/download/{server}/{id}", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        homeserver = Homeserver(url)
        homeserver.token, homeserver.identity = "secret", {"user_id": "@visavis:ours.example"}
        yield Media(url, homeserver, "ours.example")
        await homeserver.close()


async def fetch(media: Media, source: Source, most: int = len(CIPHERTEXT)) -> bytes:
    return b"".join([piece async for piece in media.read(source, most=most)])


def encrypted(name: str, sha256: bytes = hashlib.sha256(CIPHERTEXT).digest()) -> Source:
    return Source(OURS + name, KEY, COUNTER, sha256)


async def test_a_file_is_decrypted_as_it_comes(media: Media) -> None:
    assert await fetch(media, encrypted("one")) == CONTENT
    assert await fetch(media, Source(OURS + "one")) == CIPHERTEXT


async def test_what_an_event_says_is_enough(media: Media) -> None:
    said = {
        "url": OURS + "one",
        "key": {"k": base64.urlsafe_b64encode(KEY).decode().rstrip("=")},
        "iv": base64.b64encode(COUNTER).decode().rstrip("="),
        "hashes": {"sha256": base64.b64encode(hashlib.sha256(CIPHERTEXT).digest()).decode()},
    }
    source = read_source(said, None)
    assert source is not None
    assert await fetch(media, source) == CONTENT


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (encrypted("one", b"x" * 32), "undecipherable"),
        (Source(OURS + "one", broken=True), "undecipherable"),
        (Source("mxc://ours.example/../../x"), "missing"),
        (Source(OURS + "gone"), "missing"),
        (Source(OURS + "forbidden"), "missing"),
        (Source(OURS + "coming"), "late"),
        (Source(THEIRS + "broken"), "late"),
        (Source(THEIRS + "huge"), "too_large"),
    ],
)
async def test_a_file_that_cannot_be_had(media: Media, source: Source, code: str) -> None:
    with pytest.raises(Unreadable) as unreadable:
        await fetch(media, source)
    assert unreadable.value.code == code


async def test_no_more_is_read_than_is_allowed(media: Media) -> None:
    with pytest.raises(Unreadable) as unreadable:
        await fetch(media, encrypted("one"), most=len(CIPHERTEXT) - 1)
    assert unreadable.value.code == "too_large"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("often", "rate_limited"),
        ("hardly-ever", "rate_limited"),
        ("proxy", "http_502"),
        ("hidden", "http_404"),
        ("broken", "media_failed"),
        ("unknown-token", "logged_out"),
        ("cut", "homeserver_unreachable"),
    ],
)
async def test_a_homeserver_that_fails_is_waited_for(media: Media, name: str, code: str) -> None:
    with pytest.raises(Transient) as failure:
        await fetch(media, encrypted(name))
    waits = {"often": 2.5, "hardly-ever": 3600.0}
    assert (failure.value.code, failure.value.retry_after) == (code, waits.get(name))


@pytest.mark.parametrize(
    ("name", "code"),
    [("proxy", "media_failed"), ("hidden", "media_failed"), ("cut", "media_failed"), ("silent", "media_slow")],
)
async def test_a_file_that_alone_cannot_be_had_is_told_from_a_homeserver_that_is_away(
    alive: Media, media: Media, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    """Or its room would wait for it for ever; and an outage would have others' files taken down."""
    monkeypatch.setattr("bot.media.SILENCE", 0.5)
    with pytest.raises(Transient, match=code):
        await fetch(alive, encrypted(name))
    with pytest.raises(Unreadable, match="late"):
        await fetch(alive, Source(f"mxc://far.example/{name}", KEY, COUNTER, b"x" * 32))
    away = {"proxy": "http_502", "hidden": "http_404"}.get(name, "homeserver_unreachable")
    for server in ("ours.example", "far.example"):
        with pytest.raises(Transient, match=away):
            await fetch(media, Source(f"mxc://{server}/{name}", KEY, COUNTER, b"x" * 32))

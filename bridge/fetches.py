"""Getting a foreign calendar by HTTP, as somebody does who was told the address by a stranger.

Every address that a host's name resolves to is judged before anything is connected, and the connection goes to just
the address that was judged: what the name says a moment later (DNS rebinding) changes nothing. Each step that the
other side leads on to is judged anew. What comes is counted while it comes, after decompression too.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from supervision import networks
from supervision.networks import Network

SECONDS = 30.0  # for all of it
CONNECT_SECONDS = 10.0  # to resolve, connect and agree on encryption
SILENT_SECONDS = 10.0  # between two pieces
MOST_BYTES = 5_000_000  # as they come, and unpacked
MOST_REDIRECTS = 5
MOST_TAG = 500  # characters of an ETag or Last-Modified that are kept
USER_AGENT = "Visavis (reads a calendar for its owner)"
BEGINNING = b"BEGIN:VCALENDAR"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FAILURES = {401: "forbidden", 403: "forbidden", 404: "gone", 410: "gone"}


class FetchFailed(Exception):
    """It cannot be had. `code` is one of `outside.ERRORS`; `wait` the seconds that the other side asks to wait."""

    def __init__(self, code: str, wait: float | None = None) -> None:
        self.code = code
        self.wait = wait
        super().__init__(code)


@dataclass(frozen=True)
class Limits:
    """What a test makes smaller."""

    seconds: float = SECONDS
    connect_seconds: float = CONNECT_SECONDS
    silent_seconds: float = SILENT_SECONDS
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True)
class Fetched:
    """`content` is None where it is as it was (304). The others are what to ask with the next time."""

    content: bytes | None
    etag: str | None
    last_modified: str | None


class Judge(AbstractResolver):
    """Resolves names, and lets only addresses pass that may be connected to.

    Out in the world, or in one of the `private` networks; without encryption only the latter. One bad address among
    several spoils them all.
    """

    def __init__(self, private: Sequence[Network], *, encrypted: bool, names: AbstractResolver | None = None) -> None:
        self.private = private
        self.encrypted = encrypted
        self.names = names or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self.names.resolve(host, port, family)
        for one in found:
            self.judge(one["host"])
        return found

    def judge(self, host: str) -> None:
        """Raise FetchFailed unless this address may be connected to."""
        address = networks.read_address(host)
        if address is not None and networks.is_within(address, self.private):
            return
        if address is None or not networks.is_outside(address):
            raise FetchFailed("inside")
        if not self.encrypted:
            raise FetchFailed("insecure")

    def open_socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """The socket for a connection to an address, which is judged at this last moment whoever resolved it."""
        family, kind, protocol, _, where = info
        try:
            self.judge(str(where[0]))
        except FetchFailed as error:
            raise OSError(error.code) from error
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        await self.names.close()


async def fetch(
    address: str,
    *,
    private: Sequence[Network] = (),
    etag: str | None = None,
    last_modified: str | None = None,
    tls: ssl.SSLContext | None = None,
    names: AbstractResolver | None = None,
    limits: Limits | None = None,
) -> Fetched:
    """The calendar at an https address, or the word that it is as it was when it had that tag or date.

    http is taken within the `private` networks. Raises FetchFailed.
    """
    limits = limits or Limits()
    asked = {"Accept": "text/calendar, */*;q=0.1", "Accept-Encoding": "gzip", "User-Agent": USER_AGENT}
    if etag is not None:
        asked["If-None-Match"] = etag
    if last_modified is not None:
        asked["If-Modified-Since"] = last_modified
    try:
        async with asyncio.timeout(limits.seconds):
            url = URL(address, encoded=address.isascii())
            for _ in range(MOST_REDIRECTS + 1):
                found = await _step(url, asked, private, tls, names, limits)
                if isinstance(found, Fetched):
                    return found
                url = _follow(url, found)
            raise FetchFailed("redirects")
    except TimeoutError:  # aiohttp's own are such
        raise FetchFailed("slow") from None
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise FetchFailed("tls") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:  # UnicodeError, of a host's name, is a ValueError
        raise FetchFailed("unreachable") from error


async def _step(
    url: URL,
    asked: dict[str, str],
    private: Sequence[Network],
    tls: ssl.SSLContext | None,
    names: AbstractResolver | None,
    limits: Limits,
) -> Fetched | str:
    """Ask once, with a connection of its own: the calendar, or where it is said to be."""
    if not url.host:
        raise FetchFailed("unreachable")
    judge = Judge(private, encrypted=url.scheme == "https", names=names)
    if networks.read_address(url.host) is not None:
        judge.judge(url.host)  # aiohttp resolves no literals
    connector = aiohttp.TCPConnector(
        resolver=judge,
        use_dns_cache=False,
        socket_factory=judge.open_socket,
        ssl=tls or True,
        force_close=True,
    )
    timeout = aiohttp.ClientTimeout(
        total=None,
        connect=limits.connect_seconds,
        sock_connect=limits.connect_seconds,
        sock_read=limits.silent_seconds,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as session,
        session.get(url, headers=asked, allow_redirects=False) as response,
    ):
        if response.status in REDIRECTS and "Location" in response.headers:
            return response.headers["Location"]
        if response.status == 304 and asked.keys() & {"If-None-Match", "If-Modified-Since"}:
            return Fetched(None, asked.get("If-None-Match"), asked.get("If-Modified-Since"))
        if response.status != 200:
            raise FetchFailed(FAILURES.get(response.status, "failed"), _wait(response))
        content = await _read(response, limits)
        return Fetched(content, _tag(response, "ETag"), _tag(response, "Last-Modified"))


def _follow(url: URL, location: str) -> URL:
    """The next step. What a password was meant for is one place alone."""
    following = url.join(URL(location, encoded=location.isascii()))
    if following.scheme not in ("http", "https"):
        raise FetchFailed("insecure")
    return following if following.origin() == url.origin() else following.with_user(None)


async def _read(response: aiohttp.ClientResponse, limits: Limits) -> bytes:
    """The content, unpacked, if it is a calendar and not too large."""
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", ""):
        raise FetchFailed("no_calendar")
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS) if packing.endswith("gzip") else None
    content = bytearray()
    came = 0
    async for piece in response.content.iter_any():
        came += len(piece)
        if unpacking is None:
            content += piece
        else:
            try:
                content += unpacking.decompress(piece, limits.most_bytes + 1 - len(content))
            except zlib.error:
                raise FetchFailed("no_calendar") from None
        if came > limits.most_bytes or len(content) > limits.most_bytes:
            raise FetchFailed("large")
        if not _may_be_calendar(content):
            raise FetchFailed("no_calendar")
    if not _may_be_calendar(content, whole=True):
        raise FetchFailed("no_calendar")
    return bytes(content)


def _may_be_calendar(content: bytearray, *, whole: bool = False) -> bool:
    """Whether it begins as one (RFC 5545, 3.4), as far as it has come."""
    begun = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip()[: len(BEGINNING)].upper()
    return begun == BEGINNING if whole else BEGINNING.startswith(begun)


def _tag(response: aiohttp.ClientResponse, name: str) -> str | None:
    value = response.headers.get(name, "")
    return value if 0 < len(value) <= MOST_TAG and value.isascii() and value.isprintable() else None


def _wait(response: aiohttp.ClientResponse) -> float | None:
    """Retry-After (RFC 9110, section 10.2.3) in seconds; a date is as good as nothing."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else None

"""Files on the homeserver: where an event says that they are, fetched and decrypted piece by piece, never kept."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from yarl import URL

from bot.events import Json
from bot.requests import Homeserver, HomeserverRefused, path, retry_after
from supervision.errors import Permanent, Transient

PIECE = 64 * 1024  # bytes
SECONDS = 120.0  # for all of one file
SILENCE = 45.0  # seconds that nothing may come; more than the homeserver waits itself
ANSWERS_WITHIN = 10.0  # seconds, a homeserver that is there
WAITS_MS = "20000"  # that the homeserver waits for a file which is still being uploaded
MXC = re.compile(r"mxc://(?P<server>[A-Za-z0-9.:\[\]-]{1,255})/(?P<id>[A-Za-z0-9_-]{1,255})")
# In whichever tag it stands: to look for a tag's end takes seconds in a message that is full of their beginnings.
INLINE = re.compile(r"\bsrc\s*=[\s\"']*(mxc://[^\s\"'<>]+)", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#x0*(?P<hex>[0-9a-f]{1,6})|#0*(?P<decimal>[0-9]{1,7})|(?P<name>colon|sol));?", re.IGNORECASE)
FAILING = ("media_slow", "media_failed")  # what our homeserver, which answers, does with this very file
DEEPEST = 8  # of what stands in one another in an event


class Unreadable(Permanent):
    """A file cannot be had: `missing`, `late` (not uploaded yet), `too_large`, or `undecipherable`."""


@dataclass(frozen=True)
class Source:
    """Where a file is, and how it is decrypted: key, counter block and SHA-256 of what lies on the homeserver.

    In clear where it has no `key`. `broken` where the event does not say enough to decrypt it.
    """

    mxc: str
    key: bytes | None = None
    counter: bytes | None = None
    sha256: bytes | None = None
    broken: bool = False

    @property
    def server(self) -> str:
        found = MXC.fullmatch(self.mxc)
        return found["server"] if found else ""


@dataclass(frozen=True)
class Named:
    """A file of an event as its sender describes it. `is_preview` is a thumbnail, which has no name of its own."""

    source: Source
    name: str | None = None
    claimed: str = ""
    is_preview: bool = False


def find(content: Mapping[str, Any]) -> list[Named]:
    """All files that an event shows, whatever its type: edits, galleries, thumbnails and pictures within text too.

    Each is named once (Matrix 1.18, "m.image" and its like, "Sending encrypted attachments").
    """
    return list(dict.fromkeys(_walk(content, 0)))


def _walk(part: object, depth: int) -> Iterator[Named]:
    if depth > DEEPEST:
        return
    if isinstance(part, list):
        for one in part:
            yield from _walk(one, depth + 1)
    if not isinstance(part, dict):
        return
    info = part.get("info")
    claimed = _text(info, "mimetype")
    source = read_source(part.get("file"), part.get("url"))
    if source is not None:
        yield Named(source, _text(part, "filename") or _text(part, "body") or None, claimed)
    preview = read_source(part.get("thumbnail_file"), part.get("thumbnail_url"))
    if preview is not None:
        yield Named(preview, None, _text(part.get("thumbnail_info"), "mimetype"), is_preview=True)
    for mxc in _inline(_text(part, "formatted_body")):
        yield Named(Source(mxc), None, is_preview=True)
    for name, one in part.items():
        if name not in ("file", "thumbnail_file"):
            yield from _walk(one, depth + 1)


def _inline(html: str) -> list[str]:
    """The addresses of pictures within text, as a browser reads them."""
    return INLINE.findall(ENTITY.sub(_plain, html)) if "<img" in html.lower() else []


def _plain(entity: re.Match[str]) -> str:
    """The character of a reference (HTML, 13.2.5.72), of those that an address may be written with."""
    if entity["name"]:
        return ":" if entity["name"].lower() == "colon" else "/"
    number = int(entity["hex"], 16) if entity["hex"] else int(entity["decimal"])
    return chr(number) if number < 0x110000 else "\ufffd"


def read_source(encrypted: object, clear: object) -> Source | None:
    """An `EncryptedFile`, or else the address of a file in clear; None where there is neither."""
    if isinstance(encrypted, dict) and isinstance(encrypted.get("url"), str):
        key = _decode(_text(encrypted.get("key"), "k"))
        counter = _decode(_text(encrypted, "iv"))
        sha256 = _decode(_text(encrypted.get("hashes"), "sha256"))
        broken = [len(one) for one in (key, counter, sha256)] != [32, 16, 32]
        return Source(encrypted["url"], key, counter, sha256, broken)
    return Source(clear) if isinstance(clear, str) and clear.startswith("mxc://") else None


class Media:
    """Fetches files as the user that `homeserver` is asked as; `url` is the homeserver's."""

    def __init__(self, url: str, homeserver: Homeserver, server_name: str) -> None:
        self._url = url.rstrip("/")
        self._homeserver = homeserver
        self._server_name = server_name

    def is_ours(self, source: Source) -> bool:
        """Whether a file lies on our own homeserver."""
        return source.server == self._server_name

    async def read(self, source: Source, *, most: int) -> AsyncIterator[bytes]:
        """The decrypted content, piece by piece; it is what its sender sent if this ends without an error.

        Raises Unreadable where it cannot be had or is longer than `most` bytes, and Transient where the homeserver is
        away or limits the rate, or fails with this very file (`media_slow`, `media_failed`).
        """
        found = MXC.fullmatch(source.mxc)
        if found is None:
            raise Unreadable("missing")
        if source.broken:
            raise Unreadable("undecipherable")
        cipher, digest, size = _cipher(source), hashlib.sha256(), 0
        async for piece in self._fetch(found["server"], found["id"], most):
            size += len(piece)
            if size > most:
                raise Unreadable("too_large")
            digest.update(piece)
            yield cipher.update(piece) if cipher else piece
        if source.sha256 is not None and not hmac.compare_digest(digest.digest(), source.sha256):
            raise Unreadable("undecipherable")

    async def _fetch(self, server: str, media_id: str, most: int) -> AsyncIterator[bytes]:
        """What lies on the homeserver (Matrix 1.18, `GET /_matrix/client/v1/media/download`)."""
        place = path("/_matrix/client/v1/media/download/{server}/{id}", server=server, id=media_id)
        url = URL(self._url + place, encoded=True).with_query({**self._homeserver.identity, "timeout_ms": WAITS_MS})
        headers = {"Authorization": f"Bearer {self._homeserver.token}"} if self._homeserver.token else {}
        timeout = aiohttp.ClientTimeout(total=SECONDS, sock_connect=10, sock_read=SILENCE)
        ours = server == self._server_name
        try:
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
                session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise await self._refusal(response.status, await _answer(response), ours=ours)
                if (response.content_length or 0) > most:
                    raise Unreadable("too_large")
                async for piece in response.content.iter_chunked(PIECE):
                    yield piece
        except TimeoutError as slow:
            raise await self._failure("homeserver_unreachable", "media_slow", ours=ours) from slow
        except (aiohttp.ClientError, OSError) as failure:
            raise await self._failure("homeserver_unreachable", ours=ours) from failure

    async def _refusal(self, status: int, answer: Json, *, ours: bool) -> Exception:
        """What an answer other than 200 means: what has no errcode is a proxy's, whatever the homeserver has."""
        code = answer.get("errcode")
        if status == 429:
            return Transient("rate_limited", retry_after(answer))
        if code == "M_NOT_YET_UPLOADED":
            return Unreadable("late")
        if code == "M_TOO_LARGE":
            return Unreadable("too_large")
        if status == 401:
            return Transient("logged_out")
        if not isinstance(code, str):
            return await self._failure(f"http_{status}", ours=ours)
        if status >= 500:
            return Transient("media_failed") if ours else Unreadable("late")
        return Unreadable("missing")

    async def _failure(self, away: str, alone: str = "media_failed", *, ours: bool) -> Exception:
        """What it is that fails: the homeserver, as `away` says, or this file `alone`."""
        try:
            await self._homeserver.ask("GET", "/account/whoami", timeout=ANSWERS_WITHIN)
        except (Transient, HomeserverRefused):
            return Transient(away)
        return Transient(alone) if ours else Unreadable("late")


async def _answer(response: aiohttp.ClientResponse) -> Json:
    try:
        answer = await response.json(content_type=None)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _cipher(source: Source) -> CipherContext | None:
    """AES-CTR with 256 bits, as Matrix 1.18 has it in "Sending encrypted attachments"."""
    if source.key is None or source.counter is None:
        return None
    return Cipher(algorithms.AES256(source.key), modes.CTR(source.counter)).decryptor()


def _decode(text: str) -> bytes:
    """Base64, padded or not, in either alphabet: as leniently as apps do, since what they show has to be judged."""
    try:
        return base64.b64decode(
            text.rstrip("=").replace("-", "+").replace("_", "/") + "=" * (-len(text.rstrip("=")) % 4)
        )
    except (binascii.Error, ValueError):
        return b""


def _text(part: object, name: str) -> str:
    value = part.get(name) if isinstance(part, dict) else None
    return value if isinstance(value, str) else ""

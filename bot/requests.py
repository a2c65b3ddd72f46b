"""Asking a homeserver's client-server API: one function, errors as exceptions, no retries of its own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from bot.events import Json
from supervision.errors import Permanent, Transient

_KNOWN_CODE = re.compile(r"[A-Z][A-Z_.0-9]{1,60}")
_LARGE = 1 << 20  # bytes; a longer answer is parsed beside the event loop
_LONGEST_WAIT = 3600.0  # seconds that anybody can ask us to wait
_ODD_REQUEST = (400, 413, 414, 431)  # what a proxy, too, would say again of the same request
_LOGGED_OUT = frozenset({"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_UNKNOWN_DEVICE"})
_HOMESERVERS = frozenset({"errcode", "flows"})  # one of which its refusal has: Matrix 1.18, "Standard error response"


class HomeserverRefused(Permanent):
    """The homeserver said no for good: HTTP `status`, its `errcode` as `code`, its whole `answer`."""

    def __init__(self, status: int, answer: Json) -> None:
        code = answer.get("errcode")
        known = isinstance(code, str) and _KNOWN_CODE.fullmatch(code)
        super().__init__(str(code) if known else f"http_{status}")
        self.status = status
        self.answer = answer

    @property
    def is_logged_out(self) -> bool:
        """The login is over, whatever was asked for."""
        return self.code in _LOGGED_OUT or (self.status == 401 and "flows" not in self.answer)

    @property
    def passing(self) -> Transient | None:
        """As what this counts where it says nothing of what was asked for; None where the homeserver refused that.

        The login is over, or a proxy may have said it, which does not know what the homeserver would say.
        """
        if self.is_logged_out:
            return Transient("logged_out")
        return None if _HOMESERVERS & self.answer.keys() else Transient(self.code)


@contextmanager
def patient_with_proxies() -> Iterator[None]:
    """What says nothing of what was asked for (`HomeserverRefused.passing`) is raised as the Transient it counts as."""
    try:
        yield
    except HomeserverRefused as refused:
        if refused.passing is not None:
            raise refused.passing from refused
        raise


class NotAHomeserver(Transient):
    """Something that is no homeserver refused, as a proxy before it does: whatever it says, the homeserver may not."""


def path(template: str, **parts: str) -> str:
    """Fill a path below `/_matrix/client` with percent-encoded parts: `path("/rooms/{room}/leave", room=…)`."""
    return template.format_map({name: quote(part, safe="") for name, part in parts.items()})


class Homeserver:
    """A homeserver asked as one user. `token` and `identity` (query parameters) may be set after the login.

    Connections are kept alive, so that a request does not pay for a new one; a long-poll takes its own.
    """

    def __init__(self, url: str, root: str = "/_matrix/client") -> None:
        self._url = url.rstrip("/") + root
        self._session: aiohttp.ClientSession | None = None
        self.token: str | None = None
        self.identity: Mapping[str, str] = {}

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        version: str = "v3",
    ) -> Json:
        """Send one request and give the JSON object it was answered with.

        `path` is below `/_matrix/client/{version}` and percent-encoded (see `path`); `timeout` in seconds
        covers all of it. Raises Transient where the homeserver cannot be reached, is too slow, limits the
        rate (with its `retry_after`), fails itself (5xx), is none (NotAHomeserver) or answers nonsense;
        HomeserverRefused otherwise.
        """
        answer = await self._exchange(method, path, body, params or {}, timeout, version)
        if not isinstance(answer, dict):
            raise Transient("homeserver_incomprehensible")
        return answer

    async def ask_list(self, method: str, path: str) -> list[Any]:
        """As `ask`, for the few requests that are answered with a JSON array."""
        answer = await self._exchange(method, path, None, {}, 60.0, "v3")
        if not isinstance(answer, list):
            raise Transient("homeserver_incomprehensible")
        return answer

    async def _exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str],
        timeout: float,
        version: str,
    ) -> object:
        query = urlencode({**self.identity, **params})
        url = f"{self._url}/{version}{path}" + (f"?{query}" if query else "")
        headers = {"Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            async with self._connections().request(
                method,
                URL(url, encoded=True),
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10),
                allow_redirects=False,
            ) as response:
                raw, status, hint = await response.read(), response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise Transient("homeserver_unreachable") from failure
        return _judge(status, await _parse(raw), hint)

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=50)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


async def _parse(raw: bytes) -> object:
    try:
        return await asyncio.to_thread(json.loads, raw) if len(raw) > _LARGE else json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _judge(status: int, answer: object, hint: str | None) -> object:
    if 200 <= status < 300:
        return answer
    if status == 429:
        raise Transient("rate_limited", retry_after(answer, hint))
    if not 400 <= status < 500 or status == 408:
        raise Transient(f"http_{status}", retry_after(answer, hint))
    said = answer if isinstance(answer, dict) else {}
    if not _HOMESERVERS & said.keys() and status not in _ODD_REQUEST:
        raise NotAHomeserver(f"http_{status}")
    raise HomeserverRefused(status, said)


def retry_after(answer: object, hint: str | None = None) -> float | None:
    """The seconds after which a rate limit wants to be asked again, an hour at most; `hint` is its `Retry-After`."""
    if hint is not None and hint.isdecimal():
        return min(float(hint), _LONGEST_WAIT)
    waiting = answer.get("retry_after_ms") if isinstance(answer, dict) else None
    return min(waiting, _LONGEST_WAIT * 1000) / 1000 if isinstance(waiting, int | float) and waiting >= 0 else None

"""A homeserver that misbehaves: a real HTTP server before the real one, which fails or forges what a test asks for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

Json = dict[str, Any]
Hold = Callable[[str, bytes], Awaitable[None]]
Refusal = Callable[[str, str], tuple[int, Json] | None]
Forgery = Callable[[str, Json], Json]


async def _hold_nothing(_path: str, _body: bytes) -> None:
    pass


class Proxy:
    """Passes requests on to a homeserver.

    `hold(path, body)` may keep a request waiting; `refuse(method, path)` may answer instead, with a status and a
    JSON object; `forge(path, answer)` may change a successful answer. `asked` are all (method, path) so far, paths
    without query and prefix.
    """

    def __init__(self, target: str, http: aiohttp.ClientSession) -> None:
        self._target = target
        self._http = http
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self.hold: Hold = _hold_nothing
        self.refuse: Refusal = lambda *_: None
        self.forge: Forgery = lambda _, answer: answer

    @classmethod
    @asynccontextmanager
    async def before(cls, target: str) -> AsyncIterator[Proxy]:
        async with aiohttp.ClientSession(auto_decompress=True) as http:
            proxy = cls(target, http)
            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", proxy.pass_on)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield proxy
            finally:
                await runner.cleanup()

    async def pass_on(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/_matrix/client/v3")
        self.asked.append((request.method, path))
        body = await request.read()
        await self.hold(path, body)
        refused = self.refuse(request.method, path)
        if refused is not None:
            return web.json_response(refused[1], status=refused[0])
        names = ("Authorization", "Content-Type")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        async with self._http.request(
            request.method, self._target + request.raw_path, headers=headers, data=body
        ) as answer:
            said = json.loads(await answer.read())
            if answer.status == 200:
                said = self.forge(path, said)
            return web.json_response(said, status=answer.status)

    def count(self, path: str) -> int:
        """How often this path was asked for."""
        return sum(1 for _, asked in self.asked if asked == path)

"""A proxy between the bot and its homeserver that stops one message at a moment of its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.support.proxy import Proxy
from tests.support.wires import Moment


@dataclass
class SendGate:
    """Holds up the next encrypted message for ever, and says when it has come to that."""

    moment: Moment
    reached: asyncio.Event = field(default_factory=asyncio.Event)


class Gates(Proxy):
    """Passes requests on to a homeserver; a gate that is closed stops one of them."""

    def __init__(self, target: str, http: aiohttp.ClientSession) -> None:
        super().__init__(target, http)
        self.gate: SendGate | None = None

    def close_gate(self, moment: Moment) -> SendGate:
        self.gate = SendGate(moment)
        return self.gate

    async def pass_on(self, request: web.Request) -> web.Response:
        gate = self.gate
        if gate is None or request.method != "PUT" or "/send/m.room.encrypted/" not in request.path:
            return await super().pass_on(request)
        self.gate = None
        if gate.moment is Moment.BEFORE:
            await stop_at(gate)
        answer = await super().pass_on(request)
        if gate.moment is Moment.UNANSWERED:
            await stop_at(gate)
        await answer.prepare(request)
        await answer.write_eof()
        gate.reached.set()
        return answer


async def stop_at(gate: SendGate) -> None:
    gate.reached.set()
    await asyncio.Event().wait()

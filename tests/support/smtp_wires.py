"""A wire between the bridge and a mail server that makes any fault at any step of SMTP (RFC 5321)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import ssl
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.wires import Client, Moment, Wire, connected, reset

CONNECT, EHLO, MAIL, RCPT, DATA, DOT = STEPS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "final dot")

DROP = "drop"  # the connection is closed instead of a reply
RESET = "reset"  # the same with RST
LOSE = "lose"  # the server has done it, and the connection is closed before its reply passes; once for each mail
STALL = "stall"  # nothing for `Wire.stall` seconds, then the usual
SLOW = "slow"  # the reply comes byte by byte, in `Wire.stall` seconds
TRICKLE = "trickle"  # a reply that never ends, byte by byte

VERBS = {b"EHLO": EHLO, b"HELO": EHLO, b"MAIL": MAIL, b"RCPT": RCPT, b"DATA": DATA}
BYTE_PAUSE = 0.1  # seconds
MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([^>]+)>", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """At these steps, one after the other in turn, happens `what`: a word from above, or a reply such as `451 No`.

    A reply 421, and any reply instead of the greeting, ends the connection. SLOW and LOSE happen at all the steps.
    """

    steps: Sequence[str]
    what: str


@dataclass
class Gate:
    """Holds up the next mail's final dot for ever at a moment, and says when it has come to that."""

    moment: Moment
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    message_id: str = ""


class Cut(Exception):
    """The connection is to end here."""


class SmtpWire(Wire):
    """Carries SMTP to the server at `target`, reply by reply.

    `accepted` are the mails that the server has taken, with the moments of time.monotonic(); `met` counts what ran
    into the fault by its step, `held` has the steps and the seconds after which clients hung up that were kept waiting
    there. With `tls` clients must begin with TLS.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__()
        self.target = target
        self.fault: Fault | None = None
        self.tls: ssl.SSLContext | None = None
        self.gate: Gate | None = None
        self.stall = 60.0
        self.met: Counter[str] = Counter()
        self.held: list[tuple[str, float]] = []
        self.turns: Iterator[str] = iter(())
        self.accepted: dict[str, list[float]] = {}
        self.lost: Counter[str] = Counter()

    def break_with(self, fault: Fault | None, *, stall: float = 60.0) -> None:
        self.fault, self.stall, self.met, self.held = fault, stall, Counter(), []
        self.turns = itertools.cycle(fault.steps) if fault is not None else iter(())

    def close_gate(self, moment: Moment) -> Gate:
        self.gate = Gate(moment)
        return self.gate

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.tls is not None:
            await writer.start_tls(self.tls)
        async with Client(reader).heard() as client:
            with contextlib.suppress(Cut):
                await Conversation(self, client, writer).run()


class Conversation:
    """One connection of a client's."""

    def __init__(self, wire: SmtpWire, client: Client, writer: asyncio.StreamWriter) -> None:
        self.wire = wire
        self.client = client
        self.writer = writer
        # Where all steps are a mail's, the turn comes with the mail: a connection that gets none would lose one.
        self.waits = wire.fault is not None and {CONNECT, EHLO}.isdisjoint(wire.fault.steps)
        self.turn = self.next_turn()

    def next_turn(self) -> str:
        return "" if self.waits else next(self.wire.turns, "")

    async def run(self) -> None:
        if not await self.disturb(CONNECT):
            raise Cut
        async with connected(self.wire.target) as (answers, server):
            await self.say(await read_reply(answers), CONNECT)
            withheld = await self.pass_mails(answers, server)
        while withheld:  # that server waits for a content for ever; this client goes on with another
            async with connected(self.wire.target) as (answers, server):
                await read_reply(answers)
                server.write(b"EHLO wire.example.org\r\n")
                await read_reply(answers)
                withheld = await self.pass_mails(answers, server)

    async def pass_mails(self, answers: asyncio.StreamReader, server: asyncio.StreamWriter) -> bool:
        """Pass what is said until the client hangs up, or until a content was kept from the server: then True."""
        while line := await self.client.inbox.readline():
            step = VERBS.get(line[:4].upper(), "")
            if not await self.disturb(step):
                continue
            server.write(line)
            reply = await read_reply(answers)
            await self.say(reply, step)
            if step == DATA and reply.startswith(b"354") and not await self.pass_content(answers, server):
                return True
        return False

    async def pass_content(self, answers: asyncio.StreamReader, server: asyncio.StreamWriter) -> bool:
        """The mail up to its final dot, and the server's word on it; False if the server does not get it."""
        content = await self.client.inbox.readuntil(b"\r\n.\r\n")
        found = MESSAGE_ID.search(content)
        message_id = found[1].decode() if found else ""
        gate = self._gate_of(message_id)
        if gate is not None and gate.moment is Moment.BEFORE:
            await stop_at(gate)
        if not await self.disturb(DOT):
            return False
        server.write(content)
        reply = await read_reply(answers)
        if reply.startswith(b"250"):
            self.wire.accepted.setdefault(message_id, []).append(time.monotonic())
        if gate is not None and gate.moment is Moment.UNANSWERED:
            await stop_at(gate)
        fault = self.wire.fault
        if fault is not None and fault.what == LOSE and not self.wire.lost[message_id]:
            self.wire.lost[message_id] += 1
            self.wire.met[DOT] += 1
            raise Cut
        await self.say(reply, DOT)
        if gate is not None:
            await stop_at(gate)
        return True

    def _gate_of(self, message_id: str) -> Gate | None:
        gate, self.wire.gate = self.wire.gate, None
        if gate is not None:
            gate.message_id = message_id
        return gate

    async def disturb(self, step: str) -> bool:
        """Do what the fault wants at this step before the server hears of it; whether the server is to hear of it."""
        fault = self.wire.fault
        if step == MAIL and self.waits and not self.turn:
            self.turn = next(self.wire.turns, "")
        if fault is None or not step or step != self.turn or fault.what in (SLOW, LOSE):
            return True
        self.wire.met[step] += 1
        match fault.what:
            case word if word == DROP:
                raise Cut
            case word if word == RESET:
                reset(self.writer)
                raise Cut
            case word if word == STALL:
                await self.hold(step, asyncio.sleep(self.wire.stall))
                return True
            case word if word == TRICKLE:
                await self.hold(step, self.trickle())
                raise Cut
            case reply:
                await self.write(f"{reply}\r\n".encode())
                if step == CONNECT or reply.startswith("421"):
                    raise Cut
                if step != EHLO:  # who is refused there may say HELO instead
                    self.turn = self.next_turn()
                return False

    async def hold(self, step: str, waiting: Coroutine[Any, Any, None]) -> None:
        """Keep the client waiting, and note when it had enough."""
        begun = time.monotonic()
        held = self.wire.held
        task = asyncio.create_task(waiting)
        gone = asyncio.create_task(self.client.gone.wait())
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
            if self.client.gone.is_set():
                held.append((step, time.monotonic() - begun))
                raise Cut
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.wait([task, gone])

    async def trickle(self) -> None:
        while True:
            for letter in b"250-Visavis is kept waiting\r\n":
                self.writer.write(bytes([letter]))
                await asyncio.sleep(BYTE_PAUSE)

    async def say(self, reply: bytes, step: str) -> None:
        fault = self.wire.fault
        if fault is not None and step in fault.steps and fault.what == SLOW:
            self.wire.met[step] += 1
            for letter in reply:
                await self.write(bytes([letter]))
                await asyncio.sleep(self.wire.stall / len(reply))
        else:
            await self.write(reply)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


async def stop_at(gate: Gate) -> None:
    gate.reached.set()
    await asyncio.Event().wait()


async def read_reply(answers: asyncio.StreamReader) -> bytes:
    """One reply, of as many lines as it has (RFC 5321, 4.2.1). Raises EOFError."""
    lines = b""
    while line := await answers.readline():
        lines += line
        if line[3:4] != b"-":
            return lines
    raise EOFError

"""A wire between a process of ours and PostgreSQL that knows a COMMIT when it sees one (PostgreSQL 18, 54.7)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.support.wires import Moment, Wire, connected

REFUSED = b"N"  # the answer to a wish for TLS or GSSAPI
WISHES = (80877103, 80877104)  # SSLRequest, GSSENCRequest

Place = Callable[[Sequence[str]], bool]


@dataclass
class CommitGate:
    """Holds up the next COMMIT of a transaction with such statements, for ever, and says when it has come to that."""

    place: Place
    moment: Moment
    reached: asyncio.Event = field(default_factory=asyncio.Event)


class PostgresWire(Wire):
    """Carries PostgreSQL's protocol to a server's socket."""

    def __init__(self, socket_path: str) -> None:
        super().__init__()
        self.socket_path = socket_path
        self.gate: CommitGate | None = None

    def close_gate(self, place: Place, moment: Moment) -> CommitGate:
        self.gate = CommitGate(place, moment)
        return self.gate

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await read_startup(reader)
        while int.from_bytes(startup[4:8], "big") in WISHES:
            writer.write(REFUSED)
            startup = await read_startup(reader)
        async with connected(self.socket_path) as (answers, server):
            server.write(startup)
            session = Session(self, writer)
            try:
                async with asyncio.TaskGroup() as group:
                    pumps = [
                        group.create_task(session.pass_requests(reader, server)),
                        group.create_task(session.pass_answers(answers)),
                    ]
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    for pump in pumps:
                        pump.cancel()
            except* (OSError, EOFError):
                pass


class Session:
    """One connection: the statements of its transaction so far."""

    def __init__(self, wire: PostgresWire, writer: asyncio.StreamWriter) -> None:
        self.wire = wire
        self.writer = writer
        self.prepared: dict[str, str] = {}
        self.statements: list[str] = []
        self.gate: CommitGate | None = None  # ours, once its COMMIT has been forwarded

    async def pass_requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader)
            if self._note(message):
                gate = self.wire.gate
                if gate is not None and gate.place(self.statements):
                    self.wire.gate = None
                    if gate.moment is Moment.BEFORE:
                        gate.reached.set()
                        await asyncio.Event().wait()
                    self.gate = gate
                self.statements = []
            server.write(message)
            await server.drain()

    async def pass_answers(self, answers: asyncio.StreamReader) -> None:
        while True:
            message = await read_message(answers)
            gate, kind = self.gate, message[:1]
            if gate is not None and kind == b"C" and gate.moment is Moment.UNANSWERED:  # CommandComplete
                gate.reached.set()
                await asyncio.Event().wait()
            self.writer.write(message)
            await self.writer.drain()
            if gate is not None and kind == b"Z":  # ReadyForQuery
                gate.reached.set()
                self.gate = None

    def _note(self, message: bytes) -> bool:
        """Keep in mind what this transaction does; whether this message is its COMMIT."""
        kind, body = message[:1], message[5:]
        match kind:
            case b"P":  # Parse
                name, query, _ = body.split(b"\0", 2)
                self.prepared[name.decode()] = query.decode()
            case b"B":  # Bind
                _, name, _ = body.split(b"\0", 2)
                self.statements.append(self.prepared.get(name.decode(), ""))
            case b"Q":  # Query
                said = body.rstrip(b"\0").decode()
                if said.upper().startswith("BEGIN"):
                    self.statements = []
                if said.upper().startswith("COMMIT"):
                    return True
                self.statements.append(said)
        return False


async def read_startup(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("!i", head)[0] - 4)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)

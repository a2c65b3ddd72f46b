"""Mail servers that take everything and remember what: the tests' own, and Debian's `smtp-sink`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bridge.servers import moody_server
from tests.install import smtp_sink_path
from tests.support.smtp_wires import MESSAGE_ID

BACKLOG = "200"


@dataclass(frozen=True)
class Sink:
    """Listens at `address`; `message_ids()` counts the mails that it has taken."""

    address: tuple[str, int]
    message_ids: Callable[[], Counter[str]]


@contextlib.asynccontextmanager
async def own_sink() -> AsyncIterator[Sink]:
    """aiosmtpd in the tests' process."""
    async with moody_server() as server:
        yield Sink(
            ("127.0.0.1", server.port), lambda: Counter(message_id(envelope.content) for envelope in server.kept)
        )


@contextlib.asynccontextmanager
async def smtp_sink(port: int) -> AsyncIterator[Sink]:
    """Postfix's test server as a process of its own, which writes each mail that it has taken into a file."""
    folder = Path(tempfile.mkdtemp(prefix="visavis-sink-"))
    command = [smtp_sink_path()]
    if os.geteuid() == 0:  # it will not run as root
        shutil.chown(folder, "nobody")
        command += ["-u", "nobody"]
    command += ["-d", f"{folder}/{secrets.token_hex(4)}.", f"127.0.0.1:{port}", BACKLOG]
    process = await asyncio.create_subprocess_exec(*command)
    seen: dict[str, str] = {}

    def message_ids() -> Counter[str]:
        for path in folder.iterdir():
            if path.name not in seen and (found := MESSAGE_ID.search(path.read_bytes())):  # it may just be written
                seen[path.name] = found[1].decode()
        return Counter(seen.values())

    try:
        await wait_for_port(process, port)
        yield Sink(("127.0.0.1", port), message_ids)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        shutil.rmtree(folder)


async def wait_for_port(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(60):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return
    raise RuntimeError("smtp-sink has ended")


def message_id(content: bytes | str | None) -> str:
    """A mail's Message-ID without its brackets (RFC 5322, 3.6.4)."""
    raw = content.encode() if isinstance(content, str) else content or b""
    found = MESSAGE_ID.search(raw)
    assert found is not None
    return found[1].decode()

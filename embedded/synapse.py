"""Synapse, the Matrix homeserver, as a child process on the embedded PostgreSQL.

It listens on 127.0.0.1 only, federates with nobody, and registers a person only against a one-use token. The bot is an
application service (Matrix 1.18, Application Service API), so that it needs no password and knows no rate limit.
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
import signal
import sys
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg

from embedded.postgresql import PORT, PostgreSQL, make_anew, told_by
from embedded.processes import Child, EmbeddedFailed, Folder, claim, keep_port, read_kept, start, told, write_kept

HOST = "127.0.0.1"
ADMIN = "homeserver-admin"  # outside the bots' namespace
SERVICE = "visavis-service"  # the application service's own account; the bots live in its namespace
BOTS = "visavis"
HASH_ROUNDS = 12  # bcrypt, Synapse's default
READY_SECONDS = 120.0
MODULE = Path(__file__).with_name("homeserver.py")


@dataclass(frozen=True)
class Synapse:
    """A running homeserver.

    `as_token` lets its holder act as any account of `bot_namespace` (a regular expression of whole Matrix IDs);
    `admin_token` is for the admin API; `registration_secret` for `/_synapse/admin/v1/register`.
    """

    base_url: str
    port: int
    server_name: str
    as_token: str = field(repr=False)
    hs_token: str = field(repr=False)
    bot_namespace: str
    admin_token: str = field(repr=False)
    registration_secret: str = field(repr=False)
    folder: Folder
    child: Child
    http: aiohttp.ClientSession

    async def register(self, localpart: str, password: str, display_name: str, admin: bool = False) -> str:
        """Make a person's account and give its Matrix ID; an account that exists is left as it is."""
        mxid = f"@{localpart}:{self.server_name}"
        url = f"{self.base_url}/_synapse/admin/v2/users/{quote(mxid, safe='')}"
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        async with self.http.get(url, headers=headers) as answer:
            if answer.status == 200:
                return mxid
        body = {"password": password, "displayname": display_name, "admin": admin, "logout_devices": False}
        async with self.http.put(url, headers=headers, json=body) as answer:
            if answer.status not in (200, 201):
                raise EmbeddedFailed(f"Synapse refused the account {mxid}: {(await answer.json()).get('error')}.")
        return mxid

    async def stop(self) -> None:
        """End it within seconds, and release its folder."""
        await self.http.close()
        await end(self.child)
        self.folder.release()


async def end(child: Child) -> None:
    await child.stop((signal.SIGTERM, 5.0))


@dataclass
class Starting:
    """Synapse with its modules loading, not yet let at its database."""

    folder: Folder
    port: int
    server_name: str
    secrets: dict[str, str]
    child: Child
    hash_rounds: int

    async def abandon(self) -> None:
        await self.child.stop()
        self.folder.release()

    async def go(self, postgresql: PostgreSQL) -> Synapse:
        """Let it at its database, and wait until it answers. Raises EmbeddedFailed, and has stopped it then."""
        http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        try:
            write_configuration(self, postgresql)
            if await is_half_made(postgresql):
                await make_anew(postgresql, "synapse")
            assert self.child.process.stdin  # noqa: S101  # it was started with one
            self.child.process.stdin.write(b"go\n")
            self.child.process.stdin.close()
            base_url = f"http://{HOST}:{self.port}"
            await wait_ready(self.child, http, base_url)
            await keep_admin(self.folder, http, base_url, self.secrets)
        except BaseException:
            await http.close()
            await self.abandon()
            raise
        return Synapse(
            base_url, self.port, self.server_name, self.secrets["as_token"], self.secrets["hs_token"],
            bot_namespace(self.server_name), self.secrets["admin_token"], self.secrets["registration"],
            self.folder, self.child, http,
        )  # fmt: skip


async def start_synapse(
    folder: Path,
    *,
    postgresql: PostgreSQL,
    port: int | None = None,
    server_name: str = "localhost",
    hash_rounds: int = HASH_ROUNDS,
) -> Synapse:
    """Start the homeserver whose files live in `folder`, and wait until it answers.

    The port is the given one, else the one used before, else a new one. `hash_rounds` is bcrypt's cost of a
    password. Raises EmbeddedFailed.
    """
    return await (await prepare_synapse(folder, port, server_name, hash_rounds)).go(postgresql)


async def prepare_synapse(
    folder: Path, port: int | None = None, server_name: str = "localhost", hash_rounds: int = HASH_ROUNDS
) -> Starting:
    """Start loading Synapse while PostgreSQL is still on its way; `go` on the result, or `abandon`, must follow."""
    claimed = await claim(folder)
    try:
        chosen = await keep_port(claimed.path / "port", port, "Matrix")
        kept = keep_secrets(claimed, server_name)
        child = await start(
            claimed, "synapse", [sys.executable, "-P", MODULE, "--config-path", claimed.path / "homeserver.yaml"],
            environment=environment(), cwd=claimed.path, waits=True,
        )  # fmt: skip
    except BaseException:
        claimed.release()
        raise
    return Starting(claimed, chosen, server_name, kept, child, hash_rounds)


async def is_half_made(postgresql: PostgreSQL) -> bool:
    """Whether Synapse died while it made its tables: it commits them bit by bit, the version last, and cannot go on."""
    with told_by(postgresql):
        connection = await asyncpg.connect(postgresql.url("synapse", "synapse"))
        try:
            if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
                return False
            return await connection.fetchval("SELECT version FROM schema_version") is None
        finally:
            await connection.close(timeout=5)


def environment() -> dict[str, str]:
    """Ours, less what would lead libpq to another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def bot_namespace(server_name: str) -> str:
    return f"@{BOTS}.*:{re.escape(server_name)}"


def keep_secrets(folder: Folder, server_name: str) -> dict[str, str]:
    """Tokens and keys, made once. The server name is kept with them, as it can never change."""
    path = folder.path / "secrets.json"
    kept = read_kept(path)
    if kept.get("server_name", server_name) != server_name:
        raise EmbeddedFailed(f"The homeserver in {folder.path} is {kept['server_name']}; its name cannot change.")
    names = ("as_token", "hs_token", "registration", "macaroon", "form", "pepper", "admin_password")
    whole = {name: secrets.token_urlsafe(32) for name in names} | {
        "server_name": server_name,
        "signing_key": f"ed25519 a_1 {b64encode(secrets.token_bytes(32)).decode().rstrip('=')}\n",
    }
    whole |= kept
    if whole != kept:
        write_kept(path, json.dumps(whole))
    return whole


def write_configuration(starting: Starting, postgresql: PostgreSQL) -> None:
    """Write Synapse's files anew (JSON is YAML), since ports and paths may have changed."""
    folder = starting.folder.path
    write_kept(folder / "signing.key", starting.secrets["signing_key"])
    write_kept(folder / "log.yaml", json.dumps(logging_configuration(folder)))
    write_kept(folder / "visavis.yaml", json.dumps(application_service(starting)))
    write_kept(folder / "homeserver.yaml", json.dumps(configuration(starting, postgresql)))


def application_service(starting: Starting) -> dict[str, Any]:
    """The bot's registration (Application Service API, "Registration").

    The homeserver pushes nothing to us: the bot syncs as any client does.
    """
    return {
        "id": "visavis",
        "url": None,
        "as_token": starting.secrets["as_token"],
        "hs_token": starting.secrets["hs_token"],
        "sender_localpart": SERVICE,
        "rate_limited": False,
        "io.element.msc4190": True,  # devices of its accounts are made and removed without password
        "namespaces": {"users": [{"exclusive": True, "regex": bot_namespace(starting.server_name)}]},
    }


def logging_configuration(folder: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
        "handlers": {
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "filename": str(folder / "homeserver.log"),
                "maxBytes": 5_000_000,
                "backupCount": 3,
                "encoding": "utf-8",
                "formatter": "plain",
            }
        },
        "root": {"level": "WARNING", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }


def configuration(starting: Starting, postgresql: PostgreSQL) -> dict[str, Any]:
    """Synapse's settings (Synapse's "Configuration Manual")."""
    folder, kept = starting.folder.path, starting.secrets
    return {
        "server_name": starting.server_name,
        "public_baseurl": f"http://{HOST}:{starting.port}/",
        "listeners": [
            {
                "port": starting.port,
                "bind_addresses": [HOST],
                "type": "http",
                "tls": False,
                "resources": [{"names": ["client"]}],
            }
        ],
        "database": {"name": "psycopg2", "args": database(postgresql)},
        "log_config": str(folder / "log.yaml"),
        "media_store_path": str(folder / "media"),
        "max_upload_size": "100M",  # whatever a room allows; the bot's own limits are per room
        "signing_key_path": str(folder / "signing.key"),
        "app_service_config_files": [str(folder / "visavis.yaml")],
        "report_stats": False,
        "macaroon_secret_key": kept["macaroon"],
        "form_secret": kept["form"],
        "registration_shared_secret": kept["registration"],
        "password_config": {"pepper": kept["pepper"]},
        "bcrypt_rounds": starting.hash_rounds,
        # Whoever holds a one-use token may register, nobody else.
        "enable_registration": True,
        "registration_requires_token": True,
        "allow_guest_access": False,
        "default_room_version": "12",
        "presence": {"enabled": True},
        **forgetting(),
        "url_preview_enabled": False,
        # Nobody outside: no federation, no key servers, no directory of rooms.
        "federation_domain_whitelist": [],
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "enable_room_list_search": False,
        **rate_limits(),
    }


def forgetting() -> dict[str, Any]:
    """How soon it forgets what Visavis asks it to, and what it notes of people by itself.

    A room's own policy holds, where the bot wrote one, down to a day; there is none for rooms without. What is redacted
    is emptied after a day (Synapse's own rule: 7 days), addresses and apps of people are forgotten after a week (28
    days), and a room that all have left and forgotten goes after a day (never).
    """
    return {
        "retention": {
            "enabled": True,
            "allowed_lifetime_min": "1d",
            "purge_jobs": [{"interval": "12h"}],
        },
        "redaction_retention_period": "1d",
        "user_ips_max_age": "7d",
        "forgotten_room_retention_period": "1d",
    }


def database(postgresql: PostgreSQL) -> Mapping[str, Any]:
    return {
        "host": str(postgresql.socket_folder),
        "port": PORT,
        "dbname": "synapse",
        "user": "synapse",
        "password": postgresql.passwords["synapse"],
        "cp_min": 1,
        "cp_max": 10,
    }


def rate_limits() -> dict[str, Any]:
    """Real limits per account, wide enough for one machine, where all clients share one address."""

    def limit(per_second: float, burst_count: int) -> dict[str, float]:
        return {"per_second": per_second, "burst_count": burst_count}

    return {
        "rc_message": limit(5, 50),
        "rc_registration": limit(1, 50),
        "rc_registration_token_validity": limit(1, 50),
        "rc_login": {"address": limit(10, 500), "account": limit(0.5, 30), "failed_attempts": limit(0.1, 10)},
        "rc_joins": {"local": limit(1, 50), "remote": limit(0.01, 10)},
        "rc_joins_per_room": limit(1, 20),
        "rc_invites": {"per_room": limit(1, 20), "per_user": limit(1, 100), "per_issuer": limit(1, 100)},
        "rc_room_creation": limit(0.2, 20),
    }


async def wait_ready(child: Child, http: aiohttp.ClientSession, base_url: str) -> None:
    """Ask until it answers."""
    limit = time.monotonic() + READY_SECONDS
    while time.monotonic() < limit:
        if not child.running:
            raise child.failed("Synapse did not start")
        try:
            async with http.get(f"{base_url}/health") as answer:
                if answer.status == 200:
                    return
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.05)
    raise child.failed("Synapse did not start in time")


async def keep_admin(folder: Folder, http: aiohttp.ClientSession, base_url: str, kept: dict[str, str]) -> None:
    """Have a working token of the administrator's account, in `kept` and in the folder's secrets."""
    if "admin_token" in kept:
        headers = {"Authorization": f"Bearer {kept['admin_token']}"}
        async with http.get(f"{base_url}/_matrix/client/v3/account/whoami", headers=headers) as answer:
            if answer.status == 200:
                return
    kept["admin_token"] = await register_admin(http, base_url, kept) or await log_in_admin(http, base_url, kept)
    with told(f"write to {folder.path}"):
        write_kept(folder.path / "secrets.json", json.dumps(kept))


async def register_admin(http: aiohttp.ClientSession, base_url: str, kept: Mapping[str, str]) -> str | None:
    """The token of a new administrator, or None if there is one already (Synapse, "Shared-Secret Registration")."""
    url = f"{base_url}/_synapse/admin/v1/register"
    async with http.get(url) as answer:
        nonce = (await answer.json())["nonce"]
    password = kept["admin_password"]
    proof = "\0".join((nonce, ADMIN, password, "admin")).encode()
    mac = hmac.new(kept["registration"].encode(), proof, hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": ADMIN, "password": password, "admin": True, "mac": mac}
    async with http.post(url, json=body) as answer:
        said = await answer.json()
        if answer.status == 200:
            return str(said["access_token"])
        if said.get("errcode") == "M_USER_IN_USE":
            return None
        raise EmbeddedFailed(f"Synapse did not make its administrator: {said.get('error')}.")


async def log_in_admin(http: aiohttp.ClientSession, base_url: str, kept: Mapping[str, str]) -> str:
    """A token for the administrator that an earlier, interrupted start made."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": ADMIN},
        "password": kept["admin_password"],
    }
    async with http.post(f"{base_url}/_matrix/client/v3/login", json=body) as answer:
        said = await answer.json()
        if answer.status != 200:
            raise EmbeddedFailed(f"Synapse does not know its administrator: {said.get('error')}.")
        return str(said["access_token"])

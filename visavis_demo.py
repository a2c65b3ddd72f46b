"""The demo: everything on one machine, with sample people. `visavis demo` loads it."""

import asyncio
import contextlib
import functools
import json
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import click
import yaml

import migrations
from bridge import mail, samples
from bridge.mail import KINDS
from embedded import answers
from embedded.demo import DemoPerson, describe, fill
from embedded.processes import EmbeddedFailed, claim, keep_port, read_kept, write_kept
from embedded.servers import Servers, start_all
from supervision import logs, pairs
from supervision.config import Config, load
from supervision.db import Database
from supervision.models import PairStatus
from supervision.pairs import Pair
from web.demo import DemoPages

PARTS = ("bot", "bridge", "web")


# What a demo keeps; `--fresh` removes these and nothing else, whatever folder it is given.
KEPT_FOLDERS = ("bot", "mail", "postgresql", "synapse")
KEPT_FILES = ("config.yaml", "demo.json", "inbound-port", "metrics-port", "passwords.json", "secret.json", "web-port")


class RunParts(Protocol):
    async def __call__(
        self,
        config: Config,
        parts: Sequence[str],
        *,
        demo_pages: DemoPages | None = None,
        when_running: Callable[[Database], Coroutine[Any, Any, None]] | None = None,
    ) -> None: ...


async def run(
    state: Path,
    web_port: int | None,
    matrix_port: int | None,
    run_parts: RunParts,
    *,
    fresh: bool,
) -> None:
    """All embedded servers, the sample people, all parts; `demo.json` appears when everything is ready."""
    started = time.monotonic()
    click.echo("Visavis starts. The first time this takes a few seconds more.")
    if fresh:
        await forget(state)

    def begin(folder: Path) -> None:
        """Once the folder is ours: who waits for `demo.json` must not find an earlier start's."""
        (folder / "demo.json").unlink(missing_ok=True)
        logs.write_to(folder / "visavis.log")

    async with start_all(state, matrix_port=matrix_port, claimed=begin) as servers:
        config = await configure(servers, web_port)
        owner = servers.postgresql.dsn("visavis", "visavis_owner")
        await migrations.upgrade(owner, config.database.url.get_secret_value())
        database = Database(config.database.url.get_secret_value(), pool_size=2)
        try:
            demo_people = await fill(database, servers.synapse, state)
        finally:
            await database.close()
        pages = DemoPages(
            servers.mail.maildir,
            tuple(one.person for one in demo_people),
            KINDS,
            functools.partial(preview, config),
            functools.partial(answer, config),
        )

        async def tell(database: Database) -> None:
            known = await wait_for_rooms(database)
            await wait_for_page(f"{config.web.base_url}/health/ready")
            content = describe(
                demo_people,
                known,
                web=config.web.base_url,
                homeserver=servers.synapse.base_url,
                metrics=f"http://{config.web.metrics_listen}:{config.web.metrics_port}/metrics",
                server_name=servers.synapse.server_name,
                bot=config.matrix.bot,
            )
            write_kept(state / "demo.json", content)
            click.echo(screen(config, servers, demo_people, time.monotonic() - started))

        await run_parts(config, PARTS, demo_pages=pages, when_running=tell)


async def forget(state: Path) -> None:
    """Remove an earlier demo. Raises EmbeddedFailed while one is running there."""
    folder = await claim(state)
    try:
        for path in [state / name for name in KEPT_FOLDERS]:
            if path.is_dir():
                await remove(path)
        for name in KEPT_FILES:
            (state / name).unlink(missing_ok=True)
    finally:
        folder.release()


async def remove(folder: Path) -> None:
    """Remove a server's folder once the children of a start that was killed are gone from it."""
    claimed = await claim(folder)
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        claimed.release()


async def configure(servers: Servers, web_port: int | None) -> Config:
    """A configuration like any other, kept in the state folder, so that every command works on the demo too."""
    state = servers.state
    secret = read_kept(state / "secret.json").get("secret") or secrets.token_urlsafe(48)
    write_kept(state / "secret.json", json.dumps({"secret": secret}))
    port = await keep_port(state / "web-port", web_port, "the dashboard")
    metrics_port = await keep_port(state / "metrics-port", None, "the metrics")
    inbound_port = await keep_port(state / "inbound-port", None, "calendars' answers")
    content = {
        "secret": secret,
        "database": {
            "url": servers.postgresql.dsn("visavis", "visavis_app"),
            "owner_url": servers.postgresql.dsn("visavis", "visavis_owner"),
        },
        "matrix": {
            "homeserver": servers.synapse.base_url,
            "bot": f"@visavis:{servers.synapse.server_name}",
            "as_token": servers.synapse.as_token,
            "admin_token": servers.synapse.admin_token,
            "store": str(state / "bot"),
        },
        "mail": {"port": servers.mail.port, "security": "none", "sender": "visavis@visavis.example"},
        "inbound": {"domain": "mail.visavis.example", "authserv_id": "visavis.example", "port": inbound_port},
        "web": {"base_url": f"http://localhost:{port}", "port": port, "metrics_port": metrics_port},
    }
    write_kept(state / "config.yaml", yaml.safe_dump(content, sort_keys=False))
    return load(state / "config.yaml", environment={})


def preview(config: Config, kind: str, language: str) -> bytes:
    """A mail of that kind to a sample person."""
    now = datetime.now(UTC)
    return mail.write(samples.letter(kind, language, now=now), config, now=now).content


async def answer(config: Config, invitation: bytes, word: str) -> bool:
    """Answer a mail's invitation as a calendar does; whether the bridge took it."""
    listening = config.inbound
    if listening is None:
        return False
    reply = answers.reply(invitation, word, listening.authserv_id, now=datetime.now(UTC))
    if reply is None:
        return False
    with contextlib.suppress(EmbeddedFailed):
        await answers.hand_over(reply, listening.listen, listening.port)
        return True
    return False


async def wait_for_rooms(database: Database) -> list[Pair]:
    """Every active pair, once the bot has made all their rooms."""
    while True:
        async with database.transaction() as tx:
            known = [one for one in await pairs.list_all(tx) if one.status is PairStatus.ACTIVE]
        if all(one.room_id for one in known):
            return known
        await asyncio.sleep(0.05)


async def wait_for_page(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


def screen(config: Config, servers: Servers, demo_people: Sequence[DemoPerson], seconds: float) -> str:
    """What to open, and how to sign in with Element, on one screen."""
    base = config.web.base_url
    rows = [
        f"  {one.person.name:<16} {', '.join(sorted(one.person.roles)):<12} {one.person.matrix_id:<20} {one.password}"
        for one in demo_people
    ]
    return "\n".join(
        [
            "",
            f"Visavis is ready ({seconds:.0f} s). Stop it with Ctrl-C; started again it goes on where it was.",
            "",
            f"  Look around       {base}/demo          sign in as anybody with one click",
            f"  Read the mail     {base}/demo/mailbox  nothing leaves this machine",
            "",
            "  Chat: in any Matrix client that runs on this machine (Element Desktop, or Element Web in a browser):",
            f"    1. Sign in, Edit the homeserver: {servers.synapse.base_url}",
            "    2. Take a name and password from below; let the client set up its recovery key.",
            "    3. Accept the invitation, and write !help or !ajuda.",
            "",
            "  Person           Role         Matrix ID            Password",
            *rows,
            "",
            f"  The bot is {config.matrix.bot}. For scripts: {servers.state / 'demo.json'}",
        ]
    )

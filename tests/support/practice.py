"""A whole practice in the tests' process: every part of Visavis running on the embedded servers."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Self
from urllib.parse import quote

import bridge.delivery
import web.app
from bot.app import Bot
from embedded.processes import keep_port
from embedded.servers import Servers
from supervision import pairs
from supervision.config import Config
from supervision.db import Database
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.human import Human
from tests.support.sample import OPEN_HOURS, add_pair, add_person

PASSWORD = "correct horse battery staple"


@dataclass
class Practice:
    """`bot` is the account's Matrix ID; `state` a folder for the tests' clients."""

    servers: Servers
    database: Database
    config: Config
    state: Path
    running: asyncio.Task[None] | None = None
    delivering: asyncio.Task[None] | None = None
    machine: Bot | None = None
    read_mails: dict[str, EmailMessage] = field(default_factory=dict)

    @property
    def bot(self) -> str:
        return self.config.matrix.bot

    @property
    def homeserver(self) -> str:
        return self.servers.synapse.base_url

    async def add_person(self, name: str, roles: list[str], *, language: str, time_zone: str) -> Person:
        """A person with an account of the homeserver, whose password is PASSWORD."""
        localpart = f"{name.lower()}-{secrets.token_hex(4)}"
        matrix_id = await self.servers.synapse.register(localpart, PASSWORD, name)
        return await add_person(
            self.database,
            name,
            roles,
            now=datetime.now(UTC),
            email=f"{localpart}@example.org",
            matrix_id=matrix_id,
            language=language,
            time_zone=time_zone,
        )

    async def add_pair(self, supervisor: Person | None = None, supervisee: Person | None = None) -> Pair:
        """Ana in São Paulo and Bruno, who reads English in Lisbon, unless given; with the room that the bot makes."""
        ana = supervisor or await self.add_person(
            "Ana", ["supervisor"], language="pt-BR", time_zone="America/Sao_Paulo"
        )
        bruno = supervisee or await self.add_person("Bruno", ["supervisee"], language="en", time_zone="Europe/Lisbon")
        pair = await add_pair(self.database, now=datetime.now(UTC), supervisor=ana, supervisee=bruno, rules=OPEN_HOURS)
        return await self.wait_for_room(pair)

    async def wait_for_room(self, pair: Pair) -> Pair:
        async with asyncio.timeout(60):
            while True:
                async with self.database.transaction() as tx:
                    found = await pairs.get(tx, pair.id)
                if found.room_id is not None:
                    return found
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def phone(self, person: Person, *, cross_signed: bool = True) -> AsyncIterator[Human]:
        """A client of this person's, logged in with a fresh device."""
        folder = self.state / secrets.token_hex(6)
        folder.mkdir()
        async with Human.log_in(
            self.homeserver, person.matrix_id or "", PASSWORD, store=folder, cross_signed=cross_signed
        ) as human:
            yield human

    @asynccontextmanager
    async def phones(self, pair: Pair) -> AsyncIterator[tuple[Human, Human]]:
        """Supervisor's and supervisee's clients, in the room, with the bot's introductions heard."""
        async with AsyncExitStack() as stack:
            phones = [await stack.enter_async_context(self.phone(person)) for person in pair.people]
            for phone in phones:
                await phone.join(pair.room_id or "")
                await phone.next_message(self.bot, lambda message: "!ajuda" in message.body or "!help" in message.body)
            yield phones[0], phones[1]

    async def put_into_room(self, room_id: str, matrix_id: str) -> None:
        """Invite somebody as the bot itself, as whoever runs the homeserver could."""
        url = f"{self.homeserver}/_matrix/client/v3/rooms/{quote(room_id, safe='')}/invite"
        headers = {"Authorization": f"Bearer {self.servers.synapse.as_token}"}
        invited = {"user_id": matrix_id}
        http = self.servers.synapse.http
        async with http.post(url, params={"user_id": self.bot}, headers=headers, json=invited) as answer:
            assert answer.status == 200

    async def mails(self, address: str, *, at_least: int, timeout: float = 60) -> list[EmailMessage]:
        """All mails to an address, oldest first, once there are so many. Raises TimeoutError with their subjects."""
        found: list[EmailMessage] = []
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = self._mails_to(address)
                    if len(found) >= at_least:
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            subjects = [str(mail["Subject"]) for mail in found]
            raise TimeoutError(f"{at_least} mails to {address}; there are {subjects}") from None

    def _mails_to(self, address: str) -> list[EmailMessage]:
        folder = self.servers.mail.maildir / "new"
        for path in folder.iterdir():
            if path.name not in self.read_mails:
                self.read_mails[path.name] = BytesParser(EmailMessage, policy=policy.default).parsebytes(
                    path.read_bytes()
                )
        ordered = sorted(self.read_mails)
        return [self.read_mails[name] for name in ordered if address in str(self.read_mails[name]["To"])]

    async def start_bot(self) -> None:
        """Run the bot account, as a fresh process would."""
        self.machine = Bot(self.database, self.config)
        self.running = asyncio.create_task(self.machine.run())

    async def stop_bot(self) -> None:
        """End the bot in the middle of whatever it does."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            self.running = None

    async def start_bridge(self) -> None:
        """Deliver mail, as a fresh process would."""
        self.delivering = asyncio.create_task(bridge.delivery.run(self.database, self.config))

    async def stop_bridge(self) -> None:
        """End the delivery of mail; what is being sent is finished."""
        if self.delivering is not None:
            self.delivering.cancel()
            await asyncio.gather(self.delivering, return_exceptions=True)
            self.delivering = None


@dataclass
class Room:
    """The room of a pair, Ana's and Bruno's unless made otherwise, each with a phone."""

    practice: Practice
    pair: Pair
    ana: Human
    bruno: Human

    @property
    def id(self) -> str:
        return self.pair.room_id or ""

    @classmethod
    @asynccontextmanager
    async def open(cls, practice: Practice) -> AsyncIterator[Self]:
        pair = await practice.add_pair()
        async with practice.phones(pair) as (ana, bruno):
            yield cls(practice, pair, ana, bruno)


@asynccontextmanager
async def open_practice(servers: Servers, database_name: str, state: Path) -> AsyncIterator[Practice]:
    """Run bot, bridge and web on a migrated database until the end of the block."""
    config = Config.model_validate(
        {
            "secret": secrets.token_urlsafe(48),
            "database": {"url": servers.postgresql.dsn(database_name, "visavis_app")},
            "matrix": {
                "homeserver": servers.synapse.base_url,
                "bot": f"@visavis-{secrets.token_hex(3)}:{servers.synapse.server_name}",
                "as_token": servers.synapse.as_token,
                "admin_token": servers.synapse.admin_token,
                "store": state / "bot",
            },
            "mail": {"port": servers.mail.port, "security": "none", "sender": "visavis@visavis.example"},
            "web": await _web_section(state),
        }
    )
    database = Database(config.database.url.get_secret_value(), pool_size=20)
    practice = Practice(servers, database, config, state)
    started = asyncio.Event()
    dashboard = asyncio.create_task(web.app.run(database, config, started=started))
    await practice.start_bridge()
    await practice.start_bot()
    try:
        await asyncio.wait_for(started.wait(), 60)
        yield practice
    finally:
        await practice.stop_bot()
        await practice.stop_bridge()
        dashboard.cancel()
        await asyncio.gather(dashboard, return_exceptions=True)
        await database.close()


async def _web_section(state: Path) -> dict[str, object]:
    port = await keep_port(state / "web-port", None, "the dashboard")
    metrics_port = await keep_port(state / "metrics-port", None, "the metrics")
    return {"base_url": f"http://localhost:{port}", "port": port, "metrics_port": metrics_port}

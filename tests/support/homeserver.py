"""A bot account on a real homeserver, for tests of the Matrix transport: it remembers what it was told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bot.client import Account, Client, Incoming, LoggedOut, Trust
from bot.rooms import Plan, create_room
from embedded.synapse import Synapse
from tests.support.human import Human

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Pair:
    """Two people with a phone each in their room."""

    room_id: str
    ana: Human
    bruno: Human

    @property
    def people(self) -> set[str]:
        return {self.ana.user_id, self.bruno.user_id}


@dataclass
class Seat:
    """A bot client with its ears; `restart` is a crash without losing the folder."""

    synapse: Synapse
    account: Account
    grace: float = 10.0
    token: str | None = None
    pins: dict[str, str] = field(default_factory=dict)
    heard: list[Incoming] = field(default_factory=list)
    members: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    trusts: list[tuple[str, Trust]] = field(default_factory=list)
    invitations: list[tuple[str, str | None]] = field(default_factory=list)
    answer: Callable[[Incoming], Any] | None = None
    client: Client = field(init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def take(
        cls, synapse: Synapse, store: Path, *, grace: float = 10.0, homeserver: str | None = None
    ) -> AsyncIterator[Self]:
        """Run a new bot account; `homeserver` is the URL by which it finds Synapse, if not the direct one."""
        account = cls.account_of(synapse, store, homeserver=homeserver or synapse.base_url)
        async with cls._run(synapse, account, grace) as seat:
            yield seat

    @classmethod
    @asynccontextmanager
    async def take_by_password(cls, synapse: Synapse, store: Path) -> AsyncIterator[Self]:
        """Run a bot on an ordinary account, as it would on somebody else's homeserver."""
        user_id = await make_account(synapse)
        account = Account(synapse.base_url, user_id, store, "Visavis", password=PASSWORD)
        async with cls._run(synapse, account, 10.0) as seat:
            yield seat

    @classmethod
    def account_of(cls, synapse: Synapse, store: Path, **values: Any) -> Account:
        """A bot account that nobody has used."""
        user_id = f"@visavis.{secrets.token_hex(4)}:{synapse.server_name}"
        values = {"homeserver": synapse.base_url, "as_token": synapse.as_token} | values
        return Account(user_id=user_id, store=store, display_name="Visavis", **values)

    @classmethod
    @asynccontextmanager
    async def _run(cls, synapse: Synapse, account: Account, grace: float) -> AsyncIterator[Self]:
        seat = cls(synapse, account, grace)
        try:
            await seat.start()
            yield seat
        finally:
            await seat.stop()

    async def start(self) -> None:
        self.client = Client(self.account, pin=self.pin, grace=self.grace)
        await self.client.connect()
        self.run()
        await self.client.wait_until_synced()

    def run(self) -> None:
        self._running = asyncio.create_task(
            self.client.run(
                load_token=self._load,
                save_token=self._save,
                on_event=self._hear,
                on_members=self._see_members,
                on_trust_changed=self._see_trust,
                on_invitation=self._see_invitation,
                **self.more_ears(),
            )
        )

    def more_ears(self) -> dict[str, Any]:
        """What else of `Client.run` is listened to."""
        return {}

    async def stop(self) -> None:
        """End it as a signal would, without a last word to anybody."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError, LoggedOut):
                await self._running
            self._running = None
        await self.client.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def pin(self, user_id: str, master_key: str) -> str | None:
        return self.pins.setdefault(user_id, master_key)

    async def _load(self) -> str | None:
        return self.token

    async def _save(self, token: str) -> None:
        self.token = token
        self._tell()

    async def _hear(self, event: Incoming) -> None:
        if self.answer is not None:
            await self.answer(event)
        self.heard.append(event)
        self._tell()

    async def _see_members(self, room_id: str, members: Mapping[str, str]) -> None:
        self.members.append((room_id, members))
        self._tell()

    async def _see_trust(self, user_id: str, trust: Trust) -> None:
        self.trusts.append((user_id, trust))
        self._tell()

    async def _see_invitation(self, room_id: str, inviter: str | None) -> None:
        self.invitations.append((room_id, inviter))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def wait_for(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until the condition holds, looking at each news and four times a second."""
        async with asyncio.timeout(timeout):
            while not condition():
                if self._running is not None and self._running.done():
                    self._running.result()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), 0.25)

    async def next_heard(self, event_id: str, timeout: float = 60.0) -> Incoming:
        """The event of that ID, as it was first handed over."""
        await self.wait_for(lambda: any(event.event_id == event_id for event in self.heard), timeout)
        return next(event for event in self.heard if event.event_id == event_id)

    async def next_heard_or_dropped(self, event_id: str) -> None:
        """Wait until the event of that ID is over, whatever became of it."""
        token = self.token
        await self.wait_for(lambda: self.token != token)

    async def pair_up(self, ana: Human, bruno: Human) -> Pair:
        """Make a room for the two and wait until all three can read it."""
        room_id = await self.make_room(ana.user_id, bruno.user_id)
        for person in (ana, bruno):
            await person.join(room_id)
        await self.wait_for(lambda: all(self.client.can_read(room_id, who.user_id) for who in (ana, bruno)))
        return Pair(room_id, ana, bruno)

    async def make_room(self, *people: str) -> str:
        return await create_room(self.client, Plan(secrets.token_hex(16), frozenset(people), federate=False))

    async def say(self, pair: Pair, body: str, transaction_id: str | None = None) -> str:
        return await self.client.send(
            pair.room_id,
            "m.room.message",
            {"msgtype": "m.notice", "body": body},
            transaction_id=transaction_id or secrets.token_hex(8),
            expected=pair.people,
        )


@asynccontextmanager
async def people(synapse: Synapse, folder: Path, count: int, **options: Any) -> AsyncIterator[list[Human]]:
    """So many people with accounts of their own, each logged in with one phone."""
    async with AsyncExitStack() as stack:
        humans = []
        for _ in range(count):
            user_id = await make_account(synapse)
            humans.append(await stack.enter_async_context(phone(synapse, folder, user_id, **options)))
        yield humans


async def make_account(synapse: Synapse) -> str:
    return await synapse.register(f"person-{secrets.token_hex(4)}", PASSWORD, "Ana")


@asynccontextmanager
async def phone(synapse: Synapse, folder: Path, user_id: str, **options: Any) -> AsyncIterator[Human]:
    """One more phone of this person."""
    store = folder / f"phone-{secrets.token_hex(4)}"
    store.mkdir()
    async with Human.log_in(synapse.base_url, user_id, PASSWORD, store=store, **options) as human:
        yield human

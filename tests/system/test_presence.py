"""Who is online, as the homeserver tells it: kept, renewed, and forgotten where nobody wants to know."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import aiohttp
import pytest
from sqlalchemy import select

from supervision import presences
from supervision.models import presences as table
from supervision.people import Person
from supervision.presences import Presence
from tests.support.practice import PASSWORD, Practice


class Client:
    """A person's client as far as presence goes: it never syncs, and says itself whether somebody is at it."""

    def __init__(self, http: aiohttp.ClientSession, practice: Practice, person: Person) -> None:
        self.http, self.practice, self.person = http, practice, person
        self.base = f"{practice.homeserver}/_matrix/client/v3"
        self.headers: dict[str, str] = {}

    async def enter(self, room_id: str) -> None:
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.person.matrix_id},
            "password": PASSWORD,
        }
        self.headers = {"Authorization": f"Bearer {(await self._ask('POST', '/login', login))['access_token']}"}
        await self._ask("POST", f"/join/{quote(room_id, safe='')}", {})

    async def may_often(self) -> None:
        """Homeservers take word of presence every ten seconds, unless told otherwise (Synapse's admin API)."""
        place = f"/_synapse/admin/v1/users/{quote(self.person.matrix_id or '')}/override_ratelimit"
        lifted = {"messages_per_second": 0, "burst_count": 0}
        headers = {"Authorization": f"Bearer {self.practice.servers.synapse.admin_token}"}
        async with self.http.post(self.practice.homeserver + place, json=lifted, headers=headers) as answer:
            assert answer.status == 200

    async def show(self, presence: str) -> None:
        await self._ask("PUT", f"/presence/{quote(self.person.matrix_id or '')}/status", {"presence": presence})

    async def _ask(self, method: str, path: str, body: object) -> dict[str, str]:
        async with self.http.request(method, self.base + path, json=body, headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, str] = await answer.json()
            return found


async def known(practice: Practice, person: Person) -> Presence | None:
    async with practice.database.transaction() as tx:
        return (await presences.of(tx, [person.id], now=datetime.now(UTC))).get(person.id)


async def wait_until(practice: Practice, person: Person, *, online: bool | None) -> Presence | None:
    """None: until nothing is known."""
    async with asyncio.timeout(60):
        while True:
            found = await known(practice, person)
            if (None if found is None else found.online) is online:
                return found
            await asyncio.sleep(0.1)


async def wait_until_told(practice: Practice, person: Person, since: datetime) -> None:
    async with asyncio.timeout(60):
        while True:
            async with practice.database.transaction() as tx:
                told_at = await tx.scalar(select(table.c.told_at).where(table.c.person_id == person.id))
            if told_at is not None and told_at >= since:
                return
            await asyncio.sleep(0.1)


async def test_somebody_comes_stays_and_goes(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.presence.EVERY", 0.2)
    machine = practice.machine
    assert machine is not None
    await machine.client.wait_until_synced()
    await asyncio.sleep(0.5)  # who the bot's people are was read: the pair is new to it
    pair = await practice.add_pair()
    async with aiohttp.ClientSession() as http:
        bruno = Client(http, practice, pair.supervisee)
        await bruno.may_often()
        await bruno.enter(pair.room_id or "")
        await bruno.show("online")
        await wait_until(practice, pair.supervisee, online=True)

        # Nothing comes of who stays: after some minutes the homeserver is asked.
        machine.presences.clock = lambda: datetime.now(UTC) + timedelta(minutes=5)
        await wait_until_told(practice, pair.supervisee, datetime.now(UTC) + timedelta(minutes=4))
        machine.presences.clock = lambda: datetime.now(UTC) + timedelta(minutes=6)

        await bruno.show("offline")
        found = await wait_until(practice, pair.supervisee, online=False)
        assert found is not None
        assert found.active_at is not None
        assert abs(found.active_at - datetime.now(UTC) - timedelta(minutes=6)) < timedelta(minutes=2)
        assert found.active_at.second == 0
        # Who was never seen is asked after, and nothing is known of them.
        assert await known(practice, pair.supervisor) in (None, Presence(online=False))

    await practice.stop_bot()
    matrix = practice.config.matrix.model_copy(update={"presence": False})
    practice.config = practice.config.model_copy(update={"matrix": matrix})
    await practice.start_bot()
    await wait_until(practice, pair.supervisee, online=None)

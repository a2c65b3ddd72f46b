"""Events that wait for something which may never come: their room is not to wait with them for ever."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from bot.client import Account, Client, _Room
from bot.events import Incoming
from bot.files import Files
from bot.handlers import PATIENCE, Handlers
from bot.notices import Notices
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import Transient
from supervision.models import audit_entries
from supervision.models import pairs as pairs_table
from tests.support.sample import add_pair

ROOM = "!room:example.org"


async def pin(user_id: str, master_key: str) -> str | None:
    return None


async def test_a_tap_waits_for_its_sender_s_devices_for_a_while_only(
    database: Database, now: datetime, tmp_path: Path
) -> None:
    """A homeserver of somebody's own can withhold them, and date what it sends in a year from now."""
    pair, passed = await add_pair(database, now=now), timedelta()
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id=ROOM))
    client = Client(Account("http://127.0.0.1:9", "@visavis:example.org", tmp_path, "Visavis"), pin=pin)
    bruno = pair.supervisee.matrix_id or ""
    joined = {"type": "m.room.member", "state_key": bruno, "content": {"membership": "join"}}
    client._rooms[ROOM] = room = _Room()  # noqa: SLF001  # as it stands after the first sync
    room.read(joined)

    def clock() -> datetime:
        return now + passed

    files = Files(database, client, clock, RoomsConfig(), "a secret of the tests")
    handlers = Handlers(database, Notices(database, client, clock), clock, "http://localhost", files=files)
    tap = Incoming(
        ROOM, "$tap", bruno, now + timedelta(days=365), "reaction", "m.reaction", relates_to="$asked", key="✅"
    )
    with pytest.raises(Transient, match="devices_unknown"):
        await handlers.handle(tap)
    passed = PATIENCE
    await handlers.handle(tap)
    async with database.transaction() as tx:
        reasons = list(await tx.scalars(select(audit_entries.c.reason).where(audit_entries.c.action == "command")))
    assert reasons == ["reaction.devices_unknown"]

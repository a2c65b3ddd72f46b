"""A new room in place of one that is still there, but in which the bot must not speak."""

import pytest

from embedded.synapse import Synapse
from supervision import pairs, renewals
from supervision.audit import Actor
from supervision.db import Database
from supervision.models import Fault, PairStatus
from tests.bot.test_keeping import Kept, keep
from tests.support.homeserver import Seat
from tests.support.proxy import Proxy

OPERATOR = Actor(None, "cli")


@pytest.fixture
async def far(database: Database, synapse: Synapse, far_seat: Seat) -> Kept:
    """Ana and Bruno, whose room's bot is behind a proxy."""
    return await keep(database, synapse, far_seat)


async def test_a_room_that_stays_unencrypted_is_replaced(far: Kept, proxy: Proxy) -> None:
    old = far.room_id
    await far.put("m.room.encryption", {})
    refused = f"/rooms/{old}/state/m.room.encryption/"
    proxy.refuse = lambda _, place: (403, {"errcode": "M_FORBIDDEN"}) if place == refused else None
    assert (await far.look()).fault is Fault.NOT_ENCRYPTED
    async with far.database.transaction() as tx:
        apart = await renewals.renew_room(tx, OPERATOR, far.pair.id, now=far.clock())
    made = (await far.look()).room_id
    await far.look()
    assert (made not in (None, old), far.pair.fault) == (True, None)
    assert (await far.members())[far.bruno] == "invite"
    far.hours = 2
    await far.keeping.look()
    async with far.database.transaction() as tx:
        kept = await pairs.get(tx, apart)
    assert (kept.room_id, kept.status, kept.fault) == (old, PairStatus.ARCHIVED, Fault.NOT_ENCRYPTED)
    proxy.refuse = lambda *_: None
    far.hours = 4
    await far.keeping.look()
    async with far.database.transaction() as tx:
        assert (await pairs.get(tx, apart)).fault is None

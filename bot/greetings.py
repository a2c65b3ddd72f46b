"""The first words in a room, and what to say to somebody who could not be written to for a while."""

from collections.abc import Callable
from datetime import datetime

from bot.client import Client
from supervision import notifications, pairs, retention
from supervision.db import Database, Transaction
from supervision.errors import NotFound
from supervision.models import Channel
from supervision.notifications import HIGH, Notice
from supervision.pairs import Pair
from supervision.people import Person


async def greet(database: Database, client: Client, room_id: str, clock: Callable[[], datetime]) -> None:
    """Introduce the bot to whoever can read the room now and has not met it, and sum up what waited for them.

    Safe to call at any time and any number of times: what was done is noted in the transaction that enqueues it. In a
    room with a fault nothing is said.
    """
    async with database.transaction() as tx:
        try:
            pair = await pairs.by_room(tx, room_id)
        except NotFound:
            return
        if pair.fault is not None:
            return
        ready = [one for one in pair.people if one.matrix_id and client.can_read(room_id, one.matrix_id)]
        notices = [
            *await _introductions(tx, pair, ready, now=clock()),
            *await _summaries(tx, pair, ready, now=clock()),
        ]
        await notifications.enqueue(tx, notices, now=clock())


async def _introductions(tx: Transaction, pair: Pair, ready: list[Person], *, now: datetime) -> list[Notice]:
    """One notice to both if they came together and share a language, else one to each."""
    fresh = [one for one in ready if await pairs.set_introduced(tx, pair, one, now=now)]
    groups = [fresh] if len({one.language for one in fresh}) == 1 else [[one] for one in fresh]
    return [
        Notice(
            group[0].id,
            Channel.MATRIX,
            "room.introduction",
            {"people": [str(one.id) for one in group]},
            pair_id=pair.id,
            priority=HIGH,
        )
        for group in groups
        if group
    ]


async def _summaries(tx: Transaction, pair: Pair, ready: list[Person], *, now: datetime) -> list[Notice]:
    waited = [one for one in ready if await notifications.take_waiting(tx, pair.id, one.id, now=now)]
    for one in ready:
        await retention.void_unsaid(tx, pair.id, one.id)
    return [Notice(one.id, Channel.MATRIX, "room.summary", pair_id=pair.id) for one in waited]

"""A real homeserver, and a pair of people with phones on it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from embedded.postgresql import PostgreSQL
from embedded.synapse import Synapse, start_synapse
from tests.support.homeserver import Pair, Seat, people
from tests.support.human import Human


@pytest.fixture(scope="session")
async def synapse(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Synapse]:
    server = await start_synapse(tmp_path_factory.mktemp("synapse"), postgresql=postgresql, hash_rounds=4)
    yield server
    await server.stop()


@pytest.fixture
async def seat(synapse: Synapse, tmp_path: Path) -> AsyncIterator[Seat]:
    """A bot account of its own, connected and syncing."""
    async with Seat.take(synapse, tmp_path / f"bot-{secrets.token_hex(4)}") as seat:
        yield seat


@pytest.fixture
async def pair(synapse: Synapse, seat: Seat, tmp_path: Path) -> AsyncIterator[Pair]:
    """Ana and Bruno with a phone each, in their room with the bot."""
    async with people(synapse, tmp_path, 2) as (ana, bruno):
        yield await pair_up(seat, ana, bruno)


async def pair_up(seat: Seat, ana: Human, bruno: Human) -> Pair:
    room_id = await seat.make_room(ana.user_id, bruno.user_id)
    for person in (ana, bruno):
        await person.join(room_id)
    await seat.wait_for(lambda: all(seat.client.can_read(room_id, who.user_id) for who in (ana, bruno)))
    return Pair(room_id, ana, bruno)

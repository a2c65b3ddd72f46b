"""A real homeserver, and a pair of people with phones on it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from embedded.synapse import Synapse
from tests.support.homeserver import Pair, Seat, people
from tests.support.proxy import Proxy


@pytest.fixture
async def seat(synapse: Synapse, tmp_path: Path) -> AsyncIterator[Seat]:
    """A bot account of its own, connected and syncing."""
    async with Seat.take(synapse, tmp_path / f"bot-{secrets.token_hex(4)}") as seat:
        yield seat


@pytest.fixture
async def pair(synapse: Synapse, seat: Seat, tmp_path: Path) -> AsyncIterator[Pair]:
    """Ana and Bruno with a phone each, in their room with the bot."""
    async with people(synapse, tmp_path, 2) as (ana, bruno):
        yield await seat.pair_up(ana, bruno)


@pytest.fixture
async def proxy(synapse: Synapse) -> AsyncIterator[Proxy]:
    """Synapse behind a server that can misbehave."""
    async with Proxy.before(synapse.base_url) as proxy:
        yield proxy


@pytest.fixture
async def far_seat(synapse: Synapse, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Seat]:
    """A bot that knows its homeserver through the proxy only, and waits two seconds for a key."""
    store = tmp_path / f"bot-{secrets.token_hex(4)}"
    async with Seat.take(synapse, store, homeserver=proxy.url, grace=2.0) as seat:
        yield seat


@pytest.fixture
async def far_pair(synapse: Synapse, far_seat: Seat, tmp_path: Path) -> AsyncIterator[Pair]:
    """Ana and Bruno in a room with the bot behind the proxy; they themselves are not behind it."""
    async with people(synapse, tmp_path, 2) as (ana, bruno):
        yield await far_seat.pair_up(ana, bruno)

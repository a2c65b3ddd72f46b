"""A homeserver for the engine and its counterparts."""

from collections.abc import AsyncIterator

import pytest

from embedded.postgresql import PostgreSQL
from embedded.synapse import Synapse, start_synapse


@pytest.fixture(scope="session")
async def synapse(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Synapse]:
    server = await start_synapse(tmp_path_factory.mktemp("synapse"), postgresql=postgresql, hash_rounds=4)
    yield server
    await server.stop()

"""What every test can have: PostgreSQL with our schema, and Synapse and a mail server where a test asks for them."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from playwright.async_api import Browser, async_playwright

import migrations
from embedded.mailserver import start_mail_server
from embedded.postgresql import PostgreSQL, start_postgresql
from embedded.servers import Servers
from embedded.synapse import Synapse, start_synapse
from supervision.db import Database
from tests.install import chromium_path
from tests.support.databases import Databases
from tests.support.forks import Nursery
from tests.support.orders import arrange
from tests.support.practice import Practice, open_practice

# Hypothesis tries the same examples in each run, and calls none of them too slow: a test that fails means a change. The
# long programmes try new ones.
settings.register_profile("long", settings.get_profile("ci"), derandomize=False)
settings.load_profile("long" if os.environ.get("VISAVIS_LONG") == "1" else "ci")

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = arrange(items, processes)


@pytest.fixture
def now() -> datetime:
    """A Monday morning in São Paulo, four weeks before anything interesting happens to its clocks."""
    return datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def postgresql(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PostgreSQL]:
    server = await start_postgresql(tmp_path_factory.mktemp("postgresql"), durable=False)
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def synapse(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Synapse]:
    server = await start_synapse(tmp_path_factory.mktemp("synapse"), postgresql=postgresql, hash_rounds=4)
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def servers(
    postgresql: PostgreSQL, synapse: Synapse, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Servers]:
    """The session's servers together, as the demo has them."""
    state = tmp_path_factory.mktemp("servers")
    mail = await start_mail_server(state / "mail")
    yield Servers(state, postgresql, synapse, mail)
    await mail.stop()


@pytest.fixture(scope="session")
async def nursery() -> AsyncIterator[Nursery]:
    """Starts processes of ours at once."""
    async with Nursery.open() as nursery:
        yield nursery


@pytest.fixture
async def practice(servers: Servers, database_name: str, tmp_path: Path) -> AsyncIterator[Practice]:
    """All of Visavis, running, with a database and a bot account of its own."""
    async with open_practice(servers, database_name, tmp_path) as practice:
        yield practice


@pytest.fixture(scope="session")
async def template(postgresql: PostgreSQL) -> str:
    """A migrated database that each test clones."""
    name = "visavis"
    await migrations.upgrade(postgresql.dsn(name, "visavis_owner"), postgresql.dsn(name, "visavis_app"))
    return name


@pytest.fixture(scope="session")
async def databases(postgresql: PostgreSQL, template: str) -> AsyncIterator[Databases]:
    """Copies of the template."""
    async with Databases.open(postgresql, template) as databases:
        yield databases


@pytest.fixture
async def database_name(databases: Databases) -> AsyncIterator[str]:
    async with databases.lend() as name:
        yield name


@pytest.fixture
async def database(postgresql: PostgreSQL, database_name: str) -> AsyncIterator[Database]:
    """The application's role on a fresh database of our schema."""
    database = Database(postgresql.dsn(database_name, "visavis_app"), pool_size=20)
    yield database
    await database.close()

"""The web application on a real database, and browsers of people who use it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientResponse, CookieJar
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from supervision import sign_ins
from supervision.config import Config
from supervision.db import Database
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts
from web.app import make_app
from web.demo import DemoPages

SECRET = "a secret of the tests, and of them alone"


@dataclass
class Clock:
    """The application's clock, which a test can put forward."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@dataclass
class Browser:
    """Somebody's browser without JavaScript: keeps cookies, follows nothing by itself, fills in forms."""

    client: TestClient[Any, Any]
    origin: str
    page: str = ""
    seen: list[ClientResponse] = field(default_factory=list)

    async def get(self, path: str, **options: Any) -> ClientResponse:
        return await self._take(await self.client.get(path, allow_redirects=False, **options))

    async def post(self, path: str, fields: dict[str, str] | None = None, **options: Any) -> ClientResponse:
        """Send a form as this page's own: with the origin, and with the token of the page seen last."""
        headers = {"Origin": self.origin} | options.pop("headers", {})
        data = {"form_token": self.form_token} | (fields or {})
        response = await self.client.post(path, data=data, headers=headers, allow_redirects=False, **options)
        return await self._take(response)

    async def send(self, path: str, body: Any = None, **headers: str) -> ClientResponse:
        """Send JSON to the API."""
        headers = {"Origin": self.origin} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, json={} if body is None else body, headers=headers)

    async def follow(self) -> ClientResponse:
        return await self.get(self.seen[-1].headers["Location"])

    @property
    def form_token(self) -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]*)"', self.page)
        return found[1] if found else ""

    def fields(self, action: str) -> dict[str, str]:
        """The hidden fields of the first form on the page that is sent to that path."""
        form = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', self.page, re.DOTALL)
        assert form is not None, f"no form for {action}"
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[1]))

    def slots(self) -> list[str]:
        """What the buttons with free times send."""
        return re.findall(r'name="slot" value="([^"]+)"', self.page)

    async def _take(self, response: ClientResponse) -> ClientResponse:
        if response.content_type == "text/html":
            self.page = await response.text()
        self.seen.append(response)
        return response


Open = Callable[..., Awaitable[Browser]]


async def open_both(open_browser: Open, pair: Pair) -> tuple[Browser, Browser]:
    """The supervisor's and the supervisee's."""
    return await open_browser(pair.supervisor), await open_browser(pair.supervisee)


@pytest.fixture
def clock(now: datetime) -> Clock:
    return Clock(now)


@pytest.fixture
def config() -> Config:
    return configure("http://127.0.0.1:8080")


def configure(base_url: str, **values: Any) -> Config:
    return Config.model_validate(
        {
            "secret": SecretStr(SECRET),
            "database": {"url": "postgresql://unused/unused"},
            "matrix": {"homeserver": "http://127.0.0.1:8008", "bot": "@visavis:example.org", "as_token": "unused"},
            "mail": {"sender": "visavis@example.org"},
            "web": {"base_url": base_url, **values},
        }
    )


@pytest.fixture
def demo() -> DemoPages | None:
    """Overridden where a test wants the demo's pages."""
    return None


@pytest.fixture
async def server(database: Database, config: Config, clock: Clock, demo: DemoPages | None) -> AsyncIterator[TestServer]:
    server = TestServer(make_app(database, config, demo=demo, clock=clock))
    await server.start_server()
    yield server
    await server.close()


@pytest.fixture
async def open_browser(server: TestServer, config: Config, database: Database, clock: Clock) -> AsyncIterator[Open]:
    """Gives a new browser; with a person it is signed in already."""
    clients: list[TestClient[Any, Any]] = []

    async def open_one(person: Person | None = None, language: str = "en") -> Browser:
        jar = CookieJar(unsafe=True)
        client: TestClient[Any, Any] = TestClient(server, cookie_jar=jar, headers={"Accept-Language": language})
        clients.append(client)
        if person is not None:
            async with database.transaction() as tx:
                token = await sign_ins.open_session(tx, acts(person), person.id, now=clock())
            jar.update_cookies({"visavis": token}, server.make_url("/"))
        return Browser(client, config.web.base_url)

    yield open_one
    for client in clients:
        await client.session.close()

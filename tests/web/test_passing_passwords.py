"""Whose passing password is gone is told that it is half done; and what of a homeserver's 403s is a wrong password."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime
from html import unescape

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from supervision import homeserver_tasks, seals
from supervision.config import Config
from supervision.db import Database
from tests.support.sample import add_person
from tests.web.conftest import SECRET, Open, configure
from web.homeserver import HomeserverAway, knows

PASSWORD = "correct horse battery staple"


WRONG = {"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}


@pytest.fixture
def answer() -> dict[str, str]:
    """As of one whose account has another passing password by now (Matrix 1.18, "Login")."""
    return dict(WRONG)


@pytest.fixture
async def homeserver(answer: dict[str, str]) -> AsyncIterator[str]:
    """Signs nobody in: a 403 with that answer."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response(answer, status=403)

    app = web.Application()
    app.router.add_post("/_matrix/client/v3/login", refuse)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
def config(homeserver: str) -> Config:
    config = configure("http://127.0.0.1:8080")
    return config.model_copy(update={"matrix": config.matrix.model_copy(update={"homeserver": homeserver})})


async def test_a_403_is_a_wrong_password_only_if_the_homeserver_says_so(
    homeserver: str, answer: dict[str, str]
) -> None:
    assert await knows(homeserver, "@bruno:example.org", PASSWORD) is False
    answer["errcode"] = "M_USER_DEACTIVATED"
    assert await knows(homeserver, "@bruno:example.org", PASSWORD) is False
    for other in ({"error": "blocked by the firewall"}, {"errcode": "M_UNKNOWN"}):
        answer.clear()
        answer.update(other)
        with pytest.raises(HomeserverAway):
            await knows(homeserver, "@bruno:example.org", PASSWORD)


async def test_a_passing_password_that_another_try_replaced_is_no_wrong_one(
    database: Database, now: datetime, open_browser: Open
) -> None:
    browser = await open_browser(await add_person(database, "Bruno", ["supervisee"], now=now, language="en"))
    await browser.get("/account/password")

    async def reset() -> None:
        """As the bot does, before it does the same for the other try."""
        task = None
        while task is None:
            await asyncio.sleep(0.05)
            async with database.transaction() as tx:
                task = await homeserver_tasks.claim(tx, now=now)
                if task is not None:
                    await homeserver_tasks.settle(tx, task.id, answer=seals.lock(SECRET, "a passing one"), now=now)

    async with asyncio.timeout(10):
        await asyncio.gather(reset(), browser.post("/account/password", {"password": PASSWORD, "again": PASSWORD}))
    [said] = re.findall(r'role="alert">(.*?)</p>', browser.page)
    assert unescape(said) == (
        "The chat server takes long to answer. The old password may not work any more; repeat this in a few minutes."
    )

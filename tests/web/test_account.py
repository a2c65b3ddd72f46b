"""A person's own account, without a homeserver: details, another address, and who has to sign in anew."""

import asyncio
import re
from datetime import datetime, timedelta
from html import unescape

import pytest
from sqlalchemy import select

from supervision import addresses, people, seals
from supervision import homeserver_tasks as tasks_of
from supervision.db import Database
from supervision.models import Task, homeserver_tasks
from tests.support.sample import add_person
from tests.web.conftest import SECRET, Browser, Clock, Open
from web import tasks

PASSWORD = "correct horse battery staple"


def told(browser: Browser) -> list[str]:
    return [unescape(one) for one in re.findall(r'role="(?:alert|status)">(.*?)</p>', browser.page)]


async def test_name_language_and_zone_are_changed(database: Database, now: datetime, open_browser: Open) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    browser = await open_browser(bruno)
    await browser.get("/account")
    await browser.post("/account", {"name": "Bruno T.", "language": "pt-BR", "time_zone": "Europe/Lisbon"})
    await browser.follow()
    assert told(browser) == ["Salvo."]
    async with database.transaction() as tx:
        after = await people.get(tx, bruno.id)
    assert (after.name, after.language, after.time_zone) == ("Bruno T.", "pt-BR", "Europe/Lisbon")
    answer = await browser.post("/account", {"name": "", "language": "pt-BR", "time_zone": "Europe/Lisbon"})
    assert answer.status == 422


async def test_another_address_wants_its_code(database: Database, now: datetime, open_browser: Open) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    browser = await open_browser(bruno)
    await browser.get("/account")
    await browser.post("/account/address", {"email": "bruno@elsewhere.example"})
    await browser.follow()
    assert told(browser) == ["The code is on its way to the new address."]
    await browser.post("/account/address/code", {"code": "1"})
    assert len(told(browser)) == 1
    async with database.transaction() as tx:
        waiting = await addresses.of(tx, bruno.id, now=now)
    assert waiting is not None
    assert waiting.wrong_codes == 1
    await browser.post("/account/address/code", {"code": seals.address_code(SECRET, bruno.id, waiting.nonce)})
    await browser.follow()
    assert told(browser) == ["Your messages go to the new address now."]
    assert "bruno@elsewhere.example" in browser.page


async def test_what_could_shut_somebody_out_wants_a_sign_in_of_now(
    database: Database, now: datetime, clock: Clock, open_browser: Open
) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    browser = await open_browser(bruno)
    clock.forward(minutes=11)
    assert (await browser.get("/account")).status == 200
    for path in ("/account/password", "/account/phone"):
        assert (await browser.get(path)).headers["Location"] == "/sign-in/anew"
    await browser.get("/account")
    for path in ("/account/address", "/account/password", "/account/phone"):
        assert (await browser.post(path)).headers["Location"] == "/sign-in/anew"
    async with database.transaction() as tx:
        assert (await tx.execute(homeserver_tasks.select())).all() == []


async def test_who_lives_on_another_homeserver_is_told_whom_to_ask(
    database: Database, now: datetime, open_browser: Open
) -> None:
    bruno = await add_person(
        database, "Bruno", ["supervisee"], now=now, language="en", matrix_id="@bruno:elsewhere.example"
    )
    browser = await open_browser(bruno)
    for path in ("/account", "/account/password", "/account/phone"):
        await browser.get(path)
        assert "Your account belongs to the server elsewhere.example" in browser.page
        assert 'type="password"' not in browser.page
    await browser.post("/account/password", {"password": PASSWORD, "again": PASSWORD})
    assert told(browser) == ["That account is not on our homeserver. Nothing was changed."]


async def test_where_nobody_does_it_the_wait_ends_and_nothing_was_changed(
    database: Database, now: datetime, open_browser: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "WAIT_SECONDS", 0.3)
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    browser = await open_browser(bruno)
    await browser.get("/account/password")
    async with asyncio.timeout(10):
        await browser.post("/account/password", {"password": PASSWORD, "again": PASSWORD})
    assert told(browser) == [
        "The chat server does not answer at the moment. Nothing was changed; try again in a few minutes."
    ]
    async with database.transaction() as tx:
        [task] = (await tx.execute(homeserver_tasks.select())).all()
    assert (task.kind, task.error) == (Task.RESET_PASSWORD, "withdrawn")


async def test_a_page_waits_for_nobody_to_put_the_administrator_s_token_right(
    database: Database, now: datetime, open_browser: Open
) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    browser = await open_browser(bruno)
    await browser.get("/account/password")

    async def fail() -> None:
        """As the bot does whose token the homeserver does not take."""
        task = None
        while task is None:
            async with database.transaction() as tx:
                task = await tasks_of.claim(tx, now=now + timedelta(seconds=10))
                if task is not None:
                    await tasks_of.put_off(tx, task, tasks_of.ADMIN_TOKEN_REFUSED, retry_after=300, now=now)
            await asyncio.sleep(0.05)

    async with asyncio.timeout(10):  # less than a page waits for
        await asyncio.gather(fail(), browser.post("/account/password", {"password": PASSWORD, "again": PASSWORD}))
    assert told(browser) == [
        "The chat server does not answer at the moment. Nothing was changed; try again in a few minutes."
    ]
    async with database.transaction() as tx:
        assert list(await tx.scalars(select(homeserver_tasks.c.error))) == ["withdrawn"]

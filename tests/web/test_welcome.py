"""The page that leads new people in, without a homeserver: who may see it, and what is said where nothing answers."""

import re
from datetime import datetime
from html import unescape
from typing import Any

import pytest
from sqlalchemy import func, select

from supervision import homeserver_tasks, invitations, pairs, seals
from supervision.audit import SYSTEM
from supervision.config import Config
from supervision.db import Database
from supervision.models import Task, audit_entries
from supervision.models import invitations as invitations_table
from supervision.people import Person
from tests.support.sample import add_person
from tests.web.conftest import SECRET, Browser, Clock, Open, configure

PASSWORD = "correct horse battery staple"


@pytest.fixture
def config() -> Config:
    """A homeserver that is away."""
    config = configure("http://127.0.0.1:8080")
    matrix = config.matrix.model_copy(
        update={"homeserver": "http://127.0.0.1:9", "public_url": "https://m.example.org"}
    )
    return config.model_copy(update={"matrix": matrix})


async def invite(database: Database, now: datetime, **values: Any) -> tuple[Person, str]:
    async with database.transaction() as tx:
        person = await invitations.add(
            tx,
            SYSTEM,
            name="Bruno",
            email="bruno@example.org",
            language="en",
            time_zone="Europe/Lisbon",
            roles=["supervisee"],
            server_name="example.org",
            now=now,
            **values,
        )
        known = await invitations.of(tx, person.id)
        assert known is not None
        return person, f"/welcome/{seals.welcome_token(SECRET, person.id, known.nonce)}"


def alert(browser: Browser) -> str:
    [said] = re.findall(r'role="alert">(.*?)</p>', browser.page)
    return unescape(said)


async def test_opening_the_page_changes_nothing(database: Database, now: datetime, open_browser: Open) -> None:
    _, path = await invite(database, now, account="bruno")

    async def everything() -> object:
        async with database.transaction() as tx:
            kept = (await tx.execute(select(invitations_table))).all()
            return kept, await tx.scalar(select(func.count()).select_from(audit_entries))

    before = await everything()
    browser = await open_browser(language="pt-BR")
    assert (await browser.get(path)).status == 200
    assert "Hello, Bruno" in browser.page  # in the person's language, whatever the browser's is
    assert await everything() == before
    assert browser.seen[-1].headers["Cache-Control"] == "no-store"


async def test_links_that_lead_nowhere_all_answer_the_same(
    database: Database, now: datetime, clock: Clock, open_browser: Open
) -> None:
    bruno, path = await invite(database, now, account="bruno")
    browser = await open_browser()
    await browser.get(path)
    token = {"form_token": browser.form_token}
    answers = set()

    async def note(link: str) -> None:
        for answer in (
            await browser.get(link),
            await browser.post(f"{link}/account", token),
            await browser.post(f"{link}/key", token),
        ):
            answers.add((answer.status, await answer.text()))

    for wrong in ("/welcome/x", f"/welcome/{'0' * 72}", f"/welcome/{bruno.id.hex}{'0' * 40}"):
        await note(wrong)
    clock.forward(days=14)
    await note(path)
    [(status, page)] = answers
    assert status == 404
    assert "This link does not work any more" in page


async def test_a_homeserver_that_is_away_and_an_account_that_is_not_ready(
    database: Database, now: datetime, open_browser: Open
) -> None:
    bruno, path = await invite(database, now, account="bruno")
    browser = await open_browser()
    await browser.get(path)
    fields = {"password": PASSWORD, "again": PASSWORD}
    await browser.post(f"{path}/account", fields)
    assert alert(browser) == "Your account is still being prepared. Try again in a minute."
    async with database.transaction() as tx:
        task = await homeserver_tasks.latest(tx, Task.OPEN_REGISTRATION, bruno.id)
        assert task is not None
        await homeserver_tasks.give_up(tx, task.id, "no_admin_token", now=now)
    await browser.post(f"{path}/account", fields)
    assert alert(browser).startswith("Visavis lacks the permission of the chat server's administrator")
    async with database.transaction() as tx:
        known = await invitations.of(tx, bruno.id)
        assert known is not None
        await invitations.set_registration(tx, known, seals.lock(SECRET, "a token"))
    await browser.post(f"{path}/account", fields)
    assert alert(browser) == (
        "The chat server does not answer at the moment. Nothing was changed; try again in a few minutes."
    )
    assert PASSWORD not in browser.page


async def test_who_has_an_account_begins_with_the_app(database: Database, now: datetime, open_browser: Open) -> None:
    _, path = await invite(database, now, matrix_id="@bruno:elsewhere.example")
    browser = await open_browser()
    await browser.get(path)
    assert 'type="password"' not in browser.page
    assert "account_provider=elsewhere.example&amp;login_hint=mxid:@bruno:elsewhere.example" in browser.page
    assert '<dd class="key">elsewhere.example</dd>' in browser.page
    assert "<svg" in browser.page


async def test_our_own_server_is_named_as_apps_reach_it(database: Database, now: datetime, open_browser: Open) -> None:
    _, path = await invite(database, now, matrix_id="@bruno:example.org")
    browser = await open_browser()
    await browser.get(path)
    assert "account_provider=m.example.org&amp;login_hint=mxid:@bruno:example.org" in browser.page
    assert '<dd class="key">https://m.example.org</dd>' in browser.page


async def test_a_form_without_its_token_or_from_elsewhere_does_nothing(
    database: Database, now: datetime, open_browser: Open
) -> None:
    _, path = await invite(database, now, account="bruno")
    browser = await open_browser()
    await browser.get(path)
    for options in ({"fields": {"form_token": "0" * 64}}, {"headers": {"Origin": "https://evil.example"}}):
        assert (await browser.post(f"{path}/key", **options)).status == 403
        await browser.get(path)


async def test_one_address_asks_so_often_and_then_waits(database: Database, now: datetime, open_browser: Open) -> None:
    browser = await open_browser()
    statuses = [(await browser.get(f"/welcome/{number:072}")).status for number in range(62)]
    assert statuses[:60] == [404] * 60
    assert 429 in statuses[60:]


async def test_a_room_that_cannot_be_made_is_told(database: Database, now: datetime, open_browser: Open) -> None:
    bruno, path = await invite(database, now, matrix_id="@bruno:example.org")
    browser = await open_browser()
    async with database.transaction() as tx:
        ana = await add_person(database, "Ana", ["supervisor"], now=now)
        pair = await pairs.add(tx, SYSTEM, ana, bruno, now=now)
    await browser.get(path)
    assert "The room with Ana is being made." in browser.page
    async with database.transaction() as tx:
        await pairs.note_not_made(tx, pair, now=now)
    await browser.get(path)
    assert "The room with Ana could not be made. Whoever runs Visavis sees that" in browser.page

"""Confirming a changed Matrix identity on the dashboard: the one that was shown, and no other."""

from datetime import datetime

from sqlalchemy import select

from supervision import identities
from supervision.db import Database
from supervision.models import identities as table
from tests.support.sample import add_person
from tests.web.conftest import Clock, Open


async def test_a_key_offered_after_the_page_was_shown_is_not_believed(
    open_browser: Open, database: Database, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    matrix_id = ana.matrix_id or ""

    async def offer(key: str) -> None:
        async with database.transaction() as tx:
            await identities.pin(tx, matrix_id, key, now=now)

    async def pinned() -> str:
        async with database.transaction() as tx:
            return str(await tx.scalar(select(table.c.master_key).where(table.c.matrix_id == matrix_id)))

    first, shown, other = (letter * 43 for letter in "ABC")
    await offer(first)
    await offer(shown)
    browser = await open_browser(ana)
    await browser.get("/supervisor")
    form = browser.fields("/identity/confirm")
    await offer(other)
    assert (await browser.post("/identity/confirm", form)).status == 412
    assert await pinned() == first

    await browser.get("/supervisor")
    response = await browser.post("/identity/confirm", browser.fields("/identity/confirm"))
    assert (response.status, response.headers["Location"]) == (303, "/supervisor?done=identity_confirmed")
    assert await pinned() == other

    await offer(shown)
    await browser.get("/supervisor")
    form = {"form_token": browser.form_token}
    assert (await browser.post("/identity/confirm", form)).status == 412
    assert await pinned() == other


async def test_an_identity_is_confirmed_by_who_signed_in_just_now(
    open_browser: Open, database: Database, now: datetime, clock: Clock
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    matrix_id = ana.matrix_id or ""
    for key in ("A" * 43, "B" * 43):
        async with database.transaction() as tx:
            await identities.pin(tx, matrix_id, key, now=now)
    browser = await open_browser(ana)
    clock.forward(minutes=11)
    await browser.get("/supervisor")
    led = await browser.post("/identity/confirm", browser.fields("/identity/confirm"))
    assert (led.status, led.headers["Location"]) == (303, "/sign-in/anew")
    await browser.follow()
    assert '<a href="/account/identity">' in browser.page
    async with database.transaction() as tx:
        assert await tx.scalar(select(table.c.master_key)) == "A" * 43

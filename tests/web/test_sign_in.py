"""Signing in by link and by code, and what must not work."""

import asyncio
import re
import uuid
from datetime import datetime

import pytest
from sqlalchemy import select

from supervision import people, sign_ins
from supervision.audit import SYSTEM
from supervision.config import Config
from supervision.db import Database
from supervision.models import audit_entries, notifications, sessions
from supervision.models import sign_ins as table
from supervision.people import Person
from tests.support.sample import add_pair, add_person
from tests.web.conftest import SECRET, Browser, Clock, Open, configure


async def ask(browser: Browser, email: str) -> int:
    await browser.get("/sign-in")
    answer = await browser.post("/sign-in", {"email": email})
    assert answer.headers["Location"] == "/sign-in/code"
    await browser.follow()
    return answer.status


async def mailed(database: Database) -> list[uuid.UUID]:
    """The sign-ins that stand in the outbox, in its order."""
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(notifications.c.details).where(notifications.c.kind == "sign_in").order_by(notifications.c.position)
        )
        return [uuid.UUID(row.details["sign_in_id"]) for row in rows]


async def opened(database: Database) -> int:
    async with database.transaction() as tx:
        return len(list(await tx.execute(select(sessions))))


@pytest.fixture
async def bruno(database: Database, now: datetime) -> Person:
    return (await add_pair(database, now=now)).supervisee


async def test_the_mailed_link(database: Database, open_browser: Open, bruno: Person) -> None:
    """GET changes nothing; the button signs in, once."""
    browser = await open_browser()
    assert await ask(browser, bruno.email.upper()) == 303
    [sign_in] = await mailed(database)
    path = f"/sign-in/{sign_ins.link_token(SECRET, sign_in)}"
    for _ in range(3):
        assert (await browser.get(path)).status == 200
    assert await opened(database) == 0
    answer = await browser.post(path)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.cookies["visavis"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "Lax", "/", "")
    assert (await browser.get("/appointments")).status == 200
    assert (await browser.get(path)).headers["Location"] == "/"
    await browser.post("/sign-out", browser.fields("/sign-out"))
    await browser.get("/sign-in")
    assert (await browser.post(path)).status == 422
    assert "That link or code is no longer valid. Ask for a new one." in browser.page


async def test_the_mailed_code(database: Database, open_browser: Open, bruno: Person) -> None:
    browser = await open_browser()
    await ask(browser, bruno.email)
    [sign_in] = await mailed(database)
    code = sign_ins.code(SECRET, sign_in)
    wrong = str((int(code) + 1) % 10**8).zfill(8)
    assert (await browser.post("/sign-in/code", {"code": wrong})).status == 422
    assert "That code is not right." in browser.page
    answer = await browser.post("/sign-in/code", {"code": f" {code[:4]} {code[4:]} "})
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert (await browser.get("/appointments")).status == 200


async def test_codes_cannot_be_guessed(database: Database, open_browser: Open, bruno: Person) -> None:
    browser = await open_browser()
    await ask(browser, bruno.email)
    [sign_in] = await mailed(database)
    code = sign_ins.code(SECRET, sign_in)
    for distance in range(1, 6):
        await browser.post("/sign-in/code", {"code": str((int(code) + distance) % 10**8).zfill(8)})
    assert (await browser.post("/sign-in/code", {"code": code})).status == 422
    assert "That link or code is no longer valid." in browser.page
    assert await opened(database) == 0


async def test_another_browser_gets_the_code_only(database: Database, open_browser: Open, bruno: Person) -> None:
    asking, other = await open_browser(), await open_browser()
    await ask(asking, bruno.email)
    [sign_in] = await mailed(database)
    path = f"/sign-in/{sign_ins.link_token(SECRET, sign_in)}"
    await other.get(path)
    assert (await other.post(path)).status == 422
    code = sign_ins.code(SECRET, sign_in)
    assert f"{code[:4]} {code[4:]}" in other.page
    await other.get("/sign-in/code")
    assert (await other.post("/sign-in/code", {"code": code})).status == 422
    assert await opened(database) == 0
    assert (await asking.post("/sign-in/code", {"code": code})).status == 303


async def test_links_end_after_ten_minutes(database: Database, open_browser: Open, bruno: Person, clock: Clock) -> None:
    browser = await open_browser()
    await ask(browser, bruno.email)
    [sign_in] = await mailed(database)
    path = f"/sign-in/{sign_ins.link_token(SECRET, sign_in)}"
    await browser.get(path)
    clock.forward(minutes=10)
    assert (await browser.post(path)).status == 422
    assert (await browser.post("/sign-in/code", {"code": sign_ins.code(SECRET, sign_in)})).status == 422
    assert await opened(database) == 0


@pytest.mark.parametrize("token", ["x", "0" * 72, "é" * 72, "%00"])
async def test_a_forged_link(open_browser: Open, bruno: Person, token: str) -> None:
    browser = await open_browser()
    assert (await browser.get(f"/sign-in/{token}")).status == 422
    assert (await browser.post(f"/sign-in/{token}")).status == 422


@pytest.mark.parametrize(
    "email", ["nobody@example.org", "", "x" * 400, "a\x00b@example.org", "a\r\nBcc: b@example.org", "é@example.org"]
)
async def test_an_unknown_address_gets_the_same_answer(
    database: Database, open_browser: Open, bruno: Person, email: str
) -> None:
    known, unknown = await open_browser(), await open_browser()
    assert await ask(known, bruno.email) == await ask(unknown, email)

    def plain(page: str) -> str:
        return re.sub(r'name="form_token" value="\w+"', "", page)

    assert plain(known.page) == plain(unknown.page)
    assert set(known.seen[-2].headers) == set(unknown.seen[-2].headers)
    assert len(await mailed(database)) == 1


async def test_an_answer_takes_the_same_time(open_browser: Open, bruno: Person) -> None:
    browser = await open_browser()
    times = []
    await browser.get("/sign-in")
    for email in (bruno.email, "nobody@example.org"):
        started = asyncio.get_running_loop().time()
        await browser.client.post(
            "/sign-in",
            data={"form_token": browser.form_token, "email": email},
            headers={"Origin": browser.origin},
            allow_redirects=False,
        )
        times.append(asyncio.get_running_loop().time() - started)
    assert abs(times[0] - times[1]) < 0.2
    assert min(times) >= 0.25


async def test_a_disabled_person_is_out_at_once(database: Database, now: datetime, open_browser: Open) -> None:
    someone = await add_person(database, "Edu", ["supervisee"], now=now)
    browser = await open_browser(someone)
    assert (await browser.get("/appointments")).status == 200
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, someone.id, now=now)
    assert (await browser.get("/appointments")).headers["Location"] == "/sign-in"
    stranger = await open_browser()
    await ask(stranger, someone.email)
    assert await mailed(database) == []


async def test_five_mails_an_hour_and_no_more(database: Database, open_browser: Open, bruno: Person) -> None:
    browser = await open_browser()
    for _ in range(6):
        assert await ask(browser, bruno.email) == 303
    assert len(await mailed(database)) == 5


async def test_one_goes_on_with_the_page_asked_for(database: Database, open_browser: Open, bruno: Person) -> None:
    browser = await open_browser()
    path = f"/appointments/{uuid.uuid4()}"
    assert (await browser.get(path)).headers["Location"] == "/sign-in"
    await ask(browser, bruno.email)
    [sign_in] = await mailed(database)
    answer = await browser.post("/sign-in/code", {"code": sign_ins.code(SECRET, sign_in)})
    assert answer.headers["Location"] == path


async def test_signing_out_ends_the_session(database: Database, open_browser: Open, bruno: Person) -> None:
    browser = await open_browser(bruno)
    await browser.get("/appointments")
    assert (await browser.get("/sign-out")).status == 405
    answer = await browser.post("/sign-out")
    assert answer.headers["Location"] == "/sign-in?done=signed_out"
    assert await opened(database) == 0
    await browser.follow()
    assert "You are signed out." in browser.page


async def test_a_session_ends_when_idle(database: Database, open_browser: Open, bruno: Person, clock: Clock) -> None:
    browser = await open_browser(bruno)
    clock.forward(days=2)
    assert (await browser.get("/appointments")).status == 200
    clock.forward(days=3)
    assert (await browser.get("/appointments")).status == 303


async def test_what_is_signed_in_is_audited_with_its_origin(
    database: Database, open_browser: Open, bruno: Person
) -> None:
    browser = await open_browser()
    await browser.get("/sign-in")
    await browser.post("/sign-in", {"email": bruno.email}, headers={"User-Agent": "Phoéne"})
    [sign_in] = await mailed(database)
    await browser.post("/sign-in/code", {"code": sign_ins.code(SECRET, sign_in)})
    async with database.transaction() as tx:
        rows = list(
            await tx.execute(select(audit_entries).where(audit_entries.c.via == "web").order_by(audit_entries.c.id))
        )
    assert [(row.action, row.actor_id, row.ip, row.success) for row in rows] == [
        ("sign_in.ask", None, "127.0.0.1", True),
        ("session.open", bruno.id, "127.0.0.1", True),
    ]
    assert rows[0].user_agent == "Pho?ne"


@pytest.mark.parametrize("token", ["", "0" * 64, None])
async def test_a_form_without_its_token_does_nothing(
    database: Database, open_browser: Open, bruno: Person, token: str | None
) -> None:
    stranger, browser = await open_browser(), await open_browser(bruno)
    for one, path in ((stranger, "/sign-in"), (browser, "/sign-out")):
        await one.get("/sign-in")
        data = {"email": bruno.email} if token is None else {"email": bruno.email, "form_token": token}
        answer = await one.client.post(path, data=data, headers={"Origin": one.origin}, allow_redirects=False)
        assert answer.status == 403
    assert await mailed(database) == []
    assert await opened(database) == 1


async def test_a_form_from_elsewhere_does_nothing(database: Database, open_browser: Open, bruno: Person) -> None:
    browser = await open_browser(bruno)
    await browser.get("/appointments")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await browser.post("/sign-out", headers=headers)).status == 403
    assert await opened(database) == 1


class TestOverTls:
    """What changes where the configured address is https."""

    @pytest.fixture
    def config(self) -> Config:
        return configure("https://visavis.example.org", trusted_proxies=1)

    async def test_cookies_are_of_this_host_alone(self, database: Database, open_browser: Open, bruno: Person) -> None:
        browser = await open_browser()
        answer = await browser.get("/sign-in")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
        cookie = answer.cookies["__Host-visavis-browser"]
        assert (cookie["secure"], cookie["httponly"], cookie["path"], cookie["domain"]) == (True, True, "/", "")
        await browser.client.post(
            "/sign-in",
            data={"form_token": browser.form_token, "email": bruno.email},
            headers={
                "Origin": browser.origin,
                "Cookie": f"__Host-visavis-browser={cookie.value}",
                "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
            },
            allow_redirects=False,
        )
        async with database.transaction() as tx:
            assert (await tx.scalar(select(audit_entries.c.ip).where(audit_entries.c.via == "web"))) == "203.0.113.9"
            [row] = await tx.execute(select(table))
        assert row.browser_hash == sign_ins.digest(cookie.value)

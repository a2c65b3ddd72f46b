"""The whole way in a real browser: Chromium, 360 pixels wide, JavaScript off."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page, expect
from sqlalchemy import select

from supervision import appointments, pairs, sign_ins
from supervision.db import Database
from supervision.models import Status, bots, notifications
from supervision.models import appointments as table
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts, add_pair
from tests.web.conftest import SECRET

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo, 13:00 in Lisbon
# How far the page reaches beyond the window, in pixels.
OVERHANG = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# WCAG 2.2, success criterion 1.4.3: the ratio of relative luminances of each text and the ground behind it.
CONTRASTS = """() => {
  const channels = (css) => css.match(/[\\d.]+/g).map(Number);
  const luminance = (css) => channels(css).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const css = getComputedStyle(at).backgroundColor;
      if (channels(css)[3] !== 0) return css;
    }
  };
  const poor = [];
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own) continue;
    const [a, b] = [luminance(getComputedStyle(node).color), luminance(ground(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.outerHTML.slice(0, 120));
  }
  return poor;
}"""
# Everything one can press is at least 24 by 24 pixels (WCAG 2.2, 2.5.8), or a link within a sentence.
SMALL = """() => [...document.querySelectorAll("button, input:not([type=hidden]), summary, nav a, a.button")]
  .map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
  .filter(([, box]) => box.width > 0 && (box.width < 24 || box.height < 24)).map(([html]) => html)"""
UNNAMED = """() => [
  ...[...document.querySelectorAll("input:not([type=hidden]), textarea")]
    .filter((field) => !field.labels.length).map((field) => field.name),
  ...[...document.querySelectorAll("section")].filter((one) => one.closest("main") && !one.closest("form"))
    .filter((one) => !document.getElementById(one.getAttribute("aria-labelledby"))).map((one) => one.outerHTML),
]"""


Look = Callable[..., Awaitable[Page]]


@pytest.fixture
async def look(chromium: Browser, server: TestServer, database: Database, now: datetime) -> AsyncIterator[Look]:
    """Opens a phone with JavaScript off, signed in where a person is given; ends with an error where a page had one."""
    contexts = []
    errors: list[str] = []

    def note(text: str) -> None:
        if not text.startswith("Failed to load resource"):  # how Chromium calls a page that refuses something
            errors.append(text)

    async def open_one(
        person: Person | None = None, *, width: int = 360, javascript: bool = False, scheme: str = "light"
    ) -> Page:
        context = await chromium.new_context(
            viewport={"width": width, "height": 740},
            java_script_enabled=javascript,
            color_scheme="dark" if scheme == "dark" else "light",
            locale="en-GB",
            base_url=str(server.make_url("/")),
        )
        contexts.append(context)
        if person is not None:
            async with database.transaction() as tx:
                token = await sign_ins.open_session(tx, acts(person), person.id, now=now)
            await context.add_cookies([{"name": "visavis", "value": token, "url": str(server.make_url("/"))}])
        page = await context.new_page()
        page.on("console", lambda message: note(message.text) if message.type == "error" else None)
        return page

    yield open_one
    for context in contexts:
        await context.close()
    assert errors == []


async def mailed(database: Database) -> uuid.UUID:
    """The one sign-in in the outbox."""
    async with database.transaction() as tx:
        [row] = await tx.execute(select(notifications.c.details))
        return uuid.UUID(row.details["sign_in_id"])


async def book(
    database: Database, pair: Pair, starts_at: datetime, now: datetime, *, confirmed: bool = False
) -> uuid.UUID:
    async with database.transaction() as tx:
        appointment = await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)
        if confirmed:
            await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        return appointment.id


async def stored(database: Database) -> list[tuple[str, datetime]]:
    async with database.transaction() as tx:
        rows = await tx.execute(select(table.c.status, table.c.starts_at).order_by(table.c.created_at))
        return [(row.status, row.starts_at) for row in rows]


async def test_signing_in_with_the_mailed_code(database: Database, now: datetime, look: Look) -> None:
    pair = await add_pair(database, now=now)
    page = await look()
    await page.goto("/")
    await page.get_by_label("E-mail address").fill(pair.supervisee.email)
    await page.get_by_role("button", name="Send the link").click()
    code = sign_ins.code(SECRET, await mailed(database))
    await page.get_by_label("Code from the mail").fill(code)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("No appointment yet")
    await page.get_by_text("Bruno").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("status")).to_have_text("You are signed out.")


async def test_signing_in_with_the_mailed_link(database: Database, now: datetime, look: Look) -> None:
    pair = await add_pair(database, now=now)
    page, elsewhere = await look(), await look()
    await page.goto("/sign-in")
    await page.get_by_label("E-mail address").fill(pair.supervisor.email)
    await page.get_by_role("button", name="Send the link").click()
    sign_in = await mailed(database)
    link = f"/sign-in/{sign_ins.link_token(SECRET, sign_in)}"
    await elsewhere.goto(link)
    await elsewhere.get_by_role("button", name="Sign in").click()
    code = sign_ins.code(SECRET, sign_in)
    await expect(elsewhere.get_by_text(f"{code[:4]} {code[4:]}")).to_be_visible()
    await page.goto(link)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Nenhum pedido à espera")


async def test_booking_confirming_moving_and_cancelling(database: Database, now: datetime, look: Look) -> None:
    """Both people at their phones, one appointment's life."""
    pair = await add_pair(database, now=now)
    bruno, ana = await look(pair.supervisee), await look(pair.supervisor)
    await bruno.goto("/appointments")
    await bruno.get_by_role("button", name="Tue 24 Nov, 13:00").click()
    await expect(bruno.get_by_role("status")).to_have_text("Request sent. You will be told the answer.")
    await expect(bruno.get_by_role("region", name="Next appointment").get_by_text("requested")).to_be_visible()
    await ana.goto("/supervisor")
    await expect(ana.get_by_role("heading", level=1)).to_have_text("1 pedido espera por você")
    await ana.get_by_role("button", name="Confirmar").click()
    await expect(ana.get_by_role("status")).to_have_text("Confirmada. O convite vai por e-mail aos dois.")
    assert await stored(database) == [("confirmed", TEN)]
    await bruno.goto("/appointments")
    await bruno.get_by_role("region", name="Next appointment").get_by_text("Change").click()
    await bruno.get_by_role("link", name="Reschedule").click()
    await bruno.get_by_role("button", name="Wed 25 Nov, 14:00").click()
    await expect(bruno.get_by_role("status")).to_have_text("Request for the new time sent. It has to be confirmed.")
    moved = TEN + timedelta(days=1, hours=1)
    assert await stored(database) == [("requested", moved)]
    await ana.goto("/supervisor")
    await ana.get_by_role("button", name="Recusar").click()
    await expect(ana.get_by_role("status")).to_have_text("Recusada. O horário está livre de novo.")
    await bruno.goto("/appointments")
    await bruno.get_by_role("button", name="Wed 25 Nov, 14:00").click()
    await bruno.get_by_text("Change").click()
    await bruno.get_by_role("link", name="Cancel…").click()
    await bruno.get_by_label("Reason (if you like)").fill("Doente")
    await bruno.get_by_role("button", name="Cancel the appointment").click()
    await expect(bruno.get_by_role("status")).to_have_text("Cancelled. The time is free again.")
    assert await stored(database) == [("declined", moved), ("cancelled", moved)]


async def test_a_supervisor_moves_and_cancels_from_her_week(database: Database, now: datetime, look: Look) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, TEN, now, confirmed=True)
    ana = await look(pair.supervisor)
    await ana.goto("/supervisor")
    await ana.get_by_role("region", name="Semana").get_by_role("link", name="Bruno").click()
    await ana.get_by_role("link", name="Remarcar").click()
    await ana.get_by_role("button", name="ter., 24/11, 15:00").click()
    await expect(ana.get_by_role("status")).to_have_text("Remarcada. O novo horário vai por e-mail aos dois.")
    assert await stored(database) == [("confirmed", TEN + timedelta(hours=5))]
    await ana.get_by_role("region", name="Semana").get_by_role("link", name="Bruno").click()
    await ana.get_by_role("link", name="Cancelar…").click()
    await ana.get_by_role("button", name="Cancelar a supervisão").click()
    assert await stored(database) == [("cancelled", TEN + timedelta(hours=5))]


async def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    database: Database, now: datetime, look: Look
) -> None:
    pair = await add_pair(database, now=now)
    page = await look(pair.supervisee)
    await page.goto("/appointments")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    assert await skip.evaluate("(node) => getComputedStyle(node).outlineWidth") == "3px"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Mon 23 Nov, 13:00")).to_be_focused()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1024, "light"), (1024, "dark")])
async def test_every_page_fits_and_can_be_read(
    database: Database, now: datetime, look: Look, width: int, scheme: str
) -> None:
    """No horizontal scrolling, contrast of 4.5 and more, targets large enough, every field and part has its name."""
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now, confirmed=True)
    await book(database, pair, TEN + timedelta(days=1), now)
    async with database.transaction() as tx:
        await pairs.register_bot(tx, "@visavis:example.org", now=now)
        await tx.execute(bots.update().values(master_key="q7BzjKwXk0m3oR4cTt8aVhYp2nLd9sEfGuI1xZ5wJvM"))
        await pairs.set_room(tx, pair.id, "!averylongroomidentifierwithoutanybreak:example.org")
        await tx.execute(table.update().where(table.c.id == appointment).values(place="x" * 120))
    pages = {
        None: ("/sign-in", "/sign-in/code"),
        pair.supervisee: (
            "/appointments?done=requested",
            *(f"/appointments/{appointment}{page}" for page in ("", "/cancel", "/reschedule")),
        ),
        pair.supervisor: ("/supervisor",),
    }
    for person, paths in pages.items():
        page = await look(person, width=width, scheme=scheme, javascript=True)
        for path in paths:
            await page.goto(path)
            await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert await page.evaluate(OVERHANG) <= 0, path
            assert await page.evaluate(CONTRASTS) == [], path
            assert await page.evaluate(SMALL) == [], path
            assert await page.evaluate(UNNAMED) == [], path
            assert await page.locator("main h1").count() == 1, path
            assert await page.locator(".primary, .danger").count() <= 1, path
            assert await page.locator("header, main, footer").count() == 3, path


async def test_what_others_write_stays_text(database: Database, now: datetime, look: Look) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now, confirmed=True)
    async with database.transaction() as tx:
        place = '<img src=x onerror="document.title=1">javascript:alert(1)'
        await tx.execute(table.update().where(table.c.id == appointment).values(place=place))
    page = await look(pair.supervisee, javascript=True)
    await page.goto(f"/appointments/{appointment}")
    await expect(page.get_by_text(place)).to_be_visible()
    assert await page.locator("img").count() == 0
    assert await stored(database) == [(Status.CONFIRMED, TEN)]

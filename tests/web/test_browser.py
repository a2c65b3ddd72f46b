"""The whole way in a real browser: Chromium, 360 pixels wide, JavaScript off."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page, expect
from sqlalchemy import select

from supervision import appointments, bots, feeds, invitations, moves, pairs, policies, seals, series, sign_ins, waits
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.models import Status, notifications
from supervision.models import appointments as table
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts, add_pair, add_person
from tests.web.conftest import SECRET, Clock

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo, 13:00 in Lisbon
# How far the page reaches beyond the window, in pixels.
AT_REST = "Promise.all(document.getAnimations().map((one) => one.finished))"  # colours that change have changed
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
SMALL = """() => [...document.querySelectorAll("button, input:not([type=hidden]), select, summary, nav a, a.button")]
  .map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
  .filter(([, box]) => box.width > 0 && (box.width < 24 || box.height < 24)).map(([html]) => html)"""
UNNAMED = """() => [
  ...[...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
    .filter((field) => !field.labels.length).map((field) => field.name),
  ...[...document.querySelectorAll("section")].filter((one) => one.closest("main") && !one.closest("form"))
    .filter((one) => !document.getElementById(one.getAttribute("aria-labelledby"))).map((one) => one.outerHTML),
]"""
# All of it at once, since each question to the browser costs more than its answer.
JUDGED = f"""() => {{
  const count = (selector) => document.querySelectorAll(selector).length;
  return {{
    overhang: Math.max(0, {OVERHANG}), poor: ({CONTRASTS})(), small: ({SMALL})(), unnamed: ({UNNAMED})(),
    headings: count("main h1"), urging: Math.max(1, count(".primary, .danger")), parts: count("header, main, footer"),
    width: window.innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches,
  }};
}}"""
WAYS: tuple[tuple[int, Literal["light", "dark"]], ...] = (
    (360, "light"),
    (360, "dark"),
    (1024, "dark"),
    (1024, "light"),
)
WELL = {"overhang": 0, "poor": [], "small": [], "unnamed": [], "headings": 1, "urging": 1, "parts": 3}

# What reaches out of its card, and what is so narrow that its words are broken into letters.
SPILT = """() => [...document.querySelectorAll("main .card *:not(.unseen, .unseen *)")]
  .map((node) => [node, node.getBoundingClientRect()]).filter(([node, box]) => box.width > 0 && (
    box.right > node.closest(".card").getBoundingClientRect().right
    || ([...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim().length > 8)
      && box.width < 3 * parseFloat(getComputedStyle(node).fontSize))))
  .map(([node]) => node.outerHTML.slice(0, 120))"""

Look = Callable[..., Awaitable[Page]]


@pytest.fixture
async def look(chromium: Browser, server: TestServer, database: Database, now: datetime) -> AsyncIterator[Look]:
    """Opens a phone with JavaScript off, signed in where a person is given; ends with an error where a page had one."""
    contexts = []
    errors: list[str] = []

    def note(text: str) -> None:
        if not text.startswith("Failed to load resource"):  # how Chromium calls a page that refuses something
            errors.append(text)

    async def open_one(person: Person | None = None, *, width: int = 360, javascript: bool = False) -> Page:
        context = await chromium.new_context(
            viewport={"width": width, "height": 740},
            java_script_enabled=javascript,
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
    upcoming = bruno.get_by_role("region", name="Next appointment")
    await expect(upcoming.get_by_text("requested")).to_be_visible()
    await expect(upcoming.get_by_text("Ana can answer until Tue 24 Nov, 13:00 (Lisbon).")).to_be_visible()
    await ana.goto("/supervisor")
    await expect(ana.get_by_role("heading", level=1)).to_have_text("1 pedido espera por você")
    await ana.get_by_role("button", name="Confirmar").click()
    await expect(ana.get_by_role("status")).to_have_text("Confirmada. O convite vai por e-mail aos dois.")
    assert await stored(database) == [("confirmed", TEN)]
    await bruno.goto("/appointments")
    await upcoming.get_by_text("Change").click()
    await bruno.get_by_role("link", name="Reschedule").click()
    await bruno.get_by_role("button", name="Wed 25 Nov, 14:00").click()
    await expect(bruno.get_by_role("status")).to_have_text(
        "New time proposed. The present one stands until it is accepted."
    )
    assert await stored(database) == [("confirmed", TEN)]
    await ana.goto("/supervisor")
    await expect(ana.get_by_role("heading", level=1)).to_have_text("1 proposta espera por você")
    await ana.get_by_role("link", name="Propor outro horário").click()
    await ana.get_by_label("Dia", exact=True).fill("2026-11-28")
    await ana.get_by_label("Hora", exact=True).fill("08:30")
    await ana.get_by_role("button", name="Propor").click()
    await expect(ana.get_by_role("status")).to_have_text("Novo horário proposto. O atual vale até ser aceito.")
    await bruno.goto("/appointments")
    await expect(bruno.get_by_role("heading", level=1)).to_have_text("1 proposal waits for you")
    await bruno.get_by_role("button", name="Accept").click()
    await expect(bruno.get_by_role("status")).to_have_text("Accepted. The new time goes to both of you by mail.")
    moved = datetime(2026, 11, 28, 11, 30, tzinfo=UTC)
    assert await stored(database) == [("confirmed", moved)]
    await upcoming.get_by_text("Change").click()
    await bruno.get_by_role("link", name="Cancel…").click()
    await bruno.get_by_label("Reason (if you like)").fill("Doente")
    await bruno.get_by_role("button", name="Cancel the appointment").click()
    await expect(bruno.get_by_role("status")).to_have_text("Cancelled. The time is free again.")
    assert await stored(database) == [("cancelled", moved)]


async def test_a_supervisor_books_proposes_and_cancels_from_her_week(
    database: Database, now: datetime, look: Look
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await look(pair.supervisor), await look(pair.supervisee)
    await ana.goto("/supervisor")
    await ana.get_by_role("link", name="Marcar Bruno").click()
    await ana.get_by_label("Horário livre").select_option("2026-11-24T13:00:00Z/2026-11-24T13:50:00Z")
    await ana.get_by_role("button", name="Marcar").click()
    await expect(ana.get_by_role("status")).to_have_text("Marcada. A outra pessoa recebe um aviso e pode recusar.")
    assert await stored(database) == [("confirmed", TEN)]
    await ana.get_by_role("region", name="Semana").get_by_role("link", name="Bruno").click()
    await ana.get_by_role("link", name="Remarcar").click()
    await ana.get_by_role("button", name="ter., 24/11, 15:00").click()
    await expect(ana.get_by_role("status")).to_have_text("Novo horário proposto. O atual vale até ser aceito.")
    await ana.get_by_role("region", name="Semana").get_by_role("link", name="Bruno").click()
    await ana.get_by_role("button", name="Retirar a proposta").click()
    await expect(ana.get_by_role("status")).to_have_text("Proposta retirada. Vale o horário atual.")
    await bruno.goto("/appointments")
    await bruno.get_by_text("Change").click()
    await bruno.get_by_role("link", name="Decline").click()
    await bruno.get_by_role("button", name="Decline").click()
    await expect(bruno.get_by_role("status")).to_have_text("Declined. The time is free again.")
    assert await stored(database) == [("declined", TEN)]


async def test_a_series_is_booked_answered_and_cancelled_from_the_second_on(
    database: Database, now: datetime, look: Look
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await look(pair.supervisor), await look(pair.supervisee)
    await bruno.goto("/appointments")
    await bruno.get_by_role("link", name="Several at once…").click()
    await bruno.get_by_label("Free time").select_option("2026-11-24T13:00:00Z/2026-11-24T13:50:00Z")
    await bruno.get_by_label("Repeat").select_option("Every other week")
    await bruno.get_by_role("button", name="Book").click()
    await expect(bruno.get_by_role("alert")).to_have_text(
        "Say how many, or until when: one of the two. Nothing was booked."
    )
    await expect(bruno.get_by_label("Repeat")).to_have_value("fortnightly")
    await bruno.get_by_label("How many in all").fill("3")
    await bruno.get_by_role("button", name="Book").click()
    await expect(bruno.get_by_role("status")).to_have_text("Booked as a series.")
    await expect(bruno.get_by_text("3 appointments were booked.")).to_be_visible()
    await ana.goto("/supervisor")
    await ana.get_by_role("link", name="Responder").click()
    await expect(ana.get_by_label("Todas da série")).to_be_checked()
    await ana.get_by_role("button", name="Confirmar").click()
    starts = [TEN + weeks * timedelta(days=7) for weeks in (0, 2, 4)]
    assert sorted(await stored(database), key=lambda one: one[1]) == [("confirmed", at) for at in starts]
    await bruno.goto("/appointments")
    await bruno.get_by_role("region", name="After that").get_by_role("link", name="Tue 8 Dec").click()
    await bruno.get_by_role("link", name="Cancel…").click()
    await bruno.get_by_label("This and the following").check()
    await bruno.get_by_role("button", name="Cancel the appointment").click()
    assert sorted(await stored(database), key=lambda one: one[1]) == [
        ("confirmed", starts[0]),
        ("cancelled", starts[1]),
        ("cancelled", starts[2]),
    ]


async def test_hours_agreements_and_time_off_are_settled_at_the_phone(
    database: Database, now: datetime, look: Look
) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, TEN, now, confirmed=True)
    ana = await look(pair.supervisor)
    await ana.goto("/supervisor")
    await ana.get_by_role("link", name="Horários e regras").click()
    await ana.get_by_label("sábado").fill("9-12")
    await ana.get_by_role("button", name="Salvar horários").click()
    await expect(ana.get_by_role("status")).to_have_text("Salvo.")
    await expect(ana.get_by_label("sábado")).to_have_value("09:00–12:00")
    await ana.get_by_label("Remarcar com antecedência de").fill("1 dia")
    await ana.get_by_role("button", name="Salvar regras").click()
    await expect(ana.get_by_label("Remarcar com antecedência de")).to_have_value("1 dia")
    await ana.get_by_label("País").select_option("Portugal")
    await ana.get_by_role("button", name="Salvar feriados").click()
    await expect(ana.get_by_text("Os próximos: ter., 01/12")).to_be_visible()
    await ana.goto("/supervisor")
    await ana.get_by_role("link", name="Combinados Bruno").click()
    await ana.get_by_label("Durações à escolha").fill("50, 90")
    await ana.get_by_role("button", name="Salvar").click()
    await expect(ana.get_by_text("50 minutos, 90 minutos")).to_be_visible()
    await ana.goto("/supervisor")
    await ana.get_by_role("link", name="Ausência").click()
    await ana.get_by_label("Primeiro dia").fill("2026-11-24")
    await ana.get_by_role("button", name="Ver o que está marcado").click()
    await expect(ana.get_by_role("heading", name="1 supervisão cai nesses dias")).to_be_visible()
    await ana.get_by_label("Cancelar todas").check()
    await ana.get_by_role("button", name="Tirar esses dias").click()
    await expect(ana.get_by_role("heading", level=1)).to_have_text("Nenhum pedido à espera")
    assert await stored(database) == [("cancelled", TEN)]


async def test_waiting_for_a_full_day_at_the_phone(database: Database, now: datetime, look: Look) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        for hours in range(-1, 8):
            at = TEN + timedelta(hours=hours)
            await appointments.book(tx, acts(pair.supervisor), pair, at, now=now)
    bruno = await look(pair.supervisee)
    await bruno.goto("/appointments")
    await bruno.get_by_role("button", name="Wait for this day Tue 24 Nov").click()
    await expect(bruno.get_by_role("status")).to_have_text("You are told when a time becomes free.")
    waiting = bruno.get_by_role("region", name="You wait for")
    await expect(waiting.get_by_text("Tue 24 Nov")).to_be_visible()
    async with database.transaction() as tx:
        freed = (await tx.execute(select(table.c.id).where(table.c.starts_at == TEN))).scalar_one()
        await appointments.cancel(tx, acts(pair.supervisor), freed, now=now)
    async with database.transaction() as tx:
        await waits.offer_freed(tx, now)
    await bruno.goto("/appointments")
    await expect(bruno.get_by_role("heading", level=1)).to_have_text("1 time is kept for you")
    await bruno.get_by_role("button", name="Take it").click()
    await expect(bruno.get_by_role("status")).to_have_text("Request sent. You will be told the answer.")
    assert (await stored(database))[-1] == ("requested", TEN)


async def test_a_supervisor_corrects_how_it_went(database: Database, now: datetime, look: Look, clock: Clock) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, TEN, now, confirmed=True)
    clock.forward(hours=30)
    async with database.transaction() as tx:
        await appointments.close_past(tx, now=clock())
    ana = await look(pair.supervisor)
    await ana.goto("/supervisor")
    last = ana.get_by_role("region", name="As últimas")
    await last.get_by_role("button", name="Não compareceu Bruno").click()
    await expect(ana.get_by_role("status")).to_have_text("Anotado.")
    await expect(last.get_by_text("– falta")).to_be_visible()
    assert await stored(database) == [("no_show", TEN)]


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


async def fill(database: Database, pair: Pair, now: datetime) -> tuple[uuid.UUID, uuid.UUID]:
    """Two lengths, a series that is asked for, a proposal, a full day that is waited for; gives one of the series."""
    async with database.transaction() as tx:
        await policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=[50, 90], approval=None, now=now)
        several = await series.book(
            tx, acts(pair.supervisee), pair, TEN + timedelta(days=2), "FREQ=WEEKLY;COUNT=6", skip=False, now=now
        )
        moved = await appointments.book(tx, acts(pair.supervisor), pair, TEN + timedelta(days=3), now=now)
        later = TEN + timedelta(days=3, hours=1)
        await moves.reschedule(tx, acts(pair.supervisor), moved.id, later, now=now)
        for hours in range(-1, 8):
            at = TEN + timedelta(days=6, hours=hours)
            await appointments.book(tx, acts(pair.supervisor), pair, at, now=now)
        day = (TEN + timedelta(days=6, hours=-8), TEN + timedelta(days=6, hours=8))
        await waits.join(tx, acts(pair.supervisee), pair, [day], now=now)
    return several.booked[0].id, several.series_id


async def welcome_paths(database: Database, now: datetime) -> list[str]:
    """The page that leads in, of somebody who has to make an account, and of somebody who has one."""
    paths: list[str] = []
    async with database.transaction() as tx:
        for account, matrix_id in (("eva.de.albuquerque", None), (None, "@eva:example.org")):
            person = await invitations.add(
                tx, SYSTEM, name="Eva de Albuquerque", email=f"{len(paths)}@example.org", language="pt-BR",
                time_zone="America/Sao_Paulo", roles=["supervisee"], account=account, matrix_id=matrix_id,
                server_name="example.org", now=now,
            )  # fmt: skip
            known = await invitations.of(tx, person.id)
            assert known is not None
            paths.append(f"/welcome/{seals.welcome_token(SECRET, person.id, known.nonce)}")
    return paths


@pytest.mark.parametrize("width", [360, 800, 1024])
async def test_two_ranges_of_a_weekday_stand_in_full_in_their_field(
    database: Database, now: datetime, look: Look, width: int
) -> None:
    pair = await add_pair(database, now=now)
    page = await look(pair.supervisor, width=width)
    await page.goto("/hours")
    field = page.get_by_label("segunda-feira")
    await field.fill("09:00–12:00, 14:00–18:00")
    assert await field.evaluate("field => field.scrollWidth - field.clientWidth") == 0


async def test_every_page_fits_and_can_be_read(database: Database, now: datetime, look: Look) -> None:
    """No horizontal scrolling, contrast of 4.5 and more, targets large enough, every field and part has its name.

    At a phone's and at a desk's width, light and dark: a page is loaded once for all, since they differ in style alone.
    """
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now, confirmed=True)
    asked = await book(database, pair, TEN + timedelta(days=1), now)
    one, several = await fill(database, pair, now)
    async with database.transaction() as tx:
        await bots.register(tx, "@visavis:example.org", "q7BzjKwXk0m3oR4cTt8aVhYp2nLd9sEfGuI1xZ5wJvM", now=now)
        await pairs.set_room(tx, pair.id, "!averylongroomidentifierwithoutanybreak:example.org")
        await tx.execute(table.update().where(table.c.id == appointment).values(place="x" * 120))
        await feeds.open(tx, acts(pair.supervisor), pair.supervisor.id, now=now)
    rita = await add_person(database, "Rita", ["admin"], now=now)
    pages = {
        None: ("/sign-in", "/sign-in/code", *await welcome_paths(database, now)),
        pair.supervisee: (
            "/appointments?done=requested",
            *(f"/appointments/{appointment}{page}" for page in ("", "/cancel", "/reschedule")),
            *(f"/appointments/{one}{page}" for page in ("", "/cancel", "/reschedule")),
            f"/appointments?pair={pair.id}&from=2026-11-30&length=90",
            f"/book?pair={pair.id}&repeat=weekly",
            f"/series/{several}",
            f"/pairs/{pair.id}/settings",
            "/calendar",
            "/account",
            "/account/password",
            "/account/phone",
            "/account/identity",
        ),
        rita: ("/admin", f"/admin/people/{pair.supervisee.id}", f"/admin/pairs/{pair.id}"),
        pair.supervisor: (
            "/supervisor",
            f"/appointments/{asked}",
            f"/appointments/{one}",
            f"/appointments/{appointment}/reschedule",
            f"/book?pair={pair.id}",
            f"/series/{several}",
            f"/pairs/{pair.id}/settings",
            "/calendar?done=feed_opened",
            "/hours",
            "/away",
            "/away?first=2026-11-24&last=2026-11-27",
        ),
    }
    for person, paths in pages.items():
        page = await look(person, javascript=True)
        for path in paths:
            await page.goto(path)
            await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            for width, scheme in WAYS:
                await page.set_viewport_size({"width": width, "height": 740})
                await page.emulate_media(color_scheme=scheme)
                await page.evaluate(AT_REST)
                seen = {"width": width, "dark": scheme == "dark"}
                assert await page.evaluate(JUDGED) == WELL | seen, f"{path} at {width} pixels, {scheme}"


async def test_text_of_twice_the_size_stays_in_its_place(
    database: Database, now: datetime, look: Look, clock: Clock
) -> None:
    """A phone whose owner reads large letters (WCAG 2.2, 1.4.4): nothing is cut off, no word is broken into letters."""
    pair = await add_pair(database, now=now)
    await book(database, pair, TEN, now, confirmed=True)
    await book(database, pair, TEN + timedelta(days=2), now)
    clock.forward(hours=30)
    async with database.transaction() as tx:
        await appointments.close_past(tx, now=clock())
    rita = await add_person(database, "Rita", ["admin"], now=now)
    pages = {
        None: ("/sign-in", "/sign-in/code"),
        pair.supervisee: ("/appointments", f"/book?pair={pair.id}", "/preferences", "/calendar", "/account/phone"),
        rita: ("/admin", f"/admin/people/{pair.supervisee.id}", f"/admin/pairs/{pair.id}"),
        pair.supervisor: ("/supervisor", "/hours", "/away", f"/rooms/{pair.id}", f"/pairs/{pair.id}/settings"),
    }
    for person, paths in pages.items():
        page = await look(person, javascript=True)
        for path in paths:
            await page.goto(path)
            await page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true })")
            await page.evaluate("document.documentElement.style.fontSize = '200%'")
            assert (await page.evaluate(SPILT), await page.evaluate(OVERHANG)) == ([], 0), path


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

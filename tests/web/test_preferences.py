"""How a person wants to be told: the page, the API, and the links of mails that end them."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import time

import pytest
from aiohttp import ClientSession, FormData
from aiohttp.test_utils import TestServer
from sqlalchemy import select

from supervision import mailboxes, notifications, preferences, seals
from supervision.db import Database
from supervision.models import Channel, Topic, audit_entries
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import USUAL, Preferences
from tests.support.sample import acts, add_pair, add_person
from tests.web.calls import call, get, refused
from tests.web.conftest import SECRET, Browser, Clock, Open

MAIL, MATRIX = Channel.MAIL, Channel.MATRIX
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
async def pair(database: Database, clock: Clock) -> Pair:
    return await add_pair(database, now=clock.now)


@pytest.fixture
async def program(server: TestServer) -> AsyncIterator[ClientSession]:
    """A mail program or its server: no cookies, no origin."""
    async with ClientSession(server.make_url("/"), headers={"Accept-Language": "en"}) as session:
        yield session


async def of(database: Database, person: Person) -> Preferences:
    async with database.transaction() as tx:
        return await preferences.of(tx, person.id)


async def put(database: Database, person: Person, wishes: Preferences, clock: Clock) -> None:
    async with database.transaction() as tx:
        await preferences.save(tx, acts(person), person.id, wishes, now=clock())


async def audited(database: Database, action: str) -> list[tuple[uuid.UUID | None, str, bool, str | None]]:
    async with database.transaction() as tx:
        table = audit_entries.c
        query = select(table.actor_id, table.via, table.success, table.reason).where(table.action == action)
        return [tuple(row) for row in await tx.execute(query.order_by(table.id))]


def ticked(browser: Browser) -> set[str]:
    return set(re.findall(r'<input type="checkbox" name="(\w+)" value="on" checked>', browser.page))


def boxes(browser: Browser) -> set[str]:
    return set(re.findall(r'<input type="checkbox" name="(\w+)"', browser.page))


def quiet(browser: Browser) -> list[str]:
    return re.findall(r'<input id="quiet_\w+" type="time" name="quiet_\w+" value="([^"]*)"', browser.page)


async def press(browser: Browser, *ticks: str, **values: str) -> int:
    fields = browser.fields("/preferences") | dict.fromkeys(ticks, "on") | values
    return (await browser.post("/preferences", fields)).status


# The page


async def test_the_page_shows_the_usual_to_who_has_set_nothing(open_browser: Open, pair: Pair) -> None:
    browser = await open_browser(pair.supervisee)
    assert (await browser.get("/preferences")).status == 200
    usual = {"mail_1440", "room_60", "room_15", "mail_bookings", "mail_waits", "room_waits", "mail_unread"}
    assert ticked(browser) == usual
    minutes = (2880, 1440, 240, 60, 30, 15)
    assert boxes(browser) - usual == {f"{way}_{one}" for way in ("mail", "room") for one in minutes} - usual
    assert quiet(browser) == ["", ""]
    await browser.get("/appointments")
    assert '<a href="/preferences">Notices and reminders</a>' in browser.page


async def test_a_supervisor_waits_on_no_list(open_browser: Open, pair: Pair, database: Database, clock: Clock) -> None:
    """What the page does not show stays as it is."""
    unwanted = frozenset({(MAIL, Topic.WAITS)})
    await put(database, pair.supervisor, Preferences(unwanted=unwanted), clock)
    browser = await open_browser(pair.supervisor)
    await browser.get("/preferences")
    assert {one for one in boxes(browser) if "waits" in one} == set()
    assert await press(browser, "mail_1440", "room_60", "room_15", "mail_bookings", "mail_unread") == 303
    assert await of(database, pair.supervisor) == Preferences(unwanted=unwanted)


async def test_what_is_ticked_is_kept(open_browser: Open, pair: Pair, database: Database) -> None:
    browser = await open_browser(pair.supervisee)
    await browser.get("/preferences")
    chosen = ("mail_2880", "mail_60", "room_30", "mail_waits", "room_waits")
    assert await press(browser, *chosen, quiet_from="22:00", quiet_until="07:30") == 303
    await browser.follow()
    assert 'role="status">Saved.' in browser.page
    assert ticked(browser) == set(chosen)
    assert quiet(browser) == ["22:00", "07:30"]
    unwanted = frozenset({(MAIL, Topic.BOOKINGS), (MAIL, Topic.UNREAD)})
    assert await of(database, pair.supervisee) == Preferences((2880, 60), (30,), time(22), time(7, 30), unwanted)
    assert await audited(database, "preferences.save") == [(pair.supervisee.id, "web", True, None)]


async def test_what_was_set_otherwise_is_shown_too(
    open_browser: Open, pair: Pair, database: Database, clock: Clock
) -> None:
    await put(database, pair.supervisee, Preferences((90,), ()), clock)
    browser = await open_browser(pair.supervisee)
    await browser.get("/preferences")
    assert "90 minutes before" in browser.page
    assert {one for one in ticked(browser) if one[-1].isdigit()} == {"mail_90"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"quiet_from": "22:00"}, "Quiet hours have a beginning and an end, and these differ. Nothing was changed."),
        (
            {"quiet_from": "22:00", "quiet_until": "22:00"},
            "Quiet hours have a beginning and an end, and these differ. Nothing was changed.",
        ),
        ({"mail_0": "on"}, "Up to 8 reminders for each way, each at most 7 days before. Nothing was changed."),
        ({"room_99999": "on"}, "Up to 8 reminders for each way, each at most 7 days before. Nothing was changed."),
    ],
)
async def test_what_makes_no_sense_stands_there_again(
    open_browser: Open, pair: Pair, database: Database, values: dict[str, str], sentence: str
) -> None:
    browser = await open_browser(pair.supervisee)
    await browser.get("/preferences")
    assert await press(browser, "room_30", **values) == 422
    assert f'role="alert">{sentence}' in browser.page
    assert "room_30" in ticked(browser)
    assert "mail_1440" not in ticked(browser)
    assert quiet(browser) == [values.get("quiet_from", ""), values.get("quiet_until", "")]
    assert await of(database, pair.supervisee) == USUAL
    assert [row[2] for row in await audited(database, "preferences.save")] == [False]


async def test_reminders_ended_by_a_link_stay_so_until_one_is_ticked(
    open_browser: Open, pair: Pair, database: Database, clock: Clock
) -> None:
    """Meanwhile it is kept which they were: the calendar's alarms go by them."""
    await put(database, pair.supervisee, Preferences(unwanted=frozenset({(MAIL, Topic.REMINDERS)})), clock)
    browser = await open_browser(pair.supervisee)
    await browser.get("/preferences")
    rest = {"room_60", "room_15", "mail_bookings", "mail_waits", "room_waits", "mail_unread"}
    assert ticked(browser) & rest == rest
    assert "mail_1440" not in ticked(browser)
    await press(browser, *rest)
    assert await of(database, pair.supervisee) == Preferences(unwanted=frozenset({(MAIL, Topic.REMINDERS)}))
    await press(browser, *rest, "mail_60")
    assert await of(database, pair.supervisee) == Preferences(mail_reminders=(60,))


async def test_a_link_that_is_used_while_the_page_is_saved_holds(
    open_browser: Open, pair: Pair, database: Database, clock: Clock
) -> None:
    """The page shows no tick for it then, and has not asked for it again."""
    browser = await open_browser(pair.supervisee)
    await put(database, pair.supervisee, Preferences(mail_reminders=()), clock)
    await browser.get("/preferences")
    async with database.transaction() as tx:
        await preferences.mute(tx, acts(pair.supervisee), pair.supervisee.id, MAIL, Topic.REMINDERS, now=clock())
        saving = asyncio.create_task(press(browser, *ticked(browser)))
        await asyncio.sleep(0.5)
    await saving
    unwanted = frozenset({(MAIL, Topic.REMINDERS)})
    assert await of(database, pair.supervisee) == Preferences(mail_reminders=(), unwanted=unwanted)


async def test_who_is_sent_to_sign_in_comes_back(open_browser: Open) -> None:
    stranger = await open_browser()
    response = await stranger.get("/preferences")
    assert (response.status, response.headers["Location"]) == (303, "/sign-in")
    assert response.cookies["visavis-next"].value == "/preferences"


async def test_mail_that_was_stopped_is_tried_again(
    open_browser: Open, pair: Pair, database: Database, clock: Clock
) -> None:
    notice = Notice(pair.supervisee.id, MAIL, "appointment.confirmed", pair_id=pair.id)
    async with database.transaction() as tx:
        await notifications.enqueue(tx, [notice], now=clock())
        await mailboxes.stop(tx, notice.id, "5.1.1", now=clock())
    browser = await open_browser(pair.supervisee)
    await browser.get("/preferences")
    assert f"Mail to {pair.supervisee.email} came back on Mon 23 Nov, 12:00 (Lisbon)" in browser.page
    assert (await browser.post("/preferences/mail", browser.fields("/preferences/mail"))).status == 303
    await browser.follow()
    assert 'role="status">Mail is being sent to you again.' in browser.page
    assert "came back" not in browser.page
    async with database.transaction() as tx:
        assert await mailboxes.stopped(tx, pair.supervisee.id) is None


# The API


async def test_the_api_gives_and_takes_them(open_browser: Open, pair: Pair, database: Database) -> None:
    browser = await open_browser(pair.supervisee)
    usual = {
        "mail_reminders": [1440],
        "room_reminders": [60, 15],
        "quiet_from": None,
        "quiet_until": None,
        "unwanted": [],
    }
    assert await get(browser, "/api/me/preferences") == usual
    changed = {
        "mail_reminders": [60, 1440],
        "room_reminders": [],
        "quiet_from": "22:00",
        "quiet_until": "07:00",
        "unwanted": ["mail:unread", "matrix:reminders"],
    }
    response = await call(browser, "PUT", "/api/me/preferences", changed)
    kept = changed | {"mail_reminders": [1440, 60]}
    assert (response.status, await response.json()) == (200, kept)
    assert await get(browser, "/api/me/preferences") == kept
    unwanted = frozenset({(MAIL, Topic.UNREAD), (MATRIX, Topic.REMINDERS)})
    assert await of(database, pair.supervisee) == Preferences((1440, 60), (), time(22), time(7), unwanted)
    assert await audited(database, "preferences.save") == [(pair.supervisee.id, "api", True, None)]
    tag = response.headers["ETag"]
    assert (await call(browser, "GET", "/api/me/preferences", If_None_Match=tag)).status == 304
    assert (await call(browser, "PUT", "/api/me/preferences", usual, If_Match=tag)).status == 200
    stale = await call(browser, "PUT", "/api/me/preferences", changed, If_Match=tag)
    await refused(stale, 412, "refused.stale")
    assert await of(database, pair.supervisee) == USUAL


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mail_reminders": [0]}, "web.refused.members"),
        ({"mail_reminders": [10081]}, "web.refused.members"),
        ({"mail_reminders": [1.5]}, "web.refused.members"),
        ({"room_reminders": list(range(1, 10))}, "web.refused.members"),
        ({"quiet_from": "24:00"}, "web.refused.members"),
        ({"quiet_from": "22:00"}, "refused.quiet_hours"),
        ({"quiet_from": "22:00", "quiet_until": "22:00"}, "refused.quiet_hours"),
        ({"unwanted": ["matrix:bookings"]}, "web.refused.members"),
        ({"unwanted": ["mail"]}, "web.refused.members"),
        ({"more": 1}, "web.refused.members"),
        ({"unwanted": None}, "web.refused.members"),
    ],
)
async def test_the_api_refuses_what_makes_no_sense(
    open_browser: Open, pair: Pair, database: Database, change: dict[str, object], code: str
) -> None:
    browser = await open_browser(pair.supervisee)
    body = await get(browser, "/api/me/preferences") | change
    await refused(await call(browser, "PUT", "/api/me/preferences", body), 422, code)
    assert await of(database, pair.supervisee) == USUAL


# The links of mails


def path(person: Person, topic: Topic = Topic.REMINDERS, secret: str = SECRET) -> str:
    return f"/unsubscribe/{seals.unsubscribe_token(secret, person.id, topic)}"


async def test_a_scanner_that_opens_the_link_changes_nothing(
    program: ClientSession, pair: Pair, database: Database
) -> None:
    for method in ("GET", "HEAD"):
        for _ in range(2):
            response = await program.request(method, path(pair.supervisee))
            assert response.status == 200
            assert response.headers["Referrer-Policy"] == "no-referrer"
    assert await of(database, pair.supervisee) == USUAL
    assert await audited(database, "preferences.mute") == []


@pytest.mark.parametrize("multipart", [True, False])
async def test_one_click_ends_them(program: ClientSession, pair: Pair, database: Database, *, multipart: bool) -> None:
    """As RFC 8058, 3.2 has it: without cookie or origin, in either encoding; and a second time it does no harm."""
    for _ in range(2):
        form = FormData(ONE_CLICK, default_to_multipart=multipart)
        response = await program.post(path(pair.supervisee), data=form)
        assert response.status == 200
        assert "You get no more reminders by mail." in await response.text()
    assert await of(database, pair.supervisee) == Preferences(unwanted=frozenset({(MAIL, Topic.REMINDERS)}))
    assert await audited(database, "preferences.mute") == [(pair.supervisee.id, "unsubscribe", True, None)]


async def test_the_button_of_the_page_ends_them(open_browser: Open, pair: Pair, database: Database) -> None:
    """In the words of whom it is about, whoever's browser it is."""
    stranger = await open_browser(language="en")
    await stranger.get(path(pair.supervisor, Topic.UNREAD))
    assert "Você não receberia mais e-mails sobre mensagens não lidas. Nada foi alterado ainda." in stranger.page
    assert re.findall(r"<button", stranger.page) == ["<button"]
    hidden = dict(re.findall(r'<input type="hidden" name="([\w-]+)" value="([^"]*)">', stranger.page))
    assert hidden == ONE_CLICK
    assert (await stranger.client.post(path(pair.supervisor, Topic.UNREAD), data=hidden)).status == 200
    assert await of(database, pair.supervisor) == Preferences(unwanted=frozenset({(MAIL, Topic.UNREAD)}))
    await stranger.get(path(pair.supervisor, Topic.UNREAD))
    assert "Você não recebe mais e-mails sobre mensagens não lidas." in stranger.page
    assert "<button" not in stranger.page


async def test_a_link_of_one_s_own_ends_another_person_s_mails_for_nobody(
    open_browser: Open, pair: Pair, database: Database
) -> None:
    """Who is signed in does not matter, nor what origin the browser tells; nobody's name or address is shown."""
    browser = await open_browser(pair.supervisor)
    response = await browser.client.post(
        path(pair.supervisee), data=ONE_CLICK, headers={"Origin": "https://mail.example.com"}
    )
    assert response.status == 200
    text = await response.text()
    assert not any(one in text for one in ("Ana", "Bruno", pair.supervisee.email, pair.supervisor.email))
    assert await of(database, pair.supervisor) == USUAL
    assert (await of(database, pair.supervisee)).unwanted == frozenset({(MAIL, Topic.REMINDERS)})


@pytest.mark.parametrize("body", [{}, {"List-Unsubscribe": "yes"}, {"list-unsubscribe": "One-Click"}])
async def test_a_post_that_says_something_else_changes_nothing(
    program: ClientSession, pair: Pair, database: Database, body: dict[str, str]
) -> None:
    assert (await program.post(path(pair.supervisee), data=body)).status == 422
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await program.post(path(pair.supervisee), data=b"nothing", headers=broken)).status == 422
    assert await of(database, pair.supervisee) == USUAL


async def test_a_link_that_is_none_is_told_calmly(program: ClientSession, pair: Pair, database: Database) -> None:
    good = path(pair.supervisee)
    other = uuid.uuid4()
    bad = [
        "/unsubscribe/x",
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.replace("reminders", "bookings"),
        path(pair.supervisee, secret="another"),
        f"/unsubscribe/{seals.unsubscribe_token(SECRET, other, Topic.WAITS)}",
        "/unsubscribe/%00",
        "/unsubscribe/reminders-",
    ]
    for address in bad:
        for method in ("GET", "POST"):
            response = await program.request(method, address, data=ONE_CLICK if method == "POST" else None)
            assert (address, response.status) == (address, 404)
            assert "This link does not lead anywhere any more." in await response.text()
    assert await of(database, pair.supervisee) == USUAL


async def test_somebody_without_a_row_is_nobody_else(database: Database, clock: Clock) -> None:
    one, two = [await add_person(database, name, ["supervisee"], now=clock.now) for name in ("Ana", "Bruno")]
    await put(database, one, Preferences((), ()), clock)
    assert (await of(database, one), await of(database, two)) == (Preferences((), ()), USUAL)

"""The page of the calendar address, and the feed as calendars read it."""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from icalendar import Calendar
from sqlalchemy import select, update

from supervision import appointments, feeds, people, series
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.models import appointments as table
from supervision.models import audit_entries
from supervision.models import feeds as feeds_table
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts, add_pair
from tests.web.conftest import SECRET, Browser, Clock, Open, configure
from web import feeds as pages_of_feeds
from web.app import run
from web.metrics import Metrics

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def calendar(server: TestServer) -> AsyncIterator[ClientSession]:
    """A calendar program: no cookies, no browser."""
    async with ClientSession(server.make_url("/")) as session:
        yield session


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    return await add_pair(database, now=now)


async def subscribe(database: Database, person: Person, now: datetime) -> str:
    """The path of a new address of theirs."""
    async with database.transaction() as tx:
        await feeds.open(tx, acts(person), person.id, now=now)
        return f"/calendar/{await feeds.token(tx, SECRET, person.id)}.ics"


def address_of(browser: Browser) -> str | None:
    found = re.search(r'<textarea id="address"[^>]* readonly[^>]*>([^<]*)</textarea>', browser.page)
    return found[1] if found else None


async def press(browser: Browser, what: str) -> str | None:
    """Press that button of the page; what the next one's address is."""
    response = await browser.post(f"/calendar/{what}", browser.fields(f"/calendar/{what}"))
    assert response.status == 303
    assert (await browser.follow()).status == 200
    return address_of(browser)


async def test_the_page_gives_renews_and_takes_away(
    open_browser: Open, calendar: ClientSession, pair: Pair, database: Database
) -> None:
    browser = await open_browser(pair.supervisee)
    assert (await browser.get("/calendar")).status == 200
    assert (address_of(browser), "/calendar/renew" in browser.page) == (None, False)
    first = await press(browser, "open")
    assert first is not None
    assert first.startswith(f"{browser.origin}/calendar/")
    assert f'href="{first.replace("http://", "webcal://")}"' in browser.page
    path = first.removeprefix(browser.origin)
    assert (await calendar.get(path)).status == 200
    second = await press(browser, "renew")
    assert second not in (None, first)
    assert (await calendar.get(path)).status == 404
    assert (await calendar.get(str(second).removeprefix(browser.origin))).status == 200
    assert await press(browser, "close") is None
    assert (await calendar.get(str(second).removeprefix(browser.origin))).status == 404
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries.c.action, audit_entries.c.actor_id, audit_entries.c.via).order_by(audit_entries.c.id)
        )
        assert [tuple(row) for row in rows if row.action.startswith("feed.")] == [
            (f"feed.{word}", pair.supervisee.id, "web") for word in ("open", "renew", "close")
        ]


async def test_changes_are_asked_for_by_our_own_form_alone(
    open_browser: Open, pair: Pair, database: Database, now: datetime
) -> None:
    await subscribe(database, pair.supervisor, now)

    async def nonce() -> Any:
        async with database.transaction() as tx:
            return await tx.scalar(select(feeds_table.c.nonce))

    before, browser, stranger = await nonce(), await open_browser(pair.supervisor), await open_browser()
    await browser.get("/calendar")
    for word in ("open", "renew", "close"):
        assert (await browser.post(f"/calendar/{word}", {"form_token": "0" * 64})).status == 403
        foreign = {"Origin": "https://elsewhere.example.org"}
        assert (await browser.post(f"/calendar/{word}", headers=foreign)).status == 403
        assert (await browser.get(f"/calendar/{word}")).status == 405
        response = await stranger.post(f"/calendar/{word}")
        assert (response.status, response.headers["Location"]) == (303, "/sign-in")
    assert await nonce() == before
    response = await stranger.get("/calendar")
    assert (response.status, response.headers["Location"]) == (303, "/sign-in")


async def test_a_button_pressed_twice_counts_once(open_browser: Open, pair: Pair) -> None:
    browser = await open_browser(pair.supervisor)
    await browser.get("/calendar")
    await press(browser, "open")
    form = browser.fields("/calendar/renew")
    found = []
    for _ in range(2):
        await browser.post("/calendar/renew", form)
        await browser.follow()
        found.append(address_of(browser))
    assert found[0] == found[1]


async def test_the_answer_is_what_calendars_expect(
    calendar: ClientSession, pair: Pair, database: Database, now: datetime, clock: Clock
) -> None:
    path = await subscribe(database, pair.supervisor, now)
    async with calendar.get(path) as response:
        body = await response.read()
        assert response.status == 200
        assert {
            name: response.headers.get(name)
            for name in ("Content-Type", "Cache-Control", "Referrer-Policy", "X-Content-Type-Options", "Set-Cookie")
        } == {
            "Content-Type": "text/calendar; charset=utf-8",
            "Cache-Control": "private, max-age=300",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Set-Cookie": None,
        }
        tag, length = response.headers["ETag"], response.headers["Content-Length"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    async with calendar.head(path) as response:
        assert (response.status, response.headers["ETag"], response.headers["Content-Length"]) == (200, tag, length)
        assert await response.read() == b""
    clock.forward(days=3)
    for sent, status in ((tag, 304), (f"W/{tag}", 304), (f'"a", {tag}', 304), ("*", 304), ('"a"', 200)):
        async with calendar.get(path, headers={"If-None-Match": sent}) as response:
            assert (response.status, response.headers["ETag"]) == (status, tag)
            assert await response.read() == (b"" if status == 304 else body)
    async with database.transaction() as tx:
        await appointments.book(tx, acts(pair.supervisee), pair, TEN + 7 * 24 * HOUR, now=clock())
    async with calendar.get(path, headers={"If-None-Match": tag}) as response:
        assert (response.status, response.headers["ETag"] != tag) == (200, True)
    assert (await calendar.post(path)).status == 405


async def test_whose_address_is_worthless_learns_nothing(
    calendar: ClientSession, pair: Pair, database: Database, now: datetime
) -> None:
    path = await subscribe(database, pair.supervisor, now)
    renewed = await subscribe(database, pair.supervisee, now)
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, pair.supervisor.id, now=now)
        await feeds.renew(tx, SYSTEM, pair.supervisee.id, now=now)
    answers = set()
    for one in (path, renewed, "/calendar/0.ics", f"/calendar/{'0' * 72}.ics", "/calendar/%C3%A9.ics"):
        async with calendar.get(one) as response:
            page = re.sub(r'value="[^"]*"', "", await response.text())
            answers.add((response.status, response.headers["Cache-Control"], response.headers.get("ETag"), page))
    [(status, caching, tag, _)] = answers
    assert (status, caching, tag) == (404, "no-store", None)


async def test_who_reads_without_end_is_asked_to_wait(
    calendar: ClientSession, pair: Pair, database: Database, now: datetime
) -> None:
    ana, bruno = [await subscribe(database, person, now) for person in pair.people]
    answers = [(await calendar.get(ana)).status for _ in range(pages_of_feeds.BURST + 1)]
    assert answers == [200] * pages_of_feeds.BURST + [429]
    assert (await calendar.get(bruno)).status == 200


async def test_nobody_and_no_place_is_named_to_a_supervisor(
    calendar: ClientSession, pair: Pair, database: Database, now: datetime
) -> None:
    """The place is free text, and may say whose it is."""
    paths = [await subscribe(database, person, now) for person in (pair.supervisor, pair.supervisee)]
    async with database.transaction() as tx:
        one = await appointments.book(tx, acts(pair.supervisor), pair, TEN, now=now)
        asked = await appointments.book(tx, acts(pair.supervisee), pair, TEN + 24 * HOUR, now=now)
        await tx.execute(update(table).values(place="Casa do Bruno"))
    supervisor, supervisee = [await (await calendar.get(path)).text() for path in paths]
    for text in (supervisor, supervisee):
        assert not re.search("Bruno|Casa|ATTENDEE|ORGANIZER|VALARM|mailto", text)
        assert "@" not in text.replace("@example.org", "")
    read = Calendar.from_ical(supervisor)
    assert {name: str(read[name]) for name in ("METHOD", "NAME", "X-WR-CALNAME", "X-PUBLISHED-TTL")} == {
        "METHOD": "PUBLISH",
        "NAME": "Supervisão",
        "X-WR-CALNAME": "Supervisão",
        "X-PUBLISHED-TTL": "PT1H",
    }
    assert "REFRESH-INTERVAL;VALUE=DURATION:PT1H\r\n" in supervisor
    names = ("UID", "SUMMARY", "LOCATION", "STATUS", "URL")
    assert [tuple(str(entry[name]) for name in names) for entry in read.events] == [
        (f"{one.id}@example.org", "Supervisão", "Online", "CONFIRMED", f"http://127.0.0.1:8080/appointments/{one.id}"),
        (
            f"{asked.id}@example.org",
            "Supervisão (a confirmar)",
            "Online",
            "TENTATIVE",
            f"http://127.0.0.1:8080/appointments/{asked.id}",
        ),
    ]
    assert [str(entry["SUMMARY"]) for entry in Calendar.from_ical(supervisee).events] == [
        "Supervision with Ana",
        "Supervision with Ana (to be confirmed)",
    ]


async def test_a_series_is_read_as_single_appointments(
    calendar: ClientSession, pair: Pair, database: Database, now: datetime
) -> None:
    path = await subscribe(database, pair.supervisor, now)
    async with database.transaction() as tx:
        made = await series.book(tx, acts(pair.supervisor), pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=False, now=now)
        await appointments.cancel(tx, acts(pair.supervisee), made.booked[1].id, now=now)
    entries = Calendar.from_ical(await (await calendar.get(path)).text()).events
    assert [(str(entry["UID"]), entry.start) for entry in entries] == [
        (f"{one.id}@example.org", one.starts_at) for one in (made.booked[0], made.booked[2])
    ]
    assert not any(name in entry for entry in entries for name in ("RRULE", "RECURRENCE-ID", "EXDATE"))


async def test_a_feed_of_nothing_is_a_calendar_still(
    calendar: ClientSession, pair: Pair, database: Database, now: datetime
) -> None:
    read = Calendar.from_ical(await (await calendar.get(await subscribe(database, pair.supervisee, now))).text())
    assert (read.events, [str(zone["TZID"]) for zone in read.timezones]) == ([], ["Europe/Lisbon"])


async def test_the_address_stands_in_no_log_and_no_figure(
    pair: Pair,
    database: Database,
    now: datetime,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is served to the world, with all that anything has to log."""
    path = await subscribe(database, pair.supervisor, now)
    port, metrics_port = free_port(), free_port()
    origin = f"http://127.0.0.1:{port}"
    started, metrics = asyncio.Event(), Metrics()
    config = configure(origin, port=port, metrics_port=metrics_port)
    caplog.set_level(logging.DEBUG)
    serving = asyncio.create_task(run(database, config, started=started, metrics=metrics))
    try:
        await asyncio.wait_for(started.wait(), 20)
        async with ClientSession(origin) as session:
            statuses = [(await session.get(one)).status for one in (path, f"{path[:-5]}x.ics")]
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert statuses == [200, 404]
    samples = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    assert {one.labels["route"] for one in samples if "route" in one.labels} == {"/calendar/{token}.ics"}
    said = caplog.text + "".join(capsys.readouterr())
    token = path.removeprefix("/calendar/").removesuffix(".ics")
    assert token[32:64] not in said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

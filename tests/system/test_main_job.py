"""The main job, end to end: booked in the room, confirmed by a tap, in both mailboxes, on both dashboards."""

import re
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any
from zoneinfo import ZoneInfo

from icalendar import Calendar
from playwright.async_api import Browser, Page, expect
from sqlalchemy import select

from supervision import queries
from supervision.models import Status, audit_entries, journal
from supervision.pairs import Pair
from tests.support.practice import Practice

SAO_PAULO, LISBON = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Lisbon")


def calendar_of(mail: EmailMessage) -> tuple[str, datetime, datetime, int, str]:
    """Method, start, end, sequence and status of the mail's calendar part."""
    part = next(part for part in mail.walk() if part.get_content_type() == "text/calendar")
    calendar = Calendar.from_ical(part.get_content())
    event: Any = calendar.walk("VEVENT")[0]
    return (
        str(calendar["METHOD"]),
        event["DTSTART"].dt.astimezone(UTC),
        event["DTEND"].dt.astimezone(UTC),
        int(event["SEQUENCE"]),
        str(event["STATUS"]),
    )


def subject_time(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).strftime("%H:%M")


async def coming(practice: Practice, pair: Pair) -> list[tuple[datetime, Status]]:
    async with practice.database.transaction() as tx:
        found = await queries.coming(tx, pair.supervisee.id, now=datetime.now(UTC))
        return [(one.starts_at, one.status) for one in found]


async def sign_in_by_mail(page: Page, practice: Practice, address: str, mails_before: int) -> None:
    """As a person does it: ask on the page, open the mailed link in the same browser, press its one button."""
    await page.goto(f"{practice.config.web.base_url}/sign-in")
    await page.fill("input[type=email]", address)
    await page.click("main button[type=submit]")
    mail = (await practice.mails(address, at_least=mails_before + 1))[-1]
    body = mail.get_body(("plain",))
    assert body is not None
    link = re.search(r"http\S+/sign-in/\S+", body.get_content())
    assert link is not None
    await page.goto(link[0])
    await page.click("main button[type=submit]")


async def test_a_booking_by_chat_and_a_tap(practice: Practice, chromium: Browser) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (ana, bruno):
        listed = await bruno.ask(room, "!slots", practice.bot)
        assert listed.msgtype == "m.notice"
        assert listed.body.startswith("Free with Ana (Lisbon)\n1. ")
        assert len(await bruno.reactions_to(listed.event_id, practice.bot, at_least=3)) >= 3

        answer = await bruno.ask(room, "!book 2", practice.bot)
        assert answer.body.startswith("Request sent: ")
        [(starts_at, status)] = await coming(practice, pair)
        assert status is Status.REQUESTED

        request = await ana.next_message(practice.bot, lambda message: "Bruno pede" in message.body)
        assert request.msgtype == "m.text"
        assert request.mentions == (pair.supervisor.matrix_id,)
        assert subject_time(starts_at, SAO_PAULO) in request.body
        assert f"{subject_time(starts_at, LISBON)}–" in request.body
        assert await ana.reactions_to(request.event_id, practice.bot, at_least=2) == ["✅", "❌"]

        [asked] = await practice.mails(pair.supervisor.email, at_least=1)
        ends_at = starts_at + timedelta(minutes=50)
        assert calendar_of(asked) == ("REQUEST", starts_at, ends_at, 0, "TENTATIVE")
        assert subject_time(starts_at, SAO_PAULO) in asked["Subject"]

        await ana.react(room, request.event_id, "✅")
        confirmed = await bruno.next_message(practice.bot, lambda message: "Confirmed by Ana" in message.body)
        assert confirmed.mentions == (pair.supervisee.matrix_id,)
        assert await coming(practice, pair) == [(starts_at, Status.CONFIRMED)]

    [invitation] = await practice.mails(pair.supervisee.email, at_least=1)
    assert calendar_of(invitation) == ("REQUEST", starts_at, ends_at, 1, "CONFIRMED")
    assert subject_time(starts_at, LISBON) in invitation["Subject"]
    _, update = await practice.mails(pair.supervisor.email, at_least=2)
    assert calendar_of(update) == ("REQUEST", starts_at, ends_at, 1, "CONFIRMED")

    for person, mails, when in (
        (pair.supervisee, 1, subject_time(starts_at, LISBON)),
        (pair.supervisor, 2, subject_time(starts_at, SAO_PAULO)),
    ):
        context = await chromium.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740})
        page = await context.new_page()
        await sign_in_by_mail(page, practice, person.email, mails)
        other = pair.other(person.id).name
        next_one = page.locator("main section").filter(has_text=other).first
        await expect(next_one).to_contain_text(when)
        await expect(next_one).to_contain_text("confirmed" if person is pair.supervisee else "confirmada")
        await context.close()

    async with practice.database.transaction() as tx:
        actions = (await tx.execute(select(audit_entries.c.action, audit_entries.c.via))).all()
        assert ("appointment.book", "matrix") in actions
        assert ("appointment.confirm", "reaction") in actions
        assert {row.outcome for row in await tx.execute(select(journal.c.outcome))} == {"done"}

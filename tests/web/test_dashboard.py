"""The two dashboards: what is next, and every change a person can make there, without JavaScript."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from aiohttp import ClientResponse
from sqlalchemy import select

from supervision import appointments, audit, moves, pairs
from supervision.appointments import Appointment
from supervision.audit import SYSTEM, Actor
from supervision.db import Database
from supervision.models import Fault, audit_entries
from supervision.models import appointments as table
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts, add_pair, add_person
from tests.web.conftest import Browser, Clock, Open

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo, 13:00 in Lisbon
HOUR = timedelta(hours=1)
ELEVEN = "2026-11-24T14:00:00Z/2026-11-24T14:50:00Z"


async def book(database: Database, pair: Pair, starts_at: datetime, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


async def confirm(database: Database, pair: Pair, appointment: Appointment, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)


async def move(browser: Browser, appointment: Appointment, slot: str) -> ClientResponse:
    """Press that slot on the page that moves the appointment."""
    path = f"/appointments/{appointment.id}/reschedule"
    await browser.get(path)
    assert slot in browser.slots()
    return await browser.post(path, browser.fields(path) | {"slot": slot})


def card(page: str, name: str) -> list[str]:
    """The texts of the section with that heading's ID, in their order, without its buttons."""
    found = re.search(rf'<section class="card[^"]*"[^>]* aria-labelledby="{name}">(.*?)</section>', page, re.DOTALL)
    parts = re.findall(r"<(h1|h2|p)[^>]*>(.*?)</\1>", found[1], re.DOTALL) if found else []
    return [" ".join(unescape(re.sub(r"<[^>]+>", "", text)).split()) for _, text in parts]


async def stored(database: Database) -> list[tuple[str, datetime]]:
    async with database.transaction() as tx:
        return [
            (row.status, row.starts_at)
            for row in await tx.execute(select(table.c.status, table.c.starts_at).order_by(table.c.starts_at))
        ]


async def test_a_supervisee_books(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    assert (await bruno.get("/")).headers["Location"] == "/appointments"
    assert (await bruno.get("/appointments")).status == 200
    assert "No appointment yet" in bruno.page
    slot = "2026-11-24T13:00:00Z/2026-11-24T13:50:00Z"
    assert slot in bruno.slots()
    answer = await bruno.post("/appointments", bruno.fields("/appointments") | {"slot": slot})
    assert (answer.status, answer.headers["Location"]) == (303, "/appointments?done=requested")
    assert await stored(database) == [("requested", TEN)]
    await bruno.follow()
    assert "Request sent. You will be told the answer." in bruno.page
    assert "Tue 24 Nov, 13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)" in bruno.page
    assert slot not in bruno.slots()


async def dashboards(pair: Pair, open_browser: Open) -> dict[str, Browser]:
    """Both people's, by path."""
    return {
        "/appointments": await open_browser(pair.supervisee),
        "/supervisor": await open_browser(pair.supervisor),
    }


async def test_a_room_that_is_stopped_is_told_until_it_is_well(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    browsers = await dashboards(pair, open_browser)
    sentences = {
        "/appointments": "The bot has stopped writing in the room and takes no commands there.",
        "/supervisor": "O robô parou de escrever na sala e não aceita comandos lá.",
    }
    async with database.transaction() as tx:
        await pairs.set_room(tx, pair.id, "!room:example.org")
        await pairs.set_fault(tx, await pairs.get(tx, pair.id), Fault.STRANGER, now=now)
    for path, browser in browsers.items():
        await browser.get(path)
        assert sentences[path] in browser.page
    async with database.transaction() as tx:
        await pairs.clear_fault(tx, pair.id, now=now)
    for path, browser in browsers.items():
        await browser.get(path)
        assert sentences[path] not in browser.page


async def test_who_has_only_an_archived_pair_is_not_told_to_wait_for_one(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.set_room(tx, pair.id, "!room:example.org")
        await pairs.archive(tx, acts(pair.supervisor), pair.id, now=now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    await bruno.get("/appointments")
    assert card(bruno.page, "next") == [
        "No appointment yet",
        "Your supervision is archived: the room can still be read, but nothing more is booked. "
        "The supervisor can reopen it.",
    ]
    assert card(bruno.page, "talk") == []
    await ana.get("/supervisor")
    assert "Nenhuma dupla está ativa. As arquivadas estão abaixo e podem ser reabertas." in unescape(ana.page)


async def test_an_archived_room_is_shown_as_long_as_it_can_be_read(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    browsers = await dashboards(pair, open_browser)
    async with database.transaction() as tx:
        await pairs.set_room(tx, pair.id, "!room:example.org")
        await pairs.archive(tx, acts(pair.supervisor), pair.id, now=now)
    for path, browser in browsers.items():
        await browser.get(path)
        assert f'href="/rooms/{pair.id}"' in browser.page
    async with database.transaction() as tx:
        await pairs.set_fault(tx, await pairs.get(tx, pair.id), Fault.GONE, now=now)
    for path, browser in browsers.items():
        await browser.get(path)
        assert f'href="/rooms/{pair.id}"' not in browser.page


async def test_a_room_that_cannot_be_made_is_told_without_its_reason(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    async with database.transaction() as tx:
        await pairs.note_not_made(tx, pair, now=now)
    await bruno.get("/appointments")
    assert "The room could not be made. Whoever runs Visavis sees that; until then, book here." in bruno.page
    await ana.get("/supervisor")
    assert "A sala não pôde ser criada. Isso aparece para quem administra o Visavis; até lá" in ana.page
    for browser in (ana, bruno):
        assert "Matrix ID" not in browser.page
    async with database.transaction() as tx:
        await pairs.clear_fault(tx, pair.id, now=now)
    await bruno.get("/appointments")
    assert "The room is being prepared." in bruno.page


async def test_a_double_tap_books_once_and_gives_the_same_answer(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    fields = bruno.fields("/appointments") | {"slot": bruno.slots()[0]}
    answers = [await bruno.post("/appointments", fields) for _ in range(2)]
    assert [answer.headers["Location"] for answer in answers] == ["/appointments?done=requested"] * 2
    assert len(await stored(database)) == 1


async def test_a_taken_time_is_told_with_the_day_s_others(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    clara = await add_person(database, "Clara", ["supervisee"], now=now)
    other = await add_pair(database, now=now, supervisor=pair.supervisor, supervisee=clara)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    await book(database, other, TEN, now)
    slot = "2026-11-24T13:00:00Z/2026-11-24T13:50:00Z"
    answer = await bruno.post("/appointments", bruno.fields("/appointments") | {"slot": slot})
    assert answer.status == 409
    assert "That time has just been taken. Free on the same day: 12:00, 14:00, 15:00, 16:00." in bruno.page
    assert "Clara" not in bruno.page


async def test_a_supervisor_confirms_and_declines(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    first, second = [await book(database, pair, TEN + timedelta(hours=hours), now) for hours in (0, 1)]
    ana = await open_browser(pair.supervisor)
    assert (await ana.get("/")).headers["Location"] == "/supervisor"
    await ana.get("/supervisor")
    assert "2 pedidos esperam por você" in ana.page
    for appointment, action, done in ((first, "confirm", "confirmed"), (second, "decline", "declined")):
        path = f"/appointments/{appointment.id}/{action}"
        answer = await ana.post(path, ana.fields(path))
        assert (answer.status, answer.headers["Location"]) == (303, f"/supervisor?done={done}")
    assert await stored(database) == [("confirmed", TEN), ("declined", TEN + timedelta(hours=1))]
    await ana.follow()
    assert "Nenhum pedido à espera" in ana.page
    assert "terça-feira, 24 de novembro, 10:00" in ana.page


async def test_either_cancels_after_a_page_that_asks(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    path = f"/appointments/{appointment.id}/cancel"
    assert path in bruno.page
    await bruno.get(path)
    assert "This cannot be undone." in bruno.page
    answer = await bruno.post(path, bruno.fields(path) | {"reason": "ill"})
    assert answer.headers["Location"] == "/appointments?done=cancelled"
    assert await stored(database) == [("cancelled", TEN)]


async def test_a_supervisee_moves_an_open_request_at_once(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    bruno = await open_browser(pair.supervisee)
    answer = await move(bruno, appointment, ELEVEN)
    assert answer.headers["Location"] == "/appointments?done=move_requested"
    assert await stored(database) == [("requested", TEN + HOUR)]


@pytest.mark.parametrize(("who", "home"), [("supervisee", "/appointments"), ("supervisor", "/supervisor")])
async def test_either_proposes_a_new_time_and_the_other_accepts(
    database: Database, now: datetime, open_browser: Open, who: str, home: str
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    proposer = await open_browser(getattr(pair, who))
    asked_person = pair.other(getattr(pair, who).id)
    asked = await open_browser(asked_person)
    answer = await move(proposer, appointment, ELEVEN)
    assert answer.headers["Location"] == f"{home}?done=move_proposed"
    assert await stored(database) == [("confirmed", TEN)]
    await asked.get("/")
    await asked.follow()
    path = f"/appointments/{appointment.id}/accept"
    answer = await asked.post(path, asked.fields(path))
    other_home = "/supervisor" if who == "supervisee" else "/appointments"
    assert answer.headers["Location"] == f"{other_home}?done=accepted"
    assert await stored(database) == [("confirmed", TEN + HOUR)]


async def test_a_proposal_is_told_with_both_times_and_until_when(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    await move(bruno, appointment, ELEVEN)
    await ana.get(f"/appointments/{appointment.id}")
    assert card(ana.page, "proposal") == [
        "Bruno propõe:",
        "ter., 24/11, 11:00–11:50 (São Paulo; 14:00–14:50 em Lisboa)",
        "O horário atual vale até você aceitar. Responda até ter., 24/11, 10:00 (São Paulo).",
    ]
    await bruno.get(f"/appointments/{appointment.id}")
    assert card(bruno.page, "proposal") == [
        "You propose:",
        "Tue 24 Nov, 14:00–14:50 (Lisbon; 11:00–11:50 in Sao Paulo)",
        "The present time stands unless Ana accepts by Tue 24 Nov, 13:00 (Lisbon).",
    ]


@pytest.mark.parametrize(
    ("who", "action", "done"), [("supervisor", "refuse", "refused"), ("supervisee", "withdraw", "withdrawn")]
)
async def test_a_proposal_is_declined_or_taken_back(
    database: Database, now: datetime, open_browser: Open, who: str, action: str, done: str
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    await move(await open_browser(pair.supervisee), appointment, ELEVEN)
    browser = await open_browser(getattr(pair, who))
    await browser.get(f"/appointments/{appointment.id}")
    form = f"/appointments/{appointment.id}/{'accept' if action == 'refuse' else action}"
    answer = await browser.post(f"/appointments/{appointment.id}/{action}", browser.fields(form))
    assert answer.headers["Location"].endswith(f"?done={done}")
    assert await stored(database) == [("confirmed", TEN)]
    async with database.transaction() as tx:
        assert (await appointments.get(tx, acts(pair.supervisee), appointment.id)).proposal is None


async def test_a_proposal_that_was_replaced_is_not_accepted(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    await move(bruno, appointment, ELEVEN)
    await ana.get("/supervisor")
    path = f"/appointments/{appointment.id}/accept"
    seen = ana.fields(path)
    await move(bruno, appointment, "2026-11-24T15:00:00Z/2026-11-24T15:50:00Z")
    assert (await ana.post(path, seen)).status == 412
    assert "Isto mudou enquanto você olhava." in ana.page
    assert await stored(database) == [("confirmed", TEN)]


async def test_the_asked_one_proposes_another_time(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    await move(bruno, appointment, ELEVEN)
    path = f"/appointments/{appointment.id}/reschedule"
    await ana.get(path)
    typed = {"day": "2026-11-28", "clock": "08:30"}  # a Saturday: outside her hours
    answer = await ana.post(path, ana.fields(path) | typed)
    assert answer.headers["Location"] == "/supervisor?done=move_proposed"
    async with database.transaction() as tx:
        proposal = (await appointments.get(tx, acts(pair.supervisee), appointment.id)).proposal
    assert proposal is not None
    assert (proposal.by, proposal.starts_at) == (pair.supervisor.id, datetime(2026, 11, 28, 11, 30, tzinfo=UTC))


async def test_a_typed_time_that_makes_no_sense_stays_typed(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    ana = await open_browser(pair.supervisor)
    path = f"/appointments/{appointment.id}/reschedule"
    await ana.get(path)
    answer = await ana.post(path, ana.fields(path) | {"day": "2026-11-25", "clock": ""})
    assert answer.status == 422
    assert "Falta uma hora, como 14:30. Nada foi alterado." in ana.page
    assert 'name="day" value="2026-11-25"' in ana.page


async def test_a_late_cancellation_is_announced_and_shown(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, now + 4 * HOUR, now), now)
    bruno = await open_browser(pair.supervisee)
    path = f"/appointments/{appointment.id}/cancel"
    await bruno.get(path)
    assert "This is within 1 day of the appointment: it counts as cancelled late." in bruno.page
    await bruno.post(path, bruno.fields(path))
    await bruno.follow()
    assert '<span class="shape" aria-hidden="true">⊗</span> cancelled late' in bruno.page


async def test_a_supervisor_marks_and_corrects_how_it_went(
    database: Database, now: datetime, open_browser: Open, clock: Clock
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await confirm(database, pair, await book(database, pair, TEN, now), now)
    clock.forward(days=2)
    async with database.transaction() as tx:
        await appointments.close_past(tx, now=clock())
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    path = f"/appointments/{appointment.id}/mark"
    for status in ("no_show", "completed"):
        await ana.get("/supervisor")
        answer = await ana.post(path, ana.fields(path) | {"status": status})
        assert answer.headers["Location"] == "/supervisor?done=marked"
        assert await stored(database) == [(status, TEN)]
    await bruno.get("/appointments")
    assert (await bruno.post(path, {"status": "no_show"})).status == 403
    assert "It is the supervisor who says how an appointment went." in bruno.page


async def test_a_supervisee_declines_what_was_booked_for_them(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        appointment = await appointments.book(tx, acts(pair.supervisor), pair, TEN, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    assert "Ana booked this for you. You can decline it." in bruno.page
    path = f"/appointments/{appointment.id}/decline"
    await bruno.get(f"/appointments/{appointment.id}")
    answer = await bruno.post(path, bruno.fields(path))
    assert answer.headers["Location"] == "/appointments?done=declined"
    assert await stored(database) == [("declined", TEN)]


async def test_a_page_seen_before_a_change_changes_nothing(
    database: Database, now: datetime, open_browser: Open
) -> None:
    """Ana confirms what she saw at ten; meanwhile Bruno moved it to eleven."""
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/supervisor")
    async with database.transaction() as tx:
        later = TEN + timedelta(hours=1)
        await moves.reschedule(tx, acts(pair.supervisee), appointment.id, later, now=now)
    path = f"/appointments/{appointment.id}/confirm"
    assert (await ana.post(path, ana.fields(path))).status == 412
    assert "Isto mudou enquanto você olhava." in ana.page
    assert await stored(database) == [("requested", later)]


async def test_a_refusal_is_audited(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    answer = await bruno.post(f"/appointments/{appointment.id}/confirm")
    assert answer.status == 403
    async with database.transaction() as tx:
        rows = list(await tx.execute(select(audit_entries).where(audit_entries.c.success.is_(False))))
    assert [(row.actor_id, row.via, row.action, row.resource_id, row.reason) for row in rows] == [
        (pair.supervisee.id, "web", "appointment.confirm", str(appointment.id), "refused.supervisor_answers")
    ]


async def test_a_stranger_sees_and_changes_nothing(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    other = await add_pair(
        database,
        now=now,
        supervisor=await add_person(database, "Dora", ["supervisor", "supervisee"], now=now),
        supervisee=await add_person(database, "Edu", ["supervisee"], now=now),
    )
    for someone in other.people:
        browser = await open_browser(someone)
        for path in ("/appointments", "/supervisor"):
            await browser.get(path)
            for leak in ("Ana", "Bruno", str(appointment.id), str(pair.id)):
                assert leak not in browser.page
        for action in ("", "/cancel", "/reschedule"):
            assert (await browser.get(f"/appointments/{appointment.id}{action}")).status == 404
        for action in ("confirm", "decline", "cancel", "reschedule"):
            slot = "2026-11-24T14:00:00Z/2026-11-24T14:50:00Z"
            answer = await browser.post(f"/appointments/{appointment.id}/{action}", {"slot": slot})
            assert answer.status == 404
    assert await stored(database) == [("requested", TEN)]


@pytest.mark.parametrize("pair_id", ["", "\x00", "free text", "é" * 40, "0" * 5000])
async def test_a_pair_that_is_no_id_leaves_no_trace(
    database: Database, now: datetime, open_browser: Open, pair_id: str
) -> None:
    pair = await add_pair(database, now=now)
    browser = await open_browser(pair.supervisee)
    await browser.get("/appointments")
    fields = browser.fields("/appointments") | {"pair_id": pair_id, "slot": browser.slots()[0]}
    assert (await browser.post("/appointments", fields)).status == 404
    async with database.transaction() as tx:
        tried = select(audit_entries.c.id).where(audit_entries.c.action == "appointment.book")
        assert await tx.scalar(tried.limit(1)) is None


async def test_another_pair_cannot_be_booked_for(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    edu = await add_person(database, "Edu", ["supervisee"], now=now, language="en")
    await add_pair(database, now=now, supervisee=edu)
    browser = await open_browser(edu)
    await browser.get("/appointments")
    fields = browser.fields("/appointments") | {"pair_id": str(pair.id), "slot": browser.slots()[0]}
    assert (await browser.post("/appointments", fields)).status == 404
    assert "There is no such pair." in browser.page
    assert await stored(database) == []


@pytest.mark.parametrize("path", ["/supervisor", "/admin"])
async def test_a_page_of_another_role_is_refused(
    database: Database, now: datetime, open_browser: Open, path: str
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    assert (await bruno.get(path)).status == 403
    assert "You cannot do that. Nothing was changed." in bruno.page


async def test_several_roles_can_be_switched(database: Database, now: datetime, open_browser: Open) -> None:
    carla = await add_person(database, "Carla", ["supervisor", "supervisee", "admin"], now=now)
    await add_pair(database, now=now, supervisee=carla)
    browser = await open_browser(carla)
    assert (await browser.get("/")).headers["Location"] == "/supervisor"
    for path in ("/supervisor", "/appointments", "/admin"):
        assert (await browser.get(path)).status == 200
        assert f'<a href="{path}" aria-current="page">' in browser.page


async def test_pages_open_with_what_makes_no_sense(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    for query in ("from=x", "from=0001-01-01", "from=9999-12-31", "from=2026-11-23&pair=x", "done=%3Cscript%3E"):
        assert (await bruno.get(f"/appointments?{query}")).status == 200
        assert "<script" not in bruno.page
    for query in ("week=x", "week=0001-01-01", "week=9999-12-31"):
        assert (await ana.get(f"/supervisor?{query}")).status == 200
    for path in ("/appointments/x", "/appointments/../admin", f"/appointments/{str(pair.id).upper()}"):
        assert (await bruno.get(path)).status in (403, 404)


async def test_a_supervisor_without_hours_is_told_calmly(database: Database, now: datetime, open_browser: Open) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    async with database.transaction() as tx:
        await pairs.add(tx, SYSTEM, ana, bruno, now=now)
    browser = await open_browser(bruno)
    assert (await browser.get("/appointments")).status == 200
    assert "Ainda não há horários definidos para esta supervisão." in browser.page


async def test_the_week_with_the_next_appointment_is_shown_first(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/supervisor")
    assert "Semana: seg., 23/11 – dom., 29/11" in ana.page
    await book(database, pair, TEN + timedelta(days=7), now)
    await ana.get("/supervisor")
    assert "Semana: seg., 30/11 – dom., 06/12" in ana.page
    await ana.get("/supervisor?week=2026-11-25")
    assert "Semana: seg., 23/11 – dom., 29/11" in ana.page
    assert "Nada marcado nesta semana." in ana.page


async def refuse(database: Database, person: Person, reason: str, at: datetime, device: str | None = None) -> None:
    """As the bot notes it."""
    async with database.transaction() as tx:
        actor = Actor(person.id, "matrix", device=device)
        await audit.record(tx, actor, "command", "pair", None, now=at, success=False, reason=reason)


def refused_card(page: str) -> list[str]:
    """The texts of the card with refused commands, in their order; empty where it is not shown."""
    card = re.search(r'<section class="card" aria-labelledby="refused">(.*?)</section>', page, re.DOTALL)
    parts = re.findall(r"<(h2|p|summary)[^>]*>(.*?)</\1>", card[1], re.DOTALL) if card else []
    return [" ".join(unescape(re.sub(r"<[^>]+>", "", text)).split()) for _, text in parts]


async def test_refused_commands_are_shown_to_the_person_in_whose_name_they_came(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    for browser, home in ((bruno, "/appointments"), (ana, "/supervisor")):
        await browser.get(home)
        assert refused_card(browser.page) == []
    at = datetime(2026, 11, 22, 1, 30, tzinfo=UTC)  # still Saturday in São Paulo
    await refuse(database, pair.supervisee, "doubt.device", at, "<b>PHONE</b>")
    await refuse(database, pair.supervisee, "doubt.undecryptable", at + timedelta(hours=1))
    await refuse(database, pair.supervisor, "doubt.not_encrypted", at)
    await bruno.get("/appointments")
    assert refused_card(bruno.page) == [
        "Messages that did not count",
        "They came in your name in the last 7 days and were not believed. Nothing was changed by them.",
        "Sun 22 Nov, 02:30 (Lisbon)",
        "The message could not be read.",
        "Was it you? Then verify the device in Element, under Settings, Sessions. "
        "If not, sign out that device there and tell your operator.",
        "1 earlier message",
        "Sun 22 Nov, 01:30 (Lisbon)",
        "It is not certain that the device is yours. Device: <b>PHONE</b>",
    ]
    await ana.get("/supervisor")
    assert refused_card(ana.page) == [
        "Mensagens que não valeram",
        "Chegaram em seu nome nos últimos 7 dias e não foram aceitas. Nada foi alterado por elas.",
        "sáb., 21/11, 22:30 (São Paulo)",
        "A mensagem chegou sem criptografia.",
        "Foi você? Então verifique o aparelho no Element, em Configurações, Sessões. "
        "Se não foi, encerre ali a sessão desse aparelho e avise quem opera o sistema.",
    ]


async def test_only_the_latest_doubts_of_a_week_are_shown(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    week = timedelta(days=7)
    for reason in ("event.edited", "refused.slot_taken", "failed"):
        await refuse(database, pair.supervisee, reason, now)
    await refuse(database, pair.supervisee, "doubt.device", now - week - timedelta(seconds=1), "LONGAGO")
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    assert refused_card(bruno.page) == []
    kinds = ("device", "not_encrypted", "undecryptable", "changed_identity", "repeated", "device")
    for hours, kind in enumerate(kinds):
        await refuse(database, pair.supervisee, f"doubt.{kind}", now - week + timedelta(hours=hours))
    await bruno.get("/appointments")
    latest, earlier = refused_card(bruno.page)[2:4], refused_card(bruno.page)[5:]
    assert latest == ["Mon 16 Nov, 17:00 (Lisbon)", "It is not certain that the device is yours."]
    assert earlier == [
        "4 earlier messages",
        "Mon 16 Nov, 16:00 (Lisbon)",
        "The message repeated an earlier one.",
        "Mon 16 Nov, 15:00 (Lisbon)",
        "Your account had a new identity that was not confirmed.",
        "Mon 16 Nov, 14:00 (Lisbon)",
        "The message could not be read.",
        "Mon 16 Nov, 13:00 (Lisbon)",
        "The message came unencrypted.",
    ]


async def test_the_other_s_clock_stands_below_a_time_only_where_it_differs(
    database: Database, open_browser: Open, now: datetime
) -> None:
    """London and Lisbon are two zones with one clock; São Paulo's is another."""
    london = await add_person(database, "Daniel", ["supervisee"], now=now, language="en", time_zone="Europe/London")
    lisbon = await add_person(database, "Helena", ["supervisor"], now=now, time_zone="Europe/Lisbon")
    await add_pair(database, now=now, supervisor=lisbon, supervisee=london)
    browser = await open_browser(london)
    await browser.get("/appointments")
    assert "Times of London" in browser.page
    assert "below each" not in browser.page
    far = await add_pair(database, now=now)
    browser = await open_browser(far.supervisee)
    await browser.get("/appointments")
    assert "Times of Lisbon; below each" in browser.page

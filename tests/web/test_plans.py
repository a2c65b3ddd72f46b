"""The pages that plan ahead: hours and rules, agreements, booking on behalf and in series, time off, waiting."""

import re
from datetime import UTC, date, datetime, time, timedelta
from html import unescape
from uuid import uuid4

import pytest
from sqlalchemy import select

from supervision import appointments, availability, groups, moves, policies, series, shifts, waits
from supervision.appointments import Appointment
from supervision.db import Database
from supervision.groups import Scope
from supervision.hours import DatedException, WeeklyRange
from supervision.models import Approval, Exceptional, Status
from supervision.models import appointments as table
from supervision.pairs import Pair
from tests.support.sample import acts, add_pair, add_person
from tests.web.conftest import Browser, Open

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo, 13:00 in Lisbon
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


def inputs(page: str, action: str) -> dict[str, str]:
    """What the first form that is sent there would send as it stands, but for its buttons."""
    form = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', page, re.DOTALL)
    assert form is not None, f"no form for {action}"
    sent: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", form[1]):
        fields = {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        if fields["type"] not in ("radio", "checkbox") or " checked" in tag:
            sent[fields["name"]] = fields.get("value", "")
    for name, options in re.findall(r'<select[^>]* name="(\w+)"[^>]*>(.*?)</select>', form[1], re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected>', options)
        sent[name] = unescape(chosen[1]) if chosen else ""
    return sent


def card(page: str, name: str) -> list[str]:
    """The texts of the section with that heading's ID: its headings, paragraphs and items, in their order."""
    found = re.search(rf'<section class="card[^"]*"[^>]* aria-labelledby="{name}">(.*?)</section>', page, re.DOTALL)
    parts = re.findall(r"(<(li|h1|h2|p|dt|dd)[ >].*?</\2>)", found[1], re.DOTALL) if found else []
    return [" ".join(unescape(re.sub(r"<[^>]+>", "", text)).split()) for text, _ in parts]


async def stored(database: Database) -> list[tuple[str, datetime]]:
    async with database.transaction() as tx:
        rows = await tx.execute(select(table.c.status, table.c.starts_at).order_by(table.c.starts_at))
        return [(row.status, row.starts_at) for row in rows]


async def booked(database: Database, pair: Pair, starts_at: datetime, now: datetime) -> Appointment:
    """Confirmed, as the supervisee asked."""
    async with database.transaction() as tx:
        appointment = await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)
        return await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)


async def full_day(database: Database, pair: Pair, now: datetime) -> None:
    """Tuesday, 24 November, from 9 to 18 in São Paulo."""
    async with database.transaction() as tx:
        for hours in range(-1, 8):
            await appointments.book(tx, acts(pair.supervisor), pair, TEN + hours * HOUR, now=now)


# ---- hours and rules


async def test_a_supervisor_writes_her_weekly_hours(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    form = inputs(ana.page, "/hours")
    assert [form[f"day{number}"] for number in range(7)] == ["09:00–18:00"] * 5 + ["", ""]
    typed = {"day0": "9-12, 14:00–18:30", "day1": "", "day5": "8h às 10h30", "valid_from": "2026-12-01"}
    answer = await ana.post("/hours", form | typed)
    assert answer.headers["Location"] == "/hours?done=saved"
    async with database.transaction() as tx:
        rules = await availability.load(tx, pair.supervisor.id)
    working = [WeeklyRange(weekday, time(9), time(18)) for weekday in (2, 3, 4)]
    assert sorted(rules.hours) == [
        WeeklyRange(0, time(9), time(12)),
        WeeklyRange(0, time(14), time(18, 30)),
        *working,
        WeeklyRange(5, time(8), time(10, 30)),
    ]
    assert (rules.valid_from, rules.valid_until) == (date(2026, 12, 1), None)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("nine to five", "Não entendi “nine to five”. Assim funciona: 09:00–12:00, 14:00–18:00"),
        ("25:00-26:00", "Não entendi “25:00-26:00”. Assim funciona: 09:00–12:00, 14:00–18:00"),
        ("18:00-09:00", "Um período precisa terminar depois de começar. Nada foi alterado."),
        ("09:00-12:00, 11:00-13:00", "Dois períodos do mesmo dia se sobrepõem. Nada foi alterado."),
    ],
)
async def test_hours_that_make_no_sense_change_nothing_and_stay_typed(
    database: Database, now: datetime, open_browser: Open, typed: str, said: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    assert (await ana.post("/hours", inputs(ana.page, "/hours") | {"day6": typed})).status == 422
    assert said in ana.page
    assert inputs(ana.page, "/hours")["day6"] == typed
    async with database.transaction() as tx:
        assert len((await availability.load(tx, pair.supervisor.id)).hours) == 5


async def test_the_rules_are_shown_with_units_and_changed(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    form = inputs(ana.page, "/hours/rules")
    shown = {name: form[name] for name in ("length", "notice", "cancel_notice", "answer", "horizon", "day_limit")}
    assert shown == {
        "length": "50 minutos",
        "notice": "1 hora",
        "cancel_notice": "1 dia",
        "answer": "2 dias",
        "horizon": "60 dias",
        "day_limit": "",
    }
    await ana.post("/hours/rules", form)  # as it stands, it says the same
    typed = {"length": "60", "notice": "36 h", "horizon": "90", "day_limit": "6", "approval": "automatic"}
    answer = await ana.post("/hours/rules", form | typed)
    assert answer.headers["Location"] == "/hours?done=saved"
    async with database.transaction() as tx:
        rules = await availability.load(tx, pair.supervisor.id)
    assert (rules.length, rules.notice, rules.horizon, rules.day_limit) == (60, 36 * 60, 90, 6)
    assert (rules.approval, rules.cancel_notice, rules.answer) == (Approval.AUTOMATIC, 1440, 2880)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"notice": "soon"}, "Não entendi “soon”. Assim funciona: 50 min, 24 h, 2 dias"),
        ({"grid": "3 min"}, "Começa a cada precisa estar entre 5 minutos e 1 dia. Nada foi alterado."),
        ({"horizon": "12 h"}, "Não entendi “12 h”. Assim funciona: 50 min, 24 h, 2 dias"),
        ({"week_limit": "many"}, "“many” não é um número inteiro. Nada foi alterado."),
    ],
)
async def test_rules_that_make_no_sense_change_nothing_and_stay_typed(
    database: Database, now: datetime, open_browser: Open, typed: dict[str, str], said: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    form = inputs(ana.page, "/hours/rules") | {"place": "Rua Augusta, 10"} | typed
    assert (await ana.post("/hours/rules", form)).status == 422
    assert said in unescape(ana.page)
    again = inputs(ana.page, "/hours/rules")
    assert {name: again[name] for name in ("place", *typed)} == {"place": "Rua Augusta, 10"} | typed
    async with database.transaction() as tx:
        assert (await availability.load(tx, pair.supervisor.id)).place == ""


async def test_days_that_differ_are_added_and_removed(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    form = inputs(ana.page, "/hours/exceptions")
    await ana.post("/hours/exceptions", form | {"first_on": "2026-12-24", "last_on": "2027-01-06", "yearly": "yes"})
    await ana.follow()
    extra = {"kind": "extra_hours", "first_on": "2026-12-05", "starts": "09:00", "ends": "12:00"}
    await ana.post("/hours/exceptions", inputs(ana.page, "/hours/exceptions") | extra)
    await ana.follow()
    assert card(ana.page, "except")[1:3] == [
        "05/12/2026, 09:00–12:00 horário extra Remover 05/12/2026",
        "24/12/2026 – 06/01/2027 ausência, todo ano Remover 24/12/2026",
    ]
    async with database.transaction() as tx:
        found = (await availability.load(tx, pair.supervisor.id)).exceptions
    assert [(one.kind, one.first_on, one.last_on, one.starts, one.ends, one.yearly) for one in found] == [
        (Exceptional.EXTRA_HOURS, date(2026, 12, 5), date(2026, 12, 5), time(9), time(12), False),
        (Exceptional.TIME_OFF, date(2026, 12, 24), date(2027, 1, 6), None, None, True),
    ]
    path = f"/hours/exceptions/{found[0].id}/remove"
    await ana.post(path, inputs(ana.page, path))
    async with database.transaction() as tx:
        left = (await availability.load(tx, pair.supervisor.id)).exceptions
    assert [one.id for one in left] == [found[1].id]


async def test_extra_hours_without_times_are_refused_and_stay_typed(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    typed = {"kind": "extra_hours", "first_on": "2026-12-05"}
    assert (await ana.post("/hours/exceptions", inputs(ana.page, "/hours/exceptions") | typed)).status == 422
    again = inputs(ana.page, "/hours/exceptions")
    assert (again["kind"], again["first_on"]) == ("extra_hours", "2026-12-05")


async def test_public_holidays_are_chosen_by_country_and_then_by_state(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    assert 'name="subdivision"' not in ana.page
    await ana.post("/hours/holidays", inputs(ana.page, "/hours/holidays") | {"country": "BR"})
    await ana.follow()
    assert "Os próximos: sex., 25/12; sex., 01/01;" in " ".join(ana.page.split())
    await ana.post("/hours/holidays", inputs(ana.page, "/hours/holidays") | {"subdivision": "SP"})
    async with database.transaction() as tx:
        rules = await availability.load(tx, pair.supervisor.id)
    assert (rules.country, rules.subdivision) == ("BR", "SP")
    await ana.follow()
    await ana.post("/hours/holidays", inputs(ana.page, "/hours/holidays") | {"country": "PT"})
    async with database.transaction() as tx:
        rules = await availability.load(tx, pair.supervisor.id)
    assert (rules.country, rules.subdivision) == ("PT", None)


async def test_a_supervisor_without_hours_begins_with_the_usual_rules(
    database: Database, now: datetime, open_browser: Open
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    browser = await open_browser(ana)
    await browser.get("/hours")
    assert "Você ainda não tem horários: ninguém pode marcar até você escrever alguns." in browser.page
    await browser.post("/hours", inputs(browser.page, "/hours") | {"day2": "10-12"})
    async with database.transaction() as tx:
        rules = await availability.load(tx, ana.id)
    assert rules.hours == (WeeklyRange(2, time(10), time(12)),)


@pytest.mark.parametrize("path", ["/hours", "/away"])
async def test_a_supervisee_has_no_hours_to_settle(
    database: Database, now: datetime, open_browser: Open, path: str
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    assert (await bruno.get(path)).status == 403
    assert (await bruno.post(path, {"first": "2026-12-20"})).status == 403


# ---- agreements of a pair


async def test_both_read_the_agreements_and_the_supervisor_changes_them(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    path = f"/pairs/{pair.id}/settings"
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    await ana.get(path)
    answer = await ana.post(path, inputs(ana.page, path) | {"lengths": "50, 1 h 30", "approval": "automatic"})
    assert answer.status == 422
    assert inputs(ana.page, path)["lengths"] == "50, 1 h 30"
    answer = await ana.post(path, inputs(ana.page, path) | {"lengths": "50, 90 min"})
    assert answer.headers["Location"] == f"{path}?done=saved"
    await bruno.get(path)
    assert card(bruno.page, "this")[:6] == [
        "Agreements with Ana",
        "Ana settles this; both of you can read it.",
        "When somebody books",
        "It is confirmed at once",
        "Length",
        "50 minutes, 90 minutes",
    ]
    assert "<form class" not in bruno.page
    assert (await bruno.post(path, {"lengths": "5", "approval": ""})).status == 403
    await ana.get(path)
    await ana.post(path, inputs(ana.page, path) | {"lengths": "", "approval": ""})
    await bruno.get(path)
    assert card(bruno.page, "this")[3:6:2] == ["It has to be confirmed", "50 minutes"]


async def test_a_supervisee_reads_every_rule_and_the_hours(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = acts(pair.supervisor)
    changes = {
        "hours": (
            WeeklyRange(1, time(9), time(12)),
            WeeklyRange(1, time(14), time(18)),
            WeeklyRange(3, time(8), time(9)),
        ),
        "buffer_after": 10,
        "grid": 30,
        "day_limit": 4,
        "valid_until": date(2027, 6, 30),
        "country": "BR",
        "place": "https://meet.example.org/{room}",
    }
    off = DatedException(uuid4(), Exceptional.TIME_OFF, date(2026, 12, 24), date(2027, 1, 6))
    async with database.transaction() as tx:
        await policies.set_rules(tx, ana, pair.supervisor.id, changes, now=now)
        await availability.add_exception(tx, ana, pair.supervisor.id, off, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/pairs/{pair.id}/settings")
    told = card(bruno.page, "this")
    assert told[told.index("Where") + 1] == "Online Each appointment or series has a link of its own."
    assert told[told.index("Starts every") :] == [
        "Starts every",
        "30 minutes",
        "Kept free before",
        "0 minutes",
        "Kept free after",
        "10 minutes",
        "Most appointments a day",
        "4",
        "Most appointments a week",
        "no limit",
    ]
    assert card(bruno.page, "hours") == [
        "Hours of Ana",
        "To read only. Times of Sao Paulo.",
        "Tuesday",
        "09:00–12:00, 14:00–18:00",
        "Thursday",
        "08:00–09:00",
        "Until (inclusive)",
        "30 Jun 2027",
        "24 Dec 2026 – 6 Jan 2027 time off",
        "Fri 25 Dec; Fri 1 Jan; Fri 26 Mar 2027; Wed 21 Apr 2027",
    ]
    browser = await open_browser(pair.supervisor)
    await browser.get(f"/pairs/{pair.id}/settings")
    assert card(browser.page, "hours") == []


async def test_agreements_of_others_are_not_found(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    edu = await add_person(database, "Edu", ["supervisor", "supervisee"], now=now)
    browser = await open_browser(edu)
    await browser.get("/supervisor")
    path = f"/pairs/{pair.id}/settings"
    assert (await browser.get(path)).status == 404
    assert (await browser.post(path, {"lengths": "50"})).status == 404
    assert (await browser.get("/pairs/x/settings")).status == 404


async def test_a_supervisee_chooses_the_length(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await policies.set_pair(
            tx, acts(pair.supervisor), pair.id, lengths=[50, 90], approval=Approval.AUTOMATIC, now=now
        )
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    assert "With Ana: pressing a time books it at once." in bruno.page
    await bruno.get(f"/appointments?pair={pair.id}&length=90")
    slot = "2026-11-24T13:00:00Z/2026-11-24T14:30:00Z"
    assert slot in bruno.slots()
    answer = await bruno.post("/appointments", bruno.fields("/appointments") | {"slot": slot})
    assert answer.headers["Location"] == "/appointments?done=booked"
    assert await stored(database) == [("confirmed", TEN)]


# ---- booking on behalf, and series


async def test_a_supervisor_books_for_a_supervisee_at_a_free_time(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get(f"/book?pair={pair.id}")
    slot = "2026-11-24T13:00:00Z/2026-11-24T13:50:00Z"
    answers = [await ana.post("/book", inputs(ana.page, "/book") | {"slot": slot}) for _ in range(2)]
    assert {answer.headers["Location"] for answer in answers} == {"/supervisor?done=booked_for"}
    assert await stored(database) == [("confirmed", TEN)]


async def test_a_supervisor_books_outside_her_hours(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get(f"/book?pair={pair.id}")
    typed = {"day": "2026-11-28", "clock": "07:30"}
    answer = await ana.post("/book", inputs(ana.page, "/book") | typed)
    assert answer.headers["Location"] == "/supervisor?done=booked_for"
    assert await stored(database) == [("confirmed", datetime(2026, 11, 28, 10, 30, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        ({}, 422, "Escolha um horário. Nada foi alterado."),
        ({"day": "2026-11-20", "clock": "10:00"}, 403, "Esse horário já passou. Nada foi alterado."),
        ({"day": "2026-11-28", "clock": ""}, 422, "Falta uma hora, como 14:30. Nada foi alterado."),
        ({"day": "x", "clock": "10:00"}, 422, "Falta um dia, como 24/11/2026. Nada foi alterado."),
        ({"day": "31/02/2026", "clock": "10:00"}, 422, "31/02/2026 não existe no calendário. Nada foi alterado."),
        ({"day": "2026-02-31", "clock": "10:00"}, 422, "31/02/2026 não existe no calendário. Nada foi alterado."),
        (
            {"day": "2026-11-28", "clock": "10:00", "repeat": "", "count": "5"},
            422,
            "Diga também com que frequência se repete. Nada foi marcado.",
        ),
        (
            {"day": "2026-11-28", "clock": "10:00", "repeat": "weekly"},
            422,
            "Diga quantas, ou até quando: um dos dois. Nada foi marcado.",
        ),
        (
            {"day": "2026-11-28", "clock": "10:00", "repeat": "weekly", "count": "3", "until": "2026-12-28"},
            422,
            "Diga quantas, ou até quando: um dos dois. Nada foi marcado.",
        ),
    ],
)
async def test_a_booking_that_makes_no_sense_stays_typed(
    database: Database, now: datetime, open_browser: Open, typed: dict[str, str], status: int, said: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get(f"/book?pair={pair.id}")
    assert (await ana.post("/book", inputs(ana.page, "/book") | typed)).status == status
    assert said in ana.page
    again = inputs(ana.page, "/book")
    assert {name: again[name] for name in typed} == typed
    assert await stored(database) == []


async def test_nobody_books_for_another_s_supervisee(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    other = await add_pair(database, now=now, supervisor=await add_person(database, "Eva", ["supervisor"], now=now))
    eva = await open_browser(other.supervisor)
    await eva.get(f"/book?pair={pair.id}")
    assert inputs(eva.page, "/book")["pair_id"] == str(other.id)
    typed = {"pair_id": str(pair.id), "day": "2026-11-28", "clock": "10:00"}
    assert (await eva.post("/book", inputs(eva.page, "/book") | typed)).status == 404
    assert await stored(database) == []


async def test_a_supervisee_books_a_series_and_sees_what_was_left_out(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    await booked(database, pair, TEN + WEEK, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/book?pair={pair.id}&repeat=weekly")
    slot = "2026-11-24T13:00:00Z/2026-11-24T13:50:00Z"
    form = inputs(bruno.page, "/book") | {"slot": slot, "count": "3"}
    assert form["repeat"] == "weekly"
    assert (await bruno.post("/book", form)).status == 409
    assert "Tue 1 Dec, 13:00" in bruno.page
    assert await stored(database) == [("confirmed", TEN + WEEK)]
    again = inputs(bruno.page, "/book")
    assert (again["slot"], again["count"]) == (slot, "3")
    answer = await bruno.post("/book", again | {"skip": "yes"})
    assert re.fullmatch(r"/series/[0-9a-f-]{36}\?done=series", answer.headers["Location"])
    await bruno.follow()
    assert card(bruno.page, "this")[:2] == ["Series with Ana", "2 appointments were booked."]
    assert card(bruno.page, "left") == ["Left out", "Tue 1 Dec, 13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)"]
    assert await stored(database) == [
        ("requested", TEN),
        ("confirmed", TEN + WEEK),
        ("requested", TEN + 2 * WEEK),
    ]


async def book_series(database: Database, pair: Pair, now: datetime, count: int = 3) -> list[Appointment]:
    async with database.transaction() as tx:
        done = await series.book(
            tx, acts(pair.supervisee), pair, TEN, f"FREQ=WEEKLY;COUNT={count}", skip=False, now=now
        )
        return done.booked


async def test_a_series_is_one_question_and_answered_as_one(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/supervisor")
    assert card(ana.page, "requests")[0] == "1 pedido espera por você"
    assert "3 supervisões de uma série" in ana.page
    await ana.get(f"/appointments/{first.id}")
    path = f"/appointments/{first.id}/confirm"
    form = inputs(ana.page, path)
    assert form["scope"] == "all"
    await ana.post(path, form)
    assert [status for status, _ in await stored(database)] == ["confirmed"] * 3


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ("one", ["requested", "cancelled", "requested"]),
        ("following", ["requested", "cancelled", "cancelled"]),
        ("all", ["cancelled"] * 3),
        ("nonsense", ["requested", "cancelled", "requested"]),
    ],
)
async def test_as_many_of_a_series_are_cancelled_as_were_chosen(
    database: Database, now: datetime, open_browser: Open, scope: str, left: list[str]
) -> None:
    pair = await add_pair(database, now=now)
    _, second, _ = await book_series(database, pair, now)
    bruno = await open_browser(pair.supervisee)
    path = f"/appointments/{second.id}/cancel"
    await bruno.get(path)
    form = inputs(bruno.page, path)
    assert form["scope"] == "one"
    await bruno.post(path, form | {"scope": scope})
    assert [status for status, _ in await stored(database)] == left


async def test_a_series_is_moved_and_what_clashes_stays(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now)
    await booked(database, pair, TEN + WEEK + HOUR, now)
    bruno = await open_browser(pair.supervisee)
    path = f"/appointments/{first.id}/reschedule"
    await bruno.get(f"{path}?scope=all")
    form = bruno.fields(path) | {"scope": "all", "slot": "2026-11-24T14:00:00Z/2026-11-24T14:50:00Z"}
    assert (await bruno.post(path, form)).status == 409
    answer = await bruno.post(path, bruno.fields(path) | form | {"skip": "yes"})
    assert answer.headers["Location"] == f"/series/{first.series_id}?done=series_moved_some"
    assert await stored(database) == [
        ("requested", TEN + HOUR),
        ("requested", TEN + WEEK),
        ("confirmed", TEN + WEEK + HOUR),
        ("requested", TEN + 2 * WEEK + HOUR),
    ]


async def test_a_series_of_others_is_not_found(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now)
    edu = await open_browser(await add_person(database, "Edu", ["supervisee"], now=now))
    assert (await edu.get(f"/series/{first.series_id}")).status == 404


# ---- time off


async def look_away(browser: Browser, first: str, last: str) -> dict[str, str]:
    """See what falls in those days; gives the form that takes them off."""
    await browser.get(f"/away?first={first}&last={last}")
    return off_form(browser.page)


def off_form(page: str) -> dict[str, str]:
    """Not the form that asks for the days, which goes to the same address."""
    return inputs(page[page.index('<form class="fields" method="post"') :], "/away")


@pytest.mark.parametrize("then", ["cancel", "propose"])
async def test_time_off_settles_what_falls_in_it_in_one_press(
    database: Database, now: datetime, open_browser: Open, then: str
) -> None:
    pair = await add_pair(database, now=now)
    inside = await booked(database, pair, TEN, now)
    await booked(database, pair, TEN + 3 * timedelta(days=1), now)
    ana = await open_browser(pair.supervisor)
    form = await look_away(ana, "2026-11-24", "2026-11-25")
    assert card(ana.page, "affected")[:1] == ["1 supervisão cai nesses dias"]
    answer = await ana.post("/away", form | {"then": then})
    assert answer.headers["Location"] == "/supervisor?done=away"
    async with database.transaction() as tx:
        one = await appointments.get(tx, acts(pair.supervisor), inside.id)
        off = (await availability.load(tx, pair.supervisor.id)).exceptions
    assert [(day.first_on, day.last_on) for day in off] == [(date(2026, 11, 24), date(2026, 11, 25))]
    if then == "cancel":
        assert (one.status, one.proposal) == (Status.CANCELLED, None)
    else:
        assert one.status is Status.CONFIRMED
        assert one.proposal is not None
        assert one.proposal.starts_at == TEN + WEEK


async def test_time_off_over_what_changed_meanwhile_is_refused_and_shown_anew(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    form = await look_away(ana, "2026-11-24", "2026-11-25")
    assert card(ana.page, "affected")[:1] == ["Nada marcado nesses dias"]
    await booked(database, pair, TEN, now)
    assert (await ana.post("/away", form)).status == 412
    assert "Isto mudou enquanto você olhava." in ana.page
    assert card(ana.page, "affected")[:1] == ["1 supervisão cai nesses dias"]
    assert await stored(database) == [("confirmed", TEN)]
    answer = await ana.post("/away", off_form(ana.page) | {"then": "cancel"})
    assert answer.headers["Location"] == "/supervisor?done=away"
    assert await stored(database) == [("cancelled", TEN)]


@pytest.mark.parametrize("query", ["first=x", "first=2026-12-10&last=2026-12-01", "first=0001-01-01&last=9999-12-31"])
async def test_days_off_that_make_no_sense_are_told(
    database: Database, now: datetime, open_browser: Open, query: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    assert (await ana.get(f"/away?{query}")).status in (200, 422)
    assert 'role="alert"' in ana.page
    assert 'method="post" action="/away"' not in ana.page


async def test_a_day_that_does_not_exist_is_named_as_the_reader_writes_it(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    for typed in ("2027-02-31", "31/2/2027", "31.02.2027"):
        assert (await ana.get(f"/away?first={typed}")).status == 422
        assert "31/02/2027 não existe no calendário. Nada foi alterado." in ana.page
    form = await look_away(ana, "24/12/2026", "6.1.2027")
    assert (form["first"], form["last"]) == ("2026-12-24", "2027-01-06")


@pytest.mark.parametrize("expected", ["x", "a:b", "1:2:3", "0" * 3000])
async def test_an_expectation_that_makes_no_sense_changes_nothing(
    database: Database, now: datetime, open_browser: Open, expected: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    form = await look_away(ana, "2026-11-24", "2026-11-25")
    assert (await ana.post("/away", form | {"expected": expected})).status == 422
    async with database.transaction() as tx:
        assert (await availability.load(tx, pair.supervisor.id)).exceptions == ()


# ---- the waiting list


async def test_a_supervisee_waits_for_a_full_day_and_takes_what_becomes_free(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    await full_day(database, pair, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    assert bruno.page.count("Nothing free") == 1
    answer = await bruno.post("/waits", bruno.fields("/appointments") | {"day": "2026-11-24"})
    assert answer.headers["Location"] == "/appointments?done=waiting"
    async with database.transaction() as tx:
        [freed] = [
            appointments.from_row(row)
            for row in await tx.execute(select(*appointments.COLUMNS).where(table.c.starts_at == TEN))
        ]
        await appointments.cancel(tx, acts(pair.supervisor), freed.id, now=now)
    async with database.transaction() as tx:
        await waits.offer_freed(tx, now)
        [wait] = await waits.list_of(tx, pair.id)
    await bruno.get("/appointments")
    assert card(bruno.page, "offers")[0] == "1 time is kept for you"
    path = f"/waits/{wait.id}/accept"
    answer = await bruno.post(path, bruno.fields(path))
    assert answer.headers["Location"] == "/appointments?done=requested"
    assert ("requested", TEN) in await stored(database)


async def test_an_offer_is_let_go_and_the_waiting_goes_on_until_it_is_left(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    await full_day(database, pair, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    await bruno.post("/waits", bruno.fields("/appointments") | {"day": "2026-11-24"})
    async with database.transaction() as tx:
        rows = await tx.execute(select(table.c.id).where(table.c.starts_at == TEN))
        await appointments.cancel(tx, acts(pair.supervisor), rows.scalar_one(), now=now)
    async with database.transaction() as tx:
        await waits.offer_freed(tx, now)
        [wait] = await waits.list_of(tx, pair.id)
    await bruno.get("/appointments")
    fields = bruno.fields(f"/waits/{wait.id}/accept")
    answer = await bruno.post(f"/waits/{wait.id}/pass", fields)
    assert answer.headers["Location"] == "/appointments?done=passed"
    assert (await bruno.post(f"/waits/{wait.id}/accept", fields)).status == 409
    await bruno.get("/appointments")
    assert card(bruno.page, "offers") == []
    path = f"/waits/{wait.id}/leave"
    await bruno.post(path, bruno.fields(path))
    async with database.transaction() as tx:
        assert await waits.list_of(tx, pair.id) == []


async def test_nobody_waits_where_something_is_free_nor_answers_for_another(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    fields = bruno.fields("/appointments")
    assert (await bruno.post("/waits", fields | {"day": "2026-11-24"})).status == 422
    assert (await bruno.post("/waits", fields | {"day": "x"})).status == 422
    assert (await bruno.post("/waits", fields | {"pair_id": "x", "day": "2026-11-24"})).status == 404
    await full_day(database, pair, now)
    async with database.transaction() as tx:
        day = (TEN - 10 * HOUR, TEN + 14 * HOUR)
        wait = await waits.join(tx, acts(pair.supervisee), pair, [day], now=now)
    edu = await open_browser(await add_person(database, "Edu", ["supervisee"], now=now))
    await edu.get("/appointments")
    for action in ("accept", "pass", "leave"):
        starts = {"starts_at": "2026-11-24T13:00:00Z"}
        assert (await edu.post(f"/waits/{wait.id}/{action}", starts)).status == 404


async def test_a_proposal_into_a_series_shows_on_both_sides(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), first.id, TEN + HOUR, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/series/{first.series_id}")
    assert card(bruno.page, "this")[2] == (
        "Tue 24 Nov, 13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo) ◌ requested ⇄ new time proposed"
        " → new time proposed: Tue 24 Nov, 14:00–14:50 (Lisbon; 11:00–11:50 in Sao Paulo)"
    )


async def test_a_series_that_is_proposed_to_move_is_one_question_too(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now)
    supervisor = acts(pair.supervisor)
    async with database.transaction() as tx:
        await groups.confirm(tx, supervisor, first.id, Scope.ALL, now=now)
        await shifts.reschedule(tx, supervisor, first.id, TEN + HOUR, Scope.ALL, skip=False, now=now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get("/appointments")
    assert card(bruno.page, "asks")[0] == "1 proposal waits for you"
    link = f"/appointments/{first.id}?scope=all"
    assert link in bruno.page
    await bruno.get(link)
    path = f"/appointments/{first.id}/accept"
    form = inputs(bruno.page, path)
    assert form["scope"] == "all"
    answer = await bruno.post(path, form)
    assert answer.headers["Location"] == "/appointments?done=accepted"
    assert await stored(database) == [("confirmed", TEN + weeks * WEEK + HOUR) for weeks in range(3)]


async def test_a_proposed_series_is_taken_back_as_one(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now)
    supervisor = acts(pair.supervisor)
    async with database.transaction() as tx:
        await groups.confirm(tx, supervisor, first.id, Scope.ALL, now=now)
        await shifts.reschedule(tx, supervisor, first.id, TEN + HOUR, Scope.ALL, skip=False, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get(f"/appointments/{first.id}?scope=all")
    path = f"/appointments/{first.id}/withdraw"
    await ana.post(path, inputs(ana.page, path))
    async with database.transaction() as tx:
        found = await series.occurrences(tx, first.series_id) if first.series_id else []
    assert [(one.starts_at, one.proposal) for one in found] == [(TEN + weeks * WEEK, None) for weeks in range(3)]


async def propose_all(database: Database, pair: Pair, now: datetime) -> list[Appointment]:
    """Three confirmed weeks, and the supervisor proposes each an hour later."""
    found = await book_series(database, pair, now)
    async with database.transaction() as tx:
        await groups.confirm(tx, acts(pair.supervisor), found[0].id, Scope.ALL, now=now)
        await shifts.reschedule(tx, acts(pair.supervisor), found[0].id, TEN + HOUR, Scope.ALL, skip=False, now=now)
    return found


DAYS = ("Tue 24 Nov", "Tue 1 Dec", "Tue 8 Dec")


async def test_each_proposed_time_of_a_series_is_shown_before_it_is_accepted(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await propose_all(database, pair, now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    arrows = [f"→ new time proposed: {day}, 14:00–14:50 (Lisbon; 11:00–11:50 in Sao Paulo)" for day in DAYS]
    for path in (f"/series/{first.series_id}", f"/appointments/{first.id}?scope=all"):
        await bruno.get(path)
        assert shown(bruno.page, "→") == arrows
    await ana.get("/away?first=2026-11-24&last=2026-11-24")
    assert shown(ana.page, "→") == [
        "→ novo horário proposto: ter., 24/11, 11:00–11:50 (São Paulo; 14:00–14:50 em Lisboa)"
    ]


def shown(page: str, begin: str) -> list[str]:
    """The paragraphs that begin so."""
    texts = [
        " ".join(unescape(re.sub(r"<[^>]+>", "", one)).split()) for one in re.findall(r"<p[ >].*?</p>", page, re.S)
    ]
    return [text for text in texts if text.startswith(begin)]


@pytest.mark.parametrize("answer", ["accept", "refuse"])
async def test_a_proposal_that_came_after_the_page_is_not_answered_with_the_others(
    database: Database, now: datetime, open_browser: Open, answer: str
) -> None:
    pair = await add_pair(database, now=now)
    first, second, third = await propose_all(database, pair, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/appointments/{first.id}?scope=all")
    form = inputs(bruno.page, f"/appointments/{first.id}/accept")
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), second.id, TEN + WEEK + 3 * HOUR, now=now)
    sent = await bruno.post(f"/appointments/{first.id}/{answer}", form)
    assert sent.status == 303
    async with database.transaction() as tx:
        found = await series.occurrences(tx, first.series_id) if first.series_id else []
    shift = HOUR if answer == "accept" else 0 * HOUR
    assert [(one.starts_at, one.proposal and one.proposal.starts_at) for one in found] == [
        (TEN + shift, None),
        (TEN + WEEK, TEN + WEEK + 3 * HOUR),
        (TEN + 2 * WEEK + shift, None),
    ]
    assert third.series_id == first.series_id


@pytest.mark.parametrize(("answer", "word"), [("confirm", "confirmed"), ("decline", "declined")])
async def test_a_request_that_changed_after_the_page_is_not_answered_with_the_others(
    database: Database, now: datetime, open_browser: Open, answer: str, word: str
) -> None:
    pair = await add_pair(database, now=now)
    first, second, _ = await book_series(database, pair, now)
    ana = await open_browser(pair.supervisor)
    await ana.get(f"/appointments/{first.id}")
    assert len(shown(ana.page, "ter., ")) == 3
    form = inputs(ana.page, f"/appointments/{first.id}/confirm")
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisee), second.id, TEN + WEEK + HOUR, now=now)
    await ana.post(f"/appointments/{first.id}/{answer}", form)
    assert await stored(database) == [(word, TEN), ("requested", TEN + WEEK + HOUR), (word, TEN + 2 * WEEK)]


@pytest.mark.parametrize("act", ["cancel", "reschedule"])
async def test_of_several_only_those_change_that_the_page_showed_as_they_are(
    database: Database, now: datetime, open_browser: Open, act: str
) -> None:
    pair = await add_pair(database, now=now)
    first, second, _ = await book_series(database, pair, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/appointments/{first.id}/{act}?scope=all")
    path = f"/appointments/{first.id}/{act}"
    times = [f"Tue {day}, 13:00–13:50 (Lisbon; 10:00–10:50 in Sao Paulo)" for day in ("24 Nov", "1 Dec", "8 Dec")]
    assert shown(bruno.page, "Tue ")[-3:] == times
    form = inputs(bruno.page, path)
    assert form["scope"] == "all"
    async with database.transaction() as tx:
        await groups.confirm(tx, acts(pair.supervisor), second.id, Scope.ONE, now=now)
    answer = await bruno.post(path, form | {"slot": "2026-11-24T14:00:00Z/2026-11-24T14:50:00Z"})
    assert answer.status == 303
    word, shift = ("cancelled", 0 * HOUR) if act == "cancel" else ("requested", HOUR)
    assert await stored(database) == [(word, TEN + shift), ("confirmed", TEN + WEEK), (word, TEN + 2 * WEEK + shift)]
    again = await bruno.post(path, form | {"slot": "2026-11-24T15:00:00Z/2026-11-24T15:50:00Z"})
    assert again.status == 412


@pytest.mark.parametrize(("count", "folded"), [(5, False), (6, True)])
async def test_many_times_of_a_series_do_not_stand_before_what_is_to_be_done(
    database: Database, now: datetime, open_browser: Open, count: int, folded: bool
) -> None:
    """Whoever moves one of half a year's would see no free time on a phone."""
    pair = await add_pair(database, now=now)
    first, *_ = await book_series(database, pair, now, count)
    bruno = await open_browser(pair.supervisee)
    for act in ("cancel", "reschedule"):
        await bruno.get(f"/appointments/{first.id}/{act}")
        assert ("<summary>If you choose more than one, only these change" in bruno.page) is folded
        assert len([one for one in shown(bruno.page, "Tue ") if "13:00–13:50" in one]) >= count


@pytest.mark.parametrize("field", ["seen", "proposals"])
async def test_what_a_page_cannot_have_shown_changes_nothing(
    database: Database, now: datetime, open_browser: Open, field: str
) -> None:
    pair = await add_pair(database, now=now)
    first, *_ = await propose_all(database, pair, now)
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/appointments/{first.id}?scope=all")
    act = "accept" if field == "proposals" else "decline"
    form = inputs(bruno.page, f"/appointments/{first.id}/accept") | {field: "x"}
    assert (await bruno.post(f"/appointments/{first.id}/{act}", form)).status == 422
    assert await stored(database) == [("confirmed", TEN + weeks * WEEK) for weeks in range(3)]


@pytest.mark.parametrize("then", ["", "nonsense"])
async def test_time_off_without_a_choice_changes_nothing(
    database: Database, now: datetime, open_browser: Open, then: str
) -> None:
    pair = await add_pair(database, now=now)
    await booked(database, pair, TEN, now)
    ana = await open_browser(pair.supervisor)
    form = await look_away(ana, "2026-11-24", "2026-11-25")
    assert (await ana.post("/away", form | {"then": then})).status == 422
    assert "Escolha o que fazer com as supervisões desses dias. Nada foi alterado." in ana.page
    del form["then"]
    assert (await ana.post("/away", form)).status == 422
    assert await stored(database) == [("confirmed", TEN)]
    async with database.transaction() as tx:
        assert (await availability.load(tx, pair.supervisor.id)).exceptions == ()

"""An appointment's page tells both what their calendars answered."""

from datetime import datetime

from supervision import appointments, attendances
from supervision.appointments import Appointment
from supervision.attendances import Response
from supervision.audit import Actor
from supervision.db import Database
from supervision.models import Attendance
from supervision.people import Person
from tests.support.sample import acts, add_pair
from tests.web.conftest import Open
from tests.web.test_dashboard import TEN, book, card, confirm


async def answer(
    database: Database, person: Person, one: Appointment, said: Attendance, now: datetime, sequence: int = 1
) -> None:
    async with database.transaction() as tx:
        response = Response(one.id, sequence, now, said)
        await attendances.respond(tx, Actor(person.id, "calendar"), response, now=now)


async def test_both_see_what_calendars_answered(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    one = await confirm(database, pair, await book(database, pair, TEN, now), now)
    await answer(database, pair.supervisor, one, Attendance.ACCEPTED, now)
    await answer(database, pair.supervisee, one, Attendance.DECLINED, now)
    ana, bruno = [await open_browser(person) for person in pair.people]
    for browser in (ana, bruno):
        await browser.get(f"/appointments/{one.id}")
    assert [line for line in card(ana.page, "this") if "calendário" in line] == [
        "Bruno recusou no calendário; a supervisão vale até alguém cancelar.",
        "Você aceitou no seu calendário.",
    ]
    assert [line for line in card(bruno.page, "this") if "calendar" in line] == [
        "Ana accepted in their calendar.",
        "You declined in your calendar; the appointment stands until somebody cancels it.",
    ]


async def test_an_answer_to_what_was_before_is_not_shown(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    one = await book(database, pair, TEN, now)
    await answer(database, pair.supervisor, one, Attendance.TENTATIVE, now, sequence=0)
    async with database.transaction() as tx:
        assert await attendances.of(tx, one) == {pair.supervisor.id: Attendance.TENTATIVE}
        after = await appointments.confirm(tx, acts(pair.supervisor), one.id, now=now)
        assert await attendances.of(tx, after) == {}
    bruno = await open_browser(pair.supervisee)
    await bruno.get(f"/appointments/{one.id}")
    assert [line for line in card(bruno.page, "this") if "calendar" in line] == []

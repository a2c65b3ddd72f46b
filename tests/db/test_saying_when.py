"""What the bot makes of a time that people say: it books, refuses, or asks back with a list to answer."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from bot.answers import answer
from bot.commands import parse
from bot.replies import Reply
from bot.talks import Talk
from supervision.db import Database
from supervision.errors import NotUnderstood, Refused, SlotTaken, TooLate
from supervision.hours import WeeklyRange
from supervision.models import Question
from supervision.pairs import Pair
from supervision.people import Person
from supervision.texts import reader
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person

DAY_AND_NIGHT = replace(OPEN_HOURS, hours=tuple(WeeklyRange(day, time(0), time(23, 59)) for day in range(7)))


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    """Ana, booked from 9 to 18 on working days, and Bruno; both in São Paulo, he reads English."""
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    return await add_pair(database, now=now, supervisee=bruno)


async def hear(database: Database, pair: Pair, text: str, now: datetime, who: Person | None = None) -> Reply:
    person = who or pair.supervisee
    command = parse(text)
    assert command is not None
    async with database.transaction() as tx:
        return await answer(Talk(tx, pair, person, acts(person), now, "http://localhost"), command)


def said(pair: Pair, reply: Reply, who: Person | None = None) -> list[str]:
    person = who or pair.supervisee
    return [reader(person.language, person.time_zone).say(line.key, **line.params) for line in reply.lines]


def offered(reply: Reply) -> list[str]:
    """The starts that the list's numbers stand for, in UTC."""
    assert reply.ask is not None
    assert (reply.ask.kind, reply.ask.tappable) == (Question.PICK_SLOT, True)
    return [f"{at.astimezone(UTC):%d/%m %H:%M}" for at in reply.ask.slots]


@pytest.mark.parametrize("text", ["ter 10h", "tue at 10", "24/11 10:00-10:50", "Tue 24 Nov, 10:00–10:50"])
async def test_one_time_books(database: Database, pair: Pair, now: datetime, text: str) -> None:
    reply = await hear(database, pair, f"!book {text}", now)
    assert said(pair, reply) == [
        "Request sent: Tue 24 Nov, 10:00–10:50 (Sao Paulo). Ana has to confirm by Tue 24 Nov, 10:00."
    ]


async def test_a_day_gives_all_its_times(database: Database, pair: Pair, now: datetime) -> None:
    reply = await hear(database, pair, "!book ter", now)
    assert offered(reply) == [f"24/11 {hour}:00" for hour in range(12, 21)]
    assert offered(await hear(database, pair, "!slots tuesday", now)) == offered(reply)
    assert offered(await hear(database, pair, "!book ter à tarde", now)) == offered(reply)[3:]
    assert offered(await hear(database, pair, "!book ter 14h-16h", now)) == ["24/11 17:00", "24/11 18:00"]


async def test_a_time_gives_its_days(database: Database, pair: Pair, now: datetime) -> None:
    reply = await hear(database, pair, "!book 10h", now)
    days = ["23/11", "24/11", "25/11", "26/11", "27/11", "30/11", "01/12", "02/12", "03/12", "04/12"]
    assert offered(reply) == [f"{day} 13:00" for day in days]
    assert said(pair, reply)[-1] == "There are more; name the hour too, for example tue 15:00."
    assert offered(await hear(database, pair, "!slots 10h", now)) == offered(reply)


async def test_two_days_are_asked_back(database: Database, pair: Pair, now: datetime) -> None:
    assert offered(await hear(database, pair, "!book next tue 2pm", now)) == ["24/11 17:00", "01/12 17:00"]
    both = offered(await hear(database, pair, "!book next tue", now))
    assert both == [f"{day} {hour}:00" for day in ("24/11", "01/12") for hour in (12, 14, 16, 18, 20)]


async def test_two_days_are_asked_back_although_one_is_taken(database: Database, pair: Pair, now: datetime) -> None:
    await hear(database, pair, "!book 24/11 14:00", now)
    assert offered(await hear(database, pair, "!book next tue 2pm", now)) == ["01/12 17:00"]


async def test_both_halves_of_the_day_are_asked_back_where_both_are_offered(database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    pair = await add_pair(database, now=now, supervisee=bruno, rules=DAY_AND_NIGHT)
    assert offered(await hear(database, pair, "!book ter às 3", now)) == ["24/11 06:00", "24/11 18:00"]
    await hear(database, pair, "!book ter 15:00", now)
    assert offered(await hear(database, pair, "!book ter às 3", now)) == ["24/11 06:00"]


async def test_a_taken_time_is_refused_with_others_of_its_day(database: Database, pair: Pair, now: datetime) -> None:
    await hear(database, pair, "!book ter 10h", now)
    with pytest.raises(SlotTaken):
        await hear(database, pair, "!book ter às 10", now)


async def test_where_nothing_is_free_the_next_times_are_offered(database: Database, pair: Pair, now: datetime) -> None:
    reply = await hear(database, pair, "!book sábado", now)
    assert said(pair, reply)[:2] == [
        "Nothing is free then. These are the next free times:",
        "Free with Ana (Sao Paulo)",
    ]
    assert offered(reply)[:3] == ["30/11 12:00", "30/11 16:00", "30/11 20:00"]
    far = await hear(database, pair, "!book 24/11/2027", now)
    assert offered(far)[:3] == ["23/11 13:00", "23/11 17:00", "23/11 20:00"]


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        ("!book 11/24", NotUnderstood, "book.day_first"),
        ("!book 31/02 10:00", NotUnderstood, "book.no_such_time"),
        ("!book ter 25/11", NotUnderstood, "book.weekday_differs"),
        ("!book hoje 08:00", TooLate, "refused.slot_past"),
        ("!slots 22/11/2026", TooLate, "refused.slot_past"),
    ],
)
async def test_what_cannot_be_is_refused(
    database: Database, pair: Pair, now: datetime, text: str, kind: type[Refused], key: str
) -> None:
    with pytest.raises(kind) as refused:
        await hear(database, pair, text, now)
    assert refused.value.key == key


async def test_a_time_that_is_not_offered_is_answered_with_the_nearest(
    database: Database, pair: Pair, now: datetime
) -> None:
    reply = await hear(database, pair, "!book ter às 7", now)
    assert said(pair, reply)[0] == "That time is not offered. The nearest on that day:"
    assert offered(reply) == ["24/11 12:00", "24/11 13:00", "24/11 14:00", "24/11 15:00"]
    halves = await hear(database, pair, "!book ter 10h30", now)
    assert offered(halves) == ["24/11 12:00", "24/11 13:00", "24/11 14:00", "24/11 15:00"]
    weekend = await hear(database, pair, "!book 28/11 10:00", now)
    assert said(pair, weekend)[0] == "That time is not offered. The nearest free ones:"
    assert offered(weekend) == ["27/11 17:00", "27/11 18:00", "27/11 19:00", "27/11 20:00"]


async def test_a_move_is_told_its_time_in_the_same_words(database: Database, pair: Pair, now: datetime) -> None:
    await hear(database, pair, "!book ter 10h", now)
    listed = await hear(database, pair, "!remarcar 1 ter de manhã", now)
    assert offered(listed) == ["24/11 12:00", "24/11 14:00"]
    assert listed.ask is not None
    assert isinstance(listed.ask.appointment_id, uuid.UUID)
    moved = await hear(database, pair, "!reschedule 1 to wed at 3", now)
    assert said(pair, moved) == [
        "Request to move sent: from Tue 24 Nov, 10:00–10:50 (Sao Paulo) to Wed 25 Nov, 15:00–15:50 (Sao Paulo). "
        "Ana has to confirm by Wed 25 Nov, 09:00."
    ]
    again = await hear(database, pair, "!remarcar sexta meio-dia", now)
    assert said(pair, again)[0].startswith("Request to move sent: from Wed 25 Nov, 15:00")


async def test_the_supervisor_sees_what_can_be_booked(database: Database, pair: Pair, now: datetime) -> None:
    reply = await hear(database, pair, "!agendar ter de manhã", now, pair.supervisor)
    assert offered(reply) == ["24/11 12:00", "24/11 13:00", "24/11 14:00"]
    assert said(pair, reply, pair.supervisor) == [
        "Horários em que Bruno pode marcar (São Paulo)",
        *(f"{number}. ter., 24/11, {hour:02}:00–{hour:02}:50" for number, hour in ((1, 9), (2, 10), (3, 11))),
        "Responda !agendar 2 ou toque no número para marcar em nome de Bruno, que recebe o aviso e pode recusar.",
    ]


async def test_a_time_that_the_clock_shows_twice_is_asked_back(database: Database) -> None:
    """Bruno's clock in Lisbon goes back on 25 October 2026 at two; Ana's in São Paulo does not."""
    now = datetime(2026, 10, 19, 12, 0, tzinfo=UTC)
    pair = await add_pair(database, now=now, rules=replace(DAY_AND_NIGHT, length=30, grid=30, buffer_after=0))
    reply = await hear(database, pair, "!book 25/10 01:30", now)
    assert offered(reply) == ["25/10 00:30", "25/10 01:30"]
    assert said(pair, reply)[1:3] == [
        "1. Sun 25 Oct, 01:30–01:00 (before the clocks go back; Sat 24 Oct, 21:30–22:00 in Sao Paulo)",
        "2. Sun 25 Oct, 01:30–02:00 (after the clocks went back; Sat 24 Oct, 22:30–23:00 in Sao Paulo)",
    ]


async def test_a_time_that_the_clock_jumps_over_is_refused(database: Database) -> None:
    now = datetime(2027, 3, 8, 12, 0, tzinfo=UTC)
    pair = await add_pair(database, now=now, rules=DAY_AND_NIGHT)
    with pytest.raises(NotUnderstood) as refused:
        await hear(database, pair, "!book 28/03 01:30", now)
    assert refused.value.key == "book.clock_skips"

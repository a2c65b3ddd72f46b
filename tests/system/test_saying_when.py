"""A time said as people say it: what is left open is asked back, and the number of the answer books."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from supervision import policies
from supervision.audit import Actor
from supervision.models import appointments
from supervision.texts import Moments, Span, reader
from tests.support.human import Message
from tests.support.practice import Practice

WORDS = ("seg", "terça", "qua", "quinta-feira", "sex")


def working_day() -> datetime:
    """Midnight, in UTC, of the first working day after tomorrow."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
    return day + timedelta(days=max(0, 7 - day.weekday()) if day.weekday() > 4 else 0)


def saying(sentence: str) -> Callable[[Message], bool]:
    return lambda message: message.body == sentence


async def test_a_day_gives_its_list_and_a_number_books_from_it(practice: Practice) -> None:
    """Both live in one zone, where Ana can be booked from 9 to 18, so that a day is the same day to both."""
    ana = await practice.add_person("Ana", ["supervisor"], language="pt-BR", time_zone="UTC")
    supervisee = await practice.add_person("Bruno", ["supervisee"], language="en", time_zone="UTC")
    pair = await practice.add_pair(ana, supervisee)
    async with practice.database.transaction() as tx:
        # Long enough for a request to be open until it begins.
        await policies.set_rules(tx, Actor(ana.id, "web"), ana.id, {"answer": 43200}, now=datetime.now(UTC))
    room, day = pair.room_id or "", working_day()
    word = WORDS[day.weekday()]

    def slot(hour: int) -> str:
        starts_at = day + timedelta(hours=hour)
        return reader("en", "UTC").show(Span(starts_at, starts_at + timedelta(minutes=50), brief=True))

    def start(hour: int) -> str:
        return reader("en", "UTC").show(Moments((day + timedelta(hours=hour),)))

    def listed(*hours: int) -> str:
        lines = [f"{number}. {slot(hour)}" for number, hour in enumerate(hours, start=1)]
        foot = "Answer !book 2 or tap the number. Another month: !slots december."
        return "\n".join(["Free with Ana (UTC)", *lines, foot])

    said = {
        f"!book {word}": listed(*range(9, 18)),
        f"!book {word} {day:%d/%m} à tarde": listed(*range(12, 18)),
        "!book 11/24": "Dates begin with the day: 24/11 is 24 November. Nothing was changed.",
        "!book 1": f"Request sent: {slot(12)} (UTC). Ana has to confirm by {start(12)}.",
        f"!remarcar 1 {word} às 3": f"Request to move sent: from {slot(12)} (UTC) to {slot(15)} (UTC). "
        f"Ana has to confirm by {start(15)}.",
    }
    async with practice.phones(pair) as (_, bruno):
        for command, sentence in said.items():
            await bruno.ask(room, command, practice.bot, saying(sentence))
    async with practice.database.transaction() as tx:
        rows = await tx.execute(select(appointments.c.starts_at).where(appointments.c.pair_id == pair.id))
        assert [row.starts_at for row in rows] == [day + timedelta(hours=15)]

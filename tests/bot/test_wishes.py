"""When and of what people are told in the room: reminders, quiet hours, what they have turned off."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
from sqlalchemy import select, update

from supervision import appointments, moves
from supervision.audit import Actor
from supervision.db import Database
from supervision.models import Approval, Channel, State, Topic, notifications
from supervision.preferences import USUAL, Preferences
from tests.bot.conversations import Conversation, begin
from tests.support.sample import OPEN_HOURS

STARTS = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)  # Tuesday, 15:00 in São Paulo
REQUESTED = notifications.c.kind == "appointment.requested", notifications.c.channel == Channel.MATRIX
NIGHT = Preferences(quiet_from=time(22), quiet_until=time(7))


@pytest.fixture
async def room(database: Database, now: datetime) -> Conversation:
    return await begin(database, now, replace(OPEN_HOURS, approval=Approval.AUTOMATIC))


async def book(room: Conversation, starts_at: datetime = STARTS) -> appointments.Appointment:
    """All news of it heard."""
    async with room.database.transaction() as tx:
        actor = Actor(room.bruno.id, "matrix")
        booked = await appointments.book(tx, actor, room.pair, starts_at, now=room.now)
    await room.told(room.ana)
    return booked


async def states(room: Conversation, kind: str) -> list[tuple[str, str, datetime]]:
    """Of the notifications in the room: who, state, not before when."""
    names = {one.id: one.name for one in room.pair.people}
    async with room.database.transaction() as tx:
        query = select(notifications).where(notifications.c.kind == kind, notifications.c.channel == Channel.MATRIX)
        rows = await tx.execute(query.order_by(notifications.c.position))
        return [(names[row.person_id], State(row.state), row.send_at) for row in rows]


async def test_both_are_reminded_an_hour_and_a_quarter_before(room: Conversation) -> None:
    await room.settle(place="https://meet.example.org/ana")
    await book(room)
    room.now = STARTS - timedelta(minutes=60, seconds=1)
    assert (await room.told(room.ana), await room.told(room.bruno)) == ([], [])
    room.pass_time(seconds=1)
    [(text, message)] = await room.news(room.ana)
    assert text == "Em 1 hora: supervisão com Bruno, 15:00 (São Paulo). https://meet.example.org/ana"
    assert (message.mentions, message.keys, message.asked) == ((room.ana,), (), None)
    [(text, message)] = await room.news(room.bruno)
    assert text == "In 1 hour: supervision with Ana, 15:00 (Sao Paulo). https://meet.example.org/ana"
    assert message.mentions == (room.bruno,)
    room.now = STARTS - timedelta(minutes=15)
    assert [one[:13] for one in await room.told(room.ana)] == ["Em 15 minutos"]
    assert [one[:13] for one in await room.told(room.bruno)] == ["In 15 minutes"]
    room.now = STARTS
    assert (await room.told(room.ana), await room.told(room.bruno)) == ([], [])


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(days=7), "Em 7 dias: supervisão com Bruno, ter., 24/11, 15:00 (São Paulo)."),
        (timedelta(days=1, minutes=-7), "Em 1 dia: supervisão com Bruno, ter., 24/11, 15:00 (São Paulo)."),
        (timedelta(hours=4), "Em 4 horas: supervisão com Bruno, 15:00 (São Paulo)."),
        (timedelta(minutes=75), "Em 75 minutos: supervisão com Bruno, 15:00 (São Paulo)."),
        (timedelta(minutes=8, seconds=10), "Em 8 minutos: supervisão com Bruno, 15:00 (São Paulo)."),
        (timedelta(seconds=1), "Em 1 minuto: supervisão com Bruno, 15:00 (São Paulo)."),
    ],
)
async def test_a_late_reminder_says_how_long_it_is_now(room: Conversation, before: timedelta, said: str) -> None:
    room.now = STARTS - timedelta(days=8)
    await room.wish(room.ana, Preferences((), (7 * 1440,)))
    await book(room)
    room.now = STARTS - before
    assert await room.told(room.ana) == [said]


async def test_a_reminder_that_would_come_after_the_start_is_not_said(room: Conversation) -> None:
    await book(room)
    room.now = STARTS
    assert (await room.told(room.ana), await room.told(room.bruno)) == ([], [])
    assert [state for _, state, _ in await states(room, "appointment.reminder")] == [State.EXPIRED] * 4


async def test_a_moved_appointment_is_reminded_of_at_its_new_time(room: Conversation) -> None:
    booked = await book(room)
    async with room.database.transaction() as tx:
        later = STARTS + timedelta(hours=2)
        await moves.reschedule(tx, Actor(room.bruno.id, "matrix"), booked.id, later, now=room.now)
    await room.told(room.ana)
    room.now = STARTS - timedelta(minutes=15)
    assert (await room.told(room.ana), await room.told(room.bruno)) == ([], [])
    room.now = STARTS + timedelta(hours=1)
    assert await room.told(room.ana) == ["Em 1 hora: supervisão com Bruno, 17:00 (São Paulo)."]


async def test_quiet_hours_put_news_off_until_they_end(room: Conversation) -> None:
    """One's own alone: the other hears it at once."""
    await room.wish(room.ana, NIGHT)
    room.now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)  # 23:00
    await book(room, STARTS + timedelta(days=1))
    seven = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    assert await states(room, "appointment.confirmed") == [("Ana", State.PENDING, seven)]
    room.now = seven - timedelta(seconds=1)
    assert await room.told(room.ana) == []
    room.now = seven
    news = "Bruno marcou qua., 25/11, 15:00–15:50 (São Paulo). Está confirmado; o convite foi por e-mail."
    assert await room.told(room.ana) == [news]


async def test_what_was_put_off_is_overtaken_by_what_comes_then(room: Conversation) -> None:
    await room.wish(room.ana, NIGHT)
    room.now = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)  # 01:00 of the day itself
    booked = await book(room)
    async with room.database.transaction() as tx:
        await appointments.cancel(tx, Actor(room.bruno.id, "matrix"), booked.id, now=room.now)
    news = "Bruno cancelou ter., 24/11, 15:00–15:50 (São Paulo), em cima da hora. Fica anotado assim."
    assert await room.told(room.ana) == [news]
    assert [state for _, state, _ in await states(room, "appointment.confirmed")] == [State.SUPERSEDED]
    room.now = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    assert await room.told(room.ana) == []


async def test_the_old_start_counts_of_what_is_moved_away_from_today(room: Conversation) -> None:
    await room.wish(room.ana, NIGHT)
    await room.settle(move_notice=0)
    booked = await book(room)
    room.now = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
    async with room.database.transaction() as tx:
        later = STARTS + timedelta(days=2)
        await moves.reschedule(tx, Actor(room.bruno.id, "matrix"), booked.id, later, now=room.now)
    assert len(await room.told(room.ana)) == 1


async def test_a_question_is_put_off_only_while_it_can_be_answered_then(room: Conversation) -> None:
    await room.wish(room.ana, NIGHT)
    await room.settle(approval=Approval.ASK, answer=6 * 60)
    room.now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)  # 23:00; she has until 05:00
    async with room.database.transaction() as tx:
        actor = Actor(room.bruno.id, "matrix")
        await appointments.book(tx, actor, room.pair, STARTS + timedelta(days=1), now=room.now)
    text, asked, _ = await room.question(room.ana)
    assert (text[:10], asked.expires_at) == ("Bruno pede", room.now + timedelta(hours=6))
    await room.settle(answer=24 * 60)
    async with room.database.transaction() as tx:
        await appointments.book(tx, actor, room.pair, STARTS + timedelta(days=2), now=room.now)
    assert await room.told(room.ana) == []
    room.now = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    assert (await room.question(room.ana))[0][:10] == "Bruno pede"


async def test_what_is_turned_off_is_not_said(room: Conversation) -> None:
    topics = (Topic.REMINDERS, Topic.WAITS)
    await room.wish(room.bruno, replace(USUAL, unwanted=frozenset((Channel.MATRIX, topic) for topic in topics)))
    await book(room)
    room.now = STARTS - timedelta(hours=1)
    assert len(await room.told(room.ana)) == 1
    assert await room.told(room.bruno) == []
    found = await states(room, "appointment.reminder")
    assert [(who, state) for who, state, _ in found] == [
        ("Ana", State.SENT),
        ("Ana", State.PENDING),
        ("Bruno", State.UNWANTED),
        ("Bruno", State.PENDING),
    ]


async def test_what_was_said_when_the_quiet_hours_began_gets_its_reactions(room: Conversation) -> None:
    await room.wish(room.ana, NIGHT)
    await room.settle(approval=Approval.ASK)
    async with room.database.transaction() as tx:
        starts_at = STARTS + timedelta(days=2)
        await appointments.book(tx, Actor(room.bruno.id, "matrix"), room.pair, starts_at, now=room.now)
        await tx.execute(update(notifications).where(*REQUESTED).values(attempts=1, matrix_event_id="$said"))
    room.now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)  # 23:00
    [(_, message)] = await room.news(room.ana)
    assert message.keys == ("✅", "❌")


async def test_commands_are_answered_in_quiet_hours(room: Conversation) -> None:
    await room.wish(room.bruno, NIGHT)
    room.now = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
    assert await room.say(room.bruno, "!appointments") == [
        "There are no appointments with Ana. !slots shows free times."
    ]

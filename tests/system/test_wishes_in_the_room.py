"""How people want to be told, with the real bot in a real room: reminders that ring for one, and quiet hours."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, text

from supervision import appointments, preferences
from supervision.audit import Actor
from supervision.models import Channel, State, notifications
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import Preferences
from tests.support.human import Message
from tests.support.practice import Practice

# A moment that the outbox waits for, brought about by the test.
BRING_FORWARD = text(
    "UPDATE notifications SET send_at = now(), next_try_at = now()"
    " WHERE kind = 'appointment.reminder' AND person_id = :person"
)
WAKE = text("SELECT pg_notify('visavis_matrix', '')")


def reminds(message: Message) -> bool:
    return message.body.startswith(("Em ", "In "))


async def pair_up(practice: Practice) -> Pair:
    ana = await practice.add_person("Ana", ["supervisor"], language="pt-BR", time_zone="UTC")
    bruno = await practice.add_person("Bruno", ["supervisee"], language="en", time_zone="UTC")
    return await practice.add_pair(ana, bruno)


async def book(practice: Practice, pair: Pair, starts_at: datetime) -> None:
    """The supervisor, on the other's behalf."""
    async with practice.database.transaction() as tx:
        actor = Actor(pair.supervisor.id, "web")
        await appointments.book(tx, actor, pair, starts_at, now=datetime.now(UTC))


async def save(practice: Practice, person: Person, wishes: Preferences) -> None:
    async with practice.database.transaction() as tx:
        await preferences.save(tx, Actor(person.id, "web"), person.id, wishes, now=datetime.now(UTC))


async def test_each_is_reminded_once_and_the_one_who_is_quiet_hears_nothing(practice: Practice) -> None:
    pair = await pair_up(practice)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    starts_at = now + timedelta(days=4)
    quiet = Preferences(
        (), (60,), (now - timedelta(hours=2)).time(), (now + timedelta(hours=2)).time().replace(second=0)
    )
    for person in pair.people:
        await save(practice, person, Preferences((), (60,)))
    async with practice.phones(pair) as (ana, bruno):
        await book(practice, pair, starts_at)
        await bruno.next_message(practice.bot, lambda message: message.body.startswith("Ana booked for you"))
        async with practice.database.transaction() as tx:
            await tx.execute(BRING_FORWARD, {"person": pair.supervisor.id})
            await tx.execute(WAKE)
        told = await ana.next_message(practice.bot, reminds)
        day = f"{starts_at:%d/%m}, {starts_at:%H:%M} (UTC)."
        assert told.body.startswith("Em 4 dias: supervisão com Bruno, ")
        assert told.body.endswith(day)
        assert (told.msgtype, told.mentions) == ("m.text", (pair.supervisor.matrix_id,))

        await save(practice, pair.supervisee, quiet)
        async with practice.database.transaction() as tx:
            await tx.execute(BRING_FORWARD, {"person": pair.supervisee.id})
            await tx.execute(WAKE)
        await book(practice, pair, starts_at + timedelta(hours=2))
        async with practice.database.transaction() as tx:
            await tx.execute(BRING_FORWARD, {"person": pair.supervisor.id})
            await tx.execute(WAKE)
        await ana.next_message(practice.bot, reminds)  # of the other one; what was due for Bruno has been looked at
        assert [one for one in bruno.heard(practice.bot) if reminds(one) and one.mentions == (bruno.user_id,)] == []
        until = now + timedelta(hours=2)
        async with practice.database.transaction() as tx:
            query = select(notifications.c.kind, notifications.c.state, notifications.c.attempts).where(
                notifications.c.person_id == pair.supervisee.id,
                notifications.c.channel == Channel.MATRIX,
                notifications.c.send_at == until,
            )
            kept = sorted(tuple(row) for row in await tx.execute(query))
        assert kept == [("appointment.booked", State.PENDING, 0), ("appointment.reminder", State.PENDING, 0)]

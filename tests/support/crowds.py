"""Several supervisees of one supervisor, each in a room and at a client of their own, who speak at the same moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, update

from supervision import availability, policies
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.errors import SlotTaken
from supervision.models import Status, appointments, holds, waits
from supervision.pairs import Pair
from supervision.people import Person
from supervision.texts import Moments, Span, reader, refusal
from tests.support.human import Human, Message
from tests.support.practice import Practice

WORDS = {
    "en": {"book": "book", "cancel": "cancel", "confirm": "confirm", "accept": "accept", "move": "reschedule"},
    "pt-BR": {"book": "agendar", "cancel": "cancelar", "confirm": "confirmar", "accept": "aceitar", "move": "remarcar"},
}
PLACES = [("Bruno", "en", "Europe/Lisbon"), ("Clara", "pt-BR", "America/Sao_Paulo"), ("Davi", "en", "UTC")]


@dataclass(frozen=True)
class Voice:
    """One of a pair in the pair's room, with the client that this person uses in every room."""

    practice: Practice
    pair: Pair
    person: Person
    phone: Human

    @property
    def room(self) -> str:
        return self.pair.room_id or ""

    def word(self, name: str, rest: str = "") -> str:
        """A command in this person's language."""
        return f"!{WORDS[self.person.language][name]} {rest}".rstrip()

    def when(self, at: datetime) -> str:
        """Day and time as this person's clock shows them."""
        return f"{at.astimezone(self.person.zone):%d/%m/%Y %H:%M}"

    async def send(self, command: str) -> None:
        await self.phone.send_text(self.room, command)

    async def ask(self, command: str) -> str:
        """Send a command, and give the next answer in the room. Only where nobody else asks there meanwhile."""
        mark = self.phone.mark()
        await self.send(command)
        return await self.answer(mark)

    async def answer(self, since: int) -> str:
        """The next answer to anybody's command in this room, behind a mark: a notice, which rings at nobody."""
        message = await self.phone.next_message(
            self.practice.bot, lambda one: one.msgtype == "m.notice", room_id=self.room, since=since
        )
        return message.body

    async def hear(self, sentence: str) -> Message:
        """Wait for news of just these words."""
        return await self.phone.next_message(
            self.practice.bot, lambda one: one.msgtype == "m.text" and one.body == sentence, room_id=self.room
        )

    def says(self, key: str, **params: object) -> str:
        """A sentence of the catalogue as this person reads it."""
        return reader(self.person.language, self.person.time_zone).say(key, **params)

    def span(self, starts_at: datetime) -> Span:
        return Span(starts_at, starts_at + timedelta(minutes=50), self.pair.other(self.person.id).time_zone)

    def booked(self, appointment: Appointment) -> str:
        """What this supervisee is told of a request that was sent."""
        until = Moments((appointment.answer_by or appointment.starts_at,))
        return self.says(
            "book.done", span=self.span(appointment.starts_at), supervisor=self.pair.supervisor.name, until=until
        )

    async def taken(self, at: datetime) -> str:
        """What whoever comes too late for that time is told, as the day stands now."""
        midnight = at.astimezone(self.pair.supervisor.zone).replace(hour=0, minute=0)
        async with self.practice.database.transaction() as tx:
            day = await availability.slots(
                tx, self.pair, since=midnight, until=midnight + timedelta(days=1), now=datetime.now(UTC), most=4
            )
        refused = SlotTaken(alternatives=[slot.starts_at for slot in day])
        return refusal(reader(self.person.language, self.person.time_zone), refused)


@dataclass(frozen=True)
class Seats:
    """A pair's room with both in it."""

    ana: Voice
    theirs: Voice

    @property
    def pair(self) -> Pair:
        return self.theirs.pair

    @property
    def practice(self) -> Practice:
        return self.theirs.practice

    async def fall_silent(self) -> None:
        """Return when both have heard every answer to what was said here before."""
        await self.ana.send("!language")
        for voice in (self.ana, self.theirs):
            while await voice.answer(0) != self.ana.says("language.which"):
                pass


@asynccontextmanager
async def open_rooms(practice: Practice) -> AsyncIterator[Sequence[Seats]]:
    """Ana with three supervisees, all in their rooms, the bot's introductions heard and keys shared.

    She can be booked a year ahead, so that many rounds find an hour of their own.
    """
    ana = await practice.add_person("Ana", ["supervisor"], language="pt-BR", time_zone="America/Sao_Paulo")
    pairs = [
        await practice.add_pair(
            ana, await practice.add_person(name, ["supervisee"], language=language, time_zone=time_zone)
        )
        for name, language, time_zone in PLACES
    ]
    async with practice.database.transaction() as tx:
        await policies.set_rules(tx, Actor(ana.id, "web"), ana.id, {"horizon": 365}, now=datetime.now(UTC))
    async with AsyncExitStack() as stack:
        hers = await stack.enter_async_context(practice.phone(ana))
        found = []
        for pair in pairs:
            theirs = await stack.enter_async_context(practice.phone(pair.supervisee))
            seats = Seats(Voice(practice, pair, ana, hers), Voice(practice, pair, pair.supervisee, theirs))
            for voice in (seats.ana, seats.theirs):
                await voice.phone.join(voice.room)
                await voice.phone.next_message(practice.bot, lambda one: one.msgtype == "m.text", room_id=voice.room)
            assert await seats.theirs.ask("!language") == seats.theirs.says("language.which")
            await seats.fall_silent()
            found.append(seats)
        yield found


async def clear(rooms: Sequence[Seats]) -> None:
    """Have nothing booked and nobody wait, without a word about it, and all heard that was said before."""
    async with rooms[0].practice.database.transaction() as tx:
        await tx.execute(delete(holds))
        unproposed = {column.name: None for column in appointments.c if column.name.startswith("propos")}
        await tx.execute(update(appointments).values(status=Status.CANCELLED, **unproposed))
        unoffered = {column.name: None for column in waits.c if column.name.startswith("offer")}
        await tx.execute(update(waits).values(ended_at=datetime.now(UTC), **unoffered))
    for seats in rooms:
        await seats.fall_silent()

"""Element's own engine, in the mode that hears signed devices only, books with the whole of Visavis running."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from supervision import queries
from supervision.models import Status
from supervision.pairs import Pair
from supervision.texts import Moments, Span, reader
from tests.interop.driver import Engine
from tests.support.human import Identity
from tests.support.practice import PASSWORD, Practice


@asynccontextmanager
async def engine(practice: Practice, pair: Pair) -> AsyncIterator[Engine]:
    """The pair's supervisee on Element's engine, in the room."""
    user_id, log = pair.supervisee.matrix_id or "", practice.state / "engine.log"
    async with Engine.log_in(practice.homeserver, user_id, PASSWORD, log=log) as engine:
        await engine.join(pair.room_id or "")
        yield engine


async def disown_bot(practice: Practice) -> None:
    """Give the bot's account another identity, which has not signed the bot's device."""
    assert practice.machine is not None
    keys = Identity().device_signing_keys(practice.bot)
    await practice.machine.client.homeserver.ask("POST", "/keys/device_signing/upload", keys)


async def test_engine_books(practice: Practice) -> None:
    pair = await practice.add_pair()
    english = reader("en", "Europe/Lisbon")
    async with engine(practice, pair) as bruno:
        introduction = await bruno.next_event(practice.bot)
        await bruno.send_text(pair.room_id or "", "!slots")
        slots = await bruno.next_event(practice.bot)
        await bruno.send_text(pair.room_id or "", "!book 1")
        booked = await bruno.next_event(practice.bot, lambda event: event.type == "m.room.message")
        judged = [(event.encrypted, event.failure, event.shield) for event in (introduction, slots, booked)]
    async with practice.database.transaction() as tx:
        (appointment,) = await queries.coming(tx, pair.supervisee.id, now=datetime.now(UTC), pair_id=pair.id)
    span = Span(appointment.starts_at, appointment.ends_at, pair.supervisor.time_zone)
    assert judged == [(True, None, None)] * 3
    assert appointment.status == Status.REQUESTED
    assert slots.body.splitlines()[0] == english.say("slots.head", supervisor="Ana", city="Lisbon")
    until = Moments((appointment.answer_by or appointment.starts_at,))
    assert booked.body == english.say("book.done", span=span, supervisor="Ana", until=until)


async def test_engine_hears_nothing_of_unsigned_bot(practice: Practice) -> None:
    pair = await practice.add_pair()
    await disown_bot(practice)
    async with engine(practice, pair) as bruno:
        introduction = await bruno.next_event(practice.bot)
        await bruno.send_text(pair.room_id or "", "!slots")
        answer = await bruno.next_event(practice.bot)
        for event in (introduction, answer):
            assert (event.type, event.failure, event.content) == ("m.room.encrypted", "UNSIGNED_SENDER_DEVICE", {})

"""What is said in the room about several appointments of a series, and about a time kept for somebody who waits."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.news import Message
from supervision import questions, repetitions, series, waits
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import AlreadyAnswered, Stale
from supervision.models import Approval, Question
from supervision.people import Person
from supervision.repetitions import Repetition
from tests.bot.conversations import Conversation, begin

FIRST = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo
TIMES = [f"- {day}, 10:00–10:50" for day in ("Tue 24 Nov", "Tue 1 Dec", "Tue 8 Dec")]
HORARIOS = [f"- ter., {day}, 10:00–10:50" for day in ("24/11", "01/12", "08/12")]


@pytest.fixture
async def room(database: Database, now: datetime) -> Conversation:
    return await begin(database, now)


async def book(room: Conversation, person: Person, count: int = 3) -> None:
    """Tuesdays at ten."""
    local = FIRST.astimezone(room.ana.zone).replace(tzinfo=None)
    rule = repetitions.rule_of(Repetition("weekly", count), local)
    async with room.database.transaction() as tx:
        await series.book(tx, Actor(person.id, "matrix"), room.pair, FIRST, rule, skip=False, now=room.now)


async def test_a_series_is_asked_for_and_confirmed_by_one_tap(room: Conversation) -> None:
    await book(room, room.bruno)
    text, asked, keys = await room.question(room.ana)
    assert text.split("\n") == [
        "Bruno pede uma série (São Paulo). Responda até ter., 24/11, 10:00: ✅ confirma todas, ❌ recusa todas.",
        *HORARIOS,
    ]
    assert (asked.kind, keys) == (Question.ANSWER_SERIES, ("✅", "❌"))
    assert await room.tap(room.ana, asked, "✅") == []
    [told] = await room.told(room.bruno)
    assert told.split("\n") == ["Series confirmed by Ana (Sao Paulo). The invitation went by mail.", *TIMES]
    assert await room.told(room.ana) == []
    assert await room.say(room.bruno, "!appointments") == [
        "Your appointments with Ana (Sao Paulo)",
        *(f"{number}. {time[2:]}, confirmed, weekly series" for number, time in enumerate(TIMES, start=1)),
    ]


async def test_many_times_are_told_in_ten_lines(room: Conversation) -> None:
    await book(room, room.bruno, 8)
    text, _, _ = await room.question(room.ana)
    assert len(text.split("\n")) == 9
    await room.settle(horizon=366)
    await room.say(room.ana, "!recusar todas")
    await book(room, room.bruno, 14)
    text = (await room.told(room.ana))[-1]
    assert text.split("\n")[-1] == "- e mais 4"
    assert len(text.split("\n")) == 12


async def test_a_series_is_confirmed_in_words_but_for_one(room: Conversation) -> None:
    await book(room, room.bruno)
    await room.told(room.ana)
    await room.say(room.ana, "!agenda")
    assert (await room.say(room.ana, "!recusar 2"))[0].startswith("Recusado: ter., 01/12, 10:00")
    said = await room.say(room.ana, "!confirmar 1 todas")
    assert said == ["Confirmadas (São Paulo). Bruno recebe o convite por e-mail.", HORARIOS[0], HORARIOS[2]]


async def test_a_series_that_was_booked_on_behalf_is_declined_by_a_tap(room: Conversation) -> None:
    await book(room, room.ana)
    text, asked, keys = await room.question(room.bruno)
    assert text.split("\n") == [
        "Ana booked a series for you (Sao Paulo). If you cannot come, ❌ declines all; !decline lists each one.",
        *TIMES,
    ]
    assert keys == ("❌",)
    assert await room.tap(room.bruno, asked, "✅") is None
    assert await room.tap(room.bruno, asked, "❌") == []
    [told] = await room.told(room.ana)
    assert told.split("\n") == [
        "Bruno recusou estas supervisões da série (São Paulo). Os horários estão livres de novo.",
        *HORARIOS,
    ]


async def test_a_series_moves_when_the_other_accepts(room: Conversation) -> None:
    await book(room, room.bruno)
    await room.say(room.ana, "!confirmar todas")
    for person in room.pair.people:
        await room.told(person)
    await room.say(room.bruno, "!appointments")
    said = await room.say(room.bruno, "!reschedule 2 1/12 15:00 following")
    assert said == [
        "Proposal sent (Sao Paulo). The old times stand until Ana accepts. The proposed ones:",
        "- Tue 1 Dec, 15:00–15:50",
        "- Tue 8 Dec, 15:00–15:50",
    ]
    text, asked, _ = await room.question(room.ana)
    moves = [f"- ter., {day}, 10:00–10:50 → ter., {day}, 15:00–15:50" for day in ("01/12", "08/12")]
    assert text.split("\n")[1:] == moves
    assert asked.kind is Question.ANSWER_SERIES
    assert await room.tap(room.ana, asked, "✅") == []
    [told] = await room.told(room.bruno)
    assert told.split("\n") == [
        "Ana agreed: these appointments of the series move (Sao Paulo).",
        "- Tue 1 Dec, 10:00–10:50 → Tue 1 Dec, 15:00–15:50",
        "- Tue 8 Dec, 10:00–10:50 → Tue 8 Dec, 15:00–15:50",
    ]


async def test_a_proposal_for_a_series_is_refused_or_taken_back(room: Conversation) -> None:
    await room.settle(approval=Approval.AUTOMATIC)
    await book(room, room.bruno)
    assert (await room.told(room.ana))[0].startswith("Bruno marcou uma série (São Paulo). Está confirmada;")
    await room.say(room.ana, "!agenda")
    await room.say(room.ana, "!remarcar 1 24/11 15:00 todas")
    await room.told(room.bruno)
    back = await room.say(room.ana, "!recusar 1 todas")
    assert back[0] == "Os horários não mudam. Bruno já sabe. Continuam valendo (São Paulo):"
    [told] = await room.told(room.bruno)
    assert told.split("\n")[0] == (
        "Ana took back the proposal to move the series to these times (Sao Paulo); the old ones stand."
    )
    await room.say(room.ana, "!remarcar 1 24/11 16:00 todas")
    _, asked, _ = await room.question(room.bruno)
    assert await room.tap(room.bruno, asked, "❌") == []
    [told] = await room.told(room.ana)
    assert told.split("\n")[0] == (
        "Bruno recusou mudar a série para estes horários (São Paulo); os antigos continuam valendo."
    )


async def test_the_rest_of_a_series_is_called_off(room: Conversation) -> None:
    await book(room, room.ana)
    await room.told(room.bruno)
    await room.say(room.bruno, "!appointments")
    assert await room.say(room.bruno, "!cancel 2 following: moving house") == [
        "Cancelled (Sao Paulo). Ana has been told.",
        *TIMES[1:],
    ]
    [told] = await room.told(room.ana)
    assert told.split("\n") == [
        "Bruno cancelou estas supervisões da série (São Paulo).",
        *HORARIOS[1:],
        "Motivo: moving house",
    ]


async def test_the_first_time_of_a_series_is_typed_and_not_tapped(room: Conversation) -> None:
    await room.say(room.bruno, "!series")
    async with room.database.transaction() as tx:
        shown = await questions.last(tx, room.bruno.id, room.pair.id, Question.PICK_SLOT, now=room.now)
    assert shown is not None
    assert await room.tap(room.bruno, shown, "1") is None
    assert (await room.say(room.bruno, "!appointments"))[0].startswith("There are no appointments")


async def test_a_tapped_time_moves_the_appointment_that_was_shown(room: Conversation) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    await room.say(room.bruno, "!reschedule 1")
    async with room.database.transaction() as tx:
        shown = await questions.last(tx, room.bruno.id, room.pair.id, Question.PICK_SLOT, now=room.now)
    assert shown is not None
    await room.say(room.ana, "!confirmar")
    with pytest.raises(Stale):
        await room.tap(room.bruno, shown, "1")


async def kept_for_bruno(room: Conversation) -> tuple[str, Message]:
    """Tuesday at ten, which he waits for, is free again; the news of it."""
    await room.say(room.ana, "!agendar 24/11 10:00")
    await room.told(room.bruno)
    async with room.database.transaction() as tx:
        acts = Actor(room.bruno.id, "matrix")
        await waits.join(tx, acts, room.pair, [(FIRST, FIRST + timedelta(minutes=1))], now=room.now)
    await room.say(room.ana, "!cancelar 1")
    async with room.database.transaction() as tx:
        assert await waits.offer_freed(tx, room.now) == 1
    news = await room.news(room.bruno)
    return news[-1]


async def test_a_time_kept_for_who_waits_is_booked_by_a_tap(room: Conversation) -> None:
    text, message = await kept_for_bruno(room)
    assert text == (
        f"A time that you wait for is free: {TIMES[0][2:]} (Sao Paulo). It is kept for you until Mon 23 Nov, 13:00: "
        "✅ books it, ❌ lets it pass. In words: !waitlist yes or !waitlist no."
    )
    assert message.keys == ("✅", "❌")
    assert message.asked is not None
    assert message.asked.kind is Question.ANSWER_OFFER
    booked = await room.tap(room.bruno, message.asked, "✅")
    assert booked == [f"Request sent: {TIMES[0][2:]} (Sao Paulo). Ana has to confirm by Tue 24 Nov, 10:00."]
    with pytest.raises(AlreadyAnswered):
        await room.tap(room.bruno, message.asked, "❌")


async def test_a_time_kept_for_who_waits_is_let_pass_in_words(room: Conversation) -> None:
    _, message = await kept_for_bruno(room)
    assert await room.say(room.bruno, "!decline") == [
        f"Passed by: {TIMES[0][2:]} (Sao Paulo). You stay on the waiting list."
    ]
    assert message.asked is not None
    with pytest.raises(AlreadyAnswered):
        await room.tap(room.bruno, message.asked, "✅")
    assert await room.say(room.bruno, "!accept") == ["Nothing is waiting for your answer."]


async def test_a_time_kept_too_long_is_offered_no_more(room: Conversation) -> None:
    await kept_for_bruno(room)
    room.pass_time(hours=5)
    async with room.database.transaction() as tx:
        await waits.offer_freed(tx, room.now)
    assert await room.told(room.bruno) == [
        f"The time kept for you, {TIMES[0][2:]} (Sao Paulo), was not answered in time and is kept no longer. "
        "You are still on the waiting list."
    ]

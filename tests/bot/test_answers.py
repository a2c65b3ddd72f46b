"""What is said in the room about single appointments: proposals, bookings on behalf, absences, lists out of date."""

from datetime import datetime

import pytest

from supervision import appointments, moves, pairs, policies
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, NotUnderstood, Refused, Stale, TooLate
from supervision.models import Approval, Question
from tests.bot.conversations import Conversation, begin

TEN = "Tue 24 Nov, 10:00–10:50"
FIFTEEN = "Tue 24 Nov, 15:00–15:50"
SIXTEEN = "Tue 24 Nov, 16:00–16:50"
DEZ = "ter., 24/11, 10:00–10:50"
QUINZE = "ter., 24/11, 15:00–15:50"
DEZESSEIS = "ter., 24/11, 16:00–16:50"


@pytest.fixture
async def room(database: Database, now: datetime) -> Conversation:
    return await begin(database, now)


async def confirmed(room: Conversation) -> None:
    """Tuesday at ten, asked for and confirmed, all news heard."""
    await room.say(room.bruno, "!book 24/11 10:00")
    await room.say(room.ana, "!confirmar")
    await room.told(room.ana)
    await room.told(room.bruno)


async def test_a_request_says_until_when_it_is_open(room: Conversation) -> None:
    said = await room.say(room.bruno, "!book 24/11 10:00")
    assert said == [f"Request sent: {TEN} (Sao Paulo). Ana has to confirm by Tue 24 Nov, 10:00."]
    text, asked, keys = await room.question(room.ana)
    assert text == f"Bruno pede {DEZ} (São Paulo). Responda até ter., 24/11, 10:00: ✅ confirma, ❌ recusa."
    assert (asked.kind, keys) == (Question.ANSWER_REQUEST, ("✅", "❌"))
    assert asked.expires_at.isoformat() == "2026-11-24T13:00:00+00:00"
    assert await room.tap(room.ana, asked, "✅") == []
    assert await room.told(room.bruno) == [f"Confirmed by Ana: {TEN} (Sao Paulo). The invitation went by mail."]


async def test_what_needs_no_approval_stands_at_once(room: Conversation) -> None:
    await room.settle(approval=Approval.AUTOMATIC)
    said = await room.say(room.bruno, "!book 24/11 10:00")
    assert said == [f"Confirmed: {TEN} (Sao Paulo). The invitation comes by mail."]
    news = f"Bruno marcou {DEZ} (São Paulo). Está confirmado; o convite foi por e-mail."
    assert await room.told(room.ana) == [news]


async def test_the_private_calendar_is_shown_on_a_page_and_not_in_the_room(room: Conversation) -> None:
    assert await room.say(room.bruno, "!calendar") == [
        "Your calendar's private address is on this page: http://localhost/calendar. It is your secret, so I do not "
        "show it here."
    ]
    assert await room.say(room.ana, "!calendário") == [
        "O endereço particular do seu calendário está nesta página: http://localhost/calendar. Ele é um segredo seu e "
        "por isso não aparece aqui."
    ]


async def test_a_proposal_a_counter_proposal_and_a_yes_in_words(room: Conversation) -> None:
    await confirmed(room)
    assert await room.say(room.bruno, "!reschedule 1 24/11 15:00") == [
        f"Proposal sent: from {TEN} (Sao Paulo) to {FIFTEEN} (Sao Paulo). The old time stands until Ana accepts; the "
        "answer can come until Tue 24 Nov, 10:00. !decline takes the proposal back."
    ]
    text, first, keys = await room.question(room.ana)
    assert text == (
        f"Bruno propõe mudar de {DEZ} (São Paulo) para {QUINZE} (São Paulo). O horário antigo vale até você "
        "responder, no máximo até ter., 24/11, 10:00: ✅ aceita, ❌ recusa. Outro horário: !remarcar."
    )
    assert (first.kind, keys) == (Question.ANSWER_MOVE, ("✅", "❌"))
    assert await room.say(room.ana, "!agenda") == [
        "Suas supervisões com Bruno (São Paulo)",
        f"1. {DEZ}, confirmada; Bruno propõe {QUINZE}",
    ]
    counter = await room.say(room.ana, "!remarcar 1 24/11 16:00")
    assert counter[0].startswith(f"Proposta enviada: de {DEZ} (São Paulo) para {DEZESSEIS} (São Paulo).")
    with pytest.raises(Stale):
        await room.tap(room.ana, first, "✅")
    assert (await room.say(room.bruno, "!appointments"))[1] == f"1. {TEN}, confirmed; Ana proposes {SIXTEEN}"
    accepted = f"Accepted: moved from {TEN} (Sao Paulo) to {SIXTEEN} (Sao Paulo). Ana has been told; "
    assert await room.say(room.bruno, "!accept 1") == [accepted + "the new invitation comes by mail."]
    assert await room.told(room.ana) == [
        f"Bruno aceitou: a supervisão muda de {DEZ} (São Paulo) para {DEZESSEIS} (São Paulo)."
    ]
    assert await room.told(room.bruno) == []


async def test_a_proposal_is_accepted_or_refused_by_a_tap(room: Conversation) -> None:
    await confirmed(room)
    await room.say(room.bruno, "!reschedule 1 24/11 15:00")
    _, asked, _ = await room.question(room.ana)
    assert await room.tap(room.ana, asked, "❌") == []
    refused = f"Ana refused the move to {FIFTEEN} (Sao Paulo). {TEN} (Sao Paulo) stands."
    assert await room.told(room.bruno) == [refused]
    await room.say(room.ana, "!remarcar 1 24/11 16:00")
    text, asked, _ = await room.question(room.bruno)
    assert text.startswith(f"Ana proposes to move from {TEN} (Sao Paulo) to {SIXTEEN} (Sao Paulo).")
    assert await room.tap(room.bruno, asked, "✅") == []
    assert (await room.say(room.bruno, "!appointments"))[1] == f"1. {SIXTEEN}, confirmed"


async def test_a_proposal_is_taken_back_by_whoever_made_it(room: Conversation) -> None:
    await confirmed(room)
    await room.say(room.bruno, "!reschedule 1 24/11 15:00")
    assert await room.say(room.bruno, "!accept 1") == ["Nothing is waiting for your answer."]
    assert await room.say(room.bruno, "!decline 1") == [
        f"Proposal taken back: {FIFTEEN} (Sao Paulo). {TEN} (Sao Paulo) stands. Ana has been told."
    ]
    # The question that was not asked yet is not asked any more.
    assert await room.told(room.ana) == [
        f"Bruno retirou a proposta de mudar para {QUINZE} (São Paulo). Continua valendo {DEZ} (São Paulo)."
    ]


async def test_a_proposal_that_nobody_answers_lapses(room: Conversation) -> None:
    await room.say(room.bruno, "!book 1/12 10:00")
    await room.say(room.ana, "!confirmar")
    await room.say(room.bruno, "!reschedule 1/12 15:00")
    for person in room.pair.people:
        await room.told(person)
    room.pass_time(hours=49)
    async with room.database.transaction() as tx:
        assert await moves.lapse(tx, now=room.now) == 1
    assert await room.told(room.bruno) == [
        "The proposal to move to Tue 1 Dec, 15:00–15:50 (Sao Paulo) was not answered in time. "
        "Tue 1 Dec, 10:00–10:50 (Sao Paulo) stands."
    ]
    assert [text[:9] for text in await room.told(room.ana)] == ["A propost"]


async def test_an_open_request_moves_at_once(room: Conversation) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    assert await room.say(room.bruno, "!reschedule 1 24/11 15:00") == [
        f"Request to move sent: from {TEN} (Sao Paulo) to {FIFTEEN} (Sao Paulo). "
        "Ana has to confirm by Tue 24 Nov, 15:00."
    ]
    text, asked, keys = await room.question(room.ana)
    assert text.startswith(f"Bruno pede para mudar de {DEZ} (São Paulo) para {QUINZE} (São Paulo).")
    assert (asked.kind, asked.revision, keys) == (Question.ANSWER_REQUEST, 1, ("✅", "❌"))


async def test_the_supervisor_books_and_the_supervisee_declines(room: Conversation) -> None:
    said = await room.say(room.ana, "!agendar 24/11 20:00")  # outside her hours: they are hers
    evening = "ter., 24/11, 20:00–20:50"
    assert said == [f"Marcado em nome de Bruno: {evening} (São Paulo). Bruno recebe o aviso e pode recusar."]
    text, asked, keys = await room.question(room.bruno)
    assert text == (
        "Ana booked for you: Tue 24 Nov, 20:00–20:50 (Sao Paulo). If you cannot come, ❌ declines; "
        "the invitation went by mail."
    )
    assert (asked.kind, keys) == (Question.ANSWER_REQUEST, ("❌",))
    assert await room.tap(room.bruno, asked, "✅") is None
    assert await room.tap(room.bruno, asked, "❌") == []
    assert await room.told(room.ana) == [
        f"Bruno recusou {evening} (São Paulo), que você tinha marcado. O horário está livre de novo."
    ]


async def test_the_supervisor_s_list_can_be_tapped(room: Conversation) -> None:
    await room.say(room.ana, "!horarios")
    said = await room.say(room.ana, "!agendar 2")
    assert said[0].startswith("Marcado em nome de Bruno: ")
    assert await room.say(room.bruno, "!decline") == [
        "Your appointments with Ana (Sao Paulo)",
        "1. Mon 23 Nov, 14:00–14:50, confirmed",
        "Which one? Answer !decline 1, with the number.",
    ]
    declined = await room.say(room.bruno, "!decline 1")
    assert declined[0].startswith("Declined: Mon 23 Nov, 14:00–14:50 (Sao Paulo).")


async def test_either_half_of_the_day_is_asked_back_from_the_supervisor(room: Conversation) -> None:
    assert (await room.say(room.ana, "!agendar ter às 8"))[0] == "Qual destes horários?"
    assert (await room.say(room.ana, "!agendar ter às 3"))[0] == (
        f"Marcado em nome de Bruno: {QUINZE} (São Paulo). Bruno recebe o aviso e pode recusar."
    )


async def test_lengths(room: Conversation) -> None:
    async with room.database.transaction() as tx:
        acts = Actor(room.ana.id, "web")
        await policies.set_pair(tx, acts, room.pair.id, lengths=[50, 90], approval=None, now=room.now)
        room.pair = await pairs.get(tx, room.pair.id)
    listed = await room.say(room.bruno, "!slots tue 90 min")
    assert listed[1] == "1. Tue 24 Nov, 09:00–10:30"
    booked = await room.say(room.bruno, "!book 1")
    assert booked[0].startswith("Request sent: Tue 24 Nov, 09:00–10:30 (Sao Paulo).")
    assert (await room.say(room.bruno, "!book tue 14h 90 min"))[0].startswith("Request sent: Tue 24 Nov, 14:00–15:30")
    assert (await room.say(room.bruno, "!book 25/11 10:00-11:30"))[0].startswith(
        "Request sent: Wed 25 Nov, 10:00–11:30"
    )
    with pytest.raises(NotUnderstood) as refused:
        await room.say(room.bruno, "!slots 60 min")
    assert refused.value.key == "refused.length"


async def test_a_number_whose_time_has_moved_is_not_answered(room: Conversation) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    await room.say(room.ana, "!agenda")
    await room.say(room.bruno, "!reschedule 24/11 15:00")
    stale = await room.say(room.ana, "!confirmar 1")
    assert stale == [
        "Isso mudou desde que a lista foi mostrada. Nada foi alterado. Agora:",
        "Suas supervisões com Bruno (São Paulo)",
        f"1. {QUINZE}, aguardando",
        "Qual? Responda !aceitar 1, com o número.",
    ]
    assert await room.say(room.ana, "!confirmar 1") == [
        f"Confirmado: {QUINZE} (São Paulo). Bruno recebe o convite por e-mail."
    ]


async def test_a_number_of_yesterday_s_list_is_not_answered(room: Conversation) -> None:
    await room.say(room.bruno, "!book 30/11 10:00")
    await room.say(room.bruno, "!appointments")
    room.pass_time(hours=25)
    assert (await room.say(room.bruno, "!cancel 1"))[:2] == [
        "That list is more than a day old and no longer valid. Nothing was changed. Now:",
        "Your appointments with Ana (Sao Paulo)",
    ]
    assert (await room.say(room.bruno, "!cancel 1"))[0].startswith("Cancelled: Mon 30 Nov, 10:00–10:50")


async def test_a_late_cancellation_is_said_to_both(room: Conversation) -> None:
    await confirmed(room)
    room.pass_time(hours=4)
    said = await room.say(room.bruno, "!cancel 1 a cold")
    assert said == [
        f"Cancelled: {TEN} (Sao Paulo). Ana has been told. It was less than 1 day before, so it is marked as a late "
        "cancellation."
    ]
    assert await room.told(room.ana) == [
        f"Bruno cancelou {DEZ} (São Paulo), em cima da hora. Fica anotado assim.\nMotivo: a cold"
    ]


async def test_an_absence_is_noted_and_taken_back(room: Conversation) -> None:
    await confirmed(room)
    with pytest.raises(NotAllowed) as refused:
        await room.say(room.bruno, "!noshow")
    assert refused.value.key == "refused.supervisor_marks"
    assert await room.say(room.ana, "!falta") == ["Não houve supervisões com Bruno nos últimos 30 dias."]
    room.pass_time(days=2)
    async with room.database.transaction() as tx:
        await appointments.close_past(tx, now=room.now)
    listed = await room.say(room.ana, "!falta")
    assert listed[1] == f"1. {DEZ}, realizada"
    noted = await room.say(room.ana, "!falta 1")
    assert noted[0].startswith(f"Falta anotada: {DEZ} (São Paulo).")
    assert await room.told(room.bruno) == [f"Ana noted that {TEN} (Sao Paulo) was missed."]
    await room.say(room.ana, "!falta 1")
    assert await room.told(room.bruno) == [f"Ana noted that {TEN} (Sao Paulo) took place."]
    room.pass_time(hours=25)  # a number means nothing of a list that is too old
    assert (await room.say(room.ana, "!falta 1"))[1] == f"1. {DEZ}, realizada"
    room.pass_time(days=30)
    assert await room.say(room.ana, "!falta 1") == ["Não houve supervisões com Bruno nos últimos 30 dias."]


async def test_a_request_that_lapses_is_told_to_both(room: Conversation) -> None:
    await room.say(room.bruno, "!book 1/12 10:00")
    await room.told(room.ana)
    room.pass_time(hours=49)
    async with room.database.transaction() as tx:
        await appointments.close_past(tx, now=room.now)
    when = "ter., 01/12, 10:00–10:50 (São Paulo)"
    assert await room.told(room.ana) == [
        f"O pedido de Bruno, {when}, ficou sem resposta e deixou de valer. Bruno já sabe; o horário está livre."
    ]
    assert await room.told(room.bruno) == [
        "The request for Tue 1 Dec, 10:00–10:50 (Sao Paulo) was not answered in time and has lapsed. "
        "!slots shows other times."
    ]


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        ("!confirm 1", NotAllowed, "refused.supervisor_answers"),
        ("!accept 1", NotAllowed, "refused.supervisor_answers"),
        ("!decline 1", NotAllowed, "refused.supervisor_answers"),
        ("!cancel 4", NotFound, "appointments.no_such_number"),
        ("!cancel 1 all", NotUnderstood, "refused.no_series"),
        ("!reschedule 1 24/11 10:00", NotUnderstood, "refused.move_onto_itself"),
    ],
)
async def test_what_cannot_be_answered(room: Conversation, text: str, kind: type[Refused], key: str) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    await room.say(room.bruno, "!appointments")
    with pytest.raises(kind) as refused:
        await room.say(room.bruno, text)
    assert refused.value.key == key


async def test_nothing_is_proposed_too_late(room: Conversation) -> None:
    await confirmed(room)
    room.pass_time(hours=23, minutes=30)
    with pytest.raises(TooLate) as refused:
        await room.say(room.bruno, "!reschedule 24/11 15:00")
    assert refused.value.key == "refused.move_notice"


async def test_a_question_that_was_answered_elsewhere_is_answered_once(room: Conversation) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    _, asked, _ = await room.question(room.ana)
    await room.say(room.ana, "!recusar")
    with pytest.raises((AlreadyAnswered, Stale)):
        await room.tap(room.ana, asked, "✅")


async def test_a_yes_in_words_means_the_proposal_that_was_shown(room: Conversation) -> None:
    """Another took its place before its own question was put: nobody accepts what they have not seen."""
    await confirmed(room)
    await room.say(room.bruno, "!reschedule 1 24/11 15:00")
    await room.question(room.ana)
    await room.say(room.bruno, "!reschedule 1 24/11 16:00")
    assert await room.say(room.ana, "!aceitar 1") == [
        "Isso mudou desde que a lista foi mostrada. Nada foi alterado. Agora:",
        "Suas supervisões com Bruno (São Paulo)",
        f"1. {DEZ}, confirmada; Bruno propõe {DEZESSEIS}",
        "Qual? Responda !aceitar 1, com o número.",
    ]
    assert (await room.say(room.ana, "!aceitar 1"))[0].startswith(
        f"Aceito: mudou de {DEZ} (São Paulo) para {DEZESSEIS}"
    )


async def test_a_word_that_is_nearly_ours_is_named(room: Conversation) -> None:
    assert await room.say(room.bruno, "!slts") == [
        "I do not know that command. Did you mean !slots? !help slots explains it."
    ]
    assert await room.say(room.ana, "!marcar 2") == [
        "Não conheço esse comando. Você quis dizer !agendar? !ajuda agendar diz como funciona."
    ]
    assert await room.say(room.bruno, "!vacation") == ["I do not know that command. !help shows what I can do."]


async def test_the_answer_that_a_list_asks_for_is_one_that_it_has(room: Conversation) -> None:
    assert await room.say(room.bruno, "!slots 24/11 10:00") == [
        "Free with Ana (Sao Paulo)",
        f"1. {TEN}",
        "Answer !book 1 or tap the number. Another month: !slots december.",
    ]


async def test_no_times_are_offered_for_what_is_cancelled(room: Conversation) -> None:
    await confirmed(room)
    await room.say(room.bruno, "!appointments")
    await room.say(room.bruno, "!cancel 1")
    with pytest.raises(AlreadyAnswered):
        await room.say(room.bruno, "!reschedule 1")
    with pytest.raises(AlreadyAnswered):
        await room.say(room.bruno, "!reschedule 1 24/11 23:00")


async def test_a_number_of_what_is_cancelled_shows_what_there_is_now(room: Conversation) -> None:
    """Who has booked anew and takes the new one for number 1 must not read that it is cancelled."""
    await confirmed(room)
    await room.say(room.bruno, "!appointments")
    await room.say(room.bruno, "!cancel 1")
    await room.say(room.bruno, "!book 24/11 15:00")
    assert await room.say(room.bruno, "!cancel 1 school meeting") == [
        "That has changed since the list was shown. Nothing was changed. Now:",
        "Your appointments with Ana (Sao Paulo)",
        f"1. {FIFTEEN}, requested",
        "Which one? Answer !cancel 1, with the number.",
    ]
    assert await room.say(room.bruno, "!cancel 1 school meeting") == [
        f"Cancelled: {FIFTEEN} (Sao Paulo). Ana has been told."
    ]

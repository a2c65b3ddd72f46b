"""What is said in the room of calendars' answers and of mail that comes back, and what a tap does then."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from supervision import appointments, attendances, mailboxes, notifications, repetitions, series
from supervision.appointments import Appointment
from supervision.attendances import Counter, Outcome, Response
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import AlreadyAnswered, NotFound, NotUnderstood, Stale
from supervision.models import Attendance, Channel, Question, Status
from supervision.notifications import Notice
from supervision.people import Person
from supervision.repetitions import Repetition
from tests.bot.conversations import Conversation, begin

FIRST = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo
TEN = "Tue 24 Nov, 10:00–10:50 (Sao Paulo)"
DEZ = "ter., 24/11, 10:00–10:50 (São Paulo)"
TIMES = [f"- {day}, 10:00–10:50" for day in ("Tue 24 Nov", "Tue 1 Dec", "Tue 8 Dec")]
HORARIOS = [f"- ter., {day}, 10:00–10:50" for day in ("24/11", "01/12", "08/12")]


@pytest.fixture
async def room(database: Database, now: datetime) -> Conversation:
    return await begin(database, now)


async def booked(room: Conversation, by: Person) -> Appointment:
    """Tuesday at ten, confirmed, all news heard."""
    async with room.database.transaction() as tx:
        one = await appointments.book(tx, Actor(by.id, "matrix"), room.pair, FIRST, now=room.now)
        if one.status is Status.REQUESTED:
            one = await appointments.confirm(tx, Actor(room.ana.id, "matrix"), one.id, now=room.now)
    for person in room.pair.people:
        await room.told(person)
    return one


async def booked_series(room: Conversation, by: Person) -> Sequence[Appointment]:
    """Three Tuesdays at ten."""
    rule = repetitions.rule_of(Repetition("weekly", 3), FIRST.astimezone(room.ana.zone).replace(tzinfo=None))
    async with room.database.transaction() as tx:
        actor = Actor(by.id, "matrix")
        return (await series.book(tx, actor, room.pair, FIRST, rule, skip=False, now=room.now)).booked


async def answer(
    room: Conversation, person: Person, one: Appointment, said: Attendance | Counter, sequence: int = 9
) -> Outcome:
    room.pass_time(minutes=1)
    entry = one.series_id or one.id
    async with room.database.transaction() as tx:
        return await attendances.respond(
            tx, Actor(person.id, "calendar"), Response(entry, sequence, room.now, said), now=room.now
        )


async def status(room: Conversation, one: Appointment) -> Status:
    async with room.database.transaction() as tx:
        return (await appointments.get(tx, Actor(room.ana.id, "web"), one.id)).status


async def test_the_other_hears_of_a_yes_and_of_a_maybe(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    assert await answer(room, room.bruno, one, Attendance.ACCEPTED) is Outcome.NOTED
    assert await room.told(room.ana) == [f"Bruno aceitou no calendário: {DEZ}."]
    assert await answer(room, room.ana, one, Attendance.TENTATIVE) is Outcome.NOTED
    assert await room.told(room.bruno) == [f"Ana answered maybe in the calendar: {TEN}."]
    assert await answer(room, room.ana, one, Attendance.TENTATIVE) is Outcome.REPEATED
    assert (await room.told(room.bruno), await room.told(room.ana)) == ([], [])


async def test_whoever_declined_is_asked_and_may_keep_it(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    assert await answer(room, room.bruno, one, Attendance.DECLINED) is Outcome.ASKED
    text, asked, keys = await room.question(room.bruno)
    assert (
        text == f"You declined {TEN} in your calendar. It still stands: ✅ cancels it, ❌ keeps it. "
        "In words: !cancel or !cancel no."
    )
    assert (asked.kind, keys, asked.expires_at) == (Question.ANSWER_ATTENDANCE, ("✅", "❌"), FIRST)
    assert await room.told(room.ana) == []
    async with room.database.transaction() as tx:
        assert await attendances.of(tx, one) == {room.bruno.id: Attendance.DECLINED}
    assert await room.tap(room.bruno, asked, "❌") == [f"It stands: {TEN}."]
    assert await status(room, one) is Status.CONFIRMED
    async with room.database.transaction() as tx:
        assert await attendances.of(tx, one) == {}


async def test_what_was_declined_is_kept_in_words(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    nothing = ["There is nothing to decide; nothing was cancelled."]
    assert await room.say(room.bruno, "!cancel no") == nothing
    await answer(room, room.bruno, one, Attendance.DECLINED)
    await room.question(room.bruno)
    assert await room.say(room.ana, "!cancelar não") == ["Não há nada a decidir; nada foi cancelado."]
    assert await room.say(room.bruno, "!cancel no") == [f"It stands: {TEN}."]
    assert await room.say(room.bruno, "!decline no") == nothing
    assert await status(room, one) is Status.CONFIRMED


async def test_what_is_gone_is_not_kept(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    await answer(room, room.bruno, one, Attendance.DECLINED)
    _, asked, _ = await room.question(room.bruno)
    await room.say(room.ana, "!cancelar 1")
    with pytest.raises(AlreadyAnswered):
        await room.tap(room.bruno, asked, "❌")


async def test_a_tap_calls_off_only_what_was_shown(room: Conversation) -> None:
    """Bruno said yes to the second after he had said no to the whole, and his no came later."""
    found = await booked_series(room, room.bruno)
    await answer(room, room.ana, found[0], Attendance.ACCEPTED)
    for person in room.pair.people:
        await room.told(person)
    said = room.now
    room.pass_time(minutes=5)
    yes = Response(found[0].series_id or found[0].id, 9, room.now, Attendance.ACCEPTED, found[1].starts_at)
    async with room.database.transaction() as tx:
        actor = Actor(room.bruno.id, "calendar")
        await attendances.respond(tx, actor, yes, now=room.now)
        no = replace(yes, stamp=said, answer=Attendance.DECLINED, occurrence=None)
        await attendances.respond(tx, actor, no, now=room.now)
    text, asked, _ = await room.question(room.bruno)
    assert text.split("\n")[1:] == [TIMES[0], TIMES[2]]
    assert await room.tap(room.bruno, asked, "❌") == ["The appointments stand."]
    assert await room.tap(room.bruno, asked, "✅") == []
    expected = [Status.CANCELLED, Status.CONFIRMED, Status.CANCELLED]
    assert [await status(room, one) for one in found] == expected


async def test_what_was_declined_is_cancelled_by_a_tap(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    await answer(room, room.ana, one, Attendance.DECLINED)
    text, asked, _ = await room.question(room.ana)
    assert text.startswith(f"Você recusou {DEZ} no seu calendário. A supervisão continua marcada:")
    assert await room.tap(room.ana, asked, "✅") == []
    assert await room.told(room.bruno) == [f"Ana cancelled {TEN}."]
    assert await status(room, one) is Status.CANCELLED


async def test_a_late_cancellation_by_a_tap_says_so(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    await answer(room, room.bruno, one, Attendance.DECLINED)
    _, asked, _ = await room.question(room.bruno)
    room.pass_time(hours=20)
    said = await room.tap(room.bruno, asked, "✅")
    assert said is not None
    assert said[0].startswith(f"Cancelled: {TEN}")
    assert await status(room, one) is Status.CANCELLED


async def test_what_was_booked_for_somebody_is_declined_by_a_tap(room: Conversation) -> None:
    one = await booked(room, room.ana)
    await answer(room, room.bruno, one, Attendance.DECLINED)
    _, asked, _ = await room.question(room.bruno)
    assert await room.tap(room.bruno, asked, "✅") == []
    assert await status(room, one) is Status.DECLINED


async def test_a_declined_request_is_declined_by_a_tap(room: Conversation) -> None:
    await room.say(room.bruno, "!book 24/11 10:00")
    _, asked, _ = await room.question(room.ana)
    async with room.database.transaction() as tx:
        assert asked.appointment_id is not None
        one = await appointments.get(tx, Actor(room.ana.id, "web"), asked.appointment_id)
    await answer(room, room.ana, one, Attendance.DECLINED)
    text, asked, _ = await room.question(room.ana)
    assert text == (
        f"Você recusou {DEZ} no seu calendário. O pedido continua em aberto: ✅ recusa, ❌ deixa em aberto. "
        "Por escrito: !recusar ou !recusar não."
    )
    assert await room.tap(room.ana, asked, "❌") == [f"O pedido continua em aberto: {DEZ}."]
    assert await room.tap(room.ana, asked, "✅") == []
    assert await status(room, one) is Status.DECLINED


async def test_a_tap_on_what_has_moved_since_is_out_of_date(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    await answer(room, room.bruno, one, Attendance.DECLINED)
    _, asked, _ = await room.question(room.bruno)
    await room.say(room.ana, "!remarcar 1 24/11 15:00")
    await room.say(room.bruno, "!accept 1")
    with pytest.raises(Stale):
        await room.tap(room.bruno, asked, "✅")


async def test_news_of_an_answer_that_was_changed_is_not_told(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    await answer(room, room.bruno, one, Attendance.DECLINED)
    await answer(room, room.bruno, one, Attendance.ACCEPTED)
    assert await room.told(room.bruno) == []
    assert await room.told(room.ana) == [f"Bruno aceitou no calendário: {DEZ}."]


@pytest.mark.parametrize("ended", [Status.DECLINED, Status.CANCELLED])
async def test_a_series_is_declined_and_called_off_by_a_tap(room: Conversation, ended: Status) -> None:
    booker = room.ana if ended is Status.DECLINED else room.bruno
    found = await booked_series(room, booker)
    if ended is Status.CANCELLED:
        assert await answer(room, room.ana, found[0], Attendance.ACCEPTED) is Outcome.CONFIRMED
    for person in room.pair.people:
        await room.told(person)
    await answer(room, room.ana, found[0], Attendance.TENTATIVE)
    assert await room.told(room.bruno) == [
        "\n".join(["Ana answered maybe to the series in the calendar (Sao Paulo):", *TIMES])
    ]
    await answer(room, room.bruno, found[0], Attendance.DECLINED)
    text, asked, _ = await room.question(room.bruno)
    assert text.split("\n") == [
        "You declined the series in your calendar. All of these still stand (Sao Paulo): ✅ cancels them, ❌ keeps "
        "them. In words: !cancel 1 all or !cancel no.",
        *TIMES,
    ]
    assert await room.tap(room.bruno, asked, "✅") == []
    assert [await status(room, one) for one in found] == [ended] * 3


async def test_a_declined_series_of_requests_is_declined_by_a_tap(room: Conversation) -> None:
    found = await booked_series(room, room.bruno)
    await room.told(room.ana)
    await answer(room, room.ana, found[0], Attendance.DECLINED)
    text, asked, _ = await room.question(room.ana)
    assert text.split("\n")[1:] == HORARIOS
    assert await room.tap(room.ana, asked, "✅") == []
    assert [await status(room, one) for one in found] == [Status.DECLINED] * 3


async def test_a_refusal_is_told_with_what_is_possible(room: Conversation) -> None:
    one = await booked(room, room.bruno)
    counter = Counter(FIRST + timedelta(hours=12))
    with pytest.raises(NotFound) as refused:
        await answer(room, room.bruno, one, counter)
    async with room.database.transaction() as tx:
        response = Response(one.id, 1, room.now, counter)
        await attendances.tell_refused(tx, Actor(room.bruno.id, "calendar"), response, refused.value, now=room.now)
    assert await room.told(room.bruno) == [
        "What your calendar answered changed nothing.\nThat time is not offered. See the free times."
    ]


async def test_a_mail_by_hand_is_no_answer_of_a_calendar(room: Conversation) -> None:
    async with room.database.transaction() as tx:
        actor = Actor(room.bruno.id, "calendar")
        await attendances.tell_refused(tx, actor, None, NotUnderstood("refused.mail_not_read"), now=room.now)
    assert await room.told(room.bruno) == [
        "The mail that you wrote to your calendar's reply address was not read: only calendars' answers are. Write "
        "here instead; !help shows what can be asked."
    ]


async def test_mail_that_comes_back_is_told_to_both_once(room: Conversation) -> None:
    notices = [Notice(room.bruno.id, Channel.MAIL, "sign_in", {}) for _ in range(2)]
    for notice in notices:
        async with room.database.transaction() as tx:
            await notifications.enqueue(tx, [notice], now=room.now)
            await mailboxes.stop(tx, notice.id, "5.1.1", now=room.now)
    assert await room.told(room.ana) == [
        "Os e-mails para Bruno estão voltando; o calendário de Bruno pode estar desatualizado. Combinem as mudanças "
        "por aqui."
    ]
    assert await room.told(room.bruno) == [
        "Mails to your address come back, so invitations and reminders by mail have stopped. If the address is right, "
        "sign in to the dashboard by mail and they go on; if it is not, ask whoever looks after this Visavis to "
        "correct it."
    ]

"""Series, the waiting list and time off, as they are asked for and answered in a room."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from supervision import waits
from supervision.db import Database
from supervision.models import appointments, dated_exceptions, questions
from supervision.pairs import Pair
from tests.support.sample import add_pair, add_person
from tests.support.talking import Room


@pytest.fixture
async def room(database: Database, now: datetime) -> Room:
    """Ana, booked from 9 to 18 on working days, and Bruno; both in São Paulo, both read English."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now, language="en")
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    return Room(database, await add_pair(database, now=now, supervisor=ana, supervisee=bruno), now)


async def beside(room: Room) -> Room:
    """Ana's room with Clara."""
    clara = await add_person(room.database, "Clara", ["supervisee"], now=room.now, language="en")
    pair = await add_pair(room.database, now=room.now, supervisor=room.pair.supervisor, supervisee=clara)
    return Room(room.database, pair, room.now)


async def statuses(database: Database, pair: Pair) -> list[str]:
    query = select(appointments.c.status).where(appointments.c.pair_id == pair.id).order_by(appointments.c.starts_at)
    async with database.transaction() as tx:
        return list(await tx.scalars(query))


async def days_off(database: Database) -> list[str]:
    query = select(dated_exceptions.c.first_on, dated_exceptions.c.last_on)
    async with database.transaction() as tx:
        return [f"{first} {last}" for first, last in await tx.execute(query)]


@pytest.mark.parametrize(
    "text", ["!series tue 10h weekly 3x", "!serie toda terça 10h até 8/12", "!series 24/11 10:00 weekly until 8/12"]
)
async def test_a_series_is_booked(room: Room, text: str) -> None:
    assert await room.hear(text) == [
        "Request sent: weekly series, 3 times (Sao Paulo). Ana has to confirm by Tue 24 Nov, 10:00.",
        "- Tue 24 Nov, 10:00–10:50",
        "- Tue 1 Dec, 10:00–10:50",
        "- Tue 8 Dec, 10:00–10:50",
    ]
    assert await statuses(room.database, room.pair) == ["requested"] * 3


async def test_a_series_begins_with_a_number_of_the_list(room: Room) -> None:
    listed = await room.hear("!series tue")
    assert listed[2] == "2. Tue 24 Nov, 10:00–10:50"
    assert listed[-1] == "Which of them comes first? Answer with its number: !series 2 weekly 10x."
    assert (room.last and room.last.ask and room.last.ask.tappable) is False
    assert await room.hear("!series 2 every other week 2x") == [
        "Request sent: fortnightly series, 2 times (Sao Paulo). Ana has to confirm by Tue 24 Nov, 10:00.",
        "- Tue 24 Nov, 10:00–10:50",
        "- Tue 8 Dec, 10:00–10:50",
    ]


async def test_what_a_series_lacks_is_asked_for(room: Room) -> None:
    often = "How often? Say weekly, every other week or monthly: !series tue 10h weekly 10x. Nothing was booked."
    long = (
        "How many times, or until when? For example !series tue 10h weekly 10x, or !series tue 10h weekly until 30/6."
        " Nothing was booked."
    )
    assert await room.hear("!series tue 10h 10x") == [often]
    assert await room.hear("!series tue 10h weekly") == [long]
    assert (await room.hear("!series weekly"))[0] == "Free with Ana (Sao Paulo)"
    assert await statuses(room.database, room.pair) == []


@pytest.mark.parametrize("text", ["!series tue 10h weekly 10000x", "!series tue 10h monthly 50x"])
async def test_a_series_that_is_too_long_is_refused(room: Room, text: str) -> None:
    assert len(await room.hear(text)) == 1
    assert await statuses(room.database, room.pair) == []


async def test_a_series_does_not_end_before_it_begins(room: Room) -> None:
    backwards = ["The last day lies before the first. Nothing was changed."]
    assert await room.hear("!series 25/12 10:00 weekly until 1/12") == backwards
    assert await statuses(room.database, room.pair) == []
    assert len(await room.ana("!series 24/11 10:00 weekly until 30/6")) == 12


async def test_what_clashes_is_named_and_left_out_as_asked(room: Room) -> None:
    clara = await beside(room)
    await clara.hear("!book 1/12 10:00")
    assert await room.hear("!series tue 10h weekly 3x") == [
        "These times of the series cannot be booked (Sao Paulo): Tue 1 Dec, 10:00. Nothing was booked. "
        "The same with skip at the end leaves them out."
    ]
    assert await statuses(room.database, room.pair) == []
    assert await room.hear("!series tue 10h weekly 3x skip") == [
        "Request sent: weekly series, 2 times (Sao Paulo). Ana has to confirm by Tue 24 Nov, 10:00.",
        "- Tue 24 Nov, 10:00–10:50",
        "- Tue 8 Dec, 10:00–10:50",
        "Left out, because they cannot be booked: Tue 1 Dec, 10:00.",
    ]


async def test_a_long_series_and_its_clashes_are_told_in_few_lines(room: Room) -> None:
    clara = await beside(room)
    await clara.ana("!series tue 10h weekly 12x")
    taken = await room.hear("!series tue 10h weekly 12x")
    assert taken[0].count(";") == 10
    assert "; and 2 more. Nothing was booked." in taken[0]
    none = await room.hear("!series tue 10h weekly 12x skip")
    assert none[0].startswith("None of the times of this series can be booked")
    booked = await room.ana("!series tue 11h weekly 12x")
    assert booked[0] == "Booked for Bruno: weekly series, 12 times (Sao Paulo). Bruno has been told and can decline."
    assert len(booked) == 12
    assert await statuses(room.database, room.pair) == ["confirmed"] * 12


async def test_what_is_free_is_listed_instead_of_waited_for(room: Room) -> None:
    listed = await room.hear("!waitlist tue at 10")
    assert listed[:3] == [
        "There is something free then, so there is nothing to wait for:",
        "Free with Ana (Sao Paulo)",
        "1. Tue 24 Nov, 10:00–10:50",
    ]
    assert await waiting(room) == 0


async def waiting(room: Room) -> int:
    async with room.database.transaction() as tx:
        return len(await waits.list_of(tx, room.pair.id))


async def test_somebody_waits_and_leaves(room: Room) -> None:
    how = (
        "As soon as one of these becomes free, I keep it for you for up to 4 hours and tell you. "
        "!waitlist off leaves the list."
    )
    head = "You are on Ana's waiting list for (Sao Paulo):"
    assert await room.hear("!waitlist sat") == [head, "- Sat 28 Nov, any time", how]
    assert await room.hear("!espera 29/11 tarde") == [head, "- Sun 29 Nov, 12:00–19:00", how]
    assert await room.hear("!waitlist 24/11 20:00") == [head, "- Tue 24 Nov, 20:00", how]
    foot = "!waitlist tue adds a day; !waitlist off leaves the list."
    waited = ["- Tue 24 Nov, 20:00", "- Sat 28 Nov, any time", "- Sun 29 Nov, 12:00–19:00"]
    assert await room.hear("!waitlist") == ["You are waiting for a time with Ana (Sao Paulo):", *waited, foot]
    left = await room.hear("!waitlist off sat")
    assert left == [
        "Taken off the list. What remains:",
        "You are waiting for a time with Ana (Sao Paulo):",
        waited[0],
        waited[2],
        foot,
    ]
    assert await room.hear("!waitlist off mon") == ["You are not waiting for that. Nothing was changed."]
    assert await room.hear("!espera sair") == ["You are no longer on the waiting list."]
    assert await waiting(room) == 0
    assert await room.hear("!waitlist off") == ["You are not waiting for that. Nothing was changed."]


async def test_the_supervisor_does_not_learn_who_waits(room: Room) -> None:
    await room.hear("!waitlist sat")
    answers = [await room.ana(text) for text in ("!waitlist", "!waitlist tue", "!espera sair", "!waitlist yes")]
    assert len({tuple(said) for said in answers}) == 1
    assert "Bruno" not in answers[0][0]


async def test_what_is_on_offer_is_taken_or_passed_by_in_words(room: Room) -> None:
    clara = await beside(room)
    for hour in range(9, 18):
        await clara.ana(f"!book tue {hour:02}:00")
    assert await room.hear("!waitlist yes") == [
        "No time is being kept for you right now. !waitlist shows what you are waiting for."
    ]
    assert (await room.hear("!waitlist tue"))[1] == "- Tue 24 Nov, any time"
    await offer(room, clara, 1)
    shown = await room.hear("!waitlist")
    assert shown[2] == (
        "Kept for you until Mon 23 Nov, 13:00 (Sao Paulo): Tue 24 Nov, 09:00–09:50 (Sao Paulo). "
        "!waitlist yes books it, !waitlist no passes it by."
    )
    assert await room.hear("!espera não") == [
        "Passed by: Tue 24 Nov, 09:00–09:50 (Sao Paulo). You stay on the waiting list."
    ]
    await offer(room, clara, 1)
    assert await room.hear("!waitlist yes") == [
        "Request sent: Tue 24 Nov, 10:00–10:50 (Sao Paulo). Ana has to confirm."
    ]
    assert await statuses(room.database, room.pair) == ["requested"]


async def offer(room: Room, other: Room, number: int) -> None:
    """Somebody calls an appointment off, and it is offered to whoever waits."""
    await other.hear("!appointments")
    await other.hear(f"!cancel {number}")
    async with room.database.transaction() as tx:
        await waits.offer_freed(tx, room.now)


OTHERS = (
    "Appointments with others in that time would be treated alike; they are listed only on your dashboard: "
    "http://localhost/away?first=2026-11-24&last=2026-11-27"
)
UNFINISHED = [
    "That could not be finished here. Nothing was changed. Your dashboard shows how things stand: "
    "http://localhost/away?first=2026-11-24&last=2026-11-27"
]


def question(code: str) -> str:
    return (
        f"!away {code} cancel calls all of them off; !away {code} move proposes other times. "
        "Until then nothing changes."
    )


async def test_away_lists_only_what_is_of_this_pair(room: Room) -> None:
    clara = await beside(room)
    await room.hear("!book 24/11 10:00")
    await clara.hear("!book 25/11 10:00")
    assert await room.ana("!away 24/11 to 27/11") == [
        "Away Tue 24 Nov – Fri 27 Nov. With Bruno this falls into it (Sao Paulo):",
        "- Tue 24 Nov, 10:00–10:50",
        OTHERS,
        question(room.code),
    ]


async def test_away_says_the_same_whether_others_have_appointments_or_not(room: Room) -> None:
    clara = await beside(room)

    async def asked() -> list[str]:
        lines = await room.ana("!away 24/11 to 27/11")
        return [line.replace(room.code, "4821") for line in lines]

    before = await asked()
    await clara.hear("!book 25/11 10:00")
    assert await asked() == before
    assert before == [
        "Away Tue 24 Nov – Fri 27 Nov. With Bruno nothing falls into it (Sao Paulo).",
        OTHERS,
        question("4821"),
    ]


async def test_the_code_calls_everything_off(room: Room) -> None:
    clara = await beside(room)
    await room.hear("!book 24/11 10:00")
    await clara.hear("!book 25/11 10:00")
    await room.hear("!book 30/11 10:00")
    await room.ana("!away 24/11 to 27/11")
    assert await room.ana(f"!away {room.code} cancel") == [
        "Time off set: Tue 24 Nov – Fri 27 Nov. What fell into it was cancelled; whoever it concerns has been told. "
        "To take the time off back: !availability 24/11 - 27/11 normal"
    ]
    assert await statuses(room.database, room.pair) == ["cancelled", "requested"]
    assert await statuses(room.database, clara.pair) == ["cancelled"]
    assert await days_off(room.database) == ["2026-11-24 2026-11-27"]


async def test_the_code_proposes_other_times(room: Room) -> None:
    await room.hear("!book 24/11 10:00")
    await room.ana("!away 24/11 to 27/11")
    code = room.code
    assert await room.ana(f"!away {code}") == [
        f"Cancel the appointments or propose other times? Answer !away {code} cancel or !away {code} move."
    ]
    assert (await room.ana(f"!ausencia {code} remarcar"))[0].startswith("Time off set: Tue 24 Nov – Fri 27 Nov. For")
    async with room.database.transaction() as tx:
        proposed = await tx.scalar(select(appointments.c.proposed_starts_at))
    assert proposed == room.now + timedelta(days=8, hours=1)


async def test_a_wrong_code_changes_nothing_and_the_third_closes_the_question(room: Room) -> None:
    await room.hear("!book 24/11 10:00")
    await room.ana("!away 24/11")
    right = room.code
    wrong = f"{(int(right) + 1) % 10_000:04}"
    not_that = "That is not the code of my last question. Nothing was changed."
    assert await room.ana(f"!away {wrong} cancel") == [not_that]
    assert await room.ana(f"!away {wrong} cancel") == [not_that]
    assert (await room.ana(f"!away {wrong} cancel"))[0].startswith("That was the third wrong code")
    none = "No change is waiting for a code. Nothing was changed; please ask for it again."
    assert await room.ana(f"!away {right} cancel") == [none]
    assert await statuses(room.database, room.pair) == ["requested"]
    assert await days_off(room.database) == []


async def test_an_old_code_changes_nothing(room: Room) -> None:
    await room.ana("!away 24/11")
    first = room.code
    await room.ana("!away 25/11")
    second = room.code
    if first != second:
        assert (await room.ana(f"!away {first} cancel"))[0].startswith("That is not the code")
    assert (await room.ana(f"!away {second} cancel"))[0].startswith("Time off set: Wed 25 Nov.")
    assert (await room.ana(f"!away {second} cancel"))[0].startswith("No change is waiting")
    await room.ana("!away 26/11")
    room.now += timedelta(hours=1, seconds=1)
    assert (await room.ana(f"!away {room.code} cancel"))[0].startswith("No change is waiting")
    assert await days_off(room.database) == ["2026-11-25 2026-11-25"]


async def test_what_has_changed_since_the_question_is_not_called_off(room: Room) -> None:
    clara = await beside(room)
    await room.hear("!book 24/11 10:00")
    await room.ana("!away 24/11 to 27/11")
    await clara.hear("!book 25/11 10:00")
    assert await room.ana(f"!away {room.code} cancel") == UNFINISHED
    assert await statuses(room.database, room.pair) == ["requested"]
    assert await days_off(room.database) == []


async def test_a_time_of_another_pair_that_cannot_be_moved_is_not_named(room: Room) -> None:
    clara = await beside(room)
    await clara.hear("!book 25/11 10:00")
    await room.ana("!availability weekdays off")
    await room.ana(f"!availability {room.code}")
    await room.ana("!away 24/11 to 27/11")
    assert await room.ana(f"!away {room.code} move") == UNFINISHED
    assert await statuses(room.database, clara.pair) == ["requested"]


async def test_an_own_time_that_cannot_be_moved_is_told_in_the_same_words(room: Room) -> None:
    await room.hear("!book 25/11 10:00")
    await room.ana("!availability weekdays off")
    await room.ana(f"!availability {room.code}")
    await room.ana("!away 24/11 to 27/11")
    assert await room.ana(f"!away {room.code} move") == UNFINISHED


async def test_days_of_another_year_are_told_with_it(room: Room) -> None:
    asked = await room.ana("!away 20/12 to 10/1")
    assert asked[0] == "Away Sun 20 Dec – Sun 10 Jan 2027. With Bruno nothing falls into it (Sao Paulo)."
    assert asked[1].endswith(": http://localhost/away?first=2026-12-20&last=2027-01-10")
    done = await room.ana(f"!away {room.code} cancel")
    assert done[0].endswith("!availability 20/12 - 10/01/2027 normal")
    assert await room.ana("!availability 20/12 - 10/01/2027 normal") != ["There is no exception on those days."]


async def test_times_far_ahead_are_told_with_their_year(room: Room) -> None:
    for day in ("9/12", "12/1/2027", "9/6/2027"):
        await room.ana(f"!book {day} 10:00")
    assert [line.partition(", ")[0] for line in await room.hear("!appointments")][1:] == [
        "1. Wed 9 Dec",
        "2. Tue 12 Jan",
        "3. Wed 9 Jun 2027",
    ]


async def test_a_long_list_shows_a_dozen_and_where_the_rest_is(room: Room) -> None:
    await room.ana("!series tue 10h weekly 15x")
    await room.ana("!book 2/12 10:00")
    listed = await room.hear("!appointments")
    assert len(listed) == 14
    assert listed[12].startswith("12. Tue 2 Feb 2027, 10:00–10:50")
    assert listed[13] == ("- and 4 more; !appointments december shows a month, your dashboard all: http://localhost")
    assert await room.hear("!cancel 13") == ["The last list has no number 13. Send !appointments to see it again."]
    december = await room.hear("!appointments december")
    assert [line.partition(",")[0] for line in december[1:]] == [
        "1. Tue 1 Dec",
        "2. Wed 2 Dec",
        "3. Tue 8 Dec",
        "4. Tue 15 Dec",
        "5. Tue 22 Dec",
        "6. Tue 29 Dec",
    ]
    assert await room.hear("!cancel 2") == ["Cancelled: Wed 2 Dec, 10:00–10:50 (Sao Paulo). Ana has been told."]
    assert (await room.hear("!appointments 2/12"))[0].startswith("There are no appointments with Ana then.")


async def test_the_list_shown_last_counts_though_the_clock_was_set_back(room: Room) -> None:
    await room.ana("!series tue 10h weekly 3x")
    await room.ana("!book 2/12 10:00")
    assert (await room.hear("!appointments"))[2].startswith("2. Tue 1 Dec")
    room.now -= timedelta(minutes=5)
    assert (await room.hear("!appointments december"))[2].startswith("2. Wed 2 Dec")
    assert await room.hear("!cancel 2") == ["Cancelled: Wed 2 Dec, 10:00–10:50 (Sao Paulo). Ana has been told."]


async def test_a_number_before_any_list_is_named(room: Room) -> None:
    assert await room.hear("!book 99") == ["You have seen no list yet. Send !slots first."]
    for day in (24, 25, 26):
        await room.hear(f"!book {day}/11 10:00")
    said = await room.ana("!confirm 9")
    assert said[0] == "There is no number 9. These are there:"
    assert (len(said), said[-1]) == (6, "Which one? Answer !accept 1, with the number.")


async def test_an_answer_that_is_none_is_asked_back(room: Room) -> None:
    await room.ana("!away 24/11 to 27/11")
    code = room.code
    assert await room.ana(f"!away {code} postpone") == [
        f"Cancel the appointments or propose other times? Answer !away {code} cancel or !away {code} move."
    ]


async def test_only_the_supervisor_goes_away(room: Room) -> None:
    for text in ("!away 24/11", "!away 4821 cancel", "!away"):
        assert await room.hear(text) == ["Only the supervisor takes time off here. Nothing was changed."]
    async with room.database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(questions)) == 0


SENSELESS = [
    ("!away", "From when to when? This works: !away 20/12 to 10/1"),
    (
        "!away soon",
        "I did not understand the days. This works: !away 20/12 to 10/1. "
        "A few hours only: !availability 24/12 14:00-18:00 off",
    ),
    ("!away 20/11 to 22/11", "Those days are over. Nothing was changed."),
    ("!away 10/1/2027 to 20/12/2026", "The last day lies before the first. Nothing was changed."),
    ("!away 4/12 to 1/12", "The last day lies before the first. Nothing was changed."),
    ("!ausencia 24/11 a 22/11", "The last day lies before the first. Nothing was changed."),
    ("!away 31/2", "That day does not exist. Nothing was changed."),
    (
        "!away next week",
        "That can be more than one day. Name the first and the last by date, for example 20/12 to 10/1. "
        "Nothing was changed.",
    ),
]


async def test_days_that_make_no_sense_are_refused(room: Room) -> None:
    for text, said in SENSELESS:
        assert await room.ana(text) == [said]
    assert await days_off(room.database) == []

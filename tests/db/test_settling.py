"""The pair's policies and the supervisor's hours: shown to both, changed by her with a code."""

import uuid
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from supervision import availability, jobs, pairs, policies
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.hours import Availability, DatedException
from supervision.models import Approval, Exceptional, audit_entries, questions
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person
from tests.support.talking import Room


@pytest.fixture
async def room(database: Database, now: datetime) -> Room:
    """Ana in São Paulo, booked from 9 to 18 on working days, and Bruno in Lisbon; both read English."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now, language="en")
    return Room(database, await add_pair(database, now=now, supervisor=ana), now)


async def rules_of(room: Room) -> Availability:
    async with room.database.transaction() as tx:
        return await availability.load(tx, room.pair.supervisor.id)


POLICIES = [
    "- Ana confirms each booking, within 2 days",
    "- Length: 50 min",
    "- Booking: at least 1 hour before",
    "- Cancelling: later than 1 day before counts as late",
    "- Moving: at least 2 hours before",
    "- Bookable for the coming 60 days",
    "- No limit a day or a week",
    "- Kept free after each: 10 minutes",
    "- A time begins every 1 hour",
    "- A freed time is kept for the waiting list for 4 hours",
    "- Online",
]
ROOM = [
    "- Files: images, audio, PDF, documents, and text, up to 25 MB each",
    "- Messages and files stay without a limit",
    "- An unread message: a mail says so after 30 minutes",
    "- Taking a copy of the room home: only if both agree",
    "- The room has no date on which it closes",
]


async def test_both_read_what_holds(room: Room) -> None:
    shown = await room.hear("!settings")
    assert shown == ["What holds for Ana and Bruno:", *POLICIES, *ROOM]
    hers = await room.ana("!configurar")
    assert hers[:-2] == shown
    assert hers[-2].startswith("To change one: !settings notice 24h")
    assert hers[-1].startswith("Also: !settings attachments no")


async def test_a_setting_is_changed_by_its_code(room: Room) -> None:
    assert await room.ana("!settings notice 24h") == [
        "Now:",
        "- Booking: at least 1 hour before",
        "Then:",
        "- Booking: at least 1 day before",
        "That is for all whom you supervise. What is booked stays.",
        f"Is that right? Type !settings {room.code}. Until then nothing changes.",
    ]
    assert (await rules_of(room)).notice == 60
    assert await room.ana(f"!settings {room.code}") == ["Changed. What holds now:", "- Booking: at least 1 day before"]
    assert (await rules_of(room)) == replace(OPEN_HOURS, notice=1440)


async def test_what_is_tried_leaves_no_trace(room: Room) -> None:
    async def entries() -> int:
        async with room.database.transaction() as tx:
            return await tx.scalar(select(func.count()).select_from(audit_entries)) or 0

    before = await entries()
    await room.ana("!settings notice 24h")
    await room.ana("!availability sat 9:00-12:00")
    assert await entries() == before
    await room.ana(f"!availability {room.code}")
    assert await entries() == before + 1


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("!settings cancel 2 days", {"cancel_notice": 2880}),
    ("!configurar remarcar 1 dia", {"move_notice": 1440}),
    ("!settings answer 1h30", {"answer": 90}),
    ("!configurar oferta 30 min", {"offer": 30}),
    ("!settings day 6", {"day_limit": 6}),
    ("!configurar semana 20 por semana", {"week_limit": 20}),
    ("!settings buffer 15", {"buffer_after": 15}),
    ("!configurar intervalo 5 e 20 min", {"buffer_before": 5, "buffer_after": 20}),
    ("!settings grid 30 min", {"grid": 30}),
    ("!configurar horizonte 12 semanas", {"horizon": 84}),
    ("!settings place Rua Augusta, 100 {room}", {"place": "Rua Augusta, 100 {room}"}),
    ("!settings holidays br-sp", {"country": "BR", "subdivision": "SP"}),
    ("!settings length 60 for all", {"length": 60}),
    ("!configurar aprovacao automatica para todos", {"approval": Approval.AUTOMATIC}),
]
VALIDITIES: list[tuple[str, date | None, date | None]] = [
    ("!settings valid 01/12 30/06", date(2026, 12, 1), date(2027, 6, 30)),
    ("!configurar validade de 1/12 a 15/12", date(2026, 12, 1), date(2026, 12, 15)),
    ("!settings valid from 10/12", date(2026, 12, 10), None),
    ("!configurar vigência até 30/6/2027", None, date(2027, 6, 30)),
    ("!settings valid off", None, None),
]


async def test_every_setting_can_be_changed(room: Room) -> None:
    rules = OPEN_HOURS
    for text, changes in CHANGES:
        asked = await room.ana(text)
        assert (asked[0], asked[2]) == ("Now:", "Then:")
        done = await room.ana(f"!configurar {room.code}")
        assert done == ["Changed. What holds now:", asked[3]]
        rules = replace(rules, **changes)
        assert await rules_of(room) == rules


async def test_weekly_hours_begin_and_end_on_a_day(room: Room) -> None:
    for text, since, until in VALIDITIES:
        await room.ana(text)
        await room.ana(f"!settings {room.code}")
        assert await rules_of(room) == replace(OPEN_HOURS, valid_from=since, valid_until=until)
    assert await room.ana("!settings valid 1/12 to 30/6") == [
        "Then:",
        "- Weekly hours from Tue 1 Dec on",
        "- Weekly hours until Wed 30 Jun 2027",
        "That is for all whom you supervise. What is booked stays.",
        f"Is that right? Type !settings {room.code}. Until then nothing changes.",
    ]


async def test_what_holds_for_all_is_changed_where_the_room_has_its_own(room: Room) -> None:
    for text in ("!settings lengths 50 90", "!settings approval automatic"):
        await room.ana(text)
        await room.ana(f"!settings {room.code}")
    assert (await room.ana("!settings length 60 for all"))[:5] == [
        "Now:",
        "- Length where nothing else is settled for a room: 50 minutes",
        "Then:",
        "- Length where nothing else is settled for a room: 1 hour",
        "That is for all whom you supervise. What is booked stays.",
    ]
    await room.ana(f"!settings {room.code}")
    assert (await room.ana("!settings approval automatic for all"))[3] == (
        "- Where nothing else is settled for a room, a booking counts at once"
    )
    await room.ana(f"!settings {room.code}")
    assert await rules_of(room) == replace(OPEN_HOURS, length=60, approval=Approval.AUTOMATIC)


async def test_a_place_of_its_own_is_told_in_words(room: Room) -> None:
    await room.ana("!settings place https://meet.example.org/{room}")
    await room.ana(f"!settings {room.code}")
    assert (await room.hear("!settings"))[-len(ROOM) - 1] == (
        "- Online: an address of its own for each appointment (https://meet.example.org/…)"
    )


async def test_a_code_that_is_wrong_is_noted(room: Room) -> None:
    await room.ana("!settings 4821")
    await room.ana("!settings notice 24h")
    wrong = f"{(int(room.code) + 1) % 10_000:04}"
    for _ in range(3):
        await room.ana(f"!settings {wrong}")
    query = (
        select(audit_entries.c.reason, audit_entries.c.success)
        .where(audit_entries.c.action == "command")
        .order_by(audit_entries.c.id)
    )
    async with room.database.transaction() as tx:
        assert [tuple(row) for row in await tx.execute(query)] == [
            ("code.none", False),
            ("code.wrong", False),
            ("code.wrong", False),
            ("code.closed", False),
        ]


async def test_what_was_asked_is_kept_no_longer_than_it_can_be_answered(room: Room) -> None:
    async def kept() -> list[dict[str, Any]]:
        async with room.database.transaction() as tx:
            found = await tx.scalars(select(questions.c.details).order_by(questions.c.asked_at))
            return [details for details in found if details]

    await room.ana("!settings place Rua Augusta, 100")
    assert len(await kept()) == 1
    await room.ana(f"!settings {room.code}")
    assert await kept() == []
    await room.ana("!settings place Rua Augusta, 200")
    for hours, left in ((0, 1), (1, 0)):
        room.now += timedelta(hours=hours)
        async with room.database.transaction() as tx:
            await jobs.forget_old(tx, room.now)
        assert len(await kept()) == left


async def test_some_settings_are_of_this_room_alone(room: Room) -> None:
    asked = await room.ana("!settings lengths 50 90")
    assert asked[:5] == [
        "Now:",
        "- Length: 50 min",
        "Then:",
        "- Length: 50, 90 min",
        "That is for this room alone. What is booked stays.",
    ]
    await room.ana(f"!settings {room.code}")
    await room.ana("!settings approval automatic")
    await room.ana(f"!settings {room.code}")
    async with room.database.transaction() as tx:
        pair = await pairs.get(tx, room.pair.id)
        assert (pair.lengths, pair.approval) == ((50, 90), Approval.AUTOMATIC)
        assert (await policies.of(tx, pair)).rules == OPEN_HOURS
    shown = await room.hear("!settings")
    assert shown[1:3] == [
        "- A booking counts at once; Ana answers changes within 2 days",
        "- Length: 50, 90 min",
    ]
    await room.ana("!settings lengths default")
    await room.ana(f"!settings {room.code}")
    async with room.database.transaction() as tx:
        pair = await pairs.get(tx, room.pair.id)
        assert (pair.lengths, pair.approval) == (None, Approval.AUTOMATIC)


REFUSED = [
    ("!settings notice 60 min", "It is so already. Nothing was changed."),
    ("!settings lengths 50 50", "Give one to 6 different lengths, in minutes. Nothing was changed."),
    (
        "!settings holidays XX",
        "I know no public holidays for “XX”. Possible, among others: AR, BR, DE, ES, GB, PT, US.",
    ),
    (
        "!settings notice 24",
        "I did not understand the setting. This works: !settings notice 24h; !settings shows them all",
    ),
    (
        "!settings colour blue",
        "I did not understand the setting. This works: !settings notice 24h; !settings shows them all",
    ),
    ("!settings notice 99999h", "The notice for booking can be at most 30 days. Nothing was changed."),
    ("!settings answer 1 min", "The time to answer has to be between 5 minutes and 30 days. Nothing was changed."),
    (
        "!settings horizon 9999",
        "The time that can be booked ahead has to be between 1 day and 366 days. Nothing was changed.",
    ),
    ("!settings day 1000", "The limit a day has to be between 1 and 100. Nothing was changed."),
    ("!settings lengths 4", "The length has to be between 5 minutes and 12 hours. Nothing was changed."),
    ("!settings place " + "x" * 501, "A place has at most 500 characters. Nothing was changed."),
    ("!settings valid 30/6 1/6", "The last day lies before the first. Nothing was changed."),
    ("!settings 4821", "No change is waiting for a code. Nothing was changed; please ask for it again."),
    ("!availability mon 18:00-9:00", "A range has to end after it begins. Nothing was changed."),
    ("!availability mon 9:00-12:00 11:00-13:00", "Two ranges of one day overlap. Nothing was changed."),
    ("!availability 24/12 normal", "There is no exception on those days. Nothing was changed."),
    ("!availability 31/2 off", "That day does not exist. Nothing was changed."),
    ("!disponibilidade 28/12 a 24/12 folga", "The last day lies before the first. Nothing was changed."),
    (
        "!availability mon maybe",
        "I did not understand the hours. This works: !availability mon-fri 9:00-12:00, or !availability 24/12 off",
    ),
]


async def test_what_makes_no_sense_is_refused_before_a_code_is_asked(room: Room) -> None:
    for text, said in REFUSED:
        assert await room.ana(text) == [said]
    assert await rules_of(room) == OPEN_HOURS


async def test_the_supervisee_settles_nothing(room: Room) -> None:
    await room.ana("!settings notice 24h")
    for text in ("!settings notice 24h", f"!settings {room.code}", "!availability sat off", "!availability 24/12 off"):
        assert await room.hear(text) == ["It is the supervisor who settles that. Nothing was changed."]
    assert await rules_of(room) == OPEN_HOURS


async def test_a_code_is_not_guessed(room: Room) -> None:
    await room.ana("!settings notice 24h")
    right = room.code
    wrong = f"{(int(right) + 1) % 10_000:04}"
    for _ in range(3):
        said = await room.ana(f"!settings {wrong}")
    assert said[0].startswith("That was the third wrong code")
    assert (await room.ana(f"!settings {right}"))[0].startswith("No change is waiting")
    assert await rules_of(room) == OPEN_HOURS


async def test_a_code_of_another_question_or_hour_is_old(room: Room) -> None:
    await room.ana("!settings notice 24h")
    first = room.code
    await room.ana("!availability sat 9:00-12:00")
    second = room.code
    if first != second:
        assert (await room.ana(f"!settings {first}"))[0].startswith("That is not the code")
    room.now += timedelta(hours=1, seconds=1)
    assert (await room.ana(f"!availability {second}"))[0].startswith("No change is waiting")
    assert await rules_of(room) == OPEN_HOURS


async def test_both_read_the_hours(room: Room) -> None:
    assert await room.hear("!availability") == [
        "Ana's hours (Sao Paulo):",
        "- Mon–Fri 09:00–18:00",
        "- Public holidays are days like others",
    ]


async def test_the_week_is_changed(room: Room) -> None:
    asked = await room.ana("!availability mon-fri 09:00-12:00 14:00-18:00")
    assert asked[:5] == [
        "Now:",
        "- Mon–Fri 09:00–18:00",
        "Then:",
        "- Mon–Fri 09:00–12:00, 14:00–18:00",
        "That is for all whom you supervise. What is booked stays.",
    ]
    assert asked[5] == f"Is that right? Type !availability {room.code}. Until then nothing changes."
    await room.ana(f"!disponibilidade {room.code}")
    await room.ana("!disponibilidade qua folga")
    await room.ana(f"!disponibilidade {room.code}")
    await room.ana("!disponibilidade sab 9h-12h")
    await room.ana(f"!disponibilidade {room.code}")
    assert (await room.hear("!availability"))[1:4] == [
        "- Mon–Tue 09:00–12:00, 14:00–18:00",
        "- Thu–Fri 09:00–12:00, 14:00–18:00",
        "- Sat 09:00–12:00",
    ]


async def test_days_are_taken_off_and_back(room: Room) -> None:
    asked = await room.ana("!availability 20/12 to 10/1 off")
    assert asked[:3] == [
        "Then:",
        "- Off: Sun 20 Dec – Sun 10 Jan 2027",
        "That is for all whom you supervise. What is booked stays.",
    ]
    assert asked[3] == "To cancel or move what is booked then, use !away with the same days instead."
    await room.ana(f"!availability {room.code}")
    await room.ana("!availability 24/12 to 26/12 normal")
    await room.ana(f"!availability {room.code}")
    found = [(one.first_on, one.last_on) for one in (await rules_of(room)).exceptions]
    assert sorted(found) == [
        (date(2026, 12, 20), date(2026, 12, 23)),
        (date(2026, 12, 27), date(2027, 1, 10)),
    ]
    await room.ana("!availability 20/12 to 10/1 normal")
    assert await room.ana(f"!availability {room.code}") == ["Changed. What holds now:"]
    assert (await rules_of(room)).exceptions == ()


EXCEPTIONS: list[tuple[str, Exceptional, time | None, time | None, bool]] = [
    ("!availability 05/12 09:00-12:00", Exceptional.EXTRA_HOURS, time(9), time(12), False),
    ("!disponibilidade 5/12 das 13h às 14h", Exceptional.EXTRA_HOURS, time(13), time(14), False),
    ("!availability 5/12 2-6pm off", Exceptional.TIME_OFF, time(14), time(18), False),
    ("!disponibilidade 5/12 folga todo ano", Exceptional.TIME_OFF, None, None, True),
]


async def test_a_day_is_an_exception(room: Room) -> None:
    day = date(2026, 12, 5)
    expected: list[DatedException] = []
    for text, kind, starts, ends, yearly in EXCEPTIONS:
        await room.ana(text)
        await room.ana(f"!availability {room.code}")
        expected.append(DatedException(uuid.UUID(int=0), kind, day, day, starts, ends, yearly))
    found = [replace(one, id=uuid.UUID(int=0)) for one in (await rules_of(room)).exceptions]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


async def test_exceptions_are_told_from_today_on(room: Room) -> None:
    async with room.database.transaction() as tx:
        supervisor = room.pair.supervisor
        for day in (20, 22, *range(24, 30)):
            one = DatedException(uuid.uuid4(), Exceptional.TIME_OFF, date(2026, 11, day), date(2026, 11, day))
            await availability.add_exception(tx, acts(supervisor), supervisor.id, one, now=room.now)
        for month in (1, 2, 3):
            day_of = date(2027, month, 4)
            one = DatedException(
                uuid.uuid4(), Exceptional.EXTRA_HOURS, day_of, day_of, time(9), time(10), yearly=month == 3
            )
            await availability.add_exception(tx, SYSTEM, supervisor.id, one, now=room.now)
    assert (await room.hear("!availability"))[2:] == [
        *(f"- Off: {name} {day} Nov" for day, name in enumerate(("Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), start=24)),
        "- Extra: Mon 4 Jan 2027, 09:00–10:00",
        "- Extra: Thu 4 Feb 2027, 09:00–10:00",
        "- and 1 more",
        "- Public holidays are days like others",
    ]


async def test_holidays_are_named_as_the_reader_knows_the_country(room: Room) -> None:
    await room.ana("!settings holidays BR SP")
    assert await room.ana(f"!settings {room.code}") == [
        "Changed. What holds now:",
        "- No weekly hours on public holidays: Brazil (SP)",
    ]


async def test_a_supervisor_without_rules_begins_with_her_week(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now, language="en")
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, language="en")
    async with database.transaction() as tx:
        room = Room(database, await pairs.add(tx, SYSTEM, ana, bruno, now=now), now)
    none = ["No hours have been set for this supervision yet."]
    assert await room.hear("!settings") == await room.hear("!availability") == none
    asked = await room.ana("!availability mon 9:00-12:00")
    assert asked[0] == "Then:"
    await room.ana(f"!availability {room.code}")
    assert (await room.hear("!availability"))[1] == "- Mon 09:00–12:00"

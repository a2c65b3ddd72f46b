"""The waiting list: who is offered what, until when, and who is told. Races with new bookings of the same slot."""

import asyncio
import os
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from embedded.postgresql import PostgreSQL
from supervision import appointments, availability, holds, jobs, pairs, people, waits
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.db import Database, lock_people
from supervision.errors import (
    AlreadyAnswered,
    NotAllowed,
    NotFound,
    NotUnderstood,
    PairArchived,
    Refused,
    SlotTaken,
    Stale,
    TooLate,
)
from supervision.hours import Availability, DatedException
from supervision.models import Approval, Exceptional, Status, audit_entries, notifications
from supervision.models import holds as holds_table
from supervision.models import people as people_table
from supervision.models import waits as table
from supervision.pairs import Pair
from supervision.people import Person
from supervision.waits import Offer, Wait
from tests.support.races import blind, drop_constraint
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo
HOUR = timedelta(hours=1)
ENDS = TEN + timedelta(minutes=50)
AT_TEN = [(TEN, TEN + timedelta(minutes=1))]
ROUNDS = 300 if os.environ.get("VISAVIS_LONG") == "1" else 20
LET_GO = timedelta(hours=4)  # how long an offer stays open


async def add_line(database: Database, now: datetime, *, rules: Availability = OPEN_HOURS, most: int = 3) -> list[Pair]:
    """Ana and the supervisees Bruno, Clara, Davi … of hers."""
    names = ["Bruno", "Clara", "Davi", "Elisa", "Fábio", "Gil", "Hugo", "Inês"][:most]
    line: list[Pair] = []
    for name in names:
        supervisee = await add_person(database, name, ["supervisee"], now=now)
        supervisor = line[0].supervisor if line else None
        line.append(await add_pair(database, now=now, supervisor=supervisor, supervisee=supervisee, rules=rules))
    return line


async def book(database: Database, pair: Pair, now: datetime, starts_at: datetime = TEN) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


async def cancel(database: Database, person: Person, appointment: Appointment, now: datetime) -> None:
    async with database.transaction() as tx:
        await appointments.cancel(tx, acts(person), appointment.id, now=now)


async def join(database: Database, pair: Pair, now: datetime, ranges: list[tuple[datetime, datetime]] = AT_TEN) -> Wait:
    async with database.transaction() as tx:
        return await waits.join(tx, acts(pair.supervisee), pair, ranges, now=now)


async def run(database: Database, now: datetime) -> int:
    async with database.transaction() as tx:
        return await waits.offer_freed(tx, now)


async def read(database: Database, wait: Wait) -> Wait:
    async with database.transaction() as tx:
        found = await waits.find(tx, wait.id)
    assert found is not None
    return found


async def told(database: Database) -> list[tuple[str, str, str]]:
    """The news of waiting lists as (kind, channel, person), in their order."""
    async with database.transaction() as tx:
        names = {person.id: person.name for person in await people.list_all(tx)}
        rows = await tx.execute(
            select(notifications).where(notifications.c.kind.like("wait.%")).order_by(notifications.c.position)
        )
        return [(row.kind, row.channel, names[row.person_id]) for row in rows]


async def audited(database: Database) -> list[tuple[str, uuid.UUID | None]]:
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries).where(audit_entries.c.resource == "wait").order_by(audit_entries.c.id)
        )
        return [(row.action, row.actor_id) for row in rows]


async def held_by_offers(database: Database) -> list[tuple[uuid.UUID, datetime, datetime]]:
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(holds_table).where(holds_table.c.wait_id.is_not(None)).order_by(holds_table.c.during)
        )
        return [(row.person_id, row.during.lower, row.during.upper) for row in rows]


async def offer_at_ten(database: Database, now: datetime, **values: Any) -> tuple[list[Pair], list[Wait]]:
    """Ten o'clock was Bruno's; Clara waited for it first, then Davi; now it is on offer to Clara."""
    line = await add_line(database, now, rules=replace(OPEN_HOURS, **values))
    appointment = await book(database, line[0], now)
    waiting = [await join(database, pair, now + timedelta(seconds=place)) for place, pair in enumerate(line[1:])]
    assert await run(database, now) == 0
    await cancel(database, line[0].supervisee, appointment, now)
    assert await run(database, now) == 1
    return line, waiting


async def test_a_freed_time_is_kept_for_the_first_in_line_alone(database: Database, now: datetime) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    assert (await read(database, clara)).offer == Offer(TEN, ENDS, now + LET_GO)
    assert (await read(database, davi)).offer is None
    assert await held_by_offers(database) == [
        (line[1].supervisee.id, TEN, ENDS),
        (line[1].supervisor.id, TEN, ENDS + timedelta(minutes=10)),
    ]
    assert await told(database) == [("wait.offered", "matrix", "Clara"), ("wait.offered", "mail", "Clara")]
    async with database.transaction() as tx:
        row = (await tx.execute(select(notifications).where(notifications.c.kind == "wait.offered").limit(1))).one()
    assert row.details == {
        "by": None,
        "wait": str(clara.id),
        "slot": [TEN.isoformat(), ENDS.isoformat()],
        "until": (now + LET_GO).isoformat(),
    }
    assert (row.pair_id, row.appointment_id, row.revision) == (line[1].id, None, None)
    assert row.expires_at == now + LET_GO
    assert await audited(database) == [
        ("wait.join", line[1].supervisee.id),
        ("wait.join", line[2].supervisee.id),
        ("wait.offer", None),
    ]
    assert await run(database, now) == 0


async def test_what_is_on_offer_is_nobody_else_s_to_book(database: Database, now: datetime) -> None:
    line, _ = await offer_at_ten(database, now)
    for pair in (line[0], line[2]):
        with pytest.raises(SlotTaken):
            await book(database, pair, now)
    async with database.transaction() as tx:
        day = await availability.slots(tx, line[0], since=TEN, until=TEN + HOUR, now=now)
    assert day == []


@pytest.mark.parametrize(
    ("approval", "status", "kinds"),
    [
        (Approval.ASK, Status.REQUESTED, {"appointment.requested": 2}),
        (Approval.AUTOMATIC, Status.CONFIRMED, {"appointment.confirmed": 3}),
    ],
)
async def test_an_accepted_offer_is_booked_as_the_pair_books(
    database: Database, now: datetime, approval: Approval, status: Status, kinds: dict[str, int]
) -> None:
    line, (clara, davi) = await offer_at_ten(database, now, approval=approval)
    before = await outbox(database)
    async with database.transaction() as tx:
        appointment = await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now, if_starts_at=TEN)
    assert (appointment.status, appointment.starts_at, appointment.ends_at) == (status, TEN, ENDS)
    assert await outbox(database) - before == Counter(kinds)
    assert await held_by_offers(database) == []
    ended = await read(database, clara)
    assert (ended.offer, ended.ended_at) == (None, now)
    assert (await audited(database))[-1] == ("wait.accept", line[1].supervisee.id)
    assert await run(database, now) == 0
    assert (await read(database, davi)).offer is None
    with pytest.raises(AlreadyAnswered):
        async with database.transaction() as tx:
            await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now)


async def outbox(database: Database) -> Counter[str]:
    """How many notifications of each kind there are that are neither reminders nor superseded."""
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(notifications.c.kind).where(
                notifications.c.kind != "appointment.reminder", notifications.c.state != "superseded"
            )
        )
        return Counter(row.kind for row in rows)


async def test_whoever_lets_it_go_by_stays_and_the_next_is_asked(database: Database, now: datetime) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    async with database.transaction() as tx:
        left = await waits.pass_by(tx, acts(line[1].supervisee), clara.id, now=now, if_starts_at=TEN)
    assert (left.offer, left.passed, left.ended_at) == (None, (TEN,), None)
    assert await run(database, now) == 1
    assert (await read(database, davi)).offer == Offer(TEN, ENDS, now + LET_GO)
    assert (await told(database))[2:] == [("wait.offered", "matrix", "Davi"), ("wait.offered", "mail", "Davi")]
    assert [action for action, _ in await audited(database)][3:] == ["wait.pass", "wait.offer"]
    async with database.transaction() as tx:
        await waits.pass_by(tx, acts(line[2].supervisee), davi.id, now=now)
    assert await run(database, now) == 0
    assert (await book(database, line[0], now)).status is Status.REQUESTED


async def test_an_unanswered_offer_lapses_and_the_next_is_asked(database: Database, now: datetime) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    assert await run(database, now + LET_GO - timedelta(seconds=1)) == 0
    with pytest.raises(TooLate) as refusal:
        async with database.transaction() as tx:
            await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now + LET_GO)
    assert refusal.value.key == "refused.offer_lapsed"
    assert await run(database, now + LET_GO) == 2
    lapsed = await read(database, clara)
    assert (lapsed.offer, lapsed.passed, lapsed.ended_at) == (None, (TEN,), None)
    assert (await read(database, davi)).offer == Offer(TEN, ENDS, now + 2 * LET_GO)
    assert (await told(database))[2:] == [
        ("wait.lapsed", "matrix", "Clara"),
        ("wait.offered", "matrix", "Davi"),
        ("wait.offered", "mail", "Davi"),
    ]
    assert [action for action, _ in await audited(database)][3:] == ["wait.lapse", "wait.offer"]


async def test_an_offer_ends_with_the_notice_for_booking(database: Database, now: datetime) -> None:
    """The slot is at 13:00 UTC and takes an hour's notice: at 11:30 the offer is open for half an hour."""
    line = await add_line(database, now, most=2)
    appointment = await book(database, line[0], now)
    wait = await join(database, line[1], now)
    later = TEN - timedelta(minutes=90)
    await cancel(database, line[0].supervisee, appointment, later)
    assert await run(database, later) == 1
    assert (await read(database, wait)).offer == Offer(TEN, ENDS, TEN - HOUR)
    async with database.transaction() as tx:
        booked = await waits.accept(tx, acts(line[1].supervisee), wait.id, now=TEN - HOUR - timedelta(seconds=1))
    assert booked.starts_at == TEN


async def test_nothing_is_offered_that_could_hardly_be_answered(database: Database, now: datetime) -> None:
    line = await add_line(database, now, most=2)
    appointment = await book(database, line[0], now)
    wait = await join(database, line[1], now)
    late = TEN - HOUR - timedelta(minutes=4)
    await cancel(database, line[0].supervisee, appointment, late)
    assert await run(database, late) == 0
    assert (await read(database, wait)).offer is None


async def test_a_longer_notice_set_meanwhile_does_not_bite_what_was_offered(database: Database, now: datetime) -> None:
    line, (clara, _) = await offer_at_ten(database, now)
    async with database.transaction() as tx:
        strict = replace(OPEN_HOURS, notice=3 * 1440, horizon=1)
        await availability.save(tx, acts(line[0].supervisor), line[0].supervisor.id, strict, now=now)
    assert await run(database, now) == 0
    async with database.transaction() as tx:
        assert (await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now)).starts_at == TEN


async def test_an_hour_that_is_taken_away_is_no_longer_on_offer(database: Database, now: datetime) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    off = DatedException(uuid.uuid4(), Exceptional.TIME_OFF, date(2026, 11, 24), date(2026, 11, 24))
    async with database.transaction() as tx:
        await availability.add_exception(tx, acts(line[0].supervisor), line[0].supervisor.id, off, now=now)
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now)
    assert await run(database, now) == 1
    assert await held_by_offers(database) == []
    assert (await told(database))[2:] == [("wait.lapsed", "matrix", "Clara")]
    async with database.transaction() as tx:
        await availability.remove_exception(tx, acts(line[0].supervisor), line[0].supervisor.id, off.id, now=now)
    assert await run(database, now) == 1
    assert (await read(database, clara)).offer == Offer(TEN, ENDS, now + LET_GO)
    assert (await read(database, davi)).offer is None


async def test_each_freed_time_goes_to_one_of_the_line_in_its_order(database: Database, now: datetime) -> None:
    """Two hours come free; Clara waits for the later alone, Davi for either, Elisa for either."""
    line = await add_line(database, now, most=4)
    both = [await book(database, line[0], now, TEN + place * HOUR) for place in (0, 1)]
    two = [(TEN, TEN + 2 * HOUR)]
    clara = await join(database, line[1], now, [(TEN + HOUR, TEN + 2 * HOUR)])
    davi = await join(database, line[2], now + timedelta(seconds=1), two)
    elisa = await join(database, line[3], now + timedelta(seconds=2), two)
    for one in both:
        await cancel(database, line[0].supervisee, one, now)
    assert await run(database, now) == 2
    starts = [
        offer and offer.starts_at for offer in [(await read(database, one)).offer for one in (clara, davi, elisa)]
    ]
    assert starts == [TEN + HOUR, TEN, None]


async def test_whoever_is_busy_then_is_left_out(database: Database, now: datetime) -> None:
    line = await add_line(database, now)
    appointment = await book(database, line[0], now)
    clara = await join(database, line[1], now)
    davi = await join(database, line[2], now + timedelta(seconds=1))
    other = await add_pair(database, now=now, supervisee=line[1].supervisee)
    await book(database, other, now)
    await cancel(database, line[0].supervisee, appointment, now)
    assert await run(database, now) == 1
    assert (await read(database, clara)).offer is None
    assert (await read(database, davi)).offer is not None


async def test_a_full_day_is_not_offered_but_another_is(database: Database, now: datetime) -> None:
    """Ana takes one a day. Tuesday's ten o'clock comes free, and so does Wednesday's, but Tuesday has another."""
    line = await add_line(database, now, rules=replace(OPEN_HOURS, day_limit=1))
    pair, supervisor = line[0], line[0].supervisor
    wednesday = TEN + timedelta(days=1)
    async with database.transaction() as tx:
        booked = [
            await appointments.book(tx, acts(supervisor), pair, starts_at, now=now)
            for starts_at in (TEN, wednesday, TEN + 3 * HOUR)
        ]
    clara = await join(database, line[1], now, [(TEN, TEN + HOUR), (wednesday, wednesday + HOUR)])
    for one in booked[:2]:
        await cancel(database, supervisor, one, now)
    assert await run(database, now) == 1
    offer = (await read(database, clara)).offer
    assert offer is not None
    assert offer.starts_at == wednesday


async def test_leaving_gives_the_offer_to_the_next(database: Database, now: datetime) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    async with database.transaction() as tx:
        await waits.leave(tx, acts(line[1].supervisee), clara.id, now)
        assert await waits.list_of(tx, line[1].id) == []
    assert await run(database, now) == 1
    assert (await read(database, davi)).offer is not None
    assert [action for action, _ in await audited(database)][3:] == ["wait.leave", "wait.offer"]


async def test_what_is_past_is_over(database: Database, now: datetime) -> None:
    line = await add_line(database, now, most=2)
    await book(database, line[0], now)
    wait = await join(database, line[1], now)
    assert await run(database, AT_TEN[0][1] - timedelta(seconds=1)) == 0
    assert await run(database, AT_TEN[0][1]) == 1
    assert (await read(database, wait)).ended_at == AT_TEN[0][1]
    assert await told(database) == []
    assert [action for action, _ in await audited(database)] == ["wait.join", "wait.end"]


@pytest.mark.parametrize("gone", ["pair", "supervisee"])
async def test_an_archived_pair_or_a_disabled_person_waits_no_longer(
    database: Database, now: datetime, gone: str
) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    async with database.transaction() as tx:
        if gone == "pair":
            await pairs.archive(tx, SYSTEM, line[1].id, now=now)
        else:
            await people.disable(tx, SYSTEM, line[1].supervisee.id, now=now)
    with pytest.raises(AlreadyAnswered if gone == "pair" else PairArchived):
        async with database.transaction() as tx:
            await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now)
    assert await run(database, now) == (1 if gone == "pair" else 2)  # an archive ends the waiting itself
    assert (await read(database, clara)).ended_at == now
    assert (await read(database, davi)).offer is not None


async def test_an_answer_to_an_older_offer_is_stale(database: Database, now: datetime) -> None:
    line, (clara, _) = await offer_at_ten(database, now)
    for answer in (waits.accept, waits.pass_by):
        with pytest.raises(Stale):
            async with database.transaction() as tx:
                await answer(tx, acts(line[1].supervisee), clara.id, now=now, if_starts_at=TEN - HOUR)
    assert (await read(database, clara)).offer is not None


async def test_only_whoever_waits_answers(database: Database, now: datetime) -> None:
    line, (clara, davi) = await offer_at_ten(database, now)
    async with database.transaction() as tx:
        for person in (line[0].supervisor, line[2].supervisee):
            for act in (waits.accept, waits.pass_by):
                with pytest.raises(NotFound):
                    await act(tx, acts(person), clara.id, now=now)
            with pytest.raises(NotFound):
                await waits.leave(tx, acts(person), clara.id, now)
        with pytest.raises(AlreadyAnswered) as refusal:
            await waits.accept(tx, acts(line[2].supervisee), davi.id, now=now)
        assert refusal.value.key == "refused.no_offer"


BACKWARDS = [(TEN + HOUR, TEN)]


@pytest.mark.parametrize(
    ("who", "ranges", "length", "error", "key"),
    [
        ("supervisor", AT_TEN, None, NotAllowed, "refused.supervisee_waits"),
        ("supervisee", [], None, NotUnderstood, "refused.wait_ranges"),
        ("supervisee", BACKWARDS, None, NotUnderstood, "refused.wait_ranges"),
        ("supervisee", [(TEN, TEN)], None, NotUnderstood, "refused.wait_ranges"),
        ("supervisee", [(TEN - 90 * HOUR, TEN - 80 * HOUR)], None, NotUnderstood, "refused.wait_ranges"),
        ("supervisee", AT_TEN * 21, None, NotUnderstood, "refused.wait_ranges"),
        ("supervisee", [(TEN + 70 * 24 * HOUR, TEN + 71 * 24 * HOUR)], None, NotUnderstood, "refused.beyond_horizon"),
        ("supervisee", AT_TEN, 90, NotUnderstood, "refused.length"),
        ("supervisee", [(TEN, TEN + 2 * HOUR)], None, NotUnderstood, "refused.wait_not_needed"),
    ],
)
async def test_what_cannot_be_waited_for(
    database: Database,
    now: datetime,
    who: str,
    ranges: list[tuple[datetime, datetime]],
    length: int | None,
    error: type[Refused],
    key: str,
) -> None:
    line = await add_line(database, now, most=2)
    await book(database, line[0], now)
    with pytest.raises(error) as refusal:
        async with database.transaction() as tx:
            await waits.join(tx, acts(getattr(line[1], who)), line[1], ranges, now=now, length=length)
    assert refusal.value.key == key
    assert await audited(database) == []


async def test_nobody_waits_twice_for_the_same_or_six_times(database: Database, now: datetime) -> None:
    line = await add_line(database, now, most=2)
    days = [TEN + timedelta(days=day) for day in (0, 1, 2, 3, 6, 7)]
    for day in days:
        await book(database, line[0], now, day)
    first = await join(database, line[1], now)
    with pytest.raises(AlreadyAnswered):
        await join(database, line[1], now, [(TEN - HOUR / 2, TEN + HOUR / 2)])
    for place, day in enumerate(days[1:5], start=1):
        await join(database, line[1], now + timedelta(seconds=place), [(day, day + HOUR / 2)])
    with pytest.raises(NotUnderstood) as refusal:
        await join(database, line[1], now, [(days[5], days[5] + HOUR / 2)])
    assert refusal.value.key == "refused.wait_too_many"
    async with database.transaction() as tx:
        known = await waits.list_of(tx, line[1].id)
    assert (known[0], len(known)) == (first, waits.MOST_WAITS)


async def test_ranges_are_cut_to_what_can_come(database: Database, now: datetime) -> None:
    line = await add_line(database, now, most=2, rules=replace(OPEN_HOURS, horizon=1, hours=()))
    wait = await join(database, line[1], now, [(now - HOUR, now + HOUR), (now + HOUR, now + 90 * HOUR)])
    assert wait.ranges == ((now, now + timedelta(days=1)),)
    assert await read(database, wait) == wait


async def test_a_run_that_fails_has_kept_and_told_nothing(database: Database, now: datetime) -> None:
    line = await add_line(database, now, most=2)
    appointment = await book(database, line[0], now)
    wait = await join(database, line[1], now)
    await cancel(database, line[0].supervisee, appointment, now)
    with pytest.raises(RuntimeError):
        await run_and_fail(database, now)
    assert (await held_by_offers(database), await told(database)) == ([], [])
    assert (await read(database, wait)).offer is None
    assert await run(database, now) == 1


async def run_and_fail(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        assert await waits.offer_freed(tx, now) == 1
        raise RuntimeError


async def test_whoever_is_busy_with_something_keeps_their_turn(database: Database, now: datetime) -> None:
    """Clara's time is locked by what she does elsewhere: the run does not wait, and Davi is not asked instead."""
    line = await add_line(database, now)
    appointment = await book(database, line[0], now)
    clara = await join(database, line[1], now)
    davi = await join(database, line[2], now + timedelta(seconds=1))
    await cancel(database, line[0].supervisee, appointment, now)
    async with database.transaction() as tx:
        await lock_people(tx, [line[1].supervisee.id])
        async with asyncio.timeout(4):  # a lock would be waited for longer
            assert await run(database, now) == 0
    assert await run(database, now) == 1
    assert (await read(database, clara)).offer is not None
    assert (await read(database, davi)).offer is None


async def test_a_long_line_takes_no_minutes(database: Database, now: datetime) -> None:
    """Two hundred wait for one hour: one is asked, and the next run looks in vain for the others."""
    line = await add_line(database, now, most=2)
    appointment = await book(database, line[0], now)
    await join(database, line[1], now)
    async with database.transaction() as tx:
        await tx.execute(
            text(
                """
                WITH many AS (SELECT gen_random_uuid() AS id, n FROM generate_series(1, 200) AS n),
                added AS (INSERT INTO people (id, name, email, language, time_zone, roles, created_at)
                    SELECT id, 'Guest', n || '@example.org', 'en', 'UTC', ARRAY['supervisee'], :now FROM many),
                paired AS (INSERT INTO pairs (id, supervisor_id, supervisee_id, status, room_token, created_at)
                    SELECT id, :supervisor_id, id, 'active', id, :now FROM many)
                INSERT INTO waits (id, pair_id, supervisor_id, supervisee_id, since, until, length_minutes, passed,
                    created_at, ends_at)
                SELECT id, id, :supervisor_id, id, ARRAY[CAST(:since AS timestamptz)],
                    ARRAY[CAST(:until AS timestamptz)], 50, '{}', :now + n * interval '1 second', :until FROM many
                """
            ),
            {
                "now": now,
                "supervisor_id": line[0].supervisor.id,
                "since": TEN,
                "until": TEN + timedelta(days=30),
            },
        )
    await cancel(database, line[0].supervisee, appointment, now)
    begun = asyncio.get_running_loop().time()
    assert await run(database, now) == 20  # at most so many in a run
    assert asyncio.get_running_loop().time() - begun < 10
    async with database.transaction() as tx:
        rows = list(await tx.execute(select(table.c.offered_starts_at).order_by(table.c.created_at, table.c.id)))
    assert [row[0] is not None for row in rows] == [True] * 20 + [False] * 181


@pytest.mark.faults
async def test_an_offer_and_a_new_booking_do_not_both_get_the_time(database: Database, now: datetime) -> None:
    """Clara waits, Davi books at the moment when it comes free: one of them has it, and no offer stands beside."""
    line = await add_line(database, now)
    for place in range(ROUNDS):
        appointment = await book(database, line[0], now)
        wait = await join(database, line[1], now)
        await cancel(database, line[0].supervisee, appointment, now)
        booked, offered = await race(database, line[2], now, head_start=place % 5 / 100)
        assert (booked is None) == offered
        async with database.transaction() as tx:
            await waits.leave(tx, acts(line[1].supervisee), wait.id, now)
        if booked is not None:
            await cancel(database, line[2].supervisee, booked, now)


async def race(
    database: Database, pair: Pair, now: datetime, *, head_start: float = 0.0
) -> tuple[Appointment | None, bool]:
    """A booking and a run, `head_start` seconds earlier, at once: what was booked, and whether it was offered."""

    async def try_to_book() -> Appointment | None:
        await asyncio.sleep(head_start)
        try:
            return await book(database, pair, now)
        except SlotTaken:
            return None

    booked, changed = await asyncio.gather(try_to_book(), run(database, now))
    return booked, changed == 1


@pytest.mark.faults
@pytest.mark.parametrize("left", ["constraint", "locks and checks"])
async def test_either_guard_alone_keeps_the_time_single(
    postgresql: PostgreSQL,
    database_name: str,
    database: Database,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    left: str,
) -> None:
    line = await add_line(database, now)
    appointment = await book(database, line[0], now)
    await join(database, line[1], now)
    await cancel(database, line[0].supervisee, appointment, now)
    if left == "constraint":
        unguard(monkeypatch)
    else:
        await drop_constraint(postgresql, database_name)
    booked, offered = await race(database, line[2], now)
    assert (booked is None) == offered


def unguard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away locks and checks, of the booking and of the offer."""

    async def unguarded(*_: object, **__: object) -> bool:
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(appointments, "lock_people", unguarded)
    monkeypatch.setattr(appointments, "check_room", unguarded)
    monkeypatch.setattr(waits, "_try_lock", unguarded)
    monkeypatch.setattr(holds, "look", blind(unguarded))


@pytest.mark.faults
async def test_an_offer_is_accepted_once(database: Database, now: datetime) -> None:
    """Twice the same click, and the run that lets it lapse: one of them counts."""
    line, (clara, _) = await offer_at_ten(database, now)

    async def accept() -> str:
        try:
            async with database.transaction() as tx:
                await waits.accept(tx, acts(line[1].supervisee), clara.id, now=now)
        except AlreadyAnswered as refusal:
            return str(refusal)
        return "booked"

    said = await asyncio.gather(accept(), accept(), run(database, now))
    assert Counter(said[:2]) == Counter(["booked", "refused.wait_over"])
    assert said[2] == 0


@pytest.mark.faults
async def test_without_locks_checks_and_constraint_both_get_it(
    postgresql: PostgreSQL,
    database_name: str,
    database: Database,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: the race is real, and it is the three guards that end it."""
    line = await add_line(database, now)
    appointment = await book(database, line[0], now)
    await join(database, line[1], now)
    await cancel(database, line[0].supervisee, appointment, now)
    await drop_constraint(postgresql, database_name)
    unguard(monkeypatch)
    async with database.transaction() as tx:  # Davi's booking is on its way when the run looks
        await appointments.book(tx, acts(line[2].supervisee), line[2], TEN, now=now)
        assert await run(database, now) == 1
    async with database.transaction() as tx:
        of_ana = select(holds_table).where(holds_table.c.person_id == line[0].supervisor.id)
        assert len(list(await tx.execute(of_ana))) == 2


async def test_a_line_that_cannot_be_looked_at_holds_up_no_other(database: Database, now: datetime) -> None:
    lines = sorted([await add_line(database, now, most=2) for _ in range(2)], key=lambda line: line[0].supervisor.id)
    waiting = []
    for first, second in lines:
        held = await book(database, first, now)
        waiting.append(await join(database, second, now))
        await cancel(database, first.supervisor, held, now)
    async with database.transaction() as tx:
        bad = update(people_table).where(people_table.c.id == lines[0][0].supervisor.id)
        await tx.execute(bad.values(time_zone="Nowhere/Atall"))
    with capture_logs() as logs:
        assert await run(database, now) == 1
    assert [(one["event"], one["of"]) for one in logs] == [("row.failed", "offer_freed")]
    assert [(await read(database, one)).offer is not None for one in waiting] == [False, True]


async def test_what_ended_long_ago_is_forgotten(database: Database, now: datetime) -> None:
    first, second = await add_line(database, now, most=2)
    held = await book(database, first, now)
    ended = await join(database, second, now)
    async with database.transaction() as tx:
        await waits.leave(tx, acts(second.supervisee), ended.id, now)
    open_one = await join(database, second, now)
    await cancel(database, first.supervisor, held, now)
    assert await run(database, now) == 1  # it keeps a time

    async def left(at: datetime) -> set[uuid.UUID]:
        await jobs.run_once(database, "forget_old", now=at)
        async with database.transaction() as tx:
            return set(await tx.scalars(select(table.c.id)))

    assert await left(now + timedelta(days=90, seconds=-1)) == {ended.id, open_one.id}
    assert await left(now + timedelta(days=90)) == {open_one.id}

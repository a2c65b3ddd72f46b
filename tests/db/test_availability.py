"""A supervisor's hours and exceptions in the database, and what a pair can book of them."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import Range

from supervision import availability, checks, hours
from supervision.audit import SYSTEM, Actor
from supervision.db import Database
from supervision.errors import NotAllowed, NotFound, NotUnderstood, Refused
from supervision.hours import Availability, DatedException, Slot, WeeklyRange, offered
from supervision.models import (
    Approval,
    Exceptional,
    Mode,
    Status,
    appointments,
    audit_entries,
    dated_exceptions,
    holds,
    waits,
)
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person

OFF, EXTRA = Exceptional.TIME_OFF, Exceptional.EXTRA_HOURS
TUESDAY = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # 9:00 in São Paulo
FULL = Availability(
    (WeeklyRange(0, time(9), time(12)), WeeklyRange(0, time(14), time(18, 30)), WeeklyRange(4, time(9), time(12))),
    length=60,
    grid=30,
    buffer_before=5,
    buffer_after=15,
    notice=30,
    horizon=90,
    mode=Mode.IN_PERSON,
    place="Rua Harmonia, 1",
    cancel_notice=2880,
    move_notice=60,
    day_limit=4,
    week_limit=20,
    approval=Approval.AUTOMATIC,
    answer=1440,
    offer=120,
    valid_from=date(2026, 1, 1),
    valid_until=date(2027, 12, 31),
    country="BR",
    subdivision="SP",
)


async def load(database: Database, supervisor: Person) -> Availability:
    async with database.transaction() as tx:
        return await availability.load(tx, supervisor.id)


async def add(
    database: Database, actor: Actor, supervisor: Person, said: str, *, now: datetime, extra: bool = False, **more: bool
) -> DatedException:
    exception = checks.read_exception(EXTRA if extra else OFF, said, **more)
    async with database.transaction() as tx:
        return await availability.add_exception(tx, actor, supervisor.id, exception, now=now)


async def find(
    database: Database, pair: Pair, since: datetime, days: int, *, now: datetime, **more: Any
) -> list[datetime]:
    async with database.transaction() as tx:
        until = since + timedelta(days=days)
        found = await availability.slots(tx, pair, since=since, until=until, now=now, **more)
        return [slot.starts_at for slot in found]


async def put(database: Database, pair: Pair, starts_at: datetime, status: Status, **values: Any) -> uuid.UUID:
    """An appointment of the pair's, as it stands in the table; it holds nothing."""
    identifier = uuid.uuid4()
    row = {
        "id": identifier,
        "pair_id": pair.id,
        "supervisor_id": pair.supervisor.id,
        "supervisee_id": pair.supervisee.id,
        "starts_at": starts_at,
        "ends_at": starts_at + timedelta(minutes=50),
        "status": status,
        "revision": 0,
        "mode": Mode.ONLINE,
        "place": "",
        "created_at": starts_at,
        "updated_at": starts_at,
    }
    async with database.transaction() as tx:
        await tx.execute(insert(appointments).values(**row | values))
    return identifier


def proposal(starts_at: datetime, by: Person) -> dict[str, object]:
    return {
        "proposal_id": uuid.uuid4(),
        "proposed_by": by.id,
        "proposed_starts_at": starts_at,
        "proposed_ends_at": starts_at + timedelta(minutes=50),
        "proposed_before_minutes": 0,
        "proposed_after_minutes": 10,
        "proposed_answer_by": starts_at,
    }


async def hold(database: Database, person: Person, during: tuple[datetime, datetime], **reason: uuid.UUID) -> None:
    async with database.transaction() as tx:
        await tx.execute(insert(holds).values(person_id=person.id, during=Range(*during, bounds="[)"), **reason))


async def test_all_rules_come_back_as_they_were_saved(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    for rules in (FULL, Availability(()), replace(FULL, hours=FULL.hours[1:], country=None, subdivision=None)):
        async with database.transaction() as tx:
            await availability.save(tx, acts(ana), ana.id, rules, now=now)
        assert await load(database, ana) == rules


async def test_rules_that_nobody_set_are_not_found(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    with pytest.raises(NotFound) as error:
        await load(database, ana)
    assert error.value.key == "refused.no_availability"
    with pytest.raises(NotFound) as error:
        await add(database, SYSTEM, ana, "2026-12-24", now=now)
    assert error.value.key == "refused.no_availability"


async def test_exceptions_are_added_kept_and_removed(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana = pair.supervisor
    off = await add(database, acts(ana), ana, "2026-12-24..2027-01-06", now=now, yearly=True)
    extra = await add(database, acts(ana), ana, "2026-12-05 09:00-12:00", now=now, extra=True)
    assert (await load(database, ana)).exceptions == (extra, off)
    async with database.transaction() as tx:
        await availability.save(tx, acts(ana), ana.id, OPEN_HOURS, now=now)
    assert await load(database, ana) == replace(OPEN_HOURS, exceptions=(extra, off))
    async with database.transaction() as tx:
        await availability.remove_exception(tx, acts(ana), ana.id, off.id, now=now)
    assert (await load(database, ana)).exceptions == (extra,)
    with pytest.raises(NotFound) as error:
        async with database.transaction() as tx:
            await availability.remove_exception(tx, acts(ana), ana.id, off.id, now=now)
    assert error.value.key == "refused.exception_not_found"
    async with database.transaction() as tx:
        query = select(audit_entries).where(audit_entries.c.resource_id == str(ana.id)).order_by(audit_entries.c.id)
        actions = [(row.action, row.via) for row in await tx.execute(query)]
    assert actions[-4:] == [
        ("availability.add_exception", "web"),
        ("availability.add_exception", "web"),
        ("availability.save", "web"),
        ("availability.remove_exception", "web"),
    ]


async def test_nobody_else_settles_a_supervisor_s_hours(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = pair.supervisor, acts(pair.supervisee)
    off = await add(database, SYSTEM, ana, "2026-12-24", now=now)
    carla = await add_person(database, "Carla", ["supervisor"], now=now)
    for actor in (bruno, acts(carla)):
        with pytest.raises(NotAllowed) as error:
            await add(database, actor, ana, "2026-12-25", now=now)
        assert error.value.key == "refused.supervisor_settles"
        with pytest.raises(NotAllowed):
            async with database.transaction() as tx:
                await availability.remove_exception(tx, actor, ana.id, off.id, now=now)
        with pytest.raises(NotAllowed):
            async with database.transaction() as tx:
                await availability.save(tx, actor, ana.id, FULL, now=now)
    with pytest.raises(NotFound):  # her own, but the exception is another's
        async with database.transaction() as tx:
            await availability.remove_exception(tx, acts(carla), carla.id, off.id, now=now)
    assert await load(database, ana) == replace(OPEN_HOURS, exceptions=(off,))


@pytest.mark.parametrize(
    ("there", "yearly", "new", "new_yearly", "refused"),
    [
        ("2026-12-05 09:00-12:00", False, "2026-12-05 11:59-13:00", False, True),
        ("2026-12-05 09:00-12:00", False, "2026-12-05 12:00-13:00", False, False),
        ("2026-12-05 09:00-12:00", False, "2026-12-06 09:00-12:00", False, False),
        ("2026-12-01..2026-12-10 09:00-12:00", False, "2026-12-10..2026-12-12 09:00-10:00", False, True),
        ("2026-12-05 09:00-12:00", True, "2029-12-05 09:00-12:00", False, True),
        ("2029-12-05 09:00-12:00", False, "2026-12-05 09:00-12:00", True, True),
        ("2026-12-05 09:00-12:00", False, "2029-12-05 09:00-12:00", True, False),
        ("2026-12-31..2027-01-02 09:00-12:00", True, "2040-01-02 09:00-12:00", True, True),
        ("2024-02-29 09:00-12:00", True, "2025-02-28..2025-03-01 09:00-12:00", True, True),
        ("2024-02-29 09:00-12:00", True, "2025-02-28 09:00-12:00", True, False),
        ("2024-02-29 09:00-12:00", True, "2025-02-28..2025-03-01 09:00-12:00", False, False),
    ],
)
async def test_extra_hours_do_not_overlap(
    database: Database, now: datetime, there: str, yearly: bool, new: str, new_yearly: bool, refused: bool
) -> None:
    pair = await add_pair(database, now=now)
    ana = pair.supervisor
    first = await add(database, SYSTEM, ana, there, now=now, extra=True, yearly=yearly)
    await add(database, SYSTEM, ana, there, now=now, yearly=yearly)  # time off may lie over it
    if not refused:
        added = await add(database, SYSTEM, ana, new, now=now, extra=True, yearly=new_yearly)
        assert {one.id for one in (await load(database, ana)).exceptions if one.kind is EXTRA} == {first.id, added.id}
        return
    with pytest.raises(NotUnderstood) as error:
        await add(database, SYSTEM, ana, new, now=now, extra=True, yearly=new_yearly)
    assert error.value.key == "refused.hours_overlap"


async def test_there_is_a_most_of_exceptions(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        for passed in range(500):
            day = date(2026, 1, 1) + timedelta(days=passed)
            exception = DatedException(uuid.uuid4(), OFF, day, day)
            await tx.execute(
                insert(dated_exceptions).values(**vars(exception), supervisor_id=pair.supervisor.id, created_at=now)
            )
    with pytest.raises(NotUnderstood) as error:
        await add(database, SYSTEM, pair.supervisor, "2028-01-01", now=now)
    assert (error.value.key, error.value.params) == ("refused.exceptions_too_many", {"most": 500})


async def test_a_pair_s_own_lengths_are_what_it_can_book(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    own = replace(pair, lengths=(50, 90))
    day = TUESDAY - timedelta(hours=1)
    assert hours.lengths_of(pair, OPEN_HOURS) == (50,)
    assert hours.lengths_of(own, OPEN_HOURS) == (50, 90)
    assert len(await find(database, own, day, 1, now=now)) == 9
    assert len(await find(database, own, day, 1, now=now, length=90)) == 8  # what begins at 17:00 would end too late
    for one, length in ((own, 60), (pair, 90)):
        with pytest.raises(NotUnderstood) as error:
            await find(database, one, day, 1, now=now, length=length)
        expected = ", ".join(map(str, hours.lengths_of(one, OPEN_HOURS)))
        assert (error.value.key, error.value.params) == ("refused.length", {"lengths": expected})
    zone = pair.supervisor.zone
    slot = hours.check_bookable(OPEN_HOURS, zone, TUESDAY, now=now, length=90)
    assert slot == Slot(TUESDAY, TUESDAY + timedelta(minutes=90))
    with pytest.raises(NotFound):
        hours.check_bookable(OPEN_HOURS, zone, TUESDAY + timedelta(hours=8), now=now, length=90)


# It tells no more than that: who knows the limit would know how many others there are.
NOT_OFFERED: tuple[str, dict[str, object]] = ("refused.slot_not_offered", {})


async def limits(
    database: Database, pair: Pair, rules: Availability, starts_at: datetime, moving: uuid.UUID | None = None
) -> tuple[str, dict[str, object]] | None:
    async with database.transaction() as tx:
        try:
            await availability.check_limits(tx, rules, pair.supervisor, starts_at, moving=moving)
        except NotFound as refused:
            return refused.key, refused.params
    return None


async def test_a_full_day_is_left_out(database: Database, now: datetime) -> None:
    rules = replace(OPEN_HOURS, day_limit=2)
    pair = await add_pair(database, now=now, rules=rules)
    first = await put(database, pair, TUESDAY, Status.CONFIRMED)
    for status in (Status.DECLINED, Status.CANCELLED):
        await put(database, pair, TUESDAY, status)
    since = TUESDAY - timedelta(hours=3)
    assert len(await find(database, pair, since, 2, now=now)) == 18
    assert await limits(database, pair, rules, TUESDAY) is None
    for status in (Status.REQUESTED, Status.COMPLETED, Status.NO_SHOW):
        second = await put(database, pair, TUESDAY, status)
        found = await find(database, pair, since, 2, now=now)
        assert [at.date() for at in found] == [date(2026, 11, 25)] * 9
        assert await limits(database, pair, rules, TUESDAY) == NOT_OFFERED
        assert await limits(database, pair, rules, TUESDAY, first) is None  # what is moved does not count
        assert len(await find(database, pair, since, 2, now=now, moving=first)) == 18
        async with database.transaction() as tx:
            await tx.execute(update(appointments).where(appointments.c.id == second).values(status=Status.CANCELLED))


async def test_a_day_is_one_of_the_supervisor_s_zone(database: Database, now: datetime) -> None:
    rules = replace(OPEN_HOURS, day_limit=1)
    pair = await add_pair(database, now=now, rules=rules)
    midnight = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
    await put(database, pair, midnight - timedelta(minutes=1), Status.CONFIRMED)
    assert await limits(database, pair, rules, TUESDAY) == NOT_OFFERED
    assert await limits(database, pair, rules, midnight) is None


async def test_a_full_week_is_left_out(database: Database, now: datetime) -> None:
    rules = replace(OPEN_HOURS, week_limit=2)
    pair = await add_pair(database, now=now, rules=rules)
    sunday = datetime(2026, 11, 29, 22, 0, tzinfo=UTC)  # 19:00 in São Paulo
    await put(database, pair, TUESDAY, Status.CONFIRMED)
    assert await limits(database, pair, rules, sunday) is None
    await put(database, pair, sunday, Status.CONFIRMED)
    for at in (datetime(2026, 11, 23, 3, 0, tzinfo=UTC), TUESDAY, datetime(2026, 11, 30, 2, 59, tzinfo=UTC)):
        assert await limits(database, pair, rules, at) == NOT_OFFERED
    for at in (datetime(2026, 11, 23, 2, 59, tzinfo=UTC), datetime(2026, 11, 30, 3, 0, tzinfo=UTC)):
        assert await limits(database, pair, rules, at) is None
    found = await find(database, pair, now, 14, now=now)
    assert {at.isocalendar().week for at in found} == {49}


async def test_a_proposal_counts_where_it_would_be_but_once_a_day(database: Database, now: datetime) -> None:
    rules = replace(OPEN_HOURS, day_limit=2)
    pair = await add_pair(database, now=now, rules=rules)
    wednesday = TUESDAY + timedelta(days=1)
    await put(database, pair, TUESDAY, Status.CONFIRMED, **proposal(TUESDAY + timedelta(hours=2), pair.supervisee))
    assert await limits(database, pair, rules, TUESDAY) is None
    moved = await put(database, pair, TUESDAY, Status.CONFIRMED, **proposal(wednesday, pair.supervisee))
    await put(database, pair, wednesday, Status.CONFIRMED)
    for at in (TUESDAY, wednesday):
        assert await limits(database, pair, rules, at) == NOT_OFFERED
        assert await limits(database, pair, rules, at, moved) is None


async def test_time_kept_for_somebody_who_waits_is_not_offered(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    wait, moving = uuid.uuid4(), await put(database, pair, TUESDAY, Status.CONFIRMED)
    async with database.transaction() as tx:
        row = {"pair_id": pair.id, "supervisor_id": pair.supervisor.id, "supervisee_id": pair.supervisee.id}
        times = {"since": [], "until": [], "passed": [], "created_at": now, "ends_at": now}
        await tx.execute(insert(waits).values(id=wait, length_minutes=50, **row, **times))
    await hold(database, pair.supervisor, (TUESDAY, TUESDAY + timedelta(hours=1)), wait_id=wait)
    hour = timedelta(hours=1)
    for moved in (None, moving):
        found = await find(database, pair, TUESDAY, 1, now=now, moving=moved)
        assert found == [TUESDAY + passed * hour for passed in range(1, 9)]


def overlap(one: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


async def hold_at_random(database: Database, pair: Pair, now: datetime, dice: random.Random) -> dict[Person, list[Any]]:
    """Some held ranges for both, as their appointments' IDs and ranges."""
    held: dict[Person, list[Any]] = {person: [] for person in pair.people}
    for person in pair.people:
        for _ in range(40):
            since = now + timedelta(minutes=dice.randrange(14 * 24 * 60))
            during = since, since + timedelta(minutes=dice.randrange(1, 300))
            if any(overlap(during, other) for _, other in held[person]):
                continue
            appointment = await put(database, pair, since, Status.CONFIRMED)
            await hold(database, person, during, appointment_id=appointment)
            held[person].append((appointment, during))
    return held


def are_free(
    rules: Availability, pair: Pair, slot: Slot, held: dict[Person, list[Any]], moving: uuid.UUID | None
) -> bool:
    ranges: Sequence[tuple[Person, tuple[datetime, datetime]]] = (
        (pair.supervisor, rules.held(slot.starts_at, slot.ends_at)),
        (pair.supervisee, (slot.starts_at, slot.ends_at)),
    )
    return not any(overlap(taken, during) for person, taken in ranges for one, during in held[person] if one != moving)


async def test_held_time_is_never_offered_and_all_else_is(database: Database, now: datetime) -> None:
    dice = random.Random(7)
    for _ in range(4):
        rules = replace(
            OPEN_HOURS,
            grid=dice.choice([15, 30, 60]),
            buffer_before=dice.choice([0, 10, 45]),
            buffer_after=dice.choice([0, 10, 45]),
        )
        pair = await add_pair(database, now=now, rules=rules)
        held = await hold_at_random(database, pair, now, dice)
        until = now + timedelta(days=14)
        for moving in (None, *(one for one, _ in held[pair.supervisor][:3])):
            found = await find(database, pair, now, 14, now=now, moving=moving)
            every = offered(rules, pair.supervisor.zone, now + timedelta(minutes=rules.notice), until)
            assert found == [slot.starts_at for slot in every if are_free(rules, pair, slot, held, moving)]


async def test_a_refusal_changes_nothing(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    for wrong in (replace(FULL, country="XX"), replace(FULL, valid_until=date(2025, 1, 1)), replace(FULL, offer=1)):
        with pytest.raises(Refused):
            async with database.transaction() as tx:
                await availability.save(tx, SYSTEM, pair.supervisor.id, wrong, now=now)
    assert await load(database, pair.supervisor) == OPEN_HOURS

"""Series: booked by a rule, then answered, moved and called off one, some or all at a time."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from embedded.postgresql import PostgreSQL
from supervision import (
    appointments,
    availability,
    checks,
    groups,
    ledgers,
    moves,
    notifications,
    pairs,
    repetitions,
    series,
    shifts,
    texts,
)
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.db import Database, Transaction
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
    TooSoon,
)
from supervision.groups import Scope
from supervision.hours import Availability, WeeklyRange
from supervision.ledgers import Ledger
from supervision.models import Approval, Channel, Exceptional, Status, audit_entries
from supervision.models import holds as holds_table
from supervision.models import notifications as outbox
from supervision.models import series as series_table
from supervision.pairs import Pair
from supervision.people import Person
from supervision.series import Booked
from tests.support.sample import OPEN_HOURS, REMINDERS, acts, add_pair, add_person

SAO_PAULO, LISBON, NEW_YORK = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Lisbon"), ZoneInfo("America/New_York")
TEN = datetime(2026, 12, 1, 13, 0, tzinfo=UTC)  # a Tuesday, 10:00 in São Paulo
WEEK, HOUR = timedelta(days=7), timedelta(hours=1)
AUTOMATIC = replace(OPEN_HOURS, approval=Approval.AUTOMATIC)
ALWAYS = Availability(tuple(WeeklyRange(day, time(0), time(23, 59)) for day in range(7)), length=50, grid=30)
FOUR, TOO_MANY = "FREQ=WEEKLY;COUNT=4", "FREQ=WEEKLY;COUNT=10000"


async def book(
    database: Database,
    pair: Pair,
    now: datetime,
    *,
    rule: str = FOUR,
    starts_at: datetime = TEN,
    by: Person | None = None,
    skip: bool = False,
    length: int | None = None,
) -> Booked:
    async with database.transaction() as tx:
        actor = acts(by or pair.supervisee)
        return await series.book(tx, actor, pair, starts_at, rule, skip=skip, now=now, length=length)


async def confirmed(database: Database, pair: Pair, now: datetime, rule: str = FOUR) -> list[Appointment]:
    """A series that was requested and confirmed, with an empty outbox."""
    booked = await book(database, pair, now, rule=rule)
    async with database.transaction() as tx:
        done = await groups.confirm(tx, acts(pair.supervisor), booked.booked[0].id, Scope.ALL, now=now)
        await tx.execute(outbox.delete())
    return done


async def told(database: Database, pair: Pair) -> list[tuple[str, str, str, int]]:
    """What is in the outbox and not overtaken, as (kind, channel, person, number of appointments), in its order."""
    names = {person.id: person.name for person in pair.people}
    async with database.transaction() as tx:
        rows = await tx.execute(select(outbox).where(outbox.c.state == "pending").order_by(outbox.c.position))
        return [
            (row.kind, row.channel, names[row.person_id], len(row.details.get("appointments", "1"))) for row in rows
        ]


async def details(database: Database, kind: str) -> dict[str, object]:
    """The details of the latest news of that kind."""
    async with database.transaction() as tx:
        query = select(outbox.c.details).where(outbox.c.kind == kind).order_by(outbox.c.position.desc()).limit(1)
        found: dict[str, object] = (await tx.execute(query)).scalar_one()
        return found


async def audited(database: Database, action: str) -> list[str | None]:
    async with database.transaction() as tx:
        query = select(audit_entries.c.resource_id).where(audit_entries.c.action == action, audit_entries.c.success)
        return list(await tx.scalars(query.order_by(audit_entries.c.id)))


async def state(database: Database, series_id: uuid.UUID | None) -> list[tuple[datetime, str, int]]:
    assert series_id is not None
    async with database.transaction() as tx:
        return [(one.starts_at, one.status, one.revision) for one in await series.occurrences(tx, series_id)]


async def held(database: Database) -> int:
    async with database.transaction() as tx:
        return int(await tx.scalar(select(func.count()).select_from(holds_table)) or 0)


async def revision(database: Database, pair: Pair, series_id: uuid.UUID | None) -> int:
    assert series_id is not None
    async with database.transaction() as tx:
        return (await series.of(tx, acts(pair.supervisor), series_id)).revision


@asynccontextmanager
async def counting(database: Database, tx: Transaction) -> AsyncIterator[list[str]]:
    """Every statement that is sent meanwhile, by SQLAlchemy or by asyncpg itself."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    def log(query: Any) -> None:
        sent.append(query.query)

    driver: Any = (await tx.get_raw_connection()).driver_connection
    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    driver.add_query_logger(log)
    try:
        yield sent
    finally:
        driver.remove_query_logger(log)
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def every_week(count: int, first: datetime = TEN) -> list[datetime]:
    return [first + WEEK * place for place in range(count)]


async def test_a_requested_series_holds_every_time_and_asks_once(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = await book(database, pair, now)
    assert [(one.starts_at, one.series_at, one.series_id, one.status, one.revision) for one in booked.booked] == [
        (at, at, booked.series_id, Status.REQUESTED, 0) for at in every_week(4)
    ]
    assert {one.answer_by for one in booked.booked} == {now + timedelta(days=2)}
    assert (booked.clashes, await held(database)) == ([], 8)
    assert await told(database, pair) == [
        ("series.requested", "matrix", "Ana", 4),
        ("series.requested", "mail", "Ana", 4),
    ]
    ids = [str(one.id) for one in booked.booked]
    assert await details(database, "series.requested") == {
        "series": str(booked.series_id),
        "appointments": ids,
        "revisions": [0, 0, 0, 0],
        "by": str(pair.supervisee.id),
        "skipped": [],
    }
    assert await audited(database, "appointment.book") == ids


async def test_a_series_is_read_back(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = await book(database, pair, now, rule="FREQ=WEEKLY;UNTIL=20261222T130000Z")
    async with database.transaction() as tx:
        found = await series.of(tx, acts(pair.supervisee), booked.series_id)
        assert await series.occurrences(tx, booked.series_id) == booked.booked
        assert await series.occurrences(tx, booked.series_id, statuses=[Status.CONFIRMED]) == []
        stranger = await add_person(database, "Clara", ["supervisee"], now=now)
        with pytest.raises(NotFound):
            await series.of(tx, acts(stranger), booked.series_id)
        with pytest.raises(NotFound):
            await series.of(tx, SYSTEM, booked.series_id)
    assert found == series.Series(
        booked.series_id,
        pair.id,
        "FREQ=WEEKLY;BYDAY=TU;COUNT=4",
        TEN,
        TEN + timedelta(minutes=50),
        "America/Sao_Paulo",
        0,
    )
    assert [one.replace(tzinfo=SAO_PAULO) for one in repetitions.expand(found.rule, found.first_local)] == every_week(4)


async def test_nobody_is_asked_where_bookings_are_approved_automatically(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(AUTOMATIC, place="https://meet.example.org/{room}"))
    booked = await book(database, pair, now)
    assert {one.status for one in booked.booked} == {Status.CONFIRMED}
    assert len({one.place for one in booked.booked}) == 1  # the calendar has one entry for all
    assert await told(database, pair) == [
        ("series.confirmed", "matrix", "Ana", 4),
        ("series.confirmed", "mail", "Ana", 4),
        ("series.confirmed", "mail", "Bruno", 4),
        *[(*one, 1) for one in 4 * REMINDERS],
    ]
    assert (await details(database, "series.confirmed"))["automatic"] is True


async def test_a_supervisor_books_on_behalf_at_any_free_time(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, day_limit=1, week_limit=1))
    await book(database, pair, now)
    evening = TEN.replace(hour=23, minute=10)
    booked = await book(database, pair, now, starts_at=evening, by=pair.supervisor)
    assert [one.starts_at for one in booked.booked] == every_week(4, evening)
    assert (await told(database, pair))[2:] == [
        ("series.booked", "matrix", "Bruno", 4),
        ("series.booked", "mail", "Ana", 4),
        ("series.booked", "mail", "Bruno", 4),
        *[(*one, 1) for one in 4 * REMINDERS],
    ]


LOCAL_TEN = time(10)


@pytest.mark.parametrize(
    ("zone", "first", "count", "clocks"),
    [
        # Lisbon leaves summer time on 2026-10-25 and enters it on 2027-03-28; São Paulo has none
        (SAO_PAULO, datetime(2026, 10, 13, 13, tzinfo=UTC), 25, [13] * 25),
        # New York leaves summer time on 2026-11-01 and enters it on 2027-03-14
        (NEW_YORK, datetime(2026, 10, 13, 14, tzinfo=UTC), 23, [14] * 3 + [15] * 19 + [14]),
        (NEW_YORK, datetime(2027, 3, 9, 15, tzinfo=UTC), 3, [15, 14, 14]),
    ],
)
async def test_a_series_keeps_the_supervisors_wall_clock(
    database: Database, zone: ZoneInfo, first: datetime, count: int, clocks: list[int]
) -> None:
    now = first - timedelta(days=1)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone=zone.key)
    pair = await add_pair(database, now=now, supervisor=ana)
    found = (await book(database, pair, now, rule=f"FREQ=WEEKLY;COUNT={count}", starts_at=first)).booked
    assert [one.starts_at.hour for one in found] == clocks
    assert {one.starts_at.astimezone(zone).time() for one in found} == {LOCAL_TEN}
    assert {one.ends_at - one.starts_at for one in found} == {timedelta(minutes=50)}
    assert [one.starts_at.astimezone(zone).date() - first.date() for one in found] == [WEEK * n for n in range(count)]


async def test_the_other_ones_clock_moves_with_the_change(database: Database) -> None:
    first = datetime(2026, 10, 20, 13, tzinfo=UTC)
    pair = await add_pair(database, now=first - timedelta(days=1))
    found = (await book(database, pair, first - timedelta(days=1), starts_at=first, rule="FREQ=WEEKLY;COUNT=24")).booked
    assert [one.starts_at.astimezone(LISBON).hour for one in found] == [14] + [13] * 22 + [14]


@pytest.mark.parametrize("who", ["supervisee", "supervisor"])
async def test_a_time_that_the_clock_skips_is_a_clash(database: Database, who: str) -> None:
    first = datetime(2027, 2, 28, 7, 30, tzinfo=UTC)  # a Sunday, 02:30 in New York
    now = first - timedelta(days=2)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone=NEW_YORK.key, language="en")
    pair = await add_pair(database, now=now, supervisor=ana, rules=ALWAYS)
    by = getattr(pair, who)
    with pytest.raises(SlotTaken) as refused:
        await book(database, pair, now, starts_at=first, by=by)
    missing = datetime(2027, 3, 14, 7, 30, tzinfo=UTC)
    assert refused.value.params["clashes"] == [missing]
    assert await held(database) == 0
    booked = await book(database, pair, now, starts_at=first, by=by, skip=True)
    assert [f"{one.starts_at:%m-%d %H:%M}" for one in booked.booked] == ["02-28 07:30", "03-07 07:30", "03-21 06:30"]
    local = datetime(2027, 3, 14, 2, 30)  # noqa: DTZ001 - the clock never showed it
    assert booked.clashes == [series.Clash(missing, "refused.clock_skips", local)]


async def test_of_a_time_that_comes_twice_the_first_is_taken(database: Database) -> None:
    first = datetime(2026, 10, 25, 5, 30, tzinfo=UTC)  # a Sunday, 01:30 in New York
    now = first - timedelta(days=2)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone=NEW_YORK.key)
    pair = await add_pair(database, now=now, supervisor=ana, rules=ALWAYS)
    booked = await book(database, pair, now, starts_at=first, rule="FREQ=WEEKLY;COUNT=3")
    assert [f"{one.starts_at:%m-%d %H:%M}" for one in booked.booked] == ["10-25 05:30", "11-01 05:30", "11-08 06:30"]
    with pytest.raises(NotFound, match=r"refused\.slot_not_offered"):
        await book(database, pair, now, starts_at=datetime(2026, 11, 1, 6, 30, tzinfo=UTC), by=ana)


async def test_clashes_are_named_and_skipped_or_all_refused(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    rules = replace(OPEN_HOURS, grid=30)
    other = await add_pair(database, now=now, supervisor=ana, rules=rules)
    pair = await add_pair(database, now=now, supervisor=ana, rules=rules)
    async with database.transaction() as tx:
        await appointments.book(tx, acts(other.supervisee), other, TEN + WEEK + timedelta(minutes=30), now=now)
        await availability.add_exception(
            tx, acts(ana), ana.id, checks.read_exception(Exceptional.TIME_OFF, "2026-12-22"), now=now
        )
    with pytest.raises(SlotTaken, match=r"refused\.series_clashes") as refused:
        await book(database, pair, now)
    assert refused.value.params["clashes"] == [TEN + WEEK, TEN + 3 * WEEK]
    assert texts.refusal(texts.reader("pt-BR", "America/Sao_Paulo"), refused.value) == (
        "Estes horários da série não podem ser reservados: ter., 08/12, 10:00; ter., 22/12, 10:00. "
        "Nada foi reservado; você pode deixá-los de fora ou escolher outro horário."
    )
    assert await held(database) == 2
    booked = await book(database, pair, now, skip=True)
    assert [one.starts_at for one in booked.booked] == [TEN, TEN + 2 * WEEK]
    assert [(one.starts_at, one.key) for one in booked.clashes] == [
        (TEN + WEEK, "refused.slot_taken"),
        (TEN + 3 * WEEK, "refused.slot_not_offered"),
    ]
    assert (await details(database, "series.requested"))["skipped"] == [
        one.starts_at.isoformat() for one in booked.clashes
    ]


async def test_where_everything_clashes_nothing_is_booked(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, now)
    with pytest.raises(SlotTaken, match=r"refused\.series_clashes") as refused:
        await book(database, pair, now, skip=True)
    assert refused.value.params["clashes"] == every_week(4)
    assert await held(database) == 8


async def test_the_supervisees_time_is_theirs_in_every_role(database: Database, now: datetime) -> None:
    carla = await add_person(database, "Carla", ["supervisor", "supervisee"], now=now)
    below = await add_pair(database, now=now, supervisor=carla)
    above = await add_pair(database, now=now, supervisee=carla)
    await book(database, below, now, rule="FREQ=WEEKLY;INTERVAL=2;COUNT=2")
    booked = await book(database, above, now, skip=True)
    assert [one.starts_at for one in booked.booked] == [TEN + WEEK, TEN + 3 * WEEK]


@pytest.mark.parametrize("rules", [replace(OPEN_HOURS, day_limit=1), replace(OPEN_HOURS, week_limit=1)])
async def test_full_days_and_weeks_are_clashes(database: Database, now: datetime, rules: Availability) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    other = await add_pair(database, now=now, supervisor=ana, rules=rules)
    pair = await add_pair(database, now=now, supervisor=ana, rules=rules)
    async with database.transaction() as tx:
        await appointments.book(tx, acts(other.supervisee), other, TEN + WEEK + 3 * HOUR, now=now)
    booked = await book(database, pair, now, skip=True)
    assert [(one.starts_at, one.key) for one in booked.clashes] == [(TEN + WEEK, "refused.slot_not_offered")]


async def test_only_the_first_has_to_lie_within_notice_and_horizon(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, notice=1440, horizon=9))
    with pytest.raises(TooSoon):
        await book(database, pair, now, starts_at=now + 3 * HOUR)
    with pytest.raises(NotUnderstood, match=r"refused\.beyond_horizon"):
        await book(database, pair, now, starts_at=TEN + WEEK)
    assert len((await book(database, pair, now)).booked) == 4


@pytest.mark.parametrize(
    ("starts_at", "rule", "error"),
    [
        (TEN - 2 * WEEK, FOUR, TooLate),
        (TEN + timedelta(days=400), FOUR, NotUnderstood),
        (datetime.max.replace(tzinfo=UTC), FOUR, NotUnderstood),
        (TEN, "FREQ=WEEKLY", NotUnderstood),
        (TEN, "FREQ=WEEKLY;BYDAY=WE;COUNT=3", NotUnderstood),
        (TEN + timedelta(seconds=1), FOUR, NotUnderstood),
        (TEN.replace(hour=4), FOUR, SlotTaken),
    ],
)
async def test_what_makes_no_sense_changes_nothing(
    database: Database, now: datetime, starts_at: datetime, rule: str, error: type[Refused]
) -> None:
    pair = await add_pair(database, now=now)
    with pytest.raises(error):
        await book(database, pair, now, starts_at=starts_at, rule=rule)
    async with database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(series_table)) == 0


async def test_strangers_and_closed_pairs_book_none(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    with pytest.raises(NotAllowed):
        await book(database, pair, now, by=await add_person(database, "Clara", ["supervisee"], now=now))
    with pytest.raises(NotUnderstood, match=r"refused\.length"):
        await book(database, pair, now, length=51)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
    with pytest.raises(PairArchived):
        await book(database, pair, now)


async def test_ten_thousand_are_refused_before_the_database_is_asked(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        begun = asyncio.get_running_loop().time()
        async with counting(database, tx) as sent:
            with pytest.raises(NotUnderstood, match=r"refused\.series_too_long"):
                await series.book(tx, acts(pair.supervisee), pair, TEN, TOO_MANY, skip=True, now=now)
        assert asyncio.get_running_loop().time() - begun < 0.1
        assert sent == []


async def test_a_series_is_checked_by_one_look_however_long_it_is(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, day_limit=5, week_limit=9))
    lengths = []
    for day, count in enumerate((2, 10, 50)):  # the first time asyncpg has to ask about types
        async with database.transaction() as tx, counting(database, tx) as sent:
            first, rule = TEN + timedelta(days=day), f"FREQ=WEEKLY;COUNT={count}"
            await series.book(tx, acts(pair.supervisee), pair, first, rule, skip=False, now=now)
        lengths.append(len(sent))
    assert lengths[2] - lengths[1] == 40  # each is written by itself
    assert lengths[1] - 10 <= 10  # rules, lock, holds, other calendars, limits, series, audit, outbox


async def two_pairs(database: Database, now: datetime) -> list[Pair]:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    return [await add_pair(database, now=now, supervisor=ana, rules=replace(OPEN_HOURS, grid=30)) for _ in range(2)]


async def test_of_two_series_at_once_one_wins_whole(database: Database, now: datetime) -> None:
    one, two = await two_pairs(database, now)
    by_id = {pair.id: pair for pair in (one, two)}
    for turn in range(10):
        first = TEN + timedelta(days=turn % 3)
        later = first + timedelta(minutes=30) + 2 * WEEK
        got = await asyncio.gather(
            book(database, one, now, starts_at=first, rule="FREQ=WEEKLY;COUNT=8"),
            book(database, two, now, starts_at=later, rule="FREQ=WEEKLY;COUNT=8"),
            return_exceptions=True,
        )
        won = [result for result in got if isinstance(result, Booked)]
        assert [len(booked.booked) for booked in won] == [8]
        assert [type(result) for result in got if not isinstance(result, Booked)] == [SlotTaken]
        winner = won[0].booked[0]
        async with database.transaction() as tx:
            actor = acts(by_id[winner.pair_id].supervisor)
            assert len(await groups.cancel(tx, actor, winner.id, Scope.ALL, now=now)) == 8


async def test_without_lock_and_constraint_two_series_take_the_same_time(
    postgresql: PostgreSQL,
    database_name: str,
    database: Database,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: both have looked before either has written."""
    one, two = await two_pairs(database, now)
    owner = create_async_engine(postgresql.dsn(database_name, "visavis_owner"))
    async with owner.begin() as connection:
        await connection.execute(text("ALTER TABLE holds DROP CONSTRAINT ex_holds_person_id_during"))
    await owner.dispose()
    both_are_here = asyncio.Barrier(2)
    look = ledgers.look

    async def unguarded(*_: object) -> None:
        await asyncio.sleep(0)

    async def look_together(*arguments: Any) -> Ledger:
        found = await look(*arguments)
        await both_are_here.wait()
        return found

    monkeypatch.setattr(series, "lock_people", unguarded)
    monkeypatch.setattr(ledgers, "look", look_together)
    got = await asyncio.gather(book(database, one, now), book(database, two, now))
    assert [type(result) for result in got] == [Booked, Booked]


async def test_a_supervisor_confirms_all(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = await book(database, pair, now)
    async with database.transaction() as tx:
        with pytest.raises(NotAllowed, match=r"refused\.supervisor_answers"):
            await groups.confirm(tx, acts(pair.supervisee), booked.booked[2].id, Scope.ALL, now=now)
        done = await groups.confirm(tx, acts(pair.supervisor), booked.booked[2].id, Scope.ALL, now=now)
    assert [(one.id, one.status, one.revision) for one in done] == [
        (one.id, Status.CONFIRMED, 1) for one in booked.booked
    ]
    assert await told(database, pair) == [
        ("series.confirmed", "matrix", "Bruno", 4),
        ("series.confirmed", "mail", "Ana", 4),
        ("series.confirmed", "mail", "Bruno", 4),
        *[(*one, 1) for one in 4 * REMINDERS],
    ]
    assert await audited(database, "appointment.confirm") == [str(one.id) for one in done]
    assert await revision(database, pair, booked.series_id) == 1
    async with database.transaction() as tx:
        with pytest.raises(AlreadyAnswered):
            await groups.confirm(tx, acts(pair.supervisor), booked.booked[0].id, Scope.ALL, now=now)


@pytest.mark.parametrize(
    ("scope", "places"), [(Scope.ONE, [1]), (Scope.FOLLOWING, [1, 2, 3]), (Scope.ALL, [0, 1, 2, 3])]
)
async def test_one_those_that_follow_or_all_are_cancelled(
    database: Database, now: datetime, scope: Scope, places: list[int]
) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    async with database.transaction() as tx:
        done = await groups.cancel(tx, acts(pair.supervisor), before[1].id, scope, now=now, reason="férias")
    assert [one.id for one in done] == [before[place].id for place in places]
    assert await state(database, before[0].series_id) == [
        (one.starts_at, *((Status.CANCELLED, 2) if place in places else (Status.CONFIRMED, 1)))
        for place, one in enumerate(before)
    ]
    kind, count = ("appointment.cancelled", 1) if scope is Scope.ONE else ("series.cancelled", len(places))
    assert await told(database, pair) == [
        (kind, "matrix", "Bruno", count),
        (kind, "mail", "Ana", count),
        (kind, "mail", "Bruno", count),
    ]
    assert await audited(database, "appointment.cancel") == [str(one.id) for one in done]
    assert await held(database) == 2 * (4 - len(places))
    assert await revision(database, pair, before[0].series_id) == (1 if scope is Scope.ONE else 2)
    async with database.transaction() as tx:
        rows = await tx.execute(select(outbox.c.channel, outbox.c.details).order_by(outbox.c.position))
        assert [(row.channel, row.details.get("reason")) for row in rows] == [
            ("matrix", "férias"),
            ("mail", None),
            ("mail", None),
        ]


async def test_what_has_begun_or_ended_otherwise_is_left_out(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    at = TEN + WEEK - HOUR
    async with database.transaction() as tx:
        await appointments.cancel(tx, acts(pair.supervisor), before[2].id, now=now)
        await appointments.close_past(tx, now=at)
        done = await groups.cancel(tx, acts(pair.supervisee), before[0].id, Scope.ALL, now=at)
    assert [(one.id, one.late) for one in done] == [(before[1].id, True), (before[3].id, False)]
    assert [status for _, status, _ in await state(database, before[0].series_id)] == [
        Status.COMPLETED,
        Status.CANCELLED,
        Status.CANCELLED,
        Status.CANCELLED,
    ]
    assert (await details(database, "series.cancelled"))["late"] == [str(before[1].id)]
    async with database.transaction() as tx:
        with pytest.raises(AlreadyAnswered):
            await groups.cancel(tx, acts(pair.supervisee), before[0].id, Scope.ALL, now=at)


async def test_a_supervisee_declines_what_was_booked_on_their_behalf(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = (await book(database, pair, now, by=pair.supervisor)).booked
    async with database.transaction() as tx:
        done = await groups.decline(tx, acts(pair.supervisee), booked[1].id, Scope.FOLLOWING, now=now)
    assert [one.id for one in done] == [one.id for one in booked[1:]]
    declined = [row for row in await told(database, pair) if row[0] == "series.declined"]
    assert declined == [
        ("series.declined", "matrix", "Ana", 3),
        ("series.declined", "mail", "Ana", 3),
        ("series.declined", "mail", "Bruno", 3),
    ]
    assert await held(database) == 2


async def test_a_supervisors_move_is_proposed_for_all_and_accepted(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    async with database.transaction() as tx:
        actor, later = acts(pair.supervisor), before[1].starts_at + 2 * HOUR
        moved = await shifts.reschedule(tx, actor, before[1].id, later, Scope.FOLLOWING, skip=False, now=now)
    assert [one.id for one in moved.moved] == [one.id for one in before[1:]]
    assert [one.proposal and one.proposal.starts_at for one in moved.moved] == [
        one.starts_at + 2 * HOUR for one in before[1:]
    ]
    assert (moved.clashes, await held(database)) == ([], 14)
    assert await told(database, pair) == [
        ("series.proposed", "matrix", "Bruno", 3),
        ("series.proposed", "mail", "Bruno", 3),
    ]
    proposals = (await details(database, "series.proposed"))["proposals"]
    assert proposals == [str(one.proposal.id) for one in moved.moved if one.proposal]
    assert await revision(database, pair, before[0].series_id) == 1  # no calendar shows a proposal
    assert await audited(database, "appointment.propose") == [str(one.id) for one in moved.moved]
    async with database.transaction() as tx:
        with pytest.raises(NotAllowed, match=r"refused\.own_proposal"):
            await groups.accept(tx, acts(pair.supervisor), before[1].id, Scope.FOLLOWING, now=now)
        with pytest.raises(Stale):
            await groups.accept(
                tx, acts(pair.supervisee), before[1].id, Scope.ALL, now=now, if_proposals=[uuid.uuid4()]
            )
        done = await groups.accept(tx, acts(pair.supervisee), before[1].id, Scope.ALL, now=now)
    assert await state(database, before[0].series_id) == [
        (before[0].starts_at, Status.CONFIRMED, 1),
        *[(one.starts_at + 2 * HOUR, Status.CONFIRMED, 2) for one in before[1:]],
    ]
    assert [one.series_at for one in done] == every_week(3, TEN + WEEK)
    assert await told(database, pair) == [
        ("series.rescheduled", "matrix", "Ana", 3),
        ("series.rescheduled", "mail", "Ana", 3),
        ("series.rescheduled", "mail", "Bruno", 3),
        *[(*one, 1) for one in 3 * REMINDERS],
    ]
    assert (await details(database, "series.rescheduled"))["was"] == [one.starts_at.isoformat() for one in before[1:]]
    assert (await held(database), await revision(database, pair, before[0].series_id)) == (8, 2)


@pytest.mark.parametrize(
    ("act", "who", "kind"), [("refuse", "supervisee", "refused"), ("withdraw", "supervisor", "withdrawn")]
)
async def test_a_proposed_move_is_refused_or_taken_back(
    database: Database, now: datetime, act: str, who: str, kind: str
) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    async with database.transaction() as tx:
        later = before[0].starts_at + HOUR
        await shifts.reschedule(tx, acts(pair.supervisor), before[0].id, later, Scope.ALL, skip=False, now=now)
        done = await getattr(groups, act)(tx, acts(getattr(pair, who)), before[0].id, Scope.ALL, now=now)
    assert done == before
    other = "Ana" if who == "supervisee" else "Bruno"
    assert await told(database, pair) == [(f"series.{kind}", "matrix", other, 4), (f"series.{kind}", "mail", other, 4)]
    assert (await details(database, f"series.{kind}"))["proposed"] == [
        [(one.starts_at + HOUR).isoformat(), (one.ends_at + HOUR).isoformat()] for one in before
    ]
    assert (await audited(database, f"appointment.{act}"), await held(database)) == ([str(one.id) for one in before], 8)
    async with database.transaction() as tx:
        with pytest.raises(AlreadyAnswered, match=r"refused\.no_proposal"):
            await groups.accept(tx, acts(pair.supervisee), before[0].id, Scope.ALL, now=now)


@pytest.mark.parametrize("weeks", [1, -1])
async def test_ones_own_requests_move_at_once_onto_each_others_places(
    database: Database, now: datetime, weeks: int
) -> None:
    pair = await add_pair(database, now=now)
    before = (await book(database, pair, now, starts_at=TEN + WEEK)).booked
    async with database.transaction() as tx:
        later = before[2].starts_at + weeks * WEEK
        moved = await shifts.reschedule(tx, acts(pair.supervisee), before[2].id, later, Scope.ALL, skip=False, now=now)
    assert [one.starts_at for one in moved.moved] == [one.starts_at + weeks * WEEK for one in before]
    assert {(one.status, one.revision) for one in moved.moved} == {(Status.REQUESTED, 1)}
    assert await told(database, pair) == [
        ("series.rescheduled", "matrix", "Ana", 4),
        ("series.rescheduled", "mail", "Ana", 4),
        ("series.rescheduled", "mail", "Bruno", 4),
    ]
    assert await held(database) == 8


async def test_what_cannot_move_stays_and_is_in_the_others_way(database: Database, now: datetime) -> None:
    """The last one's new time is taken; so it stays, and with it all that would follow in its place."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    pair = await add_pair(database, now=now, supervisor=ana)
    other = await add_pair(database, now=now, supervisor=ana)
    before = (await book(database, pair, now)).booked
    async with database.transaction() as tx:
        await appointments.book(tx, acts(other.supervisee), other, TEN + 4 * WEEK, now=now)
        for skip in (False, True):
            with pytest.raises(SlotTaken, match=r"refused\.series_clashes") as refused:
                await shifts.reschedule(
                    tx, acts(pair.supervisee), before[0].id, TEN + WEEK, Scope.ALL, skip=skip, now=now
                )
            assert refused.value.params["clashes"] == every_week(4, TEN + WEEK)
    assert await state(database, before[0].series_id) == [(at, Status.REQUESTED, 0) for at in every_week(4)]


async def test_clashing_moves_are_left_where_they_are(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    pair = await add_pair(database, now=now, supervisor=ana, rules=AUTOMATIC)
    other = await add_pair(database, now=now, supervisor=ana, rules=AUTOMATIC)
    before = (await book(database, pair, now)).booked
    async with database.transaction() as tx:
        await appointments.book(tx, acts(other.supervisee), other, TEN + 2 * WEEK + HOUR, now=now)
        await tx.execute(outbox.delete())
        later = TEN + HOUR
        moved = await shifts.reschedule(tx, acts(pair.supervisee), before[0].id, later, Scope.ALL, skip=True, now=now)
    assert [(one.starts_at, one.key) for one in moved.clashes] == [(TEN + 2 * WEEK + HOUR, "refused.slot_taken")]
    assert await state(database, before[0].series_id) == [
        (TEN + HOUR, Status.CONFIRMED, 1),
        (TEN + WEEK + HOUR, Status.CONFIRMED, 1),
        (TEN + 2 * WEEK, Status.CONFIRMED, 0),
        (TEN + 3 * WEEK + HOUR, Status.CONFIRMED, 1),
    ]
    assert (await told(database, pair))[:3] == [
        ("series.rescheduled", "matrix", "Ana", 3),
        ("series.rescheduled", "mail", "Ana", 3),
        ("series.rescheduled", "mail", "Bruno", 3),
    ]
    assert (await details(database, "series.rescheduled"))["skipped"] == [(TEN + 2 * WEEK + HOUR).isoformat()]


@pytest.mark.parametrize("shown", ["as it was", "not at all"])
async def test_several_move_only_by_one_that_was_shown_as_it_is(database: Database, now: datetime, shown: str) -> None:
    """By how much they move is told by where that one was; and it alone has to lie within the horizon."""
    pair = await add_pair(database, now=now)
    before = (await book(database, pair, now)).booked
    seen = {one.id: one.revision for one in before[0 if shown == "as it was" else 1 :]}
    async with database.transaction() as tx:
        if shown == "as it was":
            await moves.reschedule(tx, acts(pair.supervisee), before[0].id, TEN + HOUR, now=now)
    stood = await state(database, before[0].series_id)
    async with database.transaction() as tx:
        with pytest.raises(Stale):
            await shifts.reschedule(
                tx, acts(pair.supervisee), before[0].id, TEN + 2 * HOUR, Scope.ALL, skip=False, now=now, seen=seen
            )
    assert await state(database, before[0].series_id) == stood


async def test_a_move_shifts_the_wall_clock_not_the_instants(database: Database) -> None:
    first = datetime(2027, 3, 9, 15, tzinfo=UTC)  # 10:00 in New York, five days before the change
    now = first - timedelta(days=1)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone=NEW_YORK.key)
    pair = await add_pair(database, now=now, supervisor=ana, rules=AUTOMATIC)
    before = (await book(database, pair, now, starts_at=first, rule="FREQ=WEEKLY;COUNT=3")).booked
    async with database.transaction() as tx:
        later = first + timedelta(days=7) + HOUR  # 12:00 on the summer side
        moved = await shifts.reschedule(tx, acts(pair.supervisee), before[0].id, later, Scope.ALL, skip=False, now=now)
    assert {one.starts_at.astimezone(NEW_YORK).time() for one in moved.moved} == {time(12)}
    assert [f"{one.starts_at:%d %H}" for one in moved.moved] == ["16 16", "23 16", "30 16"]


async def test_a_counter_proposal_of_the_same_times_is_an_agreement(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    later = before[0].starts_at + HOUR
    async with database.transaction() as tx:
        await shifts.reschedule(tx, acts(pair.supervisor), before[0].id, later, Scope.ALL, skip=False, now=now)
        await shifts.reschedule(tx, acts(pair.supervisee), before[0].id, later, Scope.ALL, skip=False, now=now)
    assert await state(database, before[0].series_id) == [(at + HOUR, Status.CONFIRMED, 2) for at in every_week(4)]


async def test_a_new_proposal_may_take_the_place_of_the_one_it_replaces(database: Database, now: datetime) -> None:
    """Each of the new times is what the old proposal for the one before it holds."""
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    async with database.transaction() as tx:
        for shift in (WEEK + HOUR, HOUR, WEEK + HOUR):
            later = before[0].starts_at + shift
            await shifts.reschedule(tx, acts(pair.supervisor), before[0].id, later, Scope.ALL, skip=False, now=now)
        done = await groups.accept(tx, acts(pair.supervisee), before[0].id, Scope.ALL, now=now)
    assert [one.starts_at for one in done] == every_week(4, TEN + WEEK + HOUR)
    assert await held(database) == 8


async def test_what_the_supervisor_proposed_is_not_bound_by_her_limits(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    rules = replace(OPEN_HOURS, day_limit=1)
    pair = await add_pair(database, now=now, supervisor=ana, rules=rules)
    other = await add_pair(database, now=now, supervisor=ana, rules=rules)
    before = await confirmed(database, pair, now)
    later = TEN + timedelta(days=1)
    async with database.transaction() as tx:
        await appointments.book(tx, acts(other.supervisee), other, later + 3 * HOUR, now=now)
        await shifts.reschedule(tx, acts(ana), before[0].id, later, Scope.ALL, skip=False, now=now)
        moved = await shifts.reschedule(tx, acts(pair.supervisee), before[0].id, later, Scope.ALL, skip=False, now=now)
    assert [one.starts_at for one in moved.moved] == every_week(4, later)


async def test_a_move_that_is_none_or_too_near_is_refused(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, move_notice=1440))
    before = await confirmed(database, pair, now)
    at = TEN - HOUR
    async with database.transaction() as tx:
        actor, one = acts(pair.supervisee), before[0]
        with pytest.raises(NotUnderstood, match=r"refused\.move_onto_itself"):
            await shifts.reschedule(tx, actor, one.id, one.starts_at, Scope.ALL, skip=True, now=now)
        with pytest.raises(TooLate, match=r"refused\.move_notice"):
            await shifts.reschedule(tx, actor, one.id, TEN + 3 * HOUR, Scope.ALL, skip=True, now=at)
        with pytest.raises(TooLate, match=r"refused\.slot_past"):
            await shifts.reschedule(tx, actor, one.id, now - HOUR, Scope.ALL, skip=True, now=now)
        with pytest.raises(NotUnderstood, match=r"refused\.beyond_horizon"):
            await shifts.reschedule(tx, actor, one.id, datetime.max.replace(tzinfo=UTC), Scope.ALL, skip=True, now=now)
        # of the second one, the first is only in the way of the notice, and named
        moved = await shifts.reschedule(
            tx, actor, before[1].id, before[1].starts_at + HOUR, Scope.ALL, skip=True, now=at
        )
    assert [(one.starts_at, one.key) for one in moved.clashes] == [(TEN + HOUR, "refused.move_notice")]
    assert [one.id for one in moved.moved] == [one.id for one in before[1:]]


async def test_one_of_a_series_is_an_appointment_like_any_other(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = (await book(database, pair, now)).booked
    async with database.transaction() as tx:
        actor, other = acts(pair.supervisor), acts(pair.supervisee)
        (one,) = await groups.confirm(tx, actor, booked[0].id, Scope.ONE, now=now)
        assert (one.status, one.series_id) == (Status.CONFIRMED, booked[0].series_id)
        (two,) = await groups.decline(tx, actor, booked[1].id, Scope.ONE, now=now)
        assert two.status is Status.DECLINED
        moved = await shifts.reschedule(tx, actor, one.id, TEN + HOUR, Scope.ONE, skip=False, now=now)
        (left,) = await groups.withdraw(tx, actor, one.id, Scope.ONE, now=now)
        assert left == replace(moved.moved[0], proposal=None)
        await shifts.reschedule(tx, actor, one.id, TEN + HOUR, Scope.ONE, skip=False, now=now)
        (left,) = await groups.refuse(tx, other, one.id, Scope.ONE, now=now)
        assert left.proposal is None
        await shifts.reschedule(tx, actor, one.id, TEN + HOUR, Scope.ONE, skip=False, now=now)
        (there,) = await groups.accept(tx, other, one.id, Scope.ONE, now=now)
        assert (there.starts_at, there.series_at) == (TEN + HOUR, TEN)


async def test_a_scope_of_what_is_no_series_is_refused(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        one = await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)
        with pytest.raises(NotUnderstood, match=r"refused\.no_series"):
            await groups.cancel(tx, acts(pair.supervisee), one.id, Scope.ALL, now=now)
        with pytest.raises(Stale):
            await groups.cancel(tx, acts(pair.supervisee), one.id, Scope.ALL, now=now, if_revision=3)


async def test_an_answer_counts_for_what_was_shown(database: Database, now: datetime) -> None:
    """An answer to a question does not confirm the times that it did not name."""
    pair = await add_pair(database, now=now)
    booked = (await book(database, pair, now)).booked
    seen = {one.id: one.revision for one in booked}
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisee), booked[1].id, TEN + WEEK + HOUR, now=now)
        done = await groups.confirm(tx, acts(pair.supervisor), booked[0].id, Scope.ALL, now=now, seen=seen)
        assert [one.id for one in done] == [booked[place].id for place in (0, 2, 3)]
        with pytest.raises(Stale):
            await groups.confirm(tx, acts(pair.supervisor), booked[0].id, Scope.ALL, now=now, seen=seen)


async def test_unanswered_requests_lapse_together(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = await book(database, pair, now)
    async with database.transaction() as tx:
        assert await groups.lapse(tx, now=now + timedelta(days=2, seconds=-1)) == 0
        assert await groups.lapse(tx, now=now + timedelta(days=2)) == 4
        assert await appointments.close_past(tx, now=now + timedelta(days=2)) == 0
    assert [status for _, status, _ in await state(database, booked.series_id)] == [Status.DECLINED] * 4
    lapsed = [row for row in await told(database, pair) if row[0] == "series.declined"]
    assert sorted(lapsed) == sorted(
        [("series.declined", channel, name, 4) for channel in ("matrix", "mail") for name in ("Ana", "Bruno")]
    )
    found = await details(database, "series.declined")
    assert (found["lapsed"], found["by"]) == (True, None)
    assert len(await audited(database, "appointment.lapse")) == 4
    assert await held(database) == 0


async def test_unanswered_proposals_lapse_together(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, now)
    async with database.transaction() as tx:
        later = before[0].starts_at + HOUR
        await shifts.reschedule(tx, acts(pair.supervisor), before[0].id, later, Scope.ALL, skip=False, now=now)
        assert await groups.lapse(tx, now=now + timedelta(days=2)) == 4
        assert await moves.lapse(tx, now=now + timedelta(days=2)) == 0
    assert [row for row in await told(database, pair) if row[0] == "series.lapsed"] == [
        ("series.lapsed", channel, name, 4) for channel in ("matrix", "mail") for name in ("Ana", "Bruno")
    ]
    assert await held(database) == 8


async def test_news_of_the_same_ones_is_overtaken_by_later_news(database: Database, now: datetime) -> None:
    """A cancellation whose request nobody has read yet tells all there is; what is being sent already stands."""
    pair = await add_pair(database, now=now)
    booked = (await book(database, pair, now)).booked
    async with database.transaction() as tx:
        (sending,) = await notifications.claim(tx, Channel.MATRIX, now=now)
        await groups.cancel(tx, acts(pair.supervisee), booked[0].id, Scope.ALL, now=now)
        rows = await tx.execute(select(outbox.c.kind, outbox.c.channel, outbox.c.state).order_by(outbox.c.position))
        assert [tuple(row) for row in rows] == [
            ("series.requested", "matrix", "pending"),
            ("series.requested", "mail", "superseded"),
            ("series.cancelled", "matrix", "pending"),
            ("series.cancelled", "mail", "pending"),
            ("series.cancelled", "mail", "pending"),
        ]
    assert sending.kind == "series.requested"


async def test_news_of_more_is_not_overtaken(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = (await book(database, pair, now)).booked
    async with database.transaction() as tx:
        await groups.cancel(tx, acts(pair.supervisee), booked[2].id, Scope.FOLLOWING, now=now)
    assert [row[0] for row in await told(database, pair)] == ["series.requested"] * 2 + ["series.cancelled"] * 3


async def test_a_proposal_does_not_overtake_the_calendars_news(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = (await book(database, pair, now, by=pair.supervisor)).booked
    async with database.transaction() as tx:
        for hours in (1, 2):
            later = booked[0].starts_at + hours * HOUR
            await shifts.reschedule(tx, acts(pair.supervisor), booked[0].id, later, Scope.ALL, skip=False, now=now)
    assert [row[0] for row in await told(database, pair) if row[0] != "appointment.reminder"] == [
        *["series.booked"] * 3,
        *["series.proposed"] * 2,
    ]

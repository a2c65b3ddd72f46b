"""Reminders as each person wishes: planned, moved, gone, and planned anew when the wishes change."""

import asyncio
import zoneinfo
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import select, update

from supervision import appointments, groups, moves, notifications, people, preferences, series, shifts, unreads
from supervision.appointments import Appointment
from supervision.db import Database
from supervision.groups import Scope
from supervision.hours import WeeklyRange
from supervision.models import Approval, Channel, State, Status
from supervision.models import notifications as table
from supervision.notifications import LOW, NORMAL, Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import USUAL, Preferences
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person

TEN = datetime(2026, 11, 30, 13, 0, tzinfo=UTC)  # Monday, 10:00 in São Paulo
AUTOMATIC = replace(OPEN_HOURS, approval=Approval.AUTOMATIC)
MINUTE = timedelta(minutes=1)
Planned = tuple[str, str, datetime]  # whom, by which channel, when


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    return await add_pair(database, now=now, rules=AUTOMATIC)


async def book(database: Database, pair: Pair, now: datetime, starts_at: datetime = TEN) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


async def save(database: Database, person: Person, wishes: Preferences, now: datetime) -> None:
    async with database.transaction() as tx:
        await preferences.save(tx, acts(person), person.id, wishes, now=now)


async def planned(database: Database, pair: Pair, state: State = State.PENDING) -> list[Planned]:
    names = {person.id: person.name for person in pair.people}
    async with database.transaction() as tx:
        query = select(table).where(table.c.kind == "appointment.reminder", table.c.state == state)
        rows = await tx.execute(query.order_by(table.c.position))
        return [(names[row.person_id], row.channel, row.send_at) for row in rows]


async def tell(database: Database, at: datetime) -> list[Notification]:
    """Let the room hear what is due; what that has held up is claimed."""
    async with database.transaction() as tx:
        for one in await notifications.claim(tx, Channel.MATRIX, now=at, most=100):
            await notifications.settle_sent(tx, one.id, now=at)
        return await notifications.claim(tx, Channel.MATRIX, now=at, most=100)


def usual(name: str, starts_at: datetime = TEN) -> list[Planned]:
    day, hour, quarter = (starts_at - minutes * MINUTE for minutes in (1440, 60, 15))
    return [(name, "mail", day), (name, "matrix", hour), (name, "matrix", quarter)]


async def test_each_is_reminded_as_they_wish(database: Database, pair: Pair, now: datetime) -> None:
    await save(database, pair.supervisee, Preferences((2880, 30), (240,)), now)
    booked = await book(database, pair, now)
    two_days, half_hour, four_hours = (TEN - minutes * MINUTE for minutes in (2880, 30, 240))
    own = [("Bruno", "mail", two_days), ("Bruno", "mail", half_hour), ("Bruno", "matrix", four_hours)]
    assert await planned(database, pair) == [*usual("Ana"), *own]
    async with database.transaction() as tx:
        rows = await tx.execute(select(table).where(table.c.kind == "appointment.reminder"))
        found = sorted((row.details["minutes"], row.priority) for row in rows)
    assert found == [(15, NORMAL), (30, NORMAL), (60, NORMAL), (240, LOW), (1440, LOW), (2880, LOW)]
    async with database.transaction() as tx:
        rows = await tx.execute(select(table).where(table.c.kind == "appointment.reminder"))
        about = {(row.pair_id, row.appointment_id, row.revision, row.expires_at) for row in rows}
    assert about == {(pair.id, booked.id, 0, TEN)}


@pytest.mark.parametrize(("before", "left"), [(1441, 3), (1440, 2), (61, 2), (60, 1), (16, 1), (15, 0), (1, 0)])
async def test_a_moment_that_has_passed_is_not_planned(
    database: Database, now: datetime, before: int, left: int
) -> None:
    pair = await add_pair(database, now=now, rules=replace(AUTOMATIC, notice=0))
    await book(database, pair, TEN - before * MINUTE)
    wanted = [*usual("Ana")[3 - left :], *usual("Bruno")[3 - left :]]
    assert await planned(database, pair) == wanted


async def test_a_request_is_not_reminded_of(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, now)
    assert await planned(database, pair) == []
    await save(database, pair.supervisor, Preferences((60,), ()), now)
    assert await planned(database, pair) == []


async def test_a_move_moves_them_and_a_proposal_does_not(database: Database, pair: Pair, now: datetime) -> None:
    booked = await book(database, pair, now)
    later = TEN + timedelta(days=1)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), booked.id, later, now=now)
    assert await planned(database, pair) == [*usual("Ana"), *usual("Bruno")]
    async with database.transaction() as tx:
        await moves.accept(tx, acts(pair.supervisee), booked.id, now=now)
    assert await planned(database, pair) == [*usual("Ana", later), *usual("Bruno", later)]
    assert await planned(database, pair, State.SUPERSEDED) == [*usual("Ana"), *usual("Bruno")]


@pytest.mark.parametrize("how", ["cancel", "decline"])
async def test_what_does_not_take_place_is_not_reminded_of(
    database: Database, pair: Pair, now: datetime, how: str
) -> None:
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisor), pair, TEN, now=now)
        act = {"cancel": appointments.cancel, "decline": appointments.decline}[how]
        await act(tx, acts(pair.supervisee), booked.id, now=now)
    assert await planned(database, pair) == []
    await save(database, pair.supervisee, Preferences((60,), (15,)), now)
    assert await planned(database, pair) == []


async def test_what_is_over_is_not_reminded_of(database: Database, pair: Pair, now: datetime) -> None:
    await book(database, pair, now)
    async with database.transaction() as tx:
        assert await appointments.close_past(tx, now=TEN + timedelta(hours=1)) == 1
    for _ in range(2):
        assert await tell(database, TEN + timedelta(hours=1)) == []
    await save(database, pair.supervisee, USUAL, TEN + timedelta(hours=1))
    expired = [one for one in await planned(database, pair, State.EXPIRED) if one[1] == "matrix"]
    assert sorted(expired) == sorted(one for name in ("Ana", "Bruno") for one in usual(name) if one[1] == "matrix")


async def test_each_occurrence_of_a_series_has_its_own(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        rule = "FREQ=WEEKLY;COUNT=3"
        made = await series.book(tx, acts(pair.supervisee), pair, TEN, rule, skip=False, now=now)
    starts = [TEN + timedelta(weeks=week) for week in range(3)]
    assert await planned(database, pair) == [
        one for at in starts for name in ("Ana", "Bruno") for one in usual(name, at)
    ]
    async with database.transaction() as tx:
        await groups.cancel(tx, acts(pair.supervisee), made.booked[1].id, Scope.ONE, now=now)
        later = TEN + timedelta(hours=1)
        await shifts.reschedule(tx, acts(pair.supervisee), made.booked[0].id, later, Scope.ALL, skip=False, now=now)
    moved = [later, later + timedelta(weeks=2)]
    assert await planned(database, pair) == [
        one for at in moved for name in ("Ana", "Bruno") for one in usual(name, at)
    ]


async def test_new_wishes_plan_all_that_is_to_come_anew(database: Database, pair: Pair, now: datetime) -> None:
    """One's own alone, in every pair that one belongs to; nothing twice, nothing left of the old ones."""
    clara = await add_person(database, "Clara", ["supervisee"], now=now)
    other = await add_pair(database, now=now, supervisor=pair.supervisor, supervisee=clara, rules=AUTOMATIC)
    later = TEN + timedelta(hours=2)
    await book(database, pair, now)
    await book(database, other, now, later)
    wishes = Preferences((), (30,))
    await save(database, pair.supervisor, wishes, now)
    anew = [("Ana", "matrix", TEN - 30 * MINUTE), ("Ana", "matrix", later - 30 * MINUTE)]
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(table.c.person_id, table.c.channel, table.c.send_at)
            .where(table.c.kind == "appointment.reminder", table.c.state == State.PENDING)
            .order_by(table.c.position)
        )
        called = {pair.supervisor.id: "Ana", pair.supervisee.id: "Bruno", clara.id: "Clara"}
        assert [(called[row.person_id], row.channel, row.send_at) for row in rows] == [
            *usual("Bruno"),
            *usual("Clara", later),
            *anew,
        ]
    await save(database, pair.supervisor, wishes, now)
    await save(database, pair.supervisor, Preferences((), ()), now)
    assert await _all(database, pair.supervisor) == []


async def _all(database: Database, person: Person) -> list[datetime]:
    async with database.transaction() as tx:
        found = table.c.person_id == person.id, table.c.kind == "appointment.reminder", table.c.state == State.PENDING
        return list(await tx.scalars(select(table.c.send_at).where(*found).order_by(table.c.send_at)))


async def test_what_is_about_to_be_told_is_left_when_wishes_change(
    database: Database, pair: Pair, now: datetime
) -> None:
    """Put off by quiet hours, or being sent: its own moment has passed, so no other takes its place."""
    await save(database, pair.supervisor, Preferences((), (600,)), now)
    await book(database, pair, now)
    at = TEN - 600 * MINUTE
    [one] = await tell(database, at)
    async with database.transaction() as tx:
        await notifications.postpone(tx, one, TEN - 120 * MINUTE)
    await save(database, pair.supervisor, Preferences((), (60,)), at + MINUTE)
    assert await _all(database, pair.supervisor) == [TEN - 120 * MINUTE, TEN - 60 * MINUTE]


@pytest.mark.parametrize("change", ["quiet hours", "time zone"])
async def test_what_was_put_off_is_looked_at_again_when_the_quiet_hours_change(
    database: Database, pair: Pair, now: datetime, change: str
) -> None:
    """It waited for the end of hours that are not quiet any more. What is planned for later stays where it is."""
    ana = pair.supervisor
    quiet = Preferences((30,), (600, 30), time(0), time(8))
    await save(database, ana, quiet, now)
    await book(database, pair, now)
    async with database.transaction() as tx:
        mail = unreads.note_message(tx, pair, pair.supervisee.id, "$one", wait=600 * MINUTE, now=TEN - 700 * MINUTE)
        assert await mail is not None
    at = TEN - 600 * MINUTE  # midnight in São Paulo
    [one] = await tell(database, at)
    async with database.transaction() as tx:
        await notifications.postpone(tx, one, TEN - 120 * MINUTE)
    await save(database, ana, quiet, at + MINUTE)
    waiting = [TEN - 120 * MINUTE, TEN - 30 * MINUTE, TEN - 30 * MINUTE]
    assert await _all(database, ana) == waiting
    async with database.transaction() as tx:
        if change == "time zone":
            await people.set_time_zone(tx, acts(ana), ana.id, "Asia/Tokyo", now=at + 2 * MINUTE)
        else:
            other = replace(quiet, quiet_until=time(7))
            await preferences.save(tx, acts(ana), ana.id, other, now=at + 2 * MINUTE)
    assert await _all(database, ana) == [at + 2 * MINUTE, *waiting[1:]]
    async with database.transaction() as tx:
        [again] = await notifications.claim(tx, Channel.MATRIX, now=at + 2 * MINUTE)
        assert (again.id, again.attempts) == (one.id, 1)
        [unread] = await tx.scalars(select(table.c.send_at).where(table.c.kind == unreads.KIND))
    assert unread == TEN - 100 * MINUTE


async def test_who_changes_their_wishes_while_it_is_booked_is_reminded_by_the_new_ones(
    database: Database, pair: Pair, now: datetime
) -> None:
    """Whichever comes first: both take the person's lock before they look."""
    for number in range(6):
        starts_at = TEN + timedelta(hours=number)
        wishes = Preferences((), (20 + number,))
        await asyncio.gather(book(database, pair, now, starts_at), save(database, pair.supervisee, wishes, now))
        wanted = [TEN + timedelta(hours=one) - (20 + number) * MINUTE for one in range(number + 1)]
        assert await _all(database, pair.supervisee) == wanted


@pytest.mark.parametrize(
    ("day", "since_utc"),
    [
        (date(2026, 3, 29), 13),  # Lisbon's clocks go forward that night
        (date(2026, 10, 25), 14),  # and back
    ],
)
async def test_a_day_before_is_24_hours_whatever_the_clock_shows(database: Database, day: date, since_utc: int) -> None:
    lisbon = zoneinfo.ZoneInfo("Europe/Lisbon")
    now = datetime.combine(day - timedelta(days=7), time(12), tzinfo=UTC)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone="Europe/Lisbon")
    hours = tuple(WeeklyRange(weekday, time(9), time(18)) for weekday in range(7))
    pair = await add_pair(database, now=now, supervisor=ana, rules=replace(AUTOMATIC, hours=hours))
    starts_at = datetime.combine(day, time(14), tzinfo=lisbon).astimezone(UTC)
    assert starts_at.hour == since_utc
    await book(database, pair, now, starts_at)
    mailed = [at for _, channel, at in await planned(database, pair) if channel == "mail"]
    assert mailed == [starts_at - timedelta(hours=24)] * 2
    assert {at.astimezone(lisbon).hour for at in mailed} == {13 if since_utc == 13 else 15}


async def test_reminders_of_before_they_said_how_long_are_replaced_too(
    database: Database, pair: Pair, now: datetime
) -> None:
    """An outbox that is older than wishes knows mails of the day before alone, without their minutes."""
    await book(database, pair, now)
    async with database.transaction() as tx:
        await tx.execute(update(table).where(table.c.channel == "mail").values(details={}))
    await save(database, pair.supervisor, Preferences((60,), ()), now)
    assert await _all(database, pair.supervisor) == [TEN - 60 * MINUTE]


async def test_a_series_is_confirmed_by_one_look_at_both_people_s_wishes(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await save(database, pair.supervisee, Preferences((60,), ()), now)
    async with database.transaction() as tx:
        made = await series.book(tx, acts(pair.supervisee), pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=False, now=now)
        done = await groups.confirm(tx, acts(pair.supervisor), made.booked[0].id, Scope.ALL, now=now)
    assert {one.status for one in done} == {Status.CONFIRMED}
    wanted = [
        one
        for at in (TEN + timedelta(weeks=week) for week in range(3))
        for one in (*usual("Ana", at), ("Bruno", "mail", at - 60 * MINUTE))
    ]
    assert await planned(database, pair) == wanted

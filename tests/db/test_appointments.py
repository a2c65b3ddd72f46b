"""Booking and its changes, each with its audit entry and exactly its notifications."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from supervision import appointments, moves, pairs, people, policies
from supervision.appointments import Appointment
from supervision.audit import SYSTEM, Actor
from supervision.db import Database
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
from supervision.models import Approval, Status, audit_entries, holds, notifications
from supervision.models import appointments as table
from supervision.pairs import Pair
from tests.support.sample import OPEN_HOURS, REMINDERS, acts, add_pair, add_person

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo


async def book(database: Database, pair: Pair, starts_at: datetime, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


async def told(database: Database, pair: Pair) -> list[tuple[str, str, str, int, str]]:
    """Everything in the outbox as (kind, channel, person, revision, state), in its order."""
    names = {person.id: person.name for person in pair.people}
    async with database.transaction() as tx:
        rows = await tx.execute(select(notifications).order_by(notifications.c.position))
        return [(row.kind, row.channel, names[row.person_id], row.revision, row.state) for row in rows]


async def audited(database: Database) -> list[tuple[str, bool]]:
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries).where(audit_entries.c.resource == "appointment").order_by(audit_entries.c.id)
        )
        return [(row.action, row.success) for row in rows]


async def held(database: Database) -> list[tuple[datetime, datetime]]:
    async with database.transaction() as tx:
        rows = await tx.execute(select(holds.c.during).order_by(holds.c.during))
        return [(row.during.lower, row.during.upper) for row in rows]


async def test_a_request_holds_both_and_asks_the_supervisor(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    ends_at = TEN + timedelta(minutes=50)
    assert (appointment.status, appointment.revision) == (Status.REQUESTED, 0)
    assert (appointment.starts_at, appointment.ends_at) == (TEN, ends_at)
    assert await held(database) == [(TEN, ends_at), (TEN, ends_at + timedelta(minutes=10))]
    assert await told(database, pair) == [
        ("appointment.requested", "matrix", "Ana", 0, "pending"),
        ("appointment.requested", "mail", "Ana", 0, "pending"),
    ]
    assert await audited(database) == [("appointment.book", True)]


async def test_a_confirmation_tells_both_and_plans_reminders(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN + timedelta(days=7), now)
    async with database.transaction() as tx:
        confirmed = await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
    assert (confirmed.status, confirmed.revision) == (Status.CONFIRMED, 1)
    assert await told(database, pair) == [
        ("appointment.requested", "matrix", "Ana", 0, "superseded"),
        ("appointment.requested", "mail", "Ana", 0, "superseded"),
        ("appointment.confirmed", "matrix", "Bruno", 1, "pending"),
        ("appointment.confirmed", "mail", "Ana", 1, "pending"),
        ("appointment.confirmed", "mail", "Bruno", 1, "pending"),
        *[(*one, 1, "pending") for one in REMINDERS],
    ]
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(notifications.c.send_at, notifications.c.expires_at)
            .where(notifications.c.kind == "appointment.reminder")
            .order_by(notifications.c.position)
        )
        starts_at = appointment.starts_at
        before = [timedelta(hours=24), timedelta(hours=1), timedelta(minutes=15)]
        assert [tuple(row) for row in rows] == 2 * [(starts_at - one, starts_at) for one in before]


async def test_a_declined_request_frees_the_time(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        await appointments.decline(tx, acts(pair.supervisor), appointment.id, now=now)
    assert await held(database) == []
    assert (await told(database, pair))[2:] == [
        ("appointment.declined", "matrix", "Bruno", 1, "pending"),
        ("appointment.declined", "mail", "Ana", 1, "pending"),
        ("appointment.declined", "mail", "Bruno", 1, "pending"),
    ]
    assert (await book(database, pair, TEN, now)).status is Status.REQUESTED


@pytest.mark.parametrize(("who", "other"), [("supervisor", "Bruno"), ("supervisee", "Ana")])
async def test_either_cancels_and_the_other_is_told(database: Database, now: datetime, who: str, other: str) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        await appointments.cancel(tx, acts(getattr(pair, who)), appointment.id, now=now)
    assert await held(database) == []
    assert (await told(database, pair))[2:] == [
        ("appointment.cancelled", "matrix", other, 1, "pending"),
        ("appointment.cancelled", "mail", "Ana", 1, "pending"),
        ("appointment.cancelled", "mail", "Bruno", 1, "pending"),
    ]


async def test_an_overlap_by_a_buffer_is_taken_and_names_the_day_s_others(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, TEN, now)
    with pytest.raises(SlotTaken) as refusal:
        await book(database, pair, TEN, now)
    assert refusal.value.params == {
        "alternatives": [TEN + timedelta(hours=hours) for hours in (-1, 1, 2, 3)],
    }


async def test_somebody_with_two_roles_is_in_one_place_at_a_time(database: Database, now: datetime) -> None:
    """Carla supervises Bruno and is supervised by Ana: her hour is held in either role."""
    carla = await add_person(database, "Carla", ["supervisor", "supervisee"], now=now)
    above = await add_pair(database, now=now, supervisee=carla)
    below = await add_pair(database, now=now, supervisor=carla)
    await book(database, above, TEN, now)
    with pytest.raises(SlotTaken):
        await book(database, below, TEN, now)


@pytest.mark.parametrize(
    ("starts_at", "error", "key"),
    [
        (datetime(2026, 11, 20, 13, tzinfo=UTC), TooLate, "refused.slot_past"),
        (datetime(2026, 11, 23, 12, 30, tzinfo=UTC), TooSoon, "refused.too_soon"),
        (datetime(2026, 11, 24, 13, 30, tzinfo=UTC), NotFound, "refused.slot_not_offered"),
        (datetime(2026, 11, 28, 13, 0, tzinfo=UTC), NotFound, "refused.slot_not_offered"),
        (datetime(2027, 3, 24, 13, 0, tzinfo=UTC), NotUnderstood, "refused.beyond_horizon"),
    ],
)
async def test_a_time_that_cannot_be_booked_changes_nothing(
    database: Database, now: datetime, starts_at: datetime, error: type[Refused], key: str
) -> None:
    pair = await add_pair(database, now=now)
    with pytest.raises(error) as refusal:
        await book(database, pair, starts_at, now)
    assert refusal.value.key == key
    assert await told(database, pair) == []
    assert await held(database) == []


async def test_only_the_right_person_may(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    stranger = await add_person(database, "Davi", ["supervisor", "supervisee", "admin"], now=now)
    appointment = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        for actor in (acts(stranger), SYSTEM):
            with pytest.raises(NotAllowed):
                await appointments.book(tx, actor, pair, TEN + timedelta(hours=2), now=now)
        for change in (appointments.confirm, appointments.decline):
            with pytest.raises(NotAllowed):
                await change(tx, acts(pair.supervisee), appointment.id, now=now)
        for change in (appointments.confirm, appointments.decline, appointments.cancel):
            with pytest.raises(NotFound):
                await change(tx, acts(stranger), appointment.id, now=now)
        with pytest.raises(NotFound):
            await moves.reschedule(tx, acts(stranger), appointment.id, TEN + timedelta(hours=2), now=now)


async def test_an_answer_counts_once(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    supervisor: Actor = acts(pair.supervisor)
    async with database.transaction() as tx:
        with pytest.raises(Stale):
            await appointments.confirm(tx, supervisor, appointment.id, now=now, if_revision=7)
        await appointments.confirm(tx, supervisor, appointment.id, now=now, if_revision=0)
        with pytest.raises(AlreadyAnswered):
            await appointments.confirm(tx, supervisor, appointment.id, now=now)
        with pytest.raises(AlreadyAnswered):
            await appointments.decline(tx, supervisor, appointment.id, now=now)
        with pytest.raises(TooLate):
            await appointments.cancel(tx, supervisor, appointment.id, now=TEN)


async def test_an_archived_pair_books_nothing(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
        pair = await pairs.get(tx, pair.id)
    with pytest.raises(PairArchived):
        await book(database, pair, TEN, now)


async def test_a_request_of_an_archived_pair_is_cancelled(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
        with pytest.raises(AlreadyAnswered):
            await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        cancelled = await appointments.get(tx, acts(pair.supervisee), appointment.id)
    assert cancelled.status is Status.CANCELLED


async def test_nobody_books_with_a_disabled_supervisor(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, pair.supervisor.id, now=now)
        pair = await pairs.get(tx, pair.id)
    with pytest.raises(PairArchived):
        await book(database, pair, TEN, now)


async def test_what_is_over_is_completed_and_an_unanswered_request_lapses(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    kept = await book(database, pair, TEN, now)
    unanswered = await book(database, pair, TEN + timedelta(hours=1), now)
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), kept.id, now=now)
    afterwards = TEN + timedelta(hours=3)
    async with database.transaction() as tx:
        assert await appointments.close_past(tx, now=afterwards) == 2
        assert await appointments.close_past(tx, now=afterwards) == 0
        assert (await appointments.get(tx, acts(pair.supervisee), kept.id)).status is Status.COMPLETED
        assert (await appointments.get(tx, acts(pair.supervisee), unanswered.id)).status is Status.DECLINED
    assert (await told(database, pair))[-4:] == [
        ("appointment.declined", "matrix", "Ana", 1, "pending"),
        ("appointment.declined", "matrix", "Bruno", 1, "pending"),
        ("appointment.declined", "mail", "Ana", 1, "pending"),
        ("appointment.declined", "mail", "Bruno", 1, "pending"),
    ]


async def test_what_cannot_be_closed_holds_up_nothing_else(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    booked = [await book(database, pair, TEN + timedelta(hours=one), now) for one in range(3)]
    over = now + timedelta(days=3)
    async with database.transaction() as tx:
        last = update(table).where(table.c.id == booked[1].id).values(revision=2**31 - 1)  # there is none after it
        await tx.execute(last)
        assert await appointments.close_past(tx, now=over) == 2
        assert await appointments.close_past(tx, now=over) == 0
    async with database.transaction() as tx:
        found = [(await appointments.get(tx, acts(pair.supervisee), one.id)).status for one in booked]
    assert found == [Status.DECLINED, Status.REQUESTED, Status.DECLINED]
    lapsed = [one for one in await told(database, pair) if one[0] == "appointment.declined"]
    assert len(lapsed) == 8


async def test_a_request_lapses_when_its_time_to_answer_is_over(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, answer=30))
    appointment = await book(database, pair, TEN, now)
    assert appointment.answer_by == now + timedelta(minutes=30)
    late = now + timedelta(minutes=30)
    async with database.transaction() as tx:
        with pytest.raises(TooLate, match=r"refused\.request_lapsed"):
            await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=late)
        assert await appointments.close_past(tx, now=late) == 1
        assert (await appointments.get(tx, acts(pair.supervisee), appointment.id)).status is Status.DECLINED
    assert await held(database) == []


async def test_where_nobody_is_asked_a_booking_is_confirmed_at_once(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, approval=Approval.AUTOMATIC))
    appointment = await book(database, pair, TEN + timedelta(days=7), now)
    assert (appointment.status, appointment.revision, appointment.answer_by) == (Status.CONFIRMED, 0, None)
    assert await told(database, pair) == [
        ("appointment.confirmed", "matrix", "Ana", 0, "pending"),
        ("appointment.confirmed", "mail", "Ana", 0, "pending"),
        ("appointment.confirmed", "mail", "Bruno", 0, "pending"),
        *[(*one, 0, "pending") for one in REMINDERS],
    ]


async def test_a_supervisor_books_on_behalf_and_the_supervisee_can_decline(database: Database, now: datetime) -> None:
    """Also in a night of a Saturday, which is none of her hours: they are hers."""
    pair = await add_pair(database, now=now)
    night = datetime(2026, 11, 29, 1, 15, tzinfo=UTC)
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisor), pair, night, now=now)
    assert (booked.status, booked.ends_at - night) == (Status.CONFIRMED, timedelta(minutes=50))
    assert await told(database, pair) == [
        ("appointment.booked", "matrix", "Bruno", 0, "pending"),
        ("appointment.booked", "mail", "Ana", 0, "pending"),
        ("appointment.booked", "mail", "Bruno", 0, "pending"),
        *[(*one, 0, "pending") for one in REMINDERS],
    ]
    async with database.transaction() as tx:
        with pytest.raises(AlreadyAnswered):
            await appointments.decline(tx, acts(pair.supervisor), booked.id, now=now)
        declined = await appointments.decline(tx, acts(pair.supervisee), booked.id, now=now)
    assert declined.status is Status.DECLINED
    assert await held(database) == []
    assert [row for row in await told(database, pair) if row[4] == "pending"] == [
        ("appointment.declined", "matrix", "Ana", 1, "pending"),
        ("appointment.declined", "mail", "Ana", 1, "pending"),
        ("appointment.declined", "mail", "Bruno", 1, "pending"),
    ]


@pytest.mark.parametrize(
    ("starts_at", "error", "key"),
    [
        (datetime(2026, 11, 23, 12, 0, tzinfo=UTC), TooLate, "refused.slot_past"),
        (datetime(2028, 1, 3, 13, 0, tzinfo=UTC), NotUnderstood, "refused.beyond_horizon"),
        (datetime(2026, 11, 24, 13, 0, 30, tzinfo=UTC), NotUnderstood, "refused.whole_minutes"),
    ],
)
async def test_on_behalf_has_its_limits(
    database: Database, now: datetime, starts_at: datetime, error: type[Refused], key: str
) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        with pytest.raises(error) as refusal:
            await appointments.book(tx, acts(pair.supervisor), pair, starts_at, now=now)
    assert refusal.value.key == key
    assert await told(database, pair) == []


@pytest.mark.parametrize(("minutes", "late"), [(24 * 60, False), (24 * 60 - 1, True)])
async def test_a_cancellation_within_the_notice_is_marked_as_late(
    database: Database, now: datetime, minutes: int, late: bool
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        at = TEN - timedelta(minutes=minutes)
        assert (await appointments.cancel(tx, acts(pair.supervisee), appointment.id, now=at)).late is late
        assert (await appointments.get(tx, acts(pair.supervisee), appointment.id)).late is late


async def test_the_supervisor_is_never_late(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        at = TEN - timedelta(minutes=1)
        assert (await appointments.cancel(tx, acts(pair.supervisor), appointment.id, now=at)).late is False


async def test_the_supervisor_says_how_it_went_and_corrects_it(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    supervisor, supervisee = acts(pair.supervisor), acts(pair.supervisee)
    begun, over = TEN + timedelta(minutes=15), TEN + timedelta(hours=2)
    async with database.transaction() as tx:
        await appointments.confirm(tx, supervisor, appointment.id, now=now)
        with pytest.raises(TooLate, match=r"refused\.not_begun"):
            await appointments.mark(tx, supervisor, appointment.id, Status.NO_SHOW, now=TEN - timedelta(minutes=1))
        with pytest.raises(NotAllowed):
            await appointments.mark(tx, supervisee, appointment.id, Status.NO_SHOW, now=begun)
        with pytest.raises(NotUnderstood):
            await appointments.mark(tx, supervisor, appointment.id, Status.CANCELLED, now=begun)
        marked = await appointments.mark(tx, supervisor, appointment.id, Status.NO_SHOW, now=begun)
        assert (marked.status, marked.revision) == (Status.NO_SHOW, 1)
        assert await appointments.close_past(tx, now=over) == 0
        with pytest.raises(AlreadyAnswered):
            await appointments.mark(tx, supervisor, appointment.id, Status.NO_SHOW, now=over)
        corrected = await appointments.mark(tx, supervisor, appointment.id, Status.COMPLETED, now=over)
    assert corrected.status is Status.COMPLETED
    assert (await told(database, pair))[-2:] == [
        ("appointment.marked", "matrix", "Bruno", 1, "pending"),
        ("appointment.marked", "matrix", "Bruno", 1, "pending"),
    ]
    assert [action for action, _ in await audited(database)][-2:] == ["appointment.no_show", "appointment.completed"]


async def test_each_online_appointment_has_a_room_of_its_own_to_meet_in(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, place="https://meet.example.org/{room}"))
    places = {(await book(database, pair, TEN + timedelta(hours=hour), now)).place for hour in range(3)}
    assert len(places) == 3
    assert all(re.fullmatch(r"https://meet\.example\.org/[a-z0-9]{20,}", place) for place in places)


async def test_a_length_that_is_not_the_pair_s_is_refused(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=[50, 90], approval=None, now=now)
        pair = await pairs.get(tx, pair.id)
        with pytest.raises(NotUnderstood, match=r"refused\.length"):
            await appointments.book(tx, acts(pair.supervisee), pair, TEN, length=60, now=now)
        booked = await appointments.book(
            tx, acts(pair.supervisee), pair, TEN, ends_at=TEN + timedelta(minutes=90), now=now
        )
    assert booked.length == 90


async def test_a_booking_that_waited_for_an_archive_is_none(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
        waiting = asyncio.create_task(book(database, pair, TEN, now))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    with pytest.raises(PairArchived):
        await waiting

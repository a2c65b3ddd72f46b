"""Being away: all appointments of those days are dealt with, or nothing is changed."""

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from supervision import absences, appointments, availability, moves, people, waits
from supervision.absences import Then
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.errors import NotAllowed, NotUnderstood, Refused, SlotTaken, Stale, TooLate
from supervision.hours import WeeklyRange
from supervision.models import Exceptional, Status, audit_entries, dated_exceptions, holds, notifications
from supervision.models import appointments as table
from supervision.pairs import Pair
from tests.support.sample import OPEN_HOURS, acts, add_pair

TUESDAY = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo
A_DAY, A_WEEK, HOUR = timedelta(days=1), timedelta(days=7), timedelta(hours=1)
FIRST, LAST = date(2026, 11, 24), date(2026, 11, 26)
BACK = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)  # Friday's midnight in São Paulo


async def two_pairs(database: Database, now: datetime) -> tuple[Pair, Pair]:
    """Ana with Bruno, and Ana with another."""
    one = await add_pair(database, now=now)
    return one, await add_pair(database, now=now, supervisor=one.supervisor)


async def book(database: Database, pair: Pair, starts_at: datetime, now: datetime, *, by: str = "supervisor") -> Any:
    """By the supervisor: confirmed; by the supervisee: a request."""
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(getattr(pair, by)), pair, starts_at, now=now)


async def see(database: Database, pair: Pair, now: datetime) -> list[Appointment]:
    async with database.transaction() as tx:
        return await absences.affected(tx, pair.supervisor.id, FIRST, LAST, now)


async def go(
    database: Database, pair: Pair, then: Then, now: datetime, seen: list[Appointment] | None = None
) -> list[Appointment]:
    known = await see(database, pair, now) if seen is None else seen
    expected = [(one.id, one.revision) for one in known]
    async with database.transaction() as tx:
        return await absences.go(
            tx, acts(pair.supervisor), pair.supervisor, FIRST, LAST, then=then, expected=expected, now=now
        )


async def told(database: Database) -> Counter[tuple[str, str, uuid.UUID]]:
    """What is still to be told, reminders apart."""
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(notifications).where(
                notifications.c.state == "pending", notifications.c.kind != "appointment.reminder"
            )
        )
        return Counter((row.kind, row.channel, row.person_id) for row in rows)


async def everything(database: Database) -> list[Any]:
    """All that an absence can change, row by row."""
    async with database.transaction() as tx:
        return [
            [tuple(row) for row in await tx.execute(select(one).order_by(*one.c))]
            for one in (table, audit_entries, notifications, holds, dated_exceptions)
        ]


async def test_what_falls_in_the_days_is_affected(database: Database, now: datetime) -> None:
    one, other = await two_pairs(database, now)
    tuesday = await book(database, one, TUESDAY, now)
    asked = await book(database, other, TUESDAY + 2 * A_DAY, now, by="supervisee")
    friday = await book(database, other, TUESDAY + 3 * A_DAY, now)
    gone = await book(database, one, TUESDAY + A_DAY, now)
    night = await book(database, one, BACK - 20 * timedelta(minutes=1), now)  # goes on after midnight
    elsewhere = await add_pair(database, now=now)
    await book(database, elsewhere, TUESDAY, now)
    async with database.transaction() as tx:
        await appointments.cancel(tx, acts(one.supervisor), gone.id, now=now)
        moved = await moves.reschedule(tx, acts(one.supervisor), friday.id, TUESDAY + A_DAY, now=now)
    assert await see(database, one, now) == [tuesday, asked, night, moved]
    assert await see(database, one, TUESDAY) == [asked, night, moved]


async def test_all_are_cancelled(database: Database, now: datetime) -> None:
    one, other = await two_pairs(database, now)
    tuesday = await book(database, one, TUESDAY, now)
    asked = await book(database, other, TUESDAY + 2 * A_DAY, now, by="supervisee")
    before = await told(database)
    changed = await go(database, one, "cancel", now)
    assert [(done.id, done.status, done.revision) for done in changed] == [
        (tuesday.id, Status.CANCELLED, 1),
        (asked.id, Status.CANCELLED, 1),
    ]
    ana, bruno, clara = one.supervisor.id, one.supervisee.id, other.supervisee.id
    assert before.total() == 5
    assert await told(database) == Counter(
        {
            ("appointment.cancelled", "matrix", bruno): 1,
            ("appointment.cancelled", "mail", bruno): 1,
            ("appointment.cancelled", "matrix", clara): 1,
            ("appointment.cancelled", "mail", clara): 1,
            ("appointment.cancelled", "mail", ana): 2,
        }
    )
    async with database.transaction() as tx:
        (off,) = (await availability.load(tx, ana)).exceptions
        actions = (
            await tx.execute(
                select(audit_entries.c.action).where(audit_entries.c.actor_id == ana).order_by(audit_entries.c.id)
            )
        ).scalars()
        assert (off.kind, off.first_on, off.last_on, off.starts) == (Exceptional.TIME_OFF, FIRST, LAST, None)
        assert list(actions)[-3:] == ["availability.add_exception", "appointment.cancel", "appointment.cancel"]
        free = await availability.slots(tx, one, since=TUESDAY, until=TUESDAY + 7 * A_DAY, now=now)
        assert free[0].starts_at == BACK + 9 * HOUR
        assert list(await tx.execute(select(holds))) == []


async def test_moves_are_proposed_to_the_same_weekday_and_clock(database: Database, now: datetime) -> None:
    """Next Tuesday at ten is another's, so it is the one after; the other's Thursday is the next."""
    one, other = await two_pairs(database, now)
    tuesday = await book(database, one, TUESDAY, now)
    asked = await book(database, other, TUESDAY + 2 * A_DAY, now, by="supervisee")
    await book(database, other, TUESDAY + A_WEEK, now)
    await settle(database)
    changed = await go(database, one, "propose", now)
    assert [(done.id, done.starts_at, done.status, done.revision) for done in changed] == [
        (tuesday.id, TUESDAY, Status.CONFIRMED, 0),
        (asked.id, TUESDAY + 2 * A_DAY, Status.REQUESTED, 0),
    ]
    proposed = [done.proposal and (done.proposal.by, done.proposal.starts_at) for done in changed]
    ana = one.supervisor.id
    assert proposed == [(ana, TUESDAY + 2 * A_WEEK), (ana, TUESDAY + 2 * A_DAY + A_WEEK)]
    assert await told(database) == Counter(
        {
            ("move.proposed", channel, person): 1
            for channel in ("matrix", "mail")
            for person in (one.supervisee.id, other.supervisee.id)
        }
    )
    async with database.transaction() as tx:
        held = await tx.execute(select(holds).where(holds.c.person_id == ana))
        assert len(list(held)) == 5  # the two old times, the two new ones, and the other's


async def settle(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(notifications.update().values(state="sent"))


async def test_two_of_the_same_pair_get_a_time_each(database: Database, now: datetime) -> None:
    one, _ = await two_pairs(database, now)
    for starts_at in (TUESDAY, TUESDAY + HOUR):
        await book(database, one, starts_at, now)
    changed = await go(database, one, "propose", now)
    assert [done.proposal and done.proposal.starts_at for done in changed] == [
        TUESDAY + A_WEEK,
        TUESDAY + HOUR + A_WEEK,
    ]


async def test_an_unusual_time_is_moved_to_the_next_free_at_all(database: Database, now: datetime) -> None:
    one, _ = await two_pairs(database, now)
    await book(database, one, TUESDAY + 10 * HOUR + timedelta(minutes=15), now)  # 20:15, after her hours
    (changed,) = await go(database, one, "propose", now)
    assert changed.proposal is not None
    assert changed.proposal.starts_at == BACK + 9 * HOUR


async def test_beyond_the_horizon_she_may_propose_herself(database: Database, now: datetime) -> None:
    one = await add_pair(database, now=now, rules=replace(OPEN_HOURS, horizon=2))
    await book(database, one, TUESDAY, now)
    (changed,) = await go(database, one, "propose", now)
    assert changed.proposal is not None
    assert changed.proposal.starts_at == TUESDAY + A_WEEK


async def test_what_she_proposed_to_move_out_of_it_stays_proposed(database: Database, now: datetime) -> None:
    one, _ = await two_pairs(database, now)
    booked = await book(database, one, TUESDAY, now)
    async with database.transaction() as tx:
        moved = await moves.reschedule(tx, acts(one.supervisor), booked.id, BACK + 10 * HOUR, now=now)
    before = await told(database)
    assert await go(database, one, "propose", now) == [moved]
    assert await told(database) == before


@pytest.mark.parametrize(
    ("who", "kind", "answers"),
    [("supervisor", "move.withdrawn", "supervisee"), ("supervisee", "move.refused", "supervisee")],
)
async def test_a_proposal_into_those_days_is_dropped_and_told(
    database: Database, now: datetime, who: str, kind: str, answers: str
) -> None:
    one, _ = await two_pairs(database, now)
    friday = await book(database, one, TUESDAY + 3 * A_DAY, now)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(getattr(one, who)), friday.id, TUESDAY, now=now)
    await settle(database)
    assert await go(database, one, "cancel", now) == [friday]
    person = getattr(one, answers).id
    assert await told(database) == Counter({(kind, "matrix", person): 1, (kind, "mail", person): 1})


async def test_nothing_there_is_only_time_off(database: Database, now: datetime) -> None:
    one, _ = await two_pairs(database, now)
    assert await go(database, one, "cancel", now) == []
    async with database.transaction() as tx:
        assert len((await availability.load(tx, one.supervisor.id)).exceptions) == 1


async def test_offers_of_those_days_are_taken_back(database: Database, now: datetime) -> None:
    one, other = await two_pairs(database, now)
    booked = await book(database, one, TUESDAY, now)
    async with database.transaction() as tx:
        until = TUESDAY + timedelta(minutes=1)
        wait = await waits.join(tx, acts(other.supervisee), other, [(TUESDAY, until)], now=now)
        await appointments.cancel(tx, acts(one.supervisee), booked.id, now=now)
        assert await waits.offer_freed(tx, now) == 1
    await settle(database)
    assert await go(database, one, "cancel", now) == []
    assert await told(database) == Counter({("wait.lapsed", "matrix", other.supervisee.id): 1})
    async with database.transaction() as tx:
        (left,) = await waits.list_of(tx, other.id)
        assert (left.id, left.offer) == (wait.id, None)
        assert await waits.offer_freed(tx, now) == 0


async def test_if_one_has_nowhere_to_go_nothing_is_changed(database: Database, now: datetime) -> None:
    """Ana works on Tuesdays at ten and eleven alone; in the 60 days afterwards one hour is free, for two."""
    rules = replace(OPEN_HOURS, hours=(WeeklyRange(1, time(10), time(12)),))
    one = await add_pair(database, now=now, rules=rules)
    other = await add_pair(database, now=now, supervisor=one.supervisor, rules=rules)
    for week in range(1, 9):
        for hours in (0, 1):
            if (week, hours) != (8, 1):
                await book(database, other, TUESDAY + week * A_WEEK + hours * HOUR, now)
    for hours in (0, 1):
        await book(database, one, TUESDAY + hours * HOUR, now)
    before = await everything(database)
    seen = await see(database, one, now)
    with pytest.raises(SlotTaken) as refusal:
        await go(database, one, "propose", now, seen)
    assert (refusal.value.key, refusal.value.params) == ("refused.nowhere_to_move", {"clashes": [TUESDAY + HOUR]})
    assert await everything(database) == before


async def test_an_appointment_with_somebody_disabled_can_only_be_cancelled(database: Database, now: datetime) -> None:
    one, _ = await two_pairs(database, now)
    await book(database, one, TUESDAY, now)
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, one.supervisee.id, now=now)
    with pytest.raises(SlotTaken):
        await go(database, one, "propose", now)
    assert [done.status for done in await go(database, one, "cancel", now)] == [Status.CANCELLED]


@pytest.mark.parametrize("meanwhile", ["booked", "confirmed", "cancelled"])
async def test_what_she_did_not_see_she_did_not_decide(database: Database, now: datetime, meanwhile: str) -> None:
    one, other = await two_pairs(database, now)
    asked = await book(database, one, TUESDAY, now, by="supervisee")
    seen = await see(database, one, now)
    async with database.transaction() as tx:
        if meanwhile == "booked":
            await appointments.book(tx, acts(other.supervisee), other, TUESDAY + HOUR, now=now)
        elif meanwhile == "confirmed":
            await appointments.confirm(tx, acts(one.supervisor), asked.id, now=now)
        else:
            await appointments.cancel(tx, acts(one.supervisee), asked.id, now=now)
    before = await everything(database)
    with pytest.raises(Stale):
        await go(database, one, "cancel", now, seen)
    assert await everything(database) == before


@pytest.mark.parametrize(
    ("first_on", "last_on", "then", "error", "key"),
    [
        (LAST, FIRST, "cancel", NotUnderstood, "refused.days_backwards"),
        (date(2026, 11, 20), date(2026, 11, 22), "cancel", TooLate, "refused.absence_past"),
        (FIRST, LAST, "forget", NotUnderstood, "refused.not_understood"),
        (FIRST, date.max, "cancel", NotUnderstood, "refused.not_understood"),
        (FIRST, date(2028, 11, 24), "cancel", NotUnderstood, None),
    ],
)
async def test_days_that_make_no_sense(
    database: Database, now: datetime, first_on: date, last_on: date, then: Any, error: type[Refused], key: str | None
) -> None:
    one, _ = await two_pairs(database, now)
    before = await everything(database)
    with pytest.raises(error) as refusal:
        async with database.transaction() as tx:
            await absences.go(
                tx, acts(one.supervisor), one.supervisor, first_on, last_on, then=then, expected=[], now=now
            )
    assert key is None or refusal.value.key == key
    assert await everything(database) == before


async def test_only_she_herself_goes_away(database: Database, now: datetime) -> None:
    one, other = await two_pairs(database, now)
    for person in (one.supervisee, other.supervisee):
        with pytest.raises(NotAllowed):
            async with database.transaction() as tx:
                await absences.go(tx, acts(person), one.supervisor, FIRST, LAST, then="cancel", expected=[], now=now)


BOTH_RIGHT = {("stale", "booked"), ("away", "refused.slot_not_offered")}


@pytest.mark.faults
async def test_a_booking_at_the_same_moment_is_seen_or_refused(database: Database, now: datetime) -> None:
    """Either it was there when she went, so that she has to look again, or it comes too late for those days."""
    one, other = await two_pairs(database, now)
    for place in range(7):
        day = TUESDAY + (place + 1) * A_WEEK
        seen = (day.date(), day.date())

        async def away(seen: tuple[date, date] = seen) -> str:
            try:
                async with database.transaction() as tx:
                    await absences.go(
                        tx, acts(one.supervisor), one.supervisor, *seen, then="cancel", expected=[], now=now
                    )
            except Stale:
                return "stale"
            return "away"

        async def ask(day: datetime = day) -> str:
            try:
                await book(database, other, day, now, by="supervisee")
            except Refused as refusal:
                return refusal.key
            return "booked"

        assert tuple(await asyncio.gather(away(), ask())) in BOTH_RIGHT

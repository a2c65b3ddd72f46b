"""The demo's sample people and bookings, whatever the day on which it is started for the first time."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from embedded import demo
from supervision import appointments, availability, pairs, policies, repetitions, series, waits
from supervision.appointments import Appointment
from supervision.db import Database, Transaction
from supervision.hours import Slot
from supervision.models import Channel, Exceptional, State, Status, notifications
from supervision.models import appointments as table
from supervision.pairs import Pair
from supervision.people import Person

DAYS = (
    datetime(2026, 11, 22, 15, 0, tzinfo=UTC),  # a Sunday
    datetime(2026, 11, 23, 23, 59, tzinfo=UTC),
    datetime(2026, 12, 23, 2, 30, tzinfo=UTC),  # before Christmas and New Year
    datetime(2027, 2, 5, 12, 0, tzinfo=UTC),  # before carnival
    datetime(2027, 3, 26, 9, 0, tzinfo=UTC),  # Good Friday, and Lisbon's clocks change two days later
    datetime(2028, 2, 29, 18, 0, tzinfo=UTC),
)
TWO_WEEKS = timedelta(days=14)


async def fill(tx: Transaction, now: datetime) -> tuple[dict[str, Person], list[Pair]]:
    found = {sample.localpart: await demo.find_or_add(tx, sample, "localhost", now) for sample in demo.SAMPLES}
    await demo.add_bookings(tx, found, now)
    return found, await pairs.list_all(tx)


async def booked(tx: Transaction, pair: Pair) -> list[Appointment]:
    query = select(*appointments.COLUMNS).where(table.c.pair_id == pair.id).order_by(table.c.starts_at)
    return [appointments.from_row(row) for row in await tx.execute(query)]


async def free(tx: Transaction, pair: Pair, now: datetime) -> list[Slot]:
    return await availability.slots(tx, pair, since=now, until=now + TWO_WEEKS, now=now)


@pytest.mark.parametrize("now", DAYS, ids=lambda day: day.date().isoformat())
async def test_the_demo_has_what_scripts_rely_on(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        found, known = await fill(tx, now)
        assert [(pair.supervisor.id, pair.supervisee.id) for pair in known] == [
            (found[supervisor].id, found[supervisee].id) for supervisor, supervisee in demo.PAIRS
        ]
        first, last = known[0], known[-1]
        assert not {person.id for person in first.people} & {person.id for person in last.people}
        assert [one.status for one in await booked(tx, first)] == [
            Status.CANCELLED,
            Status.COMPLETED,
            Status.COMPLETED,
        ]
        assert all(one.ends_at < now for one in await booked(tx, first))
        assert await booked(tx, last) == []
        for pair in known:
            assert len(await free(tx, pair, now)) >= 20


@pytest.mark.parametrize("now", DAYS, ids=lambda day: day.date().isoformat())
async def test_the_demo_shows_the_whole_of_booking(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        found, (_, second, third, _) = await fill(tx, now)
        confirmed, requested = await booked(tx, second)
        assert (confirmed.status, requested.status) == (Status.CONFIRMED, Status.REQUESTED)
        assert confirmed.place.removeprefix("https://calls.visavis.example/").isalnum()
        assert confirmed.place != requested.place

        assert (await policies.of(tx, third)).lengths == (50, 90)
        weekly = [one for one in await booked(tx, third) if one.series_id is not None]
        assert {one.status for one in weekly} == {Status.CONFIRMED}
        assert 6 <= len(weekly) <= 8
        zone = third.supervisor.zone
        assert (
            len({(local.weekday(), local.time()) for local in (one.starts_at.astimezone(zone) for one in weekly)}) == 1
        )
        assert weekly[0].series_id is not None
        kept = await series.of(tx, demo.acts(third.supervisor), weekly[0].series_id)
        assert repetitions.read_rule(kept.rule, zone).count == 8

        [longer] = [one for one in await booked(tx, third) if one.series_id is None]
        assert (longer.status, longer.length, longer.on_behalf) == (Status.CONFIRMED, 90, True)
        assert longer.proposal is not None
        assert longer.proposal.by == third.supervisor.id
        assert longer.may_answer(third.supervisee.id)

        [waiting] = await waits.list_of(tx, third.id)
        assert waiting.wants(confirmed.starts_at)
        assert waiting.offer is None
        rules = await availability.load(tx, found["ana"].id)
        assert (rules.country, rules.subdivision) == ("BR", "SP")
        [off] = rules.exceptions
        assert (off.kind, off.first_on, off.first_on.weekday()) == (Exceptional.TIME_OFF, off.last_on, 4)
        assert off.first_on > now.astimezone(zone).date()


async def test_what_is_cancelled_in_the_demo_is_offered_to_who_waits(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        _, (_, second, third, _) = await fill(tx, now)
        confirmed, _ = await booked(tx, second)
        await appointments.cancel(tx, demo.acts(second.supervisee), confirmed.id, now=now)
    async with database.transaction() as tx:
        assert await waits.offer_freed(tx, now) == 1
        [waiting] = await waits.list_of(tx, third.id)
        assert waiting.offer is not None
        assert waiting.offer.slot == Slot(confirmed.starts_at, confirmed.ends_at)


async def test_the_past_of_the_demo_is_told_to_nobody(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        _, (first, *_) = await fill(tx, now)
        told = select(notifications.c.state).where(notifications.c.pair_id == first.id)
        told = told.where(notifications.c.channel.in_((Channel.MAIL, Channel.MATRIX)))
        assert set(await tx.scalars(told.distinct())) == {State.EXPIRED}

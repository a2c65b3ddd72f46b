"""A supervisor's other calendars: what they take out of her slots, whom that binds, and who may see and change them."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_network

import pytest
from sqlalchemy import func, select, text

from supervision import absences, appointments, availability, moves, outside, people, seals, series, shifts, waits
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, NotUnderstood, Refused, SlotTaken
from supervision.groups import Scope
from supervision.hours import Availability
from supervision.models import Approval, audit_entries, busy_times
from supervision.models import outside_calendars as table
from supervision.outside import Due, OutsideCalendar, Reading
from supervision.pairs import Pair
from supervision.ranges import Range
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person

SECRET = "s" * 32
ADDRESS = "https://calendar.example.org/private-c0ffee/basic.ics"
TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # Tuesday, 10:00 in São Paulo
MINUTE, HOUR, WEEK = timedelta(minutes=1), timedelta(hours=1), timedelta(days=7)
PAUSE, LEASE = timedelta(minutes=15), timedelta(minutes=2)
AT_ONCE = replace(OPEN_HOURS, approval=Approval.AUTOMATIC)


async def add(database: Database, pair: Pair, now: datetime, address: str = ADDRESS) -> OutsideCalendar:
    async with database.transaction() as tx:
        return await outside.add(tx, acts(pair.supervisor), pair.supervisor.id, address, secret=SECRET, now=now)


async def claim(database: Database, now: datetime, most: int = 10) -> list[Due]:
    async with database.transaction() as tx:
        return await outside.claim_due(tx, now=now, most=most, lease=LEASE)


async def settle(database: Database, due: Due, busy: Sequence[Range] | None, now: datetime) -> bool:
    reading = Reading(busy, '"tag"', None, b"digest", "2026-11-23 America/Sao_Paulo")
    async with database.transaction() as tx:
        return await outside.settle_read(tx, due, reading, now=now, pause=PAUSE)


async def add_busy(database: Database, pair: Pair, now: datetime, *busy: Range) -> OutsideCalendar:
    """A calendar of hers that was read already."""
    added = await add(database, pair, now, f"https://calendar.example.org/{uuid.uuid4()}.ics")
    [due] = await claim(database, now)
    assert await settle(database, due, busy, now)
    return added


async def list_of(database: Database, pair: Pair) -> list[OutsideCalendar]:
    async with database.transaction() as tx:
        return await outside.list_of(tx, acts(pair.supervisor), pair.supervisor.id)


async def busy_of(database: Database, pair: Pair) -> list[Range]:
    async with database.transaction() as tx:
        return await outside.busy(tx, pair.supervisor.id, TEN - 4 * WEEK, TEN + 4 * WEEK)


async def starts_on_tuesday(database: Database, pair: Pair, now: datetime) -> list[int]:
    """The free hours of that day, in São Paulo."""
    midnight = TEN - 10 * HOUR
    async with database.transaction() as tx:
        free = await availability.slots(tx, pair, since=midnight, until=midnight + timedelta(days=1), now=now)
    return [slot.starts_at.astimezone(pair.supervisor.zone).hour for slot in free]


async def test_busy_times_are_not_offered_and_need_no_buffers(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    whole = [9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert await starts_on_tuesday(database, pair, now) == whole
    first = await add_busy(database, pair, now, (TEN - 10 * MINUTE, TEN + 5 * MINUTE))  # 9:50 to 10:05
    assert await starts_on_tuesday(database, pair, now) == [9, 11, 12, 13, 14, 15, 16, 17]
    other = (TEN, TEN + 3 * HOUR)
    second = await add_busy(database, pair, now, other, (TEN + HOUR, TEN + 2 * HOUR))
    assert await starts_on_tuesday(database, pair, now) == [9, 13, 14, 15, 16, 17]
    async with database.transaction() as tx:
        await outside.remove(tx, acts(pair.supervisor), pair.supervisor.id, second.id, now=now)
    assert await starts_on_tuesday(database, pair, now) == [9, 11, 12, 13, 14, 15, 16, 17]
    async with database.transaction() as tx:
        await outside.remove(tx, acts(pair.supervisor), pair.supervisor.id, first.id, now=now)
        assert await tx.scalar(select(func.count()).select_from(busy_times)) == 0
    assert await starts_on_tuesday(database, pair, now) == whole


async def test_a_supervisee_s_other_calendars_are_nobody_s_business(database: Database, now: datetime) -> None:
    """Somebody who is supervised here and supervises elsewhere sees what they book."""
    bruno = await add_person(database, "Bruno", ["supervisor", "supervisee"], now=now)
    pair = await add_pair(database, now=now, supervisee=bruno)
    theirs = await add_pair(database, now=now, supervisor=bruno)
    await add_busy(database, theirs, now, (TEN, TEN + HOUR))
    assert 10 in await starts_on_tuesday(database, pair, now)
    assert 10 not in await starts_on_tuesday(database, theirs, now)
    async with database.transaction() as tx:
        await appointments.book(tx, acts(bruno), pair, TEN, now=now)


async def test_a_supervisee_cannot_book_or_move_there_and_she_can(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=AT_ONCE)
    ana, bruno = acts(pair.supervisor), acts(pair.supervisee)
    await add_busy(database, pair, now, (TEN + 30 * MINUTE, TEN + HOUR))
    with pytest.raises(NotFound) as refused:
        async with database.transaction() as tx:
            await appointments.book(tx, bruno, pair, TEN, now=now)
    assert (refused.value.key, refused.value.params) == ("refused.slot_not_offered", {})
    async with database.transaction() as tx:
        booked = await appointments.book(tx, bruno, pair, TEN + HOUR, now=now)
    with pytest.raises(NotFound) as refused:
        async with database.transaction() as tx:
            await moves.reschedule(tx, bruno, booked.id, TEN, now=now)
    assert refused.value.key == "refused.slot_not_offered"
    async with database.transaction() as tx:
        proposed = await moves.reschedule(tx, ana, booked.id, TEN, now=now)
    assert proposed.proposal is not None
    async with database.transaction() as tx:  # what she proposes they can accept
        moved = await moves.accept(tx, bruno, booked.id, now=now)
    assert moved.starts_at == TEN
    async with database.transaction() as tx:
        await appointments.cancel(tx, ana, booked.id, now=now)
        on_behalf = await appointments.book(tx, ana, pair, TEN, now=now)
    assert on_behalf.starts_at == TEN


async def test_a_taken_time_that_is_busy_elsewhere_is_said_to_be_not_offered(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    other = await add_pair(database, now=now, supervisor=pair.supervisor)
    async with database.transaction() as tx:
        await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)
    await add_busy(database, pair, now, (TEN, TEN + HOUR))
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await appointments.book(tx, acts(other.supervisee), other, TEN, now=now)


async def test_of_a_series_what_is_busy_is_left_out_or_refused(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=AT_ONCE)
    ana, bruno = acts(pair.supervisor), acts(pair.supervisee)
    await add_busy(database, pair, now, (TEN + WEEK, TEN + WEEK + HOUR), (TEN + 3 * WEEK, TEN + 4 * WEEK))
    with pytest.raises(SlotTaken) as refused:
        async with database.transaction() as tx:
            await series.book(tx, bruno, pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=False, now=now)
    assert refused.value.params["clashes"] == [TEN + WEEK]
    async with database.transaction() as tx:
        booked = await series.book(tx, bruno, pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=True, now=now)
    assert [one.starts_at for one in booked.booked] == [TEN, TEN + 2 * WEEK]
    assert [(one.starts_at, one.key) for one in booked.clashes] == [(TEN + WEEK, "refused.slot_not_offered")]
    with pytest.raises(SlotTaken) as refused:  # a week on both are in the way
        async with database.transaction() as tx:
            await shifts.reschedule(tx, bruno, booked.booked[0].id, TEN + WEEK, Scope.ALL, skip=False, now=now)
    assert refused.value.params["clashes"] == [TEN + WEEK, TEN + 3 * WEEK]
    async with database.transaction() as tx:
        hers = await series.book(tx, ana, pair, TEN + 2 * HOUR, "FREQ=WEEKLY;COUNT=4", skip=False, now=now)
    assert len(hers.booked) == 4


async def test_being_away_proposes_no_time_that_is_busy_elsewhere(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=AT_ONCE)
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)
    await add_busy(database, pair, now, (TEN + WEEK, TEN + WEEK + HOUR))
    day = date(2026, 11, 24)
    async with database.transaction() as tx:
        [proposed] = await absences.go(
            tx,
            acts(pair.supervisor),
            pair.supervisor,
            day,
            day,
            then="propose",
            expected=[(booked.id, booked.revision)],
            now=now,
        )
    assert proposed.proposal is not None
    assert proposed.proposal.starts_at == TEN + 2 * WEEK


async def test_the_waiting_list_is_offered_what_becomes_free_and_nothing_busy(
    database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    bruno = acts(pair.supervisee)
    calendar = await add_busy(database, pair, now, (TEN, TEN + HOUR))
    async with database.transaction() as tx:
        wait = await waits.join(tx, bruno, pair, [(TEN, TEN + MINUTE)], now=now)
        assert await waits.offer_freed(tx, now) == 0
    later = now + PAUSE
    [due] = await claim(database, later)
    assert due.id == calendar.id
    assert await settle(database, due, [], later)  # she is free again
    async with database.transaction() as tx:
        assert await waits.offer_freed(tx, later) == 1
        offered = await waits.get(tx, bruno, wait.id)
    assert offered.offer is not None
    assert offered.offer.starts_at == TEN
    [due] = await claim(database, later + PAUSE)
    assert await settle(database, due, [(TEN, TEN + HOUR)], later + PAUSE)  # and busy once more
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await waits.accept(tx, bruno, wait.id, now=later + PAUSE)
    async with database.transaction() as tx:
        assert await waits.offer_freed(tx, later + PAUSE) == 1
        assert (await waits.get(tx, bruno, wait.id)).offer is None
        assert await waits.offer_freed(tx, later + PAUSE) == 0


async def test_whoever_waits_is_thought_of_when_times_change(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    calendar = await add_busy(database, pair, now, (TEN, TEN + HOUR))
    async with database.transaction() as tx:
        await waits.join(tx, acts(pair.supervisee), pair, [(TEN, TEN + MINUTE)], now=now)
    heard: list[str] = []
    async with database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.add_listener("visavis_waits", lambda *said: heard.append(said[2]))
        [due] = await claim(database, now + PAUSE)
        assert await settle(database, due, [(TEN, TEN + HOUR)], now + PAUSE)  # as it was
        await asyncio.sleep(0.1)
        assert heard == []
        async with database.transaction() as tx:
            await outside.remove(tx, SYSTEM, pair.supervisor.id, calendar.id, now=now)
        async with asyncio.timeout(30):
            while not heard:  # noqa: ASYNC110 - asyncpg calls it
                await asyncio.sleep(0.01)
        assert heard == ["visavis_waits"]


async def test_only_what_differs_is_written(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    stays, goes, comes = [(TEN + n * WEEK, TEN + n * WEEK + HOUR) for n in range(3)]
    await add_busy(database, pair, now, stays, goes)
    rows = text("SELECT ctid::text FROM busy_times ORDER BY lower(during)")
    async with database.transaction() as tx:
        before = list(await tx.scalars(rows))
    [due] = await claim(database, now + PAUSE)
    assert await settle(database, due, [stays, comes, comes], now + PAUSE)
    assert await busy_of(database, pair) == [stays, comes]
    async with database.transaction() as tx:
        assert next(iter(await tx.scalars(rows))) == before[0]
    [due] = await claim(database, now + 2 * PAUSE)
    assert (due.etag, due.digest, due.read_as) == ('"tag"', b"digest", "2026-11-23 America/Sao_Paulo")
    assert await settle(database, due, None, now + 2 * PAUSE)
    assert await busy_of(database, pair) == [stays, comes]
    assert [one.fetched_at for one in await list_of(database, pair)] == [now + 2 * PAUSE]


async def test_two_bridges_share_the_calendars_and_an_old_lease_settles_nothing(
    database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    for number in range(4):
        await add(database, pair, now, f"{ADDRESS}?{number}")
    both = await asyncio.gather(claim(database, now, 2), claim(database, now, 2))
    assert sorted(map(len, both)) == [2, 2]
    assert len({due.id for claimed in both for due in claimed}) == 4
    assert await claim(database, now + LEASE - MINUTE / 60) == []
    late = both[0][0]
    again = await claim(database, now + LEASE)
    assert len(again) == 4
    assert not await settle(database, late, [(TEN, TEN + HOUR)], now + LEASE)
    assert await busy_of(database, pair) == []
    async with database.transaction() as tx:
        assert await outside.next_due(tx) == now + 2 * LEASE


async def test_a_failure_is_told_and_waits_longer_each_time_while_what_was_read_stands(
    database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    await add_busy(database, pair, now, (TEN, TEN + HOUR))
    at, pauses = now + PAUSE, []
    for _ in range(7):
        [due] = await claim(database, at)
        async with database.transaction() as tx:
            assert await outside.settle_failed(tx, due, "unreachable", now=at, pause=PAUSE)
            next_at = await outside.next_due(tx)
        assert next_at is not None
        pauses.append((next_at - at) // MINUTE)
        at = next_at
    assert pauses == [15, 30, 60, 120, 240, 360, 360]
    [known] = await list_of(database, pair)
    assert (known.error, known.fetched_at) == ("unreachable", now)
    assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]
    [due] = await claim(database, at)
    assert await settle(database, due, None, at)
    async with database.transaction() as tx:
        assert await outside.next_due(tx) == at + PAUSE
    [known] = await list_of(database, pair)
    assert (known.error, known.fetched_at) == (None, at)


async def test_the_other_side_can_ask_for_patience_but_not_for_ever(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await add(database, pair, now)
    at = now
    for wait, expected in ((HOUR, HOUR), (999 * HOUR, 6 * HOUR), (MINUTE, 4 * PAUSE)):
        [due] = await claim(database, at)
        async with database.transaction() as tx:
            await outside.settle_failed(tx, due, "failed", now=at, pause=PAUSE, wait=wait)
            next_at = await outside.next_due(tx)
        assert next_at == at + expected
        at = next_at


async def test_what_was_removed_meanwhile_is_not_settled(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    added = await add(database, pair, now)
    [due] = await claim(database, now)
    async with database.transaction() as tx:
        await outside.remove(tx, acts(pair.supervisor), pair.supervisor.id, added.id, now=now)
    assert not await settle(database, due, [(TEN, TEN + HOUR)], now)
    assert await busy_of(database, pair) == []


async def test_somebody_disabled_is_not_read_for(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await add(database, pair, now)
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, pair.supervisor.id, now=now)
        assert await outside.next_due(tx) is None
    assert await claim(database, now) == []


async def test_the_address_stands_locked_and_is_not_shown(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    added = await add(database, pair, now, f"webcal://{ADDRESS.removeprefix('https://')}#part")
    assert added == OutsideCalendar(added.id, pair.supervisor.id, "calendar.example.org", now, None, None)
    assert await list_of(database, pair) == [added]
    async with database.transaction() as tx:
        [row] = (await tx.execute(select(table))).mappings()
        whole = await tx.scalar(text("SELECT string_agg(outside_calendars::text, '') FROM outside_calendars"))
        entry = (await tx.execute(select(audit_entries).order_by(audit_entries.c.at.desc()).limit(1))).mappings().one()
    assert seals.unlock(SECRET, row["address"]) == ADDRESS
    assert seals.unlock("another secret of thirty-two characters", row["address"]) is None
    assert "c0ffee" not in str(whole)
    assert b"c0ffee".hex() not in str(whole)
    assert "c0ffee" not in str(dict(entry))


async def test_only_she_and_the_operator_see_and_change_them(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    other = await add_pair(database, now=now)
    added = await add(database, pair, now)
    for stranger in (pair.supervisee, other.supervisor):
        with pytest.raises(NotAllowed):
            async with database.transaction() as tx:
                await outside.add(tx, acts(stranger), pair.supervisor.id, ADDRESS, secret=SECRET, now=now)
        with pytest.raises(NotAllowed):
            async with database.transaction() as tx:
                await outside.list_of(tx, acts(stranger), pair.supervisor.id)
        with pytest.raises(NotAllowed):
            async with database.transaction() as tx:
                await outside.remove(tx, acts(stranger), pair.supervisor.id, added.id, now=now)
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await outside.remove(tx, acts(other.supervisor), other.supervisor.id, added.id, now=now)
    with pytest.raises(NotAllowed):
        async with database.transaction() as tx:
            await outside.add(tx, acts(pair.supervisee), pair.supervisee.id, ADDRESS, secret=SECRET, now=now)
    async with database.transaction() as tx:
        assert await outside.list_of(tx, SYSTEM, pair.supervisor.id) == [added]


async def test_at_most_five_and_none_twice_however_many_ask_at_once(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)

    async def attempt(address: str) -> str:
        try:
            await add(database, pair, now, address)
        except Refused as refused:
            return refused.key
        return "added"

    same = await asyncio.gather(*(attempt(ADDRESS) for _ in range(4)))
    assert sorted(same) == ["added", *["refused.calendar_exists"] * 3]
    many = await asyncio.gather(*(attempt(f"{ADDRESS}?{number}") for number in range(8)))
    assert sorted(many) == [*["added"] * 4, *["refused.calendars_too_many"] * 4]
    with pytest.raises(AlreadyAnswered):
        await add(database, pair, now)


LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (" https://example.org/a%40b/c.ics ", ("https://example.org/a%40b/c.ics", "example.org")),
        ("webcal://Calendar.example.org/c.ics", ("https://Calendar.example.org/c.ics", "calendar.example.org")),
        ("WEBCALS://example.org:8443/c.ics?k=1#x", ("https://example.org:8443/c.ics?k=1", "example.org")),
        ("https://ana:word@example.org/c.ics", ("https://ana:word@example.org/c.ics", "example.org")),
        ("https://[2606:4700::1111]/c.ics", ("https://[2606:4700::1111]/c.ics", "2606:4700::1111")),
        ("http://example.org/c.ics", "refused.calendar_address"),
        ("http://127.0.0.1/c.ics", "refused.calendar_address"),
        ("ftp://example.org/c.ics", "refused.calendar_address"),
        ("file:///etc/passwd", "refused.calendar_address"),
        ("https:///c.ics", "refused.calendar_address"),
        ("https://example.org:99999/c.ics", "refused.calendar_address"),
        ("https://[::1/c.ics", "refused.calendar_address"),
        ("https://example.org/a b", "refused.calendar_address"),
        ("https://example.org/a\r\nX-Y:1", "refused.calendar_address"),
        ("https://example.org/" + "a" * 2000, "refused.calendar_address"),
        ("calendar", "refused.calendar_address"),
        ("", "refused.calendar_address"),
        ("https://127.0.0.1/c.ics", "refused.calendar_inside"),
        ("https://[::ffff:10.0.0.1]/c.ics", "refused.calendar_inside"),
        ("https://169.254.169.254/latest/meta-data", "refused.calendar_inside"),
    ],
)  # fmt: skip
def test_addresses_that_are_taken_and_refused(typed: str, expected: tuple[str, str] | str) -> None:
    if isinstance(expected, tuple):
        assert outside.check_address(typed) == expected
        return
    with pytest.raises(NotUnderstood) as refused:
        outside.check_address(typed)
    assert refused.value.key == expected


def test_networks_that_are_named_may_be_read_without_encryption() -> None:
    plain = "http://127.0.0.1:8000/c.ics"
    assert outside.check_address(plain, LOOPBACK) == (plain, "127.0.0.1")
    named = "http://calendars.internal/c.ics"  # what it resolves to is judged when it is fetched
    assert outside.check_address(named, LOOPBACK) == (named, "calendars.internal")
    with pytest.raises(NotUnderstood):
        outside.check_address("http://10.0.0.1/c.ics", LOOPBACK)
    with pytest.raises(NotUnderstood):
        outside.check_address("https://10.0.0.1/c.ics", LOOPBACK)


async def test_no_rules_are_needed_for_a_calendar(database: Database, now: datetime) -> None:
    """Somebody may begin with the calendars and set the hours later."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with database.transaction() as tx:
        await outside.add(tx, acts(ana), ana.id, ADDRESS, secret=SECRET, now=now)
        await availability.save(tx, SYSTEM, ana.id, Availability(OPEN_HOURS.hours), now=now)

"""What goes when, what is announced before, and what stops it: the rules over months, and the rows they stand on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from supervision import bots, homeserver_tasks, journal, notifications, pairs, people, retention, rooms
from supervision.audit import SYSTEM
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.models import Channel, State
from supervision.models import journal as journal_table
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.pairs import Pair
from supervision.retention import Announcement, Standing
from tests.support.sample import add_pair

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ZONES = ("America/Sao_Paulo", "Europe/Lisbon", "Asia/Kolkata", "Africa/Cairo", "Pacific/Apia")
STARTS = (
    datetime(2026, 9, 20, 5, tzinfo=UTC),
    datetime(2027, 3, 1, 17, tzinfo=UTC),
)  # either has changes of the clocks


def standing(days: int = 30, zone: str = "UTC", **values: datetime) -> Standing:
    return Standing(days, False, ZoneInfo(zone), **values)


# Rules, each by itself


def test_nothing_goes_unannounced(now: datetime) -> None:
    assert retention.due(standing(announced=now - 40 * DAY), now) is None


def test_what_is_announced_and_old_goes_by_midnights(now: datetime) -> None:
    ready = standing(zone="America/Sao_Paulo", allowed=now)
    before = datetime(2026, 10, 24, 3, tzinfo=UTC)
    assert retention.due(ready, now) == before
    assert retention.due(replace(ready, retained_since=before), now + 14 * HOUR) is None
    assert retention.due(replace(ready, retained_since=before), now + 15 * HOUR) == before + DAY


def test_no_more_goes_than_was_announced(now: datetime) -> None:
    assert retention.due(standing(allowed=now - 35 * DAY), now) == now - 35 * DAY


@pytest.mark.parametrize(("held", "days"), [(True, 30), (False, 0)])
def test_a_hold_and_no_days_stop_everything(now: datetime, held: bool, days: int) -> None:
    still = replace(standing(days, allowed=now), held=held)
    assert retention.due(still, now) is None
    assert retention.wanting(still, now - 100 * DAY, now) is None
    assert retention.lifetime(still, now) is None


def test_a_room_with_nothing_old_hears_nothing(now: datetime) -> None:
    assert retention.wanting(standing(), None, now) is None
    assert retention.wanting(standing(), now - 25 * DAY, now) is None


def test_an_announcement_covers_a_week_from_three_days_on(now: datetime) -> None:
    announced = retention.wanting(standing(zone="America/Sao_Paulo"), now - 27 * DAY, now)
    since = datetime(2026, 11, 27, 3, tzinfo=UTC)
    assert announced == Announcement(since, since + 7 * DAY - 30 * DAY, 30)


def test_a_midnight_that_the_clocks_jump_over_is_the_day_s_first_instant() -> None:
    cairo = ZoneInfo("Africa/Cairo")
    first = retention.midnight(datetime(2027, 4, 30, 12, tzinfo=UTC), cairo)
    assert first.astimezone(cairo).isoformat() == "2027-04-30T01:00:00+03:00"


def test_the_homeserver_is_told_the_days_only_where_all_that_old_was_announced(now: datetime) -> None:
    assert retention.lifetime(standing(), now) is None
    assert retention.lifetime(standing(allowed=now - 25 * DAY), now) == 30 * DAY
    assert retention.lifetime(standing(allowed=now - 33 * DAY), now) == 37 * DAY
    assert retention.lifetime(standing(allowed=now - 300 * DAY), now) is None


# Rules over time


@dataclass
class Said:
    """An announcement with when it was said; a hold makes it void."""

    announcement: Announcement
    at: datetime
    void: bool = False


@dataclass
class World:
    """A room in which messages are written while its rules are kept every hour."""

    zone: ZoneInfo
    days: int
    now: datetime
    held: bool = False
    retained_since: datetime | None = None
    said: list[Said] = field(default_factory=list)
    messages: set[datetime] = field(default_factory=set)
    free_since: datetime = field(init=False)  # since when the days are these and nothing is held

    def __post_init__(self) -> None:
        self.free_since = self.now

    def standing(self) -> Standing:
        valid = [one for one in self.said if not one.void]
        allowed = [one for one in valid if one.at + 3 * DAY <= self.now and one.announcement.since <= self.now]
        untils = [max((one.announcement.until for one in some), default=None) for some in (valid, allowed)]
        return Standing(self.days, self.held, self.zone, self.retained_since, *untils)

    def change(self, days: int, held: bool) -> None:
        self.days, self.held, self.free_since = days, held, self.now

    def pass_hour(self, delay: timedelta) -> None:
        """The bot looks after the room; what it announces is said after the delay."""
        standing = self.standing()
        if self.held:
            for one in self.said:
                one.void = True
        before = retention.due(standing, self.now)
        if before is not None:
            self.remove(before)
        else:
            unannounced = [one for one in self.messages if one >= standing.unannounced_since]
            announcement = retention.wanting(standing, min(unannounced, default=None), self.now)
            if announcement is not None:
                self.check(announcement)
                self.said.append(Said(announcement, self.now + delay))
        self.check_lifetime()
        self.check_nothing_stays()
        self.now += HOUR

    def remove(self, before: datetime) -> None:
        assert not self.held
        assert self.days
        for one in {one for one in self.messages if one < before}:
            assert one <= self.now - self.days * DAY
            assert self.was_announced(one)
            self.messages.remove(one)
        self.retained_since = before

    def was_announced(self, one: datetime) -> bool:
        told = [said for said in self.said if not said.void and said.announcement.until > one]
        return any(said.at + 3 * DAY <= self.now and said.announcement.since <= self.now for said in told)

    def check(self, announcement: Announcement) -> None:
        assert announcement.since >= self.now + 3 * DAY
        assert announcement.since == self.day_of(announcement.since)
        later = self.day_of(announcement.until + timedelta(minutes=59))
        assert announcement.until == later.replace(minute=0)

    def day_of(self, at: datetime) -> datetime:
        """The beginning of the supervisor's day."""
        return datetime.combine(at.astimezone(self.zone).date(), time(), self.zone).astimezone(UTC)

    def check_lifetime(self) -> None:
        """What the homeserver may remove by itself until it is told otherwise, an hour later."""
        lifetime = retention.lifetime(self.standing(), self.now)
        if lifetime is not None:
            assert lifetime >= self.days * DAY
            assert all(self.was_announced(one) for one in self.messages if one <= self.now + HOUR - lifetime)

    def check_nothing_stays(self) -> None:
        """Nothing is there for longer than its days, or an announcement's delay after a change, and two days more."""
        if self.days and not self.held:
            for one in self.messages:
                assert (
                    self.now
                    <= max(one + self.days * DAY, one + 4 * DAY, self.free_since + 4 * DAY) + 2 * DAY + 4 * HOUR
                )


@settings(max_examples=40, deadline=None)
@example(  # a message of the half hour between midnight's full hour (UTC) and midnight, and none after it
    zone="Asia/Kolkata",
    start=datetime(2027, 3, 1, 17, tzinfo=UTC),
    days=0,
    written={0, 529},
    changes={290: (1, False)},
    delay=0,
)
@given(
    zone=st.sampled_from(ZONES),
    start=st.sampled_from(STARTS),
    days=st.integers(0, 40),
    written=st.sets(st.integers(0, 60 * 24), max_size=40),
    changes=st.dictionaries(st.integers(0, 60 * 24), st.tuples(st.integers(0, 40), st.booleans()), max_size=4),
    delay=st.integers(0, 3),
)
def test_over_time_nothing_goes_unannounced_and_nothing_stays(
    zone: str,
    start: datetime,
    days: int,
    written: set[int],
    changes: dict[int, tuple[int, bool]],
    delay: int,
) -> None:
    world = World(ZoneInfo(zone), days, start)
    for hour in range(80 * 24):
        if hour in changes:
            world.change(*changes[hour])
        if hour in written:
            world.messages.add(world.now)
        world.pass_hour(delay * HOUR)


# Rows


DEFAULTS = RoomsConfig(retention_days=30)


async def stand(database: Database, pair: Pair, now: datetime) -> Standing:
    async with database.transaction() as tx:
        return await retention.standing_of(tx, pair, DEFAULTS, now=now)


async def announce(database: Database, pair: Pair, now: datetime) -> Announcement:
    announcement = Announcement(now + 3 * DAY, now - 20 * DAY, 30)
    async with database.transaction() as tx:
        await retention.announce(tx, pair, announcement, together=True, now=now)
    return announcement


async def settle(database: Database, *, now: datetime, most: int = 10) -> None:
    """Say what is to be said in rooms."""
    async with database.transaction() as tx:
        for row in await notifications.claim(tx, Channel.MATRIX, now=now, most=most):
            await notifications.settle_sent(tx, row.id, now=now, matrix_event_id=f"${row.id}")


@pytest.mark.parametrize("zone", ["Nowhere/Atall", "America", ""])
async def test_a_zone_that_nobody_knows_holds_up_no_room(database: Database, now: datetime, zone: str) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        bad = update(people_table).where(people_table.c.id == pair.supervisor.id)
        await tx.execute(bad.values(time_zone=zone))
        assert (await retention.standing_of(tx, pair, DEFAULTS, now=now)).zone == ZoneInfo("UTC")


async def test_an_announcement_counts_three_days_after_both_were_told(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    assert await stand(database, pair, now) == Standing(30, False, pair.supervisor.zone)
    until = (await announce(database, pair, now)).until
    assert await stand(database, pair, now) == Standing(30, False, pair.supervisor.zone, None, until)
    await settle(database, now=now + HOUR, most=1)
    assert (await stand(database, pair, now + 5 * DAY)).allowed is None  # one of the two was told
    await settle(database, now=now + DAY)
    assert (await stand(database, pair, now + 4 * DAY - HOUR)).allowed is None
    assert (await stand(database, pair, now + 4 * DAY)).allowed == until


async def test_an_announcement_that_nobody_is_there_to_hear_counts_after_ten_days(
    database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    until = (await announce(database, pair, now)).until
    async with database.transaction() as tx:
        await tx.execute(update(outbox).values(state=State.WAITING))
    assert (await stand(database, pair, now + 10 * DAY - HOUR)).allowed is None
    assert (await stand(database, pair, now + 10 * DAY)).allowed == until


async def test_an_announcement_that_was_not_said_yet_counts_for_nothing(database: Database, now: datetime) -> None:
    """As where the bot was away for weeks right after it had written it down."""
    pair = await add_pair(database, now=now)
    until = (await announce(database, pair, now)).until
    later = now + 20 * DAY
    assert (await stand(database, pair, later)).allowed is None
    await settle(database, now=later)
    assert (await stand(database, pair, later + 3 * DAY - HOUR)).allowed is None
    assert (await stand(database, pair, later + 3 * DAY)).allowed == until


async def test_an_announcement_waits_for_its_reader_from_when_it_could_have_been_said(
    database: Database, now: datetime
) -> None:
    """The bot was away for weeks, and finds nobody who could read it; or it could not be said at all."""
    pair = await add_pair(database, now=now)
    until = (await announce(database, pair, now)).until
    later = now + 20 * DAY
    announced = outbox.c.kind == "retention.announced"
    async with database.transaction() as tx:
        for notification_id in list(await tx.scalars(select(outbox.c.id).where(announced))):
            await notifications.let_wait(tx, notification_id, now=later)
    assert (await stand(database, pair, later + 10 * DAY - HOUR)).allowed is None
    assert (await stand(database, pair, later + 10 * DAY)).allowed == until
    async with database.transaction() as tx:
        await tx.execute(update(outbox).where(announced).values(state="parked"))
    assert (await stand(database, pair, later + 100 * DAY)).allowed is None


async def test_an_announcement_waits_for_nobody_who_is_disabled(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await people.disable(tx, SYSTEM, pair.supervisee.id, now=now)
        pair = await pairs.get(tx, pair.id)
    until = (await announce(database, pair, now)).until
    async with database.transaction() as tx:
        rows = await tx.scalars(select(outbox.c.person_id).where(outbox.c.kind == retention.ANNOUNCED))
        assert list(rows) == [pair.supervisor.id]
    await settle(database, now=now)
    assert (await stand(database, pair, now + 3 * DAY)).allowed == until


async def test_an_announcement_where_both_are_disabled_counts_after_ten_days(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        for one in pair.people:
            await people.disable(tx, SYSTEM, one.id, now=now)
        pair = await pairs.get(tx, pair.id)
    until = (await announce(database, pair, now)).until
    async with database.transaction() as tx:
        await tx.execute(update(outbox).values(state=State.WAITING))
    assert (await stand(database, pair, now + 10 * DAY)).allowed == until


async def test_what_was_announced_before_a_hold_is_void_after_it(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await announce(database, pair, now)
    await settle(database, now=now)
    async with database.transaction() as tx:
        await pairs.hold(tx, SYSTEM, pair.id, now=now)
    assert (await stand(database, pair, now)).held
    async with database.transaction() as tx:
        await pairs.release(tx, SYSTEM, pair.id, now=now)
    assert await stand(database, pair, now + 20 * DAY) == Standing(30, False, pair.supervisor.zone)


async def test_what_was_announced_as_a_hold_came_is_void_after_it_too(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.hold(tx, SYSTEM, pair.id, now=now)
    await announce(database, pair, now)
    await settle(database, now=now)
    async with database.transaction() as tx:
        await pairs.release(tx, SYSTEM, pair.id, now=now)
    assert await stand(database, pair, now + 20 * DAY) == Standing(30, False, pair.supervisor.zone)


@pytest.mark.parametrize(("longer", "again", "is_void"), [(60, 30, True), (0, 30, True), (25, 20, False)])
async def test_what_was_announced_before_it_was_to_stay_longer_is_void(
    database: Database, now: datetime, longer: int, again: int, is_void: bool
) -> None:
    pair = await add_pair(database, now=now)
    until = (await announce(database, pair, now)).until
    await settle(database, now=now)
    async with database.transaction() as tx:
        for days in (longer, again):
            await rooms.settle(tx, SYSTEM, pair.id, {"retention_days": days}, DEFAULTS, now=now)
    after = await stand(database, pair, now + 4 * DAY)
    assert (after.announced, after.allowed) == ((None, None) if is_void else (until, until))


@pytest.mark.parametrize(("other", "is_void"), [(60, True), (0, True), (30, False), (20, False)])
async def test_what_was_announced_before_the_configuration_let_it_stay_longer_is_void(
    database: Database, now: datetime, other: int, is_void: bool
) -> None:
    """For good: nobody was told anew when the days are shorter again, maybe a year later."""
    bot = "@visavis:example.org"
    usual, own = [await add_pair(database, now=now) for _ in range(2)]
    async with database.transaction() as tx:
        await bots.register(tx, bot, "master", now=now)
        await tx.execute(update(pairs_table).values(bot=bot))
        await rooms.settle(tx, SYSTEM, own.id, {"retention_days": 30}, DEFAULTS, now=now)
    until = (await announce(database, usual, now)).until
    await announce(database, own, now)
    await settle(database, now=now)
    async with database.transaction() as tx:
        await retention.void_outdated(tx, "@another:example.org", RoomsConfig(retention_days=0))
        await retention.void_outdated(tx, bot, RoomsConfig(retention_days=other))
    later = now + 4 * DAY
    assert (await stand(database, usual, later)).allowed == (None if is_void else until)
    assert (await stand(database, own, later)).allowed == until


async def test_what_could_not_be_announced_is_announced_anew_a_day_later(database: Database, now: datetime) -> None:
    """Nothing may ever be written in the room again, so that no later announcement would speak of it, too."""
    pair = await add_pair(database, now=now)
    until = (await announce(database, pair, now)).until
    async with database.transaction() as tx:
        for row in await notifications.claim(tx, Channel.MATRIX, now=now):
            backoff = notifications.MATRIX_BACKOFF
            await notifications.settle_failed(tx, row, "M_FORBIDDEN", now=now, backoff=backoff, permanent=True)
    assert await stand(database, pair, now + DAY - HOUR) == Standing(30, False, pair.supervisor.zone, None, until)
    again = now + DAY
    assert await stand(database, pair, again) == Standing(30, False, pair.supervisor.zone)
    async with database.transaction() as tx:
        await retention.announce(tx, pair, Announcement(again + 3 * DAY, until, 30), together=True, now=again)
    assert await stand(database, pair, again) == Standing(30, False, pair.supervisor.zone, None, until)
    await settle(database, now=again)
    assert (await stand(database, pair, again + 3 * DAY)).allowed == until


async def test_people_who_read_alike_are_told_in_one_message(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    alike = replace(pair, supervisee=replace(pair.supervisee, language="pt-BR", time_zone="America/Sao_Paulo"))
    await announce(database, alike, now)
    async with database.transaction() as tx:
        rows = (await tx.execute(select(outbox.c.person_id, outbox.c.details))).all()
    assert [(row.person_id, row.details["people"]) for row in rows] == [
        (pair.supervisor.id, [str(one.id) for one in pair.people])
    ]


async def test_the_rooms_own_lifetimes_are_read_for_all_of_a_bot(database: Database, now: datetime) -> None:
    bot = "@visavis:example.org"
    async with database.transaction() as tx:
        await bots.register(tx, bot, "master", now=now)
    first, second = [await add_pair(database, now=now) for _ in range(2)]
    await announce(database, first, now)
    await settle(database, now=now)
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(bot=bot))
        lifetimes = await retention.lifetimes(tx, bot, DEFAULTS, now=now + 3 * DAY)
        assert lifetimes == {first.id: 30 * DAY, second.id: None}
        assert await retention.lifetimes(tx, "@another:example.org", DEFAULTS, now=now) == {}


async def test_the_rooms_that_are_no_more_are_told_from_those_that_are(database: Database, now: datetime) -> None:
    kept, removed = [await add_pair(database, now=now) for _ in range(2)]
    async with database.transaction() as tx:
        for pair, room in ((kept, "!kept"), (removed, "!removed")):
            await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id=room))
            event = insert(journal_table).values(event_id=f"${room}", room_id=room, outcome="heard", handled_at=now)
            await tx.execute(event)
        await pairs.archive(tx, SYSTEM, removed.id, now=now)
        task_id = await pairs.remove_room(tx, SYSTEM, removed.id, now=now)
        assert task_id is not None
        asked = ["!kept", "!removed", "!being_made", "!left"]
        joined = ["!kept", "!removed", "!being_made"]
        assert await retention.removed_of(tx, asked, joined=joined) == {"!left"}
        await pairs.forget_room(tx, removed.id, now=now)
        assert await retention.removed_of(tx, asked, joined=joined) == {"!left"}
        await homeserver_tasks.settle(tx, task_id, now=now)
        assert await retention.removed_of(tx, asked, joined=joined) == {"!left", "!removed"}
        assert await retention.removed_of(tx, [], joined=joined) == set()
        assert list(await tx.scalars(select(journal_table.c.room_id))) == ["!kept"]
        await journal.forget_rooms(tx, {"!kept"})
        assert list(await tx.scalars(select(journal_table.c.room_id))) == []


async def test_the_journal_forgets_what_cannot_be_read_again(database: Database, now: datetime) -> None:
    rows = [("$gone", "s1", 0), ("$ratcheted", "s2", 4), ("$kept", "s2", 5), ("$clear", None, None)]
    async with database.transaction() as tx:
        for event_id, session_id, index in rows:
            values = {"session_id": session_id, "message_index": index, "outcome": "done", "handled_at": now}
            await tx.execute(insert(journal_table).values(event_id=event_id, room_id="!room", **values))
        await journal.forget(tx, "!another", {}, before=now + DAY)
        await journal.forget(tx, "!room", {"s2": 5}, before=now)
        assert len((await tx.execute(select(journal_table.c.event_id))).all()) == 4
        await journal.forget(tx, "!room", {"s2": 5}, before=now + DAY)
        left = await tx.scalars(select(journal_table.c.event_id).order_by(journal_table.c.event_id))
        assert list(left) == ["$clear", "$kept"]

"""Outside calendars from end to end: a real server, the bridge's loop, and the slots that are left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy import select, update

import bridge.outside
from bridge.outside import READS
from supervision import appointments, availability, outside
from supervision.audit import SYSTEM
from supervision.config import CalendarsConfig, Config
from supervision.db import Database
from supervision.errors import NotFound
from supervision.models import outside_calendars as table
from supervision.models import people as people_table
from supervision.outside import OutsideCalendar
from supervision.pairs import Pair
from supervision.ranges import Range
from tests.bridge.calendar_servers import LOOPBACK, Names, calendar, serving
from tests.bridge.conftest import SECRET, Clock, make_config
from tests.bridge.servers import certificate
from tests.support.sample import acts, add_pair

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # Tuesday, 10:00 in São Paulo
HOUR = timedelta(hours=1)
BUSY = "DTSTART:20261124T130000Z|DTEND:20261124T140000Z|SUMMARY:Oncologist"


@dataclass
class Answers:
    """What the server gives: content with a tag of its own, or a status. `given` are the statuses that it gave."""

    content: bytes = field(default_factory=lambda: calendar(BUSY))
    status: int = 200
    given: list[int] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        tag = f'"{hash(self.content)}"'
        status = 304 if self.status == 200 and request.headers.get("If-None-Match") == tag else self.status
        self.given.append(status)
        if status != 200:
            return web.Response(status=status)
        return web.Response(body=self.content, content_type="text/calendar", headers={"ETag": tag})


@pytest.fixture
def config() -> Config:
    calendars = CalendarsConfig(poll_minutes=15, private_networks=LOOPBACK)
    return make_config(25).model_copy(update={"calendars": calendars})


@contextlib.asynccontextmanager
async def running(database: Database, config: Config, clock: Clock, **more: Names) -> AsyncIterator[None]:
    task = asyncio.create_task(bridge.outside.run(database, config, clock=clock, poll=0.1, **more))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def add(database: Database, pair: Pair, address: str, now: datetime) -> OutsideCalendar:
    async with database.transaction() as tx:
        return await outside.add(
            tx, acts(pair.supervisor), pair.supervisor.id, address, secret=SECRET, private=LOOPBACK, now=now
        )


async def known(database: Database, pair: Pair) -> OutsideCalendar:
    async with database.transaction() as tx:
        [one] = await outside.list_of(tx, SYSTEM, pair.supervisor.id)
    return one


async def busy_of(database: Database, pair: Pair) -> list[Range]:
    async with database.transaction() as tx:
        return await outside.busy(tx, pair.supervisor.id, TEN - 30 * HOUR, TEN + 400 * 24 * HOUR)


async def until_tried(database: Database, pair: Pair, answers: Answers, count: int) -> OutsideCalendar:
    """Wait until the server was asked so often, and the last try is settled."""
    async with asyncio.timeout(60):
        while len(answers.given) < count:  # noqa: ASYNC110 - the server counts in another task
            await asyncio.sleep(0.02)
        while True:
            async with database.transaction() as tx:
                at = await outside.next_due(tx)
            settled = at is not None and not await is_claimed(database, pair)
            one = await known(database, pair)
            if settled and (one.fetched_at or one.error):
                return one
            await asyncio.sleep(0.02)


async def is_claimed(database: Database, pair: Pair) -> bool:
    async with database.transaction() as tx:
        found = await tx.execute(select(table).where(table.c.supervisor_id == pair.supervisor.id))
    return any(row.claimed_until is not None for row in found)


async def is_free(database: Database, pair: Pair, now: datetime) -> bool:
    async with database.transaction() as tx:
        free = await availability.slots(tx, pair, since=TEN, until=TEN + timedelta(minutes=1), now=now)
    return bool(free)


async def test_a_calendar_takes_its_times_out_of_the_slots_until_it_is_removed(
    database: Database, config: Config, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    answers = Answers()
    async with serving(answers) as server, running(database, config, clock):
        await asyncio.sleep(0.2)
        assert await is_free(database, pair, now)
        added = await add(database, pair, f"{server.base}/private-c0ffee/basic.ics", now)
        read = await until_tried(database, pair, answers, 1)
        assert (read.error, read.fetched_at is not None) == (None, True)
        assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]
        assert not await is_free(database, pair, now)
        with pytest.raises(NotFound):
            async with database.transaction() as tx:
                await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)
        async with database.transaction() as tx:
            await outside.remove(tx, acts(pair.supervisor), pair.supervisor.id, added.id, now=now)
        assert await is_free(database, pair, now)
        async with database.transaction() as tx:
            await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)


async def test_it_is_asked_for_what_is_new_and_read_anew_each_day(
    database: Database, config: Config, clock: Clock, now: datetime
) -> None:
    """Clocks go on within the same day, then to the next: what repeats for ever is seen a day farther then."""
    pair = await add_pair(database, now=now)
    answers = Answers(calendar("DTSTART:20261124T130000Z|DURATION:PT1H|RRULE:FREQ=DAILY"))
    async with serving(answers) as server, running(database, config, clock):
        await add(database, pair, server.base, now)
        await until_tried(database, pair, answers, 1)
        first = await busy_of(database, pair)
        clock.forward(timedelta(minutes=16))
        await until_tried(database, pair, answers, 2)
        assert await busy_of(database, pair) == first
        clock.forward(timedelta(days=1))
        await until_tried(database, pair, answers, 3)
        later = await busy_of(database, pair)
        answers.content = calendar(BUSY)
        clock.forward(timedelta(minutes=16))
        await until_tried(database, pair, answers, 4)
    assert answers.given == [200, 304, 200, 200]
    day = 24 * HOUR
    assert (first[0], first[-1]) == ((TEN, TEN + HOUR), (TEN + 365 * day, TEN + 365 * day + HOUR))
    assert later[-1] == (TEN + 366 * day, TEN + 366 * day + HOUR)
    assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]


async def test_what_cannot_be_had_is_told_and_what_was_read_stands(
    database: Database, config: Config, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    answers = Answers()
    async with serving(answers) as server, running(database, config, clock):
        await add(database, pair, server.base, now)
        read = await until_tried(database, pair, answers, 1)
        steps = ((500, "failed"), (404, "gone"), (403, "forbidden"))
        for count, (status, error) in enumerate(steps, 2):
            answers.status = status
            clock.forward(timedelta(hours=7))
            failed = await until_tried(database, pair, answers, count)
            assert (failed.error, failed.fetched_at) == (error, read.fetched_at)
            assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]
        answers.status, answers.content = 200, b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT"
        clock.forward(timedelta(hours=7))
        assert (await until_tried(database, pair, answers, 5)).error == "no_calendar"
        assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]
        answers.content = calendar()
        clock.forward(timedelta(hours=7))
        assert (await until_tried(database, pair, answers, 6)).error is None
    assert await busy_of(database, pair) == []


async def test_floating_times_follow_her_to_another_zone(
    database: Database, config: Config, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    answers = Answers(calendar("DTSTART:20261124T100000|DURATION:PT1H"))
    async with serving(answers) as server, running(database, config, clock):
        await add(database, pair, server.base, now)
        await until_tried(database, pair, answers, 1)
        assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]
        moved = update(people_table).where(people_table.c.id == pair.supervisor.id)
        async with database.transaction() as tx:
            await tx.execute(moved.values(time_zone="Europe/Lisbon"))
        clock.forward(timedelta(minutes=16))
        await until_tried(database, pair, answers, 2)
    assert await busy_of(database, pair) == [(TEN - 3 * HOUR, TEN - 2 * HOUR)]
    assert answers.given == [200, 200]


async def test_an_encrypted_calendar_by_its_webcal_address(
    database: Database, config: Config, clock: Clock, now: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = await add_pair(database, now=now)
    tls, authority = certificate(tmp_path, "calendar.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))  # as an operator trusts an authority of the house
    answers = Answers()
    async with (
        serving(answers, tls=tls, name="calendar.example.org") as server,
        running(database, config, clock, names=Names(["127.0.0.1"])),
    ):
        await add(database, pair, server.base.replace("https", "webcal"), now)
        read = await until_tried(database, pair, answers, 1)
    assert (read.error, read.host) == (None, "calendar.example.org")
    assert await busy_of(database, pair) == [(TEN, TEN + HOUR)]


async def test_a_name_that_leads_inside_is_told_in_words(
    database: Database, config: Config, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    async with running(database, config, clock, names=Names(["10.0.0.7"])):
        await add(database, pair, "https://calendar.example.org/c.ics", now)
        failed = await until_tried(database, pair, Answers(given=[0]), 1)
    assert (failed.error, failed.fetched_at) == ("inside", None)


async def test_another_secret_unlocks_nothing(database: Database, config: Config, clock: Clock, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await outside.add(tx, SYSTEM, pair.supervisor.id, "https://example.org/c", secret="y" * 32, now=now)
    async with running(database, config, clock):
        assert (await until_tried(database, pair, Answers(given=[0]), 1)).error == "locked"


async def test_two_bridges_ask_once_each_time(database: Database, config: Config, clock: Clock, now: datetime) -> None:
    answers = Answers()
    pairs = [await add_pair(database, now=now) for _ in range(5)]
    before = READS.labels("read")._value.get()  # noqa: SLF001 - the client has no other way to read one
    async with serving(answers) as server, running(database, config, clock), running(database, config, clock):
        for number, pair in enumerate(pairs):
            await add(database, pair, f"{server.base}/{number}", now)
        for pair in pairs:
            await until_tried(database, pair, answers, 5)
        await asyncio.sleep(0.3)
    assert sorted(request.path for request in server.seen) == [f"/{number}" for number in range(5)]
    assert READS.labels("read")._value.get() - before == 5  # noqa: SLF001

"""Our calendar messages, read by two independent readers and filed by calendar programs.

What both readers understand is the same, and after each step of a booking's life every calendar shows exactly what
stands: no ghost of an old time, nothing twice, nothing missing.
"""

import asyncio
import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import or_, select

from embedded.postgresql import PostgreSQL
from supervision import appointments, availability, calendars, groups, jobs, moves, series, shifts
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.calendars import GONE, Answer, Item, Organizer
from supervision.db import Database, Transaction
from supervision.errors import Refused
from supervision.groups import Scope
from supervision.hours import Availability, WeeklyRange
from supervision.models import Approval, Mode, Role, Status
from supervision.models import appointments as table
from supervision.pairs import Pair
from supervision.people import Person
from supervision.repetitions import expand as starts_of
from supervision.series import Series
from tests.db.booking_model import OPEN, Cast, make_cast
from tests.db.test_booking_machine import Bookings
from tests.interop.calendars import Message, SecondReader, read
from tests.interop.deliveries import Post, configure
from tests.support.sample import acts, add_pair

LONG = os.environ.get("VISAVIS_LONG") == "1"
RUNS, STEPS = (1000, 40) if LONG else (5, 20)

DOMAIN = "clinic.example.org"
OURS = Organizer("Visavis", f"reply+secret@{DOMAIN}", "https://visavis.example.org/appointments", DOMAIN, answers=True)
STAMP = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
TEN = datetime(2026, 12, 1, 13, 0, tzinfo=UTC)  # a Tuesday, 10:00 in São Paulo, 13:00 in Lisbon
ZONES = ("America/Sao_Paulo", "Europe/Lisbon", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")


@pytest.fixture(scope="module")
def second() -> Iterator[SecondReader]:
    with SecondReader() as reader:
        yield reader


def both(written: bytes, second: SecondReader) -> Message:
    """What it means to both readers."""
    found = read(written)
    assert second.read(written) == found
    return found


# Every kind of message, on its own.

PERSON = Person(
    uuid.UUID(int=1), 'Ção, Ana; "A"', "ana@example.org", None, "pt-BR", "UTC", frozenset({Role.SUPERVISOR})
)
OTHER = replace(PERSON, id=uuid.UUID(int=2), name="João\nÁlvares \\ Filho, dito “Jota”", email="joao@example.org")
ONE = Appointment(
    uuid.UUID(int=7), uuid.UUID(int=3), PERSON.id, OTHER.id, TEN, TEN + timedelta(minutes=50), Status.CONFIRMED, 3,
    Mode.IN_PERSON, "Rua A; nº 5, sala \\2\nfundos",
)  # fmt: skip


def make_series(zone: str, rule: str, *, revision: int) -> tuple[Series, list[Appointment]]:
    """A series at ten on Tuesdays, across a change of the clock where there is one, with all its occurrences."""
    ten, length = datetime(2026, 12, 1, 10, tzinfo=ZoneInfo(zone)).astimezone(UTC), timedelta(minutes=50)
    of = Series(uuid.UUID(int=20), ONE.pair_id, rule, ten, ten + length, zone, revision)
    starts = [clock.replace(tzinfo=of.zone).astimezone(UTC) for clock in starts_of(rule, of.first_local)]
    found = [
        replace(ONE, id=uuid.UUID(int=100 + n), starts_at=at, ends_at=at + length, revision=0, series_id=of.id,
                series_at=at)
        for n, at in enumerate(starts)
    ]  # fmt: skip
    return of, found


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("status", list(Status))
def test_a_single_appointment(second: SecondReader, language: str, zone: str, status: Status) -> None:
    person = replace(PERSON, language=language, time_zone=zone)
    one = replace(ONE, status=status)
    written = calendars.write(one, person, OTHER, OURS, stamp=STAMP, answer=Answer.OPEN, alarms=(1440, 15))
    message = both(written, second)
    [entry] = message.entries
    gone = status in GONE
    assert (message.method, message.zones) == ("CANCEL" if gone else "REQUEST", ())
    assert (entry.uid, entry.sequence, entry.stamp) == (f"{one.id}@{DOMAIN}", 3, STAMP)
    assert (entry.start, entry.end) == (one.starts_at, one.ends_at)
    assert entry.status == ("CANCELLED" if gone else "TENTATIVE" if status is Status.REQUESTED else "CONFIRMED")
    assert entry.organizer == f"mailto:reply+secret@{DOMAIN}"
    assert entry.attendees == (("mailto:ana@example.org", "NEEDS-ACTION", "FALSE" if gone else "TRUE"),)
    assert (entry.recurrence_id, entry.exdates, entry.rule) == (None, (), ())
    rings = (1440, 15) if status is Status.CONFIRMED else ()
    assert entry.alarms == tuple(("DISPLAY", one.starts_at - minutes * HOUR / 60) for minutes in rings)
    summary, description, location, url, *_ = entry.texts
    assert OTHER.name in summary
    assert (location, url) == (one.place, OURS.url)
    assert description.endswith(OURS.url)


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("rule", ["FREQ=WEEKLY;BYDAY=TU;COUNT=20", "FREQ=MONTHLY;BYDAY=1TU;COUNT=10"])
def test_a_series_and_its_parts(second: SecondReader, language: str, zone: str, rule: str) -> None:
    person = replace(PERSON, language=language, time_zone="Europe/Lisbon")
    of, occurrences = make_series(zone, rule, revision=4)
    cancelled, moved, requested, *rest = occurrences
    cancelled = replace(cancelled, status=Status.CANCELLED, revision=1)
    moved = replace(moved, starts_at=moved.starts_at + HOUR, ends_at=moved.ends_at + HOUR, revision=2)
    requested = replace(requested, status=Status.REQUESTED)
    now = [cancelled, moved, requested, *rest]
    written = calendars.write_series(
        of, now, person, OTHER, OURS, stamp=STAMP, told=now, answer=lambda _: Answer.ACCEPTED, alarms=(60,)
    )
    message = both(written, second)
    assert (message.method, message.zones) == ("REQUEST", (zone,))
    master, *changed = message.entries
    assert (master.sequence, master.exdates, master.recurrence_id) == (4, (cancelled.series_at,), None)
    assert [(one.uid, one.recurrence_id, one.start, one.status, one.sequence) for one in changed] == [
        (master.uid, one.series_at, one.starts_at, status, 4 + one.revision)
        for one, status in ((moved, "CONFIRMED"), (requested, "TENTATIVE"))
    ]
    standing = [one for one in now if one.status not in GONE]
    expected = [(master.uid, one.starts_at, one.ends_at) for one in standing]
    mailbox = Post(Database("postgresql+asyncpg://unused"), configure()).mailboxes[person.id]
    mailbox.take(written)
    for shown in mailbox.shown(second):
        assert [one[:3] for one in shown] == sorted(expected)
    alone = both(calendars.write(moved, person, OTHER, OURS, stamp=STAMP, series=of, alarms=(60,)), second)
    assert alone.entries == (replace(changed[0], attendees=alone.entries[0].attendees),)
    gone = [replace(one, status=Status.CANCELLED, revision=one.revision + 1) for one in standing]
    for left, ids in (([cancelled, *gone[:1], *standing[1:]], [gone[0].series_at]), ([cancelled, *gone], [None])):
        named = gone[: len(left) if ids == [None] else 1]
        called_off = both(calendars.write_gone(of, left, named, person, OTHER, OURS, stamp=STAMP), second)
        assert called_off.method == "CANCEL"
        assert [(one.uid, one.recurrence_id, one.status) for one in called_off.entries] == [
            (master.uid, at, "CANCELLED") for at in ids
        ]
        assert all(one.attendees[0][::2] == ("mailto:ana@example.org", "FALSE") for one in called_off.entries)


@pytest.mark.parametrize("language", ["pt-BR", "en"])
@pytest.mark.parametrize("zone", ZONES)
def test_a_feed(second: SecondReader, language: str, zone: str) -> None:
    person = replace(PERSON, language=language, time_zone=zone)
    statuses = (Status.CONFIRMED, Status.REQUESTED, Status.COMPLETED, Status.NO_SHOW)
    items = [
        Item(
            replace(ONE, id=uuid.UUID(int=n), status=status, starts_at=TEN + n * HOUR, ends_at=TEN + (n + 1) * HOUR),
            "Ana" if n % 2 else None,
            STAMP,
        )
        for n, status in enumerate(statuses)
    ]
    feed = calendars.write_feed(items, person, "https://visavis.example.org", DOMAIN)
    message = both(feed, second)
    assert (message.method, message.zones) == ("PUBLISH", ())
    assert [(one.uid, one.start, one.end, one.status, one.sequence) for one in message.entries] == [
        (
            f"{item.appointment.id}@{DOMAIN}",
            item.appointment.starts_at,
            item.appointment.ends_at,
            "TENTATIVE" if item.appointment.status is Status.REQUESTED else "CONFIRMED",
            3,
        )
        for item in items
    ]
    assert {(one.organizer, one.attendees, one.alarms) for one in message.entries} == {(None, (), ())}
    assert feed == calendars.write_feed(items, person, "https://visavis.example.org", DOMAIN)
    empty = both(calendars.write_feed([], person, "https://visavis.example.org", DOMAIN), second)
    assert empty == Message("PUBLISH", (), (zone,))


# Lives of bookings, on the real database.


class Lives:
    """A pair, its post, and what its calendars have to show."""

    def __init__(self, database: Database, second: SecondReader, pair: Pair, now: datetime) -> None:
        self.database, self.second, self.pair, self.now = database, second, pair, now
        self.post = Post(database, configure(), look=lambda written: both(written, second))

    async def do(self, step: Callable[..., Awaitable[Any]], *values: Any, **named: Any) -> Any:
        self.now += timedelta(seconds=1)
        async with self.database.transaction() as tx:
            return await step(tx, *values, now=self.now, **named)

    async def check(self) -> None:
        """Deliver, and look into both calendars."""
        await self.post.deliver(self.now)
        for person in self.pair.people:
            await check_mailbox(self.database, self.second, self.post, person.id)


async def check_mailbox(database: Database, second: SecondReader, post: Post, person_id: uuid.UUID) -> None:
    """Every program and reader shows exactly what stands. What a supervisee asks for may be missing in their own."""
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(*appointments.COLUMNS).where(
                or_(table.c.supervisor_id == person_id, table.c.supervisee_id == person_id),
                table.c.status.not_in(GONE),
            )
        )
        standing = [appointments.from_row(row) for row in rows]
    due, free = Counter[tuple[str, datetime, datetime, str]](), Counter[tuple[str, datetime, datetime, str]]()
    for one in standing:
        asked = one.status is Status.REQUESTED
        uid = f"{one.series_id or one.id}@{DOMAIN}"
        kept = free if asked and one.supervisee_id == person_id else due
        kept[uid, one.starts_at, one.ends_at, "TENTATIVE" if asked else "CONFIRMED"] += 1
    for shown in post.mailboxes[person_id].shown(second):
        found = Counter(shown)
        assert found - due - free == Counter(), "ghosts"
        assert due - found == Counter(), "missing"


@pytest.fixture
async def lives(database: Database, second: SecondReader, now: datetime) -> Lives:
    return Lives(database, second, await add_pair(database, now=now), now)


async def test_the_life_of_a_single_appointment(lives: Lives) -> None:
    ana, bruno = acts(lives.pair.supervisor), acts(lives.pair.supervisee)
    one = await lives.do(appointments.book, bruno, lives.pair, TEN)
    await lives.check()
    await lives.do(moves.reschedule, bruno, one.id, TEN + HOUR)
    await lives.check()
    await lives.do(appointments.confirm, ana, one.id)
    await lives.check()
    for hours in (2, 3):
        await lives.do(moves.reschedule, ana, one.id, TEN + hours * HOUR)
        await lives.check()
        await lives.do(moves.accept, bruno, one.id)
        await lives.check()
    await lives.do(appointments.cancel, ana, one.id)
    await lives.check()
    sequences = [
        [(read(each).method, read(each).entries[0].sequence) for each in lives.post.mailboxes[person.id].came]
        for person in lives.pair.people
    ]
    assert sequences == [
        [("REQUEST", 0), ("REQUEST", 1), ("REQUEST", 2), ("REQUEST", 3), ("REQUEST", 4), ("CANCEL", 5)],
        [("REQUEST", 1), ("REQUEST", 2), ("REQUEST", 3), ("REQUEST", 4), ("CANCEL", 5)],
    ]


async def test_the_life_of_a_series(lives: Lives) -> None:
    """Request, confirm, move one, move all following, cancel one, move back, cancel the rest."""
    ana, bruno = acts(lives.pair.supervisor), acts(lives.pair.supervisee)
    made = await lives.do(series.book, bruno, lives.pair, TEN, "FREQ=WEEKLY;COUNT=6", skip=False)
    first, second, third, fourth, *_ = made.booked
    await lives.check()
    await lives.do(groups.confirm, ana, first.id, Scope.ALL)
    await lives.check()
    await lives.do(moves.reschedule, ana, second.id, second.starts_at + HOUR)
    await lives.do(moves.accept, bruno, second.id)
    await lives.check()
    await lives.do(shifts.reschedule, ana, third.id, third.starts_at + 2 * HOUR, Scope.FOLLOWING, skip=False)
    await lives.do(groups.accept, bruno, third.id, Scope.ALL)
    await lives.check()
    await lives.do(appointments.cancel, bruno, fourth.id)
    await lives.check()
    await lives.do(shifts.reschedule, ana, third.id, third.starts_at, Scope.FOLLOWING, skip=False)
    await lives.do(groups.accept, bruno, third.id, Scope.ALL)
    await lives.check()
    await lives.do(moves.reschedule, ana, second.id, second.starts_at)
    await lives.do(moves.accept, bruno, second.id)
    await lives.check()
    await lives.do(groups.cancel, ana, third.id, Scope.FOLLOWING)
    await lives.check()
    await lives.do(groups.cancel, ana, first.id, Scope.ALL)
    await lives.check()
    for person in lives.pair.people:
        assert lives.post.mailboxes[person.id].shown(lives.second) == [[]] * 4


async def test_a_request_that_is_mailed_when_a_part_of_it_is_confirmed(lives: Lives) -> None:
    """That mail tells those apart that are still to be confirmed; it must not stay so."""
    ana, bruno = acts(lives.pair.supervisor), acts(lives.pair.supervisee)
    made = await lives.do(series.book, bruno, lives.pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=False)
    await lives.do(appointments.confirm, ana, made.booked[1].id)
    await lives.check()
    await lives.do(groups.confirm, ana, made.booked[0].id, Scope.ALL)
    await lives.check()


async def test_a_series_confirmed_at_once_is_one_plain_entry(lives: Lives) -> None:
    ana, bruno = acts(lives.pair.supervisor), acts(lives.pair.supervisee)
    made = await lives.do(series.book, bruno, lives.pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=False)
    await lives.check()
    await lives.do(groups.confirm, ana, made.booked[0].id, Scope.ALL)
    await lives.check()
    for person in lives.pair.people:
        assert len(read(lives.post.mailboxes[person.id].came[-1]).entries) == 1


async def test_the_life_of_an_occurrence_whose_series_never_came(lives: Lives) -> None:
    """Each is confirmed alone, so the supervisee's calendar never hears of the series as a whole."""
    ana, bruno = acts(lives.pair.supervisor), acts(lives.pair.supervisee)
    made = await lives.do(series.book, bruno, lives.pair, TEN, "FREQ=WEEKLY;COUNT=3", skip=False)
    first, second, third = made.booked
    await lives.check()
    for one in (second, first):
        await lives.do(appointments.confirm, ana, one.id)
        await lives.check()
    await lives.do(moves.reschedule, ana, second.id, second.starts_at + HOUR)
    await lives.do(moves.accept, bruno, second.id)
    await lives.check()
    await lives.do(appointments.decline, ana, third.id)
    await lives.check()
    await lives.do(groups.cancel, bruno, first.id, Scope.ALL)
    await lives.check()
    for person in lives.pair.people:
        assert lives.post.mailboxes[person.id].shown(lives.second) == [[]] * 4


# Any order of steps.

WHAT: tuple[str, ...] = (
    "series",
    "single",
    "confirm",
    "confirm",
    "move",
    "move",
    "home",
    "accept",
    "accept",
    "refuse",
    "cancel",
)
WHAT += ("decline", "mark", "mails", "mails", "mails", "wait")
BEGINNINGS = (
    datetime(2026, 10, 19, 12, tzinfo=UTC),  # New York's clocks go back on 1 November, Lisbon's on 25 October
    datetime(2027, 3, 1, 12, tzinfo=UTC),  # and forward on 14 March, and on the 28th
)
ALL_HOURS = Availability(tuple(WeeklyRange(day, time(6), time(22)) for day in range(7)), length=50, grid=30, notice=60)


class Filing(RuleBasedStateMachine):
    """The calendar programs of one machine: whatever was done, what they show is what stands."""

    database: Database
    owner: Database
    runner: asyncio.Runner
    cast: Cast
    second: SecondReader
    post: Post
    now: datetime

    def deliver(self, *, again: bool, backwards: bool = False) -> None:
        """Sometimes the last ones come once more, as a mail is sent at least once."""
        self.runner.run(self.post.deliver(self.now, backwards=backwards))
        for mailbox in self.post.mailboxes.values() if again else ():
            for written in mailbox.came[-5:]:
                for program in mailbox.programs:
                    program.take(written)
        for person_id in list(self.post.mailboxes):
            self.runner.run(check_mailbox(self.database, self.second, self.post, person_id))

    def teardown(self) -> None:
        if hasattr(self, "post"):
            self.deliver(again=True)


class Changes(Filing):
    """One pair and little room: a few series and single appointments, changed again and again."""

    @initialize(beginning=st.sampled_from(BEGINNINGS), automatic=st.booleans())
    def begin(self, beginning: datetime, automatic: bool) -> None:
        self.now = beginning
        self.post = Post(self.database, configure())
        self.pair = self.cast.pairs[2]  # New York and Lisbon
        self.known: list[Appointment] = []
        self.runner.run(self.cast.clear(self.owner))
        rules = replace(ALL_HOURS, approval=Approval.AUTOMATIC if automatic else Approval.ASK)
        supervisor = self.pair.supervisor
        self.do(lambda tx: availability.save(tx, acts(supervisor), supervisor.id, rules, now=self.now))
        self.do(lambda tx: self.book(tx, "series", 0, acts(self.pair.supervisee)))

    def do(self, work: Callable[[Transaction], Awaitable[object]]) -> None:
        """Do it, and read what there is now; what is refused has changed nothing."""

        async def run() -> None:
            with contextlib.suppress(Refused):
                async with self.database.transaction() as tx:
                    await work(tx)
            async with self.database.transaction() as tx:
                rows = await tx.execute(select(*appointments.COLUMNS).order_by(table.c.starts_at))
                self.known = [appointments.from_row(row) for row in rows]

        self.now += timedelta(seconds=1)
        self.runner.run(run())

    @rule(
        what=st.sampled_from(WHAT),
        which=st.integers(0, 99),
        scope=st.sampled_from(Scope),
        supervises=st.booleans(),
        minutes=st.sampled_from((30, 60, -30, -60, 24 * 60, 90)),
    )
    def step(self, what: str, which: int, scope: Scope, supervises: bool, minutes: int) -> None:
        actor = acts(self.pair.supervisor if supervises else self.pair.supervisee)
        if what in ("series", "single"):
            self.do(lambda tx: self.book(tx, what, which, actor))
            return
        if what == "mails":
            self.deliver(again=supervises, backwards=which % 3 == 0)
            return
        if what == "wait":
            self.now += timedelta(hours=(1, 5, 30)[which % 3])
            for job in ("close_past", "offer_freed"):
                self.runner.run(jobs.run_once(self.database, job, now=self.now))
        likely = [one for one in self.known if one.status in OPEN] or self.known
        if likely:
            self.do(lambda tx: self.change(tx, what, likely[which % len(likely)], scope, actor, minutes))

    async def book(self, tx: Transaction, what: str, which: int, actor: Actor) -> None:
        day = (self.now + timedelta(days=2 + which % 3)).date()
        at = datetime.combine(day, time(10 + which % 4), tzinfo=self.pair.supervisor.zone).astimezone(UTC)
        if what == "single":
            await appointments.book(tx, actor, self.pair, at, now=self.now)
        else:
            rule = f"FREQ=WEEKLY;COUNT={2 + which % 4}"
            await series.book(tx, actor, self.pair, at, rule, skip=True, now=self.now)

    async def change(
        self, tx: Transaction, what: str, one: Appointment, scope: Scope, actor: Actor, minutes: int
    ) -> None:
        scope = scope if one.series_id else Scope.ONE
        match what:
            case "confirm":
                await groups.confirm(tx, acts(self.pair.supervisor), one.id, scope, now=self.now)
            case "decline":
                await groups.decline(tx, actor, one.id, scope, now=self.now)
            case "cancel":
                await groups.cancel(tx, actor, one.id, scope, now=self.now)
            case "accept":
                await groups.accept(tx, self.asked(one), one.id, scope, now=self.now)
            case "refuse":
                await groups.refuse(tx, self.asked(one), one.id, scope, now=self.now)
            case "mark":
                await appointments.mark(tx, acts(self.pair.supervisor), one.id, Status.NO_SHOW, now=self.now)
            case "move" | "home":
                home = what == "home" and one.series_at is not None
                at = one.series_at if home and one.series_at else one.starts_at + timedelta(minutes=minutes)
                await shifts.reschedule(tx, actor, one.id, at, scope, skip=True, now=self.now)

    def asked(self, one: Appointment) -> Actor:
        """Whoever has to answer its proposal, if there is one."""
        proposed_by = one.proposal.by if one.proposal else self.pair.supervisee.id
        return acts(self.pair.other(proposed_by))


class Everything(Filing, Bookings):
    """The steps of the booking machine, with calendars behind them. What the tables say is the other test's."""

    @initialize(answers=st.booleans())
    def open_post(self, answers: bool) -> None:
        self.post = Post(self.database, configure(answers=answers))

    @rule(again=st.booleans(), backwards=st.booleans())
    def mails_arrive(self, again: bool, backwards: bool) -> None:
        self.deliver(again=again, backwards=backwards)

    def the_tables_say_what_the_model_says(self) -> None:
        """Not here: the outbox is emptied."""


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("machine", "runs"), [(Changes, RUNS), (Everything, RUNS // 3)])
def test_calendars_show_what_stands_whatever_is_done(
    machine: type[Filing], runs: int, postgresql: PostgreSQL, database_name: str, second: SecondReader
) -> None:
    with asyncio.Runner() as runner:
        Filing.runner = runner
        Filing.database = Database(postgresql.dsn(database_name, "visavis_app"), pool_size=1)
        Filing.owner = Database(postgresql.dsn(database_name, "visavis_owner"), pool_size=1)
        Filing.cast = runner.run(make_cast(Filing.database))
        Filing.second = second
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=runs,
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(Filing.database.close())
            runner.run(Filing.owner.close())

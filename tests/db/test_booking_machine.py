"""Everything that can happen to bookings, in any order, against a small model of it (Hypothesis, stateful).

Five people on three clocks, two of which change for daylight saving meanwhile; one of them supervises and is
supervised. After every step the tables hold exactly what the model says: no time twice, no held time on offer, every
change with its audit entry and exactly its notifications; and a refused step has changed nothing.

`make test` runs a short form; `make faults` the 2,000 runs of 50 steps.
"""

import asyncio
import itertools
import os
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from embedded.postgresql import PostgreSQL
from supervision import appointments, availability, jobs, moves, policies
from supervision.appointments import Appointment, Proposal
from supervision.audit import Actor
from supervision.availability import Availability, DatedException, WeeklyRange
from supervision.db import Database, Transaction
from supervision.errors import Refused
from supervision.models import Approval, Exceptional, Status, audit_entries, holds, notifications
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts, add_pair, add_person

LONG = os.environ.get("VISAVIS_LONG") == "1"
RUNS, STEPS = (2000, 50) if LONG else (25, 30)

pytestmark = pytest.mark.faults

MINUTE = timedelta(minutes=1)
ALL_DAYS = tuple(WeeklyRange(weekday, time(8), time(14)) for weekday in range(7))
RULES = (
    Availability(ALL_DAYS, length=50, grid=30, buffer_before=0, buffer_after=10, notice=60, horizon=10, answer=600),
    Availability(ALL_DAYS, length=60, grid=60, buffer_before=15, buffer_after=5, notice=120, horizon=12, answer=300),
)
BEGINNINGS = (
    datetime(2026, 10, 23, 12, 0, tzinfo=UTC),  # Lisbon's clocks go back on 25 October, New York's on 1 November
    datetime(2027, 3, 12, 9, 30, tzinfo=UTC),  # New York's go forward on 14 March
    datetime(2027, 3, 26, 20, 0, tzinfo=UTC),  # Lisbon's go forward on 28 March
)
OPEN = (Status.REQUESTED, Status.CONFIRMED)
WHAT: tuple[str, ...] = ("book",) * 3 + ("confirm",) * 3 + ("reschedule",) * 3 + ("answer",) * 2
WHAT += ("book any time", "decline", "cancel", "mark", "settle", "look", "wait")
SETTLED = (Exceptional.TIME_OFF, Exceptional.EXTRA_HOURS, Approval.ASK, Approval.AUTOMATIC, None)
WHO = ("supervisor", "supervisor", "supervisee", "supervisee", "stranger")
LEGAL = {
    (None, Status.REQUESTED),
    (None, Status.CONFIRMED),
    (Status.REQUESTED, Status.CONFIRMED),
    (Status.REQUESTED, Status.DECLINED),
    (Status.REQUESTED, Status.CANCELLED),
    (Status.CONFIRMED, Status.DECLINED),
    (Status.CONFIRMED, Status.CANCELLED),
    (Status.CONFIRMED, Status.COMPLETED),
    (Status.CONFIRMED, Status.NO_SHOW),
    (Status.COMPLETED, Status.NO_SHOW),
    (Status.NO_SHOW, Status.COMPLETED),
}

News = tuple[str, str, uuid.UUID]  # kind, channel, person
Range = tuple[datetime, datetime]


@dataclass
class Told:
    """A row of the outbox as the model knows it."""

    kind: str
    channel: str
    person: uuid.UUID
    appointment: uuid.UUID
    revision: int
    state: str = "pending"


@dataclass
class World:
    """The model: appointments as they should stand, what was told, what was written down."""

    known: dict[uuid.UUID, Appointment] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    audited: list[str] = field(default_factory=list)

    def put(self, after: Appointment, action: str, news: list[News]) -> None:
        before = self.known.get(after.id)
        if before is None or before.status is not after.status:
            assert (before and before.status, after.status) in LEGAL
        if before is not None and after.revision > before.revision:
            for one in self.told:
                if one.appointment == after.id and one.state == "pending":
                    one.state = "superseded"
        self.known[after.id] = after
        self.audited.append(action)
        self.told += [Told(*one, after.id, after.revision) for one in news]

    def held(self) -> Iterator[tuple[uuid.UUID, Range]]:
        """What everybody's time is taken by, one person's touching ranges of one appointment as one."""
        for one in self.known.values():
            if one.status in (*OPEN, Status.COMPLETED, Status.NO_SHOW):
                times: list[Appointment | Proposal] = [one, *([one.proposal] if one.proposal else [])]
                for since, until in _merged([taken.held for taken in times]):
                    yield one.supervisor_id, (since, until)
                for since, until in _merged([(taken.starts_at, taken.ends_at) for taken in times]):
                    yield one.supervisee_id, (since, until)


def _merged(ranges: list[Range]) -> list[Range]:
    if len(ranges) == 2 and ranges[0][0] <= ranges[1][1] and ranges[1][0] <= ranges[0][1]:
        return [(min(one[0] for one in ranges), max(one[1] for one in ranges))]
    return ranges


class Bookings(RuleBasedStateMachine):
    """The steps. `database` and `runner` are set by the test; each run clears the tables of bookings."""

    database: Database
    owner: Database
    runner: asyncio.Runner
    cast: "Cast"

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = BEGINNINGS[0]
        self.hours: dict[uuid.UUID, Availability] = {}

    def do(self, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            async with self.database.transaction() as tx:
                return await work(tx)

        return self.runner.run(run())

    def attempt(self, work: Callable[[Transaction], Awaitable[Any]]) -> Any | None:
        """What came of it, or None where it was refused; any other exception fails the run."""
        try:
            return self.do(work)
        except Refused:
            return None

    @initialize(beginning=st.sampled_from(BEGINNINGS), automatic=st.booleans(), limit=st.booleans())
    def begin(self, beginning: datetime, automatic: bool, limit: bool) -> None:
        self.now = beginning
        self.runner.run(self.cast.clear(self.owner))
        first, second = RULES
        approval = Approval.AUTOMATIC if automatic else Approval.ASK
        second = replace(second, approval=approval, day_limit=2 if limit else None, week_limit=6 if limit else None)

        async def settle(tx: Transaction) -> None:
            for supervisor, rules in zip(self.cast.supervisors, (first, second), strict=True):
                await availability.save(tx, acts(supervisor), supervisor.id, rules, now=self.now)

        self.do(settle)
        self.world = World()
        self.hours = {self.cast.supervisors[0].id: first, self.cast.supervisors[1].id: second}

    # One rule for all: Hypothesis would leave some of many out of most runs, and little would come together.

    @rule(
        what=st.sampled_from(WHAT),
        place=st.integers(0, 3),
        which=st.integers(0, 999),
        by=st.sampled_from(WHO),
        minutes=st.sampled_from((30, 0, 60, -30, -90, 120, 600, 1440, 1470, 2880)),
    )
    def step(self, what: str, place: int, which: int, by: str, minutes: int) -> None:
        match what:
            case "book":
                self.book_what_is_offered(place, which)
            case "book any time":
                self.book_any_time(place, which * 20 - 60, by == "supervisor")
            case "answer":
                self.answer_proposal(which, ("asked", "proposer", "asked", "stranger")[place], by)
            case "settle":
                self.settle(place, which % 10, SETTLED[which % len(SETTLED)])
            case "look":
                self.nothing_held_is_offered(place)
            case "wait":
                self.time_goes_by((1, 15, 90, 11 * 60, 26 * 60)[which % 5])
            case _ if not self.world.known:
                self.book_what_is_offered(place, which)
            case "mark":
                self.mark(which, by, (Status.NO_SHOW, Status.COMPLETED)[place % 2])
            case "reschedule":
                self.reschedule(which, by, minutes)
            case _:
                getattr(self, what)(which, by)

    # Booking

    def book_what_is_offered(self, place: int, pick: int) -> None:
        """What is on offer can be booked."""
        pair = self.cast.pairs[place]
        offered = self.do(
            lambda tx: availability.slots(tx, pair, since=self.now, until=self.now + timedelta(days=12), now=self.now)
        )
        if offered:
            slot = offered[pick % len(offered)]
            booked = self.do(
                lambda tx: appointments.book(tx, acts(pair.supervisee), pair, slot.starts_at, now=self.now)
            )
            self.note_booked(pair, acts(pair.supervisee), booked)

    def book_any_time(self, place: int, minutes: int, on_behalf: bool) -> None:
        pair = self.cast.pairs[place]
        actor = acts(pair.supervisor if on_behalf else pair.supervisee)
        starts_at = self.now + minutes * MINUTE
        starts_at -= timedelta(minutes=starts_at.minute % 30, seconds=starts_at.second)
        free = self.is_free(pair, starts_at, self.hours[pair.supervisor.id].length)
        booked = self.attempt(lambda tx: appointments.book(tx, actor, pair, starts_at, now=self.now))
        if on_behalf:
            assert (booked is not None) == (free and starts_at > self.now)
        if booked is not None:
            assert free
            self.note_booked(pair, actor, booked)

    def note_booked(self, pair: Pair, actor: Actor, booked: Appointment) -> None:
        rules, behalf = self.hours[pair.supervisor.id], actor.person_id == pair.supervisor.id
        asks = not behalf and (pair.approval or rules.approval) is Approval.ASK
        assert booked.status is (Status.REQUESTED if asks else Status.CONFIRMED)
        supervisor, supervisee = booked.people
        if asks:
            news: list[News] = [("appointment.requested", channel, supervisor) for channel in ("matrix", "mail")]
        else:
            kind = "appointment.booked" if behalf else "appointment.confirmed"
            told = supervisee if behalf else supervisor
            news = [(kind, "matrix", told), *both_mailed(kind, booked), *self.reminders(booked)]
        self.world.put(booked, "appointment.book", news)

    # Answering, calling off, correcting, moving

    def confirm(self, which: int, by: str) -> None:
        before, actor = self.pick(which, by, Status.REQUESTED)
        may = (
            by == "supervisor"
            and before.status is Status.REQUESTED
            and before.starts_at > self.now
            and before.answer_by is not None
            and before.answer_by > self.now
        )
        after = self.attempt(lambda tx: appointments.confirm(tx, actor, before.id, now=self.now))
        assert (after is not None) == may
        if after is not None:
            self.require(before, after, status=Status.CONFIRMED, answer_by=None, proposal=None, by=1)
            kind = "appointment.confirmed"
            news = [(kind, "matrix", before.supervisee_id), *both_mailed(kind, after), *self.reminders(after)]
            self.world.put(after, "appointment.confirm", news)

    def decline(self, which: int, by: str) -> None:
        before, actor = self.pick(which, by, *OPEN)
        request = by == "supervisor" and before.status is Status.REQUESTED
        behalf = by == "supervisee" and before.status is Status.CONFIRMED and before.on_behalf
        may = request or (behalf and before.starts_at > self.now)
        after = self.attempt(lambda tx: appointments.decline(tx, actor, before.id, now=self.now))
        assert (after is not None) == may
        if after is not None:
            self.require(before, after, status=Status.DECLINED, answer_by=None, proposal=None, by=1)
            kind = "appointment.declined"
            told: News = (kind, "matrix", before.other(actor.person_id))
            self.world.put(after, "appointment.decline", [told, *both_mailed(kind, after)])

    def cancel(self, which: int, by: str) -> None:
        before, actor = self.pick(which, by, *OPEN)
        may = by != "stranger" and before.status in OPEN and before.starts_at > self.now
        after = self.attempt(lambda tx: appointments.cancel(tx, actor, before.id, now=self.now))
        assert (after is not None) == may
        if after is not None:
            notice = self.hours[before.supervisor_id].cancel_notice * MINUTE
            late = by == "supervisee" and before.status is Status.CONFIRMED and before.starts_at - self.now < notice
            self.require(before, after, status=Status.CANCELLED, late=late, answer_by=None, proposal=None, by=1)
            kind = "appointment.cancelled"
            told: News = (kind, "matrix", before.other(actor.person_id))
            self.world.put(after, "appointment.cancel", [told, *both_mailed(kind, after)])

    def mark(self, which: int, by: str, status: Status) -> None:
        before, actor = self.pick(which, by, Status.CONFIRMED, Status.COMPLETED)
        begun = before.status is Status.CONFIRMED and before.starts_at <= self.now
        corrected = before.status in (Status.COMPLETED, Status.NO_SHOW) and before.status is not status
        after = self.attempt(lambda tx: appointments.mark(tx, actor, before.id, status, now=self.now))
        assert (after is not None) == (by == "supervisor" and (begun or corrected))
        if after is not None:
            self.require(before, after, status=status, proposal=None, by=0)
            news: list[News] = [("appointment.marked", "matrix", before.supervisee_id)]
            self.world.put(after, f"appointment.{status}", news)

    def reschedule(self, which: int, by: str, minutes: int) -> None:
        """To another time near the present one, often overlapping it."""
        before, actor = self.pick(which, by, *OPEN)
        starts_at = before.starts_at + (minutes - minutes % 30) * MINUTE
        pair = self.cast.by_id[before.pair_id]
        accepts = before.proposal and before.proposal.by != actor.person_id and before.proposal.starts_at == starts_at
        free = self.is_free(pair, starts_at, before.length, moving=before.id)
        after = self.attempt(lambda tx: moves.reschedule(tx, actor, before.id, starts_at, now=self.now))
        if after is None:
            return
        assert by != "stranger"
        assert before.status in OPEN
        assert before.starts_at > self.now
        if accepts:
            self.note_moved(before, after, actor, "appointment.accept", Status.CONFIRMED)
            return
        assert free
        automatic = (pair.approval or self.hours[pair.supervisor.id].approval) is Approval.AUTOMATIC
        if by == "supervisee" and (before.status is Status.REQUESTED or automatic):
            assert after.starts_at == starts_at
            self.note_moved(before, after, actor, "appointment.reschedule", before.status)
            return
        assert after.proposal is not None
        assert (after.proposal.by, after.proposal.starts_at) == (actor.person_id, starts_at)
        assert replace(after, proposal=None) == replace(before, proposal=None)
        asked = before.other(actor.person_id)
        self.world.put(
            after, "appointment.propose", [("move.proposed", channel, asked) for channel in ("matrix", "mail")]
        )

    def answer_proposal(self, which: int, by: str, mood: str) -> None:
        proposed = [one for one in self.world.known.values() if one.proposal]
        if not proposed:
            return
        if by == "proposer":
            answer = "withdraw" if mood != "stranger" else "accept"
        else:
            answer = {"supervisor": "accept", "supervisee": "refuse", "stranger": "withdraw"}[mood]
        before = proposed[which % len(proposed)]
        proposal = before.proposal
        assert proposal is not None
        person = {"asked": before.other(proposal.by), "proposer": proposal.by, "stranger": self.cast.stranger.id}[by]
        actor = Actor(person, "web")
        act = {"accept": moves.accept, "refuse": moves.refuse, "withdraw": moves.withdraw}[answer]
        after = self.attempt(lambda tx: act(tx, actor, before.id, now=self.now, if_proposal=proposal.id))
        in_time = proposal.answer_by > self.now and before.starts_at > self.now
        may = by == ("proposer" if answer == "withdraw" else "asked") and (in_time or answer != "accept")
        assert (after is not None) == may
        if after is None:
            return
        if answer == "accept":
            self.note_moved(before, after, actor, "appointment.accept", Status.CONFIRMED)
            return
        self.require(before, after, proposal=None, by=0)
        kind = "move.refused" if answer == "refuse" else "move.withdrawn"
        told = before.other(person)
        self.world.put(after, f"appointment.{answer}", [(kind, channel, told) for channel in ("matrix", "mail")])

    def note_moved(self, before: Appointment, after: Appointment, actor: Actor, action: str, status: Status) -> None:
        assert (after.status, after.revision, after.proposal) == (status, before.revision + 1, None)
        kind = "appointment.rescheduled"
        news: list[News] = [(kind, "matrix", before.other(actor.person_id)), *both_mailed(kind, after)]
        if after.status is Status.CONFIRMED:
            news += self.reminders(after)
        self.world.put(after, action, news)

    # The supervisors' hours

    def settle(self, place: int, day: int, what: Exceptional | Approval | None) -> None:
        """A day off, extra hours, or how a pair's bookings are approved: it changes nothing that is booked."""
        pair = self.cast.pairs[place]
        if isinstance(what, Exceptional):
            self.add_exception(pair.supervisor, day, what)
            return
        self.do(
            lambda tx: policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=None, approval=what, now=self.now)
        )
        self.cast.pairs[place] = replace(pair, approval=what)
        self.world.audited.append("pair.settle")

    def add_exception(self, supervisor: Person, day: int, kind: Exceptional) -> None:
        on = self.now.astimezone(supervisor.zone).date() + timedelta(days=day)
        times = (time(20), time(22)) if kind is Exceptional.EXTRA_HOURS else (None, None)
        exception = DatedException(uuid.uuid4(), kind, on, on, *times)
        added = self.attempt(
            lambda tx: availability.add_exception(tx, acts(supervisor), supervisor.id, exception, now=self.now)
        )
        if added is not None:
            self.world.audited.append("availability.add_exception")

    # The clock

    def time_goes_by(self, minutes: int) -> None:
        """And the periodic jobs run: what is over is completed, what nobody answered lapses."""
        self.now += minutes * MINUTE
        self.runner.run(jobs.run_once(self.database, "close_past", now=self.now))
        for before in list(self.world.known.values()):
            if before.proposal and before.proposal.answer_by <= self.now:
                before = replace(before, proposal=None)
                news = [("move.lapsed", channel, one) for one in before.people for channel in ("matrix", "mail")]
                self.world.put(before, "appointment.lapse_move", news)
            if before.status is Status.CONFIRMED and before.ends_at <= self.now:
                self.world.put(replace(before, status=Status.COMPLETED), "appointment.complete", [])
            if before.status is Status.REQUESTED and before.answer_by and before.answer_by <= self.now:
                after = replace(before, status=Status.DECLINED, revision=before.revision + 1, answer_by=None)
                kind = "appointment.declined"
                news = [*((kind, "matrix", one) for one in before.people), *both_mailed(kind, before)]
                self.world.put(after, "appointment.lapse", news)

    # What always holds

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        async def read(tx: Transaction) -> tuple[Any, ...]:
            kept = [appointments.from_row(row) for row in await tx.execute(select(*appointments.COLUMNS))]
            taken = list(await tx.execute(select(holds.c.person_id, holds.c.during)))
            outbox = list(await tx.execute(select(notifications)))
            written = list(await tx.scalars(select(audit_entries.c.action).where(audit_entries.c.success)))
            return kept, taken, outbox, written

        kept, taken, outbox, written = self.do(read)
        assert {one.id: one for one in kept} == self.world.known
        assert Counter((row.person_id, row.during.lower, row.during.upper) for row in taken) == Counter(
            (person, *during) for person, during in self.world.held()
        )
        rows = Counter((r.kind, r.channel, r.person_id, r.appointment_id, r.revision, r.state) for r in outbox)
        assert rows == Counter(tuple(vars(one).values()) for one in self.world.told)
        assert Counter(written) == Counter([*self.world.audited, *self.cast.set_up])

    @invariant()
    def nobody_is_in_two_places(self) -> None:
        by_person: dict[uuid.UUID, list[Range]] = {}
        for person, during in self.world.held():
            by_person.setdefault(person, []).append(during)
        for ranges in by_person.values():
            ordered = sorted(ranges)
            assert all(one[1] <= two[0] for one, two in itertools.pairwise(ordered))

    def nothing_held_is_offered(self, place: int) -> None:
        pair = self.cast.pairs[place]
        until = self.now + timedelta(days=12)
        for slot in self.do(lambda tx: availability.slots(tx, pair, since=self.now, until=until, now=self.now)):
            assert self.is_free(pair, slot.starts_at, (slot.ends_at - slot.starts_at) // MINUTE)
            assert slot.starts_at >= self.now + self.hours[pair.supervisor.id].notice * MINUTE

    # What the model knows

    def is_free(self, pair: Pair, starts_at: datetime, length: int, moving: uuid.UUID | None = None) -> bool:
        rules, ends_at = self.hours[pair.supervisor.id], starts_at + length * MINUTE
        wanted = {
            pair.supervisor.id: (starts_at - rules.buffer_before * MINUTE, ends_at + rules.buffer_after * MINUTE),
            pair.supervisee.id: (starts_at, ends_at),
        }
        others = World({key: one for key, one in self.world.known.items() if key != moving})
        return not any(
            person in wanted and since < wanted[person][1] and wanted[person][0] < until
            for person, (since, until) in others.held()
        )

    def pick(self, which: int, by: str, *wanted: Status) -> tuple[Appointment, Actor]:
        """Mostly one of those statuses, if there is any."""
        known = list(self.world.known.values())
        likely = [one for one in known if one.status in wanted and one.starts_at > self.now - timedelta(days=1)]
        choice = likely if likely and which % 8 != 7 else known
        found = choice[which % len(choice)]
        people = {
            "supervisor": found.supervisor_id,
            "supervisee": found.supervisee_id,
            "stranger": self.cast.stranger.id,
        }
        return found, Actor(people[by], "web")

    def require(self, before: Appointment, after: Appointment, *, by: int, **values: Any) -> None:
        """The change is that, and nothing else."""
        assert after == replace(before, revision=before.revision + by, **values)

    def reminders(self, appointment: Appointment) -> list[News]:
        if appointment.starts_at - timedelta(hours=24) <= self.now:
            return []
        return [("appointment.reminder", "mail", one) for one in appointment.people]


def both_mailed(kind: str, appointment: Appointment) -> list[News]:
    return [(kind, "mail", one) for one in appointment.people]


@dataclass
class Cast:
    """Two supervisors, the second of whom is a supervisee of the first, two more supervisees, and a stranger."""

    supervisors: tuple[Person, Person]
    pairs: list[Pair]
    stranger: Person
    set_up: list[str] = field(default_factory=list)

    @property
    def by_id(self) -> dict[uuid.UUID, Pair]:
        return {pair.id: pair for pair in self.pairs}

    async def clear(self, owner: Database) -> None:
        """Forget every booking; people and pairs stay."""
        async with owner.transaction() as tx:
            for name in ("holds", "questions", "notifications", "appointments", "waits", "series", "dated_exceptions"):
                await tx.execute(text(f"DELETE FROM {name}"))  # noqa: S608 - these names
            await tx.execute(text("DELETE FROM audit_entries"))
            await tx.execute(text("UPDATE pairs SET approval = NULL, lengths = NULL"))
        self.pairs = [replace(pair, approval=None, lengths=None) for pair in self.pairs]
        self.set_up = ["availability.save"] * 2


async def make_cast(database: Database) -> Cast:
    now = BEGINNINGS[0]
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone="America/Sao_Paulo")
    nora = await add_person(database, "Nora", ["supervisor", "supervisee"], now=now, time_zone="America/New_York")
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, time_zone="Europe/Lisbon")
    clara = await add_person(database, "Clara", ["supervisee"], now=now, time_zone="America/Sao_Paulo")
    stranger = await add_person(database, "Davi", ["supervisor", "supervisee", "admin"], now=now)
    couples = ((ana, bruno), (ana, clara), (nora, bruno), (ana, nora))
    made = [await add_pair(database, now=now, supervisor=one, supervisee=two) for one, two in couples]
    return Cast((ana, nora), made, stranger)


@pytest.mark.timeout(7200)
def test_any_order_of_steps_leaves_what_the_model_says(postgresql: PostgreSQL, database_name: str) -> None:
    with asyncio.Runner() as runner:
        Bookings.runner = runner
        Bookings.database = Database(postgresql.dsn(database_name, "visavis_app"), pool_size=1)
        Bookings.owner = Database(postgresql.dsn(database_name, "visavis_owner"), pool_size=1)
        Bookings.cast = runner.run(make_cast(Bookings.database))
        try:
            run_state_machine_as_test(
                Bookings,
                settings=settings(
                    max_examples=RUNS,
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(Bookings.database.close())
            runner.run(Bookings.owner.close())

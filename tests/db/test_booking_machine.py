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
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any, Literal

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
from sqlalchemy import Row, select

from embedded.postgresql import PostgreSQL
from supervision import (
    absences,
    appointments,
    availability,
    groups,
    jobs,
    moves,
    policies,
    preferences,
    series,
    shifts,
    waits,
)
from supervision.appointments import Appointment, Proposal
from supervision.audit import Actor
from supervision.db import Database, Transaction
from supervision.errors import Refused
from supervision.groups import Scope
from supervision.hours import Availability, DatedException, WeeklyRange
from supervision.models import Approval, Exceptional, Status, audit_entries, holds, notifications
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import USUAL, Preferences
from supervision.waits import Offer, Wait
from tests.db.booking_model import OPEN, Cast, News, Range, Told, World, both_mailed, make_cast
from tests.support.sample import acts

LONG = os.environ.get("VISAVIS_LONG") == "1"
RUNS, STEPS = (2000, 50) if LONG else (12, 30)

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
WHAT: tuple[str, ...] = ("book",) * 3 + ("confirm",) * 3 + ("reschedule",) * 3 + ("answer",) * 2
WHAT += ("book any time", "decline", "cancel", "mark", "settle", "look", "wait")
WHAT += ("wish", "series", "group", "group", "move group", "join", "join", "offer", "away", "wait")
GROUPED = ("confirm", "confirm", "accept", "accept", "refuse", "withdraw", "cancel", "decline")
WISHES = (USUAL, Preferences((), ()), Preferences((2880, 60), ()), Preferences((), (1440, 240, 15)))
SETTLED = (Exceptional.TIME_OFF, Exceptional.EXTRA_HOURS, Approval.ASK, Approval.AUTOMATIC, None)
WHO = ("supervisor", "supervisor", "supervisee", "supervisee", "stranger")


class Bookings(RuleBasedStateMachine):
    """The steps. `database` and `runner` are set by the test; each run clears the tables of bookings."""

    database: Database
    owner: Database
    runner: asyncio.Runner
    cast: Cast

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
            case "series":
                self.book_series(place, which, by, skip=minutes > 0)
            case "group" if any(one.series_id for one in self.world.known.values()):
                self.change_group(GROUPED[which % len(GROUPED)], which, by, (Scope.ALL, Scope.FOLLOWING)[place % 2])
            case "move group" if any(one.series_id for one in self.world.known.values()):
                self.move_group(which, by, minutes, (Scope.ALL, Scope.FOLLOWING)[place % 2], skip=which % 3 > 0)
            case "join":
                self.join(place, which)
            case "offer":
                self.answer_offer(which, ("accept", "accept", "pass", "leave")[place], by)
            case "away":
                self.go_away(place, which, ("cancel", "propose")[minutes > 0])
            case "group" | "move group":
                self.book_series(place, which, "supervisee", skip=True)
            case "wish":
                self.wish(place, WISHES[which % len(WISHES)])
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
        own = self.own_offer(pair, starts_at)
        free = self.is_free(pair, starts_at, self.hours[pair.supervisor.id].length, own.id if own else None)
        booked = self.attempt(lambda tx: appointments.book(tx, actor, pair, starts_at, now=self.now))
        if on_behalf:
            assert (booked is not None) == (free and starts_at > self.now)
        if booked is not None:
            assert free
            if own is not None:
                over = replace(own, ended_at=self.now, offer=None)
                self.world.put_wait(over, ["wait.accept"], [], self.hours[pair.supervisor.id])
            self.note_booked(pair, actor, booked)

    def own_offer(self, pair: Pair, starts_at: datetime) -> Wait | None:
        """Who is offered an hour can also book it as any other."""
        return next(
            (
                one
                for one in self.world.waits.values()
                if one.pair_id == pair.id
                and one.offer
                and one.offer.starts_at == starts_at
                and one.offer.until > self.now
            ),
            None,
        )

    def note_booked(self, pair: Pair, actor: Actor, booked: Appointment) -> None:
        asks, behalf = self.require_booked(pair, actor, booked)
        supervisor, supervisee = booked.people
        if asks:
            news: list[News] = [("appointment.requested", channel, supervisor) for channel in ("matrix", "mail")]
        else:
            kind = "appointment.booked" if behalf else "appointment.confirmed"
            told = supervisee if behalf else supervisor
            news = [(kind, "matrix", told), *both_mailed(kind, booked)]
        self.world.put(booked, "appointment.book", news, self.reminders_of([booked]))

    def require_booked(self, pair: Pair, actor: Actor, booked: Appointment) -> tuple[bool, bool]:
        """Whether the supervisor is asked, and whether it was booked on behalf."""
        rules, behalf = self.hours[pair.supervisor.id], actor.person_id == pair.supervisor.id
        asks = not behalf and (pair.approval or rules.approval) is Approval.ASK
        assert booked.status is (Status.REQUESTED if asks else Status.CONFIRMED)
        return asks, behalf

    # Answering, calling off, correcting, moving

    def confirm(self, which: int, by: str) -> None:
        before, actor = self.pick(which, by, Status.REQUESTED)
        may = self.may("confirm", before, actor)
        after = self.attempt(lambda tx: appointments.confirm(tx, actor, before.id, now=self.now))
        assert (after is not None) == may
        if after is not None:
            self.require(before, after, status=Status.CONFIRMED, answer_by=None, proposal=None, by=1)
            kind = "appointment.confirmed"
            news = [(kind, "matrix", before.supervisee_id), *both_mailed(kind, after)]
            self.world.put(after, "appointment.confirm", news, self.reminders_of([after]))

    def decline(self, which: int, by: str) -> None:
        before, actor = self.pick(which, by, *OPEN)
        may = self.may("decline", before, actor)
        after = self.attempt(lambda tx: appointments.decline(tx, actor, before.id, now=self.now))
        assert (after is not None) == may
        if after is not None:
            self.require(before, after, status=Status.DECLINED, answer_by=None, proposal=None, by=1)
            kind = "appointment.declined"
            told: News = (kind, "matrix", before.other(actor.person_id))
            self.world.put(after, "appointment.decline", [told, *both_mailed(kind, after)])

    def cancel(self, which: int, by: str) -> None:
        before, actor = self.pick(which, by, *OPEN)
        may = self.may("cancel", before, actor)
        after = self.attempt(lambda tx: appointments.cancel(tx, actor, before.id, now=self.now))
        assert (after is not None) == may
        if after is not None:
            late = self.is_late(before, actor)
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
            if before.proposal is not None:
                lapsed = [("move.lapsed", channel, one) for one in before.people for channel in ("matrix", "mail")]
                self.world.put(replace(before, proposal=None), "appointment.lapse_move", lapsed)
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
        open_until = before.answer_by and max(before.answer_by, after.proposal.answer_by)
        assert replace(after, proposal=None) == replace(before, proposal=None, answer_by=open_until)
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
        assert (after is not None) == self.may(answer, before, actor)
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
        self.world.put(after, action, news, self.reminders_of([after]))

    # Series

    def book_series(self, place: int, which: int, by: str, *, skip: bool) -> None:
        """Three weeks from an hour on that is mostly free."""
        pair = self.cast.pairs[place]
        actor = acts(pair.supervisor if by == "supervisor" else pair.supervisee)
        offered = self.do(
            lambda tx: availability.slots(tx, pair, since=self.now, until=self.now + timedelta(days=5), now=self.now)
        )
        if not offered:
            return
        starts_at = offered[which % len(offered)].starts_at
        rule = "FREQ=WEEKLY;COUNT=3"
        done = self.attempt(lambda tx: series.book(tx, actor, pair, starts_at, rule, skip=skip, now=self.now))
        if done is None:
            return
        assert skip or not done.clashes
        assert done.booked[0].starts_at == starts_at
        for one in done.booked:
            assert self.is_free(pair, one.starts_at, one.length)
            assert (one.series_id, one.series_at) == (done.series_id, one.starts_at)
            clock = one.starts_at.astimezone(pair.supervisor.zone).time()
            assert clock == starts_at.astimezone(pair.supervisor.zone).time()
            self.require_booked(pair, actor, one)
            self.world.known[one.id] = one
        for one in done.booked:
            del self.world.known[one.id]
        supervisor, supervisee = pair.supervisor.id, pair.supervisee.id
        if done.booked[0].status is Status.REQUESTED:
            news: list[News] = [("series.requested", channel, supervisor) for channel in ("matrix", "mail")]
        elif by == "supervisor":
            news = [("series.booked", "matrix", supervisee), *both_mailed("series.booked", done.booked[0])]
        else:
            news = [("series.confirmed", "matrix", supervisor), *both_mailed("series.confirmed", done.booked[0])]
        self.world.put_group(done.booked, "appointment.book", news, self.reminders_of(done.booked))

    def change_group(self, what: str, which: int, by: str, scope: Scope) -> None:
        anchor, actor = self.pick_of_series(which, by)
        if what in ("accept", "refuse", "withdraw"):
            proposed = [one for one in self.world.known.values() if one.series_id and one.proposal]
            anchor = proposed[which % len(proposed)] if proposed else anchor
        meant = [one for one in self.scope_of(anchor, scope) if self.may(what, one, actor)]
        act = getattr(groups, what)
        after = self.attempt(lambda tx: act(tx, actor, anchor.id, scope, now=self.now))
        assert [one.id for one in after or []] == [one.id for one in meant]
        if after is None:
            return
        other = anchor.other(actor.person_id)
        values: dict[str, Any] = {"answer_by": None, "proposal": None}
        for one, now in zip(meant, after, strict=True):
            match what:
                case "confirm":
                    self.require(one, now, by=1, status=Status.CONFIRMED, **values)
                case "decline":
                    self.require(one, now, by=1, status=Status.DECLINED, **values)
                case "cancel":
                    late = self.is_late(one, actor)
                    self.require(one, now, by=1, status=Status.CANCELLED, late=late, **values)
                case "accept":
                    assert one.proposal is not None
                    assert (now.starts_at, now.status) == (one.proposal.starts_at, Status.CONFIRMED)
                case _:
                    self.require(one, now, by=0, proposal=None)
        kind = {
            "confirm": "series.confirmed",
            "decline": "series.declined",
            "cancel": "series.cancelled",
            "accept": "series.rescheduled",
            "refuse": "series.refused",
            "withdraw": "series.withdrawn",
        }[what]
        shown = what not in ("refuse", "withdraw")
        mailed = both_mailed(kind, anchor) if shown else [(kind, "mail", other)]
        reminded = self.reminders_of(after) if what in ("confirm", "accept") else []
        news = [(kind, "matrix", other), *mailed]
        self.world.put_group(after, f"appointment.{what}", news, reminded, shown=shown)

    def move_group(self, which: int, by: str, minutes: int, scope: Scope, *, skip: bool) -> None:
        anchor, actor = self.pick_of_series(which, by)
        starts_at = anchor.starts_at + minutes * MINUTE
        done = self.attempt(
            lambda tx: shifts.reschedule(tx, actor, anchor.id, starts_at, scope, skip=skip, now=self.now)
        )
        if done is None:
            return
        assert by != "stranger"
        assert skip or not done.clashes
        assert {one.id for one in done.moved} <= {one.id for one in self.scope_of(anchor, scope)}
        asked = [one for one in done.moved if one.proposal and one.revision == self.world.known[one.id].revision]
        moved = [one for one in done.moved if one not in asked]
        other = anchor.other(actor.person_id)
        kind = "series.rescheduled"
        if moved:
            news: list[News] = [(kind, "matrix", other), *both_mailed(kind, anchor)]
            self.world.put_group(moved, "appointment.reschedule", news, self.reminders_of(moved))
        if asked:
            news = [("series.proposed", channel, other) for channel in ("matrix", "mail")]
            self.world.put_group(asked, "appointment.propose", news, [], shown=False)

    def pick_of_series(self, which: int, by: str) -> tuple[Appointment, Actor]:
        found = [one for one in self.world.known.values() if one.series_id]
        ahead = [one for one in found if one.status in OPEN and one.starts_at > self.now]
        anchor = (ahead or found)[which % len(ahead or found)]
        people = {"supervisor": anchor.supervisor_id, "supervisee": anchor.supervisee_id}
        return anchor, Actor(people.get(by, self.cast.stranger.id), "web")

    def scope_of(self, anchor: Appointment, scope: Scope) -> list[Appointment]:
        members = [one for one in self.world.known.values() if one.series_id == anchor.series_id]
        ordered = sorted(members, key=lambda one: one.series_at or one.starts_at)
        first = ordered.index(anchor) if scope is Scope.FOLLOWING else 0
        return ordered[first:]

    # The waiting list

    def join(self, place: int, which: int) -> None:
        """Wait for a time that another has, or for any of a day."""
        pair = self.cast.pairs[place]
        ahead = [one for one in self.world.known.values() if one.starts_at > self.now and one.status in OPEN]
        if ahead and which % 3:
            since = ahead[which % len(ahead)].starts_at
            until = since + MINUTE
        else:
            since = self.now + timedelta(hours=which % 200)
            until = since + timedelta(hours=4)
        wait = self.attempt(lambda tx: waits.join(tx, acts(pair.supervisee), pair, [(since, until)], now=self.now))
        if wait is not None:
            assert wait.offer is None
            self.world.put_wait(wait, ["wait.join"], [], self.hours[pair.supervisor.id])

    def answer_offer(self, which: int, what: str, by: str) -> None:
        found = [one for one in self.world.waits.values() if one.ended_at is None]
        offered = [one for one in found if one.offer]
        if not found:
            return
        before = (offered or found)[which % len(offered or found)]
        rules, pair = self.hours[before.supervisor_id], self.cast.by_id[before.pair_id]
        actor = Actor(self.cast.stranger.id, "web") if by == "stranger" else acts(pair.supervisee)
        match what:
            case "leave":
                done = self.attempt(lambda tx: self.leave(tx, actor, before))
                assert (done is not None) == (by != "stranger")
                if done is not None:
                    self.world.put_wait(replace(before, ended_at=self.now, offer=None), ["wait.leave"], [], rules)
            case "pass":
                after = self.attempt(lambda tx: waits.pass_by(tx, actor, before.id, now=self.now))
                assert (after is not None) == (by != "stranger" and before.offer is not None)
                if after is not None and before.offer is not None:
                    assert after.passed == (*before.passed, before.offer.starts_at)
                    self.world.put_wait(after, ["wait.pass"], [], rules)
            case _:
                booked = self.attempt(lambda tx: waits.accept(tx, actor, before.id, now=self.now))
                if booked is None:
                    return
                assert before.offer is not None
                assert by != "stranger"
                assert booked.starts_at == before.offer.starts_at
                assert before.offer.until > self.now
                self.world.put_wait(replace(before, ended_at=self.now, offer=None), ["wait.accept"], [], rules)
                self.note_booked(pair, actor, booked)

    async def leave(self, tx: Transaction, actor: Actor, wait: Wait) -> bool:
        await waits.leave(tx, actor, wait.id, self.now)
        return True

    def look_at_waits(self) -> None:
        """After the job: what has lapsed is over, and each new offer is a free time that its reader wants."""
        ids = list(self.world.waits)

        async def read(tx: Transaction) -> list[Wait | None]:
            return [await waits.find(tx, one) for one in ids]

        after = {one.id: one for one in self.do(read)}
        for before in list(self.world.waits.values()):
            if before.ended_at is None and before.offer and after[before.id].offer != before.offer:
                kinds = [("wait.lapsed", "matrix")] if after[before.id].ended_at is None else []
                lapsed = before.offer.until <= self.now
                action = [] if not kinds else ["wait.lapse" if lapsed else "wait.withdraw"]
                self.world.put_wait(replace(before, offer=None), action, kinds, self.hours[before.supervisor_id])
        for before in list(self.world.waits.values()):
            now, rules = after[before.id], self.hours[before.supervisor_id]
            if before.ended_at is None and now.ended_at is not None:
                assert before.ends_at <= self.now
                self.world.put_wait(now, ["wait.end"], [], rules)
            elif now.offer != before.offer:
                assert now.offer is not None
                length = (now.offer.ends_at - now.offer.starts_at) // MINUTE
                assert self.is_free(self.cast.by_id[now.pair_id], now.offer.starts_at, length)
                assert before.wants(now.offer.starts_at) or now.passed != before.passed
                assert now.offer.starts_at not in now.passed
                news = [("wait.offered", channel) for channel in ("matrix", "mail")]
                self.world.put_wait(now, ["wait.offer"], news, rules)
            else:
                self.world.put_wait(now, [], [], rules)

    # Being away

    def go_away(self, place: int, which: int, then: Literal["cancel", "propose"]) -> None:
        supervisor = self.cast.pairs[place].supervisor
        first = self.now.astimezone(supervisor.zone).date() + timedelta(days=1 + which % 6)
        away = absences.period(supervisor.zone, first, first)
        found = self.do(lambda tx: absences.affected(tx, supervisor.id, first, first, self.now))

        def falls_in(one: Appointment | Proposal | Offer | None) -> bool:
            return one is not None and one.starts_at < away[1] and away[0] < one.ends_at

        assert {one.id for one in found} == {
            one.id
            for one in self.world.known.values()
            if one.supervisor_id == supervisor.id
            and one.status in OPEN
            and one.starts_at > self.now
            and (falls_in(one) or falls_in(one.proposal))
        }
        expected = [(one.id, one.revision) for one in found]
        actor = acts(supervisor)
        done = self.attempt(
            lambda tx: absences.go(tx, actor, supervisor, first, first, then=then, expected=expected, now=self.now)
        )
        if done is None:
            assert then == "propose"
            return
        self.world.audited.append("availability.add_exception")
        for wait in list(self.world.waits.values()):
            if wait.supervisor_id == supervisor.id and wait.offer and falls_in(wait.offer):
                rules = self.hours[supervisor.id]
                self.world.put_wait(replace(wait, offer=None), ["wait.withdraw"], [("wait.lapsed", "matrix")], rules)
        for before, after in zip(found, done, strict=True):
            other = before.supervisee_id
            if not falls_in(before):
                own = before.proposal is not None and before.proposal.by == supervisor.id
                kind, action = ("move.withdrawn", "withdraw") if own else ("move.refused", "refuse")
                self.require(before, after, by=0, proposal=None)
                news: list[News] = [(kind, channel, other) for channel in ("matrix", "mail")]
                self.world.put(after, f"appointment.{action}", news)
            elif then == "cancel":
                values: dict[str, Any] = {"answer_by": None, "proposal": None}
                self.require(before, after, by=1, status=Status.CANCELLED, **values)
                kind = "appointment.cancelled"
                self.world.put(after, "appointment.cancel", [(kind, "matrix", other), *both_mailed(kind, after)])
            elif after != before:
                self.note_away_move(before, after, actor)
        for one in self.world.known.values():
            out = one.proposal is not None and one.proposal.by == supervisor.id and not falls_in(one.proposal)
            if one.supervisor_id == supervisor.id and one.status in OPEN and falls_in(one):
                assert out or one.starts_at <= self.now

    def note_away_move(self, before: Appointment, after: Appointment, actor: Actor) -> None:
        if after.proposal is None:  # her supervisee had proposed that very time
            self.note_moved(before, after, actor, "appointment.accept", Status.CONFIRMED)
            return
        assert after.proposal.by == actor.person_id
        news: list[News] = [("move.proposed", channel, before.supervisee_id) for channel in ("matrix", "mail")]
        self.world.put(after, "appointment.propose", news)

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

    # Being told

    def wish(self, place: int, wishes: Preferences) -> None:
        """Who changes their wishes is reminded by them of all that is confirmed."""
        pair = self.cast.pairs[place]
        for person in pair.people:
            actor = acts(person)
            self.do(partial(preferences.save, actor=actor, person_id=person.id, wishes=wishes, now=self.now))
            self.world.wish(person.id, wishes, self.now)

    # The clock

    def time_goes_by(self, minutes: int) -> None:
        """And the periodic jobs run: what is over is completed, what nobody answered lapses."""
        self.now += minutes * MINUTE
        self.runner.run(jobs.run_once(self.database, "close_past", now=self.now))
        self.let_series_lapse()
        for before in list(self.world.known.values()):
            if self.has_lapsed_move(before):
                before = replace(before, proposal=None)
                news = [("move.lapsed", channel, one) for one in before.people for channel in ("matrix", "mail")]
                self.world.put(before, "appointment.lapse_move", news)
            if before.status is Status.CONFIRMED and before.ends_at <= self.now:
                self.world.put(replace(before, status=Status.COMPLETED), "appointment.complete", [])
            if self.has_lapsed(before):
                after = replace(before, status=Status.DECLINED, revision=before.revision + 1, answer_by=None)
                kind = "appointment.declined"
                news = [*((kind, "matrix", one) for one in before.people), *both_mailed(kind, before)]
                self.world.put(after, "appointment.lapse", news)
        self.runner.run(jobs.run_once(self.database, "offer_freed", now=self.now))
        self.look_at_waits()

    def has_lapsed(self, one: Appointment) -> bool:
        return one.status is Status.REQUESTED and one.answer_by is not None and one.answer_by <= self.now

    def has_lapsed_move(self, one: Appointment) -> bool:
        return one.proposal is not None and one.proposal.answer_by <= self.now

    def let_series_lapse(self) -> None:
        """All of a series that lapses together is told together."""
        groups: dict[uuid.UUID, list[Appointment]] = {}
        for one in self.world.known.values():
            if one.series_id and (self.has_lapsed(one) or self.has_lapsed_move(one)):
                groups.setdefault(one.series_id, []).append(one)
        for members in groups.values():
            for what, kind, found in (
                ("lapse", "series.declined", [one for one in members if self.has_lapsed(one)]),
                ("lapse_move", "series.lapsed", [one for one in members if not self.has_lapsed(one)]),
            ):
                if not found:
                    continue
                declined = what == "lapse"
                after = [
                    replace(
                        one,
                        proposal=None,
                        status=Status.DECLINED if declined else one.status,
                        answer_by=None if declined else one.answer_by,
                        revision=one.revision + declined,
                    )
                    for one in found
                ]
                news = [(kind, channel, one) for one in found[0].people for channel in ("matrix", "mail")]
                self.world.put_group(after, f"appointment.{what}", news, [], shown=declined)

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
        rows = Counter(
            (*(r.kind, r.channel, r.person_id, r.appointment_id, r.revision, r.state), _about(r.details), _due(r))
            for r in outbox
        )
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

    def may(self, what: str, one: Appointment, actor: Actor) -> bool:
        """Whether this person may do that to it now."""
        who, ahead, proposal = actor.person_id, one.starts_at > self.now, one.proposal
        if who not in one.people:
            return False
        match what:
            case "confirm":
                in_time = one.answer_by is not None and one.answer_by > self.now
                return who == one.supervisor_id and one.status is Status.REQUESTED and ahead and in_time
            case "decline" if who == one.supervisor_id:
                return one.status is Status.REQUESTED
            case "decline":
                return one.status is Status.CONFIRMED and one.on_behalf and ahead
            case "cancel":
                return one.status in OPEN and ahead
            case "accept":
                return proposal is not None and proposal.by != who and proposal.answer_by > self.now and ahead
            case "refuse":
                return proposal is not None and proposal.by != who
            case _:
                return proposal is not None and proposal.by == who

    def is_late(self, one: Appointment, actor: Actor) -> bool:
        notice = self.hours[one.supervisor_id].cancel_notice * MINUTE
        confirmed = one.status is Status.CONFIRMED
        return actor.person_id == one.supervisee_id and confirmed and one.starts_at - self.now < notice

    def is_free(self, pair: Pair, starts_at: datetime, length: int, moving: uuid.UUID | None = None) -> bool:
        ends_at = starts_at + length * MINUTE
        held = self.hours[pair.supervisor.id].held(starts_at, ends_at)
        wanted = {pair.supervisor.id: held, pair.supervisee.id: (starts_at, ends_at)}
        return self.world.is_free(wanted, moving)

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

    def reminders_of(self, changed: list[Appointment]) -> list[Told]:
        return [
            told for one in changed for person in one.people for told in self.world.reminders(one, person, self.now)
        ]


def _about(details: dict[str, Any]) -> frozenset[uuid.UUID]:
    named = details.get("appointments") or ([details["wait"]] if "wait" in details else [])
    return frozenset(uuid.UUID(one) for one in named)


def _due(row: Row[Any]) -> datetime | None:
    """The moment of a reminder, which is as long before the start as it says."""
    if row.kind != "appointment.reminder":
        return None
    assert row.send_at == row.expires_at - row.details["minutes"] * MINUTE
    due: datetime = row.send_at
    return due


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

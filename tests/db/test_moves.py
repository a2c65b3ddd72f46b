"""Proposals to move an appointment: the old time stands, and both are held, until the other has answered."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from supervision import appointments, moves, policies
from supervision.appointments import Appointment
from supervision.db import Database
from supervision.errors import AlreadyAnswered, NotAllowed, NotUnderstood, SlotTaken, Stale, TooLate
from supervision.models import Approval, Status
from supervision.pairs import Pair
from tests.db.test_appointments import TEN, audited, book, held, told
from tests.support.sample import OPEN_HOURS, REMINDERS, acts, add_pair

LENGTH, BUFFERED = timedelta(minutes=50), timedelta(minutes=60)


async def confirmed(database: Database, pair: Pair, starts_at: datetime, now: datetime) -> Appointment:
    booked = await book(database, pair, starts_at, now)
    async with database.transaction() as tx:
        return await appointments.confirm(tx, acts(pair.supervisor), booked.id, now=now)


async def pending(database: Database, pair: Pair) -> list[tuple[str, str, str]]:
    return [row[:3] for row in await told(database, pair) if row[4] == "pending"]


@pytest.mark.parametrize(("who", "other"), [("supervisor", "Bruno"), ("supervisee", "Ana")])
async def test_a_proposal_leaves_the_old_time_and_holds_both(
    database: Database, now: datetime, who: str, other: str
) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    later = TEN + timedelta(hours=3)
    async with database.transaction() as tx:
        proposed = await moves.reschedule(tx, acts(getattr(pair, who)), before.id, later, now=now)
    assert replace(proposed, proposal=None) == before
    assert proposed.proposal is not None
    assert (proposed.proposal.starts_at, proposed.proposal.ends_at) == (later, later + LENGTH)
    assert proposed.proposal.answer_by == TEN  # the old time, which comes before the two days are over
    times = [(TEN, TEN + LENGTH), (TEN, TEN + BUFFERED), (later, later + LENGTH), (later, later + BUFFERED)]
    assert await held(database) == times
    assert (await pending(database, pair))[-2:] == [
        ("move.proposed", "matrix", other),
        ("move.proposed", "mail", other),
    ]
    assert (await audited(database))[-1] == ("appointment.propose", True)


async def test_whoever_was_asked_accepts(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    day = TEN + timedelta(days=7)
    before = await confirmed(database, pair, day, now)
    later = day + timedelta(hours=1)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), before.id, later, now=now)
        with pytest.raises(NotAllowed, match=r"refused\.own_proposal"):
            await moves.accept(tx, acts(pair.supervisor), before.id, now=now)
        moved = await moves.accept(tx, acts(pair.supervisee), before.id, now=now)
    assert (moved.status, moved.revision, moved.starts_at, moved.proposal) == (Status.CONFIRMED, 2, later, None)
    assert await held(database) == [(later, later + LENGTH), (later, later + BUFFERED)]
    assert await pending(database, pair) == [
        ("appointment.rescheduled", "matrix", "Ana"),
        ("appointment.rescheduled", "mail", "Ana"),
        ("appointment.rescheduled", "mail", "Bruno"),
        *REMINDERS,
    ]


async def test_a_move_by_less_than_its_length_is_one_held_range(database: Database, now: datetime) -> None:
    """Old and new time overlap; the constraint would take them for two appointments."""
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, grid=30))
    before = await confirmed(database, pair, TEN, now)
    later = TEN + timedelta(minutes=30)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisee), before.id, later, now=now)
    assert await held(database) == [(TEN, later + LENGTH), (TEN, later + BUFFERED)]
    async with database.transaction() as tx:
        await moves.accept(tx, acts(pair.supervisor), before.id, now=now)
    assert await held(database) == [(later, later + LENGTH), (later, later + BUFFERED)]


@pytest.mark.parametrize("time", ["old", "new"])
async def test_neither_time_is_anybody_else_s_meanwhile(database: Database, now: datetime, time: str) -> None:
    pair = await add_pair(database, now=now)
    other = await add_pair(database, now=now, supervisor=pair.supervisor)
    before = await confirmed(database, pair, TEN, now)
    later = TEN + timedelta(hours=3)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisee), before.id, later, now=now)
    with pytest.raises(SlotTaken):
        await book(database, other, TEN if time == "old" else later, now)


@pytest.mark.parametrize("end", ["refuse", "withdraw", "lapse"])
async def test_a_proposal_that_comes_to_nothing_leaves_the_old_time(
    database: Database, now: datetime, end: str
) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), before.id, TEN + timedelta(hours=3), now=now)
        match end:
            case "refuse":
                with pytest.raises(NotAllowed, match=r"refused\.own_proposal"):
                    await moves.refuse(tx, acts(pair.supervisor), before.id, now=now)
                left = await moves.refuse(tx, acts(pair.supervisee), before.id, now=now)
            case "withdraw":
                with pytest.raises(NotAllowed, match=r"refused\.others_proposal"):
                    await moves.withdraw(tx, acts(pair.supervisee), before.id, now=now)
                left = await moves.withdraw(tx, acts(pair.supervisor), before.id, now=now)
            case _:
                assert await moves.lapse(tx, now=TEN - timedelta(minutes=1)) == 0
                assert await moves.lapse(tx, now=TEN) == 1
                left = await appointments.get(tx, acts(pair.supervisee), before.id)
    assert left == before
    assert await held(database) == [(TEN, TEN + LENGTH), (TEN, TEN + BUFFERED)]
    news = {
        "refuse": [("move.refused", "matrix", "Ana"), ("move.refused", "mail", "Ana")],
        "withdraw": [("move.withdrawn", "matrix", "Bruno"), ("move.withdrawn", "mail", "Bruno")],
        "lapse": [("move.lapsed", channel, name) for name in ("Ana", "Bruno") for channel in ("matrix", "mail")],
    }
    assert (await pending(database, pair))[-len(news[end]) :] == news[end]


async def test_a_counter_proposal_takes_the_place_of_the_first(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    first, second = TEN + timedelta(hours=3), TEN + timedelta(hours=5)
    async with database.transaction() as tx:
        asked = await moves.reschedule(tx, acts(pair.supervisor), before.id, first, now=now)
        assert asked.proposal is not None
        await moves.reschedule(tx, acts(pair.supervisee), before.id, second, now=now)
        with pytest.raises(Stale):
            await moves.accept(tx, acts(pair.supervisor), before.id, now=now, if_proposal=asked.proposal.id)
        moved = await moves.accept(tx, acts(pair.supervisor), before.id, now=now)
    assert moved.starts_at == second
    assert await held(database) == [(second, second + LENGTH), (second, second + BUFFERED)]


async def test_proposing_the_proposed_time_is_accepting_it(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    later = TEN + timedelta(hours=3)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), before.id, later, now=now)
        with pytest.raises(NotUnderstood, match=r"refused\.move_onto_itself"):
            await moves.reschedule(tx, acts(pair.supervisor), before.id, later, now=now)
        moved = await moves.reschedule(tx, acts(pair.supervisee), before.id, later, now=now)
    assert (moved.starts_at, moved.proposal) == (later, None)


async def test_a_supervisee_moves_a_request_of_their_own_at_once(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    asked = await book(database, pair, TEN, now)
    later = TEN + timedelta(hours=1)
    async with database.transaction() as tx:
        moved = await moves.reschedule(tx, acts(pair.supervisee), asked.id, later, now=now)
    assert (moved.status, moved.starts_at, moved.revision) == (Status.REQUESTED, later, 1)
    assert await pending(database, pair) == [
        ("appointment.rescheduled", "matrix", "Ana"),
        ("appointment.rescheduled", "mail", "Ana"),
        ("appointment.rescheduled", "mail", "Bruno"),
    ]


async def test_a_supervisor_proposes_another_time_for_a_request(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    asked = await book(database, pair, TEN, now)
    later = TEN + timedelta(hours=1)
    async with database.transaction() as tx:
        proposed = await moves.reschedule(tx, acts(pair.supervisor), asked.id, later, now=now)
        assert (proposed.status, proposed.starts_at) == (Status.REQUESTED, TEN)
        agreed = await moves.accept(tx, acts(pair.supervisee), asked.id, now=now)
    assert (agreed.status, agreed.starts_at, agreed.answer_by) == (Status.CONFIRMED, later, None)


@pytest.mark.parametrize("end", ["confirm", "decline", "cancel"])
async def test_what_ends_a_request_ends_its_proposal(database: Database, now: datetime, end: str) -> None:
    pair = await add_pair(database, now=now)
    asked = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), asked.id, TEN + timedelta(hours=1), now=now)
        ended = await getattr(appointments, end)(tx, acts(pair.supervisor), asked.id, now=now)
        assert ended.proposal is None
        with pytest.raises(AlreadyAnswered, match=r"refused\.no_proposal"):
            await moves.accept(tx, acts(pair.supervisee), asked.id, now=now)
    assert await held(database) == ([(TEN, TEN + LENGTH), (TEN, TEN + BUFFERED)] if end == "confirm" else [])


async def test_nobody_is_asked_where_bookings_are_approved_automatically(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, approval=Approval.AUTOMATIC))
    before = await book(database, pair, TEN, now)
    async with database.transaction() as tx:
        moved = await moves.reschedule(tx, acts(pair.supervisee), before.id, TEN + timedelta(hours=1), now=now)
    assert (moved.status, moved.starts_at) == (Status.CONFIRMED, TEN + timedelta(hours=1))


async def test_too_near_its_beginning_only_the_supervisor_moves_it(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, move_notice=120))
    before = await confirmed(database, pair, TEN, now)
    at, later = TEN - timedelta(minutes=119), TEN + timedelta(hours=5)
    async with database.transaction() as tx:
        with pytest.raises(TooLate, match=r"refused\.move_notice"):
            await moves.reschedule(tx, acts(pair.supervisee), before.id, later, now=at)
        assert (await moves.reschedule(tx, acts(pair.supervisor), before.id, later, now=at)).proposal is not None


async def test_a_proposal_is_not_accepted_once_it_has_lapsed(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, answer=30))
    before = await confirmed(database, pair, TEN, now)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), before.id, TEN + timedelta(hours=1), now=now)
        with pytest.raises(TooLate, match=r"refused\.proposal_lapsed"):
            await moves.accept(tx, acts(pair.supervisee), before.id, now=now + timedelta(minutes=30))
        with pytest.raises(TooLate, match=r"refused\.appointment_past"):
            await moves.accept(tx, acts(pair.supervisee), before.id, now=TEN)


async def test_a_changed_length_of_the_pair_does_not_bind_what_is_booked(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    await add_pair(database, now=now, supervisor=pair.supervisor, rules=replace(OPEN_HOURS, length=30))
    async with database.transaction() as tx:
        moved = await moves.reschedule(tx, acts(pair.supervisor), before.id, TEN + timedelta(hours=1), now=now)
    assert moved.proposal is not None
    assert moved.proposal.ends_at - moved.proposal.starts_at == LENGTH


async def test_a_proposal_that_nobody_answered_ends_with_what_it_would_have_moved(
    database: Database, now: datetime
) -> None:
    """Marked before the clock's own job ran: the proposed time is given back, and both are told."""
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), before.id, TEN + timedelta(days=7), now=now)
        marked = await appointments.mark(tx, acts(pair.supervisor), before.id, Status.NO_SHOW, now=TEN)
    assert marked.proposal is None
    assert await held(database) == [(TEN, TEN + LENGTH), (TEN, TEN + BUFFERED)]
    assert (await pending(database, pair))[-5:] == [
        *(("move.lapsed", channel, name) for name in ("Ana", "Bruno") for channel in ("matrix", "mail")),
        ("appointment.marked", "matrix", "Bruno"),
    ]


async def test_a_request_does_not_lapse_before_the_proposal_that_answers_it(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, answer=120))
    asked = await book(database, pair, TEN, now)
    later = now + timedelta(minutes=90)
    async with database.transaction() as tx:
        proposed = await moves.reschedule(tx, acts(pair.supervisor), asked.id, TEN + timedelta(hours=1), now=later)
        assert proposed.answer_by == later + timedelta(minutes=120)
        assert await appointments.close_past(tx, now=now + timedelta(minutes=121)) == 0


async def test_another_length_at_the_proposed_time_is_no_yes(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    before = await confirmed(database, pair, TEN, now)
    async with database.transaction() as tx:
        await policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=[50, 90], approval=None, now=now)
        later = TEN + timedelta(hours=3)
        await moves.reschedule(tx, acts(pair.supervisor), before.id, later, now=now)
        ends_at = later + timedelta(minutes=90)
        countered = await moves.reschedule(tx, acts(pair.supervisee), before.id, later, ends_at=ends_at, now=now)
    assert countered.starts_at == TEN
    assert countered.proposal is not None
    assert (countered.proposal.by, countered.proposal.ends_at) == (pair.supervisee.id, ends_at)


async def test_who_agreed_to_a_move_declines_it_no_more_as_booked_on_their_behalf(
    database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisor), pair, TEN, now=now)
        await moves.reschedule(tx, acts(pair.supervisor), booked.id, TEN + timedelta(hours=1), now=now)
        await moves.accept(tx, acts(pair.supervisee), booked.id, now=now)
        with pytest.raises(NotAllowed):
            await appointments.decline(tx, acts(pair.supervisee), booked.id, now=now)

"""What an update of a calendar entry says that its recipient has answered: what they did, until the time is another."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from icalendar import Calendar

from bridge import entries, letters
from bridge.letters import Letter
from supervision import appointments, attendances, groups, moves, notifications, series, shifts
from supervision.appointments import Appointment
from supervision.attendances import Counter, Response
from supervision.audit import Actor
from supervision.db import Database
from supervision.groups import Scope
from supervision.models import Approval, Attendance, Channel
from supervision.pairs import Pair
from supervision.people import Person
from tests.bridge.conftest import make_config
from tests.support.sample import OPEN_HOURS, acts, add_pair

TEN = datetime(2026, 11, 30, 13, 0, tzinfo=UTC)  # Monday, 10:00 in São Paulo
HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
Said = dict[datetime | None, str]  # PARTSTAT by RECURRENCE-ID; None for the entry itself, or that of all


async def says(
    database: Database,
    person: Person,
    entry_id: uuid.UUID,
    answer: Attendance | Counter,
    now: datetime,
    occurrence: datetime | None = None,
    sequence: int = 0,
) -> None:
    """Their calendar answers so."""
    async with database.transaction() as tx:
        response = Response(entry_id, sequence, now, answer, occurrence)
        await attendances.respond(tx, Actor(person.id, "calendar"), response, now=now)


async def book(database: Database, pair: Pair, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)


async def confirm(database: Database, pair: Pair, one: Appointment, now: datetime) -> None:
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), one.id, now=now)


async def shown(database: Database, pair: Pair, now: datetime) -> dict[str, Said]:
    """What the newest mail to each of the two has in it, by their names; whatever was to be mailed is settled."""
    found: dict[str, Said] = {}
    async with database.transaction() as tx:
        claimed = await notifications.claim(tx, Channel.MAIL, now=now, most=100)
        for _, letter in await letters.load_all(tx, claimed, now=now):
            if isinstance(letter, Letter) and (entry := entries.entry(letter, make_config(25))) is not None:
                found[letter.recipient.name] = {
                    one.decoded("RECURRENCE-ID", None): str(one["ATTENDEE"].params["PARTSTAT"])
                    for one in Calendar.from_ical(entry[1]).events
                }
        await notifications.settle_all_sent(tx, [one.id for one in claimed], now=now)
    return found


async def test_who_was_undecided_stays_so_when_the_other_confirms(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    one = await book(database, pair, now)
    await says(database, pair.supervisee, one.id, Attendance.TENTATIVE, now)
    await confirm(database, pair, one, now)
    assert await shown(database, pair, now) == {"Ana": {None: "ACCEPTED"}, "Bruno": {None: "TENTATIVE"}}


async def test_whoever_confirms_is_undecided_no_more(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    one = await book(database, pair, now)
    await says(database, pair.supervisor, one.id, Attendance.TENTATIVE, now)
    assert (await shown(database, pair, now))["Ana"] == {None: "TENTATIVE"}
    await confirm(database, pair, one, now)
    assert await shown(database, pair, now) == {"Ana": {None: "ACCEPTED"}, "Bruno": {None: "ACCEPTED"}}


async def test_another_time_that_was_agreed_to_is_accepted(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    one = await book(database, pair, now)
    await confirm(database, pair, one, now)
    for person in pair.people:
        await says(database, person, one.id, Attendance.TENTATIVE, now, sequence=1)
    async with database.transaction() as tx:
        await moves.reschedule(tx, acts(pair.supervisor), one.id, TEN + HOUR, now=now)
        await moves.accept(tx, acts(pair.supervisee), one.id, now=now)
    assert await shown(database, pair, now) == {"Ana": {None: "ACCEPTED"}, "Bruno": {None: "ACCEPTED"}}


async def test_what_was_declined_and_then_kept_is_declined_no_more(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    one = await book(database, pair, now)
    for person in pair.people:
        await says(database, person, one.id, Attendance.DECLINED, now)
    async with database.transaction() as tx:
        await attendances.keep(tx, acts(pair.supervisee), [one.id])
        answered = await attendances.of(tx, one)
    assert answered == {pair.supervisor.id: Attendance.DECLINED}
    await confirm(database, pair, one, now)
    assert (await shown(database, pair, now))["Bruno"] == {None: "ACCEPTED"}


async def test_a_time_that_a_calendar_proposed_and_had_is_accepted(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, approval=Approval.AUTOMATIC))
    one = await book(database, pair, now)
    await says(database, pair.supervisee, one.id, Counter(TEN + HOUR), now)
    assert await shown(database, pair, now) == {"Ana": {None: "ACCEPTED"}, "Bruno": {None: "ACCEPTED"}}


async def test_an_answer_to_one_of_a_series_stays_when_another_is_moved(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now, rules=replace(OPEN_HOURS, approval=Approval.AUTOMATIC))
    rule = "FREQ=WEEKLY;COUNT=4"
    async with database.transaction() as tx:
        made = (await series.book(tx, acts(pair.supervisee), pair, TEN, rule, skip=False, now=now)).booked
    own = made[0].series_id
    assert own is not None
    await says(database, pair.supervisee, own, Attendance.TENTATIVE, now, TEN + WEEK)
    await shown(database, pair, now)
    async with database.transaction() as tx:
        start = TEN + 2 * WEEK + HOUR
        await shifts.reschedule(tx, acts(pair.supervisee), made[2].id, start, Scope.FOLLOWING, skip=False, now=now)
    moved: Said = {TEN + 2 * WEEK: "ACCEPTED", TEN + 3 * WEEK: "ACCEPTED"}
    assert await shown(database, pair, now) == {
        "Ana": {None: "ACCEPTED", **moved},
        "Bruno": {None: "ACCEPTED", TEN + WEEK: "TENTATIVE", **moved},
    }
    await says(database, pair.supervisee, own, Attendance.DECLINED, now + HOUR, sequence=9)
    async with database.transaction() as tx:
        await groups.cancel(tx, acts(pair.supervisor), made[3].id, Scope.ONE, now=now)
        await shifts.reschedule(
            tx, acts(pair.supervisee), made[2].id, start + HOUR, Scope.FOLLOWING, skip=False, now=now
        )
    assert (await shown(database, pair, now))["Bruno"] == {None: "DECLINED", TEN + 2 * WEEK: "ACCEPTED"}

"""What a batch of mails is told by the database: in few statements, each mail's trouble its own, and wishes heeded."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import pytest
from sqlalchemy import Row, delete, insert, select, update

from bridge import letters
from bridge.letters import Booking, Group, HeldBack, Letter, Mailbox, Offering, Outdated, Room, Unwanted, Writing
from supervision import (
    appointments,
    groups,
    mailboxes,
    memberships,
    moves,
    notifications,
    pairs,
    preferences,
    series,
    shifts,
    unreads,
    waits,
)
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import NotAllowed, NotFound
from supervision.groups import Scope
from supervision.models import Channel, Fault, State, Topic, people
from supervision.models import appointments as appointments_table
from supervision.models import notifications as outbox
from supervision.models import waits as waits_table
from supervision.notifications import Notice, Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import Preferences
from tests.bridge.conftest import Clock, make_config, running
from tests.bridge.servers import moody_server
from tests.support.sample import acts, add_pair, add_person

NIGHT = Preferences(quiet_from=time(8), quiet_until=time(10))  # in which the tests' now is: it is 9:00 in São Paulo
A_MINUTE = timedelta(minutes=1)


async def claim(database: Database, now: datetime) -> list[Notification]:
    async with database.transaction() as tx:
        return await notifications.claim(tx, Channel.MAIL, now=now, most=100)


async def enqueue(database: Database, now: datetime, *notices: Notice) -> None:
    async with database.transaction() as tx:
        await notifications.enqueue(tx, notices, now=now)


async def load(database: Database, now: datetime) -> list[tuple[str, Letter | Exception]]:
    claimed = await claim(database, now)
    async with database.transaction() as tx:
        loaded = await letters.load_all(tx, claimed, now=now)
    return [(notification.kind, letter) for notification, letter in loaded]


async def book(database: Database, pair: Pair, now: datetime, days: int = 2) -> Appointment:
    async with database.transaction() as tx:
        starts_at = now + timedelta(days=days, hours=1)
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


async def wish(database: Database, person: Person, wishes: Preferences, now: datetime) -> None:
    async with database.transaction() as tx:
        await preferences.save(tx, acts(person), person.id, wishes, now=now)


def subject(loaded: tuple[str, Letter | Exception]) -> Any:
    assert isinstance(loaded[1], Letter), loaded
    return loaded[1].subject


def about(pair: Pair, person: Person, kind: str, **more: Any) -> Notice:
    return Notice(person.id, Channel.MAIL, kind, pair_id=pair.id, **more)


async def test_each_mail_gets_what_it_tells_of(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = pair.people
    appointment = await book(database, pair, now)
    async with database.transaction() as tx:
        starts_at = now + timedelta(days=9, hours=1)
        rule = "FREQ=WEEKLY;COUNT=3"
        booked = await series.book(tx, acts(bruno), pair, starts_at, rule, skip=False, now=now)
        await unreads.note_message(tx, pair, ana.id, "$event", wait=A_MINUTE, now=now - A_MINUTE)
    await enqueue(
        database,
        now,
        Notice(bruno.id, Channel.MAIL, "sign_in", {"sign_in_id": str(uuid.uuid4())}),
        Notice(ana.id, Channel.MAIL, "mailbox.stopped", {"whose": str(bruno.id), "code": "5.1.1"}),
    )
    loaded = dict(await load(database, now))
    assert all(isinstance(letter, Letter) for letter in loaded.values())
    assert subject(("", loaded["appointment.requested"])) == Booking(appointment, bruno)
    group = subject(("", loaded["series.requested"]))
    assert isinstance(group, Group)
    assert (group.other, group.told, group.occurrences) == (bruno, tuple(booked.booked), group.told)
    assert subject(("", loaded["room.unread"])) == Writing(ana)
    assert subject(("", loaded["mailbox.stopped"])) == Mailbox(bruno)
    assert subject(("", loaded["sign_in"])) is None


@pytest.mark.parametrize("tell", [pairs.alarm_stranger, partial(pairs.set_fault, fault=Fault.GONE)])
async def test_admins_too_are_told_whose_room_it_is(
    database: Database, now: datetime, tell: Callable[..., Awaitable[bool]]
) -> None:
    pair = await add_pair(database, now=now)
    await add_person(database, "Eva", ["admin"], now=now)
    async with database.transaction() as tx:
        assert await tell(tx, pair, now=now)
    loaded = await load(database, now)
    assert [subject(one) for one in loaded] == [Room(("Ana", "Bruno"))] * 3


async def test_admins_are_told_who_left_which_room(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    eva = await add_person(database, "Eva", ["admin"], now=now)
    members = {person.matrix_id or "": "join" for person in pair.people}
    async with database.transaction() as tx:
        await memberships.note(tx, pair, members, [], now=now)
        await memberships.note(tx, pair, members | {pair.supervisee.matrix_id or "": "leave"}, [], now=now)
    assert [subject(one) for one in await load(database, now)] == [Room(("Ana", "Bruno"), "Bruno")]
    # As it was told before its rows said who.
    await enqueue(database, now, Notice(eva.id, Channel.MAIL, "room.left", {"pair": str(pair.id)}))
    assert [subject(one) for one in await load(database, now)] == [Room(("Ana", "Bruno"))]


async def test_one_mail_alone_is_read_the_same(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    [claimed] = await claim(database, now)
    async with database.transaction() as tx:
        letter = await letters.load(tx, claimed)
        assert letter == Letter(claimed, pair.supervisor, Booking(appointment, pair.supervisee))
        await appointments.decline(tx, acts(pair.supervisor), appointment.id, now=now)
        with pytest.raises(Outdated):
            await letters.load(tx, claimed)


async def test_a_batch_takes_as_many_statements_as_one_mail(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, now)
    counts = []
    for days in ((), (3, 4, 7, 8, 9, 10, 11)):
        for day in days:
            await book(database, pair, now, day)
        claimed = await claim(database, now)
        async with database.transaction() as tx:
            with counting(tx) as asked:
                assert len(await letters.load_all(tx, claimed, now=now)) == len(claimed)
        counts.append((len(claimed), len(asked)))
    assert counts == [(1, 2), (7, 2)]


@contextmanager
def counting(tx: Any) -> Iterator[list[str]]:
    """The statements that asyncpg is given."""
    asked: list[str] = []
    driver = tx.sync_connection.connection.driver_connection
    with driver.query_logger(lambda query: asked.append(query.query)):
        yield asked


async def test_each_mail_s_trouble_is_its_own(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = pair.people
    eve = await add_person(database, "Eve", ["supervisee"], now=now)
    appointment = await book(database, pair, now)
    nobody = str(uuid.uuid4())
    await enqueue(
        database,
        now,
        about(pair, eve, "appointment.confirmed", appointment_id=appointment.id),
        about(pair, ana, "series.requested", details={}),
        about(pair, ana, "series.booked", details={"series": "nonsense", "appointments": [], "revisions": []}),
        about(pair, ana, "wait.offered", details={"wait": nobody, "slot": [now.isoformat()] * 2}),
        about(pair, bruno, "room.unread"),
        Notice(ana.id, Channel.MAIL, "mailbox.stopped", {"whose": nobody, "code": "5.1.1"}),
        Notice(bruno.id, Channel.MAIL, "sign_in"),
    )
    found = {
        kind: "letter" if isinstance(letter, Letter) else type(letter) for kind, letter in await load(database, now)
    }
    assert found == {
        "appointment.requested": "letter",
        "appointment.confirmed": NotAllowed,
        "series.requested": NotFound,
        "series.booked": NotFound,
        "wait.offered": Outdated,
        "room.unread": Outdated,
        "mailbox.stopped": NotFound,
        "sign_in": "letter",
    }


async def test_a_series_of_another_pair_is_not_told(database: Database, now: datetime) -> None:
    one, other = await add_pair(database, now=now), await add_pair(database, now=now)
    async with database.transaction() as tx:
        starts_at = now + timedelta(days=2, hours=1)
        booked = await series.book(tx, acts(one.supervisee), one, starts_at, "FREQ=WEEKLY;COUNT=2", skip=False, now=now)
        await tx.execute(delete(outbox))
    details = {"series": str(booked.series_id), "appointments": [], "revisions": []}
    await enqueue(database, now, about(other, other.supervisor, "series.booked", details=details))
    [(_, letter)] = await load(database, now)
    assert isinstance(letter, NotFound)


async def test_an_open_offer_is_told_and_a_closed_one_is_not(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        await tx.execute(delete(outbox))
    wait_id = uuid.uuid4()
    slot = (appointment.starts_at, appointment.ends_at)
    async with database.transaction() as tx:
        await tx.execute(
            insert(waits_table).values(
                id=wait_id, pair_id=pair.id, supervisor_id=pair.supervisor.id, supervisee_id=pair.supervisee.id,
                since=[slot[0]], until=[slot[1]], length_minutes=50, passed=[], created_at=now, ends_at=slot[1],
                offered_starts_at=slot[0], offered_ends_at=slot[1], offer_until=now + timedelta(hours=2),
            )
        )  # fmt: skip
    details = {"wait": str(wait_id), "slot": [one.isoformat() for one in slot]}
    offered = about(pair, pair.supervisee, "wait.offered", details=details)
    await enqueue(database, now, offered)
    [loaded] = await load(database, now)
    assert subject(loaded) == Offering(waits.Offer(*slot, now + timedelta(hours=2)), pair.supervisor)
    async with database.transaction() as tx:
        await tx.execute(update(waits_table).values(offered_starts_at=None, offered_ends_at=None, offer_until=None))
    [(_, letter)] = await load(database, now + timedelta(minutes=2))
    assert isinstance(letter, Outdated)


async def test_what_is_unread_is_told_while_it_is(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await unreads.note_message(tx, pair, pair.supervisor.id, "$event", wait=A_MINUTE, now=now - A_MINUTE)
    [claimed] = await claim(database, now)
    async with database.transaction() as tx:
        assert (await letters.load(tx, claimed)).subject == Writing(pair.supervisor)
        await unreads.note_read(tx, pair.id, pair.supervisee.id, now=now)
        with pytest.raises(Outdated):
            await letters.load(tx, claimed)


async def test_a_proposal_that_is_gone_is_not_told(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        await tx.execute(delete(outbox))
        later = appointment.starts_at + timedelta(days=1)
        await moves.reschedule(tx, acts(pair.supervisor), appointment.id, later, now=now)
    [claimed] = await claim(database, now)
    async with database.transaction() as tx:
        assert claimed.kind == "move.proposed"
        assert isinstance((await letters.load(tx, claimed)).subject, Booking)
        await moves.withdraw(tx, acts(pair.supervisor), appointment.id, now=now)
        with pytest.raises(Outdated):
            await letters.load(tx, claimed)


async def test_a_mail_that_is_not_wanted_is_settled(database: Database, clock: Clock, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    unwanted = Preferences(unwanted=frozenset({(Channel.MAIL, Topic.BOOKINGS)}))
    await wish(database, pair.supervisor, unwanted, now)
    await book(database, pair, now)
    [(_, reason)] = await load(database, now)
    assert isinstance(reason, Unwanted)
    clock.forward(timedelta(minutes=5))
    async with moody_server() as server, running(database, make_config(server.port), clock):
        assert await states(database, State.UNWANTED) == [(State.UNWANTED, None)]
    assert server.kept == []


async def test_quiet_hours_keep_a_mail_back(database: Database, clock: Clock, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await wish(database, pair.supervisor, NIGHT, now)
    await book(database, pair, now)
    until = now + timedelta(hours=1)
    [(_, reason)] = await load(database, now)
    assert isinstance(reason, HeldBack)
    assert reason.until == until
    clock.forward(timedelta(minutes=5))  # the lease's end
    async with moody_server() as server, running(database, make_config(server.port), clock):
        async with asyncio.timeout(60):
            while (row := await only_mail(database)).send_at != until:  # noqa: ASYNC110 - it looks at a table
                await asyncio.sleep(0.02)
        assert (row.state, row.attempts, row.claimed_until, server.kept) == (State.PENDING, 1, None, [])  # load's try
        clock.forward(timedelta(hours=1))
        assert await states(database, State.SENT) == [(State.SENT, None)]


async def test_a_request_that_would_lapse_in_the_quiet_hours_is_told(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await wish(database, pair.supervisor, NIGHT, now)
    appointment = await book(database, pair, now)
    async with database.transaction() as tx:
        await tx.execute(
            update(appointments_table)
            .where(appointments_table.c.id == appointment.id)
            .values(answer_by=now + timedelta(minutes=30))
        )
    [loaded] = await load(database, now)
    assert isinstance(subject(loaded), Booking)


@pytest.mark.parametrize("scope", [Scope.ONE, Scope.ALL])
async def test_a_move_away_from_today_is_told_at_once(database: Database, now: datetime, scope: Scope) -> None:
    """It changes a day that somebody has planned, wherever it goes."""
    pair = await add_pair(database, now=now)
    await wish(database, pair.supervisor, NIGHT, now)
    starts_at = now + timedelta(hours=25)
    async with database.transaction() as tx:
        booked = await series.book(
            tx, acts(pair.supervisee), pair, starts_at, "FREQ=WEEKLY;COUNT=2", skip=False, now=now
        )
        one = booked.booked[0].id
        await groups.confirm(tx, acts(pair.supervisor), one, Scope.ALL, now=now)
        await tx.execute(delete(outbox))
        later = starts_at + timedelta(days=2)
        await shifts.reschedule(tx, acts(pair.supervisor), one, later, scope, skip=False, now=now)
        await groups.accept(tx, acts(pair.supervisee), one, scope, now=now)
    today = now + timedelta(hours=24, minutes=30)  # in her quiet hours, on the day of the first
    told = [loaded for loaded in await load(database, today) if loaded[0].endswith("rescheduled")]
    assert [isinstance(letter, Letter) for _, letter in told] == [True, True]


async def test_a_letter_that_cannot_be_judged_is_its_own_trouble(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    await wish(database, pair.supervisor, NIGHT, now)
    await book(database, pair, now)
    await enqueue(database, now, about(pair, pair.supervisee, "identity.changed"))
    async with database.transaction() as tx:
        await tx.execute(update(people).where(people.c.id == pair.supervisor.id).values(time_zone="Mars/Olympus"))
    loaded = await load(database, now)
    assert [(kind, type(letter)) for kind, letter in loaded] == [
        ("appointment.requested", ZoneInfoNotFoundError),
        ("identity.changed", Letter),
    ]


async def test_nothing_but_a_sign_in_goes_to_an_address_that_mail_came_back_from(
    database: Database, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    ana = pair.supervisor
    bounced = Notice(ana.id, Channel.MAIL, "sign_in", {"sign_in_id": str(uuid.uuid4())})
    await enqueue(database, now, bounced)
    async with database.transaction() as tx:
        await mailboxes.stop(tx, bounced.id, "5.1.1", now=now)
        await tx.execute(delete(outbox))
    await book(database, pair, now)
    again = Notice(ana.id, Channel.MAIL, "sign_in", {"sign_in_id": str(uuid.uuid4())})
    await enqueue(database, now, again)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        expected = [(State.PARKED, "address_stopped"), (State.SENT, None)]
        assert await states(database, State.PARKED, State.SENT) == expected
        async with database.transaction() as tx:
            await mailboxes.resume(tx, Actor(ana.id, "web"), ana.id, now=clock())
        assert await states(database, State.SENT, State.SENT) == [(State.SENT, None)] * 2
    assert len(server.kept) == 2


async def only_mail(database: Database) -> Row[Any]:
    async with database.transaction() as tx:
        return (await tx.execute(select(outbox).where(outbox.c.channel == Channel.MAIL))).one()


async def states(database: Database, *expected: State) -> list[tuple[str, str | None]]:
    """Of the mails, once they are these."""
    query = select(outbox.c.state, outbox.c.error).where(outbox.c.channel == Channel.MAIL).order_by(outbox.c.position)
    async with asyncio.timeout(60):
        while True:
            async with database.transaction() as tx:
                found = [(row.state, row.error) for row in await tx.execute(query)]
            if [state for state, _ in found] == list(expected):
                return found
            await asyncio.sleep(0.02)


async def test_a_mail_about_a_copy_names_the_other_of_that_room(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = pair.people
    by = {"by": str(bruno.id)}
    await enqueue(
        database,
        now,
        about(pair, ana, "export.asked", details=by),
        about(pair, bruno, "export.ready", details=by),
        about(pair, bruno, "export.failed"),
    )
    loaded = dict(await load(database, now))
    assert {kind: subject((kind, letter)) for kind, letter in loaded.items()} == {
        "export.asked": Writing(bruno),
        "export.ready": Writing(ana),
        "export.failed": Writing(ana),
    }

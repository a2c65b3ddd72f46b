"""Pairs from beginning to end: archived, reopened, held, removed, handed over; and who is in their rooms."""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from supervision import (
    appointments,
    bots,
    homeserver_tasks,
    jobs,
    memberships,
    pairs,
    people,
    policies,
    rooms,
    series,
    unreads,
    waits,
)
from supervision.audit import SYSTEM, Actor
from supervision.config import RoomsConfig
from supervision.db import Database, Transaction, lock_people
from supervision.errors import NotAllowed, NotFound, NotUnderstood
from supervision.memberships import Membership
from supervision.models import Fault, PairStatus, Status, audit_entries, sessions
from supervision.models import appointments as appointments_table
from supervision.models import holds as holds_table
from supervision.models import homeserver_tasks as tasks_table
from supervision.models import memberships as memberships_table
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.models import waits as waits_table
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import acts, add_pair, add_person

TUESDAY = datetime.fromisoformat("2026-11-24T13:00:00+00:00")  # ten o'clock in São Paulo
OPERATOR = Actor(None, "cli")
BOT = "@visavis:example.org"


async def read(database: Database, pair: Pair) -> Pair:
    async with database.transaction() as tx:
        return await pairs.get(tx, pair.id)


async def told(database: Database) -> list[tuple[str, str, str]]:
    """Kind, channel and reader of all that is in the outbox and not superseded, sorted."""
    query = (
        select(outbox.c.kind, outbox.c.channel, people_table.c.name)
        .join(people_table, people_table.c.id == outbox.c.person_id)
        .where(outbox.c.state == "pending")
    )
    async with database.transaction() as tx:
        return sorted(tuple(row) for row in await tx.execute(query))


def both(kind: str, *names: str) -> list[tuple[str, str, str]]:
    return [(kind, channel, name) for channel in ("mail", "matrix") for name in names or ("Ana", "Bruno")]


async def give_room(database: Database, pair: Pair, room_id: str = "!room:example.org", bot: str = BOT) -> Pair:
    async with database.transaction() as tx:
        await bots.register(tx, bot, "key", now=TUESDAY)
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(room_id=room_id, bot=bot))
    return await read(database, pair)


async def admin(database: Database, now: datetime) -> Person:
    return await add_person(database, "Eva", ["admin"], now=now)


async def test_an_archive_calls_off_what_is_to_come_and_ends_the_waiting(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    bruno = acts(pair.supervisee)
    async with database.transaction() as tx:
        past = await appointments.book(tx, bruno, pair, TUESDAY, now=now)
        single = await appointments.book(tx, acts(pair.supervisor), pair, TUESDAY + timedelta(days=1), now=now)
        await series.book(
            tx, acts(pair.supervisor), pair, TUESDAY + timedelta(hours=1), "FREQ=WEEKLY;COUNT=3", skip=False, now=now
        )
        day = TUESDAY + timedelta(days=1)
        await waits.join(tx, bruno, pair, [(day, day + timedelta(minutes=10))], now=now)
        await appointments.confirm(tx, acts(pair.supervisor), past.id, now=now)
    later = TUESDAY + timedelta(minutes=10)
    async with database.transaction() as tx:
        await pairs.archive(tx, acts(pair.supervisor), pair.id, now=later)
    async with database.transaction() as tx:
        rows = await tx.execute(select(appointments_table.c.id, appointments_table.c.status))
        statuses = {row.id: row.status for row in rows}
        assert await tx.scalar(select(waits_table.c.ended_at)) == later
        held = select(func.count()).select_from(holds_table).where(holds_table.c.appointment_id != past.id)
        assert await tx.scalar(held) == 0
    assert statuses.pop(past.id) == Status.CONFIRMED  # it has begun
    assert statuses.pop(single.id) == Status.CANCELLED
    assert list(statuses.values()) == [Status.CANCELLED] * 3
    kinds = {"pair.archived", "appointment.cancelled", "series.cancelled"}
    assert [one for one in await told(database) if one[0] in kinds] == sorted(
        one for kind in kinds for one in both(kind)
    )


async def test_who_is_not_signed_in_is_not_taken_for_the_operator(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    visitor = Actor(None, "web")
    async with database.transaction() as tx:
        for act in (pairs.archive, pairs.hold, pairs.remove_room):
            with pytest.raises(NotAllowed):
                await act(tx, visitor, pair.id, now=now)
        with pytest.raises(NotAllowed):
            await rooms.settle(tx, visitor, pair.id, {"retention_days": 1}, RoomsConfig(), now=now)
        with pytest.raises(NotAllowed):
            await policies.set_pair(tx, visitor, pair.id, lengths=[50], approval=None, now=now)


async def test_who_may_archive_and_reopen(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    eva, stranger = await admin(database, now), await add_person(database, "Clara", ["supervisor"], now=now)
    for one in (pair.supervisee, stranger):
        for act in (pairs.archive, pairs.reopen):
            async with database.transaction() as tx:
                with pytest.raises(NotAllowed):
                    await act(tx, acts(one), pair.id, now=now)
    for actor in (acts(pair.supervisor), acts(eva), OPERATOR):
        async with database.transaction() as tx:
            await pairs.archive(tx, actor, pair.id, now=now)
            with pytest.raises(NotFound, match=r"refused\.pair_not_found"):
                await pairs.archive(tx, actor, pair.id, now=now)
            await pairs.reopen(tx, actor, pair.id, now=now)
            with pytest.raises(NotFound, match=r"refused\.pair_not_archived"):
                await pairs.reopen(tx, actor, pair.id, now=now)
    assert (await read(database, pair)).status is PairStatus.ACTIVE


async def test_a_pair_is_reopened_where_it_can_go_on(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(expires_on=date(2026, 11, 22)))
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        again = await pairs.add(tx, OPERATOR, pair.supervisor, pair.supervisee, now=now)
    with pytest.raises(NotUnderstood, match=r"refused\.pair_exists"):
        async with database.transaction() as tx:
            await pairs.reopen(tx, OPERATOR, pair.id, now=now)
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, again.id, now=now)
        await pairs.reopen(tx, OPERATOR, pair.id, now=now)
        reopened = await pairs.get(tx, pair.id)
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        await people.disable(tx, OPERATOR, pair.supervisee.id, now=now)
        with pytest.raises(NotUnderstood, match=r"refused\.pair_disabled"):
            await pairs.reopen(tx, OPERATOR, pair.id, now=now)
    assert (reopened.status, reopened.archived_at, reopened.expires_on) == (PairStatus.ACTIVE, None, None)


async def test_the_last_day_is_told_a_week_before_and_ends_in_the_supervisor_s_zone(
    database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)  # Ana is in São Paulo, UTC-3
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(expires_on=date(2026, 12, 1)))
    for moment, expected in (
        ("2026-11-24T02:59:00+00:00", []),
        ("2026-11-24T03:00:00+00:00", both("pair.expiring")),
        ("2026-11-25T03:00:00+00:00", both("pair.expiring")),
        ("2026-12-02T02:59:00+00:00", both("pair.expiring")),
        ("2026-12-02T03:00:00+00:00", [*both("pair.archived"), *both("pair.expiring")]),
    ):
        await jobs.run_once(database, "expire_pairs", now=datetime.fromisoformat(moment))
        assert await told(database) == expected, moment
    assert (await read(database, pair)).status is PairStatus.ARCHIVED


async def test_a_room_is_removed_when_archived_and_not_held(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    eva = await admin(database, now)
    refusals = []

    async def remove() -> None:
        async with database.transaction() as tx:
            try:
                await pairs.remove_room(tx, acts(eva), pair.id, now=now)
            except NotUnderstood as refused:
                refusals.append(refused.key)

    async with database.transaction() as tx:
        await appointments.book(tx, acts(pair.supervisor), pair, TUESDAY, now=now)
        await memberships.note(tx, pair, {pair.supervisor.matrix_id or "": "join"}, [], now=now)
        for refused in (pairs.hold, pairs.release, pairs.remove_room):
            with pytest.raises(NotAllowed):
                await refused(tx, acts(pair.supervisor), pair.id, now=now)
    await remove()
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        await pairs.hold(tx, acts(eva), pair.id, now=now)
    await remove()
    async with database.transaction() as tx:
        await pairs.release(tx, acts(eva), pair.id, now=now)
    await remove()
    async with database.transaction() as tx:
        assert await pairs.list_for_bot(tx, BOT) == []  # the bot does not take its going for a fault
    await remove()
    async with database.transaction() as tx:
        [task] = await tx.execute(select(tasks_table.c.kind, tasks_table.c.details))
        await pairs.forget_room(tx, pair.id, now=now)
        await pairs.forget_room(tx, pair.id, now=now + timedelta(days=1))
        with pytest.raises(NotUnderstood, match=r"refused\.pair_removed"):
            await pairs.reopen(tx, OPERATOR, pair.id, now=now)
        assert await tx.scalar(select(func.count()).select_from(memberships_table)) == 0
        assert await tx.scalar(select(func.count()).select_from(appointments_table)) == 1
    assert tuple(task) == ("remove_room", {"room": "!room:example.org"})
    assert refusals == ["refused.pair_active", "refused.pair_held", "refused.pair_removed"]
    removed = await read(database, pair)
    assert (removed.room_id, removed.removed_at) == (None, now)


async def test_a_room_made_while_it_was_removed_can_be_removed_again(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        assert await pairs.remove_room(tx, OPERATOR, pair.id, now=now) is None
        await pairs.set_room(tx, pair.id, "!late:example.org")  # its bot was at it
        assert await pairs.remove_room(tx, OPERATOR, pair.id, now=now) is not None
        await pairs.forget_room(tx, pair.id, now=now)
        gone = await pairs.get(tx, pair.id)
        assert (gone.room_id, gone.removed_at) == (None, now)


async def test_a_hold_withdraws_a_removal_that_waits(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        await pairs.remove_room(tx, OPERATOR, pair.id, now=now)
        await pairs.hold(tx, OPERATOR, pair.id, now=now)
        assert not await pairs.is_being_removed(tx, pair.id)
        assert await homeserver_tasks.claim(tx, now=now) is None
        with pytest.raises(NotUnderstood, match=r"refused\.pair_held"):
            await pairs.remove_room(tx, OPERATOR, pair.id, now=now)
        assert [one.id for one in await pairs.list_for_bot(tx, BOT)] == [pair.id]


async def test_nothing_waits_to_be_read_in_an_archived_room(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    async with database.transaction() as tx:
        await unreads.note_message(tx, pair, pair.supervisor.id, "$one", wait=timedelta(minutes=5), now=now)
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        await pairs.reopen(tx, OPERATOR, pair.id, now=now)
        assert await unreads.counts(tx, pair.supervisee.id) == {}
    assert "room.unread" not in [kind for kind, *_ in await told(database)]


async def test_pairs_that_end_on_one_day_are_locked_in_the_order_of_all(
    database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another transaction that locks people of two such pairs, ascending, must not wait in a ring with the job."""
    made = [await add_pair(database, now=now) for _ in range(3)]
    asked: list[list[uuid.UUID]] = []

    async def lock(tx: Transaction, several: Iterable[uuid.UUID]) -> None:
        asked.append(list(several))
        await lock_people(tx, asked[-1])

    monkeypatch.setattr(pairs, "lock_people", lock)
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(expires_on=date(2026, 11, 1)))
        assert await pairs.expire(tx, now=now) == 3
    everybody = {person.id for pair in made for person in pair.people}
    assert set(asked[0]) == everybody
    assert all(set(later) <= everybody for later in asked)


async def test_a_pair_that_cannot_be_looked_at_holds_up_no_other(database: Database, now: datetime) -> None:
    made = [await add_pair(database, now=now) for _ in range(3)]
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(expires_on=date(2026, 11, 1)))
        bad = update(people_table).where(people_table.c.id == made[1].supervisor.id)
        await tx.execute(bad.values(time_zone="Nowhere/Atall"))
    with capture_logs() as logs:
        assert await jobs.run_once(database, "expire_pairs", now=now)
    assert [(one["event"], one["of"]) for one in logs if one["log_level"] == "error"] == [
        ("row.failed", "expire_pairs")
    ]
    assert [(await read(database, one)).status for one in made] == ["archived", "active", "archived"]


async def test_another_supervisor_takes_over_in_a_new_room(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    clara = await add_person(database, "Clara", ["supervisor"], now=now)
    async with database.transaction() as tx:
        with pytest.raises(NotAllowed):
            await pairs.hand_over(tx, acts(pair.supervisor), pair.id, clara, now=now)
        made = await pairs.hand_over(tx, OPERATOR, pair.id, clara, now=now)
    old = await read(database, pair)
    assert (old.status, old.room_id) == (PairStatus.ARCHIVED, "!room:example.org")
    assert (made.supervisor, made.supervisee, made.room_id) == (clara, pair.supervisee, None)
    assert made.room_token != pair.room_token
    async with database.transaction() as tx:
        with pytest.raises(NotUnderstood, match=r"refused\.pair_exists"):
            await pairs.hand_over(tx, OPERATOR, made.id, clara, now=now)


async def test_a_pair_that_was_handed_over_is_reopened_by_an_admin_alone(database: Database, now: datetime) -> None:
    pair, clara = await add_pair(database, now=now), await add_person(database, "Clara", ["supervisor"], now=now)
    ana, eva = acts(pair.supervisor), acts(await admin(database, now))
    async with database.transaction() as tx:
        await pairs.archive(tx, ana, pair.id, now=now)
        again = await pairs.add(tx, OPERATOR, *pair.people, now=now)  # as where the first room was lost
        hers = await pairs.hand_over(tx, OPERATOR, again.id, clara, now=now)
        for one in (pair, again):
            with pytest.raises(NotAllowed, match=r"^refused\.pair_handed_over$"):
                await pairs.reopen(tx, ana, one.id, now=now)
        await pairs.reopen(tx, eva, again.id, now=now)
        for one, actor in ((again, ana), (hers, acts(clara))):  # both go on as an admin wants it, and may close theirs
            await pairs.archive(tx, actor, one.id, now=now)
            await pairs.reopen(tx, actor, one.id, now=now)
    assert [(await read(database, one)).status for one in (pair, again, hers)] == ["archived", "active", "active"]


async def test_who_leaves_is_told_of_and_stays_away_until_invited(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    await admin(database, now)
    ana, bruno = (person.matrix_id or "" for person in pair.people)

    async def note(members: dict[str, str], *readable: str) -> set[str]:
        """Who is to be invited after this was seen."""
        async with database.transaction() as tx:
            await memberships.note(tx, pair, members, readable, now=now)
            unknown = (await memberships.unknown(tx, BOT)).get(pair.id, frozenset())
        return {person.name for person in pair.people if person.id in unknown}

    assert await note({}) == {"Ana", "Bruno"}
    assert await note({ana: "join", bruno: "invite"}, ana) == set()
    async with database.transaction() as tx:
        assert await memberships.of(tx, [pair.id]) == {
            (pair.id, pair.supervisor.id): Membership("join", True, now),
            (pair.id, pair.supervisee.id): Membership("invite", False, now),
        }
    assert await told(database) == []
    assert await note({ana: "join", bruno: "leave"}, ana) == set()
    assert await note({ana: "join", bruno: "leave"}, ana) == set()
    assert await told(database) == [("room.left", "mail", "Eva"), ("room.left", "matrix", "Ana")]
    async with database.transaction() as tx:
        with pytest.raises(NotAllowed):
            await pairs.invite_again(tx, acts(pair.supervisee), pair.id, pair.supervisee.id, now=now)
        for person in pair.people:  # of whom only one has left
            await pairs.invite_again(tx, acts(pair.supervisor), pair.id, person.id, now=now)
    assert await note({ana: "join", bruno: "leave"}) == {"Bruno"}
    assert await note({ana: "join", bruno: "invite"}) == set()
    assert await note({ana: "join"}) == {"Bruno"}  # who has another Matrix ID now


async def test_nobody_is_told_of_who_is_put_out_or_leaves_a_closed_room(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    ana, bruno = (person.matrix_id or "" for person in pair.people)
    async with database.transaction() as tx:
        await memberships.note(tx, pair, {ana: "join", bruno: "join"}, [], now=now)
        await people.disable(tx, OPERATOR, pair.supervisee.id, now=now)
        pair = await pairs.get(tx, pair.id)
        await memberships.note(tx, pair, {ana: "join", bruno: "leave"}, [], now=now)
        archived = replace(pair, status=PairStatus.ARCHIVED)
        await memberships.note(tx, archived, {ana: "leave", bruno: "leave"}, [], now=now)
    assert await told(database) == []


async def test_who_left_somebody_disabled_is_told_to_admins_alone(database: Database, now: datetime) -> None:
    await admin(database, now)
    pair = await give_room(database, await add_pair(database, now=now))
    ana, bruno = (person.matrix_id or "" for person in pair.people)
    async with database.transaction() as tx:
        await memberships.note(tx, pair, {ana: "join", bruno: "join"}, [], now=now)
        await people.disable(tx, OPERATOR, pair.supervisor.id, now=now)
        pair = await pairs.get(tx, pair.id)
        await memberships.note(tx, pair, {ana: "leave", bruno: "leave"}, [], now=now)
    assert await told(database) == [("room.left", "mail", "Eva")]


async def test_a_fault_is_told_once_a_day_for_as_long_as_it_lasts(database: Database, now: datetime) -> None:
    pair = await give_room(database, await add_pair(database, now=now))
    await admin(database, now)
    async with database.transaction() as tx:
        found = [
            await pairs.set_fault(tx, pair, fault, now=now + timedelta(hours=hours))
            for fault, hours in ((Fault.GONE, 0), (Fault.GONE, 23), (Fault.REFUSED, 23), (Fault.REFUSED, 24))
        ]
    faulty = await read(database, pair)
    async with database.transaction() as tx:
        assert [one.faults for one in await bots.list_all(tx)] == [1]
        assert [await pairs.clear_fault(tx, pair.id, now=now) for _ in range(2)] == [True, False]
        audited = await tx.scalars(
            select(audit_entries.c.action).where(audit_entries.c.action.like("room.%")).order_by(audit_entries.c.id)
        )
        assert list(audited) == ["room.fault", "room.fault", "room.recover"]
    assert found == [True, False, False, True]
    assert (faulty.fault, faulty.fault_at) == (Fault.REFUSED, now + timedelta(hours=23))
    assert await told(database) == [("room.fault", "mail", name) for name in ("Ana", "Bruno", "Eva") for _ in range(2)]


async def test_who_is_disabled_is_signed_out_everywhere(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        for person in pair.people:
            row = {"token_hash": person.id.bytes, "person_id": person.id, "created_at": now, "seen_at": now}
            await tx.execute(sessions.insert().values(**row, expires_at=now + timedelta(days=1)))
        await people.disable(tx, OPERATOR, pair.supervisee.id, now=now)
        assert list(await tx.scalars(select(sessions.c.person_id))) == [pair.supervisor.id]


async def test_a_pair_may_wait_for_its_people_s_accounts(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        common = {"language": "en", "time_zone": "UTC", "now": now, "matrix_id": None}
        ana = await people.add(tx, SYSTEM, name="Ana", email="a@example.org", roles=["supervisor"], **common)  # type: ignore[arg-type]
        bruno = await people.add(tx, SYSTEM, name="Bruno", email="b@example.org", roles=["supervisee"], **common)  # type: ignore[arg-type]
        made = await pairs.add(tx, OPERATOR, ana, bruno, now=now)
    assert (made.room_id, made.status) == (None, PairStatus.ACTIVE)


async def test_new_pairs_go_to_the_bot_with_the_fewest_among_those_seen_lately(
    database: Database, now: datetime
) -> None:
    async with database.transaction() as tx:
        assert await bots.least_busy(tx, now=now) is None
        await bots.register(tx, "@away:example.org", "key", now=now - timedelta(days=2))
        assert await bots.least_busy(tx, now=now) == "@away:example.org"
        await bots.register(tx, "@one:example.org", "key", now=now - timedelta(days=30))
        await bots.note_checked(tx, "@one:example.org", "key", now=now - timedelta(hours=1))
        await bots.register(tx, "@two:example.org", "key", now=now)
    made = [await add_pair(database, now=now) for _ in range(3)]
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, made[0].id, now=now)
    made.append(await add_pair(database, now=now))
    assert [pair.bot for pair in made] == [f"@{name}:example.org" for name in ("one", "two", "one", "one")]
    async with database.transaction() as tx:
        kept = {one.matrix_id: (one.pairs, one.faults, one.checked_at) for one in await bots.list_all(tx)}
    assert kept == {
        "@away:example.org": (0, 0, None),
        "@one:example.org": (2, 0, now - timedelta(hours=1)),
        "@two:example.org": (1, 0, None),
    }

"""The outbox: who is told what in which order, by one process alone, how often, and until when."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Row, select, text, update

from embedded.postgresql import PostgreSQL
from supervision import appointments, notifications, queries
from supervision.appointments import Appointment
from supervision.db import Database, listen
from supervision.errors import NotFound
from supervision.models import Channel, State
from supervision.models import notifications as table
from supervision.notifications import HIGH, LEASE, LOW, NORMAL, Backoff, Notice, Notification
from supervision.pairs import Pair
from supervision.queries import Due
from tests.support.sample import acts, add_pair, add_person

SECOND = timedelta(seconds=1)
THREEFOLD = Backoff(30 * SECOND, timedelta(hours=8), tries=10, factor=3)


async def enqueue(database: Database, now: datetime, *notices: Notice) -> None:
    async with database.transaction() as tx:
        await notifications.enqueue(tx, notices, now=now)


async def claim(database: Database, now: datetime, most: int = 10, **more: Any) -> list[Notification]:
    async with database.transaction() as tx:
        return await notifications.claim(tx, Channel.MAIL, now=now, most=most, **more)


async def fail(database: Database, claimed: Notification, now: datetime, **more: Any) -> State:
    async with database.transaction() as tx:
        return await notifications.settle_failed(tx, claimed, "smtp_451", now=now, backoff=THREEFOLD, **more)


async def sent(database: Database, claimed: Notification, now: datetime) -> None:
    async with database.transaction() as tx:
        await notifications.settle_sent(tx, claimed.id, now=now)


async def row(database: Database, notification_id: uuid.UUID) -> Row[Any]:
    async with database.transaction() as tx:
        return (await tx.execute(select(table).where(table.c.id == notification_id))).one()


async def book(database: Database, pair: Pair, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        starts_at = now + timedelta(days=1, hours=1)
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


def about(appointment: Appointment, kind: str, revision: int = 0, **more: Any) -> Notice:
    """A mail to the supervisor about this appointment."""
    return Notice(
        appointment.supervisor_id,
        Channel.MAIL,
        kind,
        pair_id=appointment.pair_id,
        appointment_id=appointment.id,
        revision=revision,
        **more,
    )


@pytest.fixture
async def notice(database: Database, now: datetime) -> Notice:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    return Notice(ana.id, Channel.MAIL, "sign_in")


async def test_the_urgent_goes_first_and_then_the_older(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    kinds = [("a", LOW), ("b", NORMAL), ("c", HIGH), ("d", NORMAL), ("e", HIGH)]
    await enqueue(database, now, *(Notice(ana.id, Channel.MAIL, kind, priority=priority) for kind, priority in kinds))
    assert [claimed.kind for claimed in await claim(database, now, most=3)] == ["c", "e", "b"]
    assert [claimed.kind for claimed in await claim(database, now)] == ["d", "a"]


async def test_each_channel_has_its_own_rows(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, Notice(ana.id, Channel.MATRIX, "notice"))
    assert await claim(database, now) == []


async def test_a_lease_keeps_others_away_until_it_ends(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    (first,) = await claim(database, now)
    assert await claim(database, now + LEASE - SECOND) == []
    (again,) = await claim(database, now + LEASE)
    assert (first.id, first.attempts, again.id, again.attempts) == (notice.id, 1, notice.id, 2)
    await sent(database, again, now + LEASE)
    assert await claim(database, now + timedelta(days=1)) == []


async def test_a_lease_is_as_long_as_its_claimer_says(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    await claim(database, now, lease=timedelta(minutes=5))
    assert await claim(database, now + timedelta(minutes=5) - SECOND) == []
    assert len(await claim(database, now + timedelta(minutes=5))) == 1


async def test_claims_at_the_same_time_share_nothing_and_do_not_wait(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, *(Notice(ana.id, Channel.MAIL, str(number)) for number in range(5)))
    async with database.transaction() as one, database.transaction() as two:
        ours = await notifications.claim(one, Channel.MAIL, now=now, most=3)
        theirs = await notifications.claim(two, Channel.MAIL, now=now, most=3)
    assert [claimed.kind for claimed in ours] == ["0", "1", "2"]
    assert [claimed.kind for claimed in theirs] == ["3", "4"]


async def test_many_claimers_get_each_row_once(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, *(Notice(ana.id, Channel.MAIL, "sign_in") for _ in range(200)))
    got: list[uuid.UUID] = []

    async def take() -> None:
        while claimed := await claim(database, now, most=7):
            got.extend(each.id for each in claimed)

    await asyncio.gather(*(take() for _ in range(8)))
    assert (len(got), len(set(got))) == (200, 200)


async def test_one_appointment_is_told_to_one_person_in_order(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    await enqueue(database, now, about(appointment, "second", priority=HIGH), about(appointment, "third"))
    (first,) = await claim(database, now)
    assert first.kind == "appointment.requested"
    assert await fail(database, first, now) is State.PENDING
    assert await claim(database, now) == []  # nothing overtakes what is to be tried again
    later = now + timedelta(minutes=1)
    (first,) = await claim(database, later)
    await sent(database, first, later)
    (second,) = await claim(database, later)
    assert second.kind == "second"


async def test_another_person_or_appointment_does_not_wait(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    bruno = Notice(pair.supervisee.id, Channel.MAIL, "bruno", pair_id=pair.id, appointment_id=appointment.id)
    await enqueue(database, now, bruno, Notice(pair.supervisor.id, Channel.MAIL, "sign_in"))
    assert [each.kind for each in await claim(database, now)] == ["appointment.requested", "bruno", "sign_in"]


async def test_a_parked_mail_does_not_block_the_next(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    await enqueue(database, now, about(appointment, "second"))
    (first,) = await claim(database, now)
    assert await fail(database, first, now, permanent=True) is State.PARKED
    assert [each.kind for each in await claim(database, now)] == ["second"]


async def test_a_reminder_of_next_week_does_not_block_today_s_news(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    (request,) = await claim(database, now)
    await sent(database, request, now)
    reminder = about(appointment, "appointment.reminder", send_at=now + timedelta(hours=1))
    await enqueue(database, now, reminder, about(appointment, "news"))
    assert [each.kind for each in await claim(database, now)] == ["news"]


async def test_a_cancellation_supersedes_an_invitation_that_was_never_tried(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)
        await appointments.cancel(tx, acts(pair.supervisee), appointment.id, now=now)
    claimed = await claim(database, now + timedelta(days=1))
    assert [(each.kind, each.person_id) for each in claimed] == [
        ("appointment.cancelled", pair.supervisor.id),
        ("appointment.cancelled", pair.supervisee.id),
    ]


async def test_an_invitation_that_failed_gives_way_at_once(database: Database, now: datetime) -> None:
    """A cancellation does not wait for the next try of what it makes worthless, which may be hours away."""
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    (request,) = await claim(database, now)
    await fail(database, request, now, retry_after=8 * 3600)
    async with database.transaction() as tx:
        await appointments.decline(tx, acts(pair.supervisor), appointment.id, now=now)
    news = [("appointment.declined", one.id) for one in pair.people]
    assert [(each.kind, each.person_id) for each in await claim(database, now)] == news
    assert await claim(database, now + LEASE / 2) == []
    assert (await row(database, request.id)).state == State.PENDING
    later = now + timedelta(hours=8)
    assert [(each.kind, each.person_id) for each in await claim(database, later)] == news  # again: the leases are over
    assert (await row(database, request.id)).state == State.SUPERSEDED


async def test_an_invitation_that_is_being_sent_goes_before_the_cancellation(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    (request,) = await claim(database, now)
    async with database.transaction() as tx:
        await appointments.decline(tx, acts(pair.supervisor), appointment.id, now=now)
    assert (await row(database, request.id)).state == State.PENDING
    [first] = await claim(database, now)
    assert (first.kind, first.person_id) == ("appointment.declined", pair.supervisee.id)
    await fail(database, request, now, retry_after=8 * 3600)
    [second] = await claim(database, now)
    assert (second.kind, second.person_id) == ("appointment.declined", pair.supervisor.id)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 30), (2, 90), (3, 270), (6, 7290), (7, 21870), (8, 28800), (60, 28800), (2000, 28800)],
)
def test_the_backoff_grows_threefold_up_to_eight_hours(attempts: int, seconds: float) -> None:
    delays = [THREEFOLD.delay(attempts).total_seconds() for _ in range(500)]
    assert min(delays) >= 0.75 * seconds
    assert max(delays) <= 1.25 * seconds
    assert max(delays) - min(delays) > 0.3 * seconds


async def test_a_mail_is_tried_ten_times_and_then_parked(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    states = []
    for attempt in range(1, 11):
        (claimed,) = await claim(database, now)
        assert claimed.attempts == attempt
        states.append(await fail(database, claimed, now))
        kept = await row(database, notice.id)
        assert 0.75 <= (kept.next_try_at - now) / min(3 ** (attempt - 1) * 30 * SECOND, timedelta(hours=8)) <= 1.25
        assert kept.error == "smtp_451"
        now = kept.next_try_at
    assert states == [State.PENDING] * 9 + [State.PARKED]
    assert await claim(database, now + timedelta(days=30)) == []


async def test_the_other_side_may_ask_for_more_patience(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    (claimed,) = await claim(database, now)
    await fail(database, claimed, now, retry_after=3600.0)
    assert (await row(database, notice.id)).next_try_at == now + timedelta(hours=1)


async def test_what_came_too_late_is_settled_and_not_sent(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    expiring = Notice(ana.id, Channel.MAIL, "sign_in", expires_at=now + timedelta(minutes=10))
    await enqueue(database, now, expiring)
    assert await claim(database, now + timedelta(minutes=10)) == []
    kept = await row(database, expiring.id)
    assert (kept.state, kept.settled_at) == (State.EXPIRED, now + timedelta(minutes=10))


async def test_what_came_too_late_keeps_no_words(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    details = {"lines": [["news.reason", {"reason": "hers"}]], "reason": "hers", "by": str(ana.id)}
    late = Notice(ana.id, Channel.MAIL, "reply", details, expires_at=now)
    await enqueue(database, now, late)
    assert await claim(database, now) == []
    assert (await row(database, late.id)).details == {"by": str(ana.id)}


async def test_a_parked_mail_is_tried_again_by_hand(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    (claimed,) = await claim(database, now)
    await fail(database, claimed, now, permanent=True)
    async with database.transaction() as tx:
        assert await notifications.retry(tx, notice.id, now=now) == 1
        with pytest.raises(NotFound):
            await notifications.retry(tx, notice.id, now=now)
    (claimed,) = await claim(database, now)
    assert claimed.attempts == 1


async def test_a_reason_leaves_with_the_settling(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    telling = Notice(ana.id, Channel.MAIL, "appointment.cancelled", {"by": str(ana.id), "reason": "of theirs"})
    await enqueue(database, now, telling)
    (claimed,) = await claim(database, now)
    assert claimed.details == {"by": str(ana.id), "reason": "of theirs"}
    await sent(database, claimed, now)
    assert (await row(database, telling.id)).details == {"by": str(ana.id)}


async def test_the_next_due_time_heeds_leases_and_retries(database: Database, now: datetime, notice: Notice) -> None:
    async def due() -> datetime | None:
        async with database.transaction() as tx:
            return await notifications.next_due(tx, Channel.MAIL, now=now)

    assert await due() is None
    await enqueue(database, now, notice)
    assert await due() == now
    (claimed,) = await claim(database, now)
    assert await due() == now + LEASE
    await fail(database, claimed, now)
    assert await due() == (await row(database, notice.id)).next_try_at


async def test_what_waits_behind_an_older_row_is_not_due(database: Database, now: datetime) -> None:
    """Else a loop would wake for it again and again, and find nothing that it may claim."""
    appointment = await book(database, await add_pair(database, now=now), now)
    (claimed,) = await claim(database, now)
    await fail(database, claimed, now)
    await enqueue(database, now, about(appointment, "later"))
    async with database.transaction() as tx:
        due = await notifications.next_due(tx, Channel.MAIL, now=now)
    assert due == (await row(database, claimed.id)).next_try_at


async def test_an_enqueued_mail_wakes_its_loop_at_the_commit(database: Database, now: datetime, notice: Notice) -> None:
    mail, matrix = asyncio.Event(), asyncio.Event()
    tasks = [
        asyncio.create_task(listen(database, "visavis_mail", mail)),
        asyncio.create_task(listen(database, "visavis_matrix", matrix)),
    ]
    try:
        for event in (mail, matrix):
            await asyncio.wait_for(event.wait(), 10)  # set once it listens
            event.clear()
        async with database.transaction() as tx:
            await notifications.enqueue(tx, [notice], now=now)
            await asyncio.sleep(0.1)
            assert not mail.is_set()
        await asyncio.wait_for(mail.wait(), 10)
        assert not matrix.is_set()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_lowest_priority_can_be_limited(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    kinds = [("a", LOW), ("b", LOW), ("c", NORMAL), ("d", LOW)]
    await enqueue(database, now, *(Notice(ana.id, Channel.MAIL, kind, priority=priority) for kind, priority in kinds))
    assert [one.kind for one in await claim(database, now, low=1)] == ["c", "a"]
    assert await claim(database, now, low=0) == []
    assert [one.kind for one in await claim(database, now, most=1, low=5)] == ["b"]


async def test_a_claim_goes_on_past_what_is_out_of_date(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    late = [Notice(ana.id, Channel.MAIL, "late", expires_at=now, priority=LOW) for _ in range(7)]
    await enqueue(database, now, *late, *(Notice(ana.id, Channel.MAIL, kind, priority=LOW) for kind in "abc"))
    assert [one.kind for one in await claim(database, now, most=3, low=2)] == ["a", "b"]
    assert {(await row(database, one.id)).state for one in late} == {State.EXPIRED}


async def test_a_lease_is_renewed_for_its_holder_alone(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    first = await claim(database, now)
    async with database.transaction() as tx:
        assert await notifications.renew(tx, first, LEASE, now=now + 30 * SECOND) == {notice.id}
    assert await claim(database, now + LEASE) == []
    second = await claim(database, now + 30 * SECOND + LEASE)
    async with database.transaction() as tx:
        assert await notifications.renew(tx, first, timedelta(days=1), now=now) == set()
    assert (await row(database, notice.id)).claimed_until == now + 30 * SECOND + 2 * LEASE
    assert [one.attempts for one in second] == [2]


async def test_what_is_given_back_was_never_tried(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    claimed = await claim(database, now)
    for _ in range(2):  # the second time it is nobody's, and nothing happens
        async with database.transaction() as tx:
            await notifications.give_back(tx, claimed, "smtp_connect")
    kept = await row(database, notice.id)
    assert (kept.attempts, kept.claimed_until, kept.error, kept.next_try_at) == (0, None, "smtp_connect", now)
    [again] = await claim(database, now)
    assert again.attempts == 1


async def test_who_lost_a_row_may_only_say_that_it_was_sent(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    [first] = await claim(database, now)
    later = now + LEASE
    [second] = await claim(database, later)
    before = await row(database, notice.id)
    await fail(database, first, later)
    async with database.transaction() as tx:
        await notifications.give_back(tx, [first])
        await notifications.postpone(tx, first, later + timedelta(days=1))
    assert await row(database, notice.id) == before
    async with database.transaction() as tx:
        await notifications.settle_all_sent(tx, [first.id], now=later)
    assert await fail(database, second, later, permanent=True) is State.PARKED  # what follows, were it not sent
    assert (await row(database, notice.id)).state == State.SENT
    async with database.transaction() as tx:
        await notifications.let_wait(tx, notice.id, now=now)  # or a summary would tell it once more
        await notifications.settle_superseded(tx, notice.id, now=later)
        await notifications.settle_unwanted(tx, notice.id, now=later)
    assert (await row(database, notice.id)).state == State.SENT


async def test_what_came_back_meanwhile_is_not_called_sent(database: Database, now: datetime, notice: Notice) -> None:
    await enqueue(database, now, notice)
    [claimed] = await claim(database, now)
    async with database.transaction() as tx:
        await tx.execute(update(table).values(state=State.PARKED, error="bounced_5.1.1"))
        await notifications.settle_all_sent(tx, [claimed.id], now=now)
    assert (await row(database, notice.id)).state == State.PARKED


async def test_what_is_postponed_holds_nothing_up(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    [request] = await claim(database, now)
    tomorrow = now + timedelta(hours=9)
    async with database.transaction() as tx:
        await notifications.postpone(tx, request, tomorrow)
    await enqueue(database, now, about(appointment, "news"))
    assert [one.kind for one in await claim(database, now)] == ["news"]
    kept = await row(database, request.id)
    assert (kept.attempts, kept.send_at, kept.next_try_at, kept.claimed_until) == (0, tomorrow, tomorrow, None)
    async with database.transaction() as tx:
        assert await notifications.next_due(tx, Channel.MAIL, now=now + 2 * LEASE) == now + LEASE  # of the news
    assert [one.kind for one in await claim(database, tomorrow)] == ["appointment.requested"]


async def test_what_is_unwanted_is_settled_without_its_words(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    notice = Notice(ana.id, Channel.MAIL, "appointment.confirmed", {"by": str(ana.id), "reason": "of theirs"})
    await enqueue(database, now, notice)
    await claim(database, now)
    async with database.transaction() as tx:
        await notifications.settle_unwanted(tx, notice.id, now=now)
    kept = await row(database, notice.id)
    assert (kept.state, kept.settled_at, kept.details) == (State.UNWANTED, now, {"by": str(ana.id)})
    assert await claim(database, now + timedelta(days=1)) == []


async def test_the_queue_is_told_by_state_and_priority(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    due = [Notice(ana.id, Channel.MAIL, "a", priority=priority) for priority in (HIGH, LOW, LOW)]
    later = Notice(ana.id, Channel.MAIL, "b", send_at=now + timedelta(hours=1))
    await enqueue(database, now, *due, later, Notice(ana.id, Channel.MATRIX, "c"))
    [first] = await claim(database, now, most=1)
    await fail(database, first, now, permanent=True)
    async with database.transaction() as tx:
        mail, matrix = await queries.queues(tx, now=now + 90 * SECOND)
    assert (mail.channel, mail.states) == ("mail", {"pending": 3, "parked": 1})
    assert mail.due == {HIGH: Due(), NORMAL: Due(), LOW: Due(2, 90.0)}
    assert (matrix.states, matrix.due[NORMAL]) == ({"pending": 1}, Due(1, 90.0))


FILL = """
    INSERT INTO notifications (id, person_id, channel, kind, details, priority, state, created_at, send_at, next_try_at,
        attempts, settled_at)
    SELECT gen_random_uuid(), :person, 'mail', 'sign_in', '{}', 1 + n % 3, :state, :now, :at, :at, 0, :now
    FROM generate_series(1, :count) AS n
"""


async def test_what_is_settled_or_for_later_is_not_looked_at(
    postgresql: PostgreSQL, database_name: str, database: Database, now: datetime
) -> None:
    """However much of it there is: the plan reads the index in its order, and neither sorts nor scans the table."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    tomorrow = now + timedelta(days=1)
    async with database.transaction() as tx:
        for state, at, count in (("sent", now, 20000), ("pending", now, 3000), ("pending", tomorrow, 3000)):
            values = {"person": ana.id, "state": state, "now": now, "at": at, "count": count}
            await tx.execute(text(FILL), values)
    owner = await asyncpg.connect(postgresql.url(database_name, "visavis_owner"))
    try:
        await owner.execute("ANALYZE notifications")
        values = {"channel": "mail", "now": now, "until": now + LEASE, "bot": None, "most": 5, "low": 3}
        for statement, most_rows in ((notifications.CLAIM, 5), (notifications.NEXT_DUE, 3003)):
            async with rolled_back(owner):
                given = [values[name] for name in statement.names]
                [[found]] = await owner.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", *given)
            nodes = list(walk(json.loads(found)[0]["Plan"]))
            read = [node for node in nodes if node.get("Alias", "").startswith("n") and "Index Name" in node]
            assert {node["Index Name"] for node in read} <= {"ix_notifications_due", "pk_notifications"}
            assert {node["Node Type"] for node in nodes} & {"Seq Scan", "Sort", "Incremental Sort"} == set()
            due = [node for node in read if node["Index Name"] == "ix_notifications_due"]
            assert sum(node["Actual Rows"] * node["Actual Loops"] for node in due) <= most_rows
    finally:
        await owner.close()


@contextlib.asynccontextmanager
async def rolled_back(connection: Any) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    yield
    await transaction.rollback()


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from walk(inner)

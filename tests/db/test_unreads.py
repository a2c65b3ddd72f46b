"""What is unread: one row and one mail until it is read, whatever is said meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, time, timedelta

import pytest
from sqlalchemy import select, update

from bridge import letters
from bridge.letters import HeldBack, Outdated, Unwanted, Writing
from supervision import bots, notifications, pairs, people, preferences, unreads
from supervision.audit import SYSTEM
from supervision.db import Database, Transaction
from supervision.errors import NotAllowed
from supervision.models import Channel, PairStatus, State, Topic
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.models import unreads as table
from supervision.notifications import LOW, Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import Preferences
from supervision.unreads import Kept, Unread
from tests.support.sample import add_pair, add_person

WAIT = timedelta(minutes=30)


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    return await add_pair(database, now=now)


async def write(database: Database, pair: Pair, sender: Person, event_id: str, now: datetime) -> Unread | None:
    async with database.transaction() as tx:
        found = await pairs.get(tx, pair.id)
        return await unreads.note_message(
            tx, found, sender.id, event_id, sent_at=now - timedelta(seconds=1), wait=WAIT, now=now
        )


async def read(database: Database, pair: Pair, person: Person, now: datetime) -> bool:
    async with database.transaction() as tx:
        return await unreads.note_read(tx, pair.id, person.id, now=now)


async def rows(database: Database) -> list[tuple[object, ...]]:
    query = select(table.c.pair_id, table.c.person_id, table.c.event_id, table.c.since_at)
    async with database.transaction() as tx:
        return [tuple(row) for row in await tx.execute(query)]


async def mails(database: Database) -> list[tuple[object, ...]]:
    """Of what is unread: other news of the pair's is none of these tests'."""
    query = (
        select(outbox.c.person_id, outbox.c.kind, outbox.c.details, outbox.c.priority, outbox.c.state)
        .where(outbox.c.kind == unreads.KIND)
        .order_by(outbox.c.position)
    )
    async with database.transaction() as tx:
        return [tuple(row) for row in await tx.execute(query)]


async def claim(database: Database, now: datetime) -> list[Notification]:
    async with database.transaction() as tx:
        claimed = await notifications.claim(tx, Channel.MAIL, now=now)
        return [one for one in claimed if one.kind == unreads.KIND]


async def load(database: Database, notification: Notification) -> letters.Letter:
    async with database.transaction() as tx:
        return await letters.load(tx, notification)


async def test_a_message_is_unread_for_the_other_and_has_one_mail_that_waits(
    database: Database, pair: Pair, now: datetime
) -> None:
    unread = await write(database, pair, pair.supervisee, "$one", now)
    assert unread == Unread(pair.id, pair.supervisor.id, "$one", now - timedelta(seconds=1))
    assert await rows(database) == [(pair.id, pair.supervisor.id, "$one", now - timedelta(seconds=1))]
    assert await mails(database) == [(pair.supervisor.id, "room.unread", {}, LOW, State.PENDING)]
    assert await claim(database, now + WAIT - timedelta(seconds=1)) == []
    [mail] = await claim(database, now + WAIT)
    assert (mail.person_id, mail.pair_id, mail.appointment_id) == (pair.supervisor.id, pair.id, None)


async def test_further_messages_change_nothing(database: Database, pair: Pair, now: datetime) -> None:
    first = await write(database, pair, pair.supervisee, "$one", now)
    assert await write(database, pair, pair.supervisee, "$two", now + timedelta(minutes=5)) == first
    assert len(await rows(database)) == len(await mails(database)) == 1


async def test_each_of_the_two_has_a_row_of_their_own(database: Database, pair: Pair, now: datetime) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    await write(database, pair, pair.supervisor, "$two", now)
    assert {row[1:3] for row in await rows(database)} == {
        (pair.supervisor.id, "$one"),
        (pair.supervisee.id, "$two"),
    }
    assert await read(database, pair, pair.supervisee, now)
    assert [row[1:3] for row in await rows(database)] == [(pair.supervisor.id, "$one")]


async def test_reading_takes_back_a_mail_that_nobody_tried(database: Database, pair: Pair, now: datetime) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    assert await read(database, pair, pair.supervisor, now)
    assert await rows(database) == await mails(database) == []
    assert not await read(database, pair, pair.supervisor, now)


async def test_reading_supersedes_a_mail_that_was_tried(database: Database, pair: Pair, now: datetime) -> None:
    """The mail server was away: it is not tried again, and what its failure settles later changes nothing."""
    await write(database, pair, pair.supervisee, "$one", now)
    later = now + WAIT
    [mail] = await claim(database, later)
    assert await read(database, pair, pair.supervisor, later)
    async with database.transaction() as tx:
        await notifications.settle_failed(tx, mail, "away", now=later, backoff=notifications.MATRIX_BACKOFF)
    assert [mail[-1] for mail in await mails(database)] == [State.SUPERSEDED]
    assert await claim(database, later + timedelta(days=1)) == []


async def test_reading_leaves_the_mail_that_was_sent_in_the_history(
    database: Database, pair: Pair, now: datetime
) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    [mail] = await claim(database, now + WAIT)
    async with database.transaction() as tx:
        await notifications.settle_sent(tx, mail.id, now=now + WAIT)
    assert await write(database, pair, pair.supervisee, "$two", now + WAIT) is not None
    assert [row[2] for row in await rows(database)] == ["$one"]  # no second mail until it is read
    assert await read(database, pair, pair.supervisor, now + WAIT)
    assert [mail[-1] for mail in await mails(database)] == [State.SENT]
    await write(database, pair, pair.supervisee, "$three", now + 2 * WAIT)
    assert [mail[-1] for mail in await mails(database)] == [State.SENT, State.PENDING]


async def test_a_mail_that_could_not_go_for_two_days_is_not_sent(database: Database, pair: Pair, now: datetime) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    assert await claim(database, now + WAIT + timedelta(days=2)) == []
    assert [mail[-1] for mail in await mails(database)] == [State.EXPIRED]


async def archive(tx: Transaction, pair: Pair, now: datetime) -> None:
    await pairs.archive(tx, SYSTEM, pair.id, now=now)


async def disable_writer(tx: Transaction, pair: Pair, now: datetime) -> None:
    await people.disable(tx, SYSTEM, pair.supervisee.id, now=now)


async def disable_reader(tx: Transaction, pair: Pair, now: datetime) -> None:
    await people.disable(tx, SYSTEM, pair.supervisor.id, now=now)


ENDS = pytest.mark.parametrize("end", [archive, disable_writer, disable_reader])
End = Callable[[Transaction, Pair, datetime], Awaitable[None]]


@ENDS
async def test_nobody_is_told_of_a_pair_that_has_ended(database: Database, pair: Pair, now: datetime, end: End) -> None:
    async with database.transaction() as tx:
        await end(tx, pair, now)
    assert await write(database, pair, pair.supervisee, "$one", now) is None
    assert await rows(database) == await mails(database) == []


async def test_an_archive_takes_the_mail_back(database: Database, pair: Pair, now: datetime) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    async with database.transaction() as tx:
        await archive(tx, pair, now)
    assert await rows(database) == await mails(database) == []


@pytest.mark.parametrize("end", [disable_writer, disable_reader])
async def test_a_mail_is_outdated_when_one_of_the_two_leaves(
    database: Database, pair: Pair, now: datetime, end: End
) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    async with database.transaction() as tx:
        await end(tx, pair, now)
    [mail] = await claim(database, now + WAIT)
    with pytest.raises(Outdated):
        await load(database, mail)


async def test_a_mail_is_outdated_when_it_is_read_after_the_claim(
    database: Database, pair: Pair, now: datetime
) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    [mail] = await claim(database, now + WAIT)
    letter = await load(database, mail)
    assert (letter.recipient.id, letter.subject) == (pair.supervisor.id, Writing(pair.supervisee))
    await read(database, pair, pair.supervisor, now + WAIT)
    with pytest.raises(Outdated):
        await load(database, mail)


async def judged(database: Database, notification: Notification, now: datetime) -> letters.Letter | Exception:
    async with database.transaction() as tx:
        [(_, found)] = await letters.load_all(tx, [notification], now=now)
        return found


async def wish(database: Database, person: Person, wishes: Preferences, now: datetime) -> None:
    async with database.transaction() as tx:
        await preferences.save(tx, SYSTEM, person.id, wishes, now=now)


async def test_quiet_hours_are_judged_when_it_is_due(database: Database, pair: Pair, now: datetime) -> None:
    """It is half past nine in São Paulo; at eleven Ana has still not read."""
    await write(database, pair, pair.supervisee, "$one", now)
    await wish(database, pair.supervisor, Preferences(quiet_from=time(9), quiet_until=time(11)), now)
    [mail] = await claim(database, now + WAIT)
    held = await judged(database, mail, now + WAIT)
    assert isinstance(held, HeldBack)
    assert held.until == now + timedelta(hours=2)
    async with database.transaction() as tx:
        await notifications.postpone(tx, mail, held.until)
    assert await claim(database, held.until - timedelta(seconds=1)) == []
    [mail] = await claim(database, held.until)
    assert isinstance(await judged(database, mail, held.until), letters.Letter)


async def test_a_mail_that_quiet_hours_hold_back_goes_when_it_is_read(
    database: Database, pair: Pair, now: datetime
) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    [mail] = await claim(database, now + WAIT)
    async with database.transaction() as tx:
        await notifications.postpone(tx, mail, now + timedelta(hours=2))
    assert await read(database, pair, pair.supervisor, now + timedelta(hours=1))
    assert await mails(database) == []


async def test_who_wants_no_such_mails_gets_none(database: Database, pair: Pair, now: datetime) -> None:
    await write(database, pair, pair.supervisee, "$one", now)
    unwanted = frozenset({(Channel.MAIL, Topic.UNREAD)})
    await wish(database, pair.supervisor, Preferences(unwanted=unwanted), now)
    [mail] = await claim(database, now + WAIT)
    assert isinstance(await judged(database, mail, now + WAIT), Unwanted)


async def test_archiving_at_the_same_moment_is_waited_for(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await tx.execute(
            update(pairs_table).where(pairs_table.c.id == pair.id).values(status=PairStatus.ARCHIVED, archived_at=now)
        )
        writing = asyncio.create_task(write(database, pair, pair.supervisee, "$one", now))
        assert await asyncio.wait([writing], timeout=0.2) == (set(), {writing})
    assert await writing is None


async def test_two_processes_that_hear_the_same_make_one_row(database: Database, pair: Pair, now: datetime) -> None:
    written = await asyncio.gather(*(write(database, pair, pair.supervisee, f"${n}", now) for n in range(8)))
    assert len(set(written)) == len(await rows(database)) == len(await mails(database)) == 1


async def test_only_the_two_write(database: Database, pair: Pair, now: datetime) -> None:
    stranger = await add_person(database, "Clara", ["supervisee"], now=now)
    with pytest.raises(NotAllowed):
        await write(database, pair, stranger, "$one", now)
    assert await rows(database) == []


async def test_a_bot_finds_what_is_open_in_its_active_rooms(database: Database, now: datetime) -> None:
    found = [await add_pair(database, now=now) for _ in range(3)]
    async with database.transaction() as tx:
        for number, pair in enumerate(found):
            bot = "@one:localhost" if number < 2 else "@two:localhost"
            await bots.register(tx, bot, "key", now=now)
            values = {"bot": bot, "room_id": f"!{number}:localhost"}
            await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(**values))
    for number, pair in enumerate(found):
        await write(database, pair, pair.supervisor, f"${number}", now)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, found[1].id, now=now)
        kept = await unreads.list_for_bot(tx, "@one:localhost")
    writer, reader = found[0].people
    unread = Unread(found[0].id, reader.id, "$0", now - timedelta(seconds=1))
    assert kept == [Kept("!0:localhost", reader.matrix_id or "", writer.matrix_id or "", unread)]

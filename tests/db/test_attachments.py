"""Which files are in a room, and what may be deleted of them."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from supervision import attachments, homeserver_tasks, pairs, seals
from supervision.attachments import Attachment
from supervision.db import Database, Transaction
from supervision.models import Task
from supervision.models import attachments as table
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import add_pair

SECRET = "a secret of the tests"
SERVER = "example.org"
ONE, TWO, THREE = (f"mxc://example.org/{name}" for name in ("one", "two", "three"))


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    return await add_pair(database, now=now)


async def note(
    tx: Transaction, event_id: str, pair: Pair, who: Person, at: datetime, *media: str, refused: str | None = None
) -> bool:
    locked = None if refused else seals.lock(SECRET, f"{event_id}.pdf")
    return await attachments.note(
        tx,
        event_id,
        pair.id,
        who.id,
        media=media,
        locked_name=locked,
        type="application/pdf",
        size=7,
        sent_at=at,
        refused=refused,
    )


async def test_files_are_listed_newest_first_once(database: Database, pair: Pair, now: datetime) -> None:
    later = now + timedelta(minutes=1)
    async with database.transaction() as tx:
        assert await note(tx, "$1", pair, pair.supervisee, now, ONE) is True
        assert await note(tx, "$1", pair, pair.supervisee, now, ONE) is False
        assert await note(tx, "$2", pair, pair.supervisor, later, TWO, THREE) is True
        assert await note(tx, "$3", pair, pair.supervisee, later, "mxc://example.org/bad", refused="program") is True
        found = await attachments.list_of(tx, pair.id)
        assert [(one.event_id, one.person_id, one.name(SECRET), one.type, one.bytes, one.sent_at) for one in found] == [
            ("$2", pair.supervisor.id, "$2.pdf", "application/pdf", 7, later),
            ("$1", pair.supervisee.id, "$1.pdf", "application/pdf", 7, now),
        ]
        assert found[0].name("another secret") is None
        assert [one.event_id for one in await attachments.list_of(tx, pair.id, most=1)] == ["$2"]
        assert [await attachments.is_noted(tx, event) for event in ("$1", "$3", "$4")] == [True, True, False]


async def test_a_refused_file_is_open_until_it_is_redacted(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await note(tx, "$1", pair, pair.supervisee, now, ONE, refused="off")
        await note(tx, "$2", pair, pair.supervisee, now, TWO)
        assert [await attachments.is_open_breach(tx, event) for event in ("$1", "$2")] == [True, False]
        await attachments.note_removed(tx, "$1", now=now)
        assert await attachments.is_open_breach(tx, "$1") is False


async def test_only_who_sent_a_file_takes_it_back_and_once(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await note(tx, "$1", pair, pair.supervisee, now, ONE, TWO)
        assert await attachments.take_back(tx, "$1", pair.supervisor.id, now=now) is None
        assert await attachments.take_back(tx, "$2", pair.supervisee.id, now=now) is None
        bruno = [pair.supervisee.matrix_id]
        assert await attachments.take_back(tx, "$1", pair.supervisee.id, now=now) == {ONE: bruno, TWO: bruno}
        assert await attachments.take_back(tx, "$1", pair.supervisee.id, now=now) is None
        assert await attachments.list_of(tx, pair.id) == []
        assert list(await tx.scalars(select(table.c.name))) == [None]


async def test_nobody_has_a_file_deleted_that_another_message_shows(
    database: Database, pair: Pair, now: datetime
) -> None:
    """Bruno sends Ana's file again, and takes it back or breaks a rule with it: hers stays."""
    ana, bruno = (one.matrix_id for one in pair.people)
    async with database.transaction() as tx:
        await note(tx, "$ana", pair, pair.supervisor, now, ONE)
        await note(tx, "$bruno", pair, pair.supervisee, now, ONE, TWO)
        assert await attachments.take_back(tx, "$bruno", pair.supervisee.id, now=now) == {TWO: [bruno]}
        await note(tx, "$worse", pair, pair.supervisee, now, ONE, THREE, refused="program")
        assert await attachments.unused(tx, [ONE, THREE, THREE]) == {THREE: [bruno]}
        found = await attachments.take_back(tx, "$ana", pair.supervisor.id, now=now)
        assert found is not None
        assert {mxc: sorted(map(str, who)) for mxc, who in found.items()} == {ONE: sorted([str(ana), str(bruno)])}
        assert await attachments.unused(tx, []) == {}


async def test_what_is_older_than_a_time_is_forgotten(database: Database, pair: Pair, now: datetime) -> None:
    other = await add_pair(database, now=now)
    early, late = now - timedelta(days=9), now - timedelta(days=1)
    bruno = pair.supervisee.matrix_id
    async with database.transaction() as tx:
        await note(tx, "$1", pair, pair.supervisee, early, ONE, TWO)
        await note(tx, "$2", pair, pair.supervisee, late, TWO)
        await note(tx, "$3", pair, pair.supervisee, early, THREE, refused="off")
        await note(tx, "$4", other, other.supervisee, early, "mxc://example.org/theirs")
        free = await attachments.remove_before(tx, pair.id, now - timedelta(days=5), now=now)
        assert free == {ONE: [bruno], THREE: [bruno]}
        kept = await attachments.list_of(tx, pair.id)
        assert [one.event_id for one in kept] == ["$2"]
        assert isinstance(kept[0], Attachment)
        assert len(await attachments.list_of(tx, other.id)) == 1
        assert await attachments.remove_all(tx, other.id, now=now) == {
            "mxc://example.org/theirs": [other.supervisee.matrix_id]
        }
        assert await attachments.list_of(tx, other.id) == []


async def test_who_sent_a_file_is_known_until_its_last_message_goes(
    database: Database, pair: Pair, now: datetime
) -> None:
    """Bruno forwards Ana's file: when his message goes, too, the file goes as hers."""
    ana, bruno = (one.matrix_id for one in pair.people)
    async with database.transaction() as tx:
        await note(tx, "$ana", pair, pair.supervisor, now - timedelta(days=9), ONE)
        await note(tx, "$bruno", pair, pair.supervisee, now - timedelta(days=1), ONE)
        assert await attachments.remove_before(tx, pair.id, now - timedelta(days=5), now=now) == {}
        assert [one.event_id for one in await attachments.list_of(tx, pair.id)] == ["$bruno"]
        names = await tx.execute(select(table.c.event_id, table.c.name.is_(None)).order_by(table.c.event_id))
        assert [tuple(row) for row in names] == [("$ana", True), ("$bruno", False)]
        assert await attachments.remove_before(tx, pair.id, now, now=now) == {ONE: [ana, bruno]}
        assert list(await tx.scalars(select(table.c.event_id))) == []


async def test_who_sent_a_file_is_known_after_their_room_is_removed(
    database: Database, pair: Pair, now: datetime
) -> None:
    """Ana forwards Bruno's file to Clara: when that goes, too, the file goes as his, whose room is no more."""
    clara = await add_pair(database, supervisor=pair.supervisor, now=now)
    ana, bruno = (one.matrix_id for one in pair.people)
    async with database.transaction() as tx:
        await note(tx, "$bruno", pair, pair.supervisee, now - timedelta(days=9), ONE)
        await note(tx, "$other", pair, pair.supervisee, now - timedelta(days=8), TWO)
        await note(tx, "$ana", clara, pair.supervisor, now - timedelta(days=1), ONE)
        assert await attachments.remove_all(tx, pair.id, now=now) == {TWO: [bruno]}
        await pairs.forget_room(tx, pair.id, now=now)
        left = await tx.execute(select(table.c.event_id, table.c.name.is_(None)).order_by(table.c.event_id))
        assert [tuple(row) for row in left] == [("$ana", False), ("$bruno", True)]
        assert await attachments.remove_before(tx, clara.id, now, now=now) == {ONE: [bruno, ana]}
        assert list(await tx.scalars(select(table.c.event_id))) == []


async def test_only_what_lies_on_our_homeserver_is_given_away(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await attachments.give_away(tx, pair.id, {"mxc://elsewhere.org/one": ["@x:elsewhere.org"]}, SERVER, now=now)
        assert await homeserver_tasks.claim(tx, now=now) is None
        free = {"mxc://elsewhere.org/one": ["@x:elsewhere.org"], ONE: ["@ana:example.org"]}
        await attachments.give_away(tx, pair.id, free, SERVER, now=now)
        task = await homeserver_tasks.claim(tx, now=now)
        assert task is not None
        assert (task.kind, task.pair_id) == (Task.REMOVE_MEDIA, pair.id)
        assert task.details == {"media": {ONE: ["@ana:example.org"]}}

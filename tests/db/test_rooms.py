"""A room's settings: what holds, who may change it, and how the two are told."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from bot.news import compose
from supervision import bots, jobs, notifications, pairs, people, rooms, unreads
from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import NotAllowed, NotFound, NotUnderstood, PairArchived
from supervision.models import Channel, Consent, FileKind, PairStatus, audit_entries
from supervision.models import notifications as outbox
from supervision.models import pairs as table
from supervision.pairs import Pair
from supervision.rooms import RoomSettings
from supervision.texts import from_json, reader, to_json
from tests.support.sample import acts, add_pair, add_person
from tests.support.talking import Room

OPERATOR = Actor(None, "cli")
DEFAULTS = RoomsConfig()
USUAL = RoomSettings(
    attachments=True,
    kinds=frozenset({FileKind.IMAGE, FileKind.AUDIO, FileKind.PDF, FileKind.DOCUMENT, FileKind.TEXT}),
    megabytes=25,
    retention_days=0,
    unread_minutes=None,
    export_consent=Consent.BOTH,
    expires_on=None,
)


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    ana = await add_person(database, "Ana", ["supervisor"], now=now, language="en")
    return await add_pair(database, now=now, supervisor=ana)


@pytest.fixture
def room(database: Database, pair: Pair, now: datetime) -> Room:
    return Room(database, pair, now)


async def settle(database: Database, actor: Actor, pair: Pair, now: datetime, **changes: Any) -> RoomSettings:
    async with database.transaction() as tx:
        given = await rooms.settle(tx, actor, pair.id, changes, DEFAULTS, now=now)
    async with database.transaction() as tx:
        assert await rooms.of(tx, pair.id, DEFAULTS) == given
    return given


async def told(database: Database, pair: Pair, now: datetime) -> list[tuple[str, list[str]]]:
    """Who is told what in the room."""
    async with database.transaction() as tx:
        found = await notifications.claim(tx, Channel.MATRIX, now=now, most=9, bot=pair.bot or "")
        said = []
        for one in found:
            person = pair.member(one.person_id)
            says = reader(person.language, person.time_zone).as_of(now)
            message = await compose(tx, one, pair, now=now)
            assert message is not None
            assert message.mentions == (person,)
            lines = [says.say(line.key, **from_json(to_json(line.params))) for line in message.lines]
            said.append((person.name, lines))
        return said


async def with_room(database: Database, pair: Pair, now: datetime) -> Pair:
    async with database.transaction() as tx:
        await bots.register(tx, "@visavis:example.org", "key", now=now)
        await tx.execute(update(table).where(table.c.id == pair.id).values(bot="@visavis:example.org", room_id="!r"))
        return await pairs.get(tx, pair.id)


async def test_the_configuration_holds_until_a_pair_has_its_own(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        assert await rooms.of(tx, pair.id, DEFAULTS) == USUAL
        stricter = RoomsConfig(attachments=False, retention_days=30)
        assert await rooms.of(tx, pair.id, stricter) == RoomSettings(
            False, USUAL.kinds, 25, 30, None, Consent.BOTH, None
        )
    changes = {
        "attachments": False,
        "kinds": ["pdf", "image"],
        "megabytes": 10,
        "retention_days": 90,
        "unread_minutes": 0,
        "export_consent": "one",
        "expires_on": date(2027, 12, 31),
    }
    own = frozenset(changes)
    kinds = frozenset({FileKind.PDF, FileKind.IMAGE})
    settled = await settle(database, OPERATOR, pair, now, **changes)
    assert settled == RoomSettings(False, kinds, 10, 90, 0, Consent.ONE, date(2027, 12, 31), own)
    assert settled.ordered_kinds == (FileKind.IMAGE, FileKind.PDF)
    assert settled.most_bytes == 10 * 1024 * 1024
    assert await settle(database, OPERATOR, pair, now, **dict.fromkeys(changes)) == USUAL
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await rooms.of(tx, pair.supervisor.id, DEFAULTS)


async def test_the_supervisor_an_admin_and_the_operator_may(database: Database, pair: Pair, now: datetime) -> None:
    admin = await add_person(database, "Iris", ["admin"], now=now)
    other = await add_person(database, "Olga", ["supervisor"], now=now)
    for actor in (acts(pair.supervisor), acts(admin), OPERATOR):
        await settle(database, actor, pair, now, attachments=None)
    for nobody in (pair.supervisee, other):
        with pytest.raises(NotAllowed):
            await settle(database, acts(nobody), pair, now, attachments=False)


async def test_that_one_word_is_enough_for_a_copy_is_the_practice_s_to_say(
    database: Database, pair: Pair, now: datetime
) -> None:
    ana = acts(pair.supervisor)
    admin = acts(await add_person(database, "Iris", ["admin"], now=now))
    with pytest.raises(NotAllowed, match=r"^refused\.export_consent$"):
        await settle(database, ana, pair, now, export_consent="one")
    for actor in (admin, OPERATOR):
        assert (await settle(database, actor, pair, now, export_consent="one")).export_consent is Consent.ONE
        assert (await settle(database, ana, pair, now, export_consent="one")).export_consent is Consent.ONE
        assert (await settle(database, ana, pair, now, export_consent=None)).export_consent is Consent.BOTH
    lenient = RoomsConfig(export_consent=Consent.ONE)
    async with database.transaction() as tx:  # what she made stricter herself stays so, too, until an admin says so
        await rooms.settle(tx, ana, pair.id, {"export_consent": "both"}, lenient, now=now)
        with pytest.raises(NotAllowed):
            await rooms.settle(tx, ana, pair.id, {"export_consent": None}, lenient, now=now)
        settled = await rooms.settle(tx, ana, pair.id, {"megabytes": 7}, lenient, now=now)
        assert (settled.export_consent, settled.megabytes) == (Consent.BOTH, 7)


async def test_who_was_disabled_settles_nothing(database: Database, pair: Pair, now: datetime) -> None:
    admin = await add_person(database, "Iris", ["admin"], now=now)
    for gone in (pair.supervisor, admin):
        async with database.transaction() as tx:
            await people.disable(tx, OPERATOR, gone.id, now=now)
        with pytest.raises(NotAllowed) as refused:
            await settle(database, acts(gone), pair, now, export_consent="one")
        assert refused.value.key == "refused.supervisor_settles"


async def test_who_was_disabled_is_told_nothing(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await people.disable(tx, OPERATOR, pair.supervisee.id, now=now)
    await settle(database, OPERATOR, pair, now, megabytes=5)
    async with database.transaction() as tx:
        readers = await tx.scalars(select(outbox.c.person_id).where(outbox.c.kind == rooms.KIND))
        assert list(readers) == [pair.supervisor.id]


async def test_a_change_as_the_pair_is_archived_comes_before_it_or_is_refused(
    database: Database, pair: Pair, now: datetime
) -> None:
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        late = asyncio.create_task(settle(database, OPERATOR, pair, now, attachments=False))
        await asyncio.sleep(0.2)  # it has come as far as it comes
    with pytest.raises(PairArchived):
        await late


async def test_a_last_day_put_off_as_it_ends_holds(database: Database, pair: Pair, now: datetime) -> None:
    await settle(database, OPERATOR, pair, now, expires_on=now.date())
    after = now + timedelta(days=1)
    async with database.transaction() as tx:
        later = {"expires_on": now.date() + timedelta(days=90)}
        await rooms.settle(tx, OPERATOR, pair.id, later, DEFAULTS, now=after)
        expiring = asyncio.create_task(jobs.run_once(database, "expire_pairs", now=after))
        await asyncio.sleep(0.2)
    assert await expiring
    async with database.transaction() as tx:
        assert (await pairs.get(tx, pair.id)).status is PairStatus.ACTIVE


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"attachments": 1}, "refused.setting"),
        ({"export_consent": ["one"]}, "refused.setting"),
        ({"kinds": []}, "refused.kinds"),
        ({"kinds": ["rocket"]}, "refused.kinds"),
        ({"megabytes": 0}, "refused.megabytes"),
        ({"megabytes": 1001}, "refused.megabytes"),
        ({"megabytes": True}, "refused.megabytes"),
        ({"retention_days": -1}, "refused.retention_days"),
        ({"retention_days": 3651}, "refused.retention_days"),
        ({"unread_minutes": 10_081}, "refused.unread_minutes"),
        ({"export_consent": "three"}, "refused.setting"),
        ({"expires_on": "2027-12-31"}, "refused.setting"),
        ({"expires_on": date(2020, 1, 1)}, "refused.expiry_past"),
        ({"colour": "red"}, "refused.setting"),
    ],
)
async def test_what_makes_no_sense(
    database: Database, pair: Pair, now: datetime, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(NotUnderstood) as refused:
        await settle(database, acts(pair.supervisor), pair, now, **changes)
    assert refused.value.key == key


async def test_of_a_closed_room_only_what_still_matters(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(table).where(table.c.id == pair.id).values(status=PairStatus.ARCHIVED))
    await settle(database, OPERATOR, pair, now, export_consent="one")
    settled = await settle(database, acts(pair.supervisor), pair, now, retention_days=30, export_consent="both")
    assert (settled.retention_days, settled.export_consent) == (30, Consent.BOTH)
    with pytest.raises(PairArchived):
        await settle(database, acts(pair.supervisor), pair, now, retention_days=10, attachments=False)


async def test_whoever_did_not_do_it_is_told_in_the_room(database: Database, pair: Pair, now: datetime) -> None:
    pair = await with_room(database, pair, now)
    await settle(database, acts(pair.supervisor), pair, now, megabytes=5, retention_days=90)
    assert await told(database, pair, now) == [
        (
            "Bruno",
            [
                "Ana changed what holds in this room:",
                "- Files: images, audio, PDF, documents, and text, up to 5 MB each",
                "- Messages and files stay for 90 days, then they are removed",
                _removal(pair, now, 90),
            ],
        )
    ]


async def test_both_are_told_what_an_admin_did(database: Database, pair: Pair, now: datetime) -> None:
    pair = await with_room(database, pair, now)
    admin = await add_person(database, "Iris", ["admin"], now=now)
    await settle(database, acts(admin), pair, now, unread_minutes=0, export_consent="one", expires_on=date(2027, 1, 9))
    lines = [
        "What holds in this room has changed:",
        "- An unread message: no mail says so",
        "- Taking a copy of the room home: each may, without asking the other",
        "- The room closes after Sat 9 Jan 2027",
    ]
    assert sorted(await told(database, pair, now)) == [("Ana", lines), ("Bruno", lines)]


async def test_nothing_is_told_or_audited_that_is_so_already(database: Database, pair: Pair, now: datetime) -> None:
    await settle(database, acts(pair.supervisor), pair, now, attachments=None, expires_on=None)
    async with database.transaction() as tx:
        assert await tx.scalar(select(outbox.c.id).where(outbox.c.kind == rooms.KIND)) is None
        assert await tx.scalar(select(audit_entries.c.id).where(audit_entries.c.action == "room.settle")) is None
    await settle(database, acts(pair.supervisor), pair, now, attachments=True)  # the same, but settled
    async with database.transaction() as tx:
        assert await tx.scalar(select(outbox.c.id).where(outbox.c.kind == rooms.KIND)) is None
        assert await tx.scalar(select(audit_entries.c.id).where(audit_entries.c.action == "room.settle")) is not None


@pytest.mark.parametrize(
    ("before", "after", "removes"),
    [(0, 0, False), (0, 90, True), (90, 0, False), (90, 90, False), (30, 90, False), (90, 30, True)],
)
def test_only_fewer_days_remove_something(before: int, after: int, removes: bool, now: datetime) -> None:
    settings = [RoomSettings(True, USUAL.kinds, 25, days, None, Consent.BOTH, None) for days in (before, after)]
    since = now + timedelta(days=3)
    expected = (since, since - timedelta(days=after)) if removes else None
    assert rooms.removal(*settings, now=now) == expected


async def test_no_mail_waits_for_what_is_unread_where_there_is_to_be_none(
    database: Database, pair: Pair, now: datetime
) -> None:
    usual = timedelta(minutes=30)
    async with database.transaction() as tx:
        assert await rooms.unread_wait(tx, pair.id, usual) == usual
        await unreads.note_message(tx, pair, pair.supervisor.id, "$1", wait=usual, now=now)
        assert await tx.scalar(select(outbox.c.id).where(outbox.c.kind == unreads.KIND)) is not None
    await settle(database, acts(pair.supervisor), pair, now, unread_minutes=0)
    async with database.transaction() as tx:
        assert await rooms.unread_wait(tx, pair.id, usual) == timedelta(0)
        assert await tx.scalar(select(outbox.c.id).where(outbox.c.kind == unreads.KIND)) is None


async def test_the_supervisor_changes_a_setting_by_its_code(room: Room) -> None:
    assert await room.ana("!settings attachments images, pdf") == [
        "Now:",
        "- Files: images, audio, PDF, documents, and text, up to 25 MB each",
        "Then:",
        "- Files: images and PDF, up to 25 MB each",
        "This holds for this room.",
        f"Is that right? Type !settings {room.code}. Until then nothing changes.",
    ]
    assert await room.ana(f"!settings {room.code}") == [
        "Changed. What holds now:",
        "- Files: images and PDF, up to 25 MB each",
    ]
    shown = await room.hear("!settings")
    assert "- Files: images and PDF, up to 25 MB each" in shown
    assert await room.ana("!settings attachments yes") == ["It is so already. Nothing was changed."]


async def test_what_goes_is_said_before_it_is_agreed_to(room: Room) -> None:
    goes = _removal(room.pair, room.now, 90)
    assert await room.ana("!configurar retencao 90 dias") == [
        "Now:",
        "- Messages and files stay without a limit",
        "Then:",
        "- Messages and files stay for 90 days, then they are removed",
        goes,
        "This holds for this room.",
        f"Is that right? Type !settings {room.code}. Until then nothing changes.",
    ]
    assert (await room.ana(f"!settings {room.code}"))[-1] == goes


async def test_the_last_day_is_settled_and_taken_back(room: Room) -> None:
    await room.ana("!settings expires 31/12/2027")
    assert await room.ana(f"!settings {room.code}") == [
        "Changed. What holds now:",
        "- The room closes after Fri 31 Dec 2027",
    ]
    await room.ana("!settings expires never")
    assert await room.ana(f"!settings {room.code}") == [
        "Changed. What holds now:",
        "- The room has no date on which it closes",
    ]


async def test_only_the_supervisor_changes_settings(room: Room) -> None:
    assert await room.hear("!settings attachments no") == [
        "It is the supervisor who settles that. Nothing was changed."
    ]


def _removal(pair: Pair, now: datetime, days: int) -> str:
    says = reader("en", pair.supervisor.time_zone).as_of(now)
    since = now + timedelta(days=3)
    return (
        f"From {says.day(since)} on, what was written up to {says.dated(since - timedelta(days=days))} will be removed"
        " for good, files too. The room says so three days before."
    )

"""A new room for a pair whose own is gone: what goes on, what is kept apart, what ends."""

import asyncio
import uuid
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from supervision import (
    appointments,
    attachments,
    bots,
    exports,
    homeserver_tasks,
    memberships,
    notifications,
    pairs,
    questions,
    renewals,
    retention,
    seals,
    unreads,
)
from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.errors import NotAllowed, NotFound, NotUnderstood, PairArchived, Refused
from supervision.models import Channel, Consent, ExportState, Fault, PairStatus, Question, Task, audit_entries
from supervision.models import exports as exports_table
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.models import questions as questions_table
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.questions import Asked
from supervision.retention import Announcement
from tests.support.sample import acts, add_pair, add_person

BOT = "@visavis:example.org"
OPERATOR = Actor(None, "cli")
TUESDAY = datetime.fromisoformat("2026-11-24T13:00:00+00:00")
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def whole(database: Database, now: datetime) -> Pair:
    """Ana and Bruno, whose room is there."""
    made = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await bots.register(tx, BOT, "key", now=now)
        settled = {"room_id": "!old:example.org", "bot": BOT, "retention_days": 30, "attachment_megabytes": 7}
        settled |= {"retained_since": now - timedelta(days=40), "held_at": now, "supervisee_introduced_at": now}
        await tx.execute(update(pairs_table).values(**settled))
        return await pairs.get(tx, made.id)


@pytest.fixture
async def pair(database: Database, whole: Pair, now: datetime) -> Pair:
    """Ana and Bruno, whose room is gone."""
    return await lose(database, whole, now)


async def lose(database: Database, pair: Pair, now: datetime) -> Pair:
    """The bot is not in the pair's room any more."""
    async with database.transaction() as tx:
        await pairs.set_fault(tx, pair, Fault.GONE, now=now)
        return await pairs.get(tx, pair.id)


async def renew(database: Database, pair: Pair, now: datetime, actor: Actor = OPERATOR) -> tuple[Pair, Pair]:
    """The pair, and what is kept of its old room."""
    async with database.transaction() as tx:
        kept = await renewals.renew_room(tx, actor, pair.id, now=now)
        return await pairs.get(tx, pair.id), await pairs.get(tx, kept)


async def test_the_pair_goes_on_and_its_old_room_is_kept_apart(database: Database, pair: Pair, now: datetime) -> None:
    people = {person.matrix_id or "": "join" for person in pair.people}
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisee), pair, TUESDAY, now=now)
        await tx.execute(update(pairs_table).values(export_consent=Consent.BOTH))
        await memberships.note(tx, pair, people, [], now=now)
        await attachments.note(
            tx,
            "$file",
            pair.id,
            pair.supervisor.id,
            media=["mxc://example.org/x"],
            locked_name=seals.lock(SECRET, "x"),
            type="image/png",
            size=1,
            sent_at=now,
        )
        announcement = Announcement(now, now - timedelta(days=20), 30)
        await retention.announce(tx, pair, announcement, now=now)
        before = await retention.standing_of(tx, pair, RoomsConfig(), now=now)
    later = now + timedelta(hours=1)
    renewed, kept = await renew(database, pair, later)
    assert (renewed.status, renewed.room_id, renewed.fault, renewed.held_at) == (PairStatus.ACTIVE, None, None, now)
    assert (renewed.bot, renewed.supervisee_introduced_at) == (BOT, None)
    assert (kept.status, kept.archived_at, kept.bot) == (PairStatus.ARCHIVED, later, BOT)
    assert (kept.room_id, kept.room_token, kept.fault, kept.held_at) == (
        "!old:example.org",
        pair.room_token,
        Fault.GONE,
        now,
    )
    assert renewed.room_token != pair.room_token
    async with database.transaction() as tx:
        assert await pairs.by_room(tx, "!old:example.org") == kept
        assert (await appointments.get(tx, acts(pair.supervisee), booked.id)).pair_id == renewed.id
        assert {pair_id for pair_id, _ in await memberships.of(tx, [renewed.id, kept.id])} == {kept.id}
        assert {await exports.consent(tx, one.id, Consent.ONE) for one in (renewed, kept)} == {Consent.BOTH}
        assert [len(await attachments.list_of(tx, one.id)) for one in (renewed, kept)] == [0, 1]
        assert await retention.standing_of(tx, kept, RoomsConfig(), now=now) == before
        fresh = await retention.standing_of(tx, renewed, RoomsConfig(), now=now)
        assert (fresh.days, fresh.announced, fresh.retained_since) == (30, None, None)
        megabytes = select(pairs_table.c.attachment_megabytes).where(pairs_table.c.id == renewed.id)
        assert await tx.scalar(megabytes) == 7
        mails = (
            select(people_table.c.name, outbox.c.channel, outbox.c.pair_id)
            .join(people_table, people_table.c.id == outbox.c.person_id)
            .where(outbox.c.kind == "pair.renewed")
            .order_by(people_table.c.name)
        )
        told = [(name, "mail", renewed.id) for name in ("Ana", "Bruno")]
        assert [tuple(row) for row in await tx.execute(mails)] == told


async def test_files_that_wait_for_the_old_room_s_hold_to_end_wait_for_it_alone(
    database: Database, pair: Pair, now: datetime
) -> None:
    media = {"mxc://example.org/x": ["@bruno:example.org"]}
    async with database.transaction() as tx:
        await attachments.give_away(tx, pair.id, media, "example.org", now=now)
        done = await homeserver_tasks.put(tx, Task.REMOVE_MEDIA, pair_id=pair.id, now=now)
        await homeserver_tasks.settle(tx, done, now=now)
    renewed, kept = await renew(database, pair, now)
    async with database.transaction() as tx:
        await pairs.release(tx, OPERATOR, renewed.id, now=now)
        task = await homeserver_tasks.claim(tx, now=now)
        assert task is not None
        assert (task.details, task.pair_id) == ({"media": media}, kept.id)
        assert (await homeserver_tasks.get(tx, done)).pair_id == renewed.id


async def test_it_is_made_once_and_only_where_the_room_is_gone(database: Database, pair: Pair, now: datetime) -> None:
    eva = await add_person(database, "Eva", ["admin"], now=now)
    for person in pair.people:
        with pytest.raises(NotAllowed):
            await renew(database, pair, now, acts(person))
    pressed = await asyncio.gather(*(renew(database, pair, now, acts(eva)) for _ in range(4)), return_exceptions=True)
    refused = [one.key for one in pressed if isinstance(one, Refused)]
    assert (len(pressed), refused) == (4, ["refused.room_not_gone"] * 3)
    async with database.transaction() as tx:
        assert len(await pairs.list_all(tx)) == 2
        rows = await tx.execute(
            select(audit_entries.c.action, audit_entries.c.actor_id, audit_entries.c.reason).where(
                audit_entries.c.action.in_(("pair.renew_room", "pair.set_apart"))
            )
        )
        assert {tuple(row) for row in rows} == {
            ("pair.renew_room", eva.id, None),
            ("pair.set_apart", eva.id, str(pair.id)),
        }
        await pairs.set_room(tx, pair.id, "!new:example.org")
        for fault in set(Fault) - renewals.LOST:
            await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(fault=fault, fault_at=now))
            with pytest.raises(NotUnderstood, match=r"refused\.room_not_gone"):
                await renewals.renew_room(tx, OPERATOR, pair.id, now=now)
        await tx.execute(update(pairs_table).where(pairs_table.c.id == pair.id).values(fault=Fault.GONE))
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
        with pytest.raises(PairArchived):
            await renewals.renew_room(tx, OPERATOR, pair.id, now=now)


@pytest.mark.parametrize("fault", [Fault.NOT_ENCRYPTED, Fault.NOT_OURS, Fault.REFUSED])
async def test_a_room_in_which_the_bot_must_not_speak_is_replaced_too(
    database: Database, whole: Pair, now: datetime, fault: Fault
) -> None:
    async with database.transaction() as tx:
        await pairs.set_fault(tx, whole, fault, now=now)
    renewed, kept = await renew(database, whole, now)
    assert (renewed.status, renewed.room_id, renewed.fault) == (PairStatus.ACTIVE, None, None)
    assert (kept.status, kept.room_id, kept.fault) == (PairStatus.ARCHIVED, "!old:example.org", fault)
    async with database.transaction() as tx:  # the bot is still there to read it
        copy = await exports.ask(tx, acts(kept.supervisee), kept.id, default=Consent.ONE, now=now)
    assert copy is not None


async def test_what_spoke_of_the_old_room_alone_ends(database: Database, whole: Pair, now: datetime) -> None:
    pair = whole
    async with database.transaction() as tx:
        making = await exports.ask(tx, acts(pair.supervisee), pair.id, default=Consent.ONE, now=now)
        done = await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now)
        assert making is not None
        assert done is not None
        await exports.finish(tx, done, pair, events=0, now=now)
        await unreads.note_message(tx, pair, pair.supervisor.id, "$x", wait=timedelta(minutes=30), now=now, messages=1)
        said = Notice(pair.supervisor.id, Channel.MATRIX, "room.introduction", {"people": []}, pair_id=pair.id)
        news = Notice(pair.supervisor.id, Channel.MATRIX, "pair.reopened", {"by": None}, pair_id=pair.id)
        await notifications.enqueue(tx, [said, news], now=now)
        await notifications.let_wait(tx, news.id, now=now)
        asked = Asked(said.id, pair.id, pair.supervisor.id, Question.AGREE_EXPORT, now + timedelta(days=1), code="1234")
        await questions.put(tx, asked, now=now)
    renewed, _ = await renew(database, await lose(database, pair, now), now)
    async with database.transaction() as tx:
        assert (await exports.get(tx, making.id)).state is ExportState.FAILED
        assert (await exports.get(tx, done.id)).pair_id == renewed.id
        assert (await exports.to_fetch(tx, acts(pair.supervisor), done.id, now=now)).state is ExportState.READY
        assert await unreads.counts(tx, pair.supervisee.id) == {}
        assert await tx.scalar(select(func.count()).select_from(questions_table)) == 0
        states = select(outbox.c.kind, outbox.c.state).where(outbox.c.id.in_((said.id, news.id)))
        assert {tuple(row) for row in await tx.execute(states)} == {
            ("room.introduction", "superseded"),
            ("pair.reopened", "waiting"),
        }


async def test_a_look_that_was_under_way_leaves_the_new_room_alone(
    database: Database, pair: Pair, now: datetime
) -> None:
    renewed, kept = await renew(database, pair, now)
    mails = select(func.count()).where(outbox.c.kind == "room.fault")
    async with database.transaction() as tx:
        before = await tx.scalar(mails)
        assert not await pairs.set_fault(tx, pair, Fault.GONE, now=now + timedelta(days=2))
        assert (await pairs.get(tx, renewed.id)).fault is None
        assert not await pairs.set_fault(tx, kept, Fault.GONE, now=now + timedelta(days=2))
        assert await tx.scalar(mails) == before


async def test_the_old_room_is_removed_like_any_other_archived_one(
    database: Database, pair: Pair, now: datetime
) -> None:
    _, kept = await renew(database, pair, now)
    async with database.transaction() as tx:
        with pytest.raises(NotUnderstood, match=r"refused\.pair_held"):
            await pairs.remove_room(tx, OPERATOR, kept.id, now=now)
        with pytest.raises(NotUnderstood, match=r"refused\.pair_exists"):
            async with tx.begin_nested():
                await pairs.reopen(tx, OPERATOR, kept.id, now=now)
        await pairs.release(tx, OPERATOR, kept.id, now=now)
        task_id = await pairs.remove_room(tx, OPERATOR, kept.id, now=now)
        assert isinstance(task_id, uuid.UUID)
        task = await homeserver_tasks.get(tx, task_id)
        assert (task.pair_id, task.details) == (kept.id, {"room": "!old:example.org"})


async def test_a_copy_that_is_done_as_the_room_is_given_up_is_waited_for(
    database: Database, whole: Pair, now: datetime
) -> None:
    async with database.transaction() as tx:
        making = await exports.ask(tx, acts(whole.supervisee), whole.id, default=Consent.ONE, now=now)
        assert making is not None
    pair = await lose(database, whole, now)
    async with database.transaction() as writing:
        await exports.put(writing, making.id, 0, b"sealed", size=6)
        renewing = asyncio.create_task(renew(database, pair, now))
        await asyncio.sleep(0.2)  # it has come as far as it comes
        await exports.finish(writing, making, pair, events=1, now=now)
    await renewing
    async with database.transaction() as tx:
        assert (await exports.get(tx, making.id)).state is ExportState.READY


@pytest.mark.parametrize("asked_before", [True, False], ids=["before it is lost", "after"])
async def test_whoever_answers_as_the_room_is_given_up_is_waited_for(
    database: Database, whole: Pair, now: datetime, asked_before: bool
) -> None:
    """What they typed in time is given up with the room, what they typed too late is refused; neither shuts out."""
    pair, ana = whole, whole.supervisor.id
    said = Notice(ana, Channel.MATRIX, "reply", {}, pair_id=pair.id)
    async with database.transaction() as tx:
        await notifications.enqueue(tx, [said], now=now)
        asked = Asked(said.id, pair.id, ana, Question.CONFIRM_EXPORT, now + timedelta(days=1), code="1234")
        await questions.put(tx, asked, now=now)
    async with database.transaction() as typing:
        assert await questions.last(typing, ana, pair.id, Question.CONFIRM_EXPORT, now=now) is not None
        if asked_before:
            assert await exports.ask(typing, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now) is not None
        await lose(database, pair, now)
        renewing = asyncio.create_task(renew(database, pair, now))
        await asyncio.sleep(0.2)
        assert not renewing.done()
        if not asked_before:
            with pytest.raises(NotFound, match=r"refused\.export_room_lost"):
                await exports.ask(typing, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now)
    await renewing
    async with database.transaction() as tx:
        states = list(await tx.scalars(select(exports_table.c.state).where(exports_table.c.pair_id == pair.id)))
        assert states == [ExportState.FAILED] * asked_before


async def test_a_yes_to_a_copy_as_the_room_is_given_up_makes_nothing(
    database: Database, whole: Pair, now: datetime
) -> None:
    async with database.transaction() as tx:
        await exports.ask(tx, acts(whole.supervisee), whole.id, default=Consent.BOTH, now=now)
    pair = await lose(database, whole, now)
    async with database.transaction() as typing:
        question = await exports.asked(typing, pair.id, pair.supervisor.id, now=now)
        assert question is not None
        await questions.answer(typing, question, now=now)
        renewing = asyncio.create_task(renew(database, pair, now))
        await asyncio.sleep(0.2)
        made = await exports.agreed(typing, acts(pair.supervisor), pair, now=now)
    await renewing
    async with database.transaction() as tx:
        assert (await exports.get(tx, made.id)).state is ExportState.FAILED

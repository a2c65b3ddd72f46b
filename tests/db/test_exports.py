"""Who gets a room's copy, and when: asking, the other's word, lapsing, trying again, sealing, going after a day."""

import asyncio
import uuid
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, insert, select, update

from supervision import exports, pairs, people, questions
from supervision.audit import SYSTEM, Actor
from supervision.db import Database, Transaction
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, Permanent, TooMany
from supervision.exports import CHUNK, PATIENCE, Export, Seal
from supervision.models import Consent, ExportState, Fault, Question, audit_entries, bots, export_chunks, notifications
from supervision.models import pairs as pairs_table
from supervision.pairs import Pair
from tests.support.sample import acts, add_pair, add_person
from tests.support.talking import Room

SECRET = "a secret of the tests, and of them alone"


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    """Ana and Bruno, whose room is there."""
    made = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.set_room(tx, made.id, "!room:example.org")
        return await pairs.get(tx, made.id)


async def told(tx: Transaction) -> list[tuple[str, str, uuid.UUID]]:
    """Kind, channel and reader of all that is told."""
    rows = await tx.execute(
        select(notifications.c.kind, notifications.c.channel, notifications.c.person_id)
        .where(notifications.c.kind.like("export.%"))
        .order_by(notifications.c.position)
    )
    return [(kind, channel, person_id) for kind, channel, person_id in rows]


async def test_nothing_is_made_before_the_other_agrees(database: Database, pair: Pair, now: datetime) -> None:
    ana, bruno = pair.people
    async with database.transaction() as tx:
        assert await exports.ask(tx, acts(bruno), pair.id, default=Consent.BOTH, now=now) is None
        asked = await exports.asked(tx, pair.id, ana.id, now=now)
        assert asked is not None
        assert (asked.kind, asked.expires_at, len(asked.code or "")) == (
            Question.AGREE_EXPORT,
            now + timedelta(days=3),
            4,
        )
        assert await exports.asked(tx, pair.id, bruno.id, now=now) is None
        assert await exports.next_try_at(tx, "@visavis:example.org") is None
        with pytest.raises(AlreadyAnswered):
            await exports.agree(tx, acts(bruno), pair.id, now=now)
        made = await exports.agree(tx, acts(ana), pair.id, now=now)
        assert (made.person_id, made.agreed_by, made.state) == (bruno.id, ana.id, ExportState.AGREED)
        assert await told(tx) == [
            ("export.asked", "matrix", ana.id),
            ("export.asked", "mail", ana.id),
            ("export.agreed", "matrix", bruno.id),
        ]
        with pytest.raises(AlreadyAnswered):
            await exports.agree(tx, acts(ana), pair.id, now=now)


async def test_one_word_is_enough_where_the_pair_s_settings_say_so(
    database: Database, pair: Pair, now: datetime
) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(export_consent=Consent.ONE))
        made = await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.BOTH, now=now)
        assert made is not None
        assert (made.agreed_by, await told(tx)) == (None, [])


async def test_a_no_and_silence_are_told_to_whoever_asked(database: Database, pair: Pair, now: datetime) -> None:
    ana, bruno = pair.people
    async with database.transaction() as tx:
        await exports.ask(tx, acts(bruno), pair.id, default=Consent.BOTH, now=now)
        await exports.refuse(tx, acts(ana), pair.id, now=now)
        await exports.ask(tx, acts(ana), pair.id, default=Consent.BOTH, now=now)
        later = now + timedelta(days=3)
        await exports.lapse(tx, now=later - timedelta(seconds=1))
        await exports.lapse(tx, now=later)
        await exports.lapse(tx, now=later)
        assert [one for one in await told(tx) if one[0] == "export.refused"] == [
            ("export.refused", "matrix", bruno.id),
            ("export.refused", "matrix", ana.id),
        ]
        with pytest.raises(AlreadyAnswered):
            await exports.agree(tx, acts(bruno), pair.id, now=later)
        actions = await tx.scalars(
            select(audit_entries.c.action).where(audit_entries.c.action.like("export.%")).order_by(audit_entries.c.id)
        )
        assert list(actions) == ["export.ask", "export.refuse", "export.ask", "export.lapse"]


async def test_the_words_ask_agree_refuse_and_take_back(database: Database, pair: Pair, now: datetime) -> None:
    room = Room(database, pair, now)

    async def open_code(who: uuid.UUID) -> str | None:
        async with database.transaction() as tx:
            asked = await exports.asked(tx, pair.id, who, now=now)
            return asked.code if asked else None

    async def ask() -> list[str]:
        await room.hear("!export")
        return await room.hear(f"!export {room.code}")

    assert await room.hear("!export no") == ["Nobody asks for a copy just now. Nothing was changed."]
    assert await ask() == [
        "Ana is asked to agree, until Thu 26 Nov, 12:00 (Lisbon)."
        " I tell you what becomes of it. !export no takes it back."
    ]
    assert await room.hear("!export") == ["A copy of this room is under way already. Nothing was changed."]
    assert await room.ana("!exportar não") == ["Você disse não: nenhuma cópia é feita. Aviso Bruno."]
    await ask()
    assert await room.hear("!export no") == ["Taken back: no copy is made, and Ana need not answer."]
    await ask()
    code = await open_code(pair.supervisor.id) or ""
    wrong = f"{(int(code) + 1) % 10_000:04}"
    for _ in range(2):
        await room.hear(f"!export {code}")  # the asker cannot answer for the other
        await room.ana(f"!exportar {wrong}")
    assert await open_code(pair.supervisor.id) == code
    await room.ana(f"!exportar {wrong}")
    assert await open_code(pair.supervisor.id) is None
    async with database.transaction() as tx:
        assert [kind for kind, _, _ in await told(tx)].count("export.refused") == 2
        assert await exports.list_of(tx, pair.id, pair.supervisee.id, since=now - timedelta(days=1)) == []


async def test_only_the_two_may_ask_and_not_too_often(database: Database, pair: Pair, now: datetime) -> None:
    admin = await add_person(database, "Ada", ["admin"], now=now)
    both, ana = Consent.BOTH, acts(pair.supervisor)
    async with database.transaction() as tx:
        for stranger in (acts(admin), Actor(None, "cli"), SYSTEM):
            with pytest.raises(NotAllowed):
                await exports.ask(tx, stranger, pair.id, default=both, now=now)
        for number in range(3):
            at = now + timedelta(hours=number)
            await exports.ask(tx, ana, pair.id, default=both, now=at)
            with pytest.raises(AlreadyAnswered):
                await exports.ask(tx, ana, pair.id, default=both, now=at)
            await exports.withdraw(tx, ana, pair.id, now=at)
        with pytest.raises(TooMany):
            await exports.ask(tx, ana, pair.id, default=both, now=now + timedelta(hours=23))
        await exports.ask(tx, acts(pair.supervisee), pair.id, default=both, now=now + timedelta(hours=23))
        await exports.ask(tx, ana, pair.id, default=both, now=now + timedelta(hours=24))


async def test_there_must_be_a_room_and_somebody_to_agree(database: Database, pair: Pair, now: datetime) -> None:
    bare = await add_pair(database, now=now)
    async with database.transaction() as tx:
        with pytest.raises(NotFound) as no_room:
            await exports.check(tx, acts(bare.supervisor), bare.id, now=now)
        await people.disable(tx, SYSTEM, pair.supervisee.id, now=now)
        with pytest.raises(NotFound) as nobody:
            await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.BOTH, now=now)
        assert (no_room.value.key, nobody.value.key) == ("refused.export_no_room", "refused.export_other_gone")
        assert await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now) is not None


@pytest.fixture
async def begun(database: Database, pair: Pair, now: datetime) -> Export:
    """An export of Ana's that is being made."""
    async with database.transaction() as tx:
        agreed = await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now)
        assert agreed is not None
        export = await exports.begin(tx, agreed, now=now)
    return export


async def put_all(database: Database, export: Export, pieces: list[bytes], *, last: bool = True) -> None:
    seal = Seal(SECRET, export.id, export.salt or b"")
    for position, piece in enumerate(pieces):
        ends = last and position == len(pieces) - 1
        async with database.transaction() as tx:
            await exports.put(tx, export.id, position, seal.lock(position, piece, last=ends), size=len(piece))


async def read(database: Database, export: Export, secret: str = SECRET) -> bytes:
    return b"".join([piece async for piece in exports.read(database, secret, export)])


async def test_pieces_come_back_whole_or_not_at_all(database: Database, begun: Export) -> None:
    pieces = [bytes([number]) * CHUNK for number in range(3)]
    await put_all(database, begun, pieces)
    assert await read(database, begun) == b"".join(pieces)
    with pytest.raises(NotFound):
        await read(database, begun, "another secret than that, and as long as it")
    chunk = export_chunks.c
    damages = [
        update(export_chunks).where(chunk.position == 1).values(content=func.overlay(chunk.content, b"x", 40)),
        update(export_chunks).where(chunk.position == 2).values(position=7),
        update(export_chunks).where(chunk.position == 0).values(position=9),
    ]
    for damage in damages:
        async with database.transaction() as tx:
            kept = (await tx.execute(select(chunk.position, chunk.content))).all()
            await tx.execute(damage)
        with pytest.raises(NotFound):
            await read(database, begun)
        async with database.transaction() as tx:
            await tx.execute(export_chunks.delete())
            for position, content in kept:
                await exports.put(tx, begun.id, position, content, size=0)
    assert await read(database, begun) == b"".join(pieces)


async def test_a_try_that_broke_off_leaves_nothing_to_the_next(
    database: Database, begun: Export, now: datetime
) -> None:
    await put_all(database, begun, [b"half"], last=False)
    with pytest.raises(NotFound):
        await read(database, begun)
    async with database.transaction() as tx:
        again = await exports.begin(tx, begun, now=now)
        assert await tx.scalar(select(func.count()).select_from(export_chunks)) == 0
    assert (again.attempts, again.bytes) == (2, 0)
    assert again.salt != begun.salt


async def test_what_cannot_be_made_is_tried_later_and_then_given_up(
    database: Database, pair: Pair, begun: Export, now: datetime
) -> None:
    async with database.transaction() as tx:
        await tx.execute(insert(bots).values(matrix_id="@visavis:example.org"))
        await tx.execute(update(pairs_table).values(bot="@visavis:example.org"))
        await exports.fail(tx, begun, pair, "http_502", permanent=False, now=now)
        assert await exports.next_due(tx, "@visavis:example.org", now=now) is None
        assert await exports.next_due(tx, "@visavis:example.org", now=now + timedelta(seconds=15)) is not None
        waited = []
        for _ in range(7):
            begun = await exports.begin(tx, begun, now=now)
            await exports.fail(tx, begun, pair, "http_502", permanent=False, now=now)
            waited.append((await exports.next_try_at(tx, "@visavis:example.org") or now) - now)
        assert waited == [timedelta(seconds=one) for one in (30, 60, 120, 240, 480, 600, 600)]
        await exports.fail(tx, begun, pair, "http_502", permanent=False, now=now + PATIENCE)
        failed = await exports.get(tx, begun.id)
        assert (failed.state, failed.error, failed.salt) == (ExportState.FAILED, "http_502", None)
        assert await told(tx) == [
            ("export.failed", "matrix", pair.supervisor.id),
            ("export.failed", "mail", pair.supervisor.id),
        ]


async def test_it_is_its_asker_s_alone_and_gone_after_a_day(
    database: Database, pair: Pair, begun: Export, now: datetime
) -> None:
    ana, bruno = pair.people
    await put_all(database, begun, [b"all of it"])
    async with database.transaction() as tx:
        await exports.finish(tx, begun, pair, events=3, now=now)
        ready = await exports.to_fetch(tx, acts(ana), begun.id, now=now)
        assert (ready.events, ready.bytes, ready.expires_at) == (3, 9, now + timedelta(days=1))
        for actor, at in ((acts(bruno), now), (acts(ana), now + timedelta(days=1))):
            with pytest.raises(NotFound):
                await exports.to_fetch(tx, actor, begun.id, now=at)
        assert await told(tx) == [
            ("export.ready", "matrix", ana.id),
            ("export.ready", "mail", ana.id),
            ("export.made", "matrix", bruno.id),
        ]
        await exports.expire(tx, now=now + timedelta(days=1))
        gone = await exports.get(tx, begun.id)
        assert (gone.state, gone.salt) == (ExportState.EXPIRED, None)
        assert await tx.scalar(select(func.count()).select_from(export_chunks)) == 0
        assert [one.id for one in await exports.made(tx, pair.id)] == [begun.id]


async def test_a_room_that_goes_takes_its_copies_and_questions_along(
    database: Database, pair: Pair, begun: Export, now: datetime
) -> None:
    await put_all(database, begun, [b"all of it"])
    async with database.transaction() as tx:
        await exports.ask(tx, acts(pair.supervisee), pair.id, default=Consent.BOTH, now=now)
        await exports.forget_room(tx, pair.id, now=now)
        await exports.finish(tx, begun, pair, events=3, now=now)  # what was made meanwhile is not kept
        assert (await exports.get(tx, begun.id)).state is ExportState.EXPIRED
        assert await tx.scalar(select(func.count()).select_from(export_chunks)) == 0
        kinds = (Question.AGREE_EXPORT,)
        assert await questions.last(tx, pair.supervisor.id, pair.id, *kinds, now=now, unanswered=True) is None


async def test_a_try_that_outlives_its_room_puts_and_tells_nothing(
    database: Database, pair: Pair, begun: Export, now: datetime
) -> None:
    async with database.transaction() as tx:
        await exports.forget_room(tx, pair.id, now=now)
    with pytest.raises(Permanent):
        await put_all(database, begun, [b"a piece that was read before"])
    async with database.transaction() as tx:
        await exports.fail(tx, begun, pair, "export_gone", permanent=True, now=now)
        assert (await exports.get(tx, begun.id)).state is ExportState.EXPIRED
        assert await tx.scalar(select(func.count()).select_from(export_chunks)) == 0
        assert await told(tx) == []


async def test_a_yes_that_comes_as_the_room_goes_makes_nothing(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await exports.ask(tx, acts(pair.supervisee), pair.id, default=Consent.BOTH, now=now)
    async with database.transaction() as typing:
        question = await exports.asked(typing, pair.id, pair.supervisor.id, now=now)
        assert question is not None
        await questions.answer(typing, question, now=now)
        forgetting = asyncio.create_task(_forget(database, pair, now))
        await asyncio.sleep(0.2)  # it has come as far as it comes
        made = await exports.agreed(typing, acts(pair.supervisor), pair, now=now)
    await forgetting
    async with database.transaction() as tx:
        assert (await exports.get(tx, made.id)).state is ExportState.EXPIRED


async def test_what_is_asked_as_the_room_goes_is_refused(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as removing:
        await exports.forget_room(removing, pair.id, now=now)
        asking = asyncio.create_task(_ask(database, pair, now))
        await asyncio.sleep(0.2)
        await pairs.forget_room(removing, pair.id, now=now)
    with pytest.raises(NotFound) as refused:
        await asking
    assert refused.value.key == "refused.export_no_room"


async def test_of_a_room_that_the_bot_is_not_in_none_is_asked_for_nor_agreed_to(
    database: Database, pair: Pair, now: datetime
) -> None:
    ana, bruno = pair.people
    async with database.transaction() as tx:
        await exports.ask(tx, acts(bruno), pair.id, default=Consent.BOTH, now=now)
        await pairs.set_fault(tx, pair, Fault.GONE, now=now)
        tries = (
            exports.ask(tx, acts(ana), pair.id, default=Consent.ONE, now=now),
            exports.check(tx, acts(ana), pair.id, now=now),
            exports.agree(tx, acts(ana), pair.id, now=now),
        )
        for one in tries:
            with pytest.raises(NotFound, match=r"^refused\.export_room_lost$"):
                await one
        assert await told(tx) == [("export.asked", "matrix", ana.id), ("export.asked", "mail", ana.id)]
        await pairs.clear_fault(tx, pair.id, now=now)
        assert (await exports.agree(tx, acts(ana), pair.id, now=now)).person_id == bruno.id


async def _forget(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await exports.forget_room(tx, pair.id, now=now)


async def _ask(database: Database, pair: Pair, now: datetime) -> None:
    async with database.transaction() as tx:
        await exports.ask(tx, acts(pair.supervisor), pair.id, default=Consent.ONE, now=now)


async def test_who_is_disabled_takes_nothing_home(database: Database, pair: Pair, begun: Export, now: datetime) -> None:
    ana, bruno = pair.people
    await put_all(database, begun, [b"all of it"])
    async with database.transaction() as tx:
        await exports.finish(tx, begun, pair, events=3, now=now)
        await exports.ask(tx, acts(ana), pair.id, default=Consent.BOTH, now=now)
        await people.disable(tx, SYSTEM, ana.id, now=now)
        gone = await exports.get(tx, begun.id)
        assert (gone.state, gone.salt) == (ExportState.EXPIRED, None)
        assert await tx.scalar(select(func.count()).select_from(export_chunks)) == 0
        with pytest.raises(AlreadyAnswered):
            await exports.agree(tx, acts(bruno), pair.id, now=now)


async def test_who_asked_somebody_who_is_disabled_then_hears_that_nobody_answered(
    database: Database, pair: Pair, now: datetime
) -> None:
    ana, bruno = pair.people
    async with database.transaction() as tx:
        await exports.ask(tx, acts(bruno), pair.id, default=Consent.BOTH, now=now)
        await people.disable(tx, SYSTEM, ana.id, now=now)
        await exports.lapse(tx, now=now + exports.ANSWER_TIME)
        assert ("export.refused", "matrix", bruno.id) in await told(tx)

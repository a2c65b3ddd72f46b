"""People who do nothing wrong, on Element's engine in the mode that hears signed devices only: nothing is lost to them,
and what they cannot read says why.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest

from supervision import identities, queries
from supervision.people import Person
from tests.interop.driver import Engine, EngineFailed, Event
from tests.support.practice import PASSWORD, Practice
from tests.support.sample import acts

WITHHELD = "MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE"
BEFORE = "HISTORICAL_MESSAGE_NO_KEY_BACKUP"  # written before this device was there


def engine(practice: Practice, person: Person, *, signed: bool = True) -> AbstractAsyncContextManager[Engine]:
    """One more device of this person's."""
    log = practice.state / "engine.log"
    return Engine.log_in(practice.homeserver, person.matrix_id or "", PASSWORD, log=log, signed=signed)


async def test_device_that_is_signed_late_misses_nothing(practice: Practice) -> None:
    """Bruno's first login takes its time to sign itself; Ana books for him meanwhile."""
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phone(pair.supervisor) as ana, engine(practice, pair.supervisee, signed=False) as bruno:
        await bruno.join(room)
        await ana.join(room)
        await ana.ask(room, "!horarios", practice.bot)
        await ana.ask(room, "!agendar 1", practice.bot)
        [mail, *_] = await practice.mails(pair.supervisee.email, at_least=1)
        # The times, the answer, and the news to Bruno himself.
        unread = [await bruno.next_event(practice.bot, lambda event: event.failure is not None) for _ in range(3)]
        await bruno.cross_sign()
        introduction = await bruno.next_event(practice.bot, lambda event: "!help" in event.body)
        summary = await bruno.next_event(practice.bot, lambda event: event.body.startswith("Bruno"))
        await bruno.send_text(room, "!appointments")
        answer = await bruno.next_event(practice.bot, lambda event: event.msgtype == "m.notice")
    assert [(event.type, event.failure) for event in unread] == [("m.room.encrypted", WITHHELD)] * 3
    assert bruno.failures(practice.bot) == {WITHHELD}
    assert [judged(event) for event in (introduction, summary, answer)] == [(True, None, None)] * 3
    assert summary.body.startswith("Bruno, while I could not write to you here, this is how things stand (Lisbon):")
    assert mail["Subject"]


async def test_a_second_device_and_a_lost_one(practice: Practice) -> None:
    """An unsigned device beside a signed one takes nothing from it; a new identity counts once its owner said so."""
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with engine(practice, pair.supervisee) as old:
        await old.join(room)
        await old.next_event(practice.bot)
        key = await old.keep_keys()
        async with engine(practice, pair.supervisee, signed=False) as new:
            await new.join(room)
            await old.send_text(room, "!slots")
            slots = await old.next_event(practice.bot)
            unread = await new.next_event(practice.bot, lambda event: event.event_id == slots.event_id)
            with pytest.raises(EngineFailed, match="your device is not verified"):
                await new.send_text(room, "!slots")
            await new.recover(key)
            await new.send_text(room, "!appointments")
            both = [
                await one.next_event(practice.bot, lambda event: "no appointments" in event.body) for one in (old, new)
            ]
        assert slots.body.startswith("Free with Ana")
        assert unread.failure == WITHHELD
        assert [judged(event) for event in (slots, *both)] == [(True, None, None)] * 3
        assert old.failures(practice.bot) == set()
    async with engine(practice, pair.supervisee, signed=False) as found:
        await found.reset()
        await found.join(room)
        await practice.mails(pair.supervisee.email, at_least=1)
        async with practice.database.transaction() as tx:
            matrix_id, actor, at = pair.supervisee.matrix_id or "", acts(pair.supervisee), datetime.now(UTC)
            shown = await queries.offered_identity(tx, matrix_id) or ""
            await identities.confirm(tx, actor, matrix_id, master_key=shown, now=at)
        await heeded(practice, room, matrix_id)
        await found.send_text(room, "!slots")
        answer = await found.next_event(practice.bot, lambda event: event.body.startswith("Free with Ana"))
        assert judged(answer) == (True, None, None)
        assert found.failures(practice.bot) <= {WITHHELD, BEFORE}


async def test_a_key_that_was_lost_on_its_way_is_given_again(practice: Practice) -> None:
    """As in a crash, where the homeserver took it for fetched: to write it again, as the bot asks, is enough."""
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with engine(practice, pair.supervisee) as bruno:
        await bruno.join(room)
        for _ in range(2):  # with the second it gives its key once more, as the first answer began a session with it
            await bruno.send_text(room, "!language")
            await bruno.next_event(practice.bot, lambda event: "!language" in event.body)
        assert practice.machine is not None
        practice.machine.client._judge._waiting._grace = 0.5  # noqa: SLF001  # seconds that a key is waited for
        practice.machine.client.forget_rooms([room])
        await bruno.send_text(room, "!appointments")
        told = await bruno.next_event(practice.bot, lambda event: "could not read" in event.body)
        await asyncio.sleep(1)  # whoever has read that, and writes anew
        await bruno.send_text(room, "!appointments")
        answer = await bruno.next_event(practice.bot, lambda event: "no appointments" in event.body)
    assert [judged(event) for event in (told, answer)] == [(True, None, None)] * 2


async def heeded(practice: Practice, room: str, user_id: str) -> None:
    """Return when the bot has taken in that somebody's new identity counts."""
    assert practice.machine is not None
    async with asyncio.timeout(60):
        while not practice.machine.client.can_read(room, user_id):  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.05)


def judged(event: Event) -> tuple[bool, str | None, int | None]:
    """Whether it came encrypted, why it cannot be read, and what the engine warns of."""
    return event.encrypted, event.failure, event.shield

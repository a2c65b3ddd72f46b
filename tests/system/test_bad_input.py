"""Whatever makes no sense gets one clear sentence, to the right person, and changes nothing."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from bot.replies import Reply
from supervision import journal, notifications, pairs
from supervision.models import Fault, appointments, audit_entries
from supervision.pairs import Pair
from tests.support.human import Human
from tests.support.practice import Practice


async def count(practice: Practice) -> int:
    async with practice.database.transaction() as tx:
        return int(await tx.scalar(select(func.count()).select_from(appointments)) or 0)


async def refusals(practice: Practice) -> list[str]:
    async with practice.database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries.c.reason).where(audit_entries.c.success.is_(False)).order_by(audit_entries.c.id)
        )
        return [row.reason for row in rows]


async def test_commands_that_make_no_sense(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%d/%m/%Y 10:00")
    said = {
        "!shrug": "I do not know that command. !help shows what I can do.",
        "!book soon": (
            "I did not understand the time. This works: !book 2, with a number of !slots, or !book 24/11 10:00"
        ),
        "!book 7": "You have seen no list yet. Send !slots first.",
        "!book 31/02 10:00": "That day or time does not exist. This works: !book 24/11 10:00",
        f"!book {yesterday}": "That time has passed. Nothing was changed.",
        "!confirm": "Nothing is waiting for your answer.",
        "!noshow 1": "It is the supervisor who says how an appointment went. Nothing was changed.",
        "!cancel 1": "There are no appointments with Ana. !slots shows free times.",
        "!language klingon": ("I do not speak that language. This works: !language portuguese or !language english"),
    }
    async with practice.phones(pair) as (ana, bruno):
        for command, sentence in said.items():
            assert (await bruno.ask(room, command, practice.bot)).body == sentence
        past = "Esse horário já passou. Nada foi alterado."
        no_list = "Você ainda não viu nenhuma lista. Mande !horarios primeiro."
        await ana.ask(room, "!agendar 1", practice.bot, lambda message: message.body == no_list)
        await ana.ask(room, f"!agendar {yesterday}", practice.bot, lambda message: message.body == past)
        mark = bruno.mark()
        await bruno.send_text(room, "just talking about !help and 2/3 of it")
        await bruno.ask(room, "!help", practice.bot, lambda message: message.body.startswith("This is what"))
        answers = [m for m in bruno.heard(practice.bot, since=mark) if m.body not in (no_list, past)]
        assert len(answers) == 1
    assert await count(practice) == 0


async def test_a_slot_just_taken_by_another_pair(practice: Practice) -> None:
    first = await practice.add_pair()
    second = await practice.add_pair(supervisor=first.supervisor)
    async with practice.phones(first) as (_, bruno), practice.phone(second.supervisee) as other:
        await other.join(second.room_id or "")
        await other.next_message(practice.bot)
        for phone, pair in ((bruno, first), (other, second)):
            await phone.ask(pair.room_id or "", "!slots", practice.bot)
        await bruno.ask(first.room_id or "", "!book 1", practice.bot)
        refused = await other.ask(second.room_id or "", "!book 1", practice.bot)
        assert refused.body.startswith("That time has just been taken.")
    assert await count(practice) == 1
    assert await refusals(practice) == ["refused.slot_taken"]


async def test_an_edited_command_does_not_count(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (_, bruno):
        await bruno.ask(room, "!slots", practice.bot)
        event_id = await bruno.send_text(room, "good morning")
        mark = bruno.mark()
        await bruno.edit(room, event_id, "!book 1")
        answer = await bruno.next_message(practice.bot, since=mark)
        assert answer.body == "An edited command does not count. Nothing was changed; please write it again."
    assert await count(practice) == 0
    assert await refusals(practice) == ["event.edited"]


async def test_a_message_without_encryption_commands_nothing(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (_, bruno):
        await bruno.ask(room, "!slots", practice.bot)
        mark = bruno.mark()
        for _ in range(2):
            await bruno.send_raw(room, "m.room.message", {"msgtype": "m.text", "body": "!book 1"}, encrypted=False)
        answer = await bruno.next_message(practice.bot, since=mark)
        assert answer.body.startswith("That message came unencrypted, so it does not count as a command.")
        await bruno.ask(room, "!appointments", practice.bot)
        # The sentence is said once an hour, however often it is tried.
        assert len(bruno.heard(practice.bot, since=mark)) == 2
    assert await count(practice) == 0
    assert await refusals(practice) == ["doubt.not_encrypted", "doubt.not_encrypted"]


async def test_an_unsigned_device_commands_nothing(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (_, bruno):
        await bruno.ask(room, "!slots", practice.bot)
        mark = bruno.mark()
        async with practice.phone(pair.supervisee, cross_signed=False) as stolen:
            await stolen.join(room)
            await stolen.send_text(room, "!book 1")
            answer = await bruno.next_message(practice.bot, since=mark)
            assert answer.body.startswith("I cannot tell that this device is yours")
    assert await count(practice) == 0
    assert await refusals(practice) == ["doubt.device"]


async def test_a_file_with_a_dangerous_name(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (_, bruno):
        mark = bruno.mark()
        await bruno.send_file(room, "../../x", b"content", "text/plain")
        answer = await bruno.next_message(practice.bot, since=mark)
        assert answer.body == "I removed the file: its name can deceive whoever gets it. Rename it and send it again."
    assert await refusals(practice) == ["file.name"]


async def test_a_reaction_counts_only_from_the_person_asked(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (ana, bruno):
        await bruno.ask(room, "!slots", practice.bot)
        await bruno.ask(room, "!book 1", practice.bot)
        request = await bruno.next_message(practice.bot, lambda message: "✅" in message.body)
        await bruno.react(room, request.event_id, "✅")
        await bruno.ask(room, "!help", practice.bot)
        assert await statuses(practice, pair) == ["requested"]
        await ana.react(room, request.event_id, "❌")
        await bruno.next_message(practice.bot, lambda message: message.body.startswith("Ana declined"))
        await ana.react(room, request.event_id, "✅")
        await ana.ask(room, "!ajuda", practice.bot)
        assert await statuses(practice, pair) == ["declined"]


async def test_twenty_commands_a_minute_are_enough(practice: Practice) -> None:
    """Its clock stands still, or a slow machine's next command would come when one is allowed again."""
    pair = await practice.add_pair()
    room, began_at = pair.room_id or "", datetime.now(UTC)
    assert practice.machine is not None
    async with practice.phones(pair) as (_, bruno):
        mark = bruno.mark()
        practice.machine.handlers.clock = lambda: began_at
        for _ in range(24):
            await bruno.send_text(room, "!language")
        calm = await bruno.next_message(practice.bot, lambda m: m.body.startswith("That was a lot"), since=mark)
        assert calm.body == "That was a lot in a short time. Wait a minute and try again."
        await settled(practice, bruno, room)
        assert len([m for m in bruno.heard(practice.bot, since=mark) if m.body == calm.body]) == 1


async def settled(practice: Practice, phone: Human, room: str) -> None:
    """Return when all that was sent to the room before this has been handled."""
    event_id = await phone.send_text(room, "!help")
    async with asyncio.timeout(60):
        while True:
            async with practice.database.transaction() as tx:
                if event_id in await journal.handled(tx, [event_id]):
                    return
            await asyncio.sleep(0.05)


async def statuses(practice: Practice, pair: Pair) -> list[str]:
    async with practice.database.transaction() as tx:
        rows = await tx.execute(select(appointments.c.status).where(appointments.c.pair_id == pair.id))
        return [row.status for row in rows]


async def test_a_bug_of_ours_is_owned_up_to(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one sentence with its number, once; nothing of what went wrong."""
    pair = await practice.add_pair()
    room = pair.room_id or ""

    async def broken(*_: object) -> Reply:
        raise RuntimeError("of the program")

    async with practice.phones(pair) as (_, bruno):
        monkeypatch.setattr("bot.handlers.answer", broken)
        answer = await bruno.ask(room, "!slots", practice.bot)
        assert re.fullmatch(r"Something failed on our side; nothing was changed\. Number \w{4}\.", answer.body)
        monkeypatch.undo()
        await bruno.ask(room, "!slots", practice.bot, lambda message: message.body.startswith("Free with Ana"))
    assert await refusals(practice) == ["failed"]


async def test_in_a_room_that_is_stopped_nothing_is_done_and_that_is_told_when_it_is_well(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phones(pair) as (_, bruno):
        await bruno.ask(room, "!slots", practice.bot)
        async with practice.database.transaction() as tx:
            await pairs.set_fault(tx, pair, Fault.REFUSED, now=datetime.now(UTC))
        mark = bruno.mark()
        for command in ("!book 1", "!appointments"):
            await bruno.send_text(room, command)
        async with asyncio.timeout(60):
            while (found := await refusals(practice)) != ["refused", *["refused.room_stopped"] * 2]:
                assert len(found) < 3
                await asyncio.sleep(0.05)
        assert bruno.heard(practice.bot, since=mark) == []
        async with practice.database.transaction() as tx:
            await pairs.clear_fault(tx, pair.id, now=datetime.now(UTC))
            await notifications.hurry(tx, pair.id, "room_stopped", now=datetime.now(UTC))
        answer = await bruno.next_message(practice.bot, since=mark)
        assert answer.body == (
            "The room was not as it has to be when you wrote that, so nothing was done. Please write it again."
        )
        await bruno.ask(room, "!appointments", practice.bot)
        assert len(bruno.heard(practice.bot, since=mark)) == 2
    assert await count(practice) == 0


async def test_an_extra_member_is_put_out_and_alarms(practice: Practice) -> None:
    """Only the homeserver's administrator can put somebody into a room; the bot does not speak before them."""
    pair = await practice.add_pair()
    room = pair.room_id or ""
    stranger = await practice.add_person("Davi", ["supervisee"], language="en", time_zone="UTC")
    async with practice.phones(pair) as (_, bruno), practice.phone(stranger) as intruder:
        await practice.put_into_room(room, stranger.matrix_id or "")
        [mail] = await practice.mails(pair.supervisor.email, at_least=1)
        assert mail["Subject"] == "Há alguém a mais em uma sala de supervisão"
        answer = await bruno.ask(room, "!slots", practice.bot)
        assert answer.body.startswith("Free with Ana")
        members = await bruno.request("GET", f"/rooms/{room}/joined_members")
        assert set(members["joined"]) == {practice.bot, pair.supervisor.matrix_id, pair.supervisee.matrix_id}
        assert intruder.heard(practice.bot) == []

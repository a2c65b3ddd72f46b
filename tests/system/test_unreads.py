"""A message that stays unread is worth one mail: who wrote in which room, never what."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from urllib.parse import quote

import pytest
from sqlalchemy import select, text, update

from supervision import pairs, preferences
from supervision.audit import SYSTEM
from supervision.models import Channel, State, journal, notifications, unreads
from supervision.preferences import Preferences
from supervision.unreads import counts
from tests.support.human import Human
from tests.support.practice import Practice, Room
from tests.support.sample import acts

SECRET = "a sentence about a patient"


class ReadRoom(Room):
    """A room in which is looked at what each has read."""

    async def write(self, who: Human, body: str = SECRET) -> str:
        return await who.send_text(self.id, body)

    async def read(self, who: Human, event_id: str, kind: str = "m.read") -> None:
        """As a phone does that shows an event."""
        await who.request("POST", f"/rooms/{quote(self.id)}/receipt/{kind}/{quote(event_id)}", {})

    async def unread(self) -> dict[str, str]:
        """The first unread event of each who has one, by name."""
        names = {person.id: person.name for person in self.pair.people}
        async with self.practice.database.transaction() as tx:
            rows = await tx.execute(select(unreads.c.person_id, unreads.c.event_id))
            return {names[row.person_id]: row.event_id for row in rows}

    async def wait_until_unread(self, expected: dict[str, str], timeout: float = 60) -> None:
        found: dict[str, str] = {}
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = await self.unread()
                    if found == expected:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"unread are {found}, not {expected}") from None

    async def settle(self) -> None:
        """Wait until the bot has handled all that was said before: it answers a command after it."""
        await self.wait_until_journaled(await self.bruno.send_text(self.id, "!painel"))

    async def wait_until_journaled(self, event_id: str) -> None:
        async with asyncio.timeout(60):
            while True:
                async with self.practice.database.transaction() as tx:
                    if await tx.scalar(select(journal.c.event_id).where(journal.c.event_id == event_id)):
                        return
                await asyncio.sleep(0.05)

    async def pass_the_wait(self) -> None:
        """The minutes go by for the mails that wait."""
        now = datetime.now(UTC)
        waiting = (notifications.c.kind == "room.unread") & (notifications.c.state == State.PENDING)
        async with self.practice.database.transaction() as tx:
            await tx.execute(update(notifications).where(waiting).values(send_at=now, next_try_at=now))
            await tx.execute(text("SELECT pg_notify('visavis_mail', '')"))

    async def mails(self, at_least: int = 1) -> list[EmailMessage]:
        """Those about unread messages to Ana, after the wait."""
        await self.pass_the_wait()
        return await self.practice.mails(self.pair.supervisor.email, at_least=at_least)

    async def states(self) -> list[State]:
        mails = (notifications.c.kind == "room.unread") & (notifications.c.channel == Channel.MAIL)
        query = select(notifications.c.state).where(mails).order_by(notifications.c.position)
        async with self.practice.database.transaction() as tx:
            return [State(state) for state in await tx.scalars(query)]

    async def next_try_at(self) -> datetime | None:
        """Of the mail that waits."""
        waiting = (notifications.c.kind == "room.unread") & (notifications.c.state == State.PENDING)
        async with self.practice.database.transaction() as tx:
            return await tx.scalar(select(notifications.c.next_try_at).where(waiting))

    async def counted(self) -> int:
        """How many messages Ana has not read, half a minute later."""
        machine = self.practice.machine
        assert machine is not None
        machine.reads.clock = lambda: datetime.now(UTC) + timedelta(minutes=1)
        await machine.reads.write_counts()
        machine.reads.clock = lambda: datetime.now(UTC)
        async with self.practice.database.transaction() as tx:
            return (await counts(tx, self.pair.supervisor.id)).get(self.pair.id, 0)

    async def no_mail_comes(self, sent: int = 0) -> None:
        """Nothing waits, and no more than these were sent."""
        assert await self.states() == [State.SENT] * sent
        assert len(await self.practice.mails(self.pair.supervisor.email, at_least=sent)) == sent


@pytest.fixture
async def room(practice: Practice) -> AsyncIterator[ReadRoom]:
    async with ReadRoom.open(practice) as room:
        yield room


async def test_one_mail_until_it_is_read(room: ReadRoom) -> None:
    first = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": first})
    [mail] = await room.mails()
    assert mail["Subject"] == "Bruno escreveu na sala de vocês"
    [plain, html] = [str(part.get_content()) for part in mail.walk() if not part.is_multipart()]
    assert plain.splitlines()[0] == "Bruno escreveu na sala de supervisão de vocês."
    assert room.practice.config.web.base_url in plain
    assert SECRET not in plain + html
    assert first not in mail.as_string()

    await room.write(room.bruno)
    await room.settle()
    await room.wait_until_unread({"Ana": first})
    await room.pass_the_wait()
    await room.no_mail_comes(sent=1)

    last = await room.write(room.bruno)
    await room.read(room.ana, last)
    await room.wait_until_unread({})
    again = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": again})
    assert [str(mail["Subject"]) for mail in await room.mails(2)] == ["Bruno escreveu na sala de vocês"] * 2
    # Bruno, who wrote all of it, has nothing to read.
    assert await room.practice.mails(room.pair.supervisee.email, at_least=0) == []


async def test_what_is_read_in_time_is_worth_no_mail(room: ReadRoom) -> None:
    for number in range(3):
        said = await room.write(room.bruno)
        await room.wait_until_unread({"Ana": said})
        match number:
            case 0:
                await room.read(room.ana, said)
            case 1:
                await room.ana.react(room.id, said, "👍")
            case 2:
                await room.ana.send_text(room.id, "!ajuda")
        await room.wait_until_unread({})
    await room.no_mail_comes()
    said = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": said})
    answer = await room.write(room.ana)
    await room.wait_until_unread({"Bruno": answer})


async def test_a_receipt_for_something_older_or_a_private_one_reads_nothing(room: ReadRoom) -> None:
    older = await room.write(room.bruno)
    await room.read(room.ana, older)
    await room.settle()
    await room.wait_until_unread({})
    first = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": first})
    await room.read(room.ana, older)
    await room.read(room.ana, first, "m.read.private")
    await room.settle()
    await room.wait_until_unread({"Ana": first})


async def test_what_came_after_the_receipt_is_still_unread(room: ReadRoom) -> None:
    first = await room.write(room.bruno)
    second = await room.write(room.bruno)
    await room.settle()
    await room.wait_until_unread({"Ana": first})
    await room.read(room.ana, first)
    await room.wait_until_unread({"Ana": second})
    assert len(await room.mails()) == 1


async def test_what_is_meant_for_the_bot_or_changes_a_message_is_not_unread(room: ReadRoom) -> None:
    said = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": said})
    await room.read(room.ana, said)
    await room.wait_until_unread({})
    await room.bruno.edit(room.id, said, "better words")
    relation = {"rel_type": "m.replace", "event_id": said}
    sealed = {"algorithm": "org.example.unknown", "ciphertext": "AAAA", "m.relates_to": relation}
    await room.bruno.send_raw(room.id, "m.room.encrypted", sealed, encrypted=False)
    await room.bruno.react(room.id, said, "👍")
    await room.bruno.send_raw(room.id, "m.room.message", {"msgtype": "m.notice", "body": "a program's words"})
    await room.settle()
    assert await room.states() == []
    sticker = await room.bruno.send_raw(room.id, "m.sticker", {"body": "a cat", "url": "mxc://localhost/a", "info": {}})
    await room.wait_until_unread({"Ana": sticker})
    await room.bruno.redact(room.id, sticker)
    await room.wait_until_unread({})
    assert await room.states() == []


async def test_what_the_bot_cannot_decrypt_is_a_message(room: ReadRoom) -> None:
    sealed = {"algorithm": "org.example.unknown", "ciphertext": "AAAA"}
    said = await room.bruno.send_raw(room.id, "m.room.encrypted", sealed, encrypted=False)
    await room.wait_until_unread({"Ana": said})


async def test_what_was_read_while_its_key_was_waited_for_is_worth_no_mail(room: ReadRoom) -> None:
    sealed = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AAAA", "session_id": secrets.token_urlsafe(32)}
    said = await room.bruno.send_raw(room.id, "m.room.encrypted", sealed, encrypted=False)
    await room.read(room.ana, said)
    await room.wait_until_journaled(said)
    await room.settle()
    assert await room.states() == []


async def test_the_bot_off_while_messages_and_receipts_come(room: ReadRoom) -> None:
    practice = room.practice
    # Noted before, read meanwhile, in a room where nothing else happens.
    first = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": first})
    await asyncio.sleep(1)  # the token is saved
    await practice.stop_bot()
    await room.read(room.ana, first)
    await practice.start_bot()
    await room.wait_until_unread({})
    # Written and read meanwhile; then written and not read.
    await practice.stop_bot()
    await room.read(room.ana, await room.write(room.bruno))
    await practice.start_bot()
    await room.settle()
    await room.wait_until_unread({})  # a receipt is heard after the events that came with it
    assert await room.states() == []
    await practice.stop_bot()
    second = await room.write(room.bruno)
    await practice.start_bot()
    await room.wait_until_unread({"Ana": second})
    # Read meanwhile, and more written after it.
    await practice.stop_bot()
    await room.read(room.ana, second)
    third = await room.write(room.bruno)
    await practice.start_bot()
    await room.wait_until_unread({"Ana": third})
    assert len(await room.mails()) == 1
    # Told already: a bot that knows it from the database alone says it no second time.
    await practice.stop_bot()
    await practice.start_bot()
    await room.write(room.bruno)
    await room.settle()
    await room.wait_until_unread({"Ana": third})
    await room.pass_the_wait()
    await room.no_mail_comes(sent=1)


async def test_what_a_new_process_never_saw_is_asked_of_the_homeserver(room: ReadRoom) -> None:
    """All was said before the bot was off, and its place was saved."""
    older = await room.write(room.ana)
    said = [await room.write(room.bruno) for _ in range(3)]
    await room.settle()
    await room.wait_until_unread({"Ana": said[0]})  # Bruno wrote after what Ana wrote
    for event_id, expected in [(older, {"Ana": said[0]}), (said[0], {"Ana": said[2]}), (said[2], {})]:
        await asyncio.sleep(1)  # the place is saved
        await room.practice.stop_bot()
        await room.read(room.ana, event_id)
        await room.practice.start_bot()
        await room.settle()
        await room.wait_until_unread(expected)


async def test_more_was_written_while_the_bot_was_off_than_a_timeline_holds(room: ReadRoom) -> None:
    practice = room.practice
    first = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": first})
    await practice.stop_bot()
    said = [await room.write(room.bruno) for _ in range(60)]
    await room.read(room.ana, said[2])
    await practice.start_bot()
    await room.wait_until_unread({"Ana": said[-1]})
    await practice.stop_bot()
    await room.read(room.ana, said[-1])
    await practice.start_bot()
    await room.wait_until_unread({})
    assert await room.states() == []


async def test_quiet_hours_keep_it_back_until_they_end_or_it_is_read(room: ReadRoom) -> None:
    ana = room.pair.supervisor
    local = datetime.now(UTC).astimezone(ana.zone)
    quiet = Preferences(
        quiet_from=(local - timedelta(hours=1)).time().replace(second=0, microsecond=0),
        quiet_until=(local + timedelta(hours=1)).time().replace(second=0, microsecond=0),
    )
    async with room.practice.database.transaction() as tx:
        await preferences.save(tx, acts(ana), ana.id, quiet, now=datetime.now(UTC))
    said = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": said})
    await room.pass_the_wait()
    async with asyncio.timeout(60):
        while True:
            until = await room.next_try_at()
            if until is not None and until > datetime.now(UTC) + timedelta(minutes=50):
                break
            await asyncio.sleep(0.05)
    assert await room.states() == [State.PENDING]
    await room.read(room.ana, said)
    await room.wait_until_unread({})
    await room.no_mail_comes()


async def test_the_bridge_off_while_the_wait_ends(room: ReadRoom) -> None:
    """What is read before it is back is not told; what is not is told once."""
    await room.practice.stop_bridge()
    first = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": first})
    await room.pass_the_wait()
    await room.read(room.ana, first)
    await room.wait_until_unread({})
    second = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": second})
    await room.pass_the_wait()
    await room.practice.start_bridge()
    await room.practice.mails(room.pair.supervisor.email, at_least=1)
    await room.write(room.bruno)
    await room.settle()
    await room.no_mail_comes(sent=1)


async def test_zero_minutes_switch_the_mail_off(room: ReadRoom) -> None:
    """What is unread is known all the same."""
    practice = room.practice
    first = await room.write(room.bruno)
    await room.wait_until_unread({"Ana": first})
    await practice.stop_bot()
    matrix = practice.config.matrix.model_copy(update={"unread_minutes": 0})
    practice.config = practice.config.model_copy(update={"matrix": matrix})
    await practice.start_bot()
    await room.write(room.bruno)
    await room.settle()
    assert await room.states() == []
    assert await room.unread() == {"Ana": first}


async def test_how_many_are_unread_is_counted(room: ReadRoom) -> None:
    said = [await room.write(room.bruno) for _ in range(3)]
    await room.settle()
    assert await room.counted() == 3
    await room.read(room.ana, said[1])
    await room.wait_until_unread({"Ana": said[2]})
    assert await room.counted() == 1
    fourth = await room.write(room.bruno)
    await room.settle()
    assert await room.counted() == 2
    await room.practice.stop_bot()
    await room.practice.start_bot()
    await room.write(room.bruno)
    await room.settle()
    assert await room.counted() == 3
    await room.bruno.redact(room.id, fourth)
    await room.read(room.ana, await room.write(room.bruno))
    await room.wait_until_unread({})
    assert await room.counted() == 0


async def test_what_is_written_in_a_reopened_room_is_noted_anew(practice: Practice) -> None:
    async with ReadRoom.open(practice) as room:
        first = await room.write(room.bruno)
        await room.wait_until_unread({"Ana": first})
        for act, may_write in ((pairs.archive, False), (pairs.reopen, True)):
            async with practice.database.transaction() as tx:
                await act(tx, SYSTEM, room.pair.id, now=datetime.now(UTC))
            await wait_until_writable(room, may_write)
        assert await room.unread() == {}
        second = await room.write(room.bruno)
        await room.wait_until_unread({"Ana": second})


async def wait_until_writable(room: ReadRoom, expected: bool) -> None:
    """Until the bot has closed the room, or opened it, and is done with it."""
    machine = room.practice.machine
    assert machine is not None
    place = f"/rooms/{quote(room.id)}/state/m.room.power_levels/"
    async with asyncio.timeout(60):
        while True:
            powers = await machine.client.homeserver.ask("GET", place)
            if (powers["events_default"] == 0) is expected:
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)

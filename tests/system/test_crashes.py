"""The whole process killed with `kill -9`, again and again, while people book by chat: nothing lost, nothing twice.

`make test` runs a short form; `make faults` the twenty kills within two hundred bookings that the promise names.
`VISAVIS_SEED` repeats a run's dice.
"""

import asyncio
import os
import random
import secrets
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, func, or_, select, text

from bridge.delivery import LEASE
from supervision import availability, hours, pairs
from supervision.db import Transaction
from supervision.models import Channel, State, Status, appointments, audit_entries, holds, journal, notifications
from supervision.pairs import Pair
from supervision.texts import Moments, Span, reader
from tests.support.demo import Demo, Phone
from tests.support.human import Message

LONG = os.environ.get("VISAVIS_LONG") == "1"
KILLS, BOOKINGS = (20, 200) if LONG else (2, 8)
SEED = int(os.environ.get("VISAVIS_SEED", secrets.randbelow(1_000_000)))
BOOKERS = ("bruno", "clara", "daniel")
SUPERVISORS = ("ana", "helena")
PEOPLE = (
    *BOOKERS,
    *SUPERVISORS,
)  # the demo's others have no phone here, so what waits to be told to them goes on waiting
ANSWERED_WITHIN = 240.0  # seconds, kills in a row included
OPEN_FOR = timedelta(minutes=hours.Availability(()).answer)  # a request of the demo's
COMMANDS_A_MINUTE = 18  # of a person; the bot takes 20

pytestmark = pytest.mark.faults


@dataclass
class Said:
    """A command, in a thread of its own, so that its answers can be told from all others."""

    event_id: str
    root: str
    body: str


@dataclass
class Run:
    """What all have done so far."""

    demo: Demo
    dice: random.Random
    said: list[Said] = field(default_factory=list)
    taps: list[str] = field(default_factory=list)
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    bookings: int = 0
    kills: int = 0


class Booker:
    """A supervisee who books, now and then cancels, and asks this and that."""

    def __init__(self, run: Run, phone: Phone, free: Sequence[datetime]) -> None:
        self.run = run
        self.phone = phone
        self.room_id = phone.rooms[0]
        self.free = list(free)
        self.zone = reader(phone.person["language"], phone.person["time_zone"]).zone
        self.dice = random.Random(run.dice.random())
        self.said_at: list[float] = []

    async def book(self, bookings: int) -> None:
        left = bookings
        while left:
            match self.dice.choices(("times", "listed", "cancel", "ask"), (6, 2, 2, 1))[0]:
                case "times":
                    count = min(left, self.dice.randint(1, 3))
                    left -= count
                    said = [await self.say(self.any_time(), booking=True) for _ in range(count)]
                    for one in said:
                        await self.answer_to(one)
                case "listed":
                    left -= 1
                    listed = await self.answer_to(await self.say(self.dice.choice(("!slots", "/horarios"))))
                    number = self.dice.randint(1, max(1, listed.body.count("\n") - 1))
                    await self.answer_to(await self.say(f"!book {number}", booking=True))
                case "cancel":
                    await self.cancel()
                case "ask":
                    await self.answer_to(await self.say(self.dice.choice(("!help", "//agenda", "!bok", "!language"))))

    async def cancel(self) -> None:
        listed = await self.answer_to(await self.say("!cancel"))
        lines = listed.body.count("\n") - 1
        if lines >= 1:
            await self.answer_to(await self.say(f"!cancelar {self.dice.randint(1, lines)}"))

    def any_time(self) -> str:
        local = self.dice.choice(self.free).astimezone(self.zone)
        return local.strftime(self.dice.choice(("!book %d/%m/%Y %H:%M", "!agendar %Y-%m-%d %Hh%M")))

    async def say(self, body: str, *, booking: bool = False) -> Said:
        await self.take_breath()
        root = await self.phone.say(self.room_id, "what follows is in the thread")
        said = Said(await self.phone.say(self.room_id, body, thread=root), root, body)
        self.run.said.append(said)
        self.run.bookings += booking
        return said

    async def take_breath(self) -> None:
        """Write no more a minute than the bot takes."""
        if len(self.said_at) >= COMMANDS_A_MINUTE:
            await asyncio.sleep(max(0.0, self.said_at[-COMMANDS_A_MINUTE] + 60 - time.monotonic()))
        self.said_at.append(time.monotonic())

    async def answer_to(self, said: Said) -> Message:
        return await self.phone.human.next_message(
            self.phone.bot, lambda message: message.thread_root == said.root, timeout=ANSWERED_WITHIN
        )


async def answer_requests(run: Run, phone: Phone) -> None:
    """A supervisor who taps on most requests, for ever."""
    dice, looked_at = random.Random(run.dice.random()), 0
    while True:
        for message in phone.human.heard(phone.bot)[looked_at:]:
            looked_at += 1
            if phone.human.user_id in message.mentions and "✅" in message.body:
                key = dice.choices(("✅", "❌", ""), (5, 2, 3))[0]
                await asyncio.sleep(dice.uniform(0, 0.5))
                if key:
                    run.taps.append(await phone.react(message.room_id, message.event_id, key))
        await asyncio.sleep(0.1)


async def kill_again_and_again(run: Run) -> None:
    """Kill at random moments of the run, some of them in the middle of a start."""
    moments = sorted(run.dice.sample(range(BOOKINGS - 1), KILLS))
    for moment in moments:
        while run.bookings <= moment:  # noqa: ASYNC110 - people write
            await asyncio.sleep(0.02)
        if run.kills >= KILLS:
            return
        await asyncio.sleep(run.dice.uniform(0, 1.5))
        await strike(run)
        while run.kills < KILLS and run.dice.random() < 0.2:
            await asyncio.sleep(run.dice.uniform(0, 8))
            await strike(run)
        await run.demo.wait_until_ready()
        assert run.demo.programs() == ["postgres", "synapse", "visavis"]


async def strike(run: Run) -> None:
    await run.demo.kill()
    run.kills += 1
    if run.dice.random() < 0.5:
        await run.demo.wait_until_gone()
    await run.demo.start()


async def free_times(demo: Demo) -> dict[str, list[datetime]]:
    """Matrix ID of a supervisee -> every time that can be booked from tomorrow on."""
    now = datetime.now(UTC)
    async with demo.database() as database, database.transaction() as tx:
        return {
            pair.supervisee.matrix_id or "": [
                slot.starts_at
                for slot in await availability.slots(
                    tx, pair, since=now + timedelta(days=1), until=now + timedelta(days=80), now=now
                )
            ]
            for pair in await pairs.list_all(tx)
        }


async def wait_until_settled(run: Run, timeout: float) -> None:
    """Wait until nothing that is due is open in the outbox, but for what waits until somebody without a phone has one.

    A mail that a killed process had claimed is tried again when its lease is over; the short form lets that time pass
    at once.
    """
    demo = run.demo
    told = [uuid.UUID(demo.person(name)["id"]) for name in PEOPLE]
    due = (
        select(notifications.c.channel, notifications.c.kind, notifications.c.state, notifications.c.attempts)
        .where(
            or_(
                notifications.c.state == State.PENDING,
                (notifications.c.state == State.WAITING) & notifications.c.person_id.in_(told),
            ),
            notifications.c.send_at <= func.now(),
        )
        .order_by(notifications.c.position)
    )
    end_leases = text(
        "UPDATE notifications SET claimed_until = now() WHERE channel = 'mail' AND state = 'pending'"
        " AND claimed_until < :until"
    )
    async with demo.database() as database:
        if not LONG:
            async with database.transaction() as tx:
                await tx.execute(end_leases, {"until": demo.started_at + LEASE})
                await tx.execute(text("SELECT pg_notify('visavis_mail', '')"))
        rows: list[Row[Any]] = []
        try:
            async with asyncio.timeout(timeout):
                quiet = 0
                while quiet < 8:  # two seconds: a tap that is on its way makes news again
                    async with database.transaction() as tx:
                        rows = list(await tx.execute(due))
                    quiet = 0 if rows else quiet + 1
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise TimeoutError(f"still open: {rows}") from None


@asynccontextmanager
async def everybody(demo: Demo, store: Path) -> AsyncIterator[dict[str, Phone]]:
    """Whoever takes part, in their rooms, with the bot's introduction heard."""
    async with AsyncExitStack() as stack:
        phones = await asyncio.gather(*(stack.enter_async_context(demo.phone(name, store)) for name in PEOPLE))
        for phone in phones:
            for room_id in phone.rooms:
                await phone.human.next_message(phone.bot, room_id=room_id)
        yield dict(zip(PEOPLE, phones, strict=True))


@pytest.mark.timeout(3600 if LONG else 600)
async def test_kills_lose_no_command_and_repeat_nothing(tmp_path: Path) -> None:
    try:
        async with Demo.run(tmp_path / "demo") as demo:
            await run_and_judge(demo, tmp_path)
    except BaseException as error:
        error.add_note(f"VISAVIS_SEED={SEED}")
        raise


async def run_and_judge(demo: Demo, store: Path) -> None:
    run = Run(demo, random.Random(SEED))
    free = await free_times(demo)
    async with everybody(demo, store) as phones:
        bookers = [Booker(run, phones[name], free[phones[name].human.user_id]) for name in BOOKERS]
        shares = [BOOKINGS // 3 + (place < BOOKINGS % 3) for place in range(3)]
        async with asyncio.TaskGroup() as group:
            tapping = [group.create_task(answer_requests(run, phones[name])) for name in SUPERVISORS]
            async with asyncio.TaskGroup() as working:
                working.create_task(kill_again_and_again(run))
                for booker, share in zip(bookers, shares, strict=True):
                    working.create_task(booker.book(share))
            await wait_until_settled(run, timeout=300)
            for task in tapping:
                task.cancel()
        await wait_until_settled(run, timeout=120)
        assert (run.bookings, run.kills) == (BOOKINGS, KILLS)
        async with demo.database() as database, database.transaction() as tx:
            await judge_answers(tx, run, phones)
            await judge_news(tx, run, phones)
            await judge_calendar(tx)
            await judge_mails(tx, demo.mails())
    assert await demo.stop() == 0
    assert demo.programs() == []


async def judge_answers(tx: Transaction, run: Run, phones: dict[str, Phone]) -> None:
    """Every command stands in the journal once, and its person has seen one answer, in its thread."""
    commands = [said.event_id for said in run.said]
    outcomes = {row.event_id: row.outcome for row in await tx.execute(select(journal.c.event_id, journal.c.outcome))}
    assert set(commands) <= set(outcomes)
    assert set(outcomes) <= {*commands, *run.taps}
    assert set(outcomes.values()) <= {"done", "refused.slot_taken", "refused.already_answered", "refused.stale"}

    replies = list(
        await tx.execute(
            select(
                notifications.c.matrix_event_id, notifications.c.state, notifications.c.details["thread"].astext
            ).where(notifications.c.kind == "reply")
        )
    )
    answers = [reply for reply in replies if reply[2] is not None]
    assert Counter(reply[2] for reply in answers) == Counter(said.root for said in run.said)
    assert {reply.state for reply in replies} <= {State.SENT}
    heard = {
        message.event_id: message
        for phone in phones.values()
        for message in phone.human.heard(phone.bot)
        if message.msgtype == "m.notice"
    }
    assert set(heard) == {reply.matrix_event_id for reply in replies}
    assert {message.event_id: message.thread_root for message in heard.values() if message.thread_root} == {
        reply.matrix_event_id: reply[2] for reply in answers
    }


async def judge_news(tx: Transaction, run: Run, phones: dict[str, Phone]) -> None:
    """Each person has seen each of their news once, word for word as often as it was to be said."""
    rows = list(
        await tx.execute(
            select(
                notifications,
                appointments.c.starts_at,
                appointments.c.ends_at,
                (notifications.c.revision < appointments.c.revision).label("outdated"),
            )
            .join(appointments, appointments.c.id == notifications.c.appointment_id)
            .where(notifications.c.channel == Channel.MATRIX, notifications.c.send_at <= func.now())
        )
    )
    fresh = [row for row in rows if row.created_at >= run.begun]
    assert {row.state for row in fresh if not row.outdated} == {State.SENT}
    assert {row.state for row in fresh} <= {State.SENT, State.SUPERSEDED}
    known = {pair.id: pair for pair in await pairs.list_all(tx)}
    noted = set(await tx.scalars(select(notifications.c.matrix_event_id)))
    for phone in phones.values():
        mine = [row for row in rows if str(row.person_id) == phone.person["id"]]
        said = Counter(sentence(row, known[row.pair_id]) for row in mine if row.state == State.SENT)
        # Sent, and then outdated before that could be noted: a kill between the two may leave one of these.
        perhaps = Counter(
            sentence(row, known[row.pair_id]) for row in mine if row.state == State.SUPERSEDED and row.attempts
        )
        told = [message for message in phone.human.heard(phone.bot) if phone.human.user_id in message.mentions]
        heard = Counter(message.body for message in told if message.body in said | perhaps)
        assert said <= heard <= said + perhaps
        others = {message.event_id for message in told if message.body not in said | perhaps}
        assert others <= noted  # introductions and summaries


def sentence(row: Row[Any], pair: Pair) -> str:
    """What a notification says in its person's language and zone."""
    addressee = pair.member(row.person_id)
    names = {
        "supervisor": pair.supervisor.name,
        "supervisee": pair.supervisee.name,
        "span": Span(row.starts_at, row.ends_at, pair.other(addressee.id).time_zone),
        "who": pair.member(uuid.UUID(row.details["by"])).name,
        "until": Moments((min(row.created_at + OPEN_FOR, row.starts_at),)),
    }
    key = row.kind.replace("appointment.", "news.") + ("_late" if row.details.get("late") else "")
    return reader(addressee.language, addressee.time_zone).as_of(row.created_at).say(key, **names)


async def judge_calendar(tx: Transaction) -> None:
    """One appointment and audit entry for each booking that was made, and just their time is held."""
    booked = Counter(await tx.scalars(select(appointments.c.id)))
    audited = await tx.scalars(
        select(audit_entries.c.resource_id).where(audit_entries.c.action == "appointment.book", audit_entries.c.success)
    )
    assert booked == Counter(uuid.UUID(resource_id) for resource_id in audited)
    status = {row.id: row.status for row in await tx.execute(select(appointments.c.id, appointments.c.status))}
    proposed = set(await tx.scalars(select(appointments.c.id).where(appointments.c.proposal_id.is_not(None))))
    ranges = list(await tx.execute(select(holds.c.appointment_id, holds.c.person_id, holds.c.during)))
    held = Counter(row.appointment_id for row in ranges if row.appointment_id is not None)
    assert {found for one, found in status.items() if one not in held} <= {Status.DECLINED, Status.CANCELLED}
    assert {status[one] for one in held} <= {Status.REQUESTED, Status.CONFIRMED, Status.COMPLETED}
    assert held == {one: 4 if one in proposed else 2 for one in held}  # a proposal holds both times of both
    for one in ranges:
        overlapping = [
            other
            for other in ranges
            if other.person_id == one.person_id
            and other is not one
            and one.during.lower < other.during.upper
            and other.during.lower < one.during.upper
        ]
        assert overlapping == []


async def judge_mails(tx: Transaction, mails: list[EmailMessage]) -> None:
    """Each mail that was due was sent or outdated; what came twice came with one Message-ID and one entry."""
    rows = {
        f"<{row.id}@visavis.example>": row
        for row in await tx.execute(
            select(notifications).where(
                notifications.c.channel == Channel.MAIL, notifications.c.send_at <= datetime.now(UTC)
            )
        )
    }
    assert {row.state for row in rows.values()} <= {State.SENT, State.SUPERSEDED, State.EXPIRED}
    sent = {message_id for message_id, row in rows.items() if row.state == State.SENT}
    kept = Counter(str(mail["Message-ID"]) for mail in mails)
    assert sent <= set(kept) <= set(rows)
    entries: dict[str, set[bytes]] = {}
    for mail in mails:
        parts = [part for part in mail.walk() if part.get_content_type() == "text/calendar"]
        entry = bytes(parts[0].get_payload(decode=True)) if parts else b""  # a proposal or offer has none
        entries.setdefault(str(mail["Message-ID"]), set()).add(entry)
    assert {len(found) for found in entries.values()} == {1}

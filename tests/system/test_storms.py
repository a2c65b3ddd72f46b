"""Many rooms talking while the homeserver is stopped and restarted again and again: each command answered once.

`make test` runs a short form; `make faults` the twenty restarts and ten minutes' stop within two thousand commands
of twenty rooms that the promise names. `VISAVIS_SEED` repeats a run's dice.
"""

import asyncio
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import select

from embedded.postgresql import PostgreSQL, start_postgresql
from embedded.servers import Servers
from embedded.synapse import Synapse, start_synapse
from supervision.models import State, journal, notifications
from supervision.pairs import Pair
from tests.support.demo import Phone
from tests.support.practice import Practice, open_practice

LONG = os.environ.get("VISAVIS_LONG") == "1"
SUPERVISORS, SUPERVISEES, COMMANDS, RESTARTS, AWAY = (2, 10, 2000, 20, 600.0) if LONG else (2, 2, 24, 2, 1.0)
SEED = int(os.environ.get("VISAVIS_SEED", secrets.randbelow(1_000_000)))
AT_ONCE = 18  # commands of a person, before pacing begins; the bot takes 20 in a row, and as many a minute
BETWEEN = 3.3  # seconds between two commands of a person after that
SOON = 300.0  # seconds for the last answers
# What needs no other's answer; the last one changes something each time.
WORDS = ("!help", "!ajuda", "!language", "!appointments", "!agenda", "!language en")

pytestmark = pytest.mark.faults


@dataclass
class Home:
    """The homeserver, with a database server of its own."""

    synapse: Synapse
    postgresql: PostgreSQL

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator["Home"]:
        async with AsyncExitStack() as stack:
            postgresql = await start_postgresql(folder / "p", durable=False)
            stack.push_async_callback(postgresql.stop)
            home = cls(await start_synapse(folder / "s", postgresql=postgresql, hash_rounds=4), postgresql)
            stack.push_async_callback(lambda: home.synapse.stop())
            yield home

    async def freeze(self, away: float) -> None:
        """Let it take requests and answer none of them for so many seconds."""
        os.kill(self.synapse.child.pid, signal.SIGSTOP)
        await asyncio.sleep(away)
        os.kill(self.synapse.child.pid, signal.SIGCONT)

    async def restart(self, how: signal.Signals, away: float) -> None:
        """End it, leave it away for so many seconds, and start it again on the same port."""
        os.kill(self.synapse.child.pid, how)
        await self.synapse.stop()
        await asyncio.sleep(away)
        self.synapse = await start_synapse(self.synapse.folder.path, postgresql=self.postgresql, hash_rounds=4)


@dataclass
class Storm:
    """What was said so far: the roots of the commands' threads, and the commands, as (room, event ID)."""

    commands: list[tuple[str, str]] = field(default_factory=list)
    roots: list[tuple[str, str]] = field(default_factory=list)
    begun: int = 0


@dataclass
class Speaker:
    """A person who writes commands in all rooms of theirs in turns, no faster than the bot takes them."""

    storm: Storm
    phone: Phone
    dice: random.Random
    said: int = 0
    next_at: float = 0.0

    async def speak(self) -> None:
        while self.storm.begun < COMMANDS:
            self.storm.begun += 1
            if self.said >= AT_ONCE:
                await asyncio.sleep(self.next_at - time.monotonic())
            self.next_at = time.monotonic() + BETWEEN
            room_id = self.phone.rooms[self.said % len(self.phone.rooms)]
            self.said += 1
            # A thread of its own tells this command's answers from all others.
            root = await self.phone.say(room_id, "what follows is in the thread")
            self.storm.roots.append((room_id, root))
            event_id = await self.phone.say(room_id, self.dice.choice(WORDS), thread=root)
            self.storm.commands.append((room_id, event_id))


async def blow(storm: Storm, home: Home, dice: random.Random) -> None:
    """Restart the homeserver at random moments of the storm; at one of them it stays away for longer."""
    moments = sorted(dice.sample(range(COMMANDS // 10, COMMANDS * 9 // 10), RESTARTS))
    longest = dice.randrange(RESTARTS)
    for place, moment in enumerate(moments):
        while len(storm.commands) < moment:  # noqa: ASYNC110 - people write
            await asyncio.sleep(0.02)
        how = dice.choice((signal.SIGKILL, signal.SIGTERM))
        if place != longest:
            await home.restart(how, dice.uniform(0, 2) if LONG else 0.0)
        elif LONG:
            await home.restart(how, AWAY)
        else:
            await home.freeze(AWAY)  # a start takes as long as all the rest of the short form


@pytest.mark.timeout(AWAY + 2400 if LONG else 400)
async def test_storm(servers: Servers, database_name: str, tmp_path: Path) -> None:
    try:
        async with AsyncExitStack() as stack:
            home = await stack.enter_async_context(Home.open(tmp_path))
            practice = await stack.enter_async_context(
                open_practice(replace(servers, synapse=home.synapse), database_name, tmp_path)
            )
            phones = await gather(stack, practice)
            await live_through(practice, home, phones)
    except BaseException as error:
        error.add_note(f"VISAVIS_SEED={SEED}")
        raise


async def gather(stack: AsyncExitStack, practice: Practice) -> list[Phone]:
    """Everybody's phone, in the rooms of the pairs that each supervisor has with each supervisee."""
    supervisors = [
        await practice.add_person(f"Ana{n}", ["supervisor"], language="pt-BR", time_zone="America/Sao_Paulo")
        for n in range(SUPERVISORS)
    ]
    supervisees = [
        await practice.add_person(f"Bruno{n}", ["supervisee"], language="en", time_zone="Europe/Lisbon")
        for n in range(SUPERVISEES)
    ]
    known: list[Pair] = [await practice.add_pair(one, other) for one in supervisors for other in supervisees]
    phones = []
    for person in (*supervisors, *supervisees):
        human = await stack.enter_async_context(practice.phone(person))
        rooms = [pair.room_id or "" for pair in known if person.id in (pair.supervisor.id, pair.supervisee.id)]
        phones.append(Phone(human, practice.bot, {}, rooms))
        for room_id in rooms:
            await human.join(room_id)
    for phone in phones:
        for room_id in phone.rooms:
            await phone.human.next_message(practice.bot, room_id=room_id)
    for phone in phones:
        phone.human.unreadable.clear()  # what greeted the other in the moment in which this person came
    return phones


async def live_through(practice: Practice, home: Home, phones: list[Phone]) -> None:
    storm, dice = Storm(), random.Random(SEED)
    async with asyncio.TaskGroup() as group:
        group.create_task(blow(storm, home, dice))
        for phone in phones:
            group.create_task(Speaker(storm, phone, random.Random(dice.random())).speak())
    assert len(storm.commands) == COMMANDS
    for phone in phones:
        await hear_all(phone, set(roots_of(storm, phone)))
    await wait_until_settled(practice)
    await asyncio.sleep(10 if LONG else 0.5)  # nothing comes a second time
    for phone in phones:
        assert roots_heard(phone) == roots_of(storm, phone)
        # Only the bot's: the phones are nio's, which can lose the key of what they share while the homeserver dies.
        assert [event for event in phone.human.unreadable.values() if event.sender == practice.bot] == []
    async with practice.database.transaction() as tx:
        outcomes = {
            row.event_id: row.outcome for row in await tx.execute(select(journal.c.event_id, journal.c.outcome))
        }
        states = Counter(await tx.scalars(select(notifications.c.state).where(notifications.c.kind == "reply")))
    assert outcomes == {event_id: "done" for _, event_id in storm.commands}
    assert states == {State.SENT: COMMANDS}


async def hear_all(phone: Phone, roots: set[tuple[str, str | None]]) -> None:
    await phone.human.wait_for(lambda: True if roots <= set(roots_heard(phone)) else None, "all answers", SOON)


def roots_heard(phone: Phone) -> Counter[tuple[str, str | None]]:
    """The threads of the bot's answers that this person's phone shows."""
    notices = (message for message in phone.human.heard(phone.bot) if message.msgtype == "m.notice")
    return Counter((message.room_id, message.thread_root) for message in notices)


def roots_of(storm: Storm, phone: Phone) -> Counter[tuple[str, str | None]]:
    """The threads of all commands in this person's rooms."""
    return Counter((room_id, root) for room_id, root in storm.roots if room_id in phone.rooms)


async def wait_until_settled(practice: Practice) -> None:
    query = select(notifications.c.id).where(
        notifications.c.kind == "reply", notifications.c.state.in_((State.PENDING, State.WAITING))
    )
    async with asyncio.timeout(SOON):
        while True:
            async with practice.database.transaction() as tx:
                if not list(await tx.scalars(query)):
                    return
            await asyncio.sleep(0.1)

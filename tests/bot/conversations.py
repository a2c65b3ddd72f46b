"""A pair's room without its homeserver: what commands and taps are answered, and what the outbox has to say."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bot import answers, commands
from bot.news import Message, compose
from bot.quiet import keep_back
from bot.replies import Line, Reply
from bot.talks import Talk
from supervision import notifications, policies, preferences, questions
from supervision.audit import Actor
from supervision.db import Database, Transaction
from supervision.hours import Availability
from supervision.models import Channel
from supervision.notifications import Notice, Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import Preferences
from supervision.questions import Asked
from supervision.texts import reader
from tests.support.sample import OPEN_HOURS, add_pair, add_person

CALLING = {"appointment", "attendance", "move", "series", "wait"}  # kinds of news that call their one reader, always


@dataclass
class Conversation:
    """`now` is the clock, which a test may put forward."""

    database: Database
    pair: Pair
    now: datetime
    heard: dict[uuid.UUID, list[tuple[str, Message]]] = field(default_factory=dict)

    @property
    def ana(self) -> Person:
        return self.pair.supervisor

    @property
    def bruno(self) -> Person:
        return self.pair.supervisee

    def pass_time(self, **lapse: float) -> None:
        self.now += timedelta(**lapse)

    async def say(self, person: Person, text: str) -> list[str]:
        """The answer to a command, as its sender reads it; a list that it shows is remembered."""
        command = commands.parse(text)
        assert command is not None
        async with self.database.transaction() as tx:
            reply = await answers.answer(self._talk(tx, person), command)
            await self._remember(tx, person, reply)
        self.pair = reply.pair or self.pair
        return read(self.pair.member(person.id), reply.lines)

    async def tap(self, person: Person, asked: Asked, key: str) -> list[str] | None:
        """The answer to a reaction under a question, empty where the news says it; None where it does not count."""
        number = int(key) if key.isdecimal() else None
        yes = {"✅": True, "❌": False}.get(key)
        async with self.database.transaction() as tx:
            reply = await answers.answer_tap(self._talk(tx, person), asked, yes=yes, number=number)
        return None if reply is None else read(person, reply.lines)

    async def news(self, person: Person) -> list[tuple[str, Message]]:
        """What the bot told this person in the room since the last time, each as one text and as it is sent."""
        async with self.database.transaction() as tx:
            while await self._is_due(tx):
                for row in await notifications.claim(tx, Channel.MATRIX, now=self.now, most=100):
                    await self._deliver(tx, row)
        return self.heard.pop(person.id, [])

    async def _is_due(self, tx: Transaction) -> bool:
        """Whether another claim may find something: one that finds nothing may have settled what was in the way."""
        due = await notifications.next_due(tx, Channel.MATRIX, now=self.now)
        return due is not None and due <= self.now

    async def _deliver(self, tx: Transaction, row: Notification) -> None:
        message = await compose(tx, row, self.pair, now=self.now)
        if message is None:
            await notifications.settle_superseded(tx, row.id, now=self.now)
            return
        if await keep_back(tx, row, self.pair, message, now=self.now):
            return
        await notifications.settle_sent(tx, row.id, now=self.now, matrix_event_id=f"${row.id}")
        if message.asked is not None:
            await questions.put(tx, message.asked, now=self.now)
        if row.kind.split(".")[0] in CALLING:
            assert message.mentions == (self.pair.member(row.person_id),)
        if row.kind != "room.introduction":
            text = "\n".join(read(self.pair.member(row.person_id), message.lines))
            self.heard.setdefault(row.person_id, []).append((text, message))

    async def told(self, person: Person) -> list[str]:
        return [text for text, _ in await self.news(person)]

    async def question(self, person: Person) -> tuple[str, Asked, tuple[str, ...]]:
        """The one piece of news, as the question that it is, with its reactions."""
        [(text, message)] = await self.news(person)
        assert message.asked is not None
        assert message.mentions == (person,)
        return text, message.asked, message.keys

    async def wish(self, person: Person, wishes: Preferences) -> None:
        async with self.database.transaction() as tx:
            await preferences.save(tx, Actor(person.id, "web"), person.id, wishes, now=self.now)

    async def settle(self, **changes: Any) -> None:
        """Change the supervisor's rules."""
        async with self.database.transaction() as tx:
            await policies.set_rules(tx, Actor(self.ana.id, "web"), self.ana.id, changes, now=self.now)

    def _talk(self, tx: Transaction, person: Person) -> Talk:
        return Talk(tx, self.pair, person, Actor(person.id, "matrix"), self.now, "http://localhost")

    async def _remember(self, tx: Transaction, person: Person, reply: Reply) -> None:
        """As handlers.py does with a list that goes out."""
        if reply.ask is None:
            return
        notice = Notice(person.id, Channel.MATRIX, "reply", {}, pair_id=self.pair.id, claimed=True, id=uuid.uuid4())
        await notifications.enqueue(tx, [notice], now=self.now)
        await notifications.settle_sent(tx, notice.id, now=self.now)
        ask = reply.ask
        await questions.put(
            tx,
            Asked(
                notice.id,
                self.pair.id,
                person.id,
                ask.kind,
                self.now + ask.lifetime,
                ask.appointment_id,
                None,
                ask.slots,
                ask.choices,
                ask.code,
                ask.details,
            ),
            now=self.now,
        )


def read(person: Person, lines: tuple[Line, ...]) -> list[str]:
    return [reader(person.language, person.time_zone).say(line.key, **line.params) for line in lines]


async def begin(
    database: Database, now: datetime, rules: Availability = OPEN_HOURS, zone: str | None = None
) -> Conversation:
    """Ana, booked from 9 to 18 on working days, and Bruno, who reads English; both in São Paulo unless told."""
    bruno = await add_person(
        database, "Bruno", ["supervisee"], now=now, language="en", time_zone=zone or "America/Sao_Paulo"
    )
    return Conversation(database, await add_pair(database, now=now, supervisee=bruno, rules=rules), now)

"""What somebody says in a pair's room and what the bot answers, without a homeserver in between."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from bot.answers import answer
from bot.commands import parse
from bot.replies import Reply
from bot.talks import Talk
from supervision import notifications, pairs, questions
from supervision.db import Database, Transaction
from supervision.errors import Refused
from supervision.models import Channel
from supervision.notifications import Notice
from supervision.pairs import Pair
from supervision.people import Person
from supervision.questions import Asked
from supervision.texts import from_json, reader, refusal_line, to_json
from tests.support.sample import acts

DASHBOARD = "http://localhost"


@dataclass
class Room:
    """A pair's room at a time that stands still until a test moves it."""

    database: Database
    pair: Pair
    now: datetime
    last: Reply | None = None

    async def hear(self, text: str, who: Person | None = None) -> list[str]:
        """The lines of the answer to a command, the supervisee's unless told otherwise; of a refusal its sentence."""
        person = who or self.pair.supervisee
        command = parse(text)
        assert command is not None
        try:
            async with self.database.transaction() as tx:
                pair = await pairs.get(tx, self.pair.id)
                self.last = await answer(Talk(tx, pair, person, acts(person), self.now, DASHBOARD), command)
                await self._note(tx, person, self.last)
        except Refused as refused:
            key, params = refusal_line(refused)
            return [reader(person.language, person.time_zone).as_of(self.now).say(key, **from_json(to_json(params)))]
        return [
            reader(person.language, person.time_zone).as_of(self.now).say(line.key, **from_json(to_json(line.params)))
            for line in self.last.lines
        ]

    async def ana(self, text: str) -> list[str]:
        """The same for the supervisor."""
        return await self.hear(text, self.pair.supervisor)

    @property
    def code(self) -> str:
        """What the last answer asks to type."""
        assert self.last is not None
        assert self.last.ask is not None
        assert self.last.ask.code is not None
        return self.last.ask.code

    async def _note(self, tx: Transaction, person: Person, reply: Reply) -> None:
        """Put the answer and what it asks where the bot puts them."""
        notice = Notice(person.id, Channel.MATRIX, "reply", {}, pair_id=self.pair.id, id=uuid.uuid4())
        await notifications.enqueue(tx, [notice], now=self.now)
        ask = reply.ask
        if ask is not None:
            asked = Asked(
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
            )
            await questions.put(tx, asked, now=self.now)

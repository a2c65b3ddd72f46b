"""Somebody of a pair, speaking in the pair's room: what every answer needs to know."""

from dataclasses import dataclass, field
from datetime import datetime

from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Transaction
from supervision.pairs import Pair
from supervision.people import Person
from supervision.texts import Reader, Span, reader


@dataclass(frozen=True)
class Talk:
    """One person of a pair, saying something in the pair's room, within a transaction."""

    tx: Transaction
    pair: Pair
    person: Person
    actor: Actor
    now: datetime
    dashboard: str
    template: str | None = None  # of the places to meet on-line, for a supervisor's first rules
    rooms: RoomsConfig = field(default_factory=RoomsConfig)  # what holds in a room for which nothing was settled
    unread_minutes: int = 30  # likewise, after which a mail tells what is unread

    @property
    def other(self) -> Person:
        return self.pair.other(self.person.id)

    @property
    def supervises(self) -> bool:
        return self.person.id == self.pair.supervisor.id

    def span(self, starts_at: datetime, ends_at: datetime, *, brief: bool = False) -> Span:
        return Span(starts_at, ends_at, self.other.time_zone, brief)

    @property
    def says(self) -> Reader:
        """Speaks to this person, now."""
        return reader(self.person.language, self.person.time_zone).as_of(self.now)

    def city(self) -> str:
        return self.says.city()

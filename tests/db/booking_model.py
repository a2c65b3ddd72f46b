"""What should come of everything that is done to bookings: a small model for test_booking_machine.py, and its cast."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from supervision.appointments import Appointment, Proposal
from supervision.db import Database
from supervision.hours import Availability
from supervision.models import Status
from supervision.pairs import Pair
from supervision.people import Person
from supervision.preferences import USUAL, Preferences
from supervision.waits import Wait
from tests.support.sample import add_pair, add_person

OPEN = (Status.REQUESTED, Status.CONFIRMED)
LEGAL = {
    (None, Status.REQUESTED),
    (None, Status.CONFIRMED),
    (Status.REQUESTED, Status.CONFIRMED),
    (Status.REQUESTED, Status.DECLINED),
    (Status.REQUESTED, Status.CANCELLED),
    (Status.CONFIRMED, Status.DECLINED),
    (Status.CONFIRMED, Status.CANCELLED),
    (Status.CONFIRMED, Status.COMPLETED),
    (Status.CONFIRMED, Status.NO_SHOW),
    (Status.COMPLETED, Status.NO_SHOW),
    (Status.NO_SHOW, Status.COMPLETED),
}

CLEARED = "holds questions notifications appointments waits series dated_exceptions preferences".split()

News = tuple[str, str, uuid.UUID]  # kind, channel, person
Range = tuple[datetime, datetime]


@dataclass
class Told:
    """A row of the outbox as the model knows it."""

    kind: str
    channel: str
    person: uuid.UUID
    appointment: uuid.UUID | None = None
    revision: int | None = None
    state: str = "pending"
    about: frozenset[uuid.UUID] = frozenset()  # the appointments of a series, or the wait
    due: datetime | None = None  # of a reminder


@dataclass
class World:
    """The model: appointments as they should stand, what was told, what was written down."""

    known: dict[uuid.UUID, Appointment] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    audited: list[str] = field(default_factory=list)
    waits: dict[uuid.UUID, Wait] = field(default_factory=dict)
    kept: dict[uuid.UUID, tuple[Range, Range]] = field(default_factory=dict)  # by wait: the two people's time
    wishes: dict[uuid.UUID, Preferences] = field(default_factory=dict)

    def put(self, after: Appointment, action: str, news: list[News], single: Sequence[Told] = ()) -> None:
        self.change(after, action)
        self.told += [Told(*one, after.id, after.revision) for one in news]
        self.told += single

    def put_group(
        self, changed: list[Appointment], action: str, news: list[News], single: list[Told], *, shown: bool = True
    ) -> None:
        """Many at once, with one piece of news; it overtakes earlier ones that speak of nothing but these."""
        ids = frozenset(one.id for one in changed)
        for one in changed:
            self.change(one, action)
        for told in self.told:
            overtaken = told.kind.startswith("series.") if shown else told.kind == "series.proposed"
            if overtaken and told.about <= ids and told.state == "pending":
                told.state = "superseded"
        self.told += [Told(*one, about=ids) for one in news] + single

    def change(self, after: Appointment, action: str) -> None:
        before = self.known.get(after.id)
        if before is None or before.status is not after.status:
            assert (before and before.status, after.status) in LEGAL
        if before is not None and after.revision > before.revision:
            for one in self.told:
                if one.appointment == after.id and one.state == "pending":
                    one.state = "superseded"
        self.known[after.id] = after
        self.audited.append(action)

    def reminders(self, one: Appointment, person: uuid.UUID, now: datetime) -> list[Told]:
        """What this person is still to be reminded of."""
        wishes = self.wishes.get(person, USUAL)
        planned = [("mail", minutes) for minutes in wishes.mail_reminders]
        planned += [("matrix", minutes) for minutes in wishes.room_reminders]
        moments = [(channel, one.starts_at - timedelta(minutes=minutes)) for channel, minutes in planned]
        kind = "appointment.reminder"
        return [
            Told(kind, channel, person, one.id, one.revision, due=due)
            for channel, due in moments
            if one.status is Status.CONFIRMED and due > now
        ]

    def wish(self, person: uuid.UUID, wishes: Preferences, now: datetime) -> None:
        """From now on this person is reminded like that."""
        self.wishes[person] = wishes
        self.audited.append("preferences.save")
        for told in self.told:
            if told.person == person and told.state == "pending" and told.due is not None and told.due > now:
                told.state = "superseded"
        for one in self.known.values():
            self.told += self.reminders(one, person, now) if person in one.people else []

    def put_wait(self, after: Wait, actions: list[str], kinds: list[tuple[str, str]], kept: Availability) -> None:
        """A wait as it is now, with its audit entries and its news as (kind, channel)."""
        self.waits[after.id] = after
        self.audited += actions
        self.told += [Told(*one, after.supervisee_id, about=frozenset({after.id})) for one in kinds]
        self.kept.pop(after.id, None)
        if after.offer is not None:
            times = after.offer.starts_at, after.offer.ends_at
            self.kept[after.id] = kept.held(*times), times

    def held(self) -> Iterator[tuple[uuid.UUID, Range]]:
        """What everybody's time is taken by, one person's touching ranges of one appointment as one."""
        for one in self.known.values():
            if one.status in (*OPEN, Status.COMPLETED, Status.NO_SHOW):
                times: list[Appointment | Proposal] = [one, *([one.proposal] if one.proposal else [])]
                for since, until in _merged([taken.held for taken in times]):
                    yield one.supervisor_id, (since, until)
                for since, until in _merged([(taken.starts_at, taken.ends_at) for taken in times]):
                    yield one.supervisee_id, (since, until)
        for key, (supervisor, supervisee) in self.kept.items():
            yield self.waits[key].supervisor_id, supervisor
            yield self.waits[key].supervisee_id, supervisee

    def is_free(self, wanted: dict[uuid.UUID, Range], without: uuid.UUID | None = None) -> bool:
        """Whether nothing but that appointment or wait takes any of these people's time."""
        others = World(
            {key: one for key, one in self.known.items() if key != without},
            waits=self.waits,
            kept={key: one for key, one in self.kept.items() if key != without},
        )
        return not any(
            person in wanted and since < wanted[person][1] and wanted[person][0] < until
            for person, (since, until) in others.held()
        )


def _merged(ranges: list[Range]) -> list[Range]:
    if len(ranges) == 2 and ranges[0][0] <= ranges[1][1] and ranges[1][0] <= ranges[0][1]:
        return [(min(one[0] for one in ranges), max(one[1] for one in ranges))]
    return ranges


def both_mailed(kind: str, appointment: Appointment) -> list[News]:
    return [(kind, "mail", one) for one in appointment.people]


@dataclass
class Cast:
    """Two supervisors, the second of whom is a supervisee of the first, two more supervisees, and a stranger."""

    supervisors: tuple[Person, Person]
    pairs: list[Pair]
    stranger: Person
    set_up: list[str] = field(default_factory=list)

    @property
    def by_id(self) -> dict[uuid.UUID, Pair]:
        return {pair.id: pair for pair in self.pairs}

    async def clear(self, owner: Database) -> None:
        """Forget every booking; people and pairs stay."""
        async with owner.transaction() as tx:
            for name in CLEARED:
                await tx.execute(text(f"DELETE FROM {name}"))  # noqa: S608 - these names
            await tx.execute(text("DELETE FROM audit_entries"))
            await tx.execute(text("UPDATE pairs SET approval = NULL, lengths = NULL"))
        self.pairs = [replace(pair, approval=None, lengths=None) for pair in self.pairs]
        self.set_up = ["availability.save"] * 2


async def make_cast(database: Database) -> Cast:
    now = datetime(2026, 10, 1, tzinfo=UTC)
    ana = await add_person(database, "Ana", ["supervisor"], now=now, time_zone="America/Sao_Paulo")
    nora = await add_person(database, "Nora", ["supervisor", "supervisee"], now=now, time_zone="America/New_York")
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now, time_zone="Europe/Lisbon")
    clara = await add_person(database, "Clara", ["supervisee"], now=now, time_zone="America/Sao_Paulo")
    stranger = await add_person(database, "Davi", ["supervisor", "supervisee", "admin"], now=now)
    couples = ((ana, bruno), (ana, clara), (nora, bruno), (ana, nora))
    made = [await add_pair(database, now=now, supervisor=one, supervisee=two) for one, two in couples]
    return Cast((ana, nora), made, stranger)

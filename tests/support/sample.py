"""Sample people and their bookings, for tests that need some."""

import secrets
import uuid
from datetime import date, datetime, time

from supervision import availability, pairs, people
from supervision.audit import SYSTEM, Actor
from supervision.db import Database
from supervision.hours import Availability, ClockRange, DatedException, WeeklyRange
from supervision.models import Exceptional
from supervision.pairs import Pair
from supervision.people import Person

WEEKDAYS = tuple(WeeklyRange(weekday, time(9), time(18)) for weekday in range(5))
REMINDERS = [  # the usual ones of an appointment of Ana's and Bruno's, in their order
    ("appointment.reminder", channel, name) for name in ("Ana", "Bruno") for channel in ("mail", "matrix", "matrix")
]
OPEN_HOURS = Availability(WEEKDAYS, length=50, grid=60, buffer_after=10, notice=60, horizon=60)


async def add_person(database: Database, name: str, roles: list[str], *, now: datetime, **values: str) -> Person:
    """A person with an address and a Matrix ID of their own; Portuguese and São Paulo unless said otherwise."""
    suffix = secrets.token_hex(4)
    async with database.transaction() as tx:
        return await people.add(
            tx,
            SYSTEM,
            name=name,
            email=values.get("email", f"{suffix}@example.org"),
            matrix_id=values.get("matrix_id", f"@{suffix}:example.org"),
            language=values.get("language", "pt-BR"),
            time_zone=values.get("time_zone", "America/Sao_Paulo"),
            roles=roles,
            now=now,
        )


async def add_pair(
    database: Database,
    *,
    now: datetime,
    supervisor: Person | None = None,
    supervisee: Person | None = None,
    rules: Availability = OPEN_HOURS,
) -> Pair:
    """Ana in São Paulo and Bruno in Lisbon, unless given: a pair that can book on working days from 9 to 18."""
    supervisor = supervisor or await add_person(database, "Ana", ["supervisor"], now=now)
    supervisee = supervisee or await add_person(
        database, "Bruno", ["supervisee"], now=now, language="en", time_zone="Europe/Lisbon"
    )
    async with database.transaction() as tx:
        await availability.save(tx, SYSTEM, supervisor.id, rules, now=now)
        return await pairs.add(tx, SYSTEM, supervisor, supervisee, now=now)


def acts(person: Person) -> Actor:
    """This person at the web's door."""
    return Actor(person.id, "web", ip="127.0.0.1", user_agent="test")


def exception(
    kind: Exceptional, first: date, last: date, clocks: ClockRange | None = None, *, yearly: bool = False
) -> DatedException:
    starts, ends = clocks or (None, None)
    return DatedException(uuid.uuid4(), kind, first, last, starts, ends, yearly)

"""The demo's people and their bookings: enough to look around, and free slots to try everything with."""

import asyncio
import json
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from sqlalchemy import update

from embedded.processes import read_kept, write_kept
from embedded.synapse import Synapse
from supervision import (
    appointments,
    availability,
    groups,
    moves,
    pairs,
    people,
    policies,
    public_holidays,
    repetitions,
    rooms,
    series,
    waits,
)
from supervision.appointments import Appointment
from supervision.audit import SYSTEM, Actor
from supervision.config import RoomsConfig
from supervision.db import Database, Transaction
from supervision.errors import NotFound
from supervision.groups import Scope
from supervision.hours import Availability, DatedException, Slot, WeeklyRange
from supervision.models import Exceptional, State, notifications
from supervision.pairs import Pair
from supervision.people import Person
from supervision.repetitions import Repetition

WORKING_DAYS = range(5)


@dataclass(frozen=True)
class Sample:
    name: str
    localpart: str
    roles: tuple[str, ...]
    language: str = "pt-BR"
    time_zone: str = "America/Sao_Paulo"


SAMPLES = (
    Sample("Ana Ribeiro", "ana", ("supervisor",)),
    Sample("Bruno Teixeira", "bruno", ("supervisee",)),
    Sample("Clara Nunes", "clara", ("supervisee",), time_zone="Europe/Lisbon"),
    Sample("Elisa Rocha", "elisa", ("supervisee",)),
    Sample("Helena Costa", "helena", ("supervisor",), time_zone="Europe/Lisbon"),
    Sample("Daniel Moore", "daniel", ("supervisee",), language="en", time_zone="Europe/London"),
    Sample("Rita Prado", "rita", ("admin",)),
)
# The first and the last share nobody, and have nothing to come: room for what people and scripts try out there.
PAIRS = (("ana", "bruno"), ("ana", "clara"), ("ana", "elisa"), ("helena", "daniel"))

MORNINGS_AND_AFTERNOONS = Availability(
    tuple(
        WeeklyRange(weekday, starts, ends)
        for weekday in WORKING_DAYS
        for starts, ends in ((time(9), time(12)), (time(14), time(18)))
    ),
    length=50,
    grid=60,
    buffer_after=10,
    notice=120,
    horizon=90,
)
IN_SAO_PAULO = replace(
    MORNINGS_AND_AFTERNOONS, country="BR", subdivision="SP", place="https://calls.visavis.example/{room}"
)
A_WEEK = timedelta(weeks=1)


@dataclass(frozen=True)
class DemoPerson:
    person: Person
    password: str


async def fill(database: Database, synapse: Synapse, folder: Path) -> list[DemoPerson]:
    """Make the sample people, their accounts and their bookings, once; what is there already is left as it is.

    Passwords are made at the first start and kept in `folder`.
    """
    passwords = keep_passwords(folder / "passwords.json")
    async with asyncio.TaskGroup() as group:
        for sample in SAMPLES:
            group.create_task(synapse.register(sample.localpart, passwords[sample.localpart], sample.name))
        group.create_task(public_holidays.open_calendars())
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        found = {sample.localpart: await find_or_add(tx, sample, synapse.server_name, now) for sample in SAMPLES}
        if not await pairs.list_all(tx):
            await add_bookings(tx, found, now)
    return [DemoPerson(found[sample.localpart], passwords[sample.localpart]) for sample in SAMPLES]


def keep_passwords(path: Path) -> dict[str, str]:
    kept = read_kept(path)
    for sample in SAMPLES:
        kept.setdefault(sample.localpart, "-".join(secrets.token_hex(2) for _ in range(3)))
    write_kept(path, json.dumps(kept))
    return kept


async def find_or_add(tx: Transaction, sample: Sample, server_name: str, now: datetime) -> Person:
    email = f"{sample.localpart}@visavis.example"
    try:
        return await people.by_email(tx, email)
    except NotFound:
        return await people.add(
            tx,
            SYSTEM,
            name=sample.name,
            email=email,
            matrix_id=f"@{sample.localpart}:{server_name}",
            language=sample.language,
            time_zone=sample.time_zone,
            roles=sample.roles,
            now=now,
        )


async def add_bookings(tx: Transaction, found: dict[str, Person], now: datetime) -> None:
    """Two supervisors' hours, and four pairs: the first has a past, the second an appointment and a request to come,
    the third a bit of everything.
    """
    await availability.save(tx, SYSTEM, found["ana"].id, IN_SAO_PAULO, now=now)
    await availability.save(tx, SYSTEM, found["helena"].id, MORNINGS_AND_AFTERNOONS, now=now)
    first, second, third, _ = [
        await pairs.add(tx, SYSTEM, found[supervisor], found[supervisee], now=now + timedelta(microseconds=place))
        for place, (supervisor, supervisee) in enumerate(PAIRS)
    ]
    for weeks in (6, 4, 2):
        await add_past(tx, first, now - timedelta(weeks=weeks), cancelled=weeks == 6, now=now)
    await take_a_day_off(tx, found["ana"], now)
    confirmed = await add_appointment_and_request(tx, second, now)
    await add_series_and_proposal(tx, third, now)
    await rooms.settle(tx, acts(third.supervisor), third.id, {"retention_days": 180}, RoomsConfig(), now=now)
    await waits.join(
        tx, acts(third.supervisee), third, [(confirmed.starts_at, confirmed.starts_at + timedelta(minutes=1))], now=now
    )


async def take_a_day_off(tx: Transaction, supervisor: Person, now: datetime) -> None:
    """The Friday after the coming seven days."""
    today = now.astimezone(supervisor.zone).date()
    day = today + timedelta(days=7 + (4 - today.weekday()) % 7)
    off = DatedException(uuid.uuid4(), Exceptional.TIME_OFF, day, day)
    await availability.add_exception(tx, acts(supervisor), supervisor.id, off, now=now)


async def add_appointment_and_request(tx: Transaction, pair: Pair, now: datetime) -> Appointment:
    """An appointment soon, and a request that waits for the supervisor."""
    free = await free_slots(tx, pair, now)
    booked = await appointments.book(tx, acts(pair.supervisee), pair, free[0].starts_at, now=now)
    await appointments.book(tx, acts(pair.supervisee), pair, free[-1].starts_at, now=now)
    return await appointments.confirm(tx, acts(pair.supervisor), booked.id, now=now)


async def add_series_and_proposal(tx: Transaction, pair: Pair, now: datetime) -> None:
    """A weekly series without the days that are taken, and a longer appointment that the supervisor wants to move."""
    await policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=(50, 90), approval=None, now=now)
    pair = await pairs.get(tx, pair.id)
    first = (await free_slots(tx, pair, now))[1].starts_at
    rule = repetitions.rule_of(Repetition("weekly", count=8), repetitions.wall_clock(first, pair.supervisor.zone))
    asked = await series.book(tx, acts(pair.supervisee), pair, first, rule, skip=True, now=now)
    await groups.confirm(tx, acts(pair.supervisor), asked.booked[0].id, Scope.ALL, now=now)
    long = await free_slots(tx, pair, now, length=90)
    booked = await appointments.book(tx, acts(pair.supervisor), pair, long[-1].starts_at, length=90, now=now)
    await moves.reschedule(tx, acts(pair.supervisor), booked.id, long[-4].starts_at, now=now)


async def free_slots(tx: Transaction, pair: Pair, now: datetime, length: int | None = None) -> Sequence[Slot]:
    """What is free from the day after tomorrow on, for ten days."""
    since = now + timedelta(days=2)
    return await availability.slots(tx, pair, since=since, until=since + timedelta(days=10), now=now, length=length)


async def add_past(tx: Transaction, pair: Pair, around: datetime, *, cancelled: bool, now: datetime) -> None:
    """An appointment as it was made back then. Its news are old: nobody is told today."""
    asked_at = around - timedelta(days=3)
    free = await availability.slots(tx, pair, since=around, until=around + A_WEEK, now=asked_at)
    booked = await appointments.book(tx, acts(pair.supervisee), pair, free[len(free) // 2].starts_at, now=asked_at)
    await appointments.confirm(tx, acts(pair.supervisor), booked.id, now=asked_at + timedelta(hours=2))
    if cancelled:
        await appointments.cancel(tx, acts(pair.supervisee), booked.id, now=asked_at + timedelta(days=1))
    await tx.execute(
        update(notifications)
        .where(notifications.c.appointment_id == booked.id)
        .values(state=State.EXPIRED, settled_at=asked_at)
    )
    await appointments.close_past(tx, now=now)


def acts(person: Person) -> Actor:
    return Actor(person.id, "demo")


def describe(
    demo_people: list[DemoPerson],
    known: list[Pair],
    *,
    web: str,
    homeserver: str,
    metrics: str,
    server_name: str,
    bot: str,
) -> str:
    """The content of `demo.json` (docs/install.md)."""
    content = {
        "web": web,
        "homeserver": homeserver,
        "metrics": metrics,
        "server_name": server_name,
        "bot": bot,
        "people": [
            {
                "id": str(one.person.id),
                "name": one.person.name,
                "email": one.person.email,
                "roles": sorted(one.person.roles),
                "matrix_id": one.person.matrix_id,
                "password": one.password,
                "language": one.person.language,
                "time_zone": one.person.time_zone,
                "sign_in": sign_in(web, one.person.id),
            }
            for one in demo_people
        ],
        "pairs": [
            {
                "id": str(pair.id),
                "supervisor_id": str(pair.supervisor.id),
                "supervisee_id": str(pair.supervisee.id),
                "supervisor": pair.supervisor.matrix_id,
                "supervisee": pair.supervisee.matrix_id,
                "room_id": pair.room_id,
            }
            for pair in known
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def sign_in(web: str, person_id: uuid.UUID) -> str:
    return f"{web}/demo/sign-in/{person_id}"

"""Mails to be delivered: of bookings made through the domain, and many reminders of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Row, func, select

from supervision import appointments, availability, notifications
from supervision.appointments import Appointment
from supervision.db import Database
from supervision.models import Channel, State
from supervision.models import notifications as table
from supervision.notifications import LOW, Notice
from supervision.reminders import KIND
from tests.support.bridges import SENDER
from tests.support.sample import acts, add_pair

DOMAIN = SENDER.partition("@")[2]


async def book(database: Database, count: int) -> list[Appointment]:
    """So many times of new pairs, booked by the supervisors; each booking owes a mail to either person."""
    booked: list[Appointment] = []
    while len(booked) < count:
        now = datetime.now(UTC)
        pair = await add_pair(database, now=now)
        async with database.transaction() as tx:
            free = await availability.slots(
                tx,
                pair,
                since=now + timedelta(days=2),
                until=now + timedelta(days=60),
                now=now,
                most=count - len(booked),
            )
        for slot in free:
            async with database.transaction() as tx:
                booked.append(await appointments.book(tx, acts(pair.supervisor), pair, slot.starts_at, now=now))
    return booked


def reminders(booked: Sequence[Appointment], count: int, *, priority: int = LOW) -> list[Notice]:
    """So many reminders of these appointments, spread over them and their people."""
    lanes = itertools.cycle([(one, person) for one in booked for person in one.people])
    return [
        Notice(person, Channel.MAIL, KIND, {"minutes": 1440}, one.pair_id, one.id, one.revision, priority)
        for one, person in itertools.islice(lanes, count)
    ]


async def enqueue(database: Database, notices: Sequence[Notice]) -> None:
    async with database.transaction() as tx:
        await notifications.enqueue(tx, notices, now=datetime.now(UTC))


async def owed(database: Database) -> dict[str, Row[tuple[object, ...]]]:
    """Message-ID -> row, of every mail whose time has come."""
    query = select(table).where(table.c.channel == Channel.MAIL, table.c.send_at <= func.now())
    async with database.transaction() as tx:
        return {f"{row.id}@{DOMAIN}": row for row in await tx.execute(query)}


async def count_states(database: Database) -> Counter[str]:
    """How many of the mails whose time has come are in which state."""
    query = (
        select(table.c.state, func.count())
        .where(table.c.channel == Channel.MAIL, table.c.send_at <= func.now())
        .group_by(table.c.state)
    )
    async with database.transaction() as tx:
        return Counter({row[0]: row[1] for row in await tx.execute(query)})


async def wait_until_settled(database: Database, timeout: float) -> Counter[str]:
    """Wait until no mail whose time has come is pending; the states that they are in."""
    states: Counter[str] = Counter()
    try:
        async with asyncio.timeout(timeout):
            while True:
                states = await count_states(database)
                if not states[State.PENDING]:
                    return states
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise TimeoutError(f"after {timeout} s: {dict(states)}") from None

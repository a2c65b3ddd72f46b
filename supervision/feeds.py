"""Feeds: a private address for each person who wants one, at which any calendar can read their appointments.

The address ends in a token that is made of the person's ID, the feed's nonce and the configured secret (seals.py). A
new nonce makes the old address worthless; without a row there is no address.
"""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects.postgresql import insert

from supervision import appointments, audit, people, seals
from supervision.audit import Actor
from supervision.calendars import GONE, Item
from supervision.db import Transaction, lock_people
from supervision.models import appointments as appointments_table
from supervision.models import feeds as table
from supervision.models import people as people_table
from supervision.people import Person

PAST = timedelta(days=90)
NOBODY = uuid.UUID(int=0)


async def token(tx: Transaction, secret: str, person_id: uuid.UUID) -> str | None:
    """What the person's calendar address ends in; None where they have none."""
    nonce = await tx.scalar(select(table.c.nonce).where(table.c.person_id == person_id))
    return None if nonce is None else seals.feed_token(secret, person_id, nonce)


async def open(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """Give the person an address; one that they have stays."""
    await lock_people(tx, [person_id])
    values = {"person_id": person_id, "nonce": uuid.uuid4(), "created_at": now}
    added = await tx.execute(insert(table).values(**values).on_conflict_do_nothing())
    if added.rowcount:
        await audit.record(tx, actor, "feed.open", "person", person_id, now=now)


async def renew(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """Give the person a new address; the old one, if there was any, shows nothing from now on."""
    await lock_people(tx, [person_id])
    fresh = {"nonce": uuid.uuid4(), "created_at": now}
    statement = insert(table).values(person_id=person_id, **fresh)
    await tx.execute(statement.on_conflict_do_update(index_elements=[table.c.person_id], set_=fresh))
    await audit.record(tx, actor, "feed.renew", "person", person_id, now=now)


async def close(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """Take the person's address away, if they have one."""
    await lock_people(tx, [person_id])
    gone = await tx.execute(delete(table).where(table.c.person_id == person_id))
    if gone.rowcount:
        await audit.record(tx, actor, "feed.close", "person", person_id, now=now)


async def find(tx: Transaction, secret: str, given: str) -> Person | None:
    """Whose feed a token opens. None for a token that never was or is worthless now, or of somebody disabled.

    It asks and compares the same in each of these cases, so the time taken tells them not apart.
    """
    claimed = seals.read_feed_token(given) or NOBODY
    query = (
        select(table.c.nonce, *people.COLUMNS)
        .join(people_table, people_table.c.id == table.c.person_id)
        .where(table.c.person_id == claimed, people_table.c.disabled_at.is_(None))
    )
    row = (await tx.execute(query)).one_or_none()
    nonce = NOBODY if row is None else row.nonce
    right = seals.matches(seals.feed_token(secret, claimed, nonce), given)
    return people.from_row(row[1:]) if right and row is not None else None


async def items(tx: Transaction, person_id: uuid.UUID, *, now: datetime) -> list[Item]:
    """What the person's feed shows, the earliest first: all that stands from 90 days ago on."""
    query = (
        select(people_table.c.name, appointments_table.c.updated_at, *appointments.COLUMNS)
        .join(people_table, people_table.c.id == appointments_table.c.supervisor_id)
        .where(
            or_(appointments_table.c.supervisor_id == person_id, appointments_table.c.supervisee_id == person_id),
            appointments_table.c.status.not_in(GONE),
            appointments_table.c.ends_at > now - PAST,
        )
        .order_by(appointments_table.c.starts_at, appointments_table.c.id)
    )
    found = []
    for name, updated_at, *values in await tx.execute(query):
        one = appointments.from_row(values)
        found.append(Item(one, None if one.supervisor_id == person_id else name, updated_at))
    return found

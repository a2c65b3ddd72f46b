"""Who is online and when they were last active, as far as their homeserver tells it. Only the other of a pair sees it.

A word grows old: nobody is shown as online, or as last seen, on the strength of one that nothing has renewed. So a
homeserver that tells no presence, and a bot that is away, show nothing at all rather than something that is not so.
"""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from supervision.db import Transaction
from supervision.models import PairStatus, pairs, people, presences

ONLINE_FOR = timedelta(minutes=10)  # without a new word
KNOWN_FOR = timedelta(hours=3)


@dataclass(frozen=True)
class Presence:
    """`active_at`, to the minute, is when the person last did something with a client of theirs, where that is told."""

    online: bool
    active_at: datetime | None = None


@dataclass(frozen=True)
class Told:
    """What the homeserver said of a person, by their Matrix ID, and when."""

    presence: Presence
    told_at: datetime


async def note(
    tx: Transaction, person_id: uuid.UUID, online: bool, active_at: datetime | None, *, now: datetime
) -> None:
    """The homeserver has said now how it stands with a person."""
    await note_all(tx, {person_id: Told(Presence(online, active_at), now)})


async def note_all(tx: Transaction, told: Mapping[uuid.UUID, Told]) -> None:
    """The same of several, in one statement. A word older than the one that is known changes nothing."""
    if not told:
        return
    rows = [
        {
            "person_id": person_id,
            "online": one.presence.online,
            "active_at": None if one.presence.active_at is None else to_minute(one.presence.active_at),
            "told_at": one.told_at,
        }
        for person_id, one in sorted(told.items())
    ]
    new = insert(presences).values(rows)
    changes = {name: new.excluded[name] for name in ("online", "active_at", "told_at")}
    await tx.execute(
        new.on_conflict_do_update(
            index_elements=["person_id"], set_=changes, where=presences.c.told_at <= new.excluded.told_at
        )
    )


async def of(tx: Transaction, person_ids: Collection[uuid.UUID], *, now: datetime) -> dict[uuid.UUID, Presence]:
    """How it stands with these people; who is missing is unknown."""
    query = select(presences.c.person_id, presences.c.online, presences.c.active_at).where(
        presences.c.person_id.in_(person_ids), _fresh(now)
    )
    return {person_id: Presence(online, active_at) for person_id, online, active_at in await tx.execute(query)}


async def online(tx: Transaction, *, now: datetime) -> int | None:
    """How many people are online; None where nothing is known of anybody, as where the homeserver tells nothing."""
    something = presences.c.online | presences.c.active_at.is_not(None)
    query = select(func.count(), func.count().filter(presences.c.online)).where(_fresh(now), something)
    known, there = (await tx.execute(query)).one()
    return there if known else None


async def known_of_bot(tx: Transaction, bot: str) -> dict[str, tuple[uuid.UUID, Told | None]]:
    """Everybody in the active pairs of one bot account, by their Matrix ID, with what was said of them last."""
    members = or_(people.c.id == pairs.c.supervisor_id, people.c.id == pairs.c.supervisee_id)
    query = (
        select(people.c.matrix_id, people.c.id, presences.c.online, presences.c.active_at, presences.c.told_at)
        .select_from(people)
        .join(pairs, members)
        .outerjoin(presences, presences.c.person_id == people.c.id)
        .where(pairs.c.bot == bot, pairs.c.status == PairStatus.ACTIVE)
        .where(people.c.matrix_id.is_not(None), people.c.disabled_at.is_(None))
        .distinct()
    )
    return {
        matrix_id: (person_id, None if told_at is None else Told(Presence(online, active_at), told_at))
        for matrix_id, person_id, online, active_at, told_at in await tx.execute(query)
    }


async def forget(tx: Transaction, person_ids: Collection[uuid.UUID]) -> None:
    """Know nothing of these people any more."""
    await tx.execute(delete(presences).where(presences.c.person_id.in_(person_ids)))


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """What is shown to nobody any more, as of people whose pairs are all archived, is not kept either."""
    await tx.execute(delete(presences).where(presences.c.told_at <= now - KNOWN_FOR))


def to_minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _fresh(now: datetime) -> ColumnElement[bool]:
    lately = presences.c.told_at > now - ONLINE_FOR
    return or_(lately, ~presences.c.online & (presences.c.told_at > now - KNOWN_FOR))

"""Which rooms of a bot stand as they were left, so that nothing is to be noted and nothing to be said: all in one
statement. At a start that is nearly every room, and each on its own would cost half a dozen statements.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from supervision.db import Transaction
from supervision.memberships import PRESENT
from supervision.models import Channel, State, memberships, notifications, pairs
from supervision.pairs import SUPERVISEE, SUPERVISOR


@dataclass(frozen=True)
class Sighting:
    """What a bot sees of a room: MXID -> membership, who can read, and whose devices are not known yet."""

    members: Mapping[str, str]
    readers: Collection[str]
    unsure: Collection[str]


ONE, OTHER = memberships.alias("one"), memberships.alias("other")
TO_DO = (
    select(notifications.c.id)
    .where(
        notifications.c.pair_id == pairs.c.id,
        notifications.c.channel == Channel.MATRIX,
        or_(
            notifications.c.state == State.WAITING,
            and_(notifications.c.state == State.PENDING, notifications.c.error == "stranger_in_room"),
        ),
    )
    .exists()
)
ALL = (
    select(
        pairs.c.room_id,
        pairs.c.fault,
        SUPERVISOR.c.matrix_id,
        pairs.c.supervisor_introduced_at,
        ONE.c.membership,
        ONE.c.readable,
        SUPERVISEE.c.matrix_id,
        pairs.c.supervisee_introduced_at,
        OTHER.c.membership,
        OTHER.c.readable,
        TO_DO.label("to_do"),
    )
    .join(SUPERVISOR, SUPERVISOR.c.id == pairs.c.supervisor_id)
    .join(SUPERVISEE, SUPERVISEE.c.id == pairs.c.supervisee_id)
    .outerjoin(ONE, and_(ONE.c.pair_id == pairs.c.id, ONE.c.person_id == pairs.c.supervisor_id))
    .outerjoin(OTHER, and_(OTHER.c.pair_id == pairs.c.id, OTHER.c.person_id == pairs.c.supervisee_id))
    .where(pairs.c.room_id == func.any(bindparam("rooms", type_=ARRAY(TEXT))))
)


async def settled(tx: Transaction, bot: str, seen: Mapping[str, Sighting]) -> set[str]:
    """Those of the rooms that stand as they were left, by what the bot of this Matrix ID sees of them."""
    rows = await tx.execute(ALL, {"rooms": list(seen)})
    return {row[0] for row in rows if _stands(tuple(row), bot, seen[row[0]])}


def _stands(row: Sequence[Any], bot: str, seen: Sighting) -> bool:
    _, fault, *about, to_do = row
    people = about[:4], about[4:]
    known = {bot, *(matrix_id for matrix_id, *_ in people)}
    strangers = {user for user, membership in seen.members.items() if membership in PRESENT} - known
    if to_do or strangers or seen.members.get(bot) != "join":
        return False
    return all(_is_as_left(person, seen, greeted=fault is not None) for person in people)


def _is_as_left(person: Collection[Any], seen: Sighting, *, greeted: bool) -> bool:
    """Whether one of the two is noted as they are seen, and the bot has introduced itself if they can read it."""
    matrix_id, introduced_at, membership, readable = person
    now = seen.members.get(matrix_id or "")
    can_read = matrix_id in seen.readers
    if can_read and introduced_at is None and not greeted:
        return False
    if membership is None:
        return now not in PRESENT
    return (membership, readable) == (now, can_read or (matrix_id in seen.unsure and readable))

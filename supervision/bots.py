"""Bot accounts: which there are, when they were last seen, and how many pairs each keeps."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert

from supervision.db import Transaction
from supervision.models import PairStatus, bots, pairs

SEEN_LATELY = timedelta(days=1)


@dataclass(frozen=True)
class BotAccount:
    """`pairs` are its active ones, `faults` the rooms of all of its that nothing is said in.

    `checked_at` is when all of its rooms and its own device were last compared with what they are to be.
    """

    matrix_id: str
    pairs: int
    faults: int
    started_at: datetime | None
    checked_at: datetime | None
    master_key: str | None


IS_ACTIVE = pairs.c.status == PairStatus.ACTIVE
SEEN_AT = func.greatest(bots.c.started_at, bots.c.checked_at)  # of nulls and times the latest time


def _with_pairs() -> Select[Any]:
    return (
        select(
            bots.c.matrix_id,
            func.count(pairs.c.id).filter(IS_ACTIVE),
            func.count(pairs.c.fault),
            bots.c.started_at,
            bots.c.checked_at,
            bots.c.master_key,
        )
        .outerjoin(pairs, pairs.c.bot == bots.c.matrix_id)
        .group_by(bots.c.matrix_id)
    )


async def list_all(tx: Transaction) -> list[BotAccount]:
    """Every bot account that ever started, by its Matrix ID."""
    return [BotAccount(*row) for row in await tx.execute(_with_pairs().order_by(bots.c.matrix_id))]


async def least_busy(tx: Transaction, *, now: datetime) -> str | None:
    """The account with the fewest active pairs among those seen within a day, or of all where none was."""
    lately = func.coalesce(SEEN_AT > now - SEEN_LATELY, False)
    busy = func.count(pairs.c.id).filter(IS_ACTIVE)
    query = _with_pairs().order_by(lately.desc(), busy, bots.c.matrix_id).limit(1)
    found: str | None = await tx.scalar(query)
    return found


async def has_others(tx: Transaction, matrix_id: str, *, now: datetime) -> bool:
    """Whether other bot accounts than this were seen within a day."""
    others = select(bots.c.matrix_id).where(bots.c.matrix_id != matrix_id, SEEN_AT > now - SEEN_LATELY)
    return await tx.scalar(others.limit(1)) is not None


async def register(tx: Transaction, matrix_id: str, master_key: str, *, now: datetime) -> None:
    """A bot account has started: from now on new pairs are given to it."""
    await tx.execute(insert(bots).values(matrix_id=matrix_id).on_conflict_do_nothing())
    known = update(bots).where(bots.c.matrix_id == matrix_id)
    await tx.execute(known.values(started_at=now, master_key=master_key))


async def note_checked(tx: Transaction, matrix_id: str, master_key: str, *, now: datetime) -> None:
    """All of its rooms and its own device are as they are to be, or what is wrong is noted."""
    known = update(bots).where(bots.c.matrix_id == matrix_id)
    await tx.execute(known.values(checked_at=now, master_key=master_key))


async def load_token(tx: Transaction, matrix_id: str) -> str | None:
    """Where its sync goes on."""
    token: str | None = await tx.scalar(select(bots.c.sync_token).where(bots.c.matrix_id == matrix_id))
    return token


async def save_token(tx: Transaction, matrix_id: str, token: str) -> None:
    """Everything before this token was handled."""
    await tx.execute(update(bots).where(bots.c.matrix_id == matrix_id).values(sync_token=token))

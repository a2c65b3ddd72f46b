"""Whose Matrix identity is whose: the master cross-signing key of each account, pinned when it is first seen."""

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from supervision import audit, notifications, pairs
from supervision.audit import SYSTEM, Actor
from supervision.db import Transaction
from supervision.errors import NotFound, Stale
from supervision.models import Channel, audit_entries, identities, people
from supervision.notifications import HIGH, Notice
from supervision.people import require_admin


async def pin(tx: Transaction, matrix_id: str, master_key: str, *, now: datetime) -> str | None:
    """The key that is pinned for this account: the given one if there was none. None for an account of nobody.

    A key other than the pinned one is kept as offered, until its owner or an admin confirms it or the pinned one is
    back. It is told at most once a day: a homeserver can show another one at every question.
    """
    known = select(people.c.id).where(people.c.matrix_id == matrix_id, people.c.disabled_at.is_(None))
    person_id = await tx.scalar(known)
    if person_id is None:
        return None
    added = await tx.execute(
        insert(identities).values(matrix_id=matrix_id, master_key=master_key, pinned_at=now).on_conflict_do_nothing()
    )
    if added.rowcount == 1:
        await audit.record(tx, SYSTEM, "identity.pin", "person", person_id, now=now)
        return master_key
    row = (await tx.execute(select(identities).where(identities.c.matrix_id == matrix_id))).one()
    offered = None if master_key == row.master_key else master_key
    if row.offered_key != offered:
        await tx.execute(
            update(identities)
            .where(identities.c.matrix_id == matrix_id, identities.c.master_key == row.master_key)
            .values(offered_key=offered, offered_at=offered and now)
        )
        if offered and not await _told_lately(tx, person_id, row.pinned_at, now=now):
            await audit.record(tx, SYSTEM, "identity.change_seen", "person", person_id, now=now, success=False)
            await _tell_both(tx, person_id, "identity.changed", now=now)
    return str(row.master_key)


async def pinned(tx: Transaction, matrix_ids: Collection[str]) -> dict[str, str]:
    """The pinned keys of those whose homeserver offers no other one: `pin` would change nothing for them."""
    query = (
        select(identities.c.matrix_id, identities.c.master_key)
        .join(people, (people.c.matrix_id == identities.c.matrix_id) & people.c.disabled_at.is_(None))
        .where(identities.c.matrix_id.in_(matrix_ids), identities.c.offered_key.is_(None))
    )
    return {matrix_id: master_key for matrix_id, master_key in await tx.execute(query)}


async def confirm(tx: Transaction, actor: Actor, matrix_id: str, *, master_key: str, now: datetime) -> None:
    """Believe the offered identity from now on: its owner, signed in by mail, or an admin vouches for it.

    `master_key` is the one that they were shown; spaces in it do not count. Raises NotAllowed for anybody else but the
    operator, NotFound where none is offered, and Stale where another one is by now.
    """
    person_id = await tx.scalar(select(people.c.id).where(people.c.matrix_id == matrix_id))
    if person_id is None or actor.person_id != person_id:
        await require_admin(tx, actor)
    changed = await tx.execute(
        update(identities)
        .where(identities.c.matrix_id == matrix_id, identities.c.offered_key == "".join(master_key.split()))
        .values(master_key=identities.c.offered_key, pinned_at=now, offered_key=None, offered_at=None)
    )
    if changed.rowcount == 0:
        if await tx.scalar(select(identities.c.offered_key).where(identities.c.matrix_id == matrix_id)) is None:
            raise NotFound("refused.no_new_identity")
        raise Stale
    await audit.record(tx, actor, "identity.confirm", "person", person_id, now=now)
    if person_id is not None:
        await _tell_both(tx, person_id, "identity.confirmed", now=now)
    await tx.execute(select(func.pg_notify("visavis_identities", matrix_id)))


async def _told_lately(tx: Transaction, person_id: uuid.UUID, pinned_at: datetime, *, now: datetime) -> bool:
    """Whether a change of the key that is pinned now was told within a day."""
    told = select(audit_entries.c.id).where(
        audit_entries.c.resource_id == str(person_id),
        audit_entries.c.action == "identity.change_seen",
        audit_entries.c.at >= pinned_at,
        audit_entries.c.at > now - timedelta(days=1),
    )
    return await tx.scalar(told.limit(1)) is not None


async def _tell_both(tx: Transaction, person_id: uuid.UUID, kind: str, *, now: datetime) -> None:
    """The owner by mail, since the room may be out of reach; the other of each pair in their room."""
    notices = [Notice(person_id, Channel.MAIL, kind, priority=HIGH)]
    for pair in await pairs.list_of(tx, person_id):
        details = {"whose": str(person_id)}
        notices.append(Notice(pair.other(person_id).id, Channel.MATRIX, kind, details, pair_id=pair.id))
    await notifications.enqueue(tx, notices, now=now)

"""The end of a pair: what it had before it is called off."""

import itertools
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from supervision import appointments, audit, groups, notifications, series, unreads, waits
from supervision.appointments import OPEN, Appointment
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.groups import Done
from supervision.models import Channel
from supervision.models import appointments as table
from supervision.notifications import HIGH
from supervision.pairs import Pair

ARCHIVED = {"archived": True}


async def call_off(tx: Transaction, actor: Actor, pair: Pair, *, now: datetime) -> int:
    """Cancel all that the pair has before it, those of a series together, and end its waiting. Both people are locked.

    Nor is anything unread there any more. Both are told of each appointment, since both hear why. What has begun stays.
    Returns how many appointments were cancelled.
    """
    await waits.end_of_pair(tx, actor, pair.id, now=now)
    await unreads.end_of_pair(tx, pair.id, now=now)
    coming = (table.c.pair_id == pair.id) & table.c.status.in_(OPEN) & (table.c.starts_at > now)
    query = select(*appointments.COLUMNS).where(coming).order_by(table.c.series_id, table.c.starts_at)
    found = [appointments.from_row(row) for row in await tx.execute(query.with_for_update())]
    for series_id, several in itertools.groupby(found, key=lambda one: one.series_id):
        await _cancel(tx, actor, pair, series_id, list(several), now=now)
    return len(found)


async def _cancel(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    series_id: uuid.UUID | None,
    found: Sequence[Appointment],
    *,
    now: datetime,
) -> None:
    by: dict[str, Any] = {} if pair.is_member(actor.person_id) else {"by": None}
    done = Done([(one, await appointments.call_off(tx, actor, one, now=now)) for one in found])
    if series_id is not None:
        news = series.notices("series.cancelled", actor, done.after, done.people, done.people, ARCHIVED | by, HIGH)
        await groups.settle(tx, actor, "appointment.cancel", done, news, now=now)
        return
    for one in done.after:
        news = [
            appointments.notice(one, person, channel, "appointment.cancelled", actor, HIGH, ARCHIVED | by)
            for person in one.people
            for channel in (Channel.MATRIX, Channel.MAIL)
        ]
        audited = audit.entry(actor, "appointment.cancel", "appointment", one.id, now=now)
        await notifications.enqueue(tx, news, now=now, audited=audited)

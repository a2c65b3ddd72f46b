"""A new room for a pair whose own is lost: the bot was put out of it, the homeserver has it no more, its encryption was
taken away and cannot be put back, another account has the last word there, or the homeserver fails over it.

The pair goes on with its settings, its appointments and its people. What there is of the old room is kept apart, as an
archived pair without appointments: its files, its days of retention with all that was announced, whose word a copy
takes, its legal hold, and with them the bot's keys; until an admin has it removed like any other archived pair's. So
nothing that was promised of the old room ends with it, and nothing of it is deleted unasked.
"""

import uuid
from datetime import datetime

from sqlalchemy import delete, insert, select, update

from supervision import audit, exports, notifications, pairs, people, unreads
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotUnderstood
from supervision.models import (
    Channel,
    ExportState,
    Fault,
    PairStatus,
    Question,
    State,
    Task,
    attachments,
    memberships,
    questions,
)
from supervision.models import exports as copies
from supervision.models import homeserver_tasks as tasks
from supervision.models import notifications as outbox
from supervision.models import pairs as table
from supervision.notifications import SCRUBBED, Notice
from supervision.pairs import Pair

KIND = "pair.renewed"
# What nobody mends, or the homeserver does not let be mended, as where it fails over the room.
LOST = frozenset({Fault.GONE, Fault.NOT_ENCRYPTED, Fault.NOT_OURS, Fault.REFUSED})
# What describes the old room; the pair's own settings stay with the pair too.
OF_ROOM = (
    table.c.supervisor_id,
    table.c.supervisee_id,
    table.c.bot,
    table.c.room_id,
    table.c.room_token,
    table.c.created_at,
    table.c.retention_days,
    table.c.export_consent,
    table.c.retained_since,
    table.c.held_at,
    table.c.fault,
    table.c.fault_at,
)
ANNOUNCED = ("retention.announced", "retention.done")
SAID_THERE = ("reply", "room.introduction", "room.summary", "room.left", "export.asked", "export.started")


async def renew_room(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> uuid.UUID:
    """Give the old room up and have the bot make another one; both are told by mail. Returns the pair kept apart.

    Raises NotAllowed for anybody but an admin and the operator, NotFound, PairArchived, and NotUnderstood where the
    pair's room is none that is lost, or was never made.
    """
    await people.require_admin(tx, actor)
    _require_lost(await pairs.get(tx, pair_id))
    pair = await _lock_all(tx, pair_id)
    _require_lost(pair)
    await _give_up_copies(tx, pair, now=now)
    kept = await _set_apart(tx, pair, now=now)
    await unreads.end_of_pair(tx, pair.id, now=now)
    await _say_no_more(tx, pair, now=now)
    await notifications.hurry(tx, pair.id, "room_stopped", now=now)
    await audit.record(tx, actor, "pair.renew_room", "pair", pair.id, now=now)
    await audit.record(tx, actor, "pair.set_apart", "pair", kept, now=now, reason=str(pair.id))
    mails = [Notice(person.id, Channel.MAIL, KIND, {"by": None}, pair_id=pair.id) for person in pair.people]
    await notifications.enqueue(tx, mails, now=now)
    await pairs.wake_keepers(tx)
    return kept


def is_lost(pair: Pair) -> bool:
    """Whether the pair's room is one that can be given up for a new one, were the pair active."""
    return pair.room_id is not None and pair.fault in LOST


def _require_lost(pair: Pair) -> None:
    pair.require_active()
    if not is_lost(pair):
        raise NotUnderstood("refused.room_not_gone")


async def _lock_all(tx: Transaction, pair_id: uuid.UUID) -> Pair:
    """The pair, whose questions nobody answers any more. Whoever answers one just now is waited for.

    The order is theirs: their own question, the people, the other's question; what they write there, as a copy that is
    being made does, refers to the pair, which is therefore changed last.
    """
    asked, agreeing = questions.c.pair_id == pair_id, questions.c.kind == Question.AGREE_EXPORT
    await tx.execute(delete(questions).where(asked, ~agreeing))
    pair = await pairs.get_locked(tx, pair_id)
    await tx.execute(delete(questions).where(asked))
    return pair


async def _set_apart(tx: Transaction, pair: Pair, *, now: datetime) -> uuid.UUID:
    """The old room becomes an archived pair's, and so does its token: by that the bot would find it again."""
    described = (await tx.execute(select(*OF_ROOM).where(table.c.id == pair.id))).mappings().one()
    await tx.execute(
        update(table)
        .where(table.c.id == pair.id)
        .values(
            room_id=None,
            room_token=uuid.uuid4(),
            supervisor_introduced_at=None,
            supervisee_introduced_at=None,
            retained_since=None,
            fault=None,
            fault_at=None,
        )
    )
    kept = uuid.uuid4()
    await tx.execute(insert(table).values(**described, id=kept, status=PairStatus.ARCHIVED, archived_at=now))
    for one in (attachments, memberships):
        await tx.execute(update(one).where(one.c.pair_id == pair.id).values(pair_id=kept))
    announced = update(outbox).where(outbox.c.pair_id == pair.id, outbox.c.kind.in_(ANNOUNCED))
    await tx.execute(announced.values(pair_id=kept))
    media = tasks.c.pair_id == pair.id, tasks.c.kind == Task.REMOVE_MEDIA, tasks.c.done_at.is_(None)
    await tx.execute(update(tasks).where(*media).values(pair_id=kept))  # they wait for the hold of its room to end
    return kept


async def _give_up_copies(tx: Transaction, pair: Pair, *, now: datetime) -> None:
    """Those that are being made: the old room is another pair's now. Who asked is told; what is ready stays."""
    making = select(copies.c.id).where(copies.c.pair_id == pair.id, copies.c.state == ExportState.AGREED)
    for export_id in list(await tx.scalars(making.with_for_update())):
        await exports.fail(tx, await exports.get(tx, export_id), pair, "room_gone", permanent=True, now=now)


async def _say_no_more(tx: Transaction, pair: Pair, *, now: datetime) -> None:
    """What was to be said in the old room and speaks of it alone."""
    await tx.execute(
        update(outbox)
        .where(
            outbox.c.pair_id == pair.id,
            outbox.c.kind.in_(SAID_THERE),
            outbox.c.state.in_((State.PENDING, State.WAITING)),
        )
        .values(state=State.SUPERSEDED, settled_at=now, claimed_until=None, details=SCRUBBED)
    )

"""What somebody of a pair has not read yet of what the other wrote in their room, and the one mail that will say so.

The outbox is the timer: the first unread message enqueues a mail for later, and reading takes it back. The row stays
after the mail was sent, so that there is no second one until the person has read. Nothing is known here but who wrote,
where and when.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from supervision import notifications
from supervision.db import Ready, Transaction
from supervision.models import Channel, PairStatus, State, pairs, people, unreads
from supervision.models import notifications as outbox
from supervision.notifications import LOW, SCRUBBED, UNREAD_LIFETIME, Notice
from supervision.pairs import Pair

KIND = "room.unread"


@dataclass(frozen=True)
class Unread:
    """The first message that a person has not read; `since_at` is the homeserver's time of it.

    `messages` is how many there are, as far as it was written down: what came since may not be in it yet.
    """

    pair_id: uuid.UUID
    person_id: uuid.UUID
    event_id: str
    since_at: datetime
    messages: int = 1


@dataclass(frozen=True)
class Kept:
    """An open row with what the bot calls the people: `reader` has not read what `writer` wrote."""

    room_id: str
    reader: str
    writer: str
    unread: Unread


COLUMNS = (
    unreads.c.pair_id,
    unreads.c.person_id,
    unreads.c.event_id,
    unreads.c.since_at,
    unreads.c.messages,
)
OPEN = Ready(select(*COLUMNS).where(unreads.c.pair_id == bindparam("pair"), unreads.c.person_id == bindparam("person")))
# Whoever archives the pair waits, or has done so already; a second process of the same bot waits too.
STILL_ACTIVE = Ready(
    select(pairs.c.id)
    .where(pairs.c.id == bindparam("pair"), pairs.c.status == literal_column("'active'"))
    .with_for_update(key_share=True)
)


async def note_message(
    tx: Transaction,
    pair: Pair,
    sender_id: uuid.UUID,
    event_id: str,
    *,
    sent_at: datetime | None = None,
    wait: timedelta,
    now: datetime,
    messages: int = 1,
) -> Unread | None:
    """One of the two wrote: the other has something unread, and is to be told in `wait` unless they read it before.

    Without a wait nobody is told by mail. Returns what is unread now, which may be an earlier message; None where
    there is nobody to read it: the pair is archived, or one of the two is disabled. Raises NotAllowed if the sender is
    neither of the two.
    """
    sender = pair.member(sender_id)
    reader = pair.other(sender.id)
    if sender.disabled_at or reader.disabled_at or not await STILL_ACTIVE.fetch(tx, {"pair": pair.id}):
        return None
    for row in await OPEN.fetch(tx, {"pair": pair.id, "person": reader.id}):
        return Unread(*row)
    mail = await _enqueue(tx, pair.id, reader.id, wait, now) if wait else None
    unread = Unread(pair.id, reader.id, event_id, sent_at or now, messages)
    await tx.execute(
        insert(unreads).values(
            pair_id=unread.pair_id,
            person_id=unread.person_id,
            event_id=unread.event_id,
            notification_id=mail,
            since_at=unread.since_at,
            messages=unread.messages,
        )
    )
    return unread


async def _enqueue(
    tx: Transaction, pair_id: uuid.UUID, reader_id: uuid.UUID, wait: timedelta, now: datetime
) -> uuid.UUID:
    mail = Notice(
        reader_id,
        Channel.MAIL,
        KIND,
        pair_id=pair_id,
        priority=LOW,
        send_at=now + wait,
        expires_at=now + wait + UNREAD_LIFETIME,
    )
    await notifications.enqueue(tx, [mail], now=now)
    return mail.id


async def note_read(tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime) -> bool:
    """This person has read what was unread; returns whether anything was."""
    theirs = delete(unreads).where(unreads.c.pair_id == pair_id, unreads.c.person_id == person_id)
    row = (await tx.execute(theirs.returning(unreads.c.notification_id))).one_or_none()
    if row is None:
        return False
    await _take_back(tx, row.notification_id, now)
    return True


async def end_of_pair(tx: Transaction, pair_id: uuid.UUID, *, now: datetime) -> None:
    """The pair is archived: nothing of its room waits to be read any more, and no mail says so."""
    gone = await tx.scalars(delete(unreads).where(unreads.c.pair_id == pair_id).returning(unreads.c.notification_id))
    for mail_id in list(gone):
        await _take_back(tx, mail_id, now)


async def send_no_mail(tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime) -> None:
    """What this person has not read stays unread, and no mail will say so."""
    theirs = (unreads.c.pair_id == pair_id) & (unreads.c.person_id == person_id)
    mail_id = await tx.scalar(select(unreads.c.notification_id).where(theirs))
    await tx.execute(update(unreads).where(theirs).values(notification_id=None))
    await _take_back(tx, mail_id, now)


async def _take_back(tx: Transaction, mail_id: uuid.UUID | None, now: datetime) -> None:
    """A mail that nobody tried to send leaves the outbox: it was a timer, most are taken back within seconds, and there
    is nothing of them to keep. One that was tried is superseded.
    """
    if mail_id is None:
        return
    pending = (outbox.c.id == mail_id) & (outbox.c.state == State.PENDING)
    untried = await tx.execute(delete(outbox).where(pending, outbox.c.attempts == 0))
    if untried.rowcount == 0:
        await tx.execute(update(outbox).where(pending).values(state=State.SUPERSEDED, settled_at=now, details=SCRUBBED))


async def note_counts(tx: Transaction, counted: Sequence[Unread]) -> None:
    """How many messages are unread now; where the row is gone meanwhile, or another one, this is out of date."""
    if counted:
        await tx.execute(
            update(unreads)
            .where(
                unreads.c.pair_id == bindparam("pair"),
                unreads.c.person_id == bindparam("person"),
                unreads.c.event_id == bindparam("event"),
            )
            .values(messages=bindparam("count")),
            [
                {"pair": one.pair_id, "person": one.person_id, "event": one.event_id, "count": one.messages}
                for one in sorted(counted, key=lambda one: (one.pair_id, one.person_id))
            ],
        )


async def counts(tx: Transaction, person_id: uuid.UUID) -> dict[uuid.UUID, int]:
    """How many messages this person has not read, by pair; a pair that is missing has none."""
    query = (
        select(unreads.c.pair_id, unreads.c.messages)
        .join(pairs, pairs.c.id == unreads.c.pair_id)
        .where(unreads.c.person_id == person_id, pairs.c.status == PairStatus.ACTIVE)
    )
    return {pair_id: messages for pair_id, messages in await tx.execute(query)}


async def total(tx: Transaction) -> int:
    """How many messages are unread in all active pairs together."""
    query = (
        select(func.coalesce(func.sum(unreads.c.messages), 0))
        .join(pairs, pairs.c.id == unreads.c.pair_id)
        .where(pairs.c.status == PairStatus.ACTIVE)
    )
    return int(await tx.scalar(query) or 0)


async def list_for_bot(tx: Transaction, bot: str) -> list[Kept]:
    """What is unread in the active rooms of one bot account."""
    reader, supervisor, supervisee = people.alias("reader"), people.alias("supervisor"), people.alias("supervisee")
    query = (
        select(pairs.c.room_id, reader.c.matrix_id, supervisor.c.matrix_id, supervisee.c.matrix_id, *COLUMNS)
        .select_from(unreads)
        .join(pairs, pairs.c.id == unreads.c.pair_id)
        .join(reader, reader.c.id == unreads.c.person_id)
        .join(supervisor, supervisor.c.id == pairs.c.supervisor_id)
        .join(supervisee, supervisee.c.id == pairs.c.supervisee_id)
        .where(pairs.c.bot == bot, pairs.c.status == PairStatus.ACTIVE, pairs.c.room_id.is_not(None))
    )
    found = []
    for room_id, own, first, second, *unread in await tx.execute(query):
        found.append(Kept(room_id, own or "", (second if own == first else first) or "", Unread(*unread)))
    return found

"""Mail that comes in: what was taken once, and addresses that mails come back from.

Nothing more is sent to such an address until somebody says that it is right again.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from supervision import audit, notifications, pairs, people
from supervision.audit import SYSTEM, Actor
from supervision.db import Transaction, lock_people
from supervision.models import Channel, PairStatus, Role, State, inbound_mails
from supervision.models import notifications as table
from supervision.models import people as people_table
from supervision.notifications import NORMAL, Notice

ADDRESS_STOPPED = "address_stopped"  # the error of a mail that was not sent because of this
REMEMBERED = timedelta(days=30)
# Codes that speak of the address and not of the mail (RFC 3463): it does not exist, has moved, or is closed.
STOPPING = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "5.4.1"})


@dataclass(frozen=True)
class Stopped:
    """Since when nothing is mailed to a person, and the status with which the mail came back (RFC 3463)."""

    at: datetime
    code: str


async def stopped(tx: Transaction, person_id: uuid.UUID) -> Stopped | None:
    """Whether mails to a person's address are stopped."""
    query = select(people_table.c.mail_stopped_at, people_table.c.mail_stopped_code)
    row = (await tx.execute(query.where(people_table.c.id == person_id))).one_or_none()
    return Stopped(row[0], row[1] or "") if row is not None and row[0] is not None else None


async def list_stopped(tx: Transaction) -> dict[uuid.UUID, Stopped]:
    """Everybody to whom nothing is mailed."""
    query = select(people_table.c.id, people_table.c.mail_stopped_at, people_table.c.mail_stopped_code)
    rows = await tx.execute(query.where(people_table.c.mail_stopped_at.is_not(None)))
    return {person_id: Stopped(at, code or "") for person_id, at, code in rows}


async def stop(tx: Transaction, notification_id: uuid.UUID, code: str, *, now: datetime) -> None:
    """Note that this mail came back because of its address, and mail nothing more there.

    The admins are told by mail, the person and the others of their pairs in their rooms; once, until it is resumed.
    """
    person_id = await _whose(tx, notification_id)
    if person_id is None:
        return
    await lock_people(tx, [person_id])  # before the mail, as `resume` does
    await bounce(tx, notification_id, code, now=now)
    changed = await tx.execute(
        update(people_table)
        .where(people_table.c.id == person_id, people_table.c.mail_stopped_at.is_(None))
        .values(mail_stopped_at=now, mail_stopped_code=code)
    )
    if changed.rowcount:
        await notifications.enqueue(
            tx,
            await _news(tx, person_id, code),
            now=now,
            audited=audit.entry(SYSTEM, "mailbox.stop", "person", person_id, now=now, reason=code),
        )


async def bounce(tx: Transaction, notification_id: uuid.UUID, code: str, *, now: datetime) -> None:
    """Park a mail that came back, for whoever looks after it. Nothing for a mail unknown."""
    await tx.execute(
        update(table)
        .where(table.c.id == notification_id, table.c.channel == Channel.MAIL)
        .values(state=State.PARKED, error=f"bounced_{code}", settled_at=now, claimed_until=None)
    )


async def addressee(tx: Transaction, notification_id: uuid.UUID) -> str | None:
    """The address that the person of a mail has now, until this transaction ends; None for a mail unknown."""
    person_id = await _whose(tx, notification_id)
    if person_id is None:
        return None
    await lock_people(tx, [person_id])
    found: str | None = await tx.scalar(select(people_table.c.email).where(people_table.c.id == person_id))
    return found


async def _whose(tx: Transaction, notification_id: uuid.UUID) -> uuid.UUID | None:
    """The person of a mail; None for a mail unknown, and for one to another address than the person's own."""
    query = select(table.c.person_id).where(
        table.c.id == notification_id, table.c.channel == Channel.MAIL, table.c.kind.not_like("address.%")
    )
    found: uuid.UUID | None = await tx.scalar(query)
    return found


async def resume(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """Mail to a person again, and at once what was kept back or came back. Nothing where it was not stopped."""
    await people.get(tx, person_id)
    if await stopped(tx, person_id) is None:
        return
    await lock_people(tx, [person_id])
    before = await stopped(tx, person_id)
    if before is None:
        return
    await tx.execute(
        update(people_table).where(people_table.c.id == person_id).values(mail_stopped_at=None, mail_stopped_code=None)
    )
    kept = or_(table.c.error == ADDRESS_STOPPED, table.c.error.like("bounced_%") & (table.c.settled_at >= before.at))
    await tx.execute(
        update(table)
        .where(table.c.person_id == person_id, table.c.channel == Channel.MAIL, table.c.state == State.PARKED, kept)
        .values(state=State.PENDING, attempts=0, next_try_at=now, claimed_until=None, error=None, settled_at=None)
    )
    await tx.execute(text("SELECT pg_notify('visavis_mail', '')"))
    await audit.record(tx, actor, "mailbox.resume", "person", person_id, now=now)


async def take_in(tx: Transaction, digest: bytes, outcome: str, *, now: datetime) -> bool:
    """Note a mail in the transaction of its effect; False where it was taken before. `outcome` is a static word."""
    added = await tx.execute(
        insert(inbound_mails)
        .values(digest=digest, outcome=outcome, received_at=now)
        .on_conflict_do_nothing()
        .returning(inbound_mails.c.digest)
    )
    return added.one_or_none() is not None


async def rename(tx: Transaction, digest: bytes, outcome: str) -> None:
    """Another outcome for a mail that this transaction has taken in."""
    await tx.execute(update(inbound_mails).where(inbound_mails.c.digest == digest).values(outcome=outcome))


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Remove what no mail server hands over again: it gives up after days (RFC 5321, 4.5.4.1)."""
    await tx.execute(delete(inbound_mails).where(inbound_mails.c.received_at <= now - REMEMBERED))


async def _news(tx: Transaction, person_id: uuid.UUID, code: str) -> list[Notice]:
    details = {"whose": str(person_id), "code": code}
    kind = "mailbox.stopped"
    admins = [one for one in await people.list_all(tx) if Role.ADMIN in one.roles and one.disabled_at is None]
    mails = [Notice(one.id, Channel.MAIL, kind, details, priority=NORMAL) for one in admins if one.id != person_id]
    rooms = [one for one in await pairs.list_all(tx) if one.status is PairStatus.ACTIVE]
    said = [
        Notice(member.id, Channel.MATRIX, kind, details, pair_id=pair.id)
        for pair in rooms
        if person_id in (pair.supervisor.id, pair.supervisee.id)
        for member in pair.people
    ]
    return mails + said

"""A person's own change of their mail address: a code mailed to the new one is typed, and the old one is told.

The code is derived from a nonce with the configured secret (seals.py), so the database holds nothing that proves it.
"""

import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from supervision import audit, mailboxes, notifications, people, seals
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotUnderstood, TooMany
from supervision.models import Channel, address_changes, audit_entries
from supervision.notifications import HIGH, Notice
from supervision.people import Person

LIFETIME = timedelta(minutes=30)
WRONG_CODES = 5
ASKED_AN_HOUR = 5


@dataclass(frozen=True)
class AddressChange:
    """The new address, until when its code counts, and how many wrong ones were typed."""

    email: str
    nonce: uuid.UUID
    wrong_codes: int
    expires_at: datetime


async def of(tx: Transaction, person_id: uuid.UUID, *, now: datetime) -> AddressChange | None:
    """The change that waits for its code."""
    query = select(
        address_changes.c.email,
        address_changes.c.nonce,
        address_changes.c.wrong_codes,
        address_changes.c.expires_at,
    ).where(
        address_changes.c.person_id == person_id,
        address_changes.c.expires_at > now,
        address_changes.c.wrong_codes < WRONG_CODES,
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else AddressChange(*row)


async def ask(tx: Transaction, actor: Actor, person: Person, email: str, *, now: datetime) -> None:
    """Mail a code to the new address. Nobody can tell from this whether it is somebody else's already.

    Raises NotUnderstood for what is no address or the same one, TooMany after five in an hour.
    """
    await lock_people(tx, [person.id])
    checked = people.check_email(email.strip())
    if checked == person.email:
        raise NotUnderstood("refused.same_address")
    if await _asked(tx, person.id, since=now - timedelta(hours=1)) >= ASKED_AN_HOUR:
        raise TooMany
    values = {
        "email": checked,
        "nonce": uuid.uuid4(),
        "wrong_codes": 0,
        "created_at": now,
        "expires_at": now + LIFETIME,
    }
    await tx.execute(
        insert(address_changes)
        .values(person_id=person.id, **values)
        .on_conflict_do_update(index_elements=[address_changes.c.person_id], set_=values)
    )
    details = {"nonce": str(values["nonce"]), "address": checked}
    mail = Notice(person.id, Channel.MAIL, "address.check", details, priority=HIGH, expires_at=now + LIFETIME)
    entry = audit.entry(actor, "address.ask", "person", person.id, now=now)
    await notifications.enqueue(tx, [mail], now=now, audited=entry)


async def confirm(tx: Transaction, secret: str, actor: Actor, person: Person, typed: str, *, now: datetime) -> bool:
    """Take the new address over if that is its code; False if it is not, which is counted: commit it.

    Raises NotUnderstood where no change waits for a code, and where the address is somebody else's by now.
    """
    await lock_people(tx, [person.id])
    waiting = await of(tx, person.id, now=now)
    if waiting is None:
        raise NotUnderstood("refused.no_address_change")
    digits = "".join(character for character in typed if character.isdigit() and character.isascii())
    if not hmac.compare_digest(seals.address_code(secret, person.id, waiting.nonce), digits):
        own = address_changes.c.person_id == person.id
        await tx.execute(update(address_changes).where(own).values(wrong_codes=address_changes.c.wrong_codes + 1))
        await audit.record(tx, actor, "address.confirm", "person", person.id, now=now, success=False)
        return False
    before = (await people.get(tx, person.id)).email
    await people.set_email(tx, actor, person.id, waiting.email, now=now)
    await mailboxes.resume(tx, actor, person.id, now=now)
    mail = Notice(person.id, Channel.MAIL, "address.changed", {"address": before}, priority=HIGH)
    await notifications.enqueue(tx, [mail], now=now)
    return True


async def forget(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """The person leaves their address as it is."""
    gone = await tx.execute(delete(address_changes).where(address_changes.c.person_id == person_id))
    if gone.rowcount:
        await audit.record(tx, actor, "address.forget", "person", person_id, now=now)


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Remove addresses whose code counts no more."""
    await tx.execute(delete(address_changes).where(address_changes.c.expires_at <= now))


async def _asked(tx: Transaction, person_id: uuid.UUID, *, since: datetime) -> int:
    query = select(func.count()).where(
        audit_entries.c.resource_id == str(person_id),
        audit_entries.c.action == "address.ask",
        audit_entries.c.at > since,
        audit_entries.c.success,
    )
    return int(await tx.scalar(query) or 0)

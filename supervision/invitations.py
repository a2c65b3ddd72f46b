"""How a person comes in: one mail with a link, a password, an app, the recovery key, the room.

The link holds a seal over a nonce (seals.py), so the database holds nothing that lets anybody in; it works for two
weeks, until the next one is sent, and shows what is done whenever it is opened. An account of our homeserver is
registered with a one-use token that the bot's process asks its administrator for; it never leaves our processes.
"""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from supervision import audit, homeserver_tasks, notifications, pairs, people, seals
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import AlreadyAnswered, NotFound, NotUnderstood
from supervision.models import Channel, Task, invitations
from supervision.models import people as people_table
from supervision.notifications import HIGH, Notice
from supervision.people import Person

LIFETIME = timedelta(days=14)
KIND = "welcome"
# Matrix 1.18, "User Identifiers". Synapse keeps those that begin with `_` or are digits alone for itself and guests.
LOCALPART = re.compile(r"(?![_])(?!\d+\Z)[a-z0-9._=/+-]+")
BOTS = "visavis"  # what the names in the application service's namespace begin with
LINK_CLOSED = "refused.welcome_link"


@dataclass(frozen=True)
class Invitation:
    """`localpart` names the account that is to be made; empty for one that there is already.

    `registration` is the locked registration token, once the homeserver has given it.
    """

    person_id: uuid.UUID
    nonce: uuid.UUID
    localpart: str | None
    registration: bytes | None
    invited_at: datetime
    expires_at: datetime
    opened_at: datetime | None
    registered_at: datetime | None
    finished_at: datetime | None

    def open_at(self, now: datetime) -> bool:
        return now < self.expires_at


COLUMNS = (
    invitations.c.person_id,
    invitations.c.nonce,
    invitations.c.localpart,
    invitations.c.registration,
    invitations.c.invited_at,
    invitations.c.expires_at,
    invitations.c.opened_at,
    invitations.c.registered_at,
    invitations.c.finished_at,
)


async def add(
    tx: Transaction,
    actor: Actor,
    *,
    name: str,
    email: str,
    language: str,
    time_zone: str,
    roles: Iterable[str],
    account: str | None = None,
    matrix_id: str | None = None,
    server_name: str,
    now: datetime,
) -> Person:
    """Add a person and mail them how to come in.

    `account` is the localpart of a new account of our homeserver, `server_name`; `matrix_id` an account that they have.
    Who has neither uses the dashboard alone, and gets no mail. Raises what people.add does; refused where the name
    cannot be.
    """
    if account is not None and matrix_id is not None:
        raise NotUnderstood("refused.one_account")
    checked = None if account is None else check_localpart(account, server_name)
    person = await people.add(
        tx, actor, name=name, email=email, matrix_id=matrix_id, language=language, time_zone=time_zone, roles=roles,
        now=now,
    )  # fmt: skip
    if checked is not None:
        await _require_free(tx, f"@{checked}:{server_name}")
    if checked is not None or matrix_id is not None:
        await _invite(tx, actor, person, checked, now=now)
    return person


async def invite_again(
    tx: Transaction,
    actor: Actor,
    person_id: uuid.UUID,
    *,
    account: str | None = None,
    server_name: str,
    now: datetime,
) -> None:
    """Mail a new link; the one before leads nowhere then. `account` changes the name of an account not made yet.

    Raises NotAllowed for anybody but an admin and the operator.
    """
    await people.require_admin(tx, actor)
    await lock_people(tx, [person_id])
    person = await people.get(tx, person_id)
    if person.disabled_at:
        raise NotFound("refused.person_not_found")
    known = await of(tx, person_id)
    localpart = None
    if person.matrix_id is None:
        kept = known.localpart if known else None
        localpart = check_localpart(account, server_name) if account else kept
        if localpart is None:
            raise NotUnderstood("refused.no_account_name")
        await _require_free(tx, f"@{localpart}:{server_name}")
    elif account:
        raise AlreadyAnswered("refused.account_there")
    await _invite(tx, actor, person, localpart, before=known, now=now)


async def follow(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """The person's address is another: the mailed link leads nowhere, and who has yet to come in is mailed a new one.

    The person is locked.
    """
    known, person = await of(tx, person_id), await people.get(tx, person_id)
    if known is None or not known.open_at(now):
        return
    if known.finished_at is None and person.disabled_at is None:
        await _invite(tx, actor, person, known.localpart, before=known, now=now)
    else:
        await tx.execute(update(invitations).where(invitations.c.person_id == person_id).values(nonce=uuid.uuid4()))


async def of(tx: Transaction, person_id: uuid.UUID) -> Invitation | None:
    row = (await tx.execute(select(*COLUMNS).where(invitations.c.person_id == person_id))).one_or_none()
    return None if row is None else Invitation(*row)


async def list_all(tx: Transaction) -> dict[uuid.UUID, Invitation]:
    """Everybody's, for the admin's page."""
    return {row.person_id: Invitation(*row) for row in await tx.execute(select(*COLUMNS))}


async def find(tx: Transaction, secret: str, token: str, *, now: datetime) -> tuple[Person, Invitation]:
    """Whose link that is. Raises NotFound, the same for a link that is unknown, replaced, too old, or of nobody now."""
    person_id = seals.read_feed_token(token)
    known = await of(tx, person_id) if person_id else None
    nonce = known.nonce if known else uuid.UUID(int=0)
    fits = seals.matches(seals.welcome_token(secret, person_id or uuid.UUID(int=0), nonce), token)
    if known is None or not fits or not known.open_at(now):
        raise NotFound(LINK_CLOSED)
    person = await people.get(tx, known.person_id)
    if person.disabled_at:
        raise NotFound(LINK_CLOSED)
    return person, known


async def set_registration(tx: Transaction, invitation: Invitation, locked: bytes) -> None:
    """Keep the registration token, unless the invitation was replaced or used meanwhile."""
    await _set(tx, invitation, invitations.c.registered_at.is_(None), registration=locked)


async def open_first(tx: Transaction, invitation: Invitation, *, now: datetime) -> None:
    """Note that something was done on its page."""
    await _set(tx, invitation, invitations.c.opened_at.is_(None), opened_at=now)


async def note_registered(tx: Transaction, actor: Actor, person: Person, matrix_id: str, *, now: datetime) -> None:
    """The account is made: it is the person's, and their pairs' rooms can be made. Bears being said again."""
    await lock_people(tx, [person.id])
    if (await people.get(tx, person.id)).matrix_id == matrix_id:
        return
    try:
        changed = await tx.execute(
            update(people_table)
            .where(people_table.c.id == person.id, people_table.c.matrix_id.is_(None))
            .values(matrix_id=people.check_matrix_id(matrix_id))
        )
    except IntegrityError as error:
        raise NotUnderstood("refused.person_exists") from error
    if changed.rowcount == 0:
        raise AlreadyAnswered("refused.account_there")
    await tx.execute(
        update(invitations)
        .where(invitations.c.person_id == person.id)
        .values(registered_at=now, registration=None, opened_at=func.coalesce(invitations.c.opened_at, now))
    )
    await audit.record(tx, actor, "person.register", "person", person.id, now=now)
    await pairs.wake_keepers(tx)


async def finish(tx: Transaction, actor: Actor, invitation: Invitation, *, now: datetime) -> None:
    """The person says that they keep their recovery key."""
    if invitation.finished_at is None:
        await _set(tx, invitation, invitations.c.finished_at.is_(None), finished_at=now)
        await audit.record(tx, actor, "person.keep_key", "person", invitation.person_id, now=now)


def check_localpart(localpart: str, server_name: str) -> str:
    """The name of a new account, as Matrix allows it; not one of the bots' (Matrix 1.18, "User Identifiers")."""
    localpart = localpart.strip().lower()
    if not LOCALPART.fullmatch(localpart) or len(f"@{localpart}:{server_name}".encode()) > 255:
        raise NotUnderstood("refused.account_name")
    if localpart.startswith(BOTS):
        raise NotUnderstood("refused.account_reserved")
    return localpart


async def _require_free(tx: Transaction, matrix_id: str) -> None:
    taken = await tx.scalar(select(people_table.c.id).where(people_table.c.matrix_id == matrix_id))
    if taken is not None:
        raise NotUnderstood("refused.account_taken")


async def _free(tx: Transaction, localpart: str) -> None:
    """The name of an account that was not made is anybody's again once its person is disabled."""
    disabled = select(people_table.c.id).where(people_table.c.disabled_at.is_not(None))
    unused = invitations.c.localpart == localpart, invitations.c.registered_at.is_(None)
    await tx.execute(delete(invitations).where(*unused, invitations.c.person_id.in_(disabled)))


async def _invite(
    tx: Transaction,
    actor: Actor,
    person: Person,
    localpart: str | None,
    *,
    before: Invitation | None = None,
    now: datetime,
) -> None:
    nonce = uuid.uuid4()
    registering = localpart is not None and person.matrix_id is None
    values: dict[str, Any] = {
        "nonce": nonce,
        "localpart": localpart if registering or before is None else before.localpart,
        "invited_at": now,
        "expires_at": now + LIFETIME,
    }
    if localpart is not None:
        await _free(tx, localpart)
    try:
        await tx.execute(
            insert(invitations)
            .values(person_id=person.id, **values)
            .on_conflict_do_update(index_elements=[invitations.c.person_id], set_=values)
        )
    except IntegrityError as error:
        raise NotUnderstood("refused.account_taken") from error
    if registering:
        await homeserver_tasks.put(tx, Task.OPEN_REGISTRATION, person_id=person.id, now=now)
    mail = Notice(person.id, Channel.MAIL, KIND, {"nonce": str(nonce)}, priority=HIGH, expires_at=now + LIFETIME)
    entry = audit.entry(actor, "person.invite", "person", person.id, now=now)
    await notifications.enqueue(tx, [mail], now=now, audited=entry)


async def _set(tx: Transaction, invitation: Invitation, condition: Any, **values: object) -> None:
    await tx.execute(
        update(invitations)
        .where(
            invitations.c.person_id == invitation.person_id,
            invitations.c.nonce == invitation.nonce,
            condition,
        )
        .values(**values)
    )

"""A person's own account at our homeserver: what they ask its administrator for, and what they are told of it."""

import uuid
from datetime import datetime

from supervision import audit, homeserver_tasks, notifications
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotUnderstood
from supervision.models import Channel, Task
from supervision.notifications import HIGH, Notice
from supervision.people import Person


def is_ours(person: Person, server_name: str) -> bool:
    """Whether the person's account lives at the homeserver of that name."""
    return person.matrix_id is not None and person.matrix_id.partition(":")[2] == server_name


async def reset_password(
    tx: Transaction, actor: Actor, person: Person, *, server_name: str, now: datetime
) -> uuid.UUID:
    """Have the account's password replaced by a passing one, which is the task's locked answer."""
    require_ours(person, server_name)
    await audit.record(tx, actor, "account.reset_password", "person", person.id, now=now)
    return await homeserver_tasks.put(tx, Task.RESET_PASSWORD, person_id=person.id, now=now)


async def note_password(tx: Transaction, actor: Actor, person: Person, *, signed_out: bool, now: datetime) -> None:
    """The person's own password counts now; they are told by mail."""
    details = {"signed_out": signed_out}
    mail = Notice(person.id, Channel.MAIL, "account.password_changed", details, priority=HIGH)
    entry = audit.entry(actor, "account.set_password", "person", person.id, now=now)
    await notifications.enqueue(tx, [mail], now=now, audited=entry)


async def sign_out(tx: Transaction, actor: Actor, person: Person, *, server_name: str, now: datetime) -> uuid.UUID:
    """Have all of the account's devices signed out; the person is told by mail."""
    require_ours(person, server_name)
    mail = Notice(person.id, Channel.MAIL, "account.signed_out", {}, priority=HIGH)
    entry = audit.entry(actor, "account.sign_out", "person", person.id, now=now)
    await notifications.enqueue(tx, [mail], now=now, audited=entry)
    return await homeserver_tasks.put(tx, Task.SIGN_OUT, person_id=person.id, now=now)


async def deactivate(tx: Transaction, actor: Actor, person: Person, *, server_name: str, now: datetime) -> uuid.UUID:
    """Have the account ended for good."""
    require_ours(person, server_name)
    await audit.record(tx, actor, "account.deactivate", "person", person.id, now=now)
    return await homeserver_tasks.put(tx, Task.DEACTIVATE, person_id=person.id, now=now)


def require_ours(person: Person, server_name: str) -> None:
    """Raises NotUnderstood for an account of another homeserver, and where there is none."""
    if not is_ours(person, server_name):
        raise NotUnderstood("refused.account_elsewhere")

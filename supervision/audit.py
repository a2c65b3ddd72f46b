"""Who did what to which resource, when, from where, with what success. Entries are only ever added."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select, text

from supervision.db import Ready, Transaction
from supervision.models import audit_entries

Via = Literal["matrix", "reaction", "calendar", "web", "api", "cli", "system", "demo", "unsubscribe"]


@dataclass(frozen=True)
class Actor:
    """Who acts, and through which door. `person_id` is empty for the system itself and the operator's shell, and for
    whoever is not signed in.
    """

    person_id: uuid.UUID | None
    via: Via
    ip: str | None = None
    user_agent: str | None = None
    device: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it is the operator's shell or the system itself, which may do what a supervisor or an admin may."""
        return self.person_id is None and self.via in ("cli", "system", "demo")


SYSTEM = Actor(None, "system")


# Also the first half of a statement that adds notifications with it: see notifications.enqueue.
INSERT = """
    INSERT INTO audit_entries
        (at, actor_id, via, action, resource, resource_id, success, reason, ip, user_agent, device)
    VALUES (:at, :actor_id, :via, :action, :resource, :resource_id, :success, :reason, :ip, :user_agent, :device)
"""

INSERT_ALONE = Ready(text(INSERT))


def entry(
    actor: Actor,
    action: str,
    resource: str,
    resource_id: object | None,
    *,
    now: datetime,
    success: bool = True,
    reason: str | None = None,
) -> dict[str, object]:
    """The parameters of `INSERT`. `action` and `reason` are static words: `appointment.book`, `refused.slot_taken`."""
    return {
        "at": now,
        "actor_id": actor.person_id,
        "via": actor.via,
        "action": action,
        "resource": resource,
        "resource_id": None if resource_id is None else str(resource_id),
        "success": success,
        "reason": reason,
        "ip": actor.ip,
        "user_agent": None if actor.user_agent is None else actor.user_agent[:300],
        "device": actor.device,
    }


async def record(
    tx: Transaction,
    actor: Actor,
    action: str,
    resource: str,
    resource_id: object | None,
    *,
    now: datetime,
    success: bool = True,
    reason: str | None = None,
) -> None:
    """Add an entry, in the transaction of what it tells."""
    values = entry(actor, action, resource, resource_id, now=now, success=success, reason=reason)
    await INSERT_ALONE.fetch(tx, values)


async def is_recorded(tx: Transaction, action: str, resource_id: object, *, since: datetime) -> bool:
    """Whether this was done to the resource after `since`."""
    query = select(audit_entries.c.id).where(
        audit_entries.c.resource_id == str(resource_id), audit_entries.c.action == action, audit_entries.c.at > since
    )
    return await tx.scalar(query.limit(1)) is not None

"""Requests that may come twice: the first answer is kept under the key that the client gave it.

`Idempotency-Key` as in draft-ietf-httpapi-idempotency-key-header: the same key with the same request gives the kept
answer, with another request it is refused. A form's hidden value works the same way, so a double tap books once.
"""

import hashlib
import re
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from supervision.db import Transaction
from supervision.errors import NotUnderstood
from supervision.models import idempotency_keys

LIFETIME = timedelta(hours=24)
OTHER_REQUEST = "web.refused.idempotency_other"
KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer that can be kept: `body` is JSON, or None for an answer without a body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Repeat:
    """A request that was given a key; `fingerprint` tells requests apart."""

    person_id: uuid.UUID
    key: str
    fingerprint: bytes


def recognise(person_id: uuid.UUID, door: str, key: str, *request: str) -> Repeat:
    """The repeat of a request that came through that door (`api` or `form`).

    Raises NotUnderstood for a key that is not 1 to 255 visible ASCII characters.
    """
    if not KEY.fullmatch(key):
        raise NotUnderstood("web.refused.idempotency_key")
    return Repeat(person_id, f"{door}:{key}", hashlib.sha256("\0".join(request).encode()).digest())


async def find(tx: Transaction, repeat: Repeat, *, now: datetime) -> Answer | None:
    """The kept answer, if there is one; from here to the transaction's end nobody else uses that key.

    Raises NotUnderstood where the key belongs to another request.
    """
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 7))")
    await tx.execute(lock, {"key": f"{repeat.person_id} {repeat.key}"})
    row = (
        await tx.execute(
            select(idempotency_keys.c.fingerprint, idempotency_keys.c.response).where(
                idempotency_keys.c.person_id == repeat.person_id,
                idempotency_keys.c.key == repeat.key,
                idempotency_keys.c.created_at > now - LIFETIME,
            )
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != repeat.fingerprint:
        raise NotUnderstood(OTHER_REQUEST)
    return Answer(**row.response)


async def keep(tx: Transaction, repeat: Repeat, answer: Answer, *, now: datetime) -> None:
    values = {"fingerprint": repeat.fingerprint, "response": asdict(answer), "created_at": now}
    await tx.execute(
        insert(idempotency_keys)
        .values(person_id=repeat.person_id, key=repeat.key, **values)
        .on_conflict_do_update(
            index_elements=["person_id", "key"],
            set_=values,
            where=idempotency_keys.c.created_at <= now - LIFETIME,
        )
    )

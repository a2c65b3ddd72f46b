"""Signing in by mail: a link, or its code typed into the page that asked for it. Both work once, for ten minutes.

Link and code are derived from the sign-in's ID with the configured secret (HMAC-SHA-256, RFC 2104), so the mail can
be written by another process and the database holds nothing that signs anybody in. The browser that asked holds a
random value of its own; only its hash is stored, and only that browser can use link or code.
"""

import hashlib
import hmac
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, func, insert, select, update

from supervision import audit, mailboxes, notifications, people
from supervision.audit import Actor
from supervision.db import Ready, Transaction
from supervision.errors import NotFound, NotUnderstood
from supervision.models import Channel, audit_entries, sessions, sign_ins
from supervision.models import people as people_table
from supervision.notifications import HIGH, Notice
from supervision.people import Person

LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(days=14)
SESSION_IDLE = timedelta(days=3)
WRONG_CODES = 5
MAILS_AN_HOUR = 5  # to one person, asked for by one browser or from one address
MAILS_A_PERSON = 20  # an hour, whoever asks
CODE_DIGITS = 8


@dataclass(frozen=True)
class Session:
    """A signed-in browser."""

    person: Person
    token_hash: bytes


def link_token(secret: str, sign_in_id: uuid.UUID) -> str:
    """What the mailed link ends in: the ID and its seal."""
    return f"{sign_in_id.hex}{_seal(secret, b'link', sign_in_id).hex()[:40]}"


def code(secret: str, sign_in_id: uuid.UUID) -> str:
    """Eight decimal digits."""
    return str(int.from_bytes(_seal(secret, b"code", sign_in_id)[:8], "big") % 10**CODE_DIGITS).zfill(CODE_DIGITS)


def read_link_token(secret: str, token: str) -> uuid.UUID | None:
    """The ID in a link's token, or None where the seal does not fit."""
    if len(token) != 72 or not token.isascii():
        return None
    try:
        sign_in_id = uuid.UUID(hex=token[:32])
    except ValueError:
        return None
    return sign_in_id if hmac.compare_digest(link_token(secret, sign_in_id), token) else None


async def ask(tx: Transaction, actor: Actor, email: str, browser: str, *, now: datetime) -> None:
    """Mail a link to that address if it is somebody's. Nobody can tell from this function whether it was.

    Who asks too often gets none, and is told the same. It is counted by asker, so that a stranger who knows the
    address does not use up its owner's mails; the limit of all askers together only keeps the mailbox usable.
    """
    person_id: uuid.UUID | None = None
    try:
        person = await people.by_email(tx, email)
        person_id = None if person.disabled_at else person.id
    except NotFound:
        pass
    if person_id is not None and await _asked_too_often(tx, person_id, actor.ip, digest(browser), now):
        person_id = None
    sign_in_id = uuid.uuid4()
    await tx.execute(
        insert(sign_ins).values(
            id=sign_in_id,
            person_id=person_id,
            browser_hash=digest(browser),
            created_at=now,
            expires_at=now + LIFETIME,
            wrong_codes=0,
        )
    )
    await audit.record(tx, actor, "sign_in.ask", "person", person_id, now=now, success=person_id is not None)
    if person_id is not None:
        await notifications.enqueue(
            tx,
            [
                Notice(
                    person_id,
                    Channel.MAIL,
                    "sign_in",
                    {"sign_in_id": str(sign_in_id)},
                    priority=HIGH,
                    expires_at=now + LIFETIME,
                )
            ],
            now=now,
        )


async def use_link(tx: Transaction, actor: Actor, sign_in_id: uuid.UUID, browser: str | None, *, now: datetime) -> str:
    """Turn a link into a session; returns the session's token.

    A mail that arrived proves its address: where mail to it was stopped, it is resumed.

    Raises NotUnderstood: `refused.link_used_up` where it is used, too old or unknown, or five wrong codes were typed;
    `refused.other_browser` where another browser asked for it.
    """
    row = (
        await tx.execute(
            select(sign_ins)
            .where(
                sign_ins.c.id == sign_in_id,
                sign_ins.c.used_at.is_(None),
                sign_ins.c.expires_at > now,
                sign_ins.c.wrong_codes < WRONG_CODES,
            )
            .with_for_update()
        )
    ).one_or_none()
    if row is None or row.person_id is None:
        raise NotUnderstood("refused.link_used_up")
    if browser is None or not hmac.compare_digest(row.browser_hash, digest(browser)):
        raise NotUnderstood("refused.other_browser")
    return await _open_session(tx, actor, sign_in_id, row.person_id, now=now)


async def use_code(
    tx: Transaction, secret: str, actor: Actor, browser: str, typed: str, *, now: datetime
) -> str | None:
    """Turn the newest code that this browser asked for into a session; returns its token.

    None if the code is wrong; the wrong try is counted in this transaction, so commit it. After five of them, and
    for a browser that asked for nothing, it raises NotUnderstood: a new link has to be asked for.
    """
    row = (
        await tx.execute(
            select(sign_ins)
            .where(
                sign_ins.c.browser_hash == digest(browser),
                sign_ins.c.used_at.is_(None),
                sign_ins.c.expires_at > now,
            )
            .order_by(sign_ins.c.created_at.desc())
            .limit(1)
            .with_for_update()
        )
    ).one_or_none()
    if row is None or row.wrong_codes >= WRONG_CODES:
        raise NotUnderstood("refused.link_used_up")
    digits = "".join(character for character in typed if character.isdigit() and character.isascii())
    right = hmac.compare_digest(code(secret, row.id), digits)
    if not right or row.person_id is None:
        await tx.execute(update(sign_ins).where(sign_ins.c.id == row.id).values(wrong_codes=sign_ins.c.wrong_codes + 1))
        await audit.record(tx, actor, "sign_in.use_code", "person", row.person_id, now=now, success=False)
        return None
    return await _open_session(tx, actor, row.id, row.person_id, now=now)


async def open_session(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> str:
    """A new session for a person who has proved who they are; returns its token, which is stored nowhere."""
    token = secrets.token_urlsafe(32)
    await tx.execute(
        insert(sessions).values(
            token_hash=digest(token),
            person_id=person_id,
            created_at=now,
            seen_at=now,
            expires_at=now + SESSION_LIFETIME,
            ip=actor.ip,
            user_agent=None if actor.user_agent is None else actor.user_agent[:300],
        )
    )
    await audit.record(
        tx,
        Actor(person_id, actor.via, actor.ip, actor.user_agent),
        "session.open",
        "person",
        person_id,
        now=now,
    )
    return token


FIND_SESSION = Ready(
    select(sessions.c.token_hash, sessions.c.seen_at, *people.COLUMNS)
    .join(people_table, people_table.c.id == sessions.c.person_id)
    .where(
        sessions.c.token_hash == bindparam("token_hash"),
        sessions.c.expires_at > bindparam("now"),
        sessions.c.seen_at > bindparam("idle_since"),
    )
)


async def find_session(tx: Transaction, token: str, *, now: datetime) -> Session | None:
    """The session of that token, if it lives and its person is not disabled."""
    known = {"token_hash": digest(token), "now": now, "idle_since": now - SESSION_IDLE}
    rows = await FIND_SESSION.fetch(tx, known)
    if not rows:
        return None
    token_hash, seen_at, *someone = rows[0]
    person = people.from_row(someone)
    if person.disabled_at is not None:
        return None
    if now - seen_at > timedelta(minutes=5):
        await tx.execute(update(sessions).where(sessions.c.token_hash == token_hash).values(seen_at=now))
    return Session(person, token_hash)


async def close_session(tx: Transaction, actor: Actor, session: Session, *, now: datetime) -> None:
    await tx.execute(delete(sessions).where(sessions.c.token_hash == session.token_hash))
    await audit.record(tx, actor, "session.close", "person", session.person.id, now=now)


async def forget_old(tx: Transaction, *, now: datetime) -> None:
    """Remove sessions and sign-ins that can no longer be used."""
    await tx.execute(
        delete(sessions).where((sessions.c.expires_at <= now) | (sessions.c.seen_at <= now - SESSION_IDLE))
    )
    await tx.execute(delete(sign_ins).where(sign_ins.c.expires_at <= now - timedelta(days=1)))


def digest(token: str) -> bytes:
    """Tokens have 256 random bits, so a plain SHA-256 is enough to store."""
    return hashlib.sha256(token.encode()).digest()


async def _open_session(
    tx: Transaction, actor: Actor, sign_in_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime
) -> str:
    await tx.execute(update(sign_ins).where(sign_ins.c.id == sign_in_id).values(used_at=now))
    await mailboxes.resume(tx, Actor(person_id, actor.via, actor.ip, actor.user_agent), person_id, now=now)
    return await open_session(tx, actor, person_id, now=now)


async def _asked_too_often(
    tx: Transaction, person_id: uuid.UUID, ip: str | None, browser_hash: bytes, now: datetime
) -> bool:
    """Only what was mailed counts. Addresses stand in the audit alone."""
    since = now - timedelta(hours=1)
    by_browser = func.count().filter(sign_ins.c.browser_hash == browser_hash)
    query = select(func.count(), by_browser).where(sign_ins.c.person_id == person_id, sign_ins.c.created_at > since)
    by_all, by_browser_alone = (await tx.execute(query)).one()
    from_address = select(func.count()).where(
        audit_entries.c.resource_id == str(person_id),
        audit_entries.c.action == "sign_in.ask",
        audit_entries.c.at > since,
        audit_entries.c.ip == ip,
    )
    by_address = int(await tx.scalar(from_address) or 0) if ip else 0
    return bool(by_all >= MAILS_A_PERSON or max(by_browser_alone, by_address) >= MAILS_AN_HOUR)


def _seal(secret: str, purpose: bytes, sign_in_id: uuid.UUID) -> bytes:
    return hmac.new(secret.encode(), purpose + b":" + sign_in_id.bytes, hashlib.sha256).digest()

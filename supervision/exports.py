"""A room taken home by one of its two: asked for, agreed to, made by the bot's process, fetched once signed in anew.

Whoever asks types a code in the room, or has just signed in; so does the other, who has three days for it, unless the
pair's settings want one word alone. The bot's loop makes the file (bot/exports.py) and puts it here in pieces, each
encrypted with a key of its own file; it goes a day after it was ready.

The pieces are sealed as a STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): AES-256-GCM (NIST SP 800-38D), whose nonce
is the piece's position and whose associated data are file, position and whether it is the last; so none can be changed,
moved or left out. The key comes by HKDF-SHA-256 (RFC 5869) from the configured secret and a random salt, which goes
with the pieces: then not even a backup's secret reads them.
"""

import secrets
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update

from supervision import audit, notifications, pairs, questions
from supervision.audit import SYSTEM, Actor
from supervision.db import Database, Transaction, take_each
from supervision.errors import AlreadyAnswered, NotFound, Permanent, TooMany
from supervision.models import Channel, Consent, ExportState, Fault, Question, audit_entries, export_chunks, exports
from supervision.models import notifications as outbox
from supervision.models import pairs as pairs_table
from supervision.models import questions as questions_table
from supervision.notifications import HIGH, Notice
from supervision.pairs import Pair
from supervision.questions import Asked

CHANNEL = "visavis_exports"  # NOTIFY: there is one to be made
ANSWER_TIME = timedelta(days=3)
KEPT = timedelta(days=1)
MOST_A_DAY = 3
CHUNK = 1 << 20  # bytes of the file in one row
PATIENCE = timedelta(days=1)  # with a homeserver that is away, or a process that dies of it
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=15), timedelta(minutes=10)


@dataclass(frozen=True)
class Export:
    """`events` are those taken in so far, all of them once it is ready; `bytes` likewise of the file."""

    id: uuid.UUID
    pair_id: uuid.UUID
    person_id: uuid.UUID
    agreed_by: uuid.UUID | None
    state: ExportState
    salt: bytes | None
    events: int
    bytes: int
    attempts: int
    error: str | None
    created_at: datetime
    ready_at: datetime | None
    expires_at: datetime | None
    fetched_at: datetime | None


COLUMNS = (
    exports.c.id,
    exports.c.pair_id,
    exports.c.person_id,
    exports.c.agreed_by,
    exports.c.state,
    exports.c.salt,
    exports.c.events,
    exports.c.bytes,
    exports.c.attempts,
    exports.c.error,
    exports.c.created_at,
    exports.c.ready_at,
    exports.c.expires_at,
    exports.c.fetched_at,
)


# Asking and agreeing


async def check(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> Pair:
    """Whether this person may ask for an export now. Raises Refused: only the two of the pair, not an admin, may."""
    pair = await pairs.get(tx, pair_id)
    person = pair.member(actor.person_id)
    _require_room(pair)
    if await pending(tx, pair, person.id, now=now) is not None or await _being_made(tx, pair_id, person.id):
        raise AlreadyAnswered("refused.export_open")
    asked = select(func.count()).where(
        audit_entries.c.actor_id == person.id,
        audit_entries.c.at > now - timedelta(days=1),
        audit_entries.c.action == "export.ask",
        audit_entries.c.resource_id == str(pair_id),
        audit_entries.c.success,
    )
    if int(await tx.scalar(asked) or 0) >= MOST_A_DAY:
        raise TooMany("refused.export_too_many")
    return pair


def is_out_of_reach(pair: Pair) -> bool:
    """Whether there is a room that the bot is not in any more, so that it can read nothing of it."""
    return pair.room_id is not None and pair.fault is Fault.GONE


def _require_room(pair: Pair) -> None:
    if pair.room_id is None or pair.removed_at is not None:
        raise NotFound("refused.export_no_room")
    if is_out_of_reach(pair):
        raise NotFound("refused.export_room_lost")


async def ask(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, default: Consent, now: datetime) -> Export | None:
    """Somebody who has proved who they are asks for an export. None where the other is asked to agree first.

    `default` holds where nothing was settled for the pair. Raises as `check` does, and NotFound where the other's
    word is needed and they can give none.
    """
    await pairs.get_locked(tx, pair_id)
    pair = await check(tx, actor, pair_id, now=now)
    person = pair.member(actor.person_id)
    await audit.record(tx, actor, "export.ask", "pair", pair_id, now=now)
    if await consent(tx, pair_id, default) is Consent.ONE:
        return await _agreed(tx, pair, person.id, None, now=now)
    other = pair.other(person.id)
    if other.disabled_at is not None:
        raise NotFound("refused.export_other_gone")
    until = now + ANSWER_TIME
    told = Notice(
        other.id,
        Channel.MATRIX,
        "export.asked",
        {"by": str(person.id)},
        pair_id=pair_id,
        priority=HIGH,
        expires_at=until,
    )
    mail = Notice(other.id, Channel.MAIL, "export.asked", {"by": str(person.id)}, pair_id=pair_id, expires_at=until)
    await notifications.enqueue(tx, [told, mail], now=now)
    code = f"{secrets.randbelow(10_000):04}"
    await questions.put(tx, Asked(told.id, pair_id, other.id, Question.AGREE_EXPORT, until, code=code), now=now)
    return None


async def asked(
    tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime, locked: bool = True
) -> Asked | None:
    """What this person is asked to agree to, while they can; `locked`, unless it is only to be shown."""
    wanted = Question.AGREE_EXPORT
    return await questions.last(tx, person_id, pair_id, wanted, now=now, unanswered=True, locked=locked)


async def pending(
    tx: Transaction, pair: Pair, person_id: uuid.UUID, *, now: datetime, locked: bool = True
) -> Asked | None:
    """What the other is asked because of this person, while they can answer; as `asked`."""
    return await asked(tx, pair.id, pair.other(person_id).id, now=now, locked=locked)


async def agree(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> Export:
    """The other agrees, having proved who they are.

    Raises AlreadyAnswered where nothing is asked (any more), NotFound where the room is out of reach meanwhile.
    """
    pair = await pairs.get_locked(tx, pair_id)
    person = pair.member(actor.person_id)
    question = await asked(tx, pair_id, person.id, now=now)
    if question is None:
        raise AlreadyAnswered("refused.export_not_asked")
    _require_room(pair)
    await questions.answer(tx, question, now=now)
    return await agreed(tx, actor, pair, now=now)


async def agreed(tx: Transaction, actor: Actor, pair: Pair, *, now: datetime) -> Export:
    """The question is closed with a yes: the other's export is to be made."""
    person = pair.member(actor.person_id)
    await audit.record(tx, actor, "export.agree", "pair", pair.id, now=now)
    return await _agreed(tx, pair, pair.other(person.id).id, person.id, now=now)


async def refuse(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """The other says no; whoever asked is told. Raises AlreadyAnswered where nothing is asked."""
    pair = await pairs.get(tx, pair_id)
    person = pair.member(actor.person_id)
    question = await asked(tx, pair_id, person.id, now=now)
    if question is None:
        raise AlreadyAnswered("refused.export_not_asked")
    await questions.answer(tx, question, now=now)
    await refused(tx, actor, pair, now=now)


async def refused(tx: Transaction, actor: Actor, pair: Pair, *, now: datetime, reason: str | None = None) -> None:
    """The question is closed with a no: tell whoever asked."""
    person = pair.member(actor.person_id)
    await audit.record(tx, actor, "export.refuse", "pair", pair.id, now=now, reason=reason)
    await _tell(tx, pair, "export.refused", [pair.other(person.id).id], {"by": str(person.id)}, now=now)


async def withdraw(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
    """Whoever asked does not want it any more. Raises AlreadyAnswered where the other is not asked (any more)."""
    pair = await pairs.get(tx, pair_id)
    question = await pending(tx, pair, pair.member(actor.person_id).id, now=now)
    if question is None:
        raise AlreadyAnswered("refused.export_not_asked")
    await questions.answer(tx, question, now=now)
    await audit.record(tx, actor, "export.withdraw", "pair", pair_id, now=now)


async def consent(tx: Transaction, pair_id: uuid.UUID, default: Consent) -> Consent:
    """Whose word it takes in this pair."""
    settled = await tx.scalar(select(pairs_table.c.export_consent).where(pairs_table.c.id == pair_id))
    return default if settled is None else Consent(settled)


async def retained_since(tx: Transaction, pair_id: uuid.UUID) -> datetime | None:
    """What was written in the room before that is gone for good; None where nothing is."""
    at: datetime | None = await tx.scalar(select(pairs_table.c.retained_since).where(pairs_table.c.id == pair_id))
    return at


async def lapse(tx: Transaction, *, now: datetime) -> None:
    """What nobody answered in time is closed; whoever asked is told."""
    rows = await tx.execute(
        select(questions_table.c.notification_id, questions_table.c.pair_id, questions_table.c.person_id)
        .where(
            questions_table.c.kind == Question.AGREE_EXPORT,
            questions_table.c.answered_at.is_(None),
            questions_table.c.expires_at <= now,
        )
        .with_for_update(skip_locked=True)
    )
    await take_each(tx, rows.all(), lambda row: _lapse(tx, *row, now=now), "lapse_export")


async def _lapse(
    tx: Transaction, notification_id: uuid.UUID, pair_id: uuid.UUID, person_id: uuid.UUID, *, now: datetime
) -> None:
    await tx.execute(
        update(questions_table)
        .where(questions_table.c.notification_id == notification_id)
        .values(answered_at=now, details={})
    )
    pair = await pairs.get(tx, pair_id)
    await audit.record(tx, SYSTEM, "export.lapse", "pair", pair_id, now=now, success=False)
    details = {"by": str(person_id), "lapsed": True}
    await _tell(tx, pair, "export.refused", [pair.other(person_id).id], details, now=now)


async def _being_made(tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID) -> bool:
    query = select(exports.c.id).where(
        exports.c.pair_id == pair_id, exports.c.person_id == person_id, exports.c.state == ExportState.AGREED
    )
    return await tx.scalar(query.limit(1)) is not None


async def _agreed(
    tx: Transaction, pair: Pair, person_id: uuid.UUID, agreed_by: uuid.UUID | None, *, now: datetime
) -> Export:
    identifier = uuid.uuid4()
    await tx.execute(
        insert(exports).values(
            id=identifier,
            pair_id=pair.id,
            person_id=person_id,
            agreed_by=agreed_by,
            state=ExportState.AGREED,
            events=0,
            bytes=0,
            attempts=0,
            created_at=now,
            next_try_at=now,
        )
    )
    await tx.execute(select(func.pg_notify(CHANNEL, "")))
    if agreed_by is not None:
        await _tell(tx, pair, "export.agreed", [person_id], {"by": str(agreed_by)}, now=now)
    return await get(tx, identifier)


# Looking


async def get(tx: Transaction, export_id: uuid.UUID) -> Export:
    """Raises NotFound."""
    row = (await tx.execute(select(*COLUMNS).where(exports.c.id == export_id))).one_or_none()
    if row is None:
        raise NotFound
    return _from_row(row)


async def list_of(tx: Transaction, pair_id: uuid.UUID, person_id: uuid.UUID, *, since: datetime) -> list[Export]:
    """This person's exports of that room, the newest first."""
    query = select(*COLUMNS).where(
        exports.c.pair_id == pair_id, exports.c.person_id == person_id, exports.c.created_at > since
    )
    return [_from_row(row) for row in await tx.execute(query.order_by(exports.c.created_at.desc()))]


async def made(tx: Transaction, pair_id: uuid.UUID) -> list[Export]:
    """All that were ever made of a room, by either of the two, the newest first: both may know."""
    query = select(*COLUMNS).where(exports.c.pair_id == pair_id, exports.c.ready_at.is_not(None))
    return [_from_row(row) for row in await tx.execute(query.order_by(exports.c.ready_at.desc()).limit(50))]


# Making


async def next_due(tx: Transaction, bot: str, *, now: datetime) -> Export | None:
    """The next one that this bot account is to make, locked. Its one process makes one after the other."""
    query = (
        select(*COLUMNS)
        .join(pairs_table, pairs_table.c.id == exports.c.pair_id)
        .where(pairs_table.c.bot == bot, exports.c.state == ExportState.AGREED, exports.c.next_try_at <= now)
        .order_by(exports.c.next_try_at)
        .limit(1)
        .with_for_update(of=exports)
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def next_try_at(tx: Transaction, bot: str) -> datetime | None:
    """When this bot account has something to make next."""
    query = (
        select(func.min(exports.c.next_try_at))
        .join(pairs_table, pairs_table.c.id == exports.c.pair_id)
        .where(pairs_table.c.bot == bot, exports.c.state == ExportState.AGREED)
    )
    at: datetime | None = await tx.scalar(query)
    return at


async def begin(tx: Transaction, due: Export, *, now: datetime) -> Export:
    """Begin anew, with nothing of an earlier try; a new salt, so that no nonce comes twice with the same key.

    The next try is planned already, ever later: it may be this very export that a process dies of.
    """
    pause = timedelta(0) if due.attempts == 0 else _pause(due.attempts)
    await tx.execute(delete(export_chunks).where(export_chunks.c.export_id == due.id))
    await tx.execute(
        update(exports)
        .where(exports.c.id == due.id, exports.c.state == ExportState.AGREED)
        .values(
            salt=secrets.token_bytes(32),
            events=0,
            bytes=0,
            attempts=exports.c.attempts + 1,
            next_try_at=now + pause,
        )
    )
    return await get(tx, due.id)


def _pause(attempts: int) -> timedelta:
    """How long to wait after so many tries."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * float(2 ** min(attempts - 1, 20)))


async def note(tx: Transaction, export_id: uuid.UUID, *, events: int) -> None:
    """How many events were taken in so far."""
    await tx.execute(update(exports).where(exports.c.id == export_id).values(events=events))


async def put(tx: Transaction, export_id: uuid.UUID, position: int, sealed: bytes, *, size: int) -> None:
    """One piece of the file, of `size` bytes before it was sealed. Raises Permanent where the room was removed."""
    making = exports.c.id == export_id, exports.c.state == ExportState.AGREED
    changed = await tx.execute(update(exports).where(*making).values(bytes=exports.c.bytes + size))
    if changed.rowcount == 0:
        raise Permanent("export_gone")
    await tx.execute(insert(export_chunks).values(export_id=export_id, position=position, content=sealed))


async def tell_started(tx: Transaction, export: Export, pair: Pair, *, now: datetime) -> None:
    """It takes a while: say so in the room, once."""
    details = {"export": str(export.id)}
    known = select(outbox.c.id).where(
        outbox.c.pair_id == pair.id,
        outbox.c.kind == "export.started",
        outbox.c.details == details,
    )
    if await tx.scalar(known.limit(1)) is None:
        await _tell(tx, pair, "export.started", [export.person_id], details, now=now)


async def finish(tx: Transaction, export: Export, pair: Pair, *, events: int, now: datetime) -> None:
    """It is ready for a day. Both are told in the room, whoever asked by mail too."""
    changed = await tx.execute(
        update(exports)
        .where(exports.c.id == export.id, exports.c.state == ExportState.AGREED)
        .values(state=ExportState.READY, events=events, error=None, ready_at=now, expires_at=now + KEPT)
    )
    if changed.rowcount == 0:  # the room was removed meanwhile
        return
    await audit.record(tx, SYSTEM, "export.make", "export", export.id, now=now)
    details = {"by": str(export.person_id)}
    until = now + KEPT
    await _tell(tx, pair, "export.ready", [export.person_id], details, now=now, until=until, mailed=True)
    await _tell(tx, pair, "export.made", [pair.other(export.person_id).id], details, now=now)


async def fail(tx: Transaction, export: Export, pair: Pair, code: str, *, permanent: bool, now: datetime) -> None:
    """A try failed: it is made anew after a pause, or given up, which is told. `code` is a short static word.

    Nothing where the room was removed meanwhile.
    """
    given_up = permanent or now - export.created_at >= PATIENCE
    values: dict[str, object] = {"error": code, "next_try_at": now + _pause(max(1, export.attempts))}
    if given_up:
        values |= {"state": ExportState.FAILED, "salt": None, "bytes": 0}
    making = exports.c.id == export.id, exports.c.state == ExportState.AGREED
    changed = await tx.execute(update(exports).where(*making).values(**values))
    if changed.rowcount == 0:
        return
    await tx.execute(delete(export_chunks).where(export_chunks.c.export_id == export.id))
    if given_up:
        await audit.record(tx, SYSTEM, "export.make", "export", export.id, now=now, success=False, reason=code)
        await _tell(tx, pair, "export.failed", [export.person_id], {}, now=now, mailed=True)


# Taking home, and after


async def to_fetch(tx: Transaction, actor: Actor, export_id: uuid.UUID, *, now: datetime) -> Export:
    """The export, if it is ready and this person's own. Raises NotFound for whatever else."""
    export = await get(tx, export_id)
    ready = export.state is ExportState.READY and export.expires_at is not None and export.expires_at > now
    if export.person_id != actor.person_id or not ready:
        raise NotFound("refused.export_gone")
    return export


async def note_fetched(tx: Transaction, export_id: uuid.UUID, *, now: datetime) -> None:
    """It went out whole."""
    await tx.execute(update(exports).where(exports.c.id == export_id).values(fetched_at=now))


async def expire(tx: Transaction, *, now: datetime) -> None:
    """A day after it was ready it goes, with the salt that its key came from."""
    await _forget(tx, (exports.c.state == ExportState.READY) & (exports.c.expires_at <= now), now=now)


async def forget_room(tx: Transaction, pair_id: uuid.UUID, *, now: datetime) -> None:
    """The room goes with everything: so do what was made of it, and what is being made or asked for.

    Whoever answers just now is waited for, or finds nothing to answer. The order is that of those who type a code:
    their own question, the people, the other's question.
    """
    asked = questions_table.c.pair_id == pair_id
    await _close_all(tx, Question.CONFIRM_EXPORT, asked, now=now)
    await pairs.get_locked(tx, pair_id)
    await _close_all(tx, Question.AGREE_EXPORT, asked, now=now)
    await _forget(tx, exports.c.pair_id == pair_id, now=now)


async def forget_person(tx: Transaction, person_id: uuid.UUID, *, now: datetime) -> None:
    """Who is disabled takes nothing home: what was made for them goes, and what is being made or asked for.

    They are locked. What they were asked themselves is left to lapse, which is told.
    """
    theirs = or_(pairs_table.c.supervisor_id == person_id, pairs_table.c.supervisee_id == person_id)
    there = questions_table.c.pair_id.in_(select(pairs_table.c.id).where(theirs))
    await _close_all(tx, Question.AGREE_EXPORT, there & (questions_table.c.person_id != person_id), now=now)
    await _forget(tx, exports.c.person_id == person_id, now=now)


async def _close_all(tx: Transaction, kind: Question, which: ColumnElement[bool], *, now: datetime) -> None:
    still = questions_table.c.kind == kind, questions_table.c.answered_at.is_(None)
    await tx.execute(update(questions_table).where(which, *still).values(answered_at=now, details={}))


async def _forget(tx: Transaction, which: ColumnElement[bool], *, now: datetime) -> None:
    still = exports.c.state.in_((ExportState.READY, ExportState.AGREED))
    gone = list(await tx.scalars(select(exports.c.id).where(which, still).with_for_update()))
    await tx.execute(delete(export_chunks).where(export_chunks.c.export_id.in_(gone)))
    await tx.execute(update(exports).where(exports.c.id.in_(gone)).values(state=ExportState.EXPIRED, salt=None))
    for export_id in gone:
        await audit.record(tx, SYSTEM, "export.expire", "export", export_id, now=now)


async def _tell(
    tx: Transaction,
    pair: Pair,
    kind: str,
    readers: Sequence[uuid.UUID],
    details: dict[str, Any],
    *,
    now: datetime,
    until: datetime | None = None,
    mailed: bool = False,
) -> None:
    channels = [Channel.MATRIX, Channel.MAIL] if mailed else [Channel.MATRIX]
    notices = [
        Notice(reader, channel, kind, details, pair_id=pair.id, expires_at=until)
        for reader in readers
        for channel in channels
    ]
    await notifications.enqueue(tx, notices, now=now)


# Sealing


class Seal:
    """Locks and unlocks the pieces of one file. `secret` is the configured one."""

    def __init__(self, secret: str, export_id: uuid.UUID, salt: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"visavis export").derive(secret.encode())
        self._cipher = AESGCM(key)
        self._file = export_id.bytes

    def lock(self, position: int, piece: bytes, *, last: bool) -> bytes:
        """The piece at that position, counted from 0."""
        return self._cipher.encrypt(_nonce(position), piece, self._about(position, last))

    def unlock(self, position: int, sealed: bytes, *, last: bool) -> bytes:
        """Raises NotFound where it is not what was locked there: another secret, or tampered with."""
        try:
            return self._cipher.decrypt(_nonce(position), sealed, self._about(position, last))
        except InvalidTag as error:
            raise NotFound("refused.export_gone") from error

    def _about(self, position: int, last: bool) -> bytes:
        return self._file + position.to_bytes(8, "big") + bytes([last])


def _nonce(position: int) -> bytes:
    return position.to_bytes(12, "big")


async def read(database: Database, secret: str, export: Export) -> AsyncIterator[bytes]:
    """The file, piece by piece; each is a transaction of its own, so that a slow reader holds none open.

    Raises NotFound where a piece is missing or is not what was put there, or where it goes meanwhile.
    """
    seal = Seal(secret, export.id, export.salt or b"")
    position, sealed = 0, await _piece(database, export.id, 0)
    while sealed is not None:
        following = await _piece(database, export.id, position + 1)
        yield seal.unlock(position, sealed, last=following is None)
        position, sealed = position + 1, following
    if position == 0:
        raise NotFound("refused.export_gone")


async def _piece(database: Database, export_id: uuid.UUID, position: int) -> bytes | None:
    query = select(export_chunks.c.content).where(
        export_chunks.c.export_id == export_id, export_chunks.c.position == position
    )
    async with database.transaction() as tx:
        content: bytes | None = await tx.scalar(query)
        return content


def _from_row(row: Iterable[Any]) -> Export:
    identifier, pair_id, person_id, agreed_by, state, *rest = row
    return Export(identifier, pair_id, person_id, agreed_by, ExportState(state), *rest)

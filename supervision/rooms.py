"""A pair's room: what may be shared in it, how long it stays, when it closes, and how it is taken home.

What is settled for no pair holds by the configuration's section `rooms`.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from supervision import audit, notifications, pairs, people, unreads
from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Transaction
from supervision.errors import NotAllowed, NotFound, NotUnderstood, PairArchived
from supervision.models import Channel, Consent, FileKind, PairStatus
from supervision.models import pairs as table
from supervision.notifications import Notice
from supervision.pairs import Pair

KIND = "room.settings"
MOST_MEGABYTES = 1000
MOST_DAYS = 3650
MOST_MINUTES = 10_080
FOREVER = 0  # days of retention
NOTICE = timedelta(days=3)  # that people have before anything is removed
BYTES = 1024 * 1024  # of a megabyte, as phones count it
# The settings by name, and the column that keeps each.
COLUMNS = {
    "attachments": table.c.attachments,
    "kinds": table.c.attachment_kinds,
    "megabytes": table.c.attachment_megabytes,
    "retention_days": table.c.retention_days,
    "unread_minutes": table.c.unread_minutes,
    "export_consent": table.c.export_consent,
    "expires_on": table.c.expires_on,
}
OF_FILES = frozenset({"attachments", "kinds", "megabytes"})
OF_CLOSED = frozenset({"retention_days", "export_consent"})  # what still matters in an archived room


@dataclass(frozen=True)
class RoomSettings:
    """What holds in a room. `own` names what was settled for this pair; all else is the configuration's.

    `megabytes` is the largest file, `retention_days` 0 is for ever, `unread_minutes` None is what the configuration's
    `matrix.unread_minutes` says and 0 never, `expires_on` the last day in the supervisor's zone.
    """

    attachments: bool
    kinds: frozenset[FileKind]
    megabytes: int
    retention_days: int
    unread_minutes: int | None
    export_consent: Consent
    expires_on: date | None
    own: frozenset[str] = field(default_factory=frozenset)

    @property
    def ordered_kinds(self) -> tuple[FileKind, ...]:
        """The kinds of files in the order in which people are told them."""
        return tuple(kind for kind in FileKind if kind in self.kinds)

    @property
    def most_bytes(self) -> int:
        return self.megabytes * BYTES


async def of(tx: Transaction, pair_id: uuid.UUID, defaults: RoomsConfig) -> RoomSettings:
    """What holds in a pair's room. Raises NotFound for no such pair."""
    row = (await tx.execute(select(*COLUMNS.values()).where(table.c.id == pair_id))).one_or_none()
    if row is None:
        raise NotFound("refused.pair_not_found")
    return _settings(dict(zip(COLUMNS, row, strict=True)), defaults)


async def unread_waits(tx: Transaction, bot: str) -> dict[str, timedelta]:
    """By room of one bot account, how long a message may stay unread, where that was settled for the pair."""
    query = select(table.c.room_id, table.c.unread_minutes).where(
        table.c.bot == bot, table.c.room_id.is_not(None), table.c.unread_minutes.is_not(None)
    )
    return {room_id: timedelta(minutes=minutes) for room_id, minutes in await tx.execute(query)}


async def unread_wait(tx: Transaction, pair_id: uuid.UUID, usual: timedelta) -> timedelta:
    """How long a message may stay unread in a pair's room before a mail is due; without one none is."""
    minutes = await tx.scalar(select(table.c.unread_minutes).where(table.c.id == pair_id))
    return usual if minutes is None else timedelta(minutes=minutes)


async def settle(
    tx: Transaction,
    actor: Actor,
    pair_id: uuid.UUID,
    changes: Mapping[str, Any],
    defaults: RoomsConfig,
    *,
    now: datetime,
) -> RoomSettings:
    """Change some of a room's settings by name; None is what the configuration says, or no expiry.

    The pair's supervisor may, an admin, the operator and the system; whoever of the two did not do it is told in the
    room. Of an archived room only the retention and who agrees to an export can be changed; that one word is enough
    for that, where it took both, is the practice's to say and not one of the two's. Raises NotAllowed, PairArchived,
    and NotUnderstood for a value that makes no sense.
    """
    pair = await pairs.get_locked(tx, pair_id)
    await require_settler(tx, actor, pair)
    before = await of(tx, pair_id, defaults)
    if pair.status is not PairStatus.ACTIVE and not changes.keys() <= OF_CLOSED:
        raise PairArchived
    values = {name: _check(name, value, pair, now) for name, value in changes.items()}
    if before.export_consent is Consent.BOTH and _consent(values, before, defaults) is Consent.ONE:
        await _require_practice(tx, actor)
    stored = {COLUMNS[name].name: _stored(value) for name, value in values.items()}
    if stored:
        await tx.execute(update(table).where(table.c.id == pair_id).values(**stored))
    if values.get("unread_minutes") == 0:
        for person in pair.people:
            await unreads.send_no_mail(tx, pair_id, person.id, now=now)
    settings = await of(tx, pair_id, defaults)
    changed = [name for name in COLUMNS if getattr(settings, name) != getattr(before, name)]
    if changed or settings.own != before.own:
        await audit.record(tx, actor, "room.settle", "pair", pair_id, now=now)
        await pairs.wake_keepers(tx)
    if removal(settings, before, now=now) is not None:
        await pairs.void_announcements(tx, pair_id)  # both hear that it stays longer now
    if changed:
        await notifications.enqueue(tx, _news(actor, pair, before, settings, now=now), now=now)
    return settings


async def require_settler(tx: Transaction, actor: Actor, pair: Pair) -> None:
    """Raise NotAllowed unless it is the pair's supervisor, an admin, the operator or the system who acts."""
    try:
        await pairs.require_supervisor(tx, actor, pair)
    except NotAllowed as error:
        raise NotAllowed("refused.supervisor_settles") from error


def _consent(values: Mapping[str, Any], before: RoomSettings, defaults: RoomsConfig) -> Consent:
    """Who is to agree to an export then."""
    consent: Consent | None = values.get("export_consent", before.export_consent)
    return defaults.export_consent if consent is None else consent


async def _require_practice(tx: Transaction, actor: Actor) -> None:
    try:
        await people.require_admin(tx, actor)
    except NotAllowed as error:
        raise NotAllowed("refused.export_consent") from error


def removal(before: RoomSettings, after: RoomSettings, *, now: datetime) -> tuple[datetime, datetime] | None:
    """What fewer days of retention remove: from when on at the earliest, and what was written before which time then.

    None where nothing goes that would not have gone anyway.
    """
    if after.retention_days == FOREVER:
        return None
    if before.retention_days != FOREVER and before.retention_days <= after.retention_days:
        return None
    since = now + NOTICE
    return since, since - timedelta(days=after.retention_days)


def _settings(values: Mapping[str, Any], defaults: RoomsConfig) -> RoomSettings:
    usual = {
        "attachments": defaults.attachments,
        "kinds": defaults.attachment_kinds,
        "megabytes": defaults.attachment_megabytes,
        "retention_days": defaults.retention_days,
        "export_consent": defaults.export_consent,
    }
    own = {name: value for name, value in values.items() if value is not None}
    held: dict[str, Any] = {**dict.fromkeys(COLUMNS), **usual, **own}
    held["kinds"] = frozenset(map(FileKind, held["kinds"]))
    held["export_consent"] = Consent(held["export_consent"])
    return RoomSettings(**held, own=frozenset(own))


def _check(name: str, value: Any, pair: Pair, now: datetime) -> Any:
    """The value as it is meant. Raises NotUnderstood."""
    if name not in COLUMNS:
        raise NotUnderstood("refused.setting", name=name)
    if value is None:
        return None
    match name:
        case "attachments":
            if isinstance(value, bool):
                return value
        case "kinds":
            return _kinds(value)
        case "megabytes":
            return _within(value, 1, MOST_MEGABYTES, "refused.megabytes")
        case "retention_days":
            return _within(value, 0, MOST_DAYS, "refused.retention_days")
        case "unread_minutes":
            return _within(value, 0, MOST_MINUTES, "refused.unread_minutes")
        case "export_consent":
            if value in list(Consent):
                return Consent(value)
        case _:
            return _expiry(value, pair, now)
    raise NotUnderstood("refused.setting", name=name)


def _kinds(value: Iterable[str]) -> frozenset[FileKind]:
    """At least one: none at all is said by `attachments`."""
    try:
        kinds = frozenset(map(FileKind, value))
    except (ValueError, TypeError) as error:
        raise NotUnderstood("refused.kinds") from error
    if not kinds:
        raise NotUnderstood("refused.kinds")
    return kinds


def _within(value: object, least: int, most: int, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise NotUnderstood(key, least=least, most=most)
    return value


def _expiry(value: object, pair: Pair, now: datetime) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise NotUnderstood("refused.setting", name="expires_on")
    if value < now.astimezone(pair.supervisor.zone).date():
        raise NotUnderstood("refused.expiry_past")
    return value


def _stored(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


def differences(before: RoomSettings | None, after: RoomSettings) -> dict[str, Any]:
    """What is different, as JSON, by the names of the settings; all about files where one thing about them is."""
    if before is None:
        return {name: _as_json(getattr(after, name)) for name in COLUMNS}
    names = [name for name in COLUMNS if getattr(after, name) != getattr(before, name)]
    if OF_FILES & set(names):
        names = [name for name in COLUMNS if name in OF_FILES or name in names]
    return {name: _as_json(getattr(after, name)) for name in names}


def _news(actor: Actor, pair: Pair, before: RoomSettings, after: RoomSettings, *, now: datetime) -> list[Notice]:
    goes = removal(before, after, now=now)
    details = {
        "by": None if actor.person_id is None else str(actor.person_id),
        "changed": differences(before, after),
        "removal": None if goes is None else [at.isoformat() for at in goes],
    }
    told = [person for person in pair.people if person.id != actor.person_id and person.disabled_at is None]
    return [Notice(person.id, Channel.MATRIX, KIND, details, pair_id=pair.id) for person in told]


def _as_json(value: Any) -> Any:
    if isinstance(value, frozenset):
        return [str(kind) for kind in FileKind if kind in value]
    return value.isoformat() if isinstance(value, date) else value

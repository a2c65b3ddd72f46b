"""Persons: who they are, how they are reached, in which language and zone they read."""

import functools
import re
import unicodedata
import uuid
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from supervision import audit, notifications
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotAllowed, NotFound, NotUnderstood
from supervision.models import Role, address_changes, people, sign_ins

LANGUAGES = ("pt-BR", "en")
MATRIX_ID = re.compile(r"@[a-z0-9._=/+-]+:[A-Za-z0-9.:\[\]-]+")


@dataclass(frozen=True)
class Person:
    id: uuid.UUID
    name: str
    email: str
    matrix_id: str | None
    language: str
    time_zone: str
    roles: frozenset[Role]
    disabled_at: datetime | None = None

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.time_zone)


COLUMNS = (
    people.c.id,
    people.c.name,
    people.c.email,
    people.c.matrix_id,
    people.c.language,
    people.c.time_zone,
    people.c.roles,
    people.c.disabled_at,
)


def from_row(values: Iterable[Any]) -> Person:
    """A person from the values of `COLUMNS`, in their order."""
    identifier, name, email, matrix_id, language, time_zone, roles, disabled_at = values
    return Person(identifier, name, email, matrix_id, language, time_zone, frozenset(map(Role, roles)), disabled_at)


async def add(
    tx: Transaction,
    actor: Actor,
    *,
    name: str,
    email: str,
    matrix_id: str | None,
    language: str,
    time_zone: str,
    roles: Iterable[str],
    now: datetime,
) -> Person:
    """Add a person. Refused if a value makes no sense, or the address or Matrix ID is somebody's already.

    Raises NotAllowed for anybody but an admin and the operator.
    """
    await require_admin(tx, actor)
    person = Person(
        uuid.uuid4(),
        check_name(name),
        check_email(email),
        None if matrix_id is None else check_matrix_id(matrix_id),
        check_language(language),
        check_time_zone(time_zone),
        check_roles(roles),
    )
    try:
        await tx.execute(
            insert(people).values(
                id=person.id,
                name=person.name,
                email=person.email,
                matrix_id=person.matrix_id,
                language=person.language,
                time_zone=person.time_zone,
                roles=sorted(person.roles),
                created_at=now,
            )
        )
    except IntegrityError as error:
        raise NotUnderstood("refused.person_exists") from error
    await audit.record(tx, actor, "person.add", "person", person.id, now=now)
    return person


async def get(tx: Transaction, person_id: uuid.UUID) -> Person:
    return await _find(tx, people.c.id == person_id)


async def by_email(tx: Transaction, email: str) -> Person:
    return await _find(tx, func.lower(people.c.email) == email.strip().lower())


async def by_matrix_id(tx: Transaction, matrix_id: str) -> Person:
    return await _find(tx, people.c.matrix_id == matrix_id)


async def list_all(tx: Transaction) -> list[Person]:
    rows = await tx.execute(select(*COLUMNS).order_by(people.c.name))
    return [from_row(row) for row in rows]


async def require_admin(tx: Transaction, actor: Actor) -> None:
    """Raise NotAllowed for anybody but an admin; the operator's shell and the system itself may."""
    if actor.is_operator:
        return
    person = None if actor.person_id is None else await get(tx, actor.person_id)
    if person is None or Role.ADMIN not in person.roles or person.disabled_at is not None:
        raise NotAllowed


async def disable(tx: Transaction, actor: Actor, person_id: uuid.UUID, *, now: datetime) -> None:
    """Take away a person's sign-in, commands and rooms. Their appointments stay as they are.

    Raises NotAllowed for anybody but an admin and the operator.
    """
    from supervision import exports, pairs, presences  # they build on this module

    await require_admin(tx, actor)
    await lock_people(tx, [person_id])
    changed = await tx.execute(
        update(people).where(people.c.id == person_id, people.c.disabled_at.is_(None)).values(disabled_at=now)
    )
    if changed.rowcount == 0:
        await get(tx, person_id)  # who is disabled already stays so
        return
    await pairs.put_out(tx, person_id)
    await presences.forget(tx, [person_id])
    await exports.forget_person(tx, person_id, now=now)
    await audit.record(tx, actor, "person.disable", "person", person_id, now=now)


async def set_name(tx: Transaction, actor: Actor, person_id: uuid.UUID, name: str, *, now: datetime) -> None:
    """Give a person another name. Refused if it is none."""
    await lock_people(tx, [person_id])
    await tx.execute(update(people).where(people.c.id == person_id).values(name=check_name(name)))
    await audit.record(tx, actor, "person.set_name", "person", person_id, now=now)


async def set_email(tx: Transaction, actor: Actor, person_id: uuid.UUID, email: str, *, now: datetime) -> None:
    """Correct a person's address. Refused if it makes no sense or is somebody's already.

    What was mailed to the old one opens nothing any more; who has yet to come in is mailed a new link. Whether mail to
    the old one was stopped is for the caller to take back: see mailboxes.resume.
    """
    from supervision import invitations  # it builds on this module

    await lock_people(tx, [person_id])
    await get(tx, person_id)
    try:
        await tx.execute(update(people).where(people.c.id == person_id).values(email=check_email(email)))
    except IntegrityError as error:
        raise NotUnderstood("refused.person_exists") from error
    await audit.record(tx, actor, "person.set_email", "person", person_id, now=now)
    unused = sign_ins.c.person_id == person_id, sign_ins.c.used_at.is_(None), sign_ins.c.expires_at > now
    await tx.execute(update(sign_ins).where(*unused).values(expires_at=now))
    await tx.execute(delete(address_changes).where(address_changes.c.person_id == person_id))
    await invitations.follow(tx, actor, person_id, now=now)


async def set_language(tx: Transaction, actor: Actor, person_id: uuid.UUID, language: str, *, now: datetime) -> None:
    await tx.execute(update(people).where(people.c.id == person_id).values(language=check_language(language)))
    await audit.record(tx, actor, "person.set_language", "person", person_id, now=now)


async def set_time_zone(tx: Transaction, actor: Actor, person_id: uuid.UUID, time_zone: str, *, now: datetime) -> None:
    """Change how times are shown to a person, and by whose clock her weekly hours are; what is booked stays when it is.

    Quiet hours are by that clock, too: what they put off is judged anew.

    Refused if there is no such zone.
    """
    await lock_people(tx, [person_id])
    await tx.execute(update(people).where(people.c.id == person_id).values(time_zone=check_time_zone(time_zone)))
    await notifications.release(tx, person_id, now=now)
    await audit.record(tx, actor, "person.set_time_zone", "person", person_id, now=now)


async def _find(tx: Transaction, condition: ColumnElement[bool]) -> Person:
    row = (await tx.execute(select(*COLUMNS).where(condition))).one_or_none()
    if row is None:
        raise NotFound("refused.person_not_found")
    return from_row(row)


def check_name(name: str) -> str:
    name = " ".join(name.split()) if not has_controls(name) else ""
    if not 1 <= len(name) <= 100 or "=?" in name:
        raise NotUnderstood("refused.name")
    return name


def check_email(email: str) -> str:
    """An address as RFC 5322 `addr-spec`, without anything that could end a header line."""
    if has_controls(email) or "=?" in email or len(email) > 254 or any(c.isspace() for c in email):
        raise NotUnderstood("refused.email")
    try:
        address = Address(addr_spec=email)
    except (ValueError, IndexError, MessageError) as error:
        raise NotUnderstood("refused.email") from error
    if not address.username or not address.domain:
        raise NotUnderstood("refused.email")
    return email


def check_matrix_id(matrix_id: str) -> str:
    if len(matrix_id) > 255 or not MATRIX_ID.fullmatch(matrix_id):
        raise NotUnderstood("refused.matrix_id")
    return matrix_id


def check_language(language: str) -> str:
    if language not in LANGUAGES:
        raise NotUnderstood("refused.language", languages=", ".join(LANGUAGES))
    return language


@functools.cache
def known_zones() -> frozenset[str]:
    """The names in the tz database of this machine, which opens hundreds of files to say them."""
    return frozenset(zoneinfo.available_timezones())


def check_time_zone(time_zone: str) -> str:
    if time_zone not in known_zones() or time_zone == "localtime":
        raise NotUnderstood("refused.time_zone")
    return time_zone


def check_roles(roles: Iterable[str]) -> frozenset[Role]:
    try:
        checked = frozenset(map(Role, roles))
    except ValueError as error:
        raise NotUnderstood("refused.roles") from error
    if not checked:
        raise NotUnderstood("refused.roles")
    return checked


def has_controls(value: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") for character in value)

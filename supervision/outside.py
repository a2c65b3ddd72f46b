"""A supervisor's other calendars: their addresses, and when they say that she is busy. Nothing else of them is kept.

The bridge reads them (bridge/outside.py). What was read last stands until something else was read: a calendar that
cannot be had for a while does not make her free. An address is a secret and stands encrypted.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, func, insert, select, text, update

from supervision import availability, holds, networks, people, seals
from supervision.audit import Actor, record
from supervision.db import Transaction, lock_people
from supervision.errors import AlreadyAnswered, NotAllowed, NotFound, NotUnderstood
from supervision.models import Role, busy_times
from supervision.models import outside_calendars as table
from supervision.models import people as people_table
from supervision.networks import Network
from supervision.ranges import Range, merge

MOST_CALENDARS = 5  # of a supervisor
MOST_CHARACTERS = 2000  # of an address
LONGEST_PAUSE = timedelta(hours=6)  # between two tries at a calendar that cannot be had
SCHEMES = {"https": "https", "webcal": "https", "webcals": "https", "http": "http"}

# Why a calendar could not be read, as `error` says it; each is a sentence `web.calendar_error.…`.
ERRORS = (
    "inside",  # it leads, or is led on, to an address inside our network
    "insecure",  # it leads on to where nothing is encrypted
    "unreachable",
    "tls",  # the connection cannot be trusted
    "slow",
    "redirects",  # it leads on too often
    "forbidden",
    "gone",
    "failed",  # the other side's failure
    "large",
    "no_calendar",
    "intricate",  # reading it takes too long, or too much
    "locked",  # it was locked with another secret
    "broken",  # our failure
)


@dataclass(frozen=True)
class OutsideCalendar:
    """`fetched_at` is when it was last had, None before the first time; `error` why the last try failed."""

    id: uuid.UUID
    supervisor_id: uuid.UUID
    host: str
    created_at: datetime
    fetched_at: datetime | None
    error: str | None


@dataclass(frozen=True)
class Due:
    """A calendar that was claimed for reading, and what was known of it. `email` is the supervisor's own."""

    id: uuid.UUID
    supervisor_id: uuid.UUID
    time_zone: str
    email: str
    address: bytes
    etag: str | None
    last_modified: str | None
    digest: bytes | None
    read_as: str | None
    failures: int
    claimed_until: datetime


@dataclass(frozen=True)
class Reading:
    """What came of asking for a calendar. `busy` is None where it is as it was."""

    busy: Sequence[Range] | None
    etag: str | None
    last_modified: str | None
    digest: bytes | None
    read_as: str | None


SHOWN = (table.c.id, table.c.supervisor_id, table.c.host, table.c.created_at, table.c.fetched_at, table.c.error)


def check_address(typed: str, private: Iterable[Network] = ()) -> tuple[str, str]:
    """The address as it is asked for, and its host. `webcal:` means https.

    Raises NotUnderstood for what is no such address, for one that is not encrypted, and for one that names a place
    inside the network; `private` are the networks inside that may be named, where http will do.
    """
    private = tuple(private)
    address = typed.strip()
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise NotUnderstood("refused.calendar_address") from error
    scheme = SCHEMES.get(parts.scheme.lower())
    if scheme is None or not host or len(address) > MOST_CHARACTERS or not address.isprintable() or " " in address:
        raise NotUnderstood("refused.calendar_address")
    literal = networks.read_address(host)
    named = literal is not None and networks.is_within(literal, private)
    if scheme == "http" and not (named or (literal is None and private)):
        raise NotUnderstood("refused.calendar_address")
    if literal is not None and not named and not networks.is_outside(literal):
        raise NotUnderstood("refused.calendar_inside")
    return parts._replace(scheme=scheme, fragment="").geturl(), host.lower()


async def add(
    tx: Transaction,
    actor: Actor,
    supervisor_id: uuid.UUID,
    address: str,
    *,
    secret: str,
    private: Iterable[Network] = (),
    now: datetime,
) -> OutsideCalendar:
    """Take the busy times of that calendar out of her slots from now on; it is read at once.

    Only she herself may, or the operator. Raises what `check_address` raises, NotAllowed for somebody who supervises
    nobody, AlreadyAnswered for an address that she has already, and NotUnderstood for the sixth.
    """
    availability.require_own(actor, supervisor_id)
    asked, host = check_address(address, private)
    if Role.SUPERVISOR not in (await people.get(tx, supervisor_id)).roles:
        raise NotAllowed("refused.supervisor_settles")
    await lock_people(tx, [supervisor_id])
    known = [row.address for row in await tx.execute(select(table.c.address).where(_hers(supervisor_id)))]
    if any(seals.unlock(secret, one) == asked for one in known):
        raise AlreadyAnswered("refused.calendar_exists")
    if len(known) >= MOST_CALENDARS:
        raise NotUnderstood("refused.calendars_too_many", most=MOST_CALENDARS)
    added = OutsideCalendar(uuid.uuid4(), supervisor_id, host, now, None, None)
    await tx.execute(
        insert(table).values(
            id=added.id,
            supervisor_id=supervisor_id,
            address=seals.lock(secret, asked),
            host=host,
            failures=0,
            created_at=now,
            next_fetch_at=now,
        )
    )
    await record(tx, actor, "calendar.add", "calendar", added.id, now=now)
    await tx.execute(select(func.pg_notify("visavis_outside", "")))
    return added


async def list_of(tx: Transaction, actor: Actor, supervisor_id: uuid.UUID) -> list[OutsideCalendar]:
    """Her calendars, the oldest first, without their addresses. Only for herself and the operator."""
    availability.require_own(actor, supervisor_id)
    query = select(*SHOWN).where(_hers(supervisor_id)).order_by(table.c.created_at, table.c.id)
    return [OutsideCalendar(*row) for row in await tx.execute(query)]


async def remove(
    tx: Transaction, actor: Actor, supervisor_id: uuid.UUID, calendar_id: uuid.UUID, *, now: datetime
) -> None:
    """Forget a calendar; its times are free again. Raises NotFound for one that is not hers."""
    availability.require_own(actor, supervisor_id)
    gone = await tx.execute(delete(table).where(table.c.id == calendar_id, _hers(supervisor_id)))
    if gone.rowcount == 0:
        raise NotFound("refused.calendar_not_found")
    await tx.execute(text(holds.WAKE), {"supervisor_id": supervisor_id})
    await record(tx, actor, "calendar.remove", "calendar", calendar_id, now=now)


def _hers(supervisor_id: uuid.UUID) -> Any:
    return table.c.supervisor_id == supervisor_id


CLAIM = text(
    """
    UPDATE outside_calendars AS claimed SET claimed_until = :claimed_until
    FROM people
    WHERE people.id = claimed.supervisor_id AND claimed.id IN (
        SELECT due.id FROM outside_calendars AS due JOIN people AS her ON her.id = due.supervisor_id
        WHERE due.next_fetch_at <= :now AND (due.claimed_until IS NULL OR due.claimed_until <= :now)
            AND her.disabled_at IS NULL
        ORDER BY due.next_fetch_at, due.id LIMIT :most FOR UPDATE OF due SKIP LOCKED
    )
    RETURNING claimed.id, claimed.supervisor_id, people.time_zone, people.email, claimed.address, claimed.etag,
        claimed.last_modified, claimed.digest, claimed.read_as, claimed.failures, claimed.claimed_until
    """
)


async def claim_due(tx: Transaction, *, now: datetime, most: int, lease: timedelta) -> list[Due]:
    """Lease at most so many calendars whose time to be read has come; nobody else gets them before the lease ends."""
    values = {"now": now, "most": most, "claimed_until": now + lease}
    return [Due(*row) for row in await tx.execute(CLAIM, values)]


async def next_due(tx: Transaction) -> datetime | None:
    """When the next calendar is to be read, which may be past; None if there is none."""
    query = select(func.min(func.greatest(table.c.next_fetch_at, table.c.claimed_until)))
    query = query.join(people_table, people_table.c.id == table.c.supervisor_id)
    at: datetime | None = await tx.scalar(query.where(people_table.c.disabled_at.is_(None)))
    return at


async def settle_read(tx: Transaction, due: Due, reading: Reading, *, now: datetime, pause: timedelta) -> bool:
    """Write down what was read, and ask again after the pause. False if the calendar is gone, or another's by now.

    Only the times that differ are written, and whoever waits for a time of hers is thought of anew.
    """
    known: dict[str, Any] = {"etag": reading.etag, "last_modified": reading.last_modified}
    if reading.busy is not None:
        known |= {"digest": reading.digest, "read_as": reading.read_as}
    known |= {"fetched_at": now, "error": None, "failures": 0, "next_fetch_at": now + pause, "claimed_until": None}
    if not await _settle(tx, due, known):
        return False
    if reading.busy is not None and await _replace(tx, due, set(merge(reading.busy))):
        await tx.execute(text(holds.WAKE), {"supervisor_id": due.supervisor_id})
    return True


async def _replace(tx: Transaction, due: Due, wanted: set[Range]) -> bool:
    """Make these the calendar's busy times. Returns whether they were others."""
    during = busy_times.c.during
    query = select(func.lower(during), func.upper(during)).where(busy_times.c.calendar_id == due.id)
    present = {(since, until) for since, until in await tx.execute(query)}
    gone, new = present - wanted, sorted(wanted - present)
    if gone:
        values = {"calendar_id": due.id, "starts": [one[0] for one in gone], "ends": [one[1] for one in gone]}
        await tx.execute(REMOVE_TIMES, values)
    if new:
        values = {"calendar_id": due.id, "starts": [one[0] for one in new], "ends": [one[1] for one in new]}
        await tx.execute(ADD_TIMES, values | {"supervisor_id": due.supervisor_id})
    return bool(gone or new)


TIMES = "unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])) AS one (starts, ends)"
REMOVE_TIMES = text(
    f"""
    DELETE FROM busy_times USING {TIMES}
    WHERE calendar_id = :calendar_id AND during = tstzrange(one.starts, one.ends, '[)')
    """  # noqa: S608 - a constant
)
ADD_TIMES = text(
    f"""
    INSERT INTO busy_times (calendar_id, supervisor_id, during)
    SELECT CAST(:calendar_id AS uuid), CAST(:supervisor_id AS uuid), tstzrange(one.starts, one.ends, '[)') FROM {TIMES}
    """  # noqa: S608 - a constant
)


async def settle_failed(
    tx: Transaction, due: Due, error: str, *, now: datetime, pause: timedelta, wait: timedelta | None = None
) -> bool:
    """Note why it could not be read, one of `ERRORS`. Each failure doubles the pause, up to six hours; `wait` is how
    long the other side wants to be left alone at least. What was read last stands.
    """
    failures = due.failures + 1
    longest = max(pause, LONGEST_PAUSE)
    delay = min(longest, pause * 2 ** min(due.failures, 10))
    if wait is not None:
        delay = max(delay, min(wait, longest))
    values = {"error": error, "failures": failures, "next_fetch_at": now + delay, "claimed_until": None}
    return await _settle(tx, due, values)


async def _settle(tx: Transaction, due: Due, values: dict[str, Any]) -> bool:
    own = (table.c.id == due.id) & (table.c.claimed_until == due.claimed_until)
    return (await tx.execute(update(table).where(own).values(**values))).rowcount > 0


async def busy(tx: Transaction, supervisor_id: uuid.UUID, since: datetime, until: datetime) -> list[Range]:
    """When her other calendars say that she is busy within `[since, until)`, as ascending ranges that do not touch."""
    found = await tx.execute(BUSY, {"supervisor_id": supervisor_id, "since": since, "until": until})
    return merge((starts_at, ends_at) for starts_at, ends_at in found)


BUSY = text(
    """
    SELECT lower(during), upper(during) FROM busy_times
    WHERE supervisor_id = :supervisor_id AND during && tstzrange(:since, :until, '[)')
    """
)

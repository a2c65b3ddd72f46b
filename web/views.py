"""What the pages show: appointments with the other person, free times by day, weeks; ready for a template."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from supervision import availability
from supervision.appointments import OPEN, Appointment
from supervision.availability import Slot
from supervision.db import Transaction
from supervision.errors import Refused
from supervision.models import Mode, PairStatus, Status
from supervision.pairs import Pair
from supervision.people import Person
from supervision.texts import same_clock

DAYS_SHOWN = 7
GROUP = 4


@dataclass(frozen=True)
class Row:
    """An appointment as one of its two people sees it."""

    appointment: Appointment
    me: Person
    other: Person
    now: datetime

    @property
    def supervises(self) -> bool:
        return self.appointment.supervisor_id == self.me.id

    @property
    def changeable(self) -> bool:
        return self.appointment.status in OPEN and self.appointment.starts_at > self.now

    @property
    def answerable(self) -> bool:
        return self.supervises and self.changeable and self.appointment.status is Status.REQUESTED

    @property
    def call(self) -> str | None:
        """The address of the call, where the supervisor gave one."""
        place = self.appointment.place
        parts = urlsplit(place) if self.appointment.mode is Mode.ONLINE else None
        return place if parts and parts.scheme == "https" and parts.netloc else None

    @property
    def place(self) -> str | None:
        return self.appointment.place if self.appointment.place and not self.call else None


@dataclass(frozen=True)
class Day:
    """The slots or appointments of one calendar day."""

    at: datetime
    items: Sequence[Slot] | Sequence[Row]


@dataclass(frozen=True)
class Choice:
    """Free times of a week; `earlier` and `later` are the first days of the neighbouring pages, if any.

    `other_zone` is the other person's, where their clock shows another time than the reader's in that week.
    """

    pair: Pair
    other_zone: str | None
    days: list[Day] = field(default_factory=list)
    earlier: date | None = None
    later: date | None = None
    refused: Refused | None = None


@dataclass(frozen=True)
class Member:
    """A pair as one of its people sees it."""

    pair: Pair
    other: Person
    coming: Row | None
    fingerprint: str | None

    @property
    def room(self) -> str | None:
        return room_link(self.pair)

    @property
    def active(self) -> bool:
        return self.pair.status is PairStatus.ACTIVE


def rows(me: Person, pairs: Iterable[Pair], found: Iterable[Appointment], now: datetime) -> list[Row]:
    others = {pair.id: pair.other(me.id) for pair in pairs}
    return [Row(appointment, me, others[appointment.pair_id], now) for appointment in found]


def members(me: Person, pairs: Iterable[Pair], coming: Sequence[Row], keys: Mapping[str, str]) -> list[Member]:
    """Each pair with its next appointment and its bot's fingerprint."""
    first: dict[uuid.UUID, Row] = {}
    for row in coming:
        first.setdefault(row.appointment.pair_id, row)
    return [
        Member(pair, pair.other(me.id), first.get(pair.id), fingerprint(keys.get(pair.bot or ""))) for pair in pairs
    ]


def by_day(found: Sequence[Slot], zone: ZoneInfo) -> list[Day]:
    """Slots in ascending order, by the reader's calendar days."""
    grouped = groupby(found, key=lambda slot: slot.starts_at.astimezone(zone).date())
    return [Day((slots := list(group))[0].starts_at, slots) for _, group in grouped]


def week_days(found: Sequence[Row], monday: date, zone: ZoneInfo) -> list[Day]:
    """Seven days; what has no appointment is an empty day."""
    days = [monday + timedelta(days=offset) for offset in range(7)]
    return [
        Day(
            midnight(day, zone) + timedelta(hours=12),
            [row for row in found if row.appointment.starts_at.astimezone(zone).date() == day],
        )
        for day in days
    ]


async def choices(
    tx: Transaction, pair: Pair, me: Person, first: date | None, *, now: datetime, moving: uuid.UUID | None = None
) -> Choice:
    """What this pair can book in the week from `first` (today where it is None or past)."""
    other = pair.other(me.id)
    today = now.astimezone(me.zone).date()
    try:
        pair.require_active()
        rules = await availability.load(tx, pair.supervisor.id)
    except Refused as refused:
        return Choice(pair, None, refused=refused)
    last = today + timedelta(days=rules.horizon)
    first = min(max(first or today, today), last)
    until = first + timedelta(days=DAYS_SHOWN)
    found = await availability.slots(
        tx, pair, since=midnight(first, me.zone), until=midnight(until, me.zone), now=now, moving=moving
    )
    differs = any(not same_clock(slot.starts_at, me.zone, other.zone) for slot in found)
    other_zone = other.time_zone if differs else None
    earlier = max(today, first - timedelta(days=DAYS_SHOWN)) if first > today else None
    return Choice(pair, other_zone, by_day(found, me.zone), earlier, until if until <= last else None)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)


def read_day(text: str) -> date | None:
    """A day such as `2026-11-24` from an address; None where it is none, or none of our times."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 2900 else None


def room_link(pair: Pair) -> str | None:
    """A link that opens the pair's room in the person's own client (matrix.to)."""
    if pair.room_id is None:
        return None
    server = (pair.bot or "").partition(":")[2]
    via = f"?via={quote(server, safe=':')}" if server else ""
    return f"https://matrix.to/#/{quote(pair.room_id, safe='!:')}{via}"


def fingerprint(key: str | None) -> str | None:
    """A public key in groups of four, as clients show it."""
    return " ".join(key[at : at + GROUP] for at in range(0, len(key), GROUP)) if key else None

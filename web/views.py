"""What the pages show: appointments with the other person, free times by day, weeks; ready for a template."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from supervision import availability, hours, policies, presences, unreads
from supervision.appointments import OPEN, OVER, Appointment, Proposal
from supervision.db import Transaction
from supervision.errors import Refused
from supervision.hours import Slot
from supervision.models import Approval, Fault, Mode, PairStatus, Status
from supervision.pairs import Pair
from supervision.people import Person
from supervision.presences import Presence
from supervision.texts import Reader, same_clock
from supervision.waits import Wait

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
        """A request that waits for this person."""
        return self.supervises and self.changeable and self.appointment.status is Status.REQUESTED

    @property
    def proposal(self) -> Proposal | None:
        return self.appointment.proposal if self.changeable else None

    @property
    def proposed_to_me(self) -> bool:
        return self.proposal is not None and self.proposal.by != self.me.id

    @property
    def proposed_by_me(self) -> bool:
        return self.proposal is not None and self.proposal.by == self.me.id

    @property
    def asked(self) -> bool:
        """Whether it waits for a word of this person: on a request, or on a new time."""
        return self.answerable or self.proposed_to_me

    @property
    def declinable(self) -> bool:
        """Booked on this person's behalf: they may say no."""
        booked = self.appointment.on_behalf and self.appointment.status is Status.CONFIRMED
        return booked and self.changeable and not self.supervises

    @property
    def marks(self) -> tuple[Status, ...]:
        """What this person may say about how it went."""
        begun = self.appointment.status is Status.CONFIRMED and self.appointment.starts_at <= self.now
        if not self.supervises or not (begun or self.appointment.status in OVER):
            return ()
        return tuple(status for status in OVER if status is not self.appointment.status)

    @property
    def look(self) -> str:
        """The word for its status, of which a late cancellation has its own."""
        late = self.appointment.late and self.appointment.status is Status.CANCELLED
        return "cancelled_late" if late else str(self.appointment.status)

    @property
    def call(self) -> str | None:
        """The address of the call, where the supervisor gave one."""
        place = self.appointment.place
        parts = urlsplit(place) if self.appointment.mode is Mode.ONLINE else None
        return place if parts and parts.scheme == "https" and parts.netloc else None

    @property
    def joinable(self) -> str | None:
        """The address of the call, while there is one to join."""
        stands = self.appointment.status is Status.CONFIRMED and self.appointment.ends_at > self.now
        return self.call if stands else None

    @property
    def place(self) -> str | None:
        return self.appointment.place if self.appointment.place and not self.call else None


@dataclass(frozen=True)
class Ask:
    """What waits for a person's word: one appointment, or `count` of one series."""

    row: Row
    count: int = 1


@dataclass(frozen=True)
class Day:
    """The slots or appointments of one calendar day; a day with hours but no free slot is full."""

    at: datetime
    items: Sequence[Slot] | Sequence[Row]
    date: date


@dataclass(frozen=True)
class Choice:
    """Free times of a week; `earlier` and `later` are the first days of the neighbouring pages, if any.

    `other_zone` is the other person's, where their clock shows another time than the reader's in that week.
    `lengths` and `length` are in minutes; `automatic` says that a booking needs nobody's word.
    """

    pair: Pair
    other_zone: str | None
    first: date
    days: list[Day] = field(default_factory=list)
    earlier: date | None = None
    later: date | None = None
    refused: Refused | None = None
    lengths: tuple[int, ...] = ()
    length: int = 0
    automatic: bool = False

    @property
    def free(self) -> bool:
        return any(day.items for day in self.days)

    @property
    def usual(self) -> bool:
        return not self.lengths or self.length == self.lengths[0]


@dataclass(frozen=True)
class Waiting:
    """What a supervisee waits for, and with whom."""

    wait: Wait
    other: Person

    def days(self, reader: Reader) -> list[tuple[datetime, datetime | None]]:
        """Instants that tell the first day of each range, and its last where it is another."""
        instant = timedelta(microseconds=1)
        return [
            (since, None if reader.day(since) == reader.day(until - instant) else until - instant)
            for since, until in self.wait.ranges
        ]


@dataclass(frozen=True)
class Talk:
    """How many messages a person has not read, by pair, and the presence of others, by person."""

    unread: Mapping[uuid.UUID, int]
    presence: Mapping[uuid.UUID, Presence]

    def of(self, pair: Pair, me: Person) -> Presence | None:
        """The other's, where the two are an active pair."""
        return self.presence.get(pair.other(me.id).id) if pair.status is PairStatus.ACTIVE else None


NO_TALK = Talk({}, {})


@dataclass(frozen=True)
class Member:
    """A pair as one of its people sees it."""

    pair: Pair
    other: Person
    coming: Row | None
    fingerprint: str | None
    unread: int = 0
    presence: Presence | None = None

    @property
    def room(self) -> str | None:
        return room_link(self.pair)

    @property
    def trouble(self) -> str | None:
        """The sentence for a pair without a room, or whose room is stopped.

        The reason is for those who run Visavis; that of the second was mailed, once a day at most.
        """
        if self.pair.room_id is None:
            return "web.room_soon" if self.pair.fault is None else "web.room_not_made"
        return None if self.pair.fault is None else "web.room_stopped"

    @property
    def active(self) -> bool:
        return self.pair.status is PairStatus.ACTIVE

    @property
    def closed(self) -> bool:
        """Whether it is archived, and its room is still there to be read."""
        there = self.pair.room_id is not None and self.pair.fault is not Fault.GONE
        return self.pair.status is PairStatus.ARCHIVED and there


def rows(me: Person, pairs: Iterable[Pair], found: Iterable[Appointment], now: datetime) -> list[Row]:
    others = {pair.id: pair.other(me.id) for pair in pairs}
    return [Row(appointment, me, others[appointment.pair_id], now) for appointment in found]


def members(
    me: Person, pairs: Iterable[Pair], coming: Sequence[Row], keys: Mapping[str, str], talk: Talk = NO_TALK
) -> list[Member]:
    """Each pair with its next appointment, its bot's fingerprint, and what is known of the talk in its room."""
    first: dict[uuid.UUID, Row] = {}
    for row in coming:
        first.setdefault(row.appointment.pair_id, row)
    return [
        Member(
            pair,
            pair.other(me.id),
            first.get(pair.id),
            fingerprint(keys.get(pair.bot or "")),
            talk.unread.get(pair.id, 0),
            talk.of(pair, me),
        )
        for pair in pairs
    ]


async def talk_of(tx: Transaction, me: Person, pairs: Iterable[Pair], *, now: datetime) -> Talk:
    """What this person has not read, and how it stands with the others of their active pairs; nobody else sees that."""
    others = [pair.other(me.id).id for pair in pairs if pair.status is PairStatus.ACTIVE]
    return Talk(await unreads.counts(tx, me.id), await presences.of(tx, others, now=now))


def last_seen(reader: Reader, presence: Presence | None, now: datetime) -> str:
    """`on-line`, `ativa há 20 minutos` or, where nothing is known, nothing."""
    if presence is None or (not presence.online and presence.active_at is None):
        return ""
    if presence.online or presence.active_at is None:
        return reader.say("web.online")
    ago = max(now - presence.active_at, timedelta(minutes=1))
    return reader.say("web.last_active", ago=reader.ago(ago))


def asks(found: Iterable[Row]) -> list[Ask]:
    """What waits for an answer, the next first; the requests of one series are one."""
    kept: dict[tuple[uuid.UUID, bool], Ask] = {}
    for row in found:
        if not row.asked:
            continue
        key = (row.appointment.series_id or row.appointment.id, row.proposed_to_me)
        kept[key] = Ask(kept[key].row, kept[key].count + 1) if key in kept else Ask(row)
    return list(kept.values())


def by_day(found: Iterable[Slot], zone: ZoneInfo) -> list[Day]:
    """Slots in ascending order, by the reader's calendar days."""
    grouped = groupby(found, key=lambda slot: slot.starts_at.astimezone(zone).date())
    return [Day((slots := list(group))[0].starts_at, slots, day) for day, group in grouped]


def with_full(free: list[Day], offered: list[Day]) -> list[Day]:
    """The free days, and among them those that have hours but no free time left."""
    days = {day.date for day in free}
    full = [Day(day.at, [], day.date) for day in offered if day.date not in days]
    return sorted([*free, *full], key=lambda day: day.date)


def week_days(found: Sequence[Row], monday: date, zone: ZoneInfo) -> list[Day]:
    """Seven days; what has no appointment is an empty day."""
    days = [monday + timedelta(days=offset) for offset in range(7)]
    return [
        Day(
            noon(day, zone),
            [row for row in found if row.appointment.starts_at.astimezone(zone).date() == day],
            day,
        )
        for day in days
    ]


async def choices(
    tx: Transaction,
    pair: Pair,
    me: Person,
    first: date | None,
    *,
    now: datetime,
    moving: Appointment | None = None,
    length: int | None = None,
    days: int = DAYS_SHOWN,
) -> Choice:
    """What this pair can book in the `days` from `first` (today where it is None or past).

    An appointment that is `moving` keeps its length and leaves its own time free. A `length` that is not the pair's
    is as good as none.
    """
    other = pair.other(me.id)
    today = now.astimezone(me.zone).date()
    try:
        pair.require_active()
        rules = await availability.load(tx, pair.supervisor.id)
    except Refused as refused:
        return Choice(pair, None, today, refused=refused)
    lengths = (moving.length,) if moving else hours.lengths_of(pair, rules)
    minutes = length if length in lengths else lengths[0]
    last = today + timedelta(days=rules.horizon)
    first = min(max(first or today, today), last)
    until = first + timedelta(days=days)
    since_at, until_at = midnight(first, me.zone), midnight(until, me.zone)
    found = await availability.slots(
        tx, pair, since=since_at, until=until_at, now=now, moving=moving.id if moving else None, length=minutes
    )
    if moving is not None:
        found = [slot for slot in found if slot.starts_at not in _own_starts(moving, me)]
    near, far = now + timedelta(minutes=rules.notice), now + timedelta(days=rules.horizon)
    bounds = max(since_at, near), min(until_at, far)
    offered = hours.offered(rules, pair.supervisor.zone, *bounds, minutes) if bounds[0] < bounds[1] else ()
    differs = any(not same_clock(slot.starts_at, me.zone, other.zone) for slot in found)
    return Choice(
        pair,
        other.time_zone if differs else None,
        first,
        with_full(by_day(found, me.zone), by_day(offered, me.zone)),
        max(today, first - timedelta(days=days)) if first > today else None,
        until if until <= last else None,
        lengths=lengths,
        length=minutes,
        automatic=policies.approval_of(pair, rules) is Approval.AUTOMATIC,
    )


def _own_starts(moving: Appointment, me: Person) -> set[datetime]:
    """Where it is already, or would be by this person's own proposal."""
    proposal = moving.proposal
    proposed = {proposal.starts_at} if proposal is not None and proposal.by == me.id else set()
    return {moving.starts_at} | proposed


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)


def noon(day: date, zone: ZoneInfo) -> datetime:
    """An instant that tells a day, however its clock changes."""
    return datetime.combine(day, time(12), tzinfo=zone).astimezone(UTC)


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

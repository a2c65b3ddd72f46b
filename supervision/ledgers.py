"""Ledgers: whether many times can be had together, told by one look at the tables."""

import uuid
import zoneinfo
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from sqlalchemy import text

from supervision import availability, outside
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.hours import ONE_DAY, Availability, Slot
from supervision.pairs import Pair
from supervision.ranges import Busy, Range


@dataclass
class Ledger:
    """What of both people's time is taken, and how full the supervisor's days and weeks are, in one look.

    It is kept by hand while the occurrences of a batch are put into it one by one. `standing` has, for each
    appointment, what it takes of the supervisor's and of the supervisee's time.
    """

    rules: Availability
    zone: zoneinfo.ZoneInfo
    supervisor: Busy
    supervisee: Busy
    limited: bool
    standing: list[tuple[uuid.UUID, Range, Range]] = field(default_factory=list)
    days: defaultdict[date, set[uuid.UUID]] = field(default_factory=lambda: defaultdict(set))
    weeks: defaultdict[tuple[int, int], set[uuid.UUID]] = field(default_factory=lambda: defaultdict(set))

    def copy(self) -> "Ledger":
        days = defaultdict(set, {day: set(ids) for day, ids in self.days.items()})
        weeks = defaultdict(set, {week: set(ids) for week, ids in self.weeks.items()})
        return replace(self, standing=list(self.standing), days=days, weeks=weeks)

    def count(self, owner: uuid.UUID, starts_at: datetime) -> None:
        day = starts_at.astimezone(self.zone).date()
        self.days[day].add(owner)
        self.weeks[day.isocalendar()[:2]].add(owner)

    def put(self, owner: uuid.UUID, held: Range, starts_at: datetime, ends_at: datetime) -> None:
        self.standing.append((owner, held, (starts_at, ends_at)))
        self.count(owner, starts_at)

    def put_new(self, owner: uuid.UUID, slot: Slot) -> None:
        self.put(owner, self.rules.held(slot.starts_at, slot.ends_at), slot.starts_at, slot.ends_at)

    def why_not(self, owner: uuid.UUID, slot: Slot) -> str | None:
        """The key of the sentence that says why this appointment cannot be then; its own time counts as free."""
        if self.supervisor.is_elsewhere(slot.starts_at, slot.ends_at):
            return "refused.slot_not_offered"
        held = self.rules.held(slot.starts_at, slot.ends_at)
        if self.supervisor.overlaps(*held) or self.supervisee.overlaps(slot.starts_at, slot.ends_at):
            return "refused.slot_taken"
        for other, theirs, both in self.standing:
            if other != owner and (_overlap(held, theirs) or _overlap((slot.starts_at, slot.ends_at), both)):
                return "refused.slot_taken"
        full = self.limited and self._is_full(owner, slot.starts_at.astimezone(self.zone).date())
        return "refused.slot_not_offered" if full else None  # as availability.check_limits says it

    def _is_full(self, owner: uuid.UUID, day: date) -> bool:
        if self.rules.day_limit is not None and len(self.days[day] - {owner}) >= self.rules.day_limit:
            return True
        week = self.weeks[day.isocalendar()[:2]] - {owner}
        return self.rules.week_limit is not None and len(week) >= self.rules.week_limit


def _overlap(one: Range, two: Range) -> bool:
    return one[0] < two[1] and two[0] < one[1]


HELD = text(
    """
    SELECT person_id, lower(during), upper(during) FROM holds
    WHERE person_id = ANY(CAST(:people AS uuid[])) AND during && tstzrange(:since, :until, '[)')
        AND (appointment_id IS NULL OR appointment_id <> ALL(CAST(:apart AS uuid[])))
    ORDER BY during
    """
)


async def look(
    tx: Transaction,
    actor: Actor,
    pair: Pair,
    rules: Availability,
    slots: Sequence[Slot],
    apart: Collection[uuid.UUID] = (),
) -> Ledger:
    """What is taken around these slots, but for the appointments `apart`. Needs the people's locks.

    The supervisor's other calendars and her limits do not bind herself.
    """
    supervisor, supervisee = pair.people
    bound = actor.person_id != supervisor.id
    limited = bound and (rules.day_limit or rules.week_limit) is not None
    ledger = Ledger(rules, supervisor.zone, Busy(), Busy(), limited)
    if not slots:
        return ledger
    since = min(slot.starts_at for slot in slots) - 8 * ONE_DAY  # whole weeks, whatever the zone
    until = max(slot.ends_at for slot in slots) + 8 * ONE_DAY
    people = [supervisor.id, supervisee.id]
    found: dict[uuid.UUID, list[Range]] = {person: [] for person in people}
    times = {"since": since, "until": until}
    for person, starts_at, ends_at in await tx.execute(HELD, {"people": people, "apart": list(apart), **times}):
        found[person].append((starts_at, ends_at))
    if limited:
        counted = {"supervisor_id": supervisor.id, "moving": None, **times}
        for identifier, starts_at in await tx.execute(availability.COUNTED, counted):
            if identifier not in apart:
                ledger.count(identifier, starts_at)
    elsewhere = await outside.busy(tx, supervisor.id, since, until) if bound else ()
    return replace(ledger, supervisor=Busy(found[supervisor.id], elsewhere), supervisee=Busy(found[supervisee.id]))

"""How people want to be told: when they are reminded, in which hours they want quiet, and what they want no news of."""

import uuid
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Any

from sqlalchemy import ARRAY, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from supervision import audit, hours, notifications, reminders
from supervision.audit import Actor
from supervision.db import Ready, Transaction, lock_people
from supervision.errors import NotUnderstood
from supervision.models import Channel, Status, Topic, appointments
from supervision.models import preferences as table

MOST_REMINDERS = 8  # in a channel
EARLIEST = 7 * 24 * 60  # minutes before the start that a reminder may come
# What can be turned off. News of bookings in the room is what the room is for; the room shows what is unread itself.
CHOICES = (
    (Channel.MAIL, Topic.BOOKINGS),
    (Channel.MAIL, Topic.REMINDERS),
    (Channel.MAIL, Topic.WAITS),
    (Channel.MAIL, Topic.UNREAD),
    (Channel.MATRIX, Topic.REMINDERS),
    (Channel.MATRIX, Topic.WAITS),
)
TOPICS = {
    "appointment": Topic.BOOKINGS,
    "series": Topic.BOOKINGS,
    "move": Topic.BOOKINGS,
    "attendance": Topic.BOOKINGS,
    "wait": Topic.WAITS,
}
CANCELLED = ("appointment.cancelled", "series.cancelled")
# What changes a day that somebody has planned.
CHANGES = (*CANCELLED, "appointment.declined", "series.declined", "appointment.rescheduled", "series.rescheduled")


@dataclass(frozen=True)
class Preferences:
    """Reminders are minutes before the start, most first. Quiet hours are `[from, until)` on the person's own clock."""

    mail_reminders: tuple[int, ...] = (1440,)
    room_reminders: tuple[int, ...] = (60, 15)
    quiet_from: time | None = None  # off unless the person sets them: nothing is late by default
    quiet_until: time | None = None
    unwanted: frozenset[tuple[Channel, Topic]] = field(default_factory=frozenset)

    @property
    def alarms(self) -> tuple[int, ...]:
        """All reminders, each once, most first: what a calendar entry rings for."""
        return tuple(sorted({*self.mail_reminders, *self.room_reminders}, reverse=True))

    @property
    def reminders(self) -> tuple[tuple[Channel, int], ...]:
        """Each reminder with its channel."""
        mailed = ((Channel.MAIL, minutes) for minutes in self.mail_reminders)
        return *mailed, *((Channel.MATRIX, minutes) for minutes in self.room_reminders)


USUAL = Preferences()


def topic_of(kind: str) -> Topic | None:
    """What a kind of notification is about; None for what is always told, cancellations among it."""
    if kind in CANCELLED:
        return None
    if kind == "appointment.reminder":
        return Topic.REMINDERS
    if kind == "room.unread":
        return Topic.UNREAD
    return TOPICS.get(kind.partition(".")[0])


def is_wanted(wishes: Preferences, channel: Channel, kind: str) -> bool:
    """Whether they have not turned it off, or cannot."""
    topic = topic_of(kind)
    return topic is None or (channel, topic) not in CHOICES or (channel, topic) not in wishes.unwanted


def may_be_kept_back(kind: str) -> bool:
    """Whether anybody's wishes can matter to it: not to an answer, a sign-in, or what is about safety."""
    return topic_of(kind) is not None or kind in CANCELLED


def hold_back(
    wishes: Preferences, zone: zoneinfo.ZoneInfo, kind: str, *, now: datetime, starts_at: datetime | None
) -> datetime | None:
    """Until when the quiet hours keep it back; None to tell it now. `starts_at` is the earliest start it speaks of.

    Told at once: what has no topic, but for cancellations; a change of what starts on the same local day; and what
    would come after the start.
    """
    if not may_be_kept_back(kind):
        return None
    until = quiet_until(wishes, zone, now=now)
    if until is None or starts_at is None:
        return until
    today = starts_at.astimezone(zone).date() == now.astimezone(zone).date()
    return None if now < starts_at <= until or (today and kind in CHANGES) else until


def quiet_until(wishes: Preferences, zone: zoneinfo.ZoneInfo, *, now: datetime) -> datetime | None:
    """When the quiet hours end that it is now in; None outside them.

    A clock time that does not exist is the end of the gap. Of one that exists twice they begin with the first and
    end with the second, so the night of the change is one quiet night, too.
    """
    if wishes.quiet_from is None or wishes.quiet_until is None:
        return None
    today = now.astimezone(zone).date()
    overnight = timedelta(days=int(wishes.quiet_until <= wishes.quiet_from))
    for first in (today - timedelta(days=1), today):
        since = hours.existing(first, wishes.quiet_from, zone, fold=0)
        until = hours.existing(first + overnight, wishes.quiet_until, zone, fold=1)
        if since <= now < until:
            return until
    return None


SEVERAL = Ready(
    select(
        table.c.person_id,
        table.c.mail_reminders,
        table.c.room_reminders,
        table.c.quiet_from,
        table.c.quiet_until,
        table.c.unwanted,
    ).where(table.c.person_id == func.any(bindparam("people", type_=ARRAY(Uuid))))
)


async def of(tx: Transaction, person_id: uuid.UUID) -> Preferences:
    """A person's, the usual ones if they have set none."""
    return (await of_several(tx, [person_id]))[person_id]


async def of_several(tx: Transaction, person_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Preferences]:
    """Everybody's by their ID, the usual ones for who has set none."""
    wanted = list(person_ids)
    found = {row[0]: _from_row(row) for row in await SEVERAL.fetch(tx, {"people": wanted})}
    return {person_id: found.get(person_id, USUAL) for person_id in wanted}


def _from_row(row: Any) -> Preferences:
    _, mailed, in_room, quiet_from, quiet_until, unwanted = row
    split = (word.split(":") for word in unwanted)
    return Preferences(
        tuple(mailed),
        tuple(in_room),
        quiet_from,
        quiet_until,
        frozenset((Channel(channel), Topic(topic)) for channel, topic in split),
    )


async def save(tx: Transaction, actor: Actor, person_id: uuid.UUID, wishes: Preferences, *, now: datetime) -> None:
    """Set them, and plan the reminders of what is confirmed anew; what other quiet hours put off is judged by these.

    Raises NotUnderstood for what makes no sense.
    """
    wishes = check(wishes)
    await lock_people(tx, [person_id])
    before = await of(tx, person_id)
    await _write(tx, person_id, wishes, now=now)
    if (before.quiet_from, before.quiet_until) != (wishes.quiet_from, wishes.quiet_until):
        await notifications.release(tx, person_id, now=now)
    await reminders.drop(tx, person_id, now=now)
    await notifications.enqueue(
        tx,
        await _plan(tx, person_id, wishes, now=now),
        now=now,
        audited=audit.entry(actor, "preferences.save", "person", person_id, now=now),
    )


async def mute(
    tx: Transaction, actor: Actor, person_id: uuid.UUID, channel: Channel, topic: Topic, *, now: datetime
) -> None:
    """No more of this by that channel; nothing where it is so already.

    Raises NotUnderstood for what cannot be turned off.
    """
    if (channel, topic) not in CHOICES:
        raise NotUnderstood("refused.always_told")
    await lock_people(tx, [person_id])
    wishes = await of(tx, person_id)
    if (channel, topic) in wishes.unwanted:
        return
    await _write(tx, person_id, replace(wishes, unwanted=wishes.unwanted | {(channel, topic)}), now=now)
    await audit.record(tx, actor, "preferences.mute", "person", person_id, now=now)


def check(wishes: Preferences) -> Preferences:
    """The same in order, most minutes first. Raises NotUnderstood."""
    for minutes in (wishes.mail_reminders, wishes.room_reminders):
        if len(set(minutes)) > MOST_REMINDERS or not all(1 <= one <= EARLIEST for one in minutes):
            raise NotUnderstood("refused.reminders", most=MOST_REMINDERS, days=EARLIEST // (24 * 60))
    _check_quiet(wishes.quiet_from, wishes.quiet_until)
    if not wishes.unwanted <= set(CHOICES):
        raise NotUnderstood("refused.always_told")
    return replace(
        wishes, mail_reminders=_ordered(wishes.mail_reminders), room_reminders=_ordered(wishes.room_reminders)
    )


def _check_quiet(since: time | None, until: time | None) -> None:
    if since is None and until is None:
        return
    if since is None or until is None or since == until:
        raise NotUnderstood("refused.quiet_hours")
    if any(clock.second or clock.microsecond or clock.tzinfo for clock in (since, until)):
        raise NotUnderstood("refused.whole_minutes")


def _ordered(minutes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(minutes), reverse=True))


async def _write(tx: Transaction, person_id: uuid.UUID, wishes: Preferences, *, now: datetime) -> None:
    values: Mapping[str, Any] = {
        "mail_reminders": list(wishes.mail_reminders),
        "room_reminders": list(wishes.room_reminders),
        "quiet_from": wishes.quiet_from,
        "quiet_until": wishes.quiet_until,
        "unwanted": sorted(f"{channel}:{topic}" for channel, topic in wishes.unwanted),
        "updated_at": now,
    }
    statement = insert(table).values(person_id=person_id, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=[table.c.person_id], set_=values))


async def _plan(
    tx: Transaction, person_id: uuid.UUID, wishes: Preferences, *, now: datetime
) -> list[notifications.Notice]:
    """The reminders of all that is confirmed and to come."""
    columns = (appointments.c.id, appointments.c.revision, appointments.c.pair_id, appointments.c.starts_at)
    rows = await tx.execute(
        select(*columns)
        .where(
            (appointments.c.supervisor_id == person_id) | (appointments.c.supervisee_id == person_id),
            appointments.c.status == Status.CONFIRMED,
            appointments.c.starts_at > now,
        )
        .order_by(appointments.c.starts_at)
    )
    wanted = {person_id: wishes.reminders}
    return [
        one
        for appointment_id, revision, pair_id, starts_at in rows
        for one in reminders.plan(appointment_id, revision, pair_id, wanted, starts_at, now=now)
    ]

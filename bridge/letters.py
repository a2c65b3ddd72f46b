"""What a mail tells of, as the database has it when the mail is about to be sent."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from supervision import appointments, pairs, people, series, unreads, waits
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.notifications import Notification
from supervision.people import Person
from supervision.series import Series
from supervision.waits import Offer

OF_PAIR = ("series.", "wait.", unreads.KIND)  # the beginnings of kinds that speak of a pair without an appointment


@dataclass(frozen=True)
class Booking:
    """What a mail tells of: an appointment, the other of its pair, and the series that it belongs to."""

    appointment: Appointment
    other: Person
    series: Series | None = None


@dataclass(frozen=True)
class Group:
    """What a mail tells of: some of a series. `occurrences` are all that there ever were, `told` those it is about."""

    series: Series
    told: tuple[Appointment, ...]
    occurrences: tuple[Appointment, ...]
    other: Person


@dataclass(frozen=True)
class Offering:
    """What a mail tells of: a time kept for somebody who waits for one with `other`, the supervisor."""

    offer: Offer
    other: Person


@dataclass(frozen=True)
class Writing:
    """What a mail tells of: that `other` wrote in the room; never what."""

    other: Person


@dataclass(frozen=True)
class Letter:
    """A notification and all that its mail needs from the database."""

    notification: Notification
    recipient: Person
    subject: Booking | Group | Offering | Writing | None = None


class Outdated(Exception):
    """What the notification speaks of has moved on or is not open any more; if need be, a later one tells it."""


async def load(tx: Transaction, notification: Notification) -> Letter:
    """Read what the mail needs. Raises Outdated, NotFound, NotAllowed."""
    of_pair = notification.appointment_id is not None or notification.kind.startswith(OF_PAIR)
    if notification.pair_id is None or not of_pair:
        return Letter(notification, await people.get(tx, notification.person_id))
    pair = await pairs.get(tx, notification.pair_id)
    recipient = pair.member(notification.person_id)
    other = pair.other(recipient.id)
    if notification.appointment_id is not None:
        return Letter(
            notification, recipient, await _read_booking(tx, notification, notification.appointment_id, other)
        )
    if notification.kind == unreads.KIND:
        if not await unreads.is_open(tx, notification.id):
            raise Outdated
        return Letter(notification, recipient, Writing(other))
    if notification.kind == "wait.offered":
        return Letter(notification, recipient, Offering(await _read_offer(tx, notification), other))
    return Letter(notification, recipient, await _read_group(tx, notification, other))


async def _read_booking(
    tx: Transaction, notification: Notification, appointment_id: uuid.UUID, other: Person
) -> Booking:
    reads = Actor(notification.person_id, "system")
    appointment = await appointments.get(tx, reads, appointment_id)
    if notification.revision is not None and appointment.revision != notification.revision:
        raise Outdated
    if notification.kind == "move.proposed" and _proposal_id(appointment) != notification.details["proposal"]:
        raise Outdated
    own = None if appointment.series_id is None else await series.of(tx, reads, appointment.series_id)
    return Booking(appointment, other, own)


async def _read_group(tx: Transaction, notification: Notification, other: Person) -> Group:
    """A series, with those of the notification's that are still as it says."""
    details = notification.details
    found = await series.of(tx, Actor(notification.person_id, "system"), uuid.UUID(details["series"]))
    occurrences = tuple(await series.occurrences(tx, found.id))
    if notification.kind == "series.proposed":
        told = tuple(one for one in occurrences if _proposal_id(one) in details["proposals"])
    else:
        revisions = dict(zip(details["appointments"], details["revisions"], strict=True))
        told = tuple(one for one in occurrences if revisions.get(str(one.id)) == one.revision)
    if not told:
        raise Outdated
    return Group(found, told, occurrences, other)


async def _read_offer(tx: Transaction, notification: Notification) -> Offer:
    starts_at, ends_at = read_range(notification.details["slot"])
    wait = await waits.find(tx, uuid.UUID(notification.details["wait"]))
    offer = wait.offer if wait is not None and wait.ended_at is None else None
    if offer is None or (offer.starts_at, offer.ends_at) != (starts_at, ends_at):
        raise Outdated
    return offer


def _proposal_id(appointment: Appointment) -> str | None:
    return None if appointment.proposal is None else str(appointment.proposal.id)


def read_range(values: Sequence[str]) -> tuple[datetime, datetime]:
    starts_at, ends_at = map(datetime.fromisoformat, values)
    return starts_at, ends_at

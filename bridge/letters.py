"""What a mail tells of, as the database has it when the mail is about to be sent, and whether it is to be told now."""

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, Uuid, and_, bindparam, case, cast, column, func, select

from supervision import appointments, people, preferences, series, unreads, waits
from supervision.appointments import Appointment
from supervision.db import Ready, Transaction
from supervision.errors import NotAllowed, NotFound, Permanent
from supervision.mailboxes import ADDRESS_STOPPED
from supervision.models import Attendance, Channel, PairStatus, Status
from supervision.models import appointments as appointments_table
from supervision.models import attendances as attendances_table
from supervision.models import pairs as pairs_table
from supervision.models import people as people_table
from supervision.models import series as series_table
from supervision.models import unreads as unreads_table
from supervision.models import waits as waits_table
from supervision.notifications import Notification
from supervision.people import Person
from supervision.preferences import USUAL, Preferences
from supervision.series import Series
from supervision.waits import Offer

OF_PAIR = (
    "series.",
    "wait.",
    "pair.",
    "export.",
    unreads.KIND,
)  # the beginnings of kinds that speak of a pair without an appointment
OF_ROOM = ("room.stranger", "room.fault", "room.left")  # what admins are told too: their details name the pair


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
    """What a mail tells of: that `other` wrote in the room, never what; or what became of the room with them."""

    other: Person


@dataclass(frozen=True)
class Room:
    """What a mail tells of: that something is amiss in the room of these two; whoever reads it may be neither.

    `left` is the name of the one who left it, where that is what is told.
    """

    names: tuple[str, str]
    left: str | None = None


@dataclass(frozen=True)
class Mailbox:
    """What a mail tells of: that no mail is sent any more to the address of `whose`."""

    whose: Person


@dataclass(frozen=True)
class Letter:
    """A notification and all that its mail needs from the database.

    `answers` are what the recipient's calendar answered to appointments at the time that they have now.
    """

    notification: Notification
    recipient: Person
    subject: Booking | Group | Offering | Writing | Room | Mailbox | None = None
    wishes: Preferences = USUAL
    stopped_at: datetime | None = None  # since when nothing is mailed to the recipient
    answers: Mapping[uuid.UUID, Attendance] = field(default_factory=dict)


class Outdated(Exception):
    """What the notification speaks of has moved on or is not open any more; if need be, a later one tells it."""


class Unwanted(Exception):
    """The recipient wants no mails about this."""


class HeldBack(Exception):
    """The recipient's quiet hours last until `until`."""

    def __init__(self, until: datetime) -> None:
        super().__init__()
        self.until = until


Loaded = list[tuple[Notification, Letter | Exception]]
Occurrences = Mapping[
    uuid.UUID | None, Sequence[tuple[Appointment, Mapping[str, str]]]
]  # with what was answered, by whom
Parts = Mapping[str, tuple[Any, ...]]  # of a row, by the name of what they describe; all None where there is none

RECIPIENT, OTHER, WHOSE = (people_table.alias(name) for name in ("recipient", "other", "whose"))
KEYS = ("notification", "person", "pair", "appointment", "series", "wait", "whose")
SUPERVISOR_NAME, SUPERVISEE_NAME = (
    select(people_table.c.name).where(people_table.c.id == one).scalar_subquery()
    for one in (pairs_table.c.supervisor_id, pairs_table.c.supervisee_id)
)
TOLD = (
    func.unnest(*(bindparam(key, type_=ARRAY(Uuid)) for key in KEYS))
    .table_valued(*(column(key, Uuid) for key in KEYS), name="told")
    .render_derived()
)
COLUMNS: Mapping[str, Sequence[ColumnElement[Any]]] = {
    "notification": [TOLD.c.notification],
    "recipient": [RECIPIENT.c[one.name] for one in people.COLUMNS],
    "stopped": [RECIPIENT.c.mail_stopped_at],
    "pair": [pairs_table.c.supervisor_id, pairs_table.c.supervisee_id, pairs_table.c.status],
    "names": [SUPERVISOR_NAME, SUPERVISEE_NAME],
    "other": [OTHER.c[one.name] for one in people.COLUMNS],
    "appointment": appointments.COLUMNS,
    "answer": [attendances_table.c.answer],
    "series": series.COLUMNS,
    "wait": waits.COLUMNS,
    "unread": [unreads_table.c.since_at],
    "whose": [WHOSE.c[one.name] for one in people.COLUMNS],
}
ENDS = accumulate(map(len, COLUMNS.values()), initial=0)
PLACES = {name: slice(*ends) for name, ends in zip(COLUMNS, pairwise(ENDS), strict=True)}

FIND = Ready(
    select(*(one for columns in COLUMNS.values() for one in columns))
    .select_from(TOLD)
    .join(RECIPIENT, RECIPIENT.c.id == TOLD.c.person)
    .outerjoin(pairs_table, pairs_table.c.id == TOLD.c.pair)
    .outerjoin(
        OTHER,
        OTHER.c.id
        == case(
            (pairs_table.c.supervisor_id == TOLD.c.person, pairs_table.c.supervisee_id),
            else_=pairs_table.c.supervisor_id,
        ),
    )
    .outerjoin(appointments_table, appointments_table.c.id == TOLD.c.appointment)
    .outerjoin(
        attendances_table,
        and_(attendances_table.c.appointment_id == TOLD.c.appointment, attendances_table.c.person_id == TOLD.c.person),
    )
    .outerjoin(series_table, series_table.c.id == func.coalesce(appointments_table.c.series_id, TOLD.c.series))
    .outerjoin(waits_table, waits_table.c.id == TOLD.c.wait)
    .outerjoin(
        unreads_table,
        and_(
            unreads_table.c.pair_id == TOLD.c.pair,
            unreads_table.c.person_id == TOLD.c.person,
            unreads_table.c.notification_id == TOLD.c.notification,
        ),
    )
    .outerjoin(WHOSE, WHOSE.c.id == TOLD.c.whose)
)
ANSWERS = (
    select(func.jsonb_object_agg(cast(attendances_table.c.person_id, Text), attendances_table.c.answer))
    .where(attendances_table.c.appointment_id == appointments_table.c.id)
    .scalar_subquery()
)
OCCURRENCES = Ready(
    select(*appointments.COLUMNS, ANSWERS)
    .where(appointments_table.c.series_id == func.any(bindparam("series", type_=ARRAY(Uuid))))
    .order_by(appointments_table.c.series_at)
)


async def load(tx: Transaction, notification: Notification) -> Letter:
    """Read what one mail needs. Raises Outdated, NotFound, NotAllowed."""
    [(_, found)] = await _read(tx, [notification])
    if isinstance(found, Exception):
        raise found
    return found


async def load_all(tx: Transaction, claimed: Sequence[Notification], *, now: datetime) -> Loaded:
    """What each mail needs, or why it is not to be sent now; in three statements at most, however many they are.

    The reasons are Outdated, Unwanted, HeldBack and Permanent; anything else is that one mail's alone.
    """
    found = await _read(tx, claimed)
    return [
        (notification, letter if isinstance(letter, Exception) else _judged(letter, now=now))
        for notification, letter in found
    ]


def _judged(letter: Letter, *, now: datetime) -> Letter | Exception:
    try:
        return judge(letter, now=now) or letter
    except Exception as error:
        return error


def judge(letter: Letter, *, now: datetime) -> Exception | None:
    """What the recipient's wishes and their mailbox have to say against telling it now."""
    kind = letter.notification.kind
    if letter.stopped_at is not None and kind not in ("sign_in", "address.check"):
        return Permanent(ADDRESS_STOPPED)
    if not preferences.is_wanted(letter.wishes, Channel.MAIL, kind):
        return Unwanted()
    zone = letter.recipient.zone
    until = preferences.hold_back(letter.wishes, zone, kind, now=now, starts_at=_useful_until(letter))
    return None if until is None else HeldBack(until)


def _useful_until(letter: Letter) -> datetime | None:
    """The earliest time that it speaks of: a start, also that before a move, or the end of the time to answer."""
    kind = letter.notification.kind
    match letter.subject:
        case Booking(appointment):
            return min([*_ends(kind, appointment), *_old_starts(letter)])
        case Group(_, told):
            return min([*(end for one in told for end in _ends(kind, one)), *_old_starts(letter)])
        case Offering(offer):
            return offer.until
    return None


def _ends(kind: str, appointment: Appointment) -> Iterable[datetime]:
    yield appointment.starts_at
    if appointment.status is Status.REQUESTED and appointment.answer_by and kind.endswith(".requested"):
        yield appointment.answer_by
    if appointment.proposal and kind.endswith(".proposed"):
        yield from (appointment.proposal.starts_at, appointment.proposal.answer_by)


def _old_starts(letter: Letter) -> Iterable[datetime]:
    was = letter.notification.details.get("was", ())
    return map(datetime.fromisoformat, [was] if isinstance(was, str) else was)


async def _read(tx: Transaction, claimed: Sequence[Notification]) -> Loaded:
    """Every mail's letter, or the exception that reading it gave."""
    asked = [_ask(notification) for notification in claimed]
    found = await _find(tx, asked)
    wishes = await preferences.of_several(tx, {one.person_id for one in claimed})
    occurrences = await _read_occurrences(tx, [one[KEYS.index("series")] for one in asked])
    letters: Loaded = []
    for notification in claimed:
        parts = found[notification.id]
        try:
            recipient = _addressed(notification, people.from_row(parts["recipient"]))
            subject = _subject(notification, recipient, parts, occurrences)
            answers = _answers(subject, recipient, parts, occurrences)
            letter = Letter(notification, recipient, subject, wishes[recipient.id], parts["stopped"][0], answers)
        except Exception as error:
            letters.append((notification, error))
        else:
            letters.append((notification, letter))
    return letters


def _addressed(notification: Notification, recipient: Person) -> Person:
    """A mail about a change of address goes to the one that it names. Raises Outdated once that is forgotten."""
    if not notification.kind.startswith("address."):
        return recipient
    if "address" not in notification.details:
        raise Outdated
    return replace(recipient, email=notification.details["address"])


def _ask(notification: Notification) -> tuple[uuid.UUID | None, ...]:
    """The values of `KEYS`. What should be an ID there and is none is nothing that is found."""
    details = notification.details

    def named(key: str, wanted: bool) -> uuid.UUID | None:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            return uuid.UUID(details[key]) if wanted else None
        return None

    return (
        notification.id,
        notification.person_id,
        notification.pair_id or named("pair", notification.kind in OF_ROOM),
        notification.appointment_id,
        named("series", notification.appointment_id is None and notification.kind.startswith("series.")),
        named("wait", notification.kind.startswith("wait.")),
        named("whose", notification.kind == "mailbox.stopped"),
    )


async def _find(tx: Transaction, asked: Sequence[tuple[uuid.UUID | None, ...]]) -> dict[uuid.UUID, Parts]:
    rows = await FIND.fetch(tx, {key: [one[place] for one in asked] for place, key in enumerate(KEYS)})
    return {row[0]: {name: row[place] for name, place in PLACES.items()} for row in map(tuple, rows)}


async def _read_occurrences(tx: Transaction, series_ids: Iterable[uuid.UUID | None]) -> Occurrences:
    """The occurrences of each series in the order of its rule."""
    occurrences: defaultdict[uuid.UUID | None, list[tuple[Appointment, Mapping[str, str]]]] = defaultdict(list)
    if wanted := [one for one in series_ids if one is not None]:
        for *values, answers in await OCCURRENCES.fetch(tx, {"series": wanted}):
            appointment = appointments.from_row(values)
            occurrences[appointment.series_id].append((appointment, answers or {}))
    return occurrences


def _subject(
    notification: Notification,
    recipient: Person,
    parts: Parts,
    occurrences: Occurrences,
) -> Booking | Group | Offering | Writing | Room | Mailbox | None:
    """Raises Outdated, NotFound, NotAllowed."""
    if notification.kind == "mailbox.stopped":
        return Mailbox(people.from_row(_there(parts["whose"])))
    if notification.kind in OF_ROOM:
        supervisor, supervisee = _there(parts["names"])
        by_id = dict(zip(map(str, parts["pair"]), (supervisor, supervisee), strict=False))
        return Room((supervisor, supervisee), by_id.get(notification.details.get("who", "")))
    of_pair = notification.appointment_id is not None or notification.kind.startswith(OF_PAIR)
    if notification.pair_id is None or not of_pair:
        return None
    *members, status = _there(parts["pair"])
    if recipient.id not in members:
        raise NotAllowed
    other = people.from_row(_there(parts["other"]))
    if notification.appointment_id is not None:
        return _booking(notification, recipient, parts, other)
    if notification.kind == unreads.KIND:
        if parts["unread"][0] is None or status != PairStatus.ACTIVE or recipient.disabled_at or other.disabled_at:
            raise Outdated
        return Writing(other)
    if notification.kind.startswith(("pair.", "export.")):
        return Writing(other)
    if notification.kind == "wait.offered":
        return Offering(_offer(notification, parts), other)
    found = Series(*_there(parts["series"]))
    if found.pair_id != notification.pair_id:
        raise NotFound
    return _group(notification, found, tuple(one for one, _ in occurrences.get(found.id, ())), other)


def _answers(subject: object, recipient: Person, parts: Parts, occurrences: Occurrences) -> dict[uuid.UUID, Attendance]:
    """By appointment."""
    [answer], asked = parts["answer"], str(recipient.id)
    match subject:
        case Booking(appointment) if answer is not None:
            return {appointment.id: Attendance(answer)}
        case Group(own):
            return {one.id: Attendance(said[asked]) for one, said in occurrences.get(own.id, ()) if asked in said}
    return {}


def _there(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if values[0] is None:
        raise NotFound
    return values


def _booking(notification: Notification, recipient: Person, parts: Parts, other: Person) -> Booking:
    appointment = appointments.from_row(_there(parts["appointment"]))
    if recipient.id not in appointment.people:
        raise NotFound
    if notification.revision is not None and appointment.revision != notification.revision:
        raise Outdated
    if notification.kind == "move.proposed" and _proposal_id(appointment) != notification.details["proposal"]:
        raise Outdated
    return Booking(appointment, other, None if appointment.series_id is None else Series(*_there(parts["series"])))


def _group(notification: Notification, found: Series, occurrences: tuple[Appointment, ...], other: Person) -> Group:
    """A series, with those of the notification's that are still as it says."""
    details = notification.details
    if notification.kind == "series.proposed":
        told = tuple(one for one in occurrences if _proposal_id(one) in details["proposals"])
    else:
        revisions = dict(zip(details["appointments"], details["revisions"], strict=True))
        told = tuple(one for one in occurrences if revisions.get(str(one.id)) == one.revision)
    if not told:
        raise Outdated
    return Group(found, told, occurrences, other)


def _offer(notification: Notification, parts: Parts) -> Offer:
    starts_at, ends_at = read_range(notification.details["slot"])
    wait = waits.from_row(parts["wait"]) if parts["wait"][0] is not None else None
    offer = wait.offer if wait is not None and wait.ended_at is None else None
    if offer is None or (offer.starts_at, offer.ends_at) != (starts_at, ends_at):
        raise Outdated
    return offer


def _proposal_id(appointment: Appointment) -> str | None:
    return None if appointment.proposal is None else str(appointment.proposal.id)


def read_range(values: Sequence[str]) -> tuple[datetime, datetime]:
    starts_at, ends_at = map(datetime.fromisoformat, values)
    return starts_at, ends_at

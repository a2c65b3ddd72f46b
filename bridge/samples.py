"""One letter of every kind that there are mails of, to be looked at: in the demo, and by the tests.

Ana supervises Bruno. Nothing of it is in a database.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bridge.letters import OF_ROOM, Booking, Group, Letter, Mailbox, Offering, Room, Writing
from supervision.appointments import Appointment, Proposal
from supervision.models import Channel, Mode, Role, Status
from supervision.notifications import NORMAL, Notification
from supervision.people import Person
from supervision.series import Series
from supervision.texts import reader
from supervision.waits import Offer

LENGTH = timedelta(minutes=50)
CITIES = {"pt-BR": "America/Sao_Paulo", "en": "Europe/Lisbon"}  # where the reader lives, and the other elsewhere
PLACE = "https://meet.example.org/k3f7-visavis"
ANA, BRUNO = "ana", "bruno"


@dataclass(frozen=True)
class Case:
    """Who reads it, how the appointment stands, who did it, and what else its notification knows."""

    to: str = BRUNO
    status: Status = Status.CONFIRMED
    by: str | None = ANA
    details: Mapping[str, Any] = field(default_factory=dict)


CASES: Mapping[str, Case] = {
    "appointment.requested": Case(ANA, Status.REQUESTED, BRUNO),
    "appointment.booked": Case(),
    "appointment.confirmed": Case(),
    "appointment.declined": Case(status=Status.DECLINED),
    "appointment.cancelled": Case(ANA, Status.CANCELLED, BRUNO, {"late": True}),
    "appointment.rescheduled": Case(),
    "appointment.reminder": Case(by=None, details={"minutes": 1440}),
    "move.proposed": Case(),
    "move.refused": Case(),
    "move.withdrawn": Case(),
    "move.lapsed": Case(by=None),
    "wait.offered": Case(by=None),
    "series.requested": Case(ANA, Status.REQUESTED, BRUNO),
    "series.booked": Case(),
    "series.confirmed": Case(),
    "series.declined": Case(status=Status.DECLINED),
    "series.cancelled": Case(ANA, Status.CANCELLED, BRUNO),
    "series.proposed": Case(),
    "series.refused": Case(ANA, by=BRUNO),
    "series.withdrawn": Case(),
    "series.lapsed": Case(by=None),
    "series.rescheduled": Case(),
    "identity.changed": Case(),
    "identity.confirmed": Case(),
    "mailbox.stopped": Case(ANA, by=None, details={"code": "5.1.1"}),
    "export.asked": Case(ANA, by=BRUNO),
    "export.ready": Case(by=None),
    "export.failed": Case(by=None),
    "pair.archived": Case(),
    "pair.reopened": Case(),
    "pair.renewed": Case(by=None),
    "pair.expiring": Case(by=None, details={"last": "2027-06-30"}),
    "room.stranger": Case(ANA, by=None),
    "room.left": Case(ANA, by=None),
    "room.fault": Case(ANA, by=None, details={"fault": "gone"}),
    "room.unread": Case(),
    "sign_in": Case(by=None),
    "welcome": Case(by=None, details={"nonce": str(uuid.UUID(int=9))}),
    "address.check": Case(by=None, details={"nonce": str(uuid.UUID(int=9))}),
    "address.changed": Case(by=None),
    "account.password_changed": Case(by=None, details={"signed_out": True}),
    "account.signed_out": Case(by=None),
}


def letter(kind: str, language: str, *, now: datetime) -> Letter:
    """The letter of that kind as somebody gets it who reads that language. Raises KeyError for a kind unknown."""
    case = CASES[kind]
    people = _people(case.to, language)
    recipient, other = people[case.to], people[BRUNO if case.to == ANA else ANA]
    starts_at = _tomorrow_at_ten(now, language)
    details: dict[str, Any] = {"by": case.by and str(people[case.by].id), **case.details}
    subject: Booking | Group | Offering | Mailbox | Room | Writing | None = None
    topic = kind.partition(".")[0]
    if topic in ("appointment", "move"):
        subject = Booking(_appointment(kind, case, starts_at), other)
        details |= _times_of(kind, starts_at)
    elif topic == "series":
        subject = _group(kind, case, starts_at, other, language)
        details |= _times_of_all(kind, subject)
    elif kind == "wait.offered":
        subject = Offering(Offer(starts_at, starts_at + LENGTH, starts_at - timedelta(hours=12)), other)
    elif kind == "mailbox.stopped":
        subject = Mailbox(other)
    elif kind in OF_ROOM:
        subject = Room((people[ANA].name, people[BRUNO].name), people[BRUNO].name if kind == "room.left" else None)
    elif kind == "room.unread" or topic in ("pair", "export"):
        subject = Writing(other)
    elif kind == "sign_in":
        details["sign_in_id"] = str(_id(9))
    return Letter(_notification(kind, recipient, details, subject, now), recipient, subject)


def _people(reads: str, language: str) -> dict[str, Person]:
    """Both of the pair; the one who reads it lives where the language is spoken."""
    elsewhere = CITIES["en" if language == "pt-BR" else "pt-BR"]
    roles = {ANA: (1, "Ana Ribeiro", Role.SUPERVISOR), BRUNO: (2, "Bruno Tavares", Role.SUPERVISEE)}
    return {
        who: Person(
            _id(number),
            name,
            f"{who}@example.org",
            None,
            language,
            CITIES[language] if who == reads else elsewhere,
            frozenset({role}),
        )
        for who, (number, name, role) in roles.items()
    }


def _notification(
    kind: str, recipient: Person, details: dict[str, Any], subject: object, now: datetime
) -> Notification:
    appointment = subject.appointment if isinstance(subject, Booking) else None
    return Notification(
        _id(3),
        recipient.id,
        _id(4),
        appointment.id if appointment else None,
        appointment.revision if appointment else None,
        Channel.MAIL,
        kind,
        details,
        NORMAL,
        now,
        1,
        None,
    )


def _appointment(
    kind: str, case: Case, starts_at: datetime, number: int = 0, series: Series | None = None
) -> Appointment:
    later = starts_at + timedelta(days=1, hours=4)
    proposal = Proposal(_id(60 + number), _id(1), later, later + LENGTH, 0, 0, starts_at - timedelta(hours=12))
    return Appointment(
        _id(30 + number),
        _id(4),
        _id(1),
        _id(2),
        starts_at,
        starts_at + LENGTH,
        case.status,
        2,
        Mode.ONLINE,
        PLACE,
        answer_by=starts_at - timedelta(hours=12) if case.status is Status.REQUESTED else None,
        proposal=proposal if kind.endswith(".proposed") else None,
        series_id=series.id if series else None,
        series_at=starts_at if series else None,
    )


def _times_of(kind: str, starts_at: datetime) -> dict[str, Any]:
    later = starts_at + timedelta(days=1, hours=4)
    if kind == "appointment.rescheduled":
        return {"was": (starts_at - timedelta(days=1)).isoformat()}
    if kind == "move.proposed":
        return {"proposal": str(_id(60))}
    return {"proposed": [later.isoformat(), (later + LENGTH).isoformat()]} if kind.startswith("move.") else {}


def _group(kind: str, case: Case, starts_at: datetime, other: Person, language: str) -> Group:
    day = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")[
        starts_at.astimezone(reader(language, CITIES[language]).zone).weekday()
    ]
    found = Series(
        _id(5), _id(4), f"FREQ=WEEKLY;BYDAY={day};COUNT=4", starts_at, starts_at + LENGTH, CITIES[language], 1
    )
    told = tuple(_appointment(kind, case, starts_at + timedelta(weeks=number), number, found) for number in range(4))
    return Group(found, told, told, other)


def _times_of_all(kind: str, group: Group) -> dict[str, Any]:
    starts = [one.starts_at for one in group.told]
    later = [(at + timedelta(days=1), at + timedelta(days=1) + LENGTH) for at in starts]
    details: dict[str, Any] = {
        "series": str(group.series.id),
        "appointments": [str(one.id) for one in group.told],
        "revisions": [one.revision for one in group.told],
        "skipped": [],
    }
    if kind == "series.rescheduled":
        details["was"] = [(at - timedelta(days=1)).isoformat() for at in starts]
    elif kind == "series.proposed":
        details["proposals"] = [str(one.proposal.id) for one in group.told if one.proposal]
    elif kind in ("series.refused", "series.withdrawn", "series.lapsed"):
        details["proposed"] = [[since.isoformat(), until.isoformat()] for since, until in later]
    return details


def _tomorrow_at_ten(now: datetime, language: str) -> datetime:
    local = now.astimezone(reader(language, CITIES[language]).zone) + timedelta(days=1)
    return local.replace(hour=10, minute=0, second=0, microsecond=0).astimezone(now.tzinfo)


def _id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)

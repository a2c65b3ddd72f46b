"""Appointments as calendar entries: iCalendar (RFC 5545), its scheduling methods (RFC 5546), and links that add one.

Pure: everything is in the arguments. An entry has one UID for life, its SEQUENCE is the appointment's revision, and
it is called off with `METHOD:CANCEL`. Its times are UTC: an appointment is an instant for two people in two zones,
every calendar shows it in its owner's zone, and no copy of a zone's rules can be out of date in a mail.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote, urlencode

from icalendar import Alarm, Calendar, Event, vCalAddress

from supervision import reminders
from supervision.appointments import Appointment
from supervision.models import Mode, Status
from supervision.people import Person
from supervision.texts import Reader

PRODID = "-//Visavis//Visavis//EN"
GONE = (Status.DECLINED, Status.CANCELLED)


class Method(StrEnum):
    """What a calendar is to do with the entry (RFC 5546, 3.2)."""

    REQUEST = "REQUEST"
    CANCEL = "CANCEL"


class Answer(StrEnum):
    """What is known of the recipient's mind: PARTSTAT (RFC 5545, 3.2.12)."""

    OPEN = "NEEDS-ACTION"
    ACCEPTED = "ACCEPTED"


@dataclass(frozen=True)
class Organizer:
    """Whom calendars name as ORGANIZER: our own address, so that answers do not go to the other person.

    `url` is the page that shows the recipient's appointments.
    """

    name: str
    email: str
    url: str

    @property
    def domain(self) -> str:
        return self.email.rpartition("@")[2]


@dataclass(frozen=True)
class Link:
    """A page that puts an appointment into a calendar on the web."""

    name: str
    url: str


def method(appointment: Appointment) -> Method:
    return Method.CANCEL if appointment.status in GONE else Method.REQUEST


def uid(appointment_id: uuid.UUID, domain: str) -> str:
    """The same for life and for everybody (RFC 5545, 3.8.4.7)."""
    return f"{appointment_id}@{domain}"


def write(
    appointment: Appointment,
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    answer: Answer = Answer.OPEN,
) -> bytes:
    """One person's iCalendar object for an appointment, in UTF-8 with CRLF line ends, lines folded at 75 octets.

    `other` is the other of the pair. `stamp` is the DTSTAMP: of two objects with the same SEQUENCE the later one
    counts, so give the moment of the change and not of the writing.
    """
    calendar = Calendar()
    calendar.add("prodid", PRODID)
    calendar.add("version", "2.0")
    calendar.add("method", method(appointment).value)
    calendar.add_component(event(appointment, recipient, other, organizer, stamp=stamp, answer=answer))
    written: bytes = calendar.to_ical()
    return written


def event(
    appointment: Appointment,
    recipient: Person,
    other: Person,
    organizer: Organizer,
    *,
    stamp: datetime,
    answer: Answer = Answer.OPEN,
) -> Event:
    """The VEVENT of `write`. The recipient alone stands in it as ATTENDEE."""
    reader = Reader(recipient.language, recipient.time_zone)
    title = summary(appointment, reader, other)
    entry = Event()
    entry.add("uid", uid(appointment.id, organizer.domain))
    entry.add("sequence", appointment.revision)
    entry.add("dtstamp", stamp.astimezone(UTC))
    entry.add("dtstart", appointment.starts_at.astimezone(UTC))
    entry.add("dtend", appointment.ends_at.astimezone(UTC))
    entry.add("summary", title)
    entry.add("description", reader.say("calendar.description", url=organizer.url))
    entry.add("location", place(appointment, reader))
    entry.add("url", organizer.url)
    entry.add("status", _status(appointment))
    entry.add("class", "PRIVATE")
    entry.add("transp", "TRANSPARENT" if appointment.status in GONE else "OPAQUE")
    entry.add("organizer", _address(organizer.name, organizer.email))
    entry.add("attendee", _attendee(recipient, answer))
    if appointment.status is Status.CONFIRMED:
        entry.add_component(_alarm(title))
    return entry


def summary(appointment: Appointment, reader: Reader, other: Person) -> str:
    """What the calendar shows of it: the other of the pair, and whether it still has to be confirmed."""
    key = "calendar.summary_requested" if appointment.status is Status.REQUESTED else "calendar.summary"
    return reader.say(key, other=other.name)


def place(appointment: Appointment, reader: Reader) -> str:
    """Where it happens: what the supervisor wrote, else how."""
    if appointment.place:
        return appointment.place
    return reader.say("calendar.online" if appointment.mode is Mode.ONLINE else "calendar.in_person")


def calendar_links(
    appointment: Appointment, recipient: Person, other: Person, organizer: Organizer
) -> tuple[Link, ...]:
    """Links that add the appointment to Google, Outlook.com, Office 365 and Yahoo.

    They make a copy that no later change reaches: there are none before it is confirmed or after it is called off.
    """
    if appointment.status is not Status.CONFIRMED:
        return ()
    reader = Reader(recipient.language, recipient.time_zone)
    title, where = summary(appointment, reader, other), place(appointment, reader)
    details = reader.say("calendar.description", url=organizer.url)
    starts, ends = _basic(appointment.starts_at), _basic(appointment.ends_at)
    google = {"action": "TEMPLATE", "text": title, "dates": f"{starts}/{ends}", "details": details, "location": where}
    outlook = {
        "path": "/calendar/action/compose",
        "rru": "addevent",
        "subject": title,
        "startdt": _extended(appointment.starts_at),
        "enddt": _extended(appointment.ends_at),
        "body": details,
        "location": where,
    }
    yahoo = {"v": "60", "title": title, "st": starts, "et": ends, "desc": details, "in_loc": where}
    return (
        Link("Google", _link("https://calendar.google.com/calendar/render", google)),
        Link("Outlook.com", _link("https://outlook.live.com/calendar/0/deeplink/compose", outlook)),
        Link("Office 365", _link("https://outlook.office.com/calendar/0/deeplink/compose", outlook)),
        Link("Yahoo", _link("https://calendar.yahoo.com/", yahoo)),
    )


def _status(appointment: Appointment) -> str:
    if appointment.status in GONE:
        return "CANCELLED"
    return "TENTATIVE" if appointment.status is Status.REQUESTED else "CONFIRMED"


def _address(name: str, email: str) -> vCalAddress:
    address = vCalAddress(f"mailto:{email}")
    address.params["CN"] = name
    return address


def _attendee(recipient: Person, answer: Answer) -> vCalAddress:
    attendee = _address(recipient.name, recipient.email)
    attendee.params["CUTYPE"] = "INDIVIDUAL"
    attendee.params["ROLE"] = "REQ-PARTICIPANT"
    attendee.params["PARTSTAT"] = answer.value
    attendee.params["RSVP"] = "FALSE"
    return attendee


def _alarm(title: str) -> Alarm:
    """As long before as the mailed reminder."""
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", title)
    alarm.add("trigger", -reminders.BEFORE)
    return alarm


def _basic(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _extended(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _link(page: str, fields: dict[str, str]) -> str:
    """Spaces as %20: Outlook shows a plus sign as it is."""
    return f"{page}?{urlencode(fields, quote_via=quote, safe='')}"

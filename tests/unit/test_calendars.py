"""Calendar entries, read back as a calendar would."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from icalendar import Calendar, Event

from supervision.appointments import Appointment
from supervision.calendars import Answer, Link, Method, Organizer, calendar_links, event, method, uid, write
from supervision.models import Mode, Role, Status
from supervision.people import Person

SAO_PAULO, LISBON = "America/Sao_Paulo", "Europe/Lisbon"
ANA = Person(uuid.UUID(int=1), "Ana", "ana@example.org", None, "pt-BR", SAO_PAULO, frozenset({Role.SUPERVISOR}))
BRUNO = Person(uuid.UUID(int=2), "Bruno", "bruno@example.org", None, "en", LISBON, frozenset({Role.SUPERVISEE}))
OURS = Organizer("Visavis", "visavis@clinic.example.org", "https://visavis.example.org/supervisor")
STAMP = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
APPOINTMENT = Appointment(
    uuid.UUID("5d4b1d8e-6c0f-4a0e-9f5c-0d3c1a2b3c4d"),
    uuid.UUID(int=3),
    ANA.id,
    BRUNO.id,
    datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
    datetime(2026, 11, 24, 13, 50, tzinfo=UTC),
    Status.CONFIRMED,
    3,
    Mode.ONLINE,
    "",
)


def read(written: bytes) -> tuple[Calendar, Event]:
    calendar = Calendar.from_ical(written)
    (entry,) = calendar.events
    return calendar, entry


def test_the_whole_entry_as_written() -> None:
    written = write(APPOINTMENT, ANA, BRUNO, OURS, stamp=STAMP, answer=Answer.ACCEPTED)
    assert written.decode().replace("\r\n ", "").split("\r\n") == [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Visavis//Visavis//EN",
        "METHOD:REQUEST",
        "BEGIN:VEVENT",
        "SUMMARY:Supervisão com Bruno",
        "DTSTART:20261124T130000Z",
        "DTEND:20261124T135000Z",
        "DTSTAMP:20261123T120005Z",
        "UID:5d4b1d8e-6c0f-4a0e-9f5c-0d3c1a2b3c4d@clinic.example.org",
        "SEQUENCE:3",
        "ATTENDEE;CN=Ana;CUTYPE=INDIVIDUAL;PARTSTAT=ACCEPTED;ROLE=REQ-PARTICIPANT;RSVP=FALSE:mailto:ana@example.org",
        "CLASS:PRIVATE",
        "DESCRIPTION:Ver\\, remarcar ou cancelar: https://visavis.example.org/supervisor",
        "LOCATION:Online",
        "ORGANIZER;CN=Visavis:mailto:visavis@clinic.example.org",
        "STATUS:CONFIRMED",
        "TRANSP:OPAQUE",
        "URL:https://visavis.example.org/supervisor",
        "BEGIN:VALARM",
        "ACTION:DISPLAY",
        "DESCRIPTION:Supervisão com Bruno",
        "TRIGGER:-P1D",
        "END:VALARM",
        "END:VEVENT",
        "END:VCALENDAR",
        "",
    ]


def test_lines_are_folded_at_75_octets() -> None:
    """RFC 5545, 3.1; and no fold cuts a character in two."""
    named = replace(BRUNO, name="João Álvaro da Conceição Magalhães de Sá e Brandão Júnior, dito Ção")
    lines = write(APPOINTMENT, ANA, named, OURS, stamp=STAMP).split(b"\r\n")
    assert max(map(len, lines)) <= 75
    assert [line.decode() for line in lines][-1] == ""


@pytest.mark.parametrize(
    ("status", "expected", "shown", "alarms"),
    [
        (Status.REQUESTED, Method.REQUEST, "TENTATIVE", 0),
        (Status.CONFIRMED, Method.REQUEST, "CONFIRMED", 1),
        (Status.COMPLETED, Method.REQUEST, "CONFIRMED", 0),
        (Status.NO_SHOW, Method.REQUEST, "CONFIRMED", 0),
        (Status.DECLINED, Method.CANCEL, "CANCELLED", 0),
        (Status.CANCELLED, Method.CANCEL, "CANCELLED", 0),
    ],
)
def test_a_status_has_its_method(status: Status, expected: Method, shown: str, alarms: int) -> None:
    appointment = replace(APPOINTMENT, status=status)
    calendar, entry = read(write(appointment, BRUNO, ANA, OURS, stamp=STAMP))
    assert method(appointment) is expected
    assert (str(calendar["METHOD"]), str(entry["STATUS"]), len(entry.alarms.times)) == (expected.value, shown, alarms)
    assert entry["UID"] == uid(APPOINTMENT.id, "clinic.example.org")
    assert entry["SEQUENCE"] == 3
    assert entry["ATTENDEE"].params["PARTSTAT"] == "NEEDS-ACTION"


@pytest.mark.parametrize(
    ("utc", "sao_paulo", "lisbon"),
    [
        # Lisbon puts its clock back on Sunday 25 October 2026 at 01:00 UTC; São Paulo has not changed since 2019.
        ("2026-10-24T13:00", "2026-10-24T10:00", "2026-10-24T14:00"),
        ("2026-10-25T00:30", "2026-10-24T21:30", "2026-10-25T01:30"),
        ("2026-10-25T01:30", "2026-10-24T22:30", "2026-10-25T01:30"),
        ("2026-10-26T13:00", "2026-10-26T10:00", "2026-10-26T13:00"),
        # ... and forward on Sunday 28 March 2027.
        ("2027-03-27T13:00", "2027-03-27T10:00", "2027-03-27T13:00"),
        ("2027-03-28T01:30", "2027-03-27T22:30", "2027-03-28T02:30"),
        ("2027-03-29T13:00", "2027-03-29T10:00", "2027-03-29T14:00"),
        # São Paulo's last change: forward on 4 November 2018 at 03:00 UTC, back on 17 February 2019 at 02:00 UTC.
        ("2018-11-03T13:00", "2018-11-03T10:00", "2018-11-03T13:00"),
        ("2018-11-04T13:00", "2018-11-04T11:00", "2018-11-04T13:00"),
        ("2019-02-17T01:30", "2019-02-16T23:30", "2019-02-17T01:30"),
        ("2019-02-17T02:30", "2019-02-16T23:30", "2019-02-17T02:30"),
    ],
)
def test_times_are_right_on_both_clocks(utc: str, sao_paulo: str, lisbon: str) -> None:
    starts_at = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    appointment = replace(APPOINTMENT, starts_at=starts_at, ends_at=starts_at + timedelta(minutes=50))
    for person, other, expected in ((ANA, BRUNO, sao_paulo), (BRUNO, ANA, lisbon)):
        _, entry = read(write(appointment, person, other, OURS, stamp=STAMP))
        assert isinstance(entry.start, datetime)
        assert entry.start == starts_at
        assert entry.end - entry.start == timedelta(minutes=50)
        assert f"{entry.start.astimezone(ZoneInfo(person.time_zone)):%Y-%m-%dT%H:%M}" == expected


def test_the_alarm_rings_when_the_reminder_is_mailed() -> None:
    _, entry = read(write(APPOINTMENT, ANA, BRUNO, OURS, stamp=STAMP))
    assert [alarm.trigger for alarm in entry.alarms.times] == [APPOINTMENT.starts_at - timedelta(hours=24)]


@pytest.mark.parametrize(
    ("status", "mode", "place", "reader", "summary", "location"),
    [
        (Status.CONFIRMED, Mode.ONLINE, "", ANA, "Supervisão com Bruno", "Online"),
        (Status.CONFIRMED, Mode.IN_PERSON, "", ANA, "Supervisão com Bruno", "Presencial"),
        (Status.CONFIRMED, Mode.IN_PERSON, "Rua Augusta, 100; sala 5", BRUNO, "Supervision with Ana", None),
        (Status.REQUESTED, Mode.IN_PERSON, "", BRUNO, "Supervision with Ana (to be confirmed)", "In person"),
        (Status.REQUESTED, Mode.ONLINE, "", ANA, "Supervisão com Bruno (a confirmar)", "Online"),
    ],
)
def test_it_is_named_in_the_reader_s_language(
    status: Status, mode: Mode, place: str, reader: Person, summary: str, location: str | None
) -> None:
    appointment = replace(APPOINTMENT, status=status, mode=mode, place=place)
    other = BRUNO if reader is ANA else ANA
    _, entry = read(write(appointment, reader, other, OURS, stamp=STAMP))
    assert (entry["SUMMARY"], entry["LOCATION"]) == (summary, location or place)


@pytest.mark.parametrize("name", ['A"na', "Ana; Sá, e: Co", "Ana\r\nATTENDEE:mailto:eve@example.org", "Ana\nX-A:b"])
def test_a_name_cannot_become_a_line(name: str) -> None:
    written = write(APPOINTMENT, replace(ANA, name=name), replace(BRUNO, name=name), OURS, stamp=STAMP)
    _, entry = read(written)
    assert [
        line.partition(":")[0].partition(";")[0] for line in written.decode().replace("\r\n ", "").split("\r\n")
    ] == [
        line.partition(":")[0].partition(";")[0]
        for line in write(APPOINTMENT, ANA, BRUNO, OURS, stamp=STAMP).decode().replace("\r\n ", "").split("\r\n")
    ]
    assert entry["SUMMARY"] == "Supervisão com " + name.replace("\r\n", "\n")
    assert entry["ATTENDEE"] == "mailto:ana@example.org"


def test_an_event_can_stand_in_a_feed() -> None:
    calendar = Calendar.new(method="PUBLISH")
    calendar.add_component(event(APPOINTMENT, ANA, BRUNO, OURS, stamp=STAMP))
    assert [entry["UID"] for entry in Calendar.from_ical(calendar.to_ical()).events] == [
        uid(APPOINTMENT.id, "clinic.example.org")
    ]


def fields(link: Link) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(link.url).query, strict_parsing=True).items()}


def test_links_say_what_the_entry_says() -> None:
    links = calendar_links(replace(APPOINTMENT, place="Rua A & B, 5"), ANA, BRUNO, OURS)
    details = "Ver, remarcar ou cancelar: https://visavis.example.org/supervisor"
    outlook = {
        "path": "/calendar/action/compose",
        "rru": "addevent",
        "subject": "Supervisão com Bruno",
        "startdt": "2026-11-24T13:00:00Z",
        "enddt": "2026-11-24T13:50:00Z",
        "body": details,
        "location": "Rua A & B, 5",
    }
    assert [(link.name, urlsplit(link.url).netloc, fields(link)) for link in links] == [
        (
            "Google",
            "calendar.google.com",
            {
                "action": "TEMPLATE",
                "text": "Supervisão com Bruno",
                "dates": "20261124T130000Z/20261124T135000Z",
                "details": details,
                "location": "Rua A & B, 5",
            },
        ),
        ("Outlook.com", "outlook.live.com", outlook),
        ("Office 365", "outlook.office.com", outlook),
        (
            "Yahoo",
            "calendar.yahoo.com",
            {
                "v": "60",
                "title": "Supervisão com Bruno",
                "st": "20261124T130000Z",
                "et": "20261124T135000Z",
                "desc": details,
                "in_loc": "Rua A & B, 5",
            },
        ),
    ]
    assert not any("+" in link.url for link in links)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.CONFIRMED])
def test_only_what_is_confirmed_has_links(status: Status) -> None:
    assert calendar_links(replace(APPOINTMENT, status=status), ANA, BRUNO, OURS) == ()

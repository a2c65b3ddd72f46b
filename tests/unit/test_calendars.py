"""Calendar entries, read back as a calendar would."""

import io
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from dateutil.tz import tzical
from icalendar import Calendar, Event

from supervision.appointments import Appointment
from supervision.calendars import (
    Answer,
    Link,
    Method,
    Organizer,
    calendar_links,
    event,
    method,
    uid,
    write,
    write_gone,
    write_series,
)
from supervision.models import Mode, Role, Status
from supervision.people import Person
from supervision.repetitions import expand
from supervision.series import Series

SAO_PAULO, LISBON = "America/Sao_Paulo", "Europe/Lisbon"
ANA = Person(uuid.UUID(int=1), "Ana", "ana@example.org", None, "pt-BR", SAO_PAULO, frozenset({Role.SUPERVISOR}))
BRUNO = Person(uuid.UUID(int=2), "Bruno", "bruno@example.org", None, "en", LISBON, frozenset({Role.SUPERVISEE}))
OURS = Organizer(
    "Visavis", "visavis@clinic.example.org", "https://visavis.example.org/supervisor", "clinic.example.org"
)
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
    written = write(APPOINTMENT, ANA, BRUNO, OURS, stamp=STAMP, answer=Answer.ACCEPTED, alarms=(1440, 15))
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
        "TRIGGER:-PT1440M",
        "END:VALARM",
        "BEGIN:VALARM",
        "ACTION:DISPLAY",
        "DESCRIPTION:Supervisão com Bruno",
        "TRIGGER:-PT15M",
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
    calendar, entry = read(write(appointment, BRUNO, ANA, OURS, stamp=STAMP, alarms=(60,)))
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


def test_the_alarms_ring_when_the_recipient_wants_it() -> None:
    _, entry = read(write(APPOINTMENT, ANA, BRUNO, OURS, stamp=STAMP, alarms=(1440, 60, 0)))
    assert [alarm.trigger for alarm in entry.alarms.times] == [
        APPOINTMENT.starts_at - timedelta(minutes=minutes) for minutes in (1440, 60, 0)
    ]


def test_an_answer_is_asked_for_where_answers_are_read() -> None:
    """At the recipient's own address; the UID does not follow from it."""
    hears = replace(OURS, email="reply+secret@mail.example.org", answers=True)
    _, entry = read(write(APPOINTMENT, ANA, BRUNO, hears, stamp=STAMP))
    assert entry["UID"] == uid(APPOINTMENT.id, "clinic.example.org")
    assert (entry["ORGANIZER"], entry["ATTENDEE"].params["RSVP"]) == ("mailto:reply+secret@mail.example.org", "TRUE")


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
    assert [urlsplit(link.url).path for link in links] == [
        "/calendar/render",
        "/calendar/0/deeplink/compose",
        "/calendar/deeplink/compose",
        "/",
    ]
    assert not any("+" in link.url for link in links)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.CONFIRMED])
def test_only_what_is_confirmed_has_links(status: Status) -> None:
    assert calendar_links(replace(APPOINTMENT, status=status), ANA, BRUNO, OURS) == ()


# Series.

SERIES_UID = f"{uuid.UUID(int=20)}@clinic.example.org"
Shown = dict[datetime, tuple[datetime, datetime]]


def make_series(zone: str, first: str, rule: str, *, minutes: int = 50, revision: int = 1) -> Series:
    starts_at = datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    ends_at = starts_at + timedelta(minutes=minutes)
    return Series(uuid.UUID(int=20), uuid.UUID(int=3), rule, starts_at, ends_at, zone, revision)


def occurrences_of(series: Series, status: Status = Status.CONFIRMED) -> list[Appointment]:
    """An appointment for each start of the rule that the clock shows, as booking them all would make."""
    found = []
    for number, clock in enumerate(expand(series.rule, series.first_local)):
        starts_at = clock.replace(tzinfo=series.zone).astimezone(UTC)
        if starts_at.astimezone(series.zone).replace(tzinfo=None) != clock:
            continue
        ends_at = starts_at + (series.ends_at - series.starts_at)
        own: dict[str, Any] = {
            "id": uuid.UUID(int=100 + number),
            "series_id": series.id,
            "series_at": starts_at,
            "revision": 0,
        }
        found.append(replace(APPOINTMENT, **own, starts_at=starts_at, ends_at=ends_at, status=status))
    return found


def written(series: Series, occurrences: list[Appointment], answer: Answer = Answer.ACCEPTED) -> bytes:
    return write_series(
        series, occurrences, ANA, BRUNO, OURS, stamp=STAMP, told=occurrences, answer=lambda _: answer, alarms=(60,)
    )


def unfolded(written: bytes) -> list[str]:
    return written.decode().replace("\r\n ", "").split("\r\n")


def zone_of(written: bytes) -> tzinfo:
    """The zone as dateutil reads it from the object's own VTIMEZONE, without any other knowledge of zones."""
    text = written.decode().replace("\r\n ", "")
    zones = tzical(io.StringIO("\n".join(re.findall(r"BEGIN:VTIMEZONE.*?END:VTIMEZONE", text, re.S))))
    found = zones.get()
    assert found is not None
    return found


def reread(written: bytes) -> Shown:
    """A second reading of a series, by dateutil alone: the start of each instance by the rule, and when it is."""
    zone = zone_of(written)
    entries: list[dict[str, str]] = []
    for line in unfolded(written):
        name, _, value = line.partition(":")
        if line == "BEGIN:VEVENT":
            entries.append({})
        elif entries and name.partition(";")[0] not in entries[-1]:
            entries[-1][name.partition(";")[0]] = value

    def moment(value: str) -> datetime:
        if value.endswith("Z"):
            return datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return datetime.strptime(value, "%Y%m%dT%H%M%S").replace(tzinfo=zone)

    def end(entry: dict[str, str]) -> datetime:
        if "DTEND" in entry:
            return moment(entry["DTEND"]).astimezone(UTC)
        minutes = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?", entry["DURATION"])
        assert minutes is not None
        return moment(entry["DTSTART"]).astimezone(UTC) + timedelta(
            hours=int(minutes[1] or 0), minutes=int(minutes[2] or 0)
        )

    master, *changed = entries
    length = end(master) - moment(master["DTSTART"]).astimezone(UTC)
    instances = rrule.rruleset()
    rule = rrule.rrulestr(master["RRULE"], dtstart=moment(master["DTSTART"]))
    assert isinstance(rule, rrule.rrule)
    instances.rrule(rule)
    for value in filter(None, master.get("EXDATE", "").split(",")):
        instances.exdate(moment(value))
    shown = {at.astimezone(UTC): (at.astimezone(UTC), at.astimezone(UTC) + length) for at in instances}
    for entry in changed:
        at = moment(entry["RECURRENCE-ID"]).astimezone(UTC)
        assert at in shown
        shown[at] = (moment(entry["DTSTART"]).astimezone(UTC), end(entry))
    return shown


def standing(occurrences: list[Appointment]) -> Shown:
    gone = (Status.DECLINED, Status.CANCELLED)
    return {
        one.series_at: (one.starts_at, one.ends_at)
        for one in occurrences
        if one.series_at is not None and one.status not in gone
    }


RULES = [
    # Across each change of the clock, at times that it does not touch ...
    ("America/New_York", "2027-02-16T10:00", "FREQ=WEEKLY;BYDAY=TU;COUNT=10"),
    ("America/New_York", "2026-10-06T17:30", "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU;COUNT=12"),
    ("Europe/Lisbon", "2026-09-28T08:00", "FREQ=WEEKLY;BYDAY=MO;COUNT=8"),
    ("Europe/Lisbon", "2027-01-27T20:00", "FREQ=MONTHLY;BYDAY=4WE;COUNT=12"),
    ("America/Sao_Paulo", "2026-11-24T10:00", "FREQ=MONTHLY;BYDAY=-1TU;COUNT=12"),
    ("Pacific/Auckland", "2026-09-10T09:00", "FREQ=WEEKLY;BYDAY=TH;COUNT=40"),
    ("Africa/Casablanca", "2027-01-12T09:00", "FREQ=WEEKLY;BYDAY=TU;COUNT=30"),
    ("Europe/Dublin", "2026-09-28T23:30", "FREQ=WEEKLY;BYDAY=MO;COUNT=30"),
    ("UTC", "2026-11-24T10:00", "FREQ=WEEKLY;BYDAY=TU;COUNT=3"),
    # ... and at those that it skips, once as the last of all, or shows twice.
    ("America/New_York", "2027-02-28T02:30", "FREQ=WEEKLY;BYDAY=SU;COUNT=6"),
    ("America/New_York", "2027-02-28T02:30", "FREQ=WEEKLY;BYDAY=SU;COUNT=3"),
    ("America/New_York", "2026-10-18T01:30", "FREQ=WEEKLY;BYDAY=SU;COUNT=6"),
    ("America/New_York", "2026-11-01T01:30", "FREQ=WEEKLY;BYDAY=SU;COUNT=6"),
    ("Europe/Lisbon", "2026-10-11T00:30", "FREQ=WEEKLY;BYDAY=SU;COUNT=4"),
]


@pytest.mark.parametrize(("zone", "first", "rule"), RULES)
def test_a_series_read_by_another_program_is_its_appointments(zone: str, first: str, rule: str) -> None:
    series = make_series(zone, first, rule)
    occurrences = occurrences_of(series)
    assert reread(written(series, occurrences)) == standing(occurrences)


def various(occurrences: list[Appointment]) -> Iterator[Appointment]:
    """Some as they were booked, and one each: cancelled, declined, moved, longer, over, moved beyond the next."""
    cancelled, declined, moved, longer, over, far, *rest = occurrences
    yield replace(cancelled, status=Status.CANCELLED, revision=1)
    yield replace(declined, status=Status.DECLINED, revision=2)
    yield replace(
        moved,
        starts_at=moved.starts_at + timedelta(hours=3),
        ends_at=moved.ends_at + timedelta(hours=3),
        revision=1,
    )
    yield replace(longer, ends_at=longer.ends_at + timedelta(minutes=40), revision=1)
    yield replace(over, status=Status.NO_SHOW)
    ahead = timedelta(days=17)
    yield replace(far, starts_at=far.starts_at + ahead, ends_at=far.ends_at + ahead, revision=4)
    yield from rest


@pytest.mark.parametrize(("zone", "first", "rule"), [one for one in RULES if int(one[2].rpartition("=")[2]) > 6])
def test_what_became_of_its_occurrences_is_read_too(zone: str, first: str, rule: str) -> None:
    series = make_series(zone, first, rule)
    occurrences = list(various(occurrences_of(series)))
    assert reread(written(series, occurrences)) == standing(occurrences)
    without_first = occurrences[1:-1]  # never booked, as they clashed
    assert reread(written(series, without_first)) == standing(without_first)


def test_an_occurrence_in_the_hour_that_comes_again() -> None:
    """Moved to the second reading of 01:10, and ending in it."""
    series = make_series("America/New_York", "2026-10-18T01:30", "FREQ=WEEKLY;BYDAY=SU;COUNT=4")
    occurrences = occurrences_of(series)
    second = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    occurrences[2] = replace(occurrences[2], starts_at=second, ends_at=second + timedelta(minutes=50))
    assert reread(written(series, occurrences)) == standing(occurrences)
    ends_in_it = second - timedelta(minutes=45)
    occurrences[2] = replace(occurrences[2], starts_at=ends_in_it, ends_at=ends_in_it + timedelta(minutes=50))
    assert reread(written(series, occurrences)) == standing(occurrences)


@pytest.mark.parametrize(
    "zone",
    ["America/New_York", "America/Sao_Paulo", "Europe/Lisbon", "Europe/Dublin", "Africa/Casablanca", "Asia/Jerusalem",
     "Pacific/Auckland", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Nuuk"],
)  # fmt: skip
def test_the_zone_that_it_brings_along_is_the_zone(zone: str) -> None:
    series = make_series(zone, "2026-11-24T10:00", "FREQ=WEEKLY;BYDAY=TU;COUNT=2")
    brought, real = zone_of(written(series, occurrences_of(series))), ZoneInfo(zone)
    noon = series.starts_at.replace(hour=12)
    for day in (noon + timedelta(days=number) for number in range(2 * 365)):
        offsets = {(day + timedelta(days=number)).astimezone(real).utcoffset() for number in (-1, 1)}
        for half_hours in range(48 if len(offsets) > 1 else 1):
            local = (day + timedelta(minutes=30 * half_hours + 15)).astimezone(real).replace(tzinfo=None, fold=0)
            assert local.replace(tzinfo=brought).utcoffset() == local.replace(tzinfo=real).utcoffset(), local


def test_the_whole_entry_of_a_series_as_written() -> None:
    series = make_series("Europe/Lisbon", "2026-10-12T10:00", "FREQ=WEEKLY;BYDAY=MO;COUNT=4", revision=2)
    first, second, third, fourth = occurrences_of(series)
    second = replace(second, status=Status.CANCELLED, revision=1)
    third = replace(
        third, starts_at=third.starts_at + timedelta(hours=1), ends_at=third.ends_at + timedelta(hours=1), revision=3
    )
    lines = unfolded(written(series, [first, second, third, fourth]))
    told = [line for line in lines if re.split("[:;]", line)[0] in TOLD and not line.endswith(":VCALENDAR")]
    assert told == [
        "METHOD:REQUEST",
        "BEGIN:VTIMEZONE",
        "TZID:Europe/Lisbon",
        "BEGIN:STANDARD",
        "DTSTART:20250101T000000",
        "END:STANDARD",
        "BEGIN:DAYLIGHT",
        "DTSTART:20250330T010000",
        "RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3",
        "END:DAYLIGHT",
        "BEGIN:STANDARD",
        "DTSTART:20251026T020000",
        "RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10",
        "END:STANDARD",
        "END:VTIMEZONE",
        "BEGIN:VEVENT",
        "DTSTART;TZID=Europe/Lisbon:20261012T100000",
        "DTEND;TZID=Europe/Lisbon:20261012T105000",
        f"UID:{SERIES_UID}",
        "SEQUENCE:2",
        "RRULE:FREQ=WEEKLY;UNTIL=20261102T100000Z;BYDAY=MO",
        "EXDATE;TZID=Europe/Lisbon:20261019T100000",
        "STATUS:CONFIRMED",
        "BEGIN:VALARM",
        "END:VALARM",
        "END:VEVENT",
        "BEGIN:VEVENT",
        "DTSTART;TZID=Europe/Lisbon:20261026T110000",
        "DTEND;TZID=Europe/Lisbon:20261026T115000",
        f"UID:{SERIES_UID}",
        "RECURRENCE-ID;TZID=Europe/Lisbon:20261026T100000",
        "SEQUENCE:5",
        "STATUS:CONFIRMED",
        "BEGIN:VALARM",
        "END:VALARM",
        "END:VEVENT",
    ]


TOLD = frozenset(
    ["METHOD", "BEGIN", "END", "TZID", "DTSTART", "DTEND", "DURATION", "UID", "SEQUENCE", "EXDATE", "RRULE",
     "RECURRENCE-ID", "STATUS"]
)  # fmt: skip


def test_what_is_still_requested_is_told_from_what_is_confirmed() -> None:
    series = make_series("America/Sao_Paulo", "2026-11-24T10:00", "FREQ=WEEKLY;BYDAY=TU;COUNT=3")
    asked = occurrences_of(series, Status.REQUESTED)
    (alone,) = Calendar.from_ical(written(series, asked, Answer.OPEN)).events
    assert (alone["STATUS"], alone["ATTENDEE"].params["PARTSTAT"]) == ("TENTATIVE", "NEEDS-ACTION")
    mixed = [asked[0], replace(asked[1], status=Status.COMPLETED), asked[2]]
    entries = Calendar.from_ical(written(series, mixed)).events
    assert [str(one["STATUS"]) for one in entries] == ["CONFIRMED", "TENTATIVE", "TENTATIVE"]
    assert [one.decoded("RECURRENCE-ID") for one in entries[1:]] == [asked[0].series_at, asked[2].series_at]
    assert reread(written(series, mixed)) == standing(mixed)


def test_an_occurrence_alone_is_a_part_of_the_series() -> None:
    series = make_series("Europe/Lisbon", "2026-10-12T10:00", "FREQ=WEEKLY;BYDAY=MO;COUNT=4", revision=2)
    one = replace(occurrences_of(series)[3], revision=1)
    calendar = Calendar.from_ical(write(one, ANA, BRUNO, OURS, stamp=STAMP, series=series))
    (entry,) = calendar.events
    assert entry["UID"] == SERIES_UID
    assert (entry["SEQUENCE"], entry.decoded("RECURRENCE-ID"), entry.start) == (3, one.series_at, one.starts_at)
    assert entry["RECURRENCE-ID"].params["TZID"] == entry["DTSTART"].params["TZID"] == "Europe/Lisbon"
    assert [str(zone["TZID"]) for zone in calendar.timezones] == ["Europe/Lisbon"]
    assert "RRULE" not in entry


def test_some_of_a_series_are_called_off_by_name_and_all_by_the_master() -> None:
    series = make_series("Europe/Lisbon", "2026-10-12T10:00", "FREQ=WEEKLY;BYDAY=MO;COUNT=4", revision=2)
    first, *others = occurrences_of(series)
    gone = [replace(one, status=Status.CANCELLED, revision=1) for one in others]
    some = Calendar.from_ical(write_gone(series, [first, *gone], gone, ANA, BRUNO, OURS, stamp=STAMP))
    assert [
        (str(one["UID"]), str(one["STATUS"]), one.decoded("RECURRENCE-ID"), one["SEQUENCE"]) for one in some.events
    ] == [(SERIES_UID, "CANCELLED", one.series_at, 3) for one in gone]
    everything = [replace(first, status=Status.DECLINED), *gone]
    calendar = Calendar.from_ical(write_gone(series, everything, gone, ANA, BRUNO, OURS, stamp=STAMP))
    (master,) = calendar.events
    assert (str(some["METHOD"]), str(calendar["METHOD"])) == ("CANCEL", "CANCEL")
    assert (master["UID"], master["STATUS"], master["SEQUENCE"]) == (SERIES_UID, "CANCELLED", 3)
    assert (master.start, "RECURRENCE-ID" in master, "RRULE" in master) == (series.starts_at, False, False)


def test_a_series_has_no_links_that_copy_a_part_of_it() -> None:
    series = make_series("Europe/Lisbon", "2026-10-12T10:00", "FREQ=WEEKLY;BYDAY=MO;COUNT=4")
    assert calendar_links(occurrences_of(series)[0], ANA, BRUNO, OURS) == ()

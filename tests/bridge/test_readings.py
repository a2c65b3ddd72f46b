"""What a foreign calendar says of somebody's time, and what it cannot do to us."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from bridge import readings
from bridge.readings import Question, Unreadable
from tests.bridge.calendar_servers import calendar

SINCE, UNTIL = datetime(2026, 11, 22, 3, tzinfo=UTC), datetime(2027, 11, 25, 3, tzinfo=UTC)
QUESTION = Question(SINCE.timestamp(), UNTIL.timestamp(), "America/Sao_Paulo", "clinic.example.org", "ana@example.org")
OWN = "6f1d0f0e-3c1b-4a53-9d55-0d7c2f7d3b10@clinic.example.org"
LISBON = "TZID=Europe/Lisbon"


def busy(*events: str) -> list[tuple[str, str]]:
    return told(calendar(*events))


def told(content: bytes) -> list[tuple[str, str]]:
    """Days, hours and minutes, in UTC."""
    return [(f"{a:%m-%d %H:%M}", f"{b:%m-%d %H:%M}") for a, b in readings.busy_times(content, QUESTION)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("DTSTART:20261124T130000Z|DTEND:20261124T140000Z", [("11-24 13:00", "11-24 14:00")]),
        ("DTSTART:20261124T130000Z|DURATION:PT90M", [("11-24 13:00", "11-24 14:30")]),
        # 10:00 in Lisbon is 10:00 in UTC in winter, in summer it is 9:00
        (f"DTSTART;{LISBON}:20261124T100000|DURATION:PT1H", [("11-24 10:00", "11-24 11:00")]),
        (f"DTSTART;{LISBON}:20270624T100000|DURATION:PT1H", [("06-24 09:00", "06-24 10:00")]),
        ("DTSTART;TZID=E. South America Standard Time:20261124T100000|DURATION:PT1H", [("11-24 13:00", "11-24 14:00")]),
        ("DTSTART;TZID=GMT Standard Time:20270624T100000|DURATION:PT1H", [("06-24 09:00", "06-24 10:00")]),
        ("DTSTART:20261124T100000|DURATION:PT1H", [("11-24 13:00", "11-24 14:00")]),  # floating: in her zone
        ("DTSTART;VALUE=DATE:20261124|DTEND;VALUE=DATE:20261126", [("11-24 03:00", "11-26 03:00")]),
        ("DTSTART;VALUE=DATE:20261124", [("11-24 03:00", "11-25 03:00")]),
        ("DTSTART;VALUE=DATE:20261124|DTEND;VALUE=DATE:20261124", [("11-24 03:00", "11-25 03:00")]),
        ("DTSTART:20261124T130000Z|DTEND:20261124T130000Z", []),
        ("DTSTART:20261124T130000Z", []),
        ("DTSTART:20261124T130000Z|DTEND:20261124T120000Z", [("11-24 12:00", "11-24 13:00")]),  # broken: busy in doubt
        ("DTSTART:20261124T130000Z|DURATION:PT1H|TRANSP:TRANSPARENT", []),
        ("DTSTART:20261124T130000Z|DURATION:PT1H|TRANSP:OPAQUE", [("11-24 13:00", "11-24 14:00")]),
        ("DTSTART:20261124T130000Z|DURATION:PT1H|STATUS:CANCELLED", []),
        ("DTSTART:20261124T130000Z|DURATION:PT1H|STATUS:TENTATIVE", [("11-24 13:00", "11-24 14:00")]),
        ("DTSTART:20261124T130000Z|DURATION:PT1H|X-MICROSOFT-CDO-BUSYSTATUS:FREE", []),
        ("DTSTART:20261124T130000Z|DURATION:PT1H|X-MICROSOFT-CDO-BUSYSTATUS:OOF", [("11-24 13:00", "11-24 14:00")]),
        (f"UID:{OWN}|DTSTART:20261124T130000Z|DURATION:PT1H", []),
        (f"UID:{OWN.upper()}|DTSTART:20261124T130000Z|DURATION:PT1H", []),
        (f"UID:x{OWN}|DTSTART:20261124T130000Z|DURATION:PT1H", [("11-24 13:00", "11-24 14:00")]),
        ("UID:a@clinic.example.org|DTSTART:20261124T130000Z|DURATION:PT1H", [("11-24 13:00", "11-24 14:00")]),
        (
            "DTSTART:20261124T130000Z|DURATION:PT1H|ATTENDEE;PARTSTAT=DECLINED;CN=Ana:mailto:Ana@example.org",
            [],
        ),
        (
            "DTSTART:20261124T130000Z|DURATION:PT1H|ATTENDEE;PARTSTAT=DECLINED:mailto:bruno@example.org",
            [("11-24 13:00", "11-24 14:00")],
        ),
        ("DTSTART:20261121T130000Z|DTEND:20261122T130000Z", [("11-22 03:00", "11-22 13:00")]),  # cut at the window
        ("DTSTART:20271125T020000Z|DTEND:20271125T120000Z", [("11-25 02:00", "11-25 03:00")]),
        ("DTSTART:20250101T130000Z|DTEND:20250101T140000Z", []),
        ("DTSTART:20250101T130000Z|DTEND:20261124T140000Z", [("11-22 03:00", "11-24 14:00")]),
        ("DTSTART:20250101T130000Z|DURATION:P800D", [("11-22 03:00", "03-12 13:00")]),
    ],
)
def test_one_event(event: str, expected: list[tuple[str, str]]) -> None:
    assert busy(event) == expected


def test_a_repetition_keeps_its_clock_across_a_change_with_its_exceptions() -> None:
    """Lisbon puts the clock forward on 28 March 2027."""
    found = busy(
        f"UID:daily|DTSTART;{LISBON}:20270326T100000|DTEND;{LISBON}:20270326T110000|RRULE:FREQ=DAILY;COUNT=6"
        f"|EXDATE;{LISBON}:20270327T100000",
        f"UID:daily|RECURRENCE-ID;{LISBON}:20270329T100000|DTSTART;{LISBON}:20270329T150000"
        f"|DTEND;{LISBON}:20270329T160000",
        f"UID:daily|RECURRENCE-ID;{LISBON}:20270330T100000|DTSTART;{LISBON}:20270330T100000"
        f"|DTEND;{LISBON}:20270330T110000|STATUS:CANCELLED",
    )
    assert found == [
        ("03-26 10:00", "03-26 11:00"),
        ("03-28 09:00", "03-28 10:00"),
        ("03-29 14:00", "03-29 15:00"),
        ("03-31 09:00", "03-31 10:00"),
    ]


def test_an_old_series_goes_on_and_its_moved_instance_counts() -> None:
    found = busy(
        "UID:a|DTSTART:20200107T130000Z|DURATION:PT1H|RRULE:FREQ=WEEKLY;UNTIL=20261208T130000Z",
        "UID:a|RECURRENCE-ID:20261201T130000Z|DTSTART:20261202T150000Z|DURATION:PT1H",
    )
    assert found == [
        ("11-24 13:00", "11-24 14:00"),
        ("12-02 15:00", "12-02 16:00"),
        ("12-08 13:00", "12-08 14:00"),
    ]


def test_what_touches_is_one() -> None:
    events = [f"DTSTART:20261124T{hour}0000Z|DURATION:PT{minutes}M" for hour, minutes in ((13, 60), (14, 30), (16, 60))]
    assert busy(*events) == [("11-24 13:00", "11-24 14:30"), ("11-24 16:00", "11-24 17:00")]


def test_lists_of_free_and_busy_times() -> None:
    content = b"\r\n".join(
        [
            b"BEGIN:VCALENDAR",
            b"VERSION:2.0",
            b"BEGIN:VFREEBUSY",
            b"UID:f",
            b"FREEBUSY;FBTYPE=BUSY:20261124T100000Z/20261124T110000Z,20261125T100000Z/PT2H",
            b"FREEBUSY;FBTYPE=FREE:20261126T100000Z/PT2H",
            b"FREEBUSY:20261127T100000Z/PT1H",
            b"END:VFREEBUSY",
            b"END:VCALENDAR",
        ]
    )
    assert told(content) == [
        ("11-24 10:00", "11-24 11:00"),
        ("11-25 10:00", "11-25 12:00"),
        ("11-27 10:00", "11-27 11:00"),
    ]


def test_a_zone_of_the_calendar_s_own() -> None:
    zone = (
        "BEGIN:VTIMEZONE|TZID:Clinic|BEGIN:STANDARD|DTSTART:19700101T000000|TZOFFSETFROM:+0200|TZOFFSETTO:+0200"
        "|END:STANDARD|END:VTIMEZONE"
    ).replace("|", "\r\n")
    event = calendar("DTSTART;TZID=Clinic:20261124T100000|DURATION:PT1H").replace(
        b"BEGIN:VEVENT", zone.encode() + b"\r\nBEGIN:VEVENT", 1
    )
    assert told(event) == [("11-24 08:00", "11-24 09:00")]


def test_what_exchange_makes_of_our_invitations() -> None:
    foreign = b"vCal-Uid\x01\x00\x00\x00" + OWN.encode() + b"\x00"
    wrapped = readings.EXCHANGE_UID + "00" * 24 + foreign.hex()
    assert readings.is_ours(wrapped, "clinic.example.org")
    assert not readings.is_ours(wrapped, "other.example.org")
    assert not readings.is_ours(readings.EXCHANGE_UID + "00" * 40, "clinic.example.org")
    assert not readings.is_ours(readings.EXCHANGE_UID + "zz", "clinic.example.org")


def test_nothing_but_times_is_parsed() -> None:
    event = calendar(
        "SUMMARY:Oncologist|DESCRIPTION:private|LOCATION:Ward 5|ATTENDEE:mailto:doctor@example.org"
        "|DTSTART:20261124T130000Z|DURATION:PT1H|X-OTHER:private|BEGIN:VALARM|TRIGGER:-PT1H|DTSTART:bad|END:VALARM"
    ).replace(b"SUMMARY:Onc", b"SUMMARY:On\r\n c")
    kept = readings.condense(event.decode(), QUESTION)
    assert kept.split("\r\n")[3:-2] == [
        "BEGIN:VEVENT",
        "UID:0@example.org",
        "DTSTART:20261124T130000Z",
        "DURATION:PT1H",
        "END:VEVENT",
    ]


@pytest.mark.parametrize(
    "event",
    [
        "DTSTART:rubbish|DURATION:PT1H",
        "DTSTART:20261399T990000Z|DURATION:PT1H",
        "DTSTART;TZID=Mars/Olympus:bad|DURATION:PT1H",
        "DTSTART:20261124T130000Z|DURATION:PT1H|RRULE:FREQ=SOMETIMES",
        "DTSTART:20261124T130000Z|RRULE:",
        "SUMMARY:nothing at all",
    ],
)
async def test_one_broken_event_does_not_hide_the_others(event: str) -> None:
    found = await readings.read(calendar(event, "DTSTART:20261125T130000Z|DURATION:PT1H"), QUESTION)
    whole = (datetime(2026, 11, 25, 13, tzinfo=UTC), datetime(2026, 11, 25, 14, tzinfo=UTC))
    assert whole in found


@pytest.mark.parametrize("content", [b"", b"<html>", b"BEGIN:VCARD\r\nEND:VCARD\r\n", calendar("DTSTART:x")[:-20]])
async def test_what_is_no_calendar(content: bytes) -> None:
    with pytest.raises(Unreadable, match="no_calendar"):
        await readings.read(content, QUESTION)


@pytest.mark.parametrize(
    "events",
    [
        ["DTSTART:20261124T130000Z|DURATION:PT1S|RRULE:FREQ=SECONDLY"],
        ["DTSTART:20261124T130000Z|DURATION:PT1S|RRULE:INTERVAL=1;freq=minutely"],
        [f"DTSTART:20261124T{hour:02}0000Z|DURATION:PT30M|RRULE:FREQ=DAILY" for hour in range(14)],
    ],
    ids=["seconds", "minutes", "many"],
)  # fmt: skip
async def test_what_is_too_intricate(events: list[str]) -> None:
    with pytest.raises(Unreadable, match="intricate"):
        await readings.read(calendar(*events), QUESTION)


async def test_a_bomb_ends_with_its_process_and_nothing_else_waits() -> None:
    every = ",".join(map(str, range(60)))
    bomb = calendar(
        f"DTSTART:20200101T000000Z|DURATION:PT1S|RRULE:FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU"
        f";BYHOUR={','.join(map(str, range(24)))};BYMINUTE={every};BYSECOND={every}"
    )
    started = time.monotonic()
    reading = asyncio.create_task(readings.read(bomb, QUESTION, seconds=3))
    longest = 0.0
    while not reading.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    with pytest.raises(Unreadable, match="intricate"):
        await reading
    assert time.monotonic() - started < 60  # as good as for ever
    assert longest < 2.5  # less than the three seconds that it works on it


async def test_years_of_history_are_read_in_a_moment() -> None:
    past = [
        f"DTSTART:20{10 + n % 16}{n % 12 + 1:02}{n % 27 + 1:02}T{n % 23:02}0000Z"
        f"|DTEND:20{10 + n % 16}{n % 12 + 1:02}{n % 27 + 1:02}T{n % 23 + 1:02}0000Z|SUMMARY:{'x' * 120}"
        for n in range(9_000)
    ]
    content = calendar(*past, "DTSTART:20261124T130000Z|DTEND:20261124T140000Z")
    started = time.monotonic()
    found = await readings.read(content, QUESTION)
    assert found == [(SINCE + timedelta(days=2, hours=10), SINCE + timedelta(days=2, hours=11))]
    assert time.monotonic() - started < 10

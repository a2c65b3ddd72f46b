"""The weekly hours and their exceptions, most of all on days when a clock changes."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervision.hours import (
    Availability,
    ClockRange,
    DatedException,
    WeeklyRange,
    careful_starts,
    is_steady,
    offered,
    place_for,
)
from supervision.models import Exceptional
from supervision.public_holidays import of_year
from tests.support.sample import exception

SAO_PAULO, LISBON = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Lisbon")
NEW_YORK, LORD_HOWE = ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")
OFF, EXTRA = Exceptional.TIME_OFF, Exceptional.EXTRA_HOURS
ALL_DAY = tuple(WeeklyRange(weekday, time(9), time(12)) for weekday in range(7))
HOURLY = Availability(ALL_DAY, length=60, grid=60)


@pytest.mark.parametrize(
    ("zone", "day", "starts", "ends", "expected"),
    [
        # 01:00 to 02:00 is skipped: the end at 01:30 does not exist, what begins before the gap is offered
        (LISBON, date(2027, 3, 28), time(0), time(1, 30), ["28 00:00", "28 00:30"]),
        (LISBON, date(2027, 3, 28), time(0, 30), time(1), ["28 00:30"]),
        (LISBON, date(2027, 3, 28), time(1), time(3), ["28 01:00", "28 01:30"]),
        # 01:00 to 02:00 comes twice
        (LISBON, date(2027, 10, 31), time(0), time(1, 30), ["30 23:00", "30 23:30", "31 00:00"]),
        (LISBON, date(2027, 10, 31), time(1), time(2), ["31 00:00", "31 00:30"]),
        # 00:00 to 01:00 was skipped
        (SAO_PAULO, date(2018, 11, 4), time(0), time(0, 30), []),
        (SAO_PAULO, date(2018, 11, 4), time(0), time(2), ["04 03:00", "04 03:30"]),
        # 23:00 to 24:00 came twice
        (SAO_PAULO, date(2019, 2, 16), time(22), time(23, 30), ["17 00:00", "17 00:30", "17 01:00"]),
    ],
)
def test_hours_across_a_change_of_the_clock(
    zone: ZoneInfo, day: date, starts: time, ends: time, expected: list[str]
) -> None:
    rules = Availability((WeeklyRange(day.weekday(), starts, ends),), length=30, grid=30)
    since = datetime.combine(day, time(0), tzinfo=UTC) - timedelta(days=1)
    found = [slot.starts_at for slot in offered(rules, zone, since, since + timedelta(days=3))]
    assert [f"{at:%d %H:%M}" for at in found] == expected


@pytest.mark.parametrize(
    ("zone", "day", "off", "expected"),
    [
        # 01:00 to 02:00 is skipped: time off that begins or ends in it begins or ends where the clock goes on
        (LISBON, date(2027, 3, 28), (time(1, 30), time(2, 30)), ["28 00:00", "28 00:30", "28 01:30"]),
        (LISBON, date(2027, 3, 28), (time(0, 30), time(1, 30)), ["28 00:00", "28 01:00", "28 01:30"]),
        # 01:00 to 02:00 comes twice: time off begins at the first and ends at the last
        (
            LISBON,
            date(2026, 10, 25),
            (time(1, 30), time(2)),
            ["24 23:00", "24 23:30", "25 00:00", "25 02:00", "25 02:30"],
        ),
        (LISBON, date(2026, 10, 25), (time(0), time(1, 30)), ["25 02:00", "25 02:30"]),
    ],
)
def test_time_off_across_a_change_of_the_clock(zone: ZoneInfo, day: date, off: ClockRange, expected: list[str]) -> None:
    rules = Availability((WeeklyRange(day.weekday(), time(0), time(3)),), length=30, grid=30)
    rules = replace(rules, exceptions=(exception(OFF, day, day, off),))
    since = datetime.combine(day, time(0), tzinfo=UTC) - timedelta(days=1)
    assert [f"{slot.starts_at:%d %H:%M}" for slot in offered(rules, zone, since, since + timedelta(days=3))] == expected


CHANGES = (
    date(2026, 10, 25),
    date(2027, 3, 28),
    date(2027, 3, 14),
    date(2026, 10, 4),
    date(2018, 11, 4),
    date(2019, 2, 16),
)
ZONES = st.sampled_from([SAO_PAULO, LISBON, NEW_YORK, LORD_HOWE])
DAYS = st.builds(lambda day, more: day + timedelta(days=more), st.sampled_from(CHANGES), st.integers(-9, 9))
CLOCKS = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45, 59]))
RANGES = st.lists(CLOCKS, min_size=2, max_size=2, unique=True).map(lambda two: (min(two), max(two)))


@st.composite
def exceptions(draw: st.DrawFn) -> DatedException:
    kind = draw(st.sampled_from([OFF, EXTRA]))
    first = draw(DAYS)
    clocks = draw(RANGES) if kind is EXTRA else draw(st.none() | RANGES)
    yearly = draw(st.booleans())
    first = first.replace(year=first.year - draw(st.integers(0, 2))) if yearly else first
    return exception(kind, first, first + timedelta(days=draw(st.integers(0, 5))), clocks, yearly=yearly)


@st.composite
def rules_of_any_kind(draw: st.DrawFn) -> Availability:
    hours = draw(st.lists(st.builds(lambda day, two: WeeklyRange(day, *two), st.integers(0, 6), RANGES), max_size=8))
    return Availability(
        tuple(hours),
        length=draw(st.sampled_from([5, 30, 50, 60, 90, 720])),
        grid=draw(st.sampled_from([15, 20, 30, 60, 1440])),
        valid_from=draw(st.none() | DAYS),
        valid_until=draw(st.none() | DAYS),
        country=draw(st.sampled_from([None, "BR", "PT", "US"])),
        exceptions=tuple(draw(st.lists(exceptions(), max_size=4))),
    )


def takes(one: DatedException, day: date) -> bool:
    """Whether an exception takes a day, asked day by day."""
    if not one.yearly:
        return one.first_on <= day <= one.last_on
    key, first, last = [(each.month, each.day) for each in (day, one.first_on, one.last_on)]
    within = first <= key <= last if one.first_on.year == one.last_on.year else key >= first or key <= last
    return within and day >= one.first_on


def slowly(rules: Availability, zone: ZoneInfo, since: datetime, until: datetime) -> list[datetime]:
    """What `offered` should give, each day for itself and each of its wall-clock times read with care."""
    found: list[datetime] = []
    day = since.astimezone(zone).date()
    while day <= until.astimezone(zone).date():
        ranges, off = slow_ranges(rules, day)
        starts = careful_starts(day, tuple(ranges), tuple(off), zone, rules.grid, rules.length)
        found += [at for at in starts if since <= at < until]
        day += timedelta(days=1)
    return found


def slow_ranges(rules: Availability, day: date) -> tuple[list[ClockRange], list[ClockRange]]:
    taken = [one for one in rules.exceptions if takes(one, day)]
    off = [(one.starts or time(0), one.ends) for one in taken if one.kind is OFF]
    if any(ends is None for _, ends in off):
        return [], []
    ranges = [(one.starts, one.ends) for one in taken if one.kind is EXTRA and one.starts and one.ends]
    valid = (rules.valid_from or date.min) <= day <= (rules.valid_until or date.max)
    if valid and not (rules.country and day in of_year(rules.country, None, day.year)):
        ranges += [(one.starts, one.ends) for one in rules.hours if one.weekday == day.weekday()]
    return ranges, [(starts, ends) for starts, ends in off if ends is not None]


@settings(max_examples=300, deadline=None)
@given(rules_of_any_kind(), ZONES, DAYS, st.integers(0, 86399), st.integers(1, 12 * 86400))
def test_the_quick_way_is_the_careful_way(
    rules: Availability, zone: ZoneInfo, day: date, second: int, seconds: int
) -> None:
    since = datetime.combine(day, time(0), tzinfo=UTC) + timedelta(seconds=second)
    until = since + timedelta(seconds=seconds)
    found = list(offered(rules, zone, since, until))
    assert [slot.starts_at for slot in found] == slowly(rules, zone, since, until)
    assert {slot.ends_at - slot.starts_at for slot in found} <= {timedelta(minutes=rules.length)}


def test_only_days_with_a_change_take_the_careful_way() -> None:
    days = [date(2026, 1, 1) + timedelta(days=passed) for passed in range(730)]
    changing = {
        zone.key: [f"{day}" for day in days if not is_steady(day, zone)] for zone in (LISBON, NEW_YORK, SAO_PAULO)
    }
    assert changing == {
        "Europe/Lisbon": ["2026-03-29", "2026-10-25", "2027-03-28", "2027-10-31"],
        "America/New_York": ["2026-03-08", "2026-11-01", "2027-03-14", "2027-11-07"],
        "America/Sao_Paulo": [],
    }


def starts(rules: Availability, first: date, days: int = 1) -> list[str]:
    """The starts of some days in São Paulo, as they read there."""
    since = datetime.combine(first, time(0), tzinfo=SAO_PAULO)
    found = offered(rules, SAO_PAULO, since.astimezone(UTC), (since + timedelta(days=days)).astimezone(UTC))
    return [f"{slot.starts_at.astimezone(SAO_PAULO):%m-%d %H}" for slot in found]


def having(*found: DatedException, rules: Availability = HOURLY) -> Availability:
    return replace(rules, exceptions=found)


def test_time_off_takes_whole_days_or_a_range_of_each() -> None:
    first, last = date(2026, 12, 1), date(2026, 12, 2)
    assert starts(having(exception(OFF, first, last)), first, 3) == ["12-03 09", "12-03 10", "12-03 11"]
    assert starts(having(exception(OFF, first, last, (time(9, 30), time(11)))), first, 2) == ["12-01 11", "12-02 11"]


def test_extra_hours_hold_on_holidays_and_outside_validity_and_yield_to_time_off() -> None:
    christmas = date(2026, 12, 25)
    rules = replace(HOURLY, country="BR")
    extra = exception(EXTRA, christmas, christmas, (time(14), time(16)))
    assert starts(rules, christmas) == []
    assert starts(having(extra, rules=rules), christmas) == ["12-25 14", "12-25 15"]
    ended = replace(HOURLY, valid_until=date(2026, 12, 24))
    assert starts(ended, date(2026, 12, 24), 2) == ["12-24 09", "12-24 10", "12-24 11"]
    assert starts(having(extra, rules=ended), christmas) == ["12-25 14", "12-25 15"]
    off = exception(OFF, christmas, christmas, (time(15), time(16)))
    assert starts(having(extra, off, rules=rules), christmas) == ["12-25 14"]
    assert starts(having(extra, exception(OFF, christmas, christmas), rules=rules), christmas) == []


def test_holidays_are_those_of_the_state() -> None:
    july = date(2027, 7, 9)  # a holiday of the state of São Paulo alone
    assert starts(replace(HOURLY, country="BR"), july) == ["07-09 09", "07-09 10", "07-09 11"]
    assert starts(replace(HOURLY, country="BR", subdivision="SP"), july) == []


def test_hours_hold_within_their_days_both_included() -> None:
    rules = replace(HOURLY, valid_from=date(2026, 12, 2), valid_until=date(2026, 12, 3))
    assert {start[:5] for start in starts(rules, date(2026, 12, 1), 5)} == {"12-02", "12-03"}


def test_a_start_that_two_ranges_give_is_offered_once() -> None:
    day = date(2026, 12, 1)
    extra = exception(EXTRA, day, day, (time(11), time(13)))
    assert starts(having(extra), day) == ["12-01 09", "12-01 10", "12-01 11", "12-01 12"]


def days_of(one: DatedException, first: date, last: date) -> list[str]:
    return [f"{since:%Y-%m-%d}..{until:%m-%d}" for since, until in one.occurrences(first, last)]


def test_a_yearly_exception_comes_back_over_the_turn_of_the_year() -> None:
    holidays = exception(OFF, date(2026, 12, 24), date(2027, 1, 6), yearly=True)
    assert days_of(holidays, date(2026, 1, 1), date(2029, 1, 3)) == [
        "2026-12-24..01-06",
        "2027-12-24..01-06",
        "2028-12-24..01-03",
    ]


def test_a_yearly_29_february_is_only_where_there_is_one() -> None:
    leap = exception(OFF, date(2024, 2, 29), date(2024, 2, 29), yearly=True)
    assert days_of(leap, date(2024, 1, 1), date(2033, 1, 1)) == [
        "2024-02-29..02-29",
        "2028-02-29..02-29",
        "2032-02-29..02-29",
    ]
    around = exception(OFF, date(2024, 2, 28), date(2024, 2, 29), yearly=True)
    assert days_of(around, date(2027, 1, 1), date(2028, 12, 31)) == ["2027-02-28..02-28", "2028-02-28..02-29"]
    after = exception(OFF, date(2024, 2, 29), date(2024, 3, 1), yearly=True)
    assert days_of(after, date(2027, 1, 1), date(2028, 12, 31)) == ["2027-03-01..03-01", "2028-02-29..03-01"]


def test_a_room_in_the_place_is_another_for_each_appointment() -> None:
    rules = replace(HOURLY, place="https://meet.example.org/{room}#x")
    one, two = place_for(rules), place_for(rules)
    assert one != two
    head, tail = "https://meet.example.org/", "#x"
    for place in (one, two):
        assert (place[: len(head)], place[-len(tail) :], len(place)) == (head, tail, len(head) + 32 + len(tail))
    assert place_for(replace(HOURLY, place="Rua {1}")) == "Rua {1}"

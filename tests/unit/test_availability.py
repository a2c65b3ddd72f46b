"""The weekly hours on days when a clock changes."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from supervision.availability import Availability, WeeklyRange, offered

SAO_PAULO, LISBON = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Lisbon")


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

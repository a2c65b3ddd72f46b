"""Rules of series: how they are said, read and expanded in wall-clock time."""

import itertools
import time
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import given
from hypothesis import strategies as st

from supervision.errors import NotUnderstood
from supervision.repetitions import Repetition, Rule, expand, read_rule, rule_of

TEN = datetime(2026, 11, 24, 10, 0)  # noqa: DTZ001 - a Tuesday's wall-clock time, the fourth of its month
REPETITIONS = [
    (Repetition("weekly", count=10), "FREQ=WEEKLY;BYDAY=TU;COUNT=10"),
    (Repetition("fortnightly", count=5), "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU;COUNT=5"),
    (Repetition("monthly", count=3), "FREQ=MONTHLY;BYDAY=4TU;COUNT=3"),
    (Repetition("weekly", until=date(2026, 12, 22)), "FREQ=WEEKLY;BYDAY=TU;UNTIL=20261222"),
]


def days(found: list[datetime]) -> list[str]:
    return [f"{one:%y-%m-%d}" for one in found]


@pytest.mark.parametrize(("repetition", "rule"), REPETITIONS)
def test_a_repetition_is_written_as_a_rule(repetition: Repetition, rule: str) -> None:
    assert rule_of(repetition, TEN) == rule


@pytest.mark.parametrize(
    ("day", "place"), [(1, "1SU"), (7, "1SA"), (8, "2SU"), (22, "4SU"), (28, "4SA"), (29, "-1SU"), (30, "-1MO")]
)
def test_a_month_repeats_the_weekday_and_its_place(day: int, place: str) -> None:
    assert rule_of(Repetition("monthly", count=2), TEN.replace(day=day)) == f"FREQ=MONTHLY;BYDAY={place};COUNT=2"


@pytest.mark.parametrize(
    ("repetition", "key"),
    [
        (Repetition("weekly"), "refused.series_endless"),
        (Repetition("weekly", count=3, until=date(2026, 12, 31)), "refused.series_rule"),
        (Repetition("weekly", count=0), "refused.series_rule"),
        (Repetition("weekly", count=-1), "refused.series_rule"),
    ],
)
def test_a_repetition_has_one_end(repetition: Repetition, key: str) -> None:
    with pytest.raises(NotUnderstood, match=key):
        rule_of(repetition, TEN)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("FREQ=WEEKLY;COUNT=3", ["26-11-24", "26-12-01", "26-12-08"]),
        ("freq=weekly;byday=tu;count=2", ["26-11-24", "26-12-01"]),
        ("COUNT=2;INTERVAL=3;FREQ=WEEKLY", ["26-11-24", "26-12-15"]),
        ("FREQ=WEEKLY;INTERVAL=2;UNTIL=20261222", ["26-11-24", "26-12-08", "26-12-22"]),
        ("FREQ=WEEKLY;UNTIL=20261201T100000", ["26-11-24", "26-12-01"]),
        ("FREQ=WEEKLY;UNTIL=20261208T095959", ["26-11-24", "26-12-01"]),
        ("FREQ=MONTHLY;BYDAY=4TU;COUNT=3", ["26-11-24", "26-12-22", "27-01-26"]),
        ("FREQ=MONTHLY;BYDAY=+4TU;COUNT=2", ["26-11-24", "26-12-22"]),
    ],
)
def test_a_rule_is_expanded(rule: str, expected: list[str]) -> None:
    assert days(expand(rule, TEN)) == expected


def test_a_fifth_weekday_is_the_last_of_every_month() -> None:
    first = TEN.replace(month=9, day=29)
    rule = rule_of(Repetition("monthly", count=5), first)
    assert days(expand(rule, first)) == ["26-09-29", "26-10-27", "26-11-24", "26-12-29", "27-01-26"]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [("America/Sao_Paulo", ["26-11-24", "26-12-01"]), ("Pacific/Auckland", ["26-11-24", "26-12-01", "26-12-08"])],
)
def test_an_end_in_utc_is_read_in_the_supervisors_zone(zone: str, expected: list[str]) -> None:
    rule = read_rule("FREQ=WEEKLY;UNTIL=20261207T230000Z", ZoneInfo(zone))
    assert days(rule.starts(TEN)) == expected


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ("", "refused.series_rule"),
        ("weekly", "refused.series_rule"),
        ("FREQ=DAILY;COUNT=5", "refused.series_rule"),
        ("FREQ=YEARLY;COUNT=2", "refused.series_rule"),
        ("COUNT=2", "refused.series_rule"),
        ("FREQ=WEEKLY;FREQ=WEEKLY;COUNT=2", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;COUNT=3", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;WKST=SU", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;BYHOUR=9,10", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;BYDAY=TU,TH", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;BYDAY=2TU", "refused.series_rule"),
        ("FREQ=MONTHLY;COUNT=2", "refused.series_rule"),
        ("FREQ=MONTHLY;COUNT=2;BYDAY=TU", "refused.series_rule"),
        ("FREQ=MONTHLY;COUNT=2;BYDAY=5TU", "refused.series_rule"),
        ("FREQ=MONTHLY;COUNT=2;BYDAY=0TU", "refused.series_rule"),
        ("FREQ=MONTHLY;COUNT=2;BYDAY=-2TU", "refused.series_rule"),
        ("FREQ=MONTHLY;COUNT=2;BYMONTHDAY=24", "refused.series_rule"),
        ("FREQ=WEEKLY;INTERVAL=0;COUNT=2", "refused.series_rule"),
        ("FREQ=WEEKLY;INTERVAL=13;COUNT=2", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=0", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=-1", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=٣", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=1e3", "refused.series_rule"),
        ("FREQ=WEEKLY;COUNT=2;UNTIL=20261222", "refused.series_rule"),
        ("FREQ=WEEKLY;UNTIL=20261232", "refused.series_rule"),
        ("FREQ=WEEKLY;UNTIL=20261222T250000Z", "refused.series_rule"),
        ("FREQ=WEEKLY;UNTIL=00010101T000000Z", "refused.series_rule"),
        ("FREQ=WEEKLY", "refused.series_endless"),
        ("FREQ=MONTHLY;BYDAY=4TU", "refused.series_endless"),
        ("FREQ=WEEKLY;COUNT=1", "refused.series_too_short"),
        ("FREQ=WEEKLY;UNTIL=20261130", "refused.series_too_short"),
        ("FREQ=WEEKLY;UNTIL=20201130", "refused.series_too_short"),
        ("FREQ=WEEKLY;COUNT=2;BYDAY=WE", "refused.series_day"),
        ("FREQ=MONTHLY;COUNT=2;BYDAY=3TU", "refused.series_day"),
        ("FREQ=WEEKLY;COUNT=54", "refused.series_too_long"),
        ("FREQ=WEEKLY;COUNT=105", "refused.series_too_long"),
        ("FREQ=WEEKLY;UNTIL=99991231", "refused.series_too_long"),
        ("FREQ=MONTHLY;INTERVAL=12;BYDAY=4TU;UNTIL=99991231T235959Z", "refused.series_too_long"),
    ],
)
def test_what_is_no_rule_of_ours_is_refused(rule: str, key: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        read_rule(rule, ZoneInfo("America/Sao_Paulo")).starts(TEN)
    assert refused.value.key == key


def test_a_time_with_seconds_is_refused() -> None:
    with pytest.raises(NotUnderstood, match=r"refused\.whole_minutes"):
        expand("FREQ=WEEKLY;COUNT=2", TEN.replace(second=1))


@pytest.mark.parametrize(
    "rule", ["FREQ=WEEKLY;COUNT=10000", "FREQ=WEEKLY;COUNT=999999999", "FREQ=MONTHLY;BYDAY=4TU;UNTIL=99991231"]
)
def test_ten_thousand_are_refused_at_once(rule: str) -> None:
    begun = time.process_time()
    with pytest.raises(NotUnderstood, match=r"refused\.series_too_long"):
        expand(rule, TEN)
    assert time.process_time() - begun < 1


def test_a_year_of_weeks_is_the_longest() -> None:
    assert len(expand("FREQ=WEEKLY;COUNT=53", TEN)) == 53


@given(st.text(max_size=60) | st.from_regex(r"(FREQ=(WEEKLY|MONTHLY|.*);?|[A-Z]+=[-+0-9A-Z]*;?)*", fullmatch=True))
def test_whatever_is_said_is_a_rule_or_refused(said: str) -> None:
    try:
        rule = read_rule(said, ZoneInfo("America/New_York"))
    except NotUnderstood:
        return
    assert isinstance(rule, Rule)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(second=0, microsecond=0)),  # noqa: DTZ001
    st.sampled_from(["weekly", "fortnightly", "monthly"]),
    st.integers(2, 12),
)
def test_a_repetition_begins_where_it_begins_and_means_to_others_what_it_means_to_us(
    first: datetime, frequency: str, count: int
) -> None:
    """Expanded by dateutil's own reader of RRULEs, too."""
    rule = rule_of(Repetition(frequency, count=count), first)  # type: ignore[arg-type]
    found = expand(rule, first)
    assert found == list(rrule.rrulestr(rule, dtstart=first))
    assert (found[0], len(found)) == (first, count)
    assert {(one.weekday(), one.time()) for one in found} == {(first.weekday(), first.time())}
    assert min(two - one for one, two in itertools.pairwise(found)) >= timedelta(days=7)

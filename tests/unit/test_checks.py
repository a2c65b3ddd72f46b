"""What makes no sense as hours, exceptions and rules, and how exceptions are typed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, time, timedelta

import pytest

from supervision.checks import check_exception, check_hours, check_rules, read_exception
from supervision.errors import NotUnderstood
from supervision.hours import Availability, DatedException, WeeklyRange
from supervision.models import Exceptional
from tests.support.sample import exception

OFF, EXTRA = Exceptional.TIME_OFF, Exceptional.EXTRA_HOURS


def refused(error: pytest.ExceptionInfo[NotUnderstood]) -> tuple[str, dict[str, object]]:
    return error.value.key, error.value.params


DAY = date(2026, 12, 1)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (exception(OFF, DAY, date(2026, 11, 30)), "refused.days_backwards"),
        (exception(OFF, DAY, DAY + timedelta(days=366)), "refused.days_too_many"),
        (exception(OFF, date(1999, 12, 31), date(2000, 1, 1)), "refused.day"),
        (exception(OFF, date(2899, 12, 31), date(2900, 1, 1)), "refused.day"),
        (exception(EXTRA, DAY, DAY), "refused.extra_without_times"),
        (replace(exception(OFF, DAY, DAY), starts=time(9)), "refused.extra_without_times"),
        (exception(EXTRA, DAY, DAY, (time(12), time(9))), "refused.hours_backwards"),
        (exception(EXTRA, DAY, DAY, (time(9), time(9))), "refused.hours_backwards"),
        (exception(EXTRA, DAY, DAY, (time(9, 0, 1), time(10))), "refused.whole_minutes"),
    ],
)
def test_an_exception_that_makes_no_sense_is_refused(wrong: DatedException, key: str) -> None:
    with pytest.raises(NotUnderstood) as error:
        check_exception(wrong)
    assert refused(error)[0] == key


def test_a_whole_leap_year_is_not_too_long() -> None:
    check_exception(exception(OFF, date(2028, 1, 1), date(2028, 12, 31)))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cancel_notice": 43201}, "refused.out_of_range"),
        ({"move_notice": -1}, "refused.out_of_range"),
        ({"day_limit": 0}, "refused.out_of_range"),
        ({"week_limit": 501}, "refused.out_of_range"),
        ({"answer": 4}, "refused.out_of_range"),
        ({"offer": 10081}, "refused.out_of_range"),
        ({"length": "50"}, "refused.out_of_range"),
        ({"place": "a\nb"}, "refused.place"),
        ({"place": "a" * 501}, "refused.place_long"),
        ({"valid_from": date(1999, 1, 1)}, "refused.day"),
        ({"valid_from": DAY, "valid_until": DAY - timedelta(days=1)}, "refused.days_backwards"),
        ({"country": "XX"}, "refused.holidays"),
        ({"subdivision": "SP"}, "refused.holidays"),
    ],
)
def test_rules_that_make_no_sense_are_refused(changes: dict[str, object], key: str) -> None:
    with pytest.raises(NotUnderstood) as error:
        check_rules(Availability((), **changes))  # type: ignore[arg-type]
    assert refused(error)[0] == key


def test_hours_with_seconds_are_refused() -> None:
    with pytest.raises(NotUnderstood) as error:
        check_hours([WeeklyRange(0, time(9, 0, 30), time(12))])
    assert refused(error)[0] == "refused.whole_minutes"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("2026-12-24..2027-01-06", (date(2026, 12, 24), date(2027, 1, 6), None, None)),
        (" 2026-12-05  09:00-12:00 ", (date(2026, 12, 5), date(2026, 12, 5), time(9), time(12))),
        ("2026-12-05..2026-12-06 09:00-12:00", (date(2026, 12, 5), date(2026, 12, 6), time(9), time(12))),
    ],
)
def test_an_exception_is_read(said: str, expected: Sequence[object]) -> None:
    found = read_exception(OFF, said, yearly=True)
    assert (found.first_on, found.last_on, found.starts, found.ends) == expected
    assert (found.kind, found.yearly) == (OFF, True)


@pytest.mark.parametrize(
    "said", ["", "24/12/2026", "2026-02-30", "2026-12-05 9-12", "2026-12-05 25:00-26:00", "٢٠٢٦-12-05"]
)
def test_what_is_no_exception_is_refused(said: str) -> None:
    with pytest.raises(NotUnderstood) as error:
        read_exception(OFF, said)
    assert refused(error) == ("refused.exception", {"text": said})

"""Public holidays, by the codes that people type."""

import pytest

from supervision.errors import NotUnderstood
from supervision.public_holidays import check_codes, of_year


def test_codes_of_holidays_are_read_in_any_case_and_unknown_ones_told_with_some_that_exist() -> None:
    assert check_codes("br", "sp") == ("BR", "SP")
    assert check_codes("pt", None) == ("PT", None)
    assert check_codes(None, None) == (None, None)
    some = "AR, BR, DE, ES, GB, PT, US"
    for country, part, expected in (
        ("XX", None, {"given": "XX", "known": some}),
        ("Brazil", None, {"given": "Brazil", "known": some}),
        (None, "SP", {"given": "SP", "known": some}),
        ("BR", "ZZ", {"given": "BR ZZ", "known": "AC, AL, AM, AP, BA, CE, DF, ES"}),
    ):
        with pytest.raises(NotUnderstood) as error:
            check_codes(country, part)
        assert (error.value.key, error.value.params) == ("refused.holidays", expected)


def test_codes_that_the_installed_calendars_lost_give_no_holidays() -> None:
    assert of_year("BR", "ZZ", 2026) == frozenset()

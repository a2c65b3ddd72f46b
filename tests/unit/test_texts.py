"""The catalogues say the same in both languages, and dates read as people write them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.commands import WORDS
from supervision import texts
from supervision.errors import Refused, SlotTaken
from supervision.texts import Clocks, Key, Moment, Reader, Span

AFTERNOON = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)
SPAN = Span(AFTERNOON, AFTERNOON + timedelta(minutes=50))


def subclasses(of: type[Refused]) -> list[type[Refused]]:
    return [of, *(deeper for one in of.__subclasses__() for deeper in subclasses(one))]


def test_both_languages_have_the_same_sentences_with_the_same_parameters() -> None:
    def shape(language: str) -> dict[str, frozenset[str]]:
        return {
            key: frozenset().union(*(texts.placeholders(one) for one in forms))
            for key, forms in texts.sentences(language).items()
        }

    assert shape("pt-BR") == shape("en")


@pytest.mark.parametrize("language", ["pt-BR", "en"])
def test_no_sentence_is_empty(language: str) -> None:
    assert [key for key, forms in texts.sentences(language).items() if not all(forms)] == []


def test_every_refusal_has_its_sentence() -> None:
    keys = texts.keys("en")
    assert [one for one in subclasses(Refused) if one.default_key not in keys] == []


def test_every_command_is_explained() -> None:
    assert {f"help.{name}" for name in WORDS} <= texts.keys("en")


@pytest.mark.parametrize(
    ("language", "zone", "said"),
    [
        ("pt-BR", "America/Sao_Paulo", "ter., 24/11, 15:00 (São Paulo)"),
        ("pt-BR", "Europe/Lisbon", "ter., 24/11, 18:00 (Lisboa)"),
        ("en", "Europe/Lisbon", "Tue 24 Nov, 18:00 (Lisbon)"),
        ("en", "UTC", "Tue 24 Nov, 18:00 (UTC)"),
        ("en", "Asia/Tokyo", "Wed 25 Nov, 03:00 (Tokyo)"),
    ],
)
def test_a_moment_has_weekday_date_time_and_zone(language: str, zone: str, said: str) -> None:
    assert Reader(language, zone).show(Moment(AFTERNOON)) == said


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (datetime(2026, 12, 9, 13, tzinfo=UTC), "qua., 09/12, 10:00–10:50 (São Paulo)"),
        (datetime(2027, 1, 12, 13, tzinfo=UTC), "ter., 12/01, 10:00–10:50 (São Paulo)"),
        (datetime(2027, 6, 9, 13, tzinfo=UTC), "qua., 09/06/2027, 10:00–10:50 (São Paulo)"),
        (datetime(2026, 1, 7, 13, tzinfo=UTC), "qua., 07/01, 10:00–10:50 (São Paulo)"),
    ],
)
def test_a_day_far_ahead_in_another_year_has_its_year(at: datetime, said: str) -> None:
    says = Reader("pt-BR", "America/Sao_Paulo").as_of(AFTERNOON)
    assert says.show(Span(at, at + timedelta(minutes=50))) == said


@pytest.mark.parametrize(
    ("other_zone", "said"),
    [
        (None, "ter., 24/11, 15:00–15:50 (São Paulo)"),
        ("America/Bahia", "ter., 24/11, 15:00–15:50 (São Paulo)"),
        ("Europe/Lisbon", "ter., 24/11, 15:00–15:50 (São Paulo; 18:00–18:50 em Lisboa)"),
        ("Asia/Tokyo", "ter., 24/11, 15:00–15:50 (São Paulo; qua., 25/11, 03:00–03:50 em Tóquio)"),
    ],
)
def test_the_other_s_clock_is_told_where_it_differs(other_zone: str | None, said: str) -> None:
    span = Span(SPAN.starts_at, SPAN.ends_at, other_zone)
    assert Reader("pt-BR", "America/Sao_Paulo").show(span) == said


@pytest.mark.parametrize(("hour", "which"), [(0, "antes de o relógio ser"), (1, "depois de o relógio ser")])
def test_a_time_that_the_clock_shows_twice_says_which(hour: int, which: str) -> None:
    """Lisbon's clock goes back from 2:00 to 1:00 on 25 October 2026, at 1:00 UTC."""
    at = datetime(2026, 10, 25, hour, 30, tzinfo=UTC)
    lisbon, span = Reader("pt-BR", "Europe/Lisbon"), Span(at, at + timedelta(minutes=10))
    assert lisbon.show(Moment(at)) == f"dom., 25/10, 01:30 (Lisboa, {which} atrasado)"
    assert lisbon.show(span) == f"dom., 25/10, 01:30–01:40 (Lisboa, {which} atrasado)"
    assert lisbon.show(replace(span, brief=True)) == f"dom., 25/10, 01:30–01:40 ({which} atrasado)"
    assert Reader("pt-BR", "America/Sao_Paulo").show(replace(span, brief=True)) == (
        f"sáb., 24/10, {21 + hour}:30–{21 + hour}:40"
    )


def test_parameters_survive_the_outbox() -> None:
    params = {
        "a": Moment(AFTERNOON),
        "b": SPAN,
        "c": Clocks((AFTERNOON,)),
        "d": Key("status.requested"),
        "e": "text",
        "f": 3,
        "g": Span(SPAN.starts_at, SPAN.ends_at, "Europe/Lisbon", brief=True),
    }
    assert texts.from_json(texts.to_json(params)) == params


def test_a_refusal_names_what_is_possible() -> None:
    reader = Reader("pt-BR", "America/Sao_Paulo")
    taken = SlotTaken(alternatives=[AFTERNOON, AFTERNOON + timedelta(hours=1)])
    assert texts.refusal(reader, taken) == ("Esse horário acabou de ser reservado. Livres no mesmo dia: 15:00, 16:00.")
    assert texts.refusal(reader, SlotTaken(alternatives=[])) == (
        "Esse horário acabou de ser reservado. Nada foi alterado."
    )


def test_a_missing_sentence_is_an_error_not_its_key() -> None:
    with pytest.raises(KeyError):
        Reader("en", "UTC").say("no.such.key")


def test_braces_that_people_wrote_stay_as_they_are() -> None:
    assert Reader("en", "UTC").say("news.reason", reason="{0.__class__}") == "Reason: {0.__class__}"

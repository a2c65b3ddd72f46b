"""From what people say to the instants they mean."""

import itertools
import os
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import phrases
from bot.commands import WORDS, Availability, Away, Series, parse
from bot.measures import Weekly
from bot.phrases import read, read_period
from bot.whens import Period, Ranges, Times, When, days_of, resolve
from supervision.errors import Refused

SAO_PAULO, LISBON, NEW_YORK = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Lisbon"), ZoneInfo("America/New_York")
MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # 09:00 in São Paulo
STRINGS = 100_000 if os.environ.get("VISAVIS_LONG") == "1" else 2_000
LIMIT = 0.1  # seconds of this thread's own time, so that a busy machine fails nobody


def meant(text: str, now: datetime = MONDAY, zone: ZoneInfo = SAO_PAULO) -> str:
    """What is understood, in short: times `a | b`, with `?` in front where one has to be asked; ranges `a-b`.

    A range of a whole day is told as the day, one of a minute as its time.
    """
    when = read(text)
    if when is None:
        return "not understood"
    try:
        found = resolve(when, now, zone, ahead=2)
    except Refused as refused:
        return refused.key
    if isinstance(found, Times):
        return ("? " if found.unsure else "") + " | ".join(f"{at.astimezone(zone):%d/%m/%y %H:%M}" for at in found.at)
    return ", ".join(told(since.astimezone(zone), until.astimezone(zone)) for since, until in found.ranges)


def told(since: datetime, until: datetime) -> str:
    if until - since == timedelta(minutes=1):
        return f"{since:%d/%m/%y %H:%M}"
    if until.date() > since.date():
        return f"{since:%d/%m/%y}" if f"{since:%H:%M}" == "00:00" else f"{since:%d/%m/%y %H:%M}-24:00"
    return f"{since:%d/%m/%y %H:%M}-{until:%H:%M}"


# What is meant, and the ways to say it on Monday, 23 November 2026, at nine in the morning.
WAYS = {
    "24/11/26 10:00": [
        "ter 10h",
        "ter 10:00",
        "ter. 10h",
        "terça 10h",
        "Terça-feira, 10h",
        "terça-feira às 10h",
        "na terça às 10:00",
        "3a feira 10h",
        "3ª-feira às 10h00",
        "esta terça 10h",
        "nesta terça, às 10h",
        "terça agora 10h",
        "tue 10:00",
        "Tue 10am",
        "TUESDAY 10 AM",
        "on tuesday at 10am",
        "this tuesday at 10:00",
        "tues 10 a.m.",
        "10h ter",
        "10:00 on tue",
        "às 10h de terça",
        "amanhã 10h",
        "amanha 10:00",
        "amanhã às 10h",
        "amanhã, 10h.",
        "amanhã às 10 da manhã",
        "amanhã dez da manhã",
        "amanhã de manhã às dez",
        "tomorrow 10:00",
        "tomorrow at 10am",
        "tomorrow at ten in the morning",
        "tomorrow morning at 10",
        "tmrw 10am",
        "24/11 10:00",
        "24/11 10h",
        "24/11 às 10h",
        "24/11, 10h",
        "24/11 10.00am",
        "dia 24/11 às 10h",
        "24/11/2026 10h",
        "24/11/26 10h",
        "24-11-2026 10:00",
        "24.11.2026 10:00",
        "24 / 11 10h",
        "2026-11-24 10:00",
        "2026-11-24T10:00",
        "2026-11-24t10:00:00",
        "2026/11/24 10:00",
        "24 nov 10:00",
        "24 nov. 10h",
        "24 de novembro às 10h",
        "24 de novembro de 2026 às 10h",
        "24 de nov 10h",
        "24nov 10h",
        "24/nov 10h",
        "24-nov-2026 10:00",
        "24th november 10:00",
        "the 24th of november at 10am",
        "24 November 2026, 10:00",
        "Nov 24 10am",
        "Nov 24th, 10:00",
        "november the 24th at 10 am",
        "November 24, 2026 10:00",
        "dia 24 às 10h",
        "no dia 24, 10h",
        "dia 24 deste mês 10h",
        "the 24th at 10am",
        "24th 10:00",
        "on the 24th of this month at 10:00",
        "ter 24/11 10h",
        "tue 24 nov 10:00",
        "terça, dia 24, às 10h",
        "tuesday the 24th 10am",
        "amanhã, terça, 10h",
        "tomorrow, tuesday, 10:00",
        "em 1 dia 10h",
        "in 1 day at 10am",
        "daqui a um dia às 10h",
        "in a day at 10:00",
        "para terça 10h",
        "for tuesday at 10:00",
        "terça 10h por favor",
        "tue 10:00 please",
        "ｔｅｒ　１０ｈ",
        "ter 10h00min",
        "tue @10:00",
        "tue 1000h",
        "coming tuesday 10:00",
        "terça 24 às 10h",
        "ter 24, 10h",
        "tue 24 at 10am",
        "amanhã 10h?",
        "amanhã 10h 🙂",
        "amanhã 10h pfv",
        "amanhã às 10h, pode ser?",
    ],
    "24/11/26 15:30": [
        "ter 15h30",
        "ter 15:30",
        "ter 15.30",
        "ter às 15h30min",
        "tue 3:30pm",
        "tue 3.30 pm",
        "tue at 3:30 p.m.",
        "tue half past 3 pm",
        "tue at 1530",
        "1530h ter",
        "terça às três e meia da tarde",
        "terça 3h30 da tarde",
        "terça à tarde, às 3:30",
        "tomorrow afternoon at half past three",
        "tomorrow at three thirty in the afternoon",
        "amanhã às 15 e 30",
    ],
    "24/11/26 03:00 | 24/11/26 15:00": [
        "ter às 3",
        "ter 3h",
        "terça às três",
        "terça 3 horas",
        "tue at 3",
        "tue 3 o'clock",
        "tue at three o’clock",
        "amanhã 3",
        "24/11 3",
        "24/11 às 3",
        "tomorrow 3",
        "3:00 tomorrow",
    ],
    "24/11/26 02:45 | 24/11/26 14:45": [
        "amanhã às quinze para as três",
        "amanhã 15 pras 3",
        "tomorrow at quarter to three",
    ],
    "24/11/26 14:45": ["tomorrow quarter to 3pm", "amanhã quinze para as três da tarde"],
    "24/11/26 10:15 | 24/11/26 22:15": ["tomorrow at quarter past ten", "amanhã às dez e quinze"],
    "24/11/26 12:00": [
        "ter meio-dia",
        "meio-dia de terça",
        "terça ao meio dia",
        "tomorrow at noon",
        "noon tomorrow",
        "tue 12 noon",
        "tue midday",
        "tue 12pm",
        "ter 12h",
        "ter 12:00",
    ],
    "24/11/26 12:30": ["terça meio-dia e meia", "tue 12:30", "tue 12:30pm"],
    "24/11/26 00:00 | 24/11/26 12:00": ["ter às 12"],
    "24/11/26 00:00": ["ter 0h", "ter 00:00", "tue 12am"],
    "25/11/26 00:00": ["ter 24h", "tue 24:00", "quarta 0h"],
    "? 24/11/26 00:00 | 25/11/26 00:00": ["ter meia-noite", "midnight on tuesday", "à meia noite de terça"],
    "24/11/26 20:00": [
        "terça às 8 da noite",
        "amanhã 8 à noite",
        "amanhã à noite 8h",
        "tomorrow at 8 at night",
        "tomorrow evening at eight",
        "tue 08:00 in the evening",
        "tue 8pm",
    ],
    "23/11/26 17:00": [
        "hoje 17h",
        "hoje às 17",
        "hj 17:00",
        "today 17:00",
        "today at 5pm",
        "this afternoon at 5",
        "esta tarde às cinco",
        "hoje 5 da tarde",
        "23/11 17h",
        "dia 23 17h",
    ],
    "23/11/26 20:00": ["tonight 8pm", "tonight at 8", "hoje à noite às oito", "esta noite 20h"],
    "25/11/26 14:00": [
        "depois de amanhã 14h",
        "depois de amanhã às duas da tarde",
        "day after tomorrow 2pm",
        "the day after tomorrow at 14:00",
        "quarta 14h",
        "wed 2pm",
        "em 2 dias 14h",
        "in two days at 2pm",
        "daqui a dois dias às 14h",
        "daqui 2 dias, 14h",
    ],
    "30/11/26 14:00": ["em uma semana 14h", "in a week 2pm", "daqui a uma semana 14h", "next week on monday 14:00"],
    "07/12/26 14:00": ["em duas semanas 14h", "in 2 weeks at 2 pm", "7/12 14h", "dia 7 do mês que vem 14h"],
    "? 24/11/26 14:00 | 01/12/26 14:00": [
        "next tue 2pm",
        "next tuesday at 14:00",
        "terça que vem 14h",
        "próxima terça 14h",
        "na próxima terça-feira às 14h",
        "terça seguinte às 2 da tarde",
    ],
    "01/12/26 14:00": [
        "tuesday next week 2pm",
        "next week tue 14:00",
        "terça da semana que vem 14h",
        "terça-feira da próxima semana às 14h",
        "semana que vem, terça, 14h",
        "1/12 14h",
        "1º de dezembro 14h",
        "primeiro de dezembro às duas da tarde",
        "dec 1 2pm",
        "1st of december 14:00",
        "dia 1º às 14h",
        "the 1st at 2pm",
        "ter 1/12 14h",
    ],
    "? 29/11/26 14:00 | 06/12/26 14:00": ["next sunday 2pm", "domingo que vem 14h", "sunday next week 14:00"],
    "? 23/11/26 14:00 | 30/11/26 14:00": ["segunda 14h", "monday 2pm", "2a feira 14h"],
    "30/11/26 08:00": ["segunda 08:00", "next monday 8am", "segunda que vem 08h"],
    "31/12/26 10:00": ["dia 31 10h", "31/12 10h", "31 dez 10h", "31 de dezembro às dez da manhã"],
    "01/02/27 10:00": ["1/2 10h", "1 fev 10h", "feb 1 10am", "01/02/2027 10:00"],
    "23/06/26 10:00": ["23/06 10h"],
    "24/05/27 10:00": ["24/05 10h"],
    "24/11/26": [
        "ter",
        "terça",
        "terça-feira",
        "tuesday",
        "na terça",
        "amanhã",
        "tomorrow",
        "24/11",
        "dia 24",
        "the 24th",
        "24 de novembro",
        "nov 24",
        "2026-11-24",
        "tue 24",
        "ter dia 24",
        "this tuesday",
    ],
    "24/11/26, 01/12/26": ["next tue", "terça que vem", "próxima terça"],
    "23/11/26 09:00-24:00": ["hoje", "today"],
    "23/11/26 09:00-24:00, 30/11/26": ["segunda", "mon"],
    "05/12/26": ["5/12", "dec 5", "5 de dezembro"],
    "24/11/26 12:00-19:00": ["terça à tarde", "tue afternoon", "amanhã de tarde", "tomorrow in the afternoon"],
    "28/11/26 00:00-12:00": ["sábado de manhã", "sat morning", "saturday in the morning"],
    "23/11/26 18:00-24:00": ["hoje à noite", "tonight"],
    "24/11/26 14:00-24:00": ["ter depois das 14h", "tue after 2pm", "amanhã a partir das 14", "after 2 tomorrow"],
    "24/11/26 00:00-10:00": [
        "ter antes das 10h",
        "tue before 10am",
        "amanhã cedo",
        "amanhã de manhã cedo",
        "terça bem cedo",
        "tomorrow early",
        "early tomorrow",
        "tue early in the morning",
        "amanhã no início da manhã",
    ],
    "24/11/26 13:00-19:00": ["amanhã depois do almoço", "logo depois do almoço, terça", "after lunch tomorrow"],
    "24/11/26 00:00-13:00": ["terça antes do almoço", "tue before lunch"],
    "24/11/26 12:00-14:00": ["terça na hora do almoço", "tomorrow at lunchtime"],
    "24/11/26 12:00-15:00": ["amanhã no começo da tarde", "tomorrow early afternoon"],
    "24/11/26 16:00-19:00": [
        "amanhã no fim da tarde",
        "terça no final da tarde",
        "tue late afternoon",
        "amanhã à tardinha",
    ],
    "24/11/26 16:00-20:00": ["amanhã no fim do dia", "end of the day tomorrow"],
    "24/11/26 15:00": ["amanhã às 3 depois do almoço"],
    "24/11/26 10:00-12:00": [
        "ter das 10 às 12",
        "ter das 10h às 12h",
        "ter entre 10h e 12h",
        "ter 10h-12h",
        "ter 10h às 12h",
        "ter 10h até 12h",
        "tue 10am to 12pm",
        "ter 10:00–12:00",
        "tue from 10am to 12pm",
        "tue between 10:00 and 12:00",
        "tue 10-12pm",
    ],
    "24/11/26 15:00-15:50": ["ter., 24/11, 15:00–15:50", "Tue 24 Nov, 15:00–15:50", "tue 3:00-3:50pm"],
    "24/11/26 02:00-04:00, 24/11/26 14:00-16:00": ["ter das 2 às 4", "tue between 2 and 4"],
    "24/11/26 14:00-16:00": ["ter das 2 às 4 da tarde", "tue 2-4pm", "tue from 2 to 4 in the afternoon"],
    "23/11/26 10:00, 24/11/26 10:00, 25/11/26 10:00": ["10h", "10:00", "às 10h", "10am", "at 10 am", "10 da manhã"],
    "23/11/26 15:00, 24/11/26 03:00, 24/11/26 15:00, 25/11/26 03:00, 25/11/26 15:00": ["às 3", "3h", "at three"],
    "24/11/26 08:00, 25/11/26 08:00": ["08:00", "8am"],
    "23/11/26 12:00-19:00, 24/11/26 12:00-19:00, 25/11/26 12:00-19:00": ["à tarde", "afternoon"],
    "24/11/26 01:00, 24/11/26 13:00, 01/12/26": ["ter 1", "tue 1"],  # the hour, or the first, which is a Tuesday
    "24/11/26 20:00, 08/12/26 18:00-24:00": ["terça 8 à noite"],
    "23/11/26 10:30": ["this week monday 10.30", "segunda desta semana 10h30"],
    "24/11/26 02:00 | 24/11/26 14:00": ["ter 2", "tue 2"],
}


@pytest.mark.parametrize(("text", "said"), [(text, said) for said, texts in WAYS.items() for text in texts])
def test_what_people_say_is_understood(text: str, said: str) -> None:
    assert meant(text) == said


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("11/24", "book.day_first"),
        ("11/24 10:00", "book.day_first"),
        ("tue 11/24 10:00", "book.day_first"),
        ("31/02 10:00", "book.no_such_time"),
        ("30/02", "book.no_such_time"),
        ("29/02 10h", "book.no_such_time"),
        ("0/11", "book.no_such_time"),
        ("24/0", "book.no_such_time"),
        ("99/99 10h", "book.no_such_time"),
        ("dia 32", "book.no_such_time"),
        ("dia 31 do mês que vem, sexta", "book.weekday_differs"),
        ("2026-13-01 10:00", "book.no_such_time"),
        ("0000-01-01 10:00", "book.no_such_time"),
        ("9999-12-31 24:00", "book.no_such_time"),
        ("ter 25/11 10h", "book.weekday_differs"),
        ("tomorrow, friday, 10:00", "book.weekday_differs"),
        ("tue 25", "book.weekday_differs"),
        ("22/11/2026", "refused.slot_past"),
        ("hoje de madrugada", "refused.slot_past"),
    ],
)
def test_a_day_or_time_that_cannot_be_is_refused(text: str, key: str) -> None:
    assert meant(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2",
        "24",
        "10 ter",
        "10 11",
        "25h",
        "ter 24:30",
        "ter 10:60",
        "ter 14am",
        "ter 15h da manhã",
        "ter 10h 11h",
        "ter 10h e 11h",
        "ter qua",
        "24/11 25/11",
        "24.11",
        "10.11",
        "ter 10-11",
        "10 to 12",
        "ter 12h às 10h",
        "10/11/12/13",
        "terças 10h",
        "in 2 hours",
        "daqui a 2 horas",
        "ter 10h por 2 horas",
        "ter 10h (Lisboa)",
        "ter 10h UTC",
        "2026-11-24T10:00Z",
        "ter por volta das 10",
        "às",
        "de",
        "ter dezembro",
        "ter do mês que vem",
        "ter 32 10h",
        "24/11 3 10h",
        "ter 10h " + "por favor " * 20,
        "①",
    ],
)
def test_what_is_no_time_is_not_understood(text: str) -> None:
    assert meant(text) == "not understood"


@pytest.mark.parametrize(
    ("now", "text", "said"),
    [
        ("2026-11-24 07:00", "ter 10h", "? 24/11/26 10:00 | 01/12/26 10:00"),
        ("2026-11-24 11:00", "ter 10h", "01/12/26 10:00"),
        ("2026-11-24 07:00", "next tue 10:00", "? 24/11/26 10:00 | 01/12/26 10:00"),
        ("2026-11-24 11:00", "next tue 10:00", "01/12/26 10:00"),
        ("2026-11-24 11:00", "esta terça 14h", "24/11/26 14:00"),
        ("2026-11-25 11:00", "next tue 10:00", "01/12/26 10:00"),
        ("2026-11-25 11:00", "esta terça 14h", "01/12/26 14:00"),
        ("2026-11-25 11:00", "tue this week 14:00", "24/11/26 14:00"),
        ("2026-11-29 11:00", "next tue 10:00", "? 01/12/26 10:00 | 08/12/26 10:00"),
        ("2026-11-29 11:00", "terça da semana que vem 10h", "? 01/12/26 10:00 | 08/12/26 10:00"),
        ("2026-11-24 23:30", "amanhã 10h", "25/11/26 10:00"),
        ("2026-12-20 11:00", "dia 19 10h", "19/01/27 10:00"),
        ("2026-12-20 11:00", "10/01 10h", "10/01/27 10:00"),
        ("2026-12-20 11:00", "19/12 10h", "19/12/26 10:00"),
        ("2027-01-31 11:00", "dia 30 10h", "30/03/27 10:00"),
        ("2027-12-20 11:00", "29/02 10h", "29/02/28 10:00"),
        ("2026-12-31 11:00", "semana que vem, sexta 10h", "08/01/27 10:00"),
    ],
)
def test_it_depends_on_the_day_it_is_said(now: str, text: str, said: str) -> None:
    assert meant(text, datetime.fromisoformat(now).replace(tzinfo=SAO_PAULO)) == said


@pytest.mark.parametrize("text", ["mês que vem", "no próximo mês", "next month", "dezembro de 2026", "December 2026"])
def test_the_month_to_come_is_all_its_days(text: str) -> None:
    assert meant(text) == meant("dezembro")


def test_this_month_is_what_is_left_of_it() -> None:
    assert meant("este mês") == meant("this month")
    assert meant("neste mês à noite", MONDAY + timedelta(days=6)) == "29/11/26 18:00-24:00, 30/11/26 18:00-24:00"


def test_a_week_and_a_month_are_all_their_days() -> None:
    week = meant("semana que vem")
    assert meant("next week") == week
    assert week == ", ".join(f"{day}/11/26" for day in (29, 30)) + ", " + ", ".join(
        f"0{day}/12/26" for day in range(1, 7)
    )
    assert meant("em dezembro") == ", ".join(f"{day:02}/12/26" for day in range(1, 32))
    assert meant("esta semana de manhã").startswith("23/11/26 09:00-12:00, 24/11/26 00:00-12:00, ")


def test_the_wall_clock_is_that_of_the_person() -> None:
    said = "24/11 10:00"
    assert meant(said, zone=LISBON) == meant(said, zone=NEW_YORK) == "24/11/26 10:00"
    assert instants(said, SAO_PAULO) == ["2026-11-24T13:00"]
    assert instants(said, LISBON) == ["2026-11-24T10:00"]
    assert instants(said, NEW_YORK) == ["2026-11-24T15:00"]


def instants(text: str, zone: ZoneInfo, now: datetime = MONDAY) -> list[str]:
    """The times meant, in UTC."""
    when = read(text)
    assert when is not None
    found = resolve(when, now, zone)
    assert isinstance(found, Times)
    return [f"{at.astimezone(UTC):%Y-%m-%dT%H:%M}" for at in found.at]


AUTUMN = datetime(2026, 10, 19, 12, 0, tzinfo=UTC)
SPRING = datetime(2027, 3, 8, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        (LISBON, "25/10 00:30", ["2026-10-24T23:30"]),
        (LISBON, "25/10 01:30", ["2026-10-25T00:30", "2026-10-25T01:30"]),
        (LISBON, "25/10 1:30am", ["2026-10-25T00:30", "2026-10-25T01:30"]),
        (LISBON, "25/10 02:00", ["2026-10-25T02:00"]),
        (LISBON, "24/10 10:00", ["2026-10-24T09:00"]),
        (LISBON, "25/10 10:00", ["2026-10-25T10:00"]),
        (SAO_PAULO, "25/10 01:30", ["2026-10-25T04:30"]),
        (SAO_PAULO, "24/10 22:30", ["2026-10-25T01:30"]),
        (NEW_YORK, "1/11 01:30", ["2026-11-01T05:30", "2026-11-01T06:30"]),
    ],
)
def test_a_time_that_the_clock_shows_twice_is_both(zone: ZoneInfo, text: str, utc: list[str]) -> None:
    assert instants(text, zone, AUTUMN) == utc
    assert meant(text, AUTUMN, zone).startswith("?") is (len(utc) == 2)


@pytest.mark.parametrize(
    ("zone", "text", "said"),
    [
        (LISBON, "28/03 00:59", "28/03/27 00:59"),
        (LISBON, "28/03 01:00", "book.clock_skips"),
        (LISBON, "28/03 01:30", "book.clock_skips"),
        (LISBON, "28/03 1:30am", "book.clock_skips"),
        (LISBON, "28/03 1h30", "28/03/27 13:30"),
        (LISBON, "28/03 02:00", "28/03/27 02:00"),
        (SAO_PAULO, "28/03 01:30", "28/03/27 01:30"),
        (SAO_PAULO, "27/03 22:30", "27/03/27 22:30"),
        (NEW_YORK, "14/03 01:59", "14/03/27 01:59"),
        (NEW_YORK, "14/03 02:30", "book.clock_skips"),
        (NEW_YORK, "14/03 at 2:30", "14/03/27 14:30"),
        (NEW_YORK, "14/03 03:00", "14/03/27 03:00"),
    ],
)
def test_a_time_that_the_clock_jumps_over_is_refused(zone: ZoneInfo, text: str, said: str) -> None:
    assert meant(text, SPRING, zone) == said


@pytest.mark.parametrize(
    ("zone", "now", "text", "since", "hours"),
    [
        (LISBON, AUTUMN, "25/10", "2026-10-24T23:00", 25),
        (LISBON, SPRING, "28/03", "2027-03-28T00:00", 23),
        (NEW_YORK, SPRING, "14/03", "2027-03-14T05:00", 23),
        (SAO_PAULO, SPRING, "28/03", "2027-03-28T03:00", 24),
        (ZoneInfo("America/Santiago"), datetime(2026, 9, 1, tzinfo=UTC), "6/9", "2026-09-06T04:00", 23),
        (ZoneInfo("America/Santiago"), datetime(2026, 9, 1, tzinfo=UTC), "5/9", "2026-09-05T04:00", 24),
    ],
)
def test_a_day_is_as_long_as_its_clock_makes_it(
    zone: ZoneInfo, now: datetime, text: str, since: str, hours: int
) -> None:
    begins = datetime.fromisoformat(since).replace(tzinfo=UTC)
    when = read(text)
    assert when is not None
    assert resolve(when, now, zone) == Ranges(((begins, begins + timedelta(hours=hours)),))


def days(text: str, now: datetime = MONDAY) -> str:
    """The first and the last day of a period, in short."""
    period = read_period(text)
    if period is None:
        return "not understood"
    try:
        first, last = days_of(period, now.astimezone(SAO_PAULO).date())
    except Refused as refused:
        return refused.key
    return f"{first:%d/%m/%y}" if first == last else f"{first:%d/%m/%y}-{last:%d/%m/%y}"


# Said on Monday, 23 November 2026.
PERIODS = {
    "20/12/26-10/01/27": [
        "20/12 to 10/1",
        "20/12 a 10/1",
        "20/12 - 10/1",
        "20/12-10/1",
        "20/12–10/01",
        "20/12 até 10/01",
        "20/12 ate o dia 10/1",
        "de 20/12 até 10/01",
        "de 20/12 a 10/1",
        "do dia 20/12 ao dia 10/1",
        "from 20/12 until 10/1",
        "from 20/12/2026 to 10/1/2027",
        "20/12/26 a 10/01/27",
        "between 20 dec and 10 jan",
        "entre 20 de dezembro e 10 de janeiro",
        "20 dez a 10 jan",
        "dec 20 to jan 10",
        "december 20th through january 10th",
        "2026-12-20 to 2027-01-10",
        "2026-12-20 - 2027-01-10",
        "20/12 to 10/1/2027",
        "20/12/2026 to 10/1",
    ],
    "20/12/26-27/12/26": [
        "20 a 27/12",
        "20-27/12",
        "de 20 a 27 de dezembro",
        "20 to 27 dec",
        "dia 20 a 27/12",
        "20/12 a 27",
        "20/12 até dia 27",
        "dom 20/12 a dom 27/12",
    ],
    "24/11/26-27/11/26": [
        "24 a 27/11",
        "dia 24 a dia 27",
        "24 a 27",
        "amanhã a sexta",
        "tomorrow to friday",
        "ter a sex",
        "tue - fri",
        "24/11 to fri",
    ],
    "24/12/26": ["24/12", "dia 24/12", "24 de dezembro", "dec 24", "24/12/2026", "2026-12-24", "24/12 a 24/12"],
    "24/11/26": ["amanhã", "tomorrow", "ter", "dia 24", "tue 24/11"],
    "01/12/26-31/12/26": ["dezembro", "december", "em dezembro"],
    "01/12/26-31/01/27": ["dezembro a janeiro", "december to january"],
    "01/11/26-30/11/26": ["novembro"],
    "29/02/28": ["29/02/2028"],
    "01/11/26-31/03/27": ["novembro a março", "november to march"],
    "24/11/26-24/03/27": ["24/11 a 24/3"],
    "period.backwards": [
        "10/1/2027 a 20/12/2026",
        "27/11/2026 to 24/11/2026",
        "depois de amanhã a amanhã",
        "4/12 a 1/12",
        "24/11 a 22/11",
        "28/12 to 24/12",
        "10/1 a 20/12",
        "dezembro a novembro",
        "1/3/2028 a 29/2",
    ],
    "period.past": ["20/11/2026 to 22/11/2026", "20/11", "22/11/2026"],
    "period.unclear": ["semana que vem", "next week", "segunda", "next tue", "24/11 a terça que vem"],
    "period.no_such_day": [
        "31/2",
        "20/12 a 32/12",
        "20/12 a 29/2",
        "20/12 a 31/2",
        "30/2 a 3/3",
        "9999-12-31 to 0000-01-01",
    ],
    "book.day_first": ["12/24"],
    "book.weekday_differs": ["ter 25/11", "seg 24/11 a sex 27/11"],
    "not understood": [
        "",
        "soon",
        "24/12 10h",
        "24/12 a",
        "20/12 a 22/12 a 24/12",
        "tarde",
        "de tarde a noite",
        "20",
        "10/1 to",
        "20/12 a 10/1 normal",
    ],
}


@pytest.mark.parametrize(("text", "said"), [(text, said) for said, texts in PERIODS.items() for text in texts])
def test_the_days_of_a_period_are_understood(text: str, said: str) -> None:
    assert days(text) == said


def test_a_period_without_years_is_the_next() -> None:
    december = datetime(2026, 12, 28, 12, tzinfo=UTC)
    assert days("20/12 to 10/1", december) == "20/12/26-10/01/27"
    assert days("2/1 to 10/1", december) == "02/01/27-10/01/27"
    assert days("28/2 to 29/2", december) == "period.no_such_day"


VOCABULARY = sorted(
    {word for text in itertools.chain.from_iterable(WAYS.values()) for word in text.split()}
    | {word for text in itertools.chain.from_iterable(PERIODS.values()) for word in text.split()}
    | set("weekly quinzenal mensal every other 10x skip until off normal folga yearly all 4821 cancel min".split())
    | set("notice place lengths automatic default 24h 9h-12h 9-17 14:00-18:00 mon-fri seg-sex weekdays toda".split())
    | {"0", "1", "9999", "0000", "32", "13", ":", "/", "-", "h", ".", "as", "e", "to", "que", "vem", "in", "em", "99"}
    | set(phrases.MONTHS)
)
SAID = st.one_of(
    st.text(max_size=600),
    st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join),
    st.lists(st.sampled_from(VOCABULARY), max_size=40).map("".join),
    st.text("0123456789:/.-hamp ", max_size=130),
)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@settings(max_examples=STRINGS, deadline=None, database=None)
@given(
    SAID,
    st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - its API
    st.sampled_from([SAO_PAULO, LISBON, NEW_YORK]),
)
def test_any_string_is_read_quickly_or_refused(text: str, now: datetime, zone: ZoneInfo) -> None:
    begun = time.thread_time()
    when = read(text)
    if when is not None:
        holds(when, now, zone)
    assert time.thread_time() - begun < LIMIT


@pytest.mark.faults
@pytest.mark.timeout(1800)
@settings(max_examples=STRINGS, deadline=None, database=None)
@given(
    st.sampled_from(sorted(WORDS)),
    SAID,
    st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - its API
)
def test_any_command_is_read_quickly_and_in_full(word: str, text: str, now: datetime) -> None:
    begun = time.thread_time()
    command = parse(f"!{word} {text}")
    assert command is not None
    if isinstance(command, Series) and command.until is not None:
        lasts(Period(command.until), now)
    if isinstance(command, Away) and command.period is not None:
        lasts(command.period, now)
    if isinstance(command, Availability) and command.change is not None and not isinstance(command.change, Weekly):
        lasts(command.change.period, now)
    assert time.thread_time() - begun < LIMIT


def lasts(period: Period, now: datetime) -> None:
    try:
        first, last = days_of(period, now.date())
    except Refused:
        return
    assert first <= last


def holds(when: When, now: datetime, zone: ZoneInfo) -> None:
    try:
        found = resolve(when, now, zone)
    except Refused:
        return
    if isinstance(found, Times):
        assert list(found.at) == sorted(set(found.at))
    else:
        assert all(since < until for since, until in found.ranges)


@pytest.mark.parametrize(
    "text", ["9" * 500, "ter " * 200, "1/" * 300, "10:00-" * 90, " " * 600, "٣" * 300, "ﷺ" * 500, "1 de " * 25]
)
def test_long_nonsense_takes_no_time(text: str) -> None:
    begun = time.thread_time()
    assert read(text) is None
    assert time.thread_time() - begun < LIMIT

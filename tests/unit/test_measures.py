"""Hours, lengths and policies, from words."""

from datetime import date

import pytest

from bot.measures import Change, Extra, Normal, Off, Value, Weekly, read_change, read_hours, read_length
from bot.whens import days_of

TODAY = date(2026, 11, 23)


def hours(text: str) -> str:
    """What is understood, in short."""
    match read_hours(text):
        case None:
            return "not understood"
        case Weekly(weekdays, ranges):
            return f"{''.join(map(str, weekdays))} {told(ranges)}".strip()
        case Normal(period):
            return f"normal {' '.join(f'{day:%d/%m}' for day in days_of(period, TODAY))}"
        case (Off(period, ranges, yearly) | Extra(period, ranges, yearly)) as change:
            kind = "off" if isinstance(change, Off) else "extra"
            shown = " ".join(f"{day:%d/%m}" for day in days_of(period, TODAY))
            return f"{kind} {shown} {told(ranges)}{' yearly' if yearly else ''}".strip()


def told(ranges: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"{a // 60}:{a % 60:02}-{b // 60}:{b % 60:02}" for a, b in ranges)


WAYS = {
    "01234 9:00-12:00 14:00-18:00": [
        "mon-fri 09:00-12:00 14:00-18:00",
        "mon to fri 9:00-12:00, 14:00-18:00",
        "monday through friday 9am-12pm 2pm-6pm",
        "weekdays 9-12 and 14-18",
        "seg-sex 9h-12h 14h-18h",
        "seg a sex 9h às 12h e 14h às 18h",
        "segunda a sexta das 9h às 12h e das 14h às 18h",
        "segunda-feira até sexta-feira 9:00–12:00 14:00–18:00",
        "dias úteis 9h-12h, 14h-18h",
        "2a a 6a 9-12 14-18",
    ],
    "0 9:00-12:00": [
        "seg 9h-12h",
        "segunda 9-12",
        "monday 9:00 to 12:00",
        "on mondays 9-12",
        "às segundas das 9 às 12",
    ],
    "024 9:30-12:15": ["mon, wed, fri 9:30-12:15", "seg qua sex 9h30-12h15", "seg, qua e sex das 9h30 às 12h15"],
    "0456 8:00-20:00": ["fri-mon 8-20", "sex a seg 8h-20h"],
    "0123456 8:00-20:00": ["every day 8-20", "todos os dias 8h-20h"],
    "5": ["sat off", "sábado folga", "saturdays off", "sab livre", "sábado fechado"],
    "56": ["weekend off", "fim de semana folga", "sat and sun off", "sáb e dom folga"],
    "0 0:00-24:00": ["mon 0:00-24:00"],
    "0 18:00-9:00": ["mon 18:00-9:00"],
    "1 14:00-18:00": ["tue 2-6pm", "ter 2pm-6pm"],
    "1 11:00-13:00": ["tue 11am-1pm", "tue 11-1pm"],
    "off 24/12 24/12": ["24/12 off", "24/12 folga", "dia 24 de dezembro folga", "dec 24 off", "2026-12-24 off"],
    "off 24/11 24/11": ["tue 24/11 off", "amanhã folga", "tomorrow off"],
    "off 20/12 10/01": ["20/12 to 10/1 off", "de 20/12 a 10/1 folga"],
    "off 20/12 24/12": ["20 a 24 de dezembro folga", "20-24/12 off"],
    "off 24/12 24/12 14:00-18:00": ["24/12 14:00-18:00 off", "24/12 14h-18h folga", "24/12 das 14h às 18h folga"],
    "off 25/12 25/12  yearly": ["25/12 off yearly", "25/12 off every year", "25/12 folga todo ano"],
    "extra 05/12 05/12 9:00-12:00": ["05/12 09:00-12:00", "5/12 9h-12h", "5/12 9am-12pm", "sat 5/12 das 9h às 12h"],
    "extra 05/12 06/12 9:00-12:00 13:00-15:00": ["5/12 a 6/12 9h-12h 13h-15h"],
    "normal 24/12 24/12": ["24/12 normal", "24/12 as usual", "dia 24/12 como normal"],
    "normal 20/12 10/01": ["20/12 to 10/1 normal", "20/12 - 10/01 normal"],
    "not understood": [
        "",
        "mon",
        "mon maybe",
        "off",
        "normal",
        "9:00-12:00",
        "24/12",
        "24/12 9-12",
        "24/12 9:00",
        "24/12 normal off",
        "24/12 9:00-12:00 normal",
        "24/12 9:00-12:00 please",
        "mon 9:00-25:00",
        "mon 9:00-12:60",
        "mon 9:00-12:00 14:00",
        "5/12 9:00-30:00",
        "mon-xyz 9-12",
    ],
}


@pytest.mark.parametrize(("text", "said"), [(text, said) for said, texts in WAYS.items() for text in texts])
def test_hours_are_understood(text: str, said: str) -> None:
    assert hours(text) == said


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("24h", 1440),
        ("24 horas", 1440),
        ("1h30", 90),
        ("1h 30min", 90),
        ("90 min", 90),
        ("2 dias", 2880),
        ("1 day", 1440),
        ("2w", 20160),
        ("1 semana", 10080),
        ("0", 0),
        ("off", 0),
        ("24", None),
        ("a while", None),
        ("-1h", None),
        ("1h90", None),
        ("", None),
    ],
)
def test_lengths_of_time_are_understood(text: str, minutes: int | None) -> None:
    assert read_length(text) == minutes


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("notice 24h", "notice", 1440),
        ("Antecedência: 2 dias", "notice", 2880),
        ("notice = 0", "notice", 0),
        ("cancelamento 48h", "cancel_notice", 2880),
        ("move 2h", "move_notice", 120),
        ("approval automatic", "approval", "automatic"),
        ("aprovação automática", "approval", "automatic"),
        ("approval ask", "approval", "ask"),
        ("approval default", "approval", None),
        ("lengths 50 90", "lengths", (50, 90)),
        ("duração 50 e 90 min", "lengths", (50, 90)),
        ("lengths 50, 60, 90", "lengths", (50, 60, 90)),
        ("lengths default", "lengths", None),
        ("day 6", "day_limit", 6),
        ("dia 6 por dia", "day_limit", 6),
        ("week off", "week_limit", None),
        ("semana sem limite", "week_limit", None),
        ("buffer 10", "buffer", (10,)),
        ("buffer 5 10", "buffer", (5, 10)),
        ("intervalo 0", "buffer", (0,)),
        ("mode online", "mode", "online"),
        ("modo presencial", "mode", "in_person"),
        ("place https://meet.example.org/{room}", "place", "https://meet.example.org/{room}"),
        ("local Rua Áurea, 3", "place", "Rua Áurea, 3"),
        ("local nenhum", "place", ""),
        ("horizon 60", "horizon", 60),
        ("horizonte 8 semanas", "horizon", 56),
        ("grid 30 min", "grid", 30),
        ("holidays BR-SP", "holidays", "BR SP"),
        ("feriados br", "holidays", "BR"),
        ("holidays off", "holidays", ""),
    ],
)
def test_a_policy_is_understood(text: str, name: str, value: Value) -> None:
    assert read_change(text) == Change(name, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "notice",
        "notice 24",
        "notice soon",
        "colour blue",
        "approval maybe",
        "lengths",
        "lengths fifty",
        "lengths 50 60 70 80 90 100 110 120 130 140 150",
        "day many",
        "buffer 1 2 3",
        "mode telepathy",
        "horizon 36h",
        "holidays everywhere",
    ],
)
def test_what_is_no_policy_is_not_understood(text: str) -> None:
    assert read_change(text) is None

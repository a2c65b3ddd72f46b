"""From text to a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.commands import (
    BY_WORD,
    WORDS,
    Appointments,
    Book,
    Cancel,
    Command,
    Confirm,
    Dashboard,
    Decline,
    Help,
    Incomplete,
    Language,
    Reschedule,
    Slots,
    Unknown,
    parse,
)
from bot.whens import Clock, Date, InDays, Month, MonthDay, Weekday, When

TEN = Clock((10 * 60,))


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("!help", Help()),
        ("!Ajuda", Help()),
        ("/help", Help()),
        ("//help", Help()),
        ("visavis help", Help()),
        ("Visavis: ajuda", Help()),
        ("@visavis, ajuda", Help()),
        ("!slots", Slots()),
        ("!horários", Slots()),
        ("!HORARIOS dezembro", Slots(12)),
        ("!slots March", Slots(3)),
        ("!slots março", Slots(3)),
        ("!slots em dezembro", Slots(None, When(Month(12)))),
        ("!horarios amanhã", Slots(None, When(InDays(1)))),
        ("!slots soon", Incomplete("slots")),
        ("!book", Book()),
        ("!book 2", Book(2)),
        ("!agendar #2", Book(2)),
        ("!book 0", Incomplete("book")),
        ("!book 24/11 10:00", Book(When(Date(24, 11), TEN))),
        ("!agendar 24/11 às 10h", Book(When(Date(24, 11), TEN))),
        ("!agendar 24/11/2026 10h30", Book(When(Date(24, 11, 2026), Clock((10 * 60 + 30,))))),
        ("!book 2026-11-24 10:00", Book(When(Date(24, 11, 2026), TEN))),
        ("!book 2026-11-24T10:00", Book(When(Date(24, 11, 2026), TEN))),
        ("!book ter 10h", Book(When(Weekday(1), TEN))),
        ("!book tue", Book(When(Weekday(1)))),
        ("!book 10h", Book(When(None, TEN))),
        ("!book 2️⃣", Book(2)),
        ("!book soon", Incomplete("book")),
        ("!book -1", Incomplete("book")),
        ("!confirm", Confirm()),
        ("!confirmar 3", Confirm(3)),
        ("!confirm yes", Incomplete("confirm")),
        ("!decline 1", Decline(1)),
        ("!recusar", Decline()),
        ("!cancel", Cancel()),
        ("!cancel 1", Cancel(1)),
        ("!cancelar 1 estou Doente", Cancel(1, "estou Doente")),
        ("!cancel all", Incomplete("cancel")),
        ("!reschedule", Reschedule()),
        ("!remarcar 1", Reschedule(1)),
        ("!remarcar 1 2", Reschedule(1, 2)),
        ("!reschedule 1 to 24/11 10:00", Reschedule(1, When(Date(24, 11), TEN))),
        ("!remarcar 1 para 3", Reschedule(1, 3)),
        ("!reschedule 24/11 10:00", Reschedule(None, When(Date(24, 11), TEN))),
        ("!reschedule tomorrow", Reschedule(None, When(InDays(1)))),
        ("!remarcar para amanhã", Reschedule(None, When(InDays(1)))),
        ("!remarcar 1 amanhã 10h", Reschedule(1, When(InDays(1), TEN))),
        ("!remarcar 2 para as 15", Reschedule(2, When(None, Clock((15 * 60,))))),
        ("!remarcar 1 10h", Reschedule(1, When(None, TEN))),
        ("!remarcar 1 24/11 10h", Reschedule(1, When(Date(24, 11), TEN))),
        ("!reschedule #1 → the 24th", Reschedule(1, When(MonthDay(24)))),
        ("!remarcar 3 dez 10h", Reschedule(None, When(Date(3, 12), TEN))),
        ("!remarcar 1 3 dez 10h", Reschedule(1, When(Date(3, 12), TEN))),
        ("!reschedule 1 soon", Incomplete("reschedule")),
        ("!reschedule soon", Incomplete("reschedule")),
        ("!appointments", Appointments()),
        ("!agenda", Appointments()),
        ("!painel", Dashboard()),
        ("!language", Language()),
        ("!idioma inglês", Language("en")),
        ("!language pt-BR", Language("pt-BR")),
        ("!language klingon", Incomplete("language")),
        ("!shrug", Unknown()),
        ("/me waves", Unknown()),
        ("!book 2\nand more", Book(2)),
        ("!a\x00b", Unknown()),
        ("!\ud800help\x07", Help()),
        ("!cancel 1 ill\x00\ud800", Cancel(1, "ill")),
        ("  !help  ", Help()),
    ],
)
def test_a_command_is_read(text: str, command: Command) -> None:
    assert parse(text) == command


@pytest.mark.parametrize(
    "text",
    ["", "hello", "see you at 10", "! important", "!!", "/ 2", "!2", "5/11 works for me", "visavis is down", "visavis"],
)
def test_ordinary_talk_is_no_command(text: str) -> None:
    assert parse(text) is None


def test_no_word_means_two_commands() -> None:
    assert len(BY_WORD) == sum(1 + len(declared.others) for declared in WORDS.values())


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    parse(text)
    parse("!book " + text)
    parse("!reschedule " + text)

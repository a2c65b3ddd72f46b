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
    When,
    parse,
)


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
        ("!slots soon", Incomplete("slots")),
        ("!book", Book()),
        ("!book 2", Book(2)),
        ("!agendar #2", Book(2)),
        ("!book 0", Incomplete("book")),
        ("!book 24/11 10:00", Book(When(24, 11, 10, 0))),
        ("!agendar 24/11 às 10h", Book(When(24, 11, 10, 0))),
        ("!agendar 24/11/2026 10h30", Book(When(24, 11, 10, 30, 2026))),
        ("!book 2026-11-24 10:00", Book(When(24, 11, 10, 0, 2026))),
        ("!book 2026-11-24T10:00", Book(When(24, 11, 10, 0, 2026))),
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
        ("!reschedule 1 to 24/11 10:00", Reschedule(1, When(24, 11, 10, 0))),
        ("!remarcar 1 para 3", Reschedule(1, 3)),
        ("!reschedule 24/11 10:00", Reschedule(None, When(24, 11, 10, 0))),
        ("!reschedule tomorrow", Incomplete("reschedule")),
        ("!appointments", Appointments()),
        ("!agenda", Appointments()),
        ("!painel", Dashboard()),
        ("!language", Language()),
        ("!idioma inglês", Language("en")),
        ("!language pt-BR", Language("pt-BR")),
        ("!language klingon", Incomplete("language")),
        ("!shrug", Unknown("shrug")),
        ("/me waves", Unknown("me")),
        ("!book 2\nand more", Book(2)),
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
    assert len(BY_WORD) == sum(1 + len(others) for others in WORDS.values())


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    parse(text)
    parse("!book " + text)
    parse("!reschedule " + text)

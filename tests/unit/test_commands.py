"""From text to a command."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.commands import (
    BY_WORD,
    WORDS,
    Accept,
    Appointments,
    Archive,
    Availability,
    Away,
    Book,
    Calendar,
    Cancel,
    Command,
    Confirm,
    Dashboard,
    Decline,
    Export,
    Help,
    Incomplete,
    Keep,
    Language,
    NoShow,
    Reschedule,
    Series,
    Settings,
    SignIn,
    Slots,
    TimeZone,
    Unknown,
    Waitlist,
    parse,
    sentence,
    shown_in_help,
)
from bot.measures import Change, Weekly
from bot.whens import Clock, Date, InDays, Month, MonthAhead, MonthDay, Period, Week, Weekday, When
from supervision import texts

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
        ("!help book", Help("book")),
        ("!ajuda !Série", Help("series")),
        ("!help me", Help()),
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
        ("!cancel no", Keep()),
        ("!CANCELAR NÃO", Keep()),
        ("!recusar não", Keep()),
        ("!cancelar 1 não", Keep()),
        ("!cancelar 1 não posso", Cancel(1, "não posso")),
        ("!cancel all", Incomplete("cancel")),
        ("!cancel 1 all", Cancel(1, None, "all")),
        ("!cancelar 2 série inteira", Cancel(2, None, "all")),
        ("!cancel 1 all: Ill for weeks", Cancel(1, "Ill for weeks", "all")),
        ("!cancel 1 only this: all of us are ill", Cancel(1, "all of us are ill", "one")),
        ("!cancelar 1 só esta: todos doentes", Cancel(1, "todos doentes", "one")),
        ("!cancel 1 all of us are ill", Incomplete("cancel_reason")),
        ("!cancel 2 everything", Incomplete("cancel_reason")),
        ("!cancel 2 every one", Incomplete("cancel_reason")),
        ("!cancelar 1 todas elas", Incomplete("cancel_reason")),
        ("!cancelar 1 tudo", Incomplete("cancel_reason")),
        ("!cancelar 1 2", Incomplete("cancel_reason")),
        ("!cancelar 1, 2 e 3", Incomplete("cancel")),
        ("!cancelar 1 e 2", Incomplete("cancel_reason")),
        ("!cancelar 1 2 clientes desmarcaram", Cancel(1, "2 clientes desmarcaram")),
        ("!ausencia 7212 adiar", Away(None, "7212")),
        ("!cancelar 1 todos doentes", Incomplete("cancel_reason")),
        ("!cancelar 1 essa semana não dá", Cancel(1, "essa semana não dá")),
        ("!cancel 1 this and following", Cancel(1, None, "following")),
        ("!cancelar 1 esta e as seguintes, Férias", Cancel(1, "Férias", "following")),
        ("!cancel 1 only this one", Cancel(1, None, "one")),
        ("!confirm 1 all", Confirm(1, "all")),
        ("!confirmar todas", Confirm(None, "all")),
        ("!decline 2 following", Decline(2, "following")),
        ("!accept", Accept()),
        ("!aceitar 2", Accept(2)),
        ("!aceitar 2 seguintes", Accept(2, "following")),
        ("!accept that", Incomplete("accept")),
        ("!noshow", NoShow()),
        ("!falta 3", NoShow(3)),
        ("!falta ontem", Incomplete("noshow")),
        ("!slots 90 min", Slots(None, None, 90)),
        ("!horarios dezembro 90min", Slots(12, None, 90)),
        ("!slots ter de 50 minutos", Slots(None, When(Weekday(1)), 50)),
        ("!book 2 90 min", Book(2, 90)),
        ("!agendar ter 10h por 90 minutos", Book(When(Weekday(1), TEN), 90)),
        ("!book tue 10h30 min", Book(When(Weekday(1), Clock((10 * 60 + 30,))))),
        ("!book in 30 min", Incomplete("book")),
        ("!reschedule 1 tue 10h all", Reschedule(1, When(Weekday(1), TEN), "all")),
        ("!remarcar 1 série inteira para ter 10h, pulando", Reschedule(1, When(Weekday(1), TEN), "all", skip=True)),
        ("!remarcar 1 esta e as seguintes", Reschedule(1, None, "following")),
        ("!series", Series()),
        ("!series 2 weekly 10x", Series(2, "weekly", 10)),
        ("!serie 2 10 vezes semanal", Series(2, "weekly", 10)),
        ("!serie ter 10h quinzenal até 30/06", Series(When(Weekday(1), TEN), "fortnightly", None, When(Date(30, 6)))),
        (
            "!series tue 10h every other week until 30/6/2027, skip",
            Series(When(Weekday(1), TEN), "fortnightly", None, When(Date(30, 6, 2027)), skip=True),
        ),
        ("!série toda terça às 10h 8x", Series(When(Weekday(1), TEN), "weekly", 8)),
        ("!series every other tuesday at 10:00 4 times", Series(When(Weekday(1), TEN), "fortnightly", 4)),
        ("!serie 24/11 10:00 mensal 6x 90 min", Series(When(Date(24, 11), TEN), "monthly", 6, minutes=90)),
        ("!serie 3 todos os meses até dezembro", Series(3, "monthly", None, When(Month(12)))),
        ("!series tue 10h weekly", Series(When(Weekday(1), TEN), "weekly")),
        ("!series tue 10h 10x", Series(When(Weekday(1), TEN), None, 10)),
        ("!series 2 weekly 10x until 30/6", Incomplete("series")),
        ("!series 2 weekly until soon", Incomplete("series")),
        ("!series 2 weekly until 10h", Incomplete("series")),
        ("!series soon", Incomplete("series")),
        ("!waitlist", Waitlist()),
        ("!waitlist tue", Waitlist(When(Weekday(1)))),
        ("!espera dezembro", Waitlist(When(Month(12)))),
        ("!waitlist tue 90 min", Waitlist(When(Weekday(1)), 90)),
        ("!waitlist off", Waitlist(off=True)),
        ("!espera sair ter", Waitlist(When(Weekday(1)), off=True)),
        ("!espera sim", Waitlist(take=True)),
        ("!waitlist no", Waitlist(take=False)),
        ("!waitlist soon", Incomplete("waitlist")),
        ("!away", Away()),
        ("!away 20/12 to 10/1", Away(Period(When(Date(20, 12)), When(Date(10, 1))))),
        ("!ausência 24/12", Away(Period(When(Date(24, 12))))),
        ("!away 4821 cancel", Away(None, "4821", "cancel")),
        ("!away 4821 move", Away(None, "4821", "propose")),
        ("!ausencia 0042 remarcar", Away(None, "0042", "propose")),
        ("!away 4821", Away(None, "4821")),
        ("!away 4821 please", Away(None, "4821")),
        ("!away 20/12 10h", Incomplete("away")),
        ("!settings", Settings()),
        ("!configurar 0042", Settings(None, "0042")),
        ("!settings notice 24h", Settings(Change("notice", 1440))),
        ("!settings place Sala 3, Rua Áurea", Settings(Change("place", "Sala 3, Rua Áurea"))),
        ("!settings notice 24", Incomplete("settings")),
        ("!settings colour blue", Incomplete("settings")),
        ("!settings notice", Incomplete("settings")),
        ("!availability", Availability()),
        ("!disponibilidade 0042", Availability(None, "0042")),
        ("!availability sat off", Availability(Weekly((5,)))),
        ("!availability sat", Incomplete("availability")),
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
        ("!agenda dezembro", Appointments(When(Month(12)))),
        ("!appointments 24/11", Appointments(When(Date(24, 11)))),
        ("!agenda depois", Incomplete("appointments")),
        ("!painel", Dashboard()),
        ("!calendar", Calendar()),
        ("!calendario", Calendar()),
        ("/Calendário", Calendar()),
        ("visavis calendar", Calendar()),
        ("!language", Language()),
        ("!idioma inglês", Language("en")),
        ("!language pt-BR", Language("pt-BR")),
        ("!language klingon", Incomplete("language")),
        ("!timezone", TimeZone()),
        ("!timezone Europe/Lisbon", TimeZone("Europe/Lisbon")),
        ("!fuso São Paulo", TimeZone("São Paulo")),
        ("!fuso 0042", TimeZone(None, "0042")),
        ("!login", SignIn()),
        ("!entrar", SignIn()),
        ("!export", Export()),
        ("!exportar 0042", Export("0042")),
        ("!export no", Export(refuse=True)),
        ("!exportar não", Export(refuse=True)),
        ("!export yes", Incomplete("export")),
        ("!archive", Archive()),
        ("!arquivar 1234", Archive("1234")),
        ("!arquivar hoje", Incomplete("archive")),
        ("!agendar: 2", Book(2)),
        ("!agendar2", Book(2)),
        ("!horários?", Slots()),
        ("!ajuda!", Help()),
        ("!horários ✅", Slots()),
        ("visavis: horários?", Slots()),
        ("!agendar o 2, por favor", Book(2)),
        ("!agendar nº 2", Book(2)),
        ("!book number 2!", Book(2)),
        ("!agendar 2 obrigada 🙏🏽", Book(2)),
        ("!agendar 2 obrigado e 3", Incomplete("book")),
        ("!cancelar 1️⃣", Cancel(1)),
        ("!cancelar 1.", Cancel(1)),
        ("!agendar ter 10h por 1h30", Book(When(Weekday(1), TEN), 90)),
        ("!agendar ter 10h por uma hora e meia", Book(When(Weekday(1), TEN), 90)),
        ("!book tue 10h for an hour", Book(When(Weekday(1), TEN), 60)),
        ("!horarios mês que vem", Slots(None, When(MonthAhead(1)))),
        ("!horarios janeiro de 2027", Slots(None, When(Month(1, 2027)))),
        ("!agenda da semana", Appointments(When(Week(0)))),
        ("!serie terças 10h semanal 4x", Series(When(Weekday(1), TEN), "weekly", 4)),
        ("!ausencia férias 20/12 a 10/1", Away(Period(When(Date(20, 12)), When(Date(10, 1))))),
        ("!idioma pt_BR", Language("pt-BR")),
        ("!horarois", Unknown("slots")),
        ("!confirmo", Unknown("confirm")),
        ("!cancela 1", Unknown("cancel")),
        ("!marcar 2", Unknown("book")),
        ("!Desmarcar", Unknown("cancel")),
        ("!sim", Unknown("accept")),
        ("!oi, tudo bem?", Unknown()),
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


EXAMPLES = [
    (language, name, example)
    for name, declared in WORDS.items()
    for language in ("en", "pt-BR")
    for example in declared.shown_examples(name, language)
]


@pytest.mark.parametrize(("language", "name", "example"), EXAMPLES)
def test_every_example_is_understood(language: str, name: str, example: str) -> None:
    said = parse(example)
    assert not isinstance(said, Unknown | Incomplete | None)
    assert BY_WORD[example[1:].split()[0]] == name
    assert (example.split()[0] == f"!{name}") is (language == "en")


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_every_sentence_of_help_and_of_what_was_not_understood_shows_words_that_are_understood(language: str) -> None:
    """What stands between a word and the next sign is what may follow it."""
    written = [
        (key, found)
        for key, forms in texts.sentences(language).items()
        if key.startswith(("help.", "incomplete."))
        for form in forms
        for found in re.findall(r"![^:;,.!()]+(?::\d\d)?", form)
    ]
    assert [(key, found) for key, found in written if isinstance(parse(_alone(found)), Unknown | None)] == []


def _alone(found: str) -> str:
    return found.split(" – ")[0].strip()


def test_help_shows_each_command_to_whom_it_is_for() -> None:
    common, named = ((shown_in_help(supervises=True, common=one)) for one in (True, False))
    assert common == (
        *("slots", "book", "appointments", "decline", "cancel", "reschedule", "dashboard", "help"),
        *("confirm", "away"),
    )
    assert named == (
        *("series", "accept", "calendar", "login", "language", "timezone", "export"),
        *("noshow", "availability", "settings", "archive"),
    )
    of_supervisee = [*shown_in_help(supervises=False, common=True), *shown_in_help(supervises=False, common=False)]
    assert {*WORDS} - {*of_supervisee} == {"confirm", "noshow", "away", "archive"}
    assert {*WORDS} - {*common, *named} == {"waitlist"}
    assert len({*of_supervisee}) == len(of_supervisee)


@pytest.mark.parametrize("supervises", [True, False])
@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_every_command_has_its_sentence(language: str, supervises: bool) -> None:
    said = texts.reader(language, "UTC")
    for name, declared in WORDS.items():
        line = said.say(sentence(name, supervises=supervises))
        assert line.startswith(f"- !{declared.word(name, language)}")
        assert len(line) <= 110


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    parse(text)
    for word in WORDS:
        parse(f"!{word} {text}")


@pytest.mark.parametrize("between", [".", "?!", " ,", ". please", " thanks,"])
@pytest.mark.parametrize("word", ["confirm", "cancel", "book", "reschedule", "no-show"])
def test_a_long_tail_behind_a_number_takes_no_time(word: str, between: str) -> None:
    begun = time.thread_time()
    parse(f"!{word} 1{between * 22}x")
    assert time.thread_time() - begun < 0.1

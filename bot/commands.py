"""What somebody writes to the bot, as one frozen value. Pure: no clock, no database, no Matrix.

A message is a command if it begins with `!`, `/` or `//` and a letter, or with the bot's name and a word of the
table below. English and Portuguese words both work always; accents and case do not matter.
"""

import re
import unicodedata
from dataclasses import dataclass

from bot.phrases import MONTHS, plain, read
from bot.whens import When


@dataclass(frozen=True)
class Help:
    pass


@dataclass(frozen=True)
class Slots:
    """`month` is 1 to 12, `when` another time that was named; None of both for the coming days."""

    month: int | None = None
    when: When | None = None


@dataclass(frozen=True)
class Book:
    """`what` is a number of the list shown last, or a time; None asks for the list."""

    what: int | When | None = None


@dataclass(frozen=True)
class Confirm:
    number: int | None = None


@dataclass(frozen=True)
class Decline:
    number: int | None = None


@dataclass(frozen=True)
class Cancel:
    number: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Reschedule:
    """`number` is the appointment's, `to` a slot's number or a time; what is None is asked for."""

    number: int | None = None
    to: int | When | None = None


@dataclass(frozen=True)
class Appointments:
    pass


@dataclass(frozen=True)
class Dashboard:
    pass


@dataclass(frozen=True)
class Language:
    """`language` is one of ours, or None where none was named."""

    language: str | None = None


@dataclass(frozen=True)
class Unknown:
    """It looks like a command, but the word is none of ours. It is not kept: it may be the start of a sentence."""


@dataclass(frozen=True)
class Incomplete:
    """The word is ours; what follows it makes no sense. `name` is the command's English word."""

    name: str


Command = (
    Help
    | Slots
    | Book
    | Confirm
    | Decline
    | Cancel
    | Reschedule
    | Appointments
    | Dashboard
    | Language
    | Unknown
    | Incomplete
)

# The one declaration of every command: its English word, its other words, and who it is for. `!help` lists them
# in this order; their sentences are `help.<word>` in the catalogues.
WORDS: dict[str, tuple[str, ...]] = {
    "help": ("ajuda",),
    "slots": ("horarios", "horario"),
    "book": ("agendar",),
    "confirm": ("confirmar",),
    "decline": ("recusar",),
    "cancel": ("cancelar",),
    "reschedule": ("remarcar",),
    "appointments": ("agenda",),
    "dashboard": ("painel",),
    "language": ("idioma",),
}
BY_WORD = {word: name for name, others in WORDS.items() for word in (name, *others)}

LANGUAGES = {
    "pt": "pt-BR",
    "pt-br": "pt-BR",
    "portugues": "pt-BR",
    "portuguese": "pt-BR",
    "en": "en",
    "english": "en",
    "ingles": "en",
}
NUMBER = re.compile(r"#?(\d{1,3})", re.ASCII)
TARGET = re.compile(r"^(?:(?:para|pra|to)\b|->|→) *")
LONGEST = 500


def parse(text: str, bot_name: str = "visavis") -> Command | None:
    """The command in a message, or None for ordinary talk. Control characters and broken ones are left out."""
    text = "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs")).strip()
    prefixed = re.match(r"(?:!|//?)(?=[^\W\d_])", text)
    if prefixed:
        words = text[prefixed.end() :]
    else:
        named = re.match(rf"@?{re.escape(bot_name)}[:,]? +", text, re.IGNORECASE)
        if not named:
            return None
        words = text[named.end() :].lstrip("!/")
    first, _, rest = words[:LONGEST].partition("\n")[0].strip().partition(" ")
    name = BY_WORD.get(plain(first))
    if name is None:
        # After the bot's mere name ordinary talk may follow: "Visavis is down again".
        return Unknown() if prefixed else None
    return _read(name, rest.strip())


def _read(name: str, rest: str) -> Command:
    argument = plain(rest)
    match name:
        case "help":
            return Help()
        case "slots":
            return _slots(argument)
        case "book":
            return _book(argument)
        case "confirm" | "decline":
            return _answer(name, argument)
        case "cancel":
            return _cancel(rest)
        case "reschedule":
            return _reschedule(argument)
        case "appointments":
            return Appointments()
        case "dashboard":
            return Dashboard()
        case _:
            return Language(LANGUAGES.get(argument)) if not argument or argument in LANGUAGES else Incomplete(name)


def _slots(argument: str) -> Command:
    if not argument:
        return Slots()
    month = MONTHS.get(argument)
    when = None if month else read(argument)
    return Slots(month, when) if month or when else Incomplete("slots")


def _book(argument: str) -> Command:
    if not argument:
        return Book()
    what = _number(argument) or read(argument)
    return Book(what) if what else Incomplete("book")


def _answer(name: str, argument: str) -> Command:
    number = _number(argument)
    if argument and number is None:
        return Incomplete(name)
    return Confirm(number) if name == "confirm" else Decline(number)


def _cancel(rest: str) -> Command:
    first, _, reason = rest.partition(" ")
    number = _number(first)
    if number is None:
        return Incomplete("cancel") if first else Cancel()
    return Cancel(number, reason.strip()[:300] or None)


def _reschedule(argument: str) -> Command:
    """`1 3`, `1 para ter 10h`, `ter 10h`; a number in front is the appointment's unless it begins a time: `3 dez`."""
    if not argument:
        return Reschedule()
    whole = read(TARGET.sub("", argument))
    first, _, rest = argument.partition(" ")
    number = _number(first)
    target = TARGET.sub("", rest)
    if number is None or (whole and target == rest):
        return Reschedule(None, whole) if whole else Incomplete("reschedule")
    if not target:
        return Reschedule(number)
    to = _number(target) or read(target)
    return Reschedule(number, to) if to else Incomplete("reschedule")


def _number(argument: str) -> int | None:
    found = NUMBER.fullmatch(argument)
    return int(found[1]) or None if found else None

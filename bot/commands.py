"""What somebody writes to the bot, as one frozen value. Pure: no clock, no database, no Matrix.

A message is a command if it begins with `!`, `/` or `//` and a letter, or with the bot's name and a word of the
table below. English and Portuguese words both work always; accents and case do not matter.
"""

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class When:
    """A wall-clock time in the writer's zone; without a year the next such day is meant."""

    day: int
    month: int
    hour: int
    minute: int
    year: int | None = None


@dataclass(frozen=True)
class Help:
    pass


@dataclass(frozen=True)
class Slots:
    """`month` is 1 to 12, or None for the coming days."""

    month: int | None = None


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
    """It looks like a command, but the word is none of ours."""

    word: str


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

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            ("janeiro", "january", "jan"),
            ("fevereiro", "february", "fev", "feb"),
            ("marco", "march", "mar"),
            ("abril", "april", "abr", "apr"),
            ("maio", "may", "mai"),
            ("junho", "june", "jun"),
            ("julho", "july", "jul"),
            ("agosto", "august", "ago", "aug"),
            ("setembro", "september", "set", "sep"),
            ("outubro", "october", "out", "oct"),
            ("novembro", "november", "nov"),
            ("dezembro", "december", "dez", "dec"),
        ),
        start=1,
    )
    for name in names
}
LANGUAGES = {
    "pt": "pt-BR",
    "pt-br": "pt-BR",
    "portugues": "pt-BR",
    "portuguese": "pt-BR",
    "en": "en",
    "english": "en",
    "ingles": "en",
}
CLOCK = r"(?P<hour>\d{1,2})(?:[:h](?P<minute>\d{2})|h)?"
TIMES = (
    re.compile(rf"(?P<day>\d{{1,2}})/(?P<month>\d{{1,2}})(?:/(?P<year>\d{{4}}))?,? +(?:as |at )?{CLOCK}"),
    re.compile(rf"(?P<year>\d{{4}})-(?P<month>\d{{2}})-(?P<day>\d{{2}})[t ] *(?:as |at )?{CLOCK}"),
)
NUMBER = re.compile(r"#?(\d{1,3})")
LONGEST = 500


def parse(text: str, bot_name: str = "visavis") -> Command | None:
    """The command in a message, or None for ordinary talk."""
    text = text.strip()
    prefixed = re.match(r"(?:!|//?)(?=[^\W\d_])", text)
    if prefixed:
        words = text[prefixed.end() :]
    else:
        named = re.match(rf"@?{re.escape(bot_name)}[:,]? +", text, re.IGNORECASE)
        if not named:
            return None
        words = text[named.end() :].lstrip("!/")
    first, _, rest = words[:LONGEST].partition("\n")[0].strip().partition(" ")
    name = BY_WORD.get(_plain(first))
    if name is None:
        # After the bot's mere name ordinary talk may follow: "Visavis is down again".
        return Unknown(first[:30]) if prefixed else None
    return _read(name, rest.strip())


def _read(name: str, rest: str) -> Command:
    argument = _plain(rest)
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
    return Slots(month) if month else Incomplete("slots")


def _book(argument: str) -> Command:
    if not argument:
        return Book()
    what = _number(argument) or _when(argument)
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
    if not argument:
        return Reschedule()
    when = _when(argument)
    if when:
        return Reschedule(None, when)
    first, _, target = argument.partition(" ")
    number = _number(first)
    if number is None:
        return Incomplete("reschedule")
    target = re.sub(r"^(para|to|->|→) *", "", target.strip())
    if not target:
        return Reschedule(number)
    to = _number(target) or _when(target)
    return Reschedule(number, to) if to else Incomplete("reschedule")


def _number(argument: str) -> int | None:
    found = NUMBER.fullmatch(argument)
    return int(found[1]) or None if found else None


def _when(argument: str) -> When | None:
    for pattern in TIMES:
        found = pattern.fullmatch(argument)
        if found:
            year = found["year"]
            return When(
                int(found["day"]),
                int(found["month"]),
                int(found["hour"]),
                int(found["minute"] or 0),
                int(year) if year else None,
            )
    return None


def _plain(text: str) -> str:
    """Lower case, no accents, single spaces."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).split())

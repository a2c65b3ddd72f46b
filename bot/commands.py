"""What somebody writes to the bot, as one frozen value. Pure: no clock, no database, no Matrix.

A message is a command if it begins with `!`, `/` or `//` and a letter, or with the bot's name and a word of the
table below. English and Portuguese words both work always; accents and case do not matter.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from bot import measures
from bot.measures import Change, Extra, Normal, Off, Weekly
from bot.phrases import MONTHS, WEEKDAY, plain, read, read_period
from bot.whens import Period, When

# Of a series: this one alone, this one and those after it, or all of it. None where nothing was said.
Scope = Literal["one", "following", "all"]
Frequency = Literal["weekly", "fortnightly", "monthly"]


@dataclass(frozen=True)
class Help:
    pass


@dataclass(frozen=True)
class Slots:
    """`month` is 1 to 12, `when` another time that was named; None of both for the coming days.

    `minutes` is the length that the times shall have, where one was named.
    """

    month: int | None = None
    when: When | None = None
    minutes: int | None = None


@dataclass(frozen=True)
class Book:
    """`what` is a number of the list shown last, or a time; None asks for the list. `minutes` is the length named."""

    what: int | When | None = None
    minutes: int | None = None


@dataclass(frozen=True)
class Confirm:
    number: int | None = None
    scope: Scope | None = None


@dataclass(frozen=True)
class Accept:
    number: int | None = None
    scope: Scope | None = None


@dataclass(frozen=True)
class Decline:
    number: int | None = None
    scope: Scope | None = None


@dataclass(frozen=True)
class Cancel:
    number: int | None = None
    reason: str | None = None
    scope: Scope | None = None


@dataclass(frozen=True)
class Keep:
    """`!cancel no`: what was declined in a calendar stands."""


@dataclass(frozen=True)
class Reschedule:
    """`number` is the appointment's, `to` a slot's number or a time; what is None is asked for.

    `skip` leaves those of a series where they are whose new time is taken.
    """

    number: int | None = None
    to: int | When | None = None
    scope: Scope | None = None
    skip: bool = False


@dataclass(frozen=True)
class NoShow:
    number: int | None = None


@dataclass(frozen=True)
class Series:
    """`what` is a number of the list shown last, or a time, of the first; what is None is asked for.

    It ends after `count` times or with the day `until`; `skip` leaves out the times that are taken.
    """

    what: int | When | None = None
    frequency: Frequency | None = None
    count: int | None = None
    until: When | None = None
    minutes: int | None = None
    skip: bool = False


@dataclass(frozen=True)
class Waitlist:
    """`when` is what is waited for; `off` ends that, or all; `take` answers what is on offer."""

    when: When | None = None
    minutes: int | None = None
    off: bool = False
    take: bool | None = None


@dataclass(frozen=True)
class Away:
    """Time off in a period; or, with the code asked for, what becomes of the appointments in it."""

    period: Period | None = None
    code: str | None = None
    then: Literal["cancel", "propose"] | None = None


@dataclass(frozen=True)
class Settings:
    """One policy to change, or the code that agrees to a change; None of both shows them."""

    change: Change | None = None
    code: str | None = None


@dataclass(frozen=True)
class Availability:
    """Hours to change, or the code that agrees to a change; None of both shows them."""

    change: Weekly | Off | Extra | Normal | None = None
    code: str | None = None


@dataclass(frozen=True)
class Appointments:
    """`when` is a time to look at; None for all that comes."""

    when: When | None = None


@dataclass(frozen=True)
class Calendar:
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
    | Series
    | Confirm
    | Accept
    | Decline
    | Cancel
    | Keep
    | Reschedule
    | NoShow
    | Waitlist
    | Away
    | Availability
    | Settings
    | Appointments
    | Calendar
    | Dashboard
    | Language
    | Unknown
    | Incomplete
)


@dataclass(frozen=True)
class Word:
    """A command's other words, and whom `!help` shows it to."""

    others: tuple[str, ...]
    to: Literal["both", "supervisor", "supervisee", "each"] = "both"


# The one declaration of every command by its English word. `!help` lists them in this order; their sentences are
# `help.<word>` in the catalogues, and `help.<word>_supervisor` where it says something else to "each".
WORDS: dict[str, Word] = {
    "help": Word(("ajuda",)),
    "slots": Word(("horarios", "horario")),
    "book": Word(("agendar",)),
    "series": Word(("serie",)),
    "waitlist": Word(("espera",), "supervisee"),
    "appointments": Word(("agenda",)),
    "confirm": Word(("confirmar",), "supervisor"),
    "accept": Word(("aceitar",)),
    "decline": Word(("recusar",)),
    "cancel": Word(("cancelar",)),
    "reschedule": Word(("remarcar",)),
    "noshow": Word(("falta",), "supervisor"),
    "away": Word(("ausencia",), "supervisor"),
    "availability": Word(("disponibilidade",), "each"),
    "settings": Word(("configurar",), "each"),
    "calendar": Word(("calendario",)),
    "dashboard": Word(("painel",)),
    "language": Word(("idioma",)),
}
BY_WORD = {word: name for name, declared in WORDS.items() for word in (name, *declared.others)}

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
TIMES = r"(?P<count>\d{1,6}) ?(?:x|vez(?:es)?|times?|supervisoes|sess(?:oes|ions))"
REPEATS: tuple[tuple[Frequency, str], ...] = (
    (
        "fortnightly",
        r"fortnightly|bi ?-?weekly|quinzenal(?:mente)?|every (?:other|second|2|two) weeks?"
        r"|(?:a )?cada (?:2|duas) semanas|(?:a )?cada (?:15|quinze) dias|semana sim,? semana nao"
        rf"|every (?:other|second) (?P<day>{WEEKDAY})",
    ),
    ("monthly", r"monthly|every month|each month|mensal(?:mente)?|todos? (?:os )?mes(?:es)?|(?:a )?cada mes"),
    (
        "weekly",
        r"weekly|every week|each week|semanal(?:mente)?|toda(?:s as)? semanas?|(?:a )?cada semana"
        rf"|(?:every|each|toda|todo|todas as|todos os) (?P<day>{WEEKDAY})s?",
    ),
)
FREQUENCIES = tuple((name, re.compile(rf"(?<!\S)(?:{said})(?!\w),?", re.ASCII)) for name, said in REPEATS)
COUNT = re.compile(rf"(?<!\S){TIMES}(?!\w),?", re.ASCII)
UNTIL = re.compile(r"(?<!\S)(?:until|till|ate)(?: o)? ", re.ASCII)
SKIP = re.compile(r"(?:^|[ ,;]+)(?:skip(?:ping)?|pulando|pular)(?=$|[ ,;.])", re.ASCII)
MINUTES = re.compile(
    r"(?:^|[ ,]+)(?:(?:por|for|de|of|durante|com) )?(?P<minutes>\d{1,3}) ?(?:min|mins|minutos?|minutes?)\.?$", re.ASCII
)
SCOPES: tuple[tuple[Scope, str], ...] = (
    (
        "following",
        r"(?:est[ea]|ess[ea]|this(?: one)?) (?:e|and) (?:[ao]s |the |all )?(?:following|seguintes|proxim[ao]s)"
        r"|(?:dest[ea]|dess[ea]) em diante|(?:[ao]s )?seguintes|following|onwards",
    ),
    ("one", r"(?:so|apenas|somente|only) (?:est[ea]|ess[ea]|this)(?: one)?|one|(?:just )?this one"),
    (
        "all",
        r"(?:a )?serie (?:inteira|toda)|toda a serie|(?:the )?(?:whole|entire) series|all(?: of them)?|tod[oa]s",
    ),
)
LEADING = tuple((name, re.compile(rf"(?:{said})(?=$|[ ,:;–-])", re.ASCII)) for name, said in SCOPES)
TRAILING = tuple((name, re.compile(rf"(?:^|[ ,]+)(?:{said})$", re.ASCII)) for name, said in SCOPES)
QUANTITY = re.compile(
    r"(?:(?:all|everything|every|each|both|tod[oa]s?|tudo|cada|amb[oa]s)(?!\w)"
    r"|(?:e|and|,|&)? ?#?\d+(?:[ ,e&]+#?\d+)*$)",
    re.ASCII,
)
APART = " ,:;–-"
CODE = re.compile(r"#?(?P<code>\d{4})(?: (?P<then>[a-z]+))?", re.ASCII)
THEN: dict[str, Literal["cancel", "propose"]] = {
    **dict.fromkeys(("cancel", "cancelar", "cancela", "cancele"), "cancel"),
    **dict.fromkeys(("move", "mover", "mova", "mudar", "reschedule", "remarcar", "propose", "propor"), "propose"),
}
ANSWERS: dict[str, type[Confirm | Accept | Decline]] = {"confirm": Confirm, "accept": Accept, "decline": Decline}
ENDS = frozenset({"off", "sair", "sai", "leave", "stop", "parar", "end"})
TAKES = {"sim": True, "yes": True, "quero": True, "nao": False, "no": False}
LONGEST = 700  # characters, so that a place that is too long is seen to be


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


def help_for(*, supervises: bool) -> tuple[str, ...]:
    """The sentences of `!help`, by their keys: what both can do, and apart from it what only this person can."""
    both = [f"help.{name}" for name, declared in WORDS.items() if declared.to == "both"]
    if not supervises:
        return (*both, *(f"help.{name}" for name, declared in WORDS.items() if declared.to in ("supervisee", "each")))
    own = [
        f"help.{name}_supervisor" if declared.to == "each" else f"help.{name}"
        for name, declared in WORDS.items()
        if declared.to in ("supervisor", "each")
    ]
    return *both, "help.head_supervisor", *own


def _read(name: str, rest: str) -> Command:
    argument = plain(rest)
    match name:
        case "help":
            return Help()
        case "slots":
            return _slots(argument)
        case "book":
            return _book(argument)
        case "series":
            return _series(argument)
        case "cancel" | "decline" if TAKES.get(argument) is False:
            return Keep()
        case "confirm" | "accept" | "decline":
            return _answer(name, argument)
        case "cancel":
            return _cancel(rest)
        case "reschedule":
            return _reschedule(argument)
        case "noshow":
            return _no_show(argument)
        case "waitlist":
            return _waitlist(argument)
        case "away":
            return _away(argument)
        case "settings":
            return _settings(rest)
        case "availability":
            return _availability(argument)
        case "appointments":
            return _appointments(argument)
        case "calendar":
            return Calendar()
        case "dashboard":
            return Dashboard()
        case _:
            return Language(LANGUAGES.get(argument)) if not argument or argument in LANGUAGES else Incomplete(name)


def _appointments(argument: str) -> Command:
    when = read(f"em {argument}" if argument in MONTHS else argument)
    return Incomplete("appointments") if argument and when is None else Appointments(when)


def _slots(argument: str) -> Command:
    argument, minutes = _take_minutes(argument)
    if not argument:
        return Slots(minutes=minutes)
    month = MONTHS.get(argument)
    when = None if month else read(argument)
    return Slots(month, when, minutes) if month or when else Incomplete("slots")


def _book(argument: str) -> Command:
    argument, minutes = _take_minutes(argument)
    if not argument:
        return Book(minutes=minutes)
    what = _number(argument) or read(argument)
    return Book(what, minutes) if what else Incomplete("book")


def _series(argument: str) -> Command:
    """`2 weekly 10x`, `ter 10h quinzenal até 30/06, pulando`: in any order but for the last day, which ends it."""
    argument, skips = SKIP.subn("", argument)
    argument, minutes = _take_minutes(argument)
    frequency: Frequency | None = None
    for name, pattern in FREQUENCIES:
        found = pattern.search(argument)
        if found:
            day = found.groupdict().get("day") or ""
            argument = f"{argument[: found.start()]}{day}{argument[found.end() :]}"
            frequency = name
            break
    counted = COUNT.search(argument)
    if counted:
        argument = argument[: counted.start()] + argument[counted.end() :]
    argument, last = _split_last(argument)
    argument, minutes = (argument, minutes) if minutes else _take_minutes(argument.strip())
    argument = " ".join(argument.split()).strip(APART)
    what = _number(argument) or read(argument)
    until = read(last) if last else None
    endless = until is not None and (until.day is None or until.time is not None)
    if (argument and what is None) or (last is not None and until is None) or endless or (counted and last):
        return Incomplete("series")
    return Series(what, frequency, int(counted["count"]) if counted else None, until, minutes, skips > 0)


def _split_last(argument: str) -> tuple[str, str | None]:
    """What stands before the last `until` and what behind it."""
    found = [*UNTIL.finditer(argument)]
    return (argument[: found[-1].start()], argument[found[-1].end() :].strip(APART)) if found else (argument, None)


def _answer(name: str, argument: str) -> Command:
    argument, scope = _take_scope(argument)
    number = _number(argument)
    if argument and number is None:
        return Incomplete(name)
    return ANSWERS[name](number, scope)


def _cancel(rest: str) -> Command:
    """`1`, `1 all`, `1 a reason`. Words for a part of the series count only right behind the number and alone, or with
    a comma or colon before the reason. What else begins with a quantity, or is a mere number, is asked back: it
    may mean more than one appointment.
    """
    first, _, reason = rest.partition(" ")
    number = _number(first)
    if number is None:
        return Incomplete("cancel") if first else Cancel()
    said = plain(reason)
    if TAKES.get(said) is False:  # no reason to cancel
        return Keep()
    for scope, pattern in LEADING:
        found = pattern.match(said)
        if found and (found.end() == len(said) or said[found.end() :].lstrip()[0] in APART):
            behind = re.split(r"[,:;–-]", reason, maxsplit=1)[1:]
            return Cancel(number, behind[0].strip()[:300] or None if behind else None, scope)
    if QUANTITY.match(said):
        return Incomplete("cancel_reason")
    return Cancel(number, reason.strip()[:300] or None)


def _reschedule(argument: str) -> Command:
    """`1 3`, `1 para ter 10h`, `ter 10h`; a number in front is the appointment's unless it begins a time: `3 dez`."""
    argument, skips = SKIP.subn("", argument)
    argument, scope = _take_scope(argument)
    skip = skips > 0
    if not argument:
        return Reschedule(None, None, scope, skip)
    whole = read(TARGET.sub("", argument))
    first, _, rest = argument.partition(" ")
    number = _number(first)
    if number is not None and scope is None:
        rest, scope = _take_scope(rest, first=True)
    target = TARGET.sub("", rest)
    if number is None or (whole and target == rest):
        return Reschedule(None, whole, scope, skip) if whole else Incomplete("reschedule")
    if not target:
        return Reschedule(number, None, scope, skip)
    to = _number(target) or read(target)
    return Reschedule(number, to, scope, skip) if to else Incomplete("reschedule")


def _no_show(argument: str) -> Command:
    number = _number(argument)
    return Incomplete("noshow") if argument and number is None else NoShow(number)


def _waitlist(argument: str) -> Command:
    """Nothing, a time, `off`, `off tue`, `yes`."""
    if argument in TAKES:
        return Waitlist(take=TAKES[argument])
    first, _, rest = argument.partition(" ")
    off = first in ENDS
    argument, minutes = _take_minutes(rest if off else argument)
    month = MONTHS.get(argument)
    when = read(f"em {argument}" if month else argument)
    return Incomplete("waitlist") if argument and when is None else Waitlist(when, minutes, off)


def _away(argument: str) -> Command:
    """`20/12 to 10/1`, or `4821 cancel`; a code with another word, or alone, is asked back what to do."""
    if not argument:
        return Away()
    found = CODE.fullmatch(argument)
    if found:
        then = THEN.get(found["then"] or "")
        return Away(None, found["code"], then)
    period = read_period(argument)
    return Away(period) if period else Incomplete("away")


def _settings(rest: str) -> Command:
    if not rest:
        return Settings()
    code = _code(rest)
    change = None if code else measures.read_change(rest)
    return Settings(change, code) if code or change else Incomplete("settings")


def _availability(argument: str) -> Command:
    if not argument:
        return Availability()
    code = _code(argument)
    change = None if code else measures.read_hours(argument)
    return Availability(change, code) if code or change else Incomplete("availability")


def _code(argument: str) -> str | None:
    found = CODE.fullmatch(argument)
    return found["code"] if found and not found["then"] else None


def _take_minutes(argument: str) -> tuple[str, int | None]:
    """A length at the end: `ter 10h 90 min`."""
    found = MINUTES.search(argument)
    return (argument[: found.start()], int(found["minutes"])) if found else (argument, None)


def _take_scope(argument: str, *, first: bool = False) -> tuple[str, Scope | None]:
    """The words for a part of a series, at the end or at the beginning."""
    for scope, pattern in LEADING if first else TRAILING:
        found = pattern.match(argument) if first else pattern.search(argument)
        if found:
            return (argument[found.end() :].lstrip(APART) if first else argument[: found.start()]), scope
    return argument, None


def _number(argument: str) -> int | None:
    found = NUMBER.fullmatch(argument)
    return int(found[1]) or None if found else None

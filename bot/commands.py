"""What somebody writes to the bot, as one frozen value. Pure: no clock, no database, no Matrix.

A message is a command if it begins with `!`, `/` or `//` and a letter, or with the bot's name and a word of the
table below. English and Portuguese words both work always; accents and case do not matter.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bot import allowances, measures
from bot.allowances import RoomChange
from bot.measures import Change, Extra, Normal, Off, Weekly
from bot.phrases import MONTHS, WEEKDAY, plain, read, read_period
from bot.whens import Period, When

# Of a series: this one alone, this one and those after it, or all of it. None where nothing was said.
Scope = Literal["one", "following", "all"]
Frequency = Literal["weekly", "fortnightly", "monthly"]


@dataclass(frozen=True)
class Help:
    """`name` is the command to explain, by its English word; None for the list of them."""

    name: str | None = None


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
    """One policy or setting of the room to change, or the code that agrees to a change; None of both shows them."""

    change: Change | RoomChange | None = None
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
class TimeZone:
    """`text` is the place as it was written, or None where none was; `code` agrees to what was asked."""

    text: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class SignIn:
    pass


@dataclass(frozen=True)
class Export:
    """To take the room home, with the code that agrees to it; `refuse` says no to what the other asked for."""

    code: str | None = None
    refuse: bool = False


@dataclass(frozen=True)
class Archive:
    """To close the room, with the code that agrees to it."""

    code: str | None = None


@dataclass(frozen=True)
class Unknown:
    """It looks like a command, but the word is none of ours. It is not kept: it may be the start of a sentence.

    `near` is the command that may have been meant, by its English word.
    """

    near: str | None = None


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
    | TimeZone
    | SignIn
    | Export
    | Archive
    | Unknown
    | Incomplete
)


@dataclass(frozen=True)
class Word:
    """All there is to know of a command.

    `others` are its other words, the Portuguese one that is shown first; `read` makes a value of what stands behind
    the word; `examples` are what may stand there, in English and in Portuguese; `to` is whom `!help` shows it to, and
    `common` whether with a sentence of its own (`help.<word>` in the catalogues, `help.<word>_supervisor` where it says
    something else to "each"), which `!help <word>` gives of every command.
    """

    others: tuple[str, ...]
    read: Callable[[str], Command]
    examples: tuple[tuple[str, ...], tuple[str, ...]]
    to: Literal["both", "supervisor", "supervisee", "each"] = "both"
    common: bool = False

    def is_for(self, *, supervises: bool) -> bool:
        return self.to in ("both", "each", "supervisor" if supervises else "supervisee")

    def word(self, name: str, language: str) -> str:
        """The word as it is shown in a language; `name` is the English one."""
        return name if language == "en" else self.others[0]

    def shown_examples(self, name: str, language: str) -> tuple[str, ...]:
        word = f"!{self.word(name, language)}"
        return tuple(f"{word} {behind}".strip() for behind in self.examples[0 if language == "en" else 1])


LANGUAGES = {
    "pt": "pt-BR",
    "pt-br": "pt-BR",
    "portugues": "pt-BR",
    "portuguese": "pt-BR",
    "en": "en",
    "english": "en",
    "ingles": "en",
    "pt_br": "pt-BR",
    "brasileiro": "pt-BR",
}
THANKS = r"(?:[.,!? ]|(?<=[.,!? ])(?:please|pls|por favor|pfv?|obrigad[oa]|thanks|thank you)(?!\w))*"
NUMBER = re.compile(rf"(?:(?:[oa]|the|n[or]?|numero|number|opcao|option)\.? )?#?(\d{{1,3}}){THANKS}", re.ASCII)
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
PLURAL = re.compile(
    r"\b(segunda|terca|quarta|quinta|sexta|sabado|domingo|(?:mon|tues|wednes|thurs|fri|satur|sun)day)s\b", re.ASCII
)
COUNT = re.compile(rf"(?<!\S){TIMES}(?!\w),?", re.ASCII)
UNTIL = re.compile(r"(?<!\S)(?:until|till|ate)(?: o)? ", re.ASCII)
SKIP = re.compile(r"(?:^|[ ,;]+)(?:skip(?:ping)?|pulando|pular)(?=$|[ ,;.])", re.ASCII)
MINUTES = re.compile(
    r"(?:^|[ ,]+)(?:(?:por|for|de|of|durante|com) )?(?P<minutes>\d{1,3}) ?(?:min|mins|minutos?|minutes?)\.?$", re.ASCII
)
HOURS = re.compile(
    r"(?:^|[ ,]+)(?:por|for|durante) (?P<hours>\d|uma?|one|an|duas|two) ?h(?:oras?|ours?|rs?)?"
    r"(?: ?(?:e |and )?(?:a )?(?P<minutes>meia|half|[0-5]\d)(?: ?min)?)?$",
    re.ASCII,
)
HOUR_WORDS = {"um": 1, "uma": 1, "one": 1, "an": 1, "duas": 2, "two": 2}
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
LONGEST_ZONE = 100
WORD_END = re.compile(r"[:,.;!?]+(?=[\s\d#]|$)|(?=[\d#])|\s")  # `!agendar: 2`, `!horários?`, `!book2`
LIKELY = 0.75  # difflib's ratio from which a word was meant for another: `!horarois`, `!confirmo`
# What people say who do not remember our word.
ALIKE = {
    word: name
    for name, words in {
        "help": "comandos menu commands",
        "slots": "livre livres disponiveis free",
        "book": "marcar reservar pedir request",
        "appointments": "supervisoes compromissos bookings",
        "accept": "sim yes ok",
        "decline": "nao no",
        "cancel": "desmarcar",
        "reschedule": "mudar mover trocar adiar move change",
        "away": "ferias folga vacation holidays",
        "settings": "anexos arquivos regras attachments files rules",
        "login": "senha password",
    }.items()
    for word in words.split()
}
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
    line = words[:LONGEST].partition("\n")[0].strip()
    end = WORD_END.search(line)
    first, rest = (line[: end.start()], line[end.end() :]) if end else (line, "")
    name = BY_WORD.get(plain(first))
    if name is None:
        # After the bot's mere name ordinary talk may follow: "Visavis is down again".
        return Unknown(_near(plain(first))) if prefixed else None
    return WORDS[name].read(rest.strip())


def _near(word: str) -> str | None:
    close = difflib.get_close_matches(word, BY_WORD, 1, LIKELY) if 3 < len(word) < 20 else []
    return ALIKE.get(word) or next((BY_WORD[one] for one in close), None)


def sentence(name: str, *, supervises: bool) -> str:
    """The key of what a command does, as it is said to this person."""
    return f"help.{name}_supervisor" if WORDS[name].to == "each" and supervises else f"help.{name}"


def shown_in_help(*, supervises: bool, common: bool) -> tuple[str, ...]:
    """The commands that `!help` explains to this person, or those that it only names; what is for both comes first."""
    found = [
        (declared.to != "both", name)
        for name, declared in WORDS.items()
        if declared.common is common and declared.is_for(supervises=supervises)
    ]
    return tuple(name for _, name in sorted(found, key=lambda one: one[0]))


def _help(rest: str) -> Command:
    return Help(BY_WORD.get(plain(rest).lstrip("!/")))


def _appointments(rest: str) -> Command:
    argument = plain(rest)
    when = read(f"em {argument}" if argument in MONTHS else argument)
    return Incomplete("appointments") if argument and when is None else Appointments(when)


def _slots(rest: str) -> Command:
    argument = plain(rest)
    argument, minutes = _take_minutes(argument)
    if not argument:
        return Slots(minutes=minutes)
    month = MONTHS.get(argument)
    when = None if month else read(argument)
    return Slots(month, when, minutes) if month or when else Incomplete("slots")


def _book(rest: str) -> Command:
    argument = plain(rest)
    argument, minutes = _take_minutes(argument)
    if not argument:
        return Book(minutes=minutes)
    what = _number(argument) or read(argument)
    return Book(what, minutes) if what else Incomplete("book")


def _series(rest: str) -> Command:
    """`2 weekly 10x`, `ter 10h quinzenal até 30/06, pulando`: in any order but for the last day, which ends it."""
    argument = PLURAL.sub(r"\1", plain(rest))
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


def _answer(name: str, rest: str) -> Command:
    argument = plain(rest)
    if name == "decline" and TAKES.get(argument) is False:
        return Keep()
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
    if TAKES.get(plain(rest)) is False:
        return Keep()
    first, _, reason = rest.partition(" ")
    number = None if "," in first else _number(plain(first))
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


def _reschedule(rest: str) -> Command:
    """`1 3`, `1 para ter 10h`, `ter 10h`; a number in front is the appointment's unless it begins a time: `3 dez`."""
    argument = plain(rest)
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


def _no_show(rest: str) -> Command:
    argument = plain(rest)
    number = _number(argument)
    return Incomplete("noshow") if argument and number is None else NoShow(number)


def _waitlist(rest: str) -> Command:
    """Nothing, a time, `off`, `off tue`, `yes`."""
    argument = plain(rest)
    if argument in TAKES:
        return Waitlist(take=TAKES[argument])
    first, _, rest = argument.partition(" ")
    off = first in ENDS
    argument, minutes = _take_minutes(rest if off else argument)
    month = MONTHS.get(argument)
    when = read(f"em {argument}" if month else argument)
    return Incomplete("waitlist") if argument and when is None else Waitlist(when, minutes, off)


def _away(rest: str) -> Command:
    """`20/12 to 10/1`, or `4821 cancel`; a code with another word, or alone, is asked back what to do."""
    argument = plain(rest)
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
    change = None if code else measures.read_change(rest) or allowances.read_change(rest)
    return Settings(change, code) if code or change else Incomplete("settings")


def _availability(rest: str) -> Command:
    argument = plain(rest)
    if not argument:
        return Availability()
    code = _code(argument)
    change = None if code else measures.read_hours(argument)
    return Availability(change, code) if code or change else Incomplete("availability")


def _language(rest: str) -> Command:
    argument = plain(rest)
    return Language(LANGUAGES.get(argument)) if not argument or argument in LANGUAGES else Incomplete("language")


def _time_zone(rest: str) -> Command:
    code = _code(rest)
    return TimeZone(None, code) if code else TimeZone(rest[:LONGEST_ZONE] or None)


def _export(rest: str) -> Command:
    argument = plain(rest)
    if TAKES.get(argument) is False:
        return Export(refuse=True)
    code = _code(argument)
    return Export(code) if code or not argument else Incomplete("export")


def _archive(rest: str) -> Command:
    code = _code(plain(rest))
    return Archive(code) if code or not rest else Incomplete("archive")


def _code(argument: str) -> str | None:
    found = CODE.fullmatch(argument)
    return found["code"] if found and not found["then"] else None


def _take_minutes(argument: str) -> tuple[str, int | None]:
    """A length at the end: `ter 10h 90 min`, `ter 10h por 1h30`."""
    found = HOURS.search(argument)
    if found:
        hours = HOUR_WORDS.get(found["hours"]) or int(found["hours"])
        minutes = {None: 0, "meia": 30, "half": 30}.get(found["minutes"])
        return argument[: found.start()], hours * 60 + (int(found["minutes"]) if minutes is None else minutes)
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


# The one declaration of every command, by its English word: the parser and `!help` come from it. `!help` shows them in
# this order.
WORDS: dict[str, Word] = {
    "slots": Word(
        ("horarios", "horario"),
        _slots,
        (("", "december", "tue 90 min"), ("", "dezembro", "ter 90 min")),
        common=True,
    ),
    "book": Word(
        ("agendar",),
        _book,
        (("2", "tue 10h", "24/11 10:00 90 min"), ("2", "ter 10h", "24/11 10:00 90 min")),
        common=True,
    ),
    "series": Word(
        ("serie",),
        _series,
        (
            ("2 weekly 10x", "tue 10h fortnightly until 30/6"),
            ("2 semanal 10x", "ter 10h quinzenal até 30/6"),
        ),
    ),
    "waitlist": Word(
        ("espera",),
        _waitlist,
        (("", "tue", "yes", "off"), ("", "ter", "sim", "sair")),
        "supervisee",
    ),
    "appointments": Word(
        ("agenda",),
        _appointments,
        (("", "december", "24/11"), ("", "dezembro", "24/11")),
        common=True,
    ),
    "confirm": Word(
        ("confirmar",),
        partial(_answer, "confirm"),
        (("1", "1 all"), ("1", "1 todas")),
        "supervisor",
        common=True,
    ),
    "accept": Word(("aceitar",), partial(_answer, "accept"), (("1", "1 all"), ("1", "1 todas"))),
    "decline": Word(("recusar",), partial(_answer, "decline"), (("1", "1 all"), ("1", "1 todas")), common=True),
    "cancel": Word(
        ("cancelar",),
        _cancel,
        (("1", "1 I am ill", "1 all"), ("1", "1 estou doente", "1 todas")),
        common=True,
    ),
    "reschedule": Word(
        ("remarcar",),
        _reschedule,
        (("1", "1 wed 10h", "1 2"), ("1", "1 qua 10h", "1 2")),
        common=True,
    ),
    "noshow": Word(("falta",), _no_show, (("", "1"), ("", "1")), "supervisor"),
    "away": Word(
        ("ausencia",),
        _away,
        (("20/12 to 10/1", "24/12", "4821 cancel"), ("20/12 a 10/1", "24/12", "4821 cancelar")),
        "supervisor",
        common=True,
    ),
    "availability": Word(
        ("disponibilidade",),
        _availability,
        (("", "mon-fri 9:00-12:00", "24/12 off"), ("", "seg-sex 9:00-12:00", "24/12 folga")),
        "each",
    ),
    "settings": Word(
        ("configurar",),
        _settings,
        (("", "notice 24h", "attachments no", "4821"), ("", "antecedencia 24h", "anexos nao", "4821")),
        "each",
    ),
    "calendar": Word(("calendario",), lambda _: Calendar(), (("",), ("",))),
    "dashboard": Word(("painel",), lambda _: Dashboard(), (("",), ("",)), common=True),
    "login": Word(("entrar",), lambda _: SignIn(), (("",), ("",))),
    "language": Word(("idioma",), _language, (("portuguese", "english"), ("português", "inglês"))),
    "timezone": Word(("fuso",), _time_zone, (("", "Lisbon", "America/Sao_Paulo"), ("", "Lisboa", "America/Sao_Paulo"))),
    "export": Word(("exportar",), _export, (("", "4821", "no"), ("", "4821", "não"))),
    "archive": Word(("arquivar",), _archive, (("", "4821"), ("", "4821")), "supervisor"),
    "help": Word(("ajuda",), _help, (("", "book"), ("", "agendar")), common=True),
}
BY_WORD = {word: name for name, declared in WORDS.items() for word in (name, *declared.others)}

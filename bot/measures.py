"""Hours, lengths of time and policies as people write them to the bot, in Portuguese and English alike. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from bot.phrases import WEEKDAY, WEEKDAYS, plain, read_period, spell
from bot.whens import Period, When

DAY = 24 * 60  # minutes
Hours = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Validity:
    """The first and the last day of the weekly hours; None where there is no such day."""

    since: When | None = None
    until: When | None = None


Value = int | str | None | tuple[int, ...] | Validity


@dataclass(frozen=True)
class Change:
    """A policy and what it shall be: minutes, days or numbers; None for no limit, or for what holds otherwise.

    `length` and `approval_for_all` are the supervisor's own; `lengths` and `approval` are of the pair alone.
    """

    name: str
    value: Value


@dataclass(frozen=True)
class Weekly:
    """All hours of these weekdays, 0 being Monday; `[from, to)` in minutes after midnight, none for a free day."""

    weekdays: tuple[int, ...]
    hours: Hours = ()


@dataclass(frozen=True)
class Off:
    """Time off: whole days, or these hours of each."""

    period: Period
    hours: Hours = ()
    yearly: bool = False


@dataclass(frozen=True)
class Extra:
    """Hours besides the weekly ones."""

    period: Period
    hours: Hours
    yearly: bool = False


@dataclass(frozen=True)
class Normal:
    """No exceptions any more: the weekly hours alone."""

    period: Period


TIME = r"(?P<{0}hour>\d{{1,2}})(?:(?:h:?|:)(?P<{0}minute>[0-5]\d)|(?P<{0}unit> ?hs?))?(?: ?(?P<{0}half>[ap]m))?"
RANGE = re.compile(
    r"(?:^|(?<=[ ,]))(?:(?:from|das|de|between|entre) (?:as )?)?"
    rf"{TIME.format('a_')} ?(?:-|to|ate as|ate|as|a|until|till) ?{TIME.format('b_')}(?![\w/.:-])",
    re.ASCII,
)
DAYS = {
    **{name: (number,) for name, number in WEEKDAYS.items()},
    **dict.fromkeys(("weekdays", "dias uteis", "dias de semana"), tuple(range(5))),
    **dict.fromkeys(("every day", "daily", "todos os dias", "todo dia", "diariamente"), tuple(range(7))),
    **dict.fromkeys(("weekend", "weekends", "fim de semana", "fins de semana", "finais de semana"), (5, 6)),
}
NAMED = "|".join(sorted(map(re.escape, DAYS), key=len, reverse=True))
ONE_DAY = re.compile(
    rf"(?:(?:on|n?[ao]s?|every|todas? as|toda|e|and) )*(?P<day>{NAMED})s?(?: feiras?)?(?!\w)", re.ASCII
)
HYPHEN = re.compile(rf"(?<!\w)({WEEKDAY})s? ?- ?(?=(?:{WEEKDAY})s?(?!\w))", re.ASCII)
THROUGH = re.compile(r"(?:to|a|ate(?: a)?|through|thru|-) ", re.ASCII)
OFF = re.compile(r"(?:^| )(?:off|folga|livre|fechad[oa]|closed|unavailable|indisponivel)$", re.ASCII)
NORMAL = re.compile(r"(?:^| )(?:como )?(?:normal|normalmente|usual|padrao|default|as usual)$", re.ASCII)
YEARLY = re.compile(r"(?:^| )(?:yearly|every year|todo ano|todos os anos|anual|anualmente)(?=$| )", re.ASCII)


def read_hours(text: str) -> Weekly | Off | Extra | Normal | None:
    """`mon-fri 9:00-12:00 14h-18h`, `sat off`, `24/12 off`, `5/12 9-12h`, `24/12 normal`; None for what is none."""
    said = spell(HYPHEN.sub(r"\1 to ", plain(text)))
    weekdays, rest = _weekdays(said)
    if weekdays:
        hours = _all_hours(rest)
        if hours or OFF.fullmatch(f" {rest}"):
            return Weekly(weekdays, hours)
    return _dated(said)


def _dated(said: str) -> Off | Extra | Normal | None:
    said, years = YEARLY.subn("", said)
    said, off = OFF.subn("", said)
    said, normal = NORMAL.subn("", said)
    found = [one for one in RANGE.finditer(said) if one["a_minute"] or one["b_minute"] or re.search("[hm]", one[0])]
    hours = tuple(map(_minutes_of, found))
    if found:
        said = said[: found[0].start()] if _all_hours(said[found[0].start() :]) else ""
    period = read_period(said.strip())
    if period is None or (normal and (off or hours)):
        return None
    if normal:
        return Normal(period)
    if off:
        return Off(period, hours, years > 0)
    return Extra(period, hours, years > 0) if hours else None


def _weekdays(said: str) -> tuple[tuple[int, ...], str]:
    """The weekdays that a text begins with, and what follows them."""
    found: list[int] = []
    through = False
    while one := ONE_DAY.match(said):
        named = DAYS[one["day"]]
        if through:
            named = tuple((found[-1] + step) % 7 for step in range(1, (named[0] - found[-1]) % 7 + 1))
        found += named
        said = said[one.end() :].lstrip(" ,:/")
        ahead = THROUGH.match(said)
        through = bool(ahead and ONE_DAY.match(said, ahead.end()))
        said = said[ahead.end() :] if ahead and through else said
    return tuple(sorted(set(found))), said


def _all_hours(said: str) -> Hours:
    """All ranges of a text that holds nothing else but them, or none."""
    rest = re.sub(r"(?:^| )(?:e|and|&|,)(?= |$)", "", RANGE.sub("", said)).strip(" ,")
    hours = tuple(map(_minutes_of, RANGE.finditer(said)))
    return () if rest or any(end > DAY for _, end in hours) else hours


def _minutes_of(found: re.Match[str]) -> tuple[int, int]:
    """As written, on the clock of twenty-four hours; `2-6pm` has both in the afternoon. It may run backwards."""
    since, until = (int(found[f"{end}_hour"]) * 60 + int(found[f"{end}_minute"] or 0) for end in "ab")
    halves = found["a_half"], found["b_half"]
    until = _on_the_day(until, halves[1])
    if halves[0] is None and halves[1] == "pm" and since + DAY // 2 < until:
        return since + DAY // 2, until
    return _on_the_day(since, halves[0]), until


def _on_the_day(minutes: int, half: str | None) -> int:
    return minutes if half is None else minutes % (DAY // 2) + (DAY // 2 if half == "pm" else 0)


NONE = frozenset({"off", "none", "no", "0", "nenhum", "nenhuma", "sem", "sem limite", "no limit", "desligado", "nao"})
DEFAULT = frozenset({"default", "padrao", "normal", "geral"})
LENGTH = re.compile(
    r"(?:(?P<days>\d{1,9}) ?(?:d|days?|dias?)|(?P<weeks>\d{1,9}) ?(?:w|weeks?|semanas?)"
    r"|(?P<hours>\d{1,9}) ?(?:h|hs|hrs?|hours?|horas?)(?: ?(?P<more>[0-5]?\d)(?: ?(?:m|min|mins|minutos?|minutes?))?)?"
    r"|(?P<minutes>\d{1,9}) ?(?:m|min|mins|minutos?|minutes?))",
    re.ASCII,
)


def read_length(text: str) -> int | None:
    """`24h`, `2 dias`, `90 min`, `1h30` in minutes, 0 for none; None where no unit is named."""
    if text in NONE:
        return 0
    found = LENGTH.fullmatch(text)
    if found is None:
        return None
    said = {name: int(number or 0) for name, number in found.groupdict().items()}
    return (said["weeks"] * 7 + said["days"]) * DAY + said["hours"] * 60 + said["more"] + said["minutes"]


def _limit(text: str) -> Value:
    found = re.fullmatch(r"(\d{1,9})(?: .{0,40})?", text, re.ASCII)
    return None if text in NONE else int(found[1]) if found else NOTHING


def _days(text: str) -> Value:
    found = re.fullmatch(r"(\d{1,9})(?: ?(?:d|days?|dias?))?", text, re.ASCII)
    if found:
        return int(found[1])
    minutes = read_length(text)
    return minutes // DAY if minutes and minutes % DAY == 0 else NOTHING


def _lengths(text: str) -> Value:
    if text in DEFAULT:
        return None
    numbers = re.sub(r" ?(?:min|mins|minutos?|minutes?|m)(?!\w)|,|(?<= )(?:e|and|ou|or)(?= )|/", " ", text).split()
    if not 1 <= len(numbers) <= 10 or not all(re.fullmatch(r"\d{1,9}", number, re.ASCII) for number in numbers):
        return NOTHING
    return tuple(int(number) for number in numbers)


def _buffer(text: str) -> Value:
    """One number is the buffer after an appointment; two are those before and after."""
    found = _lengths(text)
    return found if isinstance(found, tuple) and len(found) <= 2 else (0,) if text in NONE else NOTHING


def _approval(text: str) -> Value:
    for value, words in (
        ("automatic", ("automatic", "automatica", "automatico", "auto", "automatically")),
        ("ask", ("ask", "asks", "asked", "manual", "perguntar", "pedir", "pergunta", "pedido")),
    ):
        if text in words:
            return value
    return None if text in DEFAULT else NOTHING


def _mode(text: str) -> Value:
    if text in ("online", "on line", "on-line", "video", "remote", "remoto"):
        return "online"
    return "in_person" if text in ("in person", "in-person", "presencial", "presencialmente") else NOTHING


def _holidays(text: str) -> Value:
    """`BR`, `BR SP`, `br-sp`."""
    if text in NONE:
        return ""
    found = re.fullmatch(r"([a-z]{2,3})(?:[ /-]([a-z0-9]{1,6}))?", text, re.ASCII)
    return " ".join(code.upper() for code in found.groups() if code) if found else NOTHING


def _validity(text: str) -> Value:
    """`1/12 to 30/6`, `01/12 30/06`, `from 1/12`, `until 30/6`, `off`."""
    if text in NONE:
        return Validity()
    edge = EDGE.match(text)
    if edge:
        day = read_period(text[edge.end() :])
        if day is not None and day.last is None:
            return Validity(until=day.first) if edge["until"] else Validity(since=day.first)
    first, _, last = text.partition(" ")
    period = read_period(text)
    if period is None or period.last is None:
        period = read_period(f"{first} a {last}") or period
    return NOTHING if period is None or period.last is None else Validity(period.first, period.last)


def _length(text: str) -> Value:
    minutes = read_length(text)
    return NOTHING if minutes is None else minutes


EDGE = re.compile(
    r"(?:(?P<until>until|till|ate(?: o)?)|(?:from|since|desde|de|a partir de|starting)(?: dia)?) ", re.ASCII
)
FOR_ALL = re.compile(r" (?:for all|for everybody|for everyone|para tod[oa]s|em geral)$", re.ASCII)
NOTHING = "?"  # what was said is no such value
POLICIES: dict[str, tuple[str, Callable[[str], Value]]] = {
    "approval": ("approval aprovacao confirmation confirmacao", _approval),
    "answer": ("answer resposta reply prazo", _length),
    "offer": ("offer oferta", _length),
    "lengths": ("lengths length duration durations duracao duracoes", _lengths),
    "notice": ("notice antecedencia", _length),
    "cancel_notice": ("cancel cancelling canceling cancelamento cancelar", _length),
    "move_notice": ("move moving reschedule remarcar mudanca mudancas", _length),
    "day_limit": ("day daily dia", _limit),
    "week_limit": ("week weekly semana", _limit),
    "buffer": ("buffer break intervalo pausa", _buffer),
    "mode": ("mode modo modalidade", _mode),
    "place": ("place link local lugar", lambda text: text),
    "horizon": ("horizon horizonte", _days),
    "grid": ("grid grade", _length),
    "holidays": ("holidays holiday feriados feriado", _holidays),
    "valid": ("valid validity validade vigencia", _validity),
}
POLICY_WORDS = {word: name for name, (words, _) in POLICIES.items() for word in words.split()}


def read_change(text: str) -> Change | None:
    """`notice 24h`, `duração 50 90`, `aprovação automática`, `local Rua A, 1`; None where it is no policy or value."""
    first, _, said = text.partition(" ")
    name = POLICY_WORDS.get(plain(first).strip(":,="))
    said = said.strip(" :=")
    if name is None or not said:
        return None
    if name == "place":
        return Change(name, "" if plain(said) in NONE else said)
    if name in ("lengths", "approval") and FOR_ALL.search(plain(said)):
        return _for_all(name, FOR_ALL.sub("", plain(said)))
    value = POLICIES[name][1](plain(said))
    return None if value == NOTHING else Change(name, value)


def _for_all(name: str, said: str) -> Change | None:
    """The supervisor's one length, or her approval, of all pairs that have none of their own."""
    value = POLICIES[name][1](said)
    if value is None or value == NOTHING:
        return None
    if name == "approval":
        return Change("approval_for_all", value)
    return Change("length", value[0]) if isinstance(value, tuple) and len(value) == 1 else None

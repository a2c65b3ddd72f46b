"""Every sentence and date that a person reads: catalogues in `locales/`, rendered in their language and time zone.

A catalogue entry's `msgid` is a key such as `refused.slot_taken`; parameters stand in braces. Times are passed as
`Moment`, `Span` or `Day`, so that one stored notification can be read in any zone.
"""

import copy
import functools
import gettext
import io
import string
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import babel
from babel.dates import format_datetime, format_timedelta, get_timezone_location
from babel.lists import format_list
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from supervision.errors import Refused

LOCALES = Path(__file__).resolve().parent.parent / "locales"


@dataclass(frozen=True)
class Moment:
    """An instant, told as weekday, date, time and zone."""

    at: datetime


@dataclass(frozen=True)
class Span:
    """`[starts_at, ends_at)`, told in the reader's zone, and in `other_zone` too where the clocks differ.

    `brief` leaves the reader's own zone out, for lists under a heading that names it.
    """

    starts_at: datetime
    ends_at: datetime
    other_zone: str | None = None
    brief: bool = False


@dataclass(frozen=True)
class Clocks:
    """Several instants of one day, told as times alone."""

    at: tuple[datetime, ...]


@dataclass(frozen=True)
class Moments:
    """Several instants, each told as day and time, without the zone."""

    at: tuple[datetime, ...]


@dataclass(frozen=True)
class Minutes:
    """A length of time, told in the largest unit that fits: `90 min`, `2 h`, `2 days`."""

    count: int


@dataclass(frozen=True)
class Key:
    """Another sentence of the catalogue, put into this one."""

    key: str


Param = str | int | Moment | Moments | Span | Clocks | Minutes | Key

PATTERNS = {
    "pt-BR": {
        "day": "EEE, dd/MM",
        "day_of_year": "EEE, dd/MM/yyyy",
        "long": "EEEE, d 'de' MMMM",
        "long_of_year": "EEEE, d 'de' MMMM 'de' yyyy",
        "dated": "dd/MM/yyyy",
    },
    "en": {
        "day": "EEE d MMM",
        "day_of_year": "EEE d MMM yyyy",
        "long": "EEEE, d MMMM",
        "long_of_year": "EEEE, d MMMM yyyy",
        "dated": "d MMM yyyy",
    },
}
# What a rule of the supervisor's is counted in: so many minutes, or a mere number (0).
RULE_UNITS = {
    **dict.fromkeys(("length", "grid", "buffer_before", "buffer_after", "notice"), 1),
    **dict.fromkeys(("cancel_notice", "move_notice", "answer", "offer"), 1),
    "horizon": 24 * 60,
    **dict.fromkeys(("day_limit", "week_limit"), 0),
}
FAR = timedelta(days=60)  # a day so far ahead, in another year, is told with its year


class Reader:
    """Speaks to one person: `language` is `pt-BR` or `en`, `time_zone` an IANA name.

    Told `now`, it names the year of days that are far ahead in another one; without it, no day's.
    """

    now: datetime | None = None

    def __init__(self, language: str, time_zone: str) -> None:
        self.language = language
        self.time_zone = time_zone
        self.locale = babel.Locale.parse(language, sep="-")
        self.zone = zoneinfo.ZoneInfo(time_zone)

    def as_of(self, now: datetime | None) -> "Reader":
        """The same reader, who knows what year it is."""
        knowing = copy.copy(self)
        knowing.now = now
        return knowing

    def say(self, key: str, **params: object) -> str:
        """The sentence of that key. Raises KeyError where the catalogue or a parameter lacks it."""
        return _fill(_catalogue(self.language).gettext(key), key, {k: self.show(v) for k, v in params.items()})

    def say_count(self, key: str, count: int, **params: object) -> str:
        """The sentence in the plural form that `count` wants; the catalogue has `key` with a `msgid_plural`."""
        shown = {name: self.show(value) for name, value in params.items()}
        sentence = _catalogue(self.language).ngettext(key, key, count)
        return _fill(sentence, key, {"count": str(count), **shown})

    def show(self, value: object) -> str:
        match value:
            case Moment(at):
                return f"{self.day(at)}, {self.clock(at)} ({', '.join([self.city(), *self._which(at)])})"
            case Span():
                return self.span(value)
            case Clocks(instants):
                return ", ".join(self.clock(at) for at in instants)
            case Moments(instants):
                return "; ".join(f"{self.day(at)}, {self.clock(at)}" for at in instants)
            case Minutes(count):
                return self.duration(count)
            case Key(key):
                return self.say(key)
            case _:
                return str(value)

    def span(self, span: Span) -> str:
        """`ter., 24/11, 15:00–15:50 (São Paulo)`, with the other's local time behind it where it differs.

        Where the reader's clock shows the start twice, it is told which one is meant.
        """
        own = f"{self.day(span.starts_at)}, {self.clock(span.starts_at)}–{self.clock(span.ends_at)}"
        named = [*([] if span.brief else [self.city()]), *self._which(span.starts_at)]
        behind = [", ".join(named)] if named else []
        if span.other_zone and not same_clock(span.starts_at, self.zone, zoneinfo.ZoneInfo(span.other_zone)):
            other = reader(self.language, span.other_zone).as_of(self.now)
            theirs = f"{other.clock(span.starts_at)}–{other.clock(span.ends_at)}"
            if other.day(span.starts_at) != self.day(span.starts_at):
                theirs = f"{other.day(span.starts_at)}, {theirs}"
            behind.append(f"{theirs} {self.say('time.in_city', city=other.city())}")
        return f"{own} ({'; '.join(behind)})" if behind else own

    def _which(self, at: datetime) -> list[str]:
        """Whether a time that the clock shows twice is the first or the second; nothing of any other."""
        local = at.astimezone(self.zone)
        if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
            return []
        return [self.say("time.after_change" if local.fold else "time.before_change")]

    def day(self, at: datetime) -> str:
        return self._format(at, PATTERNS[self.language]["day_of_year" if self._is_far(at) else "day"])

    def long_day(self, at: datetime) -> str:
        return self._format(at, PATTERNS[self.language]["long_of_year" if self._is_far(at) else "long"])

    def day_of_year(self, at: datetime) -> str:
        """The weekday and the day, with the year however near that is."""
        return self._format(at, PATTERNS[self.language]["day_of_year"])

    def dated(self, at: datetime) -> str:
        """With its year, for what is long ago."""
        return self._format(at, PATTERNS[self.language]["dated"])

    def clock(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%H:%M")

    def duration(self, minutes: int) -> str:
        for key, size in (("time.days", 1440), ("time.hours", 60)):
            if minutes and minutes % size == 0:
                return self.say_count(key, minutes // size)
        return self.say_count("time.minutes", minutes)

    def ago(self, since: timedelta) -> str:
        """How long ago something was, in the largest unit that fits: `há 20 minutos`, `3 days ago`."""
        return format_timedelta(-since, granularity="minute", threshold=1.0, add_direction=True, locale=self.locale)

    def city(self) -> str:
        return _city(self.time_zone, self.language)

    def list_names(self, names: Sequence[str]) -> str:
        return format_list(names, locale=self.locale)

    def _is_far(self, at: datetime) -> bool:
        """Whether a day alone could be taken for that of this year. January seen from December cannot."""
        if self.now is None or at - self.now <= FAR:
            return False
        return at.astimezone(self.zone).year != self.now.astimezone(self.zone).year

    def _format(self, at: datetime, pattern: str) -> str:
        return format_datetime(at, pattern, tzinfo=self.zone, locale=self.locale)


@functools.lru_cache(maxsize=256)
def reader(language: str, time_zone: str) -> Reader:
    """The reader for a language and zone; it keeps nothing of whom it speaks to."""
    return Reader(language, time_zone)


def to_json(params: Mapping[str, object]) -> dict[str, Any]:
    """Parameters as JSON for the outbox; `from_json` reads them back."""
    return {name: _encode(value) for name, value in params.items()}


def from_json(params: Mapping[str, Any]) -> dict[str, Param]:
    return {name: _decode(value) for name, value in params.items()}


def keys(language: str) -> frozenset[str]:
    """Every key that a language's catalogues have."""
    return frozenset(_entries(language))


def placeholders(sentence: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in string.Formatter().parse(sentence) if name)


def sentences(language: str) -> dict[str, tuple[str, ...]]:
    """Each key's sentence, or its plural forms."""
    return _entries(language)


def _encode(value: object) -> Any:
    match value:
        case Moment(at):
            return {"moment": at.isoformat()}
        case Span(starts_at, ends_at, other_zone, brief):
            return {"span": [starts_at.isoformat(), ends_at.isoformat(), other_zone, brief]}
        case Clocks(instants):
            return {"clocks": [at.isoformat() for at in instants]}
        case Moments(instants):
            return {"moments": [at.isoformat() for at in instants]}
        case Minutes(count):
            return {"minutes": count}
        case Key(key):
            return {"key": key}
        case bool() | int() | str():
            return value
        case _:
            raise TypeError(f"no text parameter: {type(value).__name__}")


def _decode(value: Any) -> Param:
    match value:
        case {"moment": at}:
            return Moment(datetime.fromisoformat(at))
        case {"span": [starts_at, ends_at, other_zone, brief]}:
            return Span(datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at), other_zone, brief)
        case {"clocks": instants}:
            return Clocks(tuple(datetime.fromisoformat(at) for at in instants))
        case {"moments": instants}:
            return Moments(tuple(datetime.fromisoformat(at) for at in instants))
        case {"minutes": count}:
            return Minutes(count)
        case {"key": key}:
            return Key(key)
        case str() | int():
            return value
        case _:
            raise TypeError("no text parameter")


def _fill(sentence: str, key: str, params: dict[str, str]) -> str:
    if sentence == key:
        raise KeyError(key)
    return sentence.format_map(params) if "{" in sentence else sentence


def same_clock(at: datetime, one: zoneinfo.ZoneInfo, two: zoneinfo.ZoneInfo) -> bool:
    """Whether both zones' clocks show the same date and time at that instant."""
    return at.astimezone(one).replace(tzinfo=None) == at.astimezone(two).replace(tzinfo=None)


@functools.lru_cache(maxsize=1000)
def _city(time_zone: str, language: str) -> str:
    if time_zone in ("UTC", "Etc/UTC"):
        return "UTC"
    return get_timezone_location(
        zoneinfo.ZoneInfo(time_zone), locale=babel.Locale.parse(language, sep="-"), return_city=True
    )


@functools.cache
def _catalogue(language: str) -> gettext.GNUTranslations:
    """All of a language's `.po` files as one catalogue, read once."""
    catalogue = Catalog(locale=babel.Locale.parse(language, sep="-"))
    for path in sorted((LOCALES / language.replace("-", "_")).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=catalogue.locale):
                if message.id:
                    catalogue[message.id if isinstance(message.id, str) else message.id[0]] = message
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


@functools.cache
def _entries(language: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((LOCALES / language.replace("-", "_")).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file):
                if message.id:
                    key = message.id if isinstance(message.id, str) else message.id[0]
                    if key in found:
                        raise KeyError(f"{key} stands in two catalogues")
                    found[key] = (message.string,) if isinstance(message.string, str) else tuple(message.string or ())
    return found


def utc(at: datetime) -> datetime:
    """The same instant in UTC; a naive time is a bug."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC)


def refusal(reader: Reader, refused: Refused) -> str:
    """What a refusal says to this person."""
    key, params = refusal_line(refused)
    return reader.say(key, **params)


def refusal_line(refused: Refused) -> tuple[str, dict[str, Param]]:
    """A refusal as a key of the catalogue and the parameters of its sentence."""
    key = refused.key
    params: dict[str, Param] = {}
    if key == "refused.out_of_range" and refused.params["name"] in RULE_UNITS:
        return _out_of_range(str(refused.params["name"]), refused.params)
    for name, value in refused.params.items():
        match name, value:
            case "alternatives", list():
                if value:
                    key, params[name] = f"{key}_others", Clocks(tuple(value))
            case "clashes", list():
                params[name] = Moments(tuple(value))
            case "minutes", int():
                params[name] = Minutes(value)
            case "status", _:
                params[name] = Key(f"status.{value}")
            case _, str() | int():
                params[name] = value
    return key, params


def _out_of_range(name: str, bounds: Mapping[str, object]) -> tuple[str, dict[str, Param]]:
    """A rule by the words for it and its bounds in their unit; from 0 on, the upper one alone."""
    least, most = int(str(bounds["least"])), int(str(bounds["most"]))
    unit = RULE_UNITS[name]
    shown: dict[str, Param] = {
        "name": Key(f"rule.{name}"),
        "least": Minutes(least * unit) if unit else least,
        "most": Minutes(most * unit) if unit else most,
    }
    return ("refused.above_range" if least == 0 else "refused.out_of_range"), shown

"""Days and times as people say them, in Portuguese and English alike. Pure: no clock, no zone.

Dates are day first, as both languages of this product write them; with the year in front they are ISO 8601's. The
tables below are the whole grammar: what is said is rewritten to one spelling, then read phrase by phrase, and every
word has to belong to one.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bot.whens import (
    DAY,
    Clock,
    Date,
    Day,
    InDays,
    Month,
    MonthAhead,
    MonthDay,
    Period,
    Week,
    Weekday,
    When,
    Which,
    Window,
)

LONGEST = 120  # characters; nobody needs more to say a time
HALF_DAY = DAY // 2  # minutes


def plain(text: str) -> str:
    """Lower case, no accents, keycaps or emoji, single spaces."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in letters if not _is_mark(unicodedata.category(c))).split())


def _is_mark(category: str) -> bool:
    """Accents, pictures, and what joins or tints them."""
    return category[0] == "M" or category in ("So", "Sk", "Cf")


def read(text: str) -> When | None:
    """The day, the time or both that the words name, or None where they make no sense."""
    said = spell(text)
    if not 0 < len(said) <= LONGEST:
        return None
    parts = _parts(said)
    return _combine(parts) if parts else None


def read_period(text: str) -> Period | None:
    """`20/12 to 10/1`, `de 20 a 27 de dezembro`, `24/12`, `dezembro`: whole days, or None where they make no sense."""
    said = LEAD.sub("", spell(text))
    if not 0 < len(said) <= LONGEST or LEFT_OPEN.search(said):
        return None
    both = _first_and_last(said, UNTIL)
    if both is not None:
        return both
    one = _whole_days(said)
    return Period(one) if one is not None else _first_and_last(said, HYPHEN)


@dataclass(frozen=True)
class _DayPart:
    """The morning, the afternoon: a window of its own, and what chooses between 3:00 and 15:00."""

    since: int
    until: int


@dataclass(frozen=True)
class _Bare:
    """A number without a word that says what it counts."""

    number: int


Part = Day | Clock | Window | _DayPart | _Bare

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
            ("setembro", "september", "set", "sept", "sep"),
            ("outubro", "october", "out", "oct"),
            ("novembro", "november", "nov"),
            ("dezembro", "december", "dez", "dec"),
        ),
        start=1,
    )
    for name in names
}
WEEKDAYS = {
    name: number
    for number, names in enumerate(
        (
            ("segunda feira", "segunda", "seg", "2a feira", "2a", "monday", "mon"),
            ("terca feira", "terca", "ter", "3a feira", "3a", "tuesday", "tues", "tue"),
            ("quarta feira", "quarta", "qua", "4a feira", "4a", "wednesday", "weds", "wed"),
            ("quinta feira", "quinta", "qui", "5a feira", "5a", "thursday", "thurs", "thur", "thu"),
            ("sexta feira", "sexta", "sex", "6a feira", "6a", "friday", "fri"),
            ("sabado", "sab", "saturday", "sat"),
            ("domingo", "dom", "sunday", "sun"),
        )
    )
    for name in names
}
DAY_PARTS = {
    name: part
    for names, part in (
        (("manha", "morning"), _DayPart(0, 12 * 60)),
        (("madrugada",), _DayPart(0, 6 * 60)),
        (("tarde", "afternoon"), _DayPart(12 * 60, 19 * 60)),
        (("noite", "night"), _DayPart(18 * 60, DAY)),
        (("evening",), _DayPart(17 * 60, DAY)),
    )
    for name in names
}
# Each is as long as those who say it mean at the most: a list of times comes of it.
PARTS_OF_DAYS = (
    (r"(?:inicio|comeco) da manha", _DayPart(0, 10 * 60)),
    (r"(?:fim|final) da manha|late (?:in the )?morning", _DayPart(10 * 60, 12 * 60)),
    (r"(?:before|antes do) (?:almoco|lunch)", _DayPart(0, 13 * 60)),
    (r"(?:hora|horario) d[eo] almoco|lunch ?time", _DayPart(12 * 60, 14 * 60)),
    (r"(?:after|(?:logo )?depois do|apos o) (?:almoco|lunch)", _DayPart(13 * 60, 19 * 60)),
    (r"(?:inicio|comeco) da tarde|early (?:in the )?afternoon", _DayPart(12 * 60, 15 * 60)),
    (r"(?:(?:de )?manha |bem )?cedo(?: d[ae] manha)?|early(?: (?:in the )?morning)?", _DayPart(0, 10 * 60)),
    (r"(?:fim|final) d[ae] tarde|tardinha|late (?:in the )?afternoon", _DayPart(16 * 60, 19 * 60)),
    (r"(?:fim|final) do dia|end of (?:the )?day", _DayPart(16 * 60, 20 * 60)),
)
NUMBERS = {
    word: number
    for number, words in {
        1: "uma one primeiro",
        2: "duas dois two",
        3: "tres three",
        4: "quatro four",
        5: "cinco five",
        6: "seis six",
        7: "sete seven",
        8: "oito eight",
        9: "nove nine",
        10: "ten",
        11: "onze eleven",
        12: "doze twelve",
        13: "treze thirteen",
        14: "quatorze catorze fourteen",
        15: "quinze fifteen",
        16: "dezesseis dezasseis sixteen",
        17: "dezessete dezassete seventeen",
        18: "dezoito eighteen",
        19: "dezenove dezanove nineteen",
        20: "vinte twenty",
        30: "trinta thirty",
    }.items()
    for word in words.split()
}


def _names(table: Iterable[str]) -> str:
    return "|".join(sorted(table, key=len, reverse=True))


MONTH = _names(MONTHS)
WEEKDAY = _names(WEEKDAYS)
DAY_PART = _names(DAY_PARTS)
HOURS = r"(?:hs|hrs?|horas?|h|o'?clock)"
DATE = r"(?P<day>\d{1,2})"
ORDINAL = r"(?:st|nd|rd|th|o)"
YEAR = r"(?P<year>20\d\d)"
HOUR = r"(?P<hour>\d{1,2})"
HALF = r"(?: ?(?P<half>am|pm))?"
STOP = r"(?![\w:/.])"  # the number ends here and goes on in no other form
CLOCK = (
    rf"{HOUR}(?:(?:h:?|:)(?P<minute>[0-5]\d)(?::00)?(?: ?(?:min|m|hs|hrs|horas|h))?| ?(?P<unit>{HOURS}))?{HALF}{STOP}"
)
# A time at either end of a range, without the names that CLOCK gives its parts.
END = rf"\d{{1,2}}(?:(?:h:?|:)\d\d| ?{HOURS})?(?: ?[ap]m)?{STOP}"
TO = r"(?:-|ate as|ate|as|a|to|until|till|e as|e|and)"
NO_TIME = rf"(?! ?(?:{HOURS}|am|pm)(?!\w))(?![:/.]\d)"
BETWEEN = "(?: |/|-| de | of )"
OF_A_MONTH = r"(?: (?:(?P<next>d[eo] mes que vem|do proximo mes|of next month)|d?n?es[st]e mes|of this month))?"

# What is said in several ways is brought to one; the order matters.
SPELLINGS = tuple(
    (re.compile(pattern, re.ASCII), new)
    for pattern, new in (
        ("[\u2010-\u2015\u2212]", "-"),
        ("[\u2018\u2019]", "'"),
        (r"[,;]", " "),
        (r"(?<=[a-z])\.|[.!?]+$", ""),
        (r"(?<=[a-z])-(?=[a-z])|(?<=\da)-(?=feira)", " "),
        (r"(?<=\d-\d\d)t(?=\d)", " "),  # ISO 8601
        (r" ?/ ?", "/"),
        (r"@ ?", "at "),
        (r"  +", " "),
        (r"\b(as|at|pras) dez\b", r"\1 10"),  # elsewhere "dez" is December
        (r"\bdez(?= (?:e|horas|da) )", "10"),
        (r"\bdaqui (?:a )?", "in "),
        (r"\b(in|em) (?:an?|uma?) ", r"\1 1 "),
        (r"\bforty five\b|\bquarenta e cinco\b", "45"),
        (r"\bhj\b", "hoje"),
        (r"\bq vem\b", "que vem"),
        (r"\btonight\b", "hoje a noite"),
        (rf"\b(?:this|n?esta) (?=(?:{DAY_PART})\b)", "hoje "),
    )
)
NUMBER_WORD = re.compile(rf"\b(?:{_names(NUMBERS)})\b", re.ASCII)


LEAD = re.compile(
    r"^(?:(?:ferias|folga|recesso|viagem|vacation|holidays?|leave):? )?"
    r"(?:(?:from|between|entre|desde|de|d[ao]|dos?)(?: dias?)? |dias )?",
    re.ASCII,
)
UNTIL = re.compile(r" (?:to|a|ao|ate(?: o)?|until|till|through|e|and) (?:o |the )?| - ", re.ASCII)
HYPHEN = re.compile(r"-")
LEFT_OPEN = re.compile(r"(?: (?:to|ao?|ate|until|till|through|e|and)|-)$", re.ASCII)
CUTS = 8  # an ISO date has two hyphens of its own


def spell(text: str) -> str:
    """Numbers in digits, no commas, single spaces, one way to write what is written in several."""
    said = plain(text[: 2 * LONGEST])
    for pattern, new in SPELLINGS:
        said = pattern.sub(new, said)
    return NUMBER_WORD.sub(lambda found: str(NUMBERS[found[0]]), said).strip()


def _options(hour: str, minute: str | None, half: str | None, *, exact: bool) -> Clock | None:
    """The minutes that a time can mean: one where it is exact, has its half of the day, or is none of the twelve."""
    h, m = int(hour), int(minute or 0)
    if h > 24 or (h == 24 and m) or m > 59:
        return None
    if half == "am":
        return Clock((h % 12 * 60 + m,)) if h <= 12 else None
    if half == "pm":
        return Clock(((h % 12 + 12) * 60 + m,)) if 1 <= h <= 23 else None
    if exact or not 1 <= h <= 12:
        return Clock((h * 60 + m,))
    return Clock((h * 60 + m, (h + 12) % 24 * 60 + m))


def _written(found: re.Match[str]) -> Clock | None:
    """Two digits with a colon or an `h` are a 24-hour clock; `9:00`, `9h` and `at 10` can be either half's."""
    said = found.groupdict()
    unit = said.get("unit") or ""
    exact = len(said["hour"]) == 2 and bool(said.get("minute") or (unit and "clock" not in unit))
    return _options(said["hour"], said.get("minute"), said.get("half"), exact=exact)


def _clock(found: re.Match[str]) -> Clock | _Bare | None:
    if found["at"] or found["minute"] or found["unit"] or found["half"]:
        return _written(found)
    return _Bare(int(found["hour"]))


def _spoken(found: re.Match[str]) -> Clock | None:
    """`3 e meia`, `half past 3`, `at 2 30`."""
    minute = {"meia": "30", "half": "30", "quarter": "15"}.get(found["minute"], found["minute"])
    return _options(found["hour"], minute, found.groupdict().get("half"), exact=False)


def _to_the_hour(found: re.Match[str]) -> Clock | None:
    """`quarter to 3`, `15 para as 3`."""
    less = 15 if found["minute"] == "quarter" else int(found["minute"])
    clock = _options(found["hour"], None, found["half"], exact=False)
    return Clock(tuple((minutes - less) % DAY for minutes in clock.minutes)) if clock and less < 60 else None


def _dotted(found: re.Match[str]) -> Clock | None:
    """`10.30`; but `10.11` could be a day of November."""
    if not found["half"] and int(found["minute"]) <= 12:
        return None
    return _options(found["hour"], found["minute"], found["half"], exact=len(found["hour"]) == 2)


def _together(found: re.Match[str]) -> Clock | None:
    """`at 1430`, `1430h`."""
    return _options(found["hour"], found["minute"], None, exact=len(found["hour"]) == 2)


def _noon(found: re.Match[str]) -> Clock:
    return Clock((12 * 60 + (30 if found["half_past"] else 0),))


def _end(text: str) -> Clock | None:
    found = ONE_CLOCK.fullmatch(text)
    return _written(found) if found else None


def _range(found: re.Match[str]) -> Window | None:
    """`das 10 às 12`, `2-4pm`, `10:00–10:50`; `10-11` alone could be a day."""
    since, until = _end(found["since"]), _end(found["until"])
    if since is None or until is None or not ("lead" in found.groupdict() or re.search("[hm:]", found[0])):
        return None
    froms, tos = since.minutes, until.minutes
    if len(froms) == len(tos) == 2:
        spans = [(a, b) for a in froms for b in tos if 0 < b - a < HALF_DAY]
    elif len(tos) == 2:
        spans = [(froms[0], b) for b in sorted(tos) if b > froms[0]][:1]
    elif found["until"].endswith("m"):
        spans = [(a, tos[0]) for a in sorted(froms, reverse=True) if a < tos[0]][:1]
    else:
        spans = [(froms[0], tos[0])] if froms[0] < tos[0] else []
    return Window(tuple(sorted(spans))) if spans else None


def _before_or_after(found: re.Match[str]) -> Window | None:
    """`depois das 14`, `before 10`. Only a list of times comes of it, so `after 3` may be the afternoon's alone."""
    clock = _end(found["clock"])
    if clock is None:
        return None
    minutes = next((m for m in clock.minutes if 7 * 60 <= m < 19 * 60), clock.minutes[0])
    span = (minutes, DAY) if found["after"] else (0, minutes)
    return Window((span,)) if span[0] < span[1] else None


def _date(found: re.Match[str]) -> Date:
    year = found.groupdict().get("year")
    return Date(int(found["day"]), int(found["month"]), int(year) + (2000 if len(year) == 2 else 0) if year else None)


def _named_date(found: re.Match[str]) -> Date:
    return Date(int(found["day"]), MONTHS[found["name"]], int(found["year"]) if found["year"] else None)


def _month_day(found: re.Match[str]) -> MonthDay:
    ahead = 1 if found["next"] else 0 if found[0].endswith(("mes", "month")) else None
    return MonthDay(int(found["day"]), ahead)


def _month(found: re.Match[str]) -> Month:
    return Month(MONTHS[found["name"]], int(found["year"]) if found["year"] else None)


def _part_of(part: Part) -> Callable[[re.Match[str]], Part | None]:
    return lambda _: part


def _weekday(which: Which) -> Callable[[re.Match[str]], Weekday]:
    return lambda found: Weekday(WEEKDAYS[found["name"]], which)


def _in_days(found: re.Match[str]) -> InDays:
    return InDays(int(found["count"]) * (1 if found["unit"].startswith("d") else 7))


SAID: tuple[tuple[str, Callable[[re.Match[str]], Part | None]], ...] = (
    (rf"(?P<year>\d{{4}})(?P<sep>[-/])(?P<month>\d{{1,2}})(?P=sep){DATE}", _date),
    (rf"(?:dia |the )?{DATE}(?P<sep>[/.-])(?P<month>\d{{1,2}})(?P=sep)(?P<year>\d{{4}}|\d\d)", _date),
    (rf"(?:dia |the )?{DATE}/(?P<month>\d{{1,2}})(?!/)", _date),
    (rf"(?:dia |the )?{DATE}{ORDINAL}?{BETWEEN}?(?P<name>{MONTH})(?:{BETWEEN}{YEAR})?", _named_date),
    (rf"(?P<name>{MONTH}) (?:the )?{DATE}{ORDINAL}?(?!\w){NO_TIME}(?: (?:of )?{YEAR})?", _named_date),
    (rf"(?:dia|the) {DATE}{ORDINAL}?{OF_A_MONTH}", _month_day),
    (rf"{DATE}(?:st|nd|rd|th){OF_A_MONTH}", _month_day),
    (rf"(?:next|proxim[ao]) (?P<name>{WEEKDAY})", _weekday(Which.next)),
    (rf"(?P<name>{WEEKDAY}) (?:que vem|seguinte|proxim[ao](?! semana))", _weekday(Which.next)),
    (rf"(?:this coming|this|coming|n?es[st][ae]) (?P<name>{WEEKDAY})", _weekday(Which.this)),
    (rf"(?P<name>{WEEKDAY}) agora", _weekday(Which.this)),
    (rf"(?P<name>{WEEKDAY})", _weekday(Which.any)),
    (r"depois de amanha|(?:the )?day after tomorrow", lambda _: InDays(2)),
    (r"hoje|today", lambda _: InDays(0)),
    (r"amanha|tomorrow|tmrw?", lambda _: InDays(1)),
    (r"(?:in|em) (?P<count>\d{1,3}) (?P<unit>days?|dias?|weeks?|semanas?)", _in_days),
    (r"next week|semana (?:que vem|proxima|seguinte)|proxima semana", lambda _: Week(1)),
    (r"this week|(?:d|n)?es[st]a semana|da semana(?! (?:que vem|proxima|seguinte))", lambda _: Week(0)),
    (r"next month|mes (?:que vem|seguinte)|proximo mes", lambda _: MonthAhead(1)),
    (r"this month|(?:d|n)?es[st]e mes", lambda _: MonthAhead(0)),
    (rf"(?:(?:in|em) )?(?P<name>{MONTH})(?:{BETWEEN}{YEAR})?", _month),
    (rf"(?P<lead>from|das?|de|entre|between)(?: as?)? (?P<since>{END}) ?{TO} ?(?P<until>{END})", _range),
    (rf"(?P<since>{END}) ?- ?(?P<until>{END})", _range),
    (
        rf"(?P<since>\d{{1,2}}(?:(?:h:?|:)\d\d| ?{HOURS}| ?[ap]m)) (?:ate|ate as|as|a|to|until|till) (?P<until>{END})",
        _range,
    ),
    *((said, _part_of(part)) for said, part in PARTS_OF_DAYS),
    (
        r"(?:(?P<after>after|depois d[aeo]s?|a partir d[aeo]s?)|before|antes d[aeo]s?) "
        rf"(?P<clock>{END})(?: em diante| onwards)?",
        _before_or_after,
    ),
    (rf"(?:(?:as|at) )?{HOUR}(?: ?{HOURS})? e (?P<minute>meia|\d\d){STOP}", _spoken),
    (rf"(?:at )?(?P<minute>half|quarter|\d\d?) past {HOUR}{HALF}{STOP}", _spoken),
    (rf"at {HOUR} (?P<minute>00|15|30|45){HALF}(?! ?(?:{MONTH}|of|de)){STOP}", _spoken),
    (rf"(?:at )?(?P<minute>quarter) to {HOUR}{HALF}{STOP}", _to_the_hour),
    (rf"(?:as )?(?P<minute>\d\d?) (?:pras?|para as?) {HOUR}{HALF}{STOP}", _to_the_hour),
    (rf"(?:(?:as|at) )?{HOUR}\.(?P<minute>[0-5]\d){HALF}{STOP}", _dotted),
    (rf"(?:as|at) {HOUR}(?P<minute>[0-5]\d)(?: ?h(?:rs)?)?{STOP}", _together),
    (rf"(?P<hour>\d\d)(?P<minute>[0-5]\d) ?h(?:rs)?{STOP}", _together),
    (r"(?:(?:at|as|ao|12) )?(?:noon|midday|mid day|meio dia)(?P<half_past> e meia)?", _noon),
    (r"midnight|meia noite", lambda _: Clock((0, DAY))),  # of a day: where it begins, or where it ends
    (rf"{HOUR}(?= (?:d[ae]|in the|at) (?:{DAY_PART})\b)", _written),
    (rf"(?:(?P<at>as|at) )?{CLOCK}", _clock),
    (rf"(?:(?:d[ae]|pela|a|na|in the|at) )?(?P<name>{DAY_PART})", lambda found: DAY_PARTS[found["name"]]),
)
# Tried in this order wherever all before has been understood; each begins and ends at a word's edge.
PHRASES = tuple((re.compile(rf"(?:{pattern})(?!\w)", re.ASCII), make) for pattern, make in SAID)
ONE_CLOCK = re.compile(CLOCK, re.ASCII)
FILLER = re.compile(
    r"(?:on|at|as?|ao|the|de|d[ao]|of|n[ao]|-|periodo|(?:for|para|pra)(?! \d)"
    r"|please|pls|por favor|pfv?|pode ser|obrigad[oa]|thanks|thank you)(?!\w)",
    re.ASCII,
)


def _parts(said: str) -> list[Part] | None:
    """All that is said, in its order, or None where a word is left over."""
    parts: list[Part] = []
    at = 0
    while at < len(said):
        for pattern, make in PHRASES:
            found = pattern.match(said, at)
            part = make(found) if found else None
            if found and part is not None:
                parts.append(part)
                break
        else:
            found = FILLER.match(said, at)
        if found is None:
            return None
        at = found.end() + (said[found.end() : found.end() + 1] == " ")
    return parts


def _combine(parts: Sequence[Part]) -> When | None:
    """The parts as one time: at most one day, one time and one part of the day, and a weekday beside a date."""
    days = [part for part in parts if isinstance(part, Day)]
    times = [part for part in parts if isinstance(part, Clock | Window)]
    day_parts = [part for part in parts if isinstance(part, _DayPart)]
    bare = [part for part in parts if isinstance(part, _Bare)]
    if bare and times:
        days, bare = _dated(parts, days, bare)
    day = _one_day(days) if days else When()
    if day is None or len(times) + len(bare) > 1 or len(day_parts) > 1 or not parts:
        return None
    during = day_parts[0] if day_parts else None
    if not bare:
        return _within(day, times[0] if times else None, during)
    before = parts[max(0, parts.index(bare[0]) - 1)]
    return _with_number(day, bare[0].number, during) if isinstance(before, Day) else None


def _dated(parts: Sequence[Part], days: list[Day], bare: list[_Bare]) -> tuple[list[Day], list[_Bare]]:
    """The number between a weekday and a time is the day of the month: `terça 24 às 10h`."""
    number, at = bare[0].number, parts.index(bare[0])
    behind_weekday = at > 0 and isinstance(parts[at - 1], Weekday)
    if len(days) > 1 or len(bare) > 1 or not behind_weekday or not 1 <= number <= 31:
        return days, bare
    return [*days, MonthDay(number)], []


def _whole_days(said: str) -> When | None:
    parts = _parts(said)
    days = [part for part in parts or () if isinstance(part, Day)]
    return _one_day(days) if days and parts == days else None


def _first_and_last(said: str, between: re.Pattern[str]) -> Period | None:
    for cut in itertools.islice(between.finditer(said), CUTS):
        first, last = _both_days(said[: cut.start()], said[cut.end() :])
        if first and last:
            return Period(first, last)
    return None


def _both_days(first: str, last: str) -> tuple[When | None, When | None]:
    """Both ends of a period. A mere day of the month at one end is of the other end's month: `20 a 24/12`."""
    since, until = (_bare_day(said) or _whole_days(said) for said in (first, last))
    if since is None or until is None:
        return None, None
    match since.day, until.day:
        case MonthDay(day, None), Date(_, month, year) if since.weekday is None:
            return When(Date(day, month, year)), until
        case Date(_, month, year), MonthDay(day, None) if until.weekday is None:
            return since, When(Date(day, month, year))
        case MonthDay(day, None), MonthDay(_, int(ahead)) if since.weekday is None:
            return When(MonthDay(day, ahead)), until
    return since, until


def _bare_day(said: str) -> When | None:
    return When(MonthDay(int(said))) if re.fullmatch(r"\d{1,2}", said, re.ASCII) else None


def _one_day(days: Sequence[Day]) -> When | None:
    weekdays = [day for day in days if isinstance(day, Weekday)]
    others = [day for day in days if not isinstance(day, Weekday)]
    if len(weekdays) > 1 or len(others) > 1:
        return None
    match weekdays, others:
        case [weekday], [Week(ahead)]:
            return When(Weekday(weekday.number, Which.of_next_week if ahead else Which.of_this_week))
        case [_], [Month() | MonthAhead()]:
            return None
        case [weekday], [other]:
            return When(other, weekday=weekday.number)
        case _:
            return When(days[0])


def _with_number(when: When, number: int, during: _DayPart | None) -> When | None:
    """A day with a mere number behind it: the hour; behind a weekday the day of the month too, as in `tue 24`."""
    clock = _options(str(number), None, None, exact=False) if number < 24 else None
    at = _within(when, clock, during) if clock else None
    if not isinstance(when.day, Weekday) or not 1 <= number <= 31:
        return at
    on = _within(When(MonthDay(number), weekday=when.day.number), None, during)
    return replace(at, instead=on) if at else on


def _within(when: When, time: Clock | Window | None, during: _DayPart | None) -> When | None:
    """Put the time to the day. The part of the day chooses among what the time can mean; None if it fits none."""
    if during is None:
        return replace(when, time=time)
    if time is None:
        return replace(when, time=Window(((during.since, during.until),)))
    if isinstance(time, Clock):
        halves = {m for written in time.minutes for m in (written, _other_half(written))}
        minutes = tuple(sorted(m for m in halves if during.since <= m < during.until))
        return replace(when, time=Clock(minutes)) if minutes else None
    spans = tuple((max(a, during.since), min(b, during.until)) for a, b in time.spans)
    spans = tuple((a, b) for a, b in spans if a < b)
    return replace(when, time=Window(spans)) if spans else None


def _other_half(minutes: int) -> int:
    """10:00 is 22:00 in `10:00 da noite`; what is written in the twenty-four stays."""
    if minutes >= 13 * 60 or minutes < 60:
        return minutes
    return minutes + HALF_DAY if minutes < HALF_DAY else minutes - HALF_DAY

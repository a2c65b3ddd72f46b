"""The rules of series: RRULEs (RFC 5545, 3.3.10) in the wall-clock time of the supervisor's zone."""

import itertools
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from dateutil import rrule

from supervision.errors import NotUnderstood

MOST = 104
LONGEST = timedelta(days=366)
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

PART = re.compile(
    r"FREQ=(?P<FREQ>WEEKLY|MONTHLY)|INTERVAL=(?P<INTERVAL>\d{1,3})|COUNT=(?P<COUNT>\d{1,9})"
    r"|UNTIL=(?P<UNTIL>\d{8}(?:T\d{6}Z?)?)|BYDAY=(?P<BYDAY>(?:[+-]?\d)?(?:MO|TU|WE|TH|FR|SA|SU))",
    re.ASCII,
)


@dataclass(frozen=True)
class Repetition:
    """How people say it. One of `count` and `until`, the last day that may have one, says where it ends."""

    frequency: Literal["weekly", "fortnightly", "monthly"]
    count: int | None = None
    until: date | None = None


@dataclass(frozen=True)
class Rule:
    """A rule that was read. `ordinal` is the weekday's place in its month, -1 the last; `until` a wall-clock time."""

    monthly: bool
    interval: int
    weekday: int | None
    ordinal: int | None
    count: int | None
    until: datetime | None

    def starts(self, first: datetime) -> list[datetime]:
        """The wall-clock times from `first` on, all naive. Raises NotUnderstood where `first` is none of them, or
        they are fewer than two, more than 104, or take longer than 366 days.
        """
        if first.second or first.microsecond:
            raise NotUnderstood("refused.whole_minutes")
        if self.count is not None and self.count > MOST:
            raise NotUnderstood("refused.series_too_long", most=MOST)
        found = list(itertools.islice(self._all(first), MOST + 1))
        if len(found) > MOST or (found and found[-1] - first > LONGEST):
            raise NotUnderstood("refused.series_too_long", most=MOST)
        if len(found) < 2:
            raise NotUnderstood("refused.series_too_short")
        if found[0] != first:
            raise NotUnderstood("refused.series_day")
        return found

    def _all(self, first: datetime) -> Iterator[datetime]:
        weekday = first.weekday() if self.weekday is None else self.weekday
        return iter(
            rrule.rrule(
                rrule.MONTHLY if self.monthly else rrule.WEEKLY,
                dtstart=first,
                interval=self.interval,
                count=self.count,
                until=self.until,
                byweekday=rrule.weekday(weekday, self.ordinal),
            )
        )


def rule_of(repetition: Repetition, first_local: datetime) -> str:
    """The RRULE of a repetition whose first wall-clock time is given. Raises NotUnderstood without one end.

    Monthly is the same weekday in the same week of the month; a fifth one is the last of every month.
    """
    day = DAYS[first_local.weekday()]
    parts = ["FREQ=MONTHLY" if repetition.frequency == "monthly" else "FREQ=WEEKLY"]
    if repetition.frequency == "fortnightly":
        parts.append("INTERVAL=2")
    if repetition.frequency == "monthly":
        ordinal = (first_local.day - 1) // 7 + 1
        day = f"{-1 if ordinal == 5 else ordinal}{day}"
    parts.append(f"BYDAY={day}")
    if repetition.count is not None:
        parts.append(f"COUNT={repetition.count}")
    if repetition.until is not None:
        parts.append(f"UNTIL={repetition.until:%Y%m%d}")
    rule = ";".join(parts)
    read_rule(rule)
    return rule


def read_rule(said: str, zone: zoneinfo.ZoneInfo | None = None) -> Rule:
    """A rule from its text: FREQ=WEEKLY or FREQ=MONTHLY, INTERVAL up to 12, one BYDAY, and either COUNT or UNTIL.

    An UNTIL that is a date takes in that day; one in UTC is read in `zone`, the supervisor's. Raises NotUnderstood
    for a rule without an end and for everything else that RFC 5545, 3.3.10 knows.
    """
    parts = _parts(said)
    if "COUNT" not in parts and "UNTIL" not in parts:
        raise NotUnderstood("refused.series_endless")
    monthly, by_day = parts["FREQ"] == "MONTHLY", parts.get("BYDAY")
    ordinal = int(by_day[:-2]) if by_day is not None and by_day[:-2] else None
    interval = int(parts.get("INTERVAL", "1"))
    count = int(parts["COUNT"]) if "COUNT" in parts else None
    if (
        {"COUNT", "UNTIL"} <= parts.keys()
        or ordinal not in ((-1, 1, 2, 3, 4) if monthly else (None,))
        or not 1 <= interval <= 12
        or count == 0
    ):
        raise NotUnderstood("refused.series_rule")
    weekday = None if by_day is None else DAYS.index(by_day[-2:])
    until = _until(parts["UNTIL"], zone) if "UNTIL" in parts else None
    return Rule(monthly, interval, weekday, ordinal, count, until)


def _parts(said: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in said.strip().upper()[:200].split(";"):
        match = PART.fullmatch(part)
        if match is None or match.lastgroup is None or match.lastgroup in parts:
            raise NotUnderstood("refused.series_rule")
        parts[match.lastgroup] = match[match.lastgroup]
    if "FREQ" not in parts:
        raise NotUnderstood("refused.series_rule")
    return parts


def _until(said: str, zone: zoneinfo.ZoneInfo | None) -> datetime:
    try:
        if len(said) == 8:
            day = date(int(said[:4]), int(said[4:6]), int(said[6:]))
            return datetime.combine(day, time.max)
        read = datetime(  # noqa: DTZ001 - a wall-clock time is meant
            int(said[:4]), int(said[4:6]), int(said[6:8]), int(said[9:11]), int(said[11:13]), int(said[13:15])
        )
        return wall_clock(read.replace(tzinfo=UTC), zone or zoneinfo.ZoneInfo("UTC")) if said.endswith("Z") else read
    except (ValueError, OverflowError) as error:
        raise NotUnderstood("refused.series_rule") from error


def expand(rule: str, first_local: datetime) -> list[datetime]:
    """The naive wall-clock times that a rule gives from the first on. Raises NotUnderstood as `Rule.starts` does."""
    return read_rule(rule).starts(first_local)


def wall_clock(at: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """What the zone's clock shows at an instant, naive."""
    return at.astimezone(zone).replace(tzinfo=None, fold=0)


def text_of(rule: Rule, first: datetime, count: int) -> str:
    """The rule as it is kept: it ends by COUNT, so that it is read without regard to zones."""
    ordinal = "" if rule.ordinal is None else str(rule.ordinal)
    every = "" if rule.interval == 1 else f"INTERVAL={rule.interval};"
    frequency = "MONTHLY" if rule.monthly else "WEEKLY"
    return f"FREQ={frequency};{every}BYDAY={ordinal}{DAYS[first.weekday()]};COUNT={count}"

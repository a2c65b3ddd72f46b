"""Ranges of time, `[start, end)`, and what of somebody's time they take."""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter

Range = tuple[datetime, datetime]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same time as ascending ranges that do not touch."""
    merged: list[Range] = []
    last: datetime | None = None
    for start, end in sorted(ranges):
        if last is None or start > last:
            merged.append((start, end))
            last = end
        elif end > last:
            merged[-1] = merged[-1][0], end
            last = end
    return merged


@dataclass(frozen=True)
class Busy:
    """Held ranges of one person, as (start, end) in ascending order; no two of them overlap.

    `outside` are those that her other calendars take, likewise. They bind who books a supervisor's time, not herself,
    and need no buffers around them.
    """

    ranges: Sequence[Range] = field(default_factory=tuple)
    outside: Sequence[Range] = ()

    @functools.cached_property
    def starts(self) -> list[datetime]:
        return [start for start, _ in self.ranges]

    def overlaps(self, starts_at: datetime, ends_at: datetime) -> bool:
        before = bisect_left(self.starts, ends_at)
        return before > 0 and self.ranges[before - 1][1] > starts_at

    def is_elsewhere(self, starts_at: datetime, ends_at: datetime) -> bool:
        """Whether another calendar has something then."""
        before = bisect_left(self.outside, ends_at, key=itemgetter(0))
        return before > 0 and self.outside[before - 1][1] > starts_at

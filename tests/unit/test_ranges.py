"""What is held of somebody's time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from supervision.ranges import Busy, merge

INSTANTS = st.integers(0, 400).map(lambda minutes: datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(minutes=minutes))
SPANS = st.lists(st.tuples(INSTANTS, INSTANTS).filter(lambda two: two[0] < two[1]))


@given(SPANS, SPANS.filter(bool))
def test_what_is_held_is_seen(held: list[tuple[datetime, datetime]], asked: list[tuple[datetime, datetime]]) -> None:
    busy = Busy(merge(held))
    assert all(one[1] < two[0] for one, two in zip(busy.ranges, busy.ranges[1:], strict=False))
    for since, until in asked:
        assert busy.overlaps(since, until) == any(start < until and since < end for start, end in held)

"""How the number of mails at once follows what the mail server bears."""

import time

import pytest

from bridge import paces
from bridge.paces import Pace


def test_each_outage_makes_the_pause_longer_and_an_answer_ends_it() -> None:
    pace = Pace(8, first=10, longest=35)
    assert pace.pause == 0
    pauses = []
    for _ in range(5):
        pace.note_unreachable(0)
        pauses.append(pace.pause)
    for pause, longest in zip(pauses, (10, 20, 35, 35, 35), strict=True):
        assert 0.74 * longest < pause <= longest
    assert pace.width == 1
    pace.note_reached()
    assert (pace.pause, pace.width) == (0, 2)
    pace.note_unreachable(0)
    assert pace.pause <= 10


def test_after_an_outage_the_number_doubles_with_each_answer() -> None:
    pace = Pace(5)
    pace.note_unreachable(0)
    widths = []
    for _ in range(4):
        pace.note_reached()
        widths.append(pace.width)
    assert widths == [2, 4, 5, 5]


def test_connections_that_are_refused_beside_others_are_not_asked_for_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace = Pace(8)
    pace.note_unreachable(3)
    assert (pace.width, pace.pause) == (3, 0)
    pace.note_unreachable(4)  # one that was under way
    pace.note_reached()
    assert pace.width == 3
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + paces.STEADY_SECONDS + 1)
    pace.note_reached()
    assert pace.width == 6

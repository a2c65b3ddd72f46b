"""What the bot answers: lines of the catalogue and, where something is asked, what the numbers stand for."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from supervision.models import Question
from supervision.pairs import Pair
from supervision.texts import sentences

DIGITS = ("1⃣", "2⃣", "3⃣", "4⃣", "5⃣", "6⃣", "7⃣", "8⃣", "9⃣", "🔟")  # keycaps without U+FE0F
ITEMS = ("- ", "{number}. ")
MOST_LINES = 20  # all that holds for a pair; other answers have 16 at most
YES, NO = "✅", "❌"
LIST_LIFETIME = timedelta(hours=24)


@dataclass(frozen=True)
class Line:
    """One sentence: its key in the catalogues and its parameters."""

    key: str
    params: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """A list whose numbers can be answered, or a change that a typed `code` agrees to.

    `appointment_id` is what a picked slot would move, `details` what else belongs to the question (see questions.py).
    """

    kind: Question
    slots: Sequence[datetime] = ()
    choices: Sequence[uuid.UUID] = ()
    appointment_id: uuid.UUID | None = None
    tappable: bool = False
    code: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    lifetime: timedelta = LIST_LIFETIME


@dataclass(frozen=True)
class Reply:
    """`pair` is the pair as it is now, where the command changed how one of it is spoken to."""

    lines: tuple[Line, ...]
    ask: Ask | None = None
    pair: Pair | None = None


def is_item(key: str) -> bool:
    """Whether that sentence is an item of a list, by its first mark in the catalogues."""
    return sentences("en")[key][0].startswith(ITEMS)


def shorten(lines: Sequence[Line], url: str) -> tuple[Line, ...]:
    """No more lines than a phone shows well: of what is listed without numbers the rest is on the page."""
    over = len(lines) - MOST_LINES
    listed = [place for place, line in enumerate(lines) if sentences("en")[line.key][0].startswith(ITEMS[0])]
    if over <= 0 or len(listed) <= over + 1:
        return tuple(lines)
    gone = listed[-over - 1 :]
    more = Line("list.more_there", {"count": len(gone), "url": url})
    return tuple(more if place == gone[0] else line for place, line in enumerate(lines) if place not in gone[1:])


def say(key: str, **params: object) -> Reply:
    """A reply of one sentence."""
    return Reply((Line(key, params),))


def shown_key(key: str) -> str:
    """A keycap as phones draw it: the digit, U+FE0F, U+20E3 (Unicode 16, emoji-sequences.txt)."""
    return key[0] + "\ufe0f" + key[1] if len(key) == 2 and key[1] == "\u20e3" else key

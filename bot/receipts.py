"""How far people have read, as the homeserver tells it, and the order of the events that they have read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bot.events import Envelope

_MOST_PLACES = 50_000  # some ten megabytes; what is older is asked of the homeserver


@dataclass(frozen=True)
class Receipt:
    """Somebody has read an event of a room, and what stands before it."""

    user_id: str
    event_id: str


@dataclass(frozen=True)
class Surroundings:
    """An event's time by its homeserver, and some of what follows it in its room, the next first."""

    sent_at: datetime
    after: tuple[Envelope, ...]


def read_receipts(events: Iterable[object]) -> list[Receipt]:
    """The public receipts in a room's ephemeral events (Matrix 1.18, "Receipts"); what is malformed is passed over.

    A receipt for a thread counts as one for the room: whoever has read it has been there. Private ones
    (`m.read.private`) are shown by homeservers to nobody but their owner.
    """
    found = []
    for event in events:
        content = event.get("content") if isinstance(event, dict) and event.get("type") == "m.receipt" else None
        for event_id, kinds in content.items() if isinstance(content, dict) else ():
            readers = kinds.get("m.read") if isinstance(kinds, Mapping) else None
            found += [Receipt(user_id, event_id) for user_id in (readers if isinstance(readers, Mapping) else ())]
    return found


class Order:
    """In which order the newest events of all rooms came; of each room it holds the last ones without a gap."""

    def __init__(self, most: int = _MOST_PLACES) -> None:
        self._most = most
        self._places: OrderedDict[str, int] = OrderedDict()
        self._next = 0

    def note(self, event_ids: Iterable[str]) -> None:
        """These came now, in this order; what came before keeps its place."""
        for event_id in event_ids:
            if event_id not in self._places:
                self._places[event_id] = self._next
                self._next += 1
        while len(self._places) > self._most:
            self._places.popitem(last=False)

    def reaches(self, event_id: str, other: str) -> bool | None:
        """Whether the first of two events of one room is the other or came after it; None if the first is not held.

        `other` has come before now; if it is not held any more, it is older than all that is.
        """
        place = self._places.get(event_id)
        return None if place is None else place >= self._places.get(other, -1)

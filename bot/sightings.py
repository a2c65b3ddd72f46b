"""What a homeserver tells of people's presence (Matrix 1.18, "Presence"). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

_LONGEST = 10 * 365 * 24 * 3600 * 1000.0  # milliseconds


@dataclass(frozen=True)
class Sighting:
    """Somebody is online, or not, and was last active so long ago, where that is told.

    Whose client says that nobody is at it (`unavailable`) is not online.
    """

    user_id: str
    online: bool
    ago: timedelta | None = None


def read_presences(events: Iterable[object]) -> list[Sighting]:
    """The `m.presence` events of an answer of `/sync`; what is malformed is passed over."""
    found = []
    for event in events:
        if isinstance(event, dict) and event.get("type") == "m.presence" and isinstance(event.get("sender"), str):
            sighting = read_presence(event["sender"], event.get("content"))
            found += [sighting] if sighting else []
    return found


def read_presence(user_id: str, content: object) -> Sighting | None:
    """One person's, or None where it makes no sense."""
    if not isinstance(content, dict) or not isinstance(content.get("presence"), str):
        return None
    ago = content.get("last_active_ago")
    active = timedelta() if content.get("currently_active") is True else None
    if isinstance(ago, int | float) and not isinstance(ago, bool) and 0 <= ago < _LONGEST:
        active = timedelta(milliseconds=ago)
    return Sighting(user_id, content["presence"] == "online", active)

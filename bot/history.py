"""All that was ever written in a room, oldest first, as far as it can still be read.

Nothing is believed or refused here: each event says whose device it came from as far as that is known today, and what
cannot be read says so. Only one page of the homeserver's answer is held at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bot.client import Client
from bot.events import Incoming, Json, open_envelope
from bot.requests import path

PAGE = 100  # events


@dataclass(frozen=True)
class Removal:
    """Who took an event back, and when; None where the homeserver does not say."""

    sender: str | None
    at: datetime | None


@dataclass(frozen=True)
class Past:
    """An event with its relation (`m.relates_to`, which stands outside the encryption), and what was taken back of it.

    Of state events `event.kind` is `state`; `event.content` is theirs.
    """

    event: Incoming
    relation: Mapping[str, Any] = field(default_factory=dict, repr=False)
    removal: Removal | None = None


async def read_room(client: Client, room_id: str, *, page: int = PAGE) -> AsyncIterator[list[Past]]:
    """The room's events up to now, `page` at a time. What is no well-formed event is left out.

    Raises as `Homeserver.ask` does: HomeserverRefused where the bot is not in that room.
    """
    query = {"dir": "f", "limit": str(page)}
    while True:
        answer = await client.homeserver.ask("GET", path("/rooms/{room}/messages", room=room_id), params=query)
        events, following = answer.get("chunk"), answer.get("end")
        if isinstance(events, list) and events:
            yield [past for event in events if (past := _read(client, room_id, event)) is not None]
        if not isinstance(following, str) or following == query.get("from"):
            return  # an empty page alone is no end: the homeserver may hide all that is on it
        query["from"] = following


def _read(client: Client, room_id: str, event: object) -> Past | None:
    envelope = open_envelope(room_id, event)
    if envelope is None or not isinstance(event, dict):
        return None
    incoming = client.reread(envelope)
    relation = _object(envelope.content, "m.relates_to") or _object(incoming.content, "m.relates_to")
    return Past(incoming, relation, _removal(_object(event, "unsigned")))


def _removal(unsigned: Json) -> Removal | None:
    """Matrix 1.18, "Redactions": the redaction stands with the event that it took the content from."""
    if "redacted_because" not in unsigned:
        return None
    because = _object(unsigned, "redacted_because")
    sender, sent_at_ms = because.get("sender"), because.get("origin_server_ts")
    at = None
    if isinstance(sent_at_ms, int) and 0 <= sent_at_ms < 2**45:
        at = datetime.fromtimestamp(sent_at_ms / 1000, UTC)
    return Removal(sender if isinstance(sender, str) else None, at)


def _object(value: Mapping[str, Any], name: str) -> Json:
    part = value.get(name)
    return part if isinstance(part, dict) else {}

"""A room's events as records of `room.json`: each with its edits, reactions and removal, however late those came.

Pure. What was read is kept compressed, a page at a time, as it is gone through twice: for `room.json` and for
`room.html`. What relates to an event is kept apart until then.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bot.events import Doubt, Incoming, Json
from bot.history import Past
from bot.media import Source, read_source

PAGE = 100  # records that are compressed together
FORGED = frozenset(
    {Doubt.not_encrypted, Doubt.wrong_sender, Doubt.wrong_room, Doubt.forwarded_session, Doubt.malformed}
)
NOT_READ = {
    Doubt.undecryptable: "no_key",
    Doubt.malformed: "malformed",
    Doubt.wrong_room: "wrong_room",
}
_OUTER_QUOTE = re.compile(r"(?is)<mx-reply>.*?(?:</mx-reply>|\Z)")


@dataclass(frozen=True)
class Enclosed:
    """A file of an event, still to be fetched; `preview` is its thumbnail."""

    event_id: str
    name: str = field(repr=False)
    sent_at: datetime
    file: Source | None
    preview: Source | None


class Records:
    """Takes a room's events in their order. `asker` is the Matrix ID of whoever takes the room home.

    What was written while the asker was not in the room is counted in `left_out` and not kept: their own client would
    not show it either.
    """

    def __init__(self, asker: str) -> None:
        self._asker = asker
        self._present = False
        self._pages: list[bytes] = []
        self._page: list[Json] = []
        self._edits: defaultdict[str, list[Json]] = defaultdict(list)
        self._reactions: defaultdict[str, list[Json]] = defaultdict(list)
        self.quoted: set[str] = set()  # events that others answer to
        self.enclosed: list[Enclosed] = []
        self.left_out = 0
        self.count = 0

    def take(self, past: Past) -> None:
        """Keep an event, or what it says about another."""
        event = past.event
        if event.kind == "state":
            self._note_presence(event)
        elif not self._present:
            self.left_out += event.kind not in ("redaction", "reaction")
            return
        if event.kind == "redaction" or (event.kind == "reaction" and past.removal is not None):
            return
        if event.kind == "reaction":
            self._take_reaction(past)
        elif past.relation.get("rel_type") == "m.replace" and past.removal is None:
            self._take_edit(past)
        else:
            self._keep(past)

    def _note_presence(self, event: Incoming) -> None:
        if event.event_type == "m.room.member" and event.state_key == self._asker:
            self._present = event.content.get("membership") == "join"

    def _take_reaction(self, past: Past) -> None:
        event, key = past.event, past.relation.get("key")
        if event.relates_to is not None and isinstance(key, str):
            found = {"key": key, "sender": event.sender, "time": instant(event.sent_at)}
            self._reactions[event.relates_to].append(found)

    def _take_edit(self, past: Past) -> None:
        target, event = past.relation.get("event_id"), past.event
        if not isinstance(target, str) or event.doubt in FORGED - {Doubt.malformed}:
            return
        edit: Json = {"time": instant(event.sent_at), "sender": event.sender}
        content = event.content.get("m.new_content")
        if isinstance(content, Mapping):
            edit |= _words(content, is_reply=False)
        elif event.doubt in NOT_READ:
            edit |= {"text": None, "formatted": None, "undecryptable": NOT_READ[event.doubt]}
        else:
            return
        self._edits[target].append(edit | ({"doubt": str(event.doubt)} if event.doubt else {}))

    def _keep(self, past: Past) -> None:
        record = describe(past)
        self.count += 1
        if record["reply_to"]:
            self.quoted.add(record["reply_to"])
        if record["thread"]:
            self.quoted.add(record["thread"])
        if record["file"] is not None:
            self.enclosed.append(_enclosed(past))
        self._page.append(record)
        if len(self._page) == PAGE:
            self._pages.append(_pack(self._page))
            self._page = []

    def __iter__(self) -> Iterator[Json]:
        """Each event kept, in order, with all that was said about it."""
        for packed in self._pages:
            for record in _unpack(packed):
                yield self._complete(record)
        for record in self._page:
            yield self._complete(dict(record))

    def _complete(self, record: Json) -> Json:
        edits = [one for one in self._edits.get(record["id"], ()) if one["sender"] == record["sender"]]
        record["reactions"] = self._reactions.get(record["id"], [])
        record["edits"] = []
        if edits and record["removed"] is None:
            first = {"time": record["time"], "text": record["text"], "formatted": record["formatted"]}
            record["edits"] = [first, *({k: v for k, v in one.items() if k != "sender"} for one in edits)]
            readable = [one for one in edits if one["text"] is not None]
            if readable:
                record["text"], record["formatted"] = readable[-1]["text"], readable[-1]["formatted"]
        return record


def describe(past: Past) -> Json:
    """One event by itself, as docs/export.md says; edits and reactions come to it later."""
    event = past.event
    unreadable = event.doubt in NOT_READ and past.removal is None
    is_message = event.kind in ("text", "attachment") and past.removal is None and not unreadable
    reply_to = _reply_to(past.relation)
    says: Json = {"text": None, "formatted": None}
    if is_message:
        says = _words(event.content, is_reply=reply_to is not None)
    if past.removal is None and not unreadable and event.kind == "other":
        says["text"] = _other_words(event.content)
    has_file = is_message and event.kind == "attachment"
    if has_file and event.content.get("filename") in (None, event.content.get("body")):
        says = {"text": None, "formatted": None}  # the body is the file's name
    return {
        "id": event.event_id,
        "sender": event.sender,
        "time": instant(event.sent_at),
        "type": event.event_type if event.kind == "state" or not unreadable else None,
        "kind": event.msgtype or None,
        **says,
        "file": _file(event) if has_file else None,
        "reply_to": reply_to,
        "thread": event.thread_root or (_thread(past.relation)),
        "device": event.device_id,
        "doubt": str(event.doubt) if event.doubt is not None and not unreadable and past.removal is None else None,
        "undecryptable": NOT_READ[event.doubt] if unreadable and event.doubt is not None else None,
        "removed": _removed(past),
        "state": _state(event),
    }


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond that the homeserver gives."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _words(content: Mapping[str, Any], *, is_reply: bool) -> Json:
    body, html = content.get("body"), content.get("formatted_body")
    text = body if isinstance(body, str) else None
    if is_reply and text is not None:
        text = _without_quote(text)
    formatted = html if isinstance(html, str) and content.get("format") == "org.matrix.custom.html" else None
    return {"text": text, "formatted": formatted and _OUTER_QUOTE.sub("", formatted)}


def _other_words(content: Mapping[str, Any]) -> str | None:
    """What an event of another kind (a poll, a sticker) says to clients that do not know it (MSC1767)."""
    for name in ("body", "org.matrix.msc1767.text"):
        if isinstance(content.get(name), str):
            return str(content[name])
    return None


def _without_quote(text: str) -> str:
    """Without the quote that older clients put before a reply (Matrix 1.12, "Fallbacks for rich replies")."""
    if not text.startswith(("> <", "> * <")):
        return text
    lines = text.split("\n")
    kept = next((place for place, line in enumerate(lines) if not line.startswith(">")), len(lines))
    return "\n".join(lines[kept:]).removeprefix("\n")


def _reply_to(relation: Mapping[str, Any]) -> str | None:
    """The event that is answered; in a thread many clients name its last event for others' sake, which is none."""
    answered = relation.get("m.in_reply_to")
    if not isinstance(answered, Mapping) or relation.get("is_falling_back") is True:
        return None
    event_id = answered.get("event_id")
    return event_id if isinstance(event_id, str) else None


def _thread(relation: Mapping[str, Any]) -> str | None:
    root = relation.get("event_id")
    return root if relation.get("rel_type") == "m.thread" and isinstance(root, str) else None


def _removed(past: Past) -> Json | None:
    if past.removal is None:
        return None
    at = past.removal.at
    return {"by": past.removal.sender, "time": None if at is None else instant(at)}


def _state(event: Incoming) -> Json | None:
    """Of state only who came and went; everything else by its type alone."""
    if event.kind != "state":
        return None
    membership = event.content.get("membership") if event.event_type == "m.room.member" else None
    return {"key": event.state_key, "membership": membership if isinstance(membership, str) else None}


def _file(event: Incoming) -> Json:
    """A file as its event describes it; what it really is comes in when it was fetched."""
    info = event.content.get("info")
    info = info if isinstance(info, Mapping) else {}
    return {
        "name": event.filename,
        "declared_type": info.get("mimetype") if isinstance(info.get("mimetype"), str) else None,
        "duration_ms": _number(info, "duration"),
        "width": _number(info, "w"),
        "height": _number(info, "h"),
    }


def _number(info: Mapping[str, Any], name: str) -> int | None:
    value = info.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _enclosed(past: Past) -> Enclosed:
    event = past.event
    info = event.content.get("info")
    info = info if isinstance(info, Mapping) else {}
    file = read_source(event.content.get("file"), event.content.get("url"))
    preview = read_source(info.get("thumbnail_file"), info.get("thumbnail_url"))
    return Enclosed(event.event_id, event.filename or "", event.sent_at, file, preview)


def _pack(page: list[Json]) -> bytes:
    return zlib.compress(json.dumps(page, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def _unpack(packed: bytes) -> list[Json]:
    found: list[Json] = json.loads(zlib.decompress(packed))
    return found

"""What the Matrix transport hands over: judged events, and why one is doubted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from supervision.errors import Permanent, Transient

Json = dict[str, Any]
Kind = Literal["text", "reaction", "attachment", "redaction", "undecryptable", "state", "other"]

_ATTACHMENTS = frozenset({"m.image", "m.file", "m.audio", "m.video"})
_VARIATIONS = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")


class Doubt(StrEnum):
    """Why an event may not command anything; one reason, the first that was found."""

    not_encrypted = "not_encrypted"  # it came in clear into an encrypted room
    undecryptable = "undecryptable"  # no key for it arrived
    malformed = "malformed"  # decrypted, but not what Matrix allows inside
    wrong_room = "wrong_room"  # encrypted for another room
    forwarded_session = "forwarded_session"  # its key came at second hand
    wrong_sender = "wrong_sender"  # its key came from another person's device
    unknown_device = "unknown_device"  # its key came from a device that its sender does not have (any more)
    unsigned_device = "unsigned_device"  # the sender's identity has not signed the device, or there is none
    changed_identity = "changed_identity"  # the sender's identity is not the pinned one
    redacted = "redacted"  # it was taken back before it was handed over


class NobodyToHear(Transient):
    """No joined member has a device that may hold the room's keys; waiting for one may help."""

    def __init__(self) -> None:
        super().__init__("nobody_to_hear")


class StrangerInRoom(Transient):
    """The room has members besides the expected; nothing is said there until they are gone."""

    def __init__(self, strangers: frozenset[str]) -> None:
        self.strangers = strangers
        super().__init__("stranger_in_room")


class LoggedOut(Permanent):
    """The homeserver ended the bot's login. `Client.connect` may be tried once again."""

    def __init__(self) -> None:
        super().__init__("logged_out")


@dataclass(frozen=True)
class Incoming:
    """One timeline event of somebody else in one of our rooms, already judged.

    `sent_at` is the homeserver's time of the event (`origin_server_ts`), aware UTC. `body`, `filename` and
    `content` hold what was said: never log them (they are left out of `repr`). `session_id` and
    `message_index` name the Megolm message, for the journal's replay check; both are None for what came in
    clear. `device_id` is the believed or at least identified device, never the unproven one from the
    event. `relates_to` is the event a reaction stands under, a redaction removes or an edit replaces;
    `key` is the reaction without U+FE0F and skin tones. `thread_root` is the thread the event was written
    in. `state_key` is that of a state event (kind `state`).

    `doubt` is None for an event that may command (design, section 6), and for reactions, redactions and
    state, which are always in clear: what those may do is for the handler to bound.
    """

    room_id: str
    event_id: str
    sender: str
    sent_at: datetime
    kind: Kind
    event_type: str
    doubt: Doubt | None = None
    body: str = field(default="", repr=False)
    msgtype: str = ""
    filename: str | None = field(default=None, repr=False)
    session_id: str | None = None
    message_index: int | None = None
    device_id: str | None = None
    is_edit: bool = False
    thread_root: str | None = None
    relates_to: str | None = None
    key: str | None = None
    state_key: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Envelope:
    """What is outside the encryption of a timeline event: all of it is the homeserver's word.

    `redacted`: its content was taken away before it reached us (Matrix 1.18, "Redactions").
    """

    room_id: str
    event_id: str
    sender: str
    sent_at: datetime
    event_type: str
    content: Json = field(repr=False)
    redacts: str | None = None
    state_key: str | None = None
    redacted: bool = False

    @property
    def encrypted(self) -> bool:
        return self.event_type == "m.room.encrypted"


def open_envelope(room_id: str, event: object) -> Envelope | None:
    """Read a timeline event as it came; None if it is no well-formed event (Matrix 1.18, "Room event format")."""
    if not isinstance(event, dict):
        return None
    content, sent_at_ms = event.get("content"), event.get("origin_server_ts")
    names = (event.get("event_id"), event.get("sender"), event.get("type"))
    if not all(isinstance(name, str) and name for name in names) or not isinstance(content, dict):
        return None
    if not isinstance(sent_at_ms, int) or not 0 <= sent_at_ms < 2**45:
        return None
    redacts, state_key = event.get("redacts") or content.get("redacts"), event.get("state_key")
    unsigned = event.get("unsigned")
    return Envelope(
        room_id=room_id,
        event_id=event["event_id"],
        sender=event["sender"],
        sent_at=datetime.fromtimestamp(sent_at_ms / 1000, UTC),
        event_type=event["type"],
        content=content,
        redacts=redacts if isinstance(redacts, str) else None,
        state_key=state_key if isinstance(state_key, str) else None,
        redacted=isinstance(unsigned, dict) and "redacted_because" in unsigned,
    )


@dataclass(frozen=True)
class Origin:
    """Where a message's key came from: its Megolm session and index, its device, and what speaks against it."""

    doubt: Doubt | None
    session_id: str | None = None
    message_index: int | None = None
    device_id: str | None = None


def read_content(envelope: Envelope, event_type: str, content: Json, origin: Origin) -> Incoming:
    """Make the event of `event_type` with `content` (decrypted, where it was encrypted) ready for a handler.

    A relation stands outside the encryption (Matrix 1.18, "Relationships and encrypted messages"); one
    inside is read where there is none outside. An event is an edit if either says so.
    """
    outer, inner = _relation(envelope.content), _relation(content)
    relation = outer or inner
    msgtype = _text(content, "msgtype")
    kind = "state" if envelope.state_key is not None else _kind(event_type, msgtype)
    doubt = origin.doubt
    if not envelope.encrypted and kind not in ("reaction", "redaction", "state"):
        doubt = Doubt.not_encrypted
    return Incoming(
        room_id=envelope.room_id,
        event_id=envelope.event_id,
        sender=envelope.sender,
        sent_at=envelope.sent_at,
        kind=kind,
        event_type=event_type,
        doubt=doubt,
        body=_text(content, "body"),
        msgtype=msgtype,
        filename=(_text(content, "filename") or _text(content, "body")) if kind == "attachment" else None,
        session_id=origin.session_id,
        message_index=origin.message_index,
        device_id=origin.device_id,
        is_edit="m.replace" in (outer.get("rel_type"), inner.get("rel_type")) or "m.new_content" in content,
        thread_root=_thread(relation),
        relates_to=_target(kind, relation, envelope),
        key=normalise_key(_text(relation, "key")) if kind == "reaction" else None,
        state_key=envelope.state_key,
        content=content,
    )


def read_unreadable(envelope: Envelope, doubt: Doubt, origin: Origin) -> Incoming:
    """An event that says nothing: it could not be decrypted, or not be understood after decrypting."""
    return Incoming(
        room_id=envelope.room_id,
        event_id=envelope.event_id,
        sender=envelope.sender,
        sent_at=envelope.sent_at,
        kind="undecryptable" if doubt is Doubt.undecryptable else "other",
        event_type=envelope.event_type,
        doubt=doubt,
        session_id=origin.session_id,
        message_index=origin.message_index,
        device_id=origin.device_id,
        is_edit=_relation(envelope.content).get("rel_type") == "m.replace",
        thread_root=_thread(_relation(envelope.content)),
    )


def normalise_key(key: str) -> str:
    """A reaction's key without variation selectors and skin tones, so that keyboards do not matter."""
    return _VARIATIONS.sub("", key)


def _kind(event_type: str, msgtype: str) -> Kind:
    if event_type == "m.room.message":
        return "attachment" if msgtype in _ATTACHMENTS else "text"
    if event_type == "m.reaction":
        return "reaction"
    return "redaction" if event_type == "m.room.redaction" else "other"


def _target(kind: Kind, relation: Json, envelope: Envelope) -> str | None:
    if kind == "redaction":
        return envelope.redacts
    about = kind == "reaction" or relation.get("rel_type") == "m.replace"
    return _text(relation, "event_id") or None if about else None


def _thread(relation: Json) -> str | None:
    return _text(relation, "event_id") or None if relation.get("rel_type") == "m.thread" else None


def _relation(content: Json) -> Json:
    relation = content.get("m.relates_to")
    return relation if isinstance(relation, dict) else {}


def _text(content: Json, name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""

"""A pair's room: made once, its state and powers exactly as they must be, mended where they are not.

What a room is made of was tried against Synapse: members may write, react, pin, call and rename themselves,
and nothing else; it has no name, topic or avatar, so that each sees the other's name and face.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.client import Client
from bot.events import Json
from bot.requests import HomeserverRefused, path, patient_with_proxies
from supervision.errors import Permanent
from supervision.memberships import PRESENT
from supervision.models import Fault

_DAY_MS = 24 * 60 * 60 * 1000
_TOKEN = "org.visavis.room"  # noqa: S105  # the creation content's key, not a secret
_MEMBER = "m.room.member"
_NOTHING: dict[str, Json] = {  # what a room has none of, or not any more, and what says so
    "m.room.retention": {},
    "m.room.name": {"name": ""},
    "m.room.topic": {"topic": ""},
    "m.room.avatar": {},
    "m.room.canonical_alias": {},
    "m.room.tombstone": {"body": "", "replacement_room": ""},
}
_EVERYBODYS = ("m.room.pinned_events", "m.call.member", "org.matrix.msc3401.call.member", "m.rtc.member")


@dataclass(frozen=True)
class Plan:
    """What a pair's room is to be.

    `token` is a random string that the caller keeps from before the first attempt: it says nothing, and
    finds the room that a crashed attempt made. `federate` false shuts other homeservers out for ever: only
    where both people live on the bot's. `retention` is how long the homeserver keeps messages, None for
    its own rule. In an `archived` room nobody but the bot can write. `people` are all who may be there.
    """

    token: str
    people: frozenset[str]
    federate: bool
    retention: timedelta | None = None
    archived: bool = False


def power_levels(*, archived: bool = False) -> Json:
    """The content of the room's `m.room.power_levels`.

    The creator must not stand in `users` in room version 12 (it has unlimited power; naming it is a 400).
    """
    everybody = 100 if archived else 0
    return {
        "users": {},
        "users_default": 0,
        "events_default": everybody,
        "state_default": 100,
        "invite": 100,
        "kick": 100,
        "ban": 100,
        "redact": 100,
        "historical": 100,
        "notifications": {"room": 100},
        "events": dict.fromkeys(_EVERYBODYS, everybody) | {"m.room.tombstone": 150},
    }


def initial_state(plan: Plan, bot: str) -> dict[str, Json]:
    """Event type -> content of the state that a room has from its first events on."""
    state: dict[str, Json] = {
        "m.room.encryption": {
            "algorithm": "m.megolm.v1.aes-sha2",
            "rotation_period_ms": _DAY_MS,
            "rotation_period_msgs": 100,
        },
        "m.room.history_visibility": {"history_visibility": "joined"},
        "m.room.guest_access": {"guest_access": "forbidden"},
        "io.element.functional_members": {"service_members": [bot]},
    }
    if plan.retention is not None:
        state["m.room.retention"] = {"max_lifetime": int(plan.retention.total_seconds() * 1000)}
    return state


async def find_room(client: Client, token: str) -> str | None:
    """The room that was made with this token, if the bot is in one; waits for the first sync."""
    await client.wait_until_synced()
    found = (room for room in client.rooms() if client.creation_content(room).get(_TOKEN) == token)
    return min(found, default=None)


async def create_room(client: Client, plan: Plan) -> str:
    """Find or make the room and invite the people who are not in it; return its ID.

    May be called again after any failure. Raises Transient or HomeserverRefused; where an invitation is
    refused for good (nobody of that name), the room exists and is found by the next call.
    """
    room_id = await find_room(client, plan.token)
    if room_id is None:
        room_id = await _make(client, plan)
    if await invite_missing(client, room_id, plan.people):
        await client.read_room(room_id)
    return room_id


async def _make(client: Client, plan: Plan) -> str:
    creation: Json = {_TOKEN: plan.token}
    if not plan.federate:
        creation["m.federate"] = False
    state = initial_state(plan, client.user_id)
    wanted = {
        "room_version": "12",
        "preset": "private_chat",  # the trusted one would make everybody a creator for ever
        "visibility": "private",
        "is_direct": False,
        "creation_content": creation,
        "power_level_content_override": power_levels(archived=plan.archived),
        "initial_state": [{"type": kind, "state_key": "", "content": state[kind]} for kind in state],
    }
    answer = await client.homeserver.ask("POST", "/createRoom", wanted)
    return str(answer["room_id"])


async def invite_missing(client: Client, room_id: str, people: Iterable[str]) -> list[str]:
    """Invite everybody of these who is neither joined nor invited; return whom."""
    members = client.members(room_id)
    missing = [person for person in sorted(people) if members.get(person) not in ("join", "invite")]
    for person in missing:
        await _invite(client, room_id, person)
    return missing


async def _invite(client: Client, room_id: str, person: str) -> None:
    place = path("/rooms/{room}/invite", room=room_id)
    try:
        await client.homeserver.ask("POST", place, {"user_id": person})
    except HomeserverRefused:
        await client.read_room(room_id)
        if client.members(room_id).get(person) not in ("join", "invite"):
            raise


async def mend_room(client: Client, room_id: str, plan: Plan) -> list[str]:
    """Compare a room with its plan and put right what differs; return what was put right.

    Those are event types of the room's state, the MXIDs of those who were put out, and `directory`. It also archives a
    room, and opens it again. Invites nobody: who left wanted to. Raises Transient, or Unmendable for what stays wrong.
    """
    state = await _read_state(client, room_id)
    wrong = _differences(state, plan, client.user_id)
    for kind, content in wrong.items():
        with _faulty(Fault.NOT_ENCRYPTED if kind == "m.room.encryption" else Fault.REFUSED):
            place = path("/rooms/{room}/state/{type}/", room=room_id, type=kind)
            await client.homeserver.ask("PUT", place, content)
    if await _is_listed(client, room_id):
        with _faulty(Fault.REFUSED):
            place = path("/directory/list/room/{room}", room=room_id)
            await client.homeserver.ask("PUT", place, {"visibility": "private"})
        wrong["directory"] = {}
    put_out = await _put_out(client, room_id, state, plan.people)
    return [*wrong, *put_out]


class Unmendable(Permanent):
    """What is wrong with a room and cannot be put right."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


@contextlib.contextmanager
def _faulty(fault: Fault) -> Iterator[None]:
    """What the homeserver refuses for good here is that fault."""
    try:
        with patient_with_proxies():
            yield
    except HomeserverRefused as refused:
        raise Unmendable(fault) from refused


async def _read_state(client: Client, room_id: str) -> list[Json]:
    """The room's state events. Raises Unmendable if the bot is not in it, or somebody else made it too."""
    with _faulty(Fault.GONE):
        events = await client.homeserver.ask_list("GET", path("/rooms/{room}/state", room=room_id))
    [creation] = [event for event in events if event["type"] == "m.room.create"]
    if creation["sender"] != client.user_id or creation["content"].get("additional_creators"):
        raise Unmendable(Fault.NOT_OURS)
    members = _members(events)
    if members.get(client.user_id) != "join":
        raise Unmendable(Fault.GONE)
    return events


def _differences(state: Sequence[Json], plan: Plan, bot: str) -> dict[str, Json]:
    """Event type -> content of what has to be written."""
    actual = {event["type"]: event["content"] for event in state if event.get("state_key") == ""}
    wanted = initial_state(plan, bot) | {
        "m.room.power_levels": power_levels(archived=plan.archived),
        "m.room.join_rules": {"join_rule": "invite"},
    }
    wrong = {kind: content for kind, content in wanted.items() if not _holds(actual.get(kind), content)}
    too_much = [kind for kind in _NOTHING.keys() - wanted.keys() if any(actual.get(kind, {}).values())]
    return wrong | {kind: _NOTHING[kind] for kind in sorted(too_much)}


def _holds(actual: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether all that is wanted stands there; for powers, also nothing else."""
    if actual is None:
        return False
    return dict(actual) == dict(wanted) if "users" in wanted else wanted.items() <= actual.items()


def _members(events: Iterable[Json]) -> dict[str, str]:
    """MXID -> membership."""
    return {event["state_key"]: str(event["content"].get("membership")) for event in events if event["type"] == _MEMBER}


async def _is_listed(client: Client, room_id: str) -> bool:
    """Whether the homeserver's public directory has the room (Matrix 1.18, "Listing rooms")."""
    with _faulty(Fault.REFUSED):
        answer = await client.homeserver.ask("GET", path("/directory/list/room/{room}", room=room_id))
    return answer.get("visibility") != "private"


async def _put_out(client: Client, room_id: str, state: Sequence[Json], people: Iterable[str]) -> list[str]:
    """Kick whoever is in the room, is invited or knocks, and does not belong there; return whom."""
    present = {user for user, membership in _members(state).items() if membership in PRESENT}
    extra = sorted(present - {*people, client.user_id})
    for user in extra:
        with _faulty(Fault.STRANGER):
            await client.homeserver.ask("POST", path("/rooms/{room}/kick", room=room_id), {"user_id": user})
    return extra

"""A pair's room: made once, its state and powers exactly as they must be, mended where they are not.

What a room is made of was tried against Synapse: members may write, react, pin, call and rename themselves,
and nothing else; it has no name, topic or avatar, so that each sees the other's name and face.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.client import Client
from bot.events import Json
from bot.requests import HomeserverRefused, path

_DAY_MS = 24 * 60 * 60 * 1000
_TOKEN = "org.visavis.room"  # noqa: S105  # the creation content's key, not a secret
_EVERYBODYS = ("m.room.pinned_events", "m.call.member", "org.matrix.msc3401.call.member", "m.rtc.member")


@dataclass(frozen=True)
class Plan:
    """What a pair's room is to be.

    `token` is a random string that the caller keeps from before the first attempt: it says nothing, and
    finds the room that a crashed attempt made. `federate` false shuts other homeservers out for ever: only
    where both people live on the bot's. `retention` is how long the homeserver keeps messages, None for
    its own rule. In an `archived` room nobody but the bot can write.
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
    """Compare the room's state with the plan and put right what differs; return the event types put right.

    Also archives a room, and opens it again. Invites nobody: who left wanted to.
    """
    events = await client.homeserver.ask_list("GET", path("/rooms/{room}/state", room=room_id))
    actual = {event["type"]: event["content"] for event in events if event.get("state_key") == ""}
    wanted = initial_state(plan, client.user_id) | {
        "m.room.power_levels": power_levels(archived=plan.archived),
        "m.room.join_rules": {"join_rule": "invite"},
    }
    wrong = [kind for kind, content in wanted.items() if not _holds(actual.get(kind), content)]
    for kind in wrong:
        await client.homeserver.ask("PUT", path("/rooms/{room}/state/{type}/", room=room_id, type=kind), wanted[kind])
    return wrong


def _holds(actual: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether all that is wanted stands there; for powers, also nothing else."""
    if actual is None:
        return False
    return dict(actual) == dict(wanted) if "users" in wanted else wanted.items() <= actual.items()

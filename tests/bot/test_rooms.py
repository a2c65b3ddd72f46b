"""A pair's room on a real homeserver: what it is made of, and what its members can do there."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest

from bot.requests import HomeserverRefused
from bot.rooms import Plan, create_room, find_room, mend_room
from embedded.synapse import Synapse
from supervision.errors import Transient
from tests.support.homeserver import Pair, Seat, make_account
from tests.support.human import HomeserverRefused as RefusedPerson
from tests.support.human import Human
from tests.support.proxy import Proxy

Json = dict[str, Any]


async def state_of(seat: Seat, room_id: str) -> dict[str, Json]:
    events = await seat.client.homeserver.ask_list("GET", f"/rooms/{room_id}/state")
    return {event["type"]: event["content"] for event in events if event["type"] != "m.room.member"}


def plan_for(*people: str, **values: Any) -> Plan:
    return Plan(secrets.token_hex(16), frozenset(people), **({"federate": False} | values))


async def test_room_is_made_exactly_so(synapse: Synapse, seat: Seat) -> None:
    ana, bruno = await make_account(synapse), await make_account(synapse)
    plan = plan_for(ana, bruno, retention=timedelta(days=365))
    room_id = await create_room(seat.client, plan)
    assert await state_of(seat, room_id) == {
        "m.room.create": {"room_version": "12", "m.federate": False, "org.visavis.room": plan.token},
        "m.room.power_levels": {
            "users": {},
            "users_default": 0,
            "events_default": 0,
            "state_default": 100,
            "invite": 100,
            "kick": 100,
            "ban": 100,
            "redact": 100,
            "historical": 100,
            "notifications": {"room": 100},
            "events": {
                "m.room.pinned_events": 0,
                "m.call.member": 0,
                "org.matrix.msc3401.call.member": 0,
                "m.rtc.member": 0,
                "m.room.tombstone": 150,
            },
        },
        "m.room.join_rules": {"join_rule": "invite"},
        "m.room.history_visibility": {"history_visibility": "joined"},
        "m.room.guest_access": {"guest_access": "forbidden"},
        "m.room.encryption": {
            "algorithm": "m.megolm.v1.aes-sha2",
            "rotation_period_ms": 86_400_000,
            "rotation_period_msgs": 100,
        },
        "io.element.functional_members": {"service_members": [seat.account.user_id]},
        "m.room.retention": {"max_lifetime": 365 * 86_400_000},
    }
    assert seat.client.members(room_id) == {seat.account.user_id: "join", ana: "invite", bruno: "invite"}


async def test_room_with_people_elsewhere_can_federate(synapse: Synapse, seat: Seat) -> None:
    plan = plan_for(await make_account(synapse), federate=True)
    room_id = await create_room(seat.client, plan)
    assert (await state_of(seat, room_id))["m.room.create"] == {"room_version": "12", "org.visavis.room": plan.token}


async def test_room_of_a_crashed_attempt_is_found(synapse: Synapse, far_seat: Seat, proxy: Proxy) -> None:
    ana = await make_account(synapse)
    plan = plan_for(ana)
    proxy.refuse = lambda _, path: (503, {}) if path.endswith("/invite") else None
    with pytest.raises(Transient):
        await create_room(far_seat.client, plan)
    proxy.refuse = lambda *_: None
    await far_seat.restart()
    room_id = await find_room(far_seat.client, plan.token)
    assert room_id is not None
    assert await create_room(far_seat.client, plan) == room_id
    assert far_seat.client.members(room_id) == {far_seat.account.user_id: "join", ana: "invite"}
    assert await create_room(far_seat.client, plan) == room_id
    assert proxy.count("/createRoom") == 1


async def test_room_with_nobody_of_that_name_is_kept_for_the_next_try(synapse: Synapse, seat: Seat) -> None:
    plan = plan_for("@nobody:elsewhere.example", await make_account(synapse))
    with pytest.raises(HomeserverRefused):
        await create_room(seat.client, plan)
    assert await find_room(seat.client, plan.token) is not None


async def allowed(person: Human, room_id: str, event_type: str, content: Json, state_key: str = "") -> bool:
    """Whether a member can set that state."""
    try:
        await person.request("PUT", f"/rooms/{room_id}/state/{event_type}/{state_key}", content)
    except RefusedPerson as refused:
        if refused.status != 403:
            raise
        return False
    return True


async def test_members_can_pin_and_call_and_nothing_else(seat: Seat, pair: Pair) -> None:
    ana, room_id = pair.ana, pair.room_id
    wishes: dict[str, Json] = {
        "m.room.pinned_events": {"pinned": []},
        "org.matrix.msc3401.call.member": {},
        "m.room.name": {"name": "x"},
        "m.room.topic": {"topic": "x"},
        "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
        "m.room.history_visibility": {"history_visibility": "world_readable"},
        "m.room.power_levels": {"users": {}},
        "m.room.tombstone": {"body": "x", "replacement_room": "!other:localhost"},
    }
    can = {name: await allowed(ana, room_id, name, content) for name, content in wishes.items()}
    assert [name for name, is_allowed in can.items() if is_allowed] == [
        "m.room.pinned_events",
        "org.matrix.msc3401.call.member",
    ]
    named = {"membership": "join", "displayname": "Ana"}
    assert await allowed(ana, room_id, "m.room.member", named, ana.user_id)
    for act, body in {"invite": {"user_id": "@visavis.x:localhost"}, "kick": {"user_id": pair.bruno.user_id}}.items():
        with pytest.raises(RefusedPerson):
            await ana.request("POST", f"/rooms/{room_id}/{act}", body)


async def test_archived_room_is_silent_until_it_is_opened(synapse: Synapse, seat: Seat, pair: Pair) -> None:
    token = str(seat.client.creation_content(pair.room_id)["org.visavis.room"])
    people = frozenset(pair.people)
    archived = Plan(token, people, federate=False, archived=True)
    assert await mend_room(seat.client, pair.room_id, archived) == ["m.room.power_levels"]
    text = {"msgtype": "m.text", "body": "x"}
    with pytest.raises(RefusedPerson):
        await pair.ana.send_raw(pair.room_id, "m.room.message", text, encrypted=False)
    assert not await allowed(pair.ana, pair.room_id, "m.room.pinned_events", {"pinned": []})
    opened = Plan(token, people, federate=False)
    assert await mend_room(seat.client, pair.room_id, opened) == ["m.room.power_levels"]
    assert await mend_room(seat.client, pair.room_id, opened) == []
    await pair.ana.send_text(pair.room_id, "x")

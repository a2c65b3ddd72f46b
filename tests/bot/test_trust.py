"""Whom the bot believes and to whom it speaks, with real clients and what they could forge."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import vodozemac

from bot.client import NobodyToHear
from bot.events import Doubt
from bot.signatures import Device, PublishedKeys, Seeds, canonical, decode, fingerprint, is_signed, read_keys
from bot.trust import Trust
from embedded.synapse import Synapse
from supervision.errors import Transient
from tests.support.homeserver import Pair, Seat, phone
from tests.support.human import Human
from tests.support.proxy import Proxy

Json = dict[str, Any]


async def posted_again(poster: Human, room_id: str, event_id: str) -> str:
    """Post the ciphertext of an event as the poster's own; the new event's ID."""
    event = await poster.request("GET", f"/rooms/{room_id}/event/{event_id}")
    return await poster.send_raw(room_id, "m.room.encrypted", event["content"], encrypted=False)


async def post_inside(sender: Human, room_id: str, payload: object) -> str:
    """Encrypt any payload with the sender's present Megolm session and post it."""
    olm: Any = sender.client.olm
    session = olm.outbound_group_sessions[room_id]
    content = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": session.encrypt(payload if isinstance(payload, str) else json.dumps(payload)),
        "session_id": session.id,
    }
    return await sender.send_raw(room_id, "m.room.encrypted", content, encrypted=False)


async def whisper(sender: Human, bot: str, device_id: str, event_type: str, content: Json) -> None:
    """Send the bot anything inside a real Olm message."""
    olm: Any = sender.client.olm
    device = olm.device_store[bot][device_id]
    sealed = olm._olm_encrypt(olm.session_store.get(device.curve25519), device, event_type, content)  # noqa: SLF001  # as an attacker
    path = f"/sendToDevice/m.room.encrypted/{secrets.token_hex(8)}"
    await sender.request("PUT", path, {"messages": {bot: {device_id: sealed}}})


# The bot's own identity


async def test_bot_is_cross_signed_for_everybody(seat: Seat, pair: Pair) -> None:
    bot = seat.account.user_id
    answer = await pair.ana.request("POST", "/keys/query", {"device_keys": {bot: []}})
    keys = read_keys(answer, bot)
    assert keys.master_key == seat.client.master_key
    assert [(device.device_id, device.signed) for device in keys.devices] == [(seat.client.device_id, True)]
    assert seat.client.fingerprint.replace(" ", "") == seat.client.master_key


async def test_identity_that_another_put_is_replaced_at_start(seat: Seat) -> None:
    master = seat.client.master_key
    other = Seeds.generate().upload(seat.account.user_id)
    await seat.client.homeserver.ask("POST", "/keys/device_signing/upload", other)
    await seat.restart()
    answer = await seat.client.homeserver.ask("POST", "/keys/query", {"device_keys": {seat.account.user_id: []}})
    keys = read_keys(answer, seat.account.user_id)
    assert [device.signed for device in keys.devices] == [True]
    assert keys.master_key == seat.client.master_key
    assert seat.client.master_key not in (master, other["master_key"]["keys"])
    master = seat.client.master_key
    await seat.restart()
    assert seat.client.master_key == master


async def test_lower_key_that_another_put_is_replaced_under_the_same_master(seat: Seat) -> None:
    master, folder = seat.client.master_key, seat.account.store / "seeds.json"
    kept = json.loads(folder.read_text())
    seeds = Seeds(**{name: decode(seed) for name, seed in kept.items()})
    other = seeds.renew_lower().upload(seat.account.user_id)
    del other["master_key"]
    await seat.client.homeserver.ask("POST", "/keys/device_signing/upload", other)
    await seat.restart()
    answer = await seat.client.homeserver.ask("POST", "/keys/query", {"device_keys": {seat.account.user_id: []}})
    keys = read_keys(answer, seat.account.user_id)
    assert (keys.master_key, [device.signed for device in keys.devices]) == (master, [True])


# Doubts


async def test_unsigned_phone_is_doubted_and_told_why_and_changes_nothing_for_the_signed(
    synapse: Synapse, seat: Seat, pair: Pair, tmp_path: Path
) -> None:
    async with phone(synapse, tmp_path, pair.bruno.user_id, cross_signed=False) as old:
        await seat.say(pair, "hello")
        doubted = await seat.next_heard(await old.send_text(pair.room_id, "!book"))
        believed = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
        assert (doubted.doubt, doubted.device_id) == (Doubt.unsigned_device, old.device_id)
        assert (believed.doubt, believed.device_id) == (None, pair.bruno.device_id)
        assert (await pair.bruno.next_message(seat.account.user_id)).body == "hello"
        await old.wait_for(lambda: old.unreadable or None, "the unreadable message")
        (unreadable,) = old.unreadable.values()
        assert old.withheld == {unreadable.session_id: "m.unverified"}


async def test_device_that_the_homeserver_adds_gets_no_key(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    """It signs itself as a device of Bruno's does, and bears signatures that look like his identity's."""
    bruno, added = far_pair.bruno.user_id, vodozemac.Account()
    forged: Json = {
        "user_id": bruno,
        "device_id": "ADDED",
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            "ed25519:ADDED": added.ed25519_key.to_base64(),
            "curve25519:ADDED": added.curve25519_key.to_base64(),
        },
    }

    def add(path: str, answer: Json) -> Json:
        if path == "/keys/query" and bruno in answer.get("device_keys", {}):
            real = answer["device_keys"][bruno][far_pair.bruno.device_id]
            signatures = real["signatures"][bruno] | {"ed25519:ADDED": added.sign(canonical(forged)).to_base64()}
            answer["device_keys"][bruno]["ADDED"] = forged | {"signatures": {bruno: signatures}}
        return answer

    proxy.forge = add
    far_seat.client.reconsider(bruno)
    said = await far_seat.say(far_pair, "for the two alone")
    trust = far_seat.client.trust(bruno)
    assert trust is not None
    assert [device.device_id for device in trust.refused] == ["ADDED"]
    shared = far_seat.client._keys_now()._shared[far_pair.room_id]  # noqa: SLF001  # whom it gave the key
    assert {device.device_id for device in shared.holders} == {far_pair.ana.device_id, far_pair.bruno.device_id}
    assert {device.device_id for device in shared.refused} == {"ADDED"}
    assert (await far_pair.bruno.next_message(far_seat.account.user_id)).event_id == said


@pytest.mark.parametrize("failing", ["/keys/claim", "/sendToDevice"])
async def test_a_broken_session_is_begun_anew_once(far_seat: Seat, far_pair: Pair, proxy: Proxy, failing: str) -> None:
    """A homeserver that is away, or does not pass it on, uses up no further one-time key of anybody's device."""
    keys, machine = far_seat.client._keys_now(), far_seat.client._machine_now()  # noqa: SLF001
    [device] = keys._devices([far_pair.ana.user_id])[0]  # noqa: SLF001
    eva = replace(device, user_id="@eva:elsewhere.example", curve25519="x" * 43)
    published = PublishedKeys(eva.user_id, "master", None, None, (eva,))
    keys._directory._trusts[eva.user_id] = Trust(published, "master")  # noqa: SLF001  # of a homeserver that is away
    claimed: list[str] = []
    before = len(proxy.asked)

    async def note(place: str, body: bytes) -> None:
        if place == "/keys/claim":
            claimed.extend(json.loads(body)["one_time_keys"])

    def refuse(_: str, place: str) -> tuple[int, Json] | None:
        if place == "/keys/claim" and claimed[-1] == eva.user_id:
            return 502, {}
        return (502, {}) if place.startswith(failing) and failing != "/keys/claim" else None

    proxy.hold, proxy.refuse = note, refuse
    machine.wedged |= {(one.user_id, one.curve25519) for one in (device, eva)}
    for _ in range(4):
        with pytest.raises(Transient, match="http_502"):
            await keys.mend()
    assert sorted(claimed) == [*[eva.user_id] * 4, device.user_id]
    proxy.refuse = lambda *_: None
    await keys.mend()
    await keys.mend()
    assert sorted(claimed) == [*[eva.user_id] * 5, device.user_id]
    told = [place for _, place in proxy.asked[before:] if place.startswith("/sendToDevice/m.room.encrypted/")]
    assert len(told) == (1 if failing == "/keys/claim" else 5)


async def test_clear_text_is_doubted(seat: Seat, pair: Pair) -> None:
    content = {"msgtype": "m.text", "body": "!book"}
    sent = await pair.bruno.send_raw(pair.room_id, "m.room.message", content, encrypted=False)
    event = await seat.next_heard(sent)
    assert (event.kind, event.body, event.doubt) == ("text", "!book", Doubt.not_encrypted)


async def test_ciphertext_posted_by_another_is_doubted(seat: Seat, pair: Pair) -> None:
    original = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
    repost = await seat.next_heard(await posted_again(pair.ana, pair.room_id, original.event_id))
    assert (repost.sender, repost.doubt) == (pair.ana.user_id, Doubt.wrong_sender)
    assert (repost.session_id, repost.message_index) == (original.session_id, original.message_index)


async def test_ciphertext_posted_twice_bears_the_same_index_even_after_restart(seat: Seat, pair: Pair) -> None:
    original = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
    await seat.restart()
    repost = await seat.next_heard(await posted_again(pair.bruno, pair.room_id, original.event_id))
    assert (repost.session_id, repost.message_index) == (original.session_id, original.message_index)


async def test_claim_on_anothers_session_changes_nothing(seat: Seat, pair: Pair) -> None:
    await seat.next_heard(await pair.bruno.send_text(pair.room_id, "first"))
    await seat.next_heard(await pair.ana.send_text(pair.room_id, "first"))
    olm: Any = pair.bruno.client.olm
    session = olm.outbound_group_sessions[pair.room_id]
    claim = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": pair.room_id,
        "session_id": session.id,
        "session_key": session.session_key,
    }
    await whisper(pair.ana, seat.account.user_id, seat.client.device_id, "m.room_key", claim)
    for _ in range(2):
        believed = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
        repost = await seat.next_heard(await posted_again(pair.ana, pair.room_id, believed.event_id))
        assert (believed.doubt, repost.doubt) == (None, Doubt.wrong_sender)
        await seat.restart()


async def test_forwarded_key_is_not_taken(far_seat: Seat, far_pair: Pair) -> None:
    ana, room_id = far_pair.ana, far_pair.room_id
    await far_seat.next_heard(await ana.send_text(room_id, "first"))
    group = vodozemac.GroupSession()
    inbound = vodozemac.InboundGroupSession(group.session_key)
    exported = inbound.export_at(0)
    assert exported is not None
    forwarded = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": room_id,
        "session_id": group.session_id,
        "session_key": exported.to_base64(),
        "sender_key": vodozemac.Account().curve25519_key.to_base64(),
        "sender_claimed_ed25519_key": vodozemac.Account().ed25519_key.to_base64(),
        "forwarding_curve25519_key_chain": [],
    }
    await whisper(ana, far_seat.account.user_id, far_seat.client.device_id, "m.forwarded_room_key", forwarded)
    content = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": group.encrypt(b"{}").to_base64(),
        "session_id": group.session_id,
    }
    event = await far_seat.next_heard(await ana.send_raw(room_id, "m.room.encrypted", content, encrypted=False))
    assert (event.kind, event.doubt) == ("undecryptable", Doubt.undecryptable)


async def test_session_at_second_hand_is_doubted(seat: Seat, pair: Pair) -> None:
    event = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "first"))
    assert event.session_id is not None
    session = seat.client._machine_now().session(pair.room_id, event.session_id)  # noqa: SLF001  # as a restored store had it
    assert session is not None
    session.forwarding_chain = [session.sender_key]
    event = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
    assert event.doubt == Doubt.forwarded_session


async def test_odd_plaintext_is_doubted(seat: Seat, pair: Pair) -> None:
    message = {"type": "m.room.message", "content": {"body": "!book"}}
    payloads: list[tuple[object, Doubt]] = [
        (message | {"room_id": "!other"}, Doubt.wrong_room),
        (message, Doubt.wrong_room),
        ({"type": 3, "content": {}}, Doubt.malformed),
        ({"type": "m.room.message", "content": []}, Doubt.malformed),
        ("no json", Doubt.malformed),
        ("[" * 40_000, Doubt.malformed),
    ]
    await seat.next_heard(await pair.bruno.send_text(pair.room_id, "first"))
    for payload, doubt in payloads:
        event = await seat.next_heard(await post_inside(pair.bruno, pair.room_id, payload))
        assert (event.doubt, event.body, event.kind) == (doubt, "", "other")


async def test_odd_ciphertext_is_given_as_undecryptable(seat: Seat, pair: Pair) -> None:
    event = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "first"))
    contents: list[Json] = [
        {"algorithm": "m.megolm.v1.aes-sha2", "session_id": event.session_id, "ciphertext": "%%%"},
        {"algorithm": "m.megolm.v1.aes-sha2", "session_id": event.session_id, "ciphertext": {}},
        {"algorithm": "m.megolm.v1.aes-sha2", "session_id": 3},
        {"algorithm": "unknown", "session_id": event.session_id, "ciphertext": "abc"},
        {},
    ]
    for content in contents:
        sent = await pair.bruno.send_raw(pair.room_id, "m.room.encrypted", content, encrypted=False)
        assert (await seat.next_heard(sent)).doubt == Doubt.undecryptable


# Identities


async def test_changed_identity_is_doubted_until_pinned_anew(
    synapse: Synapse, seat: Seat, pair: Pair, tmp_path: Path
) -> None:
    bruno = pair.bruno.user_id
    await seat.say(pair, "before")
    async with phone(synapse, tmp_path, bruno) as stolen:
        await seat.wait_for(lambda: not seat.client.can_read(pair.room_id, bruno))
        assert seat.trusts[-1][1].changed
        event = await seat.next_heard(await stolen.send_text(pair.room_id, "!book"))
        assert (event.doubt, event.device_id) == (Doubt.changed_identity, stolen.device_id)
        said = await seat.say(pair, "not for the new phone")
        await pair.ana.next_message(seat.account.user_id, lambda message: message.event_id == said)
        await stolen.wait_for(lambda: stolen.withheld or None, "the reason")
        assert said not in {message.event_id for message in stolen.messages}
        seat.pins[bruno] = stolen.identity.fingerprint
        seat.client.reconsider(bruno)
        await seat.wait_for(lambda: seat.client.can_read(pair.room_id, bruno))
        event = await seat.next_heard(await stolen.send_text(pair.room_id, "!book"))
        assert event.doubt is None
        await seat.say(pair, "welcome")
        assert (await stolen.next_message(seat.account.user_id)).body == "welcome"


async def test_person_whom_the_caller_does_not_know_is_not_believed(seat: Seat, pair: Pair) -> None:
    async def unknown(*_: str) -> None:
        return None

    seat.client.directory._pin = unknown  # noqa: SLF001  # as for somebody who is no person of ours
    for person in (pair.ana, pair.bruno):
        seat.client.directory._trusts.pop(person.user_id)  # noqa: SLF001
        seat.client.reconsider(person.user_id)
    event = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
    assert event.doubt == Doubt.unsigned_device
    with pytest.raises(NobodyToHear):
        await seat.say(pair, "to nobody")


async def test_nothing_is_lost_while_pins_cannot_be_read(seat: Seat, pair: Pair) -> None:
    pin, tries = seat.client.directory._pin, 0  # noqa: SLF001  # the caller's database going away

    async def away(user_id: str, master_key: str) -> str | None:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise ZeroDivisionError
        return await pin(user_id, master_key)

    seat.client.directory._pin = away  # noqa: SLF001
    seat.client.reconsider(pair.bruno.user_id)
    assert (await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))).doubt is None


async def test_room_key_changes_when_a_phone_goes(synapse: Synapse, seat: Seat, pair: Pair, tmp_path: Path) -> None:
    bruno, bot = pair.bruno.user_id, seat.account.user_id
    async with phone(synapse, tmp_path, bruno, identity=pair.bruno.identity) as second:
        await seat.wait_for(lambda: len(believed(seat, bruno)) == 2)
        first = await seat.say(pair, "both can read")
        await second.next_message(bot, lambda message: message.event_id == first)
        await second.request("POST", "/logout", {})
        await seat.wait_for(lambda: len(believed(seat, bruno)) == 1)
    sessions = []
    for event_id in (first, await seat.say(pair, "only one is left")):
        event = await pair.ana.request("GET", f"/rooms/{pair.room_id}/event/{event_id}")
        sessions.append(event["content"]["session_id"])
    assert sessions[0] != sessions[1]


def believed(seat: Seat, user_id: str) -> tuple[Device, ...]:
    trust = seat.client.trust(user_id)
    return trust.believed if trust is not None else ()


# Privacy


async def test_nothing_said_is_logged(seat: Seat, pair: Pair) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError("hush hush")

    with structlog.testing.capture_logs() as logs:
        seat.answer = fail
        await seat.next_heard_or_dropped(await pair.bruno.send_text(pair.room_id, "hush hush"))
    assert logs
    assert "hush" not in json.dumps(logs)


# Signatures, without a homeserver


@pytest.fixture
def published() -> Json:
    """An answer of `/keys/query` about somebody with one signed device."""
    user_id, account, seeds = "@ana:example.org", vodozemac.Account(), Seeds.generate()
    keys = seeds.upload(user_id)
    device: Json = {
        "user_id": user_id,
        "device_id": "PHONE",
        "algorithms": [],
        "keys": {
            "ed25519:PHONE": account.ed25519_key.to_base64(),
            "curve25519:PHONE": account.curve25519_key.to_base64(),
        },
    }
    signature = account.sign(canonical(device)).to_base64()
    signatures = seeds.sign_device(device)["signatures"]
    signatures[user_id]["ed25519:PHONE"] = signature
    return {
        "device_keys": {user_id: {"PHONE": device | {"signatures": signatures, "unsigned": {"name": "x"}}}},
        "master_keys": {user_id: keys["master_key"]},
        "self_signing_keys": {user_id: keys["self_signing_key"]},
        "user_signing_keys": {user_id: keys["user_signing_key"]},
    }


def test_whole_chain_is_signed(published: Json) -> None:
    keys = read_keys(published, "@ana:example.org")
    assert keys.master_key is not None
    assert [device.signed for device in keys.devices] == [True]
    assert fingerprint("abcdefgh9") == "abcd efgh 9"


def other_master(answer: Json) -> None:
    answer["master_keys"]["@ana:example.org"] = Seeds.generate().upload("@ana:example.org")["master_key"]


def no_usage(answer: Json) -> None:
    answer["master_keys"]["@ana:example.org"]["usage"] = ["self_signing"]


def anothers_master(answer: Json) -> None:
    answer["master_keys"]["@ana:example.org"]["user_id"] = "@eve:example.org"


def padded_key(answer: Json) -> None:
    (key,) = answer["master_keys"]["@ana:example.org"]["keys"].values()
    answer["master_keys"]["@ana:example.org"]["keys"] = {f"ed25519:{key}=": f"{key}"}


def two_keys(answer: Json) -> None:
    answer["master_keys"]["@ana:example.org"]["keys"]["ed25519:b"] = "b"


def no_self_signing(answer: Json) -> None:
    del answer["self_signing_keys"]


def unsigned_self_signing(answer: Json) -> None:
    del answer["self_signing_keys"]["@ana:example.org"]["signatures"]


def other_self_signing(answer: Json) -> None:
    keys = Seeds.generate().upload("@ana:example.org")
    answer["self_signing_keys"]["@ana:example.org"] = keys["self_signing_key"]


def no_device_signature(answer: Json) -> None:
    signatures = answer["device_keys"]["@ana:example.org"]["PHONE"]["signatures"]["@ana:example.org"]
    for name in [name for name in signatures if name != "ed25519:PHONE"]:
        del signatures[name]


@pytest.mark.parametrize(
    "forge",
    [
        other_master,
        no_usage,
        anothers_master,
        padded_key,
        two_keys,
        no_self_signing,
        unsigned_self_signing,
        other_self_signing,
        no_device_signature,
    ],
)
def test_broken_chain_signs_nothing(published: Json, forge: Callable[[Json], None]) -> None:
    forge(published)
    assert [device.signed for device in read_keys(published, "@ana:example.org").devices] == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"device_id": "OTHER"},
        {"user_id": "@eve:example.org"},
        {"keys": {}},
        {"keys": []},
        {"algorithms": ["changed"]},
        {"signatures": {}},
        {"signatures": None},
        {"more": float("nan")},
    ],
)
def test_device_that_does_not_sign_itself_is_left_out(published: Json, change: Json) -> None:
    published["device_keys"]["@ana:example.org"]["PHONE"].update(change)
    assert read_keys(published, "@ana:example.org").devices == ()


@pytest.mark.parametrize("nonsense", [None, [], 3, "x", {"@ana:example.org": 3}, {"@ana:example.org": {"PHONE": 3}}])
def test_nonsense_is_as_good_as_absent(published: Json, nonsense: object) -> None:
    for name in published:
        answer = copy.deepcopy(published) | {name: nonsense}
        keys = read_keys(answer, "@ana:example.org")
        assert not any(device.signed for device in keys.devices) or name == "user_signing_keys"


def test_signature_of_nonsense_is_none() -> None:
    assert not is_signed({"signatures": {"@a:b": {"ed25519:K": "AAAA"}}}, "@a:b", "K", "%%%")

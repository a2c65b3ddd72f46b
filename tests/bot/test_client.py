"""The bot's transport against a real homeserver and real encrypted clients."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import vodozemac

from bot.client import Client, Incoming, LoggedOut, NobodyToHear, StrangerInRoom
from bot.logins import StoreInUse
from bot.requests import HomeserverRefused
from bot.signatures import encode, read_keys
from embedded.synapse import Synapse
from supervision.errors import Permanent, Transient
from tests.support.homeserver import Pair, Seat, make_account, people, phone
from tests.support.proxy import Proxy

Json = dict[str, Any]


async def test_command_is_believed_and_answered(seat: Seat, pair: Pair) -> None:
    async def answer(event: Incoming) -> None:
        await seat.say(pair, f"heard {event.body}", transaction_id=event.event_id[1:])

    seat.answer = answer
    reply = await pair.bruno.ask(pair.room_id, "!book", seat.account.user_id)
    await seat.wait_for(lambda: seat.heard != [])  # it is noted when its answer is said, which may be read before
    event = seat.heard[-1]
    assert (event.body, event.kind, event.doubt) == ("!book", "text", None)
    assert (event.sender, event.device_id) == (pair.bruno.user_id, pair.bruno.device_id)
    assert (reply.body, reply.encrypted) == ("heard !book", True)


# What an event looks like


async def test_relations_reactions_and_files_are_told(seat: Seat, pair: Pair) -> None:
    bruno, room_id = pair.bruno, pair.room_id
    text = await bruno.send_text(room_id, "first")
    edit = await seat.next_heard(await bruno.edit(room_id, text, "changed"))
    threaded = await seat.next_heard(await bruno.send_text(room_id, "inside", thread=text))
    reaction = await seat.next_heard(await bruno.react(room_id, text, "1\ufe0f⃣"))
    thumb = await seat.next_heard(await bruno.react(room_id, text, "👍🏽"))
    sent = await bruno.send_file(room_id, "../../x", b"abc", "application/octet-stream")
    attachment = await seat.next_heard(sent)
    redaction = await seat.next_heard(await bruno.redact(room_id, text))
    assert (edit.is_edit, edit.thread_root) == (True, None)
    assert (threaded.is_edit, threaded.thread_root, threaded.body) == (False, text, "inside")
    assert (reaction.kind, reaction.relates_to, reaction.key, reaction.doubt) == ("reaction", text, "1⃣", None)
    assert thumb.key == "👍"
    assert (attachment.kind, attachment.filename, attachment.msgtype) == ("attachment", "../../x", "m.file")
    assert (redaction.kind, redaction.relates_to) == ("redaction", text)


async def test_repr_of_event_says_nothing(seat: Seat, pair: Pair) -> None:
    event = await seat.next_heard(await pair.bruno.send_text(pair.room_id, "a secret"))
    assert "secret" not in repr(event)


# Losing nothing, repeating nothing


async def test_unhandled_event_comes_again_after_restart(seat: Seat, pair: Pair) -> None:
    struck = asyncio.Event()

    async def hang(event: Incoming) -> None:
        seat.heard.append(event)
        struck.set()
        await asyncio.Event().wait()

    seat.answer = hang
    event_id = await pair.bruno.send_text(pair.room_id, "!book")
    await struck.wait()
    (before,) = seat.heard
    seat.answer, seat.heard = None, []
    await seat.restart()
    assert await seat.next_heard(event_id) == before
    assert before.doubt is None


async def test_absence_longer_than_a_timeline_loses_nothing(
    seat: Seat, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.client._GAP_PAGE", 6)
    for body in ("one", "two"):
        await seat.next_heard(await pair.bruno.send_text(pair.room_id, body))
    await seat.stop()
    sent = [await pair.bruno.send_text(pair.room_id, f"number {number}") for number in range(70)]
    seat.heard = []
    await seat.start()
    await seat.next_heard(sent[-1])
    again = [event.body for event in seat.heard[: -len(sent)]]
    assert again in ([], ["two"])  # the last token may not have been kept any more
    assert [event.event_id for event in seat.heard[-len(sent) :]] == sent
    assert {event.doubt for event in seat.heard} == {None}


async def say_much(seat: Seat, pair: Pair, count: int) -> list[str]:
    """So many messages while the bot is away, in clear, as that is quicker; their IDs in the room's order."""
    await seat.stop()
    content = {"msgtype": "m.text", "body": "good morning"}
    for _ in range(count):
        await pair.bruno.send_raw(pair.room_id, "m.room.message", content, encrypted=False)
    page = await pair.bruno.request("GET", f"/rooms/{pair.room_id}/messages?dir=b&limit={count}")
    return [event["event_id"] for event in reversed(page["chunk"])]


async def test_gap_behind_a_forgotten_token_is_filled(seat: Seat, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.client._GAP_PAGE", 6)
    sent = await say_much(seat, pair, 55)
    seat.token = "nonsense"
    await seat.start()
    await seat.next_heard(sent[-1])
    assert [event.event_id for event in seat.heard if event.event_id in sent] == sent


async def hide_a_page(seat: Seat, pair: Pair, count: int) -> None:
    """Messages that a homeserver shows no more, and has not purged yet: they are older than the room's days."""
    homeserver = seat.client.homeserver
    old = str(int((datetime.now(UTC) - timedelta(days=40)).timestamp() * 1000))
    days = {"max_lifetime": int(timedelta(days=30).total_seconds() * 1000)}
    await homeserver.ask("PUT", f"/rooms/{pair.room_id}/state/m.room.retention/", days)
    for _ in range(count):
        place = f"/rooms/{pair.room_id}/send/m.room.message/{secrets.token_hex(8)}"
        await homeserver.ask("PUT", place, {"msgtype": "m.text", "body": "old"}, params={"ts": old})
    await homeserver.close()


async def test_gap_does_not_end_where_nothing_is_shown(seat: Seat, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command stands behind a page of messages that are hidden."""
    monkeypatch.setattr("bot.client._GAP_PAGE", 6)
    await seat.next_heard(await pair.bruno.send_text(pair.room_id, "good morning"))
    await seat.stop()
    command = await pair.bruno.send_text(pair.room_id, "!book")
    await hide_a_page(seat, pair, 14)
    sent = await say_much(seat, pair, 55)
    await seat.start()
    await seat.next_heard(sent[-1])
    heard = [event.event_id for event in seat.heard if event.event_id in (command, *sent)]
    assert heard == [command, *sent]


async def test_gap_that_is_refused_loses_nothing_else(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    proxy.refuse = lambda _, path: (403, {"errcode": "M_FORBIDDEN"}) if path.endswith("/messages") else None
    sent = await say_much(far_seat, far_pair, 55)
    await far_seat.start()
    await far_seat.next_heard(sent[-1])
    heard = [event.event_id for event in far_seat.heard]
    assert heard == sent[-len(heard) :]
    assert len(heard) == 50
    event = await far_seat.next_heard(await far_pair.bruno.send_text(far_pair.room_id, "!book"))
    assert event.doubt is None


async def test_gap_that_a_proxy_refuses_is_filled_later(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    """What it says is not the homeserver's word, and commands stand in the gap."""
    place = f"/rooms/{far_pair.room_id}/messages"
    sent = await say_much(far_seat, far_pair, 55)
    refused = proxy.count(place) + 1
    proxy.refuse = lambda _, path: (400, {}) if path == place and proxy.count(place) == refused else None
    await far_seat.start()
    await far_seat.next_heard(sent[-1])
    assert [event.event_id for event in far_seat.heard if event.event_id in sent] == sent


async def test_what_was_taken_back_before_it_was_read_commands_nothing(
    far_seat: Seat, far_pair: Pair, proxy: Proxy
) -> None:
    """Its key comes late, so it is still waiting when it is taken back; another was gone before anybody asked."""
    withheld: list[Json] = []
    shown: set[str] = set()

    def delay_keys(path: str, answer: Json) -> Json:
        if path == "/sync":
            withheld.extend(answer.pop("to_device", {"events": []})["events"])
            room = answer.get("rooms", {}).get("join", {}).get(far_pair.room_id, {})
            shown.update(event["event_id"] for event in room.get("timeline", {}).get("events", []))
        return answer

    def bring_keys(path: str, answer: Json) -> Json:
        if path == "/sync":
            answer.setdefault("to_device", {"events": []})["events"].extend(withheld)
            withheld.clear()
        return answer

    bruno, room_id = far_pair.bruno, far_pair.room_id
    proxy.forge = delay_keys
    command = await bruno.send_text(room_id, "!book")
    while command not in shown:  # noqa: ASYNC110 - what is taken back before that comes without its content
        await asyncio.sleep(0.02)
    await far_seat.next_heard(await bruno.redact(room_id, command))
    proxy.forge = bring_keys
    assert (await far_seat.next_heard(await bruno.send_text(room_id, "!help"))).doubt is None
    waited = await far_seat.next_heard(command)
    await far_seat.stop()
    gone = await bruno.send_text(room_id, "!book")
    tap = await bruno.react(room_id, command, "✅")
    for event_id in (gone, tap):
        await bruno.redact(room_id, event_id)
    await far_seat.start()
    pruned, untapped = await far_seat.next_heard(gone), await far_seat.next_heard(tap)
    assert (waited.kind, waited.doubt) == ("text", "redacted")
    assert (pruned.kind, pruned.doubt, pruned.body) == ("other", "redacted", "")
    assert (untapped.kind, untapped.doubt, untapped.relates_to) == ("reaction", "redacted", None)


async def test_slow_room_holds_up_neither_sync_nor_other_rooms(
    synapse: Synapse, seat: Seat, pair: Pair, tmp_path: Path
) -> None:
    release, order = asyncio.Event(), []

    async def answer(event: Incoming) -> None:
        if event.room_id == pair.room_id:
            await release.wait()
        order.append(event.event_id)

    async with people(synapse, tmp_path, 2) as (clara, davi):
        other = await seat.pair_up(clara, davi)
        seat.answer = answer
        slow = [await pair.bruno.send_text(pair.room_id, body) for body in ("one", "two")]
        quick = await clara.send_text(other.room_id, "three")
        await seat.next_heard(quick)
        token = seat.token
        release.set()
        await seat.next_heard(slow[1])
        assert order == [quick, *slow]
        await seat.wait_for(lambda: seat.token != token)


async def test_event_is_tried_again_while_something_is_out_of_reach(seat: Seat, pair: Pair) -> None:
    tries = 0

    async def answer(event: Incoming) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Transient("database_unreachable")

    seat.answer = answer
    await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
    assert tries == 3


async def test_a_disk_that_takes_nothing_loses_no_event_and_no_answer(seat: Seat, pair: Pair) -> None:
    """Longer than an event is tried with which something is wrong."""
    room_id = pair.room_id
    await seat.next_heard(await pair.bruno.send_text(room_id, "good morning"))
    machine = seat.client._machine_now()  # noqa: SLF001
    machine.marks._noted.clear()  # noqa: SLF001  # as of an hour ago
    machine.store.database.execute_sql("DELETE FROM visavis_hours")
    machine.store.database.execute_sql("PRAGMA query_only = ON")
    event_id = await pair.bruno.send_text(room_id, "!help")
    await asyncio.sleep(6)
    assert event_id not in [event.event_id for event in seat.heard]
    with pytest.raises(Transient, match="crypto_store"):
        await seat.client.send(room_id, "m.room.message", {"body": "x"}, transaction_id="disk", expected=pair.people)
    machine.store.database.execute_sql("PRAGMA query_only = OFF")
    assert (await seat.next_heard(event_id)).doubt is None


async def test_a_disk_that_takes_nothing_loses_no_key(seat: Seat, pair: Pair) -> None:
    database = seat.client._machine_now().store.database  # noqa: SLF001
    database.execute_sql("PRAGMA query_only = ON")
    event_id = await pair.bruno.send_text(pair.room_id, "the first that this device writes")
    await asyncio.sleep(3)
    database.execute_sql("PRAGMA query_only = OFF")
    assert (await seat.next_heard(event_id)).doubt is None


async def test_event_of_a_bug_is_dropped_and_the_room_goes_on(seat: Seat, pair: Pair) -> None:
    tries = 0

    async def answer(event: Incoming) -> None:
        nonlocal tries
        if event.body == "poison":
            tries += 1
            raise ZeroDivisionError

    seat.answer = answer
    await pair.bruno.send_text(pair.room_id, "poison")
    await seat.next_heard(await pair.bruno.send_text(pair.room_id, "!book"))
    assert tries == 3


# A homeserver in trouble, and hostile senders


async def test_failing_syncs_are_asked_rarely_and_recovered_from(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    asked = proxy.count("/sync")
    proxy.refuse = lambda _, path: (502, {}) if path == "/sync" else None
    await far_pair.bruno.send_text(far_pair.room_id, "wake")  # ends the open long-poll
    event_id = await far_pair.bruno.send_text(far_pair.room_id, "!book")
    await asyncio.sleep(4)
    assert proxy.count("/sync") - asked <= 5
    assert far_seat.client.is_away
    proxy.refuse = lambda *_: None
    assert (await far_seat.next_heard(event_id)).doubt is None
    assert not far_seat.client.is_away


async def test_what_a_proxy_refuses_loses_no_place_and_no_command(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    """It does not know what the homeserver would say: neither that the token is unknown, nor whose device it was."""
    first = await far_pair.bruno.send_text(far_pair.room_id, "good morning")
    await far_seat.next_heard(first)
    asked = proxy.count("/sync")
    proxy.refuse = lambda _, path: (400, {}) if path == "/sync" and proxy.count("/sync") <= asked + 3 else None
    second = await far_pair.bruno.send_text(far_pair.room_id, "are you there?")  # ends the open long-poll
    third = await far_pair.bruno.send_text(far_pair.room_id, "!help")
    await far_seat.next_heard(third)
    until = asyncio.get_running_loop().time() + 4  # longer than what has something wrong with it is tried
    proxy.refuse = lambda _, path: (
        (400, {}) if path == "/keys/query" and asyncio.get_running_loop().time() < until else None
    )
    far_seat.client.reconsider(far_pair.bruno.user_id)
    command = await far_seat.next_heard(await far_pair.bruno.send_text(far_pair.room_id, "!book"))
    assert (command.doubt, asyncio.get_running_loop().time() > until) == (None, True)
    heard = [event.event_id for event in far_seat.heard]
    assert heard == [first, second, third, command.event_id]  # without the token, the first would come again


async def test_who_changed_devices_while_the_token_was_forgotten_is_asked_about(
    synapse: Synapse, far_seat: Seat, far_pair: Pair, proxy: Proxy, tmp_path: Path
) -> None:
    """To begin anew without a token names nobody, unless Synapse gives an answer of less than two minutes ago again."""

    def name_nobody(path: str, answer: Json) -> Json:
        if path == "/sync":
            answer.pop("device_lists", None)
        return answer

    asked, bruno = proxy.count("/sync"), far_pair.bruno
    unknown = {"errcode": "M_UNKNOWN"}
    proxy.refuse = lambda _, path: (400, unknown) if path == "/sync" and proxy.count("/sync") > asked else None
    await bruno.send_text(far_pair.room_id, "wake")  # ends the open long-poll
    await far_seat.wait_for(lambda: proxy.count("/sync") > asked + 2)
    async with phone(synapse, tmp_path, bruno.user_id, identity=bruno.identity) as second:
        proxy.refuse, proxy.forge = lambda *_: None, name_nobody
        devices = {bruno.device_id, second.device_id}
        await far_seat.wait_for(lambda: believed(far_seat, bruno.user_id) == devices)


def believed(seat: Seat, user_id: str) -> set[str]:
    trust = seat.client.trust(user_id)
    return {device.device_id for device in trust.believed} if trust is not None else set()


async def test_hostile_olm_messages_do_not_stop_the_loop(seat: Seat, pair: Pair) -> None:
    bot = seat.account.user_id
    keys = (await pair.ana.request("POST", "/keys/query", {"device_keys": {bot: []}}))["device_keys"][bot]
    (device_id, device), *_ = keys.items()
    bots_key = device["keys"][f"curve25519:{device_id}"]
    attacker = vodozemac.Account()
    session = attacker.create_outbound_session(
        vodozemac.Curve25519PublicKey.from_base64(bots_key), vodozemac.Account().curve25519_key
    )
    kind, unknown_key = session.encrypt(b"{}").to_parts()
    assert kind == 0
    bodies: list[Any] = [
        {"type": 0, "body": encode(unknown_key)},
        {"type": 0, "body": "%%%"},
        {"type": 1, "body": "%%%"},
        {"type": 1, "body": ""},
        {"type": 7, "body": "abc"},
        {"type": 0},
        "text",
    ]
    for body in bodies:
        content = {
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": attacker.curve25519_key.to_base64(),
            "ciphertext": {bots_key: body},
        }
        path = f"/sendToDevice/m.room.encrypted/{secrets.token_hex(8)}"
        await pair.ana.request("PUT", path, {"messages": {bot: {device_id: content}}})
    assert (await seat.next_heard(await pair.ana.send_text(pair.room_id, "!help"))).doubt is None


async def test_malformed_answers_do_not_stop_the_loop(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    room_id = far_pair.room_id
    nonsense: list[Any] = [
        None,
        [],
        7,
        {},
        {"type": 3},
        {"event_id": "$x", "type": "m.room.message", "sender": [], "content": 1},
    ]
    late = {"event_id": "$y", "type": "m.room.message", "sender": "@x:y", "origin_server_ts": 10**30, "content": {}}

    def forge(path: str, answer: Json) -> Json:
        if path == "/sync" and room_id in answer.get("rooms", {}).get("join", {}):
            room = answer["rooms"]["join"][room_id]
            room["timeline"]["events"] = [*nonsense, late, *room["timeline"]["events"]]
            room["state"] = {"events": nonsense}
            answer["to_device"] = {"events": [*nonsense, {"type": "m.room.encrypted", "sender": {}, "content": []}]}
            answer["device_lists"] = {"changed": [{}, None, 3], "left": None}
            answer["rooms"]["join"]["!odd:x"] = []
            answer["rooms"]["invite"] = {"!other:x": {"invite_state": {"events": [{}, 3]}}}
        return answer

    proxy.forge = forge
    event = await far_seat.next_heard(await far_pair.bruno.send_text(room_id, "!book"))
    assert (event.body, event.doubt) == ("!book", None)


async def test_senseless_answers_are_asked_again(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    """Nobody is taken for another because an answer made no sense, and nothing counts as sent."""
    senseless: dict[str, list[Any]] = {
        "/sync": [{"next_batch": 7}, {"next_batch": {}, "rooms": []}, {}],
        "/keys/query": [{"device_keys": []}, {"failures": 3, "device_keys": {}}, {"master_keys": "x"}],
        "/keys/claim": [{"one_time_keys": []}, {"one_time_keys": {far_pair.ana.user_id: 7}}, {}],
        "/send/": [{}, {"event_id": 3}],
    }

    def forge(path: str, answer: Json) -> Json:
        for name, answers in senseless.items():
            if name in path and answers:
                return dict(answers.pop(0))
        return answer

    proxy.forge = forge
    for person in far_pair.people:
        far_seat.client.reconsider(person)
    codes, said = set(), ""
    while not said:
        try:
            said = await far_seat.say(far_pair, "hello", transaction_id="once")
        except Transient as failure:
            codes.add(failure.code)
    assert codes == {"homeserver_incomprehensible", "nobody_to_hear"}
    for reader in (far_pair.ana, far_pair.bruno):
        heard = await reader.next_message(far_seat.account.user_id)
        assert (heard.event_id, heard.body) == (said, "hello")
    assert (await far_seat.next_heard(await far_pair.bruno.send_text(far_pair.room_id, "!book"))).doubt is None
    assert {trust.changed for _, trust in far_seat.trusts} == {False}


async def test_count_of_keys_that_cannot_be_is_none(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    before = proxy.count("/keys/upload")
    counts: list[Any] = [{"signed_curve25519": -(10**12)}, {"signed_curve25519": "many"}, [], 3]

    def forge(path: str, answer: Json) -> Json:
        if path == "/sync" and counts:
            answer["device_one_time_keys_count"] = counts.pop(0)
        return answer

    proxy.forge = forge
    for _ in range(4):
        event = await far_seat.next_heard(await far_pair.bruno.send_text(far_pair.room_id, "!book"))
        assert event.doubt is None
    assert counts == []
    assert proxy.count("/keys/upload") > before


async def test_exhausted_one_time_keys_are_replaced(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    before = proxy.count("/keys/upload")

    def forge(path: str, answer: Json) -> Json:
        if path == "/sync":
            answer["device_one_time_keys_count"] = {}
        return answer

    proxy.forge = forge
    await far_pair.bruno.send_text(far_pair.room_id, "wake")
    await far_seat.wait_for(lambda: proxy.count("/keys/upload") > before)


async def test_late_key_makes_event_readable(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    withheld: list[Json] = []

    def delay_keys(path: str, answer: Json) -> Json:
        if path == "/sync" and "to_device" in answer:
            withheld.extend(answer.pop("to_device")["events"])
        return answer

    def bring_keys(path: str, answer: Json) -> Json:
        if path == "/sync":
            answer.setdefault("to_device", {"events": []})["events"].extend(withheld)
            withheld.clear()
        return answer

    proxy.forge = delay_keys
    early = await far_pair.bruno.send_text(far_pair.room_id, "!book")
    later = await far_seat.next_heard(await far_pair.bruno.react(far_pair.room_id, early, "❌"))
    assert [event.event_id for event in far_seat.heard] == [later.event_id]
    proxy.forge = bring_keys
    await far_pair.bruno.react(far_pair.room_id, early, "✅")
    event = await far_seat.next_heard(early)
    assert (event.body, event.doubt) == ("!book", None)


async def test_event_without_key_is_given_once(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    def lose_keys(path: str, answer: Json) -> Json:
        if path == "/sync":
            answer.pop("to_device", None)
        return answer

    proxy.forge = lose_keys
    event_id = await far_pair.bruno.send_text(far_pair.room_id, "!book")
    event = await far_seat.next_heard(event_id)
    assert (event.kind, event.doubt, event.body) == ("undecryptable", "undecryptable", "")
    await asyncio.sleep(2.5)
    assert len(far_seat.heard) == 1


# Speaking


async def test_same_transaction_shows_once(seat: Seat, pair: Pair) -> None:
    first = await seat.say(pair, "once", transaction_id="t1")
    assert await seat.say(pair, "once", transaction_id="t1") == first
    await seat.say(pair, "twice")
    await pair.ana.next_message(seat.account.user_id, lambda message: message.body == "twice")
    assert [message.body for message in pair.ana.heard(seat.account.user_id)] == ["once", "twice"]


async def test_speaking_costs_one_request_once_keys_are_shared(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    await far_seat.say(far_pair, "first")
    heard = far_pair.bruno.mark()
    proxy.asked.clear()
    await far_seat.say(far_pair, "second")
    speaking = [path for _, path in proxy.asked if path != "/sync"]
    assert [path.rpartition("/")[0] for path in speaking] == [f"/rooms/{far_pair.room_id}/send/m.room.encrypted"]
    await far_pair.bruno.next_message(far_seat.account.user_id, since=heard)


async def test_reaction_that_is_there_already_is_success(seat: Seat, pair: Pair) -> None:
    event_id = await pair.bruno.send_text(pair.room_id, "!slots")
    for _ in range(2):
        await seat.client.react(pair.room_id, event_id, "1️⃣", transaction_id=secrets.token_hex(8))
    assert await pair.bruno.reactions_to(event_id, seat.account.user_id, at_least=1) == ["1️⃣"]


async def test_stranger_in_room_stops_speaking(synapse: Synapse, seat: Seat, pair: Pair) -> None:
    stranger = await make_account(synapse)
    await seat.say(pair, "before")
    await seat.client.homeserver.ask("POST", f"/rooms/{pair.room_id}/invite", {"user_id": stranger})
    await seat.wait_for(lambda: stranger in seat.client.members(pair.room_id))
    with pytest.raises(StrangerInRoom) as raised:
        await seat.say(pair, "after")
    assert raised.value.strangers == {stranger}
    assert seat.members[-1] == (pair.room_id, seat.client.members(pair.room_id))


@pytest.mark.parametrize("status", [503, 400])
async def test_lost_room_key_is_shared_anew(far_seat: Seat, far_pair: Pair, proxy: Proxy, status: int) -> None:
    def lose(_: str, path: str) -> tuple[int, Json] | None:
        return (status, {}) if path.startswith("/sendToDevice/") else None

    proxy.refuse = lose
    with pytest.raises(Transient) as raised:
        await far_seat.say(far_pair, "hello")
    assert raised.value.code == f"http_{status}"
    proxy.refuse = lambda *_: None
    await far_seat.say(far_pair, "hello")
    assert (await far_pair.ana.next_message(far_seat.account.user_id)).body == "hello"


async def test_rate_limit_is_told(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    answer = (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1500})
    proxy.refuse = lambda _, path: answer if "/send/" in path else None
    with pytest.raises(Transient) as raised:
        await far_seat.say(far_pair, "hello")
    assert (raised.value.code, raised.value.retry_after) == ("rate_limited", 1.5)


async def test_phone_out_of_one_time_keys_does_not_block_others(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    def exhaust(path: str, answer: Json) -> Json:
        if path == "/keys/claim":
            answer["one_time_keys"].pop(far_pair.ana.user_id, None)
        return answer

    proxy.forge = exhaust
    await far_seat.say(far_pair, "hello")
    assert (await far_pair.bruno.next_message(far_seat.account.user_id)).body == "hello"


async def test_rooms_that_speak_at_once_claim_one_key_of_a_phone(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    keys = far_seat.client._keys  # noqa: SLF001  # a room of which there is nothing but its key
    assert keys is not None
    people = {far_pair.ana.user_id, far_pair.bruno.user_id}
    await asyncio.gather(*(keys.share(f"!{number}:localhost", people) for number in range(8)))
    assert [path for _, path in proxy.asked].count("/keys/claim") == 1


async def test_a_slow_homeserver_holds_up_its_own_rooms_alone(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    keys, ana = far_seat.client._keys, far_seat.client.trust(far_pair.ana.user_id)  # noqa: SLF001 - as above
    assert keys is not None
    assert ana is not None
    stranger, key = "@far:slow.example", vodozemac.Account().curve25519_key.to_base64()
    theirs = tuple(replace(one, user_id=stranger, curve25519=key) for one in ana.believed)
    abroad = replace(ana, keys=replace(ana.keys, user_id=stranger, devices=theirs))
    keys._directory._trusts[stranger] = abroad  # noqa: SLF001 - what a federation would have told
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hold(path: str, body: bytes) -> None:
        if path == "/keys/claim" and b"slow.example" in body:
            asked.set()
            await answered.wait()

    proxy.hold = hold
    slow = asyncio.create_task(keys.share("!slow:localhost", {stranger, far_pair.ana.user_id}))
    await asyncio.wait_for(asked.wait(), 30)
    await asyncio.wait_for(keys.share("!quick:localhost", {far_pair.ana.user_id, far_pair.bruno.user_id}), 30)
    assert not slow.done()
    answered.set()
    await slow


async def test_room_key_changes_after_hundred_messages(seat: Seat, pair: Pair) -> None:
    for number in range(101):
        await seat.say(pair, str(number))
    last = await pair.ana.next_message(seat.account.user_id, lambda message: message.body == "100")
    texts = [message.body for message in pair.ana.heard(seat.account.user_id)]
    assert (texts, last.encrypted) == ([str(number) for number in range(101)], True)
    ours = seat.client._machine_now().outbound(pair.room_id)  # noqa: SLF001  # nothing else tells its age
    assert ours is not None
    assert ours.message_count == 1


async def test_nobody_hears_before_phones_are_signed(synapse: Synapse, seat: Seat, tmp_path: Path) -> None:
    async with people(synapse, tmp_path, 2, cross_signed=False) as (ana, bruno):
        pair = Pair(await seat.make_room(ana.user_id, bruno.user_id), ana, bruno)
        await asyncio.gather(*(person.join(pair.room_id) for person in (ana, bruno)))
        await seat.wait_for(lambda: set(seat.client.members(pair.room_id).values()) == {"join"})
        assert not seat.client.can_read(pair.room_id, ana.user_id)
        with pytest.raises(NobodyToHear):
            await seat.say(pair, "too early")
        await ana.cross_sign()
        await seat.wait_for(lambda: seat.client.can_read(pair.room_id, ana.user_id))
        assert [trust.pinned for user, trust in seat.trusts if user == ana.user_id][-1] == ana.identity.fingerprint
        await seat.say(pair, "now")
        assert (await ana.next_message(seat.account.user_id)).body == "now"
        await bruno.wait_for(lambda: "m.unverified" in bruno.withheld.values() or None, "the reason")


# Rooms of others


async def test_invitation_is_refused_and_told(seat: Seat, pair: Pair) -> None:
    room_id = await pair.ana.create_room(seat.account.user_id)
    await seat.wait_for(lambda: bool(seat.invitations))
    assert seat.invitations == [(room_id, pair.ana.user_id)]
    members = await pair.ana.request("GET", f"/rooms/{room_id}/members")
    ours = [event for event in members["chunk"] if event["state_key"] == seat.account.user_id]
    assert [event["content"]["membership"] for event in ours] == ["leave"]


@pytest.mark.parametrize("asked", ["answers", "says nothing at first"])
async def test_room_without_a_word_who_made_it_is_asked_about_and_kept(
    far_seat: Seat, far_pair: Pair, proxy: Proxy, asked: str
) -> None:
    """Who has left a room that nobody else can invite to is out of it for ever."""
    state, nothing = f"/rooms/{far_pair.room_id}/state", cast(Json, [])

    def forge(path: str, answer: Json) -> Json:
        if path == "/sync":
            for room in answer.get("rooms", {}).get("join", {}).values():
                for part in ("state", "timeline"):
                    events = room.get(part, {}).get("events", [])
                    events[:] = [event for event in events if event["type"] != "m.room.create"]
        return answer

    proxy.forge = forge
    if asked != "answers":
        proxy.refuse = lambda _, path: (200, nothing) if path == state and proxy.count(state) == 1 else None
    await far_seat.restart()
    await far_seat.wait_for(lambda: far_seat.client.rooms() == {far_pair.room_id})
    assert (await far_seat.next_heard(await far_pair.bruno.send_text(far_pair.room_id, "!book"))).doubt is None
    assert far_seat.invitations == []


async def test_deleted_room_is_told_and_the_others_go_on(
    synapse: Synapse, seat: Seat, pair: Pair, tmp_path: Path
) -> None:
    """Synapse's administrator removes a room while the bot listens, and another one while it does not."""
    async with people(synapse, tmp_path, 2) as (clara, davi):
        away, bot = Pair(await seat.make_room(clara.user_id, davi.user_id), clara, davi), seat.account.user_id
        kept = await seat.pair_up(clara, davi)
        await remove_room(synapse, pair.room_id)
        await seat.wait_for(lambda: gone(seat) == {pair.room_id})
        await seat.stop()
        await remove_room(synapse, away.room_id)
        await seat.start()  # of what was purged by then the homeserver says nothing more: see keeping.py
        await seat.wait_for(lambda: seat.client.rooms() == {kept.room_id})
        for lost in (pair, away):
            with pytest.raises(Permanent) as raised:
                await seat.say(lost, "to nobody")
            assert raised.value.code == "not_in_room"
        assert (await seat.next_heard(await davi.send_text(kept.room_id, "!book"))).doubt is None
        assert seat.client.members(kept.room_id)[bot] == "join"


def gone(seat: Seat) -> set[str]:
    """The rooms of which was told that the bot is not in them any more."""
    bot = seat.account.user_id
    return {room_id for room_id, members in seat.members if members.get(bot) in ("leave", "ban")}


async def remove_room(synapse: Synapse, room_id: str) -> None:
    url = f"{synapse.base_url}/_synapse/admin/v2/rooms/{quote(room_id, safe='')}"
    headers = {"Authorization": f"Bearer {synapse.admin_token}"}
    async with synapse.http.delete(url, headers=headers, json={"purge": True}) as answer:
        assert answer.status == 200


async def test_leaving_person_is_told(seat: Seat, pair: Pair) -> None:
    await pair.bruno.request("POST", f"/rooms/{pair.room_id}/leave", {})
    await seat.wait_for(lambda: seat.client.members(pair.room_id).get(pair.bruno.user_id) == "leave")
    assert seat.members[-1][1][pair.bruno.user_id] == "leave"
    assert not seat.client.can_read(pair.room_id, pair.bruno.user_id)


# The account


async def test_restart_keeps_device_and_leaves_no_other(seat: Seat) -> None:
    device, master = seat.client.device_id, seat.client.master_key
    await seat.restart()
    answer = await seat.client.homeserver.ask("GET", "/devices")
    assert [known["device_id"] for known in answer["devices"]] == [device]
    assert (seat.client.device_id, seat.client.master_key) == (device, master)


async def test_secrets_are_for_their_owner_alone(seat: Seat) -> None:
    store = seat.account.store
    assert store.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in store.iterdir()} == {0o600}


async def test_lost_store_gets_a_new_device_signed_by_the_old_identity(seat: Seat, pair: Pair) -> None:
    device, master = seat.client.device_id, seat.client.master_key
    await seat.stop()
    (seat.account.store / "crypto.db").unlink()
    await seat.start()
    assert seat.client.device_id != device
    assert seat.client.master_key == master
    answer = await pair.ana.request("POST", "/keys/query", {"device_keys": {seat.account.user_id: []}})
    assert list(answer["device_keys"][seat.account.user_id]) == [seat.client.device_id]
    await seat.say(pair, "back again")
    assert (await pair.ana.next_message(seat.account.user_id)).body == "back again"


async def test_lost_folder_gets_a_new_identity_and_leaves_no_other_device(seat: Seat, pair: Pair) -> None:
    """Nothing can sign for the old identity any more; people see that it changed, and compare the fingerprint."""
    device, master = seat.client.device_id, seat.client.master_key
    await seat.stop()
    shutil.rmtree(seat.account.store)
    await seat.start()
    answer = await pair.ana.request("POST", "/keys/query", {"device_keys": {seat.account.user_id: []}})
    keys = read_keys(answer, seat.account.user_id)
    assert [(known.device_id, known.signed) for known in keys.devices] == [(seat.client.device_id, True)]
    assert keys.master_key == seat.client.master_key
    assert device != seat.client.device_id
    assert master != seat.client.master_key
    await seat.say(pair, "somebody new")
    assert (await pair.ana.next_message(seat.account.user_id)).body == "somebody new"


async def test_deleted_device_ends_the_run_and_comes_back_signed(
    synapse: Synapse, seat: Seat, pair: Pair, tmp_path: Path
) -> None:
    device = seat.client.device_id
    await seat.client.homeserver.ask("DELETE", f"/devices/{device}", {})
    with pytest.raises(LoggedOut):
        await seat.wait_for(lambda: False)
    with pytest.raises(Transient) as raised:
        await seat.client.react(pair.room_id, "$event", "✅", transaction_id="t1")
    assert raised.value.code == "logged_out"
    await seat.restart()
    answer = await pair.ana.request("POST", "/keys/query", {"device_keys": {seat.account.user_id: []}})
    keys = read_keys(answer, seat.account.user_id)
    assert [(known.device_id, known.signed) for known in keys.devices] == [(device, True)]
    async with phone(synapse, tmp_path, pair.bruno.user_id, identity=pair.bruno.identity) as fresh:
        assert (await seat.next_heard(await fresh.send_text(pair.room_id, "!book"))).doubt is None


async def test_bot_can_be_reached_when_its_one_time_keys_are_used_up(seat: Seat, pair: Pair) -> None:
    await seat.stop()
    bot, device = seat.account.user_id, seat.client.device_id
    claimed = []
    for _ in range(60):
        wanted = {"one_time_keys": {bot: {device: "signed_curve25519"}}}
        answer = await pair.ana.request("POST", "/keys/claim", wanted)
        claimed.extend(answer["one_time_keys"][bot][device].values())
    assert [key for key in claimed if key.get("fallback")] == [claimed[-1]] * 10
    await seat.start()
    await seat.wait_for(lambda: seat.token is not None)
    answer = await pair.ana.request("POST", "/keys/claim", wanted)
    (fresh,) = answer["one_time_keys"][bot][device].values()
    assert not fresh.get("fallback")


async def test_second_process_is_refused(seat: Seat) -> None:
    with pytest.raises(StoreInUse):
        await Client(seat.account, pin=seat.pin).connect()


async def test_password_account_is_cross_signed_and_keeps_its_login(synapse: Synapse, tmp_path: Path) -> None:
    async with Seat.take_by_password(synapse, tmp_path / "bot") as seat:
        async with phone(synapse, tmp_path, seat.account.user_id, cross_signed=False):
            await seat.restart()
            device = seat.client.device_id
            answer = await seat.client.homeserver.ask("GET", "/devices")
            assert [known["device_id"] for known in answer["devices"]] == [device]
        await seat.stop()
        (seat.account.store / "seeds.json").unlink()
        master = seat.client.master_key
        await seat.start()
        assert seat.client.device_id == device
        assert seat.client.master_key != master


async def test_a_proxy_that_refuses_is_no_reason_to_end(far_seat: Seat, proxy: Proxy) -> None:
    """Whoever connects waits for what is Transient."""
    await far_seat.stop()
    proxy.refuse = lambda _, path: (400, {}) if path == "/keys/query" else None
    with pytest.raises(Transient, match="http_400"):
        await far_seat.client.connect()
    proxy.refuse = lambda *_: None
    await far_seat.client.connect()


async def test_what_a_proxy_refuses_to_pass_on_is_said_later(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    """It was given up for good: news was parked, and a forbidden file stayed in its room."""
    said = await far_seat.say(far_pair, "hello")
    proxy.refuse = lambda method, _: (400, {}) if method == "PUT" else None
    with pytest.raises(Transient, match="http_400"):
        await far_seat.say(far_pair, "are you there?")
    with pytest.raises(Transient, match="http_400"):
        await far_seat.client.redact(far_pair.room_id, said, transaction_id="taken back")
    with pytest.raises(Transient, match="http_400"):
        await far_seat.client.react(far_pair.room_id, said, "✅", transaction_id="tapped")


async def test_wrong_token_is_refused_at_once(synapse: Synapse, seat: Seat, tmp_path: Path) -> None:
    account = Seat.account_of(synapse, tmp_path / "other", as_token="wrong")
    with pytest.raises(HomeserverRefused) as raised:
        await Client(account, pin=seat.pin).connect()
    assert raised.value.code == "M_UNKNOWN_TOKEN"


async def test_a_sent_event_is_found_by_its_transaction(seat: Seat, pair: Pair) -> None:
    begun = datetime.now(UTC)
    sent = await seat.say(pair, "found again", transaction_id="kept")
    assert await seat.client.find_sent(pair.room_id, "kept", since=begun) == sent
    assert await seat.client.find_sent(pair.room_id, "never sent", since=begun) is None


async def test_a_sent_event_is_found_behind_what_is_shown_no_more(
    seat: Seat, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not found, it would be said a second time."""
    monkeypatch.setattr("bot.client._GAP_PAGE", 6)
    begun = datetime.now(UTC)
    sent = await seat.say(pair, "found again", transaction_id="kept")
    await hide_a_page(seat, pair, 14)
    assert await seat.client.find_sent(pair.room_id, "kept", since=begun) == sent
    assert await seat.client.find_sent(pair.room_id, "never sent", since=begun) is None


async def test_an_older_list_of_members_does_not_undo_what_came_meanwhile(
    far_seat: Seat, far_pair: Pair, proxy: Proxy
) -> None:
    """Who has left would be given the room's keys."""
    room_id, bruno = far_pair.room_id, far_pair.bruno
    place = f"/rooms/{room_id}/members"
    older = await bruno.request("GET", place)
    asked = proxy.count(place) + 1

    async def hold(path: str, _: bytes) -> None:
        if path == place and proxy.count(place) == asked:
            await bruno.request("POST", f"/rooms/{room_id}/leave", {})
            await far_seat.wait_for(lambda: far_seat.client.members(room_id)[bruno.user_id] == "leave")

    proxy.hold = hold
    proxy.refuse = lambda _, path: (200, older) if path == place and proxy.count(place) == asked else None
    await far_seat.client.read_room(room_id)
    assert far_seat.client.members(room_id)[bruno.user_id] == "leave"


async def test_an_older_membership_does_not_undo_a_newer_one(far_seat: Seat, far_pair: Pair, proxy: Proxy) -> None:
    """Where two join at once, Synapse's next answer can hold the invitation of one of them as the state before it."""
    room_id, bruno = far_pair.room_id, far_pair.bruno.user_id
    forged: list[str] = []

    def invite_again(path: str, answer: Json) -> Json:
        room = answer.get("rooms", {}).get("join", {}).get(room_id)
        if path == "/sync" and room is not None and not forged:
            forged.append(path)
            invited = {"type": "m.room.member", "state_key": bruno, "sender": far_seat.client.user_id}
            room.setdefault("state", {}).setdefault("events", []).append(
                {**invited, "event_id": "$old", "content": {"membership": "invite"}}
            )
        return answer

    proxy.forge = invite_again
    before, seen = proxy.count(f"/rooms/{room_id}/members"), len(far_seat.members)
    assert (await far_seat.next_heard(await far_pair.bruno.send_text(room_id, "!book"))).doubt is None
    await far_seat.wait_for(lambda: proxy.count(f"/rooms/{room_id}/members") > before)
    assert forged == ["/sync"]
    assert far_seat.client.members(room_id)[bruno] == "join"
    assert far_seat.members[seen:] == []

"""A homeserver that answers nonsense, and members who send it: nothing takes effect, and the loop lives."""

from __future__ import annotations

import copy
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import vodozemac

from bot.events import Incoming
from bot.signatures import encode
from embedded.synapse import Synapse
from tests.bot.test_trust import whisper
from tests.support.homeserver import Pair, Seat, people
from tests.support.proxy import Proxy

Json = dict[str, Any]
OLM, MEGOLM = "m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"
LONG = bool(os.environ.get("VISAVIS_LONG"))
SENSELESS: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "x", "💥" * 300, "\0", [], {}, [[]], {"a": {}}, [None, {}]]


class AllEars(Seat):
    """A seat that is told everything that there is to be told."""

    def more_ears(self) -> dict[str, Any]:
        return {
            "on_receipts": self._see_anything,
            "on_state": self._see_anything,
            "on_presence": lambda _: None,
        }

    async def _see_anything(self, *_: object) -> None:
        self._tell()


@pytest.fixture
async def all_ears(synapse: Synapse, proxy: Proxy, tmp_path: Path) -> AsyncIterator[AllEars]:
    async with AllEars.take(synapse, tmp_path / "bot", homeserver=proxy.url, grace=0.5) as seat:
        yield seat


@pytest.fixture
async def ears_pair(synapse: Synapse, all_ears: AllEars, tmp_path: Path) -> AsyncIterator[Pair]:
    async with people(synapse, tmp_path, 2) as (ana, bruno):
        yield await all_ears.pair_up(ana, bruno)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield (*path, name)
        yield from places(part, (*path, name))


def change(answer: Json, dice: random.Random) -> Json:
    """The answer with up to four of its parts replaced, removed, doubled or exchanged; its token is left."""
    changed = copy.deepcopy(answer)
    for _ in range(dice.randint(1, 4)):
        found = [path for path in places(changed) if path != ("next_batch",)]
        if found:
            _change_one(changed, dice.choice(found), dice, found)
    return changed


def _change_one(answer: Json, path: tuple[Any, ...], dice: random.Random, others: list[tuple[Any, ...]]) -> None:
    *inside, last = path
    holder = _at(answer, inside)
    match dice.randrange(4):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        case 2:
            holder[last] = copy.deepcopy(_at(answer, dice.choice(others)))
        case _:
            holder[last] = copy.deepcopy(dice.choice(SENSELESS))


def _at(value: Any, path: Any) -> Any:
    for name in path:
        value = value[name]
    return value


def said(event: Incoming) -> tuple[object, ...]:
    return event.sender, event.body, event.session_id, event.message_index


@pytest.mark.faults
@pytest.mark.timeout(900 if LONG else 300)
async def test_changed_answers_of_sync_command_nothing(all_ears: AllEars, ears_pair: Pair, proxy: Proxy) -> None:
    """Answers that Synapse gave, changed at random: 2,000 of them in the long form."""
    seed = secrets.randbits(32) if LONG else 2026
    print(f"seed {seed}")  # noqa: T201  # to have the same again
    dice, kept = random.Random(seed), []

    def keep(path: str, answer: Json) -> Json:
        if path == "/sync":
            kept.append(copy.deepcopy(answer))
        return answer

    proxy.forge = keep
    await all_ears.restart()
    bruno, room_id = ears_pair.bruno, ears_pair.room_id
    first = await bruno.send_text(room_id, "!book 1")
    await bruno.react(room_id, first, "✅")
    await bruno.request("POST", f"/rooms/{room_id}/receipt/m.read/{first}", {})
    await bruno.edit(room_id, first, "!book 2")
    await all_ears.next_heard(await ears_pair.ana.send_text(room_id, "!help"))
    real = {said(event) for event in all_ears.heard if event.doubt is None and event.kind == "text"}
    changed = 0

    def answer(_: str, path: str) -> tuple[int, Json] | None:
        nonlocal changed
        if path != "/sync":
            return None
        changed += 1
        return 200, change(dice.choice(kept), dice)

    proxy.refuse = answer
    await bruno.send_raw(room_id, "m.reaction", {}, encrypted=False)  # ends the open long-poll
    await all_ears.wait_for(lambda: changed >= (2_000 if LONG else 150), timeout=600 if LONG else 240)
    proxy.refuse, proxy.forge = lambda *_: None, lambda _, answer: answer
    await all_ears.restart()
    event = await all_ears.next_heard(await bruno.send_text(room_id, "!book 3"))
    assert (event.doubt, event.body) == (None, "!book 3")
    assert {said(one) for one in all_ears.heard if one.doubt is None and one.kind == "text"} <= real | {said(event)}


async def test_every_field_of_a_hostile_message_may_be_anything(
    all_ears: AllEars, ears_pair: Pair, proxy: Proxy
) -> None:
    ana, bot, room_id = ears_pair.ana, all_ears.account.user_id, ears_pair.room_id
    device = all_ears.client.device_id
    await all_ears.next_heard(await ana.send_text(room_id, "first"))
    outer = stranger_to_keys(all_ears, ana.user_id)
    inner: Json = {"algorithm": MEGOLM, "room_id": room_id, "session_id": "x", "session_key": "AgAAAAA"}
    odd: list[Any] = [None, {}, 2**70, "x" * 5_000, "!other:localhost"]
    hostile = [_with(outer, path, senseless) for path in places(outer) for senseless in SENSELESS]

    def add(path: str, answer: Json) -> Json:
        if path == "/sync" and hostile:
            answer.setdefault("to_device", {}).setdefault("events", [])[:0] = hostile
            hostile.clear()
        return answer

    proxy.forge = add
    for path in places(inner):
        for part in odd:
            await whisper(ana, bot, device, "m.room_key", _with(inner, path, part))
    for event_type in ("m.forwarded_room_key", "m.dummy", "m.secret.send", "m.room_key_request", ""):
        await whisper(ana, bot, device, event_type, {"session_id": [], "room_id": {}})
    event = await all_ears.next_heard(await ana.send_text(room_id, "!book"))
    assert (event.body, event.doubt) == ("!book", None)
    assert hostile == []


async def test_flood_of_hostile_messages_makes_the_bot_deaf_to_nobody(
    all_ears: AllEars, ears_pair: Pair, proxy: Proxy
) -> None:
    """Ten thousand from one member; the other's first command, whose key comes behind them, is answered at once."""
    ana, whispers = ears_pair.ana, all_ears.client._whispers  # noqa: SLF001  # what waits shows nowhere else
    some = [stranger_to_keys(all_ears, ana.user_id) for _ in range(100)]
    flood = some * 100

    def add(path: str, answer: Json) -> Json:
        if path == "/sync" and flood:
            answer.setdefault("to_device", {}).setdefault("events", [])[:0] = flood
            flood.clear()
        return answer

    proxy.forge = add
    began = time.monotonic()
    event = await all_ears.next_heard(await ears_pair.bruno.send_text(ears_pair.room_id, "!book"))
    assert (event.body, event.doubt) == ("!book", None)
    # On a machine that takes longer over everything, that is still before all that waits is opened.
    assert time.monotonic() - began < 5 or whispers._queued.get(ana.user_id, 0) > 0  # noqa: SLF001
    assert flood == []


async def test_a_key_that_waits_behind_a_flood_is_not_missed_in_silence_after_a_crash(
    all_ears: AllEars, ears_pair: Pair, proxy: Proxy
) -> None:
    """The homeserver takes it for fetched; what it opens is told as unreadable, so that its sender hears of it."""
    bruno, whispers = ears_pair.bruno, all_ears.client._whispers  # noqa: SLF001  # what waits shows nowhere else
    some = [stranger_to_keys(all_ears, bruno.user_id) for _ in range(100)]
    flood = some * 15

    def add(path: str, answer: Json) -> Json:
        events = answer.get("to_device", {}).get("events", [])
        if path == "/sync" and flood and events:
            events[:0] = flood
            flood.clear()
        return answer

    proxy.forge = add
    command = await bruno.send_text(ears_pair.room_id, "!book")
    await all_ears.wait_for(lambda: not flood)
    asked = proxy.count("/sync")
    await all_ears.wait_for(lambda: proxy.count("/sync") > asked)
    assert whispers._queued[bruno.user_id] > 1  # noqa: SLF001
    await all_ears.restart()
    event = await all_ears.next_heard(command)
    assert (event.kind, event.doubt) == ("undecryptable", "undecryptable")


def stranger_to_keys(seat: Seat, sender: str) -> Json:
    """An Olm message that begins a session with a one-time key which the bot never had."""
    ours = seat.client._machine_now().account.identity_keys["curve25519"]  # noqa: SLF001  # as `/keys/query` tells it
    account, unknown = vodozemac.Account(), vodozemac.Account().curve25519_key
    session = account.create_outbound_session(vodozemac.Curve25519PublicKey.from_base64(ours), unknown)
    kind, body = session.encrypt(b"{}").to_parts()
    sealed = {"type": kind, "body": encode(body)}
    content = {
        "algorithm": OLM,
        "sender_key": account.curve25519_key.to_base64(),
        "ciphertext": {ours: sealed},
    }
    return {"type": "m.room.encrypted", "sender": sender, "content": content}


def _with(value: Json, path: tuple[Any, ...], part: object) -> Json:
    changed = copy.deepcopy(value)
    *inside, last = path
    _at(changed, inside)[last] = part
    return changed

"""A room under attack: nothing takes effect, everything is audited, and the bot answers the next command.

What breaks a bot that runs for months, and the test that shows it mended (`c` is tests/bot/test_client.py, `t`
tests/bot/test_trust.py, `h` this file, `f` tests/bot/test_fuzz.py):

 1  hostile Olm messages                  c test_hostile_olm_messages_do_not_stop_the_loop; f test_every_field_of_...
 2  no one-time keys left, no fallback    c test_exhausted_one_time_keys_are_replaced, test_bot_can_be_reached_when_...
 3  hot loop where the homeserver fails   c test_failing_syncs_are_asked_rarely_and_recovered_from
 4  token saved before the handling       c test_unhandled_event_comes_again_after_restart, test_event_of_a_bug_is_...
 5  failed key share counted as shared    c test_lost_room_key_is_shared_anew
 6  limited timelines; rooms left         c test_absence_longer_than_a_timeline_loses_nothing, test_gap_...
                                            test_deleted_room_...
 7  parsing of all state                  benchmarks: start-up of hundreds of rooms
 8  the creator's powers                  tests/bot/test_rooms.py test_room_is_made_exactly_so
 9  lost device or store                  c test_lost_store_..., test_lost_folder_..., test_deleted_device_...
10  default pickle key, two processes     c test_secrets_are_for_their_owner_alone, test_second_process_is_refused
11  rotation                              c test_room_key_changes_after_...; t test_room_key_changes_when_...
12  old sessions kept                     tests of retention and of bot/stores.py
13  replay                                t test_ciphertext_posted_...; h REPOSTS
14  a device not classified               t test_unsigned_phone_..., test_device_that_the_homeserver_adds_...
15  in-room verification                  h VERIFICATION

Hostile: h ATTACKS has them by name; those that need a homeserver that lies are c, t and f: sync answers of wrong types
and a flood of to-device messages (f), wrong signatures and an added device (t), a replaced identity
(tests/system/test_identities.py), an unsigned device (t; tests/system/test_bad_input.py), an extra member
(test_bad_input.py; h), an event taken back before it could be read (c). Friendly: tests/interop/test_friendly.py.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select, update

from bot.names import imitates
from bot.replies import YES
from supervision.models import Status, appointments, audit_entries, questions
from supervision.pairs import Pair
from tests.support.human import HomeserverRefused, Human, Json
from tests.support.practice import Practice

Tried = list[tuple[str, str | None]]
REFUSED = "command"
STRANGER = ("room.stranger", None)


@dataclass
class Scene:
    """A pair in their room; Bruno has asked for a time (`booking` is his command), and Ana was asked (`request`)."""

    practice: Practice
    pair: Pair
    ana: Human
    bruno: Human
    booking: str = ""
    request: str = ""

    @property
    def room(self) -> str:
        return self.pair.room_id or ""

    @property
    def bot(self) -> str:
        return self.practice.bot

    async def as_bot(self, method: str, path: str, body: Json) -> Json:
        """Whatever somebody could do with the bot's account who controls the homeserver."""
        assert self.practice.machine is not None
        return await self.practice.machine.client.homeserver.ask(method, path, body)

    async def repost(self, poster: Human) -> str:
        """The ciphertext of Bruno's booking as another event."""
        event = await poster.request("GET", f"/rooms/{self.room}/event/{self.booking}")
        return await poster.send_raw(self.room, "m.room.encrypted", event["content"], encrypted=False)

    async def book(self) -> None:
        await self.bruno.ask(self.room, "!slots", self.bot)
        self.booking = await self.bruno.send_text(self.room, "!book 1")
        self.request = (await self.ana.next_message(self.bot, lambda one: "Bruno pede" in one.body)).event_id

    async def put_state(self, who: Human, event_type: str, key: str, content: Json) -> None:
        await who.request("PUT", f"/rooms/{self.room}/state/{event_type}/{quote(key, safe='')}", content)


Attack = Callable[[Scene], Awaitable[Tried]]


async def say_in_clear(scene: Scene) -> Tried:
    await scene.bruno.send_raw(scene.room, "m.room.message", {"msgtype": "m.text", "body": "!book 1"}, encrypted=False)
    return [(REFUSED, "doubt.not_encrypted")]


async def repost_as_other(scene: Scene) -> Tried:
    await scene.repost(scene.ana)
    return [(REFUSED, "doubt.device")]


async def repost_as_same(scene: Scene) -> Tried:
    await scene.repost(scene.bruno)
    return [(REFUSED, "doubt.repeated")]


async def repost_after_restart(scene: Scene) -> Tried:
    await scene.practice.stop_bot()
    await scene.repost(scene.bruno)
    await scene.repost(scene.ana)
    await scene.practice.start_bot()
    return [(REFUSED, "doubt.repeated"), (REFUSED, "doubt.device")]


async def tap_for_another(scene: Scene) -> Tried:
    await scene.bruno.react(scene.room, scene.request, "✅")
    return [(REFUSED, "reaction.not_asked")]


async def tap_with_other_keys(scene: Scene) -> Tried:
    for key in ("👍🏽", "✅✅", "yes", "", "1️⃣" * 100):
        await scene.ana.react(scene.room, scene.request, key)
    await scene.ana.react(scene.room, scene.booking, "✅")
    await scene.ana.send_raw(scene.room, "m.reaction", {"m.relates_to": ["✅"]}, encrypted=False)
    return []


async def tap_as_bot(scene: Scene) -> Tried:
    """The bot's own ✅ stands there already; this is one more device of its account."""
    relation = {"rel_type": "m.annotation", "event_id": scene.booking, "key": YES}
    await scene.as_bot("PUT", f"/rooms/{scene.room}/send/m.reaction/own-tap", {"m.relates_to": relation})
    return []


async def echo_as_bot(scene: Scene) -> Tried:
    said = {"msgtype": "m.text", "body": "!book 1"}
    await scene.as_bot("PUT", f"/rooms/{scene.room}/send/m.room.message/own-word", said)
    return []


async def edit_into_command(scene: Scene) -> Tried:
    event_id = await scene.bruno.send_text(scene.room, "good morning")
    await scene.bruno.edit(scene.room, event_id, "!book 2")
    return [(REFUSED, "event.edited")]


async def take_back_before(scene: Scene) -> Tried:
    """Nobody can know any more that it was a command."""
    await scene.practice.stop_bot()
    event_id = await scene.bruno.send_text(scene.room, "!book 2")
    await scene.bruno.redact(scene.room, event_id)
    await scene.practice.start_bot()
    return []


async def take_back_after(scene: Scene) -> Tried:
    """What it did stays done: there are words for cancelling."""
    await scene.bruno.redact(scene.room, scene.booking)
    return [(REFUSED, "event.redacted")]


async def take_name(scene: Scene) -> Tried:
    for name in ("Vіѕаvіѕ", "VISAVIS", "Ana"):
        member = {"membership": "join", "displayname": name}
        await scene.put_state(scene.ana, "m.room.member", scene.ana.user_id, member)
    told = await scene.bruno.next_message(scene.bot, lambda one: "looks like mine" in one.body)
    assert told.body == (
        f"Ana's name in this room looks like mine now. I am only {scene.bot}; "
        "what anybody else says under my name is not from me."
    )
    assert told.mentions == (scene.bruno.user_id,)
    told = await scene.ana.next_message(scene.bot, lambda one: "se parece com o meu" in one.body)
    assert told.mentions == (scene.ana.user_id,)
    return [(REFUSED, "state.name_taken"), ("room.name_taken", None), (REFUSED, "state.name_taken")]


async def write_call_keys(scene: Scene) -> Tried:
    kinds = ("m.call.member", "org.matrix.msc3401.call.member")
    for kind in kinds:
        await scene.put_state(scene.ana, kind, scene.ana.user_id, {})
        await scene.put_state(scene.ana, kind, f"_{scene.ana.user_id}_PHONE_m.call", {})
        with pytest.raises(HomeserverRefused) as raised:
            await scene.put_state(scene.ana, kind, scene.bruno.user_id, {"focus": "forged"})
        assert raised.value.status == 403
        await scene.put_state(scene.ana, kind, f"_{scene.bruno.user_id}_PHONE_m.call", {"focus": "forged"})
    return [(REFUSED, "state.not_own")] * len(kinds)


async def invite_elsewhere(scene: Scene) -> Tried:
    await scene.ana.create_room(scene.bot)
    return [("room.refuse_invitation", None)]


async def say_very_much(scene: Scene) -> Tried:
    """A word that is no command, a command with too much behind it, and a message that is none."""
    for head in ("!", "!book ", "!appointments ", "good morning "):
        await scene.bruno.send_text(scene.room, head + "x" * 45_000)
    return []


async def nest_html(scene: Scene) -> Tried:
    html = "<blockquote>" * 1_500 + "<a href='javascript:x'>!book 1</a>"
    content = {"msgtype": "m.text", "body": "> !book 1", "format": "org.matrix.custom.html", "formatted_body": html}
    deep: Any = "!book 1"
    for _ in range(150):
        deep = {"m.new_content": deep, "body": [deep] if isinstance(deep, str) else 3}
    await scene.bruno.send_raw(scene.room, "m.room.message", content)
    await scene.bruno.send_raw(scene.room, "m.room.message", {"msgtype": "m.text", "body": deep, "x": deep})
    return []


async def post_odd_ciphertext(scene: Scene) -> Tried:
    """It is told to its sender, once an hour, with what to do, in the thread that it was written in."""
    mark = scene.bruno.mark()
    lost = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": "AwgA",
        "session_id": secrets.token_hex(16),
        "m.relates_to": {"rel_type": "m.thread", "event_id": scene.booking},
    }
    odd: list[Json] = [lost, lost | {"session_id": 3}, {"algorithm": []}, {}, lost | {"ciphertext": {"a": 1}}]
    for content in odd:
        await scene.bruno.send_raw(scene.room, "m.room.encrypted", content, encrypted=False)
    told = await scene.bruno.next_message(scene.bot, lambda one: "could not read" in one.body, since=mark)
    assert told.thread_root == scene.booking
    assert told.body == (
        "I could not read your message; nothing was changed. If it was a command, please write it again. "
        "If I still cannot read it, send /discardsession in Element on a computer first, or write from another device."
    )
    return [(REFUSED, "doubt.undecryptable")] * len(odd)


async def ask_to_verify(scene: Scene) -> Tried:
    """VERIFICATION: one calm sentence with the fingerprint, and an end to the waiting."""
    assert scene.practice.machine is not None
    asked = {"msgtype": "m.key.verification.request", "body": "!book 1", "to": scene.bot, "methods": ["m.sas.v1"]}
    event_id = await scene.bruno.send_raw(scene.room, "m.room.message", asked)
    told = await scene.bruno.next_message(scene.bot, lambda one: "fingerprint" in one.body)
    assert told.body.endswith(scene.practice.machine.client.fingerprint)
    await scene.bruno.wait_for(lambda: [one for one in scene.bruno.messages if ends(one.content, event_id)] or None, "")
    return [(REFUSED, "verification.declined")]


def ends(content: Json, event_id: str) -> bool:
    return content.get("code") == "m.unknown_method" and content["m.relates_to"]["event_id"] == event_id


async def bring_a_stranger(scene: Scene) -> Tried:
    """Whoever runs the homeserver can; the bot puts them out before it speaks again."""
    davi = await scene.practice.add_person("Davi", ["supervisee"], language="en", time_zone="UTC")
    async with scene.practice.phone(davi) as stranger:
        await scene.practice.stop_bot()
        await scene.practice.put_into_room(scene.room, stranger.user_id)
        await stranger.request("POST", f"/rooms/{scene.room}/join", {})
        await stranger.react(scene.room, scene.request, "✅")
        said = {"msgtype": "m.text", "body": "!confirm"}
        await stranger.send_raw(scene.room, "m.room.message", said, encrypted=False)
        await scene.practice.start_bot()
        gone = f"/rooms/{scene.room}/joined_members"
        while stranger.user_id in (await scene.bruno.request("GET", gone))["joined"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return [STRANGER, ("room.speak", None), ("room.speak", None)]


async def tap_too_late(scene: Scene) -> Tried:
    async with scene.practice.database.transaction() as tx:
        await tx.execute(update(questions).values(expires_at=func.now()))
    await scene.ana.react(scene.room, scene.request, "✅")
    return [(REFUSED, "reaction.not_asked")]


async def tap_and_go(scene: Scene) -> Tried:
    """Nobody knows the devices of somebody who left: that must not hold up the room."""
    await scene.practice.stop_bot()
    await scene.ana.react(scene.room, scene.request, "❌")
    await scene.ana.request("POST", f"/rooms/{scene.room}/leave", {})
    await scene.practice.start_bot()
    return [(REFUSED, "reaction.no_member")]


ATTACKS: list[Attack] = [
    say_in_clear,
    repost_as_other,
    repost_as_same,
    repost_after_restart,
    tap_for_another,
    tap_with_other_keys,
    tap_as_bot,
    echo_as_bot,
    edit_into_command,
    take_back_before,
    say_very_much,
    nest_html,
    post_odd_ciphertext,
    ask_to_verify,
    take_name,
    write_call_keys,
    invite_elsewhere,
    bring_a_stranger,
    take_back_after,
    tap_too_late,
    tap_and_go,
]


@pytest.mark.timeout(480)  # some twenty attacks, and four restarts
async def test_nothing_hostile_takes_effect(practice: Practice) -> None:
    pair = await practice.add_pair()
    async with practice.phones(pair) as (ana, bruno):
        scene = Scene(practice, pair, ana, bruno)
        await scene.book()
        for attack in ATTACKS:
            last = await last_audited(practice)
            tried = await attack(scene)
            await answers(scene)
            assert (attack.__name__, await audited(practice, last, len(tried))) == (
                attack.__name__,
                sorted(tried, key=str),
            )
            assert (attack.__name__, await statuses(practice)) == (attack.__name__, [Status.REQUESTED])


async def answers(scene: Scene) -> None:
    """The bot answers a real command, so all before it in the room is handled."""
    assert scene.practice.machine is not None
    machine = scene.practice.machine
    machine.handlers._buckets.clear()  # noqa: SLF001  # this is no test of how many commands a minute may be sent
    machine.client._judge._waiting._grace = 0.2  # noqa: SLF001  # nor of how long a key is waited for
    await scene.bruno.ask(scene.room, "!language", scene.bot, lambda one: "!language" in one.body)


async def last_audited(practice: Practice) -> int:
    async with practice.database.transaction() as tx:
        return int(await tx.scalar(select(func.max(audit_entries.c.id))) or 0)


async def audited(practice: Practice, after: int, at_least: int) -> Tried:
    """What was tried in vain since then, once there is so much."""
    query = select(audit_entries.c.action, audit_entries.c.reason).where(
        audit_entries.c.id > after, audit_entries.c.success.is_(False)
    )
    for _ in range(100):
        async with practice.database.transaction() as tx:
            found = [(row.action, row.reason) for row in await tx.execute(query)]
        if len(found) >= at_least:
            break
        await asyncio.sleep(0.1)
    while found.count(STRANGER) > 1:
        found.remove(STRANGER)  # two of the bot's loops may see him at once
    return sorted(found, key=str)


async def statuses(practice: Practice) -> list[str]:
    async with practice.database.transaction() as tx:
        return list(await tx.scalars(select(appointments.c.status)))


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("Visavis", True),
        ("VISÁVIS", True),
        ("Vіѕаvіѕ", True),
        ("V1\u200bs a-vis (bot)", True),
        ("𝐕𝐢𝐬𝐚𝐯𝐢𝐬", True),
        ("Ｖｉｓａｖｉｓ", True),
        ("Ana", False),
        ("Visa", False),
        ("", False),
    ],
)
def test_a_name_that_looks_like_another(name: str, alike: bool) -> None:
    assert imitates(name, "Visavis") is alike

"""The engine itself: whom it believes and to whom it speaks, shown on a person's client in the bot's place."""

import secrets
from pathlib import Path

import pytest

from embedded.synapse import Synapse
from tests.interop.driver import Engine
from tests.support.human import Human


async def account(synapse: Synapse) -> tuple[str, str]:
    """A new account's Matrix ID and password."""
    password = secrets.token_urlsafe()
    return await synapse.register(f"engine-{secrets.token_hex(4)}", password, "Engine"), password


async def test_engine_talks_with_signed_device(synapse: Synapse, tmp_path: Path) -> None:
    other = Human.log_in(synapse.base_url, *await account(synapse), store=tmp_path)
    engine_login = Engine.log_in(synapse.base_url, *await account(synapse), log=tmp_path / "engine.log")
    async with other as human, engine_login as engine:
        room_id = await human.create_room(engine.user_id)
        await engine.join(room_id)
        await human.wait_joined(room_id, engine.user_id)
        asked = await engine.send_text(room_id, "!slots")
        assert (await human.next_message(engine.user_id)).event_id == asked
        answered = await human.send_text(room_id, "answer", thread=asked)
        event = await engine.next_event(human.user_id)
        assert (event.event_id, event.body, event.failure, event.shield) == (answered, "answer", None, None)
        await engine.react(room_id, answered, "1️⃣")
        assert await human.reactions_to(answered, engine.user_id, at_least=1) == ["1️⃣"]


@pytest.mark.parametrize("identity", ["none", "another"])
async def test_engine_deaf_and_dumb_to_unsigned_device(synapse: Synapse, tmp_path: Path, identity: str) -> None:
    other = Human.log_in(synapse.base_url, *await account(synapse), store=tmp_path, cross_signed=False)
    engine_login = Engine.log_in(synapse.base_url, *await account(synapse), log=tmp_path / "engine.log")
    async with other as human:
        if identity == "another":
            keys = human.identity.device_signing_keys(human.user_id)
            await human.request("POST", "/keys/device_signing/upload", keys)
        async with engine_login as engine:
            room_id = await human.create_room(engine.user_id)
            await engine.join(room_id)
            await human.wait_joined(room_id, engine.user_id)
            said = await human.send_text(room_id, "welcome")
            event = await engine.next_event(human.user_id)
            assert (event.event_id, event.failure, event.content) == (said, "UNSIGNED_SENDER_DEVICE", {})
            asked = await engine.send_text(room_id, "!slots")
            ciphertext = await human.wait_for(lambda: human.unreadable.get(asked), "the ciphertext")
            assert human.withheld == {ciphertext.session_id: "m.unverified"}

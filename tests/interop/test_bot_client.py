"""The bot's Matrix client against Element's engine, in the mode that hears signed devices only."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.events import Incoming
from embedded.synapse import Synapse
from tests.interop.driver import Engine
from tests.support.homeserver import PASSWORD, Seat, make_account
from tests.support.human import Identity


@asynccontextmanager
async def engine(synapse: Synapse, tmp_path: Path) -> AsyncIterator[Engine]:
    """A person whose client is the engine."""
    user_id = await make_account(synapse)
    async with Engine.log_in(synapse.base_url, user_id, PASSWORD, log=tmp_path / "engine.log") as engine:
        yield engine


async def disown(seat: Seat) -> None:
    """Give the bot's account another identity, which has not signed the bot's device."""
    keys = Identity().device_signing_keys(seat.client.user_id)
    await seat.client.homeserver.ask("POST", "/keys/device_signing/upload", keys)


async def answer_all(seat: Seat, event: Incoming) -> None:
    """Answer every readable text in its room."""
    if event.kind == "text":
        await seat.client.send(
            event.room_id,
            "m.room.message",
            {"msgtype": "m.notice", "body": f"heard {event.body}"},
            transaction_id=secrets.token_hex(8),
            expected={event.sender},
        )


async def test_engine_and_bot_read_each_other(synapse: Synapse, tmp_path: Path) -> None:
    async with Seat.take(synapse, tmp_path / "bot") as seat, engine(synapse, tmp_path) as person:
        seat.answer = lambda event: answer_all(seat, event)
        room_id = await seat.make_room(person.user_id)
        await person.join(room_id)
        asked = await person.send_text(room_id, "!slots")
        heard = await seat.next_heard(asked)
        assert (heard.body, heard.doubt, heard.device_id) == ("!slots", None, person.device_id)
        answer = await person.next_event(seat.client.user_id)
        assert (answer.msgtype, answer.body, answer.failure, answer.shield) == (
            "m.notice",
            "heard !slots",
            None,
            None,
        )


async def test_engine_refuses_bot_without_signature(synapse: Synapse, tmp_path: Path) -> None:
    async with Seat.take(synapse, tmp_path / "bot", grace=0.5) as seat:
        await disown(seat)
        async with engine(synapse, tmp_path) as person:
            room_id = await seat.make_room(person.user_id)
            await person.join(room_id)
            heard = await seat.next_heard(await person.send_text(room_id, "!slots"))
            assert (heard.kind, heard.doubt, heard.body) == ("undecryptable", "undecryptable", "")
            await seat.wait_for(lambda: seat.client.can_read(room_id, person.user_id))
            content = {"msgtype": "m.notice", "body": "unheard"}
            said = await seat.client.send(
                room_id, "m.room.message", content, transaction_id="1", expected={person.user_id}
            )
            event = await person.next_event(seat.client.user_id)
            assert (event.event_id, event.failure, event.content) == (said, "UNSIGNED_SENDER_DEVICE", {})

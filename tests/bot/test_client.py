"""The bot's transport against a real homeserver and real encrypted clients."""

from __future__ import annotations

from bot.client import Incoming
from tests.support.homeserver import Pair, Seat


async def test_command_is_believed_and_answered(seat: Seat, pair: Pair) -> None:
    async def answer(event: Incoming) -> None:
        await seat.say(pair, f"heard {event.body}", transaction_id=event.event_id[1:])

    seat.answer = answer
    reply = await pair.bruno.ask(pair.room_id, "!book", seat.account.user_id)
    event = seat.heard[-1]
    assert (event.body, event.kind, event.doubt) == ("!book", "text", None)
    assert (event.sender, event.device_id) == (pair.bruno.user_id, pair.bruno.device_id)
    assert (reply.body, reply.encrypted) == ("heard !book", True)

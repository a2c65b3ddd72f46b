"""The bare echo bot that Visavis is measured against, written as nio's own documentation writes a bot.

`python -m benchmarks.echo_bot HOMESERVER MXID PASSWORD STORE_FOLDER`; it joins where it is invited and
repeats every text as a notice.
"""

import asyncio
import sys
from typing import Any

from nio import InviteMemberEvent, MatrixRoom, RoomMessageText
from nio.client.async_client import AsyncClient


async def main(homeserver: str, user_id: str, password: str, store: str) -> None:
    client = AsyncClient(homeserver, user_id, store_path=store)
    callbacks: Any = client  # nio's annotations of callbacks are wrong

    async def join(room: MatrixRoom, _: InviteMemberEvent) -> None:
        await client.join(room.room_id)

    async def echo(room: MatrixRoom, event: RoomMessageText) -> None:
        if event.sender != client.user_id:
            content = {"msgtype": "m.notice", "body": event.body}
            await client.room_send(room.room_id, "m.room.message", content, ignore_unverified_devices=True)

    callbacks.add_event_callback(join, InviteMemberEvent)
    callbacks.add_event_callback(echo, RoomMessageText)
    await client.login(password)
    await client.sync_forever(timeout=30000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))

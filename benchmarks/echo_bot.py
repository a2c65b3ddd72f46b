"""The bare echo bot that Visavis is measured against, written as nio's own documentation writes a bot.

`python -m benchmarks.echo_bot HOMESERVER MXID PASSWORD STORE_FOLDER`; it joins where it is invited and
repeats every text as a notice. Its login is kept in the folder, and its sync token in nio's store, so that
started again it goes on where it was.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from nio import InviteMemberEvent, MatrixRoom, RoomMessageText
from nio.client.async_client import AsyncClient, AsyncClientConfig

LOGIN = "login.json"  # in the store's folder, under the Matrix ID's name


def login_file(store: Path, user_id: str) -> Path:
    return store / f"{user_id.partition(':')[0].removeprefix('@')}-{LOGIN}"


async def main(homeserver: str, user_id: str, password: str, store: str) -> None:
    client = AsyncClient(homeserver, user_id, store_path=store, config=AsyncClientConfig(store_sync_tokens=True))
    callbacks: Any = client  # nio's annotations of callbacks are wrong

    async def join(room: MatrixRoom, _: InviteMemberEvent) -> None:
        await client.join(room.room_id)

    async def echo(room: MatrixRoom, event: RoomMessageText) -> None:
        if event.sender != client.user_id:
            content = {"msgtype": "m.notice", "body": event.body}
            await client.room_send(room.room_id, "m.room.message", content, ignore_unverified_devices=True)

    callbacks.add_event_callback(join, InviteMemberEvent)
    callbacks.add_event_callback(echo, RoomMessageText)
    kept = login_file(Path(store), user_id)
    if kept.exists():
        client.restore_login(**json.loads(kept.read_text()))
    else:
        await client.login(password)
        login = {"user_id": client.user_id, "device_id": client.device_id, "access_token": client.access_token}
        kept.write_text(json.dumps(login))
    await client.sync_forever(timeout=30000, full_state=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))

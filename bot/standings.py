"""Asking of many rooms at once whether they stand as they were left."""

from __future__ import annotations

from bot.client import Client
from bot.together import Together
from supervision import standings
from supervision.db import Database
from supervision.standings import Sighting


class Standings:
    """What the rooms of `client`'s account are compared with stands in the database."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client
        self._together = Together(self._ask)

    async def is_settled(self, *room_ids: str) -> bool:
        """Whether nothing is to be noted and nothing to be said in any of these rooms. Raises Transient."""
        settled = await self._together.ask(*room_ids)
        return all(room_id in settled for room_id in room_ids)

    async def _ask(self, rooms: set[str]) -> dict[str, bool]:
        seen = {room_id: self._see(room_id) for room_id in rooms}
        async with self._database.transaction() as tx:
            return dict.fromkeys(await standings.settled(tx, self._client.user_id, seen), True)

    def _see(self, room_id: str) -> Sighting:
        members = self._client.members(room_id)
        joined = {user for user, membership in members.items() if membership == "join"}
        readers = {user for user in joined if self._client.can_read(room_id, user)}
        return Sighting(members, readers, {user for user in joined if self._client.trust(user) is None})

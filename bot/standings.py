"""Asking of many rooms at once whether they stand as they were left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from bot.client import Client
from supervision import standings
from supervision.db import DATABASE_AWAY, Database
from supervision.errors import Transient
from supervision.standings import Sighting


@dataclass
class _Question:
    """Rooms that are asked about together; `settled` is the answer once there is one."""

    rooms: set[str] = field(default_factory=set)
    settled: set[str] | None = None


class Standings:
    """Gathers what is asked in one turn of the event loop, and while another question is open, into one statement."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client
        self._question = _Question()
        self._asking = asyncio.Lock()

    async def is_settled(self, *room_ids: str) -> bool:
        """Whether nothing is to be noted and nothing to be said in any of these rooms. Raises Transient."""
        question = self._question
        question.rooms.update(room_ids)
        await asyncio.sleep(0)  # let whoever else has something to ask now put it
        async with self._asking:
            if question is self._question:
                self._question = _Question()
                question.settled = await self._ask(question.rooms)
        if question.settled is None:
            raise Transient("database")  # whoever asked for all of us failed
        return question.settled.issuperset(room_ids)

    async def _ask(self, rooms: set[str]) -> set[str]:
        seen = {room_id: self._see(room_id) for room_id in rooms}
        try:
            async with self._database.transaction() as tx:
                return await standings.settled(tx, self._client.user_id, seen)
        except DATABASE_AWAY as error:
            raise Transient("database") from error

    def _see(self, room_id: str) -> Sighting:
        members = self._client.members(room_id)
        joined = {user for user, membership in members.items() if membership == "join"}
        readers = {user for user in joined if self._client.can_read(room_id, user)}
        return Sighting(members, readers, {user for user in joined if self._client.trust(user) is None})

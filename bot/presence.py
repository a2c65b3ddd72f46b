"""Who is online, kept in the database for the other of each pair to see.

The homeserver tells changes alone: nothing comes of somebody who stays online, and nothing any more from one whose
presence was switched off. So whoever was not heard of for a while is asked after, and what it says then is believed.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from bot.client import Client
from bot.requests import path
from bot.sightings import Sighting, read_presence
from supervision import presences
from supervision.db import DATABASE_AWAY, Database
from supervision.errors import Permanent, Transient
from supervision.presences import Presence, Told

log = structlog.get_logger()

EVERY = 5.0  # seconds between looks for what is to be written
A_MINUTE = timedelta(minutes=1)
ASK_ONLINE = timedelta(minutes=4)  # well within presences.ONLINE_FOR
ASK_OTHERS = timedelta(hours=1)  # and this within presences.KNOWN_FOR
ASK_PAUSE = 0.05  # seconds between two questions


class Presences:
    """For one bot account. `clock` gives aware UTC."""

    def __init__(self, database: Database, client: Client, clock: Callable[[], datetime]) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self._people: dict[str, uuid.UUID] = {}
        self._told: dict[str, Told] = {}  # by this process's homeserver, since it started
        self._written: dict[str, Told] = {}

    def see(self, sightings: Sequence[Sighting]) -> None:
        """The homeserver told something; it is written down in its time."""
        now = self.clock()
        for one in sightings:
            active_at = None if one.ago is None else now - one.ago
            self._told[one.user_id] = Told(Presence(one.online, active_at), now)

    async def forget(self) -> None:
        """Presence is not wanted: nothing of it stays."""
        while True:
            try:
                async with self.database.transaction() as tx:
                    known = await presences.known_of_bot(tx, self.client.user_id)
                    await presences.forget(tx, [person_id for person_id, _ in known.values()])
                return
            except DATABASE_AWAY as error:
                log.warning("presence.database_away", error=type(error).__name__)
                await asyncio.sleep(EVERY)

    async def run(self) -> None:
        """Write what changes and ask after whom nothing was heard of, for ever."""
        await self.client.wait_until_synced()
        read_at: datetime | None = None
        while True:
            try:
                is_new = bool(self._told.keys() - self._people.keys())  # as of a pair that was just added
                if is_new or read_at is None or self.clock() - read_at > A_MINUTE:
                    await self._read_people()
                    read_at = self.clock()
                await self.write()
                await self.ask()
                await self.write()
            except DATABASE_AWAY as error:
                log.warning("presence.database_away", error=type(error).__name__)
            except Transient as failure:
                log.info("presence.homeserver_away", code=failure.code)
            await asyncio.sleep(EVERY)

    async def _read_people(self) -> None:
        async with self.database.transaction() as tx:
            known = await presences.known_of_bot(tx, self.client.user_id)
        self._people = {user_id: person_id for user_id, (person_id, _) in known.items()}
        self._written = {user_id: told for user_id, (_, told) in known.items() if told is not None}
        self._told = {user_id: told for user_id, told in self._told.items() if user_id in known}

    async def write(self) -> None:
        """Write down who came or went, and at most once a minute when each was last active."""
        due = {user_id: told for user_id, told in self._told.items() if self._is_due(user_id, told)}
        if not due:
            return
        async with self.database.transaction() as tx:
            await presences.note_all(tx, {self._people[user_id]: told for user_id, told in due.items()})
        self._written |= due

    def _is_due(self, user_id: str, told: Told) -> bool:
        if user_id not in self._people:
            return False
        written = self._written.get(user_id)
        if written is None or told.told_at <= written.told_at:
            return written is None
        return told.presence.online != written.presence.online or told.told_at - written.told_at >= A_MINUTE

    async def ask(self) -> None:
        """Ask after everybody whose last word is too old, or who was not heard of yet.

        Raises Transient where the homeserver is away: nothing is known then, and soon nothing is shown.
        """
        for user_id in [*self._people]:
            if not self._is_old(self._told.get(user_id)):
                continue
            sighting = None
            with contextlib.suppress(Permanent):  # whom it does not tell of
                place = path("/presence/{user}/status", user=user_id)
                sighting = read_presence(user_id, await self.client.homeserver.ask("GET", place))
            self.see([sighting or Sighting(user_id, online=False)])
            await asyncio.sleep(ASK_PAUSE)

    def _is_old(self, told: Told | None) -> bool:
        if told is None:
            return True
        return self.clock() - told.told_at > (ASK_ONLINE if told.presence.online else ASK_OTHERS)

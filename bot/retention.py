"""Removes what has been in the rooms for longer than their days: from the homeserver, and from the bot's keys.

What may go when, and what has to be announced first, is `supervision.retention`'s to say. A removal goes step by step,
each of which may be done again after a crash; that it is done stands in the database only when all of them are. Without
the homeserver's administrator its messages and files are left to its own retention, which the room's state asks for.
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import structlog

from bot.administration import Administrator
from bot.client import Client
from bot.events import open_envelope
from bot.requests import HomeserverRefused, path
from supervision import attachments, journal, pairs, retention
from supervision.config import RoomsConfig
from supervision.db import DATABASE_AWAY, Database, Transaction
from supervision.errors import DeliveryFailed, Transient
from supervision.pairs import Pair
from supervision.retention import BEGINNING, Standing

log = structlog.get_logger()

EVERY = timedelta(hours=1)
AGAIN_SECONDS = 60.0  # where homeserver or database is away
KEYS_EVERY = timedelta(days=1)
MOST_MARKS = 5  # for one removal; each joins ten ends of the room at the most
MARK = "org.visavis.retained"  # state of ours, so that the last message, too, has something after it
_FILTER = json.dumps({"types": ["m.room.encrypted", "m.room.message", "m.sticker"]})


class Retention:
    """Looks after the rooms of one bot account. `clock` gives aware UTC."""

    def __init__(
        self,
        database: Database,
        client: Client,
        administrator: Administrator | None,
        defaults: RoomsConfig,
        clock: Callable[[], datetime],
    ) -> None:
        self.database = database
        self.client = client
        self.administrator = administrator
        self.defaults = defaults
        self.clock = clock
        self._keys_at: datetime | None = None
        self._nothing_until: dict[uuid.UUID, tuple[Standing, datetime]] = {}

    async def run(self) -> None:
        """Look after all rooms every hour, for ever. What is away is waited for."""
        while True:
            try:
                await self.client.wait_until_synced()
                await self.look_after_all()
            except (DeliveryFailed, *DATABASE_AWAY) as error:
                log.warning("retention.waits", error=type(error).__name__)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await asyncio.sleep(EVERY.total_seconds())

    async def look_after_all(self) -> None:
        """Announce and remove what is due in every room; what goes wrong in one holds up no other."""
        async with self.database.transaction() as tx:
            await retention.void_outdated(tx, self.client.user_id, self.defaults)
            known = await retention.kept_by(tx, self.client.user_id)
        for pair in known:
            try:
                await self.look_after(pair)
            except DeliveryFailed as failure:
                log.warning("retention.delayed", pair=str(pair.id), code=failure.code)
            except DATABASE_AWAY:
                raise
            except Exception as error:
                log.exception("retention.failed", pair=str(pair.id), error=type(error).__name__)
        try:
            await self._forget_removed()
            await self._renew_keys()
        except DeliveryFailed as failure:
            log.warning("retention.keys_delayed", code=failure.code)

    async def look_after(self, pair: Pair) -> None:
        """Announce what has to be announced in a pair's room, and remove what may go. Raises DeliveryFailed."""
        now = self.clock()
        async with self.database.transaction() as tx:
            standing = await retention.standing_of(tx, pair, self.defaults, now=now)
        if standing.stopped:
            return
        before = retention.due(standing, now)
        if before is not None:
            await self.remove(pair, before)
        elif pair.fault is None and self._in_room(pair):
            await self._announce(pair, standing, now)

    def _in_room(self, pair: Pair) -> bool:
        return pair.room_id in self.client.rooms()

    async def _announce(self, pair: Pair, standing: Standing, now: datetime) -> None:
        known, nothing_until = self._nothing_until.get(pair.id, (standing, now))
        if (known.days, known.unannounced_since) == (standing.days, standing.unannounced_since) and now < nothing_until:
            return
        oldest = await self.oldest(pair, standing.unannounced_since)
        announcement = retention.wanting(standing, oldest, now)
        if announcement is None:
            self._nothing_until[pair.id] = standing, retention.look_again(standing, oldest, now)
            return
        async with self.database.transaction() as tx:
            found = await pairs.get_locked(tx, pair.id)
            if found.room_id != pair.room_id:
                return  # what was seen there is not in the room in which it would be said
            if await retention.standing_of(tx, pair, self.defaults, now=now) != standing:
                return  # a hold came, or other days were settled
            people = [one.matrix_id for one in pair.people]
            together = all(mxid and self.client.can_read(pair.room_id or "", mxid) for mxid in people)
            await retention.announce(tx, pair, announcement, together=together, now=now)
        log.info("retention.announced", pair=str(pair.id))

    async def oldest(self, pair: Pair, since: datetime) -> datetime | None:
        """When the first message in the room from `since` on was written, our words about retention left out.

        Its time is what its sender's homeserver says. What is dated in days to come counts when they have come, or one
        such message would keep all that follow it.
        """
        async with self.database.transaction() as tx:
            ours = await retention.own_words(tx, pair)
        room_id = pair.room_id or ""
        query = {"dir": "f", "limit": "50", "filter": _FILTER}
        if since > BEGINNING:
            first = await self._first_event(room_id, since)
            if first is None:
                return None
            around = await self._ask(path("/rooms/{room}/context/{event}", room=room_id, event=first[0]), limit="0")
            query["from"] = str(around.get("start"))
        while True:
            page = await self._ask(path("/rooms/{room}/messages", room=room_id), **query)
            found = (_written_at(event, ours) for event in page.get("chunk", ()))
            for written_at in found:
                if written_at is not None and since <= written_at <= self.clock():
                    return written_at
            if not isinstance(page.get("end"), str) or page["end"] == query.get("from"):
                return None
            query["from"] = page["end"]

    async def _first_event(self, room_id: str, since: datetime) -> tuple[str, int] | None:
        """The first event from then on, and its time in milliseconds (Matrix 1.18, `timestamp_to_event`)."""
        place = path("/rooms/{room}/timestamp_to_event", room=room_id)
        try:
            found = await self._ask(place, "v1", ts=str(int(since.timestamp() * 1000)), dir="f")
        except HomeserverRefused as refused:
            if refused.status == 404:
                return None
            raise
        return str(found["event_id"]), int(found["origin_server_ts"])

    async def _ask(self, place: str, version: str = "v3", **query: str) -> dict[str, Any]:
        return await self.client.homeserver.ask("GET", place, params=query, version=version)

    async def remove(self, pair: Pair, before: datetime) -> None:
        """Remove what was written in a pair's room before that instant. Raises DeliveryFailed; then it is to be redone.

        A legal hold that comes meanwhile stops what is not done yet; while files and keys go, it waits for that.
        The homeserver's copies go first: whoever took one before could not read it with what the bot then still knows.
        """
        room_id, is_all = pair.room_id or "", True
        silent = self._in_room(pair) and not await self._goes_on(room_id, before)
        if self.administrator is not None:
            if silent:
                await self._mark(room_id, before)
            is_all = await self._purge(self.administrator, pair, before)
        async with self.database.transaction() as tx:
            await _require_as_it_was(tx, pair)
            await self._give_away_media(tx, pair, before)
            readable = self.client.forget_before(room_id, before)
            if is_all:
                await retention.finish(tx, pair, before, readable, silent=silent, now=self.clock())
        if not is_all:
            raise Transient("room_split")  # until somebody writes there
        log.info("retention.removed", pair=str(pair.id))

    async def _purge(self, administrator: Administrator, pair: Pair, before: datetime) -> bool:
        """Purge the room at the homeserver, joining its ends where they are in the way. Whether that was all."""
        room_id = pair.room_id or ""
        for place in range(MOST_MARKS):
            if place:
                await self._mark(room_id, before)
            async with self.database.transaction() as tx:
                await _require_as_it_was(tx, pair)
            if await administrator.purge_history(room_id, before):
                return True
            if not self._in_room(pair):
                break
        return False

    async def _goes_on(self, room_id: str, before: datetime) -> bool:
        """Whether something was written from then on; what is dated in days to come does not count."""
        first = await self._first_event(room_id, before)
        return first is not None and first[1] <= self.clock().timestamp() * 1000

    async def _mark(self, room_id: str, before: datetime) -> None:
        """Put an event after the last message: Synapse removes only what has something after it.

        Synapse makes no event of state that is the same as before.
        """
        place = path("/rooms/{room}/state/{type}/", room=room_id, type=MARK)
        content = {"before": int(before.timestamp() * 1000), "number": secrets.token_hex(8)}
        await self.client.homeserver.ask("PUT", place, content)

    async def _give_away_media(self, tx: Transaction, pair: Pair, before: datetime) -> None:
        """Have the room's old files deleted at our homeserver."""
        free = await attachments.remove_before(tx, pair.id, before, now=self.clock())
        if self.administrator is not None:
            server_name = self.client.user_id.partition(":")[2]
            await attachments.give_away(tx, pair.id, free, server_name, now=self.clock())

    async def _forget_removed(self) -> None:
        """Forget the keys of every room that was removed, whoever's process had it removed, and whenever that was."""
        readable = self.client.readable_rooms()
        async with self.database.transaction() as tx:
            gone = await retention.removed_of(tx, readable, joined=self.client.rooms())
            await journal.forget_rooms(tx, gone)
        if gone:
            log.info("retention.rooms_forgotten", rooms=len(gone), sessions=self.client.forget_rooms(gone))

    async def _renew_keys(self) -> None:
        """Once a day: what was encrypted for a fallback key that was in use two days ago opens no more."""
        now = self.clock()
        if self._keys_at is None or now - self._keys_at >= KEYS_EVERY:
            await self.client.renew_fallback_key()
            self._keys_at = now


async def _require_as_it_was(tx: Transaction, pair: Pair) -> None:
    """Raises Transient where a hold came, or the pair was given another room. What comes now waits for this to end."""
    found = await pairs.get_locked(tx, pair.id)
    if found.held_at is not None:
        raise Transient("pair_held")
    if found.room_id != pair.room_id:
        raise Transient("another_room")


def _written_at(event: object, ours: Collection[str]) -> datetime | None:
    """When an event was written that counts: not one of ours, and not one that is redacted."""
    found = open_envelope("", event)
    if found is None or found.event_id in ours or not found.content:
        return None
    return found.sent_at

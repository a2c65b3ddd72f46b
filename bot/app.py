"""One bot account, running: its lock, its login, its rooms, and the loops that listen and speak."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.administration import Administrator
from bot.client import Client
from bot.events import Incoming
from bot.files import Files
from bot.greetings import greet
from bot.handlers import COMMANDS, Handlers
from bot.logins import Account
from bot.notices import DELIVERED, Notices
from bot.presence import Presences
from bot.reads import Reads
from bot.rooms import Plan, create_room
from bot.tasks import Tasks
from bot.trust import Trust
from supervision import audit, bots, identities, notifications, pairs
from supervision.audit import SYSTEM
from supervision.config import Config
from supervision.db import DATABASE_AWAY, AccountLock, Database, listen
from supervision.errors import DeliveryFailed, NotFound, Transient
from supervision.pairs import Pair

log = structlog.get_logger()

COLLECTORS = (COMMANDS, DELIVERED)
ROOMS_EVERY = 60.0  # seconds between looks for pairs without a room, when nothing says so at once


def utc_now() -> datetime:
    return datetime.now(UTC)


class Bot:
    """`run` it for as long as the process lives."""

    def __init__(self, database: Database, config: Config, clock: Callable[[], datetime] = utc_now) -> None:
        self.database = database
        self.config = config
        self.clock = clock
        matrix = config.matrix
        account = Account(
            matrix.homeserver,
            matrix.bot,
            matrix.store,
            "Visavis",
            matrix.as_token.get_secret_value() if matrix.as_token else None,
            matrix.password.get_secret_value() if matrix.password else None,
        )
        self.client = Client(account, pin=self._pin)
        token = matrix.admin_token
        self.administrator = Administrator(matrix.homeserver, token.get_secret_value()) if token else None
        self.tasks = Tasks(
            database,
            self.administrator,
            server_name=matrix.bot.partition(":")[2],
            secret=config.secret.get_secret_value(),
            clock=clock,
        )
        self.notices = Notices(database, self.client, clock)
        self.handlers = Handlers(
            database,
            self.notices,
            clock,
            config.web.base_url,
            config.calls.template,
            files=Files(database, self.client, clock, config.rooms, config.secret.get_secret_value()),
            unread_minutes=matrix.unread_minutes,
        )
        self.reads = Reads(database, self.client, clock, timedelta(minutes=matrix.unread_minutes))
        self.presences = Presences(database, self.client, clock)
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Wait until no other process runs this account, then be it. Raises when the account's lock is lost."""
        lock = AccountLock(self.database, self.client.user_id)
        try:
            await lock.acquire()
            await self._connect()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stop_without(lock))
                group.create_task(self.notices.run())
                group.create_task(self.reads.run())
                group.create_task(self.presences.run() if self.config.matrix.presence else self.presences.forget())
                group.create_task(self._keep_rooms())
                group.create_task(self.tasks.run())
                group.create_task(listen(self.database, "visavis_identities", asyncio.Event(), self._reconsider))
                group.create_task(
                    self.client.run(
                        load_token=self._load_token,
                        save_token=self._save_token,
                        on_event=self._heard,
                        on_members=self._members_changed,
                        on_trust_changed=self._trust_changed,
                        on_invitation=self._invited,
                        on_receipts=self.reads.see,
                        on_state=self.handlers.handle,
                        on_presence=self.presences.see if self.config.matrix.presence else None,
                    )
                )
        finally:
            await self.client.close()
            if self.administrator is not None:
                await self.administrator.close()
            await lock.release()

    async def _connect(self) -> None:
        """Log in, waiting for a homeserver that is away; never in a tight loop, logins are counted there."""
        pause = 1.0
        while True:
            try:
                await self.client.connect()
                break
            except Transient as failure:
                log.warning("bot.homeserver_away", code=failure.code)
                await asyncio.sleep(max(pause, failure.retry_after or 0.0))
                pause = min(pause * 2, 60.0)
        async with self.database.transaction() as tx:
            await bots.register(tx, self.client.user_id, self.client.master_key, now=self.clock())
            await notifications.release_bot(tx, self.client.user_id)
        await self.reads.load()
        log.info("bot.connected")

    async def _stop_without(self, lock: AccountLock) -> None:
        await lock.lost.wait()
        raise Transient("account_lock_lost")

    async def _keep_rooms(self) -> None:
        """Make a room for every active pair of this bot that has none, whenever one appears."""
        wake = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(self.database, "visavis_pairs", wake))
            while True:
                wake.clear()
                try:
                    await self._make_missing_rooms()
                except (Transient, *DATABASE_AWAY) as error:
                    log.warning("rooms.delayed", error=type(error).__name__)
                    await asyncio.sleep(2)
                    continue
                self.ready.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROOMS_EVERY):
                        await wake.wait()

    async def _make_missing_rooms(self) -> None:
        async with self.database.transaction() as tx:
            await pairs.adopt(tx, self.client.user_id)
            known = await pairs.list_for_bot(tx, self.client.user_id)
        for pair in known:
            if pair.room_id is not None:
                continue
            try:
                room_id = await create_room(self.client, self._plan(pair))
            except Transient:
                raise
            except DeliveryFailed as failure:
                log.error("room.not_made", pair=str(pair.id), code=failure.code)
                continue
            async with self.database.transaction() as tx:
                await pairs.set_room(tx, pair.id, room_id)
                await audit.record(tx, SYSTEM, "room.make", "pair", pair.id, now=self.clock())
            log.info("room.made", pair=str(pair.id))
            self.notices.wake.set()

    def _plan(self, pair: Pair) -> Plan:
        people = frozenset(person.matrix_id for person in pair.people if person.matrix_id)
        ours = self.client.user_id.partition(":")[2]
        federate = any(person.partition(":")[2] != ours for person in people)
        return Plan(str(pair.room_token), people, federate)

    async def _load_token(self) -> str | None:
        async with self.database.transaction() as tx:
            return await bots.load_token(tx, self.client.user_id)

    async def _save_token(self, token: str) -> None:
        async with self.database.transaction() as tx:
            await bots.save_token(tx, self.client.user_id, token)

    async def _pin(self, matrix_id: str, master_key: str) -> str | None:
        async with self.database.transaction() as tx:
            return await identities.pin(tx, matrix_id, master_key, now=self.clock())

    def _reconsider(self, matrix_id: str) -> None:
        """Somebody's new identity was confirmed; without a name, anybody's may have been while we did not listen."""
        everybody = {member for room in self.client.rooms() for member in self.client.members(room)}
        for user_id in [matrix_id] if matrix_id else everybody - {self.client.user_id}:
            self.client.reconsider(user_id)

    async def _heard(self, event: Incoming) -> None:
        """Act on it, then see to what is unread: nobody's answer waits for that. Both bear being told it again."""
        await self.handlers.handle(event)
        await self.reads.hear(event)

    async def _members_changed(self, room_id: str, members: Mapping[str, str]) -> None:
        try:
            await self._watch_members(room_id, members)
        except SQLAlchemyError as error:
            raise Transient("database") from error
        await self._greet(room_id)

    async def _watch_members(self, room_id: str, members: Mapping[str, str]) -> None:
        """Alarm at once when somebody besides the two is in a pair's room; go on at once when they are gone."""
        present = {member for member, membership in members.items() if membership in ("join", "invite", "knock")}
        async with self.database.transaction() as tx:
            try:
                pair = await pairs.by_room(tx, room_id)
            except NotFound:
                return
            if present - {self.client.user_id, *(person.matrix_id for person in pair.people)}:
                await pairs.alarm_stranger(tx, pair, now=self.clock())
            else:
                await notifications.hurry(tx, pair.id, "stranger_in_room", now=self.clock())

    async def _trust_changed(self, user_id: str, trust: Trust) -> None:
        for room_id in self.client.rooms():
            if self.client.members(room_id).get(user_id) == "join":
                await self._greet(room_id)

    async def _greet(self, room_id: str) -> None:
        try:
            await greet(self.database, self.client, room_id, self.clock)
        except SQLAlchemyError as error:
            raise Transient("database") from error

    async def _invited(self, room_id: str, inviter: str | None) -> None:
        """Somebody wanted the bot in a room that it did not make; the client has refused already."""
        try:
            async with self.database.transaction() as tx:
                await audit.record(
                    tx, SYSTEM, "room.refuse_invitation", "room", room_id, now=self.clock(), success=False
                )
        except SQLAlchemyError as error:
            raise Transient("database") from error

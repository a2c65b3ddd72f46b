"""One bot account, running: its lock, its login, its rooms, and the loops that listen and speak."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.administration import Administrator
from bot.client import Client
from bot.events import Incoming
from bot.exports import Exports
from bot.files import FILES, Files
from bot.greetings import greet
from bot.handlers import COMMANDS, Handlers
from bot.keeping import CHECKED, Keeping
from bot.lanes import DELAYED
from bot.logins import Account
from bot.notices import DELIVERED, Notices
from bot.presence import Presences
from bot.reads import Reads
from bot.retention import Retention
from bot.standings import Standings
from bot.tasks import Tasks
from bot.together import Together
from bot.trust import Trust
from supervision import audit, bots, identities, notifications
from supervision.audit import SYSTEM
from supervision.config import Config
from supervision.db import AccountLock, Database, listen
from supervision.errors import Transient

log = structlog.get_logger()

COLLECTORS = (CHECKED, COMMANDS, DELAYED, DELIVERED, FILES)


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
        self._pins = Together(self._read_pins)
        self.client = Client(account, pin=self._pin)
        token = matrix.admin_token
        self.administrator = Administrator(matrix.homeserver, token.get_secret_value()) if token else None
        self.tasks = Tasks(
            database,
            self.administrator,
            server_name=matrix.server_name,
            secret=config.secret.get_secret_value(),
            clock=clock,
        )
        self.standings = Standings(database, self.client)
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
        self.exports = Exports(database, self.client, clock, config.secret.get_secret_value())
        self.presences = Presences(database, self.client, clock)
        self.retention = Retention(database, self.client, self.administrator, config.rooms, clock)
        self.keeping = Keeping(
            database,
            self.client,
            clock,
            defaults=config.rooms,
            spoken=self.notices.wake.set,
            closed=self.reads.forget,
        )

    @property
    def ready(self) -> asyncio.Event:
        """Set once no pair lacks its room."""
        return self.keeping.ready

    async def run(self) -> None:
        """Wait until no other process runs this account, then be it. Raises when the account's lock is lost."""
        lock = AccountLock(self.database, self.client.user_id)
        try:
            await lock.acquire()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stop_without(lock))  # from now on: to connect may take as long as an outage
                await self._connect()
                group.create_task(self.notices.run())
                group.create_task(self.reads.run())
                group.create_task(self.presences.run() if self.config.matrix.presence else self.presences.forget())
                group.create_task(self.keeping.run())
                group.create_task(self.tasks.run())
                group.create_task(self.exports.run())
                group.create_task(self.retention.run())
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
            await self.notices.stop()
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

    async def _load_token(self) -> str | None:
        async with self.database.transaction() as tx:
            return await bots.load_token(tx, self.client.user_id)

    async def _save_token(self, token: str) -> None:
        async with self.database.transaction() as tx:
            await bots.save_token(tx, self.client.user_id, token)

    async def _pin(self, matrix_id: str, master_key: str) -> str | None:
        if (await self._pins.ask(matrix_id)).get(matrix_id) == master_key:
            return master_key
        async with self.database.transaction() as tx:
            return await identities.pin(tx, matrix_id, master_key, now=self.clock())

    async def _read_pins(self, matrix_ids: set[str]) -> dict[str, str]:
        async with self.database.transaction() as tx:
            return await identities.pinned(tx, matrix_ids)

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
        if members == self.client.members(room_id) and await self.standings.is_settled(room_id):
            return
        await self.keeping.see_members(room_id, members)
        await self._greet(room_id)

    async def _trust_changed(self, user_id: str, trust: Trust) -> None:
        rooms = [room_id for room_id in self.client.rooms() if self.client.members(room_id).get(user_id) == "join"]
        if await self.standings.is_settled(*rooms):
            return
        await self.keeping.see_trust(user_id)
        for room_id in rooms:
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

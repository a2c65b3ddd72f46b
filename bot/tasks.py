"""Does the homeserver's tasks (`supervision.homeserver_tasks`) as its administrator, where the bot has the token."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

import structlog

from bot.administration import Administrator
from bot.requests import HomeserverRefused
from supervision import accounts, attachments, audit, exports, homeserver_tasks, invitations, pairs, people, seals
from supervision.audit import SYSTEM
from supervision.db import DATABASE_AWAY, Database, Transaction, listen
from supervision.errors import DeliveryFailed, Permanent, Refused, Transient
from supervision.homeserver_tasks import NO_ADMIN_TOKEN, HomeserverTask
from supervision.models import Task

log = structlog.get_logger()

Note = Callable[[Transaction], Awaitable[bytes | None]]
AT_ONCE = 4  # the last place takes nothing that is slow: who waits before a page waits for no large room
OF_ONE_FILE = frozenset({"http_500", "homeserver_incomprehensible", "homeserver_busy"})  # with others it may do well
LOOK_EVERY = 60.0  # seconds, when nothing says that there is something to do


class Tasks:
    """`run` it beside the rest of the bot. `server_name` is what the Matrix IDs of our homeserver end in."""

    def __init__(
        self,
        database: Database,
        administrator: Administrator | None,
        *,
        server_name: str,
        secret: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.database = database
        self.administrator = administrator
        self.server_name = server_name
        self.secret = secret
        self.clock = clock
        self._wake = asyncio.Event()
        self._running = 0

    async def run(self) -> None:
        """Do what is due, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(self.database, homeserver_tasks.CHANNEL, self._wake))
            while True:
                self._wake.clear()
                try:
                    await self._begin_due(group)
                    pause = await self._pause()
                except DATABASE_AWAY as error:
                    log.warning("homeserver_tasks.delayed", error=type(error).__name__)
                    pause = 2.0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def _begin_due(self, group: asyncio.TaskGroup) -> None:
        while self._running < AT_ONCE:
            async with self.database.transaction() as tx:
                task = await homeserver_tasks.claim(tx, quick=self._is_busy(), now=self.clock())
            if task is None:
                return
            self._running += 1
            group.create_task(self._finish(task))

    def _is_busy(self) -> bool:
        return self._running >= AT_ONCE - 1

    async def _pause(self) -> float:
        if self._running >= AT_ONCE:
            return LOOK_EVERY  # whichever is done first wakes us
        async with self.database.transaction() as tx:
            due = await homeserver_tasks.next_due_at(tx, quick=self._is_busy())
        seconds = LOOK_EVERY if due is None else (due - self.clock()).total_seconds()
        return min(max(seconds, 0.05), LOOK_EVERY)

    async def _finish(self, task: HomeserverTask) -> None:
        try:
            await self._settle(task)
        except DATABASE_AWAY as error:  # its lease runs out, and it is done again
            log.warning("homeserver_task.not_settled", task=str(task.id), error=type(error).__name__)
        except Exception as error:  # which must not stop the bot, now and whenever it is claimed again
            log.exception("homeserver_task.failed", task=str(task.id), kind=task.kind, error=type(error).__name__)
            await self._give_up(task, "failed")
        finally:
            self._running -= 1
            self._wake.set()

    async def _settle(self, task: HomeserverTask) -> None:
        """Do it, and note what came of it."""
        try:
            note = await self._do(task)
        except Transient as failure:
            async with self.database.transaction() as tx:
                await homeserver_tasks.put_off(
                    tx, task, failure.code, retry_after=failure.retry_after, now=self.clock()
                )
            log.warning("homeserver_task.put_off", task=str(task.id), kind=task.kind, code=failure.code)
        except (Permanent, Refused) as failure:
            error = failure.code if isinstance(failure, Permanent) else failure.key
            await self._give_up(task, error)
            log.error("homeserver_task.given_up", task=str(task.id), kind=task.kind, code=error)
        else:
            async with self.database.transaction() as tx:
                answer = await note(tx)
                await homeserver_tasks.settle(tx, task.id, answer=answer, now=self.clock())
                await self._record(tx, task)
            log.info("homeserver_task.done", task=str(task.id), kind=task.kind)

    async def _give_up(self, task: HomeserverTask, error: str) -> None:
        with contextlib.suppress(*DATABASE_AWAY):  # then it is done again
            async with self.database.transaction() as tx:
                await homeserver_tasks.give_up(tx, task.id, error, now=self.clock())
                await self._record(tx, task, error)

    async def _record(self, tx: Transaction, task: HomeserverTask, error: str | None = None) -> None:
        resource, resource_id = ("person", task.person_id) if task.person_id else ("pair", task.pair_id)
        await audit.record(
            tx, SYSTEM, f"homeserver.{task.kind}", resource, resource_id,
            now=self.clock(), success=error is None, reason=error,
        )  # fmt: skip

    async def _do(self, task: HomeserverTask) -> Note:
        """Do it at the homeserver; gives what is to be written down with its settling."""
        if self.administrator is None:
            raise Permanent(NO_ADMIN_TOKEN)
        match task.kind:
            case Task.OPEN_REGISTRATION:
                return await self._open_registration(self.administrator, task)
            case Task.RESET_PASSWORD:
                password = secrets.token_urlsafe(32)
                await self.administrator.reset_password(await self._account(task), password, sign_out=False)
                return answering(seals.lock(self.secret, password))
            case Task.SIGN_OUT:
                await self.administrator.sign_out(await self._account(task))
            case Task.DEACTIVATE:
                await self.administrator.deactivate(await self._account(task))
            case Task.REMOVE_MEDIA:
                await self._remove_media(self.administrator, task)
            case Task.REMOVE_ROOM:
                return await self._remove_room(self.administrator, task)
        return nothing

    async def _account(self, task: HomeserverTask) -> str:
        """The Matrix ID of the task's person, if it is our homeserver's."""
        if task.person_id is None:
            raise Permanent("no_person")
        async with self.database.transaction() as tx:
            person = await people.get(tx, task.person_id)
        if person.matrix_id is None or not accounts.is_ours(person, self.server_name):
            raise Permanent("not_our_account")
        return person.matrix_id

    async def _open_registration(self, administrator: Administrator, task: HomeserverTask) -> Note:
        """A registration token for the invitation; the one that it had is closed first."""
        if task.person_id is None:
            raise Permanent("no_person")
        async with self.database.transaction() as tx:
            invitation = await invitations.of(tx, task.person_id)
        if invitation is None or invitation.localpart is None or invitation.registered_at:
            raise Permanent("no_invitation")
        before = invitation.registration and seals.unlock(self.secret, invitation.registration)
        if before:
            await administrator.close_registration(before)
        locked = seals.lock(self.secret, await administrator.open_registration(invitation.expires_at))

        async def note(tx: Transaction) -> None:
            await invitations.set_registration(tx, invitation, locked)

        return note

    async def _remove_media(self, administrator: Administrator, task: HomeserverTask) -> None:
        """Those of the files that nothing shows, and that one of those uploaded who showed them; none while the pair's
        room is on hold. One that the homeserver fails with keeps no other."""
        media: dict[str, list[str]] = task.details["media"]
        async with self.database.transaction() as tx:
            free = await attachments.unused(tx, list(media))
        failures: dict[str, DeliveryFailed] = {}
        for mxc in free:
            async with self.database.transaction() as tx:
                if task.pair_id is not None and (await pairs.get(tx, task.pair_id)).held_at is not None:
                    raise Transient("pair_held")
            try:
                if not await self._remove_file(administrator, mxc, media[mxc]):
                    log.warning("media.not_theirs", task=str(task.id))
            except (Transient, HomeserverRefused) as failure:
                if isinstance(failure, Transient) and failure.code not in OF_ONE_FILE:
                    raise
                failures[mxc] = failure
        # Who uploaded what is still shown may stand here alone, once it is shown no more.
        failures |= {mxc: Transient("media_shown") for mxc in media if mxc not in free}
        if failures:
            left = {mxc: media[mxc] for mxc in failures}
            async with self.database.transaction() as tx:
                await homeserver_tasks.narrow(tx, task.id, {"media": left})
            raise min(failures.values(), key=lambda one: isinstance(one, Permanent))  # what may yet pass, if any

    async def _remove_file(self, administrator: Administrator, mxc: str, showers: Collection[str]) -> bool:
        """Whether a file is gone now, which it is not where none of those who showed it uploaded it."""
        uploader = await administrator.uploader_of(mxc)
        if uploader in showers:
            await administrator.delete_media(mxc)
        return uploader is None or uploader in showers

    async def _remove_room(self, administrator: Administrator, task: HomeserverTask) -> Note:
        """The room that the task was put for, unless it is on hold by now.

        What was kept of it here goes with its settling, and its files are to be deleted: Synapse lists none that are
        encrypted, so that they would stay.
        """
        pair_id = task.pair_id
        if pair_id is None:
            raise Permanent("no_pair")
        async with self.database.transaction() as tx:
            if (await pairs.get(tx, pair_id)).held_at is not None:
                raise Permanent("pair_held")
        await administrator.remove_room(task.details["room"])

        async def note(tx: Transaction) -> None:
            free = await attachments.remove_all(tx, pair_id, now=self.clock())
            await attachments.give_away(tx, pair_id, free, self.server_name, now=self.clock())
            await exports.forget_room(tx, pair_id, now=self.clock())
            await pairs.forget_room(tx, pair_id, now=self.clock())

        return note


def answering(locked: bytes) -> Note:
    """What is to be answered to whoever put the task."""

    async def note(_: Transaction) -> bytes:
        return locked

    return note


async def nothing(_: Transaction) -> None:
    """Nothing but that it is done."""

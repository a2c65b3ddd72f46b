"""Waiting, within a request, for what the bot's process does at the homeserver."""

import asyncio
import uuid

from aiohttp import web

from supervision import homeserver_tasks
from supervision.errors import NotUnderstood, Refused
from supervision.homeserver_tasks import NO_ADMIN_TOKEN, OPERATORS, HomeserverTask
from web.homeserver import HomeserverAway
from web.state import database, now

WAIT_SECONDS = 15.0
LOOK_SECONDS = 0.1


class HalfDone(Refused):
    """Nobody knows whether it was done."""

    default_key = "web.refused.half_done"


async def finish(request: web.Request, task_id: uuid.UUID) -> HomeserverTask:
    """The task once it is done. What takes too long is withdrawn.

    Raises HomeserverAway where nothing was done, HalfDone where it may have been, NotUnderstood where it cannot be.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + WAIT_SECONDS
    while loop.time() < until:
        async with database(request).transaction() as tx:
            task = await homeserver_tasks.get(tx, task_id)
        if task.done_at is not None:
            break
        if task.error in OPERATORS:  # nothing was done, and nobody waits for the operator
            async with database(request).transaction() as tx:
                await homeserver_tasks.withdraw(tx, task_id, now=now(request))
            raise HomeserverAway
        await asyncio.sleep(LOOK_SECONDS)
    else:
        async with database(request).transaction() as tx:
            task = await homeserver_tasks.withdraw(tx, task_id, now=now(request))
    if task.succeeded:
        return task
    if task.error == NO_ADMIN_TOKEN:
        raise NotUnderstood("refused.no_admin_token")
    if task.error == "not_our_account":
        raise NotUnderstood("refused.account_elsewhere")
    raise HomeserverAway if task.attempts == 0 else HalfDone

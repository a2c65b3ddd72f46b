"""Changes asked for by a form or by the API: one transaction, and an audit entry in any case."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web

from supervision import audit
from supervision.db import Transaction
from supervision.errors import Refused
from web import repeats
from web.repeats import Answer, Repeat
from web.state import database, now, visitor

Done = TypeVar("Done")


@dataclass(frozen=True)
class Change(Generic[Done]):
    """What is asked for: the audit's word for it, what it is done to, and the doing, which gives what came of it."""

    action: str
    resource: str
    resource_id: object | None
    act: Callable[[Transaction], Awaitable[Done]]


async def carry_out(
    request: web.Request,
    change: Change[Done],
    answer: Callable[[Done], Answer],
    repeat: Repeat | None = None,
    answer_refusal: Callable[[Refused], Answer] | None = None,
) -> Answer:
    """Do it once. A refusal is audited in a transaction of its own, since the change's was rolled back, and raised.

    With a `repeat` the answer is kept with the change itself; a refusal is kept too if it can be answered here.
    """
    at = now(request)
    try:
        async with database(request).transaction() as tx:
            kept = await repeats.find(tx, repeat, now=at) if repeat else None
            if kept is not None:
                return kept
            given = answer(await change.act(tx))
            if repeat:
                await repeats.keep(tx, repeat, given, now=at)
            return given
    except Refused as refused:
        refusal = answer_refusal(refused) if answer_refusal else None
        async with database(request).transaction() as tx:
            await audit.record(
                tx,
                visitor(request).actor,
                change.action,
                change.resource,
                change.resource_id,
                now=at,
                success=False,
                reason=refused.key,
            )
            if repeat and refusal and refused.key != repeats.OTHER_REQUEST:
                await repeats.keep(tx, repeat, refusal, now=at)
        if refusal is None:
            raise
        return refusal

"""The API of a room's copy: asking for one, how far it is, and the file itself, to its asker alone."""

from aiohttp import web

from supervision import exports
from supervision.db import Transaction
from supervision.errors import NotFound
from web import exports as page
from web import reauth, schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, own_pair, parts, person, visitor


async def list_exports(request: web.Request) -> web.Response:
    """The person's own copies of a room that were asked for in the last 30 days, the newest first."""
    async with database(request).transaction() as tx:
        shown = await _standing(tx, request)
    return answers.show(shown)


async def ask_export(request: web.Request) -> web.Response:
    """Ask for a copy: it is made at once, or when the other agrees. Needs a sign-in of the last ten minutes."""
    body = await requests.body(request, schemas.Nothing)
    await reauth.require_recent(request)
    default, actor, at = parts(request).config.rooms.export_consent, visitor(request).actor, now(request)
    pair_id = path_id(request)

    async def act(tx: Transaction) -> schemas.Exports:
        await own_pair(tx, request, pair_id)
        await exports.ask(tx, actor, pair_id, default=default, now=at)
        return await _standing(tx, request)

    def answer(shown: schemas.Exports) -> Answer:
        return answers.of_model(shown, 202)

    return await answers.change(request, Change("export.ask", "pair", pair_id, act), answer, body)


async def withdraw_export(request: web.Request) -> web.Response:
    """Ask no more: the other cannot agree any longer. What is being made already is made."""
    body = await requests.body(request, schemas.Nothing)
    actor, at, pair_id = visitor(request).actor, now(request), path_id(request)

    async def act(tx: Transaction) -> None:
        await own_pair(tx, request, pair_id)
        await exports.withdraw(tx, actor, pair_id, now=at)

    return await answers.change(request, Change("export.withdraw", "pair", pair_id, act), answers.nothing, body)


async def show_export(request: web.Request) -> web.Response:
    """One of the person's own copies: whether it is ready, and what was taken in so far."""
    me, export_id = person(request), path_id(request, "export_id")
    async with database(request).transaction() as tx:
        pair = await own_pair(tx, request, path_id(request))
        export = await exports.get(tx, export_id)
    if (export.pair_id, export.person_id) != (pair.id, me.id):
        raise NotFound
    return answers.show(schemas.Export.seen(export, now=now(request)))


async def fetch_export(request: web.Request) -> web.StreamResponse:
    """The file, a ZIP, to its asker alone for a day. Needs a sign-in of the last ten minutes."""
    await reauth.require_recent(request)
    return await page.send(request, path_id(request), path_id(request, "export_id"))


async def _standing(tx: Transaction, request: web.Request) -> schemas.Exports:
    me, at = person(request), now(request)
    pair = await own_pair(tx, request, path_id(request))
    pending = await exports.pending(tx, pair, me.id, now=at, locked=False)
    own = await exports.list_of(tx, pair.id, me.id, since=at - page.SHOWN_FOR)
    return schemas.Exports(
        items=[schemas.Export.seen(one, now=at) for one in own],
        waits_until=None if pending is None else pending.expires_at,
    )

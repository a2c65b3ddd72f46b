"""Taking a room home: asking for it, the other's word, how far it is, and the file itself, to its asker alone."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from aiohttp import web

from supervision import audit, exports
from supervision.db import Transaction
from supervision.errors import NotFound, Refused
from supervision.exports import Export
from supervision.logs import traces
from supervision.models import Consent, ExportState
from supervision.pairs import Pair
from supervision.questions import Asked
from web import fields, pages, problems, reauth, repeats, sessions
from web.changes import Change, carry_out
from web.dashboard import path_id, read_id
from web.rooms import name_size
from web.state import database, now, own_pair, parts, person, visitor

log = structlog.get_logger()

PATH = "/rooms/{id}/export"
SHOWN_FOR = timedelta(days=30)
REFRESH_SECONDS = 5


@dataclass(frozen=True)
class Standing:
    """How it stands between the two: `asked` is put to this person, `pending` to the other because of them."""

    pair: Pair
    asked: Asked | None
    pending: Asked | None
    own: list[Export]
    made: list[Export]
    both: bool

    @property
    def making(self) -> Export | None:
        return next((one for one in self.own if one.state is ExportState.AGREED), None)

    @property
    def ready(self) -> Export | None:
        return next((one for one in self.own if one.state is ExportState.READY), None)

    @property
    def failed(self) -> bool:
        """The newest could not be made."""
        return bool(self.own) and self.own[0].state is ExportState.FAILED

    @property
    def out_of_reach(self) -> bool:
        """None can be made: the bot is not in the room any more."""
        return exports.is_out_of_reach(self.pair)


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    me, at = person(request), now(request)
    async with database(request).transaction() as tx:
        standing = await _stand(tx, request)
    other = standing.pair.other(me.id)
    recent = await reauth.is_recent(request)
    response = pages.render(
        request,
        "export.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        standing=standing,
        other=other,
        recent=recent,
        anew=reauth.PATH,
        now=at,
        base=f"/rooms/{standing.pair.id}/export",
        name_of=lambda person_id: standing.pair.member(person_id).name,
        size=lambda count: name_size(visitor(request).reader, count),
    )
    if standing.making and not refused:
        response.headers["Refresh"] = str(REFRESH_SECONDS)
    if not recent:
        sessions.remember(request, response, request.path)
    return response


async def _stand(tx: Transaction, request: web.Request) -> Standing:
    """Raises NotFound for anybody but the two."""
    me, at = person(request), now(request)
    pair = await own_pair(tx, request, path_id(request))
    default = parts(request).config.rooms.export_consent
    own = await exports.list_of(tx, pair.id, me.id, since=at - SHOWN_FOR)
    return Standing(
        pair,
        await exports.asked(tx, pair.id, me.id, now=at, locked=False),
        await exports.pending(tx, pair, me.id, now=at, locked=False),
        [one for one in own if one.state is not ExportState.READY or (one.expires_at and one.expires_at > at)],
        await exports.made(tx, pair.id),
        await exports.consent(tx, pair.id, default) is Consent.BOTH,
    )


async def ask(request: web.Request) -> web.Response:
    """Ask for a copy; the sign-in just now stands for the typed code."""
    await reauth.require_recent(request)
    default, actor = parts(request).config.rooms.export_consent, visitor(request).actor

    async def act(tx: Transaction, pair: Pair) -> None:
        await exports.ask(tx, actor, pair.id, default=default, now=now(request))

    return await _change(request, "export.ask", act)


async def agree(request: web.Request) -> web.Response:
    """The other's word, by the sign-in just now."""
    await reauth.require_recent(request, _home(request))
    actor = visitor(request).actor

    async def act(tx: Transaction, pair: Pair) -> None:
        await exports.agree(tx, actor, pair.id, now=now(request))

    return await _change(request, "export.agree", act)


async def refuse(request: web.Request) -> web.Response:
    actor = visitor(request).actor

    async def act(tx: Transaction, pair: Pair) -> None:
        await exports.refuse(tx, actor, pair.id, now=now(request))

    return await _change(request, "export.refuse", act)


async def withdraw(request: web.Request) -> web.Response:
    actor = visitor(request).actor

    async def act(tx: Transaction, pair: Pair) -> None:
        await exports.withdraw(tx, actor, pair.id, now=now(request))

    return await _change(request, "export.withdraw", act)


async def _change(
    request: web.Request, action: str, act: Callable[[Transaction, Pair], Awaitable[None]]
) -> web.Response:
    async def do(tx: Transaction) -> None:
        await act(tx, await own_pair(tx, request, path_id(request)))

    change = Change(action, "pair", path_id(request), do)
    answer = repeats.Answer(303, {"Location": _home(request)})
    try:
        return pages.respond(await carry_out(request, change, lambda _: answer, fields.repeat_of(request)))
    except Refused as refused:
        return await page(request, refused)


def _home(request: web.Request) -> str:
    return f"/rooms/{path_id(request)}/export"


async def fetch(request: web.Request) -> web.StreamResponse:
    """The file, decrypted on the way out. One that breaks off can be begun again as long as it is there."""
    await reauth.require_recent(request, _home(request))
    return await send(request, path_id(request), read_id(request.match_info["export"]))


async def send(request: web.Request, pair_id: uuid.UUID, export_id: uuid.UUID) -> web.StreamResponse:
    """The file to its asker alone, piece by piece. Raises NotFound for whoever else and whatever else."""
    if request.method != "GET":  # a HEAD has no body and fetches nothing
        raise web.HTTPMethodNotAllowed(request.method, ["GET"])
    actor, at = visitor(request).actor, now(request)
    async with database(request).transaction() as tx:
        pair = await own_pair(tx, request, pair_id)
        export = await exports.to_fetch(tx, actor, export_id, now=at)
        if export.pair_id != pair.id:
            raise NotFound("refused.export_gone")
        await audit.record(tx, actor, "export.fetch", "export", export.id, now=at)
    pieces = exports.read(database(request), parts(request).secret, export)
    first = await anext(pieces)  # what cannot be read at all is told on a page
    made_on = (export.ready_at or at).astimezone(person(request).zone).date()
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/zip",
            "Content-Disposition": f'attachment; filename="visavis-{made_on}.zip"',
            "Content-Length": str(export.bytes),
        }
    )
    await response.prepare(request)
    whole = False
    try:
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        whole = True
        async with database(request).transaction() as tx:
            await exports.note_fetched(tx, export.id, now=now(request))
    except Exception as error:  # a broken file must not look whole, and no page may follow in it
        log.warning("export.broke_off", id=str(export.id), whole=whole, **traces(error))
        if not whole and request.transport is not None:
            request.transport.abort()
    return response


ROUTES = [
    web.get(PATH, show),
    web.post(PATH, ask),
    web.post(f"{PATH}/agree", agree),
    web.post(f"{PATH}/refuse", refuse),
    web.post(f"{PATH}/withdraw", withdraw),
    web.get(f"{PATH}/{{export}}/file", fetch),
]

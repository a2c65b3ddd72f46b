"""A person's calendar address: the page that gives it, renews it and takes it away, and what calendars read there."""

import hashlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from supervision import calendars, feeds
from supervision.db import Transaction
from supervision.errors import NotFound, Refused, TooMany
from web import fields, pages, problems
from web.changes import Change, carry_out
from web.limits import Limit
from web.state import database, now, parts, person, visitor

READERS = web.AppKey("feed_readers", Limit)
# A calendar asks a few times an hour; somebody may have several, and all ask when the address is new.
BURST, PER_SECOND = 60, 1 / 30

Act = Callable[..., Awaitable[None]]


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """What the address is for and, where the person has one, the address itself."""
    me, of = person(request), parts(request)
    async with database(request).transaction() as tx:
        token = await feeds.token(tx, of.secret, me.id)
    address = None if token is None else f"{of.config.web.base_url}/calendar/{token}.ics"
    return pages.render(
        request,
        "feed.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        address=address,
        webcal=None if address is None else urlsplit(address)._replace(scheme="webcal").geturl(),
        home=pages.home(visitor(request)),
    )


async def open_feed(request: web.Request) -> web.Response:
    return await _change(request, "open", feeds.open, "feed_opened")


async def renew(request: web.Request) -> web.Response:
    return await _change(request, "renew", feeds.renew, "feed_renewed")


async def close(request: web.Request) -> web.Response:
    return await _change(request, "close", feeds.close, "feed_closed")


async def _change(request: web.Request, action: str, act: Act, done: str) -> web.Response:
    me, actor, at = person(request), visitor(request).actor, now(request)

    async def run(tx: Transaction) -> None:
        await act(tx, actor, me.id, now=at)

    change = Change(f"feed.{action}", "person", me.id, run)
    try:
        answer = await carry_out(request, change, lambda _: pages.see("/calendar", done), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


async def read(request: web.Request) -> web.Response:
    """The feed, to whoever has its address. Not Modified (RFC 9110, 15.4.5) to whom has just this already."""
    of = parts(request)
    async with database(request).transaction() as tx:
        owner = await feeds.find(tx, of.secret, request.match_info["token"])
        if owner is None:
            raise NotFound
        if not request.config_dict[READERS].take(owner.id):
            raise TooMany
        items = await feeds.items(tx, owner.id, now=now(request))
    written = calendars.write_feed(items, owner, of.config.web.base_url, calendars.domain_of(of.config.mail.sender))
    headers = {"Cache-Control": "private, max-age=300", "Referrer-Policy": "no-referrer"}
    tag = hashlib.sha256(written).hexdigest()[:32]
    if _has(request, tag):
        response = web.Response(status=304, headers=headers)
    else:
        headers["Content-Disposition"] = 'inline; filename="visavis.ics"'
        response = web.Response(body=written, headers=headers, content_type="text/calendar", charset="utf-8")
    response.etag = tag
    return response


def _has(request: web.Request, tag: str) -> bool:
    """Compared weakly, as If-None-Match is (RFC 9110, 13.1.2): a proxy that compresses makes tags weak."""
    return any(one.value in (tag, "*") for one in request.if_none_match or ())


ROUTES = [
    web.get("/calendar", show),
    web.post("/calendar/open", open_feed),
    web.post("/calendar/renew", renew),
    web.post("/calendar/close", close),
    web.get("/calendar/{token}.ics", read),
]

"""Signing in anew before what cannot be undone: whoever found an open browser has no mailbox.

What asks for it goes on by itself afterwards: the page is remembered as for any other sign-in.
"""

from datetime import timedelta

from aiohttp import web
from sqlalchemy import select

from supervision import models, sign_ins
from supervision.errors import NotAllowed, TooMany
from web import pages, problems, sessions
from web.middleware import is_api
from web.signing_in import ADDRESSES
from web.state import Handler, database, now, visitor

RECENT = timedelta(minutes=10)
PATH = "/sign-in/anew"


class SignInAnew(NotAllowed):
    """The session is older than ten minutes. `back` is the page to go on with."""

    default_key = "web.refused.sign_in_anew"

    def __init__(self, back: str) -> None:
        self.back = back
        super().__init__()


async def is_recent(request: web.Request) -> bool:
    """Whether the person signed in within the last ten minutes."""
    session = visitor(request).session
    if session is None:
        return False
    async with database(request).transaction() as tx:
        signed_in_at = await tx.scalar(
            select(models.sessions.c.created_at).where(models.sessions.c.token_hash == session.token_hash)
        )
    return signed_in_at is not None and now(request) - signed_in_at <= RECENT


async def require_recent(request: web.Request, back: str | None = None) -> None:
    """Lead to signing in anew and then on with `back` (this path, where none is given), unless that was done just now.

    `back` is a path that `sessions.OWN_PATH` knows. The API is told 403.
    """
    if not await is_recent(request):
        raise SignInAnew(request.path if back is None else back)


@web.middleware
async def lead(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn SignInAnew into the way there."""
    try:
        return await handler(request)
    except SignInAnew as needed:
        if is_api(request):
            reader = visitor(request).reader
            return problems.respond(reader, problems.of_refusal(reader, needed))
        response = pages.go(PATH)
        sessions.remember(request, response, needed.back)
        return response


async def show(request: web.Request) -> web.Response:
    """A page with one button, which mails the link."""
    if visitor(request).session is None:
        return pages.go("/sign-in")
    if await is_recent(request):
        return pages.go(sessions.next_path(request))
    return pages.render(request, "sign_in_anew.html", back=sessions.next_path(request))


async def ask(request: web.Request) -> web.Response:
    """End this session, and mail a link to the person's own address; what follows is an ordinary sign-in."""
    session, actor = visitor(request).session, visitor(request).actor
    if session is None:
        return pages.go("/sign-in")
    if not request.config_dict[ADDRESSES].take(actor.ip):
        raise TooMany
    browser, _ = sessions.browser_of(request)
    async with database(request).transaction() as tx:
        await sign_ins.ask(tx, actor, session.person.email, browser, now=now(request))
        await sign_ins.close_session(tx, actor, session, now=now(request))
    response = pages.go("/sign-in/code")
    sessions.sign_out(request, response)
    sessions.bind_browser(request, response, browser)
    sessions.remember(request, response, sessions.next_path(request))
    return response


ROUTES = [
    web.get(PATH, show),
    web.post(PATH, ask),
]

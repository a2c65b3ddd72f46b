"""Signing in by a mailed link or its code, and signing out."""

import asyncio
import math

from aiohttp import web

from supervision import people, sign_ins
from supervision.errors import NotUnderstood, Refused, TooMany
from web import pages, problems, sessions
from web.limits import Limit
from web.middleware import FORM
from web.state import database, now, parts, visitor

# An answer leaves at the next full step, so that its time does not tell whether the address is known.
ANSWER_STEP_SECONDS = 0.25
ADDRESSES = web.AppKey("addresses", Limit)


async def show_form(request: web.Request) -> web.Response:
    if visitor(request).session:
        return pages.go(pages.home(visitor(request)))
    return _bound_page(request, "sign_in.html")


async def ask(request: web.Request) -> web.Response:
    """Mail a link to the given address, if it is somebody's; answer everybody the same."""
    started = asyncio.get_running_loop().time()
    _take_turn(request)
    email = request[FORM].get("email", "").strip()
    browser, _ = sessions.browser_of(request)
    async with database(request).transaction() as tx:
        await sign_ins.ask(tx, visitor(request).actor, _harmless(email), browser, now=now(request))
    await _sleep_to_step(started)
    response = pages.go("/sign-in/code")
    sessions.bind_browser(request, response, browser)
    return response


async def show_code(request: web.Request) -> web.Response:
    if visitor(request).session:
        return pages.go(sessions.next_path(request))
    return _bound_page(request, "sign_in_code.html")


async def use_code(request: web.Request) -> web.Response:
    _take_turn(request)
    browser = visitor(request).browser or ""
    typed = request[FORM].get("code", "")[:40]
    try:
        async with database(request).transaction() as tx:
            secret, actor = parts(request).secret, visitor(request).actor
            token = await sign_ins.use_code(tx, secret, actor, browser, typed, now=now(request))
        if token is None:
            raise NotUnderstood("web.refused.wrong_code")
    except NotUnderstood as refused:
        return _bound_page(request, "sign_in_code.html", status=422, alert=refused)
    return _signed_in(request, token)


async def show_link(request: web.Request) -> web.Response:
    """A page with one button. Mail scanners open links, so this changes nothing."""
    if visitor(request).session:
        return pages.go(sessions.next_path(request))
    token = request.match_info["token"]
    if sign_ins.read_link_token(parts(request).secret, token) is None:
        return _used_up(request)
    return _bound_page(request, "sign_in_link.html", token=token)


async def use_link(request: web.Request) -> web.Response:
    _take_turn(request)
    secret = parts(request).secret
    sign_in_id = sign_ins.read_link_token(secret, request.match_info["token"])
    if sign_in_id is None:
        return _used_up(request)
    try:
        async with database(request).transaction() as tx:
            actor, browser = visitor(request).actor, visitor(request).browser
            token = await sign_ins.use_link(tx, actor, sign_in_id, browser, now=now(request))
    except NotUnderstood as refused:
        if refused.key == "refused.other_browser":
            code = sign_ins.code(secret, sign_in_id)
            return pages.render(request, "sign_in_elsewhere.html", status=422, code=f"{code[:4]} {code[4:]}")
        return _used_up(request, refused)
    return _signed_in(request, token)


async def sign_out(request: web.Request) -> web.Response:
    session = visitor(request).session
    if session is not None:
        async with database(request).transaction() as tx:
            await sign_ins.close_session(tx, visitor(request).actor, session, now=now(request))
    response = pages.go("/sign-in", "signed_out")
    sessions.sign_out(request, response)
    return response


def _signed_in(request: web.Request, token: str) -> web.Response:
    response = pages.go(sessions.next_path(request))
    sessions.sign_in(request, response, token)
    sessions.forget_next(request, response)
    return response


def _bound_page(
    request: web.Request, template: str, *, status: int = 200, alert: Refused | None = None, token: str = ""
) -> web.Response:
    """A page whose form is bound to this browser by a cookie, which it gets here if it has none yet."""
    browser, new = sessions.browser_of(request)
    response = pages.render(request, template, status=status, alert=alert, browser=browser, token=token)
    if new:
        sessions.bind_browser(request, response, browser)
    return response


def _used_up(request: web.Request, refused: Refused | None = None) -> web.Response:
    refused = refused or NotUnderstood("refused.link_used_up")
    return _bound_page(request, "sign_in.html", status=problems.status_of(refused), alert=refused)


def _take_turn(request: web.Request) -> None:
    if not request.config_dict[ADDRESSES].take(visitor(request).actor.ip):
        raise TooMany


def _harmless(email: str) -> str:
    """The address, or an empty one in place of what no database or mail could hold; that is nobody's."""
    return email if len(email) <= 254 and not people.has_controls(email) else ""


async def _sleep_to_step(started: float) -> None:
    passed = asyncio.get_running_loop().time() - started
    await asyncio.sleep(max(1, math.ceil(passed / ANSWER_STEP_SECONDS)) * ANSWER_STEP_SECONDS - passed)


ROUTES = [
    web.get("/sign-in", show_form),
    web.post("/sign-in", ask),
    web.get("/sign-in/code", show_code),
    web.post("/sign-in/code", use_code),
    web.get("/sign-in/{token}", show_link),
    web.post("/sign-in/{token}", use_link),
    web.post("/sign-out", sign_out),
]

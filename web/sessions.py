"""Cookies: the session, the asking browser, the page to go on with; and the token that every form carries.

Over TLS the names begin with `__Host-` (RFC 6265bis, section 4.1.3.2): set by this host alone, for all its paths.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets

from aiohttp import web

from supervision import sign_ins
from supervision.audit import Actor
from supervision.sign_ins import SESSION_LIFETIME
from supervision.texts import Reader
from web import languages
from web.state import VISITOR, Parts, Visitor, parts

BROWSER_SECONDS = 86_400
NEXT_SECONDS = 1_800
SESSION = "visavis"
BROWSER = "visavis-browser"
NEXT = "visavis-next"
COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{20,100}")
OWN_PATH = re.compile(r"/(appointments|supervisor|admin|calendar|preferences|rooms|account)(/[a-z0-9-]+)*")


async def meet(request: web.Request, *, via_api: bool) -> Visitor:
    """Find out who is asking. Touches the database only where a session cookie came along."""
    of = parts(request)
    token = _read(request, SESSION)
    session = None
    if token is not None:
        async with of.database.transaction() as tx:
            session = await sign_ins.find_session(tx, token, now=of.clock())
    reader = (
        Reader(session.person.language, session.person.time_zone)
        if session
        else Reader(languages.preferred(request.headers.get("Accept-Language", "")), "UTC")
    )
    actor = Actor(
        session.person.id if session else None,
        "api" if via_api else "web",
        ip=address(request, of.config.web.trusted_proxies),
        user_agent=agent(request),
    )
    return Visitor(session, token if session else None, _read(request, BROWSER), reader.as_of(of.clock()), actor)


def stranger(request: web.Request) -> Visitor:
    """A visitor of whom nothing is known but the language: for errors before anybody was met."""
    language = languages.preferred(request.headers.get("Accept-Language", ""))
    return Visitor(None, None, None, Reader(language, "UTC"), Actor(None, "web"))


def sign_in(request: web.Request, response: web.StreamResponse, token: str) -> None:
    set_cookie(request, response, SESSION, token, int(SESSION_LIFETIME.total_seconds()))


def sign_out(request: web.Request, response: web.StreamResponse) -> None:
    delete_cookie(request, response, SESSION)


def browser_of(request: web.Request) -> tuple[str, bool]:
    """The asking browser's value, and whether it is new and has still to be set."""
    known = request[VISITOR].browser
    return (known, False) if known else (secrets.token_urlsafe(32), True)


def bind_browser(request: web.Request, response: web.StreamResponse, value: str) -> None:
    set_cookie(request, response, BROWSER, value, BROWSER_SECONDS)


def remember_next(request: web.Request, response: web.StreamResponse) -> None:
    """After signing in the person goes on with the page that was asked for."""
    if request.method == "GET":
        remember(request, response, request.path)


def remember(request: web.Request, response: web.StreamResponse, path: str) -> None:
    """The page to go on with after signing in, where it is one of ours."""
    if OWN_PATH.fullmatch(path):
        set_cookie(request, response, NEXT, path, NEXT_SECONDS)


def next_path(request: web.Request) -> str:
    wanted = request.cookies.get(_name(parts(request), NEXT), "")
    return wanted if OWN_PATH.fullmatch(wanted) else "/"


def forget_next(request: web.Request, response: web.StreamResponse) -> None:
    delete_cookie(request, response, NEXT)


def set_cookie(request: web.Request, response: web.StreamResponse, name: str, value: str, seconds: int) -> None:
    of = parts(request)
    response.set_cookie(
        _name(of, name), value, max_age=seconds, path="/", secure=of.over_tls, httponly=True, samesite="Lax"
    )


def delete_cookie(request: web.Request, response: web.StreamResponse, name: str) -> None:
    of = parts(request)
    response.del_cookie(_name(of, name), path="/", secure=of.over_tls, httponly=True, samesite="Lax")


def form_token(request: web.Request, browser: str | None = None) -> str:
    """What this visitor's forms carry: derived from their session, or from their browser before that."""
    visitor = request[VISITOR]
    bound = visitor.token or browser or visitor.browser or ""
    key = parts(request).secret.encode()
    return hmac.new(key, b"form:" + bound.encode(), hashlib.sha256).hexdigest()


def carries_token(request: web.Request, given: str) -> bool:
    visitor = request[VISITOR]
    if not (visitor.token or visitor.browser):
        return False
    return hmac.compare_digest(form_token(request).encode(), given.encode("utf-8", "replace"))


def address(request: web.Request, trusted_proxies: int) -> str | None:
    """The client's IP address. Of `X-Forwarded-For` only what our own proxies appended is believed."""
    remote = request.remote
    if trusted_proxies:
        chain = [part.strip() for value in request.headers.getall("X-Forwarded-For", []) for part in value.split(",")]
        if len(chain) >= trusted_proxies:
            remote = chain[-trusted_proxies]
    try:
        return str(ipaddress.ip_address(remote or ""))
    except ValueError:
        return None


def agent(request: web.Request) -> str | None:
    """The user agent, as text that a database can hold."""
    given = request.headers.get("User-Agent")
    return None if given is None else given[:300].encode("ascii", "replace").decode()


def _read(request: web.Request, name: str) -> str | None:
    value = request.cookies.get(_name(parts(request), name))
    return value if value and COOKIE_VALUE.fullmatch(value) else None


def _name(of: Parts, name: str) -> str:
    return f"__Host-{name}" if of.over_tls else name

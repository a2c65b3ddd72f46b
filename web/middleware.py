"""What happens around every request: headers, errors, who is asking, and whether the request is their own doing."""

import hmac
import secrets
import time
from urllib.parse import parse_qsl, urlsplit

import structlog
from aiohttp import web

from supervision.errors import NotAllowed, Refused, TooMany
from supervision.logs import traces
from supervision.texts import Reader
from web import pages, problems, sessions
from web.headers import HEADERS
from web.limits import Limit
from web.metrics import METRICS
from web.problems import Problem
from web.state import VISITOR, Handler, Visitor, parts

log = structlog.get_logger()

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
INCIDENT_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
FORM_FIELDS = 40
PEOPLE = web.AppKey("people", Limit)
FORM = web.RequestKey("form", dict[str, str])


async def put_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: whatever is answered has these headers, unless it set its own."""
    response.headers.popall("Server", None)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if parts(request).over_tls:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000; includeSubDomains")


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Durations by method, route template and status: never a path, which holds IDs."""
    started = time.perf_counter()
    status = 500
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        request.config_dict[METRICS].observe(request, status, time.perf_counter() - started)


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn refusals and failures into pages or problems. No exception's text is ever shown."""
    try:
        return await handler(request)
    except Refused as refused:
        return tell(request, problems.of_refusal(_reader(request), refused))
    except web.HTTPMethodNotAllowed as error:
        response = tell(request, problems.of_status(_reader(request), 405))
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPException as error:
        status = error.status if error.status in (404, 413) else 400
        return tell(request, problems.of_status(_reader(request), status))
    except Exception as error:
        if request.transport is None or request.transport.is_closing():
            raise  # the client has gone; there is nobody to answer
        number = "".join(secrets.choice(INCIDENT_LETTERS) for _ in range(4))
        log.error("web.failed", incident=number, route=_route(request), **traces(error))
        sentence = _reader(request).say("failed", number=number)
        return tell(request, Problem(500, sentence, "failed", {"incident": number}))


@web.middleware
async def meet(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who is asking; the API answers nobody else, whatever the path or the body is."""
    if request.path.startswith(("/static/", "/health/")):
        return await handler(request)
    via_api = is_api(request)
    visitor = request[VISITOR] = await sessions.meet(request, via_api=via_api)
    if visitor.session is not None and not request.config_dict[PEOPLE].take(visitor.session.person.id):
        raise TooMany
    if visitor.session is None and via_api and request.path != "/api/openapi.json":
        return problems.respond(visitor.reader, problems.of_status(visitor.reader, 401))
    if visitor.session is None and not via_api and not is_public(request):
        response = web.Response(status=303, headers={"Location": "/sign-in"})
        sessions.remember_next(request, response)
        return response
    return await handler(request)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What changes something comes from our own pages: by its origin, and for forms by their token too."""
    nothing_there = request.match_info.http_exception is not None
    by_token = request.path.startswith("/unsubscribe/")  # for mail programs; what they carry is the proof
    if request.method in SAFE_METHODS or nothing_there or by_token or VISITOR not in request:
        return await handler(request)
    visitor = request[VISITOR]
    open_to_scripts = request.path.startswith("/demo/") and parts(request).demo
    if is_foreign(request) or (visitor.session and not open_to_scripts and not is_ours(request)):
        raise NotAllowed("web.refused.cross_site")
    if is_api(request):
        return await handler(request)
    request[FORM] = await read_form(request)
    if not open_to_scripts and not sessions.carries_token(request, request[FORM].get("form_token", "")):
        raise NotAllowed("web.refused.form_token")
    return await handler(request)


def is_api(request: web.Request) -> bool:
    return request.path == "/api" or request.path.startswith("/api/")


def is_public(request: web.Request) -> bool:
    """What strangers may see: signing and coming in, feeds, ends of mails, the demo's pages, that nothing is there."""
    is_feed = request.path.startswith("/calendar/") and request.path.endswith(".ics")
    open_ones = ("/sign-in", "/welcome/", "/unsubscribe/", "/demo")
    return request.match_info.http_exception is not None or is_feed or request.path.startswith(open_ones)


def is_foreign(request: web.Request) -> bool:
    """Whether the browser says that another site sent this."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        return site != "same-origin"
    return origin is not None and not _own_origin(request, origin)


def is_ours(request: web.Request) -> bool:
    """Whether the browser says that our own pages sent this."""
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return True
    origin = request.headers.get("Origin")
    return origin is not None and _own_origin(request, origin)


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of an urlencoded form, each once; what is no such form has none."""
    body = await request.read()
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS))
    except ValueError:
        return {}


def tell(request: web.Request, problem: Problem) -> web.Response:
    """A problem for programs, a page for people."""
    visitor = _visitor(request)
    if is_api(request):
        return problems.respond(visitor.reader, problem)
    response = pages.render(request, "error.html", status=problem.status, visitor=visitor, sentence=problem.detail)
    if problem.status == 429:
        response.headers["Retry-After"] = str(problems.RETRY_AFTER_SECONDS)
    return response


def _own_origin(request: web.Request, origin: str) -> bool:
    """The configured address, or the one that the browser itself named as host."""
    base = urlsplit(parts(request).config.web.base_url)
    if hmac.compare_digest(origin.lower().encode(), f"{base.scheme}://{base.netloc}".lower().encode()):
        return True
    return origin.lower() == f"{base.scheme}://{request.host}".lower()


def _visitor(request: web.Request) -> Visitor:
    return request[VISITOR] if VISITOR in request else sessions.stranger(request)


def _reader(request: web.Request) -> Reader:
    return _visitor(request).reader


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"

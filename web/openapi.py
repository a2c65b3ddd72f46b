"""The API's description (OpenAPI 3.1), made of the same table that makes its routes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from supervision.models import Status
from web import api, schemas

Handle = Callable[[web.Request], Awaitable[web.Response]]
MEANINGS = {
    400: "The request is no HTTP that this API takes.",
    401: "Nobody is signed in.",
    403: "Not allowed, or against a policy.",
    404: "There is no such thing, or it is not yours to see.",
    409: "The time is taken, or the appointment's status does not allow this any more.",
    412: "The appointment has another revision or status than `If-Match` says.",
    413: "The body is too large.",
    422: "The values make no sense.",
    429: "Too many requests; wait as `Retry-After` says.",
    500: "A failure on our side; nothing was changed.",
}
INSTANT = {"type": "string", "format": "date-time"}
ID = {"type": "string", "format": "uuid"}
STATUSES = {"type": "array", "items": {"type": "string", "enum": [str(status) for status in Status]}}


def _query(name: str, schema: dict[str, Any], description: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}


PATH_ID = {"name": "id", "in": "path", "required": True, "schema": ID}
FROM = _query("from", INSTANT, "The earliest start, inclusive.")
TO = _query("to", INSTANT, "The latest start, exclusive.")
LIST = (
    FROM,
    TO,
    _query("status", STATUSES, "Only these; given several times or with commas."),
    _query("cursor", {"type": "string"}, "The next page, as the `Link` header of the last one says."),
)
PAIR = _query("pair_id", ID, "The pair that wants to book.", required=True)
ONCE = _header("Idempotency-Key", "The same key with the same request gives the first answer again, for 24 hours.")
MATCH = _header("If-Match", "The ETag of what is to be changed.")


@dataclass(frozen=True)
class Operation:
    """One route: what it takes and gives, and how it can be refused."""

    method: str
    path: str
    handle: Handle
    gives: type[BaseModel]
    takes: type[BaseModel] | None = None
    parameters: tuple[dict[str, Any], ...] = ()
    status: int = 200
    refusals: tuple[int, ...] = ()


CHANGE = (403, 404, 409, 412, 413, 422)
OPERATIONS = (
    Operation("get", "/api/me", api.me, schemas.Me),
    Operation(
        "get", "/api/supervisee/appointments", api.list_supervisee, schemas.Appointments, None, LIST, 200, (403, 422)
    ),
    Operation(
        "get", "/api/supervisor/appointments", api.list_supervisor, schemas.Appointments, None, LIST, 200, (403, 422)
    ),
    Operation(
        "get", "/api/supervisors/{id}/slots", api.list_slots, schemas.Slots, None, (PATH_ID, PAIR, FROM, TO), 200,
        (404, 409, 422),
    ),
    Operation(
        "post", "/api/appointments", api.book, schemas.Appointment, schemas.Slot, (ONCE,), 201,
        (403, 404, 409, 413, 422),
    ),
    Operation("get", "/api/appointments/{id}", api.show, schemas.Appointment, None, (PATH_ID,), 200, (404,)),
    *(
        Operation(
            "post", f"/api/appointments/{{id}}/{name}", handle, schemas.Appointment, takes, (PATH_ID, ONCE, MATCH),
            200, CHANGE,
        )
        for name, handle, takes in (
            ("confirm", api.confirm, schemas.Nothing),
            ("decline", api.decline, schemas.Nothing),
            ("cancel", api.cancel, schemas.Reason),
            ("reschedule", api.reschedule, schemas.NewTime),
        )
    ),
)  # fmt: skip


@cache
def description() -> dict[str, Any]:
    """The whole document."""
    models = {model for one in OPERATIONS for model in (one.gives, one.takes) if model} | {schemas.Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    given = [(model, "validation") for model in ordered if issubclass(model, schemas.Given)]
    told = [(model, "serialization") for model in ordered if not issubclass(model, schemas.Given)]
    _, definitions = models_json_schema([*given, *told], ref_template="#/components/schemas/{model}")  # type: ignore[list-item]  # literals
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Visavis",
            "version": "1",
            "description": "Appointments of supervision. Sign in on the pages; the session cookie is the credential."
            " A request that changes something needs a same-origin `Origin` or `Sec-Fetch-Site` header.",
        },
        "security": [{"session": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-visavis", "description": "Over TLS."}
            },
        },
    }


async def show(request: web.Request) -> web.Response:
    return web.json_response(description())


def _operation(one: Operation) -> dict[str, Any]:
    headers = {}
    if one.gives is schemas.Appointment:
        headers["ETag"] = {"schema": {"type": "string"}, "description": "Revision and status, in quotes."}
    if one.status == 201:
        headers["Location"] = {"schema": {"type": "string"}}
    if one.gives is schemas.Appointments:
        headers["Link"] = {"schema": {"type": "string"}, "description": "The next page, if there is one (RFC 8288)."}
    good = {"description": "Done.", "headers": headers, "content": _content("application/json", one.gives)}
    bad = {
        str(status): {
            "description": MEANINGS[status],
            "content": _content("application/problem+json", schemas.Problem),
        }
        for status in sorted({401, 429, 500, *one.refusals})
    }
    described: dict[str, Any] = {
        "operationId": one.handle.__name__,
        "summary": (one.handle.__doc__ or "").strip(),
        "parameters": list(one.parameters),
        "responses": {str(one.status): good, **bad},
    }
    if one.takes is not None:
        required = one.takes not in (schemas.Nothing, schemas.Reason)
        described["requestBody"] = {"required": required, "content": _content("application/json", one.takes)}
    return described


def _content(media_type: str, model: type[BaseModel]) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


ROUTES = [
    *(web.route(one.method.upper(), one.path, one.handle) for one in OPERATIONS),
    web.get("/api/openapi.json", show),
]

"""The API's description (OpenAPI 3.1), made of the same table that makes its routes."""

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from supervision.models import Status
from web import schemas
from web.api import (
    absences,
    appointments,
    availability,
    calendars,
    exports,
    pairs,
    people,
    preferences,
    rooms,
    series,
    waits,
)

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]
MEANINGS = {
    400: "The request is no HTTP that this API takes.",
    401: "Nobody is signed in.",
    403: "Not allowed, or against a policy.",
    404: "There is no such thing, or it is not yours to see.",
    409: "The time is taken, or the appointment's status does not allow this any more.",
    412: "What is to be changed is not as `If-Match`, or the body, says any more; or has no tag that could match.",
    413: "The body is too large.",
    422: "The values make no sense.",
    429: "Too many requests; wait as `Retry-After` says.",
    500: "A failure on our side; nothing was changed.",
}
INSTANT = {"type": "string", "format": "date-time"}
DAY = {"type": "string", "format": "date"}
ID = {"type": "string", "format": "uuid"}
STATUSES = {"type": "array", "items": {"type": "string", "enum": [str(status) for status in Status]}}


def _query(name: str, schema: dict[str, Any], description: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}


FROM = _query("from", INSTANT, "The earliest start, inclusive.")
TO = _query("to", INSTANT, "The latest start, exclusive.")
FIRST_DAY = _query("from", DAY, "The first day, in the supervisor's zone.", required=True)
LAST_DAY = _query("to", DAY, "The last day, inclusive.", required=True)
CURSOR = _query("cursor", {"type": "string"}, "The next page, as the `Link` header of the last one says.")
LIST = (
    FROM,
    TO,
    _query("status", STATUSES, "Only these; given several times or with commas."),
    CURSOR,
)
PAIR = _query("pair_id", ID, "The pair that wants to book.", required=True)
LENGTH = _query("length", {"type": "integer"}, "Minutes: one of the pair's lengths, its first unless given.")
ONCE = _header("Idempotency-Key", "The same key with the same request gives the first answer again, for 24 hours.")
MATCH = _header("If-Match", "The ETag of what is to be changed; of an appointment its revision in quotes does too.")
SEEN = _header("If-None-Match", "The ETag of what the client has already.")
PATH_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Operation:
    """One route: what it takes and gives, any of the models, and how it can be refused."""

    method: str
    path: str
    handle: Handle
    gives: tuple[type[BaseModel], ...]
    takes: type[BaseModel] | None = None
    parameters: tuple[dict[str, Any], ...] = ()
    status: int = 200
    refusals: tuple[int, ...] = ()
    media_type: str | None = None  # of an answer that is a file


HEADERS: tuple[tuple[str, str, set[type[BaseModel]]], ...] = (
    (
        "ETag",
        "What If-Match takes: of an appointment its revision, status and open proposal.",
        {
            schemas.Appointment,
            schemas.Availability,
            schemas.PairSettings,
            schemas.Preferences,
            schemas.RoomSettings,
            schemas.Series,
        },
    ),
    (
        "Location",
        "Where the new thing is.",
        {schemas.Appointment, schemas.SeriesBooked, schemas.AnyPerson, schemas.Pair},
    ),
    ("Link", "The next page, if there is one (RFC 8288).", {schemas.Appointments}),
)
CHANGE = (403, 404, 409, 412, 413, 422)
ONE_OR_SEVERAL = (schemas.Appointment, schemas.SeveralChanged)  # the latter for a scope of a series
ACTS: tuple[tuple[str, Handle, type[BaseModel]], ...] = (
    ("confirm", appointments.confirm, schemas.ScopedWord),
    ("decline", appointments.decline, schemas.ScopedWord),
    ("cancel", appointments.cancel, schemas.Reason),
    ("reschedule", appointments.reschedule, schemas.NewTime),
    ("accept", appointments.accept, schemas.ScopedAnswer),
    ("refuse", appointments.refuse, schemas.ScopedAnswer),
    ("withdraw", appointments.withdraw, schemas.ScopedAnswer),
    ("mark", appointments.mark, schemas.Mark),
)
PAIR_ACTS: tuple[tuple[str, Handle], ...] = (
    ("archive", people.archive_pair),
    ("reopen", people.reopen_pair),
    ("hold", people.hold_pair),
    ("release", people.release_pair),
    ("remove-room", people.remove_room),
    ("new-room", people.renew_room),
)
OPERATIONS = (
    Operation("get", "/api/me", pairs.me, (schemas.Me,)),
    Operation("get", "/api/me/preferences", preferences.show_preferences, (schemas.Preferences,), parameters=(SEEN,)),
    Operation(
        "put", "/api/me/preferences", preferences.set_preferences, (schemas.Preferences,), schemas.NewPreferences,
        (ONCE, MATCH), 200, (412, 413, 422),
    ),
    Operation(
        "get", "/api/supervisee/appointments", appointments.list_supervisee, (schemas.Appointments,),
        parameters=LIST, refusals=(403, 422),
    ),
    Operation(
        "get", "/api/supervisor/appointments", appointments.list_supervisor, (schemas.Appointments,),
        parameters=LIST, refusals=(403, 422),
    ),
    Operation(
        "get", "/api/supervisors/{id}/slots", appointments.list_slots, (schemas.Slots,),
        parameters=(PAIR, FROM, TO, LENGTH), refusals=(404, 409, 422),
    ),
    Operation(
        "post", "/api/appointments", appointments.book, (schemas.Appointment,), schemas.Slot, (ONCE,), 201,
        (403, 404, 409, 413, 422),
    ),
    Operation(
        "get", "/api/appointments/{id}", appointments.show, (schemas.Appointment,), parameters=(SEEN,), refusals=(404,)
    ),
    *(
        Operation(
            "post", f"/api/appointments/{{id}}/{name}", handle,
            ONE_OR_SEVERAL if issubclass(takes, schemas.Scoped) else ONE_OR_SEVERAL[:1], takes, (ONCE, MATCH),
            refusals=CHANGE,
        )
        for name, handle, takes in ACTS
    ),
    Operation(
        "get", "/api/supervisors/{id}/availability", availability.show_availability, (schemas.Availability,),
        parameters=(SEEN,), refusals=(404,),
    ),
    Operation(
        "patch", "/api/supervisors/{id}/availability", availability.change_availability, (schemas.Availability,),
        schemas.AvailabilityChanges, (ONCE, MATCH), 200, (403, 404, 412, 413, 422),
    ),
    Operation(
        "post", "/api/supervisors/{id}/availability/exceptions", availability.add_exception, (schemas.DatedException,),
        schemas.NewException, (ONCE,), 201, (403, 404, 413, 422),
    ),
    Operation(
        "delete", "/api/supervisors/{id}/availability/exceptions/{exception_id}", availability.remove_exception, (),
        parameters=(ONCE,), status=204, refusals=(403, 404, 422),
    ),
    Operation(
        "get", "/api/pairs/{id}/settings", pairs.show_settings, (schemas.PairSettings,),
        parameters=(SEEN,), refusals=(404,),
    ),
    Operation(
        "patch", "/api/pairs/{id}/settings", pairs.change_settings, (schemas.PairSettings,),
        schemas.PairChanges, (ONCE, MATCH), 200, CHANGE,
    ),
    Operation(
        "get", "/api/pairs/{id}/room", rooms.show_room, (schemas.RoomSettings,), parameters=(SEEN,), refusals=(404,),
    ),
    Operation(
        "patch", "/api/pairs/{id}/room", rooms.change_room, (schemas.RoomSettings,), schemas.RoomChanges, (ONCE, MATCH),
        200, CHANGE,
    ),
    Operation(
        "get", "/api/pairs/{id}/attachments", rooms.list_attachments, (schemas.Attachments,), refusals=(404,),
    ),
    Operation("get", "/api/pairs/{id}/exports", exports.list_exports, (schemas.Exports,), refusals=(404,)),
    Operation(
        "post", "/api/pairs/{id}/exports", exports.ask_export, (schemas.Exports,), schemas.Nothing, (ONCE,), 202,
        CHANGE,
    ),
    Operation(
        "post", "/api/pairs/{id}/exports/withdraw", exports.withdraw_export, (), schemas.Nothing, (ONCE,), 204,
        CHANGE,
    ),
    Operation(
        "get", "/api/pairs/{id}/exports/{export_id}", exports.show_export, (schemas.Export,), refusals=(404,),
    ),
    Operation(
        "get", "/api/pairs/{id}/exports/{export_id}/file", exports.fetch_export, (), refusals=(403, 404),
        media_type="application/zip",
    ),
    Operation(
        "post", "/api/series", series.book_series, (schemas.SeriesBooked,), schemas.NewSeries, (ONCE,), 201,
        (403, 404, 409, 413, 422),
    ),
    Operation(
        "get", "/api/series/{id}", series.show_series, (schemas.Series,), parameters=(SEEN,), refusals=(404,)
    ),
    Operation(
        "get", "/api/supervisors/{id}/away", absences.list_affected, (schemas.Appointments,),
        parameters=(FIRST_DAY, LAST_DAY), refusals=(403, 404, 422),
    ),
    Operation(
        "post", "/api/supervisors/{id}/away", absences.go_away, (schemas.Appointments,), schemas.Absence, (ONCE,),
        200, CHANGE,
    ),
    Operation(
        "get", "/api/supervisor/calendars", calendars.list_calendars, (schemas.OutsideCalendars,), refusals=(403,)
    ),
    Operation(
        "post", "/api/supervisor/calendars", calendars.add_calendar, (schemas.OutsideCalendar,),
        schemas.NewOutsideCalendar, (ONCE,), 201, (403, 409, 413, 422),
    ),
    Operation(
        "delete", "/api/supervisor/calendars/{id}", calendars.remove_calendar, (), None, (ONCE,), 204,
        (403, 404, 409, 422),
    ),
    Operation("get", "/api/waits", waits.list_waits, (schemas.Waits,)),
    Operation(
        "post", "/api/waits", waits.join_waits, (schemas.Wait,), schemas.NewWait, (ONCE,), 201,
        (403, 404, 409, 413, 422),
    ),
    Operation("delete", "/api/waits/{id}", waits.leave_waits, (), None, (ONCE,), 204, (404, 409, 422)),
    Operation(
        "post", "/api/waits/{id}/accept", waits.accept_offer, (schemas.Appointment,), schemas.OfferAnswer, (ONCE,),
        201, CHANGE,
    ),
    Operation(
        "post", "/api/waits/{id}/pass", waits.pass_offer, (schemas.Wait,), schemas.OfferAnswer, (ONCE,), 200,
        (404, 409, 412, 413, 422),
    ),
    Operation("get", "/api/people", people.list_people, (schemas.People,), refusals=(403,)),
    Operation(
        "post", "/api/people", people.add_person, (schemas.AnyPerson,), schemas.NewPerson, (ONCE,), 201,
        (403, 413, 422),
    ),
    Operation("get", "/api/people/{id}", people.show_person, (schemas.AnyPerson,), refusals=(403, 404)),
    Operation(
        "post", "/api/people/{id}/invite", people.invite_person, (), schemas.Invitation, (ONCE,), 204,
        (403, 404, 409, 413, 422),
    ),
    Operation(
        "post", "/api/people/{id}/disable", people.disable_person, (), schemas.Disabling, (ONCE,), 204,
        (403, 404, 413, 422),
    ),
    Operation("get", "/api/pairs", people.list_pairs, (schemas.Pairs,), refusals=(403,)),
    Operation(
        "post", "/api/pairs", people.add_pair, (schemas.Pair,), schemas.NewPair, (ONCE,), 201, (403, 404, 413, 422)
    ),
    Operation("get", "/api/pairs/{id}", people.show_pair, (schemas.Pair,), refusals=(403, 404)),
    *(
        Operation(
            "post", f"/api/pairs/{{id}}/{name}", handle, (schemas.Pair,), schemas.Nothing, (ONCE,),
            refusals=(403, 404, 409, 413, 422),
        )
        for name, handle in PAIR_ACTS
    ),
    Operation(
        "post", "/api/pairs/{id}/invite", people.invite_into_room, (schemas.Pair,), schemas.RoomInvitation, (ONCE,),
        200, (403, 404, 409, 413, 422),
    ),
    Operation(
        "post", "/api/pairs/{id}/hand-over", people.hand_over_pair, (schemas.Pair,), schemas.NewSupervisor, (ONCE,),
        201, (403, 404, 409, 413, 422),
    ),
)  # fmt: skip


@cache
def description() -> dict[str, Any]:
    """The whole document."""
    models = {model for one in OPERATIONS for model in (*one.gives, one.takes) if model} | {schemas.Problem}
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
    named = [
        {"name": name, "in": "path", "required": True, "schema": ID, "description": "A lower-case UUID."}
        for name in PATH_NAME.findall(one.path)
    ]
    responses = {str(one.status): _good(one)}
    if SEEN in one.parameters:
        responses["304"] = {"description": "The client has it already."}
    stale = set() if one.method == "get" else {412}
    for status in sorted({401, 429, 500, *stale, *one.refusals}):
        responses[str(status)] = {
            "description": MEANINGS[status],
            "content": _content("application/problem+json", schemas.Problem),
        }
    described: dict[str, Any] = {
        "operationId": one.handle.__name__,
        "summary": (one.handle.__doc__ or "").strip().splitlines()[0],
        "description": inspect.getdoc(one.handle) or "",
        "parameters": [*named, *one.parameters],
        "responses": responses,
    }
    if one.takes is not None:
        required = any(member.is_required() for member in one.takes.model_fields.values())
        described["requestBody"] = {"required": required, "content": _content("application/json", one.takes)}
    return described


def _good(one: Operation) -> dict[str, Any]:
    if one.media_type is not None:
        return {"description": "The file.", "content": {one.media_type: {"schema": {}}}}
    if not one.gives:
        return {"description": "Done."}
    lacking = ({"Location"} if one.status != 201 else set()) | (set() if CURSOR in one.parameters else {"Link"})
    headers = {
        header: {"schema": {"type": "string"}, "description": told}
        for header, told, models in HEADERS
        if header not in lacking and not models.isdisjoint(one.gives)
    }
    return {"description": "Done.", "headers": headers, "content": _content("application/json", *one.gives)}


def _content(media_type: str, *models: type[BaseModel]) -> dict[str, Any]:
    references = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    return {media_type: {"schema": references[0] if len(references) == 1 else {"anyOf": references}}}


ROUTES = [
    *(web.route(one.method.upper(), one.path, one.handle) for one in OPERATIONS),
    web.get("/api/openapi.json", show),
]

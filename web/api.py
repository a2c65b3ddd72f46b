"""The API: the same acts as the pages', for programs, in JSON."""

import base64
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlencode

from aiohttp import web
from pydantic import BaseModel, ValidationError

from supervision import appointments, availability, pairs, queries
from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused, Stale
from supervision.models import Role, Status
from supervision.pairs import Pair
from web import problems, repeats, schemas
from web.changes import Change, carry_out
from web.dashboard import path_id
from web.repeats import Answer, Repeat
from web.schemas import Given
from web.state import database, now, person, visitor

LOOK_BACK = timedelta(days=90)
SLOTS_SPAN = timedelta(days=14)
PAGE_ITEMS = 100
ETAG = re.compile(r'(?:W/)?"(\d{1,9}(?:-[a-z_]{1,20})?)"')

Body = TypeVar("Body", bound=Given)
Act = Callable[[Transaction, int | None], Awaitable[Appointment]]


async def me(request: web.Request) -> web.Response:
    """The signed-in person, their roles and their pairs."""
    someone = person(request)
    async with database(request).transaction() as tx:
        known = await pairs.list_of(tx, someone.id, archived=True)
    return _json(
        schemas.Me(
            person=schemas.Person.of(someone),
            roles=sorted(someone.roles),
            pairs=[schemas.Pair.of(pair) for pair in known],
        )
    )


async def list_supervisee(request: web.Request) -> web.Response:
    """The person's own appointments as supervisee, by start; without `from` those of the last 90 days and to come."""
    return await _list(request, Role.SUPERVISEE)


async def list_supervisor(request: web.Request) -> web.Response:
    """The person's own appointments as supervisor, by start; without `from` those of the last 90 days and to come."""
    return await _list(request, Role.SUPERVISOR)


async def list_slots(request: web.Request) -> web.Response:
    """What a pair can book with a start in `[from, to)`: from now and for 14 days unless given."""
    someone, at = person(request), now(request)
    since = _instant(request, "from") or at
    until = _instant(request, "to") or since + SLOTS_SPAN
    if until < since:
        raise NotUnderstood("web.refused.range")
    wanted = _query_id(request, "pair_id")
    async with database(request).transaction() as tx:
        known = [
            pair
            for pair in await pairs.list_of(tx, someone.id, archived=True)
            if pair.supervisor.id == path_id(request) and pair.id == wanted
        ]
        if not known:
            raise NotFound("refused.pair_not_found")
        known[0].require_active()
        found = await availability.slots(tx, known[0], since=since, until=until, now=at)
    return _json(schemas.Slots(items=[_slot(known[0], slot) for slot in found]))


async def book(request: web.Request) -> web.Response:
    """Request a slot as the list of slots gave it. The supervisor is asked to confirm."""
    wanted = await _body(request, schemas.Slot)

    async def act(tx: Transaction) -> Appointment:
        pair = await _own_pair(tx, request, wanted.pair_id)
        if pair.supervisor.id != wanted.supervisor_id:
            raise NotFound("refused.pair_not_found")
        return await appointments.book(
            tx, visitor(request).actor, pair, wanted.starts_at, ends_at=wanted.ends_at, now=now(request)
        )

    return await _carry_out(request, Change("appointment.book", "pair", wanted.pair_id, act), wanted, 201)


async def show(request: web.Request) -> web.Response:
    """One appointment of the person's own."""
    async with database(request).transaction() as tx:
        appointment = await appointments.get(tx, visitor(request).actor, path_id(request))
    answer = _answer(appointment, 200)
    if _etags(request, "If-None-Match") & {"*", _tag(appointment)}:
        return web.Response(status=304, headers={"ETag": answer.headers["ETag"]})
    return _respond(answer)


async def confirm(request: web.Request) -> web.Response:
    """The supervisor agrees to a request."""
    return await _change(
        request,
        "confirm",
        await _body(request, schemas.Nothing),
        lambda tx, revision: appointments.confirm(
            tx, visitor(request).actor, path_id(request), now=now(request), if_revision=revision
        ),
    )


async def decline(request: web.Request) -> web.Response:
    """The supervisor says no to a request; the time is free again."""
    return await _change(
        request,
        "decline",
        await _body(request, schemas.Nothing),
        lambda tx, revision: appointments.decline(
            tx, visitor(request).actor, path_id(request), now=now(request), if_revision=revision
        ),
    )


async def cancel(request: web.Request) -> web.Response:
    """Either of the two calls an appointment off before it begins."""
    body = await _body(request, schemas.Reason)
    reason = (body.reason or "").strip() or None
    return await _change(
        request,
        "cancel",
        body,
        lambda tx, revision: appointments.cancel(
            tx, visitor(request).actor, path_id(request), now=now(request), reason=reason, if_revision=revision
        ),
    )


async def reschedule(request: web.Request) -> web.Response:
    """Move to another slot. Moved by the supervisee it is a request again, which the supervisor answers."""
    body = await _body(request, schemas.NewTime)

    async def act(tx: Transaction, revision: int | None) -> Appointment:
        actor = visitor(request).actor
        current = await appointments.get(tx, actor, path_id(request))
        if body.pair_id not in (None, current.pair_id) or body.supervisor_id not in (None, current.supervisor_id):
            raise NotFound("refused.slot_not_offered")
        return await appointments.reschedule(
            tx, actor, current.id, body.starts_at, ends_at=body.ends_at, now=now(request), if_revision=revision
        )

    return await _change(request, "reschedule", body, act)


async def _list(request: web.Request, role: Role) -> web.Response:
    someone = person(request, role)
    since, until = _instant(request, "from"), _instant(request, "to")
    statuses = _statuses(request)
    async with database(request).transaction() as tx:
        page = await queries.page(
            tx,
            since=since or now(request) - LOOK_BACK,
            until=until,
            statuses=statuses,
            supervisor_id=someone.id if role is Role.SUPERVISOR else None,
            supervisee_id=someone.id if role is Role.SUPERVISEE else None,
            after=_cursor(request),
            most=PAGE_ITEMS,
        )
    response = _json(schemas.Appointments(items=[schemas.Appointment.of(item) for item in page.items]))
    if page.more:
        response.headers["Link"] = f'<{_next_page(request, page.items[-1])}>; rel="next"'
    return response


async def _change(request: web.Request, action: str, body: Given, act: Act) -> web.Response:
    """A change of the appointment in the path, under `If-Match` (RFC 9110, section 13.1.1) where it is given.

    A bare revision in quotes does as well as the whole tag.
    """
    appointment_id = path_id(request)
    expected = _etags(request, "If-Match")

    async def act_if_match(tx: Transaction) -> Appointment:
        if not expected or "*" in expected:
            return await act(tx, None)
        seen = await appointments.get(tx, visitor(request).actor, appointment_id)
        if not expected & {_tag(seen), str(seen.revision)}:
            raise Stale
        return await act(tx, seen.revision)

    change = Change(f"appointment.{action}", "appointment", appointment_id, act_if_match)
    return await _carry_out(request, change, body, 200)


async def _carry_out(request: web.Request, change: Change, body: Given, status: int) -> web.Response:
    reader = visitor(request).reader

    def refuse(refused: Refused) -> Answer:
        problem = problems.of_refusal(reader, refused)
        return Answer(problem.status, {"Content-Type": problems.MEDIA_TYPE}, problem.members(reader))

    key = request.headers.get("Idempotency-Key")
    repeat = None if key is None else _recognise(request, key, body)
    return _respond(await carry_out(request, change, lambda changed: _answer(changed, status), repeat, refuse))


def _recognise(request: web.Request, key: str, body: Given) -> Repeat:
    conditions = request.headers.get("If-Match", "")
    return repeats.recognise(person(request).id, "api", key, request.path, conditions, body.model_dump_json())


async def _body(request: web.Request, model: type[Body]) -> Body:
    """The JSON body as that model; an empty body is an empty object. Raises NotUnderstood."""
    content = await request.read() or b"{}"
    if request.body_exists and request.content_type != "application/json" and content != b"{}":
        raise NotUnderstood("web.refused.json")
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        places = {".".join(map(str, found["loc"])) for found in error.errors(include_url=False, include_input=False)}
        if not places - {""}:
            raise NotUnderstood("web.refused.json") from error
        raise NotUnderstood("web.refused.members", members=", ".join(sorted(places)[:5])) from error


def _answer(appointment: Appointment, status: int) -> Answer:
    headers = {"Content-Type": "application/json", "ETag": f'"{_tag(appointment)}"'}
    if status == 201:
        headers["Location"] = f"/api/appointments/{appointment.id}"
    return Answer(status, headers, schemas.Appointment.of(appointment).model_dump(mode="json"))


def _tag(appointment: Appointment) -> str:
    """Revision and status: what ends by the clock changes its status alone."""
    return f"{appointment.revision}-{appointment.status}"


def _respond(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status,
        headers=answer.headers,
        body=json.dumps(answer.body, ensure_ascii=False).encode(),
    )


def _json(model: BaseModel) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


def _slot(pair: Pair, slot: availability.Slot) -> schemas.Slot:
    return schemas.Slot(
        supervisor_id=pair.supervisor.id, pair_id=pair.id, starts_at=slot.starts_at, ends_at=slot.ends_at
    )


async def _own_pair(tx: Transaction, request: web.Request, pair_id: uuid.UUID) -> Pair:
    """A pair in which the person stands. Anybody else's is as little found as one that never was."""
    pair = await pairs.get(tx, pair_id)
    if person(request).id not in {member.id for member in pair.people}:
        raise NotFound("refused.pair_not_found")
    return pair


def _etags(request: web.Request, name: str) -> set[str]:
    """The tags in a conditional header, without quotes: empty without one, `?` in place of what is no tag of ours."""
    given = request.headers.getall(name, [])
    tags = [tag.strip() for value in given for tag in value.split(",") if tag.strip()]
    return {"*" if tag == "*" else found[1] if (found := ETAG.fullmatch(tag)) else "?" for tag in tags}


def _instant(request: web.Request, name: str) -> datetime | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return schemas.read_instant(text.replace(" ", "+"))  # a `+` that was not escaped arrives as a space
    except ValueError as error:
        raise NotUnderstood("web.refused.members", members=name) from error


def _query_id(request: web.Request, name: str) -> uuid.UUID:
    try:
        return uuid.UUID(request.query.get(name, ""))
    except ValueError as error:
        raise NotUnderstood("web.refused.members", members=name) from error


def _statuses(request: web.Request) -> list[Status]:
    """`status=confirmed&status=requested` or `status=confirmed,requested`."""
    words = [word for value in request.query.getall("status", []) for word in value.split(",") if word]
    try:
        return [Status(word) for word in words]
    except ValueError as error:
        raise NotUnderstood("web.refused.members", members="status") from error


def _next_page(request: web.Request, last: Appointment) -> str:
    place = f"{problems.instant(last.starts_at)} {last.id}"
    cursor = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    kept = [(name, value) for name, value in request.query.items() if name in ("from", "to", "status")]
    return f"{request.path}?{urlencode([*kept, ('cursor', cursor)])}"


def _cursor(request: web.Request) -> tuple[datetime, uuid.UUID] | None:
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        place = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        starts_at, appointment_id = place.split(" ")
        return schemas.read_instant(starts_at), uuid.UUID(appointment_id)
    except ValueError as error:
        raise NotUnderstood("web.refused.members", members="cursor") from error

"""What the pages' forms do: each is one change, then See Other, with a one-line result on the next page."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime

from aiohttp import web
from pydantic import ValidationError

from supervision import appointments, identities, pairs
from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Role, Status
from web import dashboard, pages, repeats, schemas
from web.changes import Change, carry_out
from web.middleware import FORM
from web.repeats import Answer, Repeat
from web.state import database, now, person, visitor

Act = Callable[[Transaction], Awaitable[Appointment]]


async def book(request: web.Request) -> web.Response:
    """Book the pressed slot of the chosen pair."""
    person(request, Role.SUPERVISEE)
    try:
        pair_id = dashboard.read_id(request[FORM].get("pair_id", ""))
    except NotFound as refused:  # before anything of it reaches the audit
        return await dashboard.supervisee_page(request, refused)

    async def act(tx: Transaction) -> Appointment:
        pair = await pairs.get(tx, pair_id)
        starts_at, ends_at = _slot(request)
        if visitor(request).actor.person_id not in {member.id for member in pair.people}:
            raise NotFound("refused.pair_not_found")
        return await appointments.book(tx, visitor(request).actor, pair, starts_at, ends_at=ends_at, now=now(request))

    change = Change("appointment.book", "pair", pair_id, act)
    try:
        answer = await carry_out(request, change, lambda _: _see("/appointments", "requested"), _repeat(request))
    except Refused as refused:
        return await dashboard.supervisee_page(request, refused)
    return _respond(answer)


async def confirm(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), _revision(request)
    return await _change(
        request,
        "confirm",
        lambda tx: appointments.confirm(tx, actor, appointment_id, now=at, if_revision=revision),
    )


async def decline(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), _revision(request)
    return await _change(
        request,
        "decline",
        lambda tx: appointments.decline(tx, actor, appointment_id, now=at, if_revision=revision),
    )


async def cancel(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), _revision(request)

    async def act(tx: Transaction) -> Appointment:
        reason = _reason(request)
        return await appointments.cancel(tx, actor, appointment_id, now=at, reason=reason, if_revision=revision)

    return await _change(request, "cancel", act)


async def reschedule(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), _revision(request)

    async def act(tx: Transaction) -> Appointment:
        starts_at, ends_at = _slot(request)
        return await appointments.reschedule(
            tx, actor, appointment_id, starts_at, now=at, ends_at=ends_at, if_revision=revision
        )

    return await _change(request, "reschedule", act, "reschedule.html")


async def confirm_identity(request: web.Request) -> web.Response:
    """The person, signed in by mail, vouches for the new identity of their own Matrix account."""
    me = person(request)
    if me.matrix_id is None:
        raise NotFound
    shown = request[FORM].get("fingerprint", "").replace("\0", "")
    async with database(request).transaction() as tx:
        await identities.confirm(tx, visitor(request).actor, me.matrix_id, master_key=shown, now=now(request))
    return pages.go(pages.home(visitor(request)), "identity_confirmed")


async def _change(request: web.Request, action: str, act: Act, template: str = "appointment.html") -> web.Response:
    """Carry out a change of the appointment in the path; what is refused is told on that appointment's page."""
    me, appointment_id = person(request), dashboard.path_id(request)

    def answer(changed: Appointment) -> Answer:
        role = Role.SUPERVISOR if changed.supervisor_id == me.id else Role.SUPERVISEE
        return _see(pages.HOMES[role], _result(action, changed))

    change = Change(f"appointment.{action}", "appointment", appointment_id, act)
    try:
        return _respond(await carry_out(request, change, answer, _repeat(request)))
    except Refused as refused:
        return await dashboard.appointment_page(request, template, refused)


def _result(action: str, changed: Appointment) -> str:
    if action == "reschedule":
        return "moved" if changed.status is Status.CONFIRMED else "move_requested"
    return {"confirm": "confirmed", "decline": "declined", "cancel": "cancelled"}[action]


def _see(location: str, done: str) -> Answer:
    return Answer(303, {"Location": f"{location}?done={done}"})


def _respond(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers)


def _repeat(request: web.Request) -> Repeat | None:
    """The same form pressed twice: its hidden value and all else in it make the key."""
    fields = request[FORM]
    once = fields.get("once")
    if not once:
        return None
    pressed = "\0".join(f"{name}\0{value}" for name, value in sorted(fields.items()))
    key = hashlib.sha256(f"{request.path}\0{pressed}".encode()).hexdigest()
    return repeats.recognise(person(request).id, "form", key, key)


def _slot(request: web.Request) -> tuple[datetime, datetime]:
    """A pressed slot is `start/end`, an ISO 8601 interval in UTC."""
    try:
        starts_at, ends_at = request[FORM].get("slot", "").split("/")
        return schemas.read_instant(starts_at), schemas.read_instant(ends_at)
    except ValueError as error:
        raise NotUnderstood from error


def _revision(request: web.Request) -> int | None:
    text = request[FORM].get("revision", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _reason(request: web.Request) -> str | None:
    text = request[FORM].get("reason", "").strip()
    try:
        return schemas.Reason(reason=text).reason or None
    except ValidationError as error:
        raise NotUnderstood("web.refused.reason", most=schemas.REASON_CHARACTERS) from error


ROUTES = [
    web.post("/appointments", book),
    web.post("/appointments/{id}/confirm", confirm),
    web.post("/appointments/{id}/decline", decline),
    web.post("/appointments/{id}/cancel", cancel),
    web.post("/appointments/{id}/reschedule", reschedule),
    web.post("/identity/confirm", confirm_identity),
]

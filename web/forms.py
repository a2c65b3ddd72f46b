"""What the pages' forms do: each is one change, then See Other, with a one-line result on the next page."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from supervision import appointments, identities, moves, pairs
from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Role, Status
from web import dashboard, fields, pages
from web.changes import Change, carry_out
from web.middleware import FORM
from web.repeats import Answer
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
        starts_at, ends_at = fields.read_slot(request)
        if visitor(request).actor.person_id not in {member.id for member in pair.people}:
            raise NotFound("refused.pair_not_found")
        return await appointments.book(tx, visitor(request).actor, pair, starts_at, ends_at=ends_at, now=now(request))

    def answer(booked: Appointment) -> Answer:
        return pages.see("/appointments", "requested" if booked.status is Status.REQUESTED else "booked")

    change = Change("appointment.book", "pair", pair_id, act)
    try:
        return pages.respond(await carry_out(request, change, answer, fields.repeat_of(request)))
    except Refused as refused:
        return await dashboard.supervisee_page(request, refused)


async def confirm(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), fields.read_revision(request)
    return await _change(
        request,
        "confirm",
        lambda tx: appointments.confirm(tx, actor, appointment_id, now=at, if_revision=revision),
    )


async def decline(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), fields.read_revision(request)
    return await _change(
        request,
        "decline",
        lambda tx: appointments.decline(tx, actor, appointment_id, now=at, if_revision=revision),
    )


async def cancel(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), fields.read_revision(request)

    async def act(tx: Transaction) -> Appointment:
        reason = fields.read_reason(request)
        return await appointments.cancel(tx, actor, appointment_id, now=at, reason=reason, if_revision=revision)

    return await _change(request, "cancel", act)


async def reschedule(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), fields.read_revision(request)

    async def act(tx: Transaction) -> Appointment:
        starts_at, ends_at = fields.read_time(request, person(request))
        return await moves.reschedule(
            tx, actor, appointment_id, starts_at, now=at, ends_at=ends_at, if_revision=revision
        )

    return await _change(request, "reschedule", act, "reschedule.html")


async def accept(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, proposal = dashboard.path_id(request), fields.read_proposal(request)
    return await _change(
        request, "accept", lambda tx: moves.accept(tx, actor, appointment_id, now=at, if_proposal=proposal)
    )


async def refuse(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, proposal = dashboard.path_id(request), fields.read_proposal(request)
    return await _change(
        request, "refuse", lambda tx: moves.refuse(tx, actor, appointment_id, now=at, if_proposal=proposal)
    )


async def withdraw(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, proposal = dashboard.path_id(request), fields.read_proposal(request)
    return await _change(
        request, "withdraw", lambda tx: moves.withdraw(tx, actor, appointment_id, now=at, if_proposal=proposal)
    )


async def mark(request: web.Request) -> web.Response:
    """How an appointment went, by the supervisor's word."""
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), fields.read_revision(request)

    async def act(tx: Transaction) -> Appointment:
        try:
            status = Status(fields.text_of(request, "status"))
        except ValueError as error:
            raise NotUnderstood from error
        return await appointments.mark(tx, actor, appointment_id, status, now=at, if_revision=revision)

    return await _change(request, "mark", act)


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
        return pages.see(pages.HOMES[role], _result(action, changed))

    change = Change(f"appointment.{action}", "appointment", appointment_id, act)
    try:
        return pages.respond(await carry_out(request, change, answer, fields.repeat_of(request)))
    except Refused as refused:
        return await dashboard.appointment_page(request, template, refused)


def _result(action: str, changed: Appointment) -> str:
    if action == "reschedule":
        if changed.proposal is not None:
            return "move_proposed"
        return "moved" if changed.status is Status.CONFIRMED else "move_requested"
    return RESULTS[action]


RESULTS = {
    "confirm": "confirmed",
    "decline": "declined",
    "cancel": "cancelled",
    "accept": "accepted",
    "refuse": "refused",
    "withdraw": "withdrawn",
    "mark": "marked",
}
ROUTES = [
    web.post("/appointments", book),
    web.post("/appointments/{id}/confirm", confirm),
    web.post("/appointments/{id}/decline", decline),
    web.post("/appointments/{id}/cancel", cancel),
    web.post("/appointments/{id}/reschedule", reschedule),
    web.post("/appointments/{id}/accept", accept),
    web.post("/appointments/{id}/refuse", refuse),
    web.post("/appointments/{id}/withdraw", withdraw),
    web.post("/appointments/{id}/mark", mark),
    web.post("/identity/confirm", confirm_identity),
]

"""What the pages' forms do: each is one change, then See Other, with a one-line result on the next page."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from supervision import appointments, groups, identities, shifts
from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.groups import Scope
from supervision.models import Role, Status
from supervision.people import Person
from supervision.shifts import Moved
from web import dashboard, fields, pages, reauth
from web.changes import Change, carry_out
from web.middleware import FORM
from web.repeats import Answer
from web.state import database, now, own_pair, person, visitor

Act = Callable[[Transaction], Awaitable[list[Appointment]]]
Done = TypeVar("Done")


async def book(request: web.Request) -> web.Response:
    """Book the pressed slot of the chosen pair."""
    person(request, Role.SUPERVISEE)
    try:
        pair_id = dashboard.read_id(request[FORM].get("pair_id", ""))
    except NotFound as refused:  # before anything of it reaches the audit
        return await dashboard.supervisee_page(request, refused)

    async def act(tx: Transaction) -> Appointment:
        pair = await own_pair(tx, request, pair_id)
        starts_at, ends_at = fields.read_slot(request)
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
    appointment_id, scope, revision = dashboard.path_id(request), read_scope(request), fields.read_revision(request)

    async def act(tx: Transaction) -> list[Appointment]:
        seen = fields.read_seen(request, "seen")
        return await groups.confirm(tx, actor, appointment_id, scope, now=at, if_revision=revision, seen=seen)

    return await _change(request, "confirm", act)


async def decline(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, scope, revision = dashboard.path_id(request), read_scope(request), fields.read_revision(request)

    async def act(tx: Transaction) -> list[Appointment]:
        seen = fields.read_seen(request, "seen")
        return await groups.decline(tx, actor, appointment_id, scope, now=at, if_revision=revision, seen=seen)

    return await _change(request, "decline", act)


async def cancel(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, scope, revision = dashboard.path_id(request), read_scope(request), fields.read_revision(request)

    async def act(tx: Transaction) -> list[Appointment]:
        reason, seen = fields.read_reason(request), fields.read_seen(request, "seen")
        return await groups.cancel(
            tx, actor, appointment_id, scope, now=at, reason=reason, if_revision=revision, seen=seen
        )

    return await _change(request, "cancel", act, "cancel.html")


async def reschedule(request: web.Request) -> web.Response:
    """Move to the pressed slot, or to the day and time that a supervisor typed; of a series as many as are meant."""
    me, at, actor = person(request), now(request), visitor(request).actor
    appointment_id, scope, revision = dashboard.path_id(request), read_scope(request), fields.read_revision(request)
    skip = bool(fields.text_of(request, "skip"))

    async def act(tx: Transaction) -> Moved:
        starts_at, _ = fields.read_time(request, me)
        seen = fields.read_seen(request, "seen")
        return await shifts.reschedule(
            tx, actor, appointment_id, starts_at, scope, skip=skip, now=at, if_revision=revision, seen=seen
        )

    def answer(done: Moved) -> Answer:
        one = done.moved[0]
        if scope is not Scope.ONE and one.series_id is not None:
            return pages.see(f"/series/{one.series_id}", "series_moved_some" if done.clashes else "series_moved")
        return pages.see(_home(me, one), _result_of_move(one))

    return await _carry_out(request, Change(MOVE, "appointment", appointment_id, act), answer, "reschedule.html")


async def accept(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, scope, proposal = dashboard.path_id(request), read_scope(request), fields.read_proposal(request)

    async def act(tx: Transaction) -> list[Appointment]:
        shown = fields.read_proposals(request)
        return await groups.accept(tx, actor, appointment_id, scope, now=at, if_proposal=proposal, if_proposals=shown)

    return await _change(request, "accept", act)


async def refuse(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, scope, proposal = dashboard.path_id(request), read_scope(request), fields.read_proposal(request)

    async def act(tx: Transaction) -> list[Appointment]:
        shown = fields.read_proposals(request)
        return await groups.refuse(tx, actor, appointment_id, scope, now=at, if_proposal=proposal, if_proposals=shown)

    return await _change(request, "refuse", act)


async def withdraw(request: web.Request) -> web.Response:
    at, actor = now(request), visitor(request).actor
    appointment_id, scope, proposal = dashboard.path_id(request), read_scope(request), fields.read_proposal(request)

    async def act(tx: Transaction) -> list[Appointment]:
        shown = fields.read_proposals(request)
        return await groups.withdraw(tx, actor, appointment_id, scope, now=at, if_proposal=proposal, if_proposals=shown)

    return await _change(request, "withdraw", act)


async def mark(request: web.Request) -> web.Response:
    """How an appointment went, by the supervisor's word."""
    at, actor = now(request), visitor(request).actor
    appointment_id, revision = dashboard.path_id(request), fields.read_revision(request)

    async def act(tx: Transaction) -> list[Appointment]:
        try:
            status = Status(fields.text_of(request, "status"))
        except ValueError as error:
            raise NotUnderstood from error
        return [await appointments.mark(tx, actor, appointment_id, status, now=at, if_revision=revision)]

    return await _change(request, "mark", act)


async def confirm_identity(request: web.Request) -> web.Response:
    """The person, signed in by mail just now, vouches for the new identity of their own Matrix account.

    It gets the room's keys by that, which nobody can take back.
    """
    me = person(request)
    if me.matrix_id is None:
        raise NotFound
    await reauth.require_recent(request, "/account/identity")
    shown = request[FORM].get("fingerprint", "").replace("\0", "")
    async with database(request).transaction() as tx:
        await identities.confirm(tx, visitor(request).actor, me.matrix_id, master_key=shown, now=now(request))
    return pages.go(pages.home(visitor(request)), "identity_confirmed")


async def _change(request: web.Request, action: str, act: Act, template: str = "appointment.html") -> web.Response:
    """Carry out a change of the appointment in the path, or of some of its series."""
    me = person(request)
    change = Change(f"appointment.{action}", "appointment", dashboard.path_id(request), act)
    return await _carry_out(request, change, lambda done: pages.see(_home(me, done[0]), RESULTS[action]), template)


async def _carry_out(
    request: web.Request, change: Change[Done], answer: Callable[[Done], Answer], template: str
) -> web.Response:
    """Do it; what is refused is told on that page of the appointment."""
    try:
        return pages.respond(await carry_out(request, change, answer, fields.repeat_of(request)))
    except Refused as refused:
        return await dashboard.appointment_page(request, template, refused)


def read_scope(request: web.Request) -> Scope:
    """Which of a series are meant: this one, where the form does not say."""
    text = fields.text_of(request, "scope")
    return Scope(text) if text in set(Scope) else Scope.ONE


def _home(me: Person, changed: Appointment) -> str:
    return pages.HOMES[Role.SUPERVISOR if changed.supervisor_id == me.id else Role.SUPERVISEE]


def _result_of_move(moved: Appointment) -> str:
    if moved.proposal is not None:
        return "move_proposed"
    return "moved" if moved.status is Status.CONFIRMED else "move_requested"


MOVE = "appointment.reschedule"
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

"""What a supervisee does with the waiting list: join it, leave it, take or let go what is on offer."""

import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import TypeVar

from aiohttp import web

from supervision import waits
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Role, Status
from web import dashboard, fields, pages, schemas, views
from web.changes import Change, carry_out
from web.state import now, own_pair, person, visitor

HOME = "/appointments"

Done = TypeVar("Done")


async def join(request: web.Request) -> web.Response:
    """Wait for a day, or for the week from a day, that had nothing free."""
    me = person(request, Role.SUPERVISEE)
    try:
        pair_id = dashboard.read_id(fields.text_of(request, "pair_id"))
    except NotFound as refused:
        return await dashboard.supervisee_page(request, refused)

    async def act(tx: Transaction) -> object:
        first, days = _days(request)
        pair = await own_pair(tx, request, pair_id)
        wanted = views.midnight(first, me.zone), views.midnight(first + timedelta(days=days), me.zone)
        length = fields.read_optional_number(request, "length")
        return await waits.join(tx, visitor(request).actor, pair, [wanted], now=now(request), length=length)

    return await _carry_out(request, Change("wait.join", "pair", pair_id, act), lambda _: "waiting")


async def leave(request: web.Request) -> web.Response:
    wait_id = _of(request)

    async def act(tx: Transaction) -> None:
        await waits.leave(tx, visitor(request).actor, wait_id, now=now(request))

    return await _carry_out(request, Change("wait.leave", "wait", wait_id, act), lambda _: "left")


async def accept(request: web.Request) -> web.Response:
    """Book what is on offer, if it is still what the page showed."""
    wait_id = _of(request)

    async def act(tx: Transaction) -> Status:
        shown = _shown(request)
        booked = await waits.accept(tx, visitor(request).actor, wait_id, now=now(request), if_starts_at=shown)
        return booked.status

    change = Change("wait.accept", "wait", wait_id, act)
    return await _carry_out(request, change, lambda got: "requested" if got is Status.REQUESTED else "booked")


async def pass_by(request: web.Request) -> web.Response:
    wait_id = _of(request)

    async def act(tx: Transaction) -> object:
        shown = _shown(request)
        return await waits.pass_by(tx, visitor(request).actor, wait_id, now=now(request), if_starts_at=shown)

    return await _carry_out(request, Change("wait.pass", "wait", wait_id, act), lambda _: "passed")


async def _carry_out(request: web.Request, change: Change[Done], done: Callable[[Done], str]) -> web.Response:
    """Do it; what is refused is told on the person's dashboard."""
    try:
        answer = await carry_out(request, change, lambda got: pages.see(HOME, done(got)), fields.repeat_of(request))
    except Refused as refused:
        return await dashboard.supervisee_page(request, refused)
    return pages.respond(answer)


def _of(request: web.Request) -> uuid.UUID:
    person(request, Role.SUPERVISEE)
    return dashboard.path_id(request)


def _shown(request: web.Request) -> datetime:
    """The start of the offer that the page showed."""
    try:
        return schemas.read_instant(fields.text_of(request, "starts_at"))
    except ValueError as error:
        raise NotUnderstood from error


def _days(request: web.Request) -> tuple[date, int]:
    """The first day, and how many are meant."""
    name, days = ("day", 1) if fields.text_of(request, "day") else ("week", views.DAYS_SHOWN)
    return fields.read_day(request, name), days


ROUTES = [
    web.post("/waits", join),
    web.post("/waits/{id}/leave", leave),
    web.post("/waits/{id}/accept", accept),
    web.post("/waits/{id}/pass", pass_by),
]

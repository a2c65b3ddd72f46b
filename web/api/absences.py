"""The API of being away: which appointments fall in some days, and taking those days off."""

from aiohttp import web

from supervision import absences, availability
from supervision.appointments import Appointment
from supervision.db import Transaction
from web import schemas
from web.api import answers, requests
from web.api.availability import own_supervisor
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, visitor


async def list_affected(request: web.Request) -> web.Response:
    """The supervisor's open appointments that fall in those days of her zone, or would by an open proposal."""
    first_on, last_on = requests.day(request, "from"), requests.day(request, "to")
    async with database(request).transaction() as tx:
        supervisor = await own_supervisor(tx, request)
        availability.require_own(visitor(request).actor, supervisor.id)
        found = await absences.affected(tx, supervisor.id, first_on, last_on, now(request))
    return answers.respond(_answer(found))


async def go_away(request: web.Request) -> web.Response:
    """The supervisor takes days off, and cancels or proposes to move all that falls in them: all or none.

    `expected` is what the list of those appointments gave; 412 if it is not what is there by now.
    """
    body = await requests.body(request, schemas.Absence)
    actor, at = visitor(request).actor, now(request)
    expected = [(one.id, one.revision) for one in body.expected]

    async def act(tx: Transaction) -> list[Appointment]:
        supervisor = await own_supervisor(tx, request)
        availability.require_own(actor, supervisor.id)
        return await absences.go(
            tx, actor, supervisor, body.first_on, body.last_on, then=body.then, expected=expected, now=at
        )

    return await answers.change(request, Change("absence.go", "person", path_id(request), act), _answer, body)


def _answer(found: list[Appointment]) -> Answer:
    return answers.of_model(schemas.Appointments(items=[schemas.Appointment.of(one) for one in found]), 200)

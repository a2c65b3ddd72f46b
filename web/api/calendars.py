"""The API of a supervisor's other calendars, whose busy times are not offered."""

from aiohttp import web

from supervision import outside
from supervision.db import Transaction
from supervision.models import Role
from supervision.outside import OutsideCalendar
from web import schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.state import database, now, parts, person, visitor


async def list_calendars(request: web.Request) -> web.Response:
    """The supervisor's other calendars, without their addresses."""
    me = person(request, Role.SUPERVISOR)
    async with database(request).transaction() as tx:
        found = await outside.list_of(tx, visitor(request).actor, me.id)
    return answers.show(schemas.OutsideCalendars(items=[schemas.OutsideCalendar.of(one) for one in found]))


async def add_calendar(request: web.Request) -> web.Response:
    """The supervisor adds a calendar by its ICS address; it is read at once. The address is not shown again."""
    me = person(request, Role.SUPERVISOR)
    body = await requests.body(request, schemas.NewOutsideCalendar)
    actor, at, made_of = visitor(request).actor, now(request), parts(request)

    async def act(tx: Transaction) -> OutsideCalendar:
        private = made_of.config.calendars.private_networks
        return await outside.add(tx, actor, me.id, body.address, secret=made_of.secret, private=private, now=at)

    return await answers.change(
        request,
        Change("calendar.add", "person", me.id, act),
        lambda added: answers.of_model(schemas.OutsideCalendar.of(added), 201),
        body,
    )


async def remove_calendar(request: web.Request) -> web.Response:
    """The supervisor takes a calendar back; its times are offered again."""
    me, actor, at, calendar_id = (
        person(request, Role.SUPERVISOR),
        visitor(request).actor,
        now(request),
        path_id(request),
    )

    async def act(tx: Transaction) -> None:
        await outside.remove(tx, actor, me.id, calendar_id, now=at)

    return await answers.change(request, Change("calendar.remove", "calendar", calendar_id, act), answers.nothing)

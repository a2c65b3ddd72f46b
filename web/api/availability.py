"""The API of a supervisor's weekly hours, rules and exceptions."""

import uuid
from collections.abc import Iterable
from datetime import time
from typing import Any

from aiohttp import web

from supervision import availability, pairs, policies
from supervision.db import Transaction, lock_people
from supervision.errors import NotFound, Stale
from supervision.hours import DatedException, WeeklyRange
from supervision.models import Role
from supervision.people import Person
from web import schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, parts, person, visitor


async def show_availability(request: web.Request) -> web.Response:
    """A supervisor's weekly hours, rules and exceptions, for herself and her supervisees."""
    async with database(request).transaction() as tx:
        found = await _availability(tx, await own_supervisor(tx, request))
    return answers.show_if_new(request, _answer(found))


async def change_availability(request: web.Request) -> web.Response:
    """The supervisor changes her hours and rules. What is booked stays as it is."""
    body = await requests.body(request, schemas.AvailabilityChanges)
    actor, at, expected = visitor(request).actor, now(request), requests.tags(request, "If-Match")
    template = parts(request).config.calls.template

    async def act(tx: Transaction) -> schemas.Availability:
        supervisor = await own_supervisor(tx, request)
        availability.require_own(actor, supervisor.id)
        if expected:
            await lock_people(tx, [supervisor.id])
            if not requests.agrees(expected, await _present(tx, supervisor)):
                raise Stale
        await policies.set_rules(tx, actor, supervisor.id, _values(body), now=at, template=template)
        return await _availability(tx, supervisor)

    asked = Change("availability.save", "person", path_id(request), act)
    return await answers.change(request, asked, _answer, body, tagged=True)


async def add_exception(request: web.Request) -> web.Response:
    """The supervisor adds time off or extra hours. What is booked stays as it is."""
    body = await requests.body(request, schemas.NewException)
    actor, at = visitor(request).actor, now(request)

    async def act(tx: Transaction) -> DatedException:
        supervisor = await own_supervisor(tx, request)
        exception = DatedException(
            uuid.uuid4(),
            body.kind,
            body.first_on,
            body.last_on,
            _clock(body.starts),
            _clock(body.ends),
            body.yearly,
        )
        return await availability.add_exception(tx, actor, supervisor.id, exception, now=at)

    asked = Change("availability.add_exception", "person", path_id(request), act)
    return await answers.change(
        request, asked, lambda added: answers.of_model(schemas.DatedException.of(added), 201), body
    )


async def remove_exception(request: web.Request) -> web.Response:
    """The supervisor takes an exception back."""
    actor, at, exception_id = visitor(request).actor, now(request), path_id(request, "exception_id")

    async def act(tx: Transaction) -> None:
        supervisor = await own_supervisor(tx, request)
        await availability.remove_exception(tx, actor, supervisor.id, exception_id, now=at)

    asked = Change("availability.remove_exception", "person", path_id(request), act)
    return await answers.change(request, asked, answers.nothing)


async def own_supervisor(tx: Transaction, request: web.Request) -> Person:
    """The supervisor in the path: the person herself, or one with whom the person is a pair. Raises NotFound."""
    wanted, someone = path_id(request), person(request)
    if wanted == someone.id and Role.SUPERVISOR in someone.roles:
        return someone
    for pair in await pairs.list_of(tx, someone.id):
        if pair.supervisor.id == wanted:
            return pair.supervisor
    raise NotFound("refused.person_not_found")


async def _availability(tx: Transaction, supervisor: Person) -> schemas.Availability:
    return schemas.Availability.of(supervisor, await availability.load(tx, supervisor.id))


async def _present(tx: Transaction, supervisor: Person) -> Iterable[str]:
    try:
        return [answers.tag_of_model(await _availability(tx, supervisor))]
    except NotFound:
        return []


def _answer(found: schemas.Availability) -> Answer:
    return answers.of_model(found, 200, ETag=f'"{answers.tag_of_model(found)}"')


def _values(body: schemas.AvailabilityChanges) -> dict[str, Any]:
    """What is to change, as `policies.set_rules` takes it."""
    values = {name: getattr(body, name) for name in body.model_fields_set}
    if "hours" in values:
        values["hours"] = tuple(
            WeeklyRange(one.weekday, time.fromisoformat(one.starts), time.fromisoformat(one.ends)) for one in body.hours
        )
    return values


def _clock(text: str | None) -> time | None:
    return None if text is None else time.fromisoformat(text)

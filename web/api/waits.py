"""The API of the waiting list, for those who wait."""

from aiohttp import web

from supervision import pairs, waits
from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.waits import Wait
from web import schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.state import database, now, own_pair, person, visitor


async def list_waits(request: web.Request) -> web.Response:
    """What the person waits for, and what is kept for them."""
    someone = person(request)
    async with database(request).transaction() as tx:
        known = [pair for pair in await pairs.list_of(tx, someone.id) if pair.supervisee.id == someone.id]
        found = [wait for pair in known for wait in await waits.list_of(tx, pair.id)]
    return answers.show(schemas.Waits(items=[schemas.Wait.of(wait) for wait in found]))


async def join_waits(request: web.Request) -> web.Response:
    """Wait for a time to become free that starts in one of the ranges."""
    body = await requests.body(request, schemas.NewWait)
    actor, at = visitor(request).actor, now(request)
    ranges = [(one.since, one.until) for one in body.ranges]

    async def act(tx: Transaction) -> Wait:
        pair = await own_pair(tx, request, body.pair_id)
        return await waits.join(tx, actor, pair, ranges, now=at, length=body.length)

    asked = Change("wait.join", "pair", body.pair_id, act)
    return await answers.change(request, asked, lambda joined: answers.of_model(schemas.Wait.of(joined), 201), body)


async def leave_waits(request: web.Request) -> web.Response:
    """Wait no longer; what is kept is given back."""
    actor, at, wait_id = visitor(request).actor, now(request), path_id(request)

    async def act(tx: Transaction) -> None:
        await waits.leave(tx, actor, wait_id, now=at)

    return await answers.change(request, Change("wait.leave", "wait", wait_id, act), answers.nothing)


async def accept_offer(request: web.Request) -> web.Response:
    """Book what is kept: a request, or confirmed at once if that is the pair's setting. The waiting is over."""
    body = await requests.body(request, schemas.OfferAnswer)
    actor, at, wait_id = visitor(request).actor, now(request), path_id(request)

    async def act(tx: Transaction) -> Appointment:
        return await waits.accept(tx, actor, wait_id, now=at, if_starts_at=body.starts_at)

    asked = Change("wait.accept", "wait", wait_id, act)
    return await answers.change(request, asked, lambda booked: answers.of_appointment(booked, 201), body)


async def pass_offer(request: web.Request) -> web.Response:
    """Let what is kept go to the next who waits, and go on waiting for another time."""
    body = await requests.body(request, schemas.OfferAnswer)
    actor, at, wait_id = visitor(request).actor, now(request), path_id(request)

    async def act(tx: Transaction) -> Wait:
        return await waits.pass_by(tx, actor, wait_id, now=at, if_starts_at=body.starts_at)

    asked = Change("wait.pass", "wait", wait_id, act)
    return await answers.change(request, asked, lambda left: answers.of_model(schemas.Wait.of(left), 200), body)

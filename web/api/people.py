"""The API of admins: people and pairs."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from supervision import accounts, invitations, pairs, people, renewals
from supervision.db import Transaction
from supervision.errors import NotUnderstood
from supervision.models import Role
from supervision.pairs import Pair
from supervision.people import Person
from web import reauth, schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, parts, person, visitor

Act = Callable[..., Awaitable[object]]


async def list_people(request: web.Request) -> web.Response:
    """Everybody, for admins."""
    person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        found = await people.list_all(tx)
    return answers.show(schemas.People(items=[schemas.AnyPerson.of(one) for one in found]))


async def add_person(request: web.Request) -> web.Response:
    """An admin adds a person, who is mailed how to come in: with a new account, or one that they have.

    To add another admin needs a sign-in of the last ten minutes.
    """
    person(request, Role.ADMIN)
    body = await requests.body(request, schemas.NewPerson)
    if Role.ADMIN in body.roles:
        await reauth.require_recent(request)
    actor, at, ours = visitor(request).actor, now(request), parts(request).config.matrix.server_name

    async def act(tx: Transaction) -> Person:
        return await invitations.add(tx, actor, **body.model_dump(), server_name=ours, now=at)

    def answer(added: Person) -> Answer:
        return answers.of_model(schemas.AnyPerson.of(added), 201, Location=f"/api/people/{added.id}")

    return await answers.change(request, Change("person.add", "person", None, act), answer, body)


async def show_person(request: web.Request) -> web.Response:
    """One person, for admins."""
    person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        found = await people.get(tx, path_id(request))
    return answers.show(schemas.AnyPerson.of(found))


async def invite_person(request: web.Request) -> web.Response:
    """An admin has a new link mailed; of an account that is not made yet the name may change."""
    person(request, Role.ADMIN)
    body = await requests.body(request, schemas.Invitation)
    actor, at, person_id = visitor(request).actor, now(request), path_id(request)
    ours = parts(request).config.matrix.server_name

    async def act(tx: Transaction) -> None:
        await invitations.invite_again(tx, actor, person_id, account=body.account, server_name=ours, now=at)

    return await answers.change(request, Change("person.invite", "person", person_id, act), answers.nothing, body)


async def disable_person(request: web.Request) -> web.Response:
    """An admin takes away sign-in, commands and rooms, and with `deactivate` the account on our homeserver.

    Needs a sign-in of the last ten minutes.
    """
    person(request, Role.ADMIN)
    body = await requests.body(request, schemas.Disabling)
    await reauth.require_recent(request)
    actor, at, person_id = visitor(request).actor, now(request), path_id(request)
    ours = parts(request).config.matrix.server_name

    async def act(tx: Transaction) -> None:
        if person_id == actor.person_id:
            raise NotUnderstood("web.refused.own_person")
        await people.disable(tx, actor, person_id, now=at)
        if body.deactivate:
            await accounts.deactivate(tx, actor, await people.get(tx, person_id), server_name=ours, now=at)

    return await answers.change(request, Change("person.disable", "person", person_id, act), answers.nothing, body)


async def list_pairs(request: web.Request) -> web.Response:
    """All pairs, for admins."""
    person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        found = await pairs.list_all(tx)
    return answers.show(schemas.Pairs(items=[schemas.Pair.of(one) for one in found]))


async def add_pair(request: web.Request) -> web.Response:
    """An admin pairs two people up; their bot makes the room as soon as both have an account."""
    person(request, Role.ADMIN)
    body = await requests.body(request, schemas.NewPair)
    actor, at = visitor(request).actor, now(request)

    async def act(tx: Transaction) -> Pair:
        supervisor = await people.get(tx, body.supervisor_id)
        return await pairs.add(tx, actor, supervisor, await people.get(tx, body.supervisee_id), now=at)

    def answer(added: Pair) -> Answer:
        return answers.of_model(schemas.Pair.of(added), 201, Location=f"/api/pairs/{added.id}")

    return await answers.change(request, Change("pair.add", "pair", None, act), answer, body)


async def show_pair(request: web.Request) -> web.Response:
    """One pair, for admins."""
    person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        found = await pairs.get(tx, path_id(request))
    return answers.show(schemas.Pair.of(found))


async def archive_pair(request: web.Request) -> web.Response:
    """An admin, or the pair's supervisor, closes a pair: what is to come is cancelled, nobody writes any more.

    Needs a sign-in of the last ten minutes.
    """
    await reauth.require_recent(request)
    return await _change_pair(request, "archive", pairs.archive)


async def reopen_pair(request: web.Request) -> web.Response:
    """An admin, or the pair's supervisor, opens an archived pair again."""
    return await _change_pair(request, "reopen", pairs.reopen)


async def hold_pair(request: web.Request) -> web.Response:
    """An admin puts a pair on legal hold: nothing of its room is deleted while that lasts."""
    return await _change_pair(request, "hold", pairs.hold)


async def release_pair(request: web.Request) -> web.Response:
    """An admin ends a legal hold. Needs a sign-in of the last ten minutes."""
    person(request, Role.ADMIN)
    await reauth.require_recent(request)
    return await _change_pair(request, "release", pairs.release)


async def remove_room(request: web.Request) -> web.Response:
    """An admin has an archived pair's room removed with everything in it. Needs a sign-in of the last ten minutes."""
    person(request, Role.ADMIN)
    await reauth.require_recent(request)
    return await _change_pair(request, "remove_room", pairs.remove_room)


async def renew_room(request: web.Request) -> web.Response:
    """An admin has the bot make a new room for a pair whose own is lost; the old one is kept as an archived pair's.

    Needs a sign-in of the last ten minutes.
    """
    person(request, Role.ADMIN)
    await reauth.require_recent(request)
    return await _change_pair(request, "renew_room", renewals.renew_room)


async def invite_into_room(request: web.Request) -> web.Response:
    """An admin, or the pair's supervisor, has somebody invited again who left the room."""
    body = await requests.body(request, schemas.RoomInvitation)
    return await _change_pair(request, "invite_again", pairs.invite_again, body, body.person_id)


async def hand_over_pair(request: web.Request) -> web.Response:
    """An admin has another supervisor take over: a new pair in a new, empty room; this one is archived.

    Needs a sign-in of the last ten minutes.
    """
    person(request, Role.ADMIN)
    body = await requests.body(request, schemas.NewSupervisor)
    await reauth.require_recent(request)
    actor, at, pair_id = visitor(request).actor, now(request), path_id(request)

    async def act(tx: Transaction) -> Pair:
        return await pairs.hand_over(tx, actor, pair_id, await people.get(tx, body.supervisor_id), now=at)

    def answer(made: Pair) -> Answer:
        return answers.of_model(schemas.Pair.of(made), 201, Location=f"/api/pairs/{made.id}")

    return await answers.change(request, Change("pair.hand_over", "pair", pair_id, act), answer, body)


async def _change_pair(
    request: web.Request, action: str, act: Act, body: schemas.Given | None = None, *more: object
) -> web.Response:
    body = body or await requests.body(request, schemas.Nothing)
    actor, at, pair_id = visitor(request).actor, now(request), path_id(request)

    async def do(tx: Transaction) -> Pair:
        await act(tx, actor, pair_id, *more, now=at)
        return await pairs.get(tx, pair_id)

    def answer(changed: Pair) -> Answer:
        return answers.of_model(schemas.Pair.of(changed), 200)

    return await answers.change(request, Change(f"pair.{action}", "pair", pair_id, do), answer, body)

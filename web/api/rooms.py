"""The API of a pair's room: what holds in it, and which files are there."""

from aiohttp import web

from supervision import attachments, pairs, rooms
from supervision.db import Transaction
from supervision.errors import Stale
from web import schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.rooms import require_reader
from web.state import database, now, own_pair, parts, person, visitor


async def show_room(request: web.Request) -> web.Response:
    """What holds in a pair's room, for both of its people and for admins."""
    async with database(request).transaction() as tx:
        settings = await _settings(tx, request)
    return answers.show_if_new(request, _answer(settings))


async def change_room(request: web.Request) -> web.Response:
    """The supervisor or an admin changes what holds; the others of the pair are told in the room."""
    body = await requests.body(request, schemas.RoomChanges)
    actor, at, pair_id = visitor(request).actor, now(request), path_id(request)
    expected = requests.tags(request, "If-Match")

    async def act(tx: Transaction) -> schemas.RoomSettings:
        await pairs.get_locked(tx, pair_id)  # two changes under one tag would each find it right
        before = await _settings(tx, request)
        if not requests.agrees(expected, [answers.tag_of_model(before)]):
            raise Stale
        await rooms.settle(tx, actor, pair_id, body.changes(), parts(request).config.rooms, now=at)
        return await _settings(tx, request)

    return await answers.change(request, Change("room.settle", "pair", pair_id, act), _answer, body, tagged=True)


async def list_attachments(request: web.Request) -> web.Response:
    """The files in a pair's room, the newest first, for its two people alone."""
    secret = parts(request).config.secret.get_secret_value()
    async with database(request).transaction() as tx:
        pair = await own_pair(tx, request, path_id(request))
        found = await attachments.list_of(tx, pair.id)
    return answers.show(
        schemas.Attachments(
            items=[
                schemas.Attachment(
                    event_id=one.event_id,
                    sender_id=one.person_id,
                    name=one.name(secret),
                    type=one.type,
                    bytes=one.bytes,
                    sent_at=one.sent_at,
                )
                for one in found
            ]
        )
    )


async def _settings(tx: Transaction, request: web.Request) -> schemas.RoomSettings:
    config = parts(request).config
    pair = await pairs.get(tx, path_id(request))
    require_reader(person(request), pair)
    settings = await rooms.of(tx, pair.id, config.rooms)
    return schemas.RoomSettings.of(pair.id, settings, config.matrix.unread_minutes)


def _answer(settings: schemas.RoomSettings) -> Answer:
    return answers.of_model(settings, 200, ETag=f'"{answers.tag_of_model(settings)}"')

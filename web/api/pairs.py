"""The API of people and pairs: who is asking, and what holds for a pair."""

from aiohttp import web

from supervision import pairs, policies
from supervision.db import Transaction, lock_people
from supervision.errors import Stale
from web import schemas, views
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, own_pair, person, visitor


async def me(request: web.Request) -> web.Response:
    """The signed-in person, their roles and their pairs."""
    someone = person(request)
    async with database(request).transaction() as tx:
        known = await pairs.list_of(tx, someone.id, archived=True)
        talk = await views.talk_of(tx, someone, known, now=now(request))
    return answers.show(
        schemas.Me(
            person=schemas.Person.of(someone),
            roles=sorted(someone.roles),
            pairs=[schemas.MyPair.seen(pair, talk.unread.get(pair.id, 0), talk.of(pair, someone)) for pair in known],
        )
    )


async def show_settings(request: web.Request) -> web.Response:
    """What holds for a pair, for both of its people to read."""
    async with database(request).transaction() as tx:
        settings = await _settings(tx, request)
    return answers.show_if_new(request, _answer(settings))


async def change_settings(request: web.Request) -> web.Response:
    """The supervisor settles for this pair alone which lengths can be booked, and whether she is asked."""
    body = await requests.body(request, schemas.PairChanges)
    actor, at, pair_id = visitor(request).actor, now(request), path_id(request)
    expected = requests.tags(request, "If-Match")

    async def act(tx: Transaction) -> schemas.PairSettings:
        pair = await own_pair(tx, request, pair_id)
        if expected:
            await lock_people(tx, [pair.supervisor.id])
            if not requests.agrees(expected, [answers.tag_of_model(await _settings(tx, request))]):
                raise Stale
        named = body.model_fields_set
        lengths = body.lengths if "lengths" in named else pair.lengths
        approval = body.approval if "approval" in named else pair.approval
        await policies.set_pair(tx, actor, pair_id, lengths=lengths, approval=approval, now=at)
        return await _settings(tx, request)

    return await answers.change(request, Change("pair.settle", "pair", pair_id, act), _answer, body, tagged=True)


async def _settings(tx: Transaction, request: web.Request) -> schemas.PairSettings:
    pair = await own_pair(tx, request, path_id(request))
    return schemas.PairSettings.of(pair, await policies.of(tx, pair))


def _answer(settings: schemas.PairSettings) -> Answer:
    return answers.of_model(settings, 200, ETag=f'"{answers.tag_of_model(settings)}"')

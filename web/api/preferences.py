"""The API of how a person wants to be told."""

from aiohttp import web

from supervision import preferences
from supervision.db import Transaction, lock_people
from supervision.errors import Stale
from web import schemas
from web.api import answers, requests
from web.changes import Change
from web.repeats import Answer
from web.state import database, now, person, visitor


async def show_preferences(request: web.Request) -> web.Response:
    """When the signed-in person is reminded, in which hours they want quiet, and what they have turned off."""
    async with database(request).transaction() as tx:
        wishes = await preferences.of(tx, person(request).id)
    return answers.show_if_new(request, _answer(schemas.Preferences.of(wishes)))


async def set_preferences(request: web.Request) -> web.Response:
    """Set all of it at once. The reminders of what is confirmed are planned anew."""
    body = await requests.body(request, schemas.NewPreferences)
    me, actor, at = person(request), visitor(request).actor, now(request)
    expected = requests.tags(request, "If-Match")

    async def act(tx: Transaction) -> schemas.Preferences:
        await lock_people(tx, [me.id])
        before = schemas.Preferences.of(await preferences.of(tx, me.id))
        if not requests.agrees(expected, [answers.tag_of_model(before)]):
            raise Stale
        await preferences.save(tx, actor, me.id, body.wishes(), now=at)
        return schemas.Preferences.of(await preferences.of(tx, me.id))

    change = Change("preferences.save", "person", me.id, act)
    return await answers.change(request, change, _answer, body, tagged=True)


def _answer(shown: schemas.Preferences) -> Answer:
    return answers.of_model(shown, 200, ETag=f'"{answers.tag_of_model(shown)}"')

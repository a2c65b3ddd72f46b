"""A supervisor's other calendars: which there are, how reading them goes, and adding one by its address."""

from datetime import datetime, timedelta
from typing import TypeVar

from aiohttp import web

from supervision import outside
from supervision.db import Transaction
from supervision.errors import Refused
from supervision.models import Role
from supervision.outside import OutsideCalendar
from supervision.texts import Reader
from web import fields, pages, problems
from web.changes import Change, carry_out
from web.dashboard import path_id
from web.state import database, now, parts, person, visitor

Done = TypeVar("Done")

HOME = "/hours/calendars"
AN_HOUR, A_DAY = timedelta(hours=1), timedelta(days=1)


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    me, at, seen = person(request, Role.SUPERVISOR), now(request), visitor(request)
    async with database(request).transaction() as tx:
        known = await outside.list_of(tx, seen.actor, me.id)
    return pages.render(
        request,
        "calendars.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        calendars=[(one, describe(one, seen.reader, at)) for one in known],
        most=outside.MOST_CALENDARS,
        pause=parts(request).config.calendars.poll_minutes,
        typed=fields.typed_of(request)["address"],
    )


def describe(one: OutsideCalendar, reader: Reader, at: datetime) -> str:
    """How reading it goes, in words."""
    if one.error is not None:
        why = reader.say("web.calendar_failed", why=reader.say(f"web.calendar_error.{one.error}"))
        if one.fetched_at is None:
            return f"{why} {reader.say('web.calendar_nothing')}"
        return f"{why} {reader.say('web.calendar_stands', ago=ago(reader, at - one.fetched_at))}"
    if one.fetched_at is None:
        return reader.say("web.calendar_new")
    passed = at - one.fetched_at
    if passed < timedelta(minutes=1):
        return reader.say("web.calendar_read_now")
    return reader.say("web.calendar_read", ago=ago(reader, passed))


def ago(reader: Reader, passed: timedelta) -> str:
    """A length of time by its largest unit, a minute at least."""
    unit = next((one for one in (A_DAY, AN_HOUR) if passed >= one), timedelta(minutes=1))
    return reader.duration(max(1, passed // unit) * (unit // timedelta(minutes=1)))


async def add(request: web.Request) -> web.Response:
    me, actor, config = person(request, Role.SUPERVISOR), visitor(request).actor, parts(request).config

    async def act(tx: Transaction) -> OutsideCalendar:
        return await outside.add(
            tx,
            actor,
            me.id,
            fields.text_of(request, "address"),
            secret=parts(request).secret,
            private=config.calendars.private_networks,
            now=now(request),
        )

    return await _change(request, Change("calendar.add", "person", me.id, act), "calendar_added")


async def remove(request: web.Request) -> web.Response:
    me, actor, calendar_id = person(request, Role.SUPERVISOR), visitor(request).actor, path_id(request)

    async def act(tx: Transaction) -> None:
        await outside.remove(tx, actor, me.id, calendar_id, now=now(request))

    return await _change(request, Change("calendar.remove", "calendar", calendar_id, act), "calendar_removed")


async def _change(request: web.Request, change: Change[Done], done: str) -> web.Response:
    try:
        answer = await carry_out(request, change, lambda _: pages.see(HOME, done), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


ROUTES = [
    web.get(HOME, show),
    web.post(HOME, add),
    web.post(f"{HOME}/{{id}}/remove", remove),
]

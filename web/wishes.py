"""How a person wants to be told: the page that shows and settles it, and the links of mails that end them."""

import re
from dataclasses import replace
from datetime import time
from typing import NoReturn

from aiohttp import web

from supervision import mailboxes, people, preferences, seals
from supervision.audit import Actor
from supervision.db import Transaction, lock_people
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Channel, Role, Topic
from supervision.people import Person
from supervision.preferences import Preferences
from supervision.texts import Reader
from web import fields, pages, problems
from web.changes import Change, carry_out
from web.middleware import FORM
from web.state import database, now, parts, person, visitor

OFFERED = (2880, 1440, 240, 60, 30, 15)  # minutes before the start; what somebody has set otherwise is shown too
PREFIXES = {Channel.MAIL: "mail", Channel.MATRIX: "room"}
REMINDER = re.compile(r"(mail|room)_([0-9]{1,5})")
TOPICS = {
    Topic.BOOKINGS: ("web.topic.bookings", "web.topic.bookings_how"),
    Topic.WAITS: ("web.topic.waits", "web.topic.waits_how"),
    Topic.UNREAD: ("web.topic.unread", "web.topic.unread_how"),
}
ENDED = {
    Topic.BOOKINGS: "web.unsubscribe.bookings",
    Topic.REMINDERS: "web.unsubscribe.reminders",
    Topic.WAITS: "web.unsubscribe.waits",
    Topic.UNREAD: "web.unsubscribe.unread",
}
ONE_CLICK = ("List-Unsubscribe", "One-Click")  # RFC 8058, 3.1


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    me = person(request)
    async with database(request).transaction() as tx:
        wishes = await preferences.of(tx, me.id)
        stopped = await mailboxes.stopped(tx, me.id)
    typed = fields.typed_of(request) if refused else None
    quiet = {"quiet_from": wishes.quiet_from, "quiet_until": wishes.quiet_until}
    return pages.render(
        request,
        "preferences.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        stopped=stopped,
        reminders={
            "mail": sorted({*OFFERED, *wishes.mail_reminders}, reverse=True),
            "room": sorted({*OFFERED, *wishes.room_reminders}, reverse=True),
        },
        ticked=set(typed) if typed is not None else ticks_of(wishes),
        topics=[
            (*TOPICS[topic], [name_of(*one) for one in shown_to(me) if one[1] is topic])
            for topic in TOPICS
            if any(one[1] is topic for one in shown_to(me))
        ],
        quiet=typed if typed is not None else {name: _clock(value) for name, value in quiet.items()},
        home=pages.home(visitor(request)),
    )


async def save(request: web.Request) -> web.Response:
    me, actor, at = person(request), visitor(request).actor, now(request)

    async def act(tx: Transaction) -> None:
        await lock_people(tx, [me.id])
        before = await preferences.of(tx, me.id)
        await preferences.save(tx, actor, me.id, read(request, me, before), now=at)

    return await _change(request, Change("preferences.save", "person", me.id, act), "saved")


async def resume(request: web.Request) -> web.Response:
    """The person says that their address takes mail again."""
    me, actor, at = person(request), visitor(request).actor, now(request)

    async def act(tx: Transaction) -> None:
        await mailboxes.resume(tx, actor, me.id, now=at)

    return await _change(request, Change("mailbox.resume", "person", me.id, act), "mail_resumed")


async def _change(request: web.Request, change: Change[None], done: str) -> web.Response:
    try:
        answer = await carry_out(request, change, lambda _: pages.see("/preferences", done), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


def shown_to(someone: Person) -> list[tuple[Channel, Topic]]:
    """What this person turns on and off by a tick; reminders are chosen one by one, and only supervisees wait."""
    waits = Role.SUPERVISEE in someone.roles
    return [
        (channel, topic)
        for channel, topic in preferences.CHOICES
        if topic is not Topic.REMINDERS and (waits or topic is not Topic.WAITS)
    ]


def name_of(channel: Channel, what: Topic | int) -> str:
    """The name of a tick: `mail_1440`, `room_waits`."""
    return f"{PREFIXES[channel]}_{what}"


def ticks_of(wishes: Preferences) -> set[str]:
    """Which boxes are ticked. Reminders that a link of a mail has turned off show none."""
    reminders = {
        name_of(channel, minutes)
        for channel, minutes in wishes.reminders
        if (channel, Topic.REMINDERS) not in wishes.unwanted
    }
    return reminders | {name_of(*one) for one in preferences.CHOICES if one not in wishes.unwanted}


def read(request: web.Request, me: Person, before: Preferences) -> Preferences:
    """What the form says. What it does not show stays, and so do reminders that were off and have no tick."""
    given = set(request[FORM].keys())
    minutes: dict[str, list[int]] = {"mail": [], "room": []}
    for match in filter(None, map(REMINDER.fullmatch, given)):
        minutes[match[1]].append(int(match[2]))
    shown = shown_to(me)
    unwanted = {one for one in before.unwanted if one not in shown}
    unwanted |= {one for one in shown if name_of(*one) not in given}
    unwanted -= {(channel, Topic.REMINDERS) for channel, prefix in PREFIXES.items() if minutes[prefix]}
    off = {PREFIXES[channel] for channel, topic in unwanted if topic is Topic.REMINDERS}
    return replace(
        before,
        mail_reminders=before.mail_reminders if "mail" in off else tuple(minutes["mail"]),
        room_reminders=before.room_reminders if "room" in off else tuple(minutes["room"]),
        quiet_from=fields.read_optional_clock(request, "quiet_from"),
        quiet_until=fields.read_optional_clock(request, "quiet_until"),
        unwanted=frozenset(unwanted),
    )


def _clock(value: time | None) -> str:
    return "" if value is None else f"{value:%H:%M}"


async def ask(request: web.Request) -> web.Response:
    """What the link of a mail would end, with the button that does; mail scanners open links, so nothing is done."""
    async with database(request).transaction() as tx:
        someone, topic = await _meant(tx, request)
        ended = (Channel.MAIL, topic) in (await preferences.of(tx, someone.id)).unwanted
    return _tell(request, someone, topic, ended=ended)


async def unsubscribe(request: web.Request) -> web.Response:
    """End these mails (RFC 8058): for mail programs, which have no cookie, and for the page's own button.

    The token is the proof, so neither a session nor an origin is asked for.
    """
    await _require_one_click(request)
    async with database(request).transaction() as tx:
        someone, topic = await _meant(tx, request)
        asking = visitor(request).actor
        actor = Actor(someone.id, "unsubscribe", ip=asking.ip, user_agent=asking.user_agent)
        await preferences.mute(tx, actor, someone.id, Channel.MAIL, topic, now=now(request))
    return _tell(request, someone, topic, ended=True)


async def _require_one_click(request: web.Request) -> None:
    name, value = ONE_CLICK
    try:
        given = (await request.post()).get(name)
    except ValueError as error:  # what calls itself a form and is none
        raise NotUnderstood("web.refused.form") from error
    if given != value:
        raise NotUnderstood("web.refused.form")


async def _meant(tx: Transaction, request: web.Request) -> tuple[Person, Topic]:
    found = seals.read_unsubscribe_token(parts(request).secret, request.match_info["token"])
    if found is None:
        _refuse()
    person_id, topic = found
    try:
        return await people.get(tx, person_id), topic
    except NotFound:
        _refuse()


def _refuse() -> NoReturn:
    raise NotFound("web.refused.unsubscribe")


def _tell(request: web.Request, someone: Person, topic: Topic, *, ended: bool) -> web.Response:
    """In the words of whom it is about, whoever's browser this is."""
    reader = Reader(someone.language, someone.time_zone)
    response = pages.render(
        request,
        "unsubscribe.html",
        visitor=replace(visitor(request), reader=reader, session=None),
        what=reader.say(ENDED[topic]),
        ended=ended,
        one_click=ONE_CLICK,
    )
    response.headers["Referrer-Policy"] = "no-referrer"  # the address is a secret
    return response


ROUTES = [
    web.get("/preferences", show),
    web.post("/preferences", save),
    web.post("/preferences/mail", resume),
    web.get("/unsubscribe/{token}", ask),
    web.post("/unsubscribe/{token}", unsubscribe),
]

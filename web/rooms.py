"""A pair's room: what holds in it, settled by the supervisor or an admin; and for its two, which files are there."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from supervision import attachments, memberships, pairs, rooms
from supervision.attachments import Attachment
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Consent, FileKind, PairStatus, Role
from supervision.pairs import Pair
from supervision.people import Person
from supervision.rooms import RoomSettings
from supervision.texts import Minutes, Reader
from web import fields, pages, problems, reauth, views
from web.changes import Change, carry_out
from web.dashboard import path_id, read_id
from web.state import database, now, parts, person, visitor

PATH = "/rooms/{id}"
NUMBERS = ("megabytes", "retention_days", "unread_minutes")
UNITS = ("B", "kB", "MB", "GB")


@dataclass(frozen=True)
class File:
    """A file of the room as it is listed."""

    name: str | None
    type: str | None
    size: str | None
    sender: str
    sent_at: datetime


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(
    request: web.Request, refused: Refused | None = None, removal: tuple[datetime, datetime] | None = None
) -> web.Response:
    """What holds, the form for whoever may change it, and the files; `removal` has to be agreed to first."""
    me = person(request)
    async with database(request).transaction() as tx:
        pair = await pairs.get(tx, path_id(request))
        settles = require_reader(me, pair)
        settings = await rooms.of(tx, pair.id, parts(request).config.rooms)
        is_member = me.id in {one.id for one in pair.people}
        found = await attachments.list_of(tx, pair.id) if is_member else []
        away = await _away(tx, pair) if settles else []
        closed = pair.status is not PairStatus.ACTIVE
        handed_over = closed and Role.ADMIN not in me.roles and await pairs.is_handed_over(tx, pair)
    reader = visitor(request).reader
    said = fields.typed_of(request)
    typed = said if (refused or removal) and "agreed" in said else None
    return pages.render(
        request,
        "room.html",
        status=problems.status_of(refused) if refused else 409 if removal else 200,
        alert=refused or (name_removal(reader, removal) if removal else None),
        pair=pair,
        title=_title(reader, pair, me),
        is_member=is_member,
        room=views.room_link(pair) if is_member else None,
        settings=settings,
        kinds=list(FileKind),
        unread_minutes=unread_minutes(request, settings),
        Minutes=Minutes,
        settles=settles,
        lowers=Role.ADMIN in me.roles or settings.export_consent is Consent.ONE,
        closed=closed,
        handed_over=handed_over,
        away=away,
        typed=typed if typed is not None else _as_typed(request, settings),
        agreed=typed["retention_days"] if typed is not None and removal else "",
        files=[_file(request, reader, pair, one) for one in found],
        shown=attachments.SHOWN,
        home=_home(pair, me),
    )


async def settle(request: web.Request) -> web.Response:
    """Change what was typed otherwise than it holds; that fewer days remove something wants to be agreed to."""
    me, at, actor, pair_id = person(request), now(request), visitor(request).actor, path_id(request)
    defaults = parts(request).config.rooms
    removal: list[tuple[datetime, datetime]] = []

    async def act(tx: Transaction) -> None:
        pair = await pairs.get(tx, pair_id)
        require_reader(me, pair)
        before = await rooms.of(tx, pair_id, defaults)
        changes = read(request, before)
        after = await rooms.settle(tx, actor, pair_id, changes, defaults, now=at)
        goes = rooms.removal(before, after, now=at)
        if goes is not None and fields.text_of(request, "agreed") != str(after.retention_days):
            removal.append(goes)
            raise NotUnderstood("refused.removal")

    change = Change("room.settle", "pair", pair_id, act)
    try:
        answer = await carry_out(request, change, lambda _: pages.see(f"/rooms/{pair_id}", "saved"))
    except Refused as refused:
        return await page(request, None, removal[0]) if removal else await page(request, refused)
    return pages.respond(answer)


async def archive(request: web.Request) -> web.Response:
    """The supervisor closes the room: what is booked is cancelled, for good, and nobody writes there any more."""
    await reauth.require_recent(request, f"/rooms/{path_id(request)}")
    return await _change(request, "archive", pairs.archive, "pair_archived")


async def reopen(request: web.Request) -> web.Response:
    return await _change(request, "reopen", pairs.reopen, "pair_reopened")


async def invite(request: web.Request) -> web.Response:
    """Have one of the two invited again who has left."""
    chosen = fields.text_of(request, "person")

    async def act(tx: Transaction, actor: Actor, pair_id: uuid.UUID, *, now: datetime) -> None:
        await pairs.invite_again(tx, actor, pair_id, read_id(chosen), now=now)

    return await _change(request, "invite_again", act, "invited_again")


async def _away(tx: Transaction, pair: Pair) -> list[Person]:
    """Who of the two has left an open room and could be invited again."""
    seen = await memberships.of(tx, [pair.id])
    if pair.status is not PairStatus.ACTIVE or pair.room_id is None:
        return []
    known = [(one, seen.get((pair.id, one.id))) for one in pair.people if one.disabled_at is None]
    return [one for one, member in known if member is not None and member.membership not in memberships.PRESENT]


async def _change(request: web.Request, action: str, act: Callable[..., Awaitable[None]], done: str) -> web.Response:
    me, at, actor, pair_id = person(request), now(request), visitor(request).actor, path_id(request)

    async def do(tx: Transaction) -> None:
        require_reader(me, await pairs.get(tx, pair_id))
        await act(tx, actor, pair_id, now=at)

    change = Change(f"pair.{action}", "pair", pair_id, do)
    try:
        answer = await carry_out(
            request, change, lambda _: pages.see(f"/rooms/{pair_id}", done), fields.repeat_of(request)
        )
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


def require_reader(me: Person, pair: Pair) -> bool:
    """Whether this person may change what holds. Raises NotFound for whoever may not even read it."""
    is_admin = Role.ADMIN in me.roles
    if me.id not in {one.id for one in pair.people} and not is_admin:
        raise NotFound("refused.pair_not_found")
    return is_admin or me.id == pair.supervisor.id


def read(request: web.Request, before: RoomSettings) -> dict[str, Any]:
    """What the form says otherwise than it holds. Of a closed room only what the form has is read."""
    given = {name for name in ("retention_days", "export_consent") if fields.text_of(request, name)}
    said: dict[str, Any] = {}
    if fields.text_of(request, "whole"):
        given |= rooms.COLUMNS.keys()
        said["attachments"] = bool(fields.text_of(request, "attachments"))
        kinds = frozenset(kind for kind in FileKind if fields.text_of(request, f"kind_{kind}"))
        said["kinds"] = kinds or (frozenset() if said["attachments"] else before.kinds)
        said["expires_on"] = fields.read_optional_day(request, "expires_on")
    for name in given & set(NUMBERS):
        said[name] = _read_number(request, name)
    if "export_consent" in given:
        consent = fields.text_of(request, "export_consent")
        said["export_consent"] = Consent(consent) if consent in set(Consent) else before.export_consent
    held: Mapping[str, Any] = {
        **{name: getattr(before, name) for name in rooms.COLUMNS},
        "unread_minutes": unread_minutes(request, before),
    }
    return {name: value for name, value in said.items() if value != held[name]}


def unread_minutes(request: web.Request, settings: RoomSettings) -> int:
    """After how many minutes a mail tells what is unread in the room; 0 is never."""
    usual = parts(request).config.matrix.unread_minutes
    return usual if settings.unread_minutes is None else settings.unread_minutes


def name_removal(reader: Reader, removal: tuple[datetime, datetime]) -> str:
    """From when on what goes, and how to agree to that."""
    since, before = removal
    return reader.say("web.room_removal", since=reader.day(since), before=reader.dated(before))


def name_size(reader: Reader, size: int) -> str:
    """`2,4 MB`, in steps of 1024."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    digits = f"{amount:.1f}" if unit and amount < 10 else f"{amount:.0f}"
    return f"{digits.replace('.', ',') if reader.language == 'pt-BR' else digits} {UNITS[unit]}"


def _read_number(request: web.Request, name: str) -> int:
    number = fields.read_optional_number(request, name)
    if number is None:
        raise NotUnderstood("web.refused.number", text="")
    return number


def _as_typed(request: web.Request, settings: RoomSettings) -> dict[str, str]:
    """The form as it stands filled in."""
    ticked = {f"kind_{kind}": "on" for kind in settings.kinds}
    return {
        **{f"kind_{kind}": "" for kind in FileKind},
        **ticked,
        "attachments": "on" if settings.attachments else "",
        "megabytes": str(settings.megabytes),
        "retention_days": str(settings.retention_days),
        "unread_minutes": str(unread_minutes(request, settings)),
        "export_consent": str(settings.export_consent),
        "expires_on": settings.expires_on.isoformat() if settings.expires_on else "",
    }


def _file(request: web.Request, reader: Reader, pair: Pair, one: Attachment) -> File:
    secret = parts(request).config.secret.get_secret_value()
    size = None if one.bytes is None else name_size(reader, one.bytes)
    return File(one.name(secret), one.type, size, pair.member(one.person_id).name, one.sent_at)


def _title(reader: Reader, pair: Pair, me: Person) -> str:
    if me.id in {one.id for one in pair.people}:
        return reader.say("web.room_with", name=pair.other(me.id).name)
    return reader.say("web.room_of", supervisor=pair.supervisor.name, supervisee=pair.supervisee.name)


def _home(pair: Pair, me: Person) -> str:
    if me.id == pair.supervisor.id:
        return pages.HOMES[Role.SUPERVISOR]
    return pages.HOMES[Role.SUPERVISEE if me.id == pair.supervisee.id else Role.ADMIN]


ROUTES = [
    web.get(PATH, show),
    web.post(PATH, settle),
    web.post(f"{PATH}/archive", archive),
    web.post(f"{PATH}/reopen", reopen),
    web.post(f"{PATH}/invite", invite),
]

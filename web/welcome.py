"""The page that leads a new person in: a password, the app, the recovery key, the room.

It is opened by a mailed link, which is all its proof; opening it changes nothing. It can be left and opened again.
"""

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

import segno
from aiohttp import web
from markupsafe import Markup

from supervision import audit, homeserver_tasks, invitations, memberships, pairs, seals
from supervision.audit import Actor
from supervision.config import Config
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused, TooMany
from supervision.homeserver_tasks import NO_ADMIN_TOKEN
from supervision.invitations import Invitation
from supervision.models import PairStatus, Task
from supervision.people import Person
from supervision.texts import Reader
from web import homeserver, pages, passwords, problems, sessions
from web.homeserver import NameTaken, TokenUsed
from web.middleware import FORM
from web.signing_in import ADDRESSES
from web.state import Visitor, database, now, parts, visitor

APP = "https://mobile.element.io/element/"


@dataclass(frozen=True)
class Room:
    """How far a person is with the room that they share with `other`: a word of `web.welcome.room_`."""

    other: Person
    state: str


async def show(request: web.Request) -> web.Response:
    try:
        async with database(request).transaction() as tx:
            person, invitation = await _find(tx, request)
            return await _page(tx, request, person, invitation)
    except NotFound as refused:
        return _closed(request, refused)


async def register(request: web.Request) -> web.Response:
    """Make the account with the typed password, which goes to the homeserver and nowhere else."""
    _take_turn(request)
    try:
        async with database(request).transaction() as tx:
            person, invitation = await _find(tx, request)
            await invitations.open_first(tx, invitation, now=now(request))
    except NotFound as refused:
        return _closed(request, refused)
    actor = replace(visitor(request).actor, person_id=person.id)
    try:
        if person.matrix_id is None:
            matrix_id = await _register(request, person, invitation)
            async with database(request).transaction() as tx:
                await invitations.note_registered(tx, actor, person, matrix_id, now=now(request))
    except Refused as refused:
        return await _refuse(request, actor, person, invitation, refused)
    return pages.go(f"{request.path.removesuffix('/account')}", "registered")


async def keep_key(request: web.Request) -> web.Response:
    """The person has put their recovery key where they find it again."""
    _take_turn(request)
    try:
        async with database(request).transaction() as tx:
            person, invitation = await _find(tx, request)
            actor = replace(visitor(request).actor, person_id=person.id)
            if request[FORM].get("kept") != "on":
                refused = NotUnderstood("web.refused.key_not_kept")
                return await _page(tx, request, person, invitation, refused)
            await invitations.open_first(tx, invitation, now=now(request))
            await invitations.finish(tx, actor, invitation, now=now(request))
    except NotFound as refused:
        return _closed(request, refused)
    return pages.go(f"{request.path.removesuffix('/key')}#room")


async def _register(request: web.Request, person: Person, invitation: Invitation) -> str:
    """The Matrix ID of the account, made now or by a try of this person's that was broken off."""
    config, localpart = parts(request).config, invitation.localpart
    if localpart is None:
        raise NotFound
    form = request[FORM]
    password = passwords.check(form.get("password", ""), form.get("again", ""), person, localpart)
    token = invitation.registration and seals.unlock(parts(request).secret, invitation.registration)
    if not token:
        raise await _why_not_ready(request, person)
    url = str(config.matrix.homeserver)
    matrix_id = f"@{localpart}:{config.matrix.server_name}"
    try:
        return await homeserver.register(url, localpart, password, token)
    except NameTaken:
        # An earlier try may have made the account without living to note it. Then the password fits.
        if invitation.opened_at is None or not await homeserver.knows(url, matrix_id, password):
            raise
        return matrix_id
    except TokenUsed:
        async with database(request).transaction() as tx:
            await homeserver_tasks.put(tx, Task.OPEN_REGISTRATION, person_id=person.id, now=now(request))
        raise


async def _why_not_ready(request: web.Request, person: Person) -> Refused:
    async with database(request).transaction() as tx:
        task = await homeserver_tasks.latest(tx, Task.OPEN_REGISTRATION, person.id)
    if task is not None and task.error == NO_ADMIN_TOKEN:
        return NotUnderstood("refused.no_admin_token")
    return NotUnderstood("web.refused.account_not_ready")


async def _refuse(
    request: web.Request, actor: Actor, person: Person, invitation: Invitation, refused: Refused
) -> web.Response:
    async with database(request).transaction() as tx:
        await audit.record(
            tx, actor, "person.register", "person", person.id, now=now(request), success=False, reason=refused.key
        )
        return await _page(tx, request, person, invitation, refused)


async def _find(tx: Transaction, request: web.Request) -> tuple[Person, Invitation]:
    return await invitations.find(tx, parts(request).secret, request.match_info["token"], now=now(request))


async def _page(
    tx: Transaction, request: web.Request, person: Person, invitation: Invitation, refused: Refused | None = None
) -> web.Response:
    """The page as far as it is done, in the person's own language."""
    config = parts(request).config
    seen = _as_read_by(visitor(request), person)
    browser, new = sessions.browser_of(request)
    account = person.matrix_id or f"@{invitation.localpart}:{config.matrix.server_name}"
    rooms = await _rooms(tx, person)
    link = app_link(config, account)
    response = pages.render(
        request,
        "welcome.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        visitor=seen,
        browser=browser,
        here=f"/welcome/{request.match_info['token']}",
        someone=person,
        registers=invitation.localpart is not None,
        there=person.matrix_id is not None,
        account=account,
        server=server_address(config, account),
        link=link,
        code=qr_code(link),
        least=passwords.LEAST,
        advised=passwords.ADVISED,
        kept=invitation.finished_at is not None,
        rooms=rooms,
        arrived=bool(rooms) and all(room.state == "ready" for room in rooms),
        until=invitation.expires_at,
    )
    if new:
        sessions.bind_browser(request, response, browser)
    return response


async def _rooms(tx: Transaction, person: Person) -> list[Room]:
    known = [pair for pair in await pairs.list_of(tx, person.id) if pair.status is PairStatus.ACTIVE]
    seen = await memberships.of(tx, [pair.id for pair in known])
    rooms = []
    for pair in known:
        own = seen.get((pair.id, person.id))
        state = "waiting" if pair.fault is None else "not_made"
        if pair.room_id is not None:
            state = "invited"
            if own is not None and own.membership == "join":
                state = "ready" if own.readable else "joined"
        rooms.append(Room(pair.other(person.id), state))
    return rooms


def _as_read_by(seen: Visitor, person: Person) -> Visitor:
    """The visitor, reading in that person's language; nobody is signed in by it."""
    reader = Reader(person.language, person.time_zone)
    return replace(seen, session=None, reader=reader.as_of(seen.reader.now) if seen.reader.now else reader)


def _closed(request: web.Request, refused: Refused) -> web.Response:
    """The same for every link that leads nowhere, whatever the reason."""
    _take_turn(request)
    return pages.render(
        request, "welcome_closed.html", status=404, sentence=problems.sentence(visitor(request).reader, refused)
    )


def server_address(config: Config, matrix_id: str) -> str:
    """What is typed into an app to reach the account's homeserver."""
    server = matrix_id.partition(":")[2]
    if server != config.matrix.server_name:
        return server
    return str(config.matrix.public_url or config.matrix.homeserver)


def app_link(config: Config, matrix_id: str) -> str:
    """Opens Element on a phone, with homeserver and name filled in (Element's "account provisioning" links)."""
    server = matrix_id.partition(":")[2]
    if server == config.matrix.server_name and config.matrix.public_url:
        server = urlsplit(str(config.matrix.public_url)).netloc
    return f"{APP}?account_provider={quote(server, safe=':')}&login_hint={quote(f'mxid:{matrix_id}', safe=':@')}"


def qr_code(text: str) -> Markup:
    """As SVG within the page, which the content policy allows; dark on light, as cameras want it."""
    made = segno.make(text, error="m", micro=False)
    return Markup(made.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True))  # noqa: S704  # ours


def _take_turn(request: web.Request) -> None:
    if not request.config_dict[ADDRESSES].take(visitor(request).actor.ip):
        raise TooMany


ROUTES = [
    web.get("/welcome/{token}", show),
    web.post("/welcome/{token}/account", register),
    web.post("/welcome/{token}/key", keep_key),
]

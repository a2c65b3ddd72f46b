"""A person's own account: who they are here, their address, and the ways back into the chat when something is lost.

Each way is walked by the person alone. What could shut them out wants a sign-in of the last ten minutes (reauth.py).
"""

from dataclasses import dataclass

from aiohttp import web
from markupsafe import Markup

from supervision import accounts, addresses, audit, homeserver_tasks, people, queries, seals
from supervision.db import Transaction
from supervision.errors import NotUnderstood, Refused, TooMany
from supervision.people import Person
from web import fields, homeserver, pages, passwords, problems, reauth, tasks, views, welcome, zones
from web.homeserver import HomeserverAway, WrongPassword
from web.middleware import FORM
from web.signing_in import ADDRESSES
from web.state import database, now, parts, person, visitor
from web.tasks import HalfDone

LANGUAGE_NAMES = {"pt-BR": "Português", "en": "English"}
HALF_PASSWORD = "web.refused.half_password"  # noqa: S105  # a sentence
PASSWORD, PHONE, IDENTITY = "/account/password", "/account/phone", "/account/identity"  # paths


@dataclass(frozen=True)
class Chat:
    """A chat account: its Matrix ID, whose server it is on if not ours, and how an app gets there."""

    account: str
    elsewhere: str | None
    server: str
    link: str
    code: Markup


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """The account's own page, or what was refused above it."""
    me, at = person(request), now(request)
    async with database(request).transaction() as tx:
        waiting = await addresses.of(tx, me.id, now=at)
        offered = await _offered(tx, me)
    typed = fields.typed_of(request)
    return pages.render(
        request,
        "account.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        home=pages.home(visitor(request)),
        name=typed["name"] or me.name,
        language=typed["language"] or me.language,
        languages=LANGUAGE_NAMES,
        time_zone=typed["time_zone"] or me.time_zone,
        zones=zones.name_all(me.language, typed["time_zone"] or me.time_zone),
        email=typed["email"],
        waiting=waiting,
        offered=offered,
        chat=_chat(request),
    )


async def save(request: web.Request) -> web.Response:
    """Name, language and time zone; what stays as it was is not touched."""
    me, actor, at = person(request), visitor(request).actor, now(request)
    name, language, zone = (fields.text_of(request, one) for one in ("name", "language", "time_zone"))
    try:
        async with database(request).transaction() as tx:
            if people.check_name(name) != me.name:
                await people.set_name(tx, actor, me.id, name, now=at)
            if language != me.language:
                await people.set_language(tx, actor, me.id, language, now=at)
            if zone != me.time_zone:
                await people.set_time_zone(tx, actor, me.id, zone, now=at)
    except Refused as refused:
        return await page(request, refused)
    return pages.go("/account", "saved")


async def ask_address(request: web.Request) -> web.Response:
    """Mail a code to another address; the same answer whoever has it."""
    me = person(request)
    await reauth.require_recent(request, "/account")
    _take_turn(request)
    try:
        async with database(request).transaction() as tx:
            email = fields.text_of(request, "email")
            await addresses.ask(tx, visitor(request).actor, me, email, now=now(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.go("/account", "address_asked")


async def confirm_address(request: web.Request) -> web.Response:
    """Take the new address over, with the code that was mailed to it."""
    me = person(request)
    _take_turn(request)
    try:
        async with database(request).transaction() as tx:
            typed = fields.text_of(request, "code")[:40]
            secret, actor = parts(request).secret, visitor(request).actor
            right = await addresses.confirm(tx, secret, actor, me, typed, now=now(request))
        if not right:
            raise NotUnderstood("web.refused.wrong_code")
    except Refused as refused:
        return await page(request, refused)
    return pages.go("/account", "address_changed")


async def forget_address(request: web.Request) -> web.Response:
    async with database(request).transaction() as tx:
        await addresses.forget(tx, visitor(request).actor, person(request).id, now=now(request))
    return pages.go("/account")


async def show_password(request: web.Request) -> web.Response:
    await reauth.require_recent(request, PASSWORD)
    return password_page(request)


def password_page(request: web.Request, refused: Refused | None = None) -> web.Response:
    return pages.render(
        request,
        "account_password.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        least=passwords.LEAST,
        advised=passwords.ADVISED,
        chat=_chat(request),
    )


async def set_password(request: web.Request) -> web.Response:
    """Replace a password that the person has lost, by one that nobody else gets to know.

    The administrator sets a passing one; with it the person's own is set here, and the passing one is gone.
    """
    me = person(request)
    await reauth.require_recent(request, PASSWORD)
    _take_turn(request)
    form, sign_out = request[FORM], request[FORM].get("sign_out") == "on"
    actor = visitor(request).actor
    try:
        _require_ours(request, me)
        localpart = (me.matrix_id or "").partition(":")[0].removeprefix("@")
        password = passwords.check(form.get("password", ""), form.get("again", ""), me, localpart)
        await _set_password(request, me, password, sign_out=sign_out)
    except Refused as refused:
        async with database(request).transaction() as tx:
            await audit.record(
                tx, actor, "account.set_password", "person", me.id, now=now(request), success=False, reason=refused.key
            )
        return password_page(request, refused)
    async with database(request).transaction() as tx:
        await accounts.note_password(tx, actor, me, signed_out=sign_out, now=now(request))
    return pages.go("/account", "password_changed")


async def _set_password(request: web.Request, me: Person, password: str, *, sign_out: bool) -> None:
    config, actor = parts(request).config, visitor(request).actor
    async with database(request).transaction() as tx:
        ours = config.matrix.server_name
        task_id = await accounts.reset_password(tx, actor, me, server_name=ours, now=now(request))
    try:
        await tasks.finish(request, task_id)
    except HalfDone as error:
        raise HalfDone(HALF_PASSWORD) from error
    async with database(request).transaction() as tx:
        locked = await homeserver_tasks.take_answer(tx, task_id)
    passing = locked and seals.unlock(parts(request).secret, locked)
    if not passing or me.matrix_id is None:
        raise HalfDone(HALF_PASSWORD)
    try:
        await homeserver.set_password(str(config.matrix.homeserver), me.matrix_id, passing, password, sign_out=sign_out)
    except (HomeserverAway, TooMany, WrongPassword) as error:
        raise HalfDone(HALF_PASSWORD) from error  # the old one is gone already


async def show_phone(request: web.Request) -> web.Response:
    await reauth.require_recent(request, PHONE)
    return await phone_page(request)


async def phone_page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """The steps from a lost phone to a new one."""
    me = person(request)
    async with database(request).transaction() as tx:
        offered = await _offered(tx, me)
    return pages.render(
        request,
        "account_phone.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        offered=offered,
        chat=_chat(request),
    )


async def sign_out_devices(request: web.Request) -> web.Response:
    """Sign every device out of the person's chat account."""
    me = person(request)
    await reauth.require_recent(request, PHONE)
    _take_turn(request)
    try:
        async with database(request).transaction() as tx:
            ours = parts(request).config.matrix.server_name
            task_id = await accounts.sign_out(tx, visitor(request).actor, me, server_name=ours, now=now(request))
        await tasks.finish(request, task_id)
    except Refused as refused:
        return await phone_page(request, refused)
    return pages.go(PHONE, "devices_out")


async def show_identity(request: web.Request) -> web.Response:
    """What a new identity is, and the one that waits for the person's word."""
    me = person(request)
    async with database(request).transaction() as tx:
        offered = await _offered(tx, me)
    return pages.render(request, "account_identity.html", offered=offered, chat=_chat(request))


async def _offered(tx: Transaction, me: Person) -> str | None:
    if me.matrix_id is None:
        return None
    return views.fingerprint(await queries.offered_identity(tx, me.matrix_id))


def _chat(request: web.Request) -> Chat | None:
    """The person's chat account, if they have one."""
    config, matrix_id = parts(request).config, person(request).matrix_id
    if matrix_id is None:
        return None
    ours = accounts.is_ours(person(request), config.matrix.server_name)
    link = welcome.app_link(config, matrix_id)
    return Chat(
        matrix_id,
        None if ours else matrix_id.partition(":")[2],
        welcome.server_address(config, matrix_id),
        link,
        welcome.qr_code(link),
    )


def _require_ours(request: web.Request, me: Person) -> None:
    accounts.require_ours(me, parts(request).config.matrix.server_name)


def _take_turn(request: web.Request) -> None:
    if not request.config_dict[ADDRESSES].take(visitor(request).actor.ip):
        raise TooMany


ROUTES = [
    web.get("/account", show),
    web.post("/account", save),
    web.post("/account/address", ask_address),
    web.post("/account/address/code", confirm_address),
    web.post("/account/address/forget", forget_address),
    web.get(PASSWORD, show_password),
    web.post(PASSWORD, set_password),
    web.get(PHONE, show_phone),
    web.post(PHONE, sign_out_devices),
    web.get(IDENTITY, show_identity),
]

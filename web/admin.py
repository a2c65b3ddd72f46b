"""What admins see and do: people, pairs, what could not be delivered, and what the homeserver did not do."""

import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from supervision import (
    accounts,
    homeserver_tasks,
    invitations,
    mailboxes,
    memberships,
    notifications,
    pairs,
    people,
    renewals,
)
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import PairStatus, Role, State
from web import fields, pages, problems, reauth, zones
from web.account import LANGUAGE_NAMES
from web.changes import Change, carry_out
from web.dashboard import path_id, read_id
from web.middleware import FORM
from web.state import database, now, parts, person, visitor

Act = Callable[[Transaction], Awaitable[object]]


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """Everybody and every pair, with the forms that add one; or what was refused above it."""
    me = person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        everybody = await people.list_all(tx)
        all_pairs = await pairs.list_all(tx)
        parked = await notifications.list_by_state(tx, State.PARKED)
        stopped = await mailboxes.list_stopped(tx)
        invited = await invitations.list_all(tx)
        failed = await homeserver_tasks.list_failed(tx)
    typed = fields.typed_of(request)
    free = [one for one in everybody if one.disabled_at is None]
    return pages.render(
        request,
        "admin.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        people=everybody,
        pairs=all_pairs,
        parked=parked,
        stopped=stopped,
        invited=invited,
        failed=failed,
        supervisors=[one for one in free if Role.SUPERVISOR in one.roles],
        supervisees=[one for one in free if Role.SUPERVISEE in one.roles],
        typed=typed,
        languages=LANGUAGE_NAMES,
        language=typed["language"] or me.language,
        zones=zones.name_all(me.language, typed["time_zone"] or me.time_zone),
        time_zone=typed["time_zone"] or me.time_zone,
        roles=[str(role) for role in Role],
        server=parts(request).config.matrix.server_name,
    )


async def add_person(request: web.Request) -> web.Response:
    """Add a person, and mail them how to come in."""
    person(request, Role.ADMIN)
    if request[FORM].get(f"role_{Role.ADMIN}") == "on":  # whoever found an open browser would come back as one
        await reauth.require_recent(request, "/admin")
    text = {
        name: fields.text_of(request, name)
        for name in ("name", "email", "language", "time_zone", "account", "matrix_id")
    }
    roles = [role for role in Role if request[FORM].get(f"role_{role}") == "on"]

    async def act(tx: Transaction) -> object:
        return await invitations.add(
            tx,
            visitor(request).actor,
            name=text["name"],
            email=text["email"],
            language=text["language"],
            time_zone=text["time_zone"],
            roles=roles,
            account=text["account"] or None,
            matrix_id=text["matrix_id"] or None,
            server_name=parts(request).config.matrix.server_name,
            now=now(request),
        )

    done = "person_invited" if text["account"] or text["matrix_id"] else "person_added"
    change = Change("person.add", "person", None, act)
    try:
        answer = await carry_out(request, change, lambda _: pages.see("/admin", done), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


async def add_pair(request: web.Request) -> web.Response:
    """Pair two people up; their bot makes the room as soon as both have an account."""
    person(request, Role.ADMIN)

    async def act(tx: Transaction) -> object:
        supervisor = await people.get(tx, _chosen(request, "supervisor"))
        supervisee = await people.get(tx, _chosen(request, "supervisee"))
        return await pairs.add(tx, visitor(request).actor, supervisor, supervisee, now=now(request))

    change = Change("pair.add", "pair", None, act)
    try:
        answer = await carry_out(request, change, lambda _: pages.see("/admin", "paired"), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


async def show_person(request: web.Request) -> web.Response:
    return await person_page(request)


async def person_page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """One person, and what an admin can do about them."""
    person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        one = await people.get(tx, path_id(request))
        invitation = await invitations.of(tx, one.id)
        own = await pairs.list_of(tx, one.id, archived=True)
        stopped = await mailboxes.stopped(tx, one.id)
    return pages.render(
        request,
        "admin_person.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        one=one,
        invitation=invitation,
        open=invitation is not None and invitation.open_at(now(request)),
        pairs=own,
        stopped=stopped,
        ours=accounts.is_ours(one, parts(request).config.matrix.server_name),
        account=fields.typed_of(request)["account"] or (invitation and invitation.localpart) or "",
        server=parts(request).config.matrix.server_name,
    )


async def invite(request: web.Request) -> web.Response:
    """Mail a new link; of an account that is not made yet the name may change."""
    ours = parts(request).config.matrix.server_name

    async def act(tx: Transaction) -> None:
        account = fields.text_of(request, "account") or None
        actor, person_id = visitor(request).actor, path_id(request)
        await invitations.invite_again(tx, actor, person_id, account=account, server_name=ours, now=now(request))

    return await _change_person(request, "person.invite", act, "person_invited")


async def resume_mail(request: web.Request) -> web.Response:
    async def act(tx: Transaction) -> None:
        await mailboxes.resume(tx, visitor(request).actor, path_id(request), now=now(request))

    return await _change_person(request, "mailbox.resume", act, "mail_resumed")


async def disable(request: web.Request) -> web.Response:
    """Take away sign-in, commands and rooms; with a tick the account on our homeserver ends too."""
    person(request, Role.ADMIN)
    await reauth.require_recent(request, f"/admin/people/{path_id(request)}")
    ends = request[FORM].get("deactivate") == "on"

    async def act(tx: Transaction) -> None:
        actor, person_id = visitor(request).actor, path_id(request)
        if person_id == actor.person_id:
            raise NotUnderstood("web.refused.own_person")
        await people.disable(tx, actor, person_id, now=now(request))
        if ends:
            ours = parts(request).config.matrix.server_name
            await accounts.deactivate(tx, actor, await people.get(tx, person_id), server_name=ours, now=now(request))

    return await _change_person(request, "person.disable", act, "disabled")


async def show_pair(request: web.Request) -> web.Response:
    return await pair_page(request)


async def pair_page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """One pair, its room, and what an admin can do about them."""
    person(request, Role.ADMIN)
    async with database(request).transaction() as tx:
        pair = await pairs.get(tx, path_id(request))
        seen = await memberships.of(tx, [pair.id])
        everybody = await people.list_all(tx)
        removing = await pairs.is_being_removed(tx, pair.id)
    others = [one for one in everybody if Role.SUPERVISOR in one.roles and one.disabled_at is None]
    return pages.render(
        request,
        "admin_pair.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        pair=pair,
        members=[(one, seen.get((pair.id, one.id))) for one in pair.people],
        removing=removing,
        lost=pair.status is PairStatus.ACTIVE and renewals.is_lost(pair),
        others=[one for one in others if one.id not in (pair.supervisor.id, pair.supervisee.id)],
    )


async def archive(request: web.Request) -> web.Response:
    await _require_recent(request)
    return await _change_pair(request, "archive", pairs.archive, "pair_archived")


async def reopen(request: web.Request) -> web.Response:
    return await _change_pair(request, "reopen", pairs.reopen, "pair_reopened")


async def hold(request: web.Request) -> web.Response:
    return await _change_pair(request, "hold", pairs.hold, "pair_held")


async def release(request: web.Request) -> web.Response:
    await _require_recent(request)
    return await _change_pair(request, "release", pairs.release, "pair_released")


async def remove_room(request: web.Request) -> web.Response:
    """Remove the room with everything in it."""
    await _require_recent(request)
    return await _change_pair(request, "remove_room", pairs.remove_room, "room_removed")


async def renew_room(request: web.Request) -> web.Response:
    """The bot makes a new room; the old one is a closed pair's from then on."""
    await _require_recent(request)
    return await _change_pair(request, "renew_room", renewals.renew_room, "room_renewed")


async def hand_over(request: web.Request) -> web.Response:
    """Another supervisor takes over, in a new room."""
    await _require_recent(request)
    actor, at = visitor(request).actor, now(request)

    async def act(tx: Transaction, *_: object, **__: object) -> object:
        supervisor = await people.get(tx, _chosen(request, "supervisor"))
        return await pairs.hand_over(tx, actor, path_id(request), supervisor, now=at)

    return await _change_pair(request, "hand_over", act, "handed_over")


async def invite_into_room(request: web.Request) -> web.Response:
    actor, at = visitor(request).actor, now(request)

    async def act(tx: Transaction, *_: object, **__: object) -> None:
        await pairs.invite_again(tx, actor, path_id(request), _chosen(request, "person"), now=at)

    return await _change_pair(request, "invite_again", act, "invited_again")


async def _require_recent(request: web.Request) -> None:
    """What calls appointments off, lets something be deleted or leaves a room behind does not come back."""
    person(request, Role.ADMIN)
    await reauth.require_recent(request, f"/admin/pairs/{path_id(request)}")


async def _change_person(request: web.Request, action: str, act: Act, done: str) -> web.Response:
    person(request, Role.ADMIN)
    person_id = path_id(request)
    change = Change(action, "person", person_id, act)
    here = f"/admin/people/{person_id}"
    try:
        answer = await carry_out(request, change, lambda _: pages.see(here, done), fields.repeat_of(request))
    except Refused as refused:
        return await person_page(request, refused)
    return pages.respond(answer)


async def _change_pair(
    request: web.Request, action: str, act: Callable[..., Awaitable[object]], done: str
) -> web.Response:
    person(request, Role.ADMIN)
    pair_id, actor, at = path_id(request), visitor(request).actor, now(request)
    change = Change(f"pair.{action}", "pair", pair_id, lambda tx: act(tx, actor, pair_id, now=at))
    here = f"/admin/pairs/{pair_id}"
    try:
        answer = await carry_out(request, change, lambda _: pages.see(here, done), fields.repeat_of(request))
    except Refused as refused:
        return await pair_page(request, refused)
    return pages.respond(answer)


def _chosen(request: web.Request, name: str) -> uuid.UUID:
    try:
        return read_id(fields.text_of(request, name))
    except NotFound as error:
        raise NotUnderstood("web.refused.choose_person") from error


ROUTES = [
    web.get("/admin", show),
    web.post("/admin/people", add_person),
    web.post("/admin/pairs", add_pair),
    web.get("/admin/people/{id}", show_person),
    web.post("/admin/people/{id}/invite", invite),
    web.post("/admin/people/{id}/mail", resume_mail),
    web.post("/admin/people/{id}/disable", disable),
    web.get("/admin/pairs/{id}", show_pair),
    web.post("/admin/pairs/{id}/archive", archive),
    web.post("/admin/pairs/{id}/reopen", reopen),
    web.post("/admin/pairs/{id}/hold", hold),
    web.post("/admin/pairs/{id}/release", release),
    web.post("/admin/pairs/{id}/remove-room", remove_room),
    web.post("/admin/pairs/{id}/new-room", renew_room),
    web.post("/admin/pairs/{id}/hand-over", hand_over),
    web.post("/admin/pairs/{id}/invite", invite_into_room),
]

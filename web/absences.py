"""Being away: the days, what falls in them, and one press that settles all of it or nothing."""

from datetime import date

from aiohttp import web

from supervision import absences, availability, pairs
from supervision.absences import Then
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Role
from web import fields, pages, problems, views
from web.changes import Change, carry_out
from web.state import database, now, person, visitor

CHOICES: dict[str, Then] = {"cancel": "cancel", "propose": "propose"}


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """Asks for the days; with days in the address or the form, what falls in them and what is to become of it."""
    me, at = person(request, Role.SUPERVISOR), now(request)
    typed = fields.typed_of(request)
    texts = [typed[name] or request.query.get(name, "") for name in ("first", "last")]
    days = None
    try:
        days = _days(*texts)
    except NotUnderstood as error:
        refused = refused or error
    rows: list[views.Row] = []
    coming = []
    async with database(request).transaction() as tx:
        try:
            if days:
                known = await pairs.list_of(tx, me.id, archived=True)
                rows = views.rows(me, known, await absences.affected(tx, me.id, *days, now=at), at)
            today = at.astimezone(me.zone).date()
            off = (await availability.load(tx, me.id)).exceptions
            coming = [one for one in off if one.last_on >= today and one.starts is None and one.kind == "time_off"]
        except NotFound as error:
            refused = refused or error
        except Refused as error:
            refused, days = refused or error, None
    return pages.render(
        request,
        "away.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        first=texts[0],
        last=texts[1],
        days=days,
        rows=rows,
        then=typed["then"] or "propose",
        coming=coming,
    )


async def go(request: web.Request) -> web.Response:
    """Take the days off, and cancel what falls in them or propose other times, as the page showed it."""
    me = person(request, Role.SUPERVISOR)

    async def act(tx: Transaction) -> object:
        first = fields.read_day(request, "first")
        last = fields.read_optional_day(request, "last") or first
        then = CHOICES.get(fields.text_of(request, "then"))
        if then is None:
            raise NotUnderstood("web.refused.choose_then")
        return await absences.go(
            tx,
            visitor(request).actor,
            me,
            first,
            last,
            then=then,
            expected=list((fields.read_seen(request, "expected") or {}).items()),
            now=now(request),
        )

    change = Change("absence.go", "person", me.id, act)
    try:
        answer = await carry_out(request, change, lambda _: pages.see("/supervisor", "away"), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


def _days(first: str, last: str) -> tuple[date, date] | None:
    """Both days; none where nothing is typed. Raises NotUnderstood for what is no day."""
    if not first and not last:
        return None
    one = fields.understand_day(first)
    return one, fields.understand_day(last) if last else one


ROUTES = [
    web.get("/away", show),
    web.post("/away", go),
]

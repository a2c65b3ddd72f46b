"""What a pair has agreed on: readable by both, settled by the supervisor."""

from aiohttp import web

from supervision import policies, public_holidays
from supervision.db import Transaction
from supervision.errors import NotFound, Refused
from supervision.hours import Availability
from supervision.models import Approval
from web import fields, pages, problems
from web.changes import Change, carry_out
from web.dashboard import path_id
from web.hours import LIMITS, coming_exceptions, coming_holidays, name_days, name_rule, show_ranges
from web.state import database, now, own_pair, person, visitor


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """What holds for the pair in the path, and for its supervisor the form that changes it."""
    me = person(request)
    async with database(request).transaction() as tx:
        pair = await own_pair(tx, request, path_id(request))
        try:
            settled = await policies.of(tx, pair)
        except NotFound as error:
            settled, refused = None, refused or error
    rules = settled.rules if settled else Availability(())
    if rules.country is not None:
        await public_holidays.open_calendars()
    today = now(request).astimezone(pair.supervisor.zone).date()
    reader = visitor(request).reader
    typed = fields.typed_of(request)
    lengths = settled.lengths if settled and settled.own_lengths else ()
    return pages.render(
        request,
        "settings.html",
        status=problems.status_of(refused) if refused else 200,
        alert=name_rule(refused, reader) if refused else None,
        pair=pair,
        other=pair.other(me.id),
        supervises=pair.supervisor.id == me.id,
        settled=settled,
        limits=[(label, getattr(rules, name)) for name, label in LIMITS.items()],
        weekdays=[(name, show_ranges(rules, number)) for number, name in name_days(reader)],
        exceptions=coming_exceptions(rules, today),
        holidays=coming_holidays(rules, today),
        lengths=typed["lengths"] if typed else ", ".join(str(minutes) for minutes in lengths),
        approval=typed["approval"] if typed else str(pair.approval or ""),
        home="/supervisor" if pair.supervisor.id == me.id else "/appointments",
    )


async def settle(request: web.Request) -> web.Response:
    """Lengths and approval of this pair alone; what is empty follows the supervisor's own rules again."""
    pair_id, actor = path_id(request), visitor(request).actor

    async def act(tx: Transaction) -> object:
        pair = await own_pair(tx, request, path_id(request))
        lengths = fields.read_lengths(fields.text_of(request, "lengths"))
        approval = fields.text_of(request, "approval")
        await policies.set_pair(
            tx,
            actor,
            pair.id,
            lengths=lengths or None,
            approval=Approval(approval) if approval in set(Approval) else None,
            now=now(request),
        )
        return pair

    change = Change("pair.settle", "pair", pair_id, act)
    here = f"/pairs/{pair_id}/settings"
    try:
        answer = await carry_out(request, change, lambda _: pages.see(here, "saved"), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


ROUTES = [
    web.get("/pairs/{id}/settings", show),
    web.post("/pairs/{id}/settings", settle),
]

"""The pages of a signed-in person: what is next, what can be done, then the rest."""

import uuid
from collections import defaultdict
from datetime import date, datetime, timedelta

from aiohttp import web

from supervision import (
    appointments,
    attendances,
    availability,
    pairs,
    queries,
    series,
    waits,
)
from supervision.appointments import OPEN, Appointment
from supervision.db import Transaction
from supervision.errors import NotFound, Refused
from supervision.groups import Scope
from supervision.models import Role, Status
from supervision.people import Person
from supervision.texts import Minutes
from web import fields, pages, problems, views
from web.state import database, now, person, visitor

HISTORY_SHOWN = 5
HISTORY_MOST = 50
COMING_MOST = 500
REFUSED_MOST = 5
REFUSED_FOR = timedelta(days=7)


async def lead(request: web.Request) -> web.Response:
    return pages.go(pages.home(visitor(request)))


async def show_supervisee(request: web.Request) -> web.Response:
    return await supervisee_page(request)


async def supervisee_page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """The supervisee's dashboard, or what was refused above it."""
    me, at = person(request, Role.SUPERVISEE), now(request)
    async with database(request).transaction() as tx:
        known = [pair for pair in await pairs.list_of(tx, me.id, archived=True) if pair.supervisee.id == me.id]
        found = await queries.coming(tx, me.id, now=at, role=Role.SUPERVISEE, most=COMING_MOST)
        past = await queries.history(tx, me.id, Role.SUPERVISEE, now=at, most=HISTORY_MOST)
        coming, history = (views.rows(me, known, items, at) for items in (found, past))
        talk = await views.talk_of(tx, me, known, now=at)
        everybody = views.members(me, known, coming, await queries.bot_master_keys(tx), talk)
        members = [member for member in everybody if member.active]
        chosen = _chosen(request, members)
        first = views.read_day(request.query.get("from", ""))
        length = fields.read_length(request.query.get("length", ""))
        choice = await views.choices(tx, chosen.pair, me, first, now=at, length=length) if chosen else None
        waiting = [
            views.Waiting(wait, member.other) for member in members for wait in await waits.list_of(tx, member.pair.id)
        ]
        offered = await _offered_identity(tx, me)
        refused_commands = await queries.refused_commands(tx, me.id, at - REFUSED_FOR, REFUSED_MOST)
    everything = "all" in request.query
    return pages.render(
        request,
        "supervisee.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        offers=[one for one in waiting if one.wait.offer and one.wait.offer.until > at],
        waits=waiting,
        asks=views.asks(coming),
        next_row=coming[0] if coming else None,
        next_when=pages.days_until(visitor(request).reader, coming[0].appointment.starts_at, at) if coming else "",
        coming=coming[1:],
        members=members,
        closed=[member for member in everybody if member.closed],
        seen=_seen(request, members, at),
        rooms=_rooms(members),
        chosen=chosen,
        choice=choice,
        history=history if everything else history[:HISTORY_SHOWN],
        more_history=not everything and len(history) > HISTORY_SHOWN,
        offered=offered,
        refused_commands=refused_commands,
    )


async def show_supervisor(request: web.Request) -> web.Response:
    return await supervisor_page(request)


async def supervisor_page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """The supervisor's dashboard, or what was refused above it."""
    me, at = person(request, Role.SUPERVISOR), now(request)
    today = at.astimezone(me.zone).date()
    async with database(request).transaction() as tx:
        known = [pair for pair in await pairs.list_of(tx, me.id, archived=True) if pair.supervisor.id == me.id]
        requests = await queries.requests(tx, me.id, now=at)
        found = await queries.coming(tx, me.id, now=at, role=Role.SUPERVISOR, most=COMING_MOST)
        coming = views.rows(me, known, found, at)
        asked = views.rows(me, known, _merge(requests, found), at)
        past = await queries.history(tx, me.id, Role.SUPERVISOR, now=at, most=HISTORY_MOST)
        marked = [row for row in views.rows(me, known, past, at) if row.marks]
        monday = _monday(views.read_day(request.query.get("week", "")) or _next_day(coming, me) or today)
        week = await queries.page(
            tx,
            since=views.midnight(monday, me.zone),
            until=views.midnight(monday + timedelta(days=7), me.zone),
            statuses=(*OPEN, Status.COMPLETED, Status.NO_SHOW),
            supervisor_id=me.id,
            most=COMING_MOST,
        )
        talk = await views.talk_of(tx, me, known, now=at)
        everybody = views.members(me, known, coming, await queries.bot_master_keys(tx), talk)
        members = [member for member in everybody if member.active]
        offered = await _offered_identity(tx, me)
        refused_commands = await queries.refused_commands(tx, me.id, at - REFUSED_FOR, REFUSED_MOST)
    confirmed = [row for row in coming if not row.answerable]
    return pages.render(
        request,
        "supervisor.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        asks=views.asks(asked),
        marked=marked[: HISTORY_MOST if "all" in request.query else HISTORY_SHOWN],
        more_marked="all" not in request.query and len(marked) > HISTORY_SHOWN,
        next_row=confirmed[0] if confirmed else None,
        next_when=pages.days_until(visitor(request).reader, confirmed[0].appointment.starts_at, at)
        if confirmed
        else "",
        days=views.week_days(views.rows(me, known, week.items, at), monday, me.zone),
        today=today,
        this_week=_monday(today),
        monday=monday,
        before=monday - timedelta(days=7),
        after=monday + timedelta(days=7),
        members=members,
        closed=[member for member in everybody if member.closed],
        seen=_seen(request, members, at),
        rooms=_rooms(members),
        offered=offered,
        refused_commands=refused_commands,
    )


async def show_appointment(request: web.Request) -> web.Response:
    return await appointment_page(request, "appointment.html")


async def show_cancel(request: web.Request) -> web.Response:
    return await appointment_page(request, "cancel.html")


async def show_reschedule(request: web.Request) -> web.Response:
    return await appointment_page(request, "reschedule.html")


async def appointment_page(request: web.Request, template: str, refused: Refused | None = None) -> web.Response:
    """One appointment of the person's own: itself, or the page that cancels or moves it."""
    me, at = person(request), now(request)
    appointment_id = path_id(request)
    async with database(request).transaction() as tx:
        appointment = await appointments.get(tx, visitor(request).actor, appointment_id)
        pair = await pairs.get(tx, appointment.pair_id)
        group = await series.occurrences(tx, appointment.series_id) if appointment.series_id else []
        keys = await queries.bot_master_keys(tx)
        row = views.Row(appointment, me, pair.other(me.id), at)
        answered = await attendances.of(tx, appointment) if row.changeable else {}
        late = await _late(tx, row) if template == "cancel.html" else None
        choice = None
        if template == "reschedule.html":
            first = views.read_day(request.query.get("from", ""))
            choice = await views.choices(tx, pair, me, first, now=at, moving=appointment)
    typed = fields.typed_of(request)
    scope = typed["scope"] or request.query.get("scope", "")
    if template != "appointment.html" and not row.changeable:
        template = "appointment.html"
    return pages.render(
        request,
        template,
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        row=row,
        rows=views.rows(me, [pair], group, at),
        member=views.members(me, [pair], [], keys)[0],
        when=pages.days_until(visitor(request).reader, appointment.starts_at, at) if row.changeable else "",
        choice=choice,
        at_once=not row.supervises
        and (appointment.status is Status.REQUESTED or (choice is not None and choice.automatic)),
        late=late,
        my_answer=answered.get(me.id),
        other_answer=answered.get(row.other.id),
        home=home_for(row),
        typed=typed,
        scope=scope if scope in set(Scope) else None,
    )


async def _late(tx: Transaction, row: views.Row) -> Minutes | None:
    """The supervisor's notice for cancelling, where it is too late for it."""
    if row.supervises or row.appointment.status is not Status.CONFIRMED:
        return None
    rules = await availability.load(tx, row.appointment.supervisor_id)
    late = row.appointment.starts_at - row.now < timedelta(minutes=rules.cancel_notice)
    return Minutes(rules.cancel_notice) if late else None


def home_for(row: views.Row) -> str:
    """The dashboard on which the person finds this appointment."""
    return pages.HOMES[Role.SUPERVISOR if row.supervises else Role.SUPERVISEE]


def path_id(request: web.Request) -> uuid.UUID:
    return read_id(request.match_info["id"])


def read_id(text: str) -> uuid.UUID:
    """Raises NotFound for what is no lower-case UUID: nothing has such an ID."""
    try:
        found = uuid.UUID(text)
    except ValueError as error:
        raise NotFound from error
    if str(found) != text:
        raise NotFound
    return found


def _merge(requests: list[Appointment], coming: list[Appointment]) -> list[Appointment]:
    """Both, each once, by start: there may be more requests than the next appointments show."""
    found = {one.id: one for one in (*requests, *coming)}
    return sorted(found.values(), key=lambda one: (one.starts_at, one.id))


def _rooms(members: list[views.Member]) -> defaultdict[uuid.UUID, str | None]:
    return defaultdict(lambda: None, {member.pair.id: member.room for member in members})


def _seen(request: web.Request, members: list[views.Member], at: datetime) -> dict[uuid.UUID, str]:
    reader = visitor(request).reader
    return {member.pair.id: views.last_seen(reader, member.presence, at) for member in members}


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _next_day(coming: list[views.Row], me: Person) -> date | None:
    """The day of the next appointment: its week is shown first, so that nobody meets an empty one on a Sunday."""
    return coming[0].appointment.starts_at.astimezone(me.zone).date() if coming else None


def _chosen(request: web.Request, members: list[views.Member]) -> views.Member | None:
    wanted = request.query.get("pair")
    return next((member for member in members if str(member.pair.id) == wanted), members[0] if members else None)


async def _offered_identity(tx: Transaction, me: Person) -> str | None:
    """The person's own changed Matrix identity, which waits for their word."""
    if me.matrix_id is None:
        return None
    return views.fingerprint(await queries.offered_identity(tx, me.matrix_id))


ROUTES = [
    web.get("/", lead),
    web.get("/appointments", show_supervisee),
    web.get("/supervisor", show_supervisor),
    web.get("/appointments/{id}", show_appointment),
    web.get("/appointments/{id}/cancel", show_cancel),
    web.get("/appointments/{id}/reschedule", show_reschedule),
]

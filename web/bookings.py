"""Booking in full: one appointment or a series of them, for oneself or on a supervisee's behalf."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from aiohttp import web

from supervision import appointments, hours, pairs, repetitions, series
from supervision.appointments import Appointment
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Status
from supervision.pairs import Pair
from supervision.people import Person
from supervision.repetitions import Repetition
from supervision.series import Booked, Series
from web import dashboard, fields, pages, problems, views
from web.changes import Change, carry_out
from web.repeats import Answer
from web.state import database, now, own_pair, person, visitor

DAYS_LISTED = 28
Frequency = Literal["weekly", "fortnightly", "monthly"]
FREQUENCIES: dict[str, Frequency] = {"weekly": "weekly", "fortnightly": "fortnightly", "monthly": "monthly"}


@dataclass(frozen=True)
class Wish:
    """What a form asks for. Without a repetition it is one appointment."""

    starts_at: datetime
    ends_at: datetime | None
    length: int | None
    repetition: Repetition | None
    skip: bool


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """The free times of four weeks to choose from, how to repeat them, and for a supervisor any other time."""
    me, at = person(request), now(request)
    typed = fields.typed_of(request)
    wanted = typed["pair_id"] or request.query.get("pair", "")
    async with database(request).transaction() as tx:
        known = await pairs.list_of(tx, me.id)
        if not known:
            raise NotFound("refused.pair_not_found")
        pair = next((one for one in known if str(one.id) == wanted), known[0])
        first = views.read_day(request.query.get("from", ""))
        length = fields.read_length(typed["length"] or request.query.get("length", ""))
        choice = await views.choices(tx, pair, me, first, now=at, length=length, days=DAYS_LISTED)
    return pages.render(
        request,
        "book.html",
        status=problems.status_of(refused) if refused else 200,
        alert=refused,
        pair=pair,
        other=pair.other(me.id),
        others=[(one, one.other(me.id)) for one in known],
        supervises=pair.supervisor.id == me.id,
        choice=choice,
        typed=typed,
        repeat=typed["repeat"] or request.query.get("repeat", ""),
        home=_home(me, pair),
    )


async def book(request: web.Request) -> web.Response:
    me = person(request)
    try:
        pair_id = dashboard.read_id(fields.text_of(request, "pair_id"))
    except NotFound as refused:  # before anything of it reaches the audit
        return await page(request, refused)

    async def act(tx: Transaction) -> Appointment | Booked:
        pair, wish = await own_pair(tx, request, pair_id), read_wish(request, me)
        return await carry_out_wish(tx, request, pair, wish)

    def answer(done: Appointment | Booked) -> Answer:
        if isinstance(done, Booked):
            return pages.see(f"/series/{done.series_id}", "series")
        if done.supervisor_id == me.id:
            return pages.see("/supervisor", "booked_for")
        return pages.see("/appointments", "requested" if done.status is Status.REQUESTED else "booked")

    change = Change("appointment.book", "pair", pair_id, act)
    try:
        return pages.respond(await carry_out(request, change, answer, fields.repeat_of(request)))
    except Refused as refused:
        return await page(request, refused)


async def carry_out_wish(tx: Transaction, request: web.Request, pair: Pair, wish: Wish) -> Appointment | Booked:
    actor, at = visitor(request).actor, now(request)
    if wish.repetition is None:
        length = None if wish.ends_at else wish.length
        return await appointments.book(tx, actor, pair, wish.starts_at, now=at, ends_at=wish.ends_at, length=length)
    local = repetitions.wall_clock(wish.starts_at, pair.supervisor.zone)
    rule = repetitions.rule_of(wish.repetition, local)
    return await series.book(tx, actor, pair, wish.starts_at, rule, skip=wish.skip, now=at, length=wish.length)


def read_wish(request: web.Request, me: Person) -> Wish:
    starts_at, ends_at = fields.read_time(request, me)
    return Wish(
        starts_at,
        ends_at,
        fields.read_length(fields.text_of(request, "length")),
        read_repetition(request),
        bool(fields.text_of(request, "skip")),
    )


def read_repetition(request: web.Request) -> Repetition | None:
    """How often and until when. Raises NotUnderstood where both ends are typed, or none, or an end of nothing."""
    frequency = FREQUENCIES.get(fields.text_of(request, "repeat"))
    count, until = fields.read_optional_number(request, "count"), fields.read_optional_day(request, "until")
    if frequency is None:
        if count is not None or until is not None:
            raise NotUnderstood("web.refused.series_frequency")
        return None
    if (count is None) == (until is None):
        raise NotUnderstood("web.refused.series_end")
    return Repetition(frequency, count, until)


async def show_series(request: web.Request) -> web.Response:
    """A series of the person's own: what was booked and how it stands, and what was left out."""
    me, at = person(request), now(request)
    series_id = dashboard.path_id(request)
    async with database(request).transaction() as tx:
        found = await series.of(tx, visitor(request).actor, series_id)
        pair = await pairs.get(tx, found.pair_id)
        booked = await series.occurrences(tx, found.id)
    rows = views.rows(me, [pair], booked, at)
    return pages.render(
        request,
        "series.html",
        other=pair.other(me.id),
        rows=rows,
        left_out=left_out(found, booked),
        changeable=next((row for row in rows if row.changeable), None),
        answerable=next((row for row in rows if row.asked), None),
        home=_home(me, pair),
    )


def left_out(found: Series, booked: list[Appointment]) -> list[tuple[datetime, datetime]]:
    """The rule's occurrences that were never booked, each as its start and end."""
    zone = ZoneInfo(found.time_zone)
    lasts = found.ends_at - found.starts_at
    known = {one.series_at for one in booked}
    clocks = repetitions.expand(found.rule, repetitions.wall_clock(found.starts_at, zone))
    instants = [hours.to_instant(local.date(), local.time(), zone) for local in clocks]
    return [(at, at + lasts) for at in instants if at is not None and at not in known]


def _home(me: Person, pair: Pair) -> str:
    return "/supervisor" if pair.supervisor.id == me.id else "/appointments"


ROUTES = [
    web.get("/book", show),
    web.post("/book", book),
    web.get("/series/{id}", show_series),
]

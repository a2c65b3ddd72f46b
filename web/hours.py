"""A supervisor's own page: her weekly hours, the days on which they do not hold, and the rules for booking."""

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import date

from aiohttp import web
from babel.dates import get_day_names

from supervision import availability, policies, public_holidays
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.hours import Availability, DatedException
from supervision.models import Exceptional, Role
from supervision.texts import Reader
from web import fields, pages, problems
from web.changes import Change, carry_out
from web.dashboard import path_id
from web.state import database, now, parts, person, visitor

HOME = "/hours"
HOLIDAYS_SHOWN = 4
# Fields that are lengths of time, and what their label says; the horizon alone counts days.
DURATIONS = {
    "length": "web.rule.length",
    "grid": "web.rule.grid",
    "buffer_before": "web.rule.buffer_before",
    "buffer_after": "web.rule.buffer_after",
    "notice": "web.rule.notice",
    "move_notice": "web.rule.move_notice",
    "cancel_notice": "web.rule.cancel_notice",
    "answer": "web.rule.answer",
    "offer": "web.rule.offer",
    "horizon": "web.rule.horizon",
}
LIMITS = {"day_limit": "web.rule.day_limit", "week_limit": "web.rule.week_limit"}

Act = Callable[[Transaction, Actor, uuid.UUID], Awaitable[object]]


async def show(request: web.Request) -> web.Response:
    return await page(request)


async def page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """All of it, or what was refused above it, with what was typed still there."""
    me, at = person(request, Role.SUPERVISOR), now(request)
    reader = visitor(request).reader
    async with database(request).transaction() as tx:
        try:
            rules, new = await availability.load(tx, me.id), False
        except NotFound:
            rules, new = Availability(()), True
    today = at.astimezone(me.zone).date()
    countries = await asyncio.to_thread(list_countries)
    return pages.render(
        request,
        "hours.html",
        status=problems.status_of(refused) if refused else 200,
        alert=name_rule(refused, reader) if refused else None,
        rules=rules,
        new=new,
        weekdays=[(f"day{number}", name, show_ranges(rules, number)) for number, name in name_days(reader)],
        durations=[(name, label, show_duration(rules, name, reader)) for name, label in DURATIONS.items()],
        limits=[(name, label, getattr(rules, name) or "") for name, label in LIMITS.items()],
        exceptions=coming_exceptions(rules, today),
        countries=sorted((reader.locale.territories.get(code, code), code) for code in countries),
        subdivisions=await asyncio.to_thread(name_subdivisions, rules.country) if rules.country else {},
        holidays=coming_holidays(rules, today),
        given=_given(request),
    )


async def save_hours(request: web.Request) -> web.Response:
    async def act(tx: Transaction, actor: Actor, me: uuid.UUID) -> object:
        hours = [
            one for number in range(7) for one in fields.read_ranges(fields.text_of(request, f"day{number}"), number)
        ]
        changes = {
            "hours": tuple(hours),
            "valid_from": fields.read_optional_day(request, "valid_from"),
            "valid_until": fields.read_optional_day(request, "valid_until"),
        }
        return await _settle(tx, request, actor, me, changes)

    return await _change(request, "availability.save", act)


async def save_rules(request: web.Request) -> web.Response:
    async def act(tx: Transaction, actor: Actor, me: uuid.UUID) -> object:
        changes: dict[str, object] = {name: read_duration(request, name) for name in DURATIONS}
        changes |= {name: fields.read_optional_number(request, name) for name in LIMITS}
        changes |= {name: fields.text_of(request, name) for name in ("approval", "mode", "place")}
        return await _settle(tx, request, actor, me, changes)

    return await _change(request, "availability.save", act)


async def save_holidays(request: web.Request) -> web.Response:
    async def act(tx: Transaction, actor: Actor, me: uuid.UUID) -> object:
        country, part = (fields.text_of(request, name) or None for name in ("country", "subdivision"))
        if country is None or fields.text_of(request, "shown_country") != country:
            part = None  # it was chosen from another country's list
        return await _settle(tx, request, actor, me, {"country": country, "subdivision": part})

    return await _change(request, "availability.save", act)


async def add_exception(request: web.Request) -> web.Response:
    async def act(tx: Transaction, actor: Actor, me: uuid.UUID) -> object:
        return await availability.add_exception(tx, actor, me, read_exception(request), now=now(request))

    return await _change(request, "availability.add_exception", act)


async def remove_exception(request: web.Request) -> web.Response:
    exception_id = path_id(request)

    async def act(tx: Transaction, actor: Actor, me: uuid.UUID) -> object:
        await availability.remove_exception(tx, actor, me, exception_id, now=now(request))
        return exception_id

    return await _change(request, "availability.remove_exception", act)


async def _settle(
    tx: Transaction, request: web.Request, actor: Actor, me: uuid.UUID, changes: Mapping[str, object]
) -> Availability:
    template = parts(request).config.calls.template
    return await policies.set_rules(tx, actor, me, changes, now=now(request), template=template)


async def _change(request: web.Request, action: str, act: Act) -> web.Response:
    me, actor = person(request, Role.SUPERVISOR), visitor(request).actor
    change = Change(action, "person", me.id, lambda tx: act(tx, actor, me.id))
    try:
        answer = await carry_out(request, change, lambda _: pages.see(HOME, "saved"), fields.repeat_of(request))
    except Refused as refused:
        return await page(request, refused)
    return pages.respond(answer)


def read_exception(request: web.Request) -> DatedException:
    """Time off unless extra hours are chosen; without a last day it is one day."""
    kind = Exceptional.EXTRA_HOURS if fields.text_of(request, "kind") == "extra_hours" else Exceptional.TIME_OFF
    first = fields.read_day(request, "first_on")
    return DatedException(
        uuid.uuid4(),
        kind,
        first,
        fields.read_optional_day(request, "last_on") or first,
        fields.read_optional_clock(request, "starts"),
        fields.read_optional_clock(request, "ends"),
        bool(fields.text_of(request, "yearly")),
    )


def read_duration(request: web.Request, name: str) -> int:
    """In minutes; the horizon in whole days, which it means without a unit too."""
    text = fields.text_of(request, name)
    if name != "horizon":
        return fields.read_minutes(text)
    days, rest = divmod(fields.read_minutes(text, "d"), 1440)
    if rest:
        raise NotUnderstood("web.refused.duration", text=text[:20])
    return days


def show_duration(rules: Availability, name: str, reader: Reader) -> str:
    value = getattr(rules, name)
    return reader.duration(value * 1440 if name == "horizon" else value)


def show_ranges(rules: Availability, weekday: int) -> str:
    """`09:00–12:00, 14:00–18:00`."""
    ranges = sorted(one for one in rules.hours if one.weekday == weekday)
    return ", ".join(f"{one.starts:%H:%M}–{one.ends:%H:%M}" for one in ranges)


def name_days(reader: Reader) -> list[tuple[int, str]]:
    names = get_day_names("wide", locale=reader.locale)
    return [(number, names[number]) for number in range(7)]


def name_rule(refused: Refused, reader: Reader) -> Refused:
    """The same refusal, naming a rule and its bounds as the page does."""
    name = str(refused.params.get("name"))
    label = (DURATIONS | LIMITS).get(name)
    if refused.key != "refused.out_of_range" or label is None:
        return refused
    bounds = {bound: refused.params[bound] for bound in ("least", "most")}
    if name in DURATIONS:
        unit = 1440 if name == "horizon" else 1
        bounds = {bound: reader.duration(int(str(value)) * unit) for bound, value in bounds.items()}
    return type(refused)(refused.key, name=reader.say(label), **bounds)


def _given(request: web.Request) -> Callable[[str, object], object]:
    """What a field shows: what was typed into it, if its form was sent, or what is stored."""
    typed = fields.typed_of(request)
    return lambda name, stored: typed[name] if name in typed else stored


def coming_exceptions(rules: Availability, today: date) -> list[DatedException]:
    """Those that are not over for good."""
    return [one for one in rules.exceptions if one.yearly or one.last_on >= today]


def coming_holidays(rules: Availability, today: date) -> list[date]:
    """The next few public holidays of this year and the next; none where no country is settled."""
    if rules.country is None:
        return []
    years = (public_holidays.of_year(rules.country, rules.subdivision, today.year + ahead) for ahead in (0, 1))
    return sorted(day for year in years for day in year if day >= today)[:HOLIDAYS_SHOWN]


@functools.cache
def list_countries() -> tuple[str, ...]:
    """The countries (ISO 3166-1) whose public holidays are known."""
    import holidays  # takes half a second, which only this page should pay

    return tuple(code for code in holidays.list_supported_countries(include_aliases=False) if len(code) == 2)


def name_subdivisions(country: str) -> dict[str, str]:
    """Its states, provinces and cities with holidays of their own: code and name."""
    import holidays

    try:
        named = holidays.country_holidays(country).get_subdivision_aliases()
    except NotImplementedError:
        return {}
    return {code: names[0] if names else code for code, names in named.items()}


ROUTES = [
    web.get(HOME, show),
    web.post(HOME, save_hours),
    web.post(f"{HOME}/rules", save_rules),
    web.post(f"{HOME}/holidays", save_holidays),
    web.post(f"{HOME}/exceptions", add_exception),
    web.post(f"{HOME}/exceptions/{{id}}/remove", remove_exception),
]

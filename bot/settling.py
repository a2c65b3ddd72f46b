"""What holds for a pair, shown to both; and changed by the supervisor, who agrees to each change by a code.

A change is tried first and taken back, so that what makes no sense is refused before a code is asked for, and the
question can show what would be different.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import groupby
from typing import Any

from bot import codes, customs, whens
from bot.allowances import RoomChange
from bot.commands import Availability as Hours
from bot.commands import Settings
from bot.measures import DAY, Change, Extra, Normal, Off, Validity, Weekly
from bot.replies import Line, Reply, say
from bot.talks import Talk
from bot.whens import When
from supervision import availability, pairs, policies, rooms
from supervision.errors import NotAllowed, NotFound, NotUnderstood
from supervision.hours import Availability, DatedException, WeeklyRange
from supervision.models import Approval, Exceptional, Mode, Question
from supervision.policies import Policies
from supervision.rooms import RoomSettings
from supervision.texts import Minutes, Reader, reader

SHOWN_EXCEPTIONS = 8
OF_THE_PAIR = ("approval", "lengths")
DAYS = ("valid_from", "valid_until", "expires_on")
A_DAY = timedelta(days=1)
LONGEST_VALIDITY = timedelta(days=300)
LAST_MINUTE = time(23, 59)


async def settings(talk: Talk, command: Settings) -> Reply:
    """The pair's policies; a change of one, to be agreed to; or the agreement."""
    if command.change is None and command.code is None:
        found = await policies.of(talk.tx, talk.pair)
        head = Line("settings.head", {"supervisee": talk.pair.supervisee.name, "supervisor": talk.pair.supervisor.name})
        foot = (Line("settings.foot"), Line("settings.foot_room")) if talk.supervises else ()
        return Reply((head, *_policies(talk, found), *await _room(talk), *foot))
    _require_supervisor(talk)
    if command.change is None:
        return await _agree(talk, command.code or "")
    details = _change_of(command.change, _today(talk))
    key = {"pair": "settings.ask_pair", "room": "settings.ask_room"}.get(details["act"], "settings.ask_all")
    return await _ask(talk, details, key, "settings")


async def hours(talk: Talk, command: Hours) -> Reply:
    """The weekly hours and what differs from them; a change, to be agreed to; or the agreement."""
    if command.change is None and command.code is None:
        rules = await availability.load(talk.tx, talk.pair.supervisor.id)
        says = reader(talk.person.language, talk.pair.supervisor.time_zone)
        head = Line("hours.head", {"supervisor": talk.pair.supervisor.name, "city": says.city()})
        foot = (Line("hours.foot"),) if talk.supervises else ()
        return Reply((head, *_hours(talk, rules, most=SHOWN_EXCEPTIONS), *foot))
    _require_supervisor(talk)
    if command.change is None:
        return await _agree(talk, command.code or "")
    return await _ask(talk, _change_of_hours(command.change, _today(talk)), "settings.ask_all", "availability")


def _today(talk: Talk) -> date:
    return talk.now.astimezone(talk.person.zone).date()


def _require_supervisor(talk: Talk) -> None:
    if not talk.supervises:
        raise NotAllowed("refused.supervisor_settles")


async def _ask(talk: Talk, details: dict[str, Any], key: str, word: str) -> Reply:
    """What would be different, line by line, and the code that agrees to it."""
    before = await _lines(talk, details)
    settled = await _settled(talk)
    trial = await talk.tx.begin_nested()
    try:
        await _apply(talk, details)
        after = await _lines(talk, details)
        goes = customs.removal_line(talk.says, rooms.removal(settled, await _settled(talk), now=talk.now))
    finally:
        await trial.rollback()
    gone = [line for line in before if line not in after]
    come = [line for line in after if line not in before]
    if not gone and not come:
        return say("settings.same")
    ask = await codes.ask(talk, Question.CONFIRM_SETTINGS, details)
    was = (Line("settings.now"), *gone) if gone else ()
    will = (Line("settings.then"), *come) if come else ()
    booked = (Line("hours.booked_stays"),) if details.get("kind") == Exceptional.TIME_OFF else ()
    return Reply((*was, *will, *goes, Line(key), *booked, Line(f"{word}.ask", {"code": ask.code})), ask)


async def _agree(talk: Talk, code: str) -> Reply:
    asked = await codes.agree(talk, Question.CONFIRM_SETTINGS, code)
    if isinstance(asked, Reply):
        return asked
    before, settled = await _lines(talk, asked.details), await _settled(talk)
    await _apply(talk, asked.details)
    come = [line for line in await _lines(talk, asked.details) if line not in before]
    goes = customs.removal_line(talk.says, rooms.removal(settled, await _settled(talk), now=talk.now))
    return Reply((Line("settings.done"), *come, *goes))


async def _settled(talk: Talk) -> RoomSettings:
    return await rooms.of(talk.tx, talk.pair.id, talk.rooms)


async def _room(talk: Talk) -> list[Line]:
    return customs.lines_of(talk.says, await _settled(talk), talk.unread_minutes)


async def _lines(talk: Talk, details: Mapping[str, Any]) -> list[Line]:
    """All that this change can make different; nothing where the supervisor has no rules yet."""
    if details["act"] == "room":
        return await _room(talk)
    pair = await pairs.get(talk.tx, talk.pair.id)
    try:
        found = await policies.of(talk.tx, pair)
    except NotFound:
        return []
    for_all = _for_all(found) if details["act"] == "rules" else []
    return [*_policies(talk, found), *for_all, *_hours(talk, found.rules)]


def _for_all(found: Policies) -> list[Line]:
    """What is hers for all, where this pair has something else."""
    rules = found.rules
    asks = "settings.automatic_for_all" if rules.approval is Approval.AUTOMATIC else "settings.approval_for_all"
    length = Line("settings.length_for_all", {"minutes": Minutes(rules.length)})
    return [*([Line(asks)] if found.own_approval else []), *([length] if found.own_lengths else [])]


def _change_of(change: Change | RoomChange, today: date) -> dict[str, Any]:
    """A policy as it is kept with the question: names of the domain, and numbers, until the code is typed."""
    if isinstance(change, RoomChange):
        return _change_of_room(change, today)
    value = change.value
    match change.name, value:
        case name, _ if name in OF_THE_PAIR:
            return {"act": "pair", name: list(value) if isinstance(value, tuple) else value}
        case "buffer", (after,):
            return _rules(buffer_after=after)
        case "buffer", (before, after):
            return _rules(buffer_before=before, buffer_after=after)
        case "approval_for_all", str():
            return _rules(approval=value)
        case _, Validity():
            return _rules(**_validity(value, today))
        case "holidays", str():
            country, _, subdivision = value.partition(" ")
            return _rules(country=country or None, subdivision=subdivision or None)
        case name, _:
            return _rules(**{name: value})


def _change_of_room(change: RoomChange, today: date) -> dict[str, Any]:
    value = change.value
    if isinstance(value, When):
        value = whens.days_of(whens.Period(value), today)[1].isoformat()
    return {"act": "room", "changes": {change.name: value}}


def _validity(value: Validity, today: date) -> dict[str, str | None]:
    """The days as they are kept with the question, in ISO 8601; both None for hours without a first or last day."""
    since = until = None
    if value.since is not None:
        since, until = whens.days_of(whens.Period(value.since, value.until), today, longest=LONGEST_VALIDITY)
    elif value.until is not None:
        until = whens.days_of(whens.Period(value.until), today)[1]
    if value.until is None:
        until = None
    return {name: day.isoformat() if day else None for name, day in (("valid_from", since), ("valid_until", until))}


def _rules(**changes: object) -> dict[str, Any]:
    return {"act": "rules", "changes": changes}


def _change_of_hours(change: Weekly | Off | Extra | Normal, today: date) -> dict[str, Any]:
    if isinstance(change, Weekly):
        return {"act": "weekly", "weekdays": list(change.weekdays), "hours": [*map(list, change.hours)]}
    first_on, last_on = whens.days_of(change.period, today)
    details: dict[str, Any] = {"first_on": first_on.isoformat(), "last_on": last_on.isoformat()}
    if isinstance(change, Normal):
        return {"act": "normal", **details}
    kind = Exceptional.TIME_OFF if isinstance(change, Off) else Exceptional.EXTRA_HOURS
    return {"act": "except", "kind": kind, "hours": [*map(list, change.hours)], "yearly": change.yearly, **details}


async def _apply(talk: Talk, details: Mapping[str, Any]) -> None:
    """Carry out a change as the question keeps it. Raises Refused for what makes no sense."""
    match details["act"]:
        case "pair":
            await _settle_pair(talk, details)
        case "room":
            changes = {name: _value_of(name, value) for name, value in details["changes"].items()}
            await rooms.settle(talk.tx, talk.actor, talk.pair.id, changes, talk.rooms, now=talk.now)
        case "rules":
            changes = {name: _value_of(name, value) for name, value in details["changes"].items()}
            await policies.set_rules(talk.tx, talk.actor, talk.person.id, changes, now=talk.now, template=talk.template)
        case "weekly":
            await _settle_week(talk, details)
        case "except":
            for exception in _exceptions_of(details):
                await availability.add_exception(talk.tx, talk.actor, talk.person.id, exception, now=talk.now)
        case _:
            await _make_normal(talk, *_days(details))


def _value_of(name: str, value: object) -> object:
    """A rule's value out of what the question keeps of it."""
    return date.fromisoformat(value) if name in DAYS and isinstance(value, str) else value


async def _settle_pair(talk: Talk, details: Mapping[str, Any]) -> None:
    pair = await pairs.get(talk.tx, talk.pair.id)
    approval = details.get("approval", pair.approval)
    await policies.set_pair(
        talk.tx,
        talk.actor,
        pair.id,
        lengths=details.get("lengths", pair.lengths),
        approval=None if approval is None else Approval(approval),
        now=talk.now,
    )


async def _settle_week(talk: Talk, details: Mapping[str, Any]) -> None:
    """New hours for some weekdays; those of the others stay."""
    try:
        kept = (await availability.load(talk.tx, talk.person.id)).hours
    except NotFound:
        kept = ()
    changed = [one for one in kept if one.weekday not in details["weekdays"]]
    for weekday in details["weekdays"]:
        changed += [WeeklyRange(weekday, *_clocks(one)) for one in details["hours"]]
    rules = {"hours": tuple(sorted(changed))}
    await policies.set_rules(talk.tx, talk.actor, talk.person.id, rules, now=talk.now, template=talk.template)


def _exceptions_of(details: Mapping[str, Any]) -> list[DatedException]:
    kind, days, yearly = Exceptional(details["kind"]), _days(details), bool(details["yearly"])
    clocks: list[tuple[time, time] | tuple[None, None]] = [*map(_clocks, details["hours"])] or [(None, None)]
    return [DatedException(uuid.uuid4(), kind, *days, starts, ends, yearly) for starts, ends in clocks]


async def _make_normal(talk: Talk, first_on: date, last_on: date) -> None:
    """Take these days out of every exception: what lies before and after them stays, what is yearly goes whole."""
    rules = await availability.load(talk.tx, talk.person.id)
    found = [one for one in rules.exceptions if any(one.occurrences(first_on, last_on))]
    if not found:
        raise NotFound("hours.nothing_to_remove")
    for one in found:
        await availability.remove_exception(talk.tx, talk.actor, talk.person.id, one.id, now=talk.now)
    for left in (rest for one in found if not one.yearly for rest in _rests(one, first_on, last_on)):
        await availability.add_exception(talk.tx, talk.actor, talk.person.id, left, now=talk.now)


def _rests(one: DatedException, first_on: date, last_on: date) -> Iterable[DatedException]:
    if one.first_on < first_on:
        yield replace(one, id=uuid.uuid4(), last_on=first_on - A_DAY)
    if one.last_on > last_on:
        yield replace(one, id=uuid.uuid4(), first_on=last_on + A_DAY)


def _days(details: Mapping[str, Any]) -> tuple[date, date]:
    return date.fromisoformat(details["first_on"]), date.fromisoformat(details["last_on"])


def _clocks(minutes: Sequence[int]) -> tuple[time, time]:
    """Wall-clock times of minutes after midnight; the day's end is its last minute, as no range goes beyond it."""
    starts, ends = (LAST_MINUTE if one == DAY else time(*divmod(one, 60)) for one in minutes)
    if starts >= ends:
        raise NotUnderstood("refused.hours_backwards")
    return starts, ends


def _policies(talk: Talk, found: Policies) -> list[Line]:
    """About ten short lines, of what both have to know."""
    rules = found.rules
    names = {"supervisor": talk.pair.supervisor.name}
    approval = "settings.automatic" if found.approval is Approval.AUTOMATIC else "settings.approval"
    lengths = ", ".join(map(str, found.lengths))
    lines = [
        Line(approval, {**names, "minutes": Minutes(rules.answer)}),
        Line("settings.lengths", {"lengths": lengths}),
        _notice("settings.notice", rules.notice),
        _notice("settings.cancel_notice", rules.cancel_notice),
        _notice("settings.move_notice", rules.move_notice),
        Line("settings.horizon", {"days": Minutes(rules.horizon * DAY)}),
        _limits(rules),
        _buffer(rules),
        Line("settings.grid", {"minutes": Minutes(rules.grid)}),
        Line("settings.offer", {"minutes": Minutes(rules.offer)}),
    ]
    mode = "settings.online" if rules.mode is Mode.ONLINE else "settings.in_person"
    return [*lines, Line(f"{mode}_place", {"place": _place(talk, rules.place)}) if rules.place else Line(mode)]


def _notice(key: str, minutes: int) -> Line:
    return Line(key, {"minutes": Minutes(minutes)}) if minutes else Line(f"{key}_none")


def _limits(rules: Availability) -> Line:
    limits = {"day": rules.day_limit, "week": rules.week_limit}
    return _by_parts("settings.limits", {name: limit for name, limit in limits.items() if limit is not None})


def _buffer(rules: Availability) -> Line:
    buffers = {"before": rules.buffer_before, "after": rules.buffer_after}
    return _by_parts("settings.buffer", {name: Minutes(one) for name, one in buffers.items() if one})


def _by_parts(key: str, parts: Mapping[str, object]) -> Line:
    """The sentence for what there is of two: for both, for either, or for none."""
    named = key if len(parts) == 2 else f"{key}_{next(iter(parts), 'none')}"
    return Line(named, dict(parts))


def _place(talk: Talk, place: str) -> str:
    """A place, or that each appointment gets its own where it holds `{room}`."""
    if "{room}" not in place:
        return place
    return talk.says.say("settings.own_address", place=place.replace("{room}", "…"))


def _hours(talk: Talk, rules: Availability, most: int | None = None) -> list[Line]:
    """Weekly hours, what differs from them from today on, and the rule about holidays, in the supervisor's clock."""
    says = reader(talk.person.language, talk.pair.supervisor.time_zone)
    today = talk.now.astimezone(talk.pair.supervisor.zone).date()
    lines = _week(says, rules.hours) or [Line("hours.none")]
    if rules.valid_from is not None:
        lines.append(Line("hours.from", {"day": _dated(says, rules.valid_from, today)}))
    if rules.valid_until is not None:
        lines.append(Line("hours.until", {"day": _dated(says, rules.valid_until, today)}))
    coming = sorted(
        (one for one in rules.exceptions if one.yearly or one.last_on >= today), key=lambda one: one.first_on
    )
    lines += [_exception(says, one, today) for one in coming[:most]]
    if most is not None and len(coming) > most:
        lines.append(Line("list.more", {"count": len(coming) - most}))
    if rules.country is None:
        return [*lines, Line("hours.holidays_none")]
    where = str(says.locale.territories.get(rules.country, rules.country))
    part = f" ({rules.subdivision})" if rules.subdivision else ""
    return [*lines, Line("hours.holidays", {"where": f"{where}{part}"})]


def _week(says: Reader, found: Sequence[WeeklyRange]) -> list[Line]:
    """`seg.–sex. 09:00–12:00, 14:00–18:00`: following days with the same hours are one line."""
    names = says.locale.days["format"]["abbreviated"]
    by_day = [
        (weekday, ", ".join(f"{one.starts:%H:%M}–{one.ends:%H:%M}" for one in sorted(found) if one.weekday == weekday))
        for weekday in range(7)
    ]
    lines: list[Line] = []
    for told, group in groupby(by_day, key=lambda one: one[1]):
        days = [weekday for weekday, _ in group]
        if told:
            shown = names[days[0]] if len(days) == 1 else f"{names[days[0]]}–{names[days[-1]]}"
            lines.append(Line("hours.week", {"days": shown, "hours": told}))
    return lines


def _exception(says: Reader, one: DatedException, today: date) -> Line:
    if one.yearly:
        first, last = (_in_a_year(says, day) for day in (one.first_on, one.last_on))
    else:
        first, last = (_dated(says, day, today) for day in (one.first_on, one.last_on))
    days = first if first == last else f"{first} – {last}"
    if one.starts is not None and one.ends is not None:
        days += f", {one.starts:%H:%M}–{one.ends:%H:%M}"
    return Line(f"hours.{one.kind}{'_yearly' if one.yearly else ''}", {"days": days})


def _dated(says: Reader, day: date, today: date) -> str:
    """With the weekday, and with the year where it is not this one's."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=says.zone)
    return says.day(noon) if day.year == today.year else says.day_of_year(noon)


def _in_a_year(says: Reader, day: date) -> str:
    """The day and month alone: a yearly day is another weekday each time."""
    if says.language == "pt-BR":
        return f"{day:%d/%m}"
    return f"{day.day} {says.locale.months['format']['abbreviated'][day.month]}"

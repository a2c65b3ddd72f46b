"""A person's own time zone: how times are shown to them. No appointment moves by it.

Whoever has weekly hours set them by her own clock; so they would be at other times for everybody else, and a typed code
has to agree to that.
"""

from datetime import datetime, timedelta

from bot import codes, places
from bot.commands import TimeZone
from bot.replies import Line, Reply, say
from bot.talks import Talk
from supervision import availability, pairs, people, queries
from supervision.errors import NotFound
from supervision.hours import WeeklyRange
from supervision.models import Question
from supervision.texts import Reader, reader

A_WEEK = 7


async def settle(talk: Talk, command: TimeZone) -> Reply:
    """Show the zone, change it, or ask first; with the next appointment in the new one."""
    if command.code is not None:
        asked = await codes.agree(talk, Question.CONFIRM_ZONE, command.code)
        return asked if isinstance(asked, Reply) else await _change(talk, asked.details["zone"])
    if command.text is None:
        return say("timezone.now", city=talk.city(), time=talk.says.clock(talk.now))
    zone = places.find(command.text)
    if zone is None:
        close = places.near(command.text, talk.person.language)
        return say("timezone.near", cities=", ".join(close)) if close else say("timezone.unknown")
    new = _says(talk, zone)
    if zone == talk.person.time_zone:
        return say("timezone.same", city=new.city(), time=new.clock(talk.now))
    hours = await _hours(talk)
    return await _ask(talk, new, hours) if hours else await _change(talk, zone)


async def _ask(talk: Talk, new: Reader, hours: tuple[WeeklyRange, ...]) -> Reply:
    """What would become of her weekly hours, by the first of them as an example."""
    ask = await codes.ask(talk, Question.CONFIRM_ZONE, {"zone": new.time_zone})
    starts = _next_start(talk, new, min(hours, key=lambda one: (one.weekday, one.starts)))
    told = {"city": new.city(), "was": talk.city(), "day": new.day(starts), "time": new.clock(starts)}
    return Reply(
        (
            Line("timezone.hours", {**told, "then": _clock(talk.says, new, starts)}),
            Line("timezone.booked_stays"),
            Line("timezone.ask", {"code": ask.code}),
        ),
        ask,
    )


async def _change(talk: Talk, zone: str) -> Reply:
    await people.set_time_zone(talk.tx, talk.actor, talk.person.id, zone, now=talk.now)
    pair = await pairs.get(talk.tx, talk.pair.id)
    new = _says(talk, zone)
    done = Line("timezone.set", {"city": new.city(), "time": new.clock(talk.now)})
    back = Line("timezone.back", {"was": talk.person.time_zone})
    coming = await queries.coming(talk.tx, talk.person.id, now=talk.now, pair_id=pair.id, most=1)
    nearest = [Line("timezone.next", {"span": talk.span(one.starts_at, one.ends_at)}) for one in coming]
    return Reply((done, *nearest, back), pair=pair)


async def _hours(talk: Talk) -> tuple[WeeklyRange, ...]:
    try:
        return (await availability.load(talk.tx, talk.person.id)).hours
    except NotFound:
        return ()


def _next_start(talk: Talk, new: Reader, first: WeeklyRange) -> datetime:
    """When those hours would begin next, by the new zone's clock."""
    today = talk.now.astimezone(new.zone).date()
    day = today + timedelta(days=(first.weekday - today.weekday()) % A_WEEK)
    return datetime.combine(day, first.starts, tzinfo=new.zone)


def _clock(was: Reader, new: Reader, at: datetime) -> str:
    return was.clock(at) if was.day(at) == new.day(at) else f"{was.day(at)}, {was.clock(at)}"


def _says(talk: Talk, zone: str) -> Reader:
    return reader(talk.person.language, zone).as_of(talk.now)

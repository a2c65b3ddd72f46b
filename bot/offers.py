"""Free times as numbered lists, and the one time that somebody means: what is booked or moved is picked here."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from bot import whens
from bot.replies import DIGITS, Ask, Line, Reply, say
from bot.talks import Talk
from bot.whens import Ranges, When
from supervision import availability, hours, questions
from supervision.appointments import A_MINUTE, Appointment
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.hours import Availability, Slot
from supervision.models import Question, Status
from supervision.pairs import Pair
from supervision.texts import Moments

COMING = timedelta(days=14)
SHOWN_SLOTS = len(DIGITS)
SHOWN_A_DAY = 3
SHOWN_INSTEAD = 4
FARTHEST = timedelta(days=366)  # the longest horizon that a supervisor can set
A_DAY = timedelta(days=1)
DAYTIME = range(7, 19)


@dataclass(frozen=True)
class Aim:
    """What a time is looked for.

    `minutes` is the length that was named; `moving` an appointment that would move there, with the `number` that it
    has in the person's list, and `details` what else is to be known of that when a number is picked. A list says
    `foot` at its end, and can be tapped, unless told otherwise.
    """

    minutes: int | None = None
    moving: Appointment | None = None
    number: int = 1
    foot: Line | None = None
    tappable: bool = True
    details: dict[str, Any] | None = None

    @property
    def moved(self) -> uuid.UUID | None:
        return self.moving.id if self.moving else None


@dataclass(frozen=True)
class Picked:
    """A start that was meant, and its length in minutes where one was named or shown."""

    starts_at: datetime
    minutes: int | None = None


BOOKING = Aim()


async def coming(talk: Talk, month: int | None = None, aim: Aim = BOOKING) -> Reply:
    """What is free in the coming days, or in the next month of that number."""
    since, until = (talk.now, talk.now + COMING) if month is None else _month(talk, month)
    free = await _free(talk, Ranges(((since, until),)), aim)
    if not free:
        key = "slots.none" if month is None else "slots.none_month"
        return say(key, supervisor=talk.pair.supervisor.name)
    return listed(talk, free, aim)


async def within(talk: Talk, when: When, aim: Aim = BOOKING) -> Reply:
    """What is free of the days and times that were said."""
    meant = whens.resolve(when, talk.now, talk.person.zone)
    return await choose(talk, meant if isinstance(meant, Ranges) else Ranges(tuple(map(whens.minute, meant.at))), aim)


async def picked(talk: Talk, number: int) -> Picked:
    """What a number of the list shown last stands for. Raises NotUnderstood where none was, or it is too old."""
    slots = (Question.PICK_SLOT,)
    shown = await questions.last(talk.tx, talk.person.id, talk.pair.id, *slots, now=talk.now, expired=True)
    if shown is None:
        raise NotUnderstood("book.no_list")
    if shown.expires_at <= talk.now:
        raise NotUnderstood("book.outdated")
    if number > len(shown.slots):
        raise NotFound("book.no_such_number", number=number)
    return Picked(shown.slots[number - 1], shown.details.get("minutes"))


async def pick(talk: Talk, what: int | When, aim: Aim = BOOKING) -> Picked | Reply:
    """The one time that is meant by a number or in words, or the list to choose from."""
    if isinstance(what, int):
        found = await picked(talk, what)
        return replace(found, minutes=aim.minutes) if aim.minutes else found
    return await meant(talk, what, aim)


async def meant(talk: Talk, when: When, aim: Aim = BOOKING) -> Picked | Reply:
    """The one start that was meant; or, where it could be another or none was named, the question which.

    A time that is not offered is answered with the nearest that are. Raises Refused where the rules forbid it for
    another reason.
    """
    said = whens.resolve(when, talk.now, talk.person.zone)
    rules = await availability.load(talk.tx, talk.pair.supervisor.id)
    if isinstance(said, Ranges):
        return await _meant_range(talk, said, rules, aim)
    offered = _on_offer(talk, said.at, rules, aim)
    if len(offered) == 1 and not said.unsure:
        return Picked(offered[0], aim.minutes)
    if offered:
        return await choose(talk, Ranges(tuple(map(whens.minute, offered))), aim)
    if talk.supervises:
        return _any_time(talk, said.at, rules, aim)
    likely = min(said.at, key=lambda at: at.astimezone(talk.person.zone).hour not in DAYTIME)
    try:
        _check(talk, likely, rules, aim)
    except NotFound:
        return await _instead(talk, likely, aim)
    return Picked(likely, aim.minutes)


def told_booked(talk: Talk, booked: Appointment) -> Reply:
    """What whoever booked is told: that it was asked for, that it stands, or that the other may say no."""
    span = talk.span(booked.starts_at, booked.ends_at)
    if booked.status is Status.REQUESTED:
        until = Moments((booked.answer_by or booked.starts_at,))
        return say("book.done", span=span, supervisor=talk.pair.supervisor.name, until=until)
    if booked.on_behalf:
        return say("book.on_behalf", span=span, supervisee=talk.pair.supervisee.name)
    return say("book.confirmed", span=span)


async def choose(talk: Talk, meant: Ranges, aim: Aim = BOOKING) -> Reply:
    """What is free of that, as a list to answer; or, where nothing is, what is free after it."""
    free = await _free(talk, meant, aim)
    if free:
        reply = listed(talk, free, aim)
        if len(free) > SHOWN_SLOTS:
            return replace(reply, lines=(*reply.lines, Line("slots.more")))
        return reply
    since = min(meant.ranges[0][0], talk.now + FARTHEST)
    for later in (Ranges(((since, since + COMING),)), Ranges(((talk.now, talk.now + COMING),))):
        free = await _free(talk, later, aim)
        if free:
            return listed(talk, free, aim, before=Line("slots.none_then"))
    return say("slots.none", supervisor=talk.pair.supervisor.name)


def listed(talk: Talk, free: Sequence[Slot], aim: Aim = BOOKING, *, before: Line | None = None) -> Reply:
    """A list of slots to pick from; `before` is said before it."""
    shown = _spread(talk, free)
    minutes = (shown[0].ends_at - shown[0].starts_at) // A_MINUTE
    ask = Ask(
        Question.PICK_SLOT,
        [slot.starts_at for slot in shown],
        appointment_id=aim.moved,
        tappable=aim.tappable,
        details={"minutes": minutes, **_bound(aim)},
    )
    lines = [
        Line(
            "slots.line",
            {"number": number, "span": talk.span(slot.starts_at, slot.ends_at, brief=True)},
        )
        for number, slot in enumerate(shown, start=1)
    ]
    return Reply((*([before] if before else []), _head(talk, aim), *lines, _foot(talk, aim, min(2, len(shown)))), ask)


def _bound(aim: Aim) -> dict[str, Any]:
    """What a number depends on: the appointment as it was when it was shown; that it can only be typed."""
    moving = {} if aim.moving is None else {"moving": aim.moving.revision}
    typed = {} if aim.tappable else {"typed": True}
    return {**moving, **typed, **(aim.details or {})}


def _head(talk: Talk, aim: Aim) -> Line:
    if talk.supervises and aim.moving is None:
        return Line("slots.supervisor", {"supervisee": talk.pair.supervisee.name, "city": talk.city()})
    return Line("slots.head", {"supervisor": talk.other.name, "city": talk.city()})


def _foot(talk: Talk, aim: Aim, example: int) -> Line:
    """How to answer; `example` is a number that the list has."""
    if aim.foot is not None:
        return Line(aim.foot.key, {**aim.foot.params, "example": example})
    if aim.moving is not None:
        return Line("slots.foot_move", {"number": aim.number, "example": example})
    if talk.supervises:
        return Line("slots.foot_on_behalf", {"supervisee": talk.pair.supervisee.name, "example": example})
    return Line("slots.foot", {"example": example})


def _spread(talk: Talk, free: Sequence[Slot]) -> list[Slot]:
    """At most ten; where there are more, at most three of a day, or its share of the ten, from first to last."""
    days: dict[date, list[Slot]] = {}
    for slot in free:
        days.setdefault(slot.starts_at.astimezone(talk.person.zone).date(), []).append(slot)
    share = max(SHOWN_A_DAY, SHOWN_SLOTS // max(1, len(days)))
    shown: list[Slot] = []
    for slots in days.values():
        step = max(1, (len(slots) - 1) / (share - 1))
        shown += [slots[int(place * step + 0.5)] for place in range(min(share, len(slots)))]
    return shown[:SHOWN_SLOTS]


async def _meant_range(talk: Talk, said: Ranges, rules: Availability, aim: Aim) -> Picked | Reply:
    """Where what was said is as long as an appointment can be, that time itself; else what is free of it."""
    lasting = {(until - since) // A_MINUTE for since, until in said.ranges}
    if aim.minutes is None and len(lasting) == 1 and lasting <= set(hours.lengths_of(_kept(talk, aim), rules)):
        exact = replace(aim, minutes=lasting.pop())
        free = await _free(talk, said, exact)
        filled = [slot.starts_at for slot in free if (slot.starts_at, slot.ends_at) in said.ranges]
        if len(filled) == 1:
            return Picked(filled[0], exact.minutes)
        if not filled and talk.supervises:
            return _any_time(talk, [since for since, _ in said.ranges], rules, exact)
    return await choose(talk, said, aim)


def _any_time(talk: Talk, instants: Sequence[datetime], rules: Availability, aim: Aim) -> Picked | Reply:
    """The supervisor may choose a time that she does not offer; which of several is asked back."""
    if len(instants) == 1:
        return Picked(instants[0], aim.minutes)
    lasts = _length(talk, rules, aim) * A_MINUTE
    return listed(talk, [Slot(at, at + lasts) for at in instants], aim, before=Line("slots.which_meant"))


async def _instead(talk: Talk, at: datetime, aim: Aim) -> Reply:
    """The times nearest to one that is not offered: of the same day, or of the days around it."""
    midnight = at.astimezone(talk.person.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    around = {
        "slots.not_offered_day": (midnight, midnight + A_DAY),
        "slots.not_offered_near": (at - COMING, at + COMING),
    }
    for key, range_ in around.items():
        free = await _free(talk, Ranges((range_,)), aim)
        if free:
            nearest = sorted(free, key=lambda slot: abs(slot.starts_at - at))[:SHOWN_INSTEAD]
            return listed(talk, sorted(nearest, key=lambda slot: slot.starts_at), aim, before=Line(key))
    raise NotFound("refused.slot_not_offered")


async def _free(talk: Talk, meant: Ranges, aim: Aim) -> list[Slot]:
    """What can be booked of that; without the present time of the appointment that would move."""
    since, until = meant.ranges[0][0], max(until for _, until in meant.ranges)
    free = await availability.slots(
        talk.tx,
        _kept(talk, aim),
        since=since,
        until=until,
        now=talk.now,
        moving=aim.moved,
        length=aim.minutes,
    )
    present = aim.moving.starts_at if aim.moving else None
    return [slot for slot in free if meant.fit(slot.starts_at) and slot.starts_at != present]


def _on_offer(talk: Talk, instants: Sequence[datetime], rules: Availability, aim: Aim) -> list[datetime]:
    """Those at which the supervisor can be booked by her rules, whether somebody has them already or not."""
    offered: list[datetime] = []
    for at in instants:
        with suppress(Refused):
            _check(talk, at, rules, aim)
            offered.append(at)
    return offered


def _check(talk: Talk, at: datetime, rules: Availability, aim: Aim) -> Slot:
    return hours.check_bookable(rules, talk.pair.supervisor.zone, at, now=talk.now, length=_length(talk, rules, aim))


def _length(talk: Talk, rules: Availability, aim: Aim) -> int:
    """In minutes. Raises NotUnderstood for one that is not the pair's."""
    return hours.check_length(_kept(talk, aim), rules, aim.minutes)


def _kept(talk: Talk, aim: Aim) -> Pair:
    """The pair, with the one length that an appointment keeps when it moves."""
    return replace(talk.pair, lengths=(aim.moving.length,)) if aim.moving else talk.pair


def _month(talk: Talk, month: int) -> tuple[datetime, datetime]:
    """The next such month in the person's zone, as `[start, end)`."""
    today = talk.now.astimezone(talk.person.zone)
    year = today.year + (month < today.month)
    first = datetime(year, month, 1, tzinfo=talk.person.zone)
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=talk.person.zone)
    return first, after

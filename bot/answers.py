"""Each command in its transaction: a believed command of one of the pair becomes a change or a list, and a reply."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from bot import commands, whens
from bot.commands import Command
from bot.replies import DIGITS, Ask, Line, Reply, say
from bot.whens import Ranges, When
from supervision import appointments, availability, pairs, people, queries, questions
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.availability import Slot
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Refused
from supervision.models import Question, Status
from supervision.pairs import Pair
from supervision.people import Person
from supervision.questions import Asked
from supervision.texts import Key, Span, reader

COMING = timedelta(days=14)
SHOWN_SLOTS = len(DIGITS)
SHOWN_A_DAY = 3
FARTHEST = timedelta(days=366)  # the longest horizon that a supervisor can set
DAYTIME = range(7, 19)
REPEATED = {None: "slots.line", 0: "slots.line_before", 1: "slots.line_after"}


@dataclass(frozen=True)
class Moving:
    """The appointment that a picked slot would move, and its number in the list."""

    number: int
    appointment_id: uuid.UUID


@dataclass(frozen=True)
class Talk:
    """One person of a pair, saying something in the pair's room, within a transaction."""

    tx: Transaction
    pair: Pair
    person: Person
    actor: Actor
    now: datetime
    dashboard: str

    @property
    def other(self) -> Person:
        return self.pair.other(self.person.id)

    @property
    def supervises(self) -> bool:
        return self.person.id == self.pair.supervisor.id

    def span(self, starts_at: datetime, ends_at: datetime, *, brief: bool = False) -> Span:
        return Span(starts_at, ends_at, self.other.time_zone, brief)

    def city(self) -> str:
        return reader(self.person.language, self.person.time_zone).city()


async def answer(talk: Talk, command: Command) -> Reply:
    """Do what a command asks. Raises Refused; then nothing may be committed of this transaction."""
    match command:
        case commands.Help():
            return _help()
        case commands.Slots(month, when):
            return await _slots(talk, month) if when is None else await _slots_within(talk, when)
        case commands.Book(what):
            return await _book(talk, what)
        case commands.Confirm(number):
            return await _confirm(talk, number)
        case commands.Decline(number):
            return await _decline(talk, number)
        case commands.Cancel(number, reason):
            return await _cancel(talk, number, reason)
        case commands.Reschedule(number, to):
            return await _reschedule(talk, number, to)
        case commands.Appointments():
            return await _list(talk)
        case commands.Dashboard():
            return say("dashboard.link", url=talk.dashboard)
        case commands.Language(language):
            return await _language(talk, language)
        case commands.Unknown():
            return say("unknown")
        case commands.Incomplete(name):
            return say(f"incomplete.{name}")


async def answer_tap(talk: Talk, asked: Asked, *, yes: bool | None, number: int | None) -> Reply | None:
    """Do what a reaction under one of our questions asks; `number` counts from 1. None for a key it does not offer.

    A request is answered without a reply: the news of it, in the same room, tells both.
    """
    match asked.kind:
        case Question.ANSWER_REQUEST if yes is not None and asked.appointment_id is not None:
            change = appointments.confirm if yes else appointments.decline
            await questions.answer(talk.tx, asked, now=talk.now)
            await change(talk.tx, talk.actor, asked.appointment_id, now=talk.now, if_revision=asked.revision)
            return Reply(())
        case Question.PICK_SLOT if number is not None and number <= len(asked.slots):
            await questions.answer(talk.tx, asked, now=talk.now)
            starts_at = asked.slots[number - 1]
            if asked.appointment_id is not None:
                return await _move(talk, asked.appointment_id, starts_at)
            return await _request(talk, starts_at)
    return None


def _help() -> Reply:
    return Reply((Line("help.head"), *(Line(f"help.{name}") for name in commands.WORDS)))


async def _slots(talk: Talk, month: int | None) -> Reply:
    since, until = (talk.now, talk.now + COMING) if month is None else _month(talk, month)
    free = await availability.slots(talk.tx, talk.pair, since=since, until=until, now=talk.now)
    if not free:
        key = "slots.none" if month is None else "slots.none_month"
        return say(key, supervisor=talk.pair.supervisor.name)
    return _offer(talk, free)


def _offer(talk: Talk, free: Sequence[Slot], moving: Moving | None = None, *, before: Line | None = None) -> Reply:
    """A list of slots to pick from; `before` is said before it."""
    shown = _spread(talk, free)
    moved = moving.appointment_id if moving else None
    foot: tuple[Line, ...] = ()
    ask: Ask | None = None
    if talk.supervises and moving is None:
        head = Line("slots.supervisor", {"supervisee": talk.pair.supervisee.name, "city": talk.city()})
    else:
        head = Line("slots.head", {"supervisor": talk.pair.supervisor.name, "city": talk.city()})
        foot = (Line("slots.foot") if moving is None else Line("slots.foot_move", {"number": moving.number}),)
        starts = [slot.starts_at for slot in shown]
        ask = Ask(Question.PICK_SLOT, starts, appointment_id=moved, tappable=True)
    lines = [
        Line(
            REPEATED[whens.repeat(slot.starts_at, talk.person.zone)],
            {"number": number, "span": talk.span(slot.starts_at, slot.ends_at, brief=True)},
        )
        for number, slot in enumerate(shown, start=1)
    ]
    return Reply((*([before] if before else []), head, *lines, *foot), ask)


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


async def _slots_within(talk: Talk, when: When) -> Reply:
    meant = whens.resolve(when, talk.now, talk.person.zone)
    return await _choose(talk, meant if isinstance(meant, Ranges) else Ranges(tuple(map(whens.minute, meant.at))))


async def _meant(talk: Talk, when: When, moving: Moving | None = None) -> datetime | Reply:
    """The one start that was meant; or, where it could be another or none was named, the question which."""
    meant = whens.resolve(when, talk.now, talk.person.zone)
    if isinstance(meant, Ranges):
        free = await _free(talk, meant, moving)
        filled = [slot.starts_at for slot in free if (slot.starts_at, slot.ends_at) in meant.ranges]
        return filled[0] if len(filled) == 1 else await _choose(talk, meant, moving)
    offered = await _on_offer(talk, meant.at)
    if not offered:
        return min(meant.at, key=lambda at: at.astimezone(talk.person.zone).hour not in DAYTIME)
    if len(offered) == 1 and not meant.unsure:
        return offered[0]
    return await _choose(talk, Ranges(tuple(map(whens.minute, offered))), moving)


async def _choose(talk: Talk, meant: Ranges, moving: Moving | None = None) -> Reply:
    """What is free of that, as a list to answer; or, where nothing is, what is free after it."""
    free = await _free(talk, meant, moving)
    if free:
        reply = _offer(talk, free, moving)
        if len(free) > SHOWN_SLOTS:
            return replace(reply, lines=(*reply.lines, Line("slots.more")))
        return reply
    since = min(meant.ranges[0][0], talk.now + FARTHEST)
    for later in (Ranges(((since, since + COMING),)), Ranges(((talk.now, talk.now + COMING),))):
        free = await _free(talk, later, moving)
        if free:
            return _offer(talk, free, moving, before=Line("slots.none_then"))
    return say("slots.none", supervisor=talk.pair.supervisor.name)


async def _free(talk: Talk, meant: Ranges, moving: Moving | None = None) -> list[Slot]:
    """What can be booked of that; without the present time of the appointment that would move."""
    since, until = meant.ranges[0][0], max(until for _, until in meant.ranges)
    moved = moving.appointment_id if moving else None
    free = await availability.slots(talk.tx, talk.pair, since=since, until=until, now=talk.now, moving=moved)
    current = (await appointments.get(talk.tx, talk.actor, moved)).starts_at if moved else None
    return [slot for slot in free if meant.fit(slot.starts_at) and slot.starts_at != current]


async def _on_offer(talk: Talk, instants: Sequence[datetime]) -> list[datetime]:
    """Those at which the supervisor can be booked by her rules, whether somebody has them already or not."""
    rules = await availability.load(talk.tx, talk.pair.supervisor.id)
    offered: list[datetime] = []
    for at in instants:
        with suppress(Refused):
            availability.check_bookable(rules, talk.pair.supervisor.zone, at, now=talk.now)
            offered.append(at)
    return offered


async def _book(talk: Talk, what: int | When | None) -> Reply:
    if what is None:
        return await _slots(talk, None)
    starts_at = await _picked_slot(talk, what) if isinstance(what, int) else await _meant(talk, what)
    return starts_at if isinstance(starts_at, Reply) else await _request(talk, starts_at)


async def _request(talk: Talk, starts_at: datetime) -> Reply:
    booked = await appointments.book(talk.tx, talk.actor, talk.pair, starts_at, now=talk.now)
    return say("book.done", span=talk.span(booked.starts_at, booked.ends_at), supervisor=talk.pair.supervisor.name)


async def _confirm(talk: Talk, number: int | None) -> Reply:
    picked = await _pick(talk, number, "confirm")
    if isinstance(picked, Reply):
        return picked
    done = await appointments.confirm(talk.tx, talk.actor, picked, now=talk.now)
    return say("confirm.done", span=talk.span(done.starts_at, done.ends_at), supervisee=talk.pair.supervisee.name)


async def _decline(talk: Talk, number: int | None) -> Reply:
    picked = await _pick(talk, number, "decline")
    if isinstance(picked, Reply):
        return picked
    done = await appointments.decline(talk.tx, talk.actor, picked, now=talk.now)
    return say("decline.done", span=talk.span(done.starts_at, done.ends_at), supervisee=talk.pair.supervisee.name)


async def _cancel(talk: Talk, number: int | None, reason: str | None) -> Reply:
    picked = await _pick(talk, number, "cancel")
    if isinstance(picked, Reply):
        return picked
    done = await appointments.cancel(talk.tx, talk.actor, picked, now=talk.now, reason=reason)
    return say("cancel.done", span=talk.span(done.starts_at, done.ends_at), other=talk.other.name)


async def _reschedule(talk: Talk, number: int | None, to: int | When | None) -> Reply:
    picked = await _pick(talk, number, "reschedule")
    if isinstance(picked, Reply):
        return picked
    moving = Moving(number or 1, picked)
    if to is None:
        free = await _free(talk, Ranges(((talk.now, talk.now + COMING),)), moving)
        if not free:
            return say("slots.none", supervisor=talk.pair.supervisor.name)
        return _offer(talk, free, moving)
    starts_at = await _picked_slot(talk, to) if isinstance(to, int) else await _meant(talk, to, moving)
    return starts_at if isinstance(starts_at, Reply) else await _move(talk, picked, starts_at)


async def _move(talk: Talk, appointment_id: uuid.UUID, starts_at: datetime) -> Reply:
    was = await appointments.get(talk.tx, talk.actor, appointment_id)
    moved = await appointments.reschedule(talk.tx, talk.actor, appointment_id, starts_at, now=talk.now)
    params = {
        "was": talk.span(was.starts_at, was.ends_at),
        "span": talk.span(moved.starts_at, moved.ends_at),
    }
    if moved.status is Status.REQUESTED and not talk.supervises:
        return say("reschedule.asked", **params, supervisor=talk.pair.supervisor.name)
    return say("reschedule.done", **params, other=talk.other.name)


async def _list(talk: Talk) -> Reply:
    coming = await queries.coming(talk.tx, talk.person.id, now=talk.now, pair_id=talk.pair.id)
    if not coming:
        return say("appointments.none", other=talk.other.name)
    return _listed(talk, coming)


def _listed(talk: Talk, found: Sequence[Appointment], which: str | None = None) -> Reply:
    head = Line("appointments.head", {"other": talk.other.name, "city": talk.city()})
    foot = () if which is None else (Line(f"appointments.which_{which}"),)
    lines = [
        Line(
            "appointments.line",
            {
                "number": number,
                "span": talk.span(one.starts_at, one.ends_at, brief=True),
                "status": Key(f"status.{one.status}"),
            },
        )
        for number, one in enumerate(found, start=1)
    ]
    return Reply((head, *lines, *foot), Ask(Question.PICK_APPOINTMENT, choices=[one.id for one in found]))


async def _pick(talk: Talk, number: int | None, what: str) -> uuid.UUID | Reply:
    """The appointment meant by a number of the list shown last, or the only one there is; else that list.

    A number never means a place in a list that the person has not seen: it could have shifted meanwhile.
    """
    answering = what in ("confirm", "decline")
    if answering:
        found = await queries.requests(talk.tx, talk.pair.supervisor.id, now=talk.now, pair_id=talk.pair.id)
    else:
        found = await queries.coming(talk.tx, talk.person.id, now=talk.now, pair_id=talk.pair.id)
    if number is not None:
        shown = await questions.last(talk.tx, talk.person.id, talk.pair.id, Question.PICK_APPOINTMENT, now=talk.now)
        if shown is not None:
            if number > len(shown.choices):
                raise NotFound("appointments.no_such_number", number=number)
            return shown.choices[number - 1]
    if len(found) == 1 and number in (None, 1):
        return found[0].id
    if not found:
        if answering:
            return say("appointments.no_requests")
        return say("appointments.none", other=talk.other.name)
    return _listed(talk, found, what)


async def _picked_slot(talk: Talk, number: int) -> datetime:
    shown = await questions.last(talk.tx, talk.person.id, talk.pair.id, Question.PICK_SLOT, now=talk.now)
    if shown is None:
        raise NotUnderstood("book.outdated")
    if number > len(shown.slots):
        raise NotFound("book.no_such_number", number=number)
    return shown.slots[number - 1]


async def _language(talk: Talk, language: str | None) -> Reply:
    if language is None:
        return say("language.which")
    await people.set_language(talk.tx, talk.actor, talk.person.id, language, now=talk.now)
    return Reply((Line("language.set"),), pair=await pairs.get(talk.tx, talk.pair.id))


def _month(talk: Talk, month: int) -> tuple[datetime, datetime]:
    """The next such month in the person's zone, as `[start, end)`."""
    today = talk.now.astimezone(talk.person.zone)
    year = today.year + (month < today.month)
    first = datetime(year, month, 1, tzinfo=talk.person.zone)
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=talk.person.zone)
    return first, after

"""Appointments as numbered lists, and the one that somebody means by a number of such a list."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from bot import whens
from bot.replies import DIGITS, Ask, Line, Reply, say
from bot.talks import Talk
from bot.whens import Ranges, When
from supervision import appointments, queries, questions
from supervision.appointments import OPEN, Appointment
from supervision.db import Transaction
from supervision.errors import NotFound
from supervision.models import Question
from supervision.pairs import Pair
from supervision.people import Person
from supervision.questions import Asked
from supervision.texts import Key, Span

MOST_TIMES = 10
MOST_ROWS = 12
PAST = timedelta(days=30)
AHEAD = 366  # days in which a time without a day is looked for


async def lines(
    tx: Transaction, pair: Pair, person: Person, found: Sequence[Appointment], dashboard: str | None = None
) -> list[Line]:
    """Each appointment, numbered from 1, with its status, an open proposal, and the series it belongs to.

    Of many only the first twelve, and how many more there are: on the dashboard, where that is given.
    """
    shown = found[:MOST_ROWS]
    rules = await queries.rules_of_series(tx, {one.series_id for one in shown if one.series_id})
    listed = [_line(number, one, pair, person, rules) for number, one in enumerate(shown, start=1)]
    more = {"count": len(found) - len(shown)}
    if more["count"] == 0:
        return listed
    if dashboard is None:
        return [*listed, Line("list.more", {**more})]
    return [*listed, Line("appointments.more", {**more, "url": dashboard})]


def question(found: Sequence[Appointment], kind: Question = Question.PICK_APPOINTMENT) -> Ask:
    """What the numbers of the rows that are shown stand for, and how they stood then."""
    found = found[:MOST_ROWS]
    return Ask(kind, [one.starts_at for one in found], choices=[one.id for one in found], details=_as_shown(found))


def times(instants: Sequence[tuple[datetime, datetime]], other_zone: str) -> tuple[Line, ...]:
    """Start and end of each, one a line; where there are many, the first ten and how many more."""
    shown = tuple(Line("list.item", {"span": Span(*one, other_zone, brief=True)}) for one in instants[:MOST_TIMES])
    if len(instants) <= MOST_TIMES:
        return shown
    return *shown, Line("list.more", {"count": len(instants) - MOST_TIMES})


async def coming(talk: Talk, when: When | None = None) -> Reply:
    """All that is open with the other, or what of it begins in a time that was named; to be answered by a number."""
    found = await _open(talk)
    if when is not None:
        meant = whens.resolve(when, talk.now, talk.person.zone, ahead=AHEAD)
        named = meant if isinstance(meant, Ranges) else Ranges(tuple(map(whens.minute, meant.at)))
        found = [one for one in found if named.fit(one.starts_at)]
    if not found:
        return say("appointments.none" if when is None else "appointments.none_then", other=talk.other.name)
    return await _listed(talk, found)


async def pick(talk: Talk, number: int | None, what: str, *, together: bool = False) -> Appointment | Reply:
    """The appointment meant by a number of the list shown last, or the only one there is; else that list.

    `what` is `confirm`, `decline`, `cancel` or `reschedule`; only what can be has a place in the list. With
    `together` one of a series stands for all of it. A number never means a place in a list that the person has not
    seen: it could have shifted meanwhile. Where the list is out of date the new one is the answer.
    """
    found = [one for one in await _open(talk) if _may(talk, one, what)]
    if number is not None:
        kinds = (Question.PICK_APPOINTMENT,)
        shown = await questions.last(talk.tx, talk.person.id, talk.pair.id, *kinds, now=talk.now, expired=True)
        if shown is not None:
            return await _numbered(talk, number, what, shown, found)
    if number in (None, 1) and (len(found) == 1 or (together and _are_one_series(found))):
        if number == 1 or what != "decline" or found[0].may_answer(talk.person.id):
            if what in ("confirm", "decline") and await _was_asked_otherwise(talk, found[0]):
                return await _anew(talk, what, found, "appointments.changed")
            return found[0]
    if not found:
        return _none(talk, what)
    reply = await _listed(talk, found, what)
    if number is None or number <= len(found):
        return reply
    return Reply((Line("appointments.no_row", {"number": number}), *reply.lines), reply.ask)


async def _was_asked_otherwise(talk: Talk, one: Appointment) -> bool:
    """Whether the last question about moving it that this person was put is not about what is proposed now."""
    if one.proposal is None or one.proposal.by == talk.person.id:
        return False
    moves = (Question.ANSWER_MOVE,)
    asked = await questions.last(talk.tx, talk.person.id, talk.pair.id, *moves, now=talk.now, expired=True)
    return asked is not None and asked.appointment_id == one.id and one.proposal.id not in asked.choices


async def pick_past(talk: Talk, number: int | None) -> Appointment | Reply:
    """An appointment of the last thirty days by its number in the list of these, or that list."""
    if number is not None:
        past = (Question.PICK_PAST,)
        shown = await questions.last(talk.tx, talk.person.id, talk.pair.id, *past, now=talk.now)
        if shown is not None:
            return await appointments.get(talk.tx, talk.actor, _choice(shown, number, "noshow.no_such_number"))
    since = talk.now - PAST
    found = await queries.begun(talk.tx, talk.pair.id, since=since, now=talk.now, most=len(DIGITS))
    if not found:
        return say("noshow.none", supervisee=talk.pair.supervisee.name)
    head = Line("noshow.head", {"supervisee": talk.pair.supervisee.name, "city": talk.city()})
    listed = await lines(talk.tx, talk.pair, talk.person, found)
    return Reply((head, *listed, Line("noshow.which")), question(found, Question.PICK_PAST))


async def _numbered(
    talk: Talk, number: int, what: str, shown: Asked, found: Sequence[Appointment]
) -> Appointment | Reply:
    if shown.expires_at <= talk.now:
        return await _anew(talk, what, found, "appointments.outdated")
    chosen = await appointments.get(talk.tx, talk.actor, _choice(shown, number, "appointments.no_such_number"))
    if found and chosen.status not in OPEN:  # the number may be meant of a list that was not shown yet
        return await _anew(talk, what, found, "appointments.changed")
    if chosen in found and _has_changed(chosen, shown, number - 1, what, talk.person.id):
        return await _anew(talk, what, found, "appointments.changed")
    return chosen


async def _anew(talk: Talk, what: str, found: Sequence[Appointment], key: str) -> Reply:
    """The list as it is now, and why the old one does not count."""
    reply = await _listed(talk, found, what) if found else _none(talk, what)
    return Reply((Line(key), *reply.lines), reply.ask)


async def _listed(talk: Talk, found: Sequence[Appointment], which: str | None = None) -> Reply:
    head = Line("appointments.head", {"other": talk.other.name, "city": talk.city()})
    foot = () if which is None else (Line(f"appointments.which_{which}"),)
    listed = await lines(talk.tx, talk.pair, talk.person, found, talk.dashboard)
    return Reply((head, *listed, *foot), question(found))


async def _open(talk: Talk) -> list[Appointment]:
    return await queries.coming(talk.tx, talk.person.id, now=talk.now, pair_id=talk.pair.id)


def _may(talk: Talk, one: Appointment, what: str) -> bool:
    """Whether it has a place in the list of what can be answered so."""
    match what:
        case "confirm":
            return one.starts_at > talk.now and one.may_answer(talk.person.id)
        case "decline":
            return one.starts_at > talk.now and (one.proposal is not None or _is_open_to(one, talk.person.id))
        case _:
            return True


def _are_one_series(found: Sequence[Appointment]) -> bool:
    return len({one.series_id for one in found}) == 1 and found[0].series_id is not None


def _none(talk: Talk, what: str) -> Reply:
    match what:
        case "confirm":
            return say("appointments.no_requests")
        case "decline":
            return say("appointments.nothing_to_decline")
        case _:
            return say("appointments.none", other=talk.other.name)


def _choice(shown: Asked, number: int, otherwise: str) -> uuid.UUID:
    if number > len(shown.choices):
        raise NotFound(otherwise, number=number)
    return shown.choices[number - 1]


def _is_open_to(one: Appointment, person_id: uuid.UUID) -> bool:
    """Whether this person can say no to it: it was asked of them, or booked on their behalf."""
    return one.may_answer(person_id) or (one.on_behalf and person_id == one.supervisee_id and one.status in OPEN)


def _as_shown(found: Sequence[Appointment]) -> dict[str, Any]:
    return {
        "revisions": [one.revision for one in found],
        "proposals": [str(one.proposal.id) if one.proposal else None for one in found],
    }


def _has_changed(chosen: Appointment, shown: Asked, place: int, what: str, person_id: uuid.UUID) -> bool:
    """Whether an answer would be to something else than was shown.

    To call off or move one, its time is what counts. A proposal of one's own is known to whoever made it.
    """
    if what in ("cancel", "reschedule"):
        return bool(shown.slots) and shown.slots[place] != chosen.starts_at
    if "revisions" not in shown.details:
        return False
    proposal = chosen.proposal
    known = proposal is not None and proposal.by == person_id
    then = shown.details["revisions"][place], shown.details["proposals"][place]
    return then[0] != chosen.revision or (not known and then[1] != (str(proposal.id) if proposal else None))


def _line(number: int, one: Appointment, pair: Pair, person: Person, rules: Mapping[uuid.UUID, str]) -> Line:
    other = pair.other(person.id)
    key = "appointments.line"
    params: dict[str, object] = {
        "number": number,
        "span": Span(one.starts_at, one.ends_at, other.time_zone, brief=True),
        "status": Key(f"status.{one.status}"),
    }
    if one.series_id is not None:
        key += "_series"
        params["series"] = Key(f"series.of_{frequency(rules[one.series_id])}")
    if one.proposal is not None:
        key += "_proposed" if one.proposal.by == person.id else "_asked"
        params["proposed"] = Span(one.proposal.starts_at, one.proposal.ends_at, other.time_zone, brief=True)
        params["other"] = other.name
    return Line(key, params)


def frequency(rule: str) -> str:
    """`weekly`, `fortnightly` or `monthly`, of a series' RRULE (RFC 5545, 3.3.10)."""
    parts = dict(part.split("=", 1) for part in rule.upper().split(";"))
    if parts["FREQ"] == "MONTHLY":
        return "monthly"
    return "fortnightly" if parts.get("INTERVAL") == "2" else "weekly"

"""What reaches beyond one appointment: series, the waiting list, and time off with what falls into it."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from bot import codes, lists, offers, whens
from bot.commands import Away, Series, Waitlist
from bot.offers import Aim, Picked
from bot.replies import Line, Reply, say
from bot.talks import Talk
from bot.whens import Period, Ranges
from supervision import absences, availability, repetitions, series, waits
from supervision.appointments import Appointment
from supervision.errors import NotAllowed, NotUnderstood, SlotTaken, Stale
from supervision.models import Question, Status
from supervision.ranges import Range, merge
from supervision.repetitions import Repetition
from supervision.series import Booked, Clash
from supervision.texts import Minutes, Moment, Moments
from supervision.waits import Wait

SHOWN_CLASHES = 10
DAYS_WAITED = 19  # a time without a day is waited for today and on these days
LONGEST_SERIES = timedelta(days=300)  # to a last day without a year; what seems longer was meant to lie before
A_MINUTE, A_MOMENT = timedelta(minutes=1), timedelta(microseconds=1)


async def book_series(talk: Talk, command: Series) -> Reply:
    """Book what repeats, once its first time, its frequency and its end are known; what is missing is asked for."""
    if command.what is None:
        return await offers.coming(talk, None, _aim(command))
    picked = await offers.pick(talk, command.what, _aim(command))
    if isinstance(picked, Reply):
        return picked
    if command.frequency is None:
        return say("series.how_often")
    if command.count is None and command.until is None:
        return say("series.how_long")
    first = repetitions.wall_clock(picked.starts_at, talk.pair.supervisor.zone)
    rule = repetitions.rule_of(Repetition(command.frequency, command.count, _last_day(talk, command, first)), first)
    return await _book(talk, picked, rule, command)


def _aim(command: Series) -> Aim:
    return Aim(command.minutes, foot=Line("series.foot"), tappable=False)


def _last_day(talk: Talk, command: Series, first: datetime) -> date | None:
    """Counted from the first time on, so that `until 30/6` said in July is of the next year."""
    if command.until is None:
        return None
    today = talk.now.astimezone(talk.person.zone).date()
    begins = whens.When(whens.Date(first.day, first.month, first.year))
    return whens.days_of(Period(begins, command.until), today, longest=LONGEST_SERIES)[1]


async def _book(talk: Talk, picked: Picked, rule: str, command: Series) -> Reply:
    try:
        booked = await series.book(
            talk.tx,
            talk.actor,
            talk.pair,
            picked.starts_at,
            rule,
            skip=command.skip,
            now=talk.now,
            length=picked.minutes,
        )
    except SlotTaken as taken:
        raise _name_clashes(talk, taken, skipped=command.skip) from taken
    return _booked(talk, booked, rule)


def _name_clashes(talk: Talk, taken: SlotTaken, *, skipped: bool) -> SlotTaken:
    """The same refusal with the first of the clashes, and how to leave them out."""
    clashes = taken.params.get("clashes")
    if not isinstance(clashes, list) or not clashes:
        return taken
    key = "series.all_taken" if skipped else "series.clashes"
    more = len(clashes) - SHOWN_CLASHES
    if more > 0:
        key += "_more"
    return SlotTaken(key, clashes=clashes[:SHOWN_CLASHES], more=more, city=talk.city())


def _booked(talk: Talk, booked: Booked, rule: str) -> Reply:
    found = booked.booked
    asked = found[0].status is Status.REQUESTED
    key = "series.asked" if asked else "series.booked_for" if talk.supervises else "series.booked"
    params: dict[str, object] = {
        "count": len(found),
        "how": talk.says.say(f"series.of_{lists.frequency(rule)}"),
        "other": talk.other.name,
        "city": talk.city(),
    }
    if asked:
        params["by"] = Moments((min(one.answer_by for one in found if one.answer_by is not None),))
    times = lists.times([(one.starts_at, one.ends_at) for one in found], talk.other.time_zone)
    return Reply((Line(key, params), *times, *_left_out(talk, booked.clashes)))


def _left_out(talk: Talk, clashes: Sequence[Clash]) -> list[Line]:
    if not clashes:
        return []
    shown = Moments(tuple(clash.starts_at for clash in clashes[:SHOWN_CLASHES]))
    more = len(clashes) - SHOWN_CLASHES
    return [Line("series.left_out" if more <= 0 else "series.left_out_more", {"clashes": shown, "more": more})]


async def wait(talk: Talk, command: Waitlist) -> Reply:
    """Join the waiting list, show what is waited for, leave it, or answer what is on offer."""
    if talk.supervises:
        raise NotAllowed("refused.supervisee_waits")
    known = await waits.list_of(talk.tx, talk.pair.id)
    if command.take is not None:
        return await _answer_offer(talk, known, take=command.take)
    if command.off:
        return await _leave(talk, known, command)
    if command.when is None and known:
        return _shown(talk, known)
    return await _join(talk, await _waited_for(talk, command), command)


async def _waited_for(talk: Talk, command: Waitlist) -> tuple[Range, ...]:
    if command.when is not None:
        meant = whens.resolve(command.when, talk.now, talk.person.zone, ahead=DAYS_WAITED)
        ranges = meant.ranges if isinstance(meant, Ranges) else tuple(map(whens.minute, meant.at))
        return tuple(merge(ranges))
    rules = await availability.load(talk.tx, talk.pair.supervisor.id)
    return ((talk.now, talk.now + timedelta(days=rules.horizon)),)


async def _join(talk: Talk, ranges: Sequence[Range], command: Waitlist) -> Reply:
    try:
        joined = await waits.join(talk.tx, talk.actor, talk.pair, ranges, now=talk.now, length=command.minutes)
    except NotUnderstood as refused:
        if refused.key != "refused.wait_not_needed":
            raise
        free = await offers.choose(talk, Ranges(tuple(ranges)), Aim(command.minutes))
        return replace(free, lines=(Line("waitlist.free"), *free.lines))
    rules = await availability.load(talk.tx, talk.pair.supervisor.id)
    head = Line("waitlist.joined", {"supervisor": talk.pair.supervisor.name, "city": talk.city()})
    foot = Line("waitlist.how", {"minutes": Minutes(rules.offer)})
    return Reply((head, *_ranges(talk, joined), foot))


def _shown(talk: Talk, known: Sequence[Wait]) -> Reply:
    head = Line("waitlist.head", {"supervisor": talk.pair.supervisor.name, "city": talk.city()})
    on_offer = [
        Line(
            "waitlist.offer",
            {"span": talk.span(one.offer.starts_at, one.offer.ends_at), "until": Moment(one.offer.until)},
        )
        for one in known
        if one.offer is not None
    ]
    waited = [line for one in sorted(known, key=lambda one: one.ranges) for line in _ranges(talk, one)]
    return Reply((head, *waited, *on_offer, Line("waitlist.foot")))


def _ranges(talk: Talk, waited: Wait) -> list[Line]:
    shown = [_range(talk, since, until, waited.created_at) for since, until in waited.ranges[: lists.MOST_TIMES]]
    more = len(waited.ranges) - lists.MOST_TIMES
    return shown if more <= 0 else [*shown, Line("list.more", {"count": more})]


def _range(talk: Talk, since: datetime, until: datetime, asked_at: datetime) -> Line:
    """One range as people say it: a time, a part of a day, whole days, or from now on until a day."""
    says = talk.says
    first, last = since.astimezone(talk.person.zone), (until - A_MOMENT).astimezone(talk.person.zone)
    if until - since <= A_MINUTE:
        return Line("waitlist.time", {"day": says.day(since), "since": says.clock(since)})
    whole = (first.hour, first.minute, last.hour, last.minute) == (0, 0, 23, 59)
    if first.date() == last.date():
        if whole or (since <= asked_at and (last.hour, last.minute) == (23, 59)):
            return Line("waitlist.day", {"day": says.day(since)})
        return Line("waitlist.hours", {"day": says.day(since), "since": says.clock(since), "until": says.clock(until)})
    if since <= asked_at:
        return Line("waitlist.until", {"last": says.day(last)})
    if whole:
        return Line("waitlist.days", {"first": says.day(since), "last": says.day(last)})
    return Line("waitlist.span", {"first": Moment(since), "last": Moment(until)})


async def _leave(talk: Talk, known: Sequence[Wait], command: Waitlist) -> Reply:
    """End all of it, or what is waited for within a time that is named."""
    ended = known
    if command.when is not None:
        meant = await _waited_for(talk, command)
        ended = [one for one in known if _within(one, meant)]
    if not ended:
        return say("waitlist.not_waiting")
    for one in ended:
        await waits.leave(talk.tx, talk.actor, one.id, now=talk.now)
    if len(ended) == len(known):
        return say("waitlist.left")
    left = await waits.list_of(talk.tx, talk.pair.id)
    return replace(_shown(talk, left), lines=(Line("waitlist.left_some"), *_shown(talk, left).lines))


def _within(waited: Wait, meant: Sequence[Range]) -> bool:
    """Whether all of it lies in what was named."""
    return all(any(since <= begins and ends <= until for since, until in meant) for begins, ends in waited.ranges)


async def _answer_offer(talk: Talk, known: Sequence[Wait], *, take: bool) -> Reply:
    """The oldest offer that is open; two at once are answered one after the other."""
    offered = next((one for one in known if one.offer is not None and one.offer.until > talk.now), None)
    if offered is None or offered.offer is None:
        return say("waitlist.no_offer")
    span = talk.span(offered.offer.starts_at, offered.offer.ends_at)
    at = offered.offer.starts_at
    if not take:
        await waits.pass_by(talk.tx, talk.actor, offered.id, now=talk.now, if_starts_at=at)
        return say("waitlist.passed", span=span)
    booked = await waits.accept(talk.tx, talk.actor, offered.id, now=talk.now, if_starts_at=at)
    key = "waitlist.asked" if booked.status is Status.REQUESTED else "waitlist.booked"
    return say(key, span=span, supervisor=talk.pair.supervisor.name)


async def go_away(talk: Talk, command: Away) -> Reply:
    """Time off, agreed to by a code, with what falls into it: here only what is this pair's is ever named.

    Both of the pair read the answer, so it is the same whether there are appointments with others or none, and so is
    what is said where it cannot be done.
    """
    if not talk.supervises:
        raise NotAllowed("away.supervisor")
    if command.code is not None:
        return say("away.which", code=command.code) if command.then is None else await _go(talk, command)
    if command.period is None:
        return say("away.how")
    first_on, last_on = whens.days_of(command.period, talk.now.astimezone(talk.person.zone).date())
    affected = await absences.affected(talk.tx, talk.person.id, first_on, last_on, talk.now)
    ask = await codes.ask(
        talk,
        Question.CONFIRM_AWAY,
        {
            "first_on": first_on.isoformat(),
            "last_on": last_on.isoformat(),
            "expected": [[str(one.id), one.revision] for one in affected],
        },
    )
    own = [one for one in affected if one.pair_id == talk.pair.id]
    return Reply((*_in_the_way(talk, own, first_on, last_on), Line("away.ask", {"code": ask.code})), ask)


def _in_the_way(talk: Talk, own: Sequence[Appointment], first_on: date, last_on: date) -> tuple[Line, ...]:
    period = _period(talk, first_on, last_on)
    names = {"supervisee": talk.pair.supervisee.name, "city": talk.city()}
    others = Line("away.others", {"url": _page(talk, first_on, last_on)})
    if not own:
        return Line("away.head_none", {"period": period, **names}), others
    zone = talk.person.zone
    times = lists.times([_time_in_the_way(one, first_on, last_on, zone) for one in own], talk.other.time_zone)
    return Line("away.head", {"period": period, **names}), *times, others


def _time_in_the_way(one: Appointment, first_on: date, last_on: date, zone: ZoneInfo) -> Range:
    """The appointment's own time, unless only the one that is proposed for it falls into these days."""
    begins, ends = one.starts_at.astimezone(zone).date(), one.ends_at.astimezone(zone).date()
    if one.proposal is None or (begins <= last_on and ends >= first_on):
        return one.starts_at, one.ends_at
    return one.proposal.starts_at, one.proposal.ends_at


async def _go(talk: Talk, command: Away) -> Reply:
    asked = await codes.agree(talk, Question.CONFIRM_AWAY, command.code or "")
    if isinstance(asked, Reply):
        return asked
    first_on, last_on = (date.fromisoformat(asked.details[name]) for name in ("first_on", "last_on"))
    expected = [(uuid.UUID(one), revision) for one, revision in asked.details["expected"]]
    then = command.then or "cancel"
    try:
        await absences.go(
            talk.tx, talk.actor, talk.person, first_on, last_on, then=then, expected=expected, now=talk.now
        )
    except Stale as stale:
        raise Stale("away.unfinished", url=_page(talk, first_on, last_on)) from stale
    except SlotTaken as taken:
        raise SlotTaken("away.unfinished", url=_page(talk, first_on, last_on)) from taken
    days = _typed(talk, first_on, last_on)
    return say(f"away.done_{then}", period=_period(talk, first_on, last_on), days=days)


def _page(talk: Talk, first_on: date, last_on: date) -> str:
    """Where the dashboard shows what falls into these days, with everybody."""
    return f"{talk.dashboard.rstrip('/')}/away?first={first_on}&last={last_on}"


def _period(talk: Talk, first_on: date, last_on: date) -> str:
    """`dom., 20/12 – dom., 10/01/2027`: with the year where it is not this one."""
    first, last = (_dated(talk, day) for day in (first_on, last_on))
    return first if first_on == last_on else f"{first} – {last}"


def _dated(talk: Talk, day: date) -> str:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=talk.person.zone)
    return talk.says.day(noon) if day.year == _this_year(talk) else talk.says.day_of_year(noon)


def _typed(talk: Talk, first_on: date, last_on: date) -> str:
    """The days as they can be typed again."""
    days = [f"{day:%d/%m}" if day.year == _this_year(talk) else f"{day:%d/%m/%Y}" for day in (first_on, last_on)]
    return days[0] if first_on == last_on else " - ".join(days)


def _this_year(talk: Talk) -> int:
    return talk.now.astimezone(talk.person.zone).year

"""Each command in its transaction: a believed command of one of the pair becomes a change or a list, and a reply."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

from bot import commands, lists, offers, parting, planning, settling, taking, zones
from bot.commands import Command
from bot.offers import Aim, Picked
from bot.replies import Line, Reply, say, shorten
from bot.talks import Talk
from bot.whens import When
from supervision import appointments, attendances, availability, groups, moves, pairs, people, questions, shifts, waits
from supervision.appointments import OPEN, Appointment
from supervision.errors import NotAllowed, NotUnderstood, Stale
from supervision.groups import Scope
from supervision.models import Question, Status
from supervision.questions import Asked
from supervision.texts import Minutes, Moments, Span


async def answer(talk: Talk, command: Command) -> Reply:
    """Do what a command asks. Raises Refused; then nothing may be committed of this transaction."""
    reply = await _answer(talk, command)
    return replace(reply, lines=shorten(reply.lines, talk.dashboard))


async def _answer(talk: Talk, command: Command) -> Reply:
    match command:
        case commands.Help(name):
            return _help(talk) if name is None else _explain(talk, name)
        case commands.Slots(month, when, minutes):
            aim = Aim(minutes)
            return await offers.coming(talk, month, aim) if when is None else await offers.within(talk, when, aim)
        case commands.Book(what, minutes):
            return await _book(talk, what, minutes)
        case commands.Confirm(number, scope) | commands.Accept(number, scope):
            return await _accept(talk, number, _several(scope))
        case commands.Decline(number, scope):
            return await _decline(talk, number, _several(scope))
        case commands.Cancel(number, reason, scope):
            return await _cancel(talk, number, reason, _several(scope))
        case commands.Reschedule():
            return await _reschedule(talk, command)
        case commands.NoShow(number):
            return await _mark(talk, number)
        case commands.Series():
            return await planning.book_series(talk, command)
        case commands.Waitlist():
            return await planning.wait(talk, command)
        case commands.Away():
            return await planning.go_away(talk, command)
        case commands.Settings():
            return await settling.settings(talk, command)
        case commands.Availability():
            return await settling.hours(talk, command)
        case commands.Appointments(when):
            return await lists.coming(talk, when)
        case commands.Keep():
            return await _keep(talk)
        case commands.Calendar():
            return say("calendar.link", url=f"{talk.dashboard}/calendar")
        case commands.Dashboard():
            return say("dashboard.link", url=talk.dashboard)
        case commands.Language(language):
            return await _language(talk, language)
        case commands.TimeZone():
            return await zones.settle(talk, command)
        case commands.SignIn():
            return say("login.link", url=f"{talk.dashboard}/sign-in")
        case commands.Export():
            return await taking.take(talk, command)
        case commands.Archive():
            return await parting.part(talk, command)
        case commands.Unknown(near):
            return _unknown(talk, near)
        case commands.Incomplete(name):
            return say(f"incomplete.{name}")


async def answer_tap(talk: Talk, asked: Asked, *, yes: bool | None, number: int | None) -> Reply | None:
    """Do what a reaction under one of our questions asks; `number` counts from 1. None for a key it does not offer.

    Most of them need no reply: the news of what was done, in the same room, tells both. Only steps of booking can be
    answered so, never what wants a typed code.
    """
    if number is not None and asked.kind is Question.PICK_SLOT and number <= len(asked.slots):
        if asked.details.get("typed"):
            return None
        await questions.answer(talk.tx, asked, now=talk.now)
        return await _tap_slot(talk, asked, Picked(asked.slots[number - 1], asked.details.get("minutes")))
    if yes is None or asked.kind not in YES_OR_NO or (yes and asked.details.get("only_no")):
        return None
    await questions.answer(talk.tx, asked, now=talk.now)
    return await YES_OR_NO[asked.kind](talk, asked, yes)


async def _tap_slot(talk: Talk, asked: Asked, chosen: Picked) -> Reply:
    if asked.appointment_id is None:
        return await _request(talk, chosen)
    appointment = await appointments.get(talk.tx, talk.actor, asked.appointment_id)
    if asked.details.get("moving", appointment.revision) != appointment.revision:
        raise Stale
    scope = asked.details.get("scope")
    return await _move(
        talk, appointment, chosen.starts_at, Scope(scope) if scope else None, skip=bool(asked.details.get("skip"))
    )


async def _tap_request(talk: Talk, asked: Asked, yes: bool) -> Reply:
    if asked.appointment_id is None:
        raise NotUnderstood
    change = appointments.confirm if yes else appointments.decline
    await change(talk.tx, talk.actor, asked.appointment_id, now=talk.now, if_revision=asked.revision)
    return Reply(())


async def _tap_move(talk: Talk, asked: Asked, yes: bool) -> Reply:
    if asked.appointment_id is None:
        raise NotUnderstood
    change = moves.accept if yes else moves.refuse
    await change(talk.tx, talk.actor, asked.appointment_id, now=talk.now, if_proposal=asked.choices[0])
    return Reply(())


async def _tap_offer(talk: Talk, asked: Asked, yes: bool) -> Reply:
    wait_id, starts_at = asked.choices[0], asked.slots[0]
    if yes:
        booked = await waits.accept(talk.tx, talk.actor, wait_id, now=talk.now, if_starts_at=starts_at)
        return offers.told_booked(talk, booked)
    offer = waits.require_offer(await waits.get(talk.tx, talk.actor, wait_id), starts_at)
    await waits.pass_by(talk.tx, talk.actor, wait_id, now=talk.now, if_starts_at=starts_at)
    return say("waitlist.passed", span=talk.span(offer.starts_at, offer.ends_at))


async def _tap_series(talk: Talk, asked: Asked, yes: bool) -> Reply:
    """Answer those of a group that are still as they were shown."""
    one, proposals = asked.choices[0], asked.details.get("proposals")
    if proposals:
        answer_moves = groups.accept if yes else groups.refuse
        shown = [uuid.UUID(proposal) for proposal in proposals]
        await answer_moves(talk.tx, talk.actor, one, Scope.ALL, now=talk.now, if_proposals=shown)
    else:
        answer_requests = groups.confirm if yes else groups.decline
        seen = dict(zip(asked.choices, asked.details["revisions"], strict=True))
        await answer_requests(talk.tx, talk.actor, one, Scope.ALL, now=talk.now, seen=seen)
    return Reply(())


async def _tap_attendance(talk: Talk, asked: Asked, yes: bool) -> Reply:
    """What becomes of what somebody declined in their calendar: it is called off, or it stands."""
    if not yes:
        return await _kept(talk, asked)
    one = await appointments.get(talk.tx, talk.actor, asked.appointment_id or asked.choices[0])
    declines = one.status is Status.REQUESTED if talk.supervises else one.on_behalf
    if asked.appointment_id is not None:
        return await _call_off(talk, one, asked.revision, declines=declines)
    call_off = groups.decline if declines else groups.cancel
    seen = dict(zip(asked.choices, asked.details["revisions"], strict=True))
    await call_off(talk.tx, talk.actor, one.id, Scope.ALL, now=talk.now, seen=seen)
    return Reply(())


async def _kept(talk: Talk, asked: Asked) -> Reply:
    shown = [asked.appointment_id] if asked.appointment_id is not None else asked.choices
    found = [await appointments.get(talk.tx, talk.actor, one) for one in shown]
    one = next((each for each in found if each.status in OPEN), found[0])
    appointments.require_status(one, *OPEN)
    if asked.revision not in (None, one.revision):
        raise Stale
    await attendances.keep(talk.tx, talk.actor, shown)
    key = "attendance.kept" if asked.appointment_id is not None else "attendance.kept_series"
    asks = talk.supervises and one.status is Status.REQUESTED
    return say(f"{key}_request" if asks else key, span=_span(talk, one))


async def _keep(talk: Talk) -> Reply:
    """The typed form of the tap that keeps what was declined in a calendar."""
    kinds = (Question.ANSWER_ATTENDANCE,)
    asked = await questions.last(talk.tx, talk.person.id, talk.pair.id, *kinds, now=talk.now, unanswered=True)
    if asked is None:
        return say("attendance.nothing_asked")
    await questions.answer(talk.tx, asked, now=talk.now)
    return await _kept(talk, asked)


async def _call_off(talk: Talk, one: Appointment, revision: int | None, *, declines: bool) -> Reply:
    if declines:
        await appointments.decline(talk.tx, talk.actor, one.id, now=talk.now, if_revision=revision)
        return Reply(())
    done = await appointments.cancel(talk.tx, talk.actor, one.id, now=talk.now, if_revision=revision)
    return await _told_cancelled(talk, done) if done.late else Reply(())


YES_OR_NO: dict[Question, Callable[[Talk, Asked, bool], Awaitable[Reply]]] = {
    Question.ANSWER_REQUEST: _tap_request,
    Question.ANSWER_MOVE: _tap_move,
    Question.ANSWER_OFFER: _tap_offer,
    Question.ANSWER_SERIES: _tap_series,
    Question.ANSWER_ATTENDANCE: _tap_attendance,
}


def _help(talk: Talk) -> Reply:
    """What people need most in a sentence each, the other words by name; below it what only a supervisor can do."""
    shown = commands.shown_in_help(supervises=talk.supervises, common=True)
    both = [name for name in shown if commands.WORDS[name].to == "both"]
    own = [name for name in shown if name not in both]
    rest = commands.shown_in_help(supervises=talk.supervises, common=False)
    words = ", ".join(f"!{commands.WORDS[name].word(name, talk.person.language)}" for name in rest)
    head = [Line("help.head_supervisor")] if own and talk.supervises else []
    said = [
        *(Line(commands.sentence(name, supervises=talk.supervises)) for name in both),
        Line("help.more", {"words": words}),
        *head,
        *(Line(commands.sentence(name, supervises=talk.supervises)) for name in own),
    ]
    return Reply((Line("help.head"), *said))


def _unknown(talk: Talk, near: str | None) -> Reply:
    if near is None or not commands.WORDS[near].is_for(supervises=talk.supervises):
        return say("unknown")
    return say("unknown_near", word=commands.WORDS[near].word(near, talk.person.language))


def _explain(talk: Talk, name: str) -> Reply:
    """One command: what it does, how it is written, and its other words."""
    declared = commands.WORDS[name]
    own = declared.word(name, talk.person.language)
    others = [f"!{word}" for word in (name, *declared.others) if word != own]
    examples = ", ".join(declared.shown_examples(name, talk.person.language))
    return Reply(
        (
            Line(commands.sentence(name, supervises=talk.supervises)),
            Line("help.examples", {"examples": examples}),
            Line("help.others", {"words": ", ".join(others)}),
        )
    )


async def _book(talk: Talk, what: int | When | None, minutes: int | None) -> Reply:
    aim = Aim(minutes)
    if what is None:
        return await offers.coming(talk, aim=aim)
    chosen = await offers.pick(talk, what, aim)
    return chosen if isinstance(chosen, Reply) else await _request(talk, chosen)


async def _request(talk: Talk, chosen: Picked) -> Reply:
    return offers.told_booked(
        talk,
        await appointments.book(talk.tx, talk.actor, talk.pair, chosen.starts_at, now=talk.now, length=chosen.minutes),
    )


async def _accept(talk: Talk, number: int | None, scope: Scope | None) -> Reply:
    """Agree to what waits for this person: a request, or a move that the other proposes."""
    picked = await lists.pick(talk, number, "confirm", together=scope is not None)
    if isinstance(picked, Reply):
        return await _answer_offer(talk, number, picked, take=True)
    if scope is not None:
        return await _answer_series(talk, picked, scope, yes=True)
    proposal = picked.proposal
    if talk.supervises and (proposal is None or proposal.by == talk.person.id):
        done = await appointments.confirm(talk.tx, talk.actor, picked.id, now=talk.now, if_revision=picked.revision)
        return say("confirm.done", span=_span(talk, done), supervisee=talk.pair.supervisee.name)
    if proposal is None and picked.status is not Status.CONFIRMED:
        raise NotAllowed("refused.supervisor_answers")
    done = await moves.accept(
        talk.tx, talk.actor, picked.id, now=talk.now, if_proposal=proposal.id if proposal else None
    )
    return say("move.accepted", was=_span(talk, picked), span=_span(talk, done), other=talk.other.name)


async def _decline(talk: Talk, number: int | None, scope: Scope | None) -> Reply:
    """Say no to what waits for this person, take a proposal of one's own back, or say no to what one was booked."""
    picked = await lists.pick(talk, number, "decline", together=scope is not None)
    if isinstance(picked, Reply):
        return await _answer_offer(talk, number, picked, take=False)
    if scope is not None:
        return await _answer_series(talk, picked, scope, yes=False)
    proposal = picked.proposal
    if proposal is None:
        done = await appointments.decline(talk.tx, talk.actor, picked.id, now=talk.now, if_revision=picked.revision)
        return say("decline.done", span=_span(talk, done), other=talk.other.name)
    own = proposal.by == talk.person.id
    drop = moves.withdraw if own else moves.refuse
    left = await drop(talk.tx, talk.actor, picked.id, now=talk.now, if_proposal=proposal.id)
    return say(
        "move.withdrawn" if own else "move.refused",
        proposed=talk.span(proposal.starts_at, proposal.ends_at),
        span=_span(talk, left),
        other=talk.other.name,
    )


async def _answer_offer(talk: Talk, number: int | None, nothing: Reply, *, take: bool) -> Reply:
    """Where no appointment waits for an answer, a time that is kept for the supervisee may."""
    if number is None and nothing.ask is None and not talk.supervises:
        known = await waits.list_of(talk.tx, talk.pair.id)
        if any(one.offer is not None for one in known):
            return await planning.wait(talk, commands.Waitlist(take=take))
    return nothing


async def _answer_series(talk: Talk, one: Appointment, scope: Scope, *, yes: bool) -> Reply:
    """Answer several of a series: moves that are proposed, requests, or what one was booked."""
    told = "accepted" if yes else "declined"
    if one.proposal is None or (yes and one.proposal.by == talk.person.id):
        answer_requests = groups.confirm if yes else groups.decline
        done = await answer_requests(talk.tx, talk.actor, one.id, scope, now=talk.now, if_revision=one.revision)
    else:
        own = one.proposal.by == talk.person.id
        answer_moves = groups.accept if yes else groups.withdraw if own else groups.refuse
        done = await answer_moves(talk.tx, talk.actor, one.id, scope, now=talk.now, if_proposal=one.proposal.id)
        told = "moved" if yes else "kept"
    return _told_together(talk, told, done)


async def _cancel(talk: Talk, number: int | None, reason: str | None, scope: Scope | None) -> Reply:
    picked = await lists.pick(talk, number, "cancel", together=scope is not None)
    if isinstance(picked, Reply):
        return picked
    if scope is not None:
        gone = await groups.cancel(
            talk.tx, talk.actor, picked.id, scope, now=talk.now, reason=reason, if_revision=picked.revision
        )
        return _told_together(talk, "cancelled", gone)
    done = await appointments.cancel(
        talk.tx, talk.actor, picked.id, now=talk.now, reason=reason, if_revision=picked.revision
    )
    return await _told_cancelled(talk, done)


async def _told_cancelled(talk: Talk, done: Appointment) -> Reply:
    told = {"span": _span(talk, done), "other": talk.other.name}
    if not done.late:
        return say("cancel.done", **told)
    rules = await availability.load(talk.tx, talk.pair.supervisor.id)
    return say("cancel.late", **told, minutes=Minutes(rules.cancel_notice))


async def _reschedule(talk: Talk, command: commands.Reschedule) -> Reply:
    picked = await lists.pick(talk, command.number, "reschedule")
    if isinstance(picked, Reply):
        return picked
    appointments.require_status(picked, *OPEN)  # before a time is offered for it
    scope = _several(command.scope)
    details = {} if scope is None else {"scope": scope, "skip": command.skip}
    aim = Aim(moving=picked, number=command.number or 1, details=details)
    if command.to is None:
        return await offers.coming(talk, aim=aim)
    chosen = await offers.pick(talk, command.to, aim)
    if isinstance(chosen, Reply):
        return chosen
    return await _move(talk, picked, chosen.starts_at, scope, skip=command.skip)


async def _move(
    talk: Talk, was: Appointment, starts_at: datetime, scope: Scope | None = None, *, skip: bool = False
) -> Reply:
    if scope is not None:
        return await _move_series(talk, was, starts_at, scope, skip=skip)
    moved = await moves.reschedule(talk.tx, talk.actor, was.id, starts_at, now=talk.now, if_revision=was.revision)
    told: dict[str, object] = {"was": _span(talk, was), "other": talk.other.name}
    if moved.proposal is not None:
        proposed = talk.span(moved.proposal.starts_at, moved.proposal.ends_at)
        return say("reschedule.proposed", **told, span=proposed, until=_until(moved.proposal.answer_by))
    told["span"] = _span(talk, moved)
    if moved.status is Status.REQUESTED:
        return say("reschedule.asked", **told, until=_until(moved.answer_by))
    if was.proposal is not None and was.proposal.by != talk.person.id and was.proposal.starts_at == starts_at:
        return say("move.accepted", **told)
    return say("reschedule.done", **told)


async def _move_series(talk: Talk, was: Appointment, starts_at: datetime, scope: Scope, *, skip: bool) -> Reply:
    done = await shifts.reschedule(
        talk.tx, talk.actor, was.id, starts_at, scope, skip=skip, now=talk.now, if_revision=was.revision
    )
    what = "proposed" if any(one.proposal is not None for one in done.moved) else "moved"
    reply = _told_together(talk, what, done.moved)
    if not done.clashes:
        return reply
    left = Line("together.left", {"times": Moments(tuple(clash.starts_at for clash in done.clashes))})
    return Reply((*reply.lines, left))


async def _mark(talk: Talk, number: int | None) -> Reply:
    """Note that the supervisee did not come; the same again takes it back."""
    if not talk.supervises:
        raise NotAllowed("refused.supervisor_marks")
    picked = await lists.pick_past(talk, number)
    if isinstance(picked, Reply):
        return picked
    came = picked.status is Status.NO_SHOW
    status = Status.COMPLETED if came else Status.NO_SHOW
    done = await appointments.mark(talk.tx, talk.actor, picked.id, status, now=talk.now)
    key = "noshow.corrected" if came else "noshow.done"
    return say(key, span=_span(talk, done), supervisee=talk.pair.supervisee.name)


async def _language(talk: Talk, language: str | None) -> Reply:
    if language is None:
        return say("language.which")
    await people.set_language(talk.tx, talk.actor, talk.person.id, language, now=talk.now)
    return Reply((Line("language.set"),), pair=await pairs.get(talk.tx, talk.pair.id))


def _told_together(talk: Talk, what: str, done: Sequence[Appointment]) -> Reply:
    """What was done to several of a series, with the times that it is about."""
    times = [
        (one.starts_at, one.ends_at) if one.proposal is None else (one.proposal.starts_at, one.proposal.ends_at)
        for one in done
    ]
    head = Line(f"together.{what}", {"other": talk.other.name, "city": talk.city()})
    return Reply((head, *lists.times(times, talk.other.time_zone)))


def _several(scope: commands.Scope | None) -> Scope | None:
    """More than one of a series, if that was said; one of them is an appointment like any other."""
    return None if scope in (None, "one") else Scope(scope)


def _span(talk: Talk, one: Appointment) -> Span:
    return talk.span(one.starts_at, one.ends_at)


def _until(at: datetime | None) -> Moments:
    return Moments(() if at is None else (at,))

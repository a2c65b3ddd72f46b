"""The API of appointments: lists and free times, booking, and what can be done with one or with its series."""

import base64
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from urllib.parse import urlencode

from aiohttp import web

from supervision import appointments, availability, groups, moves, queries, shifts
from supervision.appointments import Appointment
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotFound, NotUnderstood, Stale
from supervision.groups import Scope
from supervision.hours import Slot
from supervision.models import Role, Status
from supervision.pairs import Pair
from supervision.shifts import Moved
from web import problems, schemas
from web.api import answers, requests
from web.api.requests import path_id
from web.changes import Change
from web.repeats import Answer
from web.schemas import Given
from web.state import database, now, own_pair, person, visitor

LOOK_BACK = timedelta(days=90)
SLOTS_SPAN = timedelta(days=14)
PAGE_ITEMS = 100

Act = Callable[[Transaction, int | None], Awaitable[Appointment]]
ActOnSeveral = Callable[[Transaction, int | None], Awaitable[Moved | list[Appointment]]]


async def list_supervisee(request: web.Request) -> web.Response:
    """The person's own appointments as supervisee, by start; without `from` those of the last 90 days and to come."""
    return await _list(request, Role.SUPERVISEE)


async def list_supervisor(request: web.Request) -> web.Response:
    """The person's own appointments as supervisor, by start; without `from` those of the last 90 days and to come."""
    return await _list(request, Role.SUPERVISOR)


async def list_slots(request: web.Request) -> web.Response:
    """What a pair can book with a start in `[from, to)`: from now and for 14 days unless given."""
    at = now(request)
    since = requests.instant(request, "from") or at
    until = requests.instant(request, "to") or since + SLOTS_SPAN
    if until < since:
        raise NotUnderstood("web.refused.range")
    wanted, length = requests.identifier(request, "pair_id"), requests.number(request, "length")
    supervisor_id = path_id(request)
    async with database(request).transaction() as tx:
        pair = await own_pair(tx, request, wanted)
        if pair.supervisor.id != supervisor_id:
            raise NotFound("refused.pair_not_found")
        pair.require_active()
        found = await availability.slots(tx, pair, since=since, until=until, now=at, length=length)
    return web.Response(body=_slots_json(pair, found), content_type="application/json")


async def book(request: web.Request) -> web.Response:
    """Book a slot as the list of slots gave it: a request, or confirmed at once if that is the pair's setting.

    The supervisor of the pair books on the supervisee's behalf, at any free time.
    """
    wanted = await requests.body(request, schemas.Slot)
    actor, at = visitor(request).actor, now(request)

    async def act(tx: Transaction) -> Appointment:
        pair = await own_pair(tx, request, wanted.pair_id)
        if pair.supervisor.id != wanted.supervisor_id:
            raise NotFound("refused.pair_not_found")
        return await appointments.book(tx, actor, pair, wanted.starts_at, ends_at=wanted.ends_at, now=at)

    asked = Change("appointment.book", "pair", wanted.pair_id, act)
    return await answers.change(request, asked, lambda booked: answers.of_appointment(booked, 201), wanted)


async def show(request: web.Request) -> web.Response:
    """One appointment of the person's own."""
    async with database(request).transaction() as tx:
        appointment = await appointments.get(tx, visitor(request).actor, path_id(request))
    return answers.show_if_new(request, answers.of_appointment(appointment, 200))


async def confirm(request: web.Request) -> web.Response:
    """The supervisor agrees to a request."""
    body = await requests.body(request, schemas.ScopedWord)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    seen = _seen(body)
    return await _change(
        request,
        "confirm",
        body,
        lambda tx, revision: appointments.confirm(tx, actor, identifier, now=at, if_revision=revision),
        lambda tx, revision: groups.confirm(tx, actor, identifier, scope, now=at, if_revision=revision, seen=seen),
    )


async def decline(request: web.Request) -> web.Response:
    """The supervisor says no to a request, or the supervisee to what was booked on their behalf."""
    body = await requests.body(request, schemas.ScopedWord)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    seen = _seen(body)
    return await _change(
        request,
        "decline",
        body,
        lambda tx, revision: appointments.decline(tx, actor, identifier, now=at, if_revision=revision),
        lambda tx, revision: groups.decline(tx, actor, identifier, scope, now=at, if_revision=revision, seen=seen),
    )


async def cancel(request: web.Request) -> web.Response:
    """Either of the two calls an appointment off before it begins."""
    body = await requests.body(request, schemas.Reason)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    reason, seen = (body.reason or "").strip() or None, _seen(body)
    return await _change(
        request,
        "cancel",
        body,
        lambda tx, revision: appointments.cancel(tx, actor, identifier, now=at, reason=reason, if_revision=revision),
        lambda tx, revision: groups.cancel(
            tx, actor, identifier, scope, now=at, reason=reason, if_revision=revision, seen=seen
        ),
    )


async def reschedule(request: web.Request) -> web.Response:
    """Move to another slot, or ask the other whether it may move: then the answer has a `proposal`.

    Others of its series move by as much of wall-clock time, and all keep their lengths.
    """
    body = await requests.body(request, schemas.NewTime)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    seen = _seen(body)

    async def act(tx: Transaction, revision: int | None) -> Appointment:
        await _check_slot(tx, actor, identifier, body)
        return await moves.reschedule(
            tx, actor, identifier, body.starts_at, ends_at=body.ends_at, now=at, if_revision=revision
        )

    async def act_on_several(tx: Transaction, revision: int | None) -> Moved:
        await _check_slot(tx, actor, identifier, body)
        skip = body.on_clash == "skip"
        return await shifts.reschedule(
            tx, actor, identifier, body.starts_at, scope, skip=skip, now=at, if_revision=revision, seen=seen
        )

    return await _change(request, "reschedule", body, act, act_on_several)


async def accept(request: web.Request) -> web.Response:
    """Agree to the proposal: the appointment is at the new time from now on, and confirmed."""
    body = await requests.body(request, schemas.ScopedAnswer)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    shown = _shown(body)
    return await _change(
        request,
        "accept",
        body,
        lambda tx, _: moves.accept(tx, actor, identifier, now=at, if_proposal=body.proposal),
        lambda tx, _: groups.accept(
            tx, actor, identifier, scope, now=at, if_proposal=body.proposal, if_proposals=shown
        ),
    )


async def refuse(request: web.Request) -> web.Response:
    """Say no to the proposal; the old time stands."""
    body = await requests.body(request, schemas.ScopedAnswer)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    shown = _shown(body)
    return await _change(
        request,
        "refuse",
        body,
        lambda tx, _: moves.refuse(tx, actor, identifier, now=at, if_proposal=body.proposal),
        lambda tx, _: groups.refuse(
            tx, actor, identifier, scope, now=at, if_proposal=body.proposal, if_proposals=shown
        ),
    )


async def withdraw(request: web.Request) -> web.Response:
    """Take one's own proposal back; the old time stands."""
    body = await requests.body(request, schemas.ScopedAnswer)
    actor, at, identifier, scope = *_asked(request), Scope(body.scope)
    shown = _shown(body)
    return await _change(
        request,
        "withdraw",
        body,
        lambda tx, _: moves.withdraw(tx, actor, identifier, now=at, if_proposal=body.proposal),
        lambda tx, _: groups.withdraw(
            tx, actor, identifier, scope, now=at, if_proposal=body.proposal, if_proposals=shown
        ),
    )


async def mark(request: web.Request) -> web.Response:
    """The supervisor says how an appointment that has begun went, or corrects that."""
    body = await requests.body(request, schemas.Mark)
    actor, at, identifier = _asked(request)
    status = Status(body.status)
    return await _change(
        request,
        "mark",
        body,
        lambda tx, revision: appointments.mark(tx, actor, identifier, status, now=at, if_revision=revision),
    )


async def _list(request: web.Request, role: Role) -> web.Response:
    someone = person(request, role)
    since, until = requests.instant(request, "from"), requests.instant(request, "to")
    statuses = _statuses(request)
    async with database(request).transaction() as tx:
        page = await queries.page(
            tx,
            since=since or now(request) - LOOK_BACK,
            until=until,
            statuses=statuses,
            supervisor_id=someone.id if role is Role.SUPERVISOR else None,
            supervisee_id=someone.id if role is Role.SUPERVISEE else None,
            after=_cursor(request),
            most=PAGE_ITEMS,
        )
    response = answers.show(schemas.Appointments(items=[schemas.Appointment.of(item) for item in page.items]))
    if page.more:
        response.headers["Link"] = f'<{_next_page(request, page.items[-1])}>; rel="next"'
    return response


def _asked(request: web.Request) -> tuple[Actor, datetime, uuid.UUID]:
    """Who asks, when, and for which appointment."""
    return visitor(request).actor, now(request), path_id(request)


async def _change(
    request: web.Request, action: str, body: Given, act: Act, act_on_several: ActOnSeveral | None = None
) -> web.Response:
    """A change of the appointment in the path, under `If-Match` where it is given; or of several of its series.

    A bare revision in quotes does as well as the whole tag.
    """
    actor, _, identifier = _asked(request)
    expected, reader = requests.tags(request, "If-Match"), visitor(request).reader
    several = act_on_several is not None and isinstance(body, schemas.Scoped) and body.scope != "one"

    async def act_if_match(tx: Transaction) -> Appointment | Moved | list[Appointment]:
        revision = None
        if expected and "*" not in expected:
            seen = await appointments.get_locked(tx, actor, identifier)
            if not requests.agrees(expected, (answers.tag_of(seen), str(seen.revision))):
                raise Stale
            revision = seen.revision
        if several and act_on_several is not None:
            return await act_on_several(tx, revision)
        return await act(tx, revision)

    def answer(changed: Appointment | Moved | list[Appointment]) -> Answer:
        match changed:
            case Moved(moved, clashes):
                return answers.of_several(reader, moved, clashes)
            case list():
                return answers.of_several(reader, changed, [])
            case _:
                return answers.of_appointment(changed, 200)

    return await answers.change(
        request, Change(f"appointment.{action}", "appointment", identifier, act_if_match), answer, body, tagged=True
    )


def _seen(body: schemas.SeenScoped) -> dict[uuid.UUID, int] | None:
    """Raises NotUnderstood where one appointment alone is meant: its revision is what `If-Match` is for."""
    if body.seen is not None and body.scope == "one":
        raise requests.not_understood("seen")
    return None if body.seen is None else {one.id: one.revision for one in body.seen}


def _shown(body: schemas.ScopedAnswer) -> set[uuid.UUID] | None:
    """Raises NotUnderstood where one appointment alone is meant: its proposal is what `proposal` is for."""
    if body.proposals is not None and body.scope == "one":
        raise requests.not_understood("proposals")
    return None if body.proposals is None else set(body.proposals)


async def _check_slot(tx: Transaction, actor: Actor, identifier: uuid.UUID, wanted: schemas.NewTime) -> None:
    """Refuse a slot object of another pair or supervisor than the appointment's, or another length for a series."""
    current = await appointments.get(tx, actor, identifier)
    if wanted.pair_id not in (None, current.pair_id) or wanted.supervisor_id not in (None, current.supervisor_id):
        raise NotFound("refused.slot_not_offered")
    if wanted.ends_at is not None:
        length = requests.minutes(wanted.starts_at, wanted.ends_at)
        if wanted.scope != "one" and length != current.length:
            raise requests.not_understood("ends_at")


def _slots_json(pair: Pair, slots: Iterable[Slot]) -> bytes:
    """What `schemas.Slots` would say. There may be thousands of them, and all are alike but for their times."""
    alike = f'{{"supervisor_id":"{pair.supervisor.id}","pair_id":"{pair.id}","starts_at":"'
    items = ",".join(
        f'{alike}{problems.instant(slot.starts_at)}","ends_at":"{problems.instant(slot.ends_at)}"}}' for slot in slots
    )
    return f'{{"items":[{items}]}}'.encode()


def _statuses(request: web.Request) -> list[Status]:
    """`status=confirmed&status=requested` or `status=confirmed,requested`."""
    words = [word for value in request.query.getall("status", []) for word in value.split(",") if word]
    try:
        return [Status(word) for word in words]
    except ValueError as error:
        raise requests.not_understood("status") from error


def _next_page(request: web.Request, last: Appointment) -> str:
    place = f"{problems.instant(last.starts_at)} {last.id}"
    cursor = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    kept = [(name, value) for name, value in request.query.items() if name in ("from", "to", "status")]
    return f"{request.path}?{urlencode([*kept, ('cursor', cursor)])}"


def _cursor(request: web.Request) -> tuple[datetime, uuid.UUID] | None:
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        place = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        starts_at, appointment_id = place.split(" ")
        return schemas.read_instant(starts_at), uuid.UUID(appointment_id)
    except ValueError as error:
        raise requests.not_understood("cursor") from error

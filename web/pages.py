"""HTML pages: one template environment, what every template may call, and answers made of it."""

import secrets
from datetime import datetime, time
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from supervision.errors import Refused
from supervision.models import Role, Status
from supervision.texts import Moment, Reader, Span
from web import problems, sessions
from web.assets import asset
from web.repeats import Answer
from web.state import VISITOR, Visitor, parts

HOMES = {Role.SUPERVISOR: "/supervisor", Role.SUPERVISEE: "/appointments", Role.ADMIN: "/admin"}
SHAPES: dict[str, str] = {
    Status.REQUESTED: "◌",
    Status.CONFIRMED: "●",
    Status.DECLINED: "✕",
    Status.CANCELLED: "✕",
    Status.COMPLETED: "✓",
    Status.NO_SHOW: "–",
    "cancelled_late": "⊗",
    "proposed": "⇄",
}
# One-line results of what was just done, by the word that a redirect carries.
RESULTS = frozenset(
    {
        "requested",
        "booked",
        "booked_for",
        "confirmed",
        "declined",
        "cancelled",
        "moved",
        "move_requested",
        "move_proposed",
        "accepted",
        "refused",
        "withdrawn",
        "marked",
        "saved",
        "mail_resumed",
        "calendar_added",
        "calendar_removed",
        "waiting",
        "left",
        "passed",
        "away",
        "series",
        "series_moved",
        "series_moved_some",
        "identity_confirmed",
        "feed_opened",
        "feed_renewed",
        "feed_closed",
        "answer_accept",
        "answer_tentative",
        "answer_decline",
        "answer_refused",
        "signed_out",
        "registered",
        "address_asked",
        "address_changed",
        "password_changed",
        "devices_out",
        "person_added",
        "person_invited",
        "paired",
        "disabled",
        "pair_archived",
        "pair_reopened",
        "room_renewed",
        "pair_held",
        "pair_released",
        "room_removed",
        "handed_over",
        "invited_again",
    }
)

DAYS_OPEN = 5  # days with free times that are shown at once; the others behind one press
TIMES_OPEN = 5  # of a series that stand before what is to be done with one or several of it; more behind one press
COMING_OPEN = 4  # appointments after the next one, likewise

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals.update(
    asset=asset,
    SHAPES=SHAPES,
    HOMES=HOMES,
    DAYS_OPEN=DAYS_OPEN,
    TIMES_OPEN=TIMES_OPEN,
    COMING_OPEN=COMING_OPEN,
    Span=Span,
    Moment=Moment,
    instant=problems.instant,
)


def render(
    request: web.Request,
    template: str,
    *,
    status: int = 200,
    alert: Refused | str | None = None,
    visitor: Visitor | None = None,
    browser: str | None = None,
    **values: object,
) -> web.Response:
    """A page of that template. `alert` is what went wrong, told above the content."""
    seen = visitor or request[VISITOR]
    person = seen.session.person if seen.session else None
    reader = seen.reader
    done = request.query.get("done", "")
    html = ENVIRONMENT.get_template(template).render(
        reader=reader,
        t=reader.say,
        count=reader.say_count,
        person=person,
        homes=[role for role in HOMES if person and role in person.roles],
        path=request.path,
        form_token=sessions.form_token(request, browser) if VISITOR in request else "",
        once=secrets.token_urlsafe(16),
        result=reader.say(f"web.done.{done}") if done in RESULTS and alert is None else None,
        alert=problems.sentence(reader, alert) if isinstance(alert, Refused) else alert,
        demo=parts(request).demo,
        city_of=lambda zone: Reader(reader.language, zone).city(),
        noon=lambda day: datetime.combine(day, time(12), tzinfo=reader.zone),
        other_clock=lambda zone, at: other_clock(reader, zone, at),
        **values,
    )
    return web.Response(status=status, text=html, content_type="text/html")


def other_clock(reader: Reader, zone: str, at: datetime) -> str:
    """The time on another person's clock, with its day where that differs."""
    other = Reader(reader.language, zone).as_of(reader.now)
    day = f"{other.day(at)}, " if other.day(at) != reader.day(at) else ""
    return f"{day}{other.clock(at)}"


def go(location: str, done: str | None = None) -> web.Response:
    """See Other (RFC 9110, section 15.4.4), with the word of a one-line result."""
    return web.Response(status=303, headers={"Location": f"{location}?done={done}" if done else location})


def see(location: str, done: str) -> Answer:
    """The same as an answer that can be kept; the location may have a query already."""
    return Answer(303, {"Location": f"{location}{'&' if '?' in location else '?'}done={done}"})


def respond(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers)


def home(visitor: Visitor) -> str:
    """Where `/` leads by role."""
    roles = visitor.session.person.roles if visitor.session else ()
    return next((path for role, path in HOMES.items() if role in roles), "/sign-in")


def days_until(reader: Reader, at: datetime, now: datetime) -> str:
    """`hoje`, `amanhã`, `em 3 dias`: counted in calendar days of the reader's zone."""
    days = (at.astimezone(reader.zone).date() - now.astimezone(reader.zone).date()).days
    if days in (0, 1):
        return reader.say(("web.today", "web.tomorrow")[days])
    return reader.say_count("web.in_days", days) if days > 0 else ""

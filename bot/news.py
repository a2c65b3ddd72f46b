"""What each notification of the outbox says in the room, as things stand when it is said."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from bot import customs, lists
from bot.replies import NO, YES, Line
from supervision import appointments, attendances, exports, queries, rooms, waits
from supervision.appointments import OPEN, Appointment
from supervision.audit import Actor
from supervision.db import Transaction
from supervision.errors import NotFound
from supervision.models import PairStatus, Question, Status
from supervision.notifications import Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.questions import Asked
from supervision.texts import Clocks, Minutes, Moment, Moments, Span, from_json, reader

Range = tuple[datetime, datetime]
NOON = time(12)  # a day's, which has the same date in its zone whatever its clocks do


@dataclass(frozen=True)
class Message:
    """What a notification says. `keys` are the reactions put under it; `asked` the question it is."""

    lines: tuple[Line, ...]
    mentions: tuple[Person, ...] = ()
    keys: tuple[str, ...] = ()
    asked: Asked | None = None
    thread_root: str | None = None
    starts_at: datetime | None = None  # the earliest start that it speaks of


@dataclass(frozen=True)
class News:
    """A notification with the pair in whose room it is said, and when."""

    row: Notification
    pair: Pair
    now: datetime

    @property
    def addressee(self) -> Person:
        return self.pair.member(self.row.person_id)

    @property
    def who(self) -> str:
        """The name of whoever acted; empty where nobody did."""
        by = self.row.details.get("by")
        return self.pair.member(uuid.UUID(by)).name if by else ""

    @property
    def names(self) -> dict[str, object]:
        """What most sentences name; the city is the reader's."""
        city = reader(self.addressee.language, self.addressee.time_zone).city()
        both = {"supervisor": self.pair.supervisor.name, "supervisee": self.pair.supervisee.name}
        return {**both, "who": self.who, "city": city}

    @property
    def other_zone(self) -> str:
        return self.pair.other(self.row.person_id).time_zone

    def span(self, starts_at: datetime, ends_at: datetime, *, brief: bool = False) -> Span:
        return Span(starts_at, ends_at, self.other_zone, brief)

    def told(self, key: str, **params: object) -> Message:
        """One sentence to the addressee."""
        return Message((Line(key, {**self.names, **params}),), (self.addressee,))

    def asking(self, message: Message, kind: Question, until: datetime, *, only_no: bool = False) -> Message:
        """The same, as a question that is open until then."""
        asked = Asked(self.row.id, self.pair.id, self.row.person_id, kind, until)
        return replace(message, keys=(NO,) if only_no else (YES, NO), asked=asked)


async def compose(tx: Transaction, notification: Notification, pair: Pair, *, now: datetime) -> Message | None:
    """What a notification says now; None where what it speaks of is out of date and other news tells the rest."""
    news = News(notification, pair, now)
    match notification.kind.partition(".")[0]:
        case "room":
            return await _of_room(tx, news)
        case "pair":
            return _of_pair(news)
        case "identity":
            return _of_identity(news)
        case "wait":
            return await _of_wait(tx, news)
        case "series":
            return await _of_series(tx, news)
        case "attendance":
            return await _of_attendance(tx, news)
        case "mailbox":
            return _of_mailbox(news)
        case "retention":
            return _of_retention(news)
        case "export":
            return await _of_export(tx, news)
    if notification.appointment_id is None:
        raise NotFound("refused.appointment_not_found")
    reads = Actor(notification.person_id, "system")
    appointment = await appointments.get(tx, reads, notification.appointment_id)
    if notification.revision is not None and notification.revision < appointment.revision:
        return None  # every change of the revision has its own news, the last one too
    if notification.kind.startswith("move."):
        return _starting(_of_move(news, appointment), [appointment.starts_at])
    was = [datetime.fromisoformat(one) for one in [notification.details.get("was")] if one]
    return _starting(_of_appointment(news, appointment), [appointment.starts_at, *was])


def compose_reply(notification: Notification) -> Message:
    """An answer to a command, as handlers.py put it into the outbox."""
    details = notification.details
    lines = tuple(Line(key, dict(from_json(params))) for key, params in details["lines"])
    return Message(lines, (), tuple(details.get("keys", ())), None, details.get("thread"))


def _of_appointment(news: News, one: Appointment) -> Message | None:
    details = news.row.details
    span = news.span(one.starts_at, one.ends_at)
    match news.row.kind:
        case "appointment.requested":
            return _request(news, one, news.told("news.requested", span=span, until=_until(one)))
        case "appointment.booked":
            return _booked(news, one, span)
        case "appointment.confirmed":
            return news.told("news.confirmed_at_once" if details.get("automatic") else "news.confirmed", span=span)
        case "appointment.declined":
            return news.told(_declined(news, one), span=span)
        case "appointment.cancelled":
            told = news.told(_cancelled(details), span=span)
            if not details.get("reason"):
                return told
            return replace(told, lines=(*told.lines, Line("news.reason", {"reason": details["reason"]})))
        case "appointment.rescheduled":
            was = datetime.fromisoformat(details["was"])
            times = {"was": news.span(was, was + (one.ends_at - one.starts_at)), "span": span}
            if one.status is Status.REQUESTED and news.row.person_id == one.supervisor_id:
                return _request(news, one, news.told("news.rescheduled_ask", **times, until=_until(one)))
            return news.told("news.move_accepted" if details.get("accepted") else "news.rescheduled", **times)
        case "appointment.reminder":
            return _reminder(news, one)
        case "appointment.marked":
            return news.told(f"news.marked_{one.status}", span=span) if details["status"] == one.status else None
    raise NotFound("refused.not_found")


def _starting(message: Message | None, starts: Sequence[datetime]) -> Message | None:
    return message and replace(message, starts_at=min(starts))


def _reminder(news: News, one: Appointment) -> Message | None:
    """How long it is until then by the clock, since it may come late; the address of an online one with it."""
    if one.status is not Status.CONFIRMED or one.starts_at <= news.now:
        return None
    person, other = news.addressee, news.pair.other(news.row.person_id)
    today = one.starts_at.astimezone(person.zone).date() == news.now.astimezone(person.zone).date()
    when = Clocks((one.starts_at,)) if today else Moments((one.starts_at,))
    left = Minutes(until_then(one.starts_at - news.now))
    link = one.place.startswith(("https://", "http://"))
    key = "news.reminder_link" if link else "news.reminder"
    return news.told(key, left=left, other=other.name, when=when, place=one.place)


def until_then(left: timedelta) -> int:
    """In minutes, as people say it: minutes for an hour and a half, then whole hours, then whole days."""
    minutes = max(1, round(left / timedelta(minutes=1)))
    unit = 1 if minutes < 90 else 60 if minutes < 36 * 60 else 24 * 60
    return round(minutes / unit) * unit


def _request(news: News, one: Appointment, told: Message) -> Message | None:
    """A request as the question that it is, while it can be answered."""
    until = one.answer_by or one.starts_at
    if one.status is not Status.REQUESTED or until <= news.now:
        return None
    return _about(news.asking(told, Question.ANSWER_REQUEST, until), one)


def _booked(news: News, one: Appointment, span: Span) -> Message:
    """What the supervisor booked can be declined until it begins; to agree there is nothing to do."""
    told = news.told("news.booked", span=span)
    if one.status is not Status.CONFIRMED or one.starts_at <= news.now:
        return told
    asking = _about(news.asking(told, Question.ANSWER_REQUEST, one.starts_at, only_no=True), one)
    return replace(asking, asked=asking.asked and replace(asking.asked, details={"only_no": True}))


def _about(message: Message, one: Appointment) -> Message:
    return replace(
        message, asked=message.asked and replace(message.asked, appointment_id=one.id, revision=one.revision)
    )


def _declined(news: News, one: Appointment) -> str:
    if news.row.details.get("lapsed"):
        return "news.lapsed" if news.row.person_id == one.supervisee_id else "news.lapsed_unanswered"
    return "news.declined" if news.row.person_id == one.supervisee_id else "news.declined_booking"


def _cancelled(details: Mapping[str, Any]) -> str:
    if details.get("archived"):
        return "news.cancelled_archived"
    return "news.cancelled_late" if details.get("late") else "news.cancelled"


def _of_move(news: News, one: Appointment) -> Message | None:
    """Of a proposal: asked while it is the open one, and told what became of it."""
    details, now = news.row.details, news.span(one.starts_at, one.ends_at)
    if news.row.kind in ("move.refused", "move.withdrawn", "move.lapsed"):
        proposed = news.span(*_range(details["proposed"]))
        key = f"news.move_{news.row.kind.removeprefix('move.')}"
        return news.told(key, proposed=proposed, span=now)
    proposal = one.proposal
    if proposal is None or str(proposal.id) != details["proposal"]:
        return None
    if proposal.answer_by <= news.now:
        return None
    times = {"was": now, "span": news.span(proposal.starts_at, proposal.ends_at)}
    told = news.told("news.move_proposed", **times, until=Moments((proposal.answer_by,)))
    asking = _about(news.asking(told, Question.ANSWER_MOVE, proposal.answer_by), one)
    return replace(asking, asked=asking.asked and replace(asking.asked, choices=[proposal.id]))


async def _of_wait(tx: Transaction, news: News) -> Message | None:
    """Of a time that is kept for somebody who waits: asked while it is."""
    starts_at, ends_at = _range(news.row.details["slot"])
    span = news.span(starts_at, ends_at)
    if news.row.kind == "wait.lapsed":
        return news.told(
            "news.offer_withdrawn" if news.row.details.get("withdrawn") else "news.offer_lapsed", span=span
        )
    wait = await waits.find(tx, uuid.UUID(news.row.details["wait"]))
    offer = wait.offer if wait is not None and wait.ended_at is None else None
    if wait is None or offer is None or offer.starts_at != starts_at or offer.until <= news.now:
        return None
    told = news.told("news.offer", span=span, until=Moments((offer.until,)))
    asking = replace(news.asking(told, Question.ANSWER_OFFER, offer.until), starts_at=starts_at)
    return replace(asking, asked=asking.asked and replace(asking.asked, choices=[wait.id], slots=[starts_at]))


async def _of_series(tx: Transaction, news: News) -> Message | None:
    """Of several of a series: what was done first, then the times that it still holds for."""
    kind = news.row.kind.removeprefix("series.")
    if kind in ("refused", "withdrawn", "lapsed"):
        proposed = [_range(one) for one in news.row.details["proposed"]]
        return _grouped(news, f"news.series_move_{kind}", lists.times(proposed, news.other_zone))
    found = await _as_told(tx, news)
    if not found:
        return None
    was = [datetime.fromisoformat(one) for one in news.row.details.get("was", ())]
    return _starting(_of_several(news, kind, found), [*(one.starts_at for one in found), *was])


def _of_several(news: News, kind: str, found: Sequence[Appointment]) -> Message | None:
    match kind:
        case "requested":
            return _series_request(news, found, "news.series_requested", _times(news, found))
        case "booked":
            told = _grouped(news, "news.series_booked", _times(news, found))
            return _series_question(news, told, found, max(one.starts_at for one in found), only_no=True)
        case "confirmed":
            automatic = news.row.details.get("automatic")
            key = "news.series_confirmed_at_once" if automatic else "news.series_confirmed"
            return _grouped(news, key, _times(news, found))
        case "declined":
            lapsed = news.row.details.get("lapsed")
            return _grouped(news, "news.series_lapsed" if lapsed else "news.series_declined", _times(news, found))
        case "cancelled":
            key = "news.series_cancelled_archived" if news.row.details.get("archived") else "news.series_cancelled"
            return _grouped(news, key, (*_times(news, found), *_why_cancelled(news)))
        case "proposed":
            moved = [(one, one.proposal.starts_at, one.proposal.ends_at) for one in found if one.proposal]
            lines = _moved(news, [((one.starts_at, one.ends_at), (start, end)) for one, start, end in moved])
            return _series_proposed(news, found, lines)
        case "rescheduled":
            return _series_rescheduled(news, found)
    raise NotFound("refused.not_found")


async def _as_told(tx: Transaction, news: News) -> list[Appointment]:
    """Those that are still as the news says: of the same revision, with the same proposal where it is about one."""
    details = news.row.details
    revisions = dict(zip(details["appointments"], details["revisions"], strict=True))
    found = await queries.group(tx, news.pair.id, [uuid.UUID(one) for one in revisions])
    if news.row.kind == "series.proposed":
        shown = set(details["proposals"])
        return [one for one in found if one.proposal is not None and str(one.proposal.id) in shown]
    return [one for one in found if revisions[str(one.id)] == one.revision]


def _series_request(news: News, found: Sequence[Appointment], key: str, lines: Sequence[Line]) -> Message | None:
    asked = [one for one in found if one.status is Status.REQUESTED]
    if not asked:
        return None
    until = min(one.answer_by or one.starts_at for one in asked)
    if until <= news.now:
        return None
    told = _grouped(news, key, lines, until=Moments((until,)))
    return _series_question(news, told, asked, max(one.answer_by or one.starts_at for one in asked))


def _series_proposed(news: News, found: Sequence[Appointment], lines: Sequence[Line]) -> Message | None:
    deadlines = [one.proposal.answer_by for one in found if one.proposal]
    if min(deadlines) <= news.now:
        return None
    told = _grouped(news, "news.series_proposed", lines, until=Moments((min(deadlines),)))
    return _series_question(news, told, found, max(deadlines))


def _series_rescheduled(news: News, found: Sequence[Appointment]) -> Message | None:
    before = dict(zip(news.row.details["appointments"], news.row.details["was"], strict=True))
    starts = [datetime.fromisoformat(before[str(one.id)]) for one in found]
    times = zip(starts, found, strict=True)
    moved = [((was, was + (one.ends_at - one.starts_at)), (one.starts_at, one.ends_at)) for was, one in times]
    lines = _moved(news, moved)
    if found[0].status is Status.REQUESTED and news.row.person_id == found[0].supervisor_id:
        return _series_request(news, found, "news.series_rescheduled_ask", lines)
    accepted = news.row.details.get("accepted")
    return _grouped(news, "news.series_move_accepted" if accepted else "news.series_rescheduled", lines)


def _series_question(
    news: News, told: Message, found: Sequence[Appointment], until: datetime, *, only_no: bool = False
) -> Message:
    if until <= news.now:
        return told
    asking = news.asking(told, Question.ANSWER_SERIES, until, only_no=only_no)
    details = {
        "series": news.row.details["series"],
        "appointments": [str(one.id) for one in found],
        "revisions": [one.revision for one in found],
        "only_no": only_no,
    }
    if news.row.kind == "series.proposed":
        details["proposals"] = [str(one.proposal.id) for one in found if one.proposal]
    choices = [one.id for one in found]
    return replace(asking, asked=asking.asked and replace(asking.asked, choices=choices, details=details))


def _grouped(news: News, key: str, lines: Sequence[Line], **params: object) -> Message:
    """The sentence that says what was done, the times, and those that were left out of it."""
    told = news.told(key, **params)
    skipped = [datetime.fromisoformat(one) for one in news.row.details.get("skipped", ())]
    moves = news.row.kind in ("series.proposed", "series.rescheduled")
    left = "news.series_stayed" if moves else "news.series_skipped"
    more = [Line(left, {"times": Moments(tuple(skipped[: lists.MOST_TIMES]))})] if skipped else []
    return replace(told, lines=(*told.lines, *lines, *more))


def _times(news: News, found: Sequence[Appointment]) -> tuple[Line, ...]:
    return lists.times([(one.starts_at, one.ends_at) for one in found], news.other_zone)


def _moved(news: News, found: Sequence[tuple[Range, Range]]) -> tuple[Line, ...]:
    """From when to when, one a line."""
    shown = tuple(
        Line("list.moved", {"was": news.span(*was, brief=True), "span": news.span(*moved, brief=True)})
        for was, moved in found[: lists.MOST_TIMES]
    )
    if len(found) <= lists.MOST_TIMES:
        return shown
    return *shown, Line("list.more", {"count": len(found) - lists.MOST_TIMES})


def _why_cancelled(news: News) -> list[Line]:
    details = news.row.details
    lines = [Line("news.series_late", {"count": len(details["late"])})] if details.get("late") else []
    return lines + ([Line("news.reason", {"reason": details["reason"]})] if details.get("reason") else [])


async def _of_attendance(tx: Transaction, news: News) -> Message | None:
    """What a calendar answered, while it still says so. Whoever declined is asked what is to be done."""
    kind, by = news.row.kind.removeprefix("attendance."), uuid.UUID(news.row.details["by"])
    if kind == "refused":
        lines = tuple(Line(key, dict(from_json(params))) for key, params in news.row.details["lines"])
        by_hand = lines[0].key == "refused.mail_not_read"
        return Message(lines if by_hand else (Line("news.attendance_refused"), *lines), (news.addressee,))
    one = None
    if news.row.appointment_id is not None:
        one = await appointments.get(tx, Actor(by, "system"), news.row.appointment_id)
        found = [one] if one.revision == news.row.revision else []
    else:
        found = await _as_told(tx, news)
    answered = [each for each in found if (await attendances.of(tx, each)).get(by) == kind and each.status in OPEN]
    answered = [each for each in answered if each.starts_at > news.now]
    if not answered:
        return None
    asks_request = kind == "declined" and answered[0].status is Status.REQUESTED and by == answered[0].supervisor_id
    key = f"{kind}_request" if asks_request else kind
    if one is None:
        told = _grouped(news, f"news.attendance_series_{key}", _times(news, answered))
    else:
        told = news.told(f"news.attendance_{key}", span=news.span(one.starts_at, one.ends_at))
    message = _declined_question(news, told, answered, one) if kind == "declined" else told
    return _starting(message, [each.starts_at for each in answered])


def _declined_question(news: News, told: Message, found: Sequence[Appointment], one: Appointment | None) -> Message:
    asking = news.asking(told, Question.ANSWER_ATTENDANCE, max(each.starts_at for each in found))
    if one is not None:
        return _about(asking, one)
    choices, revisions = [each.id for each in found], [each.revision for each in found]
    asked = asking.asked and replace(asking.asked, choices=choices, details={"revisions": revisions})
    return replace(asking, asked=asked)


def _of_retention(news: News) -> Message | None:
    """That messages will go, to one or both, who are called by it; or that they are gone, which calls nobody."""
    details = news.row.details
    if "until" not in details:
        return None  # a hold came before it
    until = Moments((datetime.fromisoformat(details["until"]),))
    if news.row.kind == "retention.done":
        return Message((Line("news.retention_done", {**news.names, "until": until}),))
    readers = tuple(person for person in news.pair.people if str(person.id) in details["people"])
    since, age = Moments((datetime.fromisoformat(details["since"]),)), Minutes(details["days"] * 24 * 60)
    params = {**news.names, "since": since, "until": until, "age": age}
    return Message((Line("news.retention_announced", params),), readers)


def _of_mailbox(news: News) -> Message:
    """That mails to one of the two come back: to themselves, who can mend it, and to the other."""
    whose = news.pair.member(uuid.UUID(news.row.details["whose"]))
    if whose.id == news.row.person_id:
        return news.told("news.mailbox_own")
    return news.told("news.mailbox_other", name=whose.name)


async def _of_export(tx: Transaction, news: News) -> Message | None:
    """Of a room that is taken home. The question is told with its code while it is open; nothing is put under it."""
    kind = news.row.kind.removeprefix("export.")
    if kind == "ready":
        return news.told("news.export_ready", until=Moment(news.row.created_at + exports.KEPT))
    if kind == "refused" and news.row.details.get("lapsed"):
        return news.told("news.export_lapsed")
    if kind != "asked":
        return news.told(f"news.export_{kind}")
    asked = await exports.asked(tx, news.pair.id, news.row.person_id, now=news.now)
    if asked is None or asked.notification_id != news.row.id:
        return None
    until = Moment(asked.expires_at)
    if news.pair.status is not PairStatus.ACTIVE:  # nobody can type there
        return news.told("news.export_asked_closed", until=until)
    return news.told("news.export_asked", until=until, code=asked.code or "")


def _of_identity(news: News) -> Message:
    whose = news.pair.member(uuid.UUID(news.row.details["whose"]))
    key = "news.identity_changed" if news.row.kind == "identity.changed" else "news.identity_confirmed"
    return Message((Line(key, {"who": whose.name}),), (news.pair.other(whose.id),))


async def _of_room(tx: Transaction, news: News) -> Message:
    if news.row.kind == "room.summary":
        return await _summary(tx, news)
    if news.row.kind == "room.name_taken":
        whose = news.pair.member(uuid.UUID(news.row.details["whose"]))
        return news.told("news.name_taken", name=whose.name, bot=news.row.details["bot"])
    if news.row.kind == rooms.KIND:
        return _settings(news)
    if news.row.kind == "room.left":
        return news.told("news.left", who=news.pair.member(uuid.UUID(news.row.details["who"])).name)
    return _introduction(news)


def _of_pair(news: News) -> Message:
    """That the room is closed, or will be, or is open again; by somebody, or by its last day."""
    kind = news.row.kind.removeprefix("pair.")
    if kind == "expiring":
        last = date.fromisoformat(news.row.details["last"])
        says = reader(news.addressee.language, news.addressee.time_zone)
        return news.told("news.pair_expiring", day=says.day_of_year(datetime.combine(last, NOON, says.zone)))
    return news.told(f"news.pair_{kind}_by" if news.who else f"news.pair_{kind}")


def _settings(news: News) -> Message:
    """What of the room's settings is another now."""
    details = news.row.details
    says = reader(news.addressee.language, news.addressee.time_zone).as_of(news.now)
    by_one = details["by"] in {str(person.id) for person in news.pair.people}
    if by_one:
        told = news.told("news.room_settings")
    else:
        told = Message((Line("news.room_settings_system"),), (news.addressee,))
    removal = details["removal"] and tuple(map(datetime.fromisoformat, details["removal"]))
    lines = (*customs.lines_for(says, details["changed"]), *customs.removal_line(says, removal))
    return replace(told, lines=(*told.lines, *lines))


def _introduction(news: News) -> Message:
    """To one or both, once in each of their languages."""
    readers = tuple(person for person in news.pair.people if str(person.id) in news.row.details["people"])
    if len(readers) == 1:
        other = news.pair.other(readers[0].id).name
        return Message((Line("room.introduction_one", {"names": readers[0].name, "other": other}),), readers)
    names = ", ".join(person.name for person in readers)
    return Message((Line("room.introduction", {"names": names}),), readers)


async def _summary(tx: Transaction, news: News) -> Message:
    """How things stand, for somebody whom the bot could not write to for a while."""
    person = news.addressee
    coming = await queries.coming(tx, person.id, now=news.now, pair_id=news.pair.id)
    if not coming:
        return Message((Line("summary.none", {"name": person.name}),), (person,))
    city = reader(person.language, person.time_zone).city()
    lines = [Line("summary.head", {"name": person.name, "city": city})]
    lines += await lists.lines(tx, news.pair, person, coming)
    if any(one.may_answer(person.id) for one in coming):
        lines.append(Line("summary.answer"))
    ask = lists.question(coming)
    asked = Asked(
        news.row.id,
        news.pair.id,
        person.id,
        ask.kind,
        news.now + timedelta(days=1),
        slots=ask.slots,
        choices=ask.choices,
        details=ask.details,
    )
    return Message(tuple(lines), (person,), (), asked)


def _until(one: Appointment) -> Moments:
    return Moments((one.answer_by or one.starts_at,))


def _range(values: Sequence[str]) -> Range:
    starts_at, ends_at = map(datetime.fromisoformat, values)
    return starts_at, ends_at

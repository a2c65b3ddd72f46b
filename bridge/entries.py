"""The calendar entry that a mail brings along."""

import functools
from dataclasses import replace

from bridge.letters import Booking, Group, Letter
from bridge.smtp import domain, to_ascii
from supervision import calendars, seals
from supervision.appointments import Appointment
from supervision.calendars import GONE, Answer, Method, Organizer
from supervision.config import Config
from supervision.models import Attendance, Status

# A proposal, an offer and what became of them change no calendar; a reminder finds there what it reminds of.
WITHOUT = (
    "appointment.reminder",
    "series.proposed",
    "series.refused",
    "series.withdrawn",
    "series.lapsed",
)
ANSWERED = {
    Attendance.ACCEPTED: Answer.ACCEPTED,
    Attendance.DECLINED: Answer.DECLINED,
    Attendance.TENTATIVE: Answer.TENTATIVE,
}


def entry(letter: Letter, config: Config) -> tuple[Method, bytes] | None:
    """What the recipient's calendar is to do with it, and the iCalendar object; None for what changes no calendar."""
    if not changes_calendar(letter.notification.kind):
        return None
    match letter.subject:
        case Booking():
            return _of_one(letter, letter.subject, config)
        case Group():
            return _of_series(letter, letter.subject, config)
    return None


def changes_calendar(kind: str) -> bool:
    return not kind.startswith("move.") and kind not in WITHOUT


def organizer(letter: Letter, config: Config, appointment: Appointment | None = None) -> Organizer:
    """Ourselves, at the recipient's own address where answers are read, else at the one that we send from.

    Its page is the appointment's, or the recipient's list where none is given or it does not take place.
    """
    sender = to_ascii(config.mail.sender)
    return Organizer(
        config.mail.sender_name,
        reply_address(letter, config) or sender,
        page(letter, config, appointment),
        domain(sender),
        answers=config.inbound is not None,
    )


def reply_address(letter: Letter, config: Config) -> str | None:
    """The recipient's own address at our domain; None where nobody listens there."""
    if config.inbound is None:
        return None
    return seals.reply_address(config.secret.get_secret_value(), letter.recipient.id, config.inbound.domain)


def page(letter: Letter, config: Config, appointment: Appointment | None) -> str:
    if appointment is not None and appointment.status not in GONE:
        return f"{config.web.base_url}/appointments/{appointment.id}"
    match letter.subject:
        case Booking(appointment=one) | Group(told=(one, *_)) if supervises(letter, one):
            return f"{config.web.base_url}/supervisor"
    return f"{config.web.base_url}/appointments"


def supervises(letter: Letter, appointment: Appointment) -> bool:
    """Whether the recipient is the supervisor in it."""
    return letter.recipient.id == appointment.supervisor_id


def by(letter: Letter) -> str:
    """Who did it, as the reader sees it: `you`, `other`, or `system` where nobody did."""
    actor = letter.notification.details.get("by")
    if actor is None:
        return "system"
    return "you" if actor == str(letter.recipient.id) else "other"


def _of_one(letter: Letter, booking: Booking, config: Config) -> tuple[Method, bytes]:
    appointment = booking.appointment
    return calendars.method(appointment), calendars.write(
        appointment,
        replace(letter.recipient, email=to_ascii(letter.recipient.email)),
        booking.other,
        organizer(letter, config, appointment),
        stamp=letter.notification.created_at,
        answer=_answer(letter, appointment),
        series=booking.series,
        alarms=letter.wishes.alarms,
    )


def _of_series(letter: Letter, group: Group, config: Config) -> tuple[Method, bytes]:
    recipient = replace(letter.recipient, email=to_ascii(letter.recipient.email))
    stamp, whose = letter.notification.created_at, organizer(letter, config)
    if group.told[0].status in GONE:
        return Method.CANCEL, calendars.write_gone(
            group.series, group.occurrences, group.told, recipient, group.other, whose, stamp=stamp
        )
    return Method.REQUEST, calendars.write_series(
        group.series,
        group.occurrences,
        recipient,
        group.other,
        whose,
        stamp=stamp,
        told=group.told,
        answer=functools.partial(_answer, letter),
        alarms=letter.wishes.alarms,
    )


def _answer(letter: Letter, appointment: Appointment) -> Answer:
    """PARTSTAT: what their calendar answered to this time, until the supervisor agrees to it by another way.

    Without that, accepted by whoever asked for this time or agreed to it, open for whom it was only put to.

    A changed time asks anew (RFC 5546, 3.2.2.1), but ours changes by consent alone: the other's proposal was accepted,
    the request is still to be answered, or the supervisor has agreed beforehand by approving automatically.
    """
    if appointment.status not in GONE and appointment.id in letter.answers:
        return ANSWERED[letter.answers[appointment.id]]
    if appointment.status is Status.REQUESTED:
        return Answer.OPEN if supervises(letter, appointment) else Answer.ACCEPTED
    if appointment.status in GONE or letter.notification.kind in ("appointment.booked", "series.booked"):
        return Answer.ACCEPTED if by(letter) == "you" else Answer.OPEN
    return Answer.ACCEPTED

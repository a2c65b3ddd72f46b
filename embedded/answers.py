"""What a calendar does when its owner answers an invitation, and what our own mail server does with that answer.

The demo's people have no calendar: its mailbox has buttons instead, and they do this.
"""

import asyncio
import email.policy
import smtplib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser

from icalendar import Calendar, Event

from embedded.processes import EmbeddedFailed

ANSWERS = {"accept": "ACCEPTED", "tentative": "TENTATIVE", "decline": "DECLINED"}
WAIT = 15.0  # seconds for each step of the handing over
KEPT = ("UID", "SEQUENCE", "RECURRENCE-ID", "DTSTART", "DTEND", "DURATION", "ORGANIZER", "SUMMARY")


@dataclass(frozen=True)
class Reply:
    """An answer as a mail: from the invited address, to the one that the invitation names as its organizer."""

    sender: str
    recipient: str
    content: bytes


def reply(mail: bytes, answer: str, authserv_id: str, *, now: datetime) -> Reply | None:
    """The iTIP REPLY (RFC 5546, 3.2.3) to a mail's invitation; `answer` is one of `ANSWERS`.

    It carries the word of our mail server, named `authserv_id`, that its author is who they say (RFC 8601).
    None for a mail without an invitation.
    """
    invitation = _invitation(mail)
    if invitation is None:
        return None
    calendar = Calendar()
    calendar.add("prodid", "-//Visavis//Demo//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "REPLY")
    for event in invitation.events:
        calendar.add_component(_answered(event, ANSWERS[answer], now))
    first = invitation.events[0]
    attendee, organizer = (str(first[name]).partition(":")[2] for name in ("ATTENDEE", "ORGANIZER"))
    message = EmailMessage(policy=email.policy.SMTP)
    message["Authentication-Results"] = f"{authserv_id}; dmarc=pass header.from={attendee.rpartition('@')[2]}"
    message["From"] = attendee
    message["To"] = organizer
    message["Subject"] = ANSWERS[answer].capitalize()
    message["Date"] = now.astimezone(UTC)
    message.set_content(calendar.to_ical().decode(), subtype="calendar", params={"method": "REPLY"}, cte="base64")
    return Reply(attendee, organizer, message.as_bytes())


async def hand_over(answered: Reply, host: str, port: int) -> None:
    """Give it to the bridge's listener by LMTP (RFC 2033). Raises EmbeddedFailed where it is not taken."""

    def send() -> None:
        with smtplib.LMTP(host, port, local_hostname="localhost", timeout=WAIT) as server:
            server.sendmail(answered.sender, [answered.recipient], answered.content)

    try:
        await asyncio.to_thread(send)
    except (OSError, smtplib.SMTPException) as error:
        raise EmbeddedFailed("The bridge did not take the answer.") from error


def _invitation(mail: bytes) -> Calendar | None:
    message = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(mail)
    for part in message.walk():
        if part.get_content_type() == "text/calendar" and part.get_param("method") == "REQUEST":
            calendar = Calendar.from_ical(part.get_content())
            return calendar if isinstance(calendar, Calendar) and calendar.events else None
    return None


def _answered(event: Event, partstat: str, now: datetime) -> Event:
    answered = Event()
    for name in KEPT:
        if name in event:
            answered[name] = event[name]
    answered.add("dtstamp", now.astimezone(UTC))
    attendee = event["ATTENDEE"]
    attendee.params = type(attendee.params)({"CN": attendee.params.get("CN", ""), "PARTSTAT": partstat})
    answered["ATTENDEE"] = attendee
    return answered

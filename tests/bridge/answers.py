"""Mails as calendars and mail servers write them, after their habits: what they fold, leave out and encode."""

import base64
import quopri
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

AUTHSERV = "mx.clinic.example.org"


@dataclass(frozen=True)
class Said:
    """What a calendar answers, whoever writes it."""

    uid: str
    attendee: str
    organizer: str
    stamp: datetime
    partstat: str = "ACCEPTED"
    sequence: int | None = 0
    method: str = "REPLY"
    starts_at: datetime = datetime(2026, 11, 25, 13, tzinfo=UTC)
    length: timedelta = timedelta(minutes=50)
    occurrence: str | None = None  # the whole RECURRENCE-ID line
    more: tuple[str, ...] = field(default=())

    @property
    def ends_at(self) -> datetime:
        return self.starts_at + self.length


def utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def fold(lines: Sequence[str], end: str = "\r\n") -> str:
    """RFC 5545, 3.1: at 75 octets, here by characters."""
    folded = []
    for line in lines:
        folded.append(line[:74])
        folded += [" " + line[at : at + 73] for at in range(74, len(line), 73)]
    return end.join(folded) + end


def google(said: Said) -> str:
    """All of the entry comes back, with X- properties and a comment; ORGANIZER kept."""
    lines = [
        "BEGIN:VCALENDAR",
        "PRODID:-//Google Inc//Google Calendar 70.9054//EN",
        "VERSION:2.0",
        "CALSCALE:GREGORIAN",
        f"METHOD:{said.method}",
        "BEGIN:VEVENT",
        f"DTSTART:{utc(said.starts_at)}",
        f"DTEND:{utc(said.ends_at)}",
        f"DTSTAMP:{utc(said.stamp)}",
        f"ORGANIZER;CN=Visavis:mailto:{said.organizer}",
        f"UID:{said.uid}",
        "ATTENDEE;CUTYPE=INDIVIDUAL;ROLE=REQ-PARTICIPANT;PARTSTAT="
        f"{said.partstat};CN={said.attendee};X-NUM-GUESTS=0:mailto:{said.attendee}",
        "X-GOOGLE-CONFERENCE:https://meet.example.org/abc",
        *([said.occurrence] if said.occurrence else []),
        "CLASS:PRIVATE",
        "CREATED:20261120T100000Z",
        "COMMENT:até já\\, obrigado",
        "DESCRIPTION:Visavis: supervision https://visavis.example.org/appointments",
        f"LAST-MODIFIED:{utc(said.stamp)}",
        *([] if said.sequence is None else [f"SEQUENCE:{said.sequence}"]),
        *said.more,
        "STATUS:CONFIRMED",
        "SUMMARY:Supervision with Ana",
        "TRANSP:OPAQUE",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return fold(lines)


WINDOWS_ZONE = """\
BEGIN:VTIMEZONE
TZID:E. South America Standard Time
BEGIN:STANDARD
DTSTART:16010101T000000
TZOFFSETFROM:-0300
TZOFFSETTO:-0300
END:STANDARD
END:VTIMEZONE
"""


def outlook(said: Said) -> str:
    """No ORGANIZER in a reply, Windows' names of zones, upper-case addresses, times by the wall clock."""
    clock = "%Y%m%dT%H%M%S"
    starts, ends = (at.astimezone(UTC) - timedelta(hours=3) for at in (said.starts_at, said.ends_at))
    lines = [
        "BEGIN:VCALENDAR",
        f"METHOD:{said.method}",
        "PRODID:Microsoft Exchange Server 2010",
        "VERSION:2.0",
        *WINDOWS_ZONE.splitlines(),
        "BEGIN:VEVENT",
        f"ATTENDEE;PARTSTAT={said.partstat};CN=Bruno:MAILTO:{said.attendee.upper()}",
        "COMMENT;LANGUAGE=pt-BR:\\n",
        f"UID:{said.uid}",
        *([said.occurrence] if said.occurrence else []),
        "SUMMARY;LANGUAGE=pt-BR:Aceito: Supervisão",
        f"DTSTART;TZID=E. South America Standard Time:{starts.strftime(clock)}",
        f"DTEND;TZID=E. South America Standard Time:{ends.strftime(clock)}",
        "CLASS:PRIVATE",
        "PRIORITY:5",
        f"DTSTAMP:{utc(said.stamp)}",
        "TRANSP:OPAQUE",
        "STATUS:CONFIRMED",
        *([] if said.sequence is None else [f"SEQUENCE:{said.sequence}"]),
        "LOCATION;LANGUAGE=pt-BR:online",
        "X-MICROSOFT-CDO-APPT-SEQUENCE:0",
        "X-MICROSOFT-CDO-BUSYSTATUS:BUSY",
        *said.more,
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return fold(lines)


def apple(said: Said) -> str:
    """Folded close, the zone of the tz database, an alarm within, the address in mixed case."""
    clock = "%Y%m%dT%H%M%S"
    starts, ends = (at.astimezone(UTC) for at in (said.starts_at, said.ends_at))
    lines = [
        "BEGIN:VCALENDAR",
        "CALSCALE:GREGORIAN",
        f"METHOD:{said.method}",
        "PRODID:-//Apple Inc.//macOS 15.0//EN",
        "VERSION:2.0",
        "BEGIN:VEVENT",
        "CREATED:20261120T100000Z",
        f"DTEND;TZID=Europe/Lisbon:{ends.strftime(clock)}",
        f"DTSTAMP:{utc(said.stamp)}",
        f"DTSTART;TZID=Europe/Lisbon:{starts.strftime(clock)}",
        f"LAST-MODIFIED:{utc(said.stamp)}",
        *([f"SEQUENCE:{said.sequence}"] if said.sequence is not None else []),
        "SUMMARY:Supervision with Ana",
        f"UID:{said.uid}",
        *([said.occurrence] if said.occurrence else []),
        f'ATTENDEE;CN="Bruno";CUTYPE=INDIVIDUAL;EMAIL="{said.attendee}";PARTSTAT={said.partstat}:'
        f"mailto:{said.attendee.title()}",
        f"ORGANIZER;CN=Visavis:mailto:{said.organizer}",
        *said.more,
        "BEGIN:VALARM",
        "ACTION:DISPLAY",
        "DESCRIPTION:Reminder",
        "TRIGGER:-P1D",
        "UID:0B9C3D8A-0000-4000-8000-000000000000",
        "END:VALARM",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return "".join(
        textwrap.shorten(line, 10_000, placeholder="") + "\r\n" if len(line) < 60 else fold([line]) for line in lines
    )


def part(text: str, kind: str, encoding: str, charset: str = "UTF-8") -> str:
    raw = text.encode(charset)
    match encoding:
        case "base64":
            body = base64.encodebytes(raw).decode().replace("\n", "\r\n")
        case "quoted-printable":
            body = quopri.encodestring(raw).decode().replace("\r\n", "\n").replace("\n", "\r\n")
        case _:
            body = text
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}"


def vouched(author: str, *, results: str | None = None, authserv: str = AUTHSERV) -> str:
    """What our own mail server writes on top of a mail that is its author's."""
    domain = author.rpartition("@")[2]
    found = results or (
        f"dkim=pass (2048-bit key; unprotected) header.d={domain} header.i=@{domain} header.b=AbC1;"
        f"\r\n\tspf=pass smtp.mailfrom={author};\r\n\tdmarc=pass (policy=reject) header.from={domain}"
    )
    return (
        "Return-Path: <>\r\n"
        f"Authentication-Results: {authserv};\r\n\t{found}\r\n"
        f"Received: from out.{domain} (out.{domain} [192.0.2.1])\r\n\tby {AUTHSERV} (Postfix) with ESMTPS id 1\r\n"
    )


def mail(
    said: Said,
    ics: str,
    *,
    author: str | None = None,
    head: str | None = None,
    kind: str | None = None,
    encoding: str = "base64",
    charset: str = "UTF-8",
    more: str = "",
) -> bytes:
    """A reply as a mail: text and the calendar as alternatives, as all of them do."""
    author = author or said.attendee
    kind = kind or f'text/calendar; charset="{charset}"; method={said.method}'
    return (
        (head if head is not None else vouched(author))
        + f"From: Bruno <{author}>\r\nTo: {said.organizer}\r\nSubject: Accepted\r\n{more}"
        + f"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@{AUTHSERV}>\r\nMIME-Version: 1.0\r\n"
        + 'Content-Type: multipart/mixed; boundary="outer"\r\n\r\n'
        + '--outer\r\nContent-Type: multipart/alternative; boundary="inner"\r\n\r\n'
        + "--inner\r\n"
        + part("Bruno has answered.\r\n", "text/plain; charset=UTF-8", "7bit")
        + "\r\n--inner\r\n"
        + part(ics, kind, encoding, charset)
        + "\r\n--inner--\r\n\r\n--outer--\r\n"
    ).encode()


def report(
    sender: str,
    recipient: str,
    *,
    status: str = "5.1.1",
    action: str = "failed",
    final: str | None = None,
    original: str | None = None,
    diagnostic: str = "smtp; 550 5.1.1 User unknown",
) -> bytes:
    """A delivery report as Postfix writes it (RFC 3464)."""
    named = f"Original-Recipient: rfc822;{original}\r\n" if original else ""
    return (
        f"Return-Path: <>\r\nFrom: MAILER-DAEMON@example.net\r\nTo: {sender}\r\nAuto-Submitted: auto-replied\r\n"
        "Subject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="4F.17/mx"\r\n\r\n'
        "--4F.17/mx\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        "I'm sorry to have to inform you.\r\n\r\n--4F.17/mx\r\n"
        "Content-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example.net\r\nArrival-Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n\r\n"
        f"Final-Recipient: rfc822; {final or recipient}\r\n{named}Action: {action}\r\nStatus: {status}\r\n"
        f"Remote-MTA: dns; mail.example.net\r\nDiagnostic-Code: {diagnostic}\r\n\r\n"
        "--4F.17/mx\r\nContent-Description: Undelivered Message\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        f"From: visavis@clinic.example.org\r\nTo: {recipient}\r\n\r\n--4F.17/mx--\r\n"
    ).encode()

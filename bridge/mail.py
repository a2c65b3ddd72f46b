"""A notification as a mail: headers, words, calendar entry, in the bytes that are sent.

Built of the standard library's older message class: its newer one parses every header that it is given, several
milliseconds a mail.
"""

import base64
import binascii
import functools
import unicodedata
from datetime import datetime
from email.charset import BASE64, Charset
from email.header import Header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import Compat32
from email.utils import format_datetime, formataddr
from typing import TypeAlias

from bridge import contents, entries
from bridge.letters import Letter
from bridge.smtp import Envelope, domain, to_ascii
from bridge.templates import render
from supervision import seals
from supervision.config import Config
from supervision.errors import NotUnderstood, Permanent
from supervision.people import check_email

KINDS = (
    "appointment.requested",
    "appointment.booked",
    "appointment.confirmed",
    "appointment.declined",
    "appointment.cancelled",
    "appointment.rescheduled",
    "appointment.reminder",
    "move.proposed",
    "move.refused",
    "move.withdrawn",
    "move.lapsed",
    "wait.offered",
    "series.requested",
    "series.booked",
    "series.confirmed",
    "series.declined",
    "series.cancelled",
    "series.proposed",
    "series.refused",
    "series.withdrawn",
    "series.lapsed",
    "series.rescheduled",
    "identity.changed",
    "identity.confirmed",
    "mailbox.stopped",
    "export.asked",
    "export.ready",
    "export.failed",
    "pair.archived",
    "pair.reopened",
    "pair.renewed",
    "pair.expiring",
    "room.stranger",
    "room.left",
    "room.fault",
    "room.unread",
    "sign_in",
    "welcome",
    "address.check",
    "address.changed",
    "account.password_changed",
    "account.signed_out",
)
ENCODED = Charset("utf-8")
ENCODED.header_encoding = BASE64


class AsSet(Compat32):
    """Writes a header set as a plain string as it is, in one line of ASCII. A `Header` encodes and folds itself."""

    def fold(self, name: str, value: str | Header) -> str:
        return f"{name}: {value}\r\n" if isinstance(value, str) else super().fold(name, value)  # type: ignore[arg-type]

    def fold_binary(self, name: str, value: str | Header) -> bytes:
        return self.fold(name, value).encode("ascii")


POLICY = AsSet(linesep="\r\n")
Part: TypeAlias = "Message[str, str | Header]"


def compose(letter: Letter, config: Config, *, now: datetime) -> Part:
    """The mail, complete with its headers; takes about a millisecond of CPU.

    Its Message-ID is the notification's, so that a mail sent twice is known as one. Raises Permanent with the code
    `header_unsafe` where a name or an address could end a header line.
    """
    notification, recipient = letter.notification, letter.recipient
    content = contents.content(letter, config, now=now)
    content["subject"] = render(f"{notification.kind}/subject.txt", content).strip()
    message = _body(letter, config, content)
    message["From"] = _mailbox("From", config.mail.sender_name, config.mail.sender)
    message["To"] = _mailbox("To", recipient.name, recipient.email)
    answers_to = entries.reply_address(letter, config)
    if answers_to is not None:
        message["Reply-To"] = answers_to
    message["Subject"] = _words("Subject", content["subject"])
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{notification.id}@{domain(config.mail.sender)}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5
    if content["unsubscribe_url"] is not None:
        message["List-Unsubscribe"] = f"<{content['unsubscribe_url']}>"  # RFC 2369, 3.2
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058, 3.1
    return message


def write(letter: Letter, config: Config, *, now: datetime) -> Envelope:
    """`compose`, as the bytes to send. Raises Permanent, too, if its headers do not read back as they were set."""
    message = compose(letter, config, now=now)
    written = message.as_bytes()
    read_back = BytesHeaderParser(policy=POLICY).parsebytes(written.partition(b"\r\n\r\n")[0])
    if read_back.keys() != message.keys() or read_back.defects:
        raise Permanent("header_unsafe")
    return Envelope(_return_address(letter, config), to_ascii(letter.recipient.email), written)


def _return_address(letter: Letter, config: Config) -> str:
    """Where it comes back to if it cannot be delivered: tells which mail it was, if somebody listens there."""
    if config.inbound is None:
        return to_ascii(config.mail.sender)
    return seals.return_address(config.secret.get_secret_value(), letter.notification.id, config.inbound.domain)


def _body(letter: Letter, config: Config, content: dict[str, object]) -> Part:
    """The parts that say the same, the best last (RFC 2046, 5.1.4).

    The entry comes twice: for programs that read invitations, and as a file for all others (RFC 6047, 2.4).
    """
    kind = letter.notification.kind
    texts = [
        _part('text/plain; charset="utf-8"', "quoted-printable", _quoted(render(f"{kind}/body.txt", content))),
        _part('text/html; charset="utf-8"', "quoted-printable", _quoted(render(f"{kind}/body.html", content))),
    ]
    found = entries.entry(letter, config)
    if found is None:
        return _multipart("alternative", letter, texts)
    method, entry = found
    encoded = base64.encodebytes(entry).decode("ascii")
    invitation = _part(f'text/calendar; charset="utf-8"; method="{method}"', "base64", encoded)
    file = _part("application/ics", "base64", encoded)
    file["Content-Disposition"] = 'attachment; filename="visavis.ics"'
    return _multipart("mixed", letter, [_multipart("alternative", letter, [*texts, invitation]), file])


def _multipart(subtype: str, letter: Letter, parts: list[Part]) -> Part:
    """Its boundary holds `=_`, which neither encoding of ours can write (RFC 2045, 6.7)."""
    message: Part = Message(policy=POLICY)
    message["MIME-Version"] = "1.0"
    message["Content-Type"] = f'multipart/{subtype}; boundary="=_{letter.notification.id.hex}_{subtype}"'
    for part in parts:
        message.attach(part)
    return message


def _part(content_type: str, encoding: str, payload: str) -> Part:
    part: Part = Message(policy=POLICY)
    part["Content-Type"] = content_type
    part["Content-Transfer-Encoding"] = encoding
    part.set_payload(payload)
    return part


def _quoted(text: str) -> str:
    """Quoted-printable, in lines of at most 76 characters (RFC 2045, 6.7)."""
    return binascii.b2a_qp(text.replace("\n", "\r\n").encode(), istext=True).decode("ascii")


def _mailbox(field: str, name: str, address: str) -> Header:
    """A name and an address (RFC 5322, 3.4), the name encoded where it has to be (RFC 2047, 5)."""
    plain = _plain(_safe(address))
    if name.isascii():
        return _words(field, formataddr((_safe(name), plain)))
    header = _words(field, name)
    header.append(f"<{plain}>", "us-ascii")
    return header


@functools.lru_cache(maxsize=1000)
def _plain(address: str) -> str:
    """The address in ASCII. Raises Permanent for what is none."""
    try:
        plain = check_email(to_ascii(address))
    except NotUnderstood:
        raise Permanent("address_unusable") from None
    if not plain.isascii():
        raise Permanent("address_unusable")
    return plain


def _words(field: str, value: str) -> Header:
    return Header(_safe(value), charset=None if value.isascii() else ENCODED, header_name=field)


def _safe(value: str) -> str:
    """A header value that Python cannot be made to write as two lines.

    An encoded word inside a value that needs encoding itself would be decoded first, its newline written as it is.
    """
    unsafe = any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)
    if unsafe or "=?" in value:
        raise Permanent("header_unsafe")
    return value

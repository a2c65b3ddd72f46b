"""Mails from anybody, opened within limits: what is too large, too deep or too many to be an answer is not read.

The standard library's parser takes time that grows with depth times length, and recurses, so both are counted before.
"""

import codecs
import email
import email.utils
import re
from collections.abc import Iterator
from email.message import Message
from email.policy import compat32

MOST_HEADERS = 256 * 1024  # bytes before the first empty line
MOST_DEPTH = 60  # things that can lie in one another
MOST_LINES = 100_000
MOST_STEPS = 2_000_000  # lines times depth: about a second
MOST_DELIMITERS = 1000  # lines that could begin a part
MOST_PARTS = 500
LARGEST_TEXT = 256 * 1024  # bytes of a part that is read

# A header's first line, or one that goes on with it (RFC 5322, 2.2). Programs differ in what they take any other for,
# a lone CR among them: what our mail server took for the author's address would not be what we read.
HEADER_LINE = re.compile(rb"([!-9;-~]+:|[ \t])[^\r\x00]*\r?")
NESTING = re.compile(rb"boundary\s*\*?|message/", re.IGNORECASE)
# The codecs of mail (RFC 2978); Python knows others, some of which take their time.
CHARSET = re.compile(
    r"utf-?(7|8|16|32)?[-_a-z]*|ascii|iso8859-\d+|cp\d+|koi8-[rut]|euc_[a-z_0-9]+|gb\w*|big5\w*|shift_jis\w*|iso2022\w*"
)


class Unreadable(Exception):
    """It cannot be read, or says nothing that we understand. `reason` is a static word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def open_mail(content: bytes) -> Message:
    """A mail as its headers and parts. Raises Unreadable; takes some milliseconds."""
    end = re.search(rb"\r?\n\r?\n", content)
    head = content[: end.start()] if end else content
    if len(head) > MOST_HEADERS:
        raise Unreadable("too_many_headers")
    if not all(HEADER_LINE.fullmatch(line) for line in head.removesuffix(b"\n").split(b"\n")):
        raise Unreadable("broken_headers")
    depth, lines = sum(1 for _ in NESTING.finditer(content)), content.count(b"\n") + content.count(b"\r")
    if depth > MOST_DEPTH or lines > MOST_LINES or depth * lines > MOST_STEPS:
        raise Unreadable("too_deep")
    if content.count(b"\n--") > MOST_DELIMITERS:
        raise Unreadable("too_many_parts")
    try:
        message: Message = email.message_from_bytes(content, policy=compat32)
    except Exception as error:  # of a parser that is given what anybody wrote
        raise Unreadable("no_mail") from error
    return message


def walk(message: Message) -> Iterator[Message]:
    """All parts, the outer before the inner. What a forwarded mail holds is not looked into."""
    waiting, seen = [message], 0
    while waiting and seen < MOST_PARTS:
        part = waiting.pop(0)
        seen += 1
        yield part
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting += [one for one in part.get_payload() if isinstance(one, Message)]


def text_of(part: Message) -> str:
    """A part's text. Raises Unreadable for one that is too long or in no charset of ours."""
    try:
        payload = part.get_payload(decode=True)
    except (ValueError, TypeError, LookupError) as error:
        raise Unreadable("no_mail") from error
    if not isinstance(payload, bytes) or len(payload) > LARGEST_TEXT:
        raise Unreadable("too_long")
    for charset in (_charset(part), "utf-8-sig", "latin-1"):
        if charset is not None:
            try:
                return payload.decode(charset).removeprefix("\ufeff")
            except (UnicodeError, LookupError, ValueError):
                continue
    raise Unreadable("charset")


def headers(message: Message, name: str) -> list[str]:
    """Every header of that name, unfolded, from the top. What is not ASCII in them is replaced."""
    return [
        re.sub(r"\r?\n", "", str(value)).encode("ascii", "replace").decode()
        for key, value in message.items()
        if key.lower() == name.lower()
    ]


def parameter(part: Message, name: str) -> str:
    """A parameter of the Content-Type, `filename` that of the Content-Disposition too, in lower case; or nothing.

    The library fails in many ways for one that is split or encoded badly (RFC 2231).
    """
    try:
        given = part.get_filename() if name == "filename" else part.get_param(name)
        return email.utils.collapse_rfc2231_value(given).lower() if given else ""
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""


def _charset(part: Message) -> str | None:
    try:
        given = parameter(part, "charset")
        name = codecs.lookup(given).name if given and len(given) < 40 else None
    except (LookupError, ValueError):
        return None
    if name == "utf-8":
        return "utf-8-sig"
    return name if name and CHARSET.fullmatch(name) else None

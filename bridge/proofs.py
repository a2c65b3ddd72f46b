"""Who wrote a mail, as far as our own mail server vouches for it: Authentication-Results (RFC 8601).

The header of the configured `authserv_id` counts, and of several only the topmost, which was added last. That server
has to remove such headers from what it takes in (RFC 8601, 5): nobody else can. It says that the domain of the From
address is answered for: by DMARC, or by a signature of that domain or of one above it. SPF alone speaks of the
envelope and proves nothing here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from bridge.parts import headers

LONGEST = 10_000  # characters of a header that is read
LONGEST_FROM = 1_000
TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[^\s;="()]+)|(?P<mark>[;=])|(?P<open>\()|(?P<other>.)""",
    re.DOTALL,
)
ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
BARE = re.compile(rf"({ATEXT}@{DOMAIN})")
# A name in front must not look like another address to anybody (RFC 5322, 3.4).
NAMED = re.compile(rf"""(?:"(?:[^"\\]|\\.)*"|[^<>"@,;:()\[\]\\])*<\s*({ATEXT}@{DOMAIN})\s*>""")


class Unproven(Exception):
    """Nobody whom we trust says who wrote it. `reason` is a static word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Finding:
    """One method's result: `dkim`, `pass`, and properties such as `header.d`."""

    method: str
    result: str
    properties: dict[str, str]


def proven_author(message: Message, authserv_id: str) -> str:
    """The address that wrote a mail, in lower case, its domain as DNS writes it. Raises Unproven."""
    author = _author(message)
    domain = author.rpartition("@")[2]
    found = _findings(message, authserv_id)
    if any(one.method == "dmarc" and one.result == "fail" for one in found):
        raise Unproven("dmarc_failed")
    for one in found:
        if one.result != "pass":
            continue
        if one.method == "dmarc" and _domain(one.properties.get("header.from", "")) == domain:
            return author
        if one.method == "dkim" and _answers_for(_domain(one.properties.get("header.d", "")), domain):
            return author
    raise Unproven("not_aligned")


def same_address(one: str, other: str) -> bool:
    """Whether two addresses are the same, without regard to case and to how a domain is written (RFC 5890)."""
    return normal(one) == normal(other) != ""


def normal(address: str) -> str:
    """An address to compare; empty for what is none."""
    name, at, domain = address.strip().lower().rpartition("@")
    host = _domain(domain)
    return f"{name}@{host}" if at and name and host else ""


def _author(message: Message) -> str:
    """The only address of the only From header."""
    given = headers(message, "From")
    if len(given) != 1 or len(given[0]) > LONGEST_FROM:
        raise Unproven("from_not_one")
    match = BARE.fullmatch(given[0].strip()) or NAMED.fullmatch(given[0].strip())
    author = normal(match[1]) if match else ""
    if not author:
        raise Unproven("from_not_one")
    return author


def _findings(message: Message, authserv_id: str) -> list[Finding]:
    for value in headers(message, "Authentication-Results"):
        if len(value) > LONGEST:  # it may be ours: then what stands below is not
            raise Unproven("no_results")
        ours, sections = authserv_id.lower(), list(_sections(value))
        # Written plainly, as our server does: what removes forged ones need not see through quotes and comments.
        if value.lstrip().lower().startswith(ours) and sections[0][0].lower() == ours:
            return [one for one in map(_finding, sections[1:]) if one is not None]
    raise Unproven("no_results")


def _sections(value: str) -> Iterator[list[str]]:
    """The tokens between semicolons, without comments (RFC 8601, 2.2). Raises Unproven for a comment without an end:
    it hides what stands behind it.
    """
    section: list[str] = []
    at = 0
    while at < len(value):
        match = TOKEN.match(value, at)
        if match is None:  # cannot be: `other` is any character
            return
        if match.lastgroup == "open":
            at = _after_comment(value, at)
            continue
        at = match.end()
        if match[0] == ";" and match.lastgroup == "mark":
            yield section
            section = []
        elif match.lastgroup != "space":
            section.append(match[0])
    yield section


def _after_comment(value: str, at: int) -> int:
    depth = 0
    while at < len(value):
        if value[at] == "\\":
            at += 1
        elif value[at] == "(":
            depth += 1
        elif value[at] == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise Unproven("no_results")


def _finding(tokens: list[str]) -> Finding | None:
    """`dkim/1 = pass reason="…" header.d = example.org`; None for what is written otherwise."""
    if len(tokens) < 3 or tokens[1] != "=":
        return None
    properties: dict[str, str] = {}
    rest = tokens[3:]
    while rest:
        if len(rest) < 3 or rest[1] != "=":
            return None
        name = rest[0].lower()
        if name in properties:
            return None
        properties[name] = _unquoted(rest[2])
        rest = rest[3:]
    return Finding(tokens[0].lower().partition("/")[0], tokens[2].lower(), properties)


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.startswith('"') else token


def _answers_for(signer: str, domain: str) -> bool:
    """Whether a signature of that domain speaks for addresses at `domain`: its own, or one below it."""
    return bool(signer) and "." in signer and (signer == domain or domain.endswith(f".{signer}"))


def _domain(value: str) -> str:
    """As DNS writes it; empty for what is no domain."""
    host = value.strip().rstrip(".").lower().rpartition("@")[2]
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""

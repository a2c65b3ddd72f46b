"""Delivery reports (RFC 3464) on our mails, which come to the return address of each.

A mail that failed for good is parked with its status (RFC 3463). These say that the address itself is no good, and
stop the mail to it: 5.1.1 no such mailbox, 5.1.2 no such system, 5.1.3 no such address in form, 5.1.6 moved away,
5.1.10 the domain takes no mail (RFC 7505), 5.2.1 mailbox disabled; and 5.4.1, which RFC 3463 knows as a passing fault
alone: servers that call it permanent mean that they know no such recipient. A full mailbox (5.2.2), content or policy
that was refused (5.3, 5.6, 5.7) and whatever is less clear (5.0.0, 5.1.0) say nothing of the next mail.
"""

import re
from dataclasses import dataclass
from email.message import Message

from bridge.parts import Unreadable, parameter, walk
from bridge.proofs import same_address
from supervision.mailboxes import STOPPING

VAGUE = frozenset({"5.0.0", "5.1.0"})
STATUS = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")
MOST_RECIPIENTS = 100


@dataclass(frozen=True)
class Failure:
    """A mail that was not delivered to `recipients`, as the report and the sender's own server name it."""

    code: str
    recipients: tuple[str, ...]

    @property
    def stops(self) -> bool:
        return self.code in STOPPING

    def is_about(self, address: str) -> bool:
        return any(same_address(one, address) for one in self.recipients)


def read(message: Message) -> list[Failure]:
    """The permanent failures that a report tells of; none for one of delay or success. Raises Unreadable."""
    if message.get_content_type() != "multipart/report":
        raise Unreadable("no_report")
    if parameter(message, "report-type") not in ("delivery-status", ""):
        raise Unreadable("no_report")
    for part in walk(message):
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            # The parser takes the groups of fields apart: the mail's, and then each recipient's.
            groups = [one for one in part.get_payload() if isinstance(one, Message)] if part.is_multipart() else []
            found = [_failure(one) for one in groups[1 : MOST_RECIPIENTS + 1]]
            return [one for one in found if one is not None]
    raise Unreadable("no_report")


def _failure(group: Message) -> Failure | None:
    if _field(group, "Action").lower() != "failed":
        return None
    given = STATUS.search(_field(group, "Status"))
    code = given[0] if given else "5.0.0"
    if not code.startswith("5"):
        return None
    if code in VAGUE:  # what the other server said may be clearer
        said = STATUS.search(_field(group, "Diagnostic-Code"))
        code = said[0] if said and said[0].startswith("5") else code
    named = [_field(group, name).partition(";")[2].strip() for name in ("Final-Recipient", "Original-Recipient")]
    return Failure(code, tuple(one.strip("<>") for one in named if one))


def _field(group: Message, name: str) -> str:
    return re.sub(r"\s+", " ", str(group.get(name, ""))).strip()[:1000]

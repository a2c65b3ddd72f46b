"""Replies, reports and mails with anything wrong in them: never an exception, and no effect without proof."""

import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from bridge import inbound
from bridge.inbound import Answers, Arrivals, Nothing, Report
from supervision import seals
from supervision.appointments import Appointment
from supervision.db import Database
from supervision.models import Attendance, Status, metadata
from supervision.people import Person
from tests.bridge.answers import Said, apple, google, mail, outlook, report, vouched
from tests.bridge.conftest import SECRET, make_config
from tests.bridge.test_inbound import (
    DOMAIN,
    TRACES,
    address_of,
    again,
    answers,
    confirmed,
    requested,
    says,
    told_by_mail,
    with_inbound,
)
from tests.support.sample import add_pair

EXAMPLES = 50_000 if os.environ.get("VISAVIS_LONG") == "1" else 200  # of each of the two
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),  # what fails is short enough as it is
)
pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

FRAGMENTS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\xff\xfe", b"=\r\n", b";", b":", b'"', b"(", b")", b",", b" ", b"\t", b"\\",
    b"BEGIN:VEVENT\r\n", b"END:VEVENT\r\n", b"BEGIN:VCALENDAR\r\n", b"END:VCALENDAR\r\n", b"BEGIN:VALARM\r\n",
    b"METHOD:REPLY\r\n", b"METHOD:COUNTER\r\n", b"METHOD:CANCEL\r\n", b"SEQUENCE:99999999999\r\n", b"SEQUENCE:-1\r\n",
    b"UID:\r\n", b"DTSTAMP:99991231T235959Z\r\n", b"DTSTAMP:00010101T000000Z\r\n", b"RECURRENCE-ID:20261125\r\n",
    b"RECURRENCE-ID;RANGE=THISANDFUTURE:20261125T130000Z\r\n", b"DTSTART;TZID=Nowhere/At_All:20261125T130000\r\n",
    b"DTSTART;TZID=../../etc/passwd:20261125T130000\r\n", b"DTEND:20261125T130000Z/PT1H\r\n", b"DURATION:-P9999W\r\n",
    b"DURATION:P99999999999D\r\n", b"ATTENDEE;PARTSTAT=ACCEPTED:mailto:\r\n", b"ATTENDEE:\r\n", b"PARTSTAT=DECLINED",
    b"--inner\r\n", b"--outer--\r\n", b"--4F.17/mx\r\n", b"Content-Type: text/calendar; charset=punycode\r\n\r\n",
    b"Content-Type: message/rfc822\r\n\r\n", b"Content-Type: multipart/report; report-type*0=x\r\n",
    b"Content-Type: text/calendar; charset*=x'y'%ff; name*0*=a; name*0=b\r\n",
    b"Content-Transfer-Encoding: uuencode\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"From: =?utf-8?b?//8=?= <a@b>\r\n",
    b"From: a@b, c@d\r\n",
    b"From: x:;\r\n", b"Auto-Submitted: auto-replied\r\n", b"Action: failed\r\n", b"Status: 5.1.1\r\n",
    b"Status: 5.999.999\r\n", b"Final-Recipient: rfc822\r\n", b"X" * 1200, b"a=" * 600, b"=?utf-8?q?=0A?=",
    "É\u2028\u202e".encode(),
]  # fmt: skip


@dataclass(frozen=True)
class Mail:
    """`head` is what our own mail server vouches with; nobody else writes there."""

    recipient: str
    head: bytes
    body: bytes


@st.composite
def bodies(draw: st.DrawFn, found: list[Mail]) -> tuple[str, bytes]:
    """A mail with one to eight things wrong in it, below what is vouched for."""
    chosen = draw(st.sampled_from(found))
    body = bytearray(chosen.body)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(body)))
        until = min(len(body), at + draw(st.integers(0, 200)))
        match draw(st.sampled_from(("insert", "junk", "cut", "double", "flip", "line", "end"))):
            case "insert":
                body[at:at] = draw(st.sampled_from(FRAGMENTS))
            case "junk":
                body[at:at] = draw(st.binary(max_size=20))
            case "cut":
                del body[at:until]
            case "double":
                body[at:at] = body[at:until] * draw(st.integers(1, 20))
            case "flip" if at < len(body):
                body[at] ^= 1 << draw(st.integers(0, 7))
            case "line":
                start = body.rfind(b"\n", 0, at) + 1
                end = body.find(b"\n", at) + 1 or len(body)
                body[start:end] = draw(st.sampled_from(FRAGMENTS))
            case "end":
                del body[max(at, len(body) // 2) :]
    return chosen.recipient, chosen.head + bytes(body)


def replies(said: Said, head: str, recipient: str) -> list[Mail]:
    """The same in every hand: readable as it stands, and encoded."""
    return [
        Mail(recipient, head.encode(), mail(said, write(said), head="", encoding=encoding))
        for write in (google, outlook, apple)
        for encoding in ("8bit", "base64", "quoted-printable")
    ]


def ways(one: Said) -> list[Said]:
    later = one.starts_at + timedelta(hours=1)
    return [
        one,
        replace(one, partstat="DECLINED"),
        replace(one, partstat="TENTATIVE", occurrence="RECURRENCE-ID:20261125T130000Z"),
        replace(one, method="COUNTER", starts_at=later),
    ]


@dataclass(frozen=True)
class House:
    """A pair with a request and a mail that was sent, and the door to it."""

    arrivals: Arrivals
    database: Database
    supervisor: Person
    one: Appointment
    unproven: list[Mail] = field(repr=False)
    proven: list[Mail] = field(repr=False)
    before: dict[str, str] = field(repr=False)


async def digests(database: Database) -> dict[str, str]:
    """Of every table but what each mail leaves, in one statement."""
    each = [
        f"SELECT '{name}' AS name, md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) AS digest FROM {name} t"  # noqa: S608
        for name in metadata.tables
        if name not in TRACES
    ]
    async with database.transaction() as tx:
        return {name: digest for name, digest in await tx.execute(text(" UNION ALL ".join(each)))}


@pytest.fixture
async def house(database: Database, now: datetime) -> House:
    pair = await add_pair(database, now=now)
    one, two = await requested(database, pair, now), await confirmed(database, pair, now, hours=51)
    sent = await told_by_mail(database, pair.supervisee, now)
    back = seals.return_address(SECRET, sent, DOMAIN)
    config = with_inbound(make_config(25))
    assert config.inbound is not None
    arrivals = Arrivals(database, config, config.inbound, lambda: now)
    own, other = address_of(pair.supervisor), address_of(pair.supervisee)
    said = says(one, pair.supervisor, now)
    heads = [
        "",
        vouched(pair.supervisor.email, authserv="mx.elsewhere.example"),
        vouched(pair.supervisor.email, results="spf=pass smtp.mailfrom=example.org"),
        vouched("eve@evil.example"),
    ]
    unproven = [each for way in ways(said) for head in heads for each in replies(way, head, own)]
    true = vouched(pair.supervisor.email)
    unproven += [each for way in ways(said) for each in replies(way, true, other)]
    unproven += [Mail(own, b"", report(back, pair.supervisee.email)), Mail(back, b"", report(back, "eve@evil.example"))]
    unproven += [Mail(back, true.encode(), each.body) for each in replies(said, true, back)]
    proven = [each for way in ways(said) for each in replies(way, true, own)]
    second = says(two, pair.supervisor, now, sequence=1, starts_at=two.starts_at)
    proven += [each for way in ways(second) for each in replies(way, true, own)]
    proven += [Mail(back, b"", report(back, pair.supervisee.email, status=status)) for status in ("5.1.1", "5.7.1")]
    return House(arrivals, database, pair.supervisor, one, unproven, proven, await digests(database))


@FUZZ
@given(st.data())
async def test_nothing_has_an_effect_without_proof(house: House, data: st.DataObject) -> None:
    recipient, content = data.draw(bodies(house.unproven))
    assert await house.arrivals.take(recipient, content) == inbound.TAKEN
    assert await digests(house.database) == house.before


@FUZZ
@given(st.data())
async def test_nothing_that_is_proven_is_too_much(house: House, data: st.DataObject) -> None:
    """Whatever it is read as, it is taken: what is unexpected would be tried again for days."""
    recipient, content = data.draw(bodies(house.proven))
    to = house.arrivals.recipient(recipient)
    assert to is not None
    found = inbound.read(content, to, house.arrivals.inbound.authserv_id)
    assert found != Nothing("unreadable", suspicious=True)
    if isinstance(found, Answers | Report):
        assert await house.arrivals.take(recipient, content) == inbound.TAKEN


async def test_what_is_right_has_its_effect(database: Database, now: datetime, house: House) -> None:
    """The negative control of the first: the same mails, vouched for and whole."""
    said = says(house.one, house.supervisor, now)
    good = replies(said, vouched(house.supervisor.email), said.organizer)[0]
    assert await house.arrivals.take(good.recipient, good.head + good.body) == inbound.TAKEN
    assert (await again(database, house.one)).status is Status.CONFIRMED
    assert await answers(database, house.one) == {house.supervisor.id: Attendance.ACCEPTED}
    assert await digests(database) != house.before

"""Mail handed over on a real connection, and what it leaves in the tables."""

import asyncio
import contextlib
import smtplib
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any

import asyncpg
import pytest
from icalendar import Calendar
from sqlalchemy import select, text, update

from bridge import inbound
from embedded.mailserver import MailServer
from embedded.postgresql import PostgreSQL
from supervision import appointments, attendances, mailboxes, moves, pairs, people, seals, series
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.config import Config
from supervision.db import Database
from supervision.models import Attendance, Channel, State, Status, audit_entries, inbound_mails, metadata
from supervision.models import notifications as outbox
from supervision.notifications import Notice, enqueue
from supervision.pairs import Pair
from supervision.people import Person
from tests.bridge.answers import AUTHSERV, Said, apple, google, mail, outlook, report, utc, vouched
from tests.bridge.conftest import SECRET, Clock, Inbox, make_config, running, until
from tests.support.sample import acts, add_pair, add_person

DOMAIN = "mail.clinic.example.org"
UID_DOMAIN = "clinic.example.org"
# What any mail leaves: that it was there, and that it had no effect.
TRACES = ("inbound_mails", "audit_entries")
Write = Callable[[Said], str]


@dataclass(frozen=True)
class Door:
    """The running listener, as a mail server sees it."""

    port: int
    protocol: str = "lmtp"

    def connect(self) -> smtplib.SMTP:
        kind = smtplib.LMTP if self.protocol == "lmtp" else smtplib.SMTP
        return kind("127.0.0.1", self.port, "localhost")

    async def hand(self, recipient: str, content: bytes, sender: str = "bruno@example.net") -> tuple[int, bytes]:
        """The reply to a mail: to its recipient, or to its content."""
        return await asyncio.to_thread(self._hand, recipient, content, sender)

    def _hand(self, recipient: str, content: bytes, sender: str) -> tuple[int, bytes]:
        with contextlib.closing(self.connect()) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(sender)
            code, reply = client.rcpt(recipient)
            return (code, reply) if code != 250 else client.data(content)


@contextlib.asynccontextmanager
async def listening(database: Database, config: Config, clock: Clock) -> AsyncIterator[Door]:
    assert config.inbound is not None
    task = asyncio.create_task(inbound.run(database, config, clock=clock))
    try:
        await until(lambda: task.done() or _answers(config.inbound.port if config.inbound else 0))
        if task.done():
            task.result()
        yield Door(config.inbound.port, config.inbound.protocol)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def with_inbound(config: Config, **values: Any) -> Config:
    section = {"domain": DOMAIN, "authserv_id": AUTHSERV, "port": free_port()} | values
    return Config.model_validate(
        config.model_dump() | {"inbound": section, "secret": SECRET, "database": {"url": "postgresql://localhost/x"}}
        | {"matrix": config.matrix.model_dump() | {"password": "x"}}
    )  # fmt: skip


@pytest.fixture
async def door(database: Database, clock: Clock) -> AsyncIterator[Door]:
    async with listening(database, with_inbound(make_config(25)), clock) as door:
        yield door


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    return await add_pair(database, now=now)


def address_of(person: Person) -> str:
    return seals.reply_address(SECRET, person.id, DOMAIN)


def says(one: Appointment, person: Person, now: datetime, **values: Any) -> Said:
    return Said(f"{one.id}@{UID_DOMAIN}", person.email, address_of(person), now, **values)


async def requested(database: Database, pair: Pair, now: datetime, *, hours: int = 49) -> Appointment:
    """Two days on at ten in São Paulo."""
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, now + timedelta(hours=hours), now=now)


async def confirmed(database: Database, pair: Pair, now: datetime, *, hours: int = 49) -> Appointment:
    one = await requested(database, pair, now, hours=hours)
    async with database.transaction() as tx:
        return await appointments.confirm(tx, acts(pair.supervisor), one.id, now=now)


async def again(database: Database, one: Appointment) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.get(tx, acts_as(one), one.id)


def acts_as(one: Appointment) -> Any:
    return replace(SYSTEM, person_id=one.supervisor_id)


async def answers(database: Database, one: Appointment) -> dict[uuid.UUID, Attendance]:
    async with database.transaction() as tx:
        return await attendances.of(tx, await appointments.get(tx, acts_as(one), one.id))


async def outcomes(database: Database) -> list[str]:
    async with database.transaction() as tx:
        rows = await tx.execute(select(inbound_mails.c.outcome).order_by(inbound_mails.c.received_at))
        return [row.outcome for row in rows]


async def news(database: Database, prefix: str = "attendance.") -> list[tuple[str, uuid.UUID]]:
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(outbox.c.kind, outbox.c.person_id)
            .where(outbox.c.channel == Channel.MATRIX, outbox.c.kind.startswith(prefix))
            .order_by(outbox.c.position)
        )
        return [(row.kind, row.person_id) for row in rows]


async def failures(database: Database) -> list[str]:
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries.c.reason).where(audit_entries.c.success.is_(False)).order_by(audit_entries.c.id)
        )
        return [row.reason for row in rows]


async def tables(database: Database) -> dict[str, str]:
    """A digest of every table but the traces."""
    async with database.transaction() as tx:
        return {
            name: await tx.scalar(text(f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {name} AS t")) or ""  # noqa: S608, E501
            for name in metadata.tables
            if name not in TRACES
        }  # fmt: skip


@pytest.mark.parametrize("write", [google, outlook, apple])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
async def test_the_supervisor_s_calendar_confirms_a_request(
    database: Database, door: Door, pair: Pair, now: datetime, write: Write, encoding: str
) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now)
    assert await door.hand(said.organizer, mail(said, write(said), encoding=encoding)) == (250, b"2.0.0 Taken")
    assert (await again(database, one)).status is Status.CONFIRMED
    assert await answers(database, one) == {pair.supervisor.id: Attendance.ACCEPTED}
    assert await outcomes(database) == ["confirmed"]
    assert await news(database) == []  # the confirmation's own news tells
    assert await news(database, "appointment.confirmed") == [("appointment.confirmed", pair.supervisee.id)]


@pytest.mark.parametrize("write", [google, outlook, apple])
async def test_an_answer_is_told_to_the_other_once(
    database: Database, door: Door, pair: Pair, now: datetime, write: Write
) -> None:
    one = await confirmed(database, pair, now)
    for seconds in (0, 60):
        said = says(one, pair.supervisee, now + timedelta(seconds=seconds), sequence=1)
        await door.hand(said.organizer, mail(said, write(said)))
    assert await answers(database, one) == {pair.supervisee.id: Attendance.ACCEPTED}
    assert await outcomes(database) == ["noted", "repeated"]
    assert await news(database) == [("attendance.accepted", pair.supervisor.id)]


async def test_a_decline_asks_whoever_declined_and_cancels_nothing(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await confirmed(database, pair, now)
    said = says(one, pair.supervisee, now, sequence=1, partstat="DECLINED")
    await door.hand(said.organizer, mail(said, google(said)))
    assert await again(database, one) == one
    assert await answers(database, one) == {pair.supervisee.id: Attendance.DECLINED}
    assert await news(database) == [("attendance.declined", pair.supervisee.id)]
    said = replace(said, partstat="TENTATIVE", stamp=now + timedelta(minutes=1))
    await door.hand(said.organizer, mail(said, google(said)))
    assert await answers(database, one) == {pair.supervisee.id: Attendance.TENTATIVE}
    assert (await news(database))[1:] == [("attendance.tentative", pair.supervisor.id)]


@pytest.mark.parametrize("write", [google, outlook, apple])
async def test_another_time_is_proposed(
    database: Database, door: Door, pair: Pair, now: datetime, write: Write
) -> None:
    one = await confirmed(database, pair, now)
    later = one.starts_at + timedelta(hours=2)
    said = says(one, pair.supervisee, now, sequence=1, method="COUNTER", partstat="TENTATIVE", starts_at=later)
    await door.hand(said.organizer, mail(said, write(said)))
    left = await again(database, one)
    assert left.proposal is not None
    assert (left.starts_at, left.proposal.starts_at, left.proposal.ends_at) == (
        one.starts_at,
        later,
        later + timedelta(minutes=50),
    )
    assert await news(database, "move.") == [("move.proposed", pair.supervisor.id)]


async def test_a_refused_proposal_is_told_and_changes_nothing(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await confirmed(database, pair, now)
    night = one.starts_at + timedelta(hours=12)
    said = says(one, pair.supervisee, now, sequence=1, method="COUNTER", starts_at=night)
    before = await tables(database)
    assert await door.hand(said.organizer, mail(said, google(said))) == (250, b"2.0.0 Taken")
    after = await tables(database)
    assert {name for name in before if before[name] != after[name]} == {"notifications"}
    assert await outcomes(database) == ["refused"]
    async with database.transaction() as tx:
        query = select(outbox.c.person_id, outbox.c.details).where(outbox.c.kind == "attendance.refused")
        [row] = await tx.execute(query)
    assert (row.person_id, [key for key, _ in row.details["lines"]]) == (
        pair.supervisee.id,
        ["refused.slot_not_offered"],
    )


async def book_series(database: Database, pair: Pair, now: datetime) -> list[Appointment]:
    starts_at, rule = now + timedelta(hours=49), "FREQ=WEEKLY;COUNT=3"
    async with database.transaction() as tx:
        booked = await series.book(tx, acts(pair.supervisee), pair, starts_at, rule, skip=False, now=now)
    return booked.booked


def of_series(found: list[Appointment], person: Person, now: datetime, **values: Any) -> Said:
    return Said(f"{found[0].series_id}@{UID_DOMAIN}", person.email, address_of(person), now, **values)


async def test_a_series_is_answered_whole_or_by_its_occurrences(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    found = await book_series(database, pair, now)
    said = of_series(found, pair.supervisor, now)
    await door.hand(said.organizer, mail(said, outlook(said)))
    assert [(await again(database, one)).status for one in found] == [Status.CONFIRMED] * 3
    assert await news(database, "series.confirmed") == [("series.confirmed", pair.supervisee.id)]
    second = found[1].starts_at
    clock = (second - timedelta(hours=3)).strftime("%Y%m%dT%H%M%S")
    occurrences = [
        f"RECURRENCE-ID:{utc(second)}",
        f"RECURRENCE-ID;TZID=America/Sao_Paulo:{clock}",
        f"RECURRENCE-ID;TZID=E. South America Standard Time:{clock}",
        f"RECURRENCE-ID;TZID=Customized Time Zone:{clock}",
        f"RECURRENCE-ID:{clock}",
        f"RECURRENCE-ID;VALUE=DATE:{clock[:8]}",
    ]
    for number, occurrence in enumerate(occurrences):
        partstat = "DECLINED" if number % 2 else "TENTATIVE"
        said = of_series(
            found, pair.supervisee, now + timedelta(minutes=number), sequence=1, partstat=partstat,
            occurrence=occurrence,
        )  # fmt: skip
        await door.hand(said.organizer, mail(said, google(said)))
        expected = Attendance.DECLINED if number % 2 else Attendance.TENTATIVE
        assert [(await answers(database, one)).get(pair.supervisee.id) for one in found] == [None, expected, None]
    said = of_series(found, pair.supervisee, now + timedelta(hours=1), sequence=1, partstat="DECLINED")
    await door.hand(said.organizer, mail(said, apple(said)))
    assert {(await answers(database, one))[pair.supervisee.id] for one in found} == {Attendance.DECLINED}
    assert [(await again(database, one)).status for one in found] == [Status.CONFIRMED] * 3


@pytest.mark.parametrize(
    ("said_by", "change", "reason"),
    [
        pytest.param(
            {},
            {"head": vouched("ana@example.org", authserv="mx.elsewhere.example")},
            "inbound.no_results",
            id="foreign authserv",
        ),
        pytest.param({}, {"head": ""}, "inbound.no_results", id="nobody vouches"),
        pytest.param(
            {},
            {"results": "dkim=fail header.d=example.org; spf=pass smtp.mailfrom=example.org"},
            "inbound.not_aligned",
            id="spf alone",
        ),
        pytest.param(
            {},
            {"results": "dmarc=fail header.from=example.org; dkim=pass header.d=example.org"},
            "inbound.dmarc_failed",
            id="dmarc failed",
        ),
        pytest.param(
            {},
            {"results": "dkim=pass header.d=evil.example; dmarc=pass header.from=evil.example"},
            "inbound.not_aligned",
            id="another domain",
        ),
        pytest.param(
            {},
            {"results": "dkim=pass header.d=org; dmarc=none header.from=example.org"},
            "inbound.not_aligned",
            id="a whole top level",
        ),
        pytest.param({}, {"more": "From: Eve <eve@example.org>\r\n"}, "inbound.from_not_one", id="two From headers"),
        pytest.param({}, {"author": "eve@example.org"}, "inbound.attendee", id="another author"),
        pytest.param({"attendee": "eve@example.org"}, {}, "inbound.other_author", id="another attendee too"),
        pytest.param({"sequence": -1}, {}, "inbound.sequence", id="no sequence of ours"),
        pytest.param({"partstat": "DELEGATED"}, {}, "inbound.partstat", id="delegated"),
        pytest.param({"method": "REQUEST"}, {}, "inbound.method", id="an invitation"),
        pytest.param({"uid": "nobody"}, {}, "inbound.uid", id="no entry of ours"),
        pytest.param({"uid": f"{uuid.uuid4()}@x"}, {}, "attendance.unknown", id="an unknown entry"),
    ],
)
async def test_what_is_not_proven_has_no_effect_and_is_audited(
    database: Database, door: Door, pair: Pair, now: datetime, said_by: dict[str, Any], change: dict[str, Any],
    reason: str,
) -> None:  # fmt: skip
    one = await requested(database, pair, now)
    true = says(one, pair.supervisor, now)
    before = await tables(database)
    said = replace(true, **said_by)
    if "results" in change:
        change = {"head": vouched(said.attendee, results=change["results"])}
    content = mail(said, google(said), **change)
    assert await door.hand(true.organizer, content) == (250, b"2.0.0 Taken")
    assert await tables(database) == before
    assert await failures(database) == [reason]
    await door.hand(true.organizer, mail(true, google(true)))  # the negative control
    assert (await again(database, one)).status is Status.CONFIRMED


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("Subject: x\rFrom: ana@example.org\r\rx\r\nFrom: eve@example.org\r\n", id="a lone CR"),
        pytest.param("From : eve@example.org\r\nFrom: ana@example.org\r\n", id="a space before the colon"),
        pytest.param("From: ana@example.org\r\nnothing\r\nFrom: eve@example.org\r\n", id="no header"),
        pytest.param("From: ana@example.org\r\n\0From: eve@example.org\r\n", id="a NUL"),
        pytest.param("From: ana@example.org\r\n: x\r\nFrom: eve@example.org\r\n", id="no name"),
    ],
)
def test_headers_that_programs_read_differently_prove_nothing(head: str) -> None:
    """Eve's server vouches for whom it takes for the author, herself, and Ana has the same."""
    content = vouched("eve@example.org") + head + "Subject: y\r\n\r\nx\r\n"
    to = inbound.Recipient(reply_of=uuid.uuid4())
    assert inbound.read(content.encode(), to, AUTHSERV) == inbound.Nothing("broken_headers", suspicious=True)


async def test_the_topmost_result_of_ours_counts(database: Database, door: Door, pair: Pair, now: datetime) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now)
    forged = vouched(pair.supervisor.email).partition("\r\n")[2]
    ours = vouched(pair.supervisor.email, results="dmarc=none header.from=example.org")
    before = await tables(database)
    await door.hand(said.organizer, mail(said, google(said), head=ours + forged))
    assert (await tables(database), await failures(database)) == (before, ["inbound.not_aligned"])


async def test_one_s_own_answer_at_another_s_address_is_nobody_s(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    """Bruno cannot confirm his own request by answering where Ana's calendar does."""
    one = await requested(database, pair, now)
    said = says(one, pair.supervisee, now)
    before = await tables(database)
    await door.hand(address_of(pair.supervisor), mail(said, google(said)))
    assert (await tables(database), await failures(database)) == (before, ["inbound.other_author"])


async def test_somebody_else_s_appointment_is_not_answered(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await requested(database, pair, now)
    eve = await add_person(database, "Eve", ["supervisor"], now=now)
    said = says(one, eve, now)
    before = await tables(database)
    await door.hand(said.organizer, mail(said, google(said)))
    assert (await tables(database), await failures(database)) == (before, ["attendance.unknown"])


async def test_an_older_answer_and_a_replay_change_nothing(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await confirmed(database, pair, now)
    old = says(one, pair.supervisee, now, sequence=0, partstat="DECLINED")
    before = await tables(database)
    await door.hand(old.organizer, mail(old, google(old)))
    assert await tables(database) == before
    first = says(one, pair.supervisee, now + timedelta(minutes=1), sequence=1, partstat="DECLINED")
    second = replace(first, stamp=now + timedelta(minutes=2), partstat="ACCEPTED")
    for said in (first, second):
        await door.hand(said.organizer, mail(said, google(said)))
    before = await tables(database)
    # The same bytes, and the same answer by another way.
    await door.hand(first.organizer, mail(first, google(first)))
    await door.hand(first.organizer, mail(first, google(first), more="X-Replayed: yes\r\n"))
    ahead = replace(first, stamp=now + timedelta(days=3))
    await door.hand(first.organizer, mail(ahead, google(ahead)))
    assert await tables(database) == before
    assert await failures(database) == ["attendance.outdated"] * 3
    assert await answers(database, one) == {pair.supervisee.id: Attendance.ACCEPTED}


async def test_a_sequence_that_was_never_given_answers_nothing_to_come(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await confirmed(database, pair, now)
    said = says(one, pair.supervisee, now, sequence=999)
    await door.hand(said.organizer, mail(said, google(said)))
    assert await answers(database, one) == {pair.supervisee.id: Attendance.ACCEPTED}
    await door.hand(said.organizer, mail(said, google(said), more="X-Replayed: yes\r\n"))
    assert sorted(await outcomes(database)) == ["noted", "outdated"]
    async with database.transaction() as tx:
        moved_to = one.starts_at + timedelta(hours=1)
        await moves.reschedule(tx, acts(pair.supervisor), one.id, moved_to, now=now)
        await moves.accept(tx, acts(pair.supervisee), one.id, now=now)
    assert await answers(database, one) == {}


async def test_an_answer_to_a_series_confirms_none_that_was_moved_out_of_it(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    """She answers her entry as it was before Bruno moved his second request."""
    found = await book_series(database, pair, now)
    async with database.transaction() as tx:
        moved_to = found[1].starts_at + timedelta(hours=1)
        await moves.reschedule(tx, acts(pair.supervisee), found[1].id, moved_to, now=now)
    said = of_series(found, pair.supervisor, now)
    await door.hand(said.organizer, mail(said, google(said)))
    expected = [Status.CONFIRMED, Status.REQUESTED, Status.CONFIRMED]
    assert [(await again(database, one)).status for one in found] == expected
    second = f"RECURRENCE-ID:{utc(found[1].starts_at)}"
    said = of_series(found, pair.supervisor, now + timedelta(minutes=1), sequence=9, occurrence=second)
    await door.hand(said.organizer, mail(said, google(said)))
    assert (await again(database, found[1])).status is Status.CONFIRMED


async def test_the_same_mail_handed_over_at_once_has_one_effect(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await confirmed(database, pair, now)
    said = says(one, pair.supervisee, now, sequence=1, partstat="TENTATIVE")
    content = mail(said, google(said))
    replies = await asyncio.gather(*(door.hand(said.organizer, content) for _ in range(4)))
    assert replies == [(250, b"2.0.0 Taken")] * 4
    assert await outcomes(database) == ["noted"]
    assert await news(database) == [("attendance.tentative", pair.supervisor.id)]


async def test_an_archived_pair_is_not_told_of(database: Database, door: Door, pair: Pair, now: datetime) -> None:
    one = await requested(database, pair, now)
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
    before = await tables(database)
    said = says(one, pair.supervisor, now)
    await door.hand(said.organizer, mail(said, google(said)))
    assert (await tables(database), await failures(database)) == (before, ["attendance.outdated"])


async def test_what_a_calendar_says_of_what_is_over_is_not_told(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    one = await confirmed(database, pair, now)
    async with database.transaction() as tx:
        await appointments.cancel(tx, acts(pair.supervisor), one.id, now=now)
    before = await tables(database)
    said = says(one, pair.supervisee, now, sequence=2, partstat="DECLINED")
    await door.hand(said.organizer, mail(said, google(said)))
    assert (await tables(database), await failures(database)) == (before, ["attendance.closed"])


@pytest.mark.parametrize("charset", ["utf-16", "cp1252", "iso-8859-1"])
async def test_other_charsets_line_ends_and_kinds_are_read(
    database: Database, door: Door, pair: Pair, now: datetime, charset: str
) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now, sequence=None)
    bare = "\ufeff" * (charset == "utf-16") + google(said).replace("\r\n", "\n")
    kind = f"application/ics; name=invite.ics; charset={charset}"
    await door.hand(said.organizer.upper(), mail(said, bare, kind=kind, charset=charset))
    assert (await again(database, one)).status is Status.CONFIRMED


async def test_a_mail_by_hand_is_told_where_to_write(database: Database, door: Door, pair: Pair, now: datetime) -> None:
    said = Said("x", pair.supervisee.email, address_of(pair.supervisee), now)
    content = mail(said, "Could we meet later?", kind="text/plain; charset=UTF-8")
    await door.hand(said.organizer, content)
    assert await news(database) == [("attendance.refused", pair.supervisee.id)]
    before = await tables(database)
    for header in ("Auto-Submitted: auto-replied", "Precedence: Bulk", "X-Autoreply: yes"):
        await door.hand(said.organizer, mail(said, "Away", kind="text/plain", more=f"{header}\r\n"))
    assert (await tables(database), (await outcomes(database))[1:]) == (before, ["automatic"] * 3)


async def test_a_mail_that_answers_two_entries_answers_none(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    found = [await requested(database, pair, now, hours=hours) for hours in (49, 51)]
    said = says(found[0], pair.supervisor, now)
    second = google(says(found[1], pair.supervisor, now)).partition("BEGIN:VEVENT")[2]
    both = google(said).partition("END:VEVENT")[0] + "END:VEVENT\r\nBEGIN:VEVENT" + second
    await door.hand(said.organizer, mail(said, both))
    assert await failures(database) == ["inbound.ambiguous"]
    assert [(await again(database, one)).status for one in found] == [Status.REQUESTED] * 2


@pytest.mark.parametrize(
    "recipient",
    [
        "visavis@mail.clinic.example.org",
        f"reply+{'a' * 42}@{DOMAIN}",
        seals.reply_address("y" * 32, uuid.UUID(int=7), DOMAIN),
        seals.reply_address(SECRET, uuid.UUID(int=7), "elsewhere.example.org"),
    ],
)
async def test_no_other_address_is_taken(door: Door, recipient: str) -> None:
    assert await door.hand(recipient, b"") == (550, b"5.1.1 No such address")


async def test_a_mail_too_large_is_refused_and_the_connection_goes_on(
    database: Database, clock: Clock, pair: Pair, now: datetime
) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now)
    async with listening(database, with_inbound(make_config(25), largest_bytes=10_000), clock) as door:

        def talk() -> list[int]:
            with contextlib.closing(door.connect()) as client:
                client.ehlo_or_helo_if_needed()
                client.mail("a@example.net")
                client.rcpt(said.organizer)
                codes = [client.data(b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 200)[0]]
                client.mail("a@example.net")
                client.rcpt(said.organizer)
                return [*codes, client.data(mail(said, google(said)))[0]]

        assert await asyncio.to_thread(talk) == [552, 250]
    assert (await again(database, one)).status is Status.CONFIRMED


async def test_each_recipient_has_a_result(database: Database, door: Door, pair: Pair, now: datetime) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now)

    def talk() -> list[bytes]:
        with contextlib.closing(door.connect()) as client:
            client.ehlo_or_helo_if_needed()
            client.mail("a@example.net")
            for person in pair.people:
                client.rcpt(address_of(person))
            client.putcmd("DATA")
            client.getreply()
            client.send(mail(said, google(said)) + b".\r\n")
            return [client.getreply()[1] for _ in pair.people]

    assert await asyncio.to_thread(talk) == [b"2.0.0 Taken"] * 2
    assert sorted(await outcomes(database)) == ["confirmed", "other_author"]


async def test_smtp_is_spoken_where_that_is_configured(
    database: Database, clock: Clock, pair: Pair, now: datetime
) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now)
    async with listening(database, with_inbound(make_config(25), protocol="smtp"), clock) as door:
        assert (await door.hand(said.organizer, mail(said, google(said))))[0] == 250
    assert (await again(database, one)).status is Status.CONFIRMED


async def test_more_connections_than_there_may_be_are_sent_away(door: Door) -> None:
    def talk() -> tuple[int, int]:
        with contextlib.ExitStack() as stack:
            for _ in range(inbound.MOST_CONNECTIONS):
                stack.enter_context(contextlib.closing(door.connect()))
            with contextlib.closing(socket.create_connection(("127.0.0.1", door.port))) as one_more:
                refused = int(one_more.recv(100)[:3])
        return refused, 0

    assert await asyncio.to_thread(talk) == (421, 0)


async def test_while_the_database_is_away_the_mail_stays_with_its_server(
    postgresql: PostgreSQL, database_name: str, database: Database, clock: Clock, pair: Pair, now: datetime
) -> None:
    one = await requested(database, pair, now)
    said = says(one, pair.supervisor, now)
    own = Database(postgresql.dsn(database_name, "visavis_app"))
    superuser = await asyncpg.connect(postgresql.url("postgres", "postgres"))
    try:
        async with listening(own, with_inbound(make_config(25)), clock) as door:
            await superuser.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false")
            assert await door.hand(said.organizer, mail(said, google(said))) == (451, b"4.3.0 Try again later")
            await superuser.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS true")
            assert (await door.hand(said.organizer, mail(said, google(said))))[0] == 250
    finally:
        await superuser.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS true")
        await own.close()
        await superuser.close()
    assert (await again(database, one)).status is Status.CONFIRMED


def bomb(head: bytes, body: bytes, author: str) -> bytes:
    return vouched(author).encode() + f"From: {author}\r\n".encode() + head + b"\r\n\r\n" + body


BOMBS = {
    "many parts": (b"Content-Type: multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n" * 10_000),
    "deep parts": (
        b"Content-Type: multipart/mixed; boundary=b",
        b"".join(b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" for _ in range(5_000)),
    ),
    "deep messages": (b"Content-Type: message/rfc822", b"Content-Type: message/rfc822\r\n\r\n" * 5_000),
    "many headers": (b"X-A: 1\r\n" * 100_000 + b"Content-Type: text/calendar", b"BEGIN:VCALENDAR"),
    "long header": (b"From: " + b"(" * 900_000, b""),
    "many addresses": (b"Cc: " + b"a@b, " * 200_000, b""),
    "empty lines": (b"Content-Type: message/delivery-status", b"\r\n" * 400_000),
    "many entries": (
        b"Content-Type: text/calendar",
        b"BEGIN:VCALENDAR\r\n" + b"BEGIN:VEVENT\r\nEND:VEVENT\r\n" * 60_000,
    ),
    "deep calendar": (b"Content-Type: text/calendar", b"BEGIN:VCALENDAR\r\n" * 90_000),
    "long property": (b"Content-Type: text/calendar", b"BEGIN:VCALENDAR\r\nUID:" + (b"x" * 70 + b"\r\n ") * 25_000),
    "costly charset": (b"Content-Type: text/calendar; charset=punycode", b"a-" * 100_000),
    "nothing": (b"", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_put_away_and_blocks_nobody(database: Database, door: Door, pair: Pair, name: str) -> None:
    head, body = BOMBS[name]
    before = await tables(database)
    loop = asyncio.get_running_loop()
    slowest, stopped = 0.0, False

    async def watch() -> None:
        nonlocal slowest
        while not stopped:
            began = loop.time()
            await asyncio.sleep(0.01)
            slowest = max(slowest, loop.time() - began)

    watching = asyncio.create_task(watch())
    code, _ = await door.hand(address_of(pair.supervisor), bomb(head, body, pair.supervisor.email))
    stopped = True
    await watching
    assert code in (250, 500, 552)
    assert slowest < 5.0  # with the test itself and whatever else this machine does
    after = await tables(database)
    assert {one for one in before if before[one] != after[one]} <= {"notifications"}


async def test_our_own_invitation_is_answered_as_it_says(
    database: Database, clock: Clock, mail_server: MailServer, inbox: Inbox, pair: Pair, now: datetime
) -> None:
    """From the mail that we send to its answer: the UID, SEQUENCE and ORGANIZER are those of the entry itself."""
    config = with_inbound(make_config(mail_server.port))
    async with listening(database, config, clock) as door, running(database, config, clock):
        one = await requested(database, pair, now)
        [invitation] = await inbox.take(1)
        entry = entry_of(invitation)
        organizer = str(entry["ORGANIZER"]).removeprefix("mailto:")
        said = Said(str(entry["UID"]), pair.supervisor.email, organizer, now, sequence=int(str(entry["SEQUENCE"])))
        await door.hand(organizer, mail(said, outlook(said)))
        assert (await again(database, one)).status is Status.CONFIRMED
        mails = await inbox.take(2)
        to_bruno = next(each for each in mails if pair.supervisee.email in str(each["To"]))
        entry = entry_of(to_bruno)
        organizer = str(entry["ORGANIZER"]).removeprefix("mailto:")
        assert organizer == address_of(pair.supervisee)
        said = Said(str(entry["UID"]), pair.supervisee.email, organizer, now, sequence=int(str(entry["SEQUENCE"])))
        await door.hand(organizer, mail(said, apple(said)))
    assert await answers(database, one) == {
        pair.supervisor.id: Attendance.ACCEPTED,
        pair.supervisee.id: Attendance.ACCEPTED,
    }


async def test_our_own_mail_comes_back_to_where_it_says(
    database: Database, clock: Clock, mail_server: MailServer, inbox: Inbox, pair: Pair, now: datetime
) -> None:
    config = with_inbound(make_config(mail_server.port))
    async with listening(database, config, clock) as door, running(database, config, clock):
        await requested(database, pair, now)
        await until(lambda: len(inbox.files()) == 1)
        head = inbox.files()[0].read_bytes().partition(b"\r\n")[0].decode()
        back = head.removeprefix("Return-Path: <").removesuffix(">")
        assert await door.hand(back, report(back, pair.supervisor.email), "<>") == (250, b"2.0.0 Taken")
    assert await is_stopped(database, pair.supervisor) == "5.1.1"


def entry_of(message: EmailMessage) -> Any:
    [found] = [each for each in message.walk() if each.get_content_type() == "text/calendar"]
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return Calendar.from_ical(payload).walk("VEVENT")[0]


# What comes back.


async def told_by_mail(database: Database, person: Person, now: datetime) -> uuid.UUID:
    notice = Notice(person.id, Channel.MAIL, "sign_in", {"sign_in_id": str(uuid.uuid4())})
    async with database.transaction() as tx:
        await enqueue(tx, [notice], now=now)
        await tx.execute(update(outbox).where(outbox.c.id == notice.id).values(state=State.SENT))
    return notice.id


async def row_of(database: Database, notification_id: uuid.UUID) -> tuple[str, str | None]:
    async with database.transaction() as tx:
        row = (await tx.execute(select(outbox.c.state, outbox.c.error).where(outbox.c.id == notification_id))).one()
        return row.state, row.error


async def is_stopped(database: Database, person: Person) -> str | None:
    async with database.transaction() as tx:
        found = await mailboxes.stopped(tx, person.id)
        return None if found is None else found.code


async def test_an_address_that_was_just_corrected_is_not_stopped_for_the_old_one(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    sent = await told_by_mail(database, pair.supervisee, now)
    back = seals.return_address(SECRET, sent, DOMAIN)
    async with database.transaction() as tx:
        await people.set_email(tx, SYSTEM, pair.supervisee.id, "new@example.org", now=now)
        coming = asyncio.create_task(door.hand(back, report(back, pair.supervisee.email), "<>"))
        await asyncio.sleep(0.5)
    assert await coming == (250, b"2.0.0 Taken")
    assert (await outcomes(database), await is_stopped(database, pair.supervisee)) == (["not_theirs"], None)


async def test_a_hard_bounce_stops_the_address_and_is_told(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    admin = await add_person(database, "Dora", ["admin"], now=now)
    sent = await told_by_mail(database, pair.supervisee, now)
    back = seals.return_address(SECRET, sent, DOMAIN)
    for number in range(2):
        content = report(back, pair.supervisee.email, diagnostic=f"smtp; 550 5.1.1 unknown {number}")
        assert await door.hand(back, content, "<>") == (250, b"2.0.0 Taken")
    assert await is_stopped(database, pair.supervisee) == "5.1.1"
    assert await row_of(database, sent) == (State.PARKED, "bounced_5.1.1")
    assert sorted(await news(database, "mailbox.")) == sorted(
        [("mailbox.stopped", pair.supervisor.id), ("mailbox.stopped", pair.supervisee.id)]
    )
    async with database.transaction() as tx:
        mails = await tx.execute(
            select(outbox.c.person_id).where(outbox.c.channel == Channel.MAIL, outbox.c.kind == "mailbox.stopped")
        )
        assert [row.person_id for row in mails] == [admin.id]
    async with database.transaction() as tx:
        await mailboxes.resume(tx, SYSTEM, pair.supervisee.id, now=now)
    assert await is_stopped(database, pair.supervisee) is None
    assert await row_of(database, sent) == (State.PENDING, None)


@pytest.mark.parametrize(
    ("values", "state", "outcome"),
    [
        ({"status": "5.2.2", "diagnostic": "smtp; 552 5.2.2 full"}, (State.PARKED, "bounced_5.2.2"), "bounced"),
        ({"status": "5.7.1", "diagnostic": "smtp; 550 5.7.1 no"}, (State.PARKED, "bounced_5.7.1"), "bounced"),
        ({"status": "4.4.1", "action": "delayed"}, (State.SENT, None), "delayed"),
        ({"status": "2.0.0", "action": "delivered"}, (State.SENT, None), "delayed"),
        ({"final": "somebody.else@example.org"}, (State.SENT, None), "not_theirs"),
    ],
)
async def test_other_reports_stop_nothing(
    database: Database, door: Door, pair: Pair, now: datetime, values: dict[str, str],
    state: tuple[str, str | None], outcome: str,
) -> None:  # fmt: skip
    sent = await told_by_mail(database, pair.supervisee, now)
    back = seals.return_address(SECRET, sent, DOMAIN)
    await door.hand(back, report(back, pair.supervisee.email, **values), "<>")
    assert (await is_stopped(database, pair.supervisee), await row_of(database, sent)) == (None, state)
    assert (await outcomes(database), await news(database, "mailbox.")) == ([outcome], [])


async def test_a_vague_status_is_made_clear_by_the_other_server_and_an_alias_is_known(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    sent = await told_by_mail(database, pair.supervisee, now)
    back = seals.return_address(SECRET, sent, DOMAIN)
    content = report(back, "", status="5.0.0", final="b.silva@host.example", original=pair.supervisee.email.upper())
    await door.hand(back, content, "<>")
    assert await is_stopped(database, pair.supervisee) == "5.1.1"


async def test_an_absence_notice_to_a_return_address_is_dropped(
    database: Database, door: Door, pair: Pair, now: datetime
) -> None:
    sent = await told_by_mail(database, pair.supervisee, now)
    back = seals.return_address(SECRET, sent, DOMAIN)
    said = Said("x", pair.supervisee.email, back, now)
    before = await tables(database)
    await door.hand(back, mail(said, "Away", kind="text/plain", more="Auto-Submitted: auto-replied\r\n"))
    assert (await tables(database), await outcomes(database)) == (before, ["no_report"])

"""The whole way from the outbox to a mail server: who gets what, once, in order, whatever fails on the way."""

import asyncio
import contextlib
import json
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from icalendar import Calendar
from prometheus_client import REGISTRY
from sqlalchemy import Row, delete, select, update

from bridge import delivery, letters
from bridge.delivery import Delivery, Try, plan_retries
from embedded.postgresql import PostgreSQL
from supervision import appointments, mailboxes, moves, notifications, people, sign_ins
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.config import Config
from supervision.db import Database
from supervision.models import Channel, State
from supervision.models import notifications as table
from supervision.models import people as people_table
from supervision.notifications import HIGH, LOW, Notice
from supervision.pairs import Pair
from tests.bridge.conftest import QUICK, SECRET, Clock, Inbox, make_config, running, until
from tests.bridge.servers import DROP, KEEP_AND_DROP, STALL, break_off, moody_server
from tests.support.sample import acts, add_pair, add_person

TEN = datetime(2026, 11, 25, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo, 13:00 in Lisbon, two days ahead


async def book(database: Database, pair: Pair, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)


async def confirm(database: Database, pair: Pair, appointment: Appointment, now: datetime) -> None:
    async with database.transaction() as tx:
        await appointments.confirm(tx, acts(pair.supervisor), appointment.id, now=now)


async def enqueue(database: Database, now: datetime, *notices: Notice) -> None:
    async with database.transaction() as tx:
        await notifications.enqueue(tx, notices, now=now)


def sign_in(person_id: uuid.UUID, **more: Any) -> Notice:
    return Notice(person_id, Channel.MAIL, "sign_in", {"sign_in_id": str(uuid.uuid4())}, **more)


async def rows(database: Database) -> list[Row[Any]]:
    async with database.transaction() as tx:
        query = select(table).where(table.c.channel == Channel.MAIL).order_by(table.c.position)
        return list(await tx.execute(query))


async def states(database: Database) -> list[str]:
    return [row.state for row in await rows(database)]


async def settled(database: Database, *expected: str) -> None:
    async with asyncio.timeout(60):
        while await states(database) != list(expected):  # noqa: ASYNC110 - it looks at a table
            await asyncio.sleep(0.02)


def gist(mail: EmailMessage) -> tuple[str, str]:
    """The name it is to and its subject."""
    return mail["To"].addresses[0].display_name, str(mail["Subject"])


def entry(mail: EmailMessage) -> tuple[str, int, str, str]:
    """Its calendar part as (method, sequence, status, start on the clock of the person it is to)."""
    (part,) = (part for part in mail.walk() if part.get_content_type() == "text/calendar")
    calendar = Calendar.from_ical(part.get_content())
    (event,) = calendar.events
    zone = "America/Sao_Paulo" if gist(mail)[0] == "Ana" else "Europe/Lisbon"
    assert isinstance(event.start, datetime)
    local = event.start.astimezone(ZoneInfo(zone))
    return str(calendar["METHOD"]), int(str(event["SEQUENCE"])), str(event["STATUS"]), f"{local:%d/%m %H:%M}"


async def test_the_mails_of_an_appointment_s_life(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    """Ana reads Portuguese in São Paulo, Bruno English in Lisbon; each change reaches both in order."""
    pair = await add_pair(database, now=now)
    async with running(database, config, clock):
        appointment = await book(database, pair, now)
        asked = await inbox.take(1)
        await confirm(database, pair, appointment, now)
        confirmed = await inbox.take(2)
        async with database.transaction() as tx:
            later = TEN + timedelta(hours=1)
            await moves.reschedule(tx, acts(pair.supervisor), appointment.id, later, now=now)
        [proposed] = await inbox.take(1)
        async with database.transaction() as tx:
            await moves.accept(tx, acts(pair.supervisee), appointment.id, now=now)
        moved = await inbox.take(2)
        clock.forward(timedelta(hours=26))
        reminders = await inbox.take(2)
        async with database.transaction() as tx:
            await appointments.cancel(tx, acts(pair.supervisee), appointment.id, now=clock())
        cancelled = await inbox.take(2)
    assert [gist(mail) for mail in asked] == [("Ana", "Pedido de supervisão: qua., 25/11, 10:00")]
    assert [entry(mail) for mail in asked] == [("REQUEST", 0, "TENTATIVE", "25/11 10:00")]
    assert {gist(mail): entry(mail) for mail in confirmed} == {
        ("Ana", "Supervisão confirmada: qua., 25/11, 10:00"): ("REQUEST", 1, "CONFIRMED", "25/11 10:00"),
        ("Bruno", "Supervision confirmed: Wed 25 Nov, 13:00"): ("REQUEST", 1, "CONFIRMED", "25/11 13:00"),
    }
    assert gist(proposed)[0] == "Bruno"
    assert [part.get_content_type() for part in proposed.walk()].count("text/calendar") == 0  # the old time stands
    assert {gist(mail): entry(mail) for mail in moved} == {
        ("Ana", "Supervisão remarcada: qua., 25/11, 11:00"): ("REQUEST", 2, "CONFIRMED", "25/11 11:00"),
        ("Bruno", "Supervision moved: Wed 25 Nov, 14:00"): ("REQUEST", 2, "CONFIRMED", "25/11 14:00"),
    }
    assert {mail["To"].addresses[0].display_name for mail in reminders} == {"Ana", "Bruno"}
    assert {gist(mail): entry(mail) for mail in cancelled} == {
        ("Ana", "Supervisão cancelada: qua., 25/11, 11:00"): ("CANCEL", 3, "CANCELLED", "25/11 11:00"),
        ("Bruno", "Supervision cancelled: Wed 25 Nov, 14:00"): ("CANCEL", 3, "CANCELLED", "25/11 14:00"),
    }
    assert len({str(mail["Message-ID"]) for mail in asked + confirmed + moved + reminders + cancelled}) == 9


async def test_a_no_and_a_silence_reach_both(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    async with running(database, config, clock):
        appointment = await book(database, pair, now)
        await inbox.take(1)
        async with database.transaction() as tx:
            await appointments.decline(tx, acts(pair.supervisor), appointment.id, now=now)
        declined = await inbox.take(2)
        await book(database, pair, now)
        await inbox.take(1)
        async with database.transaction() as tx:
            await appointments.close_past(tx, now=TEN)
        clock.forward(TEN - now)
        lapsed = await inbox.take(2)
    assert {gist(mail): entry(mail) for mail in declined} == {
        ("Ana", "Pedido de supervisão recusado: qua., 25/11, 10:00"): ("CANCEL", 1, "CANCELLED", "25/11 10:00"),
        ("Bruno", "Supervision request declined: Wed 25 Nov, 13:00"): ("CANCEL", 1, "CANCELLED", "25/11 13:00"),
    }
    assert {gist(mail) for mail in lapsed} == {
        ("Ana", "Pedido de supervisão sem resposta: qua., 25/11, 10:00"),
        ("Bruno", "Supervision request unanswered: Wed 25 Nov, 13:00"),
    }


class Undone(Exception):
    """Ends a transaction without committing it."""


async def test_a_sign_in_s_link_and_code_work(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with running(database, config, clock):
        async with database.transaction() as tx:
            await sign_ins.ask(tx, acts(ana), ana.email, "browser", now=now)
        (mail,) = await inbox.take(1)
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    lines = mail.get_body(("plain",)).get_content().splitlines()  # type: ignore[union-attr]
    link, code = lines[3], lines[6]
    sign_in_id = sign_ins.read_link_token(SECRET, link.removeprefix(f"{config.web.base_url}/sign-in/"))
    assert sign_in_id is not None
    with contextlib.suppress(Undone):
        async with database.transaction() as tx:
            assert await sign_ins.use_code(tx, SECRET, acts(ana), "browser", code, now=now) is not None
            raise Undone
    async with database.transaction() as tx:
        await sign_ins.use_link(tx, acts(ana), sign_in_id, "browser", now=now)


async def test_the_envelope_is_the_two_addresses(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now, email="Ana.Maria+x@Example.org")
    async with moody_server() as server, running(database, make_config(server.port), clock):
        await enqueue(database, now, sign_in(ana.id))
        await until(lambda: len(server.kept) == 1)
    assert [(kept.mail_from, kept.rcpt_tos) for kept in server.kept] == [
        ("visavis@clinic.example.org", ["Ana.Maria+x@Example.org"])
    ]


async def test_what_is_enqueued_is_sent_at_once(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    """With a safety net of an hour, only NOTIFY can be what woke it."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with running(database, config, clock, poll=3600):
        await asyncio.sleep(0.5)
        await enqueue(database, now, sign_in(ana.id))
        await until(lambda: len(inbox.files()) == 1)


async def test_what_is_due_later_is_sent_then(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    send_at = clock() + timedelta(seconds=1.5)
    await enqueue(database, now, sign_in(ana.id, send_at=send_at))
    async with running(database, config, clock, poll=3600):
        await until(lambda: inbox.files() != [])
        assert clock() >= send_at


async def test_a_refusal_for_now_is_tried_again(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("RCPT", "450 4.2.0 busy", "451 later")
        await enqueue(database, now, sign_in(ana.id))
        await settled(database, State.SENT)
    (row,) = await rows(database)
    assert (len(server.kept), row.attempts, row.error) == (1, 3, None)


async def test_a_refusal_for_good_is_parked(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("RCPT", "550 5.7.1 not from you")
        await enqueue(database, now, sign_in(ana.id))
        await settled(database, State.PARKED)
    (row,) = await rows(database)
    assert (len(server.kept), row.attempts, row.error) == (0, 1, "smtp_550_5.7.1")
    async with database.transaction() as tx:
        assert await mailboxes.stopped(tx, ana.id) is None


async def test_an_address_that_is_refused_for_good_gets_no_more(
    database: Database, clock: Clock, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    rita = await add_person(database, "Rita", ["admin"], now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("RCPT", "550 5.1.1 no such user")
        await enqueue(database, now, sign_in(ana.id))
        async with asyncio.timeout(60):
            while not server.kept:  # noqa: ASYNC110 - the server is not ours to wake us
                await asyncio.sleep(0.02)
    (refused,) = [row for row in await rows(database) if row.person_id == ana.id]
    assert (refused.state, refused.error) == (State.PARKED, "bounced_5.1.1")
    assert server.kept[0].rcpt_tos == [rita.email]  # the admin is told
    async with database.transaction() as tx:
        found = await mailboxes.stopped(tx, ana.id)
    assert found is not None
    assert found.code == "5.1.1"


async def test_an_address_corrected_meanwhile_is_not_stopped(database: Database, clock: Clock, now: datetime) -> None:
    """The mail was on its way to the old one when it was refused."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    delivery = Delivery(database, make_config(9), clock, plan_retries(make_config(9).mail))
    notice = sign_in(ana.id)
    async with database.transaction() as tx:
        await notifications.enqueue(tx, [notice], now=now)
    delivery.refused.append((notice.id, ana.email, "5.1.1"))
    async with database.transaction() as tx:
        await people.set_email(tx, SYSTEM, ana.id, "ana.ribeiro@example.org", now=now)
    await delivery.turn()
    async with database.transaction() as tx:
        assert await mailboxes.stopped(tx, ana.id) is None
    await delivery.finish(1.0)
    assert delivery.refused == []


async def test_after_the_last_try_it_is_parked(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("DATA", *["452 4.3.1 full"] * QUICK.tries)
        await enqueue(database, now, sign_in(ana.id))
        await settled(database, State.PARKED)
    (row,) = await rows(database)
    assert (row.attempts, row.error) == (QUICK.tries, "smtp_452_4.3.1")


@pytest.mark.parametrize(("mood", "copies"), [(DROP, 1), (KEEP_AND_DROP, 2)])
async def test_a_connection_that_breaks_at_data_is_tried_again_as_the_same_mail(
    database: Database, clock: Clock, now: datetime, mood: str, copies: int
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    notice = sign_in(ana.id)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("DATA", mood)
        await enqueue(database, now, notice)
        await settled(database, State.SENT)
    line = f"Message-ID: <{notice.id}@clinic.example.org>\r\n".encode()
    assert [kept.original_content.count(line) for kept in server.kept if kept.original_content] == [1] * copies


async def test_a_slow_mail_holds_up_no_other(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    slow, quick = sign_in(ana.id), [sign_in(ana.id) for _ in range(5)]
    config_of = {"connections": 2, "timeout_seconds": 3}
    async with moody_server() as server, running(database, make_config(server.port, **config_of), clock, grace=0.1):
        server.answer("DATA", STALL)
        await enqueue(database, now, slow)
        await until(lambda: not server.moods["DATA"])
        await enqueue(database, now, *quick)
        await settled(database, State.PENDING, *[State.SENT] * 5)


async def test_no_more_connections_than_configured(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, *(sign_in(ana.id) for _ in range(20)))
    async with moody_server() as server, running(database, make_config(server.port, connections=3), clock):
        await settled(database, *[State.SENT] * 20)
        assert (len(server.kept), len(server.connections)) == (20, 3)


async def test_the_urgent_overtakes(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    low, high = [sign_in(ana.id, priority=LOW) for _ in range(3)], [sign_in(ana.id, priority=HIGH) for _ in range(2)]
    await enqueue(database, now, *low, *high)
    async with moody_server() as server, running(database, make_config(server.port, connections=1), clock):
        await settled(database, *[State.SENT] * 5)
    sent = [next(n for n in high + low if str(n.id).encode() in (kept.original_content or b"")) for kept in server.kept]
    assert sent == high + low


@pytest.mark.parametrize("kept_free", [True, False])
async def test_one_connection_of_several_is_left_to_what_is_more_urgent(
    database: Database, clock: Clock, now: datetime, monkeypatch: pytest.MonkeyPatch, kept_free: bool
) -> None:
    """Else slow mails of the lowest priority take them all."""
    if not kept_free:
        monkeypatch.setattr(delivery, "LOW", 0)
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, *(sign_in(ana.id, priority=LOW) for _ in range(20)))
    async with moody_server() as server:
        config = make_config(server.port, connections=3)
        server.answer("DATA", STALL, STALL, *[] if kept_free else [STALL])
        async with running(database, config, clock, poll=3600, grace=0.1):
            await until(lambda: not server.moods["DATA"])
            await asyncio.sleep(0.3)
            assert server.kept == []
            urgent = [sign_in(ana.id, priority=HIGH), sign_in(ana.id)]
            await enqueue(database, now, *urgent)
            if kept_free:
                await until(lambda: len(server.kept) == 2, 30)  # half of what the stalled ones take
            else:
                await asyncio.sleep(1)
                assert server.kept == []
    if kept_free:
        states = {row.id: row.state for row in await rows(database)}
        assert [states[notice.id] for notice in urgent] == [State.SENT, State.SENT]


async def test_the_last_of_the_lowest_priority_are_sent_too(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, *(sign_in(ana.id, priority=LOW) for _ in range(30)))
    async with moody_server() as server, running(database, make_config(server.port), clock, poll=3600):
        await settled(database, *[State.SENT] * 30)
        assert len(server.connections) == 3  # of four


async def test_one_appointment_s_mails_keep_their_order_to_each_person(
    database: Database, clock: Clock, now: datetime
) -> None:
    """While the confirmation is being sent the cancellation waits, and then it alone is told."""
    pair = await add_pair(database, now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        appointment = await book(database, pair, now)
        await until(lambda: len(server.kept) == 1)
        server.answer("DATA", STALL)
        await confirm(database, pair, appointment, now)
        await until(lambda: len(server.kept) == 2 and not server.moods["DATA"])
        async with database.transaction() as tx:
            await appointments.cancel(tx, acts(pair.supervisee), appointment.id, now=now)
        await until(lambda: len(server.kept) == 3)
        await asyncio.sleep(0.3)
        assert len(server.kept) == 3  # the stalled person's cancellation waits for the confirmation's end
        server.hang_up()
        await until(lambda: len(server.kept) == 4)
        clock.forward(QUICK.longest)  # the confirmation's next try is due
        async with asyncio.timeout(60):
            while State.PENDING in await states(database):  # noqa: ASYNC110 - it looks at a table
                await asyncio.sleep(0.02)
    kinds = Counter((row.kind, row.state) for row in await rows(database))
    assert kinds == {
        ("appointment.requested", State.SENT): 1,
        ("appointment.confirmed", State.SENT): 1,
        ("appointment.confirmed", State.SUPERSEDED): 1,
        ("appointment.reminder", State.SUPERSEDED): 2,
        ("appointment.cancelled", State.SENT): 2,
    }


async def test_a_cancellation_replaces_the_invitation_that_was_never_tried(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    await confirm(database, pair, appointment, now)
    async with database.transaction() as tx:
        await appointments.cancel(tx, acts(pair.supervisor), appointment.id, now=now)
    async with running(database, config, clock):
        mails = await inbox.take(2)
    assert sorted(entry(mail) for mail in mails) == [
        ("CANCEL", 2, "CANCELLED", "25/11 10:00"),
        ("CANCEL", 2, "CANCELLED", "25/11 13:00"),
    ]


async def test_two_loops_on_one_database_send_each_row_once(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    notices = [sign_in(ana.id) for _ in range(60)]
    async with running(database, config, clock), running(database, config, clock):
        for begin in range(0, 60, 6):
            await enqueue(database, now, *notices[begin : begin + 6])
        mails = await inbox.take(60)
    assert sorted(str(mail["Message-ID"]) for mail in mails) == sorted(
        f"<{notice.id}@clinic.example.org>" for notice in notices
    )
    assert {row.attempts for row in await rows(database)} == {1}


async def test_without_the_lease_two_loops_send_a_row_twice(
    database: Database, clock: Clock, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(Delivery, "lease", timedelta(seconds=0.3))
    monkeypatch.setattr(delivery, "RENEWAL", 60.0)
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server:
        server.hold = asyncio.Event()
        config = make_config(server.port)
        async with running(database, config, clock), running(database, config, clock):
            await enqueue(database, now, sign_in(ana.id))
            await until(lambda: len(server.kept) > 1)
            server.hold.set()
            await settled(database, State.SENT)


@pytest.mark.parametrize("renewed", [True, False])
async def test_a_mail_that_outlasts_its_lease_is_left_to_its_sender(
    database: Database, clock: Clock, now: datetime, monkeypatch: pytest.MonkeyPatch, renewed: bool
) -> None:
    """And without the renewal another loop takes it."""
    monkeypatch.setattr(delivery, "RENEWAL", 0.05 if renewed else 60.0)
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server:
        server.hold = asyncio.Event()
        config = make_config(server.port)
        async with running(database, config, clock), running(database, config, clock):
            await enqueue(database, now, sign_in(ana.id))
            await until(lambda: server.kept != [])
            for _ in range(12):  # a minute, of which the lease is the half
                clock.forward(timedelta(seconds=5))
                if renewed:
                    await leased(database, clock() + delivery.LEASE - timedelta(seconds=5))
                await asyncio.sleep(0.15)
            if not renewed:
                await until(lambda: len(server.kept) > 1)
            server.hold.set()
            await settled(database, State.SENT)
            assert (len(server.kept) == 1) is renewed
    (row,) = await rows(database)
    assert (row.attempts == 1) is renewed


async def leased(database: Database, until_at: datetime) -> None:
    """Wait until the only mail is claimed until then at least."""
    async with asyncio.timeout(60):
        while (await rows(database))[0].claimed_until < until_at:  # noqa: ASYNC110 - it looks at a table
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("column", ["name", "email"])
@pytest.mark.parametrize("poison", ["\nBcc: eve@example.org", "é=?UTF-8?Q?=0A?=Bcc: eve@example.org"])
async def test_a_name_or_address_that_reached_the_database_cannot_inject(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime, column: str, poison: str
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with database.transaction() as tx:
        value = {"name": f"Ána{poison}", "email": f"ana{poison}@example.org"}[column]
        await tx.execute(update(people_table).where(people_table.c.id == ana.id).values({column: value}))
    async with running(database, config, clock):
        await enqueue(database, now, sign_in(ana.id))
        await settled(database, State.PARKED)
    assert inbox.files() == []
    assert [row.error for row in await rows(database)] == ["header_unsafe"]


@pytest.mark.parametrize(
    ("kind", "details", "code"),
    [("sign_in", {}, "unwritable"), ("no.such_kind", {"sign_in_id": str(uuid.uuid4())}, "unwritable")],
)
async def test_a_mail_that_cannot_be_written_is_parked_and_the_next_is_sent(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime, kind: str, details: dict[str, Any],
    code: str,
) -> None:  # fmt: skip
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, Notice(ana.id, Channel.MAIL, kind, details), sign_in(ana.id))
    async with running(database, config, clock):
        await settled(database, State.PARKED, State.SENT)
        await inbox.take(1)
    assert [row.error for row in await rows(database)] == [code, None]


async def test_a_mail_of_somebody_outside_the_pair_is_parked(
    database: Database, config: Config, inbox: Inbox, clock: Clock, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    eve = await add_person(database, "Eve", ["supervisor"], now=now)
    async with database.transaction() as tx:
        await tx.execute(update(table).where(table.c.appointment_id == appointment.id).values(person_id=eve.id))
    async with running(database, config, clock):
        await settled(database, State.PARKED)
    assert inbox.files() == []


async def test_a_stop_lets_what_is_being_sent_arrive(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server:
        async with running(database, make_config(server.port, connections=2), clock):
            await enqueue(database, now, *(sign_in(ana.id) for _ in range(12)))
            await until(lambda: len(server.kept) >= 2)
    claimed = [row for row in await rows(database) if row.attempts]
    assert {row.state for row in claimed} == {State.SENT}
    assert len(server.kept) == len(claimed)


async def test_a_stop_does_not_wait_for_ever(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server:
        began = asyncio.get_running_loop().time()
        async with running(database, make_config(server.port), clock, grace=0.3):
            server.answer("DATA", STALL)
            await enqueue(database, now, sign_in(ana.id))
            await until(lambda: not server.moods["DATA"])
        assert asyncio.get_running_loop().time() - began < 30  # half of what the mail takes
    (row,) = await rows(database)
    assert (row.state, row.attempts) == (State.PENDING, 1)
    clock.forward(delivery.LEASE)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        await settled(database, State.SENT)


async def test_a_stop_at_the_moment_of_waking_is_a_stop(database: Database, config: Config, clock: Clock) -> None:
    ours = Delivery(database, config, clock, QUICK)
    resting = asyncio.create_task(ours.rest(3600))
    async with asyncio.timeout(60):
        while not ours.wake._waiters:  # noqa: ASYNC110, SLF001
            await asyncio.sleep(0.01)
    resting.cancel()
    ours.wake.set()
    with pytest.raises(asyncio.CancelledError):
        await resting


OUTCOMES = ("sent", "retried", "parked")
ROOT = Path(__file__).parent.parent.parent
BRIDGE = """
import asyncio, json, sys
from bridge import delivery
from supervision.config import Config
from supervision.db import Database
config = Config.model_validate(json.loads(sys.argv[1]))
asyncio.run(delivery.run(Database(config.database.url.get_secret_value()), config))
"""


@contextlib.asynccontextmanager
async def bridge_process(
    postgresql: PostgreSQL, database_name: str, port: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A real process of its own, killed at the end."""
    given = make_config(port, timeout_seconds=10).model_dump(mode="json") | {"secret": SECRET}
    given["matrix"]["password"] = "x"
    given["database"] = {"url": postgresql.dsn(database_name, "visavis_app")}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", BRIDGE, json.dumps(given), cwd=ROOT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_a_bridge_killed_before_it_settled_sends_the_same_mail_again(
    postgresql: PostgreSQL, database_name: str, database: Database, now: datetime
) -> None:
    """A real `kill -9` of a real process, between the server's taking the mail and our hearing of it."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    now = datetime.now(UTC)
    notice = sign_in(ana.id)
    async with moody_server() as server:
        config = make_config(server.port, timeout_seconds=10)
        server.hold = asyncio.Event()
        async with bridge_process(postgresql, database_name, server.port):
            await enqueue(database, now, notice)
            await until(lambda: len(server.kept) == 1)
        server.hold.set()
        assert await states(database) == [State.PENDING]
        clock = Clock(datetime.now(UTC) + delivery.LEASE)
        async with running(database, config, clock):
            await settled(database, State.SENT)
    line = f"Message-ID: <{notice.id}@clinic.example.org>\r\n".encode()
    assert [kept.original_content.count(line) for kept in server.kept if kept.original_content] == [1, 1]


async def test_a_database_that_goes_away_is_waited_for(
    postgresql: PostgreSQL, database_name: str, database: Database, config: Config, inbox: Inbox, clock: Clock,
    now: datetime,
) -> None:  # fmt: skip
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    own = Database(postgresql.dsn(database_name, "visavis_app"))
    superuser = await asyncpg.connect(postgresql.url("postgres", "postgres"))
    try:
        async with running(own, config, clock) as task:
            await enqueue(database, now, sign_in(ana.id))
            await inbox.take(1)
            await superuser.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false")
            await superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database_name
            )
            await asyncio.sleep(1)
            assert not task.done()
            await superuser.execute(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS true")
            await database.engine.dispose()
            await enqueue(database, now, sign_in(ana.id))
            await inbox.take(1)
    finally:
        await own.close()
        await superuser.close()


async def test_a_server_that_is_away_costs_no_tries(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server:
        port = server.port
    config = make_config(port, first_retry_seconds=0.05, longest_retry_seconds=0.2)
    async with running(database, config, clock):
        await enqueue(database, now, *(sign_in(ana.id) for _ in range(12)))
        async with asyncio.timeout(60):
            while "smtp_connect" not in {row.error for row in await rows(database)}:  # noqa: ASYNC110 - it looks at a table
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.5)  # more attempts to connect than a mail has tries
        assert {row.attempts for row in await rows(database)} <= {0, 1}  # 1 while one is being tried
        async with moody_server(port=port) as server:
            await settled(database, *[State.SENT] * 12)
    assert {(row.attempts, row.error) for row in await rows(database)} == {(1, None)}
    assert len(server.kept) == 12


async def test_a_server_that_gives_few_connections_gets_no_more(
    database: Database, clock: Clock, now: datetime
) -> None:
    """Such as Postfix with its smtpd_client_connection_count_limit: the rest waits for the connections there are."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server:
        server.most = 2
        async with running(database, make_config(server.port, connections=6), clock):
            await enqueue(database, now, *(sign_in(ana.id) for _ in range(40)))
            await settled(database, *[State.SENT] * 40)
    assert len(server.kept) == 40
    assert server.refused <= 4
    assert {row.attempts for row in await rows(database)} == {1}


async def test_greylisting_is_waited_for(database: Database, clock: Clock, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("RCPT", "450 4.2.0 Recipient address rejected: Greylisted")
        await enqueue(database, now, sign_in(ana.id))
        async with asyncio.timeout(60):
            while (await rows(database))[0].error is None:  # noqa: ASYNC110 - it looks at a table
                await asyncio.sleep(0.02)
        [row] = await rows(database)
        assert timedelta(minutes=5) < row.next_try_at - clock() < timedelta(minutes=6)
        clock.forward(timedelta(minutes=6))
        await settled(database, State.SENT)


@pytest.mark.parametrize("reached", [True, False])
async def test_a_bridge_that_was_frozen_takes_nothing_from_the_one_that_took_over(
    postgresql: PostgreSQL, database_name: str, database: Database, now: datetime, reached: bool
) -> None:
    """A real SIGSTOP of a real process. What it sent is sent; what it failed to send is another's business now."""
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    notice = sign_in(ana.id)
    async with moody_server() as server:
        server.hold = asyncio.Event()
        async with bridge_process(postgresql, database_name, server.port) as process:
            await enqueue(database, datetime.now(UTC), notice)
            await until(lambda: len(server.kept) == 1)
            [row] = await rows(database)
            assert row.claimed_until - datetime.now(UTC) <= delivery.LEASE
            process.send_signal(signal.SIGSTOP)
            async with running(database, make_config(server.port), Clock(datetime.now(UTC) + delivery.LEASE)):
                await until(lambda: len(server.kept) == 2)
                [taken] = await rows(database)
                assert taken.attempts == 2
                process.send_signal(signal.SIGCONT)
                if reached:
                    server.hold.set()
                    await settled(database, State.SENT)
                else:
                    break_off(server.connections[0])
                    await asyncio.sleep(1)
                    assert [tuple(row) for row in await rows(database)] == [tuple(taken)]
                    server.hold.set()
                    await settled(database, State.SENT)
                await asyncio.sleep(0.5)
    assert await states(database) == [State.SENT]
    line = f"Message-ID: <{notice.id}@clinic.example.org>\r\n".encode()
    assert [kept.original_content.count(line) for kept in server.kept if kept.original_content] == [1, 1]


async def test_a_bridge_that_was_frozen_before_it_began_sends_nothing(
    database: Database, clock: Clock, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, sign_in(ana.id))
    async with moody_server() as server:
        ours = Delivery(database, make_config(server.port), clock, QUICK)
        async with database.transaction() as tx:
            claimed = await notifications.claim(tx, Channel.MAIL, now=now)
            [(notification, letter)] = await letters.load_all(tx, claimed, now=now)
        long_ago = time.monotonic() - delivery.LEASE.total_seconds() - 1
        one = Try(notification, letter, long_ago, long_ago)
        ours.begin([one])
        await until(lambda: ours.ended == [one])
        await ours.finish(1)
    assert (one.lost, server.kept) == (True, [])
    assert [(row.state, row.attempts) for row in await rows(database)] == [(State.PENDING, 1)]


async def test_a_lease_that_is_another_s_by_now_is_not_taken_for_renewed(
    database: Database, clock: Clock, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thawed, a bridge may renew before it comes to send what it had claimed."""
    monkeypatch.setattr(delivery, "RENEWAL", 0.02)
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, sign_in(ana.id), sign_in(ana.id))
    async with database.transaction() as tx:
        claimed = await notifications.claim(tx, Channel.MAIL, now=clock())
        loaded = await letters.load_all(tx, claimed, now=now)
        await tx.execute(update(table).where(table.c.id == claimed[0].id).values(attempts=2))
    long_ago = time.monotonic() - delivery.LEASE.total_seconds() - 1
    lost, kept = (Try(notification, letter, long_ago, long_ago) for notification, letter in loaded)
    async with moody_server() as server:
        ours = Delivery(database, make_config(server.port), clock, QUICK)
        async with ours._writing:  # noqa: SLF001 - what it has claimed waits here for its turn
            ours.begin([lost, kept])
            keeping = asyncio.create_task(ours.keep_leases())
            await until(lambda: kept.leased_at > long_ago)
        await until(lambda: len(ours.ended) == 2)
        keeping.cancel()
        await ours.finish(1)
    assert (lost.lost, kept.lost, len(server.kept)) == (True, False, 1)
    assert await states(database) == [State.PENDING, State.SENT]


async def test_a_stop_while_the_database_is_slow_settles_what_was_sent(
    database: Database, clock: Clock, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CLAIMING", 0.2)
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await enqueue(database, now, sign_in(ana.id))
    async with moody_server() as server:
        ours = Delivery(database, make_config(server.port), clock, QUICK)
        await ours.turn()
        await until(lambda: len(ours.ended) == 1)
        async with database.transaction() as tx:
            await tx.execute(select(table).with_for_update())
            turning = asyncio.create_task(ours.turn())
            await asyncio.sleep(0.2)
            turning.cancel()
            stopping = asyncio.create_task(stop(turning, ours))
            await asyncio.sleep(0.5)
        await stopping
    assert await states(database) == [State.SENT]


async def stop(turning: asyncio.Task[None], ours: Delivery) -> None:
    """As `run` does at its end."""
    with pytest.raises(asyncio.CancelledError):
        await turning
    await ours.finish(5)


async def test_a_bridge_that_stops_leaves_the_rest_to_another_at_once(
    database: Database, clock: Clock, now: datetime
) -> None:
    """What comes after a mail that it has just sent; the other looks of itself but in an hour."""
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, now)
    async with database.transaction() as tx:
        await tx.execute(delete(table))
    about: dict[str, Any] = {"pair_id": pair.id, "appointment_id": appointment.id, "revision": 0}
    first, second = (Notice(pair.supervisor.id, Channel.MAIL, "appointment.requested", **about) for _ in range(2))
    async with moody_server() as server:
        server.hold = asyncio.Event()
        async with running(database, make_config(server.port), clock) as stopped:
            await enqueue(database, now, first, second)
            await until(lambda: len(server.kept) == 1)
            async with running(database, make_config(server.port), clock, poll=3600):
                await asyncio.sleep(0.5)
                stopped.cancel()
                await asyncio.sleep(0.1)
                server.hold.set()
                await until(lambda: len(server.kept) == 2, 20)  # before the lease's end
                await settled(database, State.SENT, State.SENT)


async def test_with_nothing_to_do_it_rests(database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = []
    plain = notifications.claim

    async def counted(*args: Any, **more: Any) -> list[notifications.Notification]:
        claims.append(more)
        return await plain(*args, **more)

    monkeypatch.setattr(notifications, "claim", counted)
    monkeypatch.setattr(delivery, "SOONEST", 0.05)
    async with moody_server() as server, running(database, make_config(server.port), clock, poll=3600):
        await asyncio.sleep(1)
    assert len(claims) <= 2  # at the start, and once the database is listened to


async def test_what_became_of_mails_is_counted(database: Database, clock: Clock, now: datetime) -> None:
    names = {
        **{outcome: ("visavis_mails_total", {"kind": "sign_in", "outcome": outcome}) for outcome in OUTCOMES},
        **{reason: ("visavis_mail_failures_total", {"reason": reason}) for reason in ("4xx", "5xx", "unsendable")},
        "processed": ("visavis_mail_processing_seconds_count", {}),
        "delayed": ("visavis_mail_delay_seconds_count", {}),
        "seconds late": ("visavis_mail_delay_seconds_sum", {}),
    }

    def counted() -> dict[str, float]:
        return {key: REGISTRY.get_sample_value(*name) or 0.0 for key, name in names.items()}

    before = counted()
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    async with moody_server() as server, running(database, make_config(server.port), clock):
        server.answer("RCPT", "450 later")
        await enqueue(database, now, sign_in(ana.id, send_at=now - timedelta(minutes=10)))
        await settled(database, State.SENT)
        server.answer("RCPT", "550 no")
        await enqueue(database, now, sign_in(ana.id))
        await settled(database, State.SENT, State.PARKED)
        await enqueue(database, now, Notice(ana.id, Channel.MAIL, "sign_in"))
        await settled(database, State.SENT, State.PARKED, State.PARKED)
    found = {key: value - before[key] for key, value in counted().items()}
    assert 600 < found.pop("seconds late") < 620
    assert found == {
        "sent": 1, "retried": 1, "parked": 2, "4xx": 1, "5xx": 1, "unsendable": 1, "processed": 4, "delayed": 1,
    }  # fmt: skip

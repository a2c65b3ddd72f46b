"""Addresses that mails come back from, and how mail to them goes on."""

import asyncio
import uuid
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update

from supervision import mailboxes, sign_ins
from supervision.audit import SYSTEM, Actor
from supervision.db import Database, lock_people
from supervision.errors import NotFound
from supervision.mailboxes import Stopped
from supervision.models import Channel, State, audit_entries, inbound_mails
from supervision.models import notifications as table
from supervision.models import sign_ins as sign_ins_table
from supervision.notifications import Notice, enqueue
from supervision.people import Person
from tests.support.sample import add_person


async def park(database: Database, person: Person, error: str, now: datetime) -> uuid.UUID:
    notice = Notice(person.id, Channel.MAIL, "appointment.reminder")
    async with database.transaction() as tx:
        await enqueue(tx, [notice], now=now)
        parked = update(table).where(table.c.id == notice.id)
        await tx.execute(parked.values(state=State.PARKED, error=error, settled_at=now))
    return notice.id


async def states(database: Database, *ids: uuid.UUID) -> list[str]:
    async with database.transaction() as tx:
        return [await tx.scalar(select(table.c.state).where(table.c.id == one)) or "" for one in ids]


async def test_what_was_kept_back_or_came_back_goes_out_again(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    bia = await add_person(database, "Bia", ["supervisor"], now=now)
    before = await park(database, ana, "bounced_5.2.2", now - timedelta(days=1))
    bounced = await park(database, ana, "smtp_timeout", now)
    kept = await park(database, ana, "address_stopped", now)
    hers = await park(database, bia, "address_stopped", now)
    async with database.transaction() as tx:
        await mailboxes.stop(tx, bounced, "5.1.1", now=now)
        assert await mailboxes.list_stopped(tx) == {ana.id: Stopped(now, "5.1.1")}
        await mailboxes.resume(tx, SYSTEM, ana.id, now=now)
        assert await mailboxes.list_stopped(tx) == {}
        with pytest.raises(NotFound):
            await mailboxes.resume(tx, SYSTEM, uuid.uuid4(), now=now)
    assert await states(database, before, bounced, kept, hers) == ["parked", "pending", "pending", "parked"]


async def test_a_mail_that_comes_back_while_mail_is_resumed_waits_for_nobody_who_waits_for_it(
    database: Database, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    mail = await park(database, ana, "smtp_timeout", now)
    async with database.transaction() as tx:
        await mailboxes.stop(tx, mail, "5.1.1", now=now)
    async with database.transaction() as resuming:
        await lock_people(resuming, [ana.id])
        stopping = asyncio.create_task(_stop(database, mail, now))
        await asyncio.sleep(0.3)
        await mailboxes.resume(resuming, SYSTEM, ana.id, now=now)
    await stopping
    assert await states(database, mail) == ["parked"]


async def _stop(database: Database, mail: uuid.UUID, now: datetime) -> None:
    async with database.transaction() as tx:
        await mailboxes.stop(tx, mail, "5.1.1", now=now)


async def test_signing_in_by_mail_proves_the_address(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    kept = await park(database, ana, "address_stopped", now)
    async with database.transaction() as tx:
        await mailboxes.stop(tx, kept, "5.2.1", now=now)
        await sign_ins.ask(tx, Actor(None, "web"), ana.email, "own", now=now)
        sign_in_id = await tx.scalar(select(sign_ins_table.c.id))
        assert sign_in_id is not None
        await sign_ins.use_link(tx, Actor(None, "web"), sign_in_id, "own", now=now)
        assert await mailboxes.stopped(tx, ana.id) is None
        query = select(audit_entries.c.actor_id).where(audit_entries.c.action == "mailbox.resume")
        assert await tx.scalar(query) == ana.id
    assert await states(database, kept) == ["pending"]


async def test_a_mail_is_taken_in_once_and_forgotten_after_a_month(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        assert await mailboxes.take_in(tx, b"1", "noted", now=now)
        assert not await mailboxes.take_in(tx, b"1", "noted", now=now)
        await mailboxes.forget_old(tx, now=now + timedelta(days=29))
        assert not await mailboxes.take_in(tx, b"1", "noted", now=now)
        await mailboxes.forget_old(tx, now=now + timedelta(days=30))
        assert list(await tx.execute(select(inbound_mails.c.digest))) == []

"""A lost phone: the new identity of an account counts once its owner, signed in by mail, has confirmed it."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import select

from supervision import identities, queries
from supervision.models import appointments, audit_entries
from tests.support.practice import Practice
from tests.support.sample import acts


async def test_a_new_identity_waits_for_its_owner_s_word(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phone(pair.supervisor) as ana:
        await ana.join(room)
        async with practice.phone(pair.supervisee) as lost:
            await lost.join(room)
            await lost.ask(room, "!help", practice.bot)
        async with practice.phone(pair.supervisee) as found:
            told = await ana.next_message(practice.bot, lambda message: "identidade nova" in message.body)
            assert told.mentions == (pair.supervisor.matrix_id,)
            [mail] = await practice.mails(pair.supervisee.email, at_least=1)
            assert mail["Subject"] == "Your chat account has a new identity"

            await found.join(room)
            mark = found.mark()
            await found.send_text(room, "!slots")
            refused = await ana.next_message(practice.bot, lambda m: m.body.startswith("The identity of your account"))
            assert found.heard(practice.bot, since=mark) == []
            assert refused.msgtype == "m.notice"

            async with practice.database.transaction() as tx:
                matrix_id = pair.supervisee.matrix_id or ""
                shown = await queries.offered_identity(tx, matrix_id) or ""
                actor, at = acts(pair.supervisee), datetime.now(UTC)
                await identities.confirm(tx, actor, matrix_id, master_key=shown, now=at)
            await ana.next_message(practice.bot, lambda message: "nova identidade" in message.body)
            await found.ask(room, "!slots", practice.bot, lambda message: message.body.startswith("Free with Ana"))

    async with practice.database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries.c.action, audit_entries.c.success)
            .where(audit_entries.c.resource_id == str(pair.supervisee.id), audit_entries.c.action.like("identity.%"))
            .order_by(audit_entries.c.id)
        )
        assert [tuple(row) for row in rows] == [
            ("identity.pin", True),
            ("identity.change_seen", False),
            ("identity.confirm", True),
        ]


async def test_an_account_with_another_identity_answers_nothing_by_a_tap(practice: Practice) -> None:
    pair = await practice.add_pair()
    room = pair.room_id or ""
    async with practice.phone(pair.supervisee) as bruno:
        await bruno.join(room)
        async with practice.phone(pair.supervisor) as ana:
            await ana.join(room)
            await ana.ask(room, "!ajuda", practice.bot)
            await bruno.ask(room, "!slots", practice.bot)
            await bruno.ask(room, "!book 1", practice.bot)
            request = await ana.next_message(practice.bot, lambda message: "Bruno pede" in message.body)
        async with practice.phone(pair.supervisor) as taken_over:
            await bruno.next_message(practice.bot, lambda message: "new identity" in message.body)
            await taken_over.join(room)
            await taken_over.react(room, request.event_id, "✅")
            await taken_over.send_text(room, "!confirmar")
            async with asyncio.timeout(60):
                while len(found := await reasons(practice)) < 2:  # noqa: ASYNC110 - the database has no event
                    await asyncio.sleep(0.05)
            assert found == ["doubt.changed_identity", "doubt.changed_identity"]
    async with practice.database.transaction() as tx:
        assert await tx.scalar(select(appointments.c.status)) == "requested"


async def reasons(practice: Practice) -> list[str]:
    async with practice.database.transaction() as tx:
        rows = await tx.execute(select(audit_entries.c.reason).where(audit_entries.c.action == "command"))
        return [row.reason for row in rows]

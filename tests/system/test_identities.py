"""A lost phone: the new identity of an account counts once its owner, signed in by mail, has confirmed it."""

from datetime import UTC, datetime

from sqlalchemy import select

from supervision import identities
from supervision.models import audit_entries
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
                await identities.confirm(tx, acts(pair.supervisee), matrix_id, now=datetime.now(UTC))
            await ana.next_message(practice.bot, lambda message: "nova identidade" in message.body)
            listed = await found.ask(room, "!slots", practice.bot)
            assert listed.body.startswith("Free with Ana")

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

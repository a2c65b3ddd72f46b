"""`!archive`: what it says, its code, and what both are told."""

import re
from datetime import date, datetime

import pytest

from supervision import appointments, pairs
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.errors import NotAllowed
from supervision.models import PairStatus
from supervision.models import pairs as pairs_table
from tests.bot.conversations import Conversation, begin
from tests.support.sample import acts

TUESDAY = datetime.fromisoformat("2026-11-24T13:00:00+00:00")


@pytest.fixture
async def talk(database: Database, now: datetime) -> Conversation:
    return await begin(database, now)


async def status(talk: Conversation) -> PairStatus:
    async with talk.database.transaction() as tx:
        return (await pairs.get(tx, talk.pair.id)).status


async def test_the_supervisor_archives_with_a_code(talk: Conversation) -> None:
    async with talk.database.transaction() as tx:
        await appointments.book(tx, acts(talk.ana), talk.pair, TUESDAY, now=talk.now)
    for person in talk.pair.people:
        await talk.told(person)
    with pytest.raises(NotAllowed, match=r"refused\.supervisor_archives"):
        await talk.say(talk.bruno, "!archive")
    what, booked, ask = await talk.say(talk.ana, "!arquivar")
    assert what == ("Arquivar fecha esta sala: vocês dois ainda podem ler o que está aqui, mas não escrever nem ligar.")
    assert booked == "O que ainda está marcado é cancelado (1)."
    [code] = re.findall(r"Digite !arquivar (\d{4})\.", ask)
    wrong = f"{(int(code) + 1) % 10_000:04}"
    assert code not in " ".join(await talk.say(talk.ana, f"!arquivar {wrong}"))
    assert await status(talk) is PairStatus.ACTIVE
    assert await talk.say(talk.ana, f"!arquivar {code}") == [
        "Esta sala agora está arquivada. Vocês dois ainda podem ler o que está aqui; escrever, não mais."
    ]
    assert await status(talk) is PairStatus.ARCHIVED
    cancelled, archived = await talk.told(talk.bruno)
    assert cancelled == "Tue 24 Nov, 10:00–10:50 (Sao Paulo) was cancelled, since this room was archived."
    assert archived == ("Ana archived this room. You can both still read what is here; nobody can write any more.")
    assert await talk.told(talk.ana) == [
        "ter., 24/11, 10:00–10:50 (São Paulo) foi cancelada, porque esta sala foi arquivada."
    ]


async def test_what_is_told_of_a_room_by_the_clock_and_the_operator(talk: Conversation) -> None:
    async with talk.database.transaction() as tx:
        await tx.execute(pairs_table.update().values(expires_on=date(2026, 11, 25)))
        await pairs.expire(tx, now=talk.now)
        await pairs.archive(tx, SYSTEM, talk.pair.id, now=talk.now)
        await pairs.reopen(tx, SYSTEM, talk.pair.id, now=talk.now)
    assert await talk.told(talk.bruno) == [
        "The last day of this room is Wed 25 Nov 2026. After that it is archived: you can still read, and not write."
        " Ana can change the date with !settings.",
        "This room was archived. You can both still read what is here; nobody can write any more.",
        "This room was reopened. You can both write again; what was cancelled stays cancelled.",
    ]

"""What only an admin and the operator may do, whichever door is asked: the domain itself refuses everybody else."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import pytest

from supervision import identities, invitations, pairs, people
from supervision.audit import SYSTEM, Actor
from supervision.db import Database, Transaction
from supervision.errors import NotAllowed
from tests.support.sample import acts, add_pair, add_person

OPERATOR = Actor(None, "cli")
NOBODY = Actor(None, "web")
SOMEONE = {"name": "Davi", "language": "pt-BR", "time_zone": "America/Sao_Paulo", "roles": ["supervisee"]}

Deed = Callable[[Transaction, Actor], Awaitable[object]]


async def test_only_an_admin_and_the_operator_may(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    clara = await add_person(database, "Clara", ["supervisee"], now=now)
    admin = await add_person(database, "Helena", ["admin"], now=now)
    former = await add_person(database, "Rui", ["admin"], now=now)
    async with database.transaction() as tx:
        await people.disable(tx, acts(admin), former.id, now=now)
        matrix_id = clara.matrix_id or ""
        for key in ("first", "second"):
            await identities.pin(tx, matrix_id, key, now=now)
    add = partial(people.add, email="d@example.org", matrix_id=None, **SOMEONE, now=now)  # type: ignore[arg-type]
    invite = partial(invitations.add, email="e@example.org", server_name="example.org", **SOMEONE, now=now)  # type: ignore[arg-type]
    deeds: list[Deed] = [
        add,
        invite,
        lambda tx, actor: invitations.invite_again(tx, actor, clara.id, server_name="example.org", now=now),
        lambda tx, actor: pairs.add(tx, actor, pair.supervisor, clara, now=now),
        lambda tx, actor: identities.confirm(tx, actor, matrix_id, master_key="second", now=now),
        lambda tx, actor: people.disable(tx, actor, clara.id, now=now),
    ]
    for deed in deeds:
        for actor in (*map(acts, (pair.supervisor, pair.supervisee, former)), NOBODY):
            async with database.transaction() as tx:
                with pytest.raises(NotAllowed):
                    await deed(tx, actor)
        for actor in (acts(admin), OPERATOR, SYSTEM):
            async with database.transaction() as tx:
                undone = await tx.begin_nested()
                await deed(tx, actor)
                await undone.rollback()


async def test_their_owner_confirms_an_identity(database: Database, now: datetime) -> None:
    clara, bruno = [await add_person(database, name, ["supervisee"], now=now) for name in ("Clara", "Bruno")]
    matrix_id = clara.matrix_id or ""
    async with database.transaction() as tx:
        for key in ("first", "second"):
            await identities.pin(tx, matrix_id, key, now=now)
        with pytest.raises(NotAllowed):
            await identities.confirm(tx, acts(bruno), matrix_id, master_key="second", now=now)
        await identities.confirm(tx, acts(clara), matrix_id, master_key="second", now=now)
        assert await identities.pin(tx, matrix_id, "second", now=now) == "second"

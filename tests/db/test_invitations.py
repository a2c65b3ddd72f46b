"""How people come in: the link, the account's name, and what is noted of the way."""

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from supervision import invitations, people, seals
from supervision.audit import SYSTEM
from supervision.db import Database, Transaction
from supervision.errors import AlreadyAnswered, NotFound, NotUnderstood, Refused
from supervision.models import homeserver_tasks, notifications
from supervision.people import Person
from tests.support.sample import add_person

SECRET = "a secret of the tests, and of them alone"
SERVER = "example.org"


async def add(tx: Transaction, now: datetime, **values: Any) -> Person:
    usual: dict[str, Any] = {
        "name": "Bruno",
        "email": "bruno@example.org",
        "language": "en",
        "time_zone": "Europe/Lisbon",
        "roles": ["supervisee"],
        "server_name": SERVER,
    }
    return await invitations.add(tx, SYSTEM, **usual | values, now=now)


async def link(tx: Transaction, person: Person) -> str:
    known = await invitations.of(tx, person.id)
    assert known is not None
    return seals.welcome_token(SECRET, person.id, known.nonce)


async def mailed(tx: Transaction) -> list[tuple[str, uuid.UUID]]:
    rows = await tx.execute(
        select(notifications.c.kind, notifications.c.person_id).order_by(notifications.c.created_at)
    )
    return [(kind, person_id) for kind, person_id in rows]


async def tasks(tx: Transaction) -> list[tuple[str, uuid.UUID | None]]:
    return [tuple(row) for row in await tx.execute(select(homeserver_tasks.c.kind, homeserver_tasks.c.person_id))]


@pytest.mark.parametrize("localpart", ["ana", "ana.ribeiro", "a=b_c-d/e+f", "ana2", " Ana "])
def test_names_that_matrix_knows_are_taken(localpart: str) -> None:
    assert invitations.check_localpart(localpart, SERVER) == localpart.strip().lower()


@pytest.mark.parametrize(
    ("localpart", "key"),
    [
        ("", "refused.account_name"),
        ("ana ribeiro", "refused.account_name"),
        ("aná", "refused.account_name"),
        ("@ana", "refused.account_name"),
        ("ana:example.org", "refused.account_name"),
        ("_ana", "refused.account_name"),
        ("12345", "refused.account_name"),
        ("a" * 250, "refused.account_name"),
        ("ana\n", None),
        ("visavis", "refused.account_reserved"),
        ("visavis-ana", "refused.account_reserved"),
    ],
)
def test_other_names_are_refused(localpart: str, key: str | None) -> None:
    if key is None:
        assert invitations.check_localpart(localpart, SERVER) == localpart.strip()
        return
    with pytest.raises(NotUnderstood) as refused:
        invitations.check_localpart(localpart, SERVER)
    assert refused.value.key == key


async def test_a_new_account_wants_a_mail_and_a_token(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, account="bruno")
        assert (await people.get(tx, bruno.id)).matrix_id is None
        assert await mailed(tx) == [("welcome", bruno.id)]
        assert await tasks(tx) == [("open_registration", bruno.id)]


async def test_an_account_that_is_there_wants_a_mail_alone(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, matrix_id="@bruno:elsewhere.example")
        assert (await mailed(tx), await tasks(tx)) == ([("welcome", bruno.id)], [])
        nobody = await add(tx, now, email="rita@example.org", roles=["admin"])
        assert await invitations.of(tx, nobody.id) is None
        assert len(await mailed(tx)) == 1


async def test_a_name_is_given_once(database: Database, now: datetime) -> None:
    await add_person(database, "Ana", ["supervisor"], now=now, matrix_id="@ana:example.org")
    async with database.transaction() as tx:
        await add(tx, now, account="bruno")
    for values, key in (
        ({"account": "ana"}, "refused.account_taken"),
        ({"account": "bruno"}, "refused.account_taken"),
        ({"account": "clara", "matrix_id": "@clara:example.org"}, "refused.one_account"),
    ):
        with pytest.raises(NotUnderstood) as refused:
            async with database.transaction() as tx:
                await add(tx, now, email="clara@example.org", **values)
        assert refused.value.key == key


async def test_every_link_that_leads_nowhere_is_refused_alike(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, account="bruno")
        clara = await add(tx, now, account="clara", email="clara@example.org")
        right, replaced, disabled = await link(tx, bruno), await link(tx, bruno), await link(tx, clara)
        assert (await invitations.find(tx, SECRET, right, now=now))[0] == bruno
        await invitations.invite_again(tx, SYSTEM, bruno.id, server_name=SERVER, now=now)
        right = await link(tx, bruno)
        await people.disable(tx, SYSTEM, clara.id, now=now)
        wrong_seal = f"{bruno.id.hex}{'0' * 40}"
        nobody = seals.welcome_token(SECRET, uuid.uuid4(), uuid.uuid4())
        told = set()
        late = now + invitations.LIFETIME
        for token, at in (
            (replaced, now), (disabled, now), (wrong_seal, now), (nobody, now), ("", now), ("x" * 72, now),
            ("é" * 72, now), (seals.feed_token(SECRET, bruno.id, uuid.uuid4()), now), (right, late),
        ):  # fmt: skip
            with pytest.raises(Refused) as refused:
                await invitations.find(tx, SECRET, token, now=at)
            told.add((type(refused.value), refused.value.key))
        assert told == {(NotFound, "refused.welcome_link")}
        assert (await invitations.find(tx, SECRET, right, now=late - timedelta(seconds=1)))[0] == bruno


async def test_an_account_is_noted_once(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, account="bruno")
        invitation = await invitations.of(tx, bruno.id)
        assert invitation is not None
        await invitations.set_registration(tx, invitation, b"locked")
        for _ in range(2):
            await invitations.note_registered(tx, SYSTEM, bruno, "@bruno:example.org", now=now)
        assert (await people.get(tx, bruno.id)).matrix_id == "@bruno:example.org"
        noted = await invitations.of(tx, bruno.id)
        assert noted is not None
        assert (noted.registration, noted.registered_at, noted.opened_at) == (None, now, now)
        await invitations.set_registration(tx, invitation, b"late")
        after = await invitations.of(tx, bruno.id)
        assert after is not None
        assert after.registration is None
        with pytest.raises(AlreadyAnswered):
            await invitations.note_registered(tx, SYSTEM, bruno, "@other:example.org", now=now)


async def test_who_is_invited_again_may_get_another_name_until_the_account_is_made(
    database: Database, now: datetime
) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, account="bruno")
        await invitations.invite_again(tx, SYSTEM, bruno.id, account="bruno.t", server_name=SERVER, now=now)
        known = await invitations.of(tx, bruno.id)
        assert known is not None
        assert known.localpart == "bruno.t"
        assert await tasks(tx) == [("open_registration", bruno.id)] * 2
        await invitations.note_registered(tx, SYSTEM, bruno, "@bruno.t:example.org", now=now)
        await invitations.invite_again(tx, SYSTEM, bruno.id, server_name=SERVER, now=now)
        assert len(await tasks(tx)) == 2
        with pytest.raises(AlreadyAnswered):
            await invitations.invite_again(tx, SYSTEM, bruno.id, account="other", server_name=SERVER, now=now)


async def test_a_link_mailed_to_an_address_that_was_wrong_leads_nowhere(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, account="bruno")
        wrong = await link(tx, bruno)
        await people.set_email(tx, SYSTEM, bruno.id, "bruno@elsewhere.example", now=now)
        with pytest.raises(NotFound):
            await invitations.find(tx, SECRET, wrong, now=now)
        found, invitation = await invitations.find(tx, SECRET, await link(tx, bruno), now=now)
        assert (found.email, invitation.localpart) == ("bruno@elsewhere.example", "bruno")
        assert await mailed(tx) == [("welcome", bruno.id)] * 2
        assert await tasks(tx) == [("open_registration", bruno.id)] * 2


async def test_who_is_in_gets_no_second_welcome_with_another_address(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, matrix_id="@bruno:elsewhere.example")
        _, invitation = await invitations.find(tx, SECRET, old := await link(tx, bruno), now=now)
        await invitations.finish(tx, SYSTEM, invitation, now=now)
        await people.set_email(tx, SYSTEM, bruno.id, "bruno@elsewhere.example", now=now)
        with pytest.raises(NotFound):
            await invitations.find(tx, SECRET, old, now=now)
        assert await mailed(tx) == [("welcome", bruno.id)]


async def test_a_name_is_free_again_once_who_never_came_is_disabled(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        bruno = await add(tx, now, account="bruno")
        clara = await add(tx, now, account="clara", email="clara@example.org")
        await invitations.note_registered(tx, SYSTEM, clara, "@clara:example.org", now=now)
        for one in (bruno, clara):
            await people.disable(tx, SYSTEM, one.id, now=now)
        await add(tx, now, account="bruno", email="bruno.t@example.org")
    with pytest.raises(NotUnderstood) as refused:
        async with database.transaction() as tx:
            await add(tx, now, account="clara", email="clara.t@example.org")
    assert refused.value.key == "refused.account_taken"

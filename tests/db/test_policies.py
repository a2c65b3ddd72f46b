"""What holds for a pair, and who may change it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time
from typing import Any

import pytest
from sqlalchemy import select

from supervision import availability, pairs, policies
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import NotAllowed, NotFound, NotUnderstood, PairArchived, Refused
from supervision.hours import Availability, WeeklyRange
from supervision.models import Approval, Mode, audit_entries
from supervision.pairs import Pair
from supervision.people import Person
from supervision.policies import Policies
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person

OPERATOR = Actor(None, "cli")
CALLS = "https://meet.example.org/{room}"


async def settle(
    database: Database,
    actor: Actor,
    pair: Pair,
    now: datetime,
    lengths: Sequence[int] | None = None,
    approval: Approval | None = None,
) -> Pair:
    async with database.transaction() as tx:
        await policies.set_pair(tx, actor, pair.id, lengths=lengths, approval=approval, now=now)
        return await pairs.get(tx, pair.id)


async def change(
    database: Database, actor: Actor, supervisor: Person, now: datetime, template: str | None = None, **changes: Any
) -> Availability:
    async with database.transaction() as tx:
        given = await policies.set_rules(tx, actor, supervisor.id, changes, now=now, template=template)
    async with database.transaction() as tx:
        assert await availability.load(tx, supervisor.id) == given
    return given


async def held_by(database: Database, pair: Pair) -> Policies:
    async with database.transaction() as tx:
        return await policies.of(tx, pair)


async def actions(database: Database, resource_id: object) -> list[tuple[str, str]]:
    async with database.transaction() as tx:
        query = (
            select(audit_entries).where(audit_entries.c.resource_id == str(resource_id)).order_by(audit_entries.c.id)
        )
        return [(row.action, row.via) for row in await tx.execute(query)]


async def test_the_supervisor_s_rules_hold_until_a_pair_has_its_own(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ask, automatic = Approval.ASK, Approval.AUTOMATIC
    assert await held_by(database, pair) == Policies(ask, (50,), False, False, OPEN_HOURS)
    pair = await settle(database, acts(pair.supervisor), pair, now, [90, 50], automatic)
    assert (pair.lengths, pair.approval) == ((90, 50), automatic)
    assert await held_by(database, pair) == Policies(automatic, (90, 50), True, True, OPEN_HOURS)
    assert policies.approval_of(pair, OPEN_HOURS) is automatic
    pair = await settle(database, acts(pair.supervisor), pair, now, [50])
    assert await held_by(database, pair) == Policies(ask, (50,), True, False, OPEN_HOURS)
    rules = await change(database, acts(pair.supervisor), pair.supervisor, now, approval="automatic", length=60)
    assert await held_by(database, pair) == Policies(automatic, (50,), True, False, rules)
    pair = await settle(database, OPERATOR, pair, now)
    assert await held_by(database, pair) == Policies(automatic, (60,), False, False, rules)
    assert await actions(database, pair.id) == [
        ("pair.add", "system"),
        ("pair.settle", "web"),
        ("pair.settle", "web"),
        ("pair.settle", "cli"),
    ]


async def test_only_the_pair_s_supervisor_settles_it(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    carla = await add_person(database, "Carla", ["supervisor"], now=now)
    for person in (pair.supervisee, carla):
        with pytest.raises(NotAllowed) as error:
            await settle(database, acts(person), pair, now, [90])
        assert error.value.key == "refused.supervisor_settles"
    assert await actions(database, pair.id) == [("pair.add", "system")]


@pytest.mark.parametrize(
    ("lengths", "key"),
    [
        ([], "refused.lengths"),
        ([50, 50], "refused.lengths"),
        ([30, 40, 50, 60, 70, 80, 90], "refused.lengths"),
        ([50, 4], "refused.out_of_range"),
        ([721], "refused.out_of_range"),
    ],
)
async def test_lengths_that_make_no_sense_are_refused(
    database: Database, now: datetime, lengths: list[int], key: str
) -> None:
    pair = await add_pair(database, now=now)
    with pytest.raises(NotUnderstood) as error:
        await settle(database, acts(pair.supervisor), pair, now, lengths)
    assert error.value.key == key


async def test_an_archived_pair_is_settled_no_more(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.archive(tx, OPERATOR, pair.id, now=now)
    with pytest.raises(PairArchived):
        await settle(database, acts(pair.supervisor), pair, now, [90])


async def test_a_change_leaves_the_other_rules_as_they_are(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    ana = pair.supervisor
    expected = replace(OPEN_HOURS, mode=Mode.IN_PERSON, place="Room 2", day_limit=4, country="BR", subdivision="SP")
    changes: dict[str, Any] = {
        "mode": "in_person",
        "place": "Room 2",
        "day_limit": 4,
        "country": "br",
        "subdivision": "sp",
    }
    assert await change(database, acts(ana), ana, now, **changes) == expected
    assert await change(database, acts(ana), ana, now) == expected
    expected = replace(expected, day_limit=None, valid_from=date(2027, 1, 1))
    assert await change(database, acts(ana), ana, now, day_limit=None, valid_from=date(2027, 1, 1)) == expected
    abroad = replace(expected, country="PT", subdivision=None)
    assert await change(database, acts(ana), ana, now, country="PT") == abroad
    assert await change(database, acts(ana), ana, now, country=None) == replace(abroad, country=None)


async def test_a_template_is_the_place_of_somebody_new_alone(database: Database, now: datetime) -> None:
    hours = (WeeklyRange(0, time(9), time(12)),)
    new = Availability(hours)
    cases: list[tuple[dict[str, Any], Availability]] = [
        ({}, replace(new, place=CALLS)),
        ({"place": "https://example.org/x"}, replace(new, place="https://example.org/x")),
        ({"mode": Mode.IN_PERSON}, replace(new, mode=Mode.IN_PERSON)),
    ]
    for changes, expected in cases:
        ana = await add_person(database, "Ana", ["supervisor"], now=now)
        assert await change(database, acts(ana), ana, now, CALLS, hours=hours, **changes) == expected
    ana = (await add_pair(database, now=now)).supervisor
    assert await change(database, acts(ana), ana, now, CALLS, length=60) == replace(OPEN_HOURS, length=60)


@pytest.mark.parametrize(
    ("changes", "key", "params"),
    [
        ({"exceptions": ()}, "refused.setting", {"name": "exceptions"}),
        ({"colour": "red"}, "refused.setting", {"name": "colour"}),
        ({"approval": "perhaps"}, "refused.not_understood", {}),
        ({"mode": "by post"}, "refused.not_understood", {}),
        ({"length": 4}, "refused.out_of_range", {"name": "length", "least": 5, "most": 720}),
        ({"length": None}, "refused.out_of_range", {"name": "length", "least": 5, "most": 720}),
        ({"hours": (WeeklyRange(0, time(12), time(9)),)}, "refused.hours_backwards", {}),
        ({"country": "XX"}, "refused.holidays", {"given": "XX", "known": "AR, BR, DE, ES, GB, PT, US"}),
        ({"subdivision": "SP"}, "refused.holidays", {"given": "SP", "known": "AR, BR, DE, ES, GB, PT, US"}),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(
    database: Database, now: datetime, changes: dict[str, Any], key: str, params: dict[str, object]
) -> None:
    ana = (await add_pair(database, now=now)).supervisor
    with pytest.raises(Refused) as error:
        await change(database, acts(ana), ana, now, **changes)
    assert (error.value.key, error.value.params) == (key, params)
    async with database.transaction() as tx:
        assert await availability.load(tx, ana.id) == OPEN_HOURS


async def test_only_a_supervisor_has_rules_and_only_she_changes_them(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    for actor, person in (
        (acts(pair.supervisee), pair.supervisor),
        (acts(pair.supervisee), pair.supervisee),
        (OPERATOR, pair.supervisee),
    ):
        with pytest.raises(NotAllowed) as error:
            await change(database, actor, person, now, length=60)
        assert error.value.key == "refused.supervisor_settles"
    carla = await add_person(database, "Carla", ["supervisor"], now=now)
    with pytest.raises(NotFound) as missing:
        await held_by(database, replace(pair, supervisor=carla))
    assert missing.value.key == "refused.no_availability"


async def test_of_two_changes_at_once_none_is_lost(database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)

    async def settle(changes: dict[str, object]) -> None:
        async with database.transaction() as tx:
            await policies.set_rules(tx, acts(pair.supervisor), pair.supervisor.id, changes, now=now)

    for limit in range(1, 6):
        await asyncio.gather(settle({"day_limit": limit}), settle({"notice": 100 + limit}))
        async with database.transaction() as tx:
            rules = await availability.load(tx, pair.supervisor.id)
        assert (rules.day_limit, rules.notice) == (limit, 100 + limit)

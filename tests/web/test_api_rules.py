"""A supervisor's hours and rules, what holds for a pair, and being away, by the API."""

import asyncio
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from supervision import appointments, availability
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.models import audit_entries
from supervision.pairs import Pair
from tests.support.sample import OPEN_HOURS, acts, add_pair, add_person
from tests.web.calls import call, get, post, refused
from tests.web.conftest import Open

CHRISTMAS = {"kind": "time_off", "first_on": "2026-12-24", "last_on": "2027-01-06"}


def hours_of(pair: Pair) -> str:
    return f"/api/supervisors/{pair.supervisor.id}/availability"


async def test_both_read_the_hours_and_she_changes_them(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    path = hours_of(pair)
    before = await get(bruno, path)
    assert before == {
        "supervisor_id": str(pair.supervisor.id),
        "time_zone": "America/Sao_Paulo",
        "hours": [{"weekday": weekday, "starts": "09:00", "ends": "18:00"} for weekday in range(5)],
        "length": 50,
        "grid": 60,
        "buffer_before": 0,
        "buffer_after": 10,
        "notice": 60,
        "horizon": 60,
        "mode": "online",
        "place": "",
        "cancel_notice": 1440,
        "move_notice": 120,
        "day_limit": None,
        "week_limit": None,
        "approval": "ask",
        "answer": 2880,
        "offer": 240,
        "valid_from": None,
        "valid_until": None,
        "country": None,
        "subdivision": None,
        "exceptions": [],
    }
    changes = {
        "hours": [
            {"weekday": 0, "starts": "08:00", "ends": "12:00"},
            {"weekday": 0, "starts": "13:30", "ends": "17:00"},
        ],
        "day_limit": 4,
        "approval": "automatic",
        "valid_until": "2027-06-30",
        "country": "br",
        "subdivision": "sp",
    }
    changed = await call(ana, "PATCH", path, changes)
    after = before | changes | {"country": "BR", "subdivision": "SP"}
    assert await changed.json() == after == await get(bruno, path)
    back = await call(ana, "PATCH", path, {"day_limit": None, "country": None})
    assert await back.json() == after | {"day_limit": None, "country": None, "subdivision": None}


async def test_a_change_of_hours_under_their_tag(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    path = hours_of(pair)
    seen = (await ana.get(path)).headers["ETag"]
    assert (await call(ana, "GET", path, If_None_Match=seen)).status == 304
    answers = await asyncio.gather(*(call(ana, "PATCH", path, {"grid": grid}, If_Match=seen) for grid in (20, 30)))
    assert sorted(answer.status for answer in answers) == [200, 412]
    left = next(answer for answer in answers if answer.status == 200).headers["ETag"]
    assert left == (await ana.get(path)).headers["ETag"] != seen


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hours": [{"weekday": 0, "starts": "12:00", "ends": "09:00"}]}, "refused.hours_backwards"),
        (
            {
                "hours": [
                    {"weekday": 0, "starts": "09:00", "ends": "12:00"},
                    {"weekday": 0, "starts": "11:00", "ends": "13:00"},
                ]
            },
            "refused.hours_overlap",
        ),
        ({"hours": [{"weekday": 7, "starts": "09:00", "ends": "12:00"}]}, "web.refused.members"),
        ({"hours": [{"weekday": 0, "starts": "9:00", "ends": "12:00"}]}, "web.refused.members"),
        ({"hours": [{"weekday": 0, "starts": "09:00Z", "ends": "12:00"}]}, "web.refused.members"),
        ({"hours": [{"weekday": 0, "starts": "09:00", "ends": "12:00"}] * 201}, "web.refused.members"),
        ({"hours": None}, "web.refused.members"),
        ({"length": None}, "web.refused.members"),
        ({"length": "50"}, "web.refused.members"),
        ({"length": 50.5}, "web.refused.members"),
        ({"length": 4}, "refused.out_of_range"),
        ({"length": 10**30}, "refused.out_of_range"),
        ({"week_limit": 0}, "refused.out_of_range"),
        ({"valid_from": "2027-01-02", "valid_until": "2027-01-01"}, "refused.days_backwards"),
        ({"valid_from": "1500-01-01"}, "web.refused.members"),
        ({"country": "XX"}, "refused.holidays"),
        ({"place": "a\nb"}, "refused.place"),
        ({"place": "\x00"}, "refused.place"),
        ({"place": "x" * 501}, "web.refused.members"),
        ({"mode": "telepathy"}, "web.refused.members"),
        ({"time_zone": "Europe/Lisbon"}, "web.refused.members"),
        ({"exceptions": []}, "web.refused.members"),
    ],
)
async def test_rules_that_make_no_sense_change_nothing(
    database: Database, now: datetime, open_browser: Open, changes: dict[str, Any], code: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    before = await get(ana, hours_of(pair))
    await refused(await call(ana, "PATCH", hours_of(pair), changes), 422, code)
    assert await get(ana, hours_of(pair)) == before


async def test_exceptions_come_and_go(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    path = f"{hours_of(pair)}/exceptions"
    off = await (await post(ana, path, CHRISTMAS, Idempotency_Key="off")).json()
    assert off == CHRISTMAS | {"id": off["id"], "starts": None, "ends": None, "yearly": False}
    assert await (await post(ana, path, CHRISTMAS, Idempotency_Key="off")).json() == off
    saturday = {"kind": "extra_hours", "first_on": "2026-12-05", "last_on": "2026-12-05"}
    clocks = {"starts": "09:00", "ends": "12:00"}
    extra = await (await post(ana, path, saturday | clocks)).json()
    assert (await get(bruno, hours_of(pair)))["exceptions"] == [extra, off]
    for wrong, code in (
        (saturday, "refused.extra_without_times"),
        (saturday | clocks, "refused.hours_overlap"),
        (CHRISTMAS | {"last_on": "2026-12-01"}, "refused.days_backwards"),
        (CHRISTMAS | {"last_on": "2028-12-01"}, "refused.days_too_many"),
        (CHRISTMAS | {"last_on": 1}, "web.refused.members"),
        (CHRISTMAS | {"kind": "party"}, "web.refused.members"),
        (CHRISTMAS | {"first_on": "2026-12-24T00:00:01Z"}, "web.refused.members"),
    ):
        await refused(await post(ana, path, wrong), 422, code)
    removed = await call(ana, "DELETE", f"{path}/{off['id']}", Idempotency_Key="gone")
    assert (removed.status, await removed.read()) == (204, b"")
    assert (await call(ana, "DELETE", f"{path}/{off['id']}", Idempotency_Key="gone")).status == 204
    await refused(await call(ana, "DELETE", f"{path}/{off['id']}"), 404, "refused.exception_not_found")
    await refused(await call(ana, "DELETE", f"{path}/x"), 404, "refused.not_found")
    assert (await get(ana, hours_of(pair)))["exceptions"] == [extra]


async def test_what_holds_for_a_pair(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    path = f"/api/pairs/{pair.id}/settings"
    before = await get(bruno, path)
    assert before == {
        "pair_id": str(pair.id),
        "lengths": [50],
        "own_lengths": False,
        "approval": "ask",
        "own_approval": False,
        **{
            name: getattr(OPEN_HOURS, name)
            for name in (
                "grid buffer_before buffer_after notice horizon mode place cancel_notice move_notice day_limit"
                " week_limit answer offer"
            ).split()
        },
    }
    changed = await call(ana, "PATCH", path, {"lengths": [90, 50]})
    both = before | {"lengths": [90, 50], "own_lengths": True}
    assert await changed.json() == both == await get(bruno, path)
    tag = changed.headers["ETag"]
    settled = await call(ana, "PATCH", path, {"approval": "automatic"}, If_Match=tag)
    assert await settled.json() == both | {"approval": "automatic", "own_approval": True}
    await refused(await call(ana, "PATCH", path, {"approval": "ask"}, If_Match=tag), 412, "refused.stale")
    for wrong, code in (
        ({"lengths": []}, "refused.lengths"),
        ({"lengths": [50, 50]}, "refused.lengths"),
        ({"lengths": [1]}, "refused.out_of_range"),
        ({"lengths": list(range(5, 30))}, "web.refused.members"),
        ({"lengths": ["50"]}, "web.refused.members"),
        ({"approval": "maybe"}, "web.refused.members"),
    ):
        await refused(await call(ana, "PATCH", path, wrong), 422, code)
    assert await (await call(ana, "PATCH", path, {"lengths": None, "approval": None})).json() == before


async def test_it_is_hers_to_settle_and_theirs_alone_to_read(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    both = await open_browser(await add_person(database, "Dora", ["supervisor", "supervisee", "admin"], now=now))
    settings, away = f"/api/pairs/{pair.id}/settings", f"/api/supervisors/{pair.supervisor.id}/away"
    week = f"{away}?from=2026-12-20&to=2027-01-10"
    going = {"from": "2026-12-20", "to": "2027-01-10", "then": "cancel", "expected": []}
    exceptions = f"{hours_of(pair)}/exceptions"
    hers = (
        ("PATCH", hours_of(pair), {"grid": 30}),
        ("POST", exceptions, CHRISTMAS),
        ("DELETE", f"{exceptions}/{pair.id}", None),
        ("PATCH", settings, {"lengths": [90]}),
        ("GET", week, None),
        ("POST", away, going),
    )
    for method, path, body in hers:
        await refused(await call(bruno, method, path, body), 403, "refused.supervisor_settles")
    for method, path, body in (*hers, ("GET", hours_of(pair), None), ("GET", settings, None)):
        code = "refused.pair_not_found" if path == settings else "refused.person_not_found"
        await refused(await call(both, method, path, body), 404, code)
    own = f"/api/supervisors/{pair.supervisee.id}/availability"  # he is no supervisor
    await refused(await call(bruno, "PATCH", own, {"grid": 30}), 404, "refused.person_not_found")
    async with database.transaction() as tx:
        assert await availability.load(tx, pair.supervisor.id) == OPEN_HOURS
        failed = select(func.count()).where(audit_entries.c.success.is_(False))
        assert await tx.scalar(failed) == 5 + 5 + 1  # what was asked to be changed; reading is not audited


async def test_away_lists_then_cancels_all_that_was_seen(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    async with database.transaction() as tx:
        booked = [
            await appointments.book(
                tx, acts(pair.supervisee), pair, datetime.fromisoformat(f"2026-12-{day}T13:00Z"), now=now
            )
            for day in ("17", "21", "22")
        ]
    path = f"/api/supervisors/{pair.supervisor.id}/away"
    listed = (await get(ana, f"{path}?from=2026-12-20&to=2027-01-10"))["items"]
    assert [item["id"] for item in listed] == [str(one.id) for one in booked[1:]]
    going = {"from": "2026-12-20", "to": "2027-01-10", "then": "cancel"}
    seen = [{"id": item["id"], "revision": item["revision"]} for item in listed]
    for wrong in (seen[:1], [], [*seen, {"id": str(pair.id), "revision": 0}], [seen[0] | {"revision": 7}, seen[1]]):
        await refused(await post(ana, path, going | {"expected": wrong}), 412, "refused.stale")
    went = await post(ana, path, going | {"expected": seen}, Idempotency_Key="away")
    items = (await went.json())["items"]
    assert items == [item | {"status": "cancelled", "revision": 1, "answer_by": None} for item in listed]
    assert await (await post(ana, path, going | {"expected": seen}, Idempotency_Key="away")).json() == {"items": items}
    assert [one["kind"] for one in (await get(ana, hours_of(pair)))["exceptions"]] == ["time_off"]
    assert await get(ana, f"{path}?from=2026-12-20&to=2027-01-10") == {"items": []}


async def test_away_proposes_other_times(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    async with database.transaction() as tx:
        at = datetime.fromisoformat("2026-11-26T13:00Z")
        one = await appointments.book(tx, acts(pair.supervisee), pair, at, now=now)
        await appointments.confirm(tx, acts(pair.supervisor), one.id, now=now)
    path = f"/api/supervisors/{pair.supervisor.id}/away"
    going = {"from": "2026-11-26", "to": "2026-11-27", "then": "propose"}
    went = await post(ana, path, going | {"expected": [{"id": str(one.id), "revision": 1}]})
    [moved] = (await went.json())["items"]
    assert (moved["starts_at"], moved["proposal"]["starts_at"]) == ("2026-11-26T13:00:00Z", "2026-12-03T13:00:00Z")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "web.refused.members"),
        ("?from=2026-12-20", "web.refused.members"),
        ("?from=2026-12-20&to=tomorrow", "web.refused.members"),
        ("?from=20261220&to=2027-01-10", "web.refused.members"),
        ("?from=2026-02-30&to=2027-01-10", "web.refused.members"),
        ("?from=0001-01-01&to=2027-01-10", "web.refused.members"),
        ("?from=2027-01-10&to=2026-12-20", "refused.days_backwards"),
    ],
)
async def test_days_that_make_no_sense(
    database: Database, now: datetime, open_browser: Open, query: str, code: str
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    path = f"/api/supervisors/{pair.supervisor.id}/away"
    await refused(await call(ana, "GET", path + query), 422, code)
    named = dict(pair.split("=") for pair in query[1:].split("&") if pair)
    await refused(await post(ana, path, named | {"then": "cancel", "expected": []}), 422, code)


async def test_a_supervisor_begins_with_her_hours(database: Database, now: datetime, open_browser: Open) -> None:
    dora = await add_person(database, "Dora", ["supervisor"], now=now)
    browser = await open_browser(dora)
    path = f"/api/supervisors/{dora.id}/availability"
    await refused(await call(browser, "GET", path), 404, "refused.no_availability")
    await refused(await call(browser, "PATCH", path, {}, If_Match='"seen"'), 412, "refused.stale")
    made = await call(browser, "PATCH", path, {"hours": [{"weekday": 2, "starts": "09:00", "ends": "10:00"}]})
    assert ((await made.json())["length"], (await made.json())["hours"][0]["weekday"]) == (50, 2)
    async with database.transaction() as tx:
        await availability.save(tx, SYSTEM, dora.id, OPEN_HOURS, now=now)
    assert (await get(browser, path))["notice"] == 60

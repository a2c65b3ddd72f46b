"""Series and the waiting list, by the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from supervision import appointments, waits
from supervision.db import Database
from supervision.pairs import Pair
from tests.support.sample import acts, add_pair, add_person
from tests.web.calls import call, get, post, refused, slot
from tests.web.conftest import Clock, Open

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
WEEKLY = "FREQ=WEEKLY;COUNT=4"
TUESDAYS = ["2026-11-24", "2026-12-01", "2026-12-08", "2026-12-15"]


async def book(database: Database, pair: Pair, starts_at: datetime, now: datetime) -> str:
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)
    return f"/api/appointments/{booked.id}"


async def test_a_series_s_life(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    wanted = {"slot": slot(pair), "rule": WEEKLY}
    booked = await post(bruno, "/api/series", wanted, Idempotency_Key="one")
    body = await booked.json()
    assert (booked.status, booked.headers["Location"]) == (201, f"/api/series/{body['id']}")
    assert [one["starts_at"] for one in body["items"]] == [f"{day}T13:00:00Z" for day in TUESDAYS]
    assert {one["series_id"] for one in body["items"]} == {body["id"]}
    assert body["clashes"] == []
    assert await (await post(bruno, "/api/series", wanted, Idempotency_Key="one")).json() == body
    shown = await get(ana, booked.headers["Location"])
    assert (shown["items"], shown["pair_id"], shown["time_zone"]) == (body["items"], str(pair.id), "America/Sao_Paulo")
    tag = (await ana.get(booked.headers["Location"])).headers["ETag"]
    assert (await call(ana, "GET", booked.headers["Location"], If_None_Match=tag)).status == 304

    paths = [f"/api/appointments/{one['id']}" for one in body["items"]]
    one = await post(ana, f"{paths[0]}/confirm", {"scope": "one"})
    assert (await one.json())["status"] == "confirmed"
    rest = await (await post(ana, f"{paths[1]}/confirm", {"scope": "following"}, If_Match='"0-requested"')).json()
    assert [item["id"] for item in rest["items"]] == [item["id"] for item in body["items"][1:]]
    assert {item["status"] for item in rest["items"]} == {"confirmed"}
    await refused(await post(ana, f"{paths[1]}/confirm", {"scope": "all"}), 409, "refused.already_answered")
    await refused(
        await post(ana, f"{paths[1]}/cancel", {"scope": "all"}, If_Match='"0-requested"'), 412, "refused.stale"
    )

    moved = slot(pair, "2026-12-01T14:00:00Z")
    proposed = await (await post(bruno, f"{paths[1]}/reschedule", moved | {"scope": "following"})).json()
    assert [one["proposal"]["starts_at"] for one in proposed["items"]] == [f"{day}T14:00:00Z" for day in TUESDAYS[1:]]
    assert proposed["clashes"] == []
    accepted = await (await post(ana, f"{paths[1]}/accept", {"scope": "all"})).json()
    assert [one["starts_at"] for one in accepted["items"]] == [f"{day}T14:00:00Z" for day in TUESDAYS[1:]]
    cancelled = await (await post(bruno, f"{paths[2]}/cancel", {"scope": "following", "reason": "moving"})).json()
    assert [one["id"] for one in cancelled["items"]] == [one["id"] for one in body["items"][2:]]
    left = (await get(bruno, booked.headers["Location"]))["items"]
    assert [one["status"] for one in left] == ["confirmed", "confirmed", "cancelled", "cancelled"]


async def test_what_clashes_is_refused_or_left_out_as_asked(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    await book(database, pair, TEN + timedelta(days=7), now)
    wanted = {"slot": slot(pair), "rule": WEEKLY}
    told = await refused(await post(bruno, "/api/series", wanted), 409, "refused.series_clashes")
    assert told["clashes"] == ["2026-12-01T13:00:00Z"]
    assert "Tue 1 Dec, 13:00" in told["detail"]
    body = await (await post(bruno, "/api/series", wanted | {"on_clash": "skip"})).json()
    assert [one["starts_at"][:10] for one in body["items"]] == [TUESDAYS[0], *TUESDAYS[2:]]
    assert body["clashes"] == [
        {
            "starts_at": "2026-12-01T13:00:00Z",
            "local": "2026-12-01T10:00:00",
            "code": "refused.slot_taken",
            "detail": "That time has just been taken. Nothing was changed.",
        }
    ]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"rule": "FREQ=WEEKLY"}, 422, "refused.series_endless"),
        ({"rule": "FREQ=WEEKLY;COUNT=10000"}, 422, "refused.series_too_long"),
        ({"rule": "FREQ=DAILY;COUNT=3"}, 422, "refused.series_rule"),
        ({"rule": "x" * 201}, 422, "web.refused.members"),
        ({"rule": "FREQ=WEEKLY;COUNT=1\x00"}, 422, "refused.series_rule"),
        ({"rule": None}, 422, "web.refused.members"),
        ({"on_clash": "hope"}, 422, "web.refused.members"),
        ({"slot": {}}, 422, "web.refused.members"),
        ({"more": 1}, 422, "web.refused.members"),
    ],
)
async def test_a_series_that_makes_no_sense(
    database: Database, now: datetime, open_browser: Open, changes: dict[str, Any], status: int, code: str
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    wanted = {"slot": slot(pair), "rule": WEEKLY} | changes
    await refused(await post(bruno, "/api/series", wanted), status, code)
    assert await get(bruno, "/api/supervisee/appointments") == {"items": []}


async def test_a_stranger_finds_no_series(database: Database, now: datetime, open_browser: Open) -> None:
    pair, other = await add_pair(database, now=now), await add_pair(database, now=now)
    bruno, edu = await open_browser(pair.supervisee), await open_browser(other.supervisee)
    wanted = {"slot": slot(pair), "rule": WEEKLY}
    await refused(await post(edu, "/api/series", wanted), 404, "refused.pair_not_found")
    crossed = {"slot": slot(pair) | {"pair_id": str(other.id)}, "rule": WEEKLY}
    await refused(await post(edu, "/api/series", crossed), 404, "refused.pair_not_found")
    body = await (await post(bruno, "/api/series", wanted)).json()
    await refused(await call(edu, "GET", f"/api/series/{body['id']}"), 404, "refused.series_not_found")
    cancel = f"/api/appointments/{body['items'][0]['id']}/cancel"
    await refused(await post(edu, cancel, {"scope": "all"}), 404, "refused.appointment_not_found")
    single = await book(database, other, TEN, now)
    for scope in ("following", "all"):
        await refused(await post(edu, f"{single}/cancel", {"scope": scope}), 422, "refused.no_series")
    assert (await post(edu, f"{single}/cancel", {"scope": "one"})).status == 200


async def test_another_length_moves_no_series(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    body = await (await post(bruno, "/api/series", {"slot": slot(pair), "rule": WEEKLY})).json()
    longer = slot(pair, "2026-11-24T14:00:00Z", "2026-11-24T15:30:00Z") | {"scope": "all"}
    path = f"/api/appointments/{body['items'][0]['id']}/reschedule"
    told = await refused(await post(bruno, path, longer), 422, "web.refused.members")
    assert told["detail"] == "This is missing or makes no sense: ends_at."


async def test_waiting_until_an_offer_comes(
    database: Database, now: datetime, open_browser: Open, clock: Clock
) -> None:
    pair = await add_pair(database, now=now)
    other = await add_pair(database, now=now, supervisor=pair.supervisor)
    bruno, clara = await open_browser(pair.supervisee), await open_browser(other.supervisee)
    taken = await book(database, other, TEN, now)
    hour = {"from": "2026-11-24T13:00:00Z", "to": "2026-11-24T13:30:00Z"}
    joined = await (await post(bruno, "/api/waits", {"pair_id": str(pair.id), "ranges": [hour]})).json()
    assert joined == {
        "id": joined["id"],
        "pair_id": str(pair.id),
        "ranges": [hour],
        "length": 50,
        "offer": None,
    }
    assert await get(bruno, "/api/waits") == {"items": [joined]}
    assert (
        await get(clara, "/api/waits") == await get(await open_browser(pair.supervisor), "/api/waits") == {"items": []}
    )
    path = f"/api/waits/{joined['id']}"
    for answer in ("accept", "pass"):
        await refused(await post(bruno, f"{path}/{answer}"), 409, "refused.no_offer")
        await refused(await post(clara, f"{path}/{answer}"), 404, "refused.wait_not_found")
    await refused(await call(clara, "DELETE", path), 404, "refused.wait_not_found")
    await post(clara, f"{taken}/cancel")
    async with database.transaction() as tx:
        assert await waits.offer_freed(tx, now) == 1
    [offered] = (await get(bruno, "/api/waits"))["items"]
    assert offered["offer"] == {
        "starts_at": "2026-11-24T13:00:00Z",
        "ends_at": "2026-11-24T13:50:00Z",
        "until": "2026-11-23T16:00:00Z",
    }
    await refused(await post(clara, "/api/appointments", slot(other)), 409, "refused.slot_taken")
    await refused(await post(bruno, f"{path}/accept", {"starts_at": "2026-11-24T14:00:00Z"}), 412, "refused.stale")
    booked = await post(bruno, f"{path}/accept", {"starts_at": "2026-11-24T13:00:00Z"}, Idempotency_Key="yes")
    assert (booked.status, (await booked.json())["status"]) == (201, "requested")
    again = await post(bruno, f"{path}/accept", {"starts_at": "2026-11-24T13:00:00Z"}, Idempotency_Key="yes")
    assert await again.json() == await booked.json() == await get(bruno, booked.headers["Location"])
    assert await get(bruno, "/api/waits") == {"items": []}


async def test_an_offer_is_let_go_by_and_a_wait_left(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    other = await add_pair(database, now=now, supervisor=pair.supervisor)
    bruno, clara = await open_browser(pair.supervisee), await open_browser(other.supervisee)
    taken = await book(database, other, TEN, now)
    hour = {"from": "2026-11-24T13:00:00Z", "to": "2026-11-24T13:30:00Z"}
    joined = await (await post(bruno, "/api/waits", {"pair_id": str(pair.id), "ranges": [hour], "length": 50})).json()
    await post(clara, f"{taken}/cancel")
    async with database.transaction() as tx:
        await waits.offer_freed(tx, now)
    passed = await post(bruno, f"/api/waits/{joined['id']}/pass")
    assert await passed.json() == joined
    assert (await post(clara, "/api/appointments", slot(other))).status == 201
    assert (await call(bruno, "DELETE", f"/api/waits/{joined['id']}")).status == 204
    await refused(await call(bruno, "DELETE", f"/api/waits/{joined['id']}"), 409, "refused.wait_over")
    assert await get(bruno, "/api/waits") == {"items": []}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ranges": []}, "web.refused.members"),
        ({"ranges": [{"from": "2026-11-24T13:00:00Z"}]}, "web.refused.members"),
        ({"ranges": [{"from": "2026-11-24", "to": "2026-11-25"}]}, "web.refused.members"),
        ({"ranges": [{"since": "2026-11-24T13:00:00Z", "until": "2026-11-24T14:00:00Z"}]}, "web.refused.members"),
        ({"ranges": [{"from": "2026-11-24T14:00:00Z", "to": "2026-11-24T13:00:00Z"}]}, "refused.wait_ranges"),
        ({"ranges": [{"from": "2026-11-24T14:00:00Z", "to": "2026-11-24T14:30:00Z"}] * 21}, "web.refused.members"),
        ({"length": 55}, "refused.length"),
        ({"length": 0}, "web.refused.members"),
        ({"length": True}, "web.refused.members"),
        ({}, "refused.wait_not_needed"),
    ],
)
async def test_waiting_for_what_makes_no_sense(
    database: Database, now: datetime, open_browser: Open, changes: dict[str, Any], code: str
) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    free = {"from": "2026-11-24T13:00:00Z", "to": "2026-11-24T14:00:00Z"}
    await refused(await post(bruno, "/api/waits", {"pair_id": str(pair.id), "ranges": [free]} | changes), 422, code)
    assert await get(bruno, "/api/waits") == {"items": []}


async def test_only_the_supervisee_waits(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    dora = await open_browser(await add_person(database, "Dora", ["supervisee"], now=now))
    wanted = {"pair_id": str(pair.id), "ranges": [{"from": "2026-11-24T13:00:00Z", "to": "2026-11-24T14:00:00Z"}]}
    await refused(await post(ana, "/api/waits", wanted), 403, "refused.supervisee_waits")
    await refused(await post(dora, "/api/waits", wanted), 404, "refused.pair_not_found")


async def test_only_what_was_seen_of_a_series_is_answered(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    body = await (await post(bruno, "/api/series", {"slot": slot(pair), "rule": WEEKLY})).json()
    paths = [f"/api/appointments/{one['id']}" for one in body["items"]]
    seen = [{"id": one["id"], "revision": one["revision"]} for one in body["items"]]
    await post(bruno, f"{paths[1]}/reschedule", {"starts_at": "2026-12-01T14:00:00Z"})
    confirmed = await (await post(ana, f"{paths[0]}/confirm", {"scope": "all", "seen": seen})).json()
    assert [one["id"] for one in confirmed["items"]] == [seen[0]["id"], seen[2]["id"], seen[3]["id"]]
    await post(ana, f"{paths[1]}/confirm")
    await refused(await post(ana, f"{paths[0]}/confirm", {"scope": "all", "seen": seen}), 412, "refused.stale")
    await refused(await post(ana, f"{paths[0]}/decline", {"seen": seen}), 422, "web.refused.members")
    for act, more in (("cancel", {}), ("reschedule", {"starts_at": "2026-11-24T15:00:00Z"})):
        body = {"scope": "all", "seen": seen, **more}
        await refused(await post(ana, f"{paths[0]}/{act}", body), 412, "refused.stale")

    later = {"starts_at": "2026-11-24T15:00:00Z", "scope": "all"}
    moved = await (await post(ana, f"{paths[0]}/reschedule", later)).json()
    shown = [one["proposal"]["id"] for one in moved["items"]]
    assert len(shown) == 4
    await post(ana, f"{paths[2]}/reschedule", {"starts_at": "2026-12-08T17:00:00Z"})
    await refused(await post(bruno, f"{paths[0]}/accept", {"proposals": shown}), 422, "web.refused.members")
    accepted = await (await post(bruno, f"{paths[0]}/accept", {"scope": "all", "proposals": shown})).json()
    assert [one["id"] for one in accepted["items"]] == [seen[0]["id"], seen[1]["id"], seen[3]["id"]]
    gone = {"scope": "all", "proposals": shown}
    await refused(await post(bruno, f"{paths[2]}/refuse", gone), 412, "refused.stale")
    await refused(await post(ana, f"{paths[2]}/withdraw", gone), 412, "refused.stale")


async def test_a_condition_that_nothing_can_meet_is_not_met(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    home = f"/api/supervisors/{pair.supervisor.id}"
    day = {"kind": "time_off", "first_on": "2026-12-01", "last_on": "2026-12-01"}
    exception = await (await post(ana, f"{home}/availability/exceptions", day)).json()
    one = f"{home}/availability/exceptions/{exception['id']}"
    away = {"from": "2026-12-24", "to": "2026-12-24", "then": "cancel", "expected": []}
    wait = {"pair_id": str(pair.id), "ranges": [{"from": "2026-12-01T00:00:00Z", "to": "2026-12-02T00:00:00Z"}]}
    waiting = await (await post(bruno, "/api/waits", wait)).json()
    tries = [
        (ana, "DELETE", one, None),
        (ana, "POST", f"{home}/away", away),
        (bruno, "POST", "/api/waits", wait),
        (bruno, "DELETE", f"/api/waits/{waiting['id']}", None),
        (bruno, "POST", f"/api/waits/{waiting['id']}/pass", {}),
        (bruno, "POST", "/api/appointments", slot(pair)),
    ]
    for browser, method, path, sent in tries:
        await refused(await call(browser, method, path, sent, If_Match='"x"'), 412, "refused.stale")
    assert [found["id"] for found in (await get(ana, f"{home}/availability"))["exceptions"]] == [exception["id"]]
    assert [found["id"] for found in (await get(bruno, "/api/waits"))["items"]] == [waiting["id"]]
    assert (await get(bruno, "/api/supervisee/appointments"))["items"] == []
    assert (await call(ana, "DELETE", one, If_Match="*")).status == 204

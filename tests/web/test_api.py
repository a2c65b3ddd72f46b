"""The API: its contract, its refusals, and that it tells nobody another pair's affairs."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from supervision import appointments, pairs
from supervision.appointments import Appointment
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.models import appointments as table
from supervision.models import audit_entries, idempotency_keys, notifications
from supervision.pairs import Pair
from tests.support.sample import acts, add_pair, add_person
from tests.web.conftest import Browser, Clock, Open

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)


def slot(pair: Pair, starts_at: str = "2026-11-24T13:00:00Z", ends_at: str = "2026-11-24T13:50:00Z") -> dict[str, str]:
    return {
        "supervisor_id": str(pair.supervisor.id),
        "pair_id": str(pair.id),
        "starts_at": starts_at,
        "ends_at": ends_at,
    }


async def book(database: Database, pair: Pair, starts_at: datetime, now: datetime) -> Appointment:
    async with database.transaction() as tx:
        return await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)


async def count(database: Database, model: Any) -> int:
    async with database.transaction() as tx:
        return len(list(await tx.execute(select(model))))


async def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem details of an answer that has to be exactly that refusal."""
    body: dict[str, Any] = await answer.json(content_type="application/problem+json")
    assert (answer.status, body["status"], body["code"]) == (status, status, code), body
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]
    return body


async def test_me(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    assert await (await bruno.get("/api/me")).json() == {
        "person": {
            "id": str(pair.supervisee.id),
            "name": "Bruno",
            "email": pair.supervisee.email,
            "matrix_id": pair.supervisee.matrix_id,
            "language": "en",
            "time_zone": "Europe/Lisbon",
        },
        "roles": ["supervisee"],
        "pairs": [
            {
                "id": str(pair.id),
                "status": "active",
                "supervisor_id": str(pair.supervisor.id),
                "supervisor_name": "Ana",
                "supervisee_id": str(pair.supervisee.id),
                "supervisee_name": "Bruno",
                "room_id": None,
                "unread": 0,
                "presence": None,
            }
        ],
    }


async def test_a_booking_s_life(database: Database, now: datetime, open_browser: Open) -> None:
    """A slot goes into the booking as it came; ETag is revision and status; what is told is what is stored."""
    pair = await add_pair(database, now=now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    answer = await bruno.get(f"/api/supervisors/{pair.supervisor.id}/slots?pair_id={pair.id}")
    slots = (await answer.json())["items"]
    assert slots[8] == slot(pair, "2026-11-24T12:00:00Z", "2026-11-24T12:50:00Z")
    booked = await bruno.send("/api/appointments", slots[8])
    body = await booked.json()
    identifier = body["id"]
    assert booked.status == 201
    assert booked.headers["Location"] == f"/api/appointments/{identifier}"
    assert booked.headers["ETag"] == '"0-requested"'
    assert body == slots[8] | {
        "id": identifier,
        "supervisee_id": str(pair.supervisee.id),
        "status": "requested",
        "revision": 0,
        "mode": "online",
        "place": "",
        "answer_by": "2026-11-24T12:00:00Z",
        "late": False,
        "series_id": None,
        "proposal": None,
    }
    assert await (await ana.get(f"/api/appointments/{identifier}")).json() == body
    confirmed = await ana.send(f"/api/appointments/{identifier}/confirm", If_Match='"0"')
    assert (confirmed.status, confirmed.headers["ETag"]) == (200, '"1-confirmed"')
    body |= {"status": "confirmed", "revision": 1, "answer_by": None}
    assert await confirmed.json() == body
    moved = await bruno.send(f"/api/appointments/{identifier}/reschedule", slots[5])
    proposal = (await moved.json())["proposal"]
    assert moved.headers["ETag"] == f'"1-confirmed-{proposal["id"][:8]}"'
    assert await moved.json() == body | {
        "proposal": {
            "id": proposal["id"],
            "by": str(pair.supervisee.id),
            "starts_at": slots[5]["starts_at"],
            "ends_at": slots[5]["ends_at"],
            "answer_by": slots[5]["starts_at"],
        }
    }
    accepted = await ana.send(f"/api/appointments/{identifier}/accept", {"proposal": proposal["id"]})
    assert await accepted.json() == body | slots[5] | {"revision": 2}
    cancelled = await bruno.send(f"/api/appointments/{identifier}/cancel", {"reason": "ill"})
    assert await cancelled.json() == body | slots[5] | {"status": "cancelled", "revision": 3, "late": True}
    for path in ("supervisee", "supervisor"):
        browser = bruno if path == "supervisee" else ana
        listed = await (await browser.get(f"/api/{path}/appointments")).json()
        assert listed == {"items": [await cancelled.json()]}


async def test_an_answer_is_declined(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    ana = await open_browser(pair.supervisor)
    declined = await ana.send(f"/api/appointments/{appointment.id}/decline")
    assert (await declined.json())["status"] == "declined"
    again = await ana.send(f"/api/appointments/{appointment.id}/decline")
    assert (await problem(again, 409, "refused.already_answered"))["detail"] == (
        "Essa supervisão já está recusada. Nada foi alterado."
    )


async def test_slots_are_those_that_can_be_booked(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    await book(database, pair, TEN, now)
    bruno = await open_browser(pair.supervisee)
    path = f"/api/supervisors/{pair.supervisor.id}/slots?pair_id={pair.id}"
    all_day = await (await bruno.get(f"{path}&from=2026-11-24T00:00:00Z&to=2026-11-25T00:00:00Z")).json()
    assert [item["starts_at"] for item in all_day["items"]] == [
        f"2026-11-24T{hour:02}:00:00Z" for hour in (12, 14, 15, 16, 17, 18, 19, 20)
    ]
    fortnight = await (await bruno.get(path)).json()
    assert fortnight["items"][-1]["starts_at"] == "2026-12-04T20:00:00Z"
    unescaped = await bruno.get(f"{path}&from=2026-11-24T01:00:00+01:00&to=2026-11-25T00:00:00Z")
    assert await unescaped.json() == all_day
    nothing = await bruno.get(f"{path}&from=2030-01-01T00:00:00Z")
    assert await nothing.json() == {"items": []}
    await problem(await bruno.get(f"{path}&from=2026-11-24T00:00:00"), 422, "web.refused.members")
    await problem(await bruno.get(f"{path}&to=2026-01-01T00:00:00Z"), 422, "web.refused.range")
    await problem(await bruno.get(path.split("?")[0]), 422, "web.refused.members")
    await problem(await bruno.get(path.replace(str(pair.id), "x")), 422, "web.refused.members")
    await problem(await bruno.get(f"/api/supervisors/x/slots?pair_id={pair.id}"), 404, "refused.not_found")


async def test_lists_turn_pages_and_filter(database: Database, now: datetime, open_browser: Open, clock: Clock) -> None:
    pair = await add_pair(database, now=now)
    rows = [
        {
            "id": f"00000000-0000-4000-8000-{number:012}",
            "pair_id": pair.id,
            "supervisor_id": pair.supervisor.id,
            "supervisee_id": pair.supervisee.id,
            "starts_at": now + timedelta(days=number - 130),
            "ends_at": now + timedelta(days=number - 130, minutes=50),
            "status": "completed" if number < 120 else "confirmed",
            "revision": 1,
            "mode": "online",
            "place": "",
            "created_at": now,
            "updated_at": now,
        }
        for number in range(250)
    ]
    async with database.transaction() as tx:
        await tx.execute(table.insert().values(rows))
    bruno = await open_browser(pair.supervisee)
    path: str | None = "/api/supervisee/appointments?status=completed,confirmed"
    seen: list[str] = []
    sizes = []
    while path:
        answer = await bruno.get(path)
        items = (await answer.json())["items"]
        sizes.append(len(items))
        seen += [item["id"] for item in items]
        link = re.fullmatch(r'<(/api/[^>]+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else None
    assert sizes == [100, 100, 10]
    assert seen == [row["id"] for row in rows[40:]]
    old = await (await bruno.get("/api/supervisee/appointments?from=2020-01-01T00:00:00Z&status=completed")).json()
    assert old["items"][0]["id"] == rows[0]["id"]
    some = await bruno.get("/api/supervisee/appointments?from=2026-11-24T00:00:00Z&to=2026-11-25T00:00:00Z")
    assert [item["id"] for item in (await some.json())["items"]] == [rows[131]["id"]]
    for query in (
        "status=x",
        "from=x",
        "from=1767225600",
        "to=0001-01-01T00:00:00%2B14:00",
        "cursor=%C3%A9",
        "cursor=A",
    ):
        await problem(await bruno.get(f"/api/supervisee/appointments?{query}"), 422, "web.refused.members")
    await problem(await bruno.get("/api/supervisor/appointments"), 403, "refused.not_allowed")


async def test_nobody_gets_anything_without_signing_in(open_browser: Open) -> None:
    """Before path, method or body are looked at."""
    stranger = await open_browser()
    for path in ("/api/me", "/api/nothing", "/api/appointments/x", "/api"):
        answer = await stranger.get(path)
        assert answer.headers["WWW-Authenticate"] == 'Cookie realm="Visavis"'
        assert (await problem(answer, 401, "web.401"))["detail"] == "Sign in first."
        await problem(await stranger.client.post(path, data=b"{" * 100_000), 401, "web.401")
        await problem(await stranger.client.delete(path), 401, "web.401")


async def test_a_stranger_finds_nothing(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    other = await add_pair(
        database,
        now=now,
        supervisor=await add_person(database, "Dora", ["supervisor", "supervisee", "admin"], now=now),
        supervisee=await add_person(database, "Edu", ["supervisee"], now=now),
    )
    for someone in other.people:
        browser = await open_browser(someone)
        await problem(await browser.get(f"/api/appointments/{appointment.id}"), 404, "refused.appointment_not_found")
        for action, body in (("confirm", {}), ("decline", {}), ("cancel", {}), ("reschedule", slot(pair))):
            answer = await browser.send(f"/api/appointments/{appointment.id}/{action}", body)
            await problem(answer, 404, "refused.appointment_not_found")
        path = f"/api/supervisors/{pair.supervisor.id}/slots?pair_id={pair.id}"
        await problem(await browser.get(path), 404, "refused.pair_not_found")
        await problem(await browser.send("/api/appointments", slot(pair)), 404, "refused.pair_not_found")
        foreign = slot(other) | {"pair_id": str(pair.id)}
        await problem(await browser.send("/api/appointments", foreign), 404, "refused.pair_not_found")
        for path in ("/api/me", "/api/supervisee/appointments"):
            text = await (await browser.get(path)).text()
            for leak in ("Ana", "Bruno", str(pair.id), str(appointment.id), pair.supervisor.email):
                assert leak not in text
    assert await count(database, table) == 1


async def test_refusals_have_their_status(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    appointment = await book(database, pair, TEN, now)
    taken = await problem(await bruno.send("/api/appointments", slot(pair)), 409, "refused.slot_taken")
    assert taken["alternatives"] == [f"2026-11-24T{hour}:00:00Z" for hour in (12, 14, 15, 16)]
    past = slot(pair, "2026-11-20T13:00:00Z", "2026-11-20T13:50:00Z")
    await problem(await bruno.send("/api/appointments", past), 403, "refused.slot_past")
    soon = slot(pair, "2026-11-23T12:59:00Z", "2026-11-23T13:49:00Z")
    await problem(await bruno.send("/api/appointments", soon), 403, "refused.too_soon")
    crooked = slot(pair, "2026-11-24T14:00:00Z", "2026-11-24T14:55:00Z")
    await problem(await bruno.send("/api/appointments", crooked), 422, "refused.length")
    halves = slot(pair, "2026-11-24T14:00:00Z", "2026-11-24T14:50:30Z")
    await problem(await bruno.send("/api/appointments", halves), 404, "refused.slot_not_offered")
    between = slot(pair, "2026-11-24T14:10:00Z", "2026-11-24T15:00:00Z")
    await problem(await bruno.send("/api/appointments", between), 404, "refused.slot_not_offered")
    path = f"/api/appointments/{appointment.id}"
    await problem(await bruno.send(f"{path}/confirm"), 403, "refused.supervisor_answers")
    for tag in ('"7"', "x", 'W/"7"', '"7-requested"', '"0-confirmed"'):
        await problem(await ana.send(f"{path}/confirm", If_Match=tag), 412, "refused.stale")
    await problem(await bruno.send(f"{path}/reschedule", slot(pair)), 422, "refused.move_onto_itself")
    await problem(await bruno.get("/api/nothing"), 404, "web.404")
    wrong = await bruno.get("/api/appointments")
    await problem(wrong, 405, "web.405")
    assert wrong.headers["Allow"] == "POST"
    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
    await problem(await bruno.send("/api/appointments", slot(pair)), 409, "refused.pair_archived")
    async with database.transaction() as tx:
        rows = await tx.execute(select(audit_entries.c.reason).where(audit_entries.c.success.is_(False)))
        assert {row.reason for row in rows} == {
            "refused.slot_taken",
            "refused.slot_past",
            "refused.too_soon",
            "refused.slot_not_offered",
            "refused.length",
            "refused.supervisor_answers",
            "refused.stale",
            "refused.move_onto_itself",
            "refused.pair_archived",
        }


async def send_bytes(browser: Browser, path: str, body: bytes, content_type: str = "application/json") -> Any:
    return await browser.client.post(path, data=body, headers={"Origin": browser.origin, "Content-Type": content_type})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"starts_at": 1}',
        b"\xff",
        b"[" * 5000,
        b'{"supervisor_id": "\\ud800"}',
        b'{"supervisor_id": "x", "pair_id": "x", "starts_at": "x", "ends_at": "x"}',
    ],
)
async def test_a_body_that_makes_no_sense(database: Database, now: datetime, open_browser: Open, body: bytes) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    answer = await send_bytes(bruno, "/api/appointments", body)
    assert answer.status == 422
    assert (await answer.json(content_type="application/problem+json"))["code"] in (
        "web.refused.json",
        "web.refused.members",
    )
    assert await count(database, table) == 0


async def test_bodies_out_of_bounds(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    appointment = await book(database, pair, TEN, now)
    path = f"/api/appointments/{appointment.id}/cancel"
    await problem(await send_bytes(bruno, path, b"x" * 70_000), 413, "web.413")
    await problem(await send_bytes(bruno, path, b"{}x", "text/plain"), 422, "web.refused.json")
    await problem(await bruno.send(path, {"reason": "x" * 501}), 422, "web.refused.members")
    await problem(await bruno.send(path, {"reason": "\x00"}), 422, "web.refused.members")
    await problem(await bruno.send(path, {"raison": "x"}), 422, "web.refused.members")
    extra = slot(pair) | {"status": "confirmed"}
    assert (await problem(await bruno.send("/api/appointments", extra), 422, "web.refused.members"))["detail"] == (
        "This is missing or makes no sense: status."
    )
    for starts_at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "2026-11-24T13:00:00", "2026-11-24"):
        answer = await bruno.send("/api/appointments", slot(pair, starts_at))
        await problem(answer, 422, "web.refused.members")
    assert (await send_bytes(bruno, path, b"")).status == 200


async def test_only_our_own_pages_change_anything(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    bruno = await open_browser(pair.supervisee)
    for headers in (
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": bruno.origin, "Sec-Fetch-Site": "cross-site"},
    ):
        answer = await bruno.client.post("/api/appointments", json=slot(pair), headers=headers)
        await problem(answer, 403, "web.refused.cross_site")
    assert await count(database, table) == 0
    ours = {"Sec-Fetch-Site": "same-origin"}
    assert (await bruno.client.post("/api/appointments", json=slot(pair), headers=ours)).status == 201


async def test_a_key_makes_a_request_count_once(
    database: Database, now: datetime, open_browser: Open, clock: Clock
) -> None:
    pair = await add_pair(database, now=now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    first = await bruno.send("/api/appointments", slot(pair), Idempotency_Key="one")
    again = await bruno.send("/api/appointments", slot(pair), Idempotency_Key="one")
    assert (first.status, await first.json()) == (again.status, await again.json())
    assert {name: again.headers[name] for name in ("ETag", "Location")} == {
        name: first.headers[name] for name in ("ETag", "Location")
    }
    assert (await count(database, table), await count(database, notifications)) == (1, 2)
    later = slot(pair, "2026-11-24T14:00:00Z", "2026-11-24T14:50:00Z")
    other = await bruno.send("/api/appointments", later, Idempotency_Key="one")
    await problem(other, 422, "web.refused.idempotency_other")
    hers = await ana.send("/api/appointments", slot(pair), Idempotency_Key="one")  # a key is one person's
    await problem(hers, 409, "refused.slot_taken")
    taken = [await bruno.send("/api/appointments", slot(pair), Idempotency_Key="two") for _ in range(2)]
    assert await taken[0].json(content_type=None) == await taken[1].json(content_type=None)
    for key in ("", "x" * 256, "two words", "é"):
        answer = await bruno.send("/api/appointments", later, Idempotency_Key=key)
        await problem(answer, 422, "web.refused.idempotency_key")
    async with database.transaction() as tx:
        await tx.execute(update(idempotency_keys).values(created_at=now - timedelta(hours=25)))
    assert (await bruno.send("/api/appointments", later, Idempotency_Key="one")).status == 201


async def test_sixteen_at_once_book_one_time_once(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    browsers = [await open_browser(pair.supervisee) for _ in range(8)]
    for keys in ({}, {"Idempotency_Key": "one"}):
        starts_at = "2026-11-24T13:00:00Z" if keys else "2026-11-25T13:00:00Z"
        wanted = slot(pair, starts_at, starts_at.replace("13:00:00", "13:50:00"))
        asked = [browser.send("/api/appointments", wanted, **keys) for browser in browsers for _ in range(2)]
        answers = await asyncio.gather(*asked)
        statuses = sorted(answer.status for answer in answers)
        assert statuses == ([201] * 16 if keys else [201, *[409] * 15])
        assert len({answer.headers["Location"] for answer in answers if answer.status == 201}) == 1
    assert await count(database, table) == 2


async def test_conditional_reads(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    bruno = await open_browser(pair.supervisee)
    path = f"/api/appointments/{appointment.id}"
    assert (await bruno.get(path, headers={"If-None-Match": '"0-requested"'})).status == 304
    for tag in ('"0"', '"1"', '"0-confirmed"', '"1-requested"'):
        assert (await bruno.get(path, headers={"If-None-Match": tag})).status == 200


async def test_a_status_that_changed_by_itself_is_another_version(
    database: Database, now: datetime, open_browser: Open
) -> None:
    """An appointment that is over is completed, and keeps its revision: no calendar shows that."""
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    bruno, ana = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    path = f"/api/appointments/{appointment.id}"
    requested = (await bruno.get(path)).headers["ETag"]
    confirmed = (await ana.send(f"{path}/confirm", If_Match=requested)).headers["ETag"]
    async with database.transaction() as tx:
        assert await appointments.close_past(tx, now=TEN + timedelta(hours=1)) == 1
    answer = await bruno.get(path, headers={"If-None-Match": confirmed})
    assert (answer.status, answer.headers["ETag"], (await answer.json())["status"]) == (
        200,
        '"1-completed"',
        "completed",
    )
    for tag in (requested, confirmed):
        await problem(await bruno.send(f"{path}/cancel", If_Match=tag), 412, "refused.stale")


@pytest.mark.parametrize("tag", ['"0"', '"0-requested"', 'W/"0-requested"', '"7", "0-requested"', "*"])
async def test_a_change_under_the_tag_or_the_bare_revision(
    database: Database, now: datetime, open_browser: Open, tag: str
) -> None:
    pair = await add_pair(database, now=now)
    appointment = await book(database, pair, TEN, now)
    ana = await open_browser(pair.supervisor)
    assert (await ana.send(f"/api/appointments/{appointment.id}/confirm", If_Match=tag)).status == 200

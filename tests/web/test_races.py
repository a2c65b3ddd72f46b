"""Several want at the same moment what only one can have, by the API: one gets it, each other a sentence.

Each race has its negative control: without the guards it really happens. `make test` runs a short form.
"""

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientResponse
from sqlalchemy import select

from embedded.postgresql import PostgreSQL
from supervision import appointments, holds, policies, waits
from supervision.appointments import OPEN, Appointment
from supervision.audit import Actor
from supervision.db import Database, Transaction
from supervision.models import Approval, Status
from supervision.models import appointments as table
from supervision.pairs import Pair
from tests.support.races import blind, drop_constraint, nothing, together
from tests.support.sample import acts, add_pair
from tests.web.calls import post, refused, slot
from tests.web.conftest import Browser, Open

LONG = os.environ.get("VISAVIS_LONG") == "1"
ROUNDS = 120 if LONG else 8
OTHERS = 5
MONDAY = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@dataclass
class Crowd:
    """Ana with Bruno and some others, each in a browser of their own."""

    pair: Pair
    ana: Browser
    bruno: Browser
    others: list[tuple[Pair, Browser]]

    def all_book(self, starts_at: datetime) -> list[Awaitable[ClientResponse]]:
        return [post(browser, "/api/appointments", slot(pair, as_text(starts_at))) for pair, browser in self.others]


@pytest.fixture
async def crowd(database: Database, now: datetime, open_browser: Open) -> Crowd:
    pair = await add_pair(database, now=now)
    others = [await add_pair(database, now=now, supervisor=pair.supervisor) for _ in range(OTHERS)]
    return Crowd(
        pair,
        await open_browser(pair.supervisor),
        await open_browser(pair.supervisee),
        [(other, await open_browser(other.supervisee)) for other in others],
    )


def as_text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def hour_of(number: int) -> datetime:
    """The first of two free hours of Ana's, others for each round: four times a working day."""
    day, part = divmod(number, 4)
    week, weekday = divmod(day, 5)
    return MONDAY + timedelta(weeks=week, days=weekday, hours=2 * part)


async def book(database: Database, pair: Pair, starts_at: datetime, now: datetime, *, agreed: bool = True) -> str:
    """The path of an appointment of theirs, confirmed unless said otherwise."""
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisee), pair, starts_at, now=now)
        if agreed and booked.status is Status.REQUESTED:
            await appointments.confirm(tx, acts(pair.supervisor), booked.id, now=now)
    return f"/api/appointments/{booked.id}"


async def outcomes(*asked: Awaitable[ClientResponse]) -> tuple[list[ClientResponse], Counter[str]]:
    """All at once: the answers, and the codes of the refused, each of which has its sentence."""
    answers = await asyncio.gather(*asked)
    codes: Counter[str] = Counter()
    for answer in answers:
        if answer.status >= 400:
            body = await answer.json(content_type=None)
            await refused(answer, answer.status, body["code"])
            codes[f"{answer.status} {body['code']}"] += 1
    return answers, codes


async def overlaps(database: Database) -> int:
    """How many pairs of open appointments share a person's time, read from the appointments alone."""
    async with database.transaction() as tx:
        rows = [appointments.from_row(row) for row in await tx.execute(select(*appointments.COLUMNS))]
    taken = [
        (one.supervisor_id, start, end)
        for one in rows
        if one.status in OPEN
        for start, end in [one.held, *([one.proposal.held] if one.proposal else [])]
    ]
    return sum(
        1
        for place, (who, start, end) in enumerate(taken)
        for other, since, until in taken[:place]
        if who == other and start < until and since < end
    )


@pytest.mark.parametrize("approval", list(Approval))
async def test_a_move_and_bookings_of_the_same_hour(
    database: Database, now: datetime, crowd: Crowd, approval: Approval
) -> None:
    """Be it that Bruno moves there at once, or that he proposes to: whoever is first has the hour."""
    async with database.transaction() as tx:
        await policies.set_pair(
            tx, acts(crowd.pair.supervisor), crowd.pair.id, lengths=None, approval=approval, now=now
        )
    for number in range(ROUNDS):
        at = hour_of(number)
        path = await book(database, crowd.pair, at, now)
        move = post(crowd.bruno, f"{path}/reschedule", slot(crowd.pair, as_text(at + HOUR)))
        answers, codes = await outcomes(move, *crowd.all_book(at + HOUR))
        assert codes == {"409 refused.slot_taken": OTHERS}
        assert [answer.status in (200, 201) for answer in answers].count(True) == 1
    assert await overlaps(database) == 0


async def test_without_the_guards_a_move_and_a_booking_have_the_same_hour(
    database: Database,
    now: datetime,
    crowd: Crowd,
    postgresql: PostgreSQL,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = await book(database, crowd.pair, MONDAY, now)
    await drop_constraint(postgresql, database_name)
    monkeypatch.setattr(appointments, "lock_people", nothing)
    monkeypatch.setattr(holds, "look", blind(together(1 + OTHERS)))
    move = post(crowd.bruno, f"{path}/reschedule", slot(crowd.pair, as_text(MONDAY + HOUR)))
    answers, codes = await outcomes(move, *crowd.all_book(MONDAY + HOUR))
    assert (codes, [answer.status for answer in answers]) == ({}, [200, *[201] * OTHERS])
    assert await overlaps(database) > 0


async def test_a_move_is_answered_once_while_others_book_both_its_hours(
    database: Database, now: datetime, crowd: Crowd
) -> None:
    """Both hours are held until the move is answered; then one of them is whoever's comes first."""
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        at = hour_of(number)
        path = await book(database, crowd.pair, at, now)
        proposed = await post(crowd.bruno, f"{path}/reschedule", slot(crowd.pair, as_text(at + HOUR)))
        proposal = (await proposed.json())["proposal"]["id"]
        words = ["accept", "refuse", "withdraw"]
        words = words[number % 3 :] + words[: number % 3]  # another is the first each time
        browsers = {"accept": crowd.ana, "refuse": crowd.ana, "withdraw": crowd.bruno}
        asked = [post(browsers[word], f"{path}/{word}", {"proposal": proposal}) for word in words]
        answers, codes = await outcomes(*asked, *crowd.all_book(at), *crowd.all_book(at + HOUR))
        [won] = [word for word, answer in zip(words, answers, strict=False) if answer.status == 200]
        booked = [answer for answer in answers if answer.status == 201]
        free = at if won == "accept" else at + HOUR
        assert [(await answer.json())["starts_at"] for answer in booked] in ([], [as_text(free)])
        assert codes == {"409 refused.no_proposal": 2, "409 refused.slot_taken": 2 * OTHERS - len(booked)}
        seen[won] += 1
    assert await overlaps(database) == 0
    assert sum(seen.values()) == ROUNDS


async def unlocked(
    tx: Transaction, actor: Actor, appointment_id: uuid.UUID, if_revision: int | None = None
) -> Appointment:
    """In place of `get_locked`: a plain look."""
    return await appointments.get(tx, actor, appointment_id)


async def confirm_and_cancel(crowd: Crowd, path: str, tag: str | None) -> tuple[list[ClientResponse], Counter[str]]:
    headers = {"If_Match": tag} if tag else {}
    return await outcomes(post(crowd.ana, f"{path}/confirm", **headers), post(crowd.bruno, f"{path}/cancel", **headers))


async def test_a_request_is_confirmed_or_called_off(database: Database, now: datetime, crowd: Crowd) -> None:
    for number in range(ROUNDS):
        path = await book(database, crowd.pair, hour_of(number), now, agreed=False)
        _, codes = await confirm_and_cancel(crowd, path, '"0-requested"')
        assert codes == {"412 refused.stale": 1}


async def test_without_a_tag_the_later_of_the_two_is_right_too(database: Database, now: datetime, crowd: Crowd) -> None:
    """What was confirmed a moment ago can be called off; what was called off cannot be confirmed."""
    for number in range(ROUNDS):
        path = await book(database, crowd.pair, hour_of(number), now, agreed=False)
        _, codes = await confirm_and_cancel(crowd, path, None)
        assert codes in ({}, {"409 refused.already_answered": 1})
        left = await (await crowd.ana.get(path)).json()
        assert (left["status"], left["revision"]) == ("cancelled", 1 if codes else 2)


async def test_without_the_lock_it_is_confirmed_and_called_off(
    database: Database, now: datetime, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told that it was done, as the same revision, and one of them is wrong."""
    path = await book(database, crowd.pair, MONDAY, now, agreed=False)
    look = together(2)

    async def both_look(*asked: Any, **named: Any) -> Appointment:
        found = await unlocked(*asked, **named)
        await look()
        return found

    monkeypatch.setattr(appointments, "get_locked", both_look)
    answers, codes = await confirm_and_cancel(crowd, path, None)
    assert codes == {}
    told = [await answer.json() for answer in answers]
    assert [(one["status"], one["revision"]) for one in told] == [("confirmed", 1), ("cancelled", 1)]


async def wait_for(database: Database, crowd: Crowd, at: datetime, now: datetime) -> str:
    """Bruno waits for an hour which has just become free again; the path of the wait."""
    [(pair, browser), *_] = crowd.others
    taken = await book(database, pair, at, now, agreed=False)
    wanted = {"from": as_text(at), "to": as_text(at + HOUR / 2)}
    joined = await post(crowd.bruno, "/api/waits", {"pair_id": str(crowd.pair.id), "ranges": [wanted]})
    assert joined.status == 201
    assert (await post(browser, f"{taken}/cancel")).status == 200
    return f"/api/waits/{(await joined.json())['id']}"


async def offer(database: Database, now: datetime) -> None:
    async with database.transaction() as tx:
        await waits.offer_freed(tx, now)


async def offers_of(crowd: Crowd) -> list[str]:
    items = (await (await crowd.bruno.get("/api/waits")).json())["items"]
    return [item["offer"]["starts_at"] for item in items if item["offer"]]


async def test_an_offer_and_new_bookings_of_the_freed_hour(database: Database, now: datetime, crowd: Crowd) -> None:
    for number in range(ROUNDS):
        at = hour_of(number)
        path = await wait_for(database, crowd, at, now)
        (answers, codes), _ = await asyncio.gather(outcomes(*crowd.all_book(at)), offer(database, now))
        booked = [answer for answer in answers if answer.status == 201]
        kept = await offers_of(crowd)
        assert len(booked) + len(kept) == 1
        assert codes == {"409 refused.slot_taken": OTHERS - len(booked)}
        if kept:
            accepted, *rest = await asyncio.gather(post(crowd.bruno, f"{path}/accept"), *crowd.all_book(at))
            assert [accepted.status, *(answer.status for answer in rest)] == [201, *[409] * OTHERS]
        else:
            await crowd.bruno.client.delete(path, headers={"Origin": crowd.bruno.origin})
    assert await overlaps(database) == 0


async def test_without_the_guards_an_hour_is_offered_and_booked(
    database: Database,
    now: datetime,
    crowd: Crowd,
    postgresql: PostgreSQL,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await wait_for(database, crowd, MONDAY, now)
    await drop_constraint(postgresql, database_name)

    async def got(*_: object) -> bool:
        return True

    monkeypatch.setattr(appointments, "lock_people", nothing)
    monkeypatch.setattr(waits, "_try_lock", got)
    monkeypatch.setattr(holds, "look", blind(together(OTHERS + 1)))
    (answers, codes), _ = await asyncio.gather(outcomes(*crowd.all_book(MONDAY)), offer(database, now))
    assert (codes, [answer.status for answer in answers]) == ({}, [201] * OTHERS)
    assert await offers_of(crowd) == [as_text(MONDAY)]


async def test_nobody_s_request_is_lost(database: Database, now: datetime, crowd: Crowd) -> None:
    """Whatever was told as done stands in the database, and nothing else does."""
    answers, _ = await outcomes(*crowd.all_book(MONDAY), *crowd.all_book(MONDAY), *crowd.all_book(MONDAY + HOUR))
    told = {(await answer.json())["id"] for answer in answers if answer.status == 201}
    async with database.transaction() as tx:
        assert {str(row.id) for row in await tx.execute(select(table.c.id))} == told
    assert len(told) == 2

"""Moves, marks and bookings on behalf, by the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from supervision import appointments, policies
from supervision.db import Database
from supervision.models import Approval
from supervision.pairs import Pair
from tests.support.sample import acts, add_pair
from tests.web.calls import get, post, refused, slot
from tests.web.conftest import Clock, Open, open_both

TEN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
ELEVEN = "2026-11-24T14:00:00Z"
NOON = "2026-11-24T15:00:00Z"


async def confirmed(database: Database, pair: Pair, now: datetime) -> str:
    """The path of a confirmed appointment on Tuesday at ten."""
    async with database.transaction() as tx:
        booked = await appointments.book(tx, acts(pair.supervisee), pair, TEN, now=now)
        await appointments.confirm(tx, acts(pair.supervisor), booked.id, now=now)
    return f"/api/appointments/{booked.id}"


async def test_the_supervisor_books_on_behalf_and_the_supervisee_declines(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_both(open_browser, pair)
    at_night = slot(pair, "2026-11-25T01:10:00Z", "2026-11-25T02:00:00Z")
    booked = await post(ana, "/api/appointments", at_night)
    assert (booked.status, booked.headers["ETag"]) == (201, '"0-confirmed"')
    body = await booked.json()
    assert body | at_night == body
    await refused(await post(ana, booked.headers["Location"] + "/decline"), 409, "refused.already_answered")
    declined = await post(bruno, booked.headers["Location"] + "/decline", If_Match=booked.headers["ETag"])
    assert (await declined.json())["status"] == "declined"
    past = slot(pair, "2026-11-20T13:00:00Z")
    await refused(await post(ana, "/api/appointments", past), 403, "refused.slot_past")


async def test_approval_by_itself_confirms_and_moves_at_once(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=None, approval=Approval.AUTOMATIC, now=now)
    _, bruno = await open_both(open_browser, pair)
    booked = await post(bruno, "/api/appointments", slot(pair))
    assert booked.headers["ETag"] == '"0-confirmed"'
    moved = await post(bruno, booked.headers["Location"] + "/reschedule", {"starts_at": ELEVEN})
    body = await moved.json()
    assert (body["starts_at"], body["status"], body["revision"], body["proposal"]) == (ELEVEN, "confirmed", 1, None)


async def test_a_proposal_is_answered_once(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_both(open_browser, pair)
    path = await confirmed(database, pair, now)
    proposed = await (await post(bruno, f"{path}/reschedule", slot(pair, ELEVEN))).json()
    proposal = proposed["proposal"]
    assert (proposed["starts_at"], proposal["by"]) == ("2026-11-24T13:00:00Z", str(pair.supervisee.id))
    await refused(await post(bruno, f"{path}/accept"), 403, "refused.own_proposal")
    await refused(await post(ana, f"{path}/withdraw"), 403, "refused.others_proposal")
    other = {"proposal": str(pair.id)}
    for answer in ("accept", "refuse"):
        await refused(await post(ana, f"{path}/{answer}", other), 412, "refused.stale")
    left = await (await post(ana, f"{path}/refuse", {"proposal": proposal["id"]})).json()
    assert left == proposed | {"proposal": None}
    for browser, answer in ((ana, "accept"), (ana, "refuse"), (bruno, "withdraw")):
        await refused(await post(browser, f"{path}/{answer}"), 409, "refused.no_proposal")
    await post(bruno, f"{path}/reschedule", {"starts_at": ELEVEN})
    countered = await (await post(ana, f"{path}/reschedule", {"starts_at": NOON})).json()
    assert (countered["proposal"]["by"], countered["proposal"]["starts_at"]) == (str(pair.supervisor.id), NOON)
    withdrawn = await (await post(ana, f"{path}/withdraw", {"proposal": countered["proposal"]["id"]})).json()
    assert withdrawn["proposal"] is None


async def test_the_tag_covers_the_proposal(database: Database, now: datetime, open_browser: Open) -> None:
    """Whoever decided about one proposal does not answer another, and need not know its ID for that."""
    pair = await add_pair(database, now=now)
    ana, bruno = await open_both(open_browser, pair)
    path = await confirmed(database, pair, now)
    plain = (await bruno.get(path)).headers["ETag"]
    first = (await post(bruno, f"{path}/reschedule", {"starts_at": ELEVEN}, If_Match=plain)).headers["ETag"]
    second = await post(bruno, f"{path}/reschedule", {"starts_at": NOON}, If_Match=first)
    for tag in (plain, first):
        await refused(await post(ana, f"{path}/accept", If_Match=tag), 412, "refused.stale")
        assert (await ana.get(path, headers={"If-None-Match": tag})).status == 200
    tag = second.headers["ETag"]
    assert tag == f'"1-confirmed-{(await second.json())["proposal"]["id"][:8]}"'
    assert (await ana.get(path, headers={"If-None-Match": tag})).status == 304
    accepted = await post(ana, f"{path}/accept", If_Match=tag)
    assert (accepted.headers["ETag"], (await accepted.json())["starts_at"]) == ('"2-confirmed"', NOON)


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', '"1", "9-declined"', "*"])
async def test_a_bare_revision_agrees_whatever_is_proposed(
    database: Database, now: datetime, open_browser: Open, tag: str
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_both(open_browser, pair)
    path = await confirmed(database, pair, now)
    await post(bruno, f"{path}/reschedule", {"starts_at": ELEVEN})
    assert (await post(ana, f"{path}/accept", If_Match=tag)).status == 200


async def test_how_it_went_is_said_and_corrected(
    database: Database, now: datetime, open_browser: Open, clock: Clock
) -> None:
    pair = await add_pair(database, now=now)
    ana, bruno = await open_both(open_browser, pair)
    path = await confirmed(database, pair, now)
    await refused(await post(ana, f"{path}/mark", {"status": "no_show"}), 403, "refused.not_begun")
    clock.now = TEN + timedelta(minutes=10)
    await refused(await post(bruno, f"{path}/mark", {"status": "no_show"}), 403, "refused.supervisor_marks")
    for status in ("no_show", "completed", "no_show"):
        marked = await post(ana, f"{path}/mark", {"status": status})
        assert (marked.headers["ETag"], (await marked.json())["status"]) == (f'"1-{status}"', status)
    await refused(await post(ana, f"{path}/mark", {"status": "no_show"}), 409, "refused.already_answered")
    for body in ({}, {"status": "cancelled"}, {"status": 1}, {"status": "no_show", "why": "x"}):
        await refused(await post(ana, f"{path}/mark", body), 422, "web.refused.members")


async def test_slots_of_a_length_of_the_pair_s(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await policies.set_pair(tx, acts(pair.supervisor), pair.id, lengths=(50, 90), approval=None, now=now)
    _, bruno = await open_both(open_browser, pair)
    day = "from=2026-11-24T00:00:00Z&to=2026-11-25T00:00:00Z"
    path = f"/api/supervisors/{pair.supervisor.id}/slots?pair_id={pair.id}&{day}"
    longer = (await get(bruno, f"{path}&length=90"))["items"]
    assert longer[0] == slot(pair, "2026-11-24T12:00:00Z", "2026-11-24T13:30:00Z")
    assert len(longer) == len((await get(bruno, path))["items"]) - 1
    booked = await post(bruno, "/api/appointments", longer[0])
    assert (await booked.json())["ends_at"] == "2026-11-24T13:30:00Z"
    for length, code in (("60", "refused.length"), ("x", "web.refused.members"), ("-50", "web.refused.members")):
        await refused(await bruno.get(f"{path}&length={length}"), 422, code)
    sixty = slot(pair, "2026-11-24T15:00:00Z", "2026-11-24T16:00:00Z")
    await refused(await post(bruno, "/api/appointments", sixty), 422, "refused.length")


async def test_what_makes_no_sense_moves_nothing(database: Database, now: datetime, open_browser: Open) -> None:
    pair, other = await add_pair(database, now=now), await add_pair(database, now=now)
    ana, bruno = await open_both(open_browser, pair)
    path = await confirmed(database, pair, now)
    before = await get(bruno, path)
    wrong: list[tuple[Any, int, str]] = [
        ({}, 422, "web.refused.members"),
        ({"starts_at": "2026-11-24T14:00:00"}, 422, "web.refused.members"),
        ({"starts_at": ELEVEN, "scope": "some"}, 422, "web.refused.members"),
        ({"starts_at": ELEVEN, "on_clash": "ignore"}, 422, "web.refused.members"),
        (slot(other, ELEVEN), 404, "refused.slot_not_offered"),
        (slot(pair, ELEVEN, ELEVEN), 404, "refused.slot_not_offered"),
        (slot(pair), 422, "refused.move_onto_itself"),
        ({"starts_at": "2026-11-24T14:10:00Z"}, 404, "refused.slot_not_offered"),
    ]
    for body, status, code in wrong:
        await refused(await post(bruno, f"{path}/reschedule", body), status, code)
    await refused(await post(ana, f"{path}/accept", {"proposal": "x"}), 422, "web.refused.members")
    assert await get(bruno, path) == before

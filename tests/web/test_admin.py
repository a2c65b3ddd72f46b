"""What admins do on the pages and by the API: people come in, pairs are made and closed, all of it audited."""

import re
from datetime import datetime
from html import unescape

import pytest
from sqlalchemy import select

from supervision import homeserver_tasks as tasks
from supervision import invitations, memberships, pairs, people
from supervision.db import Database
from supervision.models import Fault, PairStatus, Task, audit_entries, bots, homeserver_tasks, notifications
from tests.support.sample import add_pair, add_person
from tests.web.calls import get, post, refused
from tests.web.conftest import Browser, Clock, Open

BRUNO = {
    "name": "Bruno",
    "email": "bruno@example.org",
    "role_supervisee": "on",
    "account": "bruno",
    "language": "en",
    "time_zone": "Europe/Lisbon",
}


def told(browser: Browser) -> list[str]:
    """What the page says went well or wrong."""
    return [unescape(one) for one in re.findall(r'role="(?:alert|status)">(.*?)</p>', browser.page)]


@pytest.fixture
async def rita(database: Database, now: datetime, open_browser: Open) -> Browser:
    return await open_browser(await add_person(database, "Rita", ["admin"], now=now, language="en"))


async def press(browser: Browser, page: str, act: str, **fields: str) -> list[str]:
    """Send a form of that page, and say what the next one says."""
    await browser.get(page)
    answer = await browser.post(f"{page}/{act}", browser.fields(f"{page}/{act}") | fields)
    if answer.status == 303:
        await browser.follow()
    return told(browser)


async def test_a_person_is_added_and_invited_once_however_often_it_is_pressed(
    rita: Browser, database: Database
) -> None:
    await rita.get("/admin")
    fields = rita.fields("/admin/people") | BRUNO
    for _ in range(2):
        assert (await rita.post("/admin/people", fields)).headers["Location"] == "/admin?done=person_invited"
    await rita.follow()
    assert told(rita) == ["The invitation is on its way."]
    async with database.transaction() as tx:
        bruno = await people.by_email(tx, "bruno@example.org")
        assert (bruno.matrix_id, bruno.language, bruno.time_zone) == (None, "en", "Europe/Lisbon")
        assert list(await tx.scalars(select(notifications.c.kind))) == ["welcome"]
        assert list(await tx.scalars(select(homeserver_tasks.c.kind))) == [Task.OPEN_REGISTRATION]


async def test_what_is_wrong_is_told_and_stays_in_the_form(rita: Browser, database: Database) -> None:
    await rita.get("/admin")
    for fields, sentence in (
        ({"account": "visavis-2"}, "Names that begin with visavis are the bots'. Nothing was changed."),
        ({"matrix_id": "@bruno:example.org"}, "Give either the name of a new account or a Matrix ID that there is"),
        ({"role_supervisee": ""}, "Possible roles: supervisor, supervisee, admin."),
    ):
        answer = await rita.post("/admin/people", rita.fields("/admin/people") | BRUNO | fields)
        assert answer.status == 422
        assert told(rita)[0].startswith(sentence)
        assert 'value="bruno@example.org"' in rita.page
    async with database.transaction() as tx:
        assert [one.name for one in await people.list_all(tx)] == ["Rita"]
        reasons = select(audit_entries.c.reason).where(~audit_entries.c.success).order_by(audit_entries.c.id)
        assert list(await tx.scalars(reasons)) == [
            "refused.account_reserved",
            "refused.one_account",
            "refused.roles",
        ]


async def test_two_people_are_paired_before_they_have_an_account(
    rita: Browser, database: Database, now: datetime
) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    await rita.get("/admin")
    await rita.post("/admin/people", rita.fields("/admin/people") | BRUNO)
    async with database.transaction() as tx:
        bruno = await people.by_email(tx, "bruno@example.org")
    await rita.get("/admin")
    chosen = {"supervisor": str(ana.id), "supervisee": str(bruno.id)}
    await rita.post("/admin/pairs", rita.fields("/admin/pairs") | chosen)
    await rita.follow()
    assert told(rita) == ["The pair is made."]
    async with database.transaction() as tx:
        [pair] = await pairs.list_all(tx)
        assert (pair.supervisor.id, pair.supervisee.id, pair.room_id) == (ana.id, bruno.id, None)


async def test_a_pair_s_whole_life_on_its_page(rita: Browser, database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    helena = await add_person(database, "Helena", ["supervisor"], now=now)
    async with database.transaction() as tx:
        await tx.execute(bots.insert().values(matrix_id="@visavis:example.org"))
        await pairs.set_room(tx, pair.id, "!room:example.org")
        known = await pairs.get(tx, pair.id)
        ids = [person.matrix_id or "" for person in known.people]
        await memberships.note(tx, known, dict.fromkeys(ids, "join"), ids, now=now)
        await memberships.note(tx, known, {ids[0]: "join", ids[1]: "leave"}, ids[:1], now=now)
    page = f"/admin/pairs/{pair.id}"
    await rita.get(page)
    assert "Left the room" in rita.page
    assert await press(rita, page, "invite") == ["The invitation into the room is on its way."]
    assert await press(rita, page, "hold") == ["The pair is on hold: nothing is deleted."]
    assert await press(rita, page, "archive") == ["The pair is archived."]
    assert "remove-room" not in rita.page
    assert await press(rita, page, "release") == ["The hold has ended."]
    assert await press(rita, page, "reopen") == ["The pair is open again."]
    assert await press(rita, page, "hand-over") == ["Choose who. Nothing was changed."]
    assert await press(rita, page, "hand-over", supervisor=str(helena.id)) == ["The new pair is made."]
    assert await press(rita, page, "remove-room") == ["The room is being removed."]
    async with database.transaction() as tx:
        old, new = sorted(await pairs.list_all(tx), key=lambda one: one.id != pair.id)
        assert (old.status, new.status) == (PairStatus.ARCHIVED, PairStatus.ACTIVE)
        assert new.supervisor.id == helena.id
        assert list(await tx.scalars(select(homeserver_tasks.c.kind))) == [Task.REMOVE_ROOM]


async def test_a_new_room_in_place_of_one_that_is_gone(rita: Browser, database: Database, now: datetime) -> None:
    pair = await add_pair(database, now=now)
    page = f"/admin/pairs/{pair.id}"
    await rita.get(page)
    assert "new-room" not in rita.page
    await refused(await post(rita, f"/api/pairs/{pair.id}/new-room"), 422, "refused.room_not_gone")
    async with database.transaction() as tx:
        await tx.execute(bots.insert().values(matrix_id="@visavis:example.org"))
        await pairs.set_room(tx, pair.id, "!old:example.org")
        await pairs.set_fault(tx, await pairs.get(tx, pair.id), Fault.GONE, now=now)
    assert await press(rita, page, "new-room") == ["The bot is making the new room."]
    await rita.get(page)
    assert "new-room" not in rita.page
    async with database.transaction() as tx:
        kept = await pairs.by_room(tx, "!old:example.org")
        await pairs.set_room(tx, pair.id, "!new:example.org")
        await pairs.set_fault(tx, await pairs.get(tx, pair.id), Fault.NOT_ENCRYPTED, now=now)
    assert (kept.id != pair.id, kept.status) == (True, PairStatus.ARCHIVED)
    await rita.get(f"/admin/pairs/{kept.id}")
    assert "new-room" not in rita.page
    await rita.get(page)
    assert "new-room" in rita.page
    answer = await post(rita, f"/api/pairs/{pair.id}/new-room")
    assert (answer.status, (await answer.json())["status"]) == (200, "active")


async def test_what_cannot_be_undone_wants_a_sign_in_of_now(
    rita: Browser, database: Database, now: datetime, clock: Clock
) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    clock.forward(minutes=11)
    page = f"/admin/people/{bruno.id}"
    await rita.get(page)
    await rita.post(f"{page}/disable", rita.fields(f"{page}/disable"))
    assert rita.seen[-1].headers["Location"] == "/sign-in/anew"
    answer = await post(rita, f"/api/people/{bruno.id}/disable")
    await refused(answer, 403, "web.refused.sign_in_anew")
    async with database.transaction() as tx:
        assert (await people.get(tx, bruno.id)).disabled_at is None


async def test_what_does_not_come_back_of_a_pair_wants_a_sign_in_of_now(
    rita: Browser, database: Database, now: datetime, clock: Clock
) -> None:
    pair = await add_pair(database, now=now)
    helena = await add_person(database, "Helena", ["supervisor"], now=now)
    page, api = f"/admin/pairs/{pair.id}", f"/api/pairs/{pair.id}"
    assert await press(rita, page, "hold") == ["The pair is on hold: nothing is deleted."]
    clock.forward(minutes=11)
    await rita.get(page)
    for act in ("archive", "release", "hand-over"):
        await rita.post(f"{page}/{act}", {"supervisor": str(helena.id)})
        assert rita.seen[-1].headers["Location"] == "/sign-in/anew", act
        body = {"supervisor_id": str(helena.id)} if act == "hand-over" else None
        await refused(await post(rita, f"{api}/{act}", body), 403, "web.refused.sign_in_anew")
    async with database.transaction() as tx:
        [same] = await pairs.list_all(tx)
        assert (same.status, same.held_at) == (PairStatus.ACTIVE, now)


async def test_an_admin_disables_others_but_not_herself(rita: Browser, database: Database, now: datetime) -> None:
    bruno = await add_person(database, "Bruno", ["supervisee"], now=now)
    assert await press(rita, f"/admin/people/{bruno.id}", "disable", deactivate="on") == ["The person is disabled."]
    async with database.transaction() as tx:
        assert (await people.get(tx, bruno.id)).disabled_at == now
        assert list(await tx.scalars(select(homeserver_tasks.c.kind))) == [Task.DEACTIVATE]
    me = (await get(rita, "/api/me"))["person"]["id"]
    assert await press(rita, f"/admin/people/{me}", "disable") == ["You cannot disable yourself. Nothing was changed."]


async def test_nobody_else_comes_near(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    for path in ("/admin", f"/admin/people/{pair.supervisee.id}", f"/admin/pairs/{pair.id}"):
        assert (await ana.get(path)).status == 403
    await ana.get("/account")
    for path in (
        "/admin/people",
        "/admin/pairs",
        *(f"/admin/people/{pair.supervisee.id}/{act}" for act in ("invite", "mail", "disable")),
        *(
            f"/admin/pairs/{pair.id}/{act}"
            for act in ("archive", "reopen", "hold", "release", "remove-room", "new-room", "hand-over", "invite")
        ),
    ):
        assert (await ana.post(path)).status == 403, path
    for path in ("/api/people", "/api/pairs"):
        await refused(await ana.client.get(path), 403, "refused.not_allowed")
    await refused(await post(ana, f"/api/pairs/{pair.id}/hold"), 403, "refused.not_allowed")


async def test_the_api_adds_invites_and_pairs(rita: Browser, database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    body = {"name": "Bruno", "email": "bruno@example.org", "roles": ["supervisee"], "account": "bruno"}
    added = await post(rita, "/api/people", body, Idempotency_Key="one")
    assert added.status == 201
    bruno = await added.json()
    assert added.headers["Location"] == f"/api/people/{bruno['id']}"
    assert await get(rita, added.headers["Location"]) == bruno
    again = await post(rita, "/api/people", body, Idempotency_Key="one")
    assert (again.status, await again.json()) == (201, bruno)
    assert [one["name"] for one in (await get(rita, "/api/people"))["items"]] == ["Ana", "Bruno", "Rita"]
    assert (await post(rita, f"/api/people/{bruno['id']}/invite", {"account": "bruno.t"})).status == 204
    await refused(
        await post(rita, f"/api/people/{bruno['id']}/invite", {"account": "visavis"}), 422, "refused.account_reserved"
    )
    paired = await post(rita, "/api/pairs", {"supervisor_id": str(ana.id), "supervisee_id": bruno["id"]})
    assert paired.status == 201
    pair = await paired.json()
    assert await get(rita, paired.headers["Location"]) == pair
    assert (await get(rita, "/api/pairs"))["items"] == [pair]
    archived = await post(rita, f"/api/pairs/{pair['id']}/archive")
    assert (await archived.json())["status"] == "archived"
    assert (await post(rita, f"/api/people/{bruno['id']}/disable")).status == 204
    async with database.transaction() as tx:
        known = await invitations.list_all(tx)
        assert [one.localpart for one in known.values()] == ["bruno.t"]


async def test_what_waits_for_a_token_and_a_room_that_cannot_be_made_are_shown(
    rita: Browser, database: Database, now: datetime
) -> None:
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.note_not_made(tx, pair, now=now)
        await tasks.put(tx, Task.REMOVE_MEDIA, details={"media": {}}, now=now)
        await tasks.put(tx, Task.REMOVE_MEDIA, details={"media": {}}, now=now)
        for error in (tasks.ADMIN_TOKEN_REFUSED, tasks.NO_ADMIN_API):
            task = await tasks.claim(tx, now=now)
            assert task is not None
            await tasks.put_off(tx, task, error, now=now)
    await rita.get("/admin")
    assert "The chat server does not take the administrator&#39;s token." in rita.page
    assert "There is no admin API of Synapse at matrix.homeserver." in rita.page
    assert "The chat server refuses to make it, mostly because" in rita.page
    await rita.get(f"/admin/pairs/{pair.id}")
    assert "The chat server refuses to make it, mostly because" in rita.page
    assert "let the room be mended" not in rita.page

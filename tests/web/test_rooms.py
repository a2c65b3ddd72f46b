"""A pair's room on its page and in the API: what holds there, and its files."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from supervision import attachments, pairs, rooms, seals
from supervision.audit import SYSTEM
from supervision.config import RoomsConfig
from supervision.db import Database
from supervision.models import Consent, FileKind, PairStatus, audit_entries
from supervision.models import memberships as memberships_table
from supervision.models import pairs as pairs_table
from supervision.pairs import Pair
from supervision.people import Person
from supervision.rooms import RoomSettings
from supervision.texts import reader
from tests.support.sample import add_pair, add_person
from tests.web.calls import call, post, refused
from tests.web.conftest import SECRET, Browser, Clock, Open
from web.rooms import name_size

DEFAULTS = RoomsConfig()
USUAL_KINDS = ["image", "audio", "pdf", "document", "text"]
FORM = {
    "whole": "on",
    "attachments": "on",
    **{f"kind_{kind}": "on" for kind in USUAL_KINDS},
    "megabytes": "25",
    "retention_days": "0",
    "unread_minutes": "30",
    "export_consent": "both",
    "expires_on": "",
}


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    return await add_pair(database, now=now)


async def held(database: Database, pair: Pair) -> RoomSettings:
    async with database.transaction() as tx:
        return await rooms.of(tx, pair.id, DEFAULTS)


async def share(database: Database, pair: Pair, who: Person, name: str, at: datetime) -> None:
    async with database.transaction() as tx:
        await attachments.note(
            tx,
            f"${name}",
            pair.id,
            who.id,
            media=["mxc://example.org/x"],
            locked_name=seals.lock(SECRET, name),
            type="image/png",
            size=2_500_000,
            sent_at=at,
        )


async def submit(browser: Browser, pair: Pair, **changes: str) -> int:
    path = f"/rooms/{pair.id}"
    await browser.get(path)
    fields = {name: value for name, value in {**FORM, **changes}.items() if value or name == "expires_on"}
    return (await browser.post(path, browser.fields(path) | fields)).status


async def patch(browser: Browser, pair: Pair, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    path = f"/api/pairs/{pair.id}/room"
    options = {"Origin": browser.origin, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with browser.client.patch(path, json=body, headers=options) as answer:
        return answer.status, await answer.json()


async def test_both_read_what_holds_and_which_files_there_are(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    await share(database, pair, pair.supervisee, "<b>.png", now)
    for person, changes in ((pair.supervisor, 1), (pair.supervisee, 0)):
        browser = await open_browser(person)
        assert (await browser.get(f"/rooms/{pair.id}")).status == 200
        assert browser.page.count('<form class="fields"') == changes
        assert "&lt;b&gt;.png" in browser.page
        size = "2,4 MB" if person.language == "pt-BR" else "2.4 MB"
        assert f"image/png · {size} · {pair.supervisee.name}" in browser.page


async def test_an_admin_settles_and_sees_no_file(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    await share(database, pair, pair.supervisee, "private.png", now)
    browser = await open_browser(await add_person(database, "Iris", ["admin"], now=now, language="en"))
    assert await submit(browser, pair, megabytes="5") == 303
    await browser.follow()
    assert "Room of Ana and Bruno" in browser.page
    assert "private.png" not in browser.page
    assert (await browser.client.get(f"/api/pairs/{pair.id}/attachments")).status == 404
    assert (await held(database, pair)).megabytes == 5


async def test_nobody_else_finds_it(database: Database, pair: Pair, now: datetime, open_browser: Open) -> None:
    browser = await open_browser(await add_person(database, "Olga", ["supervisor"], now=now))
    for path in (f"/rooms/{pair.id}", f"/api/pairs/{pair.id}/room", f"/api/pairs/{pair.id}/attachments"):
        assert (await browser.get(path)).status == 404
    other = await open_browser(pair.supervisee)
    await other.get("/appointments")
    assert (await other.post(f"/rooms/{pair.id}", FORM | {"megabytes": "5"})).status == 403
    assert (await held(database, pair)).own == frozenset()


async def test_what_was_typed_otherwise_is_settled_and_nothing_else(
    database: Database, pair: Pair, open_browser: Open
) -> None:
    browser = await open_browser(pair.supervisor)
    assert await submit(browser, pair) == 303
    assert (await held(database, pair)).own == frozenset()
    assert await submit(browser, pair, kind_audio="", unread_minutes="0", expires_on="2027-12-31") == 303
    settled = await held(database, pair)
    assert settled.own == {"kinds", "unread_minutes", "expires_on"}
    assert settled.kinds == {FileKind.IMAGE, FileKind.PDF, FileKind.DOCUMENT, FileKind.TEXT}
    assert (settled.unread_minutes, settled.expires_on) == (0, date(2027, 12, 31))
    assert await submit(browser, pair, attachments="", unread_minutes="0") == 303
    settled = await held(database, pair)
    assert (settled.attachments, settled.export_consent, settled.expires_on) == (False, Consent.BOTH, None)


async def test_that_one_word_is_enough_for_a_copy_is_an_admin_s_to_say(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    ana = await open_browser(pair.supervisor)
    rita = await open_browser(await add_person(database, "Rita", ["admin"], now=now))
    assert await submit(ana, pair, export_consent="one") == 403
    assert "Só quem administra o Visavis pode definir que basta uma." in ana.page
    assert 'name="export_consent"' not in ana.page
    answer = await call(ana, "PATCH", f"/api/pairs/{pair.id}/room", {"export_consent": "one"})
    await refused(answer, 403, "refused.export_consent")
    assert (await held(database, pair)).own == frozenset()
    assert await submit(rita, pair, export_consent="one") == 303
    assert (await held(database, pair)).export_consent is Consent.ONE
    assert await submit(ana, pair, export_consent="both") == 303
    assert (await held(database, pair)).export_consent is Consent.BOTH


@pytest.mark.parametrize(
    "changes", [{"megabytes": "0"}, {"megabytes": "x"}, {"retention_days": "9999"}, {"expires_on": "2020-01-01"}]
)
async def test_what_makes_no_sense_is_said_above_the_form(
    database: Database, pair: Pair, open_browser: Open, changes: dict[str, str]
) -> None:
    browser = await open_browser(pair.supervisor)
    assert await submit(browser, pair, **changes) == 422
    assert 'role="alert"' in browser.page
    assert (await held(database, pair)).own == frozenset()


async def test_fewer_days_are_agreed_to_first(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    browser = await open_browser(pair.supervisor)
    assert await submit(browser, pair, retention_days="90") == 409
    assert (await held(database, pair)).retention_days == 0
    path = f"/rooms/{pair.id}"
    assert browser.fields(path)["agreed"] == "90"
    again = browser.fields(path) | FORM | {"retention_days": "30"}
    assert (await browser.post(path, again)).status == 409  # the agreement was to other days
    again = browser.fields(path) | FORM | {"retention_days": "30"}
    assert (await browser.post(path, again)).status == 303
    assert (await held(database, pair)).retention_days == 30
    async with database.transaction() as tx:
        query = select(audit_entries.c.success).where(audit_entries.c.action == "room.settle").order_by("id")
        assert list(await tx.scalars(query)) == [False, False, True]


async def test_the_api_shows_and_changes_what_holds(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    browser = await open_browser(pair.supervisor)
    answer = await browser.client.get(f"/api/pairs/{pair.id}/room")
    usual = {
        "pair_id": str(pair.id),
        "attachments": True,
        "attachment_kinds": USUAL_KINDS,
        "attachment_megabytes": 25,
        "retention_days": 0,
        "unread_minutes": 30,
        "export_consent": "both",
        "expires_on": None,
        "own": [],
    }
    assert await answer.json() == usual
    tag = answer.headers["ETag"]
    changes = {"attachment_kinds": ["pdf"], "retention_days": 10, "expires_on": "2027-12-31"}
    changed = usual | changes | {"own": ["attachment_kinds", "expires_on", "retention_days"]}
    assert await patch(browser, pair, changes, If_Match=tag) == (200, changed)
    assert (await patch(browser, pair, {"retention_days": 5}, If_Match=tag))[0] == 412
    assert (await patch(browser, pair, {"attachment_kinds": ["rocket"]}))[0] == 422
    assert (await patch(browser, pair, {"attachment_megabytes": 0}))[0] == 422
    assert await patch(browser, pair, dict.fromkeys(changes)) == (200, usual)
    assert (await patch(await open_browser(pair.supervisee), pair, {"attachments": False}))[0] == 403


async def test_of_two_changes_under_one_tag_one_counts(database: Database, pair: Pair, open_browser: Open) -> None:
    browser = await open_browser(pair.supervisor)
    tag = (await browser.client.get(f"/api/pairs/{pair.id}/room")).headers["ETag"]
    answers = await asyncio.gather(*(patch(browser, pair, {"retention_days": days}, If_Match=tag) for days in (5, 6)))
    assert sorted(status for status, _ in answers) == [200, 412]
    kept = next(body for status, body in answers if status == 200)["retention_days"]
    assert (await held(database, pair)).retention_days == kept


async def test_the_api_lists_files(database: Database, pair: Pair, now: datetime, open_browser: Open) -> None:
    await share(database, pair, pair.supervisee, "one.png", now - timedelta(minutes=1))
    await share(database, pair, pair.supervisor, "two.png", now)
    browser = await open_browser(pair.supervisee)
    items = (await (await browser.client.get(f"/api/pairs/{pair.id}/attachments")).json())["items"]
    assert [(one["name"], one["sender_id"], one["type"], one["bytes"]) for one in items] == [
        ("two.png", str(pair.supervisor.id), "image/png", 2_500_000),
        ("one.png", str(pair.supervisee.id), "image/png", 2_500_000),
    ]


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 kB"), (15_000, "15 kB"), (2_500_000, "2.4 MB")]
)
def test_a_size_is_said_shortly(size: int, shown: str) -> None:
    assert name_size(reader("en", "UTC"), size) == shown


async def test_an_archived_room_is_found_from_both_dashboards_and_reopened_by_its_supervisor(
    database: Database, pair: Pair, open_browser: Open
) -> None:
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    here = f"/rooms/{pair.id}"
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(room_id="!room:example.org"))
    homes = ((ana, "/supervisor"), (bruno, "/appointments"))

    async def change(act: str) -> list[int]:
        """What is answered to him and to her; afterwards each has seen their dashboard."""
        await bruno.get(here)
        await ana.get(here)
        refused = await bruno.post(f"{here}/{act}")
        done = await ana.post(f"{here}/{act}", ana.fields(f"{here}/{act}"))
        for browser, home in homes:
            await browser.get(home)
        return [refused.status, done.status]

    assert await change("archive") == [403, 303]
    assert [browser.page.count(f'<li><a href="{here}">') for browser, _ in homes] == [1, 1]
    assert await change("reopen") == [403, 303]
    assert [browser.page.count(f'<li><a href="{here}">') for browser, _ in homes] == [0, 0]


async def test_the_room_of_whom_another_supervisor_took_over_offers_her_no_reopening(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    clara = await add_person(database, "Clara", ["supervisor"], now=now)
    rita = await open_browser(await add_person(database, "Rita", ["admin"], now=now))
    ana, here = await open_browser(pair.supervisor), f"/rooms/{pair.id}"
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(room_id="!room:example.org"))
        await pairs.hand_over(tx, SYSTEM, pair.id, clara, now=now)
    await ana.get(here)
    assert "Outra pessoa assumiu esta supervisão. Só quem administra o Visavis pode reabrir a sala." in ana.page
    assert f'action="{here}/reopen"' not in ana.page
    await refused(await post(ana, f"/api/pairs/{pair.id}/reopen"), 403, "refused.pair_handed_over")
    await rita.get(f"/admin/pairs/{pair.id}")
    assert f'action="/admin/pairs/{pair.id}/reopen"' in rita.page
    assert (await post(rita, f"/api/pairs/{pair.id}/reopen")).status == 200


async def test_closing_the_room_wants_a_sign_in_of_now(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    ana, here = await open_browser(pair.supervisor), f"/rooms/{pair.id}"
    clock.forward(minutes=11)
    await ana.get(here)
    led = await ana.post(f"{here}/archive", ana.fields(f"{here}/archive"))
    assert (led.status, led.headers["Location"]) == (303, "/sign-in/anew")
    await ana.follow()
    assert f'<a href="{here}">' in ana.page
    async with database.transaction() as tx:
        assert (await pairs.get(tx, pair.id)).status is PairStatus.ACTIVE


async def test_who_left_is_invited_again_by_the_supervisor(
    database: Database, pair: Pair, now: datetime, open_browser: Open
) -> None:
    ana, bruno, here = await open_browser(pair.supervisor), await open_browser(pair.supervisee), f"/rooms/{pair.id}"
    async with database.transaction() as tx:
        await tx.execute(update(pairs_table).values(room_id="!room:example.org"))
        seen = {"pair_id": pair.id, "readable": True, "changed_at": now}
        await tx.execute(memberships_table.insert().values(**seen, person_id=pair.supervisee.id, membership="leave"))
    await bruno.get(here)
    fields = {"person": str(pair.supervisee.id)}
    assert (await bruno.post(f"{here}/invite", fields)).status == 403
    await ana.get(here)
    assert (await ana.post(f"{here}/invite", ana.fields(f"{here}/invite"))).status == 303
    async with database.transaction() as tx:
        assert list(await tx.execute(select(memberships_table))) == []
    await ana.get(here)
    assert f'action="{here}/invite"' not in ana.page

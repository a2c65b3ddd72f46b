"""The page on which a room is taken home: a new sign-in before it counts, the other's word, and the file itself."""

import asyncio
from datetime import datetime, timedelta

import aiohttp
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from embedded.postgresql import PostgreSQL
from supervision import exports, pairs, sign_ins
from supervision.db import Database
from supervision.exports import CHUNK, Export, Seal
from supervision.models import (
    Channel,
    Consent,
    ExportState,
    Fault,
    audit_entries,
    export_chunks,
    notifications,
    questions,
    sessions,
)
from supervision.models import exports as table
from supervision.models import sign_ins as sign_ins_table
from supervision.pairs import Pair
from tests.support.sample import acts, add_pair, add_person
from tests.web.calls import call, get, post, refused
from tests.web.conftest import SECRET, Browser, Clock, Open, open_both


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    """Ana and Bruno, whose room is there."""
    made = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await pairs.set_room(tx, made.id, "!room:example.org")
        return await pairs.get(tx, made.id)


async def ready(database: Database, pair: Pair, pieces: list[bytes], now: datetime) -> Export:
    """An export of Bruno's that can be fetched."""
    async with database.transaction() as tx:
        agreed = await exports.ask(tx, acts(pair.supervisee), pair.id, default=Consent.ONE, now=now)
        assert agreed is not None
        export = await exports.begin(tx, agreed, now=now)
        seal = Seal(SECRET, export.id, export.salt or b"")
        for position, piece in enumerate(pieces):
            last = position == len(pieces) - 1
            await exports.put(tx, export.id, position, seal.lock(position, piece, last=last), size=len(piece))
        await exports.finish(tx, export, pair, events=2, now=now)
        return await exports.get(tx, export.id)


async def press(browser: Browser, path: str) -> int:
    """Press the button of the page's form that is sent there; the answer's status."""
    return (await browser.post(path, browser.fields(path))).status


async def test_asking_and_agreeing_on_the_page(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    (hers, his), home = await open_both(open_browser, pair), f"/rooms/{pair.id}/export"
    assert (await his.get(home)).status == 200
    assert await press(his, home) == 303
    await his.follow()
    assert "Ana is asked to agree, until Thu 26 Nov, 12:00 (Lisbon)" in his.page
    await hers.get(home)
    assert "Bruno gostaria de levar uma cópia" in hers.page
    assert await press(hers, f"{home}/agree") == 303
    answer = await his.get(home)
    assert "Your copy is being made" in his.page
    assert answer.headers["Refresh"] == "5"
    async with database.transaction() as tx:
        [made] = await exports.list_of(tx, pair.id, pair.supervisee.id, since=clock() - timedelta(days=1))
        rows = await tx.execute(
            select(audit_entries.c.action, audit_entries.c.actor_id, audit_entries.c.ip, audit_entries.c.user_agent)
            .where(audit_entries.c.action.like("export.%"))
            .order_by(audit_entries.c.id)
        )
        entries = [tuple(row)[:3] for row in rows]
    assert (made.state, made.agreed_by) == (ExportState.AGREED, pair.supervisor.id)
    assert entries == [
        ("export.ask", pair.supervisee.id, "127.0.0.1"),
        ("export.agree", pair.supervisor.id, "127.0.0.1"),
    ]


async def test_the_page_of_a_room_that_the_bot_is_not_in_offers_no_copy(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    (hers, his), home = await open_both(open_browser, pair), f"/rooms/{pair.id}/export"
    await his.get(home)
    await press(his, home)
    async with database.transaction() as tx:
        await pairs.set_fault(tx, pair, Fault.GONE, now=clock())
    await hers.get(home)
    assert "O robô não está mais nesta sala e não pode fazer uma cópia dela." in hers.page
    assert (f'action="{home}"' in hers.page, f'action="{home}/agree"' in hers.page) == (False, False)
    assert await press(hers, f"{home}/refuse") == 303
    await his.get(home)
    assert "The bot is not in this room any more and cannot make a copy of it." in his.page
    await refused(await post(his, f"/api/pairs/{pair.id}/exports"), 404, "refused.export_room_lost")


async def test_both_may_look_while_somebody_answers(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    """Each was asked by the other, so their pages look at the same two questions, in another order."""
    browsers = [await open_browser(one) for one in pair.people]
    async with database.transaction() as tx:
        for one in pair.people:
            await exports.ask(tx, acts(one), pair.id, default=Consent.BOTH, now=clock())
    async with database.transaction() as answering:
        await answering.execute(select(questions).with_for_update())
        async with asyncio.timeout(4):
            for browser in browsers:
                assert (await browser.get(f"/rooms/{pair.id}/export")).status == 200
                assert (await get(browser, f"/api/pairs/{pair.id}/exports"))["items"] == []


async def test_saying_no_and_taking_back(database: Database, pair: Pair, open_browser: Open) -> None:
    (hers, his), home = await open_both(open_browser, pair), f"/rooms/{pair.id}/export"
    await his.get(home)
    await press(his, home)
    await hers.get(home)
    assert await press(hers, f"{home}/refuse") == 303
    await his.get(home)
    assert await press(his, home) == 303
    await his.get(home)
    assert await press(his, f"{home}/withdraw") == 303
    await hers.get(home)
    assert f"{home}/agree" not in hers.page
    async with database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(table)) == 0


async def test_an_old_session_is_led_through_a_new_sign_in_and_back(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    his, home = await open_browser(pair.supervisee), f"/rooms/{pair.id}/export"
    await his.get(home)
    fields = his.fields(home)
    clock.forward(minutes=11)
    refused = await his.post(home, fields)
    assert (refused.status, refused.headers["Location"]) == (303, "/sign-in/anew")
    await his.follow()
    assert (await his.post("/sign-in/anew", his.fields("/sign-in/anew"))).headers["Location"] == "/sign-in/code"
    async with database.transaction() as tx:
        assert await tx.scalar(select(func.count()).select_from(sessions)) == 0
        sign_in_id = (await tx.execute(select(sign_ins_table.c.id))).scalar_one()
        mailed = select(notifications.c.person_id).where(notifications.c.channel == Channel.MAIL)
        assert await tx.scalar(mailed.where(notifications.c.kind == "sign_in")) == pair.supervisee.id
    await his.follow()
    back = await his.post("/sign-in/code", {"code": sign_ins.code(SECRET, sign_in_id)})
    assert back.headers["Location"] == home
    await his.follow()
    assert await press(his, home) == 303
    async with database.transaction() as tx:
        assert await exports.pending(tx, pair, pair.supervisee.id, now=clock()) is not None


async def test_the_file_is_streamed_to_its_asker_after_a_new_sign_in(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    pieces = [b"a" * CHUNK, b"b" * CHUNK, b"c" * 10]
    export = await ready(database, pair, pieces, clock())
    his, home = await open_browser(pair.supervisee), f"/rooms/{pair.id}/export"
    path = f"{home}/{export.id}/file"
    await his.get(home)
    assert "2 messages, 2.0 MB" in his.page
    for _ in range(2):  # one that breaks off can be begun again
        answer = await his.get(path)
        assert (answer.status, await answer.read()) == (200, b"".join(pieces))
        assert answer.headers["Content-Disposition"] == 'attachment; filename="visavis-2026-11-23.zip"'
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == ("application/zip", "no-store")
        assert answer.headers["Content-Length"] == str(2 * CHUNK + 10)
    hers, admin = (
        await open_browser(pair.supervisor),
        await open_browser(await add_person(database, "Ada", ["admin"], now=clock())),
    )
    assert [(await one.get(path)).status for one in (hers, admin)] == [404, 404]
    assert (await admin.get(home)).status == 404
    clock.forward(minutes=11)
    led = await his.get(path)
    assert (led.status, led.headers["Location"]) == (303, "/sign-in/anew")
    fresh = await open_browser(pair.supervisee)
    clock.forward(days=1)
    assert (await fresh.get(path)).status in (303, 404)
    late = await open_browser(pair.supervisee)
    assert (await late.get(path)).status == 404
    async with database.transaction() as tx:
        entries = select(audit_entries.c.user_agent).where(audit_entries.c.action == "export.fetch")
        assert len(list(await tx.scalars(entries))) == 2


async def test_a_file_whose_pieces_were_touched_never_looks_whole(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    export = await ready(database, pair, [b"a" * CHUNK, b"b" * CHUNK, b"c"], clock())
    his, path = await open_browser(pair.supervisee), f"/rooms/{pair.id}/export/{export.id}/file"
    async with database.transaction() as tx:
        touched = func.overlay(export_chunks.c.content, b"x", 40)
        await tx.execute(update(export_chunks).where(export_chunks.c.position == 1).values(content=touched))
    async with await his.get(path) as answer:
        with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
            await answer.read()
    async with database.transaction() as tx:
        await tx.execute(update(export_chunks).where(export_chunks.c.position == 0).values(content=b"nothing"))
    assert (await his.get(path)).status == 404
    async with database.transaction() as tx:
        assert (await exports.get(tx, export.id)).fetched_at is None


async def test_a_file_that_the_database_breaks_off_is_cut_short_and_no_page_follows_in_it(
    database: Database,
    postgresql: PostgreSQL,
    database_name: str,
    pair: Pair,
    open_browser: Open,
    clock: Clock,
) -> None:
    pieces = [b"a" * CHUNK, b"b" * CHUNK, b"c" * CHUNK]
    export = await ready(database, pair, pieces, clock())
    owner = create_async_engine(postgresql.dsn(database_name, "visavis_owner"))
    async with owner.begin() as connection:
        await connection.execute(text("ALTER TABLE export_chunks RENAME TO kept_chunks"))
        fails = "CASE WHEN position = 2 THEN (1 / (position - 2))::text::bytea ELSE content END AS content"
        view = f"CREATE VIEW export_chunks AS SELECT export_id, position, {fails} FROM kept_chunks"  # noqa: S608
        await connection.execute(text(view))
        await connection.execute(text("GRANT SELECT ON export_chunks TO visavis_app"))
    await owner.dispose()
    his, received = await open_browser(pair.supervisee), bytearray()

    async def take() -> None:
        async with his.client.get(f"/rooms/{pair.id}/export/{export.id}/file") as answer:
            async for piece in answer.content.iter_any():
                received.extend(piece)

    with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
        await asyncio.wait_for(take(), 20)
    assert received == b"".join(pieces)[: len(received)]
    async with database.transaction() as tx:
        assert (await exports.get(tx, export.id)).fetched_at is None


async def test_asking_for_the_head_alone_fetches_nothing(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    export = await ready(database, pair, [b"a" * CHUNK, b"b"], clock())
    his = await open_browser(pair.supervisee)
    answer = await his.client.head(f"/rooms/{pair.id}/export/{export.id}/file")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    async with database.transaction() as tx:
        assert (await exports.get(tx, export.id)).fetched_at is None


async def test_asking_and_taking_back_by_the_api(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    (hers, his), path = await open_both(open_browser, pair), f"/api/pairs/{pair.id}/exports"
    asked = await post(his, path, Idempotency_Key="one")
    waiting = {"items": [], "waits_until": "2026-11-26T12:00:00Z"}
    assert (asked.status, await asked.json(), await get(his, path)) == (202, waiting, waiting)
    assert (await post(his, path, Idempotency_Key="one")).status == 202
    await refused(await post(his, path), 409, "refused.export_open")
    await refused(await post(hers, f"{path}/withdraw"), 409, "refused.export_not_asked")
    assert (await post(his, f"{path}/withdraw")).status == 204
    assert await get(his, path) == {"items": [], "waits_until": None}
    assert (await post(his, path)).status == 202
    await hers.get(f"/rooms/{pair.id}/export")
    assert await press(hers, f"/rooms/{pair.id}/export/agree") == 303
    shown = await get(his, path)
    [made] = shown["items"]
    assert (shown["waits_until"], made["state"], made["agreed_by"], made["file"]) == (
        None,
        "agreed",
        str(pair.supervisor.id),
        None,
    )
    assert await get(his, f"{path}/{made['id']}") == made
    await refused(await call(his, "GET", f"{path}/{made['id']}/file"), 404, "refused.export_gone")
    assert await get(hers, path) == {"items": [], "waits_until": None}
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries.c.action, audit_entries.c.actor_id, audit_entries.c.success)
            .where(audit_entries.c.action.like("export.%"))
            .order_by(audit_entries.c.id)
        )
        assert [tuple(row) for row in rows] == [
            ("export.ask", pair.supervisee.id, True),
            ("export.ask", pair.supervisee.id, False),
            ("export.withdraw", pair.supervisor.id, False),
            ("export.withdraw", pair.supervisee.id, True),
            ("export.ask", pair.supervisee.id, True),
            ("export.agree", pair.supervisor.id, True),
        ]


async def test_the_file_by_the_api_is_its_askers_alone_and_wants_a_new_sign_in(
    database: Database, pair: Pair, open_browser: Open, clock: Clock
) -> None:
    pieces = [b"a" * CHUNK, b"b"]
    export = await ready(database, pair, pieces, clock())
    his, path = await open_browser(pair.supervisee), f"/api/pairs/{pair.id}/exports"
    one = f"{path}/{export.id}"
    known = {
        "id": str(export.id),
        "pair_id": str(pair.id),
        "state": "ready",
        "agreed_by": None,
        "events": 2,
        "bytes": CHUNK + 1,
        "agreed_at": "2026-11-23T12:00:00Z",
        "ready_at": "2026-11-23T12:00:00Z",
        "expires_at": "2026-11-24T12:00:00Z",
        "fetched_at": None,
        "file": f"{one}/file",
    }
    assert await get(his, path) == {"items": [known], "waits_until": None}
    answer = await his.client.get(f"{one}/file")
    assert (answer.status, answer.content_type, await answer.read()) == (200, "application/zip", b"".join(pieces))
    assert await get(his, one) == known | {"fetched_at": "2026-11-23T12:00:00Z"}
    carla = await add_person(database, "Carla", ["supervisor"], now=clock())
    other = await add_pair(
        database,
        supervisor=carla,
        supervisee=await add_person(database, "Davi", ["supervisee"], now=clock()),
        now=clock(),
    )
    strange, admin = (
        await open_browser(pair.supervisor),
        await open_browser(await add_person(database, "Ada", ["admin"], now=clock())),
    )
    for browser in (strange, admin, await open_browser(other.supervisee)):
        assert (await call(browser, "GET", one)).status == 404
        assert (await call(browser, "GET", f"{one}/file")).status == 404
    for browser in (admin, await open_browser(other.supervisee)):
        assert (await call(browser, "GET", path)).status == 404
        await refused(await post(browser, path), 404, "refused.pair_not_found")
    clock.forward(minutes=11)
    await refused(await call(his, "GET", f"{one}/file"), 403, "web.refused.sign_in_anew")
    await refused(await post(his, path), 403, "web.refused.sign_in_anew")
    clock.forward(days=1)
    late = await open_browser(pair.supervisee)
    assert (await get(late, one)) | {"fetched_at": None} == known | {"state": "expired", "file": None}
    await refused(await call(late, "GET", f"{one}/file"), 404, "refused.export_gone")
    async with database.transaction() as tx:
        fetches = select(func.count()).where(audit_entries.c.action == "export.fetch")
        assert await tx.scalar(fetches) == 1

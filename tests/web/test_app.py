"""What holds for every answer; errors, health, metrics, the demo's pages, and serving itself."""

import asyncio
import re
import socket
import uuid
from datetime import datetime
from pathlib import Path

import pytest
import structlog
from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from embedded.postgresql import PostgreSQL
from supervision import notifications, sign_ins
from supervision.config import Config
from supervision.db import Database
from supervision.models import Channel
from supervision.models import notifications as table
from supervision.notifications import Notice
from supervision.people import Person
from tests.support.sample import add_pair, add_person
from tests.web.conftest import SECRET, Browser, Clock, Open, configure
from web import app, middleware
from web.app import run
from web.demo import DemoPages
from web.limits import Limit
from web.metrics import Metrics, make_metrics_app
from web.serving import PortUnavailable

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
MAIL = b"""From: Visavis <visavis@example.org>\r
To: bruno@example.org\r
Subject: =?utf-8?q?Supervis=C3=A3o_<b>?=\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=x\r
\r
--x\r
Content-Type: multipart/alternative; boundary=y\r
\r
--y\r
Content-Type: text/plain; charset=utf-8\r
\r
Open http://127.0.0.1:8080/sign-in/abc & <script>\r
--y\r
Content-Type: text/html; charset=utf-8\r
\r
<html><head><style>p {color: red}</style></head><body><script>alert(1)</script><p style="color: red; background: \
url(https://evil.example/x)" onclick="x()">Hello</p><img src="https://evil.example/y">\
<a href="javascript:x()">no</a> <a href="http://127.0.0.1:8080/sign-in/abc">in</a></body></html>\r
--y--\r
--x\r
Content-Type: application/ics; name=invite.ics\r
Content-Disposition: attachment; filename=invite.ics\r
\r
BEGIN:VCALENDAR\r
--x--\r
"""


async def test_every_answer_has_the_headers(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    browser = await open_browser(pair.supervisee)
    for path in ("/appointments", "/nothing", "/api/me", "/api/nothing", "/health/live", "/sign-in/x", "/"):
        answer = await browser.get(path)
        headers = answer.headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in headers
        assert headers["Server"] == "visavis"


async def test_pages_hold_no_script_and_no_style_of_their_own(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    for someone, path in ((pair.supervisee, "/appointments"), (pair.supervisor, "/supervisor"), (None, "/sign-in")):
        browser = await open_browser(someone)
        await browser.get(path)
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", browser.page)


async def test_static_files_may_be_kept_for_ever(open_browser: Open) -> None:
    browser = await open_browser()
    await browser.get("/sign-in")
    paths = re.findall(r'href="(/static/[^"]+)"', browser.page)
    assert len(paths) == 2
    for path in paths:
        answer = await browser.get(path)
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert (await browser.get("/static/../app.py")).status == 404


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("en-GB,en;q=0.9", "en"), ("pt-PT", "pt-BR"), ("de", "pt-BR"), ("pt;q=0.1,en;q=0.9", "en"), ("en;q=x", "pt-BR")],
)
async def test_a_stranger_reads_what_the_browser_asks_for(open_browser: Open, accepted: str, language: str) -> None:
    browser = await open_browser(language=accepted)
    await browser.get("/sign-in")
    assert f'<html lang="{language}">' in browser.page


async def test_a_failure_is_one_sentence_with_a_number(
    database: Database, database_name: str, postgresql: PostgreSQL, now: datetime, open_browser: Open
) -> None:
    """A table is gone: nobody is shown why, and the log names the number without anybody's words."""
    pair = await add_pair(database, now=now)
    browser = await open_browser(pair.supervisee)
    engine = create_async_engine(postgresql.dsn(database_name, "visavis_owner"))
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE pairs RENAME TO gone"))
    await engine.dispose()
    with structlog.testing.capture_logs() as logs:
        answer = await browser.get("/api/me")
        page = await browser.get("/appointments")
    body = await answer.json(content_type="application/problem+json")
    assert (answer.status, page.status, body["code"]) == (500, 500, "failed")
    numbers = [entry["incident"] for entry in logs]
    assert body["detail"] == f"Something failed on our side; nothing was changed. Number {numbers[0]}."
    assert f"nothing was changed. Number {numbers[1]}." in browser.page
    assert [(entry["event"], entry["route"], entry["error"][0]) for entry in logs] == [
        ("web.failed", "/api/me", "ProgrammingError"),
        ("web.failed", "/appointments", "ProgrammingError"),
    ]
    for word in ("pairs", "relation", "sqlalchemy", "Traceback"):
        assert word not in await answer.text()
        assert word not in browser.page
    for words in ("does not exist", str(pair.supervisee.id), pair.supervisee.email, "Bruno"):
        assert words not in str(logs)


async def test_without_a_database_pages_fail_calmly(config: Config, clock: Clock) -> None:
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with TestClient(TestServer(app.make_app(nowhere, config, clock=clock))) as client:
        assert (await client.get("/sign-in")).status == 200
        with structlog.testing.capture_logs() as logs:
            answer = await client.get("/appointments", headers={"Cookie": f"visavis={'x' * 43}"})
        assert answer.status == 500
        assert f"Algo falhou do nosso lado; nada foi alterado. Número {logs[0]['incident']}." in await answer.text()
    await nowhere.close()


async def test_processes_side_by_side_share_everything(
    database: Database, config: Config, now: datetime, clock: Clock
) -> None:
    """A page of one process is sent to another, which takes it."""
    pair = await add_pair(database, now=now)
    jar = CookieJar(unsafe=True)
    one, two = [TestClient(TestServer(app.make_app(database, config, clock=clock)), cookie_jar=jar) for _ in range(2)]
    async with one, two:
        first, second = Browser(one, config.web.base_url), Browser(two, config.web.base_url)
        await first.get("/sign-in")
        second.page = first.page
        assert (await second.post("/sign-in", {"email": pair.supervisee.email})).status == 303
        async with database.transaction() as tx:
            [row] = await tx.execute(select(table.c.details))
        code = sign_ins.code(SECRET, uuid.UUID(row.details["sign_in_id"]))
        assert (await first.post("/sign-in/code", {"code": code})).status == 303
        assert (await second.get("/appointments")).status == 200


async def test_a_flood_is_asked_to_wait(
    database: Database, now: datetime, open_browser: Open, server: TestServer
) -> None:
    pair = await add_pair(database, now=now)
    browser, other = await open_browser(pair.supervisee), await open_browser(pair.supervisor)
    server.app[middleware.PEOPLE].burst = 2
    server.app[middleware.PEOPLE].per_second = 0
    statuses = [(await browser.get("/api/me")).status for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert browser.seen[-1].headers["Retry-After"] == "10"
    assert (await other.get("/api/me")).status == 200


def test_a_limit_fills_up_again() -> None:
    at = 0.0
    limit = Limit(2, 0.5, most_keys=2, clock=lambda: at)
    assert [limit.take("a") for _ in range(3)] == [True, True, False]
    at = 2.0
    assert [limit.take("a") for _ in range(2)] == [True, False]
    assert [limit.take(key) for key in "bc"] == [True, True]
    assert limit.take("a")  # the longest unused was forgotten


async def test_health(database: Database, database_name: str, postgresql: PostgreSQL, open_browser: Open) -> None:
    browser = await open_browser()
    assert await (await browser.get("/health/live")).json() == {"status": "live"}
    assert await (await browser.get("/health/ready")).json() == {"status": "ready"}
    engine = create_async_engine(postgresql.dsn(database_name, "visavis_owner"))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    await engine.dispose()
    answer = await browser.get("/health/ready")
    assert (answer.status, await answer.json()) == (503, {"status": "not ready", "lacking": "migrations"})


async def test_without_a_database_it_lives_but_is_not_ready(config: Config, clock: Clock) -> None:
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with TestClient(TestServer(app.make_app(nowhere, config, clock=clock))) as client:
        assert (await client.get("/health/live")).status == 200
        answer = await client.get("/health/ready")
        assert (answer.status, await answer.json()) == (503, {"status": "not ready", "lacking": "database"})
    await nowhere.close()


async def test_metrics_count_by_route_and_never_by_id(
    database: Database, config: Config, now: datetime, clock: Clock
) -> None:
    pair = await add_pair(database, now=now)
    metrics = Metrics()
    async with database.transaction() as tx:
        await notifications.enqueue(tx, [Notice(pair.supervisee.id, Channel.MAIL, "sign_in")], now=now)
    clock.forward(seconds=90)
    served = TestServer(app.make_app(database, config, clock=clock, metrics=metrics))
    async with TestClient(served) as client:
        await client.get(f"/appointments/{pair.id}", allow_redirects=False)
        await client.get("/nothing/at/all")
        await client.request("PURGE", "/sign-in")
    async with TestClient(TestServer(make_metrics_app(database, metrics, clock=clock))) as client:
        shown = await (await client.get("/metrics")).text()
    counts = dict(re.findall(r"^visavis_http_request_duration_seconds_count({.*}) (.*)$", shown, re.MULTILINE))
    assert counts == {
        '{method="GET",route="/appointments/{id}",status="303"}': "1.0",
        '{method="GET",route="unmatched",status="404"}': "1.0",
        '{method="other",route="unmatched",status="405"}': "1.0",
    }
    assert str(pair.id) not in shown
    assert 'visavis_notifications{channel="mail",state="pending"} 1.0' in shown
    assert 'visavis_notifications_due{channel="mail",priority="2"} 1.0' in shown
    assert 'visavis_notifications_oldest_due_seconds{channel="mail",priority="2"} 90.0' in shown
    names = {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if not name.startswith("visavis_")} == set()
    assert "visavis_process_resident_memory_bytes" in names


async def test_metrics_without_a_database(clock: Clock) -> None:
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with TestClient(TestServer(make_metrics_app(nowhere, Metrics(), clock=clock))) as client:
        answer = await client.get("/metrics")
        assert answer.status == 200
        assert "visavis_database_up 0.0" in await answer.text()
    await nowhere.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_serving_both_ports_until_cancelled(database: Database) -> None:
    port, metrics_port = free_port(), free_port()
    config = configure(f"http://127.0.0.1:{port}", port=port, metrics_port=metrics_port)
    started = asyncio.Event()
    serving = asyncio.create_task(run(database, config, started=started))
    await started.wait()
    other = configure(f"http://127.0.0.1:{port}", port=free_port(), metrics_port=metrics_port)
    async with ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/health/ready") as answer:
            assert answer.status == 200
        async with client.get(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
            assert answer.status == 200
        async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 404
    same = configure(f"http://127.0.0.1:{port}", port=port, metrics_port=free_port())
    for wanted, taken in ((same, port), (other, metrics_port)):
        with pytest.raises(PortUnavailable) as refusal:
            await run(database, wanted)
        assert str(refusal.value) == (
            f"The web application cannot listen on 127.0.0.1, port {taken}: the address is in use already."
        )
    with structlog.testing.capture_logs() as logs:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"BREW /sign-in/secret HTTP/1.1\r\n\r\n")
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert (head.split()[1], body) == ("400", "This request cannot be answered.\n")
    assert f"Content-Security-Policy: {POLICY}\r\n" in head
    assert [(entry["event"], entry["error"]) for entry in logs] == [("web.not_http", "BadHttpMethod")]
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_the_demo_s_pages_do_not_exist_otherwise(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    for browser in (await open_browser(), await open_browser(pair.supervisee)):
        for path in ("/demo", f"/demo/sign-in/{pair.supervisee.id}", "/demo/mailbox", "/demo/mailbox/x"):
            assert (await browser.get(path)).status == 404
        assert (await browser.post(f"/demo/sign-in/{pair.supervisee.id}")).status == 404


class TestDemo:
    """The application as the demo runs it."""

    @pytest.fixture
    def demo(self, tmp_path: Path, people: list[Person]) -> DemoPages:
        for folder in ("new", "cur", "tmp"):
            (tmp_path / "mail" / folder).mkdir(parents=True)
        (tmp_path / "mail" / "new" / "1.a:2,").write_bytes(MAIL)
        (tmp_path / "secret").write_text("secret")
        return DemoPages(tmp_path / "mail", people)

    @pytest.fixture
    async def people(self, database: Database, now: datetime) -> list[Person]:
        return list((await add_pair(database, now=now)).people)

    async def test_anybody_signs_in_again_and_again(self, people: list[Person], open_browser: Open) -> None:
        browser = await open_browser()
        for person, home in ((people[0], "/supervisor"), (people[1], "/appointments"), (people[0], "/supervisor")):
            path = f"/demo/sign-in/{person.id}"
            assert (await browser.get(path)).status == 200
            assert browser.page.count("<form") == 1
            answer = await browser.client.post(path, allow_redirects=False)
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            assert (await browser.get("/")).headers["Location"] == home

    async def test_not_from_another_site_and_not_as_somebody_else(
        self, database: Database, now: datetime, people: list[Person], open_browser: Open
    ) -> None:
        browser = await open_browser()
        stranger = await add_person(database, "Dora", ["admin"], now=now)
        path = f"/demo/sign-in/{people[0].id}"
        assert (await browser.post(path, headers={"Origin": "https://evil.example"})).status == 403
        assert (await browser.post(f"/demo/sign-in/{stranger.id}")).status == 404
        assert (await browser.get("/demo/sign-in/x")).status == 404

    async def test_the_index_lists_the_people(self, people: list[Person], open_browser: Open) -> None:
        browser = await open_browser()
        await browser.get("/demo")
        assert re.findall(r'action="/demo/sign-in/([^"]+)"', browser.page) == [str(person.id) for person in people]

    async def test_every_mail_is_shown_and_none_can_do_anything(self, open_browser: Open) -> None:
        browser = await open_browser()
        await browser.get("/demo/mailbox")
        assert "Supervisão &lt;b&gt;" in browser.page
        [path] = re.findall(r'href="(/demo/mailbox/[^"]+)"', browser.page)
        await browser.get(path)
        assert "invite.ics" in browser.page
        link = "http://127.0.0.1:8080/sign-in/abc"
        assert f'Open <a href="{link}">{link}</a> &amp; &lt;script&gt;' in browser.page
        answer = await browser.get(f"{path}/html")
        assert answer.headers["Content-Security-Policy"].endswith("sandbox allow-top-navigation-by-user-activation")
        assert '<p style="color: red">Hello</p>' in browser.page
        for harm in ("<script", "onclick", "url(", "javascript:", "<img", "<style"):
            assert harm not in browser.page
        assert f'<a href="{link}" target="_top">in</a>' in browser.page

    @pytest.mark.parametrize("name", ["x", "..%2F..%2Fsecret", "%2Fetc%2Fpasswd", "..", "%00"])
    async def test_only_mails_are_shown(self, open_browser: Open, name: str) -> None:
        browser = await open_browser()
        for path in (f"/demo/mailbox/{name}", f"/demo/mailbox/{name}/html"):
            answer = await browser.get(path)
            assert answer.status in (303, 404)
            assert "secret" not in await answer.text()

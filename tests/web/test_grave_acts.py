"""What wants a sign-in of the last ten minutes, and that nothing else does: every route of the application is tried."""

import re
import uuid
from datetime import datetime

from aiohttp.test_utils import TestServer

from supervision.db import Database
from supervision.pairs import Pair
from tests.support.sample import add_pair, add_person
from tests.web.conftest import Browser, Clock, Open

GRAVE = {
    # one's own address, password, devices and identity
    "POST /account/address",
    "GET /account/password",
    "POST /account/password",
    "GET /account/phone",
    "POST /account/phone",
    "POST /identity/confirm",
    # what calls appointments off, lets something be deleted, leaves a room behind, or lets somebody in as an admin
    "POST /rooms/{id}/archive",
    *(f"POST /admin/pairs/{{id}}/{act}" for act in ("archive", "release", "remove-room", "new-room", "hand-over")),
    *(f"POST /api/pairs/{{id}}/{act}" for act in ("archive", "release", "remove-room", "new-room", "hand-over")),
    "POST /admin/people",
    "POST /admin/people/{id}/disable",
    "POST /api/people",
    "POST /api/people/{id}/disable",
    # the whole conversation
    "POST /rooms/{id}/export",
    "POST /rooms/{id}/export/agree",
    "GET /rooms/{id}/export/{export}/file",
    "POST /api/pairs/{id}/exports",
    "GET /api/pairs/{id}/exports/{export_id}/file",
}
ENDS = ("/sign-out", "/sign-in/anew")  # of the session: tried last


async def test_every_grave_act_and_no_other_wants_a_sign_in_of_now(
    server: TestServer, database: Database, now: datetime, open_browser: Open, clock: Clock
) -> None:
    ana = await add_person(database, "Ana", ["admin", "supervisor"], now=now)
    pair = await add_pair(database, now=now, supervisor=ana)
    browser = await open_browser(ana)
    clock.forward(minutes=11)
    await browser.get("/account")
    wanting, forms = set(), {"role_admin": "on", "form_token": browser.form_token}
    for method, path in routes(server):
        assert browser.form_token or path in ENDS
        if await wants_sign_in(browser, method, name(path, pair), pair, forms):
            wanting.add(f"{method} {path}")
        clock.forward(seconds=1)  # nobody asks for everything at once
    assert wanting == GRAVE


def routes(server: TestServer) -> list[tuple[str, str]]:
    """Method and template of every route, those last that end the session."""
    found = {
        (route.method, route.resource.canonical)
        for route in server.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    return sorted(found, key=lambda one: (one[1] in ENDS, one))


def name(path: str, pair: Pair) -> str:
    """The path with the IDs of what is there."""
    known = str(pair.supervisee.id if "/people/" in path else pair.id)
    return re.sub(r"\{\w+\}", str(uuid.uuid4()), path.replace("{id}", known))


async def wants_sign_in(browser: Browser, method: str, path: str, pair: Pair, form: dict[str, str]) -> bool:
    headers = {"Origin": browser.origin}
    if not path.startswith("/api/"):
        data = form if method == "POST" else None
        answer = await browser.client.request(method, path, headers=headers, data=data, allow_redirects=False)
        return answer.status == 303 and answer.headers["Location"] == "/sign-in/anew"
    body: dict[str, object] = {}
    if path.endswith("/hand-over"):
        body = {"supervisor_id": str(pair.supervisor.id)}
    elif path == "/api/people":
        body = {"name": "Eva", "email": "eva@example.org", "roles": ["admin"], "language": "en", "time_zone": "UTC"}
    answer = await browser.client.request(method, path, headers=headers, json=None if method == "GET" else body)
    return answer.status == 403 and (await answer.json())["code"] == "web.refused.sign_in_anew"

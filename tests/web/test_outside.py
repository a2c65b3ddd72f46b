"""A supervisor's other calendars, on her page and by the API: added, told of, removed; no address is shown again."""

import re
import uuid
from datetime import datetime, timedelta
from html import unescape

import pytest
from sqlalchemy import select

from supervision import outside
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.models import audit_entries
from supervision.outside import Due, Reading
from supervision.pairs import Pair
from supervision.texts import Reader
from tests.support.sample import acts, add_pair
from tests.web.calls import call, get, post, refused
from tests.web.conftest import SECRET, Clock, Open
from tests.web.test_plans import card
from web.outside import ago

ADDRESS = "https://calendar.example.org/private-c0ffee/basic.ics"
PATH = "/api/supervisor/calendars"
PAUSE, LEASE = timedelta(minutes=15), timedelta(minutes=2)


async def claim(database: Database, now: datetime) -> Due:
    async with database.transaction() as tx:
        [due] = await outside.claim_due(tx, now=now, most=5, lease=LEASE)
    return due


async def read(database: Database, now: datetime) -> None:
    due = await claim(database, now)
    async with database.transaction() as tx:
        assert await outside.settle_read(tx, due, Reading([], None, None, None, None), now=now, pause=PAUSE)


async def fail(database: Database, error: str, now: datetime) -> None:
    due = await claim(database, now)
    async with database.transaction() as tx:
        assert await outside.settle_failed(tx, due, error, now=now, pause=PAUSE)


async def test_a_calendar_is_added_on_the_page_told_of_and_removed(
    database: Database, clock: Clock, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours")
    assert 'href="/hours/calendars"' in ana.page
    await ana.get("/hours/calendars")
    assert card(ana.page, "this") == [
        "Outros calendários",
        "O que está marcado neles não é oferecido a ninguém. Guardamos só os horários: nenhum título, nome ou lugar é"
        " lido.",
        "Nenhum por enquanto.",
    ]
    await ana.post("/hours/calendars", {"address": ADDRESS, **ana.fields("/hours/calendars")})
    await ana.follow()
    assert "Calendário acrescentado. Ele está sendo lido." in ana.page
    assert "c0ffee" not in ana.page

    def state() -> str:
        found = re.search(r'<strong class="host">([^<]*)</strong><p class="small quiet">([^<]*)</p>', ana.page)
        assert found is not None
        assert found[1] == "calendar.example.org"
        return unescape(found[2])

    assert state() == "Ainda não foi lido. Isso leva um minuto."
    await fail(database, "forbidden", clock())
    await ana.get("/hours/calendars")
    why = "Não pôde ser lido: o servidor dele não permite; confira se é o endereço secreto."
    assert state() == f"{why} Por enquanto nada dele conta."
    clock.forward(hours=1)
    await read(database, clock())
    await ana.get("/hours/calendars")
    assert state() == "Lido agora há pouco."
    clock.forward(minutes=5)
    await ana.get("/hours/calendars")
    assert state() == "Lido há 5 minutos."
    clock.forward(hours=3)
    await fail(database, "unreachable", clock())
    await ana.get("/hours/calendars")
    assert state() == "Não pôde ser lido: o servidor dele não responde. Vale o que foi lido há 3 horas."
    [action] = re.findall(r'action="(/hours/calendars/[0-9a-f-]{36}/remove)"', ana.page)
    await ana.post(action, ana.fields(action))
    await ana.follow()
    assert "Calendário removido. Os horários dele estão livres de novo." in ana.page
    assert card(ana.page, "this")[-1] == "Nenhum por enquanto."


async def test_what_is_refused_stands_in_the_field(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    await ana.get("/hours/calendars")
    for typed, sentence in (
        ("calendar", "Isso não é o endereço de um calendário: ele começa com https:// ou webcal://."),
        ("http://example.org/c.ics", "Isso não é o endereço de um calendário: ele começa com https:// ou webcal://."),
        ("https://10.0.0.1/c.ics", "Esse endereço fica dentro da rede deste servidor e não é lido."),
    ):
        answer = await ana.post("/hours/calendars", {"address": typed, **ana.fields("/hours/calendars")})
        assert answer.status == 422
        assert f"{sentence} Nada foi alterado." in ana.page
        assert f'name="address" value="{typed}"' in ana.page


async def test_five_are_enough(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    for number in range(5):
        assert (await post(ana, PATH, {"address": f"{ADDRESS}?{number}"})).status == 201
    await refused(await post(ana, PATH, {"address": ADDRESS}), 422, "refused.calendars_too_many")
    await refused(await post(ana, PATH, {"address": f"{ADDRESS}?0"}), 409, "refused.calendar_exists")
    await ana.get("/hours/calendars")
    assert 'action="/hours/calendars"' not in ana.page


async def test_the_api_adds_lists_and_removes(
    database: Database, now: datetime, clock: Clock, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    assert await get(ana, PATH) == {"items": []}
    added = await post(ana, PATH, {"address": f" webcal://{ADDRESS.removeprefix('https://')}"}, Idempotency_Key="one")
    assert added.status == 201
    shown = await added.json()
    assert shown == {
        "id": shown["id"],
        "host": "calendar.example.org",
        "created_at": "2026-11-23T12:00:00Z",
        "fetched_at": None,
        "error": None,
    }
    again = await post(ana, PATH, {"address": f" webcal://{ADDRESS.removeprefix('https://')}"}, Idempotency_Key="one")
    assert await again.json() == shown
    clock.forward(minutes=1)
    await read(database, clock())
    assert await get(ana, PATH) == {"items": [shown | {"fetched_at": "2026-11-23T12:01:00Z"}]}
    gone = await call(ana, "DELETE", f"{PATH}/{shown['id']}")
    assert (gone.status, await gone.read()) == (204, b"")
    await refused(await call(ana, "DELETE", f"{PATH}/{shown['id']}"), 404, "refused.calendar_not_found")
    assert await get(ana, PATH) == {"items": []}


async def audited(database: Database) -> list[tuple[str, str, bool, str | None]]:
    columns = [audit_entries.c[name] for name in ("action", "resource", "success", "reason")]
    query = select(*columns).where(audit_entries.c.action.like("calendar.%")).order_by(audit_entries.c.id)
    async with database.transaction() as tx:
        return [tuple(row) for row in await tx.execute(query)]


async def test_what_was_done_is_audited_without_the_address(
    database: Database, now: datetime, open_browser: Open
) -> None:
    pair = await add_pair(database, now=now)
    ana = await open_browser(pair.supervisor)
    added = await (await post(ana, PATH, {"address": ADDRESS})).json()
    await post(ana, PATH, {"address": ADDRESS})
    await call(ana, "DELETE", f"{PATH}/{added['id']}")
    assert await audited(database) == [
        ("calendar.add", "calendar", True, None),
        ("calendar.add", "person", False, "refused.calendar_exists"),
        ("calendar.remove", "calendar", True, None),
    ]


async def add(database: Database, pair: Pair, now: datetime) -> uuid.UUID:
    async with database.transaction() as tx:
        return (await outside.add(tx, acts(pair.supervisor), pair.supervisor.id, ADDRESS, secret=SECRET, now=now)).id


async def test_nobody_else_sees_or_changes_them(database: Database, now: datetime, open_browser: Open) -> None:
    pair, other = await add_pair(database, now=now), await add_pair(database, now=now)
    added = await add(database, pair, now)
    bruno, clara = await open_browser(pair.supervisee), await open_browser(other.supervisor)
    assert (await bruno.get("/hours/calendars")).status == 403
    await refused(await call(bruno, "GET", PATH), 403, "refused.not_allowed")
    await refused(await post(bruno, PATH, {"address": ADDRESS}), 403, "refused.not_allowed")
    await refused(await call(bruno, "DELETE", f"{PATH}/{added}"), 403, "refused.not_allowed")
    assert await get(clara, PATH) == {"items": []}
    await refused(await call(clara, "DELETE", f"{PATH}/{added}"), 404, "refused.calendar_not_found")
    nobody = await open_browser()
    assert (await call(nobody, "GET", PATH)).status == 401
    async with database.transaction() as tx:
        assert [one.id for one in await outside.list_of(tx, SYSTEM, pair.supervisor.id)] == [added]


@pytest.mark.parametrize("body", [{}, {"address": 1}, {"address": "x" * 2001}, {"address": "a\u0000b"}, {"url": "x"}])
async def test_what_the_api_does_not_understand(
    database: Database, now: datetime, open_browser: Open, body: object
) -> None:
    ana = await open_browser((await add_pair(database, now=now)).supervisor)
    assert (await post(ana, PATH, body)).status == 422


@pytest.mark.parametrize(
    ("passed", "portuguese", "english"),
    [
        (timedelta(seconds=10), "1 minuto", "1 minute"),
        (timedelta(minutes=59, seconds=59), "59 minutos", "59 minutes"),
        (timedelta(minutes=119), "1 hora", "1 hour"),
        (timedelta(hours=47), "1 dia", "1 day"),
        (timedelta(days=9), "9 dias", "9 days"),
    ],
)
def test_how_long_ago(passed: timedelta, portuguese: str, english: str) -> None:
    assert ago(Reader("pt-BR", "UTC"), passed) == portuguese
    assert ago(Reader("en", "UTC"), passed) == english

"""Whether the other is there and what is unread: shown to the two of a pair, and to nobody else."""

import re
from datetime import datetime, timedelta

import pytest
from aiohttp.test_utils import TestClient, TestServer

from supervision import pairs, presences, unreads
from supervision.audit import SYSTEM
from supervision.db import Database
from supervision.pairs import Pair
from supervision.people import Person
from tests.support.sample import add_pair, add_person
from tests.web.conftest import Open
from web.metrics import Metrics, make_metrics_app

TALK = re.compile(r'<p class="small talk">(.*?)</p>')


@pytest.fixture
async def pair(database: Database, now: datetime) -> Pair:
    """Bruno has written three messages that Ana has not read."""
    pair = await add_pair(database, now=now)
    async with database.transaction() as tx:
        await unreads.note_message(tx, pair, pair.supervisee.id, "$one", wait=timedelta(), now=now, messages=3)
    return pair


async def note(database: Database, person: Person, online: bool, active_at: datetime | None, now: datetime) -> None:
    async with database.transaction() as tx:
        await presences.note(tx, person.id, online, active_at, now=now)


def talk_in(page: str) -> list[str]:
    return [re.sub(r"<[^>]+>", "", found) for found in TALK.findall(page)]


async def test_each_sees_the_other_and_what_is_unread(
    database: Database, now: datetime, pair: Pair, open_browser: Open
) -> None:
    ana, bruno = await open_browser(pair.supervisor), await open_browser(pair.supervisee)
    assert talk_in(await (await ana.get("/supervisor")).text()) == ["3 mensagens não lidas"]
    assert talk_in(await (await bruno.get("/appointments")).text()) == []

    await note(database, pair.supervisee, False, now - timedelta(minutes=20), now)
    await note(database, pair.supervisor, True, now, now)
    assert talk_in(await (await ana.get("/supervisor")).text()) == [
        "○ Última atividade há 20 minutos · 3 mensagens não lidas"
    ]
    assert talk_in(await (await bruno.get("/appointments")).text()) == ["● Online now"]
    [shown] = (await (await ana.get("/api/me")).json())["pairs"]
    seen = (now - timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:00Z")
    assert (shown["unread"], shown["presence"]) == (3, {"online": False, "last_seen": seen})


@pytest.mark.parametrize(
    ("online", "minutes", "expected"),
    [(True, 11, []), (True, 9, ["● Online now"]), (False, 170, ["○ Last active 3 hours ago"]), (False, 190, [])],
)
async def test_an_old_word_is_no_word(
    database: Database, now: datetime, pair: Pair, open_browser: Open, online: bool, minutes: int, expected: list[str]
) -> None:
    told = now - timedelta(minutes=minutes)
    await note(database, pair.supervisor, online, told, told)
    bruno = await open_browser(pair.supervisee)
    assert talk_in(await (await bruno.get("/appointments")).text()) == expected


async def test_a_homeserver_that_tells_nothing_shows_nothing(
    database: Database, now: datetime, pair: Pair, open_browser: Open
) -> None:
    await note(database, pair.supervisor, False, None, now)
    bruno = await open_browser(pair.supervisee)
    assert talk_in(await (await bruno.get("/appointments")).text()) == []
    assert await figures(database, now) == ("NaN", "3.0")


async def test_no_stranger_and_nobody_of_a_closed_pair_sees_it(
    database: Database, now: datetime, pair: Pair, open_browser: Open
) -> None:
    dora = await add_person(database, "Dora", ["supervisor", "admin"], now=now)
    other = await add_pair(database, now=now, supervisor=dora, supervisee=pair.supervisee)
    await note(database, pair.supervisor, True, now, now)
    browser = await open_browser(other.supervisor)
    for path in ("/supervisor", "/admin"):
        assert talk_in(await (await browser.get(path)).text()) == []
    [shown] = (await (await browser.get("/api/me")).json())["pairs"]
    assert (shown["unread"], shown["presence"]) == (0, None)

    async with database.transaction() as tx:
        await pairs.archive(tx, SYSTEM, pair.id, now=now)
    bruno = await open_browser(pair.supervisee)
    closed = (await (await bruno.get("/api/me")).json())["pairs"]
    assert [one["presence"] for one in closed] == [None, None]
    assert (await figures(database, now))[1] == "0.0"


async def test_the_figures_name_nobody(database: Database, now: datetime, pair: Pair) -> None:
    await note(database, pair.supervisor, True, now, now)
    await note(database, pair.supervisee, False, now, now)
    assert await figures(database, now) == ("1.0", "3.0")
    assert await figures(database, now + timedelta(minutes=11)) == ("0.0", "3.0")
    assert await figures(database, now + timedelta(hours=4)) == ("NaN", "3.0")


async def figures(database: Database, now: datetime) -> tuple[str, str]:
    async with TestClient(TestServer(make_metrics_app(database, Metrics(), clock=lambda: now))) as client:
        shown = await (await client.get("/metrics")).text()
    [online] = re.findall(r"^visavis_people_online (.*)$", shown, re.MULTILINE)
    [unread] = re.findall(r"^visavis_unread_messages (.*)$", shown, re.MULTILINE)
    return online, unread

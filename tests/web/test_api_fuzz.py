"""Bodies and queries that nearly make sense: never a failure of ours, always an answer that the description knows."""

import copy
import os
import random
import re
from datetime import datetime
from typing import Any

import pytest

from supervision import appointments
from supervision.db import Database
from tests.support.sample import acts, add_pair, add_person
from tests.web.calls import call, slot
from tests.web.conftest import Open
from web import openapi
from web.middleware import PEOPLE

REQUESTS = 6000 if os.environ.get("VISAVIS_LONG") == "1" else 400
JUNK: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 10**40, "", " ", "x", "\x00", "\ud800", "é" * 300, [], [[]], [None], {},
    {"a": 1}, "2026-11-24", "2026-11-24T13:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z",
    "2026-02-30T10:00:00Z", "2026-11-24T25:00:00Z", "1764000000", "00000000-0000-0000-0000-000000000000", "24:00",
    "FREQ=WEEKLY;COUNT=-1", "FREQ=WEEKLY;UNTIL=00000000", "RRULE:FREQ=SECONDLY", "one", "all", "following", "ask",
    "cancel", "no_show", "BR",
]  # fmt: skip

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def bodies(ids: dict[str, str], wanted: dict[str, str]) -> dict[str, Any]:
    """For each operation with a body one that makes sense."""
    day = {"from": "2026-12-21", "to": "2026-12-22"}
    return {
        "book": wanted,
        "reschedule": wanted | {"scope": "all", "on_clash": "skip"},
        "cancel": {"reason": "ill", "scope": "one"},
        "confirm": {"scope": "one"},
        "decline": {"scope": "following"},
        "accept": {"proposal": ids["any"], "scope": "one"},
        "refuse": {"proposal": ids["any"]},
        "withdraw": {"proposal": ids["any"]},
        "mark": {"status": "no_show"},
        "change_availability": {
            "hours": [{"weekday": 0, "starts": "09:00", "ends": "12:00"}],
            "length": 50,
            "place": "https://meet.example.org/{room}",
            "day_limit": 4,
            "valid_from": "2026-11-01",
            "country": "BR",
            "subdivision": "SP",
        },
        "add_exception": {
            "kind": "extra_hours",
            "first_on": "2026-12-05",
            "last_on": "2026-12-05",
            "starts": "09:00",
            "ends": "12:00",
            "yearly": True,
        },
        "go_away": day | {"then": "propose", "expected": [{"id": ids["any"], "revision": 0}]},
        "change_settings": {"lengths": [50, 90], "approval": "ask"},
        "change_room": {"attachments": True, "attachment_kinds": ["image", "pdf"], "retention_days": 90},
        "set_preferences": {
            "mail_reminders": [1440],
            "room_reminders": [60, 15],
            "quiet_from": "22:00",
            "quiet_until": None,
            "unwanted": ["mail:unread"],
        },
        "book_series": {"slot": wanted, "rule": "FREQ=WEEKLY;COUNT=3", "on_clash": "skip"},
        "join_waits": {
            "pair_id": ids["pair"],
            "ranges": [{"from": "2026-11-24T13:00:00Z", "to": "2026-11-24T14:00:00Z"}],
            "length": 50,
        },
        "add_calendar": {"address": "https://calendar.example.org/private/ana.ics"},
        "accept_offer": {"starts_at": "2026-11-24T13:00:00Z"},
        "pass_offer": {"starts_at": "2026-11-24T13:00:00Z"},
        "add_person": {
            "name": "Clara",
            "email": "clara@example.org",
            "language": "en",
            "time_zone": "Europe/Lisbon",
            "roles": ["supervisee"],
            "account": "clara",
            "matrix_id": None,
        },
        "invite_person": {"account": "clara"},
        "disable_person": {"deactivate": False},
        "add_pair": {"supervisor_id": ids["supervisor"], "supervisee_id": ids["any"]},
        "hand_over_pair": {"supervisor_id": ids["supervisor"]},
        "invite_into_room": {"person_id": ids["any"]},
        **{name: {} for name in ("archive_pair", "reopen_pair", "hold_pair", "release_pair", "remove_room")},
        **{name: {} for name in ("renew_room", "ask_export", "withdraw_export")},
    }


def spoil(value: Any, dice: random.Random) -> Any:
    """The same with something in it that does not belong there, or is not there any more."""
    spoiled = copy.deepcopy(value)
    place: Any = spoiled
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys or dice.random() < 0.1:
            return dice.choice(JUNK)
        key = dice.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and dice.random() < 0.7:
            place = place[key]
            continue
        match dice.randrange(4):
            case 0 if isinstance(place, dict):
                del place[key]
            case 1 if isinstance(place, dict):
                place[dice.choice(["x", "id", "é", ""])] = dice.choice(JUNK)
            case _:
                place[key] = dice.choice(JUNK)
        return spoiled


async def test_what_nearly_makes_sense(database: Database, now: datetime, open_browser: Open) -> None:
    pair = await add_pair(database, now=now)
    admin = await add_person(database, "Rita", ["admin"], now=now)
    browsers = [await open_browser(person) for person in (*pair.people, admin)]
    async with database.transaction() as tx:
        booked = await appointments.book(
            tx, acts(pair.supervisee), pair, datetime.fromisoformat("2026-11-25T13:00Z"), now=now
        )
    ids = {"supervisor": str(pair.supervisor.id), "pair": str(pair.id), "any": str(booked.id)}
    sensible = bodies(ids, slot(pair))
    operations = [
        (path, method, operation)
        for path, methods in openapi.description()["paths"].items()
        for method, operation in methods.items()
    ]
    assert {one["operationId"] for _, _, one in operations if "requestBody" in one} == set(sensible)
    dice = random.Random(20261122)
    for number in range(REQUESTS):
        for browser in browsers:
            browser.client.app[PEOPLE]._buckets.clear()  # noqa: SLF001 - a person may not be as fast as this test
        path, method, operation = dice.choice(operations)
        kind = "supervisor" if "supervisors" in path else "pair" if "pairs" in path else "any"
        url = re.sub(r"\{\w+\}", ids[kind], path)
        queries = [one["name"] for one in operation["parameters"] if one["in"] == "query"]
        words = [str(one) for one in JUNK if isinstance(one, str) and one.isprintable()] + list(ids.values())
        params = {name: dice.choice(words) for name in queries if dice.random() < 0.7}
        body = spoil(sensible[operation["operationId"]], dice) if "requestBody" in operation else None
        headers = {"Origin": browsers[0].origin, "If-Match": dice.choice(["*", '"0"', "x", '"'])}
        response = await dice.choice(browsers).client.request(
            method.upper(), url, json=body, params=params, headers=headers
        )
        assert response.status != 500, (number, method, url, params, body)
        assert str(response.status) in operation["responses"], (number, method, url, params, body, response.status)
    assert (await call(browsers[0], "GET", "/api/me")).status == 200

"""The API's description: every route, nothing else, and shapes that hold together."""

import json
import re
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from supervision.config import Config
from supervision.db import Database
from tests.support.sample import add_pair
from tests.web.conftest import Open
from web import openapi
from web.app import make_app

CONTRACT = {
    "/api/me": {"get"},
    "/api/me/preferences": {"get", "put"},
    "/api/supervisee/appointments": {"get"},
    "/api/supervisor/appointments": {"get"},
    "/api/supervisors/{id}/slots": {"get"},
    "/api/supervisors/{id}/availability": {"get", "patch"},
    "/api/supervisors/{id}/availability/exceptions": {"post"},
    "/api/supervisors/{id}/availability/exceptions/{exception_id}": {"delete"},
    "/api/supervisors/{id}/away": {"get", "post"},
    "/api/pairs/{id}/settings": {"get", "patch"},
    "/api/pairs/{id}/room": {"get", "patch"},
    "/api/pairs/{id}/attachments": {"get"},
    "/api/pairs/{id}/exports": {"get", "post"},
    "/api/pairs/{id}/exports/withdraw": {"post"},
    "/api/pairs/{id}/exports/{export_id}": {"get"},
    "/api/pairs/{id}/exports/{export_id}/file": {"get"},
    "/api/appointments": {"post"},
    "/api/appointments/{id}": {"get"},
    **{
        f"/api/appointments/{{id}}/{act}": {"post"}
        for act in ("confirm", "decline", "cancel", "reschedule", "accept", "refuse", "withdraw", "mark")
    },
    "/api/series": {"post"},
    "/api/series/{id}": {"get"},
    "/api/supervisor/calendars": {"get", "post"},
    "/api/supervisor/calendars/{id}": {"delete"},
    "/api/waits": {"get", "post"},
    "/api/waits/{id}": {"delete"},
    "/api/waits/{id}/accept": {"post"},
    "/api/waits/{id}/pass": {"post"},
    "/api/people": {"get", "post"},
    "/api/people/{id}": {"get"},
    "/api/people/{id}/invite": {"post"},
    "/api/people/{id}/disable": {"post"},
    "/api/pairs": {"get", "post"},
    "/api/pairs/{id}": {"get"},
    **{
        f"/api/pairs/{{id}}/{act}": {"post"}
        for act in ("archive", "reopen", "hold", "release", "remove-room", "new-room", "invite", "hand-over")
    },
}
UUID = "00000000-0000-4000-8000-000000000000"


async def test_it_names_every_route_and_no_other(database: Database, config: Config, open_browser: Open) -> None:
    stranger = await open_browser()
    document = await (await stranger.get("/api/openapi.json")).json()
    assert {path: set(methods) for path, methods in document["paths"].items()} == CONTRACT
    routed: dict[str, set[str]] = {}
    for route in make_app(database, config).router.routes():
        path = route.resource.canonical if route.resource else ""
        if path.startswith("/api/") and isinstance(route, web.AbstractRoute):
            routed.setdefault(path, set()).add(route.method.lower())
    assert routed.pop("/api/openapi.json") <= {"get", "head"}
    assert {path: methods - {"head"} for path, methods in routed.items()} == CONTRACT


def test_whatever_takes_a_tag_tells_where_it_comes_from() -> None:
    paths = openapi.description()["paths"]
    tagging = {
        f"{method} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if any(one["name"] in ("If-Match", "If-None-Match") for one in operation.get("parameters", ()))
        for status, answer in operation["responses"].items()
        if status in ("200", "201") and "ETag" not in answer.get("headers", {})
    }
    assert tagging == set()


def test_its_schemas_are_schemas_and_all_there() -> None:
    document = openapi.description()
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert referred == set(schemas)
    assert set(schemas["Slot"]["properties"]) == {"supervisor_id", "pair_id", "starts_at", "ends_at"}
    given = [schema for name, schema in schemas.items() if schema.get("additionalProperties") is False]
    assert {"Slot", "NewSeries", "NewWait", "Absence", "PairChanges"} <= {schema["title"] for schema in given}


def test_each_operation_is_described_in_full() -> None:
    operations = [
        (path, method, operation)
        for path, methods in openapi.description()["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for path, method, operation in operations:
        assert operation["summary"], path
        assert {"401", "429", "500"} <= set(operation["responses"]), path
        named = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)
        assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")
        headers = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
        assert ("Idempotency-Key" in headers) == (method != "get"), path
        assert ("requestBody" in operation) == (method in ("post", "patch", "put")), path
        assert ("412" in operation["responses"]) >= ("If-Match" in headers), path


async def test_every_operation_wants_a_session_before_all_else(open_browser: Open) -> None:
    stranger = await open_browser()
    for path, methods in openapi.description()["paths"].items():
        for method in methods:
            answer = await stranger.client.request(method.upper(), re.sub(r"\{\w+\}", "x", path), data=b"{")
            assert (answer.status, (await _json(answer))["code"]) == (401, "web.401")


async def test_every_change_wants_our_own_pages(database: Database, open_browser: Open, now: Any) -> None:
    bruno = await open_browser((await add_pair(database, now=now)).supervisee)
    for path, methods in openapi.description()["paths"].items():
        for method in set(methods) - {"get"}:
            foreign = {"Origin": "https://evil.example"}
            for headers in (foreign, {}):
                url = re.sub(r"\{\w+\}", UUID, path)
                answer = await bruno.client.request(method.upper(), url, json={}, headers=headers)
                assert (answer.status, (await _json(answer))["code"]) == (403, "web.refused.cross_site")


async def _json(answer: Any) -> Any:
    return await answer.json(content_type="application/problem+json")

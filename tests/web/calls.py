"""Calls to the API, each answer held against what the API's own description says of it."""

import re
from typing import Any

from aiohttp import ClientResponse
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from supervision.pairs import Pair
from tests.web.conftest import Browser
from web import openapi

FORMATS = Draft202012Validator.FORMAT_CHECKER


async def call(browser: Browser, method: str, path: str, body: Any = None, **headers: str) -> ClientResponse:
    """Send a request of the person's own; `_` in a header's name stands for `-`."""
    named = {"Origin": browser.origin} | {name.replace("_", "-"): value for name, value in headers.items()}
    response = await browser.client.request(method, path, json=body, headers=named)
    await check(method, path, response)
    return response


async def get(browser: Browser, path: str) -> Any:
    """The JSON that a path shows."""
    response = await call(browser, "GET", path)
    assert response.status == 200, await response.text()
    return await response.json()


async def post(browser: Browser, path: str, body: Any = None, **headers: str) -> ClientResponse:
    return await call(browser, "POST", path, {} if body is None else body, **headers)


async def refused(response: ClientResponse, status: int, code: str) -> dict[str, Any]:
    """The problem details of an answer that has to be exactly that refusal."""
    body: dict[str, Any] = await response.json(content_type=None)
    assert (response.status, body.get("code")) == (status, code), body
    assert body["detail"]
    return body


async def check(method: str, path: str, response: ClientResponse) -> None:
    """The description has that operation with that status, and its schema is what was answered."""
    document = openapi.description()
    operation = document["paths"][_template(path)][method.lower()]
    described = operation["responses"].get(str(response.status))
    assert described is not None, f"{method} {_template(path)} does not tell of {response.status}"
    content = described.get("content")
    if content is None:
        assert await response.read() == b""
        return
    [(media_type, shape)] = content.items()
    assert response.content_type == media_type
    schema = {**shape["schema"], "components": document["components"]}
    Draft202012Validator(schema, format_checker=FORMATS).validate(await response.json(content_type=media_type))
    for name in described.get("headers", {}):
        assert name in response.headers or name in ("Link", "ETag"), f"{name} is missing"


def _template(path: str) -> str:
    """The description's path that this one fits: the one with the fewest names."""
    fitting: list[str] = [
        template
        for template in openapi.description()["paths"]
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.split("?")[0])
    ]
    return min(fitting, key=lambda template: template.count("{"))


def slot(pair: Pair, starts_at: str = "2026-11-24T13:00:00Z", ends_at: str | None = None) -> dict[str, str]:
    """A slot object of 50 minutes that starts at a full hour, unless an end is given."""
    return {
        "supervisor_id": str(pair.supervisor.id),
        "pair_id": str(pair.id),
        "starts_at": starts_at,
        "ends_at": ends_at or starts_at.replace(":00:00Z", ":50:00Z"),
    }

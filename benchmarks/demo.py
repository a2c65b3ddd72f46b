"""A running `visavis demo` and what its people do besides talking: the web's slots, appointments, cancelling."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 120.0
END_SECONDS = 30.0


class DemoFailed(Exception):
    """The demo did not start, or answered other than agreed; the text is one sentence."""


@asynccontextmanager
async def running_demo(state: Path) -> AsyncIterator[Json]:
    """Start `visavis demo` on a state folder as a user does; gives what it wrote into `demo.json`."""
    before = written_at(state)
    with (state / "output.log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "visavis.py", "demo", "--state", str(state)), cwd=ROOT, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(READY_SECONDS):
            while written_at(state) == before:
                if process.returncode is not None:
                    raise DemoFailed(f"The demo ended; {state / 'output.log'} says why.")
                await asyncio.sleep(0.05)
        yield json.loads((state / "demo.json").read_text())
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), END_SECONDS)


def written_at(state: Path) -> int:
    """When `demo.json` was written (it is written anew at each start), or 0."""
    path = state / "demo.json"
    return path.stat().st_mtime_ns if path.exists() else 0


class Administration:
    """The demo's homeserver, seen by its administrator."""

    def __init__(self, http: aiohttp.ClientSession, demo: Json, state: Path) -> None:
        token = json.loads((state / "synapse" / "secrets.json").read_text())["admin_token"]
        self._http = http
        self._url = f"{demo['homeserver']}/_synapse/admin"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def make_account(self, user_id: str, password: str) -> None:
        """Make an account, or give it a new password."""
        await self._ask("PUT", f"/v2/users/{user_id}", {"password": password})

    async def lift_rate_limit(self, user_id: str) -> None:
        """Let an account send as fast as it can: a measurement is no place to wait for 429."""
        nothing = {"messages_per_second": 0, "burst_count": 0}
        await self._ask("POST", f"/v1/users/{user_id}/override_ratelimit", nothing)

    async def _ask(self, method: str, path: str, body: Json) -> None:
        async with self._http.request(method, self._url + path, json=body, headers=self._headers) as answer:
            if answer.status >= 400:
                raise DemoFailed(f"The homeserver answered {answer.status} to {method} {path}.")


class _Fields(HTMLParser):
    """The hidden fields of a page's forms."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("name"):
            self.values[str(given["name"])] = given.get("value") or ""


class Booker:
    """A supervisee's signed-in browser, without the browser."""

    def __init__(self, http: aiohttp.ClientSession, web: str, pair: Json) -> None:
        self._http = http
        self._web = web.rstrip("/")
        self._pair = pair
        parts = urlsplit(web)
        self._headers = {"Origin": f"{parts.scheme}://{parts.netloc}"}

    @classmethod
    @asynccontextmanager
    async def sign_in(cls, demo: Json, pair: Json) -> AsyncIterator[Booker]:
        """Sign in by the demo's own form."""
        person = next(p for p in demo["people"] if p["id"] == pair["supervisee_id"])
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            booker = cls(http, demo["web"], pair)
            fields = _Fields()
            async with http.get(person["sign_in"]) as page:
                fields.feed(await page.text())
            async with http.post(person["sign_in"], data=fields.values, headers=booker._headers) as answer:
                if answer.status >= 400:
                    raise DemoFailed(f"The demo answered {answer.status} to a sign-in.")
            yield booker

    async def free_slots(self) -> list[datetime]:
        """The beginnings of the pair's free slots in the coming two weeks."""
        found = await self._get(f"/api/supervisors/{self._pair['supervisor_id']}/slots", pair_id=self._pair["id"])
        return [datetime.fromisoformat(slot["starts_at"]) for slot in found["items"]]

    async def appointment_at(self, starts_at: datetime) -> str:
        """The ID of the open appointment that begins then. Raises DemoFailed where there is none."""
        found = await self._get("/api/supervisee/appointments")
        for item in found["items"]:
            open_now = item["status"] in ("requested", "confirmed")
            if open_now and datetime.fromisoformat(item["starts_at"]) == starts_at:
                return str(item["id"])
        raise DemoFailed(f"The booking of {starts_at.isoformat()} is not there.")

    async def cancel(self, appointment_id: str) -> None:
        """Cancel an appointment."""
        url = f"{self._web}/api/appointments/{appointment_id}/cancel"
        async with self._http.post(url, json={}, headers=self._headers) as answer:
            if answer.status >= 400:
                raise DemoFailed(f"The demo answered {answer.status} to a cancellation.")

    async def _get(self, path: str, **query: str) -> Json:
        async with self._http.get(self._web + path, params=query) as answer:
            if answer.status != 200:
                raise DemoFailed(f"The demo answered {answer.status} to {path}.")
            found: Json = await answer.json()
            return found

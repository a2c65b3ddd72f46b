"""What a person could ask of the homeserver themselves, asked for them: registering, and a password of their own.

No administrator's token is here. Passwords are passed on and kept nowhere (Matrix 1.18, Client-Server API).
"""

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from supervision.errors import AlreadyAnswered, NotUnderstood, Refused, TooMany

Json = dict[str, Any]
SECONDS = 20.0
DEVICE = "Visavis"  # what the device of the short sign-in is called while it lasts
WEAK = (
    "M_WEAK_PASSWORD",
    "M_PASSWORD_TOO_SHORT",
    "M_PASSWORD_NO_DIGIT",
    "M_PASSWORD_NO_UPPERCASE",
    "M_PASSWORD_NO_LOWERCASE",
    "M_PASSWORD_NO_SYMBOL",
    "M_PASSWORD_IN_DICTIONARY",
)
NOT_SIGNED_IN = ("M_FORBIDDEN", "M_USER_DEACTIVATED")


class HomeserverAway(Refused):
    """It cannot be reached, is too slow, or fails itself."""

    default_key = "web.refused.homeserver_away"


class NameTaken(AlreadyAnswered):
    """Somebody has an account of that name."""

    default_key = "web.refused.name_taken"


class TokenUsed(AlreadyAnswered):
    """The registration token is used, too old or unknown."""

    default_key = "web.refused.token_used"


class WrongPassword(NotUnderstood):
    """That is not the account's password: for whoever asked to judge, not to be shown."""


@dataclass(frozen=True)
class Answer:
    status: int
    content: Json

    @property
    def code(self) -> str:
        return str(self.content.get("errcode", ""))

    def refusal(self) -> Refused:
        """What it means that the homeserver did not do it."""
        if self.status == 429:
            return TooMany()
        if self.code in WEAK:
            return NotUnderstood("web.refused.weak_password")
        if self.code == "M_USER_IN_USE":
            return NameTaken()
        if self.code == "M_EXCLUSIVE" or self.code == "M_INVALID_USERNAME":
            return NotUnderstood("web.refused.name_not_allowed")
        return HomeserverAway()


async def register(url: str, localpart: str, password: str, token: str) -> str:
    """Make an account with a one-use registration token; gives its Matrix ID. It is signed in nowhere.

    Raises NameTaken, TokenUsed, NotUnderstood, TooMany, HomeserverAway. The token comes last of the stages, so that a
    connection lost between them does not use it up (Matrix 1.18, "User-Interactive Authentication API").
    """
    body: Json = {"username": localpart, "password": password, "inhibit_login": True}
    async with asking(url) as ask:
        begun = await ask("POST", "/register", body)
        session = begun.content.get("session")
        if begun.status != 401 or not isinstance(session, str):
            raise begun.refusal()
        stages = {stage for flow in begun.content.get("flows", []) for stage in flow.get("stages", [])}
        answer = begun
        if "m.login.dummy" in stages:
            answer = await ask("POST", "/register", body | {"auth": {"type": "m.login.dummy", "session": session}})
        if answer.status == 401:
            auth = {"type": "m.login.registration_token", "token": token, "session": session}
            answer = await ask("POST", "/register", body | {"auth": auth})
        if answer.status == 200:
            return str(answer.content["user_id"])
        if answer.status == 401:
            raise TokenUsed
        raise answer.refusal()


async def knows(url: str, matrix_id: str, password: str) -> bool:
    """Whether that is the account's password. Nobody stays signed in."""
    async with asking(url) as ask:
        try:
            token = await _log_in(ask, matrix_id, password)
        except WrongPassword:
            return False
        await ask("POST", "/logout", {}, token)
        return True


async def set_password(url: str, matrix_id: str, before: str, after: str, *, sign_out: bool) -> None:
    """Replace a password that is known; with `sign_out` every device is signed out.

    Raises WrongPassword, NotUnderstood, TooMany, HomeserverAway.
    """
    async with asking(url) as ask:
        token = await _log_in(ask, matrix_id, before)
        body: Json = {"new_password": after, "logout_devices": sign_out}
        begun = await ask("POST", "/account/password", body, token)
        if begun.status == 401 and "session" in begun.content:
            identifier = {"type": "m.id.user", "user": matrix_id}
            auth = {"type": "m.login.password", "identifier": identifier, "password": before}
            auth["session"] = begun.content["session"]
            begun = await ask("POST", "/account/password", body | {"auth": auth}, token)
        await ask("POST", "/logout", {}, token)
        if begun.status != 200:
            raise begun.refusal()


async def _log_in(ask: "Ask", matrix_id: str, password: str) -> str:
    answer = await ask(
        "POST",
        "/login",
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": matrix_id},
            "password": password,
            "initial_device_display_name": DEVICE,
        },
    )
    if answer.status == 200:
        return str(answer.content["access_token"])
    if answer.status == 403 and answer.code in NOT_SIGNED_IN:  # any other 403 is a firewall's or a proxy's
        raise WrongPassword
    raise answer.refusal()


class Ask:
    """One request to the homeserver at a time."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    async def __call__(self, method: str, path: str, body: Mapping[str, Any], token: str | None = None) -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = URL(f"{self.url}/_matrix/client/v3{quote(path)}", encoded=True)
        try:
            async with self.http.request(method, url, json=body, headers=headers, allow_redirects=False) as response:
                content = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise HomeserverAway from error
        if not isinstance(content, dict) or response.status >= 500:
            raise HomeserverAway
        return Answer(response.status, content)


@asynccontextmanager
async def asking(url: str) -> Any:
    """Connections to one homeserver for one errand."""
    timeout = aiohttp.ClientTimeout(total=SECONDS, sock_connect=5)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Ask(http, url)
        await asyncio.sleep(0)

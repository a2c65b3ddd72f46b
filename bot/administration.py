"""The homeserver's administrator: what Synapse's admin API alone can do. Provisioning and clearing away, never talk.

Errors are those of `bot.requests`. Everything bears being done again: what is gone already counts as removed.
"""

import asyncio
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bot.events import Json
from bot.requests import Homeserver, HomeserverRefused, NotAHomeserver, path
from supervision.errors import Permanent, Transient
from supervision.homeserver_tasks import ADMIN_TOKEN_REFUSED, NO_ADMIN_API

ROOT = "/_synapse/admin"
INCOMPREHENSIBLE = "homeserver_incomprehensible"
POLL_SECONDS = 0.25, 5.0  # the first and the longest pause between looks at something long
LONGEST_SECONDS = 600.0
OPERATOR_SECONDS = 300.0  # between two tries of what the operator has to put right


class Administrator:
    """An administrator of the Synapse at `homeserver`, by access token (Synapse, "Admin API")."""

    def __init__(self, homeserver: str, token: str) -> None:
        self._server = Homeserver(homeserver, ROOT)
        self._server.token = token

    async def close(self) -> None:
        await self._server.close()

    async def _ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        version: str,
    ) -> Json:
        """As `Homeserver.ask`; what the operator has to put right passes once they have.

        That is that our token is not an administrator's, and that something else answers than the admin API: whatever
        a proxy says is not there may be there.
        """
        try:
            return await self._server.ask(method, target, body, params=params, version=version)
        except NotAHomeserver as failure:
            raise Transient(NO_ADMIN_API, OPERATOR_SECONDS) from failure
        except HomeserverRefused as refused:
            if refused.status == 401 or (refused.status, refused.code) == (403, "M_FORBIDDEN"):
                raise Transient(ADMIN_TOKEN_REFUSED, OPERATOR_SECONDS) from refused
            if refused.passing is not None or (refused.status, refused.code) == (404, "M_UNRECOGNIZED"):
                raise Transient(NO_ADMIN_API, OPERATOR_SECONDS) from refused
            raise

    async def try_token(self, user_id: str) -> None:
        """Ask about one of the homeserver's own accounts what an administrator alone is told. Changes nothing."""
        await self._ask("GET", path("/users/{user}/admin", user=user_id), version="v1")

    async def open_registration(self, expires_at: datetime) -> str:
        """A new one-use registration token, valid until then."""
        token = secrets.token_urlsafe(32)
        body = {"token": token, "uses_allowed": 1, "expiry_time": _milliseconds(expires_at)}
        await self._ask("POST", "/registration_tokens/new", body, version="v1")
        return token

    async def close_registration(self, token: str) -> None:
        """Make a registration token worthless; one that is gone or used stays so."""
        await self._unless_gone("DELETE", path("/registration_tokens/{token}", token=token), version="v1")

    async def reset_password(self, user_id: str, password: str, *, sign_out: bool) -> None:
        """Replace somebody's password; with `sign_out` all of their devices are signed out, too."""
        body = {"new_password": password, "logout_devices": sign_out}
        await self._ask("POST", path("/reset_password/{user}", user=user_id), body, version="v1")

    async def sign_out(self, user_id: str) -> None:
        """Sign all of somebody's devices out."""
        known = await self._ask("GET", path("/users/{user}/devices", user=user_id), version="v2")
        devices = [str(device["device_id"]) for device in known.get("devices", [])]
        if devices:
            target = path("/users/{user}/delete_devices", user=user_id)
            await self._ask("POST", target, {"devices": devices}, version="v2")

    async def deactivate(self, user_id: str) -> None:
        """End an account for good. What it wrote stays: `erase` would hide it from those who come later alone."""
        await self._ask("POST", path("/deactivate/{user}", user=user_id), {"erase": False}, version="v1")

    async def delete_media(self, mxc: str) -> None:
        """Delete a file of this homeserver's by its `mxc://server/id` (Matrix 1.18, "Matrix Content URIs")."""
        await self._unless_gone("DELETE", _media_path(mxc), version="v1")

    async def uploader_of(self, mxc: str) -> str | None:
        """The Matrix ID of whoever uploaded a file of this homeserver's; None where it is gone, or another's.

        Empty where the homeserver does not know it any more.
        """
        found = await self._unless_gone("GET", _media_path(mxc), version="v1")
        if found is None:
            return None
        about = _object(found, "media_info")
        if "user_id" not in about:
            raise Transient(INCOMPREHENSIBLE)
        return str(about["user_id"] or "")

    async def purge_history(self, room_id: str, before: datetime) -> bool:
        """Remove a room's messages of before that time, ours too, and wait until it is done.

        State stays, and a room's last message (Synapse, "Purge History API"). Nothing to purge is success. Returns
        whether that was all: False where the room has several ends and some is behind what was to go, see `_bound`.
        """
        bound, is_all = await self._bound(room_id, before)
        target = path("/purge_history/{room}", room=room_id)
        begun = await self._unless_gone("POST", target, {"delete_local_events": True, **bound}, version="v1")
        if begun is not None:
            status = path("/purge_history_status/{purge}", purge=str(begun.get("purge_id")))
            await self._wait(status, version="v1")
        elif "purge_up_to_event_id" in bound:
            raise Transient(INCOMPREHENSIBLE)  # it named that event a moment ago
        return is_all

    async def _bound(self, room_id: str, before: datetime) -> tuple[Json, bool]:
        """Up to where a purge goes, and whether that is far enough: the first event from then on, and behind no end.

        Synapse purges what is less deep than an event. An end of the room that is state and was purged so stays one,
        without what Synapse has to know of it, and from then on the room answers 500 to whatever is sent; people who
        write at once, or servers that were apart, leave several ends until an event joins them.
        """
        first = await self._unless_gone(
            "GET",
            path("/rooms/{room}/timestamp_to_event", room=room_id),
            params={"ts": str(_milliseconds(before)), "dir": "f"},
            version="v1",
        )
        ends = sorted(await self.ends(room_id), key=lambda end: int(end["depth"]))
        split = len(ends) > 1
        behind = first is None or (split and ends[0]["depth"] < await self._depth(first["event_id"]))
        if ends and behind:
            return {"purge_up_to_event_id": ends[0]["event_id"]}, not split
        # By the time alone Synapse would keep the last message of before it.
        bound = {"purge_up_to_event_id": first["event_id"]} if first else {"purge_up_to_ts": _milliseconds(before)}
        return bound, True

    async def ends(self, room_id: str) -> list[Json]:
        """The events of a room that none follows yet, each with its `event_id` and `depth`."""
        target = path("/rooms/{room}/forward_extremities", room=room_id)
        found = await self._unless_gone("GET", target, version="v1")
        if found is not None and not isinstance(found.get("results"), list):
            raise Transient(INCOMPREHENSIBLE)
        return list(found["results"]) if found else []

    async def _depth(self, event_id: str) -> int:
        found = await self._ask("GET", path("/fetch_event/{event}", event=event_id), version="v1")
        return int(_object(found, "event").get("depth", 0))

    async def remove_room(self, room_id: str) -> None:
        """Put everybody out of a room, remove it with all events, and wait until it is done."""
        target = path("/rooms/{room}", room=room_id)
        begun = await self._unless_gone("DELETE", target, {"purge": True, "block": False}, version="v2")
        if begun is not None:
            status = path("/rooms/delete_status/{delete}", delete=str(begun.get("delete_id")))
            await self._wait(status, version="v2")

    async def _unless_gone(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        version: str,
    ) -> Json | None:
        """The answer, or None where there is no such thing."""
        try:
            return await self._ask(method, target, body, params=params, version=version)
        except HomeserverRefused as refused:
            if refused.status == 404:
                return None
            if refused.status == 400 and refused.code == "M_UNKNOWN":
                raise Transient("homeserver_busy") from refused  # the same is under way already
            raise

    async def _wait(self, target: str, *, version: str) -> None:
        """Look until it is complete. A status that is gone was complete long ago, or the homeserver was restarted."""
        pause, longest = POLL_SECONDS
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                while True:
                    found = await self._ask("GET", target, version=version)
                    if found.get("status") == "complete":
                        return
                    if found.get("status") == "failed":
                        raise Transient("homeserver_failed")
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, longest)
        except TimeoutError as error:
            raise Transient("homeserver_slow") from error
        except HomeserverRefused as refused:
            if refused.status == 404:
                raise Transient("homeserver_restarted") from refused
            raise


def _media_path(mxc: str) -> str:
    server, _, media = mxc.removeprefix("mxc://").partition("/")
    if not mxc.startswith("mxc://") or not server or not media or "/" in media:
        raise Permanent("no_media_address")
    return path("/media/{server}/{media}", server=server, media=media)


def _object(value: Json | None, name: str) -> Json:
    part = (value or {}).get(name)
    return part if isinstance(part, dict) else {}


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)

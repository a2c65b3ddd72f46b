"""The bot's own account: its folder of secrets, its one device, its cross-signed identity."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from bot.events import Json
from bot.requests import Homeserver, HomeserverRefused, path
from bot.signatures import PublishedKeys, Seeds, decode, encode, read_keys
from supervision.errors import Permanent

log = structlog.get_logger(__name__)

_DEVICE, _SEEDS, _PICKLE_KEY = "device.json", "seeds.json", "pickle.json"


@dataclass(frozen=True)
class Account:
    """A bot's Matrix account.

    `store` is a folder of this account alone, made with mode 0700 if it is missing. With `as_token` (where
    the homeserver is ours) the account is made at need and acts as an application service's user; with
    `password` it is an existing account of a foreign homeserver.
    """

    homeserver: str
    user_id: str
    store: Path
    display_name: str
    as_token: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def localpart(self) -> str:
        """The part of the user ID between `@` and `:`."""
        return self.user_id[1:].partition(":")[0]


class StoreInUse(Permanent):
    """Another process already runs this bot account."""

    def __init__(self) -> None:
        super().__init__("store_in_use")


class Folder:
    """A bot's secrets on disk: folder 0700, files 0600, each written whole or not at all."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder and hold it until `close`. Raises StoreInUse if another process holds it."""
        self.location.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.location.chmod(0o700)
        lock = os.open(self.location / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StoreInUse from None
        self._lock = lock

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def database(self) -> Path:
        """The file of the crypto store, made empty with mode 0600 if it is missing."""
        file = self.location / "crypto.db"
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        return file

    def read(self, name: str) -> Json | None:
        """What `write` kept under that name, or None."""
        try:
            value: Json = json.loads((self.location / name).read_bytes())
        except FileNotFoundError:
            return None
        return value

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep an object; when this returns it is on the disk."""
        fresh = self.location / f"{name}.new"
        fresh.unlink(missing_ok=True)
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(json.dumps(value).encode())
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(self.location / name)
        folder = os.open(self.location, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def pickle_key(self) -> str:
        """The crypto store's key: 256 random bits, made once."""
        kept = self.read(_PICKLE_KEY)
        if kept is None:
            kept = {"key": secrets.token_hex(32)}
            self.write(_PICKLE_KEY, kept)
        return str(kept["key"])

    def seeds(self) -> Seeds:
        """The identity's secret keys, made once and on the disk before anybody hears of them."""
        kept = self.read(_SEEDS)
        if kept is None:
            return self.keep_seeds(Seeds.generate())
        return Seeds(**{name: decode(seed) for name, seed in kept.items()})

    def keep_seeds(self, seeds: Seeds) -> Seeds:
        """Have these keys on the disk instead of the earlier ones."""
        self.write(_SEEDS, {name: encode(seed) for name, seed in asdict(seeds).items()})
        return seeds


class Login:
    """One bot account logged in to its homeserver with one device, kept across restarts.

    Nothing here repeats itself: every failure is raised as `Homeserver.ask` raises it.
    """

    def __init__(self, account: Account, homeserver: Homeserver, folder: Folder) -> None:
        self._account = account
        self._homeserver = homeserver
        self._folder = folder
        self.device_id = ""

    async def resume(self) -> None:
        """Go on with the kept device, or log in with a new one where there is none (any more)."""
        kept = self._folder.read(_DEVICE)
        if kept is None or kept["user_id"] != self._account.user_id:
            await self.renew()
        elif not await self._accept(str(kept["device_id"]), kept.get("access_token")):
            await self.renew()

    async def renew(self) -> None:
        """Log in with a new device ID; the old device is left to `forget_others`."""
        device_id = "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))
        if self._account.as_token is None:
            await self._enter_by_password(device_id)
        else:
            self._keep(device_id, None)
            await self._accept(device_id, None)

    async def _accept(self, device_id: str, token: str | None) -> bool:
        self.device_id = device_id
        if self._account.as_token is not None:
            await self._enter_as_service(device_id, self._account.as_token)
            return True
        if token is None:
            return False
        self._homeserver.token, self._homeserver.identity = token, {}
        try:
            await self._homeserver.ask("GET", "/account/whoami")
        except HomeserverRefused as refused:
            if refused.status != 401:
                raise
            if refused.answer.get("soft_logout") is not True:
                return False
            await self._enter_by_password(device_id)
        return True

    async def _enter_as_service(self, device_id: str, token: str) -> None:
        """Masquerade as the account's device ("Application service API", "Identity assertion")."""
        self._homeserver.token = token
        self._homeserver.identity = {"user_id": self._account.user_id}
        name = {"display_name": "Visavis"}
        try:
            await self._homeserver.ask("PUT", path("/devices/{id}", id=device_id), name)
        except HomeserverRefused:
            await self._register()
            await self._homeserver.ask("PUT", path("/devices/{id}", id=device_id), name)
        self._homeserver.identity = {"user_id": self._account.user_id, "device_id": device_id}

    async def _register(self) -> None:
        wanted = {
            "type": "m.login.application_service",
            "username": self._account.localpart,
            "inhibit_login": True,
        }
        identity, self._homeserver.identity = self._homeserver.identity, {}
        try:
            await self._homeserver.ask("POST", "/register", wanted)
        except HomeserverRefused as refused:
            if refused.code != "M_USER_IN_USE":
                raise
        finally:
            self._homeserver.identity = identity

    async def _enter_by_password(self, device_id: str) -> None:
        if self._account.password is None:
            raise Permanent("no_credentials")
        self._homeserver.token, self._homeserver.identity = None, {}
        answer = await self._homeserver.ask(
            "POST",
            "/login",
            self._password_proof() | {"device_id": device_id, "initial_device_display_name": "Visavis"},
        )
        self._keep(device_id, str(answer["access_token"]))
        self._homeserver.token = str(answer["access_token"])
        self.device_id = device_id

    def _keep(self, device_id: str, token: str | None) -> None:
        self._folder.write(_DEVICE, {"user_id": self._account.user_id, "device_id": device_id, "access_token": token})

    def _password_proof(self) -> Json:
        return {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self._account.user_id},
            "password": self._account.password,
        }

    async def _ask_proving(self, method: str, path: str, body: Json) -> Json:
        """Ask, and prove by the password where that is demanded ("User-interactive authentication")."""
        try:
            return await self._homeserver.ask(method, path, body)
        except HomeserverRefused as refused:
            session = refused.answer.get("session")
            if refused.status != 401 or session is None or self._account.password is None:
                raise
            proof = self._password_proof() | {"session": session}
        return await self._homeserver.ask(method, path, body | {"auth": proof})

    async def published_keys(self) -> tuple[Json | None, PublishedKeys]:
        """What the homeserver tells of us: our device's raw keys if it has any, and all of it judged."""
        user_id = self._account.user_id
        answer = await self._homeserver.ask("POST", "/keys/query", {"device_keys": {user_id: []}})
        raw = answer.get("device_keys", {}).get(user_id, {}).get(self.device_id)
        return raw, read_keys(answer, user_id)

    async def cross_sign(self, device_keys: Json) -> str:
        """Make the homeserver show our identity and our device signed by it; return the public master key.

        `device_keys` are the uploaded keys of this device. The homeserver's state decides what is done,
        never a flag of ours. Raises Permanent `not_cross_signed` if it does not keep what it was given.
        """
        seeds, user_id = self._folder.seeds(), self._account.user_id
        _, published = await self.published_keys()
        if not _is_ours(published, seeds):
            seeds = await self._publish_identity(seeds, published)
            _, published = await self.published_keys()
        ours = published.device(self.device_id)
        if ours is None or not ours.signed:
            signed = {user_id: {self.device_id: seeds.sign_device(device_keys)}}
            answer = await self._homeserver.ask("POST", "/keys/signatures/upload", signed)
            if answer.get("failures"):
                raise Permanent("not_cross_signed")
            _, published = await self.published_keys()
            ours = published.device(self.device_id)
        if ours is None or not ours.signed or not _is_ours(published, seeds):
            raise Permanent("not_cross_signed")
        return seeds.public_key("master")

    async def _publish_identity(self, seeds: Seeds, published: PublishedKeys) -> Seeds:
        """Upload the identity; a fresh one where another stands, as a homeserver takes no key a second time."""
        user_id = self._account.user_id
        if published.master_key is None:
            upload = seeds.upload(user_id)
        elif published.master_key == seeds.public_key("master"):
            seeds = self._folder.keep_seeds(seeds.renew_lower())
            upload = seeds.upload(user_id)
            del upload["master_key"]
        else:
            log.warning("bot.identity_replaced")
            seeds = self._folder.keep_seeds(Seeds.generate())
            upload = seeds.upload(user_id)
        await self._ask_proving("POST", "/keys/device_signing/upload", upload)
        return seeds

    async def forget_others(self) -> None:
        """Delete every other device of the account: people's clients would warn of them."""
        answer = await self._homeserver.ask("GET", "/devices")
        others = [device["device_id"] for device in answer["devices"] if device["device_id"] != self.device_id]
        if not others:
            return
        try:
            await self._ask_proving("POST", "/delete_devices", {"devices": others})
        except HomeserverRefused as refused:
            log.warning("bot.devices_left", count=len(others), code=refused.code)

    async def name_ourselves(self) -> None:
        """Set the account's display name if it is another."""
        place = path("/profile/{user}/displayname", user=self._account.user_id)
        try:
            shown = (await self._homeserver.ask("GET", place)).get("displayname")
        except HomeserverRefused:
            shown = None
        if shown != self._account.display_name:
            await self._homeserver.ask("PUT", place, {"displayname": self._account.display_name})


def _is_ours(published: PublishedKeys, seeds: Seeds) -> bool:
    return (published.master_key, published.self_signing_key, published.user_signing_key) == (
        seeds.public_key("master"),
        seeds.public_key("self_signing"),
        seeds.public_key("user_signing"),
    )

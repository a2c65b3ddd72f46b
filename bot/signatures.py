"""Matrix signatures and cross-signing as pure functions (Matrix 1.18, "Cross-signing" and "Signing JSON")."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bot.events import Json

Usage = Literal["master", "self_signing", "user_signing"]


def encode(data: bytes) -> str:
    """Base64 without padding, as all of Matrix has it; clients drop padded key IDs in silence."""
    return base64.b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """The bytes of unpadded (or padded) base64. Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def canonical(value: Mapping[str, Any]) -> bytes:
    """What is signed of an object: canonical JSON (appendices, 3.1) without `signatures` and `unsigned`."""
    signed = {name: part for name, part in value.items() if name not in ("signatures", "unsigned")}
    return json.dumps(signed, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


def is_signed(value: Mapping[str, Any], user_id: str, key_id: str, public_key: str) -> bool:
    """Whether the object bears a valid Ed25519 signature of the user's key `ed25519:{key_id}`."""
    try:
        signature = value["signatures"][user_id][f"ed25519:{key_id}"]
        Ed25519PublicKey.from_public_bytes(decode(public_key)).verify(decode(signature), canonical(value))
    except (KeyError, TypeError, ValueError, RecursionError, InvalidSignature):
        return False
    return True


@dataclass(frozen=True)
class Device:
    """One device of a user with its public keys in unpadded base64.

    `signed` tells whether the user's own self-signing key, itself signed by the master key, vouches for it.
    """

    user_id: str
    device_id: str
    ed25519: str
    curve25519: str
    signed: bool


@dataclass(frozen=True)
class PublishedKeys:
    """A user's keys as the homeserver tells them, every signature checked.

    `master_key` is None where there is none, or none that could be read. Devices that do not sign
    themselves, or claim another's name, are left out.
    """

    user_id: str
    master_key: str | None
    self_signing_key: str | None
    user_signing_key: str | None
    devices: tuple[Device, ...]

    def device(self, device_id: str) -> Device | None:
        """The device of that ID, if there is one."""
        return next((device for device in self.devices if device.device_id == device_id), None)


def read_keys(answer: Mapping[str, Any], user_id: str) -> PublishedKeys:
    """Judge one user's part of an answer of `POST /keys/query`; whatever is malformed is as good as absent."""
    master = _public_key(answer, "master", user_id)
    self_signing = _vouched(answer, "self_signing", user_id, master)
    devices = _part(answer, "device_keys", user_id)
    read = (_device(value, user_id, device_id, self_signing) for device_id, value in devices.items())
    return PublishedKeys(
        user_id=user_id,
        master_key=master,
        self_signing_key=self_signing,
        user_signing_key=_vouched(answer, "user_signing", user_id, master),
        devices=tuple(device for device in read if device is not None),
    )


def _part(answer: Mapping[str, Any], name: str, user_id: str) -> Json:
    users = answer.get(name)
    part = users.get(user_id) if isinstance(users, dict) else None
    return part if isinstance(part, dict) else {}


def _public_key(answer: Mapping[str, Any], usage: Usage, user_id: str) -> str | None:
    value = _part(answer, f"{usage}_keys", user_id)
    keys, usages = value.get("keys"), value.get("usage")
    if value.get("user_id") != user_id or not isinstance(usages, list) or usage not in usages:
        return None
    if not isinstance(keys, dict) or len(keys) != 1:
        return None
    (key_id, key), *_ = keys.items()
    return key if isinstance(key, str) and key_id == f"ed25519:{key}" else None


def _vouched(answer: Mapping[str, Any], usage: Usage, user_id: str, master: str | None) -> str | None:
    key = _public_key(answer, usage, user_id)
    if master is None or key is None:
        return None
    return key if is_signed(_part(answer, f"{usage}_keys", user_id), user_id, master, master) else None


def _device(value: object, user_id: str, device_id: str, self_signing: str | None) -> Device | None:
    if not isinstance(value, dict) or (value.get("user_id"), value.get("device_id")) != (user_id, device_id):
        return None
    keys = value.get("keys")
    if not isinstance(keys, dict):
        return None
    ed25519, curve25519 = keys.get(f"ed25519:{device_id}"), keys.get(f"curve25519:{device_id}")
    if not isinstance(ed25519, str) or not isinstance(curve25519, str):
        return None
    if not is_signed(value, user_id, device_id, ed25519):
        return None
    vouched = self_signing is not None and is_signed(value, user_id, self_signing, self_signing)
    return Device(user_id, device_id, ed25519, curve25519, vouched)


@dataclass(frozen=True)
class Seeds:
    """The bot's three secret cross-signing keys, 32 bytes each."""

    master: bytes
    self_signing: bytes
    user_signing: bytes

    @classmethod
    def generate(cls) -> Seeds:
        """Three fresh keys from the system's randomness."""
        fresh = (Ed25519PrivateKey.generate().private_bytes_raw() for _ in range(3))
        return cls(*fresh)

    def public_key(self, usage: Usage) -> str:
        """The public half in unpadded base64."""
        return _public(getattr(self, usage))

    def renew_lower(self) -> Seeds:
        """The same master key with two fresh lower keys."""
        return replace(Seeds.generate(), master=self.master)

    def upload(self, user_id: str) -> Json:
        """The body of `POST /keys/device_signing/upload`; the master signs the two lower keys."""
        body: Json = {}
        for usage in ("master", "self_signing", "user_signing"):
            public = _public(getattr(self, usage))
            key: Json = {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
            body[f"{usage}_key"] = key if usage == "master" else _sign(key, user_id, self.master)
        return body

    def sign_device(self, device_keys: Mapping[str, Any]) -> Json:
        """The device keys as `/keys/query` gives them, bearing the self-signing key's signature alone."""
        return _sign(device_keys, device_keys["user_id"], self.self_signing)


def _public(seed: bytes) -> str:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _sign(value: Mapping[str, Any], user_id: str, seed: bytes) -> Json:
    bare = {name: part for name, part in value.items() if name not in ("signatures", "unsigned")}
    signature = encode(Ed25519PrivateKey.from_private_bytes(seed).sign(canonical(bare)))
    return bare | {"signatures": {user_id: {f"ed25519:{_public(seed)}": signature}}}


def fingerprint(master_key: str) -> str:
    """A public master key in groups of four, as people compare it with what their client shows."""
    return " ".join(master_key[at : at + 4] for at in range(0, len(master_key), 4))

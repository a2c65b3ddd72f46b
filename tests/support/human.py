"""A person with a phone: an encrypted, cross-signed Matrix client for tests and benchmarks.

It does what Element does at a first login and nothing more: a fresh device, its keys, an identity that signs
the device (Matrix 1.18, client-server API, section "Cross-signing"), then a sync in the background. What it
can read it remembers, so that a test may send first and ask for the answer afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import nio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nio.client.async_client import AsyncClient, AsyncClientConfig

T = TypeVar("T")
Json = dict[str, Any]

_SYNC_FILTER: Json = {"room": {"timeline": {"limit": 500}}, "presence": {"types": []}}


class HomeserverRefused(Exception):
    """The homeserver answered a request with an error; `status` is the HTTP status, `answer` its JSON."""

    def __init__(self, status: int, answer: Json) -> None:
        super().__init__(f"{status} {answer}")
        self.status = status
        self.answer = answer


@dataclass(frozen=True)
class Message:
    """One readable event of a room's timeline, as its reader's client holds it.

    `content` is the decrypted content; `msgtype`, `body` and `formatted_body` are empty where it has none.
    `mentions` are the MXIDs of `m.mentions`; `thread_root`, `replaces` and `replies_to` the event IDs of its
    relations. `encrypted` tells whether the event came as ciphertext.
    """

    event_id: str
    room_id: str
    sender: str
    type: str
    content: Json
    encrypted: bool
    sent_at_ms: int
    position: int

    @property
    def msgtype(self) -> str:
        return str(self.content.get("msgtype", ""))

    @property
    def body(self) -> str:
        return str(self.content.get("body", ""))

    @property
    def formatted_body(self) -> str:
        return str(self.content.get("formatted_body", ""))

    @property
    def mentions(self) -> tuple[str, ...]:
        return tuple(self.content.get("m.mentions", {}).get("user_ids", ()))

    @property
    def thread_root(self) -> str | None:
        return self._related("m.thread")

    @property
    def replaces(self) -> str | None:
        return self._related("m.replace")

    @property
    def replies_to(self) -> str | None:
        replied: Json = self.content.get("m.relates_to", {}).get("m.in_reply_to", {})
        return replied.get("event_id")

    def _related(self, kind: str) -> str | None:
        relation: Json = self.content.get("m.relates_to", {})
        return relation.get("event_id") if relation.get("rel_type") == kind else None


@dataclass(frozen=True)
class Reaction:
    """An `m.reaction`: `sender` put `key` under the event `target`."""

    event_id: str
    room_id: str
    sender: str
    target: str
    key: str


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _canonical(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON (Matrix specification, appendices) without `signatures` and `unsigned`."""
    signed = {key: part for key, part in value.items() if key not in ("signatures", "unsigned")}
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Identity:
    """A person's three cross-signing keys; all devices of one person are signed by the same identity."""

    master: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    self_signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    user_signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def fingerprint(self) -> str:
        """The public master key in unpadded base64, as clients show it."""
        return _public(self.master)

    def device_signing_keys(self, user_id: str) -> Json:
        """The body of `POST /keys/device_signing/upload`; the two lower keys are signed by the master."""
        master = _described(self.master, "master", user_id)
        lower = {
            "self_signing_key": _described(self.self_signing, "self_signing", user_id),
            "user_signing_key": _described(self.user_signing, "user_signing", user_id),
        }
        return {"master_key": master} | {name: _signed(key, self.master, user_id) for name, key in lower.items()}

    def sign_device(self, device: Json) -> Json:
        """The device keys as `/keys/query` gives them, with the self-signing key's signature alone."""
        return _signed(device, self.self_signing, device["user_id"])


def _public(key: Ed25519PrivateKey) -> str:
    return _unpadded(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def _described(key: Ed25519PrivateKey, usage: str, user_id: str) -> Json:
    public = _public(key)
    return {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}


def _signed(value: Json, key: Ed25519PrivateKey, user_id: str) -> Json:
    bare = {name: part for name, part in value.items() if name not in ("signatures", "unsigned")}
    signature = _unpadded(key.sign(_canonical(bare)))
    return bare | {"signatures": {user_id: {f"ed25519:{_public(key)}": signature}}}


class Human:
    """A person's logged-in client. Made by `Human.log_in`, which also ends it.

    Waiting functions take a timeout in seconds and raise `TimeoutError` with what was heard instead. `mark()`
    gives the present end of what was heard; `since=` lets a wait look only behind such a mark.

    `redactions` maps a taken-back event to its redaction, `unreadable` holds the ciphertexts whose key has
    not come, `withheld` maps a session to the code with which its sender refused the key
    (`m.room_key.withheld`).
    """

    def __init__(self, client: AsyncClient, password: str, identity: Identity) -> None:
        self.client = client
        self.identity = identity
        self.messages: list[Message] = []
        self.reactions: list[Reaction] = []
        self.redactions: dict[str, str] = {}
        self.unreadable: dict[str, nio.MegolmEvent] = {}
        self.withheld: dict[str, str] = {}
        self._password = password
        self._taken: set[str] = set()
        self._seen: set[str] = set()
        self._news = asyncio.Event()
        self._syncing: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def log_in(
        cls,
        homeserver: str,
        user_id: str,
        password: str,
        *,
        store: Path,
        cross_signed: bool = True,
        identity: Identity | None = None,
    ) -> AsyncIterator[Self]:
        """Log in with a fresh device, upload its keys, sign it, and sync until the end of the block.

        `store` is an existing folder for this device's keys. Without `identity` a new one is made; where the
        account has one already, it is replaced by the password, as a person does who lost the old phone. With
        `cross_signed=False` no identity is uploaded and the device stays unsigned until `cross_sign()`.
        """
        config = AsyncClientConfig(
            store_name=f"{secrets.token_hex(6)}.db",
            pickle_key=secrets.token_hex(32),
            request_timeout=30,
            max_timeout_retry_wait_time=2,
        )
        client = AsyncClient(homeserver, user_id, store_path=str(store), config=config)
        human = cls(client, password, identity or Identity())
        try:
            await human._start(cross_signed, replace=identity is None)
            yield human
        finally:
            await human._stop()

    @property
    def user_id(self) -> str:
        return str(self.client.user_id)

    @property
    def device_id(self) -> str:
        return str(self.client.device_id)

    # Rooms

    async def create_room(self, *invited: str) -> str:
        """Make an encrypted private room, invite the others, and return its ID when the client knows it."""
        encryption = {"algorithm": "m.megolm.v1.aes-sha2"}
        answer = await self.request(
            "POST",
            "/createRoom",
            {
                "preset": "private_chat",
                "invite": list(invited),
                "initial_state": [{"type": "m.room.encryption", "state_key": "", "content": encryption}],
            },
        )
        room_id = str(answer["room_id"])
        await self.wait_for(lambda: True if self._knows(room_id) else None, "the new room")
        return room_id

    async def join(self, room_id: str, timeout: float = 60) -> None:
        """Wait for the invitation, accept it, and return when the client knows the room's encryption."""
        if room_id not in self.client.rooms:
            await self.wait_for(lambda: self.client.invited_rooms.get(room_id), "an invitation", timeout)
            await self.request("POST", f"/rooms/{room_id}/join", {})
        await self.wait_for(lambda: True if self._knows(room_id) else None, "the joined and encrypted room", timeout)

    async def invitation(self, timeout: float = 60) -> str:
        """Wait for any open invitation and return its room ID."""
        return await self.wait_for(lambda: next(iter(self.client.invited_rooms), None), "any invitation", timeout)

    async def wait_joined(self, room_id: str, user_id: str, timeout: float = 60) -> None:
        """Return when this client has seen another's joining."""

        def find() -> bool | None:
            member = self.client.rooms[room_id].users.get(user_id)
            return True if member is not None and not member.invited else None

        await self.wait_for(find, f"{user_id} to join", timeout)

    def _knows(self, room_id: str) -> bool:
        room = self.client.rooms.get(room_id)
        return room is not None and room.encrypted and self.user_id in room.users

    # Speaking: each function returns the new event's ID

    async def send_text(
        self,
        room_id: str,
        body: str,
        *,
        mentions: Collection[str] = (),
        thread: str | None = None,
    ) -> str:
        """Send an `m.text`, into the thread under event `thread` where one is given."""
        content: Json = {"msgtype": "m.text", "body": body, "m.mentions": {}}
        if mentions:
            content["m.mentions"] = {"user_ids": list(mentions)}
        if thread is not None:
            content["m.relates_to"] = {
                "rel_type": "m.thread",
                "event_id": thread,
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": thread},
            }
        return await self.send_raw(room_id, "m.room.message", content)

    async def edit(self, room_id: str, event_id: str, body: str) -> str:
        """Replace an own message's text (`m.replace`)."""
        content = {
            "msgtype": "m.text",
            "body": f"* {body}",
            "m.new_content": {"msgtype": "m.text", "body": body},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        }
        return await self.send_raw(room_id, "m.room.message", content)

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        """Put a reaction under an event; as Matrix has it, in clear."""
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self.send_raw(room_id, "m.reaction", {"m.relates_to": relation}, encrypted=False)

    async def redact(self, room_id: str, event_id: str) -> str:
        """Take an event back."""
        path = f"/rooms/{room_id}/redact/{event_id}/{secrets.token_hex(8)}"
        answer = await self.request("PUT", path, {})
        return str(answer["event_id"])

    async def send_file(self, room_id: str, name: str, data: bytes, media_type: str) -> str:
        """Encrypt and upload a file and send it as an `m.image` or `m.file` with the given name."""
        uploaded, keys = await self.client.upload(
            lambda *_: io.BytesIO(data),
            content_type="application/octet-stream",
            filename=None,
            encrypt=True,
            filesize=len(data),
        )
        if not isinstance(uploaded, nio.UploadResponse) or keys is None:
            raise HomeserverRefused(0, {"upload": str(uploaded)})
        content = {
            "msgtype": "m.image" if media_type.startswith("image/") else "m.file",
            "body": name,
            "filename": name,
            "info": {"mimetype": media_type, "size": len(data)},
            "file": keys | {"url": uploaded.content_uri},
        }
        return await self.send_raw(room_id, "m.room.message", content)

    async def send_raw(
        self,
        room_id: str,
        event_type: str,
        content: Json,
        *,
        encrypted: bool = True,
        txn_id: str | None = None,
    ) -> str:
        """Send any event; `encrypted=False` puts it into the encrypted room in clear, as a server could."""
        if not encrypted:
            txn_id = txn_id or secrets.token_hex(8)
            answer = await self.request("PUT", f"/rooms/{room_id}/send/{event_type}/{txn_id}", content)
            return str(answer["event_id"])
        sent = await self.client.room_send(room_id, event_type, content, tx_id=txn_id, ignore_unverified_devices=True)
        if not isinstance(sent, nio.RoomSendResponse):
            raise HomeserverRefused(0, {"room_send": str(sent)})
        return str(sent.event_id)

    # Listening

    def mark(self) -> int:
        """The present end of what was heard."""
        return len(self.messages)

    def heard(self, sender: str, *, room_id: str | None = None, since: int = 0) -> list[Message]:
        """Every readable `m.room.message` of a sender behind a mark, in the order it became readable."""
        return [
            message
            for message in self.messages[since:]
            if message.sender == sender and message.type == "m.room.message" and room_id in (None, message.room_id)
        ]

    async def next_message(
        self,
        sender: str,
        satisfying: Callable[[Message], bool] = lambda _: True,
        *,
        room_id: str | None = None,
        since: int = 0,
        timeout: float = 60,
    ) -> Message:
        """The sender's first message that satisfies the predicate and was not returned here before."""

        def find() -> Message | None:
            fresh = (m for m in self.heard(sender, room_id=room_id, since=since) if m.event_id not in self._taken)
            return next((m for m in fresh if satisfying(m)), None)

        found = await self.wait_for(find, f"a message of {sender}", timeout)
        self._taken.add(found.event_id)
        return found

    async def ask(
        self,
        room_id: str,
        body: str,
        sender: str,
        satisfying: Callable[[Message], bool] = lambda _: True,
        *,
        timeout: float = 60,
    ) -> Message:
        """Send a text and return the sender's next satisfying message in the room after it."""
        mark = self.mark()
        await self.send_text(room_id, body)
        return await self.next_message(sender, satisfying, room_id=room_id, since=mark, timeout=timeout)

    async def reactions_to(self, event_id: str, sender: str, *, at_least: int = 0, timeout: float = 60) -> list[str]:
        """The sender's reaction keys under an event in their order, once there are `at_least` so many."""

        def find() -> list[str] | None:
            keys = [r.key for r in self.reactions if r.target == event_id and r.sender == sender]
            return keys if len(keys) >= at_least else None

        return await self.wait_for(find, f"{at_least} reactions of {sender}", timeout)

    async def wait_for(self, find: Callable[[], T | None], what: str, timeout: float = 60) -> T:
        """Look with `find` at once and after each piece of news until it returns something else than None.

        Raises TimeoutError, saying what was heard last; whatever ended the background sync comes out here.
        """
        try:
            async with asyncio.timeout(timeout):
                while (found := find()) is None:
                    self._raise_if_deaf()
                    await self._news.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{self.user_id} waited {timeout:g} s for {what}; {self._last_heard()}") from None

    def _last_heard(self) -> str:
        last = [f"{message.sender}: {message.body[:80]!r}" for message in self.messages[-5:]]
        invitations = len(self.client.invited_rooms)
        return f"heard last {last}, unreadable {len(self.unreadable)}, invited to {invitations}"

    def _raise_if_deaf(self) -> None:
        if self._syncing is not None and self._syncing.done():
            self._syncing.result()
            raise RuntimeError("the background sync has ended")

    # Keys

    async def cross_sign(self, *, replace: bool = True) -> None:
        """Upload the identity (unless `replace` is false) and sign this device with it."""
        if replace:
            await self._upload_identity()
        queried = await self.request("POST", "/keys/query", {"device_keys": {self.user_id: []}})
        device = queried["device_keys"][self.user_id][self.device_id]
        signed = {self.user_id: {self.device_id: self.identity.sign_device(device)}}
        answer = await self.request("POST", "/keys/signatures/upload", signed)
        if answer.get("failures"):
            raise HomeserverRefused(200, answer)

    async def _upload_identity(self) -> None:
        keys = self.identity.device_signing_keys(self.user_id)
        try:
            await self.request("POST", "/keys/device_signing/upload", keys)
        except HomeserverRefused as refused:
            if refused.status != 401:
                raise
            auth = {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": self.user_id},
                "password": self._password,
                "session": refused.answer["session"],
            }
            await self.request("POST", "/keys/device_signing/upload", keys | {"auth": auth})

    async def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Ask the homeserver's client API (`path` below `/_matrix/client/v3`) as this person's device.

        Waits where the homeserver says 429; raises HomeserverRefused for every other error.
        """
        headers = {"Authorization": f"Bearer {self.client.access_token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        while True:
            response = await self.client.send(method, f"/_matrix/client/v3{path}", data, headers)
            async with response:
                answer: Json = await response.json()
            if response.status < 400:
                return answer
            if response.status != 429:
                raise HomeserverRefused(response.status, answer)
            await asyncio.sleep(answer.get("retry_after_ms", 1000) / 1000)

    # The client's life

    async def _start(self, cross_signed: bool, replace: bool) -> None:
        answer = await self.client.login(self._password, device_name="test phone")
        if not isinstance(answer, nio.LoginResponse):
            raise HomeserverRefused(0, {"login": str(answer)})
        await self.client.keys_upload()
        if cross_signed:
            await self.cross_sign(replace=replace)
        client: Any = self.client  # nio's annotations of callbacks are wrong
        client.add_event_callback(self._take, nio.Event)
        client.add_to_device_callback(self._read_late, (nio.RoomKeyEvent, nio.ForwardedRoomKeyEvent))
        client.add_to_device_callback(self._note_withheld, nio.UnknownToDeviceEvent)
        client.add_response_callback(self._breathe, nio.SyncError)
        client.add_response_callback(self._tell, nio.SyncResponse)
        first = asyncio.ensure_future(self.client.synced.wait())
        self._syncing = asyncio.create_task(self._sync(), name=f"sync of {self.user_id}")
        await asyncio.wait({first, self._syncing}, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        self._raise_if_deaf()

    async def _sync(self) -> None:
        try:
            while True:
                # nio tries again by itself where it cannot connect, but not where an answer breaks off.
                with suppress(aiohttp.ClientError):
                    await self.client.sync_forever(timeout=30_000, sync_filter=_SYNC_FILTER, full_state=True)
                await asyncio.sleep(0.5)
        finally:
            self._wake()

    async def _stop(self) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            with suppress(asyncio.CancelledError):
                await self._syncing
        client: Any = self.client
        await client.close()
        if client.store is not None:
            client.store.database.close()

    async def _breathe(self, _: nio.SyncError) -> None:
        # nio asks again at once after an error answer; there is no event to wait for.
        await asyncio.sleep(0.5)

    async def _tell(self, _: nio.SyncResponse) -> None:
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _take(self, room: nio.MatrixRoom, event: nio.Event) -> None:
        if isinstance(event, nio.MegolmEvent):
            self.unreadable[event.event_id] = event
        elif event.event_id not in self._seen:
            self._seen.add(event.event_id)
            self._file(room.room_id, event)

    def _file(self, room_id: str, event: nio.Event) -> None:
        source: Json = event.source
        content: Json = source.get("content", {})
        relation: Json = content.get("m.relates_to", {})
        if "state_key" in source:
            return
        if source["type"] == "m.reaction" and relation:
            self.reactions.append(
                Reaction(event.event_id, room_id, event.sender, relation["event_id"], relation["key"])
            )
        elif source["type"] == "m.room.redaction":
            self.redactions[source.get("redacts") or content["redacts"]] = event.event_id
        else:
            self.messages.append(
                Message(
                    event_id=event.event_id,
                    room_id=room_id,
                    sender=event.sender,
                    type=source["type"],
                    content=content,
                    encrypted=bool(event.decrypted),
                    sent_at_ms=event.server_timestamp,
                    position=len(self.messages),
                )
            )

    async def _note_withheld(self, event: nio.UnknownToDeviceEvent) -> None:
        content: Json = event.source["content"]
        if event.type == "m.room_key.withheld":
            self.withheld[content.get("session_id", "")] = content["code"]

    async def _read_late(self, key: nio.RoomKeyEvent | nio.ForwardedRoomKeyEvent) -> None:
        waiting = [event for event in self.unreadable.values() if event.session_id == key.session_id]
        for event in waiting:
            with suppress(nio.EncryptionError):
                readable = self.client.decrypt_event(event)
                del self.unreadable[event.event_id]
                if isinstance(readable, nio.Event) and event.event_id not in self._seen:
                    self._seen.add(event.event_id)
                    self._file(event.room_id, readable)

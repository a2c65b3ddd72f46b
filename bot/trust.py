"""Whose devices are believed, who may hold a room's keys, and the Olm machine that both stand on.

The machine is matrix-nio's, with what would stop or deceive a bot put right. Which key belongs to whom is read
from `/keys/query` itself and judged by `signatures`; nio's own device list and trust marks are not used.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
import vodozemac
from nio.crypto.device import OlmDevice
from nio.crypto.olm_machine import Olm
from nio.crypto.sessions import InboundGroupSession, OutboundGroupSession
from nio.events.to_device import DummyEvent, RoomKeyEvent
from nio.store.database import MatrixStore

from bot.events import Doubt, Json, NobodyToHear, Origin
from bot.logins import Folder
from bot.requests import Homeserver, path, patient_with_proxies
from bot.signatures import Device, PublishedKeys, decode, is_signed, read_keys
from bot.stores import SILENCE, UNUSED, Marks, Noted, patient
from supervision.errors import Transient

log = structlog.get_logger(__name__)
logging.getLogger("nio").setLevel(logging.CRITICAL + 1)  # it logs keys and people; what matters is logged here

OLM, MEGOLM = "m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"
_SIGNED_KEY = "signed_curve25519"
_ROTATION = timedelta(days=1)
_SESSIONS_A_DEVICE = 8
_MOST_UNUSED = 1_000  # Megolm sessions of one device of which nothing was read; an absence of years brings fewer
_DEVICES_A_REQUEST = 20
_USERS_A_QUERY = 100
_RETRY_SECONDS = 60.0
_UNWEDGE_SECONDS = 3600.0

MegolmSession = InboundGroupSession
Pin = Callable[[str, str], Awaitable[str | None]]
"""Given a user ID and the master key seen now: the pinned master key, this one if none was pinned before."""


@dataclass(frozen=True)
class Trust:
    """What is known of a user's devices, and the identity (public master key) pinned for that user."""

    keys: PublishedKeys
    pinned: str | None

    @property
    def changed(self) -> bool:
        """The user shows another identity than the pinned one."""
        return self.pinned is not None and self.keys.master_key != self.pinned

    @property
    def believed(self) -> tuple[Device, ...]:
        """The devices that the pinned identity signed; none while the identity is another."""
        if self.pinned is None or self.changed:
            return ()
        return tuple(device for device in self.keys.devices if device.signed)

    @property
    def refused(self) -> tuple[Device, ...]:
        """All other devices."""
        believed = self.believed
        return tuple(device for device in self.keys.devices if device not in believed)


class Directory:
    """The devices of everybody we share a room with, asked anew only when the homeserver says they changed.

    `changed` is called with a user's trust whenever something in it is new.
    """

    def __init__(self, homeserver: Homeserver, pin: Pin, changed: Callable[[str, Trust], None]) -> None:
        self._homeserver = homeserver
        self._pin = pin
        self._changed = changed
        self._trusts: dict[str, Trust] = {}
        self._stale: dict[str, object] = {}
        self._asked_at: dict[str, float] = {}
        self._unreachable_until: dict[str, float] = {}
        self._asking = asyncio.Lock()

    def trust(self, user_id: str) -> Trust | None:
        """What is known of the user now; None before the first answer."""
        return self._trusts.get(user_id)

    def follow(self, users: Iterable[str]) -> None:
        """From now on know these users' devices."""
        self.outdate(user for user in users if user not in self._trusts)

    def outdate(self, users: Iterable[str]) -> None:
        """What is known of these users is to be asked anew before it is used again."""
        for user in users:
            self._stale[user] = object()
            self._unreachable_until.pop(user, None)

    def forget(self, users: Iterable[str]) -> None:
        """We share no room with these users any more."""
        for user in users:
            for known in (self._trusts, self._stale, self._asked_at, self._unreachable_until):
                known.pop(user, None)

    def known(self) -> set[str]:
        """All users that are followed."""
        return {*self._trusts, *self._stale}

    def follows(self, user_id: str) -> bool:
        """Whether this user is followed."""
        return user_id in self._trusts or user_id in self._stale

    def is_fresh(self, users: Iterable[str]) -> bool:
        """Whether nothing needs to be asked about these users now."""
        return all(self._is_fresh(user) for user in users) if self._stale else True

    def _is_fresh(self, user: str) -> bool:
        return user not in self._stale or time.monotonic() < self._unreachable_until.get(user, 0.0)

    async def freshen(self, users: Collection[str]) -> None:
        """Ask about those of the users that are outdated. Raises as `Homeserver.ask` does."""
        while not self.is_fresh(users):
            async with self._asking:
                wanted = [user for user in users if not self._is_fresh(user)][:_USERS_A_QUERY]
                if wanted:
                    await self._ask(wanted)

    async def freshen_unknown(self, user: str) -> None:
        """Ask about a user of whom an unknown device spoke, unless that was asked within a minute."""
        if time.monotonic() - self._asked_at.get(user, float("-inf")) > _RETRY_SECONDS:
            self.outdate([user])
            await self.freshen([user])

    async def freshen_all(self) -> None:
        """Ask about everybody outdated. Raises as `Homeserver.ask` does."""
        await self.freshen(list(self._stale))

    async def _ask(self, users: Collection[str]) -> None:
        marks = {user: self._stale.get(user) for user in users}
        wanted = {"device_keys": {user: [] for user in users}, "timeout": 10_000}
        with patient_with_proxies():
            answer = await self._homeserver.ask("POST", "/keys/query", wanted)
        if not all(isinstance(answer.get(name, {}), dict) for name in ("device_keys", "master_keys", "failures")):
            raise Transient("homeserver_incomprehensible")  # nobody has lost his identity by that
        now = time.monotonic()
        failed = answer.get("failures", {})
        reached = [user for user in users if user.partition(":")[2] not in failed]
        await asyncio.gather(*(self._learn(read_keys(answer, user)) for user in reached))
        for user in users:
            if user not in reached:
                self._unreachable_until[user] = now + _RETRY_SECONDS
                continue
            self._asked_at[user] = now
            if self._stale.get(user) is marks[user]:
                self._stale.pop(user, None)

    async def _learn(self, keys: PublishedKeys) -> None:
        pinned = None if keys.master_key is None else await self._pinned(keys.user_id, keys.master_key)
        before = self._trusts.get(keys.user_id)
        if pinned is None and before is not None:
            pinned = before.pinned  # an identity that disappeared is a changed one
        trust = Trust(keys, pinned)
        self._trusts[keys.user_id] = trust
        if trust != before:
            self._changed(keys.user_id, trust)

    async def _pinned(self, user_id: str, master_key: str) -> str | None:
        try:
            return await self._pin(user_id, master_key)
        except Exception as error:
            raise Transient("pins_unreachable") from error  # nobody is judged without them, and nothing is lost

    def origin(self, sender: str, session: InboundGroupSession, index: int) -> Origin:
        """Judge whose message this is: by the keys its session came with, never by what the event claims."""
        trust = self._trusts.get(sender)
        device = _owner(trust, session)
        doubt = self._doubt(session, trust, device)
        return Origin(doubt, session.id, index, device.device_id if device is not None else None)

    def _doubt(self, session: InboundGroupSession, trust: Trust | None, device: Device | None) -> Doubt | None:
        if session.forwarding_chain:
            return Doubt.forwarded_session
        if trust is None or device is None:
            others = (_owner(other, session) for other in self._trusts.values())
            return Doubt.wrong_sender if any(others) else Doubt.unknown_device
        if device in trust.believed:
            return None
        return Doubt.changed_identity if trust.changed else Doubt.unsigned_device


def _owner(trust: Trust | None, session: InboundGroupSession) -> Device | None:
    devices = trust.keys.devices if trust is not None else ()
    keys = (session.sender_key, session.ed25519)
    return next((device for device in devices if (device.curve25519, device.ed25519) == keys), None)


class Machine(Olm):
    """One device's Olm account and sessions on disk.

    Nothing that another sends can raise out of `take` and `read`. The first device that gives a Megolm
    session keeps it: nobody else can claim it afterwards, nor replace it by one that reads less, nor give back
    what was forgotten of it.
    """

    def __init__(self, user_id: str, device_id: str, store: MatrixStore) -> None:
        self.wedged: set[tuple[str, str]] = set()
        self.greeted: set[str] = set()
        self.marks = Marks(store.database)
        self._known: dict[str, InboundGroupSession] = {}
        self._unused: defaultdict[str, dict[str, None]] = defaultdict(dict)  # by sender's key, the oldest first
        super().__init__(user_id, device_id, store)

    def load(self) -> None:
        super().load()
        self._known = {session.id: session for session in self.inbound_group_store}
        for session_id in self.marks.unused():
            session = self._known.get(session_id)
            if session is not None:  # it is none of an earlier device's of ours
                self._unused[session.sender_key][session_id] = None

    def close(self) -> None:
        """Close the store. A machine that was not closed loses nothing but a few messages that may come yet."""
        self.marks.settle()
        self.store.database.close()

    # What comes in

    def require_disk(self) -> None:
        """Raise Transient while the disk takes nothing: what `take` cannot write down then is not opened again."""
        with patient():
            self.save_account()

    def take(self, event: Json) -> str | None:
        """Decrypt a to-device `m.room.encrypted`; give the ID of the Megolm session it brought, if it did.

        Devices whose Olm session turns out broken are left in `wedged` as (user ID, Curve25519 key), those
        that started a new one in `greeted`, as Curve25519 keys.
        """
        content, sender = event.get("content"), event.get("sender")
        if not isinstance(content, dict) or not isinstance(sender, str) or content.get("algorithm") != OLM:
            return None
        sender_key, ciphertexts = content.get("sender_key"), content.get("ciphertext")
        if not isinstance(sender_key, str) or not isinstance(ciphertexts, dict):
            return None
        sealed = ciphertexts.get(self.account.identity_keys["curve25519"])
        if not isinstance(sealed, dict) or not isinstance(sealed.get("body"), str):
            return None
        try:
            return self._take(sender, sender_key, sealed)
        except Exception as error:
            log.warning("olm.message_refused", error=type(error).__name__)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what the Rust side raises where it gives up
                raise
            log.warning("olm.message_refused", error="PanicException")
        self.wedged.add((sender, sender_key))
        return None

    def _take(self, sender: str, sender_key: str, sealed: Json) -> str | None:
        message: Any
        if sealed.get("type") == 0:
            message = vodozemac.PreKeyMessage.from_base64(sealed["body"])
        elif sealed.get("type") == 1:
            message = vodozemac.AnyOlmMessage.normal(decode(sealed["body"]))
        else:
            return None
        before = len(self.session_store[sender_key])
        opened = self.decrypt(sender, sender_key, message)
        if len(self.session_store[sender_key]) > before:
            self.save_account()  # the one-time key that was used is gone from the disk, too
            self._trim(sender_key)
        if isinstance(opened, DummyEvent):
            self.greeted.add(sender_key)
        return opened.session_id if isinstance(opened, RoomKeyEvent) else None

    def _trim(self, sender_key: str) -> None:
        sessions = self.session_store[sender_key]
        for session in sessions[_SESSIONS_A_DEVICE:]:
            self.store.database.execute_sql("DELETE FROM olmsessions WHERE session_id = ?", (session.id,))
        del sessions[_SESSIONS_A_DEVICE:]

    def _mark_device_for_unwedging(self, sender: str, sender_key: str) -> None:
        self.wedged.add((sender, sender_key))

    def _handle_forwarded_room_key_event(self, *_: object) -> None:
        return None  # we ask for none, and believe none

    def create_group_session(
        self, sender_key: str, sender_fp_key: str, room_id: str, session_id: str, session_key: str
    ) -> None:
        session = InboundGroupSession(session_key, sender_fp_key, sender_key, room_id)
        if session.id != session_id:
            raise ValueError("another session's key")
        known = self._known.get(session.id)
        if known is not None:
            if (known.room_id, known.sender_key, known.ed25519) != (room_id, sender_key, sender_fp_key):
                log.warning("megolm.session_claimed_twice", room_id=room_id, session_id=session_id)
                return
            if known.first_known_index <= session.first_known_index or self.marks.is_forgotten(session.id):
                return
        with self.store.database.atomic():
            self.save_inbound_group_session(session)
            if known is None:
                self.marks.came(session.id)
        self._take_in(session)
        if known is None and sender_key != self.account.identity_keys["curve25519"]:
            self._bound_unused(session)

    def _bound_unused(self, session: InboundGroupSession) -> None:
        """A member may give any number of keys without ever writing anything: the oldest of them go."""
        unused = self._unused[session.sender_key]
        unused[session.id] = None
        if len(unused) > _MOST_UNUSED:
            self._delete(self._known[next(iter(unused))])

    def session(self, room_id: str, session_id: str) -> InboundGroupSession | None:
        """The Megolm session that a room's event names, whoever gave it."""
        session = self._known.get(session_id)
        return session if session is not None and session.room_id == room_id else None

    def read(self, session: InboundGroupSession, ciphertext: str) -> tuple[str, int] | None:
        """The plaintext and message index of a Megolm message; None if the session does not open it."""
        try:
            text, index = session.decrypt(ciphertext)
        except ValueError:
            return None
        return text, index

    # What is forgotten

    def note_index(self, session_id: str, room_id: str, index: int, sent_at: datetime) -> None:
        """Note when a message was sent (the homeserver's time, aware UTC): what a session opens depends on its index.

        To be called for every message that was read; it writes to the disk once an hour and session. Raises Transient.
        """
        session = self.session(room_id, session_id)
        if session is not None:
            with patient():
                self.marks.note(session_id, index, sent_at)
            self._unused[session.sender_key].pop(session_id, None)

    def forget_before(self, room_id: str, before: datetime) -> int:
        """Make unreadable for ever what was sent in the room before the hour of `before`; return of how many sessions.

        A session whose messages are all older is ratcheted beyond the last one seen, so that it still opens what may
        come, and deleted when it was silent for 30 days more. Another one is ratcheted to the first message that is
        kept. Both in memory and on the disk, where nothing of the earlier keys is left in the file. What stays is given
        by `readable_from`. Sessions that are older than these notes count from when they were found.

        Raises Transient while the disk takes nothing; then nothing is forgotten in memory either.
        """
        sessions = self._sessions(room_id)
        with self._forgetting(sessions):
            return sum([self._forget(session, before) for session in sessions])

    def forget_rooms(self, rooms: Collection[str]) -> int:
        """Delete every session of these rooms, in memory and on the disk; return how many.

        What is left of our own outbound ones stands in memory alone, and opens nothing that was written before.
        Raises Transient as `forget_before`.
        """
        sessions = [session for session in self._known.values() if session.room_id in rooms]
        with self._forgetting(sessions):
            for session in sessions:
                self._delete(session)
        return len(sessions)

    @contextmanager
    def _forgetting(self, sessions: Collection[InboundGroupSession]) -> Iterator[None]:
        """What is forgotten of these is so in memory and on the disk, or in neither."""
        noted = {session.id: replace(self.marks.of(session.id)) for session in sessions}
        try:
            with patient():
                with self.store.database.atomic():
                    yield
                self.marks.leave_no_trace()
        except BaseException:
            for session in sessions:
                self._take_in(session)
                self.marks.restore(session.id, noted[session.id])
            raise

    def _take_in(self, session: InboundGroupSession) -> None:
        self._known[session.id] = session
        self.inbound_group_store[session.room_id][session.sender_key][session.id] = session

    def rooms(self) -> set[str]:
        """The rooms of which there are sessions."""
        return {session.room_id for session in self._known.values()}

    def readable_from(self, room_id: str) -> dict[str, int]:
        """The room's sessions, and the first message index that each can open."""
        return {session.id: session.first_known_index for session in self._sessions(room_id)}

    def _sessions(self, room_id: str) -> list[InboundGroupSession]:
        return [session for by_sender in self.inbound_group_store[room_id].values() for session in by_sender.values()]

    def _forget(self, session: InboundGroupSession, before: datetime) -> bool:
        noted = self.marks.of(session.id)
        if noted.since >= before.timestamp():
            return False
        kept = noted.first_since(before)
        if kept is None and _is_over(noted, before):
            self._delete(session)
            return True
        kept = kept if kept is not None else noted.following or 0
        if kept <= session.first_known_index:
            return False
        self._ratchet(session, kept)
        self.marks.forget(session.id, before)
        return True

    def _delete(self, session: InboundGroupSession) -> None:
        del self._known[session.id]
        self._unused[session.sender_key].pop(session.id, None)
        del self.inbound_group_store[session.room_id][session.sender_key][session.id]
        self.marks.drop(session.id)

    def _ratchet(self, session: InboundGroupSession, index: int) -> None:
        key = session.export_session(index)
        later = InboundGroupSession.import_session(key, session.ed25519, session.sender_key, session.room_id)
        self._take_in(later)
        self.save_inbound_group_session(later)

    # What goes out

    def device_keys(self) -> Json:
        """This device's signed public keys ("Device keys")."""
        keys: Json = {
            "algorithms": [OLM, MEGOLM],
            "device_id": self.device_id,
            "user_id": self.user_id,
            "keys": {f"{kind}:{self.device_id}": key for kind, key in self.account.identity_keys.items()},
        }
        return keys | {"signatures": self._signatures(keys)}

    def _signatures(self, value: Json) -> Json:
        return {self.user_id: {f"ed25519:{self.device_id}": self.sign_json(value)}}

    def fresh_keys(self, count: int, fallback: bool) -> Json:
        """New one-time keys for a homeserver that has `count`, and a fallback key if one is needed.

        They are on the disk before anybody can use them; call `mark_keys_as_published` and `save_account`
        when they are uploaded. The body's fields are those of `POST /keys/upload`.
        """
        account: Any = self.account._account  # noqa: SLF001  # nio does not know fallback keys
        wanted = account.max_number_of_one_time_keys - count - len(account.one_time_keys)
        if wanted > 0:
            account.generate_one_time_keys(wanted)
        if fallback and not account.fallback_key:
            account.generate_fallback_key()
        self.save_account()
        body: Json = {"one_time_keys": self._signed_keys(account.one_time_keys, {})}
        if fallback:
            body["fallback_keys"] = self._signed_keys(account.fallback_key, {"fallback": True})
        return body

    def _signed_keys(self, keys: dict[str, Any], more: Json) -> Json:
        bare = {key_id: {"key": key.to_base64(), **more} for key_id, key in keys.items()}
        return {f"{_SIGNED_KEY}:{key_id}": key | {"signatures": self._signatures(key)} for key_id, key in bare.items()}

    def outbound(self, room_id: str) -> OutboundGroupSession | None:
        """The room's present outbound session, unless it is worn out."""
        session = self.outbound_group_sessions.get(room_id)
        return None if session is None or session.expired else session

    def open_outbound(self, room_id: str) -> OutboundGroupSession:
        """Begin a new outbound session; nobody holds its key yet. It lasts a day or 100 messages."""
        self.create_outbound_group_session(room_id)
        session = self.outbound_group_sessions[room_id]
        session.max_age = _ROTATION
        return session

    def encrypt(self, room_id: str, event_type: str, content: Json) -> Json:
        """The content of the `m.room.encrypted` that carries this event; relations stay outside."""
        sealed: Json = self.group_encrypt(room_id, {"content": content, "type": event_type})
        session = self.outbound_group_sessions[room_id]
        self.note_index(session.id, room_id, session.message_index - 1, datetime.now(UTC))
        if "m.relates_to" in content:
            sealed["m.relates_to"] = content["m.relates_to"]
        return sealed

    def can_whisper(self, device: Device) -> bool:
        """Whether there is an Olm session with the device."""
        return self.session_store.get(device.curve25519) is not None

    def meet(self, device: Device, answer: object) -> bool:
        """Start an Olm session with a one-time key claimed from the device; whether that succeeded."""
        if not isinstance(answer, dict):
            return False
        for key_id, key in answer.items():
            if not key_id.startswith(f"{_SIGNED_KEY}:") or not isinstance(key, dict):
                continue
            if is_signed(key, device.user_id, device.device_id, device.ed25519):
                try:
                    self.create_session(key["key"], device.curve25519)
                except (KeyError, TypeError, ValueError):
                    continue
                self._trim(device.curve25519)
                return True
        return False

    def whisper(self, device: Device, event_type: str, content: Json) -> Json:
        """The to-device content that only this device can open."""
        keys = {"ed25519": device.ed25519, "curve25519": device.curve25519}
        session = self.session_store.get(device.curve25519)
        recipient = OlmDevice(device.user_id, device.device_id, keys)
        sealed: Json = self._olm_encrypt(session, recipient, event_type, content)  # type: ignore[no-untyped-call]
        return sealed


def _is_over(noted: Noted, before: datetime) -> bool:
    """Whether a session that wrote nothing since then is not expected to go on: an old one, a long silent or unused."""
    if noted.following is None:
        return noted.since > 0
    if noted.following == 0:
        return noted.last_at() + UNUSED < before
    return noted.last_at() + SILENCE < before


def open_machine(folder: Folder, user_id: str, device_id: str) -> Machine:
    """Load the device's Olm machine from the folder's crypto store, or make it there."""
    database = folder.database()
    store = MatrixStore(user_id, device_id, str(database.parent), folder.pickle_key(), database.name)
    return Machine(user_id, device_id, store)


@dataclass
class _Shared:
    """Who holds the key of a room's outbound session, and who was told that it is withheld."""

    session_id: str
    holders: set[Device] = field(default_factory=set)
    refused: set[Device] = field(default_factory=set)
    retry_at: dict[Device, float] = field(default_factory=dict)


class RoomKeys:
    """Gives each room's key to exactly the believed devices of its members."""

    def __init__(self, homeserver: Homeserver, machine: Machine, directory: Directory) -> None:
        self._homeserver = homeserver
        self._machine = machine
        self._directory = directory
        self._shared: dict[str, _Shared] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._claiming: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by the name of a homeserver
        self._unwedged_at: dict[str, float] = {}
        self._unaware: set[Device] = set()  # with which a session was begun anew that they were not told of yet

    async def share(self, room_id: str, users: Collection[str]) -> None:
        """Make the room's outbound session ready for a message to these users.

        No request is made while nothing changed. A holder who may not read any more ends the session; a
        refused device is told `m.unverified` before the session's first message. Raises NobodyToHear if no
        device may read, and as `Homeserver.ask` does: then nothing counts as shared that did not arrive.
        """
        if self._is_ready(room_id, users):
            return
        async with self._locks[room_id]:
            if not self._is_ready(room_id, users):
                await self._directory.freshen(users)
                with patient():
                    await self._hand_out(room_id, users)

    def _devices(self, users: Collection[str]) -> tuple[set[Device], set[Device]]:
        trusts = [trust for user in users if (trust := self._directory.trust(user)) is not None]
        believed = {device for trust in trusts for device in trust.believed}
        return believed, {device for trust in trusts for device in trust.refused}

    def _is_ready(self, room_id: str, users: Collection[str]) -> bool:
        session, shared = self._machine.outbound(room_id), self._shared.get(room_id)
        if session is None or shared is None or shared.session_id != session.id or not session.shared:
            return False
        if not shared.holders or not self._directory.is_fresh(users):
            return False
        believed, refused = self._devices(users)
        missing = believed - shared.holders
        now = time.monotonic()
        return (
            shared.holders <= believed
            and refused <= shared.refused
            and all(shared.retry_at.get(device, 0.0) > now for device in missing)
        )

    async def _hand_out(self, room_id: str, users: Collection[str]) -> None:
        believed, refused = self._devices(users)
        if not believed:
            raise NobodyToHear
        session, shared = self._machine.outbound(room_id), self._shared.get(room_id)
        if session is None or shared is None or shared.session_id != session.id or shared.holders - believed:
            session = self._machine.open_outbound(room_id)
            shared = self._shared[room_id] = _Shared(session.id)
        await self._give(room_id, session, shared, believed - shared.holders)
        await self._withhold(room_id, shared, refused - shared.refused)
        if not shared.holders:
            raise NobodyToHear
        session.shared = True

    async def _give(self, room_id: str, session: OutboundGroupSession, shared: _Shared, devices: set[Device]) -> None:
        await self._meet(devices)
        reachable = [device for device in devices if self._machine.can_whisper(device)]
        retry_at = time.monotonic() + _RETRY_SECONDS
        shared.retry_at = {device: retry_at for device in devices if device not in reachable}
        if shared.retry_at:
            log.warning("megolm.devices_out_of_keys", room_id=room_id, count=len(shared.retry_at))
        key = {
            "algorithm": MEGOLM,
            "room_id": room_id,
            "session_id": session.id,
            "session_key": session.session_key,
        }
        for first in range(0, len(reachable), _DEVICES_A_REQUEST):
            chunk = reachable[first : first + _DEVICES_A_REQUEST]
            sealed = {device: self._machine.whisper(device, "m.room_key", key) for device in chunk}
            await self._send("m.room.encrypted", sealed)
            shared.holders.update(chunk)

    async def _withhold(self, room_id: str, shared: _Shared, devices: set[Device]) -> None:
        notice = {
            "algorithm": MEGOLM,
            "code": "m.unverified",
            "reason": "This device is not signed by the identity that its owner is known by.",
            "room_id": room_id,
            "sender_key": self._machine.account.identity_keys["curve25519"],
            "session_id": shared.session_id,
        }
        if devices:
            await self._send("m.room_key.withheld", dict.fromkeys(devices, notice))
            shared.refused.update(devices)

    async def _meet(self, devices: Collection[Device]) -> None:
        """Begin an Olm session with those of the devices with which there is none.

        One homeserver's devices at a time: of two claims at once of one device's keys Synapse may give one none. So a
        homeserver that is slow holds up those alone who talk with its people.
        """
        for server, theirs in _by_server(devices).items():
            async with self._claiming[server]:
                wanted = [device for device in theirs if not self._machine.can_whisper(device)]
                if wanted:
                    await self._claim(wanted)

    async def _claim(self, devices: Collection[Device]) -> None:
        wanted: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for device in devices:
            wanted[device.user_id][device.device_id] = _SIGNED_KEY
        with patient_with_proxies():
            answer = await self._homeserver.ask("POST", "/keys/claim", {"one_time_keys": wanted, "timeout": 10_000})
        for device in devices:
            keys: object = answer.get("one_time_keys")
            for name in (device.user_id, device.device_id):
                keys = keys.get(name) if isinstance(keys, dict) else None
            self._machine.meet(device, keys)

    async def _send(self, event_type: str, contents: dict[Device, Json]) -> None:
        messages: defaultdict[str, Json] = defaultdict(dict)
        for device, content in contents.items():
            messages[device.user_id][device.device_id] = content
        place = path("/sendToDevice/{type}/{id}", type=event_type, id=secrets.token_hex(16))
        with patient_with_proxies():
            await self._homeserver.ask("PUT", place, {"messages": messages})

    async def mend(self) -> None:
        """Start anew with devices whose Olm session broke, at most once an hour each ("Recovering from
        undecryptable messages"), and give the room keys again to those that started anew with us."""
        greeted, self._machine.greeted = self._machine.greeted, set()
        for shared in self._shared.values() if greeted else ():
            shared.holders = {holder for holder in shared.holders if holder.curve25519 not in greeted}
        wedged, self._machine.wedged = self._machine.wedged, set()
        now = time.monotonic()
        broken = {
            device
            for user, key in wedged
            for device in self._devices([user])[0]
            if device.curve25519 == key and now - self._unwedged_at.get(key, float("-inf")) > _UNWEDGE_SECONDS
        }
        if not broken and not self._unaware:
            return
        try:
            await self._begin_anew(broken)
        except Transient:
            self._machine.wedged |= wedged
            raise

    async def _begin_anew(self, broken: Collection[Device]) -> None:
        """Each claim is noted when it was answered: whatever fails then, no further one-time key is used up for it."""
        failed: Transient | None = None
        for server, theirs in _by_server(broken).items():
            try:
                async with self._claiming[server]:
                    await self._claim(theirs)
            except Transient as failure:
                failed = failure
                continue
            self._unwedged_at.update((device.curve25519, time.monotonic()) for device in theirs)
            self._unaware.update(device for device in theirs if self._machine.can_whisper(device))
        told = frozenset(self._unaware)
        if told:
            await self._send("m.room.encrypted", {one: self._machine.whisper(one, "m.dummy", {}) for one in told})
            self._unaware -= told
        if failed is not None:
            raise failed


def _by_server(devices: Iterable[Device]) -> Mapping[str, list[Device]]:
    """The devices by the homeserver of their owners."""
    of_server: defaultdict[str, list[Device]] = defaultdict(list)
    for device in devices:
        of_server[device.user_id.partition(":")[2]].append(device)
    return of_server

"""One bot account on its homeserver: it syncs, hands over judged events, and speaks encrypted only.

The sync loop is ours, not matrix-nio's: nothing that a homeserver or a stranger sends stops it, its token
is kept only when everything before it was handled, and waiting for news never waits for a handler.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from bot.events import (
    Doubt,
    Envelope,
    Incoming,
    Json,
    LoggedOut,
    NobodyToHear,
    Origin,
    StrangerInRoom,
    open_envelope,
    read_content,
)
from bot.judgements import Judge
from bot.lanes import Batch, Lanes, Progress, pauses
from bot.logins import Account, Folder, Login
from bot.receipts import Order, Receipt, Surroundings, read_receipts
from bot.requests import Homeserver, HomeserverRefused, path, patient_with_proxies
from bot.sightings import Sighting, read_presences
from bot.signatures import fingerprint
from bot.stores import patient
from bot.trust import Directory, Machine, Pin, RoomKeys, Trust, open_machine
from bot.whispers import Whispers
from supervision.errors import Permanent, Transient

__all__ = ["Account", "Client", "Doubt", "Incoming", "LoggedOut", "NobodyToHear", "StrangerInRoom", "Trust"]

log = structlog.get_logger(__name__)

_POLL_SECONDS = 30
_LONGEST_PAUSE = 30.0  # seconds between two tries of a homeserver that is away
_HEAD_START = 0.25  # seconds by which answers may go before the next poll, which costs the homeserver as much
_FEW_KEYS = 25
_GAP_PAGE = 200
_GAP_LIMIT = 5_000  # events of one room looked through after an absence, those that are shown no more included
_GAP_AGE = timedelta(hours=25)  # where nothing says how far back it goes; what is older commands nothing any more
_TOLD_STATE = frozenset({"m.room.member", "m.call.member", "org.matrix.msc3401.call.member", "m.rtc.member"})
_USER_ID = re.compile(r"@[^:]{0,254}:.{1,254}")
_STATE_TYPES = (
    "m.room.create",
    "m.room.encryption",
    "m.room.member",
    "m.room.power_levels",
    "m.room.tombstone",
)
_FILTER: Json = {
    "presence": {"types": []},
    "account_data": {"types": []},
    "room": {
        "account_data": {"types": []},
        "ephemeral": {"types": []},
        "state": {"types": _STATE_TYPES, "lazy_load_members": False},
        "timeline": {"limit": 50, "lazy_load_members": False},
    },
}

OnEvent = Callable[[Incoming], Awaitable[None]]
OnMembers = Callable[[str, Mapping[str, str]], Awaitable[None]]
OnTrustChanged = Callable[[str, Trust], Awaitable[None]]
OnInvitation = Callable[[str, str | None], Awaitable[None]]
OnReceipts = Callable[[str, Sequence[Receipt]], Awaitable[None]]
OnPresence = Callable[[Sequence[Sighting]], None]


@dataclass
class _Room:
    """What is known of a room that the bot is in: `members` are MXID -> membership, those who left included."""

    members: dict[str, str] = field(default_factory=dict)
    creator: str | None = None
    creation: Json = field(default_factory=dict)

    def read(self, event: object) -> None:
        """Take in a state event; whatever is no state event of interest is passed over."""
        if not isinstance(event, dict) or not isinstance(event.get("content"), dict):
            return
        state_key = event.get("state_key")
        if event.get("type") == "m.room.member" and isinstance(state_key, str):
            self.members[state_key] = str(event["content"].get("membership"))
        elif event.get("type") == "m.room.create" and state_key == "" and self.creator is None:
            sender = event.get("sender")
            self.creator = sender if isinstance(sender, str) else None
            self.creation = event["content"]

    def contradicts(self, event: object) -> bool:
        """Whether a state event gives somebody another membership than the one that is known."""
        if not isinstance(event, dict) or event.get("type") != "m.room.member":
            return False
        known = self.members.get(str(event.get("state_key")))
        return known is not None and known != _object(event, "content").get("membership")

    def present(self, *memberships: str) -> set[str]:
        """The members with one of these memberships."""
        return {user for user, membership in self.members.items() if membership in memberships}


@dataclass(frozen=True)
class _Ears:
    """Whom to tell of what."""

    on_event: OnEvent
    on_members: OnMembers
    on_trust_changed: OnTrustChanged
    on_invitation: OnInvitation
    on_receipts: OnReceipts | None
    on_state: OnEvent | None
    on_presence: OnPresence | None


class Client:
    """One bot account. `connect` once, then `run` as long as it lives, and `send` meanwhile.

    `pin` keeps people's identities: given a user ID and the public master key seen now, it returns the key
    that is pinned for that user, pinning this one if there was none; None for users it does not know, who
    then are not believed. `grace` is how many seconds an event waits for its key.

    Everything that talks to the homeserver raises supervision's Transient (with `retry_after` seconds where
    the homeserver named them) or Permanent (`HomeserverRefused`).
    """

    def __init__(self, account: Account, *, pin: Pin, grace: float = 10.0) -> None:
        self.account = account
        self.user_id = account.user_id
        self.homeserver = Homeserver(account.homeserver)
        self.directory = Directory(self.homeserver, pin, self._trust_changed)
        self.order = Order()
        self.master_key = ""
        self.is_away = False  # the homeserver, as far as the last poll tells
        self._folder = Folder(account.store)
        self._login = Login(account, self.homeserver, self._folder)
        self._judge = Judge(account.user_id, self.directory, self._machine_now, grace, self._key_missed)
        self._whispers = Whispers(self.directory, self._judge.key_came)
        self._rooms: dict[str, _Room] = {}
        self._synced = asyncio.Event()
        self._machine: Machine | None = None
        self._keys: RoomKeys | None = None
        self._lanes: Lanes | None = None
        self._ears: _Ears | None = None
        self._chores: set[str] = set()

    # Coming and going

    async def connect(self) -> None:
        """Log in with the kept device or a new one, publish its keys, cross-sign it, delete all others.

        Raises StoreInUse if another process runs this account. Nothing is tried twice: an error is the
        caller's to wait upon. May be called again after `close`, or after LoggedOut.
        """
        if self._machine is None:
            self._folder.open()
        try:
            await self._connect()
        except BaseException as error:
            await self.close()
            if isinstance(error, HomeserverRefused) and error.passing is not None and not error.is_logged_out:
                raise error.passing from error
            raise

    async def _connect(self) -> None:
        await self._login.resume()
        raw, published = await self._open_machine()
        machine = self._machine_now()
        if raw is not None and published != machine.account.identity_keys:
            await self._login.renew()  # that ID's keys are lost; nobody would accept others under it
            raw, _ = await self._open_machine()
            machine = self._machine_now()
        await self._publish(machine, with_device=raw is None)
        self.master_key = await self._login.cross_sign(machine.device_keys())
        await self._login.forget_others()
        await self._login.name_ourselves()
        self._keys = RoomKeys(self.homeserver, machine, self.directory)

    async def check_device(self) -> None:
        """Put right what the homeserver shows of our identity and our device, so that people's clients believe it.

        Raises Transient, or Permanent `not_cross_signed`.
        """
        self.master_key = await self._login.cross_sign(self._machine_now().device_keys())

    async def _open_machine(self) -> tuple[Json | None, object]:
        self._close_machine()
        self._machine = open_machine(self._folder, self.user_id, self._login.device_id)
        raw, _ = await self._login.published_keys()
        keys = (raw or {}).get("keys", {})
        device_id = self._login.device_id
        return raw, {kind: keys.get(f"{kind}:{device_id}") for kind in ("ed25519", "curve25519")}

    async def _publish(self, machine: Machine, with_device: bool) -> None:
        counts = await self.homeserver.ask("POST", "/keys/upload", {})
        count = _count(counts.get("one_time_key_counts"))
        await self._upload_keys(machine, count, fallback=with_device, with_device=with_device)

    async def _upload_keys(self, machine: Machine, count: int, *, fallback: bool, with_device: bool = False) -> None:
        with patient():
            body = machine.fresh_keys(count, fallback)
        if with_device:
            body["device_keys"] = machine.device_keys()
        try:
            await self.homeserver.ask("POST", "/keys/upload", body)
        except HomeserverRefused as refused:
            if refused.code != "M_TOO_LARGE":
                raise
            log.warning("keys.enough")  # the homeserver holds 500 whatever it said, and takes no more
            await self.homeserver.ask("POST", "/keys/upload", body | {"one_time_keys": {}})
        machine.account.shared = True
        machine.mark_keys_as_published()
        with patient():
            machine.save_account()

    async def close(self) -> None:
        """Let go of connections, crypto store and folder. `run` must have ended."""
        self._close_machine()
        self._folder.close()
        await self.homeserver.close()

    def _close_machine(self) -> None:
        if self._machine is not None:
            self._machine.close()
        self._machine = self._keys = None

    @property
    def device_id(self) -> str:
        """The bot's one device."""
        return self._login.device_id

    @property
    def fingerprint(self) -> str:
        """The bot's public master key in groups of four, for people to compare."""
        return fingerprint(self.master_key)

    def _machine_now(self) -> Machine:
        if self._machine is None:
            raise Transient("not_connected")
        return self._machine

    def _keys_now(self) -> RoomKeys:
        if self._keys is None:
            raise Transient("not_connected")
        return self._keys

    # What is known

    async def wait_until_synced(self, timeout: float = 30.0) -> None:
        """Wait for the first sync, after which all rooms are known. Raises Transient after `timeout` seconds."""
        if not self._synced.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._synced.wait()
            except TimeoutError:
                raise Transient("not_synced") from None

    def rooms(self) -> set[str]:
        """The rooms that the bot is in, as of the last sync."""
        return set(self._rooms)

    def members(self, room_id: str) -> Mapping[str, str]:
        """MXID -> membership of everybody that the room's state names, those who left included."""
        room = self._rooms.get(room_id)
        return dict(room.members) if room is not None else {}

    def creation_content(self, room_id: str) -> Mapping[str, object]:
        """The content of the room's `m.room.create`, if the bot itself made it."""
        room = self._rooms.get(room_id)
        return room.creation if room is not None and room.creator == self.user_id else {}

    def trust(self, user_id: str) -> Trust | None:
        """What is known of a fellow member's devices and identity."""
        return self.directory.trust(user_id)

    async def learn_trust(self, user_id: str) -> Trust | None:
        """As `trust`, but asks where nothing is known yet; then None where the user's own homeserver does not answer.

        Raises Transient while ours does not.
        """
        if self.directory.trust(user_id) is None:
            await self.directory.freshen([user_id])
        return self.directory.trust(user_id)

    def can_read(self, room_id: str, user_id: str) -> bool:
        """Whether the person has joined and has a device that may hold the room's keys."""
        trust = self.directory.trust(user_id)
        return self.members(room_id).get(user_id) == "join" and trust is not None and bool(trust.believed)

    def reconsider(self, user_id: str) -> None:
        """The caller's pin for this user is another now: judge the user's devices anew."""
        self.directory.outdate([user_id])
        self._soon("freshen", self.directory.freshen_all)

    async def read_room(self, room_id: str) -> None:
        """Learn a room's state now instead of by the next sync."""
        while True:
            known = self.members(room_id)
            states = await self.homeserver.ask("GET", path("/rooms/{room}/members", room=room_id))
            creation = await self.homeserver.ask("GET", path("/rooms/{room}/state/m.room.create", room=room_id))
            if self.members(room_id) == known:
                break  # else the answer may be older than what came by the sync meanwhile
        room = self._rooms.setdefault(room_id, _Room())
        for event in _array(states, "chunk"):
            room.read(event)
        room.creator, room.creation = self.user_id, creation
        self._follow()

    # Speaking

    async def send(
        self,
        room_id: str,
        event_type: str,
        content: Json,
        *,
        transaction_id: str,
        expected: Collection[str],
    ) -> str:
        """Send one event, encrypted, to the joined members' believed devices; return its event ID.

        The same `transaction_id` shows once, however often it is sent, within the homeserver's memory (a
        day with Synapse). `expected` are all MXIDs that may be joined or invited; the bot is always.
        Raises StrangerInRoom, NobodyToHear (both Transient: to be tried later), Transient, Permanent.
        """
        await self.wait_until_synced()
        room = self._rooms.get(room_id)
        if room is None:
            raise Permanent("not_in_room")
        self._refuse_strangers(room, expected)
        await self._keys_now().share(room_id, room.present("join") - {self.user_id})
        self._refuse_strangers(room, expected)
        sealed = self._machine_now().encrypt(room_id, event_type, content)
        return await self._put(room_id, "m.room.encrypted", sealed, transaction_id)

    def _refuse_strangers(self, room: _Room, expected: Collection[str]) -> None:
        strangers = room.present("join", "invite", "knock") - {*expected, self.user_id}
        if strangers:
            raise StrangerInRoom(frozenset(strangers))

    async def react(self, room_id: str, event_id: str, key: str, *, transaction_id: str) -> None:
        """Put a reaction under an event; that it is there already is success."""
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        try:
            await self._put(room_id, "m.reaction", {"m.relates_to": relation}, transaction_id)
        except HomeserverRefused as refused:
            if refused.code != "M_DUPLICATE_ANNOTATION":
                raise

    async def redact(self, room_id: str, event_id: str, *, transaction_id: str) -> str:
        """Take an event back; return the redaction's event ID."""
        place = path("/rooms/{room}/redact/{event}/{txn}", room=room_id, event=event_id, txn=transaction_id)
        return await self._speak(place, {})

    async def find_sent(self, room_id: str, transaction_id: str, *, since: datetime) -> str | None:
        """The event that this device sent with that transaction ID after `since` (homeserver's clock), if any.

        For when the homeserver may have forgotten the ID itself (Matrix 1.18, "Transaction identifiers"): events
        keep it for the device that sent them.
        """
        async for page in self._read_back(room_id, since - timedelta(minutes=1)):
            for event in page:
                if isinstance(event, dict) and _object(event, "unsigned").get("transaction_id") == transaction_id:
                    return str(event["event_id"])
        return None

    async def _read_back(self, room_id: str, oldest: datetime, **query: str) -> AsyncIterator[list[object]]:
        """A room's events, the newest first, a page at a time, until all on a page is older than that time.

        An empty page is no end: the homeserver may hide all that would be on it. Ends after _GAP_LIMIT events, too.
        """
        place, left = path("/rooms/{room}/messages", room=room_id), _GAP_LIMIT
        query |= {"dir": "b", "limit": str(_GAP_PAGE)}
        while left > 0:
            answer = await self.homeserver.ask("GET", place, params=query)
            page, following = _array(answer, "chunk"), answer.get("end")
            yield page
            is_old = bool(page) and max(map(_time, page)) < oldest.timestamp() * 1000
            if is_old or not isinstance(following, str) or following == query.get("from"):
                return
            query["from"] = following
            left -= _GAP_PAGE
        log.error("gap.too_long", room_id=room_id)

    async def look_around(self, room_id: str, event_id: str) -> Surroundings | None:
        """An event that came before we listened, and up to 25 that follow it; None if the homeserver has none such."""
        place = path("/rooms/{room}/context/{event}", room=room_id, event=event_id)
        try:
            with patient_with_proxies():
                answer = await self.homeserver.ask("GET", place, params={"limit": "50"})
        except HomeserverRefused:
            return None
        found = open_envelope(room_id, answer.get("event"))
        after = tuple(self._others_events(room_id, _array(answer, "events_after")))
        return None if found is None else Surroundings(found.sent_at, after)

    def reread(self, envelope: Envelope) -> Incoming:
        """An event of the past, ours too, as it can be read today; see `Judge.reread`. Raises Transient."""
        return self._judge.reread(envelope)

    def forget_before(self, room_id: str, before: datetime) -> dict[str, int]:
        """Make what was sent in a room before that time unreadable for ever.

        Returns what can still be read there: Megolm session -> first message index. Raises Transient unless connected,
        or while the disk takes nothing.
        """
        machine = self._machine_now()
        machine.forget_before(room_id, before)
        return machine.readable_from(room_id)

    def readable_rooms(self) -> set[str]:
        """The rooms in which something can be read, the bot being in them or not. Raises Transient unless connected."""
        return self._machine_now().rooms()

    def forget_rooms(self, rooms: Collection[str]) -> int:
        """Make everything in these rooms unreadable for ever; returns how many Megolm sessions are gone.

        Raises Transient unless connected, or while the disk takes nothing.
        """
        return self._machine_now().forget_rooms(rooms)

    async def renew_fallback_key(self) -> None:
        """Publish another fallback key, so that the one before the present one opens nothing any more."""
        machine = self._machine_now()
        counts = await self.homeserver.ask("POST", "/keys/upload", {})
        await self._upload_keys(machine, _count(counts.get("one_time_key_counts")), fallback=True)

    async def leave(self, room_id: str) -> None:
        """Leave a room, or refuse its invitation; that the bot is not in it is success."""
        try:
            await self.homeserver.ask("POST", path("/rooms/{room}/leave", room=room_id), {})
        except HomeserverRefused as refused:
            if refused.status not in (403, 404):
                raise

    async def _put(self, room_id: str, event_type: str, content: Json, transaction_id: str) -> str:
        place = path("/rooms/{room}/send/{type}/{txn}", room=room_id, type=event_type, txn=transaction_id)
        return await self._speak(place, content)

    async def _speak(self, place: str, content: Json) -> str:
        with patient_with_proxies():
            answer = await self.homeserver.ask("PUT", place, content)
        if not isinstance(answer.get("event_id"), str):
            raise Transient("homeserver_incomprehensible")
        return str(answer["event_id"])

    # Listening

    async def run(
        self,
        *,
        load_token: Callable[[], Awaitable[str | None]],
        save_token: Callable[[str], Awaitable[None]],
        on_event: OnEvent,
        on_members: OnMembers,
        on_trust_changed: OnTrustChanged,
        on_invitation: OnInvitation,
        on_receipts: OnReceipts | None = None,
        on_state: OnEvent | None = None,
        on_presence: OnPresence | None = None,
    ) -> None:
        """Sync until cancelled; raises LoggedOut if the homeserver ends the login, and nothing else.

        Each room's events come to `on_event` in order and one at a time, rooms side by side. What arrived
        before a crash may come again after it. A token is saved only when every event before it was
        handled: `on_event` returned, or raised something else than Transient or OSError three times (those
        two are waited for without end). `on_members(room_id, members)` is told each room at the start and
        at every change of membership; `on_trust_changed(user_id, trust)` every change of a fellow member's
        devices or identity; `on_invitation(room_id, inviter)` every invitation after it was refused, and
        every room of somebody else's making after it was left. `on_receipts(room_id, receipts)` is told how
        far others have read, after the events that came with it; without it they are not asked for. `on_state(event)`
        is told, among the room's events, what others write as membership and into calls (kind `state`).
        `on_presence(sightings)` is told whose presence changed, and must return at once; without it nothing is.
        """
        self._ears = _Ears(on_event, on_members, on_trust_changed, on_invitation, on_receipts, on_state, on_presence)
        token = await load_token()
        progress = Progress(save_token)
        try:
            async with asyncio.TaskGroup() as group:
                self._lanes = Lanes(group)
                saving = group.create_task(progress.keep_saving())
                try:
                    await self._sync(token, progress)
                finally:
                    saving.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            self._judge.stop_waiting()
            self._lanes = self._ears = None
            self._chores.clear()
            self._whispers.forget_queued()

    async def _sync(self, token: str | None, progress: Progress) -> None:
        filter_id, first, refusals, waiting = None, True, 0, pauses(_LONGEST_PAUSE)
        while True:
            await progress.wait_for_room()
            try:
                if filter_id is None:
                    filter_id = await self._upload_filter()
                answer = await self._poll(token, filter_id, first)
                following = _token(answer)
                if _whispered(answer):
                    self._machine_now().require_disk()
            except HomeserverRefused as refused:
                if refused.is_logged_out:
                    raise LoggedOut from refused
                log.warning("sync.refused", code=refused.code)
                self.is_away = refused.passing is not None
                if refused.passing is None:
                    filter_id, refusals = None, refusals + 1
                if refusals > 1 and token is not None:
                    log.error("sync.token_given_up")  # the homeserver does not know it any more
                    token, first = None, True
                await asyncio.sleep(next(waiting))
            except Transient as failure:
                log.warning("sync.failed", code=failure.code)
                self.is_away = True
                await asyncio.sleep(max(next(waiting), failure.retry_after or 0.0))
            except (KeyError, ValueError):
                log.warning("sync.malformed")
                await asyncio.sleep(next(waiting))
            else:
                self.is_away = False
                if token is None:  # nothing tells whose devices changed since a token that was given up
                    self.directory.outdate(self.directory.known())
                    self._soon("freshen", self.directory.freshen_all)
                batch = progress.begin(following)
                self._take(answer, token, batch)
                token, first, refusals, waiting = following, False, 0, pauses(_LONGEST_PAUSE)
                self._synced.set()
                await batch.wait_briefly(_HEAD_START)

    async def _upload_filter(self) -> str:
        place = path("/user/{user}/filter", user=self.user_id)
        wanted = _FILTER
        if self._ears_now().on_receipts is not None:
            wanted = {**_FILTER, "room": {**_FILTER["room"], "ephemeral": {"types": ["m.receipt"]}}}
        if self._ears_now().on_presence is not None:
            wanted = {**wanted, "presence": {"types": ["m.presence"], "not_senders": [self.user_id]}}
        return str((await self.homeserver.ask("POST", place, wanted))["filter_id"])

    async def _poll(self, token: str | None, filter_id: str, first: bool) -> Json:
        params = {"filter": filter_id, "timeout": "0" if first else str(_POLL_SECONDS * 1000)}
        if token is not None:
            params["since"] = token
        if first:
            params["full_state"] = "true"  # no room's state is kept across restarts
        timeout = 600.0 if first else _POLL_SECONDS + 30.0
        return await self.homeserver.ask("GET", "/sync", params=params, timeout=timeout)

    def _take(self, answer: Json, since: str | None, batch: Batch) -> None:
        """Take in one answer of `/sync`, whatever is in it; the next may be asked for when this returns."""
        lanes = self._lanes_now()
        rooms = _object(answer, "rooms")
        joined, left = _object(rooms, "join"), _object(rooms, "leave")
        moved = [self._read_state(room_id, part, batch) for room_id, part in joined.items()]
        moved += [self._read_leaving(room_id, part, batch) for room_id, part in left.items()]
        if any(moved):
            self._follow()
        for room_id, part in _object(rooms, "invite").items():
            if room_id not in self._rooms:
                inviter = _inviter(part, self.user_id)
                lanes.put(room_id, "invitation", partial(self._refuse, room_id, inviter), batch)
        self._read_devices(answer)
        self._read_to_device(_whispered(answer), batch)
        for room_id, part in joined.items():
            if room_id in self._rooms:
                self._read_timeline(room_id, _object(part, "timeline"), since, batch)
                self._read_receipts(room_id, _object(part, "ephemeral"), batch)
        self._read_presences(answer)
        self._read_counts(answer)
        self._mend()
        batch.leave()

    def _lanes_now(self) -> Lanes:
        if self._lanes is None:
            raise RuntimeError("not running")
        return self._lanes

    def _soon(self, name: str, chore: Callable[[], Awaitable[None]]) -> None:
        """Do a chore of ours beside everything else; one of each name at a time is queued."""
        if self._lanes is None or name in self._chores:
            return
        self._chores.add(name)

        async def act() -> None:
            self._chores.discard(name)
            await chore()

        self._lanes.put(f"chore {name}", name, act)

    def _read_state(self, room_id: str, part: object, batch: Batch) -> bool:
        room, new = self._rooms.get(room_id), room_id not in self._rooms
        room = room or _Room()
        before = dict(room.members)
        for event in _array(_object(part, "state"), "events"):
            if not new and room.contradicts(event):
                # Where two joined at once Synapse gives the older of two states after the newer one (MSC4222): ask.
                self._soon(f"members {room_id}", partial(self._read_members, room_id))
                if _object(part, "timeline").get("limited") is not True:
                    continue
            room.read(event)
        for event in _array(_object(part, "timeline"), "events"):
            room.read(event)
        if room.creator is None:
            self._soon(f"room {room_id}", partial(self._learn_room, room_id))
            return False
        if room.creator != self.user_id:
            log.warning("room.not_ours", room_id=room_id)
            refuse = partial(self._refuse, room_id, room.creator)
            self._lanes_now().put(room_id, "invitation", refuse, batch)
            return False
        self._rooms[room_id] = room
        if not new and room.members == before:
            return False
        self._tell_members(room_id, dict(room.members), batch)
        return True

    async def _learn_room(self, room_id: str) -> None:
        """A room of which the homeserver did not say who made it: it is left only if that was not us."""
        room = _Room()
        for event in await self.homeserver.ask_list("GET", path("/rooms/{room}/state", room=room_id)):
            room.read(event)
        if room.creator is None:
            raise Transient("homeserver_incomprehensible")
        if room.creator != self.user_id:
            log.warning("room.not_ours", room_id=room_id)
            await self._refuse(room_id, room.creator)
        elif room_id not in self._rooms:
            self._rooms[room_id] = room
            self._follow()
            ears = self._ears_now()
            self._lanes_now().put(room_id, "members", partial(ears.on_members, room_id, dict(room.members)))

    async def _read_members(self, room_id: str) -> None:
        """Ask the homeserver who is in a room of ours, and tell where that is not what was known."""
        known = dict(self._rooms[room_id].members) if room_id in self._rooms else None
        if known is None:
            return
        await self.read_room(room_id)
        members = dict(self._rooms[room_id].members)
        if members != known:
            ears = self._ears_now()
            self._lanes_now().put(room_id, "members", partial(ears.on_members, room_id, members))

    def _read_leaving(self, room_id: str, part: object, batch: Batch) -> bool:
        known = self._rooms.pop(room_id, None)
        room = known or _Room()
        for section in ("state", "timeline"):
            for event in _array(_object(part, section), "events"):
                room.read(event)
        if room.members.get(self.user_id) not in ("leave", "ban"):
            room.members[self.user_id] = "leave"
        self._tell_members(room_id, dict(room.members), batch)
        return known is not None

    def _tell_members(self, room_id: str, members: Mapping[str, str], batch: Batch) -> None:
        ears = self._ears_now()
        self._lanes_now().put(room_id, "members", partial(ears.on_members, room_id, members), batch)

    def _ears_now(self) -> _Ears:
        if self._ears is None:
            raise RuntimeError("not running")
        return self._ears

    async def _refuse(self, room_id: str, inviter: str | None) -> None:
        await self.leave(room_id)
        await self._ears_now().on_invitation(room_id, inviter)

    def _follow(self) -> None:
        """Know the devices of exactly those with whom we share a room."""
        fellows = {user for room in self._rooms.values() for user in room.present("join", "invite")}
        fellows = {user for user in fellows if _USER_ID.fullmatch(user)} - {self.user_id}
        self.directory.forget(self.directory.known() - fellows)
        self.directory.follow(fellows)
        self._soon("freshen", self.directory.freshen_all)

    def _read_devices(self, answer: Json) -> None:
        changed = {user for user in _array(_object(answer, "device_lists"), "changed") if isinstance(user, str)}
        fellows = changed & self.directory.known()
        if fellows:
            self.directory.outdate(fellows)
            self._soon("freshen", self.directory.freshen_all)

    def _trust_changed(self, user_id: str, trust: Trust) -> None:
        self._whispers.learn(user_id, trust)
        if self._lanes is not None and self._ears is not None:
            work = partial(self._ears.on_trust_changed, user_id, trust)
            self._lanes.put(_lane("trust", user_id), "trust", work)

    def _read_to_device(self, events: Iterable[object], batch: Batch) -> None:
        def later(sender: str, event: Json) -> None:
            self._lanes_now().put(
                _lane("whispers", sender), "whisper", partial(self._open_calmly, sender, event), batch
            )

        self._whispers.read(self._machine_now(), events, later)

    async def _open_calmly(self, sender: str, event: Json) -> None:
        """Open a message that had to wait, and leave as much time to everything else."""
        self._machine_now().require_disk()
        spent = self._whispers.open_queued(self._machine_now(), sender, event)
        self._mend()
        await asyncio.sleep(spent)

    def _key_missed(self, sender: str) -> None:
        """A room key was lost on its way, and is held for given: a new Olm session has the apps give it again."""
        trust = self.directory.trust(sender)
        if self._machine is not None and trust is not None:
            self._machine.wedged |= {(sender, device.curve25519) for device in trust.believed}
            self._mend()

    def _mend(self) -> None:
        if self._machine_now().wedged or self._machine_now().greeted:
            self._soon("mend", self._keys_now().mend)

    def _read_counts(self, answer: Json) -> None:
        counts = answer.get("device_one_time_keys_count")
        unused = answer.get("device_unused_fallback_key_types")
        fallback = isinstance(unused, list) and "signed_curve25519" not in unused
        count = _count(counts) if isinstance(counts, dict) else _FEW_KEYS
        if count < _FEW_KEYS or fallback:
            upload = partial(self._upload_keys, self._machine_now(), count, fallback=fallback)
            self._soon("upload_keys", upload)

    def _read_timeline(self, room_id: str, timeline: Json, since: str | None, batch: Batch) -> None:
        events = _array(timeline, "events")
        start = timeline.get("prev_batch")
        if timeline.get("limited") is True and isinstance(start, str):
            fill = partial(self._fill_gap, room_id, since, start, events, batch)
            self._lanes_now().put(room_id, "gap", fill, batch)
            return
        if events and self._ears_now().on_receipts is not None:
            self._lanes_now().put(room_id, "order", partial(self._note_order, events), batch)
        for envelope in self._others_events(room_id, events):
            self._lanes_now().put(room_id, "event", partial(self._hear, envelope, batch), batch)

    async def _note_order(self, events: Iterable[object]) -> None:
        """In the room's lane, so that what a gap held comes first; ours and state events too: they can be read."""
        ids = (event.get("event_id") for event in events if isinstance(event, dict))
        self.order.note(event_id for event_id in ids if isinstance(event_id, str))

    def _read_receipts(self, room_id: str, ephemeral: Json, batch: Batch) -> None:
        on_receipts = self._ears_now().on_receipts
        found = [one for one in read_receipts(_array(ephemeral, "events")) if one.user_id != self.user_id]
        if found and on_receipts is not None:
            self._lanes_now().put(room_id, "receipts", partial(on_receipts, room_id, found), batch)

    def _read_presences(self, answer: Json) -> None:
        on_presence = self._ears_now().on_presence
        found = read_presences(_array(_object(answer, "presence"), "events")) if on_presence is not None else []
        if found and on_presence is not None:
            on_presence(found)

    def _others_events(self, room_id: str, events: Iterable[object]) -> Iterator[Envelope]:
        for event in events:
            if isinstance(event, dict) and "state_key" in event and event.get("type") not in _TOLD_STATE:
                continue
            envelope = open_envelope(room_id, event)
            if envelope is None:
                log.warning("event.malformed", room_id=room_id)
            elif envelope.sender != self.user_id:
                if envelope.event_type == "m.room.redaction" and envelope.redacts is not None:
                    self._judge.note_taken_back(envelope.redacts, envelope.sender)
                yield envelope

    async def _fill_gap(self, room_id: str, since: str | None, start: str, events: list[object], batch: Batch) -> None:
        """Fetch what a `limited` timeline left out, and hand it over before the rest."""
        came = [*reversed(await self._fetch_back(room_id, start, since)), *events]
        await self._note_order(came)
        heard = self._others_events(room_id, came)
        works = [partial(self._hear, envelope, batch) for envelope in heard]
        self._lanes_now().put_first(room_id, "event", works, batch)

    async def _fetch_back(self, room_id: str, start: str, since: str | None) -> list[object]:
        """A room's events from `start` back to the token `since`, or a day without one; newest first."""
        query = {"from": start} | ({"to": since} if since is not None else {})
        oldest = datetime.fromtimestamp(0, UTC) if since is not None else datetime.now(UTC) - _GAP_AGE
        missed: list[object] = []
        try:
            with patient_with_proxies():
                async for page in self._read_back(room_id, oldest, **query):
                    missed.extend(page)
        except HomeserverRefused as refused:
            log.warning("gap.refused", room_id=room_id, code=refused.code)
        return missed

    async def _hear(self, envelope: Envelope, batch: Batch) -> None:
        ears = self._ears_now()
        if envelope.state_key is None:
            queue = partial(self._lanes_now().put, envelope.room_id, "event")
            await self._judge.hear(envelope, ears.on_event, queue, batch)
        elif ears.on_state is not None:
            await ears.on_state(read_content(envelope, envelope.event_type, envelope.content, Origin(None)))


def _whispered(answer: Json) -> list[object]:
    """What came to this device alone with an answer of `/sync`."""
    return _array(_object(answer, "to_device"), "events")


def _object(value: object, name: str) -> Json:
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def _array(value: Json, name: str) -> list[object]:
    part = value.get(name)
    return part if isinstance(part, list) else []


def _lane(name: str, user_id: str) -> str:
    """A lane of a user's own; lanes stand in the log, and no user does."""
    return f"{name} {hashlib.sha256(user_id.encode()).hexdigest()[:12]}"


def _time(event: object) -> float:
    """The homeserver's time of an event in milliseconds; of what is none, the very beginning."""
    sent_at_ms = event.get("origin_server_ts") if isinstance(event, dict) else None
    return sent_at_ms if isinstance(sent_at_ms, int) else 0.0


def _count(counts: object) -> int:
    """The number of one-time keys the homeserver has left; it leaves out what is none."""
    count = counts.get("signed_curve25519", 0) if isinstance(counts, dict) else 0
    return max(0, count) if isinstance(count, int) else 0


def _token(answer: Json) -> str:
    """Where the next poll goes on. Raises ValueError where the answer does not say."""
    token = answer.get("next_batch")
    if not isinstance(token, str) or not token:
        raise ValueError("no next_batch")
    return token


def _inviter(part: object, invited: str) -> str | None:
    for event in _array(_object(part, "invite_state"), "events"):
        if isinstance(event, dict) and event.get("type") == "m.room.member":
            if event.get("state_key") == invited and isinstance(event.get("sender"), str):
                return str(event["sender"])
    return None

"""What a room's event is, once it is decrypted: whose device wrote it, and what speaks against believing it."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from bot.events import Doubt, Envelope, Incoming, Origin, read_content, read_unreadable
from bot.lanes import Batch, Work
from bot.trust import MEGOLM, Directory, Machine, MegolmSession

_TAKEN_BACK = 10_000  # redacted events that are remembered, in case one of them comes later

Tell = Callable[[Incoming], Awaitable[None]]
Queue = Callable[[Work, Batch], None]
"""Puts work into the lane of the event's room."""


class _Waiting:
    """Events whose Megolm session has not come yet, each for a short grace."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._waiting: defaultdict[str, list[tuple[asyncio.TimerHandle, Callable[[], None]]]] = defaultdict(list)

    def put(self, session_id: str, again: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Call `again` when the session comes, or `give_up` when the grace is over, whichever is first."""

        def expire() -> None:
            self._waiting[session_id].remove(entry)
            if not self._waiting[session_id]:
                del self._waiting[session_id]
            give_up()

        entry = (asyncio.get_running_loop().call_later(self._grace, expire), again)
        self._waiting[session_id].append(entry)

    def came(self, session_id: str) -> None:
        """The session is there now."""
        for timer, again in self._waiting.pop(session_id, ()):
            timer.cancel()
            again()

    def clear(self) -> None:
        """Forget all of them."""
        for entries in self._waiting.values():
            for timer, _ in entries:
                timer.cancel()
        self._waiting.clear()


class Judge:
    """Judges what is written in the rooms of the account `user_id`.

    `machine` gives the Olm machine in use, or raises Transient. `grace` is how many seconds an event waits for its key;
    whose key never came is told to `missed`.
    """

    def __init__(
        self,
        user_id: str,
        directory: Directory,
        machine: Callable[[], Machine],
        grace: float,
        missed: Callable[[str], None],
    ) -> None:
        self._user_id = user_id
        self._directory = directory
        self._machine = machine
        self._missed = missed
        self._waiting = _Waiting(grace)
        self._taken_back: OrderedDict[str, str] = OrderedDict()  # event ID -> who took it back

    async def hear(self, envelope: Envelope, tell: Tell, queue: Queue, batch: Batch) -> None:
        """Have `tell` told of an event that is no state: at once, or when its key has come or is given up.

        Raises Transient where it cannot be judged now, and whatever `tell` raises.
        """
        if not envelope.encrypted:
            origin = Origin(Doubt.redacted if self._is_taken_back(envelope) else None)
            await tell(read_content(envelope, envelope.event_type, envelope.content, origin))
            return
        if envelope.redacted:
            await tell(read_unreadable(envelope, Doubt.redacted, Origin(Doubt.redacted)))
            return
        session = self._session_of(envelope)
        if session is not None:
            await self._read(envelope, session, tell)
            return
        session_id = envelope.content.get("session_id")
        if envelope.content.get("algorithm") != MEGOLM or not isinstance(session_id, str):
            await self._give_up(envelope, None, tell)
            return
        batch.enter()

        def again() -> None:
            queue(partial(self.hear, envelope, tell, queue, batch), batch)
            batch.leave()

        def give_up() -> None:
            self._missed(envelope.sender)
            queue(partial(self._give_up, envelope, session_id, tell), batch)
            batch.leave()

        self._waiting.put(session_id, again, give_up)

    def key_came(self, session_id: str) -> None:
        """The key of a Megolm session is there now: what waited for it is heard."""
        self._waiting.came(session_id)

    def stop_waiting(self) -> None:
        """What waits for its key will come again."""
        self._waiting.clear()

    def note_taken_back(self, event_id: str, sender: str) -> None:
        """Somebody redacted an event, which may be their own and may not be heard yet."""
        self._taken_back[event_id] = sender
        while len(self._taken_back) > _TAKEN_BACK:
            self._taken_back.popitem(last=False)

    def _is_taken_back(self, envelope: Envelope) -> bool:
        return envelope.redacted or self._taken_back.get(envelope.event_id) == envelope.sender

    def _session_of(self, envelope: Envelope) -> MegolmSession | None:
        session_id = envelope.content.get("session_id")
        if envelope.content.get("algorithm") != MEGOLM or not isinstance(session_id, str):
            return None
        return self._machine().session(envelope.room_id, session_id)

    async def _give_up(self, envelope: Envelope, session_id: str | None, tell: Tell) -> None:
        if self._is_taken_back(envelope):
            return
        origin = Origin(Doubt.undecryptable, session_id)
        await tell(read_unreadable(envelope, Doubt.undecryptable, origin))

    async def _read(self, envelope: Envelope, session: MegolmSession, tell: Tell) -> None:
        ciphertext = envelope.content.get("ciphertext")
        opened = self._machine().read(session, ciphertext) if isinstance(ciphertext, str) else None
        if opened is None:
            await self._give_up(envelope, session.id, tell)
            return
        self._machine().note_index(session.id, envelope.room_id, opened[1], envelope.sent_at)
        origin = await self._origin(envelope.sender, session, opened[1])
        if origin.doubt is None and self._is_taken_back(envelope):
            origin = replace(origin, doubt=Doubt.redacted)
        await tell(_read_plaintext(envelope, opened[0], origin))

    async def _origin(self, sender: str, session: MegolmSession, index: int) -> Origin:
        await self._directory.freshen([sender])
        origin = self._directory.origin(sender, session, index)
        if origin.doubt is Doubt.unknown_device and self._directory.follows(sender):
            await self._directory.freshen_unknown(sender)
            origin = self._directory.origin(sender, session, index)
        return origin

    def reread(self, envelope: Envelope) -> Incoming:
        """An event of the past, ours too, as it can be read today; nothing is asked for, nothing is waited for.

        Whose device it came from is judged by what is known now: a device that is gone is an unknown one.
        """
        if not envelope.encrypted:
            return read_content(envelope, envelope.event_type, envelope.content, Origin(None))
        machine, session, ciphertext = self._machine(), self._session_of(envelope), envelope.content.get("ciphertext")
        opened = machine.read(session, ciphertext) if session is not None and isinstance(ciphertext, str) else None
        if session is None or opened is None:
            return read_unreadable(envelope, Doubt.undecryptable, Origin(Doubt.undecryptable))
        origin = self._directory.origin(envelope.sender, session, opened[1])
        if envelope.sender == self._user_id and session.sender_key == machine.account.identity_keys["curve25519"]:
            origin = replace(origin, doubt=None, device_id=machine.device_id)
        return _read_plaintext(envelope, opened[0], origin)


def _read_plaintext(envelope: Envelope, plaintext: str, origin: Origin) -> Incoming:
    """Read what was inside a Megolm message (Matrix 1.18, "m.megolm.v1.aes-sha2")."""
    try:
        payload = json.loads(plaintext)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return read_unreadable(envelope, Doubt.malformed, origin)
    event_type, content = payload.get("type"), payload.get("content")
    if not isinstance(event_type, str) or not isinstance(content, dict):
        return read_unreadable(envelope, Doubt.malformed, origin)
    if payload.get("room_id") != envelope.room_id:
        return read_unreadable(envelope, Doubt.wrong_room, origin)
    return read_content(envelope, event_type, content, origin)

"""What is sent to the bot's device alone (Matrix 1.18, "Send-to-Device messaging"): room keys, from fellow members.

A message costs up to 30 ms to open, and may leave a session with its sender in the crypto store for good. Nobody is to
make the bot deaf to others by sending very many, nor fill its disk by sending each under a key of another invention.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog

from bot.events import Json
from bot.trust import Directory, Machine, Trust

log = structlog.get_logger(__name__)

_SECONDS = 0.2  # to be spent at once on one sender's messages
_QUEUED = 2_000  # of one sender; more than anybody's client could have to send
_STRANGE_KEYS = 50  # of one sender; a device may write before it is known that there is one


class Whispers:
    """Opens messages: a few of each sender at once, the rest in a lane of that sender's own.

    `came` is told the ID of each Megolm session that one brought.
    """

    def __init__(self, directory: Directory, came: Callable[[str], None]) -> None:
        self._directory = directory
        self._came = came
        self._queued: dict[str, int] = {}
        self._strange: defaultdict[str, set[str]] = defaultdict(set)  # the keys that no device of the sender's has

    def read(self, machine: Machine, events: Iterable[object], later: Callable[[str, Json], None]) -> None:
        """Take in what came with one answer of `/sync`. What strangers send is dropped unopened.

        `later` is given what has to wait, with its sender; see `open_queued`.
        """
        spent: defaultdict[str, float] = defaultdict(float)
        dropped = 0
        for event in events:
            if not isinstance(event, dict) or event.get("type") != "m.room.encrypted":
                continue
            sender = event.get("sender")
            if not isinstance(sender, str) or not self._directory.follows(sender):
                continue
            queued = self._queued.get(sender, 0)
            if queued == 0 and spent[sender] < _SECONDS:
                spent[sender] += self._open(machine, sender, event)
            elif queued < _QUEUED:
                self._queued[sender] = queued + 1
                later(sender, event)
            else:
                dropped += 1
        if dropped:
            log.warning("olm.messages_dropped", count=dropped)

    def open_queued(self, machine: Machine, sender: str, event: Json) -> float:
        """Open what had to wait; the seconds that it took."""
        spent = self._open(machine, sender, event)
        self._queued[sender] -= 1
        if not self._queued[sender]:
            del self._queued[sender]
        return spent

    def learn(self, user_id: str, trust: Trust) -> None:
        """A key turned out to be a device's, which it stays after the device was signed out again."""
        if user_id in self._strange:
            self._strange[user_id] -= {device.curve25519 for device in trust.keys.devices}

    def forget_queued(self) -> None:
        """What waited is lost where the homeserver took it as fetched: its lanes are gone."""
        self._queued.clear()

    def _open(self, machine: Machine, sender: str, event: Json) -> float:
        began = time.monotonic()
        if self._is_one_key_too_many(sender, event.get("content")):
            log.warning("olm.too_many_keys")
            return 0.0
        session_id = machine.take(event)
        if session_id is not None:
            self._came(session_id)
        return time.monotonic() - began

    def _is_one_key_too_many(self, sender: str, content: object) -> bool:
        key = content.get("sender_key") if isinstance(content, dict) else None
        if not isinstance(key, str):
            return False
        trust = self._directory.trust(sender)
        known = {device.curve25519 for device in trust.keys.devices} if trust is not None else set()
        strange = self._strange[sender]
        if key in known or key in strange:
            return False
        if len(strange) >= _STRANGE_KEYS:
            return True
        strange.add(key)
        return False

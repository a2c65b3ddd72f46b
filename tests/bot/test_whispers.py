"""What members send to the bot's device alone: real Olm messages of invented devices, a real crypto store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vodozemac
from structlog.testing import capture_logs

from bot.logins import Folder
from bot.requests import Homeserver
from bot.signatures import Device, PublishedKeys, encode
from bot.trust import Directory, Machine, open_machine
from bot.whispers import Whispers

Json = dict[str, Any]
ANA = "@ana:localhost"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = Folder(tmp_path / "bot")
    folder.open()
    machine = open_machine(folder, "@visavis:localhost", "DEVICE")
    yield machine
    machine.close()
    folder.close()


async def pin(user_id: str, master_key: str) -> str | None:
    return None


def sealed_by(phone: vodozemac.Account, machine: Machine, bots_key: str) -> Json:
    """A message from a device to the bot's, which opens a session by a fallback key."""
    identity = machine.account.identity_keys["curve25519"]
    keys = (vodozemac.Curve25519PublicKey.from_base64(key) for key in (identity, bots_key))
    kind, body = phone.create_outbound_session(*keys).encrypt(b"{}").to_parts()
    content = {
        "algorithm": "m.olm.v1.curve25519-aes-sha2",
        "sender_key": phone.curve25519_key.to_base64(),
        "ciphertext": {identity: {"type": kind, "body": encode(body)}},
    }
    return {"type": "m.room.encrypted", "sender": ANA, "content": content}


def sessions(machine: Machine) -> int:
    [(count,)] = machine.store.database.execute_sql("SELECT count(DISTINCT sender_key) FROM olmsessions")
    return int(count)


async def test_invented_keys_do_not_fill_the_store(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.whispers._STRANGE_KEYS", 5)
    monkeypatch.setattr("bot.whispers._SECONDS", 60.0)
    [bots_key] = [key["key"] for key in machine.fresh_keys(0, fallback=True)["fallback_keys"].values()]
    phones = [vodozemac.Account() for _ in range(8)]
    messages = [sealed_by(phone, machine, bots_key) for phone in phones]
    directory = Directory(Homeserver("http://127.0.0.1:9"), pin, lambda *changed: whispers.learn(*changed))
    directory.follow([ANA])
    whispers = Whispers(directory, lambda _: None)
    with capture_logs() as logs:
        whispers.read(machine, messages, lambda *_: None)
    assert sessions(machine) == 5
    assert [one["event"] for one in logs].count("olm.too_many_keys") == 3

    seventh = phones[6].curve25519_key.to_base64()
    device = Device(ANA, "PHONE", "signing", seventh, True)
    await directory._learn(PublishedKeys(ANA, None, None, None, (device,)))  # noqa: SLF001  # as it answered
    whispers.read(machine, messages, lambda *_: None)
    assert sessions(machine) == 6
    assert machine.session_store.get(seventh) is not None


async def test_devices_that_are_signed_out_again_are_no_invented_ones(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever signs in at another computer each day, and out again, is heard after any number of days."""
    monkeypatch.setattr("bot.whispers._STRANGE_KEYS", 3)
    [bots_key] = [key["key"] for key in machine.fresh_keys(0, fallback=True)["fallback_keys"].values()]
    directory = Directory(Homeserver("http://127.0.0.1:9"), pin, lambda *changed: whispers.learn(*changed))
    directory.follow([ANA])
    whispers = Whispers(directory, lambda _: None)
    for day in range(8):
        phone = vodozemac.Account()
        whispers.read(machine, [sealed_by(phone, machine, bots_key)], lambda *_: None)
        assert sessions(machine) == day + 1
        device = Device(ANA, f"DAY{day}", phone.ed25519_key.to_base64(), phone.curve25519_key.to_base64(), True)
        for devices in ((device,), ()):
            await directory._learn(PublishedKeys(ANA, None, None, None, devices))  # noqa: SLF001  # as it answered

"""What the bot's crypto store can read after it was made to forget: real Megolm and Olm sessions, on real files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from nio.crypto.sessions import InboundGroupSession, OutboundGroupSession

from bot.logins import Folder
from bot.signatures import Device
from bot.trust import Machine, open_machine
from supervision.errors import Transient

Json = dict[str, Any]
ROOM = "!room"
NOW = datetime.now(UTC)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@dataclass
class Store:
    """A machine on its folder; `again` closes it and opens it anew."""

    folder: Folder
    machine: Machine

    @classmethod
    def open(cls, place: Path) -> Store:
        folder = Folder(place)
        folder.open()
        return cls(folder, open_machine(folder, "@visavis:localhost", "DEVICE"))

    def again(self) -> None:
        self.close()
        self.folder.open()
        self.machine = open_machine(self.folder, "@visavis:localhost", "DEVICE")

    def close(self) -> None:
        self.machine.close()
        self.folder.close()

    def raw(self) -> bytes:
        return b"".join(file.read_bytes() for file in self.folder.location.glob("crypto.db*"))

    def pickle(self, session_id: str) -> bytes:
        session = self.kept(session_id)
        assert session is not None
        return session.pickle(self.folder.pickle_key())

    def kept(self, session_id: str) -> InboundGroupSession | None:
        """A session as it stands in the file."""
        with closing(sqlite3.connect(self.folder.location / "crypto.db")) as database:
            query = "SELECT session, fp_key, sender_key, room_id FROM megolminboundsessions WHERE session_id = ?"
            row = database.execute(query, (session_id,)).fetchone()
        if row is None:
            return None
        pickle, signing_key, sender_key, room_id = row
        return InboundGroupSession.from_pickle(pickle, signing_key, sender_key, room_id, self.folder.pickle_key())

    def readable(self, talk: Talk) -> list[int]:
        """Which of a talk's messages can be opened: by the machine, and by whoever has its files."""
        session = self.machine.session(ROOM, talk.session.id)
        assert self.machine.inbound_group_store.get(ROOM, "sender", talk.session.id) is session
        found = [talk.opened_by(one) for one in (session, self.kept(talk.session.id))]
        assert found[0] == found[1]
        return found[0]


class Talk:
    """One Megolm session of somebody's, and what was written in it."""

    def __init__(self, machine: Machine) -> None:
        self.session = OutboundGroupSession()
        self.session.shared = True
        self.key = self.session.session_key
        self.sealed: list[str] = []
        machine.create_group_session("sender", "signing", ROOM, self.session.id, self.key)

    def write(self, machine: Machine, sent_at: datetime, *, count: int = 1) -> None:
        for _ in range(count):
            self.sealed += seal(self.session)
            machine.note_index(self.session.id, ROOM, len(self.sealed) - 1, sent_at)

    def opened_by(self, session: InboundGroupSession | None) -> list[int]:
        return [index for index, one in enumerate(self.sealed) if session and opens(session, one)]


def seal(session: OutboundGroupSession, count: int = 1) -> list[str]:
    return [session.encrypt("hello") for _ in range(count)]  # type: ignore[no-untyped-call]


def opens(session: InboundGroupSession, sealed: str) -> bool:
    try:
        session.decrypt(sealed)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it; making one takes longer than using it."""
    place = tmp_path_factory.mktemp("stores") / "blank"
    Store.open(place).close()
    return place


@pytest.fixture
def store(blank: Path, tmp_path: Path) -> Iterator[Store]:
    store = Store.open(copytree(blank, tmp_path / "bot"))
    yield store
    store.close()


def test_what_is_older_is_forgotten_and_what_is_younger_is_kept(store: Store) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(3), count=5)
    talk.write(store.machine, days_ago(1), count=5)
    before = store.pickle(talk.session.id)[-120:]
    assert store.readable(talk) == list(range(10))
    assert before in store.raw()
    assert store.machine.forget_before(ROOM, days_ago(2)) == 1
    assert store.readable(talk) == [5, 6, 7, 8, 9]
    assert store.machine.readable_from(ROOM) == {talk.session.id: 5}
    assert before not in store.raw()
    assert store.machine.forget_before(ROOM, days_ago(2)) == 0


def test_messages_of_the_hour_of_the_cut_are_kept(store: Store) -> None:
    talk = Talk(store.machine)
    hour = days_ago(2).replace(minute=0, second=0, microsecond=0)
    for minutes in (-1, 0, 29, 31):
        talk.write(store.machine, hour + timedelta(minutes=minutes))
    store.machine.forget_before(ROOM, hour + timedelta(minutes=30))
    assert store.readable(talk) == [1, 2, 3]


def test_messages_that_came_out_of_order_are_kept_by_when_they_were_sent(store: Store) -> None:
    talk = Talk(store.machine)
    for days in (3, 1, 3, 1):
        talk.write(store.machine, days_ago(days))
    store.machine.forget_before(ROOM, days_ago(2))
    assert store.readable(talk) == [1, 2, 3]


@pytest.mark.parametrize("closed", [True, False])
def test_a_session_that_is_all_old_goes_on_where_it_was_and_ends_after_thirty_days(store: Store, closed: bool) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(40), count=3)
    if closed:
        store.again()
    store.machine.forget_before(ROOM, days_ago(30))
    assert store.readable(talk) == []
    talk.write(store.machine, days_ago(20))
    assert store.readable(talk) == [3]
    store.machine.forget_before(ROOM, days_ago(10))
    assert store.machine.readable_from(ROOM) == {talk.session.id: 4}
    store.machine.forget_before(ROOM, NOW + timedelta(days=9))
    assert store.machine.readable_from(ROOM) == {talk.session.id: 4}
    store.machine.forget_before(ROOM, NOW + timedelta(days=11))
    assert store.machine.readable_from(ROOM) == {}
    assert store.readable(talk) == []


def test_a_crash_makes_nothing_readable_that_is_to_be_forgotten(store: Store) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(40), count=90)
    store.machine.store.database.close()  # without a last word
    store.machine = open_machine(store.folder, "@visavis:localhost", "DEVICE")
    store.machine.forget_before(ROOM, days_ago(30))
    assert store.readable(talk) == []


def test_other_rooms_keep_what_they_have(store: Store) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(40))
    assert store.machine.forget_before("!another", days_ago(1)) == 0
    assert store.readable(talk) == [0]


def test_of_a_room_that_was_removed_nothing_is_left(store: Store) -> None:
    machine, gone, silent = store.machine, Talk(store.machine), Talk(store.machine)
    gone.write(machine, NOW)
    elsewhere = OutboundGroupSession()
    machine.create_group_session("sender", "signing", "!another", elsewhere.id, elsewhere.session_key)
    machine.open_outbound(ROOM).shared = True
    ours = machine.encrypt(ROOM, "m.room.message", {"body": "hello"})
    pickles = [store.pickle(one)[-120:] for one in (gone.session.id, silent.session.id, ours["session_id"])]
    assert machine.rooms() == {ROOM, "!another"}
    assert machine.forget_rooms({ROOM}) == 3
    assert machine.forget_rooms({ROOM}) == 0
    assert machine.rooms() == {"!another"}
    assert store.readable(gone) == []
    assert [one in store.raw() for one in pickles] == [False, False, False]
    store.again()
    assert store.machine.rooms() == {"!another"}


def test_a_session_that_has_not_spoken_yet_stays(store: Store) -> None:
    talk = Talk(store.machine)
    assert store.machine.forget_before(ROOM, NOW + timedelta(days=1)) == 0
    talk.write(store.machine, NOW)
    assert store.readable(talk) == [0]


def test_a_session_of_which_nothing_was_read_goes_when_all_that_it_may_open_is_old(store: Store) -> None:
    """Its key came too late, or what was written with it was taken back before the bot could look."""
    talk = Talk(store.machine)
    talk.sealed = seal(talk.session, 3)
    assert store.readable(talk) == [0, 1, 2]
    assert store.machine.forget_before(ROOM, NOW + timedelta(days=1)) == 0
    assert store.machine.forget_before(ROOM, NOW + timedelta(days=3)) == 1
    assert store.readable(talk) == []
    assert store.machine.readable_from(ROOM) == {}


def test_keys_that_nothing_is_written_with_do_not_fill_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.trust._MOST_UNUSED", 3)
    used = Talk(store.machine)
    used.write(store.machine, NOW)
    first = [Talk(store.machine).session.id for _ in range(2)]
    store.again()
    later = [Talk(store.machine).session.id for _ in range(3)]
    assert store.machine.readable_from(ROOM).keys() == {used.session.id, *later}
    assert [store.kept(one) for one in first] == [None, None]
    assert store.readable(used) == [0]


def test_a_new_device_opens_the_store_of_an_earlier_one(store: Store) -> None:
    talk = Talk(store.machine)
    store.machine.close()
    store.machine = open_machine(store.folder, "@visavis:localhost", "ANOTHER")
    assert store.machine.session(ROOM, talk.session.id) is None


def test_a_key_that_came_long_after_its_message_does_not_keep_it(store: Store) -> None:
    """The bot was away: what it reads only now is as old as it is."""
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(10))
    talk.write(store.machine, days_ago(1))
    store.machine.forget_before(ROOM, days_ago(5))
    assert store.readable(talk) == [1]


def test_a_session_beside_very_many_others_loses_nothing_that_is_young(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.stores._REMEMBERED", 1)
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(3), count=2)
    Talk(store.machine).write(store.machine, NOW)
    store.machine.forget_before(ROOM, days_ago(2))
    talk.write(store.machine, NOW)
    assert store.readable(talk) == [2]


def test_what_the_disk_refused_is_written_with_the_next_message(store: Store) -> None:
    talk = Talk(store.machine)
    database: Any = store.machine.store.database
    database.execute_sql("PRAGMA query_only = ON")
    with pytest.raises(Transient, match="crypto_store"):
        talk.write(store.machine, days_ago(3))
    database.execute_sql("PRAGMA query_only = OFF")
    store.machine.note_index(talk.session.id, ROOM, 0, days_ago(3))
    store.machine.store.database.close()  # without a last word
    store.machine = open_machine(store.folder, "@visavis:localhost", "DEVICE")
    assert store.machine.marks.of(talk.session.id).hours == {int(days_ago(3).timestamp()) // 3600: 0}


def test_what_the_disk_does_not_forget_is_not_taken_for_forgotten(store: Store) -> None:
    """Or it would be readable again after the next start, and nobody would look."""
    silent, talk = Talk(store.machine), Talk(store.machine)
    silent.write(store.machine, days_ago(60))
    for days in (3, 1):
        talk.write(store.machine, days_ago(days))
    database: Any = store.machine.store.database
    forgetting: list[Callable[[], int]] = [
        lambda: store.machine.forget_before(ROOM, days_ago(2)),
        lambda: store.machine.forget_rooms({ROOM}),
    ]
    for forget in forgetting:
        database.execute_sql("PRAGMA query_only = ON")
        with pytest.raises(Transient, match="crypto_store"):
            forget()
        database.execute_sql("PRAGMA query_only = OFF")
        assert (store.readable(silent), store.readable(talk)) == ([0], [0, 1])
    assert store.machine.forget_before(ROOM, days_ago(2)) == 2
    assert (store.readable(silent), store.readable(talk)) == ([], [1])


def test_what_was_forgotten_cannot_be_given_back(store: Store) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(3))
    talk.write(store.machine, days_ago(1))
    store.machine.forget_before(ROOM, days_ago(2))
    store.machine.create_group_session("sender", "signing", ROOM, talk.session.id, talk.key)
    assert store.readable(talk) == [1]
    store.again()
    store.machine.create_group_session("sender", "signing", ROOM, talk.session.id, talk.key)
    assert store.readable(talk) == [1]


def test_our_own_words_are_forgotten_too(store: Store) -> None:
    machine = store.machine
    machine.open_outbound(ROOM).shared = True
    sealed = [machine.encrypt(ROOM, "m.room.message", {"body": "hello"}) for _ in range(3)]
    session = machine.session(ROOM, sealed[0]["session_id"])
    assert session is not None
    assert machine.marks.of(session.id).following == 3
    machine.forget_before(ROOM, datetime.now(UTC) + timedelta(hours=2))
    later = machine.session(ROOM, session.id)
    assert later is not None
    assert [machine.read(later, one["ciphertext"]) for one in sealed] == [None, None, None]
    next_one = machine.encrypt(ROOM, "m.room.message", {"body": "hello"})
    assert machine.read(later, next_one["ciphertext"]) is not None


def test_sessions_of_a_store_without_notes_count_from_when_they_are_found(store: Store) -> None:
    talk = Talk(store.machine)
    talk.sealed = seal(talk.session, 3)
    for table in ("visavis_hours", "visavis_sessions"):
        store.machine.store.database.execute_sql(f"DROP TABLE {table}")  # as the store was before there were any
    store.machine.store.database.close()
    store.machine = open_machine(store.folder, "@visavis:localhost", "DEVICE")
    assert store.machine.forget_before(ROOM, days_ago(1)) == 0
    assert store.readable(talk) == [0, 1, 2]
    assert store.machine.forget_before(ROOM, datetime.now(UTC) + timedelta(days=1)) == 1
    assert store.readable(talk) == []


def test_an_old_store_s_session_that_goes_on_loses_what_came_before_it_was_found(store: Store) -> None:
    talk = Talk(store.machine)
    talk.sealed = seal(talk.session, 3)
    for table in ("visavis_hours", "visavis_sessions"):
        store.machine.store.database.execute_sql(f"DROP TABLE {table}")
    store.machine.store.database.close()
    store.machine = open_machine(store.folder, "@visavis:localhost", "DEVICE")
    found = store.machine.marks.of(talk.session.id)
    found.since = int(days_ago(3).timestamp())  # it was found three days ago
    talk.write(store.machine, days_ago(1))
    store.machine.forget_before(ROOM, days_ago(2))
    assert store.readable(talk) == [3]


def test_talk_writes_once_an_hour_and_session(store: Store) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, NOW)
    written: list[str] = []
    database: Any = store.machine.store.database
    connection = database.connection()
    connection.set_trace_callback(written.append)
    talk.write(store.machine, NOW, count=90)
    connection.set_trace_callback(None)
    assert written == []


def test_times_that_are_yet_to_come_are_taken_for_now(store: Store) -> None:
    talk = Talk(store.machine)
    talk.write(store.machine, NOW + timedelta(days=1000))
    store.machine.forget_before(ROOM, datetime.now(UTC) + timedelta(hours=2))
    assert store.readable(talk) == []


def test_imported_session_is_the_same_to_whoever_reads_it_next(store: Store) -> None:
    """What stays after forgetting still bears its sender's keys, on which trust depends."""
    talk = Talk(store.machine)
    talk.write(store.machine, days_ago(3))
    talk.write(store.machine, days_ago(1))
    store.machine.forget_before(ROOM, days_ago(2))
    store.again()
    session = store.machine.session(ROOM, talk.session.id)
    assert isinstance(session, InboundGroupSession)
    assert (session.sender_key, session.ed25519, session.room_id, session.forwarding_chain) == (
        "sender",
        "signing",
        ROOM,
        [],
    )


# What was given to the bot by Olm


def write_to(bot: Machine, keys: Json, place: Path) -> Json:
    """A to-device message that brings the key of a new Megolm session, from a phone that claimed one of these keys."""
    phone = open_machine(Store.open(place).folder, "@ana:localhost", "PHONE")
    curve25519, ed25519 = (bot.account.identity_keys[kind] for kind in ("curve25519", "ed25519"))
    device = Device("@visavis:localhost", "DEVICE", ed25519, curve25519, True)
    assert phone.meet(device, dict([keys.popitem()]))
    session = OutboundGroupSession()
    content = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": ROOM,
        "session_id": session.id,
        "session_key": session.session_key,
    }
    sealed = phone.whisper(device, "m.room_key", content)
    phone.close()
    return {"type": "m.room.encrypted", "sender": "@ana:localhost", "content": sealed}


def publish(machine: Machine, kind: str) -> Json:
    keys: Json = machine.fresh_keys(0, fallback=True)[kind]
    machine.mark_keys_as_published()
    machine.save_account()
    return keys


def taken_by(store: Store, event: Json) -> bool:
    """Whether a machine that is opened on the files as they are can read what came."""
    with closing(sqlite3.connect(store.folder.location / "crypto.db")) as database:
        database.execute("DELETE FROM olmsessions")  # an earlier session of the same phone is another matter
        database.commit()
    machine = open_machine(store.folder, "@visavis:localhost", "DEVICE")
    taken = machine.take(event) is not None
    machine.store.database.close()
    return taken


def test_a_one_time_key_that_was_used_is_gone_from_the_file(store: Store, tmp_path: Path) -> None:
    event = write_to(store.machine, publish(store.machine, "one_time_keys"), tmp_path / "phone")
    assert store.machine.take(event) is not None
    assert not taken_by(store, event)


def test_a_fallback_key_opens_nothing_any_more_when_another_one_was_published_twice(
    store: Store, tmp_path: Path
) -> None:
    event = write_to(store.machine, publish(store.machine, "fallback_keys"), tmp_path / "phone")
    assert store.machine.take(event) is not None
    assert taken_by(store, event)
    publish(store.machine, "fallback_keys")
    assert taken_by(store, event)
    publish(store.machine, "fallback_keys")
    assert not taken_by(store, event)

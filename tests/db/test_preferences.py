"""How people want to be told: the quiet rule, what can be turned off, and reminders planned by their wishes."""

import zoneinfo
from dataclasses import replace
from datetime import UTC, datetime, time

import pytest
from sqlalchemy import select

from supervision import preferences
from supervision.audit import Actor
from supervision.db import Database
from supervision.errors import NotUnderstood
from supervision.models import Channel, Topic, audit_entries
from supervision.people import Person
from supervision.preferences import USUAL, Preferences
from tests.support.sample import acts, add_person

TEN = datetime(2026, 11, 30, 13, 0, tzinfo=UTC)  # 10:00 in São Paulo
MAIL, MATRIX = Channel.MAIL, Channel.MATRIX


async def save(database: Database, person: Person, wishes: Preferences, now: datetime) -> None:
    async with database.transaction() as tx:
        await preferences.save(tx, acts(person), person.id, wishes, now=now)


async def of(database: Database, person: Person) -> Preferences:
    async with database.transaction() as tx:
        return await preferences.of(tx, person.id)


async def test_who_has_set_nothing_wants_the_usual(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    assert await of(database, ana) == USUAL == Preferences((1440,), (60, 15), None, None, frozenset())
    assert USUAL.alarms == (1440, 60, 15)


async def test_what_is_saved_is_read_again(database: Database, now: datetime) -> None:
    ana, bruno, clara = [
        await add_person(database, name, ["supervisor"], now=now) for name in ("Ana", "Bruno", "Clara")
    ]
    quiet = Preferences((60, 1440, 60), (), time(22), time(7), frozenset({(MAIL, Topic.UNREAD), (MATRIX, Topic.WAITS)}))
    await save(database, ana, quiet, now)
    await save(database, bruno, Preferences((), (15,)), now)
    async with database.transaction() as tx:
        found = await preferences.of_several(tx, [ana.id, bruno.id, clara.id])
    ordered = replace(quiet, mail_reminders=(1440, 60))
    assert found == {ana.id: ordered, bruno.id: Preferences((), (15,)), clara.id: USUAL}
    await save(database, ana, USUAL, now)
    assert await of(database, ana) == USUAL
    async with database.transaction() as tx:
        rows = await tx.execute(
            select(audit_entries.c.actor_id, audit_entries.c.via, audit_entries.c.resource_id)
            .where(audit_entries.c.action == "preferences.save")
            .order_by(audit_entries.c.id)
        )
        assert [tuple(row) for row in rows] == [(one.id, "web", str(one.id)) for one in (ana, bruno, ana)]


@pytest.mark.parametrize(
    ("wishes", "key"),
    [
        (Preferences(mail_reminders=(0,)), "refused.reminders"),
        (Preferences(mail_reminders=(-15,)), "refused.reminders"),
        (Preferences(room_reminders=(7 * 1440 + 1,)), "refused.reminders"),
        (Preferences(room_reminders=tuple(range(1, 10))), "refused.reminders"),
        (Preferences(quiet_from=time(22)), "refused.quiet_hours"),
        (Preferences(quiet_until=time(22)), "refused.quiet_hours"),
        (Preferences(quiet_from=time(22), quiet_until=time(22)), "refused.quiet_hours"),
        (Preferences(quiet_from=time(22), quiet_until=time(7, 0, 30)), "refused.whole_minutes"),
        (Preferences(quiet_from=time(22), quiet_until=time(7, tzinfo=UTC)), "refused.whole_minutes"),
        (Preferences(unwanted=frozenset({(MATRIX, Topic.BOOKINGS)})), "refused.always_told"),
        (Preferences(unwanted=frozenset({(MATRIX, Topic.UNREAD)})), "refused.always_told"),
    ],
)
async def test_what_makes_no_sense_is_refused(database: Database, now: datetime, wishes: Preferences, key: str) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    with pytest.raises(NotUnderstood, match=key.replace(".", r"\.")):
        await save(database, ana, wishes, now)
    assert await of(database, ana) == USUAL


async def test_muting_adds_to_what_is_unwanted(database: Database, now: datetime) -> None:
    ana = await add_person(database, "Ana", ["supervisor"], now=now)
    quiet = Preferences((60,), (), time(22), time(7), frozenset({(MAIL, Topic.WAITS)}))
    await save(database, ana, quiet, now)
    by_link = Actor(ana.id, "unsubscribe", ip="127.0.0.1")
    for _ in range(2):
        async with database.transaction() as tx:
            await preferences.mute(tx, by_link, ana.id, MAIL, Topic.REMINDERS, now=now)
    unwanted = frozenset({(MAIL, Topic.WAITS), (MAIL, Topic.REMINDERS)})
    assert await of(database, ana) == replace(quiet, unwanted=unwanted)
    with pytest.raises(NotUnderstood, match=r"refused\.always_told"):
        async with database.transaction() as tx:
            await preferences.mute(tx, by_link, ana.id, MATRIX, Topic.BOOKINGS, now=now)
    async with database.transaction() as tx:
        rows = await tx.execute(select(audit_entries.c.via).where(audit_entries.c.action == "preferences.mute"))
        assert [row.via for row in rows] == ["unsubscribe"]


ALL = frozenset(preferences.CHOICES)


@pytest.mark.parametrize(
    ("kind", "topic", "by_mail", "in_room"),
    [
        ("appointment.requested", Topic.BOOKINGS, False, True),
        ("appointment.confirmed", Topic.BOOKINGS, False, True),
        ("appointment.declined", Topic.BOOKINGS, False, True),
        ("appointment.rescheduled", Topic.BOOKINGS, False, True),
        ("move.proposed", Topic.BOOKINGS, False, True),
        ("series.booked", Topic.BOOKINGS, False, True),
        ("attendance.declined", Topic.BOOKINGS, False, True),
        ("appointment.reminder", Topic.REMINDERS, False, False),
        ("wait.offered", Topic.WAITS, False, False),
        ("room.unread", Topic.UNREAD, False, True),
        ("appointment.cancelled", None, True, True),
        ("series.cancelled", None, True, True),
        ("sign_in", None, True, True),
        ("identity.changed", None, True, True),
        ("room.stranger", None, True, True),
        ("room.introduction", None, True, True),
        ("room.summary", None, True, True),
        ("mailbox.stopped", None, True, True),
        ("reply", None, True, True),
    ],
)
def test_what_can_be_turned_off(kind: str, topic: Topic | None, *, by_mail: bool, in_room: bool) -> None:
    assert preferences.topic_of(kind) is topic
    none = Preferences(unwanted=ALL)
    assert (preferences.is_wanted(none, MAIL, kind), preferences.is_wanted(none, MATRIX, kind)) == (by_mail, in_room)
    assert preferences.is_wanted(USUAL, MAIL, kind) is preferences.is_wanted(USUAL, MATRIX, kind) is True


SAO_PAULO, LISBON, NEW_YORK = map(zoneinfo.ZoneInfo, ("America/Sao_Paulo", "Europe/Lisbon", "America/New_York"))
NIGHT = Preferences(quiet_from=time(22), quiet_until=time(7))
SIESTA = Preferences(quiet_from=time(12), quiet_until=time(14))


def at(local: str, zone: zoneinfo.ZoneInfo = SAO_PAULO, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(local).replace(tzinfo=zone, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("wishes", "kind", "now", "starts_at", "until"),
    [
        # The hours themselves.
        (USUAL, "appointment.confirmed", "2026-11-24 23:00", "2026-12-01 10:00", None),
        (NIGHT, "appointment.confirmed", "2026-11-24 21:59", "2026-12-01 10:00", None),
        (NIGHT, "appointment.confirmed", "2026-11-24 22:00", "2026-12-01 10:00", "2026-11-25 07:00"),
        (NIGHT, "appointment.confirmed", "2026-11-25 00:00", "2026-12-01 10:00", "2026-11-25 07:00"),
        (NIGHT, "appointment.confirmed", "2026-11-25 06:59", "2026-12-01 10:00", "2026-11-25 07:00"),
        (NIGHT, "appointment.confirmed", "2026-11-25 07:00", "2026-12-01 10:00", None),
        (SIESTA, "appointment.confirmed", "2026-11-25 11:59", "2026-12-01 10:00", None),
        (SIESTA, "appointment.confirmed", "2026-11-25 12:00", "2026-12-01 10:00", "2026-11-25 14:00"),
        (SIESTA, "appointment.confirmed", "2026-11-25 14:00", "2026-12-01 10:00", None),
        # Cancellations and changes of what is today, or before the quiet hours end.
        (NIGHT, "appointment.cancelled", "2026-11-24 23:00", "2026-11-25 10:00", "2026-11-25 07:00"),
        (NIGHT, "appointment.cancelled", "2026-11-24 23:00", "2026-11-25 07:00", None),
        (NIGHT, "appointment.cancelled", "2026-11-24 23:00", "2026-11-24 23:30", None),
        (NIGHT, "appointment.cancelled", "2026-11-25 01:00", "2026-11-25 10:00", None),
        (NIGHT, "appointment.cancelled", "2026-11-25 01:00", "2026-11-26 10:00", "2026-11-25 07:00"),
        (NIGHT, "series.cancelled", "2026-11-25 01:00", "2026-11-25 10:00", None),
        (NIGHT, "appointment.rescheduled", "2026-11-25 01:00", "2026-11-25 10:00", None),
        (NIGHT, "series.rescheduled", "2026-11-25 01:00", "2026-11-25 10:00", None),
        (NIGHT, "appointment.declined", "2026-11-25 01:00", "2026-11-25 10:00", None),
        (NIGHT, "appointment.confirmed", "2026-11-25 01:00", "2026-11-25 10:00", "2026-11-25 07:00"),
        (NIGHT, "appointment.confirmed", "2026-11-25 01:00", "2026-11-25 06:50", None),
        # What is past: that it was held, or missed.
        (NIGHT, "appointment.marked", "2026-11-24 23:00", "2026-11-24 20:00", "2026-11-25 07:00"),
        (NIGHT, "appointment.cancelled", "2026-11-24 23:00", "2026-11-24 22:50", None),
        (SIESTA, "appointment.cancelled", "2026-11-25 12:30", "2026-11-25 20:00", None),
        # Reminders: never after the start.
        (NIGHT, "appointment.reminder", "2026-11-25 06:00", "2026-11-25 07:00", None),
        (NIGHT, "appointment.reminder", "2026-11-25 06:10", "2026-11-25 07:10", "2026-11-25 07:00"),
        # What is never held back, and what speaks of no appointment.
        (NIGHT, "sign_in", "2026-11-24 23:00", None, None),
        (NIGHT, "identity.changed", "2026-11-24 23:00", None, None),
        (NIGHT, "room.stranger", "2026-11-24 23:00", None, None),
        (NIGHT, "mailbox.stopped", "2026-11-24 23:00", None, None),
        (NIGHT, "reply", "2026-11-24 23:00", None, None),
        (NIGHT, "room.unread", "2026-11-24 23:00", None, "2026-11-25 07:00"),
        (NIGHT, "wait.offered", "2026-11-24 23:00", "2026-12-01 10:00", "2026-11-25 07:00"),
    ],
)
def test_the_quiet_rule(wishes: Preferences, kind: str, now: str, starts_at: str | None, until: str | None) -> None:
    start, end = (None if one is None else at(one) for one in (starts_at, until))
    assert preferences.hold_back(wishes, SAO_PAULO, kind, now=at(now), starts_at=start) == end


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "zone", "now", "ends"),
    [
        # Lisbon, 29 March 2026: 01:00 UTC is 02:00; there is no 01:30.
        ("22:00", "01:30", LISBON, "2026-03-29 00:59", "2026-03-29 01:00"),
        ("22:00", "01:30", LISBON, "2026-03-29 01:00", None),
        ("01:30", "07:00", LISBON, "2026-03-29 00:59", None),
        ("01:30", "07:00", LISBON, "2026-03-29 01:00", "2026-03-29 06:00"),
        ("22:00", "07:00", LISBON, "2026-03-28 22:00", "2026-03-29 06:00"),
        ("01:15", "01:45", LISBON, "2026-03-29 01:00", None),
        # Lisbon, 25 October 2026: 01:30 is at 00:30 and 01:30 UTC.
        ("22:00", "01:30", LISBON, "2026-10-25 00:30", "2026-10-25 01:30"),
        ("22:00", "01:30", LISBON, "2026-10-25 01:29", "2026-10-25 01:30"),
        ("22:00", "01:30", LISBON, "2026-10-25 01:30", None),
        ("01:30", "07:00", LISBON, "2026-10-25 00:29", None),
        ("01:30", "07:00", LISBON, "2026-10-25 00:30", "2026-10-25 07:00"),
        ("01:30", "07:00", LISBON, "2026-10-25 01:10", "2026-10-25 07:00"),
        ("22:00", "07:00", LISBON, "2026-10-24 22:00", "2026-10-25 07:00"),
        # New York, 8 March 2026: no 02:30; 1 November: 01:30 twice, at 05:30 and 06:30 UTC.
        ("22:00", "02:30", NEW_YORK, "2026-03-08 06:59", "2026-03-08 07:00"),
        ("22:00", "01:30", NEW_YORK, "2026-11-01 05:45", "2026-11-01 06:30"),
    ],
)
def test_quiet_hours_on_the_days_that_the_clocks_change(
    since: str, until: str, zone: zoneinfo.ZoneInfo, now: str, ends: str | None
) -> None:
    wishes = Preferences(quiet_from=time.fromisoformat(since), quiet_until=time.fromisoformat(until))
    assert preferences.quiet_until(wishes, zone, now=utc(now)) == (None if ends is None else utc(ends))

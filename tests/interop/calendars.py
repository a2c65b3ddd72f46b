"""Two independent readers of calendars, and a calendar program that files what it is mailed.

The first reader is `icalendar` with `recurring-ical-events`, which take a zone's rules from this machine; the second is
npm's `ical.js`, which knows those alone that an object brings along. What they read has to be the same.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import recurring_ical_events
from icalendar import Calendar, Event, Timezone

from tests.install import INTEROP, node_path

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2032, 1, 1, tzinfo=UTC)
TEXTS = ("SUMMARY", "DESCRIPTION", "LOCATION", "URL", "CLASS", "TRANSP")

Version = tuple[int, datetime]
Shown = list[tuple[str, datetime, datetime, str]]  # UID, start, end, STATUS


@dataclass(frozen=True)
class Entry:
    """What a VEVENT means. `attendees` are address, PARTSTAT and RSVP each; `alarms` action and instant."""

    uid: str
    sequence: int
    stamp: datetime
    start: datetime
    end: datetime
    status: str
    texts: tuple[str, ...]
    organizer: str | None
    attendees: tuple[tuple[str, str, str], ...]
    recurrence_id: datetime | None
    exdates: tuple[datetime, ...]
    rule: tuple[str, ...]
    alarms: tuple[tuple[str, datetime], ...]


@dataclass(frozen=True)
class Message:
    """What an iCalendar object means."""

    method: str
    entries: tuple[Entry, ...]
    zones: tuple[str, ...]


def read(written: bytes) -> Message:
    """By `icalendar`."""
    calendar = Calendar.from_ical(written)
    zones = tuple(str(zone["TZID"]) for zone in calendar.timezones)
    return Message(str(calendar["METHOD"]), tuple(map(_read_event, calendar.events)), zones)


def _read_event(event: Event) -> Entry:
    organizer, attendees = event.get("ORGANIZER"), event.get("ATTENDEE", [])
    rule = event.get("RRULE")
    return Entry(
        str(event["UID"]),
        event.sequence,
        _utc(event.decoded("DTSTAMP")),
        _utc(event.start),
        _utc(event.end),
        str(event["STATUS"]),
        tuple(str(event[name]) for name in TEXTS),
        None if organizer is None else str(organizer),
        tuple(
            (str(one), str(one.params["PARTSTAT"]), str(one.params["RSVP"]))
            for one in (attendees if isinstance(attendees, list) else [attendees])
        ),
        _utc(event.decoded("RECURRENCE-ID")) if "RECURRENCE-ID" in event else None,
        tuple(sorted(_exdates(event))),
        () if rule is None else tuple(sorted(rule.to_ical().decode().split(";"))),
        tuple((str(one["ACTION"]), _utc(event.start) + one.decoded("TRIGGER")) for one in event.walk("VALARM")),
    )


def _exdates(event: Event) -> Iterator[datetime]:
    found = event.get("EXDATE", [])
    for each in found if isinstance(found, list) else [found]:
        yield from (_utc(one.dt) for one in each.dts)


def _utc(at: Any) -> datetime:
    assert isinstance(at, datetime)
    assert at.tzinfo is not None
    return at.astimezone(UTC)


class SecondReader:
    """`ical.js`, in a Node of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [node_path(), str(INTEROP / "calendars.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def read(self, written: bytes) -> Message:
        found = self._ask("read", written)
        return Message(found["method"], tuple(map(_from_json, found["entries"])), tuple(found["zones"]))

    def expand(self, written: bytes) -> Shown:
        return sorted(
            (uid, datetime.fromisoformat(start), datetime.fromisoformat(end), status)
            for uid, start, end, status in self._ask("expand", written)
        )

    def _ask(self, command: str, written: bytes) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"command": command, "text": written.decode()}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "ok" in answer, answer
        return answer["ok"]


def _from_json(found: dict[str, Any]) -> Entry:
    at = datetime.fromisoformat
    return Entry(
        found["uid"],
        found["sequence"],
        at(found["stamp"]),
        at(found["start"]),
        at(found["end"]),
        found["status"],
        tuple(found["texts"]),
        found["organizer"],
        tuple((address, partstat, rsvp) for address, partstat, rsvp in found["attendees"]),
        None if found["recurrence_id"] is None else at(found["recurrence_id"]),
        tuple(map(at, found["exdates"])),
        tuple(found["rule"]),
        tuple((action, at(when)) for action, when in found["alarms"]),
    )


def expand(written: bytes) -> Shown:
    """Everything that a calendar which holds this shows, by `recurring-ical-events`."""
    calendar = Calendar.from_ical(written)
    return sorted(
        (str(one["UID"]), _utc(one.start), _utc(one.end), str(one["STATUS"]))
        for one in recurring_ical_events.of(calendar).between(EPOCH, END)
    )


@dataclass
class Program:
    """Somebody's calendar: files what comes by UID and RECURRENCE-ID, the newer SEQUENCE and DTSTAMP over the older
    (RFC 5546, 2.1.4 and 2.1.5).

    Programs differ in what an update of a whole series does to the changed instances that they know from before: one
    that `replaces` forgets them, the other keeps each until it hears something newer of just that. What is called off
    stays known, so that an older mail does not bring it back.
    """

    replaces: bool
    kept: dict[tuple[str, datetime | None], Event] = field(default_factory=dict)
    gone: dict[tuple[str, datetime | None], Version] = field(default_factory=dict)
    zones: dict[str, Timezone] = field(default_factory=dict)

    def take(self, written: bytes) -> None:
        calendar = Calendar.from_ical(written)
        self.zones |= {str(zone["TZID"]): zone for zone in calendar.timezones}
        for event in sorted(calendar.events, key=lambda one: "RECURRENCE-ID" in one):
            if str(calendar["METHOD"]) == "CANCEL":
                self._call_off(event)
            elif self.replaces and "RRULE" in event and self._is_news(event):
                for key in self._of(str(event["UID"])):
                    del self.kept[key]
                self.kept[_key(event)] = event
            elif self._is_news(event):
                self.kept[_key(event)] = event

    def _is_news(self, event: Event) -> bool:
        uid, instance = _key(event)
        known = [self.gone[key] for key in {(uid, None), (uid, instance)} if key in self.gone]
        known += [_version(self.kept[uid, instance])] if (uid, instance) in self.kept else []
        return all(_version(event) >= one for one in known)

    def _call_off(self, event: Event) -> None:
        """One instance, or all of them; what is newer than the cancellation stays."""
        uid, instance = _key(event)
        for key in self._of(uid):
            if instance in (None, key[1]) and _version(self.kept[key]) <= _version(event):
                del self.kept[key]
        self.gone[uid, instance] = max(_version(event), self.gone.get((uid, instance), (0, EPOCH)))

    def _of(self, uid: str) -> Sequence[tuple[str, datetime | None]]:
        return [key for key in self.kept if key[0] == uid]

    def written(self) -> bytes:
        """All of it as one object: instances that were called off are taken out of their series."""
        calendar = Calendar()
        calendar.add("prodid", "-//Visavis//Tests//EN")
        calendar.add("version", "2.0")
        for part in (*self.zones.values(), *self._events()):
            calendar.add_component(part)
        written: bytes = calendar.to_ical()
        return written

    def _events(self) -> Iterator[Event]:
        for (uid, instance), event in self.kept.items():
            if instance is not None:
                yield event
                continue
            copied = event.copy(recursive=True)
            gone = {at for other, at in self.gone if other == uid and at and (uid, at) not in self.kept}
            without = sorted(gone.union(_exdates(event)))
            copied.pop("EXDATE", None)
            if without:
                copied.add("exdate", [at.astimezone(event.decoded("DTSTART").tzinfo) for at in without])
            yield copied


def _key(event: Event) -> tuple[str, datetime | None]:
    return str(event["UID"]), _utc(event.decoded("RECURRENCE-ID")) if "RECURRENCE-ID" in event else None


def _version(event: Event) -> Version:
    return event.sequence, _utc(event.decoded("DTSTAMP"))

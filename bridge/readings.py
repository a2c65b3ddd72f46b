"""Reading a foreign calendar, in a process of its own: what it can cost there ends with it.

Of the calendar only the lines are looked at that tell when somebody is busy; titles, places and people are dropped
before anything is parsed. `python -m bridge.readings` takes the questions as one line of JSON and then the calendar
on its standard input, and answers with one JSON object: `busy`, a list of starts and ends in seconds since 1970, or
`error`.
"""

import asyncio
import json
import os
import re
import resource
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from supervision.ranges import Range, merge

ROOT = str(Path(__file__).resolve().parent.parent)
SECONDS = 20  # that reading may take, on the clock and of the processor
MEMORY_BYTES = 1 << 30  # of addresses
MOST_EVENTS = 20_000  # that may still matter
MOST_TIMES = 5_000  # ranges that do not touch
MOST_OCCURRENCES = 20_000  # some fifty a day

# What tells when an event is, and whether it makes busy (RFC 5545, 3.8; MS-OXCICAL for X-MICROSOFT-…).
KEPT = frozenset(
    "UID DTSTART DTEND DURATION RRULE RDATE EXDATE RECURRENCE-ID SEQUENCE STATUS TRANSP"
    " X-MICROSOFT-CDO-BUSYSTATUS FREEBUSY".split()
)
NAME = re.compile(r"[A-Za-z0-9-]+")
TOO_OFTEN = re.compile(r"FREQ=(SECONDLY|MINUTELY)", re.IGNORECASE)
DAY = re.compile(r":(\d{8})")
EXCHANGE_UID = "040000008200E00074C5B7101A82E008"  # MS-OXCICAL, 2.1.3.1.1.20.26
EXCHANGE_FOREIGN = b"vCal-Uid\x01\x00\x00\x00"  # behind it stands the UID that another system gave
OWN_UID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ONE_DAY = timedelta(days=1)
FREE_MARK = "X-VISAVIS-FREE"


class Unreadable(Exception):
    """It is no calendar, or one that takes too much; the text is one of `outside.ERRORS`."""


@dataclass(frozen=True)
class Question:
    """From when to when, where floating times and whole days are, whose events are our own, and who declines.

    `zone` is an IANA name, `domain` that of our own UIDs, `email` the supervisor's; times are seconds since 1970.
    """

    since: float
    until: float
    zone: str
    domain: str
    email: str


async def read(content: bytes, question: Question, *, seconds: float = SECONDS) -> list[Range]:
    """When a calendar says that its owner is busy, as ascending ranges that do not touch.

    Raises Unreadable. The process is killed after so many seconds, and when this is cancelled.
    """
    given = json.dumps(asdict(question)).encode() + b"\n" + content
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge.readings",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT, env={"PYTHONPATH": ROOT, "PATH": os.defpath},
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            told, _ = await child.communicate(given)
    except TimeoutError:
        raise Unreadable("intricate") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        answer = json.loads(told)
    except ValueError:  # it was killed, or out of memory
        raise Unreadable("intricate") from None
    if "error" in answer:
        raise Unreadable(answer["error"])
    return [(datetime.fromtimestamp(a, UTC), datetime.fromtimestamp(b, UTC)) for a, b in answer["busy"]]


def busy_times(content: bytes, question: Question) -> list[Range]:
    """The same in this process, without its limits of time and memory."""
    import icalendar
    import recurring_ical_events

    zone = ZoneInfo(question.zone)
    since, until = datetime.fromtimestamp(question.since, UTC), datetime.fromtimestamp(question.until, UTC)
    kept = condense(decode(content), question)
    try:
        calendar = icalendar.Calendar.from_ical(kept)
    except ValueError as error:
        raise Unreadable("no_calendar") from error
    if not isinstance(calendar, icalendar.Calendar):
        raise Unreadable("no_calendar")
    query = recurring_ical_events.of(calendar, components=["VEVENT"], skip_bad_series=True)
    found: list[Range] = []
    # Days more on either side: whole days and floating times are compared there without a zone.
    for count, event in enumerate(query.between(since - 2 * ONE_DAY, until + 2 * ONE_DAY)):
        if count >= MOST_OCCURRENCES:
            raise Unreadable("intricate")
        if makes_busy(event):
            found += _clip(to_range(event.start, event.end, zone), since, until)
    for told in calendar.walk("VFREEBUSY"):
        for one in free_busy(told, zone):
            found += _clip(one, since, until)
    merged = merge(found)
    if len(merged) > MOST_TIMES:
        raise Unreadable("intricate")
    return merged


def _clip(one: Range, since: datetime, until: datetime) -> list[Range]:
    start, end = max(one[0], since), min(one[1], until)
    return [(start, end)] if start < end else []


def decode(content: bytes) -> str:
    """The text; what is no UTF-8 is taken for Latin-1, since no time is written in the letters that differ."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def condense(text: str, question: Question) -> str:
    """The calendar with nothing in it but zones and times, and only of what may matter. Raises Unreadable."""
    kept: list[str] = []
    events = 0
    for name, lines in _components(text):
        if name == "VTIMEZONE":
            kept += lines
            continue
        block = _condense_one(name, lines, question)
        if block:
            kept += block
            events += 1
            if events > MOST_EVENTS:
                raise Unreadable("intricate")
    return "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//visavis//", *kept, "END:VCALENDAR", ""])


def _components(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each zone, event and free-busy list, as its unfolded lines with BEGIN and END; what is within events is not."""
    opened: list[str] = []
    lines: list[str] = []
    seen = False
    for line in _unfold(text):
        upper = line[:40].strip().upper()
        if upper.startswith("BEGIN:"):
            opened.append(upper[6:])
            if len(opened) == 1 and opened[0] != "VCALENDAR":
                break
            seen = True
            if len(opened) == 2:
                lines = [line]
            elif opened[1:2] == ["VTIMEZONE"]:
                lines.append(line)
        elif upper.startswith("END:"):
            if not opened or opened.pop() != upper[4:]:
                break
            if len(opened) == 1:
                name = upper[4:]
                if name in ("VEVENT", "VFREEBUSY", "VTIMEZONE"):
                    yield name, [*lines, line]
            elif opened[1:2] == ["VTIMEZONE"]:
                lines.append(line)
        elif len(opened) == 2 or opened[1:2] == ["VTIMEZONE"]:
            lines.append(line)
        elif not opened and line.strip():
            break
    else:
        if seen and not opened:
            return
    raise Unreadable("no_calendar")  # something else, or cut off


def _unfold(text: str) -> Iterator[str]:
    """Whole lines (RFC 5545, 3.1), whichever way they end."""
    last: str | None = None
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line[:1] in (" ", "\t") and last is not None:
            last += line[1:] if len(last) < 10_000 else ""
            continue
        if last is not None:
            yield last
        last = line
    if last is not None:
        yield last


def _condense_one(name: str, lines: list[str], question: Question) -> list[str]:
    """What of an event or free-busy list tells of times; nothing where it cannot matter."""
    kept: list[str] = []
    named: dict[str, str] = {}
    for line in lines[1:-1]:
        match = NAME.match(line)
        prop = match[0].upper() if match else ""
        if prop in KEPT:
            kept.append(line)
            named.setdefault(prop, line)
        elif prop == "ATTENDEE" and declines(line, question.email):
            kept.append(f"{FREE_MARK}:1")
    if name == "VEVENT":
        if "DTSTART" not in named or is_ours(_value(named.get("UID", "")), question.domain):
            return []
        if not named.keys() & {"RRULE", "RDATE", "RECURRENCE-ID"} and _is_over(named, question):
            return []
        if TOO_OFTEN.search(named.get("RRULE", "")):
            raise Unreadable("intricate")
    return [f"BEGIN:{name}", *kept, f"END:{name}"]


def _value(line: str) -> str:
    return line.partition(":")[2].strip()


def _is_over(named: dict[str, str], question: Question) -> bool:
    """Whether its last day is long past, as its text says; in doubt it is not."""
    found = DAY.search(named.get("DTEND", "" if "DURATION" in named else named["DTSTART"]))
    if found is None:
        return False
    border = datetime.fromtimestamp(question.since, UTC) - 3 * ONE_DAY
    return found[1] < border.strftime("%Y%m%d")


def is_ours(uid: str, domain: str) -> bool:
    """Whether an event is of one of our own invitations, which she took into that calendar.

    Exchange wraps the UIDs of others into its own (MS-OXCICAL, 2.1.3.1.1.20.26).
    """
    if uid.upper().startswith(EXCHANGE_UID):
        try:
            uid = bytes.fromhex(uid).partition(EXCHANGE_FOREIGN)[2].rstrip(b"\0").decode("ascii")
        except ValueError:
            return False
    return re.fullmatch(f"{OWN_UID}@{re.escape(domain)}", uid, re.IGNORECASE) is not None


def declines(line: str, email: str) -> bool:
    """Whether this ATTENDEE is she herself, who has said no."""
    parameters, _, address = line.lower().rpartition("mailto:")
    return address.strip() == email.lower() and re.search(r";partstat=\"?declined\b", parameters) is not None


def makes_busy(event: Any) -> bool:
    """RFC 5545, 3.8.2.7 and 3.8.1.11; MS-OXCICAL, 2.1.3.1.1.20.31. A whole day does where it says nothing else."""
    if FREE_MARK in event or str(event.get("STATUS", "")).upper() == "CANCELLED":
        return False
    if str(event.get("X-MICROSOFT-CDO-BUSYSTATUS", "")).upper() == "FREE":
        return False
    return str(event.get("TRANSP", "")).upper() != "TRANSPARENT"


def to_range(start: date | datetime, end: date | datetime, zone: ZoneInfo) -> Range:
    """Both in UTC. A day that ends on itself, which RFC 5545, 3.8.2.2 forbids, is meant as a whole one."""
    if not isinstance(start, datetime) and start == end:
        end = start + ONE_DAY
    return to_instant(start, zone), to_instant(end, zone)


def to_instant(at: date | datetime, zone: ZoneInfo) -> datetime:
    """In UTC. A whole day and a floating time are the supervisor's own."""
    if not isinstance(at, datetime):
        at = datetime.combine(at, time())
    return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)


def free_busy(told: Any, zone: ZoneInfo) -> Iterator[Range]:
    """The periods of a VFREEBUSY that are not free (RFC 5545, 3.8.2.6 and 3.2.9)."""
    given = told.get("FREEBUSY", [])
    for one in given if isinstance(given, list) else [given]:
        if str(one.params.get("FBTYPE", "BUSY")).upper() != "FREE":
            yield from _periods(one, zone)


def _periods(one: Any, zone: ZoneInfo) -> Iterable[Range]:
    for period in getattr(one, "dts", [one]):
        start, end = period.dt if hasattr(period, "dt") else (period.start, period.end)
        end = start + end if isinstance(end, timedelta) else end
        yield to_range(start, end, zone)


def main() -> None:
    """Answer the question on the standard input."""
    limit = SECONDS + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    question = Question(**json.loads(sys.stdin.buffer.readline()))
    answer: dict[str, object]
    try:
        found = busy_times(sys.stdin.buffer.read(), question)
        answer = {"busy": [(start.timestamp(), end.timestamp()) for start, end in found]}
    except Unreadable as error:
        answer = {"error": str(error)}
    except Exception:  # whatever a library stumbles over in what strangers write
        answer = {"error": "no_calendar"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()

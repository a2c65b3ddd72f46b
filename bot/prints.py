"""A room as one page to read and to print: in its asker's language and zone, without scripts, asking for nothing.

What people wrote as HTML is cut down to what Matrix allows (1.18, "m.room.message msgtypes") without pictures, as they
would be fetched from somewhere. What is too deep or too long for that is shown as its plain text.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from babel.numbers import format_decimal
from bleach.sanitizer import Cleaner
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bot.events import Json
from supervision.texts import Reader

TAGS = frozenset(
    "h1 h2 h3 h4 h5 h6 blockquote p a ul ol sup sub li b i u strong em s del code hr br div span table thead tbody tr"
    " th td caption pre details summary".split()
)
MOST_HTML, MOST_TAGS = 100_000, 2_000  # characters, and opened tags, of one message
QUOTED = 160  # characters
SPOKEN = re.compile(r"(?is)<(script|style|mx-reply|svg|math|template)\b.*?(?:</\1\s*>|\Z)")
ANY_TAG = re.compile(r"<[^>]*>")
DOUBTS = {
    "not_encrypted": "export.doubt.not_encrypted",
    "wrong_sender": "export.doubt.wrong_sender",
    "forwarded_session": "export.doubt.device",
    "unsigned_device": "export.doubt.device",
    "changed_identity": "export.doubt.device",
    "unknown_device": "export.doubt.unknown_device",
}
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
MEMBERSHIPS = frozenset({"join", "leave", "invite", "ban"})

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Cover:
    """What stands above and around the events. `names` are those of the room's people by Matrix ID, the bot's too."""

    asker: str
    bot: str
    names: Mapping[str, str]
    reader: Reader
    made_at: datetime
    left_out: int = 0
    retained_since: datetime | None = None


def page(cover: Cover, records: Iterable[Json], quoted: set[str]) -> Iterator[str]:
    """The page, bit by bit. `records` are those of `room.json`; `quoted` the IDs of those that others answer to."""
    reader = cover.reader
    people = [name for user, name in cover.names.items() if user != cover.bot]
    return ENVIRONMENT.get_template("room.html").generate(
        language=reader.language,
        t=reader.say,
        count=reader.say_count,
        names=reader.list_names(people),
        asker=cover.names.get(cover.asker, cover.asker),
        when=f"{reader.day_of_year(cover.made_at)}, {reader.clock(cover.made_at)}",
        city=reader.city(),
        retained=reader.dated(cover.retained_since) if cover.retained_since else None,
        left_out=cover.left_out,
        events=Views(cover, records, quoted),
    )


class Views:
    """The records as the template shows them."""

    def __init__(self, cover: Cover, records: Iterable[Json], quoted: set[str]) -> None:
        self._cover = cover
        self._records = records
        self._quoted = quoted
        self._quotes: dict[str, Json] = {}
        self._day = ""
        self._cleaner = Cleaner(
            tags=TAGS, attributes={"a": ["href"], "ol": ["start"]}, protocols={"http", "https", "mailto"}, strip=True
        )

    def __iter__(self) -> Iterator[Json]:
        for record in self._records:
            if record["id"] in self._quoted:
                self._quotes[record["id"]] = self._quote(record)
            state = self._state(record)
            if record["state"] is not None and state is None:
                continue
            at = datetime.fromisoformat(record["time"])
            day = self._cover.reader.day_of_year(at)
            shown = {"day": day if day != self._day else None, "clock": self._cover.reader.clock(at), "state": state}
            self._day = day
            yield shown if state else shown | self._message(record)

    def _name(self, user: str) -> str:
        return self._cover.names.get(user, user)

    def _state(self, record: Json) -> str | None:
        """Who came and went, in words; None for all else that is no message."""
        state = record["state"]
        if state is None or state["membership"] not in MEMBERSHIPS:
            return None
        word, name = state["membership"], self._name(state["key"] or "")
        if word == "leave" and state["key"] != record["sender"]:
            word = "kick"
        return self._cover.reader.say(f"export.member.{word}", name=name)

    def _message(self, record: Json) -> Json:
        rich = self._rich(record["formatted"])
        text = record["text"]
        if record["kind"] == "m.emote" and text is not None:
            rich, text = None, f"* {self._name(record['sender'])} {text}"
        if text is None and record["file"] is None and not record["removed"] and not record["undecryptable"]:
            text = self._cover.reader.say("export.not_shown", kind=str(record["type"]))
        return {
            "anchor": anchor(record["id"]),
            "name": self._name(record["sender"]),
            "time": record["time"],
            "look": self._look(record["sender"]),
            "edited": self._edited(record),
            "thread": record["thread"] is not None,
            "quote": self._quotes.get(record["reply_to"] or record["thread"] or ""),
            "mark": self._mark(record),
            "gone": self._gone(record),
            "rich": rich,
            "text": text,
            "file": self._file(record["file"]),
            "reactions": self._reactions(record["reactions"]),
        }

    def _look(self, sender: str) -> str:
        return {self._cover.asker: "own", self._cover.bot: "bot"}.get(sender, "")

    def _rich(self, html: str | None) -> Markup | None:
        if not html or len(html) > MOST_HTML or html.count("<") > MOST_TAGS:
            return None
        try:
            clean = self._cleaner.clean(SPOKEN.sub("", html))
        except RecursionError:
            return None
        return Markup(clean) if ANY_TAG.sub("", clean).strip() else None  # noqa: S704 - cleaned

    def _edited(self, record: Json) -> str | None:
        if not record["edits"]:
            return None
        reader = self._cover.reader
        sent_at, at = (datetime.fromisoformat(time) for time in (record["time"], record["edits"][-1]["time"]))
        day = reader.day_of_year(at)
        return reader.clock(at) if day == reader.day_of_year(sent_at) else f"{day}, {reader.clock(at)}"

    def _mark(self, record: Json) -> str | None:
        """What speaks against its coming from whose name stands there."""
        doubts = [record["doubt"], *(edit.get("doubt") for edit in record["edits"])]
        key = next((DOUBTS[doubt] for doubt in doubts if doubt in DOUBTS), None)
        unread = any(edit.get("undecryptable") for edit in record["edits"])
        if key is None and unread:
            key = "export.edit_not_read"
        return None if key is None else self._cover.reader.say(key, name=self._name(record["sender"]))

    def _gone(self, record: Json) -> str | None:
        if record["removed"] is not None:
            by = record["removed"]["by"]
            if by is None or by == record["sender"]:
                return self._cover.reader.say("export.removed")
            return self._cover.reader.say("export.removed_by", name=self._name(by))
        if record["undecryptable"] is not None:
            return self._cover.reader.say(f"export.not_read.{record['undecryptable']}")
        return None

    def _file(self, file: Json | None) -> Json | None:
        if file is None:
            return None
        name = file["name"] or self._cover.reader.say("export.file")
        if file.get("path") is None:
            return {"name": name, "missing": self._cover.reader.say(f"export.missing.{file.get('missing')}")}
        kind = str(file["type"])
        preview = file["preview"] or (file["path"] if kind in PICTURES else None)
        about = [kind, size_of(file["size"], self._cover.reader)]
        if file["width"] and file["height"]:
            about.append(f"{file['width']} × {file['height']}")
        if file["duration_ms"]:
            seconds = round(file["duration_ms"] / 1000)
            about.append(f"{seconds // 60}:{seconds % 60:02}")
        return {
            "name": name,
            "missing": None,
            "path": quote(file["path"]),
            "picture": preview and quote(preview),
            "look": kind.partition("/")[0],
            "width": file["width"],
            "height": file["height"],
            "about": " · ".join(about),
        }

    def _reactions(self, reactions: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for one in reactions:
            by_key[one["key"][:40]].append(self._name(one["sender"]))
        return [(key, ", ".join(dict.fromkeys(names))) for key, names in by_key.items()]

    def _quote(self, record: Json) -> Json:
        text = record["text"] or (record["file"] or {}).get("name") or self._gone(record) or "…"
        short = " ".join(text.split())
        shown = short if len(short) <= QUOTED else f"{short[:QUOTED]}…"
        return {"anchor": anchor(record["id"]), "name": self._name(record["sender"]), "text": shown}


def anchor(event_id: str) -> str:
    """An event's place within the page, whatever characters its ID has."""
    return f"e-{hashlib.sha256(event_id.encode('utf-8', 'replace')).hexdigest()[:20]}"


def size_of(size: int, reader: Reader) -> str:
    """Bytes as people read them, in decimal units."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if size >= factor:
            return f"{format_decimal(size / factor, '0.#', locale=reader.locale)} {unit}"
    return f"{size} B"

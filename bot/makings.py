"""What the file of a room that is taken home is made of: a ZIP with a page to read, the same as JSON, and the files.

Nothing readable of it touches a disk: what is compressed goes sealed into the database in pieces of a megabyte, and a
file that waits to be checked lies on the disk encrypted with a key that this process alone has. A try that is
interrupted leaves pieces that nobody can put together; the next one begins anew. Loaded when the first file is made.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import IO, Protocol

import structlog
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from bot import prints
from bot.client import Client
from bot.events import Json
from bot.history import Past, read_room
from bot.kinds import Look
from bot.media import FAILING, Media, Source, Unreadable
from bot.prints import Cover
from bot.records import Enclosed, Records, instant
from supervision import exports
from supervision.db import Database
from supervision.errors import Transient
from supervision.exports import CHUNK, Export, Seal
from supervision.pairs import Pair
from supervision.texts import Reader, reader

log = structlog.get_logger(__name__)

FORMAT, VERSION = "visavis-room", 1
LONG_EVENTS, LONG_TIME = 2_000, timedelta(minutes=2)  # from which on it is told that it takes a while
IN_MEMORY = 1 << 20  # bytes of a file that are not on the disk yet
PIECE = 64 * 1024  # bytes
MOST_FILE = 1_000_000_000  # bytes: the largest that a room's settings can allow
LONGEST_NAME = 100  # characters
TRIES_OF_A_FILE = 3  # that our homeserver, which answers, fails to give
LATE_IN_TURN = 5  # files of another homeserver's, after which it is not waited for again
UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")  # names that Windows keeps for itself


class Maker(Protocol):
    """Whoever has it made (bot.exports)."""

    database: Database
    client: Client
    clock: Callable[[], datetime]
    secret: str
    media: Media


class Making:
    """One try at one export."""

    def __init__(self, maker: Maker, export: Export, pair: Pair) -> None:
        self.maker = maker
        self.export = export
        self.pair = pair
        self.asker = pair.member(export.person_id)
        self.reader: Reader = reader(self.asker.language, self.asker.time_zone)
        self.began_at = maker.clock()
        self.records = Records(self.asker.matrix_id or "")
        self.sink = _Sink(maker.database, Seal(maker.secret, export.id, export.salt or b""), export)
        self.zip = zipfile.ZipFile(self.sink, "w")
        self.files: dict[str, Json] = {}
        self.late: Counter[str] = Counter()  # by homeserver
        self.told = False

    async def run(self) -> None:
        """Read all of it, then write the file: what explains it, the files, the JSON, the page."""
        await self._read()
        async with self.maker.database.transaction() as tx:
            retained = await exports.retained_since(tx, self.pair.id)
        cover = self._cover(retained)
        await self._write_text("README.txt", iter([self._readme(cover)]))
        for number, enclosed in enumerate(self.records.enclosed, start=1):
            self.files[enclosed.event_id] = await self._enclose(number, enclosed)
            await self._tell_if_long()
        await self._write_text("room.json", self._as_json(cover))
        await self._write_text("room.html", prints.page(cover, self._completed(), self.records.quoted))
        self.zip.close()
        await self.sink.drain(last=True)

    async def _read(self) -> None:
        async for page in read_room(self.maker.client, self.pair.room_id or ""):
            await asyncio.to_thread(self._take, page)
            async with self.maker.database.transaction() as tx:
                await exports.note(tx, self.export.id, events=self.records.count)
            await self._tell_if_long()

    def _take(self, page: list[Past]) -> None:
        for past in page:
            self.records.take(past)

    async def _tell_if_long(self) -> None:
        """Once it is clear that it takes a while, the asker is told so in the room."""
        long = self.records.count > LONG_EVENTS or self.maker.clock() - self.began_at > LONG_TIME
        if long and not self.told:
            self.told = True
            async with self.maker.database.transaction() as tx:
                await exports.tell_started(tx, self.export, self.pair, now=self.maker.clock())

    def _cover(self, retained: datetime | None) -> Cover:
        names = {one.matrix_id: one.name for one in self.pair.people if one.matrix_id}
        bot = self.maker.client.user_id
        asker = self.asker.matrix_id or ""
        return Cover(asker, bot, {**names, bot: "Visavis"}, self.reader, self.began_at, self.records.left_out, retained)

    def _readme(self, cover: Cover) -> str:
        made_at = f"{self.reader.day_of_year(cover.made_at)}, {self.reader.clock(cover.made_at)} ({self.reader.city()})"
        names = self.reader.list_names([one.name for one in self.pair.people])
        return self.reader.say("export.readme", names=names, when=made_at, name=self.asker.name) + "\n"

    def _completed(self) -> Iterator[Json]:
        """The records with what their files turned out to be."""
        for record in self.records:
            found = self.files.get(record["id"])
            yield record if found is None else record | {"file": record["file"] | found}

    def _as_json(self, cover: Cover) -> Iterator[str]:
        """One event a line, so that it can be read line by line, too."""
        roles = (("supervisor", self.pair.supervisor), ("supervisee", self.pair.supervisee))
        head = {
            "format": FORMAT,
            "version": VERSION,
            "made_at": instant(cover.made_at),
            "made_for": cover.asker,
            "room": self.pair.room_id,
            "people": [{"id": one.matrix_id, "name": one.name, "role": role} for role, one in roles],
            "bot": cover.bot,
            "retained_since": instant(cover.retained_since) if cover.retained_since else None,
            "left_out": cover.left_out,
        }
        yield _json(head).removesuffix("}") + ',"events":['
        for number, record in enumerate(self._completed()):
            yield f"{',' if number else ''}\n{_json(record)}"
        yield "\n]}\n"

    # Writing

    async def _write_text(self, name: str, pieces: Iterator[str]) -> None:
        """A text made bit by bit beside the event loop, as making it takes long."""
        entry = self._entry(name, self.began_at, zipfile.ZIP_DEFLATED)
        with self.zip.open(entry, "w", force_zip64=True) as target:
            while piece := await asyncio.to_thread(_gather, pieces):
                await asyncio.to_thread(target.write, piece)
                await self.sink.drain()
        await self.sink.drain()

    async def _enclose(self, number: int, enclosed: Enclosed) -> Json:
        """Put an event's file and its preview into the ZIP; what is known of them then, for the record."""
        name = safe_name(enclosed.name)
        found = await self._put(f"files/{number:04}-{name}", enclosed.file, enclosed.sent_at)
        preview = None
        if isinstance(found, _Put) and enclosed.preview is not None:
            preview = await self._put(f"files/{number:04}-preview", enclosed.preview, enclosed.sent_at, preview=True)
        shown = preview.path if isinstance(preview, _Put) and preview.type in prints.PICTURES else None
        if isinstance(found, str):
            return {"type": None, "size": None, "path": None, "preview": None, "missing": found}
        return {"type": found.type, "size": found.size, "path": found.path, "preview": shown, "missing": None}

    async def _put(self, path: str, source: Source | None, sent_at: datetime, *, preview: bool = False) -> _Put | str:
        """Fetch, check and put a file; or the word for why it is missing."""
        if source is None:
            return "undecipherable"
        if self.late[source.server] >= LATE_IN_TURN:
            return "late"
        with _Spool() as spool:
            look = Look()
            try:
                async for piece in self.maker.media.read(source, most=MOST_FILE):
                    look.feed(piece)
                    spool.write(piece)
            except Unreadable as unreadable:
                if unreadable.code == "late" and not self.maker.media.is_ours(source):
                    self.late[source.server] += 1
                return unreadable.code
            except Transient as failure:
                if failure.code not in FAILING or self.export.attempts < TRIES_OF_A_FILE:
                    raise
                return "late"  # or nothing of the room could be taken home
            del self.late[source.server]
            kind = look.found().type
            if preview and kind not in prints.PICTURES:
                return "undecipherable"
            path += f".{kind.partition('/')[2]}" if preview else ""
            with self.zip.open(self._entry(path, sent_at, zipfile.ZIP_STORED), "w", force_zip64=True) as target:
                for piece in spool.pieces():
                    target.write(piece)
                    await self.sink.drain()
            await self.sink.drain()
        return _Put(path, kind, look.size)

    def _entry(self, name: str, at: datetime, compression: int) -> zipfile.ZipInfo:
        local = at.astimezone(self.reader.zone)
        stamp = (max(1980, local.year), local.month, local.day, local.hour, local.minute, local.second)
        entry = zipfile.ZipInfo(name, stamp)
        entry.compress_type = compression
        entry.external_attr = 0o600 << 16
        return entry


@dataclass(frozen=True)
class _Put:
    path: str
    type: str
    size: int


class _Sink:
    """What the ZIP is written to: full pieces go sealed into the database, one transaction each."""

    def __init__(self, database: Database, seal: Seal, export: Export) -> None:
        self._database = database
        self._seal = seal
        self._export = export
        self._position = 0
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        self._waiting += data
        return len(data)

    def flush(self) -> None:
        """What is written waits for `drain`."""

    def close(self) -> None:
        """There is nothing to let go of."""

    async def drain(self, *, last: bool = False) -> None:
        """Put what fills a piece; with `last` all. The last piece is sealed as such, so one is kept back until then."""
        while len(self._waiting) > CHUNK:
            await self._put(last=False)
        if last:
            await self._put(last=True)

    async def _put(self, *, last: bool) -> None:
        piece = bytes(self._waiting[:CHUNK])
        del self._waiting[:CHUNK]
        sealed = self._seal.lock(self._position, piece, last=last)
        async with self._database.transaction() as tx:
            await exports.put(tx, self._export.id, self._position, sealed, size=len(piece))
        self._position += 1


class _Spool:
    """A file that waits to be checked: what does not fit into memory is on the disk, encrypted with a passing key."""

    def __init__(self) -> None:
        self._key, self._counter = secrets.token_bytes(32), secrets.token_bytes(16)
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)
        self._closing = self._cipher()

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _cipher(self) -> CipherContext:
        return Cipher(AES256(self._key), CTR(self._counter)).encryptor()

    def write(self, piece: bytes) -> None:
        self._file.write(self._closing.update(piece))

    def pieces(self) -> Iterator[bytes]:
        """All of it, from the beginning."""
        self._file.seek(0)
        opening = self._cipher()  # CTR opens as it closes
        while piece := self._file.read(PIECE):
            yield opening.update(piece)


def safe_name(name: str) -> str:
    """A file's name that every system takes, and that does not look like another."""
    plain = UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(" .")
    if RESERVED.fullmatch(plain):
        plain = f"_{plain}"
    path = PurePosixPath(plain or "file")
    ending = path.suffix[:16]
    return path.name[: LONGEST_NAME - len(ending)].removesuffix(ending) + ending


def _gather(pieces: Iterator[str]) -> bytes:
    """The next bit of a text, large enough to be worth a step; empty at its end."""
    gathered, size = [], 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= PIECE:
            break
    return "".join(gathered).encode("utf-8", "replace")


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

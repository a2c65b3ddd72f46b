"""The room's rules about files: each is judged after decrypting, by content, size and name; a breach is taken down.

A file is judged once, with its thumbnail and whatever else its event shows. What breaks a rule is noted as refused and
its media given to the homeserver's administrator for deletion in one transaction; then its event is redacted, as often
as it takes; then its sender is told why.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from bot import kinds, media
from bot.client import Client
from bot.customs import name_kinds
from bot.events import Doubt, Incoming
from bot.kinds import Found, Look
from bot.media import FAILING, Media, Named, Source, Unreadable
from bot.replies import Line, Reply
from supervision import attachments, audit, pairs, rooms, seals
from supervision.audit import Actor
from supervision.config import RoomsConfig
from supervision.db import Database, Transaction
from supervision.errors import NotFound, Permanent, Transient
from supervision.models import FileKind
from supervision.pairs import Pair
from supervision.rooms import RoomSettings
from supervision.texts import reader

log = structlog.get_logger()
FILES = Counter("visavis_files_total", "Files in rooms by outcome", ["outcome"])

AT_ONCE = 2  # files that are fetched side by side, so that many rooms do not take the machine
MOST_IN_ONE = 50  # files that one event may show
FORWARDED = timedelta(seconds=10)  # in which a file that one room refuses may come into another, which takes it
PATIENCE = timedelta(minutes=1)  # with a file that is still being uploaded, or on a homeserver that is away
REMEMBERED = 1_000
MOST_TRIES = 5  # of a file that our homeserver, which answers, is too slow with or fails to give


@dataclass(frozen=True)
class Judged:
    """What became of an event's files: `refused` says why they are taken down, `told` what their sender has to know.

    Files that could not be had or not be decrypted stay, because nobody can open them; their sender is told.
    """

    media: tuple[str, ...]
    refused: str | None = None
    told: Line | None = None
    allowed: tuple[FileKind, ...] = ()  # to be named with `told`
    name: str | None = None
    type: str | None = None
    size: int = 0

    @property
    def outcome(self) -> str:
        """A static word for the journal."""
        return f"file.{self.refused}" if self.refused else "file.kept" if self.type else "file.unread"


@dataclass
class _Rules:
    """What the room allows, and what was seen so far of one event."""

    settings: RoomSettings
    size: int = 0
    found: list[Found] = field(default_factory=list)


class _Breach(Exception):
    """A rule of the room is broken; `reason` is a static word."""

    def __init__(self, reason: str, **params: object) -> None:
        self.reason = reason
        self.line = Line(f"files.{reason}", params)
        super().__init__(reason)


class Files:
    """Judges the files in the rooms of one bot account."""

    def __init__(
        self, database: Database, client: Client, clock: Callable[[], datetime], defaults: RoomsConfig, secret: str
    ) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.defaults = defaults
        self.secret = secret
        self.server_name = client.user_id.partition(":")[2]
        self._media = Media(client.account.homeserver, client.homeserver, self.server_name)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._late: OrderedDict[str, datetime] = OrderedDict()  # what was not there yet -> when it was first asked for
        self._failures: OrderedDict[str, int] = OrderedDict()  # event -> tries that failed

    async def judge(self, event: Incoming) -> Judged | None:
        """Fetch an event's files and say what holds of them; None where that was done, or the room is no pair's.

        Raises Transient where that has to be tried again.
        """
        found = media.find(event.content)
        async with self.database.transaction() as tx:
            try:
                pair = await pairs.by_room(tx, event.room_id)
            except NotFound:
                return None
            if await attachments.is_noted(tx, event.event_id):
                return None
            settings = await rooms.of(tx, pair.id, self.defaults)
        judged = await self._judge(event, found, settings)
        self._late.pop(event.event_id, None)
        self._failures.pop(event.event_id, None)
        FILES.labels(judged.refused or ("unread" if judged.told else "kept")).inc()
        return judged

    async def _judge(self, event: Incoming, found: Sequence[Named], settings: RoomSettings) -> Judged:
        rules = _Rules(settings)
        addresses = tuple(dict.fromkeys(one.source.mxc for one in found if one.source.server))
        refused = told = None
        try:
            _require_allowed(event, found, settings)
            by_source: dict[Source, list[Named]] = {}
            for one in found:
                by_source.setdefault(one.source, []).append(one)
            for source, named in by_source.items():
                await self._require_within(event, source, named, rules)
        except _Breach as breach:
            refused, told = breach.reason, breach.line
        except Unreadable as unreadable:
            told = Line(f"files.{unreadable.code}")
        name = next((one.name for one in found if one.name and not one.is_preview), None)
        if event.event_type == "m.sticker":
            name = None
        kind = rules.found[0].type if rules.found else None
        return Judged(addresses, refused, told, settings.ordered_kinds, name, kind, rules.size)

    async def _require_within(self, event: Incoming, source: Source, named: Sequence[Named], rules: _Rules) -> None:
        """Fetch one file and hold it against the rules. Raises _Breach, Unreadable, Transient."""
        try:
            look = await self._look(source, rules.settings.most_bytes)
        except Transient as failure:
            if failure.code not in FAILING or self._is_worth_another_try(event):
                raise
            raise _Breach("late") from failure  # or its room would wait for it for ever
        except Unreadable as unreadable:
            if unreadable.code == "too_large":
                raise _Breach("too_large", megabytes=rules.settings.megabytes) from unreadable
            if unreadable.code != "late":
                raise
            if self._is_patient(event):
                raise Transient("file_not_there_yet", retry_after=5) from unreadable
            raise _Breach("late") from unreadable  # it could still come, and nobody would have judged it
        what = look.found()
        if what.runs:
            raise _Breach("program")
        if any(one.is_preview for one in named) and what.kind is not FileKind.IMAGE:
            raise _Breach("preview")
        if any(kinds.contradicts(one.name or "", what.kind) for one in named):
            raise _Breach("contradicts")
        if not all(one.is_preview for one in named):
            if what.kind not in rules.settings.kinds:
                raise _Breach("unknown" if what.kind is None else "kind")
            rules.found.append(what)
            rules.size += look.size

    async def _look(self, source: Source, most: int) -> Look:
        look = Look()
        async with self._places:
            async for piece in self._media.read(source, most=most):
                look.feed(piece)
        return look

    def _is_patient(self, event: Incoming) -> bool:
        """Whether to wait on for a file that may come yet."""
        now = self.clock()
        first = self._late[event.event_id] = min(self._late.get(event.event_id, now), now)  # a clock may be set back
        while len(self._late) > REMEMBERED:
            self._late.popitem(last=False)
        return now - first < PATIENCE

    def _is_worth_another_try(self, event: Incoming) -> bool:
        """Whether our homeserver is asked again for a file that it fails to give."""
        tries = self._failures[event.event_id] = self._failures.get(event.event_id, 0) + 1
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
        return tries < MOST_TRIES

    # What the caller's transaction writes

    async def note(self, tx: Transaction, event: Incoming, pair: Pair, actor: Actor, judged: Judged) -> Reply:
        """Note what was judged, once, and give away what has to be deleted; the sentence for its sender, if any."""
        person = pair.member(actor.person_id)
        edits = event.relates_to if event.is_edit and not judged.refused else None
        if edits and await attachments.shows(tx, edits, person.id, judged.media):
            return Reply(())  # as where a caption is edited: it is seen, and taken back, with what it edits
        new = await attachments.note(
            tx,
            event.event_id,
            pair.id,
            person.id,
            media=judged.media,
            locked_name=seals.lock(self.secret, judged.name) if judged.name and not judged.refused else None,
            type=judged.type,
            size=judged.size if judged.type else None,
            sent_at=event.sent_at,
            refused=judged.refused,
        )
        if not new:
            return Reply(())
        if judged.refused:
            await audit.record(
                tx, actor, "file.share", "pair", pair.id, now=self.clock(), success=False, reason=judged.outcome
            )
            free = await attachments.unused(tx, judged.media)
            await attachments.give_away(tx, pair.id, free, self.server_name, after=FORWARDED, now=self.clock())
        if judged.told is None:
            return Reply(())
        shown = name_kinds(reader(person.language, person.time_zone), judged.allowed)
        return Reply((Line(judged.told.key, {**judged.told.params, "kinds": shown}),))

    async def take_back(self, event: Incoming) -> bool:
        """Somebody redacted an event of their own: if it was a file, it goes from the list and from the homeserver."""
        async with self.database.transaction() as tx:
            try:
                pair = await pairs.by_room(tx, event.room_id)
            except NotFound:
                return False
            person = next((one for one in pair.people if one.matrix_id == event.sender), None)
            if person is None or event.relates_to is None:
                return False
            gone = await attachments.take_back(tx, event.relates_to, person.id, now=self.clock())
            if gone is not None:
                actor = Actor(person.id, "matrix", device=event.device_id)
                await audit.record(tx, actor, "file.take_back", "pair", pair.id, now=self.clock())
                await attachments.give_away(tx, pair.id, gone, self.server_name, now=self.clock())
            return gone is not None

    # After it

    async def take_down(self, room_id: str, event_id: str) -> None:
        """Redact the event of a refused file, unless that is done. Raises Transient where it has to be tried again."""
        async with self.database.transaction() as tx:
            if not await attachments.is_open_breach(tx, event_id):
                return
        name = hashlib.sha256(event_id.encode()).hexdigest()[:32]
        try:
            await self.client.redact(room_id, event_id, transaction_id=f"file-{name}")
        except Permanent as refused:  # nothing can be done but to let it be seen
            log.error("file.not_redacted", event_id=event_id, code=refused.code)
        async with self.database.transaction() as tx:
            await attachments.note_removed(tx, event_id, now=self.clock())


def is_shown(event: Incoming) -> bool:
    """Whether an event shows files; what only looks like one shows none."""
    return event.kind not in ("reaction", "redaction", "undecryptable") and bool(media.find(event.content))


def _require_allowed(event: Incoming, found: Sequence[Named], settings: RoomSettings) -> None:
    """What can be said before anything is fetched. Raises _Breach."""
    if not settings.attachments:
        raise _Breach("off")
    if event.doubt is Doubt.not_encrypted:
        raise _Breach("clear")
    if len(found) > MOST_IN_ONE:
        raise _Breach("many", most=MOST_IN_ONE)
    for one in found:
        name = None if event.event_type == "m.sticker" else one.name
        if name is not None and kinds.is_unsafe(name):
            raise _Breach("name")
        if kinds.is_program(name or "", one.claimed):
            raise _Breach("program")

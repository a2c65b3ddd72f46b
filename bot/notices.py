"""Delivers the outbox channel `matrix`: renders what is to be said, sends it, notes what became of it."""

import asyncio
import contextlib
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import bleach
import markdown
import structlog
from prometheus_client import Counter

from bot.client import Client
from bot.events import Json, LoggedOut, NobodyToHear, StrangerInRoom
from bot.greetings import greet
from bot.news import Message, compose, compose_reply
from bot.quiet import keep_back
from bot.replies import Line, is_item, shown_key
from supervision import notifications, pairs, questions
from supervision.db import DATABASE_AWAY, Database, listen
from supervision.errors import DeliveryFailed, Permanent, Transient
from supervision.models import Channel, State
from supervision.notifications import Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.texts import reader

log = structlog.get_logger()
DELIVERED = Counter("visavis_matrix_notices_total", "Notifications of the channel matrix by outcome", ["outcome"])

REPLIES_FIRST = 0.5  # seconds that news waits for answers at most
REMEMBERED = timedelta(hours=23)  # Synapse keeps transaction IDs for a day
STOPPED_FOR = 600.0  # seconds between tries of an answer in a room that is stopped; what mends it says so at once
SAFETY_NET = 30.0  # seconds between polls when nothing wakes the loop
TAGS = frozenset({"p", "ol", "ul", "li"})
# Marks that turn the direction of writing (Unicode 16, Bidi_Control), and controls that are no space.
UNSAID = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
UNSAID |= dict.fromkeys(code for code in (*range(0x20), *range(0x7F, 0xA0)) if not chr(code).isspace())
HEAD = re.compile(r"^(\d*)([#+.)-])")  # what would begin a heading or a list


class RoomStopped(Transient):
    """Nothing is said in a room that is not as it has to be (see keeping.py), or that waits for somebody's account."""

    def __init__(self) -> None:
        super().__init__("room_stopped", retry_after=STOPPED_FOR)


class Notices:
    """Speaks for one bot account. `clock` gives aware UTC."""

    def __init__(self, database: Database, client: Client, clock: Callable[[], datetime]) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.wake = asyncio.Event()
        self._sending: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reacting: set[asyncio.Task[None]] = set()
        self._unsettled: list[Notification] = []
        self._replies = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def run(self) -> None:
        """Deliver what is due, for ever. A database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(self.database, "visavis_matrix", self.wake))
            while True:
                self.wake.clear()
                await self._let_replies_go_first()
                try:
                    found = await self.deliver_due()
                    wait = 0.0 if found else await self._seconds_to_next()
                except DATABASE_AWAY as error:
                    log.warning("notices.database_away", error=type(error).__name__)
                    wait = 2.0
                if wait:
                    # Not wait_for: in Python 3.11 it can swallow a cancellation that meets the wake-up.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await self.wake.wait()

    async def stop(self) -> None:
        """Once nothing is delivered any more: leave the reactions that are on their way to the next start."""
        for task in self._reacting:
            task.cancel()
        await asyncio.gather(*self._reacting, return_exceptions=True)

    async def deliver_due(self) -> int:
        """Claim and deliver one batch, rooms side by side and each in order. Returns how many were claimed."""
        await self._give_back()
        async with self.database.transaction() as tx:
            claimed = await notifications.claim(tx, Channel.MATRIX, now=self.clock(), most=50, bot=self.client.user_id)
            known = {pair_id: await pairs.get(tx, pair_id) for pair_id in {n.pair_id for n in claimed} if pair_id}
        rooms: dict[uuid.UUID, list[Notification]] = defaultdict(list)
        for notification in claimed:
            if notification.pair_id is not None:
                rooms[notification.pair_id].append(notification)
        async with asyncio.TaskGroup() as group:
            for pair_id, of_room in rooms.items():
                group.create_task(self._deliver_in_order(known[pair_id], of_room))
        return len(claimed)

    async def deliver(self, notification: Notification, pair: Pair) -> None:
        """Send one claimed notification and settle it; a failure is planned anew, never raised."""
        try:
            await self._send(notification, pair)
        except RoomStopped as stopped:
            if notification.kind == "reply":
                await self._fail(notification, stopped)  # an answer waits until the room is well again, or for a day
                return
            await self._keep_for_later(notification, pair)
            DELIVERED.labels("waiting").inc()
            await greet(self.database, self.client, pair.room_id or "", self.clock)  # it may be well again by now
        except NobodyToHear:
            await self._wait(notification, pair)
        except StrangerInRoom as failure:
            await self._alarm(pair)
            await self._fail(notification, failure)
        except DeliveryFailed as failure:
            await self._fail(notification, failure)

    def keep(self, unsettled: Sequence[Notification]) -> None:
        """Take note of what a database that went away left claimed: its lease would last a minute."""
        self._unsettled.extend(unsettled)
        self.wake.set()

    async def _give_back(self) -> None:
        """Plan anew what was kept."""
        while self._unsettled:
            notification = self._unsettled[0]
            async with self.database.transaction() as tx:
                await notifications.settle_failed(
                    tx,
                    notification,
                    "database_away",
                    now=self.clock(),
                    backoff=notifications.MATRIX_BACKOFF,
                )
            self._unsettled.remove(notification)

    @contextlib.contextmanager
    def replying(self) -> Iterator[None]:
        """While somebody waits for the answer to a command, news does not compete with it for the homeserver."""
        self._replies += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._replies -= 1
            if not self._replies:
                self._quiet.set()

    async def _let_replies_go_first(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPLIES_FIRST):
                await self._quiet.wait()

    def lock(self, room_id: str) -> asyncio.Lock:
        """Held while a message is sent and noted: who holds it knows every event of ours in that room."""
        return self._sending[room_id]

    async def _deliver_in_order(self, pair: Pair, of_room: Sequence[Notification]) -> None:
        for place, notification in enumerate(of_room):
            try:
                await self.deliver(notification, pair)
            except DATABASE_AWAY as error:
                log.warning("notices.database_away", error=type(error).__name__)
                self.keep(of_room[place:])
                return
            except LoggedOut:
                raise
            except Exception as error:
                log.exception("notification.parked", id=str(notification.id), error=type(error).__name__)
                await self._park(notification, "not_rendered")

    async def _send(self, notification: Notification, pair: Pair) -> None:
        if pair.removed_at is not None:
            async with self.database.transaction() as tx:
                await notifications.settle_superseded(tx, notification.id, now=self.clock())
            return
        if pair.fault is not None or not all(person.matrix_id for person in pair.people):
            raise RoomStopped
        if pair.room_id is None:
            raise Transient("no_room_yet", retry_after=5)
        message: Message | None
        if notification.kind == "reply":
            message = compose_reply(notification)  # needs nothing that is not in it, and somebody is waiting
        else:
            async with self.database.transaction() as tx:
                message = await compose(tx, notification, pair, now=self.clock())
                kept = message and await keep_back(tx, notification, pair, message, now=self.clock())
            if kept:
                DELIVERED.labels(kept).inc()
                return
        person = next(person for person in pair.people if person.id == notification.person_id)
        if message is None:
            async with self.database.transaction() as tx:
                await notifications.settle_superseded(tx, notification.id, now=self.clock())
            return
        if message.mentions:
            await self.client.wait_until_synced()  # before that, nobody seems to be in any room
            self._require_readers(pair.room_id, message.mentions)
        await self.send_message(await self._look_up(notification, pair.room_id), pair, pair.room_id, person, message)

    async def _look_up(self, notification: Notification, room_id: str) -> Notification:
        """With its event, if an earlier try sent it so long ago that its transaction ID may be forgotten."""
        long_ago = self.clock() - notification.created_at > REMEMBERED
        if notification.attempts < 2 or notification.matrix_event_id or not long_ago:
            return notification
        found = await self.client.find_sent(room_id, str(notification.id), since=notification.created_at)
        return replace(notification, matrix_event_id=found)

    async def send_message(
        self, notification: Notification, pair: Pair, room_id: str, person: Person, message: Message
    ) -> None:
        """Send and note a composed message, then put its reactions and settle it."""
        expected = [one.matrix_id for one in pair.people if one.matrix_id]
        async with self.lock(room_id):
            # Noted by an earlier try that did not get as far as its reactions.
            event_id = notification.matrix_event_id or await self.client.send(
                room_id,
                "m.room.message",
                render(message, person, self.clock()),
                transaction_id=str(notification.id),
                expected=expected,
            )
            async with self.database.transaction() as tx:
                if message.asked is not None:
                    await questions.put(tx, message.asked, now=self.clock())
                if message.keys:
                    await notifications.note_event(tx, notification.id, event_id)
                else:
                    await notifications.settle_sent(tx, notification.id, now=self.clock(), matrix_event_id=event_id)
        DELIVERED.labels("sent").inc()
        if message.keys:
            task = asyncio.create_task(self._react(notification, room_id, event_id, message.keys))
            self._reacting.add(task)
            task.add_done_callback(self._reacting.discard)

    async def say_unrecorded(self, pair: Pair, person: Person, lines: tuple[Line, ...], transaction_id: str) -> None:
        """Say something that the database cannot remember just now; what cannot be said is dropped."""
        with contextlib.suppress(DeliveryFailed):
            await self.client.send(
                pair.room_id or "",
                "m.room.message",
                render(Message(lines), person, self.clock()),
                transaction_id=transaction_id,
                expected=[one.matrix_id for one in pair.people if one.matrix_id],
            )

    async def _react(self, notification: Notification, room_id: str, event_id: str, keys: Sequence[str]) -> None:
        """Put the reactions and settle. Where that fails the lease brings all of it back, as the same events."""
        try:
            for number, key in enumerate(keys):
                await self.client.react(room_id, event_id, shown_key(key), transaction_id=f"{notification.id}-{number}")
            async with self.database.transaction() as tx:
                await notifications.settle_sent(tx, notification.id, now=self.clock(), matrix_event_id=event_id)
        except Permanent as refused:
            log.warning("notice.without_reactions", id=str(notification.id), code=refused.code)
            with contextlib.suppress(*DATABASE_AWAY):
                async with self.database.transaction() as tx:
                    await notifications.settle_sent(tx, notification.id, now=self.clock(), matrix_event_id=event_id)
        except DeliveryFailed as error:
            log.warning("notice.not_settled", id=str(notification.id), error=type(error).__name__)
        except DATABASE_AWAY as error:
            log.warning("notice.not_settled", id=str(notification.id), error=type(error).__name__)
            self.keep([notification])
        finally:
            self.wake.set()  # later news of the same appointment waited for this one

    def _require_readers(self, room_id: str, people: Sequence[Person]) -> None:
        """Raise NobodyToHear unless each of these can read the room; Transient while that is not known yet."""
        for person in people:
            user_id = person.matrix_id or ""
            if self.client.can_read(room_id, user_id):
                continue
            if self.client.members(room_id).get(user_id) == "join" and self.client.trust(user_id) is None:
                raise Transient("devices_unknown", retry_after=1)
            raise NobodyToHear

    async def _wait(self, notification: Notification, pair: Pair) -> None:
        """News waits for its person's first trusted device; an answer that nobody can read is dropped."""
        room_id = pair.room_id or ""
        person = pair.member(notification.person_id)
        if self.client.can_read(room_id, person.matrix_id or ""):
            await self._fail(notification, Transient("devices_out_of_keys", retry_after=15))
            return
        await self._keep_for_later(notification, pair)
        DELIVERED.labels("waiting").inc()
        await greet(self.database, self.client, room_id, self.clock)  # a device may have come before the commit

    async def _keep_for_later(self, notification: Notification, pair: Pair) -> None:
        async with self.database.transaction() as tx:
            match notification.kind:
                case "reply":
                    await notifications.settle_superseded(tx, notification.id, now=self.clock())
                case "room.introduction":
                    await notifications.settle_superseded(tx, notification.id, now=self.clock())
                    await pairs.unset_introduced(tx, pair, [uuid.UUID(one) for one in notification.details["people"]])
                case _:
                    await notifications.let_wait(tx, notification.id, now=self.clock())

    async def _fail(self, notification: Notification, failure: DeliveryFailed) -> None:
        if isinstance(failure, LoggedOut):
            raise failure
        retry_after = failure.retry_after if isinstance(failure, Transient) else None
        async with self.database.transaction() as tx:
            state = await notifications.settle_failed(
                tx,
                notification,
                failure.code,
                now=self.clock(),
                backoff=notifications.MATRIX_BACKOFF,
                permanent=not isinstance(failure, Transient),
                retry_after=retry_after,
            )
        DELIVERED.labels("parked" if state is State.PARKED else "retry").inc()
        log.warning("notice.not_sent", id=str(notification.id), code=failure.code, state=state)

    async def _alarm(self, pair: Pair) -> None:
        """Nothing is said in a room with an extra member; that it is silent has to be known."""
        async with self.database.transaction() as tx:
            if await pairs.alarm_stranger(tx, pair, now=self.clock()):
                log.error("room.stranger", pair=str(pair.id))

    async def _park(self, notification: Notification, code: str) -> None:
        async with self.database.transaction() as tx:
            await notifications.settle_failed(
                tx,
                notification,
                code,
                now=self.clock(),
                backoff=notifications.MATRIX_BACKOFF,
                permanent=True,
            )
        DELIVERED.labels("parked").inc()

    async def _seconds_to_next(self) -> float:
        async with self.database.transaction() as tx:
            due = await notifications.next_due(tx, Channel.MATRIX, now=self.clock(), bot=self.client.user_id)
        if due is None:
            return SAFETY_NET
        return min(SAFETY_NET, max(0.05, (due - self.clock()).total_seconds()))


def render(message: Message, person: Person, now: datetime) -> Json:
    """The content of an `m.room.message` (Matrix 1.18, m.text and m.notice), plain and as HTML.

    A mention makes it `m.text`, which rings; without one it is `m.notice`.
    """
    speech = reader(person.language, person.time_zone).as_of(now)
    sentences = [one_line(speech.say(line.key, **line.params)) for line in message.lines]
    content: Json = {
        "msgtype": "m.text" if message.mentions else "m.notice",
        "body": "\n".join(sentences),
        "format": "org.matrix.custom.html",
        "formatted_body": to_html(sentences, [is_item(line.key) for line in message.lines]),
    }
    if message.mentions:
        content["m.mentions"] = {"user_ids": [one.matrix_id for one in message.mentions]}
    if message.thread_root:
        content["m.relates_to"] = {"rel_type": "m.thread", "event_id": message.thread_root}
    return content


def one_line(sentence: str) -> str:
    """A sentence without what people could have put into it to look like several, or to turn its end around."""
    return " ".join(sentence.translate(UNSAID).split())


def to_html(sentences: Sequence[str], items: Sequence[bool]) -> str:
    """Sentences, of which some are items of lists, as clean HTML. What people wrote in them stays text.

    Nothing is made a link: clients do that themselves with the addresses that are there to be read.
    """
    lines: list[str] = []
    before = False
    for sentence, item in zip(sentences, items, strict=True):
        mark, _, rest = sentence.partition(" ") if item else ("", "", sentence)
        lines += [] if item and before else [""]
        lines.append(f"{mark} {_escape(rest)}" if item else _escape(rest))
        before = item
    html = markdown.markdown("\n".join(lines), extensions=["sane_lists"], output_format="html")
    return bleach.clean(html, tags=TAGS, attributes={"ol": ["start"]}, strip=True).replace("\n", "")


def _escape(sentence: str) -> str:
    safe = sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]":
        safe = safe.replace(mark, "\\" + mark)
    return HEAD.sub(r"\1\\\2", safe)

"""Keeps the rooms of one bot account: makes the missing ones, and mends what is not as it is to be.

A room is looked at when the bot starts, every hour, and whenever what is to be of it has changed; a few at a time,
with pauses, so that some hundred of them do not take the homeserver from those who talk. What cannot be mended stops
the bot from speaking there until it is well again.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from bot.client import Client
from bot.greetings import greet
from bot.requests import HomeserverRefused, patient_with_proxies
from bot.rooms import Plan, Unmendable, create_room, invite_missing, mend_room
from supervision import audit, bots, memberships, notifications, pairs, retention
from supervision.audit import SYSTEM
from supervision.config import RoomsConfig
from supervision.db import DATABASE_AWAY, Database, Transaction, listen
from supervision.errors import DeliveryFailed, NotFound, Transient
from supervision.models import Fault, PairStatus
from supervision.pairs import Pair

log = structlog.get_logger()
CHECKED = Counter("visavis_rooms_checked_total", "Rooms compared with what they are to be, by outcome", ["outcome"])

LOOK_EVERY = 60.0  # seconds between looks at what is to be, when nothing says so at once
CHECK_EVERY = timedelta(hours=1)
SIDE_BY_SIDE = 2
A_FEW = 4  # of the rooms that are looked at as every hour, between two looks at what is more urgent
BREATH = 0.1  # seconds after each check
AFTER_FAILURE = 2.0  # seconds
A_WHILE = timedelta(seconds=5)  # that a room which failed lets the others go first
A_LONG_WHILE = timedelta(minutes=10)  # that a room which we cannot cope with is left alone
HOPELESS_AFTER = timedelta(hours=1)  # of failures alone, while the homeserver answers what else is asked
HOPELESS_TRIES = 6  # in that time at least: a clock that was put forward is no hour
FAILS = re.compile(r"http_5\d\d|homeserver_unreachable")  # Synapse's 500 for a room that is broken, or no answer at all
FOR_EVER = timedelta(days=36_500)


@dataclass(frozen=True)
class Wanted:
    """What a pair's room is to be; `invite` are those of the two who are to be invited."""

    pair: Pair
    plan: Plan
    invite: frozenset[str]

    @property
    def is_missing(self) -> bool:
        """Whether a room is to be made: the pair goes on, and both can come."""
        active = self.pair.status is PairStatus.ACTIVE and self.pair.removed_at is None
        return active and self.pair.room_id is None and len(self.plan.people) == 2

    def differs(self, other: "Wanted") -> bool:
        return (self.plan, self.invite, self.pair.room_id) != (other.plan, other.invite, other.pair.room_id)


@dataclass
class Failing:
    """Since when, and how often, the homeserver failed over a room, and over nothing else."""

    since: datetime
    tries: int = 0


class Keeping:
    """Keeps the rooms of `client`'s account.

    `defaults` hold for pairs that have settled nothing else. `ready` is set once no room is missing;
    `spoken` is called when the bot may speak where it could not before, `closed` with a room that is archived.
    """

    def __init__(
        self,
        database: Database,
        client: Client,
        clock: Callable[[], datetime],
        *,
        defaults: RoomsConfig,
        spoken: Callable[[], None],
        closed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.database = database
        self.client = client
        self.clock = clock
        self.defaults = defaults
        self.spoken = spoken
        self.closed = closed
        self.ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._checked: dict[uuid.UUID, tuple[Wanted, datetime]] = {}
        self._not_before: dict[uuid.UUID, datetime] = {}
        self._failing: dict[uuid.UUID, Failing] = {}
        self._rooms: dict[uuid.UUID, str | None] = {}
        self._asked: set[uuid.UUID] = set()
        self.is_behind = False  # more rooms are due, and nobody asked for them
        self._account_checked_at: datetime | None = None
        self._looked_at = clock()

    async def run(self) -> None:
        """Keep them, for ever. A database or a homeserver that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(self.database, pairs.ROOMS, self._wake))
            while True:
                self._wake.clear()
                try:
                    await self.look()
                except (Transient, *DATABASE_AWAY) as error:
                    log.warning("rooms.delayed", error=type(error).__name__)
                    pause = error.retry_after if isinstance(error, Transient) else None
                    await asyncio.sleep(max(AFTER_FAILURE, pause or 0.0))
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._wake.wait()

    def _pause(self) -> float:
        """Seconds until the next look, where nothing asks for one: soon, if something that failed waits."""
        if self.is_behind:
            return 0.0
        soonest = min((at - self.clock() for at in self._not_before.values()), default=A_LONG_WHILE)
        return min(LOOK_EVERY, max(soonest, A_WHILE).total_seconds())

    async def look(self) -> None:
        """Make what is missing, check what changed or was asked for, then a few of those whose hour has come.

        The account itself is checked with the last room.
        """
        self._note_time()
        wanted = await self._read()
        self._note_rooms(wanted)
        await self._side_by_side(self._make, [one for one in wanted if one.is_missing and self._may(one)])
        if not any(one.is_missing and not self._may(one) for one in wanted):
            self.ready.set()
        await self.client.wait_until_synced()
        kept = {one.pair.id for one in wanted}
        self._not_before = {pair_id: at for pair_id, at in self._not_before.items() if pair_id in kept}
        self._checked = {pair_id: known for pair_id, known in self._checked.items() if pair_id in kept}
        self._failing = {pair_id: failing for pair_id, failing in self._failing.items() if pair_id in kept}
        self._asked &= kept
        due = [one for one in wanted if self._is_due(one) and self._may(one)]
        usual = [one for one in due if not self._is_urgent(one)]
        self.is_behind = len(usual) > A_FEW
        await self._side_by_side(self._check, [one for one in due if self._is_urgent(one)] + usual[:A_FEW])
        if self.is_behind:
            return
        if self._account_checked_at is None or self._account_checked_at + CHECK_EVERY <= self.clock():
            await self._check_account()

    def _note_time(self) -> None:
        """A clock that was set back would put off by as much what waits for a time: all that begins now."""
        now = self.clock()
        if now < self._looked_at:
            self._not_before.clear()
            self._failing.clear()
            self._checked = {pair_id: (known, min(at, now)) for pair_id, (known, at) in self._checked.items()}
            self._account_checked_at = None
        self._looked_at = now

    def _note_rooms(self, wanted: Sequence[Wanted]) -> None:
        """What was put off for a room that is another by now was put off for nothing."""
        for pair in (one.pair for one in wanted):
            if self._rooms.get(pair.id, pair.room_id) != pair.room_id:
                self._not_before.pop(pair.id, None)
                self._failing.pop(pair.id, None)
        self._rooms = {one.pair.id: one.pair.room_id for one in wanted}

    def ask(self, pair_id: uuid.UUID) -> None:
        """Have a pair's room looked at now."""
        self._asked.add(pair_id)
        self._not_before.pop(pair_id, None)
        self._wake.set()

    async def _read(self) -> list[Wanted]:
        """What is to be, of all pairs of this account."""
        async with self.database.transaction() as tx:
            await pairs.adopt(tx, self.client.user_id)
            known = await pairs.list_for_bot(tx, self.client.user_id)
            lifetimes = await retention.lifetimes(tx, self.client.user_id, self.defaults, now=self.clock())
            unknown = await memberships.unknown(tx, self.client.user_id)
        return [self._wanted(pair, lifetimes.get(pair.id), unknown.get(pair.id, frozenset())) for pair in known]

    def _wanted(self, pair: Pair, lifetime: timedelta | None, unknown: Iterable[uuid.UUID]) -> Wanted:
        ours = self.client.user_id.partition(":")[2]
        everybody = [person.matrix_id for person in pair.people if person.matrix_id]
        able = {person.id: person.matrix_id for person in pair.people if person.matrix_id and not person.disabled_at}
        plan = Plan(
            str(pair.room_token),
            frozenset(able.values()),
            any(person.partition(":")[2] != ours for person in everybody),
            FOR_EVER if pair.held_at else lifetime,
            pair.status is PairStatus.ARCHIVED,
        )
        return Wanted(pair, plan, frozenset(able[one] for one in unknown if one in able))

    async def _side_by_side(self, work: Callable[[Wanted], Awaitable[None]], several: Sequence[Wanted]) -> None:
        """A few at a time. Where the homeserver or the database is away the others are not begun.

        What failed comes after the others, so that one room cannot keep them all waiting. Raises what it failed with.
        """
        left = iter(several)
        failed: list[Exception] = []
        away = asyncio.Event()

        async def take_turns() -> None:
            for one in left:
                try:
                    await work(one)
                    self._not_before.pop(one.pair.id, None)
                    self._failing.pop(one.pair.id, None)
                except (Transient, *DATABASE_AWAY) as error:
                    failed.append(error)
                    if not await self._put_off(one, error):
                        away.set()
                except Exception as error:  # one room that we cannot cope with must not stop the bot in all others
                    log.exception("room.not_looked_at", pair=str(one.pair.id), error=type(error).__name__)
                    self._not_before[one.pair.id] = self.clock() + A_LONG_WHILE
                if away.is_set():
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(SIDE_BY_SIDE):
                group.create_task(take_turns())
        if failed:
            raise failed[0]

    async def _put_off(self, wanted: Wanted, error: Exception) -> bool:
        """Have a room tried again later. Returns whether it alone failed: then the others are not kept waiting."""
        pair_id = wanted.pair.id
        self._asked.add(pair_id)
        self._not_before[pair_id] = self.clock() + A_WHILE
        if not isinstance(error, Transient) or not FAILS.fullmatch(error.code) or not await self._answers():
            return False
        failing = self._failing.setdefault(pair_id, Failing(self.clock()))
        pause = min(A_WHILE * 2.0 ** min(failing.tries, 10), A_LONG_WHILE)
        failing.tries += 1
        if self._is_hopeless(pair_id, failing):
            pause = CHECK_EVERY
            with contextlib.suppress(*DATABASE_AWAY):  # it fails the next time, too
                await self._give_up(wanted)
        self._not_before[pair_id] = self.clock() + pause
        return True

    async def _answers(self) -> bool:
        """Whether the homeserver answers what has nothing to do with any room."""
        try:
            await self.client.homeserver.ask("GET", "/account/whoami", timeout=10.0)
        except DeliveryFailed:
            return False
        return True

    def _is_hopeless(self, pair_id: uuid.UUID, failing: Failing) -> bool:
        """Nothing but failures for an hour, in which another room was looked at, if there is any."""
        if failing.tries < HOPELESS_TRIES or self.clock() - failing.since < HOPELESS_AFTER:
            return False
        others = (self._checked.keys() | self._failing.keys()) - {pair_id}
        return not others or any(at >= failing.since for one, (_, at) in self._checked.items() if one in others)

    async def _give_up(self, wanted: Wanted) -> None:
        """Show that nothing can be done there; it is tried again as often as every other room."""
        if wanted.pair.room_id is not None:
            await self._stop(wanted.pair, Fault.REFUSED)
            return
        async with self.database.transaction() as tx:
            await pairs.note_not_made(tx, wanted.pair, now=self.clock())

    def _may(self, wanted: Wanted) -> bool:
        not_before = self._not_before.get(wanted.pair.id)
        return not_before is None or not_before <= self.clock()

    # Making

    async def _make(self, wanted: Wanted) -> None:
        pair = wanted.pair
        try:
            with patient_with_proxies():
                room_id = await create_room(self.client, wanted.plan)
        except Transient:
            raise
        except DeliveryFailed as failure:
            log.error("room.not_made", pair=str(pair.id), code=failure.code)
            async with self.database.transaction() as tx:
                await pairs.note_not_made(tx, pair, now=self.clock())
            return
        async with self.database.transaction() as tx:
            await pairs.set_room(tx, pair.id, room_id)
            await audit.record(tx, SYSTEM, "room.make", "pair", pair.id, now=self.clock())
        if pair.fault is not None:
            self.ask(pair.id)  # what waited for a room is hurried when it is found well
        log.info("room.made", pair=str(pair.id))
        self.spoken()

    # Checking

    def _is_due(self, wanted: Wanted) -> bool:
        if wanted.pair.room_id is None:
            return False
        known, checked_at = self._checked.get(wanted.pair.id, (None, self.clock()))
        return known is None or checked_at + CHECK_EVERY <= self.clock() or self._is_urgent(wanted)

    def _is_urgent(self, wanted: Wanted) -> bool:
        known, _ = self._checked.get(wanted.pair.id, (None, None))
        return wanted.pair.id in self._asked or (known is not None and known.differs(wanted))

    async def _check(self, wanted: Wanted) -> None:
        """Compare one room with its plan, mend it, and note what came of it."""
        pair, room_id = wanted.pair, wanted.pair.room_id or ""
        self._asked.discard(pair.id)  # who asks meanwhile is heard
        try:
            mended = await mend_room(self.client, room_id, wanted.plan)
        except Unmendable as found:
            await self._stop(pair, found.fault)
        else:
            if pair.id in self._failing:  # whatever fails from here on is no fault of the room's
                self._failing[pair.id].since = self.clock()
            if wanted.plan.archived:
                self.closed(room_id)
            await self._go_on(pair, mended)
            await self._invite(wanted)
        self._checked[pair.id] = (wanted, self.clock())
        await asyncio.sleep(BREATH)

    async def _stop(self, pair: Pair, fault: Fault) -> None:
        if pair.status is PairStatus.ARCHIVED and pair.fault is fault:
            return  # told when it was found, and nothing is said there
        CHECKED.labels("stopped").inc()
        log.error("room.stopped", pair=str(pair.id), fault=fault)
        async with self.database.transaction() as tx:
            await pairs.set_fault(tx, pair, fault, now=self.clock())

    async def _go_on(self, pair: Pair, mended: list[str]) -> None:
        CHECKED.labels("mended" if mended else "well").inc()
        if not mended and pair.fault is None:
            return
        strangers = {one for one in mended if one.startswith("@")} - {person.matrix_id for person in pair.people}
        async with self.database.transaction() as tx:
            if mended:
                log.warning("room.mended", pair=str(pair.id), count=len(mended))
                await audit.record(tx, SYSTEM, "room.mend", "pair", pair.id, now=self.clock())
            if strangers:
                await pairs.alarm_stranger(tx, pair, now=self.clock())
                await notifications.hurry(tx, pair.id, "stranger_in_room", now=self.clock())
            well_again = await pairs.clear_fault(tx, pair.id, now=self.clock())
            if well_again:
                await notifications.hurry(tx, pair.id, "room_stopped", now=self.clock())
        if well_again:
            log.info("room.well_again", pair=str(pair.id))
            await greet(self.database, self.client, pair.room_id or "", self.clock)
            self.spoken()

    async def _invite(self, wanted: Wanted) -> None:
        """Those of whom nothing is known there. Nobody of that name is no fault of the room's."""
        try:
            with patient_with_proxies():
                await invite_missing(self.client, wanted.pair.room_id or "", wanted.invite)
        except HomeserverRefused as refused:
            log.error("room.not_invited", pair=str(wanted.pair.id), code=refused.code)

    async def _check_account(self) -> None:
        """The bot's own device: people's clients show nothing that an unsigned one says."""
        try:
            await self.client.check_device()
        except Transient:
            raise
        except DeliveryFailed as failure:
            log.error("bot.not_cross_signed", code=failure.code)
            return
        self._account_checked_at = self.clock()
        async with self.database.transaction() as tx:
            await bots.note_checked(tx, self.client.user_id, self.client.master_key, now=self.clock())

    # Watching

    async def see_members(self, room_id: str, members: Mapping[str, str]) -> None:
        """Note who is there; alarm at once when somebody besides the two is, and have them put out.

        Raises Transient where the database is away.
        """
        try:
            async with self.database.transaction() as tx:
                try:
                    pair = await pairs.by_room(tx, room_id)
                except NotFound:
                    return
                await self._note_members(tx, pair, members)
                is_well = await self._watch_strangers(tx, pair, members)
        except SQLAlchemyError as error:
            raise Transient("database") from error
        if not is_well or members.get(self.client.user_id) != "join":
            self.ask(pair.id)

    async def see_trust(self, user_id: str) -> None:
        """Somebody's devices are others now: note in whose rooms they can read. Raises Transient."""
        try:
            for room_id in self.client.rooms():
                members = self.client.members(room_id)
                if members.get(user_id) != "join":
                    continue
                async with self.database.transaction() as tx:
                    with contextlib.suppress(NotFound):
                        await self._note_members(tx, await pairs.by_room(tx, room_id), members)
        except SQLAlchemyError as error:
            raise Transient("database") from error

    async def _note_members(self, tx: Transaction, pair: Pair, members: Mapping[str, str]) -> None:
        """Whose devices are not known yet stays as readable as before."""
        known = await memberships.of(tx, [pair.id])
        readable = set()
        for person in pair.people:
            before = known.get((pair.id, person.id))
            user_id = person.matrix_id or ""
            unsure = members.get(user_id) == "join" and self.client.trust(user_id) is None
            if self.client.can_read(pair.room_id or "", user_id) or (unsure and before and before.readable):
                readable.add(user_id)
        await memberships.note(tx, pair, members, readable, now=self.clock())

    async def _watch_strangers(self, tx: Transaction, pair: Pair, members: Mapping[str, str]) -> bool:
        """Whether there are none. What waited for them to go is tried at once."""
        present = {member for member, membership in members.items() if membership in memberships.PRESENT}
        if present - {self.client.user_id, *(person.matrix_id for person in pair.people)}:
            await pairs.alarm_stranger(tx, pair, now=self.clock())
            return False
        await notifications.hurry(tx, pair.id, "stranger_in_room", now=self.clock())
        return True

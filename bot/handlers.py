"""From a judged event to its one transaction and its reply."""

import contextlib
import secrets
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bot import commands
from bot.answers import answer, answer_tap
from bot.commands import Command
from bot.events import Doubt, Incoming
from bot.files import Files, is_shown
from bot.names import imitates
from bot.notices import Notices
from bot.replies import DIGITS, NO, YES, Line, Reply, say
from bot.talks import Talk
from supervision import audit, journal, notifications, pairs, questions
from supervision.audit import Actor
from supervision.db import DATABASE_AWAY, Database, Transaction
from supervision.errors import DeliveryFailed, NotAllowed, Refused, TooMany, Transient
from supervision.models import Channel
from supervision.notifications import HIGH, Notice, Notification
from supervision.pairs import Pair
from supervision.people import Person
from supervision.questions import Asked
from supervision.texts import refusal_line, to_json

log = structlog.get_logger()
COMMANDS = Counter("visavis_commands_total", "Commands in rooms by outcome", ["outcome"])

OLDEST = timedelta(hours=24)
REPLY_LIFETIME = timedelta(hours=24)
PATIENCE = timedelta(minutes=3)
LONGEST_LOOK = timedelta(minutes=1)  # between two tries of what waits; what is longer was an outage
COMMANDS_A_MINUTE = 20
COMPLAINT_EVERY = timedelta(hours=1)
COMPLAINT_A_MINUTE = timedelta(minutes=1)
DISK_FULL = "53100"  # PostgreSQL, appendix A

DOUBTS = {
    Doubt.not_encrypted: "doubt.not_encrypted",
    Doubt.undecryptable: "doubt.undecryptable",
    Doubt.changed_identity: "doubt.changed_identity",
    Doubt.redacted: "event.redacted",
}
CALLS = frozenset({"m.call.member", "org.matrix.msc3401.call.member", "m.rtc.member"})
ROOM_STOPPED = "refused.room_stopped"
NAME_TOLD_EVERY = timedelta(days=1)
VERIFICATION = "m.key.verification.request"


@dataclass(frozen=True)
class Heard:
    """One event with its pair and sender, within a transaction; `fresh` if the journal did not have it."""

    event: Incoming
    pair: Pair
    person: Person
    actor: Actor
    now: datetime
    fresh: bool


Change = Callable[[Heard, Transaction], Awaitable[Reply]]
TAPS = frozenset({YES, NO, *DIGITS})


class _NothingAsked(Exception):
    """The reaction answers no question of ours; its transaction is undone. `matters` if it stands under our words."""

    def __init__(self, matters: bool) -> None:
        self.matters = matters
        super().__init__()


class Handlers:
    """Handles the events of one bot account's rooms; each room's come one at a time.

    `dashboard` is the address of the web application, `template` the configuration's `calls.template`. `unread_minutes`
    is when a mail tells what is unread in a room for which nothing else was settled.
    """

    def __init__(
        self,
        database: Database,
        notices: Notices,
        clock: Callable[[], datetime],
        dashboard: str,
        template: str | None = None,
        *,
        files: Files,
        unread_minutes: int = 30,
    ) -> None:
        self.database = database
        self.notices = notices
        self.files = files
        self.unread_minutes = unread_minutes
        self.clock = clock
        self.dashboard = dashboard
        self.template = template
        self._buckets: dict[uuid.UUID, tuple[float, datetime]] = {}
        self._taps: OrderedDict[str, tuple[timedelta, datetime]] = OrderedDict()  # that wait: how long, heard last
        self._complaints: OrderedDict[tuple[str, str | None, str], datetime] = OrderedDict()

    async def handle(self, event: Incoming) -> None:
        """Act on an event, once. Raises Transient where the database is away: the event has to come again."""
        try:
            await self._handle(event)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == DISK_FULL:
                await self._tell_disk_full(event)
                raise Transient("disk_full") from error
            if not is_outage(error):
                await self._apologise(event, error)
                return
            raise Transient("database") from error
        except (OSError, PoolTimeout) as error:
            raise Transient("database") from error

    async def _handle(self, event: Incoming) -> None:
        match event.kind:
            case "text":
                await self._read_text(event)
            case "reaction":
                await self._read_reaction(event)
            case "undecryptable":
                await self._refuse(event, "doubt.undecryptable")
            case "redaction":
                await self._read_redaction(event)
            case "state":
                await self._read_state(event)
        if is_shown(event):
            await self._judge_files(event)

    async def _read_text(self, event: Incoming) -> None:
        if event.msgtype == VERIFICATION and event.content.get("to") == self.notices.client.user_id:
            await self._decline_verification(event)
        if event.msgtype != "m.text":
            return
        if event.is_edit:
            if commands.parse(_edited_body(event)) is not None:
                await self._refuse(event, "event.edited")
            return
        command = commands.parse(event.body)
        if command is None:
            return
        if event.doubt is not None:
            await self._refuse(event, DOUBTS.get(event.doubt, "doubt.device"))
        elif self.clock() - event.sent_at > OLDEST:
            await self._refuse(event, "event.old")
        else:
            with self.notices.replying():
                await self._act(event, lambda heard, tx: self._answer(heard, tx, command))

    async def _read_reaction(self, event: Incoming) -> None:
        if event.key not in TAPS or event.relates_to is None or self.clock() - event.sent_at > OLDEST:
            return
        if event.doubt is not None:
            return
        # A reaction proves no device; but an account whose identity is not the pinned one answers nothing at all.
        client = self.notices.client
        if client.members(event.room_id).get(event.sender) != "join":
            await self._audit(event, "reaction.no_member")  # nobody's devices are known who is not in the room
            return
        trust = await client.learn_trust(event.sender)
        if trust is None:
            if self._is_patient(event):
                raise Transient("devices_unknown")
            await self._audit(event, "reaction.devices_unknown")  # a homeserver may never tell, and the room waits
            return
        if trust.changed or trust.pinned is None:
            await self._refuse(event, "doubt.changed_identity")
            return
        await self._act(event, self._answer_tap)

    async def _act(self, event: Incoming, change: Change) -> None:
        """Journal, change and reply in one transaction; or, where that is refused or fails, say so in another."""
        try:
            async with self.database.transaction() as tx:
                heard = await self._hear(tx, event, "done")
                if heard is None:
                    return
                if not heard.fresh:
                    repeated = event.event_id not in await journal.handled(tx, [event.event_id])
                    notification = None
                else:
                    repeated = False
                    if heard.pair.fault is not None:
                        raise NotAllowed(ROOM_STOPPED)  # nobody could be told there what was done
                    reply = await change(heard, tx)
                    notification = await self._enqueue(tx, heard, reply) if reply.lines else None
        except _NothingAsked as nothing:
            if nothing.matters:
                await self._audit(event, "reaction.not_asked")
            return
        except Refused as refused:
            COMMANDS.labels("refused").inc()
            await self._tell(event, refused)
            return
        except (DBAPIError, OSError, PoolTimeout, Transient):
            raise
        except Exception as error:
            await self._apologise(event, error)
            return
        if repeated:
            await self._refuse(event, "doubt.repeated")
            return
        COMMANDS.labels("done").inc()
        if notification is not None:
            await self._deliver(notification, reply.pair or heard.pair)

    async def _answer(self, heard: Heard, tx: Transaction, command: Command) -> Reply:
        self._spend(heard)
        talk = self._talk(heard, tx)
        return await answer(talk, command)

    def _talk(self, heard: Heard, tx: Transaction) -> Talk:
        return Talk(
            tx,
            heard.pair,
            heard.person,
            heard.actor,
            heard.now,
            self.dashboard,
            self.template,
            self.files.defaults,
            self.unread_minutes,
        )

    async def _answer_tap(self, heard: Heard, tx: Transaction) -> Reply:
        """A reaction under one of our open questions to this very person; anything else is ordinary talk."""
        event = heard.event
        asked = await self._find_question(heard, tx)
        if asked is None:
            raise _NothingAsked(await questions.is_known(tx, heard.event.relates_to or ""))
        self._spend(heard)
        key = event.key or ""
        talk = self._talk(heard, tx)
        reply = await answer_tap(
            talk,
            asked,
            yes={YES: True, NO: False}.get(key),
            number=DIGITS.index(key) + 1 if key in DIGITS else None,
        )
        if reply is None:
            raise _NothingAsked(True)
        return reply

    async def _judge_files(self, event: Incoming) -> None:
        """Hold an event's files against the room's rules, whoever's device it came from; take down a breach."""
        judged = await self.files.judge(event)
        if judged is None:
            await self.files.take_down(event.room_id, event.event_id)  # where an earlier try got no further
            return
        # Its ciphertext is no command's, and may be shown again as another event, whose files are judged too.
        alone = replace(event, session_id=None, message_index=None)
        notification = None
        async with self.database.transaction() as tx:
            heard = await self._hear(tx, alone, judged.outcome)
            if heard is None:
                return
            reply = await self.files.note(tx, event, heard.pair, heard.actor, judged)
            if reply.lines and self._may_complain(event, reply.lines[0].key, COMPLAINT_A_MINUTE):
                notification = await self._enqueue(tx, heard, reply)
        await self.files.take_down(event.room_id, event.event_id)
        if notification is not None:
            self._complained(event, reply.lines[0].key)
            await self._deliver(notification, heard.pair)

    async def _find_question(self, heard: Heard, tx: Transaction) -> Asked | None:
        event_id = heard.event.relates_to or ""
        asked = await questions.find(tx, event_id, heard.pair.id, heard.person.id, now=heard.now)
        if asked is None:
            # Somebody may tap on a message of ours before we have noted which notification it is, or while we do.
            if not await questions.is_known(tx, event_id):
                async with self.notices.lock(heard.event.room_id):
                    pass
            known = await questions.is_known(tx, event_id)
            asked = await questions.find(tx, event_id, heard.pair.id, heard.person.id, now=heard.now)
            if asked is None and not known and await self._may_be_ours(heard, tx):
                raise Transient("question_not_noted")
        return asked

    async def _may_be_ours(self, heard: Heard, tx: Transaction) -> bool:
        """Whether a tap is to wait, for a while, until a message of ours that was tried before is noted.

        It went out, and a crash or an outage came before we could know its event ID.
        """
        return await notifications.is_unsure(tx, heard.pair.id) and self._is_patient(heard.event)

    def _is_patient(self, tap: Incoming) -> bool:
        """Whether a tap is to wait on for what is not known yet. While the homeserver is away, nothing could be."""
        now = self.clock()
        waited, last = self._taps.get(tap.event_id, (timedelta(), now))
        if not self.notices.client.is_away:
            waited += min(max(now - last, timedelta()), LONGEST_LOOK)  # a clock may be set back
        self._taps[tap.event_id] = waited, now
        while len(self._taps) > 1_000:
            self._taps.popitem(last=False)
        return waited < PATIENCE

    async def _hear(self, tx: Transaction, event: Incoming, outcome: str) -> Heard | None:
        """Journal an event, and say who speaks in which pair.

        A stranger is noted and not heard; a room of no pair is none of ours.
        """
        now = self.clock()
        noted = await journal.hear(
            tx,
            event.event_id,
            event.room_id,
            session_id=event.session_id,
            message_index=event.message_index,
            outcome=outcome,
            now=now,
        )
        if noted is None:
            return None
        pair, fresh = noted
        via: audit.Via = "reaction" if event.kind == "reaction" else "matrix"
        for person in pair.people:
            if person.matrix_id == event.sender and person.disabled_at is None:
                return Heard(event, pair, person, Actor(person.id, via, device=event.device_id), now, fresh)
        if fresh:
            log.warning("room.stranger_heard", pair=str(pair.id))
            await journal.rename(tx, event.event_id, "stranger")
            await audit.record(tx, Actor(None, via), "room.speak", "pair", pair.id, now=now, success=False)
        return None

    async def _enqueue(self, tx: Transaction, heard: Heard, reply: Reply) -> Notification:
        """Put a reply into the outbox, leased to us, who send it right after the commit."""
        keys: list[str] = []
        notice_id = uuid.uuid4()
        if reply.ask is not None and reply.ask.tappable:
            keys = list(DIGITS[: len(reply.ask.slots)])
        details = {
            "lines": [[line.key, to_json(line.params)] for line in reply.lines],
            "keys": keys,
            "thread": heard.event.thread_root,
        }
        notice = Notice(
            heard.person.id,
            Channel.MATRIX,
            "reply",
            details,
            pair_id=heard.pair.id,
            priority=HIGH,
            expires_at=heard.now + REPLY_LIFETIME,
            claimed=True,
            id=notice_id,
        )
        await notifications.enqueue(tx, [notice], now=heard.now)
        if reply.ask is not None:
            asked = Asked(
                notice_id,
                heard.pair.id,
                heard.person.id,
                reply.ask.kind,
                heard.now + reply.ask.lifetime,
                reply.ask.appointment_id,
                None,
                reply.ask.slots,
                reply.ask.choices,
                reply.ask.code,
                reply.ask.details,
            )
            await questions.put(tx, asked, now=heard.now)
        return notice.as_claimed(now=heard.now)

    async def _tell(self, event: Incoming, refused: Refused) -> None:
        """Journal, audit and answer an event that changed nothing."""
        key, params = refusal_line(refused)
        every = COMPLAINT_A_MINUTE if isinstance(refused, TooMany) else None
        if refused.key == ROOM_STOPPED:
            every = COMPLAINT_EVERY  # it is told when the room is well again, and by mail before
        await self._note(event, Reply((Line(key, dict(params)),)), refused.key, every)

    async def _refuse(self, event: Incoming, key: str) -> None:
        """An event that is no command, whatever it says: doubts are told once an hour to each device."""
        COMMANDS.labels("doubted").inc()
        await self._note(event, say(key), key, COMPLAINT_EVERY if key.startswith("doubt.") else COMPLAINT_A_MINUTE)

    async def _apologise(self, event: Incoming, error: Exception) -> None:
        number = "".join(secrets.choice("23456789ABCDEFGHJKMNPQRSTUVWXYZ") for _ in range(4))
        COMMANDS.labels("failed").inc()
        log.error("command.failed", number=number, event_id=event.event_id, exc_info=error)
        await self._note(event, say("failed", number=number), "failed", None)

    async def _audit(self, event: Incoming, reason: str) -> None:
        """Journal and audit what changed nothing and needs no answer."""
        async with self.database.transaction() as tx:
            await self._audit_in(tx, event, reason)

    async def _audit_in(self, tx: Transaction, event: Incoming, reason: str) -> Heard | None:
        """The same in a transaction; who did it, if it is new and somebody of the pair's."""
        heard = await self._hear(tx, event, reason)
        if heard is None or not heard.fresh:
            return None
        actor, pair = heard.actor, heard.pair
        await audit.record(tx, actor, "command", "pair", pair.id, now=heard.now, success=False, reason=reason)
        return heard

    async def _read_redaction(self, event: Incoming) -> None:
        """What a command did stays done when its message is taken back; that it was is noted. A file goes with it."""
        if await self.files.take_back(event):
            return
        async with self.database.transaction() as tx:
            if event.relates_to and event.relates_to in await journal.handled(tx, [event.relates_to]):
                await self._audit_in(tx, event, "event.redacted")

    async def _read_state(self, event: Incoming) -> None:
        """What members may write as state, and could deceive with: a name like ours, and another's place in a call."""
        if event.event_type in CALLS:
            if not _is_own_key(event.state_key or "", event.sender):
                await self._audit(event, "state.not_own")
            return
        name = event.content.get("displayname")
        ours = self.notices.client.account.display_name
        if event.content.get("membership") == "join" and isinstance(name, str) and imitates(name, ours):
            await self._tell_name_taken(event)

    async def _tell_name_taken(self, event: Incoming) -> None:
        """Tell both who is who, once a day: a name proves nothing, and anybody may take ours."""
        async with self.database.transaction() as tx:
            heard = await self._audit_in(tx, event, "state.name_taken")
            if heard is None:
                return
            pair, now = heard.pair, heard.now
            if await audit.is_recorded(tx, "room.name_taken", pair.id, since=now - NAME_TOLD_EVERY):
                return
            await audit.record(tx, audit.SYSTEM, "room.name_taken", "pair", pair.id, now=now, success=False)
            details = {"whose": str(heard.person.id), "bot": self.notices.client.user_id}
            told = [Notice(one.id, Channel.MATRIX, "room.name_taken", details, pair_id=pair.id) for one in pair.people]
            await notifications.enqueue(tx, told, now=now)

    async def _decline_verification(self, event: Incoming) -> None:
        """Nobody sits before the bot to compare emoji; its fingerprint on the dashboard does the same."""
        client = self.notices.client
        reply = say("verification.declined", fingerprint=client.fingerprint)
        heard = await self._note(event, reply, "verification.declined", COMPLAINT_EVERY)
        if heard is None:
            return
        relation = {"rel_type": "m.reference", "event_id": event.event_id}
        content = {"m.relates_to": relation, "code": "m.unknown_method", "reason": "Compare the fingerprint instead."}
        with contextlib.suppress(DeliveryFailed):
            await client.send(
                event.room_id,
                "m.key.verification.cancel",
                content,
                transaction_id=f"cancel-{event.event_id}",
                expected=[one.matrix_id for one in heard.pair.people if one.matrix_id],
            )

    async def _note(self, event: Incoming, reply: Reply, reason: str, every: timedelta | None) -> Heard | None:
        """Journal and audit what changed nothing, and say so: always, or once in `every` to each device.

        Who it was in which pair, if it was new.

        The ciphertext is noted too, so that it cannot come again as another event when it would be believed; unless it
        is another event's already, or somebody else's.
        """
        foreign = reason == "doubt.repeated" or event.doubt is Doubt.wrong_sender
        silent = every is not None and not self._may_complain(event, reason, every)
        notification = None
        async with self.database.transaction() as tx:
            heard = await self._hear(
                tx, replace(event, session_id=None, message_index=None) if foreign else event, reason
            )
            if heard is None or not heard.fresh:
                return None
            await audit.record(
                tx, heard.actor, "command", "pair", heard.pair.id, now=heard.now, success=False, reason=reason
            )
            if not silent:
                notification = await self._enqueue(tx, heard, reply)
        if notification is not None:
            self._complained(event, reason)
            await self._deliver(notification, heard.pair)
        return heard

    async def _deliver(self, notification: Notification, pair: Pair) -> None:
        """Send what is committed. A database that fails now has it sent again, and changes nothing of the command."""
        try:
            await self.notices.deliver(notification, pair)
        except DATABASE_AWAY as error:
            log.warning("notice.not_settled", id=str(notification.id), error=type(error).__name__)
            self.notices.keep([notification])

    async def _tell_disk_full(self, event: Incoming) -> None:
        """Nothing can be written, so this one answer goes without the outbox; its transaction ID shows it once."""
        async with self.database.transaction() as tx:
            pair = await pairs.by_room(tx, event.room_id)
        person = next((one for one in pair.people if one.matrix_id == event.sender), None)
        if person is not None:
            await self.notices.say_unrecorded(pair, person, say("disk_full").lines, f"disk-{event.event_id}")

    def _spend(self, heard: Heard) -> None:
        """Take a command from the person's bucket; raise TooMany when it is empty."""
        full = float(COMMANDS_A_MINUTE)
        left, at = self._buckets.get(heard.person.id, (full, heard.now))
        left = min(full, left + (heard.now - at).total_seconds() * full / 60)
        if left < 1:
            raise TooMany
        self._buckets[heard.person.id] = (left - 1, heard.now)

    def _may_complain(self, event: Incoming, key: str, every: timedelta) -> bool:
        last = self._complaints.get((event.sender, event.device_id, key))
        return last is None or self.clock() - last >= every

    def _complained(self, event: Incoming, key: str) -> None:
        topic = (event.sender, event.device_id, key)
        self._complaints[topic] = self.clock()
        self._complaints.move_to_end(topic)
        while len(self._complaints) > 10_000:
            self._complaints.popitem(last=False)


def is_outage(error: DBAPIError) -> bool:
    """Whether PostgreSQL is away or overloaded (classes 08, 40, 53, 55, 57 of its appendix A), rather than we wrong."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return error.connection_invalidated or not state or state[:2] in ("08", "40", "53", "55", "57")


def _is_own_key(state_key: str, sender: str) -> bool:
    """Whether a key of a call's members is the sender's: `@user:server`, perhaps `_` before, a device behind (MSC3757).

    A key that names nobody is nobody's.
    """
    named = state_key.removeprefix("_")
    return not named.startswith("@") or named == sender or named.startswith(f"{sender}_")


def _edited_body(event: Incoming) -> str:
    content = event.content.get("m.new_content")
    body = content.get("body") if isinstance(content, Mapping) else None
    return body if isinstance(body, str) else event.body.removeprefix("* ")

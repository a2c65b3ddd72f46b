"""What the API takes and gives. Times are RFC 3339 in UTC; IDs are lower-case UUIDs; lengths of time are minutes."""

import unicodedata
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from supervision import appointments, checks, outside, pairs, preferences, presences, rooms, series, waits
from supervision.checks import BOUNDS
from supervision.exports import Export as KeptExport
from supervision.hours import Availability as KeptRules
from supervision.hours import DatedException as KeptException
from supervision.models import (
    Approval,
    Channel,
    Consent,
    Exceptional,
    ExportState,
    FileKind,
    Mode,
    PairStatus,
    Role,
    Status,
    Topic,
)
from supervision.outside import OutsideCalendar as KeptCalendar
from supervision.pairs import Pair as TwoPeople
from supervision.people import Person as Someone
from supervision.policies import Policies
from supervision.preferences import Preferences as Wishes

YEARS = range(1971, 2999)  # what calendars, databases and arithmetic with zones all bear
REASON_CHARACTERS = 500
RULE_CHARACTERS = 200
MOST_RANGES = waits.MOST_RANGES
MOST_EXPECTED = 1000
MOST_HOURS = 200
MOST_LENGTHS = 20


def to_utc(at: datetime) -> datetime:
    if at.year not in YEARS:
        raise ValueError("is out of range")
    return at.astimezone(UTC)


def in_years(day: date) -> date:
    if day.year not in YEARS:
        raise ValueError("is out of range")
    return day


def plain_text(value: str) -> str:
    """Line breaks are fine; other control characters are not text."""
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\r\n\t" for c in value):
        raise ValueError("holds control characters")
    return value


Instant = Annotated[AwareDatetime, AfterValidator(to_utc)]
Day = Annotated[date, AfterValidator(in_years)]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["09:00"])]
Code = Annotated[str, Field(max_length=10), AfterValidator(plain_text)]
INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


def read_instant(text: str) -> datetime:
    """An RFC 3339 time with its offset, as UTC. Raises ValueError (pydantic's ValidationError is one)."""
    if "T" not in text.upper():
        raise ValueError("is no time")  # pydantic would read a bare number as seconds since 1970
    return INSTANT.validate_python(text)


def left_out(name: str = "") -> Any:
    """A member that may be left out, and then stays as it is; the bounds of the rule of that name are described.

    It is the domain that holds them, with a sentence of its own.
    """
    bounds = {rule: {"minimum": least, "maximum": most} for rule, least, most in BOUNDS}.get(name, {})

    def describe(schema: dict[str, Any]) -> None:
        schema.pop("default", None)
        schema.update(bounds)

    return Field(default=None, json_schema_extra=describe)


class Given(BaseModel):
    """What a client sends: exactly these members, in JSON's own types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# ---- appointments


class Slot(Given):
    """A bookable time, as the list of slots gives it and as a booking takes it, unchanged."""

    supervisor_id: uuid.UUID
    pair_id: uuid.UUID
    starts_at: Instant
    ends_at: Instant


Scope = Literal["one", "following", "all"]
OnClash = Literal["refuse", "skip"]


class Scoped(Given):
    """Of a series: this appointment alone, this and those that follow, or all of them."""

    scope: Scope = "one"


class Seen(Given):
    """An appointment as the client has seen it."""

    id: uuid.UUID
    revision: Annotated[int, Field(ge=0, lt=2**31)]


class SeenScoped(Scoped):
    """With `seen`, which needs a scope of several, only those are meant that are still like that."""

    seen: Annotated[list[Seen], Field(max_length=MOST_EXPECTED)] | None = None


class ScopedWord(SeenScoped):
    """The word on requests; with `seen`, which needs a scope of several, only on those that are still like that."""


class ScopedAnswer(Scoped):
    """The answer to a proposal; with its ID only to that very one.

    With `proposals`, which need a scope of several, only to those of them that are still open.
    """

    proposal: uuid.UUID | None = None
    proposals: Annotated[list[uuid.UUID], Field(max_length=MOST_EXPECTED)] | None = None


class NewTime(SeenScoped):
    """A slot object to move to; all but the start may be left out.

    With `seen`, which needs a scope of several, only those move that are still like that: the named one has to be.
    """

    starts_at: Instant
    ends_at: Instant | None = None
    supervisor_id: uuid.UUID | None = None
    pair_id: uuid.UUID | None = None
    on_clash: OnClash = "refuse"


class Reason(SeenScoped):
    """Why it is cancelled; told in the encrypted room alone.

    With `seen`, which needs a scope of several, only those are cancelled that are still like that.
    """

    reason: Annotated[str, Field(max_length=REASON_CHARACTERS), AfterValidator(plain_text)] | None = None


class Mark(Given):
    """How an appointment went."""

    status: Literal["completed", "no_show"]


class Proposal(BaseModel):
    """An open proposal to move an appointment, for the other to answer in time. The old time stands until then."""

    id: uuid.UUID
    by: uuid.UUID
    starts_at: datetime
    ends_at: datetime
    answer_by: datetime

    @classmethod
    def of(cls, proposal: appointments.Proposal) -> Self:
        return cls(**{name: getattr(proposal, name) for name in cls.model_fields})


class Appointment(BaseModel):
    id: uuid.UUID
    pair_id: uuid.UUID
    supervisor_id: uuid.UUID
    supervisee_id: uuid.UUID
    starts_at: datetime
    ends_at: datetime
    status: Status
    revision: int = Field(description="Grows by one with every change that a calendar shows: its SEQUENCE.")
    mode: Mode
    place: str
    answer_by: datetime | None = Field(description="When a request lapses that nobody answered.")
    late: bool = Field(description="Whether the supervisee cancelled within the supervisor's notice for that.")
    series_id: uuid.UUID | None
    proposal: Proposal | None

    @classmethod
    def of(cls, appointment: appointments.Appointment) -> Self:
        values = {name: getattr(appointment, name) for name in cls.model_fields}
        proposal = appointment.proposal
        return cls(**values | {"proposal": None if proposal is None else Proposal.of(proposal)})


class Appointments(BaseModel):
    items: list[Appointment]


class Slots(BaseModel):
    items: list[Slot]


# ---- series and waiting


class NewSeries(Given):
    """A slot object, and the rule by which it repeats in the wall-clock time of the supervisor's zone."""

    slot: Slot
    rule: Annotated[str, Field(max_length=RULE_CHARACTERS, examples=["FREQ=WEEKLY;COUNT=10"])]
    on_clash: OnClash = "refuse"


class Clash(BaseModel):
    """An occurrence that cannot be had, and why. `local` is its wall-clock time in the supervisor's zone."""

    starts_at: datetime
    local: datetime
    code: str
    detail: str


class SeriesBooked(BaseModel):
    """What was booked, and what was left out because it clashes."""

    id: uuid.UUID
    items: list[Appointment]
    clashes: list[Clash]


class Series(BaseModel):
    """Appointments that were booked together. Starts of the rule that are no item's were left out."""

    id: uuid.UUID
    pair_id: uuid.UUID
    rule: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str = Field(description="In whose wall-clock time the rule counts.")
    revision: int
    items: list[Appointment]

    @classmethod
    def of(cls, found: series.Series, items: Iterable[appointments.Appointment]) -> Self:
        return cls(**vars(found), items=[Appointment.of(one) for one in items])


class SeveralChanged(BaseModel):
    """What was changed of a series, and what was left as it was because it clashes."""

    items: list[Appointment]
    clashes: list[Clash]


class Range(Given):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)

    since: Instant = Field(alias="from")
    until: Instant = Field(alias="to")


class NewWait(Given):
    """Starts to wait for, any in `[from, to)` of one of the ranges."""

    pair_id: uuid.UUID
    ranges: Annotated[list[Range], Field(min_length=1, max_length=MOST_RANGES)]
    length: Annotated[int, Field(ge=1, le=1440)] | None = None


class OfferAnswer(Given):
    """About an offer; with its start only about that very one."""

    starts_at: Instant | None = None


class Offer(BaseModel):
    """A slot that is kept until then."""

    starts_at: datetime
    ends_at: datetime
    until: datetime


class Wait(BaseModel):
    id: uuid.UUID
    pair_id: uuid.UUID
    ranges: list[Range]
    length: int
    offer: Offer | None

    @classmethod
    def of(cls, wait: waits.Wait) -> Self:
        return cls(
            id=wait.id,
            pair_id=wait.pair_id,
            ranges=[Range.model_validate({"from": since, "to": until}) for since, until in wait.ranges],
            length=wait.length,
            offer=None if wait.offer is None else Offer(**vars(wait.offer)),
        )


class Waits(BaseModel):
    items: list[Wait]


# ---- being away


class Absence(Given):
    """Days off, both inclusive, and what becomes of `expected`: the appointments that fall in them."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)

    first_on: Day = Field(alias="from")
    last_on: Day = Field(alias="to")
    then: Literal["cancel", "propose"]
    expected: Annotated[list[Seen], Field(max_length=MOST_EXPECTED)]


# ---- people, pairs, and what holds for them


class Person(BaseModel):
    id: uuid.UUID
    name: str
    email: str
    matrix_id: str | None
    language: str
    time_zone: str = Field(description="An IANA time zone name.")

    @classmethod
    def of(cls, person: Someone) -> Self:
        return cls(**{name: getattr(person, name) for name in cls.model_fields})


class Pair(BaseModel):
    id: uuid.UUID
    status: PairStatus
    supervisor_id: uuid.UUID
    supervisor_name: str
    supervisee_id: uuid.UUID
    supervisee_name: str
    room_id: str | None

    @classmethod
    def of(cls, pair: pairs.Pair) -> Self:
        return cls(
            id=pair.id,
            status=pair.status,
            supervisor_id=pair.supervisor.id,
            supervisor_name=pair.supervisor.name,
            supervisee_id=pair.supervisee.id,
            supervisee_name=pair.supervisee.name,
            room_id=pair.room_id,
        )


class Presence(BaseModel):
    online: bool
    last_seen: Instant | None = Field(description="To the minute; null where it is not told.")


class MyPair(Pair):
    """`presence` is the other's of the two; null where the homeserver tells nothing, or nothing lately."""

    unread: int = Field(description="How many of the other's messages the person has not read.")
    presence: Presence | None

    @classmethod
    def seen(cls, pair: TwoPeople, unread: int, presence: presences.Presence | None) -> Self:
        shown = None if presence is None else Presence(online=presence.online, last_seen=presence.active_at)
        return cls(**Pair.of(pair).model_dump(), unread=unread, presence=shown)


class Me(BaseModel):
    person: Person
    roles: list[Role]
    pairs: list[MyPair]


class WeeklyRange(Given):
    """Wall-clock times in the supervisor's zone; weekday 0 is Monday."""

    weekday: Annotated[int, Field(ge=0, le=6)]
    starts: Clock
    ends: Clock


class NewException(Given):
    """Days, both inclusive, that are not as every week. Time off without times takes whole days."""

    kind: Exceptional
    first_on: Day
    last_on: Day
    starts: Clock | None = None
    ends: Clock | None = None
    yearly: bool = False


class DatedException(BaseModel):
    id: uuid.UUID
    kind: Exceptional
    first_on: date
    last_on: date
    starts: Clock | None
    ends: Clock | None
    yearly: bool

    @classmethod
    def of(cls, exception: KeptException) -> Self:
        return cls(
            id=exception.id,
            kind=exception.kind,
            first_on=exception.first_on,
            last_on=exception.last_on,
            starts=None if exception.starts is None else f"{exception.starts:%H:%M}",
            ends=None if exception.ends is None else f"{exception.ends:%H:%M}",
            yearly=exception.yearly,
        )


class Rules(BaseModel):
    """What of a supervisor's rules holds for every pair of hers."""

    grid: int = Field(description="Minutes between two starts that are offered.")
    buffer_before: int
    buffer_after: int
    notice: int = Field(description="How long before its start a time can be booked.")
    horizon: int = Field(description="How many days ahead a time can be booked.")
    mode: Mode
    place: str
    cancel_notice: int = Field(description="A cancellation by the supervisee nearer to the start is late.")
    move_notice: int = Field(description="The supervisee cannot move an appointment that is nearer.")
    day_limit: int | None
    week_limit: int | None
    answer: int = Field(description="How long a request or proposal stays open.")
    offer: int = Field(description="How long an offer from the waiting list stays open.")


class Availability(Rules):
    """A supervisor's weekly hours, exceptions and rules."""

    supervisor_id: uuid.UUID
    time_zone: str
    hours: list[WeeklyRange]
    length: int
    approval: Approval
    valid_from: date | None
    valid_until: date | None
    country: str | None = Field(description="Whose public holidays are off (ISO 3166-1).")
    subdivision: str | None = Field(description="The state, province or city whose holidays are off too.")
    exceptions: list[DatedException]

    @classmethod
    def of(cls, supervisor: Someone, rules: KeptRules) -> Self:
        values = {name: getattr(rules, name) for name in cls.model_fields if hasattr(rules, name)}
        hours = [
            WeeklyRange(weekday=one.weekday, starts=f"{one.starts:%H:%M}", ends=f"{one.ends:%H:%M}")
            for one in rules.hours
        ]
        exceptions = [DatedException.of(one) for one in rules.exceptions]
        named = {"supervisor_id": supervisor.id, "time_zone": supervisor.time_zone}
        return cls(**values | named | {"hours": hours, "exceptions": exceptions})


class AvailabilityChanges(Given):
    """The members that are to change; the others stay as they are."""

    hours: Annotated[list[WeeklyRange], Field(max_length=MOST_HOURS)] = left_out()
    length: int = left_out("length")
    grid: int = left_out("grid")
    buffer_before: int = left_out("buffer_before")
    buffer_after: int = left_out("buffer_after")
    notice: int = left_out("notice")
    horizon: int = left_out("horizon")
    mode: Mode = left_out()
    place: Annotated[str, Field(max_length=checks.MOST_PLACE)] = left_out()
    cancel_notice: int = left_out("cancel_notice")
    move_notice: int = left_out("move_notice")
    day_limit: int | None = left_out("day_limit")
    week_limit: int | None = left_out("week_limit")
    approval: Approval = left_out()
    answer: int = left_out("answer")
    offer: int = left_out("offer")
    valid_from: Day | None = left_out()
    valid_until: Day | None = left_out()
    country: Code | None = left_out()
    subdivision: Code | None = left_out()


class NewOutsideCalendar(Given):
    """An https or webcal address of an iCalendar file (RFC 5545)."""

    address: Annotated[str, Field(max_length=outside.MOST_CHARACTERS), AfterValidator(plain_text)]


class OutsideCalendar(BaseModel):
    """A calendar of the supervisor's elsewhere. `fetched_at`: when it was last had; null before the first time."""

    id: uuid.UUID
    host: str
    created_at: datetime
    fetched_at: datetime | None
    error: str | None = Field(description="A static word for why the last try failed; null if it did not.")

    @classmethod
    def of(cls, one: KeptCalendar) -> Self:
        return cls(id=one.id, host=one.host, created_at=one.created_at, fetched_at=one.fetched_at, error=one.error)


class OutsideCalendars(BaseModel):
    items: list[OutsideCalendar]


Choice = Literal["mail:bookings", "mail:reminders", "mail:waits", "mail:unread", "matrix:reminders", "matrix:waits"]
Before = Annotated[int, Field(ge=1, le=preferences.EARLIEST)]
Reminders = Annotated[list[Before], Field(max_length=preferences.MOST_REMINDERS)]


class NewPreferences(Given):
    """How somebody wants to be told. Reminders are minutes before the start; quiet hours go by the person's own clock.

    `unwanted`: what is not to be told by which channel. Bookings are always told in the room, cancellations always.
    """

    mail_reminders: Reminders
    room_reminders: Reminders
    quiet_from: Clock | None
    quiet_until: Clock | None
    unwanted: list[Choice]

    def wishes(self) -> Wishes:
        split = (one.split(":") for one in self.unwanted)
        return Wishes(
            tuple(self.mail_reminders),
            tuple(self.room_reminders),
            None if self.quiet_from is None else time.fromisoformat(self.quiet_from),
            None if self.quiet_until is None else time.fromisoformat(self.quiet_until),
            frozenset((Channel(channel), Topic(topic)) for channel, topic in split),
        )


class Preferences(BaseModel):
    """How somebody wants to be told, as it can be given back."""

    mail_reminders: list[int]
    room_reminders: list[int]
    quiet_from: Clock | None
    quiet_until: Clock | None
    unwanted: list[str]

    @classmethod
    def of(cls, wishes: Wishes) -> Self:
        return cls(
            mail_reminders=list(wishes.mail_reminders),
            room_reminders=list(wishes.room_reminders),
            quiet_from=None if wishes.quiet_from is None else f"{wishes.quiet_from:%H:%M}",
            quiet_until=None if wishes.quiet_until is None else f"{wishes.quiet_until:%H:%M}",
            unwanted=sorted(f"{channel}:{topic}" for channel, topic in wishes.unwanted),
        )


class PairSettings(Rules):
    """What holds for a pair. `own_*`: settled for this pair alone, not the supervisor's rule for all."""

    pair_id: uuid.UUID
    lengths: list[int] = Field(description="Minutes; the first is meant where none is named.")
    own_lengths: bool
    approval: Approval
    own_approval: bool

    @classmethod
    def of(cls, pair: TwoPeople, policies: Policies) -> Self:
        values = {name: getattr(policies.rules, name) for name in Rules.model_fields}
        return cls(
            **values,
            pair_id=pair.id,
            lengths=list(policies.lengths),
            own_lengths=policies.own_lengths,
            approval=policies.approval,
            own_approval=policies.own_approval,
        )


class PairChanges(Given):
    """The members that are to change; null is the supervisor's own rule."""

    lengths: Annotated[list[int], Field(max_length=MOST_LENGTHS)] | None = left_out()
    approval: Approval | None = left_out()


class RoomSettings(BaseModel):
    """What holds in a pair's room. `own` names what was settled for this pair, not by the configuration."""

    pair_id: uuid.UUID
    attachments: bool
    attachment_kinds: list[FileKind]
    attachment_megabytes: int = Field(description="The largest file, in units of 1024 * 1024 bytes.")
    retention_days: int = Field(description="After so many days messages and files are removed; 0 is never.")
    unread_minutes: int = Field(description="When a mail tells of an unread message; 0 is never.")
    export_consent: Consent
    expires_on: Day | None = Field(description="The last day that anybody can write, in the supervisor's time zone.")
    own: list[str]

    @classmethod
    def of(cls, pair_id: uuid.UUID, settings: rooms.RoomSettings, unread_minutes: int) -> Self:
        """`unread_minutes` is what holds where nothing was settled."""
        own = settings.unread_minutes
        return cls(
            pair_id=pair_id,
            attachments=settings.attachments,
            attachment_kinds=list(settings.ordered_kinds),
            attachment_megabytes=settings.megabytes,
            retention_days=settings.retention_days,
            unread_minutes=unread_minutes if own is None else own,
            export_consent=settings.export_consent,
            expires_on=settings.expires_on,
            own=sorted(rooms.COLUMNS[name].name for name in settings.own),
        )


class RoomChanges(Given):
    """The members that are to change; null is what the configuration says, or no last day."""

    attachments: bool | None = left_out()
    attachment_kinds: Annotated[list[FileKind], Field(max_length=len(FileKind))] | None = left_out()
    attachment_megabytes: int | None = left_out()
    retention_days: int | None = left_out()
    unread_minutes: int | None = left_out()
    export_consent: Consent | None = left_out()
    expires_on: Day | None = left_out()

    def changes(self) -> dict[str, Any]:
        """By the names of supervision/rooms.py."""
        names = {column.name: name for name, column in rooms.COLUMNS.items()}
        return {names[member]: getattr(self, member) for member in self.model_fields_set}


class Attachment(BaseModel):
    """A file in a room, by name, type, size, time and sender alone."""

    event_id: str = Field(description="The Matrix event that shows it.")
    sender_id: uuid.UUID
    name: str | None
    type: str | None = Field(description="The MIME type by content; null where that could not be told.")
    bytes: int | None
    sent_at: Instant


class Attachments(BaseModel):
    items: list[Attachment]


class Export(BaseModel):
    """A room's copy that the person asked for. `agreed` is one that is being made."""

    id: uuid.UUID
    pair_id: uuid.UUID
    state: ExportState
    agreed_by: uuid.UUID | None = Field(description="The other, where their word was needed.")
    events: int = Field(description="Those taken in so far; all of them once it is ready.")
    bytes: int = Field(description="Of the file so far; all of it once it is ready.")
    agreed_at: Instant = Field(description="Since when it is being made.")
    ready_at: Instant | None
    expires_at: Instant | None = Field(description="When it is deleted.")
    fetched_at: Instant | None = Field(description="When the whole file was last sent.")
    file: str | None = Field(description="The path of the file, while it is there.")

    @classmethod
    def seen(cls, export: KeptExport, *, now: datetime) -> Self:
        over = export.expires_at is not None and export.expires_at <= now
        state = ExportState.EXPIRED if over else export.state
        return cls(
            id=export.id,
            pair_id=export.pair_id,
            state=state,
            agreed_by=export.agreed_by,
            events=export.events,
            bytes=export.bytes,
            agreed_at=export.created_at,
            ready_at=export.ready_at,
            expires_at=export.expires_at,
            fetched_at=export.fetched_at,
            file=f"/api/pairs/{export.pair_id}/exports/{export.id}/file" if state is ExportState.READY else None,
        )


class Exports(BaseModel):
    items: list[Export]
    waits_until: Instant | None = Field(description="The other is asked to agree, and can until then; else null.")


# ---- admins


class NewPerson(Given):
    """A person with a new account of our homeserver, `account`, or one that they have, `matrix_id`, or neither."""

    name: Annotated[str, AfterValidator(plain_text)]
    email: Annotated[str, AfterValidator(plain_text)]
    language: Literal["pt-BR", "en"] = "pt-BR"
    time_zone: Annotated[str, Field(max_length=100), AfterValidator(plain_text)] = "America/Sao_Paulo"
    roles: Annotated[list[Role], Field(min_length=1, max_length=len(Role), strict=False)]
    account: Annotated[str, Field(max_length=255), AfterValidator(plain_text)] | None = None
    matrix_id: Annotated[str, Field(max_length=255), AfterValidator(plain_text)] | None = None


class AnyPerson(Person):
    """A person as admins see them."""

    roles: list[Role]
    disabled_at: Instant | None

    @classmethod
    def of(cls, person: Someone) -> Self:
        values = {name: getattr(person, name) for name in cls.model_fields}
        return cls(**values | {"roles": sorted(person.roles)})


class People(BaseModel):
    items: list[AnyPerson]


class Invitation(Given):
    """`account` is another name for an account that is not made yet."""

    account: Annotated[str, Field(max_length=255), AfterValidator(plain_text)] | None = None


class Disabling(Given):
    """With `deactivate` the account on our homeserver ends too, for good."""

    deactivate: bool = False


class Nothing(Given):
    """An empty object."""


class NewPair(Given):
    supervisor_id: uuid.UUID
    supervisee_id: uuid.UUID


class NewSupervisor(Given):
    supervisor_id: uuid.UUID


class RoomInvitation(Given):
    person_id: uuid.UUID


class Pairs(BaseModel):
    items: list[Pair]


class Problem(BaseModel):
    """Problem details (RFC 9457). `code` is a static word that programs can compare."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    alternatives: list[datetime] | None = Field(default=None, description="Other free starts of the same day.")
    clashes: list[datetime] | None = Field(default=None, description="The starts that a series cannot have.")
    incident: str | None = Field(default=None, description="Of a failure on our side, to be told to the operator.")

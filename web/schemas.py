"""What the API takes and gives. Times are RFC 3339 in UTC; IDs are lower-case UUIDs."""

import unicodedata
import uuid
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from supervision import appointments, pairs
from supervision.models import Mode, PairStatus, Role, Status
from supervision.people import Person as Someone

YEARS = range(1971, 2999)  # what calendars, databases and arithmetic with zones all bear


def to_utc(at: datetime) -> datetime:
    if at.year not in YEARS:
        raise ValueError("is out of range")
    return at.astimezone(UTC)


def plain_text(value: str) -> str:
    """Line breaks are fine; other control characters are not text."""
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\r\n\t" for c in value):
        raise ValueError("holds control characters")
    return value


Instant = Annotated[AwareDatetime, AfterValidator(to_utc)]
REASON_CHARACTERS = 500
INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


def read_instant(text: str) -> datetime:
    """An RFC 3339 time with its offset, as UTC. Raises ValueError (pydantic's ValidationError is one)."""
    if "T" not in text.upper():
        raise ValueError("is no time")  # pydantic would read a bare number as seconds since 1970
    return INSTANT.validate_python(text)


class Given(BaseModel):
    """What a client sends: exactly these members, in JSON's own types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Slot(Given):
    """A bookable time, as the list of slots gives it and as a booking takes it, unchanged."""

    supervisor_id: uuid.UUID
    pair_id: uuid.UUID
    starts_at: Instant
    ends_at: Instant


class NewTime(Given):
    """A slot object to move to; all but the start may be left out."""

    starts_at: Instant
    ends_at: Instant | None = None
    supervisor_id: uuid.UUID | None = None
    pair_id: uuid.UUID | None = None


class Nothing(Given):
    """An empty object."""


class Reason(Given):
    """Why it is cancelled; told in the encrypted room alone."""

    reason: Annotated[str, Field(max_length=REASON_CHARACTERS), AfterValidator(plain_text)] | None = None


class Appointment(BaseModel):
    id: uuid.UUID
    pair_id: uuid.UUID
    supervisor_id: uuid.UUID
    supervisee_id: uuid.UUID
    starts_at: datetime
    ends_at: datetime
    status: Status
    revision: int = Field(description="Grows by one with every change; also the ETag and the calendar's SEQUENCE.")
    mode: Mode
    place: str

    @classmethod
    def of(cls, appointment: appointments.Appointment) -> Self:
        return cls(**vars(appointment))


class Appointments(BaseModel):
    items: list[Appointment]


class Slots(BaseModel):
    items: list[Slot]


class Person(BaseModel):
    id: uuid.UUID
    name: str
    email: str
    matrix_id: str | None
    language: str
    time_zone: str = Field(description="An IANA time zone name.")

    @classmethod
    def of(cls, person: Someone) -> Self:
        return cls(
            id=person.id,
            name=person.name,
            email=person.email,
            matrix_id=person.matrix_id,
            language=person.language,
            time_zone=person.time_zone,
        )


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


class Me(BaseModel):
    person: Person
    roles: list[Role]
    pairs: list[Pair]


class Problem(BaseModel):
    """Problem details (RFC 9457). `code` is a static word; `alternatives` are other free starts of the same day."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    alternatives: list[datetime] | None = None

"""All tables. Times are `timestamptz`; ranges are `[start, end)`."""

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZRANGE, ExcludeConstraint

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Role(StrEnum):
    SUPERVISOR = "supervisor"
    SUPERVISEE = "supervisee"
    ADMIN = "admin"


class PairStatus(StrEnum):
    ACTIVE = "active"
    ARCHIVED = "archived"


class Status(StrEnum):
    """Of an appointment."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    NO_SHOW = "no_show"


class Mode(StrEnum):
    """How an appointment takes place."""

    ONLINE = "online"
    IN_PERSON = "in_person"


class Channel(StrEnum):
    MAIL = "mail"
    MATRIX = "matrix"


class State(StrEnum):
    """Of a notification.

    `waiting`: the person has no device yet that the bot may write to. `unwanted`: they have turned its topic off.
    """

    PENDING = "pending"
    WAITING = "waiting"
    SENT = "sent"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    UNWANTED = "unwanted"
    PARKED = "parked"


class Approval(StrEnum):
    """Whether a supervisor is asked before a booking counts."""

    ASK = "ask"
    AUTOMATIC = "automatic"


class Topic(StrEnum):
    """What notifications are about, as people turn them on and off for each channel."""

    BOOKINGS = "bookings"
    REMINDERS = "reminders"
    WAITS = "waits"
    UNREAD = "unread"


class Attendance(StrEnum):
    """What somebody's calendar answered to our entry: PARTSTAT (RFC 5545, 3.2.12)."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    TENTATIVE = "tentative"


class Exceptional(StrEnum):
    """What a dated exception does to the weekly hours."""

    TIME_OFF = "time_off"
    EXTRA_HOURS = "extra_hours"


class Question(StrEnum):
    """What the bot asked in a room: to answer something, to pick from a list, or to type a code.

    A slot picked for an appointment moves it; without one it books. A past appointment is picked to be corrected.
    """

    ANSWER_REQUEST = "answer_request"
    ANSWER_SERIES = "answer_series"
    ANSWER_MOVE = "answer_move"
    ANSWER_OFFER = "answer_offer"
    ANSWER_ATTENDANCE = "answer_attendance"
    PICK_SLOT = "pick_slot"
    PICK_APPOINTMENT = "pick_appointment"
    PICK_PAST = "pick_past"
    CONFIRM_AWAY = "confirm_away"
    CONFIRM_SETTINGS = "confirm_settings"
    CONFIRM_ZONE = "confirm_zone"
    CONFIRM_ARCHIVE = "confirm_archive"
    CONFIRM_EXPORT = "confirm_export"
    AGREE_EXPORT = "agree_export"


class Consent(StrEnum):
    """Who has to agree before a room is taken home by one of its two."""

    BOTH = "both"
    ONE = "one"


class FileKind(StrEnum):
    """What files are told apart as in a room's settings."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    PDF = "pdf"
    DOCUMENT = "document"
    TEXT = "text"
    ARCHIVE = "archive"


class Fault(StrEnum):
    """Why nothing is said in a room until somebody has seen to it."""

    GONE = "gone"  # the bot is not in it any more
    NOT_ENCRYPTED = "not_encrypted"
    NOT_OURS = "not_ours"  # somebody else has the last word there
    STRANGER = "stranger"  # somebody besides the two is in it and cannot be put out
    REFUSED = "refused"  # the homeserver does not let it be mended


class Task(StrEnum):
    """What only the homeserver's administrator can do there."""

    OPEN_REGISTRATION = "open_registration"  # a one-use registration token for a person's new account
    RESET_PASSWORD = "reset_password"  # noqa: S105  # a passing one, which the person replaces at once
    SIGN_OUT = "sign_out"  # all devices of a person
    DEACTIVATE = "deactivate"  # an account of ours, for good
    REMOVE_MEDIA = "remove_media"
    REMOVE_ROOM = "remove_room"


class ExportState(StrEnum):
    """Of a room that is taken home."""

    AGREED = "agreed"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def at(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def identifier() -> Column[object]:
    return Column("id", Uuid, primary_key=True)


def person(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, Uuid, ForeignKey("people.id"), nullable=nullable)


people = Table(
    "people",
    metadata,
    identifier(),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("matrix_id", Text, unique=True),
    Column("language", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("roles", ARRAY(Text), nullable=False),
    at("created_at"),
    at("disabled_at", nullable=True),
    # Since when mails to the address come back for good, and the code with which the last one did (RFC 3463).
    at("mail_stopped_at", nullable=True),
    Column("mail_stopped_code", Text),
    CheckConstraint("language IN ('pt-BR', 'en')", name="language"),
    CheckConstraint("roles <@ ARRAY['supervisor', 'supervisee', 'admin']", name="roles"),
    Index("uq_people_email", func.lower(text("email")), unique=True),
)

bots = Table(
    "bots",
    metadata,
    Column("matrix_id", Text, primary_key=True),
    Column("sync_token", Text),
    Column("master_key", Text),
    at("started_at", nullable=True),
    at(
        "checked_at", nullable=True
    ),  # when all of its rooms and its own device were last compared with what they must be
)

pairs = Table(
    "pairs",
    metadata,
    identifier(),
    person("supervisor_id"),
    person("supervisee_id"),
    Column("status", Text, nullable=False),
    Column("bot", Text, ForeignKey("bots.matrix_id"), nullable=True),
    Column("room_id", Text, unique=True),
    Column("room_token", Uuid, nullable=False),
    at("supervisor_introduced_at", nullable=True),
    at("supervisee_introduced_at", nullable=True),
    at("created_at"),
    at("archived_at", nullable=True),
    # What the supervisor settled for this pair alone; her availability's where it is empty. The first length is the
    # one that is meant where none is named.
    Column("lengths", ARRAY(Integer)),
    Column("approval", Text),
    # The room's settings; the configuration's where they are empty. `attachment_kinds` are FileKind; no days of
    # retention (0) is for ever, no minutes (0) of what is unread is never.
    Column("attachments", Boolean),
    Column("attachment_kinds", ARRAY(Text)),
    Column("attachment_megabytes", Integer),
    Column("retention_days", Integer),
    Column("unread_minutes", Integer),
    Column("export_consent", Text),
    Column("expires_on", Date),  # the last day, in the supervisor's zone
    # Retention: what was written before `retained_since` is gone. A legal hold stops it.
    at("retained_since", nullable=True),
    at("held_at", nullable=True),
    # The room itself: why nothing is said in it, and when it was removed with everything.
    Column("fault", Text),
    at("fault_at", nullable=True),
    at("removed_at", nullable=True),
    one_of("export_consent", Consent),
    one_of("fault", Fault),
    CheckConstraint("attachment_megabytes BETWEEN 1 AND 1000", name="attachment_megabytes"),
    CheckConstraint("retention_days BETWEEN 0 AND 3650", name="retention_days"),
    CheckConstraint("unread_minutes BETWEEN 0 AND 10080", name="unread_minutes"),
    CheckConstraint("(fault IS NULL) = (fault_at IS NULL)", name="fault_whole"),
    one_of("status", PairStatus),
    one_of("approval", Approval),
    CheckConstraint("supervisor_id <> supervisee_id", name="two_people"),
    Index(
        "uq_pairs_active",
        "supervisor_id",
        "supervisee_id",
        unique=True,
        postgresql_where=text("status = 'active'"),
    ),
    Index("ix_pairs_supervisee_id", "supervisee_id"),
)

# One row a supervisor: the rules by which her weekly hours become slots.
availabilities = Table(
    "availabilities",
    metadata,
    Column("supervisor_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("length_minutes", Integer, nullable=False),
    Column("grid_minutes", Integer, nullable=False),
    Column("buffer_before_minutes", Integer, nullable=False),
    Column("buffer_after_minutes", Integer, nullable=False),
    Column("notice_minutes", Integer, nullable=False),
    Column("horizon_days", Integer, nullable=False),
    Column("mode", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("cancel_notice_minutes", Integer, nullable=False, server_default="1440"),
    Column("move_notice_minutes", Integer, nullable=False, server_default="120"),
    Column("day_limit", Integer),
    Column("week_limit", Integer),
    Column("approval", Text, nullable=False, server_default="ask"),
    Column("answer_minutes", Integer, nullable=False, server_default="2880"),
    Column("offer_minutes", Integer, nullable=False, server_default="240"),
    Column("valid_from", Date),
    Column("valid_until", Date),
    Column("country", Text),
    Column("subdivision", Text),
    one_of("mode", Mode),
    one_of("approval", Approval),
    CheckConstraint("cancel_notice_minutes BETWEEN 0 AND 43200", name="cancel_notice"),
    CheckConstraint("move_notice_minutes BETWEEN 0 AND 43200", name="move_notice"),
    CheckConstraint("day_limit BETWEEN 1 AND 100", name="day_limit"),
    CheckConstraint("week_limit BETWEEN 1 AND 500", name="week_limit"),
    CheckConstraint("answer_minutes BETWEEN 5 AND 43200", name="answer"),
    CheckConstraint("offer_minutes BETWEEN 5 AND 10080", name="offer"),
    CheckConstraint("valid_from <= valid_until", name="valid"),
    CheckConstraint("length_minutes BETWEEN 5 AND 720", name="length"),
    CheckConstraint("grid_minutes BETWEEN 5 AND 1440", name="grid"),
    CheckConstraint("buffer_before_minutes BETWEEN 0 AND 720", name="buffer_before"),
    CheckConstraint("buffer_after_minutes BETWEEN 0 AND 720", name="buffer_after"),
    CheckConstraint("notice_minutes BETWEEN 0 AND 43200", name="notice"),
    CheckConstraint("horizon_days BETWEEN 1 AND 366", name="horizon"),
)

# Wall-clock times in the supervisor's zone; weekday 0 is Monday.
weekly_hours = Table(
    "weekly_hours",
    metadata,
    Column("supervisor_id", Uuid, ForeignKey("availabilities.supervisor_id"), primary_key=True),
    Column("weekday", SmallInteger, primary_key=True, autoincrement=False),
    Column("starts", Time, primary_key=True),
    Column("ends", Time, nullable=False),
    CheckConstraint("weekday BETWEEN 0 AND 6", name="weekday"),
    CheckConstraint("starts < ends", name="forwards"),
)

# Days on which the weekly hours do not say it all, as dates and wall-clock times in the supervisor's zone. Time off
# without times takes whole days; `yearly` repeats the same days every year.
dated_exceptions = Table(
    "dated_exceptions",
    metadata,
    identifier(),
    Column("supervisor_id", Uuid, ForeignKey("availabilities.supervisor_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("first_on", Date, nullable=False),
    Column("last_on", Date, nullable=False),
    Column("starts", Time),
    Column("ends", Time),
    Column("yearly", Boolean, nullable=False),
    at("created_at"),
    one_of("kind", Exceptional),
    CheckConstraint("first_on <= last_on", name="days_forwards"),
    CheckConstraint("starts < ends", name="times_forwards"),
    CheckConstraint("(starts IS NULL) = (ends IS NULL)", name="both_times"),
    CheckConstraint("kind = 'time_off' OR starts IS NOT NULL", name="extra_has_times"),
    Index("ix_dated_exceptions_supervisor_id_first_on", "supervisor_id", "first_on"),
)

# Appointments that were booked together. `rule` is an RRULE (RFC 5545, 3.3.10) counted in the wall-clock time of
# `time_zone`, which is the supervisor's when it was booked.
series = Table(
    "series",
    metadata,
    identifier(),
    Column("pair_id", Uuid, ForeignKey("pairs.id"), nullable=False),
    Column("rule", Text, nullable=False),
    at("starts_at"),
    at("ends_at"),
    Column("time_zone", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    at("created_at"),
)

# `buffer_*` is what the supervisor's hold takes besides the appointment itself. `series_at` is the start that the
# series' rule gave it. `proposed_*` is an open proposal to move it, whose time is held too.
appointments = Table(
    "appointments",
    metadata,
    identifier(),
    Column("pair_id", Uuid, ForeignKey("pairs.id"), nullable=False),
    person("supervisor_id"),
    person("supervisee_id"),
    at("starts_at"),
    at("ends_at"),
    Column("status", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("mode", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("buffer_before_minutes", Integer, nullable=False, server_default="0"),
    Column("buffer_after_minutes", Integer, nullable=False, server_default="0"),
    person("booked_by", nullable=True),
    at("answer_by", nullable=True),
    Column("late", Boolean, nullable=False, server_default="false"),
    Column("series_id", Uuid, ForeignKey("series.id")),
    at("series_at", nullable=True),
    Column("proposal_id", Uuid),
    person("proposed_by", nullable=True),
    at("proposed_starts_at", nullable=True),
    at("proposed_ends_at", nullable=True),
    Column("proposed_before_minutes", Integer),
    Column("proposed_after_minutes", Integer),
    at("proposed_answer_by", nullable=True),
    at("created_at"),
    at("updated_at"),
    one_of("status", Status),
    one_of("mode", Mode),
    CheckConstraint("starts_at < ends_at", name="forwards"),
    CheckConstraint("proposed_starts_at < proposed_ends_at", name="proposed_forwards"),
    CheckConstraint(
        "num_nulls(proposal_id, proposed_by, proposed_starts_at, proposed_ends_at, proposed_before_minutes,"
        " proposed_after_minutes, proposed_answer_by) IN (0, 7)",
        name="proposal_whole",
    ),
    CheckConstraint("proposal_id IS NULL OR status IN ('requested', 'confirmed')", name="proposal_open"),
    CheckConstraint("(series_id IS NULL) = (series_at IS NULL)", name="series_at"),
    Index("ix_appointments_series_id_series_at", "series_id", "series_at"),
    Index(
        "ix_appointments_answer_by",
        "answer_by",
        postgresql_where=text("status = 'requested'"),
    ),
    Index(
        "ix_appointments_proposed",
        "supervisor_id",
        "proposed_starts_at",
        postgresql_where=text("proposal_id IS NOT NULL"),
    ),
    Index(
        "ix_appointments_proposed_answer_by",
        "proposed_answer_by",
        postgresql_where=text("proposal_id IS NOT NULL"),
    ),
    Index("ix_appointments_pair_id_starts_at", "pair_id", "starts_at"),
    Index("ix_appointments_supervisor_id_starts_at", "supervisor_id", "starts_at"),
    Index("ix_appointments_supervisee_id_starts_at", "supervisee_id", "starts_at"),
    Index(
        "ix_appointments_open_ends_at",
        "ends_at",
        postgresql_where=text("status IN ('requested', 'confirmed')"),
    ),
)

# A supervisee who waits for a time of their supervisor's to become free: any that starts in one of the ranges
# `[since[i], until[i])`. What is on offer is held until `offer_until`; `passed` are starts that were let go by.
waits = Table(
    "waits",
    metadata,
    identifier(),
    Column("pair_id", Uuid, ForeignKey("pairs.id"), nullable=False),
    person("supervisor_id"),
    person("supervisee_id"),
    Column("since", ARRAY(DateTime(timezone=True)), nullable=False),
    Column("until", ARRAY(DateTime(timezone=True)), nullable=False),
    Column("length_minutes", Integer, nullable=False),
    Column("passed", ARRAY(DateTime(timezone=True)), nullable=False),
    at("offered_starts_at", nullable=True),
    at("offered_ends_at", nullable=True),
    at("offer_until", nullable=True),
    at("created_at"),
    at("ends_at"),
    at("ended_at", nullable=True),
    CheckConstraint("num_nulls(offered_starts_at, offered_ends_at, offer_until) IN (0, 3)", name="offer_whole"),
    CheckConstraint("ended_at IS NULL OR offer_until IS NULL", name="ended"),
    Index("ix_waits_open", "supervisor_id", "created_at", postgresql_where=text("ended_at IS NULL")),
    Index("ix_waits_pair_id", "pair_id", postgresql_where=text("ended_at IS NULL")),
)

# A person's time taken by an appointment, in whichever role, or kept for an offer to somebody who waits. The
# supervisor's range includes her buffers.
holds = Table(
    "holds",
    metadata,
    Column("appointment_id", Uuid, ForeignKey("appointments.id")),
    Column("wait_id", Uuid, ForeignKey("waits.id")),
    person("person_id"),
    Column("during", TSTZRANGE, nullable=False),
    CheckConstraint("num_nulls(appointment_id, wait_id) = 1", name="one_reason"),
    ExcludeConstraint(("person_id", "="), ("during", "&&"), name="ex_holds_person_id_during", using="gist"),
    Index("ix_holds_appointment_id", "appointment_id"),
    Index("ix_holds_wait_id", "wait_id", postgresql_where=text("wait_id IS NOT NULL")),
)

notifications = Table(
    "notifications",
    metadata,
    identifier(),
    Column("position", BigInteger, Identity(), nullable=False),
    person("person_id"),
    Column("pair_id", Uuid, ForeignKey("pairs.id")),
    Column("appointment_id", Uuid, ForeignKey("appointments.id")),
    Column("revision", Integer),
    Column("channel", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    at("created_at"),
    at("send_at"),
    at("expires_at", nullable=True),
    at("next_try_at"),
    at("claimed_until", nullable=True),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    at("settled_at", nullable=True),
    Column("matrix_event_id", Text),
    one_of("channel", Channel),
    one_of("state", State),
    CheckConstraint("priority BETWEEN 1 AND 3", name="priority"),
    Index(
        "ix_notifications_due",
        "channel",
        "priority",
        "next_try_at",
        "position",
        postgresql_where=text("state = 'pending'"),
    ),
    Index("ix_notifications_parked", "position", postgresql_where=text("state = 'parked'")),
    Index(
        "ix_notifications_lane",
        "appointment_id",
        "person_id",
        "channel",
        "position",
        postgresql_where=text("state IN ('pending', 'waiting')"),
    ),
    Index(
        "ix_notifications_retention",
        "pair_id",
        postgresql_where=text("kind IN ('retention.announced', 'retention.done')"),
    ),
    Index(
        "ix_notifications_waiting",
        "pair_id",
        "person_id",
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("ix_notifications_appointment_id", "appointment_id"),
    Index(
        "ix_notifications_matrix_event_id",
        "matrix_event_id",
        unique=True,
        postgresql_where=text("matrix_event_id IS NOT NULL"),
    ),
)

# What the bot asked whom; a reaction counts only as the answer to one of these, once. `details` is what a typed
# `code` agrees to, or what belongs to the numbers of a list: IDs, times, numbers and static words.
questions = Table(
    "questions",
    metadata,
    Column("notification_id", Uuid, ForeignKey("notifications.id"), primary_key=True),
    Column("position", BigInteger, Identity(), nullable=False),
    Column("pair_id", Uuid, ForeignKey("pairs.id"), nullable=False),
    person("person_id"),
    Column("kind", Text, nullable=False),
    Column("appointment_id", Uuid, ForeignKey("appointments.id")),
    Column("revision", Integer),
    Column("slots", ARRAY(DateTime(timezone=True)), nullable=False),
    Column("choices", ARRAY(Uuid), nullable=False),
    Column("code", Text),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    at("asked_at"),
    at("expires_at"),
    at("answered_at", nullable=True),
    one_of("kind", Question),
    Index("ix_questions_person_id_pair_id", "person_id", "pair_id", "kind", "position"),
)

journal = Table(
    "journal",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("room_id", Text, nullable=False),
    Column("session_id", Text),
    Column("message_index", BigInteger),
    Column("outcome", Text, nullable=False),
    at("handled_at"),
    UniqueConstraint("session_id", "message_index"),
    Index("ix_journal_handled_at", "handled_at"),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    at("at"),
    Column("actor_id", Uuid),
    Column("via", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("resource_id", Text),
    Column("success", Boolean, nullable=False),
    Column("reason", Text),
    Column("ip", Text),
    Column("user_agent", Text),
    Column("device", Text),
    Index("ix_audit_entries_actor_id_at", "actor_id", "at"),
    Index("ix_audit_entries_resource_id_at", "resource_id", "at"),
)

# The master cross-signing key of a Matrix account, pinned when first seen. `offered_key` is a changed one that
# its owner has not confirmed yet.
identities = Table(
    "identities",
    metadata,
    Column("matrix_id", Text, primary_key=True),
    Column("master_key", Text, nullable=False),
    at("pinned_at"),
    Column("offered_key", Text),
    at("offered_at", nullable=True),
)

# A signed-in browser.
sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    person("person_id"),
    at("created_at"),
    at("seen_at"),
    at("expires_at"),
    Column("ip", Text),
    Column("user_agent", Text),
    Index("ix_sessions_person_id", "person_id"),
)

# A mailed link and its code, both derived from the ID and the configured secret (sign_ins.py), so that neither
# stands here. `person_id` is empty for an address that nobody has: the asker must not notice.
sign_ins = Table(
    "sign_ins",
    metadata,
    identifier(),
    person("person_id", nullable=True),
    Column("browser_hash", LargeBinary, nullable=False),
    at("created_at"),
    at("expires_at"),
    at("used_at", nullable=True),
    Column("wrong_codes", SmallInteger, nullable=False),
    Index("ix_sign_ins_browser_hash", "browser_hash"),
    Index("ix_sign_ins_person_id_created_at", "person_id", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("response", JSONB, nullable=False),
    at("created_at"),
)

# How a person wants to be told; who has no row wants the usual. Reminders are minutes before the start. `unwanted`
# holds words such as `mail:reminders`, a channel and a topic. Quiet hours are wall-clock times in the person's zone.
preferences = Table(
    "preferences",
    metadata,
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("mail_reminders", ARRAY(Integer), nullable=False),
    Column("room_reminders", ARRAY(Integer), nullable=False),
    Column("quiet_from", Time),
    Column("quiet_until", Time),
    Column("unwanted", ARRAY(Text), nullable=False),
    at("updated_at"),
    CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name="quiet_whole"),
    CheckConstraint("quiet_from <> quiet_until", name="quiet_some"),
)

# What people's calendars answered last. `sequence` is that of the entry which was answered, `stamp` the DTSTAMP of the
# answer: an older one changes nothing (RFC 5546, 2.1.5).
attendances = Table(
    "attendances",
    metadata,
    Column("appointment_id", Uuid, ForeignKey("appointments.id"), primary_key=True),
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("answer", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    at("stamp"),
    at("answered_at"),
    one_of("answer", Attendance),
)

# Mails that came in and what became of them, so that one handed over twice takes effect once. `digest` is the SHA-256
# of what was received; nothing of the mail itself is kept.
inbound_mails = Table(
    "inbound_mails",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("outcome", Text, nullable=False),
    at("received_at"),
    Index("ix_inbound_mails_received_at", "received_at"),
)

# A person's private calendar address; the token in it is derived from the nonce and the configured secret (seals.py).
feeds = Table(
    "feeds",
    metadata,
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("nonce", Uuid, nullable=False),
    at("created_at"),
)

# A supervisor's other calendars, whose busy times are taken out of her slots. The address is a secret and stands here
# encrypted (seals.py); `host` is the part of it that is shown. `fetched_at` is when it was last had, or said to be as
# it was; `read_as` the day and zone for which its times were last worked out: another day sees farther.
outside_calendars = Table(
    "outside_calendars",
    metadata,
    identifier(),
    person("supervisor_id"),
    Column("address", LargeBinary, nullable=False),
    Column("host", Text, nullable=False),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("digest", LargeBinary),
    Column("read_as", Text),
    Column("error", Text),
    Column("failures", Integer, nullable=False),
    at("created_at"),
    at("fetched_at", nullable=True),
    at("next_fetch_at"),
    at("claimed_until", nullable=True),
    Index("ix_outside_calendars_supervisor_id", "supervisor_id"),
    Index("ix_outside_calendars_next_fetch_at", "next_fetch_at"),
)

busy_times = Table(
    "busy_times",
    metadata,
    Column("calendar_id", Uuid, ForeignKey("outside_calendars.id", ondelete="CASCADE"), nullable=False),
    person("supervisor_id"),
    Column("during", TSTZRANGE, nullable=False),
    Index("ix_busy_times_calendar_id", "calendar_id"),
    Index("ix_busy_times_supervisor_id_during", "supervisor_id", "during", postgresql_using="gist"),
)

# The first message of the other's in a pair's room that a person has not read yet, and the mail that will say so.
unreads = Table(
    "unreads",
    metadata,
    Column("pair_id", Uuid, ForeignKey("pairs.id"), primary_key=True),
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("notification_id", Uuid, ForeignKey("notifications.id")),  # none where no mail is to say so
    at("since_at"),
    Column("messages", Integer, nullable=False, server_default="1"),  # how many there are
)

# Who is in a pair's room, and whether they have a device there that the bot may write to.
memberships = Table(
    "memberships",
    metadata,
    Column("pair_id", Uuid, ForeignKey("pairs.id"), primary_key=True),
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("membership", Text, nullable=False),  # Matrix's word: invite, join, leave, ban, knock
    Column("readable", Boolean, nullable=False),
    at("changed_at"),
)

# Who is online, as the homeserver tells it, where it tells at all; and when they were last active.
presences = Table(
    "presences",
    metadata,
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("online", Boolean, nullable=False),
    at("active_at", nullable=True),
    at("told_at"),
)

# How a person comes in: the mailed link (seals.py, from the nonce), and the account that is made with it. `localpart`
# is the new account's name, empty for one that exists already; `registration` the one-use registration token, locked.
invitations = Table(
    "invitations",
    metadata,
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("nonce", Uuid, nullable=False),
    Column("localpart", Text, unique=True),
    Column("registration", LargeBinary),
    at("invited_at"),
    at("expires_at"),
    at("opened_at", nullable=True),
    at("registered_at", nullable=True),
    at("finished_at", nullable=True),
)

# A person's own change of address, until the code that was mailed there is typed (seals.py, from the nonce).
address_changes = Table(
    "address_changes",
    metadata,
    Column("person_id", Uuid, ForeignKey("people.id"), primary_key=True),
    Column("email", Text, nullable=False),
    Column("nonce", Uuid, nullable=False),
    Column("wrong_codes", SmallInteger, nullable=False),
    at("created_at"),
    at("expires_at"),
)

# What a bot's process with the administrator's token is to do at the homeserver. `answer` is what came of it where that
# is a secret, locked (seals.py), and short-lived.
homeserver_tasks = Table(
    "homeserver_tasks",
    metadata,
    identifier(),
    Column("kind", Text, nullable=False),
    Column("person_id", Uuid, ForeignKey("people.id")),
    Column("pair_id", Uuid, ForeignKey("pairs.id")),
    Column("details", JSONB, nullable=False),
    Column("answer", LargeBinary),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    at("created_at"),
    at("next_try_at"),
    at("done_at", nullable=True),
    one_of("kind", Task),
    Index("ix_homeserver_tasks_due", "next_try_at", postgresql_where=text("done_at IS NULL")),
    Index("ix_homeserver_tasks_person_id", "person_id"),
    Index("ix_homeserver_tasks_pair_id", "pair_id"),
)

# Files in rooms: `media` are the mxc:// addresses of file and thumbnail, `name` is locked (seals.py), `type` the MIME
# type by content; `refused` why it was taken down.
attachments = Table(
    "attachments",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("pair_id", Uuid, ForeignKey("pairs.id"), nullable=False),
    person("person_id"),
    Column("media", ARRAY(Text), nullable=False),
    Column("name", LargeBinary),
    Column("type", Text),
    Column("bytes", BigInteger),
    Column("refused", Text),
    at("sent_at"),
    at("removed_at", nullable=True),
    Index("ix_attachments_pair_id_sent_at", "pair_id", "sent_at"),
)

# A room taken home. The file stands in `export_chunks`, encrypted with a key that is derived from `salt` and the
# configured secret; it goes a day after it was ready.
exports = Table(
    "exports",
    metadata,
    identifier(),
    Column("pair_id", Uuid, ForeignKey("pairs.id"), nullable=False),
    person("person_id"),
    person("agreed_by", nullable=True),
    Column("state", Text, nullable=False),
    Column("salt", LargeBinary),
    Column("events", Integer, nullable=False),  # taken in so far, then all
    Column("bytes", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    at("created_at"),
    at("next_try_at"),
    at("ready_at", nullable=True),
    at("expires_at", nullable=True),
    at("fetched_at", nullable=True),
    one_of("state", ExportState),
    Index("ix_exports_pair_id", "pair_id"),
    Index("ix_exports_open", "next_try_at", postgresql_where=text("state = 'agreed'")),
    Index("ix_exports_expires_at", "expires_at", postgresql_where=text("state = 'ready'")),
)

export_chunks = Table(
    "export_chunks",
    metadata,
    Column("export_id", Uuid, ForeignKey("exports.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

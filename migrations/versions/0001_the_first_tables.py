"""The first tables: people, pairs, bookings, the outbox, the journal, audit and sessions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # For `person_id WITH =` in the holds' exclusion constraint; trusted, so the database's owner may create it.
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=True),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("device", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    op.create_index("ix_audit_entries_actor_id_at", "audit_entries", ["actor_id", "at"], unique=False)
    op.create_index("ix_audit_entries_resource_id_at", "audit_entries", ["resource_id", "at"], unique=False)
    op.create_table(
        "bots",
        sa.Column("matrix_id", sa.Text(), nullable=False),
        sa.Column("sync_token", sa.Text(), nullable=True),
        sa.Column("master_key", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("matrix_id", name=op.f("pk_bots")),
    )
    op.create_table(
        "identities",
        sa.Column("matrix_id", sa.Text(), nullable=False),
        sa.Column("master_key", sa.Text(), nullable=False),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("offered_key", sa.Text(), nullable=True),
        sa.Column("offered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("matrix_id", name=op.f("pk_identities")),
    )
    op.create_table(
        "journal",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("message_index", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_journal")),
        sa.UniqueConstraint("session_id", "message_index", name=op.f("uq_journal_session_id_message_index")),
    )
    op.create_index("ix_journal_handled_at", "journal", ["handled_at"], unique=False)
    op.create_table(
        "people",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("matrix_id", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("roles", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("language IN ('pt-BR', 'en')", name=op.f("ck_people_language")),
        sa.CheckConstraint("roles <@ ARRAY['supervisor', 'supervisee', 'admin']", name=op.f("ck_people_roles")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("matrix_id", name=op.f("uq_people_matrix_id")),
    )
    op.create_index("uq_people_email", "people", [sa.literal_column("lower(email)")], unique=True)
    op.create_table(
        "availabilities",
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("length_minutes", sa.Integer(), nullable=False),
        sa.Column("grid_minutes", sa.Integer(), nullable=False),
        sa.Column("buffer_before_minutes", sa.Integer(), nullable=False),
        sa.Column("buffer_after_minutes", sa.Integer(), nullable=False),
        sa.Column("notice_minutes", sa.Integer(), nullable=False),
        sa.Column("horizon_days", sa.Integer(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.CheckConstraint("mode IN ('online', 'in_person')", name=op.f("ck_availabilities_mode")),
        sa.CheckConstraint("buffer_after_minutes BETWEEN 0 AND 720", name=op.f("ck_availabilities_buffer_after")),
        sa.CheckConstraint("buffer_before_minutes BETWEEN 0 AND 720", name=op.f("ck_availabilities_buffer_before")),
        sa.CheckConstraint("grid_minutes BETWEEN 5 AND 1440", name=op.f("ck_availabilities_grid")),
        sa.CheckConstraint("horizon_days BETWEEN 1 AND 366", name=op.f("ck_availabilities_horizon")),
        sa.CheckConstraint("length_minutes BETWEEN 5 AND 720", name=op.f("ck_availabilities_length")),
        sa.CheckConstraint("notice_minutes BETWEEN 0 AND 43200", name=op.f("ck_availabilities_notice")),
        sa.ForeignKeyConstraint(["supervisor_id"], ["people.id"], name=op.f("fk_availabilities_supervisor_id")),
        sa.PrimaryKeyConstraint("supervisor_id", name=op.f("pk_availabilities")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("response", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_idempotency_keys_person_id")),
        sa.PrimaryKeyConstraint("person_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "pairs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("supervisee_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("bot", sa.Text(), nullable=True),
        sa.Column("room_id", sa.Text(), nullable=True),
        sa.Column("room_token", sa.Uuid(), nullable=False),
        sa.Column("supervisor_introduced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("supervisee_introduced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('active', 'archived')", name=op.f("ck_pairs_status")),
        sa.CheckConstraint("supervisor_id <> supervisee_id", name=op.f("ck_pairs_two_people")),
        sa.ForeignKeyConstraint(["bot"], ["bots.matrix_id"], name=op.f("fk_pairs_bot")),
        sa.ForeignKeyConstraint(["supervisee_id"], ["people.id"], name=op.f("fk_pairs_supervisee_id")),
        sa.ForeignKeyConstraint(["supervisor_id"], ["people.id"], name=op.f("fk_pairs_supervisor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pairs")),
        sa.UniqueConstraint("room_id", name=op.f("uq_pairs_room_id")),
    )
    op.create_index("ix_pairs_supervisee_id", "pairs", ["supervisee_id"], unique=False)
    op.create_index(
        "uq_pairs_active",
        "pairs",
        ["supervisor_id", "supervisee_id"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_sessions_person_id")),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_person_id", "sessions", ["person_id"], unique=False)
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wrong_codes", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_sign_ins_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_ins")),
    )
    op.create_index("ix_sign_ins_browser_hash", "sign_ins", ["browser_hash"], unique=False)
    op.create_index("ix_sign_ins_person_id_created_at", "sign_ins", ["person_id", "created_at"], unique=False)
    op.create_table(
        "appointments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("supervisee_id", sa.Uuid(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mode IN ('online', 'in_person')", name=op.f("ck_appointments_mode")),
        sa.CheckConstraint(
            "status IN ('requested', 'confirmed', 'declined', 'cancelled', 'completed', 'no_show')",
            name=op.f("ck_appointments_status"),
        ),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_appointments_forwards")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_appointments_pair_id")),
        sa.ForeignKeyConstraint(["supervisee_id"], ["people.id"], name=op.f("fk_appointments_supervisee_id")),
        sa.ForeignKeyConstraint(["supervisor_id"], ["people.id"], name=op.f("fk_appointments_supervisor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_appointments")),
    )
    op.create_index(
        "ix_appointments_open_ends_at",
        "appointments",
        ["ends_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('requested', 'confirmed')"),
    )
    op.create_index("ix_appointments_pair_id_starts_at", "appointments", ["pair_id", "starts_at"], unique=False)
    op.create_index(
        "ix_appointments_supervisee_id_starts_at", "appointments", ["supervisee_id", "starts_at"], unique=False
    )
    op.create_index(
        "ix_appointments_supervisor_id_starts_at", "appointments", ["supervisor_id", "starts_at"], unique=False
    )
    op.create_table(
        "weekly_hours",
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("weekday", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("starts", sa.Time(), nullable=False),
        sa.Column("ends", sa.Time(), nullable=False),
        sa.CheckConstraint("starts < ends", name=op.f("ck_weekly_hours_forwards")),
        sa.CheckConstraint("weekday BETWEEN 0 AND 6", name=op.f("ck_weekly_hours_weekday")),
        sa.ForeignKeyConstraint(
            ["supervisor_id"], ["availabilities.supervisor_id"], name=op.f("fk_weekly_hours_supervisor_id")
        ),
        sa.PrimaryKeyConstraint("supervisor_id", "weekday", "starts", name=op.f("pk_weekly_hours")),
    )
    op.create_table(
        "holds",
        sa.Column("appointment_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("during", postgresql.TSTZRANGE(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("person_id"), "="), (sa.column("during"), "&&"), using="gist", name="ex_holds_person_id_during"
        ),
        sa.ForeignKeyConstraint(["appointment_id"], ["appointments.id"], name=op.f("fk_holds_appointment_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_holds_person_id")),
    )
    op.create_index("ix_holds_appointment_id", "holds", ["appointment_id"], unique=False)
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=True),
        sa.Column("appointment_id", sa.Uuid(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("send_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("matrix_event_id", sa.Text(), nullable=True),
        sa.CheckConstraint("channel IN ('mail', 'matrix')", name=op.f("ck_notifications_channel")),
        sa.CheckConstraint(
            "state IN ('pending', 'waiting', 'sent', 'superseded', 'expired', 'parked')",
            name=op.f("ck_notifications_state"),
        ),
        sa.CheckConstraint("priority BETWEEN 1 AND 3", name=op.f("ck_notifications_priority")),
        sa.ForeignKeyConstraint(["appointment_id"], ["appointments.id"], name=op.f("fk_notifications_appointment_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_notifications_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_notifications_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index("ix_notifications_appointment_id", "notifications", ["appointment_id"], unique=False)
    op.create_index(
        "ix_notifications_due",
        "notifications",
        ["channel", "priority", "next_try_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_notifications_lane",
        "notifications",
        ["appointment_id", "person_id", "channel", "position"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'waiting')"),
    )
    op.create_index(
        "ix_notifications_matrix_event_id",
        "notifications",
        ["matrix_event_id"],
        unique=True,
        postgresql_where=sa.text("matrix_event_id IS NOT NULL"),
    )
    op.create_index(
        "ix_notifications_waiting",
        "notifications",
        ["pair_id", "person_id"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "questions",
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("appointment_id", sa.Uuid(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("slots", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("choices", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('answer_request', 'pick_slot', 'pick_appointment')", name=op.f("ck_questions_kind")
        ),
        sa.ForeignKeyConstraint(["appointment_id"], ["appointments.id"], name=op.f("fk_questions_appointment_id")),
        sa.ForeignKeyConstraint(["notification_id"], ["notifications.id"], name=op.f("fk_questions_notification_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_questions_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_questions_person_id")),
        sa.PrimaryKeyConstraint("notification_id", name=op.f("pk_questions")),
    )
    op.create_index(
        "ix_questions_person_id_pair_id", "questions", ["person_id", "pair_id", "kind", "asked_at"], unique=False
    )

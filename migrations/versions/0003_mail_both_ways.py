"""Mail both ways: what people want to be told, what their calendars answer, other calendars, what is unread."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inbound_mails",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_inbound_mails")),
    )
    op.create_index("ix_inbound_mails_received_at", "inbound_mails", ["received_at"], unique=False)
    op.create_table(
        "feeds",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_feeds_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_feeds")),
    )
    op.create_table(
        "outside_calendars",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("read_as", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_fetch_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["supervisor_id"], ["people.id"], name=op.f("fk_outside_calendars_supervisor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outside_calendars")),
    )
    op.create_index("ix_outside_calendars_next_fetch_at", "outside_calendars", ["next_fetch_at"], unique=False)
    op.create_index("ix_outside_calendars_supervisor_id", "outside_calendars", ["supervisor_id"], unique=False)
    op.create_table(
        "preferences",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("mail_reminders", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("room_reminders", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("quiet_from", sa.Time(), nullable=True),
        sa.Column("quiet_until", sa.Time(), nullable=True),
        sa.Column("unwanted", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name=op.f("ck_preferences_quiet_whole")),
        sa.CheckConstraint("quiet_from <> quiet_until", name=op.f("ck_preferences_quiet_some")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_preferences_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_preferences")),
    )
    op.create_table(
        "busy_times",
        sa.Column("calendar_id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("during", postgresql.TSTZRANGE(), nullable=False),
        sa.ForeignKeyConstraint(
            ["calendar_id"], ["outside_calendars.id"], name=op.f("fk_busy_times_calendar_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["supervisor_id"], ["people.id"], name=op.f("fk_busy_times_supervisor_id")),
    )
    op.create_index("ix_busy_times_calendar_id", "busy_times", ["calendar_id"], unique=False)
    op.create_index(
        "ix_busy_times_supervisor_id_during",
        "busy_times",
        ["supervisor_id", "during"],
        unique=False,
        postgresql_using="gist",
    )
    op.create_table(
        "attendances",
        sa.Column("appointment_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("stamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("answer IN ('accepted', 'declined', 'tentative')", name=op.f("ck_attendances_answer")),
        sa.ForeignKeyConstraint(["appointment_id"], ["appointments.id"], name=op.f("fk_attendances_appointment_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_attendances_person_id")),
        sa.PrimaryKeyConstraint("appointment_id", "person_id", name=op.f("pk_attendances")),
    )
    op.create_table(
        "unreads",
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("since_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["notification_id"], ["notifications.id"], name=op.f("fk_unreads_notification_id")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_unreads_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_unreads_person_id")),
        sa.PrimaryKeyConstraint("pair_id", "person_id", name=op.f("pk_unreads")),
    )
    op.add_column("people", sa.Column("mail_stopped_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("people", sa.Column("mail_stopped_code", sa.Text(), nullable=True))
    op.drop_constraint("ck_notifications_state", "notifications")
    op.create_check_constraint(
        op.f("ck_notifications_state"),
        "notifications",
        "state IN ('pending', 'waiting', 'sent', 'superseded', 'expired', 'unwanted', 'parked')",
    )
    # In the order in which it is claimed; and what was given up, for who looks after it.
    op.drop_index("ix_notifications_due", "notifications")
    op.create_index(
        "ix_notifications_due",
        "notifications",
        ["channel", "priority", "next_try_at", "position"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_notifications_parked",
        "notifications",
        ["position"],
        unique=False,
        postgresql_where=sa.text("state = 'parked'"),
    )
    op.drop_constraint("ck_questions_kind", "questions")
    op.create_check_constraint(
        op.f("ck_questions_kind"),
        "questions",
        "kind IN ('answer_request', 'answer_series', 'answer_move', 'answer_offer', 'answer_attendance', 'pick_slot',"
        " 'pick_appointment', 'pick_past', 'confirm_away', 'confirm_settings')",
    )

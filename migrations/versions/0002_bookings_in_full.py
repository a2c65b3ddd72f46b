"""Bookings in full: exceptions, policies, series, proposals to move, waiting lists."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


CHECKS = (
    ("availabilities", "approval", "approval IN ('ask', 'automatic')"),
    ("availabilities", "cancel_notice", "cancel_notice_minutes BETWEEN 0 AND 43200"),
    ("availabilities", "move_notice", "move_notice_minutes BETWEEN 0 AND 43200"),
    ("availabilities", "day_limit", "day_limit BETWEEN 1 AND 100"),
    ("availabilities", "week_limit", "week_limit BETWEEN 1 AND 500"),
    ("availabilities", "answer", "answer_minutes BETWEEN 5 AND 43200"),
    ("availabilities", "offer", "offer_minutes BETWEEN 5 AND 10080"),
    ("availabilities", "valid", "valid_from <= valid_until"),
    ("appointments", "proposed_forwards", "proposed_starts_at < proposed_ends_at"),
    (
        "appointments",
        "proposal_whole",
        "num_nulls(proposal_id, proposed_by, proposed_starts_at, proposed_ends_at, proposed_before_minutes,"
        " proposed_after_minutes, proposed_answer_by) IN (0, 7)",
    ),
    ("appointments", "proposal_open", "proposal_id IS NULL OR status IN ('requested', 'confirmed')"),
    ("appointments", "series_at", "(series_id IS NULL) = (series_at IS NULL)"),
    ("holds", "one_reason", "num_nulls(appointment_id, wait_id) = 1"),
    ("pairs", "approval", "approval IN ('ask', 'automatic')"),
)


def upgrade() -> None:
    op.create_table(
        "dated_exceptions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("first_on", sa.Date(), nullable=False),
        sa.Column("last_on", sa.Date(), nullable=False),
        sa.Column("starts", sa.Time(), nullable=True),
        sa.Column("ends", sa.Time(), nullable=True),
        sa.Column("yearly", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind = 'time_off' OR starts IS NOT NULL", name=op.f("ck_dated_exceptions_extra_has_times")),
        sa.CheckConstraint("kind IN ('time_off', 'extra_hours')", name=op.f("ck_dated_exceptions_kind")),
        sa.CheckConstraint("(starts IS NULL) = (ends IS NULL)", name=op.f("ck_dated_exceptions_both_times")),
        sa.CheckConstraint("first_on <= last_on", name=op.f("ck_dated_exceptions_days_forwards")),
        sa.CheckConstraint("starts < ends", name=op.f("ck_dated_exceptions_times_forwards")),
        sa.ForeignKeyConstraint(
            ["supervisor_id"], ["availabilities.supervisor_id"], name=op.f("fk_dated_exceptions_supervisor_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dated_exceptions")),
    )
    op.create_index(
        "ix_dated_exceptions_supervisor_id_first_on", "dated_exceptions", ["supervisor_id", "first_on"], unique=False
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_series_pair_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
    )
    op.create_table(
        "waits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=False),
        sa.Column("supervisee_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("until", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("length_minutes", sa.Integer(), nullable=False),
        sa.Column("passed", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("offered_starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("offered_ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("offer_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("ended_at IS NULL OR offer_until IS NULL", name=op.f("ck_waits_ended")),
        sa.CheckConstraint(
            "num_nulls(offered_starts_at, offered_ends_at, offer_until) IN (0, 3)", name=op.f("ck_waits_offer_whole")
        ),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_waits_pair_id")),
        sa.ForeignKeyConstraint(["supervisee_id"], ["people.id"], name=op.f("fk_waits_supervisee_id")),
        sa.ForeignKeyConstraint(["supervisor_id"], ["people.id"], name=op.f("fk_waits_supervisor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waits")),
    )
    op.create_index(
        "ix_waits_open",
        "waits",
        ["supervisor_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "ix_waits_pair_id", "waits", ["pair_id"], unique=False, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.add_column("appointments", sa.Column("buffer_before_minutes", sa.Integer(), server_default="0", nullable=False))
    op.add_column("appointments", sa.Column("buffer_after_minutes", sa.Integer(), server_default="0", nullable=False))
    op.add_column("appointments", sa.Column("booked_by", sa.Uuid(), nullable=True))
    op.add_column("appointments", sa.Column("answer_by", sa.DateTime(timezone=True), nullable=True))
    op.add_column("appointments", sa.Column("late", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("appointments", sa.Column("series_id", sa.Uuid(), nullable=True))
    op.add_column("appointments", sa.Column("series_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("appointments", sa.Column("proposal_id", sa.Uuid(), nullable=True))
    op.add_column("appointments", sa.Column("proposed_by", sa.Uuid(), nullable=True))
    op.add_column("appointments", sa.Column("proposed_starts_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("appointments", sa.Column("proposed_ends_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("appointments", sa.Column("proposed_before_minutes", sa.Integer(), nullable=True))
    op.add_column("appointments", sa.Column("proposed_after_minutes", sa.Integer(), nullable=True))
    op.add_column("appointments", sa.Column("proposed_answer_by", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_appointments_answer_by",
        "appointments",
        ["answer_by"],
        unique=False,
        postgresql_where=sa.text("status = 'requested'"),
    )
    op.create_index(
        "ix_appointments_proposed",
        "appointments",
        ["supervisor_id", "proposed_starts_at"],
        unique=False,
        postgresql_where=sa.text("proposal_id IS NOT NULL"),
    )
    op.create_index(
        "ix_appointments_proposed_answer_by",
        "appointments",
        ["proposed_answer_by"],
        unique=False,
        postgresql_where=sa.text("proposal_id IS NOT NULL"),
    )
    op.create_index("ix_appointments_series_id_series_at", "appointments", ["series_id", "series_at"], unique=False)
    op.create_foreign_key(op.f("fk_appointments_proposed_by"), "appointments", "people", ["proposed_by"], ["id"])
    op.create_foreign_key(op.f("fk_appointments_booked_by"), "appointments", "people", ["booked_by"], ["id"])
    op.create_foreign_key(op.f("fk_appointments_series_id"), "appointments", "series", ["series_id"], ["id"])
    op.add_column(
        "availabilities", sa.Column("cancel_notice_minutes", sa.Integer(), server_default="1440", nullable=False)
    )
    op.add_column(
        "availabilities", sa.Column("move_notice_minutes", sa.Integer(), server_default="120", nullable=False)
    )
    op.add_column("availabilities", sa.Column("day_limit", sa.Integer(), nullable=True))
    op.add_column("availabilities", sa.Column("week_limit", sa.Integer(), nullable=True))
    op.add_column("availabilities", sa.Column("approval", sa.Text(), server_default="ask", nullable=False))
    op.add_column("availabilities", sa.Column("answer_minutes", sa.Integer(), server_default="2880", nullable=False))
    op.add_column("availabilities", sa.Column("offer_minutes", sa.Integer(), server_default="240", nullable=False))
    op.add_column("availabilities", sa.Column("valid_from", sa.Date(), nullable=True))
    op.add_column("availabilities", sa.Column("valid_until", sa.Date(), nullable=True))
    op.add_column("availabilities", sa.Column("country", sa.Text(), nullable=True))
    op.add_column("availabilities", sa.Column("subdivision", sa.Text(), nullable=True))
    op.add_column("holds", sa.Column("wait_id", sa.Uuid(), nullable=True))
    op.alter_column("holds", "appointment_id", existing_type=sa.UUID(), nullable=True)
    op.create_index(
        "ix_holds_wait_id", "holds", ["wait_id"], unique=False, postgresql_where=sa.text("wait_id IS NOT NULL")
    )
    op.create_foreign_key(op.f("fk_holds_wait_id"), "holds", "waits", ["wait_id"], ["id"])
    op.add_column("pairs", sa.Column("lengths", sa.ARRAY(sa.Integer()), nullable=True))
    op.add_column("pairs", sa.Column("approval", sa.Text(), nullable=True))
    op.add_column("questions", sa.Column("code", sa.Text(), nullable=True))
    op.add_column(
        "questions",
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    for table, name, condition in CHECKS:
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.drop_constraint("ck_questions_kind", "questions")
    op.create_check_constraint(
        op.f("ck_questions_kind"),
        "questions",
        "kind IN ('answer_request', 'answer_series', 'answer_move', 'answer_offer', 'pick_slot', 'pick_appointment',"
        " 'pick_past', 'confirm_away', 'confirm_settings')",
    )
    # What is booked keeps the time it holds, and what was asked stays open until it would begin.
    op.execute(
        "UPDATE appointments AS a SET"
        " buffer_before_minutes = greatest(0, extract(epoch FROM a.starts_at - lower(h.during)) / 60),"
        " buffer_after_minutes = greatest(0, extract(epoch FROM upper(h.during) - a.ends_at) / 60)"
        " FROM holds AS h WHERE h.appointment_id = a.id AND h.person_id = a.supervisor_id"
    )
    op.execute("UPDATE appointments SET answer_by = starts_at WHERE status = 'requested'")

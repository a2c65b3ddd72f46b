"""Rooms that people can trust: their settings, files, retention and exports, coming in, and who is there."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "address_changes",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.Column("wrong_codes", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_address_changes_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_address_changes")),
    )
    op.create_table(
        "invitations",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.Column("localpart", sa.Text(), nullable=True),
        sa.Column("registration", sa.LargeBinary(), nullable=True),
        sa.Column("invited_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_invitations_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("localpart", name=op.f("uq_invitations_localpart")),
    )
    op.create_table(
        "presences",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("active_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_presences_person_id")),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_presences")),
    )
    op.create_table(
        "attachments",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("media", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_attachments_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_attachments_person_id")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_attachments")),
    )
    op.create_index("ix_attachments_pair_id_sent_at", "attachments", ["pair_id", "sent_at"], unique=False)
    op.create_table(
        "exports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("agreed_by", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=True),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('agreed', 'ready', 'failed', 'expired')", name=op.f("ck_exports_state")),
        sa.ForeignKeyConstraint(["agreed_by"], ["people.id"], name=op.f("fk_exports_agreed_by")),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_exports_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_exports_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    op.create_index(
        "ix_exports_expires_at", "exports", ["expires_at"], unique=False, postgresql_where=sa.text("state = 'ready'")
    )
    op.create_index(
        "ix_exports_open", "exports", ["next_try_at"], unique=False, postgresql_where=sa.text("state = 'agreed'")
    )
    op.create_index("ix_exports_pair_id", "exports", ["pair_id"], unique=False)
    op.create_table(
        "homeserver_tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("pair_id", sa.Uuid(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('open_registration', 'reset_password', 'sign_out', 'deactivate', 'remove_media', 'remove_room')",
            name=op.f("ck_homeserver_tasks_kind"),
        ),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_homeserver_tasks_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_homeserver_tasks_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_homeserver_tasks")),
    )
    op.create_index(
        "ix_homeserver_tasks_due",
        "homeserver_tasks",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_index("ix_homeserver_tasks_pair_id", "homeserver_tasks", ["pair_id"], unique=False)
    op.create_index("ix_homeserver_tasks_person_id", "homeserver_tasks", ["person_id"], unique=False)
    op.create_table(
        "memberships",
        sa.Column("pair_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("membership", sa.Text(), nullable=False),
        sa.Column("readable", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name=op.f("fk_memberships_pair_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_memberships_person_id")),
        sa.PrimaryKeyConstraint("pair_id", "person_id", name=op.f("pk_memberships")),
    )
    op.create_table(
        "export_chunks",
        sa.Column("export_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["export_id"], ["exports.id"], name=op.f("fk_export_chunks_export_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("export_id", "position", name=op.f("pk_export_chunks")),
    )
    op.create_index(
        "ix_notifications_retention",
        "notifications",
        ["pair_id"],
        unique=False,
        postgresql_where=sa.text("kind IN ('retention.announced', 'retention.done')"),
    )
    op.add_column("bots", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("pairs", sa.Column("attachments", sa.Boolean(), nullable=True))
    op.add_column("pairs", sa.Column("attachment_kinds", sa.ARRAY(sa.Text()), nullable=True))
    op.add_column("pairs", sa.Column("attachment_megabytes", sa.Integer(), nullable=True))
    op.add_column("pairs", sa.Column("retention_days", sa.Integer(), nullable=True))
    op.add_column("pairs", sa.Column("unread_minutes", sa.Integer(), nullable=True))
    op.add_column("pairs", sa.Column("export_consent", sa.Text(), nullable=True))
    op.add_column("pairs", sa.Column("expires_on", sa.Date(), nullable=True))
    op.add_column("pairs", sa.Column("retained_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("pairs", sa.Column("held_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("pairs", sa.Column("fault", sa.Text(), nullable=True))
    op.add_column("pairs", sa.Column("fault_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("pairs", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("unreads", sa.Column("messages", sa.Integer(), server_default="1", nullable=False))
    op.alter_column("unreads", "notification_id", nullable=True)
    for name, rule in (
        ("export_consent", "export_consent IN ('both', 'one')"),
        ("fault", "fault IN ('gone', 'not_encrypted', 'not_ours', 'stranger', 'refused')"),
        ("attachment_megabytes", "attachment_megabytes BETWEEN 1 AND 1000"),
        ("retention_days", "retention_days BETWEEN 0 AND 3650"),
        ("unread_minutes", "unread_minutes BETWEEN 0 AND 10080"),
        ("fault_whole", "(fault IS NULL) = (fault_at IS NULL)"),
    ):
        op.create_check_constraint(op.f(f"ck_pairs_{name}"), "pairs", rule)
    op.drop_constraint("ck_questions_kind", "questions")
    op.create_check_constraint(
        op.f("ck_questions_kind"),
        "questions",
        "kind IN ('answer_request', 'answer_series', 'answer_move', 'answer_offer', 'answer_attendance', 'pick_slot',"
        " 'pick_appointment', 'pick_past', 'confirm_away', 'confirm_settings', 'confirm_zone', 'confirm_archive',"
        " 'confirm_export', 'agree_export')",
    )

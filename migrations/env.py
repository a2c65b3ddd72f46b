"""Alembic's entry: it always gets a connection from migrations.upgrade()."""

from alembic import context

from supervision.models import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, compare_type=True, compare_server_default=True)
with context.begin_transaction():
    context.run_migrations()

"""Alembic's environment: the journal's URL comes from the caller, never from a file."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from mailgate.journal.tables import whole

connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run the migrations with: mailgate db upgrade")

context.configure(
    connection=connection,
    target_metadata=whole(),
    # SQLite cannot alter most things in place.
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    transaction_per_migration=True,
    # SQLite's DDL is transactional too; journal.schema makes the driver keep to it.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

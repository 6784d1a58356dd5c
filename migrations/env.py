"""Alembic's environment: online only, one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import text

from spanfold.migrations import requirements
from spanfold.postgres.engine import engine_of

MIGRATION_LOCK = 0x7370616E  # "span": an arbitrary number that nothing else locks

dsn = context.config.attributes.get("dsn")
if dsn is None:
    raise RuntimeError("no database: call migrations.upgrade(dsn)")

engine = engine_of(dsn, "spanfold migrate")
requirements.check_pooling(engine)
with engine.connect() as connection:
    context.configure(connection=connection, version_table="schema_version", version_table_schema="public")
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        requirements.check(connection)
        context.run_migrations()

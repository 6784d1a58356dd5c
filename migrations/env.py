"""Alembic's environment: online only, one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import create_engine, pool, text

MIGRATION_LOCK = 0x7370616E  # "span": an arbitrary number that nothing else locks

url = context.config.get_main_option("sqlalchemy.url")
if url is None:
    raise RuntimeError("no database: call migrations.upgrade(dsn)")
engine = create_engine(url, poolclass=pool.NullPool)

with engine.connect() as connection:
    context.configure(connection=connection, version_table="schema_version", version_table_schema="public")
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()

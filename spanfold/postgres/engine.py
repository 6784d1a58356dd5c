"""SQLAlchemy's engines: for DDL and for what reads table definitions."""

from sqlalchemy import Engine, create_engine, pool

from spanfold.postgres.connections import connect
from spanfold.postgres.dsn import checked_dsn
from spanfold.postgres.sessions import PATIENT


def engine_of(dsn: str, application_name: str = "spanfold", **settings: str) -> Engine:
    """An engine that opens a connection for each use and keeps none, with these `settings` of its sessions; a transaction may
    wait for other work. Misconfigured when the DSN is no URL.
    """
    checked = checked_dsn(dsn)
    return create_engine(
        "postgresql+psycopg://",
        poolclass=pool.NullPool,
        creator=lambda: connect(checked, application_name, {**PATIENT, **settings}, autocommit=False),
    )

"""SQLAlchemy's engines: for DDL and for what reads table definitions."""

from sqlalchemy import Engine, create_engine, pool

from spanfold.postgres.dsn import sqlalchemy_url


def engine_of(dsn: str, **connect_args: str) -> Engine:
    """An engine that opens a connection for each use and keeps none; `connect_args` are libpq's. Misconfigured when the DSN is
    no URL.
    """
    return create_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool, connect_args=connect_args)

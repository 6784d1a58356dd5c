"""Single connections to Postgres: their time-outs, their keepalives, and the name that pg_stat_activity shows."""

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from spanfold.postgres import sessions
from spanfold.postgres.dsn import with_defaults

CONNECT_TIMEOUT_S: Final = 5

KEEPALIVES: Final[Mapping[str, str]] = {
    # a peer that is gone without a word is noticed within half a minute
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

DEFAULTS: Final[Mapping[str, str]] = {"connect_timeout": str(CONNECT_TIMEOUT_S), **KEEPALIVES}
"""libpq's parameters of our connections, where the DSN does not set them itself."""


def connect(
    dsn: str,
    application_name: str,
    settings: sessions.Settings = sessions.PLAIN,
    *,
    autocommit: bool = True,
) -> psycopg.Connection[Any]:
    """A connection with DEFAULTS, its session pinned, with these `settings` in place of PINNED's or besides."""
    connection: psycopg.Connection[Any] = psycopg.connect(
        make_conninfo(with_defaults(dsn, **DEFAULTS), application_name=application_name), autocommit=True
    )
    try:
        sessions.pin(connection, settings)
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection

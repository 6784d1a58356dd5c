"""Single connections to Postgres: their time-outs, their keepalives, and the name that pg_stat_activity shows."""

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from spanfold.postgres.dsn import with_defaults

CONNECT_TIMEOUT_S: Final = 5

KEEPALIVES: Final[Mapping[str, str]] = {
    # a peer that is gone without a word is noticed within half a minute
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    **KEEPALIVES,
    # a process that is frozen in mid-transaction holds its partition's checkpoints no longer than this
    "options": "-c idle_in_transaction_session_timeout=60s",
}
"""libpq's parameters of our connections, where the DSN does not set them itself."""


def connect(dsn: str, application_name: str) -> psycopg.Connection[Any]:
    """A connection in autocommit mode, with DEFAULTS."""
    return psycopg.connect(process_dsn(dsn, application_name), autocommit=True)


def process_dsn(dsn: str, application_name: str) -> str:
    """The DSN of such a connection, for a process that opens it itself."""
    return make_conninfo(with_defaults(dsn, **DEFAULTS), application_name=application_name)

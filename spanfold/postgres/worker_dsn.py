"""How workers connect to Postgres: a peer that is gone without a word is noticed."""

from collections.abc import Mapping
from typing import Final

from psycopg.conninfo import make_conninfo

from spanfold.postgres.conninfo import with_defaults

DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": "5",
    # within half a minute
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    # a worker that is frozen in mid-transaction holds its partition's checkpoints no longer than this
    "options": "-c idle_in_transaction_session_timeout=60s",
}


def worker_dsn(dsn: str, application_name: str) -> str:
    """The DSN with these defaults where it says nothing itself."""
    return make_conninfo(with_defaults(dsn, **DEFAULTS), application_name=application_name)

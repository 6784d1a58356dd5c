"""Postgres DSNs with defaults."""

from psycopg.conninfo import conninfo_to_dict, make_conninfo


def with_defaults(dsn: str, **defaults: str) -> str:
    """The DSN with these parameters of libpq where it says nothing itself."""
    said = conninfo_to_dict(dsn)
    return make_conninfo(dsn, **{name: value for name, value in defaults.items() if name not in said})

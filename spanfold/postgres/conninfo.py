"""Postgres DSNs with defaults."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict, make_conninfo


def with_defaults(dsn: str, **defaults: str) -> str:
    """The DSN as keywords and values, with these parameters of libpq where it says nothing itself."""
    return make_conninfo(dsn, **_unsaid(dsn, defaults))


def url_with_defaults(url: str, **defaults: str) -> str:
    """The same of a DSN that is a URL and has to stay one."""
    unsaid = urlencode(_unsaid(url, defaults), quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{unsaid}" if unsaid else url


def _unsaid(dsn: str, defaults: Mapping[str, str]) -> dict[str, str]:
    said = conninfo_to_dict(dsn)
    return {name: value for name, value in defaults.items() if name not in said}

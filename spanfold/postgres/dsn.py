"""The DSN of Postgres: named by the settings, checked, and completed. A DSN holds a password: no message here repeats it."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings

_URL: Final = re.compile(r"postgres(ql)?://.*", re.DOTALL)
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def postgres_dsn(settings: Settings) -> str:
    """The DSN of the settings. Misconfigured when none is set, or it is no postgresql:// URL."""
    if not settings.postgres_dsn:
        raise Misconfigured("no Postgres is configured: set SPANFOLD_POSTGRES_DSN, or run `spanfold up`")
    return checked_dsn(settings.postgres_dsn)


def checked_dsn(dsn: str) -> str:
    """The DSN, if it is a URL. Misconfigured when it is not."""
    if not _URL.fullmatch(dsn):
        raise Misconfigured(
            "the Postgres DSN (SPANFOLD_POSTGRES_DSN) is no URL: write it as postgresql://user:password@host:port/database"
        )
    if _BARE_PERCENT.search(dsn):
        raise Misconfigured("the Postgres DSN (SPANFOLD_POSTGRES_DSN) has a bare %: write it as %25 in a URL")
    try:
        parts = conninfo_to_dict(dsn)
    except ProgrammingError:
        raise Misconfigured(
            "the Postgres DSN (SPANFOLD_POSTGRES_DSN) is a URL that libpq can't read: its parameters are libpq's, as in "
            "postgresql://user@host/database?sslmode=require, and a = in a value is written %3D"
        ) from None
    if any(not _port(port) for port in str(parts.get("port", "")).split(",")):
        raise Misconfigured("the Postgres DSN (SPANFOLD_POSTGRES_DSN) has no valid port: use 1 to 65535")
    return dsn


def _port(text: str) -> bool:
    return not text or (text.isdecimal() and 1 <= int(text) <= 65535)


def with_defaults(dsn: str, **defaults: str) -> str:
    """The DSN as keywords and values, with those of these libpq parameters that it does not set itself."""
    return make_conninfo(dsn, **_not_set(dsn, defaults))


def url_with_defaults(url: str, **defaults: str) -> str:
    """The same for a DSN that is a URL and has to stay one."""
    added = urlencode(_not_set(url, defaults), quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


def _not_set(dsn: str, defaults: Mapping[str, str]) -> dict[str, str]:
    own = conninfo_to_dict(dsn)
    return {name: value for name, value in defaults.items() if name not in own}

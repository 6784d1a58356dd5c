"""The Postgres that settings name. A DSN holds a password: no message here repeats it."""

import re
from typing import Final

from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings

_URL: Final = re.compile(r"postgres(ql)?://.*", re.DOTALL)
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def postgres_dsn(settings: Settings) -> str:
    """The DSN of the settings. Misconfigured when none is named, or what is named is no postgresql:// URL."""
    if not settings.postgres_dsn:
        raise Misconfigured("no Postgres is named: set SPANFOLD_POSTGRES_DSN, or run `spanfold up`")
    return checked_dsn(settings.postgres_dsn)


def checked_dsn(dsn: str) -> str:
    """The DSN, if it is a URL. Misconfigured when it is not."""
    if not _URL.fullmatch(dsn):
        raise Misconfigured(
            "the Postgres DSN (SPANFOLD_POSTGRES_DSN) is no URL: write it as postgresql://user:password@host:port/database"
        )
    if _BARE_PERCENT.search(dsn):
        raise Misconfigured("the Postgres DSN (SPANFOLD_POSTGRES_DSN) has a bare %: in a URL it is written as %25")
    return dsn

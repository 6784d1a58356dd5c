"""Errors of Postgres: which ones may pass, which never will, and what they are as spanfold's errors. Back-off: retries.py.

| SQLSTATE                           | what it means                                        | what happens    |
|------------------------------------|------------------------------------------------------|-----------------|
| none                               | the connection broke, or was never made              | tried again     |
| class 08                           | connection exception                                 | tried again     |
| class 40                           | deadlock, serialization failure                      | tried again     |
| class 53                           | out of memory, disk or connections                   | tried again     |
| class 55                           | a lock is not available                              | tried again     |
| class 57                           | shutdown, failover, cancelled                        | tried again     |
| class 58                           | an I/O error of the server                           | tried again     |
| 25006                              | a standby, or read-only after a failover             | tried again     |
| 25P03                              | the session was idle in its transaction for too long | tried again     |
| class 28 or 3D, or a refused login | wrong user, password, database or parameter          | Misconfigured   |
| any other                          | the statement or its values are wrong                | raised as it is |
"""

import re
from typing import Final

import psycopg

from spanfold.language.errors import Misconfigured, StoreUnavailable

TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58")
TRANSIENT_STATES: Final = ("25006", "25P03")
LOGIN_CLASSES: Final = ("28", "3D")

LOGIN_REFUSED: Final = re.compile(
    r"""FATAL:\ .*(
          authentication\ failed | does\ not\ exist | no\ pg_hba\.conf\ entry
        | no\ such\ (database|user)                      # PgBouncer
        | unsupported\ startup\ parameter                # PgBouncer
        | unrecognized\ configuration\ parameter | invalid\ value\ for\ parameter | permission\ denied
        | is\ not\ permitted\ to\ log\ in
        )
      | no\ password\ supplied | does\ not\ support\ SSL | certificate\ verify\ failed | invalid\ port\ number""",
    re.VERBOSE,
)
"""How a server, a pooler or libpq refuses a login: libpq gives no SQLSTATE for a connection that was never made. A server that
says it in another language counts as one that is away.
"""

POOLER_REFUSES_OPTIONS: Final = "unsupported startup parameter: options"


def is_transient(error: BaseException) -> bool:
    """Whether doing the same again may succeed."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return broken and not is_login_refused(error)
    return error.sqlstate[:2] in TRANSIENT_CLASSES or error.sqlstate in TRANSIENT_STATES


def is_login_refused(error: BaseException) -> bool:
    """Whether Postgres refuses this client for good: a wrong user, password or database."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return LOGIN_REFUSED.search(str(error)) is not None
    return error.sqlstate[:2] in LOGIN_CLASSES


def translated(error: BaseException | None) -> Misconfigured | StoreUnavailable:
    """A failed connection as spanfold's error, on one line: Misconfigured when Postgres or a pooler refuses this client, else
    StoreUnavailable. What libpq reports names the server, never the password.
    """
    reported = " ".join(str(error).split())
    if POOLER_REFUSES_OPTIONS in reported:
        return Misconfigured(
            "the pooler refuses the `options` of SPANFOLD_POSTGRES_DSN: leave them out, or set"
            f" ignore_startup_parameters = options in pgbouncer.ini ({reported})"
        )
    if error is not None and is_login_refused(error):
        return Misconfigured(f"Postgres refuses this client, check SPANFOLD_POSTGRES_DSN: {reported}")
    return StoreUnavailable(f"Postgres can't be used: {reported}")

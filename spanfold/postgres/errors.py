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
| 25P03                              | the session was idle in its transaction for too long | tried again     |
| class 28 or 3D, or a refused login | wrong user, password or database                     | Misconfigured   |
| any other                          | the statement or its values are wrong                | raised as it is |
"""

import re
from typing import Final

import psycopg

from spanfold.language.errors import Misconfigured, StoreUnavailable

TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58")
IDLE_IN_TRANSACTION: Final = "25P03"
LOGIN_CLASSES: Final = ("28", "3D")

LOGIN_REFUSED: Final = re.compile(
    r"FATAL: .*(authentication failed|does not exist|no pg_hba\.conf entry)|no password supplied"
)
"""How a server refuses a login: libpq gives no SQLSTATE for a connection that was never made. A server that says it in another
language counts as one that is away.
"""


def is_transient(error: BaseException) -> bool:
    """Whether doing the same again may succeed."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return broken and not is_login_refused(error)
    return error.sqlstate[:2] in TRANSIENT_CLASSES or error.sqlstate == IDLE_IN_TRANSACTION


def is_login_refused(error: BaseException) -> bool:
    """Whether Postgres refuses this client for good: a wrong user, password or database."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return LOGIN_REFUSED.search(str(error)) is not None
    return error.sqlstate[:2] in LOGIN_CLASSES


def translated(error: BaseException | None) -> Misconfigured | StoreUnavailable:
    """A failed connection as spanfold's error: Misconfigured when Postgres refuses this client, else StoreUnavailable."""
    if error is not None and is_login_refused(error):
        return Misconfigured(
            f"Postgres refuses this client, check SPANFOLD_POSTGRES_DSN: {' '.join(str(error).split())}"
        )
    return unreachable_postgres(error)


def unreachable_postgres(error: BaseException | None) -> StoreUnavailable:
    """What libpq reports, on one line: it names the server, never the password."""
    return StoreUnavailable(f"Postgres can't be used: {' '.join(str(error).split())}")

"""Retries against Postgres: which errors may pass, which never will, and the back-off between two attempts.

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

| who tries again                       | pause between two attempts           | until                                      |
|---------------------------------------|--------------------------------------|--------------------------------------------|
| a worker that commits (until_stopped) | random, up to 0.2 s doubling to 5 s  | it succeeds, or the worker is told to stop |
| a process that starts (while_away)    | random, up to 0.5 s doubling to 10 s | Postgres is there                          |
| a query over a pool (within)          | 50 ms                                | its deadline                               |
| DDL that needs a lock (while_locked)  | random, 0.1 to 0.3 s                 | its patience ends                          |
"""

import re
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_before_delay,
    stop_when_event_set,
    wait_fixed,
    wait_random,
)

from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.language.retries import backoff, while_unavailable
from spanfold.postgres.connections import connect

Result = TypeVar("Result")

TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58")
IDLE_IN_TRANSACTION: Final = "25P03"
LOGIN_CLASSES: Final = ("28", "3D")

LOGIN_REFUSED: Final = re.compile(
    r"FATAL: .*(authentication failed|does not exist|no pg_hba\.conf entry)|no password supplied"
)
"""How a server refuses a login: libpq gives no SQLSTATE for a connection that was never made. A server that says it in another
language counts as one that is away.
"""

COMMIT_FIRST_PAUSE_S: Final = 0.2
COMMIT_LONGEST_PAUSE_S: Final = 5.0
QUERY_PAUSE_S: Final = 0.05
LOCK_PAUSES_S: Final = (0.1, 0.3)


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
    """What could not be done for want of a connection, as spanfold's error; libpq names the server, never the password."""
    words = " ".join(str(error).split())
    if error is not None and is_login_refused(error):
        return Misconfigured(f"Postgres refuses this client, check SPANFOLD_POSTGRES_DSN: {words}")
    return StoreUnavailable(f"Postgres can't be used: {words}")


def until_stopped(stopping: threading.Event, before_pause: Callable[[RetryCallState], None]) -> Retrying:
    """Tries again after a transient error until `stopping` is set; then the last error is raised."""
    return Retrying(
        retry=retry_if_exception(is_transient),
        wait=backoff(COMMIT_FIRST_PAUSE_S, COMMIT_LONGEST_PAUSE_S),
        stop=stop_when_event_set(stopping),
        sleep=sleep_using_event(stopping),
        before_sleep=before_pause,
        reraise=True,
    )


def while_away(
    dsn: str,
    application_name: str,
    work: Callable[[psycopg.Connection[Any]], Result],
    before_pause: Callable[[RetryCallState], None],
) -> Result:
    """What `work` returns, on a connection of its own for each attempt, once Postgres is there. Misconfigured when it refuses
    this client.
    """

    def attempt() -> Result:
        try:
            with connect(dsn, application_name) as connection:
                return work(connection)
        except psycopg.OperationalError as error:
            raise translated(error) from error

    return while_unavailable(attempt, before_pause)


def within(timeout_s: float) -> AsyncRetrying:
    """Tries a query over a pool again until `timeout_s` have passed; then the last error is raised."""
    return AsyncRetrying(
        retry=retry_if_exception(_may_be_answered),
        wait=wait_fixed(QUERY_PAUSE_S),
        stop=stop_before_delay(timeout_s),
        reraise=True,
    )


def while_locked(patience_s: float) -> Retrying:
    """Tries again while others hold the locks that a statement needs; after `patience_s` the last error is raised."""
    return Retrying(
        retry=retry_if_exception_type((errors.LockNotAvailable, errors.DeadlockDetected)),
        wait=wait_random(*LOCK_PAUSES_S),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )


def _may_be_answered(error: BaseException) -> bool:
    if isinstance(error, PoolClosed):
        return False
    return isinstance(error, PoolTimeout | TimeoutError) or is_transient(error)

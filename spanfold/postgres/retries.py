"""Retries against Postgres: the back-off between two attempts, and until when. Which errors are transient: errors.py.

| who tries again                       | pause between two attempts           | until                                      |
|---------------------------------------|--------------------------------------|--------------------------------------------|
| a worker that commits (until_stopped) | random, up to 0.2 s doubling to 5 s  | it succeeds, or the worker is told to stop |
| a process that starts (while_away)    | random, up to 0.5 s doubling to 10 s | Postgres is there                          |
| a query over a pool (within)          | 50 ms                                | its deadline                               |
| DDL that needs a lock (while_locked)  | random, 0.1 to 0.3 s                 | its patience ends                          |
| a takeover (pause_behind_locks)       | random, 0.2 to 0.6 s                 | no reader or commit is in the way          |
"""

import random
import threading
import time
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

from spanfold.language.retries import backoff, while_unavailable
from spanfold.postgres.connections import connect
from spanfold.postgres.errors import is_transient, translated

Result = TypeVar("Result")

COMMIT_FIRST_PAUSE_S: Final = 0.2
COMMIT_LONGEST_PAUSE_S: Final = 5.0
QUERY_PAUSE_S: Final = 0.05
LOCK_PAUSES_S: Final = (0.1, 0.3)
TAKEOVER_PAUSES_S: Final = (0.2, 0.6)


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


def pause_behind_locks() -> None:
    """Wait before a rebuilt generation tries again to take over: random, so that it does not keep meeting the same reader."""
    time.sleep(random.uniform(*TAKEOVER_PAUSES_S))  # noqa: S311  (not a secret)


def _may_be_answered(error: BaseException) -> bool:
    if isinstance(error, PoolClosed):
        return False
    return isinstance(error, PoolTimeout | TimeoutError) or is_transient(error)

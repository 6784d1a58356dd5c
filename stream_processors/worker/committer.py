"""Commits prepared batches in a thread of its own, over one connection, for as long as it takes.

Errors that a retry may help (connection lost, server shutting down, deadlock, serialization, disk full) are retried with
backoff and jitter while the partition is kept; all others end the worker.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import psycopg
import structlog
from psycopg import Connection
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.postgres.worker_dsn import worker_dsn
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.store import Outcome
from spanfold.stream_processors.worker.metrics import Metrics

Result = TypeVar("Result")

log = structlog.get_logger("spanfold.committer")

TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58")
"""SQLSTATE classes: connection exception, transaction rollback, insufficient resources, object not in prerequisite
state (lock not available), operator intervention, system error."""

STOP_S: Final = 5.0
"""How long a commit may take once the worker has been told to stop."""


REFUSAL: Final = re.compile(
    r"FATAL: .*(authentication failed|does not exist|no pg_hba\.conf entry)|no password supplied"
)
"""How a server turns a client away for good: classes 28 and 3D, whose SQLSTATE libpq does not tell of a connection that was
never made. A server that says it in another language is taken for one that is away.
"""


def is_refusal(error: BaseException) -> bool:
    """Whether Postgres doesn't let this client in: a wrong user, password or database."""
    if not isinstance(error, psycopg.Error):
        return False
    return REFUSAL.search(str(error)) is not None if error.sqlstate is None else error.sqlstate[:2] in ("28", "3D")


def is_transient(error: BaseException) -> bool:
    """Whether doing the same again may succeed. A connection that broke without an SQLSTATE counts as such."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not is_refusal(error)
    # 25P03: the session was ended because its transaction had been idle for too long
    return error.sqlstate[:2] in TRANSIENT_CLASSES or error.sqlstate == "25P03"


def refused(error: BaseException | None) -> Misconfigured:
    """What a worker that is not let in ends with; libpq's text names the server and not the password."""
    return Misconfigured(f"Postgres refuses this client, check SPANFOLD_POSTGRES_DSN: {' '.join(str(error).split())}")


class Prepared(Protocol):
    """A batch that its store has prepared."""

    @property
    def batch(self) -> Batch: ...


P = TypeVar("P", bound=Prepared)


class BatchStore(Protocol[P]):
    """What folds batches into Postgres: the read models' Store, or the StateStore."""

    @property
    def checkpoints(self) -> str: ...

    def prepare(self, batch: Batch) -> P: ...

    def commit(self, connection: Connection[Any], prepared: P) -> list[Outcome]: ...

    def start_offsets(self, checkpoints: Iterable[tuple[Any, ...]]) -> dict[tuple[str, int], int]: ...


class Committer(Generic[P]):
    """One connection, one thread: batches are committed in the order in which they were handed over."""

    def __init__(self, dsn: str, store: BatchStore[P], metrics: Metrics, name: str = "spanfold projector") -> None:
        self._dsn = worker_dsn(dsn, name)
        self._store = store
        self._metrics = metrics
        self._connection: Connection[Any] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spanfold-committer")
        self._stopping = threading.Event()

    async def commit(self, prepared: P) -> list[Outcome]:
        """Commit the batch; see the store's commit. StoreUnavailable only when the worker stops meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._commit, prepared)

    async def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query, over the same connection and with the same patience."""

        def run(connection: Connection[Any]) -> list[tuple[Any, ...]]:
            with connection.transaction():
                return connection.execute(statement.encode(), parameters).fetchall()

        return await self.run(run)

    async def run(self, work: Callable[[Connection[Any]], Result]) -> Result:
        """What `work` makes of the connection, with the same patience."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: self._patiently(work))

    def _commit(self, prepared: P) -> list[Outcome]:
        return self._patiently(lambda connection: self._store.commit(connection, prepared))

    def _patiently(self, work: Callable[[Connection[Any]], Result]) -> Result:
        attempts = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            stop=stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            before_sleep=self._start_over,
            reraise=True,
        )
        try:
            return attempts(lambda: work(self._connected()))
        except psycopg.OperationalError as error:
            if is_refusal(error):
                raise refused(error) from error
            if self._stopping.is_set():
                raise StoreUnavailable(f"stopped while Postgres was away: {error}") from error
            raise

    def _connected(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._dsn, autocommit=True)
        return self._connection

    def _start_over(self, state: RetryCallState) -> None:
        """Say why, and let go of the connection: one that was cut in the middle of a pipeline does not know that it is
        broken, and refuses everything for ever.
        """
        if self._connection is not None:
            self._connection.close()
        error = state.outcome.exception() if state.outcome else None
        self._metrics.postgres_retries.inc()
        log.warning("postgres_retry", attempt=state.attempt_number, error=str(error).strip())

    def stop(self) -> None:
        """Let a retry that is waiting give up; the batch at hand is finished or left uncommitted as a whole. A statement
        that Postgres has not answered after STOP_S is cancelled.
        """
        self._stopping.set()
        timer = threading.Timer(STOP_S, self._cancel)
        timer.daemon = True
        timer.start()

    def _cancel(self) -> None:
        if self._connection is not None and not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=STOP_S)

    def close(self) -> None:
        """Wait for the batch at hand, then let go of thread and connection."""
        self.stop()
        self._executor.shutdown(wait=True)
        if self._connection is not None:
            self._connection.close()

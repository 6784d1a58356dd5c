"""Commits prepared batches in a thread of its own, over one connection, for as long as it takes.

Errors that may pass (spanfold.postgres.errors lists them) are retried while the partition is kept; all others end the worker.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import psycopg
import structlog
from psycopg import Connection
from tenacity import RetryCallState

from spanfold.language.errors import StoreUnavailable
from spanfold.language.positions import NextOffsets
from spanfold.language.retries import error_of
from spanfold.postgres import retries
from spanfold.postgres.connections import connect
from spanfold.postgres.errors import is_login_refused, translated
from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.stream_processors.worker.metrics import Metrics

Result = TypeVar("Result")

log = structlog.get_logger("spanfold.committer")

STOP_S: Final = 5.0
"""How long a commit may take once the worker has been told to stop."""


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

    def start_offsets(self, checkpoints: Iterable[tuple[Any, ...]]) -> NextOffsets: ...


class Committer(Generic[P]):
    """One connection, one thread: batches are committed in the order in which they were handed over."""

    def __init__(self, dsn: str, store: BatchStore[P], metrics: Metrics, name: str = "spanfold projector") -> None:
        self._dsn, self._name = dsn, name
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
        attempts = retries.until_stopped(self._stopping, self._start_over)
        try:
            return attempts(lambda: work(self._connected()))
        except psycopg.OperationalError as error:
            if is_login_refused(error):
                raise translated(error) from error
            if self._stopping.is_set():
                raise StoreUnavailable(f"stopped while Postgres was away: {error}") from error
            raise

    def _connected(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, self._name)
        return self._connection

    def _start_over(self, state: RetryCallState) -> None:
        """Say why, and let go of the connection: one that was cut in the middle of a pipeline does not know that it is
        broken, and refuses everything for ever.
        """
        if self._connection is not None:
            self._connection.close()
        self._metrics.postgres_retries.inc()
        log.warning("postgres_retry", attempt=state.attempt_number, error=str(error_of(state)).strip())

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

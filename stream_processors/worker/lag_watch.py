"""Asks the broker and Postgres, every few seconds and in a thread of its own, how far the worker's partitions are behind.

It has connections of its own, so that it sees what is when the worker hangs.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import psycopg
import structlog

from spanfold.kafka.log_ends import BrokerPartition, LogEnds
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition, TopicOnBroker
from spanfold.postgres.connections import connect
from spanfold.projections.commit.topic_suspension import SUSPENDED_TOPICS
from spanfold.stream_processors.worker import health
from spanfold.stream_processors.worker.committer import BatchStore
from spanfold.stream_processors.worker.health import KAFKA, POSTGRES
from spanfold.stream_processors.worker.metrics import Metrics

log = structlog.get_logger("spanfold.watch")

REQUEST_TIMEOUT_S: Final = 5.0
STOP_S: Final = 2.0


class Watch:
    """What is known of the worker's partitions, for its health and its metrics. `owned` is set after each rebalance; it has
    broker names.
    """

    def __init__(
        self, settings: Settings, dsn: str, topics: Collection[TopicOnBroker], store: BatchStore[Any], metrics: Metrics
    ) -> None:
        self.owned: Collection[BrokerPartition] = ()
        self.observations = health.nothing_seen(time.monotonic())
        self.limits = health.Limits(settings.stalled_after_s, settings.unowned_after_s)
        self._interval_s = settings.watch_interval_s
        self._names = {topic.name: topic.topic.name for topic in topics}
        self._log_ends = LogEnds(settings)
        self._dsn = dsn
        self._connection: psycopg.Connection[Any] | None = None
        self._suspended: set[str] = set()
        self._store = store
        self.metrics = metrics
        self._noting = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spanfold-watch", daemon=True)

    def start(self) -> None:
        """Look for the first time now, then every `watch_interval_s`."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join(STOP_S)

    def unwell(self) -> list[str]:
        """What is wrong now; see health.unwell."""
        return health.unwell(self.observations, time.monotonic(), self.limits)

    def fails(self, dependency: str, why: str) -> None:
        """Something that the worker needs has failed now; safe to call from any thread."""
        self._note(health.unanswered, dependency, why)

    def works(self, dependency: str) -> None:
        """It does not fail any more."""
        self._note(health.answered, dependency)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look()
            self._stopping.wait(self._interval_s)
        if self._connection is not None:
            self._connection.close()

    def _look(self) -> None:
        ends, positions = self._ends(), self._positions()
        if ends is not None and positions is not None:
            self._note(health.seen, ends, positions | {at: end for at, end in ends.items() if at[0] in self._suspended})
            lag = {partition: standing.lag for partition, standing in self.observations.standings.items()}
            self.metrics.show_lag(lag, time.time())
        else:
            self.metrics.hide_lag(len(self.owned))

    def _ends(self) -> Mapping[Partition, int] | None:
        """Where each owned partition ends for a reader of committed records; None when Kafka does not say."""
        self._note(health.asked, KAFKA)
        owned = [(topic, partition) for topic, partition in self.owned if topic in self._names]
        try:
            ends = self._log_ends.now(owned, committed=True, within_s=REQUEST_TIMEOUT_S)
        except LogUnavailable as error:
            self.fails(KAFKA, str(error))
            return None
        self.works(KAFKA)
        return {(self._names[topic], partition): end for (topic, partition), end in ends.items()}

    def _positions(self) -> dict[Partition, int] | None:
        """The slowest checkpoint that this worker moves in every partition; None when Postgres does not say."""
        self._note(health.asked, POSTGRES)
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._dsn, "spanfold watch")
            rows = self._connection.execute(self._store.checkpoints.encode()).fetchall()
            self._suspended = {topic for (topic,) in self._connection.execute(SUSPENDED_TOPICS)}
        except psycopg.Error as error:
            with suppress(psycopg.Error):
                if self._connection is not None:
                    self._connection.close()
            self.fails(POSTGRES, " ".join(str(error).split()))
            return None
        self.works(POSTGRES)
        return dict(self._store.start_offsets(rows))

    def _note(self, change: Callable[..., health.Observations], *details: Any) -> None:
        with self._noting:
            self.observations = change(self.observations, *details, time.monotonic())

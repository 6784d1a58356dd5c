"""What a worker counts: each metric once, with its type, unit and meaning; the worker serves them at /metrics.

Counts begin at 0 with the process. What the tables hold is asked of them (`spanfold status`), not of these.
"""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

from spanfold.http.metrics import process_registry
from spanfold.language.topics import Partition
from spanfold.projections.commit.batch import Outcome

BATCH_BUCKETS = (0, 1, 10, 100, 1_000, 2_500, 5_000, 7_500, 10_000, 25_000, 50_000)
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one worker; safe to use from several threads. Series of `topics` are there, at 0, from the start."""

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self.registry = process_registry()
        self.events_folded = self._counter(
            "spanfold_events_folded", "Events that this worker folded into the read models and committed.", "topic"
        )
        self.records_rejected = self._counter(
            "spanfold_records_rejected", "Records that it judged not accepted, by verdict.", "topic", "verdict"
        )
        self.records_parked = self._counter(
            "spanfold_records_parked",
            "Accepted records that it could not fold and parked, by reason.",
            "topic",
            "reason",
        )
        self.projections_suspended = self._counter(
            "spanfold_projections_suspended", "Projections that it suspended because folding them failed.", "projection"
        )
        self.batches_committed = self._counter(
            "spanfold_batches_committed", "Batches whose transaction it committed; a batch that was halved counts once.", "topic"
        )  # fmt: skip
        self.batches_fenced = self._counter(
            "spanfold_batches_fenced", "Batches, or parts of one, that had been committed already and changed nothing.", "topic"
        )  # fmt: skip
        self.refolds = self._counter(
            "spanfold_refolds", "Times that a checkpoint lay before the batch, and it went back to read from there.", "topic"
        )  # fmt: skip
        self.postgres_retries = self._counter(
            "spanfold_postgres_retries", "Attempts on Postgres that failed and were made again."
        )
        self.batch_records = Histogram(
            "spanfold_batch_records", "Records of a committed batch.", ("topic",),
            buckets=BATCH_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.commit_duration = Histogram(
            "spanfold_commit_duration_seconds", "From handing a batch to Postgres to its commit, retries included.",
            ("topic",), buckets=DURATION_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.lag = Gauge(
            "spanfold_lag_records",
            "Of a partition that it owns: the log's end for readers of committed records, as the broker has it, minus the "
            "checkpoint in Postgres. Absent while one of them does not answer.",
            ("topic", "partition"), registry=self.registry,
        )  # fmt: skip
        self.lag_known = Gauge(
            "spanfold_lag_known_timestamp_seconds", "Unix time at which both were last asked and answered.",
            registry=self.registry,
        )  # fmt: skip
        self.last_progress = Gauge(
            "spanfold_last_progress_timestamp_seconds", "Unix time of its last commit; 0 before the first.",
            registry=self.registry,
        )  # fmt: skip
        self.partitions_owned = Gauge(
            "spanfold_partitions_owned", "Partitions that the group assigned to it.", registry=self.registry
        )
        for topic in topics:
            self._begin_at_zero(topic)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _begin_at_zero(self, topic: str) -> None:
        for each in (self.events_folded, self.batches_committed, self.batches_fenced, self.refolds):
            each.labels(topic)
        for histogram in (self.batch_records, self.commit_duration):
            histogram.labels(topic)

    def committed(
        self, topic: str, records: int, outcomes: Sequence[Outcome], *, duration_s: float, unix_time: float
    ) -> None:
        """A batch of so many records came to these outcomes at `unix_time`, `duration_s` after it was handed over."""
        self.batches_fenced.labels(topic).inc(sum(outcome.fenced for outcome in outcomes))
        if all(outcome.fenced for outcome in outcomes):
            return
        self.batches_committed.labels(topic).inc()
        self.batch_records.labels(topic).observe(records)
        self.commit_duration.labels(topic).observe(duration_s)
        self.last_progress.set(unix_time)
        for outcome in outcomes:
            self.events_folded.labels(topic).inc(outcome.folded)
            for projection in outcome.suspended:
                self.projections_suspended.labels(projection).inc()
            for counter, counts in ((self.records_rejected, outcome.rejected), (self.records_parked, outcome.parked)):
                for why, count in counts.items():
                    counter.labels(topic, why).inc(count)

    def show_lag(self, lag: Mapping[Partition, int], unix_time: float) -> None:
        """The owned partitions were behind by so many records then; what was shown before is forgotten."""
        self.hide_lag(len(lag))
        self.lag_known.set(unix_time)
        for (topic, partition), records in lag.items():
            self.lag.labels(topic, str(partition)).set(records)

    def hide_lag(self, owned: int) -> None:
        """So many partitions are owned, and nobody knows how far they are behind."""
        self.partitions_owned.set(owned)
        self.lag.clear()

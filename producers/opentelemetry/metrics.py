"""The metric exporter."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation

from spanfold.producers.event_sink import EventSink
from spanfold.producers.opentelemetry.batches import export_at_child_exit
from spanfold.producers.opentelemetry.points import events_of, points_of
from spanfold.producers.publisher import TelemetryPublisher

Temporality = Literal["cumulative", "delta", "lowmemory"]

_DELTA_INSTRUMENTS: Final[dict[Temporality, tuple[type, ...]]] = {
    "cumulative": (),
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}
"""The instruments that report deltas; up-down counters are always cumulative. As OpenTelemetry's OTLP exporters have it."""


class SpanfoldMetricExporter(MetricExporter):
    """Publishes each point of each metric as MetricUpdated; for a PeriodicExportingMetricReader.

    The series is resource, scope, name and labels (language.events.series_id); the event's time is the point's, in µs by
    rounding down; its id is derived from series, time and what was measured, so a re-export is the same event. NaN and
    infinities stay what they are. `min` and `max` of a histogram that has not recorded any are null.
    """

    def __init__(
        self,
        publisher: TelemetryPublisher | None = None,
        *,
        temporality: Temporality | Mapping[type, AggregationTemporality] = "cumulative",
        preferred_aggregation: Mapping[type, Aggregation] | None = None,
    ) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops and close it at shutdown.

        `temporality` is one of OpenTelemetry's three preferences, or a temporality for each class of instrument. Where
        no Kafka is named, the log says so once and every export fails.
        """
        super().__init__(_preferred(temporality), dict(preferred_aggregation or {}))
        self._sink = EventSink("metric point", publisher)
        self.publisher = self._sink.publisher
        export_at_child_exit(self)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """SUCCESS when Kafka has acknowledged every point in time. After a FAILURE some may have arrived or may still;
        exporting them again is safe. Never raises.
        """
        delivered = self._sink.deliver(points_of(metrics_data), events_of, timeout_millis / 1000)
        return MetricExportResult.SUCCESS if delivered else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Whether everything published so far has its outcome."""
        return self._sink.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **other: Any) -> None:
        """Flush, for `timeout_millis` at most; what is exported afterwards fails."""
        # PeriodicExportingMetricReader passes `timeout`, in milliseconds
        self._sink.close(max(other.get("timeout", timeout_millis), 0) / 1000)


def _preferred(temporality: Temporality | Mapping[type, AggregationTemporality]) -> dict[type, AggregationTemporality]:
    if isinstance(temporality, str):
        return dict.fromkeys(_DELTA_INSTRUMENTS[temporality], AggregationTemporality.DELTA)
    return dict(temporality)

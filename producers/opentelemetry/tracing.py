"""The span processor and the span exporter: two ways for the same events."""

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from spanfold.producers.event_sink import DELIVERY_S, EventSink
from spanfold.producers.opentelemetry.batches import export_at_child_exit
from spanfold.producers.opentelemetry.spans import events_at_end, events_at_start, events_of
from spanfold.producers.publisher import TelemetryPublisher


class SpanfoldSpanProcessor(SpanProcessor):
    """Publishes what the SDK records, sampled spans only:

    - a root span's start (a span without any parent, local or remote) → TraceCreated, at its start time;
    - every span's end → SpanRecorded, at its end time;
    - a root span's end → TraceFailed when its status is error, else TraceCompleted, at its end time.

    Nanoseconds become microseconds by rounding down; a span whose clock went backwards ends when it started. Attributes
    become tags as producers/attributes.py says: an integer beyond 64 bits becomes text, as JSON would spell it. An event's id
    is derived from the span, so the same span is the same event.

    User code is never disturbed: nothing raises, and with the publisher made here (policy "drop") nothing waits. What
    went wrong is counted in `publisher.counts()` and logged, at most one line in ten seconds.
    """

    def __init__(self, publisher: TelemetryPublisher | None = None) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops and close it at shutdown.

        Where no Kafka is named, the log says so once and everything is dropped.
        """
        self._sink = EventSink("span", publisher)
        self.publisher = self._sink.publisher

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._sink.send(span, events_at_start)

    def on_end(self, span: ReadableSpan) -> None:
        self._sink.send(span, events_at_end)

    def shutdown(self) -> None:
        """Flush, for DELIVERY_S at most."""
        self._sink.close(DELIVERY_S)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything published so far has its outcome."""
        return self._sink.flush(timeout_millis / 1000)


class SpanfoldSpanExporter(SpanExporter):
    """The same events with the same ids, for users of BatchSpanProcessor. They come when a span has ended, so a trace that
    is still going on is not to be seen, and TraceCreated has the tags that its root span had at its end.
    """

    def __init__(self, publisher: TelemetryPublisher | None = None, *, timeout_s: float = DELIVERY_S) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops and close it at shutdown.

        Where no Kafka is named, the log says so once and every export fails.
        """
        self._sink = EventSink("span", publisher)
        self._timeout_s = timeout_s
        self.publisher = self._sink.publisher
        export_at_child_exit(self)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """SUCCESS when Kafka has acknowledged every event within `timeout_s`. After a FAILURE some may have arrived or
        may still; exporting them again is safe. Never raises.
        """
        delivered = self._sink.deliver(spans, events_of, self._timeout_s)
        return SpanExportResult.SUCCESS if delivered else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Flush, for `timeout_s` at most; what is exported afterwards fails."""
        self._sink.close(self._timeout_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything published so far has its outcome."""
        return self._sink.flush(timeout_millis / 1000)

"""The log exporter: records of OpenTelemetry's logs SDK as LogRecorded."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from spanfold.language.events import LogRecorded
from spanfold.producers.attributes import body_of, text_of
from spanfold.producers.event_sink import DELIVERY_S, EventSink
from spanfold.producers.logs import Ordinals, log_tags
from spanfold.producers.opentelemetry.batches import export_at_child_exit
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.producers.resources import NS_PER_US, Origins

_ORIGINS: Final = Origins()


class SpanfoldLogExporter(LogRecordExporter):
    """Publishes log records as LogRecorded: all, or those from `lowest` severity on; then those without any are left out.

    Attributes become tags, also those of an exception. What identifies the event is all that the record says, and of equal
    records of one export which of them it is.
    """

    def __init__(
        self,
        publisher: TelemetryPublisher | None = None,
        *,
        lowest: SeverityNumber = SeverityNumber.UNSPECIFIED,
        timeout_s: float = DELIVERY_S,
    ) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops and close it at shutdown.

        Where no Kafka is named, the log says so once and every export fails.
        """
        self._sink = EventSink("log record", publisher)
        self._lowest = lowest
        self._timeout_s = timeout_s
        self.publisher = self._sink.publisher
        export_at_child_exit(self)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """SUCCESS when Kafka has acknowledged all that is severe enough within `timeout_s`. After a FAILURE some may have
        arrived or may still; exporting the same batch again is safe. Never raises.
        """
        events = partial(events_of, ordinals=Ordinals())
        delivered = self._sink.deliver(filter(self._severe, batch), events, self._timeout_s)
        return LogRecordExportResult.SUCCESS if delivered else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        """Flush, for `timeout_s` at most; what is exported afterwards fails."""
        self._sink.close(self._timeout_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything published so far has its outcome."""
        return self._sink.flush(timeout_millis / 1000)

    def _severe(self, record: ReadableLogRecord) -> bool:
        scope = record.instrumentation_scope
        if scope and EventSink.is_own_logger(scope.name):
            return False
        return _number(record) >= self._lowest.value


def events_of(record: ReadableLogRecord, ordinals: Ordinals) -> Iterator[LogRecorded]:
    """The record as an event."""
    log, origin = record.log_record, _ORIGINS.of(record.resource, record.instrumentation_scope)
    trace_id = format_trace_id(log.trace_id) if log.trace_id else None
    yield ordinals.numbered(
        LogRecorded(
            aggregate_id=trace_id or origin["service_name"],
            occurred_at=(log.timestamp or log.observed_timestamp or 0) // NS_PER_US,
            severity_number=_number(record),
            severity_text=text_of(log.severity_text or ""),
            body=body_of(log.body),
            event_name=text_of(log.event_name or ""),
            observed_time=log.observed_timestamp // NS_PER_US if log.observed_timestamp else None,
            trace_id=trace_id,
            span_id=format_span_id(log.span_id) if log.span_id else None,
            tags=log_tags(log.attributes),
            **origin,
        )
    )


def _number(record: ReadableLogRecord) -> int:
    severity = record.log_record.severity_number
    return severity.value if severity else 0

"""The log exporter: records of OpenTelemetry's logs SDK as ErrorLogged."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from spanfold.language.events import ErrorLogged, TagValue
from spanfold.producers.attributes import shortened, tags_of, text_of
from spanfold.producers.event_sink import DELIVERY_S, EventSink
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.producers.resources import NS_PER_US, service_of, source_of

SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
"""Each stands for four numbers of OpenTelemetry's, from 1 on."""


class SpanfoldLogExporter(LogRecordExporter):
    """Publishes log records as ErrorLogged, from `lowest` severity on; lesser ones, and those without any, are left out.

    The attributes exception.type, exception.message and exception.stacktrace have fields of their own, the others
    become tags. What identifies the event is service, scope, severity, message, span and time.
    """

    def __init__(
        self,
        publisher: TelemetryPublisher | None = None,
        *,
        lowest: SeverityNumber = SeverityNumber.ERROR,
        timeout_s: float = DELIVERY_S,
    ) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops and close it at shutdown.

        Misconfigured when no Kafka is named.
        """
        self._sink = EventSink("log record", publisher)
        self._lowest = lowest
        self._timeout_s = timeout_s
        self.publisher = self._sink.publisher

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """SUCCESS when Kafka has acknowledged all that is severe enough within `timeout_s`. After a FAILURE some may have
        arrived or may still; exporting them again is safe. Never raises.
        """
        delivered = self._sink.deliver(filter(self._severe, batch), events_of, self._timeout_s)
        return LogRecordExportResult.SUCCESS if delivered else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        """Flush, for `timeout_s` at most; what is exported afterwards fails."""
        self._sink.close(self._timeout_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything published so far has its outcome."""
        return self._sink.flush(timeout_millis / 1000)

    def _severe(self, record: ReadableLogRecord) -> bool:
        scope, severity = record.instrumentation_scope, record.log_record.severity_number
        if scope and EventSink.is_own_logger(scope.name):
            return False
        return severity is not None and severity.value >= self._lowest.value


def events_of(record: ReadableLogRecord) -> Iterator[ErrorLogged]:
    """The record as an event."""
    log, scope = record.log_record, record.instrumentation_scope
    tags = dict(tags_of(log.attributes))
    kind, message, stacktrace = (_exception(tags, field) for field in ("type", "message", "stacktrace"))
    trace_id = format_trace_id(log.trace_id) if log.trace_id else None
    yield ErrorLogged(
        aggregate_id=trace_id or service_of(record.resource.attributes),
        occurred_at=(log.timestamp or log.observed_timestamp or 0) // NS_PER_US,
        source=source_of(record.resource.attributes),
        service_name=service_of(record.resource.attributes),
        message=_body(log) or message or kind or "",
        severity=_severity(log),
        logger=text_of(scope.name) if scope else "",
        exception_type=kind,
        exception_message=message,
        stacktrace=stacktrace,
        trace_id=trace_id,
        span_id=format_span_id(log.span_id) if log.span_id else None,
        tags=tags,
    )


def _exception(tags: dict[str, TagValue], field: str) -> str | None:
    """This attribute of the exception, taken out of the tags."""
    value = tags.pop(f"exception.{field}", None)
    return None if value is None else shortened(str(value))


def _body(log: LogRecord) -> str:
    if log.body is None:
        return ""
    return shortened(log.body if isinstance(log.body, str) else json.dumps(log.body, default=str, ensure_ascii=False))


def _severity(log: LogRecord) -> str:
    number = log.severity_number.value if log.severity_number else 0
    return SEVERITIES[(number - 1) // 4] if number else text_of(log.severity_text or "")

"""Spans and logs through the exporters of the real OpenTelemetry SDK and a real Kafka."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanfold.producers.opentelemetry import SpanfoldSpanExporter, SpanfoldSpanProcessor
from spanfold.producers.opentelemetry.logs import SpanfoldLogExporter
from spanfold.producers.publisher import TelemetryPublisher

RESOURCE = Resource({"service.name": "checkout"})


def _work(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("GET /cart", attributes={"cart": 7}), tracer.start_as_current_span("SELECT"):
        pass
    with tracer.start_as_current_span("POST /pay") as span:
        span.set_status(StatusCode.ERROR, "declined")
    remote = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    with tracer.start_as_current_span("handle", context=TraceContextTextMapPropagator().extract(remote)):
        pass


def _finished_span() -> ReadableSpan:
    memory, provider = InMemorySpanExporter(), TracerProvider(resource=RESOURCE)
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("test").start_span("work").end()
    return memory.get_finished_spans()[0]


def test_the_exporter_makes_the_processors_events(
    publisher: TelemetryPublisher, read_all: Callable[[int], list[Any]], decoded: Callable[[Any], tuple[str, Any]]
) -> None:
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SpanfoldSpanProcessor(publisher))
    provider.add_span_processor(BatchSpanProcessor(SpanfoldSpanExporter(publisher)))
    _work(provider)
    assert provider.force_flush()
    found = [decoded(each) for each in read_all(16)]
    assert len(found) == 16
    kinds = [event_type for event_type, _ in found]
    assert {each: kinds.count(each) for each in kinds} == {
        "TraceCreated": 4, "SpanRecorded": 8, "TraceCompleted": 2, "TraceFailed": 2,
    }  # fmt: skip
    by_id: dict[bytes, list[Any]] = {}
    for event_type, fields in found:
        by_id.setdefault(fields["event_id"], []).append((event_type, fields))
    assert len(by_id) == 8
    assert all(one == other for one, other in by_id.values())


def test_an_export_says_what_became_of_it(publisher: TelemetryPublisher) -> None:
    span = _finished_span()
    exporter = SpanfoldSpanExporter(publisher)
    assert exporter.export([span]) is SpanExportResult.SUCCESS
    assert publisher.counts().acknowledged == 3
    assert exporter.force_flush()
    exporter.shutdown()
    assert exporter.export([span]) is SpanExportResult.FAILURE
    with TelemetryPublisher("127.0.0.1:1", on_full="drop") as nowhere:
        assert SpanfoldSpanExporter(nowhere, timeout_s=0.2).export([span]) is SpanExportResult.FAILURE
        nowhere.close(0.1)


def test_a_span_that_makes_no_event_fails_alone(
    publisher: TelemetryPublisher, read_all: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ReadableSpan("without a context")
    assert SpanfoldSpanExporter(publisher).export([broken, _finished_span()]) is SpanExportResult.FAILURE
    assert len(read_all(3)) == 3
    assert "a span was not published" in caplog.text


def test_log_records_from_error_on_are_exported(publisher: TelemetryPublisher, errors: Any) -> None:
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(BatchLogRecordProcessor(SpanfoldLogExporter(publisher)))
    logger = provider.get_logger("shop")
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        attributes: dict[str, Any] = {
            "exception.type": "ValueError",
            "exception.message": "no",
            "exception.stacktrace": "Traceback…",
            "cart": 7,
        }
        logger.emit(
            LogRecord(
                timestamp=1_795_000_000_123_456_789,
                severity_number=SeverityNumber.ERROR2,
                body="it broke",
                attributes=attributes,
            )
        )
    logger.emit(LogRecord(observed_timestamp=5000, severity_number=SeverityNumber.FATAL, body={"a": [1]}))
    logger.emit(LogRecord(timestamp=1, severity_number=SeverityNumber.WARN4, body="no error"))
    logger.emit(LogRecord(timestamp=1, body="of no severity"))
    assert provider.force_flush()
    broke, fatal = sorted(errors(2), key=lambda each: -each["occurred_at"])
    assert broke["aggregate_id"] == broke["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert broke["span_id"] == f"{span.get_span_context().span_id:016x}"
    assert (broke["message"], broke["severity"], broke["logger"]) == ("it broke", "ERROR", "shop")
    assert (broke["exception_type"], broke["exception_message"]) == ("ValueError", "no")
    assert (broke["stacktrace"], broke["tags"]) == ("Traceback…", {"cart": 7})
    assert broke["occurred_at"] == 1_795_000_000_123_456
    assert (fatal["message"], fatal["severity"], fatal["occurred_at"]) == ('{"a": [1]}', "FATAL", 5)
    assert fatal["aggregate_id"] == fatal["service_name"] == "checkout"
    provider.shutdown()


def test_a_log_export_without_kafka_fails_and_our_own_lines_are_left_out() -> None:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    record = LogRecord(timestamp=1, severity_number=SeverityNumber.ERROR, body="boom")
    theirs = ReadableLogRecord(record, RESOURCE, InstrumentationScope("shop"))
    ours = ReadableLogRecord(record, RESOURCE, InstrumentationScope("spanfold.publisher"))
    with TelemetryPublisher("127.0.0.1:1", on_full="drop") as nowhere:
        exporter = SpanfoldLogExporter(nowhere, timeout_s=0.2)
        assert exporter.export([ours]) is LogRecordExportResult.SUCCESS
        assert nowhere.counts().published == 0
        assert exporter.export([theirs]) is LogRecordExportResult.FAILURE
        nowhere.close(0.1)

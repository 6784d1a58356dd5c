"""Spans and logs through the exporters of the real OpenTelemetry SDK and a real Kafka."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanfold.producers.opentelemetry import SpanfoldSpanExporter, SpanfoldSpanProcessor
from spanfold.producers.opentelemetry.logs import SpanfoldLogExporter
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.producers.resources import Origins

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


def _logger(exporter: SpanfoldLogExporter) -> tuple[LoggerProvider, Logger]:
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return provider, provider.get_logger("shop", "1.2", attributes={"k": "v"})


def test_log_records_of_every_severity_are_exported(publisher: TelemetryPublisher, log_records: Any) -> None:
    provider, logger = _logger(SpanfoldLogExporter(publisher))
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        attributes: dict[str, Any] = {
            "exception.type": "ValueError",
            "exception.message": "no",
            "exception.stacktrace": "Traceback…",
            "cart": {"n": 7, "items": [{"sku": None}]},
        }
        logger.emit(
            LogRecord(
                timestamp=1_795_000_000_123_456_789,
                observed_timestamp=1_795_000_001_000_000_000,
                severity_number=SeverityNumber.ERROR2,
                severity_text="SEVERE",
                body="it broke",
                event_name="checkout.failed",
                attributes=attributes,
            )
        )
    logger.emit(LogRecord(observed_timestamp=5000, severity_number=SeverityNumber.FATAL, body={"a": [1]}))
    logger.emit(LogRecord(timestamp=1, severity_number=SeverityNumber.WARN4, body="no error"))
    logger.emit(LogRecord(timestamp=1, body="of no severity"))
    assert provider.force_flush()
    found = {str(each["body"]): each for each in log_records(4)}
    broke, fatal = found["it broke"], found["{'a': [1]}"]
    assert broke["aggregate_id"] == broke["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert broke["span_id"] == f"{span.get_span_context().span_id:016x}"
    assert (broke["severity_number"], broke["severity_text"], broke["event_name"]) == (18, "SEVERE", "checkout.failed")
    assert (broke["occurred_at"], broke["observed_time"]) == (1_795_000_000_123_456, 1_795_000_001_000_000)
    assert broke["tags"] == attributes
    assert (broke["scope_name"], broke["scope_version"], broke["scope_attributes"]) == ("shop", "1.2", {"k": "v"})
    assert broke["resource"] == {"service.name": "checkout"}
    assert (fatal["body"], fatal["severity_number"], fatal["occurred_at"]) == ({"a": [1]}, 21, 5)
    assert fatal["aggregate_id"] == fatal["service_name"] == "checkout"
    severities = [
        (found[body]["severity_number"], found[body]["severity_text"]) for body in ("no error", "of no severity")
    ]
    assert severities == [(16, ""), (0, "")]
    provider.shutdown()


def test_a_lowest_severity_leaves_out_lesser_ones_and_those_without_any(
    publisher: TelemetryPublisher, log_records: Any
) -> None:
    provider, logger = _logger(SpanfoldLogExporter(publisher, lowest=SeverityNumber.WARN))
    for severity in (SeverityNumber.INFO4, SeverityNumber.WARN, None):
        logger.emit(LogRecord(timestamp=1, severity_number=severity, body=f"{severity}"))
    assert provider.force_flush()
    assert [each["severity_number"] for each in log_records(1)] == [13]
    provider.shutdown()


def test_equal_records_of_an_export_are_told_apart_and_another_export_of_them_is_the_same(
    publisher: TelemetryPublisher, log_records: Any
) -> None:
    scope = InstrumentationScope("shop")
    batch = [
        ReadableLogRecord(LogRecord(timestamp=1, body=body, attributes={"a": [None]}), RESOURCE, scope)
        for body in ("again", "other", "again", "again")
    ]
    exporter = SpanfoldLogExporter(publisher)
    assert exporter.export(batch) is exporter.export(batch) is LogRecordExportResult.SUCCESS
    found = log_records(8)
    assert sorted((each["body"], each["ordinal"]) for each in found) == sorted(
        [("again", 0), ("again", 1), ("again", 2), ("other", 0)] * 2
    )
    assert len({each["event_id"] for each in found}) == 4


def test_a_resource_is_converted_once_and_two_of_the_same_id_are_told_apart() -> None:
    origins, resource, scope = Origins(), Resource({"service.name": "a"}), InstrumentationScope("s")
    assert origins.of(resource, scope) is origins.of(resource, scope)
    assert origins.of(resource, None)["scope_name"] == ""
    for number in range(3000):
        assert origins.of(Resource({"service.name": f"{number}"}), scope)["service_name"] == f"{number}"


def test_a_log_export_without_kafka_fails_and_our_own_lines_are_left_out() -> None:
    record = LogRecord(timestamp=1, severity_number=SeverityNumber.ERROR, body="boom")
    theirs = ReadableLogRecord(record, RESOURCE, InstrumentationScope("shop"))
    ours = ReadableLogRecord(record, RESOURCE, InstrumentationScope("spanfold.publisher"))
    with TelemetryPublisher("127.0.0.1:1", on_full="drop") as nowhere:
        exporter = SpanfoldLogExporter(nowhere, timeout_s=0.2)
        assert exporter.export([ours]) is LogRecordExportResult.SUCCESS
        assert nowhere.counts().published == 0
        assert exporter.export([theirs]) is LogRecordExportResult.FAILURE
        nowhere.close(0.1)

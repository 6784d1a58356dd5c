"""The real OpenTelemetry SDK, publishing through a real Kafka."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanfold.producers.opentelemetry import SpanfoldSpanProcessor
from spanfold.producers.publisher import TelemetryPublisher

Events = Callable[[int], dict[str, list[dict[str, Any]]]]


@pytest.fixture
def provider(publisher: TelemetryPublisher) -> Iterator[TracerProvider]:
    made = TracerProvider(resource=Resource({"service.name": "checkout", "service.instance.id": "i-1"}))
    made.add_span_processor(SpanfoldSpanProcessor(publisher))
    yield made
    made.shutdown()


@pytest.fixture
def tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("test")


@pytest.fixture
def events(
    provider: TracerProvider, read_all: Callable[[int], list[Any]], decoded: Callable[[Any], tuple[str, dict[str, Any]]]
) -> Events:
    """Flush, then the fields of all events that lie in the log, by event type."""

    def read(expected: int) -> dict[str, list[dict[str, Any]]]:
        assert provider.force_flush()
        found: dict[str, list[dict[str, Any]]] = {}
        messages = read_all(expected)
        assert len(messages) == expected
        for event_type, fields in map(decoded, messages):
            found.setdefault(event_type, []).append(fields)
        return found

    return read


def test_a_trace_becomes_its_three_kinds_of_events(tracer: Tracer, events: Events) -> None:
    with tracer.start_as_current_span("GET /cart", kind=SpanKind.SERVER, attributes={"cart": 7}) as root:
        with tracer.start_as_current_span("SELECT cart", kind=SpanKind.CLIENT) as child:
            child.set_status(StatusCode.OK)
        root.set_attribute("http.status", 200)
    found = events(4)
    trace_id = f"{root.get_span_context().trace_id:032x}"
    assert {each["aggregate_id"] for kind in found.values() for each in kind} == {trace_id}
    assert {each["source"] for kind in found.values() for each in kind} == {"checkout/i-1"}

    (created,), (completed,) = found["TraceCreated"], found["TraceCompleted"]
    inner, outer = found["SpanRecorded"]
    assert (created["service_name"], created["operation_name"], created["tags"]) == (
        "checkout",
        "GET /cart",
        {"cart": 7},
    )
    assert isinstance(root, ReadableSpan)
    assert root.start_time
    assert root.end_time
    assert created["start_time"] == created["occurred_at"] == root.start_time // 1000
    assert completed["end_time"] == completed["occurred_at"] == outer["end_time"] == root.end_time // 1000
    assert completed["tags"] == outer["tags"] == {"cart": 7, "http.status": 200}
    assert (inner["operation_name"], inner["kind"], inner["status"]) == ("SELECT cart", "client", "ok")
    assert (outer["operation_name"], outer["kind"], outer["status"]) == ("GET /cart", "server", "unset")
    assert inner["span_id"] == f"{child.get_span_context().span_id:016x}"
    assert inner["parent_span_id"] == outer["span_id"] == f"{root.get_span_context().span_id:016x}"
    assert outer["parent_span_id"] is None


def test_spans_have_their_resource_and_their_scope(provider: TracerProvider, events: Events) -> None:
    provider.get_tracer("http", "1.2", attributes={"k": "v"}).start_span("one").end()
    provider.get_tracer("db").start_span("two").end()
    spans = {each["operation_name"]: each for each in events(6)["SpanRecorded"]}
    resource = {"service.name": "checkout", "service.instance.id": "i-1"}
    assert spans["one"]["resource"] == spans["two"]["resource"] == resource
    scopes = [
        tuple(spans[name][f"scope_{part}"] for part in ("name", "version", "attributes")) for name in ("one", "two")
    ]
    assert scopes == [("http", "1.2", {"k": "v"}), ("db", "", {})]


def test_an_exception_fails_the_trace_and_says_why(tracer: Tracer, events: Events) -> None:
    with pytest.raises(ValueError, match="no such card"), tracer.start_as_current_span("POST /pay"):
        raise ValueError("no such card")
    found = events(3)
    assert found["TraceFailed"][0]["error"] == "ValueError: no such card"
    (span,) = found["SpanRecorded"]
    assert (span["status"], span["status_message"]) == ("error", "ValueError: no such card")
    assert span["events"][0]["name"] == "exception"
    assert span["events"][0]["attributes"]["exception.message"] == "no such card"


def test_an_error_without_words_is_named_after_the_exception_or_the_operation(tracer: Tracer, events: Events) -> None:
    with tracer.start_as_current_span("recorded") as span:
        span.record_exception(RuntimeError("disk full"))
        span.set_status(Status(StatusCode.ERROR))
    with tracer.start_as_current_span("silent") as span:
        span.set_status(Status(StatusCode.ERROR))
    assert {each["error"] for each in events(6)["TraceFailed"]} == {"disk full", "silent"}


def test_a_failing_child_does_not_fail_the_trace(tracer: Tracer, events: Events) -> None:
    with tracer.start_as_current_span("root"), tracer.start_as_current_span("child") as child:
        child.set_status(Status(StatusCode.ERROR, "retried"))
    found = events(4)
    assert "TraceFailed" not in found
    assert len(found["TraceCompleted"]) == 1


def test_a_span_with_a_remote_parent_begins_no_trace(tracer: Tracer, events: Events) -> None:
    remote = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    with tracer.start_as_current_span("handle", context=TraceContextTextMapPropagator().extract(remote)):
        pass
    found = events(1)
    assert found["SpanRecorded"][0]["aggregate_id"] == "a" * 32
    assert found["SpanRecorded"][0]["parent_span_id"] == "b" * 16


def test_links_and_span_events_are_carried(tracer: Tracer, events: Events) -> None:
    with tracer.start_as_current_span("first") as first:
        first.add_event("cache miss", {"key": "k", "tries": 2}, timestamp=1_795_000_000_123_456_789)
    with tracer.start_as_current_span("second", links=[Link(first.get_span_context(), {"why": "retry"})]):
        pass
    spans = {each["operation_name"]: each for each in events(6)["SpanRecorded"]}
    assert spans["first"]["events"] == [
        {"name": "cache miss", "time": 1_795_000_000_123_456, "attributes": {"key": "k", "tries": 2}}
    ]
    assert spans["second"]["links"] == [
        {
            "trace_id": spans["first"]["aggregate_id"],
            "span_id": spans["first"]["span_id"],
            "attributes": {"why": "retry"},
        }
    ]


def test_an_integer_beyond_64_bits_costs_no_span(tracer: Tracer, events: Events) -> None:
    with tracer.start_as_current_span("GET /large", attributes={"n": 2**70, "many": [1, 2**63]}) as span:
        span.add_event("seen", {"n": -(2**63) - 1})
    found = events(3)
    (recorded,) = found["SpanRecorded"]
    assert recorded["tags"] == {"n": "1180591620717411303424", "many": [1, "9223372036854775808"]}
    assert recorded["events"][0]["attributes"] == {"n": "-9223372036854775809"}


def test_a_clock_that_goes_backwards_makes_a_span_without_duration(tracer: Tracer, events: Events) -> None:
    span = tracer.start_span("odd", start_time=2_000_000_000)
    span.end(end_time=1_000_000_000)
    found = events(3)
    assert found["SpanRecorded"][0]["start_time"] == found["SpanRecorded"][0]["end_time"] == 2_000_000


def test_only_sampled_spans_are_published(publisher: TelemetryPublisher) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SpanfoldSpanProcessor(publisher))
    with provider.get_tracer("test").start_as_current_span("unseen"):
        pass
    assert publisher.counts().published == 0

    half = TracerProvider(sampler=TraceIdRatioBased(0.5))
    half.add_span_processor(SpanfoldSpanProcessor(publisher))
    sampled = 0
    for _ in range(200):
        with half.get_tracer("test").start_as_current_span("maybe") as span:
            sampled += span.get_span_context().trace_flags.sampled
    assert publisher.counts().published == 3 * sampled > 0


def test_a_resource_without_a_service_is_an_unknown_service(
    publisher: TelemetryPublisher, read_all: Any, decoded: Any
) -> None:
    provider = TracerProvider(resource=Resource({}))
    provider.add_span_processor(SpanfoldSpanProcessor(publisher))
    provider.get_tracer("test").start_span("lonely").end()
    publisher.flush()
    fields = [decoded(each)[1] for each in read_all(3)]
    assert {each["source"] for each in fields} == {"unknown_service"}


def test_a_kafka_that_is_away_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    publisher = TelemetryPublisher("127.0.0.1:1", on_full="drop", message_timeout_s=0.5)
    provider = TracerProvider()
    provider.add_span_processor(SpanfoldSpanProcessor(publisher))
    started = time.monotonic()
    for _ in range(1000):
        with provider.get_tracer("test").start_as_current_span("work"):
            pass
    assert time.monotonic() - started < 30  # 3,000 events that would each be waited for
    assert provider.force_flush(timeout_millis=1) is False
    assert publisher.flush(10) == 0
    assert publisher.counts().failed == 3000
    assert len([each for each in caplog.records if each.name == "spanfold.publisher"]) == 1
    publisher.close()


def test_a_closed_publisher_disturbs_nobody(publisher: TelemetryPublisher, caplog: pytest.LogCaptureFixture) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SpanfoldSpanProcessor(publisher))
    publisher.close()
    with (
        caplog.at_level(logging.WARNING),
        trace.use_span(provider.get_tracer("test").start_span("late"), end_on_exit=True),
    ):
        pass
    assert "a span was not published" in caplog.text


def test_the_processors_own_publisher_drops_and_is_closed_at_shutdown(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spanfold.language.settings import settings

    monkeypatch.setenv("SPANFOLD_KAFKA_BOOTSTRAP", kafka_bootstrap)
    settings.cache_clear()
    processor = SpanfoldSpanProcessor()
    processor.shutdown()
    provider = TracerProvider()
    provider.add_span_processor(processor)
    with provider.get_tracer("test").start_as_current_span("after the end"):
        pass
    assert processor.publisher.counts().dropped == 3
    settings.cache_clear()

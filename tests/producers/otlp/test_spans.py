"""OTLP's spans become the events that the SDK's own processor makes of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanfold.language.errors import InvalidInput
from spanfold.language.events import SpanRecorded, TraceCreated, TraceEvent
from spanfold.producers.opentelemetry.spans import events_of
from spanfold.producers.otlp.spans import origin_in_scope, origin_of_resource, recorded
from spanfold.producers.spans import events_of_span
from tests.producers.otlp.door import Export, a_span, an_export, as_message

REMOTE = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


NESTED: Any = {"n": 1, "list": [[1, {"a": None}], "x", {}], "bytes": b"\xff", "nan": float("inf"), "key\0": "\0"}


def events(request: Any) -> Iterator[TraceEvent]:
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                origin = origin_in_scope(origin_of_resource(of_resource.resource), of_scope.scope)
                yield from events_of_span(recorded(span, origin))


def one(*_: Any, resource: dict[str, str] | None = None, **changes: Any) -> SpanRecorded:
    (span, *_rest) = events(as_message(an_export(a_span(**changes), **(resource or {}))))
    assert isinstance(span, SpanRecorded)
    return span


def spans_of_an_application(resource: Resource) -> tuple[ReadableSpan, ...]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=resource, span_limits=SpanLimits(max_attributes=8, max_events=1, max_links=1))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("shop", "1.2", attributes={"team": "checkout"})
    values: dict[str, Any] = {
        "nested": NESTED,
        "text": "Grüße\0",
        "whole": -(2**62),
        "real": 0.1,
        "flag": True,
        "list": ["a", "b"],
        "nan": float("nan"),
    }
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER, attributes=values) as root:
        for kind in SpanKind:
            with tracer.start_as_current_span(kind.name, kind=kind, links=[Link(root.get_span_context(), NESTED)] * 2):
                pass
        root.add_event("first", NESTED)
        root.add_event("second", {"n": 2})
        root.set_attributes({f"more {number}": number for number in range(9)})
    with tracer.start_as_current_span("fails") as span:
        span.set_status(Status(StatusCode.ERROR, "out of stock"))
    with tracer.start_as_current_span("raises") as span:
        span.record_exception(ValueError("no such card"))
        span.set_status(StatusCode.ERROR)
    with tracer.start_as_current_span("fine") as span:
        span.set_status(StatusCode.OK)
    tracer.start_span("called", context=TraceContextTextMapPropagator().extract(REMOTE)).end()
    tracer.start_span("odd clock", start_time=2_000_000_999).end(end_time=1_000_000_000)
    return kept.get_finished_spans()


@pytest.mark.parametrize("resource", [{"service.name": "shop", "service.instance.id": "i-1", "cloud": "x"}, {}])
def test_a_span_is_the_same_events_by_otlp_and_by_the_processor(resource: dict[str, str]) -> None:
    spans = spans_of_an_application(Resource(resource))
    by_processor = [event for span in spans for event in events_of(span)]
    by_otlp = list(events(encode_spans(spans)))
    assert len(by_processor) == 11 + 2 * 5  # spans, and two more of each root
    assert by_otlp == by_processor
    assert any("otel.dropped_attributes_count" in each.tags for each in by_otlp)


@pytest.mark.parametrize("parent", [{}, {"parentSpanId": ""}, {"parentSpanId": "0" * 16}])
def test_a_span_without_a_parent_begins_and_ends_its_trace(parent: Export) -> None:
    found = list(events(as_message(an_export(a_span(**parent)))))
    assert [each.event_type for each in found] == ["SpanRecorded", "TraceCreated", "TraceCompleted"]
    assert isinstance(found[0], SpanRecorded)
    assert found[0].parent_span_id is None


def test_a_span_with_a_parent_that_is_elsewhere_begins_no_trace() -> None:
    (found,) = events(as_message(an_export(a_span(parentSpanId="b" * 16))))
    assert found.aggregate_id == f"{1:032x}"


@pytest.mark.parametrize(
    ("resource", "service", "source"),
    [
        ({"service.name": "shop", "service.instance.id": "i-1"}, "shop", "shop/i-1"),
        ({"service.name": ""}, "unknown_service", "unknown_service"),
        ({"host.name": "h"}, "unknown_service", "unknown_service"),
    ],
)
def test_the_service_is_the_resource_s(resource: dict[str, str], service: str, source: str) -> None:
    (span, *_) = events(as_message(an_export(a_span(), **resource)))
    assert isinstance(span, SpanRecorded)
    assert (span.service_name, span.source) == (service, source)


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ({"stringValue": "a\0b"}, "a\ufffdb"),
        ({"intValue": "-9223372036854775808"}, -(2**63)),
        ({"intValue": 7}, 7),
        ({"doubleValue": "NaN"}, "NaN"),
        ({"boolValue": False}, False),
        ({"bytesValue": "/wA="}, "/wA="),
        ({"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}}, [1, "x"]),
        ({"arrayValue": {}}, []),
        ({"arrayValue": {"values": [{"arrayValue": {"values": [{}]}}]}}, [[None]]),
        ({"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": True}}]}}, {"a": True}),
        (
            {"kvlistValue": {"values": [{"key": "a", "value": {"kvlistValue": {}}}, {"key": "b\0"}]}},
            {"a": {}, "b\ufffd": None},
        ),
        ({}, None),
        ({"aValueOfTomorrow": 1}, None),
    ],
)
def test_every_kind_of_attribute_is_kept(value: Export, tag: object) -> None:
    found = one(attributes=[{"key": "k", "value": value}]).tags
    assert found == {"k": tag}
    assert type(found["k"]) is type(tag)


def test_a_span_has_its_resource_and_its_scope_and_its_trace_s_events_have_neither() -> None:
    request = an_export(a_span(), **{"service.name": "shop", "service.version": "7"})
    request["resourceSpans"][0]["scopeSpans"][0]["scope"] = {
        "name": "http", "version": "1.2", "attributes": [{"key": "k", "value": {"arrayValue": {"values": [{"intValue": 1}]}}}]
    }  # fmt: skip
    span, *others = events(as_message(request))
    assert isinstance(span, SpanRecorded)
    assert span.resource == {"service.name": "shop", "service.version": "7"}
    assert (span.scope_name, span.scope_version, span.scope_attributes) == ("http", "1.2", {"k": [1]})
    assert not any("resource" in each.as_fields() for each in others)


def test_a_span_without_a_scope_has_none() -> None:
    found = one()
    assert (found.scope_name, found.scope_version, found.scope_attributes) == ("", "", {})


def test_what_the_sender_dropped_is_told_in_the_tags() -> None:
    assert one(droppedAttributesCount=3, droppedEventsCount=0, droppedLinksCount=2).tags == {
        "otel.dropped_attributes_count": 3,
        "otel.dropped_links_count": 2,
    }


def test_kinds_and_statuses_that_nobody_knows_are_the_plain_ones() -> None:
    assert (one(kind=0).kind, one(kind=99).kind, one(status={"code": 99}).status) == ("internal", "internal", "unset")


def test_a_clock_that_goes_backwards_makes_a_span_without_duration() -> None:
    found = one(startTimeUnixNano="2000000999", endTimeUnixNano="1000000000")
    assert (found.start_time, found.end_time, found.occurred_at) == (2_000_000, 2_000_000, 2_000_000)


def test_a_trace_tells_what_its_root_tells() -> None:
    span, created, failed = events(
        as_message(
            an_export(
                a_span(status={"code": 2}, events=[{"name": "exception", "attributes": [
                    {"key": "exception.message", "value": {"stringValue": "no such card"}}]}])
            )
        )
    )  # fmt: skip
    assert isinstance(created, TraceCreated)
    assert isinstance(span, SpanRecorded)
    assert (created.operation_name, created.start_time) == ("operation 1", span.start_time)
    assert getattr(failed, "error", None) == "no such card"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"traceId": "abcd"}, "trace_id has 2 bytes, not 16"),
        ({"traceId": "0" * 32}, "trace_id is all zeros"),
        ({"spanId": "ab" * 9}, "span_id has 9 bytes, not 8"),
        ({"spanId": ""}, "span_id has 0 bytes, not 8"),
        ({"parentSpanId": "abcd"}, "parent_span_id has 2 bytes, not 8 or none"),
        ({"startTimeUnixNano": "0"}, "must both be set"),
        ({"endTimeUnixNano": 0}, "must both be set"),
    ],
)
def test_a_span_that_can_t_be_one_says_why(changes: Export, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        one(**changes)

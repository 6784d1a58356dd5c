"""Spans → the events of their traces. Which events, and when, is told at SpanfoldSpanProcessor."""

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode, format_span_id, format_trace_id

from producers.attributes import tags_of, text_of
from producers.opentelemetry.resources import NS_PER_US, service_of, source_of
from spanfold.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed


def events_of(span: ReadableSpan) -> Iterator[TraceEvent]:
    """All events of a span that has ended."""
    yield from events_at_start(span)
    yield from events_at_end(span)


def events_at_start(span: ReadableSpan) -> Iterator[TraceEvent]:
    """Those that its start makes."""
    if span.parent is None and _sampled(span):
        start = _us(span.start_time)
        yield TraceCreated(
            aggregate_id=_trace_id(span),
            occurred_at=start,
            source=source_of(span.resource),
            service_name=service_of(span.resource),
            operation_name=text_of(span.name),
            start_time=start,
            tags=tags_of(span.attributes),
        )


def events_at_end(span: ReadableSpan) -> Iterator[TraceEvent]:
    """Those that its end makes."""
    if not _sampled(span):
        return
    yield _recorded(span)
    if span.parent is None:
        yield _failed(span) if span.status.status_code is StatusCode.ERROR else _completed(span)


def _recorded(span: ReadableSpan) -> SpanRecorded:
    return SpanRecorded(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        source=source_of(span.resource),
        span_id=format_span_id(_context(span).span_id),
        parent_span_id=format_span_id(span.parent.span_id) if span.parent else None,
        service_name=service_of(span.resource),
        operation_name=text_of(span.name),
        start_time=_us(span.start_time),
        end_time=_end(span),
        kind=span.kind.name.lower(),
        status=span.status.status_code.name.lower(),
        status_message=text_of(span.status.description) if span.status.description else None,
        tags=tags_of(span.attributes),
        events=tuple(_happenings(span)),
        links=tuple(_links(span)),
    )


def _completed(span: ReadableSpan) -> TraceCompleted:
    return TraceCompleted(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        source=source_of(span.resource),
        end_time=_end(span),
        tags=tags_of(span.attributes),
    )


def _failed(span: ReadableSpan) -> TraceFailed:
    return TraceFailed(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        source=source_of(span.resource),
        error=text_of(span.status.description or _exception(span) or span.name),
        end_time=_end(span),
        tags=tags_of(span.attributes),
    )


def _exception(span: ReadableSpan) -> str | None:
    """What the last recorded exception said."""
    for event in reversed(span.events):
        if event.name == "exception" and event.attributes:
            said = event.attributes.get("exception.message") or event.attributes.get("exception.type")
            return str(said) if said else None
    return None


def _happenings(span: ReadableSpan) -> Iterator[Mapping[str, Any]]:
    for event in span.events:
        yield {"name": text_of(event.name), "time": _us(event.timestamp), "attributes": tags_of(event.attributes)}


def _links(span: ReadableSpan) -> Iterator[Mapping[str, Any]]:
    for link in span.links:
        yield {
            "trace_id": format_trace_id(link.context.trace_id),
            "span_id": format_span_id(link.context.span_id),
            "attributes": tags_of(link.attributes),
        }


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    if context is None:
        raise ValueError("a span without a context")
    return context


def _sampled(span: ReadableSpan) -> bool:
    return _context(span).trace_flags.sampled


def _trace_id(span: ReadableSpan) -> str:
    return format_trace_id(_context(span).trace_id)


def _us(nanoseconds: int | None) -> int:
    if nanoseconds is None:
        raise ValueError("a span without a time")
    return nanoseconds // NS_PER_US


def _end(span: ReadableSpan) -> int:
    return max(_us(span.end_time), _us(span.start_time))

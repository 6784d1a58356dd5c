"""The SDK's spans → the events of their traces. SpanfoldSpanProcessor describes which events, and when."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from spanfold.language.events import SpanRecorded, TraceCreated, TraceEvent
from spanfold.producers.attributes import tags_of, text_of
from spanfold.producers.resources import NS_PER_US, Origins
from spanfold.producers.spans import events_of_span, trace_ended, with_dropped

_ORIGINS: Final = Origins()


def events_of(span: ReadableSpan) -> Iterator[TraceEvent]:
    """All events of a span that has ended."""
    if _sampled(span):
        yield from events_of_span(_recorded(span))


def events_at_start(span: ReadableSpan) -> Iterator[TraceEvent]:
    """Those that its start makes."""
    if span.parent is None and _sampled(span):
        start, origin = _us(span.start_time), _ORIGINS.of(span.resource, span.instrumentation_scope)
        yield TraceCreated(
            aggregate_id=_trace_id(span),
            occurred_at=start,
            source=origin["source"],
            service_name=origin["service_name"],
            operation_name=text_of(span.name),
            start_time=start,
            span_id=format_span_id(_context(span).span_id),
            tags=tags_of(span.attributes),
        )


def events_at_end(span: ReadableSpan) -> Iterator[TraceEvent]:
    """Those that its end makes."""
    if not _sampled(span):
        return
    recorded = _recorded(span)
    yield recorded
    if span.parent is None:
        yield trace_ended(recorded)


def _recorded(span: ReadableSpan) -> SpanRecorded:
    tags = tags_of(span.attributes)
    return SpanRecorded(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        span_id=format_span_id(_context(span).span_id),
        parent_span_id=format_span_id(span.parent.span_id) if span.parent else None,
        operation_name=text_of(span.name),
        start_time=_us(span.start_time),
        end_time=_end(span),
        kind=span.kind.name.lower(),
        status=span.status.status_code.name.lower(),
        status_message=text_of(span.status.description) if span.status.description else None,
        tags=with_dropped(tags, span.dropped_attributes, span.dropped_events, span.dropped_links),
        events=tuple(_happenings(span)),
        links=tuple(_links(span)),
        **_ORIGINS.of(span.resource, span.instrumentation_scope),
    )


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

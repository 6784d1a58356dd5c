"""A span that has ended → its events, by the same rules whether it comes from an SDK's processor or by OTLP."""

from collections.abc import Iterator

from spanfold.language.events import SpanRecorded, Tags, TagValue, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.producers.attributes import text_of


def events_of_span(span: SpanRecorded) -> Iterator[TraceEvent]:
    """The span itself and, for a root span (one without a parent), its trace's start and end.

    The span comes first because it is the largest: when the log refuses it, none of its other events has been published.
    """
    yield span
    if span.parent_span_id is None:
        yield trace_created(span)
        yield trace_ended(span)


def trace_created(root: SpanRecorded) -> TraceCreated:
    """The trace's start, from its root span as it is when it has ended."""
    return TraceCreated(
        aggregate_id=root.aggregate_id,
        occurred_at=root.start_time,
        source=root.source,
        service_name=root.service_name,
        operation_name=root.operation_name,
        start_time=root.start_time,
        span_id=root.span_id,
        tags=root.tags,
    )


def trace_ended(root: SpanRecorded) -> TraceCompleted | TraceFailed:
    """The trace's end: TraceFailed when the root span's status is error."""
    if root.status == "error":
        return TraceFailed(
            aggregate_id=root.aggregate_id,
            occurred_at=root.end_time,
            source=root.source,
            error=root.status_message or _exception(root) or root.operation_name,
            end_time=root.end_time,
            span_id=root.span_id,
            start_time=root.start_time,
            tags=root.tags,
        )
    return TraceCompleted(
        aggregate_id=root.aggregate_id,
        occurred_at=root.end_time,
        source=root.source,
        end_time=root.end_time,
        span_id=root.span_id,
        start_time=root.start_time,
        tags=root.tags,
    )


def with_dropped(tags: Tags, attributes: int, events: int, links: int) -> Tags:
    """The tags, with how much of the span its SDK dropped at its limits, under OpenTelemetry's names for formats that have
    no field for that.
    """
    if not (attributes or events or links):
        return tags
    counts = {"attributes": attributes, "events": events, "links": links}
    dropped: dict[str, TagValue] = {f"otel.dropped_{what}_count": count for what, count in counts.items() if count}
    return {**tags, **dropped}


def _exception(span: SpanRecorded) -> str | None:
    """Message (or type) of the exception recorded last."""
    for event in reversed(span.events):
        if event["name"] == "exception" and event["attributes"]:
            attributes = event["attributes"]
            message = attributes.get("exception.message") or attributes.get("exception.type")
            return text_of(str(message)) if message else None
    return None

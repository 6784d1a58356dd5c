"""A span that has ended → all events of it, by the same rules whether an SDK's processor or OTLP brings it."""

from collections.abc import Iterator

from spanfold.language.events import SpanRecorded, Tags, TagValue, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.producers.attributes import text_of


def events_of_span(span: SpanRecorded) -> Iterator[TraceEvent]:
    """The span itself, and of a root span (one without any parent) also its trace's beginning and end.

    The span comes first because it is the largest: where the log refuses it, nothing else of it has been published.
    """
    yield span
    if span.parent_span_id is None:
        yield trace_created(span)
        yield trace_ended(span)


def trace_created(root: SpanRecorded) -> TraceCreated:
    """The trace's beginning, as its root span tells it at its end."""
    return TraceCreated(
        aggregate_id=root.aggregate_id,
        occurred_at=root.start_time,
        source=root.source,
        service_name=root.service_name,
        operation_name=root.operation_name,
        start_time=root.start_time,
        tags=root.tags,
    )


def trace_ended(root: SpanRecorded) -> TraceCompleted | TraceFailed:
    """The trace's end: it failed when its root span's status is error."""
    if root.status == "error":
        return TraceFailed(
            aggregate_id=root.aggregate_id,
            occurred_at=root.end_time,
            source=root.source,
            error=root.status_message or _exception(root) or root.operation_name,
            end_time=root.end_time,
            tags=root.tags,
        )
    return TraceCompleted(
        aggregate_id=root.aggregate_id,
        occurred_at=root.end_time,
        source=root.source,
        end_time=root.end_time,
        tags=root.tags,
    )


def with_dropped(tags: Tags, attributes: int, events: int, links: int) -> Tags:
    """The tags, and how much of the span its SDK dropped at its limits, under OpenTelemetry's names for formats that have
    no field for it.
    """
    if not (attributes or events or links):
        return tags
    counts = {"attributes": attributes, "events": events, "links": links}
    dropped: dict[str, TagValue] = {f"otel.dropped_{what}_count": count for what, count in counts.items() if count}
    return {**tags, **dropped}


def _exception(span: SpanRecorded) -> str | None:
    """What the last recorded exception said."""
    for event in reversed(span.events):
        if event["name"] == "exception" and event["attributes"]:
            said = event["attributes"].get("exception.message") or event["attributes"].get("exception.type")
            return text_of(str(said)) if said else None
    return None

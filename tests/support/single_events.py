"""One event of each type of traces, by default all alike."""

from typing import Any

from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceFailed
from tests.support.strategies import NOW


def created(trace_id: str = "a", **changes: Any) -> TraceCreated:
    fields: dict[str, Any] = {"service_name": "shop", "operation_name": "pay", "start_time": NOW} | changes
    return TraceCreated(aggregate_id=trace_id, occurred_at=NOW, source="test", **fields)


def span(trace_id: str = "a", **changes: Any) -> SpanRecorded:
    fields: dict[str, Any] = {
        "span_id": "1", "parent_span_id": None, "service_name": "shop", "operation_name": "pay",
        "start_time": NOW, "end_time": NOW + 1,
    } | changes  # fmt: skip
    return SpanRecorded(aggregate_id=trace_id, occurred_at=NOW, source="test", **fields)


def completed(trace_id: str = "a", **changes: Any) -> TraceCompleted:
    fields: dict[str, Any] = {"end_time": NOW + 1} | changes
    return TraceCompleted(aggregate_id=trace_id, occurred_at=NOW, source="test", **fields)


def failed(trace_id: str = "a", **changes: Any) -> TraceFailed:
    fields: dict[str, Any] = {"end_time": NOW + 1, "error": "no"} | changes
    return TraceFailed(aggregate_id=trace_id, occurred_at=NOW, source="test", **fields)

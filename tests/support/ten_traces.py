"""Ten traces, as events and as records of one partition."""

from typing import Any

from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from tests.support.strategies import NOW, records_of


def story(number: int) -> list[TraceEvent]:
    """The events of one trace."""
    at, trace_id = NOW + number * 10, f"trace {number}"
    said: dict[str, Any] = {"aggregate_id": trace_id, "source": "test"}
    where: dict[str, Any] = {"service_name": "shop", "operation_name": "pay"}
    end: TraceEvent = TraceCompleted(occurred_at=at + 3, end_time=at + 3, tags={"n": number}, **said)
    if number % 3 == 0:
        end = TraceFailed(occurred_at=at + 3, end_time=at + 3, error="no", **said)
    return [
        TraceCreated(occurred_at=at, start_time=at, tags={"n": -number}, **said, **where),
        SpanRecorded(
            occurred_at=at + 2, span_id="1", parent_span_id=None, start_time=at, end_time=at + 2,
            status="error" if number % 2 else "ok", **said, **where,
        ),
        end,
        SpanRecorded(
            occurred_at=at + 4, span_id="2", parent_span_id="1", start_time=at, end_time=at + 4, **said, **where
        ),
    ]  # fmt: skip


EVENTS = [event for number in range(10) for event in story(number)]


LOG = records_of(EVENTS)

"""What the rows must be, said by the dumbest fold there is, and what they are, as a reader of the views sees them."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import psycopg

from spanfold.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed

Row = dict[str, Any]
Rows = tuple[dict[str, Row], Counter[Any]]
"""Traces by id, and spans with how often each is there."""


def told(events: Iterable[TraceEvent]) -> Rows:
    """The rows that these events tell of, as the public views show them but for versions."""
    traces: dict[str, Row] = {}
    spans: list[SpanRecorded] = []
    for event in events:
        trace = traces.setdefault(
            event.aggregate_id, {"created": None, "closed": None, "spans": [], "last_event_at": event.occurred_at}
        )
        trace["last_event_at"] = max(trace["last_event_at"], event.occurred_at)
        if isinstance(event, SpanRecorded):
            trace["spans"].append(event)
            spans.append(event)
        else:
            owned = "created" if isinstance(event, TraceCreated) else "closed"
            before = trace[owned]
            if before is None or (event.occurred_at, event.event_id) > (before.occurred_at, before.event_id):
                trace[owned] = event
    return {trace_id: _trace_row(trace) for trace_id, trace in traces.items()}, Counter(map(_span_row, spans))


def _trace_row(trace: Row) -> Row:
    created: TraceCreated | None = trace["created"]
    closed: TraceCompleted | TraceFailed | None = trace["closed"]
    spans: list[SpanRecorded] = trace["spans"]
    start = created.start_time if created else min((span.start_time for span in spans), default=None)
    end = closed.end_time if closed else None
    return {
        "service_name": created.service_name if created else None,
        "operation_name": created.operation_name if created else None,
        "status": _status(closed),
        "start_time": start,
        "end_time": end,
        "duration_ms": None if start is None or end is None else (end - start) / 1000,
        "tags": document({**(created.tags if created else {}), **(closed.tags if closed else {})}),
        "span_count": len(spans),
        "error_count": len([span for span in spans if span.status == "error"]),
        "error": closed.error if isinstance(closed, TraceFailed) else None,
        "late_events": 0 if end is None else len([span for span in spans if span.end_time > end]),
        "last_event_at": trace["last_event_at"],
    }


def _status(closed: TraceCompleted | TraceFailed | None) -> str:
    if closed is None:
        return "started"
    return closed.status if isinstance(closed, TraceCompleted) else "failed"


def _span_row(span: SpanRecorded) -> tuple[Any, ...]:
    return (
        span.aggregate_id,
        span.span_id,
        span.parent_span_id,
        span.service_name,
        span.operation_name,
        span.kind,
        span.status,
        span.status_message,
        span.start_time,
        span.end_time,
        (span.end_time - span.start_time) / 1000,
        document(span.tags),
        document(list(span.events)),
        document(list(span.links)),
    )


def document(value: Any) -> Any:
    """What JSON says with this value, such that equal documents are equal: numbers by value, NaN and infinities as texts."""
    match value:
        case bool() | None:
            return ("constant", value)
        case float() if math.isnan(value):
            return "NaN"
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        case int() | float() | Decimal():
            return ("number", Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
        case dict():
            return frozenset((key, document(item)) for key, item in value.items())
        case list() | tuple():
            return tuple(document(item) for item in value)
        case _:
            return value


# The rows as a reader sees them

# a reader's clock cannot show the year 294276, the microseconds can
TRACES = """
SELECT trace_id, service_name, operation_name, status,
       (extract(epoch FROM start_time) * 1000000)::bigint,
       (extract(epoch FROM end_time) * 1000000)::bigint,
       duration_ms, tags::text, span_count, error_count, error, late_events,
       (extract(epoch FROM last_event_at) * 1000000)::bigint
  FROM spanfold.traces
"""

SPANS = """
SELECT trace_id, span_id, parent_span_id, service_name, operation_name, kind, status, status_message,
       (extract(epoch FROM start_time) * 1000000)::bigint,
       (extract(epoch FROM end_time) * 1000000)::bigint,
       duration_ms, tags::text, events::text, links::text
  FROM spanfold.spans
"""

TRACE_COLUMNS = (
    "service_name", "operation_name", "status", "start_time", "end_time", "duration_ms", "tags", "span_count",
    "error_count", "error", "late_events", "last_event_at",
)  # fmt: skip


def shown(ledger: psycopg.Connection[Any]) -> Rows:
    """The rows of the public views, but for versions."""
    traces = {row[0]: dict(zip(TRACE_COLUMNS, row[1:], strict=True)) for row in ledger.execute(TRACES)}
    for row in traces.values():
        row["tags"] = _parsed(row["tags"])
    spans = Counter((*row[:11], *map(_parsed, row[11:])) for row in ledger.execute(SPANS))
    return traces, spans


def _parsed(text: str) -> Any:
    return document(json.loads(text, parse_int=Decimal, parse_float=Decimal))


def verdicts(ledger: psycopg.Connection[Any]) -> dict[int, str]:
    return dict(ledger.execute("SELECT kafka_offset, verdict FROM spanfold.verdicts").fetchall())


def checkpoints(ledger: psycopg.Connection[Any]) -> set[int]:
    rows = ledger.execute("SELECT next_offset FROM spanfold.checkpoints WHERE partition = 0")
    return {offset for (offset,) in rows}


def empty(ledger: psycopg.Connection[Any]) -> None:
    """The tables as they were before the first record."""
    with ledger.transaction():
        for table in ("spanfold_core.journal_traces", "spanfold_core.rejected", "spanfold_core.parked"):
            ledger.execute(f"DELETE FROM {table}".encode())
        for table in ("traces_g1.traces", "traces_g1.spans"):
            ledger.execute(f"DELETE FROM {table}".encode())
        ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")

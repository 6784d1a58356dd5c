"""What the rows must be, said by the dumbest fold there is, and what they are, as a reader of the views sees them."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple, assert_never

import psycopg
import pytest

from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed

Row = dict[str, Any]

MINUTE = 60_000_000
WEEK = 7 * 86_400_000_000


class Rows(NamedTuple):
    """What the views show, but for versions: traces by id; spans with how often each is there; operations by service,
    operation and minute; calls and errors between services by parent, child and minute.
    """

    traces: dict[str, Row]
    spans: Counter[Any]
    operations: dict[tuple[str, str, int], Row]
    dependencies: dict[tuple[str, str, int], tuple[int, int]]


def told(events: Iterable[TraceEvent]) -> Rows:
    """The rows that these events tell of, as the public views show them but for versions."""
    traces: dict[str, Row] = {}
    spans: list[SpanRecorded] = []
    for event in events:
        trace = traces.setdefault(
            event.aggregate_id, {"created": None, "closed": None, "spans": [], "last_event_at": event.occurred_at}
        )
        trace["last_event_at"] = max(trace["last_event_at"], event.occurred_at)
        match event:
            case SpanRecorded():
                trace["spans"].append(event)
                spans.append(event)
            case TraceCreated():
                trace["created"] = _later(trace["created"], event)
            case TraceCompleted() | TraceFailed():
                trace["closed"] = _later(trace["closed"], event)
            case unknown:
                assert_never(unknown)
    return Rows(
        {trace_id: _trace_row(trace) for trace_id, trace in traces.items()},
        Counter(map(_span_row, spans)),
        _operations(spans),
        _dependencies(spans),
    )


def _later(one: TraceEvent | None, other: TraceEvent) -> TraceEvent:
    return other if one is None or (other.occurred_at, other.event_id) > (one.occurred_at, one.event_id) else one


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


def _operations(spans: list[SpanRecorded]) -> dict[tuple[str, str, int], Row]:
    groups: dict[tuple[str, str, int], list[SpanRecorded]] = {}
    for span in spans:
        key = (span.service_name[:200], span.operation_name[:200], span.occurred_at // MINUTE * MINUTE)
        groups.setdefault(key, []).append(span)
    return {
        key: {
            "calls": len(group),
            "errors": len([span for span in group if span.status == "error"]),
            # the view divides and rounds once more
            "duration_ms_sum": pytest.approx(sum(span.end_time - span.start_time for span in group) / 1000, rel=1e-12),
            "duration_histogram": dict(Counter(_upper_ms(span.end_time - span.start_time) for span in group)),
        }
        for key, group in groups.items()
    }


def _upper_ms(duration_us: int) -> Decimal:
    """Exact below 32 µs; from there each power of two is cut into sixteen."""
    width = 1
    while duration_us >= 32 * width:
        width *= 2
    return Decimal(duration_us // width * width + width - 1) / 1000


def _dependencies(spans: list[SpanRecorded]) -> dict[tuple[str, str, int], tuple[int, int]]:
    found: dict[tuple[str, str, int], tuple[int, int]] = {}
    for parent in spans:
        for child in spans:
            if parent.aggregate_id == child.aggregate_id and _calls(parent, child):
                key = (parent.service_name[:200], child.service_name[:200], child.end_time // MINUTE * MINUTE)
                calls, errors = found.get(key, (0, 0))
                found[key] = (calls + 1, errors + (child.status == "error"))
    return found


def _calls(parent: SpanRecorded, child: SpanRecorded) -> bool:
    if parent.service_name == child.service_name or abs(parent.end_time - child.end_time) > WEEK:
        return False
    sends, takes = parent.kind in ("client", "producer"), child.kind in ("server", "consumer")
    if child.parent_span_id is None:
        # Zipkin's two halves of one span
        return child.span_id == parent.span_id and sends and takes
    return child.parent_span_id == parent.span_id and (takes or not sends)


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

OPERATIONS = """
SELECT service_name, operation_name, (extract(epoch FROM minute) * 1000000)::bigint,
       calls, errors, duration_ms_sum, duration_histogram
  FROM spanfold.operation_minutes
"""

DEPENDENCIES = """
SELECT parent, child, (extract(epoch FROM minute) * 1000000)::bigint, calls, errors FROM spanfold.service_dependencies
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
    return Rows(
        traces,
        Counter((*row[:11], *map(_parsed, row[11:])) for row in ledger.execute(SPANS)),
        {
            (service, operation, minute): {
                "calls": calls,
                "errors": errors,
                "duration_ms_sum": duration,
                "duration_histogram": {Decimal(upper): count for upper, count in histogram.items()},
            }
            for service, operation, minute, calls, errors, duration, histogram in ledger.execute(OPERATIONS)
        },
        {
            (parent, child, minute): (calls, errors)
            for parent, child, minute, calls, errors in ledger.execute(DEPENDENCIES)
        },
    )


def _parsed(text: str) -> Any:
    return document(json.loads(text, parse_int=Decimal, parse_float=Decimal))


def verdicts(ledger: psycopg.Connection[Any]) -> dict[int, str]:
    return dict(ledger.execute("SELECT kafka_offset, verdict FROM spanfold.verdicts").fetchall())


def checkpoints(ledger: psycopg.Connection[Any]) -> set[int]:
    rows = ledger.execute(
        "SELECT next_offset FROM spanfold.checkpoints WHERE topic = 'spanfold.traces' AND partition = 0"
    )
    return {offset for (offset,) in rows}


def empty(ledger: psycopg.Connection[Any]) -> None:
    """The tables as they were before the first record."""
    tables = ledger.execute(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'traces_g1'"
    ).fetchall()
    with ledger.transaction():
        for table in ("journal_traces", "rejected", "parked", "erased"):
            ledger.execute(f"DELETE FROM spanfold_core.{table}".encode())
        for (table,) in tables:
            ledger.execute(f"DELETE FROM {table}".encode())
        ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")

"""What the rows must be, said by the dumbest fold there is, and what they are, as a reader of the views sees them."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
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
    operation, kind, route and minute; calls between services by parent, child and minute.
    """

    traces: dict[str, Row]
    spans: Counter[Any]
    operations: dict[tuple[str, str, str, str, int], Row]
    dependencies: dict[tuple[str, str, int], Row]


def told(events: Iterable[TraceEvent]) -> Rows:
    """The rows that these events tell of, as the public views show them but for versions."""
    traces: dict[str, Row] = {}
    spans: list[SpanRecorded] = []
    for event in events:
        trace = traces.setdefault(
            event.aggregate_id, {"created": [], "closed": [], "spans": [], "last_event_at": event.occurred_at}
        )
        trace["last_event_at"] = max(trace["last_event_at"], event.occurred_at)
        match event:
            case SpanRecorded():
                spans.append(event)
            case TraceCreated():
                trace["created"].append(event)
            case TraceCompleted() | TraceFailed():
                trace["closed"].append(event)
            case unknown:
                assert_never(unknown)
    spans = once(spans)
    for span in spans:
        traces[span.aggregate_id]["spans"].append(span)
    return Rows(
        {trace_id: _trace_row(trace) for trace_id, trace in traces.items()},
        Counter(map(_span_row, spans)),
        _operations(spans),
        _dependencies(spans),
    )


def once(spans: list[SpanRecorded]) -> list[SpanRecorded]:
    """Each span once: of its records the one that ends last, and of those the one with the greatest event id."""
    groups: dict[tuple[Any, ...], list[SpanRecorded]] = {}
    for span in spans:
        name = (span.aggregate_id, span.span_id, span.kind, span.service_name, span.start_time)
        long = span.end_time - span.start_time > WEEK
        groups.setdefault((*name, span.event_id if long else None), []).append(span)
    return [max(group, key=lambda span: (span.end_time, span.event_id)) for group in groups.values()]


def _root_of(event: TraceCreated | TraceCompleted | TraceFailed) -> tuple[int, int, str]:
    """Facts that name no span come before all others; then the earliest root, then the least span id."""
    if event.span_id is None or event.start_time is None:
        return (0, 0, "")
    return (1, event.start_time, event.span_id)


def _half(events: list[Any], root: tuple[int, int, str] | None) -> Any:
    """The latest of the events that name the root's span."""
    own = [event for event in events if _root_of(event) == root]
    return max(own, key=lambda event: (event.occurred_at, event.event_id), default=None)


def _trace_row(trace: Row) -> Row:
    root = min(map(_root_of, [*trace["created"], *trace["closed"]]), default=None)
    created: TraceCreated | None = _half(trace["created"], root)
    closed: TraceCompleted | TraceFailed | None = _half(trace["closed"], root)
    spans: list[SpanRecorded] = trace["spans"]
    first = min(
        spans,
        key=lambda span: (
            span.start_time, span.span_id, span.service_name, span.kind, span.end_time, span.event_id,
        ),
        default=None,
    )  # fmt: skip
    named = created or (first if root is None else None)
    start = next(
        (half.start_time for half in (created, closed) if half is not None and half.start_time is not None),
        first.start_time if first else None,
    )
    end = closed.end_time if closed else None
    if root is None:
        end = max((span.end_time for span in spans), default=None)
    return {
        "service_name": named.service_name if named else None,
        "operation_name": named.operation_name if named else None,
        "status": _status(root, closed),
        "start_time": start,
        "end_time": end,
        "duration_ms": None if start is None or end is None else (end - start) / 1000,
        "tags": document({**(created.tags if created else {}), **(closed.tags if closed else {})}),
        "span_count": len(spans),
        "error_count": len([span for span in spans if span.status == "error"]),
        "error": closed.error if isinstance(closed, TraceFailed) else None,
        "has_root": root is not None,
        "late_events": 0 if end is None else len([span for span in spans if span.end_time > end]),
        "last_event_at": trace["last_event_at"],
    }


def _status(root: Any, closed: TraceCompleted | TraceFailed | None) -> str:
    if root is None:
        return "incomplete"
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
        *source_row(span),
    )


def source_row(event: Any) -> tuple[Any, ...]:
    """What views show of an event's resource and scope, as in SOURCE."""
    resource = event.resource
    environment = resource.get("deployment.environment.name")
    return (
        event.scope_name,
        event.scope_version,
        *(
            value if value is None else str(value)
            for value in (
                resource.get("service.version"),
                resource.get("deployment.environment") if environment is None else environment,
                resource.get("service.instance.id"),
            )
        ),
        document(resource),
        document(event.scope_attributes),
    )


def _operations(spans: list[SpanRecorded]) -> dict[tuple[str, str, str, str, int], Row]:
    groups: dict[tuple[str, str, str, str, int], list[SpanRecorded]] = {}
    for span in spans:
        route = span.tags.get("http.route")
        key = (
            span.service_name[:200], span.operation_name[:200], span.kind, route[:200] if isinstance(route, str) else "",
            span.occurred_at // MINUTE * MINUTE,
        )  # fmt: skip
        groups.setdefault(key, []).append(span)
    return {key: _rollup(group) for key, group in groups.items()}


def _rollup(spans: list[SpanRecorded]) -> Row:
    durations = [span.end_time - span.start_time for span in spans]
    return {
        "calls": len(spans),
        "errors": len([span for span in spans if span.status == "error"]),
        # the view divides and rounds once more
        "duration_ms_sum": pytest.approx(sum(durations) / 1000, rel=1e-12),
        "duration_histogram": dict(Counter(map(_upper_ms, durations))),
    }


def _upper_ms(duration_us: int) -> Decimal:
    """Exact below 32 µs; from there each power of two is cut into sixteen."""
    width = 1
    while duration_us >= 32 * width:
        width *= 2
    return Decimal(duration_us // width * width + width - 1) / 1000


def _dependencies(spans: list[SpanRecorded]) -> dict[tuple[str, str, int], Row]:
    groups: dict[tuple[str, str, int], list[SpanRecorded]] = {}
    for child in spans:
        for parent in _callers(child, spans):
            key = (parent.service_name[:200], child.service_name[:200], child.end_time // MINUTE * MINUTE)
            groups.setdefault(key, []).append(child)
    return {key: _rollup(group) for key, group in groups.items()}


def _callers(child: SpanRecorded, spans: list[SpanRecorded]) -> list[SpanRecorded]:
    """Of all spans with the parent's id, a week around the child at most, the first that sends, the first that takes and
    the first that does neither; those of them that called the child.
    """
    parent_id = child.span_id if child.parent_span_id is None else child.parent_span_id
    parents = [
        span
        for span in spans
        if span.aggregate_id == child.aggregate_id
        and span.span_id == parent_id
        and abs(span.end_time - child.end_time) <= WEEK
    ]
    callers = []
    for kinds in (("client", "producer"), ("server", "consumer"), ("internal",)):
        of_role = [span for span in parents if span.kind in kinds]
        if of_role:
            first = min(of_role, key=lambda span: (span.start_time, span.service_name, span.kind))
            callers += [first] if _calls(first, child) else []
    return callers


def _calls(parent: SpanRecorded, child: SpanRecorded) -> bool:
    if parent.service_name == child.service_name:
        return False
    sends, takes = parent.kind in ("client", "producer"), child.kind in ("server", "consumer")
    if child.parent_span_id is None:
        # Zipkin's two halves of one span
        return sends and takes
    return takes or not sends


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
       duration_ms, tags::text, span_count, error_count, error, has_root, late_events,
       (extract(epoch FROM last_event_at) * 1000000)::bigint
  FROM spanfold.traces
"""

SOURCE = """scope_name, scope_version, service_version, environment, instance, resource::text, scope_attributes::text"""

SPANS = f"""
SELECT trace_id, span_id, parent_span_id, service_name, operation_name, kind, status, status_message,
       (extract(epoch FROM start_time) * 1000000)::bigint,
       (extract(epoch FROM end_time) * 1000000)::bigint,
       duration_ms, tags::text, events::text, links::text, {SOURCE}
  FROM spanfold.spans
"""

OPERATIONS = """
SELECT service_name, operation_name, kind, route, (extract(epoch FROM minute) * 1000000)::bigint,
       calls, errors, duration_ms_sum, spanfold.histogram_bounds(duration_histogram)
  FROM spanfold.operation_minutes
"""

DEPENDENCIES = """
SELECT parent, child, (extract(epoch FROM minute) * 1000000)::bigint,
       calls, errors, duration_ms_sum, spanfold.histogram_bounds(duration_histogram)
  FROM spanfold.service_dependencies
"""

TRACE_COLUMNS = (
    "service_name", "operation_name", "status", "start_time", "end_time", "duration_ms", "tags", "span_count",
    "error_count", "error", "has_root", "late_events", "last_event_at",
)  # fmt: skip


def shown(ledger: psycopg.Connection[Any]) -> Rows:
    """The rows of the public views, but for versions."""
    traces = {row[0]: dict(zip(TRACE_COLUMNS, row[1:], strict=True)) for row in ledger.execute(TRACES)}
    for row in traces.values():
        row["tags"] = parsed(row["tags"])
    return Rows(
        traces,
        Counter((*row[:11], *map(parsed, row[11:14]), *source_shown(row[14:])) for row in ledger.execute(SPANS)),
        {tuple(row[:5]): _rollup_row(row[5:]) for row in ledger.execute(OPERATIONS)},
        {tuple(row[:3]): _rollup_row(row[3:]) for row in ledger.execute(DEPENDENCIES)},
    )


def _rollup_row(columns: Sequence[Any]) -> Row:
    calls, errors, duration_ms_sum, histogram = columns
    return {
        "calls": calls,
        "errors": errors,
        "duration_ms_sum": duration_ms_sum,
        "duration_histogram": {Decimal(upper): count for upper, count in histogram.items()},
    }


def source_shown(columns: Sequence[Any]) -> tuple[Any, ...]:
    """The columns of SOURCE, with their documents."""
    return (*columns[:5], *map(parsed, columns[5:]))


def parsed(text: str) -> Any:
    """A document as `document` gives it."""
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

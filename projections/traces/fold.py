"""The fold: facts to partials. Pure and commutative.

An event type sets columns of its own. Where two events set the same ones (two completions, or a completion and a failure), the
later event time wins, and on a tie the greater event id. Counts add up; minima and maxima combine. All events of a trace are in
one partition, because their key is the trace id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, assert_never, cast

from spanfold.language.topics import TraceEventType
from spanfold.postgres.copying import PG_EPOCH_US
from spanfold.projections.facts import Fact
from spanfold.projections.traces.duration_histogram import bucket_of
from spanfold.schemas.codec import Fields

US_PER_MINUTE: Final = 60_000_000

ROLLUP_NAME_CHARACTERS: Final = 200
"""The length of names in the keys of rollups, which cut off the rest: a B-tree key holds 2,704 bytes."""

CreatedColumns = tuple[int, bytes, str, str, int, bytes]
"""(occurred_at, event_id, service_name, operation_name, start_time, tags)."""

ClosedColumns = tuple[int, bytes, str, str | None, int, bytes]
"""(occurred_at, event_id, status, error, end_time, tags)."""

OperationKey = tuple[str, str, int, int]
"""(service_name, operation_name, minute in µs since 1970, duration bucket)."""


@dataclass(slots=True)
class TracePartial:
    """What some events add to one trace; a commutative monoid under `combine`."""

    created: CreatedColumns | None = None
    closed: ClosedColumns | None = None
    span_count: int = 0
    error_count: int = 0
    first_span_start: int | None = None
    last_span_end: int | None = None
    version: int = 0
    last_event_at: int = -(1 << 63)


@dataclass(slots=True)
class TracesPartial:
    """What some events add to the tables: traces by id, spans as rows of SPANS_TABLE, and [calls, errors, duration in µs] by
    operation, minute and duration bucket.
    """

    traces: dict[str, TracePartial] = field(default_factory=dict)
    spans: list[tuple[Any, ...]] = field(default_factory=list)
    operations: dict[OperationKey, list[int]] = field(default_factory=dict)


Columns = TypeVar("Columns", CreatedColumns, ClosedColumns)


def fold(facts: Sequence[Fact]) -> TracesPartial:
    """The partial of some facts; their order does not matter."""
    partial = TracesPartial()
    traces = partial.traces
    for offset, event_type, fields in facts:
        trace_id = fields["aggregate_id"]
        trace = traces.get(trace_id)
        if trace is None:
            trace = traces[trace_id] = TracePartial()
        if trace.version <= offset:
            trace.version = offset + 1
        if trace.last_event_at < fields["occurred_at"]:
            trace.last_event_at = fields["occurred_at"]
        match cast(TraceEventType, event_type):
            case "TraceCreated":
                trace.created = _later(trace.created, _created(fields))
            case "TraceCompleted":
                trace.closed = _later(trace.closed, _closed(fields, fields["status"], None))
            case "TraceFailed":
                trace.closed = _later(trace.closed, _closed(fields, "failed", fields["error"]))
            case "SpanRecorded":
                _count_span(trace, fields)
                count_call(partial.operations, fields)
                partial.spans.append(_span_row(offset, fields))
            case unknown:
                assert_never(unknown)
    return partial


def combine(one: TracesPartial, other: TracesPartial) -> TracesPartial:
    """The partial of the facts of both. Commutative and associative, except for the order of spans."""
    traces = dict(one.traces)
    for trace_id, trace in other.traces.items():
        traces[trace_id] = _combine(traces[trace_id], trace) if trace_id in traces else trace
    operations = {key: list(counts) for key, counts in one.operations.items()}
    for key, counts in other.operations.items():
        operations[key] = [a + b for a, b in zip(operations.get(key, (0, 0, 0)), counts, strict=True)]
    return TracesPartial(traces, one.spans + other.spans, operations)


def _later(one: Columns | None, other: Columns) -> Columns:
    return other if one is None or other[:2] > one[:2] else one


def _created(fields: Fields) -> CreatedColumns:
    return (
        fields["occurred_at"], fields["event_id"], fields["service_name"], fields["operation_name"],
        fields["start_time"], fields["tags"],
    )  # fmt: skip


def _closed(fields: Fields, status: str, error: str | None) -> ClosedColumns:
    return (fields["occurred_at"], fields["event_id"], status, error, fields["end_time"], fields["tags"])


def _count_span(trace: TracePartial, fields: Fields) -> None:
    trace.span_count += 1
    if fields["status"] == "error":
        trace.error_count += 1
    start, end = fields["start_time"], fields["end_time"]
    if trace.first_span_start is None or start < trace.first_span_start:
        trace.first_span_start = start
    if trace.last_span_end is None or end > trace.last_span_end:
        trace.last_span_end = end


def count_call(operations: dict[OperationKey, list[int]], fields: Fields) -> None:
    """Count the span with these fields among the calls of its operation and minute."""
    duration, minute = fields["end_time"] - fields["start_time"], fields["occurred_at"] // US_PER_MINUTE * US_PER_MINUTE
    service, operation = fields["service_name"], fields["operation_name"]
    key = (service[:ROLLUP_NAME_CHARACTERS], operation[:ROLLUP_NAME_CHARACTERS], minute, bucket_of(duration))
    counts = operations.get(key)
    if counts is None:
        counts = operations[key] = [0, 0, 0]
    counts[0] += 1
    counts[1] += fields["status"] == "error"
    counts[2] += duration


def _span_row(offset: int, fields: Fields) -> tuple[Any, ...]:
    occurred_at = fields["occurred_at"]
    return (
        fields["aggregate_id"], fields["span_id"], fields["parent_span_id"], fields["service_name"],
        fields["operation_name"], fields["kind"], fields["status"], fields["status_message"],
        fields["start_time"] - PG_EPOCH_US, fields["end_time"] - PG_EPOCH_US,
        fields["tags"], fields["events"], fields["links"], offset + 1,
        None if occurred_at == fields["end_time"] else occurred_at - PG_EPOCH_US,
    )  # fmt: skip


def _combine(one: TracePartial, other: TracePartial) -> TracePartial:
    return TracePartial(
        created=one.created if other.created is None else _later(one.created, other.created),
        closed=one.closed if other.closed is None else _later(one.closed, other.closed),
        span_count=one.span_count + other.span_count,
        error_count=one.error_count + other.error_count,
        first_span_start=min(
            (t for t in (one.first_span_start, other.first_span_start) if t is not None), default=None
        ),
        last_span_end=max((t for t in (one.last_span_end, other.last_span_end) if t is not None), default=None),
        version=max(one.version, other.version),
        last_event_at=max(one.last_event_at, other.last_event_at),
    )

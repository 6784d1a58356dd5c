"""Writes a partial into a generation's tables: set-based, in the caller's transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.traces import dependencies
from spanfold.projections.traces.fold import OperationKey, TracePartial, TracesPartial
from spanfold.projections.traces.tables import DEPENDENCIES_TABLE, OPERATIONS_TABLE, SPANS_TABLE, TRACES_TABLE


def merge(cursor: Cursor[Any], schema: str, partial: TracesPartial, partition: int) -> None:
    """Write the partial. Traces are merged first, which tells which of them already had spans: so calls between services are
    counted whether the parent or the child arrived first.
    """
    if partial.traces:
        grown = _merge_traces(cursor, schema, partial.traces)
    if partial.spans:
        calls = dependencies.of_batch(cursor, schema, partial.spans, grown)
        _SPANS.copy(cursor, schema, partial.spans)
        _add(cursor, schema, OPERATIONS, MERGE_OPERATIONS, operation_rows(partial.operations, partition))
        _add(cursor, schema, DEPENDENCIES, MERGE_DEPENDENCIES, dependencies.rows(calls, partition))


def _merge_traces(cursor: Cursor[Any], schema: str, traces: Mapping[str, TracePartial]) -> list[str]:
    """Upsert; returns the ids of traces with new spans that already had some."""
    incoming = _TRACES.copy_incoming(cursor, schema, _trace_rows(traces))
    table = sql.Identifier(schema, TRACES_TABLE.name)
    cursor.execute(sql.SQL(MERGE_TRACES).format(table=table, incoming=incoming))
    return [trace_id for trace_id, count in cursor if 0 < traces[trace_id].span_count < count]


def _add(cursor: Cursor[Any], schema: str, target: CopyTarget, statement: str, rows: Iterator[Sequence[Any]]) -> None:
    incoming = target.copy_incoming(cursor, schema, rows)
    cursor.execute(sql.SQL(statement).format(table=sql.Identifier(schema, target.name), incoming=incoming))


def operation_rows(operations: Mapping[OperationKey, list[int]], partition: int) -> Iterator[tuple[Any, ...]]:
    """Rows of OPERATIONS_TABLE."""
    for (service, operation, minute, bucket), counts in operations.items():
        yield (partition, service, operation, minute - PG_EPOCH_US, bucket, *counts)


_NO_CREATED: Final = (None,) * 6
_NO_CLOSED: Final = (None,) * 6


def _trace_rows(traces: Mapping[str, TracePartial]) -> Iterator[tuple[Any, ...]]:
    """Rows of TRACES_TABLE, times shifted to Postgres' epoch."""
    shift = PG_EPOCH_US
    for trace_id, trace in traces.items():
        created: tuple[Any, ...] = _NO_CREATED
        if trace.created is not None:
            at, event_id, service, operation, start, tags = trace.created
            created = (at - shift, event_id, service, operation, start - shift, tags)
        closed: tuple[Any, ...] = _NO_CLOSED
        if trace.closed is not None:
            at, event_id, status, error, end, tags = trace.closed
            closed = (at - shift, event_id, status, error, end - shift, tags)
        first, last = trace.first_span_start, trace.last_span_end
        yield (
            trace_id, *created, *closed, trace.span_count, trace.error_count,
            None if first is None else first - shift, None if last is None else last - shift,
            trace.version, trace.last_event_at - shift,
        )  # fmt: skip


def _later_columns(owner: str, columns: Sequence[str]) -> str:
    """SET clauses for the columns of one event type: the later event time wins, and on a tie the greater id."""
    wins = f"t.{owner}_at IS NULL OR (excluded.{owner}_at, excluded.{owner}_id) > (t.{owner}_at, t.{owner}_id)"
    clauses = [f"{name} = CASE WHEN {wins} THEN excluded.{name} ELSE t.{name} END" for name in columns]
    return ",\n    ".join(clauses)


MERGE_TRACES: Final = f"""
INSERT INTO {{table}} AS t
SELECT * FROM {{incoming}}
ON CONFLICT (trace_id) DO UPDATE SET
    {_later_columns("created", ("created_at", "created_id", "service_name", "operation_name", "start_time", "created_tags"))},
    {_later_columns("closed", ("closed_at", "closed_id", "status", "error", "end_time", "closed_tags"))},
    span_count = t.span_count + excluded.span_count,
    error_count = t.error_count + excluded.error_count,
    first_span_start = least(t.first_span_start, excluded.first_span_start),
    last_span_end = greatest(t.last_span_end, excluded.last_span_end),
    version = greatest(t.version, excluded.version),
    last_event_at = greatest(t.last_event_at, excluded.last_event_at)
RETURNING trace_id, span_count
"""

MERGE_OPERATIONS: Final = """
INSERT INTO {table} AS t
SELECT * FROM {incoming}
ON CONFLICT (partition, service_name, operation_name, minute, bucket) DO UPDATE SET
    calls = t.calls + excluded.calls,
    errors = t.errors + excluded.errors,
    duration_us = t.duration_us + excluded.duration_us
"""

MERGE_DEPENDENCIES: Final = """
INSERT INTO {table} AS t
SELECT * FROM {incoming}
ON CONFLICT (partition, parent, child, minute) DO UPDATE SET
    calls = t.calls + excluded.calls,
    errors = t.errors + excluded.errors
"""

_TRACES: Final = CopyTarget(TRACES_TABLE)
_SPANS: Final = CopyTarget(SPANS_TABLE)
OPERATIONS: Final = CopyTarget(OPERATIONS_TABLE)
DEPENDENCIES: Final = CopyTarget(DEPENDENCIES_TABLE)

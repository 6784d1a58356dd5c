"""Deletes traces from a generation's tables, and subtracts what their spans had added to the rollups."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.traces import dependencies
from spanfold.projections.traces.dependencies import Span
from spanfold.projections.traces.fold import OperationKey, count_call
from spanfold.projections.traces.merge import DEPENDENCIES, OPERATIONS, operation_rows
from spanfold.projections.traces.tables import SPANS_TABLE, TRACES_TABLE
from spanfold.schemas.codec import Fields


def erase(cursor: Cursor[Any], schema: str, trace_ids: Sequence[str], partition: int) -> None:
    """Leave the tables as if these traces had never existed. A trace that is not there changes nothing."""
    operations: dict[OperationKey, list[int]] = {}
    spans: list[Span] = []
    for span, counted in _deleted(cursor, schema, trace_ids):
        count_call(operations, counted)
        spans.append(span)
    if spans:
        calls = dependencies.rows(dependencies.among(spans), partition)
        _subtract(cursor, schema, OPERATIONS, SUBTRACT_OPERATIONS, operation_rows(operations, partition))
        _subtract(cursor, schema, DEPENDENCIES, SUBTRACT_DEPENDENCIES, calls)
    cursor.execute(sql.SQL(DELETE_TRACES).format(table=sql.Identifier(schema, TRACES_TABLE.name)), (list(trace_ids),))


def _deleted(cursor: Cursor[Any], schema: str, trace_ids: Sequence[str]) -> Iterator[tuple[Span, Fields]]:
    """The deleted spans, with the fields by which they were counted."""
    cursor.execute(sql.SQL(DELETE_SPANS).format(table=sql.Identifier(schema, SPANS_TABLE.name)), (list(trace_ids),))
    for operation_name, start_us, occurred_us, *columns in cursor.fetchall():
        span = Span(*columns)
        yield (
            span,
            {
                "service_name": span.service_name,
                "operation_name": operation_name,
                "status": span.status,
                "start_time": start_us + PG_EPOCH_US,
                "end_time": span.end_us + PG_EPOCH_US,
                "occurred_at": occurred_us + PG_EPOCH_US,
            },
        )


def _subtract(
    cursor: Cursor[Any], schema: str, target: CopyTarget, statements: Iterable[str], rows: Iterator[Sequence[Any]]
) -> None:
    incoming = target.copy_incoming(cursor, schema, rows, anew=True)
    for statement in statements:
        cursor.execute(sql.SQL(statement).format(table=sql.Identifier(schema, target.name), incoming=incoming))


def _microseconds(column: str) -> str:
    return f"(extract(epoch FROM {column} - timestamptz '2000-01-01Z') * 1000000)::bigint"


DELETE_SPANS: Final = f"""
DELETE FROM {{table}}
 WHERE trace_id = ANY (%s)
RETURNING operation_name, {_microseconds("start_time")}, {_microseconds("coalesce(occurred_at, end_time)")},
          trace_id, span_id, parent_span_id, service_name, kind, status, {_microseconds("end_time")}
"""

DELETE_TRACES: Final = "DELETE FROM {table} WHERE trace_id = ANY (%s)"

_SAME_OPERATION: Final = (
    "(t.partition, t.service_name, t.operation_name, t.minute, t.bucket)"
    " = (i.partition, i.service_name, i.operation_name, i.minute, i.bucket)"
)

_SAME_CALLS: Final = "(t.partition, t.parent, t.child, t.minute) = (i.partition, i.parent, i.child, i.minute)"

SUBTRACT_OPERATIONS: Final = (
    f"DELETE FROM {{table}} t USING {{incoming}} i WHERE {_SAME_OPERATION} AND t.calls <= i.calls",
    f"""
    UPDATE {{table}} t
       SET calls = t.calls - i.calls, errors = t.errors - i.errors, duration_us = t.duration_us - i.duration_us
      FROM {{incoming}} i
     WHERE {_SAME_OPERATION}
    """,
)
"""Rows that only these traces had added to are deleted; the others are reduced."""

SUBTRACT_DEPENDENCIES: Final = (
    f"DELETE FROM {{table}} t USING {{incoming}} i WHERE {_SAME_CALLS} AND t.calls <= i.calls",
    f"""
    UPDATE {{table}} t
       SET calls = t.calls - i.calls, errors = t.errors - i.errors
      FROM {{incoming}} i
     WHERE {_SAME_CALLS}
    """,
)

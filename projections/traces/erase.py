"""Deletes traces from a generation's tables, and subtracts what their spans had added to the rollups."""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.projections import resources
from spanfold.projections.traces import rollups
from spanfold.projections.traces.dependencies import COUNTED_COLUMNS, calls_among, spans_of
from spanfold.projections.traces.spans import operations_of
from spanfold.projections.traces.tables import SPANS_TABLE, TRACES_TABLE, metadata


def erase(cursor: Cursor[Any], schema: str, trace_ids: Sequence[str], partition: int) -> None:
    """Leave the tables as if these traces had never existed. A trace that is not there changes nothing."""
    cursor.execute(sql.SQL(DELETE_SPANS).format(table=sql.Identifier(schema, SPANS_TABLE.name)), (list(trace_ids),))
    spans = spans_of(cursor.fetchall())
    rollups.subtract_operations(cursor, schema, partition, operations_of(spans))
    rollups.subtract_calls(cursor, schema, partition, calls_among(spans))
    resources.sweep(cursor, schema, partition, metadata)
    cursor.execute(sql.SQL(DELETE_TRACES).format(table=sql.Identifier(schema, TRACES_TABLE.name)), (list(trace_ids),))


DELETE_SPANS: Final = f"DELETE FROM {{table}} WHERE trace_id = ANY (%s) RETURNING {COUNTED_COLUMNS}"

DELETE_TRACES: Final = "DELETE FROM {table} WHERE trace_id = ANY (%s)"

"""Writes what spans add to the rollups, and subtracts what they no longer add.

Subtracting updates or deletes and never inserts: what retention has let go of stays gone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.postgres.copying import CopyTarget, bucket_counts
from spanfold.projections.traces.dependencies import Calls, by_minute
from spanfold.projections.traces.spans import Operations, Rollup
from spanfold.projections.traces.tables import DEPENDENCIES_TABLE, OPERATIONS_TABLE


def add_operations(cursor: Cursor[Any], schema: str, partition: int, operations: Operations) -> None:
    """Add them to the rows of the partition."""
    _write(cursor, schema, _OPERATIONS, (ADD_OPERATIONS,), partition, operations)


def subtract_operations(cursor: Cursor[Any], schema: str, partition: int, operations: Operations) -> None:
    """The inverse."""
    _write(cursor, schema, _OPERATIONS, SUBTRACT_OPERATIONS, partition, operations)


def add_calls(cursor: Cursor[Any], schema: str, partition: int, calls: Calls) -> None:
    """Add them to the rows of the partition."""
    _write(cursor, schema, _DEPENDENCIES, (ADD_DEPENDENCIES,), partition, by_minute(calls))


def subtract_calls(cursor: Cursor[Any], schema: str, partition: int, calls: Calls) -> None:
    """The inverse."""
    _write(cursor, schema, _DEPENDENCIES, SUBTRACT_DEPENDENCIES, partition, by_minute(calls))


def _write(
    cursor: Cursor[Any],
    schema: str,
    target: CopyTarget,
    statements: tuple[str, ...],
    partition: int,
    rollups: Mapping[Any, Rollup],
) -> None:
    if not rollups:
        return
    incoming = target.copy_incoming(cursor, schema, _rows(partition, rollups), anew=True)
    for statement in statements:
        cursor.execute(sql.SQL(statement).format(table=sql.Identifier(schema, target.name), incoming=incoming))


def _rows(partition: int, rollups: Mapping[Any, Rollup]) -> Iterator[tuple[Any, ...]]:
    for key, rollup in rollups.items():
        buckets = sorted(rollup.buckets)
        counts = [rollup.buckets[bucket] for bucket in buckets]
        yield (partition, *key, rollup.calls, rollup.errors, rollup.duration_us, bucket_counts(buckets, counts))


def _add(key: str) -> str:
    return f"""
INSERT INTO {{table}} AS t
SELECT * FROM {{incoming}}
ON CONFLICT ({key}) DO UPDATE SET
    calls = t.calls + excluded.calls,
    errors = t.errors + excluded.errors,
    duration_us = t.duration_us + excluded.duration_us,
    durations = spanfold_core.add_counts(t.durations, excluded.durations, 1)
"""


def _subtract(key: str) -> tuple[str, str]:
    same = f"({', '.join(f't.{name}' for name in key.split(', '))}) = ({', '.join(f'i.{name}' for name in key.split(', '))})"
    return (
        f"DELETE FROM {{table}} t USING {{incoming}} i WHERE {same} AND t.calls <= i.calls",
        f"""
UPDATE {{table}} t
   SET calls = t.calls - i.calls,
       errors = t.errors - i.errors,
       duration_us = t.duration_us - i.duration_us,
       durations = spanfold_core.add_counts(t.durations, i.durations, -1)
  FROM {{incoming}} i
 WHERE {same}
""",
    )


_OPERATION_KEY: Final = "partition, service_name, operation_name, kind, route, minute"
_DEPENDENCY_KEY: Final = "partition, parent, child, minute"

ADD_OPERATIONS: Final = _add(_OPERATION_KEY)
SUBTRACT_OPERATIONS: Final = _subtract(_OPERATION_KEY)
ADD_DEPENDENCIES: Final = _add(_DEPENDENCY_KEY)
SUBTRACT_DEPENDENCIES: Final = _subtract(_DEPENDENCY_KEY)

_OPERATIONS: Final = CopyTarget(OPERATIONS_TABLE)
_DEPENDENCIES: Final = CopyTarget(DEPENDENCIES_TABLE)

"""Slow calls by operation and hour: how many took a second or longer, and which trace had the slowest."""

from collections.abc import Sequence
from typing import Any

from psycopg import Cursor, sql
from sqlalchemy import TIMESTAMP, BigInteger, Column, MetaData, SmallInteger, Table, Text

from spanfold.language.topics import TRACES
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View

SLOW_US = 1_000_000
HOUR_US = 3_600_000_000

TABLE = Table(
    "slow_operations",
    MetaData(),
    Column("partition", SmallInteger, primary_key=True),
    Column("service_name", Text(collation="C"), primary_key=True),
    Column("operation_name", Text(collation="C"), primary_key=True),
    Column("hour", TIMESTAMP(timezone=True), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("slowest_us", BigInteger, nullable=False),
    Column("slowest_trace_id", Text(collation="C"), nullable=False),
)

VIEW = View(
    name="slow_operations",
    comment="Calls that took a second or longer, by operation and hour.",
    select="""
        SELECT hour, service_name, operation_name,
               sum(calls)::bigint AS calls,
               (max(slowest_us) / 1000.0)::double precision AS slowest_ms,
               (array_agg(slowest_trace_id ORDER BY slowest_us DESC, slowest_trace_id DESC))[1] AS slowest_trace_id
          FROM {schema}.slow_operations
         GROUP BY hour, service_name, operation_name""",
    comments={
        "hour": "The hour in which they ended.",
        "service_name": "OpenTelemetry service.name, cut to 200 characters.",
        "operation_name": "Name of the spans, cut to 200 characters.",
        "calls": "How many were slow; a span that is recorded again counts again.",
        "slowest_ms": "Duration of the slowest in milliseconds.",
        "slowest_trace_id": "The trace that had it; see spanfold.traces.",
    },
)

Slow = tuple[int, tuple[int, str]]
"""How many calls, and the slowest: its duration in µs and its trace."""

Partial = dict[tuple[str, str, int], Slow]
"""By service, operation and hour (µs since 1970 UTC)."""


class SlowOperations:
    """See spanfold.projections.projection.Projection."""

    name = "slow_operations"
    fold_version = 1
    topics = (TRACES,)
    metadata = TABLE.metadata
    views = (VIEW,)

    def fold(self, facts: Sequence[Fact]) -> Partial:
        partial: Partial = {}
        for _offset, event_type, fields in facts:
            if event_type == "SpanRecorded" and (took := fields["end_time"] - fields["start_time"]) >= SLOW_US:
                hour = fields["end_time"] // HOUR_US * HOUR_US
                key = (fields["service_name"][:200], fields["operation_name"][:200], hour)
                _add(partial, key, (1, (took, fields["aggregate_id"])))
        return partial

    def combine(self, one: Partial, other: Partial) -> Partial:
        both = dict(one)
        for key, slow in other.items():
            _add(both, key, slow)
        return both

    def merge(self, cursor: Cursor[Any], schema: str, partial: Partial, partition: int) -> None:
        rows = ((partition, s, o, hour - PG_EPOCH_US, calls, *most) for (s, o, hour), (calls, most) in partial.items())
        incoming = CopyTarget(TABLE).copy_incoming(cursor, schema, rows)
        cursor.execute(sql.SQL(MERGE).format(table=sql.Identifier(schema, TABLE.name), incoming=incoming))


def _add(partial: Partial, key: tuple[str, str, int], more: Slow) -> None:
    calls, slowest = partial.get(key, (0, (0, "")))
    partial[key] = (calls + more[0], max(slowest, more[1]))


MERGE = """
INSERT INTO {table} AS t
SELECT * FROM {incoming}
ON CONFLICT (partition, service_name, operation_name, hour) DO UPDATE SET
    calls = t.calls + excluded.calls,
    (slowest_us, slowest_trace_id) = (
        SELECT us, trace_id
          FROM (VALUES (t.slowest_us, t.slowest_trace_id),
                       (excluded.slowest_us, excluded.slowest_trace_id)) AS slowest (us, trace_id)
         ORDER BY us DESC, trace_id DESC
         LIMIT 1)
"""

PROJECTION = SlowOperations()

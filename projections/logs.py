"""The projection `logs`: one row per LogRecorded.

The journal has already removed duplicates, so rows are copied straight into the table.
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never, cast

from psycopg import Cursor, sql
from sqlalchemy import TIMESTAMP, BigInteger, Column, Index, MetaData, SmallInteger, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from spanfold.language.severities import SEVERITIES
from spanfold.language.topics import LOGS, LogEventType
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections import resources
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View
from spanfold.projections.resources import Source
from spanfold.projections.retention.rules import Retained
from spanfold.schemas.codec import Fields

LogsPartial = list[tuple[Source, tuple[Any, ...]]]
"""Rows of LOGS_TABLE with their source, in any order."""

ERROR: Final = SEVERITIES["ERROR"]
"""The least severity of those that are errors."""

metadata = MetaData()

RESOURCES_TABLE: Final = resources.resources_table(metadata)

LOGS_TABLE: Final = Table(
    "logs",
    metadata,
    Column("event_id", Uuid, nullable=False),
    Column("service_name", Text, nullable=False),
    Column("severity_number", SmallInteger, nullable=False),
    Column("severity_text", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    Column("event_name", Text, nullable=False),
    Column("observed_time", TIMESTAMP(timezone=True)),
    Column("trace_id", Text(collation="C")),
    Column("span_id", Text),
    Column("occurred_at", TIMESTAMP(timezone=True), nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    # the record's key, if it is not what it should be: the trace id, or without one the service's name
    Column("aggregate_id", Text(collation="C")),
    *resources.resource_id("logs"),
    # ids may have any length, and a hash index stores 4 bytes of them
    Index("logs_trace_id", "trace_id", postgresql_using="hash"),
    Index("logs_trace_hex", text("spanfold.trace_hex(trace_id)"), postgresql_using="hash"),
    Index("logs_aggregate_id", "aggregate_id", postgresql_using="hash"),
    # projections/commit/checks.py limits the name to what fits into a B-tree key
    Index("logs_service_name", "service_name", "occurred_at"),
    Index("logs_errors", "service_name", "occurred_at", postgresql_where=text(f"severity_number >= {ERROR}")),
    info={"key": ("event_id",), "retained": Retained(("occurred_at",))},
)

LOGS_VIEW: Final = View(
    name="logs",
    comment="One row per log record, from LogRecorded.",
    select=f"""
        SELECT l.event_id, l.service_name, l.severity_number, l.severity_text, l.body, l.event_name, l.trace_id,
               spanfold.trace_hex(l.trace_id) AS trace_hex, l.span_id, l.occurred_at, l.observed_time, l.tags, l.version,
               {resources.SHOWN}
          FROM {{schema}}.logs l
          LEFT JOIN {{schema}}.resources r ON r.resource_id = l.resource_id""",
    comments={
        "event_id": "UUID version 8: the event's time in ms, then a hash of what identifies the event.",
        "service_name": "OpenTelemetry service.name.",
        "severity_number": "OpenTelemetry SeverityNumber: 1 to 24 (9 is INFO, 17 is ERROR); 0 if it is not known.",
        "severity_text": "The severity as its source calls it; empty if it is not known.",
        "body": "The log record's body.",
        "event_name": "OpenTelemetry EventName; empty if the record is no event.",
        "trace_id": "The trace in which it was logged, if any; see spanfold.traces.",
        "trace_hex": "trace_id as 32 hex digits: itself, or its MD5 if it is another text.",
        "span_id": "The span in which it was logged, if any; see spanfold.spans.",
        "occurred_at": "When it was logged, by the service's clock.",
        "observed_time": "When it was collected; null if that is not known.",
        "tags": "The log record's attributes.",
        "version": "Version of its event in spanfold.journal (offset + 1).",
        **resources.SHOWN_COMMENTS,
    },
)

ERRORS_VIEW: Final = View(
    name="error_logs",
    comment="The log records of severity ERROR and above.",
    select=f"""
        SELECT l.event_id, l.service_name,
               CASE WHEN l.severity_text <> '' THEN l.severity_text
                    WHEN l.severity_number > 20 THEN 'FATAL'
                    ELSE 'ERROR'
               END AS severity,
               coalesce(l.body #>> '{{{{}}}}', l.tags ->> 'exception.message', '') AS message,
               coalesce(r.scope_name, '') AS logger,
               l.tags ->> 'exception.type' AS exception_type,
               l.tags ->> 'exception.message' AS exception_message,
               l.tags ->> 'exception.stacktrace' AS stacktrace,
               l.trace_id, l.span_id, l.occurred_at, l.tags, l.version
          FROM {{schema}}.logs l
          LEFT JOIN {{schema}}.resources r ON r.resource_id = l.resource_id
         WHERE l.severity_number >= {ERROR}""",
    comments={
        "event_id": "UUID version 8: the event's time in ms, then a hash of what identifies the event.",
        "service_name": "OpenTelemetry service.name.",
        "severity": "The severity as its source calls it, else ERROR or FATAL.",
        "message": "The log record's body as text; without one the exception's message.",
        "logger": "Name of the logger, which is the instrumentation scope; empty if it has none.",
        "exception_type": "Class of the exception; null if there was none.",
        "exception_message": "Message of the exception.",
        "stacktrace": "Stack trace of the exception, in the format of its language.",
        "trace_id": "The trace in which it happened, if any; see spanfold.traces.",
        "span_id": "The span in which it happened, if any; see spanfold.spans.",
        "occurred_at": "When it was logged, by the service's clock.",
        "tags": "The log record's attributes.",
        "version": "Version of its event in spanfold.journal (offset + 1).",
    },
)


class LogsProjection:
    """See spanfold.projections.projection.Projection."""

    name = "logs"
    fold_version = 1
    topics = (LOGS,)
    metadata = metadata
    views = (LOGS_VIEW, ERRORS_VIEW)

    def fold(self, facts: Sequence[Fact]) -> LogsPartial:
        rows: LogsPartial = []
        for offset, event_type, fields in facts:
            match cast(LogEventType, event_type):
                case "LogRecorded":
                    rows.append((resources.source_of(fields), _row(offset, fields)))
                case unknown:
                    assert_never(unknown)
        return rows

    def combine(self, one: LogsPartial, other: LogsPartial) -> LogsPartial:
        return one + other

    def merge(self, cursor: Cursor[Any], schema: str, partial: LogsPartial, partition: int) -> None:
        if partial:
            ids = resources.keep(cursor, schema, partition, {source for source, _ in partial})
            _LOGS.copy(cursor, schema, ((*row, ids[source]) for source, row in partial))

    def erase(self, cursor: Cursor[Any], schema: str, aggregate_ids: Sequence[str], partition: int) -> None:
        table = sql.Identifier(schema, LOGS_TABLE.name)
        cursor.execute(sql.SQL(DELETE_LOGS).format(table=table), {"ids": list(aggregate_ids)})
        resources.sweep(cursor, schema, partition, metadata)


def _row(offset: int, fields: Fields) -> tuple[Any, ...]:
    """The row of LOGS_TABLE, but for the resource."""
    key, trace_id, observed = fields["aggregate_id"], fields["trace_id"], fields["observed_time"]
    expected_key = fields["service_name"] if trace_id is None else trace_id
    return (
        fields["event_id"], fields["service_name"], fields["severity_number"], fields["severity_text"], fields["body"],
        fields["event_name"], None if observed is None else observed - PG_EPOCH_US, trace_id, fields["span_id"],
        fields["occurred_at"] - PG_EPOCH_US, fields["tags"], offset + 1, None if key == expected_key else key,
    )  # fmt: skip


DELETE_LOGS: Final = """
DELETE FROM {table}
 WHERE aggregate_id = ANY (%(ids)s)
    OR (aggregate_id IS NULL AND trace_id = ANY (%(ids)s))
    OR (aggregate_id IS NULL AND trace_id IS NULL AND service_name = ANY (%(ids)s))
"""

_LOGS: Final = CopyTarget(LOGS_TABLE)

PROJECTION: Final = LogsProjection()

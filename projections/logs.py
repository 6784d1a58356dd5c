"""The projection `logs`: one row per ErrorLogged.

The journal has already removed duplicates, so rows are copied straight into the table.
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never, cast

from psycopg import Cursor, sql
from sqlalchemy import TIMESTAMP, BigInteger, Column, Index, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from spanfold.language.topics import LOGS, LogEventType
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View
from spanfold.projections.retention.rules import Retained
from spanfold.schemas.codec import Fields

LogsPartial = list[tuple[Any, ...]]
"""Rows of ERROR_LOGS_TABLE, in any order."""

metadata = MetaData()

ERROR_LOGS_TABLE: Final = Table(
    "error_logs",
    metadata,
    Column("event_id", Uuid, nullable=False),
    Column("service_name", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("logger", Text, nullable=False),
    Column("exception_type", Text),
    Column("exception_message", Text),
    Column("stacktrace", Text),
    Column("trace_id", Text(collation="C")),
    Column("span_id", Text),
    Column("occurred_at", TIMESTAMP(timezone=True), nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    # the record's key, if it is not what it should be: the trace id, or without one the service's name
    Column("aggregate_id", Text(collation="C")),
    # ids may have any length, and a hash index stores 4 bytes of them
    Index("error_logs_trace_id", "trace_id", postgresql_using="hash"),
    Index("error_logs_aggregate_id", "aggregate_id", postgresql_using="hash"),
    # projections/commit/checks.py limits the name to what fits into a B-tree key
    Index("error_logs_service_name", "service_name", "occurred_at"),
    info={"key": ("event_id",), "retained": Retained(("occurred_at",))},
)

VIEW: Final = View(
    name="error_logs",
    comment="One row per logged error, from ErrorLogged.",
    select="""
        SELECT event_id, service_name, severity, message, logger, exception_type, exception_message, stacktrace,
               trace_id, span_id, occurred_at, tags, version
          FROM {schema}.error_logs""",
    comments={
        "event_id": "UUID version 8: the event's time in ms, then a hash of what identifies the event.",
        "service_name": "OpenTelemetry service.name.",
        "severity": "OpenTelemetry severity text: ERROR, FATAL, or a lower one.",
        "message": "The log record's body.",
        "logger": "Name of the logger; empty if it has none.",
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
    views = (VIEW,)

    def fold(self, facts: Sequence[Fact]) -> LogsPartial:
        rows: LogsPartial = []
        for offset, event_type, fields in facts:
            match cast(LogEventType, event_type):
                case "ErrorLogged":
                    rows.append(_row(offset, fields))
                case unknown:
                    assert_never(unknown)
        return rows

    def combine(self, one: LogsPartial, other: LogsPartial) -> LogsPartial:
        return one + other

    def merge(self, cursor: Cursor[Any], schema: str, partial: LogsPartial, partition: int) -> None:
        if partial:
            _ERROR_LOGS.copy(cursor, schema, partial)

    def erase(self, cursor: Cursor[Any], schema: str, aggregate_ids: Sequence[str], partition: int) -> None:
        table = sql.Identifier(schema, ERROR_LOGS_TABLE.name)
        cursor.execute(sql.SQL(DELETE_LOGS).format(table=table), {"ids": list(aggregate_ids)})


def _row(offset: int, fields: Fields) -> tuple[Any, ...]:
    key, trace_id = fields["aggregate_id"], fields["trace_id"]
    expected_key = fields["service_name"] if trace_id is None else trace_id
    return (
        fields["event_id"], fields["service_name"], fields["severity"], fields["message"], fields["logger"],
        fields["exception_type"], fields["exception_message"], fields["stacktrace"], trace_id,
        fields["span_id"], fields["occurred_at"] - PG_EPOCH_US, fields["tags"], offset + 1,
        None if key == expected_key else key,
    )  # fmt: skip


DELETE_LOGS: Final = """
DELETE FROM {table}
 WHERE aggregate_id = ANY (%(ids)s)
    OR (aggregate_id IS NULL AND trace_id = ANY (%(ids)s))
    OR (aggregate_id IS NULL AND trace_id IS NULL AND service_name = ANY (%(ids)s))
"""

_ERROR_LOGS: Final = CopyTarget(ERROR_LOGS_TABLE)

PROJECTION: Final = LogsProjection()

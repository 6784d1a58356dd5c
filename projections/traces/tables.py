"""The tables of a generation."""

from typing import Final

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import JSONB

from spanfold.postgres.copying import BucketCounts
from spanfold.projections import resources
from spanfold.projections.projection import NEEDED_BY_FOLD
from spanfold.projections.retention.rules import Retained

metadata = MetaData()

RESOURCES_TABLE: Final = resources.resources_table(metadata)

MAX_CALL_DAYS: Final = 7
"""Two spans are a call only if their ends are at most this far apart."""


def root_of(table: str, half: str) -> str:
    """The key of the root that a half names; a half that names no span comes before all others."""
    return f"(coalesce({table}{half}_root_start, '-infinity'), coalesce({table}{half}_root_id, ''))"


_CREATED_ROOT: Final = root_of("", "created")
_CLOSED_ROOT: Final = root_of("", "closed")

IS_CREATED: Final = f"(created_at IS NOT NULL AND (closed_at IS NULL OR {_CREATED_ROOT} <= {_CLOSED_ROOT}))"
"""Whether the first half is the root's: a half is shown only if it names the root's span."""

IS_CLOSED: Final = f"(closed_at IS NOT NULL AND (created_at IS NULL OR {_CLOSED_ROOT} <= {_CREATED_ROOT}))"
"""Whether the second half is the root's."""

SHOWN_START: Final = f"""
CASE WHEN {IS_CREATED} THEN start_time
     WHEN {IS_CLOSED} AND closed_root_id IS NOT NULL THEN closed_root_start
     ELSE first_span_start
END
"""
"""The start of a trace as the view shows it."""

TRACES_TABLE: Final = Table(
    "traces",
    metadata,
    Column("trace_id", Text(collation="C"), primary_key=True),
    Column("created_at", TIMESTAMP(timezone=True)),
    Column("created_id", Uuid),
    Column("created_root_start", TIMESTAMP(timezone=True)),
    Column("created_root_id", Text(collation="C")),
    Column("service_name", Text),
    Column("operation_name", Text),
    Column("start_time", TIMESTAMP(timezone=True)),
    Column("created_tags", JSONB),
    Column("closed_at", TIMESTAMP(timezone=True)),
    Column("closed_id", Uuid),
    Column("closed_root_start", TIMESTAMP(timezone=True)),
    Column("closed_root_id", Text(collation="C")),
    Column("status", Text),
    Column("error", Text),
    Column("end_time", TIMESTAMP(timezone=True)),
    Column("closed_tags", JSONB),
    Column("span_count", Integer, nullable=False),
    Column("error_count", Integer, nullable=False),
    Column("first_span_start", TIMESTAMP(timezone=True)),
    Column("last_span_end", TIMESTAMP(timezone=True)),
    Column("version", BigInteger, nullable=False),
    Column("last_event_at", TIMESTAMP(timezone=True), nullable=False),
    # for pages of traces, the latest first: the same expression as in the view
    Index("traces_start", text(f"({SHOWN_START}) DESC NULLS LAST")),
    Index("traces_trace_hex", text("spanfold.trace_hex(trace_id)"), postgresql_using="hash"),
    # room for the updates of an open trace on its own page
    postgresql_with={"fillfactor": 75},
)

SPANS_TABLE: Final = Table(
    "spans",
    metadata,
    Column("trace_id", Text(collation="C"), nullable=False),
    Column("span_id", Text(collation="C"), nullable=False),
    Column("parent_span_id", Text(collation="C")),
    Column("service_name", Text, nullable=False),
    Column("operation_name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_message", Text),
    Column("start_time", TIMESTAMP(timezone=True), nullable=False),
    Column("end_time", TIMESTAMP(timezone=True), nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("events", JSONB, nullable=False),
    Column("links", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    # the event's time, by which operation_minutes counts; null if it equals end_time, as it should
    Column("occurred_at", TIMESTAMP(timezone=True)),
    *resources.resource_id("spans"),
    # the fold looks up parents and children that arrived earlier
    Index("spans_trace_id", "trace_id", info=NEEDED_BY_FOLD),
    info={
        "key": ("trace_id", "version"),
        "retained": Retained(("end_time", "occurred_at"), looked_up_days=MAX_CALL_DAYS),
    },
)

# the keys of rollups include the partition, so that no row is written from two partitions; the views add them up
OPERATIONS_TABLE: Final = Table(
    "operation_minutes",
    metadata,
    Column("partition", SmallInteger, primary_key=True),
    Column("service_name", Text(collation="C"), primary_key=True),
    Column("operation_name", Text(collation="C"), primary_key=True),
    Column("kind", Text(collation="C"), primary_key=True),
    Column("route", Text(collation="C"), primary_key=True),
    Column("minute", TIMESTAMP(timezone=True), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("duration_us", Numeric, nullable=False),
    Column("durations", BucketCounts, nullable=False),
    Index("operation_minutes_minute", "minute"),
    info={"retained": Retained(("minute",), counted_from=("spans", 0))},
)

DEPENDENCIES_TABLE: Final = Table(
    "service_dependencies",
    metadata,
    Column("partition", SmallInteger, primary_key=True),
    Column("parent", Text(collation="C"), primary_key=True),
    Column("child", Text(collation="C"), primary_key=True),
    Column("minute", TIMESTAMP(timezone=True), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("duration_us", Numeric, nullable=False),
    Column("durations", BucketCounts, nullable=False),
    Index("service_dependencies_minute", "minute"),
    info={"retained": Retained(("minute",), counted_from=("spans", MAX_CALL_DAYS))},
)

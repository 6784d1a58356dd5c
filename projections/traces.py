"""The projection `traces`: tables traces and spans, from TraceCreated, SpanRecorded, TraceCompleted, TraceFailed.

The fold commutes. Each event type owns its columns; where two events contend for the same ones (two completions, a
completion and a failure) the later event time wins, ties go to the greater event id. Counts add up, extremes stay
extremes. Every event of a trace lies in one partition, because its key is the trace id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, assert_never, cast

from psycopg import Cursor, sql
from sqlalchemy import TIMESTAMP, BigInteger, Column, Index, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from projections.copying import PG_EPOCH_US, CopyTarget
from projections.projection import View
from projections.reading import Fact
from schemas.codec import Fields
from spanfold.topics import TRACES

metadata = MetaData()

TRACES_TABLE: Final = Table(
    "traces",
    metadata,
    Column("trace_id", Text(collation="C"), primary_key=True),
    Column("created_at", TIMESTAMP(timezone=True)),
    Column("created_id", Uuid),
    Column("service_name", Text),
    Column("operation_name", Text),
    Column("start_time", TIMESTAMP(timezone=True)),
    Column("created_tags", JSONB),
    Column("closed_at", TIMESTAMP(timezone=True)),
    Column("closed_id", Uuid),
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
    Index("spans_trace_id", "trace_id"),
)

Moment = tuple[int, bytes]
"""(event time in µs, event id): of two that contend, the greater one wins."""

CreatedColumns = tuple[int, bytes, str, str, int, bytes]
"""(occurred_at, event_id, service_name, operation_name, start_time, tags)."""

ClosedColumns = tuple[int, bytes, str, str | None, int, bytes]
"""(occurred_at, event_id, status, error, end_time, tags)."""


@dataclass(slots=True)
class TracePartial:
    """What some events say of one trace; a commutative monoid under `TracesProjection.combine`."""

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
    """What some events say: traces by id, and spans as rows of SPANS_TABLE."""

    traces: dict[str, TracePartial] = field(default_factory=dict)
    spans: list[tuple[Any, ...]] = field(default_factory=list)


Columns = TypeVar("Columns", CreatedColumns, ClosedColumns)

TraceEventType = Literal["TraceCreated", "SpanRecorded", "TraceCompleted", "TraceFailed"]


class TracesProjection:
    """See projections.projection.Projection."""

    name = "traces"
    fold_version = 1
    topics = (TRACES,)
    metadata = metadata

    def fold(self, facts: Sequence[Fact]) -> TracesPartial:
        """The partial of some facts; their order does not matter."""
        partial = TracesPartial()
        traces, add_span = partial.traces, partial.spans.append
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
                    add_span(_span_row(offset, fields))
                case unknown:
                    assert_never(unknown)
        return partial

    def combine(self, one: TracesPartial, other: TracesPartial) -> TracesPartial:
        """What both say together. Commutative and associative up to the order of spans."""
        traces = dict(one.traces)
        for trace_id, trace in other.traces.items():
            traces[trace_id] = _combine(traces[trace_id], trace) if trace_id in traces else trace
        return TracesPartial(traces, one.spans + other.spans)

    def merge(self, cursor: Cursor[Any], schema: str, partial: TracesPartial, partition: int) -> None:
        """Write the partial into `schema`.traces and `schema`.spans, in the caller's transaction."""
        if partial.spans:
            _SPANS.copy(cursor, schema, partial.spans)
        if partial.traces:
            incoming = _TRACES.copy_incoming(cursor, schema, _trace_rows(partial.traces))
            table = sql.Identifier(schema, TRACES_TABLE.name)
            cursor.execute(sql.SQL(MERGE_TRACES).format(table=table, incoming=incoming))

    views = (
        View(
            name="traces",
            comment="One row a trace, from the events that the log has accepted of it.",
            select="""
                SELECT t.trace_id,
                       t.service_name,
                       t.operation_name,
                       coalesce(t.status, 'started') AS status,
                       coalesce(t.start_time, t.first_span_start) AS start_time,
                       t.end_time,
                       ((extract(epoch FROM t.end_time)
                         - extract(epoch FROM coalesce(t.start_time, t.first_span_start))) * 1000)
                           ::double precision AS duration_ms,
                       coalesce(t.created_tags, '{{}}') || coalesce(t.closed_tags, '{{}}') AS tags,
                       t.span_count,
                       t.error_count,
                       t.error,
                       CASE WHEN t.last_span_end > t.end_time
                            THEN (SELECT count(*) FROM {schema}.spans s
                                   WHERE s.trace_id = t.trace_id AND s.end_time > t.end_time)
                            ELSE 0
                       END AS late_events,
                       t.version,
                       t.last_event_at
                  FROM {schema}.traces t""",
            comments={
                "trace_id": "Aggregate id of the trace; 32 hex digits with OpenTelemetry.",
                "service_name": "Service of the root operation, from TraceCreated; null until that has come.",
                "operation_name": "Name of the root operation, from TraceCreated; null until that has come.",
                "status": "started, then what TraceCompleted says (completed unless it says otherwise), or failed.",
                "start_time": "From TraceCreated, else the earliest start of its spans.",
                "end_time": "From TraceCompleted or TraceFailed, the later event; null while the trace is open.",
                "duration_ms": "end_time - start_time in milliseconds; negative if the clocks that set them disagree.",
                "tags": "Attributes of TraceCreated, overlaid by those of TraceCompleted or TraceFailed.",
                "span_count": "Number of its spans in spanfold.spans.",
                "error_count": "Those of them with status error.",
                "error": "What TraceFailed said.",
                "late_events": "Its spans that ended after end_time.",
                "version": "Greatest version of its accepted events (offset + 1).",
                "last_event_at": "Greatest event time of its accepted events.",
            },
        ),
        View(
            name="spans",
            comment="One row a span, from SpanRecorded.",
            select="""
                SELECT s.trace_id,
                       s.span_id,
                       s.parent_span_id,
                       s.service_name,
                       s.operation_name,
                       s.kind,
                       s.status,
                       s.status_message,
                       s.start_time,
                       s.end_time,
                       ((extract(epoch FROM s.end_time) - extract(epoch FROM s.start_time)) * 1000)
                           ::double precision AS duration_ms,
                       s.tags,
                       s.events,
                       s.links,
                       s.version
                  FROM {schema}.spans s""",
            comments={
                "trace_id": "The trace that it belongs to.",
                "span_id": "Unique within the trace, but for the two halves of a span that client and server share.",
                "parent_span_id": "Null for a root span.",
                "service_name": "OpenTelemetry service.name.",
                "operation_name": "The span's name.",
                "kind": "internal, server, client, producer or consumer.",
                "status": "unset, ok or error.",
                "status_message": "Said with an error.",
                "start_time": "When it started, to the microsecond.",
                "end_time": "When it ended, to the microsecond.",
                "duration_ms": "end_time - start_time in milliseconds.",
                "tags": "Its attributes.",
                "events": "List of {{name, time, attributes}}; time in microseconds since 1970 UTC.",
                "links": "List of {{trace_id, span_id, attributes}}.",
                "version": "Version of its event in the journal (offset + 1).",
            },
        ),
    )


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


def _span_row(offset: int, fields: Fields) -> tuple[Any, ...]:
    return (
        fields["aggregate_id"], fields["span_id"], fields["parent_span_id"], fields["service_name"],
        fields["operation_name"], fields["kind"], fields["status"], fields["status_message"],
        fields["start_time"] - PG_EPOCH_US, fields["end_time"] - PG_EPOCH_US,
        fields["tags"], fields["events"], fields["links"], offset + 1,
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


_NO_CREATED: Final = (None,) * 6
_NO_CLOSED: Final = (None,) * 6


def _trace_rows(traces: dict[str, TracePartial]) -> Iterator[tuple[Any, ...]]:
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
    """SET clauses of the columns that one kind of event owns: the later event time wins, ties go to the greater id."""
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
"""

_TRACES: Final = CopyTarget(TRACES_TABLE)
_SPANS: Final = CopyTarget(SPANS_TABLE)

PROJECTION: Final = TracesProjection()

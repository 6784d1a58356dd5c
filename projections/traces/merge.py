"""Writes a partial into a generation's tables: set-based, in the caller's transaction."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.language.trace_identity import NO_SPAN, RootKey
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections import resources
from spanfold.projections.traces import rollups
from spanfold.projections.traces.dependencies import calls_among, parents_in_table, related_spans
from spanfold.projections.traces.fold import Closed, Created, TracePartial, TracesPartial
from spanfold.projections.traces.spans import Span, operations_of, row_of
from spanfold.projections.traces.tables import SPANS_TABLE, TRACES_TABLE, root_of


def merge(cursor: Cursor[Any], schema: str, partial: TracesPartial, partition: int) -> None:
    """Merge traces first: what that returns tells which of them had spans before."""
    if not partial.traces:
        return
    grown = set(_merge_traces(cursor, schema, partial.traces))
    spans = partial.spans
    if not spans:
        return
    growing = [span for span in spans.values() if span.trace_id in grown]
    if not growing:
        _add_spans(cursor, schema, partial, partition)
        return
    held = related_spans(cursor, schema, list(grown), growing)
    lost, replaced = _recorded_again(spans.values(), held)
    if lost or replaced:
        _take_back(cursor, schema, lost, replaced)
        held += parents_in_table(cursor, schema, replaced)
    held = list({(span.trace_id, span.version): span for span in held}.values())
    _add_to_held(cursor, schema, partial, partition, held, lost, replaced)


def _add_spans(cursor: Cursor[Any], schema: str, partial: TracesPartial, partition: int) -> None:
    """Of traces that had no span before."""
    spans = partial.spans.values()
    _copy_spans(cursor, schema, spans, partition)
    rollups.add_operations(cursor, schema, partition, partial.operations)
    rollups.add_calls(cursor, schema, partition, calls_among(spans))


def _copy_spans(cursor: Cursor[Any], schema: str, spans: Collection[Span], partition: int) -> None:
    ids = resources.keep(cursor, schema, partition, {span.source for span in spans})
    _SPANS.copy(cursor, schema, (row_of(span, ids) for span in spans))


def _add_to_held(
    cursor: Cursor[Any],
    schema: str,
    partial: TracesPartial,
    partition: int,
    held: Sequence[Span],
    lost: Sequence[Span],
    replaced: Sequence[Span],
) -> None:
    """Of traces that had some: `held` are the spans around the new ones. The rollups change by the difference."""
    gone = {(span.trace_id, span.version) for span in (*lost, *replaced)}
    added = [span for span in partial.spans.values() if (span.trace_id, span.version) not in gone]
    _copy_spans(cursor, schema, added, partition)
    rollups.add_operations(cursor, schema, partition, operations_of(added) if lost else partial.operations)
    rollups.subtract_operations(cursor, schema, partition, operations_of(replaced))
    before = calls_among(held)
    after = calls_among([*(span for span in held if (span.trace_id, span.version) not in gone), *added])
    rollups.add_calls(cursor, schema, partition, after - before)
    rollups.subtract_calls(cursor, schema, partition, before - after)


def _recorded_again(spans: Iterable[Span], held: Iterable[Span]) -> tuple[list[Span], list[Span]]:
    """The new records of spans that lose against the row that is there, and the rows that lose against them."""
    rows = {span.identity: span for span in held}
    lost: list[Span] = []
    replaced: list[Span] = []
    for span in spans:
        row = rows.get(span.identity)
        if row is None:
            continue
        if span.replaces(row):
            replaced.append(row)
        else:
            lost.append(span)
    return lost, replaced


def _take_back(cursor: Cursor[Any], schema: str, lost: Sequence[Span], replaced: Sequence[Span]) -> None:
    """Delete the rows that are replaced, and count spans that were recorded twice once. Extremes stay: of two records of a span
    the start is the same, and the later end stays.
    """
    counts: Counter[str] = Counter(span.trace_id for span in (*lost, *replaced))
    errors: Counter[str] = Counter(span.trace_id for span in (*lost, *replaced) if span.status == "error")
    traces = list(counts)
    cursor.execute(
        sql.SQL(COUNT_ONCE).format(table=sql.Identifier(schema, TRACES_TABLE.name)),
        (traces, [counts[trace_id] for trace_id in traces], [errors[trace_id] for trace_id in traces]),
    )
    if replaced:
        cursor.execute(
            sql.SQL(DELETE_SPANS).format(table=sql.Identifier(schema, SPANS_TABLE.name)),
            ([span.trace_id for span in replaced], [span.version for span in replaced]),
        )


def _merge_traces(cursor: Cursor[Any], schema: str, traces: Mapping[str, TracePartial]) -> list[str]:
    """Upsert; returns the ids of those with new spans that had some before."""
    incoming = _TRACES.copy_incoming(cursor, schema, _trace_rows(traces))
    table = sql.Identifier(schema, TRACES_TABLE.name)
    cursor.execute(sql.SQL(MERGE_TRACES).format(table=table, incoming=incoming))
    return [trace_id for trace_id, count in cursor if 0 < traces[trace_id].span_count < count]


_NO_HALF: Final = (None,) * 8


def _trace_rows(traces: Mapping[str, TracePartial]) -> Iterator[tuple[Any, ...]]:
    """Rows of TRACES_TABLE, times shifted to Postgres' epoch."""
    for trace_id, trace in traces.items():
        yield (
            trace_id, *_half_columns(trace.created), *_half_columns(trace.closed),
            trace.span_count, trace.error_count, trace.first_span_start, trace.last_span_end,
            trace.version, trace.last_event_at - PG_EPOCH_US,
        )  # fmt: skip


def _half_columns(half: Created | Closed | None) -> tuple[Any, ...]:
    """Both halves end in a time and tags, and have two texts before."""
    if half is None:
        return _NO_HALF
    root, occurred_at, event_id, *texts, time, tags = half
    return (occurred_at - PG_EPOCH_US, event_id, *_root_columns(root), *texts, time - PG_EPOCH_US, tags)


def _root_columns(root: RootKey) -> tuple[int | None, str | None]:
    """Start and id of the root span; null if the fact names none."""
    return (None, None) if root == NO_SPAN else (root[1] - PG_EPOCH_US, root[2])


def _half(owner: str, columns: Sequence[str]) -> str:
    """SET clauses of the columns of one half: of those that are there the lesser root wins, then the later time."""
    new, old = root_of("excluded.", owner), root_of("t.", owner)
    is_later = f"(excluded.{owner}_at, excluded.{owner}_id) > (t.{owner}_at, t.{owner}_id)"
    is_better = f"t.{owner}_at IS NULL OR {new} < {old} OR ({new} = {old} AND {is_later})"
    wins = f"excluded.{owner}_at IS NOT NULL AND ({is_better})"
    names = (f"{owner}_at", f"{owner}_id", f"{owner}_root_start", f"{owner}_root_id", *columns)
    return ",\n    ".join(f"{name} = CASE WHEN {wins} THEN excluded.{name} ELSE t.{name} END" for name in names)


MERGE_TRACES: Final = f"""
INSERT INTO {{table}} AS t
SELECT * FROM {{incoming}}
ON CONFLICT (trace_id) DO UPDATE SET
    {_half("created", ("service_name", "operation_name", "start_time", "created_tags"))},
    {_half("closed", ("status", "error", "end_time", "closed_tags"))},
    span_count = t.span_count + excluded.span_count,
    error_count = t.error_count + excluded.error_count,
    first_span_start = least(t.first_span_start, excluded.first_span_start),
    last_span_end = greatest(t.last_span_end, excluded.last_span_end),
    version = greatest(t.version, excluded.version),
    last_event_at = greatest(t.last_event_at, excluded.last_event_at)
RETURNING trace_id, span_count
"""

COUNT_ONCE: Final = """
UPDATE {table} t
   SET span_count = t.span_count - twice.spans, error_count = t.error_count - twice.errors
  FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS twice (trace_id, spans, errors)
 WHERE t.trace_id = twice.trace_id
"""

DELETE_SPANS: Final = """
DELETE FROM {table} t
 USING unnest(%s::text[], %s::bigint[]) AS replaced (trace_id, version)
 WHERE (t.trace_id, t.version) = (replaced.trace_id, replaced.version)
"""

_TRACES: Final = CopyTarget(TRACES_TABLE)
_SPANS: Final = CopyTarget(SPANS_TABLE)

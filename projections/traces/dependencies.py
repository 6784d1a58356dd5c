"""Which service called which: pairs of a parent span and its child in another service. Every pair counts once.

The parent may come before the child or after it, in the same batch or another. A batch's new pairs are those among its own
spans, and those between its spans and the ones that its traces had before.

Zipkin's client and server may share one span id. The server's half is then the callee of its own parent, like any span; only
if it has no parent is it the callee of the client's half. A client's half never calls what happens inside the callee.

Two spans whose ends are more than MAX_CALL_DAYS apart are not a call. So old spans can be deleted: no span that is still to
come makes a pair with them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Cursor, sql

from spanfold.language.topics import US_PER_DAY
from spanfold.postgres.copying import PG_EPOCH_US
from spanfold.projections.traces.fold import ROLLUP_NAME_CHARACTERS, US_PER_MINUTE
from spanfold.projections.traces.tables import MAX_CALL_DAYS, SPANS_TABLE

_CALLERS: Final = frozenset({"client", "producer"})
_CALLEES: Final = frozenset({"server", "consumer"})
_MAX_CALL_US: Final = MAX_CALL_DAYS * US_PER_DAY


class Span(NamedTuple):
    """The part of a span that decides whether it is in a pair; `end_us` counts from Postgres' epoch."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    service_name: str
    kind: str
    status: str
    end_us: int


Calls = dict[tuple[str, str, int], list[int]]
"""[calls, errors] by (parent service, child service, minute in which the child ended, from Postgres' epoch)."""


def calls_between(parent: Span, child: Span) -> bool:
    """Whether `parent` called `child`. It depends on the two alone, so the order of arrival does not matter."""
    if parent.service_name == child.service_name or abs(parent.end_us - child.end_us) > _MAX_CALL_US:
        return False
    if child.parent_span_id == parent.span_id:
        return parent.kind not in _CALLERS or child.kind in _CALLEES
    return (
        child.parent_span_id is None
        and child.span_id == parent.span_id
        and parent.kind in _CALLERS
        and child.kind in _CALLEES
    )


def of_batch(cursor: Cursor[Any], schema: str, rows: Sequence[tuple[Any, ...]], grown: Sequence[str]) -> Calls:
    """The new pairs of a batch whose span rows are not in the table yet. `grown` are its traces that already have spans there."""
    fresh = [_of_row(row) for row in rows]
    calls: Calls = {}
    _count_pairs(calls, fresh, fresh)
    if grown:
        growing = set(grown)
        affected = [span for span in fresh if span.trace_id in growing]
        earlier = _earlier(cursor, schema, grown, affected)
        _count_pairs(calls, affected, earlier)
        _count_pairs(calls, earlier, affected)
    return calls


def among(spans: Sequence[Span]) -> Calls:
    """The pairs among these spans. For all spans of a trace, that is what the trace contributes."""
    calls: Calls = {}
    _count_pairs(calls, spans, spans)
    return calls


def rows(calls: Calls, partition: int) -> Iterator[tuple[Any, ...]]:
    """Rows of DEPENDENCIES_TABLE."""
    for (parent, child, minute), counts in calls.items():
        yield (partition, parent, child, minute, *counts)


def _of_row(row: tuple[Any, ...]) -> Span:
    return Span(row[0], row[1], row[2], row[3], row[5], row[6], row[9])


def _count_pairs(calls: Calls, parents: Iterable[Span], children: Iterable[Span]) -> None:
    by_id: dict[tuple[str, str], list[Span]] = {}
    for span in parents:
        by_id.setdefault((span.trace_id, span.span_id), []).append(span)
    for child in children:
        parent_id = child.span_id if child.parent_span_id is None else child.parent_span_id
        for parent in by_id.get((child.trace_id, parent_id), ()):
            if calls_between(parent, child):
                _count(calls, parent, child)


def _count(calls: Calls, parent: Span, child: Span) -> None:
    minute = (child.end_us + PG_EPOCH_US) // US_PER_MINUTE * US_PER_MINUTE - PG_EPOCH_US
    key = (parent.service_name[:ROLLUP_NAME_CHARACTERS], child.service_name[:ROLLUP_NAME_CHARACTERS], minute)
    counts = calls.setdefault(key, [0, 0])
    counts[0] += 1
    counts[1] += child.status == "error"


def _earlier(cursor: Cursor[Any], schema: str, traces: Sequence[str], spans: Sequence[Span]) -> list[Span]:
    """Spans of these traces that are in the table and may be a parent, a child or the other half of one of `spans`."""
    ids = {span.span_id for span in spans}
    parents = {span.parent_span_id for span in spans if span.parent_span_id is not None}
    table = sql.Identifier(schema, SPANS_TABLE.name)
    cursor.execute(sql.SQL(RELATED).format(table=table), (list(traces), list(ids | parents), list(ids)))
    return [Span(*row) for row in cursor]


RELATED: Final = """
SELECT trace_id, span_id, parent_span_id, service_name, kind, status,
       (extract(epoch FROM end_time - timestamptz '2000-01-01Z') * 1000000)::bigint
  FROM {table}
 WHERE trace_id = ANY (%s) AND (span_id = ANY (%s) OR parent_span_id = ANY (%s))
"""

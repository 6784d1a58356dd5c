"""Which service called which: a span and, for each role that a parent can have, at most one parent of it in another service.

The parent may come before the child or after it, in the same batch or another, and a span may be recorded again. So what a
batch changes is the difference between the calls among the spans around it before and after.

Zipkin's client and server may share one span id. Then the server's half is the callee of its own parent like any span; only
if it has no parent is it the callee of the client's half. And a client's half is no caller of what happens inside the callee.

Of several spans with a parent's id only the least (start, service, kind) of each role is the parent, so that calls grow with
the number of spans and not with its square. Two spans whose ends lie further apart than MAX_CALL_DAYS are no call: old spans
can be let go of, for no span that is still to come makes a pair with them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.projections.resources import NOBODY
from spanfold.projections.traces.spans import (
    MAX_CALL_US,
    ROLLUP_NAME_CHARACTERS,
    Rollup,
    Span,
    minute_of,
)
from spanfold.projections.traces.tables import SPANS_TABLE

_ROLES: Final = {"client": "caller", "producer": "caller", "server": "callee", "consumer": "callee"}
_OTHER: Final = "other"

Call = tuple[str, str, int, bool, int]
"""(parent service, child service, minute from 2000, is_error, duration in µs); minute, error and duration are the child's."""

Calls = Counter[Call]

CallsByMinute = dict[tuple[str, str, int], Rollup]
"""(parent service, child service, minute from 2000) to what the calls add up to."""


def calls_among(spans: Iterable[Span]) -> Calls:
    """The calls among these spans: a function of the set, so that no order matters."""
    by_id: dict[tuple[str, str], list[Span]] = {}
    children = []
    for span in spans:
        by_id.setdefault((span.trace_id, span.span_id), []).append(span)
        children.append(span)
    calls: Calls = Counter()
    for child in children:
        parent_id = child.span_id if child.parent_span_id is None else child.parent_span_id
        for parent in _parents(child, by_id.get((child.trace_id, parent_id), ())):
            calls[_call(parent, child)] += 1
    return calls


def _parents(child: Span, candidates: Sequence[Span]) -> Iterator[Span]:
    """Those that called the child: of each role the least of the candidates, if it is in another service."""
    least: dict[str, Span] = {}
    for span in candidates:
        if abs(span.end - child.end) > MAX_CALL_US:
            continue
        role = _ROLES.get(span.kind, _OTHER)
        rival = least.get(role)
        if rival is None or _order(span) < _order(rival):
            least[role] = span
    return (parent for role, parent in least.items() if _calls(role, parent, child))


def _order(span: Span) -> tuple[int, str, str]:
    return (span.start, span.service_name, span.kind)


def _calls(role: str, parent: Span, child: Span) -> bool:
    if parent.service_name == child.service_name:
        return False
    takes = _ROLES.get(child.kind) == "callee"
    if child.parent_span_id is None:
        return role == "caller" and takes
    return takes or role != "caller"


def _call(parent: Span, child: Span) -> Call:
    return (
        parent.service_name[:ROLLUP_NAME_CHARACTERS], child.service_name[:ROLLUP_NAME_CHARACTERS],
        minute_of(child.end), child.status == "error", child.end - child.start,
    )  # fmt: skip


def by_minute(calls: Calls) -> CallsByMinute:
    """What calls add up to; each is there as often as it is counted."""
    minutes: CallsByMinute = {}
    for (parent, child, minute, is_error, duration_us), times in calls.items():
        minutes.setdefault((parent, child, minute), Rollup()).add(duration_us, is_error, times)
    return minutes


def related_spans(cursor: Cursor[Any], schema: str, traces: Sequence[str], spans: Sequence[Span]) -> list[Span]:
    """Spans of these traces in the table that may be the same as one of `spans`, its parent, its child or its other half."""
    ids = {span.span_id for span in spans}
    parents = {span.parent_span_id for span in spans if span.parent_span_id is not None}
    return _select(cursor, schema, traces, ids | parents, ids)


def parents_in_table(cursor: Cursor[Any], schema: str, spans: Sequence[Span]) -> list[Span]:
    """Spans in the table that may be a parent of one of `spans`."""
    parents = {span.parent_span_id for span in spans if span.parent_span_id is not None}
    return _select(cursor, schema, list({span.trace_id for span in spans}), parents, set())


def _select(
    cursor: Cursor[Any], schema: str, traces: Sequence[str], ids: Iterable[str], parents: Iterable[str]
) -> list[Span]:
    table = sql.Identifier(schema, SPANS_TABLE.name)
    cursor.execute(sql.SQL(RELATED).format(table=table), (list(traces), list(ids), list(parents)))
    return spans_of(cursor)


def spans_of(rows: Iterable[Sequence[Any]]) -> list[Span]:
    """Rows of COUNTED_COLUMNS as spans."""
    return [Span._make((*columns, event_id.bytes, version, (), NOBODY)) for *columns, event_id, version in rows]


def _since_2000(column: str) -> str:
    return f"(extract(epoch FROM {column} - timestamptz '2000-01-01Z') * 1000000)::bigint"


COUNTED_COLUMNS: Final = f"""
       trace_id, span_id, parent_span_id, service_name, operation_name, kind, status,
       {_since_2000("start_time")}, {_since_2000("end_time")}, {_since_2000("coalesce(occurred_at, end_time)")},
       CASE WHEN jsonb_typeof(tags -> 'http.route') = 'string' THEN tags ->> 'http.route' ELSE '' END, event_id, version"""
"""A Span's fields, in their order."""

RELATED: Final = f"""
SELECT {COUNTED_COLUMNS}
  FROM {{table}}
 WHERE trace_id = ANY (%s) AND (span_id = ANY (%s) OR parent_span_id = ANY (%s))
"""

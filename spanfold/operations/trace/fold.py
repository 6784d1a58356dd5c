"""Folds a trace's records step by step, with the fold that the workers use, into rows as the public views show them.

Rows have the columns of spanfold.traces and spanfold.spans; times are µs since 1970 UTC.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.ids import trace_hex
from spanfold.language.positions import Position
from spanfold.language.topics import NOT_FOLDED
from spanfold.language.trace_identity import NO_SPAN
from spanfold.operations.trace.log import ACCEPTED, LoggedRecord
from spanfold.postgres.copying import PG_EPOCH_US
from spanfold.projections.commit.reading import JSONB_VERSION, storable
from spanfold.projections.facts import Fact
from spanfold.projections.resources import ENVIRONMENT, Source
from spanfold.projections.traces.fold import Closed, Created, TracePartial, TracesPartial, absorb, fold
from spanfold.projections.traces.spans import Span
from spanfold.schemas.codec import Codec

Row = dict[str, Any]

RETRIED: Final = "retried"


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one record: `state` is folded, parked, retried, discarded or the verdict that rejected it, `why` explains
    it. `folds` are the positions of what was folded there: its own, or those of parked records that it retried. `changed` has
    the columns of the trace's row before and after, `spans` the new rows.
    """

    record: LoggedRecord
    state: str
    why: str
    folds: Sequence[Position]
    changed: Mapping[str, tuple[Any, Any]]
    spans: Sequence[Row]


@dataclass(frozen=True, slots=True)
class FoldedTrace:
    """The trace after its last step; `trace` is None if nothing of it could be folded."""

    trace: Row | None
    spans: Sequence[Row]
    steps: Sequence[Step]


def fold_trace(trace_id: str, records: Sequence[LoggedRecord]) -> FoldedTrace:
    """Fold these records of one trace. Misconfigured when this version cannot read one that has been folded."""
    facts_at, fate_of = _facts_by_place(Codec(), records), _fates(records)
    whole, ends, steps = TracesPartial(), list[int](), list[Step]()
    row: Row | None = None
    for record in records:
        facts = facts_at.get((record.partition, record.kafka_offset), [])
        partial = fold(facts)
        new_spans = _new_spans(whole, partial, ends)
        absorb(whole, partial)
        after = _trace_row(trace_id, whole, ends) if facts else row
        folds = [replace(record.position, offset=offset) for offset, _, _ in facts]
        span_rows = [_span_row(span) for span in new_spans]
        steps.append(Step(record, *fate_of[record.position], folds, _changes(row, after), span_rows))
        row = after
    spans = [_span_row(span) for span in whole.spans.values()]
    spans.sort(key=lambda span: (span["start_time"], -span["end_time"], span["span_id"], span["version"]))
    return FoldedTrace(row, spans, steps)


def _new_spans(whole: TracesPartial, partial: TracesPartial, ends: list[int]) -> list[Span]:
    """The spans of `partial` that are new, or replace the record of a span that was there; `ends`, sorted, follows them."""
    new_spans = []
    for identity, span in partial.spans.items():
        held = whole.spans.get(identity)
        if held is not None and not span.replaces(held):
            continue
        if held is not None:
            del ends[bisect_left(ends, held.end)]
        insort(ends, span.end)
        new_spans.append(span)
    return new_spans


def _facts_by_place(codec: Codec, records: Sequence[LoggedRecord]) -> dict[tuple[int, int], list[Fact]]:
    """What is folded at each (partition, offset): a parked record where it was retried."""
    facts: dict[tuple[int, int], list[Fact]] = {}
    for record in records:
        if record.verdict != ACCEPTED or record.event_type in NOT_FOLDED:
            continue
        if record.reason is None:
            facts.setdefault((record.partition, record.kafka_offset), []).append(_fact(codec, record))
        elif record.settled_as == RETRIED and record.settled_offset is not None:
            facts.setdefault((record.partition, record.settled_offset), []).append(_fact(codec, record))
    return facts


def _fact(codec: Codec, record: LoggedRecord) -> Fact:
    try:
        event_type, fields = codec.decode(record.payload)
        storable(event_type, fields)
    except PoisonRecord as poison:
        raise Misconfigured(
            f"{record.position} has been folded, but this version can't read it ({poison}): use the version that folded it"
        ) from poison
    return record.kafka_offset, event_type, fields


def _fates(records: Sequence[LoggedRecord]) -> dict[Position, tuple[str, str]]:
    """State and reason of each, as far as these records tell: a fact that is not among them has not happened."""
    there = {record.position for record in records}
    accepted = {record.event_id: record.position for record in records if record.verdict == ACCEPTED}
    return {record.position: _fate(record, accepted, there) for record in records}


def _fate(record: LoggedRecord, accepted: Mapping[str, Position], there: Set[Position]) -> tuple[str, str]:
    if record.verdict != ACCEPTED:
        first = accepted.get(record.event_id)
        return record.verdict, f"{record.detail}, at {first}" if first else str(record.detail)
    if record.reason is None:
        return "folded", ""
    why = f"{record.reason}: {record.reason_detail}"
    settled_by = replace(record.position, offset=-1 if record.settled_offset is None else record.settled_offset)
    if record.settled_as is None or settled_by not in there:
        return "parked", why
    return record.settled_as, f"by {settled_by}; {why}"


def _changes(before: Row | None, after: Row | None) -> dict[str, tuple[Any, Any]]:
    return {
        name: ((before or {}).get(name), value)
        for name, value in (after or {}).items()
        if (before or {}).get(name) != value
    }


def _trace_row(trace_id: str, whole: TracesPartial, ends: Sequence[int]) -> Row:
    """As the view spanfold.traces has it; `ends` are the ends of the trace's spans, sorted, in µs since 2000."""
    trace = whole.traces[trace_id]
    created = trace.created if trace.created is not None and trace.created.root == trace.root else None
    closed = trace.closed if trace.closed is not None and trace.closed.root == trace.root else None
    earliest = None if trace.root is not None else min(whole.spans.values(), key=_order, default=None)
    named = created or earliest
    start, end = _start(trace, created, closed), _end(trace, closed)
    return {
        "trace_id": trace_id,
        "service_name": named and named.service_name,
        "operation_name": named and named.operation_name,
        "status": closed.status if closed else "started" if created else "incomplete",
        "start_time": start,
        "end_time": end,
        "duration_ms": None if start is None or end is None else (end - start) / 1000,
        "tags": (_json(created.tags) if created else {}) | (_json(closed.tags) if closed else {}),
        "span_count": trace.span_count,
        "error_count": trace.error_count,
        "error": closed and closed.error,
        "has_root": trace.root is not None,
        "late_events": 0 if end is None else len(ends) - bisect_right(ends, end - PG_EPOCH_US),
        "version": trace.version,
        "last_event_at": trace.last_event_at,
        "trace_hex": trace_hex(trace_id),
    }


def _order(span: Span) -> tuple[int, str, str, str, int, bytes]:
    return (span.start, span.span_id, span.service_name, span.kind, span.end, span.event_id)


def _start(trace: TracePartial, created: Created | None, closed: Closed | None) -> int | None:
    if created is not None:
        return created.start_time
    if closed is not None and closed.root != NO_SPAN:
        return closed.root[1]
    return None if trace.first_span_start is None else trace.first_span_start + PG_EPOCH_US


def _end(trace: TracePartial, closed: Closed | None) -> int | None:
    if closed is not None:
        return closed.end_time
    return None if trace.root is not None or trace.last_span_end is None else trace.last_span_end + PG_EPOCH_US


def _span_row(span: Span) -> Row:
    """As the view spanfold.spans has it."""
    status_message, tags, events, links = span.columns
    start, end = span.start + PG_EPOCH_US, span.end + PG_EPOCH_US
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "service_name": span.service_name,
        "operation_name": span.operation_name,
        "kind": span.kind,
        "status": span.status,
        "status_message": status_message,
        "start_time": start,
        "end_time": end,
        "tags": _json(tags),
        "events": _json(events),
        "links": _json(links),
        "version": span.version,
        "duration_ms": (end - start) / 1000,
        "trace_hex": trace_hex(span.trace_id),
        **_shown_source(span.source),
    }


def _shown_source(source: Source) -> Row:
    """As views show a resource and a scope."""
    resource = _json(source.resource)
    return {
        "resource": resource,
        "scope_name": source.scope_name,
        "scope_version": source.scope_version,
        "scope_attributes": _json(source.scope_attributes),
        "service_version": _text(resource, "service.version"),
        "environment": next(filter(None.__ne__, (_text(resource, name) for name in ENVIRONMENT)), None),
        "instance": _text(resource, "service.instance.id"),
    }


def _text(resource: Mapping[str, Any], name: str) -> str | None:
    """The attribute as Postgres' operator ->> gives it."""
    value = resource.get(name)
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _json(document: bytes) -> Any:
    return orjson.loads(document.removeprefix(JSONB_VERSION))

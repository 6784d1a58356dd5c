"""Folds a trace's records step by step, with the fold that the workers use, into rows as the public views show them.

Rows have the columns of spanfold.traces and spanfold.spans; times are µs since 1970 UTC.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.positions import Position
from spanfold.language.topics import NOT_FOLDED
from spanfold.operations.trace.log import ACCEPTED, LoggedRecord
from spanfold.postgres.copying import PG_EPOCH_US
from spanfold.projections.commit.reading import JSONB_VERSION, storable
from spanfold.projections.facts import Fact
from spanfold.projections.traces.fold import TracePartial, TracesPartial, combine, fold
from spanfold.projections.traces.tables import SPANS_TABLE
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
    whole, ends, spans, steps = TracesPartial(), list[int](), list[Row](), list[Step]()
    row: Row | None = None
    for record in records:
        facts = facts_at.get((record.partition, record.kafka_offset), [])
        partial = fold(facts)
        new_spans = [_span_row(span) for span in partial.spans]
        spans += new_spans
        for span in new_spans:
            insort(ends, span["end_time"])
        # without the spans, which would be copied at each step
        whole = combine(whole, TracesPartial(traces=partial.traces))
        after = _trace_row(trace_id, whole.traces[trace_id], ends) if facts else row
        folds = [replace(record.position, offset=offset) for offset, _, _ in facts]
        steps.append(Step(record, *fate_of[record.position], folds, _changes(row, after), new_spans))
        row = after
    spans.sort(key=lambda span: (span["start_time"], -span["end_time"], span["span_id"], span["version"]))
    return FoldedTrace(row, spans, steps)


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


def _trace_row(trace_id: str, trace: TracePartial, ends: Sequence[int]) -> Row:
    """As the view spanfold.traces has it; `ends` are the ends of the trace's spans, sorted."""
    service = operation = error = end = None
    start, status, created_tags, closed_tags = trace.first_span_start, "started", b"{}", b"{}"
    if trace.created is not None:
        _, _, service, operation, start, created_tags = trace.created
    if trace.closed is not None:
        _, _, status, error, end, closed_tags = trace.closed
    return {
        "trace_id": trace_id,
        "service_name": service,
        "operation_name": operation,
        "status": status,
        "start_time": start,
        "end_time": end,
        "duration_ms": None if start is None or end is None else (end - start) / 1000,
        "tags": _json(created_tags) | _json(closed_tags),
        "span_count": trace.span_count,
        "error_count": trace.error_count,
        "error": error,
        "late_events": 0 if end is None else len(ends) - bisect_right(ends, end),
        "version": trace.version,
        "last_event_at": trace.last_event_at,
    }


def _span_row(columns: Sequence[Any]) -> Row:
    """As the view spanfold.spans has it, from a row of its table."""
    row = dict(zip((str(column.name) for column in SPANS_TABLE.columns), columns, strict=True))
    del row["occurred_at"]
    start, end = row["start_time"] + PG_EPOCH_US, row["end_time"] + PG_EPOCH_US
    documents = {name: _json(row[name]) for name in ("tags", "events", "links")}
    return row | documents | {"start_time": start, "end_time": end, "duration_ms": (end - start) / 1000}


def _json(document: bytes) -> Any:
    return orjson.loads(document.removeprefix(JSONB_VERSION))

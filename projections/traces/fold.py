"""The fold: facts to partials. Pure and commutative.

A trace's root tells its beginning and its end in two halves, TraceCreated and TraceCompleted or TraceFailed. Of several roots the
one with the least (start_time, span_id) is the trace's; facts without a span id come before all others. Of several facts about
one root the later event time wins, ties go to the greater event id. Spans that are recorded again are one span (spans.py).
Every event of a trace lies in one partition, because its key is the trace id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar, assert_never, cast

from spanfold.language.topics import TraceEventType
from spanfold.language.trace_identity import RootKey, root_key
from spanfold.projections.facts import Fact
from spanfold.projections.traces.spans import Identity, Operations, Span, operations_of, span_of
from spanfold.schemas.codec import Fields


class Created(NamedTuple):
    """The first half of a root; times in µs since 1970."""

    root: RootKey
    occurred_at: int
    event_id: bytes
    service_name: str
    operation_name: str
    start_time: int
    tags: bytes


class Closed(NamedTuple):
    """The second half of a root; times in µs since 1970."""

    root: RootKey
    occurred_at: int
    event_id: bytes
    status: str
    error: str | None
    end_time: int
    tags: bytes


@dataclass(slots=True)
class TracePartial:
    """What some events say of one trace. Times of events in µs since 1970, those of spans since 2000."""

    created: Created | None = None
    closed: Closed | None = None
    span_count: int = 0
    error_count: int = 0
    first_span_start: int | None = None
    last_span_end: int | None = None
    version: int = 0
    last_event_at: int = -(1 << 63)

    @property
    def root(self) -> RootKey | None:
        """The trace's root, None if no half of one is there."""
        return min((half.root for half in (self.created, self.closed) if half is not None), default=None)


@dataclass(slots=True)
class TracesPartial:
    """What some events say: traces by id, spans by their identity, and what those add to the operations. A commutative monoid
    under `combine`; for spans an idempotent one.
    """

    traces: dict[str, TracePartial] = field(default_factory=dict)
    spans: dict[Identity, Span] = field(default_factory=dict)
    operations: Operations = field(default_factory=dict)


Half = TypeVar("Half", Created, Closed)


def fold(facts: Sequence[Fact]) -> TracesPartial:
    """The partial of some facts; their order does not matter."""
    partial = TracesPartial()
    traces = partial.traces
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
                trace.created = better_half(trace.created, _created(fields))
            case "TraceCompleted":
                trace.closed = better_half(trace.closed, _closed(fields, fields["status"], None))
            case "TraceFailed":
                trace.closed = better_half(trace.closed, _closed(fields, "failed", fields["error"]))
            case "SpanRecorded":
                _keep(partial, span_of(offset, fields))
            case unknown:
                assert_never(unknown)
    partial.operations = operations_of(partial.spans.values())
    return partial


def combine(one: TracesPartial, other: TracesPartial) -> TracesPartial:
    """What both say together."""
    traces = {trace_id: replace(trace) for trace_id, trace in one.traces.items()}
    partial = TracesPartial(traces, dict(one.spans))
    absorb(partial, other)
    partial.operations = operations_of(partial.spans.values())
    return partial


def absorb(partial: TracesPartial, other: TracesPartial) -> None:
    """Add to the partial what the other one says, but for the operations."""
    for trace_id, new in other.traces.items():
        trace = partial.traces.setdefault(trace_id, TracePartial())
        if new.created is not None:
            trace.created = better_half(trace.created, new.created)
        if new.closed is not None:
            trace.closed = better_half(trace.closed, new.closed)
        trace.version = max(trace.version, new.version)
        trace.last_event_at = max(trace.last_event_at, new.last_event_at)
    for span in other.spans.values():
        _keep(partial, span)


def better_half(one: Half | None, other: Half) -> Half:
    """Of two halves the one of the lesser root; of one root's the later one."""
    if one is None or other.root < one.root:
        return other
    is_later = other.root == one.root and (other.occurred_at, other.event_id) > (one.occurred_at, one.event_id)
    return other if is_later else one


def _created(fields: Fields) -> Created:
    return Created(
        root_key(fields["span_id"], fields["start_time"]), fields["occurred_at"], fields["event_id"],
        fields["service_name"], fields["operation_name"], fields["start_time"], fields["tags"],
    )  # fmt: skip


def _closed(fields: Fields, status: str, error: str | None) -> Closed:
    return Closed(
        root_key(fields["span_id"], fields["start_time"]), fields["occurred_at"], fields["event_id"],
        status, error, fields["end_time"], fields["tags"],
    )  # fmt: skip


def _keep(partial: TracesPartial, span: Span) -> None:
    """Keep the span, and count it with its trace, unless another record of it wins. Extremes only grow: of two records of a span
    the start is the same, and the later end wins.
    """
    identity, trace = span.identity, partial.traces[span.trace_id]
    rival = partial.spans.get(identity)
    if rival is None:
        trace.span_count += 1
    elif span.replaces(rival):
        trace.error_count -= rival.status == "error"
    else:
        return
    partial.spans[identity] = span
    trace.error_count += span.status == "error"
    if trace.first_span_start is None or span.start < trace.first_span_start:
        trace.first_span_start = span.start
    if trace.last_span_end is None or span.end > trace.last_span_end:
        trace.last_span_end = span.end

"""Traces of the domain ⇄ events of the log. A repository saves a trace by appending the facts that the log does not have yet."""

from spanfold.application.aggregates.traces import TraceState
from spanfold.application.domain.ids import ServiceId, SpanId, TraceId
from spanfold.application.domain.spans import Span
from spanfold.application.domain.traces import Trace, TraceStatus
from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed

SpanKey = tuple[str, str, str, int]


def trace_of(state: TraceState) -> Trace | None:
    """The trace with this state; None without its root's TraceCreated. Facts that violate a rule of the domain (an end before
    the start) are kept as they are.
    """
    created, closed = state.root_created, state.root_closed
    if created is None:
        return None
    spans = sorted(state.spans.values(), key=lambda span: (span.start_time, span.event_id))
    return Trace(
        id=TraceId.known(state.trace_id),
        service_id=ServiceId.known(created.service_name),
        operation_name=created.operation_name,
        start=created.start_time,
        end=state.end_time,
        status=TraceStatus(state.status) if state.status in list(TraceStatus) else state.status,
        error=state.error,
        spans=tuple(span_of(span) for span in spans if span.end_time >= span.start_time),
        tags=created.tags,
        closing_tags=closed.tags if closed else {},
    )


def span_of(event: SpanRecorded) -> Span:
    """The span that the event recorded."""
    parent = event.parent_span_id
    return Span(
        id=SpanId.known(event.span_id),
        operation_name=event.operation_name,
        start=event.start_time,
        end=event.end_time,
        parent_id=SpanId.known(parent) if parent and parent != event.span_id else None,
        service_id=ServiceId.known(event.service_name),
        kind=event.kind,
        status=event.status,
        status_message=event.status_message,
        tags=event.tags,
    )


def facts_to_add(trace: Trace, state: TraceState, source: str) -> list[TraceEvent]:
    """The facts to append so that the log has all of this trace, when `state` is in the log already. A creation, an end and spans
    that the log already has stay as they are.
    """
    facts: list[TraceEvent] = []
    root = state.root_created or state.root_closed
    span_id = root.span_id if root is not None else None
    if state.root_created is None:
        facts.append(_created(trace, source, span_id))
    ends: dict[SpanKey, int] = {}
    for held in state.spans.values():
        ends[_key(held)] = max(held.end_time, ends.get(_key(held), held.end_time))
    recorded = [_recorded(trace, span, source) for span in trace.spans]
    facts += [fact for fact in recorded if ends.get(_key(fact), fact.end_time - 1) < fact.end_time]
    if trace.end is not None and state.root_closed is None:
        facts.append(_closed(trace, trace.end, source, span_id))
    return facts


def _key(span: SpanRecorded) -> SpanKey:
    return (span.span_id, span.kind, span.service_name, span.start_time)


def _created(trace: Trace, source: str, span_id: str | None) -> TraceCreated:
    return TraceCreated(
        aggregate_id=trace.id,
        occurred_at=trace.start,
        source=source,
        service_name=trace.service_id,
        operation_name=trace.operation_name,
        start_time=trace.start,
        span_id=span_id,
        tags=trace.tags,
    )


def _recorded(trace: Trace, span: Span, source: str) -> SpanRecorded:
    return SpanRecorded(
        aggregate_id=trace.id,
        occurred_at=span.end,
        source=source,
        span_id=span.id,
        parent_span_id=span.parent_id,
        service_name=trace.service_of(span),
        operation_name=span.operation_name,
        start_time=span.start,
        end_time=span.end,
        kind=span.kind,
        status=span.status,
        status_message=span.status_message,
        tags=span.tags,
    )


def _closed(trace: Trace, end: int, source: str, span_id: str | None) -> TraceCompleted | TraceFailed:
    start = trace.start if span_id is not None else None
    if trace.status == TraceStatus.FAILED:
        return TraceFailed(
            aggregate_id=trace.id,
            occurred_at=end,
            source=source,
            error=trace.error or "",
            end_time=end,
            span_id=span_id,
            start_time=start,
            tags=trace.closing_tags,
        )
    return TraceCompleted(
        aggregate_id=trace.id,
        occurred_at=end,
        source=source,
        status=str(trace.status),
        end_time=end,
        span_id=span_id,
        start_time=start,
        tags=trace.closing_tags,
    )

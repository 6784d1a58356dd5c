"""The aggregate of a trace, on a telemetry topic: its events are facts that arrive in any order, its commands are merges.

Nothing expects a version here. A command is refused for what is known to be wrong; two that do not see each other both become
facts, and the later event wins: of two completions, or a completion and a failure, the one with the greater (occurred_at,
event_id), as in the read models (spanfold.projections.traces.fold).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, assert_never, cast

from spanfold.application.aggregates.base import Aggregate
from spanfold.application.messages import DomainCommand, Micros
from spanfold.language.errors import CommandRefused
from spanfold.language.events import (
    DomainEvent,
    SpanRecorded,
    Tags,
    TagValue,
    TraceCompleted,
    TraceCreated,
    TraceEvent,
    TraceFailed,
    events_of,
)
from spanfold.language.topics import TRACES

Closing = TraceCompleted | TraceFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTrace(DomainCommand):
    """The trace's root operation has started at `start_time`."""

    service_name: str
    operation_name: str
    start_time: Micros
    tags: Mapping[str, TagValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteTrace(DomainCommand):
    """The trace's root operation has ended as it should, at `end_time`."""

    end_time: Micros
    status: str = "completed"
    tags: Mapping[str, TagValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailTrace(DomainCommand):
    """The trace's root operation has ended with an error, at `end_time`."""

    error: str
    end_time: Micros
    tags: Mapping[str, TagValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSpan(DomainCommand):
    """A span of the trace has ended; the fields are those of SpanRecorded."""

    span_id: str
    service_name: str
    operation_name: str
    start_time: Micros
    end_time: Micros
    parent_span_id: str | None = None
    kind: str = "internal"
    status: str = "unset"
    status_message: str | None = None
    tags: Mapping[str, TagValue] = field(default_factory=dict)


Identity = tuple[int, bytes]
"""What tells events apart: (occurred_at, event_id)."""

TraceCommand = StartTrace | CompleteTrace | FailTrace | AddSpan


@dataclass(frozen=True, slots=True)
class TraceState:
    """What the events of one trace say, whatever their order: the winning creation and end, every span by its event's
    identity, and the greatest event time. `versions` are those of the spans' records, as far as they are in the log.
    """

    trace_id: str
    created: TraceCreated | None = None
    closed: Closing | None = None
    spans: Mapping[Identity, SpanRecorded] = field(default_factory=dict)
    last_event_at: int | None = None
    versions: Mapping[Identity, int] = field(default_factory=dict, compare=False)

    @property
    def status(self) -> str:
        """started, what TraceCompleted says, or failed."""
        if self.closed is None:
            return "started"
        return self.closed.status if isinstance(self.closed, TraceCompleted) else "failed"

    @property
    def error(self) -> str | None:
        return self.closed.error if isinstance(self.closed, TraceFailed) else None

    @property
    def start_time(self) -> int | None:
        """From TraceCreated, else the earliest start of its spans; µs since 1970 UTC."""
        if self.created is not None:
            return self.created.start_time
        return min((span.start_time for span in self.spans.values()), default=None)

    @property
    def end_time(self) -> int | None:
        return None if self.closed is None else self.closed.end_time

    @property
    def tags(self) -> Tags:
        """Those of its creation, overlaid by those of its end."""
        return {**(self.created.tags if self.created else {}), **(self.closed.tags if self.closed else {})}


E_ = TypeVar("E_", TraceCreated, Closing)


def _later(one: E_ | None, other: E_) -> E_:
    return other if one is None or (other.occurred_at, other.event_id) > (one.occurred_at, one.event_id) else one


class TraceAggregate(Aggregate[TraceState]):
    """A trace. `start_trace`, `complete_trace`, `fail_trace` and `add_span` decide and return the new events."""

    topic = TRACES
    events = events_of(TRACES)
    commands = (StartTrace, CompleteTrace, FailTrace, AddSpan)
    snapshot = "TraceSnapshot"

    @property
    def status(self) -> str:
        return self.state.status

    def start_trace(self, service_name: str, operation_name: str, start_time: int, **more: Any) -> Sequence[TraceEvent]:
        """See StartTrace, as with the others below."""
        return self._do(
            StartTrace, service_name=service_name, operation_name=operation_name, start_time=start_time, **more
        )

    def complete_trace(self, end_time: int, **more: Any) -> Sequence[TraceEvent]:
        return self._do(CompleteTrace, end_time=end_time, **more)

    def fail_trace(self, error: str, end_time: int, **more: Any) -> Sequence[TraceEvent]:
        return self._do(FailTrace, error=error, end_time=end_time, **more)

    def add_span(self, span_id: str, **said: Any) -> Sequence[TraceEvent]:
        return self._do(AddSpan, span_id=span_id, **said)

    def _do(self, command: type[TraceCommand], **said: Any) -> Sequence[TraceEvent]:
        return self.handle(command(aggregate_id=self.id, **said))  # type: ignore[return-value]

    @staticmethod
    def initial(aggregate_id: str) -> TraceState:
        return TraceState(aggregate_id)

    @staticmethod
    def decide(state: TraceState, command: TraceCommand) -> Sequence[TraceEvent]:
        match command:
            case StartTrace():
                return _start(state, command)
            case CompleteTrace() | FailTrace():
                return _close(state, command)
            case AddSpan():
                return _add_span(state, command)

    @staticmethod
    def evolve(state: TraceState, event: TraceEvent) -> TraceState:
        return _evolved(state, [event], {})

    @classmethod
    def evolve_all(cls, state: TraceState, recorded: Sequence[tuple[DomainEvent, int]]) -> TraceState:
        versions = {
            (event.occurred_at, event.event_id): version
            for event, version in recorded
            if isinstance(event, SpanRecorded)
        }
        return _evolved(state, [cast(TraceEvent, event) for event, _ in recorded], versions)

    @staticmethod
    def is_closed(state: TraceState) -> bool:
        return state.closed is not None

    @staticmethod
    def as_plain(state: TraceState) -> Mapping[str, Any]:
        closed, versions = state.closed, state.versions
        return {
            "trace_id": state.trace_id,
            "last_event_at": state.last_event_at,
            "created": state.created and state.created.as_fields(),
            "completed": closed.as_fields() if isinstance(closed, TraceCompleted) else None,
            "failed": closed.as_fields() if isinstance(closed, TraceFailed) else None,
            "spans": [
                {"version": versions.get(identity, 0), "span": state.spans[identity].as_fields()}
                for identity in sorted(state.spans)
            ],
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> TraceState:
        created = plain["created"] and TraceCreated(**plain["created"])
        closed = (plain["completed"] and TraceCompleted(**plain["completed"])) or (
            plain["failed"] and TraceFailed(**plain["failed"])
        )
        spans, versions = {}, {}
        for each in plain["spans"]:
            said = each["span"]
            span = SpanRecorded(**{**said, "events": tuple(said["events"]), "links": tuple(said["links"])})
            identity = (span.occurred_at, span.event_id)
            spans[identity] = span
            if each["version"]:
                versions[identity] = each["version"]
        return TraceState(plain["trace_id"], created, closed, spans, plain["last_event_at"], versions)


def _evolved(state: TraceState, events: Sequence[TraceEvent], versions: Mapping[Identity, int]) -> TraceState:
    """The state after these events, in any order; `versions` are those of their spans."""
    created, closed, last = state.created, state.closed, state.last_event_at
    spans: dict[Identity, SpanRecorded] = {}
    for event in events:
        if last is None or event.occurred_at > last:
            last = event.occurred_at
        match event:
            case SpanRecorded():
                spans[event.occurred_at, event.event_id] = event
            case TraceCreated():
                created = _later(created, event)
            case TraceCompleted() | TraceFailed():
                closed = _later(closed, event)
            case unknown:
                assert_never(unknown)
    return TraceState(
        state.trace_id,
        created,
        closed,
        {**state.spans, **spans} if spans else state.spans,
        last,
        {**state.versions, **versions} if versions else state.versions,
    )


def _start(state: TraceState, command: StartTrace) -> Sequence[TraceEvent]:
    created = TraceCreated(
        aggregate_id=state.trace_id,
        occurred_at=command.start_time,
        source=command.source,
        service_name=command.service_name,
        operation_name=command.operation_name,
        start_time=command.start_time,
        tags=command.tags,
    )
    if state.created is None:
        if state.closed is not None and state.closed.end_time < command.start_time:
            raise _ends_before_start(state.trace_id, command.start_time, state.closed.end_time)
        return [created]
    if _differs(state.created, created):
        raise CommandRefused(
            f"trace {state.trace_id} was started by {state.created.service_name} as {state.created.operation_name} at "
            f"{state.created.start_time}: start another trace under an id of its own"
        )
    return []


def _close(state: TraceState, command: CompleteTrace | FailTrace) -> Sequence[TraceEvent]:
    closed = _closing(state.trace_id, command)
    if state.closed is not None:
        if _differs(state.closed, closed):
            raise CommandRefused(
                f"trace {state.trace_id} is {state.status} since {state.closed.end_time}: it ends once; "
                "late spans are all that it still takes"
            )
        return []
    if state.created is not None and command.end_time < state.created.start_time:
        raise _ends_before_start(state.trace_id, state.created.start_time, command.end_time)
    return [closed]


def _closing(trace_id: str, command: CompleteTrace | FailTrace) -> Closing:
    said: dict[str, Any] = {
        "aggregate_id": trace_id,
        "occurred_at": command.end_time,
        "source": command.source,
        "end_time": command.end_time,
        "tags": command.tags,
    }
    if isinstance(command, FailTrace):
        return TraceFailed(error=command.error, **said)
    if command.status in ("", "started", "failed"):
        raise CommandRefused(f"trace {trace_id} can't be completed as {command.status!r}: fail it, or say how it ended")
    return TraceCompleted(status=command.status, **said)


def _add_span(state: TraceState, command: AddSpan) -> Sequence[TraceEvent]:
    if command.end_time < command.start_time:
        raise CommandRefused(
            f"span {command.span_id} ends before it starts: its end_time must not lie before {command.start_time}"
        )
    span = SpanRecorded(
        aggregate_id=state.trace_id,
        occurred_at=command.end_time,
        source=command.source,
        span_id=command.span_id,
        parent_span_id=command.parent_span_id,
        service_name=command.service_name,
        operation_name=command.operation_name,
        start_time=command.start_time,
        end_time=command.end_time,
        kind=command.kind,
        status=command.status,
        status_message=command.status_message,
        tags=command.tags,
    )
    for held in state.spans.values():
        if held.identity() == span.identity():
            if _differs(held, span):
                raise CommandRefused(
                    f"trace {state.trace_id} holds another span {span.span_id} of kind {span.kind} and service "
                    f"{span.service_name}: a span that has ended does not change, give the new one an id of its own"
                )
            return []
    return [span]


def _differs(held: TraceEvent, wished: TraceEvent) -> bool:
    """Whether they say other things; who said them, and what a command can't say of a span, is no difference."""
    unsaid = {"source", "event_id", "events", "links"}
    one, other = held.as_fields(), wished.as_fields()
    return type(held) is not type(wished) or any(one[name] != other[name] for name in one.keys() - unsaid)


def _ends_before_start(trace_id: str, start: int, end: int) -> CommandRefused:
    return CommandRefused(
        f"trace {trace_id} can't end {start - end} µs before it starts: its end must not lie before {start}"
    )

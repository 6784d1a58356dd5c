"""The aggregate of a trace, on a telemetry topic: its events are facts and arrive in any order.

Appends expect no version. A command is refused if it contradicts the known state. If two commands do not see each other, both
become facts; of two completions, or a completion and a failure, the one with the greater (occurred_at, event_id) wins, as in
the read models (spanfold.projections.traces.fold).
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
    event_classes,
)
from spanfold.language.topics import TRACES

Closing = TraceCompleted | TraceFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTrace(DomainCommand):
    """Start a trace: its root operation started at `start_time`."""

    service_name: str
    operation_name: str
    start_time: Micros
    tags: Mapping[str, TagValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteTrace(DomainCommand):
    """Complete a trace: its root operation ended without an error at `end_time`."""

    end_time: Micros
    status: str = "completed"
    tags: Mapping[str, TagValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailTrace(DomainCommand):
    """Fail a trace: its root operation ended with an error at `end_time`."""

    error: str
    end_time: Micros
    tags: Mapping[str, TagValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSpan(DomainCommand):
    """Add a span that has ended. The fields are those of SpanRecorded."""

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
"""What distinguishes events: (occurred_at, event_id)."""

TraceCommand = StartTrace | CompleteTrace | FailTrace | AddSpan


@dataclass(frozen=True, slots=True)
class TraceState:
    """The state of a trace, the same for every order of its events: the winning creation and end, all spans by the identity of
    their event, and the latest event time. `versions` has the versions of spans whose records are in the log.
    """

    trace_id: str
    created: TraceCreated | None = None
    closed: Closing | None = None
    spans: Mapping[Identity, SpanRecorded] = field(default_factory=dict)
    last_event_at: int | None = None
    versions: Mapping[Identity, int] = field(default_factory=dict, compare=False)

    @property
    def status(self) -> str:
        """started; once it has ended, the status in TraceCompleted, or failed."""
        if self.closed is None:
            return "started"
        return self.closed.status if isinstance(self.closed, TraceCompleted) else "failed"

    @property
    def error(self) -> str | None:
        return self.closed.error if isinstance(self.closed, TraceFailed) else None

    @property
    def start_time(self) -> int | None:
        """From TraceCreated, else the earliest start of the spans; µs since 1970 UTC."""
        if self.created is not None:
            return self.created.start_time
        return min((span.start_time for span in self.spans.values()), default=None)

    @property
    def end_time(self) -> int | None:
        return None if self.closed is None else self.closed.end_time

    @property
    def tags(self) -> Tags:
        """The tags of its creation, overridden by those of its end."""
        return {**(self.created.tags if self.created else {}), **(self.closed.tags if self.closed else {})}


E_ = TypeVar("E_", TraceCreated, Closing)


def _later(one: E_ | None, other: E_) -> E_:
    return other if one is None or (other.occurred_at, other.event_id) > (one.occurred_at, one.event_id) else one


class TraceAggregate(Aggregate[TraceState]):
    """A trace. `start_trace`, `complete_trace`, `fail_trace` and `add_span` handle a command and return its events."""

    topic = TRACES
    events = event_classes(TRACES)
    commands = (StartTrace, CompleteTrace, FailTrace, AddSpan)
    snapshot = "TraceSnapshot"

    @property
    def status(self) -> str:
        return self.state.status

    def start_trace(
        self, service_name: str, operation_name: str, start_time: int, **other: Any
    ) -> Sequence[TraceEvent]:
        """Handle StartTrace. The methods below handle the other commands."""
        return self._handle(
            StartTrace, service_name=service_name, operation_name=operation_name, start_time=start_time, **other
        )

    def complete_trace(self, end_time: int, **other: Any) -> Sequence[TraceEvent]:
        return self._handle(CompleteTrace, end_time=end_time, **other)

    def fail_trace(self, error: str, end_time: int, **other: Any) -> Sequence[TraceEvent]:
        return self._handle(FailTrace, error=error, end_time=end_time, **other)

    def add_span(self, span_id: str, **other: Any) -> Sequence[TraceEvent]:
        return self._handle(AddSpan, span_id=span_id, **other)

    def _handle(self, command: type[TraceCommand], **fields: Any) -> Sequence[TraceEvent]:
        return self.handle(command(aggregate_id=self.id, **fields))  # type: ignore[return-value]

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
        for entry in plain["spans"]:
            fields = entry["span"]
            span = SpanRecorded(**{**fields, "events": tuple(fields["events"]), "links": tuple(fields["links"])})
            identity = (span.occurred_at, span.event_id)
            spans[identity] = span
            if entry["version"]:
                versions[identity] = entry["version"]
        return TraceState(plain["trace_id"], created, closed, spans, plain["last_event_at"], versions)


def _evolved(state: TraceState, events: Sequence[TraceEvent], versions: Mapping[Identity, int]) -> TraceState:
    """The state after these events, in any order. `versions` has the versions of their spans."""
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
            f"trace {state.trace_id} was already started by {state.created.service_name} as {state.created.operation_name} at "
            f"{state.created.start_time}: use another id for another trace"
        )
    return []


def _close(state: TraceState, command: CompleteTrace | FailTrace) -> Sequence[TraceEvent]:
    closed = _closing(state.trace_id, command)
    if state.closed is not None:
        if _differs(state.closed, closed):
            raise CommandRefused(
                f"trace {state.trace_id} already ended as {state.status} at {state.closed.end_time}: it can't end again, "
                "and only takes late spans"
            )
        return []
    if state.created is not None and command.end_time < state.created.start_time:
        raise _ends_before_start(state.trace_id, state.created.start_time, command.end_time)
    return [closed]


def _closing(trace_id: str, command: CompleteTrace | FailTrace) -> Closing:
    fields: dict[str, Any] = {
        "aggregate_id": trace_id,
        "occurred_at": command.end_time,
        "source": command.source,
        "end_time": command.end_time,
        "tags": command.tags,
    }
    if isinstance(command, FailTrace):
        return TraceFailed(error=command.error, **fields)
    if command.status in ("", "started", "failed"):
        raise CommandRefused(
            f"trace {trace_id} can't be completed as {command.status!r}: fail it, or use another status"
        )
    return TraceCompleted(status=command.status, **fields)


def _add_span(state: TraceState, command: AddSpan) -> Sequence[TraceEvent]:
    if command.end_time < command.start_time:
        raise CommandRefused(
            f"span {command.span_id} ends before it starts: its end_time must not be before {command.start_time}"
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
    for known in state.spans.values():
        if known.identity() == span.identity():
            if _differs(known, span):
                raise CommandRefused(
                    f"trace {state.trace_id} has a different span {span.span_id} of kind {span.kind} and service "
                    f"{span.service_name}: a span can't change after it has ended, give the new one another id"
                )
            return []
    return [span]


def _differs(known: TraceEvent, requested: TraceEvent) -> bool:
    """Whether they differ in anything but their publisher and the fields that commands don't have."""
    ignored = {"source", "event_id", "events", "links"}
    one, other = known.as_fields(), requested.as_fields()
    return type(known) is not type(requested) or any(one[name] != other[name] for name in one.keys() - ignored)


def _ends_before_start(trace_id: str, start: int, end: int) -> CommandRefused:
    return CommandRefused(
        f"trace {trace_id} can't end {start - end} µs before it starts: its end must not be before {start}"
    )

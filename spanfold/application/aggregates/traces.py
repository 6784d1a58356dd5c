"""The aggregate of a trace, on a telemetry topic: its events are facts and arrive in any order.

Appends expect no version. A command is refused if it contradicts the known state. If two commands do not see each other, both
become facts. The read models share the rule by which facts count (projections/traces/fold.py, spans.py): of several roots, the
one with the least (start_time, span_id), and facts without a span id before all others; of one root's facts, the one with the
greatest (occurred_at, event_id); of several records of a span, the one with the greatest (end_time, event_id).
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
from spanfold.language.trace_identity import RootKey, own_id, root_key

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


SpanKey = tuple[str, str, str, int, bytes]
"""(span_id, kind, service_name, start_time, event_id of a span that is longer than MAX_SPAN_US else b"")."""

TraceCommand = StartTrace | CompleteTrace | FailTrace | AddSpan


@dataclass(frozen=True, slots=True)
class TraceState:
    """The state of a trace, the same for every order of its events: the winning halves of a root, all spans, and the latest event
    time. `versions` has the versions of spans whose records are in the log. `created` and `closed` may belong to two roots;
    `root_created` and `root_closed` are those of the trace's root.
    """

    trace_id: str
    created: TraceCreated | None = None
    closed: Closing | None = None
    spans: Mapping[SpanKey, SpanRecorded] = field(default_factory=dict)
    last_event_at: int | None = None
    versions: Mapping[SpanKey, int] = field(default_factory=dict, compare=False)

    @property
    def root_created(self) -> TraceCreated | None:
        """The root's beginning, if that is known."""
        held, other = self.created, self.closed
        return held if held is not None and (other is None or root_of(held) <= root_of(other)) else None

    @property
    def root_closed(self) -> Closing | None:
        """The root's end, if that is known."""
        held, other = self.closed, self.created
        return held if held is not None and (other is None or root_of(held) <= root_of(other)) else None

    @property
    def status(self) -> str:
        """started; once it has ended, the status in TraceCompleted, or failed; incomplete without a root."""
        closed = self.root_closed
        if closed is None:
            return "incomplete" if self.created is None and self.spans else "started"
        return closed.status if isinstance(closed, TraceCompleted) else "failed"

    @property
    def error(self) -> str | None:
        return self.root_closed.error if isinstance(self.root_closed, TraceFailed) else None

    @property
    def start_time(self) -> int | None:
        """The start of the root span, else the earliest start of the spans; µs since 1970 UTC."""
        root = self.root_created or self.root_closed
        if root is not None and root.start_time is not None:
            return root.start_time
        return min((span.start_time for span in self.spans.values()), default=None)

    @property
    def end_time(self) -> int | None:
        """The root span's; without a root the latest end of its spans."""
        if self.created is None and self.closed is None:
            return max((span.end_time for span in self.spans.values()), default=None)
        return None if self.root_closed is None else self.root_closed.end_time

    @property
    def tags(self) -> Tags:
        """The tags of the root's beginning, overridden by those of its end."""
        created, closed = self.root_created, self.root_closed
        return {**(created.tags if created else {}), **(closed.tags if closed else {})}


Half = TypeVar("Half", TraceCreated, Closing)


def root_of(half: TraceCreated | Closing) -> RootKey:
    """The key of the root that the fact names."""
    return root_key(half.span_id, half.start_time)


def span_key(span: SpanRecorded) -> SpanKey:
    """What makes two records the same span of a trace."""
    own = own_id(span.start_time, span.end_time, span.event_id)
    return (span.span_id, span.kind, span.service_name, span.start_time, own)


def _better_half(one: Half | None, other: Half) -> Half:
    if one is None or root_of(other) < root_of(one):
        return other
    is_later = (other.occurred_at, other.event_id) > (one.occurred_at, one.event_id)
    return other if is_later and root_of(other) == root_of(one) else one


def _replaces(span: SpanRecorded, other: SpanRecorded | None) -> bool:
    return other is None or (span.end_time, span.event_id) > (other.end_time, other.event_id)


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
        versions = {event.event_id: version for event, version in recorded if isinstance(event, SpanRecorded)}
        return _evolved(state, [cast(TraceEvent, event) for event, _ in recorded], versions)

    @staticmethod
    def is_closed(state: TraceState) -> bool:
        return state.root_closed is not None

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
            spans[span_key(span)] = span
            if entry["version"]:
                versions[span_key(span)] = entry["version"]
        return TraceState(plain["trace_id"], created, closed, spans, plain["last_event_at"], versions)


def _evolved(state: TraceState, events: Sequence[TraceEvent], version_of: Mapping[bytes, int]) -> TraceState:
    """The state after these events, in any order. `version_of` has the versions of their spans by event id."""
    created, closed, last = state.created, state.closed, state.last_event_at
    spans: dict[SpanKey, SpanRecorded] = {}
    for event in events:
        if last is None or event.occurred_at > last:
            last = event.occurred_at
        match event:
            case SpanRecorded():
                key = span_key(event)
                if _replaces(event, spans.get(key) or state.spans.get(key)):
                    spans[key] = event
            case TraceCreated():
                created = _better_half(created, event)
            case TraceCompleted() | TraceFailed():
                closed = _better_half(closed, event)
            case unknown:
                assert_never(unknown)
    versions = {key: version_of[span.event_id] for key, span in spans.items() if span.event_id in version_of}
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
        span_id=_root_span_id(state, command.start_time),
        tags=command.tags,
    )
    held = state.root_created
    if held is None:
        if state.root_closed is not None and state.root_closed.end_time < command.start_time:
            raise _ends_before_start(state.trace_id, command.start_time, state.root_closed.end_time)
        return [created]
    if _differs(held, created):
        raise CommandRefused(
            f"trace {state.trace_id} was already started by {held.service_name} as {held.operation_name} at "
            f"{held.start_time}: use another id for another trace"
        )
    return []


def _root_span_id(state: TraceState, start_time: int) -> str | None:
    """The id of the root span, if it is known. CommandRefused when that started at another time."""
    root = state.root_created or state.root_closed
    if root is None or root.span_id is None:
        return None
    if root.start_time != start_time:
        raise CommandRefused(
            f"the root span {root.span_id} of trace {state.trace_id} started at {root.start_time}, not at {start_time}: "
            "start another trace under an id of its own"
        )
    return root.span_id


def _close(state: TraceState, command: CompleteTrace | FailTrace) -> Sequence[TraceEvent]:
    closed, held = _closing(state, command), state.root_closed
    if held is not None:
        if _differs(held, closed):
            raise CommandRefused(
                f"trace {state.trace_id} already ended as {state.status} at {held.end_time}: it can't end again, "
                "and only takes late spans"
            )
        return []
    if state.root_created is not None and command.end_time < state.root_created.start_time:
        raise _ends_before_start(state.trace_id, state.root_created.start_time, command.end_time)
    return [closed]


def _closing(state: TraceState, command: CompleteTrace | FailTrace) -> Closing:
    root = state.root_created or state.root_closed
    span_id = root.span_id if root is not None else None
    fields: dict[str, Any] = {
        "aggregate_id": state.trace_id,
        "occurred_at": command.end_time,
        "source": command.source,
        "end_time": command.end_time,
        "span_id": span_id,
        "start_time": root.start_time if root is not None and span_id is not None else None,
        "tags": command.tags,
    }
    if isinstance(command, FailTrace):
        return TraceFailed(error=command.error, **fields)
    if command.status in ("", "started", "failed", "incomplete"):
        raise CommandRefused(
            f"trace {state.trace_id} can't be completed as {command.status!r}: fail it, or use another status"
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
    held = state.spans.get(span_key(span))
    if held is None or span.end_time > held.end_time:
        return [span]
    if span.end_time == held.end_time and _differs(held, span):
        raise CommandRefused(
            f"trace {state.trace_id} has a different span {span.span_id} of kind {span.kind} and service "
            f"{span.service_name}: a span can't change after it has ended, give the new one another id"
        )
    return []


def _differs(known: TraceEvent, requested: TraceEvent) -> bool:
    """Whether they differ in anything but their publisher and the fields that commands don't have."""
    ignored = {"source", "event_id", "events", "links"}
    one, other = known.as_fields(), requested.as_fields()
    return type(known) is not type(requested) or any(one[name] != other[name] for name in one.keys() - ignored)


def _ends_before_start(trace_id: str, start: int, end: int) -> CommandRefused:
    return CommandRefused(
        f"trace {trace_id} can't end {start - end} µs before it starts: its end must not be before {start}"
    )

"""The facts of the trace topic. Past tense, frozen; times are µs since 1970 UTC, tags are attributes as OpenTelemetry has them.

Every event knows its aggregate (the trace id, which is also the record's key), when it happened, who published it, and an
id that is derived from what it is, so that a retry is the same event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, Final

from spanfold.ids import event_id
from spanfold.topics import TRACES, Topic

Scalar = str | int | float | bool
TagValue = Scalar | Sequence[Scalar]
Tags = Mapping[str, TagValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """What all events share. `event_id` (16 bytes) is derived from `occurred_at` and `identity` unless it is given."""

    aggregate_id: str
    occurred_at: int
    source: str
    event_id: bytes = b""

    topic: ClassVar[Topic]

    def __post_init__(self) -> None:
        if not self.event_id:
            derived = event_id(self.occurred_at, type(self).__name__, self.aggregate_id, *self.identity())
            object.__setattr__(self, "event_id", derived)

    def identity(self) -> tuple[str, ...]:
        """What tells this event from others of its type, aggregate and time."""
        return ()

    @property
    def event_type(self) -> str:
        return type(self).__name__

    def as_fields(self) -> dict[str, Any]:
        """The fields by name, as the codec takes them."""
        names, get = _GETTERS[type(self)]
        return dict(zip(names, get(self), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCreated(DomainEvent):
    """A trace has begun: its root operation started at `start_time`."""

    topic: ClassVar[Topic] = TRACES
    service_name: str
    operation_name: str
    start_time: int
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecorded(DomainEvent):
    """A span of the trace has ended. `kind` and `status` are OpenTelemetry's SpanKind and StatusCode in lower case;
    `events` are {name, time, attributes}, `links` {trace_id, span_id, attributes}.
    """

    topic: ClassVar[Topic] = TRACES
    span_id: str
    parent_span_id: str | None
    service_name: str
    operation_name: str
    start_time: int
    end_time: int
    kind: str = "internal"
    status: str = "unset"
    status_message: str | None = None
    tags: Tags = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    links: tuple[Mapping[str, Any], ...] = ()

    def identity(self) -> tuple[str, ...]:
        """Span, kind and service: Zipkin's two halves of a span share its id and are two events."""
        return (self.span_id, self.kind, self.service_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCompleted(DomainEvent):
    """The trace's root operation ended as it should."""

    topic: ClassVar[Topic] = TRACES
    end_time: int
    status: str = "completed"
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFailed(DomainEvent):
    """The trace's root operation ended with an error."""

    topic: ClassVar[Topic] = TRACES
    error: str
    end_time: int
    tags: Tags = field(default_factory=dict)


TraceEvent = TraceCreated | SpanRecorded | TraceCompleted | TraceFailed

EVENT_TYPES: Final[dict[str, type[TraceEvent]]] = {
    cls.__name__: cls for cls in (TraceCreated, SpanRecorded, TraceCompleted, TraceFailed)
}


def from_fields(event_type: str, values: Mapping[str, Any]) -> TraceEvent:
    """The event whose decoded fields these are. KeyError for a type that nobody knows."""
    return EVENT_TYPES[event_type](**values)


def _getter(cls: type[TraceEvent]) -> tuple[tuple[str, ...], Any]:
    names = tuple(each.name for each in fields(cls))
    return names, attrgetter(*names)


_GETTERS: Final[dict[type[DomainEvent], tuple[tuple[str, ...], Any]]] = {
    cls: _getter(cls) for cls in EVENT_TYPES.values()
}

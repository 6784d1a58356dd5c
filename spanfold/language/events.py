"""The events: facts in the past tense, immutable. Times are µs since 1970 UTC, tags are attributes as in OpenTelemetry.

Every event has the id of its aggregate (such as the trace id), which is the record's key, the time when it happened, its
publisher, and an id that is derived from its content, so that a retry is the same event.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, Final, get_args

from spanfold.language.documents import canonical
from spanfold.language.ids import event_id
from spanfold.language.topics import LOGS, METRICS, SERVICES, TRACES, Topic, topic_named, topic_of

TagValue = str | int | float | bool | None | Sequence[Any] | Mapping[str, Any]
Tags = Mapping[str, TagValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """Base of all events. `event_id` (16 bytes) is by default derived from `occurred_at` and `identity`."""

    aggregate_id: str
    occurred_at: int
    source: str
    event_id: bytes = b""

    home: ClassVar[Topic | None] = None
    """The topic of events of this type, if it is always the same."""

    @property
    def topic(self) -> Topic:
        """The topic of this event."""
        if self.home is None:
            raise TypeError(f"{type(self).__name__} has no topic of its own")
        return self.home

    def __post_init__(self) -> None:
        if not self.event_id:
            derived = event_id(self.occurred_at, type(self).__name__, self.aggregate_id, *self.identity())
            object.__setattr__(self, "event_id", derived)

    def identity(self) -> tuple[str, ...]:
        """What distinguishes this event from others of the same type, aggregate and time."""
        return ()

    @property
    def event_type(self) -> str:
        return type(self).__name__

    def as_fields(self) -> dict[str, Any]:
        """The fields by name, for the codec."""
        names, get = _GETTERS.get(type(self)) or _add_getter(type(self))
        return dict(zip(names, get(self), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCreated(DomainEvent):
    """A trace has started: its root operation started at `start_time`. `span_id` is the root span's, if it is known."""

    home: ClassVar[Topic | None] = TRACES
    service_name: str
    operation_name: str
    start_time: int
    span_id: str | None = None
    tags: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        return _root_identity(self.span_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecorded(DomainEvent):
    """A span of the trace has ended. `kind` and `status` are OpenTelemetry's SpanKind and StatusCode in lower case;
    `events` are {name, time, attributes}, `links` {trace_id, span_id, attributes}; resource and scope are OpenTelemetry's.
    """

    home: ClassVar[Topic | None] = TRACES
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
    resource: Tags = field(default_factory=dict)
    scope_name: str = ""
    scope_version: str = ""
    scope_attributes: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        """Span, kind and service: Zipkin's client and server share a span id, and are two events."""
        return (self.span_id, self.kind, self.service_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCompleted(DomainEvent):
    """The trace's root operation ended without an error. `span_id` and `start_time` are the root span's: both or neither."""

    home: ClassVar[Topic | None] = TRACES
    end_time: int
    status: str = "completed"
    span_id: str | None = None
    start_time: int | None = None
    tags: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        return _root_identity(self.span_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFailed(DomainEvent):
    """The trace's root operation ended with an error; `span_id` and `start_time` as with TraceCompleted."""

    home: ClassVar[Topic | None] = TRACES
    error: str
    end_time: int
    span_id: str | None = None
    start_time: int | None = None
    tags: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        return _root_identity(self.span_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricUpdated(DomainEvent):
    """A point of a metric's series. `aggregate_id` is the series id (see `series_id`), `occurred_at` is the point's time.

    `kind` is gauge, sum, histogram or exponential_histogram; `temporality` is delta, cumulative or None. A gauge or a sum has a
    `value`. A histogram has `count`, `sum`, `bounds` and one more `bucket_counts` than bounds. An exponential histogram has
    `count`, `sum`, `scale`, `zero_count` and positive and negative buckets.
    """

    home: ClassVar[Topic | None] = METRICS
    name: str
    service_name: str
    unit: str = ""
    kind: str = "gauge"
    temporality: str | None = None
    monotonic: bool = False
    start_time: int | None = None
    value: int | float | None = None
    count: int | None = None
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    bounds: tuple[float, ...] = ()
    bucket_counts: tuple[int, ...] = ()
    scale: int | None = None
    zero_count: int | None = None
    positive_offset: int = 0
    positive_counts: tuple[int, ...] = ()
    negative_offset: int = 0
    negative_counts: tuple[int, ...] = ()
    labels: Tags = field(default_factory=dict)
    resource: Tags = field(default_factory=dict)
    scope_name: str = ""
    scope_version: str = ""
    scope_attributes: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        """The measured values: another value of the same series at the same time is another event."""
        measured = (
            self.value, self.count, self.sum, self.min, self.max, *self.bucket_counts,
            self.scale, self.zero_count, *self.positive_counts, *self.negative_counts,
        )  # fmt: skip
        return tuple(map(repr, measured))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecorded(DomainEvent):
    """Something was logged. `aggregate_id` is the trace id if there is one, else the service's name; `occurred_at` is the
    record's time, else its observed time. `severity_number` is OpenTelemetry's (1 to 24; 0 if unknown), `body` any JSON value.
    `ordinal` tells equal records of one batch apart.
    """

    home: ClassVar[Topic | None] = LOGS
    service_name: str
    severity_number: int = 0
    severity_text: str = ""
    body: TagValue = None
    event_name: str = ""
    observed_time: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    tags: Tags = field(default_factory=dict)
    ordinal: int = 0
    resource: Tags = field(default_factory=dict)
    scope_name: str = ""
    scope_version: str = ""
    scope_attributes: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        """All that it says, but for when it was observed."""
        return (
            self.service_name, str(self.severity_number), self.severity_text, self.event_name, self.trace_id or "",
            self.span_id or "", self.scope_name, canonical(self.body, "value", "body"),
            canonical(self.tags, "object", "tags"), canonical(self.resource, "object", "resource"), str(self.ordinal),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRegistered(DomainEvent):
    """An instance of a service can be called; `aggregate_id` is the instance's id. Registering it again replaces its data.
    `status` is starting, healthy, unhealthy or stopping.
    """

    home: ClassVar[Topic | None] = SERVICES
    service_name: str
    host: str
    port: int
    health_check_url: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: str = "starting"

    def identity(self) -> tuple[str, ...]:
        return (self.service_name, self.host, str(self.port))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHealthChanged(DomainEvent):
    """The status of an instance has changed; `reason` says what the change is based on."""

    home: ClassVar[Topic | None] = SERVICES
    status: str
    reason: str = ""

    def identity(self) -> tuple[str, ...]:
        return (self.status,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDeregistered(DomainEvent):
    """An instance is gone and must not be called."""

    home: ClassVar[Topic | None] = SERVICES
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch(DomainEvent):
    """Several events of one aggregate in one append to a conditional topic, with one verdict and one version (docs/adr/0010).

    `events` are {event_type, event_id, payload}; the payload is the value of the event's own record, see schemas/batches.py.
    """

    events: tuple[Mapping[str, Any], ...]

    @property
    def topic(self) -> Topic:
        event_type = self.events[0]["event_type"]
        topic = topic_of(event_type)
        if topic is None:
            raise KeyError(event_type)
        return topic

    def identity(self) -> tuple[str, ...]:
        return tuple(entry["event_id"].hex() for entry in self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ParkedRecordFact(DomainEvent):
    """About the parked record at `record_offset` of `record_topic`, in the partition of this event."""

    record_topic: str
    record_offset: int
    why: str = ""

    @property
    def topic(self) -> Topic:
        topic = topic_named(self.record_topic)
        if topic is None:
            raise KeyError(self.record_topic)
        return topic

    def identity(self) -> tuple[str, ...]:
        return (self.record_topic, str(self.record_offset))


class RecordRetried(_ParkedRecordFact):
    """The record is to be folded at this position of the log, if it can be read now."""

    __slots__ = ()


class RecordDiscarded(_ParkedRecordFact):
    """The record is given up for good."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceErased(DomainEvent):
    """Everything about the trace is deleted from every topic that this event is appended to, and later records of the trace are
    rejected there as erased. `aggregate_id` is the trace id (docs/adr/0014).
    """

    why: str = ""


def _root_identity(span_id: str | None) -> tuple[str, ...]:
    return () if span_id is None else (span_id,)


TraceEvent = TraceCreated | SpanRecorded | TraceCompleted | TraceFailed
MetricEvent = MetricUpdated
LogEvent = LogRecorded
ServiceEvent = ServiceRegistered | ServiceHealthChanged | ServiceDeregistered
Event = TraceEvent | MetricEvent | LogEvent | ServiceEvent | RecordRetried | RecordDiscarded | TraceErased | EventBatch
"""The classes of the event types that topics.py declares for each topic, and of those that several topics have."""

EVENT_TYPES: Final[dict[str, type[Event]]] = {cls.__name__: cls for cls in get_args(Event)}


def event_classes(topic: Topic) -> tuple[type[Event], ...]:
    """The classes of a topic's event types, in order. KeyError if one of them is not spanfold's."""
    return tuple(EVENT_TYPES[event_type] for event_type in topic.event_types)


def series_id(
    resource: Tags,
    scope_name: str,
    name: str,
    labels: Tags,
    scope_version: str = "",
    scope_attributes: Tags | None = None,
) -> str:
    """The id of a metric's series, 32 hex digits: a hash of resource, scope, name and labels as one list in canonical form."""
    parts = (
        canonical(resource, "object", "resource"),
        canonical(scope_name, "value", "scope_name"),
        canonical(scope_version, "value", "scope_version"),
        canonical(scope_attributes or {}, "object", "scope_attributes"),
        canonical(name, "value", "name"),
        canonical(labels, "object", "labels"),
    )
    return hashlib.blake2b(f"[{','.join(parts)}]".encode(), digest_size=16).hexdigest()


Getter = tuple[tuple[str, ...], Any]

_GETTERS: Final[dict[type[DomainEvent], Getter]] = {}


def _add_getter(cls: type[DomainEvent]) -> Getter:
    names = tuple(own.name for own in fields(cls))
    getter = _GETTERS[cls] = (names, attrgetter(*names))
    return getter

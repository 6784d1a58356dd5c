"""The facts. Past tense, frozen; times are µs since 1970 UTC, tags are attributes as OpenTelemetry has them.

Every event knows its aggregate (the trace id, which is also the record's key), when it happened, who published it, and an
id that is derived from what it is, so that a retry is the same event.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, Final, get_args

from spanfold.language.ids import event_id
from spanfold.language.topics import LOGS, METRICS, SERVICES, TRACES, Topic, topic_named, topic_of

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

    home: ClassVar[Topic | None] = None
    """The topic that carries events of this type, if it is always the same."""

    @property
    def topic(self) -> Topic:
        """The topic that carries this event."""
        if self.home is None:
            raise TypeError(f"{type(self).__name__} belongs to no topic")
        return self.home

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
        names, get = _GETTERS.get(type(self)) or _add_getter(type(self))
        return dict(zip(names, get(self), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCreated(DomainEvent):
    """A trace has begun: its root operation started at `start_time`."""

    home: ClassVar[Topic | None] = TRACES
    service_name: str
    operation_name: str
    start_time: int
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecorded(DomainEvent):
    """A span of the trace has ended. `kind` and `status` are OpenTelemetry's SpanKind and StatusCode in lower case;
    `events` are {name, time, attributes}, `links` {trace_id, span_id, attributes}.
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

    def identity(self) -> tuple[str, ...]:
        """Span, kind and service: Zipkin's two halves of a span share its id and are two events."""
        return (self.span_id, self.kind, self.service_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCompleted(DomainEvent):
    """The trace's root operation ended as it should."""

    home: ClassVar[Topic | None] = TRACES
    end_time: int
    status: str = "completed"
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFailed(DomainEvent):
    """The trace's root operation ended with an error."""

    home: ClassVar[Topic | None] = TRACES
    error: str
    end_time: int
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricUpdated(DomainEvent):
    """One point of a metric's series. `aggregate_id` is the series id, see `series_id`; `occurred_at` is the point's time.

    `kind` is gauge, sum, histogram or exponential_histogram; `temporality` delta, cumulative or None. A gauge or a sum has a
    `value`; a histogram `count`, `sum`, `bounds` and one more `bucket_counts` than bounds; an exponential one `scale`,
    `zero_count` and its positive and negative buckets.
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
    scope: str = ""
    labels: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        """What was measured: the same series at the same time with another value is another event."""
        measured = (
            self.value, self.count, self.sum, self.min, self.max, *self.bucket_counts,
            self.scale, self.zero_count, *self.positive_counts, *self.negative_counts,
        )  # fmt: skip
        return tuple(map(repr, measured))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLogged(DomainEvent):
    """Something went wrong, and a log said so. `aggregate_id` is the trace id if there is one, else the service's name."""

    home: ClassVar[Topic | None] = LOGS
    service_name: str
    message: str
    severity: str = "ERROR"
    logger: str = ""
    exception_type: str | None = None
    exception_message: str | None = None
    stacktrace: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    tags: Tags = field(default_factory=dict)

    def identity(self) -> tuple[str, ...]:
        return (self.service_name, self.logger, self.severity, self.message, self.span_id or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRegistered(DomainEvent):
    """An instance of a service can be called; `aggregate_id` is the instance's id. Registering it again replaces what was
    said of it. `status` is starting, healthy, unhealthy or stopping.
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
    """An instance's status is another than before; `reason` says what showed it."""

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
    """Several events of one aggregate in one append to a conditional topic: judged whole, one version (docs/adr/0010).

    `events` are {event_type, event_id, payload}; the payload is what the event's own record would hold, see schemas/batches.py.
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
        return tuple(each["event_id"].hex() for each in self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ParkedRecordFact(DomainEvent):
    """About the parked record at `record_offset` of `record_topic`, in the partition that this fact is appended to."""

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
    """The record is to be folded at this place of the log, if it can be read now."""

    __slots__ = ()


class RecordDiscarded(_ParkedRecordFact):
    """The record is given up for good."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceErased(DomainEvent):
    """All that the log holds of the trace goes, in every topic that it is appended to; later records of the trace are rejected
    there as erased. `aggregate_id` is the trace id (docs/adr/0014).
    """

    why: str = ""


TraceEvent = TraceCreated | SpanRecorded | TraceCompleted | TraceFailed
MetricEvent = MetricUpdated
LogEvent = ErrorLogged
ServiceEvent = ServiceRegistered | ServiceHealthChanged | ServiceDeregistered
Event = TraceEvent | MetricEvent | LogEvent | ServiceEvent | RecordRetried | RecordDiscarded | TraceErased | EventBatch
"""The classes of the types that topics.py declares for each topic, and of those that every topic may carry."""

EVENT_TYPES: Final[dict[str, type[Event]]] = {cls.__name__: cls for cls in get_args(Event)}


def events_of(topic: Topic) -> tuple[type[Event], ...]:
    """The classes of a topic's event types, in the topic's order. KeyError when one of them is not spanfold's."""
    return tuple(EVENT_TYPES[event_type] for event_type in topic.event_types)


def series_id(resource: Tags, scope: str, name: str, labels: Tags) -> str:
    """The id of a metric's series, 32 hex digits: a hash of what identifies it, in canonical form (keys sorted, JSON)."""
    identity = [sorted(resource.items()), scope, name, sorted(labels.items())]
    text = json.dumps(identity, separators=(",", ":"), ensure_ascii=True, sort_keys=True, default=list)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def from_fields(event_type: str, values: Mapping[str, Any]) -> Event:
    """The event whose decoded fields these are. KeyError for a type that nobody knows."""
    return EVENT_TYPES[event_type](**values)


Getter = tuple[tuple[str, ...], Any]

_GETTERS: Final[dict[type[DomainEvent], Getter]] = {}


def _add_getter(cls: type[DomainEvent]) -> Getter:
    names = tuple(each.name for each in fields(cls))
    getter = _GETTERS[cls] = (names, attrgetter(*names))
    return getter

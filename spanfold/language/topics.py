"""The topics and their rules. Pure: spanfold/kafka/topics.py creates and checks them on a broker.

A package adds topics of its own through the entry point group `spanfold.topics`, whose entries name a `Topic`. spanfold's own
topics are registered in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from spanfold.language.entry_points import load
from spanfold.language.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

US_PER_DAY: Final = 86_400_000_000
US_PER_MINUTE: Final = 60_000_000

Partition = tuple[str, int]
"""A topic's name without the installation's prefix, and the number of one of its partitions."""


class TopicKind(StrEnum):
    TELEMETRY = "telemetry"
    """Facts that have already happened. Appends expect no version; an event's version is its offset + 1."""
    CONDITIONAL = "conditional"
    """Appends may expect a version of their aggregate; the log arbitrates."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of the log.

    A telemetry topic that is not `journaled` has no verdict `duplicate`: its projections recognise duplicates themselves.
    The keys of an `erasable` topic are trace ids, and `spanfold erase` appends TraceErased to it.
    A telemetry event that is older than `window_days` when it reaches the log (log time minus event time) is rejected as
    `expired`, and one that is more than `future_days` ahead as `future`. Both are fixed for the topic's life, because a verdict
    must never depend on when it was given.
    """

    name: str
    kind: TopicKind
    event_types: tuple[str, ...]
    journaled: bool = True
    erasable: bool = False
    window_days: int = 30
    future_days: int = 1

    @property
    def short_name(self) -> str:
        """The last part of the name: `traces` for `spanfold.traces`."""
        return self.name.rpartition(".")[2]

    def on_broker(self, prefix: str) -> str:
        """The topic's name on the broker, with the installation's prefix."""
        return f"{prefix}{self.name}"

    def subject(self, record_name: str) -> str:
        """The schema registry's subject of a record (TopicRecordNameStrategy); `record_name` includes the namespace."""
        return f"{self.name}-{record_name}"


@dataclass(frozen=True, slots=True)
class TopicOnBroker:
    """A topic on the broker. `topic_id` comes from the broker: a topic that was deleted and created again has another one."""

    topic: Topic
    name: str
    topic_id: str
    partitions: int


TraceEventType = Literal["TraceCreated", "SpanRecorded", "TraceCompleted", "TraceFailed"]
MetricEventType = Literal["MetricUpdated"]
LogEventType = Literal["LogRecorded"]
ServiceEventType = Literal["ServiceRegistered", "ServiceHealthChanged", "ServiceDeregistered"]
PublishableEventType = TraceEventType | MetricEventType | LogEventType | ServiceEventType
"""The event types of each topic are declared here and nowhere else. Code that handles a topic's events matches on its alias and
ends on assert_never, so that a new type is a type error wherever it must be handled.
"""

TRACES: Final = Topic(
    name="spanfold.traces",
    kind=TopicKind.TELEMETRY,
    event_types=get_args(TraceEventType),
    erasable=True,
)

METRICS: Final = Topic(
    name="spanfold.metrics",
    kind=TopicKind.TELEMETRY,
    event_types=get_args(MetricEventType),
    journaled=False,
)

LOGS: Final = Topic(
    name="spanfold.logs",
    kind=TopicKind.TELEMETRY,
    event_types=get_args(LogEventType),
    erasable=True,
)

SERVICES: Final = Topic(
    name="spanfold.services",
    kind=TopicKind.CONDITIONAL,
    event_types=get_args(ServiceEventType),
)

ON_EVERY_TOPIC: Final = ("RecordRetried", "RecordDiscarded")
"""Facts about a parked record, appended to its partition."""

TRACE_ERASED: Final = "TraceErased"
"""Everything with this key is deleted from the topic for good. On every erasable topic."""

NOT_FOLDED: Final = (*ON_EVERY_TOPIC, TRACE_ERASED)
"""Facts about other records: no projection folds them, and no aggregate applies them."""

BATCH: Final = "EventBatch"
"""Several events in one append. On every conditional topic."""

SNAPSHOTS_TOPIC: Final = "spanfold.snapshots"
"""The log-compacted topic with the latest snapshot of each aggregate. It has no events."""

GROUP: Final = "spanfold.topics"


@lru_cache(maxsize=1)
def installed_topics() -> tuple[Topic, ...]:
    """The topics of spanfold and of all installed packages, ordered by name. Misconfigured when two of them collide, or an entry
    is not a topic.
    """
    from importlib.metadata import entry_points

    return checked_topics(entry_points(group=GROUP))


def checked_topics(entries: Iterable[EntryPoint]) -> tuple[Topic, ...]:
    """The topics of these entries, ordered by name."""
    topics = [_topic(load(entry), entry) for entry in entries]
    if not topics:
        raise Misconfigured(f"entry points of {GROUP} are out of date: reinstall spanfold")
    for one, other in combinations(topics, 2):
        _refuse_collision(one, other)
    return tuple(sorted(topics, key=lambda topic: topic.name))


def topic_of(event_type: str) -> Topic | None:
    """The topic with events of this type; None if there is none, or the type is on several topics."""
    return next((topic for topic in installed_topics() if event_type in topic.event_types), None)


def topic_named(name: str) -> Topic | None:
    """The topic with this name (without the installation's prefix); None if there is none."""
    return next((topic for topic in installed_topics() if topic.name == name), None)


def _topic(loaded: Any, entry: EntryPoint) -> Topic:
    if not isinstance(loaded, Topic):
        raise Misconfigured(f"entry point {GROUP}: {entry.name} = {entry.value} must be a Topic, got {loaded!r}")
    if loaded.erasable and not (loaded.kind is TopicKind.TELEMETRY and loaded.journaled):
        raise Misconfigured(f"topic {loaded.name}: only a journaled telemetry topic can be erasable")
    return loaded


def _refuse_collision(one: Topic, other: Topic) -> None:
    if one.short_name == other.short_name:
        raise Misconfigured(
            f"topics {one.name} and {other.name}: the last parts of their names must differ, they name the journals"
        )
    if shared := set(one.event_types) & set(other.event_types):
        raise Misconfigured(f"topics {one.name} and {other.name} both have {', '.join(sorted(shared))}: rename one")

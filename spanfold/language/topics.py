"""The topics and their rules. Pure: spanfold/kafka/topics.py creates and checks them on a broker.

A package adds topics of its own through the entry point group `spanfold.topics`, each entry naming a `Topic`; spanfold's come in
by the same door.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from spanfold.language.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

US_PER_DAY: Final = 86_400_000_000

Partition = tuple[str, int]
"""A topic's name without the installation's prefix, and the number of one of its partitions."""


class TopicKind(StrEnum):
    TELEMETRY = "telemetry"
    """Facts that already happened: no expected version; an event's version is its offset + 1."""
    CONDITIONAL = "conditional"
    """Appends may name the version that they expect; the log arbitrates."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the log.

    A telemetry topic that is not `journaled` has no duplicates among its verdicts: its projections find them by themselves.
    The keys of an `erasable` topic are trace ids: TraceErased may be appended to it, and is by `spanfold erase`.
    `window_days` is W: a telemetry event that is older than this when it reaches the log (log time minus event time) is
    `expired`. It is fixed for the topic's life, because a verdict may never depend on when it was given.
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
        """The last part of the name: `traces` of `spanfold.traces`."""
        return self.name.rpartition(".")[2]

    def on_broker(self, prefix: str) -> str:
        """The name on the broker, with the installation's prefix."""
        return f"{prefix}{self.name}"

    def subject(self, record_name: str) -> str:
        """The registry subject of a record that it carries (TopicRecordNameStrategy); the name has its namespace."""
        return f"{self.name}-{record_name}"


@dataclass(frozen=True, slots=True)
class TopicOnBroker:
    """A topic as the broker has it. `topic_id` is the broker's own: a topic that was deleted and made anew has another."""

    topic: Topic
    name: str
    topic_id: str
    partitions: int


TraceEventType = Literal["TraceCreated", "SpanRecorded", "TraceCompleted", "TraceFailed"]
MetricEventType = Literal["MetricUpdated"]
LogEventType = Literal["ErrorLogged"]
ServiceEventType = Literal["ServiceRegistered", "ServiceHealthChanged", "ServiceDeregistered"]
PublishableEventType = TraceEventType | MetricEventType | LogEventType | ServiceEventType
"""The event types of each topic, declared here and nowhere else. Whoever handles a topic's events matches on its alias and ends
on assert_never: so a new type is a type error wherever it must be handled.
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
"""Facts about a parked record, appended to the partition that holds it."""

TRACE_ERASED: Final = "TraceErased"
"""All that the topic holds of its key goes, there and for ever: on every erasable topic."""

NOT_FOLDED: Final = (*ON_EVERY_TOPIC, TRACE_ERASED)
"""Facts about records of the log: no projection folds them and no aggregate applies them."""

BATCH: Final = "EventBatch"
"""Several events in one append: on every conditional topic."""

SNAPSHOTS_TOPIC: Final = "spanfold.snapshots"
"""The log-compacted topic of the latest snapshot of each aggregate; it carries no events."""

GROUP: Final = "spanfold.topics"


@lru_cache(maxsize=1)
def installed_topics() -> tuple[Topic, ...]:
    """The topics of spanfold and of every installed package, by name. Misconfigured when two of them collide, or an
    entry is no topic.
    """
    from importlib.metadata import entry_points

    return checked_topics(entry_points(group=GROUP))


def checked_topics(entries: Iterable[EntryPoint]) -> tuple[Topic, ...]:
    """The topics that these entries name."""
    topics = [_topic(entry.load(), entry) for entry in entries]
    if not topics:
        raise Misconfigured("no topics are installed: install spanfold itself again, its entry points are out of date")
    for one, other in combinations(topics, 2):
        _refuse_collision(one, other)
    return tuple(sorted(topics, key=lambda topic: topic.name))


def topic_of(event_type: str) -> Topic | None:
    """The topic that carries `event_type`, or None when no topic does, or every one."""
    return next((topic for topic in installed_topics() if event_type in topic.event_types), None)


def topic_named(name: str) -> Topic | None:
    """The topic of this name (without the installation's prefix)."""
    return next((topic for topic in installed_topics() if topic.name == name), None)


def _topic(loaded: Any, entry: EntryPoint) -> Topic:
    if not isinstance(loaded, Topic):
        raise Misconfigured(f"entry point {GROUP}: {entry.name} = {entry.value} is no Topic but {loaded!r}")
    if loaded.erasable and not (loaded.kind is TopicKind.TELEMETRY and loaded.journaled):
        raise Misconfigured(f"topic {loaded.name}: only a journaled telemetry topic can be erasable")
    return loaded


def _refuse_collision(one: Topic, other: Topic) -> None:
    if one.short_name == other.short_name:
        raise Misconfigured(
            f"topics {one.name} and {other.name}: the last parts of their names must differ, they name the journals"
        )
    if shared := set(one.event_types) & set(other.event_types):
        raise Misconfigured(f"topics {one.name} and {other.name} both carry {', '.join(sorted(shared))}: rename one")

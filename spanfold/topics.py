"""The topics and their rules. Pure: producers/topics.py creates and checks them on a broker."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

US_PER_DAY: Final = 86_400_000_000


class TopicKind(StrEnum):
    TELEMETRY = "telemetry"
    """Facts that already happened: no expected version; an event's version is its offset + 1."""
    CONDITIONAL = "conditional"
    """Appends may name the version that they expect; the log arbitrates."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the log.

    A telemetry topic that is not `journaled` has no duplicates among its verdicts: its projections find them by themselves.
    `window_days` is W: a telemetry event that is older than this when it reaches the log (log time minus event time) is
    `expired`. It is fixed for the topic's life, because a verdict may never depend on when it was given.
    """

    name: str
    kind: TopicKind
    event_types: tuple[str, ...]
    journaled: bool = True
    window_days: int = 30
    future_days: int = 1

    @property
    def short_name(self) -> str:
        """The last part of the name: `traces` of `spanfold.traces`."""
        return self.name.rpartition(".")[2]

    def on_broker(self, prefix: str) -> str:
        """The name on the broker, with the installation's prefix."""
        return f"{prefix}{self.name}"

    def subject(self, event_type: str) -> str:
        """The registry subject of one of its event types (TopicRecordNameStrategy)."""
        return f"{self.name}-spanfold.{event_type}"


@dataclass(frozen=True, slots=True)
class TopicOnBroker:
    """A topic as the broker has it. `topic_id` is the broker's own: a topic that was deleted and made anew has another."""

    topic: Topic
    name: str
    topic_id: str
    partitions: int


TRACES: Final = Topic(
    name="spanfold.traces",
    kind=TopicKind.TELEMETRY,
    event_types=("TraceCreated", "SpanRecorded", "TraceCompleted", "TraceFailed"),
)

METRICS: Final = Topic(
    name="spanfold.metrics",
    kind=TopicKind.TELEMETRY,
    event_types=("MetricUpdated",),
    journaled=False,
)

LOGS: Final = Topic(
    name="spanfold.logs",
    kind=TopicKind.TELEMETRY,
    event_types=("ErrorLogged",),
)

TOPICS: Final[tuple[Topic, ...]] = (TRACES, METRICS, LOGS)

ON_EVERY_TOPIC: Final = ("RecordRetried", "RecordDiscarded")
"""Facts about a parked record, appended to the partition that holds it."""


def topic_of(event_type: str) -> Topic | None:
    """The topic that carries `event_type`, or None when no topic does, or every one."""
    return next((topic for topic in TOPICS if event_type in topic.event_types), None)


def topic_named(name: str) -> Topic | None:
    """The topic of this name (without the installation's prefix)."""
    return next((topic for topic in TOPICS if topic.name == name), None)

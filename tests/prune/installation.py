"""What the tests of pruning share: a log of many days, folded by the store itself, and prunings of it.

Topics give records the broker's time. So that the log has a past, records are published with times of their own while the topic
takes those, as a log has them that was mirrored; afterwards the topic is as it was.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from spanfold.application.aggregates import installed_aggregates
from spanfold.kafka.client import kafka_config
from spanfold.language.events import (
    DomainEvent,
    LogRecorded,
    MetricUpdated,
    SpanRecorded,
    TraceCompleted,
    TraceCreated,
    TraceErased,
)
from spanfold.language.partitioning import partitions_of
from spanfold.language.progress import NullProgress
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.language.snapshot_policy import SnapshotPolicy
from spanfold.language.topics import LOGS, TRACES, TopicOnBroker
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.commit.store import Store
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.projection import installed
from spanfold.projections.states.rows import SNAPSHOTS
from spanfold.projections.states.store import Folding, StateStore
from spanfold.schemas.codec import Codec
from spanfold.stream_processors.prune import Part, PrunePlan, prune_plan
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange
from tests.support.commands import environment
from tests.support.databases import Ledger
from tests.support.processes import SPANFOLD, Finished, run
from tests.support.tables import rows
from tests.support.waiting import until

DAY_MS = 86_400_000
DAY = DAY_MS * 1000
HOUR = DAY // 24
TODAY = (time.time_ns() // 1000 // DAY - 1) * DAY
"""The beginning of the last whole day, µs since 1970 UTC: brokers take no records from the future."""

CODEC = Codec()

Timed = tuple[int, DomainEvent]
"""Log time in µs since 1970 UTC, and an event."""


def of_day(ago: int, traces: int = 4) -> Iterator[Timed]:
    """What happened on a day: traces of a shop that asks a bank, their errors, and a point of each shop."""
    for number in range(traces):
        at = TODAY - ago * DAY + (1 + number) * HOUR // 100
        yield from trace(f"trace {ago} {number}", at)
        series = f"series {number}"
        point = MetricUpdated(aggregate_id=series, occurred_at=at, source="t", name="n", service_name="shop", value=ago)
        yield at, point


def trace(trace_id: str, at: int, kind: str = "server") -> Iterator[Timed]:
    """A trace of two spans, the second of them a call, and the error that it made; all in the log as it happened."""
    said: dict[str, Any] = {"source": "t"}
    root: dict[str, Any] = {"service_name": "shop", "operation_name": "pay"}
    yield at, TraceCreated(aggregate_id=trace_id, occurred_at=at, start_time=at, **said, **root)
    yield at + 2, span(trace_id, "1", None, "shop", at + 2)
    yield at + 3, span(trace_id, "2", "1", "bank", at + 3)
    yield at + 4, LogRecorded(aggregate_id=trace_id, occurred_at=at + 4, service_name="bank", severity_number=17, body="no",
                              scope_name="l", trace_id=trace_id, span_id="2", **said)  # fmt: skip
    yield at + 5, TraceCompleted(aggregate_id=trace_id, occurred_at=at + 5, end_time=at + 5, **said)


def span(trace_id: str, span_id: str, parent: str | None, service: str, end: int, **changes: Any) -> SpanRecorded:
    said: dict[str, Any] = {
        "aggregate_id": trace_id, "occurred_at": end, "source": "t", "span_id": span_id, "parent_span_id": parent,
        "service_name": service, "operation_name": "pay", "start_time": end - 2, "end_time": end,
    }  # fmt: skip
    return SpanRecorded(**{**said, **changes})


def publish_at(settings: Settings, topics: Mapping[str, TopicOnBroker], events: Iterable[Timed]) -> None:
    """Append these events in the order of their log times, with these."""
    names = {topic.name for topic in topics.values()}
    _take_times_of(settings, names, "CreateTime")
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "acks": "all"})
    failed: list[Any] = []
    for log_time, event in sorted(events, key=lambda each: each[0]):
        key, value = key_of(event), CODEC.encode(event.event_type, event.as_fields())
        for topic in [TRACES, LOGS] if isinstance(event, TraceErased) else [event.topic]:
            there = topics[topic.name]
            producer.produce(
                there.name, value, key, int(partitions_of([key], there.partitions)[0]),
                headers=list(headers_of(event)), timestamp=log_time // 1000,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )  # fmt: skip
            producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed, failed[0]
    _take_times_of(settings, names, "LogAppendTime")


def _take_times_of(settings: Settings, names: Iterable[str], whose: str) -> None:
    """Set message.timestamp.type, and wait until the broker goes by it: it applies changes in their order, so that what is true
    of a topic that was changed last is true of all.
    """
    admin, probe = AdminClient(kafka_config(settings)), f"{settings.topic_prefix}probe"
    for future in admin.create_topics([NewTopic(probe, 1, 1)]).values():
        with suppress(KafkaException):  # it is there from the last time
            future.result(30)
    entry = ConfigEntry("message.timestamp.type", whose, incremental_operation=AlterConfigOpType.SET)
    for changed in (names, [probe]):
        resources = [ConfigResource(ResourceType.TOPIC, each, incremental_configs=[entry]) for each in changed]
        for future in admin.incremental_alter_configs(resources).values():
            future.result(30)
    kind = TIMESTAMP_CREATE_TIME if whose == "CreateTime" else TIMESTAMP_LOG_APPEND_TIME
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 0})
    until(lambda: _kind_of_time(producer, probe) == kind, f"{whose} of {probe}")


def _kind_of_time(producer: Producer, topic: str) -> int:
    told: list[int] = []
    producer.produce(topic, b"", timestamp=1, on_delivery=lambda _, message: told.append(message.timestamp()[0]))
    assert producer.flush(60) == 0
    return told[0]


def fold(settings: Settings, topics: Mapping[str, TopicOnBroker], ledger: Ledger) -> None:
    """Judge and fold all that the log has, as a worker does."""
    store = Store(installed())
    at = next_offsets_of(ledger, JOURNAL, 0)
    with LogReader(settings) as reader:
        ranges = [
            OffsetRange(topics[name], partition, start, reader.watermarks(topics[name].name, partition)[1])
            for (name, partition), start in at.items()
        ]
        for batch in reader.batches(ranges):
            store.commit(ledger, store.prepare(batch))


def take_states(settings: Settings, topics: Mapping[str, TopicOnBroker], ledger: Ledger) -> None:
    """Fold what has been judged into the states of aggregates, as the snapshot worker does."""
    store = StateStore([Folding(each, SnapshotPolicy()) for each in installed_aggregates().values()])
    store.register(ledger)
    with LogReader(settings) as reader:
        ranges = [
            OffsetRange(topics[topic], partition, start, end)
            for topic, version in store.fold_versions.items()
            for (name, partition), start in next_offsets_of(ledger, SNAPSHOTS, version).items()
            if name == topic and start < (end := next_offsets_of(ledger, JOURNAL, 0)[topic, partition])
        ]
        for batch in reader.batches(ranges):
            store.commit(ledger, store.prepare(batch))


def place(ledger: Ledger, owner: str, topic: str, partition: int, offset: int, generation: int | None = None) -> None:
    """Put a checkpoint somewhere."""
    done = ledger.execute(
        "UPDATE spanfold_core.checkpoints SET next_offset = %s WHERE (projection, topic, partition) = (%s, %s, %s)"
        " AND generation = coalesce(%s, generation)",
        (offset, owner, topic, partition, generation),
    )
    assert done.rowcount == 1


@dataclass(frozen=True)
class Place:
    """An installation whose log has been folded."""

    settings: Settings
    topics: Mapping[str, TopicOnBroker]
    ledger: Ledger

    @contextmanager
    def planned(self, **days: Mapping[str, int]) -> Iterator[PrunePlan]:
        """A pruning by these retentions: `log`, `journal`, `table`."""
        dsn, named = self.settings.postgres_dsn, {f"{name}_retention_days": said for name, said in days.items()}
        settings = self.settings.model_copy(update=named)
        assert dsn
        with prune_plan(settings, dsn, self.topics, installed(), {}) as found:
            yield found

    def plan(self, **days: Mapping[str, int]) -> list[Part]:
        with self.planned(**days) as found:
            return found.parts

    def prune(self, **days: Mapping[str, int]) -> list[Part]:
        with self.planned(**days) as found:
            found.run(NullProgress())
        return found.parts

    def publish(self, events: Iterable[Timed]) -> None:
        """Append them and fold them."""
        publish_at(self.settings, self.topics, events)
        fold(self.settings, self.topics, self.ledger)

    def take_states(self) -> None:
        """The snapshot worker comes to where the journal is."""
        take_states(self.settings, self.topics, self.ledger)

    def log_begins(self) -> dict[tuple[str, int], int]:
        """The first offset of each partition."""
        return {at: first for at, (first, _) in self._watermarks().items()}

    def log_ends(self) -> dict[tuple[str, int], int]:
        return {at: end for at, (_, end) in self._watermarks().items()}

    def _watermarks(self) -> dict[tuple[str, int], tuple[int, int]]:
        with LogReader(self.settings) as reader:
            return {
                (name, partition): reader.watermarks(topic.name, partition)
                for name, topic in self.topics.items()
                for partition in range(topic.partitions)
            }

    def everything(self) -> dict[str, Any]:
        """All that a pruning might change."""
        return {
            "rows": rows(self.ledger), "log": self._watermarks(), "days": self.days(),
            "let go": asked(self.ledger, "SELECT * FROM spanfold.journal_retention ORDER BY 1, 2"),
            "horizons": asked(self.ledger, "SELECT * FROM spanfold.retention_horizons ORDER BY 1, 2"),
        }  # fmt: skip

    def days(self, topic: str = "traces") -> list[str]:
        """The days that the journal's tables are for, attached or not, as 20261123."""
        query = "SELECT right(relname, 8) FROM pg_class WHERE relkind = 'r' AND relname ~ %s ORDER BY 1"
        found = self.ledger.execute(query, (f"^journal_{topic}_[0-9]{{8}}$",))
        return [day for (day,) in found]


def with_settings(old: Place, named: Mapping[str, str], *words: str) -> Finished:
    """`spanfold …` with these settings besides, as a user would run it."""
    return run([*SPANFOLD, *words], environment(old.settings, **variables_of(named)))


def variables_of(named: Mapping[str, str]) -> dict[str, str]:
    """These settings as environment variables."""
    return {f"SPANFOLD_{name.upper()}": value for name, value in named.items()}


def asked(ledger: Ledger, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
    return ledger.execute(query.encode(), parameters).fetchall()


def part(parts: Sequence[Part], kind: str, name: str, partition: int | None = None) -> Part:
    (found,) = (each for each in parts if (each.kind, each.name, each.partition) == (kind, name, partition))
    return found


def hundred_days() -> Iterator[Timed]:
    """What happened on every fifth of them."""
    return (each for ago in range(100, -1, -5) for each in of_day(ago))

"""Takes the snapshots that are due by the clock, and feeds the compacted topic from the committed rows of `snapshots`, so that
its last value of each key is what Postgres has.

One transactional producer for each source partition. Its rows are read after it has fenced whoever fed that partition before, so
of two that believe they own it, one's transaction fails and the other's shows what Postgres has now: nothing stale comes last.
What a feeder that died had sent and not noted is sent again. An erased aggregate is a tombstone, and so is one whose snapshot is
too large for the topic: that is in Postgres alone.
"""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

import psycopg
import structlog
from confluent_kafka import Producer
from prometheus_client import Counter

from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import MAX_SNAPSHOT_BYTES
from spanfold.language.settings import Settings
from spanfold.language.topics import SNAPSHOTS_TOPIC, Partition, TopicOnBroker
from spanfold.postgres.connections import connect
from spanfold.projections.states import StateStore, feeding
from spanfold.projections.states.feeding import Change, Fed
from spanfold.stream_processors.worker.health import FEEDING
from spanfold.stream_processors.worker.lag_watch import Watch

log = structlog.get_logger("spanfold.snapshots")

EVERY_S: Final = 2.0
"""Between two looks."""

AFTER_TROUBLE_S: Final = 5.0
AT_ONCE: Final = 500
AT_ONCE_BYTES: Final = 16 * 1024 * 1024
"""Snapshots of one transaction; the last one may go beyond."""

OVERHEAD_BYTES: Final = 1024
"""What a record has besides key and value, generously."""

KAFKA_TIMEOUT_S: Final = 30.0


def key_of(topic: str, aggregate_id: str) -> bytes:
    """Key of a snapshot's record: two topics may know aggregates of one id."""
    return f"{topic}/{aggregate_id}".encode()


class Feeder:
    """Looks and feeds, in a thread of its own, for as long as its block lasts. `watch` knows which partitions of source topics
    this worker owns now, and hears when feeding fails; `store` has the states that are fed.

    `reached(step)` is called before each named step of a transaction: before_produce, before_confirm, before_note. Tests
    stop there.
    """

    def __init__(
        self,
        settings: Settings,
        dsn: str,
        topics: Collection[TopicOnBroker],
        store: StateStore,
        watch: Watch,
    ) -> None:
        self._config = kafka_config(settings) | {
            "partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": 20,
            "message.max.bytes": MAX_SNAPSHOT_BYTES,
        }  # fmt: skip
        self._id = f"{settings.topic_prefix}{settings.group}-snapshots"
        self._to = f"{settings.topic_prefix}{SNAPSHOTS_TOPIC}"
        self._dsn = dsn
        self._names = {topic.name: topic.topic.name for topic in topics}
        self._store, self._watch = store, watch
        self._fed = Counter(
            "spanfold_snapshots_fed", "Snapshots and tombstones that it wrote to their topic.", ("topic",),
            registry=watch.metrics.registry,
        )  # fmt: skip
        self._failures = Counter(
            "spanfold_feeding_failures", "Times that feeding failed and was begun anew.",
            registry=watch.metrics.registry,
        )  # fmt: skip
        self.reached: Callable[[str], None] = lambda step: None
        self._connection: psycopg.Connection[Any] | None = None
        self._producers: dict[Partition, Producer] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spanfold-feeder", daemon=True)

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(EVERY_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
                self._watch.works(FEEDING)
                pause = EVERY_S
            except Exception as error:
                # begin anew: the connection may be broken, and a fenced producer can't be used any more. Whatever else it is, a
                # thread that ended would be silent
                why = " ".join(str(error).split())
                log.warning("feeding_again", why=why)
                self._watch.fails(FEEDING, why)
                self._failures.inc()
                self._disconnect()
                pause = AFTER_TROUBLE_S
            self._stopping.wait(pause)
        self._disconnect()

    def _disconnect(self) -> None:
        self._producers.clear()
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()

    def _look(self) -> None:
        owned = {(self._names[name], partition) for name, partition in self._watch.owned if name in self._names}
        for partition in self._producers.keys() - owned:
            del self._producers[partition]
        if not owned:
            return
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, "spanfold feeder")
        for partition in self._store.due(self._connection):
            if partition in owned:
                self._store.take_due(self._connection, *partition)
        for fed in feeding.behind(self._connection, self._store.fold_versions):
            if (fed.topic, fed.partition) in owned:
                self._feed_partition(self._connection, fed)

    def _feed_partition(self, connection: psycopg.Connection[Any], fed: Fed) -> None:
        following: Fed | None = fed
        while following is not None and not self._stopping.is_set():
            following = self._feed(connection, following)

    def _feed(self, connection: psycopg.Connection[Any], fed: Fed) -> Fed | None:
        """Send the next changes of this partition in one transaction; returns how far it is then, None at the end."""
        producer = self._producer((fed.topic, fed.partition))
        changes = feeding.changes(connection, fed, self._store.fold_versions[fed.topic], AT_ONCE, AT_ONCE_BYTES)
        if not changes:
            return None
        self.reached("before_produce")
        producer.begin_transaction()
        for change in changes:
            self._send(producer, fed.topic, change)
        self.reached("before_confirm")
        producer.commit_transaction(KAFKA_TIMEOUT_S)
        following = fed._replace(sequence=changes[-1].sequence)
        self.reached("before_note")
        feeding.note(connection, following)
        self._fed.labels(fed.topic).inc(len(changes))
        return following

    def _send(self, producer: Producer, topic: str, change: Change) -> None:
        key, state = key_of(topic, change.aggregate_id), change.state
        size = len(key) + len(state or b"") + OVERHEAD_BYTES
        if size > MAX_SNAPSHOT_BYTES:
            log.warning("too_large_for_the_topic", topic=topic, aggregate_id=change.aggregate_id, bytes=size)
            # an earlier snapshot must not stay the key's last value
            state = None
        producer.produce(self._to, state, key, headers=_headers(change), on_delivery=None)
        producer.poll(0)

    def _producer(self, partition: Partition) -> Producer:
        """The partition's producer; a new one fences whoever had its transactional.id before."""
        if partition not in self._producers:
            topic, number = partition
            producer = Producer(self._config | {"transactional.id": f"{self._id}-{topic}-{number}"})
            producer.init_transactions(KAFKA_TIMEOUT_S)
            self._producers[partition] = producer
        return self._producers[partition]


def _headers(change: Change) -> list[tuple[str, str | bytes | None]]:
    headers = {"fold_version": change.fold_version, "version": change.version, "next_offset": change.next_offset}
    return [(name, str(value).encode()) for name, value in headers.items() if value is not None]

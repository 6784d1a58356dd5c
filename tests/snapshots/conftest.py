"""What the tests of the snapshot worker share."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from projections.states import StateStore
from schemas.codec import Codec
from schemas.events import event_of
from schemas.snapshots import plain_state
from spanfold.aggregates import Aggregate, installed_aggregates
from spanfold.settings import Settings
from spanfold.topics import SNAPSHOTS_TOPIC
from stream_processors.snapshots.app import foldings
from tests.faults import reference
from tests.faults.reference import Log
from tests.rebuilds.conftest import publish_mixed
from tests.stream_processors.conftest import Start, Worker, second_settings, start, until

__all__ = ["Start", "publish_mixed", "second_settings", "start"]

Ledger = psycopg.Connection[Any]

SNAPSHOTS = ("-m", "spanfold", "worker", "snapshots")

States = dict[tuple[str, str], Any]
"""By topic and aggregate id."""


def standing(ledger: Ledger) -> dict[tuple[str, int], int]:
    """Where the states of each partition stand."""
    rows = ledger.execute(
        "SELECT topic, partition, next_offset FROM spanfold.checkpoints WHERE projection = 'snapshots'"
    )
    return {(topic, partition): offset for topic, partition, offset in rows}


def folded(ledger: Ledger, settings: Settings, *workers: Worker) -> None:
    """Wait until the states are those at the log's end; fails at once if a worker has ended."""
    topics = {each.topic.name for each in installed_aggregates().values()}
    ends = {place: end for place, end in reference.ends_of_log(settings).items() if place[0] in topics}

    def done() -> bool:
        for each in workers:
            assert each.process.poll() is None, f"the worker ended:\n{each.said()}"
        return standing(ledger) == ends

    until(done, f"states at {ends}", lambda: f"{standing(ledger)}\n{[each.said()[-3000:] for each in workers]}")


def aggregate_of(topic: str) -> type[Aggregate[Any]]:
    return next(each for each in installed_aggregates().values() if each.topic.name == topic)


def kept(ledger: Ledger) -> States:
    """What Postgres has: of each aggregate its state, be it in a snapshot or not yet, with its version."""
    codec = Codec()
    rows = ledger.execute("""
        SELECT topic, aggregate_id, version, state FROM spanfold_core.states
         UNION ALL
        SELECT topic, aggregate_id, version, state FROM spanfold_core.snapshots s
         WHERE NOT EXISTS (SELECT FROM spanfold_core.states t
                            WHERE (t.topic, t.aggregate_id, t.fold_version) = (s.topic, s.aggregate_id, s.fold_version))
    """)
    return {
        (topic, aggregate_id): (version, repr(plain_state(codec, aggregate_of(topic), state)))
        for topic, aggregate_id, version, state in rows
    }


def take_all(ledger: Ledger, settings: Settings) -> int:
    """Take a snapshot of everything; returns how many were taken."""
    store = StateStore(foldings(settings))
    return sum(store.take_due(ledger, topic, partition, everything=True) for topic, partition in standing(ledger))


def fed(ledger: Ledger) -> None:
    """Wait until the compacted topic has every snapshot."""

    def behind() -> list[Any]:
        return ledger.execute("""
            SELECT f.topic, f.partition, f.sequence, max(s.sequence) FROM spanfold_core.fed f
              JOIN spanfold_core.snapshots s USING (topic, partition)
             GROUP BY 1, 2, 3 HAVING max(s.sequence) > f.sequence
        """).fetchall()

    until(lambda: not behind(), "the compacted topic has every snapshot", behind)


def last_values(settings: Settings) -> dict[bytes, bytes | None]:
    """The last value of each key of the compacted topic, read by a plain consumer of committed records."""
    name = f"{settings.topic_prefix}{SNAPSHOTS_TOPIC}"
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap, "group.id": "test", "enable.auto.commit": False,
            "enable.partition.eof": True, "isolation.level": "read_committed", "auto.offset.reset": "earliest",
        }
    )  # fmt: skip
    partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
    consumer.assign([TopicPartition(name, partition, 0) for partition in partitions])
    found: dict[bytes, bytes | None] = {}
    ended: set[int | None] = set()
    deadline = time.monotonic() + 60
    while len(ended) < len(partitions):
        assert time.monotonic() < deadline, f"the topic's end was not reached: {ended} of {len(partitions)}"
        for message in consumer.consume(1000, 1.0):
            if error := message.error():
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
                continue
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert value is None or isinstance(value, bytes)
            found[key] = value
    consumer.close()
    return found


def snapshots(ledger: Ledger) -> dict[bytes, bytes]:
    """The snapshots that Postgres has, by the key of their records."""
    rows = ledger.execute("SELECT topic, aggregate_id, state FROM spanfold.snapshots")
    return {f"{topic}/{aggregate_id}".encode(): state for topic, aggregate_id, state in rows}


def expected_states(log: Log, partitions: int) -> States:
    """What the states must be, by the same evolve as the write side's, from a plain reading of the log."""
    codec = Codec()
    found: States = {}
    for aggregate, aggregate_id, recorded in _histories(log, partitions):
        state = aggregate.evolve_all(aggregate.initial(aggregate_id), recorded)
        payload = codec.encode(aggregate.snapshot, aggregate.as_plain(state))
        version = max(version for _, version in recorded)
        found[aggregate.topic.name, aggregate_id] = (version, repr(plain_state(codec, aggregate, payload)))
    return found


def _histories(log: Log, partitions: int) -> Iterator[tuple[type[Aggregate[Any]], str, list[Any]]]:
    """Each aggregate with its events and their versions, by plain rules; telemetry alone is published here."""
    known = {each.topic.name: each for each in installed_aggregates().values()}
    told: dict[tuple[str, str], list[Any]] = {}
    for event in reference.folded_events(log, partitions):
        if event.record.topic.name in known:
            key = (event.record.topic.name, event.fields["aggregate_id"])
            told.setdefault(key, []).append((event_of(event.type, event.fields), event.record.offset + 1))
    for (topic, aggregate_id), recorded in told.items():
        yield known[topic], aggregate_id, recorded

"""What the states of aggregates must be, from a plain reading of the log, and what Postgres and the compacted topic have of them.

As in reference.py the rules of verdicts are told a second time; states come from the write side's evolve.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from spanfold.application.aggregates import Aggregate, installed_aggregates
from spanfold.language.errors import PoisonRecord
from spanfold.language.events import EVENT_TYPES, DomainEvent
from spanfold.language.settings import Settings
from spanfold.language.topics import SNAPSHOTS_TOPIC, TRACE_ERASED, TopicKind
from spanfold.projections.states import StateStore
from spanfold.schemas.codec import Codec
from spanfold.schemas.decoding import events_of
from spanfold.schemas.snapshots import plain_state
from spanfold.stream_processors.snapshots.app import foldings
from tests.faults import reference
from tests.faults.reference import Comparison, Log, Logged
from tests.support.databases import Ledger
from tests.support.waiting import until

States = dict[tuple[str, str], Any]
"""By topic and aggregate id: the version, and the state's plain form as text."""

Recorded = list[tuple[DomainEvent, int]]
"""Events of one aggregate, each with its record's version."""


def aggregate_of(topic: str) -> type[Aggregate[Any]]:
    return next(each for each in installed_aggregates().values() if each.topic.name == topic)


# What must be


def expected_states(log: Log, partitions: int) -> States:
    """What the states must be, by the same evolve as the write side's."""
    codec = Codec()
    found: States = {}
    for (topic, aggregate_id), recorded in histories(log, partitions).items():
        aggregate = aggregate_of(topic)
        state = aggregate.evolve_all(aggregate.initial(aggregate_id), recorded)
        payload = codec.encode(aggregate.snapshot, aggregate.as_plain(state))
        version = max(version for _, version in recorded)
        found[topic, aggregate_id] = (version, repr(plain_state(codec, aggregate, payload)))
    return found


def histories(log: Log, partitions: int) -> Mapping[tuple[str, str], Recorded]:
    """Each aggregate's events in the order in which they are folded; none of one that was erased, whenever that was."""
    kinds = {each.topic.name: each.topic.kind for each in installed_aggregates().values()}
    told, erased = defaultdict[tuple[str, str], Recorded](list), set[tuple[str, str]]()
    for event in reference.folded_events(log, partitions):
        key = (event.record.topic.name, event.fields["aggregate_id"])
        if event.type == TRACE_ERASED:
            erased.add(key)
        elif kinds.get(event.record.topic.name) is TopicKind.TELEMETRY:
            told[key].append((_event(event), event.record.offset + 1))
    for name in (name for name, kind in kinds.items() if kind is TopicKind.CONDITIONAL):
        codec, aggregates = Codec(), defaultdict[bytes, _Arbitrated](_Arbitrated)
        for record, version in accepted([each for each in log.records if each.topic.name == name], partitions):
            folded = aggregates[record.key or b""].take(record, version, codec)
            told[name, (record.key or b"").decode()] += folded
    return {key: recorded for key, recorded in told.items() if recorded and key not in erased}


def _event(event: reference.Event) -> DomainEvent:
    values: dict[str, Any] = {
        name: tuple(value) if type(value) is list else value for name, value in event.fields.items()
    }
    return EVENT_TYPES[event.type](**values)


def accepted(records: list[Logged], partitions: int) -> Iterator[tuple[Logged, int]]:
    """The records of a conditional topic that are accepted, each with its version, by the words of docs/adr/0007."""
    heads, decided = defaultdict[bytes, int](int), set[Any]()
    for record in records:
        if reference.misshapen(record, partitions):
            continue
        headers, key = dict(record.headers), record.key or b""
        event = (record.partition, (headers["event_id"] or b"").lower())
        expects = headers.get("expected_version")
        if event in decided:
            continue
        decided.add(event)
        if expects is None or int(expects) == heads[key]:
            heads[key] += 1
            yield record, heads[key]


class _Arbitrated:
    """The accepted records of one aggregate: what can't be read holds up what comes after it, until it is discarded."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Logged, int]] = []

    def take(self, record: Logged, version: int, codec: Codec) -> Recorded:
        """What is folded where this record lies."""
        event_type = (dict(record.headers).get("event_type") or b"").decode()
        if event_type == "RecordDiscarded":
            _, fact = codec.decode(record.value)
            if self._waiting and self._waiting[0][0].offset == fact["record_offset"]:
                del self._waiting[0]
                return self._let_go(codec)
        elif event_type != "RecordRetried":  # which can't be read either the second time
            self._waiting.append((record, version))
            if len(self._waiting) == 1:
                return self._let_go(codec)
        return []

    def _let_go(self, codec: Codec) -> Recorded:
        folded: Recorded = []
        while self._waiting:
            record, version = self._waiting[0]
            try:
                folded += [(event, version) for event in events_of(codec, record.value)]
            except PoisonRecord:
                break
            del self._waiting[0]
        return folded


# What is there


KEPT: Final = """
SELECT topic, aggregate_id, version, state FROM spanfold_core.states
 UNION ALL
SELECT topic, aggregate_id, version, state FROM spanfold_core.snapshots s
 WHERE NOT EXISTS (SELECT FROM spanfold_core.states t
                    WHERE (t.topic, t.aggregate_id, t.fold_version) = (s.topic, s.aggregate_id, s.fold_version))
"""

BEHIND: Final = """
SELECT f.topic, f.partition, f.sequence, max(c.sequence) FROM spanfold_core.snapshot_feed f
  JOIN (SELECT topic, partition, sequence FROM spanfold_core.snapshots
         UNION ALL
        SELECT topic, partition, sequence FROM spanfold_core.erased) c USING (topic, partition)
 GROUP BY 1, 2, 3 HAVING max(c.sequence) > f.sequence
"""

OVERDUE: Final = """
SELECT count(*) FROM spanfold_core.states s
  JOIN spanfold_core.checkpoints c USING (topic, partition)
 WHERE c.projection = 'snapshots' AND c.generation = s.fold_version AND s.due_at < c.log_time - interval '1 ms'
"""


def kept(ledger: Ledger) -> States:
    """What Postgres has: of each aggregate its state, be it in a snapshot or not yet, with its version."""
    codec = Codec()
    return {
        (topic, aggregate_id): (version, repr(plain_state(codec, aggregate_of(topic), state)))
        for topic, aggregate_id, version, state in ledger.execute(KEPT)
    }


def take_all(ledger: Ledger, settings: Settings) -> int:
    """Take a snapshot of everything; returns how many were taken."""
    store = StateStore(foldings(settings))
    places = ledger.execute("SELECT topic, partition FROM spanfold.checkpoints WHERE projection = 'snapshots'")
    return sum(store.take_due(ledger, topic, partition, everything=True) for topic, partition in places.fetchall())


def not_fed(ledger: Ledger) -> list[Any]:
    """The partitions of which the compacted topic lacks snapshots, or tombstones of erased aggregates."""
    return ledger.execute(BEHIND).fetchall()


def snapshots(ledger: Ledger) -> dict[bytes, bytes]:
    """The snapshots that Postgres has, by the key of their records."""
    rows = ledger.execute("SELECT topic, aggregate_id, state FROM spanfold.snapshots")
    return {f"{topic}/{aggregate_id}".encode(): state for topic, aggregate_id, state in rows}


class Fed(NamedTuple):
    """A record of the compacted topic. Without a state it is an erased aggregate (no version either), or one too large for it."""

    key: bytes
    version: int | None
    state: bytes | None


def fed_records(settings: Settings) -> list[Fed]:
    """What the compacted topic has, read by a plain consumer of committed records; of each key in the log's order."""
    name = f"{settings.topic_prefix}{SNAPSHOTS_TOPIC}"
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap, "group.id": "test", "enable.auto.commit": False,
            "enable.partition.eof": True, "isolation.level": "read_committed", "auto.offset.reset": "earliest",
        }
    )  # fmt: skip
    partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
    consumer.assign([TopicPartition(name, partition, 0) for partition in partitions])
    found: list[Fed] = []
    ended: set[int | None] = set()
    deadline = time.monotonic() + 60
    while len(ended) < len(partitions):
        assert time.monotonic() < deadline, f"the topic's end was not reached: {ended} of {len(partitions)}"
        for message in consumer.consume(1000, 1.0):
            if error := message.error():
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
                continue
            headers: Any = dict(message.headers() or [])
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert value is None or isinstance(value, bytes)
            found.append(Fed(key, int(headers["version"]) if "version" in headers else None, value))
    consumer.close()
    return found


def last_values(settings: Settings) -> dict[bytes, bytes | None]:
    """The last value of each key of the compacted topic."""
    return {each.key: each.state for each in fed_records(settings)}


# Compared


def compare(ledger: Ledger, settings: Settings, log: Log) -> tuple[Comparison, int]:
    """States, snapshots and the compacted topic with the log, once the topic has a snapshot of everything; and how many keys of
    the topic were compared. An aggregate that is missing, or behind what it must be, is lost; one too many is doubled.
    """
    wanted, found = expected_states(log, settings.partitions), kept(ledger)
    differing = differences("states", wanted, found)
    [(overdue,)] = ledger.execute(OVERDUE).fetchall()
    if overdue:
        differing.append(f"snapshots: {overdue} are due and were not taken")
    take_all(ledger, settings)
    until(lambda: not not_fed(ledger), "the compacted topic has every snapshot", within_s=90)
    differing += differences("snapshots", wanted, kept(ledger))
    held, records = snapshots(ledger), fed_records(settings)
    last = {each.key: each.state for each in records}
    # an erased aggregate is a tombstone
    differing += differences("the topic", held, {key: state for key, state in last.items() if state is not None})
    differing += _gone_back(records)
    if len(held) != len(wanted):
        differing.append(f"snapshots: {len(held)} of {len(wanted)} aggregates have one")
    return Comparison(*_balance(wanted, found), differing), len(last)


def _balance(wanted: States, found: States) -> tuple[int, int]:
    behind = [key for key, (version, _) in wanted.items() if key not in found or found[key][0] < version]
    return len(behind), len(found.keys() - wanted.keys())


def differences(name: str, wanted: Mapping[Any, Any], found: Mapping[Any, Any], first: int = 3) -> list[str]:
    wrong = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if not wrong:
        return []
    shown = [f"  {key}: must be {wanted.get(key)}, is {found.get(key)}" for key in wrong[:first]]
    return [f"{name}: {len(wrong)} of {len(wanted)} differ", *shown]


def _gone_back(records: list[Fed]) -> list[str]:
    """Records of the topic that are older than one before them: nothing is newer than a tombstone."""
    newest = dict[bytes, float]()
    back = []
    for each in records:
        version = math.inf if each.version is None else each.version
        if version < newest.get(each.key, 0):
            back.append(f"  {each.key!r}: {version} after {newest[each.key]}")
        newest[each.key] = max(version, newest.get(each.key, 0))
    return [f"the topic: {len(back)} records are older than one before them", *back[:3]] if back else []

"""The transport's contract: with Faust, whose private names it relies on; and with the log, of which it misses nothing."""

import inspect
import json
import tomllib
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from faust.tables.recovery import Recovery
from faust.transport import consumer
from faust.transport.drivers import aiokafka as stock
from faust.types import TP, ConsumerMessage

from spanfold.language.partitioning import partitions_of
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.schemas.codec import Codec
from spanfold.stream_processors.fetching.fetcher import BoundedFetcher, ParsedRecords, PartResult
from spanfold.stream_processors.worker.app import PatientRecovery
from spanfold.stream_processors.worker.transport import (
    BatchConsumer,
    BatchConsumerThread,
    BatchTransport,
    Starts,
)
from tests.support.databases import Ledger
from tests.support.stories import stories
from tests.support.topics import log_ends
from tests.support.workers import Start, Worker, folded_to_the_end

# Faust


def test_faust_and_aiokafka_are_the_versions_whose_private_names_are_known() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    server = project["optional-dependencies"]["server"]
    assert version("faust-streaming") == "0.15.3"
    assert "faust-streaming==0.15.3" in server
    assert version("aiokafka") == "0.14.0"
    assert "aiokafka[lz4]==0.14.0" in server


@pytest.mark.parametrize(
    ("ours", "stocks", "name"),
    [
        (BatchConsumerThread, stock.AIOKafkaConsumerThread, "__post_init__"),
        (BatchConsumerThread, stock.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (BatchConsumerThread, stock.AIOKafkaConsumerThread, "on_partitions_revoked"),
        (BatchConsumerThread, stock.AIOKafkaConsumerThread, "_seek_wait"),
        (BatchConsumerThread, stock.AIOKafkaConsumerThread, "_fetch_records"),
        (ParsedRecords, ParsedRecords.__base__, "_consumer_record"),
        (ParsedRecords, ParsedRecords.__base__, "__next__"),
        (PartResult, PartResult.__base__, "getall"),
        (BoundedFetcher, BoundedFetcher.__base__, "fetched_records"),
        (BatchConsumer, stock.Consumer, "_new_consumer_thread"),
        (BatchConsumer, stock.Consumer, "_to_message"),
        (BatchConsumer, stock.Consumer, "seek_to_committed"),
        (BatchConsumer, stock.Consumer, "_new_offset"),
        (BatchConsumer, stock.Consumer, "_add_gap"),
        (BatchConsumer, stock.Consumer, "on_buffer_full"),
        (BatchConsumer, stock.Consumer, "on_buffer_drop"),
        (PatientRecovery, Recovery, "_wait"),
    ],
)
def test_what_the_transport_overrides_is_there_and_is_called_alike(ours: type, stocks: type, name: str) -> None:
    own, was = getattr(ours, name), getattr(stocks, name)
    assert own is not was
    assert list(inspect.signature(own).parameters) == list(inspect.signature(was).parameters)
    assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(was)


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (stock.Consumer, "earliest_offsets", ["self", "partitions"]),
        (stock.Consumer, "highwaters", ["self", "partitions"]),
        (stock.Consumer, "seek_wait", ["self", "partitions"]),
        (stock.Consumer, "assignment", ["self"]),
        (stock, "server_list", ["urls", "default_port"]),
        (stock, "credentials_to_aiokafka_auth", ["credentials", "ssl_context"]),
        (stock.Transport, "__init__", ["self", "args", "kwargs"]),
    ],
)
def test_what_the_transport_calls_is_there(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters)[: len(parameters)] == parameters


def test_faust_takes_from_a_transport_what_ours_gives() -> None:
    assert BatchTransport.Consumer is BatchConsumer
    assert issubclass(stock.Transport.Consumer, stock.Consumer)
    fields = ["topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum"]
    assert list(inspect.signature(ConsumerMessage.__init__).parameters)[1:10] == fields
    # acks are kept by these names, and the stock thread asks the assignor of its own making for metadata
    assert "self._acked[" in inspect.getsource(consumer.Consumer)
    assert "self._acked_index[" in inspect.getsource(consumer.Consumer)
    assert "_assignor" in inspect.getsource(stock.AIOKafkaConsumerThread)


# The log

RECORDING = """
import json, sys
from spanfold.kafka.topics import ensure_topics
from spanfold.projections.projection import installed
from spanfold.projections.commit import store
from spanfold.language.settings import Settings
from spanfold.bootstrap import run_projector

class Recording(store.Store):
    def prepare(self, batch, refused=None):
        with open("batches", "a") as file:
            print(json.dumps([batch.partition, batch.start, batch.end, list(batch.offsets)]), file=file)
        return super().prepare(batch, refused)

store.Store = Recording
run_projector(Settings())
"""
"""The worker, which also writes down what the transport gave it."""


def batches(worker: Worker) -> dict[int, list[tuple[int, int, list[int]]]]:
    """What the worker was given: per partition (start, end, offsets), in the order in which it came."""
    found = defaultdict(list)
    for line in (worker.folder / "batches").read_text().splitlines():
        partition, start, end, offsets = json.loads(line)
        found[partition].append((start, end, offsets))
    return found


def write_with_holes(settings: Settings) -> None:
    """Transactions of all sizes, committed and aborted in turn: control records and aborted ones are holes."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "transactional.id": settings.group})
    producer.init_transactions(30)
    topic, codec, events = TRACES.on_broker(settings.topic_prefix), Codec(), iter(stories(1000))
    for size in (1, 2, 3, 40, 5, 100, 1, 1, 1, 1, 300, 2, 200, 7):
        producer.begin_transaction()
        for event, _ in zip(events, range(size), strict=False):
            home = int(partitions_of([key_of(event)], settings.partitions)[0])
            value = codec.encode(event.event_type, event.as_fields())
            producer.produce(topic, value, key_of(event), home, headers=[*headers_of(event)])
        assert producer.flush(30) == 0
        if size % 2:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


def committed_offsets(settings: Settings) -> dict[int, list[int]]:
    """The offsets that a plain consumer of committed records is given."""
    reader = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": "test",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    topic = TRACES.on_broker(settings.topic_prefix)
    reader.assign([TopicPartition(topic, each, 0) for each in range(settings.partitions)])
    found, ended = defaultdict[int, list[int]](list), set[int]()
    while len(ended) < settings.partitions:
        message = reader.poll(10)
        assert message is not None
        partition, offset = message.partition() or 0, message.offset() or 0
        if message.error():
            ended.add(partition)
        else:
            found[partition].append(offset)
    reader.close()
    return found


@pytest.mark.parametrize("batch_records", [1, 7, 10_000])
def test_the_ranges_of_the_batches_leave_no_hole_where_the_log_has_holes(
    stack_settings: Settings, ledger: Ledger, start: Start, batch_records: int
) -> None:
    write_with_holes(stack_settings)
    ends, expected = log_ends(stack_settings), committed_offsets(stack_settings)
    worker = start(batch_records=batch_records, program=("-c", RECORDING))
    folded_to_the_end(ledger, worker)
    assert worker.stop() == 0
    given = batches(worker)
    assert given.keys() == ends.keys()
    for partition, ranges in given.items():
        assert [start for start, _, _ in ranges] == [0, *(end for _, end, _ in ranges[:-1])]
        assert ranges[-1][1] == ends[partition]
        assert [offset for _, _, offsets in ranges for offset in offsets] == expected[partition]
        for first, end, offsets in ranges:
            assert all(first <= offset < end for offset in offsets)
            assert len(offsets) <= batch_records


def test_each_partition_is_read_from_its_checkpoint_whatever_kafka_was_told(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    write_with_holes(stack_settings)
    worker = start()
    folded_to_the_end(ledger, worker)
    assert worker.stop() == 0
    # the database is restored from a backup that is older than what the group has told Kafka
    ledger.execute("DELETE FROM spanfold_core.journal_traces WHERE partition = 1")
    ledger.execute(
        "UPDATE spanfold_core.checkpoints SET next_offset = 0 WHERE topic = 'spanfold.traces' AND partition = 1"
    )
    again = start(program=("-c", RECORDING))
    folded_to_the_end(ledger, again)
    assert again.stop() == 0
    given = batches(again)
    assert given.keys() == {1}
    assert given[1][0][0] == 0
    assert [offset for _, _, offsets in given[1] for offset in offsets] == committed_offsets(stack_settings)[1]


def test_a_seek_of_an_earlier_assignment_gives_no_batch_a_beginning() -> None:
    """It came while the group rebalanced. aiokafka then begins where Kafka's commit says, which may be far behind it."""
    first, second, tp, other = object(), object(), TP("t", 0), TP("t", 1)
    starts = Starts()
    starts.seek(first, {tp: 7, other: 3})
    starts.advance(first, tp, 9)
    assert starts.within(first) == {tp: 9, other: 3}
    starts.forget([tp])
    starts.seek(first, {tp: 0})
    assert starts.within(second) == {}
    starts.seek(second, {tp: 5})
    assert starts.within(second) == {tp: 5}

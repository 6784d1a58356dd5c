"""What the producers' tests share: topics of their own on the real Kafka, and a plain consumer to look at
them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from spanfold.language.events import SpanRecorded
from spanfold.language.settings import Settings
from spanfold.language.topics import LOGS, METRICS, TRACES, Topic
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.schemas.codec import Codec, Fields
from tests.support.topics import topics_of
from tests.support.waiting import until

NOW = 1_795_000_000_000_000

ReadAll = Callable[[int], list[Message]]


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Iterator[Settings]:
    """Settings of this test alone, with the topics in place."""
    settings = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, partitions=3)
    with topics_of(settings):
        yield settings


@pytest.fixture
def publisher(settings: Settings) -> Iterator[TelemetryPublisher]:
    with TelemetryPublisher(settings) as made:
        yield made


@pytest.fixture
def read_topic(settings: Settings) -> Callable[[Topic, int], list[Message]]:
    """Read a topic to its end, where at least `expected` records must come to lie."""

    def read(topic: Topic, expected: int) -> list[Message]:
        consumer = Consumer(
            {"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test", "enable.partition.eof": True}
        )
        name = topic.on_broker(settings.topic_prefix)
        consumer.assign([TopicPartition(name, partition, 0) for partition in range(settings.partitions)])
        messages: list[Message] = []
        ended: set[int | None] = set()

        def is_read() -> bool:
            for message in consumer.consume(10_000, 0.1):
                if error := message.error():
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())
                else:
                    messages.append(message)
                    ended.discard(message.partition())
            return len(ended) == settings.partitions and len(messages) >= expected

        until(is_read, f"{expected} records in {name}", lambda: len(messages))
        consumer.close()
        return messages

    return read


@pytest.fixture
def read_all(read_topic: Callable[[Topic, int], list[Message]]) -> ReadAll:
    """The same, of the trace topic."""
    return lambda expected: read_topic(TRACES, expected)


@pytest.fixture
def points(read_topic: Callable[[Topic, int], list[Message]]) -> Callable[[int], list[dict[str, Any]]]:
    """The fields of the metric points that lie in the log, of which there must be so many."""
    return lambda expected: _fields(read_topic(METRICS, expected), expected)


@pytest.fixture
def log_records(read_topic: Callable[[Topic, int], list[Message]]) -> Callable[[int], list[dict[str, Any]]]:
    """The fields of the log records that lie in the log, of which there must be so many."""
    return lambda expected: _fields(read_topic(LOGS, expected), expected)


def _fields(messages: list[Message], expected: int) -> list[dict[str, Any]]:
    codec = Codec()
    assert len(messages) == expected
    return [_values(codec, message)[1] for message in messages]


def _values(codec: Codec, message: Message) -> tuple[str, Fields]:
    """The event type and the fields, documents as their values."""
    event_type, fields = codec.decode(message.value())
    return event_type, codec.with_values(event_type, fields)


@pytest.fixture
def decoded() -> Callable[[Message], tuple[str, Fields]]:
    codec = Codec()
    return lambda message: _values(codec, message)


@pytest.fixture
def span() -> Callable[..., SpanRecorded]:
    """A span that differs from others by its number."""

    def make(number: int = 0, **changes: object) -> SpanRecorded:
        fields: dict[str, object] = {
            "aggregate_id": f"{number // 5:032x}",
            "occurred_at": NOW + number,
            "source": "test",
            "span_id": f"{number:016x}",
            "parent_span_id": None,
            "service_name": "checkout",
            "operation_name": "POST /pay",
            "start_time": NOW,
            "end_time": NOW + number,
        }
        return SpanRecorded(**(fields | changes))  # type: ignore[arg-type]

    return make

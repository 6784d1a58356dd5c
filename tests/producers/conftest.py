"""What the producers' tests share: topics of their own on the real Kafka, and a plain consumer to look at
them.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from spanfold.kafka.topics import ensure_topics
from spanfold.language.events import SpanRecorded
from spanfold.language.settings import Settings
from spanfold.language.topics import LOGS, METRICS, TRACES, Topic
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.schemas.codec import Codec, Fields

NOW = 1_795_000_000_000_000

ReadAll = Callable[[int], list[Message]]


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    """Settings of this test alone, with the topics in place."""
    made = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, partitions=3)
    ensure_topics(made)
    return made


@pytest.fixture
def publisher(settings: Settings) -> Iterator[TelemetryPublisher]:
    with TelemetryPublisher(settings) as made:
        yield made


@pytest.fixture
def read_topic(settings: Settings) -> Callable[[Topic, int], list[Message]]:
    """Read a topic until `expected` records have come, and a moment longer, lest there be more."""

    def read(topic: Topic, expected: int) -> list[Message]:
        consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test"})
        name = topic.on_broker(settings.topic_prefix)
        consumer.assign([TopicPartition(name, each, 0) for each in range(settings.partitions)])
        found: list[Message] = []
        deadline = time.monotonic() + 20
        while len(found) < expected and time.monotonic() < deadline:
            found += consumer.consume(10_000, 0.2)
        found += consumer.consume(10_000, 0.5)
        consumer.close()
        return found

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
def errors(read_topic: Callable[[Topic, int], list[Message]]) -> Callable[[int], list[dict[str, Any]]]:
    """The fields of the logged errors that lie in the log, of which there must be so many."""
    return lambda expected: _fields(read_topic(LOGS, expected), expected)


def _fields(messages: list[Message], expected: int) -> list[dict[str, Any]]:
    codec = Codec()
    assert len(messages) == expected
    return [codec.decode(message.value())[1] for message in messages]


@pytest.fixture
def decoded() -> Callable[[Message], tuple[str, Fields]]:
    codec = Codec()
    return lambda message: codec.decode(message.value())


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

"""What the producers' tests share: topics of their own on the real Kafka, and a plain consumer to look at
them.
"""

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from producers.publisher import TelemetryPublisher
from producers.topics import ensure_topics
from schemas.codec import Codec, Fields
from spanfold.events import SpanRecorded
from spanfold.settings import Settings
from spanfold.topics import TRACES

NOW = 1_795_000_000_000_000

ReadAll = Callable[[int], list[Message]]


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    """Settings of this test alone, with the trace topic in place."""
    made = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, partitions=3)
    ensure_topics(made)
    return made


@pytest.fixture
def publisher(settings: Settings) -> Iterator[TelemetryPublisher]:
    with TelemetryPublisher(settings) as made:
        yield made


@pytest.fixture
def read_all(settings: Settings) -> ReadAll:
    """Read the trace topic until `expected` records have come, and a moment longer, lest there be more."""

    def read(expected: int) -> list[Message]:
        consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test"})
        topic = TRACES.on_broker(settings.topic_prefix)
        consumer.assign([TopicPartition(topic, each, 0) for each in range(settings.partitions)])
        found: list[Message] = []
        deadline = time.monotonic() + 20
        while len(found) < expected and time.monotonic() < deadline:
            found += consumer.consume(10_000, 0.2)
        found += consumer.consume(10_000, 0.5)
        consumer.close()
        return found

    return read


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

"""A stack with a worker, a bus that asks it, and events with the positions that they got."""

from collections.abc import AsyncIterator, Iterable

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from producers.publisher import TelemetryPublisher
from spanfold.buses import QueryBus
from spanfold.events import DomainEvent
from spanfold.positions import Position
from spanfold.settings import Settings
from spanfold.topics import Topic
from spanfold.wiring.queries import query_bus
from tests.stream_processors.conftest import Start, Worker, start

__all__ = ["start"]


@pytest.fixture
def worker(start: Start, ledger: psycopg.Connection[object]) -> Worker:
    return start()


@pytest.fixture
async def bus(stack_settings: Settings, ledger: psycopg.Connection[object]) -> AsyncIterator[QueryBus]:
    async with query_bus(stack_settings, wait_s=60) as made:
        yield made


def publish(settings: Settings, events: Iterable[DomainEvent]) -> None:
    """Acknowledged when it returns."""
    with TelemetryPublisher(settings) as publisher:
        for event in events:
            publisher.publish(event)
        assert publisher.flush(60) == 0


def ends(settings: Settings, topic: Topic) -> tuple[Position, ...]:
    """The last position of each partition that has any."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test"})
    name = topic.on_broker(settings.topic_prefix)
    found = {
        partition: consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)[1]
        for partition in range(settings.partitions)
    }
    consumer.close()
    return tuple(Position(topic.name, partition, end - 1) for partition, end in found.items() if end)

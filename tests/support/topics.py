"""spanfold's topics on the real broker, under a prefix of each test's own."""

from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.kafka.log_ends import ends_of_log
from spanfold.kafka.topics import ensure_topics
from spanfold.language.positions import Position
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, Topic, TopicOnBroker


@contextmanager
def topics_of(settings: Settings) -> Iterator[dict[str, TopicOnBroker]]:
    """spanfold's topics, under the prefix of these settings, until the block ends."""
    topics = ensure_topics(settings)
    yield topics
    admin = AdminClient(kafka_config(settings))
    wait(admin.delete_topics([topic.name for topic in topics.values()]).values(), 10)


@pytest.fixture
def topics(kafka_bootstrap: str, stack_settings: Settings) -> Iterator[dict[str, TopicOnBroker]]:
    """spanfold's topics, under this test's prefix."""
    with topics_of(stack_settings) as topics:
        yield topics


def log_ends(settings: Settings) -> dict[int, int]:
    """The end of each partition of the trace topic, whatever lies before it."""
    return {partition: end for (topic, partition), end in ends_of_log(settings).items() if topic == TRACES.name}


def last_positions(settings: Settings, topic: Topic) -> tuple[Position, ...]:
    """The last position of each partition that has any."""
    return tuple(
        Position(*each, end - 1) for each, end in ends_of_log(settings).items() if end and each[0] == topic.name
    )

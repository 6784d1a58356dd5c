"""A stack with a worker, a bus that asks it, and events with the positions that they got."""

from collections.abc import AsyncIterator, Iterable

import psycopg
import pytest

from spanfold.application.buses import QueryBus
from spanfold.bootstrap import query_bus
from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.events import DomainEvent
from spanfold.language.positions import Position
from spanfold.language.settings import Settings
from spanfold.language.topics import Topic
from spanfold.producers.publisher import TelemetryPublisher
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
    return tuple(
        Position(*each, end - 1) for each, end in ends_of_log(settings).items() if end and each[0] == topic.name
    )

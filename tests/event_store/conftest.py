"""The event store on a real Kafka and Postgres, with a real worker that judges and folds."""

from collections.abc import AsyncIterator

import pytest

from spanfold.adapters.event_store import KafkaEventStore
from spanfold.bootstrap import event_store
from spanfold.language.settings import Settings
from tests.support.databases import Ledger
from tests.support.workers import Start, Worker


@pytest.fixture
def worker(ledger: Ledger, start: Start) -> Worker:
    """At work on topics and tables that are empty."""
    return start()


@pytest.fixture
async def store(stack_settings: Settings, worker: Worker) -> AsyncIterator[KafkaEventStore]:
    async with event_store(stack_settings, timeout_s=60) as store:
        yield store

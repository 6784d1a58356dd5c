"""The event store on a real Kafka and Postgres, with a real worker that judges and folds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spanfold.adapters.event_store import KafkaEventStore
from spanfold.bootstrap import event_store
from spanfold.language.settings import Settings
from tests.projections.test_heads import Ledger
from tests.stream_processors.conftest import Start, Worker, second_settings, start

__all__ = ["second_settings", "start"]

ROOT = Path(__file__).parents[2]
OLDER = ("-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.event_store import older; older.main()")
"""What Python runs to be the worker of tests.event_store.older."""


@pytest.fixture
def worker(ledger: Ledger, start: Start) -> Worker:
    """At work on topics and tables that are empty."""
    return start()


@pytest.fixture
async def store(stack_settings: Settings, worker: Worker) -> AsyncIterator[KafkaEventStore]:
    async with event_store(stack_settings, timeout_s=60) as store:
        yield store

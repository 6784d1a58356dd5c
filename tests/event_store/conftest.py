"""The event store on a real Kafka and Postgres, with a real worker that judges and folds."""

from collections.abc import AsyncIterator, Iterator

import pytest

from spanfold.adapters.event_store import KafkaEventStore
from spanfold.bootstrap import event_store
from spanfold.language.settings import Settings
from tests.support.databases import Ledger
from tests.support.installations import installation, projector_of
from tests.support.processes import Forkserver
from tests.support.servers import Servers
from tests.support.workers import Start, Worker


@pytest.fixture(scope="session")
def shared_installation(
    servers: Servers,
    kafka_bootstrap: str,
    forkserver: Forkserver,
    prepared_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """An installation with a worker, for contracts: their tests mind no other records."""
    with (
        installation(servers, prepared_database) as settings,
        projector_of(settings, tmp_path_factory.mktemp("worker")),
    ):
        yield settings


@pytest.fixture
async def shared_store(shared_installation: Settings) -> AsyncIterator[KafkaEventStore]:
    async with event_store(shared_installation, timeout_s=60) as store:
        yield store


@pytest.fixture
def worker(ledger: Ledger, start: Start) -> Worker:
    """At work on topics and tables that are empty."""
    return start()


@pytest.fixture
async def store(stack_settings: Settings, worker: Worker) -> AsyncIterator[KafkaEventStore]:
    async with event_store(stack_settings, timeout_s=60) as store:
        yield store

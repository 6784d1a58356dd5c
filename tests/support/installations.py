"""An installation that several tests share: topics, a database that is prepared for them, and a worker."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from spanfold.language.settings import Settings
from tests.support.databases import database, register
from tests.support.servers import Servers
from tests.support.topics import topics_of
from tests.support.workers import Worker


@contextmanager
def installation(servers: Servers, like: str) -> Iterator[Settings]:
    """The settings of one whose database is a copy of the one named `like`, until the block ends."""
    group = f"t{uuid.uuid4().hex[:8]}"
    with database(servers, like) as dsn:
        settings = Settings(
            kafka_bootstrap=servers.kafka_bootstrap, postgres_dsn=dsn, topic_prefix=f"{group}.", group=group
        )
        with topics_of(settings) as topics:
            with psycopg.connect(dsn, autocommit=True) as ledger:
                register(ledger, topics)
            yield settings


@contextmanager
def projector_of(settings: Settings, folder: Path) -> Iterator[Worker]:
    """A projector at work on it, until the block ends."""
    worker = Worker(settings, folder)
    try:
        yield worker
        assert worker.stop() == 0, worker.output()
    finally:
        worker.kill()

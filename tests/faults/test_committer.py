"""What the committer does with a connection that an error has left behind."""

import asyncio
from typing import Any

import psycopg

from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.store import Store
from spanfold.stream_processors.worker.committer import Committer
from spanfold.stream_processors.worker.metrics import Metrics
from tests.support.victims import Servers


class Cut(Store):
    """The first time its connection breaks in the middle of a pipeline, which psycopg leaves open and good for nothing."""

    def __init__(self) -> None:
        super().__init__({})
        self.backends: list[int] = []

    def commit(self, connection: psycopg.Connection[Any], prepared: Any) -> list[Outcome]:
        self.backends.append(connection.info.backend_pid)
        if len(self.backends) == 1:
            connection.pgconn.enter_pipeline_mode()
            raise psycopg.OperationalError("cannot exit pipeline mode while busy")
        connection.execute("SELECT 1")
        return []


def test_after_an_error_the_next_attempt_has_a_connection_of_its_own(victims: Servers) -> None:
    store = Cut()
    committer = Committer(victims.dsn("postgres"), store, Metrics([]))
    try:
        assert asyncio.run(committer.commit(None)) == []  # the store does not look at it
    finally:
        committer.close()
    assert len(set(store.backends)) == 2

"""Preparing a database again changes nothing and waits for nobody."""

import threading
from typing import Any

import psycopg

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed


def test_a_worker_that_starts_does_not_wait_for_those_who_read(
    ledger: psycopg.Connection[Any], stack_settings: Settings, prepared_topics: dict[str, TopicOnBroker]
) -> None:
    dsn = stack_settings.postgres_dsn
    assert dsn
    with psycopg.connect(dsn) as reader:
        for view in ("journal", "verdicts", "traces", "spans", "checkpoints"):
            reader.execute(f"SELECT * FROM spanfold.{view}".encode())
        starting = threading.Thread(
            target=lifecycle.prepare, args=(dsn, prepared_topics.values(), installed()), daemon=True
        )
        starting.start()
        starting.join(30)
        waiting = ledger.execute("SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall()
        assert not starting.is_alive(), waiting

"""What the tests of rebuilds share: a mixed load, workers that fold it, and the work itself."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from spanfold.kafka.topics import ensure_topics
from spanfold.language.progress import NullProgress
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.projection import Projection, installed
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext, rebuild_context
from tests.faults.load import Load, events
from tests.stream_processors.conftest import Start, Worker, second_settings, start, until

__all__ = ["second_settings", "start"]

Ledger = psycopg.Connection[Any]


def publish(settings: Settings, count: int, seed: int = 1) -> None:
    """So many events of every kind, some of them twice."""
    source = events(random.Random(seed), time.time_ns() // 1000)
    with TelemetryPublisher(settings, block_timeout_s=60) as publisher:
        for _ in range(count):
            publisher.publish(next(source))
        assert publisher.flush(60) == 0


def publish_mixed(settings: Settings, count: int, seed: int = 1) -> None:
    """At least so many events, with doubled, unreadable, settled and transactional records among them, as fast as it goes."""
    load = Load(settings, seed, count, per_second=1_000_000)
    load.start()
    load.finish()


@contextmanager
def at_work(settings: Settings, projection: str | Projection = "traces") -> Iterator[RebuildContext]:
    """Alone with the projection's generations."""
    assert settings.postgres_dsn
    chosen = installed()[projection] if isinstance(projection, str) else projection
    topics = ensure_topics(settings, chosen.topics)
    with rebuild_context(settings, settings.postgres_dsn, topics, chosen, NullProgress()) as context:
        yield context


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a command about this stack."""
    ours = {"kafka_bootstrap", "postgres_dsn", "topic_prefix", "group"}
    return os.environ | {f"SPANFOLD_{name.upper()}": str(getattr(settings, name)) for name in ours}


def command(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """`spanfold …`, as a user would run it."""
    argv = [sys.executable, "-m", "spanfold", *words]
    return subprocess.run(argv, env=environment(settings), capture_output=True, text=True, timeout=280)


def rows(ledger: Ledger) -> dict[str, Any]:
    """Of every public view with rows that events made: how many, and the sum of the rows' hashes."""
    views = (
        "traces", "spans", "operation_minutes", "service_dependencies", "metrics", "metric_points", "metric_minutes",
        "error_logs", "services", "journal", "verdicts", "parked_records",
    )  # fmt: skip
    return {
        view: ledger.execute(
            f"SELECT count(*), coalesce(sum(hashtextextended(v::text, 0)::numeric), 0) FROM spanfold.{view} v".encode()
        ).fetchone()
        for view in views
    }


def folded(ledger: Ledger, settings: Settings, *workers: Worker) -> None:
    """Wait until the live generations have reached the end of the log, on every topic."""
    from spanfold.kafka.log_ends import ends_of_log

    ends = ends_of_log(settings)

    def positions() -> dict[tuple[str, int], int]:
        for worker in workers:
            assert worker.process.poll() is None, f"the worker ended:\n{worker.said()}"
        found = ledger.execute(
            "SELECT topic, partition, min(next_offset) FROM spanfold.checkpoints WHERE live GROUP BY 1, 2"
        )
        return {(topic, at): end for topic, at, end in found}

    until(lambda: positions().items() >= ends.items(), f"checkpoints at {ends}", positions)


def states(ledger: Ledger) -> list[tuple[str, int, str]]:
    return ledger.execute("SELECT projection, generation, state FROM spanfold.projections ORDER BY 1, 2").fetchall()


def leftovers(ledger: Ledger) -> dict[str, Any]:
    """What a rebuild that is over must not leave behind."""
    return {
        "schemas": ledger.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '_g[0-9]+$' "
            "AND nspname NOT IN (SELECT schema_name FROM spanfold_core.generations)"
        ).fetchall(),
        "generations": ledger.execute(
            "SELECT projection, generation FROM spanfold_core.generations WHERE state IN ('loading', 'following')"
        ).fetchall(),
        "checkpoints": ledger.execute(
            "SELECT DISTINCT projection, generation FROM spanfold_core.checkpoints WHERE projection <> 'journal' "
            "EXCEPT SELECT projection, generation FROM spanfold_core.generations"
        ).fetchall(),
        "sessions": ledger.execute(
            "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name SIMILAR TO 'spanfold (rebuild|load|compare)%'"
        ).fetchall(),
    }


NOTHING: dict[str, Any] = {"schemas": [], "generations": [], "checkpoints": [], "sessions": []}


@pytest.fixture
def folding(stack_settings: Settings, ledger: Ledger, start: Start) -> Worker:
    """A worker, and a first load that it has folded."""
    worker = start()
    publish(stack_settings, 3000)
    folded(ledger, stack_settings, worker)
    return worker

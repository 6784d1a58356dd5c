"""One run: a program folds the whole topic into an empty database, and its commits tell how fast."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import psycopg
from psycopg import sql

from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES

POLL_S: Final = 0.02
DONE_S: Final = 600.0

BASELINE_PROGRESS: Final = "SELECT events FROM progress"
SNAPSHOTS_PROGRESS: Final = (
    "SELECT sum(next_offset) FROM spanfold.checkpoints WHERE projection = 'snapshots' AND topic = 'spanfold.traces'"
)
PROJECTOR_PROGRESS: Final = "SELECT sum(next_offset) FROM spanfold.checkpoints WHERE projection = 'traces'"

AtWork = Callable[["subprocess.Popen[bytes]"], None]
"""Called once a program has made its first commit, or its last."""


@dataclass(frozen=True)
class Runs:
    """Runs over a topic that holds so many events."""

    settings: Settings
    postgres_dsn: str
    events: int

    def baseline(self) -> float:
        """Events per second of benchmarks.baseline."""
        with Database(self.postgres_dsn) as dsn:
            topic = TRACES.on_broker(self.settings.topic_prefix)
            arguments = [self.settings.kafka_bootstrap, topic, self.settings.partitions, self.events, dsn]
            command = [sys.executable, "-m", "benchmarks.baseline", *map(str, arguments)]
            return _rate(command, {}, dsn, BASELINE_PROGRESS, self.events)

    def projector(self, at_work: AtWork = lambda _: None, postgres: Mapping[str, str] | None = None) -> float:
        """Events per second of `spanfold worker projector`; `postgres` are settings of its sessions."""
        with Database(self.postgres_dsn, postgres or {}) as dsn:
            return self.fold(dsn, at_work)

    def fold(self, dsn: str, at_work: AtWork = lambda _: None) -> float:
        """Events per second of `spanfold worker projector` into this empty database."""
        command = [sys.executable, "-m", "spanfold", "worker", "projector"]
        return _rate(command, self.environment(dsn), dsn, PROJECTOR_PROGRESS, self.events, at_work)

    def fold_states(self, dsn: str, at_work: AtWork, when_done: AtWork) -> float:
        """Events per second of `spanfold worker snapshots` in a database that a projector has filled; `when_done` is called
        before it is ended.
        """
        command = [sys.executable, "-m", "spanfold", "worker", "snapshots"]
        return _rate(command, self.environment(dsn), dsn, SNAPSHOTS_PROGRESS, self.events, at_work, when_done)

    def environment(self, dsn: str) -> dict[str, str]:
        """The settings of a program that works on the topic and this database."""
        return {
            "SPANFOLD_KAFKA_BOOTSTRAP": str(self.settings.kafka_bootstrap),
            "SPANFOLD_POSTGRES_DSN": dsn,
            "SPANFOLD_TOPIC_PREFIX": self.settings.topic_prefix,
            "SPANFOLD_GROUP": uuid.uuid4().hex,
            "SPANFOLD_LOG_LEVEL": "WARNING",
        }


@dataclass(frozen=True)
class Database:
    """An empty database that is gone afterwards. `server` is a superuser's DSN."""

    server: str
    settings: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"bench_{uuid.uuid4().hex[:8]}")

    def __enter__(self) -> str:
        name = sql.Identifier(self.name)
        self._run(sql.SQL("CREATE DATABASE {}").format(name))
        for setting, value in self.settings.items():
            self._run(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
            )
        return f"{self.server.rpartition('/')[0]}/{self.name}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))
        self._run(sql.SQL("CHECKPOINT"))

    def _run(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(statement)


def _rate(
    command: list[str],
    environment: dict[str, str],
    dsn: str,
    progress: str,
    events: int,
    at_work: AtWork = lambda _: None,
    when_done: AtWork = lambda _: None,
) -> float:
    """Events between the first and the last commit that a poll of the progress saw, by the seconds between them: start-up
    is not part of it.
    """
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET log_statement_stats = off")  # what is asked from here is not the program's cost
            first, started = _wait(connection, process, progress, 1)
            at_work(process)
            last, ended = _wait(connection, process, progress, events)
        when_done(process)
    finally:
        process.terminate()
        process.wait(30)
    return (last - first) / (ended - started)


def _wait(
    connection: psycopg.Connection[Any], process: "subprocess.Popen[bytes]", progress: str, at_least: int
) -> tuple[int, float]:
    deadline = time.monotonic() + DONE_S
    while time.monotonic() < deadline:
        try:
            row = connection.execute(progress.encode()).fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        if row and row[0] is not None and row[0] >= at_least:
            return int(row[0]), time.perf_counter()
        if process.poll() not in (None, 0):
            raise SystemExit(f"it ended with exit code {process.returncode}")
        time.sleep(POLL_S)
    raise SystemExit(f"not done within {DONE_S:.0f} s; the last row was {row}")

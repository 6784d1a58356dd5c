"""What the tests of the workers share: workers as processes, and waiting until their checkpoints reach the log's end."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, TopicOnBroker
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed

PROJECTOR = ("-m", "spanfold", "worker", "projector")

PATIENCE_S = 90
"""Longer than anything here takes on a busy machine: only a test that fails waits so long."""


def until(condition: Callable[[], Any], what: str, seen: Callable[[], object] = lambda: "") -> Any:
    """Wait until the condition holds and return what it said; fails saying what was seen last."""
    deadline = time.monotonic() + PATIENCE_S
    while not (said := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {PATIENCE_S} s; seen: {seen()}"
        time.sleep(0.02)
    return said


@dataclass
class Worker:
    """`spanfold worker projector` as a process, with what it wrote to standard error."""

    settings: Settings
    folder: Path
    program: tuple[str, ...] = PROJECTOR
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        environment = os.environ | {
            f"SPANFOLD_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in self.settings.model_dump().items()
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                env=environment, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, within_s: float = 60) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"SIGTERM did not end the worker within {within_s} s:\n{self.said()}") from None


Start = Callable[..., Worker]


@pytest.fixture
def start(stack_settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start a worker; `start(batch_records=100)` changes settings, `program` what Python runs. What still runs at the end
    is killed.
    """
    workers: list[Worker] = []

    def start(settings: Settings = stack_settings, *, program: tuple[str, ...] = PROJECTOR, **changes: Any) -> Worker:
        folder = tmp_path / f"worker {len(workers)}"
        folder.mkdir()
        worker = Worker(settings.model_copy(update={"session_timeout_s": 6.0, **changes}), folder, program)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


def log_ends(settings: Settings) -> dict[int, int]:
    """The end of each partition of the trace topic, whatever lies before it."""
    return {partition: end for (topic, partition), end in ends_of_log(settings).items() if topic == TRACES.name}


def positions(ledger: psycopg.Connection[Any], projection: str = "traces") -> dict[int, int]:
    """Where the projection stands in each partition."""
    query = """
        SELECT partition, next_offset FROM spanfold.checkpoints WHERE topic = 'spanfold.traces' AND projection = %s
    """
    return dict(ledger.execute(query, [projection]).fetchall())


def folded_to_the_end(ledger: psycopg.Connection[Any], worker: Worker, *others: Worker) -> None:
    """Wait until the checkpoints have reached the log's end; fails at once if a worker has ended."""
    ends = log_ends(worker.settings)
    running = (worker, *others)

    def done() -> bool:
        for each in running:
            assert each.process.poll() is None, f"the worker ended:\n{each.said()}"
        return positions(ledger) == ends == positions(ledger, "journal")

    until(done, f"checkpoints at {ends}", lambda: f"{positions(ledger)}\n{worker.said()}")


@pytest.fixture
def second_settings(servers: Any, stack_settings: Settings, topics: dict[str, TopicOnBroker]) -> Iterator[Settings]:
    """The same topics, another group and another database, prepared for them."""
    name = f"t{uuid.uuid4().hex[:8]}"
    dsn = servers.postgres_dsn.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        lifecycle.prepare(dsn, topics.values(), installed())
        yield stack_settings.model_copy(update={"postgres_dsn": dsn, "group": name})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

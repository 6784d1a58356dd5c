"""The projector beside the baseline on the same events, alternating runs.

    python -m benchmarks --events 400000 --runs 5

Each run folds the whole topic into an empty database. The rate is taken from the commits: events between the first and
the last one that a poll of the progress saw, over the time between them; start-up is not part of it.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from producers.publisher import TelemetryPublisher
from producers.topics import ensure_topics
from spanfold.embedded.stack import EmbeddedStack
from spanfold.events import TraceCompleted, TraceCreated
from spanfold.settings import Settings
from spanfold.topics import TRACES

POLL_S = 0.02
DONE_S = 600.0
LAG = 500
"""A trace is completed when so many others have begun after it."""

BASELINE_PROGRESS = "SELECT events FROM progress"
PROJECTOR_PROGRESS = "SELECT sum(next_offset) FROM spanfold.checkpoints WHERE projection = 'traces'"


@dataclass(frozen=True)
class Bench:
    settings: Settings
    postgres_dsn: str
    events: int

    def baseline(self) -> float:
        with _Database(self.postgres_dsn) as dsn:
            topic = TRACES.on_broker(self.settings.topic_prefix)
            arguments = [self.settings.kafka_bootstrap, topic, self.settings.partitions, self.events, dsn]
            command = [sys.executable, "-m", "benchmarks.baseline", *map(str, arguments)]
            return _rate(command, {}, dsn, BASELINE_PROGRESS, self.events)

    def projector(self) -> float:
        with _Database(self.postgres_dsn) as dsn:
            environment = {
                "SPANFOLD_KAFKA_BOOTSTRAP": str(self.settings.kafka_bootstrap),
                "SPANFOLD_POSTGRES_DSN": dsn,
                "SPANFOLD_TOPIC_PREFIX": self.settings.topic_prefix,
                "SPANFOLD_GROUP": uuid.uuid4().hex,
                "SPANFOLD_LOG_LEVEL": "WARNING",
            }
            command = [sys.executable, "-m", "spanfold", "worker", "projector"]
            return _rate(command, environment, dsn, PROJECTOR_PROGRESS, self.events)


class _Database:
    """An empty database that is gone afterwards."""

    def __init__(self, server: str) -> None:
        self._server, self._name = server, f"bench_{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> str:
        self._run(f"CREATE DATABASE {self._name}")
        return f"{self._server.rpartition('/')[0]}/{self._name}"

    def __exit__(self, *_: object) -> None:
        self._run(f"DROP DATABASE {self._name} WITH (FORCE)")
        self._run("CHECKPOINT")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement.encode())


def _rate(command: list[str], environment: dict[str, str], dsn: str, progress: str, events: int) -> float:
    """Events per second of the program while it folds `events`."""
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            first, started = _wait(connection, process, progress, 1)
            last, ended = _wait(connection, process, progress, events)
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


def publish(settings: Settings, traces: int, progress: Progress) -> None:
    """TraceCreated and TraceCompleted of so many traces, seeded."""
    ensure_topics(settings)
    randomness, now = random.Random(1), time.time_ns() // 1000
    ids = [randomness.randbytes(16).hex() for _ in range(traces)]
    task = progress.add_task("publishing", total=traces + LAG)
    with TelemetryPublisher(settings, block_timeout_s=60.0) as publisher:
        for number in range(traces + LAG):
            if number < traces:
                publisher.publish(_created(ids[number], now + number, number))
            if number >= LAG:
                end = now + number - LAG + randomness.randrange(1_000_000)
                publisher.publish(
                    TraceCompleted(aggregate_id=ids[number - LAG], occurred_at=end, source="bench", end_time=end)
                )
            if number % 1000 == 0:
                progress.update(task, completed=number)
        progress.update(task, completed=traces + LAG)
        if publisher.flush(120.0):
            raise SystemExit("Kafka did not take all events within 120 s")


def _created(trace_id: str, at: int, number: int) -> TraceCreated:
    return TraceCreated(
        aggregate_id=trace_id,
        occurred_at=at,
        source="bench",
        service_name=f"service-{number % 12}",
        operation_name=f"GET /things/{number % 40}",
        start_time=at,
        tags={"http.request.method": "GET", "http.response.status_code": 200},
    )


def main(
    events: Annotated[int, typer.Option(help="TraceCreated and TraceCompleted together")] = 400_000,
    runs: Annotated[int, typer.Option(help="of each, in turn")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """The projector (journal, all verdicts, read models) beside the baseline (one table, nothing else)."""
    console = Console(stderr=True)
    with EmbeddedStack(ephemeral=True) as stack, Progress(console=console) as progress:
        settings = Settings(kafka_bootstrap=stack.state.kafka_bootstrap, topic_prefix=f"bench{uuid.uuid4().hex[:6]}.")
        publish(settings, events // 2, progress)
        bench = Bench(settings, stack.state.postgres_dsn, events)
        rates: dict[str, list[float]] = {"baseline": [], "projector": []}
        task = progress.add_task("runs", total=2 * runs)
        for _ in range(runs):
            for name, figures in rates.items():
                figures.append(getattr(bench, name)())
                progress.advance(task)
    ratios = [ours / base for base, ours in zip(rates["baseline"], rates["projector"], strict=True)]
    if as_json:
        print(json.dumps({"events": events, **rates, "ratio": statistics.median(ratios)}))
    else:
        Console().print(_table(events, rates, ratios))


def _table(events: int, rates: dict[str, list[float]], ratios: list[float]) -> Table:
    table = Table("", "min", "median", "max", title=f"{events:,} events, {len(ratios)} alternating runs, events/s")
    for name, figures in rates.items():
        table.add_row(name, *(f"{value:,.0f}" for value in (min(figures), statistics.median(figures), max(figures))))
    table.add_row("ratio", *(f"{value:.2f}" for value in (min(ratios), statistics.median(ratios), max(ratios))))
    return table


if __name__ == "__main__":
    typer.run(main)

"""A rebuild beside the live projector on the same backlog, alternating runs.

    python -m benchmarks.rebuild --events 5000000 --runs 3 --workers 2

Each run lets the projector fold the whole topic into an empty database, stops it, and rebuilds traces from the log. The
projector's rate is taken from its commits (see runs.py); the rebuild's from its own report: while loading, and in all, with
process start, indexes, comparison and swap.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import uuid
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.runs import Database, Runs
from benchmarks.workload import WORKLOADS, Name, publish
from spanfold.embedded.stack import EmbeddedStack
from spanfold.settings import Settings

MIB = 1024 * 1024


@dataclass(frozen=True)
class Figures:
    """Of one run: events/s, and the most memory that one process of the rebuild held, in MiB."""

    projector: float
    loading: float
    in_all: float
    memory: float
    blocked_ms: float


class Memory(threading.Thread):
    """Watches a process and its children; `most` is the most resident memory of any one of them, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._process, self._over = psutil.Process(pid), threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.most = max(self.most, *(each.memory_info().rss for each in family))
            except psutil.NoSuchProcess:
                pass

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.most


def one_run(bench: Runs, workers: int) -> Figures:
    """The projector, then the rebuild, in one database."""
    with Database(bench.postgres_dsn) as dsn:
        projector = bench.fold(dsn)
        command = [sys.executable, "-m", "spanfold", "rebuild", "traces", "--workers", str(workers), "--json"]
        process = subprocess.Popen(command, env=os.environ | bench.environment(dsn), stdout=subprocess.PIPE)
        memory = Memory(process.pid)
        memory.start()
        said, _ = process.communicate()
        most = memory.stop()
        if process.returncode:
            raise SystemExit(f"the rebuild ended with exit code {process.returncode}")
        told: dict[str, Any] = json.loads(said)
    if not told["equal"] or told["records"] != bench.events:
        raise SystemExit(f"the rebuild is not what it must be: {told}")
    in_all = told["records"] / told["total_s"]
    return Figures(projector, told["events_per_s"], in_all, most / MIB, told["blocked_s"] * 1000)


def main(
    workload: Annotated[Name, typer.Option(help="traces: created and completed; spans: with eight each")] = Name.TRACES,
    events: Annotated[int, typer.Option(help="of all types together, about")] = 500_000,
    runs: Annotated[int, typer.Option(help="of each, in turn")] = 3,
    workers: Annotated[int, typer.Option(help="processes of the rebuild")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """`spanfold rebuild traces` beside the live projector on the same backlog."""
    chosen = WORKLOADS[workload]
    traces = events // chosen.events_per_trace
    with EmbeddedStack(ephemeral=True) as stack, Progress(console=Console(stderr=True)) as progress:
        settings = Settings(kafka_bootstrap=stack.state.kafka_bootstrap, topic_prefix=f"bench{uuid.uuid4().hex[:6]}.")
        publish(settings, chosen, traces, progress)
        bench = Runs(settings, stack.state.postgres_dsn, traces * chosen.events_per_trace)
        task = progress.add_task("runs", total=runs)
        found = []
        for _ in range(runs):
            found.append(one_run(bench, workers))
            progress.advance(task)
    if as_json:
        print(json.dumps({"workload": workload, "events": bench.events, "runs": [asdict(each) for each in found]}))
    else:
        Console().print(_table(f"{workload}: {bench.events:,} events, {runs} runs, {workers} processes", found))


def _table(title: str, found: list[Figures]) -> Table:
    table = Table("", "min", "median", "max", title=title)

    def row(name: str, values: list[float], form: str) -> None:
        table.add_row(name, *(format(each, form) for each in (min(values), statistics.median(values), max(values))))

    row("projector, events/s", [each.projector for each in found], ",.0f")
    row("rebuild while loading, events/s", [each.loading for each in found], ",.0f")
    row("rebuild in all, events/s", [each.in_all for each in found], ",.0f")
    row("loading / projector", [each.loading / each.projector for each in found], ".2f")
    row("in all / projector", [each.in_all / each.projector for each in found], ".2f")
    row("most memory of a process, MiB", [each.memory for each in found], ",.0f")
    row("longest wait of a commit, ms", [each.blocked_ms for each in found], ",.0f")
    return table


if __name__ == "__main__":
    typer.run(main)

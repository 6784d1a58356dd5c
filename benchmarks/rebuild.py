"""A rebuild beside the live projector on the same backlog, alternating runs.

    python -m benchmarks.rebuild --events 5000000 --runs 3 --workers 2

Each run lets the projector fold the whole topic into an empty database, stops it, and rebuilds traces from the log. The
projector's rate is taken from its commits (see runs.py); the rebuild's from its own report: while loading, and in all, with
process start, indexes, comparison and swap.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Annotated, Any

import psutil
import typer

from benchmarks.bench import Rows, bench
from benchmarks.runs import Database, Runs
from benchmarks.workload import Name

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


def one_run(over: Runs, workers: int) -> Figures:
    """The projector, then the rebuild, in one database."""
    with Database(over.postgres_dsn) as dsn:
        projector = over.fold(dsn)
        command = [sys.executable, "-m", "spanfold", "rebuild", "traces", "--workers", str(workers), "--json"]
        process = subprocess.Popen(command, env=os.environ | over.environment(dsn), stdout=subprocess.PIPE)
        memory = Memory(process.pid)
        memory.start()
        said, _ = process.communicate()
        most = memory.stop()
        if process.returncode:
            raise SystemExit(f"the rebuild ended with exit code {process.returncode}")
        told: dict[str, Any] = json.loads(said)
    if not told["equal"] or told["records"] != over.events:
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
    with bench(workload, events) as prepared:
        found = prepared.each(runs, lambda over: one_run(over, workers))
    prepared.report(found, _rows(found), title=f"{runs} runs, {workers} processes", as_json=as_json)


def _rows(found: list[Figures]) -> Rows:
    yield "projector, events/s", ",.0f", [each.projector for each in found]
    yield "rebuild while loading, events/s", ",.0f", [each.loading for each in found]
    yield "rebuild in all, events/s", ",.0f", [each.in_all for each in found]
    yield "loading / projector", ".2f", [each.loading / each.projector for each in found]
    yield "in all / projector", ".2f", [each.in_all / each.projector for each in found]
    yield "most memory of a process, MiB", ",.0f", [each.memory for each in found]
    yield "longest wait of a commit, ms", ",.0f", [each.blocked_ms for each in found]


if __name__ == "__main__":
    typer.run(main)

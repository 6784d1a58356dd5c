"""The snapshot worker beside the projector on the same log, its memory, and what it costs on an idle stack.

    python -m benchmarks.snapshots --workload spans --events 400000 --runs 3
    python -m benchmarks.snapshots --workload opened --events 2000000 --runs 1

In each run the projector folds the whole topic into an empty database and is stopped; then the snapshot worker folds the same.
"""

import json
import statistics
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.rebuild import MIB, Memory
from benchmarks.runs import Database, Runs
from benchmarks.workload import WORKLOADS, Name, publish
from spanfold.embedded.stack import EmbeddedStack
from spanfold.settings import Settings

SETTLING_S: Final = 5.0
"""Until what is left of the work, such as feeding, is done."""


@dataclass(frozen=True)
class Figures:
    """Of one run: events/s, the most memory that the snapshot worker held in MiB, and its share of a core while nothing comes."""

    projector: float
    snapshots: float
    memory: float
    idle: float


class Watched:
    """Watches the snapshot worker while it folds, and then while it has nothing to do."""

    def __init__(self, idle_s: float) -> None:
        self.memory, self.idle = 0.0, 0.0
        self._idle_s = idle_s

    def at_work(self, process: "subprocess.Popen[bytes]") -> None:
        self._memory = Memory(process.pid)
        self._memory.start()

    def when_done(self, process: "subprocess.Popen[bytes]") -> None:
        self.memory = self._memory.stop() / MIB
        worker = psutil.Process(process.pid)
        time.sleep(SETTLING_S)
        before, began = worker.cpu_times(), time.monotonic()
        time.sleep(self._idle_s)
        after = worker.cpu_times()
        self.idle = (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


def one_run(bench: Runs, idle_s: float) -> Figures:
    """The projector, then the snapshot worker, in one database."""
    watched = Watched(idle_s)
    with Database(bench.postgres_dsn) as dsn:
        projector = bench.fold(dsn)
        snapshots = bench.fold_states(dsn, watched.at_work, watched.when_done)
    return Figures(projector, snapshots, watched.memory, watched.idle)


def main(
    workload: Annotated[Name, typer.Option(help="opened: traces that are created and never end")] = Name.SPANS,
    events: Annotated[int, typer.Option(help="of all types together, about")] = 400_000,
    runs: Annotated[int, typer.Option(help="of each, in turn")] = 3,
    idle_s: Annotated[float, typer.Option(help="how long it is watched while nothing comes")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """`spanfold worker snapshots` beside `spanfold worker projector` on the same log."""
    chosen = WORKLOADS[workload]
    traces = events // chosen.events_per_trace
    with EmbeddedStack(ephemeral=True) as stack, Progress(console=Console(stderr=True)) as progress:
        settings = Settings(kafka_bootstrap=stack.state.kafka_bootstrap, topic_prefix=f"bench{uuid.uuid4().hex[:6]}.")
        publish(settings, chosen, traces, progress)
        bench = Runs(settings, stack.state.postgres_dsn, traces * chosen.events_per_trace)
        task = progress.add_task("runs", total=runs)
        found = []
        for _ in range(runs):
            found.append(one_run(bench, idle_s))
            progress.advance(task)
    if as_json:
        print(json.dumps({"workload": workload, "events": bench.events, "runs": [asdict(each) for each in found]}))
    else:
        Console().print(_table(f"{workload}: {bench.events:,} events, {runs} runs", found))


def _table(title: str, found: list[Figures]) -> Table:
    table = Table("", "min", "median", "max", title=title)

    def row(name: str, values: list[float], form: str) -> None:
        table.add_row(name, *(format(each, form) for each in (min(values), statistics.median(values), max(values))))

    row("projector, events/s", [each.projector for each in found], ",.0f")
    row("snapshot worker, events/s", [each.snapshots for each in found], ",.0f")
    row("snapshot worker / projector", [each.snapshots / each.projector for each in found], ".2f")
    row("its most memory, MiB", [each.memory for each in found], ",.0f")
    row("its share of a core while idle", [each.idle for each in found], ".1%")
    return table


if __name__ == "__main__":
    typer.run(main)

"""The snapshot worker beside the projector on the same log, its memory, and what it costs on an idle stack.

    python -m benchmarks.snapshots --workload spans --events 400000 --runs 3
    python -m benchmarks.snapshots --workload opened --events 2000000 --runs 1

In each run the projector folds the whole topic into an empty database and is stopped; then the snapshot worker folds the same.
"""

import subprocess
import time
from dataclasses import dataclass
from typing import Annotated, Final

import psutil
import typer

from benchmarks.bench import Rows, bench
from benchmarks.rebuild import MIB, Memory
from benchmarks.runs import Database, Runs
from benchmarks.workload import Name

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


def one_run(over: Runs, idle_s: float) -> Figures:
    """The projector, then the snapshot worker, in one database."""
    watched = Watched(idle_s)
    with Database(over.postgres_dsn) as dsn:
        projector = over.fold(dsn)
        snapshots = over.fold_states(dsn, watched.at_work, watched.when_done)
    return Figures(projector, snapshots, watched.memory, watched.idle)


def main(
    workload: Annotated[Name, typer.Option(help="opened: traces that are created and never end")] = Name.SPANS,
    events: Annotated[int, typer.Option(help="of all types together, about")] = 400_000,
    runs: Annotated[int, typer.Option(help="of each, in turn")] = 3,
    idle_s: Annotated[float, typer.Option(help="how long it is watched while nothing comes")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """`spanfold worker snapshots` beside `spanfold worker projector` on the same log."""
    with bench(workload, events) as prepared:
        found = prepared.each(runs, lambda over: one_run(over, idle_s))
    prepared.report(found, _rows(found), title=f"{runs} runs", as_json=as_json)


def _rows(found: list[Figures]) -> Rows:
    yield "projector, events/s", ",.0f", [each.projector for each in found]
    yield "snapshot worker, events/s", ",.0f", [each.snapshots for each in found]
    yield "snapshot worker / projector", ".2f", [each.snapshots / each.projector for each in found]
    yield "its most memory, MiB", ",.0f", [each.memory for each in found]
    yield "its share of a core while idle", ".1%", [each.idle for each in found]


if __name__ == "__main__":
    typer.run(main)

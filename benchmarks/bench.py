"""What the benchmarks of a whole topic share: the stack with the published topic, runs one after another, and their table."""

import json
import statistics
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.runs import Runs
from benchmarks.workload import WORKLOADS, Name, publish
from spanfold.embedded.stack import EmbeddedStack
from spanfold.language.settings import Settings

Figures = TypeVar("Figures", bound=Any)
"""A dataclass: what one run showed."""

Rows = Iterable[tuple[str, str, Sequence[float]]]
"""Of a table: name, format of a value, and the values of all runs."""


@dataclass(frozen=True)
class Bench:
    """A stack whose topic of traces is full, runs over it, and the progress that people see."""

    stack: EmbeddedStack
    workload: Name
    runs: Runs
    progress: Progress

    def each(self, count: int, run: Callable[[Runs], Figures]) -> list[Figures]:
        """What so many runs showed, one after another."""
        return [run(self.runs) for _ in self.progress.track(range(count), description="runs")]

    def report(self, found: Sequence[Figures], rows: Rows, *, title: str, as_json: bool) -> None:
        """The figures of each run for programs, or a table for people."""
        if as_json:
            runs = [asdict(each) for each in found]
            print(json.dumps({"workload": self.workload, "events": self.runs.events, "runs": runs}))
            return
        table = Table("", "min", "median", "max", title=f"{self.workload}: {self.runs.events:,} events, {title}")
        for name, form, values in rows:
            table.add_row(name, *(format(each, form) for each in (min(values), statistics.median(values), max(values))))
        Console().print(table)


@contextmanager
def bench(workload: Name, events: int) -> Iterator[Bench]:
    """A stack of its own, with about so many events published."""
    chosen = WORKLOADS[workload]
    traces = events // chosen.events_per_trace
    with EmbeddedStack(ephemeral=True) as stack, Progress(console=Console(stderr=True)) as progress:
        settings = Settings(kafka_bootstrap=stack.state.kafka_bootstrap, topic_prefix=f"bench{uuid.uuid4().hex[:6]}.")
        publish(settings, chosen, traces, progress)
        runs = Runs(settings, stack.state.postgres_dsn, traces * chosen.events_per_trace)
        yield Bench(stack, workload, runs, progress)

"""The projector beside the baseline on the same events, alternating runs.

    python -m benchmarks --workload spans --events 400000 --runs 5 --profile

Each run folds the whole topic into an empty database; see runs.py for how its rate is taken.
"""

import json
import statistics
import uuid
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.profile import profile, py_spy
from benchmarks.runs import Runs
from benchmarks.workload import WORKLOADS, Name, publish
from spanfold.embedded.stack import EmbeddedStack
from spanfold.settings import Settings


def main(
    workload: Annotated[
        Name, typer.Option(help="traces: created and completed; spans: with eight spans each")
    ] = Name.TRACES,
    events: Annotated[int, typer.Option(help="of all types together, about")] = 400_000,
    runs: Annotated[int, typer.Option(help="of each, in turn")] = 5,
    profiled: Annotated[
        bool, typer.Option("--profile", help="one more run of the projector: where its time goes")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> None:
    """The projector (journal, all verdicts, read models) beside the baseline (plain tables, nothing else)."""
    if profiled:
        py_spy()
    console = Console(stderr=True)
    chosen = WORKLOADS[workload]
    traces = events // chosen.events_per_trace
    with EmbeddedStack(ephemeral=True) as stack, Progress(console=console) as progress:
        settings = Settings(kafka_bootstrap=stack.state.kafka_bootstrap, topic_prefix=f"bench{uuid.uuid4().hex[:6]}.")
        publish(settings, chosen, traces, progress)
        bench = Runs(settings, stack.state.postgres_dsn, traces * chosen.events_per_trace)
        rates = _alternate(bench, runs, progress)
        _show(str(workload), bench.events, rates, as_json=as_json)
        for table in profile(bench, stack.state.logs / "postgres.log") if profiled else ():
            console.print(table)


def _alternate(bench: Runs, runs: int, progress: Progress) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"baseline": [], "projector": []}
    task = progress.add_task("runs", total=2 * runs)
    for _ in range(runs):
        for name, figures in rates.items():
            figures.append(getattr(bench, name)())
            progress.advance(task)
    return rates


def _show(workload: str, events: int, rates: dict[str, list[float]], *, as_json: bool) -> None:
    ratios = [ours / base for base, ours in zip(rates["baseline"], rates["projector"], strict=True)]
    if as_json:
        print(json.dumps({"workload": workload, "events": events, **rates, "ratio": statistics.median(ratios)}))
        return
    title = f"{workload}: {events:,} events, {len(ratios)} alternating runs, events/s"
    table = Table("", "min", "median", "max", title=title)
    for name, figures in rates.items():
        table.add_row(name, *(f"{value:,.0f}" for value in (min(figures), statistics.median(figures), max(figures))))
    table.add_row("ratio", *(f"{value:.2f}" for value in (min(ratios), statistics.median(ratios), max(ratios))))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

"""The projector beside the baseline on the same events, alternating runs.

    python -m benchmarks --workload spans --events 400000 --runs 5 --profile

Each run folds the whole topic into an empty database; see runs.py for how its rate is taken.
"""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.bench import Rows, bench
from benchmarks.profile import profile, py_spy
from benchmarks.workload import Name


@dataclass(frozen=True)
class Figures:
    """Of one run: events/s."""

    baseline: float
    projector: float


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
    with bench(workload, events) as prepared:
        found = prepared.each(runs, lambda over: Figures(over.baseline(), over.projector()))
        prepared.report(found, _rows(found), title=f"{runs} alternating runs", as_json=as_json)
        for table in profile(prepared.runs, prepared.stack.state.logs / "postgres.log") if profiled else ():
            Console(stderr=True).print(table)


def _rows(found: list[Figures]) -> Rows:
    yield "baseline, events/s", ",.0f", [each.baseline for each in found]
    yield "projector, events/s", ",.0f", [each.projector for each in found]
    yield "projector / baseline", ".2f", [each.projector / each.baseline for each in found]


if __name__ == "__main__":
    typer.run(main)

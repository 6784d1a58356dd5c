"""`python -m tests.faults`: runs schedules of faults, one seed each, and tells what they did and found. With --snapshots the
victims are snapshot workers.

Results are appended to a file of JSON lines; --resume skips the seeds that are in it. Exit code 1 if any table differed from
the log or a fault did not bite.
"""

import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.faults.feeder_injuries import SNAPSHOT_FAULTS
from tests.faults.schedule import Plan, Report, run
from tests.faults.suspensions import SUSPENSIONS
from tests.faults.workers import PROJECTOR, SNAPSHOTS
from tests.support.victims import Servers

console: Final = Console(width=None if sys.stdout.isatty() else 150)
COLUMNS: Final = (
    "seed", "brokers", "events", "workers", "batches", "redelivered", "fenced", "refolds", "retries", "lost", "doubled",
    "duplicates", "uncommitted", "keys", "seconds",
)  # fmt: skip


def main(
    runs: Annotated[int, typer.Option(min=1, help="how many schedules")] = 40,
    first: Annotated[int, typer.Option(help="the first seed; the others follow it")] = 1,
    seed: Annotated[int | None, typer.Option(help="run this one alone")] = None,
    results: Annotated[
        Path | None, typer.Option(help="the file of JSON lines; .spanfold/faults/projector.jsonl or snapshots.jsonl")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="skip seeds that are in the file already")] = False,
    snapshots: Annotated[bool, typer.Option("--snapshots", help="the victims are snapshot workers")] = False,
    suspensions: Annotated[
        bool, typer.Option("--suspensions", help="a projection and a topic are suspended and resumed as well")
    ] = False,
) -> None:
    """Run seeded schedules of faults against real workers, a real Kafka and a real Postgres."""
    # a Kafka that is away is what the report tells of
    logging.getLogger("spanfold").setLevel(logging.CRITICAL)
    victims = SNAPSHOTS if snapshots else PROJECTOR
    results = results or Path(f".spanfold/faults/{victims.name}.jsonl")
    seeds = [seed] if seed is not None else list(range(first, first + runs))
    results.parent.mkdir(parents=True, exist_ok=True)
    before = _read(results) if resume else []
    if not resume:
        results.unlink(missing_ok=True)
    ours = [report for report in before if report.get("victims", PROJECTOR.name) == victims.name]
    done = {report["seed"] for report in ours}
    plans = [
        Plan.drawn(each, victims, suspensions=suspensions and victims is PROJECTOR)
        for each in seeds
        if each not in done
    ]
    reports = [each for each in ours if each["seed"] in set(seeds)]
    reports += list(_run_all(plans, results))
    _tell(reports)
    raise typer.Exit(0 if all(report["ok"] for report in reports) else 1)


def _read(results: Path) -> list[dict[str, Any]]:
    """What is there; a line that a killed run left half written is none."""
    found = []
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            console.print(f"{results} has a line that is no report: {line[:60]!r}")
    return found


def _run_all(plans: Sequence[Plan], results: Path) -> Iterator[dict[str, Any]]:
    columns = (
        TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("schedules", total=len(plans))
        # one kind of cluster after the other, so that each is started once
        for brokers in sorted({plan.brokers for plan in plans}):
            progress.update(task, description=f"starting {brokers} broker{'s' * (brokers > 1)}")
            for report in _run_on(brokers, [plan for plan in plans if plan.brokers == brokers], progress, results):
                progress.advance(task)
                with results.open("a") as file:
                    file.write(json.dumps(report.as_json()) + "\n")
                yield report.as_json()


def _run_on(brokers: int, plans: Sequence[Plan], progress: Progress, results: Path) -> Iterator[Report]:
    """Servers that a schedule could not leave whole are not used again."""
    left = list(plans)
    while left:
        with ExitStack() as stack:
            servers = stack.enter_context(Servers(brokers))
            while left:
                plan = left.pop(0)
                report = run(servers, plan, lambda step, seed=plan.seed: _describe(progress, seed, step))  # type: ignore[misc]
                _say(progress.console, report)
                if not report.ok:
                    _keep_logs(servers, results.parent / f"{plan.victims.name}-seed-{plan.seed}")
                yield report
                if report.error:
                    break


def _describe(progress: Progress, seed: int, step: str) -> None:
    progress.update(progress.task_ids[0], description=f"seed {seed}: {step}")


def _keep_logs(servers: Servers, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(servers.logs, folder)
    console.print(f"the logs are in {folder}")


def _say(to: Console, report: Report) -> None:
    to.print(
        f"[bold]{'exact' if report.ok else 'NOT EXACT'}[/] seed {report.seed}, {report.events:,} events",
        highlight=False,
    )
    for at, words in report.faults:
        to.print(f"  {at:5.1f} s  {words.replace('_', ' ')}", highlight=False, markup=False)
    for line in (*report.differences, *report.error.splitlines()):
        to.print(f"  {line[:400]}", highlight=False, markup=False, style="red")


def _tell(reports: Sequence[dict[str, Any]]) -> None:
    table = Table("", *COLUMNS, title="schedules of faults")
    for report in sorted(reports, key=lambda each: each["seed"]):
        table.add_row("✓" if report["ok"] else "✗", *(f"{report.get(name, 0):,}" for name in COLUMNS))
    totals = (
        f"{sum(report.get(name, 0) for report in reports):,}" if name not in ("seed", "brokers") else ""
        for name in COLUMNS
    )
    table.add_section()
    table.add_row("", *totals)
    console.print(table)
    kinds = Counter(
        words for report in reports for _, words in report["faults"] if words in {**SNAPSHOT_FAULTS, **SUSPENSIONS}
    )
    console.print("faults: " + ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in kinds.most_common()))
    wrong = [str(report["seed"]) for report in reports if not report["ok"]]
    console.print(f"not exact: seeds {', '.join(wrong)}" if wrong else f"all {len(reports)} exact")
    ended = sum(report["ended_by_themselves"] for report in reports)
    console.print(f"workers that ended by themselves and were started again: {ended}")


if __name__ == "__main__":
    typer.run(main)

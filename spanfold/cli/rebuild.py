"""`spanfold rebuild`, `verify` and `rollback`: a projection's tables made anew from the log, compared, swapped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.text import Text

from spanfold.cli.options import AsJson, Home, ProjectionNames, Workers, installation, sigterm_interrupts
from spanfold.cli.output import console, print_result
from spanfold.cli.progress import screen
from spanfold.language.errors import InvalidInput
from spanfold.operations import rebuilding
from spanfold.operations.rebuilding import DroppedGenerations
from spanfold.projections.generations.parity import TableParity
from spanfold.stream_processors.rebuild.compare import RowsDiffer
from spanfold.stream_processors.rebuild.rebuild import RebuildPreview, RebuildReport

ROWS_DIFFER = 1

FromSnapshot = Annotated[
    bool,
    typer.Option("--from-snapshot", help="Start from the states of aggregates, and fold only the log after them."),
]


def rebuild(
    projections: Annotated[
        list[str], typer.Argument(metavar="PROJECTION…", help="traces, metrics, logs, or your own.")
    ],
    workers: Workers = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be loaded, or why it can't be; change nothing.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Drop an unfinished rebuild.")] = False,
    from_snapshot: FromSnapshot = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Swap even if the same fold version gives different rows.")
    ] = False,
    tablespace: Annotated[
        str, typer.Option(metavar="NAME", help="Tablespace for the new tables. Default: the database's.")
    ] = "",
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Fold a projection again from the log, and swap it in without downtime.

    The new generation is loaded beside the live one while workers and queries continue. Then live and rebuilt rows are
    compared at one position, older transactions are waited for, and the views are swapped; `spanfold rollback` goes back.
    If it was killed, run it again to resume. With a new fold version, it follows the log until workers of that version
    take over.

    Exit codes: 1 rows differ, 2 unknown projection, 3 refused, 4 Kafka or Postgres unreachable.

    Example: spanfold rebuild traces --workers 2
    """
    if dry_run and abort:
        raise InvalidInput("pass either --dry-run or --abort, not both")
    target, to_follow = installation(home), []
    with sigterm_interrupts(), screen() as progress:
        for projection in rebuilding.projections_named(projections):
            if abort:
                _print_aborted(rebuilding.abort_rebuild(target, projection.name))
            elif dry_run:
                _print_preview(rebuilding.preview_rebuild(target, projection.name, from_snapshot))
            else:
                with _differences_shown():
                    report = rebuilding.rebuild(
                        target, projection.name, workers, from_snapshot, accept_differences, tablespace, False, progress
                    )
                _print(report, json, "rebuilt")
                to_follow += [projection.name] if report.needs_follower else []
        for name in to_follow:
            rebuilding.follow(target, name, progress)


@contextmanager
def _differences_shown() -> Iterator[None]:
    try:
        yield
    except RowsDiffer as error:
        console().print(Text("\n".join(_parity_lines(error.parity))))
        raise


def _print_aborted(dropped: DroppedGenerations) -> None:
    lines = [f"dropped generation {number} of {dropped.projection}" for number in dropped.generations]
    console().print(Text(", ".join(lines) or f"no rebuild of {dropped.projection} was unfinished"))


def _print_preview(preview: RebuildPreview) -> None:
    lines = [
        f"{topic}/{partition}: {offsets:,} offsets to fold"
        for (topic, partition), offsets in sorted(preview.offsets.items())
    ]
    if preview.unfinished is not None:
        lines.insert(0, f"an unfinished rebuild would be resumed, with generation {preview.unfinished.number}")
    console().print(Text("\n".join(lines)))


def verify(
    projections: ProjectionNames = None,
    workers: Workers = 2,
    from_snapshot: FromSnapshot = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Compare the tables with the log, row by row.

    Folds the projections again from the log and compares them with the live tables at one exact position. Nothing is
    swapped; the loaded tables are dropped again. Prints the first 20 rows of each table that differ.

    Exit code 1 if any row differs.

    Example: spanfold verify traces
    """
    target, equal = installation(home), True
    with sigterm_interrupts(), screen() as progress:
        for projection in rebuilding.projections_named(projections or ()):
            report = rebuilding.verify(target, projection.name, workers, from_snapshot, progress)
            equal = equal and report.equal
            _print(report, json, "verified")
    raise typer.Exit(0 if equal else ROWS_DIFFER)


def rollback(
    projection: Annotated[str, typer.Argument(metavar="PROJECTION", help="Name of the projection.")],
    workers: Workers = 2,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Go back to the generation before the last rebuild.

    That generation catches up with the log and is live again. If this code does not have its fold version, the command is
    refused; run it with the code that does.

    Example: spanfold rollback traces
    """
    target = installation(home)
    with sigterm_interrupts(), screen() as progress:
        report = rebuilding.rollback(target, projection, workers, False, progress)
        _print(report, json, "rolled back")
        if report.needs_follower:
            rebuilding.follow(target, projection, progress)


def _print(report: RebuildReport, json: bool, done: str) -> None:
    if json:
        print_result(report)
        return
    rate = f", {report.events_per_s:,} events/s" if report.load_s else ""
    folded = f"{report.states:,} states and " * (report.states > 0) + f"{report.records:,} events"
    lines = [
        *_parity_lines(report.parity),
        f"{done} {report.projection}: {folded} in {report.load_s:.1f} s{rate}; {report.total_s:.1f} s in total",
    ]
    if done != "verified":
        lines.append(f"generation {report.generation} is live; commits waited at most {report.blocked_s * 1000:.0f} ms")
    console().print(Text("\n".join(lines)))


def _parity_lines(parity: Sequence[TableParity]) -> Iterator[str]:
    """A line a table, and one a difference."""
    for compared in parity:
        if compared.equal:
            kept = "" if compared.since is None else f" from {compared.since:%Y-%m-%d} on"
            yield f"{compared.table}: {compared.live_rows:,} rows{kept}, equal"
            continue
        yield f"{compared.table}: {compared.live_rows:,} live rows and {compared.rebuilt_rows:,} rebuilt ones differ"
        yield from (f"  {difference}" for difference in compared.differences)

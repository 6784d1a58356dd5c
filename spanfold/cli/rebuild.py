"""`spanfold rebuild`, `verify` and `rollback`: a projection's tables made anew from the log, compared, swapped."""

from typing import Annotated

import typer
from rich.text import Text

from spanfold.cli.output import console, print_json
from spanfold.cli.rebuilding import WORKERS, Installation, Names, Workers, as_json, chosen, parity_lines, prepared
from spanfold.cli.stack import AsJson, Home, chosen_settings, running_settings, sigterm_interrupts
from spanfold.language.errors import InvalidInput
from spanfold.projections.projection import Projection
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from spanfold.stream_processors.rebuild.compare import RowsDiffer
from spanfold.stream_processors.rebuild.rebuild import RebuildReport, follow
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

ROWS_DIFFER = 1

FromSnapshot = Annotated[
    bool,
    typer.Option("--from-snapshot", help="Begin with the states of aggregates, and fold only the log behind them."),
]


def rebuild(
    projections: Annotated[
        list[str], typer.Argument(metavar="PROJECTION…", help="traces, metrics, logs, or your own.")
    ],
    workers: Workers = WORKERS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be loaded, or why it can't be.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Drop what a rebuild has left unfinished.")] = False,
    from_snapshot: FromSnapshot = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Swap also if the same fold now makes other rows.")
    ] = False,
    tablespace: Annotated[str, typer.Option(metavar="NAME", help="Where the new tables go, if not the default.")] = "",
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Fold a projection again from the log, and swap it in without downtime.

    It is loaded beside the live one: workers go on, and so do queries. Then live and rebuilt rows are compared at one
    position, transactions that see the database as it was before are waited for, and the views are swapped; `spanfold
    rollback` goes back. A rebuild that was killed goes on when it is called again. With a new fold version, it follows the
    log until workers of that version take over.

    Exit codes: 1 rows differ, 2 unknown projection, 3 refused, 4 Kafka or Postgres away.

    Example: spanfold rebuild traces --workers 2
    """
    settings, wanted = running_settings(chosen_settings(home)), chosen(projections)
    if dry_run and abort:
        raise InvalidInput("--dry-run and --abort exclude each other")
    to_follow: list[Projection] = []
    with sigterm_interrupts():
        ours = prepared(settings)
        for projection in wanted:
            if abort:
                _abort(ours, projection)
            elif dry_run:
                _preview(ours, projection, from_snapshot)
            else:
                with ours.at_work(projection, tablespace) as context:
                    result = _rebuild(
                        context, workers, accept_differences=accept_differences, from_snapshot=from_snapshot
                    )
                _tell(result, json, "rebuilt")
                to_follow += [projection] if result.needs_follower else []
        for projection in to_follow:
            with ours.at_work(projection) as context:
                follow(context)


def _rebuild(context: RebuildContext, workers: int, **how: bool) -> RebuildReport:
    try:
        return rebuilding.rebuild(context, workers, **how)
    except RowsDiffer as error:
        console().print(Text("\n".join(parity_lines(error.parity))))
        raise


def _abort(ours: Installation, projection: Projection) -> None:
    with ours.at_work(projection) as context:
        dropped = rebuilding.abort(context)
    words = ", ".join(f"generation {each.number} of {projection.name} is dropped" for each in dropped)
    console().print(Text(words or f"nothing of {projection.name} was unfinished"))


def _preview(ours: Installation, projection: Projection, from_snapshot: bool) -> None:
    with ours.at_work(projection) as context:
        plan = rebuilding.preview(context, from_snapshot=from_snapshot)
    lines = [
        f"{topic}/{partition}: {offsets:,} offsets to fold"
        for (topic, partition), offsets in sorted(plan.offsets.items())
    ]
    if plan.unfinished is not None:
        lines.insert(0, f"an unfinished rebuild would be resumed, with generation {plan.unfinished.number}")
    console().print(Text("\n".join(lines)))


def verify(
    projections: Names = None,
    workers: Workers = WORKERS,
    from_snapshot: FromSnapshot = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Compare the tables with the log, row by row.

    Projections are folded anew from the log and compared with the live tables, at one exact position. Nothing is swapped,
    and what was loaded is dropped again. The first 20 differing rows of each table are named.

    Exit code 1 when any row differs.

    Example: spanfold verify traces
    """
    settings, wanted = running_settings(chosen_settings(home)), chosen(projections)
    equal = True
    with sigterm_interrupts():
        ours = prepared(settings)
        for projection in wanted:
            with ours.at_work(projection) as context:
                result = rebuilding.verify(context, workers, from_snapshot=from_snapshot)
            equal = equal and all(each.equal for each in result.parity)
            _tell(result, json, "verified")
    raise typer.Exit(0 if equal else ROWS_DIFFER)


def rollback(
    projection: Annotated[str, typer.Argument(metavar="PROJECTION", help="Which one.")],
    workers: Workers = WORKERS,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Go back to the generation before the last rebuild.

    It catches up with the log and is live again. Refused when this code does not carry that generation's fold version: go
    back with the code that does.

    Example: spanfold rollback traces
    """
    settings, (wanted,) = running_settings(chosen_settings(home)), chosen([projection])
    with sigterm_interrupts(), prepared(settings).at_work(wanted) as context:
        result = rebuilding.rollback(context, workers)
        _tell(result, json, "rolled back")
        if result.needs_follower:
            follow(context)


def _tell(result: RebuildReport, json: bool, done: str) -> None:
    if json:
        print_json(as_json(result))
        return
    rate = f", {result.records / result.load_s:,.0f} events/s" if result.load_s else ""
    folded = f"{result.states:,} states and " * (result.states > 0) + f"{result.records:,} events"
    lines = [
        *parity_lines(result.parity),
        f"{done} {result.projection}: {folded} in {result.load_s:.1f} s{rate}; {result.total_s:.1f} s in all",
    ]
    if done != "verified":
        lines.append(
            f"generation {result.generation} is live; the longest that a commit waited was {result.blocked_s * 1000:.0f} ms"
        )
    console().print(Text("\n".join(lines)))

"""`spanfold snapshot now`: snapshots of every aggregate, without waiting for the policy."""

from typing import Annotated

import typer

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import console, print_json, table
from spanfold.cli.progress import screen
from spanfold.http.json_results import plain
from spanfold.operations.snapshots import take_snapshots

snapshot = typer.Typer(
    no_args_is_help=True,
    help="""Take snapshots of aggregates now.

    Otherwise the snapshot worker takes them according to its policy: SPANFOLD_SNAPSHOT_QUIET_S, _EVERY_RECORDS and
    _AT_LEAST_EVERY_S, with exceptions by aggregate in SPANFOLD_SNAPSHOT_POLICIES.

    Example: spanfold snapshot now --type trace
    """,
)


# keeps `now` a subcommand while it is the only one
snapshot.callback()(lambda: None)


@snapshot.command()
def now(
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="AGGREGATE",
            help="Only aggregates of this type: trace, service, metric_series, or your own.",
        ),
    ] = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Take a snapshot of every aggregate with records that are in no snapshot yet.

    A snapshot contains what the snapshot worker has folded; `behind` counts judged records that it has not folded yet. The
    worker publishes the snapshots to the compacted topic.

    Exit codes: 2 unknown aggregate, 3 not prepared, 4 Postgres unreachable.

    Example: spanfold snapshot now --type trace
    """
    with screen() as progress:
        counts = take_snapshots(installation(home), types or (), progress)
    if json:
        print_json(plain(counts))
        return
    cells = [(count.type, count.taken, count.snapshots, count.behind) for count in counts]
    console().print(table(("aggregate", "taken", "snapshots", "behind"), cells, right={1, 2, 3}))

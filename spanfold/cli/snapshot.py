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

    The snapshot worker takes them by its policy: SPANFOLD_SNAPSHOT_QUIET_S, _EVERY_RECORDS and _AT_LEAST_EVERY_S, and by
    aggregate SPANFOLD_SNAPSHOT_POLICIES.

    Example: spanfold snapshot now --type trace
    """,
)


# keeps `now` a subcommand while it is the only one
snapshot.callback()(lambda: None)


@snapshot.command()
def now(
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="AGGREGATE", help="trace, service, metric_series, or your own."),
    ] = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Take a snapshot of every aggregate that has records in none.

    They are of what the snapshot worker has folded; `behind` counts records that are judged and that it has not folded. The
    worker feeds them to the compacted topic.

    Exit codes: 2 unknown aggregate, 3 not prepared, 4 Postgres away.

    Example: spanfold snapshot now --type trace
    """
    with screen() as progress:
        counts = take_snapshots(installation(home), types or (), progress)
    if json:
        print_json(plain(counts))
        return
    cells = [(count.type, count.taken, count.snapshots, count.behind) for count in counts]
    console().print(table(("aggregate", "taken", "snapshots", "behind"), cells, right={1, 2, 3}))

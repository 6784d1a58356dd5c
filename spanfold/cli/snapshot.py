"""`spanfold snapshot now`: snapshots of every aggregate, without waiting for the policy."""

from typing import Annotated, Any

import psycopg
import typer
from rich.progress import Progress

from spanfold.application.aggregates import installed_aggregates
from spanfold.cli.output import console, notices, print_json, table
from spanfold.cli.sql import explained
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings
from spanfold.language.errors import InvalidInput, Misconfigured
from spanfold.projections.states import Folding, StateStore

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
    settings, wanted = running_settings(chosen_settings(home)), _wanted(types)
    store = StateStore(Folding(installed_aggregates()[name], settings.snapshot_policy) for name in wanted)
    with explained(), psycopg.connect(named_postgres(settings), autocommit=True, connect_timeout=5) as connection:
        taken = _take(connection, store)
        rows = [{"type": name, **_told(connection, store, name, taken)} for name in wanted]
    if json:
        print_json(rows)
        return
    cells = [(each["type"], each["taken"], each["snapshots"], each["behind"]) for each in rows]
    console().print(table(("aggregate", "taken", "snapshots", "behind"), cells, right={1, 2, 3}))


def _wanted(types: list[str] | None) -> list[str]:
    installed = installed_aggregates()
    for name in types or ():
        if name not in installed:
            raise InvalidInput(f"--type: there is no aggregate {name}; there are {', '.join(sorted(installed))}")
    return types or sorted(installed)


def _take(connection: psycopg.Connection[Any], store: StateStore) -> dict[str, int]:
    """How many were taken, by topic."""
    places = sorted(store.start_offsets(connection.execute(store.checkpoints.encode()).fetchall()))
    taken = dict.fromkeys((topic.name for topic in store.topics), 0)
    with Progress(console=notices(), transient=True) as progress:
        for topic, partition in progress.track(places, description="taking snapshots"):
            taken[topic] += store.take_due(connection, topic, partition, everything=True)
    return taken


def _told(connection: psycopg.Connection[Any], store: StateStore, name: str, taken: dict[str, int]) -> dict[str, Any]:
    aggregate = installed_aggregates()[name]
    row = connection.execute(TOLD, (aggregate.topic.name, aggregate.fold_version)).fetchone()
    count, behind = row or (0, None)
    if behind is None:
        raise Misconfigured(f"nothing has folded {name} yet: start `spanfold worker snapshots`, or `spanfold up`")
    return {"taken": taken[aggregate.topic.name], "snapshots": count, "behind": behind}


TOLD = """
SELECT (SELECT count(*) FROM spanfold.snapshots s WHERE (s.topic, s.fold_version) = (a.topic, a.fold_version)),
       (SELECT sum(j.next_offset - c.next_offset)::bigint
          FROM spanfold.checkpoints c
          JOIN spanfold.checkpoints j ON (j.topic, j.partition, j.projection) = (c.topic, c.partition, 'journal')
         WHERE (c.topic, c.projection, c.generation) = (a.topic, 'snapshots', a.fold_version))
  FROM (VALUES (%s::text, %s::integer)) AS a (topic, fold_version)
"""

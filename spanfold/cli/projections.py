"""`spanfold projections`: the generations of each projection, and letting go of previous ones."""

from typing import Any, Final

import typer
from psycopg.rows import dict_row
from rich.filesize import decimal

from projections.projection import Projection, installed, why_not_from_states
from spanfold.cli.output import console, print_json_rows, table
from spanfold.cli.rebuilding import Names, chosen, prepared
from spanfold.cli.sql import reading
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings

projections = typer.Typer(
    invoke_without_command=True,
    help="""Show the projections' generations, or drop previous ones.

    Of each: state, fold version, how far behind, size.

    Example: spanfold projections --json
    """,
)

ROWS: Final = """
SELECT projection, generation, state, fold_version, behind, log_time, bytes, created_at
  FROM spanfold.projections
 ORDER BY projection, generation
"""


@projections.callback()
def show(context: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Show the generations of each projection: state, fold version, how far behind, size.

    `behind` counts records that have been judged and that the generation has not folded; `spanfold status` compares with
    the log's end. `from snapshots` says whether `spanfold rebuild --from-snapshot` can make it, or why not. Also in SQL:
    spanfold sql 'SELECT * FROM projections'.

    Example: spanfold projections --json
    """
    if context.invoked_subcommand:
        return
    rows = _rows(named_postgres(running_settings(chosen_settings(home))))
    carried = installed()
    for each in rows:
        each["from_snapshot"] = _from_snapshot(carried.get(each["projection"]))
    if as_json:
        print_json_rows(rows)
        return
    columns = (
        "projection",
        "generation",
        "state",
        "fold version",
        "this code's",
        "behind",
        "log time",
        "size",
        "from snapshots",
    )
    cells = [
        (each["projection"], each["generation"], each["state"], each["fold_version"],
         carried[each["projection"]].fold_version if each["projection"] in carried else None,
         f"{each['behind']:,}", str(each["log_time"] or "-"), decimal(each["bytes"]), each["from_snapshot"])
        for each in rows
    ]  # fmt: skip
    console().print(table(columns, cells, right={5, 7}))


def _from_snapshot(projection: Projection | None) -> str:
    if projection is None:
        return "unknown here"
    why_not = why_not_from_states(projection)
    return f"no: {why_not}" if why_not else "yes"


def _rows(dsn: str) -> list[dict[str, Any]]:
    with reading(dsn, connect_timeout="5") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(ROWS).fetchall()


@projections.command("drop-previous")
def drop_previous(names: Names = None, home: Home = None) -> None:
    """Drop the generations that were live before the last rebuild; there is no going back then.

    Example: spanfold projections drop-previous traces
    """
    settings, wanted = running_settings(chosen_settings(home)), chosen(names)
    ours = prepared(settings)
    for projection in wanted:
        with ours.at_work(projection) as place:
            previous = [each for each in place.all() if each.state == "previous"]
            for each in previous:
                place.drop(each)
        words = ", ".join(f"dropped generation {each.number}" for each in previous) or "no previous generation"
        console().print(f"{projection.name}: {words}")

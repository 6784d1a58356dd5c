"""`spanfold projections`: the generations of each projection, and letting go of previous ones."""

from typing import Any, Final

import typer
from psycopg.rows import dict_row
from rich.filesize import decimal

from spanfold.cli.output import Cell, console, print_json_rows, table
from spanfold.cli.rebuilding import Names, chosen, prepared
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings
from spanfold.operations.reading import reading
from spanfold.projections.projection import Projection, installed, why_not_from_states
from spanfold.stream_processors.rebuild import rebuild as rebuilding

projections = typer.Typer(
    invoke_without_command=True,
    help="""Show the generations of projections, or drop previous ones.

    Of each: state, fold version, how far behind, size.

    Example: spanfold projections --json
    """,
)

ROWS: Final = """
SELECT p.projection, p.generation, p.state, p.fold_version, at.next_offsets, p.behind, p.log_time, p.bytes, p.created_at
  FROM spanfold.projections p
  LEFT JOIN (SELECT projection, generation, jsonb_object_agg(topic, next_offsets) AS next_offsets
               FROM (SELECT projection, generation, topic, jsonb_agg(next_offset ORDER BY partition) AS next_offsets
                       FROM spanfold.checkpoints
                      GROUP BY 1, 2, 3) AS each
              GROUP BY 1, 2) AS at USING (projection, generation)
 ORDER BY p.projection, p.generation
"""


@projections.callback()
def show(context: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Show the generations of each projection: state, fold version, position, how far behind, size.

    `next offsets` are those of the partitions of each topic, from partition 0 on: what lies before them is folded.
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
        "next offsets",
        "behind",
        "log time",
        "size",
        "from snapshots",
    )
    cells = [_cells(each, carried.get(each["projection"])) for each in rows]
    console().print(table(columns, cells, right={6, 8}))


def _cells(row: dict[str, Any], carried: Projection | None) -> tuple[Cell, ...]:
    return (
        row["projection"],
        row["generation"],
        row["state"],
        row["fold_version"],
        carried.fold_version if carried else None,
        _positions(row["next_offsets"] or {}),
        f"{row['behind']:,}",
        str(row["log_time"] or "-"),
        decimal(row["bytes"]),
        row["from_snapshot"],
    )


def _positions(next_offsets: dict[str, list[int]]) -> str:
    return "\n".join(f"{topic} {', '.join(map(str, each))}" for topic, each in sorted(next_offsets.items()))


def _from_snapshot(projection: Projection | None) -> str:
    if projection is None:
        return "unknown here"
    why_not = why_not_from_states(projection)
    return f"no: {why_not}" if why_not else "yes"


def _rows(dsn: str) -> list[dict[str, Any]]:
    with reading(dsn, "spanfold projections") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(ROWS).fetchall()


@projections.command("drop-previous")
def drop_previous(names: Names = None, home: Home = None) -> None:
    """Drop the generations that were live before the last rebuild; there is no going back then.

    Example: spanfold projections drop-previous traces
    """
    settings, wanted = running_settings(chosen_settings(home)), chosen(names)
    ours = prepared(settings)
    for projection in wanted:
        with ours.at_work(projection) as context:
            dropped = rebuilding.drop_previous(context)
        words = ", ".join(f"dropped generation {each.number}" for each in dropped) or "no previous generation"
        console().print(f"{projection.name}: {words}")

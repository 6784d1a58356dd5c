"""`spanfold projections`: the generations of each projection, and dropping previous ones."""

import typer
from rich.filesize import decimal

from spanfold.cli.options import AsJson, Home, ProjectionNames, installation
from spanfold.cli.output import Cell, console, print_result, table
from spanfold.operations.generations import GenerationStatus, list_generations

projections = typer.Typer(
    invoke_without_command=True,
    help="""Show the generations of projections, or drop previous ones.

    Prints state, fold version, lag and size of each.

    Example: spanfold projections --json
    """,
)

COLUMNS = (
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


@projections.callback()
def show(context: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Show the generations of each projection: state, fold version, position, lag, size.

    `next offsets` are the first offsets that are not folded yet, one per partition of each topic, from partition 0 on.
    `behind` counts judged records that the generation has not folded; `spanfold status` compares with the end of the log.
    `from snapshots` says whether `spanfold rebuild --from-snapshot` works for it, or why not. Also in SQL:
    spanfold sql 'SELECT * FROM projections'.

    Example: spanfold projections --json
    """
    if context.invoked_subcommand:
        return
    generations = list_generations(installation(home))
    if as_json:
        print_result(generations)
    else:
        console().print(table(COLUMNS, map(_cells, generations), right={6, 8}))


def _cells(generation: GenerationStatus) -> tuple[Cell, ...]:
    offsets = sorted((generation.next_offsets or {}).items())
    return (
        generation.projection,
        generation.generation,
        generation.state,
        generation.fold_version,
        generation.carried_fold_version,
        "\n".join(f"{topic} {', '.join(map(str, partitions))}" for topic, partitions in offsets),
        f"{generation.behind:,}",
        str(generation.log_time or "-"),
        decimal(generation.bytes),
        generation.from_snapshot,
    )


@projections.command("drop-previous")
def drop_previous(names: ProjectionNames = None, home: Home = None) -> None:
    """Drop the generations that were live before the last rebuild; `spanfold rollback` is impossible afterwards.

    Example: spanfold projections drop-previous traces
    """
    # imported here: SQLAlchemy takes a while, and showing generations does without it
    from spanfold.operations import rebuilding

    target = installation(home)
    for projection in rebuilding.projections_named(names or ()):
        dropped = rebuilding.drop_previous(target, projection.name).generations
        outcome = ", ".join(f"dropped generation {number}" for number in dropped) or "no previous generation"
        console().print(f"{projection.name}: {outcome}")

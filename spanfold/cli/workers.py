"""`spanfold workers …`: the workers of a running stack."""

from typing import Annotated

import typer

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import print_result
from spanfold.cli.progress import screen
from spanfold.operations.workers import restart_workers

workers = typer.Typer(
    no_args_is_help=True,
    help="""Restart the workers of a running stack; servers and OTLP go on.

    Example: spanfold workers restart
    """,
)


# keeps `restart` a subcommand while it is the only one
workers.callback()(lambda: None)


@workers.command()
def restart(
    name: Annotated[
        str | None, typer.Argument(help="One worker, such as projector-1. Default: all of them.", show_default=False)
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Restart the workers, without touching Kafka, Postgres and OTLP.

    Do this after you have changed a projection, or mended what kept a worker from starting. Returns once they work again.

    Example: spanfold workers restart projector-1
    """
    with screen() as progress:
        restarted = restart_workers(installation(home), name, progress=progress)
    if as_json:
        print_result(restarted)
        return
    for worker, pid in restarted.workers.items():
        print(f"Restarted {worker} (pid {pid}).")

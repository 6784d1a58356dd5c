"""`spanfold worker …`: the processes that fold. `spanfold up` runs them for you."""

import typer

from spanfold.settings import settings
from stream_processors.worker import run_projector

worker = typer.Typer(no_args_is_help=True, help="Run a worker in the foreground, until SIGTERM or Ctrl-C.")


@worker.callback()
def _workers() -> None:
    """Keeps `projector` a subcommand while it is the only one."""


@worker.command()
def projector() -> None:
    """Fold the topics into the read models.

    Start more of them to share the partitions; each batch is committed once, whoever owns it.

    Example: SPANFOLD_KAFKA_BOOTSTRAP=… SPANFOLD_POSTGRES_DSN=… spanfold worker projector
    """
    run_projector(settings())

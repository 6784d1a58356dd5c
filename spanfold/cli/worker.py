"""`spanfold worker …`: the processes that fold. `spanfold up` runs them for you."""

import typer

from spanfold.bootstrap import run_projector, run_snapshot_worker
from spanfold.operations.installation import environment_settings

worker = typer.Typer(no_args_is_help=True, help="Run a worker in the foreground, until SIGTERM or Ctrl-C.")


@worker.command()
def projector() -> None:
    """Fold the topics into the read models.

    Start several to share the partitions; every batch is committed once, whoever owns it.

    Example: SPANFOLD_KAFKA_BOOTSTRAP=… SPANFOLD_POSTGRES_DSN=… spanfold worker projector
    """
    run_projector(environment_settings())


@worker.command()
def snapshots() -> None:
    """Fold the topics into the states of aggregates, and take snapshots of them.

    It follows the projectors and folds what they have judged. Snapshots are in the view spanfold.snapshots and in the
    compacted topic of the same name.

    Example: SPANFOLD_KAFKA_BOOTSTRAP=… SPANFOLD_POSTGRES_DSN=… spanfold worker snapshots
    """
    run_snapshot_worker(environment_settings())

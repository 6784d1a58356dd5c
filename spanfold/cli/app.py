"""The Typer application: which commands there are."""

import typer

from spanfold.cli.worker import worker

app = typer.Typer(
    name="spanfold",
    help="Traces and metrics kept like a ledger: events on Kafka, folded exactly once into your Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(worker, name="worker")

"""The Typer application: which commands there are.

A command's module is imported when the command is called, so that `spanfold --help` and shell completion stay quick:
the workers' imports alone take two seconds.
"""

import sys
from importlib import import_module
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from spanfold import __version__

MARKUP: Final[Literal["rich"] | None] = "rich" if sys.stdout.isatty() and sys.stderr.isatty() else None
"""Boxes are for terminals: in a pipe they would break each sentence at 80 columns."""

PIPE_WIDTH: Final = 100_000


class Entry(NamedTuple):
    """Where a command is: a function or a Typer group of a module, and its line in `spanfold --help`."""

    module: str
    name: str
    summary: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry("spanfold.cli.up", "up", "Start Kafka, Postgres and the workers on this machine, without Docker."),
    "down": Entry("spanfold.cli.up", "down", "Stop what `spanfold up` started; keep the data."),
    "demo": Entry(
        "spanfold.cli.demo",
        "demo",
        "Run a shop of three services under load, publish its OpenTelemetry spans, and query the result.",
    ),
    "publish": Entry(
        "spanfold.cli.publish",
        "publish",
        "Publish events: one from flags, or many as JSON lines from a file or standard input.",
    ),
    "status": Entry(
        "spanfold.cli.status", "status", "Show what is running, and how far the read models lag behind the log."
    ),
    "tail": Entry("spanfold.cli.tail", "tail", "Show the records of a topic, decoded, as they arrive."),
    "doctor": Entry("spanfold.cli.doctor", "doctor", "Check this machine and explain how to fix problems."),
    "sql": Entry("spanfold.cli.sql", "sql", "Query the read models; without a query, open psql."),
    "trace": Entry(
        "spanfold.cli.trace", "trace", "Show one trace as the log has it, and what each of its records changed."
    ),
    "erase": Entry("spanfold.cli.erase", "erase", "Erase one trace from all tables, for ever."),
    "parked": Entry("spanfold.cli.parked", "parked", "List, show, retry or discard records that could not be folded."),
    "rebuild": Entry(
        "spanfold.cli.rebuild", "rebuild", "Fold a projection again from the log, and swap it in without downtime."
    ),
    "verify": Entry("spanfold.cli.rebuild", "verify", "Compare the tables with the log, row by row."),
    "rollback": Entry("spanfold.cli.rebuild", "rollback", "Go back to the generation before the last rebuild."),
    "resume": Entry("spanfold.cli.resume", "resume", "Go on with a topic or projection that was suspended."),
    "projections": Entry(
        "spanfold.cli.projections", "projections", "Show the generations of projections, or drop previous ones."
    ),
    "as-of": Entry(
        "spanfold.cli.as_of", "as_of", "Create the tables as they were at a moment in the past, in another schema."
    ),
    "snapshot": Entry("spanfold.cli.snapshot", "snapshot", "Take snapshots of aggregates now."),
    "prune": Entry(
        "spanfold.cli.prune", "prune", "Delete what the retention settings no longer keep and nothing needs."
    ),
    "migrate": Entry("spanfold.cli.migrate", "migrate", "Create or check the topics, and upgrade the database."),
    "otlp": Entry(
        "spanfold.cli.otlp", "otlp", "Accept spans from OpenTelemetry SDKs over OTLP/HTTP, until SIGTERM or Ctrl-C."
    ),
    "api": Entry("spanfold.cli.api", "api", "Serve commands and queries over HTTP, until SIGTERM or Ctrl-C."),
    "workers": Entry(
        "spanfold.cli.workers", "workers", "Restart the workers of a running stack; servers and OTLP go on."
    ),
    "worker": Entry("spanfold.cli.worker", "worker", "Run a worker in the foreground, until SIGTERM or Ctrl-C."),
}


def load(name: str) -> Any:
    """The command itself, its module imported."""
    entry = COMMANDS[name]
    command = getattr(import_module(entry.module), entry.name)
    if isinstance(command, typer.Typer):
        command.rich_markup_mode = MARKUP
        return typer.main.get_group(command)
    alone = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
    alone.command(name)(command)
    return typer.main.get_command(alone)


class LazyCommand(TyperCommand):
    """Stands for a command until it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, which is what then runs."""
        return load(str(self.name)).make_context(info_name, args, parent=parent, **extra)


class Commands(TyperGroup):
    """The group of all commands, in the order of COMMANDS."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(LazyCommand(name, help=entry.summary))

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return list(COMMANDS)


app = typer.Typer(
    name="spanfold",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={
        "help_option_names": ["-h", "--help"],
        **({} if MARKUP else {"terminal_width": PIPE_WIDTH, "max_content_width": PIPE_WIDTH}),
    },
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"spanfold {__version__}")
        raise typer.Exit


@app.callback()
def spanfold(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Traces and metrics kept like a ledger: events on Kafka, folded exactly once into your Postgres.

    Example: spanfold up --detach && spanfold sql 'SELECT count(*) FROM traces' && spanfold down
    """

"""Options that many commands share, and the installation that a command is about."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from spanfold.cli.output import notices
from spanfold.language.errors import InvalidInput
from spanfold.operations.installation import Installation, environment_settings

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="SPANFOLD_HOME",
        resolve_path=True,
        file_okay=False,
        help="Folder of the stack's data, logs and state. Default: ~/.local/share/spanfold.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Number of loading processes; each loads whole partitions.")
]
ProjectionNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROJECTION…", help="Projections: traces, metrics, logs, services, or your own.", show_default=False
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Reason; stored in the log with your user name and host.")]


def installation(home: Path | None) -> Installation:
    """What the environment names, else the stack that runs on the home. Misconfigured names an invalid setting."""
    return Installation.of(environment_settings(home=home))


def confirmed(question: str) -> bool:
    """Whether whoever sits at the terminal says yes. InvalidInput when nobody does."""
    notices().print(f"{question} [y/N] ", markup=False, end="")
    answer = sys.stdin.readline()
    if not answer:
        raise InvalidInput("no terminal to confirm; pass --yes")
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

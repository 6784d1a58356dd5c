"""`spanfold resume`: a suspended topic or projection goes on."""

from typing import Annotated

import typer
from rich.text import Text

from spanfold.cli.options import AsJson, Home, Workers, installation, sigterm_interrupts
from spanfold.cli.output import console, print_result
from spanfold.cli.progress import screen
from spanfold.operations import resuming
from spanfold.operations.resuming import Resumed


def resume(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A projection (traces, your own) or a topic (spanfold.traces).")
    ],
    park: Annotated[
        bool, typer.Option("--park", help="Topic: park what can't be folded of its records until now, however many.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Topic: go on after the records that the log has lost.")
    ] = False,
    workers: Workers = 2,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Go on with a topic or projection that was suspended.

    `spanfold status` says which are, and why. A projection is suspended when its code or its tables fail. Repair it, restart
    the workers, then resume it: what it has missed is folded beside the workers, then they keep it up again. A topic is
    suspended when too many of its recent records can't be folded, or its log has lost records. No record is given up unless
    you pass --accept-loss.

    Exit codes: 2 unknown name, 3 not suspended, or it fails again, 4 Kafka or Postgres unreachable.

    Example: spanfold resume traces
    """
    with sigterm_interrupts(), screen() as progress:
        done = resuming.resume(installation(home), name, park, accept_loss, workers, progress)
    if json:
        print_result(done)
    else:
        console().print(Text(_words(done)))


def _words(done: Resumed) -> str:
    lines = [
        f"{gap.topic}/{gap.partition}: {gap.projection} goes on at {gap.to_offset}, without {gap.from_offset} to "
        f"{gap.to_offset - 1}"
        for gap in done.gaps
    ]
    if done.kind == "projection":
        lines.append(f"resumed {done.name}: {done.records:,} records folded in {done.total_s:.1f} s")
    else:
        lines.append(f"resumed {done.name}: workers go on with it")
    return "\n".join(lines)

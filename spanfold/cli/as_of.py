"""`spanfold as-of`: the tables as they were at a moment in the past."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from spanfold.cli.options import AsJson, Home, Workers, installation, sigterm_interrupts
from spanfold.cli.output import console, print_result
from spanfold.cli.progress import screen
from spanfold.language.errors import InvalidInput
from spanfold.operations import past
from spanfold.operations.past import PastReport


def as_of(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TIME|TOPIC/PARTITION@OFFSET… [PROJECTION…]", help="The moment; the projections, default all."
        ),
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="SCHEMA", help="Schema to create.", show_default=False)
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option("--drop", metavar="SCHEMA", help="Drop a schema that this command created.", show_default=False),
    ] = None,
    workers: Workers = 2,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create the tables as they were at a moment in the past, in another schema.

    A TIME (RFC 3339) means the records that the broker had before it, whatever their own times say. Positions give the
    first offset that is not folded, for every partition of the topic. The live tables are not changed. Traces that were
    erased since then are left out; the output says how many.

    Example: spanfold as-of 2026-11-23T07:00:00Z traces --into yesterday; spanfold as-of --drop yesterday
    """
    target = installation(home)
    if drop is not None:
        dropped = past.drop_as_of(target, drop)
        outcome = Text(f"dropped {drop}: {', '.join(dropped.dropped) or 'it was empty'}")
        print_result(dropped) if as_json else console().print(outcome)
        return
    if not words or into is None:
        raise InvalidInput("pass a time or positions, and --into SCHEMA; see the example in `spanfold as-of --help`")
    moments, positions, projections = _sorted(words)
    if len(moments) + bool(positions) != 1:
        raise InvalidInput(
            "pass one time (2026-11-23T07:00:00Z) or positions (spanfold.traces/0@1234 for each partition), not "
            f"{' '.join(words)!r}"
        )
    with sigterm_interrupts(), screen() as progress:
        report = past.as_of(target, into, next(iter(moments), None), positions, projections, workers, progress)
    if as_json:
        print_result(report)
    else:
        console().print(Text(_summary(report)))


def _sorted(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Which of the words are times, positions and projections."""
    moments = [word for word in words if word[:1].isdigit()]
    positions = [word for word in words if word not in moments and "@" in word]
    return moments, positions, [word for word in words if word not in moments and word not in positions]


def _summary(report: PastReport) -> str:
    folded = ", ".join(f"{name} from {records:,} records" for name, records in report.records.items())
    without = ""
    if report.erased:
        traces = "trace that was" if report.erased == 1 else "traces that were"
        without = f", without {report.erased:,} {traces} erased since"
    return f"{report.schema} shows {folded}{without}: spanfold sql 'SELECT * FROM {report.view} LIMIT 5'"

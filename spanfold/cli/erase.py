"""`spanfold erase`: removes one trace from all tables, for ever."""

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.text import Text

from spanfold.cli.options import AsJson, Home, Why, Yes, confirmed, installation
from spanfold.cli.output import console, notices, one_line, print_result, table
from spanfold.operations.erasure import ErasureReport, contents_to_erase, erase_contents


def erase(
    trace_id: Annotated[str, typer.Argument(metavar="TRACE_ID", help="Id of the trace, or its trace_hex.")],
    why: Why = "",
    yes: Yes = False,
    even_if_unknown: Annotated[
        bool, typer.Option("--even-if-unknown", help="Erase it even if no table has it: its records may still arrive.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for Kafka, and for the tables.")
    ] = 30.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Erase one trace from all tables, for ever.

    Appends an event, TraceErased, to spanfold.traces and to spanfold.logs. There the trace's rows are deleted from every
    table, what its spans have added to operation_minutes and service_dependencies is subtracted, and what is kept of its
    records names nobody. Later records of the trace are rejected as erased; rebuilds and `spanfold as-of` leave it out. The
    command returns when the tables have passed the events. This can't be undone.

    Not erased: Kafka's own bytes, until `spanfold prune` has deleted the log up to the positions that are printed; backups
    of Postgres; what records of other traces say about this one, such as links.

    Exit code 1 if no table knows the trace, or the answer is no.

    Example: spanfold erase 4bf92f3577b34da6a3ce929d0e0e4736 --why 'ticket 4711'
    """
    target = installation(home)
    contents = contents_to_erase(target, trace_id, even_if_unknown=even_if_unknown)
    if contents.not_erased_on and not yes:
        notices().print(table(("what", "count"), _counts(contents.records, contents.rows)))
        if not confirmed(f"Erase trace {one_line(contents.trace_id)} for ever?"):
            raise typer.Exit(1)
    report = erase_contents(target, contents, why=why, timeout_s=timeout_s)
    if as_json:
        print_result(report)
    else:
        _print(report)


def _counts(records: Mapping[str, int], rows: Mapping[str, int]) -> list[tuple[str, int]]:
    return [
        *((f"records of {topic}", count) for topic, count in records.items()),
        *((f"spanfold.{view}", count) for view, count in rows.items()),
    ]


def _print(report: ErasureReport) -> None:
    screen = console()
    counts = _counts(report.records, report.rows)
    gone = ", ".join(f"{count:,} {what}" for what, count in counts if count) or "no table had it"
    outcome = "had been erased before" if report.erased_before else f"erased: {gone}"
    screen.print(Text(f"trace {one_line(report.trace_id)} {outcome}"), soft_wrap=True)
    for erasure in report.erasures:
        screen.print(Text(f"  {erasure}"), soft_wrap=True)
    screen.print(
        "Kafka keeps its bytes until the log is deleted up to and including these records, see `spanfold prune`. Backups of "
        "Postgres keep its rows; a restored backup loses them when it catches up with the log.",
        soft_wrap=True,
    )
    for table_to_do in report.kept_in:
        screen.print(Text(f"not erased in {table_to_do}", style="yellow"), soft_wrap=True)

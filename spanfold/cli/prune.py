"""`spanfold prune`: deleting what the retention settings no longer keep and nothing needs."""

from typing import Annotated, Final

import typer
from rich.filesize import decimal
from rich.text import Text

from spanfold.cli.options import AsJson, Home, installation, sigterm_interrupts
from spanfold.cli.output import console, print_result, table
from spanfold.cli.progress import screen
from spanfold.operations import pruning
from spanfold.operations.pruning import PruneReport
from spanfold.stream_processors.prune import Part

_WHAT: Final = {"log": "records", "journal": "records", "table": "rows"}


def prune(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be deleted, and what holds back the rest; change nothing."),
    ] = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Delete what the retention settings no longer keep and nothing needs.

    Deletes Kafka records, days of journals, and old rows of tables, if a setting says for how many days they are kept:
    SPANFOLD_LOG_RETENTION_DAYS and SPANFOLD_JOURNAL_RETENTION_DAYS by topic, SPANFOLD_TABLE_RETENTION_DAYS by table, each as
    JSON. Of the Kafka that `spanfold up` started also by size: SPANFOLD_LOG_RETENTION_BYTES, by topic, of each partition.
    The servers that it started have defaults; others keep everything. Whatever a checkpoint, a snapshot or a late event may
    still need is kept, and the output says what needs it.
    Workers keep running. If it was killed, run it again to resume.

    Exit codes: 0 done, 3 refused (a setting names something that does not exist, or another pruning is running), 4 Kafka or
    Postgres unreachable.

    Example: SPANFOLD_TABLE_RETENTION_DAYS='{"spans": 60}' spanfold prune --dry-run
    """
    with sigterm_interrupts(), screen() as progress:
        report = pruning.prune(installation(home), dry_run, progress)
    if json:
        print_result(report)
    else:
        _print(report)


def _print(report: PruneReport) -> None:
    done = "would free" if report.dry_run else "freed"
    rows = [(str(part), _freed(part), part.before or "-", part.held_by) for part in report.parts]
    console().print(table(("what", done, "before", "held back by"), rows))
    for remark in report.remarks:
        console().print(Text(remark))


def _freed(part: Part) -> str:
    if not part.frees:
        return "nothing"
    words = [f"{part.records:,} {_WHAT[part.kind]}"]
    if part.days:
        words.append(f"{part.days} days")
    if part.bytes:
        words.append(decimal(part.bytes))
    return ", ".join(words)

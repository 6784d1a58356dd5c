"""`spanfold prune`: letting go of what the settings allow and nothing needs any more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from spanfold.cli.output import console, notices, print_json, table
from spanfold.cli.rebuilding import postgres_translated, prepared
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings, sigterm_interrupts
from spanfold.projections.projection import installed
from spanfold.stream_processors.prune import Part, PrunePlan, prune_plan

_WHAT: Final = {"log": "records", "journal": "records", "table": "rows"}


class Screen:
    """Steps as lines, a table that is looked through as a bar; a ProgressListener."""

    def __init__(self, shown: Console, progress: Progress) -> None:
        self._console, self._progress = shown, progress
        self._task = progress.add_task("", total=None, visible=False)

    def step(self, words: str) -> None:
        self._progress.update(self._task, visible=False)
        self._console.print(f"{words} …", highlight=False, markup=False)

    def advanced(self, done: int, total: int, unit: str) -> None:
        self._progress.update(self._task, description=unit, completed=done, total=total, visible=done < total)

    def waiting(self, holders: Sequence[str]) -> None:
        """A pruning waits for nobody."""


@contextmanager
def _screen() -> Iterator[Screen]:
    shown = notices()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=shown, transient=True) as progress:
        yield Screen(shown, progress)


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and why not more; change nothing.")
    ] = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Delete what the retention settings no longer keep and nothing needs.

    That is records of Kafka, days of journals, and old rows of tables. Nothing is let go of unless a setting says for how
    many days it is to be kept: SPANFOLD_LOG_RETENTION_DAYS and SPANFOLD_JOURNAL_RETENTION_DAYS by topic,
    SPANFOLD_TABLE_RETENTION_DAYS by table, each as JSON. What a checkpoint, a snapshot or a late event may still need is
    kept nevertheless, and it is said by whom. Workers go on meanwhile. A pruning that was killed is gone on with when
    it is called again.

    Exit codes: 0 done, 3 refused (a setting names what there is not, another pruning runs), 4 Kafka or Postgres away.

    Example: SPANFOLD_TABLE_RETENTION_DAYS='{"spans": 60}' spanfold prune --dry-run
    """
    settings = running_settings(chosen_settings(home))
    with sigterm_interrupts(), _screen() as screen:
        ours = prepared(settings)
        with (
            postgres_translated("Call it again: it goes on from there"),
            prune_plan(settings, named_postgres(settings), ours.topics, installed()) as found,
        ):
            if not dry_run:
                found.run(screen)
    _tell(found, dry_run, json)


def _tell(found: PrunePlan, dry_run: bool, json: bool) -> None:
    if json:
        print_json({"dry_run": dry_run, "parts": [asdict(part) for part in found.parts], "remarks": found.remarks})
        return
    done = "would free" if dry_run else "freed"
    rows = [(str(part), _freed(part), part.before or "-", part.held_by) for part in found.parts]
    console().print(table(("what", done, "before", "why not more"), rows))
    for remark in found.remarks:
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

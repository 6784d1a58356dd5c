"""How commands about generations show what happens, and what they have in common."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sqlalchemy.exc import DBAPIError

from spanfold.cli.output import notices
from spanfold.cli.stack import named_postgres, prepare, unreachable_postgres
from spanfold.language.errors import InvalidInput, StoreUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.generations.parity import TableParity
from spanfold.projections.projection import Projection, installed
from spanfold.stream_processors.rebuild.rebuild import RebuildReport
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext, rebuild_context

Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that load, each whole partitions.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROJECTION…", help="traces, metrics, logs, or your own.", show_default=False),
]
WORKERS: Final = 2


class Screen:
    """Steps as lines, loading as a bar with events/s and what is left; a ProgressListener."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._task = progress.add_task("", total=None, visible=False, rate="")
        self._began, self._done = time.monotonic(), 0
        self._waiting: Sequence[str] = ()

    def step(self, words: str) -> None:
        self._progress.update(self._task, visible=False)
        self._began, self._done = time.monotonic(), 0
        self._console.print(f"{words} …", highlight=False)

    def advanced(self, done: int, total: int, unit: str) -> None:
        rate = done / max(time.monotonic() - self._began, 0.001)
        self._progress.update(
            self._task,
            completed=done,
            total=total,
            visible=total > 0,
            rate=f"{rate:,.0f} events/s, {total - done:,} to live",
        )

    def waiting(self, holders: Sequence[str]) -> None:
        for holder in holders:
            if holder not in self._waiting:
                self._console.print(f"waiting for {holder}", highlight=False, markup=False)
        self._waiting = holders


@contextmanager
def screen() -> Iterator[Screen]:
    """A screen on standard error."""
    console = notices()
    columns = (TextColumn("loading"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Screen(console, progress)


@dataclass(frozen=True, slots=True)
class Installation:
    """Topics that are there, by name, and a database that is up to date."""

    settings: Settings
    topics: Mapping[str, TopicOnBroker]

    @contextmanager
    def at_work(self, projection: Projection, tablespace: str = "") -> Iterator[RebuildContext]:
        """Alone with the projection's generations. Postgres' errors are translated."""
        dsn = named_postgres(self.settings)
        with (
            postgres_translated(),
            screen() as shown,
            rebuild_context(self.settings, dsn, self.topics, projection, shown, tablespace) as context,
        ):
            yield context


def prepared(settings: Settings) -> Installation:
    """Topics and database as a command needs them, see `stack.prepare`; it tells nothing, for what waits for a rebuild is what
    these commands are about.
    """
    return Installation(settings, prepare(settings, tell=lambda _: None))


@contextmanager
def postgres_translated(afterwards: str = "The live tables are as they were") -> Iterator[None]:
    """Within the block psycopg's errors and SQLAlchemy's become StoreUnavailable: what Postgres said, and how things stand."""
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        raise _failed(error.orig if isinstance(error, DBAPIError) else error, afterwards) from error


def _failed(error: BaseException | None, afterwards: str) -> StoreUnavailable:
    if isinstance(error, psycopg.Error) and error.sqlstate:
        words = " ".join(str(error).split())
        return StoreUnavailable(f"Postgres: {words} (SQLSTATE {error.sqlstate}). {afterwards}")
    return unreachable_postgres(error if isinstance(error, Exception) else None)


def chosen(names: Sequence[str] | None, known: Mapping[str, Projection] | None = None) -> list[Projection]:
    """The projections of these names, all without a name. InvalidInput names the unknown ones and what there is."""
    known = installed() if known is None else known
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InvalidInput(f"no projection is called {', '.join(unknown)}: there are {', '.join(sorted(known))}")
    return [known[name] for name in names or sorted(known)]


def parity_lines(parity: Sequence[TableParity]) -> Iterator[str]:
    """A line a table, and one a difference."""
    for each in parity:
        if each.equal:
            kept = "" if each.since is None else f" from {each.since:%Y-%m-%d} on"
            yield f"{each.table}: {each.live_rows:,} rows{kept}, equal"
            continue
        yield f"{each.table}: {each.live_rows:,} live rows and {each.rebuilt_rows:,} rebuilt ones differ"
        yield from (f"  {difference}" for difference in each.differences)


def as_json(report: RebuildReport) -> dict[str, Any]:
    """The report as JSON has it, with events per second."""
    rate = report.records / report.load_s if report.load_s else 0.0
    return asdict(report) | {"events_per_s": round(rate), "equal": all(table.equal for table in report.parity)}

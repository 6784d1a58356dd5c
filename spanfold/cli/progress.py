"""The progress of an operation on standard error: steps as lines, what is counted as a bar with its rate."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spanfold.cli.output import notices


class Screen:
    """A ProgressListener for people."""

    def __init__(self, console: Console, progress: Progress, steps: bool) -> None:
        self._console, self._progress, self._steps = console, progress, steps
        self._task = progress.add_task("", total=None, visible=False, rate="")
        self._began, self._done, self._total = time.monotonic(), 0, 0
        self._waiting_for: Sequence[str] = ()

    def step(self, text: str) -> None:
        self._progress.update(self._task, visible=False)
        self._total = 0
        if self._steps:
            self._console.print(f"{text} …", highlight=False, markup=False, soft_wrap=True)

    def advanced(self, done: int, total: int, unit: str) -> None:
        if total != self._total:
            self._began, self._done, self._total = time.monotonic(), done, total
        rate = (done - self._done) / max(time.monotonic() - self._began, 0.001)
        self._progress.update(
            self._task, completed=done, total=total, visible=done < total, rate=f"{unit}, {rate:,.0f}/s"
        )

    def waiting(self, holders: Sequence[str]) -> None:
        for holder in holders:
            if holder not in self._waiting_for:
                self._console.print(f"waiting for {holder}", highlight=False, markup=False, soft_wrap=True)
        self._waiting_for = list(holders)


@contextmanager
def screen(*, steps_in_files: bool = True) -> Iterator[Screen]:
    """A screen until the block ends. The bar is shown on terminals only, and so are the steps unless `steps_in_files`."""
    console = notices()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Screen(console, progress, steps_in_files or console.is_terminal)

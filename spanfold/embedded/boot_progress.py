"""The progress display of a stack's start, on a terminal."""

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text


class BytesColumn(ProgressColumn):
    """Done and total in bytes, with the speed, for those tasks that count bytes."""

    def render(self, task: Task) -> Text:
        """The column's text; empty for a task that only waits."""
        if task.fields.get("unit") != "bytes":
            return Text("")
        speed = decimal(int(task.finished_speed or task.speed or 0))
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total or 0))}, {speed}/s")


def boot_progress(console: Console | None = None) -> Progress:
    """A progress display for `EmbeddedStack.start`; use it as a context manager."""
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        BytesColumn(),
        console=console,
    )

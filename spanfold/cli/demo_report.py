"""What the demo shows: the slowest traces as waterfalls, the operations, a metric as a plot, and the errors."""

from typing import Any

from rich.console import Console
from rich.text import Text

from spanfold.cli.output import table
from spanfold.cli.waterfall import BAR_WIDTH, Bar, head_line, waterfall
from spanfold.demo.report import Report, Row


def print_report(console: Console, report: Report) -> None:
    """The slowest traces as waterfalls, the operations, a metric as a plot, and the errors."""
    console.print("\n[bold]The slowest traces[/bold]")
    for trace in report.slowest:
        console.print(Text("\n").append_text(head_line(trace)), soft_wrap=True)
        for line in waterfall([Bar(**span) for span in trace["spans"]]):
            console.print(line, soft_wrap=True)
    console.print("\n[bold]Calls by service and operation[/bold]")
    console.print(table(("service", "operation", "calls", "errors %", "p50 ms", "p95 ms", "p99 ms"), _cells(report)))
    console.print(f"\n[bold]Requests to the storefront per {report.step_s} s[/bold], and their mean duration")
    most = max((row["requests"] for row in report.requests), default=0)
    for row in report.requests:
        console.print(plot_line(row, most), soft_wrap=True)
    if report.errors:
        console.print("\n[bold]Logged errors[/bold]")
        columns = ("service_name", "message", "exception_type", "times", "latest_trace")
        rows = [tuple(row[name] for name in columns) for row in report.errors]
        console.print(table(("service", "message", "exception", "times", "latest trace"), rows))


def plot_line(row: Row, most: int) -> Text:
    """Time, bar by the number of requests, number, mean duration."""
    line = Text(f"  {row['at']:%H:%M:%S}  ")
    line.append(f"{'█' * max(1, round(row['requests'] / most * BAR_WIDTH)):<{BAR_WIDTH}}", style="cyan")
    return line.append(f" {row['requests']:6,}  {row['mean_ms']:7.1f} ms")


def _cells(report: Report) -> list[tuple[Any, ...]]:
    return [
        (
            row["service_name"],
            row["operation_name"],
            row["calls"],
            Text(f"{row['error_percent']:.1f}", justify="right", style="red" if row["error_percent"] else ""),
            *(Text(f"{row[name]:.1f}", justify="right") for name in ("p50_ms", "p95_ms", "p99_ms")),
        )
        for row in report.operations
    ]

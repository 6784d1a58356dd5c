"""What Postgres shows of a run: plain SQL on the public views, and tables to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.text import Text

from spanfold.cli.output import table
from spanfold.demo.shop import RUN_TAG

Row = dict[str, Any]

SLOWEST_TRACES: Final = """
SELECT trace_id, service_name, operation_name, status, error, duration_ms, span_count
  FROM spanfold.traces
 WHERE tags ->> %(tag)s = %(run)s
   AND duration_ms IS NOT NULL
 ORDER BY duration_ms DESC
 LIMIT %(limit)s
"""

SPANS_AS_TREE: Final = """
WITH RECURSIVE tree AS (
    SELECT s.*, 0 AS depth, ARRAY[s.start_time] AS path
      FROM spanfold.spans s
     WHERE s.trace_id = %(trace_id)s AND s.parent_span_id IS NULL
     UNION ALL
    SELECT s.*, tree.depth + 1, tree.path || s.start_time
      FROM spanfold.spans s
      JOIN tree ON s.trace_id = tree.trace_id AND s.parent_span_id = tree.span_id
)
SELECT depth, service_name, operation_name, status, duration_ms,
       extract(epoch FROM start_time - min(start_time) OVER ()) * 1000 AS offset_ms
  FROM tree
 ORDER BY path, span_id
"""

OPERATIONS: Final = """
SELECT service_name, operation_name, count(*) AS calls,
       round(100.0 * count(*) FILTER (WHERE status = 'error') / count(*), 1) AS error_percent,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99_ms
  FROM spanfold.spans
 WHERE tags ->> %(tag)s = %(run)s
 GROUP BY service_name, operation_name
 ORDER BY service_name, calls DESC, operation_name
"""

COUNTS: Final = """
SELECT (SELECT count(*) FROM spanfold.spans WHERE tags ->> %(tag)s = %(run)s) AS spans,
       count(*) AS traces,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       coalesce(sum(span_count), 0)::bigint AS spans_of_traces
  FROM spanfold.traces
 WHERE tags ->> %(tag)s = %(run)s
"""

BAR_WIDTH: Final = 40
_NAME_WIDTH: Final = 46


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown: `slowest` are traces with their spans in `tree` order, under the key `spans`."""

    slowest: Sequence[Row]
    operations: Sequence[Row]
    counts: Row


def read_report(postgres_dsn: str, run: str, *, slowest: int = 3) -> Report:
    """Ask Postgres about one run."""
    with psycopg.connect(postgres_dsn, autocommit=True, row_factory=dict_row) as connection:
        about: Row = {"tag": RUN_TAG, "run": run}
        traces = _rows(connection, SLOWEST_TRACES, about | {"limit": slowest})
        for trace in traces:
            trace["spans"] = _rows(connection, SPANS_AS_TREE, {"trace_id": trace["trace_id"]})
        operations = _rows(connection, OPERATIONS, about)
        return Report(traces, operations, _rows(connection, COUNTS, about)[0])


def show_report(console: Console, report: Report) -> None:
    """The slowest traces as waterfalls, then the operations."""
    console.print("\n[bold]The slowest traces[/bold]")
    for trace in report.slowest:
        _show_waterfall(console, trace)
    console.print("\n[bold]Calls by service and operation[/bold]")
    console.print(table(("service", "operation", "calls", "errors %", "p50 ms", "p95 ms", "p99 ms"), _cells(report)))


def _rows(connection: psycopg.Connection[Row], query: LiteralString, values: Row) -> list[Row]:
    return connection.execute(query, values).fetchall()


def _show_waterfall(console: Console, trace: Row) -> None:
    failed = trace["status"] == "failed"
    head = Text(f"\n{trace['service_name']} {trace['operation_name']}  {trace['duration_ms']:.1f} ms  ")
    head.append(str(trace["status"]), style="red" if failed else "green")
    head.append(f"  {trace['error']}" if failed else "", style="red")
    head.append(f"  {trace['trace_id']}", style="dim")
    console.print(head, soft_wrap=True)
    for span in trace["spans"]:
        console.print(waterfall_line(span, float(trace["duration_ms"])), soft_wrap=True)


def waterfall_line(span: Row, whole_ms: float) -> Text:
    """Name by depth, bar by time within the whole, duration."""
    name = f"{'  ' * span['depth']}{span['service_name']} {span['operation_name']}"
    if len(name) > _NAME_WIDTH:
        name = name[: _NAME_WIDTH - 1] + "…"
    scale = BAR_WIDTH / max(whole_ms, 0.001)
    begin = min(int(float(span["offset_ms"]) * scale), BAR_WIDTH - 1)
    length = max(1, min(round(float(span["duration_ms"]) * scale), BAR_WIDTH - begin))
    line = Text(f"  {name:<{_NAME_WIDTH}} " + " " * begin)
    line.append("━" * length, style="red" if span["status"] == "error" else "cyan")
    return line.append(f"{' ' * (BAR_WIDTH - begin - length)} {span['duration_ms']:9.1f} ms")


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

"""What Postgres shows of a run: plain SQL on the public views, and tables to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row

from spanfold.demo.processes import RUN_TAG
from spanfold.postgres.connections import connect
from spanfold.postgres.sessions import READ_ONLY

Row = dict[str, Any]

SLOWEST_TRACES: Final = """
SELECT trace_id, service_name, operation_name, status, error, duration_ms, span_count
  FROM spanfold.traces
 WHERE tags ->> %(tag)s = %(run)s
   AND duration_ms IS NOT NULL
 ORDER BY duration_ms DESC
 LIMIT %(limit)s
"""

SPANS: Final = """
SELECT span_id, parent_span_id, service_name, operation_name, kind, status,
       (extract(epoch FROM start_time) * 1000000)::bigint AS start_us,
       (extract(epoch FROM end_time) * 1000000)::bigint AS end_us
  FROM spanfold.spans
 WHERE trace_id = %(trace_id)s
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

REQUESTS: Final = """
SELECT time_bucket AS at, sum(count)::bigint AS requests, (sum(sum) / sum(count) * 1000)::float8 AS mean_ms
  FROM spanfold.metric_points,
       date_bin(make_interval(secs => %(step_s)s), time, 'epoch') AS time_bucket
 WHERE series_id = ANY (%(series)s)
   AND name = 'http.server.request.duration'
   AND service_name = 'storefront'
 GROUP BY time_bucket
HAVING sum(count) > 0
 ORDER BY time_bucket
"""

SPAN_OF_TIME: Final = """
SELECT coalesce(extract(epoch FROM max(time) - min(time)), 0)::float8 AS seconds
  FROM spanfold.metric_points
 WHERE series_id = ANY (%(series)s)
"""

ERRORS: Final = """
SELECT e.service_name, e.message, coalesce(e.exception_type, '') AS exception_type, count(*) AS times,
       (array_agg(e.trace_id ORDER BY e.occurred_at DESC))[1] AS latest_trace
  FROM spanfold.error_logs e
  JOIN spanfold.traces t USING (trace_id)
 WHERE t.tags ->> %(tag)s = %(run)s
 GROUP BY 1, 2, 3
 ORDER BY times DESC, 1, 2
"""

COUNTS: Final = """
SELECT (SELECT count(*) FROM spanfold.spans WHERE tags ->> %(tag)s = %(run)s) AS spans,
       (SELECT count(*) FROM spanfold.metric_points WHERE series_id = ANY (%(series)s)) AS points,
       (SELECT count(*) FROM spanfold.error_logs JOIN spanfold.traces t USING (trace_id)
         WHERE t.tags ->> %(tag)s = %(run)s) AS errors,
       count(*) AS traces,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       coalesce(sum(span_count), 0)::bigint AS spans_of_traces
  FROM spanfold.traces
 WHERE tags ->> %(tag)s = %(run)s
"""

MOST_BARS: Final = 20
LEAST_STEP_S: Final = 2
"""Points come once a second, not on the second: in shorter steps some would be empty."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown: `slowest` are traces with their spans under the key `spans`; `requests` are
    the storefront's in steps of `step_s` seconds.
    """

    slowest: Sequence[Row]
    operations: Sequence[Row]
    requests: Sequence[Row]
    step_s: int
    errors: Sequence[Row]
    counts: Row


def read_report(postgres_dsn: str, run: str, series: Sequence[str] = (), *, slowest: int = 3) -> Report:
    """Ask Postgres about one run, whose metrics are these series."""
    with connect(postgres_dsn, "spanfold demo", READ_ONLY) as connection:
        connection.row_factory = dict_row
        about: Row = {"tag": RUN_TAG, "run": run, "series": list(series)}
        traces = _rows(connection, SLOWEST_TRACES, about | {"limit": slowest})
        for trace in traces:
            trace["spans"] = _rows(connection, SPANS, {"trace_id": trace["trace_id"]})
        step_s = max(LEAST_STEP_S, ceil(_rows(connection, SPAN_OF_TIME, about)[0]["seconds"] / MOST_BARS))
        return Report(
            slowest=traces,
            operations=_rows(connection, OPERATIONS, about),
            requests=_rows(connection, REQUESTS, about | {"step_s": step_s}),
            step_s=step_s,
            errors=_rows(connection, ERRORS, about),
            counts=_rows(connection, COUNTS, about)[0],
        )


def _rows(connection: psycopg.Connection[Row], query: LiteralString, values: Row) -> list[Row]:
    return connection.execute(query, values).fetchall()

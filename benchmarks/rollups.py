"""p99 by operation, from the rollup and from the spans that it was folded from.

    python -m benchmarks.rollups --spans 300000 --hours 6

Spans of 20 operations are folded into an empty database, a batch at a time. `rows of buckets` is how many rows the rollup
would have with one for each bucket.
"""

import random
import statistics
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Final

import psycopg
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.runs import Database
from spanfold.embedded.stack import EmbeddedStack
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker, installed_topics
from spanfold.projections.commit.reading import JSONB_VERSION
from spanfold.projections.facts import Fact
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from spanfold.projections.traces import PROJECTION

BATCH: Final = 5000
HOUR_US: Final = 3_600_000_000
START_US: Final = 1_790_000_000_000_000
OPERATIONS: Final = tuple((f"service-{number % 5}", f"GET /things/{number}") for number in range(20))

FROM_ROLLUP: Final = """
SELECT service_name, operation_name, spanfold.p99(duration_histogram)
  FROM spanfold.operation_minutes
 GROUP BY service_name, operation_name
"""

FROM_SPANS: Final = """
SELECT service_name, operation_name, percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ms)
  FROM spanfold.spans
 GROUP BY service_name, operation_name
"""

ROWS: Final = """
SELECT (SELECT count(*) FROM traces_g1.spans), count(*), sum(cardinality((durations).buckets)) FROM traces_g1.operation_minutes
"""


def facts(randomness: random.Random, count: int, hours: float) -> Iterator[Fact]:
    """SpanRecorded, in the form that the fold takes, of traces with eight spans."""
    for offset in range(count):
        service, operation = OPERATIONS[randomness.randrange(len(OPERATIONS))]
        end = START_US + int(hours * HOUR_US * offset / count)
        yield offset, "SpanRecorded", {
            "aggregate_id": f"{offset // 8:032x}", "event_id": uuid.UUID(int=offset).bytes, "occurred_at": end,
            "span_id": f"{offset:016x}", "parent_span_id": None, "service_name": service, "operation_name": operation,
            "kind": "server", "start_time": end - int(randomness.lognormvariate(10, 1)), "end_time": end, "status": "ok",
            "status_message": None, "tags": JSONB_VERSION + b"{}", "events": JSONB_VERSION + b"[]",
            "links": JSONB_VERSION + b"[]", "resource": JSONB_VERSION + b"{}", "scope_name": "", "scope_version": "",
            "scope_attributes": JSONB_VERSION + b"{}",
        }  # fmt: skip


def fill(connection: psycopg.Connection[Any], count: int, hours: float, partitions: int) -> None:
    """Fold the spans; a batch is of one partition, as a committer's is."""
    parts: list[list[Fact]] = [[] for _ in range(partitions)]
    for fact in facts(random.Random(1), count, hours):
        partition = int(fact[2]["aggregate_id"], 16) % partitions
        parts[partition].append(fact)
        if len(parts[partition]) == BATCH:
            _merge(connection, parts[partition], partition)
            parts[partition] = []
    for partition, rest in enumerate(parts):
        _merge(connection, rest, partition)
    connection.execute("VACUUM ANALYZE")


def _merge(connection: psycopg.Connection[Any], batch: list[Fact], partition: int) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        PROJECTION.merge(cursor, "traces_g1", PROJECTION.fold(batch), partition)


def seconds(connection: psycopg.Connection[Any], query: str) -> float:
    started = time.perf_counter()
    connection.execute(query.encode()).fetchall()
    return time.perf_counter() - started


def main(
    spans: Annotated[int, typer.Option(help="how many spans")] = 300_000,
    hours: Annotated[float, typer.Option(help="the time over which they are spread")] = 6,
    runs: Annotated[int, typer.Option(help="of each query, in turn")] = 5,
    explain: Annotated[bool, typer.Option(help="show the plan of the query of the rollup")] = False,
) -> None:
    """Fold the spans, and compare the two queries."""
    settings = Settings()
    topics = [TopicOnBroker(topic, topic.name, str(uuid.uuid4()), settings.partitions) for topic in installed_topics()]
    with EmbeddedStack(ephemeral=True) as stack, Database(stack.state.postgres_dsn) as dsn:
        lifecycle.prepare(dsn, topics, installed())
        with psycopg.connect(dsn, autocommit=True) as connection:
            fill(connection, spans, hours, settings.partitions)
            times = [(seconds(connection, FROM_ROLLUP), seconds(connection, FROM_SPANS)) for _ in range(runs)]
            ((rows, minutes, buckets),) = connection.execute(ROWS).fetchall()
            plan = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {FROM_ROLLUP}".encode()) if explain else ()
            print(*(line for (line,) in plan), sep="\n")
    rollup, raw = (statistics.median(column) for column in zip(*times, strict=True))
    table = Table("", "", title=f"{rows:,} spans over {hours:g} hours in {settings.partitions} partitions")
    table.add_row("rows of the rollup", f"{minutes:,}")
    table.add_row("rows of buckets", f"{buckets:,}")
    table.add_row("p99 from the rollup, ms", f"{rollup * 1000:,.0f}")
    table.add_row("p99 from the spans, ms", f"{raw * 1000:,.0f}")
    table.add_row("rollup / spans", f"{rollup / raw:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

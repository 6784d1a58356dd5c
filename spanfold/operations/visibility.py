"""Waiting until the read models show what was appended, and what they will never show."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.language.positions import Position
from spanfold.language.topics import Partition
from spanfold.operations.postgres_errors import reads_translated
from spanfold.postgres.connections import connect
from spanfold.postgres.errors import translated

POLL_S: Final = 0.05

REACHED: Final = """
SELECT topic, partition, min(next_offset)
  FROM spanfold.checkpoints
 WHERE live AND NOT suspended
 GROUP BY topic, partition
"""

SUSPENDED: Final = "SELECT FROM spanfold.suspensions WHERE kind = 'topic' AND name = %s"


def wait_until_visible(dsn: str, ends: Mapping[Partition, int], timeout_s: float) -> None:
    """Return when the journal and all live projections that are not suspended have reached `ends` (the next offset of each
    partition).

    StoreUnavailable when they have not within `timeout_s`, or Postgres can't be reached; it names a partition that is
    behind, and says when its topic is suspended. Misconfigured when the database knows nothing of spanfold.
    """
    deadline = time.monotonic() + timeout_s
    try:
        with connect(dsn, "spanfold publish") as connection:
            while behind := _behind(connection, ends):
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(_still(connection, behind, ends, timeout_s))
                time.sleep(POLL_S)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise Misconfigured(
            "this database has no read models yet: run `spanfold migrate`, or start a worker"
        ) from error
    except psycopg.OperationalError as error:
        raise translated(error) from error


@dataclass(frozen=True, slots=True)
class NotShown:
    """A record that the read models don't show: rejected with this verdict, or `parked`, and why."""

    position: Position
    verdict: str
    detail: str


def not_shown(dsn: str, offsets: Mapping[Partition, Collection[int]]) -> list[NotShown]:
    """Which of these records, of which a verdict is known, were rejected or parked; a duplicate of a record that is shown is
    not among them. Raises StoreUnavailable.
    """
    with reads_translated(), connect(dsn, "spanfold publish") as connection:
        return [
            NotShown(Position(topic, partition, offset), verdict, detail)
            for (topic, partition), of_partition in sorted(offsets.items())
            for offset, verdict, detail in connection.execute(
                NOT_SHOWN,
                {"topic": topic, "partition": partition, "first": min(of_partition), "last": max(of_partition)},
            )
            if offset in of_partition
        ]


NOT_SHOWN: Final = """
SELECT kafka_offset, verdict, coalesce(detail, '')
  FROM spanfold.verdicts
 WHERE verdict NOT IN ('accepted', 'duplicate')
   AND (topic, partition) = (%(topic)s, %(partition)s)
   AND kafka_offset BETWEEN %(first)s AND %(last)s
 UNION ALL
SELECT kafka_offset, 'parked', reason || ': ' || detail
  FROM spanfold.parked_records
 WHERE state = 'parked'
   AND (topic, partition) = (%(topic)s, %(partition)s)
   AND kafka_offset BETWEEN %(first)s AND %(last)s
 ORDER BY 1
"""


def _behind(connection: psycopg.Connection[Any], ends: Mapping[Partition, int]) -> dict[Partition, int]:
    """The partitions that are not there yet, and where they are."""
    reached = {(topic, partition): offset for topic, partition, offset in connection.execute(REACHED)}
    return {partition: reached.get(partition, 0) for partition, end in ends.items() if reached.get(partition, 0) < end}


def _still(
    connection: psycopg.Connection[Any],
    behind: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    timeout_s: float,
) -> str:
    (topic, partition), reached = next(iter(behind.items()))
    is_suspended = connection.execute(SUSPENDED, (topic,)).fetchone() is not None
    reason = f"{topic} is suspended" if is_suspended else "Is a worker running?"
    return (
        f"everything is in the log, but not visible after {timeout_s:g} s: partition {partition} of {topic} is folded up to "
        f"offset {reached} of {ends[topic, partition]}. {reason}; see `spanfold status`"
    )

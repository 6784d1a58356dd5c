"""A topic whose records can't be judged any further is suspended alone: its verdicts stand still, other topics go on.

Two things suspend a topic. Too large a share of its recent records would be parked: then the schema or the version of spanfold
is wrong, not a record. Or the log has lost records before they were folded. The mark is in Postgres, every commit reads it, and
`spanfold resume` takes it off. The journal's checkpoint holds the log meanwhile.

The share is counted in Postgres, in the transaction that parks: all workers of a topic count together, and a restart forgets
nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

from psycopg import Connection, Cursor

from spanfold.language.errors import PoisonRecord, SpanfoldError
from spanfold.language.parking import ParkedReason
from spanfold.language.positions import Position
from spanfold.postgres.texts import storable
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.journal import CORE

RECENT_RECORDS: Final = 10_000
"""So many of each partition's last records are counted; those of a larger batch all count."""

FEWEST_RECORDS: Final = 1_000
"""A topic of which fewer records have been counted is not suspended."""


class TopicSuspended(SpanfoldError):
    """The topic's verdicts stand still; nothing of the batch was committed."""

    exit_code = 3

    def __init__(self, topic: str, because: str) -> None:
        super().__init__(f"{topic} is suspended: {because}")
        self.topic = topic


class ParkedShareExceeded(SpanfoldError):
    """Too large a share of the topic's recent records would be parked; the transaction must not be committed."""


def refuse_suspended(cursor: Cursor[Any], topic: str) -> None:
    """TopicSuspended, if it is."""
    row = cursor.execute(BECAUSE, (topic,)).fetchone()
    if row is not None and row[0] is not None:
        raise TopicSuspended(topic, row[0])


def suspend_topic(connection: Connection[Any], topic: str, because: str) -> None:
    """Mark the topic, in a transaction of its own; the first reason is kept."""
    connection.execute(SUSPEND, (storable(because), topic))


def count_parked(
    cursor: Cursor[Any], batch: Batch, fresh: int, parked: Mapping[int, PoisonRecord], limit: float
) -> None:
    """Count so many fresh records of the batch, and those of them that are parked (by index), but for what only waits behind
    others. ParkedShareExceeded when a larger share than the limit of the topic's recent records is parked.
    """
    offsets = [batch.offsets[index] for index, poison in parked.items() if poison.reason != ParkedReason.BEHIND]
    where = {"topic": batch.topic.name, "partition": batch.partition}
    cursor.execute(COUNT, {**where, "fresh": fresh, "parked": offsets, "recent": RECENT_RECORDS})
    records, count = cursor.fetchone() or (0, 0)
    if not offsets or records < FEWEST_RECORDS or count <= limit * records:
        return
    first = min(parked)
    raise ParkedShareExceeded(
        f"{count} of the last {records} records of {batch.topic.name} can't be folded, a larger share than {limit:g} "
        f"(SPANFOLD_PARKED_SHARE_LIMIT); {Position(batch.topic.name, batch.partition, batch.offsets[first])} is "
        f"{parked[first]}"
    )


SUSPENDED_TOPICS: Final = f"SELECT topic FROM {CORE}.topics WHERE suspended_at IS NOT NULL"

BECAUSE: Final = f"SELECT suspended_because FROM {CORE}.topics WHERE topic = %s"

SUSPEND: Final = f"""
UPDATE {CORE}.topics
   SET suspended_at = clock_timestamp(), suspended_because = %s
 WHERE topic = %s AND suspended_at IS NULL
"""

COUNT: Final = f"""
WITH counted AS (
    SELECT count(*) AS parked
      FROM unnest(%(parked)s::bigint[]) AS p (kafka_offset)
     WHERE kafka_offset >= coalesce(
           (SELECT permitted_below FROM {CORE}.parked_shares
             WHERE (topic, partition) = (%(topic)s, %(partition)s)), 0)
), own AS (
    INSERT INTO {CORE}.parked_shares AS s (topic, partition, records, parked)
    SELECT %(topic)s, %(partition)s, %(fresh)s, parked FROM counted
    ON CONFLICT (topic, partition) DO UPDATE
       SET records = excluded.records + least(s.records, greatest(%(recent)s - excluded.records, 0)),
           parked = excluded.parked
                  + s.parked * least(s.records, greatest(%(recent)s - excluded.records, 0)) / greatest(s.records, 1)
    RETURNING records, parked
)
SELECT own.records + coalesce(others.records, 0), own.parked + coalesce(others.parked, 0)
  FROM own
 CROSS JOIN (SELECT sum(records)::bigint AS records, sum(parked)::bigint AS parked
               FROM {CORE}.parked_shares
              WHERE topic = %(topic)s AND partition <> %(partition)s) AS others
"""
"""Older records count by the share of them that was parked, as far as the partition's newest leave room for them."""

"""The tables of states and snapshots: what is read of them, and what is written, many rows at a time."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from psycopg import Connection, Cursor, sql
from sqlalchemy import TIMESTAMP, BigInteger, Column, Integer, LargeBinary, MetaData, SmallInteger, Table, Text

from spanfold.language.topics import Topic
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.commit.checkpoints import lock_checkpoint
from spanfold.projections.commit.journal import CORE

SNAPSHOTS: Final = "snapshots"
"""Owner of the checkpoints up to which states are folded; its generation is the fold version of the topic's aggregate."""

_STATES: Final = CopyTarget(
    Table(
        "states",
        MetaData(schema=CORE),
        Column("topic", Text),
        Column("partition", SmallInteger),
        Column("aggregate_id", Text),
        Column("fold_version", Integer),
        Column("version", BigInteger),
        Column("records", Integer),
        Column("first_log_time", TIMESTAMP(timezone=True)),
        Column("due_at", TIMESTAMP(timezone=True)),
        Column("state", LargeBinary),
    )
)


class KeptState(NamedTuple):
    """The state of an aggregate as it is kept. `records` counts those that are in no snapshot, the first of which came at
    `first_log_time` (µs since 1970 UTC; None when there is none).
    """

    aggregate_id: str
    version: int
    records: int
    first_log_time: int | None
    state: bytes


@dataclass(frozen=True, slots=True)
class StateRow:
    """A state that is to be kept; times in µs since 1970 UTC."""

    aggregate_id: str
    version: int
    records: int
    first_log_time: int
    due_at: int
    state: bytes


class FoldedPartition(NamedTuple):
    """One partition of a topic, as one fold of its aggregates sees it."""

    topic: Topic
    partition: int
    fold_version: int

    @property
    def parameters(self) -> dict[str, Any]:
        return {"topic": self.topic.name, "partition": self.partition, "fold_version": self.fold_version}


def register(connection: Connection[Any], topic: Topic, fold_version: int) -> None:
    """Have checkpoints for the states of this topic, at 0 where there are none."""
    connection.execute(REGISTER, {"topic": topic.name, "fold_version": fold_version})


def lock(cursor: Cursor[Any], folded: FoldedPartition) -> tuple[int, int] | None:
    """Lock the states of the partition until the transaction ends. Returns up to where they are folded, and up to where its
    records are judged; None when nobody has registered them.
    """
    return lock_checkpoint(cursor, folded.topic.name, folded.partition, SNAPSHOTS, folded.fold_version)


def kept_states(cursor: Cursor[Any], folded: FoldedPartition, aggregate_ids: Collection[str]) -> dict[str, KeptState]:
    """The states of those of these aggregates that have one."""
    cursor.execute(KEPT_STATES, {**folded.parameters, "ids": list(aggregate_ids)}, binary=True)
    return {row[0]: KeptState(*row) for row in cursor}


def keep(cursor: Cursor[Any], folded: FoldedPartition, rows: Iterable[StateRow]) -> None:
    """Put these states in the place of what is kept of their aggregates."""
    topic, partition, fold_version = folded.topic.name, folded.partition, folded.fold_version
    incoming = _STATES.copy_incoming(
        cursor,
        CORE,
        (
            (
                topic, partition, row.aggregate_id, fold_version, row.version, row.records,
                row.first_log_time - PG_EPOCH_US, row.due_at - PG_EPOCH_US, row.state,
            )
            for row in rows
        ),
    )  # fmt: skip
    cursor.execute(sql.SQL(KEEP).format(incoming=incoming))


def take(cursor: Cursor[Any], folded: FoldedPartition, until: int | None = None) -> int:
    """Make snapshots of the states that are due by this time (µs since 1970 UTC), or of all; returns how many."""
    cursor.execute(TAKE, {**folded.parameters, "until": until})
    return cursor.rowcount


def versions_at(
    cursor: Cursor[Any], journal: str, aggregate_ids: Sequence[str], after: Sequence[int], offsets: Sequence[int]
) -> dict[int, int]:
    """The versions of the records at these offsets of a conditional topic, whose aggregates are at versions `after`."""
    statement = sql.SQL(VERSIONS).format(journal=sql.Identifier(CORE, journal))
    cursor.execute(statement, (list(aggregate_ids), list(after), list(offsets)))
    return dict(cursor.fetchall())


# joins, because `= ANY` of thousands is a search through all of them for each row, until the tables have been analyzed
KEPT_STATES: Final = f"""
SELECT a.id, coalesce(t.version, s.version), coalesce(t.records, 0),
       (extract(epoch FROM t.first_log_time) * 1000000)::bigint, coalesce(t.state, s.state)
  FROM unnest(%(ids)s::text[]) AS a (id)
  LEFT JOIN {CORE}.states t
    ON (t.topic, t.fold_version, t.aggregate_id) = (%(topic)s, %(fold_version)s, a.id)
  LEFT JOIN {CORE}.snapshots s
    ON t.version IS NULL AND (s.topic, s.fold_version, s.aggregate_id) = (%(topic)s, %(fold_version)s, a.id)
 WHERE t.version IS NOT NULL OR s.version IS NOT NULL
"""

KEEP: Final = f"""
INSERT INTO {CORE}.states AS s (topic, partition, aggregate_id, fold_version, version, records, first_log_time, due_at, state)
SELECT topic, partition, aggregate_id, fold_version, version, records, first_log_time, due_at, state FROM {{incoming}}
ON CONFLICT (topic, aggregate_id, fold_version) DO UPDATE
   SET version = excluded.version, records = excluded.records, first_log_time = excluded.first_log_time,
       due_at = excluded.due_at, state = excluded.state
"""

TAKE: Final = f"""
WITH due AS (
    DELETE FROM {CORE}.states
     WHERE topic = %(topic)s AND partition = %(partition)s AND fold_version = %(fold_version)s
       AND (%(until)s::bigint IS NULL OR due_at <= to_timestamp(%(until)s::bigint / 1000000.0))
 RETURNING aggregate_id, version, state)
INSERT INTO {CORE}.snapshots AS s (topic, partition, aggregate_id, fold_version, version, next_offset, sequence, state)
SELECT %(topic)s, %(partition)s, due.aggregate_id, %(fold_version)s, due.version, c.next_offset,
       nextval('{CORE}.snapshot_sequence'), due.state
  FROM due, {CORE}.checkpoints c
 WHERE (c.topic, c.partition, c.projection, c.generation) = (%(topic)s, %(partition)s, '{SNAPSHOTS}', %(fold_version)s)
ON CONFLICT (topic, aggregate_id, fold_version) DO UPDATE
   SET version = excluded.version, next_offset = excluded.next_offset, sequence = excluded.sequence,
       taken_at = now(), state = excluded.state
"""

REGISTER: Final = f"""
WITH registered AS (
    INSERT INTO {CORE}.checkpoints (topic, partition, projection, generation, next_offset)
    SELECT t.topic, p.partition, '{SNAPSHOTS}', %(fold_version)s, 0
      FROM {CORE}.topics t, generate_series(0, t.partitions - 1) AS p (partition)
     WHERE t.topic = %(topic)s
    ON CONFLICT DO NOTHING
    RETURNING topic, partition)
INSERT INTO {CORE}.snapshot_feed (topic, partition, sequence)
SELECT topic, partition, 0 FROM registered
ON CONFLICT DO NOTHING
"""

DUE: Final = f"""
SELECT c.topic, c.partition
  FROM {CORE}.checkpoints c
  JOIN unnest(%s::text[], %s::integer[]) AS a (topic, fold_version) ON (a.topic, a.fold_version) = (c.topic, c.generation)
 WHERE c.projection = '{SNAPSHOTS}'
   AND EXISTS (SELECT FROM {CORE}.states s
                WHERE (s.topic, s.partition, s.fold_version) = (c.topic, c.partition::smallint, c.generation)
                  AND s.due_at <= now())
"""

VERSIONS: Final = """
SELECT j.kafka_offset, j.version
  FROM unnest(%s::text[], %s::bigint[]) AS a (aggregate_id, version)
  JOIN {journal} j ON j.aggregate_id = a.aggregate_id AND j.version > a.version
  JOIN unnest(%s::bigint[]) AS o (kafka_offset) ON o.kafka_offset = j.kafka_offset
"""

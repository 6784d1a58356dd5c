"""What the compacted topic still lacks of the committed snapshots.

Sequence numbers are given under the lock of the partition's states, so they become visible in their order.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from psycopg import Connection

from spanfold.projections.commit.journal import CORE


class Fed(NamedTuple):
    """How far the compacted topic has a partition's changes."""

    topic: str
    partition: int
    sequence: int


class Change(NamedTuple):
    """A snapshot that was taken, or (`state` is None) an aggregate that was erased."""

    sequence: int
    aggregate_id: str
    fold_version: int | None
    version: int | None
    next_offset: int | None
    state: bytes | None


def behind(connection: Connection[Any], fold_versions: Mapping[str, int]) -> list[Fed]:
    """The partitions of these topics with changes that the topic lacks."""
    parameters = (list(fold_versions), list(fold_versions.values()))
    return [Fed(*row) for row in connection.execute(BEHIND, parameters)]


def changes(connection: Connection[Any], fed: Fed, fold_version: int, limit: int, limit_bytes: int) -> list[Change]:
    """The next changes of the partition, in their order: `limit` at most, and none after states of `limit_bytes` together."""
    parameters = {**fed._asdict(), "fold_version": fold_version, "limit": limit, "limit_bytes": limit_bytes}
    return [Change(*row) for row in connection.execute(CHANGES, parameters, binary=True)]


def note(connection: Connection[Any], fed: Fed) -> None:
    """The topic has all changes up to this one."""
    connection.execute(NOTE, fed._asdict())


BEHIND: Final = f"""
SELECT f.topic, f.partition, f.sequence
  FROM {CORE}.snapshot_feed f
  JOIN unnest(%s::text[], %s::integer[]) AS a (topic, fold_version) USING (topic)
 WHERE EXISTS (SELECT FROM {CORE}.snapshots s
                WHERE (s.topic, s.partition) = (f.topic, f.partition) AND s.sequence > f.sequence
                  AND s.fold_version = a.fold_version)
    OR EXISTS (SELECT FROM {CORE}.erased e
                WHERE (e.topic, e.partition) = (f.topic, f.partition) AND e.sequence > f.sequence)
"""

CHANGES: Final = f"""
WITH next AS (
    SELECT sequence, aggregate_id, fold_version, version, next_offset, state
      FROM {CORE}.snapshots
     WHERE topic = %(topic)s AND partition = %(partition)s AND sequence > %(sequence)s AND fold_version = %(fold_version)s
    UNION ALL
    SELECT sequence, aggregate_id, NULL, NULL, NULL, NULL
      FROM {CORE}.erased
     WHERE topic = %(topic)s AND partition = %(partition)s AND sequence > %(sequence)s
     ORDER BY sequence
     LIMIT %(limit)s),
counted AS (
    SELECT *, sum(octet_length(state)) OVER (ORDER BY sequence ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW) AS bytes_before
      FROM next)
SELECT sequence, aggregate_id, fold_version, version, next_offset, state
  FROM counted
 WHERE coalesce(bytes_before, 0) < %(limit_bytes)s
 ORDER BY sequence
"""

NOTE: Final = f"""
UPDATE {CORE}.snapshot_feed
   SET sequence = %(sequence)s
 WHERE topic = %(topic)s AND partition = %(partition)s AND sequence < %(sequence)s
"""

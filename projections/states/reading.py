"""All states of a partition at one position: what a projection can be loaded from, instead of the log up to there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection, Cursor, IsolationLevel

from spanfold.application.aggregates import Aggregate, AggregateState
from spanfold.language.errors import Misconfigured
from spanfold.projections.commit.journal import CORE
from spanfold.projections.states.recovery import state_of
from spanfold.projections.states.rows import SNAPSHOTS, FoldedPartition, kept_states
from spanfold.schemas.codec import Codec

AT_ONCE: Final = 5_000
AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""States that are read, and folded, together; the last one may go beyond."""


class Standing(NamedTuple):
    """States hold all accepted records below `next_offset`; the last of those came at `log_time`."""

    next_offset: int
    log_time: datetime | None
    batches: Iterator[list[AggregateState]]


@contextmanager
def states_of(
    connection: Connection[Any], aggregate: type[Aggregate[Any]], folded: FoldedPartition
) -> Iterator[Standing]:
    """Every state of the partition, as one snapshot of the database shows them; `connection` is not in a transaction, and may
    be idle in this one for as long as the states are folded. Misconfigured when there are none, or as `state_of` says.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(name="sizes") as sizes, connection.cursor() as cursor:
        cursor.execute(NEVER_TOO_IDLE)
        standing = cursor.execute(STANDING, folded.parameters).fetchone()
        if standing is None:
            raise Misconfigured(
                f"{folded.topic.name}/{folded.partition} has no snapshots: let `spanfold worker snapshots` fold it first"
            )
        sizes.itersize = AT_ONCE
        sizes.execute(SIZES, folded.parameters)
        next_offset, log_time = standing
        batches = _decoded(cursor, aggregate, folded, next_offset, _groups(sizes))
        yield Standing(next_offset, log_time, batches)


def _groups(sizes: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """The ids of these aggregates in groups whose states are read together; sizes are in bytes."""
    ids, group_bytes = [], 0
    for aggregate_id, size in sizes:
        ids.append(aggregate_id)
        group_bytes += size
        if len(ids) == AT_ONCE or group_bytes >= AT_ONCE_BYTES:
            yield ids
            ids, group_bytes = [], 0
    if ids:
        yield ids


def _decoded(
    cursor: Cursor[Any],
    aggregate: type[Aggregate[Any]],
    folded: FoldedPartition,
    below: int,
    groups: Iterable[list[str]],
) -> Iterator[list[AggregateState]]:
    codec = Codec()
    for ids in groups:
        yield [
            AggregateState(kept.aggregate_id, kept.version, state_of(cursor, codec, aggregate, folded, kept, below))
            for kept in kept_states(cursor, folded, ids).values()
        ]


NEVER_TOO_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"
"""For a transaction that holds nobody up, and waits for another one."""

STANDING: Final = f"""
SELECT next_offset, log_time
  FROM {CORE}.checkpoints
 WHERE (topic, partition, projection, generation) = (%(topic)s, %(partition)s, '{SNAPSHOTS}', %(fold_version)s)
"""

SIZES: Final = f"""
SELECT aggregate_id, octet_length(state)
  FROM {CORE}.states
 WHERE topic = %(topic)s AND partition = %(partition)s AND fold_version = %(fold_version)s
UNION ALL
SELECT aggregate_id, octet_length(state)
  FROM {CORE}.snapshots s
 WHERE topic = %(topic)s AND partition = %(partition)s AND fold_version = %(fold_version)s
   AND NOT EXISTS (SELECT FROM {CORE}.states t
                    WHERE (t.topic, t.fold_version, t.aggregate_id) = (s.topic, s.fold_version, s.aggregate_id))
"""

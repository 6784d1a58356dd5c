"""All states of a partition at one position: what a projection can be loaded from, instead of the log up to there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection, IsolationLevel

from projections.journal import CORE
from projections.states.rows import SNAPSHOTS, Held, Place, held
from schemas.codec import Codec
from schemas.snapshots import decode_state
from spanfold.aggregates import Aggregate, AggregateState
from spanfold.errors import Misconfigured, PoisonRecord
from spanfold.topics import Topic

AT_ONCE: Final = 5_000
AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""States that are read, and folded, together; the last one may go beyond."""


class Standing(NamedTuple):
    """States hold all accepted records below `next_offset`; the last of those came at `log_time`."""

    next_offset: int
    log_time: datetime | None
    batches: Iterator[list[AggregateState]]


@contextmanager
def states_of(connection: Connection[Any], aggregate: type[Aggregate[Any]], place: Place) -> Iterator[Standing]:
    """Every state of the partition, as one snapshot of the database shows them; `connection` is not in a transaction, and may
    be idle in this one for as long as the states are folded. Misconfigured when there are none, or one can't be read.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(name="sizes") as sizes, connection.cursor() as cursor:
        cursor.execute(NEVER_TOO_IDLE)
        standing = cursor.execute(STANDING, place.parameters).fetchone()
        if standing is None:
            raise Misconfigured(
                f"{place.topic.name}[{place.partition}] has no snapshots: let `spanfold worker snapshots` fold it first"
            )
        sizes.itersize = AT_ONCE
        sizes.execute(SIZES, place.parameters)
        next_offset, log_time = standing
        kept = (held(cursor, place, ids).values() for ids in _together(sizes))
        yield Standing(next_offset, log_time, _decoded(kept, aggregate, Codec()))


def _together(sizes: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """The ids of these aggregates, those together whose states are read together; sizes are in bytes."""
    ids, bytes_together = [], 0
    for aggregate_id, size in sizes:
        ids.append(aggregate_id)
        bytes_together += size
        if len(ids) == AT_ONCE or bytes_together >= AT_ONCE_BYTES:
            yield ids
            ids, bytes_together = [], 0
    if ids:
        yield ids


def _decoded(
    kept: Iterable[Iterable[Held]], aggregate: type[Aggregate[Any]], codec: Codec
) -> Iterator[list[AggregateState]]:
    for together in kept:
        yield [
            AggregateState(each.aggregate_id, each.version, _read(codec, aggregate, each.aggregate_id, each.state))
            for each in together
        ]


def _read(codec: Codec, aggregate: type[Aggregate[Any]], aggregate_id: str, payload: bytes) -> Any:
    try:
        return decode_state(codec, aggregate, payload)
    except PoisonRecord as poison:
        raise unreadable(aggregate.topic, aggregate_id, poison) from poison


def unreadable(topic: Topic, aggregate_id: str, why: PoisonRecord, more: str = "") -> Misconfigured:
    """That a kept state can't be used by this version of spanfold; `more` is added to the reason."""
    return Misconfigured(
        f"the state of {aggregate_id} in {topic.name} can't be read here ({why}){more}: use the version of spanfold "
        "that wrote it, or a later one"
    )


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

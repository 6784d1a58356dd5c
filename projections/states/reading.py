"""All states of a partition at one position: what a projection can be loaded from, instead of the log up to there."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from psycopg import Connection, IsolationLevel

from projections.journal import CORE
from projections.states.rows import SNAPSHOTS, Place
from schemas.codec import Codec
from schemas.snapshots import decode_state
from spanfold.aggregates import Aggregate, AggregateState
from spanfold.errors import Misconfigured, PoisonRecord
from spanfold.topics import Topic

AT_ONCE: Final = 5_000
"""States that are read, and folded, together."""


class Standing(NamedTuple):
    """States hold all accepted records below `next_offset`; the last of those came at `log_time`."""

    next_offset: int
    log_time: datetime | None
    batches: Iterator[list[AggregateState]]


@contextmanager
def states_of(connection: Connection[Any], aggregate: type[Aggregate[Any]], place: Place) -> Iterator[Standing]:
    """Every state of the partition, as one snapshot of the database shows them; `connection` is not in a transaction.
    Misconfigured when there are none, or one can't be read.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(name="states") as cursor:
        standing = connection.execute(STANDING, place.parameters).fetchone()
        if standing is None:
            raise Misconfigured(
                f"{place.topic.name}[{place.partition}] has no snapshots: let `spanfold worker snapshots` fold it first"
            )
        cursor.itersize = AT_ONCE
        cursor.execute(ALL, place.parameters, binary=True)
        next_offset, log_time = standing
        yield Standing(next_offset, log_time, _decoded(cursor, aggregate, Codec()))


def _decoded(rows: Iterator[Any], aggregate: type[Aggregate[Any]], codec: Codec) -> Iterator[list[AggregateState]]:
    while batch := list(islice(rows, AT_ONCE)):
        yield [AggregateState(id_, version, _read(codec, aggregate, id_, state)) for id_, version, state in batch]


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


STANDING: Final = f"""
SELECT next_offset, log_time
  FROM {CORE}.checkpoints
 WHERE (topic, partition, projection, generation) = (%(topic)s, %(partition)s, '{SNAPSHOTS}', %(fold_version)s)
"""

ALL: Final = f"""
SELECT aggregate_id, version, state
  FROM {CORE}.states
 WHERE topic = %(topic)s AND partition = %(partition)s AND fold_version = %(fold_version)s
UNION ALL
SELECT aggregate_id, version, state
  FROM {CORE}.snapshots s
 WHERE topic = %(topic)s AND partition = %(partition)s AND fold_version = %(fold_version)s
   AND NOT EXISTS (SELECT FROM {CORE}.states t
                    WHERE (t.topic, t.fold_version, t.aggregate_id) = (s.topic, s.fold_version, s.aggregate_id))
"""

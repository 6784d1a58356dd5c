"""The state that is kept of an aggregate; one that can't be read is made again, as long as the journal has all of its events."""

from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.application.aggregates import Aggregate
from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.topics import TopicKind
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.journal import CORE
from spanfold.projections.states.rows import FoldedPartition, KeptState
from spanfold.schemas.codec import Codec
from spanfold.schemas.decoding import events_of
from spanfold.schemas.snapshots import decode_state


def state_of(
    cursor: Cursor[Any],
    codec: Codec,
    aggregate: type[Aggregate[Any]],
    folded: FoldedPartition,
    kept: KeptState,
    below: int,
) -> Any:
    """The state that is kept, after the aggregate's accepted records below this offset. Misconfigured when it can't be read, and
    can't be made again: the journal no longer has all of them, or one of them can't be read either.
    """
    try:
        return decode_state(codec, aggregate, kept.state)
    except PoisonRecord as poison:
        return _remade(cursor, codec, aggregate, folded, kept.aggregate_id, below, poison)


def _remade(
    cursor: Cursor[Any],
    codec: Codec,
    aggregate: type[Aggregate[Any]],
    folded: FoldedPartition,
    aggregate_id: str,
    below: int,
    why: PoisonRecord,
) -> Any:
    refusal = Misconfigured(
        f"the state of {aggregate_id} in {folded.topic.name} can't be read here ({why}), and the journal no longer has all of "
        "its events: use the version of spanfold that wrote it, or a later one"
    )
    table = arbiter_of(folded.topic).table
    if table is None or cursor.execute(PRUNED, folded.parameters).fetchone() is not None:
        raise refusal from why
    version = "j.version" if folded.topic.kind is TopicKind.CONDITIONAL else "j.kafka_offset + 1"
    statement = sql.SQL(EVENTS).format(journal=sql.Identifier(CORE, table.name), version=sql.SQL(version))
    cursor.execute(statement, {**folded.parameters, "id": aggregate_id, "below": below}, binary=True)
    try:
        recorded = [
            (event, version)
            for version, payload in cursor.fetchall()
            for event in events_of(codec, payload, {known.__name__ for known in aggregate.events})
        ]
    except PoisonRecord as poison:
        raise refusal from poison
    return aggregate.evolve_all(aggregate.initial(aggregate_id), recorded)


PRUNED: Final = f"SELECT FROM {CORE}.journal_retention WHERE topic = %(topic)s AND partition = %(partition)s"

EVENTS: Final = f"""
SELECT {{version}} AS version, j.payload
  FROM {{journal}} j
  LEFT JOIN {CORE}.parked p ON (p.topic, p.partition, p.kafka_offset) = (%(topic)s, j.partition, j.kafka_offset)
 WHERE j.aggregate_id = %(id)s AND j.partition = %(partition)s
   AND CASE WHEN p.kafka_offset IS NULL THEN j.kafka_offset < %(below)s
            ELSE p.settled_as = 'retried' AND p.settled_offset < %(below)s END
 ORDER BY 1, j.kafka_offset
"""

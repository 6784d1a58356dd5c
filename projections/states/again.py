"""A state made again from its aggregate's events, where the kept one can't be read: as long as the journal has them all."""

from typing import Any, Final

from psycopg import Cursor, sql

from projections.arbiter import arbiter_of
from projections.journal import CORE
from projections.states.reading import unreadable
from projections.states.rows import Held, Place
from schemas.codec import Codec
from schemas.events import events_of
from spanfold.aggregates import Aggregate
from spanfold.errors import PoisonRecord
from spanfold.topics import TopicKind


def made_again(
    cursor: Cursor[Any],
    codec: Codec,
    aggregate: type[Aggregate[Any]],
    place: Place,
    held: Held,
    below: int,
    why: PoisonRecord,
) -> Any:
    """The state after the aggregate's accepted records below this offset. Misconfigured, which tells `why` the kept one can't be
    read, when the journal no longer has all of them, or when one of them can't be read either.
    """
    refusal = unreadable(place.topic, held.aggregate_id, why, ", and its events are not all there to make it again")
    table = arbiter_of(place.topic).table
    if table is None or cursor.execute(LET_GO, place.parameters).fetchone() is not None:
        raise refusal from why
    version = "j.version" if place.topic.kind is TopicKind.CONDITIONAL else "j.kafka_offset + 1"
    statement = sql.SQL(EVENTS).format(journal=sql.Identifier(CORE, table.name), version=sql.SQL(version))
    cursor.execute(statement, {**place.parameters, "id": held.aggregate_id, "below": below}, binary=True)
    try:
        recorded = [
            (event, version)
            for version, payload in cursor.fetchall()
            for event in events_of(codec, payload, {each.__name__ for each in aggregate.events})
        ]
    except PoisonRecord as poison:
        raise refusal from poison
    return aggregate.evolve_all(aggregate.initial(held.aggregate_id), recorded)


LET_GO: Final = f"SELECT FROM {CORE}.let_go WHERE topic = %(topic)s AND partition = %(partition)s"

EVENTS: Final = f"""
SELECT {{version}} AS version, j.payload
  FROM {{journal}} j
  LEFT JOIN {CORE}.parked p ON (p.topic, p.partition, p.kafka_offset) = (%(topic)s, j.partition, j.kafka_offset)
 WHERE j.aggregate_id = %(id)s AND j.partition = %(partition)s
   AND CASE WHEN p.kafka_offset IS NULL THEN j.kafka_offset < %(below)s
            ELSE p.settled_as = 'retried' AND p.settled_at < %(below)s END
 ORDER BY 1, j.kafka_offset
"""

"""The state that is kept of an aggregate; one that can't be read is made again, as long as the journal has all of its events."""

from typing import Any, Final

from psycopg import Cursor, sql

from spanfold.application.aggregates import Aggregate
from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.topics import TopicKind
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.journal import CORE
from spanfold.projections.states.rows import Held, Place
from spanfold.schemas.codec import Codec
from spanfold.schemas.decoding import events_of
from spanfold.schemas.snapshots import decode_state


def state_of(
    cursor: Cursor[Any], codec: Codec, aggregate: type[Aggregate[Any]], place: Place, held: Held, below: int
) -> Any:
    """The state that is kept, after the aggregate's accepted records below this offset. Misconfigured when it can't be read, and
    can't be made again: the journal no longer has all of them, or one of them can't be read either.
    """
    try:
        return decode_state(codec, aggregate, held.state)
    except PoisonRecord as poison:
        return _made_again(cursor, codec, aggregate, place, held.aggregate_id, below, poison)


def _made_again(
    cursor: Cursor[Any],
    codec: Codec,
    aggregate: type[Aggregate[Any]],
    place: Place,
    aggregate_id: str,
    below: int,
    why: PoisonRecord,
) -> Any:
    refusal = Misconfigured(
        f"the state of {aggregate_id} in {place.topic.name} can't be read here ({why}), and its events are not all there to make "
        "it again: use the version of spanfold that wrote it, or a later one"
    )
    table = arbiter_of(place.topic).table
    if table is None or cursor.execute(LET_GO, place.parameters).fetchone() is not None:
        raise refusal from why
    version = "j.version" if place.topic.kind is TopicKind.CONDITIONAL else "j.kafka_offset + 1"
    statement = sql.SQL(EVENTS).format(journal=sql.Identifier(CORE, table.name), version=sql.SQL(version))
    cursor.execute(statement, {**place.parameters, "id": aggregate_id, "below": below}, binary=True)
    try:
        recorded = [
            (event, version)
            for version, payload in cursor.fetchall()
            for event in events_of(codec, payload, {each.__name__ for each in aggregate.events})
        ]
    except PoisonRecord as poison:
        raise refusal from poison
    return aggregate.evolve_all(aggregate.initial(aggregate_id), recorded)


LET_GO: Final = f"SELECT FROM {CORE}.journal_retention WHERE topic = %(topic)s AND partition = %(partition)s"

EVENTS: Final = f"""
SELECT {{version}} AS version, j.payload
  FROM {{journal}} j
  LEFT JOIN {CORE}.parked p ON (p.topic, p.partition, p.kafka_offset) = (%(topic)s, j.partition, j.kafka_offset)
 WHERE j.aggregate_id = %(id)s AND j.partition = %(partition)s
   AND CASE WHEN p.kafka_offset IS NULL THEN j.kafka_offset < %(below)s
            ELSE p.settled_as = 'retried' AND p.settled_offset < %(below)s END
 ORDER BY 1, j.kafka_offset
"""

"""Snapshots of aggregates as the event store reads and writes them: those that applications save, one row for each fold of an
aggregate, and the states that the snapshot worker keeps.
"""

import json
from typing import Final

from spanfold.application.aggregates import Aggregate, aggregate_of
from spanfold.application.event_store import Snapshot
from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.topics import Topic
from spanfold.postgres.pool import Postgres
from spanfold.projections.commit.journal import CORE
from spanfold.projections.states.rows import SNAPSHOTS
from spanfold.schemas.codec import Codec
from spanfold.schemas.snapshots import of_json, plain_state, to_json


async def save(postgres: Postgres, topic: Topic, snapshot: Snapshot, within_s: float) -> None:
    """Keep it, unless there is one of the same or a later version, or the aggregate was erased."""
    parameters = {
        "topic": topic.name,
        "aggregate_id": snapshot.aggregate_id,
        "fold_version": snapshot.fold_version,
        "version": snapshot.version,
        "state": json.dumps(to_json(snapshot.state), ensure_ascii=False, allow_nan=False),
    }
    await postgres.rows(SAVE, parameters, within_s=within_s)


async def latest(
    postgres: Postgres, codec: Codec, topic: Topic, aggregate_id: str, fold_version: int, within_s: float
) -> Snapshot | None:
    """The later one of what an application has saved and what the snapshot worker keeps, made by a fold of this version. One
    that can't be read here is none: then events are read from the start, if they are still there.
    """
    parameters = {"topic": topic.name, "aggregate_id": aggregate_id, "fold_version": fold_version}
    saved = await postgres.rows(SAVED, parameters, within_s=within_s)
    snapshots = [Snapshot(aggregate_id, version, fold_version, of_json(json.loads(state))) for version, state in saved]
    aggregate = _aggregate(topic, fold_version)
    if aggregate is not None:
        for version, state in await postgres.rows(KEPT, parameters, within_s=within_s):
            try:
                snapshots.append(Snapshot(aggregate_id, version, fold_version, plain_state(codec, aggregate, state)))
            except PoisonRecord:
                continue
    return max(snapshots, key=lambda snapshot: snapshot.version, default=None)


def _aggregate(topic: Topic, fold_version: int) -> type[Aggregate[object]] | None:
    try:
        aggregate = aggregate_of(topic)
    except Misconfigured:
        return None
    return aggregate if aggregate.fold_version == fold_version else None


# an erasure locks the table before it forgets: who saves meanwhile waits, and then sees it
SAVE: Final = f"""
INSERT INTO {CORE}.saved_snapshots AS s (topic, aggregate_id, fold_version, version, state)
SELECT %(topic)s, %(aggregate_id)s, %(fold_version)s, %(version)s, %(state)s::jsonb
 WHERE NOT EXISTS (SELECT FROM {CORE}.erased e WHERE (e.topic, e.aggregate_id) = (%(topic)s, %(aggregate_id)s))
ON CONFLICT (topic, aggregate_id, fold_version) DO UPDATE
   SET version = excluded.version, state = excluded.state, taken_at = now()
 WHERE s.version < excluded.version
"""

SAVED: Final = f"""
SELECT version, state::text
  FROM {CORE}.saved_snapshots
 WHERE (topic, aggregate_id, fold_version) = (%(topic)s, %(aggregate_id)s, %(fold_version)s)
"""

KEPT: Final = f"""
WITH kept AS (
    SELECT partition, version, state
      FROM {CORE}.states
     WHERE (topic, aggregate_id, fold_version) = (%(topic)s, %(aggregate_id)s, %(fold_version)s)
     UNION ALL
    SELECT partition, version, state
      FROM {CORE}.snapshots
     WHERE (topic, aggregate_id, fold_version) = (%(topic)s, %(aggregate_id)s, %(fold_version)s))
SELECT version, state
  FROM kept k
 WHERE NOT EXISTS (
       -- what is parked, or was retried behind the states, has a version that may lie before theirs
       SELECT FROM {CORE}.parked p
         JOIN {CORE}.checkpoints c
           ON (c.topic, c.partition, c.projection, c.generation) = (p.topic, p.partition, '{SNAPSHOTS}', %(fold_version)s)
        WHERE (p.topic, p.partition, p.aggregate_id) = (%(topic)s, k.partition, %(aggregate_id)s)
          AND p.settled_as IS DISTINCT FROM 'discarded'
          AND (p.settled_offset IS NULL OR p.settled_offset >= c.next_offset))
 ORDER BY version DESC
 LIMIT 1
"""

"""Snapshots that applications save through the event store: one row for each fold of an aggregate, the latest."""

import json
from typing import Final

from projections.asking import Postgres
from projections.journal import CORE
from schemas.snapshots import of_json, to_json
from spanfold.event_store import Snapshot
from spanfold.topics import Topic


async def save(postgres: Postgres, topic: Topic, snapshot: Snapshot, within_s: float) -> None:
    """Keep it, unless there is one of the same or a later version, or its aggregate was erased."""
    parameters = (
        topic.name, snapshot.aggregate_id, snapshot.fold_version, snapshot.version,
        json.dumps(to_json(snapshot.state), ensure_ascii=False, allow_nan=False),
    )  # fmt: skip
    await postgres.rows(SAVE, parameters, within_s=within_s)


async def latest(
    postgres: Postgres, topic: Topic, aggregate_id: str, fold_version: int, within_s: float
) -> Snapshot | None:
    """The one that a fold of this version has made."""
    rows = await postgres.rows(LATEST, (topic.name, aggregate_id, fold_version), within_s=within_s)
    if not rows:
        return None
    version, state = rows[0]
    return Snapshot(aggregate_id, version, fold_version, of_json(json.loads(state)))


SAVE: Final = f"""
INSERT INTO {CORE}.saved_snapshots AS s (topic, aggregate_id, fold_version, version, state)
SELECT n.* FROM (VALUES (%s, %s, %s::integer, %s::bigint, %s::jsonb)) AS n (topic, aggregate_id, fold_version, version, state)
 WHERE NOT EXISTS (SELECT FROM {CORE}.erased e WHERE (e.topic, e.aggregate_id) = (n.topic, n.aggregate_id))
ON CONFLICT (topic, aggregate_id, fold_version) DO UPDATE
   SET version = excluded.version, state = excluded.state, taken_at = now()
 WHERE s.version < excluded.version
"""

LATEST: Final = f"""
SELECT version, state::text FROM {CORE}.saved_snapshots WHERE topic = %s AND aggregate_id = %s AND fold_version = %s
"""

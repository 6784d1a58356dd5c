"""Snapshots that applications save through the event store: one row for each fold of an aggregate, the latest."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from projections.asking import Postgres
from projections.journal import CORE
from spanfold.event_store import Snapshot
from spanfold.topics import Topic


async def save(postgres: Postgres, topic: Topic, snapshot: Snapshot, within_s: float) -> None:
    """Keep it, unless there is one of the same or a later version."""
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


def to_json(value: Any) -> Any:
    """A plain state as jsonb can hold it without a loss: what it can't hold is an object of one member, `$bytes` in base64,
    `$text` in JSON's own escapes, `$float` as Python writes it, or `$map`, pairs.
    """
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case str():
            return value if _storable(value) else {"$text": json.dumps(value)}
        case float():
            # jsonb would make 1e300 an integer, and 0 of -0.0
            written = repr(value)
            return {"$float": written} if written == "-0.0" or set("en") & set(written) else value
        case Mapping():
            if all(_storable(name) and not name.startswith("$") for name in value):
                return {name: to_json(item) for name, item in value.items()}
            return {"$map": [[to_json(name), to_json(item)] for name, item in value.items()]}
        case list() | tuple():
            return [to_json(item) for item in value]
        case _:
            return value


def of_json(value: Any) -> Any:
    """The inverse of to_json; tuples come back as lists."""
    match value:
        case {"$bytes": str(encoded)}:
            return base64.b64decode(encoded)
        case {"$text": str(escaped)}:
            return json.loads(escaped)
        case {"$float": str(written)}:
            return float(written)
        case {"$map": list(pairs)}:
            return {of_json(name): of_json(item) for name, item in pairs}
        case dict():
            return {name: of_json(item) for name, item in value.items()}
        case list():
            return [of_json(item) for item in value]
        case _:
            return value


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


SAVE: Final = f"""
INSERT INTO {CORE}.saved_snapshots AS s (topic, aggregate_id, fold_version, version, state)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (topic, aggregate_id, fold_version) DO UPDATE
   SET version = excluded.version, state = excluded.state, taken_at = now()
 WHERE s.version < excluded.version
"""

LATEST: Final = f"""
SELECT version, state::text FROM {CORE}.saved_snapshots WHERE topic = %s AND aggregate_id = %s AND fold_version = %s
"""

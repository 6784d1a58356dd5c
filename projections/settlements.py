"""Facts about parked records. RecordRetried folds one at that place of the log, if it can be read now; RecordDiscarded gives it
up. Either happens once, and every replay does the same at the same place.

On a conditional topic a parked record holds up its aggregate's later ones: they are parked `behind` it, and folded in order
where it is settled.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import Cursor

from projections.batch import Batch, RecordHeaders
from projections.journal import CORE
from projections.reading import BEHIND, Fact, read
from projections.verdicts import judge
from schemas.codec import Codec
from spanfold.errors import Misconfigured, PoisonRecord
from spanfold.topics import ON_EVERY_TOPIC

Settled = tuple[int, list[Fact]]
"""(offset of the fact, what is to be folded there)."""


def is_settlement(fact: Fact) -> bool:
    """Whether the fact is about a parked record, and not for projections."""
    return fact[1] in ON_EVERY_TOPIC


def settle(cursor: Cursor[Any], codec: Codec, batch: Batch, facts: Iterable[Fact], journal_at: int) -> list[Settled]:
    """Settle what these accepted facts are about; returns what is to be folded. Below the journal's checkpoint nothing is
    settled anew: what was folded there before is folded again.
    """
    settled = []
    for offset, event_type, fields in sorted(facts, key=lambda fact: fact[0]):
        if offset < journal_at:
            found = _settled_before(cursor, codec, batch, offset)
        elif offset <= fields["record_offset"]:
            # it names a place that the log had not reached; that its batch may already hold a record there means nothing
            found = []
        elif event_type == "RecordDiscarded":
            found = _discard(cursor, codec, batch, offset, fields["record_offset"])
        else:
            found = _retry(cursor, codec, batch, offset, fields["record_offset"])
        settled.append((offset, found))
    return settled


def held_up(cursor: Cursor[Any], batch: Batch, aggregate_ids: Sequence[str]) -> set[str]:
    """Those of the aggregates that have a parked record which nothing has settled."""
    cursor.execute(HELD_UP, (batch.topic.name, batch.partition, list(set(aggregate_ids))))
    return {aggregate_id for (aggregate_id,) in cursor}


def _retry(cursor: Cursor[Any], codec: Codec, batch: Batch, at: int, offset: int) -> list[Fact]:
    rows = _parked(cursor, batch, "kafka_offset = %s AND settled_at IS NULL", offset)
    if not rows:
        return []
    try:
        fact = _fact(codec, batch, rows[0])
    except PoisonRecord as poison:
        cursor.execute(TRIED, (at, poison.reason, poison.detail, batch.topic.name, batch.partition, offset))
        return []
    _mark(cursor, batch, "retried", at, [offset])
    return [fact, *_release(cursor, codec, batch, at, rows[0])]


def _discard(cursor: Cursor[Any], codec: Codec, batch: Batch, at: int, offset: int) -> list[Fact]:
    rows = _parked(cursor, batch, "kafka_offset = %s AND settled_at IS NULL", offset)
    if not rows:
        return []
    _mark(cursor, batch, "discarded", at, [offset])
    return _release(cursor, codec, batch, at, rows[0])


def _release(cursor: Cursor[Any], codec: Codec, batch: Batch, at: int, before: tuple[Any, ...]) -> list[Fact]:
    """What was parked behind the settled record, up to the next one that can't be read by itself."""
    condition = "aggregate_id = %s AND settled_at IS NULL AND kafka_offset > %s"
    facts: list[Fact] = []
    for row in _parked(cursor, batch, condition, before[_AGGREGATE], before[0]):
        if row[_REASON] != BEHIND:
            break
        facts.append(_fact(codec, batch, row))
    _mark(cursor, batch, "retried", at, [offset for offset, _, _ in facts])
    return facts


def _settled_before(cursor: Cursor[Any], codec: Codec, batch: Batch, at: int) -> list[Fact]:
    facts = []
    for row in _parked(cursor, batch, "settled_at = %s AND settled_as = 'retried'", at):
        try:
            facts.append(_fact(codec, batch, row))
        except PoisonRecord as poison:
            raise Misconfigured(
                f"{batch.topic.name}[{batch.partition}] offset {row[0]} was retried and folded at {at}, but this version "
                f"cannot read it ({poison}): use the version that could"
            ) from poison
    return facts


def _fact(codec: Codec, batch: Batch, row: tuple[Any, ...]) -> Fact:
    """The parked record, read as if it had just come. Its fact keeps its own offset."""
    offset, _, log_time_ms, key, headers, value, _ = row
    one = Batch(
        batch.topic, batch.partition, batch.partitions, offset, offset + 1,
        [offset], [log_time_ms], [key], [_raw(headers)], [value],
    )  # fmt: skip
    parked: dict[int, PoisonRecord] = {}
    facts = read(judge(one), codec, parked)
    if parked:
        raise parked[0]
    return facts[0]


def _raw(headers: list[list[Any]]) -> RecordHeaders:
    """Headers as the record had them; see projections.refusals.headers_json."""

    def raw(value: Any) -> bytes | None:
        if isinstance(value, dict):
            return bytes.fromhex(value["hex"])
        return None if value is None else str(value).encode()

    return [((raw(name) or b"").decode(), raw(value)) for name, value in headers]


def _parked(cursor: Cursor[Any], batch: Batch, condition: str, *values: Any) -> list[tuple[Any, ...]]:
    cursor.execute(
        f"{PARKED} AND {condition} ORDER BY kafka_offset".encode(), (batch.topic.name, batch.partition, *values)
    )
    return cursor.fetchall()


def _mark(cursor: Cursor[Any], batch: Batch, settled_as: str, at: int, offsets: list[int]) -> None:
    cursor.execute(MARK, (settled_as, at, batch.topic.name, batch.partition, offsets))


_AGGREGATE: Final = 1
_REASON: Final = 6

PARKED: Final = f"""
SELECT kafka_offset, aggregate_id, (extract(epoch FROM log_time) * 1000)::bigint, key, headers, payload, reason
  FROM {CORE}.parked
 WHERE topic = %s AND partition = %s"""

HELD_UP: Final = f"""
SELECT DISTINCT aggregate_id FROM {CORE}.parked
 WHERE topic = %s AND partition = %s AND aggregate_id = ANY (%s) AND settled_at IS NULL
"""

TRIED: Final = f"""
UPDATE {CORE}.parked SET last_tried_at = %s, reason = %s, detail = %s
 WHERE topic = %s AND partition = %s AND kafka_offset = %s
"""

MARK: Final = f"""
UPDATE {CORE}.parked SET settled_as = %s, settled_at = %s
 WHERE topic = %s AND partition = %s AND kafka_offset = ANY (%s)
"""

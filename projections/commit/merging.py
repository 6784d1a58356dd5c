"""Writes what a batch says into one generation's tables, inside the caller's transaction; live commits and rebuilds share it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Cursor

from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.positions import Position
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.erasure import Erasure, erased_among, left_out
from spanfold.projections.commit.journal import CORE
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.settlements import Settled, settle
from spanfold.projections.projection import ErasesTraces, Projection
from spanfold.schemas.codec import Codec


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation that this process folds, and where it stands in the batch's partition."""

    projection: Projection
    number: int
    schema: str
    next_offset: int


def settled_by(
    cursor: Cursor[Any], codec: Codec, prepared: Prepared, excluded: set[int], journal_at: int
) -> list[Settled]:
    """What the batch's facts about parked records make foldable; see settlements.settle."""
    facts = [fact for fact in prepared.settlements if fact[0] not in excluded]
    if not facts:
        return []
    return settle(cursor, codec, prepared.judged.batch, facts, journal_at, prepared.refused)


def merge(
    cursor: Cursor[Any],
    prepared: Prepared,
    generation: Generation,
    excluded: set[int],
    settled: Sequence[Settled],
    erasures: Sequence[Erasure],
) -> None:
    """Merge what lies at or above the generation's checkpoint and is not `excluded` (offsets), and what was settled there;
    then take out what was erased there.
    """
    batch, projection = prepared.judged.batch, generation.projection
    if generation.next_offset >= batch.end:
        return
    if excluded or generation.next_offset > batch.start:
        left = [f for f in prepared.facts if f[0] >= generation.next_offset and f[0] not in excluded]
        partial = projection.fold(left)
    else:
        partial = prepared.partials[projection.name]
    if settled:
        late = [fact for at, facts in settled if at >= generation.next_offset for fact in facts]
        partial = projection.combine(partial, projection.fold(late))
    projection.merge(cursor, generation.schema, partial, batch.partition)
    erase(cursor, generation, [each for each in erasures if each.offset >= generation.next_offset], batch.partition)


def erase(cursor: Cursor[Any], generation: Generation, erasures: Sequence[Erasure], partition: int) -> None:
    """Take these traces out of the generation's tables, if its projection says how."""
    if erasures and isinstance(generation.projection, ErasesTraces):
        ids = [each.aggregate_id for each in erasures]
        generation.projection.erase(cursor, generation.schema, ids, partition)


def looked_up(cursor: Cursor[Any], prepared: Prepared, journal_at: int) -> set[int]:
    """What is not to be folded of the part of the batch that lies below the journal's checkpoint; see `unfolded`."""
    batch = prepared.judged.batch
    unreadable = {batch.offsets[index]: poison for index, poison in prepared.parked.items()}
    return unfolded(cursor, batch, journal_at, unreadable)


def unfolded(cursor: Cursor[Any], batch: Batch, judged_to: int, unreadable: Mapping[int, PoisonRecord]) -> set[int]:
    """Offsets of the batch below `judged_to` that were rejected or parked when they were judged, or whose trace was erased by
    then or later. Misconfigured when one of the `unreadable` (by offset) is not among them.
    """
    where = {"topic": batch.topic.name, "partition": batch.partition, "start": batch.start}
    cursor.execute(UNFOLDED, {**where, "end": min(judged_to, batch.end)})
    found = {offset for (offset,) in cursor} | left_out(batch, erased_among(cursor, batch), judged_to)
    for offset, poison in unreadable.items():
        if offset < judged_to and offset not in found:
            raise no_longer_readable(batch, offset, poison)
    return found


def no_longer_readable(batch: Batch, offset: int, poison: PoisonRecord) -> Misconfigured:
    """What a fold ends with that meets a record which was folded before, and which this code can't read."""
    return Misconfigured(
        f"{Position(batch.topic.name, batch.partition, offset)} has been folded before, but this "
        f"version cannot read it ({poison}): use the version that could"
    )


def advance(cursor: Cursor[Any], batch: Batch, owners: Iterable[tuple[str, int]]) -> None:
    """Move the checkpoints of these (projection, generation) to the batch's end."""
    log_time_ms = batch.log_times_ms[-1] if batch.log_times_ms else None
    where = (batch.topic.name, batch.partition)
    cursor.executemany(ADVANCE, [(batch.end, log_time_ms, *where, name, number, batch.end) for name, number in owners])


ADVANCE: Final = f"""
UPDATE {CORE}.checkpoints
   SET next_offset = %s,
       log_time = coalesce(to_timestamp(%s::double precision / 1000), log_time)
 WHERE topic = %s AND partition = %s AND projection = %s AND generation = %s AND next_offset < %s
"""

UNFOLDED: Final = f"""
SELECT kafka_offset FROM {CORE}.rejected
 WHERE topic = %(topic)s AND partition = %(partition)s AND kafka_offset >= %(start)s AND kafka_offset < %(end)s
UNION ALL
SELECT kafka_offset FROM {CORE}.parked
 WHERE topic = %(topic)s AND partition = %(partition)s AND kafka_offset >= %(start)s AND kafka_offset < %(end)s
"""
